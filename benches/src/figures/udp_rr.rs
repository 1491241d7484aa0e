//! [udp-rr] UDP requests and responses, one and sixteen outstanding, over tap and xdp ports: beside testpmd over
//! AF_XDP, which only passes frames on. Client and server have core 0, what is between has core 1.

use super::{Bench, Figure, Held};
use crate::cycles::median;
use crate::pair::Pair;
use crate::peers::{Bridge, Kind, Testpmd, testpmd::CONFIGURATION};
use crate::round_trips;
use switch_lab::Pod;

const ROUNDS: usize = 5;
const COUNT: usize = 10_000;
const BAR: f64 = 0.9;

/// What is compared; the last two are peers.
const DEVICES: [&str; 4] = ["tap", "xdp", "testpmd", "bridge"];
const TESTPMD: usize = 2;
const OUTSTANDING: [usize; 2] = [1, 16];

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("times testpmd", BAR);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let version = Testpmd::version()?;
    // One at a time: a peer that polls would take its half of the core from the next.
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        rounds.push([
            through_switch(bench, Kind::Tap)?,
            through_switch(bench, Kind::Xdp)?,
            through_testpmd()?,
            both(&Bridge::build().pods)?,
        ]);
    }
    let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let (mut worst, mut said) = (f64::MIN, Vec::new());
    for (load, outstanding) in OUTSTANDING.into_iter().enumerate() {
        for (n, name) in DEVICES.into_iter().enumerate() {
            let (p50, p99) = (middle(&|r| r[n][load].p50), middle(&|r| r[n][load].p99));
            said.push(format!("{name}, {outstanding} outstanding: {p50:.0} / {p99:.0} µs"));
            if n < TESTPMD {
                let p50 = middle(&|r| r[n][load].p50 / r[TESTPMD][load].p50);
                let p99 = middle(&|r| r[n][load].p99 / r[TESTPMD][load].p99);
                worst = worst.max(p50).max(p99);
                said.push(format!("which is {p50:.2} / {p99:.2} times testpmd"));
            }
        }
    }
    let detail = format!(
        "p50 / p99: {}; the worst ratio is held against the bar; {version} {CONFIGURATION}, its pods with tx off; \
         {COUNT} round trips a round, {ROUNDS} rounds in turn, medians; the bridge answers on the sender's own core and wakes no other",
        said.join(", ")
    );
    Ok(Figure::new("udp-rr", worst, HELD, detail))
}

/// Of one device with one and with sixteen requests outstanding.
type Both = [Quantiles; OUTSTANDING.len()];
type Round = [Both; DEVICES.len()];

#[derive(Clone, Copy)]
struct Quantiles {
    p50: f64,
    p99: f64,
}

fn through_switch(bench: &Bench, kind: Kind) -> Result<Both, String> {
    let mut switch = Pair::start(bench, kind);
    let both = both(&switch.pods)?;
    switch.daemon.assert_conserved();
    switch.daemon.stop(true);
    Ok(both)
}

fn through_testpmd() -> Result<Both, String> {
    let testpmd = Testpmd::start()?;
    // It passes on unfinished checksums, which the far kernel would refuse.
    for pod in &testpmd.pods {
        pod.net.run("ethtool -K eth0 tx off");
    }
    both(&testpmd.pods)
}

fn both(pods: &[Pod; 2]) -> Result<Both, String> {
    let quantiles = |outstanding| -> Result<Quantiles, String> {
        let mut latencies = round_trips::measure(&pods[0], &pods[1], outstanding, COUNT)?;
        latencies.sort_by(f64::total_cmp);
        Ok(Quantiles { p50: latencies[COUNT / 2], p99: latencies[COUNT * 99 / 100] })
    };
    Ok([quantiles(OUTSTANDING[0])?, quantiles(OUTSTANDING[1])?])
}
