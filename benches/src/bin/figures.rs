//! `cargo xtask figures` builds and runs this: measures the figures that are asked for.

use clap::Parser;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use switch_bench::figures::kept::{Kept, One, PICTURED};
use switch_bench::figures::{ALL, Bench, Entry, Figure, l2_pipeline, line, policy};
use switch_bench::matrix::write;

#[global_allocator]
static ALLOCATOR: switch_bench::allocations::Counting = switch_bench::allocations::Counting;

/// Measures figures; all of them, unless ids are given.
#[derive(Debug, Parser)]
struct Options {
    /// Ids.
    ids: Vec<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Those that the README's picture shows.
    #[arg(long)]
    pictured: bool,
    /// Keeps what is measured in docs/figures.json, and draws the README's picture anew.
    #[arg(long)]
    write: bool,
    /// The release daemon.
    #[arg(long, default_value = "target/release/switchd")]
    switchd: PathBuf,
    /// Runs so many batches through the pipeline and does nothing else, for callgrind or a profiler.
    #[arg(long, hide = true)]
    spin: Option<usize>,
    /// What they are.
    #[arg(long, hide = true, value_enum, default_value_t)]
    of: Spin,
    /// Of so many flows.
    #[arg(long, hide = true, default_value_t = SPIN_FLOWS)]
    flows: usize,
}

/// Which packets go through the pipeline.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Spin {
    /// Bridged ones.
    #[default]
    L2,
    /// Routed ones.
    L3,
    /// Those of flows that a policy admitted.
    Policy,
    /// Segments of connections that one admitted.
    PolicyTcp,
    /// Routed ones of such flows.
    RoutedPolicy,
    /// Routed ones that are translated, and their answers.
    Nat,
}

impl Spin {
    fn run(self, batches: usize, flows: usize) -> Result<(), String> {
        match self {
            Self::L2 => switch_bench::pipeline::Bench::new(l2_pipeline::PAIRS).spin(batches),
            Self::L3 => switch_bench::routed::Bench::new(10, flows).spin(batches),
            Self::RoutedPolicy => {
                switch_bench::routed::Bench::policed(10, flows, SPIN_RULES)?.spin(batches);
            }
            Self::Nat => switch_bench::routed::Bench::masked(10, flows)?.spin_both(batches),
            Self::Policy => policy::few_rules(flows as u32)?.spin(flows as u32, batches),
            Self::PolicyTcp => policy::connected(flows as u32)?.spin(flows as u32, batches),
        }
        Ok(())
    }
}

/// Flows of what is spun, unless said otherwise.
const SPIN_FLOWS: usize = 1000;
/// Rules of what is spun with policies.
const SPIN_RULES: u32 = 10;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(batches) = options.spin {
        return match options.of.run(batches, options.flows) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let unknown = options.ids.iter().find(|id| !ALL.iter().any(|(known, ..)| known == id));
    if let Some(id) = unknown {
        let known: Vec<_> = ALL.iter().map(|(id, ..)| *id).collect();
        eprintln!("there is no figure {id}; there are: {}", known.join(", "));
        return ExitCode::from(2);
    }
    let is_pictured = |id: &str| options.pictured && PICTURED.contains(&id);
    let is_all = options.ids.is_empty() && !options.pictured;
    let wanted = |id: &str| is_all || is_pictured(id) || options.ids.iter().any(|wanted| wanted == id);
    if !options.json {
        println!("machine: {}", switch_bench::machine::line());
    }
    let bench = Bench { switchd: options.switchd.clone() };
    let all_hold = ALL.iter().filter(|(id, ..)| wanted(id)).map(|entry| show(entry, &bench, &options));
    if all_hold.fold(true, |all, one| all & one) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Keeps it at once: what comes after it may take long, and be ended.
fn keep(entry: &Entry, measured: &Result<Figure, String>) -> Result<(), String> {
    let root = Path::new(".");
    let mut kept = Kept::load(root)?;
    kept.put(One::now(entry, measured));
    kept.save(root)?;
    write::picture(root, &kept, &write::kept(root)?)
}

/// What somebody said who panicked.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it could not be set up, see above").to_owned()
}

fn show(entry: &Entry, bench: &Bench, options: &Options) -> bool {
    let (id, what, held, measure) = entry;
    // Cables and processes are set up by a laboratory that panics where it cannot go on: the figures after this one are measured.
    let measured = catch_unwind(|| measure(bench)).unwrap_or_else(|panic| Err(said(&*panic)));
    if options.write
        && let Err(error) = keep(entry, &measured)
    {
        eprintln!("switch-figures: {error}");
        return false;
    }
    if options.json {
        println!("{}", line(id, *held, &measured));
        return measured.is_ok_and(|figure| figure.ok);
    }
    match measured {
        Ok(figure) => {
            let verdict = if figure.ok { "holds" } else { "DOES NOT HOLD" };
            println!("\n[{id}] {what}");
            println!("  {:.2} {} (bar {}): {verdict}", figure.value, figure.unit, figure.bar);
            println!("  {}", figure.detail);
            println!("  again: cargo xtask figures {id}");
            figure.ok
        }
        Err(error) => {
            println!("\n[{id}] {what}\n  could not be measured ({}, bar {}): {error}", held.unit, held.bar);
            false
        }
    }
}
