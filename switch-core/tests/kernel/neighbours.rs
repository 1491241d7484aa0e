//! Neighbours and tables of their own beside real kernels: declared stations, a gateway that moves, networks that two tables have.

use crate::switchd;
use std::time::Duration;
use switch_api::{
    Bridge, Done, Mac, Name, NeighDelete, NeighEntry, NeighState, NextHop, Owner, PortSettings, Request,
    Route, RouteChoice, RouteGet, RouteKind, StaticNeighbour, Vid,
};
use switch_lab::raw::RawSocket;
use switch_lab::scenes::routed;
use switch_lab::transfer::{tcp, udp};
use switch_lab::{Daemon, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// How long nothing must be heard.
const SILENCE: Duration = Duration::from_millis(300);

fn neighbour(daemon: &Daemon, address: &str) -> Option<NeighEntry> {
    let list: Vec<NeighEntry> = daemon.call(&Request::NeighList(Default::default()));
    list.into_iter().find(|entry| entry.address.to_string() == address)
}

/// Whether a frame asks who has this IPv4 address.
fn asks_for(target: [u8; 4]) -> impl Fn(&[u8]) -> bool {
    move |frame| frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && frame[38..42] == target
}

/// An ARP message of a station that says of an address that it is its own: a question of it, or an answer.
fn claim(mac: Mac, address: [u8; 4], target: [u8; 4], asks: bool) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &mac.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, if asks { 1 } else { 2 }]].concat();
    frame.extend(mac.0);
    frame.extend(address);
    frame.extend([0; 6]);
    frame.extend(target);
    frame.resize(60, 0);
    frame
}

/// A declared neighbour is never asked for, whoever claims its address does not get it, it outlives a kill of the daemon, and once
/// it is no longer declared it is asked for like any other.
#[test]
fn a_declared_neighbour_is_not_asked_for_and_not_taken_over() {
    let options = switchd().keeping_state();
    let (node, mut daemon, pods) = routed(&options, &[1, 2]);
    let thief = node.pod_on(2, 3);
    daemon.attach(&thief, "br2", PortSettings::default());
    wait_until("ping", LONG, || pods[0].reaches("10.2.0.2") && pods[0].reaches("10.2.0.3"));
    let quiet = [10, 2, 0, 50];
    pods[1].net.ip("addr add 10.2.0.50/32 dev lo");
    let bridge: Name = "br2".parse().unwrap();
    let declared = StaticNeighbour {
        address: quiet.into(),
        mac: pods[1].mac(),
        bridge: bridge.clone(),
        vid: Vid::DEFAULT,
        owner: Owner::Operator,
    };
    let _: Done = daemon.call(&Request::NeighAdd(declared));
    let state = |daemon: &Daemon| neighbour(daemon, "10.2.0.50").map(|entry| (entry.state, entry.mac));
    let is_declared = Some((NeighState::Static, Some(pods[1].mac())));
    for restarts in [false, true] {
        if restarts {
            daemon.kill();
            daemon = node.start(&options);
            wait_until("ping again", LONG, || pods[0].reaches("10.2.0.2"));
        }
        let look = RawSocket::open(&pods[1].net, "eth0").unwrap();
        assert!(pods[0].reaches("10.2.0.50"), "without a question");
        let raw = RawSocket::open(&thief.net, "eth0").unwrap();
        for asks in [true, false, true] {
            raw.send(&claim(thief.mac(), quiet, [10, 2, 0, 1], asks));
            raw.send(&claim(thief.mac(), quiet, quiet, asks));
        }
        assert!(pods[0].reaches("10.2.0.50"), "a claim took it over");
        // The thief's own question reaches everybody; the switch's is from its own station.
        let station = |frame: &[u8]| frame[6..12] != thief.mac().0;
        let asked = look.recv(SILENCE, |frame| asks_for(quiet)(frame) && station(frame));
        assert!(asked.is_none(), "it was asked for: {asked:02x?}");
        assert_eq!(state(&daemon), is_declared);
    }
    let by = NeighDelete { address: quiet.into(), bridge, vid: Vid::DEFAULT };
    let _: Done = daemon.call(&Request::NeighDelete(by));
    assert_eq!(state(&daemon), None);
    let look = RawSocket::open(&pods[1].net, "eth0").unwrap();
    assert!(pods[0].reaches("10.2.0.50"), "it answers for itself");
    assert!(look.recv(LONG, asks_for(quiet)).is_some(), "and was asked for");
    assert_eq!(state(&daemon).map(|(state, _)| state), Some(NeighState::Reachable));
    daemon.assert_conserved();
}

/// Several pods send to one that does not answer yet: when it does, all that waited arrives, and the worker goes on.
#[test]
fn several_pods_wait_for_one() {
    let (node, daemon, pods) = routed(&switchd(), &[1, 2]);
    let other = node.pod_on(1, 3);
    daemon.attach(&other, "br1", PortSettings::default());
    wait_until("the gateway", LONG, || pods[0].reaches("10.1.0.1") && other.reaches("10.1.0.1"));
    pods[1].net.ip("link set eth0 arp off");
    let ping = |pod: &Pod| pod.net.spawn("ping -n -c 3 -i 0.2 -W 5 10.2.0.2");
    let pings = [ping(&pods[0]), ping(&other)];
    let is_asked = || neighbour(&daemon, "10.2.0.2").is_some_and(|it| it.state == NeighState::Incomplete);
    wait_until("it is asked for", LONG, is_asked);
    // Packets of both wait by then.
    wait_until("all wait", LONG, || daemon.stats().frames.in_flight >= 4);
    pods[1].net.ip("link set eth0 arp on");
    for ping in pings {
        let said = String::from_utf8_lossy(&ping.finish().stdout).into_owned();
        assert!(said.contains("3 received"), "{said}");
    }
    daemon.assert_conserved();
}

/// A gateway that gets another station, and an address that moves to another bridge: who remembers the old one is told unasked.
#[test]
fn a_gateway_that_moves_tells_its_neighbours() {
    let (node, daemon, pods) = routed(&switchd(), &[1]);
    let pod = &pods[0];
    wait_until("ping", LONG, || pod.reaches("10.1.0.1") && pod.reaches("fd10:1::1"));
    let known = |pod: &Pod, mac: &str| {
        let known = pod.net.ip("neigh show dev eth0");
        let of = |address: &str| {
            known.lines().any(|line| line.starts_with(&format!("{address} ")) && line.contains(mac))
        };
        of("10.1.0.1") && of("fd10:1::1")
    };
    let station = "02:00:00:00:00:77";
    assert!(!known(pod, station));
    let bridge = Bridge { mac: station.parse().ok(), ..Bridge::new("br1".parse().unwrap()) };
    // From here on the pod says nothing of its own accord.
    let _: Done = daemon.call(&Request::BridgeSet(bridge));
    wait_until("the pod knows the other station", LONG, || known(pod, station));
    assert!(pod.reaches("10.1.0.1") && pod.reaches("fd10:1::1"));

    // The gateway's addresses go to another bridge, where a pod remembers the old station.
    let other = node.pod_on(1, 9);
    let there = Bridge { mac: "02:00:00:00:00:78".parse().ok(), ..Bridge::new("br9".parse().unwrap()) };
    let _: Done = daemon.call(&Request::BridgeAdd(there));
    daemon.attach(&other, "br9", PortSettings::default());
    for address in ["10.1.0.1", "fd10:1::1"] {
        other.net.ip(&format!("neigh replace {address} lladdr {station} dev eth0 nud stale"));
    }
    for address in ["10.1.0.1/24", "fd10:1::1/64"] {
        let by = switch_api::AddressDelete {
            bridge: "br1".parse().unwrap(),
            address: address.parse().unwrap(),
            vid: Vid::DEFAULT,
        };
        let _: Done = daemon.call(&Request::AddressDelete(by));
        daemon.gateway("br9", address);
    }
    wait_until("the pod there knows it", LONG, || known(&other, "02:00:00:00:00:78"));
    assert!(other.reaches("10.1.0.1") && other.reaches("fd10:1::1"));
    daemon.assert_conserved();
}

/// Two routing tables with the same networks, the same gateways and the same addresses: each pod reaches its own table's, by
/// neighbours and by routes, and nobody else.
#[test]
fn tables_with_the_same_networks_do_not_meet() {
    let (node, daemon, main) = routed(&switchd(), &[1, 2]);
    let red: Name = "red".parse().unwrap();
    let mut pods = Vec::new();
    for net in [1, 2] {
        let bridge = format!("red{net}");
        let object = Bridge { vrf: red.clone(), ..Bridge::new(bridge.parse().unwrap()) };
        let _: Done = daemon.call(&Request::BridgeAdd(object));
        daemon.gateway(&bridge, &format!("10.{net}.0.1/24"));
        daemon.gateway(&bridge, &format!("fd10:{net}::1/64"));
        let pod = node.pod_on(net, 3);
        daemon.attach(&pod, &bridge, PortSettings::default());
        pods.push(pod);
    }
    // The same address in both, and a network of that name behind it.
    for far in [&main[1], &pods[1]] {
        far.net.ip("addr add 10.2.0.77/24 dev eth0");
        far.net.ip("addr add 10.99.0.1/32 dev lo");
    }
    for (vrf, hop) in [(Name::main(), "10.2.0.2"), (red.clone(), "10.2.0.77")] {
        let hop = NextHop { address: hop.parse().unwrap(), bridge: None, vid: Vid::DEFAULT, weight: 1 };
        let route = Route::new("10.99.0.0/16".parse().unwrap(), RouteKind::Via, vec![hop]);
        let _: Done = daemon.call(&Request::RouteAdd(Route { vrf, ..route }));
    }
    for (near, own, others) in [(&main[0], "2", "3"), (&pods[0], "3", "2")] {
        wait_until("its own table's", LONG, || {
            near.reaches(&format!("10.2.0.{own}")) && near.reaches(&format!("fd10:2::{own}"))
        });
        assert!(!near.reaches(&format!("10.2.0.{others}")), "another table's pod was reached");
    }
    // Who has the address, in this table: what is sent arrives there.
    for (near, far) in [(&main[0], &main[1]), (&pods[0], &pods[1])] {
        for address in ["10.2.0.77", "10.99.0.1"] {
            let address = address.parse().unwrap();
            assert_eq!(udp(&near.net, &far.net, address, 20), 20, "{address}");
            assert_eq!(tcp(&near.net, &far.net, address, 100_000), 100_000, "{address}");
        }
    }
    let choice = |vrf: &Name| {
        let get = RouteGet { address: "10.99.0.1".parse().unwrap(), vrf: vrf.clone() };
        daemon.call::<RouteChoice>(&Request::RouteGet(get)).why.join("; ")
    };
    let (of_main, of_red) = (choice(&Name::main()), choice(&red));
    assert!(of_main.contains("10.2.0.2") && of_main.contains(&main[1].mac().to_string()), "{of_main}");
    assert!(of_red.contains("10.2.0.77") && of_red.contains(&pods[1].mac().to_string()), "{of_red}");
    daemon.assert_conserved();
}
