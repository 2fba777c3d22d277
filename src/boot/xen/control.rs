//! What the toolstack wants of the machine (`control/shutdown` of the store, Xen's `docs/misc/xenstore-paths`): `xl shutdown` and
//! `xl reboot`.

use alloc::boxed::Box;
use alloc::string::ToString;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::platform::Power;
use crate::rings::xen::{Store, Transaction, XenError};

/// Where the toolstack writes what it wants; "" acknowledges it.
const SHUTDOWN: &str = "control/shutdown";
/// Where we say what we can.
const FEATURES: [&str; 2] = ["feature-poweroff", "feature-reboot"];

/// Until the toolstack wants the machine's end, or the store fails.
type Talk = Pin<Box<dyn Future<Output = Result<Power, XenError>>>>;

/// Listens to the toolstack.
pub struct Control {
    store: Store,
    talk: Option<Talk>,
    /// [`Store::progress`] when the conversation was last looked at.
    looked: Option<u64>,
    wanted: Option<Power>,
}

impl Control {
    /// Begins to listen.
    pub fn new(store: Store) -> Self {
        let talk = Box::pin(listen(store.clone()));
        Self { store, talk: Some(talk), looked: None, wanted: None }
    }

    /// Takes in what the store has said. True if something is wanted now.
    pub fn poll(&mut self) -> bool {
        self.store.poll();
        let progress = Some(self.store.progress());
        let Some(talk) = self.talk.as_mut().filter(|_| self.looked != progress) else { return false };
        self.looked = progress;
        let Poll::Ready(end) = talk.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { return false };
        self.talk = None;
        match end {
            Ok(power) => self.wanted = Some(power),
            Err(error) => warn!("the toolstack's wishes are not heard any more: {}", error),
        }
        self.wanted.is_some()
    }

    /// What the toolstack wants, once.
    pub fn take_wanted(&mut self) -> Option<Power> {
        self.wanted.take()
    }

    /// Asks to be woken when the store has something to say. True if there is something to do: then don't sleep.
    pub fn arm(&self) -> bool {
        self.wanted.is_some() || self.talk.is_some() && (self.store.arm() || self.looked != Some(self.store.progress()))
    }
}

/// Waits until the toolstack wants the machine's end.
async fn listen(store: Store) -> Result<Power, XenError> {
    let features = FEATURES.map(|name| (name.to_string(), "1".to_string()));
    store.write_all("control", &features).await?;
    let watch = store.watch(SHUTDOWN).await?;
    loop {
        watch.fired().await;
        let wanted = store.read(Transaction::default(), SHUTDOWN).await?.unwrap_or_default();
        let power = match wanted.trim_end_matches('\0') {
            "" => continue,
            "poweroff" | "halt" => Power::Halt,
            "reboot" => Power::Reboot,
            other => {
                warn!("the toolstack wants {}, which is not supported", other);
                continue;
            }
        };
        store.write(Transaction::default(), SHUTDOWN, "").await?;
        return Ok(power);
    }
}
