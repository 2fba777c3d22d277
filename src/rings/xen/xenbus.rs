//! How front and back ends meet (`io/xenbus.h`): each has a folder in the store, with its state and what it offers.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;

use super::store::{Transaction, Watch};
use super::{DomainId, Store, Xen, XenError};

/// Longest value of a node that makes sense to us.
const MAX_VALUE_BYTES: usize = 64;

/// `XenbusState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none, or none that makes sense.
    Unknown,
    /// It begins.
    Initialising,
    /// The back end waits for the front end to say how.
    InitWait,
    /// The front end has said how.
    Initialised,
    /// It works.
    Connected,
    /// It is about to end.
    Closing,
    /// It has ended: nothing of the other side's is in use.
    Closed,
}

impl State {
    fn of(number: Option<&str>) -> Self {
        match number.and_then(|number| number.trim_end_matches('\0').trim().parse().ok()) {
            Some(1) => Self::Initialising,
            Some(2) => Self::InitWait,
            Some(3) => Self::Initialised,
            Some(4) => Self::Connected,
            Some(5) => Self::Closing,
            Some(6) => Self::Closed,
            _ => Self::Unknown,
        }
    }

    fn number(self) -> u8 {
        self as u8
    }
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A network interface (vif).
    Network,
    /// A disk (vbd).
    Block,
}

impl DeviceKind {
    fn folder(self) -> &'static str {
        match self {
            Self::Network => "device/vif",
            Self::Block => "device/vbd",
        }
    }
}

/// A device that the tools have given us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which driver.
    pub kind: DeviceKind,
    /// Its number: of a disk its virtual device number (51712 is xvda), of an interface its handle.
    pub number: u32,
    /// Its folder in the store.
    pub path: String,
}

/// The devices of a kind, by ascending number.
///
/// # Errors
/// If the store can't be used.
pub async fn devices(store: &Store, kind: DeviceKind) -> Result<Vec<Found>, XenError> {
    let names = store.directory(kind.folder()).await?;
    let found = names.iter().filter_map(|name| {
        let number = name.parse().ok()?;
        Some(Found { kind, number, path: format!("{}/{name}", kind.folder()) })
    });
    let mut found: Vec<Found> = found.collect();
    found.sort_by_key(|device| device.number);
    Ok(found)
}

/// A node's value as a number.
fn number(path: &str, value: &str) -> Result<u64, XenError> {
    let value = value.trim_end_matches('\0').trim();
    value.parse().map_err(|_| bad_value(path, value))
}

/// A node that says what can't be.
pub(super) fn bad_value(path: &str, value: &str) -> XenError {
    XenError::BadValue { path: path.into(), value: value.chars().take(MAX_VALUE_BYTES).collect() }
}

/// A node that is a number; `None` if there is no such node. A box of its own, since it is awaited in many places.
fn read_number<'a>(
    store: &'a Store,
    path: String,
) -> Pin<Box<dyn Future<Output = Result<Option<u64>, XenError>> + 'a>> {
    Box::pin(async move {
        let value = store.read(Transaction::default(), &path).await?;
        value.map(|value| number(&path, &value)).transpose()
    })
}

/// A number where less may be meant by it.
fn narrow<T: TryFrom<u64>>(path: &str, value: Option<u64>) -> Result<Option<T>, XenError> {
    let narrowed = value.map(|value| T::try_from(value).map_err(|_| bad_value(path, &value.to_string())));
    narrowed.transpose()
}

/// One device: our folder, the back end's, and the watch over the back end's state.
#[derive(Debug)]
pub(super) struct Device {
    pub xen: Xen,
    /// Our folder.
    pub path: String,
    /// The back end's folder.
    backend: String,
    /// The back end's domain.
    pub domain: DomainId,
    watch: Watch,
}

impl Device {
    /// The device in this folder.
    pub async fn open(xen: Xen, path: String) -> Result<Rc<Self>, XenError> {
        let store = &xen.store().clone();
        let node = |name: &str| format!("{path}/{name}");
        let read = async |name: &str| {
            let value = store.read(Transaction::default(), &node(name)).await?;
            value.ok_or_else(|| XenError::Missing(node(name)))
        };
        let backend = read("backend").await?;
        let domain = read_number(store, node("backend-id")).await?;
        let domain = narrow(&node("backend-id"), domain)?.ok_or_else(|| XenError::Missing(node("backend-id")))?;
        let watch = store.watch(&format!("{backend}/state")).await?;
        Ok(Rc::new(Self { xen, path, backend, domain, watch }))
    }

    /// Waits until a device that was taken away is there again, and opens that.
    pub async fn reopen(xen: Xen, path: String) -> Result<Rc<Self>, XenError> {
        let store = &xen.store().clone();
        let backend = format!("{path}/backend");
        let watch = store.watch(&backend).await?;
        // The tools remove the old folders when both ends have closed, and write new ones at once.
        let mut is_old = true;
        loop {
            let found = store.read(Transaction::default(), &backend).await?;
            if let Some(backend) = found.as_ref().filter(|_| is_old) {
                let state = store.read(Transaction::default(), &format!("{backend}/state")).await?;
                is_old = !matches!(State::of(state.as_deref()), State::Initialising | State::InitWait);
            } else {
                is_old = false;
            }
            if !is_old && found.is_some() {
                return Self::open(xen, path).await;
            }
            watch.fired().await?;
        }
    }

    fn store(&self) -> &Store {
        self.xen.store()
    }

    /// A node of ours.
    pub async fn own(&self, name: &str) -> Result<Option<String>, XenError> {
        self.store().read(Transaction::default(), &format!("{}/{name}", self.path)).await
    }

    /// A node of ours that is a number.
    pub async fn own_number<T: TryFrom<u64>>(&self, name: &str) -> Result<Option<T>, XenError> {
        let path = format!("{}/{name}", self.path);
        narrow(&path, read_number(self.store(), path.clone()).await?)
    }

    /// A node of the back end's.
    pub async fn offer(&self, name: &str) -> Result<Option<String>, XenError> {
        self.store().read(Transaction::default(), &format!("{}/{name}", self.backend)).await
    }

    /// A node of the back end's that is a number.
    pub async fn offer_number<T: TryFrom<u64>>(&self, name: &str) -> Result<Option<T>, XenError> {
        let path = format!("{}/{name}", self.backend);
        narrow(&path, read_number(self.store(), path.clone()).await?)
    }

    /// A feature of the back end's: a node that says other than 0.
    pub async fn offers(&self, name: &str) -> Result<bool, XenError> {
        Ok(self.offer_number::<u32>(name).await?.unwrap_or(0) != 0)
    }

    /// Says in our folder how it is to be done.
    pub async fn publish(&self, nodes: &[(String, String)]) -> Result<(), XenError> {
        self.store().write_all(&self.path, nodes).await
    }

    /// True while our folder is there: the tools may remove it at any time.
    pub async fn is_there(&self) -> Result<bool, XenError> {
        Ok(self.own("state").await?.is_some())
    }

    /// Sets our state. Not where our folder is gone: that would make another.
    pub async fn set_state(&self, state: State) -> Result<(), XenError> {
        if !self.is_there().await? {
            return Err(XenError::Missing(self.path.clone()));
        }
        let path = format!("{}/state", self.path);
        self.store().write(Transaction::default(), &path, &state.number().to_string()).await
    }

    /// The back end's state.
    pub async fn state(&self) -> Result<State, XenError> {
        Ok(State::of(self.offer("state").await?.as_deref()))
    }

    /// Waits until the back end's state is one of these, and says which.
    pub async fn wait_for(&self, wanted: &[State]) -> Result<State, XenError> {
        loop {
            let state = self.state().await?;
            if wanted.contains(&state) {
                return Ok(state);
            }
            self.changed().await?;
        }
    }

    /// Waits while the back end's state is this one.
    pub async fn wait_while(&self, present: State) -> Result<(), XenError> {
        while self.state().await? == present {
            self.changed().await?;
        }
        Ok(())
    }

    /// Waits until the back end has written its state again.
    pub async fn changed(&self) -> Result<(), XenError> {
        self.watch.fired().await
    }

    /// Waits until the back end is ready to be told how it is to be done.
    pub async fn wait_for_back_end(&self) -> Result<(), XenError> {
        loop {
            match self.state().await? {
                State::InitWait => return Ok(()),
                State::Closing | State::Closed | State::Unknown if !self.is_wanted().await? => {
                    return Err(XenError::Withdrawn);
                }
                // A back end of an earlier life has ended, or will.
                _ => self.changed().await?,
            }
        }
    }

    /// True if the tools still want this device to be there.
    pub async fn is_wanted(&self) -> Result<bool, XenError> {
        Ok(self.offer_number::<u32>("online").await?.unwrap_or(0) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_xens_numbers() {
        let states = [
            State::Unknown,
            State::Initialising,
            State::InitWait,
            State::Initialised,
            State::Connected,
            State::Closing,
            State::Closed,
        ];
        for (at, state) in states.into_iter().enumerate() {
            assert_eq!((usize::from(state.number()), State::of(Some(&at.to_string()))), (at, state));
        }
        assert_eq!(
            (State::of(None), State::of(Some("x")), State::of(Some("77"))),
            (State::Unknown, State::Unknown, State::Unknown)
        );
    }

    #[test]
    fn what_is_no_number_is_named() {
        assert_eq!(number("a/b", "77\0"), Ok(77));
        let bad = |value: &str| XenError::BadValue { path: "a/b".into(), value: value.into() };
        for value in ["", "x", "-1", "1 2"] {
            assert_eq!(number("a/b", value), Err(bad(value)));
        }
        assert_eq!(narrow::<u16>("a/b", Some(65_535)), Ok(Some(65_535)));
        assert_eq!(narrow::<u16>("a/b", Some(65_536)), Err(bad("65536")));
        let long = "9".repeat(1000);
        let error = number("a/b", &long).unwrap_err();
        assert!(error.to_string().len() < 200);
    }
}
