//! `admit`: whether network policies let a packet through: those of the workload it comes from, those of the one it
//! goes to. Only where a port is isolated by one; who is to have a flooded copy is asked for each copy.
//!
//! A flow is asked about once, for its first packet, and again when what the policies of its two ports say has
//! another epoch: always as its originator's packet, whichever end speaks. So answers pass, and a flow that is no longer
//! allowed stops.

use super::flow::{self, Track, Tracked};
use super::note::Note;
use super::verdict::Verdict;
use super::{Private, View};
use crate::config::snapshot::PortFacts;
use crate::counter::{Counters, DropReason};
use crate::frame::{Area, Frame};
use crate::wire::ethernet::{ARP, IPV4, IPV6};
use crate::wire::hop::{self, Hop};
use crate::wire::ip::{self, ICMPV6, SCTP, TCP, UDP, Version};

/// Neighbour discovery (RFC 4861 §4): router solicitation to redirect.
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// What policies are asked about.
#[derive(Clone, Copy, Debug)]
struct Packet {
    src: u128,
    dst: u128,
    /// Class of protocol and destination port.
    class: u16,
}

/// What is read of a frame.
enum Read {
    /// No policy is about it: ARP and neighbour discovery, without which nobody reaches anybody.
    Exempt,
    Packet(Packet),
}

#[inline]
pub(super) fn run(view: &View, area: &Area, frames: &[Frame], notes: &mut [Note], private: &mut Private) {
    for (index, (frame, note)) in frames.iter().zip(notes).enumerate() {
        let (track, counters) = (&private.flows.tracks[index], &*private.counters);
        let outcome = match note.verdict {
            // A pod always reaches itself.
            Verdict::Port(port) if port == view.in_port => continue,
            Verdict::Port(port) => match view.snapshot.port(port) {
                Some(to) if view.facts.subject.is_isolated() || to.subject.is_isolated() => {
                    tracked(view, area.bytes(frame), note, to, track, counters)
                }
                _ => continue,
            },
            // The way out of its sender is the same for every copy.
            Verdict::Flood(_) if view.facts.subject.egress.is_some() => {
                way_out(view, area.bytes(frame), note, track, counters)
            }
            _ => continue,
        };
        if let Err(reason) = outcome {
            note.verdict = Verdict::Drop(reason);
        }
    }
}

/// Whether a flooded copy may leave by `to`.
#[inline]
pub(super) fn copy(
    view: &View,
    area: &Area,
    frame: &Frame,
    note: &Note,
    to: &PortFacts,
    counters: &Counters,
) -> Result<(), DropReason> {
    if to.subject.ingress.is_none() {
        return Ok(());
    }
    match read(view, area.bytes(frame), note)? {
        Read::Exempt => Ok(()),
        Read::Packet(packet) => ingress(view, &packet, view.facts, to, counters),
    }
}

/// By its flow, if it has one.
#[inline]
fn tracked(
    view: &View,
    bytes: &[u8],
    note: &Note,
    to: &PortFacts,
    track: &Track,
    counters: &Counters,
) -> Result<(), DropReason> {
    let (flows, decision) = (&view.tables.flows, flow::decision(view, note.verdict));
    // Whoever poses as another end of a flow is asked as anybody: the flow says nothing about it.
    let is_itself = to.subject.ingress.is_none() || view.facts.subject.may_be(track.packet.src);
    match track.tracked {
        Tracked::Known(place) if is_itself => {
            if flows.decision(place) == decision {
                return Ok(());
            }
            let packet = track.packet;
            if flows.state(place).origin() == track.side {
                both(view, &first(view, track), view.facts, to, counters)?;
            } else {
                let class = class(view, packet.protocol, packet.ports[0]);
                let turned = Packet { src: packet.dst, dst: packet.src, class };
                both(view, &turned, to, view.facts, counters)?;
            }
            flows.decide(place, decision);
            Ok(())
        }
        Tracked::Known(_) => Err(DropReason::PolicySource),
        // About a flow that is allowed; if it is asked about again, by its own next packet.
        Tracked::Related(place) if flows.decision(place) == decision => Ok(()),
        Tracked::Related(_) => Err(DropReason::PolicyIngress),
        Tracked::Missing => both(view, &first(view, track), view.facts, to, counters),
        Tracked::Not | Tracked::Control => match read(view, bytes, note)? {
            Read::Exempt => Ok(()),
            Read::Packet(packet) => both(view, &packet, view.facts, to, counters),
        },
    }
}

/// The packet as `track` read it; a later fragment has its first one's ports.
fn first(view: &View, track: &Track) -> Packet {
    let packet = &track.packet;
    Packet { src: packet.src, dst: packet.dst, class: class(view, packet.protocol, packet.ports[1]) }
}

fn class(view: &View, protocol: u8, port: u16) -> u16 {
    view.snapshot.policing.class(protocol, Some(port))
}

fn way_out(
    view: &View,
    bytes: &[u8],
    note: &Note,
    track: &Track,
    counters: &Counters,
) -> Result<(), DropReason> {
    if let Tracked::Known(place) = track.tracked
        && view.tables.flows.state(place).origin() != track.side
    {
        // An answer. What it answers was admitted, or it will be asked again once it is known where it goes.
        return Ok(());
    }
    match read(view, bytes, note)? {
        Read::Exempt => Ok(()),
        Read::Packet(packet) => egress(view, &packet, view.facts, counters),
    }
}

/// What the policies of both ends say of a first packet.
fn both(
    view: &View,
    packet: &Packet,
    from: &PortFacts,
    to: &PortFacts,
    counters: &Counters,
) -> Result<(), DropReason> {
    egress(view, packet, from, counters)?;
    ingress(view, packet, from, to, counters)
}

/// What the policies of the sender say.
fn egress(view: &View, packet: &Packet, from: &PortFacts, counters: &Counters) -> Result<(), DropReason> {
    let policing = &view.snapshot.policing;
    let Some(set) = from.subject.egress.filter(|_| !policing.is_node(packet.dst)) else { return Ok(()) };
    let verdict = policing.judge(set, policing.identity(packet.dst), packet.class);
    count(verdict, counters).map_err(|()| DropReason::PolicyEgress)
}

/// What the policies of the receiver say.
fn ingress(
    view: &View,
    packet: &Packet,
    from: &PortFacts,
    to: &PortFacts,
    counters: &Counters,
) -> Result<(), DropReason> {
    let Some(set) = to.subject.ingress else { return Ok(()) };
    let policing = &view.snapshot.policing;
    // Who is the node: its own addresses count, and only where the node is.
    if from.is_node && policing.is_node(packet.src) {
        return Ok(());
    }
    if !from.subject.may_be(packet.src) {
        return Err(DropReason::PolicySource);
    }
    let verdict = policing.judge(set, policing.identity(packet.src), packet.class);
    count(verdict, counters).map_err(|()| DropReason::PolicyIngress)
}

fn count(verdict: Result<u32, u32>, counters: &Counters) -> Result<(), ()> {
    let (Ok(slot) | Err(slot)) = verdict;
    if let Some(counter) = counters.rule(slot) {
        counter.add(1);
    }
    verdict.map(drop).map_err(drop)
}

fn read(view: &View, bytes: &[u8], note: &Note) -> Result<Read, DropReason> {
    let version = match note.ethertype() {
        ARP => return Ok(Read::Exempt),
        IPV4 => Version::V4,
        IPV6 => Version::V6,
        _ => return Err(DropReason::PolicyOpaque),
    };
    let packet = bytes.get(note.payload_at()..).unwrap_or_default();
    let opaque = |_| DropReason::PolicyOpaque;
    let read = ip::parse(packet, version).map_err(opaque)?;
    let hop: Hop = hop::read(packet, version).map_err(opaque)?;
    let transport = packet.get(read.transport_at..read.end).unwrap_or_default();
    if read.protocol == ICMPV6 && is_neighbour_discovery(transport, &hop, read.later_fragment) {
        return Ok(Read::Exempt);
    }
    let port = match read.protocol {
        // A later fragment has no ports: only rules that are about none are about it.
        TCP | UDP | SCTP if !read.later_fragment => {
            let port =
                transport.get(2..4).and_then(|port| port.first_chunk()).ok_or(DropReason::PolicyOpaque)?;
            Some(u16::from_be_bytes(*port))
        }
        _ => None,
    };
    let class = view.snapshot.policing.class(read.protocol, port);
    Ok(Read::Packet(Packet { src: hop.src, dst: hop.dst, class }))
}

/// Only from the link itself: a router would have taken one from the hop limit.
fn is_neighbour_discovery(transport: &[u8], hop: &Hop, later_fragment: bool) -> bool {
    hop.ttl == 255
        && !later_fragment
        && transport.first().is_some_and(|kind| NEIGHBOUR_DISCOVERY.contains(kind))
}
