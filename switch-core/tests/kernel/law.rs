//! The law of packets beside real kernels: what pods sent is what came in and what the kernel dropped before it did, by name.

use crate::switchd;
use rustix::process::Signal;
use std::net::UdpSocket;
use std::time::Duration;
use switch_api::{ByName, Done, PacketCounts, PortSettings, Request};
use switch_lab::trouble::Hung;
use switch_lab::{Daemon, Net, Node, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(20);
/// Longer than nobody may beat.
const DEAD: Duration = Duration::from_millis(1300);

/// Sends datagrams to nobody's port, as fast as it can.
fn flood(net: &Net, to: &'static str, count: usize) {
    net.inside(move || send(to, count)).join().unwrap();
}

/// The same, in the namespace of the calling thread.
fn send(to: &str, count: usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    (0..count).for_each(|_| _ = socket.send_to(&[7; 100], (to, 9)));
}

/// Two pods that know each other, the first by a TAP, the second by AF_XDP.
fn tap_and_xdp(node: &Node, daemon: &Daemon) -> [Pod; 2] {
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.pod(2)];
    daemon.attach_tap(&pods[0], "br0", PortSettings::default());
    daemon.attach(&pods[1], "br0", PortSettings::default());
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2") && pods[1].reaches("10.66.0.1"));
    pods
}

/// The law, term by term. True at rest alone: nobody sends any more.
fn holds(packets: &PacketCounts) -> bool {
    let from = packets.received + packets.outside + packets.copied + packets.generated;
    from == packets.sent + packets.consumed + packets.dropped + packets.waiting && packets.unaccounted == 0
}

fn lost(daemon: &Daemon, port: &str, reasons: &[&str]) -> u64 {
    reasons.iter().map(|reason| daemon.drops_at(port, reason)).sum()
}

#[test]
fn what_a_pod_sent_came_in_or_the_kernel_dropped_it_by_name() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    let pods = tap_and_xdp(&node, &daemon);
    let came = |port: &str| daemon.port(port).counters.rx_packets;
    let by_xdp = || {
        let (sent, _) = pods[1].sent().unwrap();
        sent.saturating_sub(came("pod2") + lost(&daemon, "pod2", &["rx-missed", "dead-man"]))
    };
    // The cable was there before the port: what its pod said by then nobody heard. On the way is nothing for so long.
    let unheard = std::iter::repeat_with(|| (by_xdp(), std::thread::sleep(MOMENT)).0).take(20).min().unwrap();
    daemon.signal(Signal::STOP);
    flood(&pods[0].net, "10.66.0.2", 5000);
    flood(&pods[1].net, "10.66.0.1", 5000);
    std::thread::sleep(DEAD);
    flood(&pods[1].net, "10.66.0.1", 700);
    daemon.signal(Signal::CONT);
    // Both kernels say more than was asked of them (neighbour discovery), so it is they who say how much it was.
    wait_until("what the TAP's pod sent is all there", LONG, || {
        let (sent, dropped) = pods[0].sent().unwrap();
        came("tap1") == sent && lost(&daemon, "tap1", &["device-full"]) == dropped
    });
    wait_until("what the other's sent is all there", LONG, || by_xdp() == unheard);
    assert!(lost(&daemon, "tap1", &["device-full"]) > 1000);
    assert!(lost(&daemon, "pod2", &["rx-missed"]) > 1000);
    assert!(lost(&daemon, "pod2", &["dead-man"]) >= 700);
    wait_until("the law holds at rest", LONG, || holds(&daemon.stats().packets));
    let outside = daemon.stats().packets.outside;
    // The sum knows ports that are gone, too.
    let _: Done = daemon.call(&Request::PortDelete(ByName { name: "tap1".parse().unwrap() }));
    assert!(daemon.stats().packets.outside >= outside);
    wait_until("the law holds without the port", LONG, || holds(&daemon.stats().packets));
    daemon.assert_conserved();
}

/// Packets of which the switch, or the kernel for it, knows what became.
fn known(daemon: &Daemon) -> u64 {
    let packets = daemon.stats().packets;
    packets.received + packets.outside
}

/// Packets that pods' devices have sent, or dropped instead.
fn said(pods: &[Pod]) -> u64 {
    pods.iter().map(|pod| pod.sent().unwrap()).map(|(sent, dropped)| sent + dropped).sum()
}

fn delete(daemon: &Daemon, port: &str) -> Result<Done, switch_api::ApiError> {
    daemon.client().call(&Request::PortDelete(ByName { name: port.parse().unwrap() }))
}

/// Nobody asked for counters between the drops and the port's end.
#[test]
fn what_a_port_lost_shortly_before_it_was_deleted_is_in_the_sum() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    let pods = tap_and_xdp(&node, &daemon);
    let before = (known(&daemon), said(&pods));
    daemon.signal(Signal::STOP);
    flood(&pods[0].net, "10.66.0.2", 5000);
    std::thread::sleep(DEAD);
    flood(&pods[1].net, "10.66.0.1", 700);
    daemon.signal(Signal::CONT);
    // What waits in the TAP's queue comes in.
    std::thread::sleep(DEAD);
    let sent = said(&pods) - before.1;
    assert!(sent >= 5700, "{sent}");
    for port in ["tap1", "pod2"] {
        delete(&daemon, port).unwrap();
    }
    let known = known(&daemon) - before.0;
    assert!(known >= sent, "of {sent} packets only {known} are known");
    wait_until("the law holds", LONG, || holds(&daemon.stats().packets));
    daemon.assert_conserved();
}

/// The kernel had received packets that nobody took in any more, and lost others that nobody asked it for.
#[test]
fn what_lay_in_a_sockets_ring_when_its_port_was_deleted_is_in_the_sum() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    let pods = tap_and_xdp(&node, &daemon);
    let before = (known(&daemon), said(&pods));
    let hung = Hung::thread(daemon.pid(), "worker-0").unwrap();
    // At once: a little later its program drops what comes.
    flood(&pods[1].net, "10.66.0.1", 500);
    let sent = said(&pods) - before.1;
    let late = delete(&daemon, "pod2").unwrap_err();
    assert!(late.message.contains("worker 0"), "{late:?}");
    drop(hung);
    let gone = || known(&daemon).saturating_sub(before.0);
    wait_until("all are known", LONG, || gone() >= sent);
    wait_until("the law holds", LONG, || holds(&daemon.stats().packets));
    daemon.assert_conserved();
}

/// The kernel's thread between the two ends of the cable does not keep up with several cores that send.
#[test]
fn what_finds_no_room_on_a_cable_is_told_of_though_the_pods_end_alone_counts_it() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    let pods = tap_and_xdp(&node, &daemon);
    let threaded = "echo 1 > /sys/class/net/pod2/threaded";
    switch_lab::net::run("ip", &["netns", "exec", node.net.name(), "sh", "-c", threaded]);
    let ways = ["rx-missed", "dead-man", "port-closed", "device-full"];
    let told = || daemon.port("pod2").counters.rx_packets + lost(&daemon, "pod2", &ways);
    let at_the_pod = || pods[1].sent().unwrap();
    let (sent, full) = at_the_pod();
    let before = sent - told();
    wait_until("the cable is full", LONG, || {
        let senders: Vec<_> = (0..4).map(|_| pods[1].net.inside(|| send("10.66.0.1", 20_000))).collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        at_the_pod().1 > full
    });
    wait_until("all is told of", LONG, || {
        let (sent, full) = at_the_pod();
        // Not twice either.
        sent + full - told() == before && lost(&daemon, "pod2", &["device-full"]) == full
    });
    wait_until("the law holds", LONG, || holds(&daemon.stats().packets));
    daemon.assert_conserved();
}

#[test]
fn a_daemon_that_comes_back_tells_what_its_absence_cost() {
    let node = Node::new();
    let options = switchd().keeping_state();
    let mut daemon = node.start(&options);
    let pods = tap_and_xdp(&node, &daemon);
    // Nobody has looked at the TAP's device since when it is killed.
    daemon.signal(Signal::STOP);
    flood(&pods[0].net, "10.66.0.2", 5000);
    daemon.kill();
    std::thread::sleep(DEAD);
    flood(&pods[0].net, "10.66.0.2", 300);
    flood(&pods[1].net, "10.66.0.1", 300);
    daemon = node.start(&options);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let dead = lost(&daemon, "pod2", &["dead-man"]);
    assert!(dead >= 300, "{dead}");
    let (full, dropped) = (lost(&daemon, "tap1", &["device-full"]), pods[0].sent().unwrap().1);
    assert!(full > 1000 && full == dropped, "{full} of {dropped}");
    wait_until("the law holds at rest", LONG, || holds(&daemon.stats().packets));
}
