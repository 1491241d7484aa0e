//! Why the switch does something else than Linux, where it means to.

use super::seen::{Case, Seen, What};
use super::topology::is_link_local;
use std::net::IpAddr;

/// Whether this reason is the one.
type Fits = fn(&Case, &[Seen], &[Seen]) -> bool;

/// The reasons; the first that fits counts.
pub const REASONS: &[(&str, Fits)] = &[
    (
        "0/8 and 240/4 are no host's (RFC 1122 §3.2.1.3, RFC 1112 §4): Linux forwards them since 5.3 and 2.6.25",
        |case, switch, _| switch.is_empty() && [case.src, case.dst].into_iter().any(is_no_host),
    ),
    (
        "`::` and IPv4-mapped addresses are none of the wire (RFC 4291 §2.5.2, RFC 4942 §2.2): dropped, and nobody is told",
        |case, switch, _| switch.is_empty() && [case.src, case.dst].into_iter().any(is_internal),
    ),
    (
        "what comes from the switch's own address was not sent by it, also for IPv6, where Linux does not look",
        |case, switch, linux| {
            case.v6 && switch.is_empty() && !linux.is_empty() && case.topology.is_router(case.src)
        },
    ),
    (
        "the switch's address on another bridge as a source is the reverse-path check's business, which is a choice",
        |case, _, linux| !case.v6 && linux.is_empty() && case.topology.is_router(case.src),
    ),
    (
        "link-local destinations are reached on the link itself; the switch sends them nowhere (RFC 4291 §2.5.6)",
        |case, switch, _| is_link_local(case.dst) && !case.is_for_router() && switch.is_empty(),
    ),
    (
        "the lowest address of a network is its old broadcast address (RFC 1812 §4.2.2.11): nobody's, where Linux since 5.14 takes it for a host's",
        |case, switch, _| {
            let lowest = |ip| {
                case.topology
                    .links
                    .iter()
                    .flat_map(|link| &link.addresses)
                    .any(|own| own.len < 31 && own.network().address == ip)
            };
            !case.v6 && lowest(case.dst) && switch.is_empty()
        },
    ),
    (
        "answers and errors go back the way the packet came, by whatever station sent it, so that a made-up source sends them to nobody else; Linux asks its routes",
        |case, switch, linux| {
            let is_back = |seen: &Seen| {
                seen.link == case.link && matches!(seen.what, What::Said(_, dst, ..) if dst == case.src)
            };
            let same = |one: &Seen, other: &Seen| one.what == other.what || is_same_but_source(one, other);
            case.is_from_nobody_here()
                && !switch.is_empty()
                && switch.iter().all(is_back)
                && (linux.is_empty()
                    || case.packet.len() > 1280
                    || linux.len() == switch.len()
                        && switch.iter().zip(linux).all(|(one, other)| same(one, other)))
        },
    ),
    (
        "Linux tells one sender once a second that there is no route (net.ipv4.route.error_cost, which no namespace can change)",
        |_, switch, linux| {
            linux.is_empty()
                && matches!(switch, [Seen { what: What::Said(_, _, 1, [3, 0 | 1 | 13, ..], _), .. }])
        },
    ),
    (
        "the switch has no TCP: it tells of a closed port by ICMP (RFC 1122 §3.2.2.1), where Linux resets",
        |_, switch, linux| {
            let refuses = |seen: &[Seen]| {
                matches!(seen, [Seen { what: What::Said(_, _, 1 | 58, [3, 3, ..] | [1, 4, ..], _), .. }])
            };
            refuses(switch) && matches!(linux, [Seen { what: What::Said(_, _, 6, ..), .. }] | [])
        },
    ),
    ("hop-by-hop options are not looked into (RFC 8200 §4.3 lets a router)", |case, _, linux| {
        let is_problem = matches!(linux, [] | [Seen { what: What::Said(_, _, 58, [4, 2, ..], _), .. }]);
        case.v6
            && case.protocol() == 0
            && is_problem
            && case.packet.get(42).is_some_and(|option| option & 0xc0 != 0)
    }),
    (
        "IPv4 options are carried, not worked on (RFC 7126 §4): no timestamp, no recorded route, no judgement",
        |case, switch, linux| {
            let quoted = matches!((switch, linux), ([one], [other]) if is_same_but_quote(one, other));
            let carried = quoted
                || matches!(
                    switch,
                    [Seen { what: What::Passed(_), .. }] | [Seen { what: What::Passed(_), .. }, _]
                );
            !case.v6
                && case.header_len() > 20
                && (carried || matches!(linux, [Seen { what: What::Said(_, _, 1, [12, ..], _), .. }]))
        },
    ),
    ("of ICMP only echo is answered: no timestamps (RFC 1812 §4.3.3.8: MAY)", |_, switch, linux| {
        switch.is_empty() && matches!(linux, [Seen { what: What::Said(_, _, 1, [14, ..], _), .. }])
    }),
    ("an echo request with IPv4 options is not answered", |case, switch, _| {
        case.is_for_router() && !case.v6 && case.header_len() > 20 && switch.is_empty()
    }),
    (
        "a packet to the switch with a checksum of its own that is wrong is refused like any other",
        |case, switch, linux| {
            case.is_for_router()
                && linux.is_empty()
                && matches!(switch, [Seen { what: What::Said(..), .. }])
                && !is_checksum_right(case)
        },
    ),
    ("the switch puts no fragments together", |case, switch, _| {
        case.is_for_router() && case.is_fragment() && switch.is_empty()
    }),
    ("a request that is longer than its own link carries is not answered in pieces", |case, switch, _| {
        case.is_for_router()
            && switch.is_empty()
            && case.packet.len() > usize::from(case.topology.links[case.link].mtu)
    }),
    (
        "an error about what was sent to an address that several routers share comes from one of the switch's own (RFC 4443 §2.2)",
        |case, switch, linux| {
            let shared = matches!((switch, linux), ([one], [other]) if is_same_but_source(one, other));
            shared && case.is_for_shared()
        },
    ),
    (
        "behind extension headers the switch answers no echo and names no protocol that it does not speak",
        |case, switch, linux| {
            let answered = matches!(linux, [Seen { what: What::Said(_, _, 58, [129 | 4, ..], _), .. }]);
            case.v6 && switch.is_empty() && answered && matches!(case.protocol(), 0 | 43 | 44 | 60)
        },
    ),
    (
        "how long a packet may be is its neighbour's port's business: who is not there is told of first",
        |case, switch, linux| {
            let unreachable =
                matches!(switch, [Seen { what: What::Said(_, _, 1 | 58, [3, 1, ..] | [1, 3, ..], _), .. }]);
            let too_long =
                matches!(linux, [Seen { what: What::Said(_, _, 1 | 58, [3, 4, ..] | [2, 0, ..], _), .. }]);
            unreachable && too_long && case.packet.len() > 1280
        },
    ),
    (
        "what waits for its neighbour is cut when that is known: the error quotes the whole, Linux's the first piece",
        |_, switch, linux| matches!((switch, linux), ([one], [other]) if is_same_but_length(one, other)),
    ),
    ("the switch follows no routing header and judges none (RFC 5095)", |case, _, linux| {
        case.v6
            && case.protocol() == 43
            && matches!(linux, [Seen { what: What::Said(_, _, 58, [4, 0, ..], _), .. }])
    }),
    ("an error quotes what IP says the packet has; Linux what UDP says", |case, switch, linux| {
        let quoted = matches!((switch, linux), ([one], [other]) if is_same_but_quote(one, other));
        quoted && case.is_for_router() && case.protocol() == 17
    }),
    ("groups' addresses in a frame to the switch's own station are nobody's", |case, switch, _| {
        let is_group = matches!(case.dst, IpAddr::V6(ip) if ip.is_multicast());
        is_group && switch.is_empty()
    }),
    (
        "Linux asks for the station of an address that it has no route back to by broadcast",
        |_, _, linux| matches!(linux, [Seen { to, .. }] if *to == [0xff; 6]),
    ),
];

/// The first reason that fits.
pub fn reason(case: &Case, switch: &[Seen], linux: &[Seen]) -> Option<&'static str> {
    REASONS.iter().find(|(_, fits)| fits(case, switch, linux)).map(|(reason, _)| *reason)
}

fn is_no_host(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 0 || ip.octets()[0] >= 240)
}

fn is_internal(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unspecified() || ip.is_loopback() || ip.to_ipv4_mapped().is_some())
}

/// An error that quotes what was changed already.
fn is_same_but_quote(one: &Seen, other: &Seen) -> bool {
    match (&one.what, &other.what) {
        (What::Said(src, dst, protocol, word, _), What::Said(src_, dst_, protocol_, word_, _)) => {
            (src, dst, protocol, word) == (src_, dst_, protocol_, word_)
        }
        _ => false,
    }
}

/// An error that another of the router's addresses tells.
fn is_same_but_source(one: &Seen, other: &Seen) -> bool {
    match (&one.what, &other.what) {
        (What::Said(_, dst, protocol, word, rest), What::Said(_, dst_, protocol_, word_, rest_)) => {
            (dst, protocol, word, rest) == (dst_, protocol_, word_, rest_)
        }
        _ => false,
    }
}

fn is_same_but_length(one: &Seen, other: &Seen) -> bool {
    match (&one.what, &other.what) {
        (What::Said(src, dst, protocol, word, rest), What::Said(src_, dst_, protocol_, word_, rest_)) => {
            let behind = |quote: &[u8]| quote.get(12..).map(<[u8]>::to_vec);
            (src, dst, protocol, word) == (src_, dst_, protocol_, word_)
                && word[..2] == [3, 1]
                && behind(rest) == behind(rest_)
        }
        _ => false,
    }
}

/// As another reader finds it.
fn is_checksum_right(case: &Case) -> bool {
    let Ok(sliced) = etherparse::SlicedPacket::from_ip(case.packet) else { return true };
    let (Some(net), Some(transport)) = (&sliced.net, &sliced.transport) else { return true };
    let payload = net.ip_payload_ref().map_or(&[][..], |payload| payload.payload);
    match (net, transport) {
        (etherparse::NetSlice::Ipv4(ip), etherparse::TransportSlice::Udp(udp)) => {
            udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), &payload[8..]) == Ok(udp.checksum())
        }
        (etherparse::NetSlice::Ipv6(ip), etherparse::TransportSlice::Udp(udp)) => {
            udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), &payload[8..]) == Ok(udp.checksum())
        }
        _ => true,
    }
}
