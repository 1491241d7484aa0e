//! Translated packets that are read at a glance and turned at once, against their dull twin: the same packets with options in their IPv4
//! headers, which are read with care and turned one by one. Whatever is sent, whichever way, in batches of any mixture, with rules of
//! all kinds and a policy that changes: the same arrives, the same is dropped and counted by the same name, and the same flows are there.

use super::Now;
use super::glance_rig::{Counted, HEAD, Segment, counted, options, packet as written, protocol, transport};
use super::nat_rig::{NOW, Net, P, What, destination, host, ip, one_to_one, source, whose};
use super::policy_tests::pod;
use crate::wire::checksum::{fold, sum};
use crate::wire::ip::TCP;
use crate::wire::packet::flags::{ACK, FIN, RST, SYN};
use proptest::prelude::*;
use proptest::sample::Index;
use switch_api::{Nat, NetworkPolicy, PortLabel, Request};

/// Bytes of an Ethernet header.
const LINK: usize = 14;

/// A packet that is sent.
#[derive(Clone, Debug)]
enum Sent {
    /// From a host of a bridge, to somebody.
    New { from: (u8, u8), to: u8, ports: [u16; 2], tcp: Segment },
    /// An answer to something that arrived.
    Answer(Index, Segment),
    /// One more with the ends of something that was sent.
    Again(Index, Segment),
}

/// What may happen.
#[derive(Clone, Debug)]
enum Op {
    /// Packets that come in together.
    Send(Vec<Sent>),
    /// A connection is opened, or what both take for one; then each says something.
    Connect { from: (u8, u8), to: u8, port: u16 },
    /// Whom the second bridge's port takes from, by ports up to this.
    Allow { from: &'static str, end: u16 },
    /// Seconds pass.
    Wait(u64),
}

fn segment() -> impl Strategy<Value = Segment> {
    let flags = prop_oneof![12 => Just(ACK), 2 => Just(SYN), 1 => Just(SYN | ACK), 1 => Just(FIN | ACK), 1 => Just(RST), 1 => any::<u8>()];
    let number = || prop_oneof![8 => 1u32..4, 1 => any::<u32>()];
    prop_oneof![2 => Just(None), 2 => (flags, number(), number()).prop_map(Some)]
}

fn from() -> impl Strategy<Value = (u8, u8)> {
    (0u8..2, 10u8..13)
}

fn sent() -> impl Strategy<Value = Sent> {
    let port = || prop_oneof![Just(53u16), Just(80), Just(5353), Just(8080), 2000u16..2003, Just(7)];
    let new = (from(), 0..TARGETS, [port(), port()], segment());
    prop_oneof![
        3 => new.prop_map(|(from, to, ports, tcp)| Sent::New { from, to, ports, tcp }),
        4 => (any::<Index>(), segment()).prop_map(|(index, tcp)| Sent::Answer(index, tcp)),
        4 => (any::<Index>(), segment()).prop_map(|(index, tcp)| Sent::Again(index, tcp)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let port = prop_oneof![Just(80u16), Just(7)];
    let waits = prop_oneof![4 => Just(0u64), 2 => Just(1), 1 => Just(31), 1 => Just(301)];
    prop_oneof![
        10 => proptest::collection::vec(sent(), 1..12).prop_map(Op::Send),
        2 => (from(), 0..TARGETS, port).prop_map(|(from, to, port)| Op::Connect { from, to, port }),
        1 => (prop_oneof![Just("10.0.0.0/16"), Just("10.0.0.10/32")], prop_oneof![Just(100u16), Just(9000)])
            .prop_map(|(from, end)| Op::Allow { from, end }),
        1 => waits.prop_map(Op::Wait),
    ]
}

const TARGETS: u8 = 8;

fn target(n: u8) -> u128 {
    let all =
        ["10.0.0.11", "10.1.0.10", "10.1.0.12", "10.9.0.1", "10.9.0.2", "10.9.0.7", "10.77.0.1", "10.77.0.2"];
    ip(all[usize::from(n)])
}

fn rules() -> Vec<Nat> {
    let virt = |h: u8| host(false, 9, h);
    vec![
        destination("dns", virt(1), Some(53), host(false, 1, 10), Some(5353)),
        destination("all", virt(1), None, host(false, 1, 11), None),
        destination("hairpin", virt(2), None, host(false, 0, 10), None),
        one_to_one("one", virt(7), host(false, 0, 12)),
        source("out", &["10.0.0.0/16"], &["10.1.0.12/32"], Some("br1"), &[virt(100)], "2000-2007"),
        source("in", &["10.0.0.0/16"], &[], Some("br0"), &[virt(102)], "3000-3999"),
    ]
}

fn policy(from: &str, end: u16) -> NetworkPolicy {
    let ports =
        ["TCP", "UDP"].map(|protocol| serde_json::json!({"protocol": protocol, "port": 1, "endPort": end}));
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": from}}], "ports": ports}],
        },
    }))
    .unwrap()
}

/// A packet's ends, and what it says.
#[derive(Clone, Copy, Debug)]
struct Packet {
    ends: P,
    tcp: Segment,
}

/// All that can be seen: on which bridge which frame arrived (without options), and what was counted and is known.
type Outcome = (Vec<(usize, Vec<u8>)>, Counted);

struct Lab {
    net: Net,
    /// It has options in its packets.
    is_dull: bool,
    marks: u32,
    sent: Vec<Packet>,
    arrived: Vec<Packet>,
}

impl Lab {
    fn new(is_dull: bool, is_policed: bool) -> Self {
        let mut net = Net::new(1, &rules());
        if is_policed {
            let label = PortLabel { name: "p1".parse().unwrap(), workload: Some(pod("db", "10.1.0.10")) };
            net.rig.declare(&Request::PortLabel(label)).unwrap();
            net.rig.declare(&Request::PolicySet(Box::new(policy("10.0.0.0/16", 9000)))).unwrap();
        }
        Self { net, is_dull, marks: 0, sent: Vec::new(), arrived: Vec::new() }
    }

    /// Puts a packet on its sender's wire. Some datagrams have no checksum.
    fn send(&mut self, packet: Packet) {
        let Packet { ends: P { src, dst, ports, .. }, tcp } = packet;
        self.marks += 1;
        let (protocol, mut transport) = (protocol(tcp), transport(ports, tcp, self.marks));
        let addresses = [src, dst].map(|ip| (ip as u32).to_be_bytes());
        if tcp.is_some() || !self.marks.is_multiple_of(4) {
            let pseudo = sum(&addresses.concat()) + transport.len() as u64 + u64::from(protocol);
            let checksum = !fold(pseudo + sum(&transport));
            let checksum = if checksum == 0 { 0xffff } else { checksum };
            let field = if tcp.is_some() { 16 } else { 6 };
            transport[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        let (n, from) = whose(src);
        self.net.put(n, from, &written(self.is_dull, protocol, addresses, &transport));
        self.sent.push(packet);
    }

    fn go(&mut self, op: &Op, now: Now) -> Outcome {
        match op {
            Op::Send(all) => {
                for sent in all {
                    match sent {
                        Sent::New { from, to, ports, tcp } => {
                            let ends = P {
                                what: What::Udp,
                                src: host(false, from.0, from.1),
                                dst: target(*to),
                                ports: *ports,
                            };
                            self.send(Packet { ends, tcp: *tcp });
                        }
                        Sent::Answer(index, tcp) if !self.arrived.is_empty() => {
                            let to = *index.get(&self.arrived);
                            self.send(Packet {
                                ends: to.ends.mirror(),
                                tcp: to.tcp.and(tcp.or(Some((ACK, 1, 1)))),
                            });
                        }
                        Sent::Again(index, tcp) if !self.sent.is_empty() => {
                            let before = *index.get(&self.sent);
                            let tcp = before.tcp.and(tcp.or(Some((ACK, 1, 1))));
                            self.send(Packet { tcp, ..before });
                        }
                        _ => {}
                    }
                }
            }
            Op::Connect { from, to, port } => return self.connect(*from, *to, *port, now),
            Op::Allow { from, end } => {
                if self.net.rig.snapshot().policed {
                    self.net.rig.declare(&Request::PolicySet(Box::new(policy(from, *end)))).unwrap();
                }
            }
            Op::Wait(_) => {}
        }
        self.seen(now)
    }

    fn connect(&mut self, from: (u8, u8), to: u8, port: u16, now: Now) -> Outcome {
        let ends =
            P { what: What::Udp, src: host(false, from.0, from.1), dst: target(to), ports: [4000, port] };
        let mut all = Outcome::default();
        let says = [(SYN, 0, 0), (SYN | ACK, 0, 1), (ACK, 1, 1), (ACK, 1, 1), (ACK, 1, 1), (ACK, 1, 1)];
        let mut back = None;
        for (n, said) in says.into_iter().enumerate() {
            let ends = if n % 2 == 0 { Some(ends) } else { back };
            let Some(ends) = ends else { break };
            let before = self.arrived.len();
            self.send(Packet { ends, tcp: Some(said) });
            let seen = self.seen(now);
            all.0.extend(seen.0);
            all.1 = seen.1;
            if n % 2 == 0 {
                back = self.arrived.get(before).map(|arrived| arrived.ends.mirror());
            }
        }
        all
    }

    /// What came of it. Every checksum is right, or there is none.
    fn seen(&mut self, now: Now) -> Outcome {
        let mut got = Vec::new();
        for (n, mut frame) in self.net.settle(now) {
            let packet = &frame[LINK..];
            let head_len = usize::from(packet[0] & 0xf) * 4;
            assert_eq!(head_len, HEAD + options(self.is_dull).len());
            assert_eq!(fold(sum(&packet[..head_len])), 0xffff);
            let transport = &packet[head_len..];
            let (protocol, word) =
                (packet[9], |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]));
            if protocol == TCP || word(6) != 0 {
                let pseudo = sum(&packet[12..20]) + transport.len() as u64 + u64::from(protocol);
                assert_eq!(fold(pseudo + sum(transport)), 0xffff, "{frame:02x?}");
            }
            let at = |at: usize| {
                let bytes: [u8; 4] = packet[at..at + 4].try_into().unwrap();
                0xffff << 32 | u128::from(u32::from_be_bytes(bytes))
            };
            let ends = P { what: What::Udp, src: at(12), dst: at(16), ports: [word(0), word(2)] };
            let tcp = (protocol == TCP).then_some((ACK, 1, 1));
            self.arrived.push(Packet { ends, tcp });
            // What the header says of its own length is all that may differ.
            frame[LINK] = 0;
            frame[LINK + 2..LINK + 4].fill(0);
            frame[LINK + 10..LINK + 12].fill(0);
            frame.drain(LINK + HEAD..LINK + head_len);
            got.push((n, frame));
        }
        (got, counted(&self.net.rig, 2, 32, now))
    }
}

proptest! {
    #![proptest_config(crate::cases::cases(128))]

    #[test]
    fn who_is_turned_at_once_becomes_what_who_is_turned_with_care_becomes(
        is_policed: bool,
        ops in proptest::collection::vec(op(), 10..80),
    ) {
        let (mut clever, mut dull) = (Lab::new(false, is_policed), Lab::new(true, is_policed));
        let mut now = NOW;
        for op in ops {
            now.ns += 1_000_000;
            if let Op::Wait(seconds) = op {
                now.ns += seconds * 1_000_000_000;
            }
            prop_assert_eq!(clever.go(&op, now), dull.go(&op, now), "{:?}", op);
        }
        clever.net.rig.assert_conserved();
    }
}
