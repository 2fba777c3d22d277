//! A bad network between Linux and the stack: every body is right all the same.

use crate::bed::{Bed, SERVERS, is_impossible, noise};
use crate::load::wrk;

/// What a link that is this bad still carries in a reasonable time.
const SIZES: &[usize] = &[0, 1, 1449, 14_480, 65_536, 150_000, 300_000];

/// Fetches everything with curl and loads the server with wrk, over both families.
fn every_body_is_right_with(impairment: &str) {
    if is_impossible(&["curl", "ip", "wrk"]) {
        return;
    }
    let bed = Bed::new(noise(SIZES), &["--impair", impairment]);
    for server in SERVERS {
        bed.fetch_all(server, 4);
        wrk(&bed, server, &bed.objects[2], 16, 2);
        wrk(&bed, server, &bed.objects[4], 4, 2);
    }
    bed.finish();
}

#[test]
fn nothing_lost() {
    every_body_is_right_with("loss=0%,seed=1");
}

#[test]
fn one_in_a_thousand_lost() {
    every_body_is_right_with("loss=0.1%,seed=2");
}

#[test]
fn one_in_a_hundred_lost() {
    every_body_is_right_with("loss=1%,seed=3");
}

#[test]
fn one_in_twenty_lost() {
    every_body_is_right_with("loss=5%,seed=4");
}

#[test]
fn reordered() {
    every_body_is_right_with("reorder=5%,delay=2ms,jitter=1ms,seed=5");
}

#[test]
fn duplicated() {
    every_body_is_right_with("duplicate=5%,seed=6");
}

#[test]
fn corrupted() {
    every_body_is_right_with("corrupt=1%,seed=7");
}

#[test]
fn everything_at_once() {
    every_body_is_right_with("loss=1%,reorder=1%,duplicate=1%,corrupt=1%,delay=5ms,jitter=2ms,seed=8");
}

#[test]
fn a_narrow_link_with_a_short_queue() {
    every_body_is_right_with("rate=50mbit,delay=5ms,queue=64k,seed=9");
}
