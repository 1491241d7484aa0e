//! What goes through tunnels, behind the list of stages. A tunnel is a port to the list, so all that it knows of ports holds for it; its
//! cable is a route, which is looked for here. What came out of one enters the list by its port, as a frame from any other. What
//! leaves by one is put into its packet and routed, without the stages that judge whoever sends by a port: it is the switch's own.
//! So nothing goes round in here: what comes out of a tunnel is never taken out of another, and what went into one does not go into
//! a second ([`DropReason::TunnelLoop`]).

use super::note::Note;
use super::verdict::Verdict;
use super::{OWN, Pipeline, Private, View, Watch, World, egress, emit, rewrite, route, tunnel};
use crate::config::snapshot::{PortFacts, PortId};
use crate::config::tunnels::Tunnel;
use crate::counter::{DropReason, NoLaps, Stage};
use crate::frame::{BATCH_FRAMES, Batch, Frame, Pool};
use arrayvec::ArrayVec;

/// The queue of a tunnel's port by which its outer packets come in: no lane has that number.
pub(super) const OUTSIDE: u16 = u16::MAX;

impl Pipeline {
    /// Has what came out of tunnels enter by their ports, and what leaves by them be routed outside. Nothing is left in either place.
    #[cold]
    #[inline(never)]
    pub(super) fn through_tunnels(
        &mut self,
        world: World,
        batch: &mut Batch,
        pool: &mut Pool,
        watch: &mut impl Watch,
    ) {
        if !self.private.opened.is_empty() {
            self.come_out(world, batch, pool, watch);
        }
        for tunnel in world.snapshot.tunnels.iter() {
            let port = usize::from(tunnel.port);
            if self.private.queues[port].is_empty() {
                continue;
            }
            while !self.private.queues[port].is_empty() {
                self.go_in(world, tunnel, batch, pool, watch);
            }
            self.private.dirty.retain(|dirty| *dirty != tunnel.port);
        }
    }

    fn come_out(&mut self, world: World, batch: &mut Batch, pool: &mut Pool, watch: &mut impl Watch) {
        let in_queue = std::mem::take(&mut self.private.in_queue);
        // What they came in ends here.
        self.private.counters.ledger.consumed.add(self.private.opened.len() as u64);
        let mut opened = std::mem::take(&mut self.private.opened).into_iter().peekable();
        while let Some((frame, fid)) = opened.next() {
            batch.push(frame);
            while let Some((frame, _)) = opened.next_if(|(_, other)| *other == fid) {
                batch.push(frame);
            }
            // One that came out of it a moment ago, in the same snapshot.
            let port = world.snapshot.fids.get(usize::from(fid)).and_then(|fid| fid.sole).unwrap_or(0);
            match goes_along(watch) {
                true => self.run(world, port, batch, pool, watch),
                false => self.run(world, port, batch, pool, &mut NoLaps),
            }
        }
        self.private.in_queue = in_queue;
    }

    /// A batch of what leaves by a tunnel.
    fn go_in(
        &mut self,
        world: World,
        tunnel: &Tunnel,
        batch: &mut Batch,
        pool: &mut Pool,
        watch: &mut impl Watch,
    ) {
        let Self { private, notes } = self;
        let waiting = private.queues[usize::from(tunnel.port)].take(BATCH_FRAMES);
        let frames: ArrayVec<Frame, BATCH_FRAMES> = waiting.collect();
        let (mut packets, mut bytes) = (0, 0);
        for mut frame in frames {
            let len = frame.len() as u64;
            match tunnel::put_in(tunnel, pool.area(), &mut frame) {
                Ok(note) => {
                    (packets, bytes) = (packets + 1, bytes + len);
                    notes[batch.len()] = note;
                    batch.push(frame);
                }
                Err(reason) => private.drop(pool, tunnel.port, reason, frame),
            }
        }
        let traffic = private.counters.port(tunnel.port);
        traffic.tx_packets.add(packets);
        traffic.tx_bytes.add(bytes);
        private.counters.ledger.sent.add(packets);
        private.counters.ledger.generated.add(packets);
        let in_queue = std::mem::replace(&mut private.in_queue, OUTSIDE);
        match goes_along(watch) {
            true => self.route_outside(world, tunnel.port, batch, pool, watch),
            false => self.route_outside(world, tunnel.port, batch, pool, &mut NoLaps),
        }
        self.private.in_queue = in_queue;
    }

    /// Sends outer packets of a tunnel on, from `route` on. What waits for its neighbour comes here again.
    pub(super) fn route_outside(
        &mut self,
        world: World,
        port: PortId,
        batch: &mut Batch,
        pool: &mut Pool,
        watch: &mut impl Watch,
    ) {
        let facts = PortFacts { routed: true, ..PortFacts::default() };
        let view = View { facts: &facts, ..View::new(world, port, &facts) };
        let notes = &mut self.notes[..batch.len()];
        // What waited may have done so beyond a change, by which identifiers outside are others; without a tunnel there is none.
        let tunnels = world.snapshot.tunnels.iter();
        let outside = tunnels.filter(|tunnel| tunnel.port == port).map(|tunnel| tunnel.outside).next();
        notes.iter_mut().for_each(|note| note.fid = outside.unwrap_or(0));
        decide_outside(&view, batch, notes, pool, &mut self.private, watch);
        if !self.private.aside.is_empty() || !self.private.asks.is_empty() {
            self.work_off(world, &view, batch, pool);
        }
    }
}

/// A fact of the kind of watcher alone.
fn goes_along<W: Watch>(_: &W) -> bool {
    W::GOES_ALONG
}

fn decide_outside(
    view: &View,
    batch: &mut Batch,
    notes: &mut [Note],
    pool: &mut Pool,
    private: &mut Private,
    watch: &mut impl Watch,
) {
    watch.after(Stage::Tunnel, batch, notes, private);
    route::run(view, pool.area(), batch, notes, private);
    let tunnels = &view.snapshot.tunnels;
    for note in notes.iter_mut() {
        if let Verdict::Port(port) = note.verdict
            && tunnels.iter().any(|tunnel| tunnel.port == port)
        {
            note.verdict = Verdict::Drop(DropReason::TunnelLoop);
        }
    }
    watch.after(Stage::Route, batch, notes, private);
    rewrite::run(pool.area(), batch, notes);
    watch.after(Stage::Rewrite, batch, notes, private);
    let one_way = egress::run(view, pool.area(), batch, notes);
    watch.after(Stage::Egress, batch, notes, private);
    emit::run(view, batch, notes, pool, private, OWN, one_way);
    watch.after(Stage::Emit, batch, notes, private);
}
