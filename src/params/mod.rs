//! The machine's parameters: what its command line says.
//!
//! What may enter this room: the words of a kernel command line, and the types that they become. An administrator writes the
//! options below; a hypervisor appends words of its own, which are kept apart from them. Nobody is believed: any bytes may come.
//!
//! | option | argument | meaning |
//! |---|---|---|
//! | `-s` | seconds | wait so long before anything else |
//! | `-i` | `a.b.c.d/p` or IPv6 | an address; IPv4 once (else DHCP), IPv6 repeatedly (else router advertisements) |
//! | `-g` | address | the router, once for IPv4 and once for IPv6 |
//! | `-d`, `-e` | address | primary and secondary DNS server |
//! | `-a` | `MAC/address` | a neighbour that need not be asked for; at most 16 |
//! | `-b` | number | a disk to mount from (virtio: counted from 0, Xen: 51712 is xvda); at most 64; without it all are searched |
//! | `-x` | number | the disk to which statistics are exported |
//! | `-h` | | no control directory |
//! | `-c` | 1 to 1,000,000 | most HTTP connections at once |
//! | `-P` | | read all objects into the cache after start |
//!
//! Options are read as `getopt` does: `-i1.2.3.4/24`, `-i 1.2.3.4/24`, `-hP`.
//!
//! | file | duty |
//! |---|---|
//! | `words` | blanks and quotes |
//! | `hypervisor` | words that hypervisors and their tools add |
//! | `error` | what can be wrong, in words |

mod error;
mod hypervisor;
mod words;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::net::{Ipv4Addr, Ipv6Addr};
use smoltcp::wire::{IpAddress, IpCidr, Ipv4Address, Ipv4Cidr, Ipv6Address, Ipv6Cidr};

use crate::cache::shfs;
use crate::net::{self, MAX_ADDRESSES, MAX_STATIC_NEIGHBOURS, NetworkConfig, StaticNeighbour};

pub use error::ParamsError;
pub use hypervisor::VirtioMmio;

use words::Words;

/// Longest command line that is read, in bytes.
pub const MAX_LINE_BYTES: usize = 16 << 10;

/// Most disks that `-b` can name.
pub const MAX_DISKS: usize = shfs::MAX_DISKS;

/// Most static neighbours (`-a`).
pub const MAX_NEIGHBOURS: usize = MAX_STATIC_NEIGHBOURS;

/// Most DNS servers: `-d` and `-e`.
pub const MAX_DNS_SERVERS: usize = net::MAX_DNS_SERVERS;

/// Most HTTP connections that `-c` can ask for.
pub const MAX_CONNECTIONS: u32 = 1_000_000;

/// Where telnet finds the shell (RFC 854).
const SHELL_PORT: u16 = 23;

/// Most virtio-mmio devices that a hypervisor can name.
pub const MAX_VIRTIO_MMIO: usize = 64;

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// `-s`: seconds to wait before anything else. Default 0.
    pub delay_s: u32,
    /// `-i`: at most one IPv4 address and some IPv6 ones. Without one of a family that family is configured by the network.
    pub addresses: ArrayVec<IpCidr, MAX_ADDRESSES>,
    /// `-g`: the IPv4 router.
    pub gateway_v4: Option<Ipv4Address>,
    /// `-g`: the IPv6 router.
    pub gateway_v6: Option<Ipv6Address>,
    /// `-d`: the DNS server to ask first.
    pub primary_dns: Option<IpAddress>,
    /// `-e`: the DNS server to ask when that is silent.
    pub secondary_dns: Option<IpAddress>,
    /// `-a`: neighbours whose MAC addresses are known.
    pub neighbours: ArrayVec<StaticNeighbour, MAX_NEIGHBOURS>,
    /// `-b`: the disks to mount from, in order; none stands for all that there are. What a number means is the platform's to say:
    /// virtio counts its disks from 0, Xen has virtual block device numbers (51712 is xvda).
    pub disks: ArrayVec<u32, MAX_DISKS>,
    /// `-x`: the disk that statistics are exported to; a number as in [`Params::disks`].
    pub stats_disk: Option<u32>,
    /// `-h`: there is to be no control directory.
    pub no_control_directory: bool,
    /// `-c`: most HTTP connections at once. [`default_max_connections`] says what suits where it is not given.
    pub max_connections: Option<u32>,
    /// `-P`: all objects are to be read into the cache after start.
    pub prefetch: bool,
    /// The virtio-mmio devices that the hypervisor has named, in its order.
    pub virtio_mmio: ArrayVec<VirtioMmio, MAX_VIRTIO_MMIO>,
    /// Words that were left unread: other kernels' parameters, and devices that made no sense. Worth a note on the console.
    pub ignored: Vec<String>,
}

/// How many HTTP connections suit a machine with so much memory, in bytes: an eighth of it, at a KiB for each idle connection,
/// but at least 512 and at most [`MAX_CONNECTIONS`].
pub fn default_max_connections(memory_bytes: u64) -> u32 {
    const IDLE_CONNECTION_BYTES: u64 = 1 << 10;
    let fitting = memory_bytes / 8 / IDLE_CONNECTION_BYTES;
    fitting.clamp(512, MAX_CONNECTIONS.into()) as u32
}

impl Params {
    /// The network that they ask for: HTTP at port 80, the shell at port 23.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn network(&self) -> Result<NetworkConfig, ParamsError> {
        let config = NetworkConfig {
            addresses: self.addresses.clone(),
            dhcp: !self.addresses.iter().any(|cidr| matches!(cidr, IpCidr::Ipv4(_))),
            slaac: !self.addresses.iter().any(|cidr| matches!(cidr, IpCidr::Ipv6(_))),
            gateway_v4: self.gateway_v4,
            gateway_v6: self.gateway_v6,
            dns_servers: [self.primary_dns, self.secondary_dns].into_iter().flatten().collect(),
            static_neighbours: self.neighbours.clone(),
            shell_port: Some(SHELL_PORT),
            ..NetworkConfig::default()
        };
        config.validate().map_err(ParamsError::Network)?;
        Ok(config)
    }

    /// Reads a command line. It ends at the first NUL byte, if there is one.
    ///
    /// # Errors
    /// The first thing that is wrong with it. The machine should say so and stop: nobody knows what was meant.
    pub fn parse(line: &[u8]) -> Result<Self, ParamsError> {
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
        if line.len() > MAX_LINE_BYTES {
            return Err(ParamsError::TooLong(line.len()));
        }
        let line = core::str::from_utf8(line).map_err(|error| ParamsError::NotUtf8(error.valid_up_to()))?;
        let mut params = Self::default();
        let mut words = Words::new(line);
        let mut options = true;
        while let Some(word) = words.next()? {
            match word.strip_prefix('-').filter(|letters| options && !letters.is_empty()) {
                // The usual mark: what follows are no options.
                Some("-") => options = false,
                Some(letters) => params.options(letters, &mut words)?,
                None => params.operand(word)?,
            }
        }
        params.network()?;
        Ok(params)
    }

    /// One word of options: flags, and at most one option with an argument, which is the word's rest or the next word.
    fn options(&mut self, letters: &str, words: &mut Words<'_>) -> Result<(), ParamsError> {
        let mut rest = letters.chars();
        while let Some(option) = rest.next() {
            match option {
                'h' => self.no_control_directory = true,
                'P' => self.prefetch = true,
                's' | 'i' | 'g' | 'd' | 'e' | 'a' | 'b' | 'x' | 'c' => {
                    let argument = match rest.as_str() {
                        "" => words.next()?.ok_or(ParamsError::MissingArgument(option))?,
                        attached => attached.into(),
                    };
                    return self.set(option, argument);
                }
                _ => return Err(ParamsError::UnknownOption(option)),
            }
        }
        Ok(())
    }

    fn set(&mut self, option: char, argument: String) -> Result<(), ParamsError> {
        match option {
            's' => self.delay_s = number(&argument).ok_or(ParamsError::Delay(argument))?,
            'i' => self.add_address(argument)?,
            'g' => self.set_gateway(argument)?,
            'd' => set_dns_server(&mut self.primary_dns, argument)?,
            'e' => set_dns_server(&mut self.secondary_dns, argument)?,
            'a' => {
                let neighbour = neighbour(&argument).ok_or(ParamsError::Neighbour(argument))?;
                self.neighbours.try_push(neighbour).map_err(|_| ParamsError::TooManyNeighbours)?;
            }
            'b' => {
                let disk = self.unused_disk(argument)?;
                self.disks.try_push(disk).map_err(|_| ParamsError::TooManyDisks)?;
            }
            'x' if self.stats_disk.is_some() => return Err(ParamsError::SecondStatsDisk(argument)),
            'x' => self.stats_disk = Some(self.unused_disk(argument)?),
            _ => self.max_connections = Some(connections(argument)?),
        }
        Ok(())
    }

    fn add_address(&mut self, argument: String) -> Result<(), ParamsError> {
        let cidr = cidr(&argument).ok_or_else(|| ParamsError::Address(argument.clone()))?;
        let is_v4 = |cidr: &IpCidr| matches!(cidr, IpCidr::Ipv4(_));
        if is_v4(&cidr) && self.addresses.iter().any(is_v4) {
            return Err(ParamsError::SecondIpv4(argument));
        }
        self.addresses.try_push(cidr).map_err(|_| ParamsError::TooManyAddresses)
    }

    fn set_gateway(&mut self, argument: String) -> Result<(), ParamsError> {
        let second = match address(&argument) {
            Some(IpAddress::Ipv4(gateway)) => self.gateway_v4.replace(gateway).is_some(),
            Some(IpAddress::Ipv6(gateway)) => self.gateway_v6.replace(gateway).is_some(),
            None => return Err(ParamsError::Gateway(argument)),
        };
        if second { Err(ParamsError::SecondGateway(argument)) } else { Ok(()) }
    }

    /// A disk's number, if nothing else has it.
    fn unused_disk(&self, argument: String) -> Result<u32, ParamsError> {
        let disk = number(&argument).ok_or(ParamsError::Disk(argument))?;
        match self.disks.contains(&disk) || self.stats_disk == Some(disk) {
            true => Err(ParamsError::DiskTwice(disk)),
            false => Ok(disk),
        }
    }

    /// A word that is no option: a hypervisor's, or a mistake.
    fn operand(&mut self, word: String) -> Result<(), ParamsError> {
        if let Some(device) = hypervisor::virtio_mmio(&word)
            && self.virtio_mmio.try_push(device).is_ok()
        {
            return Ok(());
        }
        if !hypervisor::is_kernel_word(&word) {
            return Err(ParamsError::StrayWord(word));
        }
        self.ignored.push(word);
        Ok(())
    }
}

/// A number of decimal digits and nothing else.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn connections(argument: String) -> Result<u32, ParamsError> {
    match number(&argument) {
        Some(0) => Err(ParamsError::Connections(argument)),
        Some(connections) if connections <= MAX_CONNECTIONS => Ok(connections),
        None if argument.is_empty() || argument.bytes().any(|byte| !byte.is_ascii_digit()) => {
            Err(ParamsError::Connections(argument))
        }
        _ => Err(ParamsError::TooManyConnections(argument)),
    }
}

fn address(text: &str) -> Option<IpAddress> {
    match text.parse::<Ipv4Addr>() {
        Ok(v4) => Some(IpAddress::Ipv4(v4)),
        Err(_) => text.parse::<Ipv6Addr>().ok().map(IpAddress::Ipv6),
    }
}

fn cidr(text: &str) -> Option<IpCidr> {
    let (host, prefix) = text.split_once('/')?;
    let prefix = u8::try_from(number(prefix)?).ok()?;
    match address(host)? {
        IpAddress::Ipv4(v4) if prefix <= 32 => Some(IpCidr::Ipv4(Ipv4Cidr::new(v4, prefix))),
        IpAddress::Ipv6(v6) if prefix <= 128 => Some(IpCidr::Ipv6(Ipv6Cidr::new(v6, prefix))),
        _ => None,
    }
}

fn set_dns_server(server: &mut Option<IpAddress>, argument: String) -> Result<(), ParamsError> {
    let good = address(&argument).filter(|address| address.is_unicast() && server.is_none());
    *server = Some(good.ok_or(ParamsError::DnsServer(argument))?);
    Ok(())
}

/// `MAC/address`: six hexadecimal bytes with colons between, and an address, each of a single host.
fn neighbour(text: &str) -> Option<StaticNeighbour> {
    let (mac, host) = text.split_once('/')?;
    let mut hardware_address = [0; 6];
    let mut parts = mac.split(':');
    for byte in &mut hardware_address {
        let part = parts.next()?;
        let hexadecimal = (1..=2).contains(&part.len()) && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = hexadecimal.then(|| u8::from_str_radix(part, 16).ok()).flatten()?;
    }
    let neighbour = StaticNeighbour { hardware_address, address: address(host)? };
    (parts.next().is_none() && neighbour.is_valid()).then_some(neighbour)
}
