//! Pods reach the outside of the node through its kernel, and are reached from there: what the switch keeps in that kernel does what
//! it should, is put right when others change it, and is gone in the end.

use crate::switchd;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use switch_api::{
    DeviceRoute, Done, Happened, Name, OutsideStatus, Port, PortKind, PortSet, PortSettings, Prefix, Request,
    Status,
};
use switch_lab::node::{host_port, tap_port};
use switch_lab::world::{Service, ask_tcp, ask_udp, world};
use switch_lab::{Daemon, Net, Node, Pod, RawSocket, uninterrupted, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// How long nothing must be heard.
const SILENCE: Duration = Duration::from_millis(300);
/// What the operator is promised.
const REPAIRED: Duration = Duration::from_secs(5);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn prefixes(text: &str) -> Vec<Prefix> {
    text.split_whitespace().map(|text| text.parse().unwrap()).collect()
}

pub fn publishing(texts: &str) -> PortSettings {
    let publish = texts.split_whitespace().map(|text| text.parse().unwrap()).collect();
    PortSettings { publish, ..PortSettings::default() }
}

pub fn masquerading() -> PortSettings {
    PortSettings { masquerade: true, ..PortSettings::default() }
}

fn set(daemon: &Daemon, port: &str, settings: PortSettings) {
    let _: Done = daemon.call(&Request::PortSet(PortSet { name: name(port), settings }));
}

fn status(daemon: &Daemon) -> OutsideStatus {
    daemon.call::<Status>(&Request::Status(Default::default())).outside.unwrap()
}

/// A bridge with the node on it, `10.66.0.1`, `fd66::1`.
pub fn node_on_bridge(daemon: &Daemon, settings: PortSettings) {
    daemon.bridge("br0");
    let port = Port { settings, ..host_port(1, "br0") };
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
}

/// A bridge whose router is the switch, with `10.66.0.1`, `fd66::1`; the node is the way out.
pub fn node_beside_switch(daemon: &Daemon, settings: PortSettings) {
    daemon.bridge("br0");
    daemon.gateway("br0", "10.66.0.1/24");
    daemon.gateway("br0", "fd66::1/64");
    let mut port = Port { settings, ..host_port(1, "br0") };
    if let PortKind::Host { addresses, .. } = &mut port.kind {
        addresses.clear();
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
}

/// A pod whose router has `10.66.0.1`, `fd66::1`.
pub fn pod(node: &Node, daemon: &Daemon, n: u8, settings: PortSettings) -> Pod {
    let pod = node.bare_pod(n);
    let mut port = tap_port(&pod, "br0", settings);
    if let PortKind::Tap { routes, .. } = &mut port.kind {
        let to = |to: &str, via: &str| DeviceRoute::new(to.parse().unwrap(), Some(via.parse().unwrap()));
        *routes = vec![to("0.0.0.0/0", "10.66.0.1"), to("::/0", "fd66::1")];
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    pod
}

/// Waits until no device of these has an IPv6 address that may be somebody else's: until then nobody is asked for from it.
pub fn settle(nets: &[&Net]) {
    let settled = |net: &&Net| net.ip("-6 addr show tentative").is_empty();
    wait_until("addresses are theirs", LONG, || nets.iter().all(settled));
}

fn ruleset(net: &Net) -> String {
    net.run("nft list ruleset")
}

fn sysctl(net: &Net, setting: &str) -> String {
    net.run(&format!("sysctl -n {setting}")).trim().to_owned()
}

#[test]
fn what_leaves_the_node_has_the_nodes_address() {
    let node = Node::new();
    let world = world(&node.net);
    let _service = Service::new(&world, 7200, "world");
    // A namespace may begin with what the machine has.
    node.net.run("sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    // A network manager's device takes its default route from advertisements.
    assert_eq!(sysctl(&node.net, "net.ipv6.conf.up0.accept_ra"), "1");
    let mut daemon = node.start(&switchd().keeping_state());
    node_on_bridge(&daemon, PortSettings::default());
    let pod = pod(&node, &daemon, 2, PortSettings::default());
    assert_eq!(ask_tcp(&pod.net, "198.51.100.2:7200"), None, "nobody asked for anything yet");
    assert_eq!((status(&daemon), ruleset(&node.net).as_str()), (OutsideStatus::default(), ""));
    settle(&[&node.net, &world, &pod.net]);
    let asks = |to: [&str; 2]| to.map(|to| (ask_tcp(&pod.net, to), ask_udp(&pod.net, to)));
    let both = |said: &str| (Some(said.to_owned()), Some(said.to_owned()));
    let outside = ["198.51.100.2:7200", "[2001:db8::2]:7200"];

    set(&daemon, "host", masquerading());
    assert_eq!(asks(outside), [both("world 198.51.100.1"), both("world 2001:db8::1")]);
    let told = status(&daemon);
    assert!(told.table && told.masqueraded == 2 && told.problem.is_none(), "{told:?}");
    assert!(told.settings.contains(&"net.ipv4.ip_forward".into()), "{told:?}");
    assert_eq!(
        sysctl(&node.net, "net.ipv6.conf.up0.accept_ra"),
        "2",
        "a router goes on to take its default route"
    );

    // Who knows the way back sees the pod itself.
    world.ip("route add 10.66.0.0/24 via 198.51.100.1");
    let no_masquerade = prefixes("198.51.100.0/24");
    set(&daemon, "host", PortSettings { no_masquerade, ..masquerading() });
    assert_eq!(asks(outside), [both("world 10.66.0.2"), both("world 2001:db8::1")]);

    // A pod alone, by its own addresses.
    set(&daemon, "host", PortSettings::default());
    set(&daemon, &pod.device, masquerading());
    assert_eq!(asks(outside), [both("world 198.51.100.1"), both("world 2001:db8::1")]);

    // It stays while no daemon is there, and the next one knows that it is ours.
    daemon.stop(false);
    assert!(ruleset(&node.net).contains("table inet switchd"));
    daemon = node.start(&switchd().keeping_state());
    wait_until("the world again", LONG, || {
        asks(outside) == [both("world 198.51.100.1"), both("world 2001:db8::1")]
    });
    set(&daemon, &pod.device, PortSettings::default());
    assert_eq!(ruleset(&node.net), "");
    let settings = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.up0.accept_ra"];
    assert_eq!(settings.map(|setting| sysctl(&node.net, setting)), ["0", "0", "1"]);
    assert_eq!(status(&daemon), OutsideStatus::default());

    // And all of it is gone with a daemon that takes everything away.
    set(&daemon, "host", masquerading());
    daemon.stop(true);
    assert_eq!(ruleset(&node.net), "");
    assert_eq!(settings.map(|setting| sysctl(&node.net, setting)), ["0", "0", "1"]);
}

#[test]
fn what_others_change_is_put_right_and_told() {
    let node = Node::new();
    let world = world(&node.net);
    let _service = Service::new(&world, 7201, "world");
    let daemon = node.start(&switchd());
    node_on_bridge(&daemon, masquerading());
    let pod = pod(&node, &daemon, 2, publishing("8080:80"));
    let mut events = daemon.client();
    let _: Done = events.call(&Request::EventsSubscribe(Default::default())).unwrap();
    // The switch looks once a second, and tells only who listens already.
    let asks = || ask_udp(&pod.net, "198.51.100.2:7201").is_some();
    assert!(asks());
    let whole = ruleset(&node.net);
    for (line, what) in [
        ("nft flush ruleset", "table inet switchd"),
        ("nft flush chain inet switchd postrouting", "table inet switchd"),
        ("nft delete element inet switchd masquerade4 { 10.66.0.0/24 }", "table inet switchd"),
        ("nft add table inet switchd { flags dormant ; }", "table inet switchd"),
        ("sysctl -q -w net.ipv4.ip_forward=0", "net.ipv4.ip_forward"),
    ] {
        node.net.run(line);
        let begun = Instant::now();
        loop {
            let notice = events.notice().unwrap_or_else(|error| panic!("{line}: {error}\n{}", daemon.log()));
            let notice = notice.expect("the daemon is there");
            let happened: Happened = serde_json::from_value(notice.params).unwrap();
            if happened.what == "repaired" && happened.parts["about"] == what {
                break;
            }
        }
        assert!(begun.elapsed() < REPAIRED);
        assert_eq!(ruleset(&node.net), whole, "{line}");
        assert!(asks(), "{line}");
    }
    // What others do beside it is their affair.
    node.net.run("nft add table inet other");
    std::thread::sleep(Duration::from_millis(1500));
    node.net.run("nft delete table inet other");
    assert_eq!(ruleset(&node.net), whole);
    assert!(!daemon.log().contains("pods may not reach"), "{}", daemon.log());
}

#[test]
fn a_published_port_answers_from_everywhere() {
    let node = Node::new();
    let world = world(&node.net);
    let daemon = node.start(&switchd());
    node_on_bridge(&daemon, PortSettings::default());
    let web = pod(&node, &daemon, 2, publishing("8080:80 udp/198.51.100.1:5300:53 udp/5301:53 sctp/7:7"));
    let other = pod(&node, &daemon, 3, PortSettings::default());
    let _services = [Service::new(&web.net, 80, "web"), Service::new(&web.net, 53, "dns")];
    settle(&[&node.net, &world, &web.net, &other.net]);
    let said = |text: &str| Some(text.to_owned());
    // From another machine, which is seen as it is.
    assert_eq!(ask_tcp(&world, "198.51.100.1:8080"), said("web 198.51.100.2"));
    assert_eq!(ask_tcp(&world, "[2001:db8::1]:8080"), said("web 2001:db8::2"));
    assert_eq!(ask_udp(&world, "198.51.100.1:5300"), said("dns 198.51.100.2"));
    // From the node: by each of its addresses, and by its loopback.
    assert_eq!(ask_tcp(&node.net, "198.51.100.1:8080"), said("web 198.51.100.1"));
    assert_eq!(ask_tcp(&node.net, "[2001:db8::1]:8080"), said("web 2001:db8::1"));
    assert_eq!(ask_tcp(&node.net, "10.66.0.1:8080"), said("web 10.66.0.1"));
    assert_eq!(ask_tcp(&node.net, "127.0.0.1:8080"), said("web 10.66.0.1"));
    assert_eq!(ask_udp(&node.net, "198.51.100.1:5300"), said("dns 198.51.100.1"));
    assert_eq!(ask_udp(&node.net, "127.0.0.1:5300"), None, "one address of the node alone is published");
    assert_eq!(ask_udp(&node.net, "127.0.0.1:5301"), said("dns 10.66.0.1"));
    assert_eq!(ask_udp(&world, "[2001:db8::1]:5301"), said("dns 2001:db8::2"));
    // From another pod, and from the pod itself.
    for asker in [&other, &web] {
        assert_eq!(ask_tcp(&asker.net, "198.51.100.1:8080"), said("web 10.66.0.1"));
        assert_eq!(ask_tcp(&asker.net, "[fd66::1]:8080"), said("web fd66::1"));
        assert_eq!(ask_udp(&asker.net, "198.51.100.1:5300"), said("dns 10.66.0.1"));
    }
    // The node's loopback is the node's, though the device lets its addresses through now.
    let _secret = Service::new(&node.net, 7400, "secret");
    assert_eq!(ask_tcp(&node.net, "127.0.0.1:7400"), said("secret 127.0.0.1"));
    let socket = node.net.inside(|| std::net::UdpSocket::bind("127.0.0.1:7401").unwrap()).join().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let raw = RawSocket::open(&other.net, "eth0").unwrap();
    let reach = || {
        raw.send(&to_loopback(&other));
        socket.recv(&mut [0; 8]).is_ok()
    };
    assert!(!reach());
    // It is the guard that keeps it away: without it, until it is repaired, the frame arrives.
    let mut reached = false;
    wait_until("the guard is missed", LONG, || {
        node.net.run("nft flush chain inet switchd guard");
        reached |= reach();
        reached
    });
    wait_until("the guard is back", REPAIRED, || {
        node.net.run("nft list chain inet switchd guard").contains("drop")
    });
    assert!(!reach());
    let shown = node.net.run("nft list table inet switchd");
    for words in [
        "elements = { \"switch0\" }",
        "tcp . 8080 : 10.66.0.2 . 80",
        "198.51.100.1 . udp . 5300 : 10.66.0.2 . 53",
        "sctp . 7 : 10.66.0.2 . 7",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // Two pods cannot have one port.
    let publish = publishing("198.51.100.1:8080:80");
    let set = Request::PortSet(PortSet { name: name(&other.device), settings: publish });
    let error = daemon.client().call::<Done>(&set).unwrap_err();
    assert!(error.message.contains("leads to port tap2 already"), "{error}");
    let _: Done = daemon.call(&Request::PortDelete(switch_api::ByName { name: name(&web.device) }));
    assert_eq!(ruleset(&node.net), "");
    assert_eq!(sysctl(&node.net, "net.ipv4.conf.switch0.route_localnet"), "0");
}

#[test]
fn who_asks_all_the_time_is_led_where_a_port_leads_now() {
    let node = Node::new();
    let world = world(&node.net);
    let daemon = node.start(&switchd());
    node_on_bridge(&daemon, masquerading());
    let [a, b] = [2, 3].map(|n| pod(&node, &daemon, n, PortSettings::default()));
    let _services = [Service::new(&a.net, 53, "a"), Service::new(&b.net, 53, "b")];
    // One client, one port of its own, as a resolver has.
    let client = world.inside(|| UdpSocket::bind("198.51.100.2:5000").unwrap()).join().unwrap();
    let ask = |patience| {
        let mut said = [0; 64];
        client.set_read_timeout(Some(patience)).unwrap();
        client.send_to(b"?", "198.51.100.1:5300").unwrap();
        let len = uninterrupted(|| client.recv(&mut said)).ok();
        len.map(|len| String::from_utf8_lossy(&said[..len]).into_owned())
    };
    wait_until("the node is heard", LONG, || {
        world.try_run("ping -n -c 1 -W 1 198.51.100.1").status.success()
    });
    assert_eq!(ask(SILENCE), None, "nothing is published yet");
    for (pod, who) in [(&a, "a"), (&b, "b"), (&a, "a")] {
        set(&daemon, &pod.device, publishing("udp/5300:53"));
        assert_eq!(ask(LONG), Some(format!("{who} 198.51.100.2")));
        set(&daemon, &pod.device, PortSettings::default());
        assert_eq!(ask(SILENCE), None);
    }
}

/// A datagram for `127.0.0.1:7401`, to the node's station on the bridge.
fn to_loopback(from: &Pod) -> Vec<u8> {
    let PortKind::Host { mac: Some(node), .. } = host_port(1, "br0").kind else { unreachable!() };
    let mut ip = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 66, 0, from.number(), 127, 0, 0, 1];
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    // Ports 9 and 7401, without a checksum.
    let udp = [0, 9, 0x1c, 0xe9, 0, 12, 0, 0, b'm', b'i', b'n', b'e'];
    [&node.0[..], &from.mac().0, &[0x08, 0x00], &ip, &udp].concat()
}

#[test]
fn a_published_port_answers_where_the_switch_is_the_pods_router() {
    let node = Node::new();
    let world = world(&node.net);
    let daemon = node.start(&switchd());
    node_beside_switch(&daemon, masquerading());
    let web = pod(&node, &daemon, 2, publishing("8080:80"));
    let _services = [Service::new(&web.net, 80, "web"), Service::new(&world, 7600, "world")];
    settle(&[&node.net, &world, &web.net]);
    let said = |text: &str| Some(text.to_owned());
    for (address, loopback, client) in
        [("198.51.100.1", "127.0.0.1", "198.51.100.2"), ("[2001:db8::1]", "[2001:db8::1]", "2001:db8::2")]
    {
        let node_itself = address.trim_matches(['[', ']']);
        let port = |address: &str| format!("{address}:8080");
        assert_eq!(ask_tcp(&world, &port(address)), said(&format!("web {client}")));
        // The device has no address: another of the node's stands in.
        assert_eq!(ask_tcp(&node.net, &port(loopback)), said(&format!("web {node_itself}")));
        assert_eq!(ask_tcp(&web.net, &port(address)), said(&format!("web {node_itself}")));
    }
    assert_eq!(ask_tcp(&web.net, "198.51.100.2:7600"), said("world 198.51.100.1"));
}
