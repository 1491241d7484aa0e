//! What is known of 16 bits of an address behind those that led here.
//!
//! A node stands for 64 (the last one for 16) neighbouring values. A bit of `inner` says that the value needs
//! another node; where it is clear, the value's answer is a leaf. Neighbouring values with the same answer
//! share one leaf: a bit of `starts` says where another leaf begins. Counting the bits below gives the place.

use super::{Change, NO_ROUTE, STEP};
use crate::prefetch::prefetch;
use std::sync::Arc;

/// In a leaf: the answer is a further block, of this number.
pub const CHILD: u32 = 1 << 31;

/// A route in a block: its prefix lies in the block's 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    rest: u16,
    /// Bits of `rest` that count; of the root's routes also none.
    len: u8,
    value: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    inner: u64,
    starts: u64,
    first_leaf: u32,
    first_node: u32,
}

/// A further block, and the answer of the route that leads to it, should it have none itself.
#[derive(Clone, Debug)]
pub struct Child {
    pub value: u32,
    slot: u16,
    pub block: Arc<Block>,
}

/// See the module. What a lookup reads lies in the first line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Block {
    top: Node,
    leaves: Box<[u32]>,
    nodes: Box<[Node]>,
    children: Box<[Child]>,
    routes: Box<[Route]>,
}

impl Block {
    /// The leaf of `slot`.
    #[inline(always)]
    pub fn find(&self, slot: u16) -> u32 {
        let mut node = &self.top;
        for value in [slot >> 10, slot >> 4 & 0x3f, slot & 0xf] {
            let bit = 1u64 << value;
            if node.inner & bit == 0 {
                let below = (node.starts & (bit | (bit - 1))).count_ones();
                return self.leaves[(node.first_leaf + below - 1) as usize];
            }
            let below = (node.inner & (bit - 1)).count_ones();
            node = &self.nodes[(node.first_node + below) as usize];
        }
        // The last node has no inner values.
        NO_ROUTE
    }

    /// Asks for what a lookup of `slot` reads behind the first line.
    #[inline(always)]
    pub fn touch(&self, slot: u16) {
        let (bit, node) = (1u64 << (slot >> 10), &self.top);
        if node.inner & bit == 0 {
            let below = (node.starts & (bit | (bit - 1))).count_ones();
            prefetch(self.leaves.as_ptr().wrapping_add((node.first_leaf + below - 1) as usize));
        } else {
            let below = (node.inner & (bit - 1)).count_ones();
            prefetch(self.nodes.as_ptr().wrapping_add((node.first_node + below) as usize));
        }
    }

    /// The further block that a leaf with [`CHILD`] names.
    #[inline(always)]
    pub fn child(&self, leaf: u32) -> &Child {
        &self.children[(leaf & !CHILD) as usize]
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        // With the reference counts, which the alignment makes a line.
        64 + size_of::<Self>()
            + size_of_val(&*self.leaves)
            + size_of_val(&*self.nodes)
            + size_of_val(&*self.children)
            + size_of_val(&*self.routes)
            + self.children.iter().map(|child| child.block.bytes()).sum::<usize>()
    }

    fn new(routes: Vec<Route>, children: Vec<(u16, Arc<Block>)>) -> Self {
        let mut runs = runs(&routes);
        let children = hang(&mut runs, children);
        let (mut nodes, mut leaves) = (Vec::new(), Vec::new());
        let top = build(&runs, 0, 10, &mut nodes, &mut leaves);
        Self {
            top,
            leaves: leaves.into(),
            nodes: nodes.into(),
            children: children.into(),
            routes: routes.into(),
        }
    }
}

/// `before` with `changes`, all of which lie in it and are longer than the `depth` bits that lead here; none
/// if nothing is left. Sorted by prefix.
pub fn changed(before: Option<&Block>, changes: &[Change], depth: u8) -> Option<Block> {
    let end = depth + STEP;
    let (own, further): (Vec<Change>, Vec<Change>) = changes.iter().partition(|change| change.len <= end);
    let routes = merged(before.map_or(&[], |block| &block.routes), &own, depth);
    let mut children: Vec<(u16, Arc<Block>)> = before
        .map_or(&[][..], |block| &block.children)
        .iter()
        .map(|child| (child.slot, child.block.clone()))
        .collect();
    for group in further.chunk_by(|one, next| slot_of(one.key, depth) == slot_of(next.key, depth)) {
        let slot = slot_of(group[0].key, depth);
        let place = children.binary_search_by_key(&slot, |(slot, _)| *slot);
        let child = place.ok().map(|at| children[at].1.clone());
        match (changed(child.as_deref(), group, end).map(Arc::new), place) {
            (Some(block), Ok(at)) => children[at].1 = block,
            (Some(block), Err(at)) => children.insert(at, (slot, block)),
            (None, Ok(at)) => _ = children.remove(at),
            (None, Err(_)) => {}
        }
    }
    (!routes.is_empty() || !children.is_empty()).then(|| Block::new(routes, children))
}

fn slot_of(key: u128, depth: u8) -> u16 {
    (key << depth >> 112) as u16
}

/// `routes` with `changes`, both sorted by prefix; of several changes of one prefix the last counts.
pub fn merged(routes: &[Route], changes: &[Change], depth: u8) -> Vec<Route> {
    let mut merged = Vec::with_capacity(routes.len() + changes.len());
    let mut old = routes.iter().copied().peekable();
    for same in changes.chunk_by(|one, next| (one.key, one.len) == (next.key, next.len)) {
        let Some(change) = same.last() else { continue };
        let new = Route { rest: slot_of(change.key, depth), len: change.len - depth, value: change.value };
        let place = (new.rest, new.len);
        while let Some(route) = old.next_if(|route| (route.rest, route.len) < place) {
            merged.push(route);
        }
        _ = old.next_if(|route| (route.rest, route.len) == place);
        if new.value != NO_ROUTE {
            merged.push(new);
        }
    }
    merged.extend(old);
    merged
}

/// Where the answer changes, from 0 on: the first value and its answer. Routes are nested or apart, and
/// sorted so that an outer one comes before the inner ones.
pub fn runs(routes: &[Route]) -> Vec<(u32, u32)> {
    let mut runs = vec![(0, NO_ROUTE)];
    let mut open: Vec<(u32, u32)> = Vec::new();
    let mut begin = |at: u32, value: u32| match runs.last_mut() {
        Some(last) if last.0 == at => last.1 = value,
        Some(last) if last.1 == value => {}
        _ => runs.push((at, value)),
    };
    let close = |open: &mut Vec<(u32, u32)>, at: u32, begin: &mut dyn FnMut(u32, u32)| {
        while let Some((end, _)) = open.pop_if(|(end, _)| *end <= at) {
            if end <= 0xffff {
                begin(end, open.last().map_or(NO_ROUTE, |(_, value)| *value));
            }
        }
    };
    for route in routes {
        let first = u32::from(route.rest);
        close(&mut open, first, &mut begin);
        begin(first, route.value);
        open.push((first + (1 << (STEP - route.len)), route.value));
    }
    close(&mut open, 1 << STEP, &mut begin);
    runs
}

/// Puts further blocks, sorted by value, over the runs, and notes what each of them covers.
fn hang(runs: &mut Vec<(u32, u32)>, children: Vec<(u16, Arc<Block>)>) -> Vec<Child> {
    let mut hung = Vec::with_capacity(runs.len() + 2 * children.len());
    let mut rest = runs.iter().copied().peekable();
    let mut value = NO_ROUTE;
    let children = children.into_iter().enumerate().map(|(n, (slot, block))| {
        let at = u32::from(slot);
        while let Some(run) = rest.next_if(|(start, _)| *start <= at) {
            value = run.1;
            hung.push(run);
        }
        hung.retain_last(|(start, _)| *start != at);
        hung.push((at, CHILD | n as u32));
        // What comes behind it is as before, unless something begins there anyway.
        if at < 0xffff && rest.peek().is_none_or(|(start, _)| *start != at + 1) {
            hung.push((at + 1, value));
        }
        Child { value, slot, block }
    });
    let children = children.collect();
    hung.extend(rest);
    *runs = hung;
    children
}

trait RetainLast<T> {
    fn retain_last(&mut self, keep: impl FnOnce(&T) -> bool);
}

impl<T> RetainLast<T> for Vec<T> {
    fn retain_last(&mut self, keep: impl FnOnce(&T) -> bool) {
        if self.last().is_some_and(|last| !keep(last)) {
            self.pop();
        }
    }
}

/// The node for the values from `base` on, each of which stands for `1 << shift` of them. `runs` are those
/// that begin in it, after the one that covers its beginning.
fn build(runs: &[(u32, u32)], base: u32, shift: u32, nodes: &mut Vec<Node>, leaves: &mut Vec<u32>) -> Node {
    let values = if shift == 0 { 16 } else { 64 };
    let mut node = Node { first_leaf: leaves.len() as u32, ..Node::default() };
    let (mut inner, mut last, mut rest) = (Vec::new(), None, runs);
    for value in 0..values {
        let (start, end) = (base + (value << shift), base + ((value + 1) << shift));
        // The run that covers the beginning, and how many begin further in.
        let skip = rest.partition_point(|(first, _)| *first <= start) - 1;
        rest = &rest[skip..];
        let within = rest.partition_point(|(first, _)| *first < end);
        if within > 1 {
            node.inner |= 1 << value;
            inner.push((&rest[..within], start));
        } else if last != Some(rest[0].1) {
            node.starts |= 1 << value;
            leaves.push(rest[0].1);
            last = Some(rest[0].1);
        }
    }
    node.first_node = nodes.len() as u32;
    nodes.resize(nodes.len() + inner.len(), Node::default());
    for (n, (runs, start)) in inner.into_iter().enumerate() {
        let shift = if shift == 10 { 4 } else { 0 };
        nodes[node.first_node as usize + n] = build(runs, start, shift, nodes, leaves);
    }
    node
}
