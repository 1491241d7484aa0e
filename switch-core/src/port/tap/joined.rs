//! What leaves by one write: a frame, or neighbours in the queue that are segments of one TCP stream, joined
//! ([`gro`](crate::wire::gro)). They come from an xdp port, whose pod's kernel cuts everything to the MTU before we see it.
//!
//! Only what waits in the queue now is joined, so nothing is delayed, and only neighbours, so the order within and
//! across flows is that of the queue. Nothing is copied: the write gathers the payloads from where they lie.

use crate::frame::{Area, Frame};
use crate::wire::gro::Train;
use crate::wire::vnet;

/// Most frames in one write. A full superframe has 45 segments of 1 448 bytes; a stream of smaller ones gains little
/// beyond this.
pub(super) const JOINED_FRAMES_MAX: usize = 64;

/// The frames at the front of a queue that leave together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Joined {
    /// How many. The first goes as a whole, of the others the payload.
    pub frames: usize,
    /// Where the others' payload begins.
    pub payload_at: usize,
    /// What goes before them.
    pub header: [u8; vnet::LEN],
}

impl Joined {
    /// Joins what may be joined to the first frame, whose headers then are those of all. None if there is no frame.
    #[inline]
    pub fn front(area: &Area, frames: &mut [Frame]) -> Option<Self> {
        let (first, rest) = frames.split_first_mut()?;
        if let Some((train, frames)) = train(area, first, rest) {
            let payload_at = train.payload_at();
            let (csum, gso) = train.finish(area.bytes_mut(first));
            return Some(Self { frames, payload_at, header: vnet::encode_known(csum, gso, payload_at) });
        }
        let header = vnet::encode(first.offload.csum, first.offload.gso, area.bytes(first));
        Some(Self { frames: 1, payload_at: 0, header })
    }
}

/// A train of at least two frames.
#[inline]
fn train(area: &Area, first: &Frame, rest: &[Frame]) -> Option<(Train, usize)> {
    if rest.is_empty() || first.offload.gso.is_some() {
        return None;
    }
    let bytes = area.bytes(first);
    let mut train = Train::begin(bytes, first.offload.csum)?;
    let follows =
        |next: &&Frame| next.offload.gso.is_none() && train.push(bytes, area.bytes(next), next.offload.csum);
    let others = rest.iter().take(JOINED_FRAMES_MAX - 1).take_while(follows).count();
    (others > 0).then_some((train, 1 + others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{AreaSize, Pool};
    use crate::wire::checksum::Csum;
    use crate::wire::gso::{Gso, Segmenter};
    use crate::wire::made::{Made, any_made, unfinish};
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use std::num::NonZeroU16;
    use std::sync::Arc;

    /// Frames in the memory, as a port would have received them.
    fn queue(pool: &mut Pool, packets: &[(Vec<u8>, Csum)]) -> Vec<Frame> {
        let fill = |(packet, csum): &(Vec<u8>, Csum)| {
            let mut frame = pool.take_for(packet.len()).unwrap();
            assert!(pool.area().fill(&mut frame, packet));
            frame.offload.csum = *csum;
            frame
        };
        packets.iter().map(fill).collect()
    }

    fn pool() -> Pool {
        let (area, frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 256, large: 8 }).unwrap();
        Pool::deal(Arc::new(area), frames, 1).remove(0)
    }

    /// What the descriptor is given, and how many frames are in each write.
    fn writes(area: &Area, mut frames: &mut [Frame]) -> Vec<([u8; vnet::LEN], Vec<u8>, usize)> {
        let mut out = Vec::new();
        while let Some(joined) = Joined::front(area, frames) {
            let (now, later) = frames.split_at_mut(joined.frames);
            let mut bytes = area.bytes(&now[0]).to_vec();
            now[1..].iter().for_each(|frame| bytes.extend(&area.bytes(frame)[joined.payload_at..]));
            out.push((joined.header, bytes, joined.frames));
            frames = later;
        }
        out
    }

    /// What a kernel makes of a write: segments with finished checksums.
    fn received(header: &[u8; vnet::LEN], bytes: &[u8]) -> Vec<Vec<u8>> {
        let (csum, gso) = vnet::decode(header, bytes).unwrap();
        let Some(gso) = gso else {
            let mut frame = bytes.to_vec();
            if let Csum::Partial { start, field } = csum {
                crate::wire::checksum::finish(&mut frame, start, field);
            }
            return vec![frame];
        };
        let segmenter = Segmenter::new(bytes, csum, gso).unwrap();
        let cut = |i| {
            let mut segment = vec![0; segmenter.len_of(i)];
            segmenter.write(i, &mut segment, true).unwrap();
            segment
        };
        (0..segmenter.count()).map(cut).collect()
    }

    fn stream(payload_len: usize) -> impl Strategy<Value = Made> {
        (any_made(payload_len), 200u16..1400).prop_map(|(made, size)| Made {
            flags: if made.tcp { 0x10 } else { 0 },
            size: NonZeroU16::new(size).unwrap(),
            ..made
        })
    }

    fn long_stream(segments: usize) -> Made {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let made = any_made(10).new_tree(&mut runner).unwrap().current();
        let (tcp, flags, ip_options, size) = (true, 0x10, 0, NonZeroU16::new(1400).unwrap());
        Made { tcp, v6: false, flags, ip_options, size, payload: vec![7; 1400 * segments], ..made }
    }

    proptest! {
        #![proptest_config(crate::cases::cases(300))]

        /// Streams one after another and shuffled, finished or not, TCP and UDP: a kernel that cuts what is written has
        /// the frames of the queue, in their order, and every frame left in exactly one write.
        #[test]
        fn what_is_written_are_the_frames_of_the_queue(streams in proptest::collection::vec((stream(5000), any::<bool>()), 1..4),
                swaps in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4)) {
            let mut whole = Vec::new();
            let mut packets = Vec::new();
            for (made, unfinished) in &streams {
                for mut packet in made.segments() {
                    whole.push(packet.clone());
                    // Nobody says that they are unfinished: over AF_XDP nobody does.
                    if *unfinished { unfinish(&mut packet, made); }
                    packets.push((packet, Csum::Unknown));
                }
            }
            for (one, other) in swaps {
                let (one, other) = (one.index(whole.len()), other.index(whole.len()));
                whole.swap(one, other);
                packets.swap(one, other);
            }
            let mut pool = pool();
            let mut frames = queue(&mut pool, &packets);
            let writes = writes(pool.area(), &mut frames);
            prop_assert_eq!(writes.iter().map(|(_, _, frames)| frames).sum::<usize>(), packets.len());
            let got: Vec<_> = writes.iter().flat_map(|(header, bytes, _)| received(header, bytes)).collect();
            prop_assert_eq!(got, whole);
        }
    }

    #[test]
    fn a_write_is_as_long_as_an_ip_packet_may_be() {
        let packets: Vec<_> =
            long_stream(100).segments().into_iter().map(|packet| (packet, Csum::Unknown)).collect();
        let mut pool = pool();
        let mut frames = queue(&mut pool, &packets);
        let counts: Vec<_> = writes(pool.area(), &mut frames).iter().map(|(.., frames)| *frames).collect();
        // 46 segments and their headers are 64 440 bytes and some, 47 are too many.
        assert_eq!(counts, [46, 46, 8]);
    }

    #[test]
    fn many_small_segments_are_bounded() {
        let made = Made { size: NonZeroU16::new(100).unwrap(), ..long_stream(10) };
        let packets: Vec<_> = made.segments().into_iter().map(|packet| (packet, Csum::Complete)).collect();
        let mut pool = pool();
        let mut frames = queue(&mut pool, &packets);
        let counts: Vec<_> = writes(pool.area(), &mut frames).iter().map(|(.., frames)| *frames).collect();
        assert_eq!(counts, [JOINED_FRAMES_MAX, JOINED_FRAMES_MAX, 12]);
    }

    #[test]
    fn a_flipped_byte_and_a_superframe_travel_alone() {
        let made = long_stream(5);
        let mut packets: Vec<_> = made.segments().into_iter().map(|packet| (packet, Csum::Unknown)).collect();
        *packets[2].0.last_mut().unwrap() ^= 1;
        let mut pool = pool();
        let mut frames = queue(&mut pool, &packets);
        let written = writes(pool.area(), &mut frames);
        assert_eq!(written.iter().map(|(.., frames)| *frames).collect::<Vec<_>>(), [2, 1, 2]);
        assert_eq!(written[1].1, packets[2].0, "as it came, for the receiver to see");
        assert_eq!(written[1].0, [0; vnet::LEN]);

        for (superframe, counts) in [(0, &[1, 4][..]), (1, &[1, 1, 3])] {
            let mut packets: Vec<_> =
                made.segments().into_iter().map(|packet| (packet, Csum::Unknown)).collect();
            packets[superframe].1 = unfinish(&mut packets[superframe].0, &made);
            let mut frames = queue(&mut pool, &packets);
            frames[superframe].offload.gso = Some(Gso { size: NonZeroU16::new(700).unwrap(), ..made.gso() });
            let written = writes(pool.area(), &mut frames);
            assert_eq!(written.iter().map(|(.., frames)| *frames).collect::<Vec<_>>(), counts);
            frames.into_iter().for_each(|frame| pool.give(frame));
        }
    }
}
