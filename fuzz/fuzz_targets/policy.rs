//! See `switch_core::rig::fuzz_policy::policies`, which `cargo test` runs on what was found before.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| switch_core::rig::fuzz_policy::policies(data));
