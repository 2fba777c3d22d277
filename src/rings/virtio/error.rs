//! Why a virtio device can't be used.

use core::fmt;

/// Why a device was refused, or has been given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtioError {
    /// It is of another kind than the driver (virtio device ID in `found`).
    WrongDevice {
        /// The device ID that it shows.
        found: u32,
    },
    /// It did not come back from a reset.
    StuckInReset,
    /// It did not accept a subset of the features that it offered.
    FeaturesRefused,
    /// It wants its driver to know of an IOMMU (VIRTIO_F_ACCESS_PLATFORM), and nothing here does.
    BehindIommu,
    /// It lacks a feature without which nothing works here; the name is the specification's.
    MissingFeature(&'static str),
    /// It has no such queue, or one too small to be of use.
    NoQueue {
        /// The queue's number.
        queue: u16,
        /// The entries that it offers.
        entries: u16,
    },
    /// The queue's memory lies where the transport can't name it.
    QueueAddress,
    /// Its configuration space is too short for a field that a feature promised.
    ShortConfiguration,
    /// Its configuration kept changing while it was read.
    RestlessConfiguration,
    /// A field of its configuration makes no sense; the name is the specification's.
    BadConfiguration(&'static str),
    /// It set DEVICE_NEEDS_RESET or FAILED.
    NeedsReset,
    /// It returned a buffer that it did not hold.
    UnknownBuffer {
        /// The identifier in the used ring.
        id: u32,
    },
    /// It claims to have written more than it was given.
    TooLong {
        /// Bytes that it claims.
        bytes: u32,
    },
    /// Its used index moved further than there were buffers.
    IndexJumped,
    /// It spread a frame over more buffers than any frame takes.
    TooManyBuffers {
        /// `num_buffers` of the frame's header.
        buffers: u16,
    },
}

impl fmt::Display for VirtioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongDevice { found } => {
                write!(f, "a device of virtio kind {found}, which this driver does not know")
            }
            Self::StuckInReset => f.write_str("the device does not finish its reset"),
            Self::FeaturesRefused => f.write_str("the device refuses features that it offered"),
            Self::BehindIommu => f.write_str(
                "the device wants an IOMMU to be set up for it (VIRTIO_F_ACCESS_PLATFORM): start it with iommu_platform=off",
            ),
            Self::MissingFeature(name) => write!(f, "the device does not offer {name}, which is needed"),
            Self::NoQueue { queue, entries: 0 } => write!(f, "the device has no queue {queue}"),
            Self::NoQueue { queue, entries } => write!(f, "queue {queue} has only {entries} entries"),
            Self::QueueAddress => f.write_str("the queues lie beyond 16 TiB, which a legacy device can't address"),
            Self::ShortConfiguration => {
                f.write_str("the configuration space lacks fields of features that are offered")
            }
            Self::RestlessConfiguration => f.write_str("the configuration changes faster than it can be read"),
            Self::BadConfiguration(name) => write!(f, "the configuration field {name} makes no sense"),
            Self::NeedsReset => f.write_str("the device asks to be reset"),
            Self::UnknownBuffer { id } => write!(f, "the device returned buffer {id}, which it did not hold"),
            Self::TooLong { bytes } => {
                write!(f, "the device claims to have written {bytes} bytes, more than there was room for")
            }
            Self::IndexJumped => f.write_str("the used index moved past every buffer there was"),
            Self::TooManyBuffers { buffers } => write!(f, "a received frame claims to take {buffers} buffers"),
        }
    }
}

impl core::error::Error for VirtioError {}
