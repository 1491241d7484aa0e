//! Mistakes about tunnels.

use super::Mistake;

pub(super) const TUNNEL: &[Mistake] = &[
    Mistake {
        what: "whoever knows a tunnel's VNI may speak into it",
        file: "pipeline/tunnel.rs",
        right: "if !tunnel.knows(udp.src) {",
        wrong: "if udp.src == 0 {",
        test: "only_known_ends_are_listened_to",
        loom: false,
    },
    Mistake {
        what: "a first fragment comes out of a tunnel as if it were whole",
        file: "pipeline/tunnel.rs",
        right: "if udp.is_fragment {",
        wrong: "if udp.is_fragment && udp.port.is_none() {",
        test: "pieces_do_not_come_out",
        loom: false,
    },
    Mistake {
        what: "a checksum inside is left to a device that sees only what is around it",
        file: "pipeline/tunnel.rs",
        right: "if let Csum::Partial { start, field } = unfinished {",
        wrong: "if let (Csum::Partial { start, field }, true) = (unfinished, dst == 0) {",
        test: "a_superframe_goes_in_in_segments",
        loom: false,
    },
    Mistake {
        what: "what is for a tunnel is taken on any bridge",
        file: "pipeline/tunnel.rs",
        right: "tunnel.local == dst && tunnel.at == note.fid",
        wrong: "tunnel.local == dst",
        test: "nobody_on_another_bridge_speaks_as_a_far_end",
        loom: false,
    },
    Mistake {
        what: "a tunnel goes into a tunnel",
        file: "pipeline/outside.rs",
        right: "Verdict::Drop(DropReason::TunnelLoop)",
        wrong: "Verdict::Port(port)",
        test: "a_station_that_nobody_declared_and_a_way_that_leads_back",
        loom: false,
    },
    Mistake {
        what: "congestion outside is not told inside",
        file: "wire/vxlan.rs",
        right: "(_, CE) => Some(CE),",
        wrong: "(CE, CE) => Some(CE),",
        test: "ecn_comes_out_as_the_rfc_has_it",
        loom: false,
    },
    Mistake {
        what: "a tunnel's MTU is that of what carries it",
        file: "config/tunnels.rs",
        right: "mtu.saturating_sub(vxlan::mtu_less(is_v4(local)))",
        wrong: "mtu",
        test: "what_does_not_fit_is_told",
        loom: false,
    },
    Mistake {
        what: "a NIC's program does not take what tunnels are sent",
        file: "config/taken.rs",
        right: "shared.entry((ip, UDP)).or_default().insert(PortRange { first: port, last: port });",
        wrong: "shared.entry((ip, TCP)).or_default().insert(PortRange { first: port, last: port });",
        test: "of_the_nics_own_address_one_port_is_taken",
        loom: false,
    },
];
