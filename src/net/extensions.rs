//! The chain of IPv6 extension headers (RFC 8200 §4) in front of a transport header.

use smoltcp::wire::{
    IpProtocol, Ipv6ExtHeader, Ipv6ExtHeaderRepr, Ipv6FragmentHeader, Ipv6FragmentRepr, Ipv6OptionFailureType,
    Ipv6OptionRepr, Ipv6OptionsIterator,
};

use super::demux::DropReason;

/// Most extension headers that are followed. RFC 8504 §5.3 lets a host set a limit.
const MAX_EXTENSIONS: usize = 8;

/// The jumbo payload option (RFC 2675), which Linux puts into super-frames beyond 64 KiB.
const JUMBO_PAYLOAD: u8 = 0xc2;

/// What follows the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// The transport protocol.
    pub protocol: IpProtocol,
    /// Bytes of extension headers.
    pub bytes: usize,
    /// There is nothing but perhaps a hop-by-hop header: what the control plane understands.
    pub simple: bool,
    /// A hop-by-hop header is there.
    pub hop_by_hop: bool,
}

/// Walks the chain that begins with `first` at the start of `bytes`. `jumbo` allows the jumbo payload option.
pub(super) fn walk(first: IpProtocol, bytes: &[u8], jumbo: bool) -> Result<Chain, DropReason> {
    let mut chain = Chain { protocol: first, bytes: 0, simple: true, hop_by_hop: false };
    for number in 0..=MAX_EXTENSIONS {
        let rest = &bytes[chain.bytes..];
        match chain.protocol {
            // Only the first header may be a hop-by-hop one (RFC 8200 §4.1).
            IpProtocol::HopByHop if number == 0 => {
                chain.hop_by_hop = true;
                let header = extension(rest)?;
                check_options(header.data, jumbo)?;
                chain.step(header);
            }
            IpProtocol::HopByHop => return Err(DropReason::Malformed),
            IpProtocol::Ipv6Opts => {
                chain.simple = false;
                let header = extension(rest)?;
                check_options(header.data, jumbo)?;
                chain.step(header);
            }
            IpProtocol::Ipv6Route => {
                chain.simple = false;
                let header = extension(rest)?;
                // The second byte of its data is the number of hops left; we forward for nobody (RFC 5095).
                if header.data.get(1) != Some(&0) {
                    return Err(DropReason::Malformed);
                }
                chain.step(header);
            }
            IpProtocol::Ipv6Frag => {
                chain.simple = false;
                // Its second byte is reserved and no length.
                let [next, _, fields @ ..] =
                    rest.first_chunk::<FRAGMENT_HEADER_BYTES>().ok_or(DropReason::Malformed)?;
                let fragment = Ipv6FragmentHeader::new_checked(fields).map_err(|_| DropReason::Malformed)?;
                let fragment = Ipv6FragmentRepr::parse(&fragment).map_err(|_| DropReason::Malformed)?;
                // An "atomic fragment" is whole (RFC 6946).
                if fragment.frag_offset != 0 || fragment.more_frags {
                    return Err(DropReason::Fragment);
                }
                chain.protocol = (*next).into();
                chain.bytes += FRAGMENT_HEADER_BYTES;
            }
            // RFC 8200 §4.7: nothing follows, and what does is to be ignored.
            IpProtocol::Ipv6NoNxt => return Err(DropReason::NotOurs),
            _ => return Ok(chain),
        }
    }
    Err(DropReason::Malformed)
}

/// A fragment header has no length field: it is always this long (RFC 8200 §4.5).
const FRAGMENT_HEADER_BYTES: usize = 8;

impl Chain {
    fn step(&mut self, header: Ipv6ExtHeaderRepr<'_>) {
        self.protocol = header.next_header;
        self.bytes += header.header_len() + header.data.len();
    }
}

fn extension(bytes: &[u8]) -> Result<Ipv6ExtHeaderRepr<'_>, DropReason> {
    let header = Ipv6ExtHeader::new_checked(bytes).map_err(|_| DropReason::Malformed)?;
    Ipv6ExtHeaderRepr::parse(&header).map_err(|_| DropReason::Malformed)
}

/// An option that we don't know may be skipped only where its type says so (RFC 8200 §4.2).
fn check_options(data: &[u8], jumbo: bool) -> Result<(), DropReason> {
    for option in Ipv6OptionsIterator::new(data) {
        match option.map_err(|_| DropReason::Malformed)? {
            Ipv6OptionRepr::Unknown { type_, .. } => {
                let type_ = u8::from(type_);
                let skip = Ipv6OptionFailureType::from(type_) == Ipv6OptionFailureType::Skip;
                let known = jumbo && type_ == JUMBO_PAYLOAD;
                if !skip && !known {
                    return Err(DropReason::Malformed);
                }
            }
            _ => continue,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TCP: u8 = 6;
    const PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];

    fn header(next: u8, data: [u8; 6]) -> [u8; 8] {
        let mut header = [next, 0, 0, 0, 0, 0, 0, 0];
        header[2..].copy_from_slice(&data);
        header
    }

    #[test]
    fn chains_lead_to_the_transport_protocol() {
        let tcp = walk(IpProtocol::Tcp, &[], false).unwrap();
        assert_eq!(tcp, Chain { protocol: IpProtocol::Tcp, bytes: 0, simple: true, hop_by_hop: false });
        let mut fragment = header(TCP, [0, 0, 0, 0, 0, 1]);
        fragment[1] = 0xff;
        let chain = [header(60, PADDING), header(43, PADDING), header(44, [0; 6]), fragment].concat();
        let tcp = walk(IpProtocol::HopByHop, &chain, false).unwrap();
        assert_eq!(tcp, Chain { protocol: IpProtocol::Tcp, bytes: 32, simple: false, hop_by_hop: true });
    }

    #[test]
    fn what_must_not_be_skipped_drops_the_packet() {
        let walk_one = |kind: IpProtocol, data| walk(kind, &header(TCP, data), false);
        assert_eq!(walk_one(IpProtocol::Ipv6Frag, [0, 1, 0, 0, 0, 1]), Err(DropReason::Fragment), "more fragments");
        assert_eq!(walk_one(IpProtocol::Ipv6Frag, [0, 8, 0, 0, 0, 1]), Err(DropReason::Fragment), "a later one");
        assert_eq!(walk_one(IpProtocol::Ipv6Route, [2, 1, 0, 0, 0, 0]), Err(DropReason::Malformed), "forward it");
        assert_eq!(walk_one(IpProtocol::Ipv6Opts, [0xc2, 4, 0, 1, 0, 0]), Err(DropReason::Malformed), "jumbo");
        assert!(walk(IpProtocol::HopByHop, &header(TCP, [0xc2, 4, 0, 1, 0, 0]), true).is_ok(), "jumbo super-frame");
        assert!(walk_one(IpProtocol::Ipv6Opts, [0x1e, 4, 0, 0, 0, 0]).is_ok(), "unknown, to be skipped");
        assert_eq!(walk_one(IpProtocol::Ipv6Opts, [0x1e, 9, 0, 0, 0, 0]), Err(DropReason::Malformed), "too long");
        assert_eq!(walk(IpProtocol::Ipv6NoNxt, &[], false), Err(DropReason::NotOurs));
        assert_eq!(walk(IpProtocol::Ipv6Opts, &header(0, PADDING), false), Err(DropReason::Malformed), "second");
        assert_eq!(walk(IpProtocol::Ipv6Opts, &header(TCP, PADDING)[..7], false), Err(DropReason::Malformed), "cut");
        let endless = header(60, PADDING).repeat(20);
        assert_eq!(walk(IpProtocol::Ipv6Opts, &endless, false), Err(DropReason::Malformed));
    }

    proptest! {
        #[test]
        fn no_chain_panics(first in any::<u8>(), bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(60), any::<u8>()], 0..200)) {
            if let Ok(chain) = walk(first.into(), &bytes, false) {
                prop_assert!(chain.bytes <= bytes.len());
            }
        }
    }
}
