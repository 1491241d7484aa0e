//! Published ports as they come by an uplink ([ADR 0029](../../../docs/adr/0029-translation-on-a-nic-that-is-shared.md)): the switch leads
//! them to pods by its own translation, past the kernel. What comes to them elsewhere, from the node itself or by its other NICs,
//! the kernel leads, by a table of ours ([`super::outside`]).

use super::gateway::to_bits;
use super::model::Model;
use super::outside::{Forward, forwards};
use super::shared::WayOut;
use crate::nat::Target;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use switch_api::{Port, Protocol};

/// Numbers of what is published begin here: declared rules are fewer ([`crate::nat::NATS_MAX`]) and count from 1.
const NUMBERS_FROM: u16 = 0x8000;

const _: () = assert!(crate::nat::NATS_MAX < NUMBERS_FROM as usize);

/// Who publishes, and where it leads on an uplink: the NIC's address, and all else.
type Published = (IpAddr, Forward, u16);

impl Model {
    /// What of published ports comes by an uplink.
    pub(super) fn published_by(&self, way: &WayOut) -> Vec<Published> {
        let Some(vrf) = self.bridges.get(&way.bridge).map(|bridge| &bridge.object.vrf) else {
            return Vec::new();
        };
        let is_here = |port: &Port| self.bridges.get(&port.bridge).is_some_and(|it| it.object.vrf == *vrf);
        let ports =
            self.ports.values().map(|port| &*port.object).filter(|port| !port.settings.publish.is_empty());
        let own = self.nics.get(&way.id).map_or(&[][..], |nic| &nic.addresses);
        let own: Vec<IpAddr> =
            own.iter().map(|own| own.address).filter(|ip| super::taken::is_global(*ip)).collect();
        let leads = |port: &Port| {
            let number = number_of(port);
            let of = |forward: Forward| {
                let fits = move |ip: &&IpAddr| {
                    ip.is_ipv4() == forward.to.is_ipv4() && forward.at.is_none_or(|at| at == **ip)
                };
                own.iter().filter(fits).map(move |ip| (*ip, forward, number)).collect::<Vec<_>>()
            };
            forwards(port).into_iter().flat_map(of).collect::<Vec<_>>()
        };
        ports.filter(|port| is_here(port)).flat_map(leads).collect()
    }

    /// For workers: by bridge and VLAN of the uplink, address, protocol and port.
    pub(super) fn published(&self) -> HashMap<(u16, u128, u8, u16), Target> {
        let ways = self.vrf_names().into_iter().flat_map(|vrf| self.ways_out(vrf));
        let of = |way: WayOut| {
            let target = move |(ip, forward, rule): Published| {
                let target = Target { ip: to_bits(forward.to), port: forward.to_port, rule };
                ((way.fid, to_bits(ip), number(forward.protocol), forward.port), target)
            };
            self.published_by(&way).into_iter().map(target).collect::<Vec<_>>()
        };
        ways.flat_map(of).collect()
    }

    /// Numbers by which flows know what is published.
    pub fn published_numbers(&self) -> BTreeSet<u16> {
        let ports = self.ports.values().map(|port| &*port.object);
        ports.filter(|port| !port.settings.publish.is_empty()).map(number_of).collect()
    }
}

/// The same as long as the port publishes the same by the same addresses. Should two have one, flows of the one that goes are kept
/// until they end by themselves.
fn number_of(port: &Port) -> u16 {
    let mut hash = std::hash::DefaultHasher::new();
    port.name.as_str().hash(&mut hash);
    for forward in forwards(port) {
        (number(forward.protocol), forward.at, forward.port, forward.to, forward.to_port).hash(&mut hash);
    }
    NUMBERS_FROM | hash.finish() as u16
}

/// Of IP.
pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => crate::wire::ip::TCP,
        Protocol::Udp => crate::wire::ip::UDP,
        Protocol::Sctp => switch_api::IpProtocol::SCTP.0,
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::super::shared::tests::{after, model};
    use super::*;
    use switch_api::{PortKind, PortSettings, Request};

    fn publishing(bridge: &str, texts: &[&str]) -> Model {
        let mut kind = PortKind::tap("/run/netns/a");
        if let PortKind::Tap { addresses, .. } = &mut kind {
            *addresses = ["10.1.0.2/24", "fd00::2/64"].map(|text| text.parse().unwrap()).into();
        }
        let publish = texts.iter().map(|text| text.parse().unwrap()).collect();
        let settings = PortSettings { publish, ..PortSettings::default() };
        let port = Port { settings, ..Port::new("pod".parse().unwrap(), bridge.parse().unwrap(), kind) };
        after(&model(), Request::PortAdd(Box::new(port)))
    }

    #[test]
    fn what_comes_by_an_uplink_to_a_published_port_goes_to_the_pod() {
        let model = publishing("br0", &["8080:80", "udp/192.0.2.5:53:5353", "udp/192.0.2.77:54:54"]);
        let way = model.way_out_of(&"wan".parse().unwrap()).unwrap();
        let compiled = super::super::nats::compile(&model);
        let find = |fid, ip: &str, protocol, port| {
            compiled.published(fid, to_bits(ip.parse().unwrap()), protocol, port)
        };
        let target = find(way.fid, "192.0.2.5", 6, 8080).unwrap();
        assert_eq!((target.ip, target.port), (to_bits("10.1.0.2".parse().unwrap()), 80));
        assert_eq!(find(way.fid, "192.0.2.5", 17, 53).unwrap().port, 5353);
        assert!(find(way.fid, "10.1.0.250", 6, 8080).is_some(), "the NIC's other address");
        assert_eq!(compiled.published.len(), 3, "no address of the NIC's is 192.0.2.77, nor one of IPv6");
        assert!(!compiled.is_idle() && model.shared_ports(&way).len() == 3);
        // By the pods' own bridge the kernel leads them.
        assert!(compiled.published.keys().all(|(fid, ..)| *fid == way.fid));
    }

    #[test]
    fn what_is_published_otherwise_has_another_number() {
        let numbers = |texts: &[&str]| publishing("br0", texts).published_numbers();
        assert_eq!(numbers(&["8080:80"]), numbers(&["8080:80"]));
        assert_ne!(numbers(&["8080:80"]), numbers(&["8080:81"]));
        assert!(
            numbers(&["8080:80"]).iter().all(|number| *number >= NUMBERS_FROM) && numbers(&[]).is_empty()
        );
    }
}
