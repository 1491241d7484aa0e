//! `admit` of what is flooded: what its sender's rules say once, for all copies, and what the rules of each port say that is to have one.

use super::admit::{is_by_another_way, log, tell, who};
use super::flow::{self, Track, Tracked, WayOut};
use super::headers::{Read, answered, header, not_ip, read};
use super::judge::{Asking, Denied, both, egress, ingress, is_of_link};
use super::note::Note;
use super::verdict::Verdict;
use super::{Private, View, binding};
use crate::config::gateway::{Action, from_bits};
use crate::config::snapshot::{PortFacts, PortId};
use crate::counter::DropReason;
use crate::frame::{Area, Frame};
use std::net::IpAddr;

/// What its sender's rules say of what is flooded: of an answer what they say of what it answers, which came in by the port where the flow began.
pub(super) fn way_out(
    view: &View,
    bytes: &[u8],
    note: &Note,
    track: &Track,
    asking: &mut Asking,
) -> Result<(), Denied> {
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

/// What is asked about a flooded packet: of one of a flow what `track` knows of it, which is where it really comes from and goes, and of its
/// first packet's flags that those are not this one's; else what is read of it.
fn question(view: &View, bytes: &[u8], note: &Note, track: &Track) -> Result<Read, DropReason> {
    match track.tracked {
        Tracked::Missing | Tracked::Known(_) => Ok(Read::Packet(header(view, bytes, note, track))),
        _ => read(view, bytes, note),
    }
}
