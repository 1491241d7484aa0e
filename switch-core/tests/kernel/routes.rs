//! Declared routes and real kernels: their MTU, what they count, next hops that are dead, and many of them at once.

use crate::routing::{choice, route};
use crate::switchd;
use std::time::Duration;
use switch_api::{
    ApiError, Code, Done, Name, Nothing, PortSettings, Request, Route, RouteApply, RouteChoice, RouteCount,
    RouteDelete, RouteFilter, RouteGet, RouteKind, RoutePlace, RouteStatus,
};
use switch_lab::cross::Router;
use switch_lab::scenes::routed;
use switch_lab::transfer::{checksum_errors, tcp};
use switch_lab::{Daemon, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// Longer than it is remembered that somebody did not answer.
const REMEMBERED: Duration = Duration::from_secs(10);

/// A route's MTU is told to senders, by the kernel's own reckoning; it is kept, shown, and cut to.
#[test]
fn a_route_has_an_mtu() {
    let (node, mut daemon, pods) = routed(&switchd().keeping_state(), &[1, 2]);
    for address in ["10.99.0.1/32", "fd99::1/128"] {
        pods[1].net.ip(&format!("addr add {address} dev lo"));
    }
    let ways = [("10.99.0.0/16", "10.2.0.2", "10.99.0.1", 1300), ("fd99::/64", "fd10:2::2", "fd99::1", 1280)];
    for (prefix, via, ..) in ways {
        for (mtu, text) in [(67, "67 bytes are too few"), (1400, "")] {
            let route = Route { mtu: Some(mtu), ..route(prefix, RouteKind::Via, &[via]) };
            match daemon.client().call::<Done>(&Request::RouteAdd(route)) {
                Ok(_) => assert_eq!(text, ""),
                Err(error) => assert!(!text.is_empty() && error.message.contains(text), "{error:?}"),
            }
        }
    }
    let replace =
        ways.map(|(prefix, via, _, mtu)| Route { mtu: Some(mtu), ..route(prefix, RouteKind::Via, &[via]) });
    let _: Done =
        daemon.call(&Request::RouteApply(RouteApply { replace: replace.into(), ..RouteApply::default() }));
    daemon.stop(false);
    let daemon = node.start(&switchd().keeping_state());
    for (prefix, _, far, mtu) in ways {
        let said = choice(&daemon, far);
        assert_eq!(said.route.unwrap().route.mtu, Some(mtu));
        assert!(said.why.iter().any(|line| line.contains(&format!("its MTU is {mtu}"))), "{:?}", said.why);
        wait_until("it is reached", LONG, || pods[0].reaches(far));
        let said = pods[0].net.try_run(&format!("ping -n -c 1 -W 1 -M do -s 1400 {far}"));
        let said =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(said.to_lowercase().replace(' ', "").contains(&format!("mtu={mtu}")), "{prefix}: {said}");
        // The kernel remembers what it was told, and TCP finds through.
        let known = pods[0].net.ip(&format!("route get {far}"));
        assert!(known.contains(&format!("mtu {mtu}")), "{known}");
        assert_eq!(tcp(&pods[0].net, &pods[1].net, far.parse().unwrap(), 300_000), 300_000);
    }
    let said = pods[0].net.run("ping -n -c 3 -i 0.2 -W 2 -M dont -s 1400 10.99.0.1");
    assert!(said.contains("3 received"), "{said}");
    daemon.assert_conserved();
}

/// A pod's kernel that lets its packets be cut up (no path MTU discovery) hands over superframes whose segments do not fit a
/// narrow way: they arrive in pieces, whole, and nobody is told of anything.
#[test]
fn superframes_that_may_be_cut_pass_a_narrow_way() {
    let mut node = Router::new(1);
    let daemon = node.start(&switchd());
    node.pod(&daemon, 2);
    daemon.bridge("br2");
    daemon.gateway("br2", "10.2.0.1/24");
    let (near, far) = (&node.pods[0], node.node.pod_on(2, 2));
    daemon.attach(&far, "br2", PortSettings { mtu: Some(1000), ..PortSettings::default() });
    wait_until("ping", LONG, || near.reaches("10.2.0.2"));
    let cut = || {
        let events = daemon.stats().events;
        events.iter().find(|(name, _)| name == "fragmented").map_or(0, |(_, count)| *count)
    };
    for (discovers, mode) in [(false, 1), (true, 0)] {
        near.net.run(&format!("sysctl -q -w net.ipv4.ip_no_pmtu_disc={mode}"));
        let (told, before) = (daemon.drops("mtu-exceeded"), cut());
        assert_eq!(tcp(&near.net, &far.net, "10.2.0.2".parse().unwrap(), 2_000_000), 2_000_000);
        assert_eq!(daemon.drops("mtu-exceeded") > told, discovers, "its sender was told");
        assert_eq!(cut() > before + 1000, !discovers, "its segments were cut");
    }
    assert_eq!(checksum_errors(&far.net), 0);
    daemon.assert_conserved();
}

/// Counted from when it is asked for, until it is not; whichever worker routes it.
#[test]
fn routes_are_counted_where_it_is_asked_for() {
    let (_node, daemon, pods) = routed(&switchd().with("--cores 0,1"), &[1, 2]);
    pods[1].net.ip("addr add 10.99.0.1/32 dev lo");
    let counted = |count| Route { count, ..route("10.99.0.0/16", RouteKind::Via, &["10.2.0.2"]) };
    let put = |route| {
        let _: Done =
            daemon.call(&Request::RouteApply(RouteApply { replace: vec![route], ..RouteApply::default() }));
    };
    let counts = || daemon.call::<Vec<RouteCount>>(&Request::RouteStats(Nothing {}));
    let ping = |count: u32, size: u32| {
        let said = pods[0].net.run(&format!("ping -n -c {count} -i 0.05 -W 2 -s {size} 10.99.0.1"));
        assert!(said.contains(&format!("{count} received")), "{said}");
    };
    put(counted(false));
    ping(2, 56);
    assert_eq!(counts(), []);
    put(counted(true));
    ping(5, 56);
    let is = |packets, bytes| RouteCount {
        prefix: "10.99.0.0/16".parse().unwrap(),
        vrf: Name::main(),
        metric: 0,
        packets,
        bytes,
    };
    assert_eq!(counts(), [is(5, 5 * 98)]);
    // Another metric is another route, and the one with the lowest is used.
    put(Route { metric: 7, ..counted(true) });
    put(Route { mtu: Some(1300), ..counted(true) });
    ping(3, 1000);
    assert_eq!(counts(), [is(8, 5 * 98 + 3 * 1042), RouteCount { metric: 7, ..is(0, 0) }]);
    let by = |metric| RouteDelete {
        prefix: "10.99.0.0/16".parse().unwrap(),
        vrf: Name::main(),
        metric: Some(metric),
    };
    let _: Done = daemon.call(&Request::RouteDelete(by(0)));
    ping(4, 56);
    assert_eq!(counts(), [RouteCount { metric: 7, ..is(4, 4 * 98) }]);
    // A counter that somebody had begins anew.
    put(counted(true));
    ping(1, 56);
    assert_eq!(counts(), [is(1, 98), RouteCount { metric: 7, ..is(4, 4 * 98) }]);
    daemon.assert_conserved();
}

/// A router's cable dies: who sends by it is told once it does not answer; nobody else notices, and all goes on when it is back.
#[test]
fn a_next_hop_over_a_dead_cable_is_told_of() {
    let (_node, daemon, pods) = routed(&switchd(), &[1, 2, 3]);
    pods[1].net.ip("addr add 10.99.0.1/32 dev lo");
    let _: Done = daemon.call(&Request::RouteAdd(route("10.99.0.0/16", RouteKind::Via, &["10.2.0.2"])));
    wait_until("it is reached", LONG, || pods[0].reaches("10.99.0.1"));
    pods[1].net.ip("link set eth0 down");
    let is_told = || {
        let said = pods[0].net.try_run("ping -n -c 1 -W 1 10.99.0.1");
        String::from_utf8_lossy(&said.stdout)
            .contains("From 10.1.0.1 icmp_seq=1 Destination Host Unreachable")
    };
    wait_until("the sender is told", LONG, is_told);
    assert!(daemon.drops("neighbour-failed") > 0);
    assert!(pods[0].reaches("10.3.0.2"), "another network is reached as before");
    // With its device it lost its own way back.
    pods[1].net.ip("link set eth0 up");
    pods[1].net.ip("route replace default via 10.2.0.1");
    wait_until("it is reached again", LONG * 2, || pods[0].reaches("10.99.0.1"));
    daemon.assert_conserved();
}

/// Of two routers one dies: who went by it goes by the other before long, and is not kept waiting again and again; once it is back,
/// it is used again.
#[test]
fn flows_of_a_dead_next_hop_go_by_the_other() {
    const FLOWS: u8 = 16;
    let (_node, daemon, pods) = routed(&switchd(), &[1, 2, 3]);
    let far = |n: u8| format!("10.99.0.{n}");
    for router in &pods[1..] {
        (1..=FLOWS).for_each(|n| drop(router.net.ip(&format!("addr add {}/32 dev lo", far(n)))));
    }
    let both = route("10.99.0.0/16", RouteKind::Via, &["10.2.0.2", "10.3.0.2"]);
    let _: Done = daemon.call(&Request::RouteAdd(both));
    let reached = || (1..=FLOWS).filter(|n| pods[0].reaches(&far(*n))).count() == usize::from(FLOWS);
    wait_until("all are reached", LONG, reached);
    let is_used = |by: usize| {
        let before = pods[by].received().unwrap().0;
        reached();
        pods[by].received().unwrap().0 >= before + 4
    };
    assert!(is_used(1) && is_used(2), "both are used");
    pods[2].net.ip("link set eth0 down");
    wait_until("all are reached by the other", LONG * 6, reached);
    // Who waits for the dead one does so for three questions of a second each: a second ping in that time is not answered either. One that a
    // busy machine lost a second with is.
    let goes_on = |n: u8| pods[0].reaches(&far(n)) || pods[0].reaches(&far(n));
    let until = std::time::Instant::now() + REMEMBERED;
    while std::time::Instant::now() < until {
        assert!((1..=FLOWS).all(goes_on), "somebody waits for the dead one");
        std::thread::sleep(Duration::from_millis(300));
    }
    pods[2].net.ip("link set eth0 up");
    pods[2].net.ip("route replace default via 10.3.0.1");
    wait_until("it is used again", LONG * 2, || is_used(2));
    daemon.assert_conserved();
}

/// Many routes at once: one change, all of it or nothing, in force when it is answered, and there after a kill.
#[test]
fn routes_are_changed_many_at_once() {
    let options = switchd().keeping_state();
    let (node, mut daemon, pods) = routed(&options, &[1, 2]);
    wait_until("pods reach each other", LONG, || pods[0].reaches(&pods[1].ip));
    pods[1].net.ip("addr add 10.9.7.1/32 dev lo");
    let route =
        |n: u32, via: &str| route(&format!("10.{}.{}.0/24", 8 + (n >> 8), n & 255), RouteKind::Via, &[via]);
    let generation = || daemon.call::<Done>(&Request::RouteApply(RouteApply::default())).generation;
    let before = generation();
    let add: Vec<Route> = (0..3000).map(|n| route(n, "10.2.0.2")).collect();
    let done: Done =
        daemon.call(&Request::RouteApply(RouteApply { add: add.clone(), ..RouteApply::default() }));
    assert_eq!(done.generation, before + 1, "one snapshot");
    assert!(pods[0].reaches("10.9.7.1"), "it is in force when it is answered");
    let mut replace = vec![route(0x107, "10.2.0.2"), route(1, "10.1.0.9")];
    replace[0].kind = RouteKind::Blackhole;
    replace[0].via.clear();
    // The last of them is wrong: nothing happens.
    let wrong = [replace.clone(), vec![route(2, "10.77.0.1")]].concat();
    let apply = RouteApply { replace: wrong, ..RouteApply::default() };
    let error = daemon.client().call::<Done>(&Request::RouteApply(apply)).unwrap_err();
    assert_eq!((error.code, error.data.field.as_deref()), (Code::InvalidParams, Some("replace[2].via")));
    assert!(pods[0].reaches("10.9.7.1"));
    let delete = vec![RouteDelete { prefix: add[5].prefix, vrf: Name::main(), metric: None }];
    let _: Done = daemon.call(&Request::RouteApply(RouteApply { delete, replace, ..RouteApply::default() }));
    assert!(!pods[0].reaches("10.9.7.1"));
    daemon.kill();
    let daemon = node.start(&options);
    let routes = by_pages(&daemon, 700).unwrap();
    assert_eq!(routes.iter().filter(|status| status.connected.is_none()).count(), 2999);
    let all: Vec<RouteStatus> = daemon.call(&Request::RouteList(RouteFilter::default()));
    assert_eq!(routes, all);
    let what = |address: &str| {
        let get = RouteGet { address: address.parse().unwrap(), vrf: Name::main() };
        daemon.call::<RouteChoice>(&Request::RouteGet(get)).what
    };
    assert_eq!([what("10.9.7.1"), what("10.8.5.1"), what("10.9.6.1")], ["blackhole", "none", "via"]);
}

fn by_pages(daemon: &Daemon, limit: u32) -> Result<Vec<RouteStatus>, ApiError> {
    let (mut all, mut after): (Vec<RouteStatus>, _) = (Vec::new(), None);
    loop {
        let filter = RouteFilter { vrf: None, after: after.clone(), limit };
        let page: Vec<RouteStatus> = daemon.client().call(&Request::RouteList(filter))?;
        assert!(page.len() <= limit as usize);
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(RoutePlace { vrf: last.route.vrf.clone(), prefix: last.route.prefix });
        all.extend(page);
    }
}
