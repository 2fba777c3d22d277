//! HTTP over a volume in memory, without a network: what RFC 9110 and RFC 9112 say, row by row, and what a connection does
//! over time.

mod case;
mod connections;
mod disks;
mod messages;
mod mutations;
mod response;
mod semantics;
mod site;
#[path = "../volumes/mod.rs"]
mod volumes;
mod world;

use case::{Case, get};
use minicache::http::Config;
use world::World;

fn world() -> World {
    World::new(site::disk(), 200, Config::default())
}

fn all_cases() -> Vec<Case> {
    let tables = [
        messages::syntax(),
        messages::framing(),
        messages::routing(),
        semantics::objects(),
        semantics::conditions(),
        semantics::ranges(),
    ];
    tables.into_iter().flatten().collect()
}

#[test]
fn every_row_is_answered_as_its_rfc_says() {
    let mut world = world();
    let cases = all_cases();
    assert!(cases.len() >= 120);
    for case in &cases {
        let connection = world.connect();
        world.deliver(connection, &case.request);
        let responses = response::read_all(&world.take_sent(connection), &[case.is_head()]);
        assert_eq!(responses.len(), 1, "{}: {:?}", case.rule, String::from_utf8_lossy(&case.request));
        case.check(&responses[0]);
        assert_eq!(world.connections[connection].wire.closed, case.expects_close(), "{}", case.rule);
        assert!(!world.connections[connection].wire.reset);

        // Nothing is left of the request: the next one is found, or none is looked for.
        world.deliver(connection, get("/hello.txt").as_bytes());
        let next = response::read_all(&world.take_sent(connection), &[]);
        assert_eq!(next.len(), usize::from(!case.expects_close()), "{}", case.rule);
        assert!(next.iter().all(|next| next.body == b"hello shfs\n"), "{}", case.rule);

        world.end(connection);
        assert!(!world.lives(connection), "{}", case.rule);
    }
    assert_eq!(world.pool.shared(), 0);
}

#[test]
fn the_answer_does_not_depend_on_how_the_request_is_cut() {
    let mut world = world();
    for case in all_cases() {
        let connection = world.connect();
        for byte in &case.request {
            world.deliver(connection, std::slice::from_ref(byte));
        }
        let at_once = world.connect();
        world.deliver(at_once, &case.request);
        let (bytewise, at_once) = (world.take_sent(connection), world.take_sent(at_once));
        assert!(bytewise == at_once, "{}: {:?}", case.rule, String::from_utf8_lossy(&case.request));
    }
}

#[test]
fn pipelined_requests_are_answered_as_single_ones() {
    let mut world = world();
    let cases = all_cases();
    let (mut requests, mut heads) = (Vec::new(), Vec::new());
    let (open, closing): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| !case.expects_close());
    for case in &open {
        requests.extend_from_slice(&case.request);
        heads.push(case.is_head());
    }
    for last in closing {
        let mut requests = requests.clone();
        requests.extend_from_slice(&last.request);
        // What follows a request that ends the connection is never answered.
        requests.extend_from_slice(get("/hello.txt").as_bytes());
        let mut heads = heads.clone();
        heads.push(last.is_head());
        let connection = world.connect();
        world.deliver(connection, &requests);
        let responses = response::read_all(&world.take_sent(connection), &heads);
        assert_eq!(responses.len(), heads.len(), "{}", last.rule);
        open.iter().chain([&last]).zip(&responses).for_each(|(case, response)| case.check(response));
        assert!(world.connections[connection].wire.closed);
        world.end(connection);
    }
}
