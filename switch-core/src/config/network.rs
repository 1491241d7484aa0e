//! Routes to one network, the lowest metric first; nearly always one. A table of them is a map by network: looking one up is
//! a step for each power of two, where finding the first of a range costs a hundredth of the table.

use immutable_chunkmap::map::Map;
use std::sync::Arc;

/// Entries of a table that are copied together when one of them changes: a page of memory.
pub(super) const CHUNK: usize = 128;

/// See the module. `W` is what a route says; those that say the same share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Network<W> {
    One(u32, Arc<W>),
    Several(Arc<Vec<(u32, Arc<W>)>>),
}

impl<W> Network<W> {
    fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Several(several) => several.len(),
        }
    }

    fn at(&self, n: usize) -> Option<(u32, &Arc<W>)> {
        match self {
            Self::One(metric, way) => (n == 0).then_some((*metric, way)),
            Self::Several(several) => several.get(n).map(|(metric, way)| (*metric, way)),
        }
    }

    /// All of them, each with its metric.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Arc<W>)> {
        (0..self.len()).map_while(|n| self.at(n))
    }

    /// The one with this metric.
    pub(super) fn get(&self, metric: u32) -> Option<&Arc<W>> {
        self.all().find(|(at, _)| *at == metric).map(|(_, way)| way)
    }

    /// None: there is none.
    fn of(mut all: Vec<(u32, Arc<W>)>) -> Option<Self> {
        match all.len() {
            0 => None,
            1 => all.pop().map(|(metric, way)| Self::One(metric, way)),
            _ => Some(Self::Several(Arc::new(all))),
        }
    }
}

/// Puts a way into a place, or takes it away; what was there.
pub(super) fn put<K: Ord + Clone, W: Clone>(
    table: &mut Map<K, Network<W>, CHUNK>,
    key: K,
    metric: u32,
    way: Option<Arc<W>>,
) -> Option<Arc<W>> {
    let there = table.get(&key);
    let mut all: Vec<_> =
        there.into_iter().flat_map(Network::all).map(|(metric, way)| (metric, way.clone())).collect();
    let before = match all.binary_search_by_key(&metric, |(metric, _)| *metric) {
        Ok(at) => Some(all.remove(at).1),
        Err(_) => None,
    };
    if let Some(way) = way {
        let at = all.partition_point(|(at, _)| *at < metric);
        all.insert(at, (metric, way));
    }
    match Network::of(all) {
        Some(network) => _ = table.insert_cow(key, network),
        None => _ = table.remove_cow(&key),
    }
    before
}
