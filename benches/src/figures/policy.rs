//! [policy-established] and [policy-scale]: what policies cost a packet, and what their number does to it. The second
//! of two ports is a workload that policies isolate both ways; flows are begun from both sides.

use super::{Bench, Figure, Held, rule_scale};
use crate::cycles::{median, per_tick};
use crate::flows;
use quanta::Clock;
use serde_json::{Value, json};
use switch_api::NetworkPolicy;
use switch_core::table::flow::FLOWS_DEFAULT;

/// Flows, and the core cycles a packet that a policy may add.
const ESTABLISHED: [(u32, f64); 2] = [(1_000, 60.0), (100_000, 110.0)];
/// The same of TCP, whose window is checked and kept with each segment, in a line of its own: a tenth more than measured.
const CONNECTED: [(u32, f64); 2] = [(1_000, 110.0), (100_000, 155.0)];
/// Pairs of with and without.
const PAIRS: usize = 31;
const BATCHES: usize = 500;
/// Room for 100 000 flows, of which each port begins half.
const ROOM: usize = 2 * FLOWS_DEFAULT;

const RULES: u32 = 100_000;
/// A block has two rules for each direction. More than 32 766 blocks that differ cannot be told apart: a prefix
/// table's answers are 15 bits.
const BLOCKS: u32 = RULES / 4;
const BLOCKS_A_POLICY: u32 = 500;
/// Addresses of a block, a /23.
const BLOCK_LEN: u32 = 512;
/// Addresses that the rules of [`many`] are about, from 10.0.0.0 on.
pub(super) const ADDRESSES: u32 = BLOCKS * BLOCK_LEN;

/// What a flow is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    /// Datagrams.
    Udp,
    /// Segments of an open connection.
    Tcp,
}

/// What it is held against.
pub(super) const ESTABLISHED_HELD: Held = Held::at_most("core cycles more a packet", ESTABLISHED[0].1);
/// What it is held against.
pub(super) const TCP_HELD: Held = Held::at_most("core cycles more a packet", CONNECTED[0].1);
/// What it is held against.
pub(super) const SCALE_HELD: Held = rule_scale::HELD;

pub(super) fn established(_: &Bench) -> Result<Figure, String> {
    cost("policy-established", ESTABLISHED_HELD, Talk::Udp, ESTABLISHED)
}

pub(super) fn tcp(_: &Bench) -> Result<Figure, String> {
    cost("policy-tcp", TCP_HELD, Talk::Tcp, CONNECTED)
}

/// What a policy adds to a packet of one of so many flows, and may add.
fn cost(id: &'static str, held: Held, talk: Talk, cases: [(u32, f64); 2]) -> Result<Figure, String> {
    let clock = Clock::new();
    let mut seed = 88_172_645_463_325_252;
    let mut measured = Vec::new();
    for (flows, bar) in cases {
        let (mut with, mut without) = (opened(&few()?, flows, talk)?, flows::Bench::new(4096, false));
        if talk == Talk::Tcp {
            without.connect(flows);
        }
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            let scale = per_tick(&clock);
            without.warm(flows, &mut seed);
            let bare = without.random(&clock, flows, BATCHES, &mut seed) * scale;
            with.warm(flows, &mut seed);
            let policed = with.random(&clock, flows, BATCHES, &mut seed) * scale;
            pairs.push((bare, policed - bare));
        }
        let (bare, more) = pairs.into_iter().unzip();
        measured.push((flows, bar, median(bare), median(more)));
    }
    let each = measured.iter().map(|(flows, bar, bare, more)| {
        format!("{flows} flows: {more:.1} more than {bare:.1} without policy or flows (bar {bar})")
    });
    let what = match talk {
        Talk::Udp => "UDP".to_owned(),
        Talk::Tcp => {
            format!("TCP segments of {} bytes, each of which acknowledges all that came,", flows::SEGMENT)
        }
    };
    let detail = format!(
        "{}; median of {PAIRS} pairs, {what} in random order both ways, whole pipeline, one port isolated both ways",
        each.collect::<Vec<_>>().join("; "),
    );
    let all = measured.iter().all(|(_, bar, _, more)| more <= bar);
    let (.., more) = measured[0];
    let figure = Figure::new(id, more, held, detail);
    Ok(figure.only_if(all))
}

pub(super) fn scale(_: &Bench) -> Result<Figure, String> {
    let flows = ESTABLISHED[0].0;
    let mut benches = [made(&few()?, flows)?, made(&many()?, flows)?];
    let begun = |bench: &mut flows::Bench, clock: &Clock, seed: &mut u64| {
        bench.begun(clock, ADDRESSES, rule_scale::BATCHES, seed)
    };
    let scale = rule_scale::measure(&mut benches, flows, begun)?;
    let probes = rule_scale::probes(&benches, || (0..ADDRESSES).map(|flow| (flow, flows::PORTS)))?;
    let (identities, bytes) = benches[1].compiled();
    let detail = format!(
        "{scale}, SYNs from random ones of {ADDRESSES} addresses, every block of the rules hit; {probes}, of each of these \
         addresses; {RULES} rules in {} policies about {BLOCKS} blocks, {identities} identities, {:.1} MiB",
        BLOCKS / BLOCKS_A_POLICY,
        bytes as f64 / f64::from(1 << 20)
    );
    let figure = Figure::new("policy-scale", scale.established, SCALE_HELD, detail);
    Ok(figure.only_if(scale.holds() && probes.hold()))
}

/// A pipeline under ten rules, in which so many flows are established.
pub fn few_rules(flows: u32) -> Result<flows::Bench, String> {
    made(&few()?, flows)
}

/// The same, with as many TCP connections.
pub fn connected(flows: u32) -> Result<flows::Bench, String> {
    opened(&few()?, flows, Talk::Tcp)
}

/// A pipeline under these policies, in which so many flows are established.
fn made(policies: &[NetworkPolicy], flows: u32) -> Result<flows::Bench, String> {
    opened(policies, flows, Talk::Udp)
}

fn opened(policies: &[NetworkPolicy], flows: u32, talk: Talk) -> Result<flows::Bench, String> {
    let mut bench = flows::Bench::policed(ROOM, policies);
    match talk {
        Talk::Udp => bench.make(flows),
        Talk::Tcp => bench.connect(flows),
    }
    let counted = bench.tables.flows.counted().all;
    // Beside them the one by which the stations made themselves known.
    if counted < flows {
        return Err(format!("only {counted} of {flows} flows are there"));
    }
    Ok(bench)
}

/// Ten rules, for tests.
#[cfg(test)]
pub(crate) fn few_policies() -> Result<Vec<NetworkPolicy>, String> {
    few()
}

/// Ten rules: four networks that are all that traffic comes from, and one other, each way.
fn few() -> Result<Vec<NetworkPolicy>, String> {
    let blocks = (0..4).map(|n| format!("10.{}.0.0/10", n * 64)).chain(["172.16.0.0/12".to_owned()]);
    let rules: (Vec<Value>, Vec<Value>) = blocks.map(|cidr| both_ways(&cidr, 1, 1024)).unzip();
    Ok(vec![policy(0, rules)?])
}

/// [`RULES`], each block with one that admits the traffic and one that is about other ports.
pub(super) fn many() -> Result<Vec<NetworkPolicy>, String> {
    let all: Vec<u32> = (0..BLOCKS).collect();
    let of = |chunk: &[u32]| {
        let rules = chunk.iter().flat_map(|block| {
            let at = std::net::Ipv4Addr::from_bits(0x0a00_0000 + block * BLOCK_LEN);
            let (cidr, other) = (format!("{at}/23"), 2000 + block % 16);
            [both_ways(&cidr, 1, 1024), both_ways(&cidr, other, other)]
        });
        policy(chunk[0], rules.unzip())
    };
    all.chunks(BLOCKS_A_POLICY as usize).map(of).collect()
}

/// What may come from a block, and what may go there, by these ports.
fn both_ways(cidr: &str, first: u32, last: u32) -> (Value, Value) {
    let peers = json!([{ "ipBlock": { "cidr": cidr } }]);
    let ports: Vec<Value> =
        ["TCP", "UDP"].map(|protocol| json!({ "protocol": protocol, "port": first, "endPort": last })).into();
    (json!({ "from": peers, "ports": ports }), json!({ "to": peers, "ports": ports }))
}

fn policy(number: u32, (ingress, egress): (Vec<Value>, Vec<Value>)) -> Result<NetworkPolicy, String> {
    let policy = json!({
        "metadata": { "name": format!("p{number}") },
        "spec": { "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress },
    });
    serde_json::from_value(policy).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use switch_core::table::flow::state::Stage;

    /// What is measured is what it says: connections that are open, of which each segment arrives.
    #[test]
    fn connections_are_open_and_stay_so() {
        const CONNECTIONS: u32 = 200;
        let mut bench = connected(CONNECTIONS).unwrap();
        bench.spin(CONNECTIONS, 50);
        let (mut open, table) = (0, &bench.tables.flows);
        table.scan(0..table.places(), 1, |_, entry| {
            open += u32::from(entry.state.stage == Stage::Established)
        });
        assert_eq!(open, CONNECTIONS);
    }
}
