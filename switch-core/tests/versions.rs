//! A daemon of today and the clients before it: what they asked, as it was recorded from their programs, is asked of a real daemon,
//! which does what theirs did.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use switch_lab::{Daemon, Net, Node, Options};

const LONG: Duration = Duration::from_secs(60);

/// A connection that knows nothing of today's words.
struct Old(BufReader<UnixStream>);

impl Old {
    fn connect(daemon: &Daemon) -> Self {
        let stream = UnixStream::connect(&daemon.socket).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, request: &str) -> Value {
        writeln!(self.0.get_mut(), "{request}").unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

fn recorded(name: &str) -> Vec<(Value, Value)> {
    let path =
        format!("{}/../switch-api/tests/versions/before-owners.{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| (line["asked"].clone(), line["answered"].clone())).collect()
}

/// Every field that the older daemon answered with is there, and is of the same kind. Of lists the first speaks for all.
fn assert_shaped(then: &Value, now: &Value, at: &str) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for (key, then) in then {
                match now.get(key) {
                    Some(now) => assert_shaped(then, now, &format!("{at}.{key}")),
                    // A list without anything may be left out.
                    None => assert!(then.is_array(), "{at}.{key} is gone"),
                }
            }
        }
        (Value::Array(then), Value::Array(now)) => {
            if let (Some(then), Some(now)) = (then.first(), now.first()) {
                assert_shaped(then, now, at);
            }
        }
        (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Null, _)
        | (_, Value::Null) => {}
        _ => panic!("{at} was {then}, and is {now}"),
    }
}

#[test]
fn what_older_clients_asked_is_done_as_it_was() {
    let node = Node::new();
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")));
    let pod = Net::new("pod");
    node.net.ip("link add pod1 type veth peer name pod1p");
    node.net.ip("link set pod1 up");
    for (name, lines) in [("ctl", recorded("ctl")), ("cni", recorded("cni"))] {
        // By its program alone does a plugin say that it is one, if it is so old.
        let of_ours = format!("/proc/self/task/{}/comm", std::process::id());
        std::fs::write(of_ours, if name == "cni" { "switch-cni" } else { "switch-ctl" }).unwrap();
        let mut client = Old::connect(&daemon);
        for (asked, then) in lines {
            let method = asked["method"].as_str().unwrap();
            // Times and numbers of the history are of its own day.
            let request = asked.to_string().replace("/run/netns/pod", &pod.path().to_string());
            let now = client.ask(&request);
            assert_eq!(now["id"], then["id"]);
            match (then.get("result"), now.get("result")) {
                (Some(then), Some(now)) if method != "events.recent" => {
                    assert_shaped(then, now, &format!("{name} {method}"))
                }
                (Some(_), Some(_)) => {}
                (None, None) => assert_eq!(then["error"]["code"], now["error"]["code"], "{method}: {now}"),
                _ => panic!("{request}\nthen {then}\nnow  {now}"),
            }
        }
    }
}

#[test]
fn another_version_is_refused_with_the_side_to_update() {
    let node = Node::new();
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")));
    let is_hello = |asked: &Value| asked["method"] == "hello" && asked["params"].get("owner").is_none();
    let hellos: Vec<_> = recorded("refusals").into_iter().filter(|(asked, _)| is_hello(asked)).collect();
    assert_eq!(hellos.len(), 2);
    for (asked, then) in hellos {
        let mut client = Old::connect(&daemon);
        let mut now = client.ask(&asked.to_string());
        assert_eq!(now["error"].take(), then["error"]);
        // It may stay and ask for what means the same; a client of ours does not.
        assert!(
            client
                .ask(&json!({"jsonrpc": "2.0", "id": 2, "method": "status"}).to_string())
                .get("result")
                .is_some()
        );
    }
}
