//! What can be chosen for an xdp port and for the packet memory under it, with real kernels: each choice carries traffic, does what
//! it says, and one that cannot be is refused by its field.

use crate::switchd;
use etherparse::PacketBuilder;
use std::net::IpAddr;
use std::time::Duration;
use switch_api::{
    ByName, Code, Done, FdbEntry, Flood, Nothing, PortKind, PortSettings, PortState, Request, StaticMac,
    Take, TakeRule, Vid, WorkerStatus, XdpMode,
};
use switch_lab::frames::{has_mark, plain, station};
use switch_lab::node::xdp_port;
use switch_lab::trouble::{busy_polls, without_huge_pages};
use switch_lab::{Daemon, Net, Node, Pod, RawSocket, transfer, wait_until};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(5);

/// An xdp port with something chosen otherwise.
fn port_with(device: &str, change: impl FnOnce(&mut PortKind)) -> switch_api::Port {
    let mut port = xdp_port(device, "br0", PortSettings::default());
    change(&mut port.kind);
    port
}

fn add(daemon: &Daemon, port: switch_api::Port) {
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
}

fn refused_field(daemon: &Daemon, port: switch_api::Port) -> String {
    let error = daemon.client().call::<Done>(&Request::PortAdd(Box::new(port))).unwrap_err();
    assert_eq!(error.code, Code::InvalidParams, "{error:?}");
    error.data.field.unwrap()
}

fn delete(daemon: &Daemon, port: &str) {
    let _: Done = daemon.call(&Request::PortDelete(ByName { name: port.parse().unwrap() }));
}

/// A pod whose cable has so many queues at each end.
fn pod_of_queues(node: &Node, n: u8, queues: u8) -> Pod {
    let (net, device) = (Net::new(&format!("pod{n}")), format!("pod{n}"));
    let pod = Pod { net, device, ip: format!("10.66.0.{n}") };
    let (of, mac, peer) = (format!("numrxqueues {queues} numtxqueues {queues}"), pod.mac(), pod.net.name());
    let device = &pod.device;
    node.net.ip(&format!("link add {device} {of} type veth peer name eth0 address {mac} {of} netns {peer}"));
    node.net.ip(&format!("link set {device} up"));
    pod.net.ip("link set eth0 up");
    pod.net.ip(&format!("addr add {}/24 dev eth0", pod.ip));
    pod
}

/// From one pod to another, of a flow of its own.
fn datagram(from: &Pod, to: &Pod, port: u16) -> Vec<u8> {
    let address = |pod: &Pod| [10, 66, 0, pod.number()];
    let ethernet = PacketBuilder::ethernet2(from.mac().0, to.mac().0);
    let mut frame = Vec::new();
    let packet = ethernet.ipv4(address(from), address(to), 9).udp(port, port);
    packet.write(&mut frame, &port.to_be_bytes()).unwrap();
    frame.resize(60, 0);
    frame
}

/// What came in and left by each queue of a port.
fn lanes(daemon: &Daemon, port: &str) -> Vec<(u64, u64)> {
    let workers: Vec<WorkerStatus> = daemon.call(&Request::WorkerList(Nothing {}));
    let mut lanes: Vec<_> = workers.iter().flat_map(|worker| &worker.lanes).collect();
    lanes.retain(|lane| lane.port.as_str() == port);
    lanes.sort_by_key(|lane| lane.queue);
    lanes.iter().map(|lane| (lane.rx_packets, lane.tx_packets)).collect()
}

#[test]
fn every_queue_of_a_device_is_served_and_loses_nothing() {
    let node = Node::new();
    let daemon = node.start(&switchd().with("--cores 0,1"));
    daemon.bridge("br0");
    let pods = [pod_of_queues(&node, 1, 2), pod_of_queues(&node, 2, 2)];
    let queues = |queues| {
        move |kind: &mut PortKind| {
            if let PortKind::Xdp { queues: q, .. } = kind {
                *q = queues
            }
        }
    };
    assert_eq!(refused_field(&daemon, port_with("pod1", queues(3))), "queues");
    pods.iter().for_each(|pod| add(&daemon, port_with(&pod.device, queues(0))));
    for pod in &pods {
        let mut workers = daemon.port(&pod.device).workers;
        workers.sort_unstable();
        assert_eq!(workers, [0, 1], "a queue for each worker");
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    // The kernel chooses a queue by flow; no more are under way at a time than an idle socket has room for, should all be of one.
    let sockets = pods.each_ref().map(|pod| RawSocket::open(&pod.net, "eth0").unwrap());
    let before = [lanes(&daemon, "pod1"), lanes(&daemon, "pod2")];
    for burst in 0..20u16 {
        let ports = burst * 20..(burst + 1) * 20;
        for (from, to) in [(0, 1), (1, 0)] {
            let mut missing: Vec<_> =
                ports.clone().map(|port| datagram(&pods[from], &pods[to], 10_000 + port)).collect();
            missing.iter().for_each(|frame| sockets[from].send(frame));
            // Two queues are two ways: flows overtake each other.
            while !missing.is_empty() {
                let arrived = sockets[to].recv(LONG, |frame| missing.iter().any(|wanted| wanted == frame));
                let arrived =
                    arrived.unwrap_or_else(|| panic!("{} flows\n{:?}", missing.len(), daemon.stats().drops));
                missing.retain(|wanted| *wanted != arrived);
            }
        }
    }
    // 400 flows each way: a quarter of them is far less than chance gives a queue.
    for (port, before) in ["pod1", "pod2"].iter().zip(&before) {
        let now = lanes(&daemon, port);
        let came = now.iter().zip(before).map(|(now, before)| now.0 - before.0).collect::<Vec<_>>();
        assert!(came.len() == 2 && came.iter().all(|frames| *frames >= 100), "{port}: {came:?}");
    }
    assert_eq!(daemon.drops("rx-missed") + daemon.drops("inbox-full"), 0);
    daemon.assert_conserved();

    // Fewer than there are may be asked for.
    delete(&daemon, "pod1");
    add(&daemon, port_with("pod1", queues(1)));
    assert_eq!(daemon.port("pod1").workers.len(), 1);
    daemon.assert_conserved();
}

/// Bytes of the rings that a process shares with its sockets: what it maps of them (proc_pid_maps(5)).
fn ring_bytes(daemon: &Daemon) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
    let rings = maps.lines().filter(|line| line.contains("socket:["));
    let range = |line: &str| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        u64::from_str_radix(to, 16).unwrap() - u64::from_str_radix(from, 16).unwrap()
    };
    rings.map(range).sum()
}

#[test]
fn frame_and_ring_sizes_are_as_asked_for() {
    let node = Node::new();
    let daemon = node.start(&switchd().with("--frame-size 4096 --frames 2048"));
    daemon.bridge("br0");
    assert_eq!(daemon.stats().frames.chunk_bytes, 4096);
    let pods = [node.pod(1), node.pod(2)];
    for pod in &pods {
        node.net.ip(&format!("link set {} mtu 3000", pod.device));
        pod.net.ip("link set eth0 mtu 3000");
    }
    let rings = |size| {
        move |kind: &mut PortKind| {
            if let PortKind::Xdp { ring_size, .. } = kind {
                *ring_size = size
            }
        }
    };
    for size in [0, 32, 63, 100, 16_384] {
        assert_eq!(refused_field(&daemon, port_with("pod1", rings(size))), "ring_size", "{size}");
    }
    let without = ring_bytes(&daemon);
    for size in [64, 8192] {
        for pod in &pods {
            add(&daemon, port_with(&pod.device, rings(size)));
            let port = daemon.port(&pod.device);
            // Two rings of addresses, two of descriptors.
            assert_eq!((port.mtu, port.memory.rings_bytes), (3000, u64::from(size) * 48), "{port:?}");
        }
        // Each ring has its indices beside its entries, and begins with a page.
        let (mapped, entries) = (ring_bytes(&daemon) - without, 2 * u64::from(size) * 48);
        assert!((entries..entries + 8 * 8192).contains(&mapped), "{size} entries: {mapped} bytes");
        wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
        pods[0].net.run("ping -n -q -M do -c 3 -i 0.05 -W 3 -s 2972 10.66.0.2");
        let bytes = 1_000_000;
        assert_eq!(transfer::tcp(&pods[0].net, &pods[1].net, "10.66.0.2".parse().unwrap(), bytes), bytes);
        daemon.assert_conserved();
        pods.iter().for_each(|pod| delete(&daemon, &pod.device));
    }
}

/// A frame to an address, that no kernel answers.
fn to_address(address: &str, mark: u8) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(station(2).0, station(1).0);
    let mut frame = Vec::new();
    match address.parse().unwrap() {
        IpAddr::V4(to) => {
            ethernet.ipv4([10, 66, 0, 1], to.octets(), 9).udp(9, 9).write(&mut frame, &[mark; 40])
        }
        IpAddr::V6(to) => ethernet.ipv6([0xfd; 16], to.octets(), 9).udp(9, 9).write(&mut frame, &[mark; 40]),
    }
    .unwrap();
    frame
}

#[test]
fn what_a_port_does_not_take_is_the_hosts() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    daemon.attach(&pods[1], "br0", PortSettings::default());
    let taking = |wanted: Take| {
        move |kind: &mut PortKind| {
            if let PortKind::Xdp { take, .. } = kind {
                *take = wanted
            }
        }
    };
    let (sender, host) =
        (RawSocket::open(&pods[0].net, "eth0").unwrap(), RawSocket::open(&node.net, "pod1").unwrap());
    let (receiver, far) = (RawSocket::open(&pods[1].net, "eth0").unwrap(), station(2));
    // Where it is seen: by the host's kernel, by the other pod.
    let goes = |frame: &[u8]| {
        sender.send(frame);
        let (mut is_passed, mut is_switched) = (false, false);
        let looks = |socket: &RawSocket, limit| socket.recv(limit, |got| got == frame).is_some();
        wait_until("it is seen somewhere", LONG, || {
            is_passed = looks(&host, LOOK);
            is_switched = looks(&receiver, LOOK);
            is_passed || is_switched
        });
        // And nowhere else.
        (is_passed || looks(&host, SHORT / 4), is_switched || looks(&receiver, SHORT / 4))
    };
    let (to_host, to_switch) = ((true, false), (false, true));

    add(&daemon, port_with("pod1", taking(Take::Nothing)));
    for frame in [plain(station(1), far, 1, 60), to_address("10.66.0.2", 1), to_address("fd66::2", 1)] {
        assert_eq!(goes(&frame), to_host);
    }
    let port = daemon.port("pod1");
    assert_eq!((port.counters.rx_packets, port.state), (0, PortState::Up));
    // It is a port all the same: what is for the pod reaches it.
    let answer = plain(switch_api::Mac([0xff; 6]), station(3), 2, 60);
    receiver.send(&answer);
    assert!(sender.recv(LONG, |got| got == answer).is_some());
    delete(&daemon, "pod1");

    // The prefix ends within a byte; another EtherType's prefix is not asked.
    let rule = |ethertype, destination: Option<&str>| TakeRule {
        ethertype,
        destination: destination.map(str::to_owned),
    };
    let rules = vec![rule(0x86dd, Some("fd66:0:0:7:8000::/67")), rule(0x88b6, None)];
    add(&daemon, port_with("pod1", taking(Take::Matching { rules })));
    for inside in ["fd66:0:0:7:8000::2", "fd66:0:0:7:9fff:ffff:ffff:ffff"] {
        assert_eq!(goes(&to_address(inside, 3)), to_switch, "{inside}");
    }
    let outside =
        ["fd66:0:0:7:a000::", "fd66:0:0:7:7fff:ffff:ffff:ffff", "fd66:0:0:6:8000::2", "fd67:0:0:7:8000::2"];
    for outside in outside.into_iter().chain(["10.66.0.2"]) {
        assert_eq!(goes(&to_address(outside, 4)), to_host, "{outside}");
    }
    assert_eq!(goes(&plain(station(1), far, 5, 60)), to_switch, "by EtherType alone");
    let cut = &to_address("fd66:0:0:7:8000::2", 6)[..53];
    assert_eq!(goes(cut), to_host, "too short to have a destination");
    daemon.assert_conserved();
}

#[test]
fn a_port_says_its_mode_and_leaves_nothing_when_it_is_deleted() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    let pins = || -> Vec<String> {
        let entries = std::fs::read_dir(node.directory().join("bpf")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("link-")).collect()
    };
    let xdp = |device: &str| {
        let said = node.net.ip(&format!("-d link show dev {device}"));
        // As the kernel tells it: "xdp" or "xdpgeneric", and the program's number.
        said.split_whitespace()
            .find(|word| word.starts_with("xdp") || word.starts_with("prog/xdp"))
            .map(str::to_owned)
    };
    daemon.attach(&pods[1], "br0", PortSettings::default());
    let beside = pins();
    assert_eq!(beside.len(), 1, "{beside:?}");
    for (mode, name, kernels) in [
        (XdpMode::Auto, "native", "xdp"),
        (XdpMode::Native, "native", "xdp"),
        (XdpMode::Generic, "generic", "xdpgeneric"),
    ] {
        add(&daemon, in_mode("pod1", mode));
        let port = daemon.port("pod1");
        assert_eq!((port.mode.as_deref(), xdp("pod1").as_deref()), (Some(name), Some(kernels)), "{mode:?}");
        // A faster one was not to be had, and why is said; who asked for this one is told nothing.
        let reason = port.mode_reason.unwrap_or_default();
        assert_eq!(reason.contains("no zero-copy"), mode == XdpMode::Auto, "{mode:?}: {reason}");
        assert_eq!(pins().len(), 2);
        wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
        delete(&daemon, "pod1");
        assert_eq!((xdp("pod1"), pins()), (None, beside.clone()), "{mode:?}: something stayed");
    }
    // Nor is anything left of a device that went by itself.
    node.net.ip("link del pod2");
    wait_until("down", LONG, || daemon.port("pod2").state == PortState::Down);
    assert_eq!(pins(), Vec::<String>::new());
    daemon.assert_conserved();
}

/// A port in a mode that it is asked to be in by name.
fn in_mode(device: &str, wanted: XdpMode) -> switch_api::Port {
    port_with(device, |kind| {
        if let PortKind::Xdp { mode, .. } = kind {
            *mode = wanted;
        }
    })
}

/// A device whose driver takes no program: the generic mode, and why. So it is after a restart, which finds the program there.
#[test]
fn a_restart_says_why_a_port_is_not_in_a_faster_mode() {
    let node = Node::new();
    let options = switchd().keeping_state();
    let mut daemon = node.start(&options);
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    // It wants as many queues to receive by as the other end has to send by.
    node.net.ip("link del pod1");
    let (mac, peer, queues) = (pods[0].mac(), pods[0].net.name(), "numtxqueues 2 numrxqueues 1");
    node.net
        .ip(&format!("link add pod1 {queues} type veth peer name eth0 address {mac} {queues} netns {peer}"));
    node.net.ip("link set pod1 up");
    pods[0].net.ip("link set eth0 up");
    pods[0].net.ip("addr add 10.66.0.1/24 dev eth0");
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    let says = |daemon: &Daemon, port: &str| {
        let port = daemon.port(port);
        (port.mode.unwrap(), port.mode_reason.unwrap_or_default())
    };
    let (mode, reason) = says(&daemon, "pod1");
    assert!(
        mode == "generic" && reason.contains("does not take an XDP program (Native)"),
        "{mode}: {reason}"
    );
    let fast = says(&daemon, "pod2");
    assert!(fast.0 == "native" && fast.1.contains("no zero-copy"), "{fast:?}");
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));

    daemon.kill();
    let mut daemon = node.start(&options);
    wait_until("ping after a restart", LONG, || pods[0].reaches("10.66.0.2"));
    let (mode, reason) = says(&daemon, "pod1");
    assert!(mode == "generic" && reason.contains("earlier program"), "{mode}: {reason}");
    assert_eq!(says(&daemon, "pod2"), fast, "the other one is as it was");
    // As it says: added again, it is tried again.
    delete(&daemon, "pod1");
    daemon.attach(&pods[0], "br0", PortSettings::default());
    let (mode, reason) = says(&daemon, "pod1");
    assert!(
        mode == "generic" && reason.contains("does not take an XDP program (Native)"),
        "{mode}: {reason}"
    );

    // One that knows nothing of them, and is asked for other modes than the programs are in that it finds.
    daemon.kill();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    add(&daemon, in_mode("pod2", XdpMode::Generic));
    assert_eq!(says(&daemon, "pod2"), ("generic".to_owned(), String::new()));
    assert!(node.net.ip("-d link show dev pod2").contains("xdpgeneric"));
    let refused = daemon.client().call::<Done>(&Request::PortAdd(Box::new(in_mode("pod1", XdpMode::Native))));
    let refused = refused.unwrap_err();
    assert!(refused.message.contains("does not take an XDP program (Native)"), "{refused:?}");
    add(&daemon, in_mode("pod1", XdpMode::Generic));
    wait_until("ping in the generic mode", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}

#[test]
fn busy_polling_is_set_on_the_sockets_of_those_who_asked() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    for (pod, us) in pods.iter().zip([50, 0]) {
        add(
            &daemon,
            port_with(&pod.device, |kind| {
                if let PortKind::Xdp { busy_poll_us, .. } = kind {
                    *busy_poll_us = us;
                }
            }),
        );
    }
    let mut polls = busy_polls(daemon.pid()).unwrap();
    polls.sort_unstable();
    // The anchor's, and one for each port.
    assert_eq!(polls, [0, 0, 50]);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
}

/// KiB of huge pages that a process has.
fn huge_kib(daemon: &Daemon) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.pid())).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("AnonHugePages")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How often the kernel had no huge page for somebody who wanted one.
fn huge_pages_missed() -> u64 {
    let said = std::fs::read_to_string("/proc/vmstat").unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("thp_fault_fallback "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn huge_pages_are_used_where_there_are_some_and_never_needed() {
    let works = |daemon: &Daemon, node: &Node| {
        daemon.bridge("br0");
        let pods = [node.pod(1), node.pod(2)];
        pods.iter().for_each(|pod| daemon.attach(pod, "br0", PortSettings::default()));
        wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
        daemon.assert_conserved();
    };
    let node = Node::new();
    let daemon = without_huge_pages(|| node.start(&switchd()));
    works(&daemon, &node);
    assert_eq!(huge_kib(&daemon), 0, "without huge pages");
    drop((daemon, node));
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if setting.is_empty() || setting.contains("[never]") {
        return println!("this kernel makes no huge pages: {setting:?}");
    }
    let (node, missed) = (Node::new(), huge_pages_missed());
    let daemon = node.start(&switchd());
    works(&daemon, &node);
    // The packet memory of the first region: 1024 frames of 2 KiB. Memory may be too scattered for it.
    let kib = huge_kib(&daemon);
    assert!(kib >= 2048 || huge_pages_missed() > missed, "{kib} KiB");
}

/// More news than a netlink socket holds, and among what was lost that a device is gone. Nothing is sent to its port, so no socket
/// says it either.
#[test]
fn a_device_that_went_while_news_were_lost_is_missed_all_the_same() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    let flood = Flood { unknown_unicast: false, multicast: false, broadcast: false };
    let quiet = PortSettings { flood, ..PortSettings::default() };
    for pod in &pods {
        daemon.attach(pod, "br0", quiet.clone());
    }
    node.net.ip("link add spare0 type veth peer name spare1");
    let path = node.directory().join("batch");
    let lines: String = (0..1000).map(|n| format!("link set spare0 mtu {}\n", 1400 + n % 2)).collect();
    std::fs::write(&path, lines).unwrap();
    daemon.signal(rustix::process::Signal::STOP);
    node.net.ip(&format!("-batch {}", path.display()));
    node.net.ip("link del pod2");
    daemon.signal(rustix::process::Signal::CONT);
    wait_until("the port is down", LONG, || daemon.port("pod2").state == PortState::Down);
    assert!(daemon.log().contains("netlink lost events"), "the socket held all: this tests nothing");
    assert!(daemon.log().contains("its device was deleted"), "{}", daemon.log());
    assert_eq!(daemon.port("pod1").state, PortState::Up);
    node.plug(&pods[1]);
    wait_until("up again", LONG, || daemon.port("pod2").state == PortState::Up);
    daemon.assert_conserved();
}

/// A port that is down has no stations: what is for them is flooded to where they may be now. Those that were declared stay.
#[test]
fn stations_of_a_port_that_goes_down_are_forgotten() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2), node.pod(3)];
    pods.iter().for_each(|pod| daemon.attach(pod, "br0", PortSettings::default()));
    let sockets = pods.each_ref().map(|pod| RawSocket::open(&pod.net, "eth0").unwrap());
    let (bridge, port) = ("br0".parse().unwrap(), "pod2".parse().unwrap());
    let declared =
        StaticMac { mac: station(60), bridge, vid: Vid::DEFAULT, port, dst: None, owner: Default::default() };
    let _: Done = daemon.call(&Request::FdbAdd(declared));
    let behind = |port: &str| -> Vec<FdbEntry> {
        let mut all: Vec<FdbEntry> = daemon.call(&Request::FdbList(Default::default()));
        all.retain(|entry| entry.port.as_str() == port);
        all
    };
    let everybody = switch_api::Mac([0xff; 6]);
    for (n, socket) in sockets.iter().enumerate() {
        socket.send(&plain(everybody, station(n as u8 + 1), 1, 60));
    }
    let is_known = |n: u8| behind(&format!("pod{n}")).iter().any(|entry| entry.mac == station(n));
    wait_until("they are known", LONG, || (1..=3).all(is_known));
    sockets[0].send(&plain(station(2), station(1), 2, 60));
    assert!(sockets[1].recv(LONG, |frame| has_mark(frame, 2)).is_some());
    assert!(sockets[2].recv(SHORT, |frame| has_mark(frame, 2)).is_none(), "it was flooded");

    node.net.ip("link set pod2 down");
    wait_until("down", LONG, || daemon.port("pod2").state == PortState::Down);
    let left = behind("pod2");
    assert!(left.len() == 1 && left[0].is_static && left[0].mac == station(60), "{left:?}");
    assert!(is_known(1) && is_known(3), "others lost theirs");
    sockets[0].send(&plain(station(2), station(1), 3, 60));
    assert!(
        sockets[2].recv(LONG, |frame| has_mark(frame, 3)).is_some(),
        "it was lost behind a port that is down"
    );
    // The station speaks from elsewhere meanwhile.
    sockets[2].send(&plain(everybody, station(2), 4, 60));
    wait_until("it is known there", LONG, || behind("pod3").iter().any(|entry| entry.mac == station(2)));

    node.net.ip("link set pod2 up");
    wait_until("up", LONG, || daemon.port("pod2").state == PortState::Up);
    sockets[0].send(&plain(station(60), station(1), 5, 60));
    assert!(sockets[1].recv(LONG, |frame| has_mark(frame, 5)).is_some(), "the declared station is not there");
    daemon.assert_conserved();
}

/// Within which a burst is taken in.
const TAKEN: Duration = Duration::from_secs(2);
/// Frames of one burst, more than one batch after another lets a lane grow to.
const BURST: u64 = 600;

/// Each turn takes in one batch, however much came: what the kernel has left of what it was given says that it wants more.
#[test]
fn a_port_on_which_bursts_come_gives_the_kernel_more_frames_to_receive_into() {
    let node = Node::new();
    let daemon = node.start(&switchd().with("--frames 4096"));
    daemon.bridge("br0");
    let pod = node.pod(1);
    add(
        &daemon,
        port_with("pod1", |kind| {
            if let PortKind::Xdp { dead_after_ms, .. } = kind {
                // What comes while the daemon is stopped is received.
                *dead_after_ms = 60_000;
            }
        }),
    );
    let socket = RawSocket::open(&pod.net, "eth0").unwrap();
    let received = || daemon.port("pod1").counters.rx_packets;
    let whole = (0..12).any(|_| {
        let before = received();
        daemon.signal(rustix::process::Signal::STOP);
        (0..BURST).for_each(|_| socket.send(&plain(station(9), station(1), 1, 60)));
        daemon.signal(rustix::process::Signal::CONT);
        // One after another all that it took in are counted: those that are not there by then were lost.
        let end = std::time::Instant::now() + TAKEN;
        while received() < before + BURST && std::time::Instant::now() < end {
            std::thread::sleep(LOOK);
        }
        received() >= before + BURST
    });
    assert!(whole, "no burst was received whole: {:?}", daemon.port("pod1").counters);
    daemon.assert_conserved();
}
