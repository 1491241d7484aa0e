//! Mistakes about uplinks on NICs that stay the host's, and translation there.

use super::Mistake;

pub(super) const UPLINK: &[Mistake] = &[
    Mistake {
        what: "a lane takes in a batch a turn and never asks for more frames",
        file: "port/xdp/mod.rs",
        right: "(target * 2).min(ring)",
        wrong: "target.min(ring)",
        test: "a_lane_grows_with_what_comes",
        loom: false,
    },
    Mistake {
        what: "a lane takes all frames there are for itself",
        file: "port/xdp/mod.rs",
        right: ".min(there / 2)",
        wrong: ".min(there)",
        test: "a_lane_grows_with_what_comes",
        loom: false,
    },
    Mistake {
        what: "translation takes the host's own ports of its NIC's address",
        file: "config/taken.rs",
        right: "{ SHARED_PORTS } else { ports }",
        wrong: "{ ports } else { ports }",
        test: "of_the_nics_own_address_ports_are_taken",
        loom: false,
    },
    Mistake {
        what: "workers choose among all ports for an address that is shared",
        file: "nat/mod.rs",
        right: "if self.nics.contains(&ip)",
        wrong: "if self.nics.contains(&!ip)",
        test: "workers_choose_ports_that_are_not_the_hosts",
        loom: false,
    },
    Mistake {
        what: "an address of translation in the NIC's network is not asked for",
        file: "config/taken.rs",
        right: "taken.insert(Prefix::host(ip), Whose::Asked);",
        wrong: "taken.insert(Prefix::host(ip), Whose::Switchs);",
        test: "addresses_of_translation_are_taken",
        loom: false,
    },
    Mistake {
        what: "an address of translation is not announced on an uplink",
        file: "control/gratuitous.rs",
        right: "!own.is_empty() || !gateway.stands_for.is_empty()",
        wrong: "!own.is_empty()",
        test: "nothing_is_told_in_the_kernels_place",
        loom: false,
    },
    Mistake {
        what: "a port of a shared address is told as another bit",
        file: "port/xdp/networks.rs",
        right: "|= 1 << (port & 63)",
        wrong: "|= 1 << (port & 31)",
        test: "ports_are_bits_as_the_program",
        loom: false,
    },
    Mistake {
        what: "a published port leads pods past the kernel, too",
        file: "config/published.rs",
        right: "((way.fid, to_bits(ip), number(forward.protocol), forward.port), target)",
        wrong: "((0, to_bits(ip), number(forward.protocol), forward.port), target)",
        test: "what_comes_by_an_uplink_to_a_published_port",
        loom: false,
    },
];
