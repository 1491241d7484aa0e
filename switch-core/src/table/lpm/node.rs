//! Who owns what lookups read: a node has the routes of some bits of an address behind those that led to it,
//! and the nodes of longer ones. It is never changed: a change makes another from its list of routes, and
//! shares the nodes below that did not change.
//!
//! A node of 16 bits whose answers do not lie in one line is *split*: a node of the first 8 of them, with nodes of the other 8
//! below it. Behind 16 bits there may be 65 536 nodes, and a change of one is to make anew what 256 take.

use super::arena::{Arena, Span};
use super::children::{Child, Children};
use super::part::{self, DIRECT_BITS, Leaf, RUNS_MAX};
use super::{Change, NO_ROUTE, ROOT_BITS};
use std::sync::Arc;

/// Most routes and nodes below of a node of 16 bits that is not split. With more it is, whatever they answer: so a change need not go
/// through many to learn whether they have become a line.
const WHOLE_ITEMS_MAX: usize = super::children::FEW;
/// Bits of a node that is split.
const HALF: u8 = 8;

/// A route in a node: its prefix ends within the node's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    rest: u16,
    /// Bits of `rest` that count; of the root's routes also none.
    len: u8,
    value: u16,
}

/// See the module.
#[derive(Debug)]
pub struct Node {
    /// Its memory, for as long as it lives.
    _span: Span,
    word: u64,
    /// Bits that it answers for.
    width: u8,
    routes: Box<[Route]>,
    children: Children,
    /// See [`Self::bytes`]; counted when it is made, for a table that is changed often is asked often.
    bytes: usize,
}

/// Bits that a node has behind `depth` others, unless it is split. IPv4 ends with the third; the lengths that are
/// frequent end with one: /24, /32, /48, /64.
pub const fn width(depth: u8) -> u8 {
    match depth {
        0 => ROOT_BITS,
        ROOT_BITS => DIRECT_BITS,
        24 => 8,
        // Below one that is split.
        _ if !depth.is_multiple_of(16) => HALF,
        _ => 16,
    }
}

impl Node {
    /// Of `width` bits, whatever is in it.
    fn new(arena: &Arc<Arena>, routes: Vec<Route>, children: Children, width: u8) -> Self {
        let below: Vec<&Child> = children.iter().collect();
        let (runs, covers) = hang(&runs(&routes, width), &below, width);
        let child = |n: u32| part::with_value(below[n as usize].1.word, covers[n as usize]);
        let made = part::make(&runs, width, &child);
        let span = Span::new(arena, &made.words);
        let word = made.word(span.start());
        let routes: Box<[Route]> = routes.into();
        // With the reference counts.
        let bytes = 16 + size_of::<Self>() + span.bytes() + size_of_val(&*routes) + children.bytes();
        Self { _span: span, word, width, routes, children, bytes }
    }

    /// Behind `depth` bits: of 16, or split.
    fn whole_or_split(arena: &Arc<Arena>, routes: Vec<Route>, children: Children) -> Self {
        if routes.len() + children.len() <= WHOLE_ITEMS_MAX {
            let below: Vec<&Child> = children.iter().collect();
            if hang(&runs(&routes, 16), &below, 16).0.len() <= RUNS_MAX {
                return Self::new(arena, routes, children, 16);
            }
        }
        Self::split(arena, &routes, &children)
    }

    /// A node of the first half of 16 bits, with one of the other half below wherever anything is longer.
    fn split(arena: &Arc<Arena>, routes: &[Route], children: &Children) -> Self {
        let top = |rest: u16| rest >> HALF;
        let (upper, lower): (Vec<Route>, Vec<Route>) = routes.iter().partition(|route| route.len <= HALF);
        let upper = upper.into_iter().map(|route| Route { rest: top(route.rest), ..route }).collect();
        let mut lower = lower.chunk_by(|one, next| top(one.rest) == top(next.rest)).peekable();
        let below: Vec<Child> = children.iter().cloned().collect();
        let mut below = below.chunk_by(|one, next| top(one.0) == top(next.0)).peekable();
        let mut halves = Vec::new();
        loop {
            let tops =
                [lower.peek().map(|routes| top(routes[0].rest)), below.peek().map(|below| top(below[0].0))];
            let Some(at) = tops.into_iter().flatten().min() else { break };
            let routes = lower.next_if(|routes| top(routes[0].rest) == at).unwrap_or_default();
            let below = below.next_if(|below| top(below[0].0) == at).unwrap_or_default();
            let inner = |route: &Route| Route { rest: route.rest & 0xff, len: route.len - HALF, ..*route };
            let routes = routes.iter().map(inner).collect();
            let children = below.iter().map(|(slot, child)| (slot & 0xff, child.clone())).collect();
            halves.push((at, Arc::new(Self::new(arena, routes, Children::of(children, HALF), HALF))));
        }
        Self::new(arena, upper, Children::of(halves, HALF), HALF)
    }

    /// What [`Self::split`] was given.
    fn joined(routes: &[Route], halves: &Children) -> (Vec<Route>, Children) {
        let mut all: Vec<Route> = routes.iter().map(|it| Route { rest: it.rest << HALF, ..*it }).collect();
        let mut below = Vec::new();
        for (top, half) in halves.iter() {
            let rest = |rest: u16| top << HALF | rest;
            let outer = |it: &Route| Route { rest: rest(it.rest), len: it.len + HALF, ..*it };
            all.extend(half.routes.iter().map(outer));
            below.extend(half.children.iter().map(|(slot, child)| (rest(*slot), child.clone())));
        }
        all.sort_unstable_by_key(|route| (route.rest, route.len));
        (all, Children::of(below, 16))
    }

    /// The value of exactly this prefix, of which `depth` bits lead here.
    pub fn exact(&self, key: u128, len: u8, depth: u8) -> u32 {
        let end = depth + self.width;
        if len <= end {
            return exact(&self.routes, key, len, depth, self.width);
        }
        let child = self.children.get(slot_of(key, depth, self.width));
        child.map_or(NO_ROUTE, |child| child.exact(key, len, end))
    }

    /// What leads to it.
    pub fn word(&self) -> u64 {
        self.word
    }

    /// How many routes it has, and nodes below it.
    pub fn items(&self) -> usize {
        self.routes.len() + self.children.len()
    }

    /// Bytes of memory, with those below.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The nodes below it.
    #[cfg(test)]
    pub fn children(&self) -> &Children {
        &self.children
    }
}

/// `before` with `changes`, all of which lie in it and are longer than the `depth` bits that lead here; none
/// if nothing is left. Sorted by prefix.
pub fn changed(arena: &Arc<Arena>, before: Option<&Node>, changes: &[Change], depth: u8) -> Option<Node> {
    let full = width(depth);
    let width = before.map_or(full, |node| node.width);
    let end = depth + width;
    let (own, further): (Vec<Change>, Vec<Change>) = changes.iter().partition(|change| change.len <= end);
    let routes = merged(before.map_or(&[], |node| &node.routes), &own, depth, width);
    let slot = |change: &Change| slot_of(change.key, depth, width);
    let below = |group: &[Change]| {
        let slot = slot(&group[0]);
        let child = before.and_then(|node| node.children.get(slot));
        (slot, changed(arena, child, group, end).map(Arc::new))
    };
    let fresh: Vec<_> = further.chunk_by(|one, next| slot(one) == slot(next)).map(below).collect();
    let none = Children::default();
    let children = before.map_or(&none, |node| &node.children).changed(&fresh, width);
    if routes.is_empty() && children.is_empty() {
        return None;
    }
    Some(match (full, width) {
        (16, 16) => Node::whole_or_split(arena, routes, children),
        (16, _) if routes.len() + children.items() <= WHOLE_ITEMS_MAX => {
            let (routes, children) = Node::joined(&routes, &children);
            Node::whole_or_split(arena, routes, children)
        }
        _ => Node::new(arena, routes, children, width),
    })
}

/// The value of exactly this prefix among `routes`, which are sorted by prefix.
pub fn exact(routes: &[Route], key: u128, len: u8, depth: u8, width: u8) -> u32 {
    let place = (slot_of(key, depth, width), len - depth);
    let found = routes.binary_search_by_key(&place, |route| (route.rest, route.len));
    found.map_or(NO_ROUTE, |at| u32::from(routes[at].value))
}

fn slot_of(key: u128, depth: u8, width: u8) -> u16 {
    (key << depth >> (128 - width)) as u16
}

/// `routes` with `changes`, both sorted by prefix; of several changes of one prefix the last counts.
pub fn merged(routes: &[Route], changes: &[Change], depth: u8, width: u8) -> Vec<Route> {
    let mut merged = Vec::with_capacity(routes.len() + changes.len());
    let mut old = routes.iter().copied().peekable();
    for same in changes.chunk_by(|one, next| (one.key, one.len) == (next.key, next.len)) {
        let Some(change) = same.last() else { continue };
        let rest = slot_of(change.key, depth, width);
        let new = Route { rest, len: change.len - depth, value: change.value as u16 };
        let place = (new.rest, new.len);
        while let Some(route) = old.next_if(|route| (route.rest, route.len) < place) {
            merged.push(route);
        }
        _ = old.next_if(|route| (route.rest, route.len) == place);
        if new.value != 0 {
            merged.push(new);
        }
    }
    merged.extend(old);
    merged
}

/// Where the answer changes, from 0 on: the first value and its answer. Routes are nested or apart, and
/// sorted so that an outer one comes before the inner ones.
pub fn runs(routes: &[Route], width: u8) -> Vec<(u32, u16)> {
    let last = (1u32 << width) - 1;
    let mut runs = vec![(0, 0)];
    let mut open: Vec<(u32, u16)> = Vec::new();
    let mut begin = |at: u32, value: u16| match runs.last_mut() {
        Some(last) if last.0 == at => last.1 = value,
        Some(last) if last.1 == value => {}
        _ => runs.push((at, value)),
    };
    let close = |open: &mut Vec<(u32, u16)>, at: u32, begin: &mut dyn FnMut(u32, u16)| {
        while let Some((end, _)) = open.pop_if(|(end, _)| *end <= at) {
            if end <= last {
                begin(end, open.last().map_or(0, |(_, value)| *value));
            }
        }
    };
    for route in routes {
        let first = u32::from(route.rest);
        close(&mut open, first, &mut begin);
        begin(first, route.value);
        open.push((first + (1 << (width - route.len)), route.value));
    }
    close(&mut open, last + 1, &mut begin);
    runs
}

/// Puts children, sorted by value, over the runs; and what each of them covers.
fn hang(runs: &[(u32, u16)], children: &[&Child], width: u8) -> (Vec<(u32, Leaf)>, Vec<u16>) {
    let last = (1u32 << width) - 1;
    let mut hung: Vec<(u32, Leaf)> = Vec::with_capacity(runs.len() + 2 * children.len());
    let mut rest = runs.iter().copied().peekable();
    let mut value = 0;
    let mut covers = Vec::with_capacity(children.len());
    for (n, (slot, _)) in children.iter().enumerate() {
        let at = u32::from(*slot);
        while let Some(run) = rest.next_if(|(start, _)| *start <= at) {
            value = run.1;
            hung.push((run.0, Leaf::Value(run.1)));
        }
        hung.pop_if(|(start, _)| *start == at);
        hung.push((at, Leaf::Child(n as u32)));
        covers.push(value);
        // What comes behind it is as before, unless something begins there anyway.
        if at < last && rest.peek().is_none_or(|(start, _)| *start != at + 1) {
            hung.push((at + 1, Leaf::Value(value)));
        }
    }
    hung.extend(rest.map(|(start, value)| (start, Leaf::Value(value))));
    (hung, covers)
}
