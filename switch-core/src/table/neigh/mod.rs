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

mod entry;
#[cfg(all(test, not(loom)))]
mod tests;

use super::atomic::Outcome;
use super::fdb::Limits;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use super::wide::{Key, Want, WideTable};
pub use entry::{Entry, State};

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
    pub(super) epoch: AtomicU64,
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
            epoch: AtomicU64::new(0),
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

    /// The last second in which a neighbour whose station is known may be sent to without another look, if nobody changes it:
    /// then the epoch is another. Who is stale is looked at again each second, and so asked.
    pub fn until_s(&self, home: u32, key: Key, now_s: u32) -> u32 {
        match self.table.get(home, key).map(Entry::unpack) {
            Some(Entry { state: State::Static, .. }) => u32::MAX,
            Some(entry) if entry.is_fresh(now_s) => entry.stamp_s.saturating_add(FRESH_S),
            Some(entry) if entry.has_station() => now_s,
            _ => 0,
        }
    }

    /// Grows when a neighbour has not any more the station that it had, or is to be asked sooner than was thought. Read it
    /// before what is to be remembered with it.
    #[inline(always)]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
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
            let probes = u8::from(present.is_some_and(Entry::is_missed));
            (ask == Ask::Send).then(|| Some(Entry { probes, ..Entry::new(State::Asked, 0, port, now_s) }))
        })
        .map_or(Ask::Full, |()| ask)
    }

    /// Whether `key` was asked for in vain, and is not known since: who can be gone another way need not wait for it. Then says
    /// whether to ask everybody once more, which is once a second.
    pub fn missed(&self, home: u32, key: Key, now_s: u32) -> Option<bool> {
        let is_due = |entry: Entry| entry.age_s(now_s) > 0;
        let entry = self.table.get(home, key).map(Entry::unpack).filter(|entry| entry.is_missed())?;
        let mut asks = false;
        if is_due(entry) {
            _ = self.change(key, |present| {
                let entry = present.filter(|entry| entry.is_missed() && is_due(*entry))?;
                asks = true;
                Some(Some(Entry { probes: 1, ..Entry::new(State::Asked, 0, entry.port, now_s) }))
            });
        }
        Some(asks)
    }

    /// Whether `key` was asked for in vain, and is not known since.
    pub fn is_missed(&self, home: u32, key: Key) -> bool {
        self.table.get(home, key).map(Entry::unpack).is_some_and(Entry::is_missed)
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

    /// What another authority says of `key`, over what was learned: its station, and whether it is sure of it. Without a
    /// station a known one is forgotten, and a question goes on. `adds`: also if nobody asked for it. Whether it is known now.
    pub fn tell(&self, key: Key, said: Option<(u64, bool)>, port: u16, now_s: u32, adds: bool) -> bool {
        let mut is_known = false;
        let changed = self.change(key, |present| match (said, present) {
            (_, Some(entry)) if entry.state == State::Static => None,
            (None, Some(entry)) if entry.state == State::Known => Some(None),
            (None, _) => None,
            (Some(_), None) if !adds || !self.may_learn(port) => None,
            (Some((mac, is_sure)), _) => {
                is_known = true;
                let stamp_s = if is_sure { now_s } else { now_s.saturating_sub(FRESH_S + 1) };
                Some(Some(Entry { stamp_s, ..Entry::new(State::Known, mac, port, now_s) }))
            }
        });
        if is_known {
            // After the entry, as in `hear`.
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        is_known && changed.is_some()
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

    /// Entries that whoever comes first may fill.
    pub fn shared(&self) -> u32 {
        self.limits.shared()
    }

    /// Entries, of every state.
    pub fn entries(&self) -> u32 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Entries that name a port as the one they are behind, and wait for nobody.
    pub fn known_behind(&self, port: u16) -> u32 {
        self.by_port[usize::from(port)].load(Ordering::Relaxed)
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
                if before.is_some_and(|before| before.has_station() && !before.goes_on_as(after)) {
                    // Behind the entry: who sees this sees that.
                    self.epoch.fetch_add(1, Ordering::Release);
                }
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
