//! Throughput without loss: the highest rate at which nothing is lost, between two bounds (RFC 2544 §26.1; how the search is
//! kept short and its result honest is from draft-ietf-bmwg-mlrsearch).
//!
//! A rate that lost something is tried once more, and counts as too high only if it loses again: a virtual machine
//! loses its core to others now and then, which says nothing of the device. What is handed out is the interval: at the lower
//! bound nothing was lost, at the upper one something was, twice.

use crate::flood::{Load, Path};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The search ends when the bounds are so near each other, as a part of the upper one.
const WIDTH: f64 = 0.04;
/// Or after so many rates: time is bounded.
const RATES_MAX: usize = 7;
/// First guess, as a part of what came through at overload.
const FIRST: f64 = 0.9;
/// Of each trial; the moments before count as well.
pub const TRIAL: Duration = Duration::from_millis(500);
/// The moments before.
const WARM_UP: Duration = Duration::from_millis(100);

/// Packets a second between which the throughput without loss is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Nothing was lost at this rate, or it is 0.
    pub lower_pps: f64,
    /// Something was lost at this rate, twice.
    pub upper_pps: f64,
}

/// Searches below `ceiling_pps`, which is what came through at overload.
pub fn lossless(path: &mut Path<'_>, load: Load, ceiling_pps: f64) -> Result<Bounds, String> {
    search(ceiling_pps, |rate_pps| {
        let trial = Load { rate_pps, warm_up: WARM_UP, window: TRIAL, ..load };
        for _ in 0..2 {
            let flooded = path.run(trial)?;
            // A generator that did not reach the rate says nothing of it.
            if flooded.lost == 0 && flooded.offered_pps >= 0.97 * rate_pps as f64 {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// The same over any trial: whether nothing is lost at a rate.
fn search(
    ceiling_pps: f64,
    mut is_lossless: impl FnMut(u64) -> Result<bool, String>,
) -> Result<Bounds, String> {
    let mut bounds = Bounds { lower_pps: 0.0, upper_pps: ceiling_pps * 1.1 };
    let mut rate = ceiling_pps * FIRST;
    for _ in 0..RATES_MAX {
        if is_lossless(rate as u64)? {
            bounds.lower_pps = rate;
        } else {
            bounds.upper_pps = rate;
        }
        if bounds.upper_pps - bounds.lower_pps <= WIDTH * bounds.upper_pps {
            break;
        }
        // Far below the ceiling halving is too slow a way to find any rate that passes; near it, it is not.
        rate = (bounds.lower_pps + bounds.upper_pps) / 2.0;
    }
    Ok(bounds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    #[test]
    fn the_bounds_close_around_what_a_device_can() {
        for can in [900_000, 500_000, 1_000_000, 130_000] {
            let mut trials = 0;
            let bounds = search(1_000_000.0, |rate| {
                trials += 1;
                Ok(rate <= can)
            })
            .unwrap();
            let can = can as f64;
            assert!(bounds.lower_pps <= can && can < bounds.upper_pps, "{can}: {bounds:?}");
            // As near as is wanted, or as so many rates can tell: a 64th of the ceiling.
            let width = (WIDTH * bounds.upper_pps).max(1_000_000.0 / 64.0);
            assert!(bounds.upper_pps - bounds.lower_pps <= width, "{can}: {bounds:?} after {trials}");
        }
        // A device that always loses has a lower bound of nothing, and it is not looked for for ever.
        let mut trials = 0;
        let none = search(1_000_000.0, |_| {
            trials += 1;
            Ok(false)
        });
        assert!(none.unwrap().lower_pps == 0.0 && trials <= RATES_MAX);
    }
}
