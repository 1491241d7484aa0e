//! `cargo xtask test`: everything, in the order in which a mistake is cheapest to find. Nothing is skipped
//! silently: what cannot run here is an error, or is named at the end.

use crate::sh::{Result, cargo, run, say};
use crate::{package_test, setup, tidy, zerocopy};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

const AARCH64: &str = "aarch64-unknown-linux-gnu";

/// What could not be run here; said at the end.
static NOT_RUN: Mutex<Vec<&str>> = Mutex::new(Vec::new());

/// A step's name and what it does.
type Step = (&'static str, fn() -> Result);

const STEPS: &[Step] = &[
    ("prerequisites", setup::test),
    ("tidy: the rules of the house", tidy::run),
    ("fmt", || run(cargo("fmt --all --check"))),
    ("clippy", || run(cargo("clippy --workspace --all-targets --quiet -- -D warnings"))),
    ("docs", docs),
    ("building every test", build),
    ("unit, oracle, simulation and fuzz regressions", unit),
    ("loom", loom),
    ("real kernel: namespaces, veth, AF_XDP", kernel),
    ("CNI: every verb, delegated plugins, podman, containerd", containers),
    ("the Debian package: installed, used, upgraded, removed, purged", package_test::run),
    ("the demo: as it is shown, and interrupted", demo),
    ("unit and oracle tests for aarch64, emulated", aarch64),
    ("zero-copy in an emulated machine", zerocopy),
];

/// Runs every step whose name has `only` in it, and says how long each took.
pub fn run_those(only: &str) -> Result {
    let wanted: Vec<&Step> = STEPS.iter().filter(|(name, _)| name.contains(only)).collect();
    if wanted.is_empty() {
        let names: Vec<_> = STEPS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "no part of the tests has {only:?} in its name; there are:\n  {}",
            names.join("\n  ")
        ));
    }
    let mut times = Vec::new();
    for (name, step) in &wanted {
        say(name);
        let start = Instant::now();
        step().map_err(|error| format!("{name}: {error}"))?;
        times.push((name, start.elapsed()));
    }
    say(if wanted.len() == STEPS.len() { "all passed" } else { "these passed, the rest was not run" });
    for (name, time) in times {
        println!("{:>6.1} s  {name}", time.as_secs_f64());
    }
    for what in NOT_RUN.lock().map_err(|error| error.to_string())?.iter() {
        println!("NOT RUN  {what}");
    }
    Ok(())
}

fn docs() -> Result {
    let mut command = cargo("doc --workspace --no-deps --quiet --document-private-items");
    // Private items are part of the documents here: their readers are those who work on them.
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    run(command)
}

/// The real-kernel tests: namespaces, veth, TAP, AF_XDP.
const KERNEL: &[&str] = &[
    "traffic", "routing", "linux", "uplink", "ports", "tap", "control", "trouble", "segments", "joined",
    "ipam", "queues", "memory", "mirror", "bgp", "policy", "service", "sandbox", "outside", "frames", "xdp",
    "workers", "clients",
];
/// The command line against a running daemon.
const COMMANDS: &[&str] = &["operate", "commands", "filter", "metrics", "declare", "install", "json"];
/// The CNI plugin: every verb against the specification, podman and containerd as Debian has them.
const CONTAINERS: &[&str] = &["verbs", "delegates", "kill", "published", "podman", "containerd"];
const REGRESSIONS: &[&str] = &["simulation", "regressions"];

/// The tests of these names. Always of the whole workspace: cargo builds a library anew for each set of packages that asks
/// for other features of it, and that took longer than all the tests.
pub fn tests(names: &[&str]) -> Command {
    let mut command = cargo("test --workspace");
    for name in names {
        command.args(["--test", name]);
    }
    // The daemon is built with switch-core's own tests.
    command.env("SWITCHD", crate::sh::root().join("target/debug/switchd"));
    command
}

fn build() -> Result {
    run(cargo("test --workspace --lib --bins --tests --no-run --quiet"))
}

fn unit() -> Result {
    run(cargo("test --workspace --lib --bins --quiet"))?;
    run(tests(REGRESSIONS))
}

fn loom() -> Result {
    let mut command = cargo("test --package switch-core --lib --release loom_ -- --nocapture");
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", crate::sh::root().join("target/loom"));
    // It takes longer to compile than to run.
    command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    run(command)
}

fn kernel() -> Result {
    run(tests(KERNEL))?;
    let mut generator = tests(&["second_opinion"]);
    generator.args(["--", "--nocapture", "--test-threads=1"]);
    run(generator)?;
    run(tests(COMMANDS))
}

fn containers() -> Result {
    run(tests(CONTAINERS))
}

/// The first command of the README, twice: to its end, and stopped by Ctrl-C in the middle. Neither may
/// leave anything behind.
fn demo() -> Result {
    setup::build_release()?;
    let shown = run_demo(None)?;
    let pods = shown.matches(", every byte checked,").count();
    if pods != 4 || !shown.contains("everything down") {
        return Err(format!("the demo did not show what it should:\n{shown}"));
    }
    let interrupted = run_demo(Some("in one VLAN and reach each other"))?;
    if interrupted.contains("everything down") {
        return Err(format!("the demo was not interrupted:\n{interrupted}"));
    }
    println!("shown, and interrupted: both left nothing behind");
    Ok(())
}

/// What the demo says, to its end or until it says `stop_at`. An error if it leaves a namespace.
fn run_demo(stop_at: Option<&str>) -> Result<String> {
    let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
    // A process group of its own: a terminal's Ctrl-C goes to all of it.
    command.arg("demo").stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let group = Pid::from_child(&child);
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
        let line = line.map_err(|error| error.to_string())?;
        if stop_at.is_some_and(|words| line.contains(words)) {
            kill_process_group(group, Signal::INT).map_err(|error| error.to_string())?;
        }
        said += &line;
        said.push('\n');
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let left = switch_lab::net::run("ip", &["netns", "list"]);
    let name = format!("sw{}-", group.as_raw_nonzero());
    if left.lines().any(|line| line.starts_with(&name)) {
        return Err(format!("the demo left namespaces:\n{left}"));
    }
    let as_expected = match stop_at {
        None => output.status.success(),
        Some(_) => !output.status.success() && complaint.contains("interrupted; everything was removed"),
    };
    if as_expected { Ok(said) } else { Err(format!("the demo said:\n{said}{complaint}")) }
}

fn aarch64() -> Result {
    if !setup::rust_target(AARCH64) {
        // The emulator and the linker come from Debian; Rust's library for it comes from elsewhere, and a
        // machine that cannot reach that is no reason to fail. It is said, here and at the end.
        return not_run("aarch64: its standard library cannot be had here (`rustup target add` failed)");
    }
    let mut command = cargo("test --package switch-api --package switch-core --lib --quiet --target");
    command.arg(AARCH64).env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc").env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
        "qemu-aarch64-static -L /usr/aarch64-linux-gnu",
    );
    run(command)
}

fn zerocopy() -> Result {
    if let Err(error) = zerocopy::fetch() {
        eprintln!("xtask: {error}");
        return not_run("zero-copy: the emulated machine's kernel cannot be had here, see above");
    }
    zerocopy::run_in_machine()
}

/// What comes from elsewhere than the tests' own package lists may be out of reach, which is no reason to
/// fail. It is said, here and at the end.
fn not_run(what: &'static str) -> Result {
    println!("NOT RUN  {what}");
    NOT_RUN.lock().map_err(|error| error.to_string())?.push(what);
    Ok(())
}
