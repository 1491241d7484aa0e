//! [tap-io] What `io_uring` would bring a tap port: frames moved between two TAPs by a loop that does nothing else, with a system
//! call a batch, or with reads that go on by themselves, beside the same loop with a system call a frame, which is how the switch
//! serves a TAP (ADR 0005).

use super::{Bench, Figure, Held};
use crate::cycles::median;
use crate::flood::{Load, measure_plain};
use crate::iperf;
use crate::tap_loops::{Engine, Joined};
use std::time::Duration;
use switch_lab::wait_until;

const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(1);
/// Frame lengths without the check sequence.
const LENGTHS: [usize; 2] = [60, 1514];
/// What it is held against: more, and read and write are the wrong choice.
pub(super) const HELD: Held = Held::at_most("times read and write", 1.1);

/// Of one engine: Mpps of each length, Gb/s of a TCP stream.
type Carried = [f64; 3];

pub(super) fn measure(_: &Bench) -> Result<Figure, String> {
    let mut rounds: Vec<[Carried; 3]> = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        rounds.push([carried(Engine::Ring)?, carried(Engine::Shots)?, carried(Engine::Calls)?]);
    }
    let middle = |of: &dyn Fn(&[Carried; 3]) -> f64| median(rounds.iter().map(of).collect());
    let ratio = |engine: usize, n: usize| middle(&|round| round[engine][n] / round[2][n]);
    let said = |n: usize| {
        let [ring, shots, calls] = [0, 1, 2].map(|engine| middle(&|round| round[engine][n]));
        let [by_ring, by_shots] = [0, 1].map(|engine| ratio(engine, n));
        format!("{ring:.2} and {shots:.2} against {calls:.2} = {by_ring:.2} and {by_shots:.2}")
    };
    let most = (0..2).flat_map(|engine| (0..3).map(move |n| (engine, n)));
    let most = most.map(|(engine, n)| ratio(engine, n)).fold(0.0, f64::max);
    let detail = format!(
        "a loop on core 1 that moves frames between two TAPs with all offloads, by io_uring (a system call a batch; and with reads that are \
         asked for once) against read and write (a call a frame): 64 bytes {} Mpps; 1 514 bytes {} Mpps; a TCP stream {} Gb/s; sender and \
         receiver on core 0; the most is held against the bar; {ROUNDS} rounds in turn, medians",
        said(0),
        said(1),
        said(2)
    );
    Ok(Figure::new("tap-io", most, HELD, detail))
}

fn carried(engine: Engine) -> Result<Carried, String> {
    let joined = Joined::start(engine)?;
    let [from, to] = &joined.pods;
    wait_until("the loop moves frames", iperf::PATIENCE, || from.reaches(&to.ip));
    let flood = |len| {
        let load = Load { len: Some(len), window: WINDOW, ..Load::default() };
        measure_plain(from, to, false, load).map(|flooded| flooded.received_pps / 1e6)
    };
    let carried =
        [flood(LENGTHS[0])?, flood(LENGTHS[1])?, iperf::run(&joined.pods, &Default::default())?.gbps];
    joined.end()?;
    Ok(carried)
}
