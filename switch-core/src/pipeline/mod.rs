//! What happens to a batch of frames, as a list of calls. Pure: the clock, the tables and the memory
//! are arguments, so the same pipeline runs in the daemon, a simulator, a fuzzer and a bench.
//!
//! | stage | what |
//! |---|---|
//! | [`parse`] | bytes to words: addresses, tag, EtherType |
//! | [`guard`] | what a port may send at all: VLAN membership, loops, its own addresses, its rate |
//! | [`learn`] | which port the source is behind |
//! | [`tunnel`] | what is for the end of a tunnel is taken out of what it came in |
//! | [`track`] | which flow a packet belongs to; before `route` by where it came in, after `forward` by where it goes |
//! | [`translate`] | where a packet really goes, and as whom it comes: before `route`, and where a flow is made |
//! | [`back`] | an answer to what the node's kernel sent goes back to the kernel |
//! | [`route`] | to the bridge's own MAC: the route, the neighbour, its port; or the switch itself |
//! | [`forward`] | all else: where the destination is; storm control of what has none |
//! | [`admit`], [`copies`] | whether network policies and access control lists let it through, and each copy of what is flooded, as [`judge`] has it |
//! | [`rewrite`] | a routed packet's new addresses, one hop less; TCP's segment size, where asked for |
//! | [`egress`] | what the way out asks for: tag, MTU |
//! | [`emit`] | into queues and back to the pool; flooding copies here, superframes are cut up for who takes none |
//!
//! What `emit` was told to set aside is worked off behind the list, by [`slow`]; what comes of it enters at `egress`,
//! and a packet that waited for its neighbour ([`hold`]) enters at `route` again. What came out of a tunnel enters by the tunnel's port, and
//! what went into one at `route`, outside ([`outside`]). Whoever looks on ([`watch`]) is told after each
//! stage; [`dry`] runs the list for one frame and changes nothing.

mod admit;
mod back;
pub mod binding;
mod bucket;
pub mod capture;
mod copies;
pub mod drops;
pub mod dry;
mod egress;
mod emit;
mod exact;
pub mod flow;
mod foresee;
mod forward;
mod guard;
mod headers;
mod hear;
pub mod hold;
pub mod judge;
mod learn;
pub mod live;
pub mod meter;
mod next_hop;
pub mod note;
mod outside;
mod parse;
mod private;
pub mod probe;
mod reach;
pub mod refusals;
mod reject;
mod rewrite;
mod route;
mod segment;
pub mod slow;
mod stand_in;
pub mod storm;
mod tables;
mod track;
mod translate;
mod tunnel;
pub mod verdict;
mod waiting;
pub mod watch;
mod ways;

#[cfg(test)]
mod acl_field_tests;
#[cfg(test)]
mod acl_frame_tests;
#[cfg(test)]
mod acl_kind_tests;
#[cfg(test)]
mod acl_tests;
#[cfg(test)]
mod acl_v6_tests;
#[cfg(test)]
mod addressed_flow_tests;
#[cfg(test)]
mod agreed_tests;
#[cfg(test)]
mod back_tests;
#[cfg(test)]
mod busy_tests;
#[cfg(test)]
mod capture_tests;
#[cfg(test)]
mod default_verdict_tests;
#[cfg(test)]
mod destination_tests;
#[cfg(test)]
mod dropped_tests;
#[cfg(test)]
mod exact_tests;
#[cfg(test)]
mod flood_flow_tests;
#[cfg(test)]
mod flow_room_tests;
#[cfg(test)]
mod fragment_room_tests;
#[cfg(test)]
mod fragment_tests;
#[cfg(test)]
mod glance_rig;
#[cfg(test)]
mod glance_tests;
#[cfg(test)]
mod judge_tests;
#[cfg(test)]
mod l2_tests;
#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod moved_rules_tests;
#[cfg(test)]
mod nat_flood_tests;
#[cfg(test)]
mod nat_fragment_tests;
#[cfg(test)]
mod nat_glance_tests;
#[cfg(test)]
mod nat_rig;
#[cfg(test)]
mod nat_tests;
#[cfg(test)]
mod nat_wait_tests;
#[cfg(test)]
mod neighbour_tests;
#[cfg(test)]
mod odd_frames_tests;
#[cfg(test)]
mod policy_case_tests;
#[cfg(test)]
mod policy_route_tests;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod policy_worker_tests;
#[cfg(test)]
mod pose_tests;
#[cfg(test)]
mod related_tests;
#[cfg(test)]
mod route_count_tests;
#[cfg(test)]
mod route_mtu_tests;
#[cfg(test)]
mod route_trouble_tests;
#[cfg(test)]
mod routing_tests;
#[cfg(test)]
mod sctp_policy_tests;
#[cfg(test)]
mod tcp_policy_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tier_order_tests;
#[cfg(test)]
mod track_tests;
#[cfg(test)]
mod tunnel_policy_tests;
#[cfg(test)]
mod tunnel_tests;
#[cfg(test)]
mod ways_tests;
#[cfg(test)]
mod zone_tests;

use crate::config::snapshot::{PortFacts, PortId, Snapshot};
use crate::counter::{DropReason, NoLaps, Stage};
use crate::frame::{Area, BATCH_FRAMES, Batch, Frame, Pool};
pub use exact::EXACT_BYTES;
use note::{Note, Notes};
pub use private::{ANNOUNCED_MAX, Advertising, Moved, Private};
use private::{Aside, Chore, Word};
pub use tables::{TableSizes, Tables};
use verdict::Fit;
pub use watch::Watch;
pub use ways::WAYS_BYTES;

/// Now, as the pipeline is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back.
    pub ns: u64,
}

impl Now {
    /// Whole seconds of it.
    #[inline(always)]
    pub fn s(self) -> u32 {
        (self.ns / 1_000_000_000) as u32
    }
}

/// What every stage may read.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    snapshot: &'a Snapshot,
    tables: &'a Tables,
    in_port: PortId,
    facts: &'a PortFacts,
    now: Now,
    now_s: u32,
}

impl<'a> View<'a> {
    fn new(world: World<'a>, in_port: PortId, closed: &'a PortFacts) -> Self {
        let World { snapshot, tables, now } = world;
        let facts = snapshot.port(in_port).unwrap_or(closed);
        Self { snapshot, tables, in_port, facts, now, now_s: now.s() }
    }
}

/// What a run reads beside the frames.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// Declared.
    pub snapshot: &'a Snapshot,
    /// Learned.
    pub tables: &'a Tables,
    /// The time.
    pub now: Now,
}

/// The stages, with the memory they need: a worker has one.
#[derive(Debug)]
pub struct Pipeline {
    /// What belongs to the worker.
    pub private: Private,
    notes: Box<Notes>,
}

impl Pipeline {
    /// Nothing in it yet.
    pub fn new(private: Private) -> Self {
        Self { private, notes: Box::new([Note::default(); BATCH_FRAMES]) }
    }

    /// Takes note of a snapshot, before it runs with it the first time; of one that it knows it costs a look.
    #[inline(always)]
    pub fn meet(&mut self, snapshot: &Snapshot, now: Now) {
        let ports = snapshot.ports.iter();
        let kept = ports.map(|port| port.open.then_some(port.tracked));
        self.private.flows.keeper.kept.note(snapshot.generation, kept, now.s());
    }

    /// Runs `batch`, which came in by `in_port`, through every stage. Afterwards the batch is empty and
    /// each of its frames is in a queue or back in the pool.
    #[inline]
    pub fn run(
        &mut self,
        world: World,
        in_port: PortId,
        batch: &mut Batch,
        pool: &mut Pool,
        watch: &mut impl Watch,
    ) {
        let closed = PortFacts::default();
        let view = View::new(world, in_port, &closed);
        let Self { private, notes } = self;
        let notes = &mut notes[..batch.len()];
        private.counters.ledger.received.add(batch.len() as u64);
        let traffic = private.counters.port(in_port);
        traffic.rx_packets.add(batch.len() as u64);
        traffic.rx_bytes.add(batch.iter().map(|frame| frame.len() as u64).sum());

        let gist = parse::run(pool.area(), batch, notes);
        watch.after(Stage::Parse, batch, notes, private);
        guard::run(&view, pool.area(), batch, notes, gist, private);
        watch.after(Stage::Guard, batch, notes, private);
        learn::run(&view, notes, private);
        watch.after(Stage::Learn, batch, notes, private);
        if view.facts.ends_tunnels {
            tunnel::run(&view, pool.area(), batch, notes);
            watch.after(Stage::Tunnel, batch, notes, private);
        }
        decide(&view, batch, notes, pool, private, watch);
        if !private.aside.is_empty() || !private.asks.is_empty() {
            self.work_off(world, &view, batch, pool);
        }
        if !world.snapshot.tunnels.is_empty() {
            self.through_tunnels(world, batch, pool, watch);
        }
    }
}

/// The second half of the list: from where the packet is to go to where it is.
#[inline(always)]
fn decide(
    view: &View,
    batch: &mut Batch,
    notes: &mut [Note],
    pool: &mut Pool,
    private: &mut Private,
    watch: &mut impl Watch,
) {
    // Where no flows are kept and the switch is no station, these cost a look at facts.
    if view.facts.tracked {
        track::run(view, pool.area(), batch, notes, private);
        if view.snapshot.returns {
            back::run(view, pool.area(), batch, notes, private);
        }
        watch.after(Stage::Track, batch, notes, private);
    }
    let translated = view.facts.translated;
    if translated {
        translate::run(view, pool.area(), batch, notes, private);
        watch.after(Stage::Translate, batch, notes, private);
    }
    let routed = view.facts.routed;
    let mut is_decided = false;
    if routed {
        is_decided = route::run(view, pool.area(), batch, notes, private);
        watch.after(Stage::Route, batch, notes, private);
    }
    if !is_decided {
        forward::run(view, notes, private);
    }
    watch.after(Stage::Forward, batch, notes, private);
    // Where no flows are kept, this is all that they cost, and policies with them: who is isolated is tracked.
    if view.snapshot.tracks {
        track::rest(view, pool.area(), batch, notes, private);
        watch.after(Stage::Track, batch, notes, private);
        if view.snapshot.policed {
            admit::run(view, pool.area(), batch, notes, private);
            watch.after(Stage::Admit, batch, notes, private);
        }
        match translated {
            true => translate::confirm(view, notes, private),
            false => track::confirm(view, notes, private),
        }
    }
    if routed {
        rewrite::run(pool.area(), batch, notes);
        if view.snapshot.mss_clamps {
            rewrite::clamp(view, pool.area(), batch, notes, private);
        }
        if translated {
            rewrite::turn(pool.area(), batch, notes, private);
        }
        watch.after(Stage::Rewrite, batch, notes, private);
    }
    let one_way = egress::run(view, pool.area(), batch, notes);
    watch.after(Stage::Egress, batch, notes, private);
    emit::run(view, batch, notes, pool, private, COPIES, one_way);
    watch.after(Stage::Emit, batch, notes, private);
}

/// Copies of what came in.
const COPIES: emit::Copying = emit::Copying { for_whom: copies::for_whom, prepare };
/// Copies of what the switch says itself: for everybody.
const OWN: emit::Copying = emit::Copying { for_whom: |_, _, _, _, _| None, prepare: prepare_own };

/// A flooded copy: may it leave by `to`, and as what. Stages do not know each other; here they meet.
fn prepare(
    area: &Area,
    frame: &mut Frame,
    (note, index): (&Note, usize),
    to: (PortId, &PortFacts),
    view: &View,
    private: &mut Private,
) -> Result<Fit, DropReason> {
    copies::copy(view, area, frame, (note, index), to, private)?;
    egress::prepare(area, frame, note, to.1, view)
}

/// The same for what the switch says itself: no policy is about it.
fn prepare_own(
    area: &Area,
    frame: &mut Frame,
    (note, _): (&Note, usize),
    to: (PortId, &PortFacts),
    view: &View,
    _: &mut Private,
) -> Result<Fit, DropReason> {
    egress::prepare(area, frame, note, to.1, view)
}

/// [`decide`] for what waited or was cut up.
#[cold]
#[inline(never)]
fn decide_again(view: &View, batch: &mut Batch, notes: &mut [Note], pool: &mut Pool, private: &mut Private) {
    decide(view, batch, notes, pool, private, &mut NoLaps);
}
