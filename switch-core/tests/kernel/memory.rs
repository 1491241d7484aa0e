//! The ceiling on memory, and packet memory that grows and shrinks, with real sockets and real traffic.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};
use switch_api::{
    AddressSet, AddressSetDone, AddressSetStatus, ApiError, ByName, Code, Done, MemoryStatus, Nothing, Owner,
    Port, PortSettings, Prefix, Request, Status,
};
use switch_lab::node::{tap_port, xdp_port};
use switch_lab::scenes::{datagrams, shop};
use switch_lab::transfer::tcp;
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

fn switchd(words: &str) -> Options {
    Options::new(env!("CARGO_BIN_EXE_switchd")).with(words)
}

fn memory(daemon: &Daemon) -> MemoryStatus {
    daemon.call::<Status>(&Request::Status(Default::default())).memory
}

fn delete(daemon: &Daemon, pod: &Pod) {
    let name = pod.device.parse().unwrap();
    let _: Done = daemon.call(&Request::PortDelete(ByName { name }));
}

fn try_to_add(daemon: &Daemon, port: Port) -> Result<Done, ApiError> {
    daemon.client().call(&Request::PortAdd(Box::new(port)))
}

#[test]
fn a_port_beyond_the_ceiling_is_refused_and_the_others_serve() {
    let node = Node::new();
    let mut daemon = node.start(&switchd("--memory 12M --flows 1024"));
    daemon.bridge("br0");
    let pods: Vec<_> = (1..=20).map(|n| node.pod(n)).collect();
    let mut added = 0;
    let error = loop {
        let port = xdp_port(&pods[added].device, "br0", PortSettings::default());
        match try_to_add(&daemon, port) {
            Ok(_) => added += 1,
            Err(error) => break error,
        }
    };
    assert!(added >= 2, "{added} ports: {error:?}");
    assert_eq!(error.code, Code::Limit);
    let memory = memory(&daemon);
    assert!(memory.used_bytes <= memory.ceiling_bytes, "{memory:?}");
    assert!(error.message.contains("of 12.0 MiB are in use (tables"), "{error:?}");
    assert!(error.data.hint.as_ref().unwrap().contains("--memory"), "{error:?}");
    // What was refused left nothing on the device, and the others never noticed.
    assert!(!node.net.run(&format!("ip link show dev {}", pods[added].device)).contains("xdp"));
    wait_until("those that were added reach each other", LONG, || pods[0].reaches(&pods[added - 1].ip));
    // What one leaves is enough for another.
    delete(&daemon, &pods[0]);
    daemon.attach(&pods[added], "br0", PortSettings::default());
    wait_until("the newcomer is reached", LONG, || pods[1].reaches(&pods[added].ip));
    daemon.assert_conserved();
    daemon.stop(true);
}

/// A set whose networks take more than there is: nothing of it is kept or in force, by whichever door it comes; and what is less is.
#[test]
fn rules_beyond_the_ceiling_are_refused_and_those_in_force_stay() {
    let (_node, daemon, pods) = shop(&switchd("--memory 16M --flows 1024"));
    let [db, web, other] = &pods[..] else { panic!() };
    let declare = |members: Vec<Prefix>| {
        let name = "blocked".parse().unwrap();
        let set = AddressSet { name, members: Some(members), owner: Owner::Operator };
        daemon.client().call::<AddressSetDone>(&Request::AddressSetSet(set))
    };
    let scattered = |n: u32| {
        let address = 0x2001_0db8u128 << 96 | u128::from(n.wrapping_mul(0x9e37_79b1)) << 32;
        Prefix::host(IpAddr::from(address.to_be_bytes()))
    };
    let of_web: Prefix = "10.66.0.2/32".parse().unwrap();
    declare(vec![of_web]).unwrap();
    let acl = serde_json::json!({
        "name": "db", "applies_to": {"ports": ["tap1"]}, "ingress": [{"action": "deny", "source_sets": ["blocked"]}],
    });
    let _: Done = daemon.call(&Request::AclSet(Box::new(serde_json::from_value(acl).unwrap())));
    let few = memory(&daemon);
    assert!(few.rules_bytes > 0 && few.used_bytes > few.tables_bytes + few.rules_bytes, "{few:?}");
    let error = declare((0..100_000).map(scattered).collect()).unwrap_err();
    assert_eq!(error.code, Code::Limit, "{error:?}");
    assert!(error.message.contains("of 16.0 MiB are in use (tables"), "{error:?}");
    assert!(error.data.hint.as_ref().unwrap().contains("--memory"), "{error:?}");
    assert_eq!(memory(&daemon), few);
    let sets: Vec<AddressSetStatus> = daemon.call(&Request::AddressSetList(Nothing {}));
    assert_eq!((sets[0].ipv4, sets[0].ipv6), (1, 0), "what was refused is not kept");
    assert_eq!([web, other].map(|pod| datagrams(&pod.net, &db.net, "10.66.0.1", 9) > 0), [false, true]);
    // What fits counts, and goes again.
    declare((0..5000).map(scattered).chain([of_web]).collect()).unwrap();
    let some = memory(&daemon);
    assert_eq!(some.used_bytes - few.used_bytes, some.rules_bytes - few.rules_bytes);
    assert!(
        some.rules_bytes > few.rules_bytes + 5000 * 16 && some.used_bytes <= some.ceiling_bytes,
        "{some:?}"
    );
    declare(vec![of_web]).unwrap();
    assert!(memory(&daemon).rules_bytes < some.rules_bytes / 4, "{:?}", memory(&daemon));
    daemon.assert_conserved();
}

#[test]
fn too_little_to_start_with_is_said() {
    let node = Node::new();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_switchd"))
        .args(["--memory", "1M", "--socket"])
        .arg(node.directory().join("switchd.sock"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("--memory 1.0 MiB is too little to start with"),
        "{said}"
    );
}

/// Regions of 128 frames: each xdp port has one of its own, and every frame between two of them is copied.
#[test]
fn packet_memory_grows_with_ports_and_shrinks_when_they_go() {
    let node = Node::new();
    let mut daemon = node.start(&switchd("--frames 128"));
    daemon.bridge("br0");
    assert_eq!(memory(&daemon).regions, 1);
    let pods: Vec<_> = (1..=5).map(|n| node.pod(n)).collect();
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    let grown = memory(&daemon);
    assert_eq!((grown.regions, grown.packet_bytes), (5, 5 * 128 * 2048), "{grown:?}");
    for pod in &pods[1..] {
        wait_until("ping between regions", LONG, || pods[0].reaches(&pod.ip));
    }
    let bytes = 2_000_000;
    assert_eq!(tcp(&pods[0].net, &pods[4].net, pods[4].ip.parse().unwrap(), bytes), bytes);
    daemon.assert_conserved();

    // Ports go while frames are on their way in and out of their regions.
    let mut floods = [pods[0].net.spawn("ping -q -f 10.66.0.2"), pods[1].net.spawn("ping -q -f 10.66.0.1")];
    let _towards_those_that_go = pods[0].net.spawn("ping -q -f 10.66.0.5");
    for pod in &pods[2..] {
        delete(&daemon, pod);
    }
    wait_until("regions are given back", LONG, || memory(&daemon).packet_bytes < grown.packet_bytes);
    let given_back = || {
        let now = memory(&daemon);
        (now.regions, now.regions_emptying) == (2, 0)
    };
    let start = Instant::now();
    while !given_back() {
        assert!(start.elapsed() < LONG, "{:?}; {:?}", memory(&daemon), daemon.stats().frames);
        sleep(PAUSE);
    }
    assert!(floods.iter_mut().all(|flood| flood.is_running()), "nobody noticed");
    assert_eq!(daemon.stats().frames.total, 2 * 128 + daemon.stats().frames.large);
    daemon.assert_conserved();

    // And come back, with floods still on.
    for pod in &pods[2..] {
        daemon.attach(pod, "br0", PortSettings::default());
        wait_until("the newcomer is reached", LONG, || pods[1].reaches(&pod.ip));
    }
    assert_eq!(memory(&daemon).regions, 5);
    drop(floods);
    daemon.assert_conserved();
    daemon.stop(true);
}

#[test]
fn each_port_says_what_it_takes() {
    let node = Node::new();
    let daemon = node.start(&switchd(""));
    daemon.bridge("br0");
    let (pod, bare) = (node.pod(1), node.bare_pod(2));
    daemon.attach(&pod, "br0", PortSettings::default());
    let _: Done = daemon.call(&Request::PortAdd(Box::new(tap_port(&bare, "br0", PortSettings::default()))));
    wait_until("the rings are filled", LONG, || daemon.port(&pod.device).memory.frames_bytes == 64 * 2048);
    let xdp = daemon.port(&pod.device);
    assert_eq!(xdp.memory.rings_bytes, 1024 * 48);
    assert!(xdp.memory.kernel_bytes > 1024 * 144);
    let sum = xdp.memory.frames_bytes + xdp.memory.rings_bytes + xdp.memory.kernel_bytes;
    assert_eq!(xdp.memory_bytes, sum);
    let tap = daemon.port(&bare.device);
    assert_eq!((tap.memory.frames_bytes, tap.memory.rings_bytes), (0, 0), "an idle tap port parks nothing");
    assert_eq!(tap.memory_bytes, tap.memory.kernel_bytes);
    let ports = memory(&daemon).ports_bytes;
    assert_eq!(ports, xdp.memory.rings_bytes + xdp.memory.kernel_bytes + tap.memory.kernel_bytes);
}
