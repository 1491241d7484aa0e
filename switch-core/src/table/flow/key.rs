//! A flow's key: zone, protocol, both ends. The ends are in an order of their own, so that both directions
//! have one key; which end a packet came from is a bit beside it.

use crate::table::atomic::{fold, mix};
use crate::wire::hop::V4_MAPPED;
use crate::wire::packet::{Packet, Plain};

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
        // Both: an IPv6 packet may say that it comes from an IPv4-mapped address.
        let are_v4 = ((packet.src ^ V4_MAPPED) | (packet.dst ^ V4_MAPPED)) >> 32 == 0;
        let (swapped, ends, ports) = match are_v4 {
            true => in_order_v4([packet.src as u32, packet.dst as u32], packet.ports),
            false => in_order([packet.src, packet.dst], packet.ports),
        };
        let kind = match packet.is_answer() {
            Some(answer) if swapped == answer => ASKED_BY_LOWER,
            Some(_) => ASKED_BY_HIGHER,
            None => 0,
        };
        let tail = ports << 32 | u64::from(packet.protocol) << 24 | kind << 16 | u64::from(zone);
        let [lower, higher] = ends;
        (Self { words: [lower[0], lower[1], higher[0], higher[1], tail] }, u8::from(swapped))
    }

    /// The same of a plain packet.
    #[inline(always)]
    pub fn of_plain(plain: &Plain, zone: u16) -> (Self, u8) {
        let (swapped, [lower, higher], ports) = in_order_v4([plain.src, plain.dst], plain.ports);
        let tail = ports << 32 | u64::from(plain.protocol) << 24 | u64::from(zone);
        (Self { words: [lower[0], lower[1], higher[0], higher[1], tail] }, u8::from(swapped))
    }

    /// Its ends, by side.
    #[inline]
    pub fn ends(&self) -> [End; 2] {
        let [a, b, c, d, tail] = self.words;
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        [End { ip: wide(a, b), port: (tail >> 48) as u16 }, End { ip: wide(c, d), port: (tail >> 32) as u16 }]
    }

    /// The end that is at a side, and the other one.
    #[inline]
    pub fn ends_from(&self, side: u8) -> [End; 2] {
        let [lower, higher] = self.ends();
        if side & 1 == 0 { [lower, higher] } else { [higher, lower] }
    }

    /// Protocol number.
    pub fn protocol(&self) -> u8 {
        (self.words[4] >> 24) as u8
    }

    /// Bridge or VRF.
    pub fn zone(&self) -> u16 {
        self.words[4] as u16
    }

    /// The same in another zone.
    pub fn in_zone(mut self, zone: u16) -> Self {
        self.words[4] = self.words[4] & !u64::from(u16::MAX) | u64::from(zone);
        self
    }

    /// Whether both ends have addresses of IPv4.
    #[inline(always)]
    fn is_v4(&self) -> bool {
        let [a, b, c, d, _] = self.words;
        let marks = (b ^ V4_MAPPED as u64) | (d ^ V4_MAPPED as u64);
        a | c | marks >> 32 == 0
    }

    /// Multiply and fold two words at a time, with a secret on each: whoever does not know the seeds cannot choose keys of one
    /// bucket. Of IPv4 there are no more than two words; the index, which multiplies once more with secrets of its own, spreads them. Never 0,
    /// which the index takes for no key.
    #[inline(always)]
    pub fn hash(&self, seeds: &[u64; 6]) -> u64 {
        let [a, b, c, d, tail] = self.words;
        if self.is_v4() {
            return fold((b << 32 | d & 0xffff_ffff) ^ seeds[0], tail ^ seeds[1]) | 1;
        }
        let one = fold(a ^ seeds[0], b ^ seeds[1]);
        let two = fold(c ^ seeds[2], d ^ seeds[3]);
        fold(one ^ tail ^ seeds[4], two ^ seeds[5]) | 1
    }
}

/// The reverse of [`Key::of_plain`], from a key's second, fourth and last word: a packet from the end at a side to the other one. No branch,
/// and no wider word than is there: which end is whose cannot be predicted.
#[inline(always)]
pub(super) fn plain_from([lower, higher, tail]: [u64; 3], side: u8) -> Plain {
    let mask = u32::from(side & 1).wrapping_neg();
    let differ = (lower as u32 ^ higher as u32) & mask;
    let ports = ((tail >> 32) as u32).rotate_left(16 & mask);
    Plain {
        src: lower as u32 ^ differ,
        dst: higher as u32 ^ differ,
        ports: [(ports >> 16) as u16, ports as u16],
        protocol: (tail >> 24) as u8,
    }
}

/// Ends as words of a key: whether the source is the higher one, both addresses in order, and their ports.
type Ordered = (bool, [[u64; 2]; 2], u64);

/// No branch: which end is lower cannot be predicted.
#[inline(always)]
fn in_order([src, dst]: [u128; 2], [from, to]: [u16; 2]) -> Ordered {
    let swapped = (src > dst) | ((src == dst) & (from > to));
    let mask = u128::from(swapped).wrapping_neg();
    let differ = (src ^ dst) & mask;
    let words = |ip: u128| [(ip >> 64) as u64, ip as u64];
    let ports = (from ^ to) & mask as u16;
    let ports = u64::from(from ^ ports) << 16 | u64::from(to ^ ports);
    (swapped, [words(src ^ differ), words(dst ^ differ)], ports)
}

/// The same of IPv4: an address and its port are one word, and the order that of words.
#[inline(always)]
fn in_order_v4([src, dst]: [u32; 2], [from, to]: [u16; 2]) -> Ordered {
    let end = |ip: u32, port: u16| u64::from(ip) << 16 | u64::from(port);
    let (source, destination) = (end(src, from), end(dst, to));
    let (lower, higher) = (source.min(destination), source.max(destination));
    let words = |end: u64| [0, V4_MAPPED as u64 | end >> 16];
    (source > destination, [words(lower), words(higher)], (lower & 0xffff) << 16 | higher & 0xffff)
}

/// Secrets of the hash.
pub(super) fn seeds(seed: [u64; 2]) -> [u64; 6] {
    std::array::from_fn(|i| mix(mix(seed[i % 2]).wrapping_add(i as u64)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::table::atomic::AtomicTable;
    use crate::wire::packet::Content;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// Flows as scanners and load generators number them: no two of one hash, and few more in a bucket than it has room for.
    #[test]
    fn numbered_flows_are_spread() {
        const FLOWS: u32 = 10_000;
        const SLOTS: usize = 5;
        let numbered: [fn(u32) -> [u32; 4]; 4] = [
            |n| [0x0a00_0001, 0x0a00_0002, n, 80],
            |n| [0x0a00_0001 + n, 0x0b00_0001, 80, 80],
            |n| [n << 16, 0x0b00_0001, 80, 80],
            |n| [0x0a00_0001 + n % 100, 0x0b00_0001 + n / 100, 5, 6],
        ];
        let each = 0..crate::cases::some_of(20) as u64;
        for (seed, ends) in each.flat_map(|seed| numbered.map(|ends| (seed, ends))) {
            let (table, seeds) = (AtomicTable::new(FLOWS as usize, [seed; 2]), seeds([seed; 2]));
            let (mut hashes, mut homes) = (HashSet::new(), vec![0; table.buckets()]);
            for n in 0..FLOWS {
                let [src, dst, from, to] = ends(n);
                let plain = Plain { src, dst, ports: [from as u16, to as u16], protocol: 17 };
                let hash = Key::of_plain(&plain, 1).0.hash(&seeds);
                assert!(hashes.insert(hash), "seed {seed}: two flows of one hash");
                homes[table.home(hash) as usize] += 1;
            }
            let spilled: usize = homes.iter().map(|keys: &usize| keys.saturating_sub(SLOTS)).sum();
            assert!(spilled < FLOWS as usize / 15, "seed {seed}: {spilled} are not at home");
        }
    }

    /// An address of either version; few of them, so that ends are often the same.
    fn address() -> impl Strategy<Value = u128> {
        prop_oneof![
            any::<u32>().prop_map(|ip| V4_MAPPED | u128::from(ip)),
            V4_MAPPED..V4_MAPPED + 2,
            any::<u128>()
        ]
    }

    proptest! {
        /// The short way for IPv4 orders as the one for all addresses does, and is taken for nothing else.
        #[test]
        fn ends_are_ordered_as_numbers(src in address(), dst in address(), ports in [0u16..3, 0u16..3], zone: u16) {
            let packet = Packet { src, dst, ports, protocol: 17, content: Content::Udp, ..Packet::EMPTY };
            let (key, side) = Key::of(&packet, zone);
            let (from, to) = (End { ip: src, port: ports[0] }, End { ip: dst, port: ports[1] });
            prop_assert_eq!(key.ends(), [from.min(to), from.max(to)]);
            prop_assert_eq!((side == 1, key.protocol(), key.zone()), (from > to, 17, zone));
            let is_v4 = |ip: u128| ip >> 32 == V4_MAPPED >> 32;
            if is_v4(src) && is_v4(dst) {
                let plain = Plain { src: src as u32, dst: dst as u32, ports, protocol: 17 };
                prop_assert_eq!(Key::of_plain(&plain, zone), (key, side));
                let [_, lower, _, higher, tail] = key.words;
                prop_assert_eq!(plain_from([lower, higher, tail], side), plain);
                let turned = Plain { src: plain.dst, dst: plain.src, ports: [ports[1], ports[0]], ..plain };
                prop_assert_eq!(plain_from([lower, higher, tail], side ^ 1), turned);
            }
        }
    }
}
