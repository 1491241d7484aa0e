//! What the program of an uplink takes, in its maps: networks in a trie, and ports of addresses that are shared with the kernel.
//! Changed while it runs, an entry at a time, each of which the kernel changes at once.

use crate::config::gateway::to_bits;
use crate::config::taken::{SharedPorts, Taken};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError};
use std::collections::BTreeMap;
use switch_api::Prefix;

/// Networks that a program knows, as in program.c: those of all gateway addresses there can be, as many addresses of the
/// kernel's own in them, and those of translation.
pub const NETWORKS_MAX: usize = 16_384;

const _: () = assert!(NETWORKS_MAX >= 2 * crate::config::ADDRESSES_MAX + crate::nat::NATS_MAX);

/// Address, IP protocol, and the port without its lowest 6 bits: `struct share` of program.c.
type Share = [u8; 20];

/// 64 ports each, one bit a port.
type Shares = BTreeMap<Share, u64>;

/// What a program takes.
#[derive(Debug)]
pub struct Networks {
    trie: LpmTrie<MapData, [u8; 16], u32>,
    shares: HashMap<MapData, Share, u64>,
    told: Taken,
    told_shares: Shares,
}

impl Networks {
    /// Those of a program that was loaded just now: none.
    pub fn new(trie: Map, shares: Map) -> Option<Self> {
        let (trie, shares) = (LpmTrie::try_from(trie).ok()?, HashMap::try_from(shares).ok()?);
        Some(Self { trie, shares, told: Taken::new(), told_shares: Shares::new() })
    }

    /// The program takes no packets any more to what is not `taken`.
    pub fn narrow(&mut self, taken: &Taken, ports: &SharedPorts) -> Result<(), MapError> {
        let gone = self.told.keys().filter(|prefix| !taken.contains_key(*prefix)).copied();
        for prefix in gone.collect::<Vec<_>>() {
            self.trie.remove(&key(prefix))?;
            self.told.remove(&prefix);
        }
        let wanted = shares(ports);
        let kept: Shares = self
            .told_shares
            .iter()
            .map(|(share, bits)| (*share, bits & wanted.get(share).copied().unwrap_or(0)))
            .collect();
        self.share(&kept)
    }

    /// The program takes what is `taken`, and nothing else.
    pub fn become_all(&mut self, taken: &Taken, ports: &SharedPorts) -> Result<(), MapError> {
        self.narrow(taken, ports)?;
        self.share(&shares(ports))?;
        // What is not ours first: it lies in what is.
        let mut new: Vec<_> =
            taken.iter().filter(|(prefix, whose)| self.told.get(*prefix) != Some(*whose)).collect();
        new.sort_by_key(|(_, whose)| **whose);
        for (prefix, whose) in new {
            self.trie.insert(&key(*prefix), *whose as u32, 0)?;
            self.told.insert(*prefix, *whose);
        }
        Ok(())
    }

    fn share(&mut self, wanted: &Shares) -> Result<(), MapError> {
        for (share, bits) in wanted.iter().filter(|(_, bits)| **bits != 0) {
            if self.told_shares.get(share) != Some(bits) {
                self.shares.insert(share, bits, 0)?;
                self.told_shares.insert(*share, *bits);
            }
        }
        let gone = self.told_shares.keys().filter(|share| wanted.get(*share).is_none_or(|bits| *bits == 0));
        for share in gone.copied().collect::<Vec<_>>() {
            self.shares.remove(&share)?;
            self.told_shares.remove(&share);
        }
        Ok(())
    }
}

fn key(prefix: Prefix) -> Key<[u8; 16]> {
    let len = 128 - u32::from(prefix.bits()) + u32::from(prefix.len);
    Key::new(len, to_bits(prefix.network().address).to_be_bytes())
}

fn shares(ports: &SharedPorts) -> Shares {
    let mut shares = Shares::new();
    for ((ip, protocol), ranges) in ports {
        for port in ranges.iter().flat_map(|range| range.first..=range.last) {
            let mut share = [0; 20];
            share[..16].copy_from_slice(&to_bits(*ip).to_be_bytes());
            share[16..].copy_from_slice(&(u32::from(*protocol) | u32::from(port >> 6) << 8).to_ne_bytes());
            *shares.entry(share).or_default() |= 1 << (port & 63);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use switch_api::PortRange;

    #[test]
    fn a_network_is_as_the_program_looks_it_up() {
        let v4 = key("10.1.0.7/16".parse().unwrap());
        assert_eq!((v4.prefix_len(), v4.data()[10..].to_vec()), (112, vec![255, 255, 10, 1, 0, 0]));
        let v6 = key("fd00:1::/32".parse().unwrap());
        assert_eq!((v6.prefix_len(), v6.data()[..4].to_vec()), (32, vec![0xfd, 0, 0, 1]));
    }

    #[test]
    fn ports_are_bits_as_the_program_looks_them_up() {
        let ranges = [PortRange { first: 80, last: 80 }, PortRange { first: 127, last: 129 }];
        let ports = SharedPorts::from([(("192.0.2.5".parse().unwrap(), 6), ranges.into())]);
        let found: Vec<_> = shares(&ports).into_iter().collect();
        let share = |word: u32| -> Share {
            let mut share = [0; 20];
            share[10..16].copy_from_slice(&[255, 255, 192, 0, 2, 5]);
            share[16..].copy_from_slice(&(6 | word << 8).to_ne_bytes());
            share
        };
        assert_eq!(found, [(share(1), 1 << 16 | 1 << 63), (share(2), 0b11)]);
        assert!(shares(&SharedPorts::new()).is_empty());
    }
}
