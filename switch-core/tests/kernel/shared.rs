//! Uplinks on NICs that stay the host's: two nodes, each with a switch, joined by a cable that their kernels go on using.

use crate::switchd;
use rustix::process::Signal;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use switch_api::Owner;
use switch_api::file::{self, File};
use switch_api::{
    BridgeAddress, ByDevice, ByName, Config, ConfigApply, ConfigExport, Done, Name, NeighEntry, NeighState,
    Nothing, Port, PortKind, PortSet, PortSettings, PortState, ProbeReply, Request, RouteChoice, RouteGet,
    VrfStatus,
};
use switch_lab::cross::Router;
use switch_lab::session::Session;
use switch_lab::transfer::{checksum_errors, tcp, udp};
use switch_lab::{Daemon, Net, Options, sequence, wait_until};

/// Less than the kernel is asked for everything after at the latest, which would hide that news of it were lost.
const LONG: Duration = Duration::from_secs(20);
/// The cable.
const LINK: u8 = 90;

/// Two nodes with a pod each, a cable, and static routes; no uplink yet.
fn pair(options: &Options) -> ([Router; 2], [Daemon; 2]) {
    let mut nodes = [Router::new(1), Router::new(2)];
    nodes[0].join(&nodes[1], LINK);
    nodes[0].route_to(&nodes[1], LINK);
    nodes[1].route_to(&nodes[0], LINK);
    let daemons = nodes.each_mut().map(|node| {
        let daemon = node.start(options);
        node.pod(&daemon, 2);
        daemon
    });
    (nodes, daemons)
}

/// Both with an uplink on the cable.
fn shared_pair(options: &Options) -> ([Router; 2], [Daemon; 2]) {
    let (nodes, daemons) = pair(options);
    nodes[0].share(&daemons[0], &nodes[1], LINK);
    nodes[1].share(&daemons[1], &nodes[0], LINK);
    (nodes, daemons)
}

fn vrf(daemon: &Daemon) -> VrfStatus {
    daemon.call::<Vec<VrfStatus>>(&Request::VrfList(Nothing {})).remove(0)
}

fn choice(daemon: &Daemon, address: &str) -> RouteChoice {
    daemon.call(&Request::RouteGet(RouteGet { address: address.parse().unwrap(), vrf: Name::main() }))
}

fn ping(from: &Net, to: &str) -> String {
    // It waits only for what does not come.
    let said = from.try_run(&format!("ping -n -c 3 -i 0.2 -W 2 {to}"));
    String::from_utf8_lossy(&said.stdout).into_owned()
}

fn set(daemon: &Daemon, port: &str, settings: PortSettings) {
    let _: Done = daemon.call(&Request::PortSet(PortSet { name: port.parse().unwrap(), settings }));
}

#[test]
fn pods_of_two_nodes_talk_past_their_kernels_which_keep_their_nic() {
    let (nodes, daemons) = pair(&switchd());
    let [near, far] = [&nodes[0].pods[0], &nodes[1].pods[0]];
    let [one, two] = [&nodes[0].node.net, &nodes[1].node.net];
    let mut session = Session::open(one, two, "10.90.0.2".parse().unwrap(), LONG);
    session.types("before");
    wait_until("ping by the kernels", LONG, || near.reaches("10.2.0.2"));
    assert!(ping(&near.net, "10.2.0.2").contains("ttl=60"));

    nodes[0].share(&daemons[0], &nodes[1], LINK);
    session.types("one uplink");
    // One way past the kernel, the other by it.
    assert!(ping(&near.net, "10.2.0.2").contains("3 received"));
    nodes[1].share(&daemons[1], &nodes[0], LINK);
    session.types("both uplinks");
    for (to, from) in [("10.2.0.2", "10.1.0.2"), ("fd10:2::2", "fd10:1::2")] {
        let said = ping(&near.net, to);
        // Switch, switch.
        assert!(
            said.contains("3 received") && said.contains("ttl=62"),
            "{said}\n{:?}",
            choice(&daemons[0], to)
        );
        assert_eq!(tcp(&near.net, &far.net, to.parse().unwrap(), 2_000_000), 2_000_000, "TCP to {to}");
        assert_eq!(tcp(&far.net, &near.net, from.parse().unwrap(), 2_000_000), 2_000_000, "TCP to {from}");
        assert_eq!(udp(&near.net, &far.net, to.parse().unwrap(), 300), 300, "UDP to {to}");
    }
    // The hosts, and each with the other's pods.
    for address in ["10.90.0.2", "fd10:90::2"] {
        assert!(ping(one, address).contains("3 received"), "{address}");
        assert!(near.reaches(address), "{address}");
    }
    assert!(ping(one, "10.2.0.2").contains("3 received") && ping(two, "fd10:1::2").contains("3 received"));
    assert_eq!(tcp(one, &far.net, "10.2.0.2".parse().unwrap(), 500_000), 500_000);
    assert_eq!(tcp(&near.net, two, "10.90.0.2".parse().unwrap(), 500_000), 500_000);
    assert_eq!(checksum_errors(&far.net) + checksum_errors(&near.net), 0);
    session.types("much later");

    let said = choice(&daemons[0], "10.2.0.2");
    assert!(said.what == "via" && said.why.iter().any(|line| line.contains("l90to2")), "{said:?}");
    let main = vrf(&daemons[0]);
    assert!(main.problems.is_empty() && main.uplinks.len() == 1, "{main:?}");
    assert_eq!(main.uplinks[0].takes.len(), 2, "{main:?}");
    // traceroute sees the NIC's own address.
    let said = far.net.run("traceroute -n -q 1 -w 2 10.1.0.2");
    assert!(said.contains("10.90.0.1") && said.contains("10.1.0.2"), "{said}");

    let _: Done = daemons[0].call(&Request::PortDelete(ByName { name: "up90".parse().unwrap() }));
    session.types("one less");
    assert!(ping(&near.net, "10.2.0.2").contains("3 received"));
    for daemon in &daemons {
        daemon.assert_conserved();
    }
}

/// A tunnel that ends at the NIC's own address is the host's, as it was: pods whose routes lead into it go by the kernel.
#[test]
fn a_tunnel_of_the_hosts_stays_theirs() {
    let (nodes, daemons) = shared_pair(&switchd());
    let near = &nodes[0].pods[0];
    wait_until("ping past the kernels", LONG, || ping(&near.net, "10.2.0.2").contains("ttl=62"));
    for (here, there) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let (net, own, other) = (&here.node.net, here.net, there.net);
        let nic = here.nic(there, LINK);
        net.ip(&format!(
            "link add vx0 type vxlan id 7 dstport 4789 local 10.90.0.{own} remote 10.90.0.{other} dev {nic}"
        ));
        net.ip("link set vx0 up");
        net.ip(&format!("addr add 10.77.0.{own}/24 dev vx0"));
    }
    wait_until("the tunnel", LONG, || ping(&nodes[0].node.net, "10.77.0.2").contains("3 received"));
    for (here, there) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let other = there.net;
        here.node.net.ip(&format!("route replace 10.{other}.0.0/24 via 10.77.0.{other}"));
    }
    wait_until("the mirror", LONG, || choice(&daemons[0], "10.2.0.2").what == "kernel");
    // Two switches and two kernels.
    wait_until("ping by the tunnel", LONG, || ping(&near.net, "10.2.0.2").contains("ttl=60"));
    assert_eq!(tcp(&near.net, &nodes[1].pods[0].net, "10.2.0.2".parse().unwrap(), 300_000), 300_000);
    assert!(ping(&near.net, "fd10:2::2").contains("ttl=62"), "what has no tunnel goes as it did");
    for daemon in &daemons {
        daemon.assert_conserved();
    }
}

#[test]
fn while_the_switch_is_away_its_nic_is_the_kernels_and_pods_packets_go_nowhere() {
    let (nodes, mut daemons) = shared_pair(&switchd().keeping_state());
    let (near, far) = (&nodes[0].node.net, &nodes[1].pods[0]);
    let mut session = Session::open(&nodes[1].node.net, near, "10.90.0.1".parse().unwrap(), LONG);
    wait_until("ping", LONG, || far.reaches("10.1.0.2") && far.reaches("fd10:1::2"));
    // The trap: the near node's default route leads to the far node, whose route leads back.
    near.ip("route add default via 10.90.0.2");
    near.ip("route add default via fd10:90::2");
    let is_lost = |what: &str| -> String {
        let mut all = String::new();
        for address in ["10.1.0.2", "fd10:1::2"] {
            let said = ping(&far.net, address);
            assert!(said.contains("100% packet loss") && !said.contains("exceeded"), "{what}: {said}");
            let way = near.try_run(&format!("ip route get {address}"));
            let way = String::from_utf8_lossy(&way.stdout).into_owned();
            assert!(!way.contains("l90to2"), "{what}: it would leave by the default route: {way}");
            all += &said;
        }
        all
    };
    daemons[0].signal(Signal::STOP);
    session.types("stopped");
    is_lost("stopped");
    session.types("stopped for long");
    daemons[0].signal(Signal::CONT);
    wait_until("ping after a stop", LONG, || far.reaches("10.1.0.2") && far.reaches("fd10:1::2"));

    daemons[0].kill();
    session.types("killed");
    is_lost("killed");
    assert!(near.ip("link show l90to2").contains("xdp"), "its program stays");
    near.ip("link delete switch0");
    let said = is_lost("killed, and its device gone");
    assert!(said.contains("nreachable") && said.contains("No route"), "{said}");
    session.types("its device gone");

    daemons[0] = nodes[0].node.start(&switchd().keeping_state());
    wait_until("ping again", LONG, || far.reaches("10.1.0.2") && far.reaches("fd10:1::2"));
    session.types("started again");
    assert_eq!(daemons[0].port("up90").state, PortState::Up);
    daemons[0].stop(true);
    session.types("detached");
    assert!(!near.ip("link show l90to2").contains("xdp"));
    assert_eq!(near.ip("-4 route show table all proto 83"), "");
}

#[test]
fn without_a_host_port_what_is_left_of_pods_is_unreachable_too() {
    let (nodes, mut daemons) = shared_pair(&switchd());
    let (near, far) = (&nodes[0].node.net, &nodes[1].pods[0]);
    let _: Done = daemons[0].call(&Request::PortDelete(ByName { name: "host".parse().unwrap() }));
    wait_until("ping", LONG, || far.reaches("10.1.0.2") && far.reaches("fd10:1::2"));
    let problems = vrf(&daemons[0]).problems;
    assert!(problems.len() == 1 && problems[0].contains("port add host"), "{problems:?}");
    near.ip("route add default via 10.90.0.2");
    daemons[0].kill();
    std::thread::sleep(Duration::from_millis(1100));
    let said = ping(&far.net, "10.1.0.2");
    assert!(said.contains("nreachable") && !said.contains("exceeded"), "{said}");
}

#[test]
fn a_nic_that_changes_is_followed() {
    let (nodes, daemons) = shared_pair(&switchd());
    let [one, two] = [&nodes[0].node.net, &nodes[1].node.net];
    let near = &nodes[0].pods[0];
    let talk = |what: &str| {
        wait_until(what, LONG, || near.reaches("10.2.0.2") && near.reaches("fd10:2::2"));
        assert!(ping(&near.net, "10.2.0.2").contains("ttl=62"), "{what}: not past the kernels");
    };
    talk("ping");
    // Other addresses. The route comes first: with an address goes what leads by it.
    for (net, n, other) in [(one, 1, 2), (two, 2, 1)] {
        let device = format!("l90to{other}");
        net.ip(&format!("addr add 10.91.0.{n}/24 dev {device}"));
        net.ip(&format!("route replace 10.{other}.0.0/24 via 10.91.0.{other}"));
        net.ip(&format!("addr del 10.90.0.{n}/24 dev {device}"));
    }
    talk("ping by other addresses");
    let has =
        |address: &str| vrf(&daemons[0]).uplinks[0].addresses.iter().any(|it| it.to_string() == address);
    wait_until("the addresses", LONG, || has("10.91.0.1/24") && !has("10.90.0.1/24"));
    let said = nodes[1].pods[0].net.run("traceroute -n -q 1 -w 2 10.1.0.2");
    assert!(said.contains("10.91.0.1"), "{said}");

    // The next hop is another NIC, and says so by asking.
    two.ip("link set l90to1 address 02:99:00:00:00:02");
    wait_until("a word of it", LONG, || ping(two, "10.91.0.1").contains("3 received"));
    _ = ping(two, "fd10:90::1");
    talk("ping to another MAC");
    wait_until("its own MAC", LONG, || vrf(&daemons[1]).uplinks[0].mac == "02:99:00:00:00:02".parse().ok());

    // A smaller MTU: whoever sends more is told.
    one.ip("link set l90to2 mtu 1400");
    wait_until("the MTU", LONG, || daemons[0].port("up90").mtu == 1400);
    let said = near.net.try_run("ping -n -c 2 -M do -s 1450 -W 1 10.2.0.2");
    assert!(String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).contains("1400"));

    // Down and up again.
    one.ip("link set l90to2 down");
    wait_until("down", LONG, || daemons[0].port("up90").state == PortState::Down);
    assert!(vrf(&daemons[0]).problems.iter().any(|problem| problem.contains("up90")));
    one.ip("link set l90to2 up");
    one.ip("addr replace fd10:90::1/64 dev l90to2 nodad");
    one.ip("route replace 10.2.0.0/24 via 10.91.0.2");
    one.ip("route replace fd10:2::/64 via fd10:90::2");
    talk("ping after a flap");

    // Another device of its name.
    one.ip("link delete l90to2");
    wait_until("gone", LONG, || daemons[0].port("up90").reason.is_some());
    nodes[0].join(&nodes[1], LINK);
    nodes[0].route_to(&nodes[1], LINK);
    nodes[1].route_to(&nodes[0], LINK);
    talk("ping over another cable");
    for daemon in &daemons {
        daemon.assert_conserved();
    }
}

#[test]
fn first_packets_wait_until_the_kernel_has_resolved_their_neighbour() {
    let (nodes, daemons) = shared_pair(&switchd());
    let (one, near) = (&nodes[0].node.net, &nodes[0].pods[0]);
    wait_until("ping", LONG, || near.reaches("10.2.0.2"));
    for _ in 0..3 {
        one.ip("neigh flush dev l90to2");
        wait_until("forgotten", LONG, || neighbour(&daemons[0], "10.90.0.2").is_none());
        let said = near.net.run("ping -n -c 5 -i 0.01 -W 2 10.2.0.2");
        assert!(said.contains("5 received"), "{said}");
    }
    assert_eq!(neighbour(&daemons[0], "10.90.0.2"), Some(NeighState::Reachable));
    // One that the operator of the node has declared.
    one.ip("neigh replace 10.90.0.50 lladdr 02:99:00:00:00:50 dev l90to2 nud permanent");
    one.ip("route add 10.50.0.0/24 via 10.90.0.50");
    wait_until("a neighbour that is not asked", LONG, || {
        _ = ping(&near.net, "10.50.0.1");
        neighbour(&daemons[0], "10.90.0.50").is_some()
    });
    // Nobody is there.
    one.ip("route add 10.77.0.0/24 via 10.90.0.77");
    wait_until("the route", LONG, || choice(&daemons[0], "10.77.0.1").what == "via");
    let said = near.net.try_run("ping -n -c 2 -i 0.2 -W 6 10.77.0.1");
    assert!(String::from_utf8_lossy(&said.stdout).contains("Host Unreachable"), "{said:?}");
    assert!(daemons[0].drops("neighbour-failed") > 0);
    assert!(choice(&daemons[0], "10.77.0.1").why.iter().any(|line| line.contains("does not answer")));
    daemons[0].assert_conserved();
}

fn neighbour(daemon: &Daemon, address: &str) -> Option<NeighState> {
    let list: Vec<NeighEntry> = daemon.call(&Request::NeighList(Default::default()));
    list.into_iter().find(|entry| entry.address.to_string() == address).map(|entry| entry.state)
}

#[test]
fn a_device_that_cannot_be_shared_is_refused_with_the_reason() {
    let (nodes, daemons) = pair(&switchd());
    let (one, daemon) = (&nodes[0].node.net, &daemons[0]);
    let refusal = |request: &Request| daemon.client().call::<Done>(request).unwrap_err().to_string();
    let uplink = |bridge: &str, device: &str| {
        let kind = PortKind::uplink(device);
        let port = Port::new("up90".parse().unwrap(), bridge.parse().unwrap(), kind);
        Request::PortAdd(Box::new(port))
    };
    daemon.bridge("wan");
    one.ip("link add lan type bridge");
    one.ip("link set lan up");
    one.ip("link set l90to2 master lan");
    let said = refusal(&uplink("wan", "l90to2"));
    assert!(said.contains("a member of lan (bridge)"), "{said}");
    let said = refusal(&uplink("wan", "lan"));
    assert!(said.contains("lan is a bridge"), "{said}");
    let probe: ProbeReply = daemon.call(&Request::PortProbe(ByDevice { device: "l90to2".into() }));
    let shared = probe.tried.iter().find(|tried| tried.what == "shared uplink").unwrap();
    assert!(!shared.works && shared.detail.contains("member of lan"), "{probe:?}");
    one.ip("link set l90to2 nomaster");
    // On a bridge with pods there would be two kinds of station.
    let said = refusal(&uplink("br0", "l90to2"));
    assert!(
        said.contains("has its bridge for itself") && said.contains("the kernel is the station"),
        "{said}"
    );
    let _: Done = daemon.call(&uplink("wan", "l90to2"));
    let own = "10.8.0.1/24".parse().unwrap();
    let own = BridgeAddress {
        bridge: "wan".parse().unwrap(),
        address: own,
        vid: switch_api::Vid::DEFAULT,
        owner: Default::default(),
    };
    assert!(refusal(&Request::AddressAdd(own)).contains("the kernel is the station"));
    // What happens to it later is told, and mended.
    one.ip("link set l90to2 master lan");
    wait_until("down", LONG, || daemon.port("up90").reason.is_some_and(|why| why.contains("member of lan")));
    assert!(!one.ip("link show l90to2").contains("xdp"));
    one.ip("link set l90to2 nomaster");
    wait_until("up", LONG, || daemon.port("up90").state == PortState::Up);
}

#[test]
fn what_the_kernel_translates_goes_by_the_kernel() {
    let (nodes, daemons) = shared_pair(&switchd());
    let [near, far] = [&nodes[0].pods[0], &nodes[1].pods[0]];
    let two = &nodes[1].node.net;
    wait_until("ping", LONG, || near.reaches("10.2.0.2"));
    // A published port: who asks from outside is answered by the address that it asked, and so is another node's pod.
    let publish = vec!["tcp/8080:7000".parse().unwrap()];
    set(&daemons[0], "pod1-2", PortSettings { publish, ..PortSettings::default() });
    for client in [two, &far.net] {
        let listener = near.net.inside(|| TcpListener::bind("10.1.0.2:7000").unwrap()).join().unwrap();
        let asks = || TcpStream::connect_timeout(&"10.90.0.1:8080".parse().unwrap(), LONG).unwrap();
        let stream = client.inside(asks).join().unwrap();
        assert_eq!(stream.peer_addr().unwrap().to_string(), "10.90.0.1:8080");
        let from = listener.accept().unwrap().1.ip().to_string();
        assert!(["10.90.0.2", "10.2.0.2"].contains(&from.as_str()), "{from}");
    }
    // What is masqueraded leaves by the kernel; what is not, by the uplink.
    let no_masquerade = vec!["10.2.0.0/24".parse().unwrap(), "fd10:2::/64".parse().unwrap()];
    set(&daemons[0], "host", PortSettings { masquerade: true, no_masquerade, ..PortSettings::default() });
    let seen_from = |to: &Net, address: &'static str| {
        let listener = to.inside(move || TcpListener::bind(address).unwrap()).join().unwrap();
        let asks = move || TcpStream::connect_timeout(&address.parse().unwrap(), LONG).unwrap();
        let _stream = near.net.inside(asks).join().unwrap();
        listener.accept().unwrap().1.ip().to_string()
    };
    assert_eq!(seen_from(two, "10.90.0.2:7002"), "10.90.0.1");
    assert_eq!(seen_from(&far.net, "10.2.0.2:7002"), "10.1.0.2");
    let what = |address: &str| choice(&daemons[0], address).what;
    assert_eq!((what("10.90.0.2"), what("10.2.0.2")), ("kernel".into(), "via".into()));
    daemons[0].assert_conserved();
}

#[test]
fn an_uplink_is_declared_in_a_file() {
    let (nodes, daemons) = pair(&switchd());
    let (near, daemon) = (&nodes[0].pods[0], &daemons[0]);
    nodes[0].share(daemon, &nodes[1], LINK);
    let export = || daemon.call::<Config>(&Request::ConfigExport(ConfigExport::default()));
    let exported = export();
    let text = file::write(&exported).unwrap();
    assert!(text.contains("take = \"networks\""), "{text}");
    let read = File::read(&text).unwrap().config;
    assert_eq!(read, exported);
    let apply = |config: &Config| {
        let config = config.clone();
        let apply = ConfigApply {
            config,
            owner: Owner::Operator,
            dry_run: false,
            confirm_within_s: None,
            source: None,
        };
        daemon.call::<serde_json::Value>(&Request::ConfigApply(Box::new(apply)))
    };
    // Without it, and with it again.
    let mut without = read.clone();
    without.port.retain(|port| port.name.as_str() != "up90");
    without.bridge.retain(|bridge| bridge.name.as_str() != "wan90");
    apply(&without);
    assert!(vrf(daemon).uplinks.is_empty() && near.reaches("10.2.0.2"));
    apply(&read);
    assert_eq!(vrf(daemon).uplinks[0].port.as_str(), "up90");
    wait_until("ping", LONG, || near.reaches("10.2.0.2"));
    assert_eq!(export(), exported);
}

/// Packets that may be lost in twelve changes: when a program comes onto a veth or leaves it, the kernel throws away what its queues hold.
/// So many may be on their way, too: with more than that lost the load stands still.
const LOST_MAX: u64 = 512;

#[test]
fn pods_do_not_notice_that_an_uplink_comes_or_goes() {
    let (nodes, daemons) = pair(&switchd());
    let [near, far] = [&nodes[0].pods[0].net, &nodes[1].pods[0].net];
    wait_until("ping", LONG, || {
        nodes[0].pods[0].reaches("10.2.0.2") && nodes[0].pods[0].reaches("fd10:2::2")
    });
    let address = |text: &str| text.parse().unwrap();
    let pairs = [(address("10.1.0.2"), address("10.2.0.2")), (address("fd10:1::2"), address("fd10:2::2"))];
    let load = sequence::start(near, far, &pairs, LOST_MAX);
    let goes_on = || {
        let before = load.received();
        wait_until("traffic goes on", LONG, || load.received() > before + 400);
    };
    goes_on();
    for _ in 0..3 {
        nodes[0].share(&daemons[0], &nodes[1], LINK);
        goes_on();
        nodes[1].share(&daemons[1], &nodes[0], LINK);
        goes_on();
        for daemon in &daemons {
            let _: Done = daemon.call(&Request::PortDelete(ByName { name: "up90".parse().unwrap() }));
            let _: Done = daemon.call(&Request::BridgeDelete(ByName { name: "wan90".parse().unwrap() }));
            goes_on();
        }
    }
    let tally = load.finish();
    assert!(tally.lost < LOST_MAX && tally.sent > 4_800, "{tally:?}");
    for daemon in &daemons {
        daemon.assert_conserved();
    }
}
