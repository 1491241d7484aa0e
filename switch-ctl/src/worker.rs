//! `switch-ctl worker`.

use crate::output::{Output, thousands};
use clap::{Args, Subcommand};
use switch_api::{ApiError, Client, LaneStatus, Nothing, Rebalance, Rebalanced, Request, WorkerStatus};

/// What can be done with workers.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists workers, their cores, lanes and frames.
    #[command(after_help = "Example:\n  switch-ctl worker list")]
    List,
    /// Shows what each lane (a queue of a port) costs its worker, averaged over the last seconds.
    #[command(after_help = "Example:\n  switch-ctl worker lanes")]
    Lanes,
    /// Moves lanes from busy workers to others. No frame is lost or overtaken by it; ports with `--worker` stay.
    #[command(after_help = "\
Examples:
  switch-ctl worker rebalance --dry-run
  switch-ctl worker rebalance")]
    Rebalance(Balance),
    /// Shows how long workers take to wake up when another worker or a change rings for them.
    #[command(after_help = "Example:\n  switch-ctl worker wake")]
    Wake,
}

/// How to even out.
#[derive(Debug, Args)]
pub struct Balance {
    /// Only say what would be moved.
    #[arg(long)]
    dry_run: bool,
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    if let Verb::Rebalance(Balance { dry_run }) = *verb {
        let done: Rebalanced = client.call(&Request::WorkerRebalance(Rebalance { dry_run }))?;
        output.answer(&done, rebalanced);
        return Ok(());
    }
    let workers: Vec<WorkerStatus> = client.call(&Request::WorkerList(Nothing {}))?;
    match verb {
        Verb::List => output.answer(&workers, |workers| list(workers, output)),
        Verb::Lanes => output.answer(&workers, |workers| lanes(workers, output)),
        Verb::Wake | Verb::Rebalance(_) => output.answer(&workers, |workers| wake(workers, output)),
    }
    Ok(())
}

fn rebalanced(done: &Rebalanced) -> String {
    let shares = |shares: &[f64]| -> String {
        let shares: Vec<_> = shares.iter().map(|share| format!("{share:.1} %")).collect();
        shares.join(", ")
    };
    if done.moves.is_empty() {
        return format!(
            "nothing to move: the workers' lanes take {} of their cores",
            shares(&done.before_percent)
        );
    }
    let verb = if done.dry_run { "would move" } else { "moved" };
    let mut lines: Vec<_> = done
        .moves
        .iter()
        .map(|lane| {
            let (port, queue, from, to) = (&lane.port, lane.queue, lane.from, lane.to);
            format!("{verb} {port}/{queue} from worker {from} to {to}: {:.1} % of a core", lane.busy_percent)
        })
        .collect();
    let (before, after) = (shares(&done.before_percent), shares(&done.after_percent));
    lines.push(format!("the workers' lanes take {before} of their cores; then {after}"));
    lines.join("\n")
}

fn lanes(workers: &[WorkerStatus], output: &Output) -> String {
    let mut table =
        output.table(&["WORKER", "LANE", "BUSY %", "FRAMES/S", "NS/FRAME", "FRAMES IN", "FRAMES OUT"]);
    for worker in workers {
        for lane in &worker.lanes {
            table.add_row(vec![
                worker.id.to_string(),
                format!("{}/{}", lane.port, lane.queue),
                format!("{:.1}", lane.busy_percent),
                thousands(lane.frames_per_s as u64),
                thousands(lane.ns_per_frame as u64),
                thousands(lane.rx_packets),
                thousands(lane.tx_packets),
            ]);
        }
    }
    table.to_string()
}

fn list(workers: &[WorkerStatus], output: &Output) -> String {
    let head = [
        "WORKER",
        "CORE",
        "TURNS",
        "EMPTY",
        "NAPS",
        "SLEEPS",
        "FREE",
        "IN RINGS",
        "IN FLIGHT",
        "LOST",
        "BUSY %",
        "LANES",
    ];
    let mut table = output.table(&head);
    for worker in workers {
        let frames = &worker.frames;
        table.add_row(vec![
            worker.id.to_string().into(),
            worker.core.map_or("not pinned".into(), |core| core.to_string()).into(),
            thousands(worker.turns).into(),
            thousands(worker.empty_turns).into(),
            thousands(worker.naps).into(),
            thousands(worker.sleeps).into(),
            frames.free.to_string().into(),
            frames.in_rings.to_string().into(),
            frames.in_flight.to_string().into(),
            output.verdict(&frames.unaccounted.to_string(), frames.unaccounted == 0),
            format!("{:.1}", worker.busy_percent()).into(),
            worker.lanes.iter().map(lane_and_share).collect::<Vec<_>>().join(" ").into(),
        ]);
    }
    table.to_string()
}

/// `web/0 12.5%`: what it takes of the worker's core.
fn lane_and_share(lane: &LaneStatus) -> String {
    format!("{}/{} {:.1}%", lane.port, lane.queue, lane.busy_percent)
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
