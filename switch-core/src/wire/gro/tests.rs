//! Cutting what was joined gives back what came; and what is joined is what a dull twin would join.

use super::super::checksum;
use super::super::gso::{self, Segmenter};
use super::super::made::{Made, any_made, unfinish};
use super::*;
use etherparse::{NetSlice, SlicedPacket, TcpHeader, TransportSlice};
use proptest::prelude::*;

/// A frame and what goes beside it.
type Beside = (Vec<u8>, Csum, Option<Gso>);

/// As a port would do it: a train as long as it will take frames, and their payloads one behind the other.
fn join(frames: &[(Vec<u8>, Csum)]) -> Vec<Beside> {
    let mut out = Vec::new();
    let mut current: Option<(Train, Vec<u8>)> = None;
    let end = |(train, mut whole): (Train, Vec<u8>)| {
        let (csum, gso) = train.finish(&mut whole);
        (whole, csum, gso)
    };
    for (frame, csum) in frames {
        if let Some((train, whole)) = &mut current
            && train.push(whole, frame, *csum)
        {
            whole.extend(&frame[train.payload_at()..]);
            continue;
        }
        out.extend(current.take().map(end));
        match Train::begin(frame, *csum) {
            Some(train) => current = Some((train, frame.clone())),
            None => out.push((frame.clone(), *csum, None)),
        }
    }
    out.extend(current.map(end));
    out
}

fn cut(joined: &[Beside]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (frame, csum, gso) in joined {
        let Some(gso) = gso else {
            out.push(frame.clone());
            continue;
        };
        let segmenter = Segmenter::new(frame, *csum, *gso).unwrap();
        assert_eq!(segmenter.count(), gso::segments(frame, *gso));
        for i in 0..segmenter.count() {
            let mut segment = vec![0; segmenter.len_of(i)];
            segmenter.write(i, &mut segment, true).unwrap();
            out.push(segment);
        }
    }
    out
}

/// A stream that may be joined.
fn stream(payload_max: usize) -> impl Strategy<Value = Made> {
    (any_made(payload_max), any::<bool>(), any::<bool>(), any::<bool>(), 200u16..1500).prop_map(
        |(made, psh, fin, ece, size)| Made {
            tcp: true,
            flags: 0x10 | if psh { 8 } else { 0 } | if fin { 1 } else { 0 } | if ece { 0x40 } else { 0 },
            size: NonZeroU16::new(size).unwrap(),
            ..made
        },
    )
}

proptest! {
    #![proptest_config(crate::cases::cases(400))]

    /// One clean stream: joined as far as it goes, and the superframe is the one a kernel would have sent.
    #[test]
    fn a_stream_becomes_the_superframe_it_was(made in stream(20_000), unfinished: bool) {
        prop_assume!(!made.payload.is_empty());
        let frames: Vec<_> = made.segments().into_iter().map(|mut frame| {
            let csum = if unfinished { unfinish(&mut frame, &made) } else { Csum::Complete };
            (frame, csum)
        }).collect();
        let joined = join(&frames);
        prop_assert_eq!(joined.len(), 1);
        if frames.len() == 1 {
            prop_assert_eq!(&joined[0], &(frames[0].0.clone(), frames[0].1, None));
        } else {
            let (superframe, csum) = made.superframe();
            prop_assert_eq!(&joined[0], &(superframe, csum, Some(made.gso())));
        }
        prop_assert!(unfinished || cut(&joined) == made.segments());
    }

    /// The law. Streams end to end, with bytes turned over, frames lost, doubled and exchanged.
    #[test]
    fn cutting_what_was_joined_gives_back_what_came(streams in proptest::collection::vec(stream(5000), 1..4),
            trouble in proptest::collection::vec((0..5u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8..), 0..6), tell: bool) {
        let mut frames: Vec<Vec<u8>> = streams.iter().flat_map(Made::segments).collect();
        for (what, one, other, byte) in trouble {
            let (one, at) = (one.index(frames.len()), other);
            match what {
                0 | 1 => { let at = at.index(frames[one].len()); frames[one][at] ^= byte; }
                2 => { frames.push(frames[one].clone()); }
                3 => { let other = at.index(frames.len()); frames.swap(one, other); }
                _ => { frames[one].extend(std::iter::repeat_n(0, usize::from(byte) % 6)); }
            }
        }
        let csum = if tell { Csum::Complete } else { Csum::Unknown };
        let given: Vec<_> = frames.iter().map(|frame| (frame.clone(), csum)).collect();
        let joined = join(&given);
        // A byte turned over may make a checksum look unfinished; then finishing it is what was asked for.
        prop_assume!(joined.iter().all(|(_, csum, gso)| gso.is_some() || !matches!(csum, Csum::Partial { .. })));
        prop_assert_eq!(cut(&joined), frames);
    }

    /// The twin says the same of every pair, whichever bit of the second's headers is changed.
    #[test]
    fn the_twin_joins_the_same_pairs(made in stream(3000), at in any::<prop::sample::Index>(), bit in 0..8u32, fix: bool, touch: bool) {
        prop_assume!(made.payload.len() > usize::from(made.size.get()));
        let segments = made.segments();
        let (first, mut second) = (segments[0].clone(), segments[1].clone());
        let headers = made.transport_at() + 20 + made.tcp_options.len();
        if touch {
            second[at.index(headers)] ^= 1 << bit;
            if fix { right_checksums(&mut second); }
        }
        let ours = Train::begin(&first, Csum::Complete).is_some_and(|mut train| train.push(&first, &second, Csum::Complete));
        prop_assert_eq!(ours, twin(&first, &second, headers));
        prop_assert!(touch || ours);
    }

    #[test]
    fn arbitrary_frames_do_not_panic(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..6)) {
        let given: Vec<_> = frames.iter().map(|frame| (frame.clone(), Csum::Unknown)).collect();
        prop_assert_eq!(join(&given).len(), frames.len());
    }
}

/// Writes right checksums into a frame that may have been tampered with, if it can still be read.
fn right_checksums(frame: &mut [u8]) {
    let Ok(transport) = Transport::read(frame) else { return };
    if transport.version == ip::Version::V4 {
        fix_v4_checksum(&mut frame[transport.ip_at..transport.at]);
    }
    let pseudo = transport.pseudo(frame);
    put16(frame, transport.at + usize::from(transport.field()), pseudo);
    checksum::finish(frame, transport.at as u16, transport.field());
}

/// The rules one by one, over headers that `etherparse` took apart.
fn twin(first: &[u8], second: &[u8], headers: usize) -> bool {
    let (Some(one), Some(two)) = (apart(first), apart(second)) else { return false };
    let alone = |tcp: &TcpHeader| tcp.syn || tcp.rst || tcp.urg || tcp.cwr || !tcp.ack;
    if one.tcp.fin || one.tcp.psh || alone(&one.tcp) || alone(&two.tcp) || two.payload == 0 {
        return false;
    }
    let wanted = TcpHeader {
        sequence_number: one.tcp.sequence_number.wrapping_add(one.payload as u32),
        fin: two.tcp.fin,
        psh: two.tcp.psh,
        checksum: two.tcp.checksum,
        ..one.tcp.clone()
    };
    // The reserved bits, which etherparse does not tell of.
    let reserved = |frame: &[u8]| frame[headers - one.tcp.header_len() + 12] & 0x0e;
    one.before == two.before
        && one.id.map(|id| id.wrapping_add(1)) == two.id
        && wanted == two.tcp
        && two.payload <= one.payload
        && reserved(first) == reserved(second)
}

struct Apart {
    /// What is equal in all frames of a train, as text.
    before: String,
    /// IPv4 only.
    id: Option<u16>,
    tcp: TcpHeader,
    payload: usize,
}

/// None for what is not TCP, is padded, or has a wrong checksum.
fn apart(frame: &[u8]) -> Option<Apart> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(slice)) = sliced.transport else { return None };
    let tcp = slice.to_header();
    let link = &frame[..if frame[12..14] == [0x81, 0] { 18 } else { 14 }];
    let (net, id, len, sum) = match sliced.net? {
        NetSlice::Ipv4(v4) => {
            let mut net = v4.header().to_header();
            if net.header_checksum != net.calc_header_checksum() {
                return None;
            }
            let (id, len) = (Some(net.identification), usize::from(net.total_len));
            let sum = tcp.calc_checksum_ipv4(&net, slice.payload()).ok()?;
            (net.identification, net.total_len, net.header_checksum) = (0, 0, 0);
            (format!("{net:?} {}", frame[link.len() + 6] & 0x80), id, len, sum)
        }
        NetSlice::Ipv6(v6) => {
            let mut net = v6.header().to_header();
            let len = 40 + usize::from(net.payload_length);
            let sum = tcp.calc_checksum_ipv6(&net, slice.payload()).ok()?;
            net.payload_length = 0;
            (format!("{net:?} {:?}", v6.extensions().slice()), None, len, sum)
        }
        _ => return None,
    };
    let whole = link.len() + len == frame.len() && sum == tcp.checksum;
    whole.then(|| Apart { before: format!("{link:?} {net}"), id, tcp, payload: slice.payload().len() })
}
