//! Builds the flood's programs with clang, as switch-core builds its own.

use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/flood.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("flood.o");
    let words =
        ["-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-mcpu=v3", "-c", SOURCE, "-o"];
    let status = Command::new(&clang).args(words).arg(&out).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{clang} could not build {SOURCE}: `apt-get install clang`"
    );
}
