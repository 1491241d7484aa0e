//! What is told of the control side: how long requests take, and how much there is of what can run out.

use super::family::Family;
use super::look::Look;
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use switch_api::{NeighState, WorkerStatus};

pub fn families(look: &Look) -> Vec<Family> {
    vec![requests(look), wakes(&look.workers), pools(look), neighbours(look), routes(look), capacity(look)]
}

fn requests(look: &Look) -> Family {
    let help = "Time from a request that is whole to its answer, by method";
    let mut family = Family::histogram("switch_request_duration", help).unit(Unit::Seconds);
    for request in &look.stats.requests {
        let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |us| us as f64 / 1e6);
        let within = request.within_us.iter().map(|(us, count)| (bound(*us), *count)).collect();
        family.distribution(&[("method", &request.method)], request.sum_ns as f64 / 1e9, within);
    }
    family
}

fn wakes(workers: &[WorkerStatus]) -> Family {
    let help = "Time from the bell to the worker's first instruction after sleep";
    let mut family = Family::histogram("switch_worker_wake", help).unit(Unit::Seconds);
    for worker in workers {
        let last = worker.wake_latency_us.len().saturating_sub(1);
        let buckets = worker.wake_latency_us.iter().enumerate();
        let within = buckets
            .map(|(n, (us, count))| (if n == last { f64::INFINITY } else { *us as f64 / 1e6 }, *count));
        let sum = worker.wake_latency_sum_us as f64 / 1e6;
        family.distribution(&[("worker", &worker.id.to_string())], sum, within.collect());
    }
    family
}

fn pools(look: &Look) -> Family {
    let mut family = Family::gauge("switch_pool_addresses", "Addresses of the pool, by what they are");
    for status in &look.pools {
        for of in &status.families {
            let pool = ("pool", status.pool.name.as_str());
            let version = ("family", if of.is_ipv6 { "ipv6" } else { "ipv4" });
            for (state, count) in [("free", of.free), ("leased", of.leased), ("held", of.held)] {
                family = family.at(&[pool, version, ("state", state)], count);
            }
        }
    }
    family
}

fn neighbours(look: &Look) -> Family {
    let mut counts = BTreeMap::new();
    for entry in &look.neighbours {
        *counts.entry((entry.bridge.as_str(), state_name(entry.state))).or_insert(0) += 1;
    }
    let family = Family::gauge("switch_neighbours", "Neighbours, by bridge and how sure their MAC is");
    counts.into_iter().fold(family, |family, ((bridge, state), count)| {
        family.at(&[("bridge", bridge), ("state", state)], count)
    })
}

fn state_name(state: NeighState) -> &'static str {
    match state {
        NeighState::Incomplete => "incomplete",
        NeighState::Reachable => "reachable",
        NeighState::Stale => "stale",
        NeighState::Failed => "failed",
        NeighState::Static => "static",
    }
}

fn routes(look: &Look) -> Family {
    Family::gauge("switch_routes", "Routes, by where they come from")
        .at(&[("origin", "declared")], look.stats.routes.declared)
        .at(&[("origin", "mirrored")], look.stats.routes.mirrored)
}

fn capacity(look: &Look) -> Family {
    let room = &look.stats.room;
    Family::gauge("switch_table_room", "What a table holds at most")
        .at(&[("table", "macs")], room.macs)
        .at(&[("table", "neighbours")], room.neighbours)
        .at(&[("table", "routes")], room.routes)
}
