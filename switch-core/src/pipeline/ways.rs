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
//! Two ways to a set, the younger in front. The secret of the hash keeps a hostile sender from choosing addresses that push
//! each other out; the worst that full sets cost is the lookups.

use super::View;
use super::hold::Holds;
use crate::config::BRIDGES_MAX;
use crate::config::snapshot::PortId;
use crate::prefetch::prefetch;
use crate::table::atomic::{fold, mix};
use std::num::NonZeroU16;

/// Sets; with two ways in each 512 KiB, half of a second-level cache. Of a thousand destinations three in a hundred share their set with two
/// others.
const SETS: usize = 4096;
const _: () = assert!(SETS.is_power_of_two());

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
#[repr(align(64))]
pub(super) struct Way {
    /// Destination; number of a route.
    pub dst: u128,
    /// Its neighbour's station, low 48 bits.
    pub mac: u64,
    /// The gateway's own MAC where it leaves, low 48 bits.
    pub src: u64,
    /// Of all that it was made of; 0 if it was not.
    pub epoch: u64,
    /// The last second in which it holds.
    pub until_s: u32,
    /// The routing table, or [`OF_ROUTES`].
    pub vrf: u16,
    /// Bridge and VLAN that it leads to.
    pub fid: u16,
    /// The port by which it leaves.
    pub port: PortId,
    /// Longest packet, by its route and its port.
    pub mtu: u16,
    /// Where it is counted.
    pub counter: Option<NonZeroU16>,
    /// Not from an isolated port.
    pub isolated: bool,
    /// Not from the node's kernel: it leads there.
    pub to_kernel: bool,
}

// A line.
const _: () = assert!(size_of::<Way>() == 64);

/// Bytes that a worker's ways take.
pub const WAYS_BYTES: usize = SETS * size_of::<[Way; 2]>();

/// See the module.
#[derive(Debug)]
pub struct Ways {
    sets: Box<[[Way; 2]]>,
    secrets: [u64; 2],
    /// Packets until the next one leaves a way to its destination.
    pause: u8,
    /// Batches until destinations are asked first again.
    routes_first: u8,
}

impl Ways {
    /// None yet.
    pub(super) fn new(secret: u64) -> Self {
        let secrets = [mix(secret), mix(!secret)];
        Self { sets: vec![[Way::default(); 2]; SETS].into(), secrets, pause: 0, routes_first: 0 }
    }

    /// The set of a destination in a routing table.
    #[inline(always)]
    pub(super) fn set(&self, vrf: u16, dst: u128) -> u16 {
        let [one, other] = self.secrets;
        (fold((dst >> 64) as u64 ^ u64::from(vrf) ^ one, dst as u64 ^ other) as usize % SETS) as u16
    }

    /// Asks for a set's lines: [`Ways::find`] will read them.
    #[inline(always)]
    pub(super) fn touch(&self, set: u16) {
        let [young, old] = &self.sets[usize::from(set) % SETS];
        prefetch(young);
        prefetch(old);
    }

    /// The way to a destination, if it is known and still holds.
    #[inline(always)]
    pub(super) fn find(&self, set: u16, epoch: u64, vrf: u16, dst: u128, now_s: u32) -> Option<&Way> {
        let is_it = |way: &Way| (way.dst == dst) & (way.epoch == epoch) & (way.vrf == vrf);
        let [young, old] = &self.sets[usize::from(set) % SETS];
        let way = if is_it(young) { young } else { Some(old).filter(|way| is_it(way))? };
        (now_s <= way.until_s).then_some(way)
    }

    /// The way of a route, by what the routing table says, if it is known and still holds.
    #[inline(always)]
    pub(super) fn of_route(&self, value: u32, epoch: u64, now_s: u32) -> Option<&Way> {
        let dst = u128::from(value);
        self.find(self.set(OF_ROUTES, dst), epoch, OF_ROUTES, dst, now_s)
    }

    /// Keeps a way as that of a route.
    pub(super) fn keep_of_route(&mut self, value: u32, way: Way) {
        let dst = u128::from(value);
        self.keep(self.set(OF_ROUTES, dst), Way { dst, vrf: OF_ROUTES, ..way });
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

    /// Keeps a way, in the place of its predecessor or of the older one.
    pub(super) fn keep(&mut self, set: u16, way: Way) {
        let [young, old] = &mut self.sets[usize::from(set) % SETS];
        let is_hers = young.dst == way.dst && young.vrf == way.vrf;
        if !is_hers && young.epoch == way.epoch {
            *old = *young;
        }
        *young = way;
    }
}

/// What a way that is made now is made of. Never 0, which is that of no way.
#[inline]
pub(super) fn epoch(view: &View, holds: &Holds) -> u64 {
    1 + view.snapshot.generation + view.tables.fdb.epoch() + view.tables.neigh.epoch() + holds.poked()
}
