//! `minicache serve` beside nginx on the loopback interface.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::build;
use crate::contest::{self, Arguments, Contender, SERVER_CORE};
use crate::nginx;
use crate::process::{Running, free_address, on_core};

/// Measures.
pub fn run(arguments: &Arguments) -> Result<()> {
    let minicache = build::command()?;
    let temporary = tempfile::tempdir()?;
    let (folder, work) = (temporary.path().join("www"), temporary.path().join("nginx"));
    contest::fill(&folder)?;
    fs::create_dir(&work)?;

    let ours_at = free_address()?;
    let mut command = on_core(SERVER_CORE, Command::new(minicache));
    command.arg("serve").arg(&folder).args(["--listen", &ours_at.to_string(), "--shell", "none"]).stdout(Stdio::null());
    let mut ours = Running::start("minicache", &mut command)?;
    ours.wait_for(ours_at)?;
    let theirs_at = free_address()?;
    let mut theirs = nginx::start(on_core(SERVER_CORE, Command::new("nginx")), &folder, &work, theirs_at)?;
    theirs.wait_for(theirs_at)?;

    let ours = Contender { server: ours, url: format!("http://{ours_at}") };
    let theirs = Contender { server: theirs, url: format!("http://{theirs_at}") };
    contest::run(arguments, &ours, &theirs, None)
}
