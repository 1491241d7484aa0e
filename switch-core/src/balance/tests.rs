//! The planner against a dull twin, which tries every move and looks at what came of it.

use super::*;
use proptest::prelude::*;

fn squares(lanes: &[Lane], workers: u16) -> u64 {
    loads(lanes, workers).iter().map(|load| load * load).sum()
}

fn gap(lanes: &[Lane], workers: u16) -> u64 {
    let loads = loads(lanes, workers);
    loads.iter().max().unwrap() - loads.iter().min().unwrap()
}

fn moved(lanes: &[Lane], lane: usize, to: u16) -> Vec<Lane> {
    let mut lanes = lanes.to_vec();
    lanes[lane].worker = to;
    lanes
}

/// Tries everything, keeps the best, and does so again.
fn twin(lanes: &[Lane], workers: u16, rules: Rules) -> Vec<Lane> {
    let mut lanes = lanes.to_vec();
    for _ in 0..MOVES_MAX {
        if gap(&lanes, workers) < u64::from(rules.gap_min) {
            break;
        }
        let mut best = (squares(&lanes, workers), lanes.clone());
        for lane in (0..lanes.len()).filter(|lane| lanes[*lane].movable) {
            for to in 0..workers {
                let (from, after) = (lanes[lane].worker, moved(&lanes, lane, to));
                let apart = |lanes: &[Lane]| {
                    let loads = loads(lanes, workers);
                    loads[usize::from(from)].abs_diff(loads[usize::from(to)])
                };
                let is_worth_it = apart(&lanes) >= apart(&after) + u64::from(rules.gain_min);
                if is_worth_it && squares(&after, workers) < best.0 {
                    best = (squares(&after, workers), after);
                }
            }
        }
        if best.1 == lanes {
            break;
        }
        lanes = best.1;
    }
    lanes
}

fn any_lanes() -> impl Strategy<Value = (Vec<Lane>, u16)> {
    (1u16..5).prop_flat_map(|workers| {
        let lane = (0..workers, prop_oneof![Just(0u32), 0u32..1200, 300u32..310], prop::bool::weighted(0.8))
            .prop_map(|(worker, busy_permille, movable)| Lane { worker, busy_permille, movable });
        (prop::collection::vec(lane, 0..12), Just(workers))
    })
}

fn any_rules() -> impl Strategy<Value = Rules> {
    prop_oneof![
        Just(Rules::ASKED),
        Just(Rules::UNASKED),
        (0u32..400, 0u32..400).prop_map(|(gap_min, gain_min)| Rules { gap_min, gain_min })
    ]
}

fn apply(lanes: &[Lane], moves: &[Move]) -> Vec<Lane> {
    moves.iter().fold(lanes.to_vec(), |lanes, a_move| {
        assert_eq!(lanes[a_move.lane].worker, a_move.from);
        moved(&lanes, a_move.lane, a_move.to)
    })
}

proptest! {
    #[test]
    fn plans_what_trying_everything_finds((lanes, workers) in any_lanes(), rules in any_rules()) {
        let moves = plan(&lanes, workers, rules);
        let after = apply(&lanes, &moves);
        prop_assert_eq!(squares(&after, workers), squares(&twin(&lanes, workers, rules), workers));
        prop_assert!(moves.iter().all(|a_move| lanes[a_move.lane].movable && a_move.from != a_move.to));
        let most = |lanes: &[Lane]| loads(lanes, workers).into_iter().max();
        prop_assert!(most(&after) <= most(&lanes), "the busiest became busier");
        if moves.len() < MOVES_MAX / 2 {
            // It does not want back tomorrow what it did today.
            prop_assert_eq!(plan(&after, workers, rules), []);
        }
    }
}

fn lane(worker: u16, busy_permille: u32) -> Lane {
    Lane { worker, busy_permille, movable: true }
}

#[test]
fn what_does_not_help_is_left_alone() {
    // One lane that takes a whole core is no lighter elsewhere.
    assert_eq!(plan(&[lane(0, 1000)], 2, Rules::ASKED), []);
    assert_eq!(plan(&[lane(0, 300), lane(1, 260)], 2, Rules::ASKED), []);
    let pinned = Lane { movable: false, ..lane(0, 400) };
    assert_eq!(plan(&[pinned, lane(0, 500)], 2, Rules::ASKED), [Move { lane: 1, from: 0, to: 1 }]);
    assert_eq!(plan(&[pinned, pinned], 2, Rules::ASKED), []);
    assert_eq!(plan(&[], 0, Rules::ASKED), []);
    // Asked for it is worth it, by itself not.
    let little = [lane(0, 200), lane(0, 90), lane(1, 100)];
    assert_eq!(plan(&little, 2, Rules::ASKED).len(), 1);
    assert_eq!(plan(&little, 2, Rules::UNASKED), []);
}
