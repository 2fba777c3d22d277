//! netback: the other side of a network interface.
//!
//! | file | duty |
//! |---|---|
//! | `mod` | the handle, and how both sides come together |
//! | `transmit` | frames from the guest |
//! | `receive` | frames to the guest |

mod receive;
mod transmit;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::abi::net::{RxRequest, RxResponse, TxRequest, TxResponse};
use super::super::hypervisor::DomainId;
use super::back_ring::BackRing;
use super::bus::{Bus, BusState, Manners};
use super::events::Bound;
use super::grants::Mapping;
use super::machine::MemoryXen;
use crate::rings::{Capabilities, PAGE_BYTES};

pub use transmit::GrantedFrame;

/// What a back end offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetOffers {
    /// Frames of several slots (`feature-sg`).
    pub scatter_gather: bool,
    /// Segmentation over IPv4 (`feature-gso-tcpv4`).
    pub gso4: bool,
    /// Segmentation over IPv6 (`feature-gso-tcpv6`).
    pub gso6: bool,
    /// Checksums over IPv4 (otherwise `feature-no-csum-offload`).
    pub checksum4: bool,
    /// Checksums over IPv6 (`feature-ipv6-csum-offload`).
    pub checksum6: bool,
    /// Event channels of their own for both rings (`feature-split-event-channels`).
    pub split_event_channels: bool,
    /// Packets are copied into the guest's pages (`feature-rx-copy`). Nobody works without it.
    pub rx_copy: bool,
}

impl NetOffers {
    /// What Linux offers.
    pub const ALL: Self = Self {
        scatter_gather: true,
        gso4: true,
        gso6: true,
        checksum4: true,
        checksum6: true,
        split_event_channels: true,
        rx_copy: true,
    };
}

/// What stands for these capabilities on Xen.
impl From<Capabilities> for NetOffers {
    fn from(capabilities: Capabilities) -> Self {
        Self {
            scatter_gather: capabilities.max_slots > 1,
            gso4: capabilities.tso4,
            gso6: capabilities.tso6,
            checksum4: capabilities.checksum,
            checksum6: capabilities.checksum,
            ..Self::ALL
        }
    }
}

/// A network interface as the toolstack makes it.
#[derive(Clone, Copy, Debug)]
pub struct NetbackConfig {
    /// The interface's number.
    pub number: u32,
    /// The domain of the back end.
    pub domain: DomainId,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// What the back end offers until [`MemoryNetback::up`] says otherwise.
    pub offers: NetOffers,
    /// Where in a page that the guest has posted a frame's bytes begin.
    pub rx_offset: usize,
    /// Bytes that are put into such a page before the next is taken.
    pub rx_bytes: usize,
}

impl Default for NetbackConfig {
    fn default() -> Self {
        Self {
            number: 0,
            domain: 0,
            mac: [0x02, 0, 0, 0, 0, 0x01],
            offers: NetOffers::ALL,
            rx_offset: 0,
            rx_bytes: PAGE_BYTES,
        }
    }
}

/// What the front has told of itself.
#[derive(Clone, Copy, Debug)]
struct Wishes {
    scatter_gather: bool,
    gso4: bool,
    gso6: bool,
    checksum4: bool,
    checksum6: bool,
}

/// The rings, while both sides are connected.
struct Life {
    tx: BackRing<TxRequest>,
    rx: BackRing<RxRequest>,
    tx_events: Bound,
    /// The same unless they are split.
    rx_events: Bound,
    wishes: Wishes,
    /// Slots that the last frame lacked which did not fit; 0 if none is waited for.
    rx_wanted: u32,
}

/// The other side of a network interface, as Linux's netback behaves. It takes frames, completes them late and in any order,
/// delivers frames, goes down and comes back.
///
/// It only works in [`MemoryNetback::step`] and the calls that say so, and unlike netback it does not put up with any mistake of the
/// front's: those are panics.
pub struct MemoryNetback {
    config: NetbackConfig,
    bus: Bus,
    offers: NetOffers,
    /// Where the front's last word leads to.
    goal: Option<BusState>,
    life: Option<Life>,
    /// What is mapped of frames that were taken and not completed, by their numbers.
    taken: BTreeMap<u64, Vec<Mapping>>,
    /// Number of the next frame.
    next: u64,
    /// Mappings that it should have ended.
    kept: Vec<Mapping>,
    keeps: bool,
    violations: u64,
}

impl MemoryNetback {
    /// Has the toolstack make an interface. Its back end waits for the front at once.
    pub fn new(xen: &MemoryXen, config: NetbackConfig) -> Self {
        assert!(config.rx_bytes > 0 && config.rx_offset + config.rx_bytes <= PAGE_BYTES, "more than a page");
        let bus = Bus::new(xen.0.clone(), config.domain, "vif", config.number);
        let [a, b, c, d, e, f] = config.mac;
        let mac = alloc::format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        bus.write_front("mac", &mac);
        bus.write_front("handle", config.number);
        bus.write_back("mac", &mac);
        bus.write_back("handle", config.number);
        let mut netback = Self {
            config,
            bus,
            offers: config.offers,
            goal: None,
            life: None,
            taken: BTreeMap::new(),
            next: 0,
            kept: Vec::new(),
            keeps: false,
            violations: 0,
        };
        netback.probe();
        netback
    }

    /// The front's directory in the store.
    pub fn front(&self) -> String {
        self.bus.front().into()
    }

    /// Its own directory in the store.
    pub fn back(&self) -> String {
        self.bus.back().into()
    }

    /// In which state it is.
    pub fn state(&self) -> BusState {
        self.bus.state()
    }

    /// Whether frames can pass.
    pub fn is_connected(&self) -> bool {
        self.life.is_some()
    }

    /// What it does wrong from now on.
    pub fn set_manners(&mut self, manners: Manners) {
        self.bus.manners = manners;
    }

    /// Starts: says what it offers and waits for the front.
    fn probe(&mut self) {
        let offers = self.offers;
        let bus = &mut self.bus;
        let always =
            [("feature-rx-copy", offers.rx_copy), ("feature-split-event-channels", offers.split_event_channels)];
        for (feature, offered) in always {
            bus.write_back(feature, u32::from(offered));
        }
        // As with Linux, some say no, and some are only there to say yes.
        let present = [
            ("feature-sg", offers.scatter_gather),
            ("feature-gso-tcpv4", offers.gso4),
            ("feature-gso-tcpv6", offers.gso6),
            ("feature-ipv6-csum-offload", offers.checksum6),
            ("feature-no-csum-offload", !offers.checksum4),
        ];
        for (feature, offered) in present {
            match offered {
                true => bus.write_back(feature, 1),
                false => bus.remove_back(feature),
            }
        }
        bus.write_back("multi-queue-max-queues", 2);
        bus.start();
        self.goal = None;
    }

    /// Whether [`MemoryNetback::step`] has something to do.
    pub fn is_due(&self) -> bool {
        self.bus.is_due(self.goal)
    }

    /// Goes on with what the store says of the front, one state at a time. True if there was anything.
    pub fn step(&mut self) -> bool {
        if !self.bus.is_running() {
            return self.bus.remove_if_left();
        }
        if let Some(front) = self.bus.front_change() {
            self.goal = match front {
                BusState::Initialising => Some(BusState::InitWait),
                BusState::InitWait | BusState::Initialised => self.goal,
                BusState::Connected => Some(BusState::Connected),
                BusState::Closing => Some(BusState::Closing),
                BusState::Closed | BusState::Unknown => Some(BusState::Closed),
            };
        }
        let Some(goal) = self.goal else { return self.bus.remove_if_left() };
        if self.bus.state() == goal {
            self.goal = None;
            return self.bus.remove_if_left();
        }
        if self.bus.is_stuck() {
            return false;
        }
        let next = match (self.bus.state(), goal) {
            (BusState::Closed, BusState::Closing) => BusState::Closing,
            (BusState::Initialising | BusState::Closed, _) => BusState::InitWait,
            (BusState::InitWait, BusState::Connected) => BusState::Connected,
            (BusState::Closing, _) => BusState::Closed,
            _ => BusState::Closing,
        };
        match next {
            _ if self.bus.closes_before(next) => {
                self.disconnect();
                self.goal = None;
            }
            BusState::Connected => self.connect(),
            BusState::Closing => self.disconnect(),
            _ => {}
        }
        self.bus.switch(next);
        true
    }

    /// Takes the front's rings.
    fn connect(&mut self) {
        let bus = &self.bus;
        assert!(bus.front_has("request-rx-copy"), "the front wants packets to be flipped");
        assert!(bus.front_has("feature-rx-notify"), "the front does not tell of pages that it posts");
        let queues: Option<u32> = bus.read_front("multi-queue-num-queues");
        assert!(queues.is_none_or(|queues| queues == 1), "one queue was enough");
        let wishes = Wishes {
            scatter_gather: bus.front_has("feature-sg"),
            gso4: bus.front_has("feature-gso-tcpv4"),
            gso6: bus.front_has("feature-gso-tcpv6"),
            checksum4: !bus.front_has("feature-no-csum-offload"),
            checksum6: bus.front_has("feature-ipv6-csum-offload"),
        };
        assert!(wishes.scatter_gather || !wishes.gso4 && !wishes.gso6, "segments of one slot");
        let (tx_events, rx_events) = match bus.read_front::<u32>("event-channel") {
            Some(_) => {
                let bound = bus.bind("event-channel");
                (bound, bound)
            }
            None => {
                assert!(self.offers.split_event_channels, "split event channels were not offered");
                (bus.bind("event-channel-tx"), bus.bind("event-channel-rx"))
            }
        };
        let mut grants = bus.machine.grants.borrow_mut();
        let tx = BackRing::map(&mut grants, bus.back_domain, &[bus.demand("tx-ring-ref")]);
        let rx = BackRing::map(&mut grants, bus.back_domain, &[bus.demand("rx-ring-ref")]);
        drop(grants);
        self.life = Some(Life { tx, rx, tx_events, rx_events, wishes, rx_wanted: 0 });
    }

    /// Gives everything of the front's back.
    fn disconnect(&mut self) {
        let Some(life) = self.life.take() else { return };
        self.bus.set_used(life.tx.is_used() || life.rx.is_used());
        let mut events = self.bus.machine.events.borrow_mut();
        events.unbind(life.tx_events);
        events.unbind(life.rx_events);
        let mut grants = self.bus.machine.grants.borrow_mut();
        let taken = core::mem::take(&mut self.taken).into_values().flatten();
        if self.keeps {
            self.kept.extend(taken);
        } else {
            taken.for_each(|mapping| grants.unmap(mapping));
        }
        life.tx.unmap(&mut grants);
        life.rx.unmap(&mut grants);
    }

    /// Wakes the front for what was completed and delivered, if it has armed. True if it was to be woken.
    pub fn notify(&mut self) -> bool {
        let Some(life) = &mut self.life else { return false };
        let (tx, rx) = (life.tx.publish(), life.rx.publish());
        let mut events = self.bus.machine.events.borrow_mut();
        if tx {
            events.raise(life.tx_events);
        }
        if rx {
            events.raise(life.rx_events);
        }
        tx || rx
    }

    /// Wakes the front for nothing.
    pub fn notify_anyway(&mut self) {
        if let Some(life) = &self.life {
            let mut events = self.bus.machine.events.borrow_mut();
            events.raise(life.tx_events);
            events.raise(life.rx_events);
        }
    }

    /// Whether the front has notified this side since the last call.
    pub fn notified(&mut self) -> bool {
        let Some(life) = &self.life else { return false };
        let mut events = self.bus.machine.events.borrow_mut();
        let (tx, rx) = (events.take_notified(life.tx_events), events.take_notified(life.rx_events));
        tx || rx
    }

    /// Asks to be notified of the next frame and, after a `Full` from [`MemoryNetback::deliver`], of enough pages for that frame.
    /// True if that is there already: then don't sleep.
    pub fn arm(&mut self) -> bool {
        let Some(life) = &mut self.life else { return false };
        let frames = life.tx.arm(1);
        let pages = life.rx_wanted > 0 && life.rx.arm(life.rx_wanted);
        if pages {
            // Said once: a back end that gives the frame up is not kept awake by it.
            life.rx_wanted = 0;
        }
        frames || pages
    }

    /// The back end is stopped: it lets go of everything of the front's at once and says so. Frames on the way are lost.
    pub fn down(&mut self) {
        if self.bus.is_running() {
            self.disconnect();
            self.bus.stop();
            self.goal = None;
        }
    }

    /// A back end is started, which offers this; one that was there is stopped first. A device that is gone stays gone.
    pub fn up(&mut self, offers: NetOffers) {
        self.down();
        if !self.bus.is_removed() {
            self.offers = offers;
            self.probe();
        }
    }

    /// The toolstack detaches the interface: both sides are to close, and then it is removed.
    pub fn gone(&mut self) {
        self.bus.leave();
    }

    /// The toolstack removes the interface without asking.
    pub fn vanish(&mut self) {
        self.disconnect();
        self.bus.remove();
    }

    /// Frames that were taken and not completed.
    pub fn in_flight(&self) -> usize {
        self.taken.len()
    }

    /// Slots of such frames.
    pub fn slots_in_flight(&self) -> usize {
        self.taken.values().map(Vec::len).sum()
    }

    /// Frames of which a page changed while the back end had them.
    pub fn violations(&self) -> u64 {
        self.violations
    }

    /// Pages that wait to be filled.
    pub fn rx_posted(&self) -> usize {
        self.life.as_ref().map_or(0, |life| life.rx.available() as usize)
    }

    /// Whether the front, asleep, has seen all frames for it and will be woken by the next. (When it takes back what it has sent is
    /// its own affair.)
    pub fn front_may_sleep(&self) -> bool {
        self.life.as_ref().is_none_or(|life| self.bus.front_state() != BusState::Connected || life.rx.may_sleep())
    }

    /// Whether mappings are ended when they should be. Those that were not are ended by [`MemoryNetback::let_go`].
    pub fn set_keeps_mappings(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Ends the mappings that were kept.
    pub fn let_go(&mut self) {
        let mut grants = self.bus.machine.grants.borrow_mut();
        self.kept.drain(..).for_each(|mapping| grants.unmap(mapping));
    }

    /// Puts a response into the TX ring, whatever it says. Frames that were not taken are never answered.
    pub fn lie_tx(&mut self, response: TxResponse) {
        if let Some(life) = &mut self.life {
            life.tx.pass_over().respond(response);
        }
    }

    /// Answers the next page that the front has posted with what `lie` makes of it, unless there is none.
    pub fn lie_rx(&mut self, lie: impl FnOnce(RxRequest) -> RxResponse) -> bool {
        let Some(life) = &mut self.life else { return false };
        let Some(request) = life.rx.take() else { return false };
        life.rx.lie().respond(lie(request));
        true
    }

    /// Moves the index behind the TX responses on, with nothing written. Frames that were not taken are never answered.
    pub fn jump_tx(&mut self, count: u32) {
        if let Some(life) = &mut self.life {
            life.tx.jump(count);
        }
    }

    /// Moves the index behind the RX responses on, with nothing written. Pages that are posted are never filled.
    pub fn jump_rx(&mut self, count: u32) {
        if let Some(life) = &mut self.life {
            life.rx.jump(count);
        }
    }
}
