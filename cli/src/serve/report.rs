//! What `minicache serve` says: what it serves and where, and at the end what it has done.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use indicatif::HumanBytes;
use minicache::cache::shfs::{Content, Volume};
use minicache::rings::impair::{ImpairedCounts, Impairments};
use minicache::stats::Stats;

use crate::impairment::summary as summary_of;
use crate::terminal::{say, warn};

/// Damages of a volume that are described; the rest is counted.
const DAMAGES_SHOWN: usize = 10;

/// Where the server can be reached.
pub struct Place {
    /// What to open in a browser.
    pub urls: Vec<String>,
    /// Where µShell listens.
    pub shell: Option<SocketAddr>,
    /// What has to be done on the host first.
    pub setup: Option<Setup>,
}

/// What has to be done on the host before anybody can reach the server.
pub struct Setup {
    /// The interface.
    pub interface: String,
    /// Commands that only root can run.
    pub commands: Vec<String>,
}

/// Says that the server runs. `title` is what it serves.
pub fn started(title: &str, volume: &Volume, place: &Place, live: bool) {
    for skipped in &volume.skipped_disks {
        warn(&skipped.to_string());
    }
    for damage in volume.damages.iter().take(DAMAGES_SHOWN) {
        warn(&damage.to_string());
    }
    if volume.damaged_entries > 0 {
        warn(&format!(
            "{} entries of the volume are damaged; they are not served, or not whole",
            volume.damaged_entries
        ));
    }
    let directory = &volume.directory;
    let bytes: u64 = directory
        .iter()
        .map(|(_, object)| match object.content {
            Content::Extent { length_bytes, .. } => length_bytes,
            Content::Link(_) => 0,
        })
        .sum();
    let objects = plural(directory.len() as u64, "object");
    say(&format!("Serving {title}: volume {:?}, {objects}, {}", volume.name, HumanBytes(bytes)));
    for url in &place.urls {
        say(&format!("  {url}"));
    }
    if directory.default_object().is_none() && directory.by_name(b"index.html").is_none() {
        say("  (there is no index.html, so / is answered with 404: put a file's name behind it)");
    }
    if let Some(at) = place.shell {
        say(&format!("  shell: telnet {} {}", at.ip(), at.port()));
    }
    if live {
        say("  changes in the folder are served as they are made");
    }
    if let Some(Setup { interface, commands }) = &place.setup {
        say(&format!("This machine's side of {interface} needs an address, unless it has one (as root):"));
        commands.iter().for_each(|command| say(&format!("  {command}")));
    }
    say("Press Ctrl-C to stop.");
}

/// Says what has been done.
pub fn summary(stats: &Stats, uptime: Duration) {
    say(&format!(
        "Stopped after {:.1} s: {} answered on {}, {} of content sent, {} bytes of it copied.",
        uptime.as_secs_f64(),
        plural(stats.http_requests.get(), "request"),
        plural(stats.connections_accepted.get(), "connection"),
        HumanBytes(stats.http_body_bytes.get()),
        stats.copied_bytes.get(),
    ));
}

/// Says what has gone wrong on purpose.
pub fn impaired(impairments: &Impairments, counts: &ImpairedCounts) {
    let directions = [("to clients", &impairments.tx, &counts.tx), ("from clients", &impairments.rx, &counts.rx)];
    let lines = directions.into_iter().filter_map(|(direction, it, counts)| summary_of(direction, it, counts));
    lines.for_each(|line| say(&line));
}

/// What to open in a browser to reach this socket.
pub fn url(address: SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            format!("http://127.0.0.1:{port}/ (and this machine's other addresses)")
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            format!("http://[{}]:{port}/ (and this machine's other addresses)", Ipv6Addr::LOCALHOST)
        }
        _ => format!("http://{address}/"),
    }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_can_be_opened() {
        assert_eq!(url("127.0.0.1:8080".parse().unwrap()), "http://127.0.0.1:8080/");
        assert_eq!(url("[::1]:80".parse().unwrap()), "http://[::1]:80/");
        assert!(url("0.0.0.0:8080".parse().unwrap()).starts_with("http://127.0.0.1:8080/ "));
        assert!(url("[::]:8080".parse().unwrap()).starts_with("http://[::1]:8080/ "));
    }
}
