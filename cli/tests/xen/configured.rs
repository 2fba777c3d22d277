//! What the command line, the network and the toolstack ask of a guest.

use testbed::xen::{DOM0, GUEST, State};

use crate::site::Site;
use crate::world::{Served, Xen};

#[test]
fn a_guest_does_as_it_is_told() {
    let Some(xen) = Xen::boot() else { return };
    let site = Site::new(false);
    let image = site.image();

    let mut domu = xen.domu("told", std::slice::from_ref(&image));
    domu.memory_mib = 32;
    lease_addresses(&xen);
    let served = xen.serve(&domu);
    an_address_is_leased(&served, &site);
    served.end("reboot", State::Rebooted);
    drop(served);

    domu.parameters =
        format!("-i {GUEST}/24 -a {}/{DOM0} -c 4", xen.host.check("cat /sys/class/net/xenbr0/address").unwrap().trim());
    let served = xen.serve(&domu);
    a_static_neighbour_is_not_asked_for(&served);
    connections_are_limited(&served);
    served.dom0(&format!("xl shutdown {}", served.guest.domid()));
    assert_eq!(served.check(served.guest.wait_for_end(crate::world::PATIENCE)), State::Halted);
    drop(served);
}

/// Has dom0 lease addresses; QEMU's own network, which does that too, is away meanwhile.
fn lease_addresses(xen: &Xen) {
    let config = format!(
        "start {GUEST}\nend {GUEST}\ninterface xenbr0\nmax_leases 1\nlease_file /tmp/leases\npidfile /tmp/udhcpd.pid\n\
         option subnet 255.255.255.0\noption router {DOM0}\noption dns {DOM0}\noption lease 3600\n"
    );
    xen.host.put("/tmp/udhcpd.conf", config.as_bytes()).unwrap();
    let serve = "ip link set eth0 down; touch /tmp/leases; udhcpd -f /tmp/udhcpd.conf >/tmp/udhcpd.log 2>&1 &";
    xen.host.check(serve).unwrap();
}

fn an_address_is_leased(served: &Served<'_>, site: &Site) {
    served.wait_for(&format!("address: {GUEST}/24"));
    served.compare(site, &format!("http://{GUEST}"), 4);
    served.dom0("kill $(cat /tmp/udhcpd.pid); ip link set eth0 up");
    let said = served.ask("ifconfig");
    served.assert(said.contains(&format!("dhcp:{GUEST}/24 from {DOM0}")), &said);
}

/// Nobody answers to ARP, and it is reached all the same.
fn a_static_neighbour_is_not_asked_for(served: &Served<'_>) {
    served.dom0(&format!(
        "ip link set xenbr0 arp off; /bin/ip neigh replace {GUEST} lladdr 00:16:3e:77:00:02 dev xenbr0"
    ));
    served.dom0(&format!("curl --silent --fail --max-time 10 --output /dev/null http://{GUEST}/"));
    served.dom0(&format!("/bin/ip neigh del {GUEST} dev xenbr0; ip link set xenbr0 arp on"));
}

fn connections_are_limited(served: &Served<'_>) {
    // Four that say nothing, and one that finds no place.
    served.dom0(&format!("for i in 1 2 3 4; do sleep 100 | nc {GUEST} 80 >/dev/null & done; sleep 1"));
    let fetch = format!("curl --silent --fail --max-time 3 --output /dev/null http://{GUEST}/");
    let fifth = served.check(served.xen.host.run(&fetch));
    served.assert(fifth.status != 0, "a fifth connection is served");
    served.dom0(&format!("killall sleep nc; sleep 1; {fetch}"));
}
