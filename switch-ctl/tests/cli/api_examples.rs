//! docs/API-EXAMPLES.md: every method has an example there, and a real daemon answers each as it says. What is asked is written by
//! hand; what is answered is recorded (`UPDATE_GUIDE=1 cargo test --test cli api_examples::`).

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use switch_api::{Code, Request};
use switch_lab::{Daemon, Node, Options, wait_until};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/API-EXAMPLES.md");
const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");
const LONG: Duration = Duration::from_secs(60);
/// Columns of a line, if it can be helped.
const COLUMNS: usize = 140;
/// Entries of a list that are shown.
const ENTRIES: usize = 2;
/// Those that are answered by more than one message: what is told afterwards is shown, too.
const TELL: &[&str] = &["capture.start", "trace.live", "events.subscribe"];

/// A piece of the guide.
#[derive(Debug, PartialEq)]
enum Piece {
    /// A heading or other words.
    Words(String),
    Asked(Value),
    /// An answer, or what was told.
    Said(&'static str, Value),
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (n, part) in text.split("```json ").enumerate() {
        let rest = match n {
            0 => part,
            _ => {
                let (kind, rest) = part.split_once('\n').unwrap();
                let (json, rest) = rest.split_once("\n```\n").unwrap_or_else(|| panic!("no end: {part}"));
                let value: Value =
                    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
                pieces.push(match kind {
                    "asked" => Piece::Asked(value),
                    "answered" => Piece::Said("answered", value),
                    "told" => Piece::Said("told", value),
                    _ => panic!("{kind} is neither asked, answered nor told"),
                });
                rest
            }
        };
        if !rest.trim().is_empty() {
            pieces.push(Piece::Words(rest.trim().to_owned()));
        }
    }
    pieces
}

fn text_of(pieces: &[Piece]) -> String {
    let shown = |piece: &Piece| match piece {
        Piece::Words(words) => format!("{words}\n"),
        Piece::Asked(value) => format!("```json asked\n{}\n```\n", pretty(value, 0)),
        Piece::Said(kind, value) => format!("```json {kind}\n{}\n```\n", pretty(value, 0)),
    };
    pieces.iter().map(shown).collect::<Vec<_>>().join("\n")
}

/// In one line if there is room, else a line for each part.
fn pretty(value: &Value, indent: usize) -> String {
    let line = value.to_string();
    if indent + line.len() <= COLUMNS {
        return line;
    }
    let blanks = " ".repeat(indent + 2);
    let within = |open: char, parts: Vec<String>, close: char| {
        format!("{open}\n{blanks}{}\n{}{close}", parts.join(&format!(",\n{blanks}")), " ".repeat(indent))
    };
    match value {
        Value::Object(object) => {
            let part =
                |(key, value): (&String, &Value)| format!("{}: {}", json!(key), pretty(value, indent + 2));
            within('{', object.iter().map(part).collect(), '}')
        }
        Value::Array(list) => within('[', list.iter().map(|value| pretty(value, indent + 2)).collect(), ']'),
        _ => line,
    }
}

/// Of every list the first entries.
fn cut(value: &mut Value) {
    match value {
        Value::Array(list) => {
            list.truncate(ENTRIES);
            list.iter_mut().for_each(cut);
        }
        Value::Object(object) => object.values_mut().for_each(cut),
        _ => {}
    }
}

/// All methods there are: a name that is none is refused with those that are.
fn methods() -> BTreeSet<String> {
    let error =
        serde_json::from_value::<Request>(json!({ "method": "no such method" })).unwrap_err().to_string();
    let (_, names) = error.split_once("expected one of ").unwrap();
    names.split('`').filter(|name| name.chars().any(char::is_alphanumeric)).map(str::to_owned).collect()
}

fn method(asked: &Value) -> &str {
    asked["method"].as_str().unwrap()
}

#[test]
fn every_method_has_an_example() {
    let text = std::fs::read_to_string(GUIDE).unwrap();
    let pieces = pieces(&text);
    let (mut heading, mut shown) = (String::new(), BTreeSet::new());
    for (n, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Words(words) => heading.clone_from(words),
            Piece::Asked(asked) => {
                let name = method(asked);
                assert!(heading.ends_with(&format!("## `{name}`")), "{name} is below {heading:?}");
                switch_api::codec::decode_request(asked.to_string().as_bytes())
                    .request
                    .unwrap_or_else(|error| panic!("{asked}: {error:?}"));
                assert!(matches!(pieces.get(n + 1), Some(Piece::Said("answered", _))), "{name}: no answer");
                let is_told = matches!(pieces.get(n + 2), Some(Piece::Said("told", _)));
                assert_eq!(is_told, TELL.contains(&name), "{name}");
                shown.insert(name.to_owned());
            }
            Piece::Said(_, said) => assert!(said.get("result").or(said.get("params")).is_some(), "{said}"),
        }
    }
    let all = methods();
    assert!(all.len() > 70 && all.contains("port.add"), "{all:?}");
    let missing: Vec<_> = all.difference(&shown).collect();
    assert!(
        missing.is_empty(),
        "{missing:?}: UPDATE_GUIDE=1 cargo test --test cli api_examples::, see its head"
    );
}

/// A connection of its own for each exchange: some go on until it ends. The end of the last one may be late: a program that another test
/// starts at that moment has its descriptors until it runs. So what is busy is asked again.
fn exchange(daemon: &Daemon, asked: &Value) -> Vec<Piece> {
    let mut said = attempt(daemon, asked);
    wait_until("the one before has ended", LONG, || {
        let is_busy =
            matches!(&said[0], Piece::Said(_, answer) if answer["error"]["code"] == Code::Busy as i32);
        if is_busy {
            said = attempt(daemon, asked);
        }
        !is_busy
    });
    said
}

fn attempt(daemon: &Daemon, asked: &Value) -> Vec<Piece> {
    let mut stream = BufReader::new(UnixStream::connect(&daemon.socket).unwrap());
    stream.get_ref().set_read_timeout(Some(LONG)).unwrap();
    writeln!(stream.get_mut(), "{asked}").unwrap();
    let mut said = |kind: &'static str, before: &[Piece]| {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap_or_else(|error| panic!("{asked}: {error}, behind {before:?}"));
        let read = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{asked}: {error}: {line:?}"));
        Piece::Said(kind, read)
    };
    let mut pieces = vec![said("answered", &[])];
    let is_refused = matches!(&pieces[0], Piece::Said(_, answer) if answer.get("error").is_some());
    if TELL.contains(&method(asked)) && !is_refused {
        if method(asked) == "events.subscribe" {
            // Something happens.
            let bridge =
                json!({ "jsonrpc": "2.0", "id": 1, "method": "bridge.add", "params": { "name": "br1" } });
            attempt(daemon, &bridge);
        }
        let told = said("told", &pieces);
        pieces.push(told);
    }
    pieces
}

/// What is told is of the same form: of objects the same names, of lists the first entry.
fn assert_form(then: &Value, now: &Value, at: &str) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            // What a request or a counter is called comes and goes; so does a part that says why.
            for (key, then) in then {
                if let Some(now) = now.get(key) {
                    assert_form(then, now, &format!("{at}.{key}"));
                } else {
                    assert!(then.is_string() || then.is_array() || then.is_object(), "{at}.{key} is gone");
                }
            }
        }
        (Value::Array(then), Value::Array(now)) => {
            if let (Some(then), Some(now)) = (then.first(), now.first()) {
                assert_form(then, now, at);
            }
        }
        (Value::Null, _) | (_, Value::Null) => {}
        _ => assert_eq!(std::mem::discriminant(then), std::mem::discriminant(now), "{at}: {then}, now {now}"),
    }
}

#[test]
fn a_daemon_answers_every_example_as_it_says() {
    let text = std::fs::read_to_string(GUIDE).unwrap();
    let before = pieces(&text);
    let node = Node::new();
    node.net.ip("link add eth0 type veth peer name far0");
    node.net.ip("link set eth0 up");
    let [web, db] = [node.bare_pod(2), node.bare_pod(3)];
    // In the guide they are called as people call them.
    let names = [("/run/netns/web", web.net.path()), ("/run/netns/db", db.net.path())];
    let to_ours = |text: String| names.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours));
    let to_theirs = |text: String| names.iter().fold(text, |text, (theirs, ours)| text.replace(ours, theirs));
    // The daemon tells which program made a change.
    std::fs::write(format!("/proc/self/task/{}/comm", std::process::id()), "switch-ctl").unwrap();
    let daemon = node.start(&Options::beside(CTL));
    let mut after = Vec::new();
    for piece in before.iter() {
        let asked = match piece {
            Piece::Said(..) => continue,
            Piece::Words(words) => {
                after.push(Piece::Words(words.clone()));
                continue;
            }
            Piece::Asked(asked) => asked,
        };
        if method(asked) == "flow.list" {
            web.net.run("ping -c 1 -e 7 10.66.0.3");
        }
        after.push(Piece::Asked(asked.clone()));
        let ours = serde_json::from_str(&to_ours(asked.to_string())).unwrap();
        for said in exchange(&daemon, &ours) {
            let Piece::Said(kind, said) = said else { continue };
            assert!(said.get("error").is_none(), "{asked}\n{said}");
            let mut said: Value = serde_json::from_str(&to_theirs(said.to_string())).unwrap();
            cut(&mut said);
            after.push(Piece::Said(kind, said));
        }
    }
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        std::fs::write(GUIDE, text_of(&after)).unwrap();
        return;
    }
    assert_eq!(
        before.len(),
        after.len(),
        "an answer is missing: UPDATE_GUIDE=1 cargo test --test cli api_examples::"
    );
    for (before, after) in before.iter().zip(&after) {
        match (before, after) {
            (Piece::Said(then, told), Piece::Said(now, tells)) => {
                assert_eq!(then, now);
                assert_form(told, tells, told["method"].as_str().unwrap_or(""));
            }
            _ => assert_eq!(before, after),
        }
    }
    assert_eq!(
        text_of(&before),
        text,
        "the guide is written otherwise: UPDATE_GUIDE=1 cargo test --test cli api_examples::"
    );
}
