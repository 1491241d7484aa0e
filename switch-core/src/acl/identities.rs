//! Classes of addresses: what rules name, networks and address sets, are *terms*; every address belongs to the longest of the networks
//! that occur, and all addresses that are in the same terms have one identity.
//!
//! A member of a set that comes or goes changes the network that it is and those that lie in it. Whatever of their new combinations
//! of terms occurred before has its identity; one that is new gets the next number, and what was not concerned is shared.

use super::ADDRESSES_MEMORY_MAX;
use super::compile::TooMuch;
use super::numbered::Numbered;
use super::sets::{CHUNK, MemberChange, Set};
use crate::policy::to_bits;
use crate::table::lpm::{Change, Mapped, NO_ROUTE, VALUE_MAX};
use crate::table::probes::{Probes, Uncounted};
use hashbrown::HashMap;
use immutable_chunkmap::map::Map;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;
use switch_api::{Name, Prefix};

/// The identity of addresses that no rule names, and of what has no address.
pub(super) const NOBODY: usize = 0;
/// Identities that may be of no address any more, beside as many as there were when all was made: then all is made anew.
const IDLE_MAX: usize = 1024;
/// Bytes that a network takes here, the room that its tree leaves free among them.
const PLACE_BYTES: usize = 2 * size_of::<(Prefix, Held)>();

/// The number of what rules name: of a network, or of a set.
pub(super) type Term = u32;

/// What a network is.
#[derive(Clone, Debug)]
struct Held {
    /// Terms that it is named by itself: a network of rules, a member of sets. Ascending.
    own: Own,
    /// The identity of its addresses that are in no longer one.
    identity: u32,
}

/// Nearly always one.
#[derive(Clone, Debug)]
enum Own {
    One(Term),
    Several(Arc<[Term]>),
}

impl Own {
    fn of(terms: &[Term]) -> Self {
        if let [one] = terms { Self::One(*one) } else { Self::Several(terms.into()) }
    }

    fn terms(&self) -> &[Term] {
        match self {
            Self::One(term) => std::slice::from_ref(term),
            Self::Several(terms) => terms,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Identities {
    by_address: Mapped,
    places: Map<Prefix, Held, CHUNK>,
    /// How many networks there are of each length, of IPv4 and of IPv6: lengths that do not occur are not looked for.
    lens: [[u32; 129]; 2],
    /// By identity the terms that its addresses are in, ascending.
    terms: Numbered<Term>,
    /// Bytes that they take: counted as they grow, for they are asked for with every change.
    terms_bytes: usize,
    networks: Arc<HashMap<Prefix, Term>>,
    sets: Arc<HashMap<Name, Term>>,
    /// How many identities there were when all was made.
    made: usize,
    /// Of those that are new since the change before: what each was made of by a term more or less.
    like: Vec<u32>,
}

impl Default for Identities {
    fn default() -> Self {
        let mut new = Self {
            by_address: Mapped::default(),
            places: Map::default(),
            lens: [[0; 129]; 2],
            terms: Numbered::default(),
            terms_bytes: 0,
            networks: Arc::default(),
            sets: Arc::default(),
            made: 1,
            like: Vec::new(),
        };
        new.number(&[]);
        new
    }
}

impl Identities {
    /// Identities that tell apart what these networks and sets tell apart, unless the prefix tables have no numbers for so many.
    pub fn new<'a>(
        networks: impl Iterator<Item = &'a Prefix>,
        sets: &[(&Name, &Set)],
    ) -> Result<Self, TooMuch> {
        let (mut new, mut named) = (Self::default(), HashMap::new());
        let mut sorted: Vec<(Prefix, Term)> = Vec::new();
        for network in networks.map(Prefix::network) {
            let next = named.len() as Term;
            sorted.push((network, *named.entry(network).or_insert(next)));
        }
        for ((name, set), term) in sets.iter().zip(named.len() as Term..) {
            Arc::make_mut(&mut new.sets).insert((*name).clone(), term);
            sorted.extend(set.members(None).map(|member| (member, term)));
            // The first member finds the identity that it is to have.
            new.number(&[term]);
        }
        sorted.sort_unstable();
        sorted.dedup();
        // Each network of rules has an identity of its own.
        if named.len() > VALUE_MAX as usize {
            return Err(TooMuch::Identities(named.len()));
        }
        new.networks = Arc::new(named);
        let mut changes: [Vec<Change>; 2] = Default::default();
        // Networks that the one at hand is in; they come sorted, so that these are above it on the stack.
        let mut stack: Vec<(Prefix, u32)> = Vec::new();
        let mut held = Vec::with_capacity(sorted.len());
        for same in sorted.chunk_by(|one, next| one.0 == next.0) {
            let place = same[0].0;
            while stack.last().is_some_and(|(above, _)| !covers(above, &place)) {
                stack.pop();
            }
            let own: Vec<Term> = same.iter().map(|(_, term)| *term).collect();
            let mut here = own.clone();
            here.extend(stack.last().iter().flat_map(|(_, above)| new.terms(*above as usize)));
            here.sort_unstable();
            here.dedup();
            let identity = new.number(&here);
            new.has_room()?;
            stack.push((place, identity));
            new.lens[usize::from(place.address.is_ipv6())][usize::from(place.len)] += 1;
            changes[usize::from(place.address.is_ipv6())].push(change(&place, identity + 1));
            held.push((place, Held { own: Own::of(&own), identity }));
        }
        let by_address = new.made(changes)?;
        let (places, made) = (Map::default().insert_many(held), new.len());
        new.terms.share();
        Ok(Self { by_address, places, made, ..new })
    }

    /// These after members of sets came and went. Identities that are new have the highest numbers. None: so many may be of no address
    /// any more that all is to be made anew.
    pub fn changed(&self, changes: &[MemberChange]) -> Result<Option<Self>, TooMuch> {
        let (mut next, mut lookups) = (self.clone(), [Vec::new(), Vec::new()]);
        next.like.clear();
        for MemberChange { set, member, is } in changes {
            if let Some(term) = self.sets.get(set) {
                next.put(*member, *term, *is, &mut lookups[usize::from(member.address.is_ipv6())]);
            }
        }
        if next.len() > 2 * self.made + IDLE_MAX {
            return Ok(None);
        }
        next.has_room()?;
        next.by_address = next.made(lookups)?;
        next.terms.share();
        Ok(Some(next))
    }

    /// A set has a member more, or one less.
    fn put(&mut self, place: Prefix, term: Term, is: bool, lookups: &mut Vec<Change>) {
        let above = self.above(&place);
        // What it is in already, it stays in.
        let is_covered = self.terms(above as usize).contains(&term);
        let before = self.places.get(&place).cloned();
        let own = with(before.as_ref().map_or(&[], |held| held.own.terms()), term, is);
        let was = before.as_ref().map_or(above, |held| held.identity);
        let identity = if is_covered { was } else { self.turned(was, term, is) };
        let count = &mut self.lens[usize::from(place.address.is_ipv6())][usize::from(place.len)];
        if own.is_empty() {
            *count -= u32::from(before.is_some());
            self.places.remove_cow(&place);
            lookups.push(change(&place, NO_ROUTE));
        } else {
            *count += u32::from(before.is_none());
            self.places.insert_cow(place, Held { own: Own::of(&own), identity });
            lookups.push(change(&place, identity + 1));
        }
        if !is_covered && place.len < place.bits() {
            self.put_below(place, term, is, lookups);
        }
    }

    /// The same for networks that lie in it, but for those that are in the set by themselves or by another.
    fn put_below(&mut self, place: Prefix, term: Term, is: bool, lookups: &mut Vec<Change>) {
        let last = Prefix { address: place.last(), len: place.bits() };
        let mut others: Option<Prefix> = None;
        let mut concerned = Vec::new();
        for (below, held) in self.places.range((Excluded(place), Included(last))) {
            if others.is_some_and(|other| covers(&other, below)) {
                continue;
            }
            match held.own.terms().contains(&term) {
                true => others = Some(*below),
                false => concerned.push((*below, held.clone())),
            }
        }
        for (below, held) in concerned {
            let identity = self.turned(held.identity, term, is);
            lookups.push(change(&below, identity + 1));
            self.places.insert_cow(below, Held { identity, ..held });
        }
    }

    /// The identity of the longest network that one lies in.
    fn above(&self, place: &Prefix) -> u32 {
        let lens = &self.lens[usize::from(place.address.is_ipv6())];
        let occur = (0..place.len).rev().filter(|len| lens[usize::from(*len)] > 0);
        let mut above = occur.map(|len| Prefix { len, ..*place }.network());
        above.find_map(|above| Some(self.places.get(&above)?.identity)).unwrap_or(NOBODY as u32)
    }

    /// The identity of what is in one term more, or in one less.
    fn turned(&mut self, identity: u32, term: Term, is: bool) -> u32 {
        let (terms, had) = (with(self.terms(identity as usize), term, is), self.len());
        let number = self.number(&terms);
        if number as usize == had {
            self.like.push(identity);
        }
        number
    }

    /// The identity of what is in just these terms.
    fn number(&mut self, terms: &[Term]) -> u32 {
        self.terms.find(terms).unwrap_or_else(|| {
            self.terms_bytes += size_of_val(terms) + 2 * size_of::<(Arc<[Term]>, u32)>();
            self.terms.push(terms)
        })
    }

    /// The prefix tables after changes, unless all together would take too much.
    fn made(&self, changes: [Vec<Change>; 2]) -> Result<Mapped, TooMuch> {
        let beside = self.bytes() - self.by_address.bytes();
        let most = ADDRESSES_MEMORY_MAX.saturating_sub(beside);
        self.by_address.changed(changes, most).map_err(|bytes| TooMuch::Addresses(beside + bytes))
    }

    /// The bytes that it takes, if they are not too many.
    pub fn fits(&self) -> Result<usize, TooMuch> {
        let bytes = self.bytes();
        if bytes > ADDRESSES_MEMORY_MAX { Err(TooMuch::Addresses(bytes)) } else { Ok(bytes) }
    }

    /// Whether there are not too many identities, nor is too much said of them.
    fn has_room(&self) -> Result<(), TooMuch> {
        if self.len() > VALUE_MAX as usize {
            return Err(TooMuch::Identities(self.len()));
        }
        let bytes = self.terms_bytes;
        if bytes > ADDRESSES_MEMORY_MAX { Err(TooMuch::Addresses(bytes)) } else { Ok(()) }
    }

    /// What identities that are new since the change before were made of, in their order.
    pub fn like(&self) -> &[u32] {
        &self.like
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// Terms that an identity's addresses are in.
    pub fn terms(&self, identity: usize) -> &[Term] {
        self.terms.get(identity)
    }

    /// Terms of these networks and sets that rules name.
    pub fn terms_of<'a>(
        &'a self,
        networks: &'a [Prefix],
        sets: &'a [Name],
    ) -> impl Iterator<Item = Term> + 'a {
        let networks = networks.iter().map(|network| self.networks.get(&network.network()));
        networks.chain(sets.iter().map(|set| self.sets.get(set))).flatten().copied()
    }

    /// The identity of an address; IPv4 is IPv4-mapped.
    #[inline]
    pub fn of(&self, ip: u128, probes: impl Probes) -> u32 {
        self.by_address.find_with(ip, probes).saturating_sub(1)
    }

    /// Those of several, whose cache misses overlap. At the end of a port it is nearly always one address.
    #[inline(always)]
    pub fn of_each<const N: usize>(&self, count: usize, ip: impl Fn(usize) -> u128) -> [usize; N] {
        let mut values = [0; N];
        match (1..count).all(|n| ip(n) == ip(0)) {
            true if count > 0 => values[..count].fill(self.by_address.find_with(ip(0), Uncounted)),
            _ => self.by_address.find_each(&mut values[..count], ip),
        }
        values.map(|value| value.saturating_sub(1) as usize)
    }

    pub fn bytes(&self) -> usize {
        self.by_address.bytes() + self.places.len() * PLACE_BYTES + self.terms_bytes
    }
}

/// What a lookup is to say of a network from now on.
fn change(place: &Prefix, value: u32) -> Change {
    let bits = to_bits(place.address);
    Change { key: if place.address.is_ipv4() { bits << 96 } else { bits }, len: place.len, value }
}

/// Ascending terms with one more, or one less.
fn with(terms: &[Term], term: Term, is: bool) -> Vec<Term> {
    let mut terms: Vec<Term> = terms.iter().copied().filter(|it| *it != term).collect();
    if is {
        let at = terms.partition_point(|it| *it < term);
        terms.insert(at, term);
    }
    terms
}

fn covers(above: &Prefix, below: &Prefix) -> bool {
    above.len <= below.len && above.contains(below.address)
}
