//! Access control lists at ports of every kind: of the node, of pods, of NICs, of tunnels, whether a packet is bridged to what is behind them or
//! routed. To the pipeline a port is a port; here is shown that none is an exception.

use super::acl_tests::{counted, set};
use super::policy_route_tests::{gateway, pin};
use super::policy_tests::{NOW, Net, packet, reply};
use super::tunnel_tests::{self, Around};
use crate::config::mirrored::{Change, KernelHop, KernelPlace, KernelWay, Kind, Mirrored};
use crate::config::shared::Nic;
use crate::counter::DropReason;
use crate::port::memory;
use serde_json::{Value, json};
use std::sync::Arc;
use switch_api::{
    Bridge, KERNEL_PROTOCOL, Mac, Name, PodEnd, Port, PortKind, PortSettings, Protocol::Udp, Request, Vid,
};

/// One end of what is said: the station, to whom it sends, and its address.
#[derive(Clone, Copy)]
struct End {
    mac: [u8; 6],
    to: [u8; 6],
    ip: &'static str,
}

/// A pod behind `p0`, and somebody else behind the port that lists are about.
struct Lab {
    net: Net,
    port: &'static str,
    ends: [End; 2],
    /// The wire of each.
    wires: [usize; 2],
    /// What is around packets that come in by the port.
    around: fn(&[u8]) -> Vec<u8>,
}

const POD: usize = 0;
const FAR: usize = 1;
/// The switch on bridges.
const OWN: [u8; 6] = super::policy_route_tests::OWN;
const NIC: [u8; 6] = [2, 0, 0, 0, 0, 5];
/// What packets end with.
const MARK: u32 = 0x0077_aa55;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn mac(end: usize) -> [u8; 6] {
    [2, 0, 0, 0, 7, end as u8]
}

/// A port in place of whose device is a wire.
fn add(net: &mut Net, (bridge, port): (&str, &str), kind: PortKind, settings: PortSettings) -> u16 {
    let (door, peer) = memory::wire();
    net.peers.push(peer);
    let port = Port { settings, ..Port::new(name(port), name(bridge), kind) };
    net.rig.add_lanes_of(port, vec![(Box::new(door), 0)]).unwrap()
}

/// A pod on a bridge on which the switch has 10.0.0.1.
fn pod() -> Net {
    let mut net = Net::new();
    gateway(&mut net, "br0", "10.0.0.1/16");
    add(&mut net, ("br0", "p0"), PortKind::Memory { source: None }, PortSettings::default());
    pin(&net, ("br0", Vid::DEFAULT), "10.0.0.9".parse().unwrap(), mac(POD));
    net
}

impl Lab {
    fn of(net: Net, port: &'static str, ends: [End; 2]) -> Self {
        let mut lab = Self { net, port, ends, wires: [0, 1], around: <[u8]>::to_vec };
        for (wire, end) in lab.wires.iter().zip(&lab.ends) {
            assert!(lab.net.peers[*wire].send([&[0xff; 6][..], &end.mac, &[0x88, 0xb5], &[0; 46]].concat()));
        }
        lab.net.rig.settle(NOW);
        lab
    }

    /// On the pod's bridge.
    fn bridged(kind: PortKind, settings: PortSettings) -> Self {
        let mut net = pod();
        add(&mut net, ("br0", "far"), kind, settings);
        let here = End { mac: mac(POD), to: mac(FAR), ip: "10.0.0.9" };
        Self::of(net, "far", [here, End { mac: mac(FAR), to: mac(POD), ip: "10.0.0.10" }])
    }

    /// On another bridge, on which the switch has 10.1.0.1.
    fn routed(kind: PortKind, settings: PortSettings) -> Self {
        let mut net = pod();
        gateway(&mut net, "br1", "10.1.0.1/16");
        add(&mut net, ("br1", "far"), kind, settings);
        pin(&net, ("br1", Vid::DEFAULT), "10.1.0.9".parse().unwrap(), mac(FAR));
        let here = End { mac: mac(POD), to: OWN, ip: "10.0.0.9" };
        Self::of(net, "far", [here, End { mac: mac(FAR), to: OWN, ip: "10.1.0.9" }])
    }

    /// A NIC that stays the kernel's, whose routes lead out by it.
    fn uplink() -> Self {
        let mut net = pod();
        net.rig.declare(&Request::BridgeAdd(Bridge::new(name("wan")))).unwrap();
        let id = add(&mut net, ("wan", "up"), PortKind::uplink("eth0"), PortSettings::default());
        let network = "192.0.2.0/24".parse().unwrap();
        let nic = Nic { index: 3, mac: Mac(NIC), addresses: ["192.0.2.5/24".parse().unwrap()].into() };
        net.rig.model.nics = Arc::new([(id, nic)].into());
        let hop = KernelHop { device: "eth0".into(), gateway: None, weight: 1 };
        let way = KernelWay { protocol: KERNEL_PROTOCOL, kind: Kind::Forward, hops: vec![hop], mtu: None };
        let mut change = Change::of(&Mirrored::default());
        change.put(KernelPlace { table: 254, prefix: network, metric: 0 }, Arc::new(way), 9);
        net.rig.model.mirrored = Arc::new(change.finish(&Mirrored::default()).unwrap());
        // Whatever is declared, it is in force with that.
        net.rig.declare(&Request::BridgeAdd(Bridge::new(name("another")))).unwrap();
        pin(&net, ("wan", Vid::DEFAULT), "192.0.2.9".parse().unwrap(), mac(FAR));
        let here = End { mac: mac(POD), to: OWN, ip: "10.0.0.9" };
        Self::of(net, "up", [here, End { mac: mac(FAR), to: NIC, ip: "192.0.2.9" }])
    }

    /// What is for the far pod goes by a tunnel, whose packets go out and come in by `p1`.
    fn tunnel() -> Self {
        let (rig, peers) = tunnel_tests::ready(true);
        let own = super::routing_tests::OWN;
        let here = End { mac: super::routing_tests::mac(0), to: own, ip: "10.0.0.9" };
        let ends = [here, End { mac: tunnel_tests::FAR, to: own, ip: "10.2.0.9" }];
        let around = |frame: &[u8]| {
            let link = (super::routing_tests::mac(7), super::routing_tests::OWN);
            Around::back(true).put(link, frame)
        };
        Self { net: Net { rig, peers }, port: "vx", ends, wires: [0, 1], around }
    }

    /// Every kind there is, as something is got to behind it.
    fn all() -> Vec<(String, Self)> {
        let end = PodEnd {
            device: "eth0".into(),
            netns: "/run/netns/a".into(),
            mac: None,
            addresses: Vec::new(),
            routes: Vec::new(),
        };
        let host = PortKind::Host {
            device: "sw0".into(),
            mac: Some(Mac(mac(FAR))),
            addresses: Vec::new(),
            routes: Vec::new(),
        };
        let returns = PortSettings { return_flows: true, ..PortSettings::default() };
        let kinds = [
            ("host", host.clone(), PortSettings::default()),
            ("host that wants answers back", host, returns),
            ("tap", PortKind::tap("/run/netns/a"), PortSettings::default()),
            ("xdp", PortKind::xdp("eth1"), PortSettings::default()),
            ("xdp into a pod", PortKind::xdp_pod("veth0", end), PortSettings::default()),
            ("memory", PortKind::Memory { source: None }, PortSettings::default()),
            ("pcap", PortKind::Pcap { read: None, write: Some("/tmp/out".into()) }, PortSettings::default()),
        ];
        let each = kinds.into_iter().flat_map(|(what, kind, settings)| {
            let bridged = Self::bridged(kind.clone(), settings.clone());
            [(format!("{what}, bridged"), bridged), (format!("{what}, routed"), Self::routed(kind, settings))]
        });
        each.chain([("uplink".to_owned(), Self::uplink()), ("tunnel".to_owned(), Self::tunnel())]).collect()
    }

    fn sends(&mut self, from: usize, frame: Vec<u8>) -> bool {
        let frame = if from == FAR { (self.around)(&frame) } else { frame };
        self.net.peers.iter().for_each(|peer| while peer.recv().is_some() {});
        assert!(self.net.peers[self.wires[from]].send(frame));
        self.net.rig.settle(NOW);
        self.net.rig.assert_conserved();
        let came = std::iter::from_fn(|| self.net.peers[self.wires[1 - from]].recv());
        came.filter(|frame| frame.ends_with(&MARK.to_be_bytes())).count() == 1
    }

    /// Whether what an end begins arrives at the other: UDP to a port.
    fn asks(&mut self, from: usize, port: u16) -> bool {
        let (end, to) = (self.ends[from], self.ends[1 - from]);
        let ips = [end, to].map(|end| end.ip.parse().unwrap());
        self.sends(from, packet((end.to, end.mac), ips[0], ips[1], (Udp, port), MARK))
    }

    /// Whether an end's answer to that arrives.
    fn answers(&mut self, from: usize, port: u16) -> bool {
        let (end, to) = (self.ends[from], self.ends[1 - from]);
        let ips = [end, to].map(|end| end.ip.parse().unwrap());
        self.sends(from, reply((end.to, end.mac), ips[0], ips[1], (Udp, port), MARK))
    }

    fn list(&mut self, applies_to: &Value, direction: &str, rules: &Value) {
        set(&mut self.net, json!({"name": "l", "applies_to": applies_to, direction: rules}));
    }

    /// All drops so far, by name, of packets that came in by the port behind which an end is.
    fn drops(&self, from: usize) -> Vec<(&'static str, u64)> {
        let port = if from == POD { "p0" } else { self.port };
        let port = self.net.rig.model.ports[&name(port)].id;
        let of = |reason: &DropReason| (reason.name(), self.net.rig.counters[0].drops(port, *reason));
        DropReason::ALL.iter().map(of).filter(|(_, frames)| *frames > 0).collect()
    }
}

/// `ingress` is what a port is sent, `egress` what it sends. A flow from before stops, what is allowed is answered, and a rule counts.
#[test]
fn a_list_judges_both_directions_at_ports_of_every_kind_bridged_and_routed() {
    for (direction, from) in [("ingress", POD), ("egress", FAR)] {
        for (what, mut lab) in Lab::all() {
            let before = lab.drops(from);
            assert!(lab.asks(from, 9), "{what}, {direction}");
            let rules = json!([{"action": "allow", "destination_ports": [10], "protocol": "udp"}, {"action": "deny"}]);
            let port = json!({"ports": [lab.port]});
            lab.list(&port, direction, &rules);
            assert!(!lab.asks(from, 9) && !lab.asks(from, 11), "{what}, {direction}");
            assert!(lab.asks(from, 10) && lab.answers(1 - from, 10), "{what}, {direction}");
            // In the other direction nothing is denied, and what is asked is answered.
            assert!(lab.asks(1 - from, 9) && lab.answers(from, 9), "{what}, {direction}");
            let drops: Vec<_> = lab.drops(from).into_iter().filter(|drop| !before.contains(drop)).collect();
            assert_eq!(drops, [("acl-denied", 2)], "{what}, {direction}");
            let rule = |n: u8| counted(&lab.net, &format!("acl l {direction} {n}"));
            assert_eq!((rule(1), rule(2)), (1, 2), "{what}, {direction}");
        }
    }
}

/// A list for every port makes no exception either: whoever is behind, nothing is sent there, and nothing comes from there.
#[test]
fn a_list_for_all_ports_is_for_ports_of_every_kind() {
    for (direction, from) in [("ingress", POD), ("egress", FAR)] {
        for (what, mut lab) in Lab::all() {
            lab.list(&json!({"all": true}), direction, &json!([{"action": "deny", "protocol": "udp"}]));
            let acl = &lab.net.rig.model.acls[&name("l")].acl;
            let named: Vec<_> = lab.net.rig.model.ports_of_acl(acl).collect();
            assert_eq!(named.len(), lab.net.rig.model.ports.len(), "{what}");
            assert!(!lab.asks(from, 9), "{what}, {direction}");
            assert_eq!(counted(&lab.net, &format!("acl l {direction} 1")), 1, "{what}, {direction}");
        }
    }
}

/// A list is about packets in a tunnel at its port, and not about those that they are in, which are the switch's own.
#[test]
fn a_list_of_the_port_by_which_a_tunnels_packets_go_says_nothing_of_what_is_in_them() {
    let deny = json!([{"action": "deny"}]);
    for direction in ["ingress", "egress"] {
        let mut lab = Lab::tunnel();
        lab.list(&json!({"ports": ["p1"]}), direction, &deny);
        for from in [POD, FAR] {
            assert!(lab.asks(from, 9) && lab.answers(1 - from, 9), "{direction}");
        }
        assert_eq!(counted(&lab.net, &format!("acl l {direction} 1")), 0);
    }
}
