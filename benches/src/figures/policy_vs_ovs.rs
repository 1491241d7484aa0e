//! [policy-vs-ovs] The pipeline alone, routing and policing established flows by few and by many rules, beside Open vSwitch's userspace
//! datapath with its connection tracker and as many rules, to which frames are replayed from memory. Behind veth both wait for the kernel's
//! transmit (`cargo xtask peers` shows them there): what a datapath costs is seen by itself.

use super::{Bench, Figure, Held};
use crate::cycles::median;
use crate::peers::ovs_memory;
use crate::routed;
use quanta::Clock;

const RULES: [u32; 3] = [10, 1_000, 10_000];
const FLOWS: u32 = 1_000;
const ROUNDS: usize = 5;
const BATCHES: usize = 400;
/// What it is held against, at every number of rules.
pub(super) const HELD: Held = Held::at_least("times Open vSwitch", 3.0);

pub(super) fn measure(_: &Bench) -> Result<Figure, String> {
    let version = ovs_memory::version_of_it()?;
    let (clock, mut seed) = (Clock::new(), 7);
    let (mut least, mut each) = (f64::INFINITY, Vec::new());
    for rules in RULES {
        let mut bench = routed::Bench::policed(10, FLOWS as usize, rules)?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            bench.warm(&mut seed);
            let windows = (0..5).map(|_| bench.measure(&clock, BATCHES, &mut seed)).collect();
            let ours = median(windows) * clock.delta_as_nanos(0, 1_000_000) as f64 / 1e6;
            let (whole, moved) = ovs_memory::policed(FLOWS, rules)?;
            rounds.push([(whole - moved) / ours, ours, whole, moved, whole / ours]);
        }
        let [ratio, ours, whole, moved, with_moving] =
            [0, 1, 2, 3, 4].map(|n| median(rounds.iter().map(|round| round[n]).collect()));
        each.push(format!(
            "{rules} rules {ratio:.2} times ({ours:.1} ns, theirs {whole:.1}, of which moving frames {moved:.1}; {with_moving:.2} times with that)"
        ));
        least = least.min(ratio);
    }
    let detail = format!(
        "{}; 64 B, {FLOWS} established UDP flows in random order, one core, L3 + stateful policy; {version} over DPDK's net_pcap and net_null, \
         what testpmd takes between the same devices is taken off; {ROUNDS} rounds, alternating, medians",
        each.join("; ")
    );
    Ok(Figure::new("policy-vs-ovs", least, HELD, detail))
}
