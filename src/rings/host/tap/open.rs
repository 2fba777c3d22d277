//! Opening the interface: `/dev/net/tun` and its ioctls (linux/if_tun.h, tuntap.rst of the kernel's documentation).

use linux_raw_sys::if_tun::{IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6};
use linux_raw_sys::ioctl::{TUNGETIFF, TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Setter, Updater, ioctl};
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::header::HEADER_BYTES;
use super::link::{Link, LinkSocket};

/// Where interfaces come from.
const DEVICE: &str = "/dev/net/tun";

/// Longest name of an interface in bytes (`IFNAMSIZ` less the final NUL).
const MAX_NAME_BYTES: usize = 15;

/// What the host may leave to us on frames that it sends: checksums and segmentation.
const OFFLOADS: u32 = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

/// Why there is no interface, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapError {
    /// The name can't be an interface's.
    Name(String),
    /// `/dev/net/tun` can't be opened.
    Device(Errno),
    /// We may not make the interface, nor attach to it.
    NotAllowed(String),
    /// Another program is attached to the interface.
    InUse(String),
    /// An interface of that name is there, and is no TAP interface with one queue.
    OtherKind(String),
    /// The kernel said no to what should work.
    Refused {
        /// The interface.
        name: String,
        /// What was asked.
        step: &'static str,
        /// What it said.
        error: Errno,
    },
}

impl fmt::Display for TapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "{name:?} can't be an interface's name: choose 1 to {MAX_NAME_BYTES} letters and digits, such as mc0"
            ),
            Self::Device(error @ (Errno::NOENT | Errno::NODEV | Errno::NXIO)) => write!(
                f,
                "{DEVICE} is missing ({error}): load the kernel's driver with `modprobe tun`; a container has to be given \
                 the device"
            ),
            Self::Device(error) => {
                write!(f, "can't open {DEVICE} ({error}): run as root, or with read and write permission on it")
            }
            Self::NotAllowed(name) => write!(
                f,
                "making the interface {name} takes a privilege (CAP_NET_ADMIN): run as root, or have root prepare it for \
                 you with `ip tuntap add dev {name} mode tap user YOU`"
            ),
            Self::InUse(name) => {
                write!(f, "another program is attached to the interface {name}: stop it, or choose another name")
            }
            Self::OtherKind(name) => write!(
                f,
                "the interface {name} is there already, and is no TAP interface with one queue: choose another name"
            ),
            Self::Refused { name, step, error } => write!(
                f,
                "the kernel refuses {step} for the interface {name} ({error}): it has to be Linux with TAP and vnet headers"
            ),
        }
    }
}

impl std::error::Error for TapError {}

/// `struct ifreq` of linux/if.h, with the flags of its union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; MAX_NAME_BYTES + 1],
    flags: u16,
    padding: [u8; 22],
}

/// An interface that we are attached to.
pub(super) struct Opened {
    pub device: OwnedFd,
    pub socket: LinkSocket,
    pub link: Link,
}

/// Makes the interface, or attaches to the one that is there.
pub(super) fn open(name: &str) -> Result<Opened, TapError> {
    let mut request = request(name)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let device = rustix::fs::open(DEVICE, flags, Mode::empty()).map_err(TapError::Device)?;
    let refused = |step| move |error| TapError::Refused { name: name.to_owned(), step, error };

    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which this is in size, alignment and layout.
    unsafe { ioctl(&device, Updater::<{ TUNSETIFF }, _>::new(&mut request)) }.map_err(|error| match error {
        Errno::PERM | Errno::ACCESS => TapError::NotAllowed(name.to_owned()),
        Errno::BUSY => TapError::InUse(name.to_owned()),
        Errno::INVAL => TapError::OtherKind(name.to_owned()),
        error => refused("a TAP interface")(error),
    })?;
    // SAFETY: TUNSETVNETHDRSZ reads an `int`.
    unsafe { ioctl(&device, Setter::<{ TUNSETVNETHDRSZ }, i32>::new(HEADER_BYTES as i32)) }
        .map_err(refused("vnet headers"))?;
    // SAFETY: TUNSETOFFLOAD takes its flags as the argument itself.
    unsafe { ioctl(&device, IntegerSetter::<{ TUNSETOFFLOAD }>::new_usize(OFFLOADS as usize)) }
        .map_err(refused("offloads"))?;

    let any_socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None);
    let index = any_socket.and_then(|socket| rustix::net::netdevice::name_to_index(socket, name));
    let socket = index.and_then(LinkSocket::open);
    let mut socket = socket.map_err(refused("a routing socket"))?;
    let link = socket.ask().and_then(|link| link.ok_or(Errno::NODEV)).map_err(refused("a description"))?;
    Ok(Opened { device, socket, link })
}

/// True if the interface at the other side of `device` has been deleted.
pub(super) fn is_deleted(device: BorrowedFd<'_>) -> bool {
    let mut request = InterfaceRequest { name: [0; MAX_NAME_BYTES + 1], flags: 0, padding: [0; 22] };
    // SAFETY: TUNGETIFF writes a `struct ifreq`, which this is in size, alignment and layout.
    let result = unsafe { ioctl(device, Updater::<{ TUNGETIFF }, _>::new(&mut request)) };
    result == Err(Errno::BADFD)
}

/// The request for an interface of this name.
fn request(name: &str) -> Result<InterfaceRequest, TapError> {
    // "%d" would ask the kernel for a number, and the other characters mean something in a path or to a tool.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_plain);
    if !fits || [".", ".."].contains(&name) {
        return Err(TapError::Name(name.to_owned()));
    }
    let flags = (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) as u16;
    let mut request = InterfaceRequest { name: [0; MAX_NAME_BYTES + 1], flags, padding: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for bad in ["", "sixteen-letters-", "a/b", "a b", "tap%d", "mc0:1", ".", "..", "d\u{e9}j\u{e0}", "a\0b"] {
            let error = request(bad).err().unwrap();
            assert!(matches!(&error, TapError::Name(name) if name == bad), "{bad:?}: {error}");
        }
        let good = request("fifteen-letters").unwrap();
        assert_eq!(&good.name, b"fifteen-letters\0");
    }

    #[test]
    fn the_layout_is_the_kernels() {
        // A name and a union of at most 24 bytes (`struct ifmap`).
        assert_eq!(size_of::<InterfaceRequest>(), 40);
        assert_eq!(std::mem::offset_of!(InterfaceRequest, flags), 16);
    }

    #[test]
    fn errors_say_what_to_do() {
        let said = |error: TapError| error.to_string();
        assert!(said(TapError::Device(Errno::NOENT)).contains("modprobe tun"));
        assert!(said(TapError::Device(Errno::ACCESS)).contains("run as root"));
        assert!(said(TapError::NotAllowed("mc0".into())).contains("ip tuntap add dev mc0 mode tap user"));
        assert!(said(TapError::InUse("mc0".into())).contains("choose another name"));
    }
}
