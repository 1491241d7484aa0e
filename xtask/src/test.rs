//! `cargo xtask test`: everything, in the order in which a mistake is cheapest to find. Nothing is skipped
//! silently: what cannot run here is an error, or is named at the end.

use crate::sh::{Result, cargo, run, say};
use crate::{setup, tidy, zerocopy};
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
    ("unit, oracle, simulation and fuzz regressions", unit),
    ("loom", loom),
    ("real kernel: namespaces, veth, AF_XDP", kernel),
    ("unit and oracle tests for aarch64, emulated", aarch64),
    ("zero-copy in an emulated machine", zerocopy),
];

/// Runs every step and says how long each took.
pub fn everything() -> Result {
    let mut times = Vec::new();
    for (name, step) in STEPS {
        say(name);
        let start = Instant::now();
        step().map_err(|error| format!("{name}: {error}"))?;
        times.push((name, start.elapsed()));
    }
    say("all passed");
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

fn unit() -> Result {
    run(cargo("test --workspace --lib --bins --quiet"))?;
    run(cargo("test --package switch-core --test simulation --test regressions --quiet"))
}

fn loom() -> Result {
    let mut command = cargo("test --package switch-core --lib --release loom_ -- --nocapture");
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", crate::sh::root().join("target/loom"));
    run(command)
}

fn kernel() -> Result {
    run(cargo("test --package switch-core --test traffic --test ports --test control"))?;
    let mut command =
        cargo("test --package switch-bench --test second_opinion -- --nocapture --test-threads=1");
    command.env("SWITCHD", crate::sh::root().join("target/debug/switchd"));
    run(command)
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
