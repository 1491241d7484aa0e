//! Containers reach the outside of the node and are reached there, asked for as runtimes do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]
#![allow(dead_code, reason = "the runtime's driver has more than this test needs")]

mod runtime;

use runtime::{Container, Runtime};
use serde_json::{Value, json};
use std::time::Duration;
use switch_api::{Bridge, Done, OutsideStatus, Port, PortKind, PortSettings, Request, Status};
use switch_lab::world::{Service, ask_tcp, ask_udp, world};
use switch_lab::{Net, wait_until};

/// What the operator is promised.
const SOON: Duration = Duration::from_secs(3);
/// The daemon looks once a second.
const LOOKS: Duration = Duration::from_millis(2500);

/// A machine outside; the node routes for containers on `br0` and has its way out by `up0`.
fn outside(runtime: &Runtime) -> Net {
    let world = world(&runtime.node.net);
    runtime.node.net.ip("route add default via 198.51.100.2");
    let bridge = Bridge::new("br0".parse().unwrap());
    let _: Done = runtime.daemon.call(&Request::BridgeAdd(bridge));
    let addresses = ["10.88.0.1/24", "fd88::1/64"].map(|text| text.parse().unwrap()).into();
    let kind = PortKind::Host { device: "switch0".into(), mac: None, addresses, routes: Vec::new() };
    let port = Port::new("host".parse().unwrap(), "br0".parse().unwrap(), kind);
    let _: Done = runtime.daemon.call(&Request::PortAdd(Box::new(port)));
    world
}

fn publishing(mappings: Value) -> Value {
    json!({"runtimeConfig": {"portMappings": mappings}})
}

fn status(runtime: &Runtime) -> OutsideStatus {
    runtime.daemon.call::<Status>(&Request::Status(Default::default())).outside.unwrap()
}

#[test]
fn containers_reach_the_outside_and_are_reached_there() {
    both_ways("tap");
}

#[test]
fn containers_of_the_driver_xdp_reach_the_outside_and_are_reached_there() {
    both_ways("xdp");
}

fn both_ways(driver: &str) {
    let mut runtime = Runtime::new();
    runtime.conf["driver"] = driver.into();
    let world = outside(&runtime);
    let (a, b, c) = (Container::new("a"), Container::new("b"), Container::new("c"));
    let mappings = publishing(json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "198.51.100.1"},
    ]));
    let result = runtime.ask("ADD", "1.0.0", &a, mappings.clone()).ok();
    let _services =
        [Service::new(&a.net, 80, "a"), Service::new(&a.net, 53, "a"), Service::new(&world, 7300, "world")];
    let said = |text: &str| Some(text.to_owned());
    assert_eq!(ask_tcp(&world, "198.51.100.1:8080"), said("a 198.51.100.2"), "the client's own address");
    assert_eq!(ask_udp(&world, "198.51.100.1:5353"), said("a 198.51.100.2"));
    assert_eq!(ask_tcp(&runtime.node.net, "127.0.0.1:8080"), said("a 10.88.0.1"));
    assert_eq!(ask_tcp(&a.net, "198.51.100.2:7300"), said("world 198.51.100.1"));
    // A retry is answered the same, and CHECK finds it as it was.
    assert_eq!(runtime.ask("ADD", "1.0.0", &a, mappings.clone()).ok(), result);
    let mut check = mappings.clone();
    check["prevResult"] = result.clone();
    assert!(runtime.ask("CHECK", "1.0.0", &a, check).success);
    let other = runtime.ask("CHECK", "1.0.0", &a, json!({"prevResult": result, "ipMasq": false}));
    assert_eq!(other.code(), 101);
    assert!(other.json["msg"].as_str().unwrap().contains("it publishes"), "{:#}", other.json);
    // Whose port is taken is told by whom, and leaves nothing.
    let refused =
        runtime.ask("ADD", "1.0.0", &b, publishing(json!([{"hostPort": 8080, "containerPort": 81}])));
    assert_eq!(refused.code(), 7);
    assert!(refused.json["msg"].as_str().unwrap().contains("leads to port cni"), "{:#}", refused.json);
    assert!(!b.has("eth0") && runtime.leases().len() == 1);
    // Nobody masquerades for who did not ask.
    runtime.ask("ADD", "1.0.0", &c, json!({"ipMasq": false})).ok();
    assert_eq!(ask_tcp(&c.net, "198.51.100.2:7300"), None);
    let told = status(&runtime);
    assert_eq!((told.masqueraded, told.published), (2, 3), "{told:?}");
    // DEL and GC take it away.
    runtime.ask("DEL", "1.0.0", &a, mappings).ok();
    assert_eq!(ask_tcp(&world, "198.51.100.1:8080"), None);
    runtime.run("GC", &[], runtime.with("1.1.0", json!({"cni.dev/valid-attachments": []}))).ok();
    assert_eq!(status(&runtime), OutsideStatus::default());
    assert_eq!(runtime.node.net.run("nft list ruleset"), "");
    runtime.assert_empty();
}

#[test]
fn an_interface_is_as_large_as_the_way_out() {
    let runtime = Runtime::new();
    let _world = outside(&runtime);
    runtime.node.net.ip("link set up0 mtu 1400");
    let (a, b) = (Container::new("a"), Container::new("b"));
    let result = runtime.ask("ADD", "1.1.0", &a, json!({})).ok();
    assert_eq!(result["interfaces"][0]["mtu"], 1400);
    assert!(a.net.ip("link show eth0").contains("mtu 1400"));
    let result = runtime.ask("ADD", "1.1.0", &b, json!({"mtu": 1300})).ok();
    assert_eq!(result["interfaces"][0]["mtu"], 1300);
    // The node's own way to its pods is a part of it.
    runtime.node.net.ip("link set up0 mtu 9000");
    let status = || runtime.daemon.call::<Status>(&Request::Status(Default::default())).pod_mtu;
    assert_eq!(status(), Some(1500));
    let settings = PortSettings { mtu: Some(9000), ..PortSettings::default() };
    let set = switch_api::PortSet { name: "host".parse().unwrap(), settings };
    let _: Done = runtime.daemon.call(&Request::PortSet(set));
    assert_eq!(status(), Some(9000));
    runtime.node.net.ip("route del default");
    assert_eq!(status(), None);
}

#[test]
fn a_port_that_nobody_would_reach_is_refused() {
    let runtime = Runtime::new();
    let a = Container::new("a");
    let said = runtime.ask("ADD", "1.0.0", &a, publishing(json!([{"hostPort": 8080, "containerPort": 80}])));
    assert_eq!(said.code(), 100);
    assert!(said.json["msg"].as_str().unwrap().contains("no way to the switch"), "{:#}", said.json);
    assert!(!a.has("eth0"));
    runtime.assert_empty();
}

/// A node whose containers leave by a NIC that the switch shares needs no host port for that.
#[test]
fn an_uplink_alone_publishes_ports_and_says_how_large_a_packet_may_be() {
    let runtime = Runtime::new();
    let world = world(&runtime.node.net);
    runtime.node.net.ip("route add default via 198.51.100.2");
    runtime.node.net.ip("link set up0 mtu 1400");
    runtime.daemon.bridge("br0");
    for address in ["10.88.0.1/24", "fd88::1/64"] {
        runtime.daemon.gateway("br0", address);
    }
    let a = Container::new("a");
    let published = publishing(json!([{"hostPort": 8080, "containerPort": 80}]));
    assert_eq!(runtime.ask("ADD", "1.1.0", &a, published.clone()).code(), 100, "there is no way yet");
    runtime.assert_empty();
    runtime.daemon.bridge("wan");
    let uplink = Port::new("uplink".parse().unwrap(), "wan".parse().unwrap(), PortKind::uplink("up0"));
    let _: Done = runtime.daemon.call(&Request::PortAdd(Box::new(uplink)));
    let result = runtime.ask("ADD", "1.1.0", &a, published.clone()).ok();
    assert_eq!(result["interfaces"][0]["mtu"], 1400);
    let _service = Service::new(&a.net, 80, "a");
    for (to, from) in [("198.51.100.1:8080", "198.51.100.2"), ("[2001:db8::1]:8080", "2001:db8::2")] {
        let said = Some(format!("a {from}"));
        wait_until(&format!("{to} leads to the container"), SOON, || ask_tcp(&world, to) == said);
    }
    runtime.node.net.ip("link set up0 mtu 1300");
    wait_until("it follows", SOON, || a.net.ip("link show eth0").contains("mtu 1300 "));
    runtime.ask("DEL", "1.1.0", &a, published).ok();
    assert_eq!(ask_tcp(&world, "198.51.100.1:8080"), None);
    runtime.assert_empty();
}

/// Largest packet that the kernel of a container sends without a fragment, and that arrives.
fn carries(container: &Container, mtu: u32) -> bool {
    // Without the headers of IPv4 and of the ping.
    let ping = format!("ping -n -c 1 -W 1 -M do -s {} 198.51.100.2", mtu - 28);
    container.net.try_run(&ping).status.success()
}

fn followed(runtime: &Runtime) -> Vec<String> {
    let events: Vec<switch_api::Happened> = runtime.daemon.call(&Request::EventsRecent(Default::default()));
    let followed = events.into_iter().filter(|event| event.what == "mtu-followed");
    followed.map(|mut event| event.parts.remove("mtu").unwrap()).collect()
}

#[test]
fn interfaces_follow_the_way_out_when_that_changes() {
    let mut runtime = Runtime::new();
    let world = outside(&runtime);
    let _service = Service::new(&world, 7301, "world");
    let [tap, xdp, fixed] = ["tap", "xdp", "fixed"].map(Container::new);
    let result = runtime.ask("ADD", "1.1.0", &tap, json!({})).ok();
    runtime.ask("ADD", "1.0.0", &xdp, json!({"driver": "xdp"})).ok();
    runtime.ask("ADD", "1.0.0", &fixed, json!({"mtu": 1350})).ok();
    let has =
        |container: &Container, mtu: u32| container.net.ip("link show eth0").contains(&format!("mtu {mtu} "));
    let all_have = |mtu| [&tap, &xdp].iter().all(|container| has(container, mtu)) && has(&fixed, 1350);
    assert!(all_have(1500));
    for (mtu, change) in
        [(1400, "link set up0 mtu 1400"), (1500, "link set up0 mtu 1500"), (1300, "link set up0 mtu 1300")]
    {
        runtime.node.net.ip(change);
        let begun = std::time::Instant::now();
        wait_until(change, SOON, || all_have(mtu));
        println!("{change}: followed after {:?}", begun.elapsed());
        for container in [&tap, &xdp] {
            wait_until("a full packet passes", SOON, || carries(container, mtu));
            assert!(!carries(container, mtu + 1), "{mtu}");
            assert_eq!(ask_tcp(&container.net, "198.51.100.2:7301").unwrap(), "world 198.51.100.1");
        }
        let said = runtime.ask("CHECK", "1.1.0", &tap, json!({"prevResult": result}));
        assert!(said.success, "{mtu}: {:#}", said.json);
    }
    assert_eq!(followed(&runtime), ["1400", "1500", "1300"]);
    // An ADD that is asked again changes nothing, and a new one begins there.
    let late = Container::new("late");
    assert_eq!(runtime.ask("ADD", "1.1.0", &late, json!({})).ok()["interfaces"][0]["mtu"], 1300);
    assert_eq!(runtime.ask("ADD", "1.1.0", &tap, json!({})).ok()["interfaces"][0]["mtu"], 1300);
    // What a container did to its own interface stays until the way out changes.
    tap.net.ip("link set eth0 mtu 1290");
    // Without a way out nothing is known, and nothing changes.
    runtime.node.net.ip("route del default");
    std::thread::sleep(LOOKS);
    assert!(has(&tap, 1290) && has(&xdp, 1300));
    // What changes while the daemon is away is found when it is back.
    runtime.daemon.kill();
    runtime.node.net.ip("link set up0 mtu 1450");
    runtime.node.net.ip("route add default via 198.51.100.2");
    runtime.restart();
    wait_until("they follow after a restart", SOON, || all_have(1450));
    // IPv6 wants a certain size.
    runtime.node.net.ip("link set up0 mtu 1000");
    wait_until("no smaller than IPv6 allows", SOON, || all_have(1280));
    assert!(tap.net.ip("-6 addr show eth0").contains("fd88::"));
    assert_eq!(followed(&runtime), ["1450", "1000"]);
}
