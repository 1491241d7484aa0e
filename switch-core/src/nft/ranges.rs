//! Networks as the ranges that a set of intervals takes: none overlaps another, none touches another.

use std::net::IpAddr;
use switch_api::Prefix;

/// Addresses `first..=last` of one IP version, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The lowest.
    pub first: u128,
    /// The highest.
    pub last: u128,
}

/// The ranges of all networks of one IP version, in their order.
pub fn ranges<'a>(prefixes: impl IntoIterator<Item = &'a Prefix>, v4: bool) -> Vec<Range> {
    let of_version = prefixes.into_iter().filter(|prefix| prefix.address.is_ipv4() == v4);
    let mut all: Vec<Range> = of_version
        .map(|prefix| Range { first: number(prefix.network().address), last: number(prefix.last()) })
        .collect();
    all.sort();
    let mut merged: Vec<Range> = Vec::new();
    for range in all {
        match merged.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// An address of that version, as it stands in a packet.
pub fn bytes(number: u128, v4: bool) -> Vec<u8> {
    if v4 { (number as u32).to_be_bytes().to_vec() } else { number.to_be_bytes().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The dull twin walks all networks.
        #[test]
        fn what_is_in_a_network_is_in_a_range(
            networks in prop::collection::vec((any::<bool>(), 0u128..1 << 12, 0u8..=128), 0..12),
            asked in 0u128..1 << 12,
        ) {
            let networks: Vec<Prefix> = networks.into_iter().map(|(v4, bits, len)| match v4 {
                true => Prefix { address: IpAddr::V4((bits as u32).into()), len: 20 + len / 11 },
                false => Prefix { address: IpAddr::V6(bits.into()), len },
            }).collect();
            for v4 in [true, false] {
                let found = ranges(&networks, v4);
                let address = if v4 { IpAddr::V4((asked as u32).into()) } else { IpAddr::V6(asked.into()) };
                let is_in = found.iter().any(|range| (range.first..=range.last).contains(&asked));
                prop_assert_eq!(is_in, networks.iter().any(|network| network.contains(address)));
                for pair in found.windows(2) {
                    prop_assert!(pair[0].last + 1 < pair[1].first, "{:?}", found);
                }
            }
        }
    }

    #[test]
    fn everything_is_a_range() {
        let all: Prefix = "::/0".parse().unwrap();
        assert_eq!(ranges([&all], false), [Range { first: 0, last: u128::MAX }]);
        assert_eq!(bytes(0x0a00_0001, true), [10, 0, 0, 1]);
    }
}
