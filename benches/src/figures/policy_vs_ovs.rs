//! [policy-vs-ovs] Generator → switch → sink over veth, routed and policed statefully by few and by many rules, beside Open vSwitch's userspace
//! datapath with its connection tracker and as many rules, each with one core.

use super::xdp_full_forward::{named, through};
use super::{Bench, Figure, Held};
use crate::cycles::median;
use crate::matrix::device::{OVS_XDP, SWITCH};
use crate::matrix::task::{Task, Traffic};

const RULES: [u32; 3] = [10, 1_000, 10_000];
const ROUNDS: usize = 3;
/// What it is held against, at every number of rules.
pub(super) const HELD: Held = Held::at_least("times Open vSwitch", 3.0);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let (mut least, mut wrong, mut each) = (f64::INFINITY, 0, Vec::new());
    for rules in RULES {
        let task = Task::Police(rules);
        let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (switch, bad) = through(bench, named(SWITCH)?, task)?;
            let (ovs, _) = through(bench, named(OVS_XDP)?, task)?;
            ratios.push(switch / ovs);
            ours.push(switch / 1e6);
            theirs.push(ovs / 1e6);
            wrong += bad;
        }
        let ratio = median(ratios);
        each.push(format!(
            "{rules} rules {ratio:.2} times ({:.2} and {:.2} Mpps)",
            median(ours),
            median(theirs)
        ));
        least = least.min(ratio);
    }
    let detail = format!(
        "{}; {}, {ROUNDS} rounds, alternating, medians; a sixteenth of the packets looked at, {wrong} of ours not as they should be",
        each.join("; "),
        Traffic::MAIN.name()
    );
    Ok(Figure::new("policy-vs-ovs", least, HELD, detail).only_if(wrong == 0))
}
