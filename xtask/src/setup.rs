//! What is needed and how to get it. As root with apt, missing things are installed; otherwise the one
//! command that would is printed, and nothing goes on as if they were there.

use crate::sh::{Result, cargo, has, run, say};
use std::process::Command;

/// A program (or a file, by its path) and the Debian package it comes in.
type Need = (&'static str, &'static str);

/// To build the product, and to show it.
const DEMO: &[Need] =
    &[("clang", "clang"), ("ip", "iproute2"), ("ping", "iputils-ping"), ("nsenter", "util-linux")];
/// To test it.
const TEST: &[Need] = &[
    ("clang", "clang"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("nsenter", "util-linux"),
    ("tcpdump", "tcpdump"),
    ("nstat", "iproute2"),
    ("sysctl", "procps"),
    ("bird", "bird2"),
    ("traceroute", "traceroute"),
    ("qemu-aarch64-static", "qemu-user-static"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/lib/libc.so", "libc6-dev-arm64-cross"),
    // The generator's AF_XDP comes from libbpf, which it builds.
    ("gcc", "gcc"),
    ("make", "make"),
    ("pkg-config", "pkg-config"),
    ("/usr/include/libelf.h", "libelf-dev"),
    ("/usr/include/zlib.h", "zlib1g-dev"),
    // The CNI plugin's counterparts: runtimes, what speaks to one of them, plugins to work with, and what an image
    // is made of.
    ("containerd", "containerd"),
    ("curl", "curl"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("/usr/lib/cni/portmap", "containernetworking-plugins"),
    ("/bin/busybox", "busybox-static"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
];

/// For `cargo xtask demo`.
pub fn demo() -> Result {
    need_root()?;
    need(DEMO)
}

/// For `cargo xtask test`.
pub fn test() -> Result {
    need_root()?;
    need(TEST)
}

/// For the emulated machine.
const ZEROCOPY: &[Need] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("/bin/busybox", "busybox-static"),
    ("xz", "xz-utils"),
    ("strip", "binutils"),
    ("setpriv", "util-linux"),
];

/// For `cargo xtask zerocopy`.
pub fn zerocopy() -> Result {
    test()?;
    need(ZEROCOPY)
}

/// What figures need beside that: the peers.
const FIGURES: &[Need] = &[
    ("iperf3", "iperf3"),
    ("ethtool", "ethtool"),
    ("taskset", "util-linux"),
    ("/usr/lib/openvswitch-switch/ovs-vswitchd", "openvswitch-switch"),
    ("dpdk-testpmd", "dpdk-dev"),
    ("/usr/lib/x86_64-linux-gnu/librte_net_af_xdp.so.23", "librte-net-af-xdp23"),
];

/// For `cargo xtask figures`. A peer that cannot be had is named; its figure then fails by itself, and the
/// others are measured.
pub fn figures() -> Result {
    test()?;
    if let Err(error) = need(FIGURES) {
        eprintln!("xtask: {error}");
    }
    Ok(())
}

/// Everything.
pub fn everything() -> Result {
    figures()?;
    say("everything is there");
    Ok(())
}

fn need_root() -> Result {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err("this makes network namespaces and loads XDP programs, which root may: run it with sudo".into())
}

fn need(needs: &[Need]) -> Result {
    let missing: Vec<&Need> = needs.iter().filter(|(program, _)| !has(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let line = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    let names: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    if !has("apt-get") {
        return Err(format!("missing: {}. Install them with your package manager", names.join(", ")));
    }
    say(&format!("missing: {}; installing", names.join(", ")));
    // A fresh machine has no package lists, an old one has stale ones; either way the update is cheap.
    run(apt("update -q")).and_then(|()| run(apt(&line["apt-get ".len()..]))).map_err(|error| {
        format!("missing: {}, and they could not be installed ({error}). Run: {line}", names.join(", "))
    })?;
    match needs.iter().find(|(program, _)| !has(program)) {
        None => Ok(()),
        Some((program, _)) => Err(format!("{program} is still missing. Run: {line}")),
    }
}

fn apt(words: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.args(words.split_whitespace()).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// The standard library for another processor; whether it can be had.
pub fn rust_target(target: &str) -> bool {
    let mut command = Command::new("rustup");
    command.args(["target", "add", target]).current_dir(crate::sh::root());
    command.output().is_ok_and(|output| output.status.success())
}

/// The release programs.
pub fn build_release() -> Result {
    run(cargo("build --release --quiet"))
}
