//! Routed packets through the whole pipeline: two bridges with a gateway and a memory port each, next hops behind the
//! second, and any number of routes to them. What is timed is `Pipeline::run` and nothing else.

use crate::cycles::WARM_PACKETS;
use crate::pipeline::fresh;
use crate::{routes, rules};
use quanta::Clock;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;
use switch_api::{
    Bridge, BridgeAddress, Name, Nat, NetworkPolicy, NextHop, Owner, Port, PortKind, Prefix, Request, Route,
    RouteApply, RouteKind, Vid, Workload,
};
use switch_core::config::gateway::to_bits;
use switch_core::config::snapshot::{Live, Snapshot, compile, compile_routes};
use switch_core::config::{Checked, CheckedRoutes, FDB_ENTRIES_DEFAULT, Model};
use switch_core::counter::NoLaps;
use switch_core::frame::{BATCH_FRAMES, Batch, Pool};
use switch_core::pipeline::{Now, Pipeline, Tables, World};
use switch_core::table::flow::FLOWS_DEFAULT;
use switch_core::table::lpm::Change;
use switch_core::table::{fdb, neigh};
use switch_core::wire::checksum::{Csum, fold, sum};

/// Bytes of a frame without its FCS.
const FRAME_LEN: usize = 60;
/// Next hops that routes are shared among.
pub const NEXT_HOPS: u8 = 64;
const TTL: u8 = 64;

/// A pipeline with routes.
#[derive(Debug)]
pub struct Bench {
    pipeline: Pipeline,
    pool: Pool,
    tables: Tables,
    model: Model,
    snapshot: Snapshot,
    batch: Batch,
    /// What went in, in order.
    sent: Vec<[u8; FRAME_LEN]>,
    /// MACs of the gateways of both bridges.
    gateways: [[u8; 6]; 2],
    template: [u8; FRAME_LEN],
    destinations: Vec<u32>,
    /// Whether flows are kept, which a worker looks after once a turn.
    keeps_flows: bool,
    /// Whether what leaves by the second port has another source there.
    is_masked: bool,
    /// What answers each flow, if it is to be sent.
    answers: Vec<[u8; FRAME_LEN]>,
    now: Now,
}

/// An IPv4 route of [`routes::v4`] as it is declared.
pub fn route(change: &Change, hop: u8) -> Route {
    let address = IpAddr::V4(Ipv4Addr::from_bits((change.key >> 96) as u32));
    let hop = IpAddr::from([192, 0, 2, 2 + hop]);
    let via = vec![NextHop { address: hop, bridge: None, vid: Vid::DEFAULT, weight: 1 }];
    Route::new(Prefix { address, len: change.len }, RouteKind::Via, via)
}

/// So many routes.
pub fn full_table(count: usize) -> Vec<Route> {
    routes::v4(count, 1)
        .iter()
        .map(|change| route(change, (change.value % u32::from(NEXT_HOPS)) as u8))
        .collect()
}

impl Bench {
    /// `count` routes, and `flows` flows to random destinations that hit one.
    pub fn new(count: usize, flows: usize) -> Self {
        Self::under(&[], None, count, flows)
    }

    /// The same; each flow has another source behind the second port, and was answered.
    pub fn masked(count: usize, flows: usize) -> Result<Self, String> {
        let rule =
            format!(r#"{{"name": "mask", "kind": "source", "from": ["198.51.100.0/24"], "to": ["{MASK}"]}}"#);
        let rule: Nat = serde_json::from_str(&rule).map_err(|error| error.to_string())?;
        let mut bench = Self::under(&[], Some(rule), count, flows);
        bench.establish();
        let counted = bench.tables.flows.counted();
        // One entry for each of its keys.
        if (counted.all as usize) != 2 * flows || counted.half_open > 0 || bench.answers.len() != flows {
            return Err(format!("{counted:?}, {} answers for {flows} flows", bench.answers.len()));
        }
        Ok(bench)
    }

    /// The same; the second port is a workload that so many rules isolate, of which the last admits all flows. They are established: each
    /// was answered.
    pub fn policed(count: usize, flows: usize, rules: u32) -> Result<Self, String> {
        let mut bench = Self::under(&rules::policies_last(rules, "198.51.100.0/24")?, None, count, flows);
        bench.establish();
        let counted = bench.tables.flows.counted();
        if (counted.all as usize) < flows || counted.half_open > 0 {
            return Err(format!(
                "{} of {flows} flows are there, {} half-open",
                counted.all, counted.half_open
            ));
        }
        Ok(bench)
    }

    fn under(policies: &[NetworkPolicy], nat: Option<Nat>, count: usize, flows: usize) -> Self {
        let name = |text: &str| -> Name { text.parse().unwrap_or_else(|error| panic!("{error}")) };
        let mut model = Model::default();
        let mut declare = |request: Request| {
            model = model.apply(&request).unwrap_or_else(|error| panic!("{error}"));
        };
        policies.iter().for_each(|policy| declare(Request::PolicyAdd(Box::new(policy.clone()))));
        for (bridge, port, address) in [("br0", "a", "198.51.100.1/24"), ("br1", "b", "192.0.2.1/24")] {
            declare(Request::BridgeAdd(Bridge::new(name(bridge))));
            let address = address.parse().unwrap_or_else(|error| panic!("{error}"));
            let vid = Vid::DEFAULT;
            declare(Request::AddressAdd(BridgeAddress {
                bridge: name(bridge),
                address,
                vid,
                owner: Owner::Operator,
            }));
            let workload = (port == "b" && !policies.is_empty()).then(workload);
            let port = Port::new(name(port), name(bridge), PortKind::Memory { source: None });
            declare(Request::PortAdd(Box::new(Port { workload, ..port })));
        }
        let is_masked = nat.is_some();
        nat.into_iter().for_each(|rule| declare(Request::NatSet(Box::new(rule))));
        declare(Request::RouteApply(RouteApply { add: full_table(count), ..RouteApply::default() }));
        let live = |_| Live { up: true, mtu: 1500, gso: false, lanes: std::iter::once(0).collect() };
        let live = (0..2).map(|id| (id, live(id))).collect();
        let checked = Checked::new(model, 1).unwrap_or_else(|error| panic!("{error}"));
        let snapshot = compile(&checked, &live, FDB_ENTRIES_DEFAULT as u32, 1);
        let keeps_flows = is_masked || !policies.is_empty();
        // One port may begin half of the flows that there is room for; one that is translated counts as two.
        let (pipeline, pool, tables) = fresh(match (keeps_flows, is_masked) {
            (false, _) => 1024,
            (true, false) => 2 * FLOWS_DEFAULT,
            (true, true) => 4 * FLOWS_DEFAULT,
        });
        let model = checked.model().clone();
        let fid = |bridge: &str| model.fids[&(model.bridges[&name(bridge)].id, Vid::DEFAULT)];
        let station = |bridge: &str, address: IpAddr, mac: u64, port: u16| {
            assert!(tables.neigh.pin(neigh::key(fid(bridge), to_bits(address)), mac));
            tables.fdb.pin(fdb::key(mac, fid(bridge)), port);
        };
        for hop in 0..NEXT_HOPS {
            station("br1", IpAddr::from([192, 0, 2, 2 + hop]), u64::from(hop) | HOP_MACS, 1);
        }
        for host in 0..flows.div_ceil(PORTS) {
            station("br0", Ipv4Addr::from_bits(SENDER.to_bits() + host as u32).into(), SENDER_MAC, 0);
        }
        let gateways = ["br0", "br1"].map(|bridge| {
            let mac = snapshot.gateway(fid(bridge)).map_or(0, |gateway| gateway.mac);
            mac_bytes(mac)
        });
        let own = |ip: &u32| [0xc633_6400, 0xc000_0200].iter().all(|net| ip & !0xff != *net);
        let found = routes::destinations(&routes::v4(count, 1), 2 * flows, 2);
        let destinations: Vec<u32> =
            found.iter().map(|key| (key >> 96) as u32).filter(own).take(flows).collect();
        assert_eq!(destinations.len(), flows);
        let (batch, now) = (Batch::new(), Now { ns: 1_000_000_000 });
        Self {
            pipeline,
            pool,
            tables,
            model,
            snapshot,
            batch,
            sent: Vec::with_capacity(BATCH_FRAMES),
            gateways,
            template: template(gateways[0]),
            destinations,
            keeps_flows,
            is_masked,
            answers: Vec::new(),
            now,
        }
    }

    /// Packets of all flows, and answers if there are any, until what is in use is as near as while they go on.
    pub fn warm(&mut self, seed: &mut u64) {
        let clock = Clock::new();
        let batches = (WARM_PACKETS * self.destinations.len()).div_ceil(BATCH_FRAMES);
        self.measure(&clock, batches, seed);
        if !self.answers.is_empty() {
            self.measure_back(&clock, batches, seed);
        }
    }

    /// Ticks a packet, over batches of random flows; every packet comes out by the other port, its TTL one less.
    pub fn measure(&mut self, clock: &Clock, batches: usize, seed: &mut u64) -> f64 {
        let mut ticks = 0;
        for _ in 0..batches {
            self.fill(seed);
            ticks += self.go(clock);
            self.drain();
        }
        ticks as f64 / (batches * BATCH_FRAMES) as f64
    }

    /// The same for answers.
    pub fn measure_back(&mut self, clock: &Clock, batches: usize, seed: &mut u64) -> f64 {
        let mut ticks = 0;
        for _ in 0..batches {
            self.fill_back(seed);
            ticks += self.go_back(clock);
            self.drain_back();
        }
        ticks as f64 / (batches * BATCH_FRAMES) as f64
    }

    /// Batches, for a profiler.
    pub fn spin(&mut self, batches: usize) {
        self.measure(&Clock::new(), batches, &mut 7);
    }

    /// The same, both ways in turn.
    pub fn spin_both(&mut self, batches: usize) {
        let (clock, mut seed) = (Clock::new(), 7);
        for _ in 0..batches / 2 {
            self.measure(&clock, 1, &mut seed);
            self.measure_back(&clock, 1, &mut seed);
        }
    }

    /// One batch of random flows, to be run.
    pub fn fill(&mut self, seed: &mut u64) {
        for _ in 0..BATCH_FRAMES {
            let flow = self.random(seed);
            self.push(flow);
        }
    }

    /// One batch of answers to random flows, to be run.
    pub fn fill_back(&mut self, seed: &mut u64) {
        for _ in 0..BATCH_FRAMES {
            let answer = self.answers[self.random(seed)];
            let Some(mut frame) = self.pool.take() else { return };
            assert!(self.pool.area().fill(&mut frame, &answer));
            frame.offload.csum = Csum::Complete;
            self.batch.push(frame);
            self.sent.push(answer);
        }
    }

    fn random(&self, seed: &mut u64) -> usize {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed % self.destinations.len() as u64) as usize
    }

    fn push(&mut self, flow: usize) {
        let Some(mut frame) = self.pool.take() else { return };
        // Destinations repeat where there are few routes: flows differ by what sends them.
        let (host, port) = (flow / PORTS, FIRST_PORT + (flow % PORTS) as u16);
        self.template[34..36].copy_from_slice(&port.to_be_bytes());
        let sender = Ipv4Addr::from_bits(SENDER.to_bits() + host as u32);
        write_addresses(&mut self.template, sender, self.destinations[flow].into());
        assert!(self.pool.area().fill(&mut frame, &self.template));
        frame.offload.csum = Csum::Complete;
        self.batch.push(frame);
        self.sent.push(self.template);
    }

    /// Runs it; ticks.
    #[inline(never)]
    pub fn go(&mut self, clock: &Clock) -> u64 {
        self.run(clock, 0)
    }

    /// The same for what comes by the second port.
    #[inline(never)]
    pub fn go_back(&mut self, clock: &Clock) -> u64 {
        self.run(clock, 1)
    }

    #[inline(always)]
    fn run(&mut self, clock: &Clock, port: u16) -> u64 {
        let world = World { snapshot: &self.snapshot, tables: &self.tables, now: self.now };
        let start = clock.raw();
        self.pipeline.run(world, port, &mut self.batch, &mut self.pool, &mut NoLaps);
        if self.keeps_flows {
            // What a worker's turn does beside: flows that are over are looked for.
            self.pipeline.attend(world, &mut self.batch, &mut self.pool);
        }
        clock.raw() - start
    }

    /// Takes out what came of it, and looks at every byte: from the gateway to a next hop, a hop less, its checksum right, the source
    /// another one if that is to be, all else as it was.
    pub fn drain(&mut self) {
        let queue = &mut self.pipeline.private.queues[1];
        assert_eq!(queue.len(), BATCH_FRAMES, "not every packet was routed");
        for (frame, sent) in queue.take(usize::MAX).zip(&self.sent) {
            let bytes = self.pool.area().bytes(&frame);
            let same = |range: std::ops::Range<usize>| bytes[range.clone()] == sent[range];
            let source = match self.is_masked {
                true => bytes[26..30] == MASK.octets() && bytes[34..36] >= FIRST_PORT.to_be_bytes()[..],
                false => same(26..30) && same(34..36),
            };
            let is_right = bytes.len() == FRAME_LEN
                && source
                && bytes[..5] == [2, 0, 0, 0, 1]
                && bytes[5] < NEXT_HOPS
                && bytes[6..12] == self.gateways[1]
                && same(12..22)
                && bytes[22] == TTL - 1
                && bytes[23] == sent[23]
                && fold(sum(&bytes[14..34])) == 0xffff
                && same(30..34)
                && same(36..FRAME_LEN);
            assert!(is_right, "a packet was not routed right: {bytes:02x?}");
            self.pool.give(frame);
        }
        self.sent.clear();
        self.pipeline.private.dirty.clear();
    }

    /// The same for answers: to the sender, from whom it sent to, whatever it had become between.
    pub fn drain_back(&mut self) {
        let queue = &mut self.pipeline.private.queues[0];
        assert_eq!(queue.len(), BATCH_FRAMES, "not every answer was routed");
        for (frame, sent) in queue.take(usize::MAX).zip(&self.sent) {
            let bytes = self.pool.area().bytes(&frame);
            let same = |range: std::ops::Range<usize>| bytes[range.clone()] == sent[range];
            let is_right = bytes.len() == FRAME_LEN
                && bytes[..6] == mac_bytes(SENDER_MAC)
                && bytes[6..12] == self.gateways[0]
                && bytes[22] == sent[22] - 1
                && bytes[30..33] == SENDER.octets()[..3]
                && bytes[36..38] >= FIRST_PORT.to_be_bytes()[..]
                && fold(sum(&bytes[14..34])) == 0xffff
                && same(26..30)
                && same(34..36)
                && same(38..FRAME_LEN);
            assert!(is_right, "an answer was not routed right: {bytes:02x?}");
            self.pool.give(frame);
        }
        self.sent.clear();
        self.pipeline.private.dirty.clear();
    }

    /// A packet of every flow, and an answer to each, from the next hop that it went to.
    fn establish(&mut self) {
        let (clock, flows) = (Clock::new(), self.destinations.len());
        for first in (0..flows).step_by(BATCH_FRAMES) {
            for n in 0..BATCH_FRAMES {
                self.push((first + n) % self.destinations.len());
            }
            self.go(&clock);
            let there: Vec<_> = self.pipeline.private.queues[1].take(usize::MAX).collect();
            self.sent.clear();
            for mut frame in there {
                let mut back = [0; FRAME_LEN];
                back.copy_from_slice(self.pool.area().bytes(&frame));
                let (hop, ends) = (back[..6].to_vec(), back[26..34].to_vec());
                let near: [u8; 4] = std::array::from_fn(|n| ends[n]);
                let far: [u8; 4] = std::array::from_fn(|n| ends[4 + n]);
                back[..6].copy_from_slice(&self.gateways[1]);
                back[6..12].copy_from_slice(&hop);
                back[34..38].rotate_left(2);
                write_addresses(&mut back, far.into(), near.into());
                if self.is_masked && self.answers.len() < flows {
                    self.answers.push(back);
                }
                assert!(self.pool.area().fill(&mut frame, &back));
                frame.offload.csum = Csum::Complete;
                self.batch.push(frame);
            }
            let world = World { snapshot: &self.snapshot, tables: &self.tables, now: self.now };
            self.pipeline.run(world, 1, &mut self.batch, &mut self.pool, &mut NoLaps);
            for frame in self.pipeline.private.queues[0].take(usize::MAX) {
                self.pool.give(frame);
            }
            self.pipeline.private.dirty.clear();
        }
    }

    /// Microseconds for each of `count` changes of one route: it is checked, and the next snapshot is made.
    pub fn changes(&mut self, all: &[Route], count: usize) -> Vec<f64> {
        let mut times = Vec::new();
        for (n, route) in all.iter().step_by((all.len() / count).max(1)).enumerate() {
            let mut route = route.clone();
            route.via[0].address = IpAddr::from([192, 0, 2, 2 + (n % usize::from(NEXT_HOPS)) as u8]);
            let request = Request::RouteApply(RouteApply { replace: vec![route], ..RouteApply::default() });
            let start = Instant::now();
            let routes =
                CheckedRoutes::after(&self.model, &request).unwrap_or_else(|error| panic!("{error}"));
            let generation = self.snapshot.generation + 1;
            let next = compile_routes(&self.model, &routes, &self.snapshot, generation);
            self.model.routes = routes.into();
            self.snapshot = next;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times
    }
}

/// Source ports that flows of one sender differ by, the first of them.
const PORTS: usize = 50_000;
const FIRST_PORT: u16 = 1024;
/// What a sender is behind the second port, if it is masked.
const MASK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// Who sends; neighbouring addresses when there are more flows than ports.
const SENDER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const SENDER_MAC: u64 = 0x0200_0000_0009;
/// MACs of next hops, the first of them.
const HOP_MACS: u64 = 0x0200_0000_0100;

fn mac_bytes(mac: u64) -> [u8; 6] {
    let [_, _, bytes @ ..] = mac.to_be_bytes();
    bytes
}

/// What the second port is to policies.
fn workload() -> Workload {
    Workload {
        namespace: "default".into(),
        labels: Default::default(),
        ports: Vec::new(),
        addresses: Vec::new(),
    }
}

/// Both addresses, and a checksum that is right.
fn write_addresses(frame: &mut [u8; FRAME_LEN], from: Ipv4Addr, to: Ipv4Addr) {
    frame[24..26].copy_from_slice(&[0, 0]);
    frame[26..30].copy_from_slice(&from.octets());
    frame[30..34].copy_from_slice(&to.octets());
    let checksum = !fold(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// A UDP packet to the gateway.
fn template(gateway: [u8; 6]) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&gateway);
    frame[6..12].copy_from_slice(&mac_bytes(SENDER_MAC));
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[17] = (FRAME_LEN - 14) as u8;
    frame[22] = TTL;
    frame[23] = 17;
    let [high, low] = rules::PORT.to_be_bytes();
    frame[34..40].copy_from_slice(&[high, low, high, low, 0, (FRAME_LEN - 34) as u8]);
    frame
}
