//! Builds the BPF programs with clang. Nothing else is needed: the C files include no header.

use std::path::PathBuf;
use std::process::Command;

/// Each becomes an object of its name in `OUT_DIR`.
const SOURCES: [&str; 2] = ["src/port/xdp/program.c", "src/port/tap/steering.c"];

fn main() {
    SOURCES.iter().for_each(|source| build(source));
    println!("cargo::rerun-if-env-changed=CLANG");
}

fn build(source: &str) {
    println!("cargo::rerun-if-changed={source}");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = out.join(source.rsplit('/').next().unwrap_or(source)).with_extension("o");
    // BPF runs in the byte order of the machine it is loaded on.
    let target = match std::env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb",
        _ => "bpfel",
    };
    let result = Command::new(&clang)
        .args(["-target", target, "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-mcpu=v3", "-c", source, "-o"])
        .arg(&object)
        .status();
    match result {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{clang} could not build {source}: {status}"),
        Err(error) => panic!(
            "cannot run {clang}: {error}. The BPF programs need clang: `apt-get install clang`, or name one in CLANG"
        ),
    }
}
