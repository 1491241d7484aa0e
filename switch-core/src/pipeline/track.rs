//! `track`: which flow each packet belongs to. What a tracked port sends is looked up before it is routed;
//! what others send is, once it is known that it goes to a tracked port. What concerns neither is not looked
//! at.
//!
//! One loop reads the packets and asks for the lines of the index, one finds the places and asks for theirs,
//! one compares and counts: the cache misses of a batch overlap. What nearly all packets are is read at a glance, into the key of its
//! flow and no further, and settled as soon as its flow is found and says what it said ([`flow::WayOut`]): `admit` is asked about the
//! others alone.

mod recall;

use super::binding::{self, Turn};
use super::flow::{self, Flowing, Marks, Track, Tracked, WayOut};
use super::note::Note;
use super::verdict::Verdict;
use super::{Private, View};
use crate::counter::DropReason;
use crate::frame::{Area, BATCH_FRAMES, Frame};
use crate::table::flow::Passed;
use crate::table::flow::fragments::Space;
use crate::table::flow::keeper::Keeper;
use crate::table::flow::key::Key;
use crate::table::flow::record::{Decision, Record};
use crate::wire::ethernet::{IPV4, IPV6};
use crate::wire::ip::{TCP, Version};
use crate::wire::packet::{Content, Packet, Plain};

/// Which frames of a batch are looked at, and what is said of those whose flow goes on.
trait Choice {
    /// Whether packets of flows may be translated: of those that go on as they did it is found out as what.
    const TURNS: bool = false;
    /// Whether a frame is looked at.
    fn takes(&mut self, note: &Note) -> bool;
    /// Of a batch of so many, those about which `admit` is asked whatever comes of them.
    fn asks(&self, count: usize) -> Marks;
    /// Whether nothing is left to ask about a frame of a flow about which this was decided, or it is asked about anyway; else `admit` is
    /// asked.
    fn settles(&mut self, note: &Note, track: &Track, decision: Decision) -> bool;

    /// Of a batch of so many, what was decided about the flows of all of them: if nothing is left to ask about any but where it goes, and
    /// it is the same of all.
    #[inline(always)]
    fn agreed(&self, _: usize) -> Option<Decision> {
        None
    }
}

/// What a tracked port sends: where it goes is not known yet.
struct Sent {
    /// Frames of flows that go on, of which nothing but their flow was read.
    settled: usize,
    /// Bits that are set in what was decided about each of their flows, and about any.
    all: u64,
    any: u64,
}

impl Sent {
    const NOTHING: Self = Self { settled: 0, all: u64::MAX, any: 0 };
}

impl Choice for Sent {
    #[inline(always)]
    fn takes(&mut self, note: &Note) -> bool {
        note.is_undecided()
    }

    #[inline(always)]
    fn asks(&self, count: usize) -> Marks {
        Marks::first(count)
    }

    #[inline(always)]
    fn settles(&mut self, _: &Note, track: &Track, decision: Decision) -> bool {
        self.settled += usize::from(!track.is_whole);
        (self.all, self.any) = (self.all & decision.epoch, self.any | decision.epoch);
        true
    }

    #[inline(always)]
    fn agreed(&self, count: usize) -> Option<Decision> {
        let agree = (self.settled == count) & (self.all == self.any);
        agree.then_some(Decision { epoch: self.all })
    }
}

/// The same of a port from or to which packets are translated.
struct Turned;

impl Choice for Turned {
    const TURNS: bool = true;

    #[inline(always)]
    fn takes(&mut self, note: &Note) -> bool {
        note.is_undecided()
    }

    #[inline(always)]
    fn asks(&self, count: usize) -> Marks {
        Marks::first(count)
    }

    #[inline(always)]
    fn settles(&mut self, _: &Note, _: &Track, _: Decision) -> bool {
        true
    }
}

/// What others send to tracked ports, or to nobody knows whom where one of those may be meant.
struct Received<'a> {
    view: &'a View<'a>,
    way: WayOut<'a>,
}

impl Choice for Received<'_> {
    #[inline(always)]
    fn takes(&mut self, note: &Note) -> bool {
        self.way.follow(self.view, note.verdict);
        self.way.is_tracked || self.way.to.is_none() && flow::is_sought(self.view, note)
    }

    #[inline(always)]
    fn asks(&self, _: usize) -> Marks {
        Marks::default()
    }

    #[inline(always)]
    fn settles(&mut self, note: &Note, track: &Track, decision: Decision) -> bool {
        // Where all leave by one port, it is still that one's.
        if !self.way.is_one() {
            self.way.follow(self.view, note.verdict);
        }
        self.way.admits(self.view, track, decision)
    }
}

/// What a tracked port sends. `admit` is asked about all of it.
#[inline]
pub(super) fn run(view: &View, area: &Area, frames: &[Frame], notes: &mut [Note], private: &mut Private) {
    match view.facts.translated {
        false if private.flows.exact.is_asked() => {
            recall::track(view, area, frames, notes, private, Sent::NOTHING);
        }
        false => track(view, area, frames, notes, private, Sent::NOTHING),
        true => turned(view, area, frames, notes, private),
    }
}

/// A loop of its own, so that where nothing is translated the other has all registers.
#[inline(never)]
fn turned(view: &View, area: &Area, frames: &[Frame], notes: &mut [Note], private: &mut Private) {
    track(view, area, frames, notes, private, Turned);
}

/// What goes to a tracked port and was not looked at yet. About what is not looked at `admit` is not asked: who is judged is tracked.
#[inline]
pub(super) fn rest(view: &View, area: &Area, frames: &[Frame], notes: &mut [Note], private: &mut Private) {
    if view.facts.tracked {
        return;
    }
    let received = Received { view, way: WayOut::nowhere() };
    match private.flows.exact.is_asked() {
        true => recall::track(view, area, frames, notes, private, received),
        false => track(view, area, frames, notes, private, received),
    }
}

/// Makes every flow known that begins here and goes on, with what it was admitted by.
#[inline]
pub(super) fn confirm(view: &View, notes: &mut [Note], private: &mut Private) {
    for index in private.flows.begins {
        let note = &mut notes[index];
        if flow::is_put_off(view, note, &private.flows.tracks[index]) {
            continue;
        }
        let goes = matches!(note.verdict, Verdict::Port(_) | Verdict::Flood(_));
        if goes
            && let Err(reason) = flow::confirm(view, private, index, flow::decision(view, note.verdict))
            && flow::is_held(view, note.verdict, reason)
        {
            note.verdict = flow::drop(reason);
        }
    }
}

#[inline(always)]
fn track<C: Choice>(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    private: &mut Private,
    mut choice: C,
) {
    let flows = &view.tables.flows;
    let Flowing { tracks, keeper, turns, .. } = &mut private.flows;
    // Where they lie is not asked for anew with each packet.
    let (tracks, turns): (&mut [Track; BATCH_FRAMES], &mut [Turn; BATCH_FRAMES]) = (tracks, turns);
    let mut chosen = Marks::default();
    let mut homes = [None; BATCH_FRAMES];
    let mut here = Zone::of(view, 0);
    for (index, ((frame, note), track)) in
        frames.iter().zip(notes.iter_mut()).zip(tracks.iter_mut()).enumerate()
    {
        track.tracked = Tracked::Not;
        if choice.takes(note) {
            if here.fid != note.fid {
                here = Zone::of(view, note.fid);
            }
            track.zone = here.zone;
            let bytes = area.bytes(frame);
            if glance(view, bytes, note, track) || look(view, bytes, note, track) {
                homes[index % BATCH_FRAMES] = Some(flows.touch(track.hash));
            }
            chosen.set(index, true);
        }
    }
    let mut named = [None; BATCH_FRAMES];
    for index in chosen {
        let (track, Some(home)) = (&tracks[index], homes[index]) else { continue };
        named[index] = flows.named(home, track.hash);
        if let Some(record) = named[index]
            && (track.key.protocol() == TCP) | C::TURNS
        {
            record.touch_tail();
        }
    }
    let mut turned = Marks::default();
    if C::TURNS {
        // What it is bound to lies anywhere, and where says the line that was asked for last.
        chosen.filter_map(|index| named[index]).for_each(|record| flows.touch_other(record));
    }
    let (mut asks, mut begins) = (choice.asks(notes.len()), Marks::default());
    for index in chosen {
        let (note, track) = (&mut notes[index], &mut tracks[index]);
        // Most packets first: they are of a flow that goes on.
        if C::TURNS {
            if let Some(record) = named[index]
                && binding::goes_on(flows, record, track, &mut turns[index], view.now_s)
            {
                turned.set(index, true);
                continue;
            }
        } else if let Some(record) = named[index]
            && record.holds(&track.key)
            && track.streams(record, track.side, view.now_s)
        {
            track.tracked = Tracked::Known(record.place());
            if !choice.settles(note, track, record.decision()) {
                asks.set(index, true);
            }
            continue;
        }
        find(view, note, track, named[index], keeper);
        if C::TURNS {
            match binding::turn(flows, track, &mut turns[index]) {
                Ok(is_turned) => turned.set(index, is_turned),
                Err(reason) => note.verdict = flow::drop(reason),
            }
        }
        begins.set(index, matches!(track.tracked, Tracked::Missing | Tracked::Stray(_)));
        asks.set(index, true);
    }
    (private.flows.asks, private.flows.begins, private.flows.turned) = (asks, begins, turned);
    private.flows.agreed = choice.agreed(notes.len());
}

/// Bridge or VRF of a bridge and VLAN. Neighbours mostly are of one.
struct Zone {
    fid: u16,
    zone: u16,
}

impl Zone {
    fn of(view: &View, fid: u16) -> Self {
        Self { fid, zone: view.snapshot.fids.get(usize::from(fid)).map_or(0, |fid| fid.zone) }
    }
}

/// Reads what nearly all packets are, whose flow is to be looked for; of the others nothing counts.
#[inline(always)]
fn glance(view: &View, bytes: &[u8], note: &Note, track: &mut Track) -> bool {
    if note.ethertype() != IPV4 {
        return false;
    }
    let Some(packet) = bytes.get(note.payload_at()..) else { return false };
    let content = &mut track.packet.content;
    let Some(plain) = Plain::read(packet, |tcp| *content = Content::Tcp(tcp)) else { return false };
    (track.key, track.side) = Key::of_plain(&plain, track.zone);
    track.hash = view.tables.flows.hash(&track.key);
    (track.tracked, track.by_reply, track.is_whole, track.is_turned, track.is_keyed) =
        (Tracked::Missing, false, false, false, true);
    true
}

/// Reads whatever else there is. Whether its flow is to be looked for.
#[inline(never)]
fn look(view: &View, bytes: &[u8], note: &mut Note, track: &mut Track) -> bool {
    (track.is_whole, track.is_keyed) = (true, true);
    match read(view, bytes, note, track) {
        Ok(tracked) => track.tracked = tracked,
        Err(reason) => judge(view, note, track, reason),
    }
    track.tracked == Tracked::Missing
}

/// What a packet is that is not of those that nearly all are.
#[inline(never)]
fn find(view: &View, note: &mut Note, track: &mut Track, named: Option<Record>, keeper: &mut Keeper) {
    if track.tracked != Tracked::Missing {
        return;
    }
    track.write_out(&view.tables.flows);
    let mut place = named.filter(|record| record.holds(&track.key)).map(Record::place);
    let mut outcome = found(view, track, place, keeper);
    if let Ok(Tracked::Missing) | Err(DropReason::IcmpUnrelated) = outcome
        && let Some(former) = formerly(view, note, track, keeper)
    {
        (place, outcome) = former;
    }
    if outcome == Err(DropReason::TcpWindow) {
        outcome = taken_up(view, note, track, keeper).unwrap_or(outcome);
    }
    match outcome {
        Ok(tracked) => track.tracked = tracked,
        // Untranslated it means something else.
        Err(reason) if is_bound(view, track, place) => note.verdict = flow::drop(reason),
        Err(reason) => judge(view, note, track, reason),
    }
}

/// What a segment is to its connection, if that is taken up where it is: it is of one of which others passed unseen, for at neither of its ports flows
/// were kept.
#[cold]
fn taken_up(view: &View, note: &Note, track: &Track, keeper: &Keeper) -> Option<Result<Tracked, DropReason>> {
    let kept_for = match note.verdict {
        _ if view.facts.tracked => view.in_port,
        Verdict::Port(port) => port,
        _ => return None,
    };
    let since_s = keeper.kept.again_since(kept_for)?;
    let place = view.tables.flows.find(&track.key)?;
    let passed = view.tables.flows.take_up(place, &track.seen(view), since_s)?;
    Some(belongs(view, track, place, passed, keeper))
}

/// A flow from before the packet's bridge and VLAN were in the zone that they are in, and what the packet is to it: the switch has become a station
/// there since, or ceased to be one. It is looked at as one of that zone from now on, unless it belongs to nothing there either: what begins
/// begins in the zone that there is now.
fn formerly(
    view: &View,
    note: &Note,
    track: &mut Track,
    keeper: &mut Keeper,
) -> Option<(Option<u32>, Result<Tracked, DropReason>)> {
    let former = view.snapshot.fids.get(usize::from(note.fid))?.former?;
    let (flows, own) = (&view.tables.flows, (track.key, track.hash));
    let key = track.key.in_zone(former.get());
    let place = flows.find(&key)?;
    (track.key, track.hash) = (key, flows.hash(&key));
    let outcome = found(view, track, Some(place), keeper);
    if outcome == Ok(Tracked::Missing) {
        (track.key, track.hash) = own;
        return None;
    }
    Some((Some(place), outcome))
}

/// Whether what was found is a translated flow's, and the packet not an error about one.
#[cold]
fn is_bound(view: &View, track: &Track, place: Option<u32>) -> bool {
    let is_error = matches!(track.packet.content, Content::Error { .. });
    !is_error && place.is_some_and(|place| view.tables.flows.bound(place).is_some())
}

/// What fits no flow goes no further, unless at both its ports flows are kept for ways back and translation alone.
#[cold]
fn judge(view: &View, note: &mut Note, track: &mut Track, reason: DropReason) {
    // What rules allow without keeping flows has errors that no flow knows: `admit` judges them.
    let to = if let Verdict::Port(port) = note.verdict { view.snapshot.port(port) } else { None };
    let is_judged = view.facts.judged || to.is_some_and(|to| to.judged);
    match reason {
        _ if view.snapshot.lenient => track.tracked = Tracked::Not,
        DropReason::IcmpUnrelated if view.snapshot.listed.stateless && is_judged => {
            track.tracked = Tracked::Control
        }
        _ if is_open(view, note) && !view.facts.strict => track.tracked = Tracked::Stray(reason),
        _ if !flow::is_held(view, note.verdict, reason) => track.tracked = Tracked::Not,
        _ => note.verdict = flow::drop(reason),
    }
}

/// Whether nobody knows yet to which port a packet goes.
fn is_open(view: &View, note: &Note) -> bool {
    note.is_undecided() || flow::is_sought(view, note)
}

/// What a packet is to the flow of its key.
#[inline(always)]
fn found(
    view: &View,
    track: &mut Track,
    place: Option<u32>,
    keeper: &mut Keeper,
) -> Result<Tracked, DropReason> {
    let flows = &view.tables.flows;
    if let Content::Error { .. } = track.packet.content {
        return related(view, track, place).ok_or(DropReason::IcmpUnrelated);
    }
    let Some(place) = place else { return Ok(Tracked::Missing) };
    let passed = flows.pass(place, &track.seen(view));
    match passed {
        Passed::Over => over(view, track, place, keeper),
        passed => belongs(view, track, place, passed, keeper),
    }
}

#[inline(always)]
fn belongs(
    view: &View,
    track: &Track,
    place: u32,
    passed: Passed,
    keeper: &Keeper,
) -> Result<Tracked, DropReason> {
    match passed {
        Passed::Known => Ok(Tracked::Known(place)),
        Passed::Moved(from) => {
            if keeper.watch.is_some() {
                flow::moved(view, keeper, track.key, place, from);
            }
            Ok(Tracked::Known(place))
        }
        Passed::Over => Ok(Tracked::Missing),
        Passed::Invalid(invalid) => Err(flow::why_invalid(invalid)),
    }
}

/// The flow of what an error quotes.
#[cold]
fn related(view: &View, track: &mut Track, place: Option<u32>) -> Option<Tracked> {
    let (flows, place) = (&view.tables.flows, place?);
    let place = if flows.is_reply(place) { answer(view, track, place)? } else { place };
    flows.is_alive(place, view.now_s).then_some(Tracked::Related(place))
}

/// Nothing passes by the entry that was found: it is over, or it is the reply of a translated flow.
#[cold]
#[inline(never)]
fn over(view: &View, track: &mut Track, place: u32, keeper: &mut Keeper) -> Result<Tracked, DropReason> {
    let (flows, own) = (&view.tables.flows, (track.key, track.hash, track.side));
    let place = match flows.is_reply(place) {
        true => answer(view, track, place).ok_or(DropReason::FlowBusy)?,
        false => place,
    };
    let passed = if track.by_reply { flows.pass(place, &track.seen(view)) } else { Passed::Over };
    if passed != Passed::Over {
        return belongs(view, track, place, passed, keeper);
    }
    // A translated flow that is over makes way: another may be bound to something else.
    if flows.bound(place).is_some() && !keeper.clear(flows, place, &track.key) {
        return Err(DropReason::FlowBusy);
    }
    (track.key, track.hash, track.side) = own;
    track.by_reply = false;
    Ok(Tracked::Missing)
}

/// The flow whose answers have the key at `reply`; the packet is looked at as one of its from now on.
fn answer(view: &View, track: &mut Track, reply: u32) -> Option<u32> {
    let flows = &view.tables.flows;
    let (bound, key) = flows.original(reply, &track.key)?;
    (track.key, track.hash) = (key, flows.hash(&key));
    track.side ^= u8::from(bound.turned);
    track.by_reply = true;
    Some(bound.other)
}

/// Reads what a frame says of its flow.
fn read(view: &View, bytes: &[u8], note: &Note, track: &mut Track) -> Result<Tracked, DropReason> {
    let version = match note.ethertype() {
        IPV4 => Version::V4,
        IPV6 => Version::V6,
        _ => return Ok(Tracked::Not),
    };
    let packet = bytes.get(note.payload_at()..).unwrap_or_default();
    track.by_reply = false;
    track.packet.read_again(packet, version).map_err(flow::why_unreadable)?;
    match track.packet.content {
        Content::Control => return Ok(Tracked::Control),
        Content::Error { quote_at } => return read_quoted(view, packet, version, quote_at, track),
        _ => {}
    }
    if track.packet.fragment.is_some() {
        read_fragment(view, track)?;
    }
    (track.key, track.side) = Key::of(&track.packet, track.zone);
    track.hash = view.tables.flows.hash(&track.key);
    Ok(Tracked::Missing)
}

/// An error belongs to the flow of the packet it quotes, and goes to that packet's sender.
#[cold]
fn read_quoted(
    view: &View,
    packet: &[u8],
    version: Version,
    quote_at: usize,
    track: &mut Track,
) -> Result<Tracked, DropReason> {
    let quote = packet.get(quote_at..).unwrap_or_default();
    let quoted = Packet::read_quoted(quote, version).map_err(|_| DropReason::IcmpUnrelated)?;
    if quoted.src != track.packet.dst {
        return Err(DropReason::IcmpUnrelated);
    }
    (track.key, track.side) = Key::of(&quoted, track.zone);
    track.quoted_dst = quoted.dst;
    // It comes from the other side than what it quotes.
    track.side ^= 1;
    track.hash = view.tables.flows.hash(&track.key);
    Ok(Tracked::Missing)
}

/// A first fragment leaves its ports, a later one takes them.
#[cold]
fn read_fragment(view: &View, track: &mut Track) -> Result<(), DropReason> {
    let Some(fragment) = track.packet.fragment else { return Ok(()) };
    let poses = !view.facts.subject.may_be(track.packet.src);
    let (fragments, zone) = (&view.tables.fragments, track.zone);
    let space = Space { zone, poser: poses.then_some(view.in_port) };
    if track.packet.content != Content::Later {
        let noted = fragments.first(&track.packet, fragment, space, view.in_port, view.now_s);
        return noted.map_err(flow::why_stray);
    }
    let first = fragments.later(&track.packet, fragment, space, view.now_s).map_err(flow::why_stray)?;
    (track.packet.ports, track.packet.icmp) = first;
    Ok(())
}
