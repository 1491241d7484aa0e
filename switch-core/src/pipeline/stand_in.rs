//! Who is answered for: questions of ARP and neighbour discovery that the switch answers in somebody's place, so that they
//! are not flooded. Its own addresses always; where asked for, what stations it knows (suppression: RFC 9161, Linux's
//! `neigh_suppress`), and what it has a route to elsewhere (proxy: RFC 1027, RFC 4389).

use super::{Private, View, hear, reach};
use crate::config::gateway::{Action, Gateway};
use crate::table::fdb;
use crate::table::neigh::{self, Found};
use crate::wire::hop::V4_MAPPED;

#[cfg(test)]
mod tests;

/// The station that an answer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StandIn {
    /// Its MAC, low 48 bits.
    pub mac: u64,
    /// It is a router: the switch itself.
    pub router: bool,
}

/// Who has `target`, as far as the switch answers for it to `asker` on this bridge and VLAN. `asker` is 0 if it has no address
/// yet and only wants to know whether somebody else has it: that is for the owner to say.
pub(super) fn find(
    view: &View,
    fid: u16,
    gateway: &Gateway,
    target: u128,
    asker: u128,
    private: &mut Private,
) -> Option<StandIn> {
    let own = Some(StandIn { mac: gateway.mac, router: true });
    if gateway.answers_for(target) {
        return own;
    }
    if asker == 0 || asker == V4_MAPPED {
        return None;
    }
    if gateway.suppress
        && let Some(mac) = station(view, fid, target, private)
    {
        return Some(StandIn { mac, router: false });
    }
    (gateway.proxy && leads_elsewhere(view, fid, gateway, target)).then_some(own).flatten()
}

/// The station that has an address, if that is certain and it would hear the question.
fn station(view: &View, fid: u16, target: u128, private: &mut Private) -> Option<u64> {
    let table = &view.tables.neigh;
    let key = neigh::key(fid, target);
    let mac = match table.lookup(table.home(key), key, view.now_s) {
        Found::Fresh(mac) => mac,
        Found::Stale(_) => {
            hear::probe(view, key, private);
            return None;
        }
        Found::Failed | Found::Unknown => return None,
    };
    let (table, key) = (&view.tables.fdb, fdb::key(mac, fid));
    let port = table.lookup(table.home(key), key, view.now_s, reach::ageing_s(view, fid))?;
    let to = view.snapshot.port(port).filter(|to| to.open)?;
    // Behind one port they hear each other; the isolated are not told of each other.
    (port != view.in_port && !(to.isolated && view.facts.isolated)).then_some(mac)
}

/// Whether the switch would route to `target`, and not back to where the question came from.
fn leads_elsewhere(view: &View, fid: u16, gateway: &Gateway, target: u128) -> bool {
    match view.snapshot.routing.find(gateway.vrf, target).map(|entry| entry.action) {
        Some(Action::Link(out)) => out != fid,
        Some(Action::Kernel(_)) => true,
        Some(Action::Via(group)) => {
            let group = view.snapshot.routing.group(group);
            group.is_some_and(|group| group.hops().iter().all(|hop| hop.fid != fid))
        }
        Some(
            Action::Local | Action::Broadcast | Action::Blackhole | Action::Unreachable | Action::Prohibit,
        )
        | None => false,
    }
}
