//! Programs that outlive their ports: whose they are is found out at the start, and those of nobody are taken off.

use crate::switchd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use switch_api::{ByName, Done, PortSettings, PortState, Request};
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn xdp_program(node: &Node, device: &str) -> bool {
    node.net.ip(&format!("link show dev {device}")).contains("xdp")
}

/// Devices whose programs are pinned, as the names of the pins say.
fn pins(node: &Node) -> Vec<String> {
    let entries = std::fs::read_dir(node.directory().join("bpf")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let device = |name: String| name.strip_prefix("link-")?.rsplit_once('-').map(|it| it.0.to_owned());
    let mut devices: Vec<_> = names.filter_map(device).collect();
    devices.sort();
    devices
}

fn keeping(node: &Node, file: &str) -> (Options, PathBuf) {
    let path = node.directory().join(file);
    (switchd().with(&format!("--state {}", path.display())), path)
}

fn delete(daemon: &Daemon, pod: &Pod) {
    let name = pod.device.parse().unwrap();
    let _: Done = daemon.call(&Request::PortDelete(ByName { name }));
}

/// What the daemon has said since it was started; the file is that of all of a node's.
fn said(daemon: &Daemon) -> String {
    daemon.log().rsplit("serving").nth(1).unwrap_or_default().to_owned()
}

/// A node whose daemon was killed when the first of its pods was kept, and the second one was not yet.
fn killed_over_its_second_port(node: &Node, options: &Options, state: &Path) -> [Pod; 2] {
    let pods = [node.pod(1), node.pod(2)];
    let mut daemon = node.start(options);
    daemon.bridge("br0");
    daemon.attach(&pods[0], "br0", PortSettings::default());
    daemon.kill();
    let kept = std::fs::read(state).unwrap();
    let mut daemon = node.start(options);
    daemon.attach(&pods[1], "br0", PortSettings::default());
    daemon.kill();
    std::fs::write(state, kept).unwrap();
    assert_eq!(pins(node), ["pod1", "pod2"]);
    pods
}

#[test]
fn a_program_whose_port_was_never_kept_is_taken_off_at_the_next_start() {
    let node = Node::new();
    let (options, state) = keeping(&node, "state");
    let pods = killed_over_its_second_port(&node, &options, &state);
    let daemon = node.start(&options);
    assert_eq!(pins(&node), ["pod1"], "{}", said(&daemon));
    assert!(!xdp_program(&node, "pod2"), "it drops what comes, for nobody");
    assert!(said(&daemon).contains("device=\"pod2\""), "{}", said(&daemon));
    assert!(!said(&daemon).contains("device=\"pod1\""), "{}", said(&daemon));
    let port = daemon.port("pod1");
    assert!(port.state == PortState::Up && xdp_program(&node, "pod1"), "{port:?}");
    // It can be a port again, and both serve.
    daemon.attach(&pods[1], "br0", PortSettings::default());
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}

/// A device that is gone for a moment has its port all the same.
#[test]
fn a_program_whose_port_is_down_stays() {
    let node = Node::new();
    let (mut daemon, pods) = node.two_pods(&switchd().keeping_state());
    daemon.kill();
    node.net.ip("link set pod2 down");
    let daemon = node.start(&switchd().keeping_state());
    assert_eq!(daemon.port("pod2").state, PortState::Down);
    assert!(pins(&node) == ["pod1", "pod2"] && xdp_program(&node, "pod2"), "it would pass unguarded");
    node.net.ip("link set pod2 up");
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
}

/// Programs of ports that somebody else has written down, or nobody, are told of and left alone: they guard pods.
#[test]
fn programs_of_ports_that_a_daemon_cannot_know_are_left_alone() {
    let node = Node::new();
    let (options, state) = keeping(&node, "state");
    let pods = killed_over_its_second_port(&node, &options, &state);
    // It keeps nothing; it was started with another state, a new one and then one that was there before.
    let (other, _) = keeping(&node, "other");
    for options in [&switchd(), &other, &other] {
        let mut daemon = node.start(options);
        assert_eq!(pins(&node), ["pod1", "pod2"], "{}", said(&daemon));
        assert!(pods.iter().all(|pod| xdp_program(&node, &pod.device)));
        let left = |device: &str| {
            said(&daemon).lines().any(|line| line.contains("WARN") && line.contains(&format!("{device:?}")))
        };
        assert!(left("pod1") && left("pod2"), "{}", said(&daemon));
        daemon.kill();
    }
    // Since then they may be anybody's, also for the first one.
    let mut daemon = node.start(&options);
    assert_eq!(pins(&node), ["pod1", "pod2"], "{}", said(&daemon));
    // Whoever adds a port has its program, and takes it off with it; then all that is left is its own.
    daemon.attach(&pods[1], "br0", PortSettings::default());
    delete(&daemon, &pods[1]);
    assert!(pins(&node) == ["pod1"] && !xdp_program(&node, "pod2"));
    daemon.kill();
    let mut daemon = node.start(&options);
    daemon.kill();
    killed_with_one_more(&node, &options, &state, &pods[1]);
    let daemon = node.start(&options);
    assert_eq!(pins(&node), ["pod1"], "{}", said(&daemon));
}

fn killed_with_one_more(node: &Node, options: &Options, state: &Path, pod: &Pod) {
    let kept = std::fs::read(state).unwrap();
    let mut daemon = node.start(options);
    daemon.attach(pod, "br0", PortSettings::default());
    daemon.kill();
    std::fs::write(state, kept).unwrap();
}

/// Two daemons with sockets in one folder pin in one: neither knows the other's ports.
#[test]
fn a_daemon_that_is_not_alone_in_its_folder_leaves_the_others_programs_alone() {
    let node = Node::new();
    let (options, state) = keeping(&node, "state");
    let pods = killed_over_its_second_port(&node, &options, &state);
    let beside = node.start_at("beside.sock", &switchd());
    let daemon = node.start(&options);
    assert_eq!(pins(&node), ["pod1", "pod2"], "{}", said(&daemon));
    drop((daemon, beside, pods));
}

/// A folder on a bpffs takes no name with a dot in it (kernel/bpf/inode.c), and VLAN devices have one.
#[test]
fn a_device_with_a_dot_in_its_name_is_a_port_that_survives_its_daemon() {
    let node = Node::new();
    let (options, state) = keeping(&node, "state");
    let pods = [node.pod(1), node.pod(2)];
    let mut daemon = node.start(&options);
    daemon.bridge("br0");
    for pod in &pods {
        let (device, peer) = (&pod.device, pod.net.name());
        node.net.ip(&format!("link del {device}"));
        let mac = pod.mac();
        node.net.ip(&format!("link add {device}.7 type veth peer name eth0 address {mac} netns {peer}"));
        node.net.ip(&format!("link set {device}.7 up"));
        pod.net.ip("link set eth0 up");
        pod.net.ip(&format!("addr add {}/24 dev eth0", pod.ip));
    }
    let attach = |daemon: &Daemon, n: u8| {
        let mut port =
            switch_lab::node::xdp_port(&format!("pod{n}.7"), "br0", switch_api::PortSettings::default());
        port.name = format!("pod{n}").parse().unwrap();
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    };
    (1..=2).for_each(|n| attach(&daemon, n));
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.kill();
    assert!(xdp_program(&node, "pod1.7"), "the pinned program vanished with the process");
    let mut daemon = node.start(&options);
    assert!(!said(&daemon).contains("device=\"pod1"), "its own are known: {}", said(&daemon));
    wait_until("ping after a restart", LONG, || pods[0].reaches("10.66.0.2"));
    delete(&daemon, &pods[1]);
    assert!(!xdp_program(&node, "pod2.7") && pins(&node).len() == 1, "{:?}", pins(&node));
    // One of nobody is known by its name.
    let kept = std::fs::read(&state).unwrap();
    attach(&daemon, 2);
    daemon.kill();
    std::fs::write(&state, kept).unwrap();
    let daemon = node.start(&options);
    assert!(
        !xdp_program(&node, "pod2.7") && said(&daemon).contains("device=\"pod2.7\""),
        "{}",
        said(&daemon)
    );
}
