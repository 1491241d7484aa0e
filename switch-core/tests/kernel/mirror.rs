//! The kernel's routing table, mirrored: what it says is what the switch does, whatever news of it is lost.

use rustix::process::Signal;
use std::time::{Duration, Instant};
use switch_api::{
    Bridge, Done, MirrorStatus, Name, Nothing, Port, PortKind, PortSettings, Request, RouteChoice, RouteGet,
    RouteStatus, Uplink, Vrf, VrfStatus,
};
use switch_lab::cross::Router;
use switch_lab::{Daemon, Options, sequence, wait_until};

/// Less than the kernel is asked for everything after at the latest, which would hide that news of it were lost.
const LONG: Duration = Duration::from_secs(20);
/// Without a doubt the kernel is asked so often for all that it has, in seconds.
const AUDIT_S: u64 = 30;

/// A node with a pod, a cable to nowhere in particular, and the mirror on.
fn mirrored(words: &str) -> (Router, Router, Daemon) {
    let mut node = Router::new(1);
    let other = Router::new(2);
    node.join(&other, 90);
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with(words));
    node.pod(&daemon, 2);
    let _: Done = daemon.call(&Request::VrfSet(Vrf { mirror: true, ..Vrf::unset(Name::main()) }));
    (node, other, daemon)
}

fn routes(daemon: &Daemon) -> Vec<RouteStatus> {
    daemon.call(&Request::RouteList(Default::default()))
}

fn choice(daemon: &Daemon, address: &str) -> RouteChoice {
    daemon.call(&Request::RouteGet(RouteGet { address: address.parse().unwrap(), vrf: Name::main() }))
}

fn status(daemon: &Daemon) -> (MirrorStatus, Vec<String>) {
    let list: Vec<VrfStatus> = daemon.call(&Request::VrfList(Nothing {}));
    (list[0].mirrored.unwrap(), list[0].problems.clone())
}

/// Waits until packets to an address meet this fate.
fn becomes(daemon: &Daemon, address: &str, what: &str) {
    wait_until(&format!("{address} becomes {what}"), LONG, || choice(daemon, address).what == what);
}

fn batch(node: &Router, lines: impl Iterator<Item = String>) {
    let path = node.node.directory().join("batch");
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    node.node.net.run(&format!("ip -batch {}", path.display()));
}

#[test]
fn every_kind_of_route_means_here_what_it_means_there() {
    let (mut node, other, daemon) = mirrored("");
    let kernel = |words: &str| drop(node.node.net.ip(words));
    // No default route there, none here; the kernel's own addresses and networks are known.
    becomes(&daemon, "8.8.8.8", "none");
    becomes(&daemon, "10.90.0.1", "kernel");
    becomes(&daemon, "fd10:90::2", "kernel");
    for (prefix, kind, what) in [
        ("10.50.0.0/16", "blackhole", "blackhole"),
        ("10.51.0.0/16", "unreachable", "unreachable"),
        ("fd51::/64", "prohibit", "prohibit"),
    ] {
        kernel(&format!("route add {kind} {prefix} proto static"));
        becomes(&daemon, prefix.split_once('/').unwrap().0, what);
    }
    // Several to one network: the lowest metric counts, and its loss brings the next.
    kernel("route add blackhole 10.52.0.0/16 metric 20");
    kernel("route add 10.52.0.0/16 via 10.90.0.2 metric 10 proto bird");
    becomes(&daemon, "10.52.0.1", "kernel");
    let said = choice(&daemon, "10.52.0.1").why.join("; ");
    assert!(said.contains("bird") && said.contains("via 10.90.0.2 dev l90to2"), "{said}");
    kernel("route del 10.52.0.0/16 metric 10");
    becomes(&daemon, "10.52.0.1", "blackhole");
    // Several next hops, of both versions; next-hop objects, also when the route names them by number alone.
    node.join(&other, 91);
    kernel("route add 10.53.0.0/16 nexthop via 10.90.0.2 weight 3 nexthop via 10.91.0.2");
    kernel("route add fd53::/64 nexthop via fd10:90::2 nexthop via fd10:91::2");
    for address in ["10.53.0.1", "fd53::1"] {
        becomes(&daemon, address, "kernel");
        let said = choice(&daemon, address).why.join("; ");
        assert!(said.contains("dev l90to2") && said.contains("dev l91to2"), "{said}");
    }
    node.node.net.run("sysctl -q -w net.ipv4.nexthop_compat_mode=0");
    for words in
        ["id 1 via 10.90.0.2 dev l90to2", "id 2 via 10.91.0.2 dev l91to2", "id 3 group 1/2", "id 4 blackhole"]
    {
        kernel(&format!("nexthop add {words}"));
    }
    kernel("route add 10.54.0.0/16 nhid 3 proto zebra");
    kernel("route add 10.55.0.0/16 nhid 4 proto zebra");
    becomes(&daemon, "10.54.0.1", "kernel");
    becomes(&daemon, "10.55.0.1", "blackhole");
    let said = choice(&daemon, "10.54.0.1").why.join("; ");
    assert!(said.contains("zebra") && said.contains("dev l90to2") && said.contains("dev l91to2"), "{said}");
    kernel("nexthop del id 3");
    becomes(&daemon, "10.54.0.1", "none");
    // A device that is set down takes its IPv4 routes with it, of which the kernel does not tell.
    kernel("route add 10.56.0.0/16 via 10.91.0.2");
    becomes(&daemon, "10.56.0.1", "kernel");
    kernel("link set l91to2 down");
    becomes(&daemon, "10.56.0.1", "none");

    // A router that is a pod is gone to directly, not over the kernel.
    kernel("route add 10.57.0.0/16 via 10.1.0.2 dev switch0 onlink proto static");
    becomes(&daemon, "10.57.0.1", "via");
    node.pods[0].net.ip("addr add 10.57.0.1/32 dev lo");
    node.pod(&daemon, 3);
    wait_until("the network behind a pod", LONG, || node.pods[1].reaches("10.57.0.1"));
    // One that leads back here is not used, and is named.
    node.node.net.ip("route add 10.58.0.0/16 via 10.1.0.1 dev switch0 onlink");
    wait_until("the circle is seen", LONG, || status(&daemon).0.circles == 1);
    assert_eq!(choice(&daemon, "10.58.0.1").what, "none");
    assert!(
        status(&daemon).1.iter().any(|problem| problem.contains("10.58.0.0/16")),
        "{:?}",
        status(&daemon)
    );
    // A route's MTU, which may be a next hop's here or the kernel's.
    node.node.net.ip("route add 10.59.0.0/16 via 10.90.0.2 mtu 1400");
    node.node.net.ip("route add 10.60.0.0/16 via 10.1.0.2 dev switch0 onlink mtu lock 1300");
    node.node.net.ip("route add fd60::/64 via fd10:90::2 mtu 1350");
    for (address, mtu) in [("10.59.0.1", 1400), ("10.60.0.1", 1300), ("fd60::1", 1350)] {
        let known = || choice(&daemon, address).route.and_then(|status| status.route.mtu);
        wait_until(&format!("the MTU of the way to {address}"), LONG, || known() == Some(mtu));
    }
    let is_told = |pod: &switch_lab::Pod, address: &str, mtu: u16| {
        let said = pod.net.try_run(&format!("ping -n -c 1 -W 1 -M do -s 1450 {address}"));
        let said =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(said.to_lowercase().replace(' ', "").contains(&format!("mtu={mtu}")), "{address}: {said}");
    };
    is_told(&node.pods[1], "10.59.0.1", 1400);
    is_told(&node.pods[1], "10.60.0.1", 1300);
    // Our own announcements are not taken for somebody's routes.
    let foreign = routes(&daemon).into_iter().filter(|status| status.origin.is_some());
    assert!(!foreign.into_iter().any(|status| status.route.prefix.to_string().starts_with("10.1.0.0")));
    daemon.assert_conserved();
}

#[test]
fn lost_news_loses_no_route() {
    const ROUTES: u32 = 3000;
    let (node, _other, daemon) = mirrored("--mirror-buffer 4096");
    let before = routes(&daemon).len();
    let line = |verb: &str, n: u32| {
        format!("route {verb} 10.{}.{}.0/24 via 10.90.0.2 proto bird", 100 + n / 256, n % 256)
    };
    // While the daemon stands still nobody reads the news.
    daemon.signal(Signal::STOP);
    batch(&node, (0..ROUTES).map(|n| line("add", n)));
    batch(&node, (0..ROUTES).step_by(3).map(|n| line("del", n)));
    daemon.signal(Signal::CONT);
    let there = before + (0..ROUTES).filter(|n| n % 3 != 0).count();
    wait_until("every route is there", LONG, || routes(&daemon).len() == there);
    let (mirror, problems) = status(&daemon);
    assert!(mirror.overruns > 0, "{mirror:?}");
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(choice(&daemon, "10.100.1.9").what, "kernel");
    assert_eq!(choice(&daemon, "10.100.0.9").what, "none");
}

#[test]
fn too_many_routes_are_counted_and_the_kernel_decides() {
    const MAX: u32 = 2000;
    let (node, other, daemon) = mirrored("--mirror-routes 2000");
    other.route_to(&node, 90);
    let line = |n: u32| format!("route add 11.{}.{}.{}/32 via 10.90.0.2", n >> 16, n >> 8 & 255, n & 255);
    batch(&node, (0..MAX + 100).map(line));
    wait_until("the limit", LONG, || status(&daemon).0.beyond >= 100);
    assert!(status(&daemon).1.iter().any(|problem| problem.contains("limit of 2000")));
    // One of those that found no room: the kernel is asked.
    let last = format!("11.0.{}.{}", (MAX + 99) >> 8, (MAX + 99) & 255);
    assert_eq!(choice(&daemon, &last).what, "kernel");
    other.node.net.ip(&format!("addr add {last}/32 dev lo"));
    wait_until("ping", LONG, || node.pods[0].reaches(&last));
    node.node.net.ip("route flush via 10.90.0.2");
    wait_until("all is mirrored again", LONG, || status(&daemon).0.beyond == 0);
    becomes(&daemon, &last, "none");
}

/// With many routes there, one more costs what one costs: no question, and a few milliseconds of work.
#[test]
fn one_change_among_many_is_followed() {
    const ROUTES: u32 = 50_000;
    let (node, _other, daemon) = mirrored("--mirror-buffer 16777216");
    let line = |verb: &str, n: u32| {
        format!("route {verb} 11.{}.{}.{}/32 via 10.90.0.2 proto bird", n >> 16, n >> 8 & 255, n & 255)
    };
    let mirrored = || status(&daemon).0;
    let before = mirrored().routes;
    batch(&node, (0..ROUTES).map(|n| line("add", n)));
    wait_until("all are there", LONG * 3, || mirrored().routes == before + ROUTES as usize);
    let quiet = || {
        let one = mirrored();
        std::thread::sleep(Duration::from_millis(300));
        one == mirrored()
    };
    wait_until("nothing more is to be done", LONG * 3, quiet);
    let (start, begun) = (mirrored(), Instant::now());
    let mut worked = Vec::new();
    for n in 0..20 {
        let (address, what) = ("12.0.0.1", if n % 2 == 0 { "kernel" } else { "none" });
        let seen = mirrored().changes;
        node.node.net.ip(&format!("route {} 12.0.0.1/32 via 10.90.0.2", ["add", "del"][n % 2]));
        wait_until("the change is followed", LONG, || mirrored().changes > seen);
        assert_eq!(choice(&daemon, address).what, what);
        worked.push(mirrored().worked_us);
    }
    worked.sort_unstable();
    let due = 1 + begun.elapsed().as_secs() / AUDIT_S;
    assert!(mirrored().questions <= start.questions + due, "{:?} and {start:?}", mirrored());
    assert!(worked[5] < 10_000, "{worked:?} µs of work");
    // All of them withdrawn at once: their network is not the kernel's any more, and all else works.
    assert_eq!(choice(&daemon, "11.0.3.7").what, "kernel");
    node.node.net.ip("route flush proto bird");
    wait_until("all are gone", LONG * 3, || mirrored().routes == before);
    assert_eq!(choice(&daemon, "11.0.3.7").what, "none");
    daemon.assert_conserved();
}

/// Whatever is done to the kernel's routes, in whatever way: what was followed is what a new look finds.
#[test]
fn what_is_followed_is_what_is_there() {
    let (node, other, daemon) = mirrored("");
    node.join(&other, 91);
    let kernel = |words: String| drop(node.node.net.try_run(&format!("ip {words}")));
    let mut seed = 7u64;
    let mut dice = |sides: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    };
    let said = |daemon: &Daemon| {
        let of_kernel = routes(daemon).into_iter().filter(|status| status.origin.is_some());
        of_kernel.map(|status| format!("{status:?}")).collect::<Vec<_>>()
    };
    for round in 0..6 {
        for _ in 0..60 {
            let v6 = dice(3) == 0;
            let verb = ["add", "replace", "append", "prepend", "del", "del"][dice(6) as usize];
            let (net, n) = (if v6 { "-6 " } else { "" }, dice(5));
            let prefix = if v6 { format!("fd77:{n}::/64") } else { format!("10.77.{n}.0/24") };
            let way = |n: u64| match (v6, n) {
                (false, n) => format!("via 10.{}.0.2", 90 + n),
                (true, n) => format!("via fd10:{}::2", 90 + n),
            };
            let ways = match dice(4) {
                0 => format!("nexthop {} nexthop {}", way(0), way(1)),
                1 if verb != "del" => format!("{} mtu 14{:02}", way(0), dice(3)),
                _ => way(dice(2)),
            };
            let metric = ["", " metric 7"][dice(2) as usize];
            kernel(format!("{net}route {verb} {prefix} {ways}{metric}"));
        }
        if round % 2 == 1 {
            // A device goes, with what leads over it, and is back.
            kernel("link set l91to2 down".into());
            kernel("link set l91to2 up".into());
        }
        // However long a question takes: none is due, and what was told is published.
        let settled = || {
            let one = (said(&daemon), status(&daemon).0);
            std::thread::sleep(Duration::from_millis(200));
            !one.1.unsure && one == (said(&daemon), status(&daemon).0)
        };
        wait_until("it has settled", LONG * 3, settled);
        let (followed, changes) = (said(&daemon), status(&daemon).0.changes);
        for mirror in [false, true] {
            let _: Done = daemon.call(&Request::VrfSet(Vrf { mirror, ..Vrf::unset(Name::main()) }));
        }
        assert_eq!(followed, said(&daemon), "round {round}");
        assert!(changes > 0, "nothing was followed");
    }
}

/// While IPv6 routes come and go, the kernel leaves others out of what it answers when it is asked for all of them. None of those is
/// lost here, however often it is asked.
#[test]
fn a_route_that_an_answer_leaves_out_stays() {
    const STABLE: usize = 10_000;
    const CHURN: usize = 20_000;
    let (node, _other, daemon) = mirrored("--mirror-buffer 16777216");
    let mirrored = || status(&daemon).0;
    let before = mirrored().routes;
    batch(&node, (0..STABLE).map(|n| format!("route add fd78:{:x}::/64 via fd10:90::2", n + 1)));
    wait_until("all are there", LONG, || mirrored().routes == before + STABLE && !mirrored().unsure);
    let churn = node.node.directory().join("churn");
    // In front of the others, in the order in which the kernel walks: for each that comes another goes.
    let line = |n: usize, verb: &str| format!("route {verb} fd77:{:x}::/64 via fd10:90::2", n + 1);
    let lines = (0..CHURN).flat_map(|n| {
        let gone = n.checked_sub(250).map(|n| line(n, "del"));
        std::iter::once(line(n, "add")).chain(gone)
    });
    std::fs::write(&churn, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let (start, mut least) = (mirrored().questions, usize::MAX);
    while mirrored().questions < start + 3 {
        let mut child = node.node.net.spawn(&format!("ip -force -batch {}", churn.display()));
        while child.is_running() {
            // Two in one place are a doubt.
            for words in
                ["add blackhole 10.99.0.0/24", "append prohibit 10.99.0.0/24", "flush exact 10.99.0.0/24"]
            {
                _ = node.node.net.try_run(&format!("ip route {words}"));
            }
            least = least.min(mirrored().routes);
        }
    }
    let last = before + STABLE + 250;
    wait_until("it has settled", LONG, || !mirrored().unsure && mirrored().routes == last);
    assert!(least >= before + STABLE, "{} routes were missing", before + STABLE - least);
    daemon.assert_conserved();
}

/// With a device's MTU the kernel changes that of IPv6 routes over it, without a word.
#[test]
fn a_devices_mtu_changes_that_of_its_routes() {
    let (node, _other, daemon) = mirrored("");
    node.node.net.ip("route add fd60::/64 via fd10:90::2 mtu 1450");
    let is = |mtu: u16| {
        let known = || choice(&daemon, "fd60::1").route.and_then(|status| status.route.mtu);
        wait_until(&format!("the route's MTU is {mtu}"), Duration::from_secs(5), || known() == Some(mtu));
    };
    is(1450);
    node.node.net.ip("link set l90to2 mtu 1400");
    is(1400);
}

/// A million routes withdrawn at once, by setting their device down, of which the kernel says no more than that. What goes another
/// way meanwhile is neither lost nor overtaken, requests are answered before long, and none of them is left.
#[test]
fn a_million_routes_are_withdrawn_at_once() {
    const ROUTES: usize = 1_000_000;
    // The kernel's own addresses and networks count as well.
    let (node, other, daemon) = mirrored("--mirror-routes 1001000 --mirror-buffer 16777216");
    node.join(&other, 91);
    other.route_to(&node, 90);
    wait_until("the other node", LONG, || node.pods[0].reaches("10.90.0.2"));
    let mirrored = || status(&daemon).0;
    let before = mirrored().routes;
    let line = |n: usize| {
        format!("route add 11.{}.{}.{}/32 via 10.91.0.2 proto bird", n >> 16, n >> 8 & 255, n & 255)
    };
    batch(&node, (0..ROUTES).map(line));
    wait_until("all are there", LONG * 20, || mirrored().routes == before + ROUTES);
    assert_eq!((mirrored().beyond, choice(&daemon, "11.9.3.7").what.as_str()), (0, "kernel"));
    let quiet = || {
        let one = mirrored();
        std::thread::sleep(Duration::from_millis(300));
        one == mirrored()
    };
    wait_until("nothing more is to be done", LONG * 3, quiet);

    let pair = ("10.1.0.2".parse().unwrap(), "10.90.0.2".parse().unwrap());
    let load = sequence::start(&node.pods[0].net, &other.node.net, &[pair], 64);
    wait_until("traffic", LONG, || load.received() > 400);
    let (began, received) = (Instant::now(), load.received());
    node.node.net.ip("link set l91to2 down");
    let took_kernel = began.elapsed();
    let mut longest = Duration::ZERO;
    let is_gone = || {
        let asked = Instant::now();
        let gone = mirrored().routes <= before;
        longest = longest.max(asked.elapsed());
        gone
    };
    wait_until("all are gone", LONG * 3, is_gone);
    let took = began.elapsed();
    assert_eq!(choice(&daemon, "11.9.3.7").what, "none");
    let passed = load.received() - received;
    wait_until("traffic goes on", LONG, || load.received() > received + passed + 400);
    let tally = load.finish();
    println!(
        "{ROUTES} routes gone after {took:.1?}, of which the kernel took {took_kernel:.1?}; a request waited {longest:.1?} at most; \
         {passed} datagrams meanwhile, {tally:?}"
    );
    assert_eq!((tally.lost, tally.overtaken), (0, 0), "{tally:?}");
    assert!(passed > 0, "nothing went on meanwhile");
    // It is a mirror as before.
    node.node.net.ip("link set l91to2 up");
    node.node.net.ip("route add 12.0.0.1/32 via 10.91.0.2");
    becomes(&daemon, "12.0.0.1", "kernel");
    daemon.assert_conserved();
}

/// Each of the switch's tables mirrors the kernel's table that it was given, and tells that one of its networks: what stands in the
/// other concerns it not at all.
#[test]
fn each_table_mirrors_a_table_of_its_own() {
    const TABLE: u32 = 100;
    let (node, other, daemon) = mirrored("");
    let red: Name = "red".parse().unwrap();
    let bridge: Name = "red0".parse().unwrap();
    let object = Bridge { vrf: red.clone(), ..Bridge::new(bridge.clone()) };
    let _: Done = daemon.call(&Request::BridgeAdd(object));
    daemon.gateway("red0", "10.8.0.1/24");
    let kind =
        PortKind::Host { device: "switch-red".into(), mac: None, addresses: Vec::new(), routes: Vec::new() };
    let _: Done =
        daemon.call(&Request::PortAdd(Box::new(Port::new("host-red".parse().unwrap(), bridge, kind))));
    let vrf = Vrf { uplink: Uplink::Kernel, kernel_table: TABLE, mirror: true, ..Vrf::unset(red.clone()) };
    let _: Done = daemon.call(&Request::VrfSet(vrf));
    let kernel = |words: &str| drop(node.node.net.ip(words));
    let is = |vrf: &Name, address: &str, what: &str| {
        let get = Request::RouteGet(RouteGet { address: address.parse().unwrap(), vrf: vrf.clone() });
        wait_until(&format!("{address} becomes {what} in {vrf}"), LONG, || {
            daemon.call::<RouteChoice>(&get).what == what
        });
    };
    let main = Name::main();
    for (add, of_main, of_red) in [
        ("blackhole 10.52.0.0/16 table 100", "none", "blackhole"),
        ("prohibit 10.53.0.0/16", "prohibit", "none"),
        ("unreachable 10.52.0.0/16", "unreachable", "blackhole"),
    ] {
        kernel(&format!("route add {add} proto static"));
        let address = if add.contains("10.52") { "10.52.0.1" } else { "10.53.0.1" };
        is(&main, address, of_main);
        is(&red, address, of_red);
    }
    kernel("route del blackhole 10.52.0.0/16 table 100");
    is(&red, "10.52.0.1", "none");
    is(&main, "10.52.0.1", "unreachable");
    // The table knows its own networks, and no others.
    let table = |number: u32| node.node.net.ip(&format!("-4 route show table {number} proto 83"));
    wait_until("the network is told", LONG, || table(TABLE).contains("10.8.0.0/24"));
    assert!(!table(TABLE).contains("10.1.0.0/24") && !table(254).contains("10.8.0.0/24"));
    // And it is a way: a pod of this table reaches the other node by what stands there.
    let pod = node.node.pod_on(8, 2);
    daemon.attach(&pod, "red0", PortSettings::default());
    kernel("route add 10.90.0.0/24 dev l90to2 table 100");
    kernel("rule add iif switch-red lookup 100 priority 100");
    kernel("rule add to 10.8.0.0/24 lookup 100 priority 101");
    other.node.net.ip("route add 10.8.0.0/24 via 10.90.0.1");
    wait_until("the other node", LONG, || pod.reaches("10.90.0.2"));
    kernel("route del 10.90.0.0/24 dev l90to2 table 100");
    is(&red, "10.90.0.2", "none");
    assert!(!pod.reaches("10.90.0.2"), "main has a route there, its own table none");
    daemon.assert_conserved();
}
