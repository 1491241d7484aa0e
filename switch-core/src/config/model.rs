//! The declared objects and the numbers they go by. A change is a pure function: the old model stays
//! as it is, so that an error anywhere before publishing has changed nothing.

use super::acls::{Listed, PlacedAcl};
use super::mirrored::Mirrored;
use super::nats::PlacedNat;
use super::policies::{PlacedPolicy, Policing, PolicyKey};
use super::routes::Routes;
use super::sets::CheckedSets;
use super::shared::Nics;
use super::snapshot::ZONE_VRF;
use super::{BRIDGES_MAX, FIDS_MAX, PORTS_MAX, STATIC_MACS_MAX};
use crate::acl::sets::Sets;
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use switch_api::{
    Acl, ApiError, Bridge, BridgeAddress, Code, Labels, Name, Namespace, Nat, NetworkPolicy, Owner, Port,
    PortRangeSet, Request, Route, RouteApply, StaticMac, StaticNeighbour, Vid, Vlan, Vrf,
};

/// What is kept on disk: the objects, without their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Declared {
    /// Bridges.
    pub bridges: Vec<Bridge>,
    /// Ports. These and what else is not written: each is kept by itself, and read from there, or from what an older version kept.
    #[serde(skip_serializing)]
    pub ports: Vec<Port>,
    /// Static MACs.
    pub static_macs: Vec<StaticMac>,
    /// Gateway addresses.
    pub addresses: Vec<BridgeAddress>,
    /// Declared neighbours.
    pub neighbours: Vec<StaticNeighbour>,
    /// Declared routes.
    #[serde(skip_serializing)]
    pub routes: Vec<Route>,
    /// Routing tables that were set.
    pub vrfs: Vec<Vrf>,
    /// Network policies.
    #[serde(skip_serializing)]
    pub policies: Vec<NetworkPolicy>,
    /// Labels of namespaces.
    pub namespaces: Vec<Namespace>,
    /// Port sets.
    pub port_sets: Vec<PortRangeSet>,
    /// Access control lists.
    #[serde(skip_serializing)]
    pub acls: Vec<Acl>,
    /// Address sets: each member is kept by itself.
    #[serde(skip)]
    pub sets: Sets,
    /// Network address translation.
    #[serde(skip_serializing)]
    pub nats: Vec<Nat>,
}

/// An object and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered<T> {
    /// Stable for as long as the object lives; given out again afterwards.
    pub id: u16,
    /// As declared. Models before and after a change share what it did not change.
    pub object: Arc<T>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// By name.
    pub bridges: BTreeMap<Name, Numbered<Bridge>>,
    /// By name.
    pub ports: BTreeMap<Name, Numbered<Port>>,
    /// In the order in which they were declared.
    pub static_macs: Vec<StaticMac>,
    /// In the order in which they were declared.
    pub addresses: Vec<BridgeAddress>,
    /// In the order in which they were declared.
    pub neighbours: Vec<StaticNeighbour>,
    /// By table, network and metric.
    pub routes: Routes,
    /// By name.
    pub vrfs: BTreeMap<Name, Vrf>,
    /// Routes of the node's kernel: seen, not declared, and not kept.
    pub mirrored: Arc<Mirrored>,
    /// NICs of uplinks that are open, by port number.
    pub nics: Arc<Nics>,
    /// By namespace and name.
    pub policies: BTreeMap<PolicyKey, PlacedPolicy>,
    /// Labels of namespaces that have any.
    pub namespaces: BTreeMap<String, Labels>,
    /// Whose these are, where it is not the operator.
    pub namespace_owners: BTreeMap<String, Owner>,
    /// The policies, compiled.
    pub policing: Policing,
    /// Port sets by name.
    pub port_sets: BTreeMap<Name, PortRangeSet>,
    /// Access control lists by name.
    pub acls: BTreeMap<Name, PlacedAcl>,
    /// The same, compiled.
    pub listed: Listed,
    /// Address sets.
    pub sets: Sets,
    /// Network address translation by name.
    pub nats: BTreeMap<Name, PlacedNat>,
    /// What makes this node's derived MACs its own.
    pub seed: u64,
    /// Filtering identifier of each bridge (by number) and VLAN that has a member or a gateway.
    pub fids: BTreeMap<(u16, Vid), u16>,
    /// Zone of the flows that each routing table's packets belong to, by name.
    pub vrf_zones: BTreeMap<Name, u16>,
}

impl Model {
    /// Bytes that policies and lists are compiled to.
    pub fn rules_bytes(&self) -> u64 {
        (self.policing.bytes + self.listed.bytes) as u64
    }

    /// The model after `request`, which must be one that changes something.
    pub fn apply(&self, request: &Request) -> Result<Self, ApiError> {
        let mut next = self.clone();
        if super::routes::concerns(request) {
            next.routes = self.routes.after(request)?;
            return Ok(next);
        }
        if super::sets::concerns(request) {
            let CheckedSets { sets, listed, .. } = CheckedSets::after(self, request)?;
            next.sets = sets;
            listed.into_iter().for_each(|listed| next.listed = listed);
            return Ok(next);
        }
        match request {
            Request::BridgeAdd(bridge) => next.add_bridge(bridge)?,
            Request::BridgeSet(bridge) => {
                let name = &bridge.name;
                let present = next.bridges.get_mut(name).ok_or_else(|| no_such("bridge", name))?;
                // Whose it is does not change; here and wherever something is replaced.
                present.object = Arc::new(Bridge { owner: present.object.owner, ..bridge.clone() });
            }
            Request::BridgeDelete(by) => next.delete_bridge(&by.name)?,
            Request::PortAdd(port) => {
                next.add_port(port)?;
                next.check_unique(&port.name)?;
            }
            Request::PortSet(set) => {
                let port = next.ports.get_mut(&set.name).ok_or_else(|| no_such("port", &set.name))?;
                let is_moved = port.object.settings.vlan != set.settings.vlan;
                Arc::make_mut(&mut port.object).settings = set.settings.clone();
                is_moved.then(|| next.check_unique(&set.name)).transpose()?;
            }
            Request::PortAddress(set) => {
                let port = next.ports.get_mut(&set.name).ok_or_else(|| no_such("port", &set.name))?;
                let port = Arc::make_mut(&mut port.object);
                let Some((addresses, routes)) = port.kind.addressed_mut() else {
                    return Err(no_device_of_ours(&set.name));
                };
                (*addresses, *routes) = (set.addresses.clone(), set.routes.clone());
                if let Some(guard) = &set.source_guard {
                    port.settings.source_guard = Some(guard.clone());
                }
                next.check_unique(&set.name)?;
            }
            Request::PortDelete(by) => next.delete_port(&by.name)?,
            Request::PortLabel(label) => next.label_port(label)?,
            Request::NamespaceSet(namespace) => next.set_namespace(namespace)?,
            Request::NamespaceDelete(by) => next.delete_namespace(&by.name)?,
            Request::PolicyAdd(policy) => next.add_policy(policy)?,
            Request::PolicySet(policy) => next.set_policy(policy)?,
            Request::PolicyDelete(by) => next.delete_policy(by)?,
            Request::PortSetSet(set) => next.set_ports(set)?,
            Request::PortSetDelete(by) => next.delete_ports(&by.name)?,
            Request::AclSet(acl) => next.set_acl(acl)?,
            Request::AclDelete(by) => next.delete_acl(&by.name)?,
            Request::NatSet(nat) => next.set_nat(nat)?,
            Request::NatDelete(by) => next.delete_nat(&by.name)?,
            Request::FdbAdd(entry) => next.add_static(entry)?,
            Request::FdbDelete(by) => {
                next.static_macs.retain(|e| (e.mac, &e.bridge, e.vid) != (by.mac, &by.bridge, by.vid));
            }
            Request::AddressAdd(address) => next.add_address(address)?,
            Request::AddressDelete(by) => next.delete_address(by)?,
            Request::NeighAdd(neighbour) => next.add_neighbour(neighbour)?,
            Request::NeighDelete(by) => next.delete_neighbour(by),
            Request::VrfSet(vrf) => next.set_vrf(vrf)?,
            Request::VrfDelete(by) => next.unset_vrf(&by.name)?,
            other => {
                let text = format!("{other:?} is not a change");
                return Err(ApiError::new(Code::Internal, text));
            }
        }
        next.number(self)?;
        if super::policies::concerns(request) {
            next.compile_policies()?;
        }
        next.follow_acls(request)?;
        Ok(next)
    }

    /// A model of what was kept, in its order, so that restarting numbers the objects the same way.
    pub fn from_declared(declared: Declared, seed: u64) -> Result<Self, ApiError> {
        let mut model = Self { seed, ..Self::default() };
        for bridge in &declared.bridges {
            model.add_bridge(bridge)?;
        }
        for port in &declared.ports {
            model.add_port(port)?;
        }
        for entry in &declared.static_macs {
            model.add_static(entry)?;
        }
        for address in &declared.addresses {
            model.add_address(address)?;
        }
        for neighbour in &declared.neighbours {
            model.add_neighbour(neighbour)?;
        }
        let routes = RouteApply { add: declared.routes, ..RouteApply::default() };
        model.routes = model.routes.after(&Request::RouteApply(routes))?;
        for vrf in &declared.vrfs {
            model.set_vrf(vrf)?;
        }
        for namespace in &declared.namespaces {
            model.set_namespace(namespace)?;
        }
        for policy in &declared.policies {
            model.add_policy(policy)?;
        }
        model.sets = declared.sets;
        for set in &declared.port_sets {
            model.set_ports(set)?;
        }
        for acl in &declared.acls {
            model.set_acl(acl)?;
        }
        for nat in &declared.nats {
            model.set_nat(nat)?;
        }
        model.number(&Self::default())?;
        model.compile_policies()?;
        model.compile_acls()?;
        Ok(model)
    }

    /// What to keep, but for routes: there may be a million of them.
    pub fn declared(&self) -> Declared {
        let mut ports: Vec<_> = self.ports.values().collect();
        ports.sort_by_key(|port| port.id);
        Declared {
            ports: ports.into_iter().map(|port| (*port.object).clone()).collect(),
            policies: self.policies.values().map(|placed| (*placed.policy).clone()).collect(),
            acls: self.acls.values().map(|placed| (*placed.acl).clone()).collect(),
            sets: self.sets.clone(),
            nats: self.nats.values().map(|placed| (*placed.nat).clone()).collect(),
            ..self.declared_together()
        }
    }

    /// What of it is kept as one value, because there is little of it.
    pub fn declared_together(&self) -> Declared {
        Declared {
            bridges: self.bridges.values().map(|bridge| (*bridge.object).clone()).collect(),
            static_macs: self.static_macs.clone(),
            addresses: self.addresses.clone(),
            neighbours: self.neighbours.clone(),
            vrfs: self.vrfs.values().cloned().collect(),
            namespaces: self.declared_namespaces(),
            port_sets: self.port_sets.values().cloned().collect(),
            ..Declared::default()
        }
    }

    fn add_bridge(&mut self, bridge: &Bridge) -> Result<(), ApiError> {
        if self.bridges.contains_key(&bridge.name) {
            return Err(exists("bridge", &bridge.name));
        }
        let id = free_id(self.bridges.values().map(|bridge| bridge.id), BRIDGES_MAX)
            .ok_or_else(|| ApiError::full(BRIDGES_MAX, "bridges", "bridge list"))?;
        self.bridges.insert(bridge.name.clone(), Numbered { id, object: Arc::new(bridge.clone()) });
        Ok(())
    }

    fn delete_bridge(&mut self, name: &Name) -> Result<(), ApiError> {
        let members: Vec<_> = self.ports_of(name).map(|port| port.object.name.as_str()).collect();
        if !members.is_empty() {
            let text = format!("bridge {name} still has ports: {}", members.join(", "));
            return Err(ApiError::new(Code::Busy, text).hint("delete those ports first"));
        }
        self.bridges.remove(name).ok_or_else(|| no_such("bridge", name))?;
        self.addresses.retain(|address| address.bridge != *name);
        self.neighbours.retain(|neighbour| neighbour.bridge != *name);
        Ok(())
    }

    fn add_port(&mut self, port: &Port) -> Result<(), ApiError> {
        if self.ports.contains_key(&port.name) {
            return Err(exists("port", &port.name));
        }
        super::policies::check_workload(port.workload.as_ref(), &port.kind)?;
        let id = free_id(self.ports.values().map(|port| port.id), PORTS_MAX)
            .ok_or_else(|| ApiError::full(PORTS_MAX, "ports", "port list"))?;
        self.ports.insert(port.name.clone(), Numbered { id, object: Arc::new(port.clone()) });
        Ok(())
    }

    fn delete_port(&mut self, name: &Name) -> Result<(), ApiError> {
        self.ports.remove(name).ok_or_else(|| no_such("port", name))?;
        self.static_macs.retain(|entry| entry.port != *name);
        Ok(())
    }

    fn add_static(&mut self, entry: &StaticMac) -> Result<(), ApiError> {
        if self.static_macs.len() >= STATIC_MACS_MAX {
            return Err(ApiError::full(STATIC_MACS_MAX, "static stations", "fdb list"));
        }
        let same = |e: &&mut StaticMac| (e.mac, &e.bridge, e.vid) == (entry.mac, &entry.bridge, entry.vid);
        match self.static_macs.iter_mut().find(same) {
            Some(present) => *present = StaticMac { owner: present.owner, ..entry.clone() },
            None => self.static_macs.push(entry.clone()),
        }
        Ok(())
    }

    /// Ports of a bridge, by name.
    pub fn ports_of<'a>(&'a self, bridge: &'a Name) -> impl Iterator<Item = &'a Numbered<Port>> {
        self.ports.values().filter(move |port| port.object.bridge == *bridge)
    }

    /// Gives every bridge and VLAN with a member or a gateway an identifier, and every routing table its flows' zone; who was there
    /// `before` the change keeps his, because learned MACs are filed under the one and flows under the other.
    pub(super) fn number(&mut self, before: &Self) -> Result<(), ApiError> {
        let full = || ApiError::full(FIDS_MAX, "pairs of bridge and VLAN", "port list");
        self.fids = numbered(&before.fids, self.fids_wanted(), 1..=FIDS_MAX as u16).ok_or_else(full)?;
        let vrfs = self.bridges.values().map(|bridge| bridge.object.vrf.clone()).collect();
        let full = || ApiError::full(BRIDGES_MAX, "routing tables", "bridge list");
        self.vrf_zones = numbered(&before.vrf_zones, vrfs, ZONE_VRF..=u16::MAX).ok_or_else(full)?;
        Ok(())
    }

    /// Every bridge, by number, and VLAN with a member or a gateway.
    fn fids_wanted(&self) -> BTreeSet<(u16, Vid)> {
        let mut wanted = BTreeSet::new();
        for port in self.ports.values() {
            if let Some(bridge) = self.bridges.get(&port.object.bridge) {
                wanted.extend(vids_of(&port.object.settings.vlan).map(|vid| (bridge.id, vid)));
            }
        }
        for address in &self.addresses {
            wanted.extend(self.bridges.get(&address.bridge).map(|bridge| (bridge.id, address.vid)));
        }
        wanted
    }
}

/// A number of `all` for each that is `wanted`; one that had it `before` keeps its own. What a change frees it gives to another only if nothing
/// else is left: what is still filed under it is forgotten when the change is in force, and would until then be taken for the other's.
/// None if there are too few.
fn numbered<K: Ord + Clone>(
    before: &BTreeMap<K, u16>,
    wanted: BTreeSet<K>,
    all: RangeInclusive<u16>,
) -> Option<BTreeMap<K, u16>> {
    let (kept, freed): (Vec<_>, Vec<_>) = before.iter().partition(|(key, _)| wanted.contains(key));
    let used: BTreeSet<u16> = before.values().copied().collect();
    let freed = freed.into_iter().map(|(_, number)| *number);
    let mut free = all.filter(|number| !used.contains(number)).chain(freed);
    let mut numbers: BTreeMap<K, u16> =
        kept.into_iter().map(|(key, number)| (key.clone(), *number)).collect();
    for key in wanted {
        if let Entry::Vacant(place) = numbers.entry(key) {
            place.insert(free.next()?);
        }
    }
    Some(numbers)
}

/// The VLANs a port is a member of.
pub fn vids_of(vlan: &Vlan) -> impl Iterator<Item = Vid> + '_ {
    let (access, ranges, native) = match vlan {
        Vlan::Access { vid } => (Some(*vid), &[][..], None),
        Vlan::Trunk { vids, native } => (None, &vids[..], *native),
    };
    let ranged = ranges.iter().flat_map(|range| u32::from(range.first.get())..=u32::from(range.last.get()));
    access.into_iter().chain(ranged.filter_map(|vid| Vid::try_from(vid).ok())).chain(native)
}

fn free_id(used: impl Iterator<Item = u16>, max: usize) -> Option<u16> {
    let used: BTreeSet<u16> = used.collect();
    (0..max as u16).find(|id| !used.contains(id))
}

fn exists(kind: &str, name: &Name) -> ApiError {
    ApiError::new(Code::Exists, format!("there is a {kind} named {name} already"))
        .field("name")
        .hint(format!("choose another name, or change it with `switch-ctl {kind} set`"))
}

fn no_device_of_ours(port: &Name) -> ApiError {
    ApiError::new(Code::InvalidParams, format!("port {port} has no device that the switch made"))
        .field("name")
        .hint("tap and host ports have one, and xdp ports with a pod; addresses of other devices are whose devices they are")
}

/// The refusal for a name nobody has.
pub fn no_such(kind: &str, name: &Name) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no {kind} named {name}"))
        .field("name")
        .hint(format!("`switch-ctl {kind} list` shows those there are"))
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use switch_api::{PortKind, PortSet, PortSettings, VidRange};

    fn vid(vid: u16) -> Vid {
        Vid::try_from(u32::from(vid)).unwrap()
    }

    fn vlan(first: u16, last: u16) -> PortSettings {
        let vids = vec![VidRange { first: vid(first), last: vid(last) }];
        let vlan =
            if first == last { Vlan::Access { vid: vid(first) } } else { Vlan::Trunk { vids, native: None } };
        PortSettings { vlan, ..PortSettings::default() }
    }

    /// A bridge for each, with one port in these VLANs.
    fn model(vlans: impl IntoIterator<Item = (u16, u16)>) -> Model {
        let mut declared = Declared::default();
        for (n, (first, last)) in vlans.into_iter().enumerate() {
            let [port, bridge]: [Name; 2] =
                [format!("p{n}"), format!("br{n}")].map(|name| name.parse().unwrap());
            declared.bridges.push(Bridge::new(bridge.clone()));
            let port = Port::new(port, bridge, PortKind::Memory { source: None });
            declared.ports.push(Port { settings: vlan(first, last), ..port });
        }
        Model::from_declared(declared, 0).unwrap()
    }

    fn moved(model: &Model, port: &str, to: u16) -> Model {
        let set = PortSet { name: port.parse().unwrap(), settings: vlan(to, to) };
        model.apply(&Request::PortSet(set)).unwrap()
    }

    #[test]
    fn what_a_change_frees_it_does_not_give_out() {
        let model = model([(10, 10), (30, 30)]);
        let next = moved(&model, "p0", 20);
        assert_eq!(next.fids[&(1, vid(30))], model.fids[&(1, vid(30))], "who lives on keeps its own");
        let had: BTreeSet<u16> = model.fids.values().copied().collect();
        assert!(!had.contains(&next.fids[&(0, vid(20))]), "{:?}, then {:?}", model.fids, next.fids);
        // The change after it may: all is forgotten by then.
        assert_eq!(moved(&next, "p1", 40).fids[&(1, vid(40))], model.fids[&(0, vid(10))]);
    }

    #[test]
    fn a_routing_table_keeps_its_flows_zone() {
        let on = |model: &Model, bridge: &str, vrf: &str| {
            let bridge = Bridge { vrf: vrf.parse().unwrap(), ..Bridge::new(bridge.parse().unwrap()) };
            model.apply(&Request::BridgeAdd(bridge)).unwrap()
        };
        let gone = |model: &Model, bridge: &str| {
            let name = bridge.parse().unwrap();
            model.apply(&Request::BridgeDelete(switch_api::ByName { name })).unwrap()
        };
        let zone = |model: &Model, vrf: &str| model.vrf_zones[&vrf.parse::<Name>().unwrap()];
        let one = on(&on(&Model::default(), "br0", "main"), "br1", "red");
        let (main, red) = (zone(&one, "main"), zone(&one, "red"));
        let more = on(&one, "br2", "blue");
        assert_eq!((zone(&more, "main"), zone(&more, "red")), (main, red), "blue is before them by name");
        assert!(zone(&more, "blue") != main && zone(&more, "blue") != red);
        assert!(
            more.vrf_zones.values().all(|zone| usize::from(*zone) > FIDS_MAX),
            "no bridge and VLAN has one"
        );
        let less = gone(&more, "br0");
        assert_eq!((less.vrf_zones.len(), zone(&less, "red")), (2, red));
        // The same bridge in another table: what it leaves it does not take along.
        let bridge = Bridge { vrf: "green".parse().unwrap(), ..Bridge::new("br1".parse().unwrap()) };
        let moved = more.apply(&Request::BridgeSet(bridge)).unwrap();
        assert!(!more.vrf_zones.values().any(|had| *had == zone(&moved, "green")));
    }

    #[test]
    fn where_nothing_else_is_left_what_is_freed_is_given_out() {
        // Fifteen bridges with all VLANs, and one with some: all there are.
        let (bridges, rest) = (FIDS_MAX / 4094, (FIDS_MAX % 4094) as u16);
        let model = model((0..=bridges).map(|n| (1, if n == bridges { rest } else { 4094 })));
        assert_eq!(model.fids.len(), FIDS_MAX);
        let (last, of) = (format!("p{bridges}"), bridges as u16);
        let next = moved(&model, &last, rest + 1);
        let number = next.fids[&(of, vid(rest + 1))];
        assert!(model.fids.iter().any(|(pair, fid)| pair.0 == of && *fid == number));
        let set = PortSet { name: last.parse().unwrap(), settings: vlan(1, rest + 1) };
        assert_eq!(model.apply(&Request::PortSet(set)).unwrap_err().code, Code::Limit);
    }
}
