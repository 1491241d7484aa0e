//! Headers that are right come back as they were; headers that lie are refused by name.

use super::super::gso::{SEGMENTS_MAX, Segmenter};
use super::super::made::{Made, any_made};
use super::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// The header in its fields, in the order they lie in.
fn header(flags: u8, gso_type: u8, hdr_len: u16, size: u16, start: u16, offset: u16) -> [u8; LEN] {
    let mut header = [flags, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
    for (place, value) in header[2..].chunks_exact_mut(2).zip([hdr_len, size, start, offset]) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    header
}

/// A superframe of 3000 bytes in segments of 1000, without tag and options: the transport header is at 34 or 54.
fn made(tcp: bool, v6: bool) -> Made {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let any = any_made(0).new_tree(&mut runner).unwrap().current();
    let size = NonZeroU16::new(1000).unwrap();
    Made {
        tci: None,
        tcp,
        v6,
        ip_options: 0,
        tcp_options: vec![],
        flags: 0x10,
        payload: vec![5; 3000],
        size,
        ..any
    }
}

fn tcp4() -> Vec<u8> {
    made(true, false).superframe().0
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(made in any_made(6000)) {
        let (frame, csum) = made.superframe();
        let segments = gso::segments(&frame, made.gso());
        let decoded = decode(&encode(csum, Some(made.gso()), &frame), &frame);
        let gso = made.gso();
        if gso.ecn && !made.tcp {
            // `made` says ECN wherever its flags hold CWR; with UDP that was not agreed on.
            prop_assert_eq!(decoded, Err(BadVnet::GsoType(GSO_UDP_L4 | GSO_ECN)));
        } else if segments > SEGMENTS_MAX {
            prop_assert_eq!(decoded, Err(BadGso::TooMany(segments).into()));
        } else {
            prop_assert_eq!(decoded, Ok((csum, (segments > 1).then_some(gso))));
        }
        prop_assert_eq!(decode(&encode(csum, None, &frame), &frame), Ok((csum, None)));
        prop_assert_eq!(decode(&encode(Csum::Unknown, None, &frame), &frame), Ok((csum, None)));
        prop_assert_eq!(encode(Csum::Complete, None, &frame), [0; LEN]);
    }

    /// Of all places in a frame, a checksum is believed to be at one. For UDP, which may be a tunnel, also in its payload.
    #[test]
    fn no_other_place_is_believed(made in any_made(200), start in 0u16..400, offset in prop_oneof![0u16..20, any::<u16>()]) {
        let (frame, csum) = made.superframe();
        let decoded = decode(&header(1, 0, 0, 0, start, offset), &frame);
        let Csum::Partial { start: right, field } = csum else { unreachable!() };
        let own = (start, offset) == (right, u16::from(field));
        let (first, last) = (usize::from(right) + 20, usize::from(start) + usize::from(offset) + 2);
        let inner = !made.tcp && usize::from(start) >= first && last <= frame.len() && [6, 16].contains(&offset);
        if own || inner {
            prop_assert_eq!(decoded, Ok((Csum::Partial { start, field: offset as u8 }, None)));
        } else {
            prop_assert_eq!(decoded, Err(BadVnet::ChecksumPlace { start, offset }));
        }
    }

    /// Whatever a pod writes: nothing panics, and what is accepted can be cut or finished inside the frame.
    #[test]
    fn whatever_comes_is_refused_or_can_be_worked_on(bytes: [u8; LEN], likely: bool, made in any_made(300),
            cut in any::<prop::sample::Index>(), whole: bool) {
        let (mut frame, csum) = made.superframe();
        let mut bytes = if likely { encode(csum, Some(made.gso()), &frame) } else { bytes };
        bytes[0] |= 1;
        if !whole { frame.truncate(cut.index(frame.len())); }
        let Ok((csum, gso)) = decode(&bytes, &frame) else { return Ok(()) };
        if let Some(gso) = gso {
            prop_assert!(Segmenter::new(&frame, csum, gso).is_ok());
        }
        let Csum::Partial { start, field } = csum else { panic!("{csum:?}") };
        let mut finished = frame.clone();
        checksum::finish(&mut finished, start, field);
        let at = usize::from(start) + usize::from(field);
        finished[at..at + 2].copy_from_slice(&frame[at..at + 2]);
        prop_assert_eq!(finished, frame);
    }
}

#[test]
fn a_header_that_says_nothing_is_believed() {
    assert_eq!(decode(&[0; LEN], &tcp4()), Ok((Csum::Complete, None)));
    assert_eq!(decode(&[0; LEN], &[]), Ok((Csum::Complete, None)));
    // DATA_VALID says "trust me". The receiver looks for itself. And hdr_len may say what it likes.
    assert_eq!(decode(&header(2, 0, 0xffff, 0, 0, 0), &[]), Ok((Csum::Complete, None)));
    assert!(decode(&header(3, 1, 0xffff, 1000, 34, 16), &tcp4()).is_ok());
}

#[test]
fn what_was_not_agreed_on_is_refused() {
    for flags in [4, 8, 0x80, 0xff] {
        assert_eq!(decode(&header(flags, 0, 0, 0, 34, 16), &tcp4()), Err(BadVnet::Flags(flags)));
    }
    // 3 is UFO; 0x20 and 0x40 are a UDP tunnel's; ECN alone and with UDP mean nothing.
    for gso_type in [2, 3, 6, 0x21, 0x41, 0x7f, 0x80, 0x83, 0x85, 0xff] {
        let header = header(1, gso_type, 0, 1000, 34, 16);
        assert_eq!(decode(&header, &tcp4()), Err(BadVnet::GsoType(gso_type)));
    }
}

#[test]
fn a_superframe_that_is_none_is_refused() {
    let frame = tcp4();
    let gso = |gso_type, size| decode(&header(1, gso_type, 0, size, 34, 16), &frame);
    assert_eq!(decode(&header(0, 1, 0, 1000, 34, 16), &frame), Err(BadVnet::GsoWithoutChecksum));
    assert_eq!(gso(1, 0), Err(BadVnet::GsoSizeZero));
    assert_eq!(gso(1, 1), Err(BadGso::TooMany(3000).into()));
    assert_eq!(gso(4, 1000), Err(BadGso::Kind.into()));
    assert_eq!(gso(5, 1000), Err(BadGso::Kind.into()));
    let plain = Ok((Csum::Partial { start: 34, field: 16 }, None));
    assert_eq!(gso(1, 3000), plain, "one segment is a frame like any other");
    assert_eq!(gso(1, u16::MAX), plain);
    assert!(gso(1, 2999).unwrap().1.is_some());
    let elsewhere = decode(&header(1, 1, 0, 1000, 36, 16), &frame);
    assert_eq!(elsewhere, Err(BadVnet::ChecksumPlace { start: 36, offset: 16 }));
    let past_the_end = decode(&header(1, 1, 0, 1000, u16::MAX, u16::MAX), &frame);
    assert_eq!(past_the_end, Err(BadVnet::ChecksumPlace { start: u16::MAX, offset: u16::MAX }));
}

#[test]
fn headers_that_lie_about_the_frame_are_refused() {
    let headers = Err(BadVnet::Gso(NoTransport::Headers.into()));
    let gso = |frame: &[u8]| decode(&header(1, 1, 0, 1000, 34, 16), frame);
    assert_eq!(gso(&[]), headers);
    assert_eq!(gso(&tcp4()[..50]), headers);
    for data_offset in [0x40, 0x00] {
        let mut frame = tcp4();
        frame[34 + 12] = data_offset;
        assert_eq!(gso(&frame), headers, "a TCP header of fewer than five words");
    }
    let mut options_past_the_end = Made { payload: vec![], ..made(true, false) }.superframe().0;
    options_past_the_end[34 + 12] = 0xf0;
    assert_eq!(gso(&options_past_the_end), headers);
    let mut longer_than_the_frame = tcp4();
    longer_than_the_frame[16..18].copy_from_slice(&3041u16.to_be_bytes());
    assert_eq!(gso(&longer_than_the_frame), headers);
    let mut big_tcp = tcp4();
    big_tcp[16..18].fill(0);
    assert_eq!(gso(&big_tcp), headers, "a total length of 0 (BIG TCP) is not offered");
    let mut fragment = tcp4();
    fragment[20] = 0x20;
    assert_eq!(gso(&fragment), Err(BadVnet::Gso(NoTransport::Fragment.into())));
    assert_eq!(
        decode(&header(1, 0, 0, 0, 34, 16), &fragment),
        Err(BadVnet::NoChecksum(NoTransport::Fragment))
    );
    let mut arp = tcp4();
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(decode(&header(1, 0, 0, 0, 34, 16), &arp), Err(BadVnet::NoChecksum(NoTransport::NotIp)));
    let mut udp = made(false, true).superframe().0;
    udp[54 + 4] ^= 1;
    let lying = decode(&header(1, 5, 0, 1000, 54, 6), &udp);
    assert_eq!(lying, headers, "a UDP length that is not the packet's");
}

#[test]
fn sctp_and_icmp_have_no_sum_that_could_be_left() {
    let mut frame = tcp4();
    frame[23] = ip::SCTP;
    for offset in [8, 6, 16] {
        assert_eq!(decode(&header(1, 0, 0, 0, 34, offset), &frame), Err(BadVnet::Sctp));
    }
    frame[23] = ip::ICMP;
    for (start, offset) in [(34, 2), (34, 16), (60, 16)] {
        let icmp = decode(&header(1, 0, 0, 0, start, offset), &frame);
        assert_eq!(icmp, Err(BadVnet::NoChecksum(NoTransport::Foreign(ip::ICMP))));
    }
}

/// What Linux 6.18 hands over for a pod's VXLAN: the outer checksum done, the inner one, of UDP or TCP, not.
#[test]
fn a_tunnels_inner_checksum_is_the_one_to_finish() {
    for tcp in [false, true] {
        let inner = Made { payload: vec![9; 301], ..made(tcp, false) };
        let (unfinished, Csum::Partial { start, field }) = inner.superframe() else { unreachable!() };
        let vxlan = [vec![8, 0, 0, 0, 0, 0, 5, 0], unfinished].concat();
        let outer = Made { payload: vxlan, size: NonZeroU16::MAX, ..made(false, false) };
        let mut frame = outer.segments().remove(0);
        let inner_start = 34 + 8 + 8 + start;
        let vnet = header(1, 0, 0, 0, inner_start, field.into());
        let (csum, gso) = decode(&vnet, &frame).unwrap();
        assert_eq!((csum, gso), (Csum::Partial { start: inner_start, field }, None));
        assert_eq!(encode(csum, gso, &frame), vnet);
        checksum::finish(&mut frame, inner_start, field);
        let whole = Made { size: NonZeroU16::MAX, ..inner }.segments().remove(0);
        assert_eq!(frame[34 + 8 + 8..], whole[..]);
        // Not into the outer header, and not past the outer packet.
        for start in [0, 6, 24, 34, 40, 53] {
            assert!(decode(&header(1, 0, 0, 0, start, field.into()), &frame).is_err() || start == 34 && !tcp);
        }
        let end = frame.len() as u16 - u16::from(field) - 1;
        let past_the_end = decode(&header(1, 0, 0, 0, end, field.into()), &frame);
        assert!(matches!(past_the_end, Err(BadVnet::ChecksumPlace { .. })));
    }
}

/// The names that drops are counted under, and that every sentence says which word of the header it is about.
#[test]
fn every_refusal_has_a_name_and_a_sentence() {
    let all: [(BadVnet, &str); 8] = [
        (BadVnet::Flags(4), "vnet-not-agreed"),
        (BadVnet::GsoType(3), "vnet-not-agreed"),
        (BadVnet::GsoWithoutChecksum, "vnet-segments"),
        (BadVnet::GsoSizeZero, "vnet-segments"),
        (BadGso::TooMany(9000).into(), "vnet-segments"),
        (BadVnet::NoChecksum(NoTransport::Fragment), "vnet-checksum"),
        (BadVnet::Sctp, "vnet-checksum"),
        (BadVnet::ChecksumPlace { start: 1, offset: 2 }, "vnet-checksum"),
    ];
    for (bad, name) in all {
        assert_eq!(bad.name(), name);
        assert!(bad.to_string().len() > 20, "{bad}");
    }
}
