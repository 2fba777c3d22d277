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
    if let Err(error) = store.write_all("control", &features).await {
        // Toolstacks may not let us; they may ask all the same.
        info!("the toolstack can't be told what it may want: {}", error);
    }
    let watch = store.watch(SHUTDOWN).await?;
    loop {
        watch.fired().await?;
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
        if let Err(error) = store.write(Transaction::default(), SHUTDOWN, "").await {
            warn!("the toolstack's wish can't be acknowledged: {}", error);
        }
        return Ok(power);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rings::xen::memory::MemoryXen;
    use crate::stats::Stats;
    use alloc::rc::Rc;
    use alloc::string::String;

    const HOME: &str = "/local/domain/7/";

    struct Toolstack {
        xen: MemoryXen,
        control: Control,
    }

    impl Toolstack {
        fn new() -> Self {
            let xen = MemoryXen::new(7);
            xen.write(&path(SHUTDOWN), "");
            let store = xen.connect(Rc::new(Stats::default())).store().clone();
            let mut toolstack = Self { xen, control: Control::new(store) };
            assert_eq!(toolstack.settle(), None);
            toolstack
        }

        /// Lets both sides work until they sleep.
        fn settle(&mut self) -> Option<Power> {
            let mut wanted = None;
            loop {
                if self.control.poll() {
                    wanted = self.control.take_wanted();
                }
                while self.xen.step() {}
                if !self.control.arm() && !self.xen.is_due() {
                    return wanted;
                }
            }
        }

        fn wants(&mut self, what: &str) -> Option<Power> {
            self.xen.write(&path(SHUTDOWN), what);
            self.settle()
        }

        fn value(&self, name: &str) -> Option<String> {
            self.xen.read(&path(name))
        }
    }

    fn path(name: &str) -> String {
        [HOME, name].concat()
    }

    #[test]
    fn wishes_are_acknowledged_and_told_once() {
        for (what, power) in [("poweroff", Power::Halt), ("halt", Power::Halt), ("reboot", Power::Reboot)] {
            let mut toolstack = Toolstack::new();
            for feature in FEATURES {
                assert_eq!(toolstack.value(&["control/", feature].concat()).as_deref(), Some("1"));
            }
            assert_eq!(toolstack.wants(what), Some(power));
            assert_eq!(toolstack.value(SHUTDOWN).as_deref(), Some(""), "it is acknowledged");
            assert_eq!(toolstack.wants("reboot"), None, "it ends already");
        }
    }

    #[test]
    fn what_is_not_known_is_left_and_the_next_wish_is_heard() {
        let mut toolstack = Toolstack::new();
        for what in ["suspend", "crash", "Poweroff", "poweroff now"] {
            assert_eq!(toolstack.wants(what), None);
            assert_eq!(toolstack.value(SHUTDOWN).as_deref(), Some(what));
        }
        toolstack.xen.remove(&path(SHUTDOWN));
        assert_eq!(toolstack.settle(), None);
        assert_eq!(toolstack.wants("poweroff"), Some(Power::Halt));
    }

    #[test]
    fn a_store_that_breaks_its_rules_is_left_alone() {
        let mut toolstack = Toolstack::new();
        toolstack.xen.jump_store(5000);
        assert_eq!(toolstack.settle(), None);
        assert!(!toolstack.control.arm(), "nobody stays awake for it");
    }
}
