//! The commands a person operates the switch with, against a real daemon with real pods. `cargo xtask test` says
//! where the daemon is; by hand it is the one beside the command.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use switch_api::{PortSettings, TraceReply};
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");
const LONG: Duration = Duration::from_secs(20);

fn switchd() -> PathBuf {
    std::env::var_os("SWITCHD").map_or_else(|| Path::new(CTL).with_file_name("switchd"), PathBuf::from)
}

/// Two pods on `br0`, by ports `pod1` and `pod2`.
fn two_pods(node: &Node) -> (Daemon, [Pod; 2]) {
    let daemon = node.start(&Options::new(switchd()));
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    wait_until("pods reach each other", LONG, || pods[0].reaches(&pods[1].ip));
    (daemon, pods)
}

fn ctl(daemon: &Daemon, words: &[&str]) -> Command {
    let mut command = Command::new(CTL);
    command.arg("--socket").arg(&daemon.socket).args(words);
    command
}

fn run(daemon: &Daemon, words: &[&str]) -> Output {
    ctl(daemon, words).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_trace_says_where_a_frame_goes_and_changes_nothing() {
    let node = Node::new();
    let (daemon, pods) = two_pods(&node);
    let (first, second) = (pods[0].mac().to_string(), pods[1].mac().to_string());
    let stations = said(&run(&daemon, &["fdb", "list", "--mac", "02:00:00:00:00:f0"]));
    let known = [
        "trace",
        "--in",
        "pod1",
        "--src",
        &first,
        "--dst",
        &second,
        "--ip",
        "10.66.0.1>10.66.0.2",
        "--tcp",
        "80",
    ];
    let text = said(&run(&daemon, &known));
    assert!(text.contains("leaves by pod2") && text.contains(&format!("{second} is behind pod2")), "{text}");
    let reply: TraceReply =
        serde_json::from_str(&said(&run(&daemon, &[&["--json"], &known[..]].concat()))).unwrap();
    let stages: Vec<_> = reply.steps.iter().map(|step| step.stage.as_str()).collect();
    assert!(
        ["parse", "guard", "learn", "forward", "egress", "emit"].iter().all(|stage| stages.contains(stage))
    );
    assert_eq!((reply.out.len(), reply.out[0].port.as_str(), reply.drops.len()), (1, "pod2", 0));

    let moved = run(&daemon, &["trace", "--in", "pod2", "--src", &first, "--dst", &first]);
    let text = said(&moved);
    assert!(text.contains("would move to pod2") && text.contains("hairpin"), "{text}");
    let new = said(&run(&daemon, &["trace", "--in", "pod1", "--dst", "02:00:00:00:00:99", "--vlan", "7"]));
    assert!(new.contains("drop vlan-tagged"), "{new}");
    assert_eq!(
        said(&run(&daemon, &["fdb", "list", "--mac", "02:00:00:00:00:f0"])),
        stations,
        "it was learned"
    );
    assert_eq!(daemon.drops("hairpin") + daemon.drops("vlan-tagged"), 0, "it was counted");
    assert!(pods[0].reaches(&pods[1].ip), "and the first pod is still where it was");

    let refused = run(&daemon, &["trace", "--in", "nowhere", "--dst", &first]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
}
