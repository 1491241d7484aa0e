//! Frames that go nowhere for reasons of which no other test has one: each is dropped and counted by its name at the port where it belongs.

use super::{Now, probe};
use crate::counter::{DropReason, Event};
use crate::frame::Offload;
use crate::port::Port;
use crate::port::cramped::Cramped;
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use crate::wire::checksum::{Csum, fold, sum};
use crate::wire::gso::{Gso, GsoKind};
use std::num::NonZeroU16;
use switch_api::{PortSet, PortSettings, Request, Vid, VidRange, Vlan};

const NOW: Now = Now { ns: 5_000_000_000 };

struct Lab {
    rig: Rig,
    peers: Vec<MemoryPeer>,
}

fn mac(n: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, n as u8 + 1]
}

fn vid(n: u32) -> Vid {
    Vid::try_from(n).unwrap()
}

fn access(n: u32) -> PortSettings {
    PortSettings { vlan: Vlan::Access { vid: vid(n) }, ..PortSettings::default() }
}

fn trunk() -> PortSettings {
    let vids = vec![VidRange { first: vid(10), last: vid(20) }];
    PortSettings { vlan: Vlan::Trunk { vids, native: None }, ..PortSettings::default() }
}

fn frame(dst: [u8; 6], src: [u8; 6]) -> Vec<u8> {
    [&dst[..], &src, &[0x88, 0xb6], &[7; 46]].concat()
}

fn tagged(frame: &[u8], vid: u8) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, vid], &frame[12..]].concat()
}

impl Lab {
    fn new(ports: &[PortSettings]) -> Self {
        let mut lab = Self { rig: Rig::new(Size::default()), peers: Vec::new() };
        for settings in ports {
            let (port, peer) = memory::wire();
            lab.add(settings, Box::new(port), peer);
        }
        lab
    }

    fn add(&mut self, settings: &PortSettings, door: Box<dyn Port>, peer: MemoryPeer) {
        let name = format!("p{}", self.peers.len());
        self.rig.add_port(&name, settings.clone(), door, 0).unwrap();
        self.peers.push(peer);
    }

    /// How many copies of a frame come out of each port.
    fn send(&mut self, from: usize, frame: Vec<u8>) -> Vec<usize> {
        self.send_offload(from, frame, Offload::default())
    }

    fn send_offload(&mut self, from: usize, frame: Vec<u8>, offload: Offload) -> Vec<usize> {
        assert!(self.peers[from].send_offload(frame, offload));
        self.rig.settle(NOW);
        self.rig.assert_conserved();
        let others = |frame: &Vec<u8>| !probe::looks_like_one(frame);
        let count = |peer: &MemoryPeer| std::iter::from_fn(|| peer.recv()).filter(others).count();
        self.peers.iter().map(count).collect()
    }

    /// All drops there are, by port.
    fn drops(&self) -> Vec<(u16, &'static str, u64)> {
        let of = |port: u16| {
            let counted = move |reason: &DropReason| self.rig.counters[0].drops(port, *reason);
            DropReason::ALL.iter().map(move |reason| (port, reason.name(), counted(reason)))
        };
        (0..8).flat_map(of).filter(|(_, _, frames)| *frames > 0).collect()
    }
}

#[test]
fn without_a_tag_on_a_trunk_that_has_no_native_vlan() {
    let mut lab = Lab::new(&[trunk(), access(10)]);
    let shout = frame([0xff; 6], mac(0));
    assert_eq!(lab.send(0, shout.clone()), [0, 0]);
    // A tag of VLAN 0 names none either.
    assert_eq!(lab.send(0, tagged(&shout, 0)), [0, 0]);
    assert_eq!(lab.drops(), [(0, "vlan-untagged", 2)]);
    assert_eq!(lab.rig.tables.fdb.entries(), 0, "its source was learned");
    assert_eq!(lab.send(0, tagged(&shout, 10)), [0, 1]);
}

#[test]
fn the_switchs_own_probe_that_comes_back() {
    let mut lab = Lab::new(&[PortSettings::default(), PortSettings::default()]);
    lab.send(0, frame([0xff; 6], mac(0)));
    // Its station moves, and the port that it moved to is probed.
    assert!(lab.peers[1].send(frame([0xff; 6], mac(0))));
    lab.rig.settle(NOW);
    let probe =
        std::iter::from_fn(|| lab.peers[1].recv()).find(|frame| probe::looks_like_one(frame)).unwrap();
    // With another source it is a group's frame as any.
    let mut another = probe.clone();
    another[11] ^= 1;
    while lab.peers[0].recv().is_some() {}
    assert!(lab.peers[1].send(another.clone()));
    lab.rig.settle(NOW);
    assert_eq!(lab.peers[0].recv(), Some(another));
    assert_eq!(lab.drops(), []);
    lab.send(1, probe);
    // Others of the same batch, or later, are dropped for the loop.
    assert_eq!(lab.drops(), [(1, "loop-probe", 1)]);
    assert_eq!(lab.rig.counters[0].event(Event::LoopFound).get(), 1);
    lab.send(1, frame([0xff; 6], mac(1)));
    assert_eq!(lab.drops(), [(1, "loop-blocked", 1), (1, "loop-probe", 1)]);
}

#[test]
fn to_a_port_that_has_left_the_vlan_of_its_station() {
    let mut lab = Lab::new(&[access(10), access(10), trunk()]);
    lab.send(1, frame([0xff; 6], mac(1)));
    assert_eq!(lab.send(0, frame(mac(1), mac(0))), [0, 1, 0]);
    let set = |lab: &mut Lab, settings| {
        lab.rig.declare(&Request::PortSet(PortSet { name: "p1".parse().unwrap(), settings })).unwrap();
    };
    set(&mut lab, access(20));
    assert_eq!(lab.send(0, frame(mac(1), mac(0))), [0, 0, 0]);
    assert_eq!(lab.send(2, tagged(&frame(mac(1), mac(2)), 10)), [0, 0, 0]);
    assert_eq!(lab.drops(), [(0, "egress-vlan", 1), (2, "egress-vlan", 1)]);
    set(&mut lab, trunk());
    assert_eq!(lab.send(0, frame(mac(1), mac(0))), [0, 1, 0]);
}

#[test]
fn without_room_in_front_for_the_tag_that_it_is_to_leave_with() {
    for (room, fits) in [(0, false), (3, false), (4, true)] {
        let mut lab = Lab::new(&[]);
        let (port, peer) = memory::wire();
        lab.add(&access(10), Box::new(Cramped { port, room }), peer);
        for settings in [access(10), trunk()] {
            let (port, peer) = memory::wire();
            lab.add(&settings, Box::new(port), peer);
        }
        lab.send(1, frame([0xff; 6], mac(1)));
        lab.send(2, tagged(&frame([0xff; 6], mac(2)), 10));
        assert_eq!(lab.send(0, frame(mac(1), mac(0))), [0, 1, 0], "as it is it needs none");
        assert_eq!(lab.send(0, frame(mac(2), mac(0))), [0, 0, usize::from(fits)], "{room}");
        let drops = if fits { vec![] } else { vec![(0, "no-headroom", 1)] };
        assert_eq!(lab.drops(), drops, "{room}");
    }
}

/// What it says of itself holds until somebody has to cut it up.
#[test]
fn a_superframe_that_is_not_what_it_says() {
    let mut lab = Lab::new(&[PortSettings::default(), PortSettings::default(), PortSettings::default()]);
    lab.rig.takes_superframes(2);
    for n in [1, 2] {
        lab.send(n, frame([0xff; 6], mac(n)));
    }
    let train = |to: usize, kind: GsoKind| {
        let mut frame = Vec::new();
        let link = etherparse::PacketBuilder::ethernet2(mac(0), mac(to));
        link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1000, 2000).write(&mut frame, &[7; 3000]).unwrap();
        let gso = Gso { kind, ecn: false, size: NonZeroU16::new(1000).unwrap() };
        (frame, Offload { csum: Csum::Partial { start: 34, field: 6 }, gso: Some(gso) })
    };
    let mut send = |to, kind| {
        let (frame, offload) = train(to, kind);
        lab.send_offload(0, frame, offload)
    };
    assert_eq!(send(1, GsoKind::Udp), [0, 3, 0]);
    assert_eq!(send(1, GsoKind::Tcp4), [0, 0, 0]);
    assert_eq!(send(2, GsoKind::Tcp4), [0, 0, 1]);
    assert_eq!(lab.drops(), [(1, "bad-superframe", 1)]);
}

/// An option of IPv4 in front of a datagram that is to be routed.
#[test]
fn a_packet_that_wants_to_choose_its_way() {
    use super::routing_tests::{arp_frame, drain, rig, udp};
    let (mut rig, peers) = rig(1, 1024);
    assert!(peers[1].send(arp_frame(true, (1, [10, 1, 0, 9]), [10, 1, 0, 1], [0xff; 6])));
    rig.settle(NOW);
    peers.iter().for_each(|peer| _ = drain(peer));
    // Loose and strict source routing, in front and behind others; recording the route and a timestamp are none.
    for (options, passes) in [
        ([131, 7, 4, 10, 1, 0, 7, 0], false),
        ([137, 7, 4, 10, 1, 0, 7, 0], false),
        ([1, 137, 7, 4, 10, 1, 0, 7], false),
        ([7, 7, 4, 0, 0, 0, 0, 0], true),
        ([1, 1, 1, 1, 1, 1, 1, 0], true),
    ] {
        let plain = udp([10, 0, 0, 9], [10, 1, 0, 9], 64, 1);
        let mut packet = [&plain[..34], &options, &plain[34..]].concat();
        packet[14] = 0x47;
        let len = (packet.len() - 14) as u16;
        packet[16..18].copy_from_slice(&len.to_be_bytes());
        packet[24..26].fill(0);
        let checksum = !fold(sum(&packet[14..42]));
        packet[24..26].copy_from_slice(&checksum.to_be_bytes());
        let before = rig.counters[0].drops(0, DropReason::SourceRoute);
        assert!(peers[0].send(packet));
        rig.settle(NOW);
        let came = drain(&peers[1]).len();
        let dropped = rig.counters[0].drops(0, DropReason::SourceRoute) - before;
        assert_eq!((came, dropped), (usize::from(passes), u64::from(!passes)), "{options:?}");
    }
    rig.assert_conserved();
}

/// One port may ask for a quarter of the table at a time.
#[test]
fn to_a_neighbour_for_whom_there_is_no_room_to_ask() {
    use super::routing_tests::{drain, events, rig_of, udp};
    let (mut rig, peers) = rig_of(Size { neighbours: 64, seed: 3, ..Size::default() });
    for n in 0..40u8 {
        assert!(peers[0].send(udp([10, 0, 0, 9], [10, 1, 1, n], 64, n.into())));
    }
    rig.settle(NOW);
    let (asked, dropped) =
        (events(&rig, Event::NeighAsked), rig.counters[0].drops(0, DropReason::NeighbourFull));
    assert_eq!((asked, dropped), (16, 24));
    assert_eq!(drain(&peers[1]).len(), 16, "questions alone");
    // Who waits already is asked for by others as well, and another port still finds room.
    assert!(peers[0].send(udp([10, 0, 0, 9], [10, 1, 1, 0], 64, 99)));
    assert!(peers[1].send(udp([10, 1, 0, 9], [10, 0, 1, 1], 64, 99)));
    rig.settle(NOW);
    let all: u64 = [0, 1].map(|port| rig.counters[0].drops(port, DropReason::NeighbourFull)).iter().sum();
    assert_eq!((all, events(&rig, Event::NeighAsked)), (24, 17));
    rig.assert_conserved();
}
