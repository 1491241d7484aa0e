//! What a run measured goes among what was kept: in the place of the same that was measured before. So the whole can be measured in parts, on
//! as many nights as it takes; each ratio stays one of a single run, and so of a single machine.

use super::device::{SWITCH, TESTPMD};
use super::result::{Results, Row};

/// Those that others are held against: of each run in which somebody was held against them.
fn is_yardstick(row: &Row) -> bool {
    [SWITCH, TESTPMD].contains(&row.device.as_str())
}

/// Whether both are of the same task under the same traffic.
fn is_same_load(a: &Row, b: &Row) -> bool {
    a.task == b.task && a.traffic == b.traffic
}

/// Puts what was measured now among what was kept.
pub fn add(kept: &mut Results, new: Results) {
    let is_new = |row: &Row| new.rows.iter().any(|new| is_same_load(new, row) && new.device == row.device);
    kept.rows.retain(|row| is_yardstick(row) || !is_new(row));
    // With nobody left to be held against it, the older yardstick has served.
    let held: Vec<Row> = kept.rows.iter().filter(|row| !is_yardstick(row)).cloned().collect();
    let serves = |row: &Row| held.iter().any(|other| is_same_load(other, row) && other.run == row.run);
    kept.rows.retain(|row| !is_yardstick(row) || serves(row) || !is_new(row));
    kept.alone.retain(|old| !new.alone.iter().any(|new| new.task == old.task && new.flows == old.flows));
    kept.changes.retain(|old| !new.changes.iter().any(|new| new.device == old.device));
    // What could not be measured before and was tried again is said anew, or was measured.
    let was_tried = |what: &str| {
        let is_of = |row: &Row| what == row.device || what == of(&row.device, &row.task);
        let is_alone = !new.alone.is_empty() && what.starts_with(ALONE);
        let is_change = new.changes.iter().any(|change| what == of(&change.device, CHANGES));
        new.rows.iter().any(is_of) || is_alone || is_change || new.skipped.iter().any(|new| new.what == what)
    };
    kept.skipped.retain(|old| !was_tried(&old.what));
    let Results { runs, skipped, rows, alone, changes } = new;
    for run in runs {
        // Of one run's parts the last knows its devices as well as the first.
        kept.runs.retain(|old| old.began != run.began);
        kept.runs.push(run);
    }
    kept.skipped.extend(skipped);
    for row in rows {
        // Beside the same of older runs, so that tables keep their order.
        match kept.rows.iter().rposition(|old| is_same_load(old, &row)) {
            Some(place) => kept.rows.insert(place + 1, row),
            None => kept.rows.push(row),
        }
    }
    kept.alone.extend(alone);
    kept.changes.extend(changes);
    let Results { runs, skipped, rows, alone, changes } = kept;
    runs.retain(|run| {
        let is_its = |other: &String| *other == run.began;
        rows.iter().any(|row| is_its(&row.run))
            || alone.iter().any(|one| is_its(&one.run))
            || changes.iter().any(|one| is_its(&one.run))
            || skipped.iter().any(|one| is_its(&one.run))
    });
    runs.sort_by(|a, b| a.began.cmp(&b.began));
}

/// What the pipelines by themselves are called, where something of them was not measured.
pub const ALONE: &str = "pipeline alone";
/// And changes.
pub const CHANGES: &str = "changes";

/// A device at something, as it is named where it was not measured.
pub fn of(device: &str, what: &str) -> String {
    format!("{device}, {what}")
}

#[cfg(test)]
mod tests {
    use super::super::result::{Change, Round, Run, Skipped};
    use super::*;

    fn run(began: &str, devices: &[&str], tasks: &[&str]) -> Results {
        let row = |(task, device): (&&str, &str)| Row {
            run: began.into(),
            task: (*task).into(),
            traffic: "64".into(),
            device: device.into(),
            rounds: vec![Round { pps: 1.0, ..Round::default() }],
            is_tuned: true,
        };
        let each = tasks.iter().flat_map(|task| devices.iter().map(move |device| (task, *device)));
        let rows = each.map(row).collect();
        let runs = vec![Run { began: began.into(), ..Run::default() }];
        Results { runs, rows, ..Results::default() }
    }

    fn rows(results: &Results) -> Vec<(&str, &str, &str)> {
        results.rows.iter().map(|row| (&*row.run, &*row.task, &*row.device)).collect()
    }

    #[test]
    fn what_is_measured_again_goes_and_what_others_are_held_against_stays_with_them() {
        let mut kept = run("1", &[SWITCH, TESTPMD, "a", "b"], &["L2"]);
        add(&mut kept, run("2", &[SWITCH, TESTPMD, "a"], &["L2", "L3"]));
        let second = [("2", "L2", SWITCH), ("2", "L2", TESTPMD), ("2", "L2", "a")];
        let mut wanted = vec![("1", "L2", SWITCH), ("1", "L2", TESTPMD), ("1", "L2", "b")];
        wanted.extend(second);
        let third = [("2", "L3", SWITCH), ("2", "L3", TESTPMD), ("2", "L3", "a")];
        wanted.extend(third);
        assert_eq!(rows(&kept), wanted);
        // When the last that needs it is measured again, the first run is no more.
        add(&mut kept, run("3", &[SWITCH, TESTPMD, "b"], &["L2"]));
        assert!(kept.runs.iter().map(|run| &*run.began).eq(["2", "3"]), "{:?}", kept.runs);
        assert!(rows(&kept).iter().all(|(run, ..)| *run != "1"), "{:?}", rows(&kept));
        assert!(rows(&kept).contains(&("2", "L2", SWITCH)) && rows(&kept).contains(&("3", "L2", "b")));
        // The switch alone, again, leaves the others what they were held against.
        let before = kept.rows.len();
        add(&mut kept, run("4", &[SWITCH], &["L3"]));
        assert_eq!(kept.rows.len(), before + 1);
    }

    #[test]
    fn what_was_skipped_is_said_until_it_is_measured() {
        let skipped = |what: &str| Skipped { run: "1".into(), what: what.into(), why: "missing".into() };
        let mut kept = run("1", &[SWITCH], &["L2"]);
        kept.skipped = vec![skipped("a"), skipped(&of("b", "L3")), skipped(&of("c", CHANGES))];
        let left = |kept: &Results| kept.skipped.iter().map(|one| one.what.clone()).collect::<Vec<_>>();
        add(&mut kept, run("2", &[SWITCH, "b"], &["L2"]));
        assert_eq!(left(&kept), ["a", "b, L3", "c, changes"]);
        assert_eq!(kept.runs.len(), 2);
        add(&mut kept, run("3", &[SWITCH, "a", "b"], &["L3"]));
        assert_eq!(left(&kept), ["c, changes"]);
        let mut again = run("4", &[], &[]);
        again.changes = vec![Change {
            run: "4".into(),
            device: "c".into(),
            what: "routes".into(),
            lost: vec![0.0],
            quiet: vec![0.0],
            rate_pps: 1.0,
        }];
        add(&mut kept, again.clone());
        add(&mut kept, again);
        assert_eq!((left(&kept).len(), kept.changes.len()), (0, 1));
    }
}
