//! The other end of the cable: smoltcp as a host that talks to an appliance through a [`MemoryBackend`].

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use super::PEER_MAC;
use crate::rings::RxChecksum;
use crate::rings::memory::MemoryBackend;

/// A host with smoltcp's TCP.
pub struct Client {
    pub backend: MemoryBackend,
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    /// Called with every frame that the client sends.
    pub mangle: fn(&mut [u8], &mut u64),
    /// State of `mangle`.
    pub seed: u64,
    cable: Cable,
    next_port: u16,
}

/// Frames between the backend and the client's interface.
#[derive(Default)]
struct Cable {
    received: VecDeque<Vec<u8>>,
    to_send: Vec<Vec<u8>>,
}

impl Client {
    /// A host with these addresses.
    pub fn new(backend: MemoryBackend, addresses: &[&str]) -> Self {
        let mut cable = Cable::default();
        let mut config = Config::new(EthernetAddress(PEER_MAC).into());
        config.random_seed = 7;
        let mut interface = Interface::new(config, &mut cable, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            for address in addresses {
                list.push(address.parse::<IpCidr>().unwrap()).unwrap();
            }
        });
        Self {
            backend,
            interface,
            sockets: SocketSet::new(Vec::new()),
            mangle: |_, _| (),
            seed: 0,
            cable,
            next_port: 40_000,
        }
    }

    /// Moves frames both ways once. True if any moved.
    pub fn poll(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(frame) = self.backend.take() {
            self.cable.received.push_back(frame.parts().collect::<Vec<_>>().concat());
            self.backend.complete(frame);
            moved = true;
        }
        self.interface.poll(now, &mut self.cable, &mut self.sockets);
        for mut frame in self.cable.to_send.drain(..) {
            moved = true;
            (self.mangle)(&mut frame, &mut self.seed);
            // A full ring drops, as a wire does.
            let _ = self.backend.deliver(&[&frame], RxChecksum::Unknown, None);
        }
        self.backend.notify();
        moved
    }

    /// Sends one frame as it is.
    pub fn send_raw(&mut self, frame: &[u8]) {
        self.backend.deliver(&[frame], RxChecksum::Unknown, None).unwrap();
        self.backend.notify();
    }

    /// The frames that the appliance has sent, without showing them to the client.
    pub fn take_raw(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.backend.take() {
            frames.push(frame.parts().collect::<Vec<_>>().concat());
            self.backend.complete(frame);
        }
        frames
    }

    /// Begins a connection.
    pub fn connect(&mut self, address: IpAddress, port: u16) -> SocketHandle {
        let mut socket =
            tcp::Socket::new(tcp::SocketBuffer::new(vec![0; 256 << 10]), tcp::SocketBuffer::new(vec![0; 16 << 10]));
        self.next_port += 1;
        socket.connect(self.interface.context(), (address, port), self.next_port).unwrap();
        self.sockets.add(socket)
    }

    pub fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Everything that has arrived on a connection.
    pub fn read(&mut self, handle: SocketHandle) -> Vec<u8> {
        let socket = self.socket(handle);
        let mut bytes = Vec::new();
        while socket.can_recv() {
            socket
                .recv(|data| {
                    bytes.extend_from_slice(data);
                    (data.len(), ())
                })
                .unwrap();
        }
        bytes
    }
}

impl Device for Cable {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, ToSend<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), ToSend(&mut self.to_send)))
    }

    fn transmit(&mut self, _: Instant) -> Option<ToSend<'_>> {
        Some(ToSend(&mut self.to_send))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        // The appliance leaves its checksums to the device, and this end of the ring completes none.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct ToSend<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}
