//! `admit`: whether network policies and access control lists let a packet through: those of the port it comes from,
//! those of the one it goes to. Only where one of the two has any; who is to have a flooded copy is asked for each copy.
//! At each end lists of the tier `before` are asked first, then policies, then, if none of these isolates the port, lists
//! of the tier `after`.
//!
//! A flow is asked about once, for its first packet, and again when what is said of its two ports has
//! another epoch: always as its originator's packet, whichever end speaks. So answers pass, and a flow that is no longer
//! allowed stops. An answer is what goes back to the port that the flow began at ([`WayOut::leads_back`]); what speaks from the
//! other side of a flow and goes elsewhere is asked about as a beginning. Floods: [`super::copies`].

use super::copies::way_out;
use super::flow::{self, Track, Tracked, WayOut};
use super::headers::{self, Read, answered, header, is_error, not_ip, read};
use super::judge::{Asking, Denied, both, is_of_link};
use super::note::Note;
use super::refusals::{Logged, Refusals, Refused, Who};
use super::verdict::{Verdict, Why};
use super::{Private, View, binding, foresee};
use crate::acl::Ruling;
use crate::config::snapshot::{PortFacts, PortId};
use crate::counter::{Counters, DropReason};
use crate::frame::{Area, Frame};
use crate::table::atomic::SPREAD;
use crate::table::flow::keeper::Keeper;
use crate::table::flow::key::Key;
use crate::table::flow::record::Decision;
use crate::table::flow::watch::What;

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
pub(super) fn log(
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

/// Who wanted to speak with whom, read once more of a packet that was stopped; none if it cannot be read.
#[cold]
pub(super) fn who(bytes: &[u8], note: &Note) -> Option<Who> {
    Who::read(bytes.get(note.payload_at()..)?, note.ethertype())
}

/// Tells of a packet that was stopped, if it is the first of its flow. Whether it is told of.
#[cold]
#[inline(never)]
pub(super) fn tell(
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
            let mut is_guess = false;
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
                is_guess = headers::is_guess(note, to, view.facts);
            }
            if asking.stateless && flows.state(place).origin() != track.side {
                // Of a flow that was kept before answers are allowed no more for being that.
                both(view.snapshot, &header(view, bytes, note, track), view.facts, to, asking)?;
            }
            if is_asked || is_guess || asking.stateless {
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
pub(super) fn is_by_another_way(view: &View, to: &PortFacts, decision: Decision) -> bool {
    let is_outside = |facts: &PortFacts| !facts.subject.is_workload;
    let with = |other: &PortFacts| Decision { epoch: to.epoch.wrapping_add(other.epoch) };
    is_outside(view.facts)
        && view.snapshot.ports.iter().any(|other| is_outside(other) && with(other) == decision)
}
