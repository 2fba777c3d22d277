//! Commands for dom0: its agent hears of them on a serial port, and reads and answers them in the shared folder.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::console::{Console, Missed};

/// The folder of commands and answers in the shared one.
const FOLDER: &str = "agent";

/// How much later than it should an answer may come before nobody is thought to be there.
const GRACE: Duration = Duration::from_secs(20);

/// What the shell says of a command that was killed.
const KILLED: i32 = 128 + 9;

/// What a command in dom0 did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// What it wrote to standard output and standard error.
    pub text: String,
}

/// The way to dom0's agent.
pub struct Channel {
    stream: Mutex<UnixStream>,
    replies: Console,
    folder: PathBuf,
    next: AtomicU64,
}

impl Channel {
    /// Connects to QEMU's end of the port.
    pub fn connect(socket: &Path, share: &Path, deadline: Instant) -> Result<Self> {
        let folder = share.join(FOLDER);
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => return Err(error).context("QEMU's serial port"),
                Err(_) => sleep(Duration::from_millis(5)),
            }
        };
        let replies = Console::default();
        replies.collect(stream.try_clone()?);
        Ok(Self { stream: Mutex::new(stream), replies, folder, next: AtomicU64::new(0) })
    }

    /// Waits until the agent listens.
    pub fn wait_until_ready(&self, deadline: Instant) -> Result<()> {
        self.reply("ready", deadline).context("dom0 does not come up")?;
        Ok(())
    }

    /// Runs a script in dom0's shell. It is killed, and that is an error, when it takes longer than `limit`.
    pub fn run(&self, script: &str, limit: Duration) -> Result<Output> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = |kind: &str| self.folder.join(format!("{number}.{kind}"));
        let (command, said) = (path("sh"), path("out"));
        fs::write(&command, script).with_context(|| format!("can't write {}", command.display()))?;
        let (begin, seconds) = (Instant::now(), limit.as_secs().max(1));
        let deadline = begin + Duration::from_secs(seconds) + GRACE;
        let line = format!("{number} {seconds}\n");
        let sent = self.stream.lock().expect("nobody panics").write_all(line.as_bytes());
        let reply = sent.map_err(Into::into).and_then(|()| self.reply(&format!("done {number} "), deadline));
        let text = String::from_utf8_lossy(&fs::read(&said).unwrap_or_default()).into_owned();
        let reply = reply.with_context(|| format!("dom0: {script:?}, which said {text:?} so far"))?;
        // What it left in the background may still write; nobody reads it then.
        let _ = fs::remove_file(&command).and_then(|()| fs::remove_file(&said));
        let status = reply.rsplit(' ').next().and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("dom0's agent said {reply:?}"))?;
        let was_killed = status == KILLED && begin.elapsed() >= limit;
        ensure!(!was_killed, "dom0: {script:?} took longer than {seconds} s, and was killed; it had said {text:?}");
        Ok(Output { status, text })
    }

    fn reply(&self, text: &str, deadline: Instant) -> Result<String> {
        match self.replies.wait_for(text, deadline) {
            Ok(line) => Ok(line),
            Err(Missed::Ended) => bail!("the machine has ended"),
            Err(Missed::TooLate) => bail!("it took too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    #[test]
    fn commands_go_out_and_answers_come_back_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, share) = (folder.path().join("port"), folder.path().join("share"));
        let listener = UnixListener::bind(&socket).unwrap();
        let agent_folder = share.join(FOLDER);
        let agent = thread::spawn(move || {
            let stream = listener.accept().unwrap().0;
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            (&stream).write_all(b"ready\n").unwrap();
            let mut numbers: Vec<String> = Vec::new();
            for line in [lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()] {
                let (number, seconds) = line.split_once(' ').unwrap();
                assert_eq!(seconds, "7");
                let script = fs::read(agent_folder.join(format!("{number}.sh"))).unwrap();
                fs::write(agent_folder.join(format!("{number}.out")), [b"did ", &script[..]].concat()).unwrap();
                numbers.push(number.to_owned());
            }
            for number in numbers.iter().rev() {
                (&stream).write_all(format!("done {number} status 3\n").as_bytes()).unwrap();
            }
            let third = lines.next().unwrap().unwrap();
            (&stream).write_all(format!("done {} status 137\n", third.split(' ').next().unwrap()).as_bytes()).unwrap();
        });
        let channel = Channel::connect(&socket, &share, Instant::now() + Duration::from_secs(60)).unwrap();
        channel.wait_until_ready(Instant::now() + Duration::from_secs(60)).unwrap();
        thread::scope(|scope| {
            for script in ["one", "two"] {
                let channel = &channel;
                scope.spawn(move || {
                    let output = channel.run(script, Duration::from_secs(7)).unwrap();
                    assert_eq!(output, Output { status: 3, text: format!("did {script}") });
                });
            }
        });
        let error = channel.run("three", Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("three") && error.contains("killed"), "{error}");
        agent.join().unwrap();
        let error = format!("{:#}", channel.run("four", Duration::from_secs(7)).unwrap_err());
        assert!(error.contains("four"), "{error}");
    }
}
