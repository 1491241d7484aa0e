//! The networks that the program of an uplink takes packets to, in its trie; changed while it runs, an entry at a time, each of
//! which the kernel changes at once.

use crate::config::gateway::to_bits;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData, MapError};
use std::collections::BTreeMap;
use switch_api::Prefix;

/// Networks that a program knows, as in program.c: those of all gateway addresses there can be, and as many addresses of the
/// kernel's own in them.
pub const NETWORKS_MAX: usize = 2 * crate::config::ADDRESSES_MAX;

/// What a program takes: networks behind the switch; and what it does not, though it is in one of them.
pub type Behind = BTreeMap<Prefix, bool>;

/// A program's networks.
#[derive(Debug)]
pub struct Networks {
    trie: LpmTrie<MapData, [u8; 16], u32>,
    told: Behind,
}

impl Networks {
    /// Those of a program that was loaded just now: none.
    pub fn new(map: Map) -> Option<Self> {
        LpmTrie::try_from(map).ok().map(|trie| Self { trie, told: Behind::new() })
    }

    /// The program takes no packets any more to what is not `behind` the switch.
    pub fn narrow(&mut self, behind: &Behind) -> Result<(), MapError> {
        let gone = self.told.keys().filter(|prefix| !behind.contains_key(*prefix)).copied();
        for prefix in gone.collect::<Vec<_>>() {
            self.trie.remove(&key(prefix))?;
            self.told.remove(&prefix);
        }
        Ok(())
    }

    /// The program takes what is `behind` the switch, and nothing else.
    pub fn become_all(&mut self, behind: &Behind) -> Result<(), MapError> {
        self.narrow(behind)?;
        // What is not ours first: it lies in what is.
        let mut new: Vec<_> =
            behind.iter().filter(|(prefix, is)| self.told.get(*prefix) != Some(*is)).collect();
        new.sort_by_key(|(_, is)| **is);
        for (prefix, is) in new {
            self.trie.insert(&key(*prefix), u32::from(*is), 0)?;
            self.told.insert(*prefix, *is);
        }
        Ok(())
    }
}

fn key(prefix: Prefix) -> Key<[u8; 16]> {
    let len = 128 - u32::from(prefix.bits()) + u32::from(prefix.len);
    Key::new(len, to_bits(prefix.network().address).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_as_the_program_looks_it_up() {
        let v4 = key("10.1.0.7/16".parse().unwrap());
        assert_eq!((v4.prefix_len(), v4.data()[10..].to_vec()), (112, vec![255, 255, 10, 1, 0, 0]));
        let v6 = key("fd00:1::/32".parse().unwrap());
        assert_eq!((v6.prefix_len(), v6.data()[..4].to_vec()), (32, vec![0xfd, 0, 0, 1]));
    }
}
