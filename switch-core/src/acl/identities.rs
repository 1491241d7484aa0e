//! Classes of addresses: every address belongs to the longest of the networks that rules name, and all addresses that are
//! in the same of these networks have one identity.

use super::compile::TooMuch;
use crate::policy::to_bits;
use crate::table::lpm::{Change, Lpm, VALUE_MAX};
use crate::wire::hop::V4_MAPPED;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use switch_api::Prefix;

/// The identity of addresses that no rule names, and of what has no address.
pub(super) const NOBODY: usize = 0;

/// A network's number.
pub(super) type Term = u32;

/// A network as a key of a prefix table: whether it is IPv6, its bits from the highest on, and how many.
type Place = (bool, u128, u8);

fn place(prefix: &Prefix) -> Place {
    let bits = to_bits(prefix.network().address);
    if prefix.address.is_ipv4() { (false, bits << 96, prefix.len) } else { (true, bits, prefix.len) }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Identities {
    v4: Lpm,
    v6: Lpm,
    /// Networks by identity: those that its addresses are in, in order.
    terms: Vec<Vec<Term>>,
    numbers: HashMap<Place, Term>,
}

impl Identities {
    /// Identities that tell apart what these networks tell apart, unless the prefix tables have no numbers for so many.
    pub fn new<'a>(prefixes: impl Iterator<Item = &'a Prefix>) -> Result<Self, TooMuch> {
        let mut numbers: HashMap<Place, Term> = HashMap::new();
        let mut sorted: BTreeMap<Place, Term> = BTreeMap::new();
        for prefix in prefixes {
            let (next, place) = (numbers.len() as Term, place(prefix));
            sorted.insert(place, *numbers.entry(place).or_insert(next));
        }
        let mut by_terms: HashMap<Vec<Term>, u32> = HashMap::from([(Vec::new(), NOBODY as u32)]);
        let mut terms: Vec<Vec<Term>> = vec![Vec::new()];
        let mut changes: [Vec<Change>; 2] = Default::default();
        // Networks that the one at hand is in; they come sorted, so that these are above it on the stack.
        let mut stack: Vec<(Place, Term)> = Vec::new();
        for (place, term) in sorted {
            while stack.last().is_some_and(|(above, _)| !covers(above, &place)) {
                stack.pop();
            }
            stack.push((place, term));
            let mut here: Vec<Term> = stack.iter().map(|(_, term)| *term).collect();
            here.sort_unstable();
            let next = terms.len() as u32;
            let identity = *by_terms.entry(here).or_insert_with_key(|here| {
                terms.push(here.clone());
                next
            });
            let (v6, key, len) = place;
            changes[usize::from(v6)].push(Change { key, len, value: identity + 1 });
        }
        if terms.len() > VALUE_MAX as usize {
            return Err(TooMuch::Identities(terms.len()));
        }
        let [v4, v6] = changes.map(|mut changes| Lpm::default().changed(&mut changes));
        Ok(Self { v4, v6, terms, numbers })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// Networks that an identity's addresses are in.
    pub fn terms(&self, identity: usize) -> &[Term] {
        &self.terms[identity]
    }

    /// The number of a network that rules name.
    pub fn term(&self, prefix: &Prefix) -> Term {
        self.numbers[&place(prefix)]
    }

    /// The identity of an address; IPv4 is IPv4-mapped.
    #[inline]
    pub fn of(&self, ip: u128) -> u32 {
        let is_v4 = ip >> 32 == V4_MAPPED >> 32;
        let value = if is_v4 { self.v4.find_v4(ip as u32) } else { self.v6.find(ip) };
        value.saturating_sub(1)
    }

    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

fn covers(above: &Place, below: &Place) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(above.2)).unwrap_or(0);
    above.0 == below.0 && (above.1 ^ below.1) & mask == 0
}
