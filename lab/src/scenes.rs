//! What several files of tests begin with: pods with labels and the node, bridges with gateways, and who hears whom.

use crate::node::tap_port;
use crate::{Daemon, Net, Node, Options, Pod, bind_udp, uninterrupted, wait_until};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use switch_api::{Done, IpProtocol, PolicyAnswer, PolicyExplain, Port, PortSettings, Request, Workload};

const LONG: Duration = Duration::from_secs(60);
/// How long a receiver listens for one datagram more, when all are sent.
const SILENCE: Duration = Duration::from_millis(300);
/// Sent each time.
const DATAGRAMS: usize = 10;

/// A tap port on `br0` for a workload of the namespace `shop` with the label `app`.
pub fn labelled(pod: &Pod, app: &str) -> Port {
    let workload = Workload {
        namespace: "shop".into(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        ports: vec![],
        addresses: vec![],
    };
    Port { workload: Some(workload), ..tap_port(pod, "br0", PortSettings::default()) }
}

/// A node at 10.66.0.9 with three such pods: 10.66.0.1 is `db`, 2 `web`, 3 `other`.
pub fn shop(options: &Options) -> (Node, Daemon, Vec<Pod>) {
    let node = Node::new();
    let daemon = node.start(options);
    daemon.bridge("br0");
    daemon.attach_host(9, "br0");
    let pods: Vec<_> = (1..=3).map(|n| node.bare_pod(n)).collect();
    for (pod, app) in pods.iter().zip(["db", "web", "other"]) {
        let _: Done = daemon.call(&Request::PortAdd(Box::new(labelled(pod, app))));
    }
    for pod in &pods {
        wait_until("pods and node reach each other", LONG, || pod.reaches("10.66.0.9"));
    }
    (node, daemon, pods)
}

/// What policies and access control lists say of a first UDP packet from one end to another, each a port or an address. Panics if they are not
/// asked.
pub fn explain(daemon: &Daemon, from: &str, to: &str, udp: u16) -> PolicyAnswer {
    let end = |text: &str| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    daemon.call(&Request::PolicyExplain(PolicyExplain {
        from: end(from),
        to: end(to),
        protocol: Some(IpProtocol::UDP),
        port: Some(udp),
        source_port: None,
        icmp: None,
    }))
}

/// Of ten UDP datagrams to a port, one way: how many a receiver there sees.
pub fn datagrams(from: &Net, to: &Net, address: &str, port: u16) -> usize {
    let (bind, target) = (format!("{address}:{port}"), format!("{address}:{port}"));
    let are_sent = Arc::new(AtomicBool::new(false));
    let were_sent = are_sent.clone();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let receiver = to.inside(move || {
        let socket = bind_udp(bind);
        socket.set_read_timeout(Some(SILENCE)).unwrap_or_else(|error| panic!("{error}"));
        _ = ready.send(());
        let (mut buffer, mut came) = ([0; 64], 0);
        loop {
            // A silence counts that began when all were sent, however long that took.
            let is_last = were_sent.load(Ordering::Acquire);
            match uninterrupted(|| socket.recv(&mut buffer)) {
                Ok(_) => came += 1,
                Err(_) if is_last => return came,
                Err(_) => {}
            }
        }
    });
    is_ready.recv().unwrap_or_else(|_| panic!("the receiver does not listen"));
    let sender = from.inside(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap_or_else(|error| panic!("{error}"));
        (0..DATAGRAMS).for_each(|_| _ = socket.send_to(b"hello", &target));
    });
    let sent = sender.join();
    are_sent.store(true, Ordering::Release);
    sent.unwrap_or_else(|_| panic!("the sender panicked"));
    receiver.join().unwrap_or_else(|_| panic!("the receiver panicked"))
}

/// A daemon with a bridge for each of `nets`, its gateways, and a pod on each; with two workers, on each in turn.
pub fn routed(options: &Options, nets: &[u8]) -> (Node, Daemon, Vec<Pod>) {
    let node = Node::new();
    let daemon = node.start(options);
    let mut pods = Vec::new();
    for (n, net) in nets.iter().enumerate() {
        let bridge = format!("br{net}");
        daemon.bridge(&bridge);
        daemon.gateway(&bridge, &format!("10.{net}.0.1/24"));
        daemon.gateway(&bridge, &format!("fd10:{net}::1/64"));
        let pod = node.pod_on(*net, 2);
        let worker = options.words.iter().any(|word| word == "0,1").then_some(n as u16 % 2);
        daemon.attach(&pod, &bridge, PortSettings { worker, ..PortSettings::default() });
        pods.push(pod);
    }
    (node, daemon, pods)
}
