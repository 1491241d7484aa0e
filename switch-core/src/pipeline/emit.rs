//! `emit`: every frame of the batch goes where its verdict says, in the order in which they came.
//! Flooding copies here: into fresh frames, as many as the pool has; the last member gets the original.

use super::binding;
use super::note::Note;
use super::segment;
use super::verdict::{Class, Fit, Verdict, Why};
use super::{Aside, Private, View};
use crate::config::snapshot::{Member, PortFacts, PortId};
use crate::counter::{DropReason, Event};
use crate::frame::{Area, Batch, Frame, Pool};

/// What others know of copies, handed over by the list because stages do not know each other. A note goes with its place in the batch.
#[derive(Clone, Copy)]
pub(super) struct Copying {
    /// The address whose owner alone is to have copies; none: everybody.
    pub for_whom: ForWhom,
    /// How a copy is asked for and made fit for its port.
    pub prepare: Prepare,
}

type ForWhom = fn(&View, &Area, &Frame, (&Note, usize), &Private) -> Option<u128>;

type Prepare = fn(
    &Area,
    &mut Frame,
    (&Note, usize),
    (PortId, &PortFacts),
    &View,
    &mut Private,
) -> Result<Fit, DropReason>;

// Also called from cold places; the hot one must not pay for that with a call.
#[inline(always)]
pub(super) fn run(
    view: &View,
    batch: &mut Batch,
    notes: &[Note],
    pool: &mut Pool,
    private: &mut Private,
    copying: Copying,
    one_way: Option<PortId>,
) {
    // The common batch first. What its queue has no room for goes on below.
    if let Some(port) = one_way {
        private.enqueue_batch(port, batch);
    }
    let mut frames = batch.drain();
    let mut rest = &notes[..frames.len()];
    while let Some(note) = rest.first() {
        // Neighbours mostly go the same way: they are queued together.
        let at = notes.len() - rest.len();
        let run = rest.iter().take_while(|other| other.verdict == note.verdict).count();
        let (these, others) = rest.split_at(run);
        rest = others;
        match note.verdict {
            Verdict::Port(port) => private.enqueue_run(pool, port, frames.by_ref().take(run)),
            Verdict::Segments(port) => {
                frames.by_ref().take(run).for_each(|frame| segment::enqueue(private, pool, port, frame));
            }
            Verdict::Drop(reason) => {
                frames.by_ref().take(run).for_each(|frame| private.drop(pool, view.in_port, reason, frame));
            }
            Verdict::Flood(class) => {
                for (n, (note, frame)) in these.iter().zip(frames.by_ref()).enumerate() {
                    flood(view, frame, (note, at + n), class, pool, private, copying);
                }
            }
            Verdict::Aside(why) => set_aside(view, private, (these, at), frames.by_ref().take(run), why),
            // `forward` decides about every frame; should one slip through, it is not lost.
            Verdict::Undecided => {
                let reason = DropReason::NoMember;
                frames.by_ref().take(run).for_each(|frame| private.drop(pool, view.in_port, reason, frame));
            }
        }
    }
}

/// For the slow path. There is room for a whole batch, and it is worked off behind each.
#[cold]
fn set_aside(
    view: &View,
    private: &mut Private,
    (notes, at): (&[Note], usize),
    frames: impl Iterator<Item = Frame>,
    why: Why,
) {
    for (n, (frame, note)) in frames.zip(notes).enumerate() {
        let real = binding::real(view, private, at + n);
        private.aside.push(Aside { frame, note: *note, why, real });
    }
}

fn flood(
    view: &View,
    frame: Frame,
    (note, index): (&Note, usize),
    class: Class,
    pool: &mut Pool,
    private: &mut Private,
    copying: Copying,
) {
    let Some(fid) = view.snapshot.fids.get(usize::from(note.fid)) else {
        return private.drop(pool, view.in_port, DropReason::NoMember, frame);
    };
    // A copy for each but the last, who gets the original: a flood to one port copies nothing.
    let (mut last, mut others, mut blocked) = (None, 0, 0);
    let only = (copying.for_whom)(view, pool.area(), &frame, (note, index), private);
    let is_meant = |member: &Member| {
        let to = view.snapshot.port(member.port);
        let has = |ip, to: &PortFacts| match view.snapshot.policing.is_node(ip) {
            true => to.is_node,
            false => to.subject.may_be(ip),
        };
        only.is_none_or(|ip| to.is_some_and(|to| has(ip, to)))
    };
    for member in fid.members.iter().filter(|member| is_other(view, note, member)) {
        others += 1;
        if view.tables.loops.is_blocked(member.port, view.now_s) {
            blocked += 1;
            continue;
        }
        if !takes(member, class) || !is_meant(member) {
            continue;
        }
        if let Some(member) = last.replace(member) {
            match copy(pool, &frame) {
                Some(copy) => {
                    private.counters.ledger.copied.add(1);
                    send(view, copy, (note, index), member, pool, private, copying.prepare);
                }
                None => private.counters.event(Event::FloodCopyMissed).add(1),
            }
        }
    }
    match last {
        Some(member) => send(view, frame, (note, index), member, pool, private, copying.prepare),
        None if blocked > 0 => private.drop(pool, view.in_port, DropReason::LoopBlocked, frame),
        None if others > 0 => private.drop(pool, view.in_port, DropReason::FloodOff, frame),
        None => private.drop(pool, view.in_port, DropReason::NoMember, frame),
    }
}

fn send(
    view: &View,
    mut frame: Frame,
    note: (&Note, usize),
    member: &Member,
    pool: &mut Pool,
    private: &mut Private,
    prepare: Prepare,
) {
    let Some(to) = view.snapshot.port(member.port) else {
        return private.drop(pool, member.port, DropReason::PortClosed, frame);
    };
    match prepare(pool.area(), &mut frame, note, (member.port, to), view, private) {
        Ok(Fit::Whole) => private.enqueue(pool, member.port, frame),
        Ok(Fit::InSegments) => segment::enqueue(private, pool, member.port, frame),
        Err(reason) => private.drop(pool, member.port, reason, frame),
    }
}

fn copy(pool: &mut Pool, original: &Frame) -> Option<Frame> {
    let mut copy = pool.take_for(original.len())?;
    let area = pool.area();
    if !area.fill(&mut copy, area.bytes(original)) {
        // Only a frame that grew into its headroom can be too long for a fresh one's place.
        pool.give(copy);
        return None;
    }
    copy.offload = original.offload;
    Some(copy)
}

/// Flooding leaves out the port a frame came from (also with hairpin, which is for known stations), unless
/// it was routed, and, from an isolated port, the other isolated ones.
fn is_other(view: &View, note: &Note, member: &Member) -> bool {
    (note.routed || member.port != view.in_port) && !(member.isolated && view.facts.isolated)
}

fn takes(member: &Member, class: Class) -> bool {
    match class {
        Class::UnknownUnicast => member.unknown_unicast,
        Class::Multicast => member.multicast,
        Class::Broadcast => member.broadcast,
    }
}
