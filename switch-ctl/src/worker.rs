//! `switch-ctl worker`.

use crate::output::{Output, thousands};
use clap::Subcommand;
use switch_api::{ApiError, Client, Nothing, Request, WorkerStatus};

/// What can be done with workers.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists workers, their cores, lanes and frames.
    List,
    /// Shows how long workers take to wake up.
    Wake,
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let workers: Vec<WorkerStatus> = client.call(&Request::WorkerList(Nothing {}))?;
    match verb {
        Verb::List => output.answer(&workers, |workers| list(workers, output)),
        Verb::Wake => output.answer(&workers, |workers| wake(workers, output)),
    }
    Ok(())
}

fn list(workers: &[WorkerStatus], output: &Output) -> String {
    let head =
        ["WORKER", "CORE", "TURNS", "EMPTY", "SLEEPS", "FREE", "IN RINGS", "IN FLIGHT", "LOST", "LANES"];
    let mut table = output.table(&head);
    for worker in workers {
        let frames = &worker.frames;
        table.add_row(vec![
            worker.id.to_string().into(),
            worker.core.map_or("not pinned".into(), |core| core.to_string()).into(),
            thousands(worker.turns).into(),
            thousands(worker.empty_turns).into(),
            thousands(worker.sleeps).into(),
            frames.free.to_string().into(),
            frames.in_rings.to_string().into(),
            frames.in_flight.to_string().into(),
            output.verdict(&frames.unaccounted.to_string(), frames.unaccounted == 0),
            worker.lanes.join(" ").into(),
        ]);
    }
    table.to_string()
}

fn wake(workers: &[WorkerStatus], output: &Output) -> String {
    let mut table = output.table(&["WORKER", "BELOW", "TIMES"]);
    for worker in workers {
        for (bound, count) in worker.wake_latency_us.iter().filter(|(_, count)| *count > 0) {
            table.add_row(vec![worker.id.to_string(), format!("{bound} µs"), thousands(*count)]);
        }
    }
    table.to_string()
}
