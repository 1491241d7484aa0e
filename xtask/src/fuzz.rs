//! `cargo xtask fuzz`: each fuzz target for a while, beginning with what was found before. What it finds is to be kept where plain
//! `cargo test` replays it.

use crate::sh::{Result, root, run, say};
use std::path::PathBuf;
use std::process::Command;

/// Seconds for each target unless said otherwise.
pub const SECONDS_DEFAULT: u32 = 60;
/// Where each target's regressions may be.
const REGRESSIONS: &[&str] = &["switch-core/tests/regressions", "plugins/cni/tests/regressions"];

/// Runs every target for `seconds`.
pub fn run_all(seconds: u32) -> Result {
    if !is_there() {
        return Err("cargo-fuzz is needed. Run: cargo install --locked cargo-fuzz".into());
    }
    let mut found = Vec::new();
    for target in targets()? {
        say(&format!("{target}: {seconds} s"));
        if run(fuzz(&target, seconds)?).is_err() {
            found.push(target);
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(format!(
        "something was found by: {}. The bytes are in fuzz/artifacts; keep them beside the others of the target ({}), where \
         `cargo test` replays them",
        found.join(", "),
        REGRESSIONS.join(", ")
    ))
}

/// Whether there is what fuzzing takes.
fn is_there() -> bool {
    cargo_fuzz("--version").output().is_ok_and(|output| output.status.success())
}

/// Sanitizers are told of by flags that stable Rust has and does not stand by; what they need comes with every toolchain. For a fuzzer
/// that is enough, and it runs what the tests run.
fn cargo_fuzz(words: &str) -> Command {
    let mut command = Command::new("cargo");
    command.arg("fuzz").args(words.split_whitespace()).env("RUSTC_BOOTSTRAP", "1").current_dir(root());
    command
}

fn fuzz(target: &str, seconds: u32) -> Result<Command> {
    // What is new goes into the first directory.
    let corpus = root().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
    let mut command = cargo_fuzz(&format!("run {target}"));
    command.arg(corpus).args(regressions(target));
    command.args(["--", &format!("-max_total_time={seconds}"), "-print_final_stats=1"]);
    Ok(command)
}

/// What was found before.
fn regressions(target: &str) -> Option<PathBuf> {
    REGRESSIONS.iter().map(|place| root().join(place).join(target)).find(|place| place.is_dir())
}

/// Every target, by its file.
fn targets() -> Result<Vec<String>> {
    let directory = root().join("fuzz/fuzz_targets");
    let entries =
        std::fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned())
    };
    let mut targets: Vec<String> = entries.filter_map(name).collect();
    targets.sort();
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing builds the targets' programs but who fuzzes. Each is a line that calls a function, and `cargo test` compiles and runs that line.
    #[test]
    fn every_target_is_a_call_that_tests_make_and_begins_with_what_was_found_before() {
        let read = |path: &str| {
            std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let targets = targets().unwrap_or_else(|error| panic!("{error}"));
        assert!(targets.len() >= 5, "{targets:?}");
        let manifest = read("fuzz/Cargo.toml");
        for target in targets {
            assert!(regressions(&target).is_some(), "{target} has no regressions to begin with");
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in fuzz/Cargo.toml");
            let text = read(&format!("fuzz/fuzz_targets/{target}.rs"));
            let called = text.lines().find_map(|line| {
                line.strip_prefix("libfuzzer_sys::fuzz_target!(|data: &[u8]| ")?.strip_suffix("(data));")
            });
            let called = called.unwrap_or_else(|| panic!("{target} is more than a call"));
            let tests = match called.split_once("::") {
                Some(("switch_core", _)) => "switch-core/tests/regressions.rs",
                Some(("switch_cni", _)) => "plugins/cni/tests/regressions.rs",
                _ => panic!("{target} calls {called}"),
            };
            let run = [format!("fuzz_targets/{target}.rs\"]"), format!("{target}_target::run")];
            assert!(run.iter().all(|part| read(tests).contains(part)), "{tests} does not run {target}");
        }
    }
}
