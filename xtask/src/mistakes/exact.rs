//! Mistakes of the exact-match cache.

use super::Mistake;

pub(super) const EXACT: &[Mistake] = &[
    Mistake {
        what: "packets are known by other words than theirs",
        file: "pipeline/exact.rs",
        right: "(entry.words == words).then_some(entry)",
        wrong: "Some(entry)",
        test: "pipeline::exact",
        loom: false,
    },
    Mistake {
        what: "a flow that was given the place of another is taken for it",
        file: "pipeline/track/recall.rs",
        right: "record.is_still(entry.sequence) && track",
        wrong: "track",
        test: "exact_tests",
        loom: false,
    },
    Mistake {
        what: "what is known by its words comes from the side that the packet before came from",
        file: "pipeline/track/recall.rs",
        right: "    track.side = entry.side;",
        wrong: "    _ = entry.side;",
        test: "back_tests",
        loom: false,
    },
    Mistake {
        what: "words say nothing of the zone",
        file: "pipeline/exact.rs",
        right: "[ends, rest | u64::from(zone)]",
        wrong: "[ends, rest | u64::from(zone & 0)]",
        test: "the_same_addresses_in_two_zones",
        loom: false,
    },
    Mistake {
        what: "the older of two flows of one set is forgotten",
        file: "pipeline/exact.rs",
        right: "            *old = *young;",
        wrong: "            _ = *young;",
        test: "the_younger_two_are_there",
        loom: false,
    },
    Mistake {
        what: "flows that are numbered meet in a few sets",
        file: "pipeline/exact.rs",
        right: ".wrapping_mul(SPREAD) >> (u64::BITS - SETS.ilog2())) as u16",
        wrong: " as usize % SETS) as u16",
        test: "numbered_flows_are_spread",
        loom: false,
    },
    Mistake {
        what: "past the cache, a packet is counted to the other side of its flow",
        file: "pipeline/track.rs",
        right: "&& track.streams(record, track.side, view.now_s)",
        wrong: "&& track.streams(record, track.side ^ 1, view.now_s)",
        test: "glance_tests",
        loom: false,
    },
];
