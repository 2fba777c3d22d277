//! A ring as a back end sees it (`io/ring.h`): takes requests, puts responses in their place.

use alloc::vec::Vec;
use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::super::abi::ring::{ENTRIES, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, entries};
use super::super::hypervisor::DomainId;
use super::grants::{Grants, Mapping};
use super::guest::GuestPage;
use crate::rings::PAGE_BYTES;

/// Bytes of the largest entry.
const MAX_ENTRY_BYTES: usize = 112;

/// A ring whose requests are `Q`, no smaller than its responses.
pub(super) struct BackRing<Q> {
    pages: Vec<Mapping>,
    entries: u32,
    /// Index of the next request to be taken.
    consumed: u32,
    /// Index behind the last response.
    produced: u32,
    /// `produced` at the last publication.
    published: u32,
    /// It has produced what it should not have: what the front makes of it is no breach.
    lied: bool,
    requests: PhantomData<Q>,
}

impl<Q: FromBytes + IntoBytes + Immutable> BackRing<Q> {
    /// Maps a ring that the front has granted, and that nobody has used.
    pub fn map(grants: &mut Grants, domain: DomainId, grefs: &[u32]) -> Self {
        let mut map = |gref| grants.map(domain, gref, true);
        let pages =
            grefs.iter().map(|&gref| map(gref).unwrap_or_else(|error| panic!("a ring at grant {gref}: {error}")));
        let pages: Vec<Mapping> = pages.collect();
        let entries = entries(pages.len() * PAGE_BYTES, size_of::<Q>());
        let first = pages[0].page;
        let (requests, responses) = (first.load32(REQ_PROD), first.load32(RSP_PROD));
        assert!(requests.wrapping_sub(responses) <= entries, "a ring begins with {requests} and {responses}");
        let (consumed, produced) = (responses, responses);
        Self { pages, entries, consumed, produced, published: produced, lied: false, requests: PhantomData }
    }

    /// Ends its mappings.
    pub fn unmap(self, grants: &mut Grants) {
        self.pages.into_iter().for_each(|page| grants.unmap(page));
    }

    fn shared(&self) -> GuestPage {
        self.pages[0].page
    }

    /// Where an entry begins in the ring's memory.
    fn place(&self, index: u32) -> usize {
        ENTRIES + (index & (self.entries - 1)) as usize * size_of::<Q>()
    }

    /// Where so many bytes lie: an entry may cross a border between pages.
    fn pieces(&self, start: usize, bytes: usize) -> impl Iterator<Item = (GuestPage, usize, usize)> + '_ {
        let (mut at, end) = (start, start + bytes);
        core::iter::from_fn(move || {
            let (page, offset) = (self.pages.get(at / PAGE_BYTES)?.page, at % PAGE_BYTES);
            let length = (end - at).min(PAGE_BYTES - offset);
            at += length;
            (length > 0).then_some((page, offset, length))
        })
    }

    /// Requests that the front has published and nobody has taken.
    pub fn available(&self) -> u32 {
        let requests = self.shared().load32(REQ_PROD);
        let open = requests.wrapping_sub(self.produced);
        assert!(open <= self.entries || self.lied, "{open} open requests in a ring of {}", self.entries);
        requests.wrapping_sub(self.consumed).min(self.entries)
    }

    /// The next request.
    pub fn take(&mut self) -> Option<Q> {
        if self.available() == 0 {
            return None;
        }
        let mut buffer = [0; MAX_ENTRY_BYTES];
        let mut filled = 0;
        for (page, offset, length) in self.pieces(self.place(self.consumed), size_of::<Q>()) {
            page.copy_to(offset, &mut buffer[filled..filled + length]);
            filled += length;
        }
        self.consumed = self.consumed.wrapping_add(1);
        Some(Q::read_from_bytes(&buffer[..filled]).expect("a whole entry"))
    }

    /// Puts a response behind the others; it is not to be seen yet.
    pub fn respond(&mut self, response: impl IntoBytes + Immutable) {
        self.respond_at(0, response.as_bytes());
    }

    /// As [`BackRing::respond`], but only these bytes of the response; the others are what the request left there.
    pub fn respond_at(&mut self, offset: usize, mut bytes: &[u8]) {
        let open = self.consumed.wrapping_sub(self.produced);
        let answers = (1..=self.entries).contains(&open);
        assert!(answers || self.lied, "a response to no request");
        if !answers {
            // It would be written over a request that nobody has read.
            self.pass_over();
        }
        for (page, start, length) in self.pieces(self.place(self.produced) + offset, bytes.len()) {
            let (now, later) = bytes.split_at(length);
            page.copy_from(start, now);
            bytes = later;
        }
        self.produced = self.produced.wrapping_add(1);
    }

    /// Shows the front what was produced. True if it wants to be told (`RING_PUSH_RESPONSES_AND_CHECK_NOTIFY`).
    pub fn publish(&mut self) -> bool {
        let shared = self.shared();
        let before = core::mem::replace(&mut self.published, self.produced);
        shared.store32(RSP_PROD, self.produced);
        let event = shared.load32(RSP_EVENT);
        self.produced.wrapping_sub(event) < self.produced.wrapping_sub(before)
    }

    /// Asks to be told when `count` requests are there. True if they are already (`RING_FINAL_CHECK_FOR_REQUESTS`).
    pub fn arm(&mut self, count: u32) -> bool {
        self.shared().store32(REQ_EVENT, self.consumed.wrapping_add(count));
        self.available() >= count
    }

    /// Whether the front has been told of all that was published, or will be when more comes: that it sleeps is no mistake.
    pub fn may_sleep(&self) -> bool {
        let ahead = self.shared().load32(RSP_EVENT).wrapping_sub(self.published);
        (1..=self.entries).contains(&ahead)
    }

    /// Whether anybody has ever put anything in.
    pub fn is_used(&self) -> bool {
        self.shared().load32(REQ_PROD) != 0 || self.produced != 0
    }

    /// Whether it has produced what it should not have: then requests may name grants that the front has ended.
    pub fn has_lied(&self) -> bool {
        self.lied
    }

    /// From now on responses may be anything.
    pub fn lie(&mut self) -> &mut Self {
        self.lied = true;
        self
    }

    /// Passes over all requests: they are never answered, and what is put in their place is no answer to them.
    pub fn pass_over(&mut self) -> &mut Self {
        while self.take().is_some() {}
        self.lie()
    }

    /// Moves the index behind the responses, with nothing written.
    pub fn jump(&mut self, count: u32) {
        self.pass_over();
        self.produced = self.produced.wrapping_add(count);
    }
}
