//! What the list of stages leaves for later: the slow path behind a batch, and packets whose neighbour has
//! answered, or never will.

use super::hold::{AT_ONCE, Due};
use super::outside::OUTSIDE;
use super::slow;
use super::{Advertising, OWN, Pipeline, View, Word, World, decide_again, egress, emit};
use crate::config::snapshot::{PortFacts, PortId};
use crate::counter::NoLaps;
use crate::frame::{BATCH_FRAMES, Batch, Pool};
use crate::table::neigh::{Found, PROBES_MAX};
use crate::table::wide::Key;

impl Pipeline {
    /// Works off what the stages set aside, and sends what the switch has to say.
    #[cold]
    pub(super) fn work_off(&mut self, world: World, view: &View, batch: &mut Batch, pool: &mut Pool) {
        slow::run(view, pool, &mut self.private);
        self.speak(world, view.in_port, batch, pool);
        if !self.private.slow.pieces.is_empty() {
            self.send_pieces(world, view, batch, pool);
        }
    }

    /// Sends the pieces of packets that were too long on, from `route` on. They fit where the whole did not;
    /// where they do not fit either (segments of a superframe; a next hop of several, whose port is narrower) they are cut
    /// again, and each round is shorter than the one before.
    fn send_pieces(&mut self, world: World, view: &View, batch: &mut Batch, pool: &mut Pool) {
        let mut pieces = std::mem::take(&mut self.private.slow.pieces);
        while !pieces.is_empty() {
            let count = pieces.len().min(slow::PIECES_AT_ONCE);
            for ((frame, piece), note) in pieces.drain(..count).zip(self.notes.iter_mut()) {
                batch.push(frame);
                *note = piece;
            }
            let notes = &mut self.notes[..count];
            decide_again(view, batch, notes, pool, &mut self.private);
            self.work_off(world, view, batch, pool);
        }
    }

    /// Sends what is said. It is the switch's own: no port's isolation or storm limit is meant for it.
    fn speak(&mut self, world: World, in_port: PortId, batch: &mut Batch, pool: &mut Pool) {
        let (open, none) = (PortFacts::default(), PortFacts::default());
        let view = View { facts: &open, ..View::new(world, in_port, &none) };
        let mut said = std::mem::take(&mut self.private.slow.said);
        while !said.is_empty() {
            let count = said.len().min(BATCH_FRAMES);
            for ((frame, said), note) in said.drain(..count).zip(self.notes.iter_mut()) {
                batch.push(frame);
                *note = said;
            }
            let notes = &mut self.notes[..count];
            let one_way = egress::run(&view, pool.area(), batch, notes);
            emit::run(&view, batch, notes, pool, &mut self.private, OWN, one_way);
        }
    }

    /// Lets go of packets whose neighbour answered, asks again, gives up. Called once a turn; costs a look
    /// when nothing waits.
    #[inline]
    pub fn attend(&mut self, world: World, batch: &mut Batch, pool: &mut Pool) {
        super::flow::sweep(world.tables, world.now, &mut self.private.flows);
        if self.private.holds.wants_attention(world.tables.neigh.changes(), world.now) {
            self.attend_slowly(world, batch, pool);
        }
        if !self.private.announces.is_empty() {
            self.announce(world, batch, pool);
        }
        if !world.snapshot.tunnels.is_empty() {
            self.through_tunnels(world, batch, pool, &mut NoLaps);
        }
    }

    /// What waits for a turn that brings no frames.
    pub fn rest(&mut self, world: World) {
        super::flow::sweep_at_rest(world.tables, world.now, &mut self.private.flows);
    }

    #[cold]
    fn announce(&mut self, world: World, batch: &mut Batch, pool: &mut Pool) {
        let none = PortFacts::default();
        let view = View::new(world, 0, &none);
        for word in std::mem::take(&mut self.private.announces) {
            if self.private.slow.said.is_full() {
                self.speak(world, 0, batch, pool);
            }
            let fid = match word {
                Word::Announce(fid) => fid,
                Word::Advertise(Advertising { fid, last, withdrawn }) => {
                    match last {
                        None => slow::advertise(&view, pool, &mut self.private, fid, None, &withdrawn),
                        Some(mac) => {
                            slow::advertise_last(&view, pool, &mut self.private, fid, mac, &withdrawn)
                        }
                    }
                    continue;
                }
            };
            let Some(gateway) = view.snapshot.gateway(fid) else { continue };
            let own = gateway.addresses.iter().map(|own| own.ip);
            let own = own.chain(gateway.speaks_v6().then_some(gateway.link_local));
            // The kernel tells of its own itself.
            let own = own.filter(|_| !gateway.is_kernels);
            for ip in own.chain(gateway.stands_for.iter().copied()) {
                slow::announce(pool, &mut self.private, fid, gateway.mac, ip);
                if self.private.slow.said.is_full() {
                    self.speak(world, 0, batch, pool);
                }
            }
        }
        self.speak(world, 0, batch, pool);
    }

    #[cold]
    fn attend_slowly(&mut self, world: World, batch: &mut Batch, pool: &mut Pool) {
        let (neighbours, now_s) = (&world.tables.neigh, world.now.s());
        // Before the look: whoever answers after it moves the number again.
        self.private.holds.note_seen(neighbours.changes());
        let answered = |key: Key| {
            matches!(neighbours.lookup(neighbours.home(key), key, now_s), Found::Fresh(_) | Found::Stale(_))
        };
        let mut released = 0;
        for key in self.private.holds.find(answered) {
            if released >= AT_ONCE {
                break;
            }
            released += self.release(world, key, batch, pool);
        }
        if released >= AT_ONCE {
            // There may be more: next turn.
            self.private.holds.poke();
        }
        for (key, due) in self.private.holds.due(world.now, PROBES_MAX) {
            match due {
                Due::Ask => self.ask_again(world, key, batch, pool),
                Due::GiveUp => self.give_up(world, key, batch, pool),
            }
        }
    }

    /// Sends the packets that wait for `key` on, in their order: from `route` on, as if they came now.
    /// How many there were.
    fn release(&mut self, world: World, key: Key, batch: &mut Batch, pool: &mut Pool) -> usize {
        let (closed, mut released) = (PortFacts::default(), 0);
        // All at once: of several ports each would wait for the others' packets behind its own, in turn and without end.
        let Some(chain) = self.private.holds.let_go(key) else { return 0 };
        while let Some(first) = self.private.holds.next(&chain, None) {
            let (in_port, in_queue) = (first.in_port, first.in_queue);
            self.private.in_queue = in_queue;
            let mut next = Some(first);
            while let Some(held) = next {
                self.notes[batch.len()] = held.note;
                batch.push(held.frame);
                next = if batch.is_full() {
                    None
                } else {
                    self.private.holds.next(&chain, Some((in_port, in_queue)))
                };
            }
            let view = View::new(world, in_port, &closed);
            if in_queue == OUTSIDE {
                released += batch.len();
                self.route_outside(world, in_port, batch, pool, &mut NoLaps);
                continue;
            }
            // The port may be gone, or its bridge no gateway any more: that is no reason to skip `route`.
            let facts = PortFacts { routed: true, ..view.facts.clone() };
            let view = View { facts: &facts, ..view };
            released += batch.len();
            let notes = &mut self.notes[..batch.len()];
            decide_again(&view, batch, notes, pool, &mut self.private);
            self.work_off(world, &view, batch, pool);
        }
        self.private.holds.close(chain);
        released
    }

    fn ask_again(&mut self, world: World, key: Key, batch: &mut Batch, pool: &mut Pool) {
        let none = PortFacts::default();
        let view = View::new(world, 0, &none);
        // Keeps the question alive in the table, for whoever answers.
        _ = view.tables.neigh.ask(key, 0, view.now_s);
        slow::ask(&view, pool, &mut self.private, key, None);
        self.speak(world, 0, batch, pool);
    }

    /// Nobody answered: what waits is decided about once more. It goes by another next hop, if its route has one, and else its
    /// sender is told.
    fn give_up(&mut self, world: World, key: Key, batch: &mut Batch, pool: &mut Pool) {
        world.tables.neigh.give_up(key, world.now.s());
        self.release(world, key, batch, pool);
    }
}
