//! `--json` on every command there is, by the list of them that the program itself has: a command that is new has to be added here,
//! and has to print JSON. And colour: on a terminal, and nowhere else.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use switch_api::{Holder, LeaseAcquire, Request};
use switch_lab::{Daemon, Node, Options};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");

/// Every command, each after what it needs; `DIR` is the node's folder, `POD` a pod's namespace.
const LINES: &[&str] = &[
    "bridge add br0",
    "bridge set br0 --ageing-s 60",
    "bridge list",
    "bridge address add br0 10.1.0.1/24",
    "port add memory m --bridge br0",
    "port add memory source --bridge br0 --flows 2 --rate-pps 50",
    "port add pcap file --bridge br0 --write DIR/out.pcap",
    "port probe pod1",
    "port add xdp x --bridge br0 --device pod1",
    "port add tap t --bridge br0 --netns POD --address 10.1.0.2/24",
    "port add host h --bridge br0",
    "bridge add wan",
    "port add uplink up --bridge wan --device pod3",
    "bridge add over",
    "tunnel add vx --bridge over --vni 4096 --local 10.1.0.1",
    "fdb add 02:00:00:00:00:05 --bridge over --port vx --dst 10.1.0.5",
    "tunnel list",
    "port list",
    "port show m",
    "port set m --isolated on",
    "port address t 10.1.0.3/24 --route 10.9.0.0/16,10.1.0.1",
    "port label t app=web --namespace shop",
    "fdb add 02:00:00:00:00:01 --bridge br0 --port m",
    "fdb list",
    "fdb delete 02:00:00:00:00:01 --bridge br0",
    "fdb flush",
    "neigh add 10.1.0.9 02:00:00:00:00:09 --bridge br0",
    "neigh list",
    "neigh delete 10.1.0.9 --bridge br0",
    "route add 10.9.0.0/16 via 10.1.0.9 --mtu 1400 --count",
    "route stats",
    "route list",
    "route get 10.9.0.1",
    "route delete 10.9.0.0/16",
    "route apply DIR/routes",
    "vrf set red --mirror false",
    "vrf list",
    "vrf delete red",
    "namespace set shop team=a",
    "namespace list",
    "policy add DIR/policy.json",
    "policy set DIR/policy.json",
    "policy list",
    "policy stats",
    "policy diff DIR/policy.json",
    "policy show web --namespace shop",
    "policy explain 10.1.0.77 t tcp 80",
    "policy remove web --namespace shop",
    "port-group set DIR/port-sets.toml",
    "port-group list",
    "port-group show web",
    "port-group delete web",
    "address-set create blocked",
    "address-set set DIR/sets.toml",
    "address-set add blocked 192.0.2.7 2001:db8::/32",
    "address-set remove blocked 192.0.2.7",
    "address-set load blocked DIR/list",
    "address-set list",
    "address-set show blocked",
    "address-set delete other",
    "acl set DIR/acl.toml",
    "acl list",
    "acl show a",
    "acl stats",
    "acl delete a",
    "nat set DIR/nat.toml",
    "nat list",
    "nat show n",
    "nat delete n",
    "namespace delete shop",
    "flow list",
    "flow watch --duration 1",
    "flow delete --all",
    "ipam pool add p --range 10.7.0.0/24",
    "ipam pool set p --range 10.7.0.0/23",
    "ipam pool list",
    "ipam lease list",
    "ipam lease release --pool p",
    "ipam pool delete p",
    "worker list",
    "worker lanes",
    "worker rebalance --dry-run",
    "log show",
    "log level info switch_core::control::mirror=debug",
    "worker wake",
    "trace --in m --dst 02:00:00:00:00:02",
    "capture --count 2",
    "events --recent",
    "export",
    "diff DIR/switch.toml",
    "apply DIR/switch.toml --confirm-within 60s",
    "confirm",
    "history",
    "rollback 1 --dry-run",
    "stats",
    "stats stages --seconds 0",
    "status",
    "support-bundle DIR/bundle.tar.gz",
    "bridge add other",
    "bridge delete other",
    "bridge address delete br0 10.1.0.1/24",
    "port delete m",
    "tunnel delete vx",
    "uninstall --root DIR",
    "stop --detach",
];
/// Those that print something other than an answer, and refuse to call it JSON; the refusal is JSON.
const REFUSE: &[&str] = &["top", "metrics"];
/// About what is not there: nobody has a flow here.
const ABSENT: &[&str] = &["flow explain tcp 10.1.0.2:1 10.1.0.3:2"];
/// A script is a script; and `install` is for a machine, here without any: the refusal is JSON, and `install.rs` has the rest.
const OTHERS: &[&str] = &["completion", "install"];

fn run(daemon: &Daemon, line: &str) -> Output {
    Command::new(CTL).arg("--socket").arg(&daemon.socket).args(line.split_whitespace()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The commands that are no group of others, by the man pages that the program writes of itself: `port-add-xdp`.
fn commands(node: &Node) -> BTreeSet<String> {
    let pages = node.directory().join("man");
    std::fs::create_dir(&pages).unwrap();
    assert!(Command::new(CTL).arg("man").arg(&pages).status().unwrap().success());
    let names =
        std::fs::read_dir(&pages).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<_> = names
        .filter_map(|name| Some(name.strip_prefix("switch-ctl-")?.strip_suffix(".1")?.to_owned()))
        .collect();
    let is_group = |name: &String| {
        names.range(format!("{name}-")..).next().is_some_and(|next| next.starts_with(&format!("{name}-")))
    };
    // One is both: it says everything alone, and has a command below it that says more of one thing.
    names.iter().filter(|name| !is_group(name) || *name == "stats").cloned().collect()
}

/// Which command a line is.
fn command_of<'a>(line: &str, commands: &'a BTreeSet<String>) -> Option<&'a String> {
    let words: Vec<_> = line.split(' ').collect();
    // The longest: of a command below another it is that.
    (1..=words.len()).rev().find_map(|n| commands.get(&words[..n].join("-")))
}

#[test]
fn every_command_prints_json_when_asked() {
    let node = Node::new();
    let daemon = node.start(&Options::beside(CTL));
    let commands = commands(&node);
    assert!(commands.len() > 60 && commands.contains("port-add-xdp"), "{commands:?}");
    let of = |lines: &[&str]| -> BTreeSet<String> {
        let found = lines
            .iter()
            .map(|line| command_of(line, &commands).unwrap_or_else(|| panic!("no command: {line}")));
        found.cloned().collect()
    };
    let tried: BTreeSet<_> = [LINES, REFUSE, ABSENT, OTHERS].into_iter().flat_map(of).collect();
    let missing: Vec<_> = commands.difference(&tried).collect();
    assert!(missing.is_empty(), "not tried with --json: {missing:?}");

    let (_pod, _nic, bare) = (node.pod(1), node.pod(3), node.bare_pod(2));
    let directory = node.directory().display().to_string();
    let put = |name: &str, text: &str| std::fs::write(node.directory().join(name), text).unwrap();
    put("routes", "blackhole 10.8.0.0/16\n");
    put(
        "policy.json",
        r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"web","namespace":"shop"},"spec":{"podSelector":{},"ingress":[{}]}}"#,
    );
    put("port-sets.toml", "[[port_set]]\nname = \"web\"\nports = [80, \"8000-8080\"]\n");
    put("sets.toml", "[[address_set]]\nname = \"other\"\nmembers = [\"10.1.0.78\"]\n");
    put("list", "10.1.0.79 # a comment\n");
    put(
        "acl.toml",
        "[[acl]]\nname = \"a\"\napplies_to.all = true\n[[acl.ingress]]\naction = \"deny\"\nsource = [\"10.1.0.77/32\"]\n",
    );
    put(
        "nat.toml",
        "[[nat]]\nname = \"n\"\nkind = \"one-to-one\"\nexternal = \"10.9.0.1\"\ninternal = \"10.1.0.77\"\n",
    );
    let refused_with = |output: &Output, line: &str| {
        let error: Value = serde_json::from_slice(&output.stderr)
            .unwrap_or_else(|_| panic!("{line}: {}", text(&output.stderr)));
        assert!(!output.status.success() && output.stdout.is_empty(), "{line}: {output:?}");
        assert!(error["message"].is_string(), "{line}: {error}");
    };
    for line in REFUSE.iter().chain(ABSENT).chain(&["install --root DIR", "port show nosuch"]) {
        refused_with(&run(&daemon, &format!("{} --json", line.replace("DIR", &directory))), line);
    }
    for line in LINES {
        if *line == "export" {
            // What is exported is applied again, with one thing more.
            let exported = text(&run(&daemon, line).stdout);
            put("switch.toml", &format!("{exported}\n[[bridge]]\nname = \"br9\"\n"));
        }
        if line.starts_with("ipam lease release") {
            let holder = Holder { network: "n".into(), container: "c".into(), interface: "eth0".into() };
            let lease =
                LeaseAcquire { pool: "p".parse().unwrap(), holder, addresses: Vec::new(), with_port: false };
            let _: Value = daemon.call(&Request::LeaseAcquire(lease));
        }
        let words = line.replace("DIR", &directory).replace("POD", bare.net.name());
        let output = run(&daemon, &format!("{words} --json"));
        let said = text(&output.stdout);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        assert!(output.stderr.is_empty(), "{line}: {}", text(&output.stderr));
        // One document; of frames as they pass, and flows, one a line.
        let documents: Vec<Value> = serde_json::Deserializer::from_str(&said)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{line}: {error}: {said}"));
        let due = match line.split(' ').next() {
            Some("capture") => 2,
            Some("flow") if line.contains("watch") => 0,
            _ => 1,
        };
        assert_eq!(documents.len(), due, "{line}: {said}");
        assert!(documents.iter().all(|value| value.is_object() || value.is_array()), "{line}: {said}");
    }
}

/// A line as a person at a terminal sees it (script(1) gives it one).
fn on_terminal(daemon: &Daemon, line: &str, no_colour: bool) -> String {
    let command = format!("{CTL} --socket {} {line}", daemon.socket.display());
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR");
    if no_colour {
        script.env("NO_COLOR", "1");
    }
    let output = script.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", text(&output.stdout));
    text(&output.stdout)
}

#[test]
fn colour_is_for_terminals_alone_and_says_nothing_that_words_do_not() {
    let node = Node::new();
    let daemon = node.start(&Options::beside(CTL));
    for line in ["bridge add br0", "port add memory m --bridge br0 --flows 1 --rate-pps 100"] {
        assert!(run(&daemon, line).status.success());
    }
    let is_coloured = |said: &str| said.contains('\u{1b}');
    for line in ["port list", "worker list", "status", "stats", "worker wake"] {
        let piped = text(&run(&daemon, line).stdout);
        assert!(!piped.is_empty() && !is_coloured(&piped), "{line} in a pipe: {piped:?}");
        assert!(!is_coloured(&on_terminal(&daemon, line, true)), "{line} with NO_COLOR");
        assert!(!is_coloured(&on_terminal(&daemon, &format!("{line} --json"), false)), "{line} --json");
    }
    for line in ["port list", "worker list", "stats"] {
        let shown = on_terminal(&daemon, line, false);
        assert!(is_coloured(&shown), "{line} on a terminal: {shown:?}");
    }
    // What was asked of a worker woke it: how long that took is shown.
    let woken = text(&run(&daemon, "worker wake").stdout);
    let rows: Vec<_> = woken.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>()).collect();
    assert!(!rows.is_empty(), "{woken}");
    for row in rows {
        // A worker, a bound in microseconds, how often.
        let numbers = (row[0].parse::<u16>(), row[1].parse::<u64>(), row[3].parse::<u64>());
        assert!(
            matches!(numbers, (Ok(0), Ok(bound), Ok(1..)) if bound.is_power_of_two()) && row[2] == "µs",
            "{woken}"
        );
    }
}
