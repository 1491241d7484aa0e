//! Two bridges that the switch routes between, and hosts on both, for tests of translation: packets told by their ends, in
//! and out, every checksum computed anew.

use super::Now;
use crate::config::gateway::{from_bits, is_v4, to_bits};
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use crate::wire::checksum::{fold, sum};
use crate::wire::ip::{ICMP, ICMPV6, UDP};
use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, PacketBuilder};
use std::net::IpAddr;
use switch_api::{
    Bridge, BridgeAddress, Mac, Nat, NatKind, NextHop, Owner, PortSettings, Request, Route, RouteKind, Vid,
};

pub(super) const NOW: Now = Now { ns: 5_000_000_000 };
/// The switch on both bridges.
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    Udp,
    Ask,
    Answer,
}

/// A packet, by its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct P {
    pub what: What,
    pub src: u128,
    pub dst: u128,
    pub ports: [u16; 2],
}

impl P {
    pub fn udp(src: &str, sport: u16, dst: &str, dport: u16) -> Self {
        Self { what: What::Udp, src: ip(src), dst: ip(dst), ports: [sport, dport] }
    }

    /// What answers it.
    pub fn mirror(self) -> Self {
        let what = match self.what {
            What::Udp => What::Udp,
            What::Ask => What::Answer,
            What::Answer => What::Ask,
        };
        Self { what, src: self.dst, dst: self.src, ports: [self.ports[1], self.ports[0]] }
    }

    /// As IP packet, checksums finished.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let v4 = |ip: u128| (ip as u32).to_be_bytes();
        let (mut out, [from, to]) = (Vec::new(), self.ports);
        let echo = IcmpEchoHeader { id: from, seq: 1 };
        match is_v4(self.src) {
            true => {
                let ip = PacketBuilder::ipv4(v4(self.src), v4(self.dst), 64);
                match self.what {
                    What::Udp => ip.udp(from, to).write(&mut out, payload),
                    What::Ask => ip.icmpv4(Icmpv4Type::EchoRequest(echo)).write(&mut out, payload),
                    What::Answer => ip.icmpv4(Icmpv4Type::EchoReply(echo)).write(&mut out, payload),
                }
            }
            false => {
                let ip = PacketBuilder::ipv6(self.src.to_be_bytes(), self.dst.to_be_bytes(), 64);
                match self.what {
                    What::Udp => ip.udp(from, to).write(&mut out, payload),
                    What::Ask => ip.icmpv6(Icmpv6Type::EchoRequest(echo)).write(&mut out, payload),
                    What::Answer => ip.icmpv6(Icmpv6Type::EchoReply(echo)).write(&mut out, payload),
                }
            }
        }
        .unwrap();
        out
    }

    /// Reads an IP packet, or as much of one as an error quotes; of a whole one every checksum is computed anew.
    pub fn read(packet: &[u8], whole: bool) -> Self {
        let v4 = packet[0] >> 4 == 4;
        let header = if v4 { 20 } else { 40 };
        let protocol = packet[if v4 { 9 } else { 6 }];
        let wide = |at: usize| u128::from_be_bytes(packet[at..at + 16].try_into().unwrap());
        let short = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        let (src, dst) = if v4 { (to_bits(short(12)), to_bits(short(16))) } else { (wide(8), wide(24)) };
        let segment = &packet[header..];
        if whole {
            assert!(!v4 || fold(sum(&packet[..20])) == 0xffff, "IPv4 checksum");
            assert_eq!(checksum_of(packet, v4, protocol, segment), 0xffff, "checksum of protocol {protocol}");
        }
        let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        let (what, ports) = match (protocol, segment[0]) {
            (UDP, _) => (What::Udp, [word(0), word(2)]),
            (ICMP, 8) | (ICMPV6, 128) => (What::Ask, [word(4); 2]),
            (ICMP, 0) | (ICMPV6, 129) => (What::Answer, [word(4); 2]),
            other => panic!("{other:?} is nothing that was sent"),
        };
        Self { what, src, dst, ports }
    }
}

/// All ones, if it is right.
fn checksum_of(packet: &[u8], v4: bool, protocol: u8, segment: &[u8]) -> u16 {
    let addresses = if v4 { &packet[12..20] } else { &packet[8..40] };
    let pseudo = match protocol {
        ICMP => 0,
        _ => sum(addresses) + segment.len() as u64 + u64::from(protocol),
    };
    fold(pseudo + sum(segment))
}

pub(super) fn ip(text: &str) -> u128 {
    to_bits(text.parse().unwrap())
}

/// 10.a.0.h, or fd00:a::h.
pub(super) fn host(v6: bool, a: u8, h: u8) -> u128 {
    if v6 { ip(&format!("fd00:{a}::{h}")) } else { ip(&format!("10.{a}.0.{h}")) }
}

pub(super) struct Net {
    pub rig: Rig,
    peers: Vec<MemoryPeer>,
}

/// Hosts of each bridge: 10 to 13; and beyond the last one on the second everything else.
const HOSTS: std::ops::Range<u8> = 10..14;

fn mac(bridge: usize, host: u8) -> [u8; 6] {
    [2, 0, 0, 0, bridge as u8 + 1, host]
}

impl Net {
    /// `bridge_n` has 10.n.0.1/16 and fd00:n::1/64.
    pub fn new(workers: usize, rules: &[Nat]) -> Self {
        let mut rig = Rig::new(Size { workers, flows: 1 << 12, neighbours: 256, ..Size::default() });
        let name = |text: &str| -> switch_api::Name { text.parse().unwrap() };
        let (mut peers, owner) = (Vec::new(), Owner::default());
        for n in 0..2 {
            let bridge_name = format!("br{n}");
            let bridge = Bridge { mac: Some(Mac(OWN)), ..Bridge::new(name(&bridge_name)) };
            let request = if n == 0 { Request::BridgeSet(bridge) } else { Request::BridgeAdd(bridge) };
            rig.declare(&request).unwrap();
            for address in [format!("10.{n}.0.1/16"), format!("fd00:{n}::1/64")] {
                let (bridge, address) = (name(&bridge_name), address.parse().unwrap());
                let gateway = BridgeAddress { bridge, address, vid: Vid::DEFAULT, owner };
                rig.declare(&Request::AddressAdd(gateway)).unwrap();
            }
            let (port, peer) = memory::wire();
            let port_name = format!("p{n}");
            let settings = PortSettings { hairpin: true, ..PortSettings::default() };
            rig.add_port_to(&bridge_name, &port_name, settings, Box::new(port), (n % workers) as u16)
                .unwrap();
            peers.push(peer);
        }
        for (prefix, gateway) in [("0.0.0.0/0", "10.1.0.13"), ("::/0", "fd00:1::13")] {
            let (bridge, vid) = (None, Vid::DEFAULT);
            let via = vec![NextHop { address: gateway.parse().unwrap(), bridge, vid, weight: 1 }];
            let (prefix, vrf) = (prefix.parse().unwrap(), switch_api::Name::main());
            let route =
                Route { prefix, vrf, metric: 0, mtu: None, count: false, kind: RouteKind::Via, via, owner };
            rig.declare(&Request::RouteAdd(route)).unwrap();
        }
        let mut net = Self { rig, peers };
        rules.iter().for_each(|rule| net.declare(rule));
        for n in 0..2 {
            net.pin(n);
        }
        net
    }

    /// Hosts are known: neighbours as the control thread pins those that are declared, stations by what they send.
    fn pin(&mut self, n: usize) {
        for h in HOSTS {
            for v6 in [false, true] {
                let (src, dst) = (host(v6, n as u8, h), host(v6, n as u8, 1));
                let asks = P { what: What::Ask, src, dst, ports: [1, 1] };
                let fid = *self.rig.model.fids.values().nth(n).unwrap();
                assert!(
                    self.rig.tables.neigh.pin(crate::table::neigh::key(fid, src), Mac(mac(n, h)).to_u64())
                );
                assert!(self.peers[n].send(frame(mac(n, h), &asks.packet(&[]))));
            }
        }
        self.rig.settle(NOW);
        self.take();
    }

    pub fn declare(&mut self, rule: &Nat) {
        self.rig.declare(&Request::NatSet(Box::new(rule.clone()))).unwrap();
    }

    /// Sends an IP packet to be routed, from a host of a bridge. What comes out, by bridge.
    pub fn send_raw(&mut self, n: usize, from: u8, packet: &[u8]) -> Vec<(usize, Vec<u8>)> {
        self.put(n, from, packet);
        self.settle(NOW)
    }

    /// Puts an IP packet to be routed on a host's wire: what is put there before [`Net::settle`] comes in together.
    pub fn put(&mut self, n: usize, from: u8, packet: &[u8]) {
        assert!(self.peers[n].send(frame(mac(n, from), packet)));
    }

    /// What comes of what was put on wires, by bridge.
    pub fn settle(&mut self, now: Now) -> Vec<(usize, Vec<u8>)> {
        self.rig.settle(now);
        self.rig.assert_conserved();
        self.take()
    }

    fn take(&mut self) -> Vec<(usize, Vec<u8>)> {
        let each = self.peers.iter().enumerate();
        each.flat_map(|(n, peer)| std::iter::from_fn(|| peer.recv()).map(move |frame| (n, frame))).collect()
    }

    /// Sends a packet from the host that has its source, or that stands for the outside. What becomes of it.
    pub fn send(&mut self, packet: P) -> Option<P> {
        let (n, from) = whose(packet.src);
        let mut out = self.send_raw(n, from, &packet.packet(b"what it says"));
        assert!(out.len() <= 1, "{} frames for one", out.len());
        let (n, frame) = out.pop()?;
        let read = P::read(&frame[14..], true);
        let (to, station) = whose(read.dst);
        assert_eq!((n, &frame[..6]), (to, &mac(to, station)[..]), "{read:?}");
        assert!(frame.ends_with(b"what it says"));
        Some(read)
    }
}

/// On which bridge a host is, and as which station.
pub(super) fn whose(ip: u128) -> (usize, u8) {
    for n in 0..2 {
        for h in HOSTS {
            if [host(false, n, h), host(true, n, h)].contains(&ip) {
                return (n.into(), h);
            }
        }
    }
    (1, 13)
}

fn frame(from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&OWN[..], &from, &ethertype, packet].concat()
}

fn rule(name: &str, kind: NatKind) -> Nat {
    let owner = Owner::default();
    Nat { name: name.parse().unwrap(), vrf: switch_api::Name::main(), kind, owner }
}

/// `udp` and a port, or everything.
pub(super) fn destination(
    name: &str,
    address: u128,
    port: Option<u16>,
    to: u128,
    to_port: Option<u16>,
) -> Nat {
    let (address, to) = (from_bits(address), from_bits(to));
    let protocol = port.map(|_| switch_api::IpProtocol::UDP);
    rule(name, NatKind::Destination { address, protocol, port, to, to_port })
}

pub(super) fn one_to_one(name: &str, external: u128, internal: u128) -> Nat {
    let (external, internal) = (from_bits(external), from_bits(internal));
    rule(name, NatKind::OneToOne { external, internal })
}

pub(super) fn source(
    name: &str,
    from: &[&str],
    except: &[&str],
    out: Option<&str>,
    to: &[u128],
    ports: &str,
) -> Nat {
    let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let kind = NatKind::Source {
        from: prefixes(from),
        except: prefixes(except),
        out: out.map(|name| name.parse().unwrap()),
        to: to.iter().copied().map(from_bits).collect(),
        ports: ports.parse().unwrap(),
        priority: switch_api::NAT_PRIORITY_DEFAULT,
    };
    rule(name, kind)
}
