//! See `switch_core::rig::fuzz_snapshots::snapshots`, which `cargo test` runs on what was found before.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| switch_core::rig::fuzz_snapshots::snapshots(data));
