//! A guest of a Xen host: its console, and how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use super::domu::DomU;
use super::host::{Host, HostDisk};

/// How often files are looked at that dom0 writes.
const GLANCE: Duration = Duration::from_millis(20);

/// What has become of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, or waits.
    Runs,
    /// It has switched itself off.
    Halted,
    /// It has asked for a reboot, or its processor has shut down after a triple fault.
    Rebooted,
    /// It has crashed, or Xen has crashed it.
    Crashed,
    /// It has ended for another of Xen's reasons (`SHUTDOWN_…` in Xen's public headers).
    Ended(u32),
    /// There is no such guest any more.
    Gone,
}

/// A guest. It is destroyed when this is dropped.
pub struct Guest<'a> {
    host: &'a Host,
    name: String,
    domid: u32,
    console: PathBuf,
    /// Where its console begins in that file.
    begin: usize,
    destroyed: bool,
    /// Dropped behind the guest that uses them.
    _disks: Vec<HostDisk<'a>>,
}

impl<'a> Guest<'a> {
    pub(super) fn create(host: &'a Host, guest: &DomU) -> Result<Self> {
        let disks =
            guest.disks.iter().map(|disk| host.attach(&disk.image, disk.writable)).collect::<Result<Vec<_>>>()?;
        let devices: Vec<&str> = disks.iter().map(HostDisk::device).collect();
        let name = &guest.name;
        let (kernel, ramdisk) = (format!("/tmp/{name}.kernel"), format!("/tmp/{name}.ramdisk"));
        let configuration = guest.configuration(&kernel, guest.ramdisk.as_ref().map(|_| &*ramdisk), &devices)?;
        let offered = offer(host, guest, &configuration)?;

        let console = host.share().join(format!("console/guest-{name}.log"));
        let begin = fs::metadata(&console).map_or(0, |metadata| metadata.len() as usize);
        // Copied first: xl maps the files, and would get each page from the shared folder by itself.
        let folder = format!("/share/{}", offered.path().file_name().unwrap_or_default().display());
        let script = format!(
            "cp {folder}/kernel {kernel} || exit
if [ -e {folder}/ramdisk ]; then cp {folder}/ramdisk {ramdisk} || exit; fi
xl create -q {folder}/configuration; status=$?
rm -f {kernel} {ramdisk}
[ $status = 0 ] && exec xl domid {name}
exit $status"
        );
        let complain = |error| {
            let log = fs::read(log(host, name)).unwrap_or_default();
            anyhow!("{error:#}\nxl:\n{}\n{}", String::from_utf8_lossy(&log), host.report())
        };
        let said = host.check(&script).map_err(complain)?;
        let domid = said.lines().last().and_then(|line| line.parse().ok());
        let domid = domid.with_context(|| format!("xl has created {name} and said {said:?}"))?;
        Ok(Self { host, name: name.clone(), domid, console, begin, destroyed: false, _disks: disks })
    }

    /// Xen's number of it.
    pub fn domid(&self) -> u32 {
        self.domid
    }

    /// What its console has said so far; carriage returns are left out.
    pub fn console(&self) -> String {
        let all = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(all.get(self.begin..).unwrap_or_default()).replace('\r', "")
    }

    /// Waits for a line of its console that contains `text`, and returns it.
    ///
    /// # Errors
    /// If it ends before that or takes longer than `limit`, with its console and Xen's.
    pub fn wait_for(&self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            // In this order: all that it said before its end is on the console then.
            let (state, said) = (self.state(), self.console());
            if let Some(line) = said.split_inclusive('\n').find(|line| line.contains(text) && line.ends_with('\n')) {
                return Ok(line.trim_end().to_owned());
            }
            ensure!(state == State::Runs, "no {text:?} on the console: {state:?}\n{}", self.report());
            ensure!(Instant::now() < deadline, "no {text:?} on the console: it took too long\n{}", self.report());
            sleep(GLANCE);
        }
    }

    /// Says a line to its console.
    ///
    /// # Errors
    /// If dom0 can't.
    pub fn say(&self, line: &str) -> Result<()> {
        let terminal = format!("$(xenstore-read /local/domain/{}/console/tty)", self.domid);
        self.host.check(&format!("cat >\"{terminal}\" <<'LINE'\n{line}\nLINE"))?;
        Ok(())
    }

    /// What has become of it, as far as xl has noticed.
    pub fn state(&self) -> State {
        parsed(&self.log(), self.domid)
    }

    /// Waits until it has ended in some way.
    ///
    /// # Errors
    /// If that takes longer than `limit`, with its console and Xen's.
    pub fn wait_for_end(&self, limit: Duration) -> Result<State> {
        let deadline = Instant::now() + limit;
        loop {
            match self.state() {
                State::Runs if Instant::now() > deadline => bail!("it does not end\n{}", self.report()),
                State::Runs => sleep(GLANCE),
                state => return Ok(state),
            }
        }
    }

    /// Destroys it, whatever it does.
    ///
    /// # Errors
    /// If dom0 can't.
    pub fn destroy(mut self) -> Result<()> {
        self.destroyed = true;
        self.host.check(&self.end())?;
        Ok(())
    }

    /// Its console and its host's, for messages.
    pub fn report(&self) -> String {
        let (name, console, log) = (&self.name, self.console(), self.log());
        format!("console of {name}:\n{console}\nxl:\n{log}\n{}", self.host.report())
    }

    /// What xl says, which watches it.
    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(log(self.host, &self.name)).unwrap_or_default()).into_owned()
    }

    /// How dom0 destroys it, unless it is gone.
    fn end(&self) -> String {
        format!("xl destroy {0} || ! xl list {0}", self.domid)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if !self.destroyed {
            // The host may have ended.
            let _ = self.host.run(&self.end());
        }
    }
}

/// Puts what a guest is booted from into a folder that dom0 sees.
fn offer(host: &Host, guest: &DomU, configuration: &str) -> Result<TempDir> {
    let folder = tempfile::tempdir_in(host.share()).context("the shared folder")?;
    let copy = |from: &Path, name: &str| {
        let copied = fs::copy(from, folder.path().join(name));
        copied.map(drop).with_context(|| format!("{} can't be copied", from.display()))
    };
    copy(&guest.kernel, "kernel")?;
    guest.ramdisk.iter().try_for_each(|ramdisk| copy(ramdisk, "ramdisk"))?;
    fs::write(folder.path().join("configuration"), configuration)?;
    Ok(folder)
}

/// Where xl's log of a guest is.
fn log(host: &Host, name: &str) -> PathBuf {
    host.share().join(format!("log/xl-{name}.log"))
}

/// A guest's state, by what xl says.
fn parsed(log: &str, domid: u32) -> State {
    let subject = format!("Domain {domid} has ");
    for line in log.lines() {
        let Some((_, what)) = line.split_once(&subject) else { continue };
        let reason = what.strip_prefix("shut down, reason code ");
        match reason.and_then(|rest| rest.split(' ').next()?.parse().ok()) {
            Some(0) => return State::Halted,
            Some(1) => return State::Rebooted,
            Some(3) => return State::Crashed,
            Some(other) => return State::Ended(other),
            None if what.starts_with("been destroyed") => return State::Gone,
            None => {}
        }
    }
    State::Runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xl_tells_how_a_guest_has_ended() {
        let log = |what: &str| format!("Waiting for domain a (domid 7) to die [pid 9]\nDomain 7 has {what}\nDone.\n");
        for (what, state) in [
            ("shut down, reason code 0 0x0", State::Halted),
            ("shut down, reason code 1 0x1", State::Rebooted),
            ("shut down, reason code 3 0x3", State::Crashed),
            ("shut down, reason code 5 0x5", State::Ended(5)),
            ("been destroyed.", State::Gone),
            ("been seen", State::Runs),
        ] {
            assert_eq!(parsed(&log(what), 7), state);
            assert_eq!(parsed(&log(what), 77), State::Runs);
        }
        assert_eq!(parsed("", 7), State::Runs);
    }
}
