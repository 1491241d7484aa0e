//! What the fuzz target `policy` does with its bytes: they become workloads, namespaces, network policies and first packets. The compiled
//! tables say of every packet what their dull twin says; and when something was changed, whoever's epoch stands is told the same as before.

use super::fuzz_acl::Bytes;
use crate::policy::compile::compile;
use crate::policy::{Compiled, End, Input, Placed, Pod, check, plain, slots_of, to_bits};
use crate::wire::ip::{ICMP, SCTP, TCP, UDP};
use std::collections::BTreeMap;
use std::net::IpAddr;
use switch_api::{
    Cidr, EgressRule, IngressRule, IpBlock, LabelExpression, LabelOperator, LabelSelector, Labels, Metadata,
    NAMESPACE_NAME_LABEL, NamedPort, NetworkPolicy, Owner, Peer, PolicyPort, PolicySpec, PolicyType, PortRef,
    Prefix, Protocol, Unread, Workload,
};

/// Most workloads, most policies to begin with, and most packets asked about after each change.
const PODS: u8 = 6;
const POLICIES: u8 = 5;
const PACKETS: usize = 64;
/// Few names, so that they meet.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What a run has met, so that tests can tell that it met something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    /// Policies that were refused.
    pub refused: usize,
    /// Packets that pass.
    pub passed: usize,
    /// Packets that do not.
    pub stopped: usize,
    /// Isolated workloads of which an epoch stood across a change.
    pub stood: usize,
    /// Those of which it moved.
    pub moved: usize,
}

/// A first packet.
#[derive(Clone, Copy, Debug)]
struct First {
    from: u128,
    to: u128,
    protocol: Option<Protocol>,
    port: Option<u16>,
}

impl First {
    /// The class of its port.
    fn class(&self, compiled: &Compiled) -> u16 {
        let number = match self.protocol {
            Some(Protocol::Tcp) => TCP,
            Some(Protocol::Udp) => UDP,
            Some(Protocol::Sctp) => SCTP,
            None => ICMP,
        };
        compiled.class(number, self.port)
    }

    /// Whether the tables let it pass.
    fn passes(&self, compiled: &Compiled) -> bool {
        let end = |ip| End { port: compiled.owner_of(ip), ip };
        let asked = compiled.question(end(self.from), end(self.to));
        compiled.ends(&asked, self.class(compiled)).into_iter().flatten().all(|verdict| verdict.is_ok())
    }
}

/// All that tables are compiled from. A workload has its place as its port.
#[derive(Clone, Debug, Default)]
struct World {
    namespaces: BTreeMap<String, Labels>,
    pods: Vec<Workload>,
    policies: Vec<NetworkPolicy>,
    node: Vec<IpAddr>,
}

impl World {
    fn read(bytes: &mut Bytes, met: &mut Met) -> Self {
        let mut world = Self::default();
        world.namespaces.extend(bytes.several(3, |bytes| (one_of_two(bytes), labels(bytes))));
        for _ in 0..bytes.byte() % (PODS + 1) {
            let pod = world.workload(bytes);
            world.pods.push(pod);
        }
        world.node = bytes.several(2, Bytes::address);
        world.node.retain(|ip| !world.pods.iter().any(|pod| pod.addresses.contains(ip)));
        for _ in 0..bytes.byte() % (POLICIES + 1) {
            world.policies.extend(policy(bytes, met));
        }
        world
    }

    /// One with addresses that nobody has yet.
    fn workload(&self, bytes: &mut Bytes) -> Workload {
        let (namespace, labels) = (one_of_two(bytes), labels(bytes));
        let ports = bytes.several(3, |bytes| NamedPort {
            name: one_of_two(bytes),
            port: number(bytes),
            protocol: protocol(bytes),
        });
        let mut addresses = bytes.several(2, Bytes::address);
        let taken = self.pods.iter().flat_map(|pod| &pod.addresses).chain(&self.node);
        let taken: Vec<IpAddr> = taken.copied().collect();
        addresses.retain(|ip| !taken.contains(ip));
        addresses.sort_unstable();
        addresses.dedup();
        Workload { namespace, labels, ports, addresses }
    }

    /// A policy comes or goes; a workload, or a namespace, is something else from now on.
    fn change(&mut self, bytes: &mut Bytes, met: &mut Met) {
        let [what, which] = [bytes.byte(), bytes.byte()];
        let at = |len: usize| usize::from(which) % len.max(1);
        match what % 4 {
            0 => self.policies.extend(policy(bytes, met)),
            1 if !self.policies.is_empty() => _ = self.policies.remove(at(self.policies.len())),
            2 if !self.pods.is_empty() => {
                let n = at(self.pods.len());
                self.pods[n].addresses.clear();
                self.pods[n] = self.workload(bytes);
            }
            _ => _ = self.namespaces.insert(one_of_two(bytes), labels(bytes)),
        }
    }

    fn input(&self) -> Input<'_> {
        let mut slot = 0;
        let place = |policy| {
            let placed = Placed { policy, slot };
            slot += slots_of(policy);
            placed
        };
        let pods = self.pods.iter().zip(0..).map(|(workload, port)| Pod {
            port,
            workload,
            addresses: workload.addresses.iter().map(|ip| to_bits(*ip)).collect(),
        });
        Input {
            pods: pods.collect(),
            policies: self.policies.iter().map(place).collect(),
            namespaces: &self.namespaces,
            node: self.node.iter().map(|ip| to_bits(*ip)).collect(),
        }
    }

    /// An end of a packet: mostly somebody who is known.
    fn end(&self, bytes: &mut Bytes) -> u128 {
        let which = bytes.byte();
        let known: Vec<IpAddr> =
            self.pods.iter().flat_map(|pod| &pod.addresses).chain(&self.node).copied().collect();
        let of = known.get(usize::from(which) % known.len().max(1)).filter(|_| which < 0xe0);
        to_bits(of.copied().unwrap_or_else(|| bytes.address()))
    }

    fn packet(&self, bytes: &mut Bytes) -> First {
        let (from, to, has) = (self.end(bytes), self.end(bytes), bytes.byte());
        let protocol = (has & 7 != 7).then(|| protocol(bytes));
        // Of a protocol without ports, and of a later fragment, none is known.
        let port = protocol.filter(|_| has & 0x38 != 0).map(|_| number(bytes));
        First { from, to, protocol, port }
    }
}

/// A namespace's, or a port's.
fn one_of_two(bytes: &mut Bytes) -> String {
    NAMES[usize::from(bytes.byte() & 1)].to_owned()
}

fn named(bytes: &mut Bytes) -> String {
    NAMES[usize::from(bytes.byte()) % NAMES.len()].to_owned()
}

fn labels(bytes: &mut Bytes) -> Labels {
    bytes.several(2, |bytes| (named(bytes), named(bytes))).into_iter().collect()
}

fn protocol(bytes: &mut Bytes) -> Protocol {
    Protocol::ALL[usize::from(bytes.byte()) % Protocol::ALL.len()]
}

/// A port: one of few, among them the first and the last, or any.
fn number(bytes: &mut Bytes) -> u16 {
    match bytes.byte() {
        byte @ 0..=191 => u16::from(byte % 8),
        byte @ 192..=223 => u16::MAX - u16::from(byte % 8),
        _ => bytes.word(),
    }
}

fn selector(bytes: &mut Bytes) -> LabelSelector {
    let match_expressions = bytes.several(2, |bytes| {
        let (what, key) = (bytes.byte(), key(bytes));
        let operator = match what & 3 {
            0 => LabelOperator::In,
            1 => LabelOperator::NotIn,
            2 => LabelOperator::Exists,
            _ => LabelOperator::DoesNotExist,
        };
        // One that takes none and has some, or the other way round, is refused.
        let takes = (what & 2 == 0) != (what & 0xf0 == 0xf0);
        let values =
            if takes { (0..1 + (what >> 2 & 1)).map(|_| named(bytes)).collect() } else { Vec::new() };
        LabelExpression { key, operator, values }
    });
    let match_labels = bytes.several(2, |bytes| (key(bytes), named(bytes))).into_iter().collect();
    LabelSelector { match_labels, match_expressions }
}

/// A label's key; that which namespaces have by themselves among them.
fn key(bytes: &mut Bytes) -> String {
    let key = NAMES.get(usize::from(bytes.byte()) % (NAMES.len() + 1));
    key.copied().unwrap_or(NAMESPACE_NAME_LABEL).to_owned()
}

fn cidr(prefix: Prefix) -> Option<Cidr> {
    prefix.to_string().parse().ok()
}

/// Networks in it that are not meant; now and then one that is none of it.
fn block(bytes: &mut Bytes) -> Option<IpBlock> {
    let prefix = bytes.prefix();
    let except = bytes.several(2, |bytes| {
        let (inner, longer) = (bytes.prefix(), bytes.byte());
        let len = prefix.len.saturating_add(1 + longer % 16).min(inner.bits());
        let inside = Prefix { address: inner.address, len };
        let moved = if longer & 0xe0 == 0xe0 { inner } else { within(inside, prefix) };
        cidr(moved.network())
    });
    Some(IpBlock { cidr: cidr(prefix)?, except: except.into_iter().flatten().collect() })
}

/// A prefix with the leading bits of another one.
fn within(inner: Prefix, outer: Prefix) -> Prefix {
    let address = match (inner.address, outer.address) {
        (IpAddr::V4(inner), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(outer.len)).unwrap_or(0);
            IpAddr::V4((network.to_bits() & mask | inner.to_bits() & !mask).into())
        }
        (IpAddr::V6(inner), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(outer.len)).unwrap_or(0);
            IpAddr::V6((network.to_bits() & mask | inner.to_bits() & !mask).into())
        }
        (inner, _) => inner,
    };
    Prefix { address, ..inner }
}

fn peer(bytes: &mut Bytes) -> Peer {
    let what = bytes.byte();
    Peer {
        pod_selector: (what & 1 == 1).then(|| selector(bytes)),
        namespace_selector: (what & 2 == 2).then(|| selector(bytes)),
        ip_block: if what & 3 == 0 || what == 0xff { block(bytes) } else { None },
    }
}

fn policy_port(bytes: &mut Bytes) -> PolicyPort {
    let what = bytes.byte();
    let protocol = Protocol::ALL[usize::from(what >> 4) % Protocol::ALL.len()];
    let (port, end_port) = match what & 3 {
        0 => (None, None),
        1 => (Some(PortRef::Name(one_of_two(bytes))), None),
        2 => (Some(PortRef::Number(number(bytes))), None),
        _ => (Some(PortRef::Number(number(bytes))), Some(number(bytes))),
    };
    PolicyPort { protocol, port, end_port }
}

/// None if it is refused.
fn policy(bytes: &mut Bytes, met: &mut Met) -> Option<NetworkPolicy> {
    let (namespace, what) = (one_of_two(bytes), bytes.byte());
    let types = [(1, PolicyType::Ingress), (2, PolicyType::Egress)];
    let policy_types = types.into_iter().filter(|(bit, _)| what & bit != 0).map(|(_, kind)| kind).collect();
    let pod_selector = if what & 12 != 12 { LabelSelector::default() } else { selector(bytes) };
    let rule = |bytes: &mut Bytes| (bytes.several(2, peer), bytes.several(2, policy_port));
    let ingress = bytes.several(2, rule).into_iter().map(|(from, ports)| IngressRule { from, ports });
    let egress = bytes.several(2, rule).into_iter().map(|(to, ports)| EgressRule { to, ports });
    let policy = NetworkPolicy {
        api_version: Default::default(),
        kind: Default::default(),
        metadata: Metadata { name: "p".to_owned(), namespace },
        spec: PolicySpec { pod_selector, policy_types, ingress: ingress.collect(), egress: egress.collect() },
        status: Unread,
        owner: Owner::Operator,
    };
    let is_right = check::policy(&policy).is_empty();
    met.refused += usize::from(!is_right);
    is_right.then_some(policy)
}

/// See the module.
pub fn policies(data: &[u8]) {
    run(data);
}

fn run(data: &[u8]) -> Met {
    let (mut bytes, mut met) = (Bytes::new(data), Met::default());
    let mut world = World::read(&mut bytes, &mut met);
    let mut before: Option<Compiled> = None;
    loop {
        let input = world.input();
        let Ok(compiled) = compile(&input) else { return met };
        let count = 1 + usize::from(bytes.byte()) % PACKETS;
        let packets: Vec<First> = (0..count).map(|_| world.packet(&mut bytes)).collect();
        for packet in &packets {
            let passes = packet.passes(&compiled);
            let First { from, to, protocol, port } = *packet;
            assert_eq!(passes, plain::passes(&input, from, to, protocol, port), "{packet:x?} {world:?}");
            met.passed += usize::from(passes);
            met.stopped += usize::from(!passes);
        }
        if let Some(before) = &before {
            hold_epochs(before, &compiled, &packets, &world, &mut met);
        }
        if bytes.is_over() {
            return met;
        }
        before = Some(compiled);
        world.change(&mut bytes, &mut met);
    }
}

/// Flows of a workload whose epoch stands are not judged again, so that what is said of it may not be something else.
fn hold_epochs(before: &Compiled, after: &Compiled, packets: &[First], world: &World, met: &mut Met) {
    for port in 0..world.pods.len() as u16 {
        let (Some(was), Some(is)) = (before.subject(port), after.subject(port)) else { continue };
        let isolated = usize::from(was.is_isolated() || is.is_isolated());
        if was.epoch != is.epoch {
            met.moved += isolated;
            continue;
        }
        met.stood += isolated;
        for packet in packets {
            let (ends, ways) = ([packet.from, packet.to], [PolicyType::Ingress, PolicyType::Egress]);
            for (peer, way) in ends.into_iter().flat_map(|peer| ways.map(|way| (peer, way))) {
                let judged = |compiled: &Compiled| {
                    let verdict = compiled.direction(port, way, peer, packet.class(compiled));
                    verdict.is_none_or(|verdict| verdict.is_ok())
                };
                assert_eq!(judged(before), judged(after), "port {port} {way:?} {packet:x?} {world:?}");
            }
        }
    }
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
    fn arbitrary_policies_agree_and_their_epochs_hold() {
        let all = Mutex::new(Met::default());
        let config = crate::cases::cases(CASES);
        let drawn = config.cases;
        proptest!(config, |(data in proptest::collection::vec(any::<u8>(), 0..1_000))| {
            let met = run(&data);
            let mut all = all.lock().unwrap();
            all.refused += met.refused;
            all.passed += met.passed;
            all.stopped += met.stopped;
            all.stood += met.stood;
            all.moved += met.moved;
        });
        let met = all.into_inner().unwrap();
        println!("{met:?}");
        let counts = [met.refused, met.passed, met.stopped, met.stood, met.moved];
        // A third of what is met as a rule.
        let least = [200, 12_000, 1_000, 200, 110];
        let is_enough = counts.iter().zip(least).all(|(count, least)| *count >= least);
        assert!(drawn < CASES || is_enough, "too few to count: {met:?}");
    }
}
