//! The same topology twice: the switch on memory ports under a clock of its own, and Linux in a namespace of its own with a
//! TAP device for each link.

use super::topology::{Topology, router};
use std::net::IpAddr;
use switch_api::{Bridge, BridgeAddress, Mac, Name, NextHop, PortSettings, Request, Route, RouteKind, Vid};
use switch_core::host::{arp, nd};
use switch_core::pipeline::Now;
use switch_core::port::memory::{self, MemoryPeer};
use switch_core::rig::{Rig, Size};
use switch_core::wire::hop::{self, V4_MAPPED};
use switch_core::wire::ip::Version;
use switch_lab::Net;
use switch_lab::cable::Cable;

/// Somebody who routes.
pub trait World {
    /// A frame comes in by a link.
    fn send(&mut self, link: usize, frame: &[u8]);
    /// What went out since, each by its link.
    fn drain(&mut self) -> Vec<(usize, Vec<u8>)>;
    /// Lets a part of the time pass in which a neighbour that does not answer is given up.
    fn pass_time(&mut self);
    /// How many parts there are.
    const PARTS: usize;
}

/// The switch.
pub struct Switch {
    rig: Rig,
    peers: Vec<MemoryPeer>,
    now: Now,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl Switch {
    /// With all that is declared.
    pub fn new(topology: &Topology) -> Self {
        let mut rig = Rig::new(Size { neighbours: 4096, seed: 3, ..Size::default() });
        let mut peers = Vec::new();
        for (n, link) in topology.links.iter().enumerate() {
            let bridge = Bridge { mac: Some(Mac(router(n))), ..Bridge::new(name(&format!("br{n}"))) };
            rig.declare(&if n == 0 { Request::BridgeSet(bridge) } else { Request::BridgeAdd(bridge) })
                .unwrap();
            for address in &link.addresses {
                let (bridge, vid) = (name(&format!("br{n}")), Vid::DEFAULT);
                let own = BridgeAddress { bridge, address: *address, vid, owner: Default::default() };
                rig.declare(&Request::AddressAdd(own)).unwrap();
            }
            let (port, peer) = memory::wire();
            let settings = PortSettings { mtu: Some(link.mtu), ..PortSettings::default() };
            rig.add_port_to(&format!("br{n}"), &format!("p{n}"), settings, Box::new(port), 0).unwrap();
            peers.push(peer);
        }
        for route in &topology.routes {
            let hop = |address: IpAddr| NextHop { address, bridge: None, vid: Vid::DEFAULT, weight: 1 };
            let via = route.via.into_iter().map(hop).collect();
            rig.declare(&Request::RouteAdd(Route::new(route.prefix, route.kind, via))).unwrap();
        }
        Self { rig, peers, now: Now { ns: 1_000_000_000_000 } }
    }
}

impl World for Switch {
    fn send(&mut self, link: usize, frame: &[u8]) {
        // What the switch says is limited by the second; a tenth of one is enough for any packet.
        self.now.ns += 20_000_000;
        assert!(self.peers[link].send(frame.to_vec()));
        self.rig.settle(self.now);
    }

    fn drain(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        for (link, peer) in self.peers.iter().enumerate() {
            out.extend(std::iter::from_fn(|| peer.recv()).map(|frame| (link, frame)));
        }
        out
    }

    fn pass_time(&mut self) {
        self.now.ns += 1_100_000_000;
        self.rig.settle(self.now);
    }

    const PARTS: usize = 4;
}

impl Drop for Switch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.rig.assert_conserved();
        }
    }
}

/// Linux.
pub struct Linux {
    cables: Vec<Cable>,
    _net: Net,
}

/// A router that says as much as it is asked to, redirects nobody, and gives neighbours up soon.
const SETTINGS: &str = "\
net.ipv4.ip_forward=1
net.ipv6.conf.all.forwarding=1
net.ipv6.conf.default.forwarding=1
net.ipv4.conf.all.rp_filter=0
net.ipv4.conf.default.rp_filter=0
net.ipv4.conf.all.send_redirects=0
net.ipv4.conf.default.send_redirects=0
net.ipv4.conf.all.accept_source_route=0
net.ipv4.icmp_ratelimit=0
net.ipv6.icmp.ratelimit=0
net.ipv6.conf.default.accept_dad=0
net.ipv6.conf.default.dad_transmits=0
net.ipv6.conf.default.router_solicitations=0
";

impl Linux {
    /// With all that is declared.
    pub fn new(topology: &Topology) -> Self {
        let net = Net::new("linux");
        net.run(&format!("sysctl -qw {}", SETTINGS.replace('\n', " ")));
        // Told apart from the global limit of older kernels, which a namespace cannot change.
        _ = net.try_run("sysctl -qw net.ipv4.icmp_msgs_per_sec=1000000 net.ipv4.icmp_msgs_burst=100000");
        let cables = (0..topology.links.len()).map(|n| Cable::new(&net, &format!("t{n}")).unwrap()).collect();
        let mut batch = String::new();
        for (n, link) in topology.links.iter().enumerate() {
            for version in [4, 6] {
                let neigh = format!("net.ipv{version}.neigh.t{n}");
                net.run(&format!(
                    "sysctl -qw {neigh}.retrans_time_ms=10 {neigh}.delay_first_probe_time=1000"
                ));
            }
            let mac = Mac(router(n));
            batch += &format!("link set t{n} address {mac} mtu {} up\n", link.mtu);
            for address in &link.addresses {
                let further = if address.address.is_ipv6() { "nodad" } else { "" };
                batch += &format!("addr add {address} dev t{n} {further}\n");
            }
        }
        for route in &topology.routes {
            let family = if route.prefix.address.is_ipv6() { "-6" } else { "-4" };
            let kind = match route.kind {
                RouteKind::Via => String::new(),
                kind => format!("{kind:?}").to_lowercase(),
            };
            let via = route.via.map_or(String::new(), |via| format!("via {via}"));
            batch += &format!("{family} route add {kind} {} {via}\n", route.prefix);
        }
        for line in batch.lines() {
            let (words, v6) = line.strip_prefix("-6 ").map_or((line, ""), |rest| (rest, "-6 "));
            net.ip(&format!("{v6}{}", words.trim_start_matches("-4 ")));
        }
        let mut world = Self { cables, _net: net };
        // What devices say when they come up.
        std::thread::sleep(std::time::Duration::from_millis(20));
        world.drain();
        world
    }
}

impl World for Linux {
    fn send(&mut self, link: usize, frame: &[u8]) {
        // The device refuses what is no frame; nobody routes that.
        _ = self.cables[link].send(frame);
    }

    fn drain(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        for (link, cable) in self.cables.iter().enumerate() {
            out.extend(std::iter::from_fn(|| cable.recv()).map(|frame| (link, frame)));
        }
        out
    }

    fn pass_time(&mut self) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }

    const PARTS: usize = 25;
}

/// What a frame means to stations.
enum Heard {
    /// Who has this address? Asked from this one.
    Question(IpAddr, u128),
    /// Something else between neighbours: nobody compares it.
    Chatter,
    /// A packet.
    Packet,
}

fn hear(frame: &[u8]) -> Heard {
    let packet = &frame[14..];
    match [frame[12], frame[13]] {
        [8, 6] => match arp::read(packet) {
            Some(arp) if arp.asks => Heard::Question(IpAddr::V4((arp.target as u32).into()), arp.sender),
            _ => Heard::Chatter,
        },
        [0x86, 0xdd] => {
            let Ok(hop) = hop::read(packet, Version::V6) else { return Heard::Packet };
            match nd::read(packet, &hop) {
                Some(nd::Nd::Solicit { target, .. }) => Heard::Question(IpAddr::V6(target.into()), hop.src),
                Some(_) => Heard::Chatter,
                // Group membership (RFC 3810) and redirects (RFC 4861), which only a router's own kernel says.
                None if packet[6] == 0 && packet.get(48) == Some(&143) => Heard::Chatter,
                None if packet[6] == 58 && matches!(packet.get(40), Some(&(130..=137 | 143))) => {
                    Heard::Chatter
                }
                None => Heard::Packet,
            }
        }
        _ => Heard::Packet,
    }
}

fn answer(link: usize, mac: [u8; 6], target: IpAddr, asker: u128) -> Vec<u8> {
    let mut frame = [&router(link)[..], &mac, &[0; 2]].concat();
    frame.resize(14 + nd::LEN, 0);
    let (sender_mac, target_mac) = (Mac(mac).to_u64(), Mac(router(link)).to_u64());
    let len = match target {
        IpAddr::V4(target) => {
            frame[12..14].copy_from_slice(&[8, 6]);
            let sender = V4_MAPPED | u128::from(target.to_bits());
            arp::write(
                &mut frame[14..],
                &arp::Arp { asks: false, sender_mac, sender, target_mac, target: asker },
            )
        }
        IpAddr::V6(target) => {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            nd::advert(&mut frame[14..], asker, target.to_bits(), sender_mac, true, true)
        }
    };
    frame.truncate(14 + len);
    frame
}

/// What comes of a frame: stations answer when they are asked for, and who is not there is given up.
pub fn exchange<W: World>(
    world: &mut W,
    topology: &Topology,
    link: usize,
    frame: &[u8],
) -> Vec<(usize, Vec<u8>)> {
    let (mut out, mut parts, mut waits) = (Vec::new(), 0, false);
    world.send(link, frame);
    loop {
        let came = world.drain();
        if came.is_empty() {
            // Somebody did not answer: what was to be sent to him is told of in the end, or nobody wants to know.
            if parts == 0 || !out.is_empty() {
                return out;
            }
            parts -= 1;
            world.pass_time();
        }
        for (link, frame) in came {
            match hear(&frame) {
                Heard::Question(target, asker) => match topology.answers(link, target) {
                    Some(mac) => world.send(link, &answer(link, mac, target, asker)),
                    None if waits => {}
                    None => (parts, waits) = (W::PARTS, true),
                },
                Heard::Chatter => {}
                Heard::Packet => out.push((link, frame)),
            }
        }
    }
}
