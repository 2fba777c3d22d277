//! How connections end, packet by packet.

use alloc::vec::Vec;
use smoltcp::time::Duration;
use smoltcp::wire::TcpControl;

use super::devices::capabilities;
use super::world::{SEGMENT, Segment, World, ms, response};
use crate::tcp_gso::{CloseReason, Config};

#[test]
fn a_peer_that_ends_first_still_gets_its_answer() {
    let (mut world, mut client) = World::connected();
    world.deliver(client.data(b"100000\n"));
    world.deliver(client.fin());
    let bytes = client.drain(&mut world);
    assert!(bytes == response(0, 100_000));
    assert_eq!(world.app.closed, [CloseReason::Finished]);
    assert_eq!(world.stats.time_wait.get(), 0, "the peer was first, so it waits");
    world.assert_clean();
}

#[test]
fn our_end_first_leads_to_time_wait_which_answers_and_expires() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"10\nQ\n"));
    assert_eq!(sent.last().unwrap().control, TcpControl::Fin);
    assert_eq!(client.take(&sent), response(0, 10));
    world.exchange(client.segment());
    assert_eq!(world.info().state, "FIN-WAIT-2");
    // The peer's direction is still open, and what comes is taken.
    world.exchange(client.data(b"more"));
    let fin = client.fin();
    let sent = world.exchange(fin);
    assert_eq!((sent.len(), sent[0].ack, sent[0].seq), (1, Some(client.seq), client.ack));
    assert_eq!((world.app.closed.clone(), world.stats.time_wait.get()), (alloc::vec![CloseReason::Finished], 1));
    world.assert_clean();
    world.run(Duration::from_secs(50));
    let again = world.exchange(fin);
    assert_eq!((again.len(), again[0].ack), (1, Some(client.seq)), "our acknowledgement was lost");
    assert!(world.exchange(Segment { control: TcpControl::Rst, ..client.segment() }).is_empty());
    world.run(Duration::from_secs(50));
    assert_eq!(world.stats.time_wait.get(), 1, "the wait began anew, and a reset did not end it");
    world.run(Duration::from_secs(11));
    assert_eq!((world.stats.time_wait.get(), world.stack.next_deadline()), (0, None));
    assert!(world.exchange(client.segment())[0].is(TcpControl::Rst));
}

fn in_time_wait(timestamp: Option<(u32, u32)>) -> (World, super::world::Client) {
    let mut world = World::plain();
    let mut client = world.connect(Segment { seq: 1000, mss: Some(1460), timestamp, ..SEGMENT });
    let sent = world.exchange(client.data(b"Q\n"));
    client.take(&sent);
    world.exchange(client.segment());
    world.exchange(client.fin());
    assert_eq!(world.stats.time_wait.get(), 1);
    (world, client)
}

#[test]
fn time_wait_is_reused_by_a_newer_syn_only() {
    let (mut world, client) = in_time_wait(None);
    let old = world.exchange(Segment { control: TcpControl::Syn, ack: None, seq: client.seq - 1, ..client.template });
    assert_eq!((old.len(), old[0].control, old[0].ack), (1, TcpControl::None, Some(client.seq)));
    let new = world.exchange(Segment { control: TcpControl::Syn, ack: None, seq: client.seq + 1, ..client.template });
    assert_eq!((new[0].control, new[0].ack), (TcpControl::Syn, Some(client.seq + 2)));
    assert!(new[0].seq.wrapping_sub(client.ack) as i32 > 0, "beyond everything of before");
    assert_eq!(world.stats.time_wait.get(), 0);

    let (mut world, client) = in_time_wait(Some((500, 0)));
    let syn = Segment { control: TcpControl::Syn, ack: None, seq: 3, ..client.template };
    let old = world.exchange(Segment { timestamp: Some((499, 0)), ..syn });
    assert_eq!((old.len(), old[0].control), (1, TcpControl::None));
    let new = world.exchange(Segment { timestamp: Some((501, 0)), ..syn });
    assert_eq!((new[0].control, new[0].ack), (TcpControl::Syn, Some(4)));
}

#[test]
fn time_wait_is_bounded() {
    let mut world = World::new(Config { time_wait_entries: 2, ..Config::default() }, capabilities());
    for port in 1..=5 {
        let mut client = world.connect(Segment { port, ..SEGMENT });
        let sent = world.exchange(client.data(b"Q\n"));
        client.take(&sent);
        world.exchange(client.segment());
        world.exchange(client.fin());
    }
    assert_eq!(world.stats.time_wait.get(), 2);
}

#[test]
fn ends_that_cross_each_other_lead_to_time_wait() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"Q\n"));
    assert!(sent[0].is(TcpControl::Fin));
    // The peer's FIN does not acknowledge ours.
    let sent_fin = world.exchange(client.fin());
    assert_eq!((world.info().state, sent_fin[0].ack), ("CLOSING", Some(client.seq)));
    client.take(&sent);
    world.exchange(client.segment());
    assert_eq!((world.app.closed.clone(), world.stats.time_wait.get()), (alloc::vec![CloseReason::Finished], 1));
    world.assert_clean();
}

#[test]
fn a_peer_that_never_ends_is_given_up() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"Q\n"));
    client.take(&sent);
    world.exchange(client.segment());
    let sent = world.run(Duration::from_secs(61));
    assert_eq!((sent[0].0, sent[0].1.control), (60_000, TcpControl::Rst));
    assert_eq!(world.app.closed, [CloseReason::TimedOut]);
    world.assert_clean();
}

#[test]
fn our_fin_is_repeated_until_it_is_acknowledged() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"Q\n"));
    let again = world.run(Duration::from_secs(2));
    assert!(again.len() >= 2 && again.iter().all(|(_, s)| s.is(TcpControl::Fin) && s.seq == sent[0].seq), "{again:?}");
    client.take(&sent);
    world.exchange(client.segment());
    assert_eq!(world.info().state, "FIN-WAIT-2");
}

#[test]
fn an_application_resets() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"R\n"));
    assert_eq!((sent.len(), sent[0].control, sent[0].seq), (1, TcpControl::Rst, client.ack));
    assert_eq!(world.app.closed, [CloseReason::ResetByApplication]);
    assert_eq!(world.stats.tcp_resets_sent.get(), 1);
    world.assert_clean();
}

#[test]
fn a_reader_that_stalls_is_reset_and_a_probe_answered_does_not_save_it() {
    for window in [0, 0xffff] {
        let (mut world, mut client) = World::connected();
        client.template.window = window;
        world.deliver(client.data(b"100000\n"));
        let mut reset_at = None;
        for second in 0..200 {
            for (_, sent) in world.run(Duration::from_secs(1)) {
                if sent.is(TcpControl::Rst) {
                    reset_at = Some(second);
                }
            }
            if window == 0 && reset_at.is_none() {
                world.exchange(client.segment());
            }
        }
        assert!(reset_at.is_some_and(|at| (119..=121).contains(&at)), "{reset_at:?}");
        assert_eq!(world.app.closed, [CloseReason::TimedOut]);
        assert_eq!(world.stats.connections_reset_stalled.get(), 1);
        world.assert_clean();
    }
}

#[test]
fn the_slowest_reader_goes_first() {
    let mut world = World::plain();
    let mut clients: Vec<_> = (1..=3).map(|port| world.connect(Segment { port, mss: Some(1460), ..SEGMENT })).collect();
    for client in &mut clients {
        world.now += ms(10);
        world.deliver(client.data(b"100000\n"));
        world.poll();
    }
    // The first makes progress.
    clients[0].ack = clients[0].ack.wrapping_add(1460);
    world.now += ms(10);
    world.exchange(clients[0].segment());
    let mut gone = Vec::new();
    while world.stack.reset_slowest(world.now, &mut world.app) {
        gone.push(world.poll().iter().find(|sent| sent.is(TcpControl::Rst)).is_some());
    }
    assert_eq!((gone, world.stats.connections_reset_slowest.get()), (alloc::vec![true; 3], 3));
    assert_eq!(world.app.closed, [CloseReason::Evicted; 3]);
    world.assert_clean();
}

#[test]
fn shutdown_resets_everybody() {
    let (mut world, mut client) = World::connected();
    world.exchange(client.data(b"100000\n"));
    world.exchange(Segment { port: 9, control: TcpControl::Syn, ..SEGMENT });
    world.stack.shutdown(&mut world.app);
    let sent = world.poll();
    assert_eq!((sent.len(), sent[0].control), (1, TcpControl::Rst));
    assert_eq!((world.app.closed.clone(), world.stack.next_deadline()), (alloc::vec![CloseReason::Shutdown], None));
    world.assert_clean();
}
