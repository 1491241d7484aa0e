//! Stations: static ones are written into the table, and what was learned of ports and identifiers that are gone is forgotten.

use super::daemon::{Daemon, json};
use crate::config::model::no_such;
use crate::config::snapshot::PortId;
use crate::config::uplink::KERNEL_IP;
use crate::config::{Model, PORTS_MAX};
use crate::table::{fdb, neigh};
use hashbrown::HashSet;
use serde_json::Value;
use std::collections::BTreeMap;
use switch_api::{ApiError, Code, FdbFilter, Request, StaticMac};

/// Stations behind ends of tunnels, and which.
fn ends(model: &Model) -> impl Iterator<Item = &StaticMac> {
    model.static_macs.iter().filter(|entry| entry.dst.is_some())
}

impl Daemon {
    /// Forgets the stations of ports that are gone. What an identifier had that goes with them goes so as well.
    pub(super) fn forget_ports(&self, before: &Model) {
        let mut stays = [false; PORTS_MAX];
        self.model.ports.values().for_each(|port| stays[usize::from(port.id)] = true);
        let gone = before.ports.values().filter(|port| !stays[usize::from(port.id)]);
        gone.for_each(|port| self.tables.fdb.forget(port.id, true));
    }

    /// Forgets what was learned under identifiers whose bridge or VLAN is gone, and ends flows of theirs and of routing tables that are: these
    /// numbers are given out again.
    pub(super) fn forget_numbers(&self, before: &Model) {
        let mut gone = no_more(&before.fids, &self.model.fids);
        let zones: HashSet<u16> =
            gone.iter().copied().chain(no_more(&before.vrf_zones, &self.model.vrf_zones)).collect();
        if !zones.is_empty() && self.tables.flows.counted().all > 0 {
            self.end_flows(|entry| zones.contains(&entry.key.zone()));
        }
        gone.retain(|fid| self.tables.fdb.may_have(*fid));
        if gone.is_empty() {
            return;
        }
        self.sweep(|_, fid, _| gone.contains(&fid));
        // Where all are in use one has another already, and what is declared under it went with the rest.
        if self.model.fids.values().any(|fid| gone.contains(fid)) {
            self.pin_kernel();
            self.pin_statics();
        }
    }

    /// Sweeps until nothing is left: a bucket a worker was writing is passed over once.
    pub(super) fn sweep(&self, mut gone: impl FnMut(u64, u16, fdb::Entry) -> bool) {
        let table = &self.tables.fdb;
        while table.sweep(0..table.buckets(), &mut gone) > 0 {}
    }

    /// Static stations are in the table that all workers share, and in no snapshot: what is declared is kept, and then written there.
    pub(super) fn change_fdb(&mut self, request: &Request) -> Result<Value, ApiError> {
        let had = self.model.static_macs.len();
        let checked = self.check(request)?;
        // Ends of tunnels are in the snapshot: packets come from them alone.
        if ends(&self.model).eq(ends(checked.model())) {
            self.keep(&checked)?;
            self.model = checked.into_model();
        } else {
            self.adopt(checked)?;
        }
        if let Request::FdbDelete(by) = request {
            let bridge = self.model.bridges.get(&by.bridge).ok_or_else(|| no_such("bridge", &by.bridge))?.id;
            let fid = self.model.fids.get(&(bridge, by.vid)).copied().unwrap_or(0);
            let learned = self.tables.fdb.remove(fdb::key(by.mac.to_u64(), fid));
            if !learned && had == self.model.static_macs.len() {
                return Err(ApiError::new(Code::NotFound, format!("{} is not in the table", by.mac))
                    .field("mac")
                    .hint("`switch-ctl fdb list` shows what is"));
            }
        }
        if let Request::FdbAdd(entry) = request {
            self.pin_static(entry);
        }
        json(self.done())
    }

    /// Writes the node's kernel into the tables, where a routing table leads to it: before the snapshot that
    /// says so is in force.
    pub(super) fn pin_kernel(&self) {
        for kernel in self.model.vrf_names().into_iter().filter_map(|vrf| self.model.to_kernel(vrf).ok()) {
            self.pin_neighbour(neigh::key(kernel.fid, KERNEL_IP), kernel.mac);
            self.pin_station(fdb::key(kernel.mac.to_u64(), kernel.fid), kernel.id);
        }
    }

    fn pin_station(&self, key: u64, port: PortId) {
        while self.tables.fdb.pin(key, port) == crate::table::atomic::Outcome::Busy {
            std::thread::yield_now();
        }
    }

    /// Writes the static MACs into the table, over whatever was learned.
    pub(super) fn pin_statics(&self) {
        self.model.static_macs.iter().for_each(|entry| self.pin_static(entry));
    }

    fn pin_static(&self, entry: &StaticMac) {
        let port = self.model.ports.get(&entry.port).map(|port| port.id);
        if let (Some(fid), Some(port)) = (self.fid_of(&entry.bridge, entry.vid), port) {
            self.pin_station(fdb::key(entry.mac.to_u64(), fid), port);
        }
    }

    pub(super) fn flush(&self, filter: &FdbFilter) -> Result<(), ApiError> {
        let wanted = self.fdb_wanted(filter)?;
        self.sweep(|mac, fid, entry| !entry.is_static && wanted(mac, fid, entry));
        Ok(())
    }
}

/// Numbers that whoever had them has no more.
fn no_more<K: Ord>(before: &BTreeMap<K, u16>, now: &BTreeMap<K, u16>) -> HashSet<u16> {
    before.iter().filter(|(key, number)| now.get(*key) != Some(*number)).map(|(_, number)| *number).collect()
}
