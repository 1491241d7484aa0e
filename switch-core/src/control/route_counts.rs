//! Routes that are counted: what workers counted of each since it is. A counter is never set back, because its worker may be
//! adding to it; what it stood at when its route came is known here instead.

use super::daemon::Daemon;
use crate::config::ROUTE_COUNTERS;
use crate::config::routes::Place;
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use switch_api::{Name, RouteCount};

/// Counted routes, each with its counter and the packets and bytes that this one had.
pub(super) type From = BTreeMap<(Name, Place), (NonZeroU16, (u64, u64))>;

impl Daemon {
    /// Room for counting, as soon as there is something to count.
    pub(super) fn make_route_counters(&self) {
        if self.model.routes.counted().len() > 0 {
            self.counters.iter().for_each(|counters| counters.make_routes(ROUTE_COUNTERS));
        }
    }

    /// Routes that came count from here. Called when every worker goes by them, and none by others that had their counters.
    pub(super) fn begin_to_count(&mut self) {
        if self.model.routes.counted().len() == 0 && self.count_from.is_empty() {
            return;
        }
        let counted = self.model.routes.counted().map(|(vrf, place, counter)| {
            let key = (vrf.clone(), place);
            let before = self.count_from.get(&key).filter(|(before, _)| *before == counter);
            let from = before.map_or_else(|| self.counted(counter), |(_, from)| *from);
            (key, (counter, from))
        });
        self.count_from = counted.collect();
    }

    /// Packets and bytes that all workers counted.
    fn counted(&self, counter: NonZeroU16) -> (u64, u64) {
        let each = self.counters.iter().filter_map(|counters| counters.route(counter));
        each.fold((0, 0), |(packets, bytes), traffic| {
            (packets + traffic.packets.get(), bytes + traffic.bytes.get())
        })
    }

    /// What went by each counted route.
    pub(super) fn route_counts(&self) -> Vec<RouteCount> {
        let counts = self.count_from.iter().map(|((vrf, place), (counter, from))| {
            let (packets, bytes) = self.counted(*counter);
            RouteCount {
                prefix: place.prefix,
                vrf: vrf.clone(),
                metric: place.metric,
                packets: packets.wrapping_sub(from.0),
                bytes: bytes.wrapping_sub(from.1),
            }
        });
        counts.collect()
    }
}
