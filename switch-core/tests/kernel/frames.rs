//! Frames that no honest pod sends, through real kernels: what arrives of them, under which name the rest is counted, and that
//! nothing else is lost.

use crate::switchd;
use etherparse::PacketBuilder;
use std::time::Duration;
use switch_api::{Done, PortKind, PortSettings, Request, Vid, VidRange, Vlan};
use switch_lab::frames::{has_mark, plain, station, tagged};
use switch_lab::transfer::checksum_errors;
use switch_lab::{Daemon, Net, Node, Pod, RawSocket, wait_until};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

fn raw(net: &Net) -> RawSocket {
    RawSocket::open(net, "eth0").unwrap()
}

/// A pcap file as libpcap writes it, microsecond kind.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut words = vec![0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1];
    let mut file: Vec<u8> = words.drain(..).flat_map(u32::to_ne_bytes).collect();
    for frame in frames {
        let head = [1, 0, frame.len() as u32, frame.len() as u32];
        file.extend(head.into_iter().flat_map(u32::to_ne_bytes));
        file.extend(frame);
    }
    file
}

/// No kernel sends a frame without a header, and few let one out that is too long: a capture has them all.
#[test]
fn runts_and_giants_are_counted_by_name_and_what_is_between_them_arrives() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let (xdp, tap) = (node.pod(1), node.bare_pod(2));
    daemon.attach(&xdp, "br0", PortSettings::default());
    daemon.attach_tap(&tap, "br0", PortSettings::default());
    let sockets = [raw(&xdp.net), raw(&tap.net)];
    let everybody = switch_api::Mac([0xff; 6]);
    let good = |n: u8| plain(everybody, station(1), n, 60 + usize::from(n));
    let runts = (0..14).map(|len| good(0)[..len].to_vec());
    let runts = runts.chain((14..18).map(|len| tagged(everybody, station(1), 0, 0, 60)[..len].to_vec()));
    // Too long for the ports, and too long for a frame of packet memory.
    let giants =
        [1515, 1792].into_iter().chain([1793, 5000, 60_000]).map(|len| plain(everybody, station(1), 0, len));
    let wrong: Vec<_> = runts.chain(giants).collect();
    let mut frames = Vec::new();
    for (n, wrong) in wrong.iter().enumerate() {
        frames.extend([good(n as u8 + 1), wrong.clone()]);
    }
    let path = node.directory().join("in.pcap");
    std::fs::write(&path, pcap(&frames)).unwrap();
    let kind = PortKind::Pcap { read: Some(path.display().to_string()), write: None };
    let port = switch_api::Port::new("replay".parse().unwrap(), "br0".parse().unwrap(), kind);
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    for socket in &sockets {
        for n in 1..=wrong.len() as u8 {
            assert!(
                socket.recv(LONG, |frame| frame == good(n)).is_some(),
                "frame {n}\n{:?}",
                daemon.stats().drops
            );
        }
    }
    let drops = || (daemon.drops("runt"), daemon.drops("giant"), daemon.drops("mtu-exceeded"));
    wait_until("all are counted", LONG, || drops() == (18, 3, 4));
    daemon.assert_conserved();
}

/// An IPv4 packet for a pod, with a wrong byte at each of these places.
fn packet(to: &Pod, is_tcp: bool, wrong_at: &[usize]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(station(1).0, to.mac().0);
    let ip = ethernet.ipv4([10, 66, 0, 77], [10, 66, 0, to.number()], 9);
    let mut frame = Vec::new();
    match is_tcp {
        true => ip.tcp(80, 90, 3, 4).write(&mut frame, &[7; 30]).unwrap(),
        false => ip.udp(80, 90).write(&mut frame, &[7; 30]).unwrap(),
    }
    wrong_at.iter().for_each(|at| frame[*at] ^= 0x5a);
    frame
}

/// From a pod to a pod of each kind: as they are, whatever a router or a receiver would say of them. And the receiver's kernel
/// sees that they are wrong: nobody told it that they are still to be finished.
#[test]
fn wrong_checksums_and_service_tags_cross_as_they_are() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2), node.bare_pod(3), node.bare_pod(4)];
    pods[..2].iter().for_each(|pod| daemon.attach(pod, "br0", PortSettings::default()));
    pods[2..].iter().for_each(|pod| daemon.attach_tap(pod, "br0", PortSettings::default()));
    let sockets = pods.each_ref().map(|pod| raw(&pod.net));
    let (header, tcp, udp) = (14 + 10, 34 + 16, 34 + 6);
    let wrong = [
        ("a wrong IPv4 header checksum", false, vec![header]),
        ("a wrong TCP checksum", true, vec![tcp]),
        ("a wrong UDP checksum", false, vec![udp]),
        ("both wrong", true, vec![header, tcp]),
    ];
    let mut service = plain(switch_api::Mac([0xff; 6]), station(1), 5, 70);
    service[12..20].copy_from_slice(&[0x88, 0xa8, 0, 77, 0x81, 0, 0, 99]);
    for sender in [0, 2] {
        for receiver in (0..4).filter(|receiver| *receiver != sender) {
            let arrives = |what: &str, frame: &[u8]| {
                // Each sender is a station of its own.
                let frame = [&frame[..6], &station(sender as u8 + 1).0, &frame[12..]].concat();
                sockets[sender].send(&frame);
                let arrived = sockets[receiver].recv(LONG, |got| got == frame);
                assert!(arrived.is_some(), "{what}, from pod {} to {}", sender + 1, receiver + 1);
            };
            let net = &pods[receiver].net;
            let errors = checksum_errors(net);
            for (what, is_tcp, wrong_at) in &wrong {
                arrives(what, &packet(&pods[receiver], *is_tcp, wrong_at));
            }
            wait_until("its kernel sees what is wrong", LONG, || checksum_errors(net) == errors + 4);
            arrives("a right checksum", &packet(&pods[receiver], false, &[]));
            arrives("a service tag, and a customer tag in it", &service);
            assert_eq!(checksum_errors(net), errors + 4, "what is right is wrong for it");
        }
    }
    let drops = daemon.stats().drops;
    // A pod speaks before its port is open.
    let expected = ["no-other-member", "port-closed", "rx-missed"];
    assert!(drops.iter().all(|drop| expected.contains(&drop.reason.as_str())), "{drops:?}");
    daemon.assert_conserved();
}

fn vid(n: u32) -> Vid {
    Vid::try_from(n).unwrap()
}

/// Two C-tags: the outer one is the VLAN, and there is no way by the inner one into another.
#[test]
fn a_tag_in_a_tag_is_no_way_into_another_vlan() {
    let node = Node::new();
    let daemon: Daemon = node.start(&switchd());
    daemon.bridge("br0");
    let access = |n| PortSettings { vlan: Vlan::Access { vid: vid(n) }, ..PortSettings::default() };
    let trunk = PortSettings {
        vlan: Vlan::Trunk { vids: vec![VidRange { first: vid(10), last: vid(99) }], native: None },
        ..PortSettings::default()
    };
    let pods = [(trunk, node.pod(1)), (access(10), node.pod(2)), (access(99), node.pod(3))];
    for (settings, pod) in &pods {
        daemon.attach(pod, "br0", settings.clone());
    }
    let sockets: Vec<_> = pods.iter().map(|(_, pod)| raw(&pod.net)).collect();
    let everybody = switch_api::Mac([0xff; 6]);
    let inner = tagged(everybody, station(1), 99, 7, 70);
    let double = [&inner[..12], &[0x81, 0, 0, 10], &inner[12..]].concat();
    sockets[0].send(&double);
    let got = sockets[1].recv(LONG, |frame| has_mark(frame, 7)).unwrap();
    assert_eq!(got, inner, "the outer tag is the port's VLAN, the inner one is payload");
    assert!(sockets[2].recv(SHORT, |frame| has_mark(frame, 7)).is_none(), "it hopped into another VLAN");
    // An access port takes no tag, however many follow; what comes behind it passes.
    sockets[1].send(&double);
    sockets[1].send(&plain(everybody, station(2), 8, 60));
    wait_until("it is counted", LONG, || daemon.drops("vlan-tagged") == 1);
    let got = sockets[0].recv(LONG, |frame| has_mark(frame, 8)).unwrap();
    assert_eq!(got[12..16], [0x81, 0, 0, 10]);
    daemon.assert_conserved();
}
