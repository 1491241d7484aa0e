//! What happens, told as it happens to whoever asked.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Something happened; the notice `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// Nanoseconds since 1970, UTC.
    pub time_ns: u64,
    /// What kind: `port-up`, `port-down`, `mac-moved`, `storm`, `loop`, `table-near-full`, `pool-near-full`,
    /// `memory-near-out`, `neighbour-failed`, `repaired`, `changed`. There may be others.
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
