//! Translation through the whole pipeline, beside a dull twin: a map from what was sent to what came out. Both IP versions,
//! UDP and pings; what errors quote; what is dropped and called what.

use super::nat_rig::{NOW, Net, P, What, destination, host, ip, one_to_one, source, whose};
use crate::config::gateway::is_v4;
use crate::counter::DropReason;
use crate::wire::checksum::{fold, sum};
use crate::wire::ip::{ICMP, ICMPV6};
use etherparse::PacketBuilder;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::collections::{HashMap, HashSet};
use switch_api::{ByName, Nat, Request};

/// Addresses of translation: 10.9.0.h and fd00:9::h.
fn virt(v6: bool, h: u8) -> u128 {
    host(v6, 9, h)
}

fn own(v6: bool) -> u128 {
    ip(if v6 { "fd00:0::1" } else { "10.0.0.1" })
}

/// Rules of all kinds, for both versions.
fn rules() -> Vec<Nat> {
    let of = |v6: bool| {
        let n = |name: &str| format!("{name}{}", if v6 { 6 } else { 4 });
        let (from, except) =
            if v6 { ("fd00:0::/64", "fd00:1::11/128") } else { ("10.0.0.0/16", "10.1.0.11/32") };
        let to = [virt(v6, 100), virt(v6, 101)];
        vec![
            destination(&n("dns"), virt(v6, 1), Some(53), host(v6, 1, 10), Some(5353)),
            destination(&n("all"), virt(v6, 1), None, host(v6, 1, 11), None),
            destination(&n("own"), own(v6), Some(80), host(v6, 1, 12), Some(8080)),
            destination(&n("hairpin"), virt(v6, 2), Some(80), host(v6, 0, 10), Some(8080)),
            one_to_one(&n("one"), virt(v6, 7), host(v6, 0, 12)),
            source(&n("out"), &[from], &[except], Some("br1"), &to, "2000-2005"),
            source(&n("in"), &[from], &[], Some("br0"), &[virt(v6, 102)], "3000-3999"),
        ]
    };
    [of(false), of(true)].concat()
}

/// The dull twin: rules read one by one, and a map of what was sent to what came out, both ways.
#[derive(Default)]
struct Twin {
    workers: u16,
    out: HashMap<P, P>,
    /// New source addresses, by host and pool.
    pool: HashMap<(u128, u8), u128>,
}

/// What a rule wants of a new packet.
struct Wish {
    dst: (u128, u16),
    /// Pool and ports; or one address and the port it has.
    src: Option<(u8, Vec<u128>, std::ops::RangeInclusive<u16>)>,
}

impl Twin {
    fn wish(&self, p: &P) -> Result<Wish, DropReason> {
        let v6 = !is_v4(p.src);
        let (port, udp) = (p.ports[1], p.what == What::Udp);
        let dst = match p.dst {
            dst if dst == virt(v6, 1) && udp && port == 53 => (host(v6, 1, 10), 5353),
            dst if dst == virt(v6, 1) => (host(v6, 1, 11), port),
            dst if dst == own(v6) && udp && port == 80 => (host(v6, 1, 12), 8080),
            dst if dst == virt(v6, 2) && udp && port == 80 => (host(v6, 0, 10), 8080),
            dst if dst == virt(v6, 7) => (host(v6, 0, 12), port),
            dst if [2, 100, 101, 102].iter().any(|h| dst == virt(v6, *h)) => return Err(DropReason::NatNone),
            dst => (dst, port),
        };
        let is_0 = |ip: u128| (10..14).any(|h| ip == host(v6, 0, h));
        let src = if p.src == host(v6, 0, 12) {
            Some((9, vec![virt(v6, 7)], p.ports[0]..=p.ports[0]))
        } else if is_0(p.src) && !is_0(dst.0) && dst.0 != host(v6, 1, 11) {
            Some((1, vec![virt(v6, 100), virt(v6, 101)], 2000..=1999 + 6 / self.workers))
        } else if is_0(p.src) && is_0(dst.0) {
            Some((0, vec![virt(v6, 102)], 3000..=3999))
        } else {
            None
        };
        Ok(Wish { dst, src })
    }

    /// Whether somebody's packets look like this already.
    fn is_taken(&self, p: &P) -> bool {
        self.out.contains_key(&p.mirror()) || self.out.contains_key(p)
    }

    /// Looks at what became of a packet, and remembers it.
    fn see(&mut self, p: P, got: Option<P>) -> Result<(), TestCaseError> {
        if let Some(wanted) = self.out.get(&p) {
            prop_assert_eq!(got, Some(*wanted), "of a known flow");
            return Ok(());
        }
        if self.out.get(&p.mirror()).is_some_and(|became| *became != p.mirror()) {
            prop_assert_eq!(got, None, "it has the ends of a translated flow, and is not of it");
            return Ok(());
        }
        let Ok(Wish { dst, src }) = self.wish(&p) else {
            prop_assert_eq!(got, None, "nobody has that address");
            return Ok(());
        };
        let keep = |ports: [u16; 2]| if p.what == What::Udp { ports } else { [ports[0]; 2] };
        let (pool, addresses, ports) = match &src {
            Some((pool, addresses, ports)) => (*pool, addresses.clone(), ports.clone()),
            None => (10, vec![p.src], p.ports[0]..=p.ports[0]),
        };
        let Some(got) = got else {
            // Of one of the addresses every port is in use.
            let known = self.pool.get(&(p.src, pool));
            let addresses = known.map_or(addresses, |ip| vec![*ip]);
            let full = |ip: &u128| {
                let all =
                    ports.clone().map(|port| P { src: *ip, dst: dst.0, ports: keep([port, dst.1]), ..p });
                all.clone().count() > 0 && all.clone().all(|made| self.is_taken(&made) || made.mirror() == p)
            };
            prop_assert!(addresses.iter().any(full), "{:?} was dropped, though a port is free", p);
            return Ok(());
        };
        prop_assert_eq!((got.what, got.dst), (p.what, dst.0));
        prop_assert!(p.what != What::Udp || got.ports[1] == dst.1);
        prop_assert!(
            addresses.contains(&got.src) && ports.contains(&got.ports[0]),
            "{:?} became {:?}",
            p,
            got
        );
        if src.is_some() {
            let first = *self.pool.entry((p.src, pool)).or_insert(got.src);
            prop_assert_eq!(first, got.src, "a host has one address");
        }
        prop_assert!(!self.is_taken(&got), "{:?} became {:?}, which is another's", p, got);
        self.out.insert(p, got);
        self.out.insert(got.mirror(), p.mirror());
        Ok(())
    }
}

/// What is sent: a packet from a host to somebody, or the answer to something that arrived.
#[derive(Clone, Debug)]
enum Act {
    New { v6: bool, udp: bool, from: (u8, u8), to: u8, ports: [u16; 2] },
    Answer(prop::sample::Index),
    Again(prop::sample::Index),
}

fn acts() -> impl Strategy<Value = Act> {
    let port = || prop_oneof![Just(53u16), Just(80), Just(5353), Just(8080), 2000u16..2004, Just(7)];
    let new = (any::<bool>(), any::<bool>(), (0u8..2, 10u8..14), 0u8..16, [port(), port()]);
    prop_oneof![
        3 => new.prop_map(|(v6, udp, from, to, ports)| Act::New { v6, udp, from, to, ports }),
        2 => any::<prop::sample::Index>().prop_map(Act::Answer),
        1 => any::<prop::sample::Index>().prop_map(Act::Again),
    ]
}

fn target(v6: bool, to: u8) -> u128 {
    match to {
        0..4 => host(v6, 0, 10 + to),
        4..8 => host(v6, 1, 6 + to),
        8 | 9 => virt(v6, 1),
        10 => virt(v6, 2),
        11 => virt(v6, 7),
        12 => own(v6),
        13 => virt(v6, 100),
        // The outside.
        _ => host(v6, 77, to),
    }
}

/// Everything that is sent becomes what the twin says, whichever way it goes.
fn play(workers: usize, acts: &[Act]) -> Result<HashMap<P, P>, TestCaseError> {
    let mut net = Net::new(workers, &rules());
    // The first worker has the bridge whose hosts' sources are translated.
    let mut twin = Twin { workers: workers as u16, ..Twin::default() };
    let (mut sent, mut arrived): (Vec<P>, Vec<P>) = Default::default();
    for act in acts {
        let p = match act {
            Act::New { v6, udp, from, to, ports } => {
                let (src, dst) = (host(*v6, from.0, from.1), target(*v6, *to));
                match udp {
                    true => P { what: What::Udp, src, dst, ports: *ports },
                    // The switch answers pings to itself.
                    false if dst == own(*v6) => continue,
                    false => P { what: What::Ask, src, dst, ports: [ports[0]; 2] },
                }
            }
            Act::Answer(_) if arrived.is_empty() => continue,
            Act::Answer(index) => index.get(&arrived).mirror(),
            Act::Again(_) if sent.is_empty() => continue,
            Act::Again(index) => *index.get(&sent),
        };
        // To oneself nobody sends by a router; nor is the switch a server.
        let to_switch = p.dst == own(!is_v4(p.src)) && p.ports[1] != 80 && !twin.out.contains_key(&p);
        if p.src == p.dst || to_switch {
            continue;
        }
        let got = net.send(p);
        twin.see(p, got)?;
        sent.push(p);
        arrived.extend(got);
    }
    Ok(twin.out)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_out_is_what_a_map_says(workers in 1usize..3, acts in proptest::collection::vec(acts(), 1..120)) {
        play(workers, &acts)?;
    }
}

/// The play above is one in which things happen.
#[test]
fn the_twin_has_something_to_say() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = proptest::collection::vec(acts(), 400);
    let acts = strategy.new_tree(&mut runner).unwrap().current();
    let out = play(2, &acts).unwrap();
    let changed: HashSet<(bool, bool)> = out.iter().map(|(p, q)| (p.src != q.src, p.dst != q.dst)).collect();
    assert_eq!(changed.len(), 4, "neither, either and both are translated: {changed:?}");
    assert!(out.len() > 100);
}

#[test]
fn a_flow_reaches_its_backend_and_the_answer_comes_from_whom_was_asked() {
    let mut net = Net::new(1, &rules());
    for v6 in [false, true] {
        let (client, virt, server) = (host(v6, 1, 13), virt(v6, 1), host(v6, 1, 10));
        let asks = P { what: What::Udp, src: client, dst: virt, ports: [4000, 53] };
        let arrives = P { dst: server, ports: [4000, 5353], ..asks };
        assert_eq!(net.send(asks), Some(arrives));
        assert_eq!(net.send(arrives.mirror()), Some(asks.mirror()));
    }
    assert_eq!(net.rig.tables.flows.counted().all, 4, "a translated flow takes two entries");
}

/// The ports of a worker run out for one peer; another peer has them all again, and what is over gives its port back.
#[test]
fn ports_run_out_for_a_peer_and_are_given_back() {
    let mut net = Net::new(2, &rules());
    let sends = |port: u16, to: u8| P {
        what: What::Udp,
        src: host(false, 0, 10),
        dst: host(false, 77, to),
        ports: [port, 9],
    };
    let ports: HashSet<u16> = (0..3).map(|n| net.send(sends(n, 1)).unwrap().ports[0]).collect();
    assert_eq!(ports, HashSet::from([2000, 2001, 2002]));
    assert_eq!(net.send(sends(3, 1)), None);
    assert_eq!(net.rig.drops(DropReason::NatExhausted), 1);
    assert!(net.send(sends(3, 2)).is_some());
    let slot = net.rig.model.nats[&"out4".parse::<switch_api::Name>().unwrap()].slot;
    let counted = |n| net.rig.counters[0].rule(slot + n).unwrap().get();
    assert_eq!((counted(0), counted(1)), (4, 1));
    assert_eq!(net.rig.take_refused()[0].slot, Some(slot + 1), "it is told of");
    // Half a minute later nobody has answered, and the ports are free.
    let places = net.rig.tables.flows.places();
    let all: Vec<u32> = {
        let mut all = Vec::new();
        net.rig.tables.flows.scan_bound(0..places, |place, _, _, _| all.push(place));
        all
    };
    assert!(all.iter().all(|place| net.rig.tables.flows.kill_at(*place)));
    for n in 0..4000u64 {
        net.rig.run(super::Now { ns: NOW.ns + n * 2_000_000 });
    }
    assert_eq!(net.rig.tables.flows.counted().all, 0, "both entries of each are gone");
    assert!(net.send(sends(3, 1)).is_some());
}

/// A port that may begin three flows begins three, translated or not, and another when one is over: what takes two entries is one flow.
#[test]
fn a_translated_flow_is_one_of_those_that_a_port_may_begin() {
    let mut net = Net::new(1, &rules());
    let limits = switch_api::PortLimits { connections: Some(3), ..Default::default() };
    let settings = switch_api::PortSettings { limits, hairpin: true, ..Default::default() };
    let name = "p0".parse().unwrap();
    net.rig.declare(&Request::PortSet(switch_api::PortSet { name, settings })).unwrap();
    let sends = |net: &mut Net, port: u16| {
        let (src, dst) = (host(false, 0, 10), host(false, 77, port as u8));
        net.send(P { what: What::Udp, src, dst, ports: [port, 9] }).is_some()
    };
    assert_eq!([1, 2, 3, 4].map(|port| sends(&mut net, port)), [true, true, true, false]);
    assert_eq!(net.rig.drops(DropReason::ConnectionLimit), 1);
    assert_eq!(net.rig.tables.flows.counted().all, 6, "two entries each");
    let mut places = Vec::new();
    net.rig.tables.flows.scan_bound(0..net.rig.tables.flows.places(), |place, _, _, _| places.push(place));
    assert!(net.rig.tables.flows.kill_at(places[0]));
    // What it was bound to is free with the next round.
    (0..4000u64).for_each(|n| _ = net.rig.run(super::Now { ns: NOW.ns + n * 2_000_000 }));
    assert_eq!([4, 5].map(|port| sends(&mut net, port)), [true, false]);
    assert_eq!(net.rig.tables.flows.begun_at(0), 3);
}

/// Two packets of one new flow that come in together (a resolver asks for addresses of both kinds at once): both are of it, and arrive.
#[test]
fn first_packets_that_come_in_together_are_of_one_flow() {
    for v6 in [false, true] {
        let mut net = Net::new(1, &rules());
        let (far, virt) = (host(v6, 77, 1), |h| virt(v6, h));
        // Destination, source, one for one, both.
        let cases = [
            (host(v6, 1, 13), virt(1), 53),
            (host(v6, 0, 10), far, 9),
            (host(v6, 0, 12), far, 9),
            (host(v6, 0, 11), virt(2), 80),
        ];
        for (src, dst, port) in cases {
            let asks = P { what: What::Udp, src, dst, ports: [4000, port] };
            let (n, from) = whose(src);
            let before = net.rig.tables.flows.counted().all;
            (0..3).for_each(|_| net.put(n, from, &asks.packet(&[])));
            let out: Vec<P> = net.settle(NOW).iter().map(|(_, frame)| P::read(&frame[14..], true)).collect();
            assert!(out.len() == 3 && out.iter().all(|it| *it == out[0]), "{asks:?}: {out:?}");
            assert_eq!(net.rig.tables.flows.counted().all, before + 2, "{asks:?}");
            assert_eq!(net.send(out[0].mirror()), Some(asks.mirror()));
        }
        assert_eq!(net.rig.drops(DropReason::NatExhausted), 0);
    }
}

/// A translated flow takes two entries, and is one of those that its port may begin.
#[test]
fn a_connection_limit_counts_a_translated_flow_once() {
    let mut net = Net::new(1, &rules());
    let name: switch_api::Name = "p0".parse().unwrap();
    let mut settings = net.rig.model.ports[&name].object.settings.clone();
    settings.limits.connections = Some(3);
    net.rig.declare(&Request::PortSet(switch_api::PortSet { name, settings })).unwrap();
    let asks = |port| P::udp("10.0.0.10", port, "10.77.0.1", 9);
    (1..3).for_each(|port| assert!(net.send(asks(port)).is_some(), "{port}"));
    // Those that come in together are of one flow, the last.
    (0..2).for_each(|_| net.put(0, 10, &asks(3).packet(&[])));
    assert_eq!(net.settle(NOW).len(), 2);
    assert_eq!((net.send(asks(4)), net.rig.drops(DropReason::ConnectionLimit)), (None, 1));
    assert!(net.send(asks(1)).is_some());
}

/// A rule that goes takes nothing with it by itself (the control thread ends its flows); what is ended begins anew as the rules
/// then say.
#[test]
fn what_is_ended_begins_anew_as_the_rules_then_say() {
    let mut net = Net::new(1, &[destination("d", virt(false, 1), Some(53), host(false, 1, 10), None)]);
    let asks = P { what: What::Udp, src: host(false, 0, 10), dst: virt(false, 1), ports: [1, 53] };
    assert_eq!(net.send(asks).unwrap().dst, host(false, 1, 10));
    net.declare(&destination("d", virt(false, 1), Some(53), host(false, 1, 11), None));
    assert_eq!(net.send(asks).unwrap().dst, host(false, 1, 10), "it goes on");
    let flows = net.rig.tables.flows.places();
    let mut places = Vec::new();
    net.rig.tables.flows.scan_bound(0..flows, |place, _, _, _| places.push(place));
    places.into_iter().for_each(|place| assert!(net.rig.tables.flows.kill_at(place)));
    assert_eq!(net.send(asks).unwrap().dst, host(false, 1, 11));
    net.rig.declare(&Request::NatDelete(ByName { name: "d".parse().unwrap() })).unwrap();
    assert!(net.rig.model.nats.is_empty());
}

/// A flow from before a rule goes on as it did. When it is over it begins anew as the rules then say, also where nobody has looked after it yet.
#[test]
fn what_was_not_translated_is_when_it_begins_anew() {
    let all = rules();
    let mut net = Net::new(1, &all[..1]);
    let asks = P::udp("10.0.0.10", 1, "10.77.0.1", 9);
    assert_eq!(net.send(asks), Some(asks));
    all[1..].iter().for_each(|rule| net.declare(rule));
    assert_eq!(net.send(asks), Some(asks), "it goes on");
    let flow = net.rig.tables.flows.places();
    let mut places = Vec::new();
    net.rig.tables.flows.scan(0..flow, NOW.s(), |place, _| places.push(place));
    places.iter().for_each(|place| assert!(net.rig.tables.flows.kill_at(*place)));
    let became = net.send(asks).unwrap();
    assert_eq!((became.src >> 8, became.dst), (virt(false, 100) >> 8, asks.dst));
    assert_eq!(net.send(asks), Some(became));
    assert_eq!((net.send(became.mirror()), net.rig.tables.flows.counted().all), (Some(asks.mirror()), 2));
}

/// Whoever has not been asked cannot use a binding, nor pose as the address that was asked.
#[test]
fn only_the_peer_may_answer() {
    let mut net = Net::new(1, &rules());
    let asks = P::udp("10.0.0.10", 4000, "10.77.0.1", 9);
    let became = net.send(asks).unwrap();
    // From another port, from another host: nobody's.
    for (src, port) in [("10.77.0.1", 10), ("10.77.0.2", 9)] {
        let forged = P { src: ip(src), ports: [port, became.ports[0]], ..became.mirror() };
        assert_eq!(net.send(forged), None);
    }
    assert_eq!(net.rig.drops(DropReason::NatNone), 2);
    // Straight to the host, as if it were the answer.
    assert_eq!(net.send(asks.mirror()), None);
    assert_eq!(net.rig.drops(DropReason::FlowState), 1);
    assert_eq!(net.send(became.mirror()), Some(asks.mirror()));
}

/// An ICMP error from `src` about `quoted`, as the router or the host there would write it.
fn error(src: u128, quoted: &P) -> Vec<u8> {
    let (mut out, quote) = (Vec::new(), quoted.packet(b"what it says"));
    let v4 = |ip: u128| (ip as u32).to_be_bytes();
    match is_v4(src) {
        true => {
            PacketBuilder::ipv4(v4(src), v4(quoted.src), 64).icmpv4_raw(3, 3, [0; 4]).write(&mut out, &quote)
        }
        false => PacketBuilder::ipv6(src.to_be_bytes(), quoted.src.to_be_bytes(), 64)
            .icmpv6_raw(1, 4, [0; 4])
            .write(&mut out, &quote),
    }
    .unwrap();
    out
}

/// Source, destination and what is quoted of an error, all checksums computed anew.
fn read_error(frame: &[u8]) -> (u128, u128, P) {
    let packet = &frame[14..];
    let v4 = packet[0] >> 4 == 4;
    let (header, icmp) = if v4 { (20, ICMP) } else { (40, ICMPV6) };
    assert_eq!(packet[if v4 { 9 } else { 6 }], icmp);
    let addresses = if v4 { &packet[12..20] } else { &packet[8..40] };
    let pseudo = if v4 { 0 } else { sum(addresses) + (packet.len() - header) as u64 + u64::from(icmp) };
    assert_eq!(fold(pseudo + sum(&packet[header..])), 0xffff, "ICMP checksum");
    let bits = |bytes: &[u8]| match v4 {
        true => 0xffff << 32 | u128::from(u32::from_be_bytes(bytes.try_into().unwrap())),
        false => u128::from_be_bytes(bytes.try_into().unwrap()),
    };
    let (src, dst) = addresses.split_at(addresses.len() / 2);
    // The quote is whole: its checksums too must be right.
    (bits(src), bits(dst), P::read(&packet[header + 8..], true))
}

/// About what was sent and about what was answered, from the end and from a router on the way: outside and inside.
#[test]
fn errors_are_translated_with_what_they_quote() {
    for workers in [1, 2] {
        for v6 in [false, true] {
            let mut net = Net::new(workers, &rules());
            // Source translated; destination translated; both.
            let cases = [
                (host(v6, 0, 10), host(v6, 77, 1), 9),
                (host(v6, 1, 13), virt(v6, 1), 53),
                (host(v6, 0, 11), virt(v6, 1), 53),
                (host(v6, 0, 11), virt(v6, 2), 80),
            ];
            for (client, to, port) in cases {
                let asks = P { what: What::Udp, src: client, dst: to, ports: [4000, port] };
                let became = net.send(asks).unwrap();
                // The server has nobody there.
                let (n, station) =
                    if (10..14).any(|h| became.dst == host(v6, 0, h)) { (0, 10) } else { (1, 13) };
                let mut out = net.send_raw(n, station, &error(became.dst, &became));
                assert_eq!(out.len(), 1, "{asks:?}");
                assert_eq!(read_error(&out.remove(0).1), (to, client, asks));
                // A router on the way has its own address.
                let router = host(v6, 1, 12);
                let out = net.send_raw(1, 12, &error(router, &became));
                assert_eq!(read_error(&out[0].1), (router, client, asks));
                // The client does not want the answer.
                let answer = became.mirror();
                assert_eq!(net.send(answer), Some(asks.mirror()));
                let (n, h) = if (10..14).any(|h| client == host(v6, 0, h)) {
                    (0, (client & 0xff) as u8)
                } else {
                    (1, 13)
                };
                let h = if v6 && n == 0 { (10..14).find(|h| host(v6, 0, *h) == client).unwrap() } else { h };
                let out = net.send_raw(n, h, &error(client, &asks.mirror()));
                assert_eq!(read_error(&out[0].1), (became.src, became.dst, answer), "{asks:?}");
            }
        }
    }
}

/// An error about nothing that is known goes nowhere, though its address is led here.
#[test]
fn what_is_nobodys_is_not_routed_back() {
    let mut net = Net::new(1, &rules());
    for v6 in [false, true] {
        let quoted = P { what: What::Udp, src: virt(v6, 100), dst: host(v6, 77, 1), ports: [2000, 9] };
        assert!(net.send_raw(1, 13, &error(host(v6, 77, 1), &quoted)).is_empty());
    }
    assert_eq!(net.rig.drops(DropReason::NatNone), 2);
}

/// Fragments: the first has the ports, and all have the addresses.
#[test]
fn fragments_are_translated_by_their_first() {
    let mut net = Net::new(1, &rules());
    let asks = P::udp("10.0.0.10", 4000, "10.9.0.1", 53);
    let whole = asks.packet(&[7; 64]);
    let fragment = |from: usize, to: usize, more: bool| {
        let mut packet = whole[..20].to_vec();
        let len = (20 + to - from) as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[4..6].copy_from_slice(&[1, 2]);
        let offset = (from / 8) as u16 | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&offset.to_be_bytes());
        packet[10..12].fill(0);
        let checksum = !fold(sum(&packet));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend(&whole[20 + from..20 + to]);
        packet
    };
    let mut segment = Vec::new();
    let mut ends = Vec::new();
    for (from, to, more) in [(0, 40, true), (40, 72, false)] {
        let mut out = net.send_raw(0, 10, &fragment(from, to, more));
        let (n, frame) = out.remove(0);
        assert_eq!((n, fold(sum(&frame[14..34]))), (1, 0xffff));
        ends.push(frame[26..34].to_vec());
        segment.extend(&frame[34..]);
    }
    assert_eq!(ends[0], ends[1]);
    assert_eq!(&ends[0][4..], &[10, 1, 0, 10]);
    // Put together it is right.
    let pseudo = sum(&ends[0]) + segment.len() as u64 + 17;
    assert_eq!((fold(pseudo + sum(&segment)), &segment[2..4]), (0xffff, &5353u16.to_be_bytes()[..]));
}

/// Ports of other routing tables, and switches without rules, keep no flows for it.
#[test]
fn who_has_no_rule_pays_nothing() {
    let mut net = Net::new(1, &[]);
    assert!(net.send(P::udp("10.0.0.10", 1, "10.1.0.10", 2)).is_some());
    assert!(!net.rig.snapshot().tracks && net.rig.snapshot().ports.iter().all(|port| !port.translated));
    assert_eq!(net.rig.tables.flows.counted().all, 0);
    let elsewhere = Nat { vrf: "blue".parse().unwrap(), ..rules().remove(0) };
    net.declare(&elsewhere);
    assert!(net.rig.snapshot().ports.iter().all(|port| !port.translated));
    net.declare(&rules()[0]);
    assert!(net.rig.snapshot().tracks && net.rig.snapshot().lenient);
}

/// Rules in a circle, and in a row: a packet is translated once, whatever rule is about what it becomes, and so is its answer.
#[test]
fn rules_in_a_circle_translate_once() {
    for v6 in [false, true] {
        let at = |h: u8| host(v6, 1, h);
        let leads = [(10, 11), (11, 10), (12, 13), (13, 10)];
        let rules = leads.map(|(from, to)| destination(&format!("d{from}"), at(from), None, at(to), None));
        let mut net = Net::new(2, &rules);
        for (n, (from, to)) in leads.into_iter().enumerate() {
            let asks = P { what: What::Udp, src: host(v6, 0, 10), dst: at(from), ports: [700 + n as u16, 9] };
            let became = net.send(asks).unwrap();
            assert_eq!(became, P { dst: at(to), ..asks });
            assert_eq!(net.send(became.mirror()), Some(asks.mirror()));
        }
    }
}
