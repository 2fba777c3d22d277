//! IPv6 addresses and routers that the network announces (RFC 4861 §6.3, RFC 4862).
//!
//! No socket and no clock of its own: frames and time in, frames out. An address is the announced prefix and the identifier
//! made from the MAC address; it is used once nobody has objected for a second (duplicate address detection). smoltcp has such
//! a client, but one that keeps a single prefix of an announcement, forgets to expire what came late, and knows no MTU.

use arrayvec::ArrayVec;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv6Message, IpAddress, Ipv6Address, Ipv6Cidr, NdiscOption, NdiscOptionType,
    NdiscPrefixInfoFlags, NdiscRepr,
};

use super::addresses::solicited_node;
use super::discovery::{Message, Received};

/// Most prefixes that we have an address of; those beyond it are ignored.
pub(super) const MAX_PREFIXES: usize = 4;

/// Most routers that are remembered; those beyond it are ignored until one is gone.
const MAX_ROUTERS: usize = 4;

/// Between router solicitations (RFC 7559: they never end, but become rare).
const FIRST_SOLICITATION: Duration = Duration::from_secs(4);
const MAX_SOLICITATION: Duration = Duration::from_secs(3600);

/// How long an objection to an address is waited for (RFC 4861 §10: RETRANS_TIMER).
const OBJECTION: Duration = Duration::from_secs(1);

/// A shorter life than this is not believed of an address that we have (RFC 4862 §5.5.3 e).
const TWO_HOURS: Duration = Duration::from_secs(2 * 3600);

/// `ff02::2`: all routers of the link.
const ALL_ROUTERS: Ipv6Address = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// No link has less (RFC 8200 §5).
const MIN_MTU_BYTES: u32 = 1280;

/// A lifetime that never ends.
const INFINITE_S: u64 = u32::MAX as u64;

/// How far an address has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be asked about.
    New,
    /// Asked about; ours if nobody objects until then.
    Tentative {
        until: Instant,
    },
    Ours,
    /// Another host has it.
    Taken,
}

/// An announced prefix with our address in it.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    address: Ipv6Cidr,
    /// `None`: for ever.
    valid_until: Option<Instant>,
    state: State,
}

/// A router that wants to be used.
#[derive(Clone, Copy, Debug)]
struct Router {
    address: Ipv6Address,
    valid_until: Instant,
}

/// What the routers of the link have announced.
#[derive(Debug)]
pub(super) struct Slaac {
    hardware_address: EthernetAddress,
    prefixes: ArrayVec<Prefix, MAX_PREFIXES>,
    routers: ArrayVec<Router, MAX_ROUTERS>,
    mtu_bytes: Option<u16>,
    /// When to ask for routers; `None` when one has answered.
    solicit_at: Option<Instant>,
    interval: Duration,
    changed: bool,
}

impl Slaac {
    /// A host that knows nothing yet.
    pub fn new(hardware_address: [u8; 6]) -> Self {
        Self {
            hardware_address: EthernetAddress(hardware_address),
            prefixes: ArrayVec::new(),
            routers: ArrayVec::new(),
            mtu_bytes: None,
            solicit_at: Some(Instant::ZERO),
            interval: FIRST_SOLICITATION,
            changed: false,
        }
    }

    /// The device is back, perhaps with another MAC address: the link may be another, so its routers are asked. What they said
    /// before holds until they say otherwise, unless our addresses were made from the old MAC address.
    pub fn device_up(&mut self, hardware_address: [u8; 6]) {
        if self.hardware_address != EthernetAddress(hardware_address) {
            *self = Self::new(hardware_address);
        }
        self.solicit_at = Some(Instant::ZERO);
        self.interval = FIRST_SOLICITATION;
    }

    /// Our addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv6Cidr> + '_ {
        self.prefixes.iter().filter(|prefix| prefix.state == State::Ours).map(|prefix| prefix.address)
    }

    /// Addresses that would be ours, if another host did not have them.
    pub fn taken(&self) -> impl Iterator<Item = Ipv6Cidr> + '_ {
        self.prefixes.iter().filter(|prefix| prefix.state == State::Taken).map(|prefix| prefix.address)
    }

    /// The router to use: the one that has been there longest.
    pub fn router(&self) -> Option<Ipv6Address> {
        self.routers.first().map(|router| router.address)
    }

    /// The link's MTU in bytes, where a router has announced one.
    pub fn mtu_bytes(&self) -> Option<u16> {
        self.mtu_bytes
    }

    /// True if addresses, router or MTU have changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// Takes in a message. What is not for us is ignored.
    pub fn receive(&mut self, received: &Received<'_>, now: Instant) {
        if received.packet.msg_type() == Icmpv6Message::RouterAdvert {
            if received.source.is_unicast_link_local() {
                self.advertised(received, now);
            }
            return;
        }
        let claimed = match received.message() {
            Some(NdiscRepr::NeighborAdvert { target_addr, .. }) => target_addr,
            // Another host that is just trying it out.
            Some(NdiscRepr::NeighborSolicit { target_addr, .. }) if received.source.is_unspecified() => target_addr,
            _ => return,
        };
        // A switch that sends our own frames back to us is no other host.
        if received.source_hardware_address == self.hardware_address {
            return;
        }
        for prefix in &mut self.prefixes {
            if prefix.address.address() == claimed && matches!(prefix.state, State::New | State::Tentative { .. }) {
                prefix.state = State::Taken;
            }
        }
    }

    /// A router advertisement (RFC 4861 §6.3.4). One with an option of length 0 or beyond its end is invalid as a whole
    /// (§6.1.2).
    fn advertised(&mut self, received: &Received<'_>, now: Instant) {
        let options = received.packet.payload();
        if each_option(options, |_| ()).is_none() {
            return;
        }
        let lifetime = received.packet.router_lifetime();
        self.update_router(received.source, lifetime, now);
        if lifetime > Duration::ZERO {
            self.solicit_at = None;
        }
        let checked = each_option(options, |option| match option.option_type() {
            NdiscOptionType::Mtu => self.update_mtu(option.mtu()),
            NdiscOptionType::PrefixInformation => self.update_prefix(option, now),
            _ => {}
        });
        debug_assert!(checked.is_some(), "they have been walked before");
    }

    fn update_router(&mut self, address: Ipv6Address, lifetime: Duration, now: Instant) {
        let before = self.router();
        let valid_until = now + lifetime;
        match self.routers.iter().position(|router| router.address == address) {
            Some(known) if lifetime == Duration::ZERO => {
                self.routers.remove(known);
            }
            Some(known) => self.routers[known].valid_until = valid_until,
            None if lifetime > Duration::ZERO => {
                // Without room the link has routers enough.
                let _ = self.routers.try_push(Router { address, valid_until });
            }
            None => {}
        }
        self.changed |= before != self.router();
    }

    fn update_mtu(&mut self, mtu_bytes: u32) {
        // What the device can't do is left out where the limit is used.
        if mtu_bytes < MIN_MTU_BYTES {
            return;
        }
        let mtu_bytes = Some(u16::try_from(mtu_bytes).unwrap_or(u16::MAX));
        self.changed |= self.mtu_bytes != mtu_bytes;
        self.mtu_bytes = mtu_bytes;
    }

    /// RFC 4862 §5.5.3.
    fn update_prefix(&mut self, option: &NdiscOption<&[u8]>, now: Instant) {
        let (valid, preferred) = (option.valid_lifetime(), option.preferred_lifetime());
        let announced = Ipv6Cidr::new(option.prefix(), 64);
        let usable = option.prefix_flags().contains(NdiscPrefixInfoFlags::ADDRCONF)
            && option.prefix_len() == 64
            && !announced.address().is_unicast_link_local()
            && preferred <= valid;
        let identifier = HardwareAddress::Ethernet(self.hardware_address);
        let Some(address) = Ipv6Cidr::from_link_prefix(&announced, identifier).filter(|_| usable) else { return };
        // What is not said to be on the link is behind the router (RFC 5942 §4).
        let on_link = option.prefix_flags().contains(NdiscPrefixInfoFlags::ON_LINK);
        let address = if on_link { address } else { Ipv6Cidr::new(address.address(), 128) };
        // Multicast, loopback and unspecified "prefixes" too make no address.
        if !IpAddress::Ipv6(address.address()).is_unicast() || announced.address().octets()[..8] == [0; 8] {
            return;
        }
        let valid_until = (valid.secs() < INFINITE_S).then(|| now + valid);
        match self.prefixes.iter_mut().find(|prefix| prefix.address.address() == address.address()) {
            None if valid > Duration::ZERO => {
                // Without room there are addresses enough.
                let _ = self.prefixes.try_push(Prefix { address, valid_until, state: State::New });
            }
            None => {}
            Some(prefix) => {
                // A flag that is 0 says nothing (RFC 4861 §4.6.2).
                if on_link && prefix.address != address {
                    prefix.address = address;
                    self.changed |= prefix.state == State::Ours;
                }
                let left = prefix.valid_until.map(|until| until.max(now) - now);
                let longer = valid_until.is_none() || left.is_some_and(|left| valid > left);
                if valid > TWO_HOURS || longer {
                    prefix.valid_until = valid_until;
                } else if left.is_none_or(|left| left > TWO_HOURS) {
                    prefix.valid_until = Some(now + TWO_HOURS);
                }
            }
        }
    }

    /// Does what is due. Routers are asked from `link_local`, an address of ours, since they may answer it alone.
    pub fn poll(&mut self, now: Instant, link_local: Ipv6Address, send: &mut impl FnMut(&Message)) {
        let from = self.hardware_address;
        if self.solicit_at.is_some_and(|at| at <= now) {
            let content = NdiscRepr::RouterSolicit { lladdr: Some(from.into()) };
            send(&Message::to_group(from, link_local, ALL_ROUTERS, content));
            self.solicit_at = Some(now + self.interval);
            self.interval = (self.interval * 2).min(MAX_SOLICITATION);
        }
        let router = self.router();
        self.routers.retain(|router| router.valid_until > now);
        self.changed |= self.router() != router;
        if router.is_some() && self.routers.is_empty() && self.solicit_at.is_none() {
            self.solicit_at = Some(now);
            self.interval = FIRST_SOLICITATION;
        }
        let mut changed = false;
        self.prefixes.retain(|prefix| {
            let valid = prefix.valid_until.is_none_or(|until| until > now);
            changed |= !valid && prefix.state == State::Ours;
            valid
        });
        for prefix in &mut self.prefixes {
            match prefix.state {
                State::New => {
                    let target_addr = prefix.address.address();
                    // From nowhere: the address is not ours yet (RFC 4862 §5.4.2).
                    let content = NdiscRepr::NeighborSolicit { target_addr, lladdr: None };
                    send(&Message::to_group(from, Ipv6Address::UNSPECIFIED, solicited_node(target_addr), content));
                    prefix.state = State::Tentative { until: now + OBJECTION };
                }
                State::Tentative { until } if until <= now => {
                    prefix.state = State::Ours;
                    changed = true;
                }
                _ => {}
            }
        }
        self.changed |= changed;
    }

    /// When [`Slaac::poll`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let prefixes = self.prefixes.iter().flat_map(|prefix| {
            let next = match prefix.state {
                State::New => Some(Instant::ZERO),
                State::Tentative { until } => Some(until),
                State::Ours | State::Taken => None,
            };
            [next, prefix.valid_until].into_iter().flatten()
        });
        prefixes.chain(self.routers.iter().map(|router| router.valid_until)).chain(self.solicit_at).min()
    }
}

/// Shows each option to `visit`; `None` if they are not what they should be.
fn each_option<'a>(mut bytes: &'a [u8], mut visit: impl FnMut(&NdiscOption<&'a [u8]>)) -> Option<()> {
    while !bytes.is_empty() {
        let option = NdiscOption::new_checked(bytes).ok()?;
        visit(&option);
        bytes = bytes.get(usize::from(option.data_len()) * 8..)?;
    }
    Some(())
}
