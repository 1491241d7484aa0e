//! [blocked-time] For how long the switch is as if it stood still while it is changed: packets lost of a steady flood that is bridged,
//! routed and policed, while routes, policies and ports change, in turn with the same flood while nothing does.

use super::{Bench, Figure, Held};
use crate::cycles::median;
use crate::flood::Load;
use crate::matrix::churn::{Churn, Rates, spare_pod};
use crate::matrix::losses::Losses;
use crate::matrix::switch;
use crate::matrix::task::{Task, Traffic};
use std::time::Duration;
use switch_lab::Node;

const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(4);
/// Packets a second: a tenth of what a veth carries, so that what is lost is lost by a change and not by load.
const RATE_PPS: u64 = 100_000;
/// What it is held against.
pub(super) const HELD: Held = Held::at_most("packets lost", 0.0);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let rig = switch::xdp(bench, Task::Police(1_000))?;
    let load = Load { rate_pps: RATE_PPS, rests: true, ..Traffic::MAIN.load(rig.gateway, WINDOW) };
    let mut path = rig.path()?;
    // So that flows and neighbours are known.
    path.run(load)?;
    let (mut changed, mut calm, mut wrong, mut rates) = (Vec::new(), Vec::new(), 0, Vec::<Rates>::new());
    let spares = Node::new();
    let before = Losses::of(&rig)?;
    for _ in 0..ROUNDS {
        let quiet = path.run(load)?.made_at(RATE_PPS as f64)?;
        let churn = Churn::start(&rig, spare_pod(&spares))?;
        let flooded = path.run(load);
        rates.push(churn.finish()?);
        let flooded = flooded?.made_at(RATE_PPS as f64)?;
        changed.push(flooded.lost as f64);
        calm.push(quiet.lost as f64);
        wrong += flooded.wrong + quiet.wrong;
    }
    drop(path);
    let places = Losses::of(&rig)?.since(&before);
    rig.daemon().ok_or("no daemon")?.assert_conserved();
    let middle = |of: fn(&Rates) -> f64| median(rates.iter().map(of).collect());
    let lost = median(changed.clone());
    let detail = format!(
        "{:.0} routes, {:.0} blocks of policies and {:.0} tap ports changed a second beside {RATE_PPS} packets a second (L2 + L3 + stateful \
         policy, over veth, default settings); lost in each round {changed:?}, in rounds without changes {calm:?}; blocked for \
         {:.0} µs; all of it lost at: {places}; {wrong} packets not as they should be; {ROUNDS} rounds of {:.1} s in turn, median",
        middle(|rates| rates.routes),
        middle(|rates| rates.sets),
        middle(|rates| rates.ports),
        lost / RATE_PPS as f64 * 1e6,
        WINDOW.as_secs_f64()
    );
    let enough = rates.iter().all(|rates| rates.routes > 0.0 && rates.sets > 0.0 && rates.ports > 0.0);
    Ok(Figure::new("blocked-time", lost, HELD, detail).only_if(wrong == 0 && enough))
}
