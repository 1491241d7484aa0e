//! The same stations, with the same addresses and ports, in two zones: on two bridges, and in two VLANs of one. What they say is of two flows, and
//! neither is anything to the other.

use super::fragment_tests::piece;
use super::policy_tests::NOW;
use crate::counter::DropReason;
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use crate::table::flow::state::Stage;
use etherparse::{PacketBuilder, TcpHeader};
use switch_api::{Bridge, PortSettings, Request, Vid, Vlan};

fn mac(n: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, n as u8]
}

/// Two stations in each of two zones: those of the first behind p0 and p1, of the other behind p2 and p3. All ports are tracked.
struct Lab {
    rig: Rig,
    peers: Vec<MemoryPeer>,
}

impl Lab {
    fn new(by_vlan: bool) -> Self {
        let mut rig = Rig::new(Size::default());
        rig.declare(&Request::BridgeAdd(Bridge::new("br1".parse().unwrap()))).unwrap();
        let mut peers = Vec::new();
        for n in 0..4 {
            let vlan = if by_vlan { 10 + n / 2 } else { 1 };
            let bridge = if by_vlan || n < 2 { "br0" } else { "br1" };
            let vlan = Vlan::Access { vid: Vid::try_from(vlan).unwrap() };
            let settings = PortSettings { track: true, vlan, ..PortSettings::default() };
            let (port, peer) = memory::wire();
            rig.add_port_to(bridge, &format!("p{n}"), settings, Box::new(port), 0).unwrap();
            peers.push(peer);
        }
        let mut lab = Self { rig, peers };
        for zone in [0, 1] {
            for n in [0, 1] {
                lab.passes(zone, n, &[&[0xff; 6][..], &mac(n), &[0x88, 0xb5], &[0; 46]].concat());
            }
        }
        lab
    }

    /// Whether a frame of a station in a zone comes to the other one there, and nowhere else.
    fn passes(&mut self, zone: usize, from: usize, frame: &[u8]) -> bool {
        assert!(self.peers[2 * zone + from].send(frame.to_vec()));
        self.rig.settle(NOW);
        self.rig.assert_conserved();
        let counts = self.peers.iter().map(|peer| std::iter::from_fn(|| peer.recv()).count());
        let counts: Vec<_> = counts.collect();
        let came = counts[2 * zone + 1 - from];
        assert_eq!(counts.iter().sum::<usize>(), came);
        came == 1
    }

    fn flows(&self) -> Vec<Stage> {
        let (flows, mut stages) = (&self.rig.tables.flows, Vec::new());
        flows.scan(0..flows.places(), NOW.s(), |_, entry| stages.push(entry.state.stage));
        stages.sort_by_key(|stage| *stage as u8);
        stages
    }
}

fn link(from: usize) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let ip = |n: usize| [10, 0, 0, n as u8];
    PacketBuilder::ethernet2(mac(from), mac(1 - from)).ipv4(ip(from), ip(1 - from), 64)
}

fn ports(from: usize) -> (u16, u16) {
    if from == 0 { (1000, 53) } else { (53, 1000) }
}

fn udp(from: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    link(from).udp(ports(from).0, ports(from).1).write(&mut frame, &[7; 64]).unwrap();
    frame
}

fn tcp(from: usize, syn: bool, seq: u32, ack: Option<u32>) -> Vec<u8> {
    let mut header = TcpHeader::new(ports(from).0, ports(from).1, seq, 8000);
    (header.syn, header.ack, header.acknowledgment_number) = (syn, ack.is_some(), ack.unwrap_or(0));
    let mut frame = Vec::new();
    link(from).tcp_header(header).write(&mut frame, &[]).unwrap();
    frame
}

fn each(test: impl Fn(Lab, usize)) {
    for by_vlan in [false, true] {
        [0, 1].into_iter().for_each(|zone| test(Lab::new(by_vlan), zone));
    }
}

#[test]
fn a_datagram_of_another_zone_answers_nothing() {
    each(|mut lab, zone| {
        assert!(lab.passes(zone, 0, &udp(0)));
        assert_eq!(lab.flows(), [Stage::UdpOneWay]);
        // From the other side and in the other zone it begins a flow of that.
        assert!(lab.passes(1 - zone, 1, &udp(1)));
        assert_eq!(lab.flows(), [Stage::UdpOneWay, Stage::UdpOneWay]);
        assert!(lab.passes(zone, 1, &udp(1)));
        assert_eq!(lab.flows(), [Stage::UdpOneWay, Stage::UdpAnswered]);
        assert!(lab.passes(1 - zone, 0, &udp(0)));
        assert_eq!(lab.flows(), [Stage::UdpAnswered, Stage::UdpAnswered]);
    });
}

#[test]
fn a_connection_of_another_zone_is_no_connection_here() {
    each(|mut lab, zone| {
        let other = 1 - zone;
        assert!(lab.passes(zone, 0, &tcp(0, true, 100, None)));
        assert!(!lab.passes(other, 1, &tcp(1, true, 900, Some(101))), "nobody has asked here");
        assert!(lab.passes(zone, 1, &tcp(1, true, 900, Some(101))));
        assert!(!lab.passes(other, 0, &tcp(0, false, 101, Some(901))), "nor here is it open");
        assert!(lab.passes(zone, 0, &tcp(0, false, 101, Some(901))));
        assert_eq!((lab.flows(), lab.rig.drops(DropReason::NoFlow)), (vec![Stage::Established], 2));
        // Another connection, with other numbers.
        assert!(lab.passes(other, 0, &tcp(0, true, 5_000_000, None)));
        assert!(lab.passes(other, 1, &tcp(1, true, 7_000_000, Some(5_000_001))));
        assert!(lab.passes(other, 0, &tcp(0, false, 5_000_001, Some(7_000_001))));
        assert_eq!(lab.flows(), [Stage::Established, Stage::Established]);
        // Each is held against its own window.
        assert!(!lab.passes(zone, 0, &tcp(0, false, 5_000_001, Some(7_000_001))));
        assert_eq!(lab.rig.drops(DropReason::TcpWindow), 1);
        assert!(lab.passes(zone, 0, &tcp(0, false, 101, Some(901))));
    });
}

/// Nor do errors and later fragments belong to what went on in another zone.
#[test]
fn errors_and_fragments_of_another_zone_are_strays() {
    each(|mut lab, zone| {
        let other = 1 - zone;
        assert!(lab.passes(zone, 0, &udp(0)));
        let mut error = Vec::new();
        link(1).icmpv4_raw(3, 3, [0; 4]).write(&mut error, &udp(0)[14..42]).unwrap();
        assert!(!lab.passes(other, 1, &error));
        assert_eq!(lab.rig.drops(DropReason::IcmpUnrelated), 1);
        assert!(lab.passes(zone, 1, &error));
        let [first, later] =
            [(0..32, true), (32..72, false)].map(|(part, more)| piece(&udp(0), 9, part, more));
        assert!(lab.passes(zone, 0, &first));
        assert!(!lab.passes(other, 0, &later));
        assert_eq!(lab.rig.drops(DropReason::FragmentNoFirst), 1);
        assert!(lab.passes(zone, 0, &later));
    });
}
