//! xenstored.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::hand::Hand;
use crate::rings::xen::abi::store::{
    XS_DIRECTORY, XS_ERROR, XS_READ, XS_RM, XS_TRANSACTION_END, XS_TRANSACTION_START, XS_UNWATCH, XS_WATCH,
    XS_WATCH_EVENT, XS_WRITE,
};

fn ok(kind: u32, text: &str) -> (u32, String) {
    (kind, text.to_string())
}

fn error(name: &str) -> (u32, String) {
    (XS_ERROR, format!("{name}\0"))
}

#[test]
fn values_are_written_read_listed_and_removed() {
    let hand = Hand::new();
    assert_eq!(hand.ask(XS_WRITE, 0, "device/a\0one"), ok(XS_WRITE, "OK\0"));
    assert_eq!(hand.ask(XS_READ, 0, "/local/domain/7/device/a\0"), ok(XS_READ, "one"));
    assert_eq!(hand.xen.read("/local/domain/7/device/a").as_deref(), Some("one"));
    hand.xen.write("/local/domain/7/device/b/c", "two");
    assert_eq!(hand.ask(XS_DIRECTORY, 0, "device\0"), ok(XS_DIRECTORY, "a\0b\0"));
    assert_eq!(hand.ask(XS_DIRECTORY, 0, "device/b/c\0"), ok(XS_DIRECTORY, ""));
    assert_eq!(hand.ask(XS_RM, 0, "device/b\0"), ok(XS_RM, "OK\0"));
    assert_eq!(hand.ask(XS_RM, 0, "device/b\0"), ok(XS_RM, "OK\0"), "its parent is there");
    assert_eq!(hand.ask(XS_READ, 0, "device/b/c\0"), error("ENOENT"));
    assert_eq!(hand.ask(XS_RM, 0, "no/where\0"), error("ENOENT"));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let hand = Hand::new();
    for path in ["\0", "/\0", "a//b\0", "a/\0", "a b\0", "a", "a\0b\0"] {
        assert_eq!(hand.ask(XS_READ, 0, path), error("EINVAL"), "{path:?}");
    }
    for path in ["/local/domain/8/x\0", "/local/domain\0", "/vm\0", "/local/domain/0/backend/vif/8/0\0"] {
        assert_eq!(hand.ask(XS_READ, 0, path), error("EACCES"), "{path:?}");
    }
    assert_eq!(hand.ask(XS_READ, 0, "/local/domain/0/backend/vif/7/0/state\0"), error("EACCES"));
    hand.xen.write("/local/domain/0/backend/vif/7/0", "");
    assert_eq!(hand.ask(XS_READ, 0, "/local/domain/0/backend/vif/7/0/state\0"), error("ENOENT"));
    assert_eq!(hand.ask(XS_WRITE, 0, "/local/domain/0/backend/vif/7/0\0x"), error("EACCES"));
    assert_eq!(hand.ask(XS_WRITE, 0, "/local/domain/7\0x"), error("EACCES"));
    assert_eq!(hand.ask(XS_READ, 5, "a\0"), error("ENOENT"), "no such transaction");
    assert_eq!(hand.ask(99, 0, "a\0"), error("ENOSYS"));
    assert_eq!(hand.ask(XS_UNWATCH, 0, "a\0token\0"), error("ENOENT"));
    hand.xen.write("/local/domain/7/many", "");
    for number in 0..400 {
        hand.xen.write(&format!("/local/domain/7/many/number-{number:03}"), "");
    }
    assert_eq!(hand.ask(XS_DIRECTORY, 0, "many\0"), error("E2BIG"));
}

/// The events among the messages that have come: path and token.
fn events(hand: &Hand) -> Vec<String> {
    let messages = hand.messages().into_iter().filter(|(kind, ..)| *kind == XS_WATCH_EVENT);
    messages.map(|(_, _, body)| String::from_utf8(body).unwrap().trim_end_matches('\0').replace('\0', " ")).collect()
}

#[test]
fn watches_fire_at_once_and_with_every_change() {
    let hand = Hand::new();
    hand.send(XS_WATCH, 1, 0, b"device\0relative\0");
    let kinds: Vec<u32> = hand.messages().iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(kinds, [XS_WATCH, XS_WATCH_EVENT]);
    hand.send(XS_WATCH, 1, 0, b"/local/domain/0/backend/vif/7/0/state\0absolute\0");
    assert_eq!(events(&hand), ["/local/domain/0/backend/vif/7/0/state absolute"]);
    assert_eq!(hand.ask(XS_WATCH, 0, "device\0relative\0"), error("EEXIST"));
    hand.xen.write("/local/domain/7/device/vif/0/state", "1");
    hand.xen.write("/local/domain/0/backend/vif/7/0/state", "2");
    hand.xen.remove("/local/domain/0/backend/vif/7/0");
    let absolute = "/local/domain/0/backend/vif/7/0/state absolute";
    assert_eq!(events(&hand), ["device/vif/0/state relative", absolute, absolute]);
    assert_eq!(hand.ask(XS_UNWATCH, 0, "device\0relative\0"), ok(XS_UNWATCH, "OK\0"));
    hand.xen.write("/local/domain/7/device/vif/0/state", "1");
    assert_eq!(events(&hand), Vec::<String>::new());
}

#[test]
fn transactions_are_all_or_nothing_and_fail_when_somebody_was_quicker() {
    let hand = Hand::new();
    let begin = || -> u32 {
        let (kind, id) = hand.ask(XS_TRANSACTION_START, 0, "\0");
        assert_eq!(kind, XS_TRANSACTION_START);
        id.trim_end_matches('\0').parse().unwrap()
    };
    let end = |id, how: &str| hand.ask(XS_TRANSACTION_END, id, format!("{how}\0"));
    let value = || hand.ask(XS_READ, 0, "x\0");
    let id = begin();
    assert_eq!(hand.ask(XS_WRITE, id, "x\x001"), ok(XS_WRITE, "OK\0"));
    assert_eq!((hand.ask(XS_READ, id, "x\0"), value()), (ok(XS_READ, "1"), error("ENOENT")));
    assert_eq!((end(id, "F"), value()), (ok(XS_TRANSACTION_END, "OK\0"), error("ENOENT")));
    let id = begin();
    hand.ask(XS_WRITE, id, "x\x002");
    assert_eq!((end(id, "T"), value()), (ok(XS_TRANSACTION_END, "OK\0"), ok(XS_READ, "2")));
    let id = begin();
    hand.ask(XS_WRITE, id, "x\x003");
    hand.xen.write("/local/domain/7/x", "quicker");
    assert_eq!((end(id, "T"), value()), (error("EAGAIN"), ok(XS_READ, "quicker")));
    assert_eq!(end(id, "T"), error("ENOENT"));
    hand.xen.conflict_next(1);
    assert_eq!((end(begin(), "T"), end(begin(), "T")), (error("EAGAIN"), ok(XS_TRANSACTION_END, "OK\0")));
}

#[test]
fn messages_longer_than_the_rings_pass_in_any_pieces() {
    for pace in [1, 7, 1000, usize::MAX] {
        let hand = Hand::new();
        hand.xen.set_store_pace(pace);
        for round in 0..4_u8 {
            let value: Vec<u8> = (0..3000_u32).map(|index| b'a' + (index as u8 ^ round) % 26).collect();
            hand.send(XS_WRITE, 5, 0, &[b"long\0", &value[..]].concat());
            hand.send(XS_READ, 6, 0, b"long\0");
            assert_eq!(hand.messages(), [(XS_WRITE, 5, b"OK\0".to_vec()), (XS_READ, 6, value)], "{pace} bytes a step");
        }
    }
}

#[test]
fn it_only_works_when_it_is_told_to_and_wakes_the_guest() {
    let hand = Hand::new();
    while hand.xen.step() {}
    hand.xen.woken();
    assert_eq!(hand.put(&[0; 4]), 4);
    assert!(!hand.xen.woken(), "nothing has been looked at");
    assert!(hand.xen.step() && hand.xen.woken(), "there is room again");
    assert!(!hand.xen.step());
}

#[test]
fn it_can_be_silent_and_lie() {
    let hand = Hand::new();
    hand.xen.ignore_next(1);
    hand.send(XS_WRITE, 1, 0, b"x\x001");
    assert_eq!((hand.messages(), hand.xen.read("/local/domain/7/x").as_deref()), (vec![], Some("1")));
    hand.xen.inject_store(b"garbage?garbage!\0\0\0\0");
    assert_eq!((hand.xen.step(), hand.get()), (true, 20));
    hand.xen.jump_store(5);
    assert_eq!(hand.get(), 5);
}
