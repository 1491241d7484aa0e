//! A port's device is made in the namespace that its path led to first, and in no other: a path by way of `/proc/PID` leads to another pod,
//! or to the node itself, once the kernel has given the number to another process. A link stands for such a path here.

use crate::switchd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use switch_api::{ByName, Code, Done, PodEnd, Port, PortKind, PortSettings, PortState, Request};
use switch_lab::node::tap_port;
use switch_lab::{Daemon, Node, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// A port that is down is opened again every two seconds at first.
const SOME_ATTEMPTS: Duration = Duration::from_secs(5);

/// A path that leads where it is told to.
struct Way(PathBuf);

impl Way {
    fn new(node: &Node, to: &str) -> Self {
        let way = Self(node.directory().join("way"));
        way.lead(to);
        way
    }

    fn lead(&self, to: &str) {
        let next = self.0.with_extension("next");
        std::os::unix::fs::symlink(Path::new(to), &next).unwrap();
        std::fs::rename(next, &self.0).unwrap();
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

/// A port of each kind whose device is in a pod, by that way.
fn ports(pod: &Pod, way: &Way) -> [Port; 2] {
    let mut tap = tap_port(pod, "br0", PortSettings::default());
    let PortKind::Tap { netns, addresses, mac, .. } = &mut tap.kind else { unreachable!() };
    *netns = Some(way.path());
    let (addresses, mac) = (addresses.clone(), *mac);
    let end = PodEnd { device: "eth0".into(), netns: way.path(), mac, addresses, routes: Vec::new() };
    let cable = Port { kind: PortKind::xdp_pod("way1", end), ..tap.clone() };
    [tap, cable]
}

fn has_device(pod: &Pod) -> bool {
    pod.net.try_run("ip link show eth0").status.success()
}

fn is(daemon: &Daemon, state: PortState) -> bool {
    daemon.port("tap1").state == state
}

fn why(daemon: &Daemon) -> String {
    daemon.port("tap1").reason.unwrap_or_default()
}

#[test]
fn a_device_is_not_made_again_in_another_namespace() {
    let node = Node::new();
    let (pod, other) = (node.bare_pod(1), node.bare_pod(2));
    let way = Way::new(&node, &pod.net.path());
    for port in ports(&pod, &way) {
        let options = switchd().keeping_state();
        let mut daemon = node.start(&options);
        daemon.bridge("br0");
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port.clone())));
        let [others, nodes] = [&other.net, &node.net].map(|net| net.path());
        for (to, word) in [(&others, "delete the port and add it again"), (&nodes, "the daemon's own")] {
            way.lead(to);
            // Who deletes a pod takes its devices along.
            _ = pod.net.try_run("ip link del eth0");
            wait_until("down", LONG, || is(&daemon, PortState::Down));
            std::thread::sleep(SOME_ATTEMPTS);
            assert!(!has_device(&other), "a device was made in another pod");
            assert!(!node.net.try_run("ip link show eth0").status.success(), "a device was made in the node");
            wait_until("it is said why", LONG, || why(&daemon).contains(word));
            // Nor by the next daemon, which knows it from its state.
            daemon.kill();
            daemon = node.start(&options);
            assert!(!has_device(&other), "the next daemon made a device in another pod");
            assert!(is(&daemon, PortState::Down) && why(&daemon).contains(word), "{}", why(&daemon));
        }
        // It is found again where it was.
        way.lead(&pod.net.path());
        wait_until("up", LONG, || is(&daemon, PortState::Up));
        assert!(has_device(&pod));
        daemon.assert_conserved();
        daemon.stop(true);
        _ = std::fs::remove_file(node.directory().join("state"));
    }
}

/// Its MAC address follows from the pod's IPv4 address, which the next pod may have: that one's device is nobody's to remove.
#[test]
fn a_device_in_another_namespace_does_not_go_with_a_port() {
    let node = Node::new();
    let (pod, other) = (node.bare_pod(1), node.bare_pod(2));
    let way = Way::new(&node, &pod.net.path());
    let [tap, _] = ports(&pod, &way);
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let _: Done = daemon.call(&Request::PortAdd(Box::new(tap)));
    other.net.ip("tuntap add eth0 mode tap vnet_hdr");
    other.net.ip(&format!("link set eth0 address {}", pod.mac()));
    way.lead(&other.net.path());
    wait_until("down", LONG, || is(&daemon, PortState::Down));
    std::thread::sleep(SOME_ATTEMPTS);
    let _: Done = daemon.call(&Request::PortDelete(ByName { name: "tap1".parse().unwrap() }));
    assert!(has_device(&other), "the device of another pod was removed");
    daemon.assert_conserved();
}

#[test]
fn a_namespace_that_is_asked_for_is_not_the_daemons_own() {
    let node = Node::new();
    let pod = node.bare_pod(1);
    let way = Way::new(&node, &node.net.path());
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    for mut port in ports(&pod, &way) {
        for path in [way.path(), "/proc/self/ns/net".into(), format!("/proc/{}/ns/net", daemon.pid())] {
            match &mut port.kind {
                PortKind::Tap { netns, .. } => *netns = Some(path.clone()),
                PortKind::Xdp { pod: Some(end), .. } => end.netns = path.clone(),
                _ => unreachable!(),
            }
            let refused =
                daemon.client().call::<Done>(&Request::PortAdd(Box::new(port.clone()))).unwrap_err();
            assert_eq!((refused.code, refused.data.field.as_deref()), (Code::InvalidParams, Some("netns")));
            assert!(refused.message.contains("the daemon's own"), "{path}: {refused:?}");
            for device in ["eth0", "way1"] {
                let shown = node.net.try_run(&format!("ip link show {device}"));
                assert!(!shown.status.success(), "a device stayed");
            }
        }
    }
    daemon.assert_conserved();
}

/// For want of memory, say. A pair that comes and goes is news of devices, on which ports that are down are tried again: this one among them.
#[test]
fn a_cable_that_finds_no_room_is_not_made_over_and_over() {
    let node = Node::new();
    let options = switchd().keeping_state();
    let mut daemon = node.start(&options);
    daemon.bridge("br0");
    let pods: Vec<_> = (2..=9).map(|n| node.pod(n)).collect();
    pods.iter().for_each(|pod| daemon.attach(pod, "br0", PortSettings::default()));
    let pod = node.bare_pod(1);
    let way = Way::new(&node, &pod.net.path());
    let [_, cable] = ports(&pod, &way);
    let _: Done = daemon.call(&Request::PortAdd(Box::new(cable)));
    daemon.kill();
    // Room for some of the ports before it.
    let daemon = node.start(&options.with("--memory 12M --flows 1024"));
    assert!(why(&daemon).contains("are in use"), "{}", why(&daemon));
    node.net.ip("link del way1");
    // Devices are numbered as they are made, of a pair the peer first.
    let number = |name: &str| {
        node.net.ip(&format!("link add {name} type veth peer name {name}-peer"));
        let shown = node.net.ip(&format!("-o link show {name}"));
        shown.split(':').next().unwrap().parse::<u32>().unwrap()
    };
    let before = number("before");
    std::thread::sleep(SOME_ATTEMPTS);
    let made = number("after") - before - 2;
    assert!(made <= 5, "{made} devices were made in {SOME_ATTEMPTS:?}");
    for pod in &pods {
        let _: Done = daemon.call(&Request::PortDelete(ByName { name: pod.device.parse().unwrap() }));
    }
    wait_until("there is room, and it is up", LONG, || is(&daemon, PortState::Up));
    daemon.assert_conserved();
}
