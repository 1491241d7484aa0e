//! Network address translation, seen by real kernels: pods with TAPs, whose TCP comes in superframes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use switch_api::{
    BridgeStatus, ByName, Done, FlowFilter, FlowList, FlowPage, FlowsDeleted, Nat, NatStatus, Nothing,
    PolicyAnswer, PortKind, PortSettings, Request, RouteChoice, RouteGet, Trace, TraceReply,
};
use switch_lab::node::tap_port;
use switch_lab::transfer::checksum_errors;
use switch_lab::world::{Service, ask_tcp, ask_udp, is_refused};
use switch_lab::{Daemon, Net, Node, Options, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);
const BULK: usize = 8 << 20;

/// A pod on `brNET` with a TAP: 10.NET.0.N, fd10:NET::N.
fn pod(node: &Node, daemon: &Daemon, net: u8, n: u8) -> Pod {
    let pod = node.bare_pod(n);
    let mut port = tap_port(&pod, &format!("br{net}"), PortSettings::default());
    if let PortKind::Tap { addresses, .. } = &mut port.kind {
        let texts = [format!("10.{net}.0.{n}/24"), format!("fd10:{net}::{n}/64")];
        *addresses = texts.iter().map(|text| text.parse().unwrap()).collect();
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    pod.net.ip(&format!("route add default via 10.{net}.0.1"));
    pod.net.ip(&format!("route add default via fd10:{net}::1"));
    pod
}

/// Pods 2 and 3 on `br1`, pod 4 on `br2`.
fn nets(words: &str) -> (Node, Daemon, [Pod; 3]) {
    let node = Node::new();
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with(words));
    for net in [1, 2] {
        let bridge = format!("br{net}");
        daemon.bridge(&bridge);
        daemon.gateway(&bridge, &format!("10.{net}.0.1/24"));
        daemon.gateway(&bridge, &format!("fd10:{net}::1/64"));
    }
    let pods = [(1, 2), (1, 3), (2, 4)].map(|(net, n)| pod(&node, &daemon, net, n));
    for ip in ["10.2.0.4", "fd10:2::4", "10.1.0.3", "fd10:1::3"] {
        wait_until("pods reach each other", LONG, || pods[0].reaches(ip));
    }
    (node, daemon, pods)
}

fn set(daemon: &Daemon, rules: serde_json::Value) {
    let rules: Vec<Nat> = serde_json::from_value(rules).unwrap();
    for rule in rules {
        let _: Done = daemon.call(&Request::NatSet(Box::new(rule)));
    }
}

/// Megabytes to an address, where somebody else listens; how many bytes arrived as they were sent.
fn bulk(from: &Net, to: &Net, address: &str, port: u16) -> usize {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = to.inside(move || {
        let listener = TcpListener::bind(("::", port)).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let (mut all, mut buffer) = (0, vec![0; 1 << 16]);
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            assert!(buffer[..n].iter().enumerate().all(|(i, byte)| *byte == ((all + i) % 251) as u8));
            all += n;
        }
        stream.write_all(b"thanks").unwrap();
        all
    });
    is_ready.recv().unwrap();
    let address: std::net::IpAddr = address.parse().unwrap();
    let client = from.inside(move || {
        let mut stream = TcpStream::connect_timeout(&(address, port).into(), LONG).unwrap();
        let all: Vec<u8> = (0..BULK).map(|n| (n % 251) as u8).collect();
        stream.write_all(&all).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    assert_eq!(client.join().unwrap(), "thanks");
    server.join().unwrap()
}

fn nats(daemon: &Daemon) -> Vec<NatStatus> {
    daemon.call(&Request::NatList(Nothing {}))
}

#[test]
fn a_virtual_address_leads_to_its_backend_by_every_protocol() {
    let (_node, daemon, [client, _, server]) = nets("--cores 0");
    set(
        &daemon,
        serde_json::json!([
            {"name": "web4", "kind": "destination", "address": "10.9.0.1", "protocol": "tcp", "port": 80, "to": "10.2.0.4", "to_port": 8080},
            {"name": "web6", "kind": "destination", "address": "fd10:9::1", "protocol": "tcp", "port": 80, "to": "fd10:2::4", "to_port": 8080},
            {"name": "dns4", "kind": "destination", "address": "10.9.0.1", "protocol": "udp", "port": 53, "to": "10.2.0.4", "to_port": 8080},
            {"name": "dns6", "kind": "destination", "address": "fd10:9::1", "protocol": "udp", "port": 53, "to": "fd10:2::4", "to_port": 8080},
            {"name": "all4", "kind": "destination", "address": "10.9.0.1", "to": "10.2.0.4"},
            {"name": "all6", "kind": "destination", "address": "fd10:9::1", "to": "fd10:2::4"},
        ]),
    );
    let service = Service::new(&server.net, 8080, "it is");
    // The backend sees who asks.
    for (to, seen) in [("10.9.0.1", "10.1.0.2"), ("[fd10:9::1]", "fd10:1::2")] {
        assert_eq!(ask_tcp(&client.net, &format!("{to}:80")), Some(format!("it is {seen}")));
        assert_eq!(ask_udp(&client.net, &format!("{to}:53")), Some(format!("it is {seen}")));
        // Nobody listens: what the backend's kernel says of that reaches who asked.
        assert!(is_refused(&client.net, &format!("{to}:99")), "{to}");
    }
    drop(service);
    for to in ["10.9.0.1", "fd10:9::1"] {
        assert!(client.reaches(to), "{to}");
        assert_eq!(bulk(&client.net, &server.net, to, 9000), BULK);
        let far = client.net.try_run(&format!("ping -c 1 -W 1 -t 1 {to}"));
        let far = String::from_utf8_lossy(&far.stdout).into_owned();
        assert!(far.contains("Time to live exceeded") || far.contains("Hop limit"), "{far}");
    }
    for pod in [&client, &server] {
        assert_eq!(checksum_errors(&pod.net), 0);
    }
    // Too long for the way: whoever sends is told in the words of what it sent.
    let small = PortSettings { mtu: Some(1400), ..daemon.port("tap4").port.settings };
    let set = switch_api::PortSet { name: "tap4".parse().unwrap(), settings: small };
    let _: Done = daemon.call(&Request::PortSet(set));
    client.net.try_run("ping -c 1 -W 1 -M do -s 1450 10.9.0.1");
    wait_until("the smaller MTU is known", LONG, || client.net.ip("route get 10.9.0.1").contains("mtu 1400"));
    let filter = FlowFilter { address: Some("10.2.0.4".parse().unwrap()), ..FlowFilter::default() };
    let page: FlowPage = daemon.call(&Request::FlowList(FlowList { filter, ..FlowList::default() }));
    let becomes = page.flows.iter().find_map(|flow| flow.becomes.filter(|ends| ends.to.number == 9000));
    assert_eq!(becomes.unwrap().to.address, "10.2.0.4".parse::<std::net::IpAddr>().unwrap(), "{page:?}");
    // Who asks what becomes of it is told of the rule, and judged by where it really goes.
    let get = RouteGet { address: "10.9.0.1".parse().unwrap(), vrf: switch_api::Name::main() };
    let choice: RouteChoice = daemon.call(&Request::RouteGet(get));
    assert!(
        choice.why.iter().any(|why| why.contains("rule web4") && why.contains("to 10.2.0.4 port 8080")),
        "{choice:?}"
    );
    let asked = serde_json::json!({"from": "tap2", "to": "10.9.0.1", "protocol": "TCP", "port": 80});
    let answer: PolicyAnswer = daemon.call(&Request::PolicyExplain(serde_json::from_value(asked).unwrap()));
    assert_eq!(answer.to, "10.2.0.4".parse::<std::net::IpAddr>().unwrap(), "{answer:?}");
    let listed = nats(&daemon);
    assert!(listed.iter().all(|rule| rule.flows_made > 0 && rule.exhausted == 0), "{listed:?}");
    daemon.assert_conserved();
}

#[test]
fn a_source_is_masked_answered_for_and_goes_with_its_rule() {
    for words in ["--cores 0", "--cores 0,1"] {
        let (_node, daemon, [client, other, server]) = nets(words);
        set(
            &daemon,
            serde_json::json!([
                {"name": "pool4", "kind": "source", "from": ["10.1.0.2/32"], "out": "br2", "to": ["10.2.0.100"], "ports": "20000-20999"},
                {"name": "own4", "kind": "source", "from": ["10.1.0.0/24"], "out": "br2", "priority": 2000},
                {"name": "pool6", "kind": "source", "from": ["fd10:1::2/128"], "out": "br2", "to": ["fd10:2::100"]},
                {"name": "one", "kind": "one-to-one", "external": "10.2.0.55", "internal": "10.1.0.3"},
            ]),
        );
        let _service = Service::new(&server.net, 8080, "you are");
        for (to, seen) in [("10.2.0.4", "10.2.0.100"), ("[fd10:2::4]", "fd10:2::100")] {
            assert_eq!(ask_tcp(&client.net, &format!("{to}:8080")), Some(format!("you are {seen}")));
            assert_eq!(ask_udp(&client.net, &format!("{to}:8080")), Some(format!("you are {seen}")));
            assert!(is_refused(&client.net, &format!("{to}:99")), "{to}");
        }
        assert!(client.reaches("10.2.0.4") && client.reaches("fd10:2::4"));
        for address in ["10.2.0.4", "fd10:2::4"] {
            assert_eq!(bulk(&client.net, &server.net, address, 9000), BULK);
        }
        // One for one, both ways.
        assert_eq!(ask_tcp(&other.net, "10.2.0.4:8080"), Some("you are 10.2.0.55".into()));
        let _inside = Service::new(&other.net, 8081, "inside is");
        assert_eq!(ask_tcp(&server.net, "10.2.0.55:8081"), Some("inside is 10.2.0.4".into()));
        assert!(server.reaches("10.2.0.55"));
        for pod in [&client, &other, &server] {
            assert_eq!(checksum_errors(&pod.net), 0);
        }
        // Without its rule the next one is asked.
        assert!(
            nats(&daemon)
                .iter()
                .any(|rule| rule.nat.name.as_str() == "pool4" && rule.flows > 0 && rule.ports == 1000)
        );
        let _: Done = daemon.call(&Request::NatDelete(ByName { name: "pool4".parse().unwrap() }));
        assert_eq!(ask_tcp(&client.net, "10.2.0.4:8080"), Some("you are 10.2.0.1".into()));
        daemon.assert_conserved();
    }
}

/// A backend on the asker's own bridge, and the asker itself.
#[test]
fn hairpin_both_ends_are_translated() {
    let (_node, daemon, [client, other, _]) = nets("--cores 0");
    set(
        &daemon,
        serde_json::json!([
            {"name": "web", "kind": "destination", "address": "10.1.0.1", "protocol": "tcp", "port": 80, "to": "10.1.0.3", "to_port": 8080},
            {"name": "self", "kind": "destination", "address": "10.1.0.1", "protocol": "tcp", "port": 81, "to": "10.1.0.2", "to_port": 8080},
            {"name": "hairpin", "kind": "source", "from": ["10.1.0.0/24"], "out": "br1"},
        ]),
    );
    let _services = [&client, &other].map(|pod| Service::new(&pod.net, 8080, "it is"));
    for port in [80, 81] {
        assert_eq!(
            ask_tcp(&client.net, &format!("10.1.0.1:{port}")),
            Some("it is 10.1.0.1".into()),
            "{port}"
        );
    }
    // What is traced is what would happen.
    let bridges: Vec<BridgeStatus> = daemon.call(&Request::BridgeList(Nothing {}));
    let mac = bridges.iter().find(|status| status.bridge.name.as_str() == "br1").unwrap().mac;
    let frame = etherparse::PacketBuilder::ethernet2(client.mac().0, mac.0);
    let frame = frame.ipv4([10, 1, 0, 2], [10, 1, 0, 1], 64).tcp(1, 80, 1, 1000).syn();
    let mut bytes = Vec::new();
    frame.write(&mut bytes, &[]).unwrap();
    let (in_port, frame) = ("tap2".parse().unwrap(), switch_api::Hex(bytes));
    let traced: TraceReply = daemon.call(&Request::Trace(Trace { in_port, frame }));
    let of = |stage: &str| traced.steps.iter().find(|step| step.stage == stage).unwrap().why.clone();
    assert!(of("translate").contains("begins a flow that goes to 10.1.0.3 port 8080"), "{traced:?}");
    assert!(
        of("rewrite").contains("becomes one from 10.1.0.1 port") && traced.outcome.contains("tap3"),
        "{traced:?}"
    );
    let _: FlowsDeleted = daemon.call(&Request::FlowDelete(FlowFilter::default()));
    wait_until("what was ended begins anew", LONG, || ask_tcp(&client.net, "10.1.0.1:80").is_some());
    daemon.assert_conserved();
}
