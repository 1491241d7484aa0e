//! Behind which port a station is: what the stages that decide have in common.

use super::note::Note;
use super::verdict::{Class, Verdict};
use super::{Private, View};
use crate::config::snapshot::PortId;
use crate::counter::DropReason;
use crate::table::fdb;

/// Seconds after which a station of `fid` is forgotten.
#[inline]
pub(super) fn ageing_s(view: &View, fid: u16) -> u32 {
    view.snapshot.fids.get(usize::from(fid)).map_or(0, |fid| fid.ageing_s)
}

/// The port of a station, whose place in the FDB is `home`, if that is known.
#[inline]
pub(super) fn port_of(view: &View, fid: u16, mac: u64, home: u32) -> Option<PortId> {
    let facts = view.snapshot.fids.get(usize::from(fid))?;
    match facts.sole {
        None => view.tables.fdb.lookup(home, fdb::key(mac, fid), view.now_s, facts.ageing_s),
        sole => sole,
    }
}

/// The last second in which [`port_of`] will say the same as now, if the FDB's epoch stays.
pub(super) fn until_s(view: &View, fid: u16, mac: u64, home: u32) -> u32 {
    match view.snapshot.fids.get(usize::from(fid)) {
        Some(facts) if facts.sole.is_none() => {
            view.tables.fdb.until_s(home, fdb::key(mac, fid), view.now_s, facts.ageing_s)
        }
        _ => u32::MAX,
    }
}

/// To everybody, if the port's storm limit admits it.
#[inline]
pub(super) fn flood(view: &View, note: &Note, private: &mut Private, class: Class) -> Verdict {
    private.loop_watch.flooded(view.in_port, note.fid, view.now);
    match view.facts.storm_pps {
        Some(pps) if !private.storms.admit(view.in_port, pps, note.segments, view.now) => {
            Verdict::Drop(DropReason::StormLimit)
        }
        _ => Verdict::Flood(class),
    }
}

/// For what the switch says itself: to the station `mac`, or to everybody if nobody knows where it is.
pub(super) fn station(view: &View, fid: u16, mac: u64) -> Verdict {
    match port_of(view, fid, mac, view.tables.fdb.home(fdb::key(mac, fid))) {
        Some(port) if view.snapshot.port(port).is_some_and(|to| to.open) => Verdict::Port(port),
        Some(_) => Verdict::Drop(DropReason::PortClosed),
        None => Verdict::Flood(Class::UnknownUnicast),
    }
}
