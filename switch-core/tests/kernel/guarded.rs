//! What the pod of an xdp port sends does not get to the node's own kernel, past the switch, while the port is made and goes.

use crate::switchd;
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use switch_api::{ByName, Done, PodEnd, Port, PortKind, PortSettings, PortState, Request};
use switch_lab::node::xdp_port;
use switch_lab::{Daemon, Net, Node, Pod, RawSocket};

/// What was on its way is there by then.
const SHORT: Duration = Duration::from_millis(300);
/// How often a pod's cable is made.
const LIVES: u32 = 50;
/// How long its port is there each time.
const FIRST_INSTANTS: Duration = Duration::from_millis(10);
/// Between two packets.
const REST: Duration = Duration::from_micros(20);

/// A pod that sends to all of its network, as soon as it can and as fast as it may, until it is told to end.
struct Loud((Sender<()>, JoinHandle<u64>));

impl Loud {
    fn start(net: &Net) -> Self {
        let (stop, stopped) = channel::<()>();
        let thread = net.inside(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_broadcast(true).unwrap();
            let mut sent = 0;
            while stopped.try_recv() != Err(TryRecvError::Disconnected) {
                // Until the device is there it fails at once.
                sent += u64::from(socket.send_to(b"anybody?", "10.66.0.255:7").is_ok());
                std::thread::sleep(REST);
            }
            sent
        });
        Self((stop, thread))
    }

    /// How many it sent.
    fn end(self) -> u64 {
        let (stop, thread) = self.0;
        drop(stop);
        thread.join().unwrap()
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

fn pins(node: &Node) -> usize {
    let entries = std::fs::read_dir(node.directory().join("bpf")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("link-")).count()
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
