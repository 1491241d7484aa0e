//! TAP and host ports: real kernels at both ends, with the device settings that the kernel chose.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use std::time::Duration;
use switch_api::{ApiError, ByName, Code, Done, PortKind, PortSettings, PortState, Request};
use switch_lab::node::tap_port;
use switch_lab::transfer::{checksum_errors, tcp, udp};
use switch_lab::{Daemon, Net, Node, Options, Pod, wait_until};

const LONG: Duration = Duration::from_secs(10);

fn switchd() -> Options {
    Options::new(env!("CARGO_BIN_EXE_switchd"))
}

/// A node with `n` pods joined by TAP, `10.66.0.1` and so on.
fn node_with_taps(options: &Options, n: u8) -> (Node, Daemon, Vec<Pod>) {
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
            routes.push(switch_api::DeviceRoute { to, via });
        }
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
        routes.push(switch_api::DeviceRoute {
            to: "10.0.0.1/8".parse().unwrap(),
            via: Some("fd66::1".parse().unwrap()),
        });
        *queues = 0;
    });
    for part in ["no/name", "ff:ff", "0.0.0.0/0", "10.0.0.1/8", "other IP version", "queues"] {
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
        routes.push(switch_api::DeviceRoute { to: "10.0.0.0/8".parse().unwrap(), via });
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
