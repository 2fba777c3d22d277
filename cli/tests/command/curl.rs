//! What the README promises: `minicache serve demofs`, and curl gets every file. Needs curl; skipped, and said so, where that
//! is missing.

use std::fs;
use std::path::Path;
use std::process::Command;

use testbed::files;

use crate::serve::Server;

/// What curl gets, with these options. It must succeed.
fn curl(options: &[&str], url: &str) -> Vec<u8> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "60"]).args(options).arg(url);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{options:?} {url}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn curl_gets_every_file_of_demofs() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: curl is missing (Debian package curl)");
        return;
    }
    let demofs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demofs");
    let server = Server::of(&demofs);
    let base = format!("http://{}", server.addresses[0]);
    let files = files(&demofs).unwrap();
    assert!(files.len() > 5, "{}", files.len());
    for (name, expected) in &files {
        let url = format!("{base}/{name}");
        for options in [&[][..], &["--http1.0"], &["--compressed", "--location"]] {
            assert!(&curl(options, &url) == expected, "{name} with {options:?}");
        }
    }
    let index = fs::read(demofs.join("index.html")).unwrap();
    assert!(curl(&[], &base) == index);
    assert!(curl(&["--range", "5-24"], &base) == index[5..25]);
    assert!(curl(&["--location"], &format!("{base}/docs")) == fs::read(demofs.join("docs/index.html")).unwrap());
    let (_, said) = {
        server.signal();
        server.finish()
    };
    assert!(!said.contains("panicked"), "{said}");
}
