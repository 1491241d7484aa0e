//! Seeded UDP flows out of memory, and a sink that counts: benches of a running daemon. The source copies
//! a template into a fresh frame, which is its cost of `recv`; no stage of the pipeline is involved.

use super::{Port, Remains, Sent, Serviced};
use crate::counter::Counters;
use crate::frame::{Area, Batch, Pool, TxQueue};
use std::os::fd::BorrowedFd;
use std::time::Instant;
use switch_api::{Mac, MemorySource};

/// Frames a second beyond which pacing by elapsed time stops being worth its arithmetic.
const BURST_MAX: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub struct TrafficPort {
    source: Option<Source>,
    /// Frames and bytes that arrived.
    pub sunk: Sent,
}

/// Frames of a set of flows, in a seeded order.
#[derive(Debug)]
pub struct Source {
    /// One frame, which each flow writes its own addresses into: a template for every flow would take the
    /// cache that is measured.
    frame: Box<[u8]>,
    reverse: bool,
    flows: u64,
    /// Pairs of stations that the flows are of, if they are fewer.
    pairs: Option<u32>,
    state: u64,
    rate_pps: u64,
    started: Instant,
    made: u64,
}

/// The source station of flow `flow`. It is behind the port that sends the flow.
pub fn client(flow: u32) -> Mac {
    let [a, b, c, d] = flow.to_be_bytes();
    Mac([0x02, 0x00, a, b, c, d])
}

/// The destination station of flow `flow`.
pub fn server(flow: u32) -> Mac {
    let [a, b, c, d] = flow.to_be_bytes();
    Mac([0x02, 0x01, a, b, c, d])
}

impl Source {
    /// At the first frame of its order.
    pub fn new(spec: &MemorySource) -> Self {
        Self {
            frame: udp_frame(server(0), client(0), 0, usize::from(spec.frame_len)).into(),
            reverse: spec.reverse,
            flows: u64::from(spec.flows),
            pairs: None,
            state: spec.seed | 1,
            rate_pps: spec.rate_pps,
            started: Instant::now(),
            made: 0,
        }
    }

    /// The same between so many pairs of stations alone, each of which has several flows and several peers.
    #[must_use]
    pub fn between(self, pairs: u32) -> Self {
        Self { pairs: Some(pairs.max(1)), ..self }
    }

    /// The next frame's bytes. Xorshift: seeded, and cheap next to a 64-byte copy.
    #[inline(always)]
    pub fn next_frame(&mut self) -> &[u8] {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let flow = ((u128::from(self.state) * u128::from(self.flows)) >> 64) as u32;
        let (near, far) = match self.pairs {
            None => (client(flow), server(flow)),
            Some(pairs) => (client(flow % pairs), server((flow + flow / pairs) % pairs)),
        };
        let (dst, src) = if self.reverse { (near, far) } else { (far, near) };
        address(&mut self.frame, dst, src, flow);
        &self.frame
    }

    fn allowance(&self) -> u64 {
        if self.rate_pps == 0 {
            return u64::MAX;
        }
        let due = (self.started.elapsed().as_nanos() * u128::from(self.rate_pps) / 1_000_000_000) as u64;
        due.saturating_sub(self.made).min(BURST_MAX)
    }
}

/// An Ethernet, IPv4 and UDP frame of `len` bytes. Its IP checksum is right; UDP has none (RFC 768).
pub fn udp_frame(dst: Mac, src: Mac, flow: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len.max(60)];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip_len = (frame.len() - 14) as u16;
    frame[14..24].copy_from_slice(&[0x45, 0, (ip_len >> 8) as u8, ip_len as u8, 0, 0, 0x40, 0, 64, 17]);
    frame[34..38].copy_from_slice(&[0x30, 0x39, 0x30, 0x39]);
    frame[38..40].copy_from_slice(&(ip_len - 20).to_be_bytes());
    address(&mut frame, dst, src, flow);
    frame
}

/// Makes a frame of [`udp_frame`] one of `flow`.
fn address(frame: &mut [u8], dst: Mac, src: Mac, flow: u32) {
    frame[..6].copy_from_slice(&dst.0);
    frame[6..12].copy_from_slice(&src.0);
    let [_, b, c, d] = flow.to_be_bytes();
    frame[24..34].copy_from_slice(&[0, 0, 10, b, c, d, 11, b, c, d]);
    let checksum = !crate::wire::checksum::fold(crate::wire::checksum::sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

impl TrafficPort {
    /// A sink, and a source if one is given.
    pub fn new(source: Option<&MemorySource>) -> Self {
        Self { source: source.map(Source::new), sunk: Sent::default() }
    }
}

impl Port for TrafficPort {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let Some(source) = &mut self.source else { return };
        let mut allowance = source.allowance();
        while allowance > 0 && !batch.is_full() {
            let Some(mut frame) = pool.take() else { return };
            if !pool.area().fill(&mut frame, source.next_frame()) {
                return pool.give(frame);
            }
            frame.offload.csum = crate::wire::checksum::Csum::Complete;
            batch.push(frame);
            source.made += 1;
            allowance -= 1;
        }
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        let mut sent = Sent::default();
        for frame in queue.take(usize::MAX) {
            sent.packets += 1;
            sent.bytes += frame.len() as u64;
            pool.give(frame);
        }
        self.sunk.packets += sent.packets;
        self.sunk.bytes += sent.bytes;
        sent
    }

    fn service(&mut self, _: &mut Pool, _: bool, _: &Counters) -> Serviced {
        Serviced::WELL
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn may_sleep(&self) -> bool {
        self.source.is_none()
    }

    fn held(&self) -> usize {
        0
    }

    fn close(self: Box<Self>, _: &Area) -> Remains {
        Remains::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn few_stations_have_as_many_flows_as_they_are_told() {
        let spec = MemorySource { flows: 1_000, frame_len: 60, seed: 3, rate_pps: 0, reverse: false };
        let (mut few, mut all) = (Source::new(&spec).between(50), Source::new(&spec));
        let mut seen: [HashSet<Vec<u8>>; 4] = Default::default();
        for _ in 0..20_000 {
            let frame = few.next_frame().to_vec();
            // The same flow of both: only the stations are others.
            assert_eq!(frame[12..], all.next_frame()[12..]);
            for (seen, bytes) in
                seen.iter_mut().zip([&frame[..6], &frame[6..12], &frame[..12], &frame[26..34]])
            {
                seen.insert(bytes.to_vec());
            }
        }
        // Destinations, sources, pairs of both, and flows by their addresses.
        assert_eq!(seen.map(|seen| seen.len()), [50, 50, 1_000, 1_000]);
    }
}
