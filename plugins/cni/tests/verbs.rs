//! Every verb in every version, with a real daemon and real namespaces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

#[path = "verbs/networks.rs"]
mod networks;
#[allow(dead_code, reason = "the runtime's driver has more than this test needs")]
mod runtime;
#[path = "verbs/xdp.rs"]
mod xdp;

use runtime::{Container, Runtime};
use serde_json::{Value, json};
use std::time::Duration;
use switch_lab::wait_until;

const LONG: Duration = Duration::from_secs(60);

fn reaches(from: &Container, address: &str) {
    wait_until(&format!("{} reaches {address}", from.id), LONG, || from.reaches(address));
}

#[test]
fn containers_reach_each_other_in_every_version_and_leave_nothing() {
    let runtime = Runtime::new();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (a, b) = (Container::new("a"), Container::new("b"));
        let one = runtime.ask("ADD", version, &a, json!({}));
        let two = runtime.ask("ADD", version, &b, json!({"mtu": 1400}));
        assert!(one.success && two.success, "{:#}{:#}", one.json, two.json);
        assert_eq!(one.json["cniVersion"], version);
        assert_eq!(one.json["interfaces"][0]["sandbox"], a.net.path());
        assert_eq!(one.json["ips"][1]["version"] == "6", version < "1.0.0", "{:#}", one.json);
        assert_eq!(two.json["interfaces"][0]["mtu"] == 1400, version >= "1.1.0", "{:#}", two.json);
        // At once, IPv6 too: nobody waits for duplicate address detection, and the answer came when every worker had the port.
        for at in [0, 1] {
            assert!(a.reaches(&two.address(at)) && b.reaches(&one.address(at)), "{}", a.net.ip("addr"));
        }
        let said = runtime.run("VERSION", &[], json!({"cniVersion": version})).ok();
        let all = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        assert_eq!(said, json!({"cniVersion": version, "supportedVersions": all}));
        assert!(b.net.ip("link show eth0").contains("mtu 1400"));
        let mac = one.json["interfaces"][0]["mac"].as_str().unwrap();
        assert!(a.net.ip("link show eth0").contains(mac));
        assert!(a.net.ip("route show default").contains("via 10.88.0.1 dev eth0"));
        assert!(a.net.ip("-6 route show default").contains("via fd88::1 dev eth0"));
        if version >= "0.4.0" {
            let said = runtime.ask("CHECK", version, &a, json!({"prevResult": one.json}));
            assert!(said.success && said.json.is_null(), "{:#}", said.json);
        }
        for container in [&a, &b, &a, &b] {
            let said = runtime.ask("DEL", version, container, json!({"prevResult": one.json}));
            assert!(said.success && said.json.is_null(), "{:#}", said.json);
            assert!(!container.has("eth0"));
        }
        runtime.assert_empty();
    }
}

#[test]
fn check_names_what_differs() {
    let runtime = Runtime::new();
    let a = Container::new("a");
    let result = runtime.ask("ADD", "1.1.0", &a, json!({})).ok();
    let check = || runtime.ask("CHECK", "1.1.0", &a, json!({"prevResult": result}));
    assert!(check().success, "{:#}", check().json);
    let differs = |parts: &[&str]| {
        let said = check();
        assert_eq!(said.code(), 101);
        let text = said.json["msg"].as_str().unwrap();
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
    };
    a.net.ip("addr del 10.88.0.2/24 dev eth0");
    a.net.ip("-6 route del default");
    differs(&["address 10.88.0.2/24", "route to ::/0", "route to 0.0.0.0/0"]);
    a.net.ip("addr add 10.88.0.2/24 dev eth0");
    a.net.ip("route add default via 10.88.0.1");
    a.net.ip("-6 route add default via fd88::1");
    assert!(check().success, "{:#}", check().json);
    a.net.ip("link set eth0 mtu 1300");
    differs(&["MTU of 1300, not 1500"]);
    a.net.ip("link set eth0 mtu 1500");
    let mac = result["interfaces"][0]["mac"].as_str().unwrap();
    a.net.ip("link set eth0 address 02:00:00:00:99:99");
    differs(&["MAC address 02:00:00:00:99:99, not", mac]);
    a.net.ip(&format!("link set eth0 address {mac}"));
    // The plugin would be asked with another configuration: the port is as it was made.
    let other = json!({"prevResult": result, "bridge": "br9", "vlan": 9, "isolated": true});
    let elsewhere = runtime.ask("CHECK", "1.1.0", &a, other);
    for part in ["is on bridge br0, not br9", "is in VLAN 1, not in VLAN 9", "is not isolated"] {
        assert!(elsewhere.json["msg"].as_str().unwrap().contains(part), "{part}: {:#}", elsewhere.json);
    }
    let lease = switch_api::LeaseFilter { container: Some("a".into()), ..Default::default() };
    let _: switch_api::Released =
        runtime.daemon.call_as(switch_api::Owner::Cni, &switch_api::Request::LeaseRelease(lease));
    differs(&["no lease"]);
    let name = runtime.ports()[0].port.name.clone();
    let _: switch_api::Done = runtime
        .daemon
        .call_as(switch_api::Owner::Cni, &switch_api::Request::PortDelete(switch_api::ByName { name }));
    differs(&["no interface eth0", "no port", "no lease"]);
}

#[test]
fn del_succeeds_whatever_is_left() {
    let mut runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    runtime.add(&a);
    runtime.add(&b);
    // The namespace is gone, and the runtime says so with an empty path.
    let env = |id| [("CNI_CONTAINERID", id), ("CNI_NETNS", ""), ("CNI_IFNAME", "eth0")];
    drop(a);
    for _ in 0..2 {
        runtime.run("DEL", &env("a"), runtime.with("1.0.0", json!({}))).ok();
    }
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (1, 1));
    // One that nobody ever heard of, and a configuration that was edited into nonsense.
    runtime.run("DEL", &env("never"), runtime.with("1.0.0", json!({}))).ok();
    runtime.run("DEL", &env("never"), runtime.with("1.0.0", json!({"mtu": "x", "brigde": 1}))).ok();
    // The daemon lost its state: the device is still in the container, the port is not in the daemon.
    runtime.daemon.kill();
    std::fs::remove_file(runtime.node.directory().join("state")).unwrap();
    runtime.restart();
    assert!(b.has("eth0"));
    runtime.ask("DEL", "1.0.0", &b, json!({})).ok();
    assert!(!b.has("eth0"));
    runtime.assert_empty();
    // What others made is not ours to remove.
    b.net.ip("link add eth0 type veth peer name other");
    runtime.ask("DEL", "1.0.0", &b, json!({})).ok();
    assert!(b.has("eth0"));
}

#[test]
fn with_the_daemon_down_del_is_written_down_and_made_good() {
    let mut runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let first = runtime.add(&a);
    runtime.add(&b);
    runtime.daemon.kill();
    for _ in 0..2 {
        runtime.ask("DEL", "1.0.0", &a, json!({})).ok();
        assert!(!a.has("eth0"), "the plugin can do that without a daemon");
    }
    assert_eq!(runtime.ask("ADD", "1.0.0", &a, json!({})).code(), 11);
    assert_eq!(runtime.ask("STATUS", "1.1.0", &a, json!({})).code(), 51);
    runtime.restart();
    assert_eq!(runtime.leases().len(), 2, "the daemon knows nothing of it yet");
    runtime.ask("STATUS", "1.1.0", &a, json!({})).ok();
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (1, 1));
    // A container of the same name comes back: the old deletion must not take it away again.
    let again = runtime.add(&a);
    assert_ne!(again.address(0), first.address(0));
    runtime.ask("STATUS", "1.1.0", &a, json!({})).ok();
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (2, 2));
}

#[test]
fn what_fails_leaves_nothing() {
    let runtime = Runtime::new();
    let a = Container::new("a");
    let refused = |code: u64, container: &Container, more: Value| {
        let said = runtime.ask("ADD", "1.0.0", container, more);
        assert_eq!(said.code(), code, "{:#}", said.json);
        runtime.assert_empty();
    };
    // The interface's name is taken.
    a.net.ip("link add eth0 type veth peer name other");
    refused(4, &a, json!({}));
    a.net.ip("link del eth0");
    // Steps that fail after the addresses were given: they are given back.
    refused(7, &a, json!({"ipam": {"type": "switch-cni", "pool": "nowhere"}}));
    let far = json!([{"dst": "10.99.0.0/16", "gw": "fd88::1"}]);
    let mut conf = runtime.conf["ipam"].clone();
    conf["routes"] = far;
    let said = runtime.ask("ADD", "1.0.0", &a, json!({"ipam": conf}));
    assert!(!said.success, "{:#}", said.json);
    assert!(
        said.json["details"].as_str().unwrap().contains("nothing of it was left behind"),
        "{:#}",
        said.json
    );
    runtime.assert_empty();
    assert!(!a.has("eth0"));
    refused(7, &a, json!({"mtu": 1}));
    refused(2, &a, json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.99.0.0/16"}]]}}));
    refused(7, &a, json!({"runtimeConfig": {"bandwidth": {"ingressBurst": 1000}}}));
    // An address that is not the pool's, and one that somebody has.
    refused(7, &a, json!({"runtimeConfig": {"ips": ["10.99.0.1/24"]}}));
    let env = [("CNI_CONTAINERID", "gone"), ("CNI_NETNS", "/run/netns/no-such"), ("CNI_IFNAME", "eth0")];
    assert_eq!(runtime.run("ADD", &env, runtime.with("1.0.0", json!({}))).code(), 3);
    runtime.assert_empty();
    let address = runtime.add(&a).address(0);
    let b = Container::new("b");
    let said = runtime.ask("ADD", "1.0.0", &b, json!({"runtimeConfig": {"ips": [address]}}));
    assert_eq!(said.code(), 11, "{:#}", said.json);
    assert!(said.json["msg"].as_str().unwrap().contains("leased to a/eth0"), "{:#}", said.json);
}

#[test]
fn what_is_asked_for_by_name_is_given() {
    let runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let more = json!({"vlan": 7, "runtimeConfig": {"ips": ["10.88.0.77/24"], "mac": "02:00:00:00:00:77"}});
    let said = runtime.ask("ADD", "1.0.0", &a, more);
    assert_eq!(
        (said.address(0).as_str(), said.json["interfaces"][0]["mac"].as_str()),
        ("10.88.0.77", Some("02:00:00:00:00:77"))
    );
    // What the runtime knows of the pod is noted on the port.
    let netns = b.net.path();
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=42;IP=10.88.0.78;X=y";
    let env =
        [("CNI_CONTAINERID", "b"), ("CNI_NETNS", netns.as_str()), ("CNI_IFNAME", "net1"), ("CNI_ARGS", args)];
    let said = runtime.run("ADD", &env, runtime.with("1.0.0", json!({"vlan": 7})));
    assert_eq!(said.address(0), "10.88.0.78");
    let port =
        runtime.ports().into_iter().find(|port| port.port.labels["cni/container"] == "b").unwrap().port;
    for (label, value) in [("k8s/namespace", "shop"), ("k8s/pod", "web-0"), ("cni/interface", "net1")] {
        assert_eq!(port.labels[label], value);
    }
    assert_eq!(port.name.as_str().len(), 15);
    reaches(&a, "10.88.0.78");
    // A runtime that did not wait for the answer asks again, and is told the same.
    let again = runtime.run("ADD", &env, runtime.with("1.0.0", json!({"vlan": 7})));
    assert_eq!(again, said);
    // What was lost meanwhile is made anew.
    b.net.ip("link del net1");
    let again = runtime.run("ADD", &env, runtime.with("1.0.0", json!({"vlan": 7})));
    assert_eq!(again, said);
    reaches(&a, "10.88.0.78");
    // Another interface of the same container, on the other network's own terms.
    let mut second = runtime.with("1.0.0", json!({"name": "second", "bridge": "br1"}));
    second["ipam"] = json!({"type": "switch-cni", "pool": "second", "ranges": [{"subnet": "10.89.0.0/24"}]});
    let env = [("CNI_CONTAINERID", "b"), ("CNI_NETNS", netns.as_str()), ("CNI_IFNAME", "net2")];
    let said = runtime.run("ADD", &env, second.clone());
    assert_eq!(said.address(0), "10.89.0.1");
    assert_eq!(
        said.json["routes"].as_array().map_or(0, Vec::len),
        0,
        "a pool without a gateway gives no route"
    );
    runtime.run("DEL", &env, second).ok();
    assert!(b.has("net1") && !b.has("net2"));
}

#[test]
fn a_container_speaks_for_itself_only() {
    let runtime = Runtime::new();
    let (a, b, c, d) = (Container::new("a"), Container::new("b"), Container::new("c"), Container::new("d"));
    runtime.add(&a);
    let result = runtime.add(&b);
    let allowed = json!({"allowedSourcePrefixes": ["10.88.0.0/24"]});
    runtime.ask("ADD", "1.0.0", &c, allowed).ok();
    runtime.ask("ADD", "1.0.0", &d, json!({"sourceGuard": false})).ok();
    // Each takes an address that nobody gave it, and asks from there.
    let asks_from = |container: &Container, own: &str| {
        container.net.ip(&format!("addr replace {own}/24 dev eth0"));
        container.net.try_run(&format!("ping -n -c 1 -W 1 -I {own} 10.88.0.2")).status.success()
    };
    reaches(&b, "10.88.0.2");
    assert!(!asks_from(&b, "10.88.0.201"));
    assert!(runtime.daemon.drops("spoofed-address") + runtime.daemon.drops("spoofed-neighbour") > 0);
    wait_until("what is allowed passes", LONG, || asks_from(&c, "10.88.0.202"));
    wait_until("who is not guarded passes", LONG, || asks_from(&d, "10.88.0.203"));
    b.net.ip("addr del 10.88.0.201/24 dev eth0");
    // Somebody takes the guard away.
    let port =
        runtime.ports().into_iter().find(|port| port.port.labels["cni/container"] == "b").unwrap().port;
    let settings = switch_api::PortSettings { source_guard: None, ..port.settings };
    let set = switch_api::PortSet { name: port.name, settings };
    let _: switch_api::Done =
        runtime.daemon.call_as(switch_api::Owner::Cni, &switch_api::Request::PortSet(set));
    let said = runtime.ask("CHECK", "1.0.0", &b, json!({"prevResult": result.ok()}));
    assert_eq!(said.code(), 101);
    assert!(said.json["msg"].as_str().unwrap().contains("nothing is guarded"), "{:#}", said.json);
}

#[test]
fn a_container_has_the_bandwidth_that_the_runtime_says() {
    let runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    // Bits: it may be sent 1 MB a second, a quarter of it at once, and send 4, with the burst that a kubelet passes.
    let bandwidth = json!({"ingressRate": 8_000_000, "ingressBurst": 2_000_000, "egressRate": 32_000_000, "egressBurst": 2_147_483_647u32});
    let asked = json!({"runtimeConfig": {"bandwidth": bandwidth}});
    let one = runtime.ask("ADD", "1.0.0", &a, asked.clone());
    let two = runtime.add(&b);
    reaches(&b, &one.address(0));
    let at = |said: &runtime::Said| said.address(0).parse::<std::net::IpAddr>().unwrap();
    for (from, to, address, per_s) in [(&b, &a, at(&one), 1e6), (&a, &b, at(&two), 4e6)] {
        // The part that a connection gets of what is due to it.
        let part = || {
            let (bytes, start) = ((3.0 * per_s) as usize, std::time::Instant::now());
            assert_eq!(switch_lab::transfer::tcp(&from.net, &to.net, address, bytes), bytes);
            let (on_wire, due) = (bytes as f64 * 1514.0 / 1448.0, per_s * start.elapsed().as_secs_f64());
            assert!(on_wire < 1.1 * due + per_s / 4.0, "{on_wire} bytes where {due} were due");
            on_wire / due
        };
        // What is above a rate is dropped, and about two of five connections then wait for their own timers and take twice as
        // long. One that does not shows what there is to have: eight in a row that do are one run in a thousand. Never more, each time.
        assert!((0..8).any(|_| part() > 0.9), "a connection never gets {per_s} bytes a second");
    }
    let check = |more: Value| {
        let mut conf = json!({"prevResult": one.json});
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        runtime.ask("CHECK", "1.0.0", &a, conf)
    };
    assert!(check(asked).success);
    let said = check(json!({}));
    assert!(
        said.json["msg"].as_str().unwrap().contains("tx_bytes 1000000 a second, 250000 at once"),
        "{:#}",
        said.json
    );
}

/// Who knew an address as that of a container that is gone is told of the one that has it now, whatever MAC address that has.
#[test]
fn an_address_that_moves_to_another_container_is_found_there_at_once() {
    let runtime = Runtime::new();
    for driver in ["tap", "xdp"] {
        let (asker, old, new) = (Container::new("asker"), Container::new("old"), Container::new("new"));
        runtime.ask("ADD", "1.0.0", &asker, json!({})).ok();
        let (four, six) = ("10.88.0.99", "fd88::99");
        let with = |mac: &str| json!({"driver": driver, "runtimeConfig": {"ips": [format!("{four}/24"), format!("{six}/64")], "mac": mac}});
        runtime.ask("ADD", "1.0.0", &old, with("02:00:00:00:00:01")).ok();
        reaches(&asker, four);
        reaches(&asker, six);
        runtime.ask("DEL", "1.0.0", &old, json!({})).ok();
        runtime.ask("ADD", "1.0.0", &new, with("02:00:00:00:00:02")).ok();
        // A kernel believes what it knows for 15 s and more. One ping waits a second.
        assert!(asker.reaches(four), "{driver}: {}", asker.net.ip("neigh"));
        assert!(asker.reaches(six), "{driver}: {}", asker.net.ip("-6 neigh"));
        for container in [&asker, &new] {
            runtime.ask("DEL", "1.0.0", container, json!({})).ok();
        }
        runtime.assert_empty();
    }
}

#[test]
fn results_of_plugins_before_us_are_kept() {
    let runtime = Runtime::new();
    let a = Container::new("a");
    let before = json!({
        "cniVersion": "1.0.0", "interfaces": [{"name": "lo", "sandbox": a.net.path()}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}], "dns": {"nameservers": ["10.88.0.1"]},
    });
    let result = runtime.ask("ADD", "1.0.0", &a, json!({"prevResult": before})).ok();
    assert_eq!(result["interfaces"][0]["name"], "lo");
    assert_eq!(
        (&result["interfaces"][1]["name"], &result["ips"][1]["interface"]),
        (&json!("eth0"), &json!(1))
    );
    assert_eq!(result["dns"]["nameservers"][0], "10.88.0.1");
    let said = runtime.ask("CHECK", "1.0.0", &a, json!({"prevResult": result}));
    assert!(said.success, "{:#}", said.json);
}

#[test]
fn gc_removes_what_no_attachment_has_and_nothing_else() {
    let runtime = Runtime::new();
    let containers: Vec<_> = ["a", "b", "c"].map(Container::new).into();
    containers.iter().for_each(|container| _ = runtime.add(container));
    let netns = containers[0].net.path();
    let env = [("CNI_CONTAINERID", "a"), ("CNI_NETNS", netns.as_str()), ("CNI_IFNAME", "net9")];
    let mut another = runtime.with("1.0.0", json!({"name": "another"}));
    another["ipam"]["routes"] = json!([]);
    runtime.run("ADD", &env, another).ok();
    runtime.run("GC", &[], runtime.with("1.0.0", json!({}))).code();
    assert_eq!(runtime.run("GC", &[], runtime.with("1.1.0", json!({}))).code(), 7);
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}, {"containerID": "c", "ifname": "eth1"}]});
    runtime.run("GC", &[], runtime.with("1.1.0", valid)).ok();
    let mut left: Vec<_> = runtime.leases().into_iter().map(|status| status.lease.holder.container).collect();
    left.sort();
    assert_eq!(left, ["a", "b"], "the other network's, and the one that is valid");
    assert_eq!(runtime.ports().len(), 2);
    assert!(containers[1].has("eth0") && !containers[0].has("eth0") && containers[0].has("net9"));
    // Its namespace went without a word to anybody.
    let mut containers = containers.into_iter();
    let (_a, b) = (containers.next(), containers.next());
    drop(b);
    runtime.run("GC", &[], runtime.with("1.1.0", json!({"cni.dev/valid-attachments": []}))).ok();
    assert_eq!((runtime.leases().len(), runtime.ports().len()), (1, 1));
}

#[test]
fn status_tells_whether_an_add_would_work() {
    let runtime = Runtime::new();
    let status = |more: Value| runtime.run("STATUS", &[], runtime.with("1.1.0", more));
    assert!(status(json!({})).success);
    assert_eq!(status(json!({"ipam": {"type": "switch-cni", "pool": "nowhere"}})).code(), 50);
    let small =
        json!({"ipam": {"type": "switch-cni", "pool": "small", "ranges": [{"subnet": "10.87.0.0/31"}]}});
    let containers: Vec<_> = ["a", "b", "c"].map(Container::new).into();
    for container in &containers[..2] {
        assert!(status(small.clone()).success);
        runtime.ask("ADD", "1.0.0", container, small.clone()).ok();
    }
    let said = status(small.clone());
    assert_eq!(said.code(), 50);
    assert!(said.json["msg"].as_str().unwrap().contains("all 2 are leased"), "{:#}", said.json);
    let said = runtime.ask("ADD", "1.0.0", &containers[2], small);
    assert_eq!(said.code(), 11);
    assert!(said.json["msg"].as_str().unwrap().contains("of 2, 2 are leased"), "{:#}", said.json);
    assert_eq!(runtime.run("STATUS", &[], runtime.with("1.0.0", json!({}))).code(), 1);
}

#[test]
fn many_at_a_time_all_succeed_and_leave_nothing() {
    let runtime = Runtime::new();
    let runtime = &runtime;
    let each = |worker: usize| {
        for n in 0..5 {
            let container = Container::new(&format!("c{worker}-{n}"));
            runtime.add(&container);
            if n % 2 == 0 {
                runtime.ask("DEL", "1.0.0", &container, json!({})).ok();
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|worker| scope.spawn(move || each(worker))).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (16, 16));
    runtime.run("GC", &[], runtime.with("1.1.0", json!({"cni.dev/valid-attachments": []}))).ok();
    runtime.assert_empty();
}

/// What runs the plugin for a pod: its environment, and labels given by hand.
fn add_pod(runtime: &Runtime, pod: &Container, app: &str) -> runtime::Said {
    let netns = pod.net.path();
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={}", pod.id);
    let env =
        [("CNI_CONTAINERID", &*pod.id), ("CNI_NETNS", &*netns), ("CNI_IFNAME", "eth0"), ("CNI_ARGS", &*args)];
    let labels = json!({"cni": {"labels": [{"key": "app", "value": app}]}});
    let capabilities = json!({"aliases": [app, "store"]});
    runtime.run("ADD", &env, runtime.with("1.0.0", json!({"args": labels, "runtimeConfig": capabilities})))
}

fn port_of(runtime: &Runtime, container: &str) -> switch_api::Port {
    let is_it = |port: &switch_api::PortStatus| port.port.labels["cni/container"] == container;
    runtime.ports().into_iter().find(is_it).unwrap().port
}

#[test]
fn a_policy_selects_containers_by_what_a_runtime_says_of_them() {
    let runtime = Runtime::new();
    let pods = ["db", "web", "other"].map(Container::new);
    let said: Vec<_> = pods.iter().map(|pod| add_pod(&runtime, pod, &format!("{}-app", pod.id))).collect();
    let (address, six) = (said[0].address(0), said[0].address(1));
    let [_, web, other] = &pods;
    reaches(web, &address);
    reaches(other, &address);
    let policy = json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {
        "podSelector": {"matchLabels": {"app": "db-app"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"k8s/pod": "web"}}}]}],
    }});
    let policy: switch_api::NetworkPolicy = serde_json::from_value(policy).unwrap();
    let _: switch_api::Done = runtime.daemon.call(&switch_api::Request::PolicyAdd(Box::new(policy)));
    for address in [&address, &six] {
        reaches(web, address);
        assert!(!other.reaches(address), "{address}");
    }
    assert!(runtime.daemon.drops("policy-ingress") > 0);
    assert_eq!(port_of(&runtime, "db").labels["cni/aliases"], "db-app,store");
    // Asked again with another label: the port stays, what it is to policies changes, and it can be asked in vain.
    let before = port_of(&runtime, "db");
    assert_eq!(add_pod(&runtime, &pods[0], "db-app"), said[0]);
    assert_eq!(port_of(&runtime, "db"), before);
    let label = switch_api::PortLabel { name: before.name.clone(), workload: None };
    let _: switch_api::Done =
        runtime.daemon.call_as(switch_api::Owner::Cni, &switch_api::Request::PortLabel(label));
    reaches(other, &address);
    assert_eq!(add_pod(&runtime, &pods[0], "db-app"), said[0]);
    assert_eq!(port_of(&runtime, "db"), before);
    assert!(!other.reaches(&address));
    // What is no label is refused, and nothing is left of it.
    let bad = Container::new("bad");
    let said = add_pod(&runtime, &bad, "no label");
    assert_eq!(said.code(), 7);
    assert!(said.json["msg"].as_str().unwrap().contains("no value of a label"), "{:#}", said.json);
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (3, 3));
}

#[test]
fn a_container_is_on_several_networks_at_once() {
    let runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let mut second = runtime.with("1.0.0", json!({"name": "second", "bridge": "br1", "vlan": 9}));
    let ranges = json!([{"subnet": "10.89.0.0/24"}, {"subnet": "fd89::/64"}]);
    second["ipam"] = json!({"type": "switch-cni", "pool": "second", "ranges": ranges, "routes": []});
    let mut said = Vec::new();
    for container in [&a, &b] {
        let netns = container.net.path();
        for (interface, conf) in [
            ("eth0", runtime.with("1.0.0", json!({}))),
            (
                "eth1",
                runtime.with("1.0.0", json!({"ipam": {"type": "switch-cni", "pool": "pods", "routes": []}})),
            ),
            ("net1", second.clone()),
        ] {
            let env =
                [("CNI_CONTAINERID", &*container.id), ("CNI_NETNS", &*netns), ("CNI_IFNAME", interface)];
            said.push((interface, runtime.run("ADD", &env, conf)));
        }
    }
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (6, 6));
    // Each by the interface of its network, in both families.
    for (interface, to) in &said[3..] {
        for at in [0, 1] {
            let address = to.address(at);
            let ping = format!("ping -n -c 1 -W 1 -I {interface} {address}");
            wait_until(&ping, LONG, || a.net.try_run(&ping).status.success());
        }
    }
    // One interface goes, the others stay.
    let netns = a.net.path();
    let env = [("CNI_CONTAINERID", "a"), ("CNI_NETNS", &*netns), ("CNI_IFNAME", "eth1")];
    runtime.run("DEL", &env, runtime.with("1.0.0", json!({}))).ok();
    assert!(a.has("eth0") && !a.has("eth1") && a.has("net1"));
    reaches(&a, &said[3].1.address(0));
    reaches(&a, &said[5].1.address(1));
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (5, 5));
}
