//! Events: what happens beside forwarding and dropping, and is worth a count.

/// Things that happen to stations and ports, counted per worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Event {
    /// A MAC was learned.
    MacLearned,
    /// A MAC moved from one port to another.
    MacMoved,
    /// A MAC was not learned: its port has as many as it may.
    LearnPortLimit,
    /// A MAC was not learned: its place in the table is taken.
    LearnTableFull,
    /// A MAC was not learned this time: another worker wrote next to it.
    LearnBusy,
    /// A loop was found behind a port.
    LoopFound,
    /// A flooded copy was not made: the pool had no frame left.
    FloodCopyMissed,
    /// A ring named a frame that its port did not have. The kernel or a driver is at fault.
    RingLied,
}

impl Event {
    /// All, in order.
    pub const ALL: [Self; 8] = [
        Self::MacLearned,
        Self::MacMoved,
        Self::LearnPortLimit,
        Self::LearnTableFull,
        Self::LearnBusy,
        Self::LoopFound,
        Self::FloodCopyMissed,
        Self::RingLied,
    ];

    /// Its name in `switch-ctl stats`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MacLearned => "mac-learned",
            Self::MacMoved => "mac-moved",
            Self::LearnPortLimit => "learn-port-limit",
            Self::LearnTableFull => "learn-table-full",
            Self::LearnBusy => "learn-busy",
            Self::LoopFound => "loop-found",
            Self::FloodCopyMissed => "flood-copy-missed",
            Self::RingLied => "ring-lied",
        }
    }
}
