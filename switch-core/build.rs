//! Builds the XDP program with clang. Nothing else is needed: the C file includes no header.

use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/port/xdp/program.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("program.o");
    // BPF runs in the byte order of the machine it is loaded on.
    let target = match std::env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb",
        _ => "bpfel",
    };
    let result = Command::new(&clang)
        .args(["-target", target, "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-mcpu=v3", "-c", SOURCE, "-o"])
        .arg(&out)
        .status();
    match result {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{clang} could not build {SOURCE}: {status}"),
        Err(error) => panic!(
            "cannot run {clang}: {error}. The XDP program needs clang: `apt-get install clang`, or name one in CLANG"
        ),
    }
}
