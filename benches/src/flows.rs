//! Flows through the whole pipeline: two tracked memory ports, one station behind each, any number of 5-tuples.
//! What is timed is `Pipeline::run` and nothing else.

use crate::cycles::WARM_PACKETS;
use crate::pipeline::{declared, fresh, snapshot, two_ports};
use quanta::Clock;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use switch_api::{NetworkPolicy, PortSettings, Request, Workload};
use switch_core::acl::Header;
use switch_core::config::snapshot::Snapshot;
use switch_core::counter::{Counters, Event, NoLaps};
use switch_core::frame::{BATCH_FRAMES, Batch, Pool};
use switch_core::pipeline::judge::probed;
use switch_core::pipeline::{Now, Pipeline, Tables, World};
use switch_core::policy::to_bits;
use switch_core::table::flow::record::RECORD_BYTES;

/// Bytes of a frame without its FCS.
const FRAME_LEN: usize = 60;
/// Address of the station behind the second port.
const SECOND: u32 = 0xc0a8_0001;
/// UDP.
pub(crate) const UDP: u8 = 17;
/// TCP.
pub(crate) const TCP: u8 = 6;
/// Ports of a flow, unless said: its own, and the one behind which the second station listens.
pub(crate) const PORTS: [u16; 2] = [5, 6];

/// What the second station is to policies.
pub(crate) fn workload() -> Workload {
    Workload {
        namespace: "default".into(),
        labels: BTreeMap::new(),
        ports: Vec::new(),
        addresses: vec![Ipv4Addr::from_bits(SECOND).into()],
    }
}

/// A frame without its FCS, into which each flow writes its own addresses and ports. Its TCP begins a connection.
#[derive(Clone, Debug)]
pub(crate) struct Template([u8; FRAME_LEN]);

impl Template {
    pub fn new() -> Self {
        let mut template = [0; FRAME_LEN];
        template[12..14].copy_from_slice(&[8, 0]);
        template[14] = 0x45;
        template[17] = (FRAME_LEN - 14) as u8;
        template[22] = 64;
        template[46] = 0x50;
        template[47] = 2;
        template[48] = 0x20;
        Self(template)
    }

    /// The frame of `flow` between these ports of the two stations, as it comes in by the first or the second port.
    #[inline(always)]
    pub fn write(&mut self, port: usize, protocol: u8, flow: u32, ports: [u16; 2]) -> &[u8] {
        let template = &mut self.0;
        let mut ends = [(flow | 0x0a00_0000, ports[0]), (SECOND, ports[1])];
        ends.rotate_left(port);
        template[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1 - port as u8]);
        template[6..12].copy_from_slice(&[2, 0, 0, 0, 0, port as u8]);
        template[23] = protocol;
        template[26..30].copy_from_slice(&ends[0].0.to_be_bytes());
        template[30..34].copy_from_slice(&ends[1].0.to_be_bytes());
        template[34..36].copy_from_slice(&ends[0].1.to_be_bytes());
        template[36..38].copy_from_slice(&ends[1].1.to_be_bytes());
        template
    }

    /// A segment of the flow, with these flags, sequence and acknowledgement numbers.
    fn segment(&mut self, port: usize, flow: u32, flags: u8, numbers: [u32; 2]) -> &[u8] {
        self.write(port, TCP, flow, PORTS);
        self.0[38..42].copy_from_slice(&numbers[0].to_be_bytes());
        self.0[42..46].copy_from_slice(&numbers[1].to_be_bytes());
        self.0[47] = flags;
        &self.0
    }
}

/// A connection's first segments: by which port, with which flags and numbers (RFC 9293 figure 6).
const HANDSHAKE: [(usize, u8, [u32; 2]); 3] = [(0, 0x02, [0, 0]), (1, 0x12, [0, 1]), (0, 0x10, [1, 1])];
/// Bytes that each later segment carries: what is left of the smallest frame.
pub(crate) const SEGMENT: u32 = FRAME_LEN as u32 - 54;
/// PSH, ACK.
const DATA: u8 = 0x18;

/// Probes of first packets: what one takes on average and at most, and what one may take at most, however many rules there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probes {
    /// On average.
    pub mean: f64,
    /// At most.
    pub largest: u32,
    /// The bound.
    pub bound: u32,
}

/// A pipeline with flows.
#[derive(Debug)]
pub struct Bench {
    pipeline: Pipeline,
    pool: Pool,
    /// The tables, to be asked.
    pub tables: Tables,
    snapshot: Snapshot,
    batch: Batch,
    template: Template,
    /// The time that the pipeline is told.
    pub now: Now,
    /// What each station has said of each connection: the sequence number of its next byte.
    said: Vec<[u32; 2]>,
}

impl Bench {
    /// Room for so many flows; with `track` they are kept.
    pub fn new(room: usize, track: bool) -> Self {
        Self::over(room, two_ports(PortSettings { track, ..PortSettings::default() }))
    }

    /// The same, with a second port that is a workload of the namespace `default` and isolated by `policies`.
    pub fn policed(room: usize, policies: &[NetworkPolicy]) -> Self {
        Self::over(room, snapshot(policies, PortSettings::default(), Some(workload())))
    }

    /// The same with whatever is declared.
    pub fn declared(room: usize, all: impl Iterator<Item = Request>) -> Self {
        Self::over(room, declared(all, PortSettings::default(), Some(workload())))
    }

    fn over(room: usize, snapshot: Snapshot) -> Self {
        let (pipeline, pool, tables) = fresh(room);
        let template = Template::new();
        let now = Now { ns: 1_000_000_000 };
        let (batch, said) = (Batch::new(), Vec::new());
        let mut bench = Self { pipeline, pool, tables, snapshot, batch, template, now, said };
        // Both stations make themselves known.
        for _ in 0..2 {
            bench.batch_of(0, UDP, || 0);
            bench.batch_of(1, UDP, || 0);
        }
        bench
    }

    /// One batch of the flows that `next` names, from one of the ports. Ticks of the pipeline.
    fn timed(&mut self, clock: &Clock, port: usize, protocol: u8, next: impl FnMut() -> u32) -> u64 {
        self.fill(port, protocol, next);
        let ticks = self.go(clock, port);
        self.drain();
        ticks
    }

    /// Runs what one of the ports was filled with. Ticks of the pipeline.
    #[inline(never)]
    pub fn go(&mut self, clock: &Clock, port: usize) -> u64 {
        let world = World { snapshot: &self.snapshot, tables: &self.tables, now: self.now };
        let start = clock.raw();
        self.pipeline.run(world, port as u16, &mut self.batch, &mut self.pool, &mut NoLaps);
        // What a worker's turn does beside: flows that are over are looked for.
        self.pipeline.attend(world, &mut self.batch, &mut self.pool);
        clock.raw() - start
    }

    /// A batch by the first port of SYNs with sources that follow each other from `first` on.
    pub fn syns(&mut self, first: u32) {
        let mut flow = first;
        self.fill(0, TCP, || {
            flow += 1;
            flow & 0x00ff_ffff
        });
    }

    /// A batch by the first port of UDP from addresses that follow each other from `first` on, far from those of any rule.
    pub fn strangers(&mut self, first: u32) {
        let mut flow = first;
        self.fill(0, UDP, || {
            flow += 1;
            flow & 0x000f_ffff | 0x00f0_0000
        });
    }

    fn batch_of(&mut self, port: usize, protocol: u8, next: impl FnMut() -> u32) {
        self.timed(&Clock::new(), port, protocol, next);
    }

    fn fill(&mut self, port: usize, protocol: u8, mut next: impl FnMut() -> u32) {
        self.fill_with(port, protocol, || (next(), PORTS));
    }

    fn fill_with(&mut self, port: usize, protocol: u8, mut next: impl FnMut() -> (u32, [u16; 2])) {
        for _ in 0..BATCH_FRAMES {
            let (flow, ports) = next();
            self.push(|template| template.write(port, protocol, flow, ports));
        }
    }

    /// Takes out what came of it: frames by the first port, and by the second.
    pub fn drain(&mut self) -> [usize; 2] {
        let mut counts = [0; 2];
        for (queue, count) in self.pipeline.private.queues[..2].iter_mut().zip(&mut counts) {
            *count = queue.len();
            for frame in queue.take(usize::MAX) {
                self.pool.give(frame);
            }
        }
        self.pipeline.private.dirty.clear();
        counts
    }

    /// Makes `flows` UDP flows, each answered. One port may have half of the table: each begins half of them.
    pub fn make(&mut self, flows: u32) {
        for (n, first) in (0..flows).step_by(BATCH_FRAMES).enumerate() {
            for port in [n % 2, 1 - n % 2] {
                let mut flow = first;
                self.batch_of(port, UDP, || {
                    flow += 1;
                    flow - 1
                });
            }
        }
    }

    /// Opens `flows` TCP connections, of which either port begins half.
    pub fn connect(&mut self, flows: u32) {
        self.said = vec![[1, 1]; flows as usize];
        for first in (0..flows).step_by(BATCH_FRAMES) {
            let turned = first as usize / BATCH_FRAMES % 2;
            for (port, flags, numbers) in HANDSHAKE {
                let port = port ^ turned;
                for flow in first..flows.min(first + BATCH_FRAMES as u32) {
                    self.push(|template| template.segment(port, flow, flags, numbers));
                }
                self.go(&Clock::new(), port);
                self.drain();
            }
        }
    }

    /// One more frame of the batch.
    fn push(&mut self, write: impl FnOnce(&mut Template) -> &[u8]) {
        let Some(mut frame) = self.pool.take() else { return };
        assert!(self.pool.area().fill(&mut frame, write(&mut self.template)));
        frame.offload.csum = switch_core::wire::checksum::Csum::Complete;
        self.batch.push(frame);
    }

    /// The same that [`Bench::random`] times, until what is in use is as near as while it goes on.
    pub fn warm(&mut self, flows: u32, seed: &mut u64) {
        let batches = (WARM_PACKETS * flows as usize).div_ceil(BATCH_FRAMES);
        self.random(&Clock::new(), flows, batches, seed);
    }

    /// Ticks a packet, over batches of random ones of `flows`, from both ports in turn: of connections, if there are any, each segment says
    /// more and acknowledges what the other end has said. The pipeline is told how long it took, and looks meanwhile for flows that are over.
    pub fn random(&mut self, clock: &Clock, flows: u32, batches: usize, seed: &mut u64) -> f64 {
        let mut all = 0;
        for batch in 0..batches {
            let (port, mut next) = (batch % 2, || (xorshift(seed) % u64::from(flows)) as u32);
            match self.said.is_empty() {
                true => self.fill(port, UDP, next),
                false => (0..BATCH_FRAMES).for_each(|_| self.say(port, next())),
            }
            let ticks = self.go(clock, port);
            let came = self.drain();
            assert_eq!(came[1 - port], BATCH_FRAMES, "of what flows on some was lost");
            self.now.ns += clock.delta_as_nanos(0, ticks);
            all += ticks;
        }
        all as f64 / (batches * BATCH_FRAMES) as f64
    }

    fn say(&mut self, port: usize, flow: u32) {
        let said = &mut self.said[flow as usize];
        let numbers = [said[port], said[1 - port]];
        said[port] = said[port].wrapping_add(SEGMENT);
        self.push(|template| template.segment(port, flow, DATA, numbers));
    }

    /// Batches, for a profiler.
    pub fn spin(&mut self, flows: u32, batches: usize) {
        self.random(&Clock::new(), flows, batches, &mut 88_172_645_463_325_252);
    }

    /// One batch of SYNs by the first port, from random ones of its first `addresses` and any of their ports, to any port up to
    /// 1024. Ticks.
    pub fn flood(&mut self, clock: &Clock, addresses: u32, seed: &mut u64) -> u64 {
        self.fill_with(0, TCP, || flooding(addresses, seed));
        let ticks = self.go(clock, 0);
        self.drain();
        ticks
    }

    /// Ticks a packet, over batches of SYNs by the first port, from random ones of its first `addresses`.
    pub fn begun(&mut self, clock: &Clock, addresses: u32, batches: usize, seed: &mut u64) -> f64 {
        let mut ticks = 0;
        for _ in 0..batches {
            ticks += self.timed(clock, 0, TCP, || (xorshift(seed) % u64::from(addresses)) as u32);
        }
        ticks as f64 / (batches * BATCH_FRAMES) as f64
    }

    /// What the judgement of SYNs by the first port takes: of who sends them, and the ports. All of them are to pass.
    pub fn probes(&self, all: impl Iterator<Item = (u32, [u16; 2])>) -> Result<Probes, String> {
        let counters = Counters::new(0);
        let [from, to] = [0, 1].map(|id| self.snapshot.port(id));
        let (from, to) = from.zip(to).ok_or("there are two ports")?;
        let address = |bits: u32| to_bits(Ipv4Addr::from_bits(bits).into());
        let (mut sum, mut count, mut largest, mut bound) = (0u64, 0u64, 0, 0);
        for (flow, ports) in all {
            let header = Header::new([address(flow | 0x0a00_0000), address(SECOND)], TCP, ports, [0; 2]);
            let one = probed(&self.snapshot, &header, from, to, &counters);
            one.said.map_err(|denied| format!("{header:?} is {denied:?}"))?;
            (sum, count) = (sum + u64::from(one.probes), count + 1);
            (largest, bound) = (one.probes.max(largest), one.most.max(bound));
        }
        Ok(Probes { mean: sum as f64 / count as f64, largest, bound })
    }

    /// New flows so far.
    pub fn new_flows(&self) -> u64 {
        self.pipeline.private.counters.event(Event::FlowNew).get()
    }

    /// Bytes that access control lists take compiled.
    pub fn listed_bytes(&self) -> usize {
        self.snapshot.listed.bytes
    }

    /// Identities that the policies tell apart, and the bytes they take compiled.
    pub fn compiled(&self) -> (usize, usize) {
        (self.snapshot.policing.identities, self.snapshot.policing.bytes)
    }

    /// Bytes that the table takes for `flows` of them: the whole index, and the entries that were given out.
    pub fn bytes(&self, flows: u32) -> u64 {
        self.tables.flows.index_bytes() as u64 + u64::from(flows) * RECORD_BYTES as u64
    }
}

/// Who speaks with which ports, at random.
pub(crate) fn flooding(addresses: u32, seed: &mut u64) -> (u32, [u16; 2]) {
    let dice = xorshift(seed);
    (((dice >> 32) % u64::from(addresses)) as u32, [dice as u16, 1 + (dice >> 16) as u16 % 1024])
}

pub(crate) fn xorshift(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}
