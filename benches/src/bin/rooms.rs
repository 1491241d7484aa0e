//! `cargo xtask bench` builds and runs this: each room by itself.

use clap::Parser;
use criterion::{Criterion, Throughput};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use switch_bench::rooms::baseline::{Baseline, Taken};
use switch_bench::rooms::{Case, all, counted, instructions};
use switch_bench::{allocations, machine};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Where what was measured before is kept.
const BASELINE: &str = "benches/baseline.json";
/// Runs before allocations are counted: what is filled once is filled.
const WARM_UP: usize = 64;
/// Runs of which allocations are counted.
const COUNTED: usize = 64;

/// Measures each room by itself: time by criterion, allocations (none on the packet path), instructions by callgrind.
///
/// Groups: wire/*, table/{fdb,flow,lpm,acl}/*, pipeline/{bridged,routed,policy,nat,new-flow,denied}/*, api/*.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// Only cases with this in their name.
    #[arg(default_value = "")]
    pattern: String,
    /// Shows what was kept before beside it; fails if instructions grew beyond the bar.
    #[arg(long)]
    compare: bool,
    /// Keeps what is measured, to be compared with.
    #[arg(long)]
    save: bool,
    /// Says what there is.
    #[arg(long)]
    list: bool,
    /// No times: allocations and instructions, which no other work on the machine changes.
    #[arg(long)]
    no_time: bool,
    /// No instructions, which take a while.
    #[arg(long)]
    no_instructions: bool,
    /// Every case a few times, its results and allocations checked, nothing timed: for tests.
    #[arg(long)]
    smoke: bool,
    /// Runs one case so many times and does nothing else: for callgrind and profilers.
    #[arg(long, hide = true)]
    instructions: Option<String>,
    /// So many times.
    #[arg(long, hide = true, default_value_t = 1)]
    runs: u64,
}

fn main() -> ExitCode {
    match go(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switch-rooms: {error}");
            ExitCode::FAILURE
        }
    }
}

fn go(options: &Options) -> Result<(), String> {
    let all = all();
    if let Some(id) = &options.instructions {
        let case = all.iter().find(|case| case.id == id).ok_or_else(|| format!("there is no {id}"))?;
        return spin(case, options.runs);
    }
    let cases: Vec<&Case> = all.iter().filter(|case| case.id.contains(&options.pattern)).collect();
    if cases.is_empty() {
        return Err(format!("nothing has {:?} in its name; --list says what there is", options.pattern));
    }
    if options.list {
        cases.iter().for_each(|case| println!("{}", case.id));
        return Ok(());
    }
    if options.smoke {
        return cases.iter().try_for_each(|case| counted_allocations(case).map(drop));
    }
    measure(options, &cases)
}

fn spin(case: &Case, runs: u64) -> Result<(), String> {
    let mut work = (case.make)();
    for run in 0..instructions::WARM_UP + runs {
        work.prepare();
        match run < instructions::WARM_UP {
            true => work.run(),
            false => counted(work.as_mut()),
        }
        work.settle();
    }
    Ok(())
}

fn measure(options: &Options, cases: &[&Case]) -> Result<(), String> {
    let before = options.compare.then(|| Baseline::load(Path::new(BASELINE))).transpose()?;
    let mut now = Baseline { machine: machine::line(), compiler: compiler(), ..Baseline::default() };
    println!("machine: {}; {}", now.machine, now.compiler);
    for case in cases {
        let mut taken = Taken { allocations: counted_allocations(case)?, ..Taken::default() };
        if !options.no_time {
            taken.ns = Some(timed(case)?);
        }
        if !options.no_instructions {
            let program = std::env::current_exe().map_err(|error| error.to_string())?;
            taken.instructions = Some(instructions::count(&program, case)?);
        }
        say(case, &taken);
        now.cases.insert(case.id.into(), taken);
    }
    let mut grown = Vec::new();
    if let Some(before) = &before {
        let (text, more) = Baseline::compare(before, &now);
        println!("\n{text}");
        grown = more;
    }
    if options.save {
        let known: Vec<&str> = all().iter().map(|case| case.id).collect();
        now.save(Path::new(BASELINE), &known)?;
    }
    if grown.is_empty() { Ok(()) } else { Err(grown.join("\n")) }
}

fn say(case: &Case, taken: &Taken) {
    let cell = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
    println!(
        "{:<42} {:>10} ns an item, {:>10} instructions, {} allocations",
        case.id,
        cell(taken.ns),
        cell(taken.instructions),
        taken.allocations
    );
}

/// Allocations of [`COUNTED`] runs; an error if packets wait for them.
fn counted_allocations(case: &Case) -> Result<u64, String> {
    let (mut work, mut count) = ((case.make)(), 0);
    for run in 0..WARM_UP + COUNTED {
        work.prepare();
        let before = allocations::count();
        work.run();
        count += if run >= WARM_UP { allocations::count() - before } else { 0 };
        work.settle();
    }
    if case.is_on_path && count > 0 {
        return Err(format!("{} allocates on the packet path: {count} times in {COUNTED} runs", case.id));
    }
    Ok(count / COUNTED as u64)
}

/// Nanoseconds an item: the median of criterion's samples, kept where criterion keeps them.
fn timed(case: &Case) -> Result<f64, String> {
    let directory = PathBuf::from("target/criterion");
    let mut criterion = Criterion::default()
        .output_directory(&directory)
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(900));
    let mut work = (case.make)();
    let mut group = criterion.benchmark_group(case.id.replace('/', "-"));
    group.throughput(Throughput::Elements(case.items));
    group.bench_function("run", |bencher| {
        bencher.iter_custom(|runs| {
            let mut taken = Duration::ZERO;
            for _ in 0..runs {
                work.prepare();
                let start = Instant::now();
                work.run();
                taken += start.elapsed();
                work.settle();
            }
            taken
        });
    });
    group.finish();
    let estimates = directory.join(case.id.replace('/', "-")).join("run/new/estimates.json");
    let text =
        std::fs::read_to_string(&estimates).map_err(|error| format!("{}: {error}", estimates.display()))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let ns = value["median"]["point_estimate"].as_f64().ok_or("criterion told no median")?;
    Ok(ns / case.items as f64)
}

fn compiler() -> String {
    let output = std::process::Command::new("rustc").arg("--version").output();
    output.map_or_else(
        |_| "an unknown compiler".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().into(),
    )
}
