//! Segments of every kind in every order: no panic, bounded memory, and nothing is left over.

use proptest::prelude::*;
use smoltcp::time::Duration;
use smoltcp::wire::TcpControl;

use super::devices::capabilities;
use super::world::{SEGMENT, Segment, World};
use crate::rings::Capabilities;
use crate::tcp_gso::Config;

#[derive(Clone, Debug)]
struct Blow {
    port: u16,
    control: u8,
    /// Relative to what would be right, or not.
    seq: (bool, i32),
    ack: Option<(bool, i32)>,
    window: u16,
    options: (Option<u8>, Option<u16>, bool, Option<i32>),
    sack: [Option<(i32, i32)>; 3],
    payload: usize,
    piece: usize,
    wait_us: u64,
    device: u8,
    action: u8,
}

fn near() -> impl Strategy<Value = (bool, i32)> {
    let offset = prop_oneof![
        30 => Just(0),
        5 => -3i32..=3,
        5 => -20_000i32..=0,
        2 => -3000i32..=70_000,
        1 => any::<i32>(),
    ];
    (prop::bool::weighted(0.98), offset)
}

fn blow() -> impl Strategy<Value = Blow> {
    let sack = prop::option::of((-100i32..20_000, -100i32..20_000));
    let wait_us =
        prop_oneof![6 => Just(0u64), 2 => 0u64..3000, 1 => 0u64..300_000, 1 => 0u64..3_000_000, 1 => 0u64..90_000_000];
    (
        (1u16..=4, prop_oneof![60 => Just(0u8), 1 => 1u8..=4], near(), prop::option::weighted(0.95, near())),
        (
            prop_oneof![1 => Just(0u16), 1 => Just(1), 1 => Just(1000), 9 => Just(0xffff), 1 => any::<u16>()],
            (
                prop::option::of(0u8..=14),
                prop::option::of(prop_oneof![Just(0u16), Just(1460), any::<u16>()]),
                any::<bool>(),
                prop::option::weighted(0.95, prop_oneof![9 => 0i32..3, 1 => any::<i32>()]),
            ),
            [sack.clone(), sack.clone(), sack],
        ),
        (prop_oneof![Just(0usize), 1usize..40, 0usize..3000], 200usize..2000, wait_us, 0u8..40, 0u8..40),
    )
        .prop_map(
            |((port, control, seq, ack), (window, options, sack), (payload, piece, wait_us, device, action))| Blow {
                port,
                control,
                seq,
                ack,
                window,
                options,
                sack,
                payload,
                piece,
                wait_us,
                device,
                action,
            },
        )
}

/// What the peer believes of a connection: its next number, the next that it expects, and its timestamp.
#[derive(Clone, Copy, Default)]
struct Believed {
    seq: u32,
    ack: u32,
    stamp: u32,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes(blows in prop::collection::vec(blow(), 1..150)) {
        let config = Config {
            max_connections: 3,
            syn_backlog: 2,
            time_wait_entries: 2,
            receive_buffers: 2,
            frames_per_poll: 3,
            ..Config::default()
        };
        let mut world = World::new(config, capabilities());
        let mut believed = [Believed::default(); 5];
        let stream = b"10\n3000\nnonsense\n70000\n0\nW\n12345\n200000\n".repeat(200);
        for port in 1u16..=3 {
            let timestamp = (port == 1).then_some((0, 0));
            let client = world.connect(Segment { port, seq: 0, mss: Some(1460), sack_permitted: port != 3, timestamp, ..SEGMENT });
            believed[port as usize] = Believed { seq: client.seq, ack: client.ack, stamp: 0 };
        }
        for blow in blows {
            world.now += Duration::from_micros(blow.wait_us);
            let at = &mut believed[blow.port as usize];
            let control = match blow.control {
                1 => TcpControl::Syn,
                2 => TcpControl::Fin,
                3 => TcpControl::Rst,
                4 => TcpControl::Psh,
                _ => TcpControl::None,
            };
            let number = |(relative, offset): (bool, i32), base: u32| if relative { base.wrapping_add(offset as u32) } else { offset as u32 };
            let seq = number(blow.seq, at.seq);
            let ack = blow.ack.filter(|_| control != TcpControl::Syn || blow.action == 9).map(|ack| number(ack, at.ack));
            let begin = at.seq as usize % stream.len() / 2;
            let is_syn = control == TcpControl::Syn;
            let payload = if is_syn { &[][..] } else { &stream[begin..begin + blow.payload.min(2500)] };
            let (window_scale, mss, sack_permitted, stamp) = blow.options;
            at.stamp = at.stamp.wrapping_add(stamp.unwrap_or(0) as u32);
            world.deliver_in_pieces(
                Segment {
                    port: blow.port,
                    control,
                    seq,
                    ack,
                    window: blow.window,
                    window_scale: window_scale.filter(|_| is_syn),
                    mss: mss.filter(|_| is_syn),
                    sack_permitted: sack_permitted && is_syn,
                    sack: blow.sack.map(|block| block.map(|(a, b)| (at.ack.wrapping_add(a as u32), at.ack.wrapping_add(b as u32)))),
                    timestamp: stamp.filter(|_| blow.port != 2 || is_syn).map(|_| (at.stamp, 0)),
                    payload,
                    ..SEGMENT
                },
                blow.piece,
            );
            if blow.seq.0 && blow.seq.1 == 0 {
                at.seq = at.seq.wrapping_add(payload.len() as u32 + u32::from(is_syn || control == TcpControl::Fin));
            }
            match blow.device {
                0 => world.stack.device_down(),
                1 => {
                    world.queue.capabilities = Capabilities { tso4: blow.piece % 2 == 0, max_slots: 1 + blow.piece % 18, checksum: blow.piece % 3 > 0, ..capabilities() };
                    world.queue.capabilities.tso4 &= world.queue.capabilities.checksum;
                    world.queue.capabilities.tso6 = world.queue.capabilities.tso4;
                    world.stack.device_up(world.queue.capabilities);
                }
                2 => world.queue.room = 0,
                3 => world.queue.room = 2,
                _ => world.queue.room = usize::MAX,
            }
            match blow.action {
                0 => world.stack.set_pressure(Some(blow.payload)),
                1 => world.stack.set_pressure(None),
                2 => drop(world.stack.reset_slowest(world.now, &mut world.app)),
                3..7 => {
                    let ids: alloc::vec::Vec<_> = world.stack.connections().map(|info| info.id).collect();
                    for id in ids {
                        world.stack.session_mut(id).unwrap().woken = true;
                        world.stack.wake(id);
                    }
                }
                _ => {}
            }
            for sent in world.poll() {
                if blow.action >= 20 {
                    // Lost.
                    continue;
                }
                let end = sent.end().wrapping_add(u32::from(sent.control != TcpControl::None));
                believed[sent.port as usize].ack = end;
            }
            prop_assert!(world.stack.connections().count() <= 3);
            for info in world.stack.connections() {
                prop_assert!(info.in_flight_bytes <= info.unacknowledged_bytes + 1);
                prop_assert!(info.unread_bytes <= 16_384);
            }
            prop_assert!(world.stats.time_wait.get() <= 2);
        }
        // Left alone, everything ends.
        world.queue.room = usize::MAX;
        world.queue.capabilities = capabilities();
        world.stack.device_up(capabilities());
        world.run(Duration::from_secs(2));
        world.stack.shutdown(&mut world.app);
        world.run(Duration::from_secs(1));
        prop_assert_eq!(world.stack.connections().count(), 0);
        prop_assert_eq!((world.heads.in_use(), world.app.pool.shared()), (0, 0));
        prop_assert_eq!(world.stack.buffers_available(), 2);
        prop_assert_eq!(world.stack.next_deadline(), None);
        prop_assert_eq!(world.app.closed.len(), world.app.accepted.len());
    }
}
