//! `forward`: where each frame goes. Looks up and changes nothing but the verdict.

use super::note::Note;
use super::verdict::{Class, Verdict};
use super::{Private, View};
use crate::config::snapshot::PortId;
use crate::counter::DropReason;
use crate::frame::BATCH_FRAMES;
use crate::table::fdb;
use crate::wire::ethernet::{BROADCAST, GROUP_BIT, is_link_local_group};

#[inline]
pub(super) fn run(view: &View, notes: &mut [Note], private: &mut Private) {
    let table = &view.tables.fdb;
    let mut homes = [0u32; BATCH_FRAMES];
    for (note, home) in notes.iter().zip(&mut homes) {
        *home = table.home(fdb::key(note.dst, note.fid));
        table.touch(*home);
    }
    for (note, home) in notes.iter_mut().zip(homes) {
        if !note.is_undecided() {
            continue;
        }
        note.verdict = if note.dst & GROUP_BIT != 0 {
            group(view, note, private)
        } else {
            let ageing_s = view.snapshot.fids.get(usize::from(note.fid)).map_or(0, |fid| fid.ageing_s);
            match table.lookup(home, fdb::key(note.dst, note.fid), view.now_s, ageing_s) {
                Some(port) => unicast(view, port),
                None => flood(view, private, Class::UnknownUnicast),
            }
        };
    }
}

#[inline(always)]
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
        flood(view, private, Class::Broadcast)
    } else {
        flood(view, private, Class::Multicast)
    }
}

fn flood(view: &View, private: &mut Private, class: Class) -> Verdict {
    match view.facts.storm_pps {
        Some(pps) if !private.storms.admit(view.in_port, pps, view.now) => {
            Verdict::Drop(DropReason::StormLimit)
        }
        _ => Verdict::Flood(class),
    }
}
