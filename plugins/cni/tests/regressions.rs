//! What the fuzz target found before, and a corpus to begin with: replayed by plain `cargo test`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use std::path::Path;

#[test]
fn cni() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions/cni");
    let mut files: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "{} is empty", directory.display());
    for file in files {
        println!("{}", file.display());
        switch_cni::fuzz::input(&std::fs::read(&file).unwrap());
    }
}
