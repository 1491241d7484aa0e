//! The segmenter against its dull twin, and every segment read again by `etherparse`.

use super::super::made::{Made, any_made, unfinish};
use super::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// All segments, as the segmenter makes them.
fn cut(frame: &[u8], csum: Csum, gso: Gso, finish: bool) -> Vec<Vec<u8>> {
    let segmenter = Segmenter::new(frame, csum, gso).unwrap();
    (0..segmenter.count())
        .map(|i| {
            let mut out = vec![0xee; 70_000];
            let len = segmenter.write(i, &mut out, finish).unwrap();
            assert_eq!(len, segmenter.len_of(i));
            assert!(out[len..].iter().all(|byte| *byte == 0xee), "a byte behind the segment was written");
            out.truncate(len);
            out
        })
        .collect()
}

/// What a receiver would ask of a segment, with none of our code.
fn read_again(segment: &[u8], made: &Made) {
    let sliced = SlicedPacket::from_ethernet(segment).unwrap();
    let (tcp, udp) = match sliced.transport.unwrap() {
        TransportSlice::Tcp(tcp) => (Some(tcp), None),
        TransportSlice::Udp(udp) => (None, Some(udp)),
        other => panic!("{other:?}"),
    };
    assert_eq!(tcp.is_some(), made.tcp);
    match sliced.net.unwrap() {
        NetSlice::Ipv4(v4) => {
            let header = v4.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            if let Some(tcp) = tcp {
                let wanted = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap();
                assert_eq!(tcp.checksum(), wanted);
            }
            if let Some(udp) = udp {
                let wanted = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
                assert_eq!(udp.checksum(), wanted);
            }
        }
        NetSlice::Ipv6(v6) => {
            let header = v6.header().to_header();
            if let Some(tcp) = tcp {
                let wanted = tcp.to_header().calc_checksum_ipv6(&header, tcp.payload()).unwrap();
                assert_eq!(tcp.checksum(), wanted);
            }
            if let Some(udp) = udp {
                let wanted = udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap();
                assert_eq!(udp.checksum(), wanted);
            }
        }
        other => panic!("{other:?}"),
    }
}

/// The same number in one's complement.
fn same(one: u16, other: u16) -> bool {
    one == other || [one, other].iter().all(|sum| [0, 0xffff].contains(sum))
}

proptest! {
    #![proptest_config(crate::cases::cases(600))]

    #[test]
    fn finished_segments_are_the_twins(made in any_made(9000)) {
        prop_assume!(made.payload.len().div_ceil(made.size.get().into()) <= SEGMENTS_MAX);
        let (frame, csum) = made.superframe();
        let wanted = made.segments();
        prop_assert_eq!(segments(&frame, made.gso()), wanted.len());
        prop_assert_eq!(longest(&frame, made.gso()), wanted.iter().map(Vec::len).max().unwrap());
        let bytes: usize = wanted.iter().map(Vec::len).sum();
        prop_assert_eq!(on_wire(&frame, Some(made.gso())), (wanted.len() as u64, bytes as u64));
        prop_assert_eq!(on_wire(&frame, None), (1, frame.len() as u64));
        let got = cut(&frame, csum, made.gso(), true);
        for segment in got.iter().step_by(1 + got.len() / 8) {
            read_again(segment, &made);
        }
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn unfinished_segments_hold_the_pseudo_headers_sum(made in any_made(4000)) {
        prop_assume!(made.payload.len().div_ceil(made.size.get().into()) <= SEGMENTS_MAX);
        let (frame, csum) = made.superframe();
        let field = made.transport_at() + if made.tcp { 16 } else { 6 };
        for (mut got, mut wanted) in cut(&frame, csum, made.gso(), false).into_iter().zip(made.segments()) {
            unfinish(&mut wanted, &made);
            prop_assert!(same(be16(&got, field), be16(&wanted, field)));
            got[field..field + 2].fill(0);
            wanted[field..field + 2].fill(0);
            prop_assert_eq!(got, wanted);
        }
    }

    /// Full superframes, as large as IP lets them be.
    #[test]
    fn the_largest_are_cut_as_well(made in any_made(0), size in 64u16..=u16::MAX, finish: bool) {
        let mut made = made;
        made.size = NonZeroU16::new(size).unwrap();
        let ip_payload = 65_535 - if made.v6 { 0 } else { 20 + usize::from(made.ip_options) * 4 };
        let extension = if made.v6 { made.transport_at() - 54 - if made.tci.is_some() { 4 } else { 0 } } else { 0 };
        let transport = if made.tcp { 20 + made.tcp_options.len() } else { 8 };
        made.payload = (0..ip_payload - extension - transport).map(|i| (i % 251) as u8).collect();
        let (frame, csum) = made.superframe();
        prop_assume!(segments(&frame, made.gso()) <= SEGMENTS_MAX);
        let got = cut(&frame, csum, made.gso(), finish);
        let joined: Vec<u8> = got.iter().flat_map(|segment| &segment[made.transport_at() + transport..]).copied().collect();
        prop_assert_eq!(joined, made.payload.clone());
        if finish { prop_assert_eq!(got, made.segments()); }
    }

    /// A sender's wrong pseudo-header stays wrong: nothing of ours makes a bad segment good.
    #[test]
    fn a_wrong_pseudo_header_stays_wrong(made in any_made(3000), off in 1u16..0xffff) {
        prop_assume!(made.payload.len().div_ceil(made.size.get().into()) <= SEGMENTS_MAX);
        let (mut frame, csum) = made.superframe();
        let field = made.transport_at() + if made.tcp { 16 } else { 6 };
        let wrong = fold(u64::from(be16(&frame, field)) + u64::from(off));
        frame[field..field + 2].copy_from_slice(&wrong.to_be_bytes());
        for (got, right) in cut(&frame, csum, made.gso(), true).iter().zip(made.segments()) {
            prop_assert!(!same(be16(got, field), be16(&right, field)));
        }
    }

    /// Whatever the bytes and whatever is asked of them.
    #[test]
    fn arbitrary_frames_are_refused_or_stay_inside(frame in proptest::collection::vec(any::<u8>(), 0..200),
            flip in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            made in any_made(300), from_made: bool, size in 1u16.., kind in 0..3, finish: bool, i: usize, room in 0usize..600) {
        let mut frame = if from_made { made.superframe().0 } else { frame };
        for (at, byte) in flip { if !frame.is_empty() { let at = at.index(frame.len()); frame[at] = byte; } }
        let kind = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp][kind as usize];
        let gso = Gso { kind, ecn: false, size: NonZeroU16::new(size).unwrap() };
        let csum = Transport::read(&frame).map_or(Csum::Complete, |transport| transport.partial());
        let Ok(segmenter) = Segmenter::new(&frame, csum, gso) else { return Ok(()) };
        prop_assert!((1..=SEGMENTS_MAX).contains(&segmenter.count()));
        let mut out = vec![0; room];
        let written = segmenter.write(i % (segmenter.count() + 2), &mut out, finish);
        prop_assert!(written.is_none_or(|len| len <= room));
        prop_assert_eq!(segmenter.write(i.max(segmenter.count()), &mut out, finish), None);
        prop_assert_eq!(segmenter.len_of(i.max(segmenter.count())), 0);
    }
}

fn plain(payload: usize, size: u16) -> (Vec<u8>, Csum, Gso) {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut made = any_made(0).new_tree(&mut runner).unwrap().current();
    (made.tcp, made.v6) = (true, false);
    made.payload = vec![7; payload];
    made.size = NonZeroU16::new(size).unwrap();
    let (frame, csum) = made.superframe();
    (frame, csum, made.gso())
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let (frame, csum, gso) = plain(SEGMENTS_MAX + 1, 1);
    assert_eq!(Segmenter::new(&frame, csum, gso).err(), Some(BadGso::TooMany(SEGMENTS_MAX + 1)));
    let (frame, csum, gso) = plain(SEGMENTS_MAX, 1);
    assert_eq!(Segmenter::new(&frame, csum, gso).unwrap().count(), SEGMENTS_MAX);
    assert_eq!(Segmenter::new(&frame, Csum::Complete, gso).err(), Some(BadGso::Checksum));
    assert_eq!(Segmenter::new(&frame, Csum::Unknown, gso).err(), Some(BadGso::Checksum));
    for kind in [GsoKind::Tcp6, GsoKind::Udp] {
        assert_eq!(Segmenter::new(&frame, csum, Gso { kind, ..gso }).err(), Some(BadGso::Kind));
    }
    let short = &frame[..frame.len() - 1];
    assert_eq!(Segmenter::new(short, csum, gso).err(), Some(BadGso::Transport(NoTransport::Headers)));
}
