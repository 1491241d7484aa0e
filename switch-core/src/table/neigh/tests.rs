//! What the table promises, by its own clock.

use super::*;
use proptest::prelude::*;

const A: Key = [0, 0xffff_0a00_0001, 1 << 16 | 7];

fn neighbours() -> Neighbours {
    Neighbours::new(64, 4, [1, 2])
}

fn lookup(table: &Neighbours, key: Key, now_s: u32) -> Found {
    table.lookup(table.home(key), key, now_s)
}

fn hear(table: &Neighbours, mac: u64, now_s: u32, claim: Claim) -> Heard {
    table.hear(A, mac, 1, now_s, claim, |_| true)
}

#[test]
fn a_neighbour_is_asked_known_stale_and_asked_again() {
    let table = neighbours();
    assert_eq!(lookup(&table, A, 100), Found::Unknown);
    assert_eq!(table.ask(A, 0, 100), Ask::Send);
    assert_eq!(table.ask(A, 0, 100), Ask::Wait, "once a second");
    assert_eq!(hear(&table, 5, 100, Claim::Answer), Heard::Learned);
    assert_eq!(lookup(&table, A, 100 + FRESH_S), Found::Fresh(5));
    assert_eq!(table.probe(A, 100 + FRESH_S), None, "no question while it is fresh");
    let stale = 101 + FRESH_S;
    assert_eq!(lookup(&table, A, stale), Found::Stale(5));
    assert_eq!(table.probe(A, stale), Some(5));
    assert_eq!(table.probe(A, stale), None, "one question a second");
    assert_eq!(hear(&table, 5, stale, Claim::Answer), Heard::Confirmed);
    assert_eq!(lookup(&table, A, stale), Found::Fresh(5));
    // And now it is silent.
    let stale = stale + FRESH_S + 100;
    for n in 0..u32::from(PROBES_MAX) {
        assert_eq!(table.probe(A, stale + n), Some(5));
    }
    assert_eq!(table.probe(A, stale + 3), None);
    assert_eq!(lookup(&table, A, stale + 3), Found::Unknown);
    assert_eq!(table.entries(), 0);
}

#[test]
fn silence_is_remembered_for_a_while() {
    let table = neighbours();
    assert_eq!(table.ask(A, 0, 100), Ask::Send);
    table.give_up(A, 103);
    assert_eq!(lookup(&table, A, 103 + FAILED_S), Found::Failed);
    assert_eq!(table.ask(A, 0, 103), Ask::Failed);
    assert_eq!(lookup(&table, A, 104 + FAILED_S), Found::Unknown);
    assert_eq!(hear(&table, 5, 104, Claim::Question), Heard::Learned, "it speaks for itself");
    assert_eq!(lookup(&table, A, 104), Found::Fresh(5));
}

/// Who did not answer is missed until he is heard of, and asked for once a second by whoever looks.
#[test]
fn who_did_not_answer_is_missed_until_he_does() {
    let table = neighbours();
    let missed = |now_s| table.missed(table.home(A), A, now_s);
    assert_eq!(missed(100), None, "nobody asked");
    assert_eq!(table.ask(A, 0, 100), Ask::Send);
    assert_eq!(missed(101), None, "nobody knows yet");
    table.give_up(A, 103);
    assert_eq!([103, 104, 104, 105, 109].map(missed), [false, true, false, true, true].map(Some));
    assert_eq!(table.ask(A, 0, 109), Ask::Wait, "the question stands");
    assert_eq!((table.ask(A, 0, 110), missed(110)), (Ask::Send, Some(false)));
    assert_eq!(hear(&table, 5, 111, Claim::Answer), Heard::Learned);
    assert_eq!((missed(111), lookup(&table, A, 111)), (None, Found::Fresh(5)));
}

#[test]
fn nobody_takes_over_a_valid_entry() {
    let table = neighbours();
    assert_eq!(hear(&table, 5, 100, Claim::Announcement), Heard::Ignored, "nobody asked");
    assert_eq!(hear(&table, 5, 100, Claim::Answer), Heard::Ignored, "nobody asked");
    assert_eq!(hear(&table, 5, 100, Claim::Question), Heard::Learned);
    for claim in [Claim::Answer, Claim::Question, Claim::Announcement] {
        assert_eq!(hear(&table, 6, 101, claim), Heard::Disputed);
        assert_eq!(lookup(&table, A, 101), Found::Stale(5), "the present one is asked");
        assert_eq!(table.probe(A, 101), Some(5));
        assert_eq!(hear(&table, 5, 101, Claim::Answer), Heard::Confirmed, "and stays");
    }
    assert_eq!(table.hear(A, 6, 1, 102, Claim::Announcement, |_| false), Heard::Learned, "its port is gone");
    assert!(table.pin(A, 9));
    assert_eq!(hear(&table, 6, 200, Claim::Answer), Heard::Ignored);
    assert_eq!(lookup(&table, A, 100_000), Found::Fresh(9));
}

#[test]
fn one_port_takes_neither_the_table_nor_the_questions() {
    let table = neighbours();
    let nth = |n: u64| [0, 0xffff_0a00_0000 + n, 1 << 16 | 7];
    let asked = (0..64).filter(|n| table.ask(nth(*n), 0, 1) == Ask::Send).count();
    assert_eq!(asked, 16, "a quarter of the table");
    assert_eq!(table.ask(nth(900), 1, 1), Ask::Send, "another port may still ask");
    let learned =
        (1000..1100).filter(|n| table.hear(nth(*n), 5, 2, 1, Claim::Question, |_| true) == Heard::Learned);
    assert!((39..=40).contains(&learned.count()), "what is shared, and its share");
    assert_eq!(table.hear(nth(2000), 5, 3, 1, Claim::Question, |_| true), Heard::Learned, "within its share");
}

proptest! {
    /// Counts are those of the entries, whatever happened.
    #[test]
    fn counts_are_those_of_the_entries(ops in proptest::collection::vec((0u64..20, 0u16..4, 0u8..7, 0u32..40), 0..300)) {
        let table = neighbours();
        let mut now_s = 1000;
        for (n, port, op, pause) in ops {
            let key = [0, n, 1 << 16 | 7];
            now_s += pause;
            match op {
                0 => _ = table.ask(key, port, now_s),
                1 => table.give_up(key, now_s),
                2 => _ = table.probe(key, now_s),
                3 => _ = table.sweep(0..table.lines(), |_, _, entry| entry.is_old(now_s)),
                4 => _ = table.hear(key, 5 + u64::from(port), port, now_s, Claim::Question, |_| n % 2 == 0),
                5 => _ = table.hear(key, 5 + u64::from(port), port, now_s, Claim::Answer, |_| n % 2 == 0),
                _ => _ = table.pin(key, 77),
            }
            let (mut entries, mut waiting, mut by_port) = (0, 0, [0u32; 4]);
            table.for_each(|_, _, entry| {
                entries += 1;
                if entry.is_waiting() { waiting += 1 } else { by_port[usize::from(entry.port)] += 1 }
            });
            prop_assert_eq!(table.entries(), entries);
            prop_assert_eq!(table.waiting.load(Ordering::Relaxed), waiting);
            for (count, own) in table.by_port.iter().zip(by_port) {
                prop_assert_eq!(count.load(Ordering::Relaxed), own);
            }
        }
    }

    #[test]
    fn entries_survive_packing(mac in 0u64..1 << 48, port: u16, probes: u8, probed_s: u16, stamp_s: u32) {
        for state in [State::Asked, State::Known, State::Failed, State::Static] {
            let entry = Entry { mac, port, state, probes, probed_s, stamp_s };
            prop_assert_eq!(Entry::unpack(entry.pack()), entry);
        }
    }
}

#[test]
fn what_another_authority_says_is_believed() {
    let table = neighbours();
    assert!(!table.tell(A, Some((5, true)), 1, 100, false), "nobody asked");
    assert_eq!(table.ask(A, 0, 100), Ask::Send);
    let before = table.changes();
    assert!(!table.tell(A, None, 1, 100, true));
    assert_eq!(lookup(&table, A, 100), Found::Unknown, "the question goes on");
    assert!(table.tell(A, Some((5, true)), 1, 100, false));
    assert_ne!(table.changes(), before, "whoever waits is told");
    assert_eq!(lookup(&table, A, 100 + FRESH_S), Found::Fresh(5));
    // It is another station now, of which nothing is sure.
    assert!(table.tell(A, Some((6, false)), 1, 101, false));
    assert_eq!(lookup(&table, A, 101), Found::Stale(6));
    assert_eq!(table.probe(A, 101), Some(6));
    assert!(!table.tell(A, None, 1, 101, false));
    assert_eq!((lookup(&table, A, 101), table.entries()), (Found::Unknown, 0));
    // What was declared stays.
    assert!(table.pin(A, 9) && !table.tell(A, Some((5, true)), 1, 101, true));
    assert_eq!(lookup(&table, A, 101), Found::Fresh(9));
}
