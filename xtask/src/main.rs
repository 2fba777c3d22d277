//! The project's chores as one command, `cargo xtask`: the kernel, the full test run, a Xen host to try the kernel in, and the
//! proof that the appliance needs no std.
#![forbid(unsafe_code)]

mod kernel;
mod probe;
mod run;
mod test;
mod tools;
mod xen;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check formatting and lints, prove that the appliance links without std, and run every test.
    ///
    /// Programs that tests need beyond Rust and a C compiler are installed by their Debian package name when this runs as
    /// root where apt-get exists; otherwise they are named, with the tests that are not run for want of them.
    Test,
    /// Build the kernel: `target/minicache.elf`, for hypervisors that boot PVH.
    Kernel,
    /// Boot the kernel as a guest of Xen, which runs in QEMU with Debian's Linux as dom0.
    ///
    /// Debian's packages are fetched by apt into the folder `target/xen`, and nothing is installed. The guest's console appears on
    /// the terminal.
    Xen(xen::Arguments),
    /// Link the appliance into a freestanding program, to prove that it needs no std.
    Probe,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Test => test::run(),
        Task::Kernel => kernel::run(),
        Task::Xen(arguments) => xen::run(&arguments),
        Task::Probe => probe::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
