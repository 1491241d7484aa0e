//! What was seen, and what of it is shown: rates are differences of two samples.

use ratatui::crossterm::event::KeyCode;
use std::collections::{HashMap, VecDeque};
use switch_api::{Name, PortCounters, PortState, PortStatus, Stats, WorkerStatus};

/// Looks of which a port's line shows the rates.
pub const HISTORY: usize = 16;

/// One look at the switch.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When, in seconds since the first.
    pub at_s: f64,
    /// Counters.
    pub stats: Stats,
    /// Ports.
    pub ports: Vec<PortStatus>,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
}

/// In which order ports stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The busiest first.
    #[default]
    Rate,
    /// Those that drop most first.
    Drops,
    /// By name.
    Name,
}

impl Order {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Drops => "drops",
            Self::Name => "name",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Rate => Self::Drops,
            Self::Drops => Self::Name,
            Self::Name => Self::Rate,
        }
    }
}

/// One port's line. Rates are a second's.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct PortLine {
    pub name: Name,
    pub state: PortState,
    pub rx_packets: f64,
    pub rx_bits: f64,
    pub tx_packets: f64,
    pub tx_bits: f64,
    pub drops: f64,
    /// Packets a second, both ways, of the last looks.
    pub history: Vec<f64>,
}

/// One worker's line.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct WorkerLine {
    pub id: u16,
    pub core: Option<usize>,
    /// Turns that had a frame, of all, in percent; a worker that sleeps has few turns at all.
    pub busy_percent: f64,
    pub turns: f64,
    pub sleeps: f64,
    pub lanes: usize,
    pub free: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct View {
    last: Option<Sample>,
    before: Option<Sample>,
    history: HashMap<Name, VecDeque<f64>>,
    /// In which order ports stand.
    pub order: Order,
    /// Nothing new is shown.
    pub paused: bool,
    /// Ports that are scrolled over.
    pub skip: usize,
}

impl View {
    /// One look more; not while paused.
    pub fn add(&mut self, sample: Sample) {
        if self.paused {
            return;
        }
        self.before = self.last.replace(sample);
        let rates: Vec<_> = self
            .port_rates()
            .into_iter()
            .map(|line| (line.name, line.rx_packets + line.tx_packets))
            .collect();
        self.history.retain(|name, _| rates.iter().any(|(present, _)| present == name));
        for (name, rate) in rates {
            let history = self.history.entry(name).or_default();
            history.push_back(rate);
            if history.len() > HISTORY {
                history.pop_front();
            }
        }
    }

    /// A key; whether to go on.
    pub fn key(&mut self, key: KeyCode) -> bool {
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Down => self.skip = (self.skip + 1).min(self.ports_len().saturating_sub(1)),
            KeyCode::Up => self.skip = self.skip.saturating_sub(1),
            _ => {}
        }
        true
    }

    /// The last look.
    pub fn last(&self) -> Option<&Sample> {
        self.last.as_ref()
    }

    fn ports_len(&self) -> usize {
        self.last.as_ref().map_or(0, |last| last.ports.len())
    }

    fn seconds(&self) -> f64 {
        match (&self.last, &self.before) {
            (Some(last), Some(before)) => (last.at_s - before.at_s).max(1e-3),
            _ => f64::INFINITY,
        }
    }

    fn port_rates(&self) -> Vec<PortLine> {
        let (Some(last), seconds) = (&self.last, self.seconds()) else { return Vec::new() };
        let line = |port: &PortStatus| {
            let name = &port.port.name;
            let earlier = self.before.iter().flat_map(|sample| &sample.ports);
            let earlier = earlier.into_iter().find(|earlier| earlier.port.name == *name);
            let earlier = earlier.map_or(port.counters, |earlier| earlier.counters);
            // A port that was made anew counts from zero again.
            let rate = |of: fn(&PortCounters) -> u64| {
                of(&port.counters).saturating_sub(of(&earlier)) as f64 / seconds
            };
            PortLine {
                name: name.clone(),
                state: port.state,
                rx_packets: rate(|counters| counters.rx_packets),
                rx_bits: rate(|counters| counters.rx_bytes) * 8.0,
                tx_packets: rate(|counters| counters.tx_packets),
                tx_bits: rate(|counters| counters.tx_bytes) * 8.0,
                drops: rate(|counters| counters.drops),
                history: Vec::new(),
            }
        };
        last.ports.iter().map(line).collect()
    }

    /// Ports, in their order.
    pub fn ports(&self) -> Vec<PortLine> {
        let mut lines = self.port_rates();
        for line in &mut lines {
            line.history = self.history.get(&line.name).into_iter().flatten().copied().collect();
        }
        let rate = |line: &PortLine| line.rx_packets + line.tx_packets;
        match self.order {
            Order::Rate => lines.sort_by(|a, b| rate(b).total_cmp(&rate(a)).then(a.name.cmp(&b.name))),
            Order::Drops => lines.sort_by(|a, b| b.drops.total_cmp(&a.drops).then(a.name.cmp(&b.name))),
            Order::Name => lines.sort_by(|a, b| a.name.cmp(&b.name)),
        }
        lines
    }

    /// Drop reasons: name, port, frames a second, frames in all; the most frequent now first.
    pub fn drops(&self) -> Vec<(String, Name, f64, u64)> {
        let (Some(last), seconds) = (&self.last, self.seconds()) else { return Vec::new() };
        let rate = |drop: &switch_api::DropCount| {
            let earlier = self.before.iter().flat_map(|sample| &sample.stats.drops);
            let mut earlier =
                earlier.filter(|other| (&other.reason, &other.port) == (&drop.reason, &drop.port));
            let earlier = earlier.next().map_or(0, |earlier| earlier.frames);
            drop.frames.saturating_sub(earlier) as f64 / seconds
        };
        let line =
            |drop: &switch_api::DropCount| (drop.reason.clone(), drop.port.clone(), rate(drop), drop.frames);
        let mut lines: Vec<_> = last.stats.drops.iter().map(line).collect();
        lines.sort_by(|a, b| b.2.total_cmp(&a.2).then(b.3.cmp(&a.3)));
        lines
    }

    /// Workers.
    pub fn workers(&self) -> Vec<WorkerLine> {
        let (Some(last), seconds) = (&self.last, self.seconds()) else { return Vec::new() };
        let line = |worker: &WorkerStatus| {
            let earlier = self.before.iter().flat_map(|sample| &sample.workers);
            let earlier = earlier.into_iter().find(|earlier| earlier.id == worker.id).unwrap_or(worker);
            let turns = worker.turns.saturating_sub(earlier.turns) as f64;
            let empty = worker.empty_turns.saturating_sub(earlier.empty_turns) as f64;
            WorkerLine {
                id: worker.id,
                core: worker.core,
                busy_percent: if turns > 0.0 { 100.0 * (turns - empty) / turns } else { 0.0 },
                turns: turns / seconds,
                sleeps: worker.sleeps.saturating_sub(earlier.sleeps) as f64 / seconds,
                lanes: worker.lanes.len(),
                free: worker.frames.free,
            }
        };
        last.workers.iter().map(line).collect()
    }
}
