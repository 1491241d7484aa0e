//! Everything but TCP: who has spoken, and of SCTP (RFC 9260) which chunk came last.

use super::Invalid;
use super::record::{Record, Window};
use super::state::{Stage, State};
use super::tcp::Refused;
use crate::wire::packet::Sctp;

const STATE: Refused = Refused::Invalid(Invalid::State);

/// UDP and whatever is known by addresses alone.
#[inline(always)]
pub fn pass_plain(state: State, side: u8) -> Result<State, Refused> {
    let from_origin = side == state.origin();
    Ok(match state.stage {
        Stage::UdpOneWay if !from_origin => state.at(Stage::UdpAnswered),
        // Asked, answered, and it goes on.
        Stage::UdpAnswered if from_origin => state.at(Stage::UdpStream),
        Stage::OneWay if !from_origin => state.at(Stage::BothWays),
        _ => state,
    })
}

/// A query or its answer; which is which is part of the key, so the sides cannot be mistaken.
#[inline(always)]
pub fn pass_query(state: State, side: u8, answer: bool) -> Result<State, Refused> {
    if answer == (side == state.origin()) {
        return Err(STATE);
    }
    Ok(if answer { state.at(Stage::Answered) } else { state })
}

/// Chunk types (RFC 9260 §3.2).
mod chunk {
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}
/// In ABORT and SHUTDOWN COMPLETE: the tag is the sender's own (RFC 9260 §8.5.1).
const REFLECTED: u8 = 1;

/// An association begins with an INIT, whose tag is 0 (RFC 9260 §8.5.1).
pub fn begin_sctp(side: u8, sctp: &Sctp) -> Option<(Stage, u8, [Window; 2])> {
    let begins = sctp.chunk == chunk::INIT && sctp.tag == 0 && sctp.initiate != 0;
    let mut windows = [Window::default(); 2];
    windows[usize::from(side)].ack = sctp.initiate;
    begins.then_some((Stage::SctpInit, 0, windows))
}

/// Counts an SCTP packet to its association. Every packet names the tag that its receiver chose.
///
/// An INIT does no harm to an association that stands (RFC 9260 §5.2.2): anybody could send one, and it may be an old one. What its sender would want to
/// see is noted beside what he wants now, and so is what is answered; the COOKIE ECHO that brings the answer back begins the association anew. Both are
/// its originator's only by the port at which the association began (`is_at_home`): nobody else forges all three.
pub fn pass_sctp(
    record: Record,
    state: State,
    side: u8,
    is_at_home: bool,
    sctp: &Sctp,
) -> Result<State, Refused> {
    let from_origin = side == state.origin();
    let (own, other) = (Tags::of(record, side), Tags::of(record, side ^ 1));
    if sctp.chunk == chunk::INIT {
        return init(record, state, side, is_at_home, sctp);
    }
    // 0 is what an end has chosen that has not spoken yet, and nobody else's.
    if sctp.tag == 0 {
        return Err(STATE);
    }
    let may_reflect = matches!(sctp.chunk, chunk::ABORT | chunk::SHUTDOWN_COMPLETE);
    let fits =
        sctp.tag == other.now || may_reflect && sctp.chunk_flags & REFLECTED != 0 && sctp.tag == own.now;
    let fits_next = sctp.tag == other.next;
    Ok(match (sctp.chunk, state.stage) {
        (chunk::INIT_ACK, _) if !from_origin && (fits || fits_next) && sctp.initiate != 0 => {
            init_ack(record, state, side, sctp, fits)
        }
        (chunk::COOKIE_ECHO, _) if from_origin && fits_next && is_at_home => {
            // Both ends' words. An INIT ACK that is sent again meanwhile, and comes to another worker, may write over the other end's what they
            // were: then the association is to begin once more.
            Tags { now: other.answers, ..Tags::NONE }.keep(record, side);
            Tags { now: other.next, ..Tags::NONE }.keep(record, side ^ 1);
            state.at(Stage::SctpCookie)
        }
        // Who is asked to begin anew need not.
        (chunk::ABORT, _) if !from_origin && fits_next && !fits => state,
        _ if !fits => return Err(STATE),
        (chunk::INIT_ACK, Stage::SctpInit) => return Err(STATE),
        (chunk::COOKIE_ECHO, Stage::SctpInitAnswered) if from_origin => state.at(Stage::SctpCookie),
        (chunk::COOKIE_ACK, Stage::SctpCookie) if !from_origin => state.at(Stage::SctpOpen),
        (chunk::SHUTDOWN | chunk::SHUTDOWN_ACK, Stage::SctpOpen) => state.at(Stage::SctpShutdown),
        (chunk::SHUTDOWN_COMPLETE, Stage::SctpShutdown) | (chunk::ABORT, _) => state.at(Stage::SctpClosed),
        // Before the cookie came back nothing else may be sent (RFC 9260 §5.1).
        (_, Stage::SctpInit | Stage::SctpInitAnswered) => return Err(STATE),
        _ => state,
    })
}

/// What an end of an association has chosen, in the words of a [`Window`].
#[derive(Clone, Copy)]
struct Tags {
    /// The tag that it wants to see; 0: it has not said so.
    now: u32,
    /// The one that it will want once the association has begun anew.
    next: u32,
    /// Of who answers: what the other end wants to see then.
    answers: u32,
}

impl Tags {
    const NONE: Self = Self { now: 0, next: 0, answers: 0 };

    fn of(record: Record, side: u8) -> Self {
        let Window { end, ack, room, largest } = record.window(side);
        Self { now: ack, next: end, answers: u32::from(room) << 16 | u32::from(largest) }
    }

    fn keep(self, record: Record, side: u8) {
        let Self { now, next, answers } = self;
        let window = Window { end: next, ack: now, room: (answers >> 16) as u16, largest: answers as u16 };
        record.set_window(side, window);
    }
}

fn init(record: Record, state: State, side: u8, is_at_home: bool, sctp: &Sctp) -> Result<State, Refused> {
    if sctp.tag != 0 || sctp.initiate == 0 {
        return Err(STATE);
    }
    if state.stage == Stage::SctpClosed {
        return Err(Refused::Reopens);
    }
    if side != state.origin() {
        return Err(STATE);
    }
    let own = Tags::of(record, side);
    if sctp.initiate != own.now && is_at_home {
        Tags { next: sctp.initiate, ..own }.keep(record, side);
    }
    Ok(state)
}

/// The answer to an INIT that the association began with, or to a later one. Who answers has no memory: to the same INIT, sent again, he says another tag.
fn init_ack(record: Record, state: State, side: u8, sctp: &Sctp, is_first: bool) -> State {
    let own = Tags::of(record, side);
    if is_first && state.stage == Stage::SctpInit {
        Tags { now: sctp.initiate, ..Tags::NONE }.keep(record, side);
        return state.at(Stage::SctpInitAnswered);
    }
    if sctp.initiate != own.now || !is_first {
        Tags { next: sctp.initiate, answers: sctp.tag, ..own }.keep(record, side);
    }
    state
}
