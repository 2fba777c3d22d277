//! A guest of a Xen host: its console, and how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use super::domu::DomU;
use super::host::{Host, HostDisk};

/// How often a console is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// How often dom0 is asked for a guest's state, which costs it more.
const LOOK: Duration = Duration::from_millis(500);

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
        let folder = format!("/share/{}", offered.path().file_name().unwrap_or_default().display());
        let script = format!(
            "cp {folder}/kernel {kernel} || exit
if [ -e {folder}/ramdisk ]; then cp {folder}/ramdisk {ramdisk} || exit; fi
xl create -q {folder}/configuration; status=$?
rm -f {kernel} {ramdisk}
[ $status = 0 ] && exec xl domid {name}
cat /var/log/xen/xl-{name}.log 2>/dev/null
exit $status"
        );
        let said = host.check(&script).map_err(|error| anyhow!("{error:#}\n{}", host.report()))?;
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
        let mut look = Instant::now() + LOOK;
        let mut state = State::Runs;
        loop {
            let said = self.console();
            if let Some(line) = said.split_inclusive('\n').find(|line| line.contains(text) && line.ends_with('\n')) {
                return Ok(line.trim_end().to_owned());
            }
            // It has been looked for once more after the end.
            ensure!(state == State::Runs, "no {text:?} on the console: {:?}\n{}", state, self.report());
            ensure!(Instant::now() < deadline, "no {text:?} on the console: it took too long\n{}", self.report());
            if Instant::now() > look {
                state = self.state()?;
                look = Instant::now() + LOOK;
            }
            sleep(GLANCE);
        }
    }

    /// What has become of it.
    ///
    /// # Errors
    /// If dom0 does not answer.
    pub fn state(&self) -> Result<State> {
        let output = self.host.run(&format!("xl list -v {}", self.domid))?;
        if output.status != 0 {
            return Ok(State::Gone);
        }
        parsed(&output.text).with_context(|| format!("xl says {:?}", output.text))
    }

    /// Waits until it has ended in some way.
    ///
    /// # Errors
    /// If that takes longer than `limit`, with its console and Xen's.
    pub fn wait_for_end(&self, limit: Duration) -> Result<State> {
        let deadline = Instant::now() + limit;
        loop {
            match self.state()? {
                State::Runs if Instant::now() > deadline => bail!("it does not end\n{}", self.report()),
                State::Runs => sleep(LOOK / 4),
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
        format!("console of {}:\n{}\n{}", self.name, self.console(), self.host.report())
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

/// A guest's state, by the last line of `xl list -v`: name, number, memory, processors, flags, time, UUID, reason, label.
fn parsed(list: &str) -> Option<State> {
    let words: Vec<&str> = list.lines().last()?.split_whitespace().collect();
    Some(match *words.get(7)? {
        "-" => State::Runs,
        "0" => State::Halted,
        "1" => State::Rebooted,
        "3" => State::Crashed,
        other => State::Ended(other.parse().ok()?),
    })
}
