//! TCP as seen from the middle. States are those of RFC 9293 as far as a third party can tell; the window is
//! van Rooij's ("Real Stateful TCP Packet Filtering in IP Filter", 2000), which Linux and the BSDs use: what
//! an end may send is bounded by what the other acknowledged and announced.

use super::Invalid;
use super::record::{Record, Window};
use super::state::{FIN_HIGHER, ORIGIN_HIGHER, PICKED_UP, SCALED, Stage, State};
use crate::wire::packet::{SCALE_MAX, Tcp, flags};

/// An acknowledgement may lie so far behind: a window without scaling, and 1 KiB for what was on its way (van
/// Rooij's MAXACKWINDOW).
const ACK_BEHIND_MAX: u32 = 66_000;

/// Why a segment does not change the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It begins another flow between the same ends.
    Reopens,
    /// It goes by: its receiver knows what to do with it (RFC 5961).
    Passes,
    /// It does not belong here.
    Invalid(Invalid),
}

const WINDOW: Refused = Refused::Invalid(Invalid::Window);
const STATE: Refused = Refused::Invalid(Invalid::State);

/// `a` lies behind `b` in a circle of sequence numbers (RFC 9293 §3.4).
#[inline(always)]
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[inline(always)]
fn max(a: u32, b: u32) -> u32 {
    if before(a, b) { b } else { a }
}

impl Tcp {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number behind it: SYN and FIN count as a byte each.
    #[inline(always)]
    fn end(&self) -> u32 {
        let extra = u32::from(self.has(flags::SYN)) + u32::from(self.has(flags::FIN));
        self.seq.wrapping_add(self.len).wrapping_add(extra)
    }

    /// The combinations that RFC 9293 knows.
    #[inline(always)]
    fn is_sensible(&self) -> bool {
        let meaning = self.flags & (flags::SYN | flags::FIN | flags::RST | flags::ACK);
        const SENSIBLE: u32 = 1 << flags::SYN
            | 1 << (flags::SYN | flags::ACK)
            | 1 << flags::RST
            | 1 << (flags::RST | flags::ACK)
            | 1 << flags::ACK
            | 1 << (flags::FIN | flags::ACK);
        SENSIBLE >> meaning & 1 != 0
    }
}

/// State, scales and windows after a first segment; none if no flow begins so. With `pickup` one may begin in the
/// middle: nothing is known of its windows' scale, so the largest is assumed.
pub fn begin(side: u8, segment: &Tcp, pickup: bool) -> Option<(Stage, u8, [Window; 2])> {
    let mut windows = [Window::default(); 2];
    match segment.flags & (flags::SYN | flags::FIN | flags::RST | flags::ACK) {
        flags::SYN => {
            // 15 in the state's four bits: it offers no scaling.
            let scale = segment.scale.unwrap_or(NO_SCALE);
            windows[usize::from(side)] = asking(segment);
            Some((Stage::SynSent, scale << (side * 4), windows))
        }
        flags::ACK if pickup => {
            let (end, ack, room) = (segment.end(), segment.ack, segment.window.max(1));
            windows[usize::from(side)] = Window { end, ack, room, largest: room };
            windows[usize::from(side ^ 1)] =
                Window { end: segment.ack, ack: segment.seq, room: u16::MAX, largest: u16::MAX };
            Some((Stage::Established, SCALE_MAX << 4 | SCALE_MAX, windows))
        }
        _ => None,
    }
}

/// Takes an open connection up in the middle: of what its ends have said, nothing counts but what this segment says. Whether it is one that
/// such a connection has.
pub fn take_up(record: Record, side: u8, segment: &Tcp) -> bool {
    let is_open = matches!(
        record.state().stage,
        Stage::Established | Stage::FinWait | Stage::CloseWait | Stage::LastAck
    );
    let goes_on =
        segment.is_sensible() && segment.flags & (flags::SYN | flags::RST | flags::ACK) == flags::ACK;
    if is_open && goes_on {
        let largest = record.window(side).largest.max(segment.window);
        let room = segment.window.max(1);
        record.set_window(side, Window { end: segment.seq, ack: segment.ack, room, largest });
        let (end, ack) = (segment.ack, segment.seq);
        record.set_window(side ^ 1, Window { end, ack, room: u16::MAX, largest: u16::MAX });
    }
    is_open && goes_on
}

/// In the state's four bits: the end does not scale its window.
const NO_SCALE: u8 = 15;

/// Counts a segment to a flow: the state after it.
#[inline]
pub fn pass(record: Record, state: State, side: u8, segment: &Tcp) -> Result<State, Refused> {
    if !segment.is_sensible() {
        return Err(Refused::Invalid(Invalid::Flags));
    }
    match goes_on(state, segment) {
        true => go_on(record, state, side, segment).map(|()| state),
        false => pass_slowly(record, state, side, segment),
    }
}

/// Whether a segment is what nearly all are: of an open connection, and neither opens nor closes anything. It is sensible then.
#[inline(always)]
fn goes_on(state: State, segment: &Tcp) -> bool {
    let is_plain = segment.flags & (flags::SYN | flags::RST | flags::FIN | flags::ACK) == flags::ACK;
    is_plain & matches!(state.stage, Stage::Established)
}

/// Counts such a one: nothing but its sender's window is other than before.
#[inline(always)]
pub(super) fn go_on(record: Record, state: State, side: u8, segment: &Tcp) -> Result<(), Refused> {
    let (own, other) = (record.window(side), record.window(side ^ 1));
    let now = checked(state, side, segment, own, other)?;
    if now != own {
        record.set_window(side, now);
    }
    Ok(())
}

/// Counts a segment to a flow if it is what nearly all are, and the flow has had a packet this second: then it passes, and nobody need be
/// asked more. False: nothing was done, and [`pass`] is to be asked.
#[inline(always)]
pub fn streams(record: Record, side: u8, segment: &Tcp, now_s: u32) -> bool {
    let state = record.state();
    if !(goes_on(state, segment) & record.is_in_use(now_s)) {
        return false;
    }
    follows(record, state, side, segment) || goes_on_otherwise(record, side, segment)
}

/// A call, so that what nearly all segments are has the registers.
#[inline(never)]
fn goes_on_otherwise(record: Record, side: u8, segment: &Tcp) -> bool {
    go_on(record, record.state(), side, segment).is_ok()
}

/// Counts a segment that carries the next bytes of what its sender has said, acknowledges no less than before and takes back nothing of its
/// window: what [`go_on`] does with it, in fewer steps. False: nothing was done, and that is to be asked.
#[inline(always)]
pub(super) fn follows(record: Record, state: State, side: u8, segment: &Tcp) -> bool {
    let (own, other) = (record.window(side), record.window(side ^ 1));
    let (scale, other_scale) = (state.scale(side), state.scale(side ^ 1));
    let room = segment.window.max(1);
    let may_until = other.ack.wrapping_add(u32::from(other.room) << other_scale);
    let ack_behind = (u32::from(own.largest) << scale).max(ACK_BEHIND_MAX);
    let unanswered = other.end.wrapping_sub(segment.ack);
    let edge = |ack: u32, room: u16| ack.wrapping_add(u32::from(room) << scale);
    // None of these goes back: the sign is that of all of them.
    let signs = may_until.wrapping_sub(segment.seq)
        | unanswered
        | ack_behind.wrapping_sub(unanswered)
        | segment.ack.wrapping_sub(own.ack)
        | edge(segment.ack, room).wrapping_sub(edge(own.ack, own.room));
    if segment.seq != own.end || (signs as i32) < 0 {
        return false;
    }
    let end = segment.seq.wrapping_add(segment.len);
    record.set_window(side, Window { end, ack: segment.ack, room, largest: own.largest.max(segment.window) });
    true
}

/// Counts the payload of a later fragment, which has no sequence number of its own: as if it followed what its sender has said, and up to
/// what the other end takes. Its first may have been refused, and whoever sends more of it than fits would else push the window away
/// under the real sender.
pub fn count_later(record: Record, state: State, side: u8, len: u32) {
    // What the other end takes nobody knows before it has spoken.
    if state.stage == Stage::SynSent {
        return;
    }
    let (own, other) = (record.window(side), record.window(side ^ 1));
    let may_until = other.ack.wrapping_add(u32::from(other.room) << state.scale(side ^ 1));
    let end = own.end.wrapping_add(len);
    if !before(may_until, end) {
        record.set_window(side, Window { end, ..own });
    }
}

fn pass_slowly(record: Record, state: State, side: u8, segment: &Tcp) -> Result<State, Refused> {
    let (own, other) = (record.window(side), record.window(side ^ 1));
    if segment.has(flags::RST) {
        return reset(state, side, segment, own, other);
    }
    if segment.has(flags::SYN) {
        return synchronise(record, state, side, segment, other);
    }
    match state.stage {
        // An acknowledgement instead of a SYN ACK: the other end has a connection that this one forgot (RFC 9293
        // §3.5.1). Its answer, a reset, must get through.
        Stage::SynSent if side != state.origin() => return Err(Refused::Passes),
        Stage::SynSent => return Err(STATE),
        Stage::Closed => return Err(Refused::Passes),
        _ => {}
    }
    let now = checked(state, side, segment, own, other)?;
    let mut next = state;
    if state.stage == Stage::BothSynSent || state.stage == Stage::SynReceived && side == state.origin() {
        next.stage = Stage::Established;
    }
    if segment.has(flags::FIN) {
        next = finish(next, side);
    } else {
        next = acknowledge(next, side, now, other);
    }
    record.set_window(side, now);
    Ok(next)
}

/// The window check: what the sender has said after this segment.
#[inline(always)]
fn checked(state: State, side: u8, segment: &Tcp, own: Window, other: Window) -> Result<Window, Refused> {
    let (scale, other_scale) = (state.scale(side), state.scale(side ^ 1));
    let end = segment.end();
    let may_until = other.ack.wrapping_add(u32::from(other.room) << other_scale);
    let other_largest = u32::from(other.largest) << other_scale;
    let ack_behind = (u32::from(own.largest) << scale).max(ACK_BEHIND_MAX);
    // Not beyond what the other end takes; not older than a window; no acknowledgement of what was never sent,
    // none that is older than can be.
    let fits = !before(may_until, segment.seq)
        & before(own.end.wrapping_sub(other_largest).wrapping_sub(1), end)
        & !before(other.end, segment.ack)
        & !before(segment.ack, other.end.wrapping_sub(ack_behind));
    if !fits {
        return Err(WINDOW);
    }
    Ok(said(scale, segment, own, end))
}

/// What an end has said after a segment. A window that shrinks leaves the edge where it was (RFC 9293 §3.8.6).
#[inline(always)]
fn said(scale: u8, segment: &Tcp, own: Window, end: u32) -> Window {
    let ack = max(own.ack, segment.ack);
    let edge = max(
        own.ack.wrapping_add(u32::from(own.room) << scale),
        segment.ack.wrapping_add(u32::from(segment.window.max(1)) << scale),
    );
    // Rounded up: too much by less than a unit.
    let room = (edge.wrapping_sub(ack).wrapping_add((1 << scale) - 1) >> scale).min(u32::from(u16::MAX));
    Window { end: max(own.end, end), ack, room: room as u16, largest: own.largest.max(segment.window) }
}

/// A SYN, with or without ACK.
fn synchronise(
    record: Record,
    state: State,
    side: u8,
    segment: &Tcp,
    other: Window,
) -> Result<State, Refused> {
    let from_origin = side == state.origin();
    let answers = segment.has(flags::ACK);
    match state.stage {
        // Ports are used again while the old flow is remembered (RFC 9293 §3.6.1): the new SYN begins another.
        Stage::TimeWait | Stage::Closed if !answers => Err(Refused::Reopens),
        Stage::SynSent if from_origin && !answers => {
            // Sent again, or a new attempt with another number.
            let scale = segment.scale.unwrap_or(NO_SCALE) << (side * 4);
            record.set_window(side, asking(segment));
            Ok(State { scales: scale, ..state })
        }
        Stage::SynSent if !from_origin => {
            if answers && !answers_syn(segment, other) {
                return Err(WINDOW);
            }
            Ok(answered(record, state, side, segment, other))
        }
        // After SYNs that crossed, each end answers the other's.
        Stage::BothSynSent if answers && segment.ack != other.end => Err(WINDOW),
        Stage::BothSynSent => Ok(if answers { state.at(Stage::Established) } else { state }),
        Stage::SynReceived if answers && from_origin => Err(STATE),
        Stage::SynReceived if answers && before(other.end, segment.ack) => Err(WINDOW),
        Stage::SynReceived => Ok(state),
        Stage::SynSent => Err(STATE),
        // In an open connection: an end that has lost its memory. The receiver challenges it (RFC 5961 §4), and
        // what comes of that is a reset with the right number; or it has lost its own as well, and answers.
        _ if from_origin && !answers => {
            record.note_asked(segment.seq.wrapping_add(1));
            Err(Refused::Passes)
        }
        _ if answers
            && !from_origin
            && record.asked() == Some(segment.ack)
            // Nor is it one of this connection, sent again.
            && checked(state, side, segment, record.window(side), other).is_err() =>
        {
            Ok(begun_anew(record, state, side, segment))
        }
        _ => Err(Refused::Passes),
    }
}

/// The answer to a SYN in what was an open connection, of which both ends know nothing any more: they have another from now on. Whoever
/// was asked would have challenged, had he the old one still, and who answers a number has seen it. What the asking end announced was not
/// kept, so that the largest is assumed.
fn begun_anew(record: Record, state: State, side: u8, segment: &Tcp) -> State {
    let origin = side ^ 1;
    // An answer scales only if it was asked to.
    let (scales, scaled) = match segment.scale {
        Some(own) => (SCALE_MAX << (origin * 4) | own << (side * 4), SCALED),
        None => (NO_SCALE << 4 | NO_SCALE, 0),
    };
    let next = State {
        stage: Stage::SynReceived,
        scales,
        flags: state.flags & ORIGIN_HIGHER | PICKED_UP | scaled,
        ..state
    };
    let room = in_units(segment.window, next.scale(side));
    record.set_window(side, Window { end: segment.end(), ack: segment.ack, room, largest: room });
    let (end, ack) = (segment.ack, segment.seq.wrapping_add(1));
    record.set_window(origin, Window { end, ack, room: u16::MAX, largest: u16::MAX });
    next
}

/// A window that is announced in bytes, in units of a scale: not less than one.
fn in_units(window: u16, scale: u8) -> u16 {
    (((u32::from(window) + (1 << scale) - 1) >> scale) as u16).max(1)
}

/// What the first SYN says. Until there is an answer, `ack` is the number behind the SYN itself: an answer may
/// leave out the data that came with it (RFC 7413 §3).
fn asking(segment: &Tcp) -> Window {
    let room = segment.window.max(1);
    Window { end: segment.end(), ack: segment.seq.wrapping_add(1), room, largest: room }
}

/// Whether a segment acknowledges the SYN of [`asking`].
fn answers_syn(segment: &Tcp, asking: Window) -> bool {
    !before(segment.ack, asking.ack) && !before(asking.end, segment.ack)
}

/// The other end's SYN: both windows are known now, and whether they are scaled. What SYNs announce is not
/// (RFC 7323 §2.2); here it becomes units like all that follows.
fn answered(record: Record, state: State, side: u8, segment: &Tcp, asking: Window) -> State {
    let shift = state.origin() * 4;
    let offered = state.scales >> shift & 0xf;
    let scale = segment.scale.unwrap_or(NO_SCALE);
    let both = offered != NO_SCALE && scale != NO_SCALE;
    let mut next = State { scales: offered << shift | scale << (side * 4), ..state };
    next.flags = next.flags & !SCALED | if both { SCALED } else { 0 };
    let room = in_units(segment.window, next.scale(side));
    let acknowledged = if segment.has(flags::ACK) { segment.ack } else { asking.end };
    record.set_window(side, Window { end: segment.end(), ack: acknowledged, room, largest: room });
    let room = in_units(asking.room, next.scale(side ^ 1));
    let end = asking.end;
    record.set_window(side ^ 1, Window { end, ack: segment.seq.wrapping_add(1), room, largest: room });
    next.at(if segment.has(flags::ACK) { Stage::SynReceived } else { Stage::BothSynSent })
}

/// A RST. It closes only if it names exactly the byte that its receiver waits for (RFC 5961 §3.2): the one that this has acknowledged, or, as it may
/// not have come to that yet, the one behind all that was sent to it. One that is merely in the window goes by, and its receiver challenges it.
fn reset(state: State, side: u8, segment: &Tcp, own: Window, other: Window) -> Result<State, Refused> {
    match state.stage {
        Stage::SynSent if side != state.origin() => {
            let answers = segment.has(flags::ACK) && answers_syn(segment, other);
            return if answers { Ok(state.at(Stage::Closed)) } else { Err(WINDOW) };
        }
        // It takes its own SYN back.
        Stage::SynSent => {
            let own_next = segment.seq == own.end || segment.seq.wrapping_add(1) == own.end;
            return if own_next { Ok(state.at(Stage::Closed)) } else { Err(WINDOW) };
        }
        Stage::TimeWait | Stage::Closed => return Err(Refused::Passes),
        _ => {}
    }
    let may_until = other.ack.wrapping_add(u32::from(other.room) << state.scale(side ^ 1));
    let oldest = own.end.wrapping_sub(u32::from(other.largest) << state.scale(side ^ 1));
    if segment.seq == other.ack || segment.seq == own.end {
        Ok(state.at(Stage::Closed))
    } else if before(may_until, segment.seq) || before(segment.seq, oldest) {
        Err(WINDOW)
    } else {
        Err(Refused::Passes)
    }
}

/// A FIN within the window.
fn finish(state: State, side: u8) -> State {
    let first = u8::from(state.flags & FIN_HIGHER != 0);
    match state.stage {
        Stage::Established | Stage::SynReceived => {
            let flag = if side == 1 { FIN_HIGHER } else { 0 };
            State { stage: Stage::FinWait, flags: state.flags & !FIN_HIGHER | flag, ..state }
        }
        Stage::FinWait | Stage::CloseWait if side != first => state.at(Stage::LastAck),
        _ => state,
    }
}

/// An acknowledgement within the window.
fn acknowledge(state: State, side: u8, now: Window, other: Window) -> State {
    let first = u8::from(state.flags & FIN_HIGHER != 0);
    match state.stage {
        Stage::FinWait if side != first && now.ack == other.end => state.at(Stage::CloseWait),
        Stage::LastAck if now.ack == other.end && other.ack == now.end => state.at(Stage::TimeWait),
        _ => state,
    }
}
