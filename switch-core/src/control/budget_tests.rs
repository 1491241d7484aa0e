//! Tests of the budget.

use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn sizes(workers: usize) -> Sizes {
    Sizes {
        ceiling: 24 * MIB,
        tables: MIB,
        large: 4 * MIB,
        region: 2 * MIB,
        region_frames: 1024,
        regions_max: 12,
        workers,
    }
}

fn xdp(workers: &[u16]) -> Wants {
    Wants::Xdp { workers: workers.to_vec(), ring_size: 1024 }
}

#[test]
fn what_cannot_even_start_says_what_it_would_take() {
    let error = Budget::new(Sizes { ceiling: 6 * MIB, ..sizes(1) }).unwrap_err();
    assert!(error.contains("--memory 6.0 MiB") && error.contains("packet memory 2.0 MiB"), "{error}");
    assert!(Budget::new(Sizes { ceiling: 7 * MIB, ..sizes(1) }).is_ok());
}

#[test]
fn a_region_is_filled_before_the_next_is_mapped() {
    let mut budget = Budget::new(sizes(1)).unwrap();
    for port in 0..12 {
        assert_eq!(budget.admit(port, &xdp(&[0])).unwrap(), (Some(0), Step::Ready), "port {port}");
    }
    assert_eq!(budget.admit(12, &xdp(&[0])).unwrap(), (Some(1), Step::Map(1)));
    assert_eq!(budget.admit(13, &Wants::Tap(1)).unwrap(), (None, Step::Ready), "bound to no region");
    budget.release(3);
    assert_eq!(budget.admit(14, &xdp(&[0])).unwrap(), (Some(0), Step::Ready), "the fuller region has room");
}

#[test]
fn a_port_beyond_the_ceiling_is_refused_with_figures_and_changes_nothing() {
    let mut budget = Budget::new(sizes(1)).unwrap();
    let mut port = 0;
    let error = loop {
        match budget.admit(port, &xdp(&[0])) {
            Ok(_) => port += 1,
            Err(error) => break error,
        }
    };
    assert!(port > 12, "it grew before: {port}");
    assert_eq!(error.code, Code::Limit);
    assert!(error.message.contains("of 24.0 MiB are in use (tables 1.0 MiB"), "{error:?}");
    assert!(format!("{error:?}").contains("--memory"), "{error:?}");
    let before = budget.status();
    assert!(budget.admit(port, &xdp(&[0])).is_err());
    assert_eq!(budget.status(), before);
    budget.release(0);
    assert!(budget.admit(port, &xdp(&[0])).is_ok(), "what one port left is enough for another");
}

#[test]
fn a_region_goes_only_after_a_while_and_comes_back_on_its_way() {
    let mut budget = Budget::new(sizes(1)).unwrap();
    (0..13).for_each(|port| _ = budget.admit(port, &xdp(&[0])).unwrap());
    budget.release(12);
    (0..6).for_each(|port| budget.release(port));
    assert_eq!(budget.surplus(100), None);
    assert_eq!(budget.surplus(102), None);
    assert_eq!(budget.surplus(103), Some(1));
    assert_eq!(budget.surplus(200), None, "one at a time");
    (0..6).for_each(|port| _ = budget.admit(port, &xdp(&[0])).unwrap());
    assert_eq!(budget.admit(12, &xdp(&[0])).unwrap(), (Some(1), Step::Revive(1)));
    assert!(!budget.is_emptying(1));
}

#[test]
fn a_port_of_many_queues_has_a_region_of_its_own_if_it_must() {
    let mut budget = Budget::new(Sizes { ceiling: 64 * MIB, ..sizes(2) }).unwrap();
    budget.admit(0, &xdp(&[0])).unwrap();
    let sixteen: Vec<u16> = (0..16).map(|queue| queue % 2).collect();
    assert_eq!(budget.admit(1, &xdp(&sixteen)).unwrap(), (Some(1), Step::Map(1)));
}

#[test]
fn rules_and_ports_share_the_ceiling() {
    // 24 MiB, of which 7 are taken by tables, large frames and the first region.
    let mut budget = Budget::new(sizes(1)).unwrap();
    budget.allow_rules(17 * MIB, 0).unwrap();
    budget.allow_rules(17 * MIB + 1, 1).unwrap();
    let error = budget.allow_rules(17 * MIB + 1, 0).unwrap_err();
    assert_eq!(error.code, Code::Limit);
    assert_eq!(
        error.message,
        "policies and lists would take 17.0 MiB of memory; 7.0 MiB of 24.0 MiB are in use (tables 1.0 MiB, large frames 4.0 MiB, \
         packet memory 2.0 MiB, ports 0.0 MiB, policies and lists 0.0 MiB)"
    );
    budget.set_rules(16 * MIB);
    assert_eq!((budget.status().rules_bytes, budget.status().used_bytes), (16 * MIB, 23 * MIB));
    budget.allow_rules(17 * MIB, 0).unwrap();
    let ports = (0..100).take_while(|port| budget.admit(*port, &xdp(&[0])).is_ok()).count();
    assert!((1..7).contains(&ports), "{ports} ports beside 16 MiB of rules");
    // Fewer are never refused: not even where an earlier daemon let more in.
    budget.set_rules(100 * MIB);
    budget.allow_rules(99 * MIB, 0).unwrap();
    assert!(budget.admit(101, &Wants::Tap(1)).is_err());
    budget.set_rules(0);
    // What is coming counts as if it were there.
    budget.expect_rules(100 * MIB);
    assert!(budget.admit(101, &Wants::Tap(1)).is_err());
    budget.expect_rules(0);
    assert!(budget.admit(101, &Wants::Tap(1)).is_ok());
}

#[derive(Clone, Debug)]
enum Act {
    Rules(u64),
    Add(u16, Wants),
    Remove(u16),
    Pass(u32),
    Gone,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let workers = proptest::collection::vec(0..2u16, 1..5);
    let wants = prop_oneof![
        3 => workers.prop_map(|workers| xdp(&workers)),
        1 => (1..4u32).prop_map(Wants::Tap),
        1 => Just(Wants::Nothing),
    ];
    let act = prop_oneof![
        4 => (0..60u16, wants).prop_map(|(port, wants)| Act::Add(port, wants)),
        4 => (0..60u16).prop_map(Act::Remove),
        2 => (1..4u32).prop_map(Act::Pass),
        2 => Just(Act::Gone),
        2 => (0..20 * MIB).prop_map(Act::Rules),
    ];
    proptest::collection::vec(act, 1..300)
}

proptest! {
    /// Whatever comes and goes: the ceiling is never passed, there are frames for every port, and a region that
    /// is emptied belongs to nobody.
    #[test]
    fn the_ceiling_is_never_passed(acts in acts()) {
        let mut budget = Budget::new(sizes(2)).unwrap();
        let (mut present, mut now_s) = (std::collections::HashMap::new(), 0);
        for act in acts {
            match act {
                Act::Rules(bytes) => {
                    if budget.allow_rules(bytes, 0).is_ok() {
                        budget.set_rules(bytes);
                    }
                }
                Act::Add(port, wants) if !present.contains_key(&port) => {
                    if let Ok((region, _)) = budget.admit(port, &wants) {
                        prop_assert_eq!(region.is_some(), matches!(wants, Wants::Xdp { .. }));
                        present.insert(port, region);
                    }
                }
                Act::Add(..) => {}
                Act::Remove(port) => {
                    present.remove(&port);
                    budget.release(port);
                }
                Act::Pass(seconds) => {
                    now_s += seconds;
                    if let Some(region) = budget.surplus(now_s) {
                        prop_assert!(region != 0);
                    }
                }
                Act::Gone => {
                    if let Some(region) = (1..12).find(|region| budget.is_emptying(*region)) {
                        budget.absent(region);
                    }
                }
            }
            let status = budget.status();
            prop_assert!(status.used_bytes <= status.ceiling_bytes, "{:?}", status);
            prop_assert!(budget.frames_needed() <= u64::from(status.regions) * 1024, "{:?}", status);
            for region in present.values().flatten() {
                let state = budget.regions[usize::from(*region)].state;
                prop_assert_eq!(state, State::Serving, "region {}", region);
            }
        }
    }
}
