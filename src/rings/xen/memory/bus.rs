//! A device's two directories in the store, and the states in which both sides stand (`io/xenbus.h`).

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use core::fmt::Display;
use core::str::FromStr;

use super::super::hypervisor::{DomainId, EventPort};
use super::events::Bound;
use super::machine::Machine;

/// In which state a side of a device is (`enum xenbus_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BusState {
    /// There is no such node, or nonsense in it.
    Unknown = 0,
    /// It has just been made.
    Initialising = 1,
    /// The back end says what it offers and waits.
    InitWait = 2,
    /// The front end says where its rings are.
    Initialised = 3,
    /// It works.
    Connected = 4,
    /// It is about to stop.
    Closing = 5,
    /// It has stopped.
    Closed = 6,
}

impl BusState {
    fn of(value: u32) -> Self {
        use BusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown};
        let all = [Unknown, Initialising, InitWait, Initialised, Connected, Closing, Closed];
        all.get(value as usize).copied().unwrap_or(Unknown)
    }
}

/// What a back end does wrong on its way to work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manners {
    /// It never leaves this state.
    pub stays_in: Option<BusState>,
    /// It closes instead of going to this state.
    pub closes_before: Option<BusState>,
}

/// A device as its back end sees it.
pub(super) struct Bus {
    pub machine: Rc<Machine>,
    pub back_domain: DomainId,
    pub manners: Manners,
    front: String,
    back: String,
    state: BusState,
    /// The front's state as of this change of its node has been dealt with.
    seen: u64,
    /// The toolstack waits for both sides to close, and removes the device then.
    leaving: bool,
    removed: bool,
    /// The back end does not run.
    stopped: bool,
    /// There has been work in the rings that the front names.
    used: bool,
}

impl Bus {
    /// The toolstack makes device `number` of this kind. Its back end has not started.
    pub fn new(machine: Rc<Machine>, back_domain: DomainId, kind: &str, number: u32) -> Self {
        let domain = machine.domain;
        let front = format!("{}/device/{kind}/{number}", machine.store.borrow().home());
        let back = format!("/local/domain/{back_domain}/backend/{kind}/{domain}/{number}");
        let state = BusState::Initialising;
        let manners = Manners::default();
        let bus = Self {
            machine,
            back_domain,
            manners,
            front,
            back,
            state,
            seen: 0,
            leaving: false,
            removed: false,
            stopped: true,
            used: false,
        };
        bus.write_back("frontend", &bus.front);
        bus.write_back("frontend-id", domain);
        bus.write_back("online", 1);
        bus.write_back("state", state as u32);
        bus.write_front("backend", &bus.back);
        bus.write_front("backend-id", back_domain);
        bus.write_front("state", state as u32);
        bus
    }

    pub fn front(&self) -> &str {
        &self.front
    }

    pub fn back(&self) -> &str {
        &self.back
    }

    pub fn state(&self) -> BusState {
        self.state
    }

    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// Whether the back end runs, and so follows its front.
    pub fn is_running(&self) -> bool {
        !self.removed && !self.stopped
    }

    /// The back end starts. It follows what the front says already, but for rings in which another one has worked.
    pub fn start(&mut self) {
        self.stopped = false;
        let names_rings = matches!(self.front_state(), BusState::Initialised | BusState::Connected);
        self.seen = if self.used && names_rings { self.front_generation() } else { 0 };
        self.switch(BusState::InitWait);
    }

    /// Whether there has been work in the rings that are given up.
    pub fn set_used(&mut self, used: bool) {
        self.used = used;
    }

    /// The back end stops, and says so.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.switch(BusState::Closing);
        self.switch(BusState::Closed);
    }

    pub fn write_back(&self, key: &str, value: impl Display) {
        self.write(&self.back, key, value);
    }

    pub fn write_front(&self, key: &str, value: impl Display) {
        self.write(&self.front, key, value);
    }

    fn write(&self, directory: &str, key: &str, value: impl Display) {
        self.machine.store.borrow_mut().write(&format!("{directory}/{key}"), value.to_string().as_bytes());
    }

    pub fn remove_back(&self, key: &str) {
        self.machine.store.borrow_mut().remove(&format!("{}/{key}", self.back));
    }

    /// What the front has written; `None` if it has not, or nonsense.
    pub fn read_front<T: FromStr>(&self, key: &str) -> Option<T> {
        let store = self.machine.store.borrow();
        let value = store.tree.read(&format!("{}/{key}", self.front))?;
        core::str::from_utf8(value).ok()?.parse().ok()
    }

    /// Whether the front has set a feature.
    pub fn front_has(&self, feature: &str) -> bool {
        self.read_front::<u32>(feature).is_some_and(|value| value != 0)
    }

    /// What the front must have written.
    pub fn demand<T: FromStr>(&self, key: &str) -> T {
        self.read_front(key).unwrap_or_else(|| panic!("{}/{key}: nothing, or no number", self.front))
    }

    /// The front's state, whether it has been dealt with or not.
    pub fn front_state(&self) -> BusState {
        self.read_front("state").map_or(BusState::Unknown, BusState::of)
    }

    fn front_generation(&self) -> u64 {
        self.machine.store.borrow().tree.generation(&format!("{}/state", self.front))
    }

    /// Whether the back end, on its way to `goal`, has something to do.
    pub fn is_due(&self, goal: Option<BusState>) -> bool {
        let moves = goal.is_some_and(|goal| goal != self.state) && !self.is_stuck();
        let follows = self.is_running() && (moves || self.front_generation() != self.seen);
        follows || (self.leaving && self.state == BusState::Closed)
    }

    /// The front's state if it has been written since the last call.
    pub fn front_change(&mut self) -> Option<BusState> {
        let generation = self.front_generation();
        let changed = core::mem::replace(&mut self.seen, generation) != generation;
        self.used &= !changed;
        changed.then(|| self.front_state())
    }

    /// Whether it closes instead of going to `state`.
    pub fn closes_before(&self, state: BusState) -> bool {
        self.manners.closes_before == Some(state)
    }

    /// Goes to `state`, as far as its manners let it.
    pub fn switch(&mut self, state: BusState) {
        self.state = if self.closes_before(state) { BusState::Closed } else { state };
        self.write_back("state", self.state as u32);
    }

    /// Whether it stays where it is.
    pub fn is_stuck(&self) -> bool {
        self.manners.stays_in == Some(self.state)
    }

    /// The toolstack wants the device gone, and says so to both sides.
    pub fn leave(&mut self) {
        if !self.removed {
            self.leaving = true;
            self.write_back("online", 0);
            // The back end itself hears of it from the front.
            self.write_back("state", BusState::Closing as u32);
        }
    }

    /// The toolstack has waited for it: both sides are closed.
    pub fn remove_if_left(&mut self) -> bool {
        let over = self.leaving && self.state == BusState::Closed;
        if over {
            self.remove();
        }
        over
    }

    /// The toolstack removes the device, whatever its state.
    pub fn remove(&mut self) {
        self.leaving = false;
        self.removed = true;
        let mut store = self.machine.store.borrow_mut();
        store.remove(&self.front);
        store.remove(&self.back);
    }

    /// Takes the other end of an event channel that the front has allocated.
    pub fn bind(&self, key: &str) -> Bound {
        let port = EventPort(self.demand(key));
        let bound = self.machine.events.borrow_mut().bind(port, self.back_domain);
        bound.unwrap_or_else(|error| panic!("{}/{key}: port {port}: {error}", self.front))
    }
}
