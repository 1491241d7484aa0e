//! Frames that no honest station sends, and what a bridge makes of them: each is dropped by its name or carried as it is, and
//! what comes before and behind it is not lost with it.

use super::Now;
use crate::counter::DropReason;
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use etherparse::PacketBuilder;
use switch_api::{PortSettings, Vid, VidRange, Vlan};

const NOW: Now = Now { ns: 5_000_000_000 };
const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// What the ports of a rig carry.
const MTU: usize = 1500;

struct Lab {
    rig: Rig,
    peers: Vec<MemoryPeer>,
}

impl Lab {
    fn new(ports: &[PortSettings]) -> Self {
        let mut rig = Rig::new(Size::default());
        let mut peers = Vec::new();
        for (n, settings) in ports.iter().enumerate() {
            let (port, peer) = memory::wire();
            rig.add_port(&format!("p{n}"), settings.clone(), Box::new(port), 0).unwrap();
            peers.push(peer);
        }
        Self { rig, peers }
    }

    /// Sends `frames` in one batch by the first port; what comes out of port `to`.
    fn send(&mut self, frames: &[Vec<u8>], to: usize) -> Vec<Vec<u8>> {
        frames.iter().for_each(|frame| assert!(self.peers[0].send(frame.clone())));
        self.rig.settle(NOW);
        self.rig.assert_conserved();
        std::iter::from_fn(|| self.peers[to].recv()).collect()
    }

    fn all_drops(&self) -> Vec<(&'static str, u64)> {
        let all = DropReason::ALL.iter().map(|reason| (reason.name(), self.rig.drops(*reason)));
        all.filter(|(_, frames)| *frames > 0).collect()
    }
}

fn vid(n: u32) -> Vid {
    Vid::try_from(n).unwrap()
}

fn trunk(native: Option<u32>) -> PortSettings {
    let vids = vec![VidRange { first: vid(10), last: vid(20) }];
    PortSettings { vlan: Vlan::Trunk { vids, native: native.map(vid) }, ..PortSettings::default() }
}

fn access(n: u32) -> PortSettings {
    PortSettings { vlan: Vlan::Access { vid: vid(n) }, ..PortSettings::default() }
}

/// From A to B; behind the addresses come `middle` and `len` bytes of `fill`.
fn frame(middle: &[u8], fill: u8, len: usize) -> Vec<u8> {
    [&B[..], &A, middle, &vec![fill; len]].concat()
}

#[test]
fn runts_of_every_length_are_counted_and_their_neighbours_pass() {
    let mut lab = Lab::new(&[PortSettings::default(), PortSettings::default()]);
    let whole = |n: u8| frame(&[0x88, 0xb6], n, 46);
    // Shorter than an Ethernet header, and shorter than one with the tag it says it has.
    let untagged = (0..14).map(|len| whole(0)[..len].to_vec());
    let tagged = (14..18).map(|len| frame(&[0x81, 0, 0, 0, 0x88, 0xb6], 0, 46)[..len].to_vec());
    let runts: Vec<_> = untagged.chain(tagged).collect();
    let mut sent = Vec::new();
    for (n, runt) in runts.iter().enumerate() {
        sent.extend([whole(n as u8), runt.clone()]);
    }
    let arrived = lab.send(&sent, 1);
    assert_eq!(arrived, (0..runts.len()).map(|n| whole(n as u8)).collect::<Vec<_>>());
    assert_eq!(lab.all_drops(), [("runt", 18)]);
    assert_eq!(lab.rig.tables.fdb.entries(), 1, "a runt's source was learned");
    // Nothing but a header is a frame; and a priority tag on an access port is taken off.
    let shortest = [whole(0)[..14].to_vec(), frame(&[0x81, 0, 0, 0, 0x88, 0xb6], 0, 0)];
    assert_eq!(lab.send(&shortest, 1), vec![whole(0)[..14].to_vec(); 2]);
    assert_eq!(lab.all_drops(), [("runt", 18)]);
}

#[test]
fn giants_are_counted_at_the_port_they_do_not_fit() {
    let mut lab = Lab::new(&[trunk(Some(10)), access(10), trunk(None)]);
    // As much as fits: a tag that leaves with the frame does not count.
    let fits = frame(&[0x88, 0xb6], 1, MTU);
    let tagged = frame(&[0x81, 0, 0, 10, 0x88, 0xb6], 1, MTU);
    assert_eq!(lab.send(std::slice::from_ref(&fits), 1), std::slice::from_ref(&fits));
    assert_eq!(lab.send(std::slice::from_ref(&tagged), 1), [fits]);
    while lab.peers[2].recv().is_some() {}
    // One byte more, and much more, between two that fit.
    let small = |n: u8| frame(&[0x88, 0xb6], n, 46);
    let giants = [MTU + 1, 1780, 9000, 65_000].map(|len| frame(&[0x88, 0xb6], 9, len));
    let giant_tagged = frame(&[0x81, 0, 0, 10, 0x88, 0xb6], 9, MTU + 1);
    let sent: Vec<_> = [small(1)].into_iter().chain(giants).chain([giant_tagged, small(2)]).collect();
    assert_eq!(lab.send(&sent, 1), [small(1), small(2)]);
    // Five of them, each for two ports.
    assert_eq!(lab.all_drops(), [("mtu-exceeded", 10)]);
    let of = |port| lab.rig.counters[0].drops(port, DropReason::MtuExceeded);
    assert_eq!((of(0), of(1), of(2)), (0, 5, 5));
}

/// A C-bridge reads one C-tag. A service tag and whatever is behind the first tag is payload, carried as it is.
#[test]
fn stacked_tags_are_payload_behind_the_first_customer_tag() {
    let service = frame(&[0x88, 0xa8, 0, 77, 0x81, 0, 0, 99, 0x88, 0xb6], 3, 46);
    let mut lab = Lab::new(&[access(10), access(10), trunk(Some(10)), trunk(None)]);
    assert_eq!(
        lab.send(std::slice::from_ref(&service), 1),
        std::slice::from_ref(&service),
        "from access to access"
    );
    assert_eq!(lab.peers[2].recv(), Some(service.clone()), "to a trunk's native VLAN");
    let with_outer = [&service[..12], &[0x81, 0, 0, 10], &service[12..]].concat();
    assert_eq!(lab.peers[3].recv(), Some(with_outer), "to a trunk, with the port's own tag in front");

    // Two C-tags: the outer one says which VLAN, whatever the inner one says.
    let double = frame(&[0x81, 0, 0xe0, 11, 0x81, 0, 0, 99, 0x88, 0xb6], 4, 46);
    let mut lab = Lab::new(&[trunk(None), access(11), trunk(None), access(99), access(10)]);
    let inner = frame(&[0x81, 0, 0, 99, 0x88, 0xb6], 4, 46);
    assert_eq!(lab.send(std::slice::from_ref(&double), 1), [inner], "the outer one is taken off");
    assert_eq!(lab.peers[2].recv(), Some(double.clone()), "or stays, with its priority");
    assert!(lab.peers[3].recv().is_none() && lab.peers[4].recv().is_none(), "it hopped into another VLAN");
    assert_eq!(lab.all_drops(), []);

    // An access port takes none; a priority tag in front of another is taken off, and what is left is no way into a VLAN.
    let mut lab = Lab::new(&[access(10), access(10), access(99), trunk(None)]);
    let priority = frame(&[0x81, 0, 0xa0, 0, 0x81, 0, 0, 99, 0x88, 0xb6], 5, 46);
    assert_eq!(lab.send(&[double, priority], 1), [frame(&[0x81, 0, 0, 99, 0x88, 0xb6], 5, 46)]);
    assert!(lab.peers[2].recv().is_none());
    let on_trunk = frame(&[0x81, 0, 0xa0, 10, 0x81, 0, 0, 99, 0x88, 0xb6], 5, 46);
    assert_eq!(lab.peers[3].recv(), Some(on_trunk));
    assert_eq!(lab.all_drops(), [("vlan-tagged", 1)]);

    // Cut off within the second tag: the first one is whole, the rest is payload.
    let mut lab = Lab::new(&[trunk(None), trunk(None)]);
    let cut: Vec<_> =
        (18..=20).map(|len| frame(&[0x81, 0, 0, 11, 0x81, 0, 0, 99], 0, 0)[..len].to_vec()).collect();
    assert_eq!(lab.send(&cut, 1), cut);
    assert_eq!(lab.all_drops(), []);
}

/// Layer 2 does not judge what it carries: a wrong checksum is the receiver's to see, and a router's.
#[test]
fn wrong_checksums_cross_a_bridge_as_they_are() {
    let ethernet = || PacketBuilder::ethernet2(A, B);
    let of = |build: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        build(&mut bytes);
        bytes
    };
    let v4 = || ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
    let v6 = || ethernet().ipv6([3; 16], [5; 16], 9);
    let packets = [
        of(&|bytes| v4().tcp(80, 90, 3, 4).write(bytes, b"some bytes").unwrap()),
        of(&|bytes| v4().udp(80, 90).write(bytes, b"some bytes").unwrap()),
        of(&|bytes| v6().tcp(80, 90, 3, 4).write(bytes, b"some bytes").unwrap()),
        of(&|bytes| v6().udp(80, 90).write(bytes, b"some bytes").unwrap()),
    ];
    let mut sent = Vec::new();
    for (n, packet) in packets.iter().enumerate() {
        // The IPv4 header's own, where there is one; the transport's; and IP headers that contradict themselves.
        let transport = if n < 2 { 34 } else { 54 } + if n % 2 == 0 { 16 } else { 6 };
        let places: &[usize] = if n < 2 { &[24, transport, 14, 16] } else { &[transport, 14, 18] };
        for at in places {
            let mut wrong = packet.clone();
            wrong[*at] ^= 0x5a;
            sent.push(wrong);
        }
        sent.push(packet[..packet.len() - 5].to_vec());
    }
    let mut lab = Lab::new(&[PortSettings::default(), PortSettings::default()]);
    let towards: Vec<Vec<u8>> = sent.iter().map(|frame| [&B[..], &A, &frame[12..]].concat()).collect();
    assert_eq!(lab.send(&towards, 1), towards);
    assert_eq!(lab.all_drops(), []);
}

/// Neither is any station's address: such a frame teaches nothing, and is told of by its own name.
#[test]
fn sources_that_are_no_station_are_dropped_and_not_learned() {
    let mut lab = Lab::new(&[PortSettings::default(), PortSettings::default()]);
    let from = |source: [u8; 6]| {
        let mut bytes = frame(&[0x88, 0xb6], 1, 46);
        bytes[6..12].copy_from_slice(&source);
        bytes
    };
    let groups = [[1, 0, 0x5e, 0, 0, 1], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [3, 0, 0, 0, 0, 1]];
    let mut sent = vec![from(A), from([0; 6])];
    sent.extend(groups.map(from));
    sent.push(from(A));
    assert_eq!(lab.send(&sent, 1), [from(A), from(A)]);
    assert_eq!(lab.all_drops(), [("source-mac-zero", 1), ("source-mac-group", 4)]);
    assert_eq!(lab.rig.tables.fdb.entries(), 1);
}
