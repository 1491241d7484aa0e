//! Real kernels on different bridges: the switch is their gateway.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;
use switch_api::{BridgeStatus, NeighEntry, NeighState, PortSettings, Request};
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const LONG: Duration = Duration::from_secs(10);

fn switchd() -> Options {
    Options::new(env!("CARGO_BIN_EXE_switchd"))
}

/// A daemon with a bridge for each of `nets`, its gateways, and a pod on each.
fn routed(options: &Options, nets: &[u8]) -> (Node, Daemon, Vec<Pod>) {
    let node = Node::new();
    let daemon = node.start(options);
    let mut pods = Vec::new();
    for (n, net) in nets.iter().enumerate() {
        let bridge = format!("br{net}");
        daemon.bridge(&bridge);
        daemon.gateway(&bridge, &format!("10.{net}.0.1/24"));
        daemon.gateway(&bridge, &format!("fd10:{net}::1/64"));
        let pod = node.pod_on(*net, 2);
        let worker = options.words.iter().any(|word| word == "0,1").then_some(n as u16 % 2);
        daemon.attach(&pod, &bridge, PortSettings { worker, ..PortSettings::default() });
        pods.push(pod);
    }
    (node, daemon, pods)
}

/// Sends `bytes` patterned bytes over TCP; how many arrived right and in order.
fn tcp_transfer(from: &Pod, to: &Pod, address: &str, bytes: usize) -> usize {
    let address: IpAddr = address.parse().unwrap();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = to.net.inside(move || {
        let listener = TcpListener::bind((address, 7000)).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received.iter().enumerate().take_while(|(i, byte)| (i % 251) as u8 == **byte).count()
    });
    is_ready.recv().unwrap();
    let client = from.net.inside(move || {
        let mut stream = TcpStream::connect_timeout(&(address, 7000).into(), LONG).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream.write_all(&(0..bytes).map(|i| (i % 251) as u8).collect::<Vec<_>>()).unwrap();
    });
    client.join().unwrap();
    server.join().unwrap()
}

fn neighbours(daemon: &Daemon) -> Vec<NeighEntry> {
    daemon.call(&Request::NeighList(Default::default()))
}

#[test]
fn pods_on_two_bridges_talk_through_their_gateways() {
    let (_node, daemon, pods) = routed(&switchd(), &[1, 2]);
    // The very first packet arrives: it waits for its neighbour to answer.
    let said = pods[0].net.run("ping -n -c 5 -i 0.2 -W 2 10.2.0.2");
    assert!(said.contains("5 received") && said.contains("ttl=63"), "{said}");
    let said = pods[0].net.run("ping -n -c 5 -i 0.2 -W 2 fd10:2::2");
    assert!(said.contains("5 received") && said.contains("ttl=63"), "{said}");
    for gateway in ["10.1.0.1", "10.2.0.1", "fd10:1::1", "fd10:2::1"] {
        assert!(pods[0].reaches(gateway), "the gateway {gateway} does not answer");
    }
    for address in ["10.2.0.2", "fd10:2::2"] {
        assert_eq!(tcp_transfer(&pods[0], &pods[1], address, 2_000_000), 2_000_000, "TCP over {address}");
    }
    let known = neighbours(&daemon);
    for pod in &pods {
        let entry = known.iter().find(|entry| entry.address.to_string() == pod.ip);
        let entry = entry.unwrap_or_else(|| panic!("{} is not among {known:?}", pod.ip));
        assert_eq!((entry.mac, entry.state), (Some(pod.mac()), NeighState::Reachable));
    }
    let snmp = pods[1].net.run("cat /proc/net/snmp");
    let ip: Vec<&str> = snmp.lines().filter(|line| line.starts_with("Ip:")).collect();
    let at = ip[0].split_whitespace().position(|name| name == "InHdrErrors").unwrap();
    assert_eq!(ip[1].split_whitespace().nth(at), Some("0"), "the far kernel found a header wrong");
    daemon.assert_conserved();
}

#[test]
fn routing_between_workers_loses_no_first_packet() {
    let (_node, daemon, pods) = routed(&switchd().with("--cores 0,1"), &[1, 2, 3]);
    for (pod, far) in [(0, "10.2.0.2"), (1, "10.3.0.2"), (2, "10.1.0.2"), (0, "fd10:2::2"), (1, "fd10:1::2")]
    {
        let said = pods[pod].net.run(&format!("ping -n -c 3 -i 0.2 -W 2 {far}"));
        assert!(said.contains("3 received"), "{far}: {said}");
    }
    assert_eq!(tcp_transfer(&pods[0], &pods[1], "10.2.0.2", 2_000_000), 2_000_000);
    daemon.assert_conserved();
}

#[test]
fn gateways_survive_a_restart_and_keep_their_macs() {
    let (node, mut daemon, pods) = routed(&switchd().keeping_state(), &[1, 2]);
    let bridges =
        |daemon: &Daemon| daemon.call::<Vec<BridgeStatus>>(&Request::BridgeList(Default::default()));
    let before = bridges(&daemon);
    assert_eq!(before[0].addresses.len(), 2);
    assert_ne!(before[0].mac, before[1].mac);
    daemon.stop(false);
    let daemon = node.start(&switchd().keeping_state());
    let after = bridges(&daemon);
    assert_eq!(before[0].mac, after[0].mac);
    assert_eq!(before[1].addresses, after[1].addresses);
    wait_until("ping", LONG, || pods[0].reaches("10.2.0.2"));
}
