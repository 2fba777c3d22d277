//! `minicache serve --tap` beside nginx behind a pair of virtual Ethernet interfaces, both with segmentation offload.
//!
//! The clients have a network namespace of their own; the TAP interface's host side and one end of nginx's pair lie in it.

use std::fs;
use std::process::Stdio;

use anyhow::Result;

use crate::build;
use crate::contest::{self, Arguments, Contender, SERVER_CORE};
use crate::nginx;
use crate::process::{Running, on_core};
use testbed::{Namespace, join};

/// Measures.
pub fn run(arguments: &Arguments) -> Result<()> {
    let minicache = build::command()?;
    let temporary = tempfile::tempdir()?;
    let (folder, work) = (temporary.path().join("www"), temporary.path().join("nginx"));
    contest::fill(&folder)?;
    fs::create_dir(&work)?;
    let (clients, theirs) = (Namespace::new()?, Namespace::new()?);

    let mut command = on_core(SERVER_CORE, clients.command(&minicache.display().to_string()));
    command.arg("serve").arg(&folder).args(["--tap", "tap", "--address", "10.98.0.2/24", "--shell", "none"]);
    let server = Running::start("minicache", command.stdout(Stdio::null()))?;
    clients.wait_for_interface("tap")?;
    clients.run("ip", &["address", "add", "10.98.0.1/24", "dev", "tap"])?;
    clients.run("ip", &["link", "set", "tap", "up"])?;
    let ours = Contender { server, url: "http://10.98.0.2".to_owned() };
    clients.wait_for(&format!("{}/small.bin", ours.url))?;

    join([&clients, &theirs], ["10.99.0.1/24", "10.99.0.2/24"])?;
    let command = on_core(SERVER_CORE, theirs.command("nginx"));
    let server = nginx::start(command, &folder, &work, "10.99.0.2:80".parse()?)?;
    let theirs = Contender { server, url: "http://10.99.0.2".to_owned() };
    clients.wait_for(&format!("{}/small.bin", theirs.url))?;

    contest::run(arguments, &ours, &theirs, Some(&clients))
}
