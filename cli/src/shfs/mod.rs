//! `minicache shfs`: looks into SHFS images.

mod cat;
pub mod image;
mod info;
mod list;
mod text;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::terminal::Output;

/// Arguments of `minicache shfs`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the objects of a volume
    #[command(visible_alias = "list")]
    Ls(VolumeArguments),
    /// Describe a volume
    Info(VolumeArguments),
    /// Write the content of an object to standard output
    #[command(after_help = "The last argument is the object, all before it are images: \
        `minicache shfs cat a.img b.img docs/index.html`, `minicache shfs cat a.img '?9be88b95…'`.")]
    Cat {
        /// The images or block devices of the volume's members, in any order
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<PathBuf>,
        /// Name of the object, or `?` and its digest in hexadecimal digits
        object: OsString,
    },
}

#[derive(clap::Args)]
struct VolumeArguments {
    /// The images or block devices of the volume's members, in any order
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Runs `minicache shfs`.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut output = Output::new();
    let result = match &arguments.command {
        Command::Ls(VolumeArguments { images, json }) => list::run(images, *json, &mut output),
        Command::Info(VolumeArguments { images, json }) => info::run(images, *json, &mut output),
        Command::Cat { images, object } => cat::run(images, object, &mut output),
    };
    output.finish(result)
}
