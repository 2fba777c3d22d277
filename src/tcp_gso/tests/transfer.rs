//! Whole transfers to smoltcp's TCP, an implementation that is not ours, over links of all kinds.

use smoltcp::time::Duration;

use super::devices::capabilities;
use super::link::{Sim, Trouble};
use super::world::{HEAD_BYTES, SEGMENT, Segment, World, body_byte};
use crate::rings::Capabilities;
use crate::tcp_gso::Config;

const CLEAN: Trouble = Trouble { lost: 0, doubled: 0, delayed: 0, damaged: 0 };
const BAD: Trouble = Trouble { lost: 20, doubled: 10, delayed: 30, damaged: 10 };

fn run(capabilities: Capabilities, trouble: Trouble, delay: Duration, is_ipv6: bool, seed: u64) -> Sim {
    let world = World::new(Config::default(), capabilities);
    let mut sim = Sim::new(world, trouble, delay, is_ipv6, seed);
    sim.fetch(&[100_000, 0, 1, 700, 300_000], 60_000);
    sim.fetch(&[5, 70_000], 3000);
    sim.fetch(&[200_000; 3], 1 << 20);
    sim.run(Duration::from_secs(600));
    let heads = &sim.world.heads;
    assert_eq!((heads.in_use(), sim.world.app.pool.shared()), (0, 0), "pages are held");
    assert_eq!(sim.world.stack.buffers_available(), Config::default().receive_buffers);
    sim
}

#[test]
fn a_clean_link_needs_nothing_twice() {
    for is_ipv6 in [false, true] {
        for delay_ms in [0, 1, 50] {
            let sim = run(capabilities(), CLEAN, Duration::from_millis(delay_ms), is_ipv6, 1);
            let stats = &sim.world.stats;
            assert_eq!((stats.tcp_retransmitted_bytes.get(), stats.tcp_timeouts.get()), (0, 0));
            assert_eq!(stats.copied_bytes.get(), 0);
        }
    }
}

#[test]
fn every_set_of_offloads_serves() {
    let all = capabilities();
    for capabilities in [
        Capabilities { tso4: false, tso6: false, ..all },
        Capabilities { tso4: false, tso6: false, checksum: false, ..all },
        Capabilities { max_slots: 1, ..all },
        Capabilities { max_slots: 2, ..all },
        Capabilities { tso4: false, tso6: false, checksum: false, max_slots: 1, ..all },
    ] {
        for is_ipv6 in [false, true] {
            run(capabilities, CLEAN, Duration::from_millis(1), is_ipv6, 1);
        }
    }
}

#[test]
fn a_bad_link_only_takes_longer() {
    for seed in 0..30 {
        let delay = Duration::from_micros(seed * seed * 100);
        let capabilities = Capabilities { tso4: seed % 3 > 0, tso6: seed % 3 > 0, ..capabilities() };
        let sim = run(capabilities, BAD, delay, seed % 2 == 1, seed);
        let stats = &sim.world.stats;
        assert!(sim.damaged > 0 && stats.tcp_retransmitted_bytes.get() > 0, "seed {seed}: the link was too good");
        assert_eq!(stats.copied_bytes.get(), 0, "seed {seed}");
    }
}

#[test]
fn a_terrible_link_still_delivers() {
    let terrible = Trouble { lost: 150, doubled: 50, delayed: 200, damaged: 20 };
    for seed in 100..104 {
        let world = World::new(Config::default(), capabilities());
        let mut sim = Sim::new(world, terrible, Duration::from_millis(5), seed % 2 == 0, seed);
        sim.fetch(&[50_000, 0, 20_000], 60_000);
        sim.run(Duration::from_secs(3000));
    }
}

#[test]
fn sequence_numbers_wrap_on_the_way() {
    // The initial number follows the clock at a tick of 4 µs: begin when it is about to wrap.
    for before in [1u32, 1000, 100_000, 250_000] {
        let mut world = World::plain();
        let reply = world.exchange(Segment { control: smoltcp::wire::TcpControl::Syn, port: 10_000, ..SEGMENT });
        let ticks = reply[0].seq.wrapping_neg().wrapping_sub(before);
        world.exchange(Segment { control: smoltcp::wire::TcpControl::Rst, seq: 1, port: 10_000, ..SEGMENT });
        world.now += Duration::from_micros(4 * u64::from(ticks));
        let mut sim = Sim::new(world, BAD, Duration::from_millis(1), false, before.into());
        sim.fetch(&[400_000, 1, 70_000], 60_000);
        sim.run(Duration::from_secs(600));
        assert!(sim.world.stats.tcp_retransmitted_bytes.get() > 0);
    }
}

#[test]
fn one_connection_carries_more_than_its_sequence_space() {
    let total = (1usize << 32) + 100_000_000;
    let mut world = World::plain();
    let syn = Segment { seq: 5, mss: Some(1460), window_scale: Some(8), ..SEGMENT };
    let mut client = world.connect(syn);
    world.deliver(client.data(alloc::format!("{total}\n").as_bytes()));
    let mut got = 0;
    while got < HEAD_BYTES + total {
        while world.stack.poll(world.now, &mut world.app, &mut world.queue) {}
        assert!(!world.queue.frames.is_empty(), "nothing comes behind {got}");
        for frame in world.queue.frames.drain(..) {
            let seq = u32::from_be_bytes(frame.head[38..42].try_into().unwrap());
            assert_eq!(seq, client.ack);
            let mut bytes = frame.head.len() - 54;
            for slice in &frame.slices {
                assert_eq!(slice.bytes()[0], body_byte(got + bytes - HEAD_BYTES));
                bytes += slice.len();
            }
            got += bytes;
            client.ack = client.ack.wrapping_add(bytes as u32);
        }
        world.deliver(client.segment());
    }
    assert_eq!(got, HEAD_BYTES + total);
    assert_eq!(world.info().acknowledged_bytes, got as u64);
    assert_eq!(world.stats.tcp_retransmitted_bytes.get(), 0);
}
