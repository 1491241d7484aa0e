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
    /// A capture that a port replays cannot be read to its end: it breaks off, or is no capture from there on.
    ReplayBrokeOff,
    /// A neighbour made itself known.
    NeighLearned,
    /// A station claimed the address of another; that one is asked, and keeps it if it answers.
    NeighDisputed,
    /// A neighbour was asked for.
    NeighAsked,
    /// A neighbour was not kept: the table, or its port's share of it, is full.
    NeighFull,
    /// The switch answered for itself: ARP, neighbour solicitation, ping.
    HostAnswered,
    /// A sender was told why its packet did not arrive.
    ErrorTold,
    /// A sender was not told: it is told so many a second.
    ErrorUntold,
    /// An IPv4 packet was cut up to fit its next link.
    Fragmented,
    /// What a TCP SYN offers as its largest segment was lowered.
    MssClamped,
    /// A flow began.
    FlowNew,
    /// A half-open flow made room for another of its port.
    FlowEvicted,
    /// A packet that policies stopped, the first of its flow, was told of as an event.
    PolicyDropTold,
    /// The same, and it was not: so many are told of in a second.
    PolicyDropUntold,
    /// A packet that policies stopped, of a flow that was told of lately.
    PolicyDropAgain,
    /// What a rule with `log` decided was told of as an event.
    AclLogTold,
    /// The same, and it was not: so many are told of in a second.
    AclLogUntold,
    /// What a rule with `log` decided, of a flow that was told of lately.
    AclLogAgain,
}

impl Event {
    /// All, in order.
    pub const ALL: [Self; 26] = [
        Self::MacLearned,
        Self::MacMoved,
        Self::LearnPortLimit,
        Self::LearnTableFull,
        Self::LearnBusy,
        Self::LoopFound,
        Self::FloodCopyMissed,
        Self::RingLied,
        Self::ReplayBrokeOff,
        Self::NeighLearned,
        Self::NeighDisputed,
        Self::NeighAsked,
        Self::NeighFull,
        Self::HostAnswered,
        Self::ErrorTold,
        Self::ErrorUntold,
        Self::Fragmented,
        Self::MssClamped,
        Self::FlowNew,
        Self::FlowEvicted,
        Self::PolicyDropTold,
        Self::PolicyDropUntold,
        Self::PolicyDropAgain,
        Self::AclLogTold,
        Self::AclLogUntold,
        Self::AclLogAgain,
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
            Self::ReplayBrokeOff => "replay-broke-off",
            Self::NeighLearned => "neigh-learned",
            Self::NeighDisputed => "neigh-disputed",
            Self::NeighAsked => "neigh-asked",
            Self::NeighFull => "neigh-full",
            Self::HostAnswered => "host-answered",
            Self::ErrorTold => "error-told",
            Self::ErrorUntold => "error-untold",
            Self::Fragmented => "fragmented",
            Self::MssClamped => "mss-clamped",
            Self::FlowNew => "flow-new",
            Self::FlowEvicted => "flow-evicted",
            Self::PolicyDropTold => "policy-drop-told",
            Self::PolicyDropUntold => "policy-drop-untold",
            Self::PolicyDropAgain => "policy-drop-again",
            Self::AclLogTold => "acl-log-told",
            Self::AclLogUntold => "acl-log-untold",
            Self::AclLogAgain => "acl-log-again",
        }
    }
}
