//! Accidents with fixed seeds: they happen as often as asked, in bounds, and again with the same seed.

use super::*;

const MTU_FRAME: usize = 1250;

/// A frame with its number in it twice, so that a flipped bit makes it no other frame.
fn frame(number: u32, length: usize) -> Vec<u8> {
    let mut frame = alloc::vec![0; length];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame[18..22].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

/// What has arrived by `now`.
fn arrived(link: &mut Link, now: Instant) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    link.deliver(now, &mut |frame, _| {
        frames.push(frame.to_vec());
        true
    });
    frames
}

/// Everything wrong with this probability.
fn all_kinds(probability: f64) -> Impairment {
    let [loss, reorder, duplicate, corrupt] = [probability; 4];
    Impairment { loss, reorder, duplicate, corrupt, delay: Duration::from_millis(1), ..Impairment::NONE }
}

const LATER: Instant = Instant::from_micros_const(3_600_000_000);

#[test]
fn a_bottleneck_and_a_delay_keep_order_bytes_and_time() {
    let impairment = Impairment {
        delay: Duration::from_micros(100),
        rate_bits_per_s: Some(1_000_000_000),
        queue_bytes: Some(4 << 20),
        ..Impairment::NONE
    };
    let mut link = Link::new(impairment, 1);
    (0..100).for_each(|i| link.send(Instant::ZERO, &frame(i, MTU_FRAME)));
    for i in 0..100 {
        // 1250 bytes take 10 µs at 1 Gbit/s, and every bit travels 100 µs.
        let arrival = Instant::from_micros(100 + 10 * (i64::from(i) + 1));
        assert_eq!(link.next_deadline(), Some(arrival));
        assert!(arrived(&mut link, arrival - Duration::from_micros(1)).is_empty());
        assert_eq!(arrived(&mut link, arrival), [frame(i, MTU_FRAME)]);
    }
    assert_eq!((link.next_deadline(), link.held(), link.held_bytes), (None, 0, 0));
}

#[test]
fn fractions_of_a_microsecond_add_up() {
    let mut link = Link::new(Impairment { rate_bits_per_s: Some(40_000_000_000), ..Impairment::NONE }, 1);
    // 250 ns each.
    (0..4000).for_each(|i| link.send(Instant::ZERO, &frame(i, MTU_FRAME)));
    assert_eq!(arrived(&mut link, Instant::from_micros(999)).len(), 3996);
    assert_eq!(arrived(&mut link, Instant::from_micros(1000)).len(), 4);
}

#[test]
fn a_full_queue_loses_what_comes_behind() {
    let impairment = Impairment { rate_bits_per_s: Some(1_000_000_000), queue_bytes: Some(10_000), ..Impairment::NONE };
    let mut link = Link::new(impairment, 1);
    (0..20).for_each(|i| link.send(Instant::ZERO, &frame(i, MTU_FRAME)));
    // Eight wait and fill it, one is on the wire.
    assert_eq!(link.counts().tail_dropped, 11);
    link.send(Instant::from_micros(90), &frame(20, MTU_FRAME));
    assert_eq!(link.counts().tail_dropped, 11, "the queue has drained");
}

#[test]
fn what_is_on_its_way_is_bounded() {
    let mut link = Link::new(Impairment { delay: Duration::from_secs(1), ..Impairment::NONE }, 1);
    let bytes = frame(1, 64_000);
    (0..2000).for_each(|_| link.send(Instant::ZERO, &bytes));
    assert_eq!(link.held() as u64, MAX_HELD_BYTES / (64_000 + HELD_OVERHEAD_BYTES));
    assert_eq!(link.counts().tail_dropped, 2000 - link.held() as u64);
    link.clear();
    assert_eq!((link.held(), link.held_bytes, link.counts().cleared), (0, 0, 1047));
    link.send(Instant::ZERO, &bytes);
    assert_eq!(link.held(), 1);
}

#[test]
fn every_kind_of_accident_happens_as_often_as_asked() {
    const FRAMES: u32 = 100_000;
    let mut link = Link::new(all_kinds(0.01), 7);
    let mut came = Vec::new();
    for i in 0..FRAMES {
        let now = Instant::from_micros(i64::from(i) * 2);
        link.send(now, &frame(i, 100));
        came.extend(arrived(&mut link, now));
    }
    came.extend(arrived(&mut link, LATER));
    let counts = link.counts();
    for count in [counts.lost, counts.duplicated, counts.corrupted, counts.reordered] {
        assert!((900..1100).contains(&count), "{counts:?}");
    }
    assert_eq!(counts.delivered, u64::from(FRAMES) - counts.lost + counts.duplicated);
    assert_eq!((came.len() as u64, counts.sent), (counts.delivered, u64::from(FRAMES)));
    let intact = came.iter().filter(|it| **it == frame(number(it), 100));
    assert_eq!(intact.count() as u64, counts.delivered - counts.corrupted);
    assert!(came.windows(2).filter(|pair| number(&pair[0]) > number(&pair[1])).count() > 500);
}

#[test]
fn jitter_varies_the_delay_in_bounds_and_keeps_the_order() {
    let (delay, jitter) = (Duration::from_millis(20), Duration::from_millis(5));
    let mut link = Link::new(Impairment { delay, jitter, ..Impairment::NONE }, 3);
    let mut delays = Vec::new();
    for i in 0..1000 {
        // Far enough apart that nothing waits for the one before it.
        let now = Instant::from_millis(i64::from(i) * 100);
        link.send(now, &frame(i, 100));
        delays.push((link.next_deadline().unwrap() - now).total_micros());
        assert_eq!(arrived(&mut link, now + delay + jitter), [frame(i, 100)]);
    }
    let mean = delays.iter().sum::<u64>() / 1000;
    assert!((19_500..20_500).contains(&mean), "{mean}");
    assert!(delays.iter().all(|delay| (15_000..=25_000).contains(delay)));
    assert!(*delays.iter().min().unwrap() < 15_200 && *delays.iter().max().unwrap() > 24_800);
    (0..1000).for_each(|i| link.send(Instant::from_secs(200), &frame(i, 100)));
    let came: Vec<u32> = arrived(&mut link, LATER).iter().map(|it| number(it)).collect();
    assert!(came.into_iter().eq(0..1000), "a burst stays in order");
}

#[test]
fn the_same_seed_has_the_same_accidents() {
    let run = |seed| {
        let mut link = Link::new(all_kinds(0.1), seed);
        (0..1000).for_each(|i| link.send(Instant::ZERO, &frame(i, 60)));
        arrived(&mut link, LATER)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn one_bit_of_an_ip_packet_is_flipped_and_no_other_frame() {
    let mut rng = Rng::new(3);
    for i in 0..10_000 {
        let whole = frame(i, 60);
        let mut changed = whole.clone();
        assert!(flip_a_bit(&mut changed, &mut rng));
        let flipped: u32 = whole.iter().zip(&changed).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((flipped, &whole[..14]), (1, &changed[..14]));
    }
    let mut arp = frame(1, 60);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert!(!flip_a_bit(&mut arp, &mut rng));
    assert!(!flip_a_bit(&mut frame(1, 22)[..14].to_vec(), &mut rng));
}

#[test]
fn a_sink_that_refuses_gets_the_same_frame_again() {
    let mut link = Link::new(Impairment { delay: Duration::from_millis(1), ..Impairment::NONE }, 1);
    (0..3).for_each(|i| link.send(Instant::ZERO, &frame(i, 60)));
    let mut took = 0;
    let taken = link.deliver(LATER, &mut |_, _| {
        took += 1;
        took < 2
    });
    assert_eq!((taken, link.held()), (1, 2));
    assert_eq!(arrived(&mut link, LATER), [frame(1, 60), frame(2, 60)]);
}
