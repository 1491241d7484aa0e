//! Pods' devices that follow the node's way out are given what they can have.

use crate::switchd;
use std::time::Duration;
use switch_api::{Done, Nothing, PodEnd, PortKind, PortSettings, PortState, Request, Status};
use switch_lab::node::{host_port, tap_port, xdp_port};
use switch_lab::{Node, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// A way out whose packets are larger than an xdp port takes: it has the largest it takes, and stays up.
#[test]
fn an_xdp_port_follows_no_further_than_it_can() {
    let node = Node::new();
    node.net.ip("link add way0 type veth peer name way1");
    node.net.ip("link set way1 up");
    node.net.ip("link set way0 up");
    node.net.ip("addr add 198.51.100.1/24 dev way0");
    node.net.ip("route add default via 198.51.100.2");
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let mut host = host_port(9, "br0");
    host.settings.mtu = Some(60_000);
    let follows = PortSettings { mtu: Some(1500), mtu_follows: true, ..PortSettings::default() };
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    let mut xdp = xdp_port("cable1", "br0", follows.clone());
    if let PortKind::Xdp { pod, .. } = &mut xdp.kind {
        let netns = pods[0].net.path();
        let address = format!("{}/24", pods[0].ip).parse().unwrap();
        let mac = Some(pods[0].mac());
        let (device, addresses, routes) = ("eth0".to_owned(), vec![address], Vec::new());
        *pod = Some(Box::new(PodEnd { device, netns, mac, addresses, routes }));
    }
    for port in [host, xdp, tap_port(&pods[1], "br0", follows)] {
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    node.net.ip("link set way0 mtu 65535");
    wait_until("the tap follows", LONG, || daemon.port("tap2").mtu == 60_000);
    // News of the device come when it has it.
    std::thread::sleep(Duration::from_secs(3));
    let port = daemon.port("cable1");
    assert_eq!(port.state, PortState::Up, "{port:?}");
    let most = daemon.call::<Status>(&Request::Status(Nothing {})).xdp_mtu_max.unwrap();
    assert!(most < 60_000, "{most}: this tests nothing");
    assert_eq!(port.mtu, most);
    assert!(pods[0].net.ip("link show eth0").contains(&format!("mtu {most} ")));
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    // And back.
    node.net.ip("link set way0 mtu 1400");
    wait_until("both follow", LONG, || daemon.port("tap2").mtu == 1400 && daemon.port("cable1").mtu == 1400);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}
