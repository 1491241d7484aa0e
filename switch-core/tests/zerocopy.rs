//! Zero-copy for real: virtio-net in an emulated machine, whose driver binds it. `cargo xtask zerocopy` boots
//! the machine and runs this file in it; it needs the devices that are made there and runs nowhere else.
//!
//! The machine has three cables. Each joins a device of the switch (MAC 52:54:00:00:00:0N) with a device
//! that becomes a pod's `eth0` (MAC 52:54:00:00:01:0N). The first two are asked to bind zero-copy, and do; the third is not, and does not:
//! the driver is a module (`port::xdp::open::doubt`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use rustix::process::Signal;
use std::time::Duration;
use switch_api::{Done, Mac, PortKind, PortSettings, PortState, Request, XdpMode};
use switch_lab::frames::{plain, station};
use switch_lab::node::xdp_port;
use switch_lab::{Daemon, Net, Node, Options, Pod, RawSocket, wait_until};

/// An emulated processor is some thirty times slower than this one.
const EMULATED: Duration = Duration::from_secs(60);
const PINGS: u32 = 20;
/// Entries of the smallest rings a port may have.
const SMALLEST_RING: u32 = 64;
/// Frames that starve it. No more than a packet socket has room for: the emulated cable stops its sender.
const STARVING: u32 = 3 * SMALLEST_RING;

/// The name of the device with this MAC, in the namespace we started in.
fn device(mac: &str) -> String {
    let listed = std::fs::read_dir("/sys/class/net").unwrap();
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let address = |name: &str| std::fs::read_to_string(format!("/sys/class/net/{name}/address"));
    names.into_iter().find(|name| address(name).is_ok_and(|address| address.trim() == mac)).unwrap_or_else(
        || panic!("no device {mac}: this runs in the machine that `cargo xtask zerocopy` boots"),
    )
}

/// Moves cable `n`: the switch's end into the node as `nicN`, the other into a pod.
fn cable(node: &Node, n: u8) -> Pod {
    let (near, far) = (device(&format!("52:54:00:00:00:0{n}")), device(&format!("52:54:00:00:01:0{n}")));
    let net = Net::new(&format!("host{n}"));
    let run = |words: String| switch_lab::net::run("ip", &words.split(' ').collect::<Vec<_>>());
    run(format!("link set {near} netns {} name nic{n}", node.net.name()));
    run(format!("link set {far} netns {} name eth0", net.name()));
    node.net.ip(&format!("link set nic{n} up"));
    net.ip("link set eth0 up");
    net.ip(&format!("addr add 10.66.0.{n}/24 dev eth0"));
    Pod { net, device: format!("nic{n}"), ip: format!("10.66.0.{n}") }
}

fn attach(daemon: &Daemon, device: &str, mode: XdpMode) {
    let mut port = xdp_port(device, "br0", PortSettings::default());
    if let PortKind::Xdp { mode: asked, .. } = &mut port.kind {
        *asked = mode;
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    wait_until("the port is up", EMULATED, || daemon.port(device).state == PortState::Up);
}

fn ping(from: &Pod, to: &Pod) {
    wait_until("a first answer", EMULATED, || from.reaches(&to.ip));
    for size in [56, 1400] {
        let said = from.net.run(&format!("ping -n -q -c {PINGS} -i 0.05 -W 5 -s {size} {}", to.ip));
        assert!(said.contains(&format!("{PINGS} received")), "{} to {}: {said}", from.ip, to.ip);
    }
}

#[test]
fn frames_cross_between_zero_copy_native_and_copy_mode() {
    let node = Node::new();
    let mut daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")));
    daemon.bridge("br0");
    let (one, two, doubted) = (cable(&node, 1), cable(&node, 2), cable(&node, 3));
    let veth = node.pod(4);
    for (pod, mode) in [
        (&one, XdpMode::ZeroCopy),
        (&two, XdpMode::ZeroCopy),
        (&doubted, XdpMode::Auto),
        (&veth, XdpMode::Auto),
    ] {
        attach(&daemon, &pod.device, mode);
    }
    let mode = |pod: &Pod| daemon.port(&pod.device).mode;
    assert_eq!(mode(&one).as_deref(), Some("zero-copy"), "{:?}", daemon.port("nic1"));
    assert_eq!(mode(&two).as_deref(), Some("zero-copy"), "{:?}", daemon.port("nic2"));
    // Neither is zero-copy, and each says why: of one kind of device nobody knows what becomes of what it sends, the other cannot.
    for (pod, why) in [(&doubted, "unless it is asked for"), (&veth, "no zero-copy: ")] {
        let port = daemon.port(&pod.device);
        assert_eq!(port.mode.as_deref(), Some("native"), "{port:?}");
        assert!(port.mode_reason.as_ref().is_some_and(|reason| reason.contains(why)), "{port:?}");
    }

    ping(&one, &two);
    ping(&one, &veth);
    ping(&veth, &two);
    ping(&doubted, &one);
    daemon.assert_conserved();
    let stats = daemon.stats();
    println!("frames: {:?}", stats.frames);

    // Leaves and comes back: the driver takes its rings and its pool down under the socket.
    node.net.ip("link set nic1 down");
    node.net.ip("link set nic1 up");
    ping(&one, &two);
    daemon.assert_conserved();
    daemon.stop(true);
    starve(&node, &one);
}

/// More frames than the driver has chunks for, while nobody refills its ring: it stops asking, says so in the ring
/// (`XDP_RING_NEED_WAKEUP`) and receives nothing more until it is woken. The cable keeps what found no room. This worker
/// never sleeps: going to sleep on the socket would wake the driver, too (`xsk_poll`).
fn starve(node: &Node, pod: &Pod) {
    let mut daemon =
        node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with(&format!("--idle-turns {}", u32::MAX)));
    daemon.bridge("br0");
    let mut port = xdp_port(&pod.device, "br0", PortSettings::default());
    if let PortKind::Xdp { mode, ring_size, dead_after_ms, .. } = &mut port.kind {
        // Dead no sooner than the flood is over: what the program drops would starve nobody.
        (*mode, *ring_size, *dead_after_ms) = (XdpMode::ZeroCopy, SMALLEST_RING, 60_000);
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    wait_until("the port is up", EMULATED, || daemon.port(&pod.device).state == PortState::Up);
    let socket = RawSocket::open(&pod.net, "eth0").unwrap();
    let received = || daemon.port(&pod.device).counters.rx_packets;
    let before = received();
    daemon.signal(Signal::STOP);
    (0..STARVING).for_each(|_| socket.send(&plain(Mac([0xff; 6]), station(1), 1, 60)));
    daemon.signal(Signal::CONT);
    wait_until("all are received", EMULATED, || received() >= before + u64::from(STARVING));
    daemon.assert_conserved();
    daemon.stop(true);
}
