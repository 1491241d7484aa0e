//! How long requests take, by method: from the line that is whole to the answer that can be sent. For `stats.get`.

use std::collections::BTreeMap;
use std::time::Duration;
use switch_api::RequestLatency;

/// Upper bounds, microseconds: an answer from memory, a change that every worker has taken, one that opened a device, and what
/// waits for a kernel that has much to do. 5 ms is what a change may take.
const BOUNDS_US: [u64; 9] = [100, 250, 500, 1_000, 2_500, 5_000, 25_000, 100_000, 1_000_000];

#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// One for each bound, and one for what took longer.
    counts: [u64; BOUNDS_US.len() + 1],
    sum: Duration,
    longest: Duration,
}

/// See the module. Methods that there are not are not noted, so that it is bounded.
#[derive(Debug, Default)]
pub struct Latencies(BTreeMap<String, Taken>);

impl Latencies {
    /// A request of this method took so long.
    pub fn note(&mut self, method: &str, took: Duration) {
        if !self.0.contains_key(method) {
            self.0.insert(method.to_owned(), Taken::default());
        }
        let Some(taken) = self.0.get_mut(method) else { return };
        let us = took.as_micros() as u64;
        taken.counts[BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        taken.sum += took;
        taken.longest = taken.longest.max(took);
    }

    /// As it is told.
    pub fn list(&self) -> Vec<RequestLatency> {
        let bounds = || BOUNDS_US.iter().map(|bound| Some(*bound)).chain([None]);
        let told = self.0.iter().map(|(method, taken)| RequestLatency {
            method: method.clone(),
            count: taken.counts.iter().sum(),
            sum_ns: taken.sum.as_nanos() as u64,
            longest_ns: taken.longest.as_nanos() as u64,
            within_us: bounds().zip(taken.counts).collect(),
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_once_within_its_bound() {
        let mut latencies = Latencies::default();
        for us in [0, 100, 101, 5_000, 5_001, 2_000_000] {
            latencies.note("port.set", Duration::from_micros(us));
        }
        latencies.note("status", Duration::from_micros(1));
        let list = latencies.list();
        assert_eq!(list.len(), 2);
        let counts: Vec<_> = list[0].within_us.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 1, 1, 0, 0, 1]);
        assert_eq!(list[0].within_us.last(), Some(&(None, 1)));
        assert_eq!((list[0].count, list[0].longest_ns), (6, 2_000_000_000));
        assert_eq!(list[0].sum_ns, 2_010_202_000);
    }
}
