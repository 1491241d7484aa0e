//! The law of packets. What came in, what was made here and what another worker handed over is what left, what the switch kept
//! for itself, what was dropped by name, what was handed on and what waits: **no packet goes unaccounted**.
//!
//! `received + outside + copied + generated + taken_over = sent + consumed + dropped + handed_over + waiting`
//!
//! It holds for each worker by itself at the end of each of its turns, where it is asserted in debug builds, and so for the whole
//! switch. A superframe is one packet until somebody cuts it up: each segment but the first is a copy, as is each fragment but the first.

use super::Counter;

/// What became of a worker's packets since it began, whatever became of their ports. The worker alone writes it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Came in by a port: a tunnel's port is one too, and what comes out of a tunnel comes in by it.
    pub received: Counter,
    /// The kernel or a port dropped it before it came in, or its device did after it was sent; [`Self::dropped`] has it as well.
    pub outside: Counter,
    /// Made out of another: by flooding, by cutting it up.
    pub copied: Counter,
    /// Made here: what the switch says itself, and what tunnels put around others' packets.
    pub generated: Counter,
    /// Another worker handed it over.
    pub taken_over: Counter,
    /// Left by a port, or into a tunnel.
    pub sent: Counter,
    /// Was for the switch itself: a question, an answer, what tunnels put around others' packets.
    pub consumed: Counter,
    /// Dropped, whatever for: the sum of what [`super::Counters::dropped`] was told.
    pub(super) dropped: Counter,
    /// Handed to the worker whose port it leaves by.
    pub handed_over: Counter,
    /// Waits here at the end of the last turn: for a port to take it, for its neighbour.
    pub waiting: Counter,
    /// What the law lacked at the end of the last turn, as [`Self::balance`] says.
    pub unaccounted: Counter,
}

impl Ledger {
    /// Packets dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Packets that came from somewhere and went nowhere; less than zero: went somewhere and came from nowhere. Only its owner may
    /// ask: others would read some numbers before and some after a packet.
    pub fn balance(&self) -> i64 {
        let sum = |of: &[&Counter]| of.iter().fold(0u64, |sum, counter| sum.wrapping_add(counter.get()));
        let from = sum(&[&self.received, &self.outside, &self.copied, &self.generated, &self.taken_over]);
        let to = sum(&[&self.sent, &self.consumed, &self.dropped, &self.handed_over, &self.waiting]);
        from.wrapping_sub(to) as i64
    }
}
