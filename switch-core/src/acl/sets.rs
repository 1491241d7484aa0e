//! Address sets as they are declared: each a tree of its members that shares what did not change, so that a member more or less
//! costs what it is and a set that is kept from before costs nothing.

use immutable_chunkmap::map::Map;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound::{Excluded, Unbounded};
use switch_api::{ADDRESS_SET_MEMBERS_MAX, AddressSet, Name, Owner, Prefix};

/// Most sets: of an administrator and of who manages a node for him, as lists are.
pub const SETS_MAX: usize = 1024;
/// Most members of all sets together: as declared they take some 80 bytes each.
/// What they take compiled is counted by itself: [`super::ADDRESSES_MEMORY_MAX`].
pub const MEMBERS_MAX: usize = 4 * ADDRESS_SET_MEMBERS_MAX;
/// Entries that are copied together when one of them changes: a page of memory.
pub(super) const CHUNK: usize = 128;

/// A set.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Who declared it.
    pub owner: Owner,
    /// Its members are part of what is declared: see [`AddressSet::members`].
    pub declared: bool,
    members: Map<Prefix, (), CHUNK>,
    /// How many of them are of IPv4.
    v4: usize,
    /// A number made of all members: another one means that they are others.
    digest: u64,
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        let of = |set: &Self| (set.owner, set.declared, set.members.len(), set.digest);
        of(self) == of(other) && self.members == other.members
    }
}

impl Eq for Set {}

impl Set {
    /// One without members.
    pub fn new(owner: Owner, declared: bool) -> Self {
        Self { owner, declared, ..Self::default() }
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many members are of IPv4, and of IPv6.
    pub fn by_version(&self) -> [usize; 2] {
        [self.v4, self.len() - self.v4]
    }

    /// See the field.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether exactly this is a member, whatever else is shorter or longer.
    pub fn has(&self, member: &Prefix) -> bool {
        self.members.get(member).is_some()
    }

    /// Members behind `after`: IPv4 first, by address and then by length.
    pub fn members(&self, after: Option<Prefix>) -> impl Iterator<Item = Prefix> {
        self.members.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(prefix, ())| *prefix)
    }

    /// Makes it a member, or none. Whether that is another than before.
    pub fn put(&mut self, member: Prefix, is: bool) -> bool {
        if self.has(&member) == is {
            return false;
        }
        let (count, digest) = (usize::from(member.address.is_ipv4()), digest_of(&member));
        if is {
            self.members.insert_cow(member, ());
            (self.v4, self.digest) = (self.v4 + count, self.digest.wrapping_add(digest));
        } else {
            self.members.remove_cow(&member);
            (self.v4, self.digest) = (self.v4 - count, self.digest.wrapping_sub(digest));
        }
        true
    }

    /// As it is declared.
    pub fn declaration(&self, name: &Name) -> AddressSet {
        let members = self.declared.then(|| self.members(None).collect());
        AddressSet { name: name.clone(), members, owner: self.owner }
    }
}

/// Added up over all members, in whatever order they came.
fn digest_of(member: &Prefix) -> u64 {
    let mut hasher = DefaultHasher::new();
    member.hash(&mut hasher);
    hasher.finish()
}

/// All sets, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    sets: Map<Name, Set, CHUNK>,
    members: usize,
}

impl Sets {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Members of all of them.
    pub fn member_count(&self) -> usize {
        self.members
    }

    /// One of them.
    pub fn get(&self, name: &Name) -> Option<&Set> {
        self.sets.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Set)> {
        self.sets.into_iter()
    }

    /// Puts one in place of the one of its name.
    pub fn insert(&mut self, name: Name, set: Set) {
        let len = set.len();
        let before = self.sets.insert_cow(name, set);
        self.members = self.members + len - before.map_or(0, |before| before.len());
    }

    /// Takes one away.
    pub fn remove(&mut self, name: &Name) -> Option<Set> {
        let gone = self.sets.remove_cow(name)?;
        self.members -= gone.len();
        Some(gone)
    }
}

/// What became of a set's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// The set.
    pub set: Name,
    /// The member.
    pub member: Prefix,
    /// Whether it is one now.
    pub is: bool,
}

/// Where sets differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Sets that are new, gone, or another's, or whose members are part of what is declared, or are no more.
    pub sets: Vec<Name>,
    /// Members.
    pub members: Vec<MemberChange>,
}

impl Difference {
    /// Whether they are the same.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.members.is_empty()
    }

    /// Where `after` differs from `before`. A set that is gone is gone with all its members.
    pub fn of(before: &Sets, after: &Sets) -> Self {
        let names: BTreeSet<&Name> = before.iter().chain(after.iter()).map(|(name, _)| name).collect();
        let mut difference = Self::default();
        for name in names {
            difference.add(name, before.get(name), after.get(name));
        }
        difference
    }

    /// Adds where a set differs.
    pub fn add(&mut self, name: &Name, before: Option<&Set>, after: Option<&Set>) {
        let what = |set: &Set| (set.owner, set.declared);
        if before.map(what) != after.map(what) {
            self.sets.push(name.clone());
        }
        let none = Set::default();
        let [had, has] = [before, after].map(|set| set.unwrap_or(&none));
        if (had.len(), had.digest) == (has.len(), has.digest) {
            return;
        }
        let change = |member, is| MemberChange { set: name.clone(), member, is };
        self.members.extend(had.members(None).filter(|it| !has.has(it)).map(|it| change(it, false)));
        self.members.extend(has.members(None).filter(|it| !had.has(it)).map(|it| change(it, true)));
    }
}
