//! The daemon's log: text or JSON, at a level that is changed while it runs.

use serde_json::Value;
use switch_api::{Code, LogLevel, LogStatus, Nothing, Request};
use switch_lab::{Daemon, Node, Options};

fn level(daemon: &Daemon, level: &str) -> LogStatus {
    daemon.call(&Request::LogLevel(LogLevel { level: level.into() }))
}

/// Whether it writes of a request that it answered, which it does at `debug`.
fn says_more(daemon: &Daemon) -> bool {
    let before = daemon.log().matches("DEBUG").count();
    let _: Value = daemon.call(&Request::StatsGet(Nothing {}));
    let said = || daemon.log().matches("DEBUG").count() > before;
    // It writes before it answers the next.
    let _: Value = daemon.call(&Request::Status(Nothing {}));
    said()
}

#[test]
fn the_level_is_changed_while_it_runs_for_all_or_for_a_part() {
    let node = Node::new();
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")));
    let first: LogStatus = daemon.call(&Request::LogGet(Nothing {}));
    assert_eq!((first.level.as_str(), first.format.as_str()), ("info", "text"));
    assert!(daemon.log().contains(" INFO ") && !daemon.log().contains("DEBUG"), "{}", daemon.log());
    assert!(!says_more(&daemon));
    assert_eq!(level(&daemon, "info,switch_core::control=debug").level, "info,switch_core::control=debug");
    assert!(says_more(&daemon), "{}", daemon.log());
    level(&daemon, "info,switch_core::control::mirror=debug");
    assert!(!says_more(&daemon), "another part says more");
    level(&daemon, "info");
    assert!(!says_more(&daemon));
    // What is no level is refused, and changes nothing.
    let error = daemon.client().call::<LogStatus>(&Request::LogLevel(LogLevel { level: "debgu".into() }));
    let error = error.unwrap_err();
    assert_eq!((error.code, error.data.field.as_deref()), (Code::InvalidParams, Some("level")));
    let now: LogStatus = daemon.call(&Request::LogGet(Nothing {}));
    assert_eq!(now.level, "info");
}

#[test]
fn as_json_each_line_is_an_object() {
    let node = Node::new();
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with("--log-format json"));
    level(&daemon, "debug");
    assert_eq!(level(&daemon, "info").format, "json");
    let log = daemon.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.len() >= 3, "{log}");
    for line in &lines {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
    }
    // What a line has beside its words are fields.
    let serving = lines.iter().find(|line| line["message"] == "serving").unwrap();
    assert_eq!(serving["workers"], 1);
}
