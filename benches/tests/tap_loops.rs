//! The loops that `tap-io` compares carry traffic, all of them, and end when they are told to.

use std::time::Duration;
use switch_bench::tap_loops::{Engine, Joined};
use switch_lab::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_loop_carries_and_ends() {
    for engine in [Engine::Calls, Engine::Ring, Engine::Shots] {
        let joined = Joined::start(engine).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let [a, b] = &joined.pods;
        wait_until(&format!("{engine:?}: ping"), PATIENCE, || a.reaches(&b.ip) && b.reaches(&a.ip));
        // Many at a time, and none lost or doubled.
        let said = a.net.run(&format!("ping -n -q -c 500 -i 0.002 -s 1400 {}", b.ip));
        assert!(said.contains("500 received") && !said.contains("duplicates"), "{engine:?}: {said}");
        joined.end().unwrap_or_else(|error| panic!("{engine:?}: {error}"));
    }
}
