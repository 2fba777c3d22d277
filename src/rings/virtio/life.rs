//! The life of a device, the same for every kind: reset, negotiation, work, faults, and the next life.
//!
//! A device that breaks the rules, asks for it, or has changed is reset. Until it confirms that, it may still use the memory that
//! it was given, so its driver keeps all of it: that is what [`State::Resetting`] stands for, and nobody is told of a `Down`
//! that would not be true.

use alloc::rc::Rc;

use super::features::{ACCESS_PLATFORM, ANY_LAYOUT, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use super::queue::{Publication, SplitQueue};
use super::transport::{Transport, status};
use super::{DeviceKind, VirtioError};
use crate::rings::link::{Link, LinkEvent};
use crate::stats::Stats;

/// How often a reset that is waited for is looked at. Hypervisors mostly confirm at once, hardware takes milliseconds.
const RESET_LOOKS: usize = 10_000;

/// How many rounds of the event loop in a row look for the confirmation of a reset, of which no interrupt tells. After that it is
/// looked for whenever something else happens.
const RESET_ROUNDS: u32 = 10_000;

/// How often the configuration is read again because it changed meanwhile.
const CONFIGURATION_READS: usize = 16;

/// Faults without good work in between after which a device is given up.
const MAX_FAULTS: u8 = 5;

/// Buffers that a device returns as it should until its faults are forgotten.
const GOOD_WORK: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// A reset was asked for and is not confirmed.
    Resetting,
    /// Reset; the driver has its memory back and may start the device again.
    Stopped,
    Gone,
}

/// A device's transport and state. `U` is what the device comes up with.
#[derive(Debug)]
pub(super) struct Life<T, U> {
    pub transport: T,
    kind: DeviceKind,
    link: Link<U>,
    state: State,
    faults: u8,
    /// Buffers returned since the last fault.
    work: u64,
    /// Rounds left that look for the confirmation of a reset.
    reset_rounds: u32,
    stats: Rc<Stats>,
}

impl<T: Transport, U: Copy> Life<T, U> {
    /// Takes over a device in whatever state, and resets it. `up` stands in until it is up, which it isn't yet.
    ///
    /// # Errors
    /// If it is of another kind or does not come back from the reset.
    pub fn new(mut transport: T, kind: DeviceKind, up: U, stats: Rc<Stats>) -> Result<Self, VirtioError> {
        let found = transport.device_id();
        if DeviceKind::of(found) != Some(kind) {
            return Err(VirtioError::WrongDevice { found });
        }
        let mut link = Link::new(up);
        link.down();
        let mut life =
            Self { transport, kind, link, state: State::Stopped, faults: 0, work: 0, reset_rounds: 0, stats };
        if life.reset() { Ok(life) } else { Err(VirtioError::StuckInReset) }
    }

    /// Resets the device. True if it has confirmed that.
    pub fn reset(&mut self) -> bool {
        self.transport.set_status(0);
        (0..RESET_LOOKS).any(|_| self.transport.status() == 0)
    }

    /// Agrees on features: those of `wanted` (and of the transport) that are offered and not `refused`, as far as `settle`, which
    /// may look at the configuration, keeps them.
    pub fn negotiate(
        &mut self,
        wanted: u64,
        refused: u64,
        settle: impl FnOnce(&mut T, u64) -> Result<u64, VirtioError>,
    ) -> Result<u64, VirtioError> {
        let legacy = self.transport.is_legacy();
        self.transport.set_status(status::ACKNOWLEDGE);
        self.transport.set_status(status::ACKNOWLEDGE | status::DRIVER);
        let offered = self.transport.device_features();
        let wanted = (wanted | INDIRECT_DESC | EVENT_IDX | ANY_LAYOUT) & !refused & !VERSION_1;
        let features = offered & if legacy { wanted } else { wanted & !ANY_LAYOUT | VERSION_1 };
        if !legacy && features & VERSION_1 == 0 {
            return Err(VirtioError::MissingFeature("VIRTIO_F_VERSION_1"));
        }
        let features = settle(&mut self.transport, features)?;
        debug_assert_eq!(features & !offered, 0);
        self.transport.set_driver_features(features);
        if !legacy {
            let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
            self.transport.set_status(agreed);
            if self.transport.status() & status::FEATURES_OK == 0 {
                let iommu = offered & ACCESS_PLATFORM != 0;
                return Err(if iommu { VirtioError::BehindIommu } else { VirtioError::FeaturesRefused });
            }
        }
        Ok(features)
    }

    /// Lets the device work. With `up` it is up, without it waits for [`Life::set_up`]. Only from now on does it tell of changes of
    /// its configuration, so what may change is looked at after this.
    pub fn start(&mut self, up: Option<U>) {
        let mut value = status::ACKNOWLEDGE | status::DRIVER | status::DRIVER_OK;
        if !self.transport.is_legacy() {
            value |= status::FEATURES_OK;
        }
        self.transport.set_status(value);
        // What has been acknowledged now belongs to the life before.
        self.transport.acknowledge();
        self.state = State::Running;
        if let Some(up) = up {
            self.set_up(up);
        }
    }

    /// The device is up.
    pub fn set_up(&mut self, up: U) {
        self.link.up(up);
    }

    /// Reads the configuration with `read` until it does not change meanwhile.
    pub fn configuration<V>(
        transport: &mut T,
        mut read: impl FnMut(&mut T) -> Result<V, VirtioError>,
    ) -> Result<V, VirtioError> {
        for _ in 0..CONFIGURATION_READS {
            let generation = transport.config_generation();
            let value = read(transport)?;
            if transport.config_generation() == generation {
                return Ok(value);
            }
        }
        Err(VirtioError::RestlessConfiguration)
    }

    /// True while the rings may be used.
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// True while frames or requests are taken.
    pub fn is_up(&self) -> bool {
        self.is_running() && self.link.is_up()
    }

    /// Shows the device what was added to a queue, and notifies it if it is not awake.
    pub fn publish(&mut self, queue: &mut SplitQueue) {
        match queue.publish() {
            Publication::Empty => {}
            Publication::Quiet => self.stats.notifications_spared.increment(),
            Publication::Notify => {
                self.transport.notify(queue.number());
                self.stats.notifications.increment();
            }
        }
    }

    /// Counts buffers that the device has returned.
    pub fn count_work(&mut self, buffers: usize) {
        self.work += buffers as u64;
    }

    /// The device can't be trusted any more, or says that it does not work.
    pub fn fault(&mut self, error: VirtioError) {
        if self.state != State::Running {
            return;
        }
        self.stats.device_faults.increment();
        if self.work >= GOOD_WORK {
            self.faults = 0;
        }
        self.faults += 1;
        self.work = 0;
        let kind = self.kind.name();
        warn!("{}: {}: the device is reset (fault {} of {} in a row)", kind, error, self.faults, MAX_FAULTS);
        self.stop();
    }

    /// Resets the device because it has changed, to start it anew.
    pub fn stop(&mut self) {
        if self.state == State::Running {
            self.state = State::Resetting;
            self.reset_rounds = RESET_ROUNDS;
            self.transport.set_status(0);
        }
    }

    /// True once when a reset is confirmed: the driver's memory is its own again, and must be taken back now.
    pub fn has_stopped(&mut self) -> bool {
        if self.state != State::Resetting || self.transport.status() != 0 {
            return false;
        }
        self.state = State::Stopped;
        self.link.down();
        if self.faults >= MAX_FAULTS {
            self.give_up(None);
        }
        true
    }

    /// True if the device is to be started again.
    pub fn wants_start(&self) -> bool {
        self.state == State::Stopped
    }

    /// The device could not be started again (`error`), or has had faults enough.
    pub fn give_up(&mut self, error: Option<VirtioError>) {
        let kind = self.kind.name();
        match error {
            Some(error) => error!("{}: {}: the device is given up", kind, error),
            None => error!("{}: {} faults in a row: the device is given up", kind, MAX_FAULTS),
        }
        self.state = State::Gone;
        self.link.gone();
    }

    /// The next change of state.
    pub fn event(&mut self) -> Option<LinkEvent<U>> {
        self.link.next()
    }

    /// Acknowledges interrupts and looks whether the device works. True if its configuration may have changed.
    pub fn look(&mut self) -> bool {
        if !self.is_running() || !self.transport.acknowledge() {
            return false;
        }
        if self.transport.status() & status::NEEDS_RESET != 0 {
            self.fault(VirtioError::NeedsReset);
            return false;
        }
        true
    }

    /// True if the next round has something to do here.
    pub fn is_due(&mut self) -> bool {
        if self.state != State::Resetting {
            return self.link.pending() || self.wants_start();
        }
        let waits = self.reset_rounds > 0;
        self.reset_rounds = self.reset_rounds.saturating_sub(1);
        waits || self.link.pending() || self.transport.status() == 0
    }
}
