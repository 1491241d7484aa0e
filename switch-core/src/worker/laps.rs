//! Cycles per stage, of the batches that are sampled.

use crate::counter::{Counters, Laps, Stage};
use quanta::Clock;

/// A stop watch that is read after each stage.
#[derive(Debug)]
pub struct StopWatch<'a> {
    clock: &'a Clock,
    last: u64,
    laps: [u64; Stage::ALL.len()],
}

impl<'a> StopWatch<'a> {
    /// Running from now.
    pub fn start(clock: &'a Clock) -> Self {
        Self { clock, last: clock.raw(), laps: [0; Stage::ALL.len()] }
    }

    /// Adds what was measured to the counters, for `packets` packets.
    pub fn book(&self, counters: &Counters, packets: usize) {
        for stage in Stage::ALL {
            let lap = self.laps[stage as usize];
            if lap > 0 {
                counters.stage(stage).cycles.add(lap);
                counters.stage(stage).packets.add(packets as u64);
                counters.stage(stage).vectors.add(1);
            }
        }
    }
}

impl Laps for StopWatch<'_> {
    #[inline(always)]
    fn lap(&mut self, stage: Stage) {
        let now = self.clock.raw();
        self.laps[stage as usize] += now.wrapping_sub(self.last);
        self.last = now;
    }
}
