//! From what an owner has declared to what it shall have declared: the changes in words, and the requests that make them, in an
//! order in which each is possible. Pure; what is not this owner's is not looked at, and a request that would touch it
//! is refused.

use super::model::Model;
use super::routes::declared;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use switch_api::{
    Action, AddressDelete, ApiError, ByName, ByNamespace, ByPolicy, Change, Config, FdbDelete, FieldChange,
    Name, NeighDelete, Object, ObjectRef, Owner, Port, PortAddress, PortKind, PortLabel, PortSet, Problem,
    Request, RouteApply, RouteDelete,
};

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In words, kind by kind.
    pub changes: Vec<Change>,
    /// What makes them, in this order; routes are one.
    requests: Vec<(Option<ObjectRef>, Request)>,
}

impl Model {
    /// All that `owner` declared, each kind in an order that does not depend on how it came to be.
    pub fn config(&self, owner: Owner) -> Config {
        fn of<'a, T: Object + 'a>(owner: Owner, all: impl Iterator<Item = &'a T>) -> Vec<T> {
            let mut list: Vec<T> = all.filter(|object| object.owner() == owner).cloned().collect();
            list.sort_by_cached_key(Object::key);
            list
        }
        let routes = self.routes.all().filter(|(_, _, way)| way.owner == owner);
        Config {
            bridge: of(owner, self.bridges.values().map(|bridge| &*bridge.object)),
            vrf: of(owner, self.vrfs.values()),
            address: of(owner, self.addresses.iter()),
            port: of(owner, self.ports.values().map(|port| &*port.object)),
            fdb: of(owner, self.static_macs.iter()),
            neigh: of(owner, self.neighbours.iter()),
            route: routes.map(|(vrf, place, way)| declared(vrf, place, way)).collect(),
            namespace: of(owner, self.declared_namespaces().iter()),
            policy: of(owner, self.policies.values().map(|placed| &*placed.policy)),
            port_set: of(owner, self.port_sets.values()),
            address_set: self.declared_sets(owner),
            acl: of(owner, self.acls.values().map(|placed| &*placed.acl)),
            nat: of(owner, self.nats.values().map(|placed| &*placed.nat)),
        }
    }

    /// The model after a plan, and what stands in its way. With problems it has all that is possible of the plan.
    pub fn after(&self, plan: &Plan) -> (Self, Vec<Problem>) {
        let (mut model, mut problems) = (self.clone(), Vec::new());
        for (object, request) in &plan.requests {
            match model.apply(request) {
                Ok(next) => model = next,
                Err(error) => problems.extend(problems_of(object.as_ref(), error)),
            }
        }
        // Of the plan as a whole: what one request frees, none of the others is given.
        if let Err(error) = model.number(self) {
            problems.extend(problems_of(None, error));
        }
        (model, problems)
    }

    /// What of `desired` is there twice or another owner's already, and what of another's would go with what `owner` takes away.
    pub fn collisions(&self, owner: Owner, desired: &Config) -> Vec<Problem> {
        fn of<'a, T: Object + 'a>(
            owner: Owner,
            there: impl Iterator<Item = &'a T>,
            desired: &[T],
            problems: &mut Vec<Problem>,
        ) {
            if desired.len() > 1 {
                problems.extend(twice(desired));
            }
            let wanted: BTreeSet<String> = desired.iter().map(Object::key).collect();
            for other in there.filter(|object| object.owner() != owner && wanted.contains(&object.key())) {
                let (object, whose) = (ObjectRef::of(other), other.owner().in_words());
                problems.push(Problem {
                    message: format!("{object} is there already and belongs to {whose}; it was left alone"),
                    object: Some(object),
                    field: None,
                    hint: Some("choose another name, or leave it out".into()),
                });
            }
        }
        let mut problems = Vec::new();
        let all = &mut problems;
        of(owner, self.bridges.values().map(|bridge| &*bridge.object), &desired.bridge, all);
        of(owner, self.addresses.iter(), &desired.address, all);
        of(owner, self.ports.values().map(|port| &*port.object), &desired.port, all);
        of(owner, self.policies.values().map(|placed| &*placed.policy), &desired.policy, all);
        of(owner, self.port_sets.values(), &desired.port_set, all);
        of(owner, self.plain_sets().iter(), &desired.address_set, all);
        of(owner, self.acls.values().map(|placed| &*placed.acl), &desired.acl, all);
        of(owner, self.nats.values().map(|placed| &*placed.nat), &desired.nat, all);
        of(owner, self.vrfs.values(), &desired.vrf, all);
        of(owner, self.static_macs.iter(), &desired.fdb, all);
        of(owner, self.neighbours.iter(), &desired.neigh, all);
        of(owner, self.declared_namespaces().iter(), &desired.namespace, all);
        all.extend(twice(&desired.route));
        for route in &desired.route {
            let there = self.routes.to(&route.vrf, route.prefix);
            let there: Vec<_> = there.map(|(place, way)| declared(&route.vrf, place, way)).collect();
            of(owner, there.iter(), std::slice::from_ref(route), all);
        }
        let stays: BTreeSet<&Name> = desired.bridge.iter().map(|bridge| &bridge.name).collect();
        for address in self.addresses.iter().filter(|address| address.owner != owner) {
            let bridge = self.bridges.get(&address.bridge).map(|bridge| &*bridge.object);
            let goes = bridge.filter(|bridge| bridge.owner == owner && !stays.contains(&bridge.name));
            problems.extend(goes.map(|bridge| Problem {
                message: format!(
                    "bridge {} cannot go: it has the address {} of {}",
                    bridge.name,
                    address.address,
                    address.owner.in_words()
                ),
                object: Some(ObjectRef::of(bridge)),
                field: None,
                hint: Some("leave the bridge in".into()),
            }));
        }
        problems
    }
}

/// Objects of a list that are in it already: which of the two was meant nobody can say.
fn twice<T: Object>(desired: &[T]) -> Vec<Problem> {
    let mut seen = BTreeSet::new();
    let twice = desired.iter().filter(|object| !seen.insert(object.key()));
    let problem = |object: &T| {
        let object = ObjectRef::of(object);
        Problem {
            message: format!("{object} is there twice"),
            object: Some(object),
            field: None,
            hint: Some("take one of the two out".into()),
        }
    };
    twice.map(problem).collect()
}

/// The problems that a refusal tells, each about the object that was meant if it says nothing better.
pub fn problems_of(object: Option<&ObjectRef>, error: ApiError) -> Vec<Problem> {
    let mut each = error.data.problems;
    if each.is_empty() {
        let (field, hint) = (error.data.field, error.data.hint);
        each.push(Problem { object: None, field, message: error.message, hint });
    }
    for problem in &mut each {
        problem.object = problem.object.take().or_else(|| object.cloned());
    }
    each
}

/// Gives ports without a MAC the one that they have, and the MTU that follows another: what the switch chose is kept.
pub fn keep_macs(current: &Config, desired: &mut Config) {
    for port in &mut desired.port {
        let there = current.port.iter().find(|there| there.name == port.name);
        let mut kind = there.map(|there| there.kind.clone());
        if let (Some(wanted), Some(Some(had))) = (port.kind.mac_mut(), kind.as_mut().map(PortKind::mac_mut))
            && wanted.is_none()
        {
            *wanted = *had;
        }
        // An MTU that follows the node's way out is what that made it.
        if port.settings.mtu_follows && port.settings.mtu.is_none() {
            port.settings.mtu = there.and_then(|there| there.settings.mtu);
        }
    }
}

/// The differences of one kind.
struct Difference<'a, T> {
    add: Vec<&'a T>,
    change: Vec<(&'a T, &'a T)>,
    delete: Vec<&'a T>,
}

impl<'a, T: Object> Difference<'a, T> {
    fn of(current: &'a [T], desired: &'a [T]) -> Self {
        let had: BTreeMap<String, &T> = current.iter().map(|object| (object.key(), object)).collect();
        let wanted: BTreeSet<String> = desired.iter().map(Object::key).collect();
        let (mut add, mut change) = (Vec::new(), Vec::new());
        for object in desired {
            match had.get(&object.key()) {
                None => add.push(object),
                Some(before) if *before != object => change.push((*before, object)),
                Some(_) => {}
            }
        }
        let delete = current.iter().filter(|object| !wanted.contains(&object.key())).collect();
        Self { add, change, delete }
    }

    fn tell(&self, changes: &mut Vec<Change>, replaced: impl Fn(&T, &T) -> bool) {
        let told = |action, object: &T, fields| Change { action, object: ObjectRef::of(object), fields };
        changes.extend(self.delete.iter().map(|object| told(Action::Delete, object, Vec::new())));
        changes.extend(self.change.iter().map(|(before, after)| {
            let action = if replaced(before, after) { Action::Replace } else { Action::Change };
            told(action, after, fields(before, after))
        }));
        changes.extend(self.add.iter().map(|object| told(Action::Add, object, Vec::new())));
    }
}

/// What leads from `current` to `desired`. The device of a port that is `down` cannot be changed in place.
pub fn plan(current: &Config, desired: &Config, down: &BTreeSet<Name>) -> Plan {
    let bridges = Difference::of(&current.bridge, &desired.bridge);
    let vrfs = Difference::of(&current.vrf, &desired.vrf);
    let addresses = Difference::of(&current.address, &desired.address);
    let ports = Difference::of(&current.port, &desired.port);
    let stations = Difference::of(&current.fdb, &desired.fdb);
    let neighbours = Difference::of(&current.neigh, &desired.neigh);
    let routes = Difference::of(&current.route, &desired.route);
    let namespaces = Difference::of(&current.namespace, &desired.namespace);
    let policies = Difference::of(&current.policy, &desired.policy);
    let port_sets = Difference::of(&current.port_set, &desired.port_set);
    let sets = Difference::of(&current.address_set, &desired.address_set);
    let acls = Difference::of(&current.acl, &desired.acl);
    let nats = Difference::of(&current.nat, &desired.nat);

    let mut plan = Plan::default();
    let changes = &mut plan.changes;
    bridges.tell(changes, |_, _| false);
    vrfs.tell(changes, |_, _| false);
    addresses.tell(changes, |_, _| false);
    let is_replaced = |before: &Port, after: &Port| is_replaced(before, after, down);
    ports.tell(changes, is_replaced);
    stations.tell(changes, |_, _| false);
    neighbours.tell(changes, |_, _| false);
    routes.tell(changes, |_, _| false);
    namespaces.tell(changes, |_, _| false);
    policies.tell(changes, |_, _| false);
    port_sets.tell(changes, |_, _| false);
    sets.tell(changes, |_, _| false);
    acls.tell(changes, |_, _| false);
    nats.tell(changes, |_, _| false);

    // New ports come before old ones go, so that none of them has another's number.
    plan.each(&bridges.add, |bridge| Request::BridgeAdd(bridge.clone()));
    plan.each(&seconds(&bridges.change), |bridge| Request::BridgeSet(bridge.clone()));
    plan.each(&seconds(&vrfs.change), |vrf| Request::VrfSet(vrf.clone()));
    plan.each(&vrfs.add, |vrf| Request::VrfSet(vrf.clone()));
    plan.each(&ports.add, |port| Request::PortAdd(Box::new(port.clone())));

    plan.each(&nats.delete, |nat| Request::NatDelete(ByName { name: nat.name.clone() }));
    plan.each(&acls.delete, |acl| Request::AclDelete(ByName { name: acl.name.clone() }));
    plan.each(&policies.delete, |policy| {
        let (name, namespace) = (policy.metadata.name.clone(), policy.metadata.namespace.clone());
        Request::PolicyDelete(ByPolicy { name, namespace })
    });
    plan.each(&namespaces.delete, |gone| Request::NamespaceDelete(ByNamespace { name: gone.name.clone() }));
    plan.each(&neighbours.delete, |gone| {
        let (address, bridge, vid) = (gone.address, gone.bridge.clone(), gone.vid);
        Request::NeighDelete(NeighDelete { address, bridge, vid })
    });
    plan.each(&stations.delete, |gone| {
        Request::FdbDelete(FdbDelete { mac: gone.mac, bridge: gone.bridge.clone(), vid: gone.vid })
    });
    plan.each(&ports.delete, |port| Request::PortDelete(ByName { name: port.name.clone() }));
    plan.each(&vrfs.delete, |vrf| Request::VrfDelete(ByName { name: vrf.name.clone() }));
    for gone in addresses.delete.iter().copied().chain(firsts(&addresses.change)) {
        let by = AddressDelete { bridge: gone.bridge.clone(), address: gone.address, vid: gone.vid };
        plan.push(gone, Request::AddressDelete(by));
    }

    for (before, after) in &ports.change {
        if is_replaced(before, after) {
            replace_port(&mut plan, after, desired);
        } else {
            change_port(&mut plan, before, after);
        }
    }
    // Only now are ports that move elsewhere off them.
    plan.each(&bridges.delete, |bridge| Request::BridgeDelete(ByName { name: bridge.name.clone() }));
    plan.each(&addresses.add, |address| Request::AddressAdd(address.clone()));
    plan.each(&seconds(&addresses.change), |address| Request::AddressAdd(address.clone()));
    plan.each(&stations.add, |station| Request::FdbAdd(station.clone()));
    plan.each(&seconds(&stations.change), |station| Request::FdbAdd(station.clone()));
    plan.each(&neighbours.add, |neighbour| Request::NeighAdd(neighbour.clone()));
    plan.each(&seconds(&neighbours.change), |neighbour| Request::NeighAdd(neighbour.clone()));
    plan.requests.extend(change_routes(&routes).map(|request| (None, request)));
    plan.each(&namespaces.add, |namespace| Request::NamespaceSet(namespace.clone()));
    plan.each(&seconds(&namespaces.change), |namespace| Request::NamespaceSet(namespace.clone()));
    plan.each(&policies.add, |policy| Request::PolicyAdd(Box::new(policy.clone())));
    plan.each(&seconds(&policies.change), |policy| Request::PolicySet(Box::new(policy.clone())));
    plan.each(&port_sets.add, |set| Request::PortSetSet(set.clone()));
    plan.each(&seconds(&port_sets.change), |set| Request::PortSetSet(set.clone()));
    plan.each(&sets.add, |set| Request::AddressSetSet(set.clone()));
    plan.each(&seconds(&sets.change), |set| Request::AddressSetSet(set.clone()));
    plan.each(&acls.add, |acl| Request::AclSet(Box::new(acl.clone())));
    plan.each(&seconds(&acls.change), |acl| Request::AclSet(Box::new(acl.clone())));
    // Only now does no rule name them.
    plan.each(&port_sets.delete, |set| Request::PortSetDelete(ByName { name: set.name.clone() }));
    plan.each(&sets.delete, |set| Request::AddressSetDelete(ByName { name: set.name.clone() }));
    plan.each(&nats.add, |nat| Request::NatSet(Box::new(nat.clone())));
    plan.each(&seconds(&nats.change), |nat| Request::NatSet(Box::new(nat.clone())));
    plan
}

impl Plan {
    fn push<T: Object>(&mut self, object: &T, request: Request) {
        self.requests.push((Some(ObjectRef::of(object)), request));
    }

    fn each<T: Object>(&mut self, objects: &[&T], request: impl Fn(&T) -> Request) {
        objects.iter().for_each(|object| self.push(*object, request(object)));
    }

    /// Ports that are closed: those that go, and those that come again.
    pub fn closed(&self) -> BTreeSet<&Name> {
        let gone = self.requests.iter().filter_map(|(_, request)| match request {
            Request::PortDelete(by) => Some(&by.name),
            _ => None,
        });
        gone.collect()
    }

    /// Ports that are opened.
    pub fn opened(&self) -> impl Iterator<Item = &Port> {
        self.requests.iter().filter_map(|(_, request)| match request {
            Request::PortAdd(port) => Some(&**port),
            _ => None,
        })
    }

    /// Ports whose settings change while they are open.
    pub fn set(&self) -> impl Iterator<Item = &Name> {
        self.requests.iter().filter_map(|(_, request)| match request {
            Request::PortSet(set) => Some(&set.name),
            _ => None,
        })
    }

    /// Ports whose devices get other addresses and routes.
    pub fn addressed(&self) -> impl Iterator<Item = &Name> {
        self.requests.iter().filter_map(|(_, request)| match request {
            Request::PortAddress(set) => Some(&set.name),
            _ => None,
        })
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

fn firsts<'a, T>(pairs: &[(&'a T, &'a T)]) -> Vec<&'a T> {
    pairs.iter().map(|(before, _)| *before).collect()
}

fn seconds<'a, T>(pairs: &[(&'a T, &'a T)]) -> Vec<&'a T> {
    pairs.iter().map(|(_, after)| *after).collect()
}

/// Whether a port has to be closed for a change of it. Addresses and routes of a device change in place, if there is one.
fn is_replaced(before: &Port, after: &Port, down: &BTreeSet<Name>) -> bool {
    let without_addresses = |port: &Port| {
        let mut kind = port.kind.clone();
        kind.addressed_mut().into_iter().for_each(|(addresses, routes)| {
            addresses.clear();
            routes.clear();
        });
        kind
    };
    let in_place = !down.contains(&after.name) && without_addresses(before) == without_addresses(after);
    let same_kind = before.kind == after.kind || in_place;
    !same_kind || (&before.bridge, &before.labels) != (&after.bridge, &after.labels)
}

/// What gives the device of a port the addresses and routes that it shall have; nothing if it has them.
fn addressed(before: &Port, after: &Port) -> Option<PortAddress> {
    let (mut had, mut has) = (before.kind.clone(), after.kind.clone());
    let (addresses, routes) = has.addressed_mut()?;
    let set = PortAddress {
        name: after.name.clone(),
        addresses: std::mem::take(addresses),
        routes: std::mem::take(routes),
        source_guard: None,
    };
    let same = had.addressed_mut().is_some_and(|had| (&*had.0, &*had.1) == (&set.addresses, &set.routes));
    (!same).then_some(set)
}

fn replace_port(plan: &mut Plan, after: &Port, desired: &Config) {
    plan.push(after, Request::PortDelete(ByName { name: after.name.clone() }));
    plan.push(after, Request::PortAdd(Box::new(after.clone())));
    // Its stations went with it.
    for station in desired.fdb.iter().filter(|station| station.port == after.name) {
        plan.push(station, Request::FdbAdd(station.clone()));
    }
}

fn change_port(plan: &mut Plan, before: &Port, after: &Port) {
    let name = after.name.clone();
    if let Some(set) = addressed(before, after) {
        plan.push(after, Request::PortAddress(set));
    }
    if before.settings != after.settings {
        let set = PortSet { name: name.clone(), settings: after.settings.clone() };
        plan.push(after, Request::PortSet(set));
    }
    if before.workload != after.workload {
        plan.push(after, Request::PortLabel(PortLabel { name, workload: after.workload.clone() }));
    }
}

fn change_routes(routes: &Difference<switch_api::Route>) -> Option<Request> {
    let gone = routes.delete.iter().map(|route| {
        let (prefix, vrf, metric) = (route.prefix, route.vrf.clone(), Some(route.metric));
        RouteDelete { prefix, vrf, metric }
    });
    let apply = RouteApply {
        delete: gone.collect(),
        replace: routes.change.iter().map(|(_, after)| (*after).clone()).collect(),
        add: routes.add.iter().map(|route| (*route).clone()).collect(),
    };
    (apply != RouteApply::default()).then_some(Request::RouteApply(apply))
}

/// Where two objects differ, field by field.
fn fields(before: &impl serde::Serialize, after: &impl serde::Serialize) -> Vec<FieldChange> {
    fn walk(path: &str, before: &Value, after: &Value, found: &mut Vec<FieldChange>) {
        if before == after {
            return;
        }
        if let (Value::Object(had), Value::Object(has)) = (before, after) {
            let names: BTreeSet<&String> = had.keys().chain(has.keys()).collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let (had, has) = (had.get(name), has.get(name));
                walk(&path, had.unwrap_or(&Value::Null), has.unwrap_or(&Value::Null), found);
            }
            return;
        }
        found.push(FieldChange { field: path.to_owned(), before: before.clone(), after: after.clone() });
    }
    let mut found = Vec::new();
    // Our own types to memory: no maps with odd keys.
    let value = |object: Result<Value, _>| object.unwrap_or_default();
    walk("", &value(serde_json::to_value(before)), &value(serde_json::to_value(after)), &mut found);
    found
}
