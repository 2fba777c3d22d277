//! Event channels between the guest and the others.
//!
//! An event that comes while its channel is pending is no new one, in both directions.

use alloc::vec::Vec;

use super::super::hypervisor::{DomainId, EventPort, HypercallError};

/// `EINVAL`.
const EINVAL: u32 = 22;
/// `ENOSPC`.
const ENOSPC: u32 = 28;

/// The store's and the console's, which the tools make.
pub(super) const STORE_PORT: EventPort = EventPort(1);
const CONSOLE_PORT: EventPort = EventPort(2);
/// Channels unless the test says otherwise (two-level ABI).
const MAX_CHANNELS: usize = 4096;

struct Channel {
    /// Which of the channels that ever had its number it is.
    serial: u64,
    remote: DomainId,
    bound: bool,
    /// Raised, and not acknowledged by the guest.
    pending: bool,
    /// Raised for the other side, which has not looked.
    notified: bool,
}

/// The other side's end of a channel. The guest may have closed its own meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    port: EventPort,
    serial: u64,
}

/// All channels of the guest.
pub(super) struct Events {
    /// By port; 0 is none.
    channels: Vec<Option<Channel>>,
    serial: u64,
    /// An event became pending since the last look: the guest's interrupt.
    woken: bool,
    max_channels: usize,
}

impl Events {
    /// Those that a guest has from the start.
    pub fn new() -> Self {
        let mut events = Self { channels: Vec::new(), serial: 0, woken: false, max_channels: MAX_CHANNELS };
        events.channels.push(None);
        for port in [STORE_PORT, CONSOLE_PORT] {
            assert_eq!(events.alloc_unbound(0), Ok(port));
        }
        events
    }

    /// How many channels the guest may have from now on.
    pub fn set_limit(&mut self, channels: usize) {
        self.max_channels = channels;
    }

    pub fn alloc_unbound(&mut self, remote: DomainId) -> Result<EventPort, HypercallError> {
        if self.channels.iter().flatten().count() >= self.max_channels {
            return Err(HypercallError(ENOSPC));
        }
        let free = (1..self.channels.len()).find(|port| self.channels[*port].is_none());
        let port = free.unwrap_or_else(|| {
            self.channels.push(None);
            self.channels.len() - 1
        });
        self.serial += 1;
        let channel = Channel { serial: self.serial, remote, bound: false, pending: false, notified: false };
        self.channels[port] = Some(channel);
        Ok(EventPort(port as u32))
    }

    fn channel(&mut self, port: EventPort) -> Option<&mut Channel> {
        self.channels.get_mut(port.0 as usize)?.as_mut()
    }

    pub fn close(&mut self, port: EventPort) {
        assert!(port != STORE_PORT && port != CONSOLE_PORT, "the guest closes port {port}, which is the tools'");
        if let Some(channel) = self.channels.get_mut(port.0 as usize) {
            *channel = None;
        }
    }

    pub fn notify(&mut self, port: EventPort) {
        if let Some(channel) = self.channel(port) {
            channel.notified |= channel.bound;
        }
    }

    pub fn acknowledge(&mut self, port: EventPort) {
        if let Some(channel) = self.channel(port) {
            channel.pending = false;
        }
    }

    /// The other side takes its end (`EVTCHNOP_bind_interdomain`), which raises the first event for it.
    pub fn bind(&mut self, port: EventPort, domain: DomainId) -> Result<Bound, HypercallError> {
        let channel = self.channel(port).filter(|channel| channel.remote == domain && !channel.bound);
        let channel = channel.ok_or(HypercallError(EINVAL))?;
        channel.bound = true;
        channel.notified = true;
        Ok(Bound { port, serial: channel.serial })
    }

    fn bound(&mut self, bound: Bound) -> Option<&mut Channel> {
        self.channel(bound.port).filter(|channel| channel.serial == bound.serial)
    }

    /// The other side gives its end up: the guest's is unbound again.
    pub fn unbind(&mut self, bound: Bound) {
        if let Some(channel) = self.bound(bound) {
            channel.bound = false;
            channel.notified = false;
        }
    }

    /// The other side raises an event for the guest.
    pub fn raise(&mut self, bound: Bound) {
        let raised = self.bound(bound).is_some_and(|channel| !core::mem::replace(&mut channel.pending, true));
        self.woken |= raised;
    }

    /// Whether [`Events::take_notified`] would say so.
    pub fn is_notified(&self, bound: Bound) -> bool {
        let channel = self.channels.get(bound.port.0 as usize).and_then(Option::as_ref);
        channel.is_some_and(|channel| channel.serial == bound.serial && channel.notified)
    }

    /// Whether the guest has raised an event for the other side since the last call.
    pub fn take_notified(&mut self, bound: Bound) -> bool {
        self.bound(bound).is_some_and(|channel| core::mem::take(&mut channel.notified))
    }

    /// Whether an event has become pending for the guest since the last call.
    pub fn take_woken(&mut self) -> bool {
        core::mem::take(&mut self.woken)
    }

    /// Channels that the guest has allocated itself.
    pub fn allocated(&self) -> usize {
        self.channels.iter().flatten().count() - 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_on_a_pending_channel_is_lost() {
        let mut events = Events::new();
        let port = events.alloc_unbound(3).unwrap();
        assert_eq!(
            (events.bind(port, 4), events.bind(EventPort(9), 3)),
            (Err(HypercallError(22)), Err(HypercallError(22)))
        );
        events.notify(port);
        let bound = events.bind(port, 3).unwrap();
        assert!(events.bind(port, 3).is_err(), "once");
        assert!(events.take_notified(bound), "binding raises an event");
        assert!(!events.take_notified(bound));
        events.notify(port);
        events.notify(port);
        assert!(events.take_notified(bound) && !events.take_notified(bound));
        events.raise(bound);
        assert!(events.take_woken());
        events.raise(bound);
        assert!(!events.take_woken(), "it was pending");
        events.acknowledge(port);
        assert!(!events.take_woken());
        events.raise(bound);
        assert!(events.take_woken());
    }

    #[test]
    fn a_closed_channel_hears_nothing_even_when_its_number_is_used_again() {
        let mut events = Events::new();
        let port = events.alloc_unbound(3).unwrap();
        let old = events.bind(port, 3).unwrap();
        events.close(port);
        events.raise(old);
        let again = events.alloc_unbound(3).unwrap();
        assert_eq!(again, port);
        events.raise(old);
        events.notify(again);
        assert!(!events.take_woken() && !events.take_notified(old));
        events.unbind(old);
        let new = events.bind(again, 3).unwrap();
        events.raise(new);
        assert!(events.take_woken());
        events.set_limit(3);
        assert_eq!((events.alloc_unbound(3), events.allocated()), (Err(HypercallError(28)), 1));
    }
}
