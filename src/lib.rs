//! MiniCache: a content cache and web server that is its own operating system.
//!
//! Frames come in over a shared-memory ring, a polling TCP serves HTTP from chunk-cache pages, and those same pages go
//! out in the transmit ring's grants; interrupts only wake the loop.
//!
//! # Principles
//! 1. The CPU never touches a body byte. Bytes of an object that must be copied or summed after all are counted in
//!    [`stats::Stats::copied_bytes`], and the count is tested.
//! 2. Interrupts wake; polling works. All work happens in one event loop with budgets.
//! 3. Nothing is global, nothing is shared. All state hangs off one [`appliance::Appliance`].
//! 4. The other side lies. What is read from a ring, a disk or the network is read once, validated once into a type that
//!    says so, and only that type is used.
//! 5. Everything has a limit, and the limit has an answer: a counter, a refusal, back-pressure.
//! 6. One pipeline, many worlds: kernel, process, simulator and load generator differ only in rings and boot.
//!
//! # Rooms
//! Dependencies point downwards only: boot → appliance → {http, shell} → {tcp_gso, net, cache} → rings. `tcp_gso` knows no
//! HTTP, `cache` knows no network, `rings` knows no TCP.
//!
//! | room | what it is for |
//! |---|---|
//! | [`boot`] | from the first instruction to a running event loop, and the machine under it; may say `unsafe` |
//! | [`rings`] | pages, page slices and bytes across a shared-memory ring; may say `unsafe` |
//! | [`net`] | one parse per frame, demultiplexing, and the control plane (ARP, ND, ICMP) on smoltcp |
//! | [`tcp_gso`] | the TCP that serves: small receive, large zero-copy send with segmentation offload |
//! | [`cache`] | SHFS (format, volume, directory) and the chunk cache over block devices |
//! | [`http`] | requests, responses, and the session that feeds object pages into a connection |
//! | [`shell`] | µShell: telnet, line editing, the operator's commands |
//! | [`params`] | a machine's command line: addresses, disks, limits |
//! | [`platform`] | what an appliance asks of the world under it |
//! | `log` | log messages: to defmt in the kernel, to the `log` crate in a process |
//! | [`stats`] | every counter, named once |
//! | [`appliance`] | the event loop that joins the rooms |
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

#[macro_use]
#[forbid(unsafe_code)]
mod log;

#[forbid(unsafe_code)]
pub mod appliance;
#[allow(unsafe_code)]
pub mod boot;
#[forbid(unsafe_code)]
pub mod cache;
#[forbid(unsafe_code)]
pub mod http;
#[forbid(unsafe_code)]
pub mod net;
#[forbid(unsafe_code)]
pub mod params;
#[forbid(unsafe_code)]
pub mod platform;
#[allow(unsafe_code)]
pub mod rings;
#[forbid(unsafe_code)]
pub mod shell;
#[forbid(unsafe_code)]
pub mod stats;
#[forbid(unsafe_code)]
pub mod tcp_gso;
