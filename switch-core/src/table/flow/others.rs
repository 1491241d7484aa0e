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
pub fn pass_sctp(record: Record, state: State, side: u8, sctp: &Sctp) -> Result<State, Refused> {
    let from_origin = side == state.origin();
    let (own, other) = (record.window(side).ack, record.window(side ^ 1).ack);
    if sctp.chunk == chunk::INIT {
        return init(record, state, side, sctp);
    }
    let may_reflect = matches!(sctp.chunk, chunk::ABORT | chunk::SHUTDOWN_COMPLETE);
    let fits = sctp.tag == other || may_reflect && sctp.chunk_flags & REFLECTED != 0 && sctp.tag == own;
    // 0 is what an end has chosen that has not spoken yet, and nobody else's.
    if !fits || sctp.tag == 0 {
        return Err(STATE);
    }
    Ok(match (sctp.chunk, state.stage) {
        (chunk::INIT_ACK, Stage::SctpInit) if !from_origin && sctp.initiate != 0 => {
            record.set_window(side, Window { ack: sctp.initiate, ..Window::default() });
            state.at(Stage::SctpInitAnswered)
        }
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

fn init(record: Record, state: State, side: u8, sctp: &Sctp) -> Result<State, Refused> {
    if sctp.tag != 0 || sctp.initiate == 0 {
        return Err(STATE);
    }
    match state.stage {
        Stage::SctpClosed => Err(Refused::Reopens),
        Stage::SctpInit if side == state.origin() => {
            record.set_window(side, Window { ack: sctp.initiate, ..Window::default() });
            Ok(state)
        }
        // An end that restarts (RFC 9260 §5.2): the old association is over.
        _ if side == state.origin() => Err(Refused::Reopens),
        _ => Err(STATE),
    }
}
