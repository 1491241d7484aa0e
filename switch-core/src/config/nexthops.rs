//! What contradicts what among routes: where their next hops are. Checked where something changed: a route that is
//! added, or all of them when gateways or bridges are others.

use super::checked::{Problem, refusal};
use super::ecmp::NEXT_HOPS_MAX;
use super::model::Model;
use super::routes::{Parts, Routes, Way, declared};
use hashbrown::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use switch_api::{ApiError, BridgeAddress, Name, NextHop, Prefix, Request, RouteKind};

/// What any link carries at least, bytes of an IPv4 packet (RFC 791 §3.2).
pub const MTU_MIN_V4: u16 = 68;
/// The same of an IPv6 packet (RFC 8200 §5).
pub const MTU_MIN_V6: u16 = 1280;

/// Routes without contradictions to the model that they were checked with.
#[derive(Clone, Debug)]
pub struct CheckedRoutes(Routes);

impl CheckedRoutes {
    /// The routes of `model`, which has no contradictions, after `request`: looks at what it changes.
    pub fn after(model: &Model, request: &Request) -> Result<Self, ApiError> {
        let routes = model.routes.after(request)?;
        let (mut problems, mut first) = (Vec::new(), None);
        for (route, named) in Parts::of(request).iter().flat_map(Parts::routes) {
            let way = Way::of(route);
            let found = problems_of(model, &route.vrf, route.prefix, &way);
            if let Some(problem) = found.first().filter(|_| first.is_none()) {
                first = Some(named(problem.field));
            }
            problems.extend(found.into_iter().map(|problem| problem.about(route)));
        }
        match first {
            None => Ok(Self(routes)),
            Some(field) => Err(refusal(problems).field(field)),
        }
    }

    /// The routes.
    pub fn routes(&self) -> &Routes {
        &self.0
    }
}

impl From<CheckedRoutes> for Routes {
    fn from(checked: CheckedRoutes) -> Self {
        checked.0
    }
}

impl Model {
    /// The gateway address in whose network a next hop is, in `vrf`.
    pub fn gateway_to(&self, vrf: &Name, hop: &NextHop) -> Option<&BridgeAddress> {
        let here = self.addresses.iter().filter(|own| {
            self.bridges.get(&own.bridge).is_some_and(|bridge| bridge.object.vrf == *vrf)
                && hop.bridge.as_ref().is_none_or(|bridge| (bridge, hop.vid) == (&own.bridge, own.vid))
        });
        let mut here = here.filter(|own| own.address.address.is_ipv4() == hop.address.is_ipv4());
        // A link-local address is in every network; that it needs a bridge was checked.
        let is_link_local = matches!(hop.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        here.find(|own| is_link_local && hop.bridge.is_some() || own.address.contains(hop.address))
    }

    /// Whether routes that fit `before` fit here: what they refer to is the same.
    pub(super) fn fits_routes_of(&self, before: &Self) -> bool {
        let vrfs = |model: &'_ Self| -> Vec<(Name, Name)> {
            model.bridges.iter().map(|(name, bridge)| (name.clone(), bridge.object.vrf.clone())).collect()
        };
        self.routes.changed_since(&before.routes).is_some_and(<[_]>::is_empty)
            && self.addresses == before.addresses
            && vrfs(self) == vrfs(before)
    }
}

/// Every contradiction among routes. Those that lead the same way are looked at once.
pub(super) fn check(model: &Model, problems: &mut Vec<Problem>) {
    let mut good: HashSet<(&Name, bool, *const Way)> = HashSet::new();
    for (vrf, place, way) in model.routes.all() {
        let key = (vrf, place.prefix.address.is_ipv4(), Arc::as_ptr(way));
        if place.prefix == place.prefix.network() && good.contains(&key) {
            continue;
        }
        let found = problems_of(model, vrf, place.prefix, way);
        if found.is_empty() {
            good.insert(key);
        }
        let route = declared(vrf, place, way);
        problems.extend(found.into_iter().map(|problem| problem.about(&route)));
    }
}

/// What is wrong with one route.
pub(super) fn problems_of(model: &Model, vrf: &Name, prefix: Prefix, way: &Way) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem =
        |field, text: String| problems.push(Problem::new(field, format!("route to {prefix}: {text}")));
    if prefix != prefix.network() {
        problem("prefix", format!("bits behind the length are set; did you mean {}?", prefix.network()));
    }
    if !model.bridges.values().any(|bridge| bridge.object.vrf == *vrf) {
        problem("vrf", format!("no bridge is in a VRF named {vrf}"));
        return problems;
    }
    match (way.kind, way.via.len()) {
        (RouteKind::Via, 0) => problem("via", "say by which next hop, or choose another kind".into()),
        (RouteKind::Via, 1..=NEXT_HOPS_MAX) => {}
        (RouteKind::Via, _) => problem("via", format!("at most {NEXT_HOPS_MAX} next hops")),
        (_, 0) => {}
        _ => problem("via", "only a route of the kind `via` has next hops".into()),
    }
    let least = if prefix.address.is_ipv4() { MTU_MIN_V4 } else { MTU_MIN_V6 };
    match (way.kind, way.mtu) {
        (_, None) => {}
        (RouteKind::Via, Some(mtu)) if mtu >= least => {}
        (RouteKind::Via, Some(mtu)) => {
            problem(
                "mtu",
                format!("{mtu} bytes are too few; any link carries {least}, and up to 65535 are possible"),
            );
        }
        _ => problem("mtu", "only a route of the kind `via` has an MTU".into()),
    }
    if let Some(text) = super::tunnels::swallowed(model, vrf, prefix, way) {
        problem("via", text);
    }
    for hop in &way.via {
        if let Err(text) = check_hop(model, vrf, prefix.address.is_ipv4(), hop) {
            problem("via", text);
        }
    }
    problems
}

fn check_hop(model: &Model, vrf: &Name, is_v4: bool, hop: &NextHop) -> Result<(), String> {
    let address = hop.address;
    if !(1..=256).contains(&hop.weight) {
        return Err(format!("a weight is 1 to 256, not {}", hop.weight));
    }
    if address.is_ipv4() != is_v4 {
        return Err(format!("the next hop {address} is of another IP version"));
    }
    if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) && hop.bridge.is_none() {
        return Err(format!("{address} is link-local: say on which bridge (`dev BRIDGE`)"));
    }
    match model.gateway_to(vrf, hop) {
        Some(own) if own.address.address == address => {
            Err(format!("the next hop {address} is the switch itself"))
        }
        Some(_) => Ok(()),
        None => Err(format!("the next hop {address} is in no gateway's network of VRF {vrf}")),
    }
}
