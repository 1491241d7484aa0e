//! `switch-ctl nat`, and what is said of translation elsewhere: a real daemon, real pods on two networks.

use std::process::{Command, Output};
use std::time::Duration;
use switch_api::NatStatus;
use switch_lab::scenes::routed;
use switch_lab::world::{Service, ask_udp};
use switch_lab::{Daemon, Options, wait_until};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");

fn run(daemon: &Daemon, words: &[&str]) -> Output {
    Command::new(CTL).arg("--socket").arg(&daemon.socket).args(words).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Rules from a file, what they translate by name, and mistakes with their line.
#[test]
fn rules_are_set_shown_followed_and_go() {
    let (node, daemon, pods) = routed(&Options::beside(CTL), &[1, 2]);
    let [client, server] = &pods[..] else { panic!() };
    wait_until("pods reach each other", Duration::from_secs(10), || client.reaches("10.2.0.2"));
    let text = "[[nat]]\nname = \"dns\"\nkind = \"destination\"\naddress = \"10.9.0.1\"\nprotocol = \"udp\"\nport = 53\nto = \"10.2.0.2\"\nto_port = 5353\n\n\
                [[nat]]\nname = \"out\"\nkind = \"source\"\nfrom = [\"10.1.0.0/24\"]\nto = [\"10.2.0.77\"]\nports = \"3000-3999\"\n";
    let path = node.directory().join("nat.toml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    write(text);
    let told = said(&run(&daemon, &["nat", "set", file]));
    assert!(told.contains("rule dns is in force") && told.contains("rule out is in force"), "{told}");
    let _service = Service::new(&server.net, 5353, "you are");
    assert_eq!(ask_udp(&client.net, "10.9.0.1:53"), Some("you are 10.2.0.77".into()));
    let list = said(&run(&daemon, &["nat", "list"]));
    assert!(
        list.contains("to 10.9.0.1 udp port 53: to 10.2.0.2 port 5353") && list.contains("1 of 1 000"),
        "{list}"
    );
    let shown = said(&run(&daemon, &["nat", "show", "out"]));
    assert!(shown.contains("ports in use for one peer: 1 of 1 000 at most"), "{shown}");
    let flows = said(&run(&daemon, &["flow", "list", "--address", "10.9.0.1"]));
    assert!(flows.contains("as 10.2.0.77:3") && flows.contains("10.9.0.1:53 at 10.2.0.2:5353"), "{flows}");
    let metrics = said(&run(&daemon, &["metrics"]));
    assert!(metrics.contains("switch_nat_flows{rule=\"dns\",kind=\"destination\"} 1"), "{metrics}");
    // What is exported is what is declared.
    let exported = node.directory().join("all.toml");
    std::fs::write(&exported, said(&run(&daemon, &["export"]))).unwrap();
    assert!(said(&run(&daemon, &["diff", exported.to_str().unwrap()])).contains("no difference"));
    for (right, wrong, place) in
        [("\"10.2.0.2\"", "\"10.2.0.1\"", "nat.toml:7:"), ("10.1.0.0/24", "10.1.0.9/24", "nat.toml:13:")]
    {
        write(&text.replace(right, wrong));
        let refused = run(&daemon, &["nat", "set", file]);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && told.contains(place), "{told}");
    }
    // What cannot be read is named.
    write(&text.replace("\"10.2.0.2\"", "\"10.2.0.300\""));
    let refused = run(&daemon, &["nat", "set", file]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("\"10.2.0.300\" is no IP address"), "{told}");
    said(&run(&daemon, &["nat", "delete", "dns"]));
    assert_eq!(ask_udp(&client.net, "10.9.0.1:53"), None);
    assert!(!run(&daemon, &["nat", "show", "dns"]).status.success());
}

/// Four ports for each peer: a fifth flow finds none and is dropped by name, until one of the four is over.
#[test]
fn ports_that_are_used_up_are_told_of_and_are_there_again_with_the_end_of_a_flow() {
    let (node, daemon, pods) = routed(&Options::beside(CTL), &[1, 2]);
    let [client, server] = &pods[..] else { panic!() };
    wait_until("pods reach each other", Duration::from_secs(10), || client.reaches("10.2.0.2"));
    let text = "[[nat]]\nname = \"out\"\nkind = \"source\"\nfrom = [\"10.1.0.0/24\"]\nto = [\"10.2.0.77\"]\nports = \"3000-3003\"\n";
    let path = node.directory().join("nat.toml");
    std::fs::write(&path, text).unwrap();
    said(&run(&daemon, &["nat", "set", path.to_str().unwrap()]));
    let _services = [5353, 5354].map(|port| Service::new(&server.net, port, "you are"));
    let asks = |port: u16| ask_udp(&client.net, &format!("10.2.0.2:{port}"));
    let masked = Some("you are 10.2.0.77".to_owned());
    let exhausted = || {
        let rules: Vec<NatStatus> =
            serde_json::from_str(&said(&run(&daemon, &["--json", "nat", "list"]))).unwrap();
        assert_eq!(rules[0].exhausted, daemon.drops("nat-exhausted"));
        rules[0].exhausted
    };
    (0..4).for_each(|n| assert_eq!(asks(5353), masked, "flow {n}"));
    assert_eq!(exhausted(), 0);
    assert_eq!(asks(5353), None);
    assert_eq!(exhausted(), 1);
    // Of another peer they are all free.
    assert_eq!(asks(5354), masked);

    let list = said(&run(&daemon, &["nat", "list"]));
    let row: Vec<&str> =
        list.lines().find(|row| row.contains("10.2.0.77")).unwrap().split_whitespace().collect();
    assert!(row.ends_with(&["4", "of", "4", "1"]), "{list}");
    let shown = said(&run(&daemon, &["nat", "show", "out"]));
    assert!(
        shown.contains("ports in use for one peer: 4 of 4 at most; 1 packets found none free"),
        "{shown}"
    );
    let stats = said(&run(&daemon, &["stats"]));
    assert!(stats.lines().any(|line| line.contains("nat-exhausted") && line.contains(" 1 ")), "{stats}");
    let told = said(&run(&daemon, &["events", "--recent", "--only", "nat-exhausted"]));
    assert!(told.lines().count() == 1 && told.contains("to 10.2.0.2:5353"), "{told}");

    // With one flow its port is free, and no more than that.
    let ended = said(&run(&daemon, &["flow", "delete", "--protocol", "udp", "--number", "3002"]));
    assert!(ended.contains("flows ended") && !ended.starts_with("0 "), "{ended}");
    wait_until("its port is given again", Duration::from_secs(60), || asks(5353) == masked);
    let before = exhausted();
    assert_eq!(asks(5353), None);
    assert_eq!(exhausted(), before + 1);
    daemon.assert_conserved();
}
