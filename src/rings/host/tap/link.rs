//! What the kernel says of the host's side of the interface, over a routing socket (rtnetlink(7), linux/rtnetlink.h).
//!
//! The socket also hears of every change of a link, so that whoever sleeps on it learns when ours is changed or deleted.

use linux_raw_sys::netlink::{
    IFLA_GSO_IPV4_MAX_SIZE, IFLA_MTU, NLM_F_REQUEST, NLMSG_ERROR, RTM_GETLINK, RTM_NEWLINK, RTMGRP_LINK,
};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a message that are looked at. The description of a link takes about 2,000.
const MESSAGE_BYTES: usize = 16 << 10;

/// Attributes begin at multiples of this.
const ALIGNMENT: usize = 4;

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
struct MessageHeader {
    /// With this header.
    bytes: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct ifinfomsg`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
struct LinkMessage {
    family: u8,
    padding: u8,
    hardware_type: u16,
    index: u32,
    flags: u32,
    change: u32,
}

/// `struct rtattr`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Attribute {
    /// With this header.
    bytes: u16,
    kind: u16,
}

/// A question about one link.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Question {
    header: MessageHeader,
    link: LinkMessage,
}

/// The host's side of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Largest IP packet in bytes.
    pub mtu_bytes: u16,
    /// The kernel knows IPv4 super-frames beyond 65,535 bytes (Linux 6.3), whose total length is 0.
    pub big_ipv4: bool,
}

/// The routing socket.
pub(super) struct LinkSocket {
    socket: OwnedFd,
    index: u32,
    sequence: u32,
    message: Box<[u8]>,
}

impl LinkSocket {
    /// A socket that hears of changes, for questions about the link `index`.
    pub fn open(index: u32) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0 is NETLINK_ROUTE.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, RTMGRP_LINK))?;
        Ok(Self { socket, index, sequence: 0, message: vec![0; MESSAGE_BYTES].into_boxed_slice() })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Asks for the link as it is now, and reads everything that has come in; `None` where the link is not in our network
    /// namespace (any more).
    pub fn ask(&mut self) -> Result<Option<Link>> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = Question {
            header: MessageHeader {
                bytes: size_of::<Question>() as u32,
                kind: RTM_GETLINK as u16,
                flags: NLM_F_REQUEST as u16,
                sequence: self.sequence,
                port: 0,
            },
            link: LinkMessage { family: 0, padding: 0, hardware_type: 0, index: self.index, flags: 0, change: 0 },
        };
        // The kernel answers before this returns, behind the changes that are waiting.
        rustix::net::send(&self.socket, question.as_bytes(), SendFlags::empty())?;
        let mut answer = None;
        loop {
            match rustix::net::recv(&self.socket, &mut self.message[..], RecvFlags::empty()) {
                Ok((bytes, _)) => answer = answer.or(parse(&self.message[..bytes], self.sequence)),
                Err(Errno::AGAIN) => break,
                // Changes were lost for want of room: the answer tells what they came to.
                Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        match answer {
            Some(Ok(link)) => Ok(Some(link)),
            Some(Err(Errno::NODEV)) | None => Ok(None),
            Some(Err(error)) => Err(error),
        }
    }
}

/// The answer to question `sequence`, if it is in these messages.
fn parse(mut messages: &[u8], sequence: u32) -> Option<Result<Link>> {
    while let Ok((header, rest)) = MessageHeader::read_from_prefix(messages) {
        let bytes = header.bytes as usize;
        let body = rest.get(..bytes.checked_sub(size_of::<MessageHeader>())?)?;
        if header.sequence == sequence {
            if header.kind == NLMSG_ERROR as u16 {
                let (code, _) = i32::read_from_prefix(body).ok()?;
                return Some(Err(Errno::from_raw_os_error(code.wrapping_neg())));
            }
            if header.kind == RTM_NEWLINK as u16 {
                return parse_link(body).map(Ok);
            }
        }
        messages = messages.get(bytes.next_multiple_of(ALIGNMENT)..)?;
    }
    None
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let (_, mut attributes) = LinkMessage::read_from_prefix(body).ok()?;
    let (mut mtu_bytes, mut big_ipv4) = (None, false);
    while let Ok((attribute, rest)) = Attribute::read_from_prefix(attributes) {
        let bytes = usize::from(attribute.bytes);
        let value = rest.get(..bytes.checked_sub(size_of::<Attribute>())?)?;
        if attribute.kind == IFLA_MTU as u16 {
            let (mtu, _) = u32::read_from_prefix(value).ok()?;
            mtu_bytes = Some(u16::try_from(mtu).unwrap_or(u16::MAX));
        }
        big_ipv4 |= attribute.kind == IFLA_GSO_IPV4_MAX_SIZE as u16;
        attributes = attributes.get(bytes.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
    }
    mtu_bytes.map(|mtu_bytes| Link { mtu_bytes, big_ipv4 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let header = Attribute { bytes: (4 + value.len()) as u16, kind };
        let mut bytes = [header.as_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let header = MessageHeader { bytes: (16 + body.len()) as u32, kind, flags: 0, sequence, port: 9 };
        let mut bytes = [header.as_bytes(), body].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(attributes: &[Vec<u8>]) -> Vec<u8> {
        [vec![0; 16], attributes.concat()].concat()
    }

    #[test]
    fn the_answer_is_found_among_changes() {
        let answer = link(&[
            attribute(3, b"mc0\0"),
            attribute(4, &9000_u32.to_ne_bytes()),
            attribute(63, &65_536_u32.to_ne_bytes()),
        ]);
        let other = message(16, 0, &link(&[attribute(4, &1280_u32.to_ne_bytes())]));
        let both = [other.clone(), message(16, 7, &answer)].concat();
        assert_eq!(parse(&both, 7), Some(Ok(Link { mtu_bytes: 9000, big_ipv4: true })));
        assert_eq!(parse(&other, 7), None);
        let old = message(16, 7, &link(&[attribute(4, &65_536_u32.to_ne_bytes())]));
        assert_eq!(parse(&old, 7), Some(Ok(Link { mtu_bytes: u16::MAX, big_ipv4: false })));
        let refused = message(2, 7, &(-19_i32).to_ne_bytes());
        assert_eq!(parse(&refused, 7), Some(Err(Errno::NODEV)));
    }

    proptest! {
        #[test]
        fn nonsense_is_no_answer_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..100_usize) {
            let _ = parse(&bytes, 0);
            let _ = parse_link(&bytes);
            let whole = message(16, 7, &[link(&[attribute(4, &[1, 2, 3, 4]), attribute(63, &[0; 4])]), bytes].concat());
            let _ = parse(&whole[..cut.min(whole.len())], 7);
            let _ = parse(&whole, 7);
        }
    }

    #[test]
    fn the_loopback_interface_is_known_and_no_other_of_that_kind() {
        let mut socket = LinkSocket::open(1).unwrap();
        assert!(socket.ask().unwrap().is_some_and(|link| link.mtu_bytes >= 16_384));
        let mut nobody = LinkSocket::open(0x7fff_fff0).unwrap();
        assert_eq!(nobody.ask().unwrap(), None);
    }
}
