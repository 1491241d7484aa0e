//! Rate limits between real kernels: what a pod sends and is sent, datagrams and TCP, is held to what its port may.

use crate::switchd;
use std::net::{IpAddr, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use switch_api::{Done, Limit, PortKind, PortLimits, PortSet, PortSettings, Request};
use switch_lab::node::tap_port;
use switch_lab::transfer::tcp;
use switch_lab::{Daemon, Node, Pod, bind_udp, wait_until};

const LONG: Duration = Duration::from_secs(5);
const PORT: u16 = 7002;
/// A datagram's payload, and what it is on the wire.
const PAYLOAD: usize = 1000;
const FRAME: f64 = (14 + 20 + 8 + PAYLOAD) as f64;
/// Of a TCP segment on the wire, so much is the stream's.
const SEGMENT: f64 = 1448.0 / 1514.0;
/// Longer than a burst lasts when more comes than may: it is behind before anything is counted.
const BEGIN: Duration = Duration::from_millis(400);
const COUNTED: Duration = Duration::from_millis(1500);
/// A burst that nobody named, in seconds of its rate.
const BURST_S: f64 = switch_api::limit::BURST_MS as f64 / 1000.0;

fn limit(per_s: u64) -> Option<Limit> {
    Some(Limit { per_s, burst: None })
}

fn limited(limits: PortLimits) -> PortSettings {
    PortSettings { limits, ..PortSettings::default() }
}

fn address(pod: &Pod) -> IpAddr {
    IpAddr::from([10, 66, 0, pod.number()])
}

/// Each of `senders` sends 20 datagrams a millisecond from one address to another, a pod's all; how many a second get there.
fn flood(senders: &[(&Pod, IpAddr, IpAddr)], to: &Pod) -> f64 {
    let (ready, is_ready) = mpsc::channel();
    let server = to.net.inside(move || {
        let socket = bind_udp(("0.0.0.0", PORT));
        socket.set_read_timeout(Some(LONG)).unwrap();
        ready.send(()).unwrap();
        let (mut buffer, mut datagrams) = ([0; 2000], 0u64);
        socket.recv_from(&mut buffer).unwrap();
        let start = Instant::now();
        while start.elapsed() < BEGIN + COUNTED {
            let (len, _) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(len, PAYLOAD);
            datagrams += u64::from(start.elapsed() > BEGIN);
        }
        datagrams as f64 / (start.elapsed() - BEGIN).as_secs_f64()
    });
    is_ready.recv().unwrap();
    let send = |&(pod, from, to): &(&Pod, IpAddr, IpAddr)| {
        pod.net.inside(move || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            let start = Instant::now();
            while start.elapsed() < BEGIN + COUNTED + BEGIN {
                // A full queue of the pod's own device is part of it.
                (0..20).for_each(|_| drop(socket.send_to(&[0; PAYLOAD], (to, PORT))));
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let senders: Vec<_> = senders.iter().map(send).collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    server.join().unwrap()
}

fn near(is: f64, due: f64, what: &str) {
    assert!((0.9..1.1).contains(&(is / due)), "{what}: {is} a second where {due} are allowed");
}

/// The first of two pods may send 2 MB a second and be sent 4.
fn holds_both_ways(pod: fn(&Node, u8) -> Pod, attach: fn(&Daemon, &Pod, &str, PortSettings)) {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let limits =
        PortLimits { rx_bytes: limit(2_000_000), tx_bytes: limit(4_000_000), ..PortLimits::default() };
    let pods = [pod(&node, 1), pod(&node, 2)];
    attach(&daemon, &pods[0], "br0", limited(limits));
    attach(&daemon, &pods[1], "br0", PortSettings::default());
    wait_until("the pods", LONG, || pods[0].reaches("10.66.0.2"));
    let status = daemon.port(&pods[0].device);
    assert_eq!(status.port.settings.limits, limits);
    let [one, other] = [&pods[0], &pods[1]].map(address);

    let sends = flood(&[(&pods[0], one, other)], &pods[1]) * FRAME;
    near(sends, 2_000_000.0, "datagrams sent");
    assert!(daemon.drops("rate-limited-rx") > 0 && daemon.drops("rate-limited-tx") == 0);
    let is_sent = flood(&[(&pods[1], other, one)], &pods[0]) * FRAME;
    near(is_sent, 4_000_000.0, "datagrams received");
    assert!(daemon.drops("rate-limited-tx") > 0);

    // TCP finds its rate by losing packets: what is above the limit is dropped and not delayed.
    for (from, to, address, per_s) in [(0, 1, other, 2_000_000.0), (1, 0, one, 4_000_000.0)] {
        // The burst comes back.
        std::thread::sleep(BEGIN);
        let (bytes, start) = ((3.0 * per_s) as usize, Instant::now());
        assert_eq!(tcp(&pods[from].net, &pods[to].net, address, bytes), bytes);
        let (on_wire, due) = (bytes as f64 / SEGMENT, per_s * start.elapsed().as_secs_f64());
        println!(
            "TCP: {:.3} of its rate, {:.3} without the burst",
            on_wire / due,
            (on_wire - BURST_S * per_s) / due
        );
        assert!(on_wire > 0.9 * due, "TCP got {on_wire} bytes through where {due} were due");
        let sustained = on_wire - BURST_S * per_s;
        assert!(
            sustained < 1.1 * due,
            "TCP got {sustained} bytes through beside the burst where {due} were due"
        );
    }

    let set = PortSet { name: status.port.name, settings: PortSettings::default() };
    let _: Done = daemon.call(&Request::PortSet(set));
    let free = flood(&[(&pods[0], one, other)], &pods[1]) * FRAME;
    assert!(free > 5_000_000.0, "{free} after the limit was taken away");
    daemon.assert_conserved();
}

#[test]
fn a_port_is_held_to_its_rate() {
    holds_both_ways(Node::bare_pod, Daemon::attach_tap);
}

#[test]
fn an_xdp_port_is_held_to_its_rate() {
    holds_both_ways(Node::pod, Daemon::attach);
}

/// Two workers: a port of one queue has its limit whoever sends to it; one of two queues has it as a whole, a part of it
/// for each.
#[test]
fn workers_share_a_limit() {
    const PPS: f64 = 4000.0;
    let node = Node::new();
    let daemon = node.start(&switchd().with("--cores 0,1"));
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2), node.bare_pod(3)];
    let limits = PortLimits { rx_packets: limit(4000), tx_packets: limit(4000), ..PortLimits::default() };
    for (pod, worker) in pods.iter().zip([0, 1, 0]) {
        let settings = PortSettings { worker: Some(worker), ..PortSettings::default() };
        daemon.attach_tap(pod, "br0", settings);
    }
    let [one, two, three] = [&pods[0], &pods[1], &pods[2]].map(address);
    wait_until("the pods", LONG, || pods[0].reaches("10.66.0.2") && pods[2].reaches("10.66.0.2"));
    let held = PortSettings { worker: Some(1), ..limited(limits) };
    let set = PortSet { name: daemon.port(&pods[1].device).port.name, settings: held };
    let _: Done = daemon.call(&Request::PortSet(set));
    // By its own worker and by the other.
    let by_both = flood(&[(&pods[0], one, two), (&pods[2], three, two)], &pods[1]);
    near(by_both, PPS, "to a port of one queue");

    let wide = node.bare_pod(4);
    let mut port = tap_port(&wide, "br0", limited(limits));
    if let PortKind::Tap { queues, .. } = &mut port.kind {
        *queues = 2;
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    wait_until("the wide pod", LONG, || wide.reaches("10.66.0.1"));
    let mut workers = daemon.port(&wide.device).workers;
    workers.sort_unstable();
    assert_eq!(workers, [0, 1]);
    // Its queues are chosen by addresses: eight pairs of them use both.
    let addresses: Vec<_> = (40..48).map(|n| IpAddr::from([10, 66, 0, n])).collect();
    addresses.iter().for_each(|address| drop(wide.net.ip(&format!("addr add {address}/24 dev eth0"))));
    let senders: Vec<_> = addresses.iter().map(|address| (&wide, *address, one)).collect();
    let by_both = flood(&senders, &pods[0]);
    near(by_both, PPS, "by both queues");
    // One pair of addresses has one queue, and with it half.
    let by_one = flood(&senders[..1], &pods[0]);
    near(by_one, PPS / 2.0, "by one queue");
    daemon.assert_conserved();
}
