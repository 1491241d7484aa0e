//! What a client and a daemon of neighbouring versions make of each other. What older ones said was recorded from their own
//! programs (`versions/before-owners.*.jsonl`: what was asked and answered, a line each, by the command line, by the CNI plugin,
//! and what that daemon refuses of what came later); newer ones are those recordings with something in them that nobody
//! knows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;
use switch_api::codec::{decode_answer, decode_request};
use switch_api::*;

const SECOND: Duration = Duration::from_secs(1);
/// What nobody knows, yet.
const NEWER: &str = "from_a_newer_version";

struct Exchange {
    asked: Value,
    answered: Value,
}

impl Exchange {
    fn method(&self) -> &str {
        self.asked["method"].as_str().unwrap()
    }
}

fn recorded(name: &str) -> Vec<Exchange> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/versions/before-owners.{name}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    let read = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        Exchange { asked: line["asked"].take(), answered: line["answered"].take() }
    };
    text.lines().map(read).collect()
}

fn all() -> impl Iterator<Item = Exchange> {
    recorded("ctl").into_iter().chain(recorded("cni"))
}

/// What a client of today makes of an answer, said again.
fn understood(method: &str, answer: &Value) -> Result<Value, ApiError> {
    fn by<T: DeserializeOwned + Serialize>(answer: &Value) -> Result<Value, ApiError> {
        decode_answer::<T>(answer.to_string().as_bytes()).map(|read| serde_json::to_value(read).unwrap())
    }
    match method {
        "hello" => by::<HelloReply>(answer),
        "status" => by::<Status>(answer),
        "config.export" => by::<Config>(answer),
        "config.history" => by::<Vec<HistoryEntry>>(answer),
        "bridge.list" => by::<Vec<BridgeStatus>>(answer),
        "port.list" => by::<Vec<PortStatus>>(answer),
        "port.get" => by::<PortStatus>(answer),
        "port.probe" => by::<ProbeReply>(answer),
        "fdb.list" => by::<Vec<FdbEntry>>(answer),
        "neigh.list" => by::<Vec<NeighEntry>>(answer),
        "route.list" => by::<Vec<RouteStatus>>(answer),
        "route.get" => by::<RouteChoice>(answer),
        "vrf.list" => by::<Vec<VrfStatus>>(answer),
        "namespace.list" => by::<Vec<Namespace>>(answer),
        "policy.list" => by::<Vec<PolicyStatus>>(answer),
        "policy.explain" => by::<PolicyAnswer>(answer),
        "flow.list" => by::<FlowPage>(answer),
        "ipam.pool.list" => by::<Vec<PoolStatus>>(answer),
        "ipam.lease.list" => by::<Vec<LeaseStatus>>(answer),
        "ipam.lease.acquire" => by::<Lease>(answer),
        "ipam.lease.release" => by::<Released>(answer),
        "worker.list" => by::<Vec<WorkerStatus>>(answer),
        "worker.rebalance" => by::<Rebalanced>(answer),
        "trace" => by::<TraceReply>(answer),
        "events.recent" => by::<Vec<Happened>>(answer),
        "stats.get" => by::<Stats>(answer),
        _ => by::<Done>(answer),
    }
}

#[test]
fn a_daemon_of_today_understands_what_older_clients_ask() {
    let methods: std::collections::BTreeSet<_> = all().map(|exchange| exchange.method().to_owned()).collect();
    assert!(methods.len() > 40, "{methods:?}");
    for exchange in all() {
        let call = decode_request(exchange.asked.to_string().as_bytes());
        let request = call.request.unwrap_or_else(|error| panic!("{}: {error:?}", exchange.asked));
        // Nothing of it is lost: what it said is in what was read.
        let again = serde_json::to_value(&request).unwrap();
        assert_within(&exchange.asked["params"], &again["params"], exchange.method());
    }
}

/// All that `said` has is in `read`, in the same words.
fn assert_within(said: &Value, read: &Value, at: &str) {
    match (said, read) {
        (Value::Object(said), Value::Object(read)) => {
            for (key, value) in said.iter().filter(|(_, value)| !is_nothing(value)) {
                // What has its default need not be said again.
                if let Some(read) = read.get(key) {
                    assert_within(value, read, &format!("{at}.{key}"));
                } else {
                    assert!(
                        *value == json!("operator") || *value == json!("cni") || *value == json!(false),
                        "{at}.{key} is lost"
                    );
                }
            }
        }
        (Value::Array(said), Value::Array(read)) => {
            assert_eq!(said.len(), read.len(), "{at}");
            said.iter().zip(read).for_each(|(said, read)| assert_within(said, read, at));
        }
        _ => assert_eq!(said, read, "{at}"),
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null()
        || value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(|it| it.is_empty())
}

#[test]
fn a_client_of_today_understands_what_an_older_daemon_answers() {
    for exchange in all() {
        match understood(exchange.method(), &exchange.answered) {
            Ok(read) => assert_within(&exchange.answered["result"], &read, exchange.method()),
            Err(error) => {
                let said = &exchange.answered["error"];
                assert_eq!(json!(error.code), said["code"], "{}: {error:?}", exchange.method());
                assert_eq!(error.message, said["message"].as_str().unwrap());
            }
        }
    }
}

/// Each copy of `value` with something unknown in one of its objects, but for those whose keys are anybody's.
fn each_with_news(value: &Value, news: &mut Vec<Value>, whole: &dyn Fn(Value) -> Value) {
    // Of a policy's metadata only what is known is kept, as Kubernetes writes much there.
    const ANYBODYS: [&str; 7] =
        ["labels", "matchLabels", "metadata", "parts", "podSelector", "namespaceSelector", "id"];
    match value {
        Value::Object(object) => {
            let mut more = object.clone();
            more.insert(NEWER.into(), json!({ "of": [1, null] }));
            news.push(whole(Value::Object(more)));
            for (key, below) in object.iter().filter(|(key, _)| !ANYBODYS.contains(&key.as_str())) {
                let put = |below: Value| {
                    let mut object = object.clone();
                    object.insert(key.clone(), below);
                    whole(Value::Object(object))
                };
                each_with_news(below, news, &put);
            }
        }
        Value::Array(list) => {
            for (n, below) in list.iter().enumerate().take(3) {
                let put = |below: Value| {
                    let mut list = list.clone();
                    list[n] = below;
                    whole(Value::Array(list))
                };
                each_with_news(below, news, &put);
            }
        }
        _ => {}
    }
}

/// The same in all of its objects at once.
fn with_news(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (_, below) in object
                .iter_mut()
                .filter(|(key, _)| !["labels", "matchLabels", "parts"].contains(&key.as_str()))
            {
                with_news(below);
            }
            object.insert(NEWER.into(), json!("more"));
        }
        Value::Array(list) => list.iter_mut().for_each(with_news),
        _ => {}
    }
}

#[test]
fn a_client_of_today_reads_over_what_a_newer_daemon_says_more() {
    // The parts of an event are anybody's, and stand beside what all have.
    let closed = |exchange: &Exchange| exchange.method() != "events.recent";
    for exchange in all().filter(|exchange| exchange.answered.get("result").is_some() && closed(exchange)) {
        let method = exchange.method().to_owned();
        let known = understood(&method, &exchange.answered).unwrap();
        let mut news = Vec::new();
        let whole = |result: Value| json!({ "jsonrpc": "2.0", "id": 1, "result": result });
        each_with_news(&exchange.answered["result"], &mut news, &whole);
        let mut everywhere = exchange.answered["result"].clone();
        with_news(&mut everywhere);
        for newer in news.into_iter().chain([whole(everywhere)]) {
            let read =
                understood(&method, &newer).unwrap_or_else(|error| panic!("{method}: {error:?}\n{newer}"));
            assert_eq!(read, known, "{method}: {newer}");
        }
    }
}

#[test]
fn a_daemon_of_today_refuses_by_name_what_it_does_not_know() {
    for exchange in all() {
        let mut news = Vec::new();
        let whole = |params: Value| {
            let mut request = exchange.asked.clone();
            request["params"] = params;
            request
        };
        each_with_news(&exchange.asked["params"], &mut news, &whole);
        for newer in news {
            let call = decode_request(newer.to_string().as_bytes());
            let error = call.request.expect_err(&format!("it was passed over: {newer}"));
            assert_eq!(error.code, Code::InvalidParams, "{newer}");
            let place = error.data.field.unwrap_or_default() + &error.message;
            assert!(place.contains(NEWER), "{place}: {newer}");
        }
    }
    let refused = |line: &str| decode_request(line.as_bytes()).request.unwrap_err();
    let error = refused(r#"{"jsonrpc":"2.0","id":1,"method":"port.polish","params":{"name":"p"}}"#);
    assert_eq!((error.code, error.code.exit_code()), (Code::UnknownMethod, 2));
    let error = refused(r#"{"jsonrpc":"2.0","id":1,"method":"status","urgency":7}"#);
    assert_eq!((error.code, error.data.field.as_deref()), (Code::InvalidRequest, Some("urgency")));
}

#[test]
fn a_refusal_of_a_kind_that_is_new_is_still_a_refusal_in_words() {
    let answer = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"the moon is full","data":{"hint":"wait","phase":1}}}"#;
    let error = decode_answer::<Done>(answer).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str(), error.data.hint.as_deref()),
        (Code::Unknown, "the moon is full", Some("wait"))
    );
    assert_eq!(error.code.exit_code(), 1);
    // A value that is new is not made up: it is said who is to be updated.
    let mut port = all().find(|exchange| exchange.method() == "port.list").unwrap().answered;
    port["result"][0]["state"] = json!("levitating");
    let error = understood("port.list", &port).unwrap_err();
    assert!(error.message.contains("levitating") && error.data.hint.unwrap().contains("update"));
}

/// Where such a daemon listens; gone with this, whatever came of the test.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

/// A daemon that answers as recorded, by what is asked; of anything else it knows nothing.
fn daemon_of_then(name: &str, known: Vec<Exchange>) -> Socket {
    let path = std::env::temp_dir().join(format!("switch-versions-{}-{name}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let mut used = vec![false; known.len()];
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let asked: Value = serde_json::from_str(&line.unwrap()).unwrap();
                let same = |it: &Exchange| {
                    ["method", "params", "override_owner"]
                        .iter()
                        .all(|part| it.asked.get(*part) == asked.get(*part))
                };
                // The same may be asked again, and was answered otherwise then.
                let all: Vec<usize> = (0..known.len()).filter(|n| same(&known[*n])).collect();
                let next = all.iter().find(|n| !used[**n]).or(all.last());
                let next = *next.unwrap_or_else(|| panic!("{asked}"));
                used[next] = true;
                let mut answer = known[next].answered.clone();
                answer["id"] = asked["id"].clone();
                writeln!(stream, "{answer}").unwrap();
            }
        }
    });
    Socket(path)
}

#[test]
fn a_plugin_of_today_goes_on_with_a_daemon_that_knows_no_owners() {
    let known = recorded("refusals").into_iter().chain(recorded("cni")).collect();
    let socket = daemon_of_then("plugin", known);
    let mut client = Client::connect_as(&socket.0, SECOND, Owner::Cni).unwrap();
    // In the words of today, all that it asked then.
    for exchange in recorded("cni") {
        let call = decode_request(exchange.asked.to_string().as_bytes());
        let answer = client.call::<Value>(&call.request.unwrap());
        assert_eq!(answer.is_ok(), exchange.answered.get("result").is_some(), "{}", exchange.method());
    }
    // Where it would have to be told whose work may be undone, it refuses.
    client.override_owner(Some(Owner::Cni));
    let error = client.call::<Done>(&Request::PortDelete(ByName { name: "p".parse().unwrap() })).unwrap_err();
    assert_eq!((error.code, error.data.field.as_deref()), (Code::InvalidRequest, Some("override_owner")));
}

#[test]
fn words_that_mean_something_else_are_refused_with_the_side_to_update() {
    for (version, side) in [(API_VERSION + 1, "switchd"), (API_VERSION - 1, "the client")] {
        // What that daemon said is what ours says: see `switch-core/tests/versions.rs`.
        let then = recorded("refusals");
        let refusal = then.into_iter().find(|it| it.asked["params"]["version"] == version).unwrap();
        let known = vec![Exchange {
            asked: json!({ "method": "hello", "params": { "version": API_VERSION } }),
            ..refusal
        }];
        let socket = daemon_of_then(&version.to_string(), known);
        let error = Client::connect(&socket.0, SECOND).unwrap_err();
        assert_eq!((error.code, error.code.exit_code()), (Code::Version, 10));
        assert_eq!(error.data.hint.unwrap(), format!("update {side}"));
    }
}
