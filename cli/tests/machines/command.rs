//! `minicache boot` from the outside.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use testbed::Telnet;

use crate::site::Site;
use crate::world::{PATIENCE, SERVES, kernel};

fn minicache() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minicache"));
    command.env("RUST_BACKTRACE", "0");
    command
}

/// `minicache boot` that runs; killed when dropped.
pub struct Boot {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
    said: Vec<String>,
}

impl Boot {
    /// Boots; whatever is temporary goes into `temporary`.
    pub fn start(temporary: &Path, arguments: &[&str], parameters: &[&str]) -> Self {
        let mut command = minicache();
        command.arg("boot").args(["--listen", "127.0.0.1:0", "--shell", "127.0.0.1:0"]).args(arguments);
        command.arg("--").args(parameters).env("TMPDIR", temporary);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (BufReader::new(child.stdout.take().unwrap()), child.stderr.take().unwrap());
        Self { child, stdout, stderr, said: Vec::new() }
    }

    /// Waits for a line with this text.
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                let mut complaints = String::new();
                self.stderr.read_to_string(&mut complaints).unwrap();
                panic!("no {text:?}: {:?} {complaints}", self.said);
            }
            self.said.push(line.clone());
            if line.contains(text) {
                return line.trim().to_owned();
            }
        }
    }

    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// Waits for the end: whether it was in order, and what was said meanwhile.
    pub fn finish(mut self) -> (bool, String) {
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).unwrap();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().success(), said)
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        // The first has the machine end, the second has it end at once; without these QEMU would be left behind.
        for _ in 0..2 {
            if self.child.try_wait().is_ok_and(|status| status.is_none()) {
                self.interrupt();
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, target: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
    answer.split_off(body)
}

#[test]
fn a_folder_is_booted_and_ctrl_c_halts_the_machine() {
    if kernel().is_none() {
        return;
    }
    let (site, temporary) = (Site::new(false), tempfile::tempdir().unwrap());
    let folder = site.folder();
    for machine in ["microvm", "q35"] {
        let options = [folder.to_str().unwrap(), "--machine", machine, "--memory-mib", "64"];
        let mut boot = Boot::start(temporary.path(), &options, &[]);
        let url = boot.wait_for("http://");
        let address = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        boot.wait_for(SERVES);
        for (name, content) in &site.objects {
            assert!(&get(address, &format!("/{name}")) == content, "{machine}: {name}");
        }
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "the packed image");
        boot.interrupt();
        let (in_order, said) = boot.finish();
        assert!(in_order && said.contains("Asking the machine to halt"), "{machine}: {said}");
        assert!(!said.contains("does not halt") && !said.contains("panic"), "{machine}: {said}");
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "the image goes with the machine");
    }
}

#[test]
fn images_are_booted_until_the_shell_halts_the_machine() {
    if kernel().is_none() {
        return;
    }
    let (site, temporary) = (Site::new(false), tempfile::tempdir().unwrap());
    let images = site.members();
    let images: Vec<&str> = images.iter().map(|image| image.to_str().unwrap()).collect();
    let mut boot = Boot::start(temporary.path(), &images, &["-P"]);
    let url = boot.wait_for("http://");
    let shell = boot.wait_for("shell: telnet ").trim_start_matches("shell: telnet ").replace(' ', ":");
    boot.wait_for(SERVES);
    let address = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    assert!(get(address, "/") == site.content("index.html"));
    let mut telnet = Telnet::new(TcpStream::connect(&shell).unwrap(), "mc# ", PATIENCE).unwrap();
    telnet.run_to_end("reboot").unwrap();
    boot.wait_for(SERVES);
    assert!(get(address, "/") == site.content("index.html"));
    let mut telnet = Telnet::new(TcpStream::connect(&shell).unwrap(), "mc# ", PATIENCE).unwrap();
    telnet.run_to_end("halt").unwrap();
    let (in_order, said) = boot.finish();
    assert!(in_order, "{said}");
}

#[test]
fn a_second_ctrl_c_ends_a_machine_that_does_not_halt() {
    if kernel().is_none() {
        return;
    }
    let (site, temporary) = (Site::of(vec![("x".to_owned(), vec![1])]), tempfile::tempdir().unwrap());
    // It waits before anything else, and is not to be spoken to.
    let mut boot = Boot::start(temporary.path(), &[site.folder().to_str().unwrap()], &["-s", "3600"]);
    boot.wait_for("start-up delay");
    boot.interrupt();
    boot.wait_for("Asking the machine to halt");
    boot.interrupt();
    let (in_order, said) = boot.finish();
    assert!(!in_order && said.contains("QEMU was ended by signal"), "{said}");
}

#[test]
fn a_kernel_that_gives_up_is_a_failure() {
    if kernel().is_none() {
        return;
    }
    let (site, temporary) = (Site::of(vec![("x".to_owned(), vec![1])]), tempfile::tempdir().unwrap());
    let boot = Boot::start(temporary.path(), &[site.folder().to_str().unwrap(), "--memory-mib", "4"], &[]);
    let (in_order, said) = boot.finish();
    assert!(!in_order && said.contains("the machine has failed"), "{said}");
}

fn refused(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = minicache().arg("boot").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success() && !said.contains("panicked"), "{said}");
    said
}

#[test]
fn what_can_not_work_is_said_before_anything_boots() {
    let site = Site::of(vec![("x".to_owned(), vec![1])]);
    let (folder, elf) = (site.folder(), site.path("kernel"));
    fs::write(&elf, "no kernel").unwrap();
    let (folder, elf) = (folder.to_str().unwrap(), elf.to_str().unwrap());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, message) in [
        (&[folder, "--kernel", "/no/such/kernel"][..], "/no/such/kernel"),
        (&[folder, "--kernel", elf, "--listen", &taken], "taken by another program"),
        (&[folder, "--kernel", elf, "--listen", "127.0.0.1:0", "--shell", &taken], "--shell"),
        (&[folder, "--kernel", elf, "--listen", "[::1]:8080"], "IPv4"),
        (&["/no/such/folder", "--kernel", elf, "--listen", "127.0.0.1:0", "--shell", "none"], "does not exist"),
        (&[folder, "--kernel", elf, "--", "-c", "0"], "invalid number of http connections"),
        (&[folder, "--kernel", elf, "--memory-mib", "0"], "--memory-mib"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
}
