//! Why a frame was dropped, and where. A person finds the name in `switch-ctl stats`, with the stage and the sentence beside it.

use super::Stage;

macro_rules! reasons {
    ($($stage:ident { $($variant:ident = $name:literal: $meaning:literal,)* })*) => {
        /// A reason; [`DropReason::name`] is stable, scripts may rely on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $meaning] $variant,)*)*
        }

        impl DropReason {
            /// All, in order.
            pub const ALL: &[Self] = &[$($(Self::$variant,)*)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $($(Self::$variant => $name,)*)* }
            }

            /// What it means and, where there is something to do, what.
            pub fn meaning(self) -> &'static str {
                match self { $($(Self::$variant => $meaning,)*)* }
            }

            /// The stage whose matter it is, which decides so; now and then another one meets it first, which a trace says of the
            /// frame at hand. What is worked off behind the list, like questions for the switch itself, is `route`'s, which set it aside.
            pub fn stage(self) -> Stage {
                match self { $($(Self::$variant)|* => Stage::$stage,)* }
            }
        }
    };
}

reasons! {
    Recv {
        Giant = "giant": "in a capture that is replayed, longer than a frame of packet memory holds (`switchd --frame-size`)",
        VnetNotAgreed = "vnet-not-agreed": "a pod's virtio_net_hdr asks for what was never offered; its kernel does not, a program in it did",
        VnetChecksum = "vnet-checksum": "a pod's virtio_net_hdr leaves a checksum open that the frame does not have there",
        VnetSegments = "vnet-segments": "a pod's virtio_net_hdr says of a frame that it stands for several, which its headers do not bear out",
        RxMissed = "rx-missed": "the kernel had no frame or no ring entry to receive it into: the switch was asleep or behind",
        DeviceFull = "device-full": "the kernel dropped it at the port's device before the switch read it: the device's queue was full, so the switch was behind or stopped; or, of a veth pair into a pod, its ring was, so that the kernel was",
        DeadMan = "dead-man": "the program of an xdp port dropped it because nobody beat: the switch was stopped, hung or not there (`port add xdp --when-dead`); counted beyond its restart",
    }
    Parse {
        Runt = "runt": "shorter than an Ethernet header with its tag (14 or 18 bytes)",
        SourceZero = "source-mac-zero": "the source MAC is 00:00:00:00:00:00: no station has it",
        SourceGroup = "source-mac-group": "the source MAC is a group address: only a destination may be one",
    }
    Guard {
        VlanTagged = "vlan-tagged": "a tagged frame on an access port; make the port a trunk if it should carry tags",
        VlanUntagged = "vlan-untagged": "a frame without a tag on a trunk without a native VLAN",
        VlanNotMember = "vlan-not-member": "the port is not a member of the frame's VLAN",
        LoopBlocked = "loop-blocked": "a loop was found behind this port; find the cable or bridge that joins two ports",
        LoopProbe = "loop-probe": "the switch's own loop probe came back by this port",
        SpoofedMac = "spoofed-mac": "from a MAC that the port's source guard does not name; `switch-ctl port show` shows what it names",
        SpoofedAddress = "spoofed-address": "from an IP address that the port's source guard does not name; `switch-ctl port show` shows what it names",
        SpoofedNeighbour = "spoofed-neighbour": "ARP or neighbour discovery that gives a guarded port somebody else's address or MAC, or cannot be read",
        StackedTag = "stacked-tag": "one VLAN tag behind another, or a service tag, from a guarded port: hosts take such tags off, and what is behind them nobody has looked at",
        RogueServer = "rogue-server": "a router advertisement, a redirect or a DHCP server's answer from a guarded port: what is behind it is an end host",
        RateLimitedRx = "rate-limited-rx": "more packets or bytes than the port may send: `port set NAME --limit-rx-packets --limit-rx-bytes`; `switch-ctl port show` shows its limits",
    }
    Learn {
        SourcePinned = "source-mac-pinned": "the source MAC is a static entry of another port",
    }
    Tunnel {
        TunnelHeader = "tunnel-header": "to an end of a tunnel, but no frame is in it, or it says no VNI, or stands for several packets",
        TunnelVni = "tunnel-vni": "to the address and port of a tunnel, with the VNI of none; `switch-ctl tunnel list` shows those there are",
        TunnelStranger = "tunnel-stranger": "to an end of a tunnel, from an address that no station is declared to be behind: `switch-ctl tunnel list` shows the ends there are",
        TunnelFragment = "tunnel-fragment": "a fragment, to an end of a tunnel: its sender's MTU is larger than what carries the tunnel allows",
        TunnelEcn = "tunnel-ecn": "out of a tunnel on which congestion was marked, and whose sender cannot be told (RFC 6040)",
        TunnelStation = "tunnel-station": "into a tunnel, to a station of which nobody said behind which end it is: `switch-ctl fdb add MAC --bridge B --port T --dst ADDRESS`",
        TunnelLoop = "tunnel-loop": "the way to the far end of a tunnel leads into a tunnel; `switch-ctl route get ADDRESS` shows it",
    }
    Track {
        TcpFlags = "tcp-flags": "TCP flags that no segment has together, like SYN with FIN: a scan, or a broken sender",
        TcpWindow = "tcp-window": "TCP outside the window of its connection: forged, or older than the connection is",
        FlowState = "flow-state": "it does not fit what its flow has come to: an answer before the question, a wrong SCTP tag",
        NoFlow = "no-flow": "nothing begins so and there is no flow it belongs to: TCP without SYN (see `switchd --flow-pickup`), an answer nobody asked for",
        FlowPortLimit = "flow-port-limit": "the port has as many flows as it may; `switch-ctl flow list --port NAME` shows them",
        ConnectionLimit = "connection-limit": "as many flows as may (`port set NAME --limit-connections`) began at the port and are not over; `switch-ctl flow list --port NAME` shows them",
        FlowTableFull = "flow-table-full": "there are as many flows as the table holds; see `switchd --flows`",
        FlowBusy = "flow-busy": "another worker was writing a flow at the same place, or has yet to give up a translated one that is over (within 4 s); the sender's next attempt will do",
        IcmpUnrelated = "icmp-unrelated": "an ICMP error about a packet of no flow, or sent to somebody else than the packet's sender",
        FragmentTiny = "fragment-tiny": "a first fragment too short for its transport header: made to hide it",
        FragmentOverlap = "fragment-overlap": "a fragment that lies over the first one of its packet",
        FragmentNoFirst = "fragment-no-first": "a fragment whose first one has not passed (within 30 s)",
        FragmentFull = "fragment-table-full": "another worker was noting a packet in fragments at the same place; the sender's next attempt will do (of too many at a time the oldest of the port that has most makes room)",
    }
    Translate {
        NatNone = "nat-none": "to an address of network address translation, for which there is neither a flow nor a rule; `switch-ctl nat list` shows the rules",
        NatExhausted = "nat-exhausted": "no source port is free for this peer; give the rule more ports or addresses: `switch-ctl nat list` shows how many are in use",
        NatFlooded = "nat-flooded": "to be translated and flooded where policies judge: its destination is not known as a station just now",
    }
    Route {
        SourceOurs = "source-mac-ours": "the source MAC is the bridge's own: something sends the switch's frames back, or poses as it",
        NotRouted = "not-routed": "to the bridge's own MAC, but neither IPv4, IPv6 nor ARP",
        IpHeader = "ip-header": "an IP header that is cut short or contradicts itself",
        IpChecksum = "ip-checksum": "the IPv4 header's checksum is wrong",
        MartianSource = "martian-source": "to be routed from an address that no such packet has: 0/8, 127/8, a group, or the switch's own",
        ReversePath = "reverse-path": "from an address to which no route leads back the way it came (`bridge set NAME --reverse-path`); `switch-ctl route get ADDRESS` shows which does",
        MartianDestination = "martian-destination": "to be routed to an address that no router forwards to: a group, 0/8, 127/8, another's link-local",
        SourceRoute = "source-route": "an IPv4 source route option: the sender wants to choose the way",
        DirectedBroadcast = "directed-broadcast": "to the broadcast address of a network that the switch routes for",
        LinkScope = "link-scope": "from a link-local address to another network",
        NoRoute = "no-route": "no route leads to the destination; `switch-ctl route get ADDRESS` explains",
        KernelLoop = "kernel-loop": "from the node's kernel, and no route but the one back to it; see `ip route get ADDRESS` there",
        Blackhole = "blackhole": "a blackhole route",
        Prohibited = "prohibited": "a prohibit route forbids the destination",
        TtlExpired = "ttl-expired": "its TTL or hop limit ran out here: far away, or going round in a loop",
        NeighbourFailed = "neighbour-failed": "the next hop did not answer ARP or neighbour solicitation",
        NeighbourFull = "neighbour-table-full": "too many neighbours are asked for already; see `switch-ctl neigh list` and `switchd --neighbours`",
        HoldFull = "hold-full": "too many packets wait for neighbours to answer",
        HostIgnored = "host-ignored": "for the switch itself, which does not speak this (fragments, ICMP other than ping)",
        HostLimit = "host-limit": "for the switch itself, more often than it answers one port",
    }
    Forward {
        LinkLocalGroup = "link-local-group": "to 01:80:c2:00:00:0x (LLDP, STP, pause …), which no bridge forwards",
        StormLimit = "storm-limit": "more broadcast, multicast or unknown unicast a second than the port's storm_pps",
        Hairpin = "hairpin": "the destination is behind the port the frame came from",
        Isolated = "isolated": "from one isolated port to another",
    }
    Admit {
        AclDenied = "acl-denied": "a rule of an access control list denies it; `switch-ctl acl stats` and the event `policy-drop` name the list and the rule",
        AclRejected = "acl-rejected": "a rule of an access control list rejects it, and its sender is told, up to 200 times a second; the event `policy-drop` names the list and the rule",
        PolicyEgress = "policy-egress": "the sender is isolated by network policies and none allows it; `switch-ctl policy explain` names the rule",
        PolicyIngress = "policy-ingress": "the receiver is isolated by network policies and none allows it; `switch-ctl policy explain` names the rule",
        DefaultEgress = "default-egress": "no list or policy decided, and the sending port's default verdict denies what it sends: `port set NAME --default-egress allow`, or an access control list that allows it",
        DefaultIngress = "default-ingress": "no list or policy decided, and the receiving port's default verdict denies what it is sent: `port set NAME --default-ingress allow`, or an access control list that allows it",
        PolicyRelated = "policy-related": "an ICMP error about a flow that policies and access control lists have not been asked about since they changed; the flow's own next packet asks them",
        PolicySource = "policy-source": "to a workload that is isolated, from an address that the sending workload does not have",
        PolicyDestination = "policy-destination": "the sending workload is isolated, to a workload that does not have the address it is sent to: only its own MAC leads there",
        PolicyOpaque = "policy-opaque": "no policy or access control list can be asked: neither ARP nor IP from or to a workload that is isolated, an IP header that contradicts itself, or one VLAN tag behind another, or a service tag, which hosts take off",
    }
    Egress {
        EgressVlan = "egress-vlan": "the destination's port is no longer a member of the frame's VLAN",
        MtuExceeded = "mtu-exceeded": "larger than the MTU of the port it was to leave by",
        NoHeadroom = "no-headroom": "no room in front of the frame for a VLAN tag, or for what a tunnel puts there",
    }
    Emit {
        FloodOff = "flood-off": "no known destination, and no port of the VLAN is given such frames",
        NoMember = "no-other-member": "to be flooded, but no other port is in the VLAN",
        PortClosed = "port-closed": "the port is not open: its policy is not in force yet, it is down, or it is going away",
        BadSuperframe = "bad-superframe": "a train of segments whose headers do not say how to cut it up",
        NoSegmentFrame = "no-segment-frame": "no free frame to cut a superframe into; give the switch more with --frames",
        TxQueueFull = "tx-queue-full": "the port it was to leave by takes frames slower than they come",
    }
    Flush {
        PortDown = "port-down": "the port that leads to the destination is down",
        NoCopyFrame = "no-copy-frame": "no free frame in the region of packet memory of the xdp port it was to leave by; give the switch more with --frames",
        RateLimitedTx = "rate-limited-tx": "more packets or bytes than the port it was to leave by may be sent: `port set NAME --limit-tx-packets --limit-tx-bytes`; `switch-ctl port show` shows its limits",
        InboxFull = "inbox-full": "the worker that serves the port it was to leave by is behind",
        TxRefused = "tx-refused": "the kernel refused the frame: its device is full, as a veth is whose other end takes nothing; it is too large for the device; or the device is going away",
    }
}

impl DropReason {
    /// Whether rules of policies, of access control lists or of translation, or a port's default verdict, decide so: the event says which
    /// (`policy-drop`, `nat-exhausted`).
    #[inline]
    pub fn is_of_rules(self) -> bool {
        matches!(self.stage(), Stage::Admit) || self == Self::NatExhausted
    }

    /// Whether anybody lost something by it: what is between two neighbours only (LLDP, STP) ends at the first bridge.
    pub fn is_worth_telling(self) -> bool {
        self != Self::LinkLocalGroup
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_name_and_its_place() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(DropReason::ALL.iter().enumerate().all(|(i, reason)| *reason as usize == i));
        assert!(DropReason::ALL.iter().all(|reason| !reason.meaning().is_empty()));
    }

    /// A person without the switch at hand finds them all in the guide. `UPDATE_GUIDE=1 cargo test guide` writes it anew.
    #[test]
    fn the_guide_has_every_reason() {
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/drops.md");
        let text = std::fs::read_to_string(guide).unwrap();
        let (words, _) = text.split_once("| reason |").unwrap();
        let row = |reason: &DropReason| {
            let meaning = reason.meaning().replace('|', "\\|");
            format!("| `{}` | `{}` | {meaning} |\n", reason.name(), reason.stage().name())
        };
        let rows: String = DropReason::ALL.iter().map(row).collect();
        let wanted =
            format!("{words}| reason | stage | what it means, and what to do |\n|---|---|---|\n{rows}");
        if std::env::var_os("UPDATE_GUIDE").is_some() {
            std::fs::write(guide, &wanted).unwrap();
        }
        assert!(
            text == wanted,
            "docs/guide/drops.md is not what the reasons say: UPDATE_GUIDE=1 cargo test guide"
        );
    }
}
