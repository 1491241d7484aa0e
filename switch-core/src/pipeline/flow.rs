//! What stages share about flows: what `track` found of each frame of a batch, for whoever decides (`admit`)
//! and whoever makes the flow known.

use super::binding::Turn;
use super::exact::{Exact, Words};
use super::note::Note;
use super::verdict::{Class, Verdict};
use super::{Private, View};
use crate::config::PORTS_MAX;
use crate::config::snapshot::{PortFacts, PortId};
use crate::counter::{Counters, DropReason, Event};
use crate::frame::BATCH_FRAMES;
use crate::table::flow::fragments::Stray;
use crate::table::flow::keeper::Keeper;
use crate::table::flow::key::Key;
use crate::table::flow::record::{Decision, Record};
use crate::table::flow::round::Round;
use crate::table::flow::state::Stage;
use crate::table::flow::watch::{What, step};
use crate::table::flow::{Flows, Invalid, Opened, Refusal, Seen, streams};
use crate::wire::hop::V4_MAPPED;
use crate::wire::ip::UDP;
use crate::wire::packet::{Content, Packet, Plain, Unreadable};
use std::num::NonZeroU64;

/// What a frame is to the flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracked {
    /// Nobody asked, or it is not IP.
    #[default]
    Not,
    /// It belongs to no flow that is known. [`confirm`] makes one, if a packet like this may begin one.
    Missing,
    /// It belongs to the flow at this place.
    Known(u32),
    /// An ICMP error about the flow at this place.
    Related(u32),
    /// ICMP of the link: neighbour discovery and the like. No flow is kept of it.
    Control,
    /// It fits none, for this reason. The port it came in by does not mind, and where it goes is not known yet: [`confirm`] asks that one, or,
    /// if nobody knows where the receiver is, `admit` each port that is to have a copy.
    Stray(DropReason),
}

/// What is known of one frame, beside its note. What every packet's flow is found and settled by is a line of it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Track {
    /// Key of its flow; of an ICMP error, of the flow it quotes; of a packet that is not whole, its own.
    pub key: Key,
    pub(super) hash: u64,
    /// See [`Tracked`].
    pub tracked: Tracked,
    /// Bridge or VRF.
    pub zone: u16,
    /// From which side of its flow's key it comes, whichever key it was found by; meaningless for [`Tracked::Not`].
    pub side: u8,
    /// It was found by the other key of a translated flow: it is an answer, or an error about what was translated.
    pub by_reply: bool,
    /// Of a plain packet most stands in its key, and in `packet` only what TCP says, until somebody asks ([`Track::write_out`]).
    pub(super) is_whole: bool,
    /// Of one that is not whole: its own key is the reply's, in which the ends stand the other way round than in its flow's.
    pub(super) is_turned: bool,
    /// Its key and the hash of that stand here; of a plain packet whose flow was found by its words those do, until somebody asks
    /// ([`Track::complete`]).
    pub(super) is_keyed: bool,
    /// What was read, if [`Track::is_whole`]. A later fragment has the ports of its first one.
    pub packet: Packet,
    /// Of an ICMP error, whom what it quotes was sent to.
    pub(super) quoted_dst: u128,
}

const _: () =
    assert!(std::mem::offset_of!(Track, packet) >= 64 && std::mem::offset_of!(Track, is_whole) < 64);

impl Track {
    /// Nothing is known.
    pub const NOT: Self = Self {
        key: Key { words: [0; 5] },
        hash: 0,
        tracked: Tracked::Not,
        zone: 0,
        side: 0,
        by_reply: false,
        is_whole: true,
        is_turned: false,
        is_keyed: true,
        packet: Packet::EMPTY,
        quoted_dst: 0,
    };

    /// What a plain packet says is written out, if it was not yet: whoever asks for more than its content calls this first. Its key
    /// is its own, as long as it was not.
    #[inline(never)]
    pub(super) fn write_out(&mut self, flows: &Flows) {
        if self.is_whole || self.tracked == Tracked::Not {
            return;
        }
        self.complete(flows);
        let [from, to] = self.key.ends_from(self.own_side());
        let protocol = self.key.protocol();
        self.packet = Packet {
            src: from.ip,
            dst: to.ip,
            protocol,
            ports: [from.port, to.port],
            icmp: [0; 2],
            content: if protocol == UDP { Content::Udp } else { self.packet.content },
            fragment: None,
        };
        self.is_whole = true;
    }

    /// Whether it is one more packet of a flow, that of the entry, that goes on as it did: [`streams`]. Then it is counted. `side`: from which
    /// side of the flow's key it comes.
    #[inline(always)]
    pub(super) fn streams(&self, record: Record, side: u8, now_s: u32) -> bool {
        // Of plain UDP the key is all that was read.
        if !self.is_whole && self.key.protocol() == UDP {
            return record.streams(now_s);
        }
        streams(record, &self.packet.content, side, now_s)
    }

    /// Of a packet that is not whole: its words, in place of its key; protocol and zone stand where they stand in that.
    #[inline(always)]
    pub(super) fn set_words(&mut self, words: Words) {
        [self.key.words[0], self.key.words[4]] = words;
        (self.by_reply, self.is_whole, self.is_turned, self.is_keyed) = (false, false, false, false);
    }

    /// Those.
    #[inline(always)]
    pub(super) fn words(&self) -> Words {
        debug_assert!(!self.is_keyed);
        [self.key.words[0], self.key.words[4]]
    }

    /// Of a packet whose words stand in place of its key: the key, and its hash.
    #[inline(never)]
    pub(super) fn complete(&mut self, flows: &Flows) {
        if self.is_keyed {
            return;
        }
        (self.key, self.side) = Key::of_plain(&Plain::of_words(self.words()), self.zone);
        self.hash = flows.hash(&self.key);
        self.is_keyed = true;
    }

    /// From which side of its own key a packet comes that is not whole.
    #[inline(always)]
    fn own_side(&self) -> u8 {
        self.side ^ u8::from(self.is_turned)
    }

    /// The source of the packet.
    #[inline]
    fn src(&self) -> u128 {
        match (self.is_whole, self.is_keyed) {
            (true, _) => self.packet.src,
            (false, true) => self.key.ends_from(self.own_side())[0].ip,
            (false, false) => V4_MAPPED | u128::from(Plain::of_words(self.words()).src),
        }
    }

    /// What is decided about the flow that it begins, of what was decided about itself: rules tell fragments from whole packets, and a piece says
    /// nothing of these.
    pub(super) fn decides(&self, decision: Decision) -> Decision {
        if self.packet.fragment.is_some() { Decision::NONE } else { decision }
    }

    pub(super) fn seen(&self, view: &View) -> Seen<'_> {
        debug_assert!(self.is_keyed);
        Seen {
            packet: &self.packet,
            key: self.key,
            hash: self.hash,
            side: self.side,
            port: view.in_port,
            now_s: view.now_s,
        }
    }
}

/// A worker's part of the flow table, and the tracks of the batch at hand.
#[derive(Debug)]
pub struct Flowing {
    /// By index in the batch.
    pub tracks: Box<[Track; BATCH_FRAMES]>,
    /// Its flows, and who looks on.
    pub keeper: Keeper,
    /// What becomes of its frames' addresses, by index in the batch; where nothing is translated it is not looked at.
    pub turns: Box<[Turn; BATCH_FRAMES]>,
    /// Frames of which it is not settled whether they may pass: `admit` is to look.
    pub(super) asks: Marks,
    /// What was decided about the flows of all frames, if it is the same, and nothing but where they go is left to ask.
    pub(super) agreed: Option<Decision>,
    /// Frames of no flow that is known.
    pub(super) begins: Marks,
    /// Frames of which it is known what becomes of their addresses: `translate` is to look at the others. Where nothing is translated it
    /// is not looked at.
    pub(super) turned: Marks,
    /// Which flow packets of these very words were of.
    pub(super) exact: Exact,
    fragments_swept: Round,
}

impl Flowing {
    /// For a worker that will make flows in this table.
    pub(super) fn new(flows: &Flows, secret: u64) -> Self {
        let keeper = Keeper::new(PORTS_MAX, flows.places());
        let (tracks, turns) = (Box::new([Track::NOT; BATCH_FRAMES]), Box::new([Turn::Stays; BATCH_FRAMES]));
        let fragments_swept = Round::default();
        let none = Marks::default();
        // One of its own: of `secret`, loop probes tell a part to whoever sees them.
        let exact = Exact::new(flows.hash(&Key { words: [secret, 1, 2, 3, 4] }));
        Self {
            tracks,
            keeper,
            turns,
            asks: none,
            agreed: None,
            begins: none,
            turned: none,
            exact,
            fragments_swept,
        }
    }
}

/// Some frames of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks(u64);

const _: () = assert!(BATCH_FRAMES == u64::BITS as usize);

impl Marks {
    /// The first so many.
    #[inline(always)]
    pub fn first(count: usize) -> Self {
        Self(u64::MAX.checked_shr((BATCH_FRAMES - count.min(BATCH_FRAMES)) as u32).unwrap_or(0))
    }

    /// Those that are not among others.
    #[inline(always)]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Those from `index` on.
    #[inline(always)]
    pub fn from(self, index: usize) -> Self {
        Self(self.0 & u64::MAX << (index % BATCH_FRAMES))
    }

    /// Whether the frame at `index` is among them.
    #[inline(always)]
    pub fn has(self, index: usize) -> bool {
        self.0 >> (index % BATCH_FRAMES) & 1 == 1
    }

    /// Whether none is among them.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The frame at `index` is among them from now on, if `is`.
    #[inline(always)]
    pub fn set(&mut self, index: usize, is: bool) {
        self.0 |= u64::from(is) << (index % BATCH_FRAMES);
    }
}

impl Iterator for Marks {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        // Of a number that is not 0 one instruction says it.
        let marks = NonZeroU64::new(self.0)?;
        self.0 &= self.0.wrapping_sub(1);
        Some(marks.trailing_zeros() as usize)
    }
}

/// Whether a packet is for a station that nobody has learned, and where a port may have it that is held to flows.
#[inline]
pub(super) fn is_sought(view: &View, note: &Note) -> bool {
    note.verdict == Verdict::Flood(Class::UnknownUnicast)
        && view.snapshot.fids.get(usize::from(note.fid)).is_some_and(|fid| fid.strict)
}

/// Whether a flow that begins here is made by the copy that is let in, if any is: nobody has learned where it goes, and one of the ports is
/// held to flows. What begins none goes no further where the sender is.
pub(super) fn is_put_off(view: &View, note: &Note, track: &Track) -> bool {
    let begins = || track.tracked == Tracked::Missing && view.tables.flows.begins(&track.seen(view));
    is_sought(view, note) && (!view.facts.tracked || view.facts.strict && begins())
}

/// Makes the flow known that the frame at `index` begins, with what was decided about it. What it is from now on
/// stands in its track; or why there can be no flow, and then the frame goes no further than to who does not mind.
#[inline]
pub(super) fn confirm(
    view: &View,
    private: &mut Private,
    index: usize,
    decision: Decision,
) -> Result<(), DropReason> {
    let made = make(view, private, index, decision);
    if let Err(reason) = made {
        private.flows.tracks[index].tracked = Tracked::Stray(reason);
    }
    made
}

#[inline]
fn make(view: &View, private: &mut Private, index: usize, decision: Decision) -> Result<(), DropReason> {
    let Flowing { tracks, keeper, .. } = &mut private.flows;
    let track = &mut tracks[index];
    let decision = track.decides(decision);
    match track.tracked {
        Tracked::Missing => {}
        Tracked::Stray(reason) => return Err(reason),
        _ => return Ok(()),
    }
    if let Err(reason) = may_begin(view, &track.key) {
        // What begins nothing is nothing more than there is.
        let begins = view.tables.flows.begins(&track.seen(view));
        return Err(if begins { reason } else { DropReason::NoFlow });
    }
    let opened = view.tables.flows.open(keeper, &track.seen(view), decision);
    count_evicted(keeper, &private.counters);
    let place = match opened {
        Ok(Opened::New(place)) => {
            private.counters.event(Event::FlowNew).add(1);
            if keeper.watch.is_some() {
                keeper.tell(What::New, track.key, view.tables.flows.state(place));
            }
            place
        }
        Ok(Opened::Known(place)) => place,
        Ok(Opened::Invalid(invalid)) => return Err(why_invalid(invalid)),
        Err(refusal) => return Err(why_refused(refusal)),
    };
    track.tracked = Tracked::Known(place);
    Ok(())
}

/// Whether a packet with this verdict that there is no flow for goes no further: one of its two ports is strict, or it came in by one that may
/// begin so many flows and begins one that is not counted.
pub(super) fn is_held(view: &View, verdict: Verdict, reason: DropReason) -> bool {
    use DropReason::{ConnectionLimit, FlowBusy, FlowPortLimit, FlowTableFull};
    let is_strict = |port| view.snapshot.port(port).is_some_and(|to| to.strict);
    let is_uncounted = matches!(reason, ConnectionLimit | FlowBusy | FlowPortLimit | FlowTableFull);
    view.facts.strict
        || view.facts.connections.is_some() && is_uncounted
        || match verdict {
            Verdict::Port(port) => is_strict(port),
            // Each copy is asked about.
            Verdict::Flood(Class::UnknownUnicast) => false,
            // Some copy may be for one that is.
            _ => !view.snapshot.lenient,
        }
}

/// Whether one more flow may begin at the port that a packet came in by, unless that of this key is there: an earlier packet of the batch
/// may have begun it. Two workers that ask at once may both be told so: a port has at most one flow too many for each.
#[inline]
pub(super) fn may_begin(view: &View, key: &Key) -> Result<(), DropReason> {
    let flows = &view.tables.flows;
    // One that began at another port would be this one's if it is begun anew.
    let is_own = |place| flows.began(place).0 == view.in_port && flows.is_alive(place, view.now_s);
    let is_there = || flows.find(key).is_some_and(is_own);
    match view.facts.connections {
        Some(most) if flows.begun_at(view.in_port) >= most && !is_there() => Err(DropReason::ConnectionLimit),
        _ => Ok(()),
    }
}

/// Flows that made room for others.
#[inline]
pub(super) fn count_evicted(keeper: &mut Keeper, counters: &Counters) {
    let evicted = keeper.take_evicted();
    if evicted > 0 {
        counters.event(Event::FlowEvicted).add(u64::from(evicted));
    }
}

/// A flow has left a stage.
#[cold]
#[inline(never)]
pub(super) fn moved(view: &View, keeper: &Keeper, key: Key, place: u32, from: Stage) {
    let state = view.tables.flows.state(place);
    if let Some(what) = step(from, state.stage) {
        keeper.tell(what, key, state);
    }
}

/// What a flow between the port a packet came in by and the one it leaves by is admitted by: the epochs of both
/// ports' policies and access control lists, the same for both directions. A flooded packet's flow is asked again when it is known where
/// it goes.
#[inline]
pub(super) fn decision(view: &View, verdict: Verdict) -> Decision {
    let Verdict::Port(port) = verdict else { return Decision::NONE };
    let to = view.snapshot.port(port).map_or(0, |to| to.epoch);
    Decision { epoch: view.facts.epoch.wrapping_add(to) }
}

/// What is asked about every packet that leaves by one port. Neighbours mostly leave by the same: it is looked up when that changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct WayOut<'a> {
    /// Its number, or [`NO_PORT`].
    port: PortId,
    /// Flows are kept of what it is sent.
    pub is_tracked: bool,
    /// Of a plain packet nothing is asked but what its flow was admitted by.
    is_plain: bool,
    /// Rules of one of the two ports tell fragments from whole packets.
    pub asks_fragments: bool,
    /// Whoever poses as another is to be found out.
    asks_source: bool,
    /// What a flow is admitted by that goes this way.
    decision: Decision,
    /// The port; none if it is not one that leads on.
    pub to: Option<&'a PortFacts>,
    /// How often it was another than before.
    turns: u32,
}

/// In place of a port's number: that of none.
const NO_PORT: PortId = PortId::MAX;
const _: () = assert!(PORTS_MAX <= NO_PORT as usize);

impl<'a> WayOut<'a> {
    /// That of no packet.
    pub fn nowhere() -> Self {
        Self {
            port: NO_PORT,
            is_tracked: false,
            is_plain: false,
            asks_fragments: false,
            asks_source: false,
            decision: Decision::NONE,
            to: None,
            turns: 0,
        }
    }

    /// The way of a packet with this verdict. All that leave by no port have one way, so that numbers are compared: of verdicts each kind
    /// would have a branch of its own.
    #[inline(always)]
    pub fn follow(&mut self, view: &View<'a>, verdict: Verdict) {
        let port = if let Verdict::Port(port) = verdict { port } else { NO_PORT };
        if self.port != port {
            *self = Self { turns: self.turns + 1, ..Self::of(view, port) };
        }
    }

    /// Whether all packets that go this way pass, which are of flows about which this was decided, and of which nothing more was read.
    #[inline(always)]
    pub fn admits_plain(&self, decision: Decision) -> bool {
        self.is_plain & (decision == self.decision)
    }

    /// Whether what answers to the flow at a place may go this way for being that: to the port that it began at, or to one whose rules say nothing of
    /// what it is sent. Whoever began it as somebody else is answered at his own port, and opens nobody's door by it.
    pub fn leads_back(&self, flows: &Flows, place: u32) -> bool {
        let is_asked = self.to.is_some_and(|to| to.subject.ingress.is_some() || to.acl.ingress.is_some());
        !is_asked || flows.began(place).0 == self.port
    }

    /// Whether this is what a flow is admitted by that goes this way.
    pub fn is_decided(&self, decision: Decision) -> bool {
        decision == self.decision
    }

    /// Whether it was never another than it is now, but for that of no packet.
    #[inline(always)]
    pub fn is_one(&self) -> bool {
        self.turns <= 1
    }

    #[inline(never)]
    fn of(view: &View<'a>, port: PortId) -> Self {
        let to = view.snapshot.port(port);
        let asks_source = view.facts.subject.is_workload && to.is_some_and(|to| to.subject.ingress.is_some());
        Self {
            port,
            is_tracked: to.is_some_and(|to| to.tracked),
            is_plain: to.is_some() && !asks_source,
            asks_fragments: view.facts.acl.fragments || to.is_some_and(|to| to.acl.fragments),
            asks_source,
            decision: decision(view, Verdict::Port(port)),
            to,
            turns: 0,
        }
    }

    /// Whether a packet that goes this way is of a flow that what is said of its two ends has admitted as it stands: nearly all are.
    #[inline(always)]
    pub fn settles(&self, view: &View, track: &Track) -> bool {
        let Tracked::Known(place) = track.tracked else { return false };
        self.admits(view, track, view.tables.flows.decision(place))
    }

    /// The same of a packet that is known to be of a flow, by what was decided about that.
    #[inline(always)]
    pub fn admits(&self, view: &View, track: &Track, decision: Decision) -> bool {
        decision == self.decision && (self.is_plain & !track.is_whole || self.admits_with_care(view, track))
    }

    #[inline(never)]
    fn admits_with_care(&self, view: &View, track: &Track) -> bool {
        // Of a flow that is allowed fragments need not be.
        let is_asked = self.asks_fragments && track.is_whole && track.packet.fragment.is_some();
        self.to.is_some() && !is_asked && self.is_itself(view, track)
    }

    /// Whoever poses as another end of a flow is asked as anybody: the flow says nothing about it.
    #[inline(always)]
    pub fn is_itself(&self, view: &View, track: &Track) -> bool {
        !self.asks_source || view.facts.subject.may_be(track.src())
    }
}

/// Looks after what is over. A worker's turn calls it.
pub(super) fn sweep(tables: &super::Tables, now: super::Now, flowing: &mut Flowing) {
    if !flowing.keeper.had_places() {
        return;
    }
    flowing.keeper.sweep(&tables.flows, now.ns);
    tables.fragments.sweep(&mut flowing.fragments_swept, now.ns);
}

/// The same where there are no frames.
pub(super) fn sweep_at_rest(tables: &super::Tables, now: super::Now, flowing: &mut Flowing) {
    if flowing.keeper.had_places() {
        flowing.keeper.sweep_at_rest(&tables.flows, now.ns);
    }
}

pub(super) fn drop(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

pub(super) fn why_invalid(invalid: Invalid) -> DropReason {
    match invalid {
        Invalid::Flags => DropReason::TcpFlags,
        Invalid::Window => DropReason::TcpWindow,
        Invalid::State => DropReason::FlowState,
    }
}

pub(super) fn why_refused(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::NoBeginning => DropReason::NoFlow,
        Refusal::PortLimit => DropReason::FlowPortLimit,
        Refusal::Full => DropReason::FlowTableFull,
        Refusal::Busy => DropReason::FlowBusy,
    }
}

pub(super) fn why_unreadable(unreadable: Unreadable) -> DropReason {
    match unreadable {
        Unreadable::Header(_) => DropReason::IpHeader,
        Unreadable::Tiny => DropReason::FragmentTiny,
        Unreadable::Overlap => DropReason::FragmentOverlap,
    }
}

pub(super) fn why_stray(stray: Stray) -> DropReason {
    match stray {
        Stray::NoFirst => DropReason::FragmentNoFirst,
        Stray::Overlap => DropReason::FragmentOverlap,
        Stray::Full => DropReason::FragmentFull,
    }
}
