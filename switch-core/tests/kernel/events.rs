//! Events that come of what passes: a storm, a table that fills, a port that falls. (Stations that move and changes are looked at by the
//! command line's tests, loops and workers by theirs.) Each is told when it begins, and not again while it lasts.

use std::time::Duration;
use switch_api::{
    ByName, Done, Happened, MemorySource, Nothing, Port, PortKind, PortSettings, PortState, Request,
};
use switch_lab::net::run;
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// It is looked once a second.
const SOME_LOOKS: Duration = Duration::from_millis(3_500);

fn start(node: &Node, words: &str) -> Daemon {
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with(words));
    daemon.bridge("br0");
    daemon
}

fn add(daemon: &Daemon, name: &str, source: Option<MemorySource>, settings: PortSettings) {
    let kind = PortKind::Memory { source };
    let port = Port { settings, ..Port::new(name.parse().unwrap(), "br0".parse().unwrap(), kind) };
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
}

/// What was told of one kind, the oldest first.
fn told(daemon: &Daemon, what: &str) -> Vec<Happened> {
    let recent: Vec<Happened> = daemon.call(&Request::EventsRecent(Nothing {}));
    recent.into_iter().filter(|event| event.what == what).collect()
}

#[test]
fn a_storm_is_told_once_with_its_port() {
    let node = Node::new();
    let daemon = start(&node, "");
    add(&daemon, "sink", None, PortSettings::default());
    // To stations that nobody knows: flooded, as far as the limit lets.
    let source = MemorySource { flows: 4, frame_len: 60, seed: 1, reverse: false, rate_pps: 2_000 };
    add(&daemon, "calm", Some(MemorySource { rate_pps: 20, seed: 2, ..source }), PortSettings::default());
    let limited = PortSettings { storm_pps: Some(50), ..PortSettings::default() };
    add(&daemon, "source", Some(source), limited.clone());
    wait_until("the storm is told", LONG, || !told(&daemon, "storm").is_empty());
    std::thread::sleep(SOME_LOOKS);
    let storms = told(&daemon, "storm");
    assert_eq!(storms.len(), 1, "one storm, told over and over: {storms:?}");
    assert_eq!(storms[0].parts["port"], "source");
    assert!(storms[0].parts["frames"].parse::<u64>().unwrap() > 0 && storms[0].text.contains("port source"));
    // The next port has its number, which is the lowest that is free: its storm is another one.
    let _: Done = daemon.call(&Request::PortDelete(ByName { name: "source".parse().unwrap() }));
    add(&daemon, "next", Some(source), limited);
    wait_until("its storm is told", LONG, || told(&daemon, "storm").len() == 2);
    assert_eq!(told(&daemon, "storm")[1].parts["port"], "next");
    daemon.assert_conserved();
}

/// A port that says ever new addresses fills what ports share, and no more; it is that which is told, or nobody would ever be.
#[test]
fn a_table_that_fills_is_told_before_it_is_full_and_again_when_it_had_room() {
    let node = Node::new();
    let daemon = start(&node, "--fdb-entries 1024");
    add(&daemon, "sink", None, PortSettings::default());
    let few = MemorySource { flows: 100, frame_len: 60, seed: 1, reverse: true, rate_pps: 2_000 };
    add(&daemon, "few", Some(few), PortSettings::default());
    std::thread::sleep(SOME_LOOKS);
    assert_eq!(told(&daemon, "table-near-full"), [], "100 of 1 024");
    let many = MemorySource { flows: 100_000, reverse: false, ..few };
    for round in 1..=2 {
        add(&daemon, "many", Some(many), PortSettings::default());
        wait_until("it is told", LONG, || told(&daemon, "table-near-full").len() == round);
        std::thread::sleep(SOME_LOOKS);
        let told = told(&daemon, "table-near-full");
        assert_eq!(told.len(), round, "it is full, and told over and over: {told:?}");
        let event = told.last().unwrap();
        assert!(event.text.contains("stations") && event.text.contains("--fdb-entries"), "{event:?}");
        let number = |part: &str| event.parts[part].parse::<u64>().unwrap();
        assert!(number("used") * 10 >= number("of") * 9 && number("of") <= 1024, "{event:?}");
        // With the port its stations go.
        let _: Done = daemon.call(&Request::PortDelete(ByName { name: "many".parse().unwrap() }));
        std::thread::sleep(SOME_LOOKS);
    }
    daemon.assert_conserved();
}

/// Who finds that it fell and who tries in vain to open it again say so in other words.
#[test]
fn a_port_that_falls_is_told_once_whatever_became_of_its_device() {
    let node = Node::new();
    let daemon = start(&node, "");
    let (unplugged, silenced, gone) = (node.pod(1), node.bare_pod(2), node.bare_pod(3));
    daemon.attach(&unplugged, "br0", PortSettings::default());
    [&silenced, &gone].into_iter().for_each(|pod| daemon.attach_tap(pod, "br0", PortSettings::default()));
    node.net.ip(&format!("link delete {}", unplugged.device));
    silenced.net.ip("link set eth0 down");
    run("ip", &["netns", "delete", gone.net.name()]);
    let pods = [&unplugged, &silenced, &gone];
    let is_down = |pod: &&Pod| daemon.port(&pod.device).state == PortState::Down;
    wait_until("all are down", LONG, || pods.iter().all(is_down));
    // Some tries to open them again.
    std::thread::sleep(SOME_LOOKS);
    let downs = told(&daemon, "port-down");
    for pod in pods {
        let of: Vec<_> = downs.iter().filter(|event| event.parts["port"] == pod.device).collect();
        assert_eq!(of.len(), 1, "{of:?}");
    }
    // What was told is what the port says.
    let reason = daemon.port(&silenced.device).reason.unwrap();
    assert!(
        reason.contains("is down") && downs.iter().any(|event| event.parts["reason"] == reason),
        "{reason}"
    );
    silenced.net.ip("link set eth0 up");
    wait_until("one is back", LONG, || !is_down(&&silenced));
    // Its next fall is another one.
    silenced.net.ip("link set eth0 down");
    let falls =
        || told(&daemon, "port-down").iter().filter(|event| event.parts["port"] == silenced.device).count();
    wait_until("it is told again", LONG, || falls() == 2);
    daemon.assert_conserved();
}

/// Whoever scans a network through its gateway has every address asked for: the first are told by name, of the rest how many, and what was told
/// of other matters is not pushed out.
#[test]
fn neighbours_that_do_not_answer_are_told_by_name_up_to_a_number_a_second() {
    const ASKED: usize = 200;
    let node = Node::new();
    let daemon = start(&node, "");
    daemon.gateway("br0", "10.66.0.254/24");
    daemon.gateway("br0", "10.67.0.254/24");
    let pod = node.bare_pod(1);
    daemon.attach_tap(&pod, "br0", PortSettings::default());
    pod.net.ip("route add 10.67.0.0/24 via 10.66.0.254");
    let sends = pod.net.inside(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        (1..=ASKED).for_each(|n| _ = socket.send_to(b"?", format!("10.67.0.{n}:9")));
    });
    sends.join().unwrap();
    let counted = || {
        let told = told(&daemon, "neighbour-failed");
        let more = told.iter().filter_map(|event| event.parts.get("more")?.parse::<usize>().ok());
        (
            told.len(),
            told.iter().filter(|event| event.parts.contains_key("address")).count() + more.sum::<usize>(),
        )
    };
    wait_until("many are told or counted", LONG, || counted().1 >= ASKED / 2);
    std::thread::sleep(SOME_LOOKS);
    let (events, neighbours) = counted();
    // They fail at about the same time: within three looks, each of which has its number and a line for the rest.
    assert!(events <= 3 * 21, "{events} events of {neighbours} neighbours");
    daemon.assert_conserved();
}
