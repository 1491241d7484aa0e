//! Whose turn it is when there is more to do than there is time: every lane has the same share of its worker, counted in time and
//! not in frames. A frame of a known flow costs a hundred cycles, one that begins a flow several hundred, and a batch of
//! each in turn would give the sender of the dear ones four fifths of the core: he would pay nothing, and his neighbours all.
//!
//! What a lane has had stands on its [`Account`]: frames, each at what a frame of it cost when that was last measured
//! ([`crate::counter::LOAD_SAMPLE_EVERY`]). A lane of which more was waiting than a batch *has too much*. Who has had more than the one with least
//! among these, by [`AHEAD_NS`], waits: his frames stay where they are, in his own ring or device, and what finds no room there is dropped
//! at his own door, where the kernel counts it. Nobody saves: who had nothing to do begins level with the others.
//!
//! **Nothing is idle meanwhile**: whoever waits does so for a lane that has a batch waiting; should that prove to be empty, those who
//! were told to wait are served in the same turn. A lane that is alone, or where nobody has too much, never waits. (ADR 0042)

/// How far a lane may be ahead of the one that has had least, nanoseconds: a batch or two of ordinary frames. Lanes that cost
/// alike take turns by batches as if nobody counted; one that costs more is ahead by no more than this and a batch.
const AHEAD_NS: u64 = 4_000;
/// What a frame costs as long as nobody knows better, nanoseconds: a new flow's first packet.
const FRAME_NS: u64 = 125;
/// Costs are counted in so many parts of a nanosecond: a batch of cheap frames takes one and a half thousand.
const PARTS: u64 = 64;

/// What a lane has had.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// Parts of nanoseconds, on the scale of [`Shares::level`].
    had: u64,
    /// What a frame of it costs, in parts.
    a_frame: u64,
}

impl Account {
    /// So many frames took so long. A measurement may tell of a core that was taken away from us meanwhile, and then of no frame: it
    /// counts for at most twice what was known.
    #[inline]
    pub fn measured(&mut self, frames: usize, ns: u64) {
        let a_frame = (ns * PARTS).checked_div(frames as u64).unwrap_or(0);
        self.a_frame = a_frame.min(2 * self.a_frame.max(FRAME_NS * PARTS));
    }
}

/// What lanes have had, beside each other.
#[derive(Debug)]
pub(super) struct Shares {
    /// What the one had that has had least, of those that have too much.
    level: u64,
    /// Who has had more waits.
    bar: u64,
    /// The same as `level`, of this turn so far; [`u64::MAX`]: nobody has too much.
    least: u64,
    /// The most that anybody has had who was served in this turn.
    most: u64,
}

impl Shares {
    pub fn new() -> Self {
        Self { level: 0, bar: u64::MAX, least: u64::MAX, most: 0 }
    }

    /// Whether this lane has to wait.
    #[inline(always)]
    pub fn is_ahead(&self, account: &Account) -> bool {
        account.had > self.bar
    }

    /// It waits in this turn: there may be more than enough of it.
    #[inline]
    pub fn waits(&mut self, account: &Account) {
        self.least = self.least.min(account.had);
    }

    /// So many frames of it were served; of `has_more` there may be more.
    #[inline(always)]
    pub fn served(&mut self, account: &mut Account, frames: usize, has_more: bool) {
        account.had = account.had.max(self.level) + frames as u64 * account.a_frame;
        self.most = self.most.max(account.had);
        if has_more {
            self.least = self.least.min(account.had);
        }
    }

    /// All lanes had their turn.
    #[inline(always)]
    pub fn end_turn(&mut self) {
        // Where nobody has too much nobody owes anything.
        let (level, ahead) =
            if self.least == u64::MAX { (self.most, u64::MAX) } else { (self.least, AHEAD_NS * PARTS) };
        self.level = self.level.max(level);
        self.bar = self.level.saturating_add(ahead);
        (self.least, self.most) = (u64::MAX, 0);
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
