//! Mistakes about network policies.

use super::Mistake;

pub(super) const POLICY: &[Mistake] = &[
    Mistake {
        what: "network policies that want a label not to be one of some leave out who has none",
        file: "policy/select.rs",
        right: "LabelOperator::NotIn => !is_one_of(),",
        wrong: "LabelOperator::NotIn => value.is_some() && !is_one_of(),",
        test: "the_tables_say_what_the_specification_says",
        loom: false,
    },
    Mistake {
        what: "network policies are not asked about what is routed",
        file: "pipeline/admit.rs",
        right: "Verdict::Port(_) => match way.to {",
        wrong: "Verdict::Port(_) if note.routed => continue,\n            Verdict::Port(_) => match way.to {",
        test: "policy_route_tests",
        loom: false,
    },
    Mistake {
        what: "network policies are not asked about ports that are used again",
        file: "table/flow/tcp.rs",
        right: "Stage::TimeWait | Stage::Closed if !answers => Err(Refused::Reopens),",
        wrong: "Stage::TimeWait | Stage::Closed if !answers => Err(Refused::Passes),",
        test: "tcp_policy_tests",
        loom: false,
    },
    Mistake {
        what: "lists are not asked about what leaves by the port that it came in by",
        file: "pipeline/admit.rs",
        right: "if asking.itself && !view.facts.acl.is_listed() => continue",
        wrong: "if asking.itself => continue",
        test: "acl_frame_tests",
        loom: false,
    },
    Mistake {
        what: "where lists are asked, a pod that is isolated does not reach itself",
        file: "pipeline/judge.rs",
        right: "if asking.itself || is_node(src) {",
        wrong: "if is_node(src) {",
        test: "acl_frame_tests",
        loom: false,
    },
    Mistake {
        what: "a connection under policies is taken up wherever somebody says that it is",
        file: "table/flow/mod.rs",
        right: "let is_old = last_s < since_s || last_s == since_s && seen.now_s <= since_s + 1;",
        wrong: "let is_old = last_s.max(since_s) > 0;",
        test: "tcp_policy_tests",
        loom: false,
    },
    Mistake {
        what: "policies that come back find ports that were always seen",
        file: "table/flow/kept.rs",
        right: "(Some(true), Port::Unseen) => Port::Again(now_s),",
        wrong: "(Some(true), Port::Unseen) if now_s == 0 => Port::Again(now_s),\n                (Some(true), Port::Unseen) => Port::Seen,",
        test: "tcp_policy_tests",
        loom: false,
    },
    Mistake {
        what: "an answer that a pod sends itself is taken for another's where lists are asked",
        file: "pipeline/admit.rs",
        right: "Tracked::Known(place) if asking.itself || way.is_itself(view, track) => {",
        wrong: "Tracked::Known(place) if way.is_itself(view, track) => {",
        test: "acl_frame_tests",
        loom: false,
    },
];
