//! `translate`: which packets get other addresses (ADR 0026). Where what a packet says is not where it really goes, that is
//! found out before it is routed: of a known flow by `track` (ADR 0045), of a new one a rule chooses. The source is chosen when it is known
//! where the packet leaves, and that it may: then the flow is made, bound to what becomes of it. `rewrite` writes both.
//!
//! So what is routed and judged comes from where it really comes from, and goes where it really goes.

use super::binding::{self, Turn};
use super::flow::{self, Flowing, Marks, Tracked};
use super::note::Note;
use super::refusals::{Refused, Who};
use super::verdict::Verdict;
use super::{Private, View};
use crate::config::gateway::{Action, Gateway};
use crate::counter::{DropReason, Event};
use crate::frame::{Area, Frame};
use crate::nat::{NewSource, Target, part_of, tries};
use crate::table::flow::Opened;
use crate::table::flow::bound::{Binding, Rules, Unbound};
use crate::table::flow::key::{End, Key};
use crate::table::flow::watch::What;
use crate::wire::ethernet::{IPV4, IPV6};
use crate::wire::hop;
use crate::wire::ip::Version;
use crate::wire::nat::has_ports;
use crate::wire::packet::{Content, Packet, flags};

/// Where each packet really goes that `track` has found no flow of.
#[inline(never)]
pub(super) fn run(view: &View, area: &Area, frames: &[Frame], notes: &mut [Note], private: &mut Private) {
    let Flowing { tracks, turns, turned, .. } = &mut private.flows;
    for index in Marks::first(notes.len()).without(*turned) {
        let (frame, note) = (&frames[index], &mut notes[index]);
        let (track, turn) = (&mut tracks[index], &mut turns[index]);
        *turn = Turn::Stays;
        match track.tracked {
            Tracked::Missing if note.is_undecided() => match begin(view, note, &track.packet) {
                Ok(begins) => *turn = begins,
                Err(reason) => note.verdict = Verdict::Drop(reason),
            },
            Tracked::Not | Tracked::Control | Tracked::Stray(_)
                if note.is_undecided() && is_stray(view, area.bytes(frame), note) =>
            {
                note.verdict = Verdict::Drop(DropReason::NatNone);
            }
            _ => {}
        }
        if let Some(to) = turn.real() {
            binding::lead(track, to);
        }
    }
}

/// Whether what no flow is kept of goes to an address of translation, and nowhere therefore: it must not be routed back to whoever
/// leads that address here.
#[cold]
fn is_stray(view: &View, bytes: &[u8], note: &Note) -> bool {
    let version = match note.ethertype() {
        IPV4 => Version::V4,
        IPV6 => Version::V6,
        _ => return false,
    };
    let Some(gateway) = view.snapshot.gateway(note.fid).filter(|gateway| gateway.mac == note.dst) else {
        return false;
    };
    let hop = hop::read(bytes.get(note.payload_at()..).unwrap_or_default(), version);
    hop.is_ok_and(|hop| is_nobodys(view, gateway.vrf, hop.dst))
}

/// Whether an address is translation's alone: neither a host's nor the switch's own.
fn is_nobodys(view: &View, vrf: u16, ip: u128) -> bool {
    view.snapshot.nat.has_address(vrf, ip)
        && view.snapshot.routing.find(vrf, ip).is_none_or(|entry| entry.action != Action::Local)
}

/// A packet without a flow, to the switch's MAC: another destination for what it begins.
fn begin(view: &View, note: &Note, packet: &Packet) -> Result<Turn, DropReason> {
    let Some(gateway) = view.snapshot.gateway(note.fid).filter(|gateway| gateway.mac == note.dst) else {
        return Ok(Turn::Stays);
    };
    let nat = &view.snapshot.nat;
    let declared = nat.destination(gateway.vrf, packet.dst, packet.protocol, packet.ports[1]);
    if let Some(target) = declared.or_else(|| published(view, note, gateway, packet)) {
        let port = if target.port == 0 { packet.ports[1] } else { target.port };
        return Ok(Turn::Begins { to: End { ip: target.ip, port }, target });
    }
    match is_nobodys(view, gateway.vrf, packet.dst) {
        true => Err(DropReason::NatNone),
        false => Ok(Turn::Stays),
    }
}

/// Where a published port leads that is asked for by an uplink. What is no beginning may be of a flow that the kernel translates,
/// from before there was an uplink: it goes on to the kernel, whose address it is.
fn published(view: &View, note: &Note, gateway: &Gateway, packet: &Packet) -> Option<Target> {
    let begins = match packet.content {
        Content::Tcp(tcp) => tcp.flags & (flags::SYN | flags::ACK) == flags::SYN,
        _ => true,
    };
    let target = gateway
        .is_kernels
        .then(|| view.snapshot.nat.published(note.fid, packet.dst, packet.protocol, packet.ports[1]));
    target.flatten().filter(|_| begins)
}

/// Makes every flow known that begins here and goes on, with what it was admitted by and what it is bound to.
#[inline(never)]
pub(super) fn confirm(view: &View, notes: &mut [Note], private: &mut Private) {
    for index in private.flows.begins {
        let note = &mut notes[index];
        if !matches!(note.verdict, Verdict::Port(_) | Verdict::Flood(_)) {
            continue;
        }
        let is_new = private.flows.tracks[index].tracked == Tracked::Missing;
        let outcome = match is_new && note.routed {
            true => bind(view, note, private, index),
            false => Ok(false),
        };
        let outcome = match outcome {
            Ok(true) => Ok(()),
            Ok(false) if flow::is_put_off(view, note, &private.flows.tracks[index]) => Ok(()),
            Ok(false) => {
                let made = flow::confirm(view, private, index, flow::decision(view, note.verdict));
                made.or_else(
                    |reason| {
                        if flow::is_held(view, note.verdict, reason) { Err(reason) } else { Ok(()) }
                    },
                )
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = outcome {
            note.verdict = flow::drop(reason);
        }
    }
}

/// Makes the flow that the frame at `index` begins, if it is to be translated. Whether it is.
fn bind(view: &View, note: &Note, private: &mut Private, index: usize) -> Result<bool, DropReason> {
    let turn = private.flows.turns[index];
    let track = private.flows.tracks[index];
    let Some(out) = view.snapshot.gateway(note.fid) else { return Ok(false) };
    let (nat, packet) = (&view.snapshot.nat, &track.packet);
    let hash_of = |ip: u128| {
        let words = [(ip >> 64) as u64, ip as u64, 0, 0, 0];
        view.tables.flows.hash(&Key { words }) >> 16
    };
    let own = || out.speaks_as(packet.dst).filter(|ip| (ip >> 32 == 0xffff) == packet.is_v4());
    let source = nat.source(out.vrf, packet, note.fid, own, hash_of);
    let target = if let Turn::Begins { target, .. } = turn { Some(target) } else { None };
    if source.is_none() && target.is_none() {
        return Ok(false);
    }
    // It would be bound before any copy is asked about.
    if matches!(note.verdict, Verdict::Flood(_)) && view.snapshot.policed {
        return Err(DropReason::NatFlooded);
    }
    let rules = Rules { destination: target.map_or(0, |it| it.rule), source: source.map_or(0, |it| it.rule) };
    let place = open(view, private, index, (note.verdict, source, rules))?;
    let [from, to] = view.tables.flows.becomes(place, &track.key, track.side).ok_or(DropReason::FlowBusy)?;
    private.flows.turns[index] = Turn::Bound { from, to };
    Ok(true)
}

/// Makes a translated flow, with the first port that is free for it. Its place.
fn open(
    view: &View,
    private: &mut Private,
    index: usize,
    (verdict, source, rules): (Verdict, Option<NewSource>, Rules),
) -> Result<u32, DropReason> {
    flow::may_begin(view, &private.flows.tracks[index].key)?;
    let (worker, workers) = private.worker;
    let Flowing { tracks, keeper, .. } = &mut private.flows;
    let track = &mut tracks[index];
    let mut becomes = track.packet;
    becomes.src = source.map_or(becomes.src, |source| source.ip);
    let choice = source.and_then(|source| source.ports).filter(|_| has_ports(becomes.protocol));
    let is_query = matches!(becomes.content, Content::Query { .. });
    let choice = choice.filter(|_| is_query || becomes.content != Content::Other);
    let (first, count) = choice.map_or((becomes.ports[0], 1), |range| part_of(range, worker, workers));
    let (flows, decision) = (&view.tables.flows, track.decides(flow::decision(view, verdict)));
    // An earlier packet of the batch may have begun it: then its port is taken, by itself.
    let is_new = !flows.is_taken(track.hash);
    for port in tries((first, count), track.hash) {
        becomes.ports[0] = port;
        if is_query {
            becomes.ports[1] = port;
        }
        let (key, side) = Key::of(&becomes, track.zone);
        let hash = flows.hash(&key);
        if is_new && flows.is_taken(hash) {
            continue;
        }
        let binding = Binding { key, hash, side, rules };
        match flows.open_bound(keeper, &track.seen(view), decision, &binding) {
            Err(Unbound::Taken) => {}
            Err(Unbound::Refused(refusal)) => return Err(flow::why_refused(refusal)),
            Ok(Opened::Invalid(invalid)) => return Err(flow::why_invalid(invalid)),
            Ok(opened @ (Opened::New(place) | Opened::Known(place))) => {
                track.tracked = Tracked::Known(place);
                if opened == Opened::New(place) {
                    let slots = view.snapshot.nat.slots_of(rules);
                    slots.filter_map(|slot| private.counters.rule(slot)).for_each(|counter| counter.add(1));
                    private.counters.event(Event::FlowNew).add(1);
                    if keeper.watch.is_some() {
                        keeper.tell(What::New, track.key, flows.state(place));
                    }
                }
                flow::count_evicted(keeper, &private.counters);
                return Ok(place);
            }
        }
    }
    exhausted(view, private, index, verdict, rules);
    Err(DropReason::NatExhausted)
}

/// No port is free: it is counted where the source's rule counts, and told of if it is the first of its flow.
#[cold]
fn exhausted(view: &View, private: &mut Private, index: usize, verdict: Verdict, rules: Rules) {
    let rule = if rules.source != 0 { rules.source } else { rules.destination };
    let slot = view.snapshot.nat.slots.get(&rule).map(|slot| slot + 1);
    if let Some(counter) = slot.and_then(|slot| private.counters.rule(slot)) {
        counter.add(1);
    }
    let track = &private.flows.tracks[index];
    let Packet { src, dst, protocol, ports, .. } = track.packet;
    let to = if let Verdict::Port(port) = verdict { Some(port) } else { None };
    let who = Some(Who { src, dst, protocol, ports });
    let refused =
        Refused { now: view.now, from: view.in_port, to, who, reason: DropReason::NatExhausted, slot };
    private.refusals.note(track.hash, view.now, refused, &private.counters);
}
