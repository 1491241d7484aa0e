//! What a port may say of itself, as numbers: which MACs and which addresses are its own.

use super::gateway::{is_v4, link_local, to_bits};
use super::{GUARD_ADDRESSES_MAX, GUARD_MACS_MAX};
use switch_api::{Prefix, SourceGuard};

/// fe80::/10 (RFC 4291 §2.5.6).
const LINK_LOCAL: u128 = 0xfe80 << 112;
const LINK_LOCAL_MASK: u128 = 0xffc0 << 112;

/// A [`SourceGuard`] for workers. Addresses are 128 bits, IPv4-mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    macs: Box<[u64]>,
    /// The link-local address of each MAC.
    link_locals: Box<[u128]>,
    networks: Box<[Network]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    bits: u128,
    mask: u128,
    /// IPv4's addresses lie inside ::/0 as numbers, and in no network of IPv6's.
    is_v4: bool,
}

impl Guard {
    /// Of what was declared.
    pub fn new(declared: &SourceGuard) -> Self {
        let macs: Box<[u64]> = declared.macs.iter().map(|mac| mac.to_u64()).collect();
        Self {
            link_locals: macs.iter().map(|mac| link_local(*mac)).collect(),
            networks: declared.addresses.iter().map(network).collect(),
            macs,
        }
    }

    /// Whether it may send from this MAC (low 48 bits).
    #[inline]
    pub fn has_mac(&self, mac: u64) -> bool {
        self.macs.is_empty() || self.macs.contains(&mac)
    }

    /// Whether it may have this address.
    #[inline]
    pub fn has_address(&self, address: u128) -> bool {
        let is_v4 = is_v4(address);
        let inside = |network: &Network| address & network.mask == network.bits && network.is_v4 == is_v4;
        self.networks.is_empty() || self.networks.iter().any(inside) || self.is_own_link_local(address)
    }

    /// Where no MAC is named, every link-local address may be what one of its MACs makes.
    fn is_own_link_local(&self, address: u128) -> bool {
        address & LINK_LOCAL_MASK == LINK_LOCAL
            && (self.link_locals.is_empty() || self.link_locals.contains(&address))
    }
}

fn network(prefix: &Prefix) -> Network {
    let behind = prefix.bits() - prefix.len;
    let mask = u128::MAX.checked_shl(behind.into()).unwrap_or(0);
    Network { bits: to_bits(prefix.address) & mask, mask, is_v4: prefix.address.is_ipv4() }
}

/// What is wrong with one, in sentences.
pub(super) fn check(guard: &SourceGuard, mut problem: impl FnMut(String)) {
    if guard.macs.is_empty() && guard.addresses.is_empty() {
        problem("a source guard names MACs, addresses or both".into());
    }
    if guard.macs.len() > GUARD_MACS_MAX {
        problem(format!("at most {GUARD_MACS_MAX} MACs"));
    }
    if guard.addresses.len() > GUARD_ADDRESSES_MAX {
        problem(format!("at most {GUARD_ADDRESSES_MAX} networks of addresses"));
    }
    for mac in guard.macs.iter().filter(|mac| mac.is_group() || mac.is_zero()) {
        problem(format!("{mac} is no station's address"));
    }
    for prefix in guard.addresses.iter().filter(|prefix| **prefix != prefix.network()) {
        problem(format!(
            "{prefix} names a host in a network: write {} or {}",
            prefix.network(),
            Prefix::host(prefix.address)
        ));
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;
    use switch_api::Mac;

    fn prefix() -> impl Strategy<Value = Prefix> {
        let v4 =
            (any::<[u8; 4]>(), 0..=32u8).prop_map(|(octets, len)| Prefix { address: octets.into(), len });
        let v6 =
            (any::<[u8; 16]>(), 0..=128u8).prop_map(|(octets, len)| Prefix { address: octets.into(), len });
        prop_oneof![v4, v6].prop_map(|prefix| prefix.network())
    }

    proptest! {
        /// As `Prefix::contains` says it, one by one.
        #[test]
        fn agrees_with_the_prefixes(addresses in proptest::collection::vec(prefix(), 1..5), near in 0..5usize, flip in 0..129u32, any_v4: [u8; 4]) {
            let guard = Guard::new(&SourceGuard { macs: vec![Mac([2, 0, 0, 0, 0, 1])], addresses: addresses.clone() });
            // An address at an edge of one of them, and one from anywhere.
            let of = addresses[near % addresses.len()].last();
            let at_edge = match of {
                IpAddr::V4(it) => IpAddr::V4((it.to_bits() ^ 1u32.checked_shl(flip).unwrap_or(0)).into()),
                IpAddr::V6(it) => IpAddr::V6((it.to_bits() ^ 1u128.checked_shl(flip).unwrap_or(0)).into()),
            };
            for address in [at_edge, any_v4.into()] {
                let own = address == "fe80::ff:fe00:1".parse::<IpAddr>().unwrap();
                let plain = own || addresses.iter().any(|prefix| prefix.contains(address));
                prop_assert_eq!(guard.has_address(to_bits(address)), plain, "{} in {:?}", address, addresses);
            }
        }
    }

    #[test]
    fn the_link_local_address_is_the_macs() {
        let of = |macs, addresses| Guard::new(&SourceGuard { macs, addresses });
        let (own, other) = (to_bits("fe80::ff:fe00:1".parse().unwrap()), to_bits("fe80::1".parse().unwrap()));
        let net: Prefix = "10.0.0.0/24".parse().unwrap();
        let bound = of(vec![Mac([2, 0, 0, 0, 0, 1])], vec![net]);
        assert!(bound.has_address(own) && !bound.has_address(other));
        assert!(of(vec![], vec![net]).has_address(other), "of some MAC");
        assert!(
            of(vec![Mac([2, 0, 0, 0, 0, 1])], vec![]).has_address(other),
            "addresses are not asked about"
        );
        assert!(!bound.has_mac(2) && bound.has_mac(0x0200_0000_0001) && of(vec![], vec![net]).has_mac(2));
    }
}
