//! Network address translation on an uplink, whose NIC stays the host's: addresses of translation beside the NIC's own, its own
//! address by ports, and published ports; seen by a host at the other end of the cable, and by the node's own kernel.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use switch_api::{ByName, Done, Name, Nat, NatStatus, Nothing, PortSet, PortSettings, Request, VrfStatus};
use switch_lab::cross::Router;
use switch_lab::session::Session;
use switch_lab::transfer::checksum_errors;
use switch_lab::world::{Service, ask_tcp, ask_udp, is_refused};
use switch_lab::{Daemon, Net, Options, wait_until};

/// Less than the kernel is asked for everything after at the latest, which would hide that news of it were lost.
const LONG: Duration = Duration::from_secs(20);
const LINK: u8 = 90;

/// A node with a pod (10.1.0.2, fd10:1::2) and a host beside it, joined by a cable: 10.90.0.1 and 10.90.0.2, fd10:90::1 and ::2. The host
/// knows no way to pods.
fn pair(words: &str) -> ([Router; 2], Daemon) {
    let mut nodes = [Router::new(1), Router::new(2)];
    nodes[0].join(&nodes[1], LINK);
    let daemon = nodes[0].start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with(words));
    nodes[0].pod(&daemon, 2);
    (nodes, daemon)
}

/// The same with an uplink on the cable.
fn shared(words: &str) -> ([Router; 2], Daemon) {
    let (nodes, daemon) = pair(words);
    nodes[0].share(&daemon, &nodes[1], LINK);
    (nodes, daemon)
}

fn set(daemon: &Daemon, rules: serde_json::Value) {
    let rules: Vec<Nat> = serde_json::from_value(rules).unwrap();
    for rule in rules {
        let _: Done = daemon.call(&Request::NatSet(Box::new(rule)));
    }
}

fn delete(daemon: &Daemon, rule: &str) {
    let _: Done = daemon.call(&Request::NatDelete(ByName { name: rule.parse().unwrap() }));
}

fn problems(daemon: &Daemon) -> Vec<String> {
    daemon.call::<Vec<VrfStatus>>(&Request::VrfList(Nothing {})).remove(0).problems
}

fn mac(net: &Net, device: &str) -> String {
    let said = net.ip(&format!("-o link show {device}"));
    said.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

/// Who asks, as a server sees it.
fn seen(from: &Net, server: &Net, at: &str) -> SocketAddr {
    let at: SocketAddr = at.parse().unwrap();
    let listener = server.inside(move || TcpListener::bind(at).unwrap()).join().unwrap();
    let stream = from.inside(move || TcpStream::connect_timeout(&at, LONG).unwrap()).join().unwrap();
    let (mut served, peer) = listener.accept().unwrap();
    served.write_all(b"hello").unwrap();
    let mut said = [0; 5];
    (&stream).read_exact(&mut said).unwrap();
    peer
}

fn reaches(net: &Net, address: &str) -> bool {
    net.try_run(&format!("ping -n -c 1 -W 1 {address}")).status.success()
}

#[test]
fn addresses_of_translation_are_taken_from_the_nic_and_neighbours_are_told_who_has_them() {
    let (nodes, daemon) = shared("--cores 0");
    let [node, host] = [&nodes[0].node.net, &nodes[1].node.net];
    let pod = &nodes[0].pods[0];
    let mut session = Session::open(host, node, "10.90.0.1".parse().unwrap(), LONG);
    // Whoever hears unasked who has an address keeps it, so that what was announced can be seen.
    host.run("sysctl -q -w net.ipv4.conf.l90to1.arp_accept=1");
    host.ip("route add 203.0.113.7 via 10.90.0.1");
    host.ip("route add 2001:db8:7::7 via fd10:90::1");
    set(
        &daemon,
        serde_json::json!([
            {"name": "near4", "kind": "destination", "address": "10.90.0.77", "protocol": "tcp", "port": 80, "to": "10.1.0.2", "to_port": 8080},
            {"name": "near6", "kind": "destination", "address": "fd10:90::77", "protocol": "tcp", "port": 80, "to": "fd10:1::2", "to_port": 8080},
            {"name": "far4", "kind": "destination", "address": "203.0.113.7", "to": "10.1.0.2"},
            {"name": "far6", "kind": "destination", "address": "2001:db8:7::7", "to": "fd10:1::2"},
            {"name": "pool4", "kind": "source", "from": ["10.1.0.0/24"], "out": "wan90", "to": ["10.90.0.88"]},
            {"name": "pool6", "kind": "source", "from": ["fd10:1::/64"], "out": "wan90", "to": ["fd10:90::88"]},
        ]),
    );
    let own = mac(node, "l90to2");
    wait_until("it is announced", LONG, || host.ip("neigh show 10.90.0.88").contains(&own));
    host.ip("neigh flush dev l90to1");
    let _inside = Service::new(&pod.net, 8080, "it is");
    for (to, from) in [("10.90.0.77:80", "10.90.0.2"), ("[fd10:90::77]:80", "fd10:90::2")] {
        wait_until(to, LONG, || ask_tcp(host, to) == Some(format!("it is {from}")));
    }
    for (to, from) in [("203.0.113.7:8080", "10.90.0.2"), ("[2001:db8:7::7]:8080", "fd10:90::2")] {
        assert_eq!(ask_tcp(host, to), Some(format!("it is {from}")));
        assert_eq!(ask_udp(host, to), Some(format!("it is {from}")));
    }
    assert!(reaches(host, "203.0.113.7") && reaches(host, "2001:db8:7::7"));
    for (at, address) in [("10.90.0.2:7000", "10.90.0.88"), ("[fd10:90::2]:7000", "fd10:90::88")] {
        assert_eq!(seen(&pod.net, host, at).ip().to_string(), address);
    }
    assert!(pod.reaches("10.90.0.2") && pod.reaches("fd10:90::2"));
    for address in ["10.90.0.77", "10.90.0.88", "fd10:90::77", "fd10:90::88"] {
        assert!(host.ip(&format!("neigh show {address}")).contains(&own), "{address}");
    }
    // Routing daemons tell others of them, and the node itself gets there.
    let led = node.ip("-4 route show proto 83");
    assert!(["10.90.0.77 ", "10.90.0.88 ", "203.0.113.7 "].iter().all(|ip| led.contains(ip)), "{led}");
    assert_eq!(problems(&daemon), [] as [&str; 0]);
    session.types("beside translation");
    assert!(reaches(host, "10.90.0.1") && reaches(node, "fd10:90::2"));

    // With its rule an address is nobody's again.
    delete(&daemon, "near4");
    host.ip("neigh flush dev l90to1");
    assert_eq!(ask_tcp(host, "10.90.0.77:80"), None);
    assert!(!host.ip("neigh show 10.90.0.77").contains(&own));
    assert!(!node.ip("-4 route show proto 83").contains("10.90.0.77 "));
    for net in [host, node, &pod.net] {
        assert_eq!(checksum_errors(net), 0);
    }
    daemon.assert_conserved();
}

#[test]
fn the_nics_own_address_is_shared_by_ports_and_the_hosts_connections_go_on() {
    for words in ["--cores 0", "--cores 0,1"] {
        let (nodes, daemon) = shared(words);
        let [node, host] = [&nodes[0].node.net, &nodes[1].node.net];
        let pod = &nodes[0].pods[0];
        // In, and out from a port that the kernel chose.
        let mut into = Session::open(host, node, "10.90.0.1".parse().unwrap(), LONG);
        let mut out = Session::open(node, host, "10.90.0.2".parse().unwrap(), LONG);
        let hosts = Service::new(node, 8081, "the node sees");
        set(
            &daemon,
            serde_json::json!([
                {"name": "masquerade", "kind": "source", "out": "wan90"},
                {"name": "web4", "kind": "destination", "address": "10.90.0.1", "protocol": "tcp", "port": 8080, "to": "10.1.0.2", "to_port": 80},
                {"name": "web6", "kind": "destination", "address": "fd10:90::1", "protocol": "tcp", "port": 8080, "to": "fd10:1::2", "to_port": 80},
                {"name": "dns4", "kind": "destination", "address": "10.90.0.1", "protocol": "udp", "port": 8080, "to": "10.1.0.2", "to_port": 80},
            ]),
        );
        let _inside = Service::new(&pod.net, 80, "the pod sees");
        wait_until("the pod's port", LONG, || ask_tcp(host, "10.90.0.1:8080").is_some());
        for (at, address) in [("10.90.0.2:7000", "10.90.0.1"), ("[fd10:90::2]:7000", "fd10:90::1")] {
            let peer = seen(&pod.net, host, at);
            assert!(peer.ip().to_string() == address && peer.port() >= 61_000, "{peer}");
        }
        // Answers and errors of all kinds find back.
        for to in ["10.90.0.2", "fd10:90::2"] {
            assert!(pod.reaches(to), "{to}");
        }
        for to in ["10.90.0.2:99", "[fd10:90::2]:99"] {
            assert!(is_refused(&pod.net, to), "{to}");
        }
        let outside = Service::new(host, 8082, "the host sees");
        assert_eq!(ask_udp(&pod.net, "10.90.0.2:8082"), Some("the host sees 10.90.0.1".into()));
        drop(outside);
        for (to, from) in [("10.90.0.1:8080", "10.90.0.2"), ("[fd10:90::1]:8080", "fd10:90::2")] {
            assert_eq!(ask_tcp(host, to), Some(format!("the pod sees {from}")));
        }
        assert_eq!(ask_udp(host, "10.90.0.1:8080"), Some("the pod sees 10.90.0.2".into()));
        // All else of the address is the host's.
        for session in [&mut into, &mut out] {
            session.types("shared");
        }
        assert_eq!(ask_tcp(host, "10.90.0.1:8081"), Some("the node sees 10.90.0.2".into()));
        assert_eq!(ask_udp(host, "[fd10:90::1]:8081"), Some("the node sees fd10:90::2".into()));
        assert!(seen(node, host, "10.90.0.2:7001").port() < 61_000);
        assert!(reaches(host, "10.90.0.1") && reaches(host, "fd10:90::1") && reaches(node, "10.90.0.2"));
        assert!(is_refused(node, "10.90.0.2:98") && is_refused(host, "10.90.0.1:98"));
        assert_eq!(problems(&daemon), [] as [&str; 0]);
        let rules: Vec<NatStatus> = daemon.call(&Request::NatList(Nothing {}));
        assert!(rules.iter().all(|rule| rule.flows_made > 0 && rule.exhausted == 0), "{rules:?}");

        // Who would have the kernel take the same ports is told so; and that all of an address cannot be had.
        let range = "/proc/sys/net/ipv4/ip_local_port_range";
        node.inside(move || std::fs::write(range, "1024 65000").unwrap()).join().unwrap();
        let one = serde_json::json!([{"name": "all", "kind": "one-to-one", "external": "10.90.0.1", "internal": "10.1.0.2"}]);
        set(&daemon, one);
        let told = problems(&daemon);
        assert!(told.iter().any(|it| it.contains("rule all") && it.contains("name a protocol")), "{told:?}");
        assert!(told.iter().any(|it| it.contains("ip_local_port_range='1024 60999'")), "{told:?}");
        delete(&daemon, "all");

        // Without the rules everything is the host's again, and without the uplink.
        for rule in ["masquerade", "web4", "web6", "dns4"] {
            delete(&daemon, rule);
        }
        assert_eq!(ask_tcp(host, "10.90.0.1:8080"), None);
        for session in [&mut into, &mut out] {
            session.types("the host's alone");
        }
        let _: Done = daemon.call(&Request::PortDelete(ByName { name: "up90".parse().unwrap() }));
        for session in [&mut into, &mut out] {
            session.types("without the uplink");
        }
        drop(hosts);
        for net in [host, node, &pod.net] {
            assert_eq!(checksum_errors(net), 0);
        }
        daemon.assert_conserved();
    }
}

/// Publishes ports of the pod's.
fn publish(daemon: &Daemon, ports: &[&str]) {
    let publish = ports.iter().map(|port| port.parse().unwrap()).collect();
    let (name, settings): (Name, _) =
        ("pod1-2".parse().unwrap(), PortSettings { publish, ..PortSettings::default() });
    let _: Done = daemon.call(&Request::PortSet(PortSet { name, settings }));
}

#[test]
fn published_ports_are_led_past_the_kernel_and_what_it_led_before_goes_on() {
    // Flows are kept when there is an uplink: one that is there already is taken up in the middle.
    let (nodes, daemon) = pair("--cores 0 --flow-pickup");
    let [node, host] = [&nodes[0].node.net, &nodes[1].node.net];
    let pod = &nodes[0].pods[0];
    publish(&daemon, &["tcp/8080:80", "udp/8080:80", "tcp/2200:2222"]);
    let _inside = Service::new(&pod.net, 80, "the pod sees");
    wait_until("by the kernel", LONG, || ask_tcp(host, "10.90.0.1:8080").is_some());
    // A connection that the kernel translates outlives that there is an uplink.
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = pod.net.inside(move || {
        let listener = TcpListener::bind("10.1.0.2:2222").unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            stream.write_all(&byte).unwrap();
        }
    });
    is_ready.recv().unwrap();
    let connect = || TcpStream::connect_timeout(&"10.90.0.1:2200".parse().unwrap(), LONG).unwrap();
    let mut old = host.inside(connect).join().unwrap();
    old.set_read_timeout(Some(LONG)).unwrap();
    let mut types = |when: &str| {
        let mut byte = [0];
        let echo = old.write_all(b"x").and_then(|()| old.read_exact(&mut byte));
        assert!(echo.is_ok(), "{when}: {echo:?}: {:?}", daemon.stats().drops);
    };
    types("by the kernel");
    nodes[0].share(&daemon, &nodes[1], LINK);
    types("beside an uplink");
    // Who asks now goes past it, with its own address: the packets of the host port stand still.
    let by_kernel = || daemon.port("host").counters.rx_packets;
    let before = by_kernel();
    for _ in 0..5 {
        for (to, from) in [("10.90.0.1:8080", "10.90.0.2"), ("[fd10:90::1]:8080", "fd10:90::2")] {
            assert_eq!(ask_tcp(host, to), Some(format!("the pod sees {from}")));
            assert_eq!(ask_udp(host, to), Some(format!("the pod sees {from}")));
        }
    }
    assert!(by_kernel() < before + 8, "{before}, then {}", by_kernel());
    // The node itself, by its address and by 127.0.0.1, and the pod: by the kernel as ever.
    assert!(ask_tcp(node, "10.90.0.1:8080").is_some() && ask_tcp(node, "127.0.0.1:8080").is_some());
    assert!(ask_tcp(&pod.net, "10.90.0.1:8080").is_some());
    types("much later");
    // What is published no more is nobody's; what leads elsewhere now leads there.
    publish(&daemon, &["tcp/8080:81", "tcp/2200:2222"]);
    assert_eq!((ask_tcp(host, "10.90.0.1:8080"), ask_udp(host, "10.90.0.1:8080")), (None, None));
    let _other = Service::new(&pod.net, 81, "elsewhere");
    assert_eq!(ask_tcp(host, "10.90.0.1:8080"), Some("elsewhere 10.90.0.2".into()));
    let _: Done = daemon.call(&Request::PortDelete(ByName { name: "up90".parse().unwrap() }));
    assert_eq!(ask_tcp(host, "10.90.0.1:8080"), Some("elsewhere 10.90.0.2".into()));
    types("without the uplink");
    drop(old);
    server.join().unwrap();
    daemon.assert_conserved();
}
