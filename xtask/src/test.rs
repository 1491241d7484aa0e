//! `cargo xtask test`: everything, in the order in which a mistake is cheapest to find. Nothing is skipped
//! silently: what cannot run here is an error, or is named at the end.

use crate::sh::{Result, cargo, run};
use crate::steps::When::{Alone, Asked, Beside, Next};
use crate::steps::{self, Step, When};
use crate::{demo_test, package, package_test, setup, systemd, tidy, zerocopy};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Rooms whose tests run where pages are of 16 KiB.
const PAGED: &[&str] =
    &["frame::", "table::", "port::", "worker::", "rig::", "pipeline::tests", "control::budget", "counter::"];
const AARCH64: &str = "aarch64-unknown-linux-gnu";
/// What asks the kernel which pages are there. The emulator answers for it, and takes advice about memory for a hint that it need not
/// follow: these run on the machine's own processor alone.
const NOT_EMULATED: &[&str] = &[
    "pages::tests::what_is_to_be_there_is_there_and_zero",
    "pages::tests::what_is_not_used_is_not_there_and_what_is_lies_on_huge_pages",
];

/// What makes as many things as there may be, to be refused one more: of a tenth of them an emulator shows as much, in other tests, and of
/// all of them no more, in minutes.
const TOO_LARGE: &[&str] = &[
    "acl::many_tests::what_is_too_much_is_refused_with_the_figure",
    "acl::many_tests::tens_of_thousands_of_networks_have_a_port_each",
    "acl::many_tests::members_of_sets_are_put_in_piece_by_piece",
    "policy::budget_tests",
    "config::acls::tests::a_hundred_thousand_rules_in_one_request",
    "control::history::tests::two_large_states_stay_beside_each_other_and_nothing_else_does",
    "policy::tests::more_identities_than_have_numbers_are_refused_and_as_many_are_told_apart",
];

/// What could not be run here; said at the end.
static NOT_RUN: Mutex<Vec<String>> = Mutex::new(Vec::new());

const fn step(when: When, name: &'static str, run: fn() -> Result) -> Step {
    Step { name, when, run }
}

const STEPS: &[Step] = &[
    step(Next, "prerequisites", setup::test),
    step(Next, "tidy: the rules of the house", tidy::run),
    step(Next, "fmt", || run(cargo("fmt --all --check"))),
    step(Next, "fuzz targets: that what they need is there", fuzz_targets),
    step(Beside, "unit and oracle tests for aarch64, emulated", aarch64),
    step(Beside, "fetching what the emulated machine is made of", fetch),
    step(Next, "building every test", build),
    step(Next, "loom", loom),
    step(Next, "unit, oracle, simulation and fuzz regressions", unit),
    // These compile, for minutes, what is known to compile; the tests that follow wait for time.
    step(Beside, "clippy", || run(cargo("clippy --workspace --all-targets --quiet -- -D warnings"))),
    step(Beside, "docs", docs),
    step(Next, "real kernel: namespaces, veth, AF_XDP", kernel),
    step(Next, "CNI: every verb, delegated plugins, podman, containerd", containers),
    step(Next, "the Debian package: installed, used, upgraded, removed, purged", package_test::run),
    step(Next, "systemd: the package's service under a real one, started twice", service),
    step(Next, "the demo: as it is shown, left running, interrupted, failing, and refused", demo_test::run),
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

/// The shipped files of what workers share, in a package that is built for loom; all beside it is built already.
fn loom() -> Result {
    run(cargo("test --workspace --test races loom_ -- --nocapture"))
}

/// They are a workspace of their own, so nothing else would notice that it is left behind. The targets themselves are compiled and run with
/// the regressions: what remains is a fuzzer's `main`.
fn fuzz_targets() -> Result {
    let mut command = cargo("tree --locked --quiet --manifest-path fuzz/Cargo.toml");
    command.stdout(Stdio::null());
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

fn aarch64() -> Result {
    if !setup::rust_target(AARCH64) {
        // The emulator and the linker come from Debian; Rust's library for it comes from elsewhere, and a
        // machine that cannot reach that is no reason to fail. It is said, here and at the end.
        return not_run("aarch64: its standard library cannot be had here (`rustup target add` failed)");
    }
    println!("not under the emulator, which gives no pages on advice: {}", NOT_EMULATED.join(", "));
    println!("not under the emulator, for which they are too large: {}", TOO_LARGE.join(", "));
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
        .args(NOT_EMULATED.iter().chain(TOO_LARGE).flat_map(|name| ["--skip", name]))
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

/// Ahead of time; what cannot be had now is asked for again, and named then.
fn fetch() -> Result {
    match setup::zerocopy().and_then(|()| zerocopy::fetch()) {
        Ok(()) => println!("it is there"),
        Err(error) => println!("not yet: {error}"),
    }
    Ok(())
}

fn zerocopy() -> Result {
    if let Err(error) = zerocopy::fetch() {
        eprintln!("xtask: {error}");
        return not_run("zero-copy: the emulated machine's kernel cannot be had here, see above");
    }
    zerocopy::run_in_machine(zerocopy::Modes::Most)
}

/// What comes from elsewhere than the tests' own package lists may be out of reach, which is no reason to
/// fail. It is said, here and at the end.
fn not_run(what: &str) -> Result {
    let line = format!("{}{what}", steps::NOT_RUN);
    println!("{line}");
    NOT_RUN.lock().map_err(|error| error.to_string())?.push(line);
    Ok(())
}
