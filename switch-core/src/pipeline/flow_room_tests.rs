//! What becomes of frames that begin flows where there is no room for one more: a port has as many as it may, or the table has no place.

use super::Now;
use crate::counter::DropReason;
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use etherparse::PacketBuilder;
use switch_api::PortSettings;

const NOW: Now = Now { ns: 1_000_000_000_000 };

pub(super) struct Lab {
    pub rig: Rig,
    pub peers: Vec<MemoryPeer>,
    pub now: Now,
}

fn mac(n: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, n as u8]
}

/// A datagram between stations behind two ports, of a flow that a number tells.
pub(super) fn udp(from: usize, to: usize, ports: [u16; 2]) -> Vec<u8> {
    let (link, ip) = (PacketBuilder::ethernet2(mac(from), mac(to)), |n: usize| [10, 0, 0, n as u8]);
    let mut frame = Vec::new();
    link.ipv4(ip(from), ip(to), 64).udp(ports[0], ports[1]).write(&mut frame, &[7; 8]).unwrap();
    frame
}

impl Lab {
    /// Ports of which all but the last are tracked, each of the worker that is named.
    fn new(flows: usize, workers: &[u16]) -> Self {
        let of = |n: usize| PortSettings { track: n + 1 < workers.len(), ..PortSettings::default() };
        Self::of(flows, workers.iter().enumerate().map(|(n, worker)| (of(n), *worker)).collect())
    }

    /// Ports with these settings, each of its worker.
    pub fn of(flows: usize, ports: Vec<(PortSettings, u16)>) -> Self {
        let workers = ports.iter().map(|(_, worker)| usize::from(*worker) + 1).max().unwrap_or(1);
        let (mut rig, mut peers) = (Rig::new(Size { flows, workers, ..Size::default() }), Vec::new());
        for (n, (settings, worker)) in ports.into_iter().enumerate() {
            let (port, peer) = memory::wire();
            rig.add_port(&format!("p{n}"), settings, Box::new(port), worker).unwrap();
            peers.push(peer);
        }
        let mut lab = Self { rig, peers, now: NOW };
        for n in 0..lab.peers.len() {
            lab.send(n, n, [&[0xff; 6][..], &mac(n), &[0x88, 0xb5], &[0; 46]].concat());
        }
        lab
    }

    /// Whether a frame of one port comes out of another.
    pub fn send(&mut self, from: usize, to: usize, frame: Vec<u8>) -> bool {
        assert!(self.peers[from].send(frame));
        self.rig.settle(self.now);
        let came = std::iter::from_fn(|| self.peers[to].recv()).count();
        self.peers.iter().for_each(|peer| while peer.recv().is_some() {});
        came == 1
    }

    /// A flow begins and is answered; whether it may.
    fn begins(&mut self, from: usize, to: usize, number: u16) -> bool {
        let begun = self.send(from, to, udp(from, to, [number, 53]));
        assert!(!begun || self.send(to, from, udp(to, from, [53, number])), "an answer");
        begun
    }

    /// Flows begin at a port until one may not: how many there are.
    fn takes_all(&mut self, from: usize, to: usize) -> u16 {
        let most = (1..u16::MAX).find(|number| !self.begins(from, to, *number));
        most.expect("a limit") - 1
    }

    /// All drops there are, by name.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let all = DropReason::ALL.iter().map(|reason| (reason.name(), self.rig.drops(*reason)));
        all.filter(|(_, frames)| *frames > 0).collect()
    }
}

/// Two ports take what they get; a third finds room all the same, and each frame above is a drop of the port that it came in by.
#[test]
fn frames_above_what_a_port_may_have_of_flows_are_dropped_by_name_and_a_quiet_port_finds_room() {
    let mut lab = Lab::new(4096, &[0, 0, 0, 0]);
    let limits = lab.rig.tables.flows.limits();
    let most = [limits.port, limits.all * 3 / 4 - limits.port].map(|most| most as u16);
    assert_eq!((most, limits.share), ([2048, 1024], 2));
    assert_eq!([lab.takes_all(0, 3), lab.takes_all(1, 3)], most);
    assert_eq!(lab.drops(), [("flow-port-limit", 2)]);
    let of = |lab: &Lab| [0, 1, 2].map(|port| lab.rig.counters[0].drops(port, DropReason::FlowPortLimit));
    assert_eq!(of(&lab), [1, 1, 0]);
    assert!(lab.begins(2, 3, 1) && lab.begins(2, 3, 2), "its share is two");
    assert!(!lab.begins(2, 3, 3) && !lab.begins(0, 3, 5000) && !lab.begins(1, 3, 5000));
    assert_eq!((of(&lab), lab.drops()), ([2, 2, 1], vec![("flow-port-limit", 5)]));
    // What there is goes on, and a port that keeps no flows minds nothing of it.
    assert!(lab.send(0, 3, udp(0, 3, [7, 53])) && lab.send(2, 3, udp(2, 3, [1, 53])));
    lab.rig.assert_conserved();
}

/// One chunk of places, which the first worker has: by the other no flow begins, until those of the first are over.
#[test]
fn a_frame_that_finds_no_place_in_the_table_is_dropped_by_name() {
    let mut lab = Lab::new(256, &[0, 1, 1]);
    assert!(lab.begins(0, 2, 1));
    assert!(!lab.begins(1, 2, 1));
    assert_eq!(lab.drops(), [("flow-table-full", 1)]);
    assert_eq!(lab.rig.counters[1].drops(1, DropReason::FlowTableFull), 1);
    // Nor what the second worker's port sends to a tracked one, where it begins; what the first one has begun is answered.
    assert!(!lab.send(2, 0, udp(2, 0, [9, 9])) && lab.send(2, 0, udp(2, 0, [53, 1])));
    assert_eq!(lab.drops(), [("flow-table-full", 2)]);
    assert!(lab.begins(0, 2, 2));
    lab.now.ns += 200_000_000_000;
    (0..40).for_each(|_| {
        lab.now.ns += 200_000_000;
        lab.rig.settle(lab.now);
    });
    assert!(lab.begins(1, 2, 1) && !lab.begins(0, 2, 3));
    assert_eq!(lab.drops(), [("flow-table-full", 3)]);
    lab.rig.assert_conserved();
}
