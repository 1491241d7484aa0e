//! Neighbours: which station has an address, on a bridge and VLAN that the switch routes for.
//!
//! States are those of RFC 4861 §7.3.2, by age: a neighbour that answered is *fresh* for [`FRESH_S`]; then
//! it is *stale*, which is as good for sending, but whoever sends asks it again, once a second. After
//! [`PROBES_MAX`] questions without an answer it is *asked* anew, of everybody. Whoever does not answer that
//! is *failed* for [`FAILED_S`], so that a packet to it costs no question.
//!
//! **Who may say what.** An address that is asked for belongs to the first who answers. A valid entry is
//! never overwritten because somebody says so: a claim of another station only makes the switch ask the
//! present one, and as long as that one answers, it stays. If its station is nowhere to be seen any more
//! (its port is gone), the claim is believed.
//!
//! **Fairness.** As in the FDB: an eighth of the table is dealt out evenly among the ports, the rest is
//! shared. Questions without an answer yet are counted with the port that made the switch ask, and may take
//! half of the table, a quarter for one port: a pod that scans a network does not hide the neighbours of
//! others.

use super::atomic::Outcome;
use super::fdb::Limits;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use super::wide::{Key, Value, Want, WideTable};

/// How long an answer is trusted without a question (RFC 4861 §10, REACHABLE_TIME), in seconds.
pub const FRESH_S: u32 = 30;
/// Questions to one station, or to everybody, before it counts as gone (RFC 4861 §10,
/// MAX_UNICAST_SOLICIT and MAX_MULTICAST_SOLICIT).
pub const PROBES_MAX: u8 = 3;
/// How long a neighbour that did not answer is not asked again. A pod that starts in this time makes itself
/// known by its own question.
pub const FAILED_S: u32 = 3;
/// How long a question may stand before it is forgotten: its asker gave up or is gone.
const ASKED_S: u32 = 10;
/// How long an unused neighbour is remembered. One that is used is asked every [`FRESH_S`].
pub const STALE_MAX_S: u32 = 600;

/// State in the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Asked for; nobody answered yet.
    Asked = 1,
    /// It answered.
    Known = 2,
    /// Nobody answered.
    Failed = 3,
    /// Declared.
    Static = 4,
}

/// One entry, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its station, low 48 bits; 0 if unknown.
    pub mac: u64,
    /// The port it answered by, or whose packet made the switch ask.
    pub port: u16,
    /// See [`State`].
    pub state: State,
    /// Questions since it last answered.
    probes: u8,
    /// Low bits of the second of the last question.
    probed_s: u16,
    /// The second of the last answer, or of the state's beginning.
    stamp_s: u32,
}

impl Entry {
    fn new(state: State, mac: u64, port: u16, now_s: u32) -> Self {
        Self { mac, port, state, probes: 0, probed_s: 0, stamp_s: now_s }
    }

    fn pack(self) -> Value {
        let low = u64::from(self.stamp_s) << 32
            | u64::from(self.probed_s) << 16
            | u64::from(self.probes) << 8
            | self.state as u64;
        [self.mac << 16 | u64::from(self.port), low]
    }

    #[inline(always)]
    fn unpack([high, low]: Value) -> Self {
        let state = match low & 0xff {
            1 => State::Asked,
            2 => State::Known,
            3 => State::Failed,
            _ => State::Static,
        };
        Self {
            mac: high >> 16,
            port: high as u16,
            state,
            probes: (low >> 8) as u8,
            probed_s: (low >> 16) as u16,
            stamp_s: (low >> 32) as u32,
        }
    }

    /// Seconds since it was last heard from, or its state began. A second that lies ahead is now.
    pub fn age_s(self, now_s: u32) -> u32 {
        now_s.saturating_sub(self.stamp_s)
    }

    /// Whether it may be forgotten.
    pub fn is_old(self, now_s: u32) -> bool {
        match self.state {
            State::Asked => self.age_s(now_s) > ASKED_S,
            State::Failed => self.age_s(now_s) > FAILED_S,
            State::Known => self.age_s(now_s) > STALE_MAX_S,
            State::Static => false,
        }
    }

    /// Whether it is sure enough to be used without a question.
    pub fn is_fresh(self, now_s: u32) -> bool {
        self.state == State::Static || self.state == State::Known && self.age_s(now_s) <= FRESH_S
    }

    fn is_waiting(self) -> bool {
        matches!(self.state, State::Asked | State::Failed)
    }
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its station.
    Fresh(u64),
    /// Its station; it is time to ask whether it is still there ([`Neighbours::probe`]).
    Stale(u64),
    /// Nobody answers for it.
    Failed,
    /// Not known, or asked for already.
    Unknown,
}

/// What came of a wish to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Ask.
    Send,
    /// Somebody else asked a moment ago.
    Wait,
    /// It is known by now.
    Known,
    /// Nobody answers for it.
    Failed,
    /// No room for one more question.
    Full,
}

/// How a station said that an address is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It answered a question, or says that it does.
    Answer,
    /// It asks us something; it wants to be answered.
    Question,
    /// It says so to everybody.
    Announcement,
}

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing: known already, of no interest, or declared.
    Ignored,
    /// The entry is fresh again.
    Confirmed,
    /// A new neighbour, or one that waited for this.
    Learned,
    /// Another station than the valid one: that one will be asked.
    Disputed,
    /// No room.
    Full,
}

/// The key of an address (IPv4 as IPv4-mapped) on a bridge and VLAN.
#[inline(always)]
pub fn key(fid: u16, address: u128) -> Key {
    [(address >> 64) as u64, address as u64, u64::from(fid) | 1 << 16]
}

/// The reverse of [`key`].
pub fn unkey(key: Key) -> (u16, u128) {
    (key[2] as u16, u128::from(key[0]) << 64 | u128::from(key[1]))
}

/// See the module.
#[derive(Debug)]
pub struct Neighbours {
    pub(super) table: WideTable,
    pub(super) limits: Limits,
    pub(super) entries: AtomicU32,
    pub(super) waiting: AtomicU32,
    pub(super) by_port: Box<[AtomicU32]>,
    pub(super) waiting_by_port: Box<[AtomicU32]>,
    pub(super) changes: AtomicU32,
    pub(super) holders: AtomicU64,
}

impl Neighbours {
    /// Room for `entries` behind ports `0..ports`.
    pub fn new(entries: usize, ports: usize, seed: [u64; 2]) -> Self {
        let counts = || (0..ports).map(|_| AtomicU32::new(0)).collect();
        Self {
            table: WideTable::new(entries, seed),
            limits: Limits::new(entries as u32, ports),
            entries: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            by_port: counts(),
            waiting_by_port: counts(),
            changes: AtomicU32::new(0),
            holders: AtomicU64::new(0),
        }
    }

    /// Where a key's entry lives.
    #[inline(always)]
    pub fn home(&self, key: Key) -> u32 {
        self.table.home(key)
    }

    /// See [`WideTable::touch`].
    #[inline(always)]
    pub fn touch(&self, home: u32) {
        self.table.touch(home);
    }

    /// What is known of `key`.
    #[inline]
    pub fn lookup(&self, home: u32, key: Key, now_s: u32) -> Found {
        let Some(entry) = self.table.get(home, key).map(Entry::unpack) else { return Found::Unknown };
        match entry.state {
            State::Known | State::Static if entry.is_fresh(now_s) => Found::Fresh(entry.mac),
            State::Known if entry.is_old(now_s) => Found::Unknown,
            State::Known | State::Static => Found::Stale(entry.mac),
            State::Failed if !entry.is_old(now_s) => Found::Failed,
            State::Asked | State::Failed => Found::Unknown,
        }
    }

    /// A packet that came in by `port` waits for `key`: whether to ask everybody.
    pub fn ask(&self, key: Key, port: u16, now_s: u32) -> Ask {
        let mut ask = Ask::Send;
        self.change(key, |present| {
            ask = match present {
                Some(entry) if entry.state == State::Static || entry.is_fresh(now_s) => Ask::Known,
                Some(entry) if entry.state == State::Asked && entry.age_s(now_s) == 0 => Ask::Wait,
                Some(entry) if entry.state == State::Failed && !entry.is_old(now_s) => Ask::Failed,
                Some(entry) if entry.state == State::Known && !entry.is_old(now_s) => Ask::Known,
                Some(_) => Ask::Send,
                None if self.may_ask(port) => Ask::Send,
                None => Ask::Full,
            };
            (ask == Ask::Send).then(|| Some(Entry::new(State::Asked, 0, port, now_s)))
        })
        .map_or(Ask::Full, |()| ask)
    }

    /// Its questions went unanswered.
    pub fn give_up(&self, key: Key, now_s: u32) {
        _ = self.change(key, |present| {
            let entry = present.filter(|entry| entry.state == State::Asked)?;
            Some(Some(Entry::new(State::Failed, 0, entry.port, now_s)))
        });
    }

    /// A stale neighbour is used: the station to ask, if it is time to.
    pub fn probe(&self, key: Key, now_s: u32) -> Option<u64> {
        let mut ask = None;
        _ = self.change(key, |present| {
            let entry = present.filter(|entry| entry.state == State::Known && !entry.is_fresh(now_s))?;
            if entry.probes > 0 && entry.probed_s == now_s as u16 {
                return None;
            }
            if entry.probes >= PROBES_MAX {
                // Whoever needs it asks everybody.
                return Some(None);
            }
            ask = Some(entry.mac);
            Some(Some(Entry { probes: entry.probes + 1, probed_s: now_s as u16, ..entry }))
        });
        ask
    }

    /// A station behind `port` says that it has the address. `is_alive` says whether a station that had it
    /// before can still be there.
    pub fn hear(
        &self,
        key: Key,
        mac: u64,
        port: u16,
        now_s: u32,
        claim: Claim,
        is_alive: impl FnOnce(u64) -> bool,
    ) -> Heard {
        let mut heard = Heard::Ignored;
        let changed = self.change(key, |present| {
            let known = Entry::new(State::Known, mac, port, now_s);
            let entry = match present {
                Some(entry) if entry.state == State::Static => return None,
                Some(entry) if entry.is_waiting() => {
                    heard = Heard::Learned;
                    known
                }
                Some(entry) if entry.mac == mac => {
                    heard = Heard::Confirmed;
                    known
                }
                Some(entry) if entry.is_old(now_s) || !is_alive(entry.mac) => {
                    heard = Heard::Learned;
                    known
                }
                Some(entry) => {
                    heard = Heard::Disputed;
                    // As if it had been silent for long; questions that are under way stay counted.
                    if !entry.is_fresh(now_s) {
                        return None;
                    }
                    let stamp_s = now_s.saturating_sub(FRESH_S + 1);
                    Entry { stamp_s, probes: 0, ..entry }
                }
                // Nobody asked: only who asks us and so will be talked to is worth a place.
                None if claim != Claim::Question => return None,
                None if !self.may_learn(port) => {
                    heard = Heard::Full;
                    return None;
                }
                None => {
                    heard = Heard::Learned;
                    known
                }
            };
            Some(Some(entry))
        });
        if changed.is_none() {
            return Heard::Full;
        }
        if heard == Heard::Learned {
            // After the entry, for whoever holds packets for it (see `holders`).
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        heard
    }

    /// Declares a neighbour. False if another writer was in the way or there is no room.
    pub fn pin(&self, key: Key, mac: u64) -> bool {
        let changed = self.change(key, |_| Some(Some(Entry::new(State::Static, mac, 0, 0))));
        self.changes.fetch_add(1, Ordering::SeqCst);
        changed.is_some()
    }

    /// Forgets those for which `gone` says so, in `range` of [`Neighbours::lines`].
    pub fn sweep(
        &self,
        range: std::ops::Range<usize>,
        mut gone: impl FnMut(u16, u128, Entry) -> bool,
    ) -> usize {
        let mut old = Vec::new();
        self.table.scan(range, |key, value| {
            let (fid, address) = unkey(key);
            if gone(fid, address, Entry::unpack(value)) {
                old.push((key, Entry::unpack(value)));
            }
        });
        // One that was heard from since the scan has another entry now and stays.
        let remove = |(key, entry): &(Key, Entry)| {
            let mut removed = false;
            _ = self.change(*key, |present| {
                removed = present == Some(*entry);
                removed.then_some(None)
            });
            removed
        };
        old.iter().filter(|entry| remove(entry)).count()
    }

    /// Every entry.
    pub fn for_each(&self, mut visit: impl FnMut(u16, u128, Entry)) {
        self.table.scan(0..self.lines(), |key, value| {
            let (fid, address) = unkey(key);
            visit(fid, address, Entry::unpack(value));
        });
    }

    /// Lines of the table.
    pub fn lines(&self) -> usize {
        self.table.lines()
    }

    /// Entries, of every state.
    pub fn entries(&self) -> u32 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Moves whenever somebody was waited for and answered.
    #[inline(always)]
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Notes whether `worker` holds packets that wait for a neighbour: whoever hears it wakes that worker.
    pub fn note_holder(&self, worker: u16, holds: bool) {
        let bit = 1u64 << (worker % 64);
        if holds {
            self.holders.fetch_or(bit, Ordering::SeqCst);
        } else {
            self.holders.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// Workers that hold packets, a bit each.
    pub fn holders(&self) -> u64 {
        self.holders.load(Ordering::SeqCst)
    }

    fn may_ask(&self, port: u16) -> bool {
        let (all, own) = (&self.waiting, &self.waiting_by_port[usize::from(port)]);
        all.load(Ordering::Relaxed) < self.limits.table / 2
            && own.load(Ordering::Relaxed) < self.limits.table / 4
            && self.entries.load(Ordering::Relaxed) < self.limits.table
    }

    fn may_learn(&self, port: u16) -> bool {
        let own = self.by_port[usize::from(port)].load(Ordering::Relaxed);
        own < self.limits.share || self.entries.load(Ordering::Relaxed) < self.limits.shared()
    }

    /// Puts, removes or keeps one entry and counts what became of it. None if it could not be done.
    fn change(&self, key: Key, decide: impl FnOnce(Option<Entry>) -> Option<Option<Entry>>) -> Option<()> {
        let (mut before, mut after) = (None, None);
        let outcome = self.table.update(key, |present| {
            before = present.map(Entry::unpack);
            match decide(before) {
                None => Want::Keep,
                Some(None) => Want::Remove,
                Some(Some(entry)) => {
                    after = Some(entry);
                    Want::Put(entry.pack())
                }
            }
        });
        match outcome {
            Outcome::Written => {
                before.inspect(|entry| self.count(*entry, u32::MAX));
                after.inspect(|entry| self.count(*entry, 1));
                Some(())
            }
            Outcome::Kept => Some(()),
            Outcome::Full | Outcome::Busy => None,
        }
    }

    /// Adds `one`, which is 1 or −1, to the counts that `entry` belongs to.
    fn count(&self, entry: Entry, one: u32) {
        self.entries.fetch_add(one, Ordering::Relaxed);
        let own = if entry.is_waiting() { &self.waiting_by_port } else { &self.by_port };
        own[usize::from(entry.port)].fetch_add(one, Ordering::Relaxed);
        if entry.is_waiting() {
            self.waiting.fetch_add(one, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
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
        assert_eq!(
            table.hear(A, 6, 1, 102, Claim::Announcement, |_| false),
            Heard::Learned,
            "its port is gone"
        );
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
        let learned = (1000..1100)
            .filter(|n| table.hear(nth(*n), 5, 2, 1, Claim::Question, |_| true) == Heard::Learned);
        assert!((39..=40).contains(&learned.count()), "what is shared, and its share");
        assert_eq!(
            table.hear(nth(2000), 5, 3, 1, Claim::Question, |_| true),
            Heard::Learned,
            "within its share"
        );
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
}
