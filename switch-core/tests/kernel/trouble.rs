//! Machines that lack something and parts that fail: each case costs what depends on it and nothing else.

use crate::switchd;
use std::path::Path;
use std::time::{Duration, Instant};
use switch_api::{
    ApiError, Bridge, ByName, Code, Done, MemorySource, Port, PortKind, PortSettings, PortState, Request,
    Status, WhenDead,
};
use switch_core::frame::{Area, AreaSize};
use switch_core::port::xdp::socket::{self, RawSocket as XdpSocket};
use switch_lab::frames::{has_mark, plain, station};
use switch_lab::node::{tap_port, xdp_port};
use switch_lab::steady::Steady;
use switch_lab::trouble::{Crowded, Hung, Undrained, without_af_xdp};
use switch_lab::{Daemon, Node, Pod, RawSocket, wait_until};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);
/// A port that is down is opened again every two seconds at first.
const SOME_ATTEMPTS: Duration = Duration::from_secs(5);

fn name(text: &str) -> switch_api::Name {
    text.parse().unwrap()
}

/// Within which who wants a change is told that a worker does not move, whom the daemon gives five seconds.
const BOUNDED: Duration = Duration::from_secs(20);

/// The daemon runs, says why there are no xdp ports, refuses one for that reason and serves other ports.
fn serves_all_but_xdp_ports(node: &Node, daemon: &Daemon, reason: &str) {
    let status: Status = daemon.call(&Request::Status(Default::default()));
    assert!(!status.xdp.ok && status.xdp.detail.contains(reason), "{status:?}");
    daemon.bridge("br0");
    let pod = node.pod(1);
    let xdp = xdp_port(&pod.device, "br0", PortSettings::default());
    let error: ApiError = daemon.client().call::<Done>(&Request::PortAdd(Box::new(xdp.clone()))).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    assert!(error.message.contains(reason), "{error:?}");
    let memory = Port { name: name("m"), kind: PortKind::Memory { source: None }, ..xdp };
    let _: Done = daemon.call(&Request::PortAdd(Box::new(memory)));
    assert_eq!(daemon.port("m").state, PortState::Up);
    daemon.assert_conserved();
}

#[test]
fn a_kernel_without_af_xdp_serves_every_other_port() {
    let node = Node::new();
    let daemon = without_af_xdp(|| node.start(&switchd()));
    serves_all_but_xdp_ports(&node, &daemon, "this kernel has no AF_XDP");
    // Every other kind carries traffic: taps between pods and to the node, a source in memory, a capture in and out.
    let pods = [node.bare_pod(2), node.bare_pod(3)];
    pods.iter().for_each(|pod| daemon.attach_tap(pod, "br0", PortSettings::default()));
    daemon.attach_host(4, "br0");
    wait_until("from tap to tap and to the node", LONG, || {
        pods[0].reaches("10.66.0.3") && pods[1].reaches("10.66.0.4")
    });
    let add = |name: &str, kind| {
        let port = Port::new(self::name(name), self::name("br0"), kind);
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    };
    let (first, second) = (node.directory().join("a.pcap"), node.directory().join("b.pcap"));
    let files = |read: Option<&Path>, write: Option<&Path>| {
        let path = |path: &Path| path.display().to_string();
        PortKind::Pcap { read: read.map(path), write: write.map(path) }
    };
    add("writes", files(None, Some(&first)));
    let source = MemorySource { flows: 1, frame_len: 60, seed: 1, rate_pps: 200, reverse: false };
    add("source", PortKind::Memory { source: Some(source) });
    // Its station is unknown and stays so: every port is given what it sends.
    for port in ["m", "writes", "tap2", "host"] {
        let before = daemon.port(port).counters.tx_packets;
        wait_until(port, LONG, || daemon.port(port).counters.tx_packets > before + 20);
    }
    for port in ["source", "writes"] {
        let _: Done = daemon.call(&Request::PortDelete(ByName { name: name(port) }));
    }
    let before = daemon.port("tap3").counters.tx_packets;
    add("replays", files(Some(&first), Some(&second)));
    wait_until("what was written is replayed", LONG, || {
        daemon.port("replays").counters.rx_packets > 20
            && daemon.port("tap3").counters.tx_packets > before + 20
    });
    daemon.assert_conserved();
}

#[test]
fn a_memory_lock_limit_that_is_too_small_is_named() {
    let node = Node::new();
    // CAP_IPC_LOCK would lift the limit.
    let limited = "prlimit --memlock=65536:65536 setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock";
    let daemon = node.start(&switchd().through(limited));
    serves_all_but_xdp_ports(&node, &daemon, "the locked-memory limit is too small");
}

#[test]
fn a_missing_capability_is_named() {
    for missing in ["net_raw", "net_admin", "sys_admin"] {
        let node = Node::new();
        let without = format!("setpriv --bounding-set -{missing} --inh-caps -{missing}");
        let daemon = node.start(&switchd().through(&without));
        serves_all_but_xdp_ports(&node, &daemon, &format!("CAP_{}", missing.to_uppercase()));
    }
}

/// Another program's socket on the first queue of the node's device.
pub(crate) fn take_queue(node: &Node, device: &str) -> XdpSocket {
    let device = device.to_owned();
    let take = move || {
        let (area, _) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 64, large: 0 }).unwrap();
        let taker = XdpSocket::new().unwrap();
        taker.register_umem(&area, 0).unwrap();
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            taker.set_ring_size(ring, 64).unwrap();
        }
        let index = socket::index(&device).unwrap();
        // Who had it before may have it for a moment still.
        wait_until("it is taken", LONG, || taker.bind(index, 0, libc::XDP_COPY, None).is_ok());
        taker
    };
    node.net.inside(take).join().unwrap()
}

/// It was there first when the port's device came back: the port is down, says why, and is up again when the queue is free.
#[test]
fn a_queue_that_another_program_took_is_waited_for() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&switchd());
    let device = &pods[1].device;
    daemon.signal(rustix::process::Signal::STOP);
    node.net.ip(&format!("link del {device}"));
    node.plug(&pods[1]);
    let taken = take_queue(&node, device);
    daemon.signal(rustix::process::Signal::CONT);
    let why = || daemon.port(device).reason.unwrap_or_default();
    wait_until("it is said why", LONG, || why().contains("queue 0: bind: Device or resource busy"));
    // It is tried again and again, and nobody else waits for it.
    let until = Instant::now() + SOME_ATTEMPTS;
    while Instant::now() < until {
        assert_eq!(daemon.port(device).state, PortState::Down);
        assert_eq!(daemon.port(&pods[0].device).state, PortState::Up);
        std::thread::sleep(SHORT);
    }
    drop(taken);
    wait_until("up again", LONG, || daemon.port(device).state == PortState::Up);
    wait_until("ping", LONG, || pods[0].reaches(&pods[1].ip));
    daemon.assert_conserved();
}

#[test]
fn busy_polling_is_an_option_that_carries_traffic() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    for pod in &pods {
        let mut port = xdp_port(&pod.device, "br0", PortSettings::default());
        if let PortKind::Xdp { busy_poll_us, .. } = &mut port.kind {
            *busy_poll_us = 50;
        }
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
        assert_eq!(daemon.port(&pod.device).state, PortState::Up);
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let said = pods[0].net.run("ping -n -q -c 200 -i 0.002 10.66.0.2");
    assert!(said.contains("200 received"), "{said}");
    daemon.assert_conserved();
}

/// A port whose dead-man time is short; what it does then is `when`.
fn attach_mortal(daemon: &Daemon, pod: &Pod, when: WhenDead) {
    let mut port = xdp_port(&pod.device, "br0", PortSettings::default());
    if let PortKind::Xdp { when_dead, dead_after_ms, .. } = &mut port.kind {
        *when_dead = Some(when);
        *dead_after_ms = 200;
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
}

#[test]
fn a_worker_that_hangs_is_dead_to_the_program_and_named_by_the_control_thread() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    attach_mortal(&daemon, &pods[0], WhenDead::Drop);
    attach_mortal(&daemon, &pods[1], WhenDead::Pass);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));

    let hung = Hung::thread(daemon.pid(), "worker-0").unwrap();
    std::thread::sleep(Duration::from_millis(400));
    // A frame that the program passes shows up on the host's end of the cable.
    let seen = |pod: &Pod, mark: u8, limit| {
        let host = RawSocket::open(&node.net, &pod.device).unwrap();
        let pod = RawSocket::open(&pod.net, "eth0").unwrap();
        pod.send(&plain(station(9), station(mark), mark, 60));
        host.recv(limit, |frame| has_mark(frame, mark)).is_some()
    };
    assert!(!seen(&pods[0], 1, SHORT), "a pod port drops while its worker hangs");
    assert!(seen(&pods[1], 2, LONG), "an uplink passes while its worker hangs");

    // Who only looks is answered; who wants a change is told, within a bounded time, who does not move.
    assert_eq!(daemon.port("pod1").state, PortState::Up);
    let start = Instant::now();
    let change = Request::BridgeAdd(Bridge::new(name("b")));
    let error = daemon.client().call::<Done>(&change).unwrap_err();
    assert!(error.message.contains("worker 0"), "{error:?}");
    assert!(start.elapsed() < BOUNDED, "{:?}", start.elapsed());

    drop(hung);
    wait_until("ping when it moves again", LONG, || pods[0].reaches("10.66.0.2"));
    let _: Done = daemon.call(&Request::BridgeDelete(ByName { name: name("b") }));
    daemon.assert_conserved();
}

#[test]
fn a_starved_fill_ring_loses_frames_by_name_and_recovers() {
    let node = Node::new();
    // Two ports park half of what there is; a flood has the rest.
    let daemon = node.start(&switchd().with("--frames 96"));
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let hung = Hung::thread(daemon.pid(), "worker-0").unwrap();
    let (sender, receiver) =
        (RawSocket::open(&pods[0].net, "eth0").unwrap(), RawSocket::open(&pods[1].net, "eth0").unwrap());
    for n in 0..500u32 {
        sender.send(&plain(pods[1].mac(), pods[0].mac(), (n % 251) as u8, 60));
    }
    drop(hung);
    // The kernel had nowhere to put most of them, and says so.
    wait_until("the missed frames are counted", LONG, || daemon.drops("rx-missed") > 300);
    receiver.recv(SHORT, |_| false);
    assert!(pods[0].reaches("10.66.0.2"), "it serves again");
    daemon.assert_conserved();
}

#[test]
fn a_cable_without_carrier_costs_what_it_should_have_carried() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2), node.pod(3)];
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2") && pods[0].reaches("10.66.0.3"));
    let steady = Steady::start(&pods[0].net, "10.66.0.3");
    let flood = pods[2].net.spawn("ping -q -f 10.66.0.2");
    for _ in 0..3 {
        // The far end is set down: our device stays up and has no carrier.
        pods[1].net.ip("link set eth0 down");
        assert!(node.net.ip("link show pod2").contains("NO-CARRIER"));
        assert!(!pods[0].reaches("10.66.0.2"));
        pods[1].net.ip("link set eth0 up");
        wait_until("ping again", LONG, || pods[0].reaches("10.66.0.2"));
    }
    steady.all_came();
    drop(flood);
    daemon.assert_conserved();
}

#[test]
fn a_pod_changes_its_devices_mtu_under_traffic() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    for pod in &pods {
        daemon.attach_tap(pod, "br0", PortSettings::default());
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let mut flood = pods[0].net.spawn("ping -q -f -s 100 10.66.0.2");
    for mtu in [1300, 1500, 1000] {
        pods[1].net.ip(&format!("link set eth0 mtu {mtu}"));
        wait_until("the MTU is known", LONG, || daemon.port("tap2").mtu == mtu);
        let fits = || pods[0].net.try_run("ping -n -c 1 -W 1 -s 1400 10.66.0.2").status.success();
        if mtu == 1500 {
            // Whoever shares a queue with a flood may lose his place in it; for his length he loses nothing.
            wait_until("what fits passes", LONG, fits);
        }
        let before = daemon.drops("mtu-exceeded");
        assert_eq!((0..3).any(|_| fits()), mtu == 1500, "an MTU of {mtu}");
        assert_eq!(daemon.drops("mtu-exceeded") > before, mtu < 1500, "an MTU of {mtu}");
    }
    assert!(flood.is_running() && pods[0].reaches("10.66.0.2"));
    drop(flood);
    daemon.assert_conserved();
}

/// Packets that a TAP's queue holds: the kernel's default (`txqueuelen`, docs/adr/0005).
const TAP_QUEUE: u64 = 1_000;

/// Nobody reads while the switch stands still: the pod's kernel keeps what its device's queue holds, and drops the rest where the pod sees it.
#[test]
fn a_pod_that_fills_its_devices_queue_loses_its_own_frames_only() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2), node.bare_pod(3)];
    pods.iter().for_each(|pod| daemon.attach_tap(pod, "br0", PortSettings::default()));
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2") && pods[2].reaches("10.66.0.2"));
    let (came, left) =
        (|| daemon.port("tap1").counters.rx_packets, || daemon.port("tap2").counters.tx_packets);
    let sender = RawSocket::open(&pods[0].net, "eth0").unwrap();
    let before = (came(), left(), pods[0].dropped().unwrap());
    let hung = Hung::thread(daemon.pid(), "worker-0").unwrap();
    let frame = plain(pods[1].mac(), pods[0].mac(), 7, 60);
    let sent = 3 * TAP_QUEUE;
    (0..sent).for_each(|_| sender.send(&frame));
    // Of what the pod's kernel says by itself a little finds the queue full as well.
    let kept = sent.saturating_sub(pods[0].dropped().unwrap() - before.2);
    assert!((TAP_QUEUE / 2..=TAP_QUEUE).contains(&kept), "{kept} were kept");
    drop(hung);
    wait_until("what the queue held has crossed", LONG, || {
        came() >= before.0 + kept && left() >= before.1 + kept
    });
    wait_until("ping again", LONG, || pods[0].reaches("10.66.0.2") && pods[2].reaches("10.66.0.1"));
    daemon.assert_conserved();
}

/// Two nodes, joined by a cable that is an xdp port at both ends: what one's port sends, the other one has to take. Three pods on the
/// first, one on the second.
struct Joined {
    near: Daemon,
    far: Daemon,
    pods: [Pod; 3],
    far_pod: Pod,
    nodes: [Node; 2],
}

/// The cable's name at both ends; the kernel's thread that polls it is found by it.
const CABLE: &str = "joined0";

impl Joined {
    fn new() -> Self {
        let nodes = [Node::new(), Node::new()];
        let peer = nodes[1].net.name();
        nodes[0].net.ip(&format!("link add {CABLE} type veth peer name {CABLE} netns {peer}"));
        let daemons = nodes.each_ref().map(|node| {
            node.net.ip(&format!("link set {CABLE} up"));
            let daemon = node.start(&switchd().with("--cores 0"));
            daemon.bridge("br0");
            let mut port = xdp_port(CABLE, "br0", PortSettings::default());
            if let PortKind::Xdp { dead_after_ms, .. } = &mut port.kind {
                // Its program takes what comes while nobody does.
                *dead_after_ms = 60_000;
            }
            let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
            daemon
        });
        let [near, far] = daemons;
        let pods = [1, 2, 3].map(|n| nodes[0].pod(n));
        let far_pod = nodes[1].pod(4);
        pods.iter().for_each(|pod| near.attach(pod, "br0", PortSettings::default()));
        far.attach(&far_pod, "br0", PortSettings::default());
        wait_until("ping across both", LONG, || {
            pods[0].reaches("10.66.0.2") && pods.iter().all(|pod| pod.reaches("10.66.0.4"))
        });
        Self { near, far, pods, far_pod, nodes }
    }

    /// Sends frames across, `burst` at a time, until `enough`. How many.
    fn flood(&self, burst: usize, enough: impl Fn() -> bool) -> u64 {
        let sender = RawSocket::open(&self.pods[2].net, "eth0").unwrap();
        let frame = plain(self.far_pod.mac(), self.pods[2].mac(), 7, 60);
        let (end, mut sent) = (Instant::now() + 3 * LONG, 0);
        while !enough() {
            assert!(Instant::now() < end, "{sent} frames: {:?}", self.near.stats().drops);
            sent += (0..burst).filter(|_| sender.try_send(&frame)).count() as u64;
        }
        sent
    }

    /// The other ports are as they were all the while, `meanwhile`.
    fn others_unharmed<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let steady = Steady::start(&self.pods[0].net, "10.66.0.2");
        let done = meanwhile();
        steady.all_came();
        done
    }

    /// Nothing is lost but what was counted, and the port carries again, as much as before.
    fn recovers(&self) {
        wait_until("ping across both again", LONG, || self.pods[0].reaches("10.66.0.4"));
        let said = self.pods[1].net.run("ping -n -q -c 100 -i 0.005 10.66.0.4");
        assert!(said.contains("100 received"), "{said}");
        [&self.near, &self.far].into_iter().for_each(Daemon::assert_conserved);
    }
}

/// The far switch stands still: its socket has no frame left to receive into.
#[test]
fn a_peer_that_takes_nothing_costs_what_was_for_it_and_is_counted_there() {
    let joined = Joined::new();
    let sent_before = joined.near.port(CABLE).counters.tx_packets;
    let hung = Hung::thread(joined.far.pid(), "worker-0").unwrap();
    let sent = joined.others_unharmed(|| {
        let crossed = || joined.near.port(CABLE).counters.tx_packets - sent_before;
        joined.flood(20, || crossed() > 3_000)
    });
    joined.near.assert_conserved();
    drop(hung);
    wait_until("the far switch counts what it missed", LONG, || joined.far.drops("rx-missed") > 2_000);
    assert!(joined.far.drops("rx-missed") <= sent + 100, "{sent} frames were sent");
    joined.recovers();
}

/// The far kernel stands still: the ring of its end of the cable is full, and the near one drops what it is given.
#[test]
fn a_full_ring_of_the_peer_costs_what_was_for_it_by_name_and_nothing_else() {
    let joined = Joined::new();
    assert_eq!(joined.near.drops("tx-refused"), 0);
    let undrained = Undrained::device(&joined.nodes[1].net, CABLE, 1).unwrap();
    joined.others_unharmed(|| joined.flood(64, || joined.near.drops("tx-refused") > 300));
    let stats = joined.near.stats();
    let elsewhere =
        stats.drops.iter().filter(|drop| drop.reason == "tx-refused" && drop.port.as_str() != CABLE);
    assert_eq!(elsewhere.map(|drop| drop.frames).sum::<u64>(), 0, "{:?}", stats.drops);
    let port = joined.near.port(CABLE);
    assert_eq!(port.state, PortState::Up, "a peer that is slow is no device that is gone: {port:?}");
    joined.near.assert_conserved();
    drop(undrained);
    joined.recovers();
    // And it refuses nothing any more.
    let refused = joined.near.drops("tx-refused");
    joined.recovers();
    assert_eq!(joined.near.drops("tx-refused"), refused);
}

/// A pod's namespace is entered by a thread; a node that has no room for one goes on with what it has.
#[test]
fn a_node_without_room_for_a_thread_refuses_a_pod_by_name() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    daemon.attach_tap(&pods[0], "br0", PortSettings::default());
    let Some(crowded) = Crowded::process(daemon.pid()).unwrap() else {
        return println!("no control group counts processes here");
    };
    let port = tap_port(&pods[1], "br0", PortSettings::default());
    let add = Request::PortAdd(Box::new(port));
    let refused = daemon.client().call::<Done>(&add).unwrap_err();
    assert!(refused.code == Code::System && refused.message.contains("no thread"), "{refused:?}");
    assert_eq!(daemon.port("tap1").state, PortState::Up);
    drop(crowded);
    let _: Done = daemon.call(&add);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}
