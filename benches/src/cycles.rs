//! What a cycle is here. This kind of machine has no hardware counters, only the time-stamp counter, which
//! ticks at its own rate whatever the core's clock does. A loop whose length in core cycles is known says
//! how many core cycles a tick is: a chain of dependent 64-bit multiplications, 3 cycles each on every
//! x86-64 core since 2008.

use quanta::Clock;
use std::hint::black_box;

/// Packets of each flow, or from each station, that go before anything is timed: what is measured is what goes on, and while a bench waits
/// for its turn the shared cache is emptied by the others, and by whoever else is on the machine.
pub const WARM_PACKETS: usize = 2;

const LINKS: u64 = 2_000_000;
/// One for the `or`, three for the multiplication; no compiler can fold the square of what it does not know.
const CYCLES_A_LINK: f64 = 4.0;

/// Core cycles a tick of the counter, now. The best of several: a disturbance only makes it smaller.
pub fn per_tick(clock: &Clock) -> f64 {
    let measure = |_| {
        let start = clock.raw();
        let mut product = black_box(3u64);
        for _ in 0..LINKS {
            product = product.wrapping_mul(product | 1);
        }
        black_box(product);
        (LINKS as f64 * CYCLES_A_LINK) / (clock.raw() - start) as f64
    };
    (0..9).map(measure).fold(0.0, f64::max)
}

/// The middle of a list.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
