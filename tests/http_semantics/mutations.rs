//! Requests that nobody would write: whatever arrives, and however it is cut, the server answers by the rules.

use proptest::prelude::*;

use crate::{all_cases, response, world};

/// A row's request with a few bytes changed, removed, doubled or put in.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let requests: Vec<Vec<u8>> = all_cases().into_iter().map(|case| case.request).collect();
    let byte = prop_oneof![any::<u8>(), proptest::sample::select(b"\r\n \t:,;%?#/\0\x7f\"*=-".to_vec()),];
    let change = (any::<proptest::sample::Index>(), 0..4u8, byte);
    (proptest::sample::select(requests), proptest::collection::vec(change, 1..4)).prop_map(|(mut request, changes)| {
        for (place, kind, byte) in changes {
            let at = place.index(request.len());
            match kind {
                0 => request[at] = byte,
                1 => request.insert(at, byte),
                2 if request.len() > 1 => drop(request.remove(at)),
                _ => request.insert(at, request[at]),
            }
        }
        request
    })
}

/// Delivers bytes cut at these places, and the end, and returns what was answered.
fn answers(bytes: &[u8], cuts: &[proptest::sample::Index]) -> Vec<u8> {
    let mut world = world();
    let connection = world.connect();
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut from = 0;
    for place in places.into_iter().chain([bytes.len()]) {
        world.deliver(connection, &bytes[from..place]);
        from = place;
    }
    world.end(connection);
    let sent = world.take_sent(connection);
    assert!(!world.lives(connection) && world.connections[connection].wire.closed);
    assert_eq!((world.pool.shared(), world.stats.http_aborted.get()), (0, 0));
    sent
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutated_requests_are_answered_alike_however_they_are_cut(
        request in mutated(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let at_once = answers(&request, &[]);
        prop_assert!(at_once == answers(&request, &cuts));
    }

    #[test]
    fn single_mutated_requests_are_answered_by_the_rules(request in mutated()) {
        let sent = answers(&request, &[]);
        if !request.starts_with(b"HEAD") && !request.windows(5).any(|window| window == b"\nHEAD") {
            for response in response::read_all(&sent, &[]) {
                prop_assert!((200..=505).contains(&response.status));
            }
        }
    }

    #[test]
    fn noise_is_answered_alike_however_it_is_cut(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        prop_assert!(answers(&noise, &[]) == answers(&noise, &cuts));
    }
}
