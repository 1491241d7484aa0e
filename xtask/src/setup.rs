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
    ("script", "bsdutils"),
    ("bird", "bird2"),
    ("/usr/lib/frr/bgpd", "frr"),
    ("gobgpd", "gobgpd"),
    ("traceroute", "traceroute"),
    ("tracepath", "iputils-tracepath"),
    ("mtr", "mtr-tiny"),
    ("jq", "jq"),
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
    // What a service runs under.
    ("/lib/systemd/systemd", "systemd"),
    ("setpriv", "util-linux"),
    ("linux32", "util-linux"),
];

/// To build for other processors, and to run what was built.
const CROSS: &[Need] = &[
    ("qemu-aarch64-static", "qemu-user-static"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/lib/libc.so", "libc6-dev-arm64-cross"),
];

/// For `cargo xtask package --architecture`: no root, but to install what is missing.
pub fn cross() -> Result {
    there(CROSS)
}

/// For `cargo xtask demo`.
pub fn demo() -> Result {
    ready(&[DEMO])
}

/// For `cargo xtask test`.
pub fn test() -> Result {
    ready(&[TEST, CROSS])
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
    ready(&[TEST, CROSS, ZEROCOPY])
}

/// What figures need beside that: the peers.
const FIGURES: &[Need] = &[
    ("iperf3", "iperf3"),
    ("ethtool", "ethtool"),
    ("taskset", "util-linux"),
    ("nft", "nftables"),
    ("/usr/lib/openvswitch-switch/ovs-vswitchd", "openvswitch-switch"),
    ("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk", "openvswitch-switch-dpdk"),
    ("dpdk-testpmd", "dpdk-dev"),
    ("dpdk-test-fib", "dpdk-dev"),
    ("/usr/lib/x86_64-linux-gnu/librte_net_af_xdp.so.23", "librte-net-af-xdp23"),
    ("/usr/lib/x86_64-linux-gnu/librte_net_pcap.so.23", "librte-net-pcap23"),
];

/// For `cargo xtask figures`. A peer that cannot be had is named; its figure then fails by itself, and the
/// others are measured.
pub fn figures() -> Result {
    if !is_root() {
        return Err(not_root(&missing(&[TEST, CROSS, FIGURES], has), has("apt-get")));
    }
    test()?;
    if let Err(error) = install(&missing(&[FIGURES], has)) {
        eprintln!("xtask: {error}");
    }
    Ok(())
}

/// To count instructions.
const BENCH: &[Need] = &[("clang", "clang"), ("valgrind", "valgrind")];

/// For `cargo xtask bench`: no root, but to install what is missing.
pub fn bench() -> Result {
    there(BENCH)
}

fn there(needs: &[Need]) -> Result {
    let missing = missing(&[needs], has);
    if missing.is_empty() || is_root() { install(&missing) } else { Err(not_root(&missing, has("apt-get"))) }
}

/// Everything.
pub fn everything() -> Result {
    figures()?;
    say("everything is there");
    Ok(())
}

/// Everything of these lists is there afterwards. Who is not root is told of all that stands in the way at once: what is missing,
/// and that it takes root.
fn ready(lists: &[&[Need]]) -> Result {
    let missing = missing(lists, has);
    if is_root() { install(&missing) } else { Err(not_root(&missing, has("apt-get"))) }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn missing(lists: &[&[Need]], has: impl Fn(&str) -> bool) -> Vec<Need> {
    lists.iter().flat_map(|list| list.iter()).filter(|(program, _)| !has(program)).copied().collect()
}

fn not_root(missing: &[Need], has_apt: bool) -> String {
    let root = "this makes network namespaces and loads XDP programs, which root may: run it with sudo";
    match (missing.is_empty(), has_apt) {
        (true, _) => root.into(),
        (false, true) => format!("missing: {}. Run: sudo {}\n{root}", names(missing), install_line(missing)),
        (false, false) => format!("{}\n{root}", by_hand(missing)),
    }
}

fn names(missing: &[Need]) -> String {
    missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ")
}

/// The one command that installs them.
fn install_line(missing: &[Need]) -> String {
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    format!("apt-get install -y --no-install-recommends {}", packages.join(" "))
}

fn by_hand(missing: &[Need]) -> String {
    format!("missing: {}. Install them with your package manager", names(missing))
}

fn install(missing: &[Need]) -> Result {
    if missing.is_empty() {
        return Ok(());
    }
    if !has("apt-get") {
        return Err(by_hand(missing));
    }
    let (names, line) = (names(missing), install_line(missing));
    // Not where a figure's lines go.
    eprintln!("xtask: missing: {names}; installing");
    // A fresh machine has no package lists, an old one has stale ones; either way the update is cheap.
    run(apt("update -q")).and_then(|()| run(apt(&line["apt-get ".len()..]))).map_err(|error| {
        format!("missing: {names}, and they could not be installed ({error}). Run: {line}")
    })?;
    match missing.iter().find(|(program, _)| !has(program)) {
        None => Ok(()),
        Some((program, _)) => Err(format!("{program} is still missing. Run: {line}")),
    }
}

fn apt(words: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.args(words.split_whitespace()).env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Crates by which a build script runs another compiler, or looks for a library.
    const FOREIGN: &[&str] = &["cc", "cmake", "pkg-config", "bindgen", "vcpkg"];

    /// What `cargo build` makes needs Rust and clang; the generator, for which libbpf is built, is not among it.
    #[test]
    fn the_product_is_built_by_rust_and_clang_alone() {
        let packages = |words: &str| -> BTreeSet<String> {
            let mut tree = cargo("tree --locked --offline --edges normal,build --prefix none --format {p}");
            let text = crate::sh::capture(tree.args(words.split_whitespace()));
            let text = text.unwrap_or_else(|error| panic!("{error}"));
            text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
        };
        let (product, all) = (packages(""), packages("--workspace"));
        assert!(product.contains("switch-core") && product.contains("switch-ctl"), "{product:?}");
        let foreign = |of: &BTreeSet<String>| FOREIGN.iter().filter(|name| of.contains(**name)).count();
        assert_eq!(foreign(&product), 0, "{product:?}");
        assert!(foreign(&all) > 0, "what is looked for here is not what others need");
    }

    const FIRST: &[Need] = &[("clang", "clang"), ("ip", "iproute2"), ("/etc/hosts", "netbase")];
    const SECOND: &[Need] = &[("nstat", "iproute2"), ("ping", "iputils-ping")];

    #[test]
    fn who_is_not_root_is_told_of_everything_at_once() {
        let all = missing(&[FIRST, SECOND], |program| program == "clang");
        let told = not_root(&all, true);
        for part in [
            "ip, /etc/hosts, nstat, ping",
            "sudo apt-get install",
            " iproute2 iputils-ping netbase",
            "run it with sudo",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("clang"), "it is there: {told}");
        let told = not_root(&all, false);
        assert!(
            told.contains("nstat") && told.contains("package manager") && told.contains("sudo"),
            "{told}"
        );
        // Nothing missing, and root all the same.
        let told = not_root(&missing(&[FIRST, SECOND], |_| true), true);
        assert!(told.contains("run it with sudo") && !told.contains("missing"), "{told}");
    }
}
