//! What scripts rely on: exit codes, JSON of everything, refusals on standard error, completion.

use serde_json::Value;
use std::process::{Command, Output, Stdio};
use switch_lab::{Daemon, Node, Options};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");

/// A daemon with a bridge and a port in memory, no device needed.
fn daemon(node: &Node) -> Daemon {
    let daemon = node.start(&Options::beside(CTL));
    assert_eq!(code(&run(&daemon, "bridge add br0")), 0);
    assert_eq!(code(&run(&daemon, "port add memory m --bridge br0")), 0);
    daemon
}

fn run(daemon: &Daemon, line: &str) -> Output {
    let mut command = Command::new(CTL);
    command.arg("--socket").arg(&daemon.socket).args(line.split_whitespace()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn exit_codes_tell_refusals_apart() {
    let node = Node::new();
    let daemon = daemon(&node);
    let cases = [
        ("status", 0, ""),
        ("bridge add br0", 5, "a bridge named br0"),
        ("bridge delete nosuch", 4, "nosuch"),
        ("bridge delete br0", 6, "br0"),
        ("port add xdp x --bridge br0 --device nosuch", 4, "nosuch"),
        ("port add memory n --bridge nosuch", 2, "nosuch"),
        ("port add memory a/b --bridge br0", 2, "is not a name"),
        ("port set m --isolated perhaps", 2, "perhaps"),
        ("fdb add 01:00:00:00:00:01 --bridge br0 --port m", 2, "no station"),
        ("fdb add 02:00:00:00:00:01 --bridge br0 --port m --vid 5000", 2, "5000"),
        ("port set m --publish 80:80", 2, "only a pod whose device the switch makes"),
        ("port set m --publish 80", 2, "tcp/8080:80"),
        ("port set m --return-flows on", 2, "only a host port"),
        ("port set m --masquerade on", 2, "name what to masquerade"),
        ("port set m --masquerade on --masquerade-from 10.0.0.0/8 --no-masquerade 10.1.0.0/16", 0, ""),
        ("port set m --limit-rx-bytes 12.5", 2, "is no number"),
        ("port set m --limit-rx-bytes 1M,0", 2, "rx_bytes: a rate and a burst are 1 to"),
        ("no such noun", 2, "unrecognized"),
        ("acl set /nofile.toml", 4, "see with `ls` what is there"),
        ("nat set nofile.toml", 4, "it was looked for in /"),
        ("policy set nofile.yaml", 4, "it was looked for in /"),
        ("policy diff nofile.yaml", 4, "it was looked for in /"),
        ("route apply nofile", 4, "it was looked for in /"),
        ("apply switch.toml", 4, "it was looked for in /"),
        ("diff /", 1, "name a file in it"),
        ("trace --in m --pcap nofile.pcap", 4, "it was looked for in /"),
        ("capture -w /nofolder/c.pcapng", 4, "see with `ls` what is there"),
    ];
    for (line, expected, says) in cases {
        let output = run(&daemon, line);
        let complaint = text(&output.stderr);
        assert_eq!(code(&output), expected, "{line}: {complaint}");
        assert!(complaint.contains(says), "{line}: {complaint}");
        assert_eq!(complaint.is_empty(), expected == 0, "{line}: {complaint}");
    }
    let nobody = Command::new(CTL).args(["--socket", "/nowhere/s.sock", "status"]).output().unwrap();
    assert_eq!(code(&nobody), 1);
    assert!(text(&nobody.stderr).contains("cannot reach the daemon"));
}

#[test]
fn limits_are_set_shown_and_taken_away() {
    let node = Node::new();
    let daemon = daemon(&node);
    let said = |line: &str| {
        let output = run(&daemon, line);
        assert_eq!(code(&output), 0, "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let line_of = |name: &str| {
        let shown = said("port show m");
        shown.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{shown}")).to_owned()
    };
    said("port set m --limit-rx-packets 10k,500 --limit-tx-bytes 12.5M");
    assert!(line_of("limit rx packets").ends_with("10 000 a second, 500 at once"));
    assert!(line_of("limit tx bytes").ends_with("12 500 000 a second, 3 125 000 at once"));
    assert!(line_of("limit rx bytes").ends_with("off"));
    let traced = said("trace --in m --dst 02:00:00:00:00:02");
    assert!(traced.contains("limited to 10000 packets a second, none used here"), "{traced}");
    said("port set m --limit-connections 2k");
    assert!(line_of("limit connections").ends_with("2 000"));
    // What is not named stays.
    said("port set m --limit-rx-packets off");
    assert!(line_of("limit rx packets").ends_with("off") && !line_of("limit tx bytes").ends_with("off"));
}

#[test]
fn a_request_that_is_too_long_is_refused_before_it_is_sent() {
    let node = Node::new();
    let daemon = daemon(&node);
    let policy = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "x".repeat(switch_api::codec::LONG_LINE_LEN_MAX)}, "spec": {"podSelector": {}},
    });
    let file = node.directory().join("many.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    let refused = run(&daemon, &format!("policy add {}", file.display()));
    assert_eq!(code(&refused), 7, "{refused:?}");
    assert!(text(&refused.stderr).contains("nothing was sent"), "{refused:?}");
}

#[test]
fn everything_is_json_when_asked() {
    let node = Node::new();
    let daemon = daemon(&node);
    let lines = [
        "status",
        "stats",
        "port list",
        "port show m",
        "port set m --isolated on",
        "bridge list",
        "bridge set br0 --ageing-s 60",
        "bridge address add br0 10.1.0.1/24",
        "route list",
        "route get 10.1.0.9",
        "neigh list",
        "fdb add 02:00:00:00:00:01 --bridge br0 --port m",
        "fdb list",
        "fdb flush",
        "ipam pool list",
        "export",
        "history",
        "worker list",
        "worker wake",
        "port delete m",
    ];
    for line in lines {
        let output = run(&daemon, &format!("{line} --json"));
        let said = text(&output.stdout);
        assert_eq!(code(&output), 0, "{line}: {}", text(&output.stderr));
        let parsed: Result<Value, _> = serde_json::from_str(&said);
        assert!(parsed.is_ok_and(|value| value.is_object() || value.is_array()), "{line}: {said}");
    }
    // A refusal too, on standard error.
    let refused = run(&daemon, "port delete m --json");
    let error: Value = serde_json::from_slice(&refused.stderr).unwrap();
    assert_eq!((code(&refused), error["data"]["field"].as_str()), (4, Some("name")));
    assert!(refused.stdout.is_empty());
}

#[test]
fn tables_are_aligned_and_without_colour_where_nobody_looks() {
    let node = Node::new();
    let daemon = daemon(&node);
    assert_eq!(code(&run(&daemon, "port add memory a-longer-name --bridge br0")), 0);
    let said = text(&run(&daemon, "port list").stdout);
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let bridges: Vec<_> = said.lines().skip(1).map(|line| line.find(" br0 ")).collect();
    let head = said.lines().next().unwrap().find(" BRIDGE");
    assert!(bridges.len() == 2 && head.is_some() && bridges.iter().all(|column| *column == head), "{said}");
}

#[test]
fn completion_scripts_may_be_read_in_part() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Command::new(CTL).args(["completion", shell]).output().unwrap();
        assert!(script.status.success() && text(&script.stdout).contains("fdb"), "{shell}");
    }
    // `switch-ctl completion bash | head -1`.
    let mut child = Command::new(CTL)
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}
