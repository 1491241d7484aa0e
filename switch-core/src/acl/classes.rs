//! Classes of what a transport header says: services (protocol with destination port, or with ICMP type and code) and source
//! ports. What no rule tells apart has one class, found by one look into a table.

use super::Header;
use crate::prefetch::prefetch;
use crate::table::probes::{self, Probes, Uncounted};
use crate::wire::ip::{ICMP, ICMPV6, SCTP, TCP, UDP};
use std::collections::BTreeSet;
use std::ops::Range;
use switch_api::{AclRule, IcmpKind, IpProtocol, Protocol};

/// Numbers there are: ports, or types with codes.
const NUMBERS: usize = 1 << 16;
/// Protocols whose packets have a number.
const NUMBERED: [u8; 5] = [TCP, UDP, SCTP, ICMP, ICMPV6];
/// The class of what is not IP.
const NOT_IP: u16 = 0;
/// The class of protocols that no rule names.
const OTHER: u16 = 1;
/// Source ports: the class of what has none.
const PORTLESS: u16 = 0;

/// Starts of classes among the numbers, as rules' ranges ask for them.
#[derive(Debug)]
struct Cuts(BTreeSet<u32>);

impl Cuts {
    fn new() -> Self {
        Self(BTreeSet::from([0]))
    }

    fn cut(&mut self, range: &Range<u32>) {
        self.0.extend([range.start, range.end].into_iter().filter(|at| (*at as usize) < NUMBERS));
    }

    /// A table of classes from `first` on, and how many there are; no table for a single one.
    fn table(&self, first: u16) -> (Box<[u16]>, u16) {
        let len = self.0.len() as u16;
        if len == 1 {
            return (Box::default(), len);
        }
        let mut table = Vec::with_capacity(NUMBERS);
        let ends = self.0.iter().skip(1).map(|start| *start as usize).chain([NUMBERS]);
        ends.zip(first..).for_each(|(end, class)| table.resize(end, class));
        (table.into(), len)
    }
}

/// Numbers that a rule is about, if it is not about all.
fn numbers(rule: &AclRule) -> Vec<Range<u32>> {
    let of_icmp = |kind: &IcmpKind| {
        let high = u32::from(kind.kind) << 8;
        kind.code.map_or(high..high + 256, |code| high + u32::from(code)..high + u32::from(code) + 1)
    };
    let ports = rule.destination_ports.iter().map(|range| u32::from(range.first)..u32::from(range.last) + 1);
    ports.chain(rule.icmp.iter().map(of_icmp)).collect()
}

fn source_ports(rule: &AclRule) -> impl Iterator<Item = Range<u32>> {
    rule.source_ports.iter().map(|range| u32::from(range.first)..u32::from(range.last) + 1)
}

/// Classes of services.
#[derive(Debug)]
pub(super) struct Services {
    /// The class of a protocol's packets without a number.
    by_protocol: Box<[u16; 256]>,
    /// Class by number, of each numbered protocol; empty where no rule tells numbers apart.
    tables: [Box<[u16]>; NUMBERED.len()],
    /// Classes of each numbered protocol's numbers.
    of: [Range<u16>; NUMBERED.len()],
    pub len: u16,
}

impl Default for Services {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

impl Services {
    /// Classes that tell apart what the rules tell apart. There are fewer than 16 bits hold: every number of every numbered
    /// protocol by itself would be 5 × 65 536, and [`Self::count`] is asked first.
    pub fn new<'a>(rules: impl Iterator<Item = &'a AclRule> + Clone) -> Self {
        let mut by_protocol = Box::new([OTHER; 256]);
        let mut next = OTHER + 1;
        let named = rules.clone().filter_map(|rule| rule.protocol).map(|IpProtocol(protocol)| protocol);
        for protocol in named.chain(NUMBERED) {
            let class = &mut by_protocol[usize::from(protocol)];
            if *class == OTHER {
                *class = next;
                next += 1;
            }
        }
        let mut of = NUMBERED.map(|_| 0..0);
        let mut tables: [Box<[u16]>; NUMBERED.len()] = Default::default();
        for ((cuts, of), table) in cuts(rules).iter().zip(&mut of).zip(&mut tables) {
            let (made, len) = cuts.table(next);
            (*of, *table) = (next..next + len, made);
            next += len;
        }
        Self { by_protocol, tables, of, len: next }
    }

    /// How many classes rules need.
    pub fn count<'a>(rules: impl Iterator<Item = &'a AclRule> + Clone) -> usize {
        usize::from(OTHER) + 1 + 256 + cuts(rules).iter().map(|cuts| cuts.0.len()).sum::<usize>()
    }

    /// The class of a packet.
    #[inline]
    pub fn of(&self, header: &Header, probes: impl Probes) -> u16 {
        match header.ends {
            Some(_) => self.of_ip(header.protocol, header.number, probes),
            None => NOT_IP,
        }
    }

    /// The same of one that is IP.
    #[inline(always)]
    pub fn of_ip(&self, protocol: u8, number: Option<u16>, probes: impl Probes) -> u16 {
        match (numbered(protocol), number) {
            (Some(n), Some(number)) => {
                probes.probe();
                *self.tables[n].get(usize::from(number)).unwrap_or(&self.of[n].start)
            }
            _ => probes::at(&*self.by_protocol, usize::from(protocol), probes),
        }
    }

    /// Asks for what [`Self::of_ip`] will read.
    #[inline(always)]
    pub fn touch(&self, protocol: u8, number: Option<u16>) {
        if let (Some(n), Some(number)) = (numbered(protocol), number) {
            prefetch(self.tables[n].as_ptr().wrapping_add(usize::from(number)));
        }
    }

    /// The first port of each class of a protocol's destination ports.
    pub fn starts(&self, protocol: Protocol) -> Vec<u16> {
        let table = &self.tables[protocol as usize];
        let begins = |(n, class): &(usize, &u16)| *n == 0 || table[n - 1] != **class;
        table.iter().enumerate().filter(begins).map(|(n, _)| n as u16).collect()
    }

    /// The classes that a rule is about.
    pub fn ranges(&self, rule: &AclRule) -> Vec<Range<u16>> {
        let Some(IpProtocol(protocol)) = rule.protocol else { return std::iter::once(0..self.len).collect() };
        let numberless = self.by_protocol[usize::from(protocol)];
        let numbered = NUMBERED.iter().position(|numbered| *numbered == protocol);
        let (numbers, numberless) = (numbers(rule), std::iter::once(numberless..numberless + 1));
        match numbered {
            None => numberless.collect(),
            Some(n) if numbers.is_empty() => numberless.chain([self.of[n].clone()]).collect(),
            Some(n) => {
                let class = |number: u32| *self.tables[n].get(number as usize).unwrap_or(&self.of[n].start);
                numbers.into_iter().map(|range| class(range.start)..class(range.end - 1) + 1).collect()
            }
        }
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.by_protocol) + self.tables.iter().map(|table| size_of_val(&**table)).sum::<usize>()
    }
}

/// The place of a protocol whose packets have a number among [`NUMBERED`].
#[inline(always)]
fn numbered(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(0),
        UDP => Some(1),
        SCTP => Some(2),
        ICMP => Some(3),
        ICMPV6 => Some(4),
        _ => None,
    }
}

fn cuts<'a>(rules: impl Iterator<Item = &'a AclRule>) -> [Cuts; NUMBERED.len()] {
    let mut cuts = NUMBERED.map(|_| Cuts::new());
    for rule in rules {
        let Some(IpProtocol(protocol)) = rule.protocol else { continue };
        if let Some(n) = NUMBERED.iter().position(|numbered| *numbered == protocol) {
            numbers(rule).iter().for_each(|range| cuts[n].cut(range));
        }
    }
    cuts
}

/// Classes of source ports.
#[derive(Debug)]
pub(super) struct Sources {
    table: Box<[u16]>,
    pub len: u16,
}

impl Default for Sources {
    fn default() -> Self {
        Self { table: Box::default(), len: PORTLESS + 2 }
    }
}

impl Sources {
    /// Classes that tell apart what the rules tell apart; see [`Self::count`].
    pub fn new<'a>(rules: impl Iterator<Item = &'a AclRule>) -> Self {
        let (table, len) = Self::cuts(rules).table(PORTLESS + 1);
        Self { table, len: PORTLESS + 1 + len }
    }

    /// How many classes rules need.
    pub fn count<'a>(rules: impl Iterator<Item = &'a AclRule>) -> usize {
        usize::from(PORTLESS) + 1 + Self::cuts(rules).0.len()
    }

    fn cuts<'a>(rules: impl Iterator<Item = &'a AclRule>) -> Cuts {
        let mut cuts = Cuts::new();
        rules.flat_map(source_ports).for_each(|range| cuts.cut(&range));
        cuts
    }

    /// The class of a source port.
    #[inline]
    pub fn of(&self, port: Option<u16>, probes: impl Probes) -> u16 {
        port.map_or(PORTLESS, |port| {
            probes.probe();
            *self.table.get(usize::from(port)).unwrap_or(&(PORTLESS + 1))
        })
    }

    /// Asks for what [`Self::of`] will read.
    #[inline(always)]
    pub fn touch(&self, port: Option<u16>) {
        prefetch(self.table.as_ptr().wrapping_add(usize::from(port.unwrap_or_default())));
    }

    /// The classes that a rule is about.
    pub fn ranges(&self, rule: &AclRule) -> Vec<Range<u16>> {
        if rule.source_ports.is_empty() {
            return std::iter::once(0..self.len).collect();
        }
        let class = |port: u32| self.of(Some(port as u16), Uncounted);
        source_ports(rule).map(|range| class(range.start)..class(range.end - 1) + 1).collect()
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.table)
    }
}
