//! Address sets: changed, and listed. A change of members is in force on every worker when it is answered.

use super::daemon::{Daemon, not_kept};
use crate::config::sets::{CheckedSets, compile_sets, no_such_set};
use switch_api::{
    ADDRESS_SET_PAGE_MAX, AddressSetDone, AddressSetMembers, AddressSetStatus, ApiError, Name, PortSetStatus,
    Prefix, Request,
};

impl Daemon {
    /// Checked, kept, published and seen by every worker, for what the change costs and not for what there is beside it.
    pub(super) fn change_sets(&mut self, request: &Request, name: &Name) -> Result<AddressSetDone, ApiError> {
        let CheckedSets { sets, difference, listed } = CheckedSets::after(&self.model, request)?;
        if let Some(listed) = &listed {
            self.doors.budget.allow_rules((self.model.policing.bytes + listed.bytes) as u64, 0)?;
        }
        if !difference.is_empty() {
            self.store.keep_sets(&sets, &difference).map_err(not_kept)?;
        }
        self.model.sets = sets;
        if let Some(listed) = listed {
            self.model.listed = listed;
            self.count_rules();
            let generation = self.publisher.generation() + 1;
            let snapshot = compile_sets(&self.model, self.publisher.current(), generation);
            self.publisher.publish(snapshot);
            self.await_seen(generation)?;
        }
        let added = difference.members.iter().filter(|change| change.is).count();
        Ok(AddressSetDone {
            generation: self.publisher.generation(),
            added,
            removed: difference.members.len() - added,
            members: self.model.sets.get(name).map_or(0, |set| set.len()),
        })
    }

    /// Port sets, and which lists name them.
    pub(super) fn list_port_sets(&self) -> Vec<PortSetStatus> {
        let users = |name| self.model.lists_with_ports(name).map(|acl| acl.name.clone()).collect();
        let sets = self.model.port_sets.iter();
        sets.map(|(name, set)| PortSetStatus { set: set.clone(), used_by: users(name) }).collect()
    }

    /// Sets, without their members.
    pub(super) fn list_sets(&self) -> Vec<AddressSetStatus> {
        let status = |(name, set): (&Name, &crate::acl::sets::Set)| {
            let [ipv4, ipv6] = set.by_version();
            AddressSetStatus {
                name: name.clone(),
                owner: set.owner,
                declared: set.declared,
                ipv4,
                ipv6,
                used_by: self.model.lists_naming(name).map(|acl| acl.name.clone()).collect(),
            }
        };
        self.model.sets.iter().map(status).collect()
    }

    /// A page of a set's members.
    pub(super) fn members_of(&self, asked: &AddressSetMembers) -> Result<Vec<Prefix>, ApiError> {
        let set = self.model.sets.get(&asked.name).ok_or_else(|| no_such_set(&asked.name))?;
        let limit = match asked.limit {
            0 => ADDRESS_SET_PAGE_MAX,
            limit => limit.min(ADDRESS_SET_PAGE_MAX),
        };
        Ok(set.members(asked.after).take(limit as usize).collect())
    }
}
