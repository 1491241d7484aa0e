//! What `switch-ctl` says of policies before they are changed, and whether it comes true: a real daemon, real pods.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use switch_api::{Done, Effect, PolicyDiffAnswer, Request};
use switch_lab::scenes::labelled;
use switch_lab::{Daemon, Node, Options, Pod, bind_udp, uninterrupted, wait_until};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");
const LONG: Duration = Duration::from_secs(60);

pub fn run(daemon: &Daemon, words: &[&str]) -> Output {
    Command::new(CTL).arg("--socket").arg(&daemon.socket).args(words).output().unwrap()
}

pub fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `db`, `web` and `other`, 10.66.0.1 to 3, in namespace `shop`.
pub fn shop() -> (Node, Daemon, Vec<Pod>) {
    let node = Node::new();
    let daemon = node.start(&Options::beside(CTL));
    daemon.bridge("br0");
    let pods: Vec<_> = (1..=3).map(|n| node.bare_pod(n)).collect();
    for (pod, app) in pods.iter().zip(["db", "web", "other"]) {
        let _: Done = daemon.call(&Request::PortAdd(Box::new(labelled(pod, app))));
    }
    wait_until("pods reach each other", LONG, || {
        pods[1].reaches("10.66.0.1") && pods[2].reaches("10.66.0.1")
    });
    (node, daemon, pods)
}

/// Whether any of ten datagrams from a fixed port of `from` arrives at a port of `to`. Others' do not count: those that were
/// sent just before may still be on their way.
fn passes(from: &Pod, to: &Pod, port: u16) -> bool {
    let target = format!("{}:{port}", to.ip);
    let (bind, sender) = (target.clone(), from.ip.clone());
    let are_sent = Arc::new(AtomicBool::new(false));
    let were_sent = are_sent.clone();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let receiver = to.net.inside(move || {
        let socket = bind_udp(bind);
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        ready.send(()).unwrap();
        loop {
            // A silence counts that began when all were sent, however long that took.
            let is_last = were_sent.load(Ordering::Acquire);
            match uninterrupted(|| socket.recv_from(&mut [0; 64])) {
                Ok((_, from)) if from.ip().to_string() == sender => return true,
                Err(_) if is_last => return false,
                _ => {}
            }
        }
    });
    is_ready.recv().unwrap();
    let sender = from.net.inside(move || {
        let socket = bind_udp("0.0.0.0:40000");
        (0..10).for_each(|_| _ = socket.send_to(b"hello", &target));
    });
    let sent = sender.join();
    are_sent.store(true, Ordering::Release);
    sent.unwrap();
    receiver.join().unwrap()
}

fn file(node: &Node, name: &str, text: &str) -> PathBuf {
    let path = node.directory().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn to_db(port: u16, from: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: db, namespace: shop}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: db}}}}\n  ingress:\n  - from: [{{podSelector: {{matchLabels: {{app: {from}}}}}}}]\n    \
         ports: [{{protocol: UDP, port: {port}}}]\n"
    )
}

#[test]
fn a_diff_says_what_a_change_then_does() {
    let (node, daemon, pods) = shop();
    let [db, web, other] = &pods[..] else { panic!() };
    let first = file(&node, "first.yaml", &to_db(5432, "web"));
    let (first, second) = (first.to_str().unwrap(), file(&node, "second.yaml", &to_db(5433, "other")));
    let second = second.to_str().unwrap();

    // Nobody is isolated yet: the first policy of a port cuts what it does not allow, and says whose flows it cannot know.
    let text = said(&run(&daemon, &["policy", "diff", first]));
    for line in [
        "- cut  tap2 (10.66.0.2) to tap1 (10.66.0.1): ICMP and the like, TCP, UDP 0-5431, UDP 5433-65535, SCTP [shop/db ingress default]",
        "- cut  tap3 (10.66.0.3) to tap1 (10.66.0.1): everything [shop/db ingress default]",
        "- cut  0.0.0.0/0 to tap1 (10.66.0.1): everything [shop/db ingress default]",
        "no flows are known yet of tap1: TCP connections",
    ] {
        assert!(text.contains(line), "{line} is missing:\n{text}");
    }
    assert!(!text.contains("tap3 (10.66.0.3) to tap2"), "{text}");
    assert!(passes(other, db, 5432), "a diff changed something");
    said(&run(&daemon, &["policy", "set", first]));
    assert!(passes(web, db, 5432) && !passes(other, db, 5432));

    // The flow that there is now would be cut.
    let text = said(&run(&daemon, &["policy", "diff", second]));
    assert!(text.contains("- cut  flow udp 10.66.0.2:40000 to 10.66.0.1:5432"), "{text}");
    assert!(
        text.contains("+ open tap3 (10.66.0.3) to tap1 (10.66.0.1): UDP 5433 [shop/db ingress 1]"),
        "{text}"
    );
    assert!(!text.contains("no flows are known yet"), "{text}");
    let answer: PolicyDiffAnswer =
        serde_json::from_str(&said(&run(&daemon, &["--json", "policy", "diff", second]))).unwrap();
    assert_eq!((answer.flows_cut, answer.flows_opened, answer.flows.len()), (1, 0, 1), "{answer:?}");
    assert_eq!(
        answer.pairs.iter().filter(|pair| pair.effect == Effect::Open).count(),
        2,
        "of each family: {answer:?}"
    );
    assert!(passes(web, db, 5432), "a diff changed something");
    said(&run(&daemon, &["policy", "set", second]));
    assert!(!passes(web, db, 5432) && passes(other, db, 5433));

    // Without the policy all is open again.
    let text = said(&run(&daemon, &["policy", "diff", "--remove", "db", "-n", "shop"]));
    assert!(
        text.contains("+ open tap2 (10.66.0.2) to tap1 (10.66.0.1): everything [not isolated]"),
        "{text}"
    );
    let missing = run(&daemon, &["policy", "diff", "--remove", "db"]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
    assert!(!passes(web, db, 5432));
}

/// A file for `apply`: labels of ports change what policies mean.
#[test]
fn a_diff_of_all_that_is_declared() {
    let (node, daemon, pods) = shop();
    let [db, web, other] = &pods[..] else { panic!() };
    let policy = file(&node, "policy.yaml", &to_db(5432, "web"));
    said(&run(&daemon, &["policy", "add", policy.to_str().unwrap()]));
    assert!(passes(web, db, 5432) && !passes(other, db, 5432));
    let declared = said(&run(&daemon, &["export"]));
    let same = file(&node, "same.toml", &declared);
    let text = said(&run(&daemon, &["policy", "diff", same.to_str().unwrap()]));
    assert!(text.starts_with("0 changes of pairs, 0 of "), "{text}");
    // A flow ends with the port of either end, and says with which.
    for port in ["tap1", "tap2"] {
        let is_its = |block: &&str| block.starts_with("port]]") && block.contains(&format!("\"{port}\""));
        let rest: Vec<_> = declared.split("\n[[").filter(|block| !is_its(block)).collect();
        let without = file(&node, "without.toml", &rest.join("\n[["));
        let text = said(&run(&daemon, &["policy", "diff", without.to_str().unwrap()]));
        let cut =
            text.lines().find(|line| line.starts_with("- cut  flow udp 10.66.0.2:40000 to 10.66.0.1:5432"));
        assert!(cut.is_some_and(|line| line.ends_with(&format!("[port {port} goes]"))), "{text}");
        assert!(text.contains("1 of 1 flows would be cut"), "{text}");
        assert!(text.contains(&format!("ports that go, and no pair with them was judged: {port}")), "{text}");
    }
    let changed = file(&node, "changed.toml", &declared.replace("\"other\"", "\"web\""));
    let changed = changed.to_str().unwrap();
    let text = said(&run(&daemon, &["policy", "diff", changed]));
    assert!(
        text.contains("+ open tap3 (10.66.0.3) to tap1 (10.66.0.1): UDP 5432 [shop/db ingress 1]"),
        "{text}"
    );
    for words in [&["diff", changed][..], &["apply", changed, "--dry-run"]] {
        let text = said(&run(&daemon, words));
        assert!(text.contains("2 changes of pairs, 0 of ") && text.contains("policy diff"), "{text}");
    }
    assert!(!passes(other, db, 5432), "it was only said");
    let text = said(&run(&daemon, &["apply", changed]));
    assert!(!text.contains("of pairs"), "{text}");
    assert!(passes(other, db, 5432));
    let broken = file(&node, "broken.toml", "[[policy]]\nname = 5\n");
    let refused = run(&daemon, &["policy", "diff", broken.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("broken.toml:"), "{refused:?}");
}

/// How often the daemon was asked to tell what happens.
fn subscriptions(daemon: &Daemon) -> u64 {
    let requests = daemon.stats().requests;
    requests.iter().filter(|it| it.method == "events.subscribe").map(|it| it.count).sum()
}

/// Lines that a command says of what happens meanwhile: until `all` of them are there, and a while longer, for what should not be.
pub fn following(
    daemon: &Daemon,
    words: &[&str],
    meanwhile: impl FnOnce(),
    all: impl Fn(&str) -> bool,
) -> String {
    let before = subscriptions(daemon);
    let mut child = Command::new(CTL)
        .arg("--socket")
        .arg(&daemon.socket)
        .args(words)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // What is before that is not told of.
    wait_until("it listens", LONG, || subscriptions(daemon) > before);
    let (mut pipe, said) = (child.stdout.take().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let heard = said.clone();
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = std::io::Read::read(&mut pipe, &mut bytes) {
            heard.lock().unwrap().extend_from_slice(&bytes[..len]);
        }
    });
    let text = || String::from_utf8(said.lock().unwrap().clone()).unwrap();
    meanwhile();
    wait_until("all is told", LONG, || all(&text()));
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    reader.join().unwrap();
    text()
}

/// Ten packets of one flow are stopped: one event with the rule, and nine that are counted.
#[test]
fn the_first_drop_of_a_flow_is_told_with_its_rule_and_all_are_counted() {
    let (node, daemon, pods) = shop();
    let [db, _, other] = &pods[..] else { panic!() };
    let policy = file(&node, "policy.yaml", &to_db(5432, "web"));
    said(&run(&daemon, &["policy", "add", policy.to_str().unwrap()]));
    let words = ["--json", "events", "--only", "policy-drop"];
    let ours = |line: &&str| line.contains("10.66.0.3:40000");
    let text = following(
        &daemon,
        &words,
        || assert!(!passes(other, db, 5432)),
        |text| text.lines().any(|it| ours(&it)),
    );
    let lines: Vec<_> = text.lines().filter(ours).collect();
    assert_eq!(lines.len(), 1, "{text}");
    for part in [
        r#""rule":"shop/db ingress default""#,
        r#""reason":"policy-ingress""#,
        r#""src":"10.66.0.3:40000""#,
        r#""dst":"10.66.0.1:5432""#,
        r#""from":"tap3""#,
        r#""to":"tap1""#,
    ] {
        assert!(lines[0].contains(part), "{part} is missing: {}", lines[0]);
    }
    let recent = said(&run(&daemon, &["events", "--recent", "--only", "policy-drop"]));
    assert!(recent.contains("udp 10.66.0.3:40000 to 10.66.0.1:5432 from port tap3 to port tap1"), "{recent}");
    let stats = daemon.stats();
    let event = |name: &str| stats.events.iter().find(|(it, _)| it == name).map_or(0, |(_, count)| *count);
    let told: u64 =
        ["told", "untold", "again"].map(|kind| event(&format!("policy-drop-{kind}"))).iter().sum();
    let dropped = stats.drops.iter().filter(|drop| drop.reason.starts_with("policy-"));
    assert_eq!(told, dropped.map(|drop| drop.frames).sum::<u64>(), "{:?} {:?}", stats.drops, stats.events);
    assert!(event("policy-drop-again") >= 9, "{:?}", stats.events);
    let rules = said(&run(&daemon, &["policy", "stats"]));
    assert!(rules.contains("shop/db ingress default") && rules.contains("shop/db ingress 1"), "{rules}");
}

/// An address that no port has is asked about at the port by which it is reached: a router's, whose list has something against it.
#[test]
fn an_outside_address_is_explained_at_the_port_that_leads_there() {
    let (node, daemon, pods) = shop();
    let explain = || said(&run(&daemon, &["policy", "explain", "tap2", "192.0.2.7", "tcp", "443"]));
    let list = "[[acl]]\nname = \"out\"\napplies_to = { ports = [\"tap3\"] }\n[[acl.ingress]]\naction = \"deny\"\n\
                protocol = \"tcp\"\ndestination = [\"192.0.2.0/24\"]\n";
    let list = file(&node, "list.toml", list);
    said(&run(&daemon, &["acl", "set", list.to_str().unwrap()]));
    let text = explain();
    assert!(text.contains("by which port 192.0.2.7 is reached is not known just now"), "{text}");
    said(&run(&daemon, &["bridge", "address", "add", "br0", "10.66.0.254/24"]));
    said(&run(&daemon, &["route", "add", "192.0.2.0/24", "via", "10.66.0.3"]));
    wait_until("the router is a neighbour", LONG, || pods[2].reaches("10.66.0.254"));
    let text = explain();
    assert!(
        text.contains("acl out ingress 1") && text.contains("192.0.2.7 is reached by port tap3"),
        "{text}"
    );
    // What no list has anything against.
    let text = said(&run(&daemon, &["policy", "explain", "tap2", "192.0.2.7", "udp", "443"]));
    assert!(text.contains("reached by port tap3") && !text.contains("denies"), "{text}");
}

/// No policy is there. A port may send from another address only: one event with stage and reason, and nine that are counted.
#[test]
fn a_flow_that_no_rule_stops_is_told_of_when_it_is_first_dropped() {
    let (_node, daemon, pods) = shop();
    let [db, _, other] = &pods[..] else { panic!() };
    said(&run(&daemon, &["port", "set", "tap3", "--source-addresses", "10.66.0.99"]));
    let ours = |line: &&str| line.contains("10.66.0.3:40000");
    let text = following(
        &daemon,
        &["--json", "events", "--only", "drop"],
        || assert!(!passes(other, db, 5432)),
        |text| text.lines().any(|it| ours(&it)),
    );
    let lines: Vec<_> = text.lines().filter(ours).collect();
    assert_eq!(lines.len(), 1, "{text}");
    for part in [
        r#""what":"drop""#,
        r#""reason":"spoofed-address""#,
        r#""stage":"guard""#,
        r#""port":"tap3""#,
        r#""protocol":"udp""#,
        r#""src":"10.66.0.3:40000""#,
        r#""dst":"10.66.0.1:5432""#,
    ] {
        assert!(lines[0].contains(part), "{part} is missing: {}", lines[0]);
    }
    let recent = said(&run(&daemon, &["events", "--recent", "--only", "drop"]));
    let sentence = "udp 10.66.0.3:40000 to 10.66.0.1:5432 at port tap3 was dropped: spoofed-address (guard)";
    assert!(recent.contains(sentence), "{recent}");
    let stats = daemon.stats();
    let event = |name: &str| stats.events.iter().find(|(it, _)| it == name).map_or(0, |(_, count)| *count);
    assert!(event("drop-again") >= 9, "{:?}", stats.events);
}

#[test]
fn a_flow_is_told_from_its_beginning_to_its_end_and_explained() {
    let (node, daemon, pods) = shop();
    let [db, web, _] = &pods[..] else { panic!() };
    let policy = file(&node, "policy.yaml", &to_db(5432, "web"));
    said(&run(&daemon, &["policy", "add", policy.to_str().unwrap()]));
    let changed = file(&node, "changed.yaml", &to_db(5433, "web"));
    let words = ["flow", "watch", "--number", "5432"];
    let meanwhile = || {
        assert!(passes(web, db, 5432));
        let explain = ["flow", "explain", "udp", "10.66.0.1:5432", "10.66.0.2:40000"];
        let text = said(&run(&daemon, &explain));
        for line in [
            "udp 10.66.0.2:40000 to 10.66.0.1:5432 udp-one-way (br0/1), begun by port tap2",
            "s of 30 left: One end has spoken. 30 s, as Linux",
            "admitted by what policies say now:",
            "ingress  [shop/db ingress 1] port tap1 is isolated",
        ] {
            assert!(text.contains(line), "{line} is missing:\n{text}");
        }
        said(&run(&daemon, &["policy", "set", changed.to_str().unwrap()]));
        let text = said(&run(&daemon, &explain));
        assert!(text.contains("its next packet is judged anew, and is stopped"), "{text}");
        assert!(!passes(web, db, 5432));
        said(&run(&daemon, &["flow", "delete", "--number", "5432"]));
        assert_eq!(run(&daemon, &explain).status.code(), Some(4));
    };
    let text = following(&daemon, &words, meanwhile, |text| text.lines().count() >= 3);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, what) in lines.iter().zip(["flow-new", "flow-judged", "flow-ended"]) {
        assert!(line.contains(what) && line.contains("udp 10.66.0.2:40000 to 10.66.0.1:5432"), "{text}");
    }
    assert!(lines[1].contains("no longer allowed") && lines[2].contains("deleted"), "{text}");
}

/// A list from a file, what it decides by name, and mistakes with their line.
#[test]
fn a_list_is_set_shown_and_goes() {
    let (node, daemon, pods) = shop();
    let [db, web, other] = &pods[..] else { panic!() };
    let text = "[[acl]]\nname = \"db\"\napplies_to = { ports = [\"tap1\"] }\n\n[[acl.ingress]]\naction = \"deny\"\nprotocol = \"udp\"\n\
                source = [\"10.66.0.3/32\"]\ndestination_ports = [5432]\n";
    let list = file(&node, "acl.toml", text);
    let list = list.to_str().unwrap();
    assert!(said(&run(&daemon, &["acl", "set", list])).contains("access control list db is in force"));
    wait_until("what no rule is about arrives", LONG, || passes(web, db, 5432));
    assert!(!passes(other, db, 5432));
    let table = said(&run(&daemon, &["acl", "show", "db"]));
    assert!(table.contains("for port tap1: tap1"), "{table}");
    assert!(
        table.contains("acl db ingress 1") && table.contains("udp from 10.66.0.3/32 to port 5432"),
        "{table}"
    );
    let explained = said(&run(&daemon, &["policy", "explain", "tap3", "tap1", "udp", "5432"]));
    assert!(explained.contains("ingress  stops [acl db ingress 1]"), "{explained}");
    let ping = || said(&run(&daemon, &["policy", "explain", "tap3", "tap1", "--icmp", "8"]));
    let unasked = "rules about MACs and VLANs were not asked";
    assert!(ping().contains("would pass") && !ping().contains(unasked), "{}", ping());
    let by_vlan = format!("{text}\n[[acl.ingress]]\naction = \"deny\"\nvlan = [5]\n");
    let by_vlan = file(&node, "vlan.toml", &by_vlan);
    said(&run(&daemon, &["acl", "set", by_vlan.to_str().unwrap()]));
    assert!(ping().contains("would pass") && ping().contains(unasked), "{}", ping());
    said(&run(&daemon, &["acl", "set", list]));
    // What is exported is what is declared.
    let exported = file(&node, "all.toml", &said(&run(&daemon, &["export"])));
    assert!(said(&run(&daemon, &["diff", exported.to_str().unwrap()])).contains("no difference"));
    for (right, wrong, place) in [("udp", "icmp", "acl.toml:9:"), (".3/32", ".3/24", "acl.toml:8:")] {
        file(&node, "acl.toml", &text.replace(right, wrong));
        let refused = run(&daemon, &["acl", "set", list]);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && told.contains(place), "{told}");
    }
    // What a rule logs is an event, once a flow.
    file(&node, "acl.toml", &text.replace("\"deny\"", "\"allow\"\nlog = true"));
    said(&run(&daemon, &["acl", "set", list]));
    assert!(said(&run(&daemon, &["acl", "show", "db"])).contains("allow, log"));
    wait_until("it arrives", LONG, || passes(other, db, 5432));
    let logged = said(&run(&daemon, &["events", "--recent", "--only", "acl-log"]));
    let line = "udp 10.66.0.3:40000 to 10.66.0.1:5432 from port tap3 to port tap1: rule [acl db ingress 1] does allow it";
    assert_eq!(logged.matches(line).count(), 1, "{logged}");
    said(&run(&daemon, &["acl", "delete", "db"]));
    wait_until("it arrives again", LONG, || passes(other, db, 5432));
}
