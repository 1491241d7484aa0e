//! [route-churn] Routes that change by the thousand each second, among a full table, while numbered datagrams go by routes
//! that do not. A real daemon that keeps its state, pods on two bridges, and a client that asks for a change, waits for the
//! answer (every worker has it then) and takes the time.

use super::{Bench, Figure, Held};
use crate::changes::named;
use crate::iperf::PATIENCE;
use crate::routed::full_table;
use hdrhistogram::Histogram;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use switch_api::{Client, Done, Prefix, Request, Route, RouteApply, RouteDelete};
use switch_lab::{Daemon, Node, Options, sequence, wait_until};

/// Routes that are there all the time, those that change among them.
const ROUTES: usize = 1_000_000;
/// Those that change.
const CHANGING: usize = 100_000;
/// Routes of a request: what fits into 1 MiB.
const LOADED_AT_ONCE: usize = 7_000;
const CHANGES_A_SECOND: u64 = 10_000;
/// Changes of a request: a routing daemon that hears of something has so much to say.
const TOGETHER: usize = 50;
const DURATION: Duration = Duration::from_secs(10);
/// Flows each way, each by a route of its own.
const FLOWS: u8 = 8;
/// Datagrams under way in each direction.
const WINDOW: u64 = 64;
const BAR_MS: f64 = 10.0;
/// What is longer counts as so long: an answer that is not there by then is an error.
const LONGEST_NS: u64 = 60_000_000_000;

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("ms, p99", BAR_MS);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let options = Options::new(&bench.switchd).with("--cores 1 --memory 256M").keeping_state();
    let mut daemon = node.start(&options);
    let (near, far) = (node.pod_on(7, 2), node.pod_on(8, 2));
    for (net, pod) in [(7, &near), (8, &far)] {
        let bridge = format!("br{net}");
        daemon.bridge(&bridge);
        daemon.gateway(&bridge, &format!("10.{net}.0.1/24"));
        daemon.attach(pod, &bridge, Default::default());
    }
    // Next hops of the full table: nobody needs to be there.
    daemon.bridge("br9");
    daemon.gateway("br9", "192.0.2.1/24");
    let own = |n: u8| IpAddr::from([10, 200, 0, n]);
    let mut client = daemon.client();
    let started = Instant::now();
    let mut table: Vec<Route> = full_table(ROUTES).into_iter().filter(|route| !is_ours(route)).collect();
    table.sort_by_key(|route| route.prefix);
    for add in table.chunks(LOADED_AT_ONCE) {
        apply(&mut client, RouteApply { add: add.to_vec(), ..RouteApply::default() })?;
    }
    let loaded_s = started.elapsed().as_secs_f64();
    let add = (1..=FLOWS).map(|n| {
        far.net.ip(&format!("addr add {}/32 dev lo", own(n)));
        let via = vec![switch_api::NextHop { address: far.ip.parse().ok()?, ..table[0].via[0].clone() }];
        Some(Route { prefix: Prefix { address: own(n), len: 32 }, via, ..table[0].clone() })
    });
    let add: Vec<Route> = add.flatten().collect();
    apply(&mut client, RouteApply { add, ..RouteApply::default() })?;
    wait_until("ping", PATIENCE, || near.reaches(&own(FLOWS).to_string()));
    let pairs: Vec<_> = (1..=FLOWS).filter_map(|n| Some((near.ip.parse().ok()?, own(n)))).collect();
    let load = sequence::start(&near.net, &far.net, &pairs, WINDOW);
    // Those that change are all over the table.
    let changing: Vec<Route> = table.iter().step_by(ROUTES / CHANGING).cloned().collect();
    let churned = churn(&mut client, &changing);
    let tally = load.finish();
    let (times, changes, took) = churned?;
    let resident = resident_mib(&daemon);
    daemon.assert_conserved();
    let dropped = named(daemon.stats().drops);
    daemon.stop(true);
    let ms = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e6;
    let rate = changes as f64 / took.as_secs_f64();
    let detail = format!(
        "{rate:.0} changes a second for {:.0} s, {TOGETHER} a request, among {ROUTES} routes, kept on disk; from request to all \
         workers have it: {}; p50 {:.2}, p99 {:.2}, worst {:.2} ms; of {} datagrams of {FLOWS} flows each way {} lost, {} \
         overtaken; the switch dropped {dropped}; the table was loaded in {loaded_s:.1} s, the daemon is {resident:.0} MiB",
        took.as_secs_f64(),
        buckets(&times),
        ms(0.5),
        ms(0.99),
        ms(1.0),
        tally.sent,
        tally.lost,
        tally.overtaken,
    );
    let figure = Figure::new("route-churn", ms(0.99), HELD, detail);
    // Nine tenths of the rate: the last request of a second may end in the next.
    let enough = rate >= 0.9 * CHANGES_A_SECOND as f64 && tally.sent > 1_000;
    Ok(figure.only_if(enough && tally.lost == 0 && tally.overtaken == 0))
}

/// Whether a route of the table would hide what pods have.
fn is_ours(route: &Route) -> bool {
    let ours: [IpAddr; 4] =
        [[10, 7, 0, 2].into(), [10, 8, 0, 2].into(), [10, 200, 0, 1].into(), [192, 0, 2, 1].into()];
    route.prefix.len >= 24 && ours.iter().any(|address| route.prefix.contains(*address))
}

fn apply(client: &mut Client, apply: RouteApply) -> Result<(), String> {
    client.call::<Done>(&Request::RouteApply(apply)).map(|_| ()).map_err(|error| error.to_string())
}

/// Deletes, adds again with another next hop, and replaces, in turn, at the wanted rate; nanoseconds of each request.
fn churn(client: &mut Client, routes: &[Route]) -> Result<(Histogram<u64>, u64, Duration), String> {
    let mut times = Histogram::new_with_max(LONGEST_NS, 3).map_err(|error| error.to_string())?;
    let pause = Duration::from_nanos(1_000_000_000 * TOGETHER as u64 / CHANGES_A_SECOND);
    let (start, mut n, mut changes) = (Instant::now(), 0u32, 0);
    while start.elapsed() < DURATION {
        let chunks = routes.len() / TOGETHER;
        // Each portion goes and comes back before the next.
        let round = n as usize / 3 % chunks;
        let some = &routes[round * TOGETHER..][..TOGETHER];
        let moved = |by: u8| some.iter().map(|route| other_hop(route, by)).collect();
        let request = match n % 3 {
            0 => {
                let gone = |route: &Route| RouteDelete {
                    prefix: route.prefix,
                    vrf: route.vrf.clone(),
                    metric: None,
                };
                RouteApply { delete: some.iter().map(gone).collect(), ..RouteApply::default() }
            }
            1 => RouteApply { add: moved(1), ..RouteApply::default() },
            _ => RouteApply { replace: moved(2), ..RouteApply::default() },
        };
        let due = start + pause * n;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        apply(client, request)?;
        times.saturating_record(asked.elapsed().as_nanos() as u64);
        (n, changes) = (n + 1, changes + TOGETHER as u64);
    }
    Ok((times, changes, start.elapsed()))
}

fn other_hop(route: &Route, by: u8) -> Route {
    let mut route = route.clone();
    if let IpAddr::V4(v4) = route.via[0].address {
        let [a, b, c, d] = v4.octets();
        route.via[0].address = IpAddr::from([a, b, c, 2 + (d - 2 + by) % crate::routed::NEXT_HOPS]);
    }
    route
}

/// How many requests took no longer than so many milliseconds.
fn buckets(times: &Histogram<u64>) -> String {
    let (mut below, mut told) = (0, Vec::new());
    for (ns, label) in
        [(500_000, "0.5"), (1_000_000, "1"), (2_000_000, "2"), (5_000_000, "5"), (10_000_000, "10")]
    {
        let up_to = times.count_between(0, ns);
        told.push(format!("≤ {label} ms {}", up_to - below));
        below = up_to;
    }
    told.push(format!("more {}", times.len() - below.min(times.len())));
    told.join(", ")
}

fn resident_mib(daemon: &Daemon) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN);
    kib / 1024.0
}
