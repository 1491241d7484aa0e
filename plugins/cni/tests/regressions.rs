//! What the fuzz target found before, and a corpus to begin with: replayed by plain `cargo test`, by the target's own file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]
#![allow(unused_attributes, reason = "a target that a fuzzer builds has no main")]

use proptest::prelude::*;
use std::path::{Path, PathBuf};

// The target names the fuzzer's library; here that is this file.
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

#[path = "../../../fuzz/fuzz_targets/cni.rs"]
mod cni_target;

fn corpus() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions/cni");
    let mut files: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "{} is empty", directory.display());
    files
}

#[test]
fn cni() {
    for file in corpus() {
        println!("{}", file.display());
        cni_target::run(&std::fs::read(&file).unwrap());
    }
}

proptest! {
    /// The corpus with some bytes changed: what is nearly right goes deeper than noise.
    #[test]
    fn nearly_right(file: prop::sample::Index, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let files = corpus();
        let mut bytes = std::fs::read(file.get(&files)).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        cni_target::run(&bytes);
    }
}

/// The configurations that people start from, each plugin of ours as a runtime would pass it.
#[test]
fn the_examples_are_right() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/cni");
    let mut ours = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let list: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for plugin in list["plugins"].as_array().unwrap() {
            let mut conf = plugin.clone();
            (conf["name"], conf["cniVersion"]) = (list["name"].clone(), list["cniVersion"].clone());
            if conf["type"] == "switch-cni" {
                let read = switch_cni::conf::Conf::read(conf.to_string().as_bytes(), false);
                assert!(read.is_ok(), "{}: {read:?}", path.display());
                ours += 1;
            }
        }
    }
    assert!(ours >= 3);
}
