//! Declared routes: what may be declared, where their next hops are, and which of several is used.

use super::ROUTES_STATIC_MAX;
use super::checked::Problem;
use super::ecmp::NEXT_HOPS_MAX;
use super::model::Model;
use std::collections::BTreeMap;
use std::net::IpAddr;
use switch_api::{ApiError, BridgeAddress, Code, Name, NextHop, Prefix, Route, RouteDelete, RouteKind};

impl Model {
    pub(super) fn add_route(&mut self, route: &Route) -> Result<(), ApiError> {
        let key = |route: &Route| (route.vrf.clone(), route.prefix, route.metric);
        if self.routes.iter().any(|present| key(present) == key(route)) {
            let text = format!("there is a route to {} with metric {} already", route.prefix, route.metric);
            return Err(ApiError::new(Code::Exists, text)
                .field("prefix")
                .hint("delete it first, or give another metric; the lowest is used"));
        }
        if self.routes.len() >= ROUTES_STATIC_MAX {
            return Err(ApiError::new(
                Code::Limit,
                format!("no more than {ROUTES_STATIC_MAX} declared routes are possible"),
            ));
        }
        self.routes.push(route.clone());
        Ok(())
    }

    pub(super) fn delete_route(&mut self, by: &RouteDelete) -> Result<(), ApiError> {
        let before = self.routes.len();
        let is_meant = |route: &Route| {
            (&route.vrf, route.prefix) == (&by.vrf, by.prefix)
                && by.metric.is_none_or(|metric| metric == route.metric)
        };
        self.routes.retain(|route| !is_meant(route));
        if self.routes.len() == before {
            return Err(ApiError::new(
                Code::NotFound,
                format!("there is no route to {} in VRF {}", by.prefix, by.vrf),
            )
            .field("prefix")
            .hint(
                "`switch-ctl route list` shows those there are; a gateway's network goes with its address",
            ));
        }
        Ok(())
    }

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

    /// For each network the declared route that is used: the one with the lowest metric.
    pub fn active_routes(&self) -> BTreeMap<(&Name, Prefix), &Route> {
        let mut active: BTreeMap<(&Name, Prefix), &Route> = BTreeMap::new();
        for route in &self.routes {
            let best = active.entry((&route.vrf, route.prefix)).or_insert(route);
            if route.metric < best.metric {
                *best = route;
            }
        }
        active
    }
}

/// Every contradiction among routes.
pub(super) fn check(model: &Model, problems: &mut Vec<Problem>) {
    for route in &model.routes {
        let mut problem = |field, text: String| {
            problems.push(Problem::new(field, format!("route to {}: {text}", route.prefix)))
        };
        if route.prefix != route.prefix.network() {
            problem(
                "prefix",
                format!("bits behind the length are set; did you mean {}?", route.prefix.network()),
            );
        }
        if !model.bridges.values().any(|bridge| bridge.object.vrf == route.vrf) {
            problem("vrf", format!("no bridge is in a VRF named {}", route.vrf));
            continue;
        }
        match (route.kind, route.via.len()) {
            (RouteKind::Via, 0) => problem("via", "say by which next hop, or choose another kind".into()),
            (RouteKind::Via, 1..=NEXT_HOPS_MAX) => {}
            (RouteKind::Via, _) => problem("via", format!("at most {NEXT_HOPS_MAX} next hops")),
            (_, 0) => {}
            _ => problem("via", "only a route of the kind `via` has next hops".into()),
        }
        for hop in &route.via {
            if let Err(text) = check_hop(model, route, hop) {
                problem("via", text);
            }
        }
    }
}

fn check_hop(model: &Model, route: &Route, hop: &NextHop) -> Result<(), String> {
    let address = hop.address;
    if !(1..=256).contains(&hop.weight) {
        return Err(format!("a weight is 1 to 256, not {}", hop.weight));
    }
    if address.is_ipv4() != route.prefix.address.is_ipv4() {
        return Err(format!("the next hop {address} is of another IP version"));
    }
    if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) && hop.bridge.is_none() {
        return Err(format!("{address} is link-local: say on which bridge (`dev BRIDGE`)"));
    }
    match model.gateway_to(&route.vrf, hop) {
        Some(own) if own.address.address == address => {
            Err(format!("the next hop {address} is the switch itself"))
        }
        Some(_) => Ok(()),
        None => Err(format!("the next hop {address} is in no gateway's network of VRF {}", route.vrf)),
    }
}
