//! `switch-ctl flow list` with each of its filters, and what events say of a connection: flows that real sockets of real pods made.

use crate::policy::{following, run, said, shop};
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;
use switch_api::{FlowEntry, FlowFilter, FlowList, FlowPage, Request};
use switch_lab::world::Echo;
use switch_lab::{Daemon, Net, Node, Pod, bind_udp, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// The flows there are, by a word.
const ALL: &[&str] = &["open", "closed", "one-way", "answered", "ping"];

/// `shop` with its flows kept, whoever begins them.
fn tracked() -> (Node, Daemon, Vec<Pod>) {
    let (node, daemon, pods) = shop();
    for port in ["tap1", "tap2", "tap3"] {
        said(&run(&daemon, &["port", "set", port, "--track", "on"]));
    }
    (node, daemon, pods)
}

/// What [`ALL`] calls a flow; others by what they are.
fn word(flow: &FlowEntry) -> String {
    let FlowEntry { from, to, protocol, state, .. } = flow;
    let [begun, with] = [from, to].map(|end| end.address.to_string());
    let word = match (begun.as_str(), with.as_str(), protocol, to.number, state.as_str()) {
        ("10.66.0.2", "10.66.0.1", 6, 5432, "established") => "open",
        ("10.66.0.1", "10.66.0.2", 6, 8080, "time-wait") => "closed",
        ("10.66.0.3", "10.66.0.1", 17, 53, "udp-one-way") => "one-way",
        ("10.66.0.3", "10.66.0.2", 17, 5353, "udp-answered" | "udp-stream") => "answered",
        ("10.66.0.3", "10.66.0.1", 1, _, _) => "ping",
        _ => return format!("{flow:?}"),
    };
    word.to_owned()
}

/// A filter in the words of the command line.
fn words(filter: &FlowFilter) -> Vec<String> {
    let protocol = |number: u8| if number == 6 { "tcp".to_owned() } else { number.to_string() };
    let given = [
        ("--port", filter.port.as_ref().map(ToString::to_string)),
        ("--address", filter.address.map(|address| address.to_string())),
        ("--protocol", filter.protocol.map(protocol)),
        ("--number", filter.number.map(|number| number.to_string())),
        ("--state", filter.state.clone()),
    ];
    given.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?])).flatten().collect()
}

/// What the command line lists, and how many lines its table has.
fn listed(daemon: &Daemon, filter: &FlowFilter) -> (BTreeSet<String>, usize) {
    let words = words(filter);
    let line = |first: &[&'static str]| -> Vec<&str> {
        first.iter().copied().chain(words.iter().map(String::as_str)).collect()
    };
    let page: FlowPage =
        serde_json::from_str(&said(&run(daemon, &line(&["--json", "flow", "list"])))).unwrap();
    let table = said(&run(daemon, &line(&["flow", "list"])));
    let rows = table.lines().filter(|row| row.contains("10.66.0.")).count();
    (page.flows.iter().map(word).collect(), rows)
}

/// What the API answers, page by page.
fn answered(daemon: &Daemon, filter: &FlowFilter) -> BTreeSet<String> {
    let (mut flows, mut next) = (BTreeSet::new(), Some(0));
    while let Some(from) = next {
        let ask = FlowList { filter: filter.clone(), from, limit: 1 };
        let page: FlowPage = daemon.call(&Request::FlowList(ask));
        assert!(page.flows.len() <= 1, "{page:?}");
        flows.extend(page.flows.iter().map(word));
        next = page.next;
    }
    flows
}

/// A datagram that is answered, or one that is not.
fn datagram(from: &Net, to: &Net, address: &'static str, is_answered: bool) -> [UdpSocket; 2] {
    let there = to.inside(move || bind_udp(address)).join().unwrap();
    let here = from.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap()).join().unwrap();
    [&here, &there].into_iter().for_each(|socket| socket.set_read_timeout(Some(LONG)).unwrap());
    here.send_to(b"?", address).unwrap();
    let (_, asker) = there.recv_from(&mut [0; 8]).unwrap();
    if is_answered {
        there.send_to(b"!", asker).unwrap();
        here.recv(&mut [0; 8]).unwrap();
    }
    [here, there]
}

#[test]
fn each_filter_lists_the_flows_that_it_is_about_and_no_other() {
    let (_node, daemon, pods) = tracked();
    let [db, web, other] = &pods[..] else { panic!() };
    let mut open = Echo::open(&web.net, &db.net, "10.66.0.1:5432");
    assert!(open.comes_back(1, LONG));
    drop(Echo::open(&db.net, &web.net, "10.66.0.2:8080"));
    // Of the others what is there for the shortest time comes last.
    let [_answered, one_way] = [("10.66.0.2:5353", &web.net, true), ("10.66.0.1:53", &db.net, false)]
        .map(|(address, to, is_answered)| datagram(&other.net, to, address, is_answered));
    assert!(other.reaches("10.66.0.1"));
    let none = FlowFilter::default;
    let all: BTreeSet<String> = ALL.iter().map(|word| (*word).to_owned()).collect();
    wait_until("all are there and as far as they come", LONG, || answered(&daemon, &none()) == all);

    let port = |name: &str| FlowFilter { port: name.parse().ok(), ..none() };
    let protocol = |number| FlowFilter { protocol: Some(number), ..none() };
    let state = |name: &str| FlowFilter { state: Some(name.into()), ..none() };
    let number = |number| FlowFilter { number: Some(number), ..none() };
    let address = |text: &str| FlowFilter { address: text.parse().ok(), ..none() };
    let cases: [(FlowFilter, &[&str]); 19] = [
        (none(), ALL),
        (port("tap1"), &["closed"]),
        (port("tap2"), &["open"]),
        (port("tap3"), &["one-way", "answered", "ping"]),
        (protocol(6), &["open", "closed"]),
        (protocol(17), &["one-way", "answered"]),
        (protocol(1), &["ping"]),
        (protocol(132), &[]),
        (state("established"), &["open"]),
        (state("time-wait"), &["closed"]),
        (state("udp-one-way"), &["one-way"]),
        (state("syn-sent"), &[]),
        (number(5432), &["open"]),
        (number(53), &["one-way"]),
        (address("10.66.0.2"), &["open", "closed", "answered"]),
        (address("10.66.0.9"), &[]),
        // Of several all must hold.
        (FlowFilter { protocol: Some(17), state: Some("udp-one-way".into()), ..port("tap3") }, &["one-way"]),
        (FlowFilter { protocol: Some(6), ..port("tap3") }, &[]),
        (FlowFilter { state: Some("established".into()), number: Some(8080), ..none() }, &[]),
    ];
    for (filter, expected) in cases {
        // It is forgotten soon, on a machine that is busy with other tests.
        one_way[0].send_to(b"?", "10.66.0.1:53").unwrap();
        let expected: BTreeSet<String> = expected.iter().map(|word| (*word).to_owned()).collect();
        let (listed, rows) = listed(&daemon, &filter);
        assert_eq!((&listed, rows), (&expected, expected.len()), "{filter:?}");
        assert_eq!(answered(&daemon, &filter), expected, "{filter:?}");
    }
    for (words, status, told) in [
        (["--state", "open"], 2, "\"open\" is no state of a flow"),
        (["--port", "tap9"], 4, "there is no port named tap9"),
        (["--protocol", "tpc"], 2, "give tcp, udp"),
    ] {
        let refused = run(&daemon, &[&["flow", "list"], &words[..]].concat());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(status) && said.contains(told), "{refused:?}");
    }
}

/// Whoever asks for what becomes of flows is told of a connection when it is open, once, with its ends.
#[test]
fn a_connection_is_told_of_once_when_it_is_established() {
    let (_node, daemon, pods) = tracked();
    let [db, web, _] = &pods[..] else { panic!() };
    let connects = || {
        let mut echo = Echo::open(&web.net, &db.net, "10.66.0.1:5432");
        (0..5).for_each(|byte| assert!(echo.comes_back(byte, LONG)));
    };
    let words = ["--json", "events", "--only", "flow-established"];
    let text = following(&daemon, &words, connects, |text| text.contains("10.66.0.1:5432"));
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("10.66.0.1:5432")).collect();
    assert_eq!(ours.len(), 1, "{text}");
    for part in [
        r#""what":"flow-established""#,
        r#""protocol":"tcp""#,
        r#""from":"10.66.0.2:"#,
        r#""to":"10.66.0.1:5432""#,
        r#""port":"tap2""#,
        r#""state":"established""#,
        r#""zone":"br0/1""#,
    ] {
        assert!(ours[0].contains(part), "{part} is missing: {text}");
    }
    assert!(text.lines().all(|line| line.contains("flow-established")), "{text}");
    // From its beginning to its end, each step once.
    let words = ["flow", "watch", "--port", "tap2", "--number", "5432"];
    let text = following(&daemon, &words, connects, |text| text.contains("flow-ended"));
    let steps: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(steps, ["flow-new", "flow-established", "flow-ended"], "{text}");
    assert!(text.lines().all(|line| line.contains("tcp 10.66.0.2:") && line.contains(" to 10.66.0.1:5432")));
}
