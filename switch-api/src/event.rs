//! What happens, told as it happens to whoever asked.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// See [`crate::Request::EventsSubscribe`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsSubscribe {
    /// Also what becomes of flows: `flow-new`, `flow-established`, `flow-judged`, `flow-ended`.
    pub flows: bool,
}

/// Kinds of [`Happened`]: what its `what` says. Those of flows (`flow-…`) are told to whoever asked for them.
pub const EVENT_KINDS: [&str; 23] = [
    "acl-log",
    "changed",
    "drop",
    "flow-ended",
    "flow-established",
    "flow-judged",
    "flow-new",
    "loop",
    "mac-moved",
    "memory-near-out",
    "mtu-followed",
    "nat-exhausted",
    "neighbour-failed",
    "policy-drop",
    "pool-near-full",
    "port-down",
    "port-up",
    "repaired",
    "rolled-back",
    "storm",
    "table-near-full",
    "worker-overloaded",
    "worker-recovered",
];

/// Something happened; the notice `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// Nanoseconds since 1970, UTC.
    pub time_ns: u64,
    /// What kind: one of [`EVENT_KINDS`], or of those of a daemon that is newer.
    pub what: String,
    /// In a sentence.
    pub text: String,
    /// The same in parts: `port`, `reason`, `mac`, `method`, `uid`, … as the kind has them.
    #[serde(flatten)]
    pub parts: BTreeMap<String, String>,
}

/// The notice `events.missed`: this client read too slowly, and so many were not kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// How many.
    pub events: u64,
}
