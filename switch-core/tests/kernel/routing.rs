//! Real kernels on different bridges: the switch is their gateway.

use crate::switchd;
use std::time::Duration;
use switch_api::{
    AddressDelete, Bridge, BridgeStatus, Code, Done, Name, NeighEntry, NeighState, NextHop, PortSettings,
    Request, ReversePath, Route, RouteApply, RouteChoice, RouteGet, RouteKind, RouterAdvert, Vid,
};
use switch_lab::raw::RawSocket;
use switch_lab::scenes::routed;
use switch_lab::transfer::tcp;
use switch_lab::{Daemon, Node, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn neighbours(daemon: &Daemon) -> Vec<NeighEntry> {
    daemon.call(&Request::NeighList(Default::default()))
}

/// Whoever remembers another station for a gateway's address is told unasked, when the address is declared and after a
/// restart.
#[test]
fn a_gateway_announces_itself() {
    let node = Node::new();
    let mut daemon = node.start(&switchd().keeping_state());
    daemon.bridge("br1");
    let pod = node.pod_on(1, 2);
    daemon.attach(&pod, "br1", PortSettings::default());
    let forget = || {
        for address in ["10.1.0.1", "fd10:1::1"] {
            pod.net.ip(&format!("neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud stale"));
        }
    };
    let is_told = || {
        let known = pod.net.ip("neigh show dev eth0");
        !known.contains("02:00:00:00:00:99")
            && ["10.1.0.1 ", "fd10:1::1 "].iter().all(|address| known.contains(address))
    };
    forget();
    daemon.gateway("br1", "10.1.0.1/24");
    daemon.gateway("br1", "fd10:1::1/64");
    wait_until("the pod knows the gateway's station", LONG, is_told);
    daemon.stop(false);
    forget();
    let daemon = node.start(&switchd().keeping_state());
    wait_until("the pod is told after a restart", LONG, is_told);
    daemon.assert_conserved();
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
        assert_eq!(
            tcp(&pods[0].net, &pods[1].net, address.parse().unwrap(), 2_000_000),
            2_000_000,
            "TCP over {address}"
        );
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
    assert_eq!(tcp(&pods[0].net, &pods[1].net, "10.2.0.2".parse().unwrap(), 2_000_000), 2_000_000);
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

pub fn route(prefix: &str, kind: RouteKind, via: &[&str]) -> Route {
    let hop = |address: &&str| NextHop {
        address: address.parse().unwrap(),
        bridge: None,
        vid: Vid::DEFAULT,
        weight: 1,
    };
    Route::new(prefix.parse().unwrap(), kind, via.iter().map(hop).collect())
}

pub fn choice(daemon: &Daemon, address: &str) -> RouteChoice {
    daemon.call(&Request::RouteGet(RouteGet { address: address.parse().unwrap(), vrf: Name::main() }))
}

#[test]
fn routes_lead_behind_neighbours_and_say_no_by_name() {
    let (_node, daemon, pods) = routed(&switchd(), &[1, 2]);
    // A network behind the second pod, which forwards for it.
    pods[1].net.ip("addr add 10.99.0.1/32 dev lo");
    pods[1].net.ip("addr add fd99::1/128 dev lo");
    for (prefix, via) in [("10.99.0.0/16", "10.2.0.2"), ("fd99::/64", "fd10:2::2")] {
        let _: Done = daemon.call(&Request::RouteAdd(route(prefix, RouteKind::Via, &[via])));
    }
    wait_until("IPv4 behind a neighbour", LONG, || pods[0].reaches("10.99.0.1"));
    wait_until("IPv6 behind a neighbour", LONG, || pods[0].reaches("fd99::1"));
    assert_eq!(tcp(&pods[0].net, &pods[1].net, "10.99.0.1".parse().unwrap(), 300_000), 300_000);
    let said = choice(&daemon, "10.99.0.1");
    assert_eq!(said.what, "via");
    assert!(
        said.why.iter().any(|line| line.contains("10.2.0.2") && line.contains(&pods[1].mac().to_string())),
        "{said:?}"
    );
    assert_eq!(choice(&daemon, "10.1.0.1").what, "local");
    assert_eq!(choice(&daemon, "10.1.0.255").what, "broadcast");
    assert_eq!(choice(&daemon, "10.2.0.9").what, "connected");
    assert_eq!(choice(&daemon, "8.8.8.8").what, "none");

    let cases = [
        (RouteKind::Blackhole, "blackhole", None),
        (RouteKind::Unreachable, "no-route", Some("Host Unreachable")),
        (RouteKind::Prohibit, "prohibited", Some("Packet filtered")),
    ];
    for (n, (kind, reason, told)) in cases.into_iter().enumerate() {
        // Longer than the route that leads on.
        let _: Done = daemon.call(&Request::RouteAdd(route(&format!("10.99.{}.0/24", n + 1), kind, &[])));
        let before = daemon.drops(reason);
        let said = pods[0].net.try_run(&format!("ping -n -c 1 -W 1 10.99.{}.7", n + 1));
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("100% packet loss"), "{said}");
        assert!(told.is_none_or(|told| said.contains(told)), "{reason}: {said}");
        assert!(daemon.drops(reason) > before, "{reason} is not counted");
    }
    let mut client = daemon.client();
    let mut refused = |request: Request| client.call::<Done>(&request).unwrap_err();
    let error = refused(Request::RouteAdd(route("10.77.0.0/16", RouteKind::Via, &["10.3.0.2"])));
    assert!(error.message.contains("in no gateway's network"), "{error:?}");
    let error = refused(Request::RouteAdd(route("10.77.0.1/16", RouteKind::Blackhole, &[])));
    assert!(error.message.contains("did you mean 10.77.0.0/16"), "{error:?}");
    let error = refused(Request::RouteAdd(route("10.99.0.0/16", RouteKind::Blackhole, &[])));
    assert_eq!(error.code, Code::Exists);
    let by = AddressDelete {
        bridge: "br2".parse().unwrap(),
        address: "10.2.0.1/24".parse().unwrap(),
        vid: Vid::DEFAULT,
    };
    assert!(refused(Request::AddressDelete(by)).message.contains("10.99.0.0/16"), "a route still needs it");
    daemon.assert_conserved();
}

#[test]
fn senders_are_told_why_nothing_arrives() {
    let (node, daemon, pods) = routed(&switchd(), &[1, 2]);
    wait_until("ping", LONG, || pods[0].reaches("10.2.0.2") && pods[0].reaches("fd10:2::2"));
    // One hop, then the pod: what a person expects of a traceroute.
    for (far, gateway) in [("10.2.0.2", "10.1.0.1"), ("fd10:2::2", "fd10:1::1")] {
        let said = pods[0].net.try_run(&format!("ping -n -c 1 -W 1 -t 1 {far}"));
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(&format!("From {gateway}")) && said.contains("exceeded"), "{said}");
        let said = pods[0].net.run(&format!("traceroute -n -q 1 -w 1 {far}"));
        let hops: Vec<&str> =
            said.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(hops, [gateway, far], "{said}");
        // And to the gateway itself: its ports are closed.
        let said = pods[0].net.run(&format!("traceroute -n -q 1 -w 1 {gateway}"));
        assert_eq!(said.lines().count(), 2, "{said}");
    }
    // Nobody answers: after three questions the sender is told.
    let said = pods[0].net.try_run("ping -n -c 1 -W 5 10.2.0.77");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("Destination Host Unreachable"), "{said}");
    let said = pods[0].net.try_run("ping -n -c 1 -W 2 fd10:5::1");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("No route"), "{said}");

    // A narrow port: the sender learns its MTU, and TCP finds through it.
    let narrow = switch_api::PortSet {
        name: pods[1].device.parse().unwrap(),
        settings: PortSettings { mtu: Some(1400), ..PortSettings::default() },
    };
    let _: Done = daemon.call(&Request::PortSet(narrow));
    let said = pods[0].net.try_run("ping -n -c 1 -W 1 -M do -s 1450 10.2.0.2");
    let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("mtu = 1400") || said.contains("mtu=1400"), "{said}");
    let said = pods[0].net.try_run("ping -n -c 1 -W 1 -M do -s 1450 fd10:2::2");
    let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("mtu = 1400") || said.contains("mtu=1400"), "{said}");
    // Where the sender allows it, the packet arrives in pieces.
    let said = pods[0].net.run("ping -n -c 3 -i 0.2 -W 2 -M dont -s 1450 10.2.0.2");
    assert!(said.contains("3 received"), "{said}");
    for address in ["10.2.0.2", "fd10:2::2"] {
        assert_eq!(
            tcp(&pods[0].net, &pods[1].net, address.parse().unwrap(), 300_000),
            300_000,
            "TCP over {address}"
        );
    }
    drop(node);
}

/// What people ask the way with: each says one hop, the gateway, and then the pod; `tracepath` the narrowest place, too.
#[test]
fn tools_show_the_way() {
    let (_node, daemon, pods) = routed(&switchd(), &[1, 2]);
    let net = &pods[0].net;
    let ways = [("10.1.0.1", "10.2.0.2"), ("fd10:1::1", "fd10:2::2")];
    wait_until("ping", LONG, || ways.iter().all(|(_, far)| pods[0].reaches(far)));
    // These tools send sixteen and more at once, and a kernel says "port unreachable" six times and then once a second.
    for limit in ["net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"] {
        pods[1].net.run(&format!("sysctl -qw {limit}=0"));
    }
    // Each line's hop and who is there; what has no number is left out.
    let hops = |said: &str| -> Vec<(u32, String)> {
        let hop = |line: &str| {
            let mut words = line.split_whitespace();
            let n = words.next()?.trim_end_matches(['.', ':', '|', '-']).parse().ok()?;
            Some((n, words.next()?.to_owned()))
        };
        said.lines().filter_map(hop).collect()
    };
    let narrow = switch_api::PortSet {
        name: pods[1].device.parse().unwrap(),
        settings: PortSettings { mtu: Some(1400), ..PortSettings::default() },
    };
    for (gateway, far) in ways {
        let is = [(1, gateway.to_owned()), (2, far.to_owned())];
        for how in ["traceroute -n -q 1 -w 1", "traceroute -n -q 1 -w 1 -I", "traceroute -n -q 1 -w 1 -T"] {
            let said = net.run(&format!("{how} {far}"));
            assert_eq!(hops(&said), is, "{how}: {said}");
        }
        for how in [
            "mtr -n -r -c 2 -i 0.3 -G 1",
            "mtr -n -r -c 2 -i 0.3 -G 1 --udp",
            "mtr -n -r -c 2 -i 0.3 -G 1 --tcp",
        ] {
            let said = net.run(&format!("{how} {far}"));
            assert_eq!(hops(&said), is, "{how}: {said}");
            assert_eq!(said.matches(" 0.0%").count(), 2, "{how} lost something: {said}");
        }
    }
    for mtu in [1500, 1400] {
        if mtu == 1400 {
            let _: Done = daemon.call(&Request::PortSet(narrow.clone()));
        }
        for (gateway, far) in ways {
            let said = net.run(&format!("tracepath -n {far}"));
            let mut seen = hops(&said);
            seen.dedup();
            let mut is = vec![(1, gateway.to_owned()), (2, far.to_owned())];
            if mtu < 1500 {
                // The gateway tells what it has no room for.
                is.insert(1, (2, gateway.to_owned()));
            }
            assert_eq!(seen, is, "{said}");
            assert!(
                said.contains("reached") && said.contains(&format!("Resume: pmtu {mtu} hops 2 back 2")),
                "{said}"
            );
        }
    }
    daemon.assert_conserved();
}

fn bridge_set(daemon: &Daemon, name: &str, change: impl Fn(Bridge) -> Bridge) {
    let _: Done = daemon.call(&Request::BridgeSet(change(Bridge::new(name.parse().unwrap()))));
}

/// The largest segment that the next SYN on a pod's device offers.
fn offered(pod: &RawSocket) -> u16 {
    use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};
    let mss = |frame: &[u8]| {
        let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(frame).ok()?.transport else {
            return None;
        };
        tcp.options_iterator().filter(|_| tcp.syn()).find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        })
    };
    let frame = pod.recv(LONG, |frame| mss(frame).is_some()).expect("a SYN");
    mss(&frame).unwrap()
}

/// Kernels offer what their own links carry; what arrives fits the narrow port too, in both directions, and nobody has to be told.
#[test]
fn tcp_is_told_to_send_segments_that_fit() {
    let (_node, daemon, pods) = routed(&switchd(), &[1, 2]);
    let narrow = switch_api::PortSet {
        name: pods[1].device.parse().unwrap(),
        settings: PortSettings { mtu: Some(1400), ..PortSettings::default() },
    };
    let _: Done = daemon.call(&Request::PortSet(narrow));
    wait_until("ping", LONG, || pods[0].reaches("10.2.0.2") && pods[0].reaches("fd10:2::2"));
    let transfer = |address: &str| {
        let looks = [&pods[0], &pods[1]].map(|pod| RawSocket::open(&pod.net, "eth0").unwrap());
        assert_eq!(tcp(&pods[0].net, &pods[1].net, address.parse().unwrap(), 300_000), 300_000);
        // Each sees its own, and then what the other's became.
        [(&looks[0], 0), (&looks[1], 1)].map(|(look, skip)| {
            let first = offered(look);
            if skip == 0 { (first, offered(look)) } else { (offered(look), first) }
        })
    };
    for (address, own, fits) in [("10.2.0.2", 1460, 1360), ("fd10:2::2", 1440, 1340)] {
        bridge_set(&daemon, "br1", |bridge| Bridge { mss_clamp: true, ..bridge });
        let told = daemon.drops("mtu-exceeded");
        assert_eq!(transfer(address), [(own, fits), (own, fits)], "{address}: own, heard");
        assert_eq!(daemon.drops("mtu-exceeded"), told, "{address}: no sender had to be told");
        bridge_set(&daemon, "br1", |bridge| bridge);
        assert_eq!(transfer(address), [(own, own), (own, own)], "{address}: own, heard");
    }
    daemon.assert_conserved();
}

/// A pod with an address that lies elsewhere by the routes: nobody is reached from it by strict reverse paths, and by loose
/// ones whoever answers answers elsewhere; once a route leads to it, it is like any other.
#[test]
fn a_pod_sends_from_where_routes_lead_back_to() {
    let (_node, daemon, pods) = routed(&switchd(), &[1, 2]);
    let sources = [("10.99.0.1", "10.99.0.0/16", 32), ("fd99::1", "fd99::/64", 128)];
    for (source, prefix, len) in sources {
        pods[0].net.ip(&format!("addr add {source}/{len} dev lo"));
        let hop = if len == 32 { "10.2.0.2" } else { "fd10:2::2" };
        let _: Done = daemon.call(&Request::RouteAdd(route(prefix, RouteKind::Via, &[hop])));
    }
    wait_until("ping", LONG, || pods[0].reaches("10.2.0.2") && pods[0].reaches("fd10:2::2"));
    for (source, prefix, len) in sources {
        let far = if len == 32 { "10.2.0.2" } else { "fd10:2::2" };
        let ping = || pods[0].net.try_run(&format!("ping -n -c 1 -W 1 -I {source} {far}"));
        let look = RawSocket::open(&pods[1].net, "eth0").unwrap();
        let bytes = switch_api::Prefix::host(source.parse().unwrap()).address;
        let is_from_it = |frame: &[u8]| match bytes {
            std::net::IpAddr::V4(ip) => frame[12..14] == [8, 0] && frame[26..30] == ip.octets(),
            std::net::IpAddr::V6(ip) => frame[12..14] == [0x86, 0xdd] && frame[22..38] == ip.octets(),
        };
        let set = |reverse_path| bridge_set(&daemon, "br1", |bridge| Bridge { reverse_path, ..bridge });
        set(ReversePath::Strict);
        let before = daemon.drops("reverse-path");
        assert!(!ping().status.success());
        assert!(daemon.drops("reverse-path") > before, "{source}");
        assert!(pods[0].reaches(far), "what has its way back is not hindered");
        assert!(look.recv(Duration::from_millis(50), is_from_it).is_none(), "{source} arrived");
        set(ReversePath::Loose);
        let before = daemon.drops("reverse-path");
        ping();
        assert!(look.recv(LONG, is_from_it).is_some(), "{source} did not arrive");
        assert_eq!(daemon.drops("reverse-path"), before);
        let hop = if len == 32 { "10.1.0.2" } else { "fd10:1::2" };
        let replace = vec![route(prefix, RouteKind::Via, &[hop])];
        let _: Done = daemon.call(&Request::RouteApply(RouteApply { replace, ..RouteApply::default() }));
        set(ReversePath::Strict);
        wait_until("its way back is its way", LONG, || ping().status.success());
    }
    daemon.assert_conserved();
}

/// A kernel that was given nothing configures itself: an address, a default route, the link's MTU; and unlearns the route when
/// the switch is no router any more.
#[test]
fn hosts_configure_themselves_by_router_advertisements() {
    let (node, mut daemon, pods) = routed(&switchd(), &[1, 2]);
    let narrow = switch_api::PortSet {
        name: pods[0].device.parse().unwrap(),
        settings: PortSettings { mtu: Some(1420), ..PortSettings::default() },
    };
    let _: Done = daemon.call(&Request::PortSet(narrow));
    let net = &pods[0].net;
    net.ip("-6 route del default");
    net.ip("addr del fd10:1::2/64 dev eth0");
    let advert = |daemon: &Daemon, router_advert| {
        bridge_set(daemon, "br1", |bridge| Bridge { router_advert, ..bridge });
    };
    let has_route = || net.ip("-6 route show default").contains("proto ra");
    let every_half_hour = Some(RouterAdvert { interval_s: 1800, ..RouterAdvert::default() });
    advert(&daemon, every_half_hour);
    let configured = || {
        let made = net.ip("-6 addr show dev eth0 scope global -tentative").contains("inet6 fd10:1::");
        made && has_route()
    };
    wait_until("an address and a route", LONG * 2, configured);
    wait_until("it reaches another network", LONG, || pods[0].reaches("fd10:2::2"));
    assert_eq!(net.run("cat /proc/sys/net/ipv6/conf/eth0/mtu").trim(), "1420");
    // A network that comes and goes: nothing new is to be done with the address made of it.
    let is_deprecated = |network: &str| {
        net.ip("-6 addr show dev eth0 scope global deprecated").contains(&format!("inet6 {network}"))
    };
    daemon.gateway("br1", "fd10:71::1/64");
    let made = || net.ip("-6 addr show dev eth0 scope global -tentative").contains("inet6 fd10:71::");
    wait_until("an address of the new network", LONG * 2, made);
    address_delete(&daemon, "fd10:71::1/64");
    wait_until("it is not to be used any more", LONG, || is_deprecated("fd10:71::"));
    assert!(made() && !is_deprecated("fd10:1::") && has_route());
    // Switched off: three times it is said that there is no router here.
    let look = RawSocket::open(net, "eth0").unwrap();
    advert(&daemon, None);
    wait_until("its router is gone", LONG * 2, || !has_route());
    assert!(!is_deprecated("fd10:1::"), "its network is there as before");
    let is_last =
        |frame: &[u8]| frame.len() > 62 && frame[20] == 58 && frame[54] == 134 && frame[60..62] == [0, 0];
    let lasts = (0..4).map_while(|_| look.recv(LONG, is_last)).count();
    assert_eq!(lasts, 3);
    // The gateway goes, and with it its network.
    advert(&daemon, every_half_hour);
    wait_until("it has one again", LONG * 2, has_route);
    address_delete(&daemon, "fd10:1::1/64");
    wait_until("neither router nor network", LONG, || !has_route() && is_deprecated("fd10:1::"));
    daemon.gateway("br1", "fd10:1::1/64");
    wait_until("both are back", LONG * 2, || has_route() && !is_deprecated("fd10:1::"));
    let error = daemon.client().call::<Done>(&Request::BridgeSet(Bridge {
        router_advert: Some(RouterAdvert { interval_s: 3, ..RouterAdvert::default() }),
        ..Bridge::new("br1".parse().unwrap())
    }));
    assert_eq!(error.unwrap_err().data.field.as_deref(), Some("router_advert.interval_s"));
    daemon.assert_conserved();
    advert(&daemon, every_half_hour);
    wait_until("it has one again", LONG * 2, has_route);
    daemon.stop(true);
    wait_until("the switch said that it goes", LONG, || !has_route());
    drop(node);
}

fn address_delete(daemon: &Daemon, address: &str) {
    let (bridge, address) = ("br1".parse().unwrap(), address.parse().unwrap());
    let _: Done = daemon.call(&Request::AddressDelete(AddressDelete { bridge, address, vid: Vid::DEFAULT }));
}

/// Two pods of one network reach each other though neither's questions reach the other: the switch answers for both. A third,
/// which believes that everything is on its link, reaches another network by it.
#[test]
fn questions_are_answered_instead_of_flooded() {
    let (node, daemon, mut pods) = routed(&switchd(), &[1, 2]);
    let neighbour = node.pod_on(1, 3);
    daemon.attach(&neighbour, "br1", PortSettings::default());
    pods.push(neighbour);
    wait_until("ping", LONG, || {
        // Each asks the gateway, which hears of it so.
        [&pods[0], &pods[2]].iter().all(|pod| pod.reaches("10.1.0.1") && pod.reaches("fd10:1::1"))
    });
    bridge_set(&daemon, "br1", |bridge| Bridge { neigh_suppress: true, neigh_proxy: true, ..bridge });
    let look = RawSocket::open(&pods[2].net, "eth0").unwrap();
    assert!(pods[0].reaches("10.1.0.3") && pods[0].reaches("fd10:1::3"));
    let asker = [2, 1, 0, 0, 0, 2];
    let asks = |frame: &[u8]| match frame[12..14] {
        // What the pod itself and the other end of its cable ask is seen there as well.
        _ if frame[6..12] != asker => false,
        [0x08, 0x06] => frame[20..22] == [0, 1] && frame[..6] == [0xff; 6],
        // Whether an address is free is for everybody to say.
        [0x86, 0xdd] => frame[20] == 58 && frame[54] == 135 && frame[0] == 0x33 && frame[22..38] != [0; 16],
        _ => false,
    };
    let asked = look.recv(Duration::from_millis(500), asks);
    assert!(asked.is_none(), "a question was flooded: {asked:02x?}");
    // Without gateways of its own.
    for word in ["-4", "-6"] {
        pods[0].net.ip(&format!("{word} route flush default"));
    }
    pods[0].net.ip("route add 10.0.0.0/8 dev eth0");
    pods[0].net.ip("route add fd10::/16 dev eth0");
    wait_until("through the proxy", LONG, || pods[0].reaches("10.2.0.2") && pods[0].reaches("fd10:2::2"));
    daemon.assert_conserved();
}
