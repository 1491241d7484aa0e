//! What an uplink takes from a NIC that stays the host's ([ADR 0025](../../../docs/adr/0025-the-uplink-shares-its-nic.md)): what is
//! addressed to networks behind the switch, and to addresses of its translation; of the host's own addresses the ports that
//! translation has there ([ADR 0029](../../../docs/adr/0029-translation-on-a-nic-that-is-shared.md)), and those of its tunnels' ends. All else is the kernel's.

use super::gateway::{is_v4, to_bits};
use super::model::Model;
use super::nats;
use super::shared::WayOut;
use crate::wire::ip::{TCP, UDP};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use switch_api::{IpProtocol, Name, Nat, NatKind, PortRange, Prefix};

/// Ports of a NIC's own address that source rules take for new sources unless they name others: above those that Linux takes
/// for connections of the host's own (`net.ipv4.ip_local_port_range`, 32768 to 60999 unless somebody has changed it).
pub const SHARED_PORTS: PortRange = PortRange { first: 61_000, last: 65_535 };

/// Whose the packets to a network are. What says more about fewer addresses counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The kernel's own address, in a network behind the switch.
    Kernels = 0,
    /// The switch's.
    Switchs = 1,
    /// The switch's, and so are questions for them: an address of translation in the NIC's own network, which nobody else has.
    Asked = 2,
    /// The kernel's own address, some of whose ports are the switch's.
    Shared = 3,
}

/// What a program takes, by network.
pub type Taken = BTreeMap<Prefix, Whose>;

/// Ports of a NIC's own address that are the switch's, by address and IP protocol; of ICMP identifiers of pings.
pub type SharedPorts = BTreeMap<(IpAddr, u8), BTreeSet<PortRange>>;

impl Model {
    /// What the program of an uplink takes.
    pub fn taken(&self, way: &WayOut) -> Taken {
        let Some(bridge) = self.bridges.get(&way.bridge) else { return Taken::new() };
        let vrf = &bridge.object.vrf;
        let mut taken: Taken =
            self.led_here(vrf).into_iter().map(|network| (network.prefix, Whose::Switchs)).collect();
        let own = self.nics.get(&way.id).map_or(&[][..], |nic| &nic.addresses);
        for ip in self.nat_ips(vrf) {
            if own.iter().any(|own| own.contains(ip)) {
                taken.insert(Prefix::host(ip), Whose::Asked);
            }
        }
        let shared = self.shared_ports(way);
        for own in own.iter().map(|own| own.address) {
            let is_shared = shared.keys().any(|(ip, _)| *ip == own);
            let is_covered = || taken.keys().any(|prefix| prefix.contains(own));
            if is_shared || is_covered() {
                taken.insert(Prefix::host(own), if is_shared { Whose::Shared } else { Whose::Kernels });
            }
        }
        taken
    }

    /// Ports of a NIC's own addresses that rules of translation have, and ends of tunnels.
    pub fn shared_ports(&self, way: &WayOut) -> SharedPorts {
        let mut shared = SharedPorts::new();
        let Some(bridge) = self.bridges.get(&way.bridge) else { return shared };
        let own = self.nics.get(&way.id).map_or(&[][..], |nic| &nic.addresses);
        let own: Vec<IpAddr> = own.iter().map(|own| own.address).filter(|ip| is_global(*ip)).collect();
        let rules = self.nats.values().map(|placed| &*placed.nat).filter(|nat| nat.vrf == bridge.object.vrf);
        for nat in rules {
            match &nat.kind {
                NatKind::Source { out: Some(out), .. } if *out != way.bridge => {}
                NatKind::Source { to, ports, .. } => {
                    for ip in own.iter().filter(|ip| to.is_empty() || to.contains(ip)) {
                        let ping = if ip.is_ipv4() { IpProtocol::ICMP } else { IpProtocol::ICMPV6 };
                        for protocol in [TCP, UDP, ping.0] {
                            shared.entry((*ip, protocol)).or_default().insert(on_a_nic(*ports));
                        }
                    }
                }
                NatKind::Destination { address, protocol: Some(protocol), port: Some(port), .. }
                    if own.contains(address) =>
                {
                    let one = PortRange { first: *port, last: *port };
                    shared.entry((*address, protocol.0)).or_default().insert(one);
                }
                NatKind::Destination { .. } | NatKind::OneToOne { .. } => {}
            }
        }
        for (ip, port) in self.tunnel_ends(&bridge.object.vrf).into_iter().filter(|(ip, _)| own.contains(ip))
        {
            shared.entry((ip, UDP)).or_default().insert(PortRange { first: port, last: port });
        }
        for (ip, forward, _) in self.published_by(way) {
            let one = PortRange { first: forward.port, last: forward.port };
            shared.entry((ip, super::published::number(forward.protocol))).or_default().insert(one);
        }
        shared
    }

    /// Rules of translation whose packets come by an uplink and are not taken from it: those that would have all of an address that is
    /// the NIC's own.
    pub fn untaken(&self, way: &WayOut) -> Vec<(Name, IpAddr)> {
        let Some(bridge) = self.bridges.get(&way.bridge) else { return Vec::new() };
        let own = self.nics.get(&way.id).map_or(&[][..], |nic| &nic.addresses);
        let is_own = |ip: IpAddr| own.iter().any(|own| own.address == ip);
        let untaken = |nat: &Nat| match &nat.kind {
            NatKind::Destination { protocol: Some(_), port: Some(_), .. } | NatKind::Source { .. } => None,
            kind => nats::addresses(kind).into_iter().find(|ip| is_own(*ip)),
        };
        let rules = self.nats.values().map(|placed| &*placed.nat).filter(|nat| nat.vrf == bridge.object.vrf);
        rules.filter_map(|nat| Some((nat.name.clone(), untaken(nat)?))).collect()
    }

    /// Addresses of translation in a routing table that nobody else has: neither the switch, nor the kernel on an uplink's NIC.
    pub fn nat_ips(&self, vrf: &Name) -> BTreeSet<IpAddr> {
        let rules = self.nats.values().map(|placed| &placed.nat).filter(|nat| nat.vrf == *vrf);
        let is_own = |ip: &IpAddr| self.addresses.iter().any(|own| own.address.address == *ip);
        let ips = rules.flat_map(|nat| nats::addresses(&nat.kind));
        ips.filter(|ip| !self.is_nics(*ip) && !is_own(ip)).collect()
    }

    /// Whether an address is the kernel's, on a NIC that an uplink shares.
    pub(super) fn is_nics(&self, ip: IpAddr) -> bool {
        self.nics.values().any(|nic| nic.addresses.iter().any(|own| own.address == ip))
    }
}

/// The ports that a source rule takes of an address that is a NIC's own.
pub fn on_a_nic(ports: PortRange) -> PortRange {
    if ports == switch_api::NAT_PORTS_DEFAULT { SHARED_PORTS } else { ports }
}

pub(super) fn is_global(ip: IpAddr) -> bool {
    let bits = to_bits(ip);
    is_v4(bits) || !super::gateway::is_link_local(bits)
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::super::shared::tests::{after, model};
    use super::*;
    use crate::wire::packet::{Content, Packet};
    use switch_api::Request;

    /// The uplink's NIC has 192.0.2.5/24, and 10.1.0.250 in the pods' network.
    fn with(rules: &[&str]) -> (Model, WayOut) {
        let nat = |rule: &&str| Request::NatSet(Box::new(serde_json::from_str(rule).unwrap()));
        let model = rules.iter().map(nat).fold(model(), |model, rule| after(&model, rule));
        let way = model.way_out_of(&"wan".parse().unwrap()).unwrap();
        (model, way)
    }

    fn shown(model: &Model, way: &WayOut) -> Vec<(String, Whose)> {
        model.taken(way).into_iter().map(|(prefix, whose)| (prefix.to_string(), whose)).collect()
    }

    #[test]
    fn without_translation_networks_are_taken_and_the_kernels_addresses_are_not() {
        let (model, way) = with(&[]);
        let wanted = [("10.1.0.0/24", Whose::Switchs), ("10.1.0.250/32", Whose::Kernels)];
        assert_eq!(shown(&model, &way), wanted.map(|(text, whose)| (text.to_owned(), whose)));
        assert!(model.shared_ports(&way).is_empty());
    }

    #[test]
    fn addresses_of_translation_are_taken_and_asked_for_where_neighbours_ask() {
        let (model, way) = with(&[
            r#"{"name": "far", "kind": "destination", "address": "203.0.113.7", "to": "10.1.0.2"}"#,
            r#"{"name": "near", "kind": "source", "to": ["192.0.2.99", "10.1.0.77"]}"#,
        ]);
        let wanted = [
            ("10.1.0.0/24", Whose::Switchs),
            ("10.1.0.77/32", Whose::Asked),
            ("10.1.0.250/32", Whose::Kernels),
            ("192.0.2.99/32", Whose::Asked),
            ("203.0.113.7/32", Whose::Switchs),
        ];
        assert_eq!(shown(&model, &way), wanted.map(|(text, whose)| (text.to_owned(), whose)));
        assert!(model.untaken(&way).is_empty() && model.shared_ports(&way).is_empty());
    }

    #[test]
    fn of_the_nics_own_address_ports_are_taken() {
        let (model, way) = with(&[
            r#"{"name": "masquerade", "kind": "source", "out": "wan"}"#,
            r#"{"name": "named", "kind": "source", "to": ["192.0.2.5"], "ports": "50000-50099"}"#,
            r#"{"name": "elsewhere", "kind": "source", "out": "br0", "ports": "7-8"}"#,
            r#"{"name": "web", "kind": "destination", "address": "192.0.2.5", "protocol": "tcp", "port": 80, "to": "10.1.0.2"}"#,
            r#"{"name": "all", "kind": "one-to-one", "external": "192.0.2.5", "internal": "10.1.0.3"}"#,
        ]);
        assert!(shown(&model, &way).contains(&("192.0.2.5/32".into(), Whose::Shared)));
        let shared = model.shared_ports(&way);
        let of = |protocol: u8| -> Vec<String> {
            shared[&("192.0.2.5".parse().unwrap(), protocol)].iter().map(ToString::to_string).collect()
        };
        assert_eq!(of(TCP), ["80", "50000-50099", "61000-65535"]);
        assert_eq!([of(UDP), of(1)], [["50000-50099", "61000-65535"]; 2]);
        // A link-local address is nobody's source beyond its link.
        assert!(shared.keys().all(|(ip, _)| ip.is_ipv4()), "{shared:?}");
        let untaken = model.untaken(&way);
        assert_eq!(untaken, [("all".parse().unwrap(), "192.0.2.5".parse().unwrap())]);
    }

    /// A flow's first packet from a pod.
    fn packet() -> Packet {
        let [src, dst] = ["10.1.0.2", "198.51.100.1"].map(|ip| to_bits(ip.parse().unwrap()));
        Packet {
            src,
            dst,
            protocol: UDP,
            ports: [9, 53],
            icmp: [0; 2],
            content: Content::Udp,
            fragment: None,
        }
    }

    #[test]
    fn workers_choose_ports_that_are_not_the_hosts_where_the_address_is() {
        let (model, way) = with(&[r#"{"name": "m", "kind": "source"}"#]);
        let compiled = nats::compile(&model);
        let choose = |own: &str| {
            let own = Some(to_bits(own.parse().unwrap()));
            compiled.source(0, &packet(), way.fid, || own, |_| 0).unwrap().ports.unwrap()
        };
        assert_eq!((choose("192.0.2.5"), choose("10.1.0.1")), ((61_000, 4536), (1024, 64_512)));
        assert!(compiled.addresses.is_empty() && compiled.concerns(0));
    }

    #[test]
    fn at_an_uplink_the_switch_answers_for_addresses_of_translation_alone() {
        let (model, way) =
            with(&[r#"{"name": "n", "kind": "source", "to": ["192.0.2.99", "192.0.2.5", "203.0.113.7"]}"#]);
        let (gateways, _) = super::super::gateway::compile(&model, &Default::default());
        let gateway = &gateways[&way.fid];
        assert_eq!(*gateway.stands_for, [to_bits("192.0.2.99".parse().unwrap())]);
        let led: Vec<_> = model.led_here(&"main".parse().unwrap()).into_iter().collect();
        assert!(led.iter().all(|it| it.gateway.to_string() == "10.1.0.1"), "{led:?}");
        assert_eq!(led.len(), 3, "{led:?}");
    }
}
