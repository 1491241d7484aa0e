//! A table for each version of IP, asked by addresses of which those of IPv4 are IPv4-mapped (RFC 4291 §2.5.5.2).

use super::{Change, Lpm, NO_ROUTE, find_each};
use crate::table::probes::{Probes, Uncounted};
use crate::wire::hop::V4_MAPPED;

/// Prefixes that are put in before it is asked what they take: of IPv6 some 6 MiB at most, and few enough tables in between.
const PIECE: usize = 4096;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Mapped {
    v4: Lpm,
    v6: Lpm,
}

impl Mapped {
    /// The same after changes of either version: of IPv4 (keys of 32 bits, highest first), and of IPv6. What does not change is shared.
    ///
    /// # Errors
    /// It would take more than `most` bytes: how many it took when that was noticed, which is as soon as [`PIECE`] more prefixes would have
    /// been in it.
    pub fn changed(&self, changes: [Vec<Change>; 2], most: usize) -> Result<Self, usize> {
        let mut next = self.clone();
        for (n, mut changes) in changes.into_iter().enumerate() {
            changes.sort_by_key(|change| (change.key, change.len));
            for piece in changes.chunks_mut(PIECE) {
                let table = if n == 0 { &mut next.v4 } else { &mut next.v6 };
                *table = table.changed(piece);
                let bytes = next.bytes();
                if bytes > most && piece.iter().any(|change| change.value != NO_ROUTE) {
                    return Err(bytes);
                }
            }
        }
        Ok(next)
    }

    /// The value of the longest prefix that an address is in, or [`super::NO_ROUTE`].
    #[inline(always)]
    pub fn find_with(&self, ip: u128, probes: impl Probes) -> u32 {
        if is_v4(ip) { self.v4.find_v4_with(ip as u32, probes) } else { self.v6.find_with(ip, probes) }
    }

    /// The same of each of several, whose cache misses overlap.
    #[inline(always)]
    pub fn find_each(&self, values: &mut [u32], ip: impl Fn(usize) -> u128) {
        match (0..values.len()).filter(|n| is_v4(ip(*n))).count() {
            v4 if v4 == values.len() => find_each(values, |n| (&self.v4, ip(n) as u32)),
            0 => find_each(values, |n| (&self.v6, ip(n))),
            // Both at once are rare.
            _ => {
                let each = values.iter_mut().enumerate();
                each.for_each(|(n, value)| *value = self.find_with(ip(n), Uncounted));
            }
        }
    }

    /// Bytes that both take.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

fn is_v4(ip: u128) -> bool {
    ip >> 32 == V4_MAPPED >> 32
}
