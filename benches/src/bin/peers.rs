//! `cargo xtask peers` builds and runs this: the switch beside its peers, as tables and as pictures.

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use switch_bench::figures::Bench;
use switch_bench::figures::kept::Kept;
use switch_bench::machine;
use switch_bench::matrix::part::Part;
use switch_bench::matrix::result::{Results, Run};
use switch_bench::matrix::run::{self, Plan};
use switch_bench::matrix::{alone, changes, merge, plot, table, write};

#[global_allocator]
static ALLOCATOR: switch_bench::allocations::Counting = switch_bench::allocations::Counting;

/// Puts the switch beside what a user would run instead.
#[derive(Debug, Parser)]
struct Options {
    /// Minutes: small frames, a thousand flows; L2, L3 and a thousand rules; three rounds.
    #[arg(long)]
    quick: bool,
    /// So many rounds, instead of three (quick) or five.
    #[arg(long)]
    rounds: Option<usize>,
    /// No search for the throughput without loss, and no latencies.
    #[arg(long)]
    no_search: bool,
    /// Only these parts, by name or a piece of it: `L2`, `L3`, `policy`, `1000 rules`, `alone`, `changes`. Again for more.
    #[arg(long)]
    task: Vec<String>,
    /// Only loads with this in their name: `64 B, 1000 flows`, `IMIX`.
    #[arg(long)]
    load: Option<String>,
    /// Only peers with this in their name, beside the switch and testpmd.
    #[arg(long)]
    only: Option<String>,
    /// Only what docs/peers.json does not have from this machine, so that a long run goes on where it ended.
    #[arg(long)]
    missing: bool,
    /// Puts each part, when it is done, into docs/peers.json, and writes docs/peers.md, the pictures and what the README says anew.
    #[arg(long)]
    write: bool,
    /// Measures nothing; says again, or writes again, what docs/peers.json has.
    #[arg(long)]
    again: bool,
    /// Says what would be measured, and measures nothing.
    #[arg(long)]
    list: bool,
    /// Where the picture goes, when not written to docs.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// The release daemon.
    #[arg(long, default_value = "target/release/switchd")]
    switchd: PathBuf,
}

fn main() -> ExitCode {
    match go(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switch-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn go(options: &Options) -> Result<(), String> {
    let root = Path::new(".");
    let results = match options.again {
        true => {
            let kept = write::kept(root)?;
            if options.write {
                write::all(root, &Kept::load(root)?, &kept)?;
            }
            kept
        }
        false => measure(options, root)?,
    };
    println!("{}", table::all(&results));
    let Some(path) = &options.svg else { return Ok(()) };
    std::fs::write(path, plot::svg(&results)?).map_err(|error| format!("{}: {error}", path.display()))
}

/// The plan that was asked for.
fn plan(options: &Options) -> Result<Plan, String> {
    let mut plan = if options.quick { Plan::quick() } else { Plan::full() };
    plan.only.clone_from(&options.only);
    plan.rounds = options.rounds.unwrap_or(plan.rounds).max(1);
    if options.no_search {
        (plan.searches, plan.searches_beside) = (0, 0);
    }
    if !options.task.is_empty() {
        let named: Result<Vec<Vec<Part>>, String> =
            options.task.iter().map(|text| Part::named(text)).collect();
        let named = named?.concat();
        // A task that is asked for by name is measured, whether it is among the quick ones or not.
        plan.parts = Part::all().into_iter().filter(|part| named.contains(part)).collect();
    }
    if let Some(load) = &options.load {
        plan.traffic.retain(|traffic| traffic.name().contains(load.as_str()));
        if plan.traffic.is_empty() {
            return Err(format!("no load has {load:?} in its name"));
        }
    }
    Ok(plan)
}

fn measure(options: &Options, root: &Path) -> Result<Results, String> {
    let mut plan = plan(options)?;
    let bench = Bench { switchd: options.switchd.clone() };
    // Whatever is set up at the time comes to its end by itself, and is removed.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, plan.interrupted.clone()).map_err(|error| error.to_string())?;
    }
    let kept = write::kept(root)?;
    let (machine, began) = (machine::line(), machine::now());
    let (revision, command) = (machine::revision(), command(options));
    let mut run = Run { began, machine, revision, command, devices: Vec::new() };
    let (there, skipped) = run::devices(&plan, &mut run);
    let mut all = Results::default();
    // Those that are not there are said once, and beside what was measured without them.
    let mut skipped = Some(skipped);
    for part in plan.parts.clone() {
        let loads = match part {
            Part::Task(task) if options.missing => run::missing(&kept, &plan, task, &there, &run.machine),
            _ => plan.traffic.clone(),
        };
        let is_there = options.missing && !run::is_missing(&kept, &plan, part, &run.machine);
        if loads.is_empty() || is_there {
            eprintln!("{}: there already", part.name());
            continue;
        }
        if options.list {
            let loads: Vec<String> = loads.iter().map(|load| load.name()).collect();
            println!("{}: {}", part.name(), loads.join("; "));
            continue;
        }
        let (start, say) = (Instant::now(), |text: &str| eprintln!("{text}"));
        let wanted = std::mem::replace(&mut plan.traffic, loads);
        let mut came = match part {
            Part::Task(task) => run::task(&bench, &plan, task, &there, &run.began, say),
            Part::Alone => alone::run(&plan, &mut run, say),
            Part::Changes => changes::run(&bench, &plan, &run.began, say),
        };
        plan.traffic = wanted;
        if plan.interrupted.load(Relaxed) {
            return Err(format!(
                "interrupted at {}; everything was removed, parts before are kept",
                part.name()
            ));
        }
        eprintln!("{}: took {:.0} s", part.name(), start.elapsed().as_secs_f64());
        came.runs = vec![run.clone()];
        came.skipped.extend(skipped.take().unwrap_or_default());
        if options.write {
            // As it is now: another command may have written meanwhile.
            let mut kept = write::kept(root)?;
            merge::add(&mut kept, came.clone());
            write::all(root, &Kept::load(root)?, &kept)?;
        }
        merge::add(&mut all, came);
    }
    Ok(all)
}

/// The command that makes it again.
fn command(options: &Options) -> String {
    let mut words = vec!["cargo xtask peers".to_owned()];
    let mut word = |is_there: bool, text: String| is_there.then(|| words.push(text));
    word(options.quick, "--quick".into());
    if let Some(rounds) = options.rounds {
        word(true, format!("--rounds {rounds}"));
    }
    word(options.no_search, "--no-search".into());
    for task in &options.task {
        word(true, format!("--task '{task}'"));
    }
    for (name, value) in [("load", &options.load), ("only", &options.only)] {
        if let Some(value) = value {
            word(true, format!("--{name} '{value}'"));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(words: &str) -> Result<Plan, String> {
        let words = std::iter::once("peers").chain(words.split_whitespace());
        plan(&Options::try_parse_from(words).map_err(|error| error.to_string())?)
    }

    #[test]
    fn what_is_asked_for_is_planned_and_what_is_not_there_is_refused() {
        let sizes = |words: &str| planned(words).map(|plan| (plan.parts.len(), plan.traffic.len()));
        assert_eq!(sizes(""), Ok((7, 12)));
        assert_eq!(sizes("--quick"), Ok((5, 1)));
        assert_eq!(sizes("--task L3 --task changes --load IMIX"), Ok((2, 3)));
        assert_eq!(sizes("--quick --task policy --missing --write"), Ok((3, 1)));
        assert!(sizes("--task L4").is_err() && sizes("--load jumbo").is_err() && sizes("--tusk").is_err());
        let words = "--quick --rounds 2 --no-search --task L2 --only OVS";
        let again = Options::try_parse_from(std::iter::once("peers").chain(words.split_whitespace()));
        let again = again.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            command(&again),
            "cargo xtask peers --quick --rounds 2 --no-search --task 'L2' --only 'OVS'"
        );
    }
}
