//! Load by wrk, and what it says.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::process::on_core;
use testbed::Namespace;

/// What wrk measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Requests a second.
    pub requests_per_s: f64,
    /// Bytes a second, heads included.
    pub bytes_per_s: f64,
}

/// Loads `url` from one core (of a namespace, if given), over so many connections, for so many seconds.
pub fn wrk(namespace: Option<&Namespace>, core: usize, url: &str, connections: usize, seconds: u32) -> Result<Load> {
    let mut command =
        on_core(core, namespace.map_or_else(|| Command::new("wrk"), |namespace| namespace.command("wrk")));
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), url]).stderr(Stdio::inherit());
    let output = command.output().context("can't start wrk (Debian package wrk)")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {said}");
    // wrk speaks of errors only when there were some.
    if let Some(errors) = said.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx")) {
        bail!("{url}: {}", errors.trim());
    }
    parse(&said).with_context(|| format!("wrk says what it never said before: {said}"))
}

fn parse(said: &str) -> Option<Load> {
    let number = |name: &str| said.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    Some(Load { requests_per_s: number("Requests/sec:")?.parse().ok()?, bytes_per_s: size(number("Transfer/sec:")?)? })
}

/// `1.23GB` and the like; wrk's units are powers of 1024.
fn size(text: &str) -> Option<f64> {
    let unit_at = text.find(|character: char| character.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let exponent = ["B", "KB", "MB", "GB", "TB"].iter().position(|known| *known == unit)?;
    Some(number.parse::<f64>().ok()? * 1024_f64.powi(exponent as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_understood() {
        let said = "Running 1s test\n  12 requests in 1.00s\nRequests/sec:  62935.68\nTransfer/sec:     82.50MB\n";
        let load = parse(said).unwrap();
        assert_eq!(load, Load { requests_per_s: 62935.68, bytes_per_s: 82.5 * 1_048_576.0 });
        assert_eq!((size("17.00B"), size("2GB"), size("2XB")), (Some(17.0), Some(2_147_483_648.0), None));
        assert_eq!(parse("Requests/sec: x"), None);
    }
}
