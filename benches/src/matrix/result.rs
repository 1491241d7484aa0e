//! What came of the rounds: samples, their medians, and ratios within each round.

use super::device::{SWITCH, TESTPMD};
use super::search::Bounds;
use crate::cycles::median;
use serde::{Deserialize, Deserializer, Serialize};

/// Everything, as it is kept in `docs/peers.json`: of as many runs as it took. What is of different runs is in no ratio together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Runs of which something is kept, the oldest first.
    pub runs: Vec<Run>,
    /// Devices that were not there, or could not be set up.
    pub skipped: Vec<Skipped>,
    /// One for each task, traffic and device; of those that others are held against, one for each run that is needed.
    pub rows: Vec<Row>,
    /// The pipelines by themselves.
    #[serde(default)]
    pub alone: Vec<Alone>,
    /// What changes cost.
    pub changes: Vec<Change>,
}

/// A run of the command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// When it began, UTC: its name, too.
    pub began: String,
    /// What it was on.
    pub machine: String,
    /// Of which source the switch was.
    pub revision: String,
    /// By which command.
    pub command: String,
    /// Devices: name, version, configuration.
    pub devices: Vec<[String; 3]>,
}

/// Something that was not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// In which run.
    pub run: String,
    /// A device, or a device and a task.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A device at a task under a load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// In which run.
    pub run: String,
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Of the run: rounds are compared only with those of the same number.
    pub number: usize,
    /// Packets a second that came through at overload.
    pub pps: f64,
    /// Packets a second that were offered then.
    pub offered_pps: f64,
    /// Nanoseconds of the device's core a packet then.
    #[serde(deserialize_with = "or_nan")]
    pub core_ns: f64,
    /// Packets that came as they should not.
    pub wrong: u64,
    /// Throughput without loss.
    pub lossless: Option<Bounds>,
    /// What else there is to say, at parts of that.
    pub at: Vec<At>,
    /// Parts at which there is nothing to say, because the generator did not make the rate.
    #[serde(default)]
    pub unmade: Vec<String>,
}

/// At a part of the throughput without loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct At {
    /// Percent of it.
    pub percent: u32,
    /// Latency, µs; none where the sink only counts.
    pub p50_us: Option<f64>,
    /// Latency, µs.
    pub p99_us: Option<f64>,
    /// Latency, µs.
    pub p999_us: Option<f64>,
    /// Nanoseconds of the device's core a packet.
    #[serde(deserialize_with = "or_nan")]
    pub core_ns: f64,
}

/// JSON has no number for what is none: of no packet, so many nanoseconds each.
fn or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// What a peer, or the switch, loses while it is changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// In which run.
    pub run: String,
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

/// What a packet takes in pipelines that no device is behind: frames come from memory, and go nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alone {
    /// In which run.
    pub run: String,
    /// What was asked for.
    pub task: String,
    /// Of how many flows.
    pub flows: u32,
    /// What came of each round.
    pub rounds: Vec<AloneRound>,
    /// Whether the peer reached what it should beside testpmd.
    pub is_tuned: bool,
}

/// One round of it: nanoseconds of a core a packet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AloneRound {
    /// The switch.
    pub switch_ns: f64,
    /// The same in core cycles.
    pub switch_cycles: f64,
    /// Open vSwitch, what moves its frames included.
    pub ovs_ns: Option<f64>,
    /// testpmd between the same devices: what moving frames takes.
    pub moved_ns: Option<f64>,
    /// testpmd between null ports.
    pub null_ns: Option<f64>,
}

impl Alone {
    /// The median of something over the rounds that have it.
    pub fn middle(&self, of: impl Fn(&AloneRound) -> Option<f64>) -> Option<f64> {
        let all: Vec<f64> = self.rounds.iter().filter_map(of).collect();
        (!all.is_empty()).then(|| median(all))
    }

    /// Open vSwitch's time, without that of moving frames, as a multiple of the switch's.
    pub fn ovs_times(&self) -> Option<f64> {
        self.middle(|round| Some((round.ovs_ns? - round.moved_ns?) / round.switch_ns))
    }

    /// The same of what VPP's cycles would be here.
    pub fn vpp_times(&self, cycles: f64) -> Option<f64> {
        self.middle(|round| Some(crate::vpp::here_ns(cycles, 1e9 / round.null_ns?) / round.switch_ns))
    }
}

impl Change {
    /// For how long the device was as if it stood still: packets lost by the rate, in µs; the median of the rounds.
    pub fn blocked_us(&self) -> f64 {
        median(self.lost.clone()) / self.rate_pps * 1e6
    }
}

/// The throughput without loss of all rounds, Mpps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lossless {
    /// The median of the rates that lost nothing.
    pub lower: f64,
    /// The median of those that lost something.
    pub upper: f64,
    /// The least of the former.
    pub least: f64,
    /// The most of the latter.
    pub most: f64,
    /// Whether something was lost at each of the latter; if not, it may be more.
    pub is_upper_seen: bool,
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

    /// The throughput without loss.
    pub fn lossless(&self) -> Option<Lossless> {
        let all: Vec<Bounds> = self.rounds.iter().filter_map(|round| round.lossless).collect();
        let each = |bound: fn(&Bounds) -> f64| all.iter().map(bound).collect::<Vec<f64>>();
        let (lower, upper) = (each(|bounds| bounds.lower_pps / 1e6), each(|bounds| bounds.upper_pps / 1e6));
        (!all.is_empty()).then(|| Lossless {
            least: lower.iter().copied().fold(f64::INFINITY, f64::min),
            most: upper.iter().copied().fold(0.0, f64::max),
            lower: median(lower),
            upper: median(upper),
            is_upper_seen: all.iter().all(|bounds| bounds.is_upper_seen),
        })
    }

    /// The median of something at so many percent of the throughput without loss.
    pub fn at(&self, percent: u32, of: impl Fn(&At) -> Option<f64>) -> Option<f64> {
        let found = |round: &Round| round.at.iter().find(|at| at.percent == percent).and_then(&of);
        let all: Vec<f64> = self.rounds.iter().filter_map(found).collect();
        (!all.is_empty()).then(|| median(all))
    }

    /// Packets that came as they should not.
    pub fn wrong(&self) -> u64 {
        self.rounds.iter().map(|round| round.wrong).sum()
    }
}

impl Results {
    /// What a device did beside a row: the same task, traffic and run.
    fn beside(&self, row: &Row, device: &str) -> Option<&Row> {
        let is_same =
            |other: &Row| (&other.run, &other.task, &other.traffic) == (&row.run, &row.task, &row.traffic);
        self.rows.iter().find(|other| other.device == device && is_same(other))
    }

    /// The run of this name.
    pub fn run(&self, began: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.began == began)
    }

    /// The rows of a task under a traffic as a picture shows them: the last of each device, on the machine of the last run that has
    /// the switch there.
    pub fn shown(&self, task: &str, traffic: &str) -> Vec<&Row> {
        let here: Vec<&Row> =
            self.rows.iter().filter(|row| row.task == task && row.traffic == traffic).collect();
        let last = here.iter().filter(|row| row.device == SWITCH).map(|row| &row.run).max();
        let machine = |run: &str| self.run(run).map(|run| run.machine.as_str());
        let wanted = last.and_then(|run| machine(run));
        let mut shown: Vec<&Row> = Vec::new();
        for row in here.into_iter().filter(|row| machine(&row.run) == wanted) {
            match shown.iter_mut().find(|other| other.device == row.device) {
                Some(other) if other.run < row.run => *other = row,
                Some(_) => {}
                None => shown.push(row),
            }
        }
        shown
    }

    /// How many times the other's packets a second a device's are: the median of the ratios within each round.
    pub fn times(&self, row: &Row, other: &str) -> Option<f64> {
        let other = self.beside(row, other)?;
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
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    fn row(run: &str, device: &str, pps: [f64; 3]) -> Row {
        Row {
            run: run.into(),
            task: "L2".into(),
            traffic: "64".into(),
            device: device.into(),
            rounds: (0..3).map(|number| Round { number, pps: pps[number], ..Round::default() }).collect(),
            is_tuned: true,
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // A machine that slows down: the medians' ratio would be 1.5, each round's is 2.
        let rows = vec![row("a", SWITCH, [6.0, 4.0, 2.0]), row("a", "peer", [3.0, 2.0, 1.0])];
        let results = Results { rows, ..Results::default() };
        assert_eq!(results.switch_times(&results.rows[1]), Some(2.0));
        assert_eq!(results.switch_times(&results.rows[0]), Some(1.0));
        assert_eq!(results.times_testpmd(&results.rows[0]), None);
    }

    #[test]
    fn ratios_are_of_the_same_run_and_pictures_of_one_machine() {
        let run = |began: &str, machine: &str| Run {
            began: began.into(),
            machine: machine.into(),
            ..Run::default()
        };
        let rows = vec![
            row("1", SWITCH, [9.0; 3]),
            row("1", "elsewhere", [3.0; 3]),
            row("2", SWITCH, [6.0; 3]),
            row("2", "peer", [3.0; 3]),
            row("3", SWITCH, [8.0; 3]),
        ];
        let runs = vec![run("1", "slow"), run("2", "fast"), run("3", "fast")];
        let results = Results { runs, rows, ..Results::default() };
        let times = |n: usize| results.switch_times(&results.rows[n]);
        // Held against the last run of the switch they would be 2.7 both.
        assert_eq!((times(1), times(3)), (Some(3.0), Some(2.0)));
        let shown: Vec<_> = results.shown("L2", "64").iter().map(|row| (&*row.device, &*row.run)).collect();
        assert_eq!(shown, [(SWITCH, "3"), ("peer", "2")]);
    }

    #[test]
    fn what_is_no_number_is_read_as_it_is_written() {
        let at = At { percent: 10, p50_us: None, p99_us: Some(3.0), p999_us: None, core_ns: f64::INFINITY };
        let round = Round { core_ns: f64::NAN, at: vec![at], ..Round::default() };
        let text = serde_json::to_string(&round).unwrap();
        let read: Round = serde_json::from_str(&text).unwrap();
        assert!(read.core_ns.is_nan() && read.at[0].core_ns.is_nan(), "{text}");
        assert_eq!((read.at[0].p50_us, read.at[0].p99_us), (None, Some(3.0)));
    }

    #[test]
    fn what_moving_frames_takes_is_taken_off_the_peer() {
        let round = |ovs_ns| AloneRound {
            switch_ns: 10.0,
            ovs_ns,
            moved_ns: Some(20.0),
            null_ns: Some(1e9 / crate::vpp::NULL_THERE),
            ..AloneRound::default()
        };
        let rounds = vec![round(Some(70.0)), round(None), round(Some(60.0)), round(Some(90.0))];
        let alone = Alone { run: "1".into(), task: "L2".into(), flows: 1, rounds, is_tuned: true };
        assert_eq!(alone.ovs_times(), Some(5.0));
        // As fast between null ports as there: 52 of its cycles are 20 ns.
        assert!((alone.vpp_times(52.0).unwrap() - 2.0).abs() < 1e-9);
        let missing =
            Alone { rounds: vec![AloneRound { switch_ns: 10.0, ..AloneRound::default() }], ..alone };
        assert_eq!((missing.ovs_times(), missing.vpp_times(52.0)), (None, None));
    }
}
