//! VXLAN tunnels: the kernel's own at the other end, by an uplink on a NIC that stays the host's and by a bridge; and two switches.

use crate::switchd;
use std::net::IpAddr;
use std::time::Duration;
use switch_api::{
    Bridge, Done, FdbDelete, Mac, Name, NextHop, Port, PortKind, PortSettings, PortState, Request, Route,
    RouteChoice, RouteGet, RouteKind, StaticMac, StaticNeighbour, Trace, TraceReply, Vid,
};
use switch_lab::cross::Router;
use switch_lab::session::Session;
use switch_lab::transfer::{checksum_errors, tcp, udp};
use switch_lab::{Daemon, Net, wait_until};

const LONG: Duration = Duration::from_secs(10);
/// The cable.
const LINK: u8 = 90;
const VNI: u32 = 4096;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A switch at the end of a tunnel, inside.
fn station(n: u8) -> Mac {
    Mac([0x02, 0xff, 0, 0, 0, n])
}

/// A tunnel `vx` of node `n` at `local`, on the bridge `over` with `10.255.0.n` and `fd55::n`.
fn open(daemon: &Daemon, n: u8, local: &str) {
    let bridge = Bridge { mac: Some(station(n)), ..Bridge::new(name("over")) };
    let _: Done = daemon.call(&Request::BridgeAdd(bridge));
    daemon.gateway("over", &format!("10.255.0.{n}/24"));
    daemon.gateway("over", &format!("fd55::{n}/64"));
    let kind = PortKind::vxlan(VNI, local.parse().unwrap());
    let _: Done = daemon.call(&Request::PortAdd(Box::new(Port::new(name("vx"), name("over"), kind))));
}

/// Node `n` is behind the end at `dst`, and its pods behind it.
fn lead_to(daemon: &Daemon, n: u8, dst: &str) {
    let (bridge, vid, owner) = (name("over"), Vid::DEFAULT, Default::default());
    let (mac, dst) = (station(n), Some(dst.parse().unwrap()));
    let entry = StaticMac { mac, bridge: bridge.clone(), vid, port: name("vx"), dst, owner };
    let _: Done = daemon.call(&Request::FdbAdd(entry));
    for (inside, pods) in [
        (format!("10.255.0.{n}"), format!("10.{n}.0.0/24")),
        (format!("fd55::{n}"), format!("fd10:{n}::/64")),
    ] {
        let address: IpAddr = inside.parse().unwrap();
        let neighbour = StaticNeighbour { address, mac, bridge: bridge.clone(), vid, owner };
        let _: Done = daemon.call(&Request::NeighAdd(neighbour));
        let via = vec![NextHop { address, bridge: None, vid, weight: 1 }];
        let _: Done = daemon.call(&Request::RouteAdd(Route::new(pods.parse().unwrap(), RouteKind::Via, via)));
    }
}

/// The kernel's end in `net`, over `device`, node `n`; the other is node `other`'s at `remote`. As Calico makes it: a MAC of its own,
/// nothing learned, and what is behind the other end said beforehand.
fn kernels(net: &Net, (n, local): (u8, &str), (other, remote): (u8, &str), device: &str) {
    let (own, theirs) = (station(n), station(other));
    let checksums = if local.contains(':') { "" } else { "noudpcsum" };
    net.ip(&format!(
        "link add vx type vxlan id {VNI} dstport 4789 local {local} dev {device} nolearning {checksums}"
    ));
    net.ip(&format!("link set vx address {own} up"));
    net.ip(&format!("addr add 10.255.0.{n}/24 dev vx"));
    net.ip(&format!("addr add fd55::{n}/64 dev vx nodad"));
    net.run(&format!("bridge fdb append {theirs} dev vx dst {remote}"));
    for inside in [format!("10.255.0.{other}"), format!("fd55::{other}")] {
        net.ip(&format!("neigh replace {inside} lladdr {theirs} dev vx nud permanent"));
    }
    net.ip(&format!("route add 10.{other}.0.0/24 via 10.255.0.{other} dev vx"));
    net.ip(&format!("route add fd10:{other}::/64 via fd55::{other} dev vx"));
    net.ip("link set lo up");
    net.ip(&format!("addr add 10.{n}.0.2/32 dev lo"));
    net.ip(&format!("addr add fd10:{n}::2/128 dev lo nodad"));
}

fn ping(from: &Net, words: &str) -> String {
    let said = from.try_run(&format!("ping -n -c 3 -i 0.2 -W 1 {words}"));
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// All that pods at both ends do with each other.
fn talk(near: &Net, far: &Net) {
    for (from, to, address) in
        [(near, far, "10.2.0.2"), (far, near, "10.1.0.2"), (near, far, "fd10:2::2"), (far, near, "fd10:1::2")]
    {
        let source = match address {
            "10.1.0.2" => "-I 10.2.0.2",
            "fd10:1::2" => "-I fd10:2::2",
            _ => "",
        };
        wait_until(address, LONG, || ping(from, &format!("{source} {address}")).contains(" 0% packet loss"));
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(tcp(from, to, address, 3_000_000), 3_000_000, "{address}");
        // The largest of more would not fit, and nobody was told yet.
        assert_eq!(udp(from, to, address, 190), 190, "{address}");
    }
}

/// How long a packet may be, as a pod finds out: it is told, and what fits goes through.
fn finds(near: &Net, mtu: usize) {
    assert!(ping(near, &format!("-M do -s {} 10.2.0.2", mtu - 28)).contains(" 0% packet loss"));
    let said = ping(near, &format!("-M do -s {} 10.2.0.2", mtu - 27));
    assert!(said.contains("100% packet loss"), "{said}");
    let said = near.run("ip route get 10.2.0.2");
    assert!(said.contains(&format!("mtu {mtu}")), "{said}");
    // Cut up by whoever sends, and put together by whoever receives.
    for address in ["10.2.0.2", "fd10:2::2"] {
        // The first one may be what tells.
        wait_until(address, LONG, || ping(near, &format!("-s 5000 {address}")).contains(" 0% packet loss"));
    }
}

fn choice(daemon: &Daemon, address: &str) -> RouteChoice {
    daemon.call(&Request::RouteGet(RouteGet { address: address.parse().unwrap(), vrf: Name::main() }))
}

/// A node with a switch and an uplink; the other is a kernel's alone.
fn with_kernel() -> ([Router; 2], Daemon) {
    let mut nodes = [Router::new(1), Router::new(2)];
    nodes[0].join(&nodes[1], LINK);
    let daemon = nodes[0].start(&switchd().keeping_state());
    nodes[0].pod(&daemon, 2);
    nodes[0].share(&daemon, &nodes[1], LINK);
    (nodes, daemon)
}

#[test]
fn the_kernels_vxlan_is_the_other_end_and_the_nic_stays_the_hosts() {
    let (nodes, mut daemon) = with_kernel();
    let (near, far) = (&nodes[0].pods[0].net, &nodes[1].node.net);
    kernels(far, (2, "10.90.0.2"), (1, "10.90.0.1"), &nodes[1].nic(&nodes[0], LINK));
    let mut session = Session::open(far, &nodes[0].node.net, "10.90.0.1".parse().unwrap(), LONG);
    session.types("before");
    open(&daemon, 1, "10.90.0.1");
    lead_to(&daemon, 2, "10.90.0.2");
    assert_eq!((daemon.port("vx").state, daemon.port("vx").mtu), (PortState::Up, 1450));
    session.types("beside a tunnel");
    talk(near, far);
    finds(near, 1450);
    assert_eq!(checksum_errors(near) + checksum_errors(far), 0);
    // Nobody but the end that was named is listened to.
    let by = FdbDelete { mac: station(2), bridge: name("over"), vid: Vid::DEFAULT };
    let _: Done = daemon.call(&Request::FdbDelete(by));
    let before = daemon.drops("tunnel-stranger");
    assert!(ping(far, "-I 10.2.0.2 10.1.0.2").contains("100% packet loss"));
    assert!(daemon.drops("tunnel-stranger") >= before + 3);
    lead_to_again(&daemon);
    assert!(ping(far, "-I 10.2.0.2 10.1.0.2").contains(" 0% packet loss"));
    session.types("after");
    daemon.assert_conserved();
    daemon.kill();
    session.types("killed");
    daemon = nodes[0].node.start(&switchd().keeping_state());
    wait_until("ping after a restart", LONG, || ping(near, "10.2.0.2").contains(" 0% packet loss"));
    session.types("started again");
    daemon.assert_conserved();
}

fn lead_to_again(daemon: &Daemon) {
    let (bridge, vid, owner) = (name("over"), Vid::DEFAULT, Default::default());
    let dst = Some("10.90.0.2".parse().unwrap());
    let entry = StaticMac { mac: station(2), bridge, vid, port: name("vx"), dst, owner };
    let _: Done = daemon.call(&Request::FdbAdd(entry));
}

/// Another port, and another VNI at the same port: both are the host's, at the same address.
#[test]
fn the_hosts_own_vxlans_beside_it_stay_theirs() {
    let (nodes, daemon) = with_kernel();
    let far = &nodes[1].node.net;
    kernels(far, (2, "10.90.0.2"), (1, "10.90.0.1"), &nodes[1].nic(&nodes[0], LINK));
    open(&daemon, 1, "10.90.0.1");
    lead_to(&daemon, 2, "10.90.0.2");
    for (here, there) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let (net, own, other, nic) = (&here.node.net, here.net, there.net, here.nic(there, LINK));
        for (device, vni, port) in [("host1", 7, 4790), ("host2", 9, 4789)] {
            net.ip(&format!(
                "link add {device} type vxlan id {vni} dstport {port} local 10.90.0.{own} remote 10.90.0.{other} dev {nic}"
            ));
            net.ip(&format!("link set {device} up"));
            net.ip(&format!("addr add 10.7{}.0.{own}/24 dev {device}", vni % 10));
        }
    }
    let net = &nodes[0].node.net;
    wait_until("another port", LONG, || ping(net, "10.77.0.2").contains("3 received"));
    wait_until("another VNI", LONG, || ping(net, "10.79.0.2").contains("3 received"));
    wait_until("ours", LONG, || ping(&nodes[0].pods[0].net, "10.2.0.2").contains("3 received"));
    daemon.assert_conserved();
}

#[test]
fn two_switches_are_each_others_end() {
    let mut nodes = [Router::new(1), Router::new(2)];
    nodes[0].join(&nodes[1], LINK);
    let daemons = nodes.each_mut().map(|node| {
        let daemon = node.start(&switchd());
        node.pod(&daemon, 2);
        daemon
    });
    for (n, other) in [(0, 1), (1, 0)] {
        nodes[n].share(&daemons[n], &nodes[other], LINK);
        // Over IPv6, whose checksum is not left out.
        open(&daemons[n], n as u8 + 1, &format!("fd10:90::{}", n + 1));
        lead_to(&daemons[n], other as u8 + 1, &format!("fd10:90::{}", other + 1));
    }
    let [near, far] = [&nodes[0].pods[0].net, &nodes[1].pods[0].net];
    talk(near, far);
    finds(near, 1430);
    assert_eq!(checksum_errors(near) + checksum_errors(far), 0);
    // Switch, switch.
    assert!(ping(near, "10.2.0.2").contains("ttl=62"));
    let said = choice(&daemons[0], "10.2.0.2");
    assert!(
        said.why.iter().any(|line| line.contains("tunnel vx") && line.contains("fd10:90::2")),
        "{said:?}"
    );
    let traced = trace(&daemons[0], &nodes[0].pods[0].device);
    let step = traced.steps.iter().find(|step| step.stage == "tunnel").unwrap();
    assert!(step.why.contains("into tunnel vx, VNI 4096, from fd10:90::1 to fd10:90::2"), "{traced:?}");
    assert_eq!(traced.outcome, "leaves by up90");
    for daemon in &daemons {
        assert!(daemon.port("vx").counters.rx_packets > 1000 && daemon.port("vx").counters.tx_packets > 1000);
        daemon.assert_conserved();
    }
}

/// What a pod's ping would do.
fn trace(daemon: &Daemon, port: &str) -> TraceReply {
    let gateway = daemon.call::<Vec<switch_api::BridgeStatus>>(&Request::BridgeList(switch_api::Nothing {}));
    let mac = gateway.iter().find(|status| status.bridge.name == name("br0")).unwrap().mac;
    let mut frame = Vec::new();
    let link = etherparse::PacketBuilder::ethernet2([2, 1, 0, 0, 0, 2], mac.0);
    link.ipv4([10, 1, 0, 2], [10, 2, 0, 2], 64)
        .icmpv4_echo_request(1, 1)
        .write(&mut frame, &[0; 20])
        .unwrap();
    daemon.call(&Request::Trace(Trace { in_port: name(port), frame: switch_api::Hex(frame) }))
}

/// The other end is a neighbour on a bridge, and the tunnel's address the bridge's.
#[test]
fn a_tunnel_ends_on_a_bridge_too() {
    let mut router = Router::new(1);
    let daemon = router.start(&switchd());
    router.pod(&daemon, 2);
    daemon.bridge("lan");
    daemon.gateway("lan", "10.66.0.1/24");
    let far = router.node.bare_pod(9);
    daemon.attach_tap(&far, "lan", PortSettings::default());
    kernels(&far.net, (2, "10.66.0.9"), (1, "10.66.0.1"), "eth0");
    open(&daemon, 1, "10.66.0.1");
    lead_to(&daemon, 2, "10.66.0.9");
    let near = &router.pods[0].net;
    talk(near, &far.net);
    finds(near, 1450);
    assert_eq!(checksum_errors(near) + checksum_errors(&far.net), 0);
    // Without its address there is no tunnel, and it says why.
    let _: Done = daemon.call(&Request::AddressDelete(switch_api::AddressDelete {
        bridge: name("lan"),
        vid: Vid::DEFAULT,
        address: "10.66.0.1/24".parse().unwrap(),
    }));
    let vx = daemon.port("vx");
    assert!(vx.state == PortState::Down && vx.reason.unwrap().contains("10.66.0.1 is no address"));
    daemon.assert_conserved();
}
