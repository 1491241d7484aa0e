//! What the fuzz target `snapshots` does with its bytes: several bridges with VLANs, gateways, routes, policies, lists and translation
//! (`fuzz_requests`), changed while frames are on their way. Whatever is declared and sent, no stage panics and no frame is
//! lost; in debug builds every turn checks its worker's books as well.

use super::fuzz_acl::{Bytes, SETS, name};
use super::fuzz_requests::{BRIDGES, PORTS, gateway, own, request, settings, station};
use super::{Rig, Size};
use crate::config::snapshot::PortId;
use crate::counter::DropReason;
use crate::frame::Offload;
use crate::pipeline::Now;
use crate::port::memory::{self, MemoryPeer};
use crate::table::fdb;
use crate::wire::vnet;
use etherparse::{IpNumber, PacketBuilder, VlanId};
use std::net::IpAddr;
use switch_api::{AddressSet, Bridge, BridgeAddress, Owner, Request, Vid};

/// Frames of packet memory: few, so that they run out now and then.
const FRAMES: u32 = 96;
const LARGE_FRAMES: u32 = 4;
/// Frames that wait for one turn: less than a wire holds.
const WAITING_MAX: usize = 1_000;
/// Turns while a port is down: more than what waits needs.
const TURNS: usize = 64;
/// Payload of a frame that is to be cut: some segments, and less than a large frame holds.
const SUPERFRAME_BYTES: usize = 5_000;

/// What a run has met, so that tests can tell that it met something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    /// Changes in force.
    pub accepted: usize,
    /// Changes that were refused.
    pub refused: usize,
    /// Frames that went in.
    pub sent: usize,
    /// Frames that came out.
    pub left: usize,
    /// Frames that policies or lists stopped.
    pub denied: u64,
    /// Superframes that went in.
    pub superframes: usize,
}

struct World {
    rig: Rig,
    peers: Vec<MemoryPeer>,
    ids: Vec<PortId>,
    up: [bool; PORTS],
    ns: u64,
    met: Met,
}

/// See the module.
pub fn snapshots(data: &[u8]) {
    run(data);
}

fn run(data: &[u8]) -> Met {
    let mut bytes = Bytes::new(data);
    let mut world = World::new(&mut bytes);
    while !bytes.is_over() {
        let what = bytes.byte();
        match what % 8 {
            0..=2 => world.declare(&mut bytes),
            3 => world.raw(&mut bytes),
            _ => world.made(&mut bytes),
        }
        // Often several frames meet one turn, and several changes.
        if what & 0x30 == 0 {
            world.turn(what);
        }
    }
    world.end()
}

impl World {
    fn new(bytes: &mut Bytes) -> Self {
        let byte = bytes.byte();
        let workers = 1 + usize::from(byte & 1);
        let mut rig = Rig::new(Size {
            workers,
            frames: FRAMES,
            large_frames: LARGE_FRAMES,
            fdb_entries: 32,
            neighbours: 8,
            flows: 64,
            flow_pickup: byte & 2 != 0,
            seed: u64::from(byte),
        });
        let (mut peers, mut ids) = (Vec::new(), Vec::new());
        for bridge in (1..BRIDGES).filter_map(|n| name("br", n)) {
            let added = rig.declare(&Request::BridgeAdd(Bridge::new(bridge)));
            assert!(added.is_ok(), "{added:?}");
        }
        for n in 0..PORTS {
            let (port, peer) = memory::wire();
            // Most are plain, so that most frames are switched.
            let settings = if byte & 4 == 0 { Default::default() } else { settings(bytes) };
            let (bridge, worker) = (format!("br{}", n % BRIDGES), (n % workers) as u16);
            let added = rig.add_port_to(&bridge, &format!("p{n}"), settings, Box::new(port), worker);
            ids.push(added.unwrap_or_else(|error| panic!("{error}")));
            peers.push(peer);
        }
        let mut world = Self { rig, peers, ids, up: [true; PORTS], ns: 1_000_000_000, met: Met::default() };
        // Lists that name a set which is not there are refused.
        for name in (0..SETS).filter_map(|n| name("s", n)) {
            let owner = Owner::Operator;
            world.apply(&Request::AddressSetSet(AddressSet { name, members: Some(Vec::new()), owner }));
        }
        if byte & 8 == 0 {
            world.route();
        }
        world
    }

    /// The bridges have gateways from the outset: to find one by random bytes takes long.
    fn route(&mut self) {
        for n in 0..BRIDGES {
            let Some(bridge) = name("br", n) else { continue };
            let object = Bridge { mac: Some(gateway(n)), ..Bridge::new(bridge.clone()) };
            self.apply(&Request::BridgeSet(object));
            for v6 in [false, true] {
                let (bridge, owner) = (bridge.clone(), Owner::Operator);
                let address = BridgeAddress { bridge, address: own(n, v6), vid: Vid::DEFAULT, owner };
                self.apply(&Request::AddressAdd(address));
            }
        }
    }

    fn apply(&mut self, request: &Request) {
        match self.rig.declare(request) {
            Ok(()) => self.met.accepted += 1,
            Err(_) => self.met.refused += 1,
        }
    }

    fn declare(&mut self, bytes: &mut Bytes) {
        let what = bytes.byte();
        if what & 0xf0 == 0xf0 {
            // A device goes and comes, or has superframes from now on.
            let n = usize::from(what & 7) % PORTS;
            if what & 8 == 0 {
                return self.rig.takes_superframes(self.ids[n]);
            }
            return self.set_up(n, bytes.byte() & 3 != 3);
        }
        let Some(request) = request(bytes) else { return };
        self.apply(&request);
        // As the control thread does.
        if let Request::FdbAdd(entry) = &request
            && let Some(bridge) = self.rig.model.bridges.get(&entry.bridge)
            && let Some(port) = self.rig.model.ports.get(&entry.port)
            && let Some(fid) = self.rig.model.fids.get(&(bridge.id, entry.vid))
            && self.rig.model.static_macs.contains(entry)
        {
            self.rig.tables.fdb.pin(fdb::key(entry.mac.to_u64(), *fid), port.id);
        }
    }

    fn set_up(&mut self, n: usize, up: bool) {
        self.up[n] = up;
        self.rig.set_up(self.ids[n], up);
    }

    /// Bytes as they are.
    fn raw(&mut self, bytes: &mut Bytes) {
        let [port, len] = [bytes.byte(), bytes.byte()];
        let frame = bytes.take(usize::from(len)).to_vec();
        self.send(port, frame, Offload::default());
    }

    /// A frame that stages have something to say of.
    fn made(&mut self, bytes: &mut Bytes) {
        let [port, kind] = [bytes.byte(), bytes.byte()];
        let is_large = kind & 0x70 == 0x70;
        let frame = frame(bytes, usize::from(port) % PORTS % BRIDGES, kind, is_large);
        // What a TAP would say of it; what is not true of it is not believed.
        let size = u16::from(bytes.byte()).max(1) * 8;
        let header = superframe(&frame, size);
        match header.and_then(|header| vnet::decode(&header, &frame).ok()).filter(|_| is_large) {
            Some((csum, gso)) => {
                self.met.superframes += usize::from(gso.is_some());
                self.send(port, frame, Offload { csum, gso });
            }
            None => self.send(port, frame, Offload::default()),
        }
    }

    fn send(&mut self, port: u8, frame: Vec<u8>, offload: Offload) {
        let port = usize::from(port) % PORTS;
        if self.peers[port].waiting() >= WAITING_MAX {
            self.turn(0);
        }
        assert!(self.peers[port].send_offload(frame, offload), "the wire is full");
        self.met.sent += 1;
    }

    /// Everything moves; sometimes much time passes before.
    fn turn(&mut self, what: u8) {
        self.ns += if what & 0x80 == 0 { 1_000_000 } else { u64::from(what).pow(5) };
        let now = Now { ns: self.ns };
        if self.up == [true; PORTS] {
            self.rig.settle(now);
        } else {
            // What came by a port that is down waits, and nothing is ever quiet.
            (0..TURNS).for_each(|_| _ = self.rig.run(now));
        }
        for peer in &self.peers {
            self.met.left += std::iter::from_fn(|| peer.recv()).count();
        }
        // Nobody else takes out what workers tell.
        _ = self.rig.take_refused();
    }

    fn end(mut self) -> Met {
        (0..PORTS).for_each(|n| self.set_up(n, true));
        self.turn(0);
        self.rig.assert_conserved();
        let reasons = [
            DropReason::AclDenied,
            DropReason::AclRejected,
            DropReason::PolicyEgress,
            DropReason::PolicyIngress,
            DropReason::DefaultEgress,
            DropReason::DefaultIngress,
        ];
        self.met.denied = reasons.into_iter().map(|reason| self.rig.drops(reason)).sum();
        self.met
    }
}

/// A frame from one of few stations on `bridge`, to another one, the gateway or a group.
fn frame(bytes: &mut Bytes, bridge: usize, kind: u8, is_large: bool) -> Vec<u8> {
    let [who, dst, ttl, more] = [bytes.byte(), bytes.byte(), bytes.byte(), bytes.byte()];
    let source = station(who);
    let to = match dst % 8 {
        0..=3 => gateway(bridge).0,
        4 => [0xff; 6],
        5 => [0x33, 0x33, 0, 0, 0, 1],
        _ => station(dst >> 3).0,
    };
    let (from, toward) = (bytes.address(), bytes.address());
    let (port, vid) = (u16::from(more), VlanId::try_new(u16::from(who >> 6)).unwrap_or_default());
    let ttl = if ttl & 7 == 0 { ttl >> 6 } else { 64 };
    let payload = vec![0x5a; if is_large { SUPERFRAME_BYTES } else { usize::from(ttl) }];
    let link = PacketBuilder::ethernet2(source.0, to);
    let ip = match (from, toward) {
        (IpAddr::V4(from), IpAddr::V4(to)) if kind & 8 == 0 => link.ipv4(from.octets(), to.octets(), ttl),
        (IpAddr::V4(from), IpAddr::V4(to)) => link.single_vlan(vid).ipv4(from.octets(), to.octets(), ttl),
        (from, to) => link.ipv6(v6(from), v6(to), ttl),
    };
    let mut frame = Vec::new();
    let written = match kind % 8 {
        0 | 1 => ip.udp(port, 9).write(&mut frame, &payload),
        2 | 3 => {
            let tcp = ip.tcp(port, 80, 1, 1000);
            let tcp = if kind & 0x80 == 0 { tcp.syn() } else { tcp.ack(1) };
            tcp.write(&mut frame, &payload)
        }
        4 if from.is_ipv4() && toward.is_ipv4() => {
            ip.icmpv4_echo_request(port, 1).write(&mut frame, &payload)
        }
        4 => ip.icmpv6_echo_request(port, 1).write(&mut frame, &payload),
        5 => ip.write(&mut frame, IpNumber(132), &payload),
        6 => ip.write(&mut frame, IpNumber::UDP, &payload),
        _ => return arp(source.0, to, (from, toward), 1 + u8::from(kind & 0x80 != 0)),
    };
    written.unwrap_or_else(|error| panic!("{error}"));
    frame
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
    }
}

/// A question or an answer (RFC 826), of the addresses' last four bytes.
fn arp(source: [u8; 6], to: [u8; 6], (from, toward): (IpAddr, IpAddr), operation: u8) -> Vec<u8> {
    let tail = |address: IpAddr| v6(address)[12..].to_vec();
    let mut frame = [&to[..], &source, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &source].concat();
    frame.extend(tail(from).into_iter().chain([0; 6]).chain(tail(toward)));
    frame.resize(60, 0);
    frame
}

/// What a TAP says of a train of TCP or UDP segments without tags; none of other frames.
fn superframe(frame: &[u8], size: u16) -> Option<[u8; vnet::LEN]> {
    let (start, protocol) = match frame.get(12..14)? {
        [8, 0] => (34u16, *frame.get(23)?),
        [0x86, 0xdd] => (54, *frame.get(20)?),
        _ => return None,
    };
    // VIRTIO_NET_HDR_GSO_TCPV4, _TCPV6, _UDP_L4 (linux/virtio_net.h).
    let (kind, offset) = match (protocol, start) {
        (6, 34) => (1, 16u16),
        (6, _) => (4, 16),
        (17, _) => (5, 6),
        _ => return None,
    };
    let [size, start, offset] = [size, start, offset].map(u16::to_le_bytes);
    // The checksum is left open.
    Some([1, kind, 0, 0, size[0], size[1], start[0], start[1], offset[0], offset[1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    /// So many meet everything often enough to count.
    const CASES: u32 = 512;

    /// Not only what a fuzzer finds; and that what is made of random bytes is worth running.
    #[test]
    fn arbitrary_snapshots_and_frames_are_conserved() {
        let all = Mutex::new(Met::default());
        let config = crate::cases::cases(CASES);
        let drawn = config.cases;
        proptest!(config, |(data in proptest::collection::vec(any::<u8>(), 0..2_000))| {
            let met = run(&data);
            let mut all = all.lock().unwrap();
            all.accepted += met.accepted;
            all.refused += met.refused;
            all.sent += met.sent;
            all.left += met.left;
            all.denied += met.denied;
            all.superframes += met.superframes;
        });
        let met = all.into_inner().unwrap();
        println!("{met:?}");
        let counts = [met.accepted, met.refused, met.sent, met.left, met.denied as usize, met.superframes];
        // A third of what is met as a rule.
        let least = [2_000, 700, 3_000, 2_000, 30, 150];
        let is_enough = counts.iter().zip(least).all(|(count, least)| *count >= least);
        assert!(drawn < CASES || is_enough, "too few to count: {met:?}");
    }

    /// Who asks for the gateway is answered: the bytes mean what they are to mean.
    #[test]
    fn bytes_become_changes_and_frames() {
        // One worker, plain ports, gateways.
        let world = [0];
        // A frame, and a turn: ARP by p0, from a station with 10.0.0.2 to everybody, for 10.0.0.1.
        let asks = [0x47, 0, 7, 1, 4, 64, 0, 1, 2, 1, 1, 0];
        let met = run(&[&world[..], &asks, &asks].concat());
        assert_eq!((met.sent, met.accepted, met.refused), (2, SETS + 3 * BRIDGES, 0), "{met:?}");
        assert!(met.left >= 2, "{met:?}");
    }
}
