//! Counters: one writer, any number of readers, no locked instruction. A worker writes its own; the
//! control thread reads them at any time and sees each one whole.
//!
//! | module | what |
//! |---|---|
//! | [`reason`] | why a frame was dropped: every reason has a name and a sentence |
//! | [`ledger`] | the law that no packet breaks: what came is what went |
//! | [`load`] | what a lane costs its worker |
//! | [`event`] | what else happens and is counted |
//! | [`stage`] | the stages whose cycles are measured, and the clock to measure with |

pub mod event;
pub mod ledger;
pub mod load;
pub mod reason;
pub mod stage;

pub use event::Event;
pub use ledger::Ledger;
pub use load::{LOAD_SAMPLE_EVERY, LaneLoad};
pub use reason::DropReason;
pub use stage::{Laps, NoLaps, Stage};

use crate::prefetch::prefetch;
use crossbeam::utils::CachePadded;
use std::num::NonZeroU16;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only its owner writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owner calls this: two adders would lose counts, not more.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets it.
    #[inline(always)]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

fn counters(n: usize) -> Box<[Counter]> {
    (0..n).map(|_| Counter::default()).collect()
}

/// Traffic of one port at one worker.
#[derive(Debug, Default)]
pub struct PortTraffic {
    /// Frames in.
    pub rx_packets: Counter,
    /// Bytes in.
    pub rx_bytes: Counter,
    /// Frames out.
    pub tx_packets: Counter,
    /// Bytes out.
    pub tx_bytes: Counter,
}

/// What went by one route at one worker.
#[derive(Debug, Default)]
pub struct RouteTraffic {
    /// Packets.
    pub packets: Counter,
    /// Bytes.
    pub bytes: Counter,
}

/// Cycles and packets of one stage, from sampled batches.
#[derive(Debug, Default)]
pub struct StageCounter {
    /// Ticks of the time-stamp counter.
    pub cycles: Counter,
    /// Packets that went through.
    pub packets: Counter,
    /// Vectors that they came in: batches.
    pub vectors: Counter,
}

/// Buckets of the wake-latency histogram: powers of two of a microsecond, the last one open.
pub const WAKE_BUCKETS: usize = 16;

/// How a worker lives.
#[derive(Debug, Default)]
pub struct Life {
    /// Turns.
    pub turns: Counter,
    /// Turns without a frame.
    pub empty_turns: Counter,
    /// Times it rested between two turns (`worker::naps`).
    pub naps: Counter,
    /// Times it slept.
    pub sleeps: Counter,
    /// Snapshot it uses.
    pub generation: Counter,
    /// Frames in its pool.
    pub free: Counter,
    /// Large ones among them.
    pub free_large: Counter,
    /// Frames in its ports' rings.
    pub in_rings: Counter,
    /// Frames in its queues and on their way home.
    pub in_flight: Counter,
    /// Frames it should have by its books.
    pub expected: Counter,
    /// Histogram of wake-up latency; bucket `i` counts those below `2^i` µs.
    pub wake_us: [Counter; WAKE_BUCKETS],
    /// Wake-up latency, all together, microseconds.
    pub wake_sum_us: Counter,
}

/// All counters of one worker.
#[derive(Debug)]
pub struct Counters {
    traffic: Box<[CachePadded<PortTraffic>]>,
    drops: Box<[Counter]>,
    events: Box<[Counter]>,
    stages: [StageCounter; Stage::ALL.len()],
    /// Of rules, once there are any.
    rules: OnceLock<Box<[Counter]>>,
    /// Of counted routes, once there are any.
    routes: OnceLock<Box<[RouteTraffic]>>,
    /// What became of its packets.
    pub ledger: CachePadded<Ledger>,
    /// How it lives.
    pub life: CachePadded<Life>,
}

impl Counters {
    /// For ports `0..ports`.
    pub fn new(ports: usize) -> Self {
        Self {
            traffic: (0..ports).map(|_| CachePadded::default()).collect(),
            drops: counters(ports * DropReason::ALL.len()),
            events: counters(Event::ALL.len()),
            stages: Default::default(),
            rules: OnceLock::new(),
            routes: OnceLock::new(),
            ledger: CachePadded::default(),
            life: CachePadded::default(),
        }
    }

    /// Bytes they take.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.traffic) + size_of_val(&*self.drops)
    }

    /// Traffic of a port.
    #[inline(always)]
    pub fn port(&self, port: u16) -> &PortTraffic {
        &self.traffic[usize::from(port)]
    }

    /// Frames of `port` dropped for `reason`.
    pub fn drops(&self, port: u16, reason: DropReason) -> u64 {
        self.of_drops(port, reason).get()
    }

    /// So many frames of `port`, which nobody here can read, went nowhere, and why: the kernel or a device dropped them.
    #[inline]
    pub fn dropped_unread(&self, port: u16, reason: DropReason, frames: u64) {
        self.dropped(port, reason, frames);
        self.event(Event::DropNameless).add(frames);
    }

    /// So many frames of `port` go nowhere, and why: the only way to drop one. Whoever calls it sees to it that they are told of.
    #[inline(always)]
    pub(crate) fn dropped(&self, port: u16, reason: DropReason, frames: u64) {
        self.of_drops(port, reason).add(frames);
        self.ledger.dropped.add(frames);
    }

    #[inline(always)]
    fn of_drops(&self, port: u16, reason: DropReason) -> &Counter {
        &self.drops[usize::from(port) * DropReason::ALL.len() + reason as usize]
    }

    /// An event.
    #[inline(always)]
    pub fn event(&self, event: Event) -> &Counter {
        &self.events[event as usize]
    }

    /// Drops that were told of, and those of which it is counted why not: after a turn all of them.
    pub fn told_of(&self) -> u64 {
        Event::ABOUT_DROPS.iter().map(|event| self.event(*event).get()).sum()
    }

    /// A stage's cost.
    #[inline(always)]
    pub fn stage(&self, stage: Stage) -> &StageCounter {
        &self.stages[stage as usize]
    }

    /// Makes room for so many rules, once and for all. Before the first snapshot that has any.
    pub fn make_rules(&self, rules: usize) {
        self.rules.get_or_init(|| counters(rules));
    }

    /// What a rule decided; none without [`Self::make_rules`].
    #[inline]
    pub fn rule(&self, slot: u32) -> Option<&Counter> {
        self.rules.get()?.get(slot as usize)
    }

    /// Asks for what [`Self::rule`] will say.
    #[inline]
    pub fn touch_rule(&self, slot: u32) {
        if let Some(counter) = self.rule(slot) {
            prefetch(counter);
        }
    }

    /// What every rule decided, by their slots; nothing without [`Self::make_rules`].
    pub fn rules(&self) -> &[Counter] {
        self.rules.get().map_or(&[], |all| all)
    }

    /// Makes room for so many counted routes, once and for all. Before the first snapshot that has any.
    pub fn make_routes(&self, routes: usize) {
        self.routes.get_or_init(|| (0..routes).map(|_| RouteTraffic::default()).collect());
    }

    /// What went by the route with this counter; none without [`Self::make_routes`].
    #[inline]
    pub fn route(&self, counter: NonZeroU16) -> Option<&RouteTraffic> {
        self.routes.get()?.get(usize::from(counter.get()) - 1)
    }

    /// Starts a port's numbers at zero: a new port has this number now. Its former owner's worker has
    /// let go of it, so nobody writes meanwhile.
    pub fn clear_port(&self, port: u16) {
        let traffic = self.port(port);
        for counter in [&traffic.rx_packets, &traffic.rx_bytes, &traffic.tx_packets, &traffic.tx_bytes] {
            counter.set(0);
        }
        DropReason::ALL.iter().for_each(|reason| self.of_drops(port, *reason).set(0));
    }
}
