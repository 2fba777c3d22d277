//! `minicache trace` from the outside: what the kernel of a running machine has logged.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use testbed::Telnet;

use crate::command::Boot;
use crate::site::Site;
use crate::world::{PATIENCE, SERVES, kernel};

/// The symbol's memory, as the kernel's header describes it, with nothing in it.
fn empty_trace() -> Vec<u8> {
    let mut memory = b"MC trace\x01\0\0\0\0\0\x01\0".to_vec();
    memory.resize(48 + (1 << 16), 0);
    memory
}

fn trace(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minicache"));
    let Output { status, stdout, stderr } = command.arg("trace").args(arguments).output().unwrap();
    let said = [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(!said.contains("panicked"), "{said}");
    (status.success(), said)
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_machine_tells_what_it_has_logged() {
    if kernel().is_none() {
        return;
    }
    let (site, temporary) = (Site::new(false), tempfile::tempdir().unwrap());
    let mut boot = Boot::start(temporary.path(), &[name(&site.folder())], &[]);
    let shell = boot.wait_for("shell: telnet ").trim_start_matches("shell: telnet ").replace(' ', ":");
    let monitor = boot.wait_for("minicache trace --monitor ");
    let socket = monitor.split(' ').next_back().unwrap();
    boot.wait_for(SERVES);
    let (is_whole, said) = trace(&["--monitor", socket]);
    for expected in ["info  disk 0: up", "is mounted, ", "MiniCache 0.1.0 is up and running"] {
        assert!(is_whole && said.contains(expected), "{expected:?}: {said}");
    }
    let mut telnet = Telnet::new(TcpStream::connect(&shell).unwrap(), "mc# ", PATIENCE).unwrap();
    telnet.run("umount").unwrap();
    let (is_whole, said) = trace(&["--monitor", socket]);
    assert!(is_whole && said.trim_end().ends_with("info  volume: unmounted"), "{said}");

    // Another build would show other texts.
    let other = site.path("other.elf");
    let mut elf = fs::read(kernel().unwrap()).unwrap();
    let note = elf.windows(16).position(|window| window == b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0").unwrap();
    elf[note + 16] ^= 1;
    fs::write(&other, elf).unwrap();
    let (is_whole, said) = trace(&["--monitor", socket, "--kernel", name(&other)]);
    assert!(!is_whole && said.contains("another build"), "{said}");

    boot.interrupt();
    let (in_order, said) = boot.finish();
    assert!(in_order, "{said}");
}

#[test]
fn memory_that_is_no_trace_is_refused_and_nonsense_is_survived() {
    let Some(kernel) = kernel() else { return };
    let site = Site::of(vec![("x".to_owned(), vec![1])]);
    let file = site.path("memory");
    let of = |memory: &[u8]| {
        fs::write(&file, memory).unwrap();
        trace(&["--memory", name(&file)])
    };
    let (is_whole, said) = of(b"");
    assert!(!is_whole && said.contains("cut off"), "{said}");
    let (is_whole, said) = of(&[0; 100_000]);
    assert!(!is_whole && said.contains("there is no trace"), "{said}");

    let mut memory = empty_trace();
    let (is_whole, said) = of(&memory);
    assert!(!is_whole && said.contains("another build"), "{said}");
    let elf = fs::read(kernel).unwrap();
    let note = elf.windows(16).position(|window| window == b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0").unwrap();
    memory[24..44].copy_from_slice(&elf[note + 16..note + 36]);
    assert_eq!(of(&memory), (true, String::new()));
    // Full and far beyond, with what the generator says; and the same made of what messages are made of.
    memory[16..24].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let mut random = fastrand::Rng::with_seed(7);
    for most in [u8::MAX, 24] {
        memory[48..].iter_mut().for_each(|byte| *byte = random.u8(..=most));
        let (is_whole, said) = of(&memory);
        assert!(is_whole && said.contains("bytes of older messages have been overwritten"), "{said}");
        assert!(said.contains("can't be decoded"), "{said}");
    }
}
