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
/// A rate of which less than this part was made says nothing.
const MADE: f64 = 0.97;
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
    /// Something was lost at this rate, twice, if [`Self::is_upper_seen`]; else it is where the search ended.
    pub upper_pps: f64,
    /// Whether a loss was seen at the upper one: not if the generator did not make a rate, or none of those that were tried lost anything.
    #[serde(default)]
    pub is_upper_seen: bool,
}

/// What came of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// Everything arrived.
    Whole,
    /// Something did not, twice.
    Lossy,
    /// The generator did not make so much, which says nothing of the device.
    Unmade,
}

/// Searches below `ceiling_pps`, which is what came through at overload.
pub fn lossless(path: &mut Path<'_>, load: Load, ceiling_pps: f64) -> Result<Bounds, String> {
    search(ceiling_pps, |rate_pps| {
        let trial = Load { rate_pps, warm_up: WARM_UP, window: TRIAL, ..load };
        let mut came = Trial::Unmade;
        for _ in 0..2 {
            let flooded = path.run(trial)?;
            let is_made = flooded.offered_pps >= MADE * rate_pps as f64;
            match (flooded.lost, is_made) {
                (0, true) => return Ok(Trial::Whole),
                (0, false) => {}
                // Of fewer packets something was lost: of more it would be.
                (..) => came = Trial::Lossy,
            }
        }
        Ok(came)
    })
}

/// The same over any trial.
fn search(
    ceiling_pps: f64,
    mut try_rate: impl FnMut(u64) -> Result<Trial, String>,
) -> Result<Bounds, String> {
    let mut bounds = Bounds { lower_pps: 0.0, upper_pps: ceiling_pps * 1.1, is_upper_seen: false };
    let mut rate = ceiling_pps * FIRST;
    for _ in 0..RATES_MAX {
        match try_rate(rate as u64)? {
            Trial::Whole => bounds.lower_pps = rate,
            came => (bounds.upper_pps, bounds.is_upper_seen) = (rate, came == Trial::Lossy),
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
                Ok(if rate <= can { Trial::Whole } else { Trial::Lossy })
            })
            .unwrap();
            let can = can as f64;
            assert!(bounds.lower_pps <= can && can < bounds.upper_pps, "{can}: {bounds:?}");
            // As near as is wanted, or as so many rates can tell: a 64th of the ceiling.
            let width = (WIDTH * bounds.upper_pps).max(1_000_000.0 / 64.0);
            assert!(bounds.upper_pps - bounds.lower_pps <= width, "{can}: {bounds:?} after {trials}");
            assert!(bounds.is_upper_seen, "{can}: {bounds:?}");
        }
        // A device that always loses has a lower bound of nothing, and it is not looked for for ever.
        let mut trials = 0;
        let none = search(1_000_000.0, |_| {
            trials += 1;
            Ok(Trial::Lossy)
        });
        assert!(none.unwrap().lower_pps == 0.0 && trials <= RATES_MAX);
    }

    #[test]
    fn what_the_generator_cannot_make_is_no_loss_of_the_device() {
        let made_to = |most: u64| move |rate| Ok(if rate <= most { Trial::Whole } else { Trial::Unmade });
        let bounds = search(1_000_000.0, made_to(500_000)).unwrap();
        assert!(bounds.lower_pps <= 500_000.0 && bounds.lower_pps > 450_000.0, "{bounds:?}");
        assert!(!bounds.is_upper_seen, "{bounds:?}");
        // Nor is it one where nothing was lost, however fast it went.
        let bounds = search(1_000_000.0, made_to(u64::MAX)).unwrap();
        assert!(bounds.lower_pps >= 1_000_000.0 && !bounds.is_upper_seen, "{bounds:?}");
    }
}
