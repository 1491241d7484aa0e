//! `learn`: the source of each frame is behind the port it came in by. First the table is asked for every
//! frame's source and, for `forward`, its destination, so that the cache misses overlap with each other and
//! with this stage's work; then one plain loop.

use super::note::Note;
use super::verdict::Verdict;
use super::{Moved, Private, View};
use crate::counter::{DropReason, Event};
use crate::frame::BATCH_FRAMES;
use crate::table::fdb::{self, Learned};

#[inline]
pub(super) fn run(view: &View, notes: &mut [Note], private: &mut Private) {
    let table = &view.tables.fdb;
    let mut homes = [0u32; BATCH_FRAMES];
    // Neighbours often come from one station and go to one.
    let (mut before, mut places) = ((0, 0), (0, 0));
    let mut sources = 0;
    for (note, home) in notes.iter_mut().zip(&mut homes) {
        let keys = (fdb::key(note.src(), note.fid), fdb::key(note.dst, note.fid));
        if keys != before {
            sources += u32::from(keys.0 != before.0);
            (before, places) = (keys, (table.home(keys.0), table.home(keys.1)));
            table.touch(places.0);
            table.touch(places.1);
        }
        (*home, note.dst_home) = places;
    }
    let (limit, limits) = (view.facts.learn_limit, view.snapshot.limits);
    let mut known = 0;
    for (note, home) in notes.iter_mut().zip(&homes) {
        if !note.is_undecided() {
            continue;
        }
        let key = fdb::key(note.src(), note.fid);
        if key == known {
            // Where all come from one, it is known of all of them.
            if sources == 1 {
                break;
            }
            continue;
        }
        match table.learn(*home, key, view.in_port, view.now_s, limit, limits) {
            Learned::Known => known = key,
            learned => note_news(view, private, note, learned),
        }
    }
}

#[cold]
fn note_news(view: &View, private: &mut Private, note: &mut Note, learned: Learned) {
    let event = match learned {
        Learned::Known | Learned::Refreshed => return,
        Learned::Pinned => return note.verdict = Verdict::Drop(DropReason::SourcePinned),
        Learned::New => Event::MacLearned,
        Learned::Moved { from } => {
            let moved = Moved { mac: note.src(), fid: note.fid, from, to: view.in_port };
            _ = private.moves.try_push(moved);
            Event::MacMoved
        }
        Learned::PortLimit => Event::LearnPortLimit,
        Learned::Full => Event::LearnTableFull,
        Learned::Busy => Event::LearnBusy,
    };
    private.counters.event(event).add(1);
    // A station that hops from port to port, or would if there were room to learn it, is how a loop looks.
    if !matches!(event, Event::MacLearned) {
        private.loop_watch.suspect(view.in_port, note.fid, view.now);
    }
}
