//! What the pod of an xdp port sends does not get to the node's own kernel, past the switch, while the port is made, falls, comes back and goes.

use crate::switchd;
use crate::trouble::take_queue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use switch_api::{
    ApiError, ByDevice, ByName, Code, Config, ConfigApplied, ConfigApply, ConfigExport, Done, PodEnd, Port,
    PortKind, PortSettings, PortState, ProbeReply, Request, XdpMode,
};
use switch_lab::node::xdp_port;
use switch_lab::{Daemon, Net, Node, Options, Pod, RawSocket, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// What was on its way is there by then.
const SHORT: Duration = Duration::from_millis(300);
/// How often a pod's cable is made.
const LIVES: u32 = 50;
/// How long its port is there each time.
const FIRST_INSTANTS: Duration = Duration::from_millis(10);
/// Between two packets.
const REST: Duration = Duration::from_micros(20);
/// How often a device is set down and up.
const FALLS: u32 = 5;

/// A pod that sends to all of its network, as soon as it can and as fast as it may, until it is told to end.
struct Loud {
    stop: Sender<()>,
    thread: JoinHandle<()>,
    sent: Arc<AtomicU64>,
}

impl Loud {
    fn start(net: &Net) -> Self {
        let (stop, stopped) = channel::<()>();
        let sent = Arc::new(AtomicU64::new(0));
        let counts = sent.clone();
        let thread = net.inside(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_broadcast(true).unwrap();
            while stopped.try_recv() != Err(TryRecvError::Disconnected) {
                // Until the device is there it fails at once.
                let is_sent = socket.send_to(b"anybody?", "10.66.0.255:7").is_ok();
                counts.fetch_add(u64::from(is_sent), Ordering::Relaxed);
                std::thread::sleep(REST);
            }
        });
        Self { stop, thread, sent }
    }

    /// Ends when it has sent so many, however long that takes beside others. How many it sent.
    fn end_after(self, enough: u64) -> u64 {
        wait_until("it sends", LONG, || self.sent.load(Ordering::Relaxed) > enough);
        drop(self.stop);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends. How many it sent.
    fn end(self) -> u64 {
        drop(self.stop);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

/// What the node's kernel took in of what a pod sent: its program passed it, if there was one.
fn taken_in(node: &RawSocket, pod: &Pod) -> usize {
    let from = pod.mac().0;
    std::iter::from_fn(|| node.recv(SHORT, |frame| frame[6..12] == from)).count()
}

/// A port with a cable that the switch makes.
fn cabled(pod: &Pod) -> Port {
    let mut port = xdp_port("cable1", "br0", PortSettings::default());
    if let PortKind::Xdp { pod: end, .. } = &mut port.kind {
        let address = format!("{}/24", pod.ip).parse().unwrap();
        let (device, netns, mac) = ("eth0".to_owned(), pod.net.path(), Some(pod.mac()));
        *end = Some(Box::new(PodEnd { device, netns, mac, addresses: vec![address], routes: Vec::new() }));
    }
    port
}

fn delete(daemon: &Daemon, name: &str) {
    let _: Done = daemon.call(&Request::PortDelete(ByName { name: name.parse().unwrap() }));
}

fn has_program(net: &Net, device: &str) -> bool {
    net.ip(&format!("link show dev {device}")).contains("xdp")
}

fn pins(node: &Node) -> usize {
    let entries = std::fs::read_dir(node.directory().join("bpf")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("link-")).count()
}

fn falls(daemon: &Daemon, name: &str) {
    wait_until("down", LONG, || daemon.port(name).state == PortState::Down);
}

/// A node with a pod on a port that has fallen: its device is down.
fn fallen(options: &Options) -> (Node, Daemon, Pod) {
    let node = Node::new();
    let daemon = node.start(options);
    daemon.bridge("br0");
    let pod = node.pod(1);
    daemon.attach(&pod, "br0", PortSettings::default());
    node.net.ip("link set pod1 down");
    falls(&daemon, "pod1");
    (node, daemon, pod)
}

/// The pod sends before its cable is made, and until it is gone.
#[test]
fn a_cable_that_the_switch_makes_is_never_bare() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pod = node.bare_pod(1);
    let kernel = RawSocket::everywhere(&node.net).unwrap();
    let mut heard = 0;
    for _ in 0..LIVES {
        let loud = Loud::start(&pod.net);
        let _: Done = daemon.call(&Request::PortAdd(Box::new(cabled(&pod))));
        std::thread::sleep(FIRST_INSTANTS);
        heard += daemon.port("cable1").counters.rx_packets;
        delete(&daemon, "cable1");
        loud.end();
    }
    assert!(heard > u64::from(LIVES), "{heard} packets: it did not send");
    assert_eq!(taken_in(&kernel, &pod), 0, "the node's kernel heard it");
    assert_eq!(pins(&node), 0);
    daemon.assert_conserved();
}

/// Nothing is left of one that cannot be made whole.
#[test]
fn a_cable_whose_route_leads_nowhere_leaves_nothing() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pod = node.bare_pod(1);
    let mut port = cabled(&pod);
    if let PortKind::Xdp { pod: Some(end), .. } = &mut port.kind {
        end.routes = vec![serde_json::from_str(r#"{"to": "0.0.0.0/0", "via": "192.0.2.1"}"#).unwrap()];
    }
    let refused = daemon.client().call::<Done>(&Request::PortAdd(Box::new(port))).unwrap_err();
    assert!(refused.message.contains("route to"), "{refused:?}");
    assert!(!node.net.ip("link show").contains("cable1"), "it is there");
    assert_eq!(pins(&node), 0);
    daemon.assert_conserved();
    let _: Done = daemon.call(&Request::PortAdd(Box::new(cabled(&pod))));
    assert_eq!(daemon.port("cable1").state, PortState::Up);
    daemon.assert_conserved();
}

/// While the first of two pods sends, `happens`: nothing of it gets to the node's kernel.
fn never_bare(happens: impl FnOnce(&Node, &Daemon)) {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&switchd());
    let kernel = RawSocket::everywhere(&node.net).unwrap();
    let loud = Loud::start(&pods[0].net);
    happens(&node, &daemon);
    wait_until("up", LONG, || daemon.port("pod1").state == PortState::Up);
    loud.end_after(1000);
    assert_eq!(taken_in(&kernel, &pods[0]), 0, "the node's kernel heard it");
    // What came meanwhile is told of.
    assert!(daemon.drops_at("pod1", "port-closed") > 0);
    wait_until("ping", LONG, || pods[0].reaches(&pods[1].ip));
    daemon.assert_conserved();
}

#[test]
fn a_port_whose_device_is_set_down_and_up_is_never_bare() {
    never_bare(|node, daemon| {
        for _ in 0..FALLS {
            node.net.ip("link set pod1 down");
            falls(daemon, "pod1");
            node.net.ip("link set pod1 up");
            wait_until("up", LONG, || daemon.port("pod1").state == PortState::Up);
        }
    });
}

/// Of frames of another size: its sockets are made anew.
#[test]
fn a_port_whose_device_gets_another_mtu_is_never_bare() {
    never_bare(|node, daemon| {
        for mtu in [9000, 1500, 9000, 1500] {
            node.net.ip(&format!("link set pod1 mtu {mtu}"));
            wait_until("the MTU is known", LONG, || daemon.port("pod1").mtu == mtu);
        }
    });
}

#[test]
fn the_program_of_a_port_that_is_down_goes_with_it() {
    let (node, daemon, pod) = fallen(&switchd());
    assert!(has_program(&node.net, "pod1"), "a pod that has its device set up again is heard by the node");
    delete(&daemon, "pod1");
    wait_until("it is off", LONG, || !has_program(&node.net, "pod1"));
    assert_eq!(pins(&node), 0);
    // Its device is the node's again, and can be a port again.
    node.net.ip("link set pod1 up");
    daemon.attach(&pod, "br0", PortSettings::default());
    assert_eq!(daemon.port("pod1").state, PortState::Up);
    daemon.assert_conserved();
}

#[test]
fn the_program_of_a_port_that_is_down_goes_with_its_device() {
    let (node, daemon, _pod) = fallen(&switchd());
    let elsewhere = Net::new("elsewhere");
    node.net.ip(&format!("link set pod1 netns {}", elsewhere.name()));
    wait_until("it is off", LONG, || !has_program(&elsewhere, "pod1"));
    assert_eq!(pins(&node), 0);
    elsewhere.ip(&format!("link set pod1 netns {}", node.net.name()));
    node.net.ip("link set pod1 up");
    wait_until("up", LONG, || daemon.port("pod1").state == PortState::Up);
    daemon.assert_conserved();
}

/// Who fell under an earlier daemon is this one's: its program goes with the port.
#[test]
fn the_program_of_a_port_that_fell_before_a_restart_goes_with_it() {
    let options = switchd().keeping_state();
    let (node, mut daemon, _pod) = fallen(&options);
    daemon.kill();
    assert!(has_program(&node.net, "pod1"));
    let daemon = node.start(&options);
    assert_eq!(daemon.port("pod1").state, PortState::Down);
    assert!(has_program(&node.net, "pod1"), "nobody has deleted the port");
    delete(&daemon, "pod1");
    wait_until("it is off", LONG, || !has_program(&node.net, "pod1"));
    assert_eq!(pins(&node), 0);
}

/// Its device is up again, and it cannot be opened: nobody takes the program off, not who would try what the device can do either.
#[test]
fn a_port_that_does_not_come_back_is_never_bare() {
    let (node, daemon, pod) = fallen(&switchd());
    let kernel = RawSocket::everywhere(&node.net).unwrap();
    let taken = take_queue(&node, "pod1");
    node.net.ip("link set pod1 up");
    let why = || daemon.port("pod1").reason.unwrap_or_default();
    wait_until("it is said why", LONG, || why().contains("busy"));
    let loud = Loud::start(&pod.net);
    let probe = Request::PortProbe(ByDevice { device: "pod1".into() });
    let refused = daemon.client().call::<ProbeReply>(&probe).unwrap_err();
    assert_eq!(refused.code, Code::Busy, "{refused:?}");
    std::thread::sleep(SHORT);
    drop(taken);
    wait_until("up", LONG, || daemon.port("pod1").state == PortState::Up);
    loud.end_after(1000);
    assert_eq!(taken_in(&kernel, &pod), 0, "the node's kernel heard it");
    daemon.assert_conserved();
}

/// Of a port that passes what comes while nobody beats nothing is to be kept from the node.
#[test]
fn a_port_that_passes_when_dead_leaves_nothing_when_it_falls() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pod = node.pod(1);
    let mut port = xdp_port(&pod.device, "br0", PortSettings::default());
    if let PortKind::Xdp { when_dead, .. } = &mut port.kind {
        *when_dead = Some(switch_api::WhenDead::Pass);
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    node.net.ip("link set pod1 down");
    falls(&daemon, "pod1");
    wait_until("it is off", LONG, || !has_program(&node.net, "pod1"));
    node.net.ip("link set pod1 up");
    wait_until("up", LONG, || daemon.port("pod1").state == PortState::Up);
    daemon.assert_conserved();
}

/// Makes what is declared this, or is refused.
fn apply(daemon: &Daemon, config: Config) -> Result<ConfigApplied, ApiError> {
    daemon.client().call(&Request::ConfigApply(Box::new(ConfigApply { config, ..ConfigApply::default() })))
}

fn is_first(kind: &PortKind) -> bool {
    matches!(kind, PortKind::Xdp { device, .. } if device == "pod1")
}

/// What is declared, with the first port otherwise: larger rings, by its own name or another's.
fn otherwise(daemon: &Daemon, to: &str, ring: u32) -> Config {
    let mut config: Config = daemon.call(&Request::ConfigExport(ConfigExport::default()));
    let port = config.port.iter_mut().find(|port| is_first(&port.kind)).unwrap();
    port.name = to.parse().unwrap();
    if let PortKind::Xdp { ring_size, .. } = &mut port.kind {
        *ring_size = ring;
    }
    config
}

/// By a file: a port is closed and made anew, by its name, by another and by the first again. What its program dropped meanwhile is the new one's.
#[test]
fn a_port_that_is_replaced_is_never_bare() {
    never_bare(|_, daemon| {
        for (name, ring) in [("pod1", 1024), ("pod1", 2048), ("other", 2048), ("other", 1024), ("pod1", 2048)]
        {
            apply(daemon, otherwise(daemon, name, ring)).unwrap();
            assert_eq!(daemon.port(name).state, PortState::Up);
        }
    });
}

/// The file has another port that cannot be opened so, before the first is touched or after it was replaced: all is as it was.
#[test]
fn a_port_that_was_replaced_in_vain_is_never_bare() {
    never_bare(|_, daemon| {
        let ways = [("pod1", false), ("pod1", true), ("other", true), ("other", false), ("pod1", true)];
        for (name, is_late) in ways.repeat(FALLS as usize) {
            let mut config = otherwise(daemon, name, 1024);
            if is_late {
                let last = config.port.iter_mut().find(|port| port.name.as_str() == "pod2").unwrap();
                if let PortKind::Xdp { mode, .. } = &mut last.kind {
                    // No veth can.
                    *mode = XdpMode::ZeroCopy;
                }
            } else {
                config.port.push(xdp_port("pod2too", "br0", PortSettings::default()));
            }
            let refused = apply(daemon, config).unwrap_err();
            assert!(refused.message.contains("pod2"), "{refused:?}");
            assert_eq!(daemon.port("pod1").state, PortState::Up);
        }
    });
}

/// By one file a port goes, and its number is the other's who stays: whose program is whose is known by devices.
#[test]
fn a_port_that_gets_the_number_of_one_that_goes_is_never_bare() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let (goes, stays) = (node.pod(2), node.pod(1));
    // The lowest number is that of the one that goes.
    for pod in [&goes, &stays] {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    let kernel = RawSocket::everywhere(&node.net).unwrap();
    let loud = Loud::start(&stays.net);
    let mut config = otherwise(&daemon, "pod1", 1024);
    config.port.retain(|port| port.name.as_str() == "pod1");
    apply(&daemon, config).unwrap();
    assert_eq!(daemon.port("pod1").state, PortState::Up);
    std::thread::sleep(SHORT);
    let sent = loud.end();
    assert_eq!(taken_in(&kernel, &stays), 0, "the node's kernel heard it");
    let told = daemon.drops_at("pod1", "port-closed");
    assert!(told <= sent, "{told} of {sent}");
    assert_eq!(pins(&node), 1);
    daemon.assert_conserved();
}
