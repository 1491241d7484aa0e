//! `admit`: whether network policies and access control lists let a packet through: those of the port it comes from,
//! those of the one it goes to. Only where one of the two has any; who is to have a flooded copy is asked for each copy.
//! At each end lists of the tier `before` are asked first, then policies, then, if none of these isolates the port, lists
//! of the tier `after`.
//!
//! A flow is asked about once, for its first packet, and again when what is said of its two ports has
//! another epoch: always as its originator's packet, whichever end speaks. So answers pass, and a flow that is no longer
//! allowed stops. An answer is what goes back to the port that the flow began at ([`WayOut::leads_back`]); what speaks from the
//! other side of a flow and goes elsewhere is asked about as a beginning.

use super::flow::{self, Track, Tracked, WayOut};
use super::judge::{Asking, Denied, both, egress, ingress, is_of_link};
use super::note::Note;
use super::refusals::{Logged, Refusals, Refused, Who};
use super::verdict::{Verdict, Why};
use super::{Private, View, binding, foresee};
use crate::acl::{FrameHead, Header, Part, Ruling};
use crate::config::gateway::{Action, from_bits};
use crate::config::snapshot::{PortFacts, PortId};
use crate::counter::{Counters, DropReason};
use crate::frame::{Area, Frame};
use crate::table::atomic::SPREAD;
use crate::table::flow::keeper::Keeper;
use crate::table::flow::key::Key;
use crate::table::flow::record::Decision;
use crate::table::flow::watch::What;
use crate::wire::ethernet::{ARP, IPV4, IPV6, is_tag};
use crate::wire::hop::{self, Hop};
use crate::wire::ip::{self, ICMP, ICMPV6, SCTP, TCP, UDP, Version};
use crate::wire::packet::{Content, Packet};
use std::net::IpAddr;
use switch_api::Mac;

/// Neighbour discovery (RFC 4861 §4): router solicitation to redirect.
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// Of a tag, the bits that are the VLAN (IEEE 802.1Q).
const VID_MASK: u16 = 0x0fff;
/// Where a TCP header has its flags (RFC 9293 §3.1).
const TCP_FLAGS_AT: usize = 13;

/// What is read of a frame.
enum Read {
    /// Nobody is asked about it: ARP and neighbour discovery, without which nobody reaches anybody.
    Exempt,
    /// It is not IP: policies know nothing of it.
    NotIp,
    Packet(Header),
}

#[inline]
pub(super) fn run(view: &View, area: &Area, frames: &[Frame], notes: &mut [Note], private: &mut Private) {
    if !private.flows.begins.is_empty() {
        foresee::run(view, notes, private);
    }
    let mut way = WayOut::nowhere();
    if let Some(decision) = private.flows.agreed
        && let Some(first) = notes.first().map(|note| note.verdict)
        && notes.iter().all(|note| note.verdict == first)
    {
        way.follow(view, first);
        if way.admits_plain(decision) {
            return;
        }
    }
    for index in private.flows.asks {
        let note = &mut notes[index];
        way.follow(view, note.verdict);
        if way.settles(view, &private.flows.tracks[index]) {
            continue;
        }
        let frame = &frames[index];
        binding::write_out(view, &mut private.flows, index);
        let track = &private.flows.tracks[index];
        let mut asking = Asking::new(&private.counters);
        asking.itself = note.verdict == Verdict::Port(view.in_port);
        if track.tracked == Tracked::Missing && private.flows.begins.has(index) {
            asking.foreseen = private.foreseen[index];
        }
        let outcome = match note.verdict {
            // A pod always reaches itself. Lists may be about what is routed between two VLANs of one port.
            Verdict::Port(_) if asking.itself && !view.facts.acl.is_listed() => continue,
            Verdict::Port(_) => match way.to {
                Some(to) if view.facts.judged || to.judged => {
                    let keeper = &private.flows.keeper;
                    tracked(view, area.bytes(frame), note, (&way, to), track, keeper, &mut asking)
                }
                _ => {
                    settle(view, track, flow::decision(view, note.verdict));
                    continue;
                }
            },
            // The way out of its sender is the same for every copy.
            Verdict::Flood(_) if view.facts.judged => {
                way_out(view, area.bytes(frame), note, track, &mut asking)
            }
            _ => continue,
        };
        let (logged, stateless) = (asking.logged, asking.stateless);
        if !logged.is_empty() {
            log(view, area.bytes(frame), note, &logged, private, Some(index));
        }
        if stateless {
            forgo(view, &mut private.flows.tracks[index]);
        }
        if let Err(denied) = outcome {
            stop(view, area.bytes(frame), note, denied, private, index);
        }
    }
}

/// Of a flow about which nobody is asked here that is what is decided: one that began by a flood or by a piece of a packet has no decision yet.
#[cold]
fn settle(view: &View, track: &Track, decision: Decision) {
    let flows = &view.tables.flows;
    if let Tracked::Known(place) = track.tracked
        && flows.decision(place) != decision
    {
        flows.decide(place, &track.key, decision);
    }
}

/// No flow is made of a packet, unless its addresses or its way back are to be known by it.
#[cold]
fn forgo(view: &View, track: &mut Track) {
    let is_needed = view.facts.translated || view.snapshot.returns;
    if track.tracked == Tracked::Missing && !is_needed {
        track.tracked = Tracked::Not;
    }
}

/// Drops a packet, and tells of it if it is the first of its flow.
#[cold]
#[inline(never)]
fn stop(view: &View, bytes: &[u8], note: &mut Note, denied: Denied, private: &mut Private, index: usize) {
    let track = &private.flows.tracks[index];
    let to = way_of(note);
    note.verdict = match denied.reason {
        DropReason::AclRejected => Verdict::Aside(Why::Rejected),
        reason => Verdict::Drop(reason),
    };
    let who = who_of(track).or_else(|| who(bytes, note));
    let told = tell(view, note, to, who, denied, &mut private.refusals, &private.counters);
    if let Tracked::Known(place) = track.tracked
        && told
    {
        private.flows.keeper.tell(What::Judged(false), track.key, view.tables.flows.state(place));
    }
}

/// The port that a packet is to leave by; none: it is to be flooded.
fn way_of(note: &Note) -> Option<PortId> {
    if let Verdict::Port(port) = note.verdict { Some(port) } else { None }
}

/// Who speaks with whom, if the packet belongs to a flow.
fn who_of(track: &Track) -> Option<Who> {
    match track.tracked {
        Tracked::Missing | Tracked::Known(_) | Tracked::Related(_) => {
            let packet = &track.packet;
            Some(Who { src: packet.src, dst: packet.dst, protocol: packet.protocol, ports: packet.ports })
        }
        Tracked::Not | Tracked::Control | Tracked::Stray(_) => None,
    }
}

/// Tells what rules decided that want it told, for the first packet of a flow. `index`: its place in the batch; none: it is a
/// flooded copy.
#[cold]
#[inline(never)]
fn log(
    view: &View,
    bytes: &[u8],
    note: &Note,
    rulings: &[Ruling],
    private: &mut Private,
    index: Option<usize>,
) {
    let who = index.and_then(|index| who_of(&private.flows.tracks[index])).or_else(|| who(bytes, note));
    let to = way_of(note);
    for ruling in rulings {
        let logged = Logged { now: view.now, from: view.in_port, to, who, ruling: *ruling };
        // Each rule tells by itself.
        let hash = hash_of(view, note, to, who) ^ u64::from(ruling.slot).wrapping_mul(SPREAD);
        private.logs.note(hash, view.now, logged, &private.counters);
    }
}

/// The address whose owner alone is to have copies of a flooded packet, if there is one: its sender is isolated, and was asked about that
/// address. Who has another has no copy by the way.
pub(super) fn for_whom(
    view: &View,
    area: &Area,
    frame: &Frame,
    (note, index): (&Note, usize),
    private: &Private,
) -> Option<u128> {
    view.facts.subject.egress?;
    let Ok(Read::Packet(header)) = read(view, area.bytes(frame), note) else { return None };
    let [_, dst] = header.ends?;
    let dst = binding::real(view, private, index).unwrap_or(dst);
    let vrf = view.snapshot.gateway(note.fid).map(|gateway| gateway.vrf);
    let leads = vrf.and_then(|vrf| view.snapshot.routing.find(vrf, dst));
    if leads.is_some_and(|entry| entry.action == Action::Broadcast) {
        return None;
    }
    (is_ones(dst) && !is_of_link(dst)).then_some(dst)
}

/// Whether an address is one interface's, as far as can be seen without its network: not a group's, nor everybody's.
fn is_ones(ip: u128) -> bool {
    match from_bits(ip) {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_multicast(),
    }
}

/// Whether a flooded copy of the packet at `index` may leave by `to`.
#[inline]
pub(super) fn copy(
    view: &View,
    area: &Area,
    frame: &Frame,
    (note, index): (&Note, usize),
    (port, to): (PortId, &PortFacts),
    private: &mut Private,
) -> Result<(), DropReason> {
    let receives = to.subject.ingress.is_some() || to.acl.ingress.is_some();
    let asked = to.subject.egress.is_some() || to.acl.egress.is_some();
    let track = &private.flows.tracks[index];
    let is_related = matches!(track.tracked, Tracked::Related(_));
    let is_asked = receives || asked && is_answer_to(view, track, port) || view.facts.judged && is_related;
    if !is_asked {
        let is_held = to.strict || view.facts.strict;
        return if is_held { belongs(view, note, index, (port, to), private) } else { Ok(()) };
    }
    binding::write_out(view, &mut private.flows, index);
    let track = &private.flows.tracks[index];
    let mut asking: Asking = Asking::new(&private.counters);
    let bytes = area.bytes(frame);
    let outcome = match question(view, bytes, note, track) {
        Ok(Read::Packet(_))
            if let Some(said) = by_flow(view, bytes, note, (port, to), track, &mut asking) =>
        {
            said
        }
        Ok(Read::Exempt) => return Ok(()),
        Ok(Read::NotIp) if to.subject.ingress.is_some() => Err(DropReason::PolicyOpaque.into()),
        Ok(Read::NotIp) => ingress(view.snapshot, &not_ip(view, bytes, note), view.facts, to, &mut asking),
        Ok(Read::Packet(packet)) => ingress(view.snapshot, &packet, view.facts, to, &mut asking),
        Err(reason) => Err(reason.into()),
    };
    let (logged, stateless) = (asking.logged, asking.stateless);
    if !logged.is_empty() {
        log(view, area.bytes(frame), note, &logged, private, None);
    }
    match outcome {
        Ok(()) if stateless => Ok(()),
        Ok(()) => belongs(view, note, index, (port, to), private),
        Err(denied) => {
            let Private { refusals, counters, .. } = private;
            tell(view, note, Some(port), who(area.bytes(frame), note), denied, refusals, counters);
            Err(denied.reason)
        }
    }
}

/// Whether it is an answer in a flow that began at a port.
fn is_answer_to(view: &View, track: &Track, port: PortId) -> bool {
    let flows = &view.tables.flows;
    matches!(track.tracked, Tracked::Known(place)
        if flows.state(place).origin() != track.side && flows.began(place).0 == port)
}

/// Whether a copy that rules let through belongs to a flow of the port that is to have it, or begins one. It is made where the packet is for who is
/// behind that port: others who have a copy by the way leave nothing behind.
fn belongs(
    view: &View,
    note: &Note,
    index: usize,
    (port, to): (PortId, &PortFacts),
    private: &mut Private,
) -> Result<(), DropReason> {
    let track = &private.flows.tracks[index];
    match track.tracked {
        Tracked::Stray(reason) => Err(reason),
        Tracked::Missing if !flow::is_sought(view, note) => Ok(()),
        Tracked::Missing if to.subject.may_be(track.packet.dst) => {
            flow::confirm(view, private, index, flow::decision(view, Verdict::Port(port)))
        }
        Tracked::Missing if !view.tables.flows.begins(&track.seen(view)) => Err(DropReason::NoFlow),
        _ => Ok(()),
    }
}

/// What its flow says of a copy, if that says anything: of an answer what is said of what it answers, and of an error what is said of its flow.
fn by_flow(
    view: &View,
    bytes: &[u8],
    note: &Note,
    (port, to): (PortId, &PortFacts),
    track: &Track,
    asking: &mut Asking,
) -> Option<Result<(), Denied>> {
    let mut way = WayOut::nowhere();
    way.follow(view, Verdict::Port(port));
    let flows = &view.tables.flows;
    match track.tracked {
        Tracked::Known(place)
            if flows.state(place).origin() != track.side && way.leads_back(flows, place) =>
        {
            if !way.is_itself(view, track) {
                return Some(Err(DropReason::PolicySource.into()));
            }
            // What its sender says of what it answers was asked, for all copies.
            let answered = answered(view, bytes, note, track);
            let said = egress(view.snapshot, &answered, to, Some(view.facts), asking);
            if said.is_ok() && asking.stateless {
                // Answers are not allowed for being that.
                return Some(both(view.snapshot, &header(view, bytes, note, track), view.facts, to, asking));
            }
            Some(said)
        }
        Tracked::Related(_) if !way.is_itself(view, track) => Some(Err(DropReason::PolicySource.into())),
        Tracked::Related(place) if way.is_decided(flows.decision(place)) => Some(Ok(())),
        Tracked::Related(place) if is_by_another_way(view, to, flows.decision(place)) => Some(Ok(())),
        Tracked::Related(_) => Some(Err(DropReason::PolicyRelated.into())),
        _ => None,
    }
}

/// Who wanted to speak with whom, read once more of a packet that was stopped; none if it cannot be read.
#[cold]
fn who(bytes: &[u8], note: &Note) -> Option<Who> {
    Who::read(bytes.get(note.payload_at()..)?, note.ethertype())
}

/// Tells of a packet that was stopped, if it is the first of its flow. Whether it is told of.
#[cold]
#[inline(never)]
fn tell(
    view: &View,
    note: &Note,
    to: Option<PortId>,
    who: Option<Who>,
    denied: Denied,
    refusals: &mut Refusals,
    counters: &Counters,
) -> bool {
    let Denied { reason, slot } = denied;
    if !reason.is_of_rules() {
        // It is told of as any other drop.
        return false;
    }
    let refused = Refused { now: view.now, from: view.in_port, to, who, reason, slot };
    refusals.note(hash_of(view, note, to, who), view.now, refused, counters)
}

/// A hash of the flow that a packet belongs to, whether it is kept or not.
fn hash_of(view: &View, note: &Note, to: Option<PortId>, who: Option<Who>) -> u64 {
    let ports = u64::from(view.in_port) << 16 | u64::from(to.unwrap_or(PortId::MAX));
    let words = who.map_or([note.src(), note.dst, u64::from(note.ethertype()), ports, 0], |who| who.words());
    view.tables.flows.hash(&Key { words })
}

/// By its flow, if it has one.
#[inline]
fn tracked(
    view: &View,
    bytes: &[u8],
    note: &Note,
    (way, to): (&WayOut, &PortFacts),
    track: &Track,
    keeper: &Keeper,
    asking: &mut Asking,
) -> Result<(), Denied> {
    let (flows, decision) = (&view.tables.flows, flow::decision(view, note.verdict));
    match track.tracked {
        Tracked::Known(place) if asking.itself || way.is_itself(view, track) => {
            let before = flows.decision(place);
            // Of a flow that is allowed fragments need not be.
            let is_asked = track.packet.fragment.is_some() && way.asks_fragments;
            if before == decision && !is_asked {
                return Ok(());
            }
            if flows.state(place).origin() == track.side {
                both(view.snapshot, &header(view, bytes, note, track), view.facts, to, asking)?;
            } else if view.facts.subject.egress.is_some()
                && !asking.itself
                && !to.subject.may_be(track.packet.dst)
                && !is_of_link(track.packet.dst)
            {
                // Whoever asked has another address.
                return Err(DropReason::PolicyDestination.into());
            } else if !way.leads_back(flows, place) {
                // It answers nobody there, and nothing is decided about the flow by it.
                return both(view.snapshot, &header(view, bytes, note, track), view.facts, to, asking);
            } else {
                both(view.snapshot, &answered(view, bytes, note, track), to, view.facts, asking)?;
            }
            if asking.stateless && flows.state(place).origin() != track.side {
                // Of a flow that was kept before answers are allowed no more for being that.
                both(view.snapshot, &header(view, bytes, note, track), view.facts, to, asking)?;
            }
            if is_asked || asking.stateless {
                return Ok(());
            }
            flows.decide(place, &track.key, decision);
            // What was never decided is not judged again, but for the first time.
            if keeper.watch.is_some() && before != Decision::NONE {
                keeper.tell(What::Judged(true), track.key, flows.state(place));
            }
            Ok(())
        }
        Tracked::Known(_) => Err(DropReason::PolicySource.into()),
        // No more than anything else comes in another's name.
        Tracked::Related(_) if !asking.itself && !way.is_itself(view, track) => {
            Err(DropReason::PolicySource.into())
        }
        // About a flow that is allowed; if it is asked about again, by its own next packet.
        Tracked::Related(place) if flows.decision(place) == decision => Ok(()),
        Tracked::Related(place) if is_by_another_way(view, to, flows.decision(place)) => Ok(()),
        Tracked::Related(_) => Err(DropReason::PolicyRelated.into()),
        // An error about what no flow is kept of is judged by itself, where rules want that.
        Tracked::Control if is_error(track) && !(view.facts.acl.stateless || to.acl.stateless) => {
            Err(DropReason::IcmpUnrelated.into())
        }
        Tracked::Missing => both(view.snapshot, &header(view, bytes, note, track), view.facts, to, asking),
        // It is dropped when flows are made: who is judged is strict.
        Tracked::Stray(_) => Ok(()),
        Tracked::Not | Tracked::Control => match read(view, bytes, note)? {
            Read::Exempt => Ok(()),
            Read::NotIp if view.facts.subject.is_isolated() || to.subject.is_isolated() => {
                Err(DropReason::PolicyOpaque.into())
            }
            Read::NotIp => both(view.snapshot, &not_ip(view, bytes, note), view.facts, to, asking),
            Read::Packet(packet) => both(view.snapshot, &packet, view.facts, to, asking),
        },
    }
}

/// Whether a flow of the port that an error goes to is decided, as things stand, with another port than that by which the error comes: routers answer
/// by any uplink.
#[cold]
fn is_by_another_way(view: &View, to: &PortFacts, decision: Decision) -> bool {
    let is_outside = |facts: &PortFacts| !facts.subject.is_workload;
    let with = |other: &PortFacts| Decision { epoch: to.epoch.wrapping_add(other.epoch) };
    is_outside(view.facts)
        && view.snapshot.ports.iter().any(|other| is_outside(other) && with(other) == decision)
}

/// What a packet says of its flow.
pub(super) fn plain_header(packet: &Packet) -> Header {
    Header::new([packet.src, packet.dst], packet.protocol, packet.ports, packet.icmp)
}

/// The packet as `track` read it; a later fragment has its first one's ports.
fn header(view: &View, bytes: &[u8], note: &Note, track: &Track) -> Header {
    let packet = &track.packet;
    let header = plain_header(packet);
    let flags = match (track.tracked, packet.content) {
        (Tracked::Missing, Content::Tcp(tcp)) => Some(tcp.flags),
        (Tracked::Missing, _) => None,
        // Of a flow it is its first packet that is judged, whichever is at hand.
        _ => header.flags,
    };
    let part = match packet.fragment {
        None => Part::Whole,
        Some(_) if packet.content == Content::Later => Part::Later,
        Some(_) => Part::First,
    };
    Header { flags, part, frame: Some(frame_head(view, bytes, note)), ..header }
}

/// The packet that an answer answers. Of a routed one nobody knows any more in which frame it came.
fn answered(view: &View, bytes: &[u8], note: &Note, track: &Track) -> Header {
    let header = header(view, bytes, note, track).turned();
    if note.routed { Header { frame: None, ..header } } else { header }
}

/// Whether it is an ICMP error.
fn is_error(track: &Track) -> bool {
    matches!(track.packet.content, Content::Error { .. })
}

/// The frame as it came in: a note has the MACs and the VLAN by which a routed one leaves.
fn frame_head(view: &View, bytes: &[u8], note: &Note) -> FrameHead {
    let mac = |at: usize| {
        let mac = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<6>());
        mac.map_or(0, |mac| Mac(*mac).to_u64())
    };
    let tag = if note.tagged { note.tci & VID_MASK } else { 0 };
    // A tag with no VLAN only has a priority.
    let vlan = if tag == 0 { view.facts.vlans.untagged.1 } else { tag };
    FrameHead { macs: [mac(6), mac(0)], vlan }
}

fn not_ip(view: &View, bytes: &[u8], note: &Note) -> Header {
    Header { frame: Some(frame_head(view, bytes, note)), ..Header::NOT_IP }
}

/// What its sender's rules say of what is flooded: of an answer what they say of what it answers, which came in by the port where the flow began.
fn way_out(view: &View, bytes: &[u8], note: &Note, track: &Track, asking: &mut Asking) -> Result<(), Denied> {
    if let Tracked::Known(place) = track.tracked
        && view.tables.flows.state(place).origin() != track.side
    {
        // Of a port that is gone nothing is said: where this goes is asked again once that is known.
        let Some(from) = view.snapshot.port(view.tables.flows.began(place).0) else { return Ok(()) };
        return ingress(view.snapshot, &answered(view, bytes, note, track), from, view.facts, asking);
    }
    if matches!(track.tracked, Tracked::Related(_)) {
        // Its flow says whether it may, by where a copy goes.
        return Ok(());
    }
    match question(view, bytes, note, track)? {
        Read::Exempt => Ok(()),
        Read::NotIp if view.facts.subject.egress.is_some() => Err(DropReason::PolicyOpaque.into()),
        Read::NotIp => egress(view.snapshot, &not_ip(view, bytes, note), view.facts, None, asking),
        Read::Packet(packet) => egress(view.snapshot, &packet, view.facts, None, asking),
    }
}

/// What is asked about a flooded packet: of one of a flow what `track` knows of it, which is where it really comes from and goes, and of its
/// first packet's flags that those are not this one's; else what is read of it.
fn question(view: &View, bytes: &[u8], note: &Note, track: &Track) -> Result<Read, DropReason> {
    match track.tracked {
        Tracked::Missing | Tracked::Known(_) => Ok(Read::Packet(header(view, bytes, note, track))),
        _ => read(view, bytes, note),
    }
}

fn read(view: &View, bytes: &[u8], note: &Note) -> Result<Read, DropReason> {
    let version = match note.ethertype() {
        ARP => return Ok(Read::Exempt),
        IPV4 => Version::V4,
        IPV6 => Version::V6,
        tag if is_tag(tag) => return Err(DropReason::PolicyOpaque),
        _ => return Ok(Read::NotIp),
    };
    let packet = bytes.get(note.payload_at()..).unwrap_or_default();
    let opaque = |_| DropReason::PolicyOpaque;
    let read = ip::parse(packet, version).map_err(opaque)?;
    let hop: Hop = hop::read(packet, version).map_err(opaque)?;
    let transport = packet.get(read.transport_at..read.end).unwrap_or_default();
    if read.protocol == ICMPV6 && is_neighbour_discovery(transport, &hop, read.later_fragment) {
        return Ok(Read::Exempt);
    }
    let (protocol, ends) = (read.protocol, [hop.src, hop.dst]);
    let head = transport.first_chunk::<4>().ok_or(DropReason::PolicyOpaque);
    let header = match protocol {
        // A later fragment has no ports: only rules that are about none are about it.
        _ if read.later_fragment => Header { ends: Some(ends), protocol, ..Header::NOT_IP },
        TCP | UDP | SCTP | ICMP | ICMPV6 => {
            let [a, b, c, d] = *head?;
            Header::new(ends, protocol, [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])], [a, b])
        }
        _ => Header::new(ends, protocol, [0; 2], [0; 2]),
    };
    let flags = header.flags.and_then(|_| transport.get(TCP_FLAGS_AT).copied());
    let part = match read.fragment && (read.later_fragment || read.more) {
        false => Part::Whole,
        true if read.later_fragment => Part::Later,
        true => Part::First,
    };
    Ok(Read::Packet(Header { flags, part, frame: Some(frame_head(view, bytes, note)), ..header }))
}

/// Only from the link itself: a router would have taken one from the hop limit.
fn is_neighbour_discovery(transport: &[u8], hop: &Hop, later_fragment: bool) -> bool {
    hop.ttl == 255
        && !later_fragment
        && transport.first().is_some_and(|kind| NEIGHBOUR_DISCOVERY.contains(kind))
}
