//! Real kernels at both ends: namespaces with default device settings, the real daemon between them.

use crate::switchd;
use std::net::UdpSocket;
use std::time::Duration;
use switch_api::{Flood, PortSet, PortSettings, Request, SourceGuard, StaticMac, Vid, VidRange, Vlan};
use switch_lab::frames::{has_mark, plain, station, tagged};
use switch_lab::transfer::tcp;
use switch_lab::{Daemon, Node, Pod, RawSocket, bind_udp, uninterrupted, wait_until};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

/// A node with a daemon, one bridge, and a pod for each of `settings`.
fn node_with(settings: Vec<PortSettings>) -> (Node, Daemon, Vec<Pod>) {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let mut pods = Vec::new();
    for (n, settings) in settings.into_iter().enumerate() {
        let pod = node.pod(n as u8 + 1);
        daemon.attach(&pod, "br0", settings);
        pods.push(pod);
    }
    (node, daemon, pods)
}

fn pods(n: usize) -> (Node, Daemon, Vec<Pod>) {
    node_with(vec![PortSettings::default(); n])
}

fn raw(pod: &Pod) -> RawSocket {
    RawSocket::open(&pod.net, "eth0").unwrap()
}

/// Sends `count` datagrams and gets each back; how many came back right.
fn udp_transfer(from: &Pod, to: &Pod, address: std::net::IpAddr, count: usize) -> usize {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = to.net.inside(move || {
        let socket = bind_udp((address, 7001));
        socket.set_read_timeout(Some(LONG)).unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 2000];
        for _ in 0..count {
            let (len, peer) = uninterrupted(|| socket.recv_from(&mut buffer)).unwrap();
            socket.send_to(&buffer[..len], peer).unwrap();
        }
    });
    is_ready.recv().unwrap();
    let client = from.net.inside(move || {
        let any: std::net::IpAddr = if address.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.connect((address, 7001)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut buffer = [0; 2000];
        let right = (0..count).filter(|i| {
            let datagram = vec![*i as u8; 1 + i * 7 % 1400];
            socket.send(&datagram).unwrap();
            let len = uninterrupted(|| socket.recv(&mut buffer)).unwrap();
            buffer[..len] == datagram
        });
        right.count()
    });
    let right = client.join().unwrap();
    server.join().unwrap();
    right
}

fn vid(n: u32) -> Vid {
    Vid::try_from(n).unwrap()
}

fn access(n: u32) -> PortSettings {
    PortSettings { vlan: Vlan::Access { vid: vid(n) }, ..PortSettings::default() }
}

#[test]
fn tcp_udp_and_ping_cross_with_default_offloads() {
    let (_node, daemon, pods) = pods(2);
    wait_until("ping over IPv4", LONG, || pods[0].reaches("10.66.0.2"));
    wait_until("ping over IPv6", LONG, || pods[0].reaches("fd66::2"));
    for address in ["10.66.0.2", "fd66::2"] {
        let to: std::net::IpAddr = address.parse().unwrap();
        assert_eq!(tcp(&pods[0].net, &pods[1].net, to, 2_000_000), 2_000_000, "TCP over {address}");
        assert_eq!(udp_transfer(&pods[0], &pods[1], to, 500), 500, "UDP over {address}");
    }
    let stats = daemon.stats();
    // TCP finds out how much fits by sending more, and a pod speaks before its port is open; every other reason would be a mistake of ours.
    let expected = ["no-other-member", "port-closed", "rx-missed", "tx-queue-full", "tx-refused"];
    assert!(stats.drops.iter().all(|drop| expected.contains(&drop.reason.as_str())), "{:?}", stats.drops);
    for pod in &pods {
        // The far kernel drops and counts what arrives with a wrong checksum.
        let snmp = pod.net.run("cat /proc/net/snmp");
        let tcp: Vec<&str> = snmp.lines().filter(|line| line.starts_with("Tcp:")).collect();
        let at = tcp[0].split_whitespace().position(|name| name == "InCsumErrors").unwrap();
        assert_eq!(tcp[1].split_whitespace().nth(at), Some("0"), "checksum errors");
    }
    daemon.assert_conserved();
}

#[test]
fn only_the_destination_gets_a_known_unicast() {
    let (_node, daemon, pods) = pods(3);
    let sockets: Vec<_> = pods.iter().map(raw).collect();
    // Each says something once, so that the switch knows where they are.
    for (n, socket) in sockets.iter().enumerate() {
        socket.send(&plain(switch_api::Mac([0xff; 6]), station(n as u8), 9, 60));
    }
    wait_until("three stations are known", LONG, || {
        let known: Vec<switch_api::FdbEntry> = daemon.call(&Request::FdbList(Default::default()));
        (0..3).all(|n| known.iter().any(|entry| entry.mac == station(n)))
    });
    sockets[0].send(&plain(station(1), station(0), 1, 60));
    assert!(sockets[1].recv(LONG, |frame| has_mark(frame, 1)).is_some());
    assert!(sockets[2].recv(SHORT, |frame| has_mark(frame, 1)).is_none(), "it was flooded");
    sockets[0].send(&plain(station(77), station(0), 2, 60));
    assert!(sockets[1].recv(LONG, |frame| has_mark(frame, 2)).is_some(), "unknown unicast is flooded");
    assert!(sockets[2].recv(LONG, |frame| has_mark(frame, 2)).is_some());
    assert!(sockets[0].recv(SHORT, |frame| has_mark(frame, 2) && frame[0] != 2).is_none());
}

#[test]
fn frames_that_are_wrong_are_dropped_by_name() {
    let (_node, daemon, pods) = pods(2);
    let sockets: Vec<_> = pods.iter().map(raw).collect();
    let (a, b) = (station(1), station(2));
    let zero = switch_api::Mac([0; 6]);
    let cases = [
        ("source-mac-zero", plain(b, zero, 1, 60)),
        ("source-mac-group", plain(b, switch_api::Mac([0x01, 0, 0, 0, 0, 1]), 1, 60)),
        ("link-local-group", plain(switch_api::Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]), a, 1, 60)),
        ("vlan-tagged", tagged(b, a, 5, 1, 64)),
    ];
    for (reason, frame) in cases {
        let before = daemon.drops(reason);
        sockets[0].send(&frame);
        wait_until(reason, LONG, || daemon.drops(reason) > before);
        assert!(sockets[1].recv(SHORT, |frame| has_mark(frame, 1)).is_none(), "{reason}: it was forwarded");
    }
    // What follows a wrong frame is not lost with it.
    sockets[0].send(&plain(b, a, 3, 60));
    assert!(sockets[1].recv(LONG, |frame| has_mark(frame, 3)).is_some());
    daemon.assert_conserved();
}

#[test]
fn vlans_keep_apart_and_trunks_carry_tags() {
    let trunk = PortSettings {
        vlan: Vlan::Trunk { vids: vec![VidRange { first: vid(10), last: vid(20) }], native: Some(vid(1)) },
        ..PortSettings::default()
    };
    let (_node, daemon, pods) = node_with(vec![access(10), access(11), trunk, access(10), access(1)]);
    let sockets: Vec<_> = pods.iter().map(raw).collect();
    let everybody = switch_api::Mac([0xff; 6]);
    let got = |socket: usize, mark| sockets[socket].recv(LONG, move |frame| has_mark(frame, mark));
    let hears =
        |socket: usize, mark| sockets[socket].recv(SHORT, move |frame| has_mark(frame, mark)).is_some();

    sockets[0].send(&plain(everybody, station(1), 1, 60));
    let on_trunk = got(2, 1).expect("VLAN 10 leaves the trunk");
    assert_eq!(on_trunk[12..16], [0x81, 0x00, 0, 10], "with its tag");
    assert_eq!(&got(3, 1).expect("the other port of VLAN 10")[12..14], &[0x88, 0xb6], "without a tag");
    assert!(!hears(1, 1) && !hears(4, 1), "other VLANs do not hear it");

    // In by the trunk with a priority of 5: out without a tag in VLAN 11.
    sockets[2].send(&tagged(everybody, station(3), 0xa00b, 2, 64));
    assert_eq!(&got(1, 2).expect("VLAN 11")[12..14], &[0x88, 0xb6]);
    assert!(!hears(0, 2));

    // The native VLAN goes without a tag, both ways.
    sockets[2].send(&plain(everybody, station(3), 3, 60));
    assert!(got(4, 3).is_some() && !hears(0, 3));
    sockets[4].send(&plain(everybody, station(5), 4, 60));
    assert_eq!(&got(2, 4).expect("native")[12..14], &[0x88, 0xb6]);

    let before = daemon.drops("vlan-not-member");
    sockets[2].send(&tagged(everybody, station(3), 99, 5, 64));
    wait_until("a foreign VLAN", LONG, || daemon.drops("vlan-not-member") > before);
    daemon.assert_conserved();
}

#[test]
fn isolation_flood_switches_and_static_stations_hold() {
    let isolated = PortSettings { isolated: true, ..PortSettings::default() };
    let quiet = Flood { unknown_unicast: false, multicast: false, broadcast: true };
    let quiet = PortSettings { flood: quiet, ..PortSettings::default() };
    let (_node, daemon, pods) = node_with(vec![isolated.clone(), isolated, PortSettings::default(), quiet]);
    let sockets: Vec<_> = pods.iter().map(raw).collect();
    let got = |socket: usize, mark| sockets[socket].recv(LONG, move |frame| has_mark(frame, mark)).is_some();
    let hears =
        |socket: usize, mark| sockets[socket].recv(SHORT, move |frame| has_mark(frame, mark)).is_some();

    sockets[0].send(&plain(switch_api::Mac([0xff; 6]), station(1), 1, 60));
    assert!(got(2, 1) && got(3, 1) && !hears(1, 1), "an isolated port was heard by another");
    sockets[0].send(&plain(station(50), station(1), 2, 60));
    assert!(got(2, 2) && !hears(3, 2), "a port that takes no unknown unicast got some");
    sockets[0].send(&plain(switch_api::Mac([0x01, 0, 0x5e, 0, 0, 1]), station(1), 3, 60));
    assert!(got(2, 3) && !hears(3, 3), "a port that takes no multicast got some");

    let entry = StaticMac {
        mac: station(60),
        bridge: "br0".parse().unwrap(),
        vid: Vid::DEFAULT,
        port: pods[2].device.parse().unwrap(),
        dst: None,
        owner: Default::default(),
    };
    let _: switch_api::Done = daemon.call(&Request::FdbAdd(entry));
    let before = daemon.drops("source-mac-pinned");
    sockets[3].send(&plain(switch_api::Mac([0xff; 6]), station(60), 4, 60));
    wait_until("somebody else's MAC", LONG, || daemon.drops("source-mac-pinned") > before);
    assert!(!hears(2, 4));
    sockets[3].send(&plain(station(60), station(61), 5, 60));
    assert!(got(2, 5), "the static station did not get its frame");
}

#[test]
fn a_storm_is_limited_and_a_port_cannot_fill_the_table() {
    let limited = PortSettings { storm_pps: Some(50), learn_limit: Some(10), ..PortSettings::default() };
    let (_node, daemon, pods) = node_with(vec![limited, PortSettings::default()]);
    let sockets: Vec<_> = pods.iter().map(raw).collect();
    let mut n = 0u8;
    wait_until("the storm limit", LONG, || {
        for _ in 0..20 {
            sockets[0].send(&plain(switch_api::Mac([0xff; 6]), station(n), 1, 60));
            n = n.wrapping_add(1);
        }
        daemon.drops("storm-limit") >= 200
    });
    assert!(daemon.port("pod1").learned <= 10, "{}", daemon.port("pod1").learned);
}

/// A pod that says what is not so reaches nobody; what it says that is so reaches everybody.
#[test]
fn a_guarded_port_speaks_for_itself_only() {
    let (_node, daemon, pods) = node_with(vec![PortSettings::default(), PortSettings::default()]);
    let is_reached = || pods[0].reaches("10.66.0.2");
    wait_until("without a guard", LONG, is_reached);
    let own_link_local = pods[0].net.run("ip -6 -o addr show dev eth0 scope link");
    let other_link_local = pods[1].net.run("ip -6 -o addr show dev eth0 scope link");
    let address = |said: &str| said.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned();
    let addresses = vec!["10.66.0.1/32".parse().unwrap()];
    let guard = SourceGuard { macs: vec![pods[0].mac()], addresses };
    let settings = PortSettings { source_guard: Some(guard), ..PortSettings::default() };
    let set = PortSet { name: pods[0].device.parse().unwrap(), settings };
    let _: switch_api::Done = daemon.call(&Request::PortSet(set));

    // Everything of its own: ARP anew, ping, and IPv6 by the address that its MAC makes.
    pods[0].net.ip("neigh flush dev eth0");
    assert!(is_reached());
    let far = format!("{}%eth0", address(&other_link_local));
    assert!(address(&own_link_local).starts_with("fe80:"));
    wait_until("IPv6", LONG, || pods[0].reaches(&far));

    // Another address: neither what it sends nor what it says of itself gets through.
    pods[1].net.ip("neigh flush dev eth0");
    pods[0].net.ip("addr add 10.66.0.77/24 dev eth0");
    let from_other = || pods[0].net.try_run("ping -n -q -c 1 -W 1 -I 10.66.0.77 10.66.0.2").status.success();
    assert!(!from_other() && daemon.drops("spoofed-address") + daemon.drops("spoofed-neighbour") > 0);
    assert!(!pods[1].reaches("10.66.0.77") && daemon.drops("spoofed-neighbour") > 0);
    assert!(is_reached(), "its own address was taken with the other");
    // Another MAC.
    let before = daemon.drops("spoofed-mac");
    raw(&pods[0]).send(&plain(pods[1].mac(), station(9), 1, 60));
    wait_until("another MAC", LONG, || daemon.drops("spoofed-mac") > before);

    // Without the guard it may again.
    let set = PortSet { name: pods[0].device.parse().unwrap(), settings: PortSettings::default() };
    let _: switch_api::Done = daemon.call(&Request::PortSet(set));
    wait_until("without a guard again", LONG, from_other);
    daemon.assert_conserved();
}

#[test]
fn pings_cross_between_two_workers() {
    let node = Node::new();
    let daemon = node.start(&switchd().with("--cores 0,1"));
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    for (worker, pod) in pods.iter().enumerate() {
        daemon.attach(pod, "br0", PortSettings { worker: Some(worker as u16), ..PortSettings::default() });
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let flood = pods[0].net.run("ping -n -q -c 2000 -i 0.002 -s 1000 10.66.0.2");
    assert!(flood.contains(" 0% packet loss"), "{flood}");
    daemon.assert_conserved();
    // And after both lanes moved to one worker.
    let set = switch_api::PortSet {
        name: "pod1".parse().unwrap(),
        settings: PortSettings { worker: Some(1), ..PortSettings::default() },
    };
    let _: switch_api::Done = daemon.call(&Request::PortSet(set));
    assert_eq!(daemon.port("pod1").workers, [1]);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}
