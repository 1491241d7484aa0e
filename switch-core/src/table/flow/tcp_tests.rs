//! TCP as RFC 9293 tells it, seen from the middle: tables of segments, and what becomes of the flow.

use super::record::Window;
use super::state::SCALED;
use super::tests::{Table, packet};
use super::*;
use crate::wire::packet::{Fragment, Packet, Tcp, flags::*};
use proptest::prelude::*;

/// Originator and responder, and where the responder stands in the key's order.
const ENDS: [u128; 2] = [9, 4];

/// A connection told to a table, segment by segment.
struct Talk {
    table: Table,
    place: Option<u32>,
}

/// What became of a segment.
type Said = Result<Stage, &'static str>;

impl Talk {
    fn new(pickup: bool) -> Self {
        Self { table: Table::new(256, pickup), place: None }
    }

    fn segment(&mut self, from: usize, segment: Tcp) -> Said {
        let ports = if from == 0 { [5, 6] } else { [6, 5] };
        let packet: Packet = packet(ENDS[from], ENDS[1 - from], 6, ports, Content::Tcp(segment));
        match self.table.packet(&packet, from as u16 + 1) {
            Ok(Opened::New(place) | Opened::Known(place)) => {
                self.place = Some(place);
                Ok(self.table.flows.state(place).stage)
            }
            Ok(Opened::Invalid(Invalid::Flags)) => Err("flags"),
            Ok(Opened::Invalid(Invalid::Window)) => Err("window"),
            Ok(Opened::Invalid(Invalid::State)) => Err("state"),
            Err(Refusal::NoBeginning) => Err("no flow"),
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    fn say(&mut self, from: usize, flags: u8, seq: u32, ack: u32, len: u32) -> Said {
        self.segment(from, Tcp { seq, ack, flags, window: 10_000, len, scale: None })
    }

    /// An open connection: the originator begins at `first`, the responder at `second`.
    fn open(first: u32, second: u32) -> Self {
        let mut talk = Self::new(false);
        assert_eq!(talk.say(0, SYN, first, 0, 0), Ok(Stage::SynSent));
        assert_eq!(talk.say(1, SYN | ACK, second, first.wrapping_add(1), 0), Ok(Stage::SynReceived));
        let next = (first.wrapping_add(1), second.wrapping_add(1));
        assert_eq!(talk.say(0, ACK, next.0, next.1, 0), Ok(Stage::Established));
        talk
    }

    /// A later fragment of a segment, with so much of its payload.
    fn later(&mut self, from: usize, len: usize) {
        let ports = if from == 0 { [5, 6] } else { [6, 5] };
        let fragment = Some(Fragment { id: 1, offset: 1480, len });
        let packet = packet(ENDS[from], ENDS[1 - from], 6, ports, Content::Later);
        let said = self.table.packet(&Packet { fragment, ..packet }, from as u16 + 1);
        assert!(matches!(said, Ok(Opened::Known(_))), "{said:?}");
    }

    fn script(&mut self, lines: &[(usize, u8, u32, u32, u32, Said)]) {
        for (n, (from, flags, seq, ack, len, expected)) in lines.iter().enumerate() {
            assert_eq!(self.say(*from, *flags, *seq, *ack, *len), *expected, "line {n}");
        }
    }
}

#[test]
fn a_connection_opens_talks_and_closes() {
    Talk::open(1000, 5000).script(&[
        (0, ACK, 1001, 5001, 100, Ok(Stage::Established)),
        (1, ACK, 5001, 1101, 200, Ok(Stage::Established)),
        (0, ACK | FIN, 1101, 5201, 0, Ok(Stage::FinWait)),
        (1, ACK, 5201, 1102, 50, Ok(Stage::CloseWait)),
        (0, ACK, 1102, 5251, 0, Ok(Stage::CloseWait)),
        (1, ACK | FIN, 5251, 1102, 0, Ok(Stage::LastAck)),
        (0, ACK, 1102, 5252, 0, Ok(Stage::TimeWait)),
        // The last FIN comes again: its acknowledgement was lost.
        (1, ACK | FIN, 5251, 1102, 0, Ok(Stage::TimeWait)),
        (0, ACK, 1102, 5252, 0, Ok(Stage::TimeWait)),
    ]);
}

#[test]
fn what_came_in_later_fragments_may_be_acknowledged() {
    let mut talk = Talk::open(1000, 5000);
    // 1 400 bytes in the first, 600 in the second.
    talk.script(&[(0, ACK, 1001, 5001, 1400, Ok(Stage::Established))]);
    assert_eq!(talk.say(1, ACK, 5001, 3001, 0), Err("window"), "what was never sent");
    talk.later(0, 600);
    talk.script(&[
        (1, ACK, 5001, 3001, 0, Ok(Stage::Established)),
        (0, ACK, 3001, 5001, 10, Ok(Stage::Established)),
    ]);
}

/// They pass whatever became of their first: whoever poses as an end needs no number to send them.
#[test]
fn no_later_fragment_pushes_the_window_away() {
    let mut talk = Talk::open(1000, 5000);
    (0..100).for_each(|_| talk.later(0, 9_000));
    (0..100).for_each(|_| talk.later(1, 600));
    talk.script(&[
        (0, ACK, 1001, 5001, 100, Ok(Stage::Established)),
        (1, ACK, 5001, 1101, 200, Ok(Stage::Established)),
        (0, ACK, 1101, 5201, 0, Ok(Stage::Established)),
    ]);
    // Nor before there is one.
    let mut begun = Talk::new(false);
    begun.script(&[(0, SYN, 0xf000_0000, 0, 0, Ok(Stage::SynSent))]);
    (0..100).for_each(|_| begun.later(0, 9_000));
    begun.script(&[
        (1, SYN | ACK, 5000, 0xf000_0001, 0, Ok(Stage::SynReceived)),
        (0, ACK, 0xf000_0001, 5001, 10, Ok(Stage::Established)),
    ]);
}

#[test]
fn both_ends_close_at_once() {
    Talk::open(1000, 5000).script(&[
        (1, ACK | FIN, 5001, 1001, 0, Ok(Stage::FinWait)),
        (0, ACK | FIN, 1001, 5001, 0, Ok(Stage::LastAck)),
        (1, ACK, 5002, 1002, 0, Ok(Stage::LastAck)),
        (0, ACK, 1002, 5002, 0, Ok(Stage::TimeWait)),
    ]);
}

#[test]
fn both_ends_open_at_once() {
    // RFC 9293 §3.5, figure 8.
    let mut talk = Talk::new(false);
    talk.script(&[
        (0, SYN, 1000, 0, 0, Ok(Stage::SynSent)),
        (1, SYN, 5000, 0, 0, Ok(Stage::BothSynSent)),
        (0, SYN | ACK, 1000, 5001, 0, Ok(Stage::Established)),
        (1, SYN | ACK, 5000, 1001, 0, Ok(Stage::Established)),
        (0, ACK, 1001, 5001, 10, Ok(Stage::Established)),
        (1, ACK, 5001, 1011, 10, Ok(Stage::Established)),
    ]);
}

#[test]
fn what_is_no_beginning_makes_no_flow() {
    for flags in [ACK, ACK | FIN, RST, RST | ACK, SYN | ACK, 0, SYN | FIN, SYN | RST, FIN] {
        let mut talk = Talk::new(false);
        assert_eq!(talk.say(0, flags, 1, 1, 0), Err("no flow"), "{flags:#x}");
    }
}

#[test]
fn flags_that_no_segment_has_are_refused() {
    let mut talk = Talk::open(1000, 5000);
    for flags in [0, FIN, SYN | FIN, SYN | RST, SYN | FIN | ACK, RST | FIN, RST | FIN | ACK, URG] {
        assert_eq!(talk.say(0, flags, 1001, 5001, 0), Err("flags"), "{flags:#x}");
    }
    assert_eq!(talk.say(0, ACK | URG | 8, 1001, 5001, 5), Ok(Stage::Established));
}

#[test]
fn only_what_fits_the_window_passes() {
    let mut talk = Talk::open(1000, 5000);
    talk.script(&[
        // Up to what the other end takes, and not beyond.
        (0, ACK, 1001 + 10_000, 5001, 1, Ok(Stage::Established)),
        (0, ACK, 1001 + 10_001, 5001, 1, Err("window")),
        // Sent again; but not what is a window old.
        (0, ACK, 1001, 5001, 100, Ok(Stage::Established)),
        (0, ACK, 1000u32.wrapping_sub(10_000), 5001, 100, Err("window")),
        // An acknowledgement of what was never sent, and one as old as cannot be.
        (1, ACK, 5001, 11_003, 0, Err("window")),
        (1, ACK, 5001, 11_002, 0, Ok(Stage::Established)),
        (1, ACK, 5001, 11_002u32.wrapping_sub(66_001), 0, Err("window")),
        (1, ACK, 5001, 11_002u32.wrapping_sub(66_000), 0, Ok(Stage::Established)),
    ]);
}

#[test]
fn an_answer_to_another_syn_is_refused() {
    let mut talk = Talk::new(false);
    talk.script(&[
        (0, SYN, 1000, 0, 0, Ok(Stage::SynSent)),
        (1, SYN | ACK, 5000, 1002, 0, Err("window")),
        (1, SYN | ACK, 5000, 1000, 0, Err("window")),
        (1, RST | ACK, 0, 77, 0, Err("window")),
        (0, ACK, 1001, 5001, 0, Err("state")),
        // The other end still has an old connection and says so; the reset that answers it gets through.
        (1, ACK, 9000, 4000, 0, Ok(Stage::SynSent)),
        (1, SYN | ACK, 5000, 1001, 0, Ok(Stage::SynReceived)),
        (1, SYN | ACK, 5000, 1001, 0, Ok(Stage::SynReceived)),
        (0, SYN | ACK, 1000, 5001, 0, Err("state")),
        (0, ACK, 1001, 5001, 0, Ok(Stage::Established)),
    ]);
}

#[test]
fn a_syn_with_data_may_be_answered_with_or_without_it() {
    for acknowledged in [1001, 1101] {
        let mut talk = Talk::new(false);
        talk.script(&[
            (0, SYN, 1000, 0, 100, Ok(Stage::SynSent)),
            (1, SYN | ACK, 5000, 1102, 0, Err("window")),
            (1, SYN | ACK, 5000, acknowledged, 0, Ok(Stage::SynReceived)),
            (0, ACK, acknowledged, 5001, 0, Ok(Stage::Established)),
        ]);
    }
}

#[test]
fn a_reset_closes_if_it_names_the_very_byte() {
    // RFC 5961 §3.2.
    let mut talk = Talk::open(1000, 5000);
    talk.script(&[
        (1, ACK, 5001, 1001, 100, Ok(Stage::Established)),
        (0, RST, 900_000, 0, 0, Err("window")),
        (0, RST, 1002, 0, 0, Ok(Stage::Established)),
        (0, ACK, 1001, 5101, 10, Ok(Stage::Established)),
        (1, ACK, 5101, 1011, 0, Ok(Stage::Established)),
        (0, RST, 1011, 0, 0, Ok(Stage::Closed)),
        (1, ACK, 5101, 1011, 100, Ok(Stage::Closed)),
    ]);
    // Behind data that its receiver has and did not acknowledge yet.
    Talk::open(1000, 5000).script(&[
        (0, ACK, 1001, 5001, 50, Ok(Stage::Established)),
        (0, RST | ACK, 1050, 5001, 0, Ok(Stage::Established)),
        (0, RST | ACK, 1051, 5001, 0, Ok(Stage::Closed)),
        (0, SYN, 70_000, 0, 0, Ok(Stage::SynSent)),
    ]);
    let mut refused = Talk::new(false);
    refused
        .script(&[(0, SYN, 1000, 0, 0, Ok(Stage::SynSent)), (1, RST | ACK, 0, 1001, 0, Ok(Stage::Closed))]);
}

#[test]
fn an_end_that_forgot_its_connection_is_challenged_and_begins_anew() {
    let mut talk = Talk::open(1000, 5000);
    talk.script(&[
        (0, SYN, 77_000, 0, 0, Ok(Stage::Established)),
        (1, ACK, 5001, 1001, 0, Ok(Stage::Established)),
        (0, RST, 1001, 0, 0, Ok(Stage::Closed)),
        (0, SYN, 78_000, 0, 0, Ok(Stage::SynSent)),
        (1, SYN | ACK, 9000, 78_001, 0, Ok(Stage::SynReceived)),
    ]);
}

/// Both ends are others behind the same addresses: nobody challenges, and what they agree upon is what counts from then on.
#[test]
fn both_ends_that_forgot_their_connection_begin_anew() {
    let syn = |flags, seq, ack, scale| Tcp { seq, ack, flags, window: 10_000, len: 0, scale };
    for (ours, theirs) in [(None, None), (Some(7), Some(2)), (Some(7), None)] {
        let mut talk = Talk::open(1000, 5000);
        let place = talk.place.unwrap();
        let origin = talk.table.flows.state(place).origin();
        assert_eq!(talk.segment(0, syn(SYN, 77_000_000, 0, ours)), Ok(Stage::Established));
        // An answer to something else says nothing, nor does a question from the other end, or an answer to that.
        assert_eq!(talk.say(1, SYN | ACK, 99_000_000, 78_000_000, 0), Ok(Stage::Established));
        assert_eq!(talk.say(1, SYN, 88_000_000, 0, 0), Ok(Stage::Established));
        assert_eq!(talk.say(0, SYN | ACK, 99_000_000, 88_000_001, 0), Ok(Stage::Established));
        assert_eq!(talk.say(0, ACK, 77_000_001, 99_000_001, 0), Err("window"));
        assert_eq!(talk.segment(1, syn(SYN | ACK, 99_000_000, 77_000_001, theirs)), Ok(Stage::SynReceived));
        talk.script(&[
            (0, ACK, 77_000_001, 99_000_001, 0, Ok(Stage::Established)),
            (0, ACK, 77_000_001, 99_000_001, 500, Ok(Stage::Established)),
            (1, ACK, 99_000_001, 77_000_501, 800, Ok(Stage::Established)),
            (1, ACK, 5001, 1001, 10, Err("window")),
            (0, ACK | FIN, 77_000_501, 99_000_801, 0, Ok(Stage::FinWait)),
        ]);
        assert_eq!(talk.place, Some(place));
        assert_eq!(talk.table.flows.state(place).origin(), origin);
        assert!(talk.table.flows.bound(place).is_none());
    }
    // Its own question and answer, late and once more, are no new one.
    Talk::open(1000, 5000).script(&[
        (0, SYN, 1000, 0, 0, Ok(Stage::Established)),
        (1, SYN | ACK, 5000, 1001, 0, Ok(Stage::Established)),
        (0, ACK, 1001, 5001, 10, Ok(Stage::Established)),
        (1, ACK, 5001, 1011, 10, Ok(Stage::Established)),
    ]);
}

#[test]
fn ports_are_used_again_in_time_wait() {
    for from in [0, 1] {
        let mut talk = Talk::open(1000, 5000);
        talk.script(&[
            (0, ACK | FIN, 1001, 5001, 0, Ok(Stage::FinWait)),
            (1, ACK | FIN, 5001, 1002, 0, Ok(Stage::LastAck)),
            (0, ACK, 1002, 5002, 0, Ok(Stage::TimeWait)),
        ]);
        let place = talk.place.unwrap();
        let before = talk.table.flows.state(place);
        assert_eq!(talk.say(from, SYN, 900_000, 0, 0), Ok(Stage::SynSent));
        let after = talk.table.flows.state(place);
        assert_eq!(before.origin() == after.origin(), from == 0, "who begins is the originator");
        assert_eq!(after.port, from as u16 + 1, "and pays");
        assert_eq!(talk.say(1 - from, SYN | ACK, 3, 900_001, 0), Ok(Stage::SynReceived));
        assert_eq!(talk.say(from, ACK, 900_001, 4, 0), Ok(Stage::Established));
    }
}

#[test]
fn windows_are_scaled_if_both_ends_say_so() {
    let syn = |flags, seq, ack, scale| Tcp { seq, ack, flags, window: 65_535, len: 0, scale };
    for (ours, theirs, largest) in
        [(Some(7), Some(2), 10_000 << 2), (Some(7), None, 65_535), (None, Some(7), 65_535)]
    {
        let mut talk = Talk::new(false);
        assert_eq!(talk.segment(0, syn(SYN, 1000, 0, ours)), Ok(Stage::SynSent));
        assert_eq!(talk.segment(1, syn(SYN | ACK, 5000, 1001, theirs)), Ok(Stage::SynReceived));
        assert_eq!(talk.say(0, ACK, 1001, 5001, 0), Ok(Stage::Established));
        // The responder announces 10 000 units; its SYN ACK announced 65 535 bytes.
        assert_eq!(talk.say(1, ACK, 5001, 1001, 0), Ok(Stage::Established));
        let edge = 1001 + largest.max(65_536);
        assert_eq!(talk.say(0, ACK, edge + 5, 5001, 1), Err("window"), "{ours:?} {theirs:?}");
        assert_eq!(talk.say(0, ACK, edge - 5, 5001, 1), Ok(Stage::Established), "{ours:?} {theirs:?}");
    }
}

#[test]
fn a_superframe_counts_with_all_its_payload() {
    let mut talk = Talk::open(1000, 5000);
    talk.script(&[
        (0, ACK, 1001, 5001, 64_000, Ok(Stage::Established)),
        (1, ACK, 5001, 65_002, 0, Err("window")),
        (1, ACK, 5001, 65_001, 0, Ok(Stage::Established)),
        (0, ACK, 65_001, 5001, 1000, Ok(Stage::Established)),
    ]);
}

#[test]
fn a_connection_is_picked_up_only_where_that_is_wanted() {
    let mut talk = Talk::new(true);
    talk.script(&[
        (0, RST, 1000, 0, 0, Err("no flow")),
        (0, ACK, 1000, 5000, 100, Ok(Stage::Established)),
        (1, ACK, 5000, 1100, 40_000, Ok(Stage::Established)),
        (0, ACK, 1100, 45_000, 0, Ok(Stage::Established)),
        (1, ACK, 45_000u32.wrapping_add(1 << 31), 1100, 0, Err("window")),
        (0, ACK | FIN, 1100, 45_000, 0, Ok(Stage::FinWait)),
    ]);
}

/// Any sequence number; half of them wrap within the length of a test's connection.
fn sequence_number() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), u32::MAX - 100_000..=u32::MAX]
}

proptest! {
    /// Wherever its numbers begin, a connection that keeps to the rules is never refused: not where they wrap,
    /// not with segments sent again or overtaken.
    #[test]
    fn an_honest_connection_is_never_refused(first in sequence_number(), second in sequence_number(), steps in proptest::collection::vec((0usize..2, 0u32..3000, any::<bool>()), 0..200)) {
        let mut talk = Talk::open(first, second);
        let mut next = [first.wrapping_add(1), second.wrapping_add(1)];
        let mut acknowledged = next;
        let mut last: Option<(usize, u32, u32, u32)> = None;
        for (from, len, again) in steps {
            if let (true, Some((from, seq, ack, len))) = (again, last) {
                prop_assert_eq!(talk.say(from, ACK, seq, ack, len), Ok(Stage::Established));
                continue;
            }
            // No more on its way than the window.
            let len = len.min(10_000 - next[from].wrapping_sub(acknowledged[from]).min(10_000));
            let (seq, ack) = (next[from], next[1 - from]);
            prop_assert_eq!(talk.say(from, ACK, seq, ack, len), Ok(Stage::Established));
            acknowledged[1 - from] = ack;
            next[from] = seq.wrapping_add(len);
            last = Some((from, seq, ack, len));
        }
    }

    /// Whatever comes, the table's counts are those of its flows.
    #[test]
    fn counts_are_those_of_the_flows(segments in proptest::collection::vec((0usize..2, 0u8..32, 0u32..5, 0u32..5, 0u32..3), 0..100), pickup: bool) {
        let mut talk = Talk::new(pickup);
        for (from, flags, seq, ack, len) in segments {
            _ = talk.say(from, flags, seq, ack, len);
            let flows = &talk.table.flows;
            let mut twin = Counted::default();
            flows.scan(0..flows.places(), talk.table.now_s, |_, entry| {
                twin.all += 1;
                twin.half_open += u32::from(entry.state.stage.is_half_open());
            });
            prop_assert_eq!(flows.counted(), twin);
        }
    }
}

/// A number near another in the circle, most often itself.
fn near(base: u32) -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(base), 2 => (-70_000i32..70_000).prop_map(move |by| base.wrapping_add_signed(by)), 1 => any::<u32>()]
}

/// What two ends have said, anywhere in the circle, and one more segment of the one whose side is said.
fn said() -> impl Strategy<Value = ([Window; 2], u8, u8, Tcp)> {
    let window = |end: u32, ack: u32| {
        let room = prop_oneof![Just(0u16), Just(1), any::<u16>()];
        (near(end), near(ack), room, any::<u16>()).prop_map(|(end, ack, room, largest)| Window {
            end,
            ack,
            room,
            largest,
        })
    };
    (any::<u32>(), any::<u32>()).prop_flat_map(move |(a, b)| {
        let segment = (near(a), near(b), prop_oneof![Just(0u32), 0u32..70_000], any::<u16>());
        let segment = segment.prop_map(|(seq, ack, len, window)| Tcp {
            seq,
            ack,
            flags: ACK,
            window,
            len,
            scale: None,
        });
        ([window(a, b), window(b, a)], 0u8..2, any::<u8>(), segment)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// What follows what its sender has said is counted as it is by who asks about everything.
    #[test]
    fn what_follows_is_counted_as_if_it_were_checked((windows, side, scales, segment) in said(), scaled: bool) {
        let records = Records::new(2);
        let state = State { stage: Stage::Established, scales: scales & 0xee, flags: if scaled { SCALED } else { 0 }, ..State::DEAD };
        // The segment is of whoever has said `windows[0]`.
        for place in 0..2 {
            records.at(place).set_window(side, windows[0]);
            records.at(place).set_window(side ^ 1, windows[1]);
        }
        let both = |record: Record| [record.window(0), record.window(1)];
        let before = both(records.at(0));
        if tcp::follows(records.at(0), state, side, &segment) {
            prop_assert_eq!(tcp::go_on(records.at(1), state, side, &segment), Ok(()));
            prop_assert_eq!(both(records.at(0)), both(records.at(1)));
        } else {
            prop_assert_eq!(both(records.at(0)), before, "nothing was done");
        }
    }
}

/// What a stream is made of follows: data in order, and acknowledgements, whatever the scale.
#[test]
fn data_in_order_and_acknowledgements_follow() {
    let records = Records::new(1);
    let (record, state) =
        (records.at(0), State { stage: Stage::Established, scales: 0x77, flags: SCALED, ..State::DEAD });
    let start = u32::MAX - 5000;
    let window = Window { end: start, ack: start, room: 1000, largest: 1000 };
    (0..2).for_each(|side| record.set_window(side, window));
    let (mut seq, mut count) = (start, 0);
    while count < 1000 {
        let data = Tcp { seq, ack: start, flags: ACK, window: 1000, len: 1448, scale: None };
        assert!(tcp::follows(record, state, 0, &data), "{data:?}");
        seq = seq.wrapping_add(1448);
        let ack = Tcp { seq: start, ack: seq, flags: ACK, window: 1000, len: 0, scale: None };
        assert!(tcp::follows(record, state, 1, &ack), "{ack:?}");
        count += 1;
    }
}
