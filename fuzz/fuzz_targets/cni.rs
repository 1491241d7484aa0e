//! See `switch_cni::fuzz::input`, which `cargo test` runs on what was found before.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| switch_cni::fuzz::input(data));
