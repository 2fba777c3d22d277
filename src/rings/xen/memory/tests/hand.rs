//! A guest without drivers: writes its grant table, its rings and its messages by itself.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::Ordering::SeqCst;
use std::panic::{AssertUnwindSafe, catch_unwind};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::rings::PAGE_BYTES;
use crate::rings::shared_memory::SharedMemory;
use crate::rings::xen::abi::grant::{Entry, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING};
use crate::rings::xen::abi::ring::{ENTRIES, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD};
use crate::rings::xen::abi::store::{
    Header, REQ, REQ_CONS, REQ_PROD as STORE_REQ_PROD, RING_BYTES, RSP, RSP_CONS, RSP_PROD as STORE_RSP_PROD,
};
use crate::rings::xen::memory::MemoryXen;
use crate::rings::xen::{DomainId, EventPort, Hypervisor};

/// The guest.
pub const GUEST: DomainId = 7;

/// A message of the store's: kind, request, what follows.
pub type Message = (u32, u32, Vec<u8>);

pub struct Hand {
    pub xen: MemoryXen,
    pub calls: Rc<dyn Hypervisor>,
    table: SharedMemory,
    next: RefCell<u32>,
    received: RefCell<VecDeque<u8>>,
}

impl Hand {
    pub fn new() -> Self {
        let xen = MemoryXen::new(GUEST);
        // SAFETY: the tests keep what they grant until the grant is ended or the test is over.
        let calls = unsafe { xen.hypervisor() };
        let table = SharedMemory::new(PAGE_BYTES);
        calls.map_grant_frame(0, table.address(0) as usize).unwrap();
        Self { xen, calls, table, next: RefCell::new(8), received: RefCell::default() }
    }

    /// Grants a page to domain 0.
    pub fn grant(&self, page: &SharedMemory, read_only: bool) -> u32 {
        let gref = self.next.replace_with(|next| *next + 1);
        let flags = GTF_PERMIT_ACCESS | if read_only { GTF_READONLY } else { 0 };
        let frame = (page.address(0) >> 12) as u32;
        self.table.put(gref as usize * size_of::<Entry>(), Entry { flags, domid: 0, frame });
        gref
    }

    /// Ends a grant. False if it is in use.
    pub fn end(&self, gref: u32) -> bool {
        let offset = gref as usize * size_of::<Entry>();
        let mut entry: Entry = self.table.read(offset);
        let free = entry.flags & (GTF_READING | GTF_WRITING) == 0;
        if free {
            entry.flags = 0;
            self.table.put(offset, entry);
        }
        free
    }

    fn index(&self, offset: usize) -> u32 {
        let place = core::ptr::with_exposed_provenance::<u32>(self.xen.store_page().addr().get() + offset);
        // SAFETY: within the store's page, aligned, and nobody else runs.
        unsafe { place.read_volatile() }
    }

    fn set_index(&self, offset: usize, value: u32) {
        let place = core::ptr::with_exposed_provenance_mut::<u32>(self.xen.store_page().addr().get() + offset);
        // SAFETY: as for `index`.
        unsafe { place.write_volatile(value) }
    }

    fn byte(&self, offset: usize) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.xen.store_page().addr().get() + offset)
    }

    /// Puts bytes into the store's ring, as many as there is room for, and notifies it. Returns how many they were.
    pub fn put(&self, bytes: &[u8]) -> usize {
        let (consumed, mut produced) = (self.index(REQ_CONS), self.index(STORE_REQ_PROD));
        let room = RING_BYTES - produced.wrapping_sub(consumed);
        let count = bytes.len().min(room as usize);
        for byte in &bytes[..count] {
            // SAFETY: within the store's page, and nobody else runs.
            unsafe { self.byte(REQ + (produced % RING_BYTES) as usize).write_volatile(*byte) };
            produced = produced.wrapping_add(1);
        }
        self.set_index(STORE_REQ_PROD, produced);
        self.calls.notify(self.xen.store_port());
        count
    }

    /// Takes what the store has put into the ring, and notifies it.
    pub fn get(&self) -> usize {
        self.calls.acknowledge(self.xen.store_port());
        let (mut consumed, produced) = (self.index(RSP_CONS), self.index(STORE_RSP_PROD));
        let count = produced.wrapping_sub(consumed);
        assert!(count <= RING_BYTES);
        while consumed != produced {
            // SAFETY: as in `put`.
            let byte = unsafe { self.byte(RSP + (consumed % RING_BYTES) as usize).read_volatile() };
            self.received.borrow_mut().push_back(byte);
            consumed = consumed.wrapping_add(1);
        }
        self.set_index(RSP_CONS, consumed);
        self.calls.notify(self.xen.store_port());
        count as usize
    }

    /// Sends a whole request, and lets the store work until it is taken.
    pub fn send(&self, kind: u32, req_id: u32, tx_id: u32, payload: &[u8]) {
        let header = Header { kind, req_id, tx_id, len: payload.len() as u32 };
        let message = [header.as_bytes(), payload].concat();
        let mut sent = 0;
        while sent < message.len() {
            sent += self.put(&message[sent..]);
            self.xen.step();
        }
    }

    /// The whole messages that have come.
    pub fn messages(&self) -> Vec<Message> {
        loop {
            let stepped = self.xen.step();
            if self.get() == 0 && !stepped {
                break;
            }
        }
        let mut messages = Vec::new();
        let mut received = self.received.borrow_mut();
        let bytes = received.make_contiguous().to_vec();
        let mut rest = &bytes[..];
        while let Ok((header, behind)) = Header::read_from_prefix(rest)
            && let Some((payload, later)) = behind.split_at_checked(header.len as usize)
        {
            messages.push((header.kind, header.req_id, payload.to_vec()));
            rest = later;
        }
        *received = rest.iter().copied().collect();
        messages
    }

    /// Asks the store for something, and returns its one answer.
    pub fn ask(&self, kind: u32, tx_id: u32, payload: impl AsRef<[u8]>) -> (u32, String) {
        self.send(kind, 77, tx_id, payload.as_ref());
        let [(kind, 77, answer)] = &self.messages()[..] else { panic!("one answer") };
        (*kind, String::from_utf8(answer.clone()).unwrap())
    }

    pub fn port(&self) -> EventPort {
        self.calls.alloc_unbound(0).unwrap()
    }
}

/// What somebody says who is not content with what `act` does; nothing if nobody says anything.
pub fn complaint_of<R>(act: impl FnOnce() -> R) -> String {
    let Err(cause) = catch_unwind(AssertUnwindSafe(act)) else { return String::new() };
    let text = cause.downcast_ref::<&str>().map(|text| String::from(*text));
    text.or_else(|| cause.downcast_ref::<String>().cloned()).expect("panics have a text")
}

/// A ring of the guest's.
pub struct FrontRing {
    pub memory: SharedMemory,
    pub gref: Vec<u32>,
    entries: u32,
    entry_bytes: usize,
    produced: u32,
    consumed: u32,
}

impl FrontRing {
    /// A ring over so many pages, which are granted one by one.
    pub fn new(hand: &Hand, pages: usize, entry_bytes: usize) -> Self {
        let memory = SharedMemory::new(pages * PAGE_BYTES);
        memory.store32(REQ_EVENT, 1, SeqCst);
        memory.store32(RSP_EVENT, 1, SeqCst);
        let gref = (0..pages).map(|page| {
            let gref = hand.next.replace_with(|next| *next + 1);
            let frame = (memory.address(page * PAGE_BYTES) >> 12) as u32;
            let entry = Entry { flags: GTF_PERMIT_ACCESS, domid: 0, frame };
            hand.table.put(gref as usize * size_of::<Entry>(), entry);
            gref
        });
        let gref = gref.collect();
        let entries = crate::rings::xen::abi::ring::entries(pages * PAGE_BYTES, entry_bytes);
        Self { memory, gref, entries, entry_bytes, produced: 0, consumed: 0 }
    }

    fn place(&self, index: u32) -> usize {
        ENTRIES + (index % self.entries) as usize * self.entry_bytes
    }

    /// Publishes a request.
    pub fn push(&mut self, request: impl IntoBytes + Immutable) {
        self.memory.write(self.place(self.produced), request.as_bytes());
        self.produced += 1;
        self.memory.store32(REQ_PROD, self.produced, SeqCst);
    }

    /// The back end wants to be told of the last request.
    pub fn wants_notice(&self) -> bool {
        self.memory.load32(REQ_EVENT, SeqCst) == self.produced
    }

    /// The next response.
    pub fn pop<R: FromBytes>(&mut self) -> Option<R> {
        if self.consumed == self.memory.load32(RSP_PROD, SeqCst) {
            return None;
        }
        self.consumed += 1;
        Some(self.memory.read(self.place(self.consumed - 1)))
    }

    /// Asks to be woken by the next response.
    pub fn arm(&self) {
        self.memory.store32(RSP_EVENT, self.consumed + 1, SeqCst);
    }

    /// How far the other side has come.
    pub fn responses(&self) -> u32 {
        self.memory.load32(RSP_PROD, SeqCst)
    }
}
