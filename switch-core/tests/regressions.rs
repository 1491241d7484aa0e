//! What the fuzz targets found before, and a corpus to begin with: replayed by plain `cargo test`, each by its target's own file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]
#![allow(unused_attributes, reason = "a target that a fuzzer builds has no main")]

use std::path::Path;

// The targets name the fuzzer's library; here that is this file.
extern crate self as libfuzzer_sys;

/// What the fuzzer calls for each input.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $call:expr) => {
        pub fn run($data: &[u8]) {
            $call;
        }
    };
}

#[path = "../../fuzz/fuzz_targets/acl.rs"]
mod acl_target;
#[path = "../../fuzz/fuzz_targets/api.rs"]
mod api_target;
#[path = "../../fuzz/fuzz_targets/parser.rs"]
mod parser_target;
#[path = "../../fuzz/fuzz_targets/pipeline.rs"]
mod pipeline_target;
#[path = "../../fuzz/fuzz_targets/policy.rs"]
mod policy_target;
#[path = "../../fuzz/fuzz_targets/snapshots.rs"]
mod snapshots_target;
#[path = "../../fuzz/fuzz_targets/vnet.rs"]
mod vnet_target;

fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    for file in files {
        println!("{}", file.display());
        run(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn parser() {
    replay("parser", parser_target::run);
}

#[test]
fn pipeline() {
    replay("pipeline", pipeline_target::run);
}

#[test]
fn snapshots() {
    replay("snapshots", snapshots_target::run);
}

#[test]
fn api() {
    replay("api", api_target::run);
}

#[test]
fn vnet() {
    replay("vnet", vnet_target::run);
}

#[test]
fn acl() {
    replay("acl", acl_target::run);
}

#[test]
fn policy() {
    replay("policy", policy_target::run);
}
