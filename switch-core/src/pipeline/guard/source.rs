//! What a guarded port says of itself: its MAC and IP addresses, in the frames it sends and in what ARP and neighbour
//! discovery tell others; and nothing that only routers and DHCP servers say. Each packet is asked for itself: a
//! flow proves nothing about who sends.

#[cfg(test)]
mod tests;

use super::super::note::Note;
use super::super::verdict::Verdict;
use crate::config::source_guard::Guard;
use crate::counter::DropReason;
use crate::frame::{Area, Frame};
use crate::wire::ethernet::{ARP, IPV4, IPV6, is_tag};
use crate::wire::hop::V4_MAPPED;
use crate::wire::ip::{self, ICMPV6, TCP, UDP, Version};
use crate::wire::{be16, be32};

/// Ethernet and IPv4, with addresses of 6 and 4 bytes (RFC 826).
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_LEN: usize = 28;
/// UDP ports of servers and clients: DHCP (RFC 2131 §4.1), DHCPv6 (RFC 8415 §7.2).
const DHCP: (u16, u16) = (67, 68);
const DHCPV6: (u16, u16) = (547, 546);
/// ICMPv6 types (RFC 4861 §4, RFC 2710, RFC 3810).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const MLD: [u8; 4] = [130, 131, 132, 143];

pub(super) fn run(guard: &Guard, area: &Area, frames: &[Frame], notes: &mut [Note]) {
    for (frame, note) in frames.iter().zip(notes).filter(|(_, note)| note.is_undecided()) {
        if let Err(reason) = judge(guard, note, area.bytes(frame)) {
            note.verdict = Verdict::Drop(reason);
        }
    }
}

fn judge(guard: &Guard, note: &Note, bytes: &[u8]) -> Result<(), DropReason> {
    if !guard.has_mac(note.src()) {
        return Err(DropReason::SpoofedMac);
    }
    let packet = bytes.get(note.payload_at()..).unwrap_or_default();
    match note.ethertype() {
        ARP => arp(guard, packet),
        IPV4 => v4(guard, packet),
        IPV6 => v6(guard, packet),
        tag if is_tag(tag) => Err(DropReason::StackedTag),
        // Says nothing of an IP address.
        _ => Ok(()),
    }
}

/// The sender's two addresses. All zero is who has none yet and asks whether it may have one (RFC 5227 §2.1.1).
fn arp(guard: &Guard, packet: &[u8]) -> Result<(), DropReason> {
    let spoofed = DropReason::SpoofedNeighbour;
    let packet = packet.first_chunk::<ARP_LEN>().ok_or(spoofed)?;
    let (mac, address) = (mac_at(packet, 8), be32(packet, 14));
    let is_own = address == 0 || guard.has_address(V4_MAPPED | u128::from(address));
    let is_plain = packet[..6] == ARP_ETHERNET_IPV4;
    (is_plain && guard.has_mac(mac) && is_own).then_some(()).ok_or(spoofed)
}

fn v4(guard: &Guard, packet: &[u8]) -> Result<(), DropReason> {
    let read = ip::parse(packet, Version::V4).map_err(|_| DropReason::IpHeader)?;
    let (src, dst) = (be32(packet, 12), be32(packet, 16));
    let ports = udp_ports(packet, &read);
    if src == 0 {
        // A host without an address asks for one.
        let asks = dst == u32::MAX && ports == Some((DHCP.1, DHCP.0));
        return asks.then_some(()).ok_or(DropReason::SpoofedAddress);
    }
    if !guard.has_address(V4_MAPPED | u128::from(src)) {
        return Err(DropReason::SpoofedAddress);
    }
    if ports == Some(DHCP) { Err(DropReason::RogueServer) } else { Ok(()) }
}

fn v6(guard: &Guard, packet: &[u8]) -> Result<(), DropReason> {
    let src = packet.get(8..24).and_then(|src| src.first_chunk()).ok_or(DropReason::IpHeader)?;
    let src = u128::from_be_bytes(*src);
    if src != 0 && !guard.has_address(src) {
        return Err(DropReason::SpoofedAddress);
    }
    // Most packets are of TCP and have no extension headers.
    if packet[6] == TCP && src != 0 {
        return Ok(());
    }
    let read = ip::parse(packet, Version::V6).map_err(|_| DropReason::IpHeader)?;
    let message = packet.get(read.transport_at..read.end).unwrap_or_default();
    match read.protocol {
        ICMPV6 if !read.later_fragment => icmpv6(guard, message, src == 0),
        _ if src == 0 => Err(DropReason::SpoofedAddress),
        UDP if udp_ports(packet, &read) == Some(DHCPV6) => Err(DropReason::RogueServer),
        _ => Ok(()),
    }
}

/// A message of ICMPv6 from an address that is the port's own, or from none.
fn icmpv6(guard: &Guard, message: &[u8], from_none: bool) -> Result<(), DropReason> {
    let kind = *message.first().ok_or(DropReason::IpHeader)?;
    let target =
        || message.get(8..24).and_then(|target| target.first_chunk()).map(|it| u128::from_be_bytes(*it));
    let is_own = || target().is_some_and(|target| guard.has_address(target));
    let spoofed = DropReason::SpoofedNeighbour;
    match kind {
        ROUTER_ADVERTISEMENT | REDIRECT => Err(DropReason::RogueServer),
        ROUTER_SOLICITATION => options(guard, message.get(8..)),
        // From nobody: whether somebody else has the address that it is about to take (RFC 4862 §5.4).
        NEIGHBOUR_SOLICITATION if from_none && !is_own() => Err(spoofed),
        NEIGHBOUR_ADVERTISEMENT if from_none || !is_own() => Err(spoofed),
        NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => options(guard, message.get(24..)),
        // A host that has no address yet tells which groups it listens to (RFC 3590 §4).
        kind if from_none && !MLD.contains(&kind) => Err(DropReason::SpoofedAddress),
        _ => Ok(()),
    }
}

/// The MACs in the options of neighbour discovery (RFC 4861 §4.6.1): source and target are the sender.
fn options(guard: &Guard, options: Option<&[u8]>) -> Result<(), DropReason> {
    let mut rest = options.ok_or(DropReason::SpoofedNeighbour)?;
    while let [kind, eights, ..] = *rest {
        let len = usize::from(eights) * 8;
        if len == 0 || len > rest.len() || matches!(kind, 1 | 2) && !guard.has_mac(mac_at(rest, 2)) {
            return Err(DropReason::SpoofedNeighbour);
        }
        rest = &rest[len..];
    }
    Ok(())
}

/// Source and destination; none where there is no UDP header.
fn udp_ports(packet: &[u8], read: &ip::Ip) -> Option<(u16, u16)> {
    let is_udp = read.protocol == UDP && !read.later_fragment;
    let segment = packet.get(read.transport_at..read.end).filter(|segment| is_udp && segment.len() >= 4)?;
    Some((be16(segment, 0), be16(segment, 2)))
}

/// The low 48 bits of a word.
fn mac_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(be16(bytes, at)) << 32 | u64::from(be32(bytes, at + 2))
}
