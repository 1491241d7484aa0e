//! `lpm4`, `lpm6`: Longest-prefix match in a table as large as the Internet's: lookups in a batch, memory, and
//! what one change costs while the others go on reading. DIR-24-8 runs beside it, and DPDK's `rte_fib` over the same routes and
//! destinations.

use super::{Bench, Figure, Held};
use crate::cycles::median;
use crate::dir24::Dir24;
use crate::peers::fib;
use crate::routes;
use std::hint::black_box;
use std::time::Instant;
use switch_core::table::lpm::{Change, Lpm};

const V4_ROUTES: usize = 1_000_000;
const V6_ROUTES: usize = 250_000;
const V4_BAR_NS: f64 = 10.0;
const V6_BAR_NS: f64 = 30.0;
const V4_BYTES_MAX: usize = 64 << 20;
/// A change is published in well under this.
const CHANGE_MS_MAX: f64 = 10.0;
/// Destinations: more than any cache holds.
const DESTINATIONS: usize = 1 << 20;
const BATCH: usize = 64;
const CHANGES: usize = 200;
/// Times that DPDK's program is asked: each makes the table anew.
const RUNS: usize = 3;

/// What it is held against.
pub(super) const V4_HELD: Held = Held::at_most("ns a lookup", V4_BAR_NS);
/// What it is held against.
pub(super) const V6_HELD: Held = Held::at_most("ns a lookup", V6_BAR_NS);

pub(super) fn v4(_: &Bench) -> Result<Figure, String> {
    let all = routes::v4(V4_ROUTES, 1);
    let lpm = Lpm::default().changed(&mut all.clone());
    let keys = routes::destinations(&all, DESTINATIONS, 2);
    let ips: Vec<u32> = keys.iter().map(|key| (key >> 96) as u32).collect();
    let mut dir24 = Dir24::default();
    let mut by_len = all.clone();
    by_len.sort_by_key(|change| change.len);
    by_len.iter().for_each(|change| dir24.insert(change));
    // The two agree, or the figure is about nothing.
    if let Some(ip) = ips.iter().find(|ip| lpm.find_v4(**ip) != dir24.find(**ip) || lpm.find_v4(**ip) == 0) {
        return Err(format!("the tables disagree about {}", std::net::Ipv4Addr::from(*ip)));
    }
    let mut values = [0; BATCH];
    let (mut own, mut one_by_one, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..9 {
        own.push(nanoseconds(&ips, |batch| {
            lpm.find_v4_each(batch, &mut values);
            black_box(&values);
        }));
        one_by_one
            .push(nanoseconds(&ips, |batch| batch.iter().for_each(|ip| _ = black_box(lpm.find_v4(*ip)))));
        other.push(nanoseconds(&ips, |batch| batch.iter().for_each(|ip| _ = black_box(dir24.find(*ip)))));
    }
    let (change_ms, worst_ms) = changes(&lpm, &all);
    let (own, bytes) = (median(own), lpm.bytes());
    let detail = format!(
        "{V4_ROUTES} prefixes, random destinations, batches of {BATCH}; one by one {:.1} ns; {} MiB (bar {}); \
         a change {change_ms:.3} ms, at worst {worst_ms:.3} (bar {CHANGE_MS_MAX}); DIR-24-8 beside it {:.1} ns, {} MiB; {}",
        median(one_by_one),
        bytes >> 20,
        V4_BYTES_MAX >> 20,
        median(other),
        dir24.bytes() >> 20,
        beside_dpdk(own, &all, &keys, false),
    );
    let figure = Figure::new("lpm4", own, V4_HELD, detail);
    Ok(figure.only_if(bytes <= V4_BYTES_MAX && worst_ms < CHANGE_MS_MAX))
}

pub(super) fn v6(_: &Bench) -> Result<Figure, String> {
    let all = routes::v6(V6_ROUTES, 1);
    let lpm = Lpm::default().changed(&mut all.clone());
    let keys = routes::destinations(&all, DESTINATIONS, 2);
    if keys.iter().any(|key| lpm.find(*key) == 0) {
        return Err("a destination was not found".into());
    }
    let mut values = [0; BATCH];
    let (mut own, mut one_by_one) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        own.push(nanoseconds(&keys, |batch| {
            lpm.find_many(batch, &mut values);
            black_box(&values);
        }));
        one_by_one
            .push(nanoseconds(&keys, |batch| batch.iter().for_each(|key| _ = black_box(lpm.find(*key)))));
    }
    let own = median(own);
    let (change_ms, worst_ms) = changes(&lpm, &all);
    let detail = format!(
        "{V6_ROUTES} prefixes, random destinations, batches of {BATCH}; one by one {:.1} ns; {} MiB; a change {change_ms:.3} ms, at worst {worst_ms:.3} (bar {CHANGE_MS_MAX}); {}",
        median(one_by_one),
        lpm.bytes() >> 20,
        beside_dpdk(own, &all, &keys, true),
    );
    let figure = Figure::new("lpm6", own, V6_HELD, detail);
    Ok(figure.only_if(worst_ms < CHANGE_MS_MAX))
}

/// Nanoseconds a lookup, over all destinations.
fn nanoseconds<T>(all: &[T], mut look_up: impl FnMut(&[T; BATCH])) -> f64 {
    let start = Instant::now();
    for batch in all.chunks_exact(BATCH) {
        if let Some(batch) = batch.first_chunk() {
            look_up(batch);
        }
    }
    start.elapsed().as_secs_f64() * 1e9 / all.len() as f64
}

/// What DPDK takes for the same on this machine, and how many times that is ours; or why that is not known.
fn beside_dpdk(own: f64, all: &[Change], keys: &[u128], is_v6: bool) -> String {
    match (0..RUNS).map(|_| fib::lookup_ns(all, keys, is_v6)).collect::<Result<Vec<_>, _>>() {
        Ok(ns) => {
            let ns = median(ns);
            format!("DPDK's rte_fib beside it {ns:.1} ns, of which ours is {:.2} times", own / ns)
        }
        Err(why) => format!("DPDK's rte_fib is not known: {why}"),
    }
}

/// Milliseconds that one change takes: the middle and the worst of many, a default route among them.
fn changes(lpm: &Lpm, all: &[Change]) -> (f64, f64) {
    let step = all.len() / CHANGES;
    let mut some: Vec<Change> =
        all.iter().step_by(step).map(|change| Change { value: 99, ..*change }).collect();
    some.push(Change { key: 0, len: 0, value: 99 });
    let mut times = Vec::new();
    for change in some {
        let start = Instant::now();
        let next = black_box(lpm.changed(&mut [change]));
        times.push(start.elapsed().as_secs_f64() * 1e3);
        drop(next);
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    (median(times), worst)
}
