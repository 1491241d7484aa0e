//! `worker/*`: whole turns, with all that lies between the ports and the stages: lanes, queues, parcels for another worker, frames
//! that come home to the pool that they are of.

use super::{Case, Work};
use switch_api::{MemorySource, PortSettings};
use switch_core::frame::BATCH_FRAMES;
use switch_core::pipeline::Now;
use switch_core::port::traffic::TrafficPort;
use switch_core::rig::{Rig, Size};

/// What a turn takes in.
const ITEMS: u64 = BATCH_FRAMES as u64;
/// Between two turns, nanoseconds.
const TURN_NS: u64 = 50_000;
/// Turns until all that is learned is learned and every queue has had its fill.
const WARM_UP: u32 = 200;

pub(super) const CASES: &[Case] = &[
    Case { id: "worker/one", items: 2 * ITEMS, is_on_path: true, make: || Box::new(Turns::new(1)) },
    Case { id: "worker/two", items: 2 * ITEMS, is_on_path: true, make: || Box::new(Turns::new(2)) },
];

/// Two ports that send to each other as fast as they are asked, each served by a worker, or both by one.
struct Turns {
    rig: Rig,
    now: Now,
    sent: u64,
}

impl Turns {
    fn new(workers: usize) -> Self {
        let mut rig = Rig::new(Size { workers, ..Size::default() });
        for (n, name) in ["a", "b"].into_iter().enumerate() {
            let source = MemorySource { flows: 1000, frame_len: 60, seed: 7, reverse: n == 1, rate_pps: 0 };
            let port = Box::new(TrafficPort::new(Some(&source)));
            let worker = (n % workers) as u16;
            rig.add_port(name, PortSettings::default(), port, worker)
                .unwrap_or_else(|error| panic!("{error}"));
        }
        let mut turns = Self { rig, now: Now::default(), sent: 0 };
        for _ in 0..WARM_UP {
            turns.run();
        }
        turns.sent = turns.sent();
        turns
    }

    fn sent(&self) -> u64 {
        let of = |counters: &std::sync::Arc<switch_core::counter::Counters>| {
            (0..2).map(|port| counters.port(port).tx_packets.get()).sum::<u64>()
        };
        self.rig.counters.iter().map(of).sum()
    }
}

impl Work for Turns {
    fn run(&mut self) {
        for turn in &mut self.rig.turns {
            turn.run(self.now);
        }
        self.now.ns += TURN_NS;
    }

    fn settle(&mut self) {
        let sent = self.sent();
        assert!(sent >= self.sent + ITEMS, "frames do not get through: {} of {ITEMS}", sent - self.sent);
        self.sent = sent;
    }
}
