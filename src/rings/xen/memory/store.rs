//! xenstored: serves the guest over a page with two rings of bytes, in its own time, and by the tests' wish dishonestly.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use super::super::abi::store::{
    Header, PAYLOAD_MAX, REQ, REQ_CONS, REQ_PROD, RING_BYTES, RSP, RSP_CONS, RSP_PROD, XS_ERROR, XS_WATCH_EVENT,
};
use super::super::hypervisor::DomainId;
use super::events::{Bound, Events, STORE_PORT};
use super::guest::GuestPage;
use super::tree::{Change, Transaction, Tree, Watch};
use crate::rings::shared_memory::SharedMemory;

/// The store.
pub(super) struct Store {
    pub tree: Tree,
    /// The guest's directory, which relative paths begin with.
    pub(super) home: String,
    pub(super) domain: DomainId,
    pub(super) watches: Vec<Watch>,
    /// One that has just been set.
    pub(super) fresh: Option<Watch>,
    pub(super) transactions: BTreeMap<u32, Transaction>,
    pub(super) last_transaction: u32,
    page: SharedMemory,
    bound: Bound,
    /// The guest has raised an event and not all has been seen since.
    awake: bool,
    /// Bytes of a request that is not whole yet.
    input: Vec<u8>,
    /// Bytes for which the ring had no room yet.
    output: VecDeque<u8>,
    /// Most bytes that move in either direction in a step.
    pace: usize,
    /// So many transactions to come fail.
    pub(super) conflicts: u32,
    /// So many requests to come get no answer.
    unanswered: u32,
    /// It has written what it should not have: what the guest makes of it is no breach.
    lied: bool,
}

impl Store {
    /// An empty store for a guest.
    pub fn new(domain: DomainId, events: &mut Events) -> Self {
        let home = format!("/local/domain/{domain}");
        let mut tree = Tree::default();
        tree.write(&home, b"");
        tree.write(&format!("{home}/domid"), domain.to_string().as_bytes());
        Self {
            tree,
            home,
            domain,
            watches: Vec::new(),
            fresh: None,
            transactions: BTreeMap::new(),
            last_transaction: 0,
            page: SharedMemory::new(crate::rings::PAGE_BYTES),
            bound: events.bind(STORE_PORT, 0).expect("the store's channel"),
            awake: false,
            input: Vec::new(),
            output: VecDeque::new(),
            pace: usize::MAX,
            conflicts: 0,
            unanswered: 0,
            lied: false,
        }
    }

    /// Where the page lies that the guest is given.
    pub fn address(&self) -> usize {
        self.page.address(0) as usize
    }

    pub fn home(&self) -> &str {
        &self.home
    }

    pub fn set_pace(&mut self, bytes: usize) {
        self.pace = bytes;
    }

    pub fn conflict_next(&mut self, transactions: u32) {
        self.conflicts = transactions;
    }

    pub fn ignore_next(&mut self, requests: u32) {
        self.unanswered = requests;
    }

    /// Sets a value, and tells those who watch it.
    pub fn write(&mut self, path: &str, value: &[u8]) {
        self.tree.write(path, value);
        self.fire(&Change::Written(path.to_string()));
    }

    /// Removes a node with all below it, and tells those who watch them.
    pub fn remove(&mut self, path: &str) {
        let removed = self.tree.remove(path);
        if !removed.is_empty() {
            self.fire(&Change::Removed(removed));
        }
    }

    /// Sends bytes that are no honest message.
    pub fn inject(&mut self, bytes: &[u8]) {
        self.lied = true;
        self.output.extend(bytes);
    }

    /// Moves the index behind the answers, with nothing written.
    pub fn jump(&mut self, bytes: u32, events: &mut Events) {
        self.lied = true;
        let page = self.ring();
        page.store32(RSP_PROD, page.load32(RSP_PROD).wrapping_add(bytes));
        events.raise(self.bound);
    }

    fn ring(&self) -> GuestPage {
        // SAFETY: the page is ours and lives as long as we do; nobody has a reference to its bytes.
        unsafe { GuestPage::new(self.address()) }
    }

    /// Whether there is something to do.
    pub fn is_due(&self, events: &Events) -> bool {
        let page = self.ring();
        let has_room = page.load32(RSP_PROD).wrapping_sub(page.load32(RSP_CONS)) < RING_BYTES;
        self.awake || events.is_notified(self.bound) || (has_room && !self.output.is_empty())
    }

    /// Does some of what there is to do: all of it unless it has a pace. True if there was anything.
    pub fn step(&mut self, events: &mut Events) -> bool {
        self.awake |= events.take_notified(self.bound);
        let mut any = false;
        loop {
            let moved = self.awake && self.receive();
            self.process();
            let moved = self.send() || moved;
            if moved {
                events.raise(self.bound);
            } else {
                self.awake = false;
            }
            any |= moved;
            if !moved || self.pace != usize::MAX {
                return any;
            }
        }
    }

    /// Takes bytes from the ring.
    fn receive(&mut self) -> bool {
        let page = self.ring();
        let (consumed, produced) = (page.load32(REQ_CONS), page.load32(REQ_PROD));
        let available = produced.wrapping_sub(consumed);
        assert!(available <= RING_BYTES || self.lied, "the guest's requests overrun the ring by {available} bytes");
        let count = available.min(RING_BYTES).min(self.pace.min(u32::MAX as usize) as u32);
        for index in 0..count {
            let offset = consumed.wrapping_add(index) % RING_BYTES;
            self.input.push(page.read(REQ + offset as usize));
        }
        page.store32(REQ_CONS, consumed.wrapping_add(count));
        count > 0
    }

    /// Puts bytes into the ring.
    fn send(&mut self) -> bool {
        let page = self.ring();
        let (consumed, produced) = (page.load32(RSP_CONS), page.load32(RSP_PROD));
        let waiting = produced.wrapping_sub(consumed);
        assert!(waiting <= RING_BYTES || self.lied, "the guest has read {} bytes too many", waiting.wrapping_neg());
        let room = RING_BYTES.saturating_sub(waiting) as usize;
        let count = self.output.len().min(room).min(self.pace);
        for (index, byte) in self.output.drain(..count).enumerate() {
            let offset = produced.wrapping_add(index as u32) % RING_BYTES;
            page.put(RSP + offset as usize, byte);
        }
        page.store32(RSP_PROD, produced.wrapping_add(count as u32));
        count > 0
    }

    /// Answers the requests that are whole.
    fn process(&mut self) {
        while let Ok((header, rest)) = Header::read_from_prefix(&self.input) {
            let length = header.len as usize;
            assert!(length <= PAYLOAD_MAX, "the guest's request is followed by {length} bytes");
            if rest.len() < length {
                return;
            }
            let payload = rest[..length].to_vec();
            self.input.drain(..size_of::<Header>() + length);
            let answer = self.execute(&header, &payload);
            if self.unanswered > 0 {
                self.unanswered -= 1;
                continue;
            }
            match answer {
                Ok(body) => self.post(header.kind, &header, &body),
                Err(name) => self.post(XS_ERROR, &header, &[name.as_bytes(), b"\0"].concat()),
            }
            // A watch fires once at its beginning.
            if let Some(watch) = self.fresh.take() {
                self.post_event(&watch.told(&watch.path), &watch.token);
            }
        }
    }

    fn post(&mut self, kind: u32, request: &Header, body: &[u8]) {
        let header = Header { kind, len: body.len() as u32, ..*request };
        self.output.extend(header.as_bytes());
        self.output.extend(body);
    }

    fn post_event(&mut self, path: &str, token: &[u8]) {
        let body = [path.as_bytes(), b"\0", token, b"\0"].concat();
        self.post(XS_WATCH_EVENT, &Header::default(), &body);
    }

    pub(super) fn fire(&mut self, change: &Change) {
        for watch in self.watches.clone() {
            for path in watch.events(change) {
                self.post_event(&path, &watch.token);
            }
        }
    }
}
