//! Mistakes of network address translation.

use super::Mistake;

pub(super) const NAT: &[Mistake] = &[
    Mistake {
        what: "a datagram without a checksum gets one that is wrong",
        file: "wire/nat.rs",
        right: "if is_udp && be16(segment, field) == 0 {\n        return;",
        wrong: "if false {\n        return;",
        test: "wire::nat",
        loom: false,
    },
    Mistake {
        what: "whoever sees a translated flow's key may pose as its peer",
        file: "pipeline/translate.rs",
        right: "if from_origin == track.by_reply {",
        wrong: "if false {",
        test: "only_the_peer_may_answer",
        loom: false,
    },
    Mistake {
        what: "what an error quotes is turned the wrong way round",
        file: "pipeline/rewrite.rs",
        right: "ports: [to.port, from.port]",
        wrong: "ports: [from.port, to.port]",
        test: "errors_are_translated",
        loom: false,
    },
    Mistake {
        what: "a reply stays in the index when its flow goes",
        file: "table/flow/bound.rs",
        right: "reply.is_none_or(|bound| self.unlink(bound.other)) && self.unlink(place)",
        wrong: "{ let _ = reply; self.unlink(place) }",
        test: "bound_tests",
        loom: false,
    },
    Mistake {
        what: "two workers choose from the same ports",
        file: "nat/mod.rs",
        right: "let (from, to) = (cut(worker.min(workers)), cut((worker + 1).min(workers.max(1))));",
        wrong: "let (from, to) = (cut(0), cut((worker + 1).min(workers.max(1))));",
        test: "parts_of_a_range",
        loom: false,
    },
    Mistake {
        what: "what is nobody's is routed back",
        file: "pipeline/translate.rs",
        right: "view.snapshot.nat.has_address(vrf, ip)\n        &&",
        wrong: "false\n        &&",
        test: "what_is_nobodys",
        loom: false,
    },
];
