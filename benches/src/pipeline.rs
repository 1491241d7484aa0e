//! The L2 pipeline alone: frames replayed from memory, no kernel, one core. What is timed is
//! `Pipeline::run` and nothing else; every output byte is checked outside of the timed part.

use crate::cycles::WARM_PACKETS;
use quanta::Clock;
use std::sync::Arc;
use switch_api::{Bridge, MemorySource, NetworkPolicy, Port, PortKind, PortSettings, Request, Workload};
use switch_core::config::snapshot::{Live, Snapshot, compile};
use switch_core::config::{Checked, FDB_ENTRIES_DEFAULT, Model, NEIGHBOURS_DEFAULT, PORTS_MAX};
use switch_core::counter::{Counters, DropReason, NoLaps, Stage};
use switch_core::frame::{Area, AreaSize, BATCH_FRAMES, Batch, Pool, TxQueue};
use switch_core::pipeline::{Now, Pipeline, Private, TableSizes, Tables, World};
use switch_core::port::traffic::Source;
use switch_core::table::flow::FLOWS_DEFAULT;
use switch_core::worker::laps::StopWatch;

/// A pipeline and two ports' worth of frames.
#[derive(Debug)]
pub struct Bench {
    pipeline: Pipeline,
    pool: Pool,
    tables: Tables,
    snapshot: Snapshot,
    sources: [Source; 2],
    batch: Batch,
    expected: Vec<Vec<u8>>,
    now: Now,
    batches: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Ticks of the time-stamp counter a packet: the median of the windows.
    pub ticks: f64,
    /// Allocations in the timed part.
    pub allocations: u64,
    /// Packets that went through.
    pub packets: u64,
}

impl Bench {
    /// `flows` flows of 60-byte frames (64 with FCS), both ways, every station learned: twice as many
    /// MACs as flows.
    pub fn new(flows: u32) -> Self {
        Self::between(flows, flows)
    }

    /// The same over so many pairs of stations.
    pub fn between(flows: u32, pairs: u32) -> Self {
        let (pipeline, pool, tables) = fresh(FLOWS_DEFAULT);
        let spec = MemorySource { flows, frame_len: 60, seed: 7, rate_pps: 0, reverse: false };
        let source = |spec: &MemorySource| match Source::new(spec) {
            source if pairs < flows => source.between(pairs),
            source => source,
        };
        let mut bench = Self {
            pipeline,
            pool,
            tables,
            snapshot: two_ports(PortSettings::default()),
            sources: [source(&spec), source(&MemorySource { reverse: true, seed: 9, ..spec })],
            batch: Batch::new(),
            expected: (0..BATCH_FRAMES).map(|_| Vec::with_capacity(64)).collect(),
            now: Now { ns: 1_000_000_000 },
            batches: 0,
        };
        bench.learn_all(pairs);
        bench
    }

    /// Sends frames of every flow, both ways, until every station of so many pairs is known.
    fn learn_all(&mut self, pairs: u32) {
        let mut sent = 0u64;
        while self.tables.fdb.entries() < 2 * pairs {
            for port in 0..2 {
                self.fill(port);
                self.go(port);
                self.drain(port, false);
            }
            sent += 1;
            let refused = |event| self.pipeline.private.counters.event(event).get();
            assert!(
                sent < 4_000 + u64::from(pairs),
                "only {} stations are known; {} refusals because the table is full, {} by limit",
                self.tables.fdb.entries(),
                refused(switch_core::counter::Event::LearnTableFull),
                refused(switch_core::counter::Event::LearnPortLimit),
            );
        }
    }

    /// One batch by one of the ports, to be run.
    pub fn fill(&mut self, port: usize) {
        for expected in &mut self.expected {
            let Some(mut frame) = self.pool.take() else { return };
            let template = self.sources[port].next_frame();
            expected.clear();
            expected.extend_from_slice(template);
            assert!(self.pool.area().fill(&mut frame, template));
            frame.offload.csum = switch_core::wire::checksum::Csum::Complete;
            self.batch.push(frame);
        }
    }

    /// Runs it.
    #[inline(never)]
    pub fn go(&mut self, port: usize) {
        let world = World { snapshot: &self.snapshot, tables: &self.tables, now: self.now };
        self.pipeline.run(world, port as u16, &mut self.batch, &mut self.pool, &mut NoLaps);
    }

    /// Takes out what the other port was given; `strictly` checks that it is what went in.
    pub fn drain(&mut self, port: usize, strictly: bool) {
        let other = 1 - port;
        let queue = &mut self.pipeline.private.queues[other];
        assert!(!strictly || queue.len() == BATCH_FRAMES, "{} of {BATCH_FRAMES} came out", queue.len());
        for (frame, expected) in queue.take(usize::MAX).zip(&self.expected) {
            assert!(!strictly || self.pool.area().bytes(&frame) == &expected[..], "a frame was changed");
            self.pool.give(frame);
        }
        self.pipeline.private.dirty.clear();
    }

    /// Frames from all stations, until what is in use is as near as while they go on.
    pub fn warm(&mut self) {
        let stations = self.tables.fdb.entries() as usize;
        // An even number: both ways.
        let batches = (WARM_PACKETS * stations).div_ceil(BATCH_FRAMES).next_multiple_of(2);
        self.spin(batches);
    }

    /// Batches through the pipeline, in windows; the clock stands still while frames are made and checked.
    pub fn measure(&mut self, clock: &Clock, windows: usize, batches: usize) -> Measured {
        let mut ticks = Vec::with_capacity(windows);
        let mut allocations = 0;
        for _ in 0..windows {
            let mut window = 0;
            for batch in 0..batches {
                let port = batch % 2;
                self.fill(port);
                let before = crate::allocations::count();
                let start = clock.raw();
                self.go(port);
                window += clock.raw() - start;
                allocations += crate::allocations::count() - before;
                self.drain(port, true);
            }
            ticks.push(window as f64 / (batches * BATCH_FRAMES) as f64);
        }
        let counters = &self.pipeline.private.counters;
        let dropped: u64 = DropReason::ALL.iter().map(|reason| counters.drops(0, *reason)).sum();
        assert_eq!(dropped, 0, "frames were dropped");
        let packets = (windows * batches * BATCH_FRAMES) as u64;
        Measured { ticks: crate::cycles::median(ticks), allocations, packets }
    }

    /// Ticks a packet of so many batches, one in `sample_every` timed at every stage as a worker does it.
    pub fn window(&mut self, clock: &Clock, batches: usize, sample_every: Option<u64>) -> f64 {
        let mut window = 0;
        for batch in 0..batches {
            let port = batch % 2;
            self.fill(port);
            let start = clock.raw();
            match sample_every {
                Some(every) if self.batches.is_multiple_of(every) => self.go_timed(clock, port),
                _ => self.go(port),
            }
            window += clock.raw() - start;
            self.batches += 1;
            self.drain(port, true);
        }
        window as f64 / (batches * BATCH_FRAMES) as f64
    }

    #[inline(never)]
    fn go_timed(&mut self, clock: &Clock, port: usize) {
        let world = World { snapshot: &self.snapshot, tables: &self.tables, now: self.now };
        let mut watch = StopWatch::start(clock);
        self.pipeline.run(world, port as u16, &mut self.batch, &mut self.pool, &mut watch);
        watch.book(&self.pipeline.private.counters, BATCH_FRAMES);
    }

    /// Packets of batches that were timed.
    pub fn sampled(&self) -> u64 {
        self.pipeline.private.counters.stage(Stage::Parse).packets.get()
    }

    /// Bare batches, for a profiler or callgrind: no clock, no checks.
    pub fn spin(&mut self, batches: usize) {
        for batch in 0..batches {
            let port = batch % 2;
            self.fill(port);
            self.go(port);
            self.drain(port, false);
        }
    }
}

/// A pipeline for two ports, memory, and tables with room for so many flows.
pub(crate) fn fresh(flows: usize) -> (Pipeline, Pool, Tables) {
    let size = AreaSize { chunk_bytes: 2048, chunks: 2048, large: 0 };
    let (area, frames) = Area::new(size).unwrap_or_else(|error| panic!("{error}"));
    let mut pools = Pool::deal(Arc::new(area), frames, 1);
    let counters = Arc::new(Counters::new(PORTS_MAX));
    let (fdb_entries, neighbours) = (FDB_ENTRIES_DEFAULT, NEIGHBOURS_DEFAULT);
    let sizes = TableSizes { fdb_entries, neighbours, flows, flow_pickup: false };
    let tables = Tables::new(sizes, [3, 5]);
    let mut pipeline = Pipeline::new(Private::new(counters, 1, &tables));
    for port in 0..2 {
        pipeline.private.queues[port] = TxQueue::with_room();
    }
    (pipeline, pools.remove(0), tables)
}

/// One bridge, two access ports.
pub(crate) fn two_ports(settings: PortSettings) -> Snapshot {
    snapshot(&[], settings, None)
}

/// The same; the second port is a workload, if one is given, and policies are about it.
pub(crate) fn snapshot(
    policies: &[NetworkPolicy],
    settings: PortSettings,
    workload: Option<Workload>,
) -> Snapshot {
    let policies = policies.iter().map(|policy| Request::PolicyAdd(Box::new(policy.clone())));
    declared(policies, settings, workload)
}

/// The same with whatever is declared about them.
pub(crate) fn declared(
    all: impl Iterator<Item = Request>,
    settings: PortSettings,
    workload: Option<Workload>,
) -> Snapshot {
    let name = |text: &str| text.parse().unwrap_or_else(|error| panic!("{error}"));
    let declare =
        |model: Model, request: Request| model.apply(&request).unwrap_or_else(|error| panic!("{error}"));
    let mut model = declare(Model::default(), Request::BridgeAdd(Bridge::new(name("br0"))));
    // Rules first: policies are compiled when there is somebody whom they are about, once.
    for request in all {
        model = declare(model, request);
    }
    for (port, workload) in [("a", None), ("b", workload)] {
        let port = Port {
            settings: settings.clone(),
            workload,
            ..Port::new(name(port), name("br0"), PortKind::Memory { source: None })
        };
        model = declare(model, Request::PortAdd(Box::new(port)));
    }
    let live = |_| Live { up: true, mtu: 1500, gso: false, lanes: std::iter::once(0).collect() };
    let live = (0..2).map(|id| (id, live(id))).collect();
    let checked = Checked::new(model, 1).unwrap_or_else(|error| panic!("{error}"));
    compile(&checked, &live, FDB_ENTRIES_DEFAULT as u32, 1)
}
