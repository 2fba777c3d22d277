//! The host command `minicache`: serve a folder or an image, boot a machine that does and read its log, pack folders into SHFS images, look into
//! images.
#![forbid(unsafe_code)]

mod boot;
mod bridge;
mod impairment;
mod pack;
mod serve;
mod shfs;
mod terminal;
mod trace;
mod usernet;
mod volume;

use clap::{Parser, Subcommand};

/// MiniCache: a content cache and web server that is its own operating system.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a folder or an SHFS volume over HTTP from this process.
    Serve(serve::Arguments),
    /// Serve a folder or an SHFS volume from a virtual machine (QEMU) that runs MiniCache's kernel.
    Boot(boot::Arguments),
    /// Show what the kernel of a running machine has logged.
    Trace(trace::Arguments),
    /// Carry frames between two network interfaces, over a wire that can be bad.
    Bridge(bridge::Arguments),
    /// Make an SHFS image of a folder.
    Pack(pack::Arguments),
    /// Look into SHFS images.
    Shfs(shfs::Arguments),
}

fn main() -> std::process::ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Boot(arguments) => boot::run(arguments),
        Command::Trace(arguments) => trace::run(arguments),
        Command::Bridge(arguments) => bridge::run(arguments),
        Command::Pack(arguments) => pack::run(arguments),
        Command::Shfs(arguments) => shfs::run(arguments),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            terminal::tell(&format!("{error:#}"));
            std::process::ExitCode::FAILURE
        }
    }
}
