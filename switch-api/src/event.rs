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

/// Something happened; the notice `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// Nanoseconds since 1970, UTC.
    pub time_ns: u64,
    /// What kind: `port-up`, `port-down`, `mac-moved`, `storm`, `loop`, `table-near-full`, `pool-near-full`,
    /// `memory-near-out`, `neighbour-failed`, `policy-drop`, `drop`, `acl-log`, `repaired`, `worker-overloaded`, `worker-recovered`, `changed`; of flows, for whoever asked for them,
    /// `flow-new`, `flow-established`, `flow-judged`, `flow-ended`. There may be others.
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
