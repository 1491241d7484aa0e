//! Events: what happens beside forwarding and dropping, and is worth a count. A person finds the name in `switch-ctl stats`, and the
//! sentence beside it in docs/guide/counters.md.

macro_rules! events {
    ($($variant:ident = $name:literal: $meaning:literal,)*) => {
        /// Things that happen to stations and ports, counted per worker.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Event {
            $(#[doc = $meaning] $variant,)*
        }

        impl Event {
            /// All, in order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant,)*];

            /// Its name in `switch-ctl stats`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means and, where there is something to do, what.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

events! {
    MacLearned = "mac-learned": "a MAC was learned",
    MacMoved = "mac-moved": "a MAC moved from one port to another; often: a loop, or two stations with one MAC, and `switch-ctl events` names it",
    LearnPortLimit = "learn-port-limit": "a MAC was not learned: its port has as many as it may (`port set NAME --learn-limit`)",
    LearnTableFull = "learn-table-full": "a MAC was not learned: its place in the table is taken (`switchd --fdb-entries`)",
    LearnBusy = "learn-busy": "a MAC was not learned this time: another worker wrote next to it; its next frame tries again",
    LoopFound = "loop-found": "a loop was found behind a port, which is blocked for a while; find the cable or bridge that joins two ports",
    FloodCopyMissed = "flood-copy-missed": "a flooded copy was not made: the pool had no frame left (`switchd --memory`)",
    RingLied = "ring-lied": "a ring named a frame that its port did not have: the kernel or a driver is at fault",
    ReplayBrokeOff = "replay-broke-off": "a capture that a pcap port replays cannot be read to its end: it breaks off, or is no capture from there on",
    NeighLearned = "neigh-learned": "a neighbour made itself known",
    NeighDisputed = "neigh-disputed": "a station claimed the address of another; that one is asked, and keeps it if it answers",
    NeighAsked = "neigh-asked": "a neighbour was asked for",
    NeighFull = "neigh-full": "a neighbour was not kept: the table, or its port's share of it, is full (`switchd --neighbours`)",
    HostAnswered = "host-answered": "the switch answered for itself: ARP, neighbour solicitation, ping",
    ErrorTold = "error-told": "a sender was told why its packet did not arrive (ICMP)",
    ErrorUntold = "error-untold": "a sender was not told: it is told so many a second",
    Fragmented = "fragmented": "an IPv4 packet was cut up to fit its next link",
    MssClamped = "mss-clamped": "what a TCP SYN offers as its largest segment was lowered (`bridge set NAME --mss-clamp`)",
    FlowNew = "flow-new": "a flow began",
    FlowEvicted = "flow-evicted": "a half-open flow made room for another of its port: a scan or a flood of SYNs, or too small a table (`switchd --flows`)",
    PolicyDropTold = "policy-drop-told": "a packet that policies stopped, the first of its flow, was told of (`switch-ctl events --only policy-drop`)",
    PolicyDropUntold = "policy-drop-untold": "the same, and it was not told of: so many are in a second",
    PolicyDropAgain = "policy-drop-again": "a packet that policies stopped, of a flow that was told of lately",
    DropTold = "drop-told": "a packet dropped for a reason other than a rule's, the first of its flow at its port for that reason, was told of (`switch-ctl events --only drop`)",
    DropUntold = "drop-untold": "the same, first or not, and it was not told of: so many are in a second",
    DropAgain = "drop-again": "a packet dropped for a reason other than a rule's, of a flow that was told of lately",
    DropNameless = "drop-nameless": "a packet dropped that no event is about: the kernel or a device dropped it unseen (`rx-missed`, `device-full`, `tx-refused`), or no bridge forwards it (`link-local-group`)",
    AclLogTold = "acl-log-told": "what a rule with `log` decided was told of (`switch-ctl events --only acl-log`)",
    AclLogUntold = "acl-log-untold": "the same, and it was not told of: so many are in a second",
    AclLogAgain = "acl-log-again": "what a rule with `log` decided, of a flow that was told of lately",
}

impl Event {
    /// What becomes of the news of a drop: each is counted by one of these.
    pub const ABOUT_DROPS: [Self; 7] = [
        Self::PolicyDropTold,
        Self::PolicyDropUntold,
        Self::PolicyDropAgain,
        Self::DropTold,
        Self::DropUntold,
        Self::DropAgain,
        Self::DropNameless,
    ];
}
