//! A policy that changes as fast as one connection can say it, under traffic: what every version allows loses nothing, what none allows
//! never arrives, and every packet is accounted for.

use crate::switchd;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use switch_api::{ByPolicy, Client, Done, NetworkPolicy, Request};
use switch_lab::scenes::shop;
use switch_lab::world::Echo;
use switch_lab::{Daemon, Net, sequence, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// How long it changes.
const STORM: Duration = Duration::from_secs(4);
/// Datagrams under way at most: less than a TAP's queue holds.
const WINDOW: u64 = 64;
/// Between two datagrams that nobody may send.
const REST: Duration = Duration::from_micros(200);
/// Where nobody may send.
const TARGET: &str = "10.66.0.1:7";

fn policy(name: &str, spec: serde_json::Value) -> Box<NetworkPolicy> {
    let policy = serde_json::json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    Box::new(serde_json::from_value(policy).unwrap())
}

/// All of them let `db` and `web` speak with each other, and `other` with neither. Each says something else beside it, now ahead of that and now
/// behind it, so that every flow is judged anew.
fn version(n: u64) -> Box<NetworkPolicy> {
    let web = serde_json::json!([{"podSelector": {"matchLabels": {"app": "web"}}}]);
    let more = serde_json::json!([{"ipBlock": {"cidr": format!("10.77.{}.0/24", n % 251)}}]);
    let port = serde_json::json!([{"protocol": "UDP", "port": 1 + n % 60_000}]);
    let mut ingress =
        vec![serde_json::json!({"from": web}), serde_json::json!({"from": more, "ports": port})];
    ingress.rotate_left((n % 2) as usize);
    let spec = serde_json::json!({
        "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress, "egress": [{"to": web}, {"to": more}],
    });
    policy("db", spec)
}

/// A second one of the same pod, that allows nothing.
fn more() -> Box<NetworkPolicy> {
    policy("more", serde_json::json!({"podSelector": {"matchLabels": {"app": "db"}}}))
}

/// The next change: another version, or the second policy comes or goes.
fn change(client: &mut Client, n: u64) {
    let request = match n % 4 {
        1 => Request::PolicyAdd(more()),
        3 => Request::PolicyDelete(ByPolicy { name: "more".into(), namespace: "shop".into() }),
        _ => Request::PolicySet(version(n)),
    };
    let _: Done = client.call(&request).unwrap();
}

/// Changes for a while, without a pause; how many there were.
fn storm(daemon: &Daemon) -> u64 {
    let (mut client, begin, mut n) = (daemon.client(), Instant::now(), 0);
    while begin.elapsed() < STORM {
        change(&mut client, n);
        n += 1;
    }
    println!("{n} changes, {:.0} a second", n as f64 / begin.elapsed().as_secs_f64());
    n
}

/// Sends what may not arrive until it ends; how much.
fn denied(net: &Net, ends: Arc<AtomicBool>) -> JoinHandle<u64> {
    net.inside(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let mut sent = 0;
        while !ends.load(Relaxed) {
            sent += u64::from(socket.send_to(b"now", TARGET).is_ok());
            std::thread::sleep(REST);
        }
        sent
    })
}

/// Drops by policies, and how many of them were told of or counted as not told.
fn policy_drops(daemon: &Daemon) -> [u64; 2] {
    let stats = daemon.stats();
    let drops = stats.drops.iter().filter(|drop| drop.reason.starts_with("policy-"));
    let told = stats.events.iter().filter(|(event, _)| event.starts_with("policy-drop-"));
    [drops.map(|drop| drop.frames).sum(), told.map(|(_, count)| count).sum()]
}

#[test]
fn while_a_policy_changes_all_the_time_what_it_allows_passes_and_nothing_else() {
    let (_node, daemon, pods) = shop(&switchd());
    let [db, web, other] = &pods[..] else { panic!() };
    let _: Done = daemon.call(&Request::PolicySet(version(0)));
    let mut echo = Echo::open(&web.net, &db.net, "10.66.0.1:5432");
    wait_until("web reaches db", LONG, || web.reaches("10.66.0.1") && web.reaches("fd66::1"));
    let closed = db.net.inside(|| UdpSocket::bind(TARGET).unwrap()).join().unwrap();
    closed.set_nonblocking(true).unwrap();
    let pairs = [("10.66.0.2", "10.66.0.1"), ("fd66::2", "fd66::1")];
    let pairs = pairs.map(|(web, db)| (web.parse().unwrap(), db.parse().unwrap()));
    let (ends, lost) = (Arc::new(AtomicBool::new(false)), || other.dropped().unwrap());
    let before = (daemon.drops_at("tap3", "policy-ingress"), lost());

    let load = sequence::start(&web.net, &db.net, &pairs, WINDOW);
    let sender = denied(&other.net, ends.clone());
    let (changes, echoes) = std::thread::scope(|scope| {
        let echoing = scope.spawn(|| {
            let comes_back =
                (0..).take_while(|_| !ends.load(Relaxed)).map(|n| echo.comes_back(n as u8, LONG));
            comes_back.filter(|comes| *comes).count()
        });
        let changes = storm(&daemon);
        ends.store(true, Relaxed);
        (changes, echoing.join().unwrap())
    });
    let (sent, tally) = (sender.join().unwrap(), load.finish());
    println!("{tally:?}, {echoes} bytes came back, {sent} datagrams that may not arrive");

    assert!(changes > 20 && echoes > 20 && sent > 100 && tally.sent > 100, "too few to count");
    assert!(closed.recv(&mut [0; 8]).is_err(), "one arrived that no version allows");
    assert_eq!((tally.lost, tally.overtaken), (0, 0), "{tally:?} {:?}", daemon.stats().drops);
    assert!(echo.comes_back(0, LONG));
    // Each was stopped by the policy, but for those that did not get out of their own kernel.
    let stopped = || daemon.drops_at("tap3", "policy-ingress") - before.0 + lost() - before.1;
    wait_until("all that may not arrive is counted", LONG, || stopped() >= sent);
    assert_eq!(stopped(), sent, "{:?}", daemon.stats().drops);
    let [drops, told] = policy_drops(&daemon);
    assert_eq!(drops, told, "{:?}", daemon.stats());
    drop(echo);
    daemon.assert_conserved();
}
