//! Nodes side by side, joined by cables, each a router with a network of pods of its own behind a switch.

use crate::net::Net;
use crate::node::{Daemon, Node, Options, Pod};
use crate::wait_until;
use std::time::Duration;
use switch_api::{Code, Done, Mac, Port, PortKind, Request};

/// How long a kernel may take to let go of a NIC.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that routes: its kernel forwards between its cables and its switch, whose bridge `br0` has the network
/// `10.NET.0.0/24`, `fd10:NET::/64`.
#[derive(Debug)]
pub struct Router {
    /// Its namespace and directory.
    pub node: Node,
    /// The number in its pods' addresses.
    pub net: u8,
    /// Its pods.
    pub pods: Vec<Pod>,
}

impl Router {
    /// A node whose kernel forwards, without a switch yet.
    pub fn new(net: u8) -> Self {
        let node = Node::new();
        for setting in ["ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1"] {
            node.net.run(&format!("sysctl -q -w net.{setting}"));
        }
        Self { node, net, pods: Vec::new() }
    }

    /// Starts its switch: a bridge, its gateways, and the way to the kernel. No device has an address for it.
    pub fn start(&self, options: &Options) -> Daemon {
        let daemon = self.node.start(options);
        let net = self.net;
        daemon.bridge("br0");
        daemon.gateway("br0", &format!("10.{net}.0.1/24"));
        daemon.gateway("br0", &format!("fd10:{net}::1/64"));
        let kind = PortKind::Host {
            device: switch_api::HOST_DEVICE_DEFAULT.into(),
            mac: None,
            addresses: Vec::new(),
            routes: Vec::new(),
        };
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port("host", kind))));
        daemon
    }

    /// A pod with a tap port, the host number `n`, and the switch as its router.
    pub fn pod(&mut self, daemon: &Daemon, n: u8) -> &Pod {
        let (net, name) = (self.net, format!("pod{}-{n}", self.net));
        let pod = Pod { net: Net::new(&name), device: name, ip: format!("10.{net}.0.{n}") };
        let mut kind = PortKind::tap(&pod.net.path());
        if let PortKind::Tap { mac, addresses, routes, .. } = &mut kind {
            *mac = Some(Mac([0x02, net, 0, 0, 0, n]));
            *addresses = vec![parse(&format!("10.{net}.0.{n}/24")), parse(&format!("fd10:{net}::{n}/64"))];
            let to = |to: &str, via: String| switch_api::DeviceRoute::new(parse(to), Some(parse(&via)));
            *routes = vec![to("0.0.0.0/0", format!("10.{net}.0.1")), to("::/0", format!("fd10:{net}::1"))];
        }
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port(&pod.device, kind))));
        self.pods.push(pod);
        &self.pods[self.pods.len() - 1]
    }

    /// A cable to another node: `toN` at each end, N the other's network, with `10.LINK.0.A` and `10.LINK.0.B`,
    /// `fdLINK::A` and `fdLINK::B`, A and B the two networks.
    pub fn join(&self, other: &Self, link: u8) {
        let (a, b) = (self.net, other.net);
        let (here, there) = (self.nic(other, link), other.nic(self, link));
        let peer = other.node.net.name();
        self.node.net.ip(&format!("link add {here} type veth peer name {there} netns {peer}"));
        for (router, device, n) in [(self, &here, a), (other, &there, b)] {
            router.node.net.ip(&format!("link set {device} up"));
            router.node.net.ip(&format!("addr add 10.{link}.0.{n}/24 dev {device}"));
            router.node.net.ip(&format!("addr add fd10:{link}::{n}/64 dev {device} nodad"));
        }
    }

    /// Its end of a cable.
    pub fn nic(&self, other: &Self, link: u8) -> String {
        format!("l{link}to{}", other.net)
    }

    /// An uplink `upLINK` on its end of a cable, which its kernel keeps; alone on a bridge `wanLINK`.
    pub fn share(&self, daemon: &Daemon, other: &Self, link: u8) {
        let bridge = format!("wan{link}");
        daemon.bridge(&bridge);
        let kind = PortKind::uplink(&self.nic(other, link));
        let uplink = Port::new(parse(&format!("up{link}")), parse(&bridge), kind);
        let add = Request::PortAdd(Box::new(uplink));
        // A kernel lets go of a socket that left a NIC by and by, and later on a machine that is busy: the daemon waits for that, but not for ever.
        let mut refused = None;
        wait_until("the NIC is free", PATIENCE, || match daemon.client().call::<Done>(&add) {
            Err(error) if error.code == Code::Busy => false,
            outcome => {
                refused = outcome.err();
                true
            }
        });
        assert!(refused.is_none(), "{refused:?}\n{}", daemon.log());
    }

    /// A static route to the other's pods over a cable.
    pub fn route_to(&self, other: &Self, link: u8) {
        let n = other.net;
        self.node.net.ip(&format!("route add 10.{n}.0.0/24 via 10.{link}.0.{n}"));
        self.node.net.ip(&format!("route add fd10:{n}::/64 via fd10:{link}::{n}"));
    }
}

fn port(name: &str, kind: PortKind) -> Port {
    Port::new(parse(name), parse("br0"), kind)
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
