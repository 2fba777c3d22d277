//! Serves a folder or an SHFS volume over HTTP from this process: `minicache serve`.
//!
//! The appliance is the same as on a hypervisor. `sockets` and `tap` are the two worlds that it can run in here, `source` opens
//! what is served, `server` runs the loop, and this file turns a command line into all of them.

mod access_log;
mod live;
mod log;
mod report;
mod server;
mod sockets;
mod source;
mod status;
mod tap;
mod world;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use minicache::appliance::{Appliance, ApplianceConfig, MIN_CACHE_BYTES};
use minicache::rings::NetQueue;
use minicache::rings::impair::{Impaired, Impairments};
use minicache::stats::Stats;
use mio::{Registry, Token, Waker};
use smoltcp::wire::IpCidr;

use access_log::LogFile;
use live::Wake;
use report::Place;
use server::Server;
use sockets::DEFAULT_SHELL;
use world::World;

/// The port at which the appliance serves.
const SERVING_PORT: u16 = 80;

/// The port at which its µShell listens.
const SHELL_PORT: u16 = 23;

/// Most cache that is accepted: what a page pool can be, less than any machine's memory.
const MAX_CACHE_MIB: usize = 1 << 22;

/// Arguments of `minicache serve`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The folder to serve, or the images of all members of an SHFS volume, in any order
    #[arg(required = true, value_name = "DIR|IMAGE")]
    paths: Vec<PathBuf>,

    /// Where to listen: an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080. Port 0 takes a free one. May be
    /// repeated
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = parse_listen)]
    listen: Vec<SocketAddr>,

    /// Serve at a network interface of this name instead, which is made for that (it takes root): HTTP at port 80, the shell
    /// at port 23 of each --address
    #[arg(long, value_name = "NAME", conflicts_with = "listen")]
    tap: Option<String>,

    /// With --tap: an address of the server and its network's prefix length, such as 10.0.0.2/24 or fd00::2/64. May be repeated
    #[arg(long, value_name = "ADDRESS/BITS", requires = "tap", value_parser = parse_address)]
    address: Vec<IpCidr>,

    /// With --tap: the router to other networks. One for IPv4 and one for IPv6 may be given
    #[arg(long, value_name = "ADDRESS", requires = "tap")]
    gateway: Vec<IpAddr>,

    /// Where µShell listens for telnet: an IP address and a port, or "none". It asks for no password: whoever can reach it
    /// can use it. Default: 127.0.0.1:2323, or none where that is taken
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_shell)]
    shell: Option<ShellAt>,

    /// Append a line in the common log format for each request to this file; - stands for standard output
    #[arg(long, value_name = "FILE|-")]
    access_log: Option<PathBuf>,

    /// What goes wrong on the way between server and clients, in both directions or, with rx. (to the server) and tx., in one:
    /// such as loss=1%,delay=20ms. Give "help" to see everything
    #[arg(long, value_name = "SPEC")]
    impair: Option<Impairments>,

    /// Memory for cached content, in MiB
    #[arg(long, value_name = "N", default_value_t = 256)]
    cache_mib: usize,
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.trim_start_matches(':').parse::<u16>();
        let example = port.map_or("127.0.0.1:8080 or [::1]:8080".to_owned(), |port| format!("127.0.0.1:{port}"));
        format!("give an IP address and a port, such as {example}")
    })
}

/// What `--shell` says.
#[derive(Clone, Copy, Debug)]
enum ShellAt {
    Nowhere,
    Address(SocketAddr),
}

fn parse_shell(text: &str) -> Result<ShellAt, String> {
    match text {
        "none" => Ok(ShellAt::Nowhere),
        text => text
            .parse()
            .map(ShellAt::Address)
            .map_err(|_| format!("give an IP address and a port, such as {DEFAULT_SHELL}, or none")),
    }
}

fn parse_address(text: &str) -> Result<IpCidr, String> {
    text.parse().map_err(|()| "give an IP address and a prefix length, such as 10.0.0.2/24 or fd00::2/64".to_owned())
}

/// What a world gives to an appliance.
struct Ground<N, W> {
    queue: N,
    world: W,
    /// Wakes the world's event loop from another thread.
    waker: Wake,
    /// Addresses, ports, and limits that suit this world.
    config: ApplianceConfig,
    place: Place,
}

/// A waker for a world's event loop.
fn disk_waker(registry: &Registry, token: Token) -> anyhow::Result<Wake> {
    let waker = Waker::new(registry, token).context("can't have disks wake epoll")?;
    // It fails only where the event loop's own end of it is gone, and with it everybody who could be woken.
    Ok(Arc::new(move || _ = waker.wake()))
}

/// Runs `minicache serve`.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    log::initialise();
    let least = MIN_CACHE_BYTES >> 20;
    ensure!(
        (least..=MAX_CACHE_MIB).contains(&arguments.cache_mib),
        "--cache-mib {} does not work: give it at least {least}, at most {MAX_CACHE_MIB}",
        arguments.cache_mib
    );
    // The cache's pool takes its memory in one piece and can't do without: asked for here, where "no" is an answer.
    Vec::<u8>::new().try_reserve_exact(arguments.cache_mib << 20).map_err(|_| {
        anyhow!("this machine has not {} MiB of memory to give: choose less with --cache-mib", arguments.cache_mib)
    })?;
    let mut random = [0; 38];
    getrandom::fill(&mut random).context("the system gives no random numbers")?;
    let [secret @ .., a, b, c, d, e, f] = random;
    let stats = Rc::new(Stats::default());
    match &arguments.tap {
        Some(name) => {
            serve(&arguments, secret, stats.clone(), tap::prepare(&arguments, name, [a, b, c, d, e, f], stats)?)
        }
        None => serve(&arguments, secret, stats.clone(), sockets::prepare(&arguments, [a, b, c, d], stats)?),
    }
}

/// Serves on this ground until a signal comes.
fn serve<N: NetQueue, W: World>(
    arguments: &Arguments,
    secret: [u8; 32],
    stats: Rc<Stats>,
    ground: Ground<N, W>,
) -> anyhow::Result<()> {
    let Ground { queue, mut world, waker, config, place } = ground;
    let impairments = arguments.impair.unwrap_or(Impairments::NONE);
    let queue = Impaired::new(queue, impairments, world.common().clock(), stats.clone());
    let mut source = source::open(&arguments.paths)?;
    let access_log = arguments.access_log.as_deref().map(LogFile::open).transpose()?;
    source.disks.iter_mut().for_each(|disk| disk.set_waker(waker.clone()));
    let config = ApplianceConfig { cache_bytes: arguments.cache_mib << 20, ..config };
    let appliance = Appliance::new(config, queue, source.disks, secret, stats)?;

    let mut server = Server::new(appliance, world);
    if server.mount(&source.paths)?.is_none() {
        return Ok(());
    }
    let live = source.folder.is_some_and(|folder| server.keep_live(&folder, waker));
    if let Some(volume) = server.volume() {
        report::started(&source.title, volume, &place, live);
    }
    if let Some(log) = access_log {
        server.keep_log(log);
    }
    server.serve()?;
    report::summary(server.stats(), server.uptime());
    report::impaired(&impairments, &server.net().counts());
    Ok(())
}
