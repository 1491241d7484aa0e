//! Routes listed, and a choice explained. The explanation looks at every declared object there is to a network, and not at
//! what the workers look up: that says the same and gives no reasons.

use super::daemon::{Daemon, json};
use crate::config::CheckedRoutes;
use crate::config::gateway::{EVERYWHERE, to_bits};
use crate::config::mirrored::{Kind, Meaning, TABLE_LOCAL, protocol_name, shown};
use crate::config::routes::declared;
use crate::config::shared::WayOut;
use crate::config::snapshot::compile_routes;
use crate::table::neigh::{Found, key};
use crate::worker::thread::now;
use serde_json::Value;
use std::collections::BTreeSet;
use std::iter::Peekable;
use switch_api::{
    ApiError, BridgeAddress, Code, Name, Origin, Owner, Prefix, ROUTE_PAGE_MAX, Request, Route, RouteChoice,
    RouteFilter, RouteGet, RouteKind, RouteStatus,
};

impl Daemon {
    /// Changes declared routes: checked, kept, published and seen by every worker, for what the change costs and not for
    /// what there is beside it.
    pub(super) fn change_routes(&mut self, request: &Request) -> Result<Value, ApiError> {
        let routes = CheckedRoutes::after(&self.model, request)?;
        self.store.keep_routes(routes.routes()).map_err(super::daemon::not_kept)?;
        let generation = self.publisher.generation() + 1;
        let snapshot = compile_routes(&self.model, &routes, self.publisher.current(), generation);
        self.model.routes = routes.into();
        self.make_route_counters();
        self.publisher.publish(snapshot);
        self.await_seen(generation)?;
        self.begin_to_count();
        json(self.done())
    }

    /// Routes by table, network and metric: gateways' networks, ways to the kernel, what is mirrored and what is declared.
    pub(super) fn list_routes(&self, filter: &RouteFilter) -> Result<Vec<RouteStatus>, ApiError> {
        filter.vrf.as_ref().map_or(Ok(()), |vrf| self.vrf_of(vrf))?;
        let limit = match filter.limit {
            0 => ROUTE_PAGE_MAX,
            limit => limit.min(ROUTE_PAGE_MAX),
        };
        let mut list = Vec::new();
        let wanted = |vrf: &&Name| filter.vrf.as_ref().is_none_or(|only| only == *vrf);
        for vrf in self.model.vrf_names().into_iter().filter(wanted) {
            let after = match &filter.after {
                Some(place) if *vrf < place.vrf => continue,
                Some(place) if *vrf == place.vrf => Some(place.prefix),
                _ => None,
            };
            let mut fixed = self.networks(vrf, after).into_iter().peekable();
            let [mut own, mut table] = self.mirrored_networks(vrf, after);
            let mut declared = self.model.routes.networks(vrf, after).peekable();
            while list.len() < limit as usize
                && let Some(prefix) = [fixed.peek(), own.peek(), table.peek(), declared.peek()]
                    .into_iter()
                    .flatten()
                    .min()
                    .copied()
            {
                fixed.next_if_eq(&prefix);
                declared.next_if_eq(&prefix);
                own.next_if_eq(&prefix);
                table.next_if_eq(&prefix);
                list.extend(self.routes_to(vrf, prefix));
            }
        }
        Ok(list)
    }

    /// Networks of a table behind `after` that are always there: gateways' and everything.
    fn networks(&self, vrf: &Name, after: Option<Prefix>) -> BTreeSet<Prefix> {
        let own = self.addresses_of(vrf).map(|own| own.address.network());
        own.chain(EVERYWHERE).filter(|prefix| after.is_none_or(|after| *prefix > after)).collect()
    }

    /// Networks behind `after` that the kernel has routes to, in its own table and in that which goes with this one.
    fn mirrored_networks(
        &self,
        vrf: &Name,
        after: Option<Prefix>,
    ) -> [Peekable<impl Iterator<Item = Prefix>>; 2] {
        let (settings, mirrors) = (self.model.vrf(vrf), self.model.mirrors(vrf));
        // Another VRF may mirror the same table: where this one does not, none of a million is looked at.
        [TABLE_LOCAL, settings.kernel_table].map(|table| {
            let networks = mirrors.then(|| self.model.mirrored.networks(table, after));
            networks.into_iter().flatten().peekable()
        })
    }

    fn addresses_of<'a>(&'a self, vrf: &'a Name) -> impl Iterator<Item = &'a BridgeAddress> {
        self.model.addresses.iter().filter(move |own| {
            self.model.bridges.get(&own.bridge).is_some_and(|bridge| bridge.object.vrf == *vrf)
        })
    }

    /// All there is to a network, by metric.
    fn routes_to(&self, vrf: &Name, prefix: Prefix) -> Vec<RouteStatus> {
        let connected = self.addresses_of(vrf).filter(|own| own.address.network() == prefix);
        let mut list: Vec<RouteStatus> = connected.filter_map(|own| self.connected(own)).collect();
        let mut is_free = list.is_empty();
        let mut declared: Vec<RouteStatus> = self
            .model
            .routes
            .to(vrf, prefix)
            .map(|(place, way)| RouteStatus {
                route: declared(vrf, place, way),
                connected: None,
                origin: None,
                active: std::mem::take(&mut is_free),
            })
            .collect();
        list.extend(self.mirrored(vrf, prefix, &mut is_free));
        list.extend(self.uplink(vrf, prefix, declared.is_empty() && list.is_empty()));
        list.append(&mut declared);
        list.sort_by_key(|status| status.route.metric);
        list
    }

    /// A gateway's network, as if it had been declared.
    fn connected(&self, own: &BridgeAddress) -> Option<RouteStatus> {
        let vrf = self.model.bridges.get(&own.bridge)?.object.vrf.clone();
        let prefix = own.address.network();
        let route = Route { vrf, owner: own.owner, ..Route::new(prefix, RouteKind::Via, Vec::new()) };
        Some(RouteStatus { route, connected: Some(own.bridge.clone()), origin: None, active: true })
    }

    /// A default route to the kernel, where all is handed to it.
    fn uplink(&self, vrf: &Name, prefix: Prefix, active: bool) -> Option<RouteStatus> {
        self.model.to_kernel(vrf).ok().filter(|_| EVERYWHERE.contains(&prefix))?;
        let mirrored = &self.model.mirrored;
        if self.model.mirrors(vrf) && !mirrored.is_empty() && mirrored.beyond == 0 {
            return None;
        }
        let origin = Origin { protocol: "uplink".into(), way: "as its own routes say".into() };
        let route = Route::new(prefix, RouteKind::Via, Vec::new());
        let route = Route { vrf: vrf.clone(), metric: u32::MAX, ..route };
        Some(RouteStatus { route, connected: None, origin: Some(origin), active })
    }

    /// Routes of the kernel to a network, as far as they mean something here. The first is used if nobody declared another.
    fn mirrored(&self, vrf: &Name, prefix: Prefix, is_free: &mut bool) -> Vec<RouteStatus> {
        let settings = self.model.vrf(vrf);
        let ways = self.model.ways(vrf);
        if !self.model.mirrors(vrf) || ways.kernel.is_none() && ways.out.is_empty() {
            return Vec::new();
        }
        let mut list = Vec::new();
        for (place, seen) in self.model.mirrored.to(settings.kernel_table, prefix) {
            let mut connected = None;
            let (kind, via) = match self.model.meaning(vrf, &ways, (place, seen)) {
                Meaning::Link(way) => {
                    connected = Some(way.bridge);
                    (RouteKind::Via, Vec::new())
                }
                Meaning::Kernel => (RouteKind::Via, Vec::new()),
                Meaning::Direct(via) => (RouteKind::Via, via),
                Meaning::Refuse(Kind::Blackhole) => (RouteKind::Blackhole, Vec::new()),
                Meaning::Refuse(Kind::Prohibit) => (RouteKind::Prohibit, Vec::new()),
                Meaning::Refuse(_) => (RouteKind::Unreachable, Vec::new()),
                Meaning::Circle | Meaning::Known => continue,
            };
            let (metric, owner) = (place.metric, Owner::Routes);
            let mtu = seen.mtu.filter(|_| kind == RouteKind::Via);
            let route = Route::new(prefix, kind, via);
            let route = Route { vrf: vrf.clone(), metric, mtu, owner, ..route };
            let origin = Some(Origin { protocol: protocol_name(seen.protocol), way: shown(seen) });
            list.push(RouteStatus { route, connected, origin, active: std::mem::take(is_free) });
        }
        list
    }

    fn vrf_of(&self, vrf: &Name) -> Result<(), ApiError> {
        if vrf.is_main() || self.model.bridges.values().any(|bridge| bridge.object.vrf == *vrf) {
            return Ok(());
        }
        Err(ApiError::new(Code::NotFound, format!("no bridge is in a VRF named {vrf}"))
            .field("vrf")
            .hint("`switch-ctl bridge list` shows which VRF each bridge is in"))
    }

    /// What becomes of a packet to an address, and why.
    pub(super) fn explain_route(&self, get: &RouteGet) -> Result<RouteChoice, ApiError> {
        let mut choice = self.choose_route(get)?;
        // What a table says of an address of translation is not where packets to it go.
        choice.why.extend(
            self.model
                .nats_of(&get.vrf, get.address)
                .into_iter()
                .map(|nat| format!("rule {} of network address translation has it: {}", nat.name, nat.kind)),
        );
        Ok(choice)
    }

    fn choose_route(&self, get: &RouteGet) -> Result<RouteChoice, ApiError> {
        self.vrf_of(&get.vrf)?;
        let address = get.address;
        let here = |own: &&BridgeAddress| {
            self.model.bridges.get(&own.bridge).is_some_and(|bridge| bridge.object.vrf == get.vrf)
        };
        if let Some(own) = self.model.addresses.iter().filter(here).find(|own| own.address.address == address)
        {
            let why = vec![format!("{address} is the switch's own address on bridge {}", own.bridge)];
            return Ok(RouteChoice { what: "local".into(), route: self.connected(own), why });
        }
        let mut why = Vec::new();
        let lens = 0..=Prefix::host(address).bits();
        let around = lens.flat_map(|len| self.routes_to(&get.vrf, Prefix { address, len }.network()));
        let mut fits: Vec<RouteStatus> = around.collect();
        fits.sort_by_key(|status| {
            (std::cmp::Reverse(status.route.prefix.len), !status.active, status.route.metric)
        });
        for other in fits.iter().skip(1) {
            let reason = if other.active {
                "shorter"
            } else {
                "its metric is higher, or a gateway's network hides it"
            };
            why.push(format!("{} (metric {}) fits too: {reason}", other.route.prefix, other.route.metric));
        }
        let Some(chosen) = fits.into_iter().next() else {
            let why =
                vec![format!("no route of VRF {} fits; senders are told \"network unreachable\"", get.vrf)];
            return Ok(RouteChoice { what: "none".into(), route: None, why });
        };
        why.insert(0, format!("{} is the longest prefix that fits", chosen.route.prefix));
        let what = self.explain_chosen(get, &chosen, &mut why);
        Ok(RouteChoice { what, route: Some(chosen), why })
    }

    fn explain_chosen(&self, get: &RouteGet, chosen: &RouteStatus, why: &mut Vec<String>) -> String {
        if let Some(way) = chosen.connected.as_ref().and_then(|bridge| self.model.way_out_of(bridge)) {
            if let Some(origin) = &chosen.origin {
                why.push(format!("{} wrote it into the kernel's table: {}", origin.protocol, origin.way));
            }
            why.push(self.explain_way_out(get.address, &way));
            return "connected".into();
        }
        if let Some(bridge) = &chosen.connected {
            let whole = chosen.route.prefix;
            if get.address.is_ipv4() && whole.len < 31 && [whole.address, whole.last()].contains(&get.address)
            {
                why.push("it is the network's broadcast address, which is not forwarded to".into());
                return "broadcast".into();
            }
            let own = self
                .model
                .addresses
                .iter()
                .find(|own| own.bridge == *bridge && own.address.contains(get.address));
            if let Some(own) = own {
                why.push(self.explain_neighbour(get.address, own));
            }
            return "connected".into();
        }
        if let Some(origin) = chosen.origin.as_ref().filter(|origin| origin.protocol != "uplink") {
            why.push(format!("{} wrote it into the kernel's table: {}", origin.protocol, origin.way));
        }
        let to_kernel = chosen.route.kind == RouteKind::Via && chosen.route.via.is_empty();
        if let Some(origin) = chosen.origin.as_ref().filter(|_| to_kernel) {
            let text = match self.model.to_kernel(&get.vrf) {
                Ok(kernel) => format!(
                    "it is handed to the node's kernel by port {} (dev {}), which sends it on: {}",
                    kernel.port, kernel.device, origin.way
                ),
                Err(reason) => reason,
            };
            why.push(text);
            return "kernel".into();
        }
        if let Some(mtu) = chosen.route.mtu {
            why.push(format!("its MTU is {mtu}: what is longer is cut up, or its sender is told"));
        }
        for hop in &chosen.route.via {
            let way_out = hop.bridge.as_ref().and_then(|bridge| self.model.way_out_of(bridge));
            let text = match self.model.gateway_to(&get.vrf, hop) {
                _ if let Some(way) = &way_out => self.explain_way_out(hop.address, way),
                Some(own) => self.explain_neighbour(hop.address, own),
                None => format!("the next hop {} is in no gateway's network", hop.address),
            };
            why.push(if chosen.route.via.len() > 1 {
                format!("{text}; weight {}", hop.weight)
            } else {
                text
            });
        }
        match chosen.route.kind {
            RouteKind::Via => "via",
            RouteKind::Blackhole => "blackhole",
            RouteKind::Unreachable => "unreachable",
            RouteKind::Prohibit => "prohibit",
        }
        .into()
    }

    fn explain_neighbour(&self, address: std::net::IpAddr, own: &BridgeAddress) -> String {
        let Some(fid) = self.fid_of(&own.bridge, own.vid) else { return String::new() };
        let known = self.known_of(address, fid);
        let behind = self.explain_tunnel(address, own, fid);
        format!("{address} is a neighbour on bridge {}, VLAN {}; {known}{behind}", own.bridge, own.vid)
    }

    /// Where the station of a neighbour on a tunnel's bridge is.
    fn explain_tunnel(&self, address: std::net::IpAddr, own: &BridgeAddress, fid: u16) -> String {
        let Some(port) = self.model.tunnel_of(&own.bridge) else { return String::new() };
        let (table, key) = (&self.tables.neigh, key(fid, to_bits(address)));
        let (Found::Fresh(mac) | Found::Stale(mac)) = table.lookup(table.home(key), key, now().s()) else {
            return format!("; through tunnel {}", port.name);
        };
        let stations = self.model.static_macs.iter().filter(|entry| entry.port == port.name);
        let mut here = stations.filter(|entry| entry.mac.to_u64() == mac);
        match here.find_map(|entry| entry.dst) {
            Some(end) => format!("; through tunnel {} to {end}", port.name),
            None => {
                format!("; through tunnel {}, but nobody said behind which end its station is", port.name)
            }
        }
    }

    fn explain_way_out(&self, address: std::net::IpAddr, way: &WayOut) -> String {
        let known = self.known_of(address, way.fid);
        format!(
            "{address} is a neighbour of the node's kernel on {}, which port {} shares with it; {known}",
            way.device, way.port
        )
    }

    fn known_of(&self, address: std::net::IpAddr, fid: u16) -> String {
        let (table, key) = (&self.tables.neigh, key(fid, to_bits(address)));
        match table.lookup(table.home(key), key, now().s()) {
            Found::Fresh(mac) => format!("its MAC is {}", switch_api::Mac::from_u64(mac)),
            Found::Stale(mac) => {
                format!("its MAC was {}; it will be asked again", switch_api::Mac::from_u64(mac))
            }
            Found::Failed => "it does not answer".into(),
            Found::Unknown => "its MAC is not known; the first packet asks for it".into(),
        }
    }
}
