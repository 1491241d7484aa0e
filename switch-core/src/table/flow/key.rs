//! A flow's key: zone, protocol, both ends. The ends are in an order of their own, so that both directions
//! have one key; which end a packet came from is a bit beside it.

use crate::table::atomic::{fold, mix};
use crate::wire::packet::{Content, Packet};

/// Five words: two addresses (lower end first), and a word of ports, protocol, zone and kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// As they lie in an entry.
    pub words: [u64; 5],
}

/// Kind of a query whose asker is the lower end; otherwise the asker is the higher one. Two stations that
/// ping each other with one identifier have two flows.
const ASKED_BY_LOWER: u64 = 1;
const ASKED_BY_HIGHER: u64 = 2;

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    /// Address, IPv4 as IPv4-mapped.
    pub ip: u128,
    /// Port; identifier of a query.
    pub port: u16,
}

impl Key {
    /// The key of a packet, and the side it comes from: 0 if its source is the lower end.
    #[inline(always)]
    pub fn of(packet: &Packet, zone: u16) -> (Self, u8) {
        let [from, to] = packet.ports;
        let swapped = (packet.src > packet.dst) | ((packet.src == packet.dst) & (from > to));
        let side = u64::from(swapped);
        let kind = match packet.content {
            Content::Query { answer } if swapped == answer => ASKED_BY_LOWER,
            Content::Query { .. } => ASKED_BY_HIGHER,
            _ => 0,
        };
        // No branch: which end is lower cannot be predicted.
        let mask = u128::from(side).wrapping_neg();
        let differ = (packet.src ^ packet.dst) & mask;
        let (lower, higher) = (packet.src ^ differ, packet.dst ^ differ);
        let ports = (from ^ to) & mask as u16;
        let (lower_port, higher_port) = (from ^ ports, to ^ ports);
        let tail = u64::from(lower_port) << 48
            | u64::from(higher_port) << 32
            | u64::from(packet.protocol) << 24
            | kind << 16
            | u64::from(zone);
        let words = [(lower >> 64) as u64, lower as u64, (higher >> 64) as u64, higher as u64, tail];
        (Self { words }, side as u8)
    }

    /// Its ends, by side.
    pub fn ends(&self) -> [End; 2] {
        let [a, b, c, d, tail] = self.words;
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        [End { ip: wide(a, b), port: (tail >> 48) as u16 }, End { ip: wide(c, d), port: (tail >> 32) as u16 }]
    }

    /// Protocol number.
    pub fn protocol(&self) -> u8 {
        (self.words[4] >> 24) as u8
    }

    /// Bridge or VRF.
    pub fn zone(&self) -> u16 {
        self.words[4] as u16
    }

    /// Multiply and fold, twice two words at a time, with a secret on each: whoever does not know the seeds
    /// cannot choose keys of one bucket. Never 0, which the index takes for no key.
    #[inline(always)]
    pub fn hash(&self, seeds: &[u64; 6]) -> u64 {
        let [a, b, c, d, tail] = self.words;
        let one = fold(a ^ seeds[0], b ^ seeds[1]);
        let two = fold(c ^ seeds[2], d ^ seeds[3]);
        fold(one ^ tail ^ seeds[4], two ^ seeds[5]) | 1
    }
}

/// Secrets of the hash.
pub(super) fn seeds(seed: [u64; 2]) -> [u64; 6] {
    std::array::from_fn(|i| mix(mix(seed[i % 2]).wrapping_add(i as u64)))
}
