//! TAP and host ports: real kernels at both ends, with the device settings that the kernel chose.

use crate::sctp::{sctp, sctp6};
use crate::switchd;
use std::io::{Read, Write};
use std::time::Duration;
use switch_api::{ApiError, ByName, Code, Done, PortKind, PortSettings, PortState, Request};
use switch_lab::frames::{plain, station};
use switch_lab::node::tap_port;
use switch_lab::transfer::{checksum_errors, tcp, udp};
use switch_lab::{Daemon, Net, Node, Options, Pod, RawSocket, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// A node with `n` pods joined by TAP, `10.66.0.1` and so on.
pub fn node_with_taps(options: &Options, n: u8) -> (Node, Daemon, Vec<Pod>) {
    let node = Node::new();
    let daemon = node.start(options);
    daemon.bridge("br0");
    let pods: Vec<_> = (1..=n).map(|n| node.bare_pod(n)).collect();
    for pod in &pods {
        daemon.attach_tap(pod, "br0", PortSettings::default());
    }
    (node, daemon, pods)
}

fn delete(daemon: &Daemon, name: &str) {
    let _: Done = daemon.call(&Request::PortDelete(ByName { name: name.parse().unwrap() }));
}

fn refusal(daemon: &Daemon, port: switch_api::Port) -> ApiError {
    daemon.client().call::<Done>(&Request::PortAdd(Box::new(port))).unwrap_err()
}

fn is(daemon: &Daemon, port: &str, state: PortState) -> bool {
    daemon.port(port).state == state
}

fn reaches(from: &Net, address: &str) -> bool {
    from.try_run(&format!("ping -n -c 1 -W 1 {address}")).status.success()
}

/// Pings, TCP and UDP, both IP versions, both ways. What arrives wrong the far kernel counts.
fn everything_crosses(daemon: &Daemon, a: (&Net, u8), b: (&Net, u8)) {
    for ((from, _), (to, n)) in [(a, b), (b, a)] {
        for address in [format!("10.66.0.{n}"), format!("fd66::{n}")] {
            wait_until(&format!("ping {address}"), LONG, || reaches(from, &address));
            let to_address = address.parse().unwrap();
            assert_eq!(tcp(from, to, to_address, 8_000_000), 8_000_000, "TCP to {address}");
            assert_eq!(udp(from, to, to_address, 300), 300, "UDP to {address}");
        }
    }
    for net in [a.0, b.0] {
        assert_eq!(checksum_errors(net), 0, "wrong checksums or headers");
    }
    daemon.assert_conserved();
}

#[test]
fn everything_crosses_from_tap_to_tap() {
    let (_node, daemon, pods) = node_with_taps(&switchd(), 2);
    everything_crosses(&daemon, (&pods[0].net, 1), (&pods[1].net, 2));
}

#[test]
fn everything_crosses_from_tap_to_xdp() {
    let (node, daemon, pods) = node_with_taps(&switchd(), 1);
    let xdp = node.pod(2);
    daemon.attach(&xdp, "br0", PortSettings::default());
    everything_crosses(&daemon, (&pods[0].net, 1), (&xdp.net, 2));
}

#[test]
fn everything_crosses_from_the_host_to_both() {
    let (node, daemon, pods) = node_with_taps(&switchd(), 1);
    let xdp = node.pod(2);
    daemon.attach(&xdp, "br0", PortSettings::default());
    daemon.attach_host(9, "br0");
    everything_crosses(&daemon, (&node.net, 9), (&pods[0].net, 1));
    everything_crosses(&daemon, (&node.net, 9), (&xdp.net, 2));
}

#[test]
fn the_device_is_dressed_and_goes_with_its_port() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pod = node.bare_pod(1);
    let mut port = tap_port(&pod, "br0", PortSettings { mtu: Some(1400), ..PortSettings::default() });
    if let PortKind::Tap { mac, routes, .. } = &mut port.kind {
        *mac = None;
        for (to, via) in [("0.0.0.0/0", "10.66.0.254"), ("fd77::/64", "fd66::fe")] {
            let (to, via) = (to.parse().unwrap(), Some(via.parse().unwrap()));
            routes.push(switch_api::DeviceRoute::new(to, via));
        }
        let to = |text: &str| switch_api::DeviceRoute::new(text.parse().unwrap(), None);
        routes.push(switch_api::DeviceRoute {
            metric: Some(77),
            mtu: Some(1350),
            advmss: Some(1200),
            ..to("10.77.0.0/16")
        });
        // Another of the same, which is asked later; and one in a table of its own.
        routes.push(switch_api::DeviceRoute { metric: Some(78), scope: Some(200), ..to("10.77.0.0/16") });
        routes.push(switch_api::DeviceRoute { table: Some(1000), metric: Some(5), ..to("fd78::/64") });
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    let PortKind::Tap { mac: Some(mac), .. } = daemon.port("tap1").port.kind else {
        panic!("no MAC was chosen")
    };
    let shown = pod.net.ip("-d addr show eth0");
    for expected in
        ["mtu 1400", "10.66.0.1/24", "fd66::1/64", &format!("ether {mac}"), "tun type tap", "persist on"]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert!(!shown.contains("tentative") || !shown.contains("fd66::1/64 scope global tentative"), "{shown}");
    assert!(pod.net.ip("route").contains("default via 10.66.0.254 dev eth0"));
    assert!(pod.net.ip("-6 route").contains("fd77::/64 via fd66::fe dev eth0"));
    let shown = pod.net.ip("route show 10.77.0.0/16");
    for expected in ["scope link metric 77 mtu 1350 advmss 1200", "scope site metric 78"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert!(pod.net.ip("-6 route show table 1000").contains("fd78::/64 dev eth0 proto static metric 5"));
    assert_eq!(daemon.port("tap1").mtu, 1400);

    let settings = PortSettings { mtu: Some(1300), ..PortSettings::default() };
    let set = switch_api::PortSet { name: "tap1".parse().unwrap(), settings };
    let _: Done = daemon.call(&Request::PortSet(set));
    assert!(pod.net.ip("link show eth0").contains("mtu 1300"));
    assert_eq!(daemon.port("tap1").mtu, 1300);
    pod.net.ip("link set eth0 mtu 1290");
    wait_until("the pod's own MTU is known", LONG, || daemon.port("tap1").mtu == 1290);

    delete(&daemon, "tap1");
    assert!(!pod.net.try_run("ip link show eth0").status.success(), "the device stayed");
    daemon.assert_conserved();
}

#[test]
fn mistakes_are_refused_all_at_once_and_change_nothing() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pod = node.bare_pod(1);
    let good = tap_port(&pod, "br0", PortSettings::default());
    let with = |change: &dyn Fn(&mut PortKind)| {
        let mut port = good.clone();
        change(&mut port.kind);
        refusal(&daemon, port)
    };
    let error = with(&|kind| {
        let PortKind::Tap { device, mac, addresses, routes, queues, .. } = kind else { return };
        *device = "no/name".into();
        *mac = Some(switch_api::Mac([0xff; 6]));
        addresses.push("0.0.0.0/0".parse().unwrap());
        let via = Some("fd66::1".parse().unwrap());
        let route = switch_api::DeviceRoute::new("10.0.0.1/8".parse().unwrap(), via);
        routes.push(switch_api::DeviceRoute { mtu: Some(67), table: Some(0), advmss: Some(0), ..route });
        *queues = 0;
    });
    for part in [
        "no/name",
        "ff:ff",
        "0.0.0.0/0",
        "10.0.0.1/8",
        "other IP version",
        "MTU of 67",
        "table 0",
        "segments of 0",
        "queues",
    ] {
        assert!(error.message.contains(part), "{part}: {error:?}");
    }
    let error = with(&|kind| {
        let PortKind::Tap { netns, .. } = kind else { return };
        *netns = Some("/run/netns/nosuch".into());
    });
    assert_eq!((error.code, error.data.field.as_deref()), (Code::NotFound, Some("netns")));
    let error = with(&|kind| {
        let PortKind::Tap { netns, .. } = kind else { return };
        *netns = Some("/etc/passwd".into());
    });
    assert_eq!(error.data.field.as_deref(), Some("netns"), "{error:?}");
    // The last step fails: nothing of the others stays.
    let error = with(&|kind| {
        let PortKind::Tap { routes, .. } = kind else { return };
        let via = Some("192.0.2.1".parse().unwrap());
        routes.push(switch_api::DeviceRoute::new("10.0.0.0/8".parse().unwrap(), via));
    });
    assert_eq!(error.data.field.as_deref(), Some("routes"), "{error:?}");
    assert!(!pod.net.try_run("ip link show eth0").status.success(), "half a device stayed");
    // Somebody else's device of the same name, also a TAP.
    for kind in ["link add eth0 type veth peer name eth1", "tuntap add eth0 mode tap"] {
        pod.net.ip(kind);
        let error = with(&|_| ());
        assert_eq!(error.code, Code::Busy);
        assert!(error.message.contains("eth0") && error.message.contains("did not make"), "{error:?}");
        pod.net.ip("link del eth0");
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(good.clone())));
    let mut twice = good.clone();
    twice.name = "other".parse().unwrap();
    assert_eq!(refusal(&daemon, twice.clone()).data.field.as_deref(), Some("addresses"));
    twice.kind.addressed_mut().unwrap().0.clear();
    assert_eq!(refusal(&daemon, twice).data.field.as_deref(), Some("device"));
    daemon.assert_conserved();
}

#[test]
fn what_the_pod_does_to_its_device_is_noticed_and_mended() {
    let (_node, daemon, pods) = node_with_taps(&switchd(), 2);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let pod = &pods[1].net;
    pod.ip("link set eth0 down");
    wait_until("down", LONG, || is(&daemon, "tap2", PortState::Down));
    assert!(daemon.port("tap2").reason.unwrap().contains("is down"));
    // Renamed, and without the alias that we wrote on it.
    pod.ip("link set eth0 name lan0");
    pod.ip("link set lan0 alias mine");
    pod.ip("link set lan0 up");
    wait_until("up", LONG, || is(&daemon, "tap2", PortState::Up));
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    assert!(!pod.try_run("ip link show eth0").status.success(), "a second device was made");

    pod.ip("link del lan0");
    wait_until("deleted", LONG, || is(&daemon, "tap2", PortState::Down));
    wait_until("made again", LONG, || is(&daemon, "tap2", PortState::Up));
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    // A port that is down takes its device along as well.
    pod.ip("link set eth0 down");
    wait_until("down", LONG, || is(&daemon, "tap2", PortState::Down));
    delete(&daemon, "tap2");
    assert!(!pod.try_run("ip link show eth0").status.success(), "the device stayed");
    daemon.assert_conserved();
}

/// Superframes of a sender, or no superframe if there is none: bytes a frame, on average.
fn mean_frame(daemon: &Daemon, port: &str) -> u64 {
    let counters = daemon.port(port).counters;
    counters.rx_bytes / counters.rx_packets.max(1)
}

#[test]
fn a_superframe_crosses_as_one_frame() {
    let (_node, daemon, pods) = node_with_taps(&switchd(), 2);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    for address in ["10.66.0.2", "fd66::2"] {
        assert_eq!(tcp(&pods[0].net, &pods[1].net, address.parse().unwrap(), 50_000_000), 50_000_000);
    }
    let mean = mean_frame(&daemon, "tap1");
    assert!(mean > 3000, "the sender's frames had {mean} bytes on average");
    assert_eq!(daemon.drops("mtu-exceeded"), 0, "an MTU is held against segments");
    daemon.assert_conserved();
}

#[test]
fn jumbo_frames_cross() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    let vid = |n: u32| switch_api::Vid::try_from(n).unwrap();
    let trunk = switch_api::Vlan::Trunk {
        vids: vec![switch_api::VidRange { first: vid(1), last: vid(9) }],
        native: Some(vid(1)),
    };
    for pod in &pods {
        let settings = PortSettings { mtu: Some(9000), vlan: trunk.clone(), ..PortSettings::default() };
        daemon.attach_tap(pod, "br0", settings);
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    for size in [1500, 4000, 8972] {
        pods[0].net.run(&format!("ping -n -c 3 -W 2 -M do -s {size} 10.66.0.2"));
    }
    everything_crosses(&daemon, (&pods[0].net, 1), (&pods[1].net, 2));
}

/// Two bridges, joined by a cable that carries tags: into it each superframe goes in segments and with a tag, out
/// of it without. What is unfinished moves with the bytes in front of it.
#[test]
fn unfinished_checksums_cross_a_cable_with_tags() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    node.net.ip("link add cable0 mtu 1600 type veth peer name cable1 mtu 1600");
    let vid = switch_api::Vid::try_from(5).unwrap();
    let access = PortSettings { vlan: switch_api::Vlan::Access { vid }, ..PortSettings::default() };
    let vids = vec![switch_api::VidRange { first: vid, last: vid }];
    let trunk =
        PortSettings { vlan: switch_api::Vlan::Trunk { vids, native: None }, ..PortSettings::default() };
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    for (n, pod) in pods.iter().enumerate() {
        let (bridge, end) = (format!("br{n}"), format!("cable{n}"));
        daemon.bridge(&bridge);
        node.net.ip(&format!("link set {end} up"));
        daemon.attach_tap(pod, &bridge, access.clone());
    }
    for n in 0..2 {
        let port = switch_lab::node::xdp_port(&format!("cable{n}"), &format!("br{n}"), trunk.clone());
        let _: switch_api::Done = daemon.call(&Request::PortAdd(Box::new(port)));
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    everything_crosses(&daemon, (&pods[0].net, 1), (&pods[1].net, 2));
    daemon.assert_conserved();
}

#[test]
fn several_queues_and_two_workers_keep_every_byte() {
    let node = Node::new();
    let daemon = node.start(&switchd().with("--cores 0,1"));
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    for pod in &pods {
        let mut port = tap_port(pod, "br0", PortSettings::default());
        if let PortKind::Tap { queues, .. } = &mut port.kind {
            *queues = 2;
        }
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
        assert_eq!(daemon.port(&pod.device).workers.len(), 2);
    }
    everything_crosses(&daemon, (&pods[0].net, 1), (&pods[1].net, 2));
}

#[test]
fn sctp_crosses_unchanged_between_every_pair_of_kinds() {
    let (node, daemon, taps) = node_with_taps(&switchd(), 2);
    let xdps = [node.pod(3), node.pod(4)];
    xdps.iter().for_each(|pod| daemon.attach(pod, "br0", PortSettings::default()));
    daemon.attach_host(9, "br0");
    let of_pods = taps.iter().chain(&xdps).map(|pod| (&pod.net, "eth0", station(pod.number())));
    let ends: Vec<_> = of_pods.chain([(&node.net, "switch0", station(9))]).collect();
    let sockets: Vec<_> = ends.iter().map(|(net, device, _)| RawSocket::open(net, device).unwrap()).collect();
    for (socket, (.., mac)) in sockets.iter().zip(&ends) {
        socket.send(&plain(switch_api::Mac([0xff; 6]), *mac, 0, 60));
    }
    wait_until("every station is known", LONG, || {
        let known: Vec<switch_api::FdbEntry> = daemon.call(&Request::FdbList(Default::default()));
        ends.iter().all(|(.., mac)| known.iter().any(|entry| entry.mac == *mac))
    });
    for (i, from) in ends.iter().enumerate() {
        for (j, to) in ends.iter().enumerate().filter(|(j, _)| *j != i) {
            for sctp in [sctp, sctp6] {
                let frame = sctp(to.2, from.2, (i * 5 + j) as u8);
                sockets[i].send(&frame);
                let arrived = sockets[j].recv(LONG, |got| got == frame).is_some();
                assert!(arrived, "{} {} to {} {}", from.1, from.2, to.1, to.2);
            }
        }
    }
    daemon.assert_conserved();
}

#[test]
fn a_restart_finds_everything_where_it_was() {
    let options = switchd().keeping_state();
    let (node, mut daemon, pods) = node_with_taps(&options, 2);
    daemon.attach_host(9, "br0");
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    // A connection that lives through all of it.
    let (told, tell) = std::sync::mpsc::channel::<u8>();
    let server = pods[1].net.inside(|| {
        let listener = std::net::TcpListener::bind("10.66.0.2:7000").unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
    });
    let (answer, answers) = std::sync::mpsc::channel::<u8>();
    let client = pods[0].net.inside(move || {
        let mut stream = (0..100)
            .find_map(|_| {
                std::net::TcpStream::connect("10.66.0.2:7000").ok().or_else(|| {
                    std::thread::sleep(Duration::from_millis(20));
                    None
                })
            })
            .unwrap();
        while let Ok(byte) = tell.recv() {
            stream.write_all(&[byte]).unwrap();
            let mut got = [0];
            stream.read_exact(&mut got).unwrap();
            answer.send(got[0]).unwrap();
        }
    });
    let echo = |byte: u8| {
        told.send(byte).unwrap();
        assert_eq!(answers.recv_timeout(Duration::from_secs(60)), Ok(byte));
    };
    echo(1);
    // Its index and its MAC address.
    let identity = |device: &str| {
        let shown = pods[1].net.ip(&format!("-o link show {device}"));
        let mac = shown.split("link/ether ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        (shown.split(':').next().unwrap().to_owned(), mac)
    };
    let before = identity("eth0");

    daemon.kill();
    // The pod goes on living meanwhile.
    pods[1].net.ip("addr add 10.99.0.1/32 dev eth0");
    pods[1].net.ip("link set eth0 name lan0");
    std::thread::sleep(Duration::from_secs(1));
    let known = pods[0].net.ip("neigh show 10.66.0.2");
    assert!(known.contains("lladdr"), "forgotten for want of a carrier: {known:?}");
    let daemon = node.start(&options);
    for port in ["tap1", "tap2", "host"] {
        assert!(is(&daemon, port, PortState::Up), "{port}: {}", daemon.log());
    }
    echo(2);
    assert_eq!(identity("lan0"), before, "another device");
    assert!(pods[1].net.ip("addr show lan0").contains("10.99.0.1/32"), "what the pod added stays");
    assert!(!pods[1].net.try_run("ip link show eth0").status.success(), "a second device was made");
    wait_until("the host", LONG, || reaches(&node.net, "10.66.0.1"));
    let already = mean_frame(&daemon, "tap1");
    assert_eq!(tcp(&pods[0].net, &node.net, "10.66.0.9".parse().unwrap(), 20_000_000), 20_000_000);
    assert!(mean_frame(&daemon, "tap1") > already.max(3000), "offloads were not set again");
    // And renamed while it is served.
    pods[0].net.ip("link set eth0 name lan0");
    echo(3);
    drop(told);
    client.join().unwrap();
    server.join().unwrap();
    delete(&daemon, "tap1");
    assert!(!pods[0].net.try_run("ip link show lan0").status.success(), "the renamed device stayed");
    daemon.assert_conserved();
}

/// A pod may give a device of its own, that was there before, the address of the port's.
#[test]
fn a_restart_takes_the_device_of_the_ports_name() {
    let options = switchd().keeping_state();
    let node = Node::new();
    let mut daemon = node.start(&options);
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    pods[0].net.ip("tuntap add own mode tap vnet_hdr");
    pods.iter().for_each(|pod| daemon.attach_tap(pod, "br0", PortSettings::default()));
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.kill();
    pods[0].net.ip(&format!("link set own address {} up", pods[0].mac()));
    let daemon = node.start(&options);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    delete(&daemon, "tap1");
    assert!(pods[0].net.try_run("ip link show own").status.success(), "the pod's own device was removed");
    daemon.assert_conserved();
}

#[test]
fn a_namespace_that_goes_is_let_go_of() {
    let (_node, daemon, mut pods) = node_with_taps(&switchd(), 3);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let steady = pods[2].net.spawn("ping -q -i 0.01 -c 300 10.66.0.1");
    let load = pods[0].net.spawn("ping -q -f -w 3 10.66.0.2");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = descriptors();
    drop(pods.remove(1));
    wait_until("its port is down", LONG, || is(&daemon, "tap2", PortState::Down));
    let reason = daemon.port("tap2").reason.unwrap();
    assert!(reason.contains("is gone") || reason.contains("cannot be opened"), "{reason}");
    assert!(descriptors() < before, "a descriptor keeps the namespace alive");
    let steady = String::from_utf8(steady.finish().stdout).unwrap();
    assert!(steady.contains(" 0% packet loss"), "the others were disturbed: {steady}");
    load.finish();
    delete(&daemon, "tap2");
    daemon.assert_conserved();
}

#[test]
fn a_reader_that_is_stuck_costs_nobody_else() {
    let (_node, daemon, pods) = node_with_taps(&switchd(), 3);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let total = daemon.stats().frames.total;
    // It accepts and reads nothing; the sender fills what there is to fill.
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (let_go, released) = std::sync::mpsc::channel::<()>();
    let reader = pods[1].net.inside(move || {
        let listener = std::net::TcpListener::bind("10.66.0.2:7005").unwrap();
        let unread = std::net::UdpSocket::bind("10.66.0.2:7006").unwrap();
        ready.send(()).unwrap();
        let accepted = listener.accept();
        _ = released.recv();
        drop((accepted, unread));
    });
    is_ready.recv().unwrap();
    let sender = pods[0].net.inside(|| {
        let mut stream = std::net::TcpStream::connect("10.66.0.2:7005").unwrap();
        stream.set_nonblocking(true).unwrap();
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            _ = stream.write(&[7; 1 << 16]);
            _ = socket.send_to(&[7; 1400], "10.66.0.2:7006");
        }
        stream
    });
    let address = "10.66.0.1".parse().unwrap();
    assert_eq!(tcp(&pods[2].net, &pods[0].net, address, 10_000_000), 10_000_000, "another pair, meanwhile");
    let stream = sender.join().unwrap();
    wait_until("no frame waits for it", LONG, || daemon.stats().frames.free == total);
    let_go.send(()).unwrap();
    reader.join().unwrap();
    drop(stream);
    daemon.assert_conserved();
}

#[test]
fn a_hundred_attachments_under_traffic_lose_no_frame_and_no_descriptor() {
    let (_node, daemon, pods) = node_with_taps(&switchd(), 2);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let churn = |times| {
        for _ in 0..times {
            delete(&daemon, "tap2");
            daemon.attach_tap(&pods[1], "br0", PortSettings::default());
        }
    };
    churn(3);
    let before = descriptors();
    let load = pods[0].net.spawn("ping -q -f -w 10 10.66.0.2");
    churn(100);
    // The connection of the last call may still be one: the daemon hears of its end a moment later.
    wait_until("as many descriptors as before", LONG, || descriptors() <= before);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    drop(load);
    assert!(daemon.drops("rx-missed") == 0);
    daemon.assert_conserved();
}

/// Other addresses in place: connections over those that stay go on, neighbours hear of those that come, and what the kernel refuses
/// leaves the device as it was.
#[test]
fn a_device_is_given_other_addresses_in_place() {
    let (_node, daemon, pods) = node_with_taps(&switchd(), 2);
    wait_until("ping", LONG, || reaches(&pods[0].net, "10.66.0.2"));
    let give = |addresses: &str, routes: serde_json::Value| {
        let addresses: Vec<_> = addresses.split(' ').collect();
        let set = serde_json::json!({"name": "tap2", "addresses": addresses, "routes": routes});
        daemon.client().call::<Done>(&Request::PortAddress(serde_json::from_value(set).unwrap()))
    };
    let listens = pods[1].net.inside(|| std::net::TcpListener::bind("10.66.0.2:90").unwrap()).join().unwrap();
    let stream = pods[0].net.inside(|| std::net::TcpStream::connect("10.66.0.2:90").unwrap());
    let (mut one, mut other) = (stream.join().unwrap(), listens.accept().unwrap().0);
    let routes = serde_json::json!([{"to": "10.99.0.0/16", "via": "10.66.0.1"}]);
    give("10.66.0.2/24 10.66.0.77/24 fd66::77/64", routes.clone()).unwrap();
    one.write_all(b"still").unwrap();
    other.read_exact(&mut [0; 5]).unwrap();
    for address in ["10.66.0.77", "fd66::77"] {
        wait_until("the new address answers", LONG, || reaches(&pods[0].net, address));
    }
    assert!(!reaches(&pods[0].net, "fd66::2"), "it is gone");
    assert!(pods[1].net.ip("route show 10.99.0.0/16").contains("via 10.66.0.1"));
    // A gateway that is nowhere: the kernel refuses, and nothing is changed.
    let refused = give("10.66.0.88/24", serde_json::json!([{"to": "10.98.0.0/16", "via": "192.0.2.1"}]));
    let refused = refused.unwrap_err();
    assert!(refused.message.contains("route to 10.98.0.0/16"), "{refused:?}");
    assert!(refused.data.hint.as_ref().is_some_and(|hint| hint.contains("is the gateway in")), "{refused:?}");
    wait_until("what was there answers", LONG, || reaches(&pods[0].net, "10.66.0.77"));
    assert!(!reaches(&pods[0].net, "10.66.0.88"));
    assert!(pods[1].net.ip("route show 10.99.0.0/16").contains("via 10.66.0.1"));
    let kind = daemon.port("tap2").port.kind;
    assert_eq!(kind.pod_addresses().unwrap().len(), 3, "{kind:?}");
    let nobody = serde_json::json!({"name": "nobody"});
    let nobody = Request::PortAddress(serde_json::from_value(nobody).unwrap());
    assert_eq!(daemon.client().call::<Done>(&nobody).unwrap_err().code, Code::NotFound);
    daemon.assert_conserved();
}
