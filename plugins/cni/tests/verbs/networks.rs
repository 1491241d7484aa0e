//! Networks of one container, their routes, and addresses and namespaces that a container cannot have.

use crate::runtime::{Container, Runtime, Said};
use crate::{LONG, reaches};
use serde_json::{Value, json};
use switch_lab::wait_until;

#[test]
fn routes_are_made_as_they_are_asked_for_and_checked() {
    let runtime = Runtime::new();
    for driver in ["tap", "xdp"] {
        let a = Container::new("a");
        let mut ipam = runtime.conf["ipam"].clone();
        ipam["routes"] = json!([
            {"dst": "0.0.0.0/0", "mtu": 1400, "advmss": 1300, "priority": 77},
            {"dst": "10.30.0.0/16", "gw": "10.88.0.9", "table": 1000, "scope": 0},
            {"dst": "fd30::/64", "priority": 7, "mtu": 1350},
        ]);
        let mut conf = json!({"ipam": ipam, "driver": driver});
        let result = runtime.ask("ADD", "1.1.0", &a, conf.clone()).ok();
        assert_eq!(result["routes"], ipam["routes"]);
        for (line, part) in [
            ("route show default", "via 10.88.0.1 dev eth0 proto static metric 77 mtu 1400 advmss 1300"),
            ("route show table 1000", "10.30.0.0/16 via 10.88.0.9 dev eth0"),
            ("-6 route show fd30::/64", "via fd88::1 dev eth0 proto static metric 7 mtu 1350"),
        ] {
            assert!(a.net.ip(line).contains(part), "{part}: {}", a.net.ip(line));
        }
        assert_eq!(runtime.ask("ADD", "1.1.0", &a, conf.clone()).ok(), result, "asked again it is the same");
        conf["prevResult"] = result;
        assert!(runtime.ask("CHECK", "1.1.0", &a, conf.clone()).success);
        a.net.ip("route change default via 10.88.0.1 dev eth0 metric 77 mtu 1300");
        a.net.ip("route del 10.30.0.0/16 table 1000");
        let said = runtime.ask("CHECK", "1.1.0", &a, conf.clone());
        assert_eq!(said.code(), 101);
        for part in
            ["route to 0.0.0.0/0 metric 77 mtu 1400 advmss 1300", "10.30.0.0/16 via 10.88.0.9 table 1000"]
        {
            assert!(said.json["msg"].as_str().unwrap().contains(part), "{part}: {:#}", said.json);
        }
        runtime.ask("DEL", "1.1.0", &a, conf).ok();
        runtime.assert_empty();
    }
}

/// Of two networks with gateways the first one's counts, in either family.
#[test]
fn a_container_keeps_the_default_route_of_its_first_network() {
    let runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let network = |name: &str, bridge: &str, ranges: Value| {
        let ipam = json!({"type": "switch-cni", "pool": name, "ranges": ranges});
        runtime.with("1.0.0", json!({"name": name, "bridge": bridge, "ipam": ipam}))
    };
    let first = network("first", "br1", json!([{"subnet": "10.81.0.0/24", "gateway": "10.81.0.1"}]));
    let both = [
        json!({"subnet": "10.82.0.0/24", "gateway": "10.82.0.1"}),
        json!({"subnet": "fd82::/64", "gateway": "fd82::1"}),
    ];
    let second = network("second", "br2", json!(both));
    let ask =
        |verb: &str, container: &Container, interface: &str, mut conf: Value, result: Option<&Value>| {
            let netns = container.net.path();
            let env =
                [("CNI_CONTAINERID", &*container.id), ("CNI_NETNS", &*netns), ("CNI_IFNAME", interface)];
            if let Some(result) = result {
                conf["prevResult"] = result.clone();
            }
            runtime.run(verb, &env, conf)
        };
    let one = ask("ADD", &a, "eth0", first.clone(), None).ok();
    let said = ask("ADD", &a, "net1", second.clone(), None);
    let two = said.clone().ok();
    assert_eq!(two["routes"], json!([{"dst": "::/0", "gw": "fd82::1"}]));
    assert!(a.net.ip("route show default").contains("via 10.81.0.1 dev eth0"));
    assert!(a.net.ip("-6 route show default").contains("via fd82::1 dev net1"));
    assert_eq!(ask("ADD", &a, "net1", second.clone(), None), said, "asked again it is the same");
    for (interface, conf, result) in [("eth0", &first, &one), ("net1", &second, &two)] {
        let checked = ask("CHECK", &a, interface, conf.clone(), Some(result));
        assert!(checked.success, "{interface}: {:#}", checked.json);
    }
    let far = ask("ADD", &b, "eth0", second.clone(), None);
    assert!(b.net.ip("route show default").contains("via 10.82.0.1"), "its first network is this one");
    for at in [0, 1] {
        reaches(&a, &far.address(at));
        reaches(&b, &said.address(at));
    }
}

/// Two interfaces on one network, both with addresses: each is reached at its own and answers by itself; one goes, the other stays.
#[test]
fn two_interfaces_on_one_network_answer_each_by_itself() {
    for driver in ["tap", "xdp"] {
        let mut runtime = Runtime::new();
        runtime.conf["driver"] = driver.into();
        runtime.host_port_on_bridge();
        let (a, b) = (Container::new("a"), Container::new("b"));
        let netns = a.net.path();
        let ask = |verb: &str, interface: &str, more: Value| {
            let env = [("CNI_CONTAINERID", "a"), ("CNI_NETNS", &*netns), ("CNI_IFNAME", interface)];
            runtime.run(verb, &env, runtime.with("1.0.0", more))
        };
        let far = runtime.add(&b);
        // Strict: what comes by another interface than an answer would go by is dropped (ip-sysctl(8)).
        a.net.run("sysctl -qw net.ipv4.conf.all.rp_filter=1");
        let said = ["eth0", "eth1", "eth2"].map(|interface| (interface, ask("ADD", interface, json!({}))));
        let all = |from: &Container, addresses: &[String]| addresses.iter().for_each(|to| reaches(from, to));
        let addresses = |said: &Said| [0, 1].map(|at| said.address(at));
        for (interface, said) in &said {
            assert!(said.success, "{driver} {interface}: {:#}", said.json);
            all(&b, &addresses(said));
            // From outside the network: the answer has to find the gateway by the same interface.
            wait_until("the node is answered", LONG, || {
                let ping = format!("ping -n -c 1 -W 1 -I 10.99.0.1 {}", said.address(0));
                runtime.node.net.try_run(&ping).status.success()
            });
            // And as who asks, from its address or by its name.
            for (at, to) in addresses(&far).iter().enumerate() {
                for own in [said.address(at), (*interface).to_owned()] {
                    let ping = format!("ping -n -c 1 -W 1 -I {own} {to}");
                    wait_until(&ping, LONG, || a.net.try_run(&ping).status.success());
                }
            }
        }
        assert_eq!(runtime.daemon.drops("spoofed-address"), 0, "{driver}: it left by another one");
        let ports = || runtime.ports().into_iter().map(|it| it.port).collect::<Vec<_>>();
        let before = ports();
        for (interface, said) in &said {
            assert_eq!(
                ask("ADD", interface, json!({})),
                *said,
                "{driver} {interface}: asked again it is the same"
            );
            let checked = ask("CHECK", interface, json!({"prevResult": said.json}));
            assert!(checked.success, "{driver} {interface}: {:#}", checked.json);
        }
        assert_eq!(ports(), before, "{driver}: nothing was made anew");
        a.net.ip(&format!("rule del from {}", said[1].1.address(0)));
        let checked = ask("CHECK", "eth1", json!({"prevResult": said[1].1.json}));
        assert_eq!(checked.code(), 101);
        assert!(
            checked.json["msg"].as_str().unwrap().contains("no rule leads what is from 10.88.0."),
            "{checked:?}"
        );
        // An ADD puts it right, and one that was there first may go before the others.
        assert_eq!(ask("ADD", "eth1", json!({})), said[1].1);
        for (at, interface) in ["eth0", "eth2", "eth1"].into_iter().enumerate() {
            ask("DEL", interface, json!({})).ok();
            assert!(!a.has(interface), "{driver}");
            match at {
                0 => all(&b, &[addresses(&said[1].1), addresses(&said[2].1)].concat()),
                1 => all(&b, &addresses(&said[1].1)),
                _ => {}
            }
        }
        assert_eq!(a.net.ip("rule").lines().count(), 3, "{}", a.net.ip("rule"));
        assert!(!a.net.ip("-6 rule").contains("20000"), "{}", a.net.ip("-6 rule"));
        runtime.ask("DEL", "1.0.0", &b, json!({})).ok();
        runtime.assert_empty();
    }
}

/// The way to a namespace by its process leads to another container once that has ended: what that one was given stays.
#[test]
fn a_deletion_by_a_way_that_leads_elsewhere_takes_nothing_from_whoever_is_there() {
    let runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let ask = |verb: &str, container: &Container, netns: &str, interface: &str| {
        let env = [("CNI_CONTAINERID", &*container.id), ("CNI_NETNS", netns), ("CNI_IFNAME", interface)];
        runtime.run(verb, &env, runtime.with("1.0.0", json!({}))).ok()
    };
    let [way, other] = [&a, &b].map(|container| container.net.path());
    for interface in ["eth0", "eth1"] {
        ask("ADD", &a, &way, interface);
        ask("ADD", &b, &other, interface);
    }
    let rules = || [b.net.ip("rule"), b.net.ip("-6 rule")];
    let before = rules();
    assert!(before[0].contains("20000"), "{before:?}");
    for _ in 0..2 {
        ask("DEL", &a, &other, "eth1");
        assert_eq!(rules(), before);
        assert!(b.has("eth1") && !a.has("eth1"));
    }
    for (container, netns, interface) in [(&a, &way, "eth0"), (&b, &other, "eth1"), (&b, &other, "eth0")] {
        ask("DEL", container, netns, interface);
    }
    assert!(!rules()[0].contains("20000"), "{:?}", rules());
    runtime.assert_empty();
}

#[test]
fn the_runtimes_own_namespace_is_no_containers() {
    let runtime = Runtime::new();
    let pid = format!("/proc/{}/ns/net", std::process::id());
    for netns in ["/proc/self/ns/net", "/proc/thread-self/ns/net", &pid] {
        let env = [("CNI_CONTAINERID", "own"), ("CNI_NETNS", netns), ("CNI_IFNAME", "cni-test0")];
        let said = runtime.run("ADD", &env, runtime.with("1.0.0", json!({})));
        assert_eq!(said.code(), 4, "{:#}", said.json);
        assert!(said.json["msg"].as_str().unwrap().contains(netns), "{:#}", said.json);
        runtime.assert_empty();
    }
}

/// Less than a plugin waits for a daemon that does not answer.
const AT_ONCE: std::time::Duration = std::time::Duration::from_secs(15);

/// What is no namespace at all is said to be none, at once, by whatever verb; DEL goes on without it.
#[test]
fn a_namespace_that_is_none_is_refused_by_name() {
    let runtime = Runtime::new();
    let pipe = runtime.node.directory().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for netns in [&*pipe.display().to_string(), "/dev/null", "/etc/passwd", "/proc/self/ns/mnt", "/nowhere"] {
        let env = [("CNI_CONTAINERID", "odd"), ("CNI_NETNS", netns), ("CNI_IFNAME", "eth0")];
        let begun = std::time::Instant::now();
        let said = runtime.run("ADD", &env, runtime.with("1.0.0", json!({})));
        assert_eq!(said.code(), 3, "{netns}: {:#}", said.json);
        assert!(said.json["msg"].as_str().unwrap().contains(netns), "{:#}", said.json);
        runtime.run("DEL", &env, runtime.with("1.0.0", json!({}))).ok();
        assert!(begun.elapsed() < AT_ONCE, "{netns}: {:?}", begun.elapsed());
        runtime.assert_empty();
    }
}

/// The operator gave the node an address that the pool gives out: nobody has it twice, and who asks gets another at once. Who asks for that very one
/// is refused.
#[test]
fn an_address_that_a_port_has_is_not_given_to_a_container() {
    let runtime = Runtime::new();
    runtime.daemon.bridge("br0");
    let host = json!({"name": "host", "bridge": "br0", "kind": "host", "addresses": ["10.88.0.2/24"]});
    let host: switch_api::Port = serde_json::from_value(host).unwrap();
    let _: switch_api::Done = runtime.daemon.call(&switch_api::Request::PortAdd(Box::new(host)));
    let (a, b) = (Container::new("a"), Container::new("b"));
    let said = runtime.ask("ADD", "1.0.0", &a, json!({"args": {"cni": {"ips": ["10.88.0.2/24"]}}}));
    assert_eq!(said.code(), 11, "{:#}", said.json);
    assert!(said.json["msg"].as_str().unwrap().contains("10.88.0.2 is that of port host"), "{:#}", said.json);
    assert!(!a.has("eth0"));
    runtime.assert_empty();
    assert_eq!([&a, &b].map(|container| runtime.add(container).address(0)), ["10.88.0.3", "10.88.0.4"]);
}

/// A pool that would have what another has is refused, and one does not shrink below what it has given.
#[test]
fn pools_that_overlap_or_shrink_below_their_leases_are_refused_by_name() {
    let runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let result = runtime.add(&a);
    let wider = json!({"type": "switch-cni", "pool": "wider", "ranges": [{"subnet": "10.88.0.0/16"}]});
    let said = runtime.ask("ADD", "1.0.0", &b, json!({"ipam": wider}));
    assert_eq!(said.code(), 7);
    assert!(said.json["msg"].as_str().unwrap().contains("pool wider overlaps pool pods"), "{:#}", said.json);
    let ranges = ["10.88.0.128/25", "fd88::/64"].map(|text| switch_api::PoolRange::of(text.parse().unwrap()));
    let pool =
        switch_api::Pool { name: "pods".parse().unwrap(), ranges: ranges.into(), owner: Default::default() };
    let set = switch_api::Request::PoolSet(pool);
    let mut client = runtime.daemon.client();
    client.override_owner(Some(switch_api::Owner::Cni));
    let refused = client.call::<switch_api::Done>(&set).unwrap_err();
    assert!(refused.message.contains("a/eth0 of network pods holds 10.88.0.2/24"), "{refused}");
    assert!(!b.has("eth0") && runtime.add(&a) == result, "nothing was changed");
}

/// Whatever comes, the program answers in one way: JSON, with a code and what to do, and nothing is done.
#[test]
fn hostile_input_is_answered_with_an_error_and_changes_nothing() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let runtime = Runtime::new();
    let a = Container::new("a");
    let socket = runtime.conf["socket"].as_str().unwrap();
    let deep = "[".repeat(100_000);
    let long = format!(r#"{{"cniVersion":"1.0.0","name":"{}"}}"#, "x".repeat(2 << 20));
    let named = |name: &str| {
        format!(r#"{{"cniVersion":"1.0.0","name":"{name}","type":"switch-cni","socket":"{socket}"}}"#)
    };
    let inputs = [
        Vec::new(),
        vec![0; 4096],
        vec![0xff; 4096],
        deep.into_bytes(),
        long.into_bytes(),
        b"{\"cniVersion\":\"1.0.0\",\"cniVersion\":9}".to_vec(),
        named("../../etc").into_bytes(),
        named("a\\nb").into_bytes(),
        named(&"n".repeat(300)).into_bytes(),
    ];
    for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        for input in &inputs {
            let mut child = Command::new(env!("CARGO_BIN_EXE_switch-cni"))
                .env_clear()
                .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0")])
                .env("CNI_NETNS", a.net.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // One that has heard enough hangs up.
            _ = child.stdin.take().unwrap().write_all(input);
            let output = child.wait_with_output().unwrap();
            let shown = String::from_utf8_lossy(input).chars().take(60).collect::<String>();
            assert_eq!(output.status.code(), Some(1), "{verb} {shown}");
            let said: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(
                said["code"].as_u64().is_some_and(|code| (1..=7).contains(&code)),
                "{verb} {shown}: {said}"
            );
            assert!(!said["msg"].as_str().unwrap().is_empty() && output.stderr.is_empty(), "{said}");
        }
    }
    assert!(!a.has("eth0"));
    runtime.assert_empty();
}
