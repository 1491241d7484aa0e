//! Routed packets through the whole pipeline: two bridges with a gateway and a memory port each, next hops behind the
//! second, and any number of routes to them. What is timed is `Pipeline::run` and nothing else.

use crate::pipeline::fresh;
use crate::routes;
use quanta::Clock;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;
use switch_api::{
    Bridge, BridgeAddress, Name, NextHop, Owner, Port, PortKind, Prefix, Request, Route, RouteApply,
    RouteKind, Vid,
};
use switch_core::config::gateway::to_bits;
use switch_core::config::snapshot::{Live, Snapshot, compile, compile_routes};
use switch_core::config::{Checked, CheckedRoutes, FDB_ENTRIES_DEFAULT, Model};
use switch_core::counter::NoLaps;
use switch_core::frame::{BATCH_FRAMES, Batch, Pool};
use switch_core::pipeline::{Now, Pipeline, Tables, World};
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
    template: [u8; FRAME_LEN],
    destinations: Vec<u32>,
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
        let name = |text: &str| -> Name { text.parse().unwrap_or_else(|error| panic!("{error}")) };
        let mut model = Model::default();
        let mut declare = |request: Request| {
            model = model.apply(&request).unwrap_or_else(|error| panic!("{error}"));
        };
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
            let port = Port::new(name(port), name(bridge), PortKind::Memory { source: None });
            declare(Request::PortAdd(Box::new(port)));
        }
        declare(Request::RouteApply(RouteApply { add: full_table(count), ..RouteApply::default() }));
        let live = |_| Live { up: true, mtu: 1500, gso: false, lanes: std::iter::once(0).collect() };
        let live = (0..2).map(|id| (id, live(id))).collect();
        let checked = Checked::new(model, 1).unwrap_or_else(|error| panic!("{error}"));
        let snapshot = compile(&checked, &live, FDB_ENTRIES_DEFAULT as u32, 1);
        let (pipeline, pool, tables) = fresh(1024);
        let model = checked.model().clone();
        let fid = |bridge: &str| model.fids[&(model.bridges[&name(bridge)].id, Vid::DEFAULT)];
        for hop in 0..NEXT_HOPS {
            let mac = u64::from(hop) | 0x0200_0000_0100;
            assert!(
                tables.neigh.pin(neigh::key(fid("br1"), to_bits(IpAddr::from([192, 0, 2, 2 + hop]))), mac)
            );
            tables.fdb.pin(fdb::key(mac, fid("br1")), 1);
        }
        let gateway = snapshot.gateway(fid("br0")).map_or(0, |gateway| gateway.mac);
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
            template: template(gateway),
            destinations,
            now,
        }
    }

    /// Ticks a packet, over batches of random flows; every packet comes out by the other port, its TTL one less.
    pub fn measure(&mut self, clock: &Clock, batches: usize, seed: &mut u64) -> f64 {
        let mut ticks = 0;
        for _ in 0..batches {
            self.fill(seed);
            let world = World { snapshot: &self.snapshot, tables: &self.tables, now: self.now };
            let start = clock.raw();
            self.pipeline.run(world, 0, &mut self.batch, &mut self.pool, &mut NoLaps);
            ticks += clock.raw() - start;
            let queue = &mut self.pipeline.private.queues[1];
            assert_eq!(queue.len(), BATCH_FRAMES, "not every packet was routed");
            for frame in queue.take(usize::MAX) {
                let bytes = self.pool.area().bytes(&frame);
                assert!(bytes[4] == 1 && bytes[22] == TTL - 1, "a packet was not routed right");
                self.pool.give(frame);
            }
            self.pipeline.private.dirty.clear();
        }
        ticks as f64 / (batches * BATCH_FRAMES) as f64
    }

    /// Batches, for a profiler.
    pub fn spin(&mut self, batches: usize) {
        self.measure(&Clock::new(), batches, &mut 7);
    }

    fn fill(&mut self, seed: &mut u64) {
        for _ in 0..BATCH_FRAMES {
            let Some(mut frame) = self.pool.take() else { return };
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            let to = self.destinations[(*seed % self.destinations.len() as u64) as usize];
            self.template[24..26].copy_from_slice(&[0, 0]);
            self.template[30..34].copy_from_slice(&to.to_be_bytes());
            let checksum = !fold(sum(&self.template[14..34]));
            self.template[24..26].copy_from_slice(&checksum.to_be_bytes());
            assert!(self.pool.area().fill(&mut frame, &self.template));
            frame.offload.csum = Csum::Complete;
            self.batch.push(frame);
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

/// A UDP packet to the gateway.
fn template(gateway: u64) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&gateway.to_be_bytes()[2..]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[17] = (FRAME_LEN - 14) as u8;
    frame[22] = TTL;
    frame[23] = 17;
    frame[26..30].copy_from_slice(&[198, 51, 100, 9]);
    frame[34..40].copy_from_slice(&[0, 7, 0, 7, 0, (FRAME_LEN - 34) as u8]);
    frame
}
