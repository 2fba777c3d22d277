//! Measurements of MiniCache against its peers: `cargo run --release -p perf -- COMMAND`.
//!
//! What may enter this room: what starts a peer and MiniCache side by side, loads them in turn (A B A B …), and prints
//! medians and their ratio; and what counts what a virtual machine executes. Nothing here is a test: a machine has good and bad
//! minutes, and only the ratio of interleaved samples says something (counted instructions say it alone).
#![forbid(unsafe_code)]

mod boot;
mod build;
mod contest;
mod guest;
mod idle;
mod kernel;
mod linux;
mod load;
mod nginx;
mod process;
mod samples;
mod serve;
mod tap;
mod xen;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// `minicache serve` on 127.0.0.1 beside nginx: requests a second of 700 bytes, bytes a second of 10 MiB
    Serve(contest::Arguments),
    /// `minicache serve --tap` beside nginx behind virtual Ethernet, in network namespaces: needs root
    Tap(contest::Arguments),
    /// The kernel in QEMU: instructions until it serves, its size, the least memory that will do
    Boot,
    /// The kernel in QEMU: instructions a request and a MiB
    Kernel(kernel::Arguments),
    /// The kernel beside Linux with nginx in the same machine in QEMU: instructions to boot, a request and a MiB; least memory
    Linux(linux::Arguments),
    /// The kernel beside Linux with nginx as guests of Xen, in QEMU: packets, slots, grants, notifications for a MiB and a request
    Xen(xen::Arguments),
    /// The kernel in QEMU: processor time while nobody asks for anything
    Idle(idle::Arguments),
}

fn main() -> std::process::ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Tap(arguments) => tap::run(&arguments),
        Command::Boot => boot::run(),
        Command::Kernel(arguments) => kernel::run(&arguments),
        Command::Linux(arguments) => linux::run(&arguments),
        Command::Xen(arguments) => xen::run(&arguments),
        Command::Idle(arguments) => idle::run(&arguments),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
