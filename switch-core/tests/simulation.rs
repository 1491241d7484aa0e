//! Whole TCP stacks (smoltcp) on memory ports behind a port that loses, repeats, corrupts and delays,
//! under a clock of our own. The same seed gives the same run; a failing one prints its seed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use switch_api::PortSettings;
use switch_core::pipeline::Now;
use switch_core::port::faulty::{Faults, Faulty};
use switch_core::port::memory::{self, MemoryPeer};
use switch_core::rig::{Rig, Size};

/// A host's end of a wire, as smoltcp wants it.
struct Wire(MemoryPeer);
struct Received(Vec<u8>);
struct Sender<'a>(&'a MemoryPeer);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, work: F) -> R {
        let mut packet = vec![0; len];
        let result = work(&mut packet);
        // A full wire loses the packet, as a full queue does.
        _ = self.0.send(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sender<'_>)> {
        self.0.recv().map(|packet| (Received(packet), Sender(&self.0)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(Sender(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Host {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: smoltcp::iface::SocketHandle,
}

impl Host {
    fn new(n: u8, wire: MemoryPeer, seed: u64) -> Self {
        let mut wire = Wire(wire);
        let mut config = Config::new(EthernetAddress([2, 0, 0, 0, 0, n]).into());
        config.random_seed = seed ^ u64::from(n);
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, n), 24)).unwrap();
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 8192]);
        let mut sockets = SocketSet::new(Vec::new());
        let tcp = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self { wire, interface, sockets, tcp }
    }

    fn poll(&mut self, now: Instant) {
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }
}

/// Pairs of hosts send each other `bytes` bytes; the virtual milliseconds it took.
fn transfer(seed: u64, faults: Faults, workers: usize, bytes: usize) -> u64 {
    let mut rig = Rig::new(Size { workers, seed, ..Size::default() });
    let mut hosts = Vec::new();
    for n in 0..4u8 {
        let (port, peer) = memory::wire();
        let port = Faulty::new(Box::new(port), faults, seed.wrapping_mul(31).wrapping_add(u64::from(n)));
        let worker = u16::from(n) % workers as u16;
        rig.add_port(&format!("p{n}"), PortSettings::default(), Box::new(port), worker).unwrap();
        hosts.push(Host::new(n + 1, peer, seed));
    }
    // 1 talks to 2, 3 to 4.
    for pair in [0, 2] {
        hosts[pair + 1].socket().listen(80).unwrap();
        let to = (IpAddress::v4(10, 0, 0, pair as u8 + 2), 80);
        let host = &mut hosts[pair];
        host.sockets.get_mut::<tcp::Socket>(host.tcp).connect(host.interface.context(), to, 50_000).unwrap();
    }
    let (mut sent, mut received) = ([0usize; 4], [0usize; 4]);
    for ms in 0..600_000u64 {
        let now = Instant::from_millis(ms as i64);
        for (n, host) in hosts.iter_mut().enumerate() {
            host.poll(now);
            let socket = host.socket();
            if n % 2 == 0 && socket.can_send() && sent[n] < bytes {
                let from = sent[n];
                let write = |buffer: &mut [u8]| {
                    let len = buffer.len().min(bytes - from);
                    buffer[..len].iter_mut().enumerate().for_each(|(i, b)| *b = ((from + i) % 251) as u8);
                    (len, len)
                };
                sent[n] += socket.send(write).unwrap();
            }
            if n % 2 == 1 && socket.can_recv() {
                let at = received[n];
                let read = |buffer: &mut [u8]| {
                    let right = buffer.iter().enumerate().all(|(i, b)| *b == ((at + i) % 251) as u8);
                    assert!(right, "seed {seed}: wrong bytes at {at}");
                    (buffer.len(), buffer.len())
                };
                received[n] += socket.recv(read).unwrap();
            }
        }
        rig.run(Now { ns: ms * 1_000_000 });
        if received[1] == bytes && received[3] == bytes {
            drop(hosts);
            return ms;
        }
    }
    panic!("seed {seed}: {received:?} of {bytes} bytes after ten minutes");
}

#[test]
fn tcp_gets_through_a_faultless_switch() {
    assert!(transfer(1, Faults::default(), 1, 200_000) < 10_000);
    assert!(transfer(1, Faults::default(), 2, 200_000) < 10_000);
}

#[test]
fn tcp_gets_through_whatever_the_wires_do() {
    let first: u64 = std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + 12 {
        let level = (seed % 4) as u16 * 5;
        let faults = Faults { lose: level, repeat: level, corrupt: level, delay: level };
        let workers = 1 + (seed % 2) as usize;
        let ms = transfer(seed, faults, workers, 30_000);
        println!("seed {seed}: {faults:?}, {workers} workers: {ms} virtual ms");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let faults = Faults { lose: 20, repeat: 20, corrupt: 20, delay: 20 };
    assert_eq!(transfer(7, faults, 1, 20_000), transfer(7, faults, 1, 20_000));
}
