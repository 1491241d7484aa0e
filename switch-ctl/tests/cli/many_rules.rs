//! A hundred thousand rules from a file, by both ways that there are, and back into one.

use std::fmt::Write;
use std::process::{Command, Output};
use std::time::Instant;
use switch_lab::{Daemon, Node, Options};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");
/// About each direction.
const RULES: usize = 50_000;
/// Seconds for an answer, also of a program that is not optimised.
const TIMEOUT: &str = "120";

fn run(daemon: &Daemon, words: &[&str]) -> Output {
    let mut command = Command::new(CTL);
    let began = Instant::now();
    let output = command
        .arg("--socket")
        .arg(&daemon.socket)
        .args(["--timeout", TIMEOUT])
        .args(words)
        .output()
        .unwrap();
    println!("{words:?} took {:?}", began.elapsed());
    output
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn list() -> String {
    let mut text = "[[acl]]\nname = \"many\"\napplies_to = { all = true }\n".to_owned();
    for direction in ["ingress", "egress"] {
        for n in 0..RULES {
            let (network, port) = (n % 250, 1 + n / 250);
            _ = writeln!(
                text,
                "[[acl.{direction}]]\naction = \"deny\"\nprotocol = \"udp\"\nsource = [\"172.16.{network}.0/24\"]\ndestination_ports = [{port}]"
            );
        }
    }
    text
}

#[test]
fn a_hundred_thousand_rules_from_a_file() {
    let node = Node::new();
    let daemon = node.start(&Options::beside(CTL).keeping_state());
    said(&run(&daemon, &["bridge", "add", "br0"]));
    said(&run(&daemon, &["port", "add", "memory", "m", "--bridge", "br0"]));
    let file = |name: &str, text: &str| {
        let path = node.directory().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rules = || {
        let listed = said(&run(&daemon, &["--json", "acl", "list"]));
        let lists: Vec<switch_api::AclStatus> = serde_json::from_str(&listed).unwrap();
        lists.iter().map(|list| list.rules.len()).sum::<usize>()
    };
    let few = said(&run(&daemon, &["export"]));
    said(&run(&daemon, &["acl", "set", &file("many.toml", &list())]));
    // All that is declared: out, away, and in again; and going back is possible.
    let many = said(&run(&daemon, &["export"]));
    assert_eq!(many.matches("[[acl.ingress]]").count() + many.matches("[[acl.egress]]").count(), 2 * RULES);
    said(&run(&daemon, &["apply", &file("few.toml", &few)]));
    assert_eq!(rules(), 0);
    said(&run(&daemon, &["apply", &file("all.toml", &many)]));
    assert_eq!(rules(), 2 * RULES);
    said(&run(&daemon, &["rollback", "2"]));
    assert_eq!(rules(), 0);
    daemon.assert_conserved();
}
