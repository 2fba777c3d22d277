//! A Xen host, guests that serve there, and those who reach them: curl, ping and wrk in dom0, the shell from outside.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use testbed::Telnet;
use testbed::xen::{self, Bed, Config, Disk, DomU, GUEST, Guest, Host, State};

use crate::site::Site;

/// How long anything may take; the machine is emulated, and its guests' exits too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the kernel says when it serves.
pub const SERVES: &str = "up and running";

/// A guest's own IPv6 address, beside [`GUEST`].
pub const GUEST_V6: &str = "fd77::2";

/// A Xen host, with ports of the guest at [`GUEST`] forwarded.
pub struct Xen {
    pub host: Host,
    pub http: SocketAddrV4,
    shell: SocketAddrV4,
    kernel: PathBuf,
}

impl Xen {
    /// Boots a host; `None`, and said so, if there can be none.
    pub fn boot() -> Option<Self> {
        let target = Path::new(env!("CARGO_BIN_EXE_minicache")).ancestors().nth(2).unwrap();
        let kernel = target.join("minicache.elf");
        let reason = xen::obstacle()
            .or_else(|| (!kernel.is_file()).then(|| format!("there is no {kernel:?}: `cargo xtask kernel` builds it")));
        if let Some(reason) = reason {
            println!("not run: {reason}");
            return None;
        }
        // Both at once, so that they differ.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [http, shell] =
            free.map(|listener| SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let config = Config { forwards: vec![(http, 80), (shell, 23)], ..Config::default() };
        let host = Bed::get(&target.join("xen")).unwrap().boot(&config).unwrap();
        Some(Self { host, http, shell, kernel })
    }

    /// A guest with these disks, read-only, `xvda` and on.
    pub fn domu(&self, name: &str, images: &[PathBuf]) -> DomU {
        let mut domu = DomU::new(name, &self.kernel);
        domu.memory_mib = 128;
        let names = ('a'..='z').map(|letter| format!("xvd{letter}"));
        let disk = |(image, name): (&PathBuf, String)| Disk { image: image.clone(), name, writable: false };
        domu.disks = images.iter().zip(names).map(disk).collect();
        domu
    }

    /// Creates a guest and waits until it serves.
    pub fn serve(&self, domu: &DomU) -> Served<'_> {
        let served = Served { xen: self, guest: self.host.create(domu).unwrap() };
        served.wait_for(SERVES);
        served
    }
}

/// A guest.
pub struct Served<'a> {
    pub xen: &'a Xen,
    pub guest: Guest<'a>,
}

impl Served<'_> {
    /// Waits for a line of the console.
    pub fn wait_for(&self, text: &str) -> String {
        self.check(self.guest.wait_for(text, PATIENCE))
    }

    /// What must have gone well; else the console is shown.
    pub fn check<T>(&self, result: Result<T>) -> T {
        result.unwrap_or_else(|error| panic!("{error:#}\n{}", self.guest.report()))
    }

    /// Panics with the console unless `holds`.
    pub fn assert(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n{}", self.guest.report());
    }

    /// What a script in dom0 says, which must succeed.
    pub fn dom0(&self, script: &str) -> String {
        self.check(self.xen.host.check(script))
    }

    /// Has dom0 fetch all of the site's objects from `url`, some at a time, and compares their hashes.
    pub fn compare(&self, site: &Site, url: &str, at_once: usize) {
        let urls = site
            .objects
            .iter()
            .enumerate()
            .map(|(number, (name, _))| format!("url = \"{url}/{name}\"\noutput = \"/tmp/got/{number}\"\n"));
        self.check(self.xen.host.put("/tmp/urls", urls.collect::<String>().as_bytes()));
        let hashes = site.objects.iter().enumerate().map(|(number, (_, content))| {
            format!(
                "{}  /tmp/got/{number}\n",
                Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            )
        });
        self.check(self.xen.host.put("/tmp/hashes", hashes.collect::<String>().as_bytes()));
        let options =
            format!("--silent --show-error --fail --globoff --parallel --parallel-max {at_once} --max-time 100");
        // curl makes no file for an empty body.
        let touch = (0..site.objects.len()).map(|number| format!(" {number}")).collect::<String>();
        let script = format!(
            "rm -rf /tmp/got && mkdir /tmp/got && cd /tmp/got && touch{touch} && curl {options} --config /tmp/urls && \
             sha256sum -c /tmp/hashes | grep -v ': OK$'; code=$?; rm -rf /tmp/got; [ $code = 1 ]"
        );
        let output = self.check(self.xen.host.run_within(&script, 2 * PATIENCE));
        self.assert(output.status == 0, &format!("{url}: {}", output.text));
    }

    /// What dom0's interface to the guest has counted: packets and bytes that came from the guest.
    pub fn vif_counts(&self) -> (u64, u64) {
        let said =
            self.dom0(&format!("cd /sys/class/net/vif{}.0/statistics; cat rx_packets rx_bytes", self.guest.domid()));
        let mut numbers = said.lines().map(|line| line.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// A session with the shell.
    pub fn shell(&self) -> Telnet {
        let connect = || Telnet::new(TcpStream::connect(self.xen.shell)?, "mc# ", PATIENCE);
        self.check(connect().context("the shell"))
    }

    /// What the shell says to a command.
    pub fn ask(&self, command: &str) -> String {
        let said = self.shell().run(command);
        self.check(said)
    }

    /// A counter, asked of the shell.
    pub fn counter(&self, name: &str) -> u64 {
        let said = self.ask("stats counters");
        let counter = || {
            let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let line = line.with_context(|| format!("{name} is not among the counters: {said}"))?;
            Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
        };
        self.check(counter())
    }

    /// Has the shell end the machine.
    pub fn end(&self, command: &str, end: State) {
        let said = self.shell().run_to_end(command);
        self.check(said);
        let state = self.check(self.guest.wait_for_end(PATIENCE));
        self.assert(state == end, &format!("{command}: {state:?}"));
    }

    /// Has wrk load it from dom0 for so many seconds by so many connections, and returns how many requests that were. None may fail.
    pub fn load(&self, target: &str, connections: u32, seconds: u32) -> u64 {
        let script = format!("wrk -t 1 -c {connections} -d {seconds}s --timeout 30s http://{GUEST}{target}");
        let output = self.check(self.xen.host.run_within(&script, PATIENCE + Duration::from_secs(seconds.into())));
        let good = || {
            ensure!(output.status == 0 && !output.text.contains("errors") && !output.text.contains("Non-2xx"));
            let line = output.text.lines().find(|line| line.contains(" requests in ")).context("no count")?;
            Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
        };
        self.check(good().with_context(|| output.text.clone()))
    }
}
