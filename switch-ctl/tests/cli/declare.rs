//! Files of what is declared, against a real daemon with real pods: applied, changed, undone unasked, gone back from; and
//! what is wrong with one, all at once.

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;
use switch_api::{Bridge, Done, Owner, Port, PortKind, Request};
use switch_lab::{Daemon, Net, Node, Options, wait_until};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");
const LONG: Duration = Duration::from_secs(60);

fn run(daemon: &Daemon, line: &str) -> Output {
    Command::new(CTL).arg("--socket").arg(&daemon.socket).args(line.split_whitespace()).output().unwrap()
}

fn said(daemon: &Daemon, line: &str) -> String {
    let output = run(daemon, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(daemon: &Daemon, line: &str) -> (i32, String) {
    let output = run(daemon, line);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn write(node: &Node, name: &str, text: &str) -> PathBuf {
    let path = node.directory().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Two bridges with a gateway and a pod each, a route, and a policy on who reaches the second pod.
fn two_networks(web: &Net, db: &Net, ingress: &str) -> String {
    let pod = |name: &str, net: &Net, n: u8| {
        format!(
            r#"
[[bridge]]
name = "{name}"

[[address]]
bridge = "{name}"
address = "10.{n}.0.1/24"

[[port]]
name = "{name}1"
bridge = "{name}"
kind = "tap"
netns = "{}"
addresses = ["10.{n}.0.2/24"]
routes = [{{ to = "0.0.0.0/0", via = "10.{n}.0.1" }}]
settings.limits = {{ rx_packets = {{ per_s = 50000, burst = 5000 }}, tx_bytes = {{ per_s = 125000000 }} }}
workload = {{ namespace = "default", labels = {{ app = "{name}" }} }}
"#,
            net.path()
        )
    };
    let rest = format!(
        r#"
[[route]]
prefix = "10.99.0.0/16"
via = [{{ address = "10.72.0.9" }}]

[[policy]]
metadata = {{ name = "db-from-web" }}
spec = {{ podSelector = {{ matchLabels = {{ app = "db" }} }}, policyTypes = ["Ingress"], ingress = {ingress} }}
"#
    );
    pod("web", web, 71) + &pod("db", db, 72) + &rest
}

const FROM_WEB: &str = r#"[{ from = [{ podSelector = { matchLabels = { app = "web" } } }] }]"#;

fn pings(web: &Net) -> bool {
    web.try_run("ping -n -c 1 -W 1 10.72.0.2").status.success()
}

#[test]
fn a_file_is_applied_undone_unasked_and_gone_back_from() {
    let node = Node::new();
    let (web, db) = (Net::new("web"), Net::new("db"));
    let options = Options::beside(CTL).keeping_state();
    let mut daemon = node.start(&options);
    let open = write(&node, "open.toml", &two_networks(&web, &db, FROM_WEB));
    let closed = write(&node, "closed.toml", &two_networks(&web, &db, "[]").replace("0.9\"", "0.8\""));
    let (open, closed) = (open.display(), closed.display());

    let would = said(&daemon, &format!("apply {open} --dry-run"));
    assert!(would.contains("+ port web1") && would.contains("8 changes would be made"), "{would}");
    assert_eq!(said(&daemon, "bridge list --json").trim(), "[]", "a dry run changes nothing");
    let done = said(&daemon, &format!("apply {open}"));
    assert!(done.contains("8 changes made, number 2"), "{done}");
    wait_until("the pods reach each other", LONG, || pings(&web));
    assert_eq!(said(&daemon, &format!("diff {open}")).trim(), "no difference");

    let shown = said(&daemon, "port show web1");
    let limits = ["50 000 a second, 5 000 at once", "125 000 000 a second, 31 250 000 at once"];
    assert!(limits.iter().all(|limit| shown.contains(limit)), "{shown}");

    // What is exported is what is there, to the letter.
    let exported = said(&daemon, "export");
    assert!(exported.contains("[port.settings.limits.tx_bytes]\nper_s = 125000000\n"), "{exported}");
    let copy = write(&node, "copy.toml", &exported);
    assert_eq!(said(&daemon, &format!("diff {}", copy.display())).trim(), "no difference", "{exported}");
    assert_eq!(said(&daemon, &format!("apply {}", copy.display())).trim(), "nothing to change");

    // Nobody confirms, and whoever applied it is gone: the daemon goes back by itself.
    let done = said(&daemon, &format!("apply {closed} --confirm-within 6s"));
    assert!(done.contains("~ policy default/db-from-web") && done.contains("~ route 10.99.0.0/16"), "{done}");
    assert!(!pings(&web), "the policy is in force meanwhile");
    let (code, busy) = refused(&daemon, &format!("apply {open}"));
    assert!(code == 6 && busy.contains("waits to be confirmed"), "{busy}");
    wait_until("it is undone", LONG, || said(&daemon, "history").contains("nobody confirmed 3"));
    assert!(pings(&web), "as it was before");
    assert_eq!(said(&daemon, "export"), exported);

    // The same over a daemon that is killed while it waits.
    said(&daemon, &format!("apply {closed} --confirm-within 4s"));
    daemon.kill();
    drop(daemon);
    daemon = node.start(&options);
    wait_until("it is undone after a restart", LONG, || {
        said(&daemon, "history").contains("nobody confirmed 5")
    });
    assert_eq!(said(&daemon, "export"), exported);
    wait_until("the pods reach each other again", LONG, || pings(&web));

    // Confirmed, it stays; and one can still go back.
    said(&daemon, &format!("apply {closed} --confirm-within 1h"));
    said(&daemon, "confirm");
    let (code, _) = refused(&daemon, "confirm");
    assert_eq!(code, 4);
    assert!(!pings(&web));
    let back = said(&daemon, "rollback 2 --confirm-within 1h");
    assert!(back.contains("2 changes made") && pings(&web), "{back}");
    let undone = said(&daemon, "rollback");
    assert!(undone.contains("2 changes made") && !pings(&web), "{undone}");
    said(&daemon, "rollback 1");
    assert_eq!(said(&daemon, "export"), "", "as it was before the first file");
    said(&daemon, "rollback 2");
    wait_until("everything is back", LONG, || pings(&web));
    let history: Value = serde_json::from_str(&said(&daemon, "history --json")).unwrap();
    assert_eq!(history.as_array().unwrap().last().unwrap()["what"], "rollback 2");
    let (code, _) = refused(&daemon, "rollback 77");
    assert_eq!(code, 4);
    daemon.assert_conserved();
}

/// What cannot be opened undoes all the rest, also what had been closed for it.
#[test]
fn it_is_all_or_nothing() {
    let node = Node::new();
    let web = Net::new("web");
    let daemon = node.start(&Options::beside(CTL));
    let port = |name: &str, more: &str| {
        format!(
            "[[bridge]]\nname = \"br0\"\n\n[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nkind = \"tap\"\n\
             netns = \"{}\"\n{more}\n",
            web.path()
        )
    };
    let first = write(&node, "first.toml", &port("a", ""));
    said(&daemon, &format!("apply {}", first.display()));
    let exported = said(&daemon, "export");
    let missing = "[[port]]\nname = \"x\"\nbridge = \"br0\"\nkind = \"xdp\"\ndevice = \"nosuch\"\n";
    let bad = write(&node, "bad.toml", &(port("b", "") + missing));
    let (code, told) = refused(&daemon, &format!("apply {}", bad.display()));
    assert!(code == 4 && told.contains("bad.toml:14:10") && told.contains("nosuch"), "{code} {told}");
    assert_eq!(said(&daemon, "export"), exported);
    let is_up = || said(&daemon, "port list").contains(" up ");
    assert!(is_up(), "{}", said(&daemon, "port list"));

    // A port that had to be closed first is opened again.
    let other = "[[bridge]]\nname = \"br0\"\n\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nkind = \"xdp\"\ndevice = \"nosuch\"\n";
    let other = write(&node, "other.toml", other);
    let (code, told) = refused(&daemon, &format!("apply {}", other.display()));
    assert!(code == 4 && told.contains("other.toml:8:10"), "{code} {told}");
    assert_eq!(said(&daemon, "export"), exported);
    assert!(is_up(), "{}", said(&daemon, "port list"));

    // A port under a new name has the device of the one that goes.
    let renamed = write(&node, "renamed.toml", &port("b", ""));
    let done = said(&daemon, &format!("apply {}", renamed.display()));
    assert!(done.contains("- port a") && done.contains("+ port b") && is_up(), "{done}");
    // What cannot be changed where it stands is said to be replaced. Its MAC is still its own.
    let mac = |text: &str| text.lines().find(|line| line.starts_with("mac")).map(str::to_owned);
    let before = mac(&said(&daemon, "export"));
    let queues = write(&node, "queues.toml", &port("b", "queues = 2"));
    let done = said(&daemon, &format!("apply {}", queues.display()));
    assert!(done.contains("± port b") && done.contains("queues: 1 -> 2") && is_up(), "{done}");
    assert!(before.is_some() && mac(&said(&daemon, "export")) == before);
    daemon.assert_conserved();
}

/// Only addresses and routes of a device are others: it gets them where it stands, and what it is connected to goes on. What cannot be undoes
/// them; a port that is down is closed and opened again.
#[test]
fn other_addresses_are_given_in_place() {
    let node = Node::new();
    let web = Net::new("web");
    let daemon = node.start(&Options::beside(CTL));
    let file = |name: &str, addresses: &str, more: &str| {
        let port = format!(
            "[[bridge]]\nname = \"br0\"\n\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nkind = \"tap\"\nnetns = \"{}\"\n\
             device = \"net1\"\naddresses = [{addresses}]\nroutes = [{{ to = \"10.99.0.0/16\", via = \"10.66.0.9\" }}]\n{more}\n",
            web.path()
        );
        write(&node, name, &port).display().to_string()
    };
    let other = "\n[[port]]\nname = \"x\"\nbridge = \"br0\"\nkind = \"memory\"\n";
    let has = |what: &str| web.ip("-o addr show net1").contains(what);
    said(&daemon, &format!("apply {}", file("first.toml", "\"10.66.0.1/24\"", other)));
    let index = || web.ip("-o link show net1").split(':').next().unwrap().to_owned();
    let before = index();

    let second = file("second.toml", "\"10.66.0.1/24\", \"10.66.0.2/24\"", other);
    let done = said(&daemon, &format!("apply {second}"));
    assert!(done.contains("~ port a") && done.contains("addresses"), "{done}");
    assert!(has("10.66.0.1/24") && has("10.66.0.2/24") && index() == before, "{}", web.ip("-o addr"));

    // Another port of the same file is closed and cannot be opened as what it shall be: all of it is undone.
    let missing = other.replace("memory", "xdp\"\ndevice = \"nosuch");
    let third = file("third.toml", "\"10.66.0.3/24\"", &missing);
    let (code, told) = refused(&daemon, &format!("apply {third}"));
    assert!(code == 4 && told.contains("nosuch"), "{code} {told}");
    assert!(has("10.66.0.2/24") && !has("10.66.0.3/24"), "{}", web.ip("-o addr"));
    // Nor is anything if the kernel refuses one of them.
    let fourth = file("fourth.toml", "\"10.67.0.3/24\"", other);
    let (code, told) = refused(&daemon, &format!("apply {fourth}"));
    assert!(
        code != 0 && told.contains("10.99.0.0/16") && told.contains("fourth.toml:11:10"),
        "{code} {told}"
    );
    assert!(
        has("10.66.0.2/24") && web.ip("route show 10.99.0.0/16").contains("10.66.0.9"),
        "{}",
        web.ip("-o addr")
    );

    said(&daemon, "rollback 2");
    assert!(has("10.66.0.1/24") && !has("10.66.0.2/24") && index() == before, "{}", web.ip("-o addr"));

    // There is no device: one is made that has them.
    web.ip("link del net1");
    let is_up = |line: &str| line.trim_start().starts_with("a ") && line.contains(" up ");
    wait_until("the port is down", LONG, || !said(&daemon, "port list").lines().any(is_up));
    let done = said(&daemon, &format!("apply {second}"));
    assert!(done.contains("± port a") && has("10.66.0.2/24"), "{done}");
    daemon.assert_conserved();
}

/// What a person is shown, to the letter.
#[test]
fn all_that_is_wrong_is_told_at_once_with_its_place() {
    let node = Node::new();
    let daemon = node.start(&Options::beside(CTL));
    let text = r#"[[bridge]]
name = "web"
ageing_s = 5

[[port]]
name = "p"
bridge = "wbe"
kind = "memory"
settings.mtu = 9

[[address]]
bridge = "web"
address = "127.0.0.1/8"
"#;
    write(&node, "wrong.toml", text);
    let apply = |name: &str| {
        let mut command = Command::new(CTL);
        command.current_dir(node.directory()).arg("--socket").arg(&daemon.socket).args(["apply", name]);
        command
    };
    let output = apply("wrong.toml").output().unwrap();
    let expected = r#"error: ageing is 10 to 1000000 seconds (IEEE 802.1Q table 8-3)
 --> wrong.toml:3:12
  |
3 | ageing_s = 5
  |            ^

error: port p: there is no bridge named wbe; add it first
 --> wrong.toml:7:10
  |
7 | bridge = "wbe"
  |          ^^^^^

error: port p: an MTU of 9 is not possible, use 68 to 3800
 --> wrong.toml:9:16
  |
9 | settings.mtu = 9
  |                ^

error: bridge web: 127.0.0.1 cannot be a gateway: it is not an ordinary unicast address
  --> wrong.toml:13:11
   |
13 | address = "127.0.0.1/8"
   |           ^^^^^^^^^^^^^

switch-ctl: wrong.toml: 4 problems
  nothing was changed
"#;
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    assert_eq!(output.status.code(), Some(2));
    // A program is given the same.
    let output = apply("wrong.toml").arg("--json").output().unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    let problems = error["data"]["problems"].as_array().unwrap();
    let places: Vec<_> = problems.iter().map(|problem| problem["field"].as_str().unwrap()).collect();
    assert_eq!(places, ["wrong.toml:3:12", "wrong.toml:7:10", "wrong.toml:9:16", "wrong.toml:13:11"]);
    assert_eq!(said(&daemon, "bridge list --json").trim(), "[]");
}

/// A daemon with a bridge `cni0` and a port `pod` that the CNI plugin made.
fn with_a_plugins() -> (Node, Daemon) {
    let node = Node::new();
    let daemon = node.start(&Options::beside(CTL));
    let bridge = Bridge { owner: Owner::Cni, ..Bridge::new("cni0".parse().unwrap()) };
    let _: Done = daemon.call(&Request::BridgeAdd(bridge));
    let memory = PortKind::Memory { source: None };
    let port =
        Port { owner: Owner::Cni, ..Port::new("pod".parse().unwrap(), "cni0".parse().unwrap(), memory) };
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    (node, daemon)
}

#[test]
fn what_others_declared_is_not_touched() {
    let (node, daemon) = with_a_plugins();
    assert_eq!(said(&daemon, "export"), "");
    let mine = write(&node, "mine.toml", "[[port]]\nname = \"m\"\nbridge = \"cni0\"\nkind = \"memory\"\n");
    said(&daemon, &format!("apply {}", mine.display()));
    let nothing = write(&node, "nothing.toml", "");
    let done = said(&daemon, &format!("apply {}", nothing.display()));
    assert!(done.contains("- port m") && done.contains("1 change made"), "{done}");
    assert!(said(&daemon, "port list").contains("pod"), "the plugin's port is still there");

    let same = write(&node, "same.toml", "[[bridge]]\nname = \"cni0\"\nageing_s = 60\n");
    let (code, told) = refused(&daemon, &format!("apply {}", same.display()));
    assert!(
        code == 2 && told.contains("bridge cni0 is there already and belongs to the CNI plugin"),
        "{told}"
    );
    let taken = write(&node, "taken.toml", "[[bridge]]\nname = \"b\"\nowner = \"cni\"\n");
    let (code, told) = refused(&daemon, &format!("apply {}", taken.display()));
    assert!(code == 2 && told.contains("taken.toml:3:9"), "{told}");
}

#[test]
fn a_command_leaves_alone_what_others_made() {
    let (_node, daemon) = with_a_plugins();
    said(&daemon, "bridge add br0");
    for line in [
        "port delete pod",
        "port set pod --isolated on",
        "bridge delete cni0",
        "bridge set cni0 --ageing-s 60",
    ] {
        let (code, told) = refused(&daemon, line);
        assert_eq!(code, 3, "{line}: {told}");
        assert!(
            told.contains("belongs to the CNI plugin") && told.contains("--override-owner cni"),
            "{told}"
        );
        // Another owner's name is not the owner's.
        assert_eq!(refused(&daemon, &format!("{line} --override-owner agent")).0, 3, "{line}");
    }
    let output = run(&daemon, "port delete pod --json");
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (&error["data"]["owner"], &error["data"]["problems"][0]["object"]["key"]),
        (&"cni".into(), &"pod".into())
    );
    let line = |of: &str, name: &str| {
        let list = said(&daemon, of);
        list.lines().find(|line| line.trim_start().starts_with(name)).map(str::to_owned).unwrap_or_default()
    };
    assert!(line("port list", "pod").contains(" cni "), "{}", said(&daemon, "port list"));
    assert!(
        line("bridge list", "cni0").contains(" cni ") && line("bridge list", "br0").contains(" operator ")
    );
    let list: Value = serde_json::from_str(&said(&daemon, "port list --json")).unwrap();
    assert_eq!(list[0]["port"]["owner"], "cni");

    said(&daemon, "port delete pod --override-owner cni");
    let told = said(&daemon, "events --recent");
    let deleted = told.lines().find(|line| line.contains("port.delete")).unwrap_or_default();
    assert!(deleted.contains("overriding that it belongs to the CNI plugin"), "{told}");
    assert!(
        refused(&daemon, "port list --override-owner nobody").1.contains("operator, cni, routes or agent")
    );
}

#[test]
fn a_daemon_starts_with_a_file() {
    let node = Node::new();
    let web = Net::new("web");
    let text = format!(
        "[[bridge]]\nname = \"br0\"\n\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nkind = \"tap\"\nnetns = \"{}\"\n",
        web.path()
    );
    // A device that is not there yet is no reason not to start: the port waits for it.
    let text = text + "\n[[port]]\nname = \"later\"\nbridge = \"br0\"\nkind = \"xdp\"\ndevice = \"nosuch\"\n";
    let file = write(&node, "switch.toml", &text);
    let options = Options::beside(CTL).keeping_state().with(&format!("--config {}", file.display()));
    let mut daemon = node.start(&options);
    let list = said(&daemon, "port list");
    assert!(list.contains("a ") && list.contains(" up ") && list.contains(" down "), "{list}");
    // The file counts, also over what was declared since.
    said(&daemon, "bridge add br1");
    daemon.kill();
    drop(daemon);
    let daemon = node.start(&options);
    assert_eq!(said(&daemon, &format!("diff {}", file.display())).trim(), "no difference");
    assert!(said(&daemon, "history").contains("start "), "{}", said(&daemon, "history"));
    drop(daemon);

    write(&node, "switch.toml", "[[bridge]]\nname = \"a/b\"\n\n[[prot]]\n");
    let switchd = std::env::var_os("SWITCHD")
        .map_or_else(|| PathBuf::from(CTL).with_file_name("switchd"), PathBuf::from);
    let mut command = node.net.command(switchd.to_str().unwrap());
    command.arg("--socket").arg(node.directory().join("other.sock")).arg("--config").arg(&file);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains(":2:8") && told.contains(":4:3"), "{told}");
}
