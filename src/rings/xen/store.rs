//! The client of xenstore: a tree of small texts that every domain shares with the tools (`docs/misc/xenstore.txt`,
//! `io/xs_wire.h`).
//!
//! Requests are futures that never block: whoever waits polls them again when [`Store::progress`] has moved. Answers may come in any
//! order, in pieces, and watch events between them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{Ordering, fence};
use core::task::{Context, Poll};

use zerocopy::{FromBytes, IntoBytes};

use super::abi::store::{
    Header, PAYLOAD_MAX, REQ, REQ_CONS, REQ_PROD, RING_BYTES, RSP, RSP_CONS, RSP_PROD, XS_DIRECTORY, XS_ERROR, XS_READ,
    XS_RM, XS_TRANSACTION_END, XS_TRANSACTION_START, XS_UNWATCH, XS_WATCH, XS_WATCH_EVENT, XS_WRITE,
};
use super::{EventPort, Hypervisor, XenError};
use crate::rings::shared_memory::SharedMemory;

const HEADER_BYTES: usize = size_of::<Header>();

/// Most bytes that wait to be sent; a device's whole introduction takes about a KiB.
const MAX_OUTGOING_BYTES: usize = 64 << 10;

/// How often a transaction that others disturb is tried.
const MAX_TRANSACTION_TRIES: u32 = 20;

/// What every watch's token begins with.
const TOKEN: &str = "mc";

/// The store. Cloning gives another handle to the same connection.
#[derive(Clone)]
pub struct Store(Rc<RefCell<Client>>);

/// A request that awaits its answer, or has it.
struct Pending {
    id: u32,
    answer: Option<Result<Vec<u8>, String>>,
}

struct Watched {
    id: u32,
    fired: bool,
}

struct Client {
    hypervisor: Rc<dyn Hypervisor>,
    port: EventPort,
    page: SharedMemory,
    outgoing: VecDeque<u8>,
    /// The message that is being received.
    incoming: Vec<u8>,
    last_id: u32,
    pending: Vec<Pending>,
    watches: Vec<Watched>,
    /// Somebody's transaction is under way. The store allows a domain only a few at once, and there may be many devices.
    in_transaction: bool,
    /// Messages taken in so far, and whatever else somebody may wait for.
    progress: u64,
    broken: Option<&'static str>,
}

impl Client {
    fn next_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    /// Puts a message into the queue. `None` if there is no room.
    fn send(&mut self, kind: u32, tx_id: u32, parts: &[&[u8]]) -> Result<u32, XenError> {
        if let Some(what) = self.broken {
            return Err(XenError::StoreBroken(what));
        }
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes > PAYLOAD_MAX || self.outgoing.len() + HEADER_BYTES + bytes > MAX_OUTGOING_BYTES {
            return Err(XenError::StoreBusy);
        }
        let id = self.next_id();
        let header = Header { kind, req_id: id, tx_id, len: bytes as u32 };
        self.outgoing.extend(header.as_bytes());
        parts.iter().for_each(|part| self.outgoing.extend(*part));
        Ok(id)
    }

    /// Moves bytes in both directions, and takes in what is whole.
    fn exchange(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let moved = self.write_ring().and_then(|written| Ok(self.read_ring()? || written));
        match moved {
            Ok(true) => self.hypervisor.notify(self.port),
            Ok(false) => {}
            Err(what) => {
                error!("xenstore breaks its own protocol: {}", what);
                self.broken = Some(what);
                self.progress += 1;
            }
        }
    }

    fn write_ring(&mut self) -> Result<bool, &'static str> {
        if self.outgoing.is_empty() {
            return Ok(false);
        }
        let mut produced = self.page.load32(REQ_PROD, Ordering::Relaxed);
        let consumed = self.page.load32(REQ_CONS, Ordering::Acquire);
        let room = RING_BYTES.checked_sub(produced.wrapping_sub(consumed)).ok_or("its request index jumped")?;
        let count = (room as usize).min(self.outgoing.len());
        for byte in self.outgoing.drain(..count) {
            self.page.write8(REQ + (produced % RING_BYTES) as usize, byte);
            produced = produced.wrapping_add(1);
        }
        self.page.store32(REQ_PROD, produced, Ordering::Release);
        Ok(count > 0)
    }

    fn read_ring(&mut self) -> Result<bool, &'static str> {
        let mut consumed = self.page.load32(RSP_CONS, Ordering::Relaxed);
        let produced = self.page.load32(RSP_PROD, Ordering::Acquire);
        let there = produced.wrapping_sub(consumed);
        if there > RING_BYTES {
            return Err("its answer index jumped");
        }
        for _ in 0..there {
            let byte = self.page.read8(RSP + (consumed % RING_BYTES) as usize);
            consumed = consumed.wrapping_add(1);
            self.incoming.push(byte);
            self.take_message()?;
        }
        self.page.store32(RSP_CONS, consumed, Ordering::Release);
        Ok(there > 0)
    }

    /// Takes in the message that has become whole, if one has.
    fn take_message(&mut self) -> Result<(), &'static str> {
        let Ok((header, payload)) = Header::read_from_prefix(&self.incoming) else { return Ok(()) };
        let length = header.len as usize;
        if length > PAYLOAD_MAX {
            return Err("a message is too long");
        }
        if payload.len() < length {
            return Ok(());
        }
        self.progress += 1;
        if header.kind == XS_WATCH_EVENT {
            // The path that changed, and the token behind it.
            let token = payload.split(|byte| *byte == 0).nth(1).and_then(|token| core::str::from_utf8(token).ok());
            let id = token.and_then(|token| token.strip_prefix(TOKEN)?.parse::<u32>().ok());
            if let Some(watch) = self.watches.iter_mut().find(|watch| Some(watch.id) == id) {
                watch.fired = true;
            }
        } else if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == header.req_id) {
            let answer = match header.kind {
                XS_ERROR => Err(text(payload)),
                _ => Ok(payload.to_vec()),
            };
            pending.answer.get_or_insert(answer);
        }
        self.incoming.clear();
        Ok(())
    }
}

/// What a message says, without the NUL that some end with.
fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.strip_suffix(&[0]).unwrap_or(payload)).into_owned()
}

/// A transaction under way; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transaction(u32);

impl Store {
    /// The store behind this page, with this event channel.
    ///
    /// # Safety
    /// As [`SharedMemory::over`], for one page.
    pub(super) unsafe fn new(hypervisor: Rc<dyn Hypervisor>, page: core::ptr::NonNull<u8>, port: EventPort) -> Self {
        // SAFETY: as the caller promises.
        let page = unsafe { SharedMemory::over(page, crate::rings::PAGE_BYTES) };
        let incoming = Vec::with_capacity(HEADER_BYTES + PAYLOAD_MAX);
        Self(Rc::new(RefCell::new(Client {
            hypervisor,
            port,
            page,
            outgoing: VecDeque::new(),
            incoming,
            last_id: 0,
            pending: Vec::new(),
            watches: Vec::new(),
            in_transaction: false,
            progress: 0,
            broken: None,
        })))
    }

    /// Takes in what the store has said, and sends what waits.
    pub fn poll(&self) {
        self.0.borrow_mut().exchange();
    }

    /// Grows with each message that has been taken in: then whoever waits may look again.
    pub fn progress(&self) -> u64 {
        self.0.borrow().progress
    }

    /// Asks to be woken when the store has something to say. True if it has already: then don't sleep.
    pub fn arm(&self) -> bool {
        let mut client = self.0.borrow_mut();
        client.hypervisor.acknowledge(client.port);
        if client.broken.is_some() {
            return false;
        }
        fence(Ordering::SeqCst);
        let before = client.progress;
        client.exchange();
        client.progress != before
    }

    /// Sends a request. Its conversation is a box of its own: those who wait for it hold no more than that.
    fn request<'a>(
        &'a self,
        kind: u32,
        transaction: Transaction,
        path: &'a str,
        parts: &'a [&'a [u8]],
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, XenError>> + 'a>> {
        Box::pin(self.ask(kind, transaction, path, parts))
    }

    async fn ask(
        &self,
        kind: u32,
        Transaction(tx_id): Transaction,
        path: &str,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, XenError> {
        let id = {
            let mut client = self.0.borrow_mut();
            let id = client.send(kind, tx_id, parts)?;
            client.pending.push(Pending { id, answer: None });
            client.exchange();
            id
        };
        let answer = Answer { store: self, id }.await?;
        answer.map_err(|error| XenError::Store { path: path.to_string(), error })
    }

    /// A node's value; `None` if there is no such node. Of folders that are not ours the store does not say whether there is none or we
    /// may not see it, so that is `None`, too.
    ///
    /// # Errors
    /// If the store refuses, or is broken.
    pub async fn read(&self, transaction: Transaction, path: &str) -> Result<Option<String>, XenError> {
        match self.request(XS_READ, transaction, path, &[path.as_bytes(), &[0]]).await {
            Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            Err(XenError::Store { error, .. }) if matches!(&*error, "ENOENT" | "EACCES") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of a node's children; none if there is no such node.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn directory(&self, path: &str) -> Result<Vec<String>, XenError> {
        match self.request(XS_DIRECTORY, Transaction::default(), path, &[path.as_bytes(), &[0]]).await {
            Ok(names) => {
                let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
                Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
            }
            Err(XenError::Store { error, .. }) if error == "ENOENT" => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Sets a node's value; the node is made if there is none.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn write(&self, transaction: Transaction, path: &str, value: &str) -> Result<(), XenError> {
        self.request(XS_WRITE, transaction, path, &[path.as_bytes(), &[0], value.as_bytes()]).await.map(drop)
    }

    /// Removes a node with all below it.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn remove(&self, transaction: Transaction, path: &str) -> Result<(), XenError> {
        self.request(XS_RM, transaction, path, &[path.as_bytes(), &[0]]).await.map(drop)
    }

    /// Sets several nodes of a folder at once: others see all of them or none.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn write_all(&self, folder: &str, nodes: &[(String, String)]) -> Result<(), XenError> {
        let _turn = self.turn().await;
        let mut tries = 0;
        loop {
            let begun = self.request(XS_TRANSACTION_START, Transaction::default(), folder, &[&[0]]).await?;
            let transaction = text(&begun).parse().map(Transaction);
            let transaction = transaction.map_err(|_| XenError::StoreBroken("a transaction has no number"))?;
            for (name, value) in nodes {
                if let Err(error) = self.write(transaction, &format!("{folder}/{name}"), value).await {
                    self.request(XS_TRANSACTION_END, transaction, folder, &[b"F\0"]).await?;
                    return Err(error);
                }
            }
            tries += 1;
            match self.request(XS_TRANSACTION_END, transaction, folder, &[b"T\0"]).await {
                Err(XenError::Store { error, .. }) if error == "EAGAIN" && tries < MAX_TRANSACTION_TRIES => {}
                result => return result.map(drop),
            }
        }
    }

    /// Waits until nobody else's transaction is under way.
    async fn turn(&self) -> Turn<'_> {
        core::future::poll_fn(|_| match core::mem::replace(&mut self.0.borrow_mut().in_transaction, true) {
            false => Poll::Ready(()),
            true => Poll::Pending,
        })
        .await;
        Turn(self)
    }

    /// Watches a node and all below it. It fires once at the beginning, too.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn watch(&self, path: &str) -> Result<Watch, XenError> {
        let watch = {
            let mut client = self.0.borrow_mut();
            let id = client.next_id();
            client.watches.push(Watched { id, fired: false });
            Watch { store: self.clone(), id, path: path.to_string() }
        };
        let token = format!("{TOKEN}{}", watch.id);
        self.request(XS_WATCH, Transaction::default(), path, &[path.as_bytes(), &[0], token.as_bytes(), &[0]]).await?;
        Ok(watch)
    }
}

impl core::fmt::Debug for Store {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let client = self.0.borrow();
        write!(f, "Store(event channel {}, {} messages)", client.port, client.progress)
    }
}

/// The right to a transaction.
struct Turn<'a>(&'a Store);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut client = self.0.0.borrow_mut();
        client.in_transaction = false;
        // Whoever waits for it may look again.
        client.progress += 1;
    }
}

/// A request's answer.
struct Answer<'a> {
    store: &'a Store,
    id: u32,
}

impl Future for Answer<'_> {
    type Output = Result<Result<Vec<u8>, String>, XenError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let mut client = self.store.0.borrow_mut();
        if let Some(pending) = client.pending.iter_mut().find(|pending| pending.id == self.id)
            && let Some(answer) = pending.answer.take()
        {
            return Poll::Ready(Ok(answer));
        }
        client.broken.map_or(Poll::Pending, |what| Poll::Ready(Err(XenError::StoreBroken(what))))
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        self.store.0.borrow_mut().pending.retain(|pending| pending.id != self.id);
    }
}

/// A node that is watched, until this is dropped.
pub struct Watch {
    store: Store,
    id: u32,
    path: String,
}

impl Watch {
    /// Waits until it has fired since the last call.
    ///
    /// # Errors
    /// If the store is broken.
    pub async fn fired(&self) -> Result<(), XenError> {
        core::future::poll_fn(|_| {
            let mut client = self.store.0.borrow_mut();
            let watch = client.watches.iter_mut().find(|watch| watch.id == self.id);
            match (watch.is_some_and(|watch| core::mem::take(&mut watch.fired)), client.broken) {
                (true, _) => Poll::Ready(Ok(())),
                (false, Some(what)) => Poll::Ready(Err(XenError::StoreBroken(what))),
                (false, None) => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut client = self.store.0.borrow_mut();
        client.watches.retain(|watch| watch.id != self.id);
        let token = format!("{TOKEN}{}", self.id);
        // Without room for it, its events are ignored from now on. Nobody waits for the answer.
        let _ = client.send(XS_UNWATCH, 0, &[self.path.as_bytes(), &[0], token.as_bytes(), &[0]]);
        client.exchange();
    }
}

impl core::fmt::Debug for Watch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Watch({})", self.path)
    }
}
