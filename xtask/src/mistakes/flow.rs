//! Mistakes in which flow a packet belongs to, and what it may say there.

use super::Mistake;

pub(super) const FLOWS: &[Mistake] = &[
    Mistake {
        what: "fragments of a segment that was refused push the window away under its real sender",
        file: "table/flow/tcp.rs",
        right: "if !before(may_until, end) {\n        record.set_window(side, Window { end, ..own });",
        wrong: "if own != other {\n        record.set_window(side, Window { end, ..own });",
        test: "no_later_fragment_pushes",
        loom: false,
    },
    Mistake {
        what: "a later fragment is counted before anybody knows what the other end takes",
        file: "table/flow/tcp.rs",
        right: "if state.stage == Stage::SynSent {\n        return;",
        wrong: "if state.stage == Stage::Dead {\n        return;",
        test: "no_later_fragment_pushes",
        loom: false,
    },
    Mistake {
        what: "of packets in pieces the youngest makes room",
        file: "table/flow/fragments.rs",
        right: "there.min_by_key(",
        wrong: "there.max_by_key(",
        test: "firsts_that_nothing_follows",
        loom: false,
    },
    Mistake {
        what: "a jumbo packet is cut although its pieces find no frames",
        file: "pipeline/slow.rs",
        right: "large(cut) <= pool.free_large()",
        wrong: "large(cut) <= pool.free()",
        test: "a_packet_is_cut_whole",
        loom: false,
    },
    Mistake {
        what: "whoever has an address of IPv6 that ends in zeros is not heard",
        file: "pipeline/hear.rs",
        right: "ip == 0 || ip == V4_MAPPED",
        wrong: "ip as u32 == 0",
        test: "ends_in_zeros_is_heard",
        loom: false,
    },
    Mistake {
        what: "flows are filed by a number that their routing table has for a snapshot only",
        file: "config/snapshot.rs",
        right: "of_vrf.filter(|_| gateway.is_some()).unwrap_or(*fid)",
        wrong: "gateway.as_ref().map_or(*fid, |gateway| ZONE_VRF + gateway.vrf + of_vrf.map_or(0, |_| 0))",
        test: "flows_are_known_whichever",
        loom: false,
    },
];
