//! Runs QEMU, shows what the machine says, and brings it to an end in order.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::qemu::{PACKAGE, PROGRAM, explanation};
use crate::terminal::{say, tell};

/// How long a machine that was asked to halt may take.
const HALT_LIMIT: Duration = Duration::from_secs(5);

/// QEMU's status when the machine says that it has halted (value 0x10 at the debug exit device), and that it has failed (0x11).
const HALTED: i32 = 0x10 << 1 | 1;
const FAILED: i32 = 0x11 << 1 | 1;

/// Runs QEMU by this command until it ends. The shell's address is where the machine can be asked to halt. `interrupted` may be
/// set already.
pub fn run(mut command: Command, shell: Option<SocketAddrV4>, interrupted: &AtomicBool) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD]).context("can't handle signals")?;
    if interrupted.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: the terminal's Ctrl-C is for us, and we ask the machine.
    let mut child = match command.process_group(0).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{PROGRAM} is missing: install QEMU (Debian package {PACKAGE})")
        }
        Err(error) => return Err(error).with_context(|| format!("can't start {PROGRAM}")),
    };
    let (console, complaints) = (child.stdout.take(), child.stderr.take());
    let readers = [
        thread::spawn(move || console.into_iter().for_each(show_console)),
        thread::spawn(move || complaints.into_iter().for_each(show_complaints)),
    ];
    let child = Arc::new(Mutex::new(child));
    let result = wait(&child, &mut signals, shell);
    // Whatever happened, nothing is left running.
    let _ = lock(&child).kill();
    for reader in readers {
        let _ = reader.join();
    }
    end(result?)
}

/// Waits for the end, and for signals that ask for it.
fn wait(child: &Arc<Mutex<Child>>, signals: &mut Signals, shell: Option<SocketAddrV4>) -> anyhow::Result<ExitStatus> {
    let mut asked = false;
    if let Some(status) = lock(child).try_wait()? {
        return Ok(status);
    }
    for signal in signals.forever() {
        if signal == SIGCHLD {
            if let Some(status) = lock(child).try_wait()? {
                return Ok(status);
            }
        } else if !asked {
            asked = true;
            let child = Arc::clone(child);
            thread::spawn(move || halt(&child, shell));
        } else {
            lock(child).kill()?;
        }
    }
    bail!("the system sends no signals any more")
}

/// Asks the machine to halt, and has QEMU end if it does not.
fn halt(child: &Mutex<Child>, shell: Option<SocketAddrV4>) {
    let deadline = Instant::now() + HALT_LIMIT;
    if let Some(at) = shell {
        say("Asking the machine to halt.");
        // Kept open until the end: who hangs up is not listened to.
        let session = ask_to_halt(at);
        while session.is_ok() && Instant::now() < deadline {
            if !is_running(child) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        tell("the machine does not halt: QEMU is told to end");
    }
    let mut child = lock(child);
    if child.try_wait().is_ok_and(|status| status.is_none()) {
        // It may just be ending by itself.
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    }
}

fn ask_to_halt(shell: SocketAddrV4) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&shell.into(), HALT_LIMIT)?;
    stream.write_all(b"halt\r\n")?;
    Ok(stream)
}

fn is_running(child: &Mutex<Child>) -> bool {
    lock(child).try_wait().is_ok_and(|status| status.is_none())
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Copies the machine's console to standard output, as it comes; where that is closed, nobody wants it.
fn show_console(mut console: impl Read) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = console.read(&mut bytes) {
        let mut output = io::stdout().lock();
        let _ = output.write_all(&bytes[..length]).and_then(|()| output.flush());
    }
}

/// Shows what QEMU complains about, and explains it.
fn show_complaints(complaints: impl Read) {
    for line in BufReader::new(complaints).lines().map_while(Result::ok) {
        tell(&line);
        if let Some(meaning) = explanation(&line) {
            tell(meaning);
        }
    }
}

/// What QEMU's end says.
fn end(status: ExitStatus) -> anyhow::Result<()> {
    match (status.code(), status.signal()) {
        (Some(0 | HALTED), _) => Ok(()),
        (Some(FAILED), _) => bail!("the machine has failed: see what it said last"),
        (Some(code), _) => bail!("QEMU has ended with status {code}"),
        (None, Some(signal)) => bail!("QEMU was ended by signal {signal}"),
        (None, None) => bail!("QEMU has ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_follows_the_machines() {
        for status in [0, 33 << 8] {
            end(ExitStatus::from_raw(status)).unwrap();
        }
        for (status, message) in [(35 << 8, "the machine has failed"), (1 << 8, "status 1"), (9, "signal 9")] {
            let error = end(ExitStatus::from_raw(status)).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
