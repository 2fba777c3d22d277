//! The machine that a guest runs on: the calls that it makes, its store, and the handle on both.

use alloc::rc::Rc;
use alloc::string::String;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::ptr::NonNull;

use super::super::Xen;
use super::super::hypervisor::{DomainId, EventPort, HypercallError, Hypervisor};
use super::events::{Events, STORE_PORT};
use super::grants::Grants;
use super::guest::GuestPage;
use super::store::Store;
use crate::stats::Stats;

/// What the handles share.
pub(super) struct Machine {
    pub domain: DomainId,
    pub events: RefCell<Events>,
    pub grants: RefCell<Grants>,
    pub store: RefCell<Store>,
    /// The guest's front ends have been connected.
    connected: Cell<bool>,
}

/// Xen with one guest and its xenstored. Any number of handles may exist.
///
/// xenstored does nothing until [`MemoryXen::step`] lets it.
#[derive(Clone)]
pub struct MemoryXen(pub(super) Rc<Machine>);

impl MemoryXen {
    /// A machine whose guest is `domain` (not 0), without devices.
    pub fn new(domain: DomainId) -> Self {
        assert!(domain != 0, "domain 0 is no guest");
        let mut events = Events::new();
        let store = Store::new(domain, &mut events);
        let grants = Grants::new(store.address());
        let (events, grants, store) = (RefCell::new(events), RefCell::new(grants), RefCell::new(store));
        Self(Rc::new(Machine { domain, events, grants, store, connected: Cell::new(false) }))
    }

    /// What the guest's front ends stand on.
    ///
    /// # Panics
    /// The second time: there is one guest.
    pub fn connect(&self, stats: Rc<Stats>) -> Xen {
        assert!(!self.0.connected.replace(true), "one guest is connected already");
        // SAFETY: front ends keep what is asked of them here.
        let hypervisor = unsafe { self.hypervisor() };
        // SAFETY: the page is the store's, and lasts as long as the machine, which the calls hold. Addresses are the process's.
        unsafe { Xen::new(hypervisor, self.store_page(), self.store_port(), stats) }
    }

    /// What the guest asks of Xen.
    ///
    /// # Safety
    /// Whoever makes the calls owns the pages that it names in them, and what it grants are pages that stay in place until the grant
    /// has been ended and nobody uses it. Until then it holds no reference to the bytes of pages that are granted to be written, and
    /// none to write those of the others.
    pub unsafe fn hypervisor(&self) -> Rc<dyn Hypervisor> {
        Rc::new(Calls(self.0.clone()))
    }

    /// The page that the guest shares with the store. It lasts as long as the handles.
    pub fn store_page(&self) -> NonNull<u8> {
        let place = core::ptr::with_exposed_provenance_mut(self.0.store.borrow().address());
        NonNull::new(place).expect("an allocation")
    }

    /// The store's event channel.
    pub fn store_port(&self) -> EventPort {
        STORE_PORT
    }

    /// Whether an event woke the guest since the last call: its interrupt.
    pub fn woken(&self) -> bool {
        self.0.events.borrow_mut().take_woken()
    }

    /// Lets xenstored read, answer and tell of changes: everything it can, or as much as its pace is. It only looks for what it was
    /// notified of. True if it did anything.
    pub fn step(&self) -> bool {
        self.0.store.borrow_mut().step(&mut self.0.events.borrow_mut())
    }

    /// Whether [`MemoryXen::step`] has something to do.
    pub fn is_due(&self) -> bool {
        self.0.store.borrow().is_due(&self.0.events.borrow())
    }

    /// The guest's directory in the store.
    pub fn home(&self) -> String {
        self.0.store.borrow().home().into()
    }

    /// A value in the store, by its absolute path; `None` too if it is no text.
    pub fn read(&self, path: &str) -> Option<String> {
        let store = self.0.store.borrow();
        store.tree.read(path).and_then(|value| core::str::from_utf8(value).ok()).map(String::from)
    }

    /// Sets a value in the store, as somebody else than the guest: what watches it fires.
    pub fn write(&self, path: &str, value: impl AsRef<[u8]>) {
        self.0.store.borrow_mut().write(path, value.as_ref());
    }

    /// Removes a node of the store with all below it; what watches them fires.
    pub fn remove(&self, path: &str) {
        self.0.store.borrow_mut().remove(path);
    }

    /// From now on at most `bytes` of each direction move with a step of the store's; `usize::MAX` for all.
    pub fn set_store_pace(&self, bytes: usize) {
        self.0.store.borrow_mut().set_pace(bytes);
    }

    /// The next `transactions` that the guest wants to commit fail with `EAGAIN`.
    pub fn conflict_next(&self, transactions: u32) {
        self.0.store.borrow_mut().conflict_next(transactions);
    }

    /// The next `requests` to the store are carried out but never answered.
    pub fn ignore_next(&self, requests: u32) {
        self.0.store.borrow_mut().ignore_next(requests);
    }

    /// The store sends these bytes, behind the messages that it has begun: whatever they say.
    pub fn inject_store(&self, bytes: &[u8]) {
        self.0.store.borrow_mut().inject(bytes);
    }

    /// The store's index of answers moves on by `bytes`, with nothing written.
    pub fn jump_store(&self, bytes: u32) {
        self.0.store.borrow_mut().jump(bytes, &mut self.0.events.borrow_mut());
    }

    /// How many event channels the guest may have, the store's and the console's included.
    pub fn limit_events(&self, channels: usize) {
        self.0.events.borrow_mut().set_limit(channels);
    }

    /// How many frames the guest's grant table may have.
    pub fn limit_grant_frames(&self, frames: usize) {
        self.0.grants.borrow_mut().set_limit(frames);
    }

    /// Grants that the guest has not ended.
    pub fn grants(&self) -> usize {
        self.0.grants.borrow().granted()
    }

    /// Grants that somebody has mapped.
    pub fn mapped_grants(&self) -> usize {
        self.0.grants.borrow().mapped()
    }

    /// Event channels that the guest has allocated and not closed.
    pub fn event_channels(&self) -> usize {
        self.0.events.borrow().allocated()
    }
}

impl fmt::Debug for MemoryXen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (grants, mapped) = (self.grants(), self.mapped_grants());
        write!(f, "MemoryXen(domain {}, {grants} grants, {mapped} of them mapped)", self.0.domain)
    }
}

/// What a guest's calls reach.
struct Calls(Rc<Machine>);

impl Hypervisor for Calls {
    fn alloc_unbound(&self, remote: DomainId) -> Result<EventPort, HypercallError> {
        self.0.events.borrow_mut().alloc_unbound(remote)
    }

    fn close(&self, port: EventPort) {
        self.0.events.borrow_mut().close(port);
    }

    fn notify(&self, port: EventPort) {
        self.0.events.borrow_mut().notify(port);
    }

    fn acknowledge(&self, port: EventPort) {
        self.0.events.borrow_mut().acknowledge(port);
    }

    fn map_grant_frame(&self, index: u32, address: usize) -> Result<(), HypercallError> {
        // SAFETY: the guest gives this page up for good (`MemoryXen::hypervisor`).
        let page = unsafe { GuestPage::new(address) };
        self.0.grants.borrow_mut().map_frame(index, page)
    }
}
