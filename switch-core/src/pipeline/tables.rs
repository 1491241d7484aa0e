//! What all workers learn together.

use crate::config::PORTS_MAX;
use crate::table::fdb::Fdb;
use crate::table::flow::Flows;
use crate::table::flow::fragments::{FRAGMENTED_MAX, Fragments};
use crate::table::loops::Loops;
use crate::table::neigh::Neighbours;
use crate::table::wide::LINE_BYTES;

/// Learned state, shared by all workers.
#[derive(Debug)]
pub struct Tables {
    /// Stations.
    pub fdb: Fdb,
    /// Ports with a loop behind them.
    pub loops: Loops,
    /// Who has which address.
    pub neigh: Neighbours,
    /// Who speaks with whom.
    pub flows: Flows,
    /// What later fragments belong to.
    pub fragments: Fragments,
}

/// How much may be learned.
#[derive(Clone, Copy, Debug)]
pub struct TableSizes {
    /// Stations.
    pub fdb_entries: usize,
    /// Neighbours.
    pub neighbours: usize,
    /// Flows.
    pub flows: usize,
    /// TCP flows may begin in the middle: after a restart, which forgets them.
    pub flow_pickup: bool,
}

impl Tables {
    /// A copy that answers the same and that nobody else writes or reads.
    pub fn copy(&self) -> Self {
        Self {
            fdb: self.fdb.copy(),
            loops: self.loops.copy(),
            neigh: self.neigh.copy(),
            flows: self.flows.copy(),
            fragments: self.fragments.copy(),
        }
    }

    /// Empty ones. `seed` keeps a hostile sender from choosing keys that share a place.
    pub fn new(sizes: TableSizes, seed: [u64; 2]) -> Self {
        Self {
            fdb: Fdb::new(sizes.fdb_entries, PORTS_MAX, seed),
            loops: Loops::new(PORTS_MAX),
            neigh: Neighbours::new(sizes.neighbours, PORTS_MAX, seed),
            flows: Flows::new(sizes.flows, PORTS_MAX, seed, sizes.flow_pickup),
            fragments: Fragments::new(FRAGMENTED_MAX, seed),
        }
    }

    /// Bytes they take, fixed when they are made.
    pub fn bytes(&self) -> usize {
        let lines = self.neigh.lines() + self.fragments.lines();
        self.fdb.bytes() + self.flows.bytes() + lines * LINE_BYTES
    }
}
