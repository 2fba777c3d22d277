//! Programs that the tests use beside Rust and a C compiler: found, installed where that is allowed, or named.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::run::step;

/// A program that some tests need.
pub struct Tool {
    /// Its name in `PATH`.
    pub program: &'static str,
    /// The Debian package that brings it.
    pub package: &'static str,
    /// What is not run without it.
    pub used_by: &'static str,
}

const NAMESPACES: &str = "the tests of the command and of virtual machines in network namespaces";

/// Every such program. The tests named here skip themselves, and say so, when theirs is missing.
pub const TOOLS: &[Tool] = &[
    Tool {
        program: "curl",
        package: "curl",
        used_by: "the tests of the command that fetch with curl, and those of virtual machines",
    },
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        used_by: "the tests of the kernel, which boot virtual machines",
    },
    Tool { program: "xz", package: "xz-utils", used_by: "the tests on Xen, whose host is made of what is packed so" },
    Tool { program: "ip", package: "iproute2", used_by: NAMESPACES },
    Tool { program: "ping", package: "iputils-ping", used_by: NAMESPACES },
    Tool { program: "sysctl", package: "procps", used_by: NAMESPACES },
    Tool { program: "tcpdump", package: "tcpdump", used_by: NAMESPACES },
    Tool { program: "wrk", package: "wrk", used_by: NAMESPACES },
];

/// Makes sure that the tools are there, or says which tests are not run for want of them.
pub fn provide(tools: &[Tool]) {
    if let Some(reason) = testbed::obstacle() {
        eprintln!("xtask: {reason}; not run for that: {NAMESPACES}");
    }
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !is_installed(tool.program)).collect();
    if missing.is_empty() {
        return;
    }
    if may_install() {
        install(&missing);
    }
    for tool in missing.into_iter().filter(|tool| !is_installed(tool.program)) {
        eprintln!(
            "xtask: `{}` is missing (Debian package {}); not run without it: {}",
            tool.program, tool.package, tool.used_by
        );
    }
}

/// True if `PATH` has the program.
pub fn is_installed(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// Root, on a system with apt-get.
fn may_install() -> bool {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    is_root && Path::new("/usr/bin/apt-get").is_file()
}

/// Tries once with the package lists that are there and once with fresh ones. Failure shows in what is still missing.
fn install(tools: &[&Tool]) {
    let attempt = || {
        let packages = tools.iter().map(|tool| tool.package);
        let mut command = Command::new("apt-get");
        command.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
        step(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    if attempt().is_err() && step(Command::new("apt-get").args(["update", "--quiet"])).is_ok() {
        // What still fails is named by the caller.
        let _ = attempt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path() {
        assert!(is_installed("sh"));
        assert!(!is_installed("no-such-program"));
    }
}
