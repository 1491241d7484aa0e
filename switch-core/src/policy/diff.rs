//! What a change of policies, or of what else judges, does to first packets, judged by the tables before it and after it: by the same
//! lookup as the packets themselves.
//!
//! A pair of ends needs to be judged only if one of them has another epoch afterwards. Pairs about which the same
//! is to be asked, before and after, have the same answer, which is looked for once; what remains is bounded, and
//! what is beyond the bound is counted.

use super::{Compiled, End, Question, Slot, to_bits};
use crate::wire::hop::V4_MAPPED;
use crate::wire::ip::{ICMP, SCTP, TCP, UDP};
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::rc::Rc;
use switch_api::{Cidr, Effect, Peer, PolicySpec, PortsChange, Protocol};

/// Most pairs that are judged for one answer: some 100 ms of the control thread. 500 workloads with an address of
/// each family make as many.
pub const PAIRS_MAX: usize = 1 << 19;
/// Most questions times kinds of ports, for the same reason.
const JUDGED_MAX: usize = 1 << 22;
/// Most blocks of addresses that are judged as ends: a person's policies name fewer.
pub const BLOCKS_MAX: usize = 256;

/// What first packets are judged by.
pub trait World {
    /// What is asked about them, whatever their ports.
    type Asked: Clone + Eq + Hash;
    /// A number made of all that is said of a port.
    fn epoch(&self, port: u16) -> u64;
    /// The first port of each range of a protocol's destination ports that is not told apart.
    fn starts(&self, protocol: Protocol) -> BTreeSet<u16>;
    /// What is asked about first packets between two ends.
    fn ask(&self, from: End, to: End) -> Self::Asked;
    /// What is said of a packet with this protocol and, if it has one, this destination port: the rule that lets it pass, none if nobody
    /// has anything to say; else the rule that does not.
    fn answer(&self, asked: &Self::Asked, protocol: u8, port: Option<u16>) -> Result<Option<Slot>, Slot>;
}

impl World for Compiled {
    type Asked = Question;

    fn epoch(&self, port: u16) -> u64 {
        self.subject(port).map_or(0, |subject| subject.epoch)
    }

    fn starts(&self, protocol: Protocol) -> BTreeSet<u16> {
        self.classes.starts(protocol).into_iter().collect()
    }

    fn ask(&self, from: End, to: End) -> Question {
        self.question(from, to)
    }

    fn answer(&self, asked: &Question, protocol: u8, port: Option<u16>) -> Result<Option<Slot>, Slot> {
        let ends = self.ends(asked, self.class(protocol, port));
        ends.into_iter().flatten().try_fold(None, |_, verdict| verdict.map(Some))
    }
}

/// An end, before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Its address; IPv4 is IPv4-mapped.
    pub ip: u128,
    /// The number of its workload's port; none: it is no workload's.
    pub port: Option<(u16, u16)>,
}

impl Ends {
    fn before(self) -> End {
        End { port: self.port.map(|(before, _)| before), ip: self.ip }
    }

    fn after(self) -> End {
        End { port: self.port.map(|(_, after)| after), ip: self.ip }
    }
}

/// Ports that neither table tells apart.
#[derive(Clone, Copy, Debug)]
struct Kind {
    ports: PortsChange,
    protocol: u8,
    /// One of them; none: they are no ports.
    port: Option<u16>,
}

/// What becomes of first packets of some ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Whether they pass.
    pub effect: Effect,
    /// The rule that decides afterwards; none: nobody is isolated.
    pub slot: Option<Slot>,
    /// The ports, in order.
    pub ports: Vec<PortsChange>,
}

/// A pair of ends, by their places in the list that was asked about.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
    /// What becomes of it.
    pub changed: Rc<Vec<Changed>>,
}

/// Two compiled tables, and what was found out about their differences.
#[allow(missing_debug_implementations, reason = "what is asked need not be shown")]
pub struct Diff<'a, W: World> {
    before: &'a W,
    after: &'a W,
    kinds: Vec<Kind>,
    known: HashMap<[W::Asked; 2], Rc<Vec<Changed>>>,
    /// Pairs that are still judged.
    pairs_left: usize,
    /// Pairs that were not judged: the change is about too many.
    pub unjudged: usize,
}

impl<'a, W: World> Diff<'a, W> {
    /// Of two tables.
    pub fn new(before: &'a W, after: &'a W) -> Self {
        let kinds = kinds(before, after);
        Self { before, after, kinds, known: HashMap::new(), pairs_left: PAIRS_MAX, unjudged: 0 }
    }

    /// What the tables say of a first packet: before, and after.
    pub fn judge(&self, from: Ends, to: Ends, protocol: u8, port: u16) -> [Result<Option<Slot>, Slot>; 2] {
        let asked = self.questions(from, to);
        let port = Some(port);
        [self.before.answer(&asked[0], protocol, port), self.after.answer(&asked[1], protocol, port)]
    }

    /// The pairs of these ends of which the tables say something else, each told once.
    pub fn pairs(&mut self, ends: &[Ends], mut tell: impl FnMut(Pair)) {
        let touched: Vec<bool> = ends.iter().map(|end| self.is_touched(*end)).collect();
        for (n, from) in ends.iter().enumerate() {
            for (m, to) in ends.iter().enumerate() {
                if !(touched[n] || touched[m]) || from.port == to.port || is_v4(from.ip) != is_v4(to.ip) {
                    continue;
                }
                match self.pair(*from, *to) {
                    Some(changed) if !changed.is_empty() => tell(Pair { from: n, to: m, changed }),
                    Some(_) => {}
                    None => self.unjudged += 1,
                }
            }
        }
    }

    /// Whether what the policies of an end say is another thing.
    fn is_touched(&self, end: Ends) -> bool {
        end.port.is_some_and(|(before, after)| self.before.epoch(before) != self.after.epoch(after))
    }

    fn questions(&self, from: Ends, to: Ends) -> [W::Asked; 2] {
        [self.before.ask(from.before(), to.before()), self.after.ask(from.after(), to.after())]
    }

    /// What becomes of a pair; none if so many were judged already that this one is not.
    fn pair(&mut self, from: Ends, to: Ends) -> Option<Rc<Vec<Changed>>> {
        self.pairs_left = self.pairs_left.checked_sub(1)?;
        let asked = self.questions(from, to);
        if let Some(known) = self.known.get(&asked) {
            return Some(known.clone());
        }
        if (self.known.len() + 1) * self.kinds.len() > JUDGED_MAX {
            return None;
        }
        let changed = Rc::new(self.compare(&asked));
        self.known.insert(asked, changed.clone());
        Some(changed)
    }

    fn compare(&self, asked: &[W::Asked; 2]) -> Vec<Changed> {
        let mut changed: BTreeMap<(Effect, Option<Slot>), Vec<PortsChange>> = BTreeMap::new();
        for kind in &self.kinds {
            let before = self.before.answer(&asked[0], kind.protocol, kind.port);
            let after = self.after.answer(&asked[1], kind.protocol, kind.port);
            let key = match (before, after) {
                (Ok(_), Err(slot)) => (Effect::Cut, Some(slot)),
                (Err(_), Ok(slot)) => (Effect::Open, slot),
                _ => continue,
            };
            append(changed.entry(key).or_default(), kind.ports);
        }
        let each = changed.into_iter();
        each.map(|((effect, slot), ports)| Changed { effect, slot, ports }).collect()
    }
}

/// Ports behind those that are there already, as one range if they follow each other.
fn append(ports: &mut Vec<PortsChange>, more: PortsChange) {
    match ports.last_mut() {
        Some(last) if last.protocol == more.protocol && last.last.checked_add(1) == Some(more.first) => {
            last.last = more.last;
        }
        _ => ports.push(more),
    }
}

/// Ports by what either table tells apart. Later fragments are none: they are their first one's.
fn kinds<W: World>(before: &W, after: &W) -> Vec<Kind> {
    let ports = PortsChange { protocol: None, first: 0, last: u16::MAX };
    let other = Kind { ports, protocol: ICMP, port: None };
    let mut kinds = vec![other];
    for (protocol, number) in [(Protocol::Tcp, TCP), (Protocol::Udp, UDP), (Protocol::Sctp, SCTP)] {
        let starts: BTreeSet<u16> = [before, after].into_iter().flat_map(|it| it.starts(protocol)).collect();
        let mut next = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
        for first in &starts {
            let last = next.next().unwrap_or(u16::MAX);
            let ports = PortsChange { protocol: Some(protocol), first: *first, last };
            kinds.push(Kind { ports, protocol: number, port: Some(*first) });
        }
    }
    kinds
}

fn is_v4(ip: u128) -> bool {
    super::is_v4(ip)
}

/// The first and the last address of a network.
fn span(cidr: Cidr) -> (u128, u128) {
    let bits = to_bits(cidr.address());
    let host_bits = if cidr.address().is_ipv4() { 32 } else { 128 } - u32::from(cidr.prefix_len());
    let mask = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
    (bits & !mask, bits | mask)
}

/// The blocks that policies name, others that are named, and everybody, each with one address that stands for it: one that is in no smaller
/// block and not among `taken`. A block of which nothing is left is left out. At most [`BLOCKS_MAX`]; of how many
/// more there are.
pub fn blocks<'a>(
    specs: impl Iterator<Item = &'a PolicySpec>,
    others: impl Iterator<Item = Cidr>,
    taken: &BTreeSet<u128>,
) -> (Vec<(Cidr, u128)>, usize) {
    let rules = specs.flat_map(|spec| {
        let ingress = spec.ingress.iter().flat_map(|rule| &rule.from);
        ingress.chain(spec.egress.iter().flat_map(|rule| &rule.to))
    });
    let named = rules.filter_map(|peer: &Peer| peer.ip_block.as_ref());
    let named = named.flat_map(|block| block.except.iter().chain([&block.cidr]));
    let everybody = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|text| text.parse().ok());
    // By where they begin, the larger first: what lies in a block follows it.
    let all: BTreeMap<(u128, u8), (u128, Cidr)> = named
        .copied()
        .chain(others)
        .chain(everybody)
        .map(|cidr| {
            let (first, last) = span(cidr);
            ((first, cidr.prefix_len()), (last, cidr))
        })
        .collect();
    let mut found = Vec::new();
    for ((first, len), (last, cidr)) in all.iter().take(BLOCKS_MAX) {
        let within = all.range((*first, len + 1)..).take_while(|((first, _), _)| first <= last);
        let mut smaller: Vec<(u128, u128)> = within
            .filter(|(_, (_, other))| other.address().is_ipv4() == cidr.address().is_ipv4())
            .map(|((first, _), (last, _))| (*first, *last))
            .chain(taken.range(first..=last).map(|ip| (*ip, *ip)))
            .collect();
        if !cidr.address().is_ipv4() {
            // What are IPv4 addresses here are no IPv6 ones.
            smaller.push((V4_MAPPED, V4_MAPPED | u128::from(u32::MAX)));
        }
        smaller.sort_unstable();
        found.extend(free(*first, *last, &smaller).map(|ip| (*cidr, ip)));
    }
    (found, all.len().saturating_sub(BLOCKS_MAX))
}

/// The first address from `first` to `last` that is in none of the spans, which are sorted.
fn free(first: u128, last: u128, spans: &[(u128, u128)]) -> Option<u128> {
    let mut at = first;
    for (from, to) in spans {
        if *from > at {
            break;
        }
        at = at.max(to.checked_add(1)?);
    }
    (at <= last).then_some(at)
}
