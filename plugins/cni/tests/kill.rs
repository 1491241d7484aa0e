//! Killed anywhere: the plugin, and the daemon, in the middle of ADD and DEL. After GC nothing is left, and who
//! lives is not disturbed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]
#![allow(dead_code, reason = "the runtime's driver has more than this test needs")]

mod runtime;

use runtime::{Container, Runtime};
use serde_json::json;
use std::time::Duration;
use switch_lab::wait_until;

const LONG: Duration = Duration::from_secs(10);
/// Kills of the plugin, and of the daemon.
const PLUGIN_KILLS: u64 = 40;
const DAEMON_KILLS: u64 = 10;

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
    let runtime = Runtime::new();
    let (alive, other) = (Container::new("alive"), Container::new("other"));
    let (address, _) = (runtime.add(&alive).address(0), runtime.add(&other));
    let (mut done, mut killed) = (0, 0);
    for round in 0..PLUGIN_KILLS {
        let container = Container::new("victim");
        let verb = if round % 3 == 2 { "DEL" } else { "ADD" };
        if verb == "DEL" {
            runtime.add(&container);
        }
        match runtime.start_and_kill(verb, &container, somewhere(round)) {
            true => killed += 1,
            false => done += 1,
        }
        // A runtime asks again, or gives up.
        match round % 4 {
            0 => _ = runtime.add(&container),
            1 => _ = runtime.ask("DEL", "1.0.0", &container, json!({})).ok(),
            _ => {}
        }
        collect_garbage(&runtime, &["alive", "other"]);
        assert_eq!((runtime.ports().len(), runtime.leases().len()), (2, 2), "round {round}");
        assert!(!container.has("eth0"), "round {round}: {verb} left the interface");
    }
    assert!(killed > PLUGIN_KILLS / 4, "{killed} were killed, {done} were done before: this tested little");
    wait_until("who lives is not disturbed", LONG, || other.reaches(&address));
    collect_garbage(&runtime, &[]);
    runtime.assert_empty();
}

#[test]
fn a_daemon_that_is_killed_harms_nobody_and_can_be_asked_again() {
    let mut runtime = Runtime::new();
    let (alive, other) = (Container::new("alive"), Container::new("other"));
    let (address, _) = (runtime.add(&alive).address(0), runtime.add(&other));
    for round in 0..DAEMON_KILLS {
        let container = Container::new("victim");
        let verb = if round % 3 == 2 { "DEL" } else { "ADD" };
        if verb == "DEL" {
            runtime.add(&container);
        }
        let started = runtime.start(verb, &container);
        std::thread::sleep(somewhere(round));
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
