//! Who owns what lookups read: a node has the routes of some bits of an address behind those that led to it,
//! and the nodes of longer ones. It is never changed: a change makes another from its list of routes, and
//! shares the nodes below that did not change.

use super::arena::{Arena, Span};
use super::part::{self, DIRECT_BITS, Leaf};
use super::{Change, NO_ROUTE, ROOT_BITS};
use std::sync::Arc;

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
    routes: Box<[Route]>,
    children: Box<[(u16, Arc<Node>)]>,
    /// See [`Self::bytes`]; counted when it is made, for a table that is changed often is asked often.
    bytes: usize,
}

/// Bits that a node has behind `depth` others. IPv4 ends with the third; the lengths that are frequent end
/// with one: /24, /32, /48, /64.
pub fn width(depth: u8) -> u8 {
    match depth {
        0 => ROOT_BITS,
        ROOT_BITS => DIRECT_BITS,
        24 => 8,
        _ => 16,
    }
}

impl Node {
    fn new(arena: &Arc<Arena>, routes: Vec<Route>, children: Vec<(u16, Arc<Node>)>, width: u8) -> Self {
        let runs = runs(&routes, width);
        let (runs, covers) = hang(&runs, &children, width);
        let child = |n: u32| part::with_value(children[n as usize].1.word, covers[n as usize]);
        let made = part::make(&runs, width, &child);
        let span = Span::new(arena, &made.words, &made.moved);
        let word = made.word(span.start());
        let routes: Box<[Route]> = routes.into();
        let children: Box<[(u16, Arc<Self>)]> = children.into();
        // With the reference counts.
        let bytes = 16
            + size_of::<Self>()
            + span.bytes()
            + size_of_val(&*routes)
            + size_of_val(&*children)
            + children.iter().map(|(_, child)| child.bytes).sum::<usize>();
        Self { _span: span, word, routes, children, bytes }
    }

    /// The value of exactly this prefix, of which `depth` bits lead here.
    pub fn exact(&self, key: u128, len: u8, depth: u8) -> u32 {
        let width = width(depth);
        if len <= depth + width {
            return exact(&self.routes, key, len, depth);
        }
        let slot = slot_of(key, depth, width);
        let child = self.children.binary_search_by_key(&slot, |(slot, _)| *slot);
        child.map_or(NO_ROUTE, |at| self.children[at].1.exact(key, len, depth + width))
    }

    /// What leads to it.
    pub fn word(&self) -> u64 {
        self.word
    }

    /// Bytes of memory, with those below.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// `before` with `changes`, all of which lie in it and are longer than the `depth` bits that lead here; none
/// if nothing is left. Sorted by prefix.
pub fn changed(arena: &Arc<Arena>, before: Option<&Node>, changes: &[Change], depth: u8) -> Option<Node> {
    let width = width(depth);
    let end = depth + width;
    let (own, further): (Vec<Change>, Vec<Change>) = changes.iter().partition(|change| change.len <= end);
    let routes = merged(before.map_or(&[], |node| &node.routes), &own, depth);
    let mut children: Vec<(u16, Arc<Node>)> = before.map_or(&[][..], |node| &node.children).to_vec();
    let slot = |change: &Change| slot_of(change.key, depth, width);
    let mut fresh = Vec::new();
    for group in further.chunk_by(|one, next| slot(one) == slot(next)) {
        let slot = slot(&group[0]);
        let place = children.binary_search_by_key(&slot, |(slot, _)| *slot);
        let child = place.ok().map(|at| children[at].1.clone());
        match (changed(arena, child.as_deref(), group, end).map(Arc::new), place) {
            (Some(node), Ok(at)) => children[at].1 = node,
            (Some(node), Err(_)) => fresh.push((slot, node)),
            (None, Ok(at)) => _ = children.remove(at),
            (None, Err(_)) => {}
        }
    }
    if !fresh.is_empty() {
        children.append(&mut fresh);
        children.sort_by_key(|(slot, _)| *slot);
    }
    if routes.is_empty() && children.is_empty() {
        return None;
    }
    Some(Node::new(arena, routes, children, width))
}

/// The value of exactly this prefix among `routes`, which are sorted by prefix.
pub fn exact(routes: &[Route], key: u128, len: u8, depth: u8) -> u32 {
    let place = (slot_of(key, depth, width(depth)), len - depth);
    let found = routes.binary_search_by_key(&place, |route| (route.rest, route.len));
    found.map_or(NO_ROUTE, |at| u32::from(routes[at].value))
}

fn slot_of(key: u128, depth: u8, width: u8) -> u16 {
    (key << depth >> (128 - width)) as u16
}

/// `routes` with `changes`, both sorted by prefix; of several changes of one prefix the last counts.
pub fn merged(routes: &[Route], changes: &[Change], depth: u8) -> Vec<Route> {
    let width = width(depth);
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
fn hang(runs: &[(u32, u16)], children: &[(u16, Arc<Node>)], width: u8) -> (Vec<(u32, Leaf)>, Vec<u16>) {
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
