//! Packets to a router: most are ordinary but for one or two things.

use super::dice::Dice;
use super::topology::{Topology, is_link_local, link_local, router, station};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switch_api::Prefix;
use switch_core::wire::checksum::{fold, sum};

const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// For experiments (RFC 3692).
const UNKNOWN: u8 = 253;

/// A random frame from a link to the router's MAC.
pub fn frame(dice: &mut Dice, topology: &Topology, link: usize) -> Vec<u8> {
    let v6 = dice.chance(45);
    let src = source(dice, topology, link, v6);
    let dst = destination(dice, topology, link, v6);
    let sender = topology.answers(link, src).unwrap_or_else(|| station(link, usize::from(v6)));
    let mut frame = [&router(link)[..], &sender, if v6 { &[0x86, 0xdd] } else { &[8, 0] }].concat();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => packet_v4(dice, topology, &mut frame, src, dst),
        (IpAddr::V6(src), IpAddr::V6(dst)) => packet_v6(dice, topology, &mut frame, src, dst),
        _ => unreachable!("both are of one version"),
    }
    if frame.len() < 60 && dice.chance(60) {
        // As a device pads it.
        frame.resize(60, 0);
    } else if dice.chance(3) {
        let len = frame.len();
        frame.resize(len + dice.below(200) as usize, 0xee);
    }
    frame
}

/// The same network on a link, with another host in it.
fn host(own: &Prefix, n: u32) -> IpAddr {
    match own.network().address {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() | n).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() | u128::from(n)).into(),
    }
}

fn own(topology: &Topology, link: usize, v6: bool) -> Prefix {
    let mut own = topology.links[link].addresses.iter();
    *own.find(|own| own.address.is_ipv6() == v6).unwrap()
}

fn neighbour(topology: &Topology, link: usize, v6: bool) -> IpAddr {
    let mut stations = topology.links[link].stations.iter();
    *stations.find(|ip| ip.is_ipv6() == v6 && !is_link_local(**ip)).unwrap()
}

/// Addresses that are something else than a host's, and some far away.
fn odd(dice: &mut Dice, v6: bool) -> IpAddr {
    let v4s = [
        "127.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.1.2.3",
        "255.255.255.255",
        "240.1.2.3",
        "169.254.1.1",
        "77.1.2.3",
        "192.0.2.1",
    ];
    let v6s = [
        "::",
        "::1",
        "ff02::1",
        "ff02::2",
        "ff0e::1234",
        "ff01::1",
        "::ffff:10.0.0.4",
        "::10.0.0.4",
        "fe80::99",
        "fec0::1",
        "2001:db8::1",
        "64:ff9b::1",
    ];
    dice.one(if v6 { &v6s[..] } else { &v4s[..] }).parse().unwrap()
}

fn far(dice: &mut Dice, topology: &Topology, v6: bool) -> IpAddr {
    let routes: Vec<_> =
        topology.routes.iter().filter(|route| route.prefix.address.is_ipv6() == v6).collect();
    match routes.is_empty() {
        true => odd(dice, v6),
        false => host(&dice.one(&routes).prefix, 0),
    }
}

fn source(dice: &mut Dice, topology: &Topology, link: usize, v6: bool) -> IpAddr {
    let here = own(topology, link, v6);
    let other = (link + 1 + dice.below(2) as usize) % topology.links.len();
    match dice.below(100) {
        0..75 => neighbour(topology, link, v6),
        75..79 => neighbour(topology, other, v6),
        79..81 => host(&here, 7),
        81..83 => far(dice, topology, v6),
        83..85 => here.address,
        85..87 => own(topology, other, v6).address,
        87..89 => here.last(),
        89..90 => here.network().address,
        90..93 if v6 => topology.links[link].stations[2],
        _ => odd(dice, v6),
    }
}

fn destination(dice: &mut Dice, topology: &Topology, link: usize, v6: bool) -> IpAddr {
    let here = own(topology, link, v6);
    let other = (link + 1 + dice.below(2) as usize) % topology.links.len();
    let there = own(topology, other, v6);
    match dice.below(100) {
        0..40 => neighbour(topology, other, v6),
        40..58 => far(dice, topology, v6),
        58..68 => here.address,
        68..73 => there.address,
        73..76 => neighbour(topology, link, v6),
        // Nobody answers there.
        76..77 => host(&there, 6),
        77..80 => there.last(),
        80..83 => there.network().address,
        83..85 => here.last(),
        85..87 => here.network().address,
        87..90 if v6 => link_local(link).into(),
        87..88 => link_local(other).to_ipv4_mapped().map_or_else(|| odd(dice, v6), IpAddr::from),
        _ => odd(dice, v6),
    }
}

fn ttl(dice: &mut Dice) -> u8 {
    if dice.chance(80) { 64 } else { *dice.one(&[0, 1, 2, 255]) }
}

/// Bytes behind the IP header: mostly few, sometimes about as many as fit a link.
fn length(dice: &mut Dice, topology: &Topology) -> usize {
    match dice.below(100) {
        0..70 => dice.below(64) as usize,
        70..90 => {
            let mtu = dice.one(&topology.links).mtu as usize;
            (mtu - 40 + dice.below(40) as usize).min(1452)
        }
        _ => dice.below(1400) as usize,
    }
}

fn protocol(dice: &mut Dice, v6: bool) -> u8 {
    match dice.below(100) {
        0..50 => UDP,
        50..60 => TCP,
        60..95 => {
            if v6 {
                ICMPV6
            } else {
                ICMP
            }
        }
        _ => UNKNOWN,
    }
}

/// A message of `protocol` of at least `len` bytes; `pseudo` is the sum of what else its checksum is over.
fn message(dice: &mut Dice, protocol: u8, len: usize, pseudo: u64, quoted: &[u8]) -> Vec<u8> {
    let filler = |from: usize| (from..len.max(from)).map(|n| n as u8);
    let ports = [0x30, 0x39, 0x23, dice.below(256) as u8];
    let (mut bytes, at) = match protocol {
        UDP => {
            let len = len.max(8) as u16;
            ([&ports[..], &len.to_be_bytes(), &[0, 0]].concat(), Some(6))
        }
        TCP => ([&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0, 0, 0, 0, 0]].concat(), Some(16)),
        ICMP | ICMPV6 => {
            let v6 = protocol == ICMPV6;
            // Echo mostly; answers, errors, what only some answer.
            let kinds: &[u8] = if v6 { &[128, 128, 128, 129, 1, 3, 200] } else { &[8, 8, 8, 0, 3, 11, 13] };
            let kind = *dice.one(kinds);
            let quotes = matches!((v6, kind), (true, 1 | 3) | (false, 3 | 11));
            ([&[kind, 0, 0, 0, 0x12, 0x34, 0, 1][..], if quotes { quoted } else { &[] }].concat(), Some(2))
        }
        _ => (vec![], None),
    };
    bytes.extend(filler(bytes.len()));
    if let Some(at) = at {
        let pseudo = pseudo + bytes.len() as u64 + u64::from(protocol);
        let total = sum(&bytes) + if protocol == ICMP { 0 } else { pseudo };
        let mut checksum = !fold(total);
        if protocol == UDP && checksum == 0 {
            checksum = 0xffff;
        }
        if dice.chance(2) {
            checksum ^= 1;
        }
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

fn packet_v4(dice: &mut Dice, topology: &Topology, frame: &mut Vec<u8>, src: Ipv4Addr, dst: Ipv4Addr) {
    let options: &[u8] = match dice.below(100) {
        0..92 => &[],
        92..93 => &[1, 1, 1, 0],
        // Record route, with room; timestamp; router alert; unknown.
        93..94 => &[7, 7, 4, 0, 0, 0, 0, 0],
        94..95 => &[68, 8, 5, 0, 0, 0, 0, 0],
        95..96 => &[148, 4, 0, 0],
        96..97 => &[222, 4, 1, 2],
        // Source routes, loose and strict.
        97..98 => &[131, 7, 4, 10, 1, 0, 5, 0],
        98..99 => &[137, 7, 4, 10, 1, 0, 5, 0],
        // One that is longer than there is room.
        _ => &[7, 40, 4, 0],
    };
    let protocol = protocol(dice, false);
    let pseudo = sum(&src.octets()) + sum(&dst.octets());
    let quoted = [
        &[0x45, 0, 0, 28, 0, 1, 0, 0, 60, UDP, 0, 0][..],
        &dst.octets(),
        &src.octets(),
        &[0, 1, 0, 2, 0, 8, 0, 0],
    ];
    let len = length(dice, topology);
    let message = message(dice, protocol, len, pseudo, &quoted.concat());
    let header_len = 20 + options.len();
    let flags: u16 = match dice.below(100) {
        0..45 => 0x4000,
        45..92 => 0,
        // First, later and last fragments; the bit that is to be zero.
        92..94 => 0x2000,
        94..96 => 0x2010,
        96..98 => 0x0010,
        98..99 => 0x6000,
        _ => 0x8000,
    };
    let total = (header_len + message.len()) as u16;
    let total = if dice.chance(1) { total + 30 } else { total };
    let mut header = vec![0x40 | (header_len / 4) as u8, 0];
    header.extend(total.to_be_bytes());
    header.extend([0x77, 0x01]);
    header.extend(flags.to_be_bytes());
    header.extend([ttl(dice), protocol, 0, 0]);
    header.extend(src.octets());
    header.extend(dst.octets());
    header.extend(options);
    if dice.chance(1) {
        header[0] = *dice.one(&[0x44, 0x55, 0x65]);
    }
    let checksum = !fold(sum(&header)) ^ u16::from(dice.chance(1));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(header);
    frame.extend(message);
}

fn packet_v6(dice: &mut Dice, topology: &Topology, frame: &mut Vec<u8>, src: Ipv6Addr, dst: Ipv6Addr) {
    let last = protocol(dice, true);
    let pseudo = sum(&src.octets()) + sum(&dst.octets());
    let quoted =
        [&[0x60, 0, 0, 0, 0, 8, UDP, 60][..], &dst.octets(), &src.octets(), &[0, 1, 0, 2, 0, 8, 0, 0]]
            .concat();
    let len = length(dice, topology);
    let message = message(dice, last, len, pseudo, &quoted);
    // Headers between: their protocol and their bytes behind the first, which names the next.
    let between: &[(u8, [u8; 7])] = match dice.below(100) {
        0..86 => &[],
        86..88 => &[(0, [0, 1, 4, 0, 0, 0, 0])],
        // Hop-by-hop options nobody knows, by what is to be done about them.
        88..89 => &[(0, [0, 0x1e, 4, 0, 0, 0, 0])],
        89..90 => &[(0, [0, 0x5e, 4, 0, 0, 0, 0])],
        90..91 => &[(0, [0, 0x9e, 4, 0, 0, 0, 0])],
        91..92 => &[(0, [0, 0xde, 4, 0, 0, 0, 0])],
        92..94 => &[(60, [0, 1, 4, 0, 0, 0, 0])],
        // Type 0 routing, still to be followed or at its end.
        94..95 => &[(43, [0, 0, 1, 0, 0, 0, 0])],
        95..96 => &[(43, [0, 0, 0, 0, 0, 0, 0])],
        // First, later and only fragment.
        96..97 => &[(44, [0, 0, 1, 0, 0, 0, 7])],
        97..98 => &[(44, [0, 0, 0x11, 0, 0, 0, 7])],
        98..99 => &[(44, [0, 0, 0, 0, 0, 0, 7])],
        _ => &[(0, [0, 1, 4, 0, 0, 0, 0]), (60, [0, 1, 4, 0, 0, 0, 0]), (60, [0, 1, 4, 0, 0, 0, 0])],
    };
    let total = (8 * between.len() + message.len()) as u16;
    let total = if dice.chance(1) { total + 30 } else { total };
    let first = between.first().map_or(last, |(protocol, _)| *protocol);
    frame.extend([if dice.chance(1) { 0x40 } else { 0x60 }, 0, 0, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([first, ttl(dice)]);
    frame.extend(src.octets());
    frame.extend(dst.octets());
    for (n, (_, rest)) in between.iter().enumerate() {
        frame.push(between.get(n + 1).map_or(last, |(protocol, _)| *protocol));
        frame.extend(rest);
    }
    frame.extend(message);
}
