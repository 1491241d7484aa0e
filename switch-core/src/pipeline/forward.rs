//! `forward`: where each frame goes. Looks up, at the place that `learn` asked for, and changes nothing but
//! the verdict.

use super::note::Note;
use super::verdict::{Class, Verdict};
use super::{Private, View, reach};
use crate::config::snapshot::PortId;
use crate::counter::DropReason;
use crate::table::fdb;
use crate::wire::ethernet::{BROADCAST, GROUP_BIT, is_link_local_group};

#[inline(always)]
pub(super) fn run(view: &View, notes: &mut [Note], private: &mut Private) {
    let table = &view.tables.fdb;
    // Neighbours mostly are of one bridge and go one way: both are looked up when they change.
    let mut ageing = (0, reach::ageing_s(view, 0));
    let mut way = (view.in_port, unicast(view, view.in_port));
    // Often they go to one station.
    let mut last = (0, Verdict::Undecided);
    for note in notes.iter_mut() {
        if !note.is_undecided() {
            continue;
        }
        note.verdict = if note.dst & GROUP_BIT != 0 {
            group(view, note, private)
        } else {
            let key = fdb::key(note.dst, note.fid);
            if key == last.0 {
                note.verdict = last.1;
                continue;
            }
            if note.fid != ageing.0 {
                ageing = (note.fid, reach::ageing_s(view, note.fid));
            }
            match table.lookup(note.dst_home, key, view.now_s, ageing.1) {
                Some(port) => {
                    if port != way.0 {
                        way = (port, unicast(view, port));
                    }
                    last = (key, way.1);
                    way.1
                }
                None => reach::flood(view, note, private, Class::UnknownUnicast),
            }
        };
    }
}

fn unicast(view: &View, port: PortId) -> Verdict {
    let Some(to) = view.snapshot.port(port).filter(|to| to.open) else {
        return Verdict::Drop(DropReason::PortClosed);
    };
    if port == view.in_port && !to.hairpin {
        Verdict::Drop(DropReason::Hairpin)
    } else if to.isolated && view.facts.isolated {
        Verdict::Drop(DropReason::Isolated)
    } else {
        Verdict::Port(port)
    }
}

fn group(view: &View, note: &Note, private: &mut Private) -> Verdict {
    if is_link_local_group(note.dst) {
        Verdict::Drop(DropReason::LinkLocalGroup)
    } else if note.dst == BROADCAST {
        reach::flood(view, note, private, Class::Broadcast)
    } else {
        reach::flood(view, note, private, Class::Multicast)
    }
}
