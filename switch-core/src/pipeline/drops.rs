//! Frames that are dropped for any reason but a rule's, told by name: the first of a flow, and so many a second; all others are
//! counted. Of what rules stop [`super::refusals`] tells, with the rule.
//!
//! Four counters together are all of it: told ([`Event::DropTold`]), not told for want of room ([`Event::DropUntold`]), not the
//! first of its flow ([`Event::DropAgain`]), and what cannot be told ([`Event::DropNameless`]). Under a flood of drops few frames are read: the rest
//! costs a comparison and a count.

use super::Now;
use super::refusals::{TOLD_A_TURN, Telling, Who};
use crate::config::snapshot::PortId;
use crate::counter::{Counters, DropReason, Event};
use crate::table::atomic::mix;
use crate::table::flow::key::Key;
use crate::wire::ethernet::{self, Ethernet};

/// Dropped frames that one worker reads in a turn: more of them could not all be told, and whoever floods a port with what is
/// dropped does not choose what that costs. A flow that goes on being dropped is read in one of the next turns.
const READ_A_TURN: u8 = TOLD_A_TURN as u8;

/// A frame that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// When.
    pub now: Now,
    /// Whose it was: the port that it is counted at.
    pub port: PortId,
    /// The drop's name.
    pub reason: DropReason,
    /// From and to which station, and what it carries; none: it is shorter than that.
    pub ethernet: Option<Ethernet>,
    /// Who wanted to speak with whom; none: it is not IP, or cannot be read.
    pub who: Option<Who>,
}

/// See the module.
#[derive(Debug)]
pub struct Drops {
    told: Telling<Dropped>,
    /// Scatter the flows in its table, so that nobody who does not know them chooses which two meet.
    seeds: [u64; 6],
    now: Now,
    /// How many more may be read in this turn.
    reads: u8,
}

impl Drops {
    /// `secret` scatters what it remembers.
    pub fn new(secret: u64) -> Self {
        let told = Telling::new([Event::DropTold, Event::DropUntold, Event::DropAgain]);
        let seeds = std::array::from_fn(|n| mix(secret ^ n as u64));
        Self { told, seeds, now: Now::default(), reads: READ_A_TURN }
    }

    /// A turn begins: so many are read again.
    #[inline(always)]
    pub fn begin_turn(&mut self, now: Now) {
        (self.now, self.reads) = (now, READ_A_TURN);
    }

    /// A frame of `port` was dropped. Of what rules stop others tell.
    #[inline]
    pub(super) fn note(&mut self, port: PortId, reason: DropReason, bytes: &[u8], counters: &Counters) {
        if reason.is_of_rules() {
            return;
        }
        if !reason.is_worth_telling() {
            return counters.event(Event::DropNameless).add(1);
        }
        if self.reads == 0 || !self.told.has_room(self.now) {
            return counters.event(Event::DropUntold).add(1);
        }
        self.read(port, reason, bytes, counters);
    }

    #[cold]
    #[inline(never)]
    fn read(&mut self, port: PortId, reason: DropReason, bytes: &[u8], counters: &Counters) {
        self.reads -= 1;
        let ethernet = ethernet::parse(bytes).ok();
        let payload = ethernet.and_then(|it| Some((bytes.get(it.payload_at()..)?, it.ethertype)));
        let who = payload.and_then(|(payload, ethertype)| Who::read(payload, ethertype));
        let dropped = Dropped { now: self.now, port, reason, ethernet, who };
        self.told.note(self.hash_of(&dropped), self.now, dropped, counters);
    }

    /// Of the flow, and of where and why it was dropped.
    fn hash_of(&self, dropped: &Dropped) -> u64 {
        let whose = u64::from(dropped.port) << 8 | dropped.reason as u64;
        let words = match (dropped.who, dropped.ethernet) {
            (Some(who), _) => {
                let [src, src_low, dst, dst_low, tail] = who.words();
                [src, src_low, dst, dst_low, tail | whose << 40]
            }
            (None, Some(it)) => [it.src, it.dst, u64::from(it.ethertype), u64::MAX, whose],
            (None, None) => [0, 0, 0, u64::MAX, whose],
        };
        Key { words }.hash(&self.seeds)
    }

    /// Whether nothing is to be told.
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        self.told.is_quiet()
    }

    /// Hands on what is to be told; `take` says whether it was taken.
    #[cold]
    pub fn hand_on(&mut self, counters: &Counters, take: impl FnMut(Dropped) -> bool) {
        self.told.hand_on(counters, take);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::refusals::TOLD_A_SECOND;

    /// UDP from 10.0.0.1 to 10.0.0.2.
    fn udp(from: u16, to: u16) -> Vec<u8> {
        let builder =
            etherparse::PacketBuilder::ethernet2([2; 6], [6; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut bytes = Vec::new();
        builder.udp(from, to).write(&mut bytes, &[0; 18]).unwrap();
        bytes
    }

    fn second(s: u64) -> Now {
        Now { ns: s * 1_000_000_000 }
    }

    fn handed(drops: &mut Drops, counters: &Counters) -> Vec<Dropped> {
        let mut handed = Vec::new();
        drops.hand_on(counters, |dropped| {
            handed.push(dropped);
            true
        });
        handed
    }

    const ALL: [Event; 4] = [Event::DropTold, Event::DropUntold, Event::DropAgain, Event::DropNameless];

    fn counted(counters: &Counters) -> [u64; 4] {
        ALL.map(|event| counters.event(event).get())
    }

    #[test]
    fn the_first_of_a_flow_is_told_with_its_place_and_its_reason() {
        let (mut drops, counters) = (Drops::new(7), Counters::new(4));
        drops.begin_turn(second(1));
        for _ in 0..3 {
            drops.note(2, DropReason::NoFlow, &udp(1000, 53), &counters);
        }
        // Another reason, another port, another flow; what is no IP; what is no frame.
        drops.note(2, DropReason::FlowState, &udp(1000, 53), &counters);
        drops.note(3, DropReason::NoFlow, &udp(1000, 53), &counters);
        drops.note(2, DropReason::NoFlow, &udp(1001, 53), &counters);
        let mut arp = udp(1, 1);
        arp[12..14].copy_from_slice(&ethernet::ARP.to_be_bytes());
        drops.note(2, DropReason::SpoofedNeighbour, &arp, &counters);
        drops.note(2, DropReason::Runt, &arp[..9], &counters);
        // What rules stop, others tell of.
        drops.note(2, DropReason::PolicyIngress, &udp(1, 1), &counters);
        drops.note(2, DropReason::NatExhausted, &udp(1, 1), &counters);
        let told = handed(&mut drops, &counters);
        assert_eq!(counted(&counters), [6, 0, 2, 0]);
        let who = told[0].who.unwrap();
        assert_eq!((told[0].port, told[0].reason, who.ports), (2, DropReason::NoFlow, [1000, 53]));
        assert_eq!(told[0].ethernet.unwrap().src, 0x0202_0202_0202);
        assert!(told[4].who.is_none() && told[4].ethernet.is_some_and(|it| it.ethertype == ethernet::ARP));
        assert!(told[5].who.is_none() && told[5].ethernet.is_none());
    }

    #[test]
    fn the_tag_of_a_vlan_hides_no_flow() {
        let (mut drops, counters) = (Drops::new(7), Counters::new(4));
        let mut tagged = udp(1000, 53);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        drops.note(1, DropReason::VlanNotMember, &tagged, &counters);
        let told = handed(&mut drops, &counters);
        assert_eq!(told[0].who.unwrap().ports, [1000, 53]);
        assert_eq!(told[0].ethernet.unwrap().tci, Some(5));
    }

    /// Whoever floods with what is dropped pays for few reads, a second has its limit, and each is counted once.
    #[test]
    fn a_flood_is_read_in_part_told_in_part_and_counted_whole() {
        let (mut drops, counters) = (Drops::new(7), Counters::new(4));
        let (mut noted, mut told) = (0, 0);
        for turn in 0..100 {
            drops.begin_turn(second(1));
            for n in 0..40 {
                drops.note(1, DropReason::FlowPortLimit, &udp(turn, n), &counters);
                noted += 1;
            }
            let handed = handed(&mut drops, &counters).len();
            assert!(handed <= usize::from(READ_A_TURN));
            told += handed;
        }
        assert_eq!(told, TOLD_A_SECOND as usize);
        assert_eq!(counted(&counters).iter().sum::<u64>(), noted);
        // The next second tells others, and of those that were told none again.
        drops.begin_turn(second(2));
        drops.note(1, DropReason::FlowPortLimit, &udp(0, 0), &counters);
        drops.note(1, DropReason::FlowPortLimit, &udp(99, 39), &counters);
        assert_eq!(handed(&mut drops, &counters)[0].who.unwrap().ports, [99, 39]);
    }

    #[test]
    fn what_no_bridge_forwards_is_counted_and_not_told() {
        let (mut drops, counters) = (Drops::new(7), Counters::new(4));
        drops.note(1, DropReason::LinkLocalGroup, &udp(1, 1), &counters);
        assert!(drops.is_quiet());
        assert_eq!(counted(&counters), [0, 0, 0, 1]);
    }
}
