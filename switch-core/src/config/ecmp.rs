//! Several next hops for one route. Which of them a flow takes is decided by its hash: each of [`BUCKETS`]
//! buckets of hashes belongs to the next hop that scores highest in it (rendezvous hashing, Thaler and
//! Ravishankar 1998, with weights). A next hop that goes takes only its own buckets with it, and one that
//! comes takes only those it wins: all other flows stay where they are.

use std::sync::Arc;

/// Buckets of hashes: each of [`NEXT_HOPS_MAX`] next hops has some, and of few each about its share (with 128 nine of 64 had none, and
/// of two one could have 40 of 100 flows). A KiB for each set of next hops.
pub const BUCKETS: usize = 1024;
/// From a bucket whose next hop is gone to the next one that is tried: odd, so that it comes by all of them.
const STRIDE: usize = 37;
/// Next hops of one route; Linux and most routers stop between 16 and 256.
pub const NEXT_HOPS_MAX: usize = 64;

/// A next hop as the pipeline knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// Bridge and VLAN.
    pub fid: u16,
    /// Its address.
    pub ip: u128,
    /// Its share.
    pub weight: u16,
}

/// Next hops that share the flows of a route. Cheap to clone: snapshots share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    hops: Arc<[Hop]>,
    /// Empty if there is one hop only.
    buckets: Arc<[u8]>,
}

impl Group {
    /// Of at least one and at most [`NEXT_HOPS_MAX`].
    pub fn new(hops: &[Hop]) -> Self {
        let best = |bucket| {
            let scores = hops.iter().map(|hop| score(hop, bucket)).enumerate();
            scores.max_by(|(_, one), (_, other)| one.total_cmp(other)).map_or(0, |(n, _)| n as u8)
        };
        let buckets = if hops.len() > 1 { BUCKETS as u64 } else { 0 };
        Self { hops: hops.into(), buckets: (0..buckets).map(best).collect() }
    }

    /// Whether it makes a difference which flow it is.
    #[inline(always)]
    pub fn needs_hash(&self) -> bool {
        !self.buckets.is_empty()
    }

    /// The next hop of flows with this hash.
    #[inline]
    pub fn hop(&self, hash: u32) -> Option<Hop> {
        let hop = self.buckets.get(hash as usize % BUCKETS).map_or(0, |hop| usize::from(*hop));
        self.hops.get(hop).copied()
    }

    /// The next hop of flows with this hash among those of which `is_there` says so: [`Group::hop`] as long as that one is. The flows
    /// of one that is not are shared out to the others, about by their weights; no other flow moves. None if nobody is there.
    #[inline]
    pub fn hop_among(&self, hash: u32, mut is_there: impl FnMut(&Hop) -> bool) -> Option<Hop> {
        let mut gone = 0u64;
        for step in 0..self.buckets.len() {
            let n = self.buckets[(hash as usize + step * STRIDE) % BUCKETS];
            if gone >> n & 1 == 1 {
                continue;
            }
            let hop = self.hops.get(usize::from(n))?;
            if is_there(hop) {
                return Some(*hop);
            }
            gone |= 1 << n;
            if gone.count_ones() as usize == self.hops.len() {
                break;
            }
        }
        None
    }

    /// All of them.
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }
}

/// −weight / ln(u), with u evenly spread between 0 and 1 by next hop and bucket.
fn score(hop: &Hop, bucket: u64) -> f64 {
    let words = [hop.ip as u64, (hop.ip >> 64) as u64, u64::from(hop.fid), bucket];
    let hash = words.into_iter().fold(0x9e37_79b9_7f4a_7c15, |hash: u64, word| {
        let hash = (hash ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (hash ^ hash >> 29).wrapping_mul(0x94d0_49bb_1331_11eb)
    });
    let spread = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(hop.weight) / spread.ln()
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hops(weights: &[u16]) -> Vec<Hop> {
        weights
            .iter()
            .enumerate()
            .map(|(n, weight)| Hop { fid: 1, ip: 0xffff_0a00_0001 + n as u128, weight: *weight })
            .collect()
    }

    proptest! {
        /// A next hop that goes moves its own flows and no others.
        #[test]
        fn only_the_lost_ones_flows_move(weights in proptest::collection::vec(1u16..9, 2..12), gone: prop::sample::Index) {
            let all = hops(&weights);
            let gone = gone.index(all.len());
            let left: Vec<Hop> = all.iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, hop)| *hop).collect();
            let (before, after) = (Group::new(&all), Group::new(&left));
            for hash in 0..BUCKETS as u32 {
                let was = before.hop(hash).unwrap();
                if was != all[gone] { prop_assert_eq!(after.hop(hash), Some(was)); }
            }
        }
    }

    proptest! {
        /// The same for those that are there at the moment: whoever is keeps his flows, and all others find somebody.
        #[test]
        fn only_flows_of_who_is_not_there_move(weights in proptest::collection::vec(1u16..9, 2..12), there: u16) {
            let all = hops(&weights);
            let group = Group::new(&all);
            let is_there = |hop: &Hop| there >> (hop.ip as u16 & 15) & 1 == 1;
            for hash in 0..BUCKETS as u32 {
                let was = group.hop(hash).unwrap();
                let now = group.hop_among(hash, is_there);
                let some = (0..BUCKETS as u32).any(|hash| is_there(&group.hop(hash).unwrap()));
                prop_assert!(now.is_none_or(|hop| is_there(&hop)));
                prop_assert_eq!(now.is_some(), some);
                if is_there(&was) { prop_assert_eq!(now, Some(was)); }
            }
        }
    }

    #[test]
    fn flows_of_who_is_gone_are_shared() {
        let group = Group::new(&hops(&[1, 1, 1, 1]));
        let gone = group.hop(0).unwrap();
        let mut shares = std::collections::BTreeMap::new();
        for hash in (0..BUCKETS as u32).filter(|hash| group.hop(*hash) == Some(gone)) {
            *shares.entry(group.hop_among(hash, |hop| *hop != gone).unwrap().ip).or_insert(0) += 1;
        }
        assert!(shares.len() == 3 && shares.values().all(|share| (50..=125).contains(share)), "{shares:?}");
    }

    #[test]
    fn every_next_hop_has_flows() {
        for count in 2..=NEXT_HOPS_MAX {
            let group = Group::new(&hops(&vec![1; count]));
            let of = |hop: &Hop| (0..BUCKETS as u32).filter(|hash| group.hop(*hash) == Some(*hop)).count();
            let shares: Vec<usize> = group.hops().iter().map(of).collect();
            let (even, least) = (BUCKETS / count, *shares.iter().min().unwrap());
            assert!(least * 4 > even, "{least} of {even} buckets, of {count} next hops");
        }
        // Of two, whoever they are, neither has much more than the other.
        for n in 0..200 {
            let pair = [0x10_0000, 0x11_0007 * n].map(|ip| Hop { fid: 1, ip, weight: 1 });
            let group = Group::new(&pair);
            let first = (0..BUCKETS as u32).filter(|hash| group.hop(*hash) == Some(pair[0])).count();
            assert!((440..=584).contains(&first), "{first} of {BUCKETS} for the first of {pair:?}");
        }
    }

    #[test]
    fn nobody_is_found_where_nobody_is() {
        let group = Group::new(&hops(&[1, 2, 3]));
        let mut asked = 0;
        let found = group.hop_among(5, |_| {
            asked += 1;
            false
        });
        assert_eq!((found, asked), (None, 3), "each is asked about once");
    }

    #[test]
    fn shares_follow_the_weights() {
        let group = Group::new(&hops(&[1, 3]));
        let second = (0..BUCKETS as u32).filter(|hash| group.hop(*hash).unwrap().weight == 3).count();
        assert!((720..=816).contains(&second), "{second} of {BUCKETS} instead of about 768");
        let one = Group::new(&hops(&[5]));
        assert!(!one.needs_hash() && one.hop(77).is_some());
    }
}
