//! A switch without threads, sockets and files: the same turns, driven by hand. For the simulator, the
//! fuzz targets, the benches and the oracle tests; the daemon does not use it.

#[cfg(test)]
mod agree;
pub mod fuzz;
pub mod fuzz_acl;
pub mod fuzz_policy;
pub(crate) mod fuzz_requests;
pub mod fuzz_snapshots;

use crate::config::sets::{self, CheckedSets, compile_sets};
use crate::config::snapshot::{Live, PortId, compile_after, compile_routes};
use crate::config::{Checked, CheckedRoutes, Model, PORTS_MAX, Publisher, publish, routes};
use crate::counter::{Counters, DropReason};
use crate::frame::{Area, AreaSize, Pool, TxQueue};
use crate::pipeline::capture::Capture;
use crate::pipeline::dry::{Dry, Traced};
use crate::pipeline::refusals::{Logged, Refused};
use crate::pipeline::{Now, Pipeline, Private, TableSizes, Tables};
use crate::policy::RULES_MAX;
use crate::port::Port;
use crate::table::flow::watch::Watch;
use crate::worker::handover::Handover;
pub use crate::worker::handover::Move;
use crate::worker::mail::Report;
use crate::worker::{Command, Mail, Turn};
use hashbrown::HashMap;
use std::sync::Arc;
use switch_api::{ApiError, Bridge, Mac, PortKind, PortSettings, Request};

/// How large a rig is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Workers, all on the calling thread.
    pub workers: usize,
    /// Frames of 2 KiB, all workers together.
    pub frames: u32,
    /// Large frames beside them.
    pub large_frames: u32,
    /// MACs the table holds.
    pub fdb_entries: usize,
    /// Neighbours the table holds.
    pub neighbours: usize,
    /// Flows the table holds.
    pub flows: usize,
    /// TCP flows may begin in the middle.
    pub flow_pickup: bool,
    /// Of the table's hash.
    pub seed: u64,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            workers: 1,
            frames: 1024,
            large_frames: 16,
            fdb_entries: 4096,
            neighbours: 256,
            flows: 4096,
            flow_pickup: false,
            seed: 1,
        }
    }
}

impl Size {
    fn tables(&self) -> TableSizes {
        let Self { fdb_entries, neighbours, flows, flow_pickup, .. } = *self;
        TableSizes { fdb_entries, neighbours, flows, flow_pickup }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Rig {
    /// One turn a worker.
    pub turns: Vec<Turn>,
    /// Learned state.
    pub tables: Arc<Tables>,
    /// One set a worker.
    pub counters: Vec<Arc<Counters>>,
    /// What is declared.
    pub model: Model,
    area: Arc<Area>,
    mail: Arc<[Mail]>,
    publisher: Publisher,
    ticket: u64,
    live: HashMap<PortId, Live>,
    fdb_entries: usize,
}

impl Rig {
    /// A rig with one bridge, `br0`.
    pub fn new(size: Size) -> Self {
        let chunks = AreaSize { chunk_bytes: 2048, chunks: size.frames, large: size.large_frames };
        let (area, frames) = Area::new(chunks).unwrap_or_else(|error| panic!("{error}"));
        let area = Arc::new(area);
        let tables = Arc::new(Tables::new(size.tables(), [size.seed, !size.seed]));
        let mail: Arc<[Mail]> =
            (0..size.workers).map(|_| Mail::new().unwrap_or_else(|error| panic!("{error}"))).collect();
        let counters: Vec<_> = (0..size.workers).map(|_| Arc::new(Counters::new(PORTS_MAX))).collect();
        let (publisher, readers) = publish::channel(size.workers);
        let clock = quanta::Clock::new();
        let pools = Pool::deal(area.clone(), frames, size.workers);
        let turns = pools.into_iter().zip(readers).enumerate().map(|(id, (pool, reader))| {
            let mut private = Private::new(counters[id].clone(), size.seed, &tables);
            private.worker = (id as u16, size.workers as u16);
            let pipeline = Pipeline::new(private);
            Turn::new(id as u16, reader, tables.clone(), mail.clone(), pool, pipeline, clock.clone())
        });
        let turns = turns.collect();
        let mut rig = Self {
            turns,
            tables,
            counters,
            model: Model::default(),
            area,
            mail,
            publisher,
            ticket: 0,
            live: HashMap::new(),
            fdb_entries: size.fdb_entries,
        };
        let name = "br0".parse().unwrap_or_else(|error| panic!("{error}"));
        let bridge = Bridge::new(name);
        rig.declare(&Request::BridgeAdd(bridge)).unwrap_or_else(|error| panic!("{error}"));
        rig
    }

    /// Changes what is declared, as the daemon would.
    pub fn declare(&mut self, request: &Request) -> Result<(), ApiError> {
        if routes::concerns(request) {
            let routes = CheckedRoutes::after(&self.model, request)?;
            let generation = self.publisher.generation() + 1;
            let snapshot = compile_routes(&self.model, &routes, self.publisher.current(), generation);
            self.model.routes = routes.into();
            self.publisher.publish(snapshot);
        } else if sets::concerns(request) {
            let CheckedSets { sets, listed, .. } = CheckedSets::after(&self.model, request)?;
            self.model.sets = sets;
            if let Some(listed) = listed {
                self.model.listed = listed;
                let generation = self.publisher.generation() + 1;
                let snapshot = compile_sets(&self.model, self.publisher.current(), generation);
                self.publisher.publish(snapshot);
            }
        } else {
            self.publish(Checked::new(self.model.apply(request)?, self.turns.len() as u16)?);
        }
        Ok(())
    }

    fn publish(&mut self, checked: Checked) {
        let generation = self.publisher.generation() + 1;
        let before = self.publisher.newest();
        let snapshot = compile_after(&checked, &self.live, self.fdb_entries as u32, generation, before);
        self.model = checked.model().clone();
        if snapshot.policed || !snapshot.nat.is_idle() {
            self.counters.iter().for_each(|counters| counters.make_rules(RULES_MAX));
        }
        self.publisher.publish(snapshot);
    }

    /// Adds a port to `br0`, served by `worker`. Its number.
    pub fn add_port(
        &mut self,
        name: &str,
        settings: PortSettings,
        door: Box<dyn Port>,
        worker: u16,
    ) -> Result<PortId, ApiError> {
        self.add_port_to("br0", name, settings, door, worker)
    }

    /// Adds a port to a bridge, served by `worker`. Its number.
    pub fn add_port_to(
        &mut self,
        bridge: &str,
        name: &str,
        settings: PortSettings,
        door: Box<dyn Port>,
        worker: u16,
    ) -> Result<PortId, ApiError> {
        self.add_lanes_to(bridge, name, settings, vec![(door, worker)])
    }

    /// Adds a tunnel to a bridge. Its number.
    pub fn add_tunnel(&mut self, bridge: &str, name: &str, kind: PortKind) -> Result<PortId, ApiError> {
        let parse = |text: &str| text.parse().unwrap_or_else(|error| panic!("{error}"));
        let port = switch_api::Port::new(parse(name), parse(bridge), kind);
        let key = port.name.clone();
        let model = self.model.apply(&Request::PortAdd(Box::new(port)))?;
        let id = model.ports[&key].id;
        self.live.insert(id, Live { up: true, mtu: u16::MAX, ..Live::default() });
        for mail in self.mail.iter() {
            _ = mail.commands.push(Command::OpenQueue(id, TxQueue::with_room()));
        }
        self.publish(Checked::new(model, self.turns.len() as u16)?);
        Ok(id)
    }

    /// Adds a port of several lanes to a bridge, each served by its worker. Its number.
    pub fn add_lanes_to(
        &mut self,
        bridge: &str,
        name: &str,
        settings: PortSettings,
        lanes: Vec<(Box<dyn Port>, u16)>,
    ) -> Result<PortId, ApiError> {
        let parse = |text: &str| text.parse().unwrap_or_else(|error| panic!("{error}"));
        // Only the node's own port can want answers back.
        let kind = match settings.return_flows {
            true => {
                let (device, mac) = (name.to_owned(), Some(Mac([2, 0, 0, 0, 0xff, 0])));
                PortKind::Host { device, mac, addresses: Vec::new(), routes: Vec::new() }
            }
            false => PortKind::Memory { source: None },
        };
        let port = switch_api::Port::new(parse(name), parse(bridge), kind);
        self.add_lanes_of(switch_api::Port { settings, ..port }, lanes)
    }

    /// Adds a port of whatever kind, served by these lanes in place of its device's. Its number.
    pub(crate) fn add_lanes_of(
        &mut self,
        port: switch_api::Port,
        lanes: Vec<(Box<dyn Port>, u16)>,
    ) -> Result<PortId, ApiError> {
        let key = port.name.clone();
        let model = self.model.apply(&Request::PortAdd(Box::new(port)))?;
        let id = model.ports[&key].id;
        let workers = lanes.iter().map(|(_, worker)| *worker).collect();
        self.live.insert(id, Live { up: true, mtu: 1500, gso: false, lanes: workers });
        let checked = Checked::new(model, self.turns.len() as u16)?;
        for mail in self.mail.iter() {
            _ = mail.commands.push(Command::OpenQueue(id, TxQueue::with_room()));
        }
        for (queue, (door, worker)) in lanes.into_iter().enumerate() {
            let command = Command::AddLane(id, queue as u16, door, Arc::default());
            _ = self.mail[usize::from(worker)].commands.push(command);
        }
        self.publish(checked);
        Ok(id)
    }

    /// Has a worker tell hosts of their router, as the control thread does.
    #[cfg(test)]
    pub(crate) fn advertise(&self, worker: usize, said: crate::pipeline::Advertising) {
        assert!(self.mail[worker].commands.push(Command::Advertise(Box::new(said))).is_ok());
    }

    /// Begins to move lanes; [`Rig::step`] goes on with it, between any two turns.
    pub fn begin_to_move(&mut self, id: PortId, moves: Vec<Move>) -> Handover {
        self.ticket += 1;
        Handover::new(self.ticket, id, moves, self.turns.len() as u16)
    }

    /// Does what the control thread can do now for a handover; whether it is over.
    pub fn step(&mut self, id: PortId, handover: &mut Handover) -> bool {
        for (worker, mail) in self.mail.iter().enumerate() {
            while let Some(report) = mail.reports.pop() {
                // Others are for nobody here.
                _ = handover.hear(worker as u16, report);
            }
        }
        for (worker, command) in handover.due() {
            _ = self.mail[usize::from(worker)].commands.push(command);
        }
        if handover.is_moved() {
            let lanes = &mut self.live.entry(id).or_default().lanes;
            handover.done().iter().for_each(|lane| lanes[usize::from(lane.queue)] = lane.to);
            let checked = Checked::new(self.model.clone(), self.turns.len() as u16);
            self.publish(checked.unwrap_or_else(|error| panic!("{error}")));
            self.go_on(handover, self.publisher.generation());
        }
        handover.is_moved()
    }

    /// Lets the workers go on after a handover, or gives it up.
    pub fn go_on(&self, handover: &Handover, generation: u64) {
        for (worker, command) in handover.end(generation) {
            _ = self.mail[usize::from(worker)].commands.push(command);
        }
    }

    /// From now on a port takes superframes as they are.
    pub fn takes_superframes(&mut self, id: PortId) {
        self.live.entry(id).and_modify(|live| live.gso = true);
        self.publish_again();
    }

    /// Whether a port is open from now on.
    pub fn set_up(&mut self, id: PortId, up: bool) {
        self.live.entry(id).and_modify(|live| live.up = up);
        self.publish_again();
    }

    fn publish_again(&mut self) {
        let checked = Checked::new(self.model.clone(), self.turns.len() as u16);
        self.publish(checked.unwrap_or_else(|error| panic!("{error}")));
    }

    /// What would become of a packet that came in by `port` now. None if no frame is so long.
    pub fn trace(&self, dry: &mut Dry, port: PortId, packet: &[u8], now: Now) -> Option<Traced> {
        dry.run(self.publisher.current(), &self.tables, now, port, packet)
    }

    /// The worker of a port's lane is told to give it back.
    pub fn take_lane(&self, port: PortId, queue: u16, worker: u16) {
        _ = self.mail[usize::from(worker)].commands.push(Command::TakeLane(port, queue));
    }

    /// From the next turn on, copies of what passes go to `capture`; or no longer.
    pub fn capture(&self, capture: Option<Arc<Capture>>) {
        self.mail.iter().for_each(|mail| _ = mail.commands.push(Command::Capture(capture.clone())));
    }

    /// From the next turn on, what becomes of flows goes to `watch`; or no longer.
    pub fn watch_flows(&self, watch: Option<Arc<Watch>>) {
        self.mail.iter().for_each(|mail| _ = mail.commands.push(Command::WatchFlows(watch.clone())));
    }

    /// What is in force.
    #[cfg(test)]
    pub(crate) fn snapshot(&self) -> &crate::config::Snapshot {
        self.publisher.current()
    }

    /// What workers told of packets that policies stopped.
    pub fn take_refused(&self) -> Vec<Refused> {
        let reports = self.mail.iter().flat_map(|mail| std::iter::from_fn(|| mail.reports.pop()));
        let refused = |report| if let Report::Refused(refused) = report { Some(refused) } else { None };
        reports.filter_map(refused).collect()
    }

    /// What workers told of what rules with `log` decided.
    pub fn take_logged(&self) -> Vec<Logged> {
        let reports = self.mail.iter().flat_map(|mail| std::iter::from_fn(|| mail.reports.pop()));
        let logged = |report| if let Report::Logged(logged) = report { Some(logged) } else { None };
        reports.filter_map(logged).collect()
    }

    /// One turn of every worker. How many frames came in.
    pub fn run(&mut self, now: Now) -> usize {
        self.turns.iter_mut().map(|turn| turn.run(now).frames).sum()
    }

    /// Turns until nothing moves any more.
    pub fn settle(&mut self, now: Now) {
        let mut quiet = 0;
        while quiet < 3 {
            let moved = self.run(now) > 0 || self.turns.iter().any(|turn| !turn.may_sleep());
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    /// The conservation law, by a walk over all frames; ports of a rig hold none in rings, packets may wait
    /// for neighbours.
    pub fn assert_conserved(&self) {
        let of = |turn: &Turn| {
            let pool = turn.pool();
            pool.free() + pool.free_large() + pool.leaving() + turn.pipeline().private.holds.frames()
        };
        let free: usize = self.turns.iter().map(of).sum();
        assert_eq!(free as u32, self.area.frames_total(), "frames are lost");
        assert_eq!(self.area.recorded(), 0);
    }

    /// Frames dropped for `reason`, over all ports and workers.
    pub fn drops(&self, reason: DropReason) -> u64 {
        let of = |counters: &Arc<Counters>| {
            (0..PORTS_MAX as u16).map(|port| counters.drops(port, reason)).sum::<u64>()
        };
        self.counters.iter().map(of).sum()
    }
}
