//! Together with other plugins, as Debian has them: they give us addresses, and we give addresses to them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]
#![allow(dead_code, reason = "the runtime's driver has more than this test needs")]

mod runtime;

use runtime::{Container, Runtime, exec};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use switch_lab::wait_until;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn host_local_and_static_give_addresses() {
    let runtime = Runtime::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let kept = runtime.node.directory().join("host-local");
    let host_local = json!({"ipam": {
        "type": "host-local", "dataDir": kept, "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "10.77.0.0/24", "gateway": "10.77.0.1"}]],
    }});
    let by_hand = json!({"ipam": {"type": "static", "addresses": [{"address": "10.77.0.200/24"}]}});
    let one = runtime.ask("ADD", "1.0.0", &a, host_local.clone());
    let two = runtime.ask("ADD", "1.0.0", &b, by_hand.clone());
    assert!(one.success && two.success, "{:#}{:#}", one.json, two.json);
    assert_eq!(two.address(0), "10.77.0.200");
    assert!(a.net.ip("route show default").contains("via 10.77.0.1"));
    wait_until("they reach each other", LONG, || a.reaches("10.77.0.200") && b.reaches(&one.address(0)));
    let reserved = || std::fs::read_dir(kept.join("pods")).unwrap().count();
    let with_one = reserved();
    let mut check = host_local.clone();
    check["prevResult"] = one.json.clone();
    assert!(runtime.ask("CHECK", "1.0.0", &a, check.clone()).success);
    // What fails after host-local gave an address gives it back.
    let c = Container::new("c");
    c.net.ip("link add eth0 type veth peer name other");
    assert!(!runtime.ask("ADD", "1.0.0", &c, host_local.clone()).success);
    let mut bad = host_local.clone();
    bad["ipam"]["routes"] = json!([{"dst": "10.99.0.0/16", "gw": "fd88::1"}]);
    c.net.ip("link del eth0");
    assert!(!runtime.ask("ADD", "1.0.0", &c, bad).success);
    assert_eq!(reserved(), with_one);
    // A runtime that did not wait asks again. host-local would refuse who has an address.
    let d = Container::new("d");
    for _ in 0..2 {
        let said = runtime.ask("ADD", "1.0.0", &d, host_local.clone());
        assert!(said.success, "{:#}", said.json);
        assert_eq!(reserved(), with_one + 1);
        wait_until("it is connected", LONG, || a.reaches(&said.address(0)));
    }
    runtime.ask("DEL", "1.0.0", &d, host_local.clone()).ok();
    for _ in 0..2 {
        runtime.ask("DEL", "1.0.0", &a, check.clone()).ok();
    }
    assert_eq!(reserved(), with_one - 1);
    runtime.ask("DEL", "1.0.0", &b, by_hand).ok();
    runtime.assert_empty();
    let missing = runtime.ask("ADD", "1.0.0", &a, json!({"ipam": {"type": "no-such-plugin"}}));
    assert_eq!(missing.code(), 102);
    runtime.assert_empty();
}

/// Addresses that host-local has given out.
fn reserved(kept: &Path) -> Vec<String> {
    let names = std::fs::read_dir(kept.join("pods")).into_iter().flatten();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
}

fn host_local(kept: &Path) -> Value {
    let ranges = json!([[{"subnet": "10.77.0.0/24", "gateway": "10.77.0.1"}], [{"subnet": "fd77::/64"}]]);
    json!({"ipam": {"type": "host-local", "dataDir": kept, "ranges": ranges}})
}

fn valid(mut conf: Value, alive: &[&str]) -> Value {
    let alive: Vec<_> = alive.iter().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect();
    conf["cni.dev/valid-attachments"] = alive.into();
    conf
}

/// Debian's host-local speaks 1.0.0 and knows neither GC nor STATUS. In a list of 1.1.0 it works all the same, and GC gives back what it
/// gave whom the runtime does not name: also whose namespace, or whose port, is gone.
#[test]
fn what_host_local_gave_is_given_back_by_gc() {
    let runtime = Runtime::new();
    let kept = runtime.node.directory().join("host-local");
    let network = host_local(&kept);
    let [a, b, gone, lost] = ["a", "b", "gone", "lost"].map(Container::new);
    for (container, version) in [(&a, "1.1.0"), (&b, "1.0.0"), (&gone, "1.1.0"), (&lost, "1.1.0")] {
        let said = runtime.ask("ADD", version, container, network.clone());
        assert!(said.success, "{version}: {:#}", said.json);
        assert_eq!(said.json["cniVersion"], version);
    }
    let one = runtime.ask("ADD", "1.1.0", &a, network.clone()).ok();
    let mut check = network.clone();
    check["prevResult"] = one.clone();
    runtime.ask("CHECK", "1.1.0", &a, check).ok();
    runtime.ask("STATUS", "1.1.0", &a, network.clone()).ok();
    assert_eq!(reserved(&kept).len(), 8);
    drop(gone);
    let of_lost = |port: &switch_api::PortStatus| port.port.labels["cni/container"] == "lost";
    let name = runtime.ports().into_iter().find(of_lost).unwrap().port.name;
    let _: switch_api::Done = runtime
        .daemon
        .call_as(switch_api::Owner::Cni, &switch_api::Request::PortDelete(switch_api::ByName { name }));
    let gc = |alive: &[&str], path: &[(&str, &str)]| {
        runtime.run("GC", path, runtime.with("1.1.0", valid(network.clone(), alive)))
    };
    // Who gives addresses cannot be found: it is said, and found out about later.
    let failed = gc(&["a", "b"], &[("CNI_PATH", "/nowhere")]);
    assert_eq!(failed.code(), 100);
    for part in ["gone/eth0", "lost/eth0", "no plugin \"host-local\""] {
        assert!(failed.json["details"].as_str().unwrap().contains(part), "{part}: {:#}", failed.json);
    }
    assert_eq!((runtime.ports().len(), reserved(&kept).len()), (2, 8));
    for _ in 0..2 {
        gc(&["a", "b"], &[]).ok();
        assert_eq!((runtime.ports().len(), reserved(&kept).len()), (2, 4), "{:?}", reserved(&kept));
    }
    let address = one["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
    wait_until("who lives is not disturbed", LONG, || b.reaches(address));
    runtime.ask("DEL", "1.1.0", &b, network.clone()).ok();
    assert_eq!(reserved(&kept).len(), 2);
    gc(&[], &[]).ok();
    assert_eq!(reserved(&kept), [""; 0]);
    assert_eq!(std::fs::read_dir(runtime.node.directory().join("pending/given")).unwrap().count(), 0);
    runtime.assert_empty();
}

/// A host-local that reserves what Debian's does, and says so only when it is told to go on.
struct Tarrying {
    directory: PathBuf,
}

impl Tarrying {
    fn new(runtime: &Runtime) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let directory = runtime.node.directory().join("tarrying");
        std::fs::create_dir(&directory).unwrap();
        // It ends by itself, should the test.
        let script = format!(
            r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exec /usr/lib/cni/host-local
cd {}
said=$(/usr/lib/cni/host-local)
code=$?
> reserved
for look in $(seq 6000); do
    [ -e goes-on ] && break
    sleep 0.01
done
> over
printf %s "$said"
exit $code
"#,
            directory.display()
        );
        let program = directory.join("host-local");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn is_there(&self, mark: &str) -> bool {
        self.directory.join(mark).exists()
    }

    /// Starts ADD with it, and kills the plugin when addresses are reserved that it does not know of.
    fn kill_behind(&self, runtime: &Runtime, container: &Container) {
        ["reserved", "goes-on", "over"]
            .iter()
            .for_each(|mark| _ = std::fs::remove_file(self.directory.join(mark)));
        let path = format!("{}:/usr/lib/cni", self.directory.display());
        let started = runtime.start_with("ADD", container, json!({}), &[("CNI_PATH", &path)]);
        wait_until("host-local has reserved addresses", LONG, || self.is_there("reserved"));
        assert!(started.kill(), "it did not wait for host-local");
    }

    fn goes_on(&self) {
        std::fs::write(self.directory.join("goes-on"), "").unwrap();
    }

    /// Does something that has to wait until it has ended.
    fn is_waited_for(&self, work: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let waits = scope.spawn(work);
            std::thread::sleep(A_WHILE);
            assert!(!waits.is_finished(), "host-local was not waited for");
            self.goes_on();
        });
    }
}

/// Whoever does not wait has come to his end by then, on most machines.
const A_WHILE: Duration = Duration::from_millis(300);

/// Killed between any two steps, with addresses of host-local's: GC finds them.
#[test]
fn a_plugin_that_is_killed_leaves_no_address_of_another_that_gc_does_not_find() {
    let mut runtime = Runtime::new();
    let kept = runtime.node.directory().join("host-local");
    runtime.conf["ipam"] = host_local(&kept)["ipam"].clone();
    let runtime = runtime;
    let collect = || runtime.run("GC", &[], runtime.with("1.1.0", valid(json!({}), &[]))).ok();
    // Asked again it succeeds, though host-local refuses who has an address.
    let ask_again = |container: &Container| {
        runtime.add(container);
        assert_eq!(reserved(&kept).len(), 2);
    };
    let is_collected = |round: &str| {
        assert_eq!(reserved(&kept), [""; 0], "{round}");
        let left = std::fs::read_dir(runtime.node.directory().join("pending/given"));
        assert_eq!(left.map_or(0, Iterator::count), 0, "{round}");
        runtime.assert_empty();
    };
    // With addresses, and without a port. host-local, of which nobody knows that the plugin is gone, comes to its end, or who is next waits
    // for that.
    let tarrying = Tarrying::new(&runtime);
    for (waits, again) in [(false, false), (true, false), (false, true), (true, true)] {
        let container = Container::new("victim");
        tarrying.kill_behind(&runtime, &container);
        assert_eq!((reserved(&kept).len(), runtime.ports().len()), (2, 0));
        if !waits {
            tarrying.goes_on();
            wait_until("host-local ends", LONG, || tarrying.is_there("over"));
        }
        match (waits, again) {
            (false, false) => _ = collect(),
            (true, false) => tarrying.is_waited_for(|| _ = collect()),
            (false, true) => ask_again(&container),
            (true, true) => tarrying.is_waited_for(|| ask_again(&container)),
        }
        if again {
            collect();
        }
        is_collected(&format!("waits: {waits}, asked again: {again}"));
    }
    // And at any instant: how many of them it was quicker than depends on the machine.
    let (mut killed, mut without_port) = (0, 0);
    for round in 0..24_u64 {
        let container = Container::new("victim");
        let after = Duration::from_micros(300 + (round * 7_919_317) % 24_000);
        killed += usize::from(runtime.start_and_kill("ADD", &container, after));
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(60));
        }
        without_port += usize::from(!reserved(&kept).is_empty() && runtime.ports().is_empty());
        if round % 4 == 3 {
            ask_again(&container);
        }
        collect();
        is_collected(&format!("round {round}"));
    }
    println!("{killed} of 24 were killed at some instant, {without_port} with an address and no port");
}

/// A runtime that did not wait for one ADD runs two at a time, or ADD and DEL. host-local refuses who has an address; what is taken back then is
/// not the other's.
#[test]
fn two_at_once_for_one_container_of_host_local_take_nothing_from_each_other() {
    let mut runtime = Runtime::new();
    let kept = runtime.node.directory().join("host-local");
    runtime.conf["ipam"] = host_local(&kept)["ipam"].clone();
    for round in 0..8 {
        let container = Container::new("twice");
        let both = [runtime.start("ADD", &container), runtime.start("ADD", &container)].map(|it| it.finish());
        assert!(both.iter().all(|said| said.success), "round {round}: {both:#?}");
        let mut given = reserved(&kept);
        given.sort();
        let port = runtime.ports()[0].port.clone();
        let has: Vec<String> =
            port.kind.pod_addresses().unwrap().iter().map(|it| it.address().to_string()).collect();
        assert_eq!(given, has, "round {round}: what host-local gave is what the port has");
        let both = [runtime.start("DEL", &container), runtime.start("ADD", &container)].map(|it| it.finish());
        assert!(both.iter().all(|said| said.success), "round {round}: {both:#?}");
        assert_eq!(runtime.ports().len() * 2, reserved(&kept).len(), "round {round}");
        runtime.ask("DEL", "1.0.0", &container, json!({})).ok();
        assert_eq!(reserved(&kept), [""; 0], "round {round}");
        runtime.assert_empty();
        let left = std::fs::read_dir(runtime.node.directory().join("pending/given")).unwrap();
        assert_eq!(left.count(), 0, "round {round}");
    }
}

/// One that speaks 1.1.0 is asked itself, and what it says of its addresses is passed on.
#[test]
fn another_plugin_of_the_newest_version_is_asked_for_its_status_and_to_collect() {
    use std::os::unix::fs::PermissionsExt;
    let runtime = Runtime::new();
    let directory = runtime.node.directory().join("plugins");
    std::fs::create_dir(&directory).unwrap();
    let (plugin, log) = (directory.join("newest"), directory.join("log"));
    let script = format!(
        r#"#!/bin/sh
cat > /dev/null
echo $CNI_COMMAND $CNI_CONTAINERID >> {}
case $CNI_COMMAND in
VERSION) echo '{{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0","9.9.9"]}}' ;;
ADD) echo '{{"cniVersion":"1.1.0","ips":[{{"address":"10.77.0.9/24"}}]}}' ;;
STATUS) echo '{{"cniVersion":"1.1.0","code":50,"msg":"there is none left"}}'; exit 1 ;;
esac
"#,
        log.display()
    );
    std::fs::write(&plugin, script).unwrap();
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (a, path) = (Container::new("a"), directory.display().to_string());
    let netns = a.net.path();
    let ask = |verb: &str, more: Value| {
        let mut conf = runtime.with("1.1.0", more);
        conf["ipam"] = json!({"type": "newest"});
        let env =
            [("CNI_CONTAINERID", "a"), ("CNI_NETNS", &*netns), ("CNI_IFNAME", "eth0"), ("CNI_PATH", &*path)];
        runtime.run(verb, &env, conf)
    };
    let said = ask("STATUS", json!({}));
    assert_eq!(said.code(), 50);
    assert!(said.json["msg"].as_str().unwrap().contains("there is none left"), "{:#}", said.json);
    assert_eq!(ask("ADD", json!({})).address(0), "10.77.0.9");
    ask("GC", valid(json!({}), &[])).ok();
    assert!(!a.has("eth0"));
    let said = std::fs::read_to_string(log).unwrap();
    let verbs: Vec<_> = said.lines().filter(|line| !line.starts_with("VERSION")).collect();
    assert_eq!(verbs, ["STATUS a", "ADD a", "DEL a", "GC a"]);
    runtime.assert_empty();
}

/// A gateway outside the interface's network is reached on the link.
#[test]
fn a_gateway_of_another_network_is_reached_on_the_link() {
    let runtime = Runtime::new();
    let (a, router) = (Container::new("a"), Container::new("router"));
    for driver in ["tap", "xdp"] {
        let network = |addresses: Value, routes: Value| json!({"driver": driver, "ipam": {"type": "static", "addresses": addresses, "routes": routes}});
        let far = json!([
            {"address": "10.1.0.5/32", "gateway": "169.254.1.1"}, {"address": "fd01::5/128", "gateway": "fd09::1"},
        ]);
        let pod = network(far, json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        let near = json!([{"address": "169.254.1.1/32"}, {"address": "fd09::1/128"}]);
        let hop = network(near, json!([{"dst": "10.1.0.5/32"}, {"dst": "fd01::5/128"}]));
        runtime.ask("ADD", "1.0.0", &a, pod.clone()).ok();
        runtime.ask("ADD", "1.0.0", &router, hop.clone()).ok();
        assert!(a.net.ip("route show default").contains("default via 169.254.1.1 dev eth0"));
        for address in ["169.254.1.1", "fd09::1"] {
            wait_until(&format!("{driver}: {address} answers"), LONG, || a.reaches(address));
        }
        runtime.ask("DEL", "1.0.0", &a, pod).ok();
        runtime.ask("DEL", "1.0.0", &router, hop).ok();
        runtime.assert_empty();
    }
}

/// `ptp` and `bridge` ask us for addresses, one network each, with the version that Debian's plugins speak.
#[test]
fn another_plugin_gets_its_addresses_from_us() {
    let runtime = Runtime::new();
    asks_us_for_addresses(&runtime, "ptp", json!({}));
    asks_us_for_addresses(&runtime, "bridge", json!({"bridge": "theirs0"}));
}

fn asks_us_for_addresses(runtime: &Runtime, kind: &str, more: Value) {
    let a = Container::new("a");
    let mut conf = runtime.with("1.0.0", json!({"type": kind, "name": "theirs"}));
    let ours =
        ["bridge", "stateDir", "socket"].map(|field| conf.as_object_mut().unwrap().remove(field).unwrap());
    conf["ipam"]["socket"] = ours[2].clone();
    conf["ipam"]["stateDir"] = ours[1].clone();
    conf.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    let netns = a.net.path();
    let plugin = Path::new("/usr/lib/cni").join(kind);
    // What it makes on the node it makes in the node's namespace.
    let exec = |verb: &'static str, conf: &Value| {
        let (plugin, netns, conf) = (plugin.clone(), netns.clone(), conf.clone());
        let asked = runtime.node.net.inside(move || {
            let env = [("CNI_CONTAINERID", "a"), ("CNI_NETNS", netns.as_str()), ("CNI_IFNAME", "eth0")];
            exec(&plugin, verb, &env, &conf)
        });
        asked.join().unwrap()
    };
    let said = exec("ADD", &conf);
    assert!(said.success, "{kind}: {:#}", said.json);
    let lease = runtime.leases()[0].lease.clone();
    assert_eq!((lease.holder.network.as_str(), lease.addresses.len()), ("theirs", 2));
    assert!(a.net.ip("addr show eth0").contains(&lease.addresses[0].address.to_string()));
    conf["prevResult"] = said.json;
    let checked = exec("CHECK", &conf);
    assert!(checked.success, "{kind}: {:#}", checked.json);
    exec("DEL", &conf).ok();
    assert!(runtime.leases().is_empty() && !a.has("eth0"));
    assert!(!exec("CHECK", &conf).success);
    // Twice, and without anything to be released.
    exec("DEL", &conf).ok();
}

/// A plugin after us that shapes what a veth carries would act on nothing: it says so, whatever containers attach by.
#[test]
fn a_chain_that_needs_a_veth_is_refused() {
    let mut runtime = Runtime::new();
    for driver in ["tap", "xdp"] {
        runtime.conf["driver"] = driver.into();
        let a = Container::new("a");
        let result = runtime.add(&a).ok();
        let rates = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "bandwidth", "prevResult": result,
            "ingressRate": 1_000_000, "ingressBurst": 1_000_000, "egressRate": 1_000_000, "egressBurst": 1_000_000,
        });
        let netns = a.net.path();
        let env = [("CNI_CONTAINERID", "a"), ("CNI_NETNS", netns.as_str()), ("CNI_IFNAME", "eth0")];
        let said = exec(Path::new("/usr/lib/cni/bandwidth"), "ADD", &env, &rates);
        assert!(!said.success, "{driver}: {:#}", said.json);
        println!("{driver}: {}", said.json["msg"]);
        // firewall has no use for one: it lets the node's kernel pass what the container's addresses send, and no more. Nothing breaks.
        let open = json!({"cniVersion": "1.0.0", "name": "pods", "type": "firewall", "prevResult": result});
        let netns = a.net.path();
        let said = runtime.node.net.inside(move || {
            let env = [("CNI_CONTAINERID", "a"), ("CNI_NETNS", netns.as_str()), ("CNI_IFNAME", "eth0")];
            ["ADD", "DEL"].map(|verb| exec(Path::new("/usr/lib/cni/firewall"), verb, &env, &open))
        });
        assert!(said.join().unwrap().iter().all(|said| said.success));
        let checked = runtime.ask("CHECK", "1.0.0", &a, json!({"prevResult": result}));
        assert!(checked.success, "{driver}: {:#}", checked.json);
        // The runtime takes back what went before.
        runtime.ask("DEL", "1.0.0", &a, json!({"prevResult": result})).ok();
        runtime.assert_empty();
    }
}

/// A runtime passes a plugin its own part of the list alone; the list is found where the runtime keeps it, and refused before anything is
/// done, with what to use instead.
#[test]
fn a_list_with_a_plugin_that_needs_a_veth_is_refused_before_anything_is_done() {
    let mut runtime = Runtime::new();
    let directory = runtime.node.directory().join("net.d");
    std::fs::create_dir(&directory).unwrap();
    runtime.conf["confDirs"] = json!([runtime.node.directory().join("nowhere"), directory]);
    let write = |file: &str, network: &str, kind: &str| {
        let list = json!({"cniVersion": "1.1.0", "name": network, "plugins": [{"type": "switch-cni"}, {"type": kind}]});
        std::fs::write(directory.join(file), list.to_string()).unwrap();
    };
    let a = Container::new("a");
    write("10-others.conflist", "others", "firewall");
    std::fs::write(directory.join("11-broken.conflist"), "{").unwrap();
    // Another network of this name, as Debian's podman brings one.
    let theirs = json!({"name": "pods", "plugins": [{"type": "bridge"}, {"type": "firewall"}]});
    std::fs::write(directory.join("12-bridge.conflist"), theirs.to_string()).unwrap();
    runtime.ask("STATUS", "1.1.0", &a, json!({})).ok();
    for (kind, instead) in [("bandwidth", "that capability itself"), ("firewall", "switch-ctl policy")] {
        write("20-pods.conflist", "pods", kind);
        for (verb, code) in [("ADD", 7), ("STATUS", 50)] {
            let said = runtime.ask(verb, "1.1.0", &a, json!({}));
            assert_eq!(said.code(), code, "{:#}", said.json);
            let (text, details) =
                (said.json["msg"].as_str().unwrap(), said.json["details"].as_str().unwrap());
            assert!(text.contains(kind) && text.contains("needs a veth pair"), "{text}");
            assert!(details.contains(instead) && details.contains("20-pods.conflist"), "{details}");
        }
        assert!(!a.has("eth0"));
        // What was attached before somebody wrote that goes all the same.
        runtime.ask("DEL", "1.1.0", &a, json!({})).ok();
        runtime.assert_empty();
    }
    // A runtime that was told of a directory by its environment tells us as well; what the configuration says counts before that.
    write("20-pods.conflist", "pods", "firewall");
    let netns = a.net.path();
    let told = directory.display().to_string();
    let env =
        [("CNI_CONTAINERID", "a"), ("CNI_NETNS", &*netns), ("CNI_IFNAME", "eth0"), ("NETCONFPATH", &*told)];
    let mut silent = runtime.with("1.1.0", json!({}));
    silent.as_object_mut().unwrap().remove("confDirs");
    assert_eq!(runtime.run("ADD", &env, silent.clone()).code(), 7);
    silent["confDirs"] = json!([runtime.node.directory().join("nowhere")]);
    runtime.run("STATUS", &env, silent).ok();
    // Runtimes take the first list of a name; and one that asks for nothing that is not there is as good as any.
    write("15-pods.conflist", "pods", "tuning");
    runtime.ask("STATUS", "1.1.0", &a, json!({})).ok();
    runtime.add(&a);
}

/// DHCP asks by the container's interface: it is there before it has an address, gets one in place, and lets go of it before it goes.
#[test]
fn dhcp_gives_addresses_by_the_interface_that_is_there() {
    let runtime = Runtime::new();
    let directory = runtime.node.directory().to_path_buf();
    let (server, a) = (Container::new("server"), Container::new("a"));
    let by_hand =
        json!({"sourceGuard": false, "ipam": {"type": "static", "addresses": [{"address": "10.78.0.1/24"}]}});
    runtime.ask("ADD", "1.0.0", &server, by_hand.clone()).ok();
    let leases = directory.join("udhcpd.leases");
    let pid = directory.join("udhcpd.pid");
    let conf = format!(
        "interface eth0\nstart 10.78.0.50\nend 10.78.0.50\nlease_file {}\npidfile {}\nmin_lease 60\n\
         option subnet 255.255.255.0\noption router 10.78.0.1\noption lease 600\n",
        leases.display(),
        pid.display()
    );
    std::fs::write(&leases, "").unwrap();
    let file = directory.join("udhcpd.conf");
    std::fs::write(&file, conf).unwrap();
    let _udhcpd = server.net.spawn(&format!("busybox udhcpd -f {}", file.display()));
    let socket = directory.join("dhcp.sock");
    let _asks = runtime.node.net.spawn(&format!("/usr/lib/cni/dhcp daemon -socketpath {}", socket.display()));
    wait_until("the DHCP plugin's daemon listens", LONG, || socket.exists());
    let dhcp = json!({"ipam": {"type": "dhcp", "daemonSocketPath": socket}});
    for driver in ["tap", "xdp"] {
        let mut conf = dhcp.clone();
        conf["driver"] = driver.into();
        let said = runtime.ask("ADD", "1.0.0", &a, conf.clone());
        assert!(said.success, "{driver}: {:#}\n{}", said.json, runtime.daemon.log());
        // There is one address: with the second driver it is free again because it was let go of.
        assert_eq!(said.address(0), "10.78.0.50", "{driver}");
        assert!(a.net.ip("addr show eth0").contains("10.78.0.50/24"));
        assert!(a.net.ip("route show default").contains("via 10.78.0.1"));
        wait_until("they reach each other", LONG, || a.reaches("10.78.0.1") && server.reaches("10.78.0.50"));
        let port =
            runtime.ports().into_iter().find(|port| port.port.labels["cni/container"] == "a").unwrap().port;
        let guard = port.settings.source_guard.clone().unwrap();
        assert_eq!(guard.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.78.0.50/32"]);
        conf["prevResult"] = said.json.clone();
        let checked = runtime.ask("CHECK", "1.0.0", &a, conf.clone());
        assert!(checked.success, "{driver}: {:#}", checked.json);
        for _ in 0..2 {
            runtime.ask("DEL", "1.0.0", &a, conf.clone()).ok();
        }
        assert!(!a.has("eth0"));
    }
    // Nobody answers: ADD fails, and nothing of it stays.
    runtime.ask("DEL", "1.0.0", &server, by_hand).ok();
    let mut conf = dhcp.clone();
    conf["ipam"]["daemonSocketPath"] = json!(directory.join("nobody.sock"));
    assert!(!runtime.ask("ADD", "1.0.0", &a, conf).success);
    assert!(!a.has("eth0"));
    runtime.assert_empty();
}
