//! Network policies as packets: senders that pose as somebody else, answers, what is told of drops, and changes under load.

use super::Now;
use crate::cases::some_of;
use crate::counter::{DropReason, Event};
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use crate::table::flow::watch::{Watch, What};
use crate::wire::checksum::{fold, sum};
use std::net::IpAddr;
use std::sync::Arc;
use switch_api::{Namespace, PortLabel, PortSettings, Protocol, Request, Workload};

pub(super) const NOW: Now = Now { ns: 5_000_000_000 };

pub(super) struct Net {
    pub rig: Rig,
    pub peers: Vec<MemoryPeer>,
}

impl Net {
    pub fn new() -> Self {
        let rig = Rig::new(Size { fdb_entries: 256, flows: 1 << 16, ..Size::default() });
        Self { rig, peers: Vec::new() }
    }

    /// A workload more, on a bridge. Its number.
    pub fn add(&mut self, bridge: &str, pod: &Workload) -> usize {
        let (n, (port, peer)) = (self.peers.len(), memory::wire());
        let name = format!("p{n}");
        self.rig.add_port_to(bridge, &name, PortSettings::default(), Box::new(port), 0).unwrap();
        self.peers.push(peer);
        self.label(n, pod);
        n
    }

    /// What a port's workload is from now on.
    pub fn label(&mut self, n: usize, pod: &Workload) {
        let label = PortLabel { name: format!("p{n}").parse().unwrap(), workload: Some(pod.clone()) };
        self.rig.declare(&Request::PortLabel(label)).unwrap();
    }
}

pub(super) fn mac(n: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, n as u8 + 1]
}

/// A rig with these workloads on one bridge, and the policies in force.
pub(super) fn net(
    namespaces: Vec<Namespace>,
    pods: &[Workload],
    policies: &[switch_api::NetworkPolicy],
) -> Net {
    let mut net = Net::new();
    for pod in pods {
        net.add("br0", pod);
    }
    for namespace in namespaces {
        net.rig.declare(&Request::NamespaceSet(namespace)).unwrap();
    }
    for policy in policies {
        net.rig.declare(&Request::PolicyAdd(Box::new(policy.clone()))).unwrap();
    }
    net
}

/// ARP from a station, to everybody: no policy is about it, and every port's station is known afterwards.
pub(super) fn introduce(net: &mut Net) {
    for (n, peer) in net.peers.iter().enumerate() {
        let mut frame = vec![0xff; 6];
        frame.extend(mac(n));
        frame.extend([8, 6]);
        frame.resize(60, 0);
        assert!(peer.send(frame));
    }
    net.rig.settle(NOW);
    for peer in &net.peers {
        assert_eq!(std::iter::from_fn(|| peer.recv()).count(), net.peers.len() - 1, "ARP reaches everybody");
    }
}

/// A packet with a mark behind its ports.
pub(super) fn packet(
    link: ([u8; 6], [u8; 6]),
    from: IpAddr,
    to: IpAddr,
    l4: (Protocol, u16),
    mark: u32,
) -> Vec<u8> {
    let protocol = match l4.0 {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    // As much as the longest of the three headers; a SYN or an INIT by what it says.
    let mut transport = vec![0; 40];
    transport[..2].copy_from_slice(&40_000u16.to_be_bytes());
    transport[2..4].copy_from_slice(&l4.1.to_be_bytes());
    match l4.0 {
        Protocol::Tcp => (transport[12], transport[13]) = (5 << 4, 2),
        Protocol::Udp => transport[4..6].copy_from_slice(&40u16.to_be_bytes()),
        Protocol::Sctp => (transport[12], transport[15], transport[19]) = (1, 20, 1),
    }
    transport[36..].copy_from_slice(&mark.to_be_bytes());
    let mut frame = [link.0, link.1].concat();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([8, 0]);
            let mut header = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, protocol, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let checksum = !fold(sum(&header));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, protocol, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        other => panic!("{other:?} are of two families"),
    }
    frame.extend(transport);
    frame
}

/// The answer to a [`packet`] that began something, from whom it reached: to the other port, and with the number or tag that was named.
pub(super) fn reply(
    link: ([u8; 6], [u8; 6]),
    from: IpAddr,
    to: IpAddr,
    l4: (Protocol, u16),
    mark: u32,
) -> Vec<u8> {
    let mut frame = packet(link, from, to, l4, mark);
    let at = frame.len() - 40;
    let transport = &mut frame[at..];
    transport[..2].copy_from_slice(&l4.1.to_be_bytes());
    transport[2..4].copy_from_slice(&40_000u16.to_be_bytes());
    match l4.0 {
        Protocol::Tcp => (transport[11], transport[13]) = (1, 0x12),
        Protocol::Udp => {}
        Protocol::Sctp => (transport[7], transport[12]) = (1, 2),
    }
    frame
}

/// Told, not told or told before, and by a rule's default: no drop of a policy is none of the three.
pub(super) fn every_drop_is_accounted_for(net: &Net, policies: &[switch_api::NetworkPolicy]) {
    let counters = &net.rig.counters[0];
    let of = |reasons: &[DropReason]| reasons.iter().map(|reason| net.rig.drops(*reason)).sum::<u64>();
    let by_rule = of(&[DropReason::PolicyIngress, DropReason::PolicyEgress]);
    let others = of(&[DropReason::PolicyRelated, DropReason::PolicySource, DropReason::PolicyOpaque]);
    let told = [Event::PolicyDropTold, Event::PolicyDropUntold, Event::PolicyDropAgain];
    let told: u64 = told.iter().map(|event| counters.event(*event).get()).sum();
    assert_eq!(told, by_rule + others, "told, untold and told before");
    let placed = net.rig.model.policies.values();
    let slots = placed.flat_map(|placed| [placed.slot, placed.slot + 1]);
    let counted: u64 = slots.filter_map(|slot| counters.rule(slot)).map(|counter| counter.get()).sum();
    assert_eq!(counted, by_rule, "{} policies", policies.len());
}

pub(super) fn pod(name: &str, ip: &str) -> Workload {
    Workload {
        namespace: "shop".into(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        ports: vec![],
        addresses: vec![ip.parse().unwrap()],
    }
}

/// `db` takes from `web` alone.
fn shop() -> Net {
    let policy = serde_json::json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}],
        },
    });
    let pods = [pod("db", "10.0.0.1"), pod("web", "10.0.0.2"), pod("other", "10.0.0.3")];
    let mut net = net(vec![], &pods, &[serde_json::from_value(policy).unwrap()]);
    introduce(&mut net);
    net
}

pub(super) fn arrives(net: &mut Net, from: usize, to: usize, frame: Vec<u8>) -> bool {
    assert!(net.peers[from].send(frame));
    net.rig.settle(NOW);
    let mut came = false;
    for (n, peer) in net.peers.iter().enumerate() {
        came |= std::iter::from_fn(|| peer.recv()).count() > 0 && n == to;
    }
    came
}

fn to_db(from: &str, source: usize, port: u16) -> Vec<u8> {
    let (from, to) = (from.parse().unwrap(), "10.0.0.1".parse().unwrap());
    packet((mac(0), mac(source)), from, to, (Protocol::Tcp, port), 7)
}

#[test]
fn nobody_poses_as_another() {
    let mut net = shop();
    assert!(arrives(&mut net, 1, 0, to_db("10.0.0.2", 1, 5432)));
    assert!(!arrives(&mut net, 1, 0, to_db("10.0.0.2", 1, 5433)));
    assert!(!arrives(&mut net, 2, 0, to_db("10.0.0.3", 2, 5432)));
    assert_eq!(net.rig.drops(DropReason::PolicyIngress), 2);
    // As `web`, from another pod.
    assert!(!arrives(&mut net, 2, 0, to_db("10.0.0.2", 2, 5432)));
    assert_eq!(net.rig.drops(DropReason::PolicySource), 1);
    // The rules counted what they decided.
    let counted = |net: &Net, slot| net.rig.counters[0].rule(slot).unwrap().get();
    assert_eq!((counted(&net, 0), counted(&net, 2)), (2, 1));
}

#[test]
fn what_no_policy_can_be_asked_about_does_not_get_in() {
    let mut net = shop();
    let good = to_db("10.0.0.2", 1, 5432);
    let mut other = good.clone();
    other[12..14].copy_from_slice(&[0x88, 0xa8]);
    let mut torn = good.clone();
    torn[16..18].copy_from_slice(&2000u16.to_be_bytes());
    // A tiny first fragment: its ports are in none.
    let mut tiny = good[..14 + 20 + 2].to_vec();
    tiny[16..18].copy_from_slice(&22u16.to_be_bytes());
    tiny[20] = 0x20;
    tiny[24..26].fill(0);
    let checksum = !fold(sum(&tiny[14..34]));
    tiny[24..26].copy_from_slice(&checksum.to_be_bytes());
    for (frame, reason) in
        [(other, DropReason::PolicyOpaque), (torn, DropReason::IpHeader), (tiny, DropReason::FragmentTiny)]
    {
        assert!(!arrives(&mut net, 1, 0, frame));
        assert_eq!(net.rig.drops(reason), 1, "{reason:?}");
    }
    assert!(arrives(&mut net, 1, 0, good));
}

#[test]
fn a_policy_that_goes_leaves_nothing_behind() {
    let mut net = shop();
    assert!(!arrives(&mut net, 2, 0, to_db("10.0.0.3", 2, 5432)));
    let by = switch_api::ByPolicy { name: "db".into(), namespace: "shop".into() };
    net.rig.declare(&Request::PolicyDelete(by.clone())).unwrap();
    assert!(arrives(&mut net, 2, 0, to_db("10.0.0.3", 2, 5432)));
    assert_eq!(net.rig.declare(&Request::PolicyDelete(by)).unwrap_err().code, switch_api::Code::NotFound);
}

/// The answer to an IPv4 packet.
pub(super) fn answer(packet: &[u8]) -> Vec<u8> {
    let mut answer = packet.to_vec();
    for (one, other, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        answer[one..one + len].copy_from_slice(&packet[other..other + len]);
        answer[other..other + len].copy_from_slice(&packet[one..one + len]);
    }
    answer
}

#[test]
fn answers_pass_and_what_is_no_longer_allowed_stops() {
    let mut net = shop();
    let question = |to: usize, address: &str| {
        let (from, to_ip) = ("10.0.0.1".parse().unwrap(), address.parse().unwrap());
        packet((mac(to), mac(0)), from, to_ip, (Protocol::Udp, 53), 9)
    };
    let (web, other) = (question(1, "10.0.0.2"), question(2, "10.0.0.3"));
    // Nobody asked.
    assert!(!arrives(&mut net, 1, 0, answer(&web)));
    assert!(arrives(&mut net, 0, 1, web.clone()) && arrives(&mut net, 1, 0, answer(&web)));
    // Not from whom it is expected.
    assert!(arrives(&mut net, 0, 2, other.clone()));
    let mut forged = answer(&web);
    forged[6..12].copy_from_slice(&mac(2));
    assert!(!arrives(&mut net, 2, 0, forged));
    // Now `db` may ask nobody: what it asked before is over too, until it may again.
    let nobody = serde_json::json!({
        "metadata": {"name": "nobody", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"]},
    });
    let nobody: switch_api::NetworkPolicy = serde_json::from_value(nobody).unwrap();
    net.rig.declare(&Request::PolicyAdd(Box::new(nobody))).unwrap();
    assert!(!arrives(&mut net, 0, 1, web.clone()) && !arrives(&mut net, 1, 0, answer(&web)));
    let by = switch_api::ByPolicy { name: "nobody".into(), namespace: "shop".into() };
    net.rig.declare(&Request::PolicyDelete(by)).unwrap();
    assert!(arrives(&mut net, 1, 0, answer(&web)) && arrives(&mut net, 2, 0, answer(&other)));
    net.rig.assert_conserved();
}

/// An ICMP error that quotes a packet's IP header and ports, back to its sender.
pub(super) fn unreachable(quoted: &[u8], from: usize, to: usize) -> Vec<u8> {
    let mut frame = [mac(to), mac(from)].concat();
    let mut body: Vec<u8> =
        [3, 3, 0, 0, 0, 0, 0, 0].into_iter().chain(quoted[14..42].iter().copied()).collect();
    let mut header = vec![0x45, 0, 0, 20 + body.len() as u8, 0, 0, 0, 0, 64, 1, 0, 0];
    header.extend(&quoted[30..34]);
    header.extend(&quoted[26..30]);
    let checksum = !fold(sum(&header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let checksum = !fold(sum(&body));
    body[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame.extend([8, 0]);
    frame.extend(header);
    frame.extend(body);
    frame
}

/// The first packet of a flow is told of with the rule, and only that; an error about a flow that is to be judged
/// again has a name of its own.
#[test]
fn drops_are_told_once_and_all_have_a_name() {
    let mut net = shop();
    for _ in 0..3 {
        assert!(!arrives(&mut net, 2, 0, to_db("10.0.0.3", 2, 5432)));
    }
    let told = net.rig.take_refused();
    let [refused] = &told[..] else { panic!("{told:?}") };
    assert_eq!((refused.from, refused.to, refused.slot), (2, Some(0), Some(0)));
    assert_eq!(refused.reason, DropReason::PolicyIngress);
    let who = refused.who.unwrap();
    assert_eq!((who.protocol, who.ports), (6, [40_000, 5432]));
    // To another port it is another flow.
    assert!(!arrives(&mut net, 2, 0, to_db("10.0.0.3", 2, 5433)));
    assert_eq!(net.rig.take_refused().len(), 1);
    // `db` asks; then what policies say of it changes, and an error comes about what it asked.
    let (from, to) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let asked = packet((mac(1), mac(0)), from, to, (Protocol::Udp, 53), 9);
    assert!(arrives(&mut net, 0, 1, asked.clone()));
    assert!(arrives(&mut net, 1, 0, unreachable(&asked, 1, 0)));
    let nobody = serde_json::json!({
        "metadata": {"name": "nobody", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"]},
    });
    let nobody: switch_api::NetworkPolicy = serde_json::from_value(nobody).unwrap();
    net.rig.declare(&Request::PolicyAdd(Box::new(nobody.clone()))).unwrap();
    assert!(!arrives(&mut net, 1, 0, unreachable(&asked, 1, 0)));
    assert_eq!(net.rig.drops(DropReason::PolicyRelated), 1);
    every_drop_is_accounted_for(&net, &[nobody]);
}

/// A thousand changes in a second, with packets between any two of them: each is in force for the next packet, what no
/// change is about is not judged again, and nobody else's packet is lost.
#[test]
fn a_thousand_updates_a_second_under_load() {
    let isolate = |name: &str, app: &str, from: &str, more: u64| -> switch_api::NetworkPolicy {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "podSelector": {"matchLabels": {"app": app}},
                "ingress": [{
                    "from": [{"podSelector": {"matchLabels": {"app": from}}}],
                    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "UDP", "port": 1000 + more}],
                }],
            },
        }))
        .unwrap()
    };
    let pods =
        [pod("db", "10.0.0.1"), pod("web", "10.0.0.2"), pod("mail", "10.0.0.3"), pod("list", "10.0.0.4")];
    let policies = [isolate("db", "db", "web", 0), isolate("mail", "mail", "list", 0)];
    let mut net = net(vec![], &pods, &policies);
    introduce(&mut net);
    let watch = Arc::new(Watch::default());
    net.rig.watch_flows(Some(watch.clone()));
    let ip = |n: usize| -> IpAddr { format!("10.0.0.{}", n + 1).parse().unwrap() };
    let udp = |from: usize, to: usize| packet((mac(to), mac(from)), ip(from), ip(to), (Protocol::Udp, 53), 1);
    let (mut cut, mut passed) = (0, 0);
    let steps = some_of(500);
    for step in 0..2 * steps as u64 {
        let now = Now { ns: NOW.ns + step * 1_000_000 };
        let allowed = step % 2 == 0;
        let policy = isolate("db", "db", if allowed { "web" } else { "nobody" }, step);
        net.rig.declare(&Request::PolicySet(Box::new(policy))).unwrap();
        for (from, to, passes) in [(1, 0, allowed), (3, 2, true), (2, 3, true)] {
            assert!(net.peers[from].send(udp(from, to)));
            net.rig.settle(now);
            let came = net.peers[to].recv().is_some();
            assert_eq!(came, passes, "step {step}: {from} to {to}");
            passed += usize::from(came);
            cut += usize::from(!came);
        }
    }
    assert_eq!((cut, passed), (steps, 5 * steps));
    let news: Vec<_> = std::iter::from_fn(|| watch.take()).collect();
    let judged = |what| news.iter().filter(|news| news.what == what && news.state.port == 1).count();
    assert!(judged(What::Judged(true)) >= steps - 1, "{}", judged(What::Judged(true)));
    assert_eq!(judged(What::Judged(false)), 1, "the same flow is not told of in each second");
    let quiet = |news: &&crate::table::flow::watch::FlowNews| news.state.port != 1;
    let others: Vec<_> = news.iter().filter(quiet).map(|news| news.what).collect();
    assert_eq!(others, [What::New, What::New], "of whom no change was");
    every_drop_is_accounted_for(&net, &[]);
    net.rig.assert_conserved();
}
