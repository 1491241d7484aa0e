//! `wire/*`: headers, checksums, superframes.

use super::{Case, Work, only};
use std::hint::black_box;
use std::num::NonZeroU16;
use switch_core::port::traffic::{client, server, udp_frame};
use switch_core::wire::checksum::Csum;
use switch_core::wire::gro::Train;
use switch_core::wire::gso::{Gso, GsoKind, Segmenter};
use switch_core::wire::transport::Transport;
use switch_core::wire::{checksum, ethernet, vnet};

const BATCH: u64 = 64;
/// Of a full superframe.
const SEGMENTS: usize = 45;
const MSS: usize = 1448;

pub(super) const CASES: &[Case] = &[
    Case { id: "wire/ethernet-parse", items: BATCH, is_on_path: true, make: parse },
    Case { id: "wire/checksum-1500", items: 1, is_on_path: true, make: sum },
    Case { id: "wire/checksum-copy-1500", items: 1, is_on_path: true, make: copy },
    Case { id: "wire/vnet-decode", items: BATCH, is_on_path: true, make: decode },
    Case { id: "wire/gso-cut-45", items: SEGMENTS as u64, is_on_path: true, make: || cut(false) },
    Case { id: "wire/gso-cut-45-checksummed", items: SEGMENTS as u64, is_on_path: true, make: || cut(true) },
    Case { id: "wire/gro-join-45", items: SEGMENTS as u64, is_on_path: true, make: || Box::new(Join::new()) },
];

fn parse() -> Box<dyn Work> {
    let frame = udp_frame(server(0), client(0), 0, 1514);
    only(move || (0..BATCH).for_each(|_| _ = black_box(ethernet::parse(black_box(&frame)))))
}

fn sum() -> Box<dyn Work> {
    let frame = udp_frame(server(0), client(0), 0, 1514);
    only(move || _ = black_box(checksum::sum(black_box(&frame[14..]))))
}

fn copy() -> Box<dyn Work> {
    let (frame, mut place) = (udp_frame(server(0), client(0), 0, 1514), vec![0; 1500]);
    only(move || _ = black_box(checksum::copy(black_box(&frame[14..]), black_box(&mut place))))
}

/// TCP that a pod's kernel has left unfinished, and what it says of it.
struct Superframe {
    frame: Vec<u8>,
    csum: Csum,
    gso: Gso,
}

impl Superframe {
    fn new() -> Self {
        let size = NonZeroU16::new(MSS as u16).unwrap_or(NonZeroU16::MIN);
        let gso = Gso { kind: GsoKind::Tcp4, ecn: false, size };
        let mut frame = udp_frame(server(0), client(0), 0, 54 + MSS * SEGMENTS);
        let len = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        frame[23] = 6;
        // Sequence, acknowledgement, five words, ACK, a window.
        frame[38..54].copy_from_slice(&[0, 0, 0, 3, 0, 0, 0, 5, 0x50, 0x10, 0x10, 0, 0, 0, 0, 0]);
        frame[24..26].copy_from_slice(&[0, 0]);
        let header = !checksum::fold(checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&header.to_be_bytes());
        frame[54..].iter_mut().enumerate().for_each(|(n, byte)| *byte = (n % 251) as u8);
        let transport = Transport::read(&frame).unwrap_or_else(|error| panic!("{error}"));
        let pseudo = transport.pseudo(&frame).to_be_bytes();
        frame[50..52].copy_from_slice(&pseudo);
        Self { csum: transport.partial(), frame, gso }
    }

    fn segmenter(&self) -> Segmenter<'_> {
        Segmenter::new(&self.frame, self.csum, self.gso).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As they go out.
    fn segments(&self, finish: bool) -> Vec<Vec<u8>> {
        let segmenter = self.segmenter();
        let mut segments = vec![vec![0; 54 + MSS]; segmenter.count()];
        segments.iter_mut().enumerate().for_each(|(n, segment)| _ = segmenter.write(n, segment, finish));
        segments
    }
}

fn decode() -> Box<dyn Work> {
    let one = Superframe::new();
    let header = vnet::encode(one.csum, Some(one.gso), &one.frame);
    only(move || {
        (0..BATCH).for_each(|_| _ = black_box(vnet::decode(black_box(&header), black_box(&one.frame))))
    })
}

fn cut(finish: bool) -> Box<dyn Work> {
    let one = Superframe::new();
    let mut segments = one.segments(finish);
    only(move || {
        let segmenter = one.segmenter();
        for (n, segment) in segments.iter_mut().enumerate() {
            black_box(segmenter.write(n, segment, finish));
        }
    })
}

/// Segments of one stream that become one again.
struct Join {
    segments: Vec<Vec<u8>>,
    first: Vec<u8>,
}

impl Join {
    fn new() -> Self {
        let segments = Superframe::new().segments(true);
        Self { first: segments[0].clone(), segments }
    }
}

impl Work for Join {
    fn prepare(&mut self) {
        self.first.copy_from_slice(&self.segments[0]);
    }

    fn run(&mut self) {
        let mut train = Train::begin(&self.first, Csum::Complete).unwrap_or_else(|| panic!("no train"));
        for segment in &self.segments[1..] {
            assert!(train.push(&self.first, segment, Csum::Complete));
        }
        black_box(train.finish(&mut self.first));
    }
}
