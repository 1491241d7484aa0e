//! Mistakes of routes, next hops, and what waits for them.

use super::Mistake;

pub(super) const ROUTES: &[Mistake] = &[
    Mistake {
        what: "news older than the answer takes a route away",
        file: "control/mirror/news.rs",
        right: "is_short || seems || place.table == TABLE_LOCAL",
        wrong: "is_short || place.table == TABLE_LOCAL",
        test: "news_older_than_the_answer",
        loom: false,
    },
    Mistake {
        what: "what an answer of the kernel's leaves out is gone",
        file: "control/mirror/answer.rs",
        right: "is_kept && missing.0.insert(place)",
        wrong: "is_kept && !missing.0.insert(place)",
        test: "what_an_answer_lacks",
        loom: false,
    },
    Mistake {
        what: "what an answer lacks stays for good",
        file: "control/mirror/answer.rs",
        right: "gaps.hide(place) && !before.0.contains(&place);",
        wrong: "gaps.hide(place);",
        test: "what_an_answer_lacks",
        loom: false,
    },
    Mistake {
        what: "a next hop whose port is closed is gone by",
        file: "pipeline/next_hop.rs",
        right: "view.snapshot.port(port).is_none_or(|to| !to.open)",
        wrong: "view.snapshot.port(port).is_none_or(|to| to.mtu == 1)",
        test: "flows_of_a_lost_next_hop",
        loom: false,
    },
    Mistake {
        what: "a next hop that was missed is never asked for again",
        file: "table/neigh/mod.rs",
        right: "let is_due = |entry: Entry| entry.age_s(now_s) > 0;",
        wrong: "let is_due = |entry: Entry| entry.age_s(now_s) > u32::MAX - 9;",
        test: "flows_of_a_lost_next_hop",
        loom: false,
    },
    Mistake {
        what: "flows move although their next hop is there",
        file: "config/ecmp.rs",
        right: "self.buckets[(hash as usize + step * STRIDE) % BUCKETS]",
        wrong: "self.buckets[(hash as usize + (step + 1) * STRIDE) % BUCKETS]",
        test: "only_flows_of_who_is_not_there_move",
        loom: false,
    },
    Mistake {
        what: "what is let go waits again behind those of other ports",
        file: "pipeline/hold.rs",
        right: "self.by_key.remove(&key).map(LetGo)",
        wrong: "self.by_key.get(&key).copied().map(LetGo)",
        test: "packets_of_several_ports_wait",
        loom: false,
    },
    Mistake {
        what: "a superframe is cut up although it must not be",
        file: "pipeline/slow.rs",
        right: "is_ok_and(|hop| !hop.whole)",
        wrong: "is_ok()",
        test: "segments_that_do_not_fit",
        loom: false,
    },
];
