//! The way to the node's kernel: a host port on a bridge where the switch is a station. What a routing table
//! has no route for goes there, and the kernel is told which networks are behind the switch.

use super::checked::Problem;
use super::gateway::mac_of;
use super::model::{Model, no_such};
use std::collections::BTreeSet;
use std::net::IpAddr;
use switch_api::{ApiError, Mac, Name, Port, PortKind, Prefix, Uplink, Vid, Vlan, Vrf};

/// What the kernel's station is known by among a bridge's neighbours. Nobody can claim it: it is no address.
pub const KERNEL_IP: u128 = 0;

/// Routing tables that can be set: one a bridge.
pub(crate) const VRFS_MAX: usize = super::BRIDGES_MAX;

/// The kernel's reserved tables: 0 is "unspecified", 255 holds its own addresses (linux/rtnetlink.h).
const RESERVED_TABLES: [u32; 2] = [0, 255];

/// A way to the kernel, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToKernel {
    /// The host port.
    pub port: Name,
    /// Its number.
    pub id: u16,
    /// Its device.
    pub device: String,
    /// The device's MAC.
    pub mac: Mac,
    /// Bridge and VLAN that it is on.
    pub fid: u16,
    /// The switch's own MAC there.
    pub own_mac: Mac,
}

/// A network behind the switch, as the kernel is to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Announced {
    /// The network.
    pub prefix: Prefix,
    /// The switch's own address in it.
    pub gateway: IpAddr,
}

impl Model {
    pub(super) fn set_vrf(&mut self, vrf: &Vrf) -> Result<(), ApiError> {
        if self.vrfs.len() >= VRFS_MAX && !self.vrfs.contains_key(&vrf.name) {
            return Err(ApiError::full(VRFS_MAX, "VRFs", "vrf list"));
        }
        let owner = self.vrfs.get(&vrf.name).map_or(vrf.owner, |present| present.owner);
        self.vrfs.insert(vrf.name.clone(), Vrf { owner, ..vrf.clone() });
        Ok(())
    }

    pub(super) fn unset_vrf(&mut self, name: &Name) -> Result<(), ApiError> {
        self.vrfs.remove(name).map(|_| ()).ok_or_else(|| no_such("vrf", name))
    }

    /// A routing table's settings, or what it has without any.
    pub fn vrf(&self, name: &Name) -> Vrf {
        self.vrfs.get(name).cloned().unwrap_or_else(|| Vrf::unset(name.clone()))
    }

    /// Names of all routing tables: those of bridges, and those that were set.
    pub fn vrf_names(&self) -> BTreeSet<&Name> {
        let used = self.bridges.values().map(|bridge| &bridge.object.vrf);
        used.chain(self.vrfs.keys()).collect()
    }

    /// The way to the kernel from a routing table; else why there is none.
    pub fn to_kernel(&self, name: &Name) -> Result<ToKernel, String> {
        let vrf = self.vrf(name);
        if vrf.uplink == Uplink::None {
            return Err(match self.vrfs.contains_key(name) {
                true => "it was set to have no uplink".into(),
                false => format!(
                    "only main has one unasked; `switch-ctl vrf set {name} --uplink kernel --kernel-table NUMBER`"
                ),
            });
        }
        let wanted = |port: &Port| vrf.port.as_ref().is_none_or(|name| *name == port.name);
        let mut hosts: Vec<_> =
            self.ports.values().filter(|port| is_host(&port.object) && wanted(&port.object)).collect();
        hosts.sort_by_key(|port| port.id);
        let found = hosts.iter().find_map(|port| self.way_by(port.id, &port.object, name));
        found.ok_or_else(|| {
            "no host port is on a bridge of this VRF, in a VLAN where the switch has a gateway address; `switch-ctl port add host NAME --bridge BRIDGE`".into()
        })
    }

    fn way_by(&self, id: u16, port: &Port, vrf: &Name) -> Option<ToKernel> {
        let PortKind::Host { device, mac, .. } = &port.kind else { return None };
        let bridge = self.bridges.get(&port.bridge).filter(|bridge| bridge.object.vrf == *vrf)?;
        let vid = untagged(&port.settings.vlan)?;
        let has_gateway =
            self.addresses.iter().any(|own| (&own.bridge, own.vid) == (&bridge.object.name, vid));
        Some(ToKernel {
            port: port.name.clone(),
            id,
            device: device.clone(),
            mac: (*mac)?,
            fid: self.fids.get(&(bridge.id, vid)).copied().filter(|_| has_gateway)?,
            own_mac: mac_of(self, &bridge.object),
        })
    }

    /// Networks of a routing table that its kernel is told of.
    pub fn announced(&self, vrf: &Name) -> BTreeSet<Announced> {
        let here = self
            .addresses
            .iter()
            .filter(|own| self.bridges.get(&own.bridge).is_some_and(|bridge| bridge.object.vrf == *vrf));
        let mut seen = BTreeSet::new();
        here.filter(|own| seen.insert(own.address.network()))
            .map(|own| Announced { prefix: own.address.network(), gateway: own.address.address })
            .collect()
    }

    /// What of a routing table its kernel sends here: networks, and addresses of translation that lie in none of them. The
    /// latter are behind the first of the switch's own addresses of their version; without one nobody could be told the way.
    pub fn led_here(&self, vrf: &Name) -> BTreeSet<Announced> {
        let mut led = self.announced(vrf);
        let lone = |ip: &IpAddr| !led.iter().any(|network| network.prefix.contains(*ip));
        let lone: Vec<IpAddr> = self.nat_ips(vrf).into_iter().filter(lone).collect();
        for ip in lone {
            let gateway = led.iter().map(|own| own.gateway).find(|own| own.is_ipv4() == ip.is_ipv4());
            led.extend(gateway.map(|gateway| Announced { prefix: Prefix::host(ip), gateway }));
        }
        led
    }
}

fn is_host(port: &Port) -> bool {
    matches!(port.kind, PortKind::Host { .. })
}

/// The VLAN of frames without a tag: the kernel sends no others by the device itself.
pub(super) fn untagged(vlan: &Vlan) -> Option<Vid> {
    match vlan {
        Vlan::Access { vid } => Some(*vid),
        Vlan::Trunk { native, .. } => *native,
    }
}

/// Every contradiction among VRFs.
pub(super) fn check(model: &Model, problems: &mut Vec<Problem>) {
    for vrf in model.vrfs.values() {
        let mut problem = |field, text: String| {
            problems.push(Problem::new(field, format!("VRF {}: {text}", vrf.name)).about(vrf));
        };
        if vrf.uplink == Uplink::None {
            if vrf.mirror {
                problem("mirror", "a mirror of the kernel's table needs the kernel as uplink".into());
            }
            continue;
        }
        if RESERVED_TABLES.contains(&vrf.kernel_table) {
            problem("kernel_table", format!("table {} is the kernel's own; main is 254", vrf.kernel_table));
        }
        if let Some(name) = &vrf.port {
            match model.ports.get(name) {
                None => problem("port", format!("there is no port named {name}")),
                Some(port) if !is_host(&port.object) => {
                    problem("port", format!("port {name} is no host port"));
                }
                Some(_) => {}
            }
        }
        let others = model.vrf_names().into_iter().filter(|name| **name != vrf.name);
        let taken = others
            .map(|name| model.vrf(name))
            .find(|other| other.uplink == Uplink::Kernel && other.kernel_table == vrf.kernel_table);
        if let Some(other) = taken {
            let text =
                format!("the kernel's table {} is that of VRF {} already", vrf.kernel_table, other.name);
            problem("kernel_table", text);
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Checked;
    use switch_api::{Bridge, BridgeAddress, Owner, PortSettings, Request, VidRange};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn host(port: &str, bridge: &str, vlan: Vlan) -> Request {
        let kind = PortKind::Host {
            device: format!("sw-{port}"),
            mac: Some(Mac([2, 0, 0, 0, 0, port.len() as u8])),
            addresses: Vec::new(),
            routes: Vec::new(),
        };
        let settings = PortSettings { vlan, ..PortSettings::default() };
        let (name, bridge) = (name(port), name(bridge));
        let port = Port { settings, ..Port::new(name, bridge, kind) };
        Request::PortAdd(Box::new(port))
    }

    fn model() -> Model {
        let mut model = Model::default();
        for (bridge, vrf, addresses) in [
            ("br1", "main", &["10.1.0.1/24", "fd10:1::1/64"][..]),
            ("br2", "main", &["10.2.0.1/24", "10.2.0.254/24"][..]),
            ("br3", "red", &["10.1.0.1/24"][..]),
        ] {
            let bridge = Bridge { vrf: name(vrf), ..Bridge::new(name(bridge)) };
            model = model.apply(&Request::BridgeAdd(bridge.clone())).unwrap();
            for address in addresses {
                let (bridge, address) = (bridge.name.clone(), address.parse().unwrap());
                let own = BridgeAddress { bridge, address, vid: Vid::DEFAULT, owner: Owner::Operator };
                model = model.apply(&Request::AddressAdd(own)).unwrap();
            }
        }
        model
    }

    #[test]
    fn main_leads_to_the_kernel_by_its_first_host_port() {
        let mut model = model();
        assert!(model.to_kernel(&Name::main()).unwrap_err().contains("no host port"));
        let tagged =
            Vlan::Trunk { vids: vec![VidRange { first: Vid::DEFAULT, last: Vid::DEFAULT }], native: None };
        model = model.apply(&host("tagged", "br1", tagged)).unwrap();
        assert!(
            model.to_kernel(&Name::main()).is_err(),
            "a host port without an untagged VLAN leads nowhere"
        );
        model = model.apply(&host("one", "br2", Vlan::default())).unwrap();
        model = model.apply(&host("other", "br1", Vlan::default())).unwrap();
        assert_eq!(model.to_kernel(&Name::main()).unwrap().port, name("one"));
        let set = Vrf { port: Some(name("other")), ..Vrf::unset(Name::main()) };
        let chosen = model.apply(&Request::VrfSet(set.clone())).unwrap();
        assert_eq!(chosen.to_kernel(&Name::main()).unwrap().device, "sw-other");
        let off = model.apply(&Request::VrfSet(Vrf { uplink: Uplink::None, ..set })).unwrap();
        assert!(off.to_kernel(&Name::main()).is_err());
        let announced: Vec<_> =
            model.announced(&Name::main()).into_iter().map(|a| a.prefix.to_string()).collect();
        assert_eq!(announced, ["10.1.0.0/24", "10.2.0.0/24", "fd10:1::/64"]);
    }

    #[test]
    fn another_table_is_asked_for_and_is_nobody_elses() {
        let model = model().apply(&host("red", "br3", Vlan::default())).unwrap();
        assert!(model.to_kernel(&name("red")).unwrap_err().contains("only main"));
        let set = |table| {
            let vrf = Vrf { uplink: Uplink::Kernel, kernel_table: table, ..Vrf::unset(name("red")) };
            Checked::new(model.apply(&Request::VrfSet(vrf)).unwrap(), 1)
        };
        assert!(set(254).unwrap_err().message.contains("VRF main already"));
        assert!(set(255).unwrap_err().message.contains("the kernel's own"));
        assert_eq!(set(100).unwrap().model().to_kernel(&name("red")).unwrap().port, name("red"));
    }
}
