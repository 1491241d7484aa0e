//! What stages share about translation: what `track` (of a known flow) or `translate` (of a new one) found out of each frame of a batch, for
//! whoever routes it to where it really goes (`route`), makes its flow (`translate` again) and writes its new addresses (`rewrite`).

use super::flow::{Flowing, Track, Tracked};
use super::{Private, View};
use crate::counter::DropReason;
use crate::nat::Target;
use crate::table::flow::Flows;
use crate::table::flow::key::{End, Key};
use crate::table::flow::record::Record;
use crate::wire::hop::V4_MAPPED;
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
    if track.is_whole {
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

/// What becomes of a packet that was looked at with care, and what it really goes to, as soon as it is known whose it is: another one behind it in
/// the batch may end that flow, or begin it anew. Whether it is anybody's; or why it goes no further.
#[inline(never)]
pub(super) fn turn(flows: &Flows, track: &mut Track, turn: &mut Turn) -> Result<bool, DropReason> {
    let (Tracked::Known(place) | Tracked::Related(place)) = track.tracked else { return Ok(false) };
    *turn = Turn::Stays;
    if !flows.is_unbound(place, &track.key) {
        let [from, to] = bound(flows, place, track)?;
        *turn = Turn::Bound { from, to };
        lead(track, to);
    }
    Ok(true)
}

/// Where a packet really goes: so it is judged.
#[inline]
pub(super) fn lead(track: &mut Track, to: End) {
    (track.packet.dst, track.packet.ports[1]) = (to.ip, to.port);
}

/// The new ends of a packet of a flow that is bound, or that another worker has ended since it was found: whether it was bound nobody can
/// say then.
fn bound(flows: &Flows, place: u32, track: &Track) -> Result<[End; 2], DropReason> {
    // What the originator sends has the flow's key, and what it is sent the other one: anything else poses as it.
    let from_origin = flows.began(place).1 == track.side;
    if from_origin == track.by_reply {
        let is_error = matches!(track.tracked, Tracked::Related(_));
        return Err(if is_error { DropReason::IcmpUnrelated } else { DropReason::FlowState });
    }
    flows.becomes(place, &track.key, track.side).ok_or(DropReason::FlowBusy)
}

/// The packet at `index` is written out ([`Track::write_out`]) as whoever judges it wants it: from where it says to where it really goes, and
/// with its flow's key.
pub(super) fn write_out(view: &View, flows: &mut Flowing, index: usize) {
    let track = &mut flows.tracks[index];
    let was_whole = track.is_whole;
    track.write_out(&view.tables.flows);
    if let Turn::Plain(becomes) = &flows.turns[index]
        && view.facts.translated
        && !was_whole
    {
        lead(track, to_of(becomes));
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
