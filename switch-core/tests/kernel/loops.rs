//! Two ports that are patched together behind the switch's back: a real cable, real workers.

use std::time::{Duration, Instant, UNIX_EPOCH};
use switch_api::{Done, Flood, Happened, Mac, Nothing, PortSettings, PortState, Request, WorkerStatus};
use switch_lab::frames::{plain, station};
use switch_lab::node::xdp_port;
use switch_lab::{Daemon, Node, Options, RawSocket, wait_until};

const EVERYBODY: Mac = Mac([0xff; 6]);
const LONG: Duration = Duration::from_secs(60);
/// A loop is found within this.
const FOUND_WITHIN: Duration = Duration::from_secs(1);
/// What a loop may cost once it is found, in parts of one core.
const LOAD_MAX: f64 = 0.1;
/// What the kernels at both ends say of their own accord in a second (IPv6 solicitations); what circles are thousands.
const STRAY_MAX: u64 = 20;
const ENDS: [&str; 2] = ["loopa", "loopb"];

fn floods(all: bool) -> Flood {
    Flood { unknown_unicast: all, multicast: all, broadcast: all }
}

fn looped(daemon: &Daemon) -> Vec<&'static str> {
    ENDS.into_iter().filter(|end| daemon.port(end).state == PortState::Looped).collect()
}

/// Stations behind a pod say something to everybody until `until`.
fn talk(socket: &RawSocket, until: Instant) {
    while Instant::now() < until {
        for n in 1..=7 {
            socket.send(&plain(EVERYBODY, station(n), n, 60));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Each thread's name and how long it ran in user and in kernel mode, in ticks (proc_pid_stat(5)).
fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stats
        .map(|stat| {
            let (name, rest) = stat.rsplit_once(')').unwrap_or_default();
            let times: Vec<_> = rest.split_whitespace().skip(11).take(2).collect();
            format!("{name}) {}", times.join(" "))
        })
        .collect()
}

fn a_loop_costs_little(cores: &str, workers: [u16; 2], one_end_floods: bool) {
    let node = Node::new();
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with(&format!("--cores {cores}")));
    daemon.bridge("br0");
    let pod = node.pod(1);
    daemon.attach(&pod, "br0", PortSettings::default());
    let socket = RawSocket::open(&pod.net, "eth0").unwrap();
    node.net.ip("link add loopa type veth peer name loopb");
    for (n, end) in ENDS.into_iter().enumerate() {
        node.net.ip(&format!("link set {end} up"));
        let flood = floods(n == 1 || one_end_floods);
        let settings = PortSettings { worker: Some(workers[n]), flood, ..PortSettings::default() };
        let _: Done = daemon.call(&Request::PortAdd(Box::new(xdp_port(end, "br0", settings))));
    }
    let (plugged, of_day) = (Instant::now(), UNIX_EPOCH.elapsed().unwrap());
    socket.send(&plain(EVERYBODY, station(1), 1, 60));
    wait_until("the loop is reported", LONG, || {
        !looped(&daemon).is_empty() && daemon.log().contains("a loop was found")
    });
    // By when it says that it was: the one who asks may be late.
    let recent: Vec<Happened> = daemon.call(&Request::EventsRecent(Nothing {}));
    let told = recent.iter().find(|event| event.what == "loop").unwrap();
    let after = Duration::from_nanos(told.time_ns).saturating_sub(of_day);
    assert!(after < FOUND_WITHIN, "it was found after {after:?}");
    talk(&socket, plugged + Duration::from_secs(2));

    // One end is blocked, nothing circles, and the workers sleep; from when what was said to everybody has been heard.
    assert_eq!(looped(&daemon).len(), 1, "{}", daemon.log());
    let heard = || daemon.port("pod1").counters.tx_packets;
    wait_until("a second in which nothing circles", LONG, || {
        let (before, spent, from) = (heard(), daemon.cpu_time(), Instant::now());
        std::thread::sleep(Duration::from_secs(1));
        let load = (daemon.cpu_time() - spent).as_secs_f64() / from.elapsed().as_secs_f64();
        let heard = heard() - before;
        println!("{load:.2} of a core, {heard} frames with {cores} {workers:?} {one_end_floods}");
        // Should it be in vain: whether a worker turns, what it does then, and what it did not get rid of.
        let said: Vec<WorkerStatus> = daemon.call(&Request::WorkerList(Nothing {}));
        println!("{said:?}\n{:?}\n{:?}", daemon.stats().drops, threads(daemon.pid()));
        load < LOAD_MAX && heard < STRAY_MAX
    });
    // Who listens, or asks later, is told which port it was.
    assert!(ENDS.contains(&told.parts["ports"].as_str()), "{recent:?}");
    daemon.assert_conserved();
}

#[test]
fn of_two_ends_that_flood_on_one_worker() {
    a_loop_costs_little("0", [0, 0], true);
}

#[test]
fn of_two_ends_that_flood_on_two_workers() {
    a_loop_costs_little("0,1", [0, 1], true);
}

#[test]
fn of_one_end_that_floods_on_one_worker() {
    a_loop_costs_little("0", [0, 0], false);
}

#[test]
fn of_one_end_that_floods_on_two_workers() {
    a_loop_costs_little("0,1", [0, 1], false);
}
