//! The loop guard. Two ports that are patched together show themselves by stations that hop between them, or, where
//! one of them floods nothing, by frames that are flooded without end. Neither proves anything: a hostile pod can make
//! a neighbour's MAC hop at will, and blocking on that would be its weapon. So a port under suspicion is sent a probe
//! that only this daemon can have made; if the probe comes back, by whatever port, that port leads back to us and is
//! blocked, both ways ([`crate::table::loops`]). A pod that sends its own probe back blocks nobody but itself.

use super::Now;
use crate::config::snapshot::{PortId, Snapshot};
use crate::frame::{Area, Frame, Pool};
use crate::wire::ethernet::{self, HEADER_LEN, TAG_LEN};

/// The shortest time between two probes of one port: ten a second bound what a pod can provoke, and keep detection well
/// within the second we promise.
const REST_NS: u64 = 100_000_000;
/// What a port may have flooded in [`REST_NS`] before it is under suspicion. A single frame that circles over the slowest
/// port makes some thousands; a pod that says more is sent ten probes a second, no more.
pub const FLOODS_SUSPICIOUS: u32 = 256;
/// IEEE 802 local experimental EtherType 1.
pub const ETHERTYPE: u16 = 0x88b5;
/// A locally administered group address: bridges between two of our ports flood it.
pub const DESTINATION: u64 = 0x0353_5749_5443;
/// A probe's length without its tag: the shortest Ethernet frame without FCS.
const LEN: usize = 60;

#[derive(Clone, Copy, Debug, Default)]
struct Suspicion {
    since_ns: u64,
    floods: u32,
    /// When its last probe was asked for; 0 is never.
    probed_ns: u64,
}

/// Signs of a loop, private to a worker.
#[derive(Debug)]
pub struct LoopWatch {
    ports: Box<[Suspicion]>,
    /// Ports to be probed, each in the bridge and VLAN where it looked suspicious; the worker takes them when it has time.
    due: Vec<(PortId, u16)>,
    source: u64,
}

impl LoopWatch {
    /// `secret` goes into the probes' source address: 46 bits that nobody else knows.
    pub fn new(ports: usize, secret: u64) -> Self {
        let source = secret & 0xfcff_ffff_ffff | 0x0200_0000_0000;
        Self { ports: vec![Suspicion::default(); ports].into(), due: Vec::with_capacity(ports), source }
    }

    /// In `fid`, a station hopped to `port`, or would have if the table had taken it. Once is enough: where both ends flood, a loop
    /// moves stations at line rate, but closed one way it moves each of them once.
    pub fn suspect(&mut self, port: PortId, fid: u16, now: Now) {
        let suspicion = &mut self.ports[usize::from(port)];
        let rested = suspicion.probed_ns == 0 || now.ns.saturating_sub(suspicion.probed_ns) > REST_NS;
        if rested && self.due.len() < self.due.capacity() {
            suspicion.probed_ns = now.ns.max(1);
            self.due.push((port, fid));
        }
    }

    /// A frame that came in by `port` is flooded in `fid`. Should a probe be lost in the storm that it was sent into, the next
    /// one is asked for here.
    pub fn flooded(&mut self, port: PortId, fid: u16, now: Now) {
        let suspicion = &mut self.ports[usize::from(port)];
        if now.ns.saturating_sub(suspicion.since_ns) > REST_NS {
            suspicion.since_ns = now.ns;
            suspicion.floods = 0;
        }
        suspicion.floods += 1;
        if suspicion.floods >= FLOODS_SUSPICIOUS {
            self.suspect(port, fid, now);
        }
    }

    /// A probe, and the port to send it out of.
    pub fn next(&mut self, snapshot: &Snapshot, pool: &mut Pool) -> Option<(PortId, Frame)> {
        // Without a frame it waits for one: circling frames may have them all.
        let (port, fid) = *self.due.last()?;
        let mut frame = pool.take()?;
        self.due.pop();
        if self.write(pool.area(), &mut frame, snapshot, port, fid) {
            return Some((port, frame));
        }
        pool.give(frame);
        None
    }

    /// Writes the probe for `port`, whose number it carries (big endian), tagged if that is how `fid` leaves there. Whether
    /// there was room, and the port.
    fn write(&self, area: &Area, frame: &mut Frame, snapshot: &Snapshot, port: PortId, fid: u16) -> bool {
        let mut bytes = [0; LEN];
        bytes[..6].copy_from_slice(&DESTINATION.to_be_bytes()[2..]);
        bytes[6..12].copy_from_slice(&self.source.to_be_bytes()[2..]);
        bytes[12..HEADER_LEN].copy_from_slice(&ETHERTYPE.to_be_bytes());
        bytes[HEADER_LEN..HEADER_LEN + 2].copy_from_slice(&port.to_be_bytes());
        let (Some(to), Some(vlan)) = (snapshot.port(port), snapshot.fids.get(usize::from(fid))) else {
            return false;
        };
        if !area.fill(frame, &bytes) {
            return false;
        }
        if to.vlans.untagged.0 != fid {
            if !frame.push_front(TAG_LEN as u16) {
                return false;
            }
            ethernet::push_tag(area.bytes_mut(frame), vlan.vid);
        }
        true
    }

    /// Whether a frame is one of our probes.
    #[inline(always)]
    pub fn is_probe(&self, dst: u64, src: u64, ethertype: u16) -> bool {
        ethertype == ETHERTYPE && dst == DESTINATION && src == self.source
    }

    /// By which port a probe left, of what follows its EtherType.
    pub fn left_by(payload: &[u8]) -> Option<PortId> {
        payload.first_chunk().map(|port| u16::from_be_bytes(*port))
    }
}

/// By what everybody can see of a probe: for tests that count what else crosses.
#[cfg(test)]
pub fn looks_like_one(frame: &[u8]) -> bool {
    frame.starts_with(&DESTINATION.to_be_bytes()[2..])
}
