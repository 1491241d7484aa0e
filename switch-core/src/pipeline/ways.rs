//! Where packets to an address went last: what `route` finds out in half a dozen lookups that wait for each other (route,
//! next hop, neighbour, station, port), kept in one line. Private to a worker, and nothing but a memory: whoever finds
//! nothing here asks the tables, which say the same.
//!
//! # What a way is good for
//! A way is made of a snapshot, an entry of the neighbours and one of the FDB. It holds while none of them is different,
//! which is one comparison: the snapshot's generation, the epochs of both tables and that of the packets that wait are numbers
//! that only grow, so that their sum is the same only if each of them is. What only time changes (a neighbour that is to be asked again, a
//! station that ages) has its second in the way. What depends on the packet or on where it came in (its length, what is
//! isolated, the kernel's own) is compared with each.
//!
//! # Ways of routes
//! Behind one next hop there may be more destinations than are remembered. Where all of a route's packets go to the same next hop the route
//! has a way as well, under the number that the routing table says of its destinations: who finds no way to a destination
//! asks the table, and then takes that. It holds as long as any other, for numbers are those of the snapshot. Where it leads, a way to the
//! destination itself is kept for one packet in [`SELDOM`]: what many go to is soon among them, and what is scanned once pushes nobody out.
//!
//! # Who is asked first
//! Where packets go to far more destinations than are remembered, it is a guess with each whether it has a way of its own: a branch that is
//! foretold wrong, and two lines read in vain. So while routes lead most of a batch they are asked first, for some batches
//! ([`ROUTES_FIRST`]), and who has no way by his route may still have one of his own.
//!
//! # Layout
//! A way is half a line, and one serves all who go by it: where there are many routes there are few next hops, and their ways stay in the
//! first-level cache. What leads to it is a *sign*, also half a line: a destination, or a route, and the number of the way. Two signs to a set,
//! which is a line, the younger in front; so a packet asks for one line. Ways are kept one behind the other, each under a number of its own, round
//! and round: the sign of one whose place was taken names a number that is too old, and so does one of another epoch ([`Ways::turn_to`]).
//!
//! The secret of the hash keeps a hostile sender from choosing addresses that push each other out; the worst that full sets cost is the
//! lookups.

use super::View;
use super::hold::Holds;
use crate::config::BRIDGES_MAX;
use crate::config::snapshot::PortId;
use crate::prefetch::prefetch;
use crate::table::atomic::{fold, mix};
use std::hint::select_unpredictable;
use std::num::NonZeroU16;

/// Sets, 512 KiB: half of a second-level cache. Of a thousand destinations seven share their set with two others, of six thousand one in six.
const SETS: usize = 8192;
/// Ways, 128 KiB. As many as that only where each destination is its own neighbour; who has more in use looks the others up.
const WAYS: usize = 4096;
const _: () = assert!(SETS.is_power_of_two() && WAYS.is_power_of_two());
/// Ways that are remembered so that others may go by them: a few times as many as there are next hops.
const LATEST: usize = 256;

/// In place of a routing table's number, of which there are far fewer: the way is a route's.
pub(super) const OF_ROUTES: u16 = u16::MAX;
const _: () = assert!(BRIDGES_MAX < OF_ROUTES as usize);
/// One of so many packets leaves a way to its destination where its route has one. Not a power of two, as batches and rounds of
/// destinations like to be.
const SELDOM: u8 = 13;
/// Batches in which routes are asked first, after one in which they led most: what is found out in the next one is a small part of them all.
const ROUTES_FIRST: u8 = 15;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// Its neighbour's station, low 48 bits.
    pub mac: u64,
    /// The gateway's own MAC where it leaves, low 48 bits.
    pub src: u64,
    /// The last second in which it holds.
    pub until_s: u32,
    /// Bridge and VLAN that it leads to.
    pub fid: u16,
    /// The port by which it leaves.
    pub port: PortId,
    /// Longest packet, by its route and its port.
    pub mtu: u16,
    /// Where it is counted.
    pub counter: Option<NonZeroU16>,
    /// From which ports not ([`bars`]): isolated ones, as it leads to another of them; the node's kernel's, as it leads there.
    pub bars: u8,
}

/// What is barred: by a way, and by where a packet comes in. Both together bar the packet from the way.
#[inline(always)]
pub(super) fn bars(isolated: bool, to_kernel: bool) -> u8 {
    u8::from(isolated) | u8::from(to_kernel) << 1
}

/// Who goes by which way.
#[derive(Clone, Copy, Debug, Default)]
struct Sign {
    /// Destination; number of a route.
    dst: u128,
    /// The way's number; 0: of none.
    number: u64,
    /// The routing table, or [`OF_ROUTES`].
    vrf: u16,
}

/// Two signs, the younger in front.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Sign; 2]);

// Half a line, half a line, and a line.
const _: () = assert!(size_of::<Way>() == 32 && size_of::<Sign>() == 32 && size_of::<Set>() == 64);

/// Bytes that a worker's ways take.
pub const WAYS_BYTES: usize = SETS * size_of::<Set>() + WAYS * size_of::<Way>();

/// See the module.
#[derive(Debug)]
pub struct Ways {
    sets: Box<[Set; SETS]>,
    ways: Box<[Way; WAYS]>,
    /// Of what the ways are made that hold.
    epoch: u64,
    /// The number of the next way.
    next: u64,
    /// Ways with a lower number do not hold: they are made of something else, or have no place any more.
    first: u64,
    /// By station, the number of a way that leads there.
    latest: [u64; LATEST],
    secrets: [u64; 2],
    /// Packets until the next one leaves a way to its destination.
    pause: u8,
    /// Batches until destinations are asked first again.
    routes_first: u8,
}

/// So many of them, not by way of the stack.
pub(super) fn many<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    vec![T::default(); N]
        .into_boxed_slice()
        .try_into()
        .unwrap_or_else(|_| panic!("a list is as long as it was made"))
}

impl Ways {
    /// None yet.
    pub(super) fn new(secret: u64) -> Self {
        Self {
            sets: many(),
            ways: many(),
            epoch: 0,
            next: 1,
            first: 1,
            latest: [0; LATEST],
            secrets: [mix(secret), mix(!secret)],
            pause: 0,
            routes_first: 0,
        }
    }

    /// From now on ways are made of what this is the epoch of ([`epoch`]). Those that are made of anything else hold no more.
    #[inline(always)]
    pub(super) fn turn_to(&mut self, epoch: u64) {
        if self.epoch != epoch {
            (self.epoch, self.first) = (epoch, self.next);
        }
    }

    /// The set of a destination in a routing table.
    #[inline(always)]
    pub(super) fn set(&self, vrf: u16, dst: u128) -> u16 {
        let [one, other] = self.secrets;
        (fold((dst >> 64) as u64 ^ u64::from(vrf) ^ one, dst as u64 ^ other) as usize % SETS) as u16
    }

    /// Asks for a set's line: [`Ways::find`] will read it.
    #[inline(always)]
    pub(super) fn touch(&self, set: u16) {
        prefetch(&self.sets[usize::from(set) % SETS]);
    }

    /// The number of the way to a destination, if it is known and still holds.
    #[inline(always)]
    pub(super) fn find(&self, set: u16, vrf: u16, dst: u128, now_s: u32) -> Option<u64> {
        let Set([young, old]) = &self.sets[usize::from(set) % SETS];
        // Which of the two it is cannot be foretold. If both, the younger: the other was left behind by an epoch.
        let sign = select_unpredictable(young.dst == dst, young, old);
        let is_it = (sign.dst == dst) & (sign.vrf == vrf) & (sign.number >= self.first);
        (is_it & (now_s <= self.way(sign.number).until_s)).then_some(sign.number)
    }

    /// The way of a number that was found.
    #[inline(always)]
    pub(super) fn way(&self, number: u64) -> &Way {
        &self.ways[number as usize % WAYS]
    }

    /// The number of the way of a route, by what the routing table says, if it is known and still holds.
    #[inline(always)]
    pub(super) fn of_route(&self, value: u32, now_s: u32) -> Option<u64> {
        let dst = u128::from(value);
        self.find(self.set(OF_ROUTES, dst), OF_ROUTES, dst, now_s)
    }

    /// What is of a route goes by the way of this number.
    pub(super) fn lead_route(&mut self, value: u32, number: u64) {
        let dst = u128::from(value);
        self.lead(self.set(OF_ROUTES, dst), OF_ROUTES, dst, number);
    }

    /// Whether it is time to keep the way to a destination that its route led to.
    #[inline(always)]
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.pause == 0;
        self.pause = if due { SELDOM - 1 } else { self.pause - 1 };
        due
    }

    /// Whether routes are asked before destinations, until the next [`Ways::note_batch`].
    #[inline(always)]
    pub(super) fn are_routes_first(&self) -> bool {
        self.routes_first > 0
    }

    /// A batch is done: of so many packets routes led so many.
    #[inline(always)]
    pub(super) fn note_batch(&mut self, led: usize, packets: usize) {
        self.routes_first = match self.routes_first {
            0 if 2 * led > packets => ROUTES_FIRST,
            batches => batches.saturating_sub(1),
        };
    }

    /// Keeps a way, made of what [`Ways::turn_to`] was told last. Its number, or that of one which is the same.
    pub(super) fn keep(&mut self, way: Way) -> u64 {
        let latest = self.latest[way.mac as usize % LATEST];
        if latest >= self.first && *self.way(latest) == way {
            return latest;
        }
        let number = self.next;
        self.ways[number as usize % WAYS] = way;
        self.latest[way.mac as usize % LATEST] = number;
        self.next += 1;
        // The way that was here before has no place any more.
        self.first = self.first.max(self.next.saturating_sub(WAYS as u64));
        number
    }

    /// What goes to a destination goes by the way of this number, from now on: in the place of what was said of it before, or of the older sign.
    pub(super) fn lead(&mut self, set: u16, vrf: u16, dst: u128, number: u64) {
        let Set([young, old]) = &mut self.sets[usize::from(set) % SETS];
        let is_hers = young.dst == dst && young.vrf == vrf;
        if !is_hers && young.number >= self.first {
            *old = *young;
        }
        *young = Sign { dst, number, vrf };
    }
}

/// What a way that is made now is made of. Never 0, which is that of no way.
#[inline]
pub(super) fn epoch(view: &View, holds: &Holds) -> u64 {
    1 + view.snapshot.generation + view.tables.fdb.epoch() + view.tables.neigh.epoch() + holds.poked()
}
