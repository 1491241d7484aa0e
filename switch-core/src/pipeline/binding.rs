//! What stages share about translation: what `track` (of a flow that goes on as it did) or `translate` found out of each frame of a batch, for
//! whoever routes it to where it really goes (`route`), makes its flow (`translate` again) and writes its new addresses (`rewrite`).

use super::flow::{Flowing, Track, Tracked};
use super::{Private, View};
use crate::nat::Target;
use crate::table::flow::Flows;
use crate::table::flow::key::{End, Key};
use crate::table::flow::record::Record;
use crate::wire::hop::V4_MAPPED;
use crate::wire::ip::TCP;
use crate::wire::packet::Plain;

/// What becomes of a frame's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// They stay.
    #[default]
    Stays,
    /// It begins a flow, which goes to another destination.
    Begins {
        /// Where it goes.
        to: End,
        /// By which rule.
        target: Target,
    },
    /// Its flow is bound.
    Bound {
        /// Its new source.
        from: End,
        /// Where it goes.
        to: End,
    },
    /// The same of a packet that was read at a glance: all of it.
    Plain(Plain),
}

impl Turn {
    /// Where it really goes, if that is not what it says.
    #[inline]
    pub fn real(&self) -> Option<End> {
        match self {
            Self::Stays => None,
            Self::Begins { to, .. } | Self::Bound { to, .. } => Some(*to),
            Self::Plain(plain) => Some(to_of(plain)),
        }
    }

    /// Its new source, and where it goes, if its flow is bound.
    pub fn becomes(&self) -> Option<[End; 2]> {
        match self {
            Self::Stays | Self::Begins { .. } => None,
            Self::Bound { from, to } => Some([*from, *to]),
            Self::Plain(plain) => {
                let from = End { ip: V4_MAPPED | u128::from(plain.src), port: plain.ports[0] };
                Some([from, to_of(plain)])
            }
        }
    }
}

fn to_of(plain: &Plain) -> End {
    End { ip: V4_MAPPED | u128::from(plain.dst), port: plain.ports[1] }
}

/// Whether a packet was read at a glance, and is one more of a flow that goes on as it did, that of the entry that was found. Then it is counted
/// to it, and what it is stands in its track, and what becomes of it in its turn. False: nothing was done, and whoever looks with care
/// is to be asked.
#[inline(always)]
pub(super) fn goes_on(flows: &Flows, record: Record, track: &mut Track, turn: &mut Turn, now_s: u32) -> bool {
    // A batch's TCP may end its flow or begin it anew, and who goes with care is asked about when all of the batch were found: until both ways say
    // the same of that, TCP has one way.
    if track.is_whole || track.key.protocol() == TCP {
        return false;
    }
    let Some(going) = flows.going(record, &track.key, track.side) else { return false };
    if !track.streams(going.flow, going.side, now_s) {
        return false;
    }
    track.tracked = Tracked::Known(going.flow.place());
    (track.by_reply, track.is_turned) = (going.by_reply, track.side != going.side);
    track.side = going.side;
    *turn = going.becomes.map_or(Turn::Stays, Turn::Plain);
    true
}

/// The packet at `index` is written out ([`Track::write_out`]) as whoever judges it wants it: from where it says to where it really goes, and
/// with its flow's key.
pub(super) fn write_out(view: &View, flows: &mut Flowing, index: usize) {
    let track = &mut flows.tracks[index];
    let was_whole = track.is_whole;
    track.write_out();
    if let Turn::Plain(becomes) = &flows.turns[index]
        && view.facts.translated
        && !was_whole
    {
        let to = to_of(becomes);
        (track.packet.dst, track.packet.ports[1]) = (to.ip, to.port);
        if track.by_reply {
            // What an answer becomes has it.
            track.key = Key::of_plain(becomes, track.zone).0;
        }
    }
}

/// The address that the frame at `index` really goes to, if it is translated.
#[inline]
pub(super) fn real(view: &View, private: &Private, index: usize) -> Option<u128> {
    if !view.facts.translated {
        return None;
    }
    private.flows.turns[index].real().map(|to| to.ip)
}
