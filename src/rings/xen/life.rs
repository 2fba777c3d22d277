//! A front end's life: it connects, works while its back end does, lets go of everything when that closes, and connects again.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use core::fmt;
use core::future::{Future, pending};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::xenbus::{Device, State};
use super::{Xen, XenError};
use crate::rings::link::{Link, LinkEvent};
use crate::stats::Stats;

/// A conversation with the store that has not ended.
pub(super) type Talk<T> = Pin<Box<dyn Future<Output = T>>>;

/// How often in a row a back end may break the rules before the device is given up.
const MAX_FAULTS: u32 = 5;
/// Responses after which earlier faults are forgiven.
const GOOD_WORK: u64 = 10_000;

/// Where a device stands. `C` is what it works with once it is connected.
enum Phase<C> {
    /// Its folders are looked for.
    Opening(Talk<Result<Rc<Device>, XenError>>),
    /// Front and back end get to know each other.
    Connecting(Talk<Result<C, XenError>>),
    /// It works, until this ends.
    Working(Talk<Result<(), XenError>>),
    /// The back end is asked to let go. True: the device may come back.
    Closing(Talk<Result<bool, XenError>>),
    /// It will never work again.
    Gone,
}

/// What a step came to.
pub(super) enum Step<C> {
    /// Nothing that concerns the driver.
    None,
    /// The device is connected. [`Life::set_up`] has to follow.
    Connected(C),
    /// The back end has let go: what was in flight is taken back now.
    Stopped,
    /// Nobody can tell whether the back end has let go: what it has is never used again.
    Lost,
}

/// A driver's conversation that connects a device.
pub(super) trait Connect<C> {
    /// What messages call the driver.
    const NAME: &'static str;

    /// A device that was taken away may be another one when it comes back, and is welcome.
    const RETURNS: bool;

    /// Connects the device: it ends when the back end is connected.
    fn connect(&self, device: Rc<Device>) -> Talk<Result<C, XenError>>;

    /// Waits until the back end of a connected device closes, or for another reason to connect it anew.
    fn ends(&self, device: Rc<Device>) -> Talk<Result<(), XenError>> {
        Box::pin(async move { device.wait_while(State::Connected).await })
    }
}

/// A device's life; `U` is what it comes up with.
pub(super) struct Life<D, C, U> {
    pub xen: Xen,
    path: String,
    driver: D,
    device: Option<Rc<Device>>,
    phase: Phase<C>,
    link: Link<U>,
    /// [`super::Store::progress`] when the conversation was last looked at; `None`: it has to be looked at.
    looked: Option<u64>,
    /// Responses since the last fault.
    work: u64,
    faults: u32,
    stats: Rc<Stats>,
}

impl<D: Connect<C>, C: 'static, U> Life<D, C, U> {
    /// Begins to connect the device in this folder of the store. `up` is only what the link could come up with.
    pub fn new(xen: Xen, path: String, driver: D, up: U, stats: Rc<Stats>) -> Self {
        let mut link = Link::new(up);
        link.down();
        let phase = Phase::Opening(Box::pin(Device::open(xen.clone(), path.clone())));
        Self { xen, path, driver, device: None, phase, link, looked: None, work: 0, faults: 0, stats }
    }

    /// Goes on with whatever conversation there is.
    pub fn step(&mut self) -> Step<C> {
        let store = self.xen.store().clone();
        store.poll();
        loop {
            let progress = Some(store.progress());
            if core::mem::replace(&mut self.looked, progress) == progress {
                return Step::None;
            }
            match &mut self.phase {
                Phase::Gone => return Step::None,
                Phase::Opening(talk) => match look(talk) {
                    None => return Step::None,
                    Some(Ok(device)) => {
                        self.device = Some(device);
                        self.connect();
                    }
                    Some(Err(error)) => {
                        self.count_fault(&error);
                        // One that came back may have been taken away again while it was opened.
                        match D::RETURNS && self.device.is_some() && self.faults < MAX_FAULTS {
                            true => self.reopen(),
                            false => return self.end(),
                        }
                    }
                },
                Phase::Connecting(talk) => match look(talk) {
                    None => return Step::None,
                    Some(Ok(connected)) => {
                        let end = self.driver.ends(self.device().clone());
                        self.set_phase(Phase::Working(end));
                        return Step::Connected(connected);
                    }
                    Some(Err(error)) => {
                        self.count_fault(&error);
                        if error.is_final() {
                            self.faults = MAX_FAULTS;
                        }
                        self.close();
                    }
                },
                Phase::Working(talk) => match look(talk) {
                    None => return Step::None,
                    // Without a store nobody can say that it ends; what works goes on.
                    Some(Err(XenError::StoreBroken(_))) => self.set_phase(Phase::Working(Box::pin(pending()))),
                    Some(_) => self.close(),
                },
                Phase::Closing(talk) => match look(talk) {
                    None => return Step::None,
                    Some(Ok(true)) if self.faults < MAX_FAULTS => {
                        self.link.down();
                        self.connect_again();
                        return Step::Stopped;
                    }
                    Some(Ok(false)) if D::RETURNS && self.faults < MAX_FAULTS => {
                        warn!("{} ({}): the device was taken away", D::NAME, self.path.as_str());
                        self.link.down();
                        self.reopen();
                        return Step::Stopped;
                    }
                    Some(Ok(_)) => return self.end(),
                    Some(Err(error)) => {
                        error!("{} ({}): {}", D::NAME, self.path.as_str(), error);
                        self.end();
                        return Step::Lost;
                    }
                },
            }
        }
    }

    fn device(&self) -> &Rc<Device> {
        self.device.as_ref().expect("a device that has been opened")
    }

    fn set_phase(&mut self, phase: Phase<C>) {
        self.phase = phase;
        self.looked = None;
    }

    fn connect(&mut self) {
        let talk = self.driver.connect(self.device().clone());
        self.set_phase(Phase::Connecting(talk));
    }

    /// Connects a device again that has been closed.
    fn connect_again(&mut self) {
        let (device, talk) = (self.device().clone(), self.driver.connect(self.device().clone()));
        self.set_phase(Phase::Connecting(Box::pin(async move {
            device.set_state(State::Initialising).await?;
            talk.await
        })));
    }

    /// Waits for a device that was taken away.
    fn reopen(&mut self) {
        let talk = Box::pin(Device::reopen(self.xen.clone(), self.path.clone()));
        self.set_phase(Phase::Opening(talk));
    }

    fn close(&mut self) {
        let talk = Box::pin(close(self.device().clone()));
        self.set_phase(Phase::Closing(talk));
    }

    fn end(&mut self) -> Step<C> {
        warn!("{} ({}): the device is gone", D::NAME, self.path.as_str());
        self.link.gone();
        self.set_phase(Phase::Gone);
        Step::Stopped
    }

    fn count_fault(&mut self, error: &XenError) {
        self.stats.device_faults.increment();
        if self.work >= GOOD_WORK {
            self.faults = 0;
        }
        (self.faults, self.work) = (self.faults + 1, 0);
        let path = self.path.as_str();
        warn!("{} ({}): {} (fault {} of {} in a row)", D::NAME, path, error, self.faults, MAX_FAULTS);
    }

    /// The back end can't be trusted any more.
    pub fn fault(&mut self, error: &XenError) {
        if self.is_working() {
            self.count_fault(error);
            self.close();
        }
    }

    /// The device works, with this.
    pub fn set_up(&mut self, up: U) {
        self.link.up(up);
    }

    /// True while the rings may be used.
    pub fn is_working(&self) -> bool {
        matches!(self.phase, Phase::Working(_))
    }

    /// True while the device is not up and may still come up.
    pub fn is_connecting(&self) -> bool {
        !matches!(self.phase, Phase::Working(_) | Phase::Gone)
    }

    /// Counts responses.
    pub fn count_work(&mut self, responses: usize) {
        self.work += responses as u64;
    }

    /// The next change of state.
    pub fn event(&mut self) -> Option<LinkEvent<U>> {
        self.link.next()
    }

    /// Asks to be woken when the conversation goes on. True if the next round has something to do here.
    pub fn arm(&mut self) -> bool {
        let store = self.xen.store();
        store.arm() || self.looked != Some(store.progress()) || self.link.pending()
    }
}

impl<D, C, U> fmt::Debug for Life<D, C, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Opening(_) => "opening",
            Phase::Connecting(_) => "connecting",
            Phase::Working(_) => "working",
            Phase::Closing(_) => "closing",
            Phase::Gone => "gone",
        };
        write!(f, "Life({}, {phase})", self.path)
    }
}

/// Looks whether a conversation has ended.
fn look<T>(talk: &mut Talk<T>) -> Option<T> {
    match talk.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Has the back end let go of the rings. True if the device is to be connected again.
async fn close(device: Rc<Device>) -> Result<bool, XenError> {
    for (ours, theirs) in [
        (State::Closing, &[State::Closing, State::Closed, State::InitWait, State::Unknown][..]),
        (State::Closed, &[State::Closed, State::InitWait, State::Unknown]),
    ] {
        if !device.is_there().await? {
            // The tools have taken the device away without waiting for us. The back end hears of it from them.
            device.wait_for(&[State::Closed, State::Unknown]).await?;
            return Ok(false);
        }
        device.set_state(ours).await?;
        device.wait_for(theirs).await?;
    }
    device.is_wanted().await
}
