//! What can be wrong with a command line, in words.

use alloc::string::String;
use core::fmt;

use super::{MAX_CONNECTIONS, MAX_DISKS, MAX_DNS_SERVERS, MAX_LINE_BYTES, MAX_NEIGHBOURS};
use crate::net::{MAX_ADDRESSES, NetworkConfigError};

/// Most characters of what was given that a message repeats.
const SHOWN_CHARACTERS: usize = 64;

/// Why a command line is refused. [`fmt::Display`] gives one line: what is wrong, what is expected, and what was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamsError {
    /// Longer than [`MAX_LINE_BYTES`]; its length in bytes.
    TooLong(usize),
    /// Not UTF-8; where, in bytes.
    NotUtf8(usize),
    /// A quote that is not closed.
    OpenQuote(char),
    /// A letter that is no option.
    UnknownOption(char),
    /// An option at the end of the line that wants an argument.
    MissingArgument(char),
    /// A word that belongs to no option and that no hypervisor adds.
    StrayWord(String),
    /// `-s`.
    Delay(String),
    /// `-i`.
    Address(String),
    /// `-i` with a second IPv4 address.
    SecondIpv4(String),
    /// More `-i` than [`MAX_ADDRESSES`].
    TooManyAddresses,
    /// `-g`.
    Gateway(String),
    /// `-g` twice for one family.
    SecondGateway(String),
    /// `-d` (primary) or `-e` (secondary).
    DnsServer(String),
    /// `-a`.
    Neighbour(String),
    /// More `-a` than [`MAX_NEIGHBOURS`].
    TooManyNeighbours,
    /// `-b` or `-x`.
    Disk(String),
    /// One disk for two purposes, or twice for one.
    DiskTwice(u32),
    /// More `-b` than [`MAX_DISKS`].
    TooManyDisks,
    /// `-x` twice.
    SecondStatsDisk(String),
    /// `-c`.
    Connections(String),
    /// `-c` beyond [`MAX_CONNECTIONS`].
    TooManyConnections(String),
    /// What the options say together.
    Network(NetworkConfigError),
}

/// What was given, fit for a console: escaped, and not too long.
struct Given<'a>(&'a str);

impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        f.write_str("'")?;
        characters
            .by_ref()
            .take(SHOWN_CHARACTERS)
            .flat_map(char::escape_debug)
            .try_for_each(|c| fmt::Write::write_char(f, c))?;
        f.write_str(if characters.next().is_some() { "...'" } else { "'" })
    }
}

impl fmt::Display for ParamsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes) => {
                write!(f, "a command line of {bytes} bytes is too long: at most {MAX_LINE_BYTES} are read")
            }
            Self::NotUtf8(at) => write!(f, "the command line is no UTF-8 text: see its byte {at}"),
            Self::OpenQuote(quote) => write!(f, "a quote ({quote}) is not closed"),
            Self::UnknownOption(option) => {
                write!(f, "unknown option -{}: there are -s -i -g -d -e -a -b -h -x -c and -P", option.escape_debug())
            }
            Self::MissingArgument(option) => write!(f, "option -{option} needs an argument"),
            Self::StrayWord(word) => write!(f, "{} belongs to no option", Given(word)),
            Self::Delay(given) => {
                write!(f, "invalid delay specified: {}; give seconds (e.g., -s 5)", Given(given))
            }
            Self::Address(given) => write!(
                f,
                "invalid host IP in CIDR notation specified (e.g., 192.168.0.2/24 or fd00::2/64): {}",
                Given(given)
            ),
            Self::SecondIpv4(given) => {
                write!(f, "only one IPv4 address can be specified, {} is a second one", Given(given))
            }
            Self::TooManyAddresses => write!(f, "at most {MAX_ADDRESSES} addresses can be specified"),
            Self::Gateway(given) => {
                write!(f, "invalid gateway IP specified (e.g., 192.168.0.1 or fe80::1): {}", Given(given))
            }
            Self::SecondGateway(given) => {
                write!(f, "only one gateway of each IP version can be specified, {} is a second one", Given(given))
            }
            Self::DnsServer(given) => write!(
                f,
                "invalid DNS server IP specified (e.g., 192.168.0.1 or fd00::1): {}; the at most {MAX_DNS_SERVERS} servers are \
                 -d and -e, each once",
                Given(given)
            ),
            Self::Neighbour(given) => {
                write!(f, "invalid static ARP entry specified (e.g., 52:54:00:12:34:56/192.168.0.9): {}", Given(given))
            }
            Self::TooManyNeighbours => {
                write!(f, "At most {MAX_NEIGHBOURS} static ARP entries can be specified")
            }
            Self::Disk(given) => {
                write!(f, "invalid block device specified: {}; give its number (e.g., 0 or 51712)", Given(given))
            }
            Self::DiskTwice(disk) => write!(f, "block device {disk} is specified twice"),
            Self::TooManyDisks => write!(f, "at most {MAX_DISKS} block devices can be specified"),
            Self::SecondStatsDisk(given) => {
                write!(f, "only one stats devices can be specified, {} is a second one", Given(given))
            }
            Self::Connections(given) => {
                write!(f, "invalid number of http connections specified: {}; give 1 to {MAX_CONNECTIONS}", Given(given))
            }
            Self::TooManyConnections(given) => {
                write!(f, "at most {MAX_CONNECTIONS} http connections supported, not {}", Given(given))
            }
            Self::Network(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ParamsError {}
