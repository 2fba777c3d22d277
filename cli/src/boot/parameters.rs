//! The kernel's command line: what the user says, checked before anything boots, and what QEMU's network needs.

use std::net::Ipv4Addr;

use anyhow::{Context, ensure};
use minicache::params::Params;
use smoltcp::wire::IpCidr;

/// QEMU's user network (its documentation, "Using the user mode network stack"): 10.0.2.0/24, where the router is 10.0.2.2 and
/// 10.0.2.15 is the first address that its DHCP server gives.
const NETWORK: [u8; 3] = [10, 0, 2];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const PREFIX: u8 = 24;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// The kernel's command line, and what of it concerns the machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The command line.
    pub line: String,
    /// The machine's IPv4 address.
    pub address: Ipv4Addr,
    /// The disk that is written to, if any: its number among the disks.
    pub writable_disk: Option<u32>,
}

impl Parameters {
    /// The command line of these words, with an address unless there is one or `dhcp` finds one.
    ///
    /// # Errors
    /// What the kernel would refuse, and an address that is not of QEMU's network.
    pub fn new(words: &[String], dhcp: bool) -> anyhow::Result<Self> {
        let mut line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let params = Params::parse(line.as_bytes()).context("the kernel's command line")?;
        let given = params.addresses.iter().find_map(|cidr| match cidr {
            IpCidr::Ipv4(cidr) => Some(cidr.address()),
            IpCidr::Ipv6(_) => None,
        });
        if let Some(address) = given {
            ensure!(!dhcp, "--dhcp and -i {address} contradict each other: leave one out");
            ensure!(
                address.octets().starts_with(&NETWORK),
                "-i {address} can't be reached: QEMU's network is 10.0.2.0/24; leave -i out, or give such an address"
            );
        } else if !dhcp {
            let mut words = format!("-i {ADDRESS}/{PREFIX}");
            if params.gateway_v4.is_none() {
                words.push_str(&format!(" -g {GATEWAY}"));
            }
            if !line.is_empty() {
                words.push(' ');
            }
            line.insert_str(0, &words);
        }
        Ok(Self { line, address: given.unwrap_or(ADDRESS), writable_disk: params.stats_disk })
    }
}

/// A word as the kernel reads it: quotes keep together what has blanks or quotes in it.
fn quoted(word: &str) -> String {
    let needs =
        |character: char| character == ' ' || character == '\'' || character == '"' || character.is_ascii_control();
    if !word.is_empty() && !word.contains(needs) {
        return word.to_owned();
    }
    // Each kind of quote is kept by the other.
    format!("\"{}\"", word.replace('"', "\"'\"'\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(words: &[&str]) -> anyhow::Result<Parameters> {
        Parameters::new(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>(), false)
    }

    fn refused(words: &[&str]) -> String {
        format!("{:#}", parameters(words).unwrap_err())
    }

    #[test]
    fn the_network_gets_what_it_needs() {
        let line = |words: &[&str]| parameters(words).unwrap().line;
        assert_eq!(line(&[]), "-i 10.0.2.15/24 -g 10.0.2.2");
        assert_eq!(line(&["-P", "-c9"]), "-i 10.0.2.15/24 -g 10.0.2.2 -P -c9");
        assert_eq!(line(&["-g", "10.0.2.3", "-i", "fd00::1/64"]), "-i 10.0.2.15/24 -g 10.0.2.3 -i fd00::1/64");
        let own = parameters(&["-i10.0.2.99/24"]).unwrap();
        assert_eq!((own.line.as_str(), own.address), ("-i10.0.2.99/24", Ipv4Addr::new(10, 0, 2, 99)));
        let asked = Parameters::new(&["-P".to_owned()], true).unwrap();
        assert_eq!((asked.line.as_str(), asked.address), ("-P", ADDRESS));
        assert_eq!(parameters(&["-x", "1"]).unwrap().writable_disk, Some(1));
    }

    #[test]
    fn what_can_not_work_is_refused_before_anything_boots() {
        assert!(refused(&["-c", "0"]).contains("invalid number of http connections"));
        assert!(refused(&["-Z"]).contains("the kernel's command line: unknown option -Z"));
        assert!(refused(&["-i", "192.168.0.2/24"]).contains("10.0.2.0/24"));
        let both = Parameters::new(&["-i10.0.2.99/24".to_owned()], true).unwrap_err();
        assert!(both.to_string().contains("--dhcp"));
    }

    #[test]
    fn words_arrive_as_they_were_given() {
        for word in ["plain", "", "two words", "it's", "\"", "a\"b'c d"] {
            // A word that belongs to no option is shown in the kernel's answer.
            let shown = refused(&["--", word]);
            let expected = format!("'{}'", word.escape_debug());
            assert!(shown.contains(&expected), "{word:?}: {shown}");
        }
    }
}
