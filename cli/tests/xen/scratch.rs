use testbed::xen::GUEST;
use crate::site::Site;
use crate::world::{SERVES, Xen};
use std::time::{Duration, Instant};

#[test]
fn scratch() {
    let Some(xen) = Xen::boot() else { return };
    let site = Site::new(false);
    let image = site.image();
    for round in 0..150 {
        let mut domu = xen.domu("loop", std::slice::from_ref(&image));
        domu.parameters = format!("-i {GUEST}/24");
        let begin = Instant::now();
        let guest = xen.host.create(&domu).unwrap();
        if let Err(_) = guest.wait_for(SERVES, Duration::from_secs(12)) {
            println!("round {round}: hung\n{}", guest.console());
            for _ in 0..10 {
                println!("{}", xen.host.ask("human-monitor-command", &serde_json::json!({"command-line": "info registers"})).unwrap().as_str().unwrap().lines().filter(|l| l.contains("RIP") || l.contains("RAX")|| l.contains("RSP")).collect::<Vec<_>>().join("\n"));
                std::thread::sleep(Duration::from_millis(100));
            }
            let d = guest.domid();
            println!("{}", xen.host.run(&format!("xl list; xl debug-keys e; xl debug-keys q; xenstore-ls /local/domain/{d}; xenstore-ls /local/domain/0/backend; lsevtchn {d}; sleep 1")).unwrap().text);
            println!("{}", xen.host.console().lines().rev().take(150).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"));
            panic!();
        }
        println!("round {round}: {:?}", begin.elapsed());
    }
}
