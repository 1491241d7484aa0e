//! What a container host does to a port: devices that vanish, come back, go down, change; daemons that
//! die, hang and return; programs that are there already.

use crate::switchd;
use aya::programs::links::{FdLink, PinnedLink};
use rustix::process::Signal;
use std::time::Duration;
use switch_api::{
    ApiError, ByName, Code, Done, PortKind, PortSettings, PortState, Request, Take, TakeRule, XdpMode,
};
use switch_lab::frames::{ETHERTYPE, has_mark, plain, station};
use switch_lab::node::xdp_port;
use switch_lab::{Daemon, Node, Options, Pod, RawSocket, transfer, wait_until};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);
const EVERYBODY: switch_api::Mac = switch_api::Mac([0xff; 6]);

fn node_with_pods(options: &Options, n: u8) -> (Node, Daemon, Vec<Pod>) {
    let node = Node::new();
    let daemon = node.start(options);
    daemon.bridge("br0");
    let pods: Vec<_> = (1..=n).map(|n| node.pod(n)).collect();
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    (node, daemon, pods)
}

fn raw(pod: &Pod) -> RawSocket {
    RawSocket::open(&pod.net, "eth0").unwrap()
}

fn is(daemon: &Daemon, port: &str, state: PortState) -> bool {
    daemon.port(port).state == state
}

fn refusal(daemon: &Daemon, port: switch_api::Port) -> ApiError {
    daemon.client().call::<Done>(&Request::PortAdd(Box::new(port))).unwrap_err()
}

fn xdp_program(node: &Node, device: &str) -> bool {
    node.net.ip(&format!("link show dev {device}")).contains("xdp")
}

/// The link that is pinned for a device, and the program in it, by their kernel's numbers.
fn link(node: &Node, device: &str) -> (u32, u32) {
    let prefix = format!("link-{device}-");
    let pins = std::fs::read_dir(node.directory().join("bpf")).unwrap().map(|entry| entry.unwrap().path());
    let is_its = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    };
    let pins: Vec<_> = pins.filter(is_its).collect();
    assert_eq!(pins.len(), 1, "{pins:?}");
    let link = FdLink::from(PinnedLink::from_pin(&pins[0]).unwrap()).info().unwrap();
    (link.id(), link.program_id())
}

#[test]
fn a_device_deleted_under_load_comes_back_by_itself() {
    let (node, daemon, pods) = node_with_pods(&switchd(), 3);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    // Load towards the port that will go, and towards one that stays.
    let _load = pods[0].net.spawn("ping -q -f -w 8 10.66.0.2");
    let steady = pods[2].net.spawn("ping -q -i 0.01 -c 300 10.66.0.1");
    for _ in 0..3 {
        node.net.ip("link del pod2");
        wait_until("down", LONG, || is(&daemon, "pod2", PortState::Down));
        let reason = daemon.port("pod2").reason.unwrap();
        assert!(!reason.is_empty());
        node.plug(&pods[1]);
        wait_until("up again", LONG, || is(&daemon, "pod2", PortState::Up));
        wait_until("ping again", LONG, || pods[0].reaches("10.66.0.2"));
    }
    let steady = String::from_utf8(steady.finish().stdout).unwrap();
    assert!(steady.contains(" 0% packet loss"), "the others were disturbed: {steady}");
    daemon.assert_conserved();
}

#[test]
fn set_down_and_up_mtu_changed_moved_away() {
    let (node, daemon, pods) = node_with_pods(&switchd(), 2);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    node.net.ip("link set pod2 down");
    wait_until("down", LONG, || is(&daemon, "pod2", PortState::Down));
    assert!(daemon.port("pod2").reason.unwrap().contains("is down"));
    node.net.ip("link set pod2 up");
    wait_until("up", LONG, || is(&daemon, "pod2", PortState::Up));
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));

    node.net.ip("link set pod2 mtu 1000");
    wait_until("the MTU is known", LONG, || daemon.port("pod2").mtu == 1000);
    let before = daemon.drops("mtu-exceeded");
    raw(&pods[0]).send(&plain(EVERYBODY, station(1), 1, 14 + 1001));
    wait_until("too large", LONG, || daemon.drops("mtu-exceeded") > before);
    node.net.ip("link set pod2 mtu 1500");
    wait_until("the MTU is known", LONG, || daemon.port("pod2").mtu == 1500);

    let elsewhere = switch_lab::Net::new("elsewhere");
    node.net.ip(&format!("link set pod2 netns {}", elsewhere.name()));
    wait_until("moved away", LONG, || is(&daemon, "pod2", PortState::Down));
    assert!(!elsewhere.ip("link show dev pod2").contains("xdp"), "our program went with the device");
    elsewhere.ip(&format!("link set pod2 netns {}", node.net.name()));
    node.net.ip("link set pod2 up");
    wait_until("back", LONG, || is(&daemon, "pod2", PortState::Up));
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}

/// Jumbo frames lie in several of the kernel's buffers and are one frame inside: joined, switched, cut again.
#[test]
fn an_mtu_of_9000_works_and_may_change_while_traffic_flows() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods: Vec<_> = (1..=3).map(|n| node.pod(n)).collect();
    let set_mtu = |pod: &Pod, mtu: u16| {
        node.net.ip(&format!("link set {} mtu {mtu}", pod.device));
        pod.net.ip(&format!("link set eth0 mtu {mtu}"));
    };
    for pod in &pods[..2] {
        set_mtu(pod, 9000);
    }
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    assert_eq!(daemon.port("pod1").mtu, 9000);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let ping = |size: u16, to: &str| {
        let line = format!("ping -n -M do -c 3 -i 0.05 -W 3 -s {size} {to}");
        pods[0].net.try_run(&line).status.success()
    };
    for size in [1700, 1792, 1793, 3584, 5000, 8972] {
        assert!(ping(size, "10.66.0.2"), "a ping of {size} bytes\n{:?}", daemon.stats());
        assert!(ping(size.min(8952), "fd66::2"), "a ping of {size} bytes over IPv6");
    }
    // TCP with segments of that size, every byte checked, unfinished checksums and all.
    for to in ["10.66.0.2", "fd66::2"] {
        let arrived = transfer::tcp(&pods[0].net, &pods[1].net, to.parse().unwrap(), 5_000_000);
        assert_eq!(arrived, 5_000_000, "TCP over {to}");
    }
    assert_eq!(transfer::checksum_errors(&pods[1].net), 0);
    // The third port's device takes no such frame.
    let before = daemon.drops("mtu-exceeded");
    let line = "ping -n -M do -c 1 -W 1 -s 5000 10.66.0.3";
    assert!(!pods[0].net.try_run(line).status.success() && daemon.drops("mtu-exceeded") > before);
    // It gets one that does, while it is a port.
    set_mtu(&pods[2], 9000);
    wait_until("opened for large frames", LONG, || ping(5000, "10.66.0.3"));
    set_mtu(&pods[2], 1500);
    wait_until("and for small ones again", LONG, || {
        daemon.port("pod3").mtu == 1500 && pods[0].reaches("10.66.0.3")
    });
    daemon.assert_conserved();
}

#[test]
fn a_device_is_probed_and_left_as_it_was() {
    let (node, daemon, _pods) = node_with_pods(&switchd(), 1);
    let probe = |device: &str| {
        let request = Request::PortProbe(switch_api::ByDevice { device: device.into() });
        daemon.client().call::<switch_api::ProbeReply>(&request)
    };
    let pod = node.pod(2);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = descriptors();
    let reply = probe(&pod.device).unwrap();
    let works = |what: &str| reply.tried.iter().find(|tried| tried.what == what).unwrap().works;
    assert!(!works("zero-copy") && works("native") && works("generic"), "{reply:?}");
    assert_eq!((reply.choice.as_deref(), reply.mtu, reply.queues), (Some("native"), 1500, 1));
    assert!(!xdp_program(&node, &pod.device), "the probe left its program behind");
    wait_until("no descriptor is left over", LONG, || descriptors() <= before);
    // What it said is what a port gets.
    daemon.attach(&pod, "br0", PortSettings::default());
    assert_eq!(daemon.port(&pod.device).mode.as_deref(), Some("native"));
    assert_eq!(probe(&pod.device).unwrap_err().code, Code::Busy);
    assert_eq!(probe("nosuch").unwrap_err().code, Code::NotFound);
    daemon.assert_conserved();
}

#[test]
fn mistakes_are_refused_with_the_reason_and_change_nothing() {
    let (node, daemon, _pods) = node_with_pods(&switchd(), 1);
    let error = refusal(&daemon, xdp_port("nosuch", "br0", PortSettings::default()));
    assert_eq!((error.code, error.data.field.as_deref()), (Code::NotFound, Some("device")));
    let error = refusal(&daemon, xdp_port("pod1", "br0", PortSettings::default()));
    assert_eq!(error.code, Code::Exists);
    let mut twice = xdp_port("pod1", "br0", PortSettings::default());
    twice.name = "other".parse().unwrap();
    assert_eq!(refusal(&daemon, twice).data.field.as_deref(), Some("device"));

    node.net.ip("link add down0 type veth peer name down1");
    let error = refusal(&daemon, xdp_port("down0", "br0", PortSettings::default()));
    assert!(error.message.contains("is down") && error.data.hint.is_some(), "{error:?}");
    node.net.ip("link set down0 up mtu 40000");
    let error = refusal(&daemon, xdp_port("down0", "br0", PortSettings::default()));
    assert!(error.message.contains("MTU"), "{error:?}");

    // veth has no zero-copy: asked for it by name, that is an error and not something slower.
    node.net.ip("link set down0 mtu 1500");
    let mut zero_copy = xdp_port("down0", "br0", PortSettings::default());
    if let PortKind::Xdp { mode, .. } = &mut zero_copy.kind {
        *mode = XdpMode::ZeroCopy;
    }
    assert!(refusal(&daemon, zero_copy).message.contains("bind"));
    assert!(!xdp_program(&node, "down0"), "a refused port left its program behind");
    let ports: Vec<switch_api::PortStatus> = daemon.call(&Request::PortList(Default::default()));
    assert_eq!(ports.len(), 1);
    daemon.assert_conserved();
}

#[test]
fn a_foreign_program_is_left_alone() {
    let (node, daemon, pods) = node_with_pods(&switchd(), 1);
    // A second daemon on the same device is as foreign as any other program.
    let second = Node::new();
    let mut words = switchd();
    words.words = vec![format!("--bpffs={}", second.directory().join("bpf").display())];
    let socket = second.directory().join("second.sock");
    let mut command = node.net.command(&words.switchd.display().to_string());
    let child =
        command.arg("--socket").arg(&socket).args(&words.words).stderr(std::process::Stdio::null()).spawn();
    let mut child = child.unwrap();
    let mut client = None;
    wait_until("the second daemon serves", LONG, || {
        client = switch_api::Client::connect(&socket, LONG).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    let bridge = switch_api::Bridge::new("br0".parse().unwrap());
    client.call::<Done>(&Request::BridgeAdd(bridge)).unwrap();
    let port = Request::PortAdd(Box::new(xdp_port("pod1", "br0", PortSettings::default())));
    let error = client.call::<Done>(&port).unwrap_err();
    assert_eq!(error.code, Code::Busy);
    assert!(error.message.contains("another XDP program"), "{error:?}");
    client.call::<Done>(&Request::Stop(switch_api::Stop { detach: true })).unwrap();
    child.wait().unwrap();
    assert!(xdp_program(&node, "pod1") && is(&daemon, "pod1", PortState::Up));
    drop(pods);
}

#[test]
fn generic_mode_works_and_is_reported() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    for pod in &pods {
        let mut port = xdp_port(&pod.device, "br0", PortSettings::default());
        if let PortKind::Xdp { mode, .. } = &mut port.kind {
            *mode = XdpMode::Generic;
        }
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
        assert_eq!(daemon.port(&pod.device).mode.as_deref(), Some("generic"));
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}

/// A port whose dead-man time is short, which takes what it is told and does when dead what follows from that.
fn mortal(pod: &Pod, takes: Take) -> Request {
    let mut port = xdp_port(&pod.device, "br0", PortSettings::default());
    if let PortKind::Xdp { take, when_dead, dead_after_ms, .. } = &mut port.kind {
        (*take, *dead_after_ms) = (takes, 200);
        assert_eq!(*when_dead, None);
    }
    Request::PortAdd(Box::new(port))
}

#[test]
fn the_dead_man_decides_while_the_daemon_is_stopped_or_gone() {
    let node = Node::new();
    let mut daemon = node.start(&switchd().keeping_state());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2), node.pod(3)];
    let ours = TakeRule { ethertype: u16::from_be_bytes(ETHERTYPE), destination: None };
    let shared = Take::Matching { rules: vec![ours] };
    for (pod, takes) in pods.iter().zip([Take::Everything, shared, Take::Everything]) {
        let _: Done = daemon.call(&mortal(pod, takes));
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.3"));
    let host = |device: &str| RawSocket::open(&node.net, device).unwrap();
    let (on_drop, on_pass) = (host("pod1"), host("pod2"));
    let reaches_host = |mark: u8| {
        // A frame that the program passes shows up on the host's end of the cable.
        raw(&pods[0]).send(&plain(EVERYBODY, station(1), mark, 60));
        raw(&pods[1]).send(&plain(EVERYBODY, station(2), mark, 60));
        let seen = |socket: &RawSocket, limit| {
            socket.recv(limit, |frame| has_mark(frame, mark) && frame[6..12] != EVERYBODY.0).is_some()
        };
        let passes = seen(&on_pass, LONG);
        (seen(&on_drop, SHORT), passes)
    };
    // Frames that the switch sends out by a device are seen there too, so senders count only while it is dead.
    daemon.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(reaches_host(1), (false, true), "stopped: a pod port drops, an uplink passes");
    daemon.signal(Signal::CONT);
    wait_until("ping after SIGCONT", LONG, || pods[0].reaches("10.66.0.3"));

    let before = link(&node, "pod1");
    daemon.kill();
    assert!(xdp_program(&node, "pod1"), "the pinned program vanished with the process");
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(reaches_host(2), (false, true), "killed: the same");

    // The next daemon takes the links over and the same ports serve again.
    let daemon = node.start(&switchd().keeping_state());
    for pod in &pods {
        assert!(is(&daemon, &pod.device, PortState::Up), "{}", daemon.log());
    }
    let after = link(&node, "pod1");
    assert_eq!(
        after.0, before.0,
        "the program was taken off and put on again: frames passed unguarded in between"
    );
    assert_ne!(after.1, before.1, "the program is still the dead daemon's");
    wait_until("ping after the restart", LONG, || pods[0].reaches("10.66.0.3"));
    daemon.assert_conserved();
}

#[test]
fn stopping_leaves_the_programs_or_takes_them_off() {
    let (node, mut daemon, _pods) = node_with_pods(&switchd().keeping_state(), 1);
    daemon.stop(false);
    assert!(xdp_program(&node, "pod1"));
    let mut daemon = node.start(&switchd().keeping_state());
    assert!(is(&daemon, "pod1", PortState::Up));
    daemon.stop(true);
    assert!(!xdp_program(&node, "pod1"));
    assert!(!node.directory().join("bpf").exists(), "the bpffs is still there");
}

#[test]
fn a_device_hears_everything_for_as_long_as_it_is_a_port() {
    let (node, mut daemon, pods) = node_with_pods(&switchd(), 2);
    let hears_all = |device: &str| node.net.ip(&format!("-d link show {device}")).contains("promiscuity 1");
    assert!(hears_all("pod1") && hears_all("pod2"));
    let _: Done = daemon.call(&Request::PortDelete(ByName { name: "pod1".parse().unwrap() }));
    assert!(!hears_all("pod1") && hears_all("pod2"));
    daemon.kill();
    wait_until("the kernel forgets who asked", LONG, || !hears_all("pod2"));
    drop(pods);
}

#[test]
fn the_match_table_shares_a_device_with_the_host() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    let rule = |ethertype, destination: Option<&str>| TakeRule {
        ethertype,
        destination: destination.map(str::to_owned),
    };
    let mut port = xdp_port("pod1", "br0", PortSettings::default());
    if let PortKind::Xdp { take, .. } = &mut port.kind {
        let rules = vec![
            rule(0x0800, Some("10.66.0.2/31")),
            rule(0x86dd, Some("fd66::/64")),
            rule(u16::from_be_bytes(switch_lab::frames::ETHERTYPE), None),
        ];
        *take = Take::Matching { rules };
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    daemon.attach(&pods[1], "br0", PortSettings::default());
    let (sender, receiver) = (raw(&pods[0]), raw(&pods[1]));
    let ipv4 = |destination: [u8; 4]| {
        let mut frame = plain(station(2), station(1), 7, 60);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14..34].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 253, 0, 0, 10, 66, 0, 1, 0, 0, 0, 0]);
        frame[30..34].copy_from_slice(&destination);
        frame
    };
    let arrives_within = |frame: Vec<u8>, limit| {
        sender.send(&frame);
        receiver.recv(limit, |got| got == frame).is_some()
    };
    let arrives = |frame| arrives_within(frame, LONG);
    let is_heard = |frame| arrives_within(frame, SHORT);
    assert!(arrives(plain(station(2), station(1), 1, 60)), "by EtherType");
    assert!(arrives(ipv4([10, 66, 0, 2])) && arrives(ipv4([10, 66, 0, 3])), "inside the prefix");
    assert!(!is_heard(ipv4([10, 66, 0, 4])) && !is_heard(ipv4([11, 66, 0, 2])), "outside of it");
    let before = daemon.port("pod1").counters.rx_packets;
    let mut arp = plain(EVERYBODY, station(1), 1, 60);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    sender.send(&arp);
    std::thread::sleep(SHORT);
    assert_eq!(daemon.port("pod1").counters.rx_packets, before, "what no rule takes belongs to the host");
}

/// A peer that takes nothing is in `trouble`.
#[test]
fn a_flood_through_a_small_pool_disturbs_no_other_port() {
    let (node, daemon, pods) = node_with_pods(&switchd().with("--frames 512"), 3);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    // More ports than the pool can fill generously, and a flood through them.
    let flood = pods[0].net.spawn("ping -q -f -s 1400 -w 2 10.66.0.2");
    let steady = pods[2].net.spawn("ping -q -i 0.02 -c 100 10.66.0.1");
    let steady = String::from_utf8(steady.finish().stdout).unwrap();
    assert!(steady.contains(" 0% packet loss"), "{steady}");
    flood.finish();
    let _ = node;
    daemon.assert_conserved();
}

#[test]
fn a_hundred_attachments_under_traffic_lose_no_frame_and_no_descriptor() {
    let (_node, daemon, pods) = node_with_pods(&switchd(), 2);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let churn = |times| {
        for _ in 0..times {
            let _: Done = daemon.call(&Request::PortDelete(ByName { name: "pod2".parse().unwrap() }));
            daemon.attach(&pods[1], "br0", PortSettings::default());
        }
    };
    churn(3);
    let before = descriptors();
    let _load = pods[0].net.spawn("ping -q -f -w 20 10.66.0.2");
    churn(100);
    // The daemon hears of a client that hung up a moment later than the client.
    wait_until("no descriptor is left over", LONG, || descriptors() <= before);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}

#[test]
fn a_capture_is_replayed_in_and_written_out() {
    let (node, daemon, pods) = node_with_pods(&switchd(), 1);
    let (input, output) = (node.directory().join("in.pcap"), node.directory().join("out.pcap"));
    let frames: Vec<_> = (0..150u8).map(|n| plain(EVERYBODY, station(1), n, 60 + usize::from(n))).collect();
    std::fs::write(&input, pcap(&frames)).unwrap();
    let socket = raw(&pods[0]);
    let port = switch_api::Port::new(
        "replay".parse().unwrap(),
        "br0".parse().unwrap(),
        PortKind::Pcap { read: Some(input.display().to_string()), write: Some(output.display().to_string()) },
    );
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    for frame in &frames {
        assert!(socket.recv(LONG, |got| got == *frame).is_some(), "{} bytes", frame.len());
    }
    assert_eq!(
        daemon.drops_at("replay", "port-closed"),
        0,
        "a port is read when its policy is in force, not before"
    );
    let answer = plain(station(1), station(9), 77, 100);
    socket.send(&answer);
    wait_until("it is written", LONG, || daemon.port("replay").counters.tx_packets > 0);
    // A program that is not ours reads the file.
    let shown = switch_lab::net::run("tcpdump", &["-nn", "-e", "-r", &output.display().to_string()]);
    assert!(shown.contains("02:aa:00:00:00:09 > 02:aa:00:00:00:01"), "{shown}");
    daemon.assert_conserved();
}

/// A pcap file as libpcap writes it, microsecond kind.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_ne_bytes());
    }
    for frame in frames {
        for word in [1, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(frame);
    }
    file
}
