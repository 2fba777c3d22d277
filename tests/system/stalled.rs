//! Clients that stop reading stop nobody else.

use std::rc::Rc;

use minicache::appliance::ApplianceConfig;
use smoltcp::iface::SocketHandle;
use smoltcp::time::{Duration, Instant};

use crate::sim::devices::Devices;
use crate::sim::host::{Host, SocketOptions};
use crate::sim::in_memory::InMemory;
use crate::sim::on_xen::OnXen;
use crate::sim::population::{Behaviour, Population};
use crate::sim::site::Site;
use crate::sim::world::{Clients, On, SERVER, SERVING_PORT, World, WorldConfig};

/// Clients that stop reading.
const STALLED: usize = 1000;
/// Machines that they run on.
const MACHINES: usize = 4;

/// Clients of which each asks for an object of its own and never reads a byte of it.
struct Stalled {
    site: Rc<Site>,
    /// Each machine's sockets, whether the request has been sent, and the object's number.
    sockets: Vec<Vec<(SocketHandle, bool, usize)>>,
}

impl Clients for Stalled {
    fn step(&mut self, index: usize, host: &mut Host, _: Instant) -> Option<Instant> {
        let sockets = &mut self.sockets[index];
        if sockets.is_empty() {
            let options = SocketOptions { receive_bytes: 4096, timestamps: false };
            let own = (0..STALLED / MACHINES).map(|number| number * MACHINES + index);
            sockets.extend(own.map(|object| (host.connect((SERVER[0], SERVING_PORT), options), false, object)));
        }
        for (handle, asked, object) in sockets {
            let socket = host.socket(*handle);
            if !*asked && socket.can_send() {
                let path = self.site.objects[*object].name.replace(' ', "%20");
                let request = format!("GET /{path} HTTP/1.1\r\nHost: simulated\r\n\r\n");
                socket.send_slice(request.as_bytes()).expect("an open socket");
                *asked = true;
            }
        }
        None
    }
}

/// A client among a thousand that have stalled.
fn serve_the_next<D: Devices>() {
    // What they ask for is twice the cache.
    let site = Rc::new(Site::new((0..STALLED).map(|_| 128 << 10), 4));
    let appliance = ApplianceConfig { cache_bytes: 64 << 20, ..Default::default() };
    let mut world =
        World::<D>::new(WorldConfig { appliance, hosts: vec![1500; MACHINES + 1], ..WorldConfig::default() }, &site);
    let mut stalled = On(0..MACHINES, Stalled { site: site.clone(), sockets: vec![Vec::new(); MACHINES] });
    world.run(&mut stalled, Duration::from_secs(5), |_| false);
    assert!(world.stats.connections_open.get() >= STALLED as u64 / 2, "the clients have connected");

    let behaviour = Behaviour { requests: 200, connections_each: 1, mixed: false };
    let mut next = On(MACHINES..MACHINES + 1, Population::new(site, 1, behaviour, 1));
    world.run(&mut (&mut stalled, &mut next), Duration::from_secs(30), |_| false);
    let tally = next.1.tally;
    assert!(next.1.is_done(), "{tally:?}");
    assert_eq!((tally.refused, tally.resets, tally.reset_within), (0, 0, 0), "{tally:?}");
}

#[test]
fn a_thousand_stalled_clients_do_not_stop_the_next_one() {
    serve_the_next::<InMemory>();
}

#[test]
fn a_thousand_stalled_clients_do_not_stop_the_next_one_on_xen() {
    serve_the_next::<OnXen>();
}
