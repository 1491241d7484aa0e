//! What came of the rounds: samples, their medians, and ratios within each round.

use super::device::{SWITCH, TESTPMD};
use super::search::Bounds;
use crate::cycles::median;
use serde::{Deserialize, Serialize};

/// Everything, as it is kept in `docs/peers.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// What it was measured on.
    pub machine: String,
    /// By which command.
    pub command: String,
    /// Devices: name, version, configuration.
    pub devices: Vec<[String; 3]>,
    /// Those that were not there, or could not be set up, and why.
    pub skipped: Vec<[String; 2]>,
    /// One for each task, traffic and device.
    pub rows: Vec<Row>,
    /// What changes cost.
    pub changes: Vec<Change>,
}

/// A device at a task under a load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What it was asked to do.
    pub task: String,
    /// Under which traffic.
    pub traffic: String,
    /// Its name.
    pub device: String,
    /// What came of each round.
    pub rounds: Vec<Round>,
    /// Whether it reached what it should beside testpmd; nothing is known of most.
    pub is_tuned: bool,
}

/// One round of a device.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Round {
    /// Of the run: rounds are compared only with those of the same number.
    pub number: usize,
    /// Packets a second that came through at overload.
    pub pps: f64,
    /// Packets a second that were offered then.
    pub offered_pps: f64,
    /// Nanoseconds of the device's core a packet then.
    pub core_ns: f64,
    /// Packets that came as they should not.
    pub wrong: u64,
    /// Throughput without loss.
    pub lossless: Option<Bounds>,
    /// What else there is to say, at parts of that.
    pub at: Vec<At>,
}

/// At a part of the throughput without loss.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct At {
    /// Percent of it.
    pub percent: u32,
    /// Latency, µs.
    pub p50_us: f64,
    /// Latency, µs.
    pub p99_us: f64,
    /// Latency, µs.
    pub p999_us: f64,
    /// Nanoseconds of the device's core a packet.
    pub core_ns: f64,
}

/// What a peer, or the switch, loses while it is changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Its name.
    pub device: String,
    /// What was changed, and how often a second.
    pub what: String,
    /// Packets that were lost, of each round.
    pub lost: Vec<f64>,
    /// Packets that were lost in the same time without changes, in turn with that.
    pub quiet: Vec<f64>,
    /// Packets a second beside.
    pub rate_pps: f64,
}

impl Change {
    /// For how long the device was as if it stood still: packets lost by the rate, in µs; the median of the rounds.
    pub fn blocked_us(&self) -> f64 {
        median(self.lost.clone()) / self.rate_pps * 1e6
    }
}

impl Row {
    /// The median of something over the rounds.
    pub fn middle(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// Mpps at overload: median, least, most.
    pub fn mpps(&self) -> (f64, f64, f64) {
        let all: Vec<f64> = self.rounds.iter().map(|round| round.pps / 1e6).collect();
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        let most = all.iter().copied().fold(0.0, f64::max);
        (median(all), least, most)
    }

    /// Bounds of the throughput without loss: the median of each, Mpps.
    pub fn lossless(&self) -> Option<(f64, f64)> {
        let all: Vec<Bounds> = self.rounds.iter().filter_map(|round| round.lossless).collect();
        let of = |bound: fn(&Bounds) -> f64| median(all.iter().map(bound).collect()) / 1e6;
        (!all.is_empty()).then(|| (of(|bounds| bounds.lower_pps), of(|bounds| bounds.upper_pps)))
    }

    /// The median of something at so many percent of the throughput without loss.
    pub fn at(&self, percent: u32, of: impl Fn(&At) -> f64) -> Option<f64> {
        let found = |round: &Round| round.at.iter().find(|at| at.percent == percent).map(&of);
        let all: Vec<f64> = self.rounds.iter().filter_map(found).collect();
        (!all.is_empty()).then(|| median(all))
    }

    /// Packets that came as they should not.
    pub fn wrong(&self) -> u64 {
        self.rounds.iter().map(|round| round.wrong).sum()
    }
}

impl Results {
    /// The row of a device at a task under a traffic.
    pub fn row(&self, task: &str, traffic: &str, device: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.task == task && row.traffic == traffic && row.device == device)
    }

    /// How many times the other's packets a second a device's are: the median of the ratios within each round.
    pub fn times(&self, row: &Row, other: &str) -> Option<f64> {
        let other = self.row(&row.task, &row.traffic, other)?;
        let ratios = row.rounds.iter().filter_map(|round| {
            let beside = other.rounds.iter().find(|beside| beside.number == round.number)?;
            Some(round.pps / beside.pps)
        });
        let ratios: Vec<f64> = ratios.collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }

    /// The switch's packets a second as a multiple of a row's.
    pub fn switch_times(&self, row: &Row) -> Option<f64> {
        self.times(row, SWITCH).map(|times| 1.0 / times)
    }

    /// A row's packets a second as a multiple of testpmd's.
    pub fn times_testpmd(&self, row: &Row) -> Option<f64> {
        self.times(row, TESTPMD)
    }

    /// Tasks, or traffics of a task, in the order in which they came.
    pub fn each<'a>(&'a self, of: impl Fn(&'a Row) -> &'a str) -> Vec<&'a str> {
        let mut all = Vec::new();
        for row in &self.rows {
            if !all.contains(&of(row)) {
                all.push(of(row));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let row = |device: &str, pps: [f64; 3]| Row {
            task: "L2".into(),
            traffic: "64".into(),
            device: device.into(),
            rounds: (0..3).map(|number| Round { number, pps: pps[number], ..Round::default() }).collect(),
            is_tuned: true,
        };
        // A machine that slows down: the medians' ratio would be 1.5, each round's is 2.
        let rows = vec![row(SWITCH, [6.0, 4.0, 2.0]), row("peer", [3.0, 2.0, 1.0])];
        let results = Results { rows, ..Results::default() };
        assert_eq!(results.switch_times(&results.rows[1]), Some(2.0));
        assert_eq!(results.switch_times(&results.rows[0]), Some(1.0));
        assert_eq!(results.times_testpmd(&results.rows[0]), None);
    }
}
