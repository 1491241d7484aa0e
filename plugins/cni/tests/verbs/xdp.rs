//! Containers whose port is an xdp port on a veth pair.

use crate::runtime::{Container, Runtime};
use crate::{LONG, reaches};
use serde_json::json;
use switch_lab::wait_until;

/// What the node's namespace has for containers of the driver xdp.
fn node_devices(runtime: &Runtime) -> Vec<String> {
    let said = runtime.node.net.ip("-o link show type veth");
    let name = |line: &str| line.split(": ").nth(1).map(|name| name.split('@').next().unwrap().to_owned());
    said.lines().filter_map(name).collect()
}

#[test]
fn the_driver_xdp_does_what_a_tap_does() {
    let runtime = Runtime::new();
    let xdp = || json!({"driver": "xdp"});
    for version in ["0.3.1", "1.1.0"] {
        let (a, b, c) = (Container::new("a"), Container::new("b"), Container::new("c"));
        let one = runtime.ask("ADD", version, &a, xdp());
        let two = runtime.ask("ADD", version, &b, json!({"driver": "xdp", "mtu": 1400}));
        let tap = runtime.ask("ADD", version, &c, json!({}));
        assert!(one.success && two.success && tap.success, "{:#}{:#}{:#}", one.json, two.json, tap.json);
        for at in [0, 1] {
            reaches(&a, &two.address(at));
            reaches(&b, &one.address(at));
            reaches(&c, &one.address(at));
            reaches(&a, &tap.address(at));
        }
        // The container's end is as a tap's would be; the node's is not told of, for plugins that would act on it in vain.
        assert_eq!(one.json["interfaces"].as_array().unwrap().len(), 1);
        let pods = &one.json["interfaces"][0];
        assert_eq!((&pods["name"], &pods["sandbox"]), (&json!("eth0"), &json!(a.net.path())));
        assert_eq!(one.json["ips"][0]["interface"], 0);
        let port = crate::port_of(&runtime, "a").name.to_string();
        assert!(node_devices(&runtime).contains(&port));
        assert!(a.net.ip("link show eth0").contains(pods["mac"].as_str().unwrap()));
        assert!(b.net.ip("link show eth0").contains("mtu 1400"));
        assert!(a.net.ip("route show default").contains("via 10.88.0.1 dev eth0"));
        assert!(a.net.ip("-6 route show default").contains("via fd88::1 dev eth0"));
        let own = runtime.node.net.ip(&format!("addr show {port}"));
        assert!(!own.contains("inet"), "the node has no address on it: {own}");
        // Asked again it is the same, and nothing was done.
        let ports = runtime.ports();
        assert_eq!(runtime.ask("ADD", version, &a, xdp()), one);
        assert_eq!(runtime.ports().len(), ports.len());
        for container in [&a, &b, &c, &a, &b, &c] {
            runtime.ask("DEL", version, container, xdp()).ok();
            assert!(!container.has("eth0"));
        }
        assert_eq!(node_devices(&runtime), [""; 0]);
        runtime.assert_empty();
    }
}

#[test]
fn check_compares_what_the_driver_xdp_made() {
    let runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let address = runtime.add(&b).address(0);
    let result = runtime.ask("ADD", "1.1.0", &a, json!({"driver": "xdp"})).ok();
    let check = |driver: &str| {
        let said = runtime.ask("CHECK", "1.1.0", &a, json!({"driver": driver, "prevResult": result}));
        if said.success { String::new() } else { said.json["msg"].as_str().unwrap().to_owned() }
    };
    assert_eq!(check("xdp"), "");
    assert!(check("tap").contains("is of another driver than tap"));
    a.net.ip("addr del 10.88.0.3/24 dev eth0");
    a.net.ip("link set eth0 mtu 1300");
    let text = check("xdp");
    assert!(text.contains("address 10.88.0.3/24") && text.contains("MTU of 1300, not 1500"), "{text}");
    // A container that deletes its end gets another, as it was at first.
    a.net.ip("link del eth0");
    wait_until("there is an end again", LONG, || a.has("eth0") && check("xdp").is_empty());
    reaches(&a, &address);
    // One that sets it down does not reach anybody, and CHECK says so.
    a.net.ip("link set eth0 down");
    assert!(check("xdp").contains("interface eth0 is down"));
    let refused = runtime.ask("ADD", "1.0.0", &Container::new("c"), json!({"driver": "xdp", "queues": 2}));
    assert_eq!(refused.code(), 7);
    assert!(refused.json["msg"].as_str().unwrap().contains("queues"), "{:#}", refused.json);
}

#[test]
fn what_the_driver_xdp_made_goes_whatever_is_left() {
    let mut runtime = Runtime::new();
    runtime.conf["driver"] = "xdp".into();
    let [gone, valid, lost, half] = ["gone", "valid", "lost", "half"].map(Container::new);
    let address = runtime.add(&valid).address(0);
    [&gone, &lost].iter().for_each(|container| _ = runtime.add(container));
    // The namespace is gone, and its end of the cable with it.
    let path = gone.net.path();
    drop(gone);
    let env = [("CNI_CONTAINERID", "gone"), ("CNI_NETNS", ""), ("CNI_IFNAME", "eth0")];
    (0..2).for_each(|_| _ = runtime.run("DEL", &env, runtime.with("1.0.0", json!({}))).ok());
    assert_eq!((runtime.ports().len(), node_devices(&runtime).len()), (2, 2), "{path}");
    // A name that is taken in the container.
    half.net.ip("link add eth0 type veth peer name other");
    assert_eq!(runtime.ask("ADD", "1.0.0", &half, json!({})).code(), 4);
    half.net.ip("link del eth0");
    assert_eq!(node_devices(&runtime).len(), 2);
    // A daemon is killed over a pair: the node's end has no more than a name, or says that it is not whole.
    for alias in ["", "unfinished"] {
        runtime.add(&half);
        let name = crate::port_of(&runtime, "half").name.to_string();
        let whole = runtime.node.net.ip(&format!("link show {name}"));
        let whole = whole.lines().find_map(|line| line.trim().strip_prefix("alias ")).unwrap().to_owned();
        runtime.daemon.kill();
        let now = if alias.is_empty() { String::new() } else { format!("{whole} {alias}") };
        let mut command = runtime.node.net.command("ip");
        assert!(command.args(["link", "set", &name, "alias", &now]).status().unwrap().success());
        runtime.restart();
        wait_until("it is made anew", LONG, || half.reaches(&address));
        assert!(runtime.node.net.ip(&format!("link show {name}")).contains(&format!("alias {whole}\n")));
        runtime.ask("DEL", "1.0.0", &half, json!({})).ok();
    }
    // The daemon lost its state: the pair is there, and no port.
    runtime.daemon.kill();
    std::fs::remove_file(runtime.node.directory().join("state")).unwrap();
    runtime.restart();
    runtime.ask("DEL", "1.0.0", &lost, json!({})).ok();
    assert!(!lost.has("eth0") && valid.has("eth0"));
    // One that is taken over by an ADD that is asked again.
    runtime.add(&valid);
    assert_eq!(node_devices(&runtime).len(), 1);
    runtime.run("GC", &[], runtime.with("1.1.0", json!({"cni.dev/valid-attachments": []}))).ok();
    assert!(!valid.has("eth0"));
    assert_eq!(node_devices(&runtime), [""; 0]);
    runtime.assert_empty();
}
