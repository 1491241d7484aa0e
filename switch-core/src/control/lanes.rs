//! Who serves which lane: moving lanes between workers, what each costs, and evening that out.

use super::daemon::{Daemon, PortLife};
use super::doors::not_still;
use crate::balance::{self, Lane, Rules};
use crate::config::Checked;
use crate::config::model::no_such;
use crate::config::snapshot::{PortId, compile_after};
use crate::worker::handover::Move;
use serde_json::Value;
use std::time::{Duration, Instant};
use switch_api::{ApiError, LaneMove, LaneStatus, Name, Rebalanced, Request};

/// Between two looks at the lanes' loads.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look counts for this part, what was before for the rest: a burst of a second is forgotten after some five.
const FRESH_PART: f64 = 0.3;
/// Without being asked the switch evens out once in so many looks, and only what is uneven as often in a row.
const UNASKED_LOOKS: u32 = 10;

/// What lanes cost, as it was last looked at.
#[derive(Debug)]
pub struct Loads {
    looked: Instant,
    seen: Vec<Seen>,
    /// Looks in a row at which moving was worth it by itself.
    uneven_looks: u32,
    pub(super) overload: super::overload::Overload,
}

/// A lane's numbers at the last look, and what it cost of late.
#[derive(Clone, Copy, Debug)]
struct Seen {
    port: PortId,
    queue: u16,
    frames: u64,
    busy_ns: u64,
    /// Of a core's time.
    share: f64,
    frames_per_s: f64,
}

impl Default for Loads {
    fn default() -> Self {
        Self { looked: Instant::now(), seen: Vec::new(), uneven_looks: 0, overload: Default::default() }
    }
}

impl Daemon {
    /// Gives a port other settings; its MTU and its lanes follow.
    pub(super) fn set_port(&mut self, request: &Request, name: &Name) -> Result<Value, ApiError> {
        let checked = self.check(request)?;
        let before = self.model.ports.get(name).ok_or_else(|| no_such("port", name))?;
        let (id, after) = (before.id, &checked.model().ports[name].object);
        if before.object.settings.mtu != after.settings.mtu {
            self.set_device_mtu(id, after)?;
        }
        if let Some(PortLife::Up(door)) = self.ports.get(&id)
            && let Some(wanted) = after.settings.workers(door.workers.len())
        {
            self.move_lanes(id, &wanted)?;
        }
        self.adopt(checked)
    }

    /// Moves the lanes of a port to these workers, one a queue. No frame is lost by it, and none overtakes another.
    pub(super) fn move_lanes(&mut self, id: PortId, wanted: &[u16]) -> Result<(), ApiError> {
        let Some(PortLife::Up(door)) = self.ports.get(&id) else { return Ok(()) };
        let pairs = door.workers.iter().zip(wanted).enumerate();
        let moves = pairs.map(|(queue, (from, to))| Move { queue: queue as u16, from: *from, to: *to });
        let moves: Vec<_> = moves.filter(|lane| lane.from != lane.to).collect();
        if moves.is_empty() {
            return Ok(());
        }
        // Made before anybody stands still.
        let checked = Checked::after(&self.model, self.model.clone(), self.doors.mail.len() as u16)?;
        let mut live = self.live();
        let facts = live.entry(id).or_default();
        facts.lanes = wanted.iter().copied().take(facts.lanes.len()).collect();
        let generation = self.publisher.generation() + 1;
        let snapshot = compile_after(&checked, &live, self.fdb_entries, generation, self.publisher.newest());
        let handover = self.doors.hand_over(id, moves);
        self.note_moved(id, handover.done());
        if handover.is_moved() && handover.is_complete() {
            self.publisher.publish(snapshot);
            self.doors.go_on(&handover, generation)?;
            return self.await_seen(generation);
        }
        // Given up, or a lane was not where it should have been.
        if !handover.done().is_empty() {
            self.republish();
        }
        self.doors.go_on(&handover, 0)?;
        if handover.is_moved() { Ok(()) } else { Err(not_still(&handover)) }
    }

    fn note_moved(&mut self, id: PortId, moves: &[Move]) {
        let Some(PortLife::Up(door)) = self.ports.get_mut(&id) else { return };
        for lane in moves {
            let load = &mut self.doors.load;
            load[usize::from(lane.from)] = load[usize::from(lane.from)].saturating_sub(1);
            load[usize::from(lane.to)] += 1;
            door.workers[usize::from(lane.queue)] = lane.to;
        }
        if let Some(attached) = &mut door.attached
            && let Err(error) = attached.set_workers(&door.workers)
        {
            tracing::error!("the XDP program was not told who beats for port {id}: {error}");
        }
    }

    /// Looks at what the lanes cost. Called once a second.
    pub(super) fn look_at_loads(&mut self) {
        let passed = self.loads.looked.elapsed();
        if passed < LOOK_EVERY / 2 {
            return;
        }
        self.loads.looked = Instant::now();
        let mut seen = Vec::with_capacity(self.loads.seen.len());
        for (id, life) in &self.ports {
            let PortLife::Up(door) = life else { continue };
            for (queue, load) in door.loads.iter().enumerate() {
                let (port, queue) = (*id, queue as u16);
                let frames = load.rx_packets.get() + load.tx_packets.get();
                let now =
                    Seen { port, queue, frames, busy_ns: load.busy_ns.get(), share: 0.0, frames_per_s: 0.0 };
                let before = self.loads.seen.iter().find(|seen| (seen.port, seen.queue) == (port, queue));
                seen.push(before.map_or(now, |before| before.followed_by(now, passed)));
            }
        }
        self.loads.seen = seen;
    }

    /// Lanes of a worker, and what they cost.
    pub(super) fn lanes_of(&self, worker: u16) -> Vec<LaneStatus> {
        let mut lanes = Vec::new();
        for (name, port) in &self.model.ports {
            let Some(PortLife::Up(door)) = self.ports.get(&port.id) else { continue };
            for (queue, load) in
                door.loads.iter().enumerate().filter(|(queue, _)| door.workers[*queue] == worker)
            {
                let of = |seen: &&Seen| (seen.port, usize::from(seen.queue)) == (port.id, queue);
                let seen = self.loads.seen.iter().find(of);
                let (rx, tx, busy_ns) = (load.rx_packets.get(), load.tx_packets.get(), load.busy_ns.get());
                lanes.push(LaneStatus {
                    port: name.clone(),
                    queue: queue as u16,
                    busy_percent: seen.map_or(0.0, |seen| seen.share * 100.0),
                    frames_per_s: seen.map_or(0.0, |seen| seen.frames_per_s),
                    ns_per_frame: if rx + tx > 0 { busy_ns as f64 / (rx + tx) as f64 } else { 0.0 },
                    rx_packets: rx,
                    tx_packets: tx,
                });
            }
        }
        lanes
    }

    /// Every lane that is served, and as balance knows it.
    fn lanes(&self) -> Vec<(Name, PortId, u16, Lane)> {
        let mut lanes = Vec::new();
        for (name, port) in &self.model.ports {
            let Some(PortLife::Up(door)) = self.ports.get(&port.id) else { continue };
            let movable = port.object.settings.workers(1).is_none();
            for (queue, worker) in door.workers.iter().enumerate() {
                let queue = queue as u16;
                let seen = self.loads.seen.iter().find(|seen| (seen.port, seen.queue) == (port.id, queue));
                let busy_permille = seen.map_or(0, |seen| (seen.share * 1000.0) as u32);
                lanes.push((name.clone(), port.id, queue, Lane { worker: *worker, busy_permille, movable }));
            }
        }
        lanes
    }

    /// Evens out what the workers have to do, or says what would be done.
    pub(super) fn rebalance(&mut self, dry_run: bool, rules: Rules) -> Result<Rebalanced, ApiError> {
        let lanes = self.lanes();
        let bare: Vec<Lane> = lanes.iter().map(|(.., lane)| *lane).collect();
        let workers = self.doors.mail.len() as u16;
        let percent = |lanes: &[Lane]| -> Vec<f64> {
            balance::loads(lanes, workers).into_iter().map(|permille| permille as f64 / 10.0).collect()
        };
        let mut after = bare.clone();
        let mut moves = Vec::new();
        for planned in balance::plan(&bare, workers, rules) {
            let (port, id, queue, lane) = &lanes[planned.lane];
            if !dry_run {
                let Some(PortLife::Up(door)) = self.ports.get(id) else { continue };
                let mut wanted = door.workers.clone();
                wanted[usize::from(*queue)] = planned.to;
                self.move_lanes(*id, &wanted)?;
            }
            after[planned.lane].worker = planned.to;
            let busy_percent = f64::from(lane.busy_permille) / 10.0;
            moves.push(LaneMove {
                port: port.clone(),
                queue: *queue,
                from: planned.from,
                to: planned.to,
                busy_percent,
            });
        }
        Ok(Rebalanced { moves, before_percent: percent(&bare), after_percent: percent(&after), dry_run })
    }

    /// Evens out by itself, if it was started so and it has been worth it for a while.
    pub(super) fn rebalance_unasked(&mut self) {
        if !self.auto_rebalance {
            return;
        }
        let bare: Vec<Lane> = self.lanes().iter().map(|(.., lane)| *lane).collect();
        let is_uneven = !balance::plan(&bare, self.doors.mail.len() as u16, Rules::UNASKED).is_empty();
        self.loads.uneven_looks = if is_uneven { self.loads.uneven_looks + 1 } else { 0 };
        if self.loads.uneven_looks < UNASKED_LOOKS {
            return;
        }
        self.loads.uneven_looks = 0;
        match self.rebalance(false, Rules::UNASKED) {
            Ok(done) => {
                for lane in done.moves {
                    tracing::info!(port = %lane.port, queue = lane.queue, from = lane.from, to = lane.to, "lane moved");
                }
            }
            Err(error) => tracing::warn!("lanes were not moved: {error}"),
        }
    }
}

impl Seen {
    /// The same lane `passed` later.
    fn followed_by(self, now: Self, passed: Duration) -> Self {
        let share = now.busy_ns.saturating_sub(self.busy_ns) as f64 / passed.as_nanos() as f64;
        let frames_per_s = now.frames.saturating_sub(self.frames) as f64 / passed.as_secs_f64();
        let blend = |before: f64, now: f64| before + FRESH_PART * (now - before);
        Self { share: blend(self.share, share), frames_per_s: blend(self.frames_per_s, frames_per_s), ..now }
    }
}
