//! Whom rules are about ([`Term`]), and what that makes of addresses: every address belongs to the longest of the
//! prefixes that occur, and all addresses that belong to the same terms have one identity.

use super::addresses::Addresses;
use super::budget::Budget;
use super::compile::TooMuch;
use super::kinds::Kinds;
use super::{Input, Pod, is_v4, select, to_bits};
use crate::table::lpm::{Change, VALUE_MAX};
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use switch_api::{Cidr, IpBlock, LabelSelector, Peer, Protocol};

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whom<'a> {
    /// Everybody.
    Anybody,
    /// Workloads: of one namespace, or of namespaces with labels.
    Pods { own: Option<&'a str>, namespaces: Option<&'a LabelSelector>, pods: Option<&'a LabelSelector> },
    /// Addresses.
    Block(&'a IpBlock),
}

/// Whom a rule is about, of whom only workloads that call a port by a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Term<'a> {
    pub whom: Whom<'a>,
    pub named: Option<(&'a str, Protocol, u16)>,
}

/// The number of [`ANYBODY`], to whom every address belongs.
pub(super) const ANYBODY_ID: u32 = 0;
const ANYBODY: Term<'static> = Term { whom: Whom::Anybody, named: None };

impl<'a> Whom<'a> {
    /// Of a rule of a policy in `namespace`.
    pub fn of(peer: &'a Peer, namespace: &'a str) -> Self {
        match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
            (Some(block), _, _) => Self::Block(block),
            (None, None, pods) => Self::Pods { own: Some(namespace), namespaces: None, pods: pods.as_ref() },
            (None, namespaces, pods) => {
                Self::Pods { own: None, namespaces: namespaces.as_ref(), pods: pods.as_ref() }
            }
        }
    }

    /// Whether these are what a workload is, wherever it is; none: that is up to its address.
    fn means(&self, pod: &Pod, input: &Input) -> Option<bool> {
        match self {
            Self::Anybody => Some(true),
            Self::Block(_) => None,
            Self::Pods { own, namespaces, pods } => Some({
                let (namespace, labels) = (&pod.workload.namespace, &pod.workload.labels);
                own.is_none_or(|own| own == namespace)
                    && namespaces.is_none_or(|it| select::namespace(it, namespace, input.namespaces))
                    && pods.is_none_or(|it| select::pods(it, labels))
            }),
        }
    }

    /// Whether an address is among these.
    fn covers(&self, ip: u128) -> bool {
        match self {
            Self::Block(block) => {
                covers(block.cidr, ip) && !block.except.iter().any(|except| covers(*except, ip))
            }
            Self::Anybody | Self::Pods { .. } => false,
        }
    }
}

/// Terms by number.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub all: Vec<Term<'a>>,
    by_term: HashMap<Term<'a>, u32>,
}

impl<'a> Terms<'a> {
    pub fn new() -> Self {
        Self { all: vec![ANYBODY], by_term: HashMap::from([(ANYBODY, ANYBODY_ID)]) }
    }

    pub fn id(&mut self, term: Term<'a>, budget: &mut Budget) -> Result<u32, TooMuch> {
        if let Some(id) = self.by_term.get(&term) {
            return Ok(*id);
        }
        budget.hold(3 * size_of::<Term>())?;
        let id = self.all.len() as u32;
        self.all.push(term);
        self.by_term.insert(term, id);
        Ok(id)
    }
}

/// Bits of a network, left-aligned as the prefix table wants them, and their number.
fn place(cidr: Cidr) -> (bool, u128, u8) {
    let (bits, len) = (to_bits(cidr.address()), cidr.prefix_len());
    let key = if cidr.address().is_ipv4() { bits << 96 } else { bits };
    (cidr.address().is_ipv6(), key & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0), len)
}

/// Whether an address (IPv4 is IPv4-mapped) is in a network.
pub(super) fn covers(cidr: Cidr, ip: u128) -> bool {
    let (v6, key, len) = place(cidr);
    let own = if is_v4(ip) { ip << 96 } else { ip };
    v6 != is_v4(ip) && (own ^ key) & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0) == 0
}

/// What begins at a prefix.
#[derive(Debug, Default)]
struct Here {
    begins: Vec<u32>,
    ends: Vec<u32>,
    pods: Vec<u32>,
}

/// Which terms each identity belongs to, and which addresses have it.
#[derive(Debug)]
pub(super) struct Identities {
    /// By identity; sorted, without [`ANYBODY_ID`]. The first is of those to whom no term belongs.
    pub terms: Vec<Vec<u32>>,
    pub by_address: Addresses,
}

impl Identities {
    /// Identities of all addresses, unless the prefix tables have no numbers for so many. `before`: which they had.
    pub fn new(
        terms: &Terms,
        members: &Members,
        before: &Addresses,
        budget: &mut Budget,
    ) -> Result<Self, TooMuch> {
        let places = places(terms, members, budget)?;
        let mut numbers: HashMap<Vec<u32>, u32> = HashMap::from([(Vec::new(), 0)]);
        let mut by_number: Vec<Vec<u32>> = vec![Vec::new()];
        let mut changes: [Vec<Change>; 2] = Default::default();
        for (places, changes) in places.iter().zip(&mut changes) {
            walk(places, |(key, len), looked_at, terms| {
                budget.step(looked_at)?;
                let next = by_number.len() as u32;
                let number = match numbers.get(&terms) {
                    Some(number) => *number,
                    None => {
                        budget.hold(2 * (size_of_val(&*terms) + size_of::<(Vec<u32>, u32)>()))?;
                        by_number.push(terms.clone());
                        numbers.insert(terms, next);
                        next
                    }
                };
                changes.push(Change { key, len, value: number + 1 });
                if number >= VALUE_MAX { Err(TooMuch::Identities(by_number.len())) } else { Ok(()) }
            })?;
        }
        let by_address = before.saying(changes, budget)?;
        Ok(Self { terms: by_number, by_address })
    }
}

/// The prefixes that occur, and what begins at each. Each takes a place in the tree, and a change of the prefix tables.
fn places(terms: &Terms, members: &Members, budget: &mut Budget) -> Result<[Places; 2], TooMuch> {
    const PLACE_BYTES: usize = 2 * size_of::<((u128, u8), Here)>() + size_of::<Change>() + size_of::<u32>();
    let mut places: [Places; 2] = Default::default();
    for (id, term) in (0..).zip(&terms.all) {
        if let Term { whom: Whom::Block(block), named: None } = term {
            budget.hold(PLACE_BYTES * (1 + block.except.len()))?;
            here(&mut places, block.cidr).begins.push(id);
            block.except.iter().for_each(|except| here(&mut places, *except).ends.push(id));
        }
    }
    for (ip, terms) in &members.0 {
        budget.hold(PLACE_BYTES + size_of_val(&**terms))?;
        let key = if is_v4(*ip) { (*ip << 96, 32) } else { (*ip, 128) };
        let here: &mut Here = places[usize::from(!is_v4(*ip))].entry(key).or_default();
        here.pods.extend(terms);
    }
    Ok(places)
}

type Places = BTreeMap<(u128, u8), Here>;

fn here(places: &mut [Places; 2], cidr: Cidr) -> &mut Here {
    let (v6, key, len) = place(cidr);
    places[usize::from(v6)].entry((key, len)).or_default()
}

/// That an address belongs to a term, here, and in what is made of it all for each term.
const BELONGS_BYTES: usize = size_of::<u32>() + 2 * size_of::<u128>();

/// Addresses of workloads, and the terms that each belongs to for what its workload is; blocks without a named port follow from the address.
#[derive(Debug)]
pub(super) struct Members(Vec<(u128, Vec<u32>)>);

impl Members {
    pub fn new<'a>(
        terms: &Terms,
        input: &'a Input<'a>,
        kinds: &Kinds<'a>,
        budget: &mut Budget,
    ) -> Result<Self, TooMuch> {
        let by_itself =
            |term: &Term| matches!(term, Term { whom: Whom::Block(_) | Whom::Anybody, named: None });
        let asked: Vec<(u32, &Term)> = (0..).zip(&terms.all).filter(|(_, term)| !by_itself(term)).collect();
        // Those that a kind belongs to, if its workloads have the port that is named; and those of which it is up to the address.
        let may_be = |pod: &&Pod| -> Vec<(u32, &Term)> {
            asked.iter().copied().filter(|(_, term)| term.whom.means(pod, input) != Some(false)).collect()
        };
        budget.step(asked.len().saturating_mul(kinds.each.len()))?;
        let before = budget.held();
        let mut by_kind: Vec<Vec<(u32, &Term)>> = Vec::with_capacity(kinds.each.len());
        for kind in &kinds.each {
            let may_be = may_be(kind);
            budget.hold(size_of_val(&*may_be))?;
            by_kind.push(may_be);
        }
        let mut all = Vec::new();
        for (pod, kind) in kinds.pods(input) {
            let ports = &pod.workload.ports;
            let has = |(name, protocol, port): (&str, Protocol, u16)| {
                ports.iter().any(|own| (&*own.name, own.protocol, own.port) == (name, protocol, port))
            };
            let mine = by_kind[kind].iter().filter(|(_, term)| term.named.is_none_or(has));
            budget.step(by_kind[kind].len().saturating_mul(pod.addresses.len() + ports.len()))?;
            for ip in &pod.addresses {
                let is_here = |term: &Term| !matches!(term.whom, Whom::Block(_)) || term.whom.covers(*ip);
                let here = mine.clone().filter(|(_, term)| is_here(term)).map(|(id, _)| *id);
                let here: Vec<u32> = here.collect();
                budget.hold(here.len() * BELONGS_BYTES)?;
                all.push((*ip, here));
            }
        }
        // What each kind may be is gone.
        budget.let_go(before + all.iter().map(|(_, terms)| terms.len() * BELONGS_BYTES).sum::<usize>());
        Ok(Self(all))
    }
}

/// Each prefix with the terms that its addresses belong to, and how many were looked at for it. Prefixes come sorted, so that those a prefix
/// lies in are the ones above it on the stack.
fn walk(
    places: &Places,
    mut tell: impl FnMut((u128, u8), usize, Vec<u32>) -> Result<(), TooMuch>,
) -> Result<(), TooMuch> {
    let mut stack: Vec<(u128, u8, &Here)> = Vec::new();
    for ((key, len), here) in places {
        let outside = |(above, len, _): &(u128, u8, &Here)| {
            (above ^ key) & u128::MAX.checked_shl(128 - u32::from(*len)).unwrap_or(0) != 0
        };
        while stack.last().is_some_and(outside) {
            stack.pop();
        }
        stack.push((*key, *len, here));
        let all = |of: fn(&Here) -> &Vec<u32>| stack.iter().flat_map(move |(_, _, here)| of(here)).copied();
        let looked_at = stack.iter().map(|(_, _, here)| 1 + here.begins.len() + here.ends.len()).sum();
        let mut ended: Vec<u32> = all(|here| &here.ends).collect();
        ended.sort_unstable();
        let begun = all(|here| &here.begins).filter(|term| ended.binary_search(term).is_err());
        let mut terms: Vec<u32> = begun.chain(here.pods.iter().copied()).collect();
        terms.sort_unstable();
        terms.dedup();
        tell((*key, *len), looked_at, terms)?;
    }
    Ok(())
}

/// A number for each term, made of the addresses that belong to it.
pub(super) fn fingerprints(terms: &Terms, members: &Members) -> Vec<u64> {
    let mut addresses: Vec<BTreeSet<u128>> = vec![BTreeSet::new(); terms.all.len()];
    for (ip, belongs) in &members.0 {
        belongs.iter().for_each(|term| _ = addresses[*term as usize].insert(*ip));
    }
    let of = |(term, addresses): (&Term, BTreeSet<u128>)| {
        let mut hasher = DefaultHasher::new();
        match term {
            Term { whom: Whom::Anybody, named: None } => {}
            Term { whom: Whom::Block(block), named: None } => block.hash(&mut hasher),
            _ => addresses.hash(&mut hasher),
        }
        hasher.finish()
    };
    terms.all.iter().zip(addresses).map(of).collect()
}
