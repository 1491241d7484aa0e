//! Flows through the whole pipeline: what passes between two ports of which one is tracked, and what is dropped
//! and called what.

use super::Now;
use super::fragment_tests::piece;
use crate::counter::{DropReason, Event};
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use crate::table::flow::state::Stage;
use etherparse::PacketBuilder;
use switch_api::{PortSettings, Request};

const S: u64 = 1_000_000_000;

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn ip(n: u8) -> [u8; 4] {
    [10, 0, 0, n]
}

/// Two ports, one of them tracked or none, and a clock.
struct Lab {
    rig: Rig,
    peers: Vec<MemoryPeer>,
    now: Now,
}

impl Lab {
    fn new(tracked: usize, workers: usize) -> Self {
        let mut rig = Rig::new(Size { workers, ..Size::default() });
        let mut peers = Vec::new();
        for n in 0..2 {
            let (port, peer) = memory::wire();
            let settings = PortSettings { track: n == tracked, ..PortSettings::default() };
            rig.add_port(&format!("p{n}"), settings, Box::new(port), (n % workers) as u16).unwrap();
            peers.push(peer);
        }
        let mut lab = Self { rig, peers, now: Now { ns: 1000 * S } };
        for n in 0..2 {
            let mut frame = vec![0xff; 60];
            frame[6..12].copy_from_slice(&mac(n));
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            lab.send(usize::from(n), frame);
        }
        lab
    }

    /// How many frames come out at the other side.
    fn send(&mut self, from: usize, frame: Vec<u8>) -> usize {
        assert!(self.peers[from].send(frame));
        self.rig.settle(self.now);
        self.rig.assert_conserved();
        std::iter::from_fn(|| self.peers[1 - from].recv()).count()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.rig.drops(reason)
    }

    fn flows(&self) -> Vec<Stage> {
        let (flows, mut stages) = (&self.rig.tables.flows, Vec::new());
        flows.scan(0..flows.places(), self.now.s(), |_, entry| stages.push(entry.state.stage));
        stages
    }
}

fn builder(from: u8) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(mac(from), mac(1 - from)).ipv4(ip(from), ip(1 - from), 64)
}

fn udp(from: u8) -> Vec<u8> {
    let ports = if from == 0 { (1000, 53) } else { (53, 1000) };
    let mut frame = Vec::new();
    builder(from).udp(ports.0, ports.1).write(&mut frame, &[7; 20]).unwrap();
    frame
}

fn tcp(from: u8, what: &str, seq: u32, ack: u32) -> Vec<u8> {
    let ports = if from == 0 { (1000, 80) } else { (80, 1000) };
    let mut step = builder(from).tcp(ports.0, ports.1, seq, 8000);
    if what.contains('s') {
        step = step.syn();
    }
    if what.contains('a') {
        step = step.ack(ack);
    }
    if what.contains('f') {
        step = step.fin();
    }
    let mut frame = Vec::new();
    step.write(&mut frame, &[]).unwrap();
    frame
}

#[test]
fn both_ways_are_one_flow_whichever_port_is_tracked() {
    for (tracked, workers) in [(0, 1), (1, 1), (0, 2), (1, 2)] {
        let mut lab = Lab::new(tracked, workers);
        assert_eq!(lab.send(0, udp(0)), 1);
        assert_eq!(lab.flows(), [Stage::UdpOneWay]);
        assert_eq!(lab.send(1, udp(1)), 1);
        assert_eq!(lab.flows(), [Stage::UdpAnswered], "{tracked} {workers}");
        let new: u64 = lab.rig.counters.iter().map(|counters| counters.event(Event::FlowNew).get()).sum();
        assert_eq!(new, 1);
    }
}

/// Each direction of a connection comes by another worker: it opens, talks and closes, and what does not fit is refused, as on one.
#[test]
fn a_connections_directions_may_be_on_two_workers() {
    let steps = [
        (0, "s", 100, 0),
        (1, "sa", 900, 101),
        (0, "a", 101, 901),
        (1, "a", 901, 101),
        // Far beyond its window, and of what was never sent.
        (1, "a", 5_000_000, 101),
        (0, "a", 101, 5_000_000),
        (0, "fa", 101, 901),
        (1, "fa", 901, 102),
        (0, "a", 102, 902),
    ];
    let went = [1, 2].map(|workers| {
        let mut lab = Lab::new(0, workers);
        steps.map(|(from, what, seq, ack)| (lab.send(from, tcp(from as u8, what, seq, ack)), lab.flows()))
    });
    assert_eq!(went[0], went[1]);
    assert_eq!(went[1].each_ref().map(|(passed, _)| *passed), [1, 1, 1, 1, 0, 0, 1, 1, 1]);
    let stages = [3, 8].map(|n| went[1][n].1.clone());
    assert_eq!(stages, [vec![Stage::Established], vec![Stage::TimeWait]]);
}

/// A stream that goes on is in use, however long ago it began: five hours of a packet every hundred seconds, in bursts.
#[test]
fn a_flow_lives_while_it_is_used_and_no_longer() {
    let mut lab = Lab::new(0, 1);
    lab.send(0, udp(0));
    lab.send(1, udp(1));
    for n in 0..180 {
        for from in [0, 0, 1] {
            assert_eq!(lab.send(usize::from(from), udp(from)), 1, "{n}");
        }
        assert_eq!(lab.flows(), [Stage::UdpStream], "{n}");
        lab.now.ns += 100 * S;
    }
    assert_eq!(lab.rig.counters[0].event(Event::FlowNew).get(), 1);
    lab.now.ns += 300 * S;
    lab.send(0, udp(0));
    assert_eq!(lab.rig.counters[0].event(Event::FlowNew).get(), 2, "it was over");
}

#[test]
fn nothing_is_kept_where_nobody_asks() {
    let mut lab = Lab::new(9, 1);
    assert_eq!(lab.send(0, tcp(0, "a", 1, 1)), 1, "no flow, and nobody minds");
    assert_eq!(lab.flows(), []);
}

#[test]
fn tcp_must_begin_at_its_beginning() {
    let mut lab = Lab::new(0, 1);
    assert_eq!(lab.send(0, tcp(0, "a", 1, 1)), 0);
    assert_eq!(lab.drops(DropReason::NoFlow), 1);
    assert_eq!(lab.send(0, tcp(0, "s", 100, 0)), 1);
    assert_eq!(lab.send(1, tcp(1, "sa", 500, 99)), 0);
    assert_eq!(lab.drops(DropReason::TcpWindow), 1);
    assert_eq!(lab.send(1, tcp(1, "sa", 500, 101)), 1);
    assert_eq!(lab.send(0, tcp(0, "a", 101, 501)), 1);
    assert_eq!(lab.flows(), [Stage::Established]);
    assert_eq!(lab.send(0, tcp(0, "", 101, 501)), 0);
    assert_eq!(lab.drops(DropReason::TcpFlags), 1);
}

/// A SYN and the data behind it come in one batch: the second packet finds the flow that the first one makes.
#[test]
fn a_batch_may_hold_a_flows_first_two_packets() {
    let mut lab = Lab::new(0, 1);
    for frame in [udp(0), udp(0), tcp(0, "s", 100, 0), tcp(0, "s", 100, 0)] {
        assert!(lab.peers[0].send(frame));
    }
    lab.rig.settle(lab.now);
    assert_eq!(std::iter::from_fn(|| lab.peers[1].recv()).count(), 4);
    assert_eq!(lab.flows().len(), 2);
}

#[test]
fn errors_belong_to_the_flow_they_quote() {
    let mut lab = Lab::new(0, 1);
    let sent = udp(0);
    assert_eq!(lab.send(0, sent.clone()), 1);
    let error = |quote: &[u8]| {
        let mut frame = Vec::new();
        builder(1).icmpv4_raw(3, 3, [0; 4]).write(&mut frame, quote).unwrap();
        frame
    };
    assert_eq!(lab.send(1, error(&sent[14..42])), 1, "twenty-eight bytes of it are enough");
    assert_eq!(lab.flows(), [Stage::UdpOneWay], "an error is no answer");
    let mut forged = sent[14..42].to_vec();
    forged[21] ^= 1;
    assert_eq!(lab.send(1, error(&forged)), 0, "a flow that is not there");
    // A flow that is there, but the error goes to somebody who did not send that packet.
    let answer = udp(1);
    assert_eq!(lab.send(1, answer.clone()), 1);
    assert_eq!(lab.send(1, error(&answer[14..42])), 0);
    assert_eq!(lab.drops(DropReason::IcmpUnrelated), 2);
}

/// A datagram of 72 bytes, of either IP version.
fn long_udp(v6: bool) -> Vec<u8> {
    let wide = |n: u8| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n];
    let (link, mut frame) = (PacketBuilder::ethernet2(mac(0), mac(1)), Vec::new());
    let packet = if v6 { link.ipv6(wide(0), wide(1), 64) } else { link.ipv4(ip(0), ip(1), 64) };
    packet.udp(1000, 53).write(&mut frame, &[9; 64]).unwrap();
    frame
}

#[test]
fn fragments_go_with_their_first() {
    for v6 in [false, true] {
        let mut lab = Lab::new(0, 1);
        let whole = long_udp(v6);
        let fragment = |id, part, more| piece(&whole, id, part, more);
        assert_eq!(lab.send(0, fragment(1, 32..64, true)), 0, "its first has not come");
        assert_eq!(lab.drops(DropReason::FragmentNoFirst), 1);
        assert_eq!(lab.send(0, fragment(1, 0..32, true)), 1);
        assert_eq!(lab.send(0, fragment(1, 32..64, true)), 1);
        assert_eq!(lab.send(0, fragment(1, 64..72, false)), 1);
        assert_eq!(lab.flows(), [Stage::UdpOneWay], "one flow, with the ports of the first");
        assert_eq!(lab.send(0, whole.clone()), 1);
        assert_eq!(lab.flows().len(), 1, "the same as the unfragmented packet's");
        // One over the first, and then nothing of that packet passes any more.
        assert_eq!(lab.send(0, fragment(1, 24..32, true)), 0);
        assert_eq!(lab.send(0, fragment(1, 64..72, false)), 0);
        assert_eq!(lab.drops(DropReason::FragmentOverlap), 2);
        assert_eq!(lab.send(0, fragment(2, 0..4, true)), 0);
        assert_eq!(lab.drops(DropReason::FragmentTiny), 1);
        lab.now.ns += 40 * S;
        assert_eq!(lab.send(0, fragment(1, 32..64, true)), 0, "forgotten");
        assert_eq!(lab.drops(DropReason::FragmentNoFirst), 2);
    }
}

#[test]
fn a_flow_that_is_over_begins_anew() {
    let mut lab = Lab::new(0, 1);
    assert_eq!(lab.send(0, udp(0)), 1);
    lab.now.ns += 31 * S;
    assert_eq!(lab.flows(), []);
    assert_eq!(lab.send(0, udp(0)), 1);
    assert_eq!(lab.flows(), [Stage::UdpOneWay]);
    let name = "p0".parse().unwrap();
    let settings = PortSettings::default();
    lab.rig.declare(&Request::PortSet(switch_api::PortSet { name, settings })).unwrap();
    assert_eq!(lab.send(0, tcp(0, "a", 1, 1)), 1, "no longer tracked");
}

/// A routing table that comes changes nothing for the flows of the others, whatever it is called.
#[test]
fn flows_are_known_whichever_routing_tables_come() {
    use super::routing_tests::{OWN, arp_frame, drain, mac, rig};
    let ((mut rig, peers), now) = (rig(1, 1024), Now { ns: 1000 * S });
    let settings = PortSettings { track: true, ..PortSettings::default() };
    let track = switch_api::PortSet { name: "p0".parse().unwrap(), settings };
    rig.declare(&Request::PortSet(track)).unwrap();
    for n in [0, 1] {
        assert!(peers[usize::from(n)].send(arp_frame(true, (n, [10, n, 0, 9]), [10, n, 0, 1], [0xff; 6])));
    }
    rig.settle(now);
    peers.iter().for_each(|peer| _ = drain(peer));
    let passes = |rig: &mut Rig, from: u8, said: &dyn Fn(&mut etherparse::TcpHeader)| {
        let mut tcp = etherparse::TcpHeader::new(1000 + u16::from(from), 1001 - u16::from(from), 1, 1000);
        said(&mut tcp);
        let mut frame = Vec::new();
        let packet =
            PacketBuilder::ethernet2(mac(from), OWN).ipv4([10, from, 0, 9], [10, 1 - from, 0, 9], 64);
        packet.tcp_header(tcp).write(&mut frame, &[]).unwrap();
        assert!(peers[usize::from(from)].send(frame));
        rig.settle(now);
        drain(&peers[usize::from(1 - from)]).len() == 1
    };
    assert!(passes(&mut rig, 0, &|tcp| tcp.syn = true));
    assert!(passes(&mut rig, 1, &|tcp| (tcp.syn, tcp.ack, tcp.acknowledgment_number) = (true, true, 2)));
    let goes_on = |tcp: &mut etherparse::TcpHeader| {
        (tcp.sequence_number, tcp.ack, tcp.acknowledgment_number) = (2, true, 2);
    };
    assert!(passes(&mut rig, 0, &goes_on));
    // By name before `main`.
    let vrf = "blue".parse().unwrap();
    let bridge = switch_api::Bridge { vrf, ..switch_api::Bridge::new("br9".parse().unwrap()) };
    rig.declare(&Request::BridgeAdd(bridge)).unwrap();
    assert!(passes(&mut rig, 0, &goes_on), "{:?}", rig.drops(DropReason::NoFlow));
}

/// Flows go on in their bridge, though the switch becomes a station there or is none any more; what begins then begins in the zone that
/// there is then.
#[test]
fn a_gateway_that_comes_or_goes_ends_no_flow() {
    let mut lab = Lab::new(0, 1);
    let declare = |lab: &mut Lab, is: bool| {
        let (bridge, address): (switch_api::Name, switch_api::Prefix) =
            ("br0".parse().unwrap(), "10.0.0.254/24".parse().unwrap());
        let (vid, owner) = (switch_api::Vid::DEFAULT, switch_api::Owner::default());
        lab.rig
            .declare(&match is {
                true => Request::AddressAdd(switch_api::BridgeAddress { bridge, address, vid, owner }),
                false => Request::AddressDelete(switch_api::AddressDelete { bridge, address, vid }),
            })
            .unwrap();
    };
    let begun = |lab: &Lab| lab.rig.counters[0].event(Event::FlowNew).get();
    assert_eq!(lab.send(0, tcp(0, "s", 100, 0)), 1);
    assert_eq!(lab.send(1, tcp(1, "sa", 500, 101)), 1);
    assert_eq!(lab.send(0, tcp(0, "a", 101, 501)), 1);
    assert_eq!(lab.send(0, udp(0)), 1);
    declare(&mut lab, true);
    assert_eq!((lab.send(1, tcp(1, "a", 501, 101)), lab.send(0, tcp(0, "a", 101, 501))), (1, 1));
    assert_eq!(lab.send(1, udp(1)), 1, "an answer");
    assert_eq!((lab.flows(), begun(&lab)), (vec![Stage::Established, Stage::UdpAnswered], 2));
    // An error about one of them, too.
    let mut error = Vec::new();
    builder(1).icmpv4_raw(3, 3, [0; 4]).write(&mut error, &udp(0)[14..42]).unwrap();
    assert_eq!(lab.send(1, error), 1);
    assert_eq!(lab.send(0, tcp(0, "a", 101, 5_000_000)), 0, "it is held against its window");
    assert_eq!(lab.drops(DropReason::TcpWindow), 1);
    // One that is over begins anew where flows are now, and is found there when there is no gateway any more.
    lab.now.ns += 130 * S;
    assert_eq!(lab.send(0, udp(0)), 1);
    assert_eq!(begun(&lab), 3);
    let flows = &lab.rig.tables.flows;
    let is_routed = |protocol: u8| {
        let mut zones = Vec::new();
        flows.scan(0..flows.places(), lab.now.s(), |_, entry| {
            zones.extend((entry.key.protocol() == protocol).then_some(entry.key.zone()));
        });
        zones.iter().map(|zone| *zone >= crate::config::snapshot::ZONE_VRF).collect::<Vec<_>>()
    };
    assert_eq!((is_routed(6), is_routed(17)), (vec![false], vec![true]));
    declare(&mut lab, false);
    assert_eq!(lab.send(1, udp(1)), 1);
    assert_eq!((lab.send(1, tcp(1, "a", 501, 101)), lab.send(0, tcp(0, "a", 101, 501))), (1, 1));
    assert_eq!((lab.flows().len(), begun(&lab)), (2, 3));
    assert_eq!(lab.drops(DropReason::NoFlow), 0);
}
