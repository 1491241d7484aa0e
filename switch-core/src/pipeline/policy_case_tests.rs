//! Every case of the policy room's list as packets, through the whole pipeline: bridged, as unicast to a known station and as flooded copies; routed from
//! one subnet to the next; and step by step, each made of the one before by what was done.

use super::policy_route_tests::{OWN, gateway, hear, pin};
use super::policy_tests::{NOW, Net, every_drop_is_accounted_for, introduce, mac, net, packet, reply};
use crate::cases::{some, some_of};
use crate::config::gateway::to_bits;
use crate::counter::DropReason;
use crate::policy::cases::{Action, Step, cases, steps};
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use switch_api::{ByName, ByNamespace, Namespace, Request, Vid, Workload};

/// Nobody's.
const UNKNOWN: [u8; 6] = [2, 9, 9, 9, 9, 9];

/// How packets get to who they are for.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Bridged,
    Flooded,
    /// Pods of one subnet are on one bridge; between subnets the switch routes.
    Routed,
}

/// The pods of a step, and where they are.
struct Cast<'a> {
    net: &'a mut Net,
    step: &'a Step,
    /// Which port each pod has, by number.
    at: Vec<usize>,
    way: Way,
}

/// The packets that arrived: at which pod, and which.
type Arrived = HashSet<(usize, u32)>;

fn ip_of(workload: &Workload) -> IpAddr {
    workload.addresses[0]
}

/// All but the last octet.
fn subnet(ip: IpAddr) -> u128 {
    to_bits(ip) >> 8
}

impl<'a> Cast<'a> {
    /// Every pod has the port of its number.
    fn new(net: &'a mut Net, step: &'a Step, way: Way) -> Self {
        Self { net, step, at: (0..step.pods.len()).collect(), way }
    }

    fn ip(&self, pod: usize) -> IpAddr {
        ip_of(&self.step.pods[pod])
    }

    /// The MACs of what one sends another.
    fn link(&self, from: usize, to: usize) -> ([u8; 6], [u8; 6]) {
        let dst = match self.way {
            Way::Flooded => UNKNOWN,
            Way::Routed if subnet(self.ip(from)) != subnet(self.ip(to)) => OWN,
            _ => mac(self.at[to]),
        };
        (dst, mac(self.at[from]))
    }

    /// What became of all that was sent.
    fn arrived(&mut self) -> Arrived {
        self.net.rig.settle(NOW);
        let each = self.at.iter().enumerate();
        let peers = &self.net.peers;
        each.flat_map(|(pod, at)| std::iter::from_fn(|| peers[*at].recv()).map(move |it| (pod, mark_of(&it))))
            .collect()
    }

    /// Sends every pair's packet for every protocol and port.
    fn everything_sent(&mut self) -> Arrived {
        let (mut arrived, pods) = (Arrived::new(), self.step.pods.len());
        for (what, (protocol, port, _)) in self.step.expect.iter().enumerate() {
            for from in 0..pods {
                for to in (0..pods).filter(|to| *to != from) {
                    let (link, l4) = (self.link(from, to), (*protocol, *port));
                    let sent = packet(link, self.ip(from), self.ip(to), l4, mark(what, from, to));
                    assert!(self.net.peers[self.at[from]].send(sent));
                }
            }
            arrived.extend(self.arrived());
        }
        arrived
    }

    /// Answers all that arrived, with the marks of what is answered.
    fn everything_answered(&mut self, arrived: &Arrived) -> Arrived {
        let mut answered = Arrived::new();
        let arrived: Vec<_> = arrived.iter().copied().collect();
        for some in arrived.chunks(64) {
            for (pod, mark) in some {
                let (what, asked) = ((mark >> 16) as usize, (mark >> 8 & 0xff) as usize);
                let (protocol, port, _) = self.step.expect[what];
                let link = self.link(*pod, asked);
                let sent = reply(link, self.ip(*pod), self.ip(asked), (protocol, port), *mark);
                assert!(self.net.peers[self.at[*pod]].send(sent));
            }
            answered.extend(self.arrived());
        }
        answered
    }

    /// What was sent arrived where it should, and nowhere else that it should not. How many pairs, and how many of them are blocked.
    fn assert_expected(&self, arrived: &Arrived) -> [usize; 2] {
        let (pods, mut counts) = (self.step.pods.len(), [0; 2]);
        for (what, (protocol, port, expect)) in self.step.expect.iter().enumerate() {
            let ends = (0..pods).flat_map(|from| (0..pods).map(move |to| (from, to)));
            for ((from, to), expect) in ends.zip(expect).filter(|((from, to), _)| from != to) {
                let came = arrived.contains(&(to, mark(what, from, to)));
                assert_eq!(came, *expect, "{}: pod {from} to {to}, {protocol}/{port}", self.step.name);
                counts[0] += 1;
                counts[1] += usize::from(!expect);
            }
        }
        counts
    }

    /// Whoever may be asked may answer, whatever else its policies say.
    fn assert_answered(&mut self, arrived: &Arrived) {
        let asked: Arrived = arrived.iter().map(|(_, mark)| ((mark >> 8 & 0xff) as usize, *mark)).collect();
        assert_eq!(self.everything_answered(arrived), asked, "{}: answers", self.step.name);
    }
}

fn mark(what: usize, from: usize, to: usize) -> u32 {
    (what << 16 | from << 8 | to) as u32
}

fn mark_of(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[frame.len() - 4..].try_into().unwrap())
}

fn namespaces_of(step: &Step) -> Vec<Namespace> {
    let namespace = |(name, labels): (&String, &switch_api::Labels)| Namespace {
        name: name.clone(),
        labels: labels.clone(),
        owner: Default::default(),
    };
    step.namespaces.iter().map(namespace).collect()
}

/// Pods behind ports on bridges of their subnets, all of which the switch knows and routes between.
fn routed(step: &Step) -> Net {
    let mut net = Net::new();
    let subnets: BTreeSet<u128> = step.pods.iter().map(|pod| subnet(ip_of(pod))).collect();
    for (n, subnet) in subnets.iter().enumerate() {
        let address = Ipv6Addr::from_bits(subnet << 8 | 254).to_canonical();
        let len = if address.is_ipv4() { 24 } else { 120 };
        gateway(&mut net, &format!("br{n}"), &format!("{address}/{len}"));
    }
    for pod in &step.pods {
        let bridge = subnets.iter().position(|it| *it == subnet(ip_of(pod))).unwrap();
        let bridge = format!("br{bridge}");
        let n = net.add(&bridge, pod);
        pin(&net, (&bridge, Vid::DEFAULT), ip_of(pod), mac(n));
    }
    hear(&mut net);
    namespaces_of(step).into_iter().for_each(|it| net.rig.declare(&Request::NamespaceSet(it)).unwrap());
    for policy in &step.policies {
        net.rig.declare(&Request::PolicyAdd(Box::new(policy.clone()))).unwrap();
    }
    net
}

/// The net of a step, in which every station is known.
fn net_of(step: &Step, way: Way) -> Net {
    if way == Way::Routed {
        return routed(step);
    }
    let mut net = net(namespaces_of(step), &step.pods, &step.policies);
    introduce(&mut net);
    net
}

fn every_case(v6: bool, way: Way) {
    let mut counts = [0; 2];
    for step in some(steps(v6)) {
        let mut net = net_of(&step, way);
        let mut cast = Cast::new(&mut net, &step, way);
        let arrived = cast.everything_sent();
        let [pairs, blocked] = cast.assert_expected(&arrived);
        counts = [counts[0] + pairs, counts[1] + blocked];
        if way != Way::Flooded {
            cast.assert_answered(&arrived);
            let drops = net.rig.drops(DropReason::PolicyIngress) + net.rig.drops(DropReason::PolicyEgress);
            assert_eq!(drops, blocked as u64, "{}: every drop has its name", step.name);
        }
        every_drop_is_accounted_for(&net, &step.policies);
        net.rig.assert_conserved();
    }
    let [pairs, blocked] = counts;
    assert!(pairs > some_of(60_000) && blocked > some_of(10_000), "{pairs} pairs, {blocked} blocked");
}

#[test]
fn every_case_as_packets_v4() {
    every_case(false, Way::Bridged);
}

#[test]
fn every_case_as_packets_v6() {
    every_case(true, Way::Bridged);
}

/// To a station that nobody has learned: every port is given a copy, unless its policies do not want it.
#[test]
fn every_case_as_flooded_copies() {
    every_case(false, Way::Flooded);
}

/// Namespaces have subnets of their own: what goes from one to another is routed, what stays in one is bridged.
#[test]
fn every_case_as_routed_packets_v4() {
    every_case(false, Way::Routed);
}

#[test]
fn every_case_as_routed_packets_v6() {
    every_case(true, Way::Routed);
}

/// A net that what is done in a case is done to, and who is where.
struct Played {
    net: Net,
    /// Pods by name, and their ports.
    at: Vec<(String, usize)>,
}

impl Played {
    fn act(&mut self, action: &Action, after: &Step) {
        let declare = |net: &mut Net, request: Request| net.rig.declare(&request).unwrap();
        let labelled = |name: &String, labels: &switch_api::Labels| {
            let pod = &after.pods[after.names.iter().position(|it| it == name).unwrap()];
            Workload { labels: labels.clone(), ..pod.clone() }
        };
        match action {
            Action::CreatePolicy { policy } => declare(&mut self.net, Request::PolicyAdd(policy.clone())),
            Action::CreateNamespace { namespace, labels } => {
                let (name, labels) = (namespace.clone(), labels.clone());
                let namespace = Namespace { name, labels, owner: Default::default() };
                declare(&mut self.net, Request::NamespaceSet(namespace));
            }
            // With all that is in it.
            Action::DeleteNamespace { namespace } => {
                self.remove(|name| name.split('/').next() == Some(namespace));
                declare(&mut self.net, Request::NamespaceDelete(ByNamespace { name: namespace.clone() }));
            }
            Action::CreatePod { namespace, pod, labels } => {
                let name = format!("{namespace}/{pod}");
                let port = self.net.add("br0", &labelled(&name, labels));
                self.at.push((name, port));
                hear(&mut self.net);
            }
            Action::SetPodLabels { namespace, pod, labels } => {
                let name = format!("{namespace}/{pod}");
                let port = self.at.iter().find(|(it, _)| *it == name).unwrap().1;
                self.net.label(port, &labelled(&name, labels));
            }
            Action::DeletePod { namespace, pod } => self.remove(|name| *name == format!("{namespace}/{pod}")),
        }
    }

    fn remove(&mut self, is_gone: impl Fn(&String) -> bool) {
        let (gone, left) = self.at.drain(..).partition(|(name, _)| is_gone(name));
        self.at = left;
        let gone: Vec<(String, usize)> = gone;
        for (_, port) in gone {
            let name: switch_api::Name = format!("p{port}").parse().unwrap();
            let id = self.net.rig.model.ports[&name].id;
            self.net.rig.declare(&Request::PortDelete(ByName { name })).unwrap();
            self.net.rig.run(NOW);
            self.net.rig.take_lane(id, 0, 0);
        }
    }

    /// What is declared is what the step says.
    fn assert_is(&self, step: &Step) {
        let model = &self.net.rig.model;
        let named = |policy: &switch_api::NetworkPolicy| (policy.metadata.clone(), policy.spec.clone());
        let declared: Vec<_> = model.policies.values().map(|placed| named(&placed.policy)).collect();
        let wanted: Vec<_> = step.policies.iter().map(named).collect();
        assert!(
            declared.len() == wanted.len() && wanted.iter().all(|it| declared.contains(it)),
            "{}",
            step.name
        );
        assert_eq!(model.declared_namespaces(), namespaces_of(step), "{}", step.name);
        assert_eq!(self.at.len(), step.pods.len(), "{}", step.name);
        for (pod, name) in step.pods.iter().zip(&step.names) {
            let port = self.at.iter().find(|(it, _)| it == name).unwrap().1;
            let port = &model.ports[&format!("p{port}").parse().unwrap()];
            assert_eq!(port.object.workload.as_ref(), Some(pod), "{}: {name}", step.name);
        }
    }
}

/// What is done between the steps of a case is done to one switch, while the flows of the steps before are still there: each packet is judged by what
/// there is now, and so is what belonged to a flow that was let through.
#[test]
fn what_is_done_in_a_case_is_in_force_for_the_flows_that_there_are() {
    let (mut done, mut stopped) = (0, 0);
    for v6 in [false, true] {
        for case in cases(v6).iter().filter(|case| case.len() > 1) {
            let first = &case[0];
            assert!(first.actions.is_empty());
            let at = first.names.iter().cloned().zip(0..).collect();
            let mut played = Played { net: net_of(first, Way::Bridged), at };
            let mut before = Vec::new();
            for step in case {
                step.actions.iter().for_each(|action| played.act(action, step));
                done += step.actions.len();
                played.assert_is(step);
                let find = |name: &String| played.at.iter().find(|(it, _)| it == name).unwrap().1;
                let at: Vec<usize> = step.names.iter().map(find).collect();
                let mut cast = Cast { net: &mut played.net, step, at, way: Way::Bridged };
                let arrived = cast.everything_sent();
                cast.assert_expected(&arrived);
                cast.assert_answered(&arrived);
                // By name, for pods have other places in other steps.
                let named = |(to, mark): &(usize, u32)| {
                    let from = (mark >> 8 & 0xff) as usize;
                    (mark >> 16, step.names[from].clone(), step.names[*to].clone())
                };
                let now: HashSet<_> = arrived.iter().map(named).collect();
                stopped += before.iter().filter(|it| !now.contains(it)).count();
                before = now.into_iter().collect::<Vec<_>>();
            }
            played.net.rig.assert_conserved();
        }
    }
    assert_eq!(done, 2 * 15, "all that is done in them");
    assert!(stopped > 100, "{stopped} flows were let through before, and not after");
}
