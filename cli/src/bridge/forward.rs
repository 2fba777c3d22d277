//! Frames from one device to another.

use minicache::rings::wire::{self, Malformed};
use minicache::rings::{Capabilities, Family, NetQueue, Offload, PageSlice, RxFrame, TxFrame};

/// Bytes of an Ethernet header, which an MTU does not count.
const ETHERNET_BYTES: usize = 14;

/// Frames that one direction has not carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Frames that the other device had no room for.
    pub refused: u64,
    /// Frames longer than it can send.
    pub too_long: u64,
    /// Super-frames that could not be taken apart.
    pub malformed: u64,
}

/// One direction of a bridge.
#[derive(Default)]
pub struct Forward {
    /// What has not been carried.
    pub failures: Failures,
    /// A frame in one piece, to be cut.
    buffer: Vec<u8>,
}

impl Forward {
    /// Hands up to `budget` frames that `from` has received to `to`, super-frames whole where `to` takes them. Returns how many
    /// there were.
    pub fn run(&mut self, from: &mut impl NetQueue, to: &mut impl NetQueue, budget: usize) -> usize {
        let capabilities = to.capabilities();
        from.receive(budget, &mut |frame| self.carry(frame, to, &capabilities))
    }

    fn carry(&mut self, frame: &RxFrame, to: &mut impl NetQueue, capabilities: &Capabilities) {
        let Some((first, rest)) = frame.slices.split_first() else { return };
        let offload = wire::offload_of(frame);
        let has_head = first.len() <= capabilities.head_bytes;
        if has_head && takes(capabilities, offload, frame, first.len()) {
            return self.send(to, capabilities, &TxFrame { head: first.bytes(), slices: rest, offload });
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        wire::gather(frame.slices.iter().map(PageSlice::bytes), &mut buffer);
        let cut = wire::wire_frames(&mut buffer, offload, &mut |segment| {
            self.send(to, capabilities, &TxFrame { head: segment, slices: &[], offload: Offload::None });
        });
        self.failures.malformed += u64::from(cut == Err(Malformed));
        self.buffer = buffer;
    }

    fn send(&mut self, to: &mut impl NetQueue, capabilities: &Capabilities, frame: &TxFrame<'_>) {
        let single = ETHERNET_BYTES + usize::from(capabilities.mtu_bytes);
        let segmented = matches!(frame.offload, Offload::Segment { .. });
        let too_long = !segmented && frame.len() > single || frame.head.len() > capabilities.head_bytes;
        if too_long {
            self.failures.too_long += 1;
        } else if to.transmit(frame).is_err() {
            self.failures.refused += 1;
        }
    }
}

/// Whether a device takes a received frame with what is left to do on it, if its first `head_bytes` bytes become the head.
fn takes(capabilities: &Capabilities, offload: Offload, frame: &RxFrame, head_bytes: usize) -> bool {
    let (checksum, offered, longest) = match offload {
        Offload::None => return frame.slices.len() <= capabilities.max_slots,
        Offload::Checksum(checksum) => (checksum, capabilities.checksum, usize::MAX),
        // Nobody has left the checksum in a state that could be completed.
        Offload::Segment { checksum, .. } if checksum.start == 0 => return false,
        Offload::Segment { checksum, family: Family::Ipv4, .. } => {
            (checksum, capabilities.tso4, capabilities.max_frame_bytes)
        }
        Offload::Segment { checksum, family: Family::Ipv6, .. } => {
            (checksum, capabilities.tso6, capabilities.max_frame_bytes.min(usize::from(u16::MAX)))
        }
    };
    let field_end = usize::from(checksum.start) + usize::from(checksum.offset) + 2;
    offered && field_end <= head_bytes && frame.len() <= longest && frame.slices.len() <= capabilities.max_slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use minicache::rings::memory::{MemoryBackend, MemoryNet, MemoryNetConfig, memory_net};
    use minicache::rings::{PagePool, PartialChecksum, RxChecksum, RxGso};
    use minicache::stats::Stats;
    use std::rc::Rc;

    const PARTIAL: PartialChecksum = PartialChecksum { start: 34, offset: 16 };
    const GSO: RxGso = RxGso { family: Family::Ipv4, mss_bytes: 1000 };

    fn device(config: MemoryNetConfig) -> (MemoryNet, MemoryBackend) {
        let (mut net, backend) = memory_net(config, PagePool::new(256), Rc::new(Stats::default()));
        net.event();
        (net, backend)
    }

    /// The headers of a TCP/IPv4 frame and 2,500 bytes.
    fn super_frame() -> Vec<u8> {
        let mut frame = vec![7; 54 + 2500];
        frame[..54].fill(0);
        frame[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
        frame[16..18].copy_from_slice(&2540u16.to_be_bytes());
        frame[23] = 6;
        frame[46] = 0x50;
        frame
    }

    /// What a device of this kind is given of a received frame.
    fn carried(
        config: MemoryNetConfig,
        frame: &[u8],
        checksum: RxChecksum,
        gso: Option<RxGso>,
    ) -> (Vec<(Vec<u8>, Offload)>, Failures) {
        let (mut from, mut from_backend) = device(MemoryNetConfig::default());
        let (mut to, mut to_backend) = device(config);
        from_backend.deliver(&[frame], checksum, gso).unwrap();
        let mut forward = Forward::default();
        assert_eq!(forward.run(&mut from, &mut to, 64), 1);
        to.flush();
        let taken = std::iter::from_fn(|| to_backend.take());
        let frames = taken.map(|frame| (frame.parts().collect::<Vec<_>>().concat(), frame.offload())).collect();
        (frames, forward.failures)
    }

    fn config(change: impl FnOnce(&mut Capabilities)) -> MemoryNetConfig {
        let mut config = MemoryNetConfig::default();
        config.capabilities.head_bytes = 9014;
        change(&mut config.capabilities);
        config
    }

    #[test]
    fn super_frames_go_whole_to_a_device_that_takes_them() {
        let whole = super_frame();
        let (frames, failures) = carried(config(|_| ()), &whole, RxChecksum::Partial(PARTIAL), Some(GSO));
        let offload = Offload::Segment { checksum: PARTIAL, family: Family::Ipv4, mss_bytes: 1000 };
        assert_eq!(frames, [(whole.clone(), offload)]);
        assert_eq!(failures, Failures::default());
    }

    #[test]
    fn and_in_segments_to_one_that_does_not() {
        let whole = super_frame();
        let partial = RxChecksum::Partial(PARTIAL);
        let other = [
            (config(|it| it.tso4 = false), partial),
            (config(|_| ()), RxChecksum::Verified),
            (config(|it| it.max_frame_bytes = 2000), partial),
            (config(|it| it.head_bytes = 1514), partial),
        ];
        for (config, checksum) in other {
            let (frames, failures) = carried(config, &whole, checksum, Some(GSO));
            let lengths: Vec<usize> = frames.iter().map(|(frame, _)| frame.len()).collect();
            assert_eq!(lengths, [1054, 1054, 554]);
            assert!(frames.iter().all(|(_, offload)| *offload == Offload::None));
            assert_eq!(failures, Failures::default());
        }
    }

    #[test]
    fn what_can_not_be_carried_is_counted() {
        let whole = super_frame();
        let (frames, failures) = carried(config(|_| ()), &whole, RxChecksum::Unknown, None);
        assert_eq!((frames.len(), failures.too_long), (0, 1));
        let (frames, failures) = carried(config(|_| ()), &whole[..40], RxChecksum::Unknown, Some(GSO));
        assert_eq!((frames.len(), failures.malformed), (0, 1));
        let narrow = MemoryNetConfig { ring_entries: 20, ..config(|it| it.tso4 = false) };
        let gso = Some(RxGso { mss_bytes: 100, ..GSO });
        let (frames, failures) = carried(narrow, &whole, RxChecksum::Partial(PARTIAL), gso);
        assert_eq!((frames.len(), failures.refused), (20, 5));
    }
}
