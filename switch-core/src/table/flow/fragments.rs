//! Which flow the later fragments of a packet belong to: the first one has the ports, and leaves them here.
//!
//! A later fragment that comes before its first finds nothing and is dropped by name. One whose first was refused begins no flow; where its
//! ends have one it goes by, and its receiver waits for the first in vain. One that would lie over its first is refused, and what follows of
//! the packet with it (RFC 5722 for IPv6, RFC 3128 for IPv4). Later fragments that overlap each other are their receiver's affair: no
//! policy reads them.

use super::round::Round;
use crate::table::atomic::{Outcome, mix};
use crate::table::wide::{Key, Value, WINDOW, Want, WideTable};
use crate::wire::packet::{Fragment, Packet};
use arrayvec::ArrayVec;
use std::cmp::Reverse;

/// Packets in pieces at a time. Each needs two lines of 64 bytes.
pub const FRAGMENTED_MAX: usize = 4096;
/// How long the pieces of a packet may be apart. Linux' receivers wait as long (RFC 8200 §4.5 allows 60).
pub const WAIT_S: u32 = 30;
/// Lines looked at in one call of [`Fragments::sweep`], at most.
const SWEEP_LINES: usize = 64;

/// Why a fragment belongs to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stray {
    /// Its first fragment has not come.
    NoFirst,
    /// It lies over its first fragment, or one before it did.
    Overlap,
    /// Another worker was writing at its place, or took the one that was made for it.
    Full,
}

/// See the module.
#[derive(Debug)]
pub struct Fragments {
    table: WideTable,
    seed: [u64; 3],
}

/// In the value's second word: a fragment lay over the first one.
const SPOILT: u64 = 1 << 63;
/// In it, 16 bits each: the port by which the first fragment came, and its length; then ICMP's type and code.
const PORT_AT: u32 = 32;
const LEN_AT: u32 = 16;

/// Whose addresses a fragment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The zone of its flow.
    pub zone: u16,
    /// The port of a workload that sends from an address which is not its own: its fragments are of packets of its own, and spoil nobody's.
    pub poser: Option<u16>,
}

impl Space {
    /// Of who sends from an address that may be his.
    pub fn of(zone: u16) -> Self {
        Self { zone, poser: None }
    }
}

/// By which port a packet's first fragment came.
fn port(tail: u64) -> u16 {
    (tail >> PORT_AT) as u16
}

impl Fragments {
    /// Cache lines it takes.
    pub fn lines(&self) -> usize {
        self.table.lines()
    }

    /// Room for so many packets in pieces.
    pub fn new(packets: usize, seed: [u64; 2]) -> Self {
        Self {
            table: WideTable::new(packets, seed),
            seed: std::array::from_fn(|i| mix(seed[0] ^ mix(seed[1].wrapping_add(i as u64)))),
        }
    }

    /// A copy that answers the same.
    pub fn copy(&self) -> Self {
        Self { table: self.table.copy(), seed: self.seed }
    }

    /// The addresses do not fit beside the rest: they are there as two keyed hashes.
    fn key(&self, packet: &Packet, fragment: Fragment, space: Space) -> Key {
        let Space { zone, poser } = space;
        let who = poser.map_or(0, |port| 1 + u64::from(port));
        let hash = |seed: u64| {
            [packet.src >> 64, packet.src, packet.dst >> 64, packet.dst]
                .iter()
                .fold(seed, |hash, word| mix(hash.rotate_left(23) ^ *word as u64))
        };
        let tail = u64::from(fragment.id) << 32 | u64::from(packet.protocol) << 16 | u64::from(zone);
        [hash(self.seed[0] ^ who), hash(self.seed[1]), tail ^ self.seed[2]]
    }

    /// Notes a first fragment that came by a port.
    pub fn first(
        &self,
        packet: &Packet,
        fragment: Fragment,
        space: Space,
        by: u16,
        now_s: u32,
    ) -> Result<(), Stray> {
        let mut spoilt = false;
        let ports = u64::from(packet.ports[0]) << 16 | u64::from(packet.ports[1]);
        let says =
            (fragment.len as u64) << LEN_AT | u64::from(packet.icmp[0]) << 8 | u64::from(packet.icmp[1]);
        let value = [u64::from(now_s) << 32 | ports, u64::from(by) << PORT_AT | says];
        let key = self.key(packet, fragment, space);
        let mut note = || {
            self.table.update(key, |present| {
                let present = present.filter(|value| !is_old(*value, now_s));
                spoilt = present.is_some_and(|[before, tail]| {
                    let said = tail & !(u64::from(u16::MAX) << PORT_AT);
                    before as u32 != value[0] as u32 || said != says
                });
                // Another first fragment of the same packet: both cannot be right.
                Want::Put(if spoilt { [value[0], value[1] | SPOILT] } else { value })
            })
        };
        let mut outcome = note();
        if outcome == Outcome::Full {
            self.make_room(key, now_s);
            outcome = note();
        }
        match outcome {
            _ if spoilt => Err(Stray::Overlap),
            Outcome::Written | Outcome::Kept => Ok(()),
            Outcome::Full | Outcome::Busy => Err(Stray::Full),
        }
    }

    /// Where a new packet finds no room somebody makes some: what is old, or else, of the port that has most there, the oldest. What follows a first
    /// fragment mostly does so at once; by firsts that nothing follows nobody keeps others out for [`WAIT_S`], nor takes their places.
    #[cold]
    fn make_room(&self, key: Key, now_s: u32) {
        let there: ArrayVec<(Key, Value), WINDOW> = self.table.around(self.table.home(key)).collect();
        let of_port = |by: u16| there.iter().filter(|(_, [_, tail])| port(*tail) == by).count();
        let goes = there.iter().max_by_key(|(_, value)| {
            (is_old(*value, now_s), of_port(port(value[1])), Reverse(value[0] >> 32))
        });
        if let Some((key, value)) = goes {
            let value = Some(*value);
            self.table.update(*key, |present| if present == value { Want::Remove } else { Want::Keep });
        }
    }

    /// Ports, and ICMP type and code, of a later fragment's packet.
    pub fn later(
        &self,
        packet: &Packet,
        fragment: Fragment,
        space: Space,
        now_s: u32,
    ) -> Result<([u16; 2], [u8; 2]), Stray> {
        let key = self.key(packet, fragment, space);
        let value = self.table.get(self.table.home(key), key).filter(|value| !is_old(*value, now_s));
        let [head, tail] = value.ok_or(Stray::NoFirst)?;
        let first_len = u64::from((tail >> LEN_AT) as u16);
        if tail & SPOILT != 0 {
            return Err(Stray::Overlap);
        }
        if (fragment.offset as u64) < first_len {
            self.table.update(key, |present| match present {
                Some([head, tail]) => Want::Put([head, tail | SPOILT]),
                None => Want::Keep,
            });
            return Err(Stray::Overlap);
        }
        Ok(([(head >> 16) as u16, head as u16], [(tail >> 8) as u8, tail as u8]))
    }

    /// Forgets what is old. Called often; what is due by `now_ns` is done, up to a limit.
    pub fn sweep(&self, round: &mut Round, now_ns: u64) {
        let (lines, now_s) = (self.table.lines() as u64, (now_ns / 1_000_000_000) as u32);
        let due = round.due(lines, now_ns, SWEEP_LINES as u64);
        if due.is_empty() {
            return;
        }
        let from = (due.start % lines) as usize;
        let to = from + (due.end - due.start) as usize;
        // What lies beyond the last line lies before the first.
        self.forget(from..to, now_s);
        self.forget(0..to.saturating_sub(self.table.lines()), now_s);
    }

    fn forget(&self, lines: std::ops::Range<usize>, now_s: u32) {
        let mut old = [([0; 3], [0; 2]); SWEEP_LINES];
        let mut count = 0;
        self.table.scan(lines, |key, value| {
            if is_old(value, now_s) && count < SWEEP_LINES {
                old[count] = (key, value);
                count += 1;
            }
        });
        for (key, value) in &old[..count] {
            self.table
                .update(*key, |present| if present == Some(*value) { Want::Remove } else { Want::Keep });
        }
    }

    /// Does something while the place of a packet is written: as what other workers do then.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn while_written(&self, packet: &Packet, zone: u16, meanwhile: impl FnOnce()) {
        let Some(fragment) = packet.fragment else { return };
        self.table.update(self.key(packet, fragment, Space::of(zone)), |_| {
            meanwhile();
            Want::Keep
        });
    }

    /// Packets in pieces, for tests.
    pub fn entries(&self) -> usize {
        let mut entries = 0;
        self.table.scan(0..self.table.lines(), |_, _| entries += 1);
        entries
    }
}

fn is_old(value: Value, now_s: u32) -> bool {
    now_s.saturating_sub((value[0] >> 32) as u32) > WAIT_S
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wire::packet::Packet;

    const ANY: u16 = 7;
    const HERE: Space = Space { zone: 1, poser: None };

    #[test]
    fn who_poses_as_another_spoils_nothing_of_his() {
        let fragments = Fragments::new(64, [1, 2]);
        let (packet, first) =
            (Packet { ports: [7, 9], ..Packet::EMPTY }, Fragment { id: 0, offset: 0, len: 1000 });
        let other = Packet { ports: [8, 9], ..packet };
        let posing = Space { poser: Some(ANY), ..HERE };
        for [whose, said] in [[HERE, posing], [posing, HERE]] {
            let id = u32::from(whose == posing);
            let (first, later) = (Fragment { id, ..first }, Fragment { id, offset: 500, len: 10 });
            assert_eq!(fragments.first(&packet, first, whose, ANY, 100), Ok(()));
            assert_eq!(fragments.first(&other, first, said, ANY, 100), Ok(()));
            assert_eq!(fragments.later(&other, later, said, 100), Err(Stray::Overlap));
            let behind = Fragment { offset: 1000, ..later };
            assert_eq!(fragments.later(&packet, behind, whose, 100), Ok(([7, 9], [0; 2])));
        }
    }

    #[test]
    fn firsts_that_nothing_follows_keep_nobody_out() {
        let fragments = Fragments::new(64, [1, 2]);
        let of = |src: u128| Packet { src, ..Packet::EMPTY };
        for id in 0..10_000 {
            fragments.first(&of(1), Fragment { id, offset: 0, len: 1000 }, HERE, ANY, 100).unwrap();
        }
        assert!(fragments.entries() <= fragments.lines());
        for id in 0..1000 {
            let packet = Packet { ports: [id as u16, 9], ..of(2) };
            fragments.first(&packet, Fragment { id, offset: 0, len: 1000 }, HERE, ANY, 100).unwrap();
            let later = fragments.later(&of(2), Fragment { id, offset: 1000, len: 10 }, HERE, 100);
            assert_eq!(later, Ok((packet.ports, [0; 2])));
        }
        // Who waits goes before who came just now.
        let young = Fragment { id: 0, offset: 0, len: 1000 };
        fragments.first(&of(3), young, HERE, ANY, 110).unwrap();
        for id in 0..64 {
            fragments.first(&of(4), Fragment { id, offset: 0, len: 1000 }, HERE, ANY, 110).unwrap();
        }
        assert!(fragments.later(&of(3), Fragment { offset: 1000, ..young }, HERE, 110).is_ok());
    }

    #[test]
    fn who_has_most_makes_room_unless_something_is_old() {
        let fragments = Fragments::new(64, [1, 2]);
        let of = |src: u128| Packet { src, ..Packet::EMPTY };
        let (quiet, later) =
            (Fragment { id: 0, offset: 0, len: 1000 }, Fragment { id: 0, offset: 1000, len: 10 });
        fragments.first(&of(1), quiet, HERE, 1, 100).unwrap();
        for id in 0..10_000 {
            fragments.first(&of(2), Fragment { id, ..quiet }, HERE, 2, 101).unwrap();
        }
        assert!(fragments.later(&of(1), later, HERE, 101).is_ok(), "another port's took its place");
        // By whichever port it comes again, it is the same packet.
        fragments.first(&of(1), quiet, HERE, 3, 101).unwrap();
        assert!(fragments.later(&of(1), later, HERE, 101).is_ok());
        // Somebody else's are refused no more than the flood's.
        for id in 0..16 {
            fragments.first(&of(3), Fragment { id, ..quiet }, HERE, 3, 101).unwrap();
            assert!(fragments.later(&of(3), Fragment { id, ..later }, HERE, 101).is_ok());
        }
        let now_s = 101 + WAIT_S;
        for id in 0..10_000 {
            fragments.first(&of(2), Fragment { id, ..quiet }, HERE, 2, now_s).unwrap();
        }
        assert!(
            fragments.later(&of(1), later, HERE, now_s).is_ok(),
            "what is as old as may be is not too old"
        );
    }

    #[test]
    fn what_is_not_followed_is_forgotten_in_its_round() {
        let fragments = Fragments::new(64, [1, 2]);
        for id in 0..20 {
            let fragment = Fragment { id, offset: 0, len: 1000 };
            fragments.first(&Packet::EMPTY, fragment, HERE, ANY, 100).unwrap();
        }
        let mut round = Round::default();
        let mut swept_at = |ms: u64| {
            // A round, beginning then.
            (ms..ms + 4_001).for_each(|ms| fragments.sweep(&mut round, ms * 1_000_000));
            fragments.entries()
        };
        assert_eq!(swept_at(100_000), 20);
        assert_eq!(swept_at(u64::from(100 + WAIT_S) * 1000 + 1000), 0);
    }
}
