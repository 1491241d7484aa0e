//! What a person working on the switch runs: `cargo xtask demo`, `cargo xtask test`, and the rest.

mod demo;
mod demo_test;
mod fuzz;
mod mistakes;
mod package;
mod package_test;
mod setup;
mod sh;
mod steps;
mod systemd;
mod test;
mod tidy;
mod wire;
mod zerocopy;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Runs, tests and measures the switch")]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start the switch on namespaces of its own, send real traffic through it, show what it did, clean up.
    Demo {
        /// Leave everything running and say how to talk to it.
        #[arg(long)]
        keep: bool,
        /// Show the programs that are in this directory, instead of building the release's.
        #[arg(long)]
        programs: Option<PathBuf>,
    },
    /// Run every test there is.
    Test {
        /// Only the parts whose name has this in it: `loom`, `kernel`, `CNI`, `package`, `systemd`, ...
        #[arg(default_value = "")]
        only: String,
    },
    /// Install what tests and figures need, or name it.
    Setup,
    /// Measure the figures, all or those named. `--json` prints one object a line.
    Figures {
        /// Ids, `--json`, and `--write` (docs/figures.json and the README's picture).
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Put the switch beside what a user would run instead: a table, and a picture. `--quick` takes minutes, all of it hours, in as many parts as
    /// one likes.
    Peers {
        /// `--quick`, `--task PART`, `--load LOAD`, `--only NAME`, `--missing`, `--write` (docs/peers.* and the README), `--again` (no
        /// measuring), `--list`; `cargo xtask peers --help` says more.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Measure what the README's picture shows, and draw it: its figures, and of the peers what is missing of `peers --quick`.
    Graph,
    /// Measure each room by itself: time, allocations, instructions. `cargo xtask bench --help` says more.
    Bench {
        /// What names have in them, `--compare`, `--save`, `--list`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Run each fuzz target for a while. Needs cargo-fuzz and a nightly toolchain.
    Fuzz {
        /// Seconds for each.
        #[arg(default_value_t = fuzz::SECONDS_DEFAULT)]
        seconds: u32,
    },
    /// Check the rules of the house.
    Tidy,
    /// Boot an emulated machine whose network driver does zero-copy, and test the switch in it.
    Zerocopy,
    /// Build the programs, static, and a Debian package of them.
    Package {
        /// For another processor than this machine's: `amd64` or `arm64`.
        #[arg(long)]
        architecture: Option<String>,
    },
    /// Put mistakes into a copy of the source, one at a time, and check that the tests notice.
    Mistakes {
        /// Only those whose description or file has this in it.
        #[arg(default_value = "")]
        only: String,
    },
}

fn main() -> ExitCode {
    let result = match Options::parse().task {
        Task::Demo { keep, programs } => demo::run(keep, programs),
        Task::Test { only } => test::run_those(&only),
        Task::Setup => setup::everything(),
        Task::Figures { words } => figures(&words),
        Task::Peers { words } => peers(&words),
        Task::Graph => graph(),
        Task::Bench { words } => bench(&words),
        Task::Fuzz { seconds } => fuzz::run_all(seconds),
        Task::Tidy => tidy::run(),
        Task::Zerocopy => zerocopy::run_in_machine(zerocopy::Modes::All),
        Task::Package { architecture } => package::release(architecture.as_deref()),
        Task::Mistakes { only } => mistakes::run(&only),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds and runs the figures; what they print is not mixed with ours.
fn figures(words: &[String]) -> sh::Result {
    setup::figures()?;
    sh::run(sh::cargo(
        "build --release --quiet --package switch-bench --package switch-core --package switch-cni",
    ))?;
    let mut command = sh::cargo("run --release --quiet --package switch-bench --bin switch-figures --");
    command.args(words);
    sh::run(command).map_err(|_| "a figure does not hold, see above".into())
}

/// Builds and runs the switch beside its peers.
fn peers(words: &[String]) -> sh::Result {
    setup::figures()?;
    sh::run(sh::cargo(
        "build --release --quiet --package switch-bench --package switch-core --package switch-cni",
    ))?;
    let mut command = sh::cargo("run --release --quiet --package switch-bench --bin switch-peers --");
    command.args(words);
    sh::run(command).map_err(|_| "the peers could not be measured, see above".into())
}

/// The README's picture. A figure that does not hold is shown as it is, and keeps nothing else from it.
fn graph() -> sh::Result {
    if let Err(error) = figures(&["--pictured", "--write"].map(str::to_owned)) {
        eprintln!("xtask: {error}");
    }
    peers(&["--quick", "--missing", "--write"].map(str::to_owned))
}

/// Builds and runs the benches of each room.
fn bench(words: &[String]) -> sh::Result {
    setup::bench()?;
    let mut command = sh::cargo("run --release --quiet --package switch-bench --bin switch-rooms --");
    command.args(words);
    sh::run(command).map_err(|_| "see above".into())
}
