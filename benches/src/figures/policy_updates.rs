//! [policy-updates] Network policies that are set one by one, each in a request of its own that is kept on disk and answered when every worker goes
//! by it, on a small node and on a full one; and beside them numbered datagrams to and from a pod that a changing policy isolates: their flow
//! is judged anew after each change, and none may be lost.

use super::{Bench, Figure, Held};
use crate::changes::{as_answered, named};
use crate::iperf::PATIENCE;
use hdrhistogram::Histogram;
use serde_json::json;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use switch_api::{Client, Done, DropCount, NetworkPolicy, PortSet, PortSettings, Request};
use switch_lab::scenes::{labelled, shop};
use switch_lab::{Options, sequence, wait_until};

/// Pods by tap ports, and policies, each of an application: a small node's; and those of a full one, which has so many pods unless somebody says
/// otherwise (kubelet's `maxPods`).
const NODES: [(u8, u32); 2] = [(10, 8), (110, 50)];
/// The workers of those that speak: one has both, and the other's core is left to whoever makes the tables; or each has one, and both poll.
const WORKERS: [[u16; 2]; 2] = [[0, 0], [0, 1]];
/// The first of the pods that nobody sends anything; below are those that speak, and the node.
const QUIET: u8 = 10;
/// Applications that they are of, as their labels say.
const APPS: u32 = 16;
const DURATION: Duration = Duration::from_secs(10);
/// Datagrams under way in each direction.
const WINDOW: u64 = 64;
/// In force on every worker, p99.
const BAR_MS: f64 = 10.0;
/// Datagrams that came, for it to say anything.
const SENT_MIN: u64 = 1_000;

/// What it is held against, on a small node.
pub(super) const HELD: Held = Held::at_least("changes a second", 1_000.0);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let ([small, full], [together, apart]) = (NODES, WORKERS);
    let both = storm(bench, full, apart)?;
    let (small, full) = (storm(bench, small, together)?, storm(bench, full, together)?);
    let detail = format!(
        "policies are set one a request, by one client that waits for each answer, for {:.0} s, kept on disk, 2 workers; {small}; {full}; where both workers of \
         two cores poll for those that speak: {both} (bars: p99 {BAR_MS} ms, 0 lost)",
        DURATION.as_secs_f64(),
    );
    let holds = small.holds() && full.holds() && both.holds();
    Ok(Figure::new("policy-updates", small.rate, HELD, detail).only_if(holds))
}

/// What came of a node's policies being changed as fast as they are.
struct Storm {
    node: (u8, u32),
    rate: f64,
    times: Histogram<u64>,
    tally: sequence::Tally,
    dropped: String,
}

impl Storm {
    fn ms(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1e6
    }

    fn holds(&self) -> bool {
        let sequence::Tally { sent, lost, overtaken, .. } = self.tally;
        self.ms(0.99) <= BAR_MS && lost == 0 && overtaken == 0 && sent > SENT_MIN
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (Self { node: (pods, policies), rate, tally, dropped, .. }, [p50, p99, worst]) =
            (self, [0.5, 0.99, 1.0].map(|quantile| self.ms(quantile)));
        write!(
            f,
            "{policies} policies of {pods} pods: {rate:.0} a second, from request to every worker has it p50 {p50:.2}, p99 {p99:.2}, worst \
             {worst:.2} ms; of {} datagrams of a flow that is judged anew after each {} lost, {} overtaken; the switch dropped {dropped} of \
             what came from or went to its two ends",
            tally.sent, tally.lost, tally.overtaken
        )
    }
}

fn storm(bench: &Bench, of: (u8, u32), workers: [u16; 2]) -> Result<Storm, String> {
    let options = Options::new(&bench.switchd).with("--cores 0,1").keeping_state();
    let (node, mut daemon, pods) = shop(&options);
    let mut client = daemon.client();
    let quiet: Vec<_> = (QUIET..QUIET + of.0 - pods.len() as u8).map(|n| node.bare_pod(n)).collect();
    for (pod, n) in quiet.iter().zip(0..) {
        let _: Done = ask(&mut client, &Request::PortAdd(Box::new(labelled(pod, &app(n)))))?;
    }
    for n in 0..of.1 {
        set(&mut client, of.1, n)?;
    }
    for (port, worker) in ["tap1", "tap3"].into_iter().zip(workers) {
        let name = port.parse().map_err(|error| format!("{error}"))?;
        let settings = PortSettings { worker: Some(worker), ..PortSettings::default() };
        let _: Done = ask(&mut client, &Request::PortSet(PortSet { name, settings }))?;
    }
    let [db, _, other] = &pods[..] else { return Err("three pods".into()) };
    wait_until("pods reach each other", PATIENCE, || other.reaches(&db.ip));
    let address = |ip: &str| ip.parse::<IpAddr>().map_err(|error| error.to_string());
    let load = sequence::start(&other.net, &db.net, &[(address(&other.ip)?, address(&db.ip)?)], WINDOW);
    // Each policy was another twice before anything counts.
    let changed = as_answered(2 * of.1, DURATION, |n| set(&mut client, of.1, n));
    let tally = load.finish();
    let (times, rate) = changed?;
    daemon.assert_conserved();
    let speak = |drop: &DropCount| ["tap1", "tap3"].contains(&drop.port.as_str());
    let dropped = named(daemon.stats().drops.into_iter().filter(speak));
    daemon.stop(true);
    Ok(Storm { node: of, rate, times, tally, dropped })
}

fn app(n: u32) -> String {
    format!("app-{}", n % APPS)
}

/// The next change: another of so many policies says something else. All of the first one's versions let `db` and `other` speak with each other.
fn set(client: &mut Client, policies: u32, n: u32) -> Result<(), String> {
    let (which, version) = (n % policies, n / policies);
    let net = version % 251;
    let from = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
    let own = if which == 0 { "db".to_owned() } else { app(which) };
    let mut ingress = vec![
        json!({"from": [from(&app(which + 1)), from("other")]}),
        json!({
            "from": [{"ipBlock": {"cidr": format!("10.77.{net}.0/24"), "except": [format!("10.77.{net}.0/28")]}}],
            "ports": [{"protocol": "TCP", "port": 1 + version % 60_000}],
        }),
    ];
    ingress.rotate_left(version as usize % 2);
    let policy = json!({
        "metadata": {"name": format!("p{which}"), "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": own}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress, "egress": [{"to": [from("other")]}],
        },
    });
    let policy = serde_json::from_value::<NetworkPolicy>(policy).map_err(|error| error.to_string())?;
    let _: Done = ask(client, &Request::PolicySet(Box::new(policy)))?;
    Ok(())
}

fn ask<T: serde::de::DeserializeOwned>(client: &mut Client, request: &Request) -> Result<T, String> {
    client.call(request).map_err(|error| error.to_string())
}
