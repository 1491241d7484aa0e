//! Routes listed, and a choice explained. The explanation looks at every declared object, one after the
//! other, and not at what the workers look up: that says the same and gives no reasons.

use super::daemon::Daemon;
use crate::config::gateway::{EVERYWHERE, to_bits};
use crate::config::mirrored::{Kind, Meaning, protocol_name, shown};
use crate::table::neigh::{Found, key};
use crate::worker::thread::now;
use hashbrown::HashSet;
use switch_api::{
    ApiError, BridgeAddress, Code, Name, Origin, Owner, Route, RouteChoice, RouteFilter, RouteGet, RouteKind,
    RouteStatus,
};

impl Daemon {
    /// Routes: gateways' networks first, then what was declared.
    pub(super) fn list_routes(&self, filter: &RouteFilter) -> Result<Vec<RouteStatus>, ApiError> {
        if let Some(vrf) = &filter.vrf {
            self.vrf_of(vrf)?;
        }
        let mut list: Vec<RouteStatus> =
            self.model.addresses.iter().filter_map(|own| self.connected(own)).collect();
        list.extend(self.uplinks());
        let mirrored = self.mirrored(&list);
        list.extend(mirrored);
        let active = self.model.active_routes();
        let declared = self.model.routes.iter().map(|route| {
            let same = |own: &&RouteStatus| (&own.route.vrf, own.route.prefix) == (&route.vrf, route.prefix);
            let hidden = list.iter().find(same).is_some_and(|own| own.connected.is_some());
            let used =
                active.get(&(&route.vrf, route.prefix)).is_some_and(|best| best.metric == route.metric);
            RouteStatus { route: route.clone(), connected: None, origin: None, active: used && !hidden }
        });
        let declared: Vec<_> = declared.collect();
        list.extend(declared);
        list.retain(|status| filter.vrf.as_ref().is_none_or(|vrf| *vrf == status.route.vrf));
        list.sort_by(|a, b| {
            (&a.route.vrf, a.route.prefix, a.route.metric).cmp(&(
                &b.route.vrf,
                b.route.prefix,
                b.route.metric,
            ))
        });
        Ok(list)
    }

    /// A gateway's network, as if it had been declared.
    fn connected(&self, own: &BridgeAddress) -> Option<RouteStatus> {
        let vrf = self.model.bridges.get(&own.bridge)?.object.vrf.clone();
        let prefix = own.address.network();
        let route = Route { prefix, vrf, metric: 0, kind: RouteKind::Via, via: Vec::new(), owner: own.owner };
        Some(RouteStatus { route, connected: Some(own.bridge.clone()), origin: None, active: true })
    }

    /// The default routes of tables that lead to the kernel.
    fn uplinks(&self) -> Vec<RouteStatus> {
        let mut list = Vec::new();
        for vrf in self.model.vrf_names() {
            let Ok(_) = self.model.to_kernel(vrf) else { continue };
            let (settings, mirrored) = (self.model.vrf(vrf), &self.model.mirrored);
            if settings.mirror && !mirrored.is_empty() && mirrored.beyond == 0 {
                continue;
            }
            for prefix in EVERYWHERE {
                let declared = self.model.routes.iter().any(|r| (&r.vrf, r.prefix) == (vrf, prefix));
                let origin = Origin { protocol: "uplink".into(), way: "as its own routes say".into() };
                let (kind, via) = (RouteKind::Via, Vec::new());
                let route =
                    Route { prefix, vrf: vrf.clone(), metric: u32::MAX, kind, via, owner: Owner::Operator };
                list.push(RouteStatus { route, connected: None, origin: Some(origin), active: !declared });
            }
        }
        list
    }

    /// Routes of the kernel, as far as they mean something here.
    fn mirrored(&self, connected: &[RouteStatus]) -> Vec<RouteStatus> {
        let mut list = Vec::new();
        for vrf in self.model.vrf_names() {
            let Ok(kernel) = self.model.to_kernel(vrf) else { continue };
            let (settings, mut seen) = (self.model.vrf(vrf), HashSet::new());
            let hidden = |prefix| {
                self.model.routes.iter().any(|r| (&r.vrf, r.prefix) == (vrf, prefix))
                    || connected.iter().any(|own| (&own.route.vrf, own.route.prefix) == (vrf, prefix))
            };
            for seen_route in self.model.mirrored.of(settings.kernel_table).filter(|_| settings.mirror) {
                let (kind, via) = match self.model.meaning(vrf, &kernel, seen_route) {
                    Meaning::Kernel => (RouteKind::Via, Vec::new()),
                    Meaning::Direct(via) => (RouteKind::Via, via),
                    Meaning::Refuse(Kind::Blackhole) => (RouteKind::Blackhole, Vec::new()),
                    Meaning::Refuse(Kind::Prohibit) => (RouteKind::Prohibit, Vec::new()),
                    Meaning::Refuse(_) => (RouteKind::Unreachable, Vec::new()),
                    Meaning::Circle | Meaning::Known => continue,
                };
                let (prefix, metric) = (seen_route.prefix, seen_route.metric);
                let active = seen.insert(prefix) && !hidden(prefix);
                let (protocol, way) = (protocol_name(seen_route.protocol), shown(seen_route));
                let route = Route { prefix, vrf: vrf.clone(), metric, kind, via, owner: Owner::Routes };
                let origin = Some(Origin { protocol, way });
                list.push(RouteStatus { route, connected: None, origin, active });
            }
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
        let mut fits = self.list_routes(&RouteFilter { vrf: Some(get.vrf.clone()) })?;
        fits.retain(|status| status.route.prefix.contains(address));
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
        for hop in &chosen.route.via {
            let text = match self.model.gateway_to(&get.vrf, hop) {
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
        let (table, key) = (&self.tables.neigh, key(fid, to_bits(address)));
        let known = match table.lookup(table.home(key), key, now().s()) {
            Found::Fresh(mac) => format!("its MAC is {}", switch_api::Mac::from_u64(mac)),
            Found::Stale(mac) => {
                format!("its MAC was {}; it will be asked again", switch_api::Mac::from_u64(mac))
            }
            Found::Failed => "it does not answer".into(),
            Found::Unknown => "its MAC is not known; the first packet asks for it".into(),
        };
        format!("{address} is a neighbour on bridge {}, VLAN {}; {known}", own.bridge, own.vid)
    }
}
