//! Which lanes should move, so that no worker is busier than it need be. Loads in, moves out: pure.
//!
//! One lane at a time goes to the least busy worker: the one whose move evens out most. What hardly helps is left alone,
//! because a move stops every worker for a moment and sends a flow's memory to another core. Exchanging two lanes for
//! one another is not considered.

#[cfg(not(loom))]
#[cfg(test)]
mod tests;

/// Moves in one plan: each stops the workers for a moment, and what is left is found the next time.
pub const MOVES_MAX: usize = 8;

/// A lane, as far as balance knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Who serves it.
    pub worker: u16,
    /// What it costs, in thousandths of a core.
    pub busy_permille: u32,
    /// Nobody said where it has to be.
    pub movable: bool,
}

/// A lane, by its place in the list, and where it is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub lane: usize,
    /// From where.
    pub from: u16,
    /// Where to.
    pub to: u16,
}

/// When moving is worth it, in thousandths of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Between the busiest and the least busy worker lies at least so much; else all is well.
    pub gap_min: u32,
    /// A move brings its two workers closer to each other by at least so much.
    pub gain_min: u32,
}

impl Rules {
    /// Somebody asked: whatever helps by a twentieth of a core.
    pub const ASKED: Self = Self { gap_min: 100, gain_min: 50 };
    /// Nobody asked: only what is plain to see.
    pub const UNASKED: Self = Self { gap_min: 300, gain_min: 200 };
}

/// What each worker has to do, in thousandths of a core.
pub fn loads(lanes: &[Lane], workers: u16) -> Vec<u64> {
    let mut loads = vec![0; usize::from(workers)];
    for lane in lanes {
        if let Some(load) = loads.get_mut(usize::from(lane.worker)) {
            *load += u64::from(lane.busy_permille);
        }
    }
    loads
}

/// The moves that are worth it, at most [`MOVES_MAX`]; none if all is well.
pub fn plan(lanes: &[Lane], workers: u16, rules: Rules) -> Vec<Move> {
    let mut after = lanes.to_vec();
    for _ in 0..MOVES_MAX {
        let Some((lane, to)) = best(&after, workers, rules) else { break };
        after[lane].worker = to;
    }
    let moves = lanes.iter().zip(&after).enumerate();
    let moves = moves.map(|(lane, (before, after))| Move { lane, from: before.worker, to: after.worker });
    moves.filter(|lane| lane.from != lane.to).collect()
}

/// The move that lowers the sum of the loads' squares most, if one is worth it. Its aim is always the least busy worker.
fn best(lanes: &[Lane], workers: u16, rules: Rules) -> Option<(usize, u16)> {
    let loads = loads(lanes, workers);
    let (to, least) = loads.iter().enumerate().min_by_key(|(_, load)| **load)?;
    let most = loads.iter().max()?;
    if most - least < u64::from(rules.gap_min) {
        return None;
    }
    let gain = |lane: &Lane| {
        let (busy, from) = (u64::from(lane.busy_permille), *loads.get(usize::from(lane.worker))?);
        let gap = from - least;
        // The two end as far apart the other way round if the lane is larger than half of the gap.
        let closer = 2 * busy.min(gap.saturating_sub(busy));
        (lane.movable && closer > 0 && closer >= u64::from(rules.gain_min)).then(|| busy * (gap - busy))
    };
    let gains = lanes.iter().enumerate().filter_map(|(index, lane)| Some((index, gain(lane)?)));
    // Of equals the first.
    let (lane, _) = gains.reduce(|best, next| if next.1 > best.1 { next } else { best })?;
    Some((lane, to as u16))
}
