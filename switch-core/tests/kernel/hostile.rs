//! Pods that make things up: about their frames, and in the kernel's name.

use crate::sctp::sctp;
use crate::switchd;
use crate::tap::node_with_taps;
use std::time::Duration;
use switch_api::{PortSettings, PortState};
use switch_lab::frames::plain;
use switch_lab::{Node, RawSocket, wait_until};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_a_pod_makes_up_about_its_frames_is_refused_by_name() {
    let (_node, daemon, pods) = node_with_taps(&switchd(), 2);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let (to, from) = (pods[1].mac(), pods[0].mac());
    let unfinished_at = |start, field| [1, 0, 0, 0, 0, 0, start, 0, field, 0];
    let cases = [
        // In the CRC of an SCTP packet, and in what follows it.
        (unfinished_at(34, 8), sctp(to, from, 1)),
        (unfinished_at(50, 3), sctp(to, from, 1)),
        // In a frame that is no IP at all.
        (unfinished_at(20, 2), plain(to, from, 1, 60)),
    ];
    for (header, frame) in cases {
        let before = daemon.drops("vnet-checksum");
        let socket = RawSocket::open(&pods[0].net, "eth0").unwrap();
        assert!(socket.send_described(header, &frame), "the pod's own kernel refused {header:?}");
        wait_until("it is refused", LONG, || daemon.drops("vnet-checksum") > before);
    }
    // What follows a lie is not lost with it.
    assert!(pods[0].reaches("10.66.0.2") && pods[1].reaches("10.66.0.1"));
    daemon.assert_conserved();
}

/// Whoever administers a pod may send to the socket by which the daemon hears of the device in it, as the kernel does: that its device is gone.
#[test]
fn what_a_pod_says_in_the_kernels_name_is_not_heard() {
    let (_node, daemon, pods) = node_with_taps(&switchd(), 2);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let said = pods[0].net.run("ip -o link show eth0");
    let index: u32 = said.split(':').next().unwrap().parse().unwrap();
    // Proto 0 is NETLINK_ROUTE; who hears of devices has the first group.
    let listening = pods[0].net.run("cat /proc/net/netlink");
    let fields = listening.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let hears = fields.filter(|fields| fields[1] == "0" && fields[3].ends_with('1'));
    let ports: Vec<u32> = hears.map(|fields| fields[2].parse().unwrap()).collect();
    assert!(!ports.is_empty(), "{listening}");
    let gone = move || {
        let socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
        // RTM_DELLINK: struct nlmsghdr and struct ifinfomsg.
        let mut message = [32u32.to_ne_bytes(), [17, 0, 0, 0], [0; 4], [0; 4]].concat();
        message.extend([[0; 4], index.to_ne_bytes(), [0; 4], [0; 4]].concat());
        for port in ports {
            for _ in 0..100 {
                socket.send_to(&message, &netlink_sys::SocketAddr::new(port, 0), 0).unwrap();
            }
        }
    };
    pods[0].net.inside(gone).join().unwrap();
    // The daemon looks once a second.
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        daemon.port("tap1").state == PortState::Up && !daemon.log().contains("deleted"),
        "{}",
        daemon.log()
    );
    assert!(pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}

/// A pod says of a large frame that its checksum is far behind what the first piece of it holds: Linux would refuse that piece for ever, and
/// with it all that is behind.
#[test]
fn a_checksum_far_inside_a_jumbo_frame_stops_no_xdp_port() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let (from, to) = (node.bare_pod(1), node.pod(2));
    let settings = PortSettings { mtu: Some(3800), ..PortSettings::default() };
    node.net.ip(&format!("link set {} mtu 3800", to.device));
    to.net.ip("link set eth0 mtu 3800");
    daemon.attach_tap(&from, "br0", settings.clone());
    daemon.attach(&to, "br0", settings);
    wait_until("ping", LONG, || from.reaches(&to.ip));
    let [(src, src_mac), (dst, dst_mac)] = [&from, &to].map(|pod| ([10, 66, 0, pod.number()], pod.mac().0));
    let mut frame = Vec::new();
    let headers = etherparse::PacketBuilder::ethernet2(src_mac, dst_mac).ipv4(src, dst, 64).udp(9, 9);
    headers.write(&mut frame, &[0; 3000]).unwrap();
    let socket = RawSocket::open(&from.net, "eth0").unwrap();
    for start in [34u16, 1700, 1786, 2500, 3034] {
        let [low, high] = start.to_le_bytes();
        let before = daemon.port(&to.device).counters.tx_packets;
        assert!(socket.send_described([1, 0, 0, 0, 0, 0, low, high, 6, 0], &frame), "refused at {start}");
        wait_until("it was sent on", LONG, || daemon.port(&to.device).counters.tx_packets > before);
        assert!(from.reaches(&to.ip), "no more after {start}: {}", daemon.log());
    }
    from.net.run(&format!("ping -n -c 3 -W 2 -M do -s 3772 {}", to.ip));
    assert!(!daemon.log().contains("died"), "{}", daemon.log());
    daemon.assert_conserved();
}
