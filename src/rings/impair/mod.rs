//! A bad network on demand: loss, delay, reordering, duplicates, corruption and a bottleneck, decided by a seed.
//!
//! It is a test instrument that stands around a device ([`Impaired`]) or between two places ([`Link`]). What may enter this
//! room: frames as they appear on a wire (see [`super::wire`]), and time. Frames that are on their way are copies in memory of
//! its own, allocated as they come and bounded (see [`Link`]).
//!
//! | file | duty |
//! |---|---|
//! | `config` | what goes wrong: [`Impairment`] for a direction, [`Impairments`] for both |
//! | `parse` | the same, as text |
//! | `link` | one direction of a wire |
//! | `impaired` | a device at the end of such a wire |
//! | `rng` | the numbers that a seed stands for |

mod config;
mod impaired;
mod link;
mod parse;
pub(super) mod rng;

pub use config::{DEFAULT_HOLD, Impairment, Impairments};
pub use impaired::{Clock, Impaired, ImpairedCounts};
pub use link::{Link, LinkCounts, MAX_HELD_BYTES};
pub use parse::{ACCEPTED, ParseError};
