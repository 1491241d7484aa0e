//! SCTP associations against a dull twin: RFC 9260 as a third party can tell it, written down chunk by chunk with no
//! table, no words and no masks. Most of what is sent are proper steps of an association; the rest are odd chunks, wrong
//! tags, and silence.

use super::state::Stage;
use super::tests::{Table, packet};
use super::{Invalid, Opened, Refusal};
use crate::wire::packet::{Content, Sctp};
use proptest::prelude::*;

/// Tags that the two ends choose; an end that starts again chooses others.
const TAGS: [u32; 2] = [0x1111, 0x2222];

/// An association as the twin knows it.
#[derive(Clone, Debug)]
struct Association {
    origin: usize,
    stage: Stage,
    /// What each end wants to see; none: it has not said so.
    tags: [Option<u32>; 2],
    /// What the originator would want to see if the association began anew.
    asked: Option<u32>,
    /// What the other end would, and the originator's tag that it was said to.
    offered: Option<(u32, u32)>,
    last_s: u32,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    New,
    Known,
    Invalid,
    NoBeginning,
}

#[derive(Debug, Default)]
struct Twin(Option<Association>);

impl Twin {
    fn packet(&mut self, side: usize, sctp: &Sctp, now_s: u32) -> Verdict {
        let alive = self.0.take().filter(|it| now_s - it.last_s <= it.stage.timeout_s());
        let Some(mut it) = alive else { return self.begin(side, sctp, now_s) };
        let verdict = if sctp.chunk == 1 { init(&mut it, side, sctp) } else { other(&mut it, side, sctp) };
        if verdict == Verdict::New {
            return self.begin(side, sctp, now_s);
        }
        if verdict == Verdict::Known {
            it.last_s = now_s;
        }
        self.0 = Some(it);
        verdict
    }

    /// Only an INIT begins one, with tag 0 and a tag to see that is not 0 (§3.3.2, §8.5.1).
    fn begin(&mut self, side: usize, sctp: &Sctp, now_s: u32) -> Verdict {
        if sctp.chunk != 1 || sctp.tag != 0 || sctp.initiate == 0 {
            return Verdict::NoBeginning;
        }
        let mut tags = [None; 2];
        tags[side] = Some(sctp.initiate);
        let (asked, offered) = (None, None);
        let stage = Stage::SctpInit;
        self.0 = Some(Association { origin: side, stage, tags, asked, offered, last_s: now_s });
        Verdict::New
    }
}

fn init(it: &mut Association, side: usize, sctp: &Sctp) -> Verdict {
    if sctp.tag != 0 || sctp.initiate == 0 {
        return Verdict::Invalid;
    }
    if it.stage == Stage::SctpClosed {
        return Verdict::New;
    }
    if side != it.origin {
        return Verdict::Invalid;
    }
    // Sent again, by an end that restarts, or by anybody: what stands goes on (§5.2.2).
    if it.tags[side] != Some(sctp.initiate) {
        it.asked = Some(sctp.initiate);
    }
    Verdict::Known
}

fn other(it: &mut Association, side: usize, sctp: &Sctp) -> Verdict {
    let reflects = (sctp.chunk == 6 || sctp.chunk == 14) && sctp.chunk_flags & 1 == 1;
    let to_receiver = it.tags[1 - side] == Some(sctp.tag);
    let reflected = reflects && it.tags[side] == Some(sctp.tag);
    let by_origin = side == it.origin;
    if !to_receiver && !reflected && sctp.tag != 0 {
        match (sctp.chunk, it.asked, it.offered) {
            // The answer to a later INIT, which may be that nothing begins.
            (2, Some(asked), _) if !by_origin && asked == sctp.tag && sctp.initiate != 0 => {
                it.offered = Some((sctp.initiate, sctp.tag));
                return Verdict::Known;
            }
            (6, Some(asked), _) if !by_origin && asked == sctp.tag => return Verdict::Known,
            _ => {}
        }
    }
    // The cookie of a later answer: the association begins anew.
    if let (10, true, Some((offered, answers))) = (sctp.chunk, by_origin, it.offered)
        && offered == sctp.tag
    {
        it.tags[side] = Some(answers);
        it.tags[1 - side] = Some(offered);
        (it.asked, it.offered, it.stage) = (None, None, Stage::SctpCookie);
        return Verdict::Known;
    }
    if !to_receiver && !reflected {
        return Verdict::Invalid;
    }
    // ABORT (§3.3.7): at any time.
    if sctp.chunk == 6 {
        it.stage = Stage::SctpClosed;
        return Verdict::Known;
    }
    // The same INIT was answered once more, with another tag: either may come back.
    if sctp.chunk == 2 && !by_origin && sctp.initiate != 0 && it.stage != Stage::SctpInit {
        if it.tags[side] != Some(sctp.initiate) {
            it.offered = Some((sctp.initiate, sctp.tag));
        }
        return Verdict::Known;
    }
    match it.stage {
        // Only the answer to INIT.
        Stage::SctpInit => {
            if sctp.chunk != 2 || by_origin || sctp.initiate == 0 {
                return Verdict::Invalid;
            }
            it.tags[side] = Some(sctp.initiate);
            it.offered = None;
            it.stage = Stage::SctpInitAnswered;
        }
        // Only the cookie.
        Stage::SctpInitAnswered => {
            if sctp.chunk != 10 || !by_origin {
                return Verdict::Invalid;
            }
            it.stage = Stage::SctpCookie;
        }
        Stage::SctpCookie if sctp.chunk == 11 && !by_origin => it.stage = Stage::SctpOpen,
        Stage::SctpOpen if sctp.chunk == 7 || sctp.chunk == 8 => it.stage = Stage::SctpShutdown,
        Stage::SctpShutdown if sctp.chunk == 14 => it.stage = Stage::SctpClosed,
        _ => {}
    }
    Verdict::Known
}

/// What is sent.
#[derive(Clone, Debug)]
enum Sent {
    /// What an association would do next.
    Step,
    /// Anything: from which side, the chunk, its flags, the kind of tag, the tag to see.
    Odd(usize, u8, u8, u8, u32),
    /// Nothing, for so many seconds.
    Silence(u32),
}

fn sent() -> impl Strategy<Value = Sent> {
    let known = prop_oneof![0u8..16, Just(64), Just(128), Just(192), any::<u8>()];
    let initiate = prop_oneof![Just(0), Just(TAGS[0]), Just(TAGS[1]), Just(0x3333u32)];
    prop_oneof![
        6 => Just(Sent::Step),
        4 => (0usize..2, known, 0u8..3, 0u8..7, initiate)
            .prop_map(|(side, chunk, flags, tag, initiate)| Sent::Odd(side, chunk, flags, tag, initiate)),
        1 => prop_oneof![0u32..70, 200u32..230].prop_map(Sent::Silence),
    ]
}

/// The next proper chunk, and who sends it.
fn next(twin: &Twin, now_s: u32) -> (usize, Sctp) {
    let alive = twin.0.as_ref().filter(|it| now_s - it.last_s <= it.stage.timeout_s());
    let chunk = |chunk, tag, initiate| Sctp { tag, chunk, chunk_flags: 0, initiate };
    let Some(it) = alive else { return (0, chunk(1, 0, TAGS[0])) };
    let (origin, answerer) = (it.origin, 1 - it.origin);
    let of = |side: usize| it.tags[side].unwrap_or(0);
    match it.stage {
        Stage::SctpInit => (answerer, chunk(2, of(origin), TAGS[answerer])),
        Stage::SctpInitAnswered => (origin, chunk(10, of(answerer), 0)),
        Stage::SctpCookie => (answerer, chunk(11, of(origin), 0)),
        Stage::SctpOpen => (origin, chunk(7, of(answerer), 0)),
        Stage::SctpShutdown => (origin, chunk(14, of(answerer), 0)),
        _ => (answerer, chunk(1, 0, TAGS[answerer])),
    }
}

fn odd(twin: &Twin, side: usize, chunk: u8, chunk_flags: u8, tag: u8, initiate: u32) -> Sctp {
    let of = |side: usize| twin.0.as_ref().and_then(|it| it.tags[side]).unwrap_or(0);
    let asked = twin.0.as_ref().and_then(|it| it.asked);
    let offered = twin.0.as_ref().and_then(|it| it.offered).map(|(offered, _)| offered);
    let tag = match tag {
        0 => 0,
        1 | 2 => of(1 - side),
        3 => of(side),
        4 => asked.unwrap_or(0x9999),
        5 => offered.unwrap_or(0x9999),
        _ => 0x9999,
    };
    Sctp { tag, chunk, chunk_flags, initiate }
}

/// How far associations came in all cases together; a test that never gets anywhere tests nothing.
static REACHED: [std::sync::atomic::AtomicU32; 32] = [const { std::sync::atomic::AtomicU32::new(0) }; 32];

fn agree(all: Vec<Sent>) -> Result<(), TestCaseError> {
    let (mut table, mut twin) = (Table::new(256, false), Twin::default());
    for what in all {
        let (side, sctp) = match what {
            Sent::Step => next(&twin, table.now_s),
            Sent::Odd(side, chunk, flags, tag, initiate) => {
                (side, odd(&twin, side, chunk, flags, tag, initiate))
            }
            Sent::Silence(pause) => {
                table.now_s += pause;
                table.sweep();
                continue;
            }
        };
        let (src, dst) = if side == 0 { (10, 20) } else { (20, 10) };
        let ports = if side == 0 { [5, 6] } else { [6, 5] };
        let said = table.packet(&packet(src, dst, 132, ports, Content::Sctp(sctp)), side as u16 + 1);
        let expected = twin.packet(side, &sctp, table.now_s);
        let said_as = match said {
            Ok(Opened::New(_)) => Verdict::New,
            Ok(Opened::Known(_)) => Verdict::Known,
            Ok(Opened::Invalid(Invalid::State)) => Verdict::Invalid,
            Err(Refusal::NoBeginning) => Verdict::NoBeginning,
            other => return Err(TestCaseError::fail(format!("{other:?} of {sctp:?}"))),
        };
        prop_assert_eq!(said_as, expected, "{:?} from {} with {:?}", sctp, side, twin.0);
        if let (Ok(Opened::New(place) | Opened::Known(place)), Some(it)) = (said, &twin.0) {
            let state = table.flows.state(place);
            prop_assert_eq!((state.stage, usize::from(state.origin())), (it.stage, it.origin), "{:?}", sctp);
            REACHED[it.stage as usize].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    Ok(())
}

#[test]
fn associations_are_what_their_twin_says() {
    let config = crate::cases::cases(4000);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let cases = proptest::collection::vec(sent(), 0..60);
    runner.run(&cases, agree).unwrap_or_else(|error| panic!("{error}"));
    for stage in [
        Stage::SctpInit,
        Stage::SctpInitAnswered,
        Stage::SctpCookie,
        Stage::SctpOpen,
        Stage::SctpShutdown,
        Stage::SctpClosed,
    ] {
        let reached = REACHED[stage as usize].load(std::sync::atomic::Ordering::Relaxed);
        assert!(reached as usize > crate::cases::some_of(100), "{} was seen {reached} times", stage.name());
    }
}

/// Tag 0 is nobody's: not even an ABORT ends with it what nobody has answered yet.
#[test]
fn tag_zero_ends_nothing() {
    let mut table = Table::new(256, false);
    let chunk = |chunk, chunk_flags, tag, initiate| {
        let sctp = Sctp { tag, chunk, chunk_flags, initiate };
        packet(10, 20, 132, [5, 6], Content::Sctp(sctp))
    };
    assert!(matches!(table.packet(&chunk(1, 0, 0, TAGS[0]), 1), Ok(Opened::New(_))));
    for flags in [0, 1] {
        assert_eq!(table.packet(&chunk(6, flags, 0, 0), 1), Ok(Opened::Invalid(Invalid::State)));
    }
    assert!(matches!(table.packet(&chunk(6, 1, TAGS[0], 0), 1), Ok(Opened::Known(_))));
}

/// A packet of an association between 10:5 and 20:6, by one of its ends.
fn chunk(by_origin: bool, kind: u8, tag: u32, initiate: u32) -> crate::wire::packet::Packet {
    let sctp = Content::Sctp(Sctp { tag, chunk: kind, chunk_flags: 0, initiate });
    if by_origin { packet(10, 20, 132, [5, 6], sctp) } else { packet(20, 10, 132, [6, 5], sctp) }
}

/// A table with an open association, of which the originator sees `TAGS[0]` and the other `TAGS[1]`.
fn open() -> Table {
    let mut table = Table::new(256, false);
    let [a, b] = TAGS;
    let begin = table.packet(&chunk(true, 1, 0, a), 1);
    assert!(matches!(begin, Ok(Opened::New(_))));
    for (by_origin, kind, tag, initiate) in [(false, 2, a, b), (true, 10, b, 0), (false, 11, a, 0)] {
        knows(&mut table, by_origin, kind, tag, initiate);
    }
    table
}

fn knows(table: &mut Table, by_origin: bool, kind: u8, tag: u32, initiate: u32) {
    let said = table.packet(&chunk(by_origin, kind, tag, initiate), if by_origin { 1 } else { 2 });
    assert!(matches!(said, Ok(Opened::Known(_))), "{kind}: {said:?}");
}

/// Whoever sends in both ends' names by a third port has no tag of theirs, and makes none.
#[test]
fn nobody_begins_anothers_association_anew() {
    let mut table = open();
    let [a, b] = TAGS;
    for (by_origin, kind, tag, initiate) in
        [(true, 1, 0, 0x6666), (false, 2, 0x6666, 0x7777), (true, 10, 0x7777, 0)]
    {
        _ = table.packet(&chunk(by_origin, kind, tag, initiate), 3);
    }
    assert_eq!(stage(&table), Stage::SctpOpen);
    knows(&mut table, true, 0, b, 0);
    knows(&mut table, false, 0, a, 0);
}

/// Who answers a new tag may keep his own.
#[test]
fn an_end_that_restarts_may_be_answered_by_the_tag_of_before() {
    let mut table = open();
    let ([a, b], next) = (TAGS, 0x3333);
    knows(&mut table, true, 1, 0, next);
    knows(&mut table, false, 2, next, b);
    knows(&mut table, true, 10, b, 0);
    knows(&mut table, false, 11, next, 0);
    assert_eq!(stage(&table), Stage::SctpOpen);
    let said = table.packet(&chunk(false, 0, a, 0), 2);
    assert_eq!(said, Ok(Opened::Invalid(Invalid::State)));
}

fn stage(table: &Table) -> Stage {
    let mut stages = Vec::new();
    table.flows.scan(0..table.flows.places(), table.now_s, |_, entry| stages.push(entry.state.stage));
    let [stage] = stages[..] else { panic!("{stages:?}") };
    stage
}

/// RFC 9260 §5.2.2: whoever can send an INIT ends nothing by it, nor does what is answered to it.
#[test]
fn an_init_from_nobody_leaves_an_open_association_as_it_is() {
    let ([a, b], [spoofed, answer]) = (TAGS, [0x6666, 0x7777]);
    for answers in [&[][..], &[2], &[6]] {
        let mut table = open();
        knows(&mut table, true, 1, 0, spoofed);
        answers.iter().for_each(|kind| knows(&mut table, false, *kind, spoofed, answer));
        assert_eq!(stage(&table), Stage::SctpOpen);
        knows(&mut table, true, 0, b, 0);
        knows(&mut table, false, 0, a, 0);
        for (by_origin, tag) in [(true, spoofed), (false, spoofed), (false, answer), (true, answer)] {
            let said = table.packet(&chunk(by_origin, 0, tag, 0), if by_origin { 1 } else { 2 });
            assert_eq!(said, Ok(Opened::Invalid(Invalid::State)), "{tag:x}");
        }
    }
}

/// An end that restarts has another tag, and so has the other for it; a third INIT between answer and cookie, from nobody, is in nobody's way.
#[test]
fn an_end_that_restarts_begins_the_association_anew() {
    let ([a, b], [next, answer]) = (TAGS, [0x3333, 0x4444]);
    let mut table = open();
    knows(&mut table, true, 1, 0, next);
    knows(&mut table, false, 2, next, answer);
    knows(&mut table, true, 1, 0, 0x6666);
    knows(&mut table, true, 10, answer, 0);
    assert_eq!(stage(&table), Stage::SctpCookie);
    knows(&mut table, false, 11, next, 0);
    assert_eq!(stage(&table), Stage::SctpOpen);
    knows(&mut table, true, 0, answer, 0);
    knows(&mut table, false, 0, next, 0);
    for (by_origin, tag) in [(true, b), (false, a)] {
        let said = table.packet(&chunk(by_origin, 0, tag, 0), if by_origin { 1 } else { 2 });
        assert_eq!(said, Ok(Opened::Invalid(Invalid::State)), "of the association before");
    }
}

/// The INIT was sent again as it was answered: of two answers either may be the one that comes back.
#[test]
fn an_init_that_crosses_its_answer_breaks_nothing() {
    let ([a, b], second) = (TAGS, 0x4444);
    for [comes_back, other] in [[b, second], [second, b]] {
        let mut table = Table::new(256, false);
        assert!(matches!(table.packet(&chunk(true, 1, 0, a), 1), Ok(Opened::New(_))));
        knows(&mut table, false, 2, a, b);
        knows(&mut table, true, 1, 0, a);
        knows(&mut table, false, 2, a, second);
        knows(&mut table, true, 10, comes_back, 0);
        knows(&mut table, false, 11, a, 0);
        assert_eq!(stage(&table), Stage::SctpOpen);
        knows(&mut table, true, 0, comes_back, 0);
        let said = table.packet(&chunk(true, 0, other, 0), 1);
        assert_eq!(said, Ok(Opened::Invalid(Invalid::State)));
    }
}
