//! A client machine: smoltcp's interface and TCP sockets, behind one port of the wire.

use std::cell::Cell;
use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address};

use super::nic::ETHERNET_BYTES;

thread_local! {
    /// Virtual milliseconds, for TCP timestamps: smoltcp asks for them through a plain function.
    static CLOCK_MS: Cell<u32> = const { Cell::new(0) };
}

/// First port that a host connects from (RFC 6335 §6: the dynamic ones begin here).
const FIRST_PORT: u16 = 49_152;

/// How a socket is set up.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Receive buffer: the largest window it offers.
    pub receive_bytes: usize,
    /// Offers RFC 7323 timestamps.
    pub timestamps: bool,
}

/// A client machine.
pub struct Host {
    number: u8,
    interface: Interface,
    sockets: SocketSet<'static>,
    port: Port,
    next_port: u16,
}

impl Host {
    /// Machine `number` (1 to 200), which can take frames of `mtu_bytes` plus an Ethernet header.
    pub fn new(number: u8, mtu_bytes: usize, seed: u64) -> Self {
        let mut port = Port { mtu_bytes, received: VecDeque::new(), sent: Vec::new() };
        let mut config = Config::new(HardwareAddress::Ethernet(Self::hardware_address_of(number)));
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut port, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let [v4, v6] = Self::addresses_of(number);
            addresses.push(IpCidr::new(v4, 16)).expect("room for two addresses");
            addresses.push(IpCidr::new(v6, 64)).expect("room for two addresses");
        });
        Self { number, interface, sockets: SocketSet::new(Vec::new()), port, next_port: FIRST_PORT }
    }

    /// The MAC address of machine `number`.
    pub fn hardware_address_of(number: u8) -> EthernetAddress {
        EthernetAddress([0x02, 0, 0, 0, 1, number])
    }

    /// The addresses of machine `number`, IPv4 and IPv6.
    pub fn addresses_of(number: u8) -> [IpAddress; 2] {
        [
            IpAddress::Ipv4(Ipv4Address::new(10, 0, 1, number)),
            IpAddress::Ipv6(Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 1, number.into())),
        ]
    }

    /// True if a frame to `destination` reaches this machine.
    pub fn hears(&self, destination: EthernetAddress) -> bool {
        destination.is_multicast() || destination == Self::hardware_address_of(self.number)
    }

    /// Opens a connection from a fresh port.
    pub fn connect(&mut self, server: (IpAddress, u16), options: SocketOptions) -> SocketHandle {
        let receive = tcp::SocketBuffer::new(vec![0; options.receive_bytes]);
        let send = tcp::SocketBuffer::new(vec![0; 4096]);
        let mut socket = tcp::Socket::new(receive, send);
        // A reset can be lost as any segment; who only waits for data would never know.
        socket.set_keep_alive(Some(Duration::from_secs(5)));
        if options.timestamps {
            socket.set_tsval_generator(Some(|| CLOCK_MS.get()));
        }
        socket.connect(self.interface.context(), server, self.next_port).expect("a fresh socket and a known server");
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        self.sockets.add(socket)
    }

    /// A socket of this machine.
    pub fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Forgets a socket, whatever its state.
    pub fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// A frame has arrived. True: it is taken.
    pub fn receive(&mut self, frame: &[u8]) -> bool {
        let longest = ETHERNET_BYTES + self.port.mtu_bytes;
        assert!(frame.len() <= longest, "{} bytes for a machine that takes {longest}", frame.len());
        self.port.received.push_back(frame.to_vec());
        true
    }

    /// Processes what arrived and what is due.
    pub fn poll(&mut self, now: Instant) {
        CLOCK_MS.set(now.total_millis() as u32);
        self.interface.poll(now, &mut self.port, &mut self.sockets);
    }

    /// When to poll again if nothing arrives.
    pub fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        self.interface.poll_at(now, &self.sockets)
    }

    /// The frames sent since the last call.
    pub fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.port.sent)
    }
}

/// The machine's network interface.
struct Port {
    mtu_bytes: usize,
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Device for Port {
    type RxToken<'a> = Received;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Transmit<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Transmit(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        Some(Transmit(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET_BYTES + self.mtu_bytes;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Transmit<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}
