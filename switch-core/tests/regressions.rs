//! What the fuzz targets found before, and a corpus to begin with: replayed by plain `cargo test`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use std::path::Path;
use switch_core::rig::{fuzz, fuzz_acl, fuzz_snapshots};

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
    replay("parser", fuzz::parser);
}

#[test]
fn pipeline() {
    replay("pipeline", fuzz::pipeline);
}

#[test]
fn snapshots() {
    replay("snapshots", fuzz_snapshots::snapshots);
}

#[test]
fn api() {
    replay("api", fuzz::api);
}

#[test]
fn vnet() {
    replay("vnet", fuzz::vnet);
}

#[test]
fn acl() {
    replay("acl", fuzz_acl::acl);
}
