//! Killed anywhere: the plugin, and the daemon, in the middle of ADD and DEL. After GC nothing is left, and who
//! lives is not disturbed. And what else goes wrong around a plugin: disks, clocks, runtimes that do not wait.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]
#![allow(dead_code, reason = "the runtime's driver has more than this test needs")]

mod runtime;

use runtime::{Container, Runtime, switchd};
use rustix::process::Signal;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use switch_api::{Done, Holder, Lease, LeaseAcquire, LeaseStatus, Owner, Pool, PoolRange, Request};
use switch_lab::disk::SmallDisk;
use switch_lab::{Node, Options, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// Kills of the plugin, and of the daemon.
const PLUGIN_KILLS: u64 = 40;
const DAEMON_KILLS: u64 = 10;
/// Answers of the daemon that any verb waits for at least: two greetings, and what it is about.
const STEPS_MIN: usize = 3;

/// Somewhere in what a verb takes; no relation to what it does.
fn somewhere(round: u64) -> Duration {
    Duration::from_micros(300 + (round * 7_919_317) % 14_000)
}

fn collect_garbage(runtime: &Runtime, alive: &[&str]) {
    let valid: Vec<_> = alive.iter().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect();
    runtime.run("GC", &[], runtime.with("1.1.0", json!({"cni.dev/valid-attachments": valid}))).ok();
}

#[test]
fn a_plugin_that_is_killed_leaves_nothing_that_gc_does_not_find() {
    kill_the_plugin("tap");
}

#[test]
fn a_plugin_of_the_driver_xdp_that_is_killed_leaves_nothing_that_gc_does_not_find() {
    kill_the_plugin("xdp");
}

/// How much longer an ADD takes than with a tap port.
fn longer(driver: &str) -> u32 {
    if driver == "xdp" { 4 } else { 1 }
}

/// A node whose containers attach by that.
fn runtime_with(driver: &str) -> Runtime {
    let mut runtime = Runtime::new();
    runtime.conf["driver"] = driver.into();
    runtime
}

fn kill_the_plugin(driver: &str) {
    let runtime = runtime_with(driver);
    let (alive, other) = (Container::new("alive"), Container::new("other"));
    let (address, _) = (runtime.add(&alive).address(0), runtime.add(&other));
    let is_collected = |verb: &str, container: &Container, round: u64| {
        // A runtime asks again, or gives up.
        match round % 4 {
            0 => _ = runtime.add(container),
            1 => _ = runtime.ask("DEL", "1.0.0", container, json!({})).ok(),
            _ => {}
        }
        collect_garbage(&runtime, &["alive", "other"]);
        assert_eq!((runtime.ports().len(), runtime.leases().len()), (2, 2), "{verb}, round {round}");
        assert!(!container.has("eth0"), "round {round}: {verb} left the interface");
    };
    // Each thing that it asks the daemon for is done, and it dies before it hears of that.
    for verb in ["ADD", "DEL"] {
        for answers in 0.. {
            let container = Container::new("victim");
            if verb == "DEL" {
                runtime.add(&container);
            }
            let (mut started, midway) = runtime.start_midway(verb, &container, answers);
            if !midway.holds(|| started.has_ended()) {
                started.finish().ok();
                assert!(answers >= STEPS_MIN, "{verb} asks for {answers} things");
                collect_garbage(&runtime, &["alive", "other"]);
                break;
            }
            assert!(started.kill(), "{verb} ended without its answer {answers}");
            drop(midway);
            is_collected(verb, &container, answers as u64);
        }
    }
    // And at any instant: how many of them it was quicker than depends on the machine.
    let mut killed = 0;
    for round in 0..PLUGIN_KILLS {
        let container = Container::new("victim");
        let verb = if round % 3 == 2 { "DEL" } else { "ADD" };
        if verb == "DEL" {
            runtime.add(&container);
        }
        killed += u64::from(runtime.start_and_kill(verb, &container, somewhere(round) * longer(driver)));
        is_collected(verb, &container, round);
    }
    println!("{killed} of {PLUGIN_KILLS} were killed at some instant, the others were done before");
    wait_until("who lives is not disturbed", LONG, || other.reaches(&address));
    collect_garbage(&runtime, &[]);
    runtime.assert_empty();
}

#[test]
fn a_daemon_that_is_killed_harms_nobody_and_can_be_asked_again() {
    kill_the_daemon("tap");
}

#[test]
fn a_daemon_that_is_killed_over_xdp_ports_harms_nobody_and_can_be_asked_again() {
    kill_the_daemon("xdp");
}

fn kill_the_daemon(driver: &str) {
    let mut runtime = runtime_with(driver);
    let (alive, other) = (Container::new("alive"), Container::new("other"));
    let (address, _) = (runtime.add(&alive).address(0), runtime.add(&other));
    for round in 0..DAEMON_KILLS {
        let container = Container::new("victim");
        let verb = if round % 3 == 2 { "DEL" } else { "ADD" };
        if verb == "DEL" {
            runtime.add(&container);
        }
        let started = runtime.start(verb, &container);
        std::thread::sleep(somewhere(round) * longer(driver));
        runtime.daemon.kill();
        let said = started.finish();
        runtime.restart();
        assert!(said.success || verb == "ADD", "DEL must not fail: {:#}", said.json);
        // Asked again, it succeeds, whatever the dead daemon had done.
        runtime.add(&container);
        wait_until("it is connected", LONG, || container.reaches(&address));
        runtime.ask("DEL", "1.0.0", &container, json!({})).ok();
        assert_eq!((runtime.ports().len(), runtime.leases().len()), (2, 2), "round {round}");
        assert!(!container.has("eth0"), "round {round}: {verb} left the interface");
        wait_until("who lives is not disturbed", LONG, || other.reaches(&address));
    }
    collect_garbage(&runtime, &[]);
    runtime.assert_empty();
}

/// A file system of a few pages; gone with this.
struct Small(PathBuf);

impl Small {
    fn new(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        switch_lab::net::run("mount", &["-t", "tmpfs", "-o", "size=8k", "small", &at.display().to_string()]);
        Self(at.into())
    }

    fn fill(&self) {
        _ = std::fs::write(self.0.join("filler"), [0; 8192]);
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }

    fn remount(&self, how: &str) {
        switch_lab::net::run("mount", &["-o", &format!("remount,{how}"), &self.0.display().to_string()]);
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_deletion_that_cannot_be_written_down_is_not_said_to_be_done() {
    let mut runtime = Runtime::new();
    let small = Small::new(&runtime.node.directory().join("pending"));
    let (a, b) = (Container::new("a"), Container::new("b"));
    runtime.add(&a);
    runtime.add(&b);
    runtime.daemon.kill();
    let refused = |runtime: &Runtime, what: &str| {
        let said = runtime.ask("DEL", "1.0.0", &a, json!({}));
        assert_eq!(said.code(), 11, "{:#}", said.json);
        assert!(said.json["msg"].as_str().unwrap().contains(what), "{:#}", said.json);
        assert!(a.has("eth0"), "what is not deleted is still there");
    };
    small.fill();
    refused(&runtime, "No space left");
    small.empty();
    small.remount("ro");
    refused(&runtime, "Read-only file system");
    // It is nobody's concern while the daemon is there.
    runtime.restart();
    runtime.ask("DEL", "1.0.0", &b, json!({})).ok();
    runtime.add(&b);
    runtime.daemon.kill();
    small.remount("rw");
    runtime.ask("DEL", "1.0.0", &a, json!({})).ok();
    // Written down, and then it cannot be crossed out: an ADD of the same must not be taken away later, so it is refused.
    small.remount("ro");
    runtime.restart();
    let said = runtime.ask("ADD", "1.0.0", &a, json!({}));
    assert_eq!(said.code(), 5, "{:#}", said.json);
    small.remount("rw");
    let address = runtime.add(&a).address(0);
    wait_until("they are connected", LONG, || b.reaches(&address));
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (2, 2));
    collect_garbage(&runtime, &[]);
    runtime.assert_empty();
}

#[test]
fn a_runtime_that_does_not_wait_is_told_the_same_later() {
    ask_again("tap");
}

#[test]
fn a_runtime_of_the_driver_xdp_that_does_not_wait_is_told_the_same_later() {
    ask_again("xdp");
}

fn ask_again(driver: &str) {
    let runtime = runtime_with(driver);
    let (a, other) = (Container::new("a"), Container::new("other"));
    runtime.add(&other);
    // The daemon stands still, and the runtime asks for longer than it waits.
    runtime.daemon.signal(Signal::STOP);
    let said = runtime.ask("ADD", "1.0.0", &a, json!({"timeoutSeconds": 1}));
    runtime.daemon.signal(Signal::CONT);
    assert_eq!(said.code(), 11, "{:#}", said.json);
    let first = runtime.add(&a);
    assert_eq!(runtime.add(&a), first);
    wait_until("it is connected", LONG, || other.reaches(&first.address(0)));
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (2, 2));
    // Two at once for the same container: both are told of the same, and neither takes anything from the other.
    for round in 0..8 {
        let container = Container::new("twice");
        let both = [runtime.start("ADD", &container), runtime.start("ADD", &container)].map(|it| it.finish());
        assert!(both[0].success && both[0] == both[1], "round {round}: {both:#?}");
        let result = runtime.ask("CHECK", "1.0.0", &container, json!({"prevResult": both[0].json}));
        assert!(result.success, "round {round}: {:#}", result.json);
        assert_eq!(runtime.add(&container), both[0], "round {round}");
        assert_eq!((runtime.ports().len(), runtime.leases().len()), (3, 3), "round {round}");
        // And one that gives up while another asks again.
        let both = [runtime.start("DEL", &container), runtime.start("ADD", &container)].map(|it| it.finish());
        assert!(both[0].success, "round {round}: {both:#?}");
        runtime.ask("DEL", "1.0.0", &container, json!({})).ok();
        assert!(!container.has("eth0"));
        assert_eq!((runtime.ports().len(), runtime.leases().len()), (2, 2), "round {round}");
    }
    assert!(other.reaches(&first.address(0)), "who lives is not disturbed");
}

/// What the daemon cannot keep is not done, and leaves nothing; what it cannot take away is not forgotten.
#[test]
fn on_a_full_disk_an_add_leaves_nothing_and_a_deletion_is_made_good_later() {
    let started = || {
        let node = Node::new();
        let disk = SmallDisk::new(&node, 2);
        let state = format!("--state {}", disk.file("state").display());
        (Runtime::of(node, &Options::new(runtime::program()).with(&state)), disk)
    };
    // The disk goes first: it is in the node's directory.
    let (runtime, disk) = started();
    let [alive, other, goes] = ["alive", "other", "goes"].map(Container::new);
    let address = runtime.add(&alive).address(0);
    [&other, &goes].iter().for_each(|container| _ = runtime.add(container));
    let range = PoolRange::of("10.0.0.0/12".parse().unwrap());
    let pool = Pool { name: "filler".parse().unwrap(), ranges: vec![range], owner: Owner::Operator };
    let _: Done = runtime.daemon.call(&Request::PoolAdd(pool));
    let filler = disk.fill();
    // Room that the file has within it is used first.
    let mut rounds = 0..20;
    let (comes, refused) = loop {
        assert!(rounds.next().is_some(), "the disk is not full");
        (0..20_000).find(|_| runtime.daemon.client().call::<Lease>(&lease_for_nobody()).is_err()).unwrap();
        let container = Container::new("comes");
        let said = runtime.ask("ADD", "1.0.0", &container, json!({}));
        match said.success {
            true => _ = runtime.ask("DEL", "1.0.0", &container, json!({})).ok(),
            false => break (container, said),
        }
    };
    assert!(refused.json["msg"].as_str().unwrap().contains("could not be kept"), "{:#}", refused.json);
    assert!(!comes.has("eth0"), "what was refused left its interface");
    let count = || {
        let ours = |status: &&LeaseStatus| status.lease.pool.as_str() == "pods";
        (runtime.ports().len(), runtime.leases().iter().filter(ours).count())
    };
    assert_eq!(count(), (3, 3), "{:#}", refused.json);
    assert!(other.reaches(&address), "who lives is not disturbed");
    for _ in 0..2 {
        runtime.ask("DEL", "1.0.0", &goes, json!({})).ok();
    }
    std::fs::remove_file(filler).unwrap();
    runtime.ask("STATUS", "1.1.0", &alive, json!({})).ok();
    assert_eq!(count(), (2, 2), "it was forgotten");
    wait_until("the interface is gone", LONG, || !goes.has("eth0"));
    let said = runtime.add(&comes);
    assert!(other.reaches(&said.address(0)) && other.reaches(&address));
    collect_garbage(&runtime, &[]);
    assert_eq!(count(), (0, 0));
    runtime.daemon.assert_conserved();
}

/// Another one each time.
fn lease_for_nobody() -> Request {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let container = format!("nobody{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let holder = Holder { network: "filler".into(), container, interface: "eth0".into() };
    let pool = "filler".parse().unwrap();
    Request::LeaseAcquire(LeaseAcquire { pool, holder, addresses: Vec::new(), with_port: false })
}

/// podman and a kubelet's containerd on one node, say: each has its own network, of one bridge and one pool, and containers of the same
/// names. Neither's garbage collection takes what is the other's.
#[test]
fn two_runtimes_at_once_do_not_touch_what_is_the_others() {
    let runtime = Runtime::new();
    let runtime = &runtime;
    let each = |network: &'static str| {
        let mut kept: Vec<(Container, runtime::Said)> = Vec::new();
        for n in 0..8 {
            let container = Container::new(&format!("c{n}"));
            let netns = container.net.path();
            let env = [("CNI_CONTAINERID", &*container.id), ("CNI_NETNS", &*netns), ("CNI_IFNAME", "eth0")];
            let conf = runtime.with("1.1.0", json!({"name": network}));
            let said = runtime.run("ADD", &env, conf.clone());
            assert!(said.success, "{network} {n}: {:#}", said.json);
            match n % 2 {
                0 => kept.push((container, said)),
                _ => _ = runtime.run("DEL", &env, conf.clone()).ok(),
            }
            let valid = kept.iter().map(|(it, _)| json!({"containerID": it.id, "ifname": "eth0"}));
            let mut conf = conf;
            conf["cni.dev/valid-attachments"] = valid.collect::<Vec<_>>().into();
            runtime.run("GC", &[], conf).ok();
        }
        kept
    };
    let (one, two) = std::thread::scope(|scope| {
        let threads = ["podman", "kubelet"].map(|network| scope.spawn(move || (network, each(network))));
        let [one, two] = threads.map(|thread| thread.join().unwrap());
        (one, two)
    });
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (8, 8));
    for (network, kept) in [&one, &two] {
        for (container, said) in kept {
            let netns = container.net.path();
            let env = [("CNI_CONTAINERID", &*container.id), ("CNI_NETNS", &*netns), ("CNI_IFNAME", "eth0")];
            let conf = runtime.with("1.1.0", json!({"name": network, "prevResult": said.json}));
            let checked = runtime.run("CHECK", &env, conf);
            assert!(checked.success, "{network}: {:#}", checked.json);
            let reached = |(other, said): &(Container, runtime::Said)| {
                other.net.path() == netns || container.reaches(&said.address(0))
            };
            assert!(one.1.iter().chain(&two.1).all(reached), "{network} {}", container.id);
        }
    }
}

#[test]
fn a_namespace_that_vanishes_midway_leaves_nothing() {
    let runtime = Runtime::new();
    let leaves_nothing = || {
        let env = [("CNI_CONTAINERID", "short"), ("CNI_NETNS", ""), ("CNI_IFNAME", "eth0")];
        runtime.run("DEL", &env, runtime.with("1.0.0", json!({}))).ok();
        runtime.assert_empty();
    };
    // Between any two steps; before the first of them nothing can succeed any more.
    for answers in 0.. {
        let container = Container::new("short");
        let (mut started, midway) = runtime.start_midway("ADD", &container, answers);
        let is_midway = midway.holds(|| started.has_ended());
        drop(container);
        midway.goes_on();
        let said = started.finish();
        assert!(answers > 0 || !said.success, "it is attached to nothing: {said:?}");
        leaves_nothing();
        if !is_midway {
            assert!(answers >= STEPS_MIN, "ADD asks for {answers} things");
            break;
        }
    }
    for round in 0..16 {
        let container = Container::new("short");
        let started = runtime.start("ADD", &container);
        std::thread::sleep(somewhere(round) / 2);
        drop(container);
        started.finish();
        leaves_nothing();
    }
}

#[test]
fn a_clock_that_jumps_gives_no_address_to_two() {
    let mut runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let kept = runtime.add(&a);
    // A year on, and back again: the daemon's clock is that since boot, which only a machine that was suspended or moved
    // sees jump. The time of day it does not ask for leases.
    let year = 365 * 24 * 3600;
    for offset in [year, 0, 2 * year] {
        let released = runtime.add(&b).address(0);
        runtime.ask("DEL", "1.0.0", &b, json!({})).ok();
        runtime.daemon.stop(false);
        let line = format!("unshare --time --monotonic {offset} --boottime {offset} --fork --kill-child");
        runtime.daemon = runtime.node.start(&switchd().through(&line));
        assert_eq!(runtime.add(&a), kept, "asked again, after {offset} s");
        let next = runtime.add(&b);
        assert_ne!(next.address(0), released, "it was released a moment ago");
        assert_ne!(next.address(0), kept.address(0));
        wait_until("they are connected", LONG, || b.reaches(&kept.address(0)));
        runtime.ask("DEL", "1.0.0", &b, json!({})).ok();
    }
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (1, 1));
}
