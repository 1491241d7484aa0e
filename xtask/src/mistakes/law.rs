//! Mistakes against the law of packets.

use super::Mistake;

pub(super) const LAW: &[Mistake] = &[
    Mistake {
        what: "a flooded copy comes from nowhere",
        file: "pipeline/emit.rs",
        right: "                    private.counters.ledger.copied.add(1);",
        wrong: "",
        test: "pipeline::l2_tests",
        loom: false,
    },
    Mistake {
        what: "what is cut up is one packet more",
        file: "pipeline/mod.rs",
        right: "(pieces as u64).wrapping_sub(1)",
        wrong: "pieces as u64",
        test: "pipeline::tests::superframes",
        loom: false,
    },
    Mistake {
        what: "a question for the switch goes nowhere",
        file: "pipeline/mod.rs",
        right: "        self.counters.ledger.consumed.add(1);",
        wrong: "",
        test: "pipeline::neighbour_tests",
        loom: false,
    },
    Mistake {
        what: "what the switch says comes from nowhere",
        file: "pipeline/slow.rs",
        right: "    slow.said.push((frame, note));\n    private.counters.ledger.generated.add(1);",
        wrong: "    slow.said.push((frame, note));",
        test: "pipeline::neighbour_tests",
        loom: false,
    },
    Mistake {
        what: "what a tunnel's packets came in goes nowhere",
        file: "pipeline/outside.rs",
        right: "self.private.counters.ledger.consumed.add(self.private.opened.len() as u64);",
        wrong: "",
        test: "pipeline::tunnel_tests",
        loom: false,
    },
    Mistake {
        what: "what goes to another worker goes nowhere",
        file: "worker/parcel.rs",
        right: "            counters.ledger.handed_over.add(count as u64);",
        wrong: "",
        test: "worker::inbox_tests",
        loom: false,
    },
    Mistake {
        what: "packets that move with their lane are doubled",
        file: "worker/turn/pause.rs",
        right: "            self.pipeline.private.counters.ledger.handed_over.add(luggage.len() as u64);",
        wrong: "",
        test: "what_waits_for_a_neighbour_moves_with_its_lane",
        loom: false,
    },
];
