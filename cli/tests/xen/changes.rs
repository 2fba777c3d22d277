//! Devices that go and come while a guest serves: back ends that are restarted, interfaces and disks that the toolstack takes away.

use testbed::xen::{GUEST, MAC, State};

use crate::site::Site;
use crate::world::Xen;

#[test]
fn a_guest_survives_what_happens_to_its_devices() {
    let Some(xen) = Xen::boot() else { return };
    let site = Site::new(true);
    let mut domu = xen.domu("changes", &[site.image()]);
    domu.parameters = format!("-i {GUEST}/24");
    let served = xen.serve(&domu);
    let url = format!("http://{GUEST}");
    served.compare(&site, &url, 4);

    // The network's back end ends under load, and another one starts.
    let domid = served.guest.domid();
    served.dom0(&format!("wrk -t 1 -c 16 -d 6s http://{GUEST}/ >/dev/null 2>&1 & sleep 1"));
    for action in ["unbind", "bind"] {
        served.dom0(&format!("echo vif-{domid}-0 >/sys/bus/xen-backend/drivers/vif/{action}"));
    }
    served.dom0(&joined(domid));
    served.compare(&site, &url, 4);

    // The interface is taken away, and given back.
    served.dom0(&format!("xl network-detach {domid} 0"));
    served.wait_for("was taken away");
    served.dom0(&format!("xl network-attach {domid} mac={MAC} bridge=xenbr0"));
    served.dom0(&joined(domid));
    served.compare(&site, &url, 4);
    let quarantined = served.counter("grants_quarantined");
    served.assert(quarantined == 0, &format!("{quarantined} grants are in quarantine"));

    // What is in the cache is served without a disk, too, and what is not is an error.
    served.dom0(&format!("xl block-detach {domid} xvda"));
    served.wait_for("the device is gone");
    let status =
        served.dom0(&format!("curl --silent --output /dev/null --write-out '%{{http_code}}' {url}/index.html"));
    served.assert(status == "200" || status == "503", &status);
    served.end("halt", State::Halted);
}

/// Waits until the guest's interface in dom0 is there, and does what the toolstack's script does: joins it and the bridge, and tells
/// the back end, which waits for that. Then waits for the guest.
fn joined(domid: u32) -> String {
    let vif = format!("vif{domid}.0");
    format!(
        "until ip link show {vif} >/dev/null 2>&1; do usleep 100000; done; brctl addif xenbr0 {vif} 2>/dev/null; \
         ip link set {vif} up; xenstore-write /local/domain/0/backend/vif/{domid}/0/hotplug-status connected; until ping -c 1 -W 1 {GUEST} >/dev/null; do :; done"
    )
}
