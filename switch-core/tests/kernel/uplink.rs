//! The node's kernel as the way to everywhere else: two nodes, each with a switch, joined by a cable.

use crate::switchd;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;
use switch_api::{Name, Nothing, Request, RouteChoice, RouteGet, Uplink, Vrf, VrfStatus};
use switch_lab::cross::Router;
use switch_lab::transfer::{tcp, udp};
use switch_lab::{Daemon, Net, Options, bind_udp, uninterrupted, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// Two nodes with a pod each, a cable, and static routes.
fn pair(options: &Options) -> ([Router; 2], [Daemon; 2]) {
    let mut nodes = [Router::new(1), Router::new(2)];
    nodes[0].join(&nodes[1], 90);
    nodes[0].route_to(&nodes[1], 90);
    nodes[1].route_to(&nodes[0], 90);
    let daemons = nodes.each_mut().map(|node| {
        let daemon = node.start(options);
        node.pod(&daemon, 2);
        daemon
    });
    (nodes, daemons)
}

fn vrfs(daemon: &Daemon) -> Vec<VrfStatus> {
    daemon.call(&Request::VrfList(Nothing {}))
}

fn choice(daemon: &Daemon, address: &str) -> RouteChoice {
    daemon.call(&Request::RouteGet(RouteGet { address: address.parse().unwrap(), vrf: Name::main() }))
}

/// What the kernel has of the switch's in any table.
fn ours(net: &Net) -> String {
    net.ip("-4 route show table all proto 83") + &net.ip("-6 route show table all proto 83")
}

/// Whose datagram arrives at `address` in `to`, sent from `from`.
fn seen_from(from: &Net, to: &Net, address: &str) -> IpAddr {
    let address: IpAddr = address.parse().unwrap();
    let server = to.inside(move || {
        let socket = bind_udp((address, 7100));
        socket.set_read_timeout(Some(LONG)).unwrap();
        uninterrupted(|| socket.recv_from(&mut [0; 16])).unwrap().1.ip()
    });
    let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let mut server = Some(server);
    wait_until("a datagram", LONG, || {
        let send = move || UdpSocket::bind((any, 0)).unwrap().send_to(b"who?", (address, 7100));
        _ = from.inside(send).join().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        server.as_ref().is_some_and(std::thread::JoinHandle::is_finished)
    });
    server.take().unwrap().join().unwrap()
}

#[test]
fn pods_of_two_nodes_talk_with_their_own_addresses() {
    let (nodes, daemons) = pair(&switchd());
    let [near, far] = [&nodes[0].pods[0], &nodes[1].pods[0]];
    for (to, from) in [("10.2.0.2", "10.1.0.2"), ("fd10:2::2", "fd10:1::2")] {
        let said = near.net.run(&format!("ping -n -c 5 -i 0.2 -W 2 {to}"));
        // Switch, kernel, kernel, switch.
        assert!(said.contains("5 received") && said.contains("ttl=60"), "{said}");
        assert_eq!(tcp(&near.net, &far.net, to.parse().unwrap(), 2_000_000), 2_000_000, "TCP to {to}");
        assert_eq!(tcp(&far.net, &near.net, from.parse().unwrap(), 2_000_000), 2_000_000, "TCP to {from}");
        assert_eq!(udp(&near.net, &far.net, to.parse().unwrap(), 300), 300, "UDP to {to}");
        assert_eq!(seen_from(&near.net, &far.net, to), from.parse::<IpAddr>().unwrap(), "no NAT");
    }
    // The node itself reaches its pods, and they it.
    assert!(nodes[0].node.net.run("ping -n -c 1 -W 2 10.1.0.2").contains("1 received"));
    assert!(near.reaches("10.90.0.1") && near.reaches("fd10:90::1"));
    let said = choice(&daemons[0], "10.2.0.2");
    assert_eq!(said.what, "kernel", "{said:?}");
    assert!(said.why.iter().any(|line| line.contains("switch0")), "{said:?}");
    let main = &vrfs(&daemons[0])[0];
    assert_eq!((main.port.as_ref().unwrap().as_str(), main.announced.len()), ("host", 2), "{main:?}");
    assert!(main.problems.is_empty(), "{main:?}");
    nodes[0].node.net.run("sysctl -q -w net.ipv4.ip_forward=0");
    assert!(vrfs(&daemons[0])[0].problems[0].contains("net.ipv4.ip_forward=1"));
    for daemon in &daemons {
        daemon.assert_conserved();
    }
}

#[test]
fn pods_of_a_switch_that_is_down_are_unreachable_and_nothing_loops() {
    let (nodes, mut daemons) = pair(&switchd().keeping_state());
    let (near, far) = (&nodes[0].node.net, &nodes[1].pods[0]);
    wait_until("ping", LONG, || far.reaches("10.1.0.2") && far.reaches("fd10:1::2"));
    // The trap: the near node's default route leads to the far node, whose route leads back.
    near.ip("route add default via 10.90.0.2");
    near.ip("route add default via fd10:90::2");
    daemons[0].kill();
    for gone in [false, true] {
        if gone {
            near.ip("link delete switch0");
        }
        for address in ["10.1.0.2", "fd10:1::2"] {
            let said = far.net.try_run(&format!("ping -n -c 2 -i 0.2 -W 1 {address}"));
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(
                said.contains("100% packet loss") && !said.contains("exceeded"),
                "device gone: {gone}: {said}"
            );
            assert!(!gone || said.contains("nreachable") || said.contains("No route"), "{said}");
            let way = near.try_run(&format!("ip route get {address}"));
            let way = String::from_utf8_lossy(&way.stdout).into_owned();
            assert!(!way.contains("l90to2"), "it would leave by the default route: {way}");
        }
    }
    // The next daemon takes it up, and takes all of it away when it is told to detach.
    daemons[0] = nodes[0].node.start(&switchd().keeping_state());
    wait_until("ping again", LONG, || far.reaches("10.1.0.2") && far.reaches("fd10:1::2"));
    let before = ours(near);
    assert_eq!((before.lines().count(), before.matches("unreachable").count()), (4, 2), "{before}");
    // Somebody flushes what is not his.
    let mut events = daemons[0].client();
    let _: switch_api::Done = events.call(&Request::EventsSubscribe(Default::default())).unwrap();
    near.ip("route flush proto 83");
    wait_until("the routes are there again", Duration::from_secs(5), || ours(near).lines().count() == 4);
    let told = std::iter::from_fn(|| events.notice().unwrap());
    assert!(told.map(|notice| notice.params).any(|event| event["what"] == "repaired"));
    daemons[0].stop(true);
    assert_eq!(ours(near), "");
}

#[test]
fn what_the_kernel_sends_back_is_refused_at_once() {
    let (nodes, daemons) = pair(&switchd());
    let far = &nodes[1].pods[0];
    wait_until("ping", LONG, || far.reaches("10.1.0.2"));
    // Somebody's route leads to the switch for a network that is not behind it.
    nodes[0].node.net.ip("route add 10.77.0.0/16 via 10.1.0.1 dev switch0 onlink");
    nodes[1].node.net.ip("route add 10.77.0.0/16 via 10.90.0.1");
    let said = far.net.try_run("ping -n -c 2 -i 0.2 -W 1 10.77.0.1");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("Net Unreachable") && !said.contains("exceeded"), "{said}");
    assert!(daemons[0].drops("kernel-loop") >= 2);
}

#[test]
fn an_uplink_can_be_taken_away_and_moved_to_another_table() {
    let (nodes, daemons) = pair(&switchd());
    let (near, far) = (&nodes[0].node.net, &nodes[1].pods[0]);
    wait_until("ping", LONG, || far.reaches("10.1.0.2"));
    let set = |vrf: Vrf| daemons[0].call::<switch_api::Done>(&Request::VrfSet(vrf));
    set(Vrf { uplink: Uplink::None, ..Vrf::unset(Name::main()) });
    assert_eq!(ours(near), "");
    assert_eq!(choice(&daemons[0], "10.2.0.2").what, "none");
    let said = nodes[0].pods[0].net.try_run("ping -n -c 1 -W 1 10.2.0.2");
    assert!(String::from_utf8_lossy(&said.stdout).contains("Net Unreachable"));
    // A number beyond a byte.
    set(Vrf { kernel_table: 4711, ..Vrf::unset(Name::main()) });
    let there = ours(near);
    assert_eq!(there.matches("table 4711").count(), 4, "{there}");
    near.ip("rule add to 10.1.0.0/24 lookup 4711 priority 100");
    wait_until("ping by the other table", LONG, || far.reaches("10.1.0.2"));
    set(Vrf::unset(Name::main()));
    let there = ours(near);
    assert_eq!((there.matches("table 4711").count(), there.lines().count()), (0, 4), "{there}");
}

/// Within which what others change is right again, and told.
const REPAIRED_WITHIN: Duration = Duration::from_secs(5);

/// What a node's own device was given, and what the kernel was told beside it.
fn node_with_addresses() -> (Router, Daemon) {
    let node = Router::new(1);
    let daemon = node.node.start(&switchd());
    for (bridge, address) in [("br0", "10.1.0.1/24"), ("br0", "fd10:1::1/64"), ("br1", "10.7.0.1/24")] {
        if address.ends_with(".1/24") {
            daemon.bridge(bridge);
        }
        daemon.gateway(bridge, address);
    }
    let parse = |text: &str| text.parse().unwrap();
    let kind = switch_api::PortKind::Host {
        device: switch_api::HOST_DEVICE_DEFAULT.into(),
        mac: Some(switch_api::Mac([0x02, 1, 0, 0, 0, 9])),
        addresses: vec![parse("10.1.0.9/24"), parse("fd10:1::9/64")],
        routes: vec![switch_api::DeviceRoute::new(parse("10.99.0.0/16"), Some("10.1.0.1".parse().unwrap()))],
    };
    let port = switch_api::Port::new("host".parse().unwrap(), "br0".parse().unwrap(), kind);
    let _: switch_api::Done = daemon.call(&Request::PortAdd(Box::new(port)));
    (node, daemon)
}

/// Each thing that somebody else can take away or change, alone: what he does, how what is right shows, and what the event names.
const DAMAGE: [(&str, &str, &str, &str); 10] = [
    ("route del 10.7.0.0/24 metric 1", "-4 route show proto 83", "10.7.0.0/24 via 10.7.0.1", "10.7.0.0/24"),
    (
        "-6 route del fd10:1::/64 metric 1 proto 83",
        "-6 route show proto 83",
        "fd10:1::/64 via fd10:1::1",
        "fd10:1::/64",
    ),
    (
        "route del unreachable 10.7.0.0/24",
        "-4 route show proto 83",
        "unreachable 10.7.0.0/24",
        "unreachable 10.7.0.0/24",
    ),
    ("neigh del 10.7.0.1 dev switch0", "neigh show dev switch0 nud permanent", "10.7.0.1", "10.7.0.1"),
    ("neigh replace 10.1.0.1 lladdr 02:00:00:00:00:77 nud permanent dev switch0", "", "10.1.0.1", "10.1.0.1"),
    ("addr del 10.1.0.9/24 dev switch0", "addr show dev switch0", "10.1.0.9/24", "10.1.0.9/24"),
    ("addr del fd10:1::9/64 dev switch0", "addr show dev switch0", "fd10:1::9/64", "fd10:1::9/64"),
    ("route del 10.99.0.0/16", "route show", "10.99.0.0/16", "10.99.0.0/16"),
    ("link set switch0 mtu 1300", "link show switch0", "mtu 1500", "MTU"),
    (
        "link set switch0 address 02:01:00:00:00:08",
        "link show switch0",
        "link/ether 02:01:00:00:00:09",
        "02:01:00:00:00:09",
    ),
];

fn every_damage_is_repaired(node: &Router, daemon: &Daemon) {
    let net = &node.node.net;
    let macs = net.ip("neigh show dev switch0 nud permanent");
    let repaired = || {
        let recent: Vec<switch_api::Happened> = daemon.call(&Request::EventsRecent(Nothing {}));
        recent.into_iter().filter(|event| event.what == "repaired").collect::<Vec<_>>()
    };
    for (what, look, shows, about) in DAMAGE {
        let is_right = || match look {
            "" => {
                net.ip("neigh show dev switch0 nud permanent").lines().count() == macs.lines().count()
                    && macs.lines().all(|line| net.ip("neigh show dev switch0 nud permanent").contains(line))
            }
            look => net.ip(look).contains(shows),
        };
        // A deleted address takes others' things with it, which are told, too, and are not what is asked for next.
        wait_until(&format!("{what}: it can be done"), LONG, is_right);
        std::thread::sleep(Duration::from_millis(100));
        let before = repaired().len();
        net.ip(what);
        // That it is damage shows by what is told: it may be right again before anybody looks.
        let start = std::time::Instant::now();
        wait_until(&format!("{what}: right again"), REPAIRED_WITHIN, is_right);
        let left = REPAIRED_WITHIN.saturating_sub(start.elapsed());
        let is_told = || repaired().iter().skip(before).any(|event| event.text.contains(about));
        wait_until(&format!("{what}: told"), left.max(Duration::from_millis(100)), is_told);
    }
    // What is right is left alone, once all that the last damage took with it is right as well.
    wait_until("nothing more is repaired", LONG, || {
        let before = repaired().len();
        std::thread::sleep(REPAIRED_WITHIN);
        repaired().len() == before
    });
    daemon.assert_conserved();
}

#[test]
fn what_others_take_away_is_put_back_and_told() {
    let (node, daemon) = node_with_addresses();
    every_damage_is_repaired(&node, &daemon);
}

#[test]
fn what_others_take_away_is_put_back_also_where_routes_are_mirrored() {
    let (node, daemon) = node_with_addresses();
    let _: switch_api::Done = daemon.call(&Request::VrfSet(Vrf { mirror: true, ..Vrf::unset(Name::main()) }));
    every_damage_is_repaired(&node, &daemon);
}

/// Another's route in the place of ours is his: it is complained of, and is not fought over with events.
#[test]
fn anothers_route_in_our_place_is_named_and_left() {
    let (node, daemon) = node_with_addresses();
    let net = &node.node.net;
    net.ip("link add other type veth peer name far");
    net.ip("link set far up");
    net.ip("link set other up");
    net.ip("route replace 10.7.0.0/24 dev other metric 1");
    let complaint = || vrfs(&daemon)[0].problems.join("; ");
    wait_until("it is named", REPAIRED_WITHIN, || complaint().contains("10.7.0.0/24"));
    assert!(complaint().contains("another route has its place"), "{}", complaint());
    assert!(net.ip("route show 10.7.0.0/24").contains("dev other"));
    // The rest is looked after all the same.
    net.ip("neigh del 10.1.0.1 dev switch0");
    let neighbours = || net.ip("neigh show dev switch0 nud permanent");
    wait_until("a neighbour is back", REPAIRED_WITHIN, || neighbours().contains("10.1.0.1 "));
    net.ip("route del 10.7.0.0/24 dev other metric 1");
    wait_until("ours is back", REPAIRED_WITHIN, || net.ip("route show 10.7.0.0/24").contains("via 10.7.0.1"));
    wait_until("nothing is wrong", REPAIRED_WITHIN, || complaint().is_empty());
}
