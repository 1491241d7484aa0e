//! The nodes below a node, by the bits that lead to each. Many of them lie in groups, so that a change copies a group and the list
//! of groups, and shares the others: a node may have 2 048 below it.

use super::node::Node;
use std::sync::Arc;

/// A node, and the bits that lead to it.
pub type Child = (u16, Arc<Node>);

/// So many lie in one list.
pub const FEW: usize = 64;
/// Bits that those of a group may differ in: 64 of them, and of 11 bits there are 32 groups. So a change copies a hundred pointers, and
/// counts as many references.
const GROUP_BITS: u32 = 6;

/// See the module.
#[derive(Debug, Default)]
pub struct Children {
    list: List,
    len: u32,
    /// Of all of them, what [`Node::items`] and [`Node::bytes`] say: kept, for asking each would cost what all cost.
    items: u32,
    bytes: usize,
}

/// Each sorted by its bits. Which of both it is follows from their number, and not from how they came.
#[derive(Debug)]
enum List {
    Few(Box<[Child]>),
    /// By their bits but for the last [`GROUP_BITS`].
    Many(Box<[Arc<[Child]>]>),
}

impl Default for List {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

impl List {
    /// All of them, of a node of so many bits.
    fn of(all: Vec<Child>, width: u8) -> Self {
        if all.len() <= FEW {
            return Self::Few(all.into());
        }
        let mut groups = vec![Arc::default(); 1 << (u32::from(width) - GROUP_BITS)];
        for group in all.chunk_by(|(one, _), (next, _)| group_of(*one) == group_of(*next)) {
            groups[group_of(group[0].0)] = group.into();
        }
        Self::Many(groups.into())
    }
}

fn group_of(slot: u16) -> usize {
    usize::from(slot >> GROUP_BITS)
}

impl Children {
    /// All of them, sorted, of a node of `width` bits: more than [`GROUP_BITS`], for a group is no more than all.
    pub fn of(all: Vec<Child>, width: u8) -> Self {
        let bytes = all.iter().map(|(_, child)| child.bytes()).sum();
        let items = all.iter().map(|(_, child)| child.items() as u32).sum();
        Self { len: all.len() as u32, list: List::of(all, width), bytes, items }
    }

    /// These with others in the place of those that `changes` names, which are sorted; none: nothing is there any more.
    pub fn changed(&self, changes: &[(u16, Option<Arc<Node>>)], width: u8) -> Self {
        let (mut len, mut bytes, mut items) = (self.len, self.bytes, self.items);
        for (slot, next) in changes {
            if let Some(before) = self.get(*slot) {
                (len, bytes, items) = (len - 1, bytes - before.bytes(), items - before.items() as u32);
            }
            if let Some(next) = next {
                (len, bytes, items) = (len + 1, bytes + next.bytes(), items + next.items() as u32);
            }
        }
        let list = match &self.list {
            List::Many(groups) if len as usize > FEW => {
                let mut groups = groups.clone();
                for changes in changes.chunk_by(|(one, _), (next, _)| group_of(*one) == group_of(*next)) {
                    let group = &mut groups[group_of(changes[0].0)];
                    *group = merged(group.iter(), changes).into();
                }
                List::Many(groups)
            }
            _ => List::of(merged(self.iter(), changes), width),
        };
        Self { list, len, bytes, items }
    }

    /// The one behind these bits.
    pub fn get(&self, slot: u16) -> Option<&Node> {
        let list = match &self.list {
            List::Few(list) => list,
            List::Many(groups) => &**groups.get(group_of(slot))?,
        };
        let at = list.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?;
        Some(&list[at].1)
    }

    /// All of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Child> {
        let (few, many) = match &self.list {
            List::Few(list) => (&**list, &[][..]),
            List::Many(groups) => (&[][..], &**groups),
        };
        few.iter().chain(many.iter().flat_map(|group| group.iter()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What they have together: see [`Node::items`].
    pub fn items(&self) -> usize {
        self.items as usize
    }

    /// Bytes of memory, with those below.
    pub fn bytes(&self) -> usize {
        // A group has its reference counts beside it.
        let groups = match &self.list {
            List::Few(_) => 0,
            List::Many(groups) => groups.len() * (16 + size_of::<Arc<[Child]>>()),
        };
        groups + self.len() * size_of::<Child>() + self.bytes
    }

    /// How many groups are the same memory, and how many there are.
    #[cfg(test)]
    pub fn shared(&self, other: &Self) -> (usize, usize) {
        let (List::Many(own), List::Many(others)) = (&self.list, &other.list) else { return (0, 0) };
        (own.iter().zip(others).filter(|(one, other)| Arc::ptr_eq(one, other)).count(), own.len())
    }
}

/// `before` with `changes`, both sorted.
fn merged<'a>(before: impl Iterator<Item = &'a Child>, changes: &[(u16, Option<Arc<Node>>)]) -> Vec<Child> {
    let mut merged = Vec::with_capacity(before.size_hint().0 + changes.len());
    let mut before = before.cloned().peekable();
    for (slot, next) in changes {
        while let Some(child) = before.next_if(|(other, _)| other < slot) {
            merged.push(child);
        }
        _ = before.next_if(|(other, _)| other == slot);
        merged.extend(next.iter().map(|next| (*slot, next.clone())));
    }
    merged.extend(before);
    merged
}
