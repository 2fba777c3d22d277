//! The world of a network interface: the appliance is a host of its own, at the other end of a TAP interface of this machine.
//!
//! - `world`: the event loop on its descriptor;
//! - `spin`: whether to look for frames for a while before sleeping;
//! - `setup`: what is to be typed for this machine's end.

mod setup;
mod spin;
mod world;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use anyhow::{bail, ensure};
use minicache::appliance::ApplianceConfig;
use minicache::net::{MAX_ADDRESSES, NetworkConfig};
use minicache::rings::host::Tap;
use minicache::stats::Stats;

use super::report::{Place, Setup};
use super::{Arguments, Ground, SERVING_PORT, SHELL_PORT, ShellAt};
use world::TapWorld;

/// Frames received in one round: more would keep clients waiting whose requests came first.
const RECEIVE_BUDGET: usize = 64;

/// Makes the interface `name`. `address_seed`, six random bytes, becomes the appliance's hardware address.
pub fn prepare(
    arguments: &Arguments,
    name: &str,
    address_seed: [u8; 6],
    stats: Rc<Stats>,
) -> anyhow::Result<Ground<Tap, TapWorld>> {
    let addresses = &arguments.address;
    ensure!(
        !addresses.is_empty(),
        "--tap {name} needs an address for the server: add --address 10.0.0.2/24, or another one that is free"
    );
    ensure!(addresses.len() <= MAX_ADDRESSES, "too many --address: at most {MAX_ADDRESSES}");
    let has_shell = match arguments.shell {
        None => true,
        Some(ShellAt::Nowhere) => false,
        Some(ShellAt::Address(_)) => bail!(
            "with --tap the shell is at port {SHELL_PORT} of each --address: leave --shell out, or switch it off with --shell none"
        ),
    };
    let mut network = NetworkConfig {
        addresses: addresses.iter().copied().collect(),
        serving_port: SERVING_PORT,
        shell_port: has_shell.then_some(SHELL_PORT),
        ..NetworkConfig::default()
    };
    for gateway in &arguments.gateway {
        let earlier = match gateway {
            IpAddr::V4(gateway) => network.gateway_v4.replace(*gateway).map(IpAddr::from),
            IpAddr::V6(gateway) => network.gateway_v6.replace(*gateway).map(IpAddr::from),
        };
        if let Some(earlier) = earlier {
            bail!("--gateway {earlier} and --gateway {gateway} are of the same IP version: give one of each at most");
        }
    }
    network.validate()?;

    let queue = Tap::open(name, address_seed, stats)?;
    let (world, waker) = TapWorld::new(name, queue.watch())?;
    let at = |port: u16| addresses.iter().map(move |cidr| SocketAddr::new(cidr.address().into(), port));
    let place = Place {
        urls: at(SERVING_PORT).map(|address| url(address.ip())).collect(),
        shell: at(SHELL_PORT).next().filter(|_| has_shell),
        setup: Some(Setup {
            interface: name.to_owned(),
            commands: setup::commands(name, addresses, &arguments.gateway),
        }),
    };
    let config = ApplianceConfig { network, receive_budget: RECEIVE_BUDGET, ..ApplianceConfig::default() };
    Ok(Ground { queue, world, waker, config, place })
}

fn url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("http://{v4}/"),
        IpAddr::V6(v6) => format!("http://[{v6}]/"),
    }
}
