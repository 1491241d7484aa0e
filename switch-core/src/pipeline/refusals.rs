//! Packets that policies stop, and those that rules with `log` decide about, told by name: the first one of a flow, and so many
//! a second; all others are counted. What was told lately is remembered in a small table of this worker's; what lost its place
//! there is told again. A packet that passes unlogged costs nothing here. What is dropped for other reasons [`super::drops`] tells.
//!
//! What is to be told is one of three, and the three together are all of it: told ([`Event::PolicyDropTold`]), the first of its
//! flow and not told for want of room ([`Event::PolicyDropUntold`]), or not the first ([`Event::PolicyDropAgain`]); and so with
//! [`Event::AclLogTold`].

use super::Now;
use crate::acl::Ruling;
use crate::config::snapshot::PortId;
use crate::counter::{Counters, DropReason, Event};
use crate::policy::Slot;
use crate::wire::ethernet::{IPV4, IPV6};
use crate::wire::hop;
use crate::wire::ip::{self, SCTP, TCP, UDP, Version};
use arrayvec::ArrayVec;

/// First packets of either kind told by one worker in a second: as many as a person reads, and a scan makes more of.
pub const TOLD_A_SECOND: u32 = 50;
/// Of these in one turn; the worker's turn hands them on.
pub const TOLD_A_TURN: usize = 16;
/// Flows that are remembered as told: 32 KiB a worker, and what a node's clients try at one time.
const REMEMBERED: usize = 2048;
/// Seconds after which a flow is told of again: it is still being tried.
const AGAIN_S: u32 = 60;

/// Who wanted to speak with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// From; IPv4 is IPv4-mapped.
    pub src: u128,
    /// To.
    pub dst: u128,
    /// Protocol number.
    pub protocol: u8,
    /// Source and destination port, or the identifier of a query; 0 where there are none.
    pub ports: [u16; 2],
}

impl Who {
    /// Reads it of a packet that was stopped; none if it is not IP, or cannot be read. A later fragment has no ports.
    #[cold]
    pub(super) fn read(packet: &[u8], ethertype: u16) -> Option<Self> {
        let version = match ethertype {
            IPV4 => Version::V4,
            IPV6 => Version::V6,
            _ => return None,
        };
        let (read, hop) = (ip::parse(packet, version).ok()?, hop::read(packet, version).ok()?);
        let transport = packet.get(read.transport_at..read.end)?;
        let port = |at| transport.get(at..at + 2).and_then(|port: &[u8]| port.first_chunk().copied());
        let ports = match read.protocol {
            TCP | UDP | SCTP if !read.later_fragment => [port(0)?, port(2)?].map(u16::from_be_bytes),
            _ => [0; 2],
        };
        Some(Self { src: hop.src, dst: hop.dst, protocol: read.protocol, ports })
    }

    /// All of it, to be hashed: 40 bits of the last are taken.
    pub(super) fn words(&self) -> [u64; 5] {
        let Self { src, dst, protocol, ports: [from, to] } = *self;
        let tail = u64::from(protocol) << 32 | u64::from(from) << 16 | u64::from(to);
        [(src >> 64) as u64, src as u64, (dst >> 64) as u64, dst as u64, tail]
    }
}

/// A packet that policies stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When.
    pub now: Now,
    /// The port it came in by.
    pub from: PortId,
    /// The port it was to leave by; none: it was to be flooded, and its sender may not send it at all.
    pub to: Option<PortId>,
    /// Who; none: it is not IP, or cannot be read.
    pub who: Option<Who>,
    /// The drop's name.
    pub reason: DropReason,
    /// The rule that decided; none: no rule is about it.
    pub slot: Option<Slot>,
}

/// A packet about which a rule decided whose decisions are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// When.
    pub now: Now,
    /// The port it came in by.
    pub from: PortId,
    /// The port it was to leave by; none: it was to be flooded.
    pub to: Option<PortId>,
    /// Who; none: it is not IP, or cannot be read.
    pub who: Option<Who>,
    /// What was decided.
    pub ruling: Ruling,
}

/// Told, not told, and told lately.
type Kinds = [Event; 3];

/// See the module.
#[derive(Debug)]
pub struct Telling<T> {
    kinds: Kinds,
    /// What was told, by hash of the flow, and until when it is not told again.
    seen: Box<[(u64, u32)]>,
    /// What is to be handed on.
    told: ArrayVec<T, TOLD_A_TURN>,
    second: u32,
    left: u32,
}

/// Of packets that were stopped.
pub type Refusals = Telling<Refused>;
/// Of packets about which a rule with `log` decided.
pub type Logs = Telling<Logged>;

impl Default for Refusals {
    fn default() -> Self {
        Self::new([Event::PolicyDropTold, Event::PolicyDropUntold, Event::PolicyDropAgain])
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self::new([Event::AclLogTold, Event::AclLogUntold, Event::AclLogAgain])
    }
}

impl<T> Telling<T> {
    /// With the events that count what is told, untold, and told before.
    pub(super) fn new(kinds: Kinds) -> Self {
        Self {
            kinds,
            seen: vec![(0, 0); REMEMBERED].into(),
            told: ArrayVec::new(),
            second: 0,
            left: TOLD_A_SECOND,
        }
    }

    /// Whether nothing is to be told.
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        self.told.is_empty()
    }

    /// Whether one more could be told now, were it the first of its flow.
    #[inline(always)]
    pub fn has_room(&self, now: Now) -> bool {
        !self.told.is_full() && (self.left > 0 || self.second != now.s())
    }

    /// There is something to tell of a packet of the flow with this hash. Whether it is told.
    #[cold]
    #[inline(never)]
    pub fn note(&mut self, hash: u64, now: Now, what: T, counters: &Counters) -> bool {
        let now_s = now.s();
        let [_, untold, again] = self.kinds;
        // The lowest bit of a flow's hash is always set.
        let place = &mut self.seen[(hash >> 1) as usize % REMEMBERED];
        if place.0 == hash && now_s < place.1 {
            counters.event(again).add(1);
            return false;
        }
        if self.second != now_s {
            (self.second, self.left) = (now_s, TOLD_A_SECOND);
        }
        if self.left == 0 || self.told.is_full() {
            counters.event(untold).add(1);
            return false;
        }
        self.left -= 1;
        *place = (hash, now_s + AGAIN_S);
        self.told.push(what);
        true
    }

    /// Hands on what is to be told; `take` says whether it was taken.
    #[cold]
    pub fn hand_on(&mut self, counters: &Counters, mut take: impl FnMut(T) -> bool) {
        let [told, untold, _] = self.kinds;
        for what in self.told.drain(..) {
            counters.event(if take(what) { told } else { untold }).add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(second: u64) -> Refused {
        let now = Now { ns: second * 1_000_000_000 };
        Refused { now, from: 1, to: None, who: None, reason: DropReason::PolicyEgress, slot: Some(1) }
    }

    fn note(refusals: &mut Refusals, hash: u64, second: u64, counters: &Counters) -> bool {
        let refused = refused(second);
        refusals.note(hash, refused.now, refused, counters)
    }

    fn handed(refusals: &mut Refusals, counters: &Counters) -> usize {
        let mut handed = 0;
        refusals.hand_on(counters, |_| {
            handed += 1;
            true
        });
        handed
    }

    #[test]
    fn the_first_of_a_flow_is_told_up_to_a_limit_and_all_are_counted() {
        let (mut refusals, counters) = (Refusals::default(), Counters::new(4));
        let counted = |event| counters.event(event).get();
        for _ in 0..10 {
            note(&mut refusals, 7, 1, &counters);
        }
        assert_eq!((handed(&mut refusals, &counters), counted(Event::PolicyDropAgain)), (1, 9));
        // A scan: every flow is another one.
        let mut told = 1;
        for hash in 100..1100 {
            note(&mut refusals, hash, 1, &counters);
            told += handed(&mut refusals, &counters);
        }
        assert_eq!(told as u32, TOLD_A_SECOND);
        assert_eq!(counted(Event::PolicyDropUntold), 1001 - u64::from(TOLD_A_SECOND));
        let all = [Event::PolicyDropTold, Event::PolicyDropUntold, Event::PolicyDropAgain];
        assert_eq!(all.map(counted).iter().sum::<u64>(), 1010, "none is unaccounted for");
        // What found no room is still to be told; what was told is told again after a while.
        note(&mut refusals, 1099, 2, &counters);
        note(&mut refusals, 7, 2, &counters);
        assert_eq!(handed(&mut refusals, &counters), 1);
        note(&mut refusals, 7, 1 + u64::from(AGAIN_S), &counters);
        assert_eq!(handed(&mut refusals, &counters), 1);
    }

    #[test]
    fn a_turn_hands_on_only_so_many_and_what_is_not_taken_is_counted() {
        let (mut refusals, counters) = (Refusals::default(), Counters::new(4));
        let said = (0..100).filter(|hash| note(&mut refusals, *hash, 1, &counters)).count();
        assert_eq!(said, TOLD_A_TURN);
        let mut room = 3;
        refusals.hand_on(&counters, |_| {
            room -= 1;
            room >= 0
        });
        assert!(refusals.is_quiet());
        let counted = |event| counters.event(event).get();
        assert_eq!((counted(Event::PolicyDropTold), counted(Event::PolicyDropUntold)), (3, 97));
        assert!(room < 0 && room == 3 - TOLD_A_TURN as i32);
    }
}
