//! [`super::track`] where most packets are known by their very words ([`super::super::exact`]): one loop reads the words and asks for
//! their lines, one finds what is kept of them, compares and counts. What is not known is asked of the table when its turn comes, since what was
//! before it in the batch may be of its flow; where it is not alone, the lines of the others are asked for together ([`FEW`]).

use super::super::exact::{self, Exact};
use super::super::flow::{Flowing, Marks, Track, Tracked};
use super::super::note::Note;
use super::super::{Private, View};
use super::{Choice, Zone, find, glance, look};
use crate::frame::{Area, BATCH_FRAMES, Frame};
use crate::table::atomic::Home;
use crate::table::flow::Flows;
use crate::table::flow::record::Record;
use crate::wire::ethernet::IPV4;
use crate::wire::ip::TCP;
use crate::wire::packet::{Content, Plain, Tcp};

/// The first of a batch that are not known wait for their lines one by one. From this one on, lines are asked for ahead.
const FEW: usize = 4;

/// What is asked of the cache about a batch.
struct Asked {
    /// Frames that are looked at.
    chosen: Marks,
    /// Those of them that have words.
    plain: usize,
    /// Where what is kept of their words would be.
    sets: [u16; BATCH_FRAMES],
}

#[inline(always)]
pub(super) fn track<C: Choice>(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    private: &mut Private,
    mut choice: C,
) {
    let flows = &view.tables.flows;
    let Flowing { tracks, keeper, exact, .. } = &mut private.flows;
    let tracks: &mut [Track; BATCH_FRAMES] = tracks;
    let Asked { chosen, plain, sets } = ask(view, area, frames, notes, tracks, exact, &mut choice);
    let (mut asks, mut begins) = (choice.asks(notes.len()), Marks::default());
    let (mut known, mut unknown) = (0, Unknown::default());
    for index in chosen {
        let record = match recall(flows, exact, sets[index], &mut tracks[index], view.now_s) {
            Some(record) => {
                known += 1;
                record
            }
            None => {
                unknown.count += 1;
                if unknown.count == FEW {
                    let others = not_kept(chosen.from(index), exact, &sets, tracks);
                    unknown.foresee(view, area, frames, notes, tracks, others);
                }
                let (note, track) = (&mut notes[index], &mut tracks[index]);
                let bytes = area.bytes(&frames[index]);
                let named = unknown.look_up(view, bytes, note, track, index);
                let goes_on = |record: &Record| {
                    record.holds(&track.key) && track.streams(*record, track.side, view.now_s)
                };
                let Some(record) = named.filter(goes_on) else {
                    find(view, note, track, named, keeper);
                    begins.set(index, matches!(track.tracked, Tracked::Missing | Tracked::Stray(_)));
                    asks.set(index, true);
                    continue;
                };
                known += usize::from(remember(exact, bytes, note, track, record));
                record
            }
        };
        let track = &mut tracks[index];
        track.tracked = Tracked::Known(record.place());
        if !choice.settles(&notes[index], track, record.decision()) {
            asks.set(index, true);
        }
    }
    exact.note_batch(known, plain);
    (private.flows.asks, private.flows.begins, private.flows.turned) = (asks, begins, Marks::default());
    private.flows.agreed = choice.agreed(notes.len());
}

/// Reads the words of the frames that are looked at.
#[inline(always)]
fn ask<C: Choice>(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &[Note],
    tracks: &mut [Track; BATCH_FRAMES],
    exact: &Exact,
    choice: &mut C,
) -> Asked {
    let mut asked = Asked { chosen: Marks::default(), plain: 0, sets: [0; BATCH_FRAMES] };
    let mut here = Zone::of(view, 0);
    for (index, ((frame, note), track)) in frames.iter().zip(notes).zip(tracks.iter_mut()).enumerate() {
        track.tracked = Tracked::Not;
        if choice.takes(note) {
            if here.fid != note.fid {
                here = Zone::of(view, note.fid);
            }
            (track.zone, track.is_keyed) = (here.zone, true);
            let content = &mut track.packet.content;
            if let Some(words) = words(area.bytes(frame), note, |tcp| *content = Content::Tcp(tcp)) {
                let words = exact::words(words, here.zone);
                track.set_words(words);
                asked.sets[index % BATCH_FRAMES] = exact.touch(words);
                asked.plain += 1;
            }
            asked.chosen.set(index, true);
        }
    }
    asked
}

/// The words of what nearly all packets are; none: it is another.
#[inline(always)]
fn words(bytes: &[u8], note: &Note, keep: impl FnOnce(Tcp)) -> Option<[u64; 2]> {
    if note.ethertype() != IPV4 {
        return None;
    }
    Plain::read_words(bytes.get(note.payload_at()..)?, keep)
}

/// The entry of a packet's flow, if that is known by its words and goes on as it did; then the packet is counted to it. None: nothing was done.
#[inline(always)]
fn recall<'a>(
    flows: &'a Flows,
    exact: &Exact,
    set: u16,
    track: &mut Track,
    now_s: u32,
) -> Option<Record<'a>> {
    if track.is_keyed {
        return None;
    }
    let entry = exact.find(set, track.words())?;
    let record = flows.at(entry.place)?;
    let is_its = record.is_still(entry.sequence) && track.streams(record, entry.side, now_s);
    track.side = entry.side;
    is_its.then_some(record)
}

/// Those of which nothing is kept.
fn not_kept(
    these: Marks,
    exact: &Exact,
    sets: &[u16; BATCH_FRAMES],
    tracks: &[Track; BATCH_FRAMES],
) -> Marks {
    let mut left = Marks::default();
    for index in these {
        let track = &tracks[index];
        left.set(index, track.is_keyed || exact.find(sets[index], track.words()).is_none());
    }
    left
}

/// Packets of a batch that are not known by their words, for whom the table is asked.
#[derive(Default)]
struct Unknown<'a> {
    count: usize,
    /// Those that were read ahead, and where the index keeps their flows.
    read: Marks,
    homes: Option<[Option<Home<'a>>; BATCH_FRAMES]>,
}

impl<'a> Unknown<'a> {
    /// Reads all of these, and asks for the lines of the index and of the entries that it names.
    #[inline(never)]
    fn foresee(
        &mut self,
        view: &View<'a>,
        area: &Area,
        frames: &[Frame],
        notes: &mut [Note],
        tracks: &mut [Track; BATCH_FRAMES],
        these: Marks,
    ) {
        self.read = these;
        let homes = self.homes.insert([None; BATCH_FRAMES]);
        for index in these {
            homes[index] = read(view, area.bytes(&frames[index]), &mut notes[index], &mut tracks[index]);
        }
        for (home, track) in homes.iter().zip(tracks) {
            if let Some(home) = home
                && let Some(record) = view.tables.flows.named(*home, track.hash)
                && track.key.protocol() == TCP
            {
                record.touch_tail();
            }
        }
    }

    /// The entry that the table names for the packet at `index`, which is read before, unless it was.
    #[inline(never)]
    fn look_up(
        &self,
        view: &View<'a>,
        bytes: &[u8],
        note: &mut Note,
        track: &mut Track,
        index: usize,
    ) -> Option<Record<'a>> {
        let home = match &self.homes {
            Some(homes) if self.read.has(index) => homes[index],
            _ => read(view, bytes, note, track),
        };
        view.tables.flows.named(home?, track.hash)
    }
}

/// Reads a packet, and asks for the line of its flow in the index, if it is to be looked for.
#[inline(always)]
fn read<'a>(view: &View<'a>, bytes: &[u8], note: &mut Note, track: &mut Track) -> Option<Home<'a>> {
    let is_sought = glance(view, bytes, note, track) || look(view, bytes, note, track);
    is_sought.then(|| view.tables.flows.touch(track.hash))
}

/// The next packet of these words is known by them. Whether there was room for that which nobody had.
#[inline(never)]
fn remember(exact: &mut Exact, bytes: &[u8], note: &Note, track: &Track, record: Record) -> bool {
    let (Some(words), Some(sequence)) = (words(bytes, note, |_| ()), record.holds_at(&track.key)) else {
        return false;
    };
    exact.keep(exact::words(words, track.zone), record.place(), sequence, track.side)
}
