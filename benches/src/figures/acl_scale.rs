//! [acl-scale] What the number of rules of an access control list does to a packet. The second of two ports has the list: who may send it what.
//! Rules as an operator of many sites writes them, each about a network or a set of hosts, one of four destinations, and a service.

use super::{Bench, Figure, Held, rule_scale};
use crate::flows::{self, flooding};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};
use switch_api::{Acl, AddressSet, Owner, Prefix, Request};
use switch_core::table::flow::FLOWS_DEFAULT;

/// Established flows.
const FLOWS: u32 = 1_000;
/// Sites, each a /21 that has networks of so many bits side by side.
const SITES: u32 = 440;
const SITE_LEN: u32 = 2_048;
const SUBNETS: [u8; 5] = [22, 23, 24, 25, 25];
/// Networks of IPv6, of so many bits in turn.
const V6: u32 = 276;
const V6_LENS: [u8; 3] = [48, 56, 64];
/// Sets of hosts, each of every tenth site.
const SETS: u32 = 10;
const MEMBERS: u32 = 1_000;
/// Services; every one of a network or a set is a rule. Traffic is TCP to ports up to 1024, and UDP to one of these.
const SERVICES: [(&str, &str, &str); 40] = [
    ("tcp", "22", ""),
    ("tcp", "25", ""),
    ("tcp", "53", ""),
    ("tcp", "80", ""),
    ("tcp", "88", ""),
    ("tcp", "110", ""),
    ("tcp", "123", "123"),
    ("tcp", "135-139", ""),
    ("tcp", "143", ""),
    ("tcp", "179", "1024-65535"),
    ("tcp", "389", ""),
    ("tcp", "443", ""),
    ("tcp", "445", ""),
    ("tcp", "465", ""),
    ("tcp", "514-515", "512-1023"),
    ("tcp", "587", ""),
    ("tcp", "636", ""),
    ("tcp", "853", ""),
    ("tcp", "993", ""),
    ("tcp", "995", ""),
    ("tcp", "1-1024", ""),
    ("tcp", "1433", ""),
    ("tcp", "3306", ""),
    ("tcp", "3389", ""),
    ("tcp", "5432", ""),
    ("tcp", "8000-8999", ""),
    ("tcp", "30000-32767", "1024-65535"),
    ("udp", "53", ""),
    ("udp", "67-68", "67-68"),
    ("udp", "123", "123"),
    ("udp", "161-162", ""),
    ("udp", "500", "500"),
    ("udp", "1-1024", ""),
    ("udp", "4500", ""),
    ("udp", "5060-5061", ""),
    ("udp", "16384-32767", ""),
    ("sctp", "3868", ""),
    ("icmp", "8", ""),
    ("icmpv6", "128", ""),
    ("47", "", ""),
];
const RULES: usize = 100_000;

/// What it is held against.
pub(super) const HELD: Held = rule_scale::HELD;

pub(super) fn measure(_: &Bench) -> Result<Figure, String> {
    let mut benches = [made(few()?)?, made(many()?)?];
    let addresses = SITES * SITE_LEN;
    let begun = |bench: &mut flows::Bench, clock: &quanta::Clock, seed: &mut u64| {
        let ticks: u64 = (0..rule_scale::BATCHES).map(|_| bench.flood(clock, addresses, seed)).sum();
        ticks as f64 / (rule_scale::BATCHES * switch_core::frame::BATCH_FRAMES) as f64
    };
    let scale = rule_scale::measure(&mut benches, FLOWS, begun)?;
    let probes = rule_scale::probes(&benches, || {
        let mut seed = 88_172_645_463_325_252;
        (0..addresses).map(move |flow| (flow, flooding(addresses, &mut seed).1))
    })?;
    let detail = format!(
        "{scale}, SYNs from random ones of {addresses} addresses and any of their ports to any up to 1024, all networks of IPv4 hit; \
         {probes}, of each of these addresses with random ports; {RULES} rules of one direction of a port about {} networks of /8 to \
         /64 and {SETS} sets of {MEMBERS} hosts, {} services each, {:.1} MiB",
        networks().len(),
        SERVICES.len(),
        benches[1].listed_bytes() as f64 / f64::from(1 << 20)
    );
    let figure = Figure::new("acl-scale", scale.established, HELD, detail);
    Ok(figure.only_if(scale.holds() && probes.hold()))
}

/// A pipeline under these, in which flows are established.
fn made(all: Vec<Request>) -> Result<flows::Bench, String> {
    let mut bench = flows::Bench::declared(2 * FLOWS_DEFAULT, all.into_iter());
    bench.make(FLOWS);
    let counted = bench.tables.flows.counted().all;
    if counted < FLOWS { Err(format!("only {counted} of {FLOWS} flows are there")) } else { Ok(bench) }
}

/// Ten rules: four networks that are all that traffic comes from, a set, and one other network.
fn few() -> Result<Vec<Request>, String> {
    let mut rules = vec![rule(json!({ "source_sets": ["s0"] }), 0, 0)];
    for quarter in 0..4 {
        let network = json!({ "source": [format!("10.{}.0.0/10", quarter * 64)] });
        rules.extend([20, 32].map(|service| rule(network.clone(), service, service)));
    }
    rules.push(json!({ "action": "deny", "source": ["172.16.0.0/12"] }));
    declared(rules, 1)
}

/// [`RULES`], those about sets first, then the longer networks.
fn many() -> Result<Vec<Request>, String> {
    let mut networks = networks();
    networks.sort_by_key(|network| std::cmp::Reverse(network.len));
    let sets = (0..SETS).map(|n| json!({ "source_sets": [format!("s{n}")] }));
    let whom = sets.chain(networks.iter().map(|network| json!({ "source": [network] })));
    let rules: Vec<Value> = whom
        .enumerate()
        .flat_map(|(n, whom)| {
            (0..SERVICES.len()).map(move |service| rule(whom.clone(), service, n + service))
        })
        .collect();
    if rules.len() != RULES {
        return Err(format!("{} rules instead of {RULES}", rules.len()));
    }
    declared(rules, SETS)
}

/// Networks that rules are about.
fn networks() -> Vec<Prefix> {
    let v4 = |bits: u32, len: u8| Prefix { address: Ipv4Addr::from_bits(bits).into(), len }.network();
    let mut all = Vec::new();
    for site in 0..SITES {
        let mut at = 0x0a00_0000 + site * SITE_LEN;
        for len in SUBNETS {
            all.push(v4(at, len));
            at += 1 << (32 - len);
        }
    }
    // Above them regions, and what is all.
    all.extend((0..13).map(|region| v4(0x0a00_0000 + (region << 16), 16)));
    all.push(v4(0x0a00_0000, 8));
    let v6 = |n: u32| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n) << 80);
    let lens = V6_LENS.iter().cycle();
    all.extend((0..V6).zip(lens).map(|(n, len)| Prefix { address: v6(n).into(), len: *len }));
    all
}

/// What a rule says of whom, of a service, to one of four destinations. What traffic asks for is allowed, and of the rest two thirds.
fn rule(mut whom: Value, service: usize, n: usize) -> Value {
    let (protocol, ports, sources) = SERVICES[service];
    let is_asked = protocol == "tcp" && service <= 20 || ports == "1-1024";
    whom["action"] = json!(if is_asked || !n.is_multiple_of(3) { "allow" } else { "deny" });
    whom["protocol"] = json!(protocol);
    if protocol.starts_with("icmp") {
        whom["icmp"] = json!([ports]);
    } else if !ports.is_empty() {
        whom["destination_ports"] = json!([ports]);
    }
    if !sources.is_empty() {
        whom["source_ports"] = json!([sources]);
    }
    let is_v6 = whom["source"][0].as_str().is_some_and(|network| network.contains(':'));
    match n % 4 {
        1 if !is_v6 => whom["destination"] = json!(["192.168.0.1/32"]),
        2 if !is_v6 => whom["destination"] = json!(["192.168.0.0/24"]),
        3 if !is_v6 => whom["destination"] = json!(["192.168.0.0/16"]),
        _ => {}
    }
    whom
}

/// The second port's list, and so many of the sets.
fn declared(rules: Vec<Value>, sets: u32) -> Result<Vec<Request>, String> {
    let list = json!({ "name": "site", "applies_to": { "ports": ["b"] }, "ingress": rules });
    let list: Acl = serde_json::from_value(list).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for set in 0..sets {
        let host = |n: u32| {
            let site = set + n % (SITES / SETS) * SETS;
            let at = site * SITE_LEN + n / (SITES / SETS) * 89;
            Prefix::host(Ipv4Addr::from_bits(0x0a00_0000 + at).into())
        };
        let name = format!("s{set}").parse().map_err(|error| format!("{error}"))?;
        let members = Some((0..MEMBERS).map(host).collect());
        all.push(Request::AddressSetSet(AddressSet { name, members, owner: Owner::Operator }));
    }
    all.push(Request::AclSet(Box::new(list)));
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    /// Of every 97th address: what is counted is the same wherever it is counted.
    #[test]
    fn a_new_flow_takes_no_more_probes_among_a_hundred_thousand_rules() {
        let benches =
            [few().unwrap(), many().unwrap()].map(|all| flows::Bench::declared(4096, all.into_iter()));
        let some =
            || (0..SITES * SITE_LEN).step_by(97).map(|flow| (flow, [40_000, 1 + (flow % 1024) as u16]));
        let [few, many] = benches.map(|bench| bench.probes(some()).unwrap());
        println!("{few:?} {many:?}");
        assert!(few.bound == many.bound && many.largest <= few.bound, "{few:?} {many:?}");
        assert_eq!(few.bound, 19);
    }
}
