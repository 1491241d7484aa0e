//! Whose a request would touch: everything that is declared has an owner, and nobody changes or removes what another made
//! without saying so. Pure.

use super::model::Model;
use super::routes::declared;
use std::net::IpAddr;
use switch_api::{
    Acl, Bridge, Mac, Name, Nat, NetworkPolicy, Object, ObjectRef, Owner, Port, Request, Route, RouteDelete,
    RouteKind, StaticMac, StaticNeighbour, Vid,
};

/// What is another's.
#[derive(Debug)]
struct Others {
    asker: Owner,
    found: Vec<(ObjectRef, Owner)>,
}

impl Others {
    /// Objects that are there and would be another or gone.
    fn touch<'a, T: Object + 'a>(&mut self, objects: impl IntoIterator<Item = &'a T>) {
        let others = objects.into_iter().filter(|object| object.owner() != self.asker);
        self.found.extend(others.map(|object| (ObjectRef::of(object), object.owner())));
    }

    /// An object that takes the place of the one there is, whose owner it then has; if there is none it is made.
    fn put<T: Object>(&mut self, there: Option<&T>, new: &T) {
        match there {
            Some(there) => self.touch([there]),
            None => self.make(new),
        }
    }

    /// An object that is to be made. An operator may make something for another, by naming it; nobody else.
    fn make<T: Object>(&mut self, object: &T) {
        if self.asker != Owner::Operator {
            self.touch([object]);
        }
    }
}

impl Model {
    /// What of others' `request` would change, remove or make, if `asker` asks for it. Pools and leases are not the model's.
    pub fn others(&self, request: &Request, asker: Owner) -> Vec<(ObjectRef, Owner)> {
        let mut others = Others { asker, found: Vec::new() };
        match request {
            Request::BridgeAdd(bridge) => others.make(bridge),
            Request::BridgeSet(bridge) => others.touch(self.bridge(&bridge.name)),
            Request::BridgeDelete(by) => {
                others.touch(self.bridge(&by.name));
                others.touch(self.addresses.iter().filter(|own| own.bridge == by.name));
            }
            Request::AddressAdd(address) => others.make(address),
            Request::AddressDelete(by) => others.touch(
                self.addresses
                    .iter()
                    .filter(|own| (&own.bridge, own.vid, own.address) == (&by.bridge, by.vid, by.address)),
            ),
            Request::NeighAdd(new) => others.put(self.neighbour(new.address, &new.bridge, new.vid), new),
            Request::NeighDelete(by) => others.touch(self.neighbour(by.address, &by.bridge, by.vid)),
            Request::RouteAdd(route) => others.make(route),
            Request::RouteDelete(by) => self.delete_route(by, &mut others),
            Request::RouteApply(apply) => {
                apply.delete.iter().for_each(|by| self.delete_route(by, &mut others));
                apply.replace.iter().for_each(|route| self.replace_route(route, &mut others));
                apply.add.iter().for_each(|route| others.make(route));
            }
            Request::VrfSet(vrf) => others.put(self.vrfs.get(&vrf.name), vrf),
            Request::VrfDelete(by) => others.touch(self.vrfs.get(&by.name)),
            Request::PortAdd(port) => others.make(&**port),
            Request::PortSet(set) => others.touch(self.port(&set.name)),
            Request::PortAddress(set) => others.touch(self.port(&set.name)),
            Request::PortLabel(label) => others.touch(self.port(&label.name)),
            Request::PortDelete(by) => others.touch(self.port(&by.name)),
            Request::FdbAdd(new) => others.put(self.station(new.mac, &new.bridge, new.vid), new),
            Request::FdbDelete(by) => others.touch(self.station(by.mac, &by.bridge, by.vid)),
            Request::NamespaceSet(namespace) => {
                others.put(self.namespace(&namespace.name).as_ref(), namespace);
            }
            Request::NamespaceDelete(by) => others.touch(self.namespace(&by.name).as_ref()),
            Request::PolicyAdd(policy) => others.make(&**policy),
            Request::PolicySet(policy) => {
                let meta = &policy.metadata;
                others.put(self.policy(&meta.namespace, &meta.name), &**policy);
            }
            Request::PolicyDelete(by) => others.touch(self.policy(&by.namespace, &by.name)),
            Request::PortSetSet(set) => others.put(self.port_sets.get(&set.name), set),
            Request::PortSetDelete(by) => others.touch(self.port_sets.get(&by.name)),
            Request::AddressSetSet(set) => others.put(self.plain_set(&set.name).as_ref(), set),
            Request::AddressSetUpdate(update) => others.touch(&self.plain_set(&update.name)),
            Request::AddressSetDelete(by) => others.touch(&self.plain_set(&by.name)),
            Request::AclSet(acl) => others.put(self.acl(&acl.name), &**acl),
            Request::AclDelete(by) => others.touch(self.acl(&by.name)),
            Request::NatSet(nat) => others.put(self.nat(&nat.name), &**nat),
            Request::NatDelete(by) => others.touch(self.nat(&by.name)),
            // A plan touches one owner's objects by what it is; whether that is the asker is asked where it is made.
            Request::ConfigApply(_) | Request::ConfigConfirm(_) | Request::ConfigRollback(_) => {}
            // The book's.
            Request::PoolAdd(pool) => others.make(pool),
            Request::PoolSet(_)
            | Request::PoolDelete(_)
            | Request::LeaseAcquire(_)
            | Request::LeaseRelease(_) => {}
            // What is learned is nobody's, as are lanes and the daemon itself.
            Request::FlowDelete(_)
            | Request::FdbFlush(_)
            | Request::WorkerRebalance(_)
            | Request::LogLevel(_)
            | Request::Stop(_) => {}
            // These change nothing that is declared.
            Request::Hello(_)
            | Request::Status(_)
            | Request::ConfigExport(_)
            | Request::ConfigHistory(_)
            | Request::BridgeList(_)
            | Request::NeighList(_)
            | Request::FlowList(_)
            | Request::FlowExplain(_)
            | Request::RouteList(_)
            | Request::RouteGet(_)
            | Request::RouteStats(_)
            | Request::VrfList(_)
            | Request::PortGet(_)
            | Request::PortList(_)
            | Request::PortProbe(_)
            | Request::FdbList(_)
            | Request::WorkerList(_)
            | Request::StatsGet(_)
            | Request::LogGet(_)
            | Request::Trace(_)
            | Request::TraceLive(_)
            | Request::CaptureStart(_)
            | Request::EventsSubscribe(_)
            | Request::EventsRecent(_)
            | Request::NamespaceList(_)
            | Request::PolicyList(_)
            | Request::PolicyExplain(_)
            | Request::PolicyDiff(_)
            | Request::AclList(_)
            | Request::PortSetList(_)
            | Request::AddressSetList(_)
            | Request::AddressSetMembers(_)
            | Request::NatList(_)
            | Request::PoolList(_)
            | Request::LeaseList(_) => {}
        }
        others.found
    }

    fn bridge(&self, name: &Name) -> Option<&Bridge> {
        self.bridges.get(name).map(|bridge| &*bridge.object)
    }

    fn port(&self, name: &Name) -> Option<&Port> {
        self.ports.get(name).map(|port| &*port.object)
    }

    fn neighbour(&self, address: IpAddr, bridge: &Name, vid: Vid) -> Option<&StaticNeighbour> {
        self.neighbours.iter().find(|is| (is.address, &is.bridge, is.vid) == (address, bridge, vid))
    }

    fn station(&self, mac: Mac, bridge: &Name, vid: Vid) -> Option<&StaticMac> {
        self.static_macs.iter().find(|is| (is.mac, &is.bridge, is.vid) == (mac, bridge, vid))
    }

    fn policy(&self, namespace: &str, name: &str) -> Option<&NetworkPolicy> {
        self.policies.get(&(namespace.to_owned(), name.to_owned())).map(|placed| &*placed.policy)
    }

    fn acl(&self, name: &Name) -> Option<&Acl> {
        self.acls.get(name).map(|placed| &*placed.acl)
    }

    fn nat(&self, name: &Name) -> Option<&Nat> {
        self.nats.get(name).map(|placed| &*placed.nat)
    }

    fn namespace(&self, name: &str) -> Option<switch_api::Namespace> {
        self.declared_namespaces().into_iter().find(|namespace| namespace.name == name)
    }

    /// Every declared route that is meant; if none is, one of the kernel's that is mirrored: only the kernel deletes it.
    fn delete_route(&self, by: &RouteDelete, others: &mut Others) {
        let is_meant = |metric: u32| by.metric.is_none_or(|only| only == metric);
        let there = self.routes.to(&by.vrf, by.prefix).filter(|(place, _)| is_meant(place.metric));
        let there: Vec<Route> = there.map(|(place, way)| declared(&by.vrf, place, way)).collect();
        others.touch(&there);
        let settings = self.vrf(&by.vrf);
        if !there.is_empty() || !settings.mirror {
            return;
        }
        let seen =
            self.mirrored.to(settings.kernel_table, by.prefix).filter(|(place, _)| is_meant(place.metric));
        let seen: Vec<Route> = seen
            .map(|(place, way)| Route {
                prefix: by.prefix,
                vrf: by.vrf.clone(),
                metric: place.metric,
                mtu: way.mtu,
                count: false,
                kind: RouteKind::Via,
                via: Vec::new(),
                owner: Owner::Routes,
            })
            .collect();
        others.touch(&seen);
    }

    fn replace_route(&self, route: &Route, others: &mut Others) {
        let there = self.routes.to(&route.vrf, route.prefix).find(|(place, _)| place.metric == route.metric);
        others.put(there.map(|(place, way)| declared(&route.vrf, place, way)).as_ref(), route);
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::mirrored::{Change, KernelPlace, KernelWay, Kind, Mirrored};
    use std::sync::Arc;
    use switch_api::{ByName, Vrf};

    fn parsed(method: &str, params: serde_json::Value) -> Request {
        serde_json::from_value(serde_json::json!({ "method": method, "params": params })).unwrap()
    }

    #[test]
    fn a_bridge_goes_with_what_is_on_it() {
        let bridge = parsed("bridge.add", serde_json::json!({ "name": "b" }));
        let own = serde_json::json!({ "bridge": "b", "address": "10.1.0.1/24", "owner": "cni" });
        let model = Model::default().apply(&bridge).unwrap();
        let gone = Request::BridgeDelete(ByName { name: "b".parse().unwrap() });
        assert!(model.others(&gone, Owner::Operator).is_empty());
        let model = model.apply(&parsed("bridge.address.add", own)).unwrap();
        let others = model.others(&gone, Owner::Operator);
        assert_eq!(others.len(), 1);
        assert_eq!((others[0].0.noun.as_str(), others[0].1), ("address", Owner::Cni));
    }

    #[test]
    fn a_route_of_the_kernel_is_the_kernels() {
        let prefix = "10.9.0.0/16".parse().unwrap();
        let place = KernelPlace { table: 254, prefix, metric: 5 };
        let way = KernelWay { protocol: 12, kind: Kind::Prohibit, hops: Vec::new(), mtu: None };
        let mut change = Change::of(&Mirrored::default());
        change.put(place, Arc::new(way), 1);
        let mirrored = change.finish(&Mirrored::default()).unwrap();
        let model = Model { mirrored: Arc::new(mirrored), ..Model::default() };
        let by = |metric| Request::RouteDelete(RouteDelete { prefix, vrf: Name::main(), metric });
        assert!(model.others(&by(None), Owner::Operator).is_empty(), "it is not mirrored");
        let model = model.apply(&Request::VrfSet(Vrf { mirror: true, ..Vrf::unset(Name::main()) })).unwrap();
        for (metric, count) in [(None, 1), (Some(5), 1), (Some(6), 0)] {
            let others = model.others(&by(metric), Owner::Operator);
            assert_eq!(others.len(), count, "{metric:?}");
            assert!(others.iter().all(|(_, owner)| *owner == Owner::Routes));
        }
        // A declared one beside it is what is meant.
        let route = serde_json::json!({ "prefix": "10.9.0.0/16", "kind": "blackhole" });
        let model = model.apply(&parsed("route.add", route)).unwrap();
        assert!(model.others(&by(None), Owner::Operator).is_empty());
    }
}
