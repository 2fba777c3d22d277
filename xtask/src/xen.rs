//! The kernel as a guest of a Xen host that runs in QEMU, by hand.

use std::net::{SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use testbed::xen::{self, Bed, Config, DOM0, Disk, DomU, GUEST, Guest, Host, State};

use crate::kernel;
use crate::run::{cargo, root, step, target};

/// The machine's memory beside that of the guest: for Xen itself and dom0.
const HOST_MIB: u32 = 768;

/// As long as anybody may want.
const LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long a guest may take to halt.
const HALT_LIMIT: Duration = Duration::from_secs(5);

/// How often to look for something new.
const GLANCE: Duration = Duration::from_millis(50);

/// Arguments of `cargo xtask xen`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The folder to serve (it is packed into a temporary image), or the images of an SHFS volume: the guest's disks, in this
    /// order [default: demofs]
    #[arg(value_name = "DIR|IMAGE")]
    paths: Vec<PathBuf>,

    /// The guest's memory, in MiB
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    memory_mib: u32,

    /// Where its port 80 is reached
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddrV4,

    /// Where its µShell is reached by telnet
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:2323")]
    shell: SocketAddrV4,

    /// The kernel's command line, behind `-i 10.77.0.2/24 -g 10.77.0.1` unless it has an -i
    #[arg(last = true, value_name = "PARAMETER")]
    parameters: Vec<String>,
}

/// Boots the host and the guest, and shows what the guest says until it ends.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(reason) = xen::obstacle() {
        bail!("no Xen host can be had here: {reason}");
    }
    for (option, at) in [("--listen", arguments.listen), ("--shell", arguments.shell)] {
        TcpListener::bind(at).with_context(|| format!("{at} can't be listened at: choose another by {option}"))?;
    }
    kernel::run()?;
    // From here on, what is temporary is removed before the end.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("can't handle signals")?;
    let temporary = tempfile::tempdir().context("no temporary folder")?;
    let guest = DomU {
        parameters: command_line(&arguments.parameters),
        memory_mib: arguments.memory_mib,
        disks: disks(&arguments.paths, temporary.path())?,
        ..DomU::new("minicache", &target().join("minicache.elf"))
    };
    let config = Config {
        memory_mib: HOST_MIB + arguments.memory_mib,
        forwards: vec![(arguments.listen, 80), (arguments.shell, 23)],
        limit: LIMIT,
        ..Config::default()
    };
    eprintln!("xtask: making the Xen host of Debian's packages, unless it is there, and booting it");
    let host = Bed::get(&target().join("xen"))?.boot(&config)?;
    let guest = host.create(&guest)?;
    println!("The guest's port 80 is at http://{}/", arguments.listen);
    println!("Its shell is reached by: telnet {} {}", arguments.shell.ip(), arguments.shell.port());
    println!("Press Ctrl-C to halt the guest, and again to end it at once.");
    match show(&host, &guest, || signals.pending().count())? {
        State::Runs | State::Halted => Ok(()),
        State::Rebooted => bail!("the guest has asked for a reboot, or its processor has met a triple fault"),
        state => bail!("the guest has ended: {state:?}\n{}", host.report()),
    }
}

/// The kernel's command line.
fn command_line(words: &[String]) -> String {
    let given = words.join(" ");
    if words.iter().any(|word| word.starts_with("-i")) {
        return given;
    }
    format!("-i {GUEST}/24 -g {DOM0} {given}").trim_end().to_owned()
}

/// The guest's disks; a folder becomes one, in `temporary`.
fn disks(paths: &[PathBuf], temporary: &Path) -> Result<Vec<Disk>> {
    let demo = [root().join("demofs")];
    let paths = if paths.is_empty() { &demo } else { paths };
    let images = match paths.iter().find(|path| path.is_dir()) {
        Some(folder) if paths.len() == 1 => vec![pack(folder, &temporary.join("volume.img"))?],
        Some(folder) => bail!("{} is a folder, and one folder is served alone", folder.display()),
        None => paths.to_vec(),
    };
    ensure!(images.len() <= 26, "{} images are more than there are letters for disks", images.len());
    let disk = |(image, letter)| Disk { image, name: format!("xvd{letter}"), writable: false };
    Ok(images.into_iter().zip('a'..='z').map(disk).collect())
}

fn pack(folder: &Path, image: &Path) -> Result<PathBuf> {
    let mut pack = cargo();
    pack.args(["run", "--quiet", "--release", "--package", "minicache-cli", "--", "pack"]);
    step(pack.arg(folder.canonicalize()?).arg(image))?;
    Ok(image.to_owned())
}

/// Prints the guest's console until it ends, or somebody wants it to. `signals` counts those that are new.
fn show(host: &Host, guest: &Guest<'_>, mut signals: impl FnMut() -> usize) -> Result<State> {
    let (mut shown, mut stops, mut deadline) = (0, 0, None);
    loop {
        // In this order: all that it said before its end is on the console then.
        let state = guest.state();
        for line in guest.console().split_inclusive('\n').skip(shown).filter(|line| line.ends_with('\n')) {
            print!("{line}");
            shown += 1;
        }
        stops += signals();
        if state != State::Runs || stops > 1 {
            return Ok(state);
        }
        if stops == 1 && deadline.is_none() {
            println!("Asking the guest to halt.");
            // In the background: xl waits for an answer that may not come.
            host.run(&format!("xl shutdown {} &", guest.domid()))?;
            deadline = Some(Instant::now() + HALT_LIMIT);
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            println!("The guest does not halt: it is destroyed.");
            return Ok(state);
        }
        sleep(GLANCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_unless_there_is_one() {
        let line = |words: &[&str]| command_line(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&[]), "-i 10.77.0.2/24 -g 10.77.0.1");
        assert_eq!(line(&["-P", "-c", "9"]), "-i 10.77.0.2/24 -g 10.77.0.1 -P -c 9");
        assert_eq!(line(&["-i", "fd77::2/64"]), "-i fd77::2/64");
    }

    #[test]
    fn images_become_disks_in_order() {
        let found = disks(&["/a.img".into(), "/b.img".into()], Path::new("/tmp")).unwrap();
        let names: Vec<_> = found.iter().map(|disk| (disk.name.as_str(), disk.image.to_str().unwrap())).collect();
        assert_eq!(names, [("xvda", "/a.img"), ("xvdb", "/b.img")]);
        assert!(disks(&["/".into(), "/b.img".into()], Path::new("/tmp")).is_err());
    }
}
