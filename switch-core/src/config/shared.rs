//! Uplinks on NICs that stay the host's ([ADR 0025](../../../docs/adr/0025-the-uplink-shares-its-nic.md)): routed ports, each on a
//! bridge of its own, where the node's kernel is the station. It has the MAC and the addresses and knows its neighbours; the
//! switch speaks with the MAC, goes by the kernel's routes, and takes what is addressed to networks behind it.

use super::checked::Problem;
use super::gateway::{Gateway, link_local, to_bits};
use super::model::Model;
use super::uplink::{ToKernel, untagged};
use std::collections::BTreeMap;
use std::net::IpAddr;
use switch_api::{Mac, Name, Port, PortKind, Prefix, Uplink, Vid, Vlan};

/// Addresses of one NIC that are known here: beyond them the kernel is as likely to have a mistake as a use.
pub const NIC_ADDRESSES_MAX: usize = 256;

/// What the kernel says of a NIC that it shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its index.
    pub index: u32,
    /// Its MAC.
    pub mac: Mac,
    /// The kernel's addresses on it, with their networks; at most [`NIC_ADDRESSES_MAX`].
    pub addresses: Vec<Prefix>,
}

/// The NICs of uplinks that are open, by port number: seen, not declared, and not kept.
pub type Nics = BTreeMap<u16, Nic>;

/// An uplink that is open, as a way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayOut {
    /// The port.
    pub port: Name,
    /// Its number.
    pub id: u16,
    /// The NIC.
    pub device: String,
    /// The port's bridge.
    pub bridge: Name,
    /// Bridge and VLAN that it is on.
    pub fid: u16,
    /// The VLAN.
    pub vid: Vid,
}

/// The ways out of a routing table that the kernel's routes can mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// To the kernel, which sends on.
    pub kernel: Option<ToKernel>,
    /// By NICs that it shares.
    pub out: Vec<WayOut>,
    /// Packets of these IP versions get another source when they leave the node, which is the kernel's to do: IPv4, IPv6.
    pub(super) translated: [bool; 2],
    /// But not to these.
    pub(super) direct: Vec<Prefix>,
}

impl Ways {
    /// The uplink on a device.
    pub fn by(&self, device: &str) -> Option<&WayOut> {
        self.out.iter().find(|way| way.device == device)
    }

    /// Whether packets to a network, or some of them, get another source when they leave.
    pub fn is_translated(&self, prefix: Prefix) -> bool {
        self.translated[usize::from(prefix.address.is_ipv6())]
            && !self.direct.iter().any(|direct| direct.len <= prefix.len && direct.contains(prefix.address))
    }
}

impl Model {
    /// All of a routing table's.
    pub fn ways(&self, vrf: &Name) -> Ways {
        let (kernel, out) = (self.to_kernel(vrf).ok(), self.ways_out(vrf));
        if out.is_empty() {
            return Ways { kernel, ..Ways::default() };
        }
        let outside = self.outside();
        let has = |v4: bool| outside.sources.iter().any(|source| source.address.is_ipv4() == v4);
        let translated = [has(true), has(false)];
        Ways { kernel, out, translated, direct: outside.direct.into_iter().collect() }
    }

    /// Uplinks of a routing table that are open.
    pub fn ways_out(&self, vrf: &Name) -> Vec<WayOut> {
        let open = self.ports.values().filter(|port| self.nics.contains_key(&port.id));
        let way = |id: u16, port: &Port| {
            let device = port.kind.shared_nic()?.to_owned();
            let bridge = self.bridges.get(&port.bridge).filter(|bridge| bridge.object.vrf == *vrf)?;
            let vid = untagged(&port.settings.vlan)?;
            let fid = *self.fids.get(&(bridge.id, vid))?;
            Some(WayOut { port: port.name.clone(), id, device, bridge: port.bridge.clone(), fid, vid })
        };
        open.filter_map(|port| way(port.id, &port.object)).collect()
    }

    /// Whether a routing table has an uplink of its own, open or not.
    pub fn has_uplink(&self, vrf: &Name) -> bool {
        let here =
            |port: &Port| self.bridges.get(&port.bridge).is_some_and(|bridge| bridge.object.vrf == *vrf);
        self.ports.values().any(|port| port.object.kind.shared_nic().is_some() && here(&port.object))
    }

    /// Whether the kernel's routes are read for a routing table: asked for, or what its uplinks go by.
    pub fn mirrors(&self, vrf: &Name) -> bool {
        let settings = self.vrf(vrf);
        settings.uplink == Uplink::Kernel && (settings.mirror || self.has_uplink(vrf))
    }

    /// The open uplink on a bridge.
    pub fn way_out_of(&self, bridge: &Name) -> Option<WayOut> {
        let vrf = &self.bridges.get(bridge)?.object.vrf;
        self.ways_out(vrf).into_iter().find(|way| way.bridge == *bridge)
    }

    /// The kernel as the station at the end of an uplink.
    pub(super) fn gateway_of(&self, way: &WayOut, vrf: u16) -> Option<Gateway> {
        let nic = self.nics.get(&way.id)?;
        let is_link_local = |address: IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let (local, addresses): (Vec<Prefix>, Vec<Prefix>) =
            nic.addresses.iter().partition(|own| is_link_local(own.address));
        let mac = nic.mac.to_u64();
        Some(Gateway {
            mac,
            vrf,
            addresses: addresses.into_iter().map(super::gateway::own).collect(),
            link_local: local.first().map_or_else(|| link_local(mac), |own| to_bits(own.address)),
            is_kernels: true,
            ..Gateway::default()
        })
    }
}

/// Every contradiction about uplinks.
pub(super) fn check(model: &Model, problems: &mut Vec<Problem>) {
    for port in model.ports.values().filter(|port| port.object.kind.shared_nic().is_some()) {
        let port = &*port.object;
        let mut problem = |field, text: String| {
            problems.push(Problem::new(field, format!("port {}: {text}", port.name)).about(port));
        };
        if !matches!(port.settings.vlan, Vlan::Access { .. }) {
            problem("settings.vlan", "an uplink takes frames without a tag: leave its VLAN as it is".into());
        }
        if matches!(port.kind, PortKind::Xdp { pod: Some(_), .. }) {
            problem("pod", "an uplink is on a NIC of the node's, not on a pair into a pod".into());
        }
        let others = model.ports_of(&port.bridge).filter(|other| other.object.name != port.name);
        if let Some(other) = others.map(|other| &other.object.name).next() {
            let text = format!(
                "an uplink has its bridge for itself, and {other} is on {} too; `switch-ctl bridge add NAME` makes one",
                port.bridge
            );
            problem("bridge", text);
        }
        if let Some(own) = model.addresses.iter().find(|own| own.bridge == port.bridge) {
            let text = format!(
                "bridge {} has the address {}, but at an uplink the kernel is the station: `ip address add` gives it one",
                port.bridge, own.address
            );
            problem("bridge", text);
        }
        let vrf = model.bridges.get(&port.bridge).map(|bridge| &bridge.object.vrf);
        if let Some(vrf) = vrf.filter(|vrf| model.vrf(vrf).uplink == Uplink::None) {
            let text = format!(
                "an uplink goes by a table of the kernel's, and VRF {vrf} has none; `switch-ctl vrf set {vrf} --uplink kernel --kernel-table NUMBER`"
            );
            problem("bridge", text);
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Checked;
    use crate::config::gateway::Action;
    use crate::config::snapshot::{Live, compile};
    use hashbrown::HashMap;
    use std::sync::Arc;
    use switch_api::{Bridge, BridgeAddress, Owner, PodEnd, Request, Vrf};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    pub(in crate::config) fn after(model: &Model, request: Request) -> Model {
        model.apply(&request).unwrap()
    }

    fn address(bridge: &str, address: &str) -> Request {
        let (bridge, address) = (name(bridge), address.parse().unwrap());
        Request::AddressAdd(BridgeAddress { bridge, address, vid: Vid::DEFAULT, owner: Owner::Operator })
    }

    fn port(port: &str, bridge: &str, kind: PortKind) -> Request {
        Request::PortAdd(Box::new(Port::new(name(port), name(bridge), kind)))
    }

    /// Pods on `br0`, an uplink that is open on `wan`; the kernel has an address in the pods' network, too.
    pub(in crate::config) fn model() -> Model {
        let mut model = Model::default();
        for bridge in ["br0", "wan"] {
            model = after(&model, Request::BridgeAdd(Bridge::new(name(bridge))));
        }
        model = after(&model, address("br0", "10.1.0.1/24"));
        model = after(&model, port("up", "wan", PortKind::uplink("eth0")));
        let addresses = ["192.0.2.5/24", "10.1.0.250/24", "fe80::5/64"].map(|text| text.parse().unwrap());
        let nic = Nic { index: 3, mac: Mac([2, 0, 0, 0, 0, 5]), addresses: addresses.into() };
        model.nics = Arc::new([(model.ports[&name("up")].id, nic)].into());
        model
    }

    #[test]
    fn the_kernel_is_the_station_at_an_uplink() {
        let model = model();
        let way = model.way_out_of(&name("wan")).unwrap();
        let live = [(way.id, Live { up: true, mtu: 1500, ..Live::default() })];
        let snapshot = compile(&Checked::new(model, 1).unwrap(), &HashMap::from(live), 16, 1);
        let facts = &snapshot.fids[usize::from(way.fid)];
        let gateway = facts.gateway.as_deref().unwrap();
        assert!(
            gateway.is_kernels && facts.sole == Some(way.id) && snapshot.ports[usize::from(way.id)].routed
        );
        assert_eq!((gateway.mac, gateway.addresses.len()), (0x0200_0000_0005, 2));
        assert_eq!(gateway.link_local, to_bits("fe80::5".parse().unwrap()));
        // What is the kernel's is not answered for here, and its network comes with its routes.
        let find = |ip: &str| snapshot.routing.find(gateway.vrf, to_bits(ip.parse().unwrap()));
        assert!(find("192.0.2.5").is_none() && find("10.1.0.1").unwrap().action == Action::Local);
    }

    #[test]
    fn an_uplink_that_is_not_open_is_no_way_and_stays_one_of_the_tables() {
        let shut = Model { nics: Arc::default(), ..model() };
        assert!(shut.ways_out(&Name::main()).is_empty() && shut.mirrors(&Name::main()));
        let none = after(&shut, Request::VrfSet(Vrf { uplink: Uplink::None, ..Vrf::unset(Name::main()) }));
        assert!(!none.mirrors(&Name::main()));
    }

    #[test]
    fn what_is_masqueraded_on_its_way_out_is_the_kernels() {
        let mut ways = model().ways(&Name::main());
        let prefix = |text: &str| -> Prefix { text.parse().unwrap() };
        assert!(!ways.is_translated(prefix("0.0.0.0/0")));
        (ways.translated, ways.direct) = ([true, false], vec![prefix("10.0.0.0/8")]);
        let translated = ["0.0.0.0/0", "192.0.2.0/24", "8.0.0.0/6", "10.2.0.0/16", "::/0"];
        assert_eq!(translated.map(|text| ways.is_translated(prefix(text))), [true, true, true, false, false]);
    }

    #[test]
    fn contradictions_say_what_to_do() {
        let refusal = |model: Model| Checked::new(model, 1).unwrap_err().message;
        assert!(Checked::new(model(), 1).is_ok());
        let crowded = after(&model(), port("pod", "wan", PortKind::Memory { source: None }));
        assert!(refusal(crowded).contains("has its bridge for itself"));
        assert!(
            refusal(after(&model(), address("wan", "192.0.2.9/24"))).contains("the kernel is the station")
        );
        let end = PodEnd {
            device: "eth0".into(),
            netns: "/run/netns/a".into(),
            mac: None,
            addresses: Vec::new(),
            routes: Vec::new(),
        };
        let mut kind = PortKind::uplink("eth1");
        if let PortKind::Xdp { pod, .. } = &mut kind {
            *pod = Some(Box::new(end));
        }
        assert!(refusal(after(&model(), port("into-a-pod", "br0", kind))).contains("a NIC of the node's"));
        let vrf = Vrf { uplink: Uplink::None, ..Vrf::unset(Name::main()) };
        assert!(refusal(after(&model(), Request::VrfSet(vrf))).contains("goes by a table of the kernel's"));
    }
}
