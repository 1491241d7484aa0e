//! Who decides about a first packet, in which order: at its sender's port and then at its receiver's, lists of the tier `before`, network policies,
//! lists of the tier `after` where none of those isolates, and the port's default verdict. Random ones, as packets, beside a twin that reads them one by
//! one (ADR 0022).

use super::acl_tests::set;
use super::policy_tests::{NOW, Net, introduce, mac, net, packet, pod};
use crate::counter::DropReason;
use proptest::prelude::*;
use serde_json::{Value, json};
use switch_api::{NetworkPolicy, PortSet, PortSettings, Protocol, Request};

const PODS: usize = 3;
const APPS: [&str; PODS] = ["db", "web", "other"];
/// Where nobody is.
const UNKNOWN: [u8; 6] = [2, 9, 9, 9, 9, 9];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    Ingress,
    Egress,
}

use Direction::{Egress, Ingress};

/// What a rule of a list says, and about what: a protocol, a port of it, one of the other ends.
#[derive(Clone, Debug)]
struct Rule {
    action: &'static str,
    is_staged: bool,
    protocol: Option<Protocol>,
    port: Option<u16>,
    peer: Option<usize>,
}

#[derive(Clone, Debug)]
struct List {
    is_before: bool,
    priority: u16,
    ports: Vec<usize>,
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
}

/// One that isolates a pod one way, but for some others, at some ports of UDP; none: at all of all protocols.
#[derive(Clone, Debug)]
struct Policy {
    pod: usize,
    direction: Direction,
    peers: Vec<usize>,
    ports: Vec<u16>,
}

/// All that is declared.
#[derive(Clone, Debug)]
struct World {
    lists: Vec<List>,
    policies: Vec<Policy>,
    /// By pod, whether what nobody decides is denied: of what it is sent, and of what it sends.
    denies: [[bool; 2]; PODS],
}

/// A first packet.
#[derive(Clone, Copy, Debug)]
struct Sent {
    from: usize,
    to: usize,
    protocol: Protocol,
    port: u16,
}

fn name(protocol: Protocol) -> &'static str {
    if protocol == Protocol::Udp { "udp" } else { "tcp" }
}

impl Rule {
    fn json(&self, direction: Direction) -> Value {
        let mut rule = json!({"action": self.action, "staged": self.is_staged});
        if let Some(protocol) = self.protocol {
            rule["protocol"] = json!(name(protocol));
        }
        if let (Some(port), Some(_)) = (self.port, self.protocol) {
            rule["destination_ports"] = json!([port]);
        }
        if let Some(peer) = self.peer {
            let end = if direction == Ingress { "source" } else { "destination" };
            rule[end] = json!([format!("10.0.0.{}/32", peer + 1)]);
        }
        rule
    }

    fn is_about(&self, sent: Sent, direction: Direction) -> bool {
        let peer = if direction == Ingress { sent.from } else { sent.to };
        !self.is_staged
            && self.protocol.is_none_or(|protocol| {
                protocol == sent.protocol && self.port.is_none_or(|port| port == sent.port)
            })
            && self.peer.is_none_or(|it| it == peer)
    }
}

impl World {
    /// The first rule of a tier that is about it says what becomes of it; none, or one that passes it on: nothing.
    fn tier(
        &self,
        is_before: bool,
        port: usize,
        direction: Direction,
        sent: Sent,
    ) -> Option<Result<(), DropReason>> {
        let is_here = |list: &&(usize, &List)| list.1.is_before == is_before && list.1.ports.contains(&port);
        let all: Vec<(usize, &List)> = self.lists.iter().enumerate().collect();
        let mut lists: Vec<_> = all.iter().filter(is_here).collect();
        // Names are in the order of numbers.
        lists.sort_by_key(|(number, list)| (list.priority, *number));
        let rules = lists
            .into_iter()
            .flat_map(|(_, list)| if direction == Ingress { &list.ingress } else { &list.egress });
        match rules.into_iter().find(|rule| rule.is_about(sent, direction))?.action {
            "allow" => Some(Ok(())),
            "deny" => Some(Err(DropReason::AclDenied)),
            "reject" => Some(Err(DropReason::AclRejected)),
            _ => None,
        }
    }

    fn policies(&self, port: usize, direction: Direction, sent: Sent) -> Option<Result<(), DropReason>> {
        let of: Vec<_> =
            self.policies.iter().filter(|it| it.pod == port && it.direction == direction).collect();
        let peer = if direction == Ingress { sent.from } else { sent.to };
        let allows = |policy: &&Policy| {
            let is_open = policy.ports.is_empty()
                || sent.protocol == Protocol::Udp && policy.ports.contains(&sent.port);
            policy.peers.contains(&peer) && is_open
        };
        let denied = if direction == Ingress { DropReason::PolicyIngress } else { DropReason::PolicyEgress };
        (!of.is_empty()).then(|| if of.iter().any(allows) { Ok(()) } else { Err(denied) })
    }

    fn end(&self, port: usize, direction: Direction, sent: Sent) -> Result<(), DropReason> {
        let default = match (direction, self.denies[port]) {
            (Ingress, [true, _]) => Err(DropReason::DefaultIngress),
            (Egress, [_, true]) => Err(DropReason::DefaultEgress),
            _ => Ok(()),
        };
        let before = self.tier(true, port, direction, sent);
        let policies = before.or_else(|| self.policies(port, direction, sent));
        policies.or_else(|| self.tier(false, port, direction, sent)).unwrap_or(default)
    }

    /// To whom it comes, and why not to the others: one drop for all if its sender may not send it.
    fn expects(&self, sent: Sent, is_flooded: bool) -> (Vec<usize>, Vec<DropReason>) {
        if let Err(reason) = self.end(sent.from, Egress, sent) {
            return (vec![], vec![reason]);
        }
        // What an isolated pod floods is for whom its policies were asked about.
        let is_isolated = self.policies.iter().any(|it| (it.pod, it.direction) == (sent.from, Egress));
        let is_for_all = is_flooded && !is_isolated;
        let meant = (0..PODS).filter(|pod| if is_for_all { *pod != sent.from } else { *pod == sent.to });
        let (mut reached, mut denied) = (Vec::new(), Vec::new());
        for pod in meant {
            match self.end(pod, Ingress, sent) {
                Ok(()) => reached.push(pod),
                Err(reason) => denied.push(reason),
            }
        }
        (reached, denied)
    }

    fn declare(&self) -> Net {
        let pods: Vec<_> = (0..PODS).map(|n| pod(APPS[n], &format!("10.0.0.{}", n + 1))).collect();
        let policies: Vec<NetworkPolicy> =
            self.policies.iter().enumerate().map(|(n, it)| it.object(n)).collect();
        let mut net = net(vec![], &pods, &policies);
        for (port, [ingress, egress]) in self.denies.into_iter().enumerate() {
            let verdict = |denies: bool| if denies { "deny" } else { "allow" };
            let verdicts = json!({"ingress": verdict(ingress), "egress": verdict(egress)});
            let default_verdict = serde_json::from_value(verdicts).unwrap();
            let settings = PortSettings { default_verdict, ..PortSettings::default() };
            let name = format!("p{port}").parse().unwrap();
            net.rig.declare(&Request::PortSet(PortSet { name, settings })).unwrap();
        }
        for (n, list) in self.lists.iter().enumerate() {
            let rules =
                |rules: &[Rule], direction| rules.iter().map(|it| it.json(direction)).collect::<Vec<_>>();
            let ports: Vec<_> = list.ports.iter().map(|port| format!("p{port}")).collect();
            let acl = json!({
                "name": format!("l{n}"), "tier": if list.is_before { "before" } else { "after" },
                "priority": list.priority, "applies_to": {"ports": ports},
                "ingress": rules(&list.ingress, Ingress), "egress": rules(&list.egress, Egress),
            });
            set(&mut net, acl);
        }
        introduce(&mut net);
        net
    }
}

impl Policy {
    fn object(&self, number: usize) -> NetworkPolicy {
        let selector = |pod: &usize| json!({"podSelector": {"matchLabels": {"app": APPS[*pod]}}});
        let peers: Vec<_> = self.peers.iter().map(selector).collect();
        let ports: Vec<_> = self.ports.iter().map(|port| json!({"protocol": "UDP", "port": port})).collect();
        let (kind, rules, peer) = match self.direction {
            Ingress => ("Ingress", "ingress", "from"),
            Egress => ("Egress", "egress", "to"),
        };
        let mut spec = selector(&self.pod);
        spec["policyTypes"] = json!([kind]);
        // A rule that names no peers is about all there are.
        if !peers.is_empty() {
            spec[rules] = json!([{peer: peers, "ports": ports}]);
        }
        let metadata = json!({"name": format!("n{number}"), "namespace": "shop"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }
}

fn some_of() -> impl Strategy<Value = Vec<usize>> {
    proptest::sample::subsequence((0..PODS).collect::<Vec<_>>(), 0..=PODS)
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let action = prop_oneof![Just("allow"), Just("deny"), Just("pass"), Just("reject")];
    let protocol = proptest::option::of(prop_oneof![Just(Protocol::Udp), Just(Protocol::Tcp)]);
    let about = (protocol, proptest::option::of(1u16..3), proptest::option::of(0..PODS));
    let rule =
        (action, prop::bool::weighted(0.2), about).prop_map(|(action, is_staged, (protocol, port, peer))| {
            Rule { action, is_staged, protocol, port, peer }
        });
    proptest::collection::vec(rule, 1..3)
}

fn world() -> impl Strategy<Value = World> {
    let ports = proptest::sample::subsequence((0..PODS).collect::<Vec<_>>(), 1..=PODS);
    let both = (rules(), rules(), 0..3).prop_map(|(ingress, egress, which)| match which {
        0 => (ingress, vec![]),
        1 => (vec![], egress),
        _ => (ingress, egress),
    });
    let list =
        (any::<bool>(), 1u16..4, ports, both).prop_map(|(is_before, priority, ports, (ingress, egress))| {
            List { is_before, priority, ports, ingress, egress }
        });
    let open = proptest::sample::subsequence(vec![1u16, 2], 0..=2);
    let direction = prop_oneof![Just(Ingress), Just(Egress)];
    let policy = (0..PODS, direction, some_of(), open).prop_map(|(pod, direction, peers, ports)| Policy {
        pod,
        direction,
        peers,
        ports,
    });
    let denies = proptest::array::uniform3(proptest::array::uniform2(prop::bool::weighted(0.3)));
    (proptest::collection::vec(list, 0..6), proptest::collection::vec(policy, 0..4), denies)
        .prop_map(|(lists, policies, denies)| World { lists, policies, denies })
}

/// Every first packet there may be, to a station that is known and to one that is not.
fn everything() -> Vec<(Sent, bool)> {
    let mut all = Vec::new();
    for (from, to) in
        (0..PODS).flat_map(|from| (0..PODS).map(move |to| (from, to))).filter(|(from, to)| from != to)
    {
        for (protocol, port) in [Protocol::Udp, Protocol::Tcp].into_iter().flat_map(|it| [(it, 1), (it, 2)]) {
            all.extend([false, true].map(|is_flooded| (Sent { from, to, protocol, port }, is_flooded)));
        }
    }
    all
}

proptest! {
    #![proptest_config(crate::cases::cases(64))]

    #[test]
    fn tiers_policies_and_defaults_are_asked_in_their_order_at_both_ends(world in world()) {
        let mut net = world.declare();
        for (number, (sent, is_flooded)) in (1u16..).zip(everything()) {
            let ip = |pod: usize| format!("10.0.0.{}", pod + 1).parse().unwrap();
            let link = (if is_flooded { UNKNOWN } else { mac(sent.to) }, mac(sent.from));
            let mut frame = packet(link, ip(sent.from), ip(sent.to), (sent.protocol, sent.port), 7);
            // A flow of its own.
            frame[34..36].copy_from_slice(&number.to_be_bytes());
            let drops = |net: &Net| DropReason::ALL.iter().map(|reason| {
                (0..PODS as u16).map(|port| net.rig.counters[0].drops(port, *reason)).sum::<u64>()
            }).collect::<Vec<_>>();
            let before = drops(&net);
            prop_assert!(net.peers[sent.from].send(frame));
            net.rig.settle(NOW);
            let reached: Vec<usize> = (0..PODS).filter(|pod| {
                let came = std::iter::from_fn(|| net.peers[*pod].recv()).count();
                // Its sender is told what was rejected.
                came > 0 && *pod != sent.from
            }).collect();
            let mut denied = Vec::new();
            for ((reason, before), after) in DropReason::ALL.iter().zip(before).zip(drops(&net)) {
                denied.extend(std::iter::repeat_n(*reason, (after - before) as usize));
            }
            let (expected, mut reasons) = world.expects(sent, is_flooded);
            reasons.sort_by_key(|reason| *reason as usize);
            prop_assert_eq!((reached, denied), (expected, reasons), "{:?}, flooded {}", sent, is_flooded);
        }
        net.rig.assert_conserved();
    }
}
