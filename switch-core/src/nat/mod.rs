//! Network address translation (ADR 0026): what a flow's first packet is told, compiled for looking up. What is not in a
//! rule costs nothing but these looks, once a flow: a destination is looked for three times in one map, a source once in
//! another, and then the source rules in their order, of which there are few.

use crate::table::flow::bound::Rules;
use crate::wire::packet::Packet;
use hashbrown::{HashMap, HashSet};

/// Rules there can be: what a person or an agent writes for a node, and what fits the number in a flow's entry.
pub const NATS_MAX: usize = 4096;
/// Source rules of them: they are asked one by one for the first packet of a flow, a few nanoseconds each.
pub const SOURCE_RULES_MAX: usize = 64;
/// Networks or addresses that one rule names, of each kind: for the same reason.
pub const RULE_ITEMS_MAX: usize = 64;
/// Ports tried for one flow, as many as Linux tries (`nf_nat_core.c`): if of so many, chosen at random, none is free, nearly
/// all are in use for this peer.
pub const PROBES_MAX: u32 = 128;

/// A network: addresses of 128 bits that begin like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its address.
    pub ip: u128,
    /// What is the same in all of its addresses.
    pub mask: u128,
}

impl Network {
    /// Whether an address is in it.
    #[inline]
    pub fn has(&self, ip: u128) -> bool {
        (self.ip ^ ip) & self.mask == 0
    }
}

/// Where what is sent to an address goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The address.
    pub ip: u128,
    /// The port; 0: the same.
    pub port: u16,
    /// Which rule says so.
    pub rule: u16,
}

/// A source rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Its routing table.
    pub vrf: u16,
    /// Its number.
    pub rule: u16,
    /// Sources; empty: all.
    pub from: Box<[Network]>,
    /// Destinations that it is not about.
    pub except: Box<[Network]>,
    /// Bridges and VLANs that it is about, by filtering identifier; none: all.
    pub out: Option<Box<[u16]>>,
    /// New sources; empty: the switch's own.
    pub to: Box<[u128]>,
    /// New ports: the first, and how many.
    pub ports: (u16, u32),
    /// The same, where the new source is the kernel's own address on a NIC that it shares.
    pub on_a_nic: (u16, u32),
}

/// What destinations are looked up by: routing table, address, protocol and port; 0 is any.
pub type Wanted = (u16, u128, u8, u16);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Where it goes.
    pub destinations: HashMap<Wanted, Target>,
    /// The same of the node's published ports, by bridge and VLAN of the uplink that they come by.
    pub published: HashMap<Wanted, Target>,
    /// Addresses that stand for another: the external one and the rule, by routing table and internal one.
    pub one_to_one: HashMap<(u16, u128), (u128, u16)>,
    /// In their order.
    pub sources: Vec<Source>,
    /// Addresses that are translation's, by routing table: nobody has them.
    pub addresses: HashSet<(u16, u128)>,
    /// Addresses that are the kernel's own, on NICs that it shares.
    pub nics: HashSet<u128>,
    /// Where rules count, by their number: flows made, then packets for which no port was free.
    pub slots: HashMap<u16, u32>,
}

/// Another source for a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSource {
    /// The address.
    pub ip: u128,
    /// Ports to choose from, the first and how many; none: the port stays.
    pub ports: Option<(u16, u32)>,
    /// Which rule says so.
    pub rule: u16,
}

impl Compiled {
    /// Whether there is no rule.
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.published.is_empty()
    }

    /// Whether some rule is about a routing table.
    pub fn concerns(&self, vrf: u16) -> bool {
        let of = |key: &(u16, u128)| key.0 == vrf;
        self.destinations.keys().any(|(of, ..)| *of == vrf)
            || self.addresses.iter().any(of)
            || self.one_to_one.keys().any(of)
            || self.sources.iter().any(|rule| rule.vrf == vrf)
    }

    /// Where a packet to `dst` goes.
    #[inline]
    pub fn destination(&self, vrf: u16, dst: u128, protocol: u8, port: u16) -> Option<Target> {
        if self.destinations.is_empty() {
            return None;
        }
        let find = |protocol, port| self.destinations.get(&(vrf, dst, protocol, port)).copied();
        find(protocol, port).or_else(|| find(protocol, 0)).or_else(|| find(0, 0))
    }

    /// Where what comes by an uplink to a published port goes.
    #[inline]
    pub fn published(&self, fid: u16, dst: u128, protocol: u8, port: u16) -> Option<Target> {
        self.published.get(&(fid, dst, protocol, port)).copied()
    }

    /// Whether an address is translation's.
    pub fn has_address(&self, vrf: u16, ip: u128) -> bool {
        self.addresses.contains(&(vrf, ip))
    }

    /// Which other source a flow's packets get that leave by `out`. `own` is the switch's address there; `hash` chooses among
    /// several, by the source alone.
    #[inline]
    pub fn source(
        &self,
        vrf: u16,
        packet: &Packet,
        out: u16,
        own: impl Fn() -> Option<u128>,
        hash: impl Fn(u128) -> u64,
    ) -> Option<NewSource> {
        let (src, dst) = (packet.src, packet.dst);
        if let Some((ip, rule)) = self.one_to_one.get(&(vrf, src)) {
            return Some(NewSource { ip: *ip, ports: None, rule: *rule });
        }
        for rule in self.sources.iter().filter(|rule| rule.vrf == vrf) {
            let from = rule.from.is_empty() || rule.from.iter().any(|network| network.has(src));
            let here = rule.out.as_ref().is_none_or(|bridge| bridge.contains(&out));
            if !from || !here || rule.except.iter().any(|network| network.has(dst)) {
                continue;
            }
            let of_version = |ip: &&u128| (**ip >> 32 == 0xffff) == packet.is_v4();
            let addresses = rule.to.iter().filter(of_version);
            let count = addresses.clone().count() as u64;
            let ip = match (rule.to.is_empty(), count) {
                (true, _) => own(),
                (_, 0) => None,
                // A host's flows all have one (RFC 4787 REQ-2).
                _ => addresses.clone().nth((hash(src) % count) as usize).copied(),
            };
            // A rule without an address of this version is not about it.
            if let Some(ip) = ip {
                let ports = if self.nics.contains(&ip) { rule.on_a_nic } else { rule.ports };
                return Some(NewSource { ip, ports: Some(ports), rule: rule.rule });
            }
        }
        None
    }

    /// Where the rules of a binding count.
    pub fn slots_of(&self, rules: Rules) -> impl Iterator<Item = u32> {
        let numbers = [rules.destination, rules.source].into_iter().filter(|rule| *rule != 0);
        numbers.filter_map(|rule| self.slots.get(&rule).copied())
    }
}

/// The part of a range that belongs to one of several workers: its first, and how many. A worker takes ports from its own part
/// alone, so that no two ask for one. Of fewer ports than workers all have all: whose flow is there first has one for that peer.
pub fn part_of((first, count): (u16, u32), worker: u16, workers: u16) -> (u16, u32) {
    if (1..u32::from(workers)).contains(&count) {
        return (first, count);
    }
    let cut = |n: u16| (u64::from(count) * u64::from(n) / u64::from(workers.max(1))) as u32;
    let (from, to) = (cut(worker.min(workers)), cut((worker + 1).min(workers.max(1))));
    (first.wrapping_add(from as u16), to - from)
}

/// The ports of a range in the order in which they are tried for a flow with this hash.
pub fn tries((first, count): (u16, u32), hash: u64) -> impl Iterator<Item = u16> {
    let start = (hash >> 32) as u32 % count.max(1);
    // A short range is tried whole. In a long one each next try is anywhere, so that full stretches are not walked through.
    let stride = if count <= PROBES_MAX { 1 } else { 1 + (hash as u32 >> 8) % (count - 1) };
    let place = move |n: u32| (u64::from(start) + u64::from(n) * u64::from(stride)) % u64::from(count.max(1));
    (0..count.min(PROBES_MAX)).map(move |n| first.wrapping_add(place(n) as u16))
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_range_are_all_of_it_and_nobodys_twice() {
        for (range, workers) in
            [((1024, 64_512), 1), ((1024, 64_512), 3), ((65_530, 6), 4), ((7, 1), 1), ((0, 65_536), 64)]
        {
            let mut seen: Vec<u32> = (0..workers)
                .map(|worker| part_of(range, worker, workers))
                .flat_map(|(first, count)| u32::from(first)..u32::from(first) + count)
                .collect();
            seen.sort_unstable();
            let whole = u32::from(range.0)..u32::from(range.0) + range.1;
            assert!(seen.into_iter().eq(whole), "{range:?} for {workers}");
        }
    }

    #[test]
    fn of_fewer_ports_than_workers_all_have_all() {
        for (count, workers) in [(1, 2), (3, 4), (5, 64)] {
            assert!((0..workers).all(|worker| part_of((9, count), worker, workers) == (9, count)));
        }
    }

    #[test]
    fn a_short_range_is_tried_whole_and_a_long_one_up_to_a_limit() {
        for hash in [0, 1 << 40 | 77 << 8, u64::MAX] {
            let mut short: Vec<u16> = tries((65_500, 36), hash).collect();
            short.sort_unstable();
            assert!(short.into_iter().eq(65_500..=65_535));
            let long: Vec<u16> = tries((1024, 64_512), hash).collect();
            assert_eq!(long.len(), PROBES_MAX as usize);
            assert!(long.iter().all(|port| *port >= 1024));
        }
        assert_eq!(tries((9, 0), 5).count(), 0);
    }
}
