//! `cargo xtask peers` builds and runs this: the switch beside its peers, as a table and as a picture.

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use switch_bench::figures::Bench;
use switch_bench::machine;
use switch_bench::matrix::result::Results;
use switch_bench::matrix::run::{Plan, run};
use switch_bench::matrix::{changes, plot, table, write};

/// Puts the switch beside what a user would run instead.
#[derive(Debug, Parser)]
struct Options {
    /// A few minutes: small frames, a thousand flows; L2, L3 and a thousand rules; three rounds.
    #[arg(long)]
    quick: bool,
    /// So many rounds, instead of three (quick) or five.
    #[arg(long)]
    rounds: Option<usize>,
    /// No search for the throughput without loss, and no latencies.
    #[arg(long)]
    no_search: bool,
    /// Only peers with this in their name, beside the switch and testpmd.
    #[arg(long)]
    only: Option<String>,
    /// Writes docs/peers.json, docs/peers.md, docs/peers.svg and what the README says of them.
    #[arg(long)]
    write: bool,
    /// Measures nothing; says again, or writes again, what docs/peers.json has.
    #[arg(long)]
    again: bool,
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
    let results = if options.again { write::kept(root)? } else { measure(options)? };
    println!("{}", table::all(&results));
    if let Some(path) = &options.svg {
        std::fs::write(path, plot::svg(&results)?).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if options.write { write::all(root, &results) } else { Ok(()) }
}

fn measure(options: &Options) -> Result<Results, String> {
    let mut plan = if options.quick { Plan::quick() } else { Plan::full() };
    plan.only.clone_from(&options.only);
    plan.rounds = options.rounds.unwrap_or(plan.rounds).max(1);
    if options.no_search {
        plan.searches = 0;
    }
    let bench = Bench { switchd: options.switchd.clone() };
    // Whatever is set up at the time comes to its end by itself, and is removed.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, plan.interrupted.clone()).map_err(|error| error.to_string())?;
    }
    let mut results = run(&bench, &plan, |text| eprintln!("{text}"));
    if plan.interrupted.load(std::sync::atomic::Ordering::Relaxed) {
        return Err("interrupted; everything was removed".into());
    }
    for change in changes::run(&bench, plan.rounds, |text| eprintln!("{text}")) {
        match change {
            Ok(change) => results.changes.push(change),
            Err(error) => results.skipped.push(["changes".into(), error]),
        }
    }
    results.machine = machine::line();
    results.command = command(options);
    Ok(results)
}

/// The command that makes it again.
fn command(options: &Options) -> String {
    let quick = if options.quick { " --quick" } else { "" };
    let only = options.only.as_ref().map(|only| format!(" --only {only}")).unwrap_or_default();
    let rounds = options.rounds.map(|rounds| format!(" --rounds {rounds}")).unwrap_or_default();
    let search = if options.no_search { " --no-search" } else { "" };
    format!("cargo xtask peers{quick}{rounds}{search}{only}")
}
