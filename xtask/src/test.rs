//! `cargo xtask test`: everything, in the order in which a mistake is cheapest to find. Nothing is skipped
//! silently: what cannot run here is an error, or is named at the end.

use crate::sh::{Result, cargo, run};
use crate::steps::When::{Alone, Asked, Beside, Next};
use crate::steps::{self, Step, When};
use crate::{package, package_test, setup, systemd, tidy, zerocopy};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Rooms whose tests run where pages are of 16 KiB.
const PAGED: &[&str] =
    &["frame::", "table::", "port::", "worker::", "rig::", "pipeline::tests", "control::budget", "counter::"];
const AARCH64: &str = "aarch64-unknown-linux-gnu";

/// What could not be run here; said at the end.
static NOT_RUN: Mutex<Vec<String>> = Mutex::new(Vec::new());

const fn step(when: When, name: &'static str, run: fn() -> Result) -> Step {
    Step { name, when, run }
}

const STEPS: &[Step] = &[
    step(Next, "prerequisites", setup::test),
    step(Next, "tidy: the rules of the house", tidy::run),
    step(Next, "fmt", || run(cargo("fmt --all --check"))),
    step(Beside, "loom", loom),
    step(Beside, "unit and oracle tests for aarch64, emulated", aarch64),
    step(Beside, "fuzz targets: that they can be built", fuzz_targets),
    step(Next, "clippy", || run(cargo("clippy --workspace --all-targets --quiet -- -D warnings"))),
    step(Next, "docs", docs),
    step(Next, "building every test", build),
    step(Next, "unit, oracle, simulation and fuzz regressions", unit),
    step(Alone, "real kernel: namespaces, veth, AF_XDP", kernel),
    step(Alone, "CNI: every verb, delegated plugins, podman, containerd", containers),
    step(Alone, "the Debian package: installed, used, upgraded, removed, purged", package_test::run),
    step(Alone, "systemd: the package's service under a real one, started twice", service),
    step(Alone, "the demo: as it is shown, and interrupted", demo),
    step(Alone, "zero-copy in an emulated machine", zerocopy),
    step(Asked, "building what is shipped", setup::build_release),
    step(Asked, "the package for arm64, its programs started in an emulator", arm64_package),
];

/// Runs every step whose name has `only` in it, and says how long each took.
pub fn run_those(only: &str) -> Result {
    steps::run_those(STEPS, only)
}

/// What could not be run since this was asked last.
pub fn take_not_run() -> Vec<String> {
    NOT_RUN.lock().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default()
}

fn docs() -> Result {
    let mut command = cargo("doc --workspace --no-deps --quiet --document-private-items");
    // Private items are part of the documents here: their readers are those who work on them.
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    run(command)
}

/// The real-kernel tests: namespaces, veth, TAP, AF_XDP. One program of many files; the sandbox's is started again and again by itself, and
/// that of older versions takes an older program's name.
const KERNEL: &[&str] = &["kernel", "sandbox", "versions"];
/// The command line against a running daemon.
const COMMANDS: &[&str] = &["cli"];
/// The CNI plugin: every verb against the specification, podman and containerd as Debian has them.
const CONTAINERS: &[&str] = &["verbs", "delegates", "kill", "published", "podman", "containerd"];
const REGRESSIONS: &[&str] = &["simulation", "regressions", "rooms"];

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
    let mut command = cargo("test --package switch-core --lib loom_ -- --nocapture");
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", crate::sh::root().join("target/loom"));
    run(command)
}

/// They are a workspace of their own, so nothing else would notice that they are left behind.
fn fuzz_targets() -> Result {
    let mut command = cargo("check --manifest-path fuzz/Cargo.toml --quiet");
    command.env("CARGO_TARGET_DIR", crate::sh::root().join("target/fuzz"));
    run(command)
}

/// How many of them run at once: they wait for time more than for a core. With two they take half as long again.
const KERNEL_AT_ONCE: &str = "--test-threads=3";

fn kernel() -> Result {
    let mut kernel = tests(KERNEL);
    kernel.args(["--", KERNEL_AT_ONCE]);
    run(kernel)?;
    let mut generator = tests(&["second_opinion", "tap_loops"]);
    generator.args(["--", "--nocapture", "--test-threads=1"]);
    run(generator)?;
    run(tests(COMMANDS))
}

fn containers() -> Result {
    run(tests(CONTAINERS))
}

/// The first command of the README, twice: to its end, and stopped by Ctrl-C in the middle. Neither may
/// leave anything behind. It shows the programs that the tests were built with: what the release's are faster by shows nothing here, and
/// building them takes a quarter of the whole time.
fn demo() -> Result {
    let mut build = tests(&["kernel", "cli"]);
    build.args(["--no-run", "--quiet"]);
    run(build)?;
    let shown = run_demo(None)?;
    let count = |words: &str| shown.matches(words).count();
    let seen =
        [count(", every byte checked,"), count(", 0% packet loss"), count(": no answer, as it should be")];
    if seen != [4, 7, 4] || !shown.contains("everything down") {
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
    command.args(["demo", "--programs"]).arg(crate::sh::root().join("target/debug"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
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
    run(emulated("", &[]))?;
    // What asks for pages, or counts in them, again where they are of 16 KiB: packet memory and its ceiling, tables in zeroed memory,
    // the rings' mappings; and whole pipelines over them.
    run(emulated(" -p 16384", PAGED))
}

fn arm64_package() -> Result {
    if !setup::rust_target(AARCH64) {
        return not_run(
            "arm64: Rust's standard library for it cannot be had here (`rustup target add` failed)",
        );
    }
    package_test::foreign()
}

/// The libraries' tests under the emulator, which is told `how`; those whose names hold one of `names`.
fn emulated(how: &str, names: &[&str]) -> Command {
    let mut command = cargo("test --package switch-api --package switch-core --lib --quiet --target");
    // A directory of its own: cargo lets nobody else build in one that it builds in.
    command
        .args([AARCH64, "--"])
        .args(names)
        .env("CARGO_TARGET_DIR", crate::sh::root().join("target/emulated"));
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    // As the package's programs are, of which the libraries are then built once.
    command.env("RUSTFLAGS", package::STATIC);
    let runner = format!("qemu-aarch64-static{how}");
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    // With other pages than the machine's the emulator crashes where any program prints a backtrace.
    command.env("RUST_BACKTRACE", "0");
    // What differs there is alignment, pages and how memory is ordered, which few cases show as well as many. All of
    // them ran above.
    command.env("CASES_DIVISOR", "16").env("PROPTEST_CASES", "16");
    command
}

fn service() -> Result {
    match systemd::is_possible() {
        true => systemd::run(),
        false => not_run("systemd: no control groups of version 2 (cgroup2) are mounted, which it wants"),
    }
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
fn not_run(what: &str) -> Result {
    let line = format!("{}{what}", steps::NOT_RUN);
    println!("{line}");
    NOT_RUN.lock().map_err(|error| error.to_string())?.push(line);
    Ok(())
}
