//! By which port an address is reached that no port has: what `policy explain` asks the lists and the default verdict of.

use super::daemon::Daemon;
use crate::config::gateway::to_bits;
use crate::table::fdb;
use crate::table::neigh::{self, Found};
use crate::worker::thread::now;
use std::net::IpAddr;
use switch_api::{Name, RouteGet};

impl Daemon {
    /// The port by which an address is reached just now; none: its station, or that of the next router, is not known, or no route leads there.
    pub(super) fn port_towards(&self, vrf: &Name, ip: IpAddr) -> Option<u16> {
        let get = RouteGet { address: ip, vrf: vrf.clone() };
        let choice = self.explain_route(&get).ok()?;
        let route = choice.route?;
        if choice.what == "kernel" {
            let kernel = self.model.to_kernel(vrf).ok()?;
            return self.model.ports.get(&kernel.port).map(|port| port.id);
        }
        if let Some(bridge) = &route.connected {
            if let Some(way) = self.model.way_out_of(bridge) {
                return Some(way.id);
            }
            let mut here = self.model.addresses.iter().filter(|own| own.bridge == *bridge);
            let own = here.find(|own| own.address.contains(ip))?;
            return self.port_of_neighbour(self.fid_of(&own.bridge, own.vid)?, ip);
        }
        // Of several ways the first: which one a flow takes is its hash's matter.
        let hop = route.route.via.first()?;
        if let Some(way) = hop.bridge.as_ref().and_then(|bridge| self.model.way_out_of(bridge)) {
            return Some(way.id);
        }
        let own = self.model.gateway_to(vrf, hop)?;
        self.port_of_neighbour(self.fid_of(&own.bridge, own.vid)?, hop.address)
    }

    fn port_of_neighbour(&self, fid: u16, ip: IpAddr) -> Option<u16> {
        let (table, key, now_s) = (&self.tables.neigh, neigh::key(fid, to_bits(ip)), now().s());
        let (Found::Fresh(mac) | Found::Stale(mac)) = table.lookup(table.home(key), key, now_s) else {
            return None;
        };
        let (table, key) = (&self.tables.fdb, fdb::key(mac, fid));
        table.lookup(table.home(key), key, now_s, u32::MAX)
    }
}
