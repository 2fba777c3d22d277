//! Why a Xen device, or the store, can't be used.

use alloc::string::String;
use core::fmt;

use super::HypercallError;

/// Why something of Xen's can't be used, or was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XenError {
    /// A hypercall failed.
    Hypercall {
        /// What it was to do.
        what: &'static str,
        /// Xen's answer.
        error: HypercallError,
    },
    /// The store answered with this error (`ENOENT`, `EACCES`, …).
    Store {
        /// The node that was asked about.
        path: String,
        /// The store's word.
        error: String,
    },
    /// The store broke the rules of its own protocol, so nothing more can be had from it.
    StoreBroken(&'static str),
    /// More is wanted of the store at once than there is room for.
    StoreBusy,
    /// A node of the store that has to be there is not.
    Missing(String),
    /// A node of the store says what can't be.
    BadValue {
        /// The node.
        path: String,
        /// What it says.
        value: String,
    },
    /// The back end lacks a feature without which nothing works here.
    MissingFeature(&'static str),
    /// The back end went away while it was being connected.
    Withdrawn,
    /// All entries of the grant table are in use.
    NoGrants,
    /// There is no memory left for rings and what belongs to them.
    NoMemory,
    /// The back end claims more responses than it got requests.
    IndexJumped,
    /// The back end answered a request that it did not have.
    UnknownId(u64),
    /// The back end answered a request and still uses the page that it was about.
    StillInUse,
    /// The back end claims to have written outside of the page that it was given.
    OutsidePage {
        /// Where.
        offset: u16,
        /// How much.
        bytes: i16,
    },
    /// A received packet takes more slots than any packet does, or is not whole.
    BadPacket(&'static str),
}

impl XenError {
    /// True if another try would end in the same way.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::NoMemory | Self::MissingFeature(_) | Self::StoreBroken(_))
    }
}

impl fmt::Display for XenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hypercall { what, error } => write!(f, "{what}: Xen answers {error}"),
            Self::Store { path, error } => write!(f, "xenstore: {path}: {error}"),
            Self::StoreBroken(what) => write!(f, "xenstore breaks its own protocol: {what}"),
            Self::StoreBusy => f.write_str("xenstore: too many requests at once"),
            Self::Missing(path) => write!(f, "xenstore: {path} is missing"),
            Self::BadValue { path, value } => write!(f, "xenstore: {path} says {value:?}, which makes no sense"),
            Self::MissingFeature(name) => write!(f, "the back end does not offer {name}, which is needed"),
            Self::Withdrawn => f.write_str("the back end went away before it was connected"),
            Self::NoGrants => f.write_str(
                "the grant table is full: give the domain a larger one (max_grant_frames in xl's configuration)",
            ),
            Self::NoMemory => f.write_str("there is no memory left for its rings: give the domain more"),
            Self::IndexJumped => f.write_str("the back end claims more responses than there were requests"),
            Self::UnknownId(id) => write!(f, "the back end answered request {id}, which it did not have"),
            Self::StillInUse => f.write_str("the back end answered a request and kept its page"),
            Self::OutsidePage { offset, bytes } => {
                write!(f, "the back end claims to have written {bytes} bytes at {offset} of a page")
            }
            Self::BadPacket(what) => write!(f, "a received packet {what}"),
        }
    }
}

impl core::error::Error for XenError {}
