//! Segments that come from an xdp port and leave by a TAP joined: what the pod's kernel makes of them.

use etherparse::PacketBuilder;
use std::time::Duration;
use switch_api::PortSettings;
use switch_lab::transfer::{checksum_errors, tcp};
use switch_lab::{Daemon, Net, Node, Options, Pod, RawSocket, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// A pod by XDP and one by TAP, `10.66.0.1` and `10.66.0.2`.
fn xdp_and_tap() -> (Node, Daemon, Pod, Pod) {
    let node = Node::new();
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")));
    daemon.bridge("br0");
    let (xdp, tap) = (node.pod(1), node.bare_pod(2));
    daemon.attach(&xdp, "br0", PortSettings::default());
    daemon.attach_tap(&tap, "br0", PortSettings::default());
    for address in ["10.66.0.2", "fd66::2"] {
        wait_until("ping", LONG, || xdp.reaches(address));
    }
    (node, daemon, xdp, tap)
}

/// Packets and bytes that a pod's device has received: what the switch wrote.
fn received(net: &Net) -> (u64, u64) {
    let said: serde_json::Value = serde_json::from_str(&net.ip("-s -j link show eth0")).unwrap();
    let count = |name: &str| said[0]["stats64"]["rx"][name].as_u64().unwrap();
    (count("packets"), count("bytes"))
}

#[test]
fn streams_side_by_side_arrive_whole_and_joined() {
    let (_node, daemon, xdp, tap) = xdp_and_tap();
    let before = received(&tap.net);
    let taken_in = daemon.port(&xdp.device).counters;
    let (bytes, addresses) = (30_000_000, ["10.66.0.2", "fd66::2"]);
    std::thread::scope(|scope| {
        for address in addresses {
            let (from, to) = (&xdp.net, &tap.net);
            scope.spawn(move || assert_eq!(tcp(from, to, address.parse().unwrap(), bytes), bytes));
        }
    });
    let after = received(&tap.net);
    let mean = (after.1 - before.1) / (after.0 - before.0);
    assert!(mean > 3000, "what was written had {mean} bytes on average");
    assert_eq!(checksum_errors(&tap.net), 0, "wrong checksums or headers");
    // The port counts the frames that it was given, not its writes.
    wait_until("as many frames went out as came in", LONG, || {
        let (came, left) = (daemon.port(&xdp.device).counters, daemon.port(&tap.device).counters);
        left.tx_packets >= came.rx_packets - taken_in.rx_packets
    });
    daemon.assert_conserved();
}

/// A segment of a stream that nobody listens to, its checksum finished.
fn segment(from: &Pod, to: &Pod, i: u32, payload: &[u8]) -> Vec<u8> {
    let address = |n: u8| [0xfd, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n];
    let sequence = 1000 + i * payload.len() as u32;
    let builder = PacketBuilder::ethernet2(from.mac().0, to.mac().0)
        .ipv6(address(1), address(2), 64)
        .tcp(7100, 7101, sequence, 1000)
        .ack(77);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

#[test]
fn a_flipped_byte_stays_the_receivers_to_see() {
    const SEGMENTS: u32 = 40;
    const FLIPPED: [u32; 2] = [10, 25];
    let (_node, daemon, xdp, tap) = xdp_and_tap();
    let socket = RawSocket::open(&xdp.net, "eth0").unwrap();
    let frames: Vec<_> = (0..SEGMENTS)
        .map(|i| {
            let mut frame = segment(&xdp, &tap, i, &[i as u8; 1000]);
            if FLIPPED.contains(&i) {
                *frame.last_mut().unwrap() ^= 1;
            }
            frame
        })
        .collect();
    // How many of them wait together is for the machine to say: until some have been joined.
    let mut wrong = 0;
    wait_until("some are joined", LONG, || {
        let (before, sent) = (received(&tap.net), daemon.port(&tap.device).counters.tx_packets);
        frames.iter().for_each(|frame| socket.send(frame));
        wrong += FLIPPED.len() as u64;
        wait_until("all went out", LONG, || {
            daemon.port(&tap.device).counters.tx_packets >= sent + u64::from(SEGMENTS)
        });
        received(&tap.net).0 - before.0 < u64::from(SEGMENTS)
    });
    wait_until("the wrong ones are seen", LONG, || checksum_errors(&tap.net) >= wrong);
    assert!(xdp.reaches("fd66::2"));
    assert_eq!(checksum_errors(&tap.net), wrong, "right ones were taken for wrong");
    daemon.assert_conserved();
}
