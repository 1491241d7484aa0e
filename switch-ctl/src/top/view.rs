//! What was seen, and what of it is shown: rates are differences of two samples.

use super::talkers::{self, Flows, Talker};
use crate::stats;
use ratatui::crossterm::event::KeyCode;
use std::collections::{HashMap, VecDeque};
use switch_api::{
    DropCount, LaneStatus, Name, PortCounters, PortState, PortStatus, Stats, WorkerStages, WorkerStatus,
};

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
    /// Flows that are kept.
    pub flows: Flows,
}

/// What fills the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// A part of everything.
    #[default]
    Overview,
    /// All of one port.
    Port(Name),
    /// What each stage costs each worker.
    Stages,
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
    /// Cycles a packet, all stages together; none: no packet was timed meanwhile.
    pub cycles: Option<f64>,
}

/// One line of drops. Rates are a second's.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct DropLine {
    pub reason: String,
    pub meaning: String,
    pub port: Name,
    pub rate: f64,
    pub all: u64,
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
    /// What fills the screen.
    pub page: Page,
    selected: Option<Name>,
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
            KeyCode::Char('q') => return false,
            KeyCode::Esc if self.page == Page::Overview => return false,
            KeyCode::Esc | KeyCode::Backspace => self.page = Page::Overview,
            KeyCode::Enter => self.open(),
            KeyCode::Char('w') if self.page == Page::Stages => self.page = Page::Overview,
            KeyCode::Char('w') => self.page = Page::Stages,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Down => self.select(|at| at + 1),
            KeyCode::Up => self.select(|at| at.saturating_sub(1)),
            _ => {}
        }
        true
    }

    /// Where the port that is selected stands; the first, until one is.
    pub fn cursor(&self) -> usize {
        let at = |name: &Name| self.ports().iter().position(|line| line.name == *name);
        self.selected.as_ref().and_then(at).unwrap_or(0)
    }

    fn select(&mut self, to: impl Fn(usize) -> usize) {
        let ports = self.ports();
        let at = to(self.cursor()).min(ports.len().saturating_sub(1));
        self.selected = ports.get(at).map(|line| line.name.clone());
        // On the page of a port: that of the next.
        if let (Page::Port(_), Some(name)) = (&self.page, &self.selected) {
            self.page = Page::Port(name.clone());
        }
    }

    fn open(&mut self) {
        self.select(|at| at);
        if let Some(name) = &self.selected {
            self.page = Page::Port(name.clone());
        }
    }

    /// The last look.
    pub fn last(&self) -> Option<&Sample> {
        self.last.as_ref()
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

    /// Drops by reason and port; the most frequent now first.
    pub fn drops(&self) -> Vec<DropLine> {
        let (Some(last), seconds) = (&self.last, self.seconds()) else { return Vec::new() };
        let rate = |drop: &DropCount| {
            let earlier = self.before.iter().flat_map(|sample| &sample.stats.drops);
            let mut earlier =
                earlier.filter(|other| (&other.reason, &other.port) == (&drop.reason, &drop.port));
            let earlier = earlier.next().map_or(0, |earlier| earlier.frames);
            drop.frames.saturating_sub(earlier) as f64 / seconds
        };
        let line = |drop: &DropCount| DropLine {
            reason: drop.reason.clone(),
            meaning: drop.meaning.clone(),
            port: drop.port.clone(),
            rate: rate(drop),
            all: drop.frames,
        };
        let mut lines: Vec<_> = last.stats.drops.iter().map(line).collect();
        lines.sort_by(|a, b| b.rate.total_cmp(&a.rate).then(b.all.cmp(&a.all)));
        lines
    }

    /// Who speaks with whom, the busiest first; of one port, if one is named.
    pub fn talkers(&self, port: Option<&Name>) -> Vec<Talker> {
        let Some(last) = &self.last else { return Vec::new() };
        let mut talkers =
            talkers::talkers(&last.flows, self.before.as_ref().map(|before| &before.flows), self.seconds());
        talkers.retain(|talker| port.is_none() || talker.port.as_ref() == port);
        talkers
    }

    /// Flows that were not looked at: there are more than a look takes.
    pub fn flows_left_out(&self) -> u32 {
        let left_out =
            |flows: &Flows| flows.all.saturating_sub(u32::try_from(flows.seen.len()).unwrap_or(u32::MAX));
        self.last.as_ref().map_or(0, |last| left_out(&last.flows))
    }

    /// A port's queues, each with the worker that serves it.
    pub fn lanes(&self, port: &Name) -> Vec<(u16, LaneStatus)> {
        let workers = self.last.iter().flat_map(|last| &last.workers);
        let lanes = workers.flat_map(|worker| worker.lanes.iter().map(|lane| (worker.id, lane.clone())));
        let mut lanes: Vec<_> = lanes.filter(|(_, lane)| lane.port == *port).collect();
        lanes.sort_by_key(|(_, lane)| lane.queue);
        lanes
    }

    /// What each stage costs each worker, between the last two looks.
    pub fn stages(&self) -> Vec<WorkerStages> {
        let (Some(last), Some(before)) = (&self.last, &self.before) else { return Vec::new() };
        stats::since(&before.stats.worker_stages, last.stats.worker_stages.clone())
    }

    /// Workers.
    pub fn workers(&self) -> Vec<WorkerLine> {
        let (Some(last), seconds) = (&self.last, self.seconds()) else { return Vec::new() };
        let stages = self.stages();
        let cycles = |id: u16| {
            let stages = &stages.iter().find(|of| of.worker == id).filter(|of| !of.stages.is_empty())?.stages;
            Some(stages.iter().map(|stage| stage.cycles_per_packet).sum())
        };
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
                cycles: cycles(worker.id),
            }
        };
        last.workers.iter().map(line).collect()
    }
}
