//! Neighbours: declared ones are written into the table, learned ones listed and forgotten.

use super::daemon::Daemon;
use crate::config::gateway::{from_bits, to_bits};
use crate::config::model::no_such;
use crate::config::uplink::KERNEL_IP;
use crate::table::neigh::{self, Entry, State};
use crate::table::wide::Key;
use crate::worker::thread::now;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use switch_api::{ApiError, Code, Mac, Name, NeighEntry, NeighFilter, NeighState, Request, Vid};

/// Attempts to write a declared neighbour that a worker is in the way of; each is over in nanoseconds.
const PIN_ATTEMPTS: usize = 1000;

/// What is not to be forgotten of neighbours.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Near {
    /// Bridges and VLANs where the switch is a station.
    fids: BTreeSet<u16>,
    /// Neighbours that are declared, or the node's kernel.
    declared: BTreeSet<(u16, u128)>,
}

impl Daemon {
    pub(super) fn change_neighbour(&mut self, request: &Request) -> Result<Value, ApiError> {
        let before = self.model.neighbours.len();
        let checked = self.check(request)?;
        let value = self.adopt(checked)?;
        if let Request::NeighDelete(by) = request {
            let fid = self.fid_of(&by.bridge, by.vid).ok_or_else(|| no_such("bridge", &by.bridge))?;
            let table = &self.tables.neigh;
            let ip = to_bits(by.address);
            let gone = table.sweep(0..table.lines(), |of, address, _| (of, address) == (fid, ip));
            if gone == 0 && before == self.model.neighbours.len() {
                return Err(ApiError::new(
                    Code::NotFound,
                    format!("{} is no neighbour of bridge {}", by.address, by.bridge),
                )
                .field("address")
                .hint("`switch-ctl neigh list` shows those there are"));
            }
        }
        self.pin_neighbours();
        Ok(value)
    }

    /// Writes the declared neighbours into the table, over whatever was learned.
    pub(super) fn pin_neighbours(&self) {
        for neighbour in &self.model.neighbours {
            let Some(fid) = self.fid_of(&neighbour.bridge, neighbour.vid) else { continue };
            self.pin_neighbour(neigh::key(fid, to_bits(neighbour.address)), neighbour.mac);
        }
    }

    pub(super) fn pin_neighbour(&self, key: Key, mac: Mac) {
        if !(0..PIN_ATTEMPTS).any(|_| self.tables.neigh.pin(key, mac.to_u64())) {
            tracing::error!(%mac, "the neighbour table has no room for it; see `switchd --neighbours`");
        }
    }

    /// Forgets those of bridges where the switch is no station any more: the identifiers are given out again. The table is looked
    /// through only if it may hold one: when there are others than at the last look that are not to be forgotten.
    pub(super) fn forget_neighbours(&mut self) {
        let near = self.near();
        if near == self.near {
            return;
        }
        let table = &self.tables.neigh;
        let is_gone = |fid, ip, entry: Entry| {
            !near.fids.contains(&fid) || entry.state == State::Static && !near.declared.contains(&(fid, ip))
        };
        // What a worker was writing is passed over, once.
        while table.sweep(0..table.lines(), is_gone) > 0 {}
        self.near = near;
    }

    fn near(&self) -> Near {
        let own = self.model.addresses.iter().filter_map(|a| self.fid_of(&a.bridge, a.vid));
        let uplinks = self.model.vrf_names().into_iter().flat_map(|vrf| self.model.ways_out(vrf));
        let fids = own.chain(uplinks.map(|way| way.fid)).collect();
        let declared = self.model.neighbours.iter();
        let declared = declared.filter_map(|n| Some((self.fid_of(&n.bridge, n.vid)?, to_bits(n.address))));
        let kernels = self.model.vrf_names().into_iter().filter_map(|vrf| self.model.to_kernel(vrf).ok());
        let declared = declared.chain(kernels.map(|kernel| (kernel.fid, KERNEL_IP))).collect();
        Near { fids, declared }
    }

    pub(super) fn fid_of(&self, bridge: &Name, vid: Vid) -> Option<u16> {
        let bridge = self.model.bridges.get(bridge)?.id;
        self.model.fids.get(&(bridge, vid)).copied()
    }

    /// Neighbours.
    pub(super) fn list_neighbours(&self, filter: &NeighFilter) -> Result<Vec<NeighEntry>, ApiError> {
        if let Some(name) = filter.bridge.as_ref().filter(|name| !self.model.bridges.contains_key(name)) {
            return Err(no_such("bridge", name));
        }
        let names: BTreeMap<u16, &Name> =
            self.model.bridges.iter().map(|(name, bridge)| (bridge.id, name)).collect();
        let places: BTreeMap<u16, _> = self.model.fids.iter().map(|(pair, fid)| (*fid, *pair)).collect();
        let declared: BTreeMap<_, _> =
            self.model.neighbours.iter().map(|it| ((&it.bridge, it.vid, it.address), it.owner)).collect();
        let (now_s, mut list) = (now().s(), Vec::new());
        self.tables.neigh.for_each(|fid, ip, entry| {
            let Some((bridge, vid)) = places.get(&fid) else { return };
            let Some(name) = names.get(bridge).filter(|_| ip != KERNEL_IP) else { return };
            if filter.bridge.as_ref().is_some_and(|wanted| wanted != *name) || entry.is_old(now_s) {
                return;
            }
            let address = from_bits(ip);
            let (mac, state) = (Mac::from_u64(entry.mac), state_of(entry, now_s));
            let mac = (!mac.is_zero()).then_some(mac);
            let age_s = if entry.state == State::Static { 0 } else { entry.age_s(now_s) };
            let owner = declared.get(&(*name, *vid, address)).copied();
            list.push(NeighEntry { address, bridge: (*name).clone(), vid: *vid, mac, state, age_s, owner });
        });
        list.sort_by(|a, b| (&a.bridge, a.vid, a.address).cmp(&(&b.bridge, b.vid, b.address)));
        Ok(list)
    }
}

pub(super) fn state_of(entry: Entry, now_s: u32) -> NeighState {
    match entry.state {
        State::Asked => NeighState::Incomplete,
        State::Failed => NeighState::Failed,
        State::Static => NeighState::Static,
        State::Known if entry.is_fresh(now_s) => NeighState::Reachable,
        State::Known => NeighState::Stale,
    }
}
