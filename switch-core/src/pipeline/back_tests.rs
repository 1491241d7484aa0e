//! Answers to what the node's kernel sent return to it; all else goes its own way.

use super::Now;
use crate::counter::DropReason;
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use etherparse::PacketBuilder;
use switch_api::PortSettings;

/// The node, and two pods.
const NODE: u8 = 0;
const A: u8 = 1;
const B: u8 = 2;

struct Lab {
    rig: Rig,
    peers: Vec<MemoryPeer>,
}

fn mac(n: u8) -> [u8; 6] {
    if n == NODE { [2, 0, 0, 0, 0xff, 0] } else { [2, 0, 0, 0, 0, n] }
}

fn ip(n: u8) -> [u8; 4] {
    [10, 0, 0, n]
}

impl Lab {
    /// `judged`: some port asks for its flows to be judged by.
    fn new(judged: bool) -> Self {
        let mut rig = Rig::new(Size::default());
        let mut peers = Vec::new();
        for n in [NODE, A, B] {
            let (port, peer) = memory::wire();
            let settings =
                PortSettings { return_flows: n == NODE, track: judged && n == B, ..PortSettings::default() };
            rig.add_port(&format!("p{n}"), settings, Box::new(port), 0).unwrap();
            peers.push(peer);
        }
        let mut lab = Self { rig, peers };
        for n in [NODE, A, B] {
            let mut frame = vec![0xff; 60];
            frame[6..12].copy_from_slice(&mac(n));
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            lab.send(n, frame);
        }
        lab
    }

    /// Where it comes out, and as what.
    fn send(&mut self, from: u8, frame: Vec<u8>) -> Vec<(u8, Vec<u8>)> {
        assert!(self.peers[usize::from(from)].send(frame));
        self.rig.settle(Now { ns: 1_000_000_000_000 });
        self.rig.assert_conserved();
        let each = (NODE..=B).zip(&mut self.peers);
        each.flat_map(|(n, peer)| std::iter::from_fn(|| peer.recv()).map(move |frame| (n, frame))).collect()
    }
}

/// From a station, in the name of an address, to a station and address.
fn udp(station: u8, from: u8, to: u8, ports: (u16, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(mac(station), mac(to)).ipv4(ip(from), ip(to), 64);
    builder.udp(ports.0, ports.1).write(&mut frame, &[7; 20]).unwrap();
    frame
}

fn tcp_in_the_middle(from: u8, to: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(mac(from), mac(to)).ipv4(ip(from), ip(to), 64);
    builder.tcp(1000, 80, 77, 8000).ack(5).write(&mut frame, &[7; 20]).unwrap();
    frame
}

/// "Port unreachable" (RFC 792) about `about`, a frame.
fn unreachable(from: u8, to: u8, about: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(mac(from), mac(to)).ipv4(ip(from), ip(to), 64);
    builder.icmpv4_raw(3, 3, [0; 4]).write(&mut frame, &about[14..42]).unwrap();
    frame
}

#[test]
fn an_answer_to_what_the_node_sent_returns_to_it() {
    for judged in [false, true] {
        let mut lab = Lab::new(judged);
        // The kernel has translated the destination of what A asked.
        let asked = udp(NODE, A, B, (1000, 53));
        assert_eq!(lab.send(NODE, asked.clone()), [(B, asked.clone())]);
        let answer = udp(B, B, A, (53, 1000));
        let expected = [&mac(NODE)[..], &answer[6..]].concat();
        for _ in 0..2 {
            assert_eq!(lab.send(B, answer.clone()), [(NODE, expected.clone())], "judged: {judged}");
        }
        let error = unreachable(B, A, &asked);
        assert_eq!(lab.send(B, error.clone()), [(NODE, [&mac(NODE)[..], &error[6..]].concat())]);
        // And more of the question, and of the answer, until both are known by their words.
        for _ in 0..4 {
            assert_eq!(lab.send(NODE, asked.clone()), [(B, asked.clone())]);
            assert_eq!(lab.send(B, answer.clone()), [(NODE, expected.clone())], "judged: {judged}");
        }
        // What A asks B directly, B answers directly; so does A what the node itself asks.
        let direct = udp(A, A, B, (1001, 53));
        assert_eq!(lab.send(A, direct.clone()), [(B, direct)]);
        let answer = udp(B, B, A, (53, 1001));
        assert_eq!(lab.send(B, answer.clone()), [(A, answer)]);
    }
}

#[test]
fn what_fits_no_flow_goes_on_where_nobody_judges_by_flows() {
    let frame = tcp_in_the_middle(A, B);
    let mut lab = Lab::new(false);
    assert_eq!(lab.send(A, frame.clone()), [(B, frame.clone())]);
    let mut lab = Lab::new(true);
    assert_eq!(lab.send(A, frame), []);
    assert_eq!(lab.rig.drops(DropReason::NoFlow), 1);
}

/// A port that is judged by flows is, and what others say to each other is not held to theirs for that.
#[test]
fn what_fits_no_flow_goes_on_between_ports_that_nobody_judges() {
    let mut lab = Lab::new(true);
    let middle = |from: u8, to: u8| tcp_in_the_middle(from, to);
    for (from, to) in [(A, NODE), (NODE, A)] {
        assert_eq!(lab.send(from, middle(from, to)), [(to, middle(from, to))], "{from} to {to}");
    }
    // Nor what does not fit the flow that there is, or no flow can be found of.
    let asks = |from: u8, to: u8| {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(mac(from), mac(to)).ipv4(ip(from), ip(to), 64);
        builder.tcp(1000, 80, 76, 8000).syn().write(&mut frame, &[]).unwrap();
        frame
    };
    let stray = |from: u8, to: u8| unreachable(from, to, &udp(to, to, from, (9, 9)));
    for (to, passes) in [(NODE, true), (B, false)] {
        assert_eq!(lab.send(A, asks(A, to)).len(), 1);
        assert_eq!(!lab.send(A, middle(A, to)).is_empty(), passes, "before it is answered, to {to}");
        assert_eq!(!lab.send(A, stray(A, to)).is_empty(), passes, "an error about nothing, to {to}");
        assert_eq!(!lab.send(to, stray(to, A)).is_empty(), passes, "from {to}");
    }
    let drops = [DropReason::FlowState, DropReason::IcmpUnrelated].map(|reason| lab.rig.drops(reason));
    assert_eq!(drops, [1, 2]);
}
