//! `pipeline/*`: a batch through all stages, over and over; what comes out is looked at.

use super::{Case, Work};
use crate::{flows, pipeline, routed, rules};
use quanta::Clock;
use switch_core::frame::BATCH_FRAMES;
use switch_core::table::flow::FLOWS_DEFAULT;

const ITEMS: u64 = BATCH_FRAMES as u64;

pub(super) const CASES: &[Case] = &[
    Case { id: "pipeline/bridged/2-macs", items: ITEMS, is_on_path: true, make: || bridged(1) },
    Case { id: "pipeline/bridged/2000-macs", items: ITEMS, is_on_path: true, make: || bridged(1_000) },
    Case { id: "pipeline/bridged/100000-macs", items: ITEMS, is_on_path: true, make: || bridged(50_000) },
    Case { id: "pipeline/routed/10-routes", items: ITEMS, is_on_path: true, make: || routed(10) },
    Case { id: "pipeline/routed/1000000-routes", items: ITEMS, is_on_path: true, make: || routed(1_000_000) },
    Case {
        id: "pipeline/policy/1000-flows-10-rules",
        items: ITEMS,
        is_on_path: true,
        make: || policed(1_000, 10),
    },
    Case {
        id: "pipeline/policy/1000-flows-10000-rules",
        items: ITEMS,
        is_on_path: true,
        make: || policed(1_000, 10_000),
    },
    Case {
        id: "pipeline/policy/100000-flows-10-rules",
        items: ITEMS,
        is_on_path: true,
        make: || policed(100_000, 10),
    },
    Case { id: "pipeline/nat/1000-flows-out", items: ITEMS, is_on_path: true, make: || masked(1_000) },
    Case { id: "pipeline/nat/1000-flows-back", items: ITEMS, is_on_path: true, make: answers },
    Case { id: "pipeline/nat/100000-flows-out", items: ITEMS, is_on_path: true, make: || masked(100_000) },
    Case {
        id: "pipeline/new-flow/tracked",
        items: ITEMS,
        is_on_path: true,
        make: || Box::new(FirstPackets::new()),
    },
    Case { id: "pipeline/denied/policy", items: ITEMS, is_on_path: true, make: denied },
];

fn bridged(pairs: u32) -> Box<dyn Work> {
    Box::new(Bridged { bench: pipeline::Bench::new(pairs), port: 0 })
}

struct Bridged {
    bench: pipeline::Bench,
    port: usize,
}

impl Work for Bridged {
    fn prepare(&mut self) {
        self.bench.fill(self.port);
    }

    fn run(&mut self) {
        self.bench.go(self.port);
    }

    fn settle(&mut self) {
        self.bench.drain(self.port, true);
        self.port = 1 - self.port;
    }
}

fn routed(routes: usize) -> Box<dyn Work> {
    Box::new(Routed { bench: routed::Bench::new(routes, 1_000), clock: Clock::new(), seed: 7 })
}

fn policed(flows: usize, rules: u32) -> Box<dyn Work> {
    let bench = routed::Bench::policed(10, flows, rules).unwrap_or_else(|error| panic!("{error}"));
    Box::new(Routed { bench, clock: Clock::new(), seed: 7 })
}

fn masked(flows: usize) -> Box<dyn Work> {
    let bench = routed::Bench::masked(10, flows).unwrap_or_else(|error| panic!("{error}"));
    Box::new(Routed { bench, clock: Clock::new(), seed: 7 })
}

fn answers() -> Box<dyn Work> {
    let bench = routed::Bench::masked(10, 1_000).unwrap_or_else(|error| panic!("{error}"));
    Box::new(Answers(Routed { bench, clock: Clock::new(), seed: 7 }))
}

/// What comes back to flows that are translated.
struct Answers(Routed);

impl Work for Answers {
    fn prepare(&mut self) {
        self.0.bench.fill_back(&mut self.0.seed);
    }

    fn run(&mut self) {
        self.0.bench.go_back(&self.0.clock);
    }

    fn settle(&mut self) {
        self.0.bench.drain_back();
    }
}

struct Routed {
    bench: routed::Bench,
    clock: Clock,
    seed: u64,
}

impl Work for Routed {
    fn prepare(&mut self) {
        self.bench.fill(&mut self.seed);
    }

    fn run(&mut self) {
        self.bench.go(&self.clock);
    }

    fn settle(&mut self) {
        self.bench.drain();
    }
}

/// SYNs of flows that never were, on a tracked port.
struct FirstPackets {
    bench: flows::Bench,
    clock: Clock,
    next: u32,
    came: u64,
}

impl FirstPackets {
    fn new() -> Self {
        let bench = flows::Bench::new(FLOWS_DEFAULT, true);
        Self { came: bench.new_flows(), bench, clock: Clock::new(), next: 0 }
    }
}

impl Work for FirstPackets {
    fn prepare(&mut self) {
        self.bench.syns(self.next);
        self.next += ITEMS as u32;
    }

    fn run(&mut self) {
        self.bench.go(&self.clock, 0);
    }

    fn settle(&mut self) {
        assert_eq!(self.bench.drain()[1], BATCH_FRAMES, "a first packet did not pass");
        assert_eq!(self.bench.new_flows() - self.came, ITEMS, "not every packet began a flow");
        self.came += ITEMS;
    }
}

/// UDP that no rule admits, to a port that policies isolate.
fn denied() -> Box<dyn Work> {
    let policies = rules::policies(10).unwrap_or_else(|error| panic!("{error}"));
    Box::new(Denied { bench: flows::Bench::policed(FLOWS_DEFAULT, &policies), clock: Clock::new(), next: 0 })
}

struct Denied {
    bench: flows::Bench,
    clock: Clock,
    next: u32,
}

impl Work for Denied {
    fn prepare(&mut self) {
        self.bench.strangers(self.next);
        self.next += ITEMS as u32;
    }

    fn run(&mut self) {
        self.bench.go(&self.clock, 0);
    }

    fn settle(&mut self) {
        assert_eq!(self.bench.drain()[1], 0, "a packet passed that no rule admits");
    }
}
