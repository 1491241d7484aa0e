//! Mistakes of what is remembered so that it need not be looked up, and of the short ways for what is common.

use super::Mistake;

pub(super) const WAYS: &[Mistake] = &[
    Mistake {
        what: "a way outlives the snapshot that it was made of",
        file: "pipeline/ways.rs",
        right: "1 + view.snapshot.generation + view.tables.fdb.epoch()",
        wrong: "1 + view.tables.fdb.epoch()",
        test: "ways_tests",
        loom: false,
    },
    Mistake {
        what: "a way leads on to where a station was",
        file: "table/fdb.rs",
        right: "self.epoch.fetch_add(1, Ordering::Release);",
        wrong: "self.epoch.fetch_add(0, Ordering::Release);",
        test: "ways_tests",
        loom: false,
    },
    Mistake {
        what: "a way leads on to the station that had an address",
        file: "table/neigh/mod.rs",
        right: "before.has_station() && !before.goes_on_as(after)",
        wrong: "before.has_station() && after.is_none()",
        test: "ways_tests",
        loom: false,
    },
    Mistake {
        what: "a way never gets old",
        file: "pipeline/ways.rs",
        right: "(now_s <= way.until_s).then_some(way)",
        wrong: "Some(way)",
        test: "ways_tests",
        loom: false,
    },
    Mistake {
        what: "what is too long for a way follows what was not",
        file: "pipeline/route.rs",
        right: "ask.is_odd | (ask.len > u32::from(way.mtu))",
        wrong: "ask.is_odd",
        test: "ways_tests",
        loom: false,
    },
    Mistake {
        what: "what follows others is not counted to its route",
        file: "pipeline/route.rs",
        right: "if let Some(counter) = way.counter {",
        wrong: "if let Some(counter) = way.counter.filter(|_| false) {",
        test: "ways_tests",
        loom: false,
    },
    Mistake {
        what: "a flow that goes on is taken for one that nobody used",
        file: "table/flow/record.rs",
        right: "streams & (self.stamp_s.load(Ordering::Relaxed) >= now_s)",
        wrong: "streams & (now_s > 0)",
        test: "track_tests",
        loom: false,
    },
    Mistake {
        what: "a flow's packets pass, whoever sends them",
        file: "pipeline/admit.rs",
        right: "&& is_itself(view, to, track)",
        wrong: "",
        test: "policy_tests",
        loom: false,
    },
    Mistake {
        what: "an address of IPv6 is cut down to one of IPv4",
        file: "table/flow/key.rs",
        right: "((packet.src ^ V4_MAPPED) | (packet.dst ^ V4_MAPPED)) >> 32 == 0",
        wrong: "(packet.src ^ V4_MAPPED) >> 32 == 0",
        test: "table::flow::key",
        loom: false,
    },
];
