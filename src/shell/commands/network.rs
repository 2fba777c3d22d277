//! Commands about the network: interface, connections, rings, counters.

use core::fmt::Write as _;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::{Definition, Output, Step, no_arguments, once, steps};
use crate::net::NetworkStatus;
use crate::shell::machine::InterfaceInfo;
use crate::shell::text::Uptime;
use crate::stats::Stats;

/// Most connections that `netstat` lists.
const MOST_CONNECTIONS: usize = 10_000;

pub(super) const COMMANDS: &[Definition] = &[
    Definition {
        name: "ifconfig",
        arguments: "",
        summary: "the network interface",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| {
                let InterfaceInfo { hardware_address, addresses, capabilities, status } = context.machine.interface();
                let _ = writeln!(out, "en0*      HWaddr {}", EthernetAddress(hardware_address));
                for address in &addresses {
                    let _ = writeln!(out, "          inet addr:{address}");
                }
                write_status(&status, context.machine.now(), out);
                let _ = write!(out, "          {}", if status.up { "UP" } else { "DOWN" });
                for (name, on) in [
                    ("DHCP", status.dhcp.is_some()),
                    ("SLAAC", status.slaac.is_some()),
                    ("SG", capabilities.max_slots > 1),
                    ("CSO", capabilities.checksum),
                    ("GSO4", capabilities.tso4),
                    ("GSO6", capabilities.tso6),
                ] {
                    if on {
                        let _ = write!(out, " {name}");
                    }
                }
                let _ = writeln!(out, " MTU:{} frame:{}", capabilities.mtu_bytes, capabilities.max_frame_bytes);
                let stats = context.machine.stats();
                let _ = writeln!(out, "          RX frames:{} bytes:{}", stats.rx_frames.get(), stats.rx_bytes.get());
                let _ = writeln!(out, "          TX frames:{} bytes:{}", stats.tx_frames.get(), stats.tx_bytes.get());
                0
            })
        },
    },
    Definition {
        name: "netstat",
        arguments: "",
        summary: "the serving TCP's connections",
        start: |arguments, context| {
            no_arguments(arguments)?;
            let connections = context.machine.connections(MOST_CONNECTIONS);
            let mut next = 0;
            steps(move |context, out| {
                if next == 0 {
                    let _ = writeln!(
                        out,
                        "{:<46} {:<12} {:>9} {:>9} {:>9} {:>9} {:>10} {:>12}",
                        "peer", "state", "queued", "flight", "cwnd", "window", "srtt", "acked"
                    );
                }
                while let Some(connection) = connections.get(next) {
                    if out.is_full() {
                        return Step::More;
                    }
                    next += 1;
                    write_connection(connection, out);
                }
                let open = context.machine.stats().connections_open.get();
                if open > connections.len() as u64 {
                    let _ = writeln!(out, "... and {} more", open - connections.len() as u64);
                }
                let _ = writeln!(
                    out,
                    "{open} connections of {} at most, {} in TIME_WAIT",
                    context.machine.max_connections(),
                    context.machine.stats().time_wait.get()
                );
                Step::Done(0)
            })
        },
    },
    Definition {
        name: "http-info",
        arguments: "",
        summary: "the HTTP server",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| {
                let (open, most) = (context.machine.stats().connections_open.get(), context.machine.max_connections());
                let _ = writeln!(out, "{:<28} {open:>12} of {most}", "connections");
                group(context.machine.stats(), out, "http_");
                group(context.machine.stats(), out, "connections_");
                0
            })
        },
    },
    Definition {
        name: "rings",
        arguments: "",
        summary: "the rings that frames and sectors cross",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| {
                for ring in context.machine.rings() {
                    let _ = writeln!(out, "{}", ring.name);
                    for (name, number) in ring.numbers {
                        let _ = writeln!(out, "  {name:<26} {number:>12}");
                    }
                }
                let stats = context.machine.stats();
                for name in ["tx_", "rx_", "notifications", "wakeups", "interrupts"] {
                    group(stats, out, name);
                }
                derived(stats, out);
                0
            })
        },
    },
    Definition {
        name: "autosize",
        arguments: "[on|off]",
        summary: "whether large frames are cut to about a millisecond of their connection's rate; off for measurements",
        start: |arguments, context| {
            match arguments {
                [] => {}
                [word] if word == "on" => context.machine.set_autosize_frames(true),
                [word] if word == "off" => context.machine.set_autosize_frames(false),
                _ => return Err("usage: autosize [on|off]".into()),
            }
            once(|context, out| {
                let _ = writeln!(out, "{}", if context.machine.autosizes_frames() { "on" } else { "off" });
                0
            })
        },
    },
];

/// Writes what the network has announced, a line each.
fn write_status(status: &NetworkStatus, now: Instant, out: &mut Output) {
    let line = |out: &mut Output, name: &str, text: &dyn core::fmt::Display| {
        let _ = writeln!(out, "          {name}:{text}");
    };
    for address in status.slaac.iter().flatten() {
        line(out, "not used, another host has it", address);
    }
    match &status.dhcp {
        Some(Some(lease)) => {
            let left = Uptime(if lease.expires_at > now { lease.expires_at - now } else { Duration::ZERO });
            line(out, "dhcp", &format_args!("{} from {}, {left} left", lease.address, lease.server));
        }
        Some(None) => line(out, "dhcp", &"searching, no lease"),
        None => {}
    }
    if let Some(gateway) = status.gateway_v4 {
        line(out, "gateway", &gateway);
    }
    if let Some(gateway) = status.gateway_v6 {
        line(out, "gateway", &gateway);
    }
    for server in &status.dns_servers {
        line(out, "dns", server);
    }
    for (name, mtu) in [("IPv4 MTU", status.mtu_v4_bytes), ("IPv6 MTU", status.mtu_v6_bytes)] {
        if let Some(bytes) = mtu {
            line(out, name, &bytes);
        }
    }
    for neighbour in &status.static_neighbours {
        let mac = EthernetAddress(neighbour.hardware_address);
        line(out, "neighbour", &format_args!("{} at {mac}", neighbour.address));
    }
}

/// Writes what follows from the counters: how long frames are, and how often the machine is interrupted for them.
pub(super) fn derived(stats: &Stats, out: &mut Output) {
    let (tx_frames, frames) = (stats.tx_frames.get(), stats.tx_frames.get() + stats.rx_frames.get());
    let per = |number: u64, count: u64| number.checked_div(count).unwrap_or(0);
    for (name, value) in [
        ("tx_mean_frame_bytes", per(stats.tx_bytes.get(), tx_frames)),
        ("tcp_tx_mean_segment_bytes", per(stats.tcp_tx_bytes.get(), stats.tcp_tx_segments.get())),
        ("interrupts_per_1000_frames", per(stats.interrupts.get().saturating_mul(1000), frames)),
    ] {
        let _ = writeln!(out, "{name:<28} {value:>12}");
    }
}

/// Writes the counters whose names begin so.
pub(super) fn group(stats: &Stats, out: &mut Output, prefix: &str) {
    for (name, _, value) in stats.iter().filter(|(name, ..)| name.starts_with(prefix)) {
        let _ = writeln!(out, "{name:<28} {value:>12}");
    }
}

fn write_connection(connection: &crate::tcp_gso::ConnectionInfo, out: &mut Output) {
    let peer = smoltcp::wire::IpEndpoint::new(connection.peer.address, connection.peer.port);
    let peer = alloc::format!("{peer}");
    let _ = write!(
        out,
        "{peer:<46} {:<12} {:>9} {:>9} {:>9} {:>9} ",
        connection.state,
        connection.unacknowledged_bytes,
        connection.in_flight_bytes,
        connection.congestion_window_bytes,
        connection.window_bytes
    );
    match connection.smoothed_rtt {
        Some(rtt) => {
            let _ = write!(out, "{:>8}us", rtt.total_micros());
        }
        None => {
            let _ = write!(out, "{:>10}", "-");
        }
    }
    let _ = writeln!(out, " {:>12}", connection.acknowledged_bytes);
}
