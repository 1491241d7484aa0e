//! Rate limits between real kernels: what a pod sends and is sent, datagrams and TCP, is held to what its port may.

use crate::switchd;
use std::io::Write;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use switch_api::{Done, Limit, PortKind, PortLimits, PortSet, PortSettings, Request};
use switch_lab::node::tap_port;
use switch_lab::transfer::tcp;
use switch_lab::{Daemon, Node, Pod, bind_udp, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// Longer than a connection takes that may be.
const SHORT: Duration = Duration::from_millis(800);
const PORT: u16 = 7002;
/// A datagram's payload, and what it is on the wire.
const PAYLOAD: usize = 1000;
const FRAME: f64 = (14 + 20 + 8 + PAYLOAD) as f64;
/// Of a TCP segment on the wire, so much is the stream's.
const SEGMENT: f64 = 1448.0 / 1514.0;
/// Longer than a burst lasts when more comes than may: it is behind before anything is counted.
const BEGIN: Duration = Duration::from_millis(400);
const COUNTED: Duration = Duration::from_millis(1500);
/// What is less than its rate is measured so often: a switch that has no core for a while takes in less.
const ATTEMPTS: u32 = 8;
/// Beside what is sent a device gets a little of what kernels say by themselves.
const STRAY: f64 = 1.02;
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

/// What came to a device.
struct Counted {
    frames: f64,
    /// In no less than so many seconds, and in no more: to look takes a while where others want the core.
    seconds: [f64; 2],
}

/// Each of `senders` sends 20 datagrams a millisecond from one address to another, a pod's all. What gets to its device is counted there,
/// whoever has the time to take it.
fn flood(senders: &[(&Pod, IpAddr, IpAddr)], to: &Pod) -> Counted {
    // Or its kernel would answer each that nobody listens.
    let listens = to.net.inside(|| bind_udp(("0.0.0.0", PORT))).join().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let send = |&(pod, from, to): &(&Pod, IpAddr, IpAddr)| {
        let over = is_over.clone();
        pod.net.inside(move || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            while !over.load(Ordering::Relaxed) {
                // A full queue of the pod's own device is part of it.
                (0..20).for_each(|_| drop(socket.send_to(&[0; PAYLOAD], (to, PORT))));
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let frames = || to.received().unwrap().0;
    let none = frames();
    let senders: Vec<_> = senders.iter().map(send).collect();
    wait_until("they send", LONG, || frames() > none + 20);
    std::thread::sleep(BEGIN);
    let looked = || {
        let (begun, frames) = (Instant::now(), frames());
        (begun, frames, Instant::now())
    };
    let first = looked();
    std::thread::sleep(COUNTED);
    let last = looked();
    is_over.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    drop(listens);
    let seconds = [last.0 - first.2, last.2 - first.0].map(|it| it.as_secs_f64());
    Counted { frames: (last.1 - first.1) as f64, seconds }
}

/// So many frames a second get through, and `drop` has the rest: never more than a rate and its burst allow; and no less, if the machine has a moment
/// for us. Without that it may happen to carry just so many.
fn is_held(daemon: &Daemon, drop: &str, per_s: f64, what: &str, flood: impl Fn() -> Counted) {
    let part = || {
        let counted = flood();
        let most = STRAY * per_s * (counted.seconds[1] + BURST_S);
        assert!(counted.frames <= most, "{what}: {} frames where {most} are allowed", counted.frames);
        counted.frames / counted.seconds[0] / per_s
    };
    let mut parts = Vec::new();
    let is_due = (0..ATTEMPTS).any(|_| {
        let before = daemon.drops(drop);
        parts.push(part());
        daemon.drops(drop) > before && parts.last().is_some_and(|part| (0.9..1.1).contains(part))
    });
    assert!(is_due, "{what}: of {per_s} a second these parts: {parts:?}");
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

    let [sends, is_sent] = [2_000_000.0 / FRAME, 4_000_000.0 / FRAME];
    let [out, back] = [[(&pods[0], one, other)], [(&pods[1], other, one)]];
    is_held(&daemon, "rate-limited-rx", sends, "datagrams sent", || flood(&out, &pods[1]));
    assert_eq!(daemon.drops("rate-limited-tx"), 0);
    is_held(&daemon, "rate-limited-tx", is_sent, "datagrams received", || flood(&back, &pods[0]));

    // TCP finds its rate by losing packets: what is above the limit is dropped and not delayed. A connection may have to wait for its own
    // timers after that, and takes twice as long; one that does not shows what there is to have. Never more, each time.
    for (from, to, address, per_s) in [(0, 1, other, 2_000_000.0), (1, 0, one, 4_000_000.0)] {
        let part = |_| {
            // The burst comes back.
            std::thread::sleep(BEGIN);
            let (bytes, start) = ((3.0 * per_s) as usize, Instant::now());
            assert_eq!(tcp(&pods[from].net, &pods[to].net, address, bytes), bytes);
            let (on_wire, due) = (bytes as f64 / SEGMENT, per_s * start.elapsed().as_secs_f64());
            let sustained = on_wire - BURST_S * per_s;
            println!("TCP: {:.3} of its rate, {:.3} without the burst", on_wire / due, sustained / due);
            assert!(
                sustained < 1.1 * due,
                "TCP got {sustained} bytes through beside the burst where {due} were due"
            );
            on_wire / due
        };
        assert!((0..ATTEMPTS).map(part).any(|part| part > 0.9), "TCP never gets {per_s} bytes a second");
    }

    let set = PortSet { name: status.port.name, settings: PortSettings::default() };
    let _: Done = daemon.call(&Request::PortSet(set));
    let free = |_| {
        let counted = flood(&[(&pods[0], one, other)], &pods[1]);
        counted.frames * FRAME / counted.seconds[0]
    };
    let most = (0..ATTEMPTS).map(free).find(|free| *free > 5_000_000.0);
    assert!(most.is_some(), "never more than 5 MB a second after the limit was taken away");
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

/// As many connections as may begin at a port, and no more until one of them is over or the limit is another. What begins elsewhere is not
/// counted there.
#[test]
fn a_port_is_held_to_so_many_connections() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    pods.iter().for_each(|pod| daemon.attach_tap(pod, "br0", PortSettings::default()));
    wait_until("the pods", LONG, || pods[0].reaches("10.66.0.2"));
    let [one, two] = [&pods[0], &pods[1]].map(address);
    let listen = |pod: &Pod, at: IpAddr| {
        pod.net.inside(move || TcpListener::bind((at, PORT)).unwrap()).join().unwrap()
    };
    let listening = [listen(&pods[0], one), listen(&pods[1], two)];
    let connect = |pod: &Pod, to: IpAddr| {
        let connect = move || TcpStream::connect_timeout(&(to, PORT).into(), SHORT);
        pod.net.inside(connect).join().unwrap()
    };
    let hold = |connections| {
        let limits = PortLimits { connections, ..PortLimits::default() };
        let name = daemon.port(&pods[0].device).port.name;
        let _: Done = daemon.call(&Request::PortSet(PortSet { name, settings: limited(limits) }));
    };
    hold(Some(3));
    let mut open: Vec<_> = (0..3).map(|_| connect(&pods[0], two).unwrap()).collect();
    assert!(connect(&pods[0], two).is_err(), "one more than may");
    assert!(daemon.drops("connection-limit") > 0);
    assert!(open.iter_mut().all(|it| it.write_all(b"still").is_ok()));
    connect(&pods[1], one).unwrap();
    // One that is closed over what it did not read is reset, and over.
    let (mut far, _) = listening[1].accept().unwrap();
    far.write_all(b"unread").unwrap();
    open[0].peek(&mut [0]).unwrap();
    drop(open.remove(0));
    wait_until("room for another", LONG, || connect(&pods[0], two).map(|it| open.push(it)).is_ok());
    hold(None);
    let more: Vec<_> = (0..8).map(|_| connect(&pods[0], two)).collect();
    assert!(more.iter().all(Result::is_ok), "{more:?}");
    daemon.assert_conserved();
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
    let by_both = [(&pods[0], one, two), (&pods[2], three, two)];
    is_held(&daemon, "rate-limited-tx", PPS, "to a port of one queue", || flood(&by_both, &pods[1]));

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
    is_held(&daemon, "rate-limited-rx", PPS, "by both queues", || flood(&senders, &pods[0]));
    // One pair of addresses has one queue, and with it half.
    is_held(&daemon, "rate-limited-rx", PPS / 2.0, "by one queue", || flood(&senders[..1], &pods[0]));
    daemon.assert_conserved();
}
