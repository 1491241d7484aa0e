//! What the rooms took before, to be compared with. Times are of one machine and told; instructions and allocations are of the
//! code, and held against a bar.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Instructions may grow by so much before `--compare` fails: hashing has seeds of its own here and there, and a compiler's next
/// version moves a little everywhere.
pub const INSTRUCTIONS_BAR: f64 = 1.02;

/// One case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// Nanoseconds an item: the median of criterion's samples.
    pub ns: Option<f64>,
    /// Instructions an item, as callgrind counts them.
    pub instructions: Option<f64>,
    /// Allocations of one run.
    pub allocations: u64,
}

/// All cases, and where they were measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The machine.
    pub machine: String,
    /// The compiler: another one makes other instructions.
    pub compiler: String,
    /// By name.
    pub cases: BTreeMap<String, Taken>,
}

impl Baseline {
    /// What is kept at a path.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| {
            format!("{}: {error}; `cargo xtask bench --save` keeps what is measured", path.display())
        })?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Keeps it, beside what was kept of other cases; `known` are all that there are, and of others nothing is kept.
    pub fn save(self, path: &Path, known: &[&str]) -> Result<(), String> {
        self.with(Self::load(path).unwrap_or_default(), known).write(path)
    }

    fn with(mut self, kept: Self, known: &[&str]) -> Self {
        for (id, taken) in kept.cases {
            self.cases.entry(id).or_insert(taken);
        }
        self.cases.retain(|id, _| known.contains(&id.as_str()));
        self
    }

    fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Case by case before, after and the ratio; and those whose instructions grew beyond the bar.
    pub fn compare(before: &Self, after: &Self) -> (String, Vec<String>) {
        let (mut text, mut grown) = (String::new(), Vec::new());
        _ = writeln!(
            text,
            "before: {}, {}\nafter:  {}, {}",
            before.machine, before.compiler, after.machine, after.compiler
        );
        _ = writeln!(
            text,
            "{:<42} {:>9} {:>9} {:>6}   {:>9} {:>9} {:>6}",
            "", "ns before", "after", "ratio", "instr. b.", "after", "ratio"
        );
        for (id, now) in &after.cases {
            let then = before.cases.get(id).copied().unwrap_or_default();
            let ratio = |then: Option<f64>, now: Option<f64>| then.zip(now).map(|(then, now)| now / then);
            let (time, instructions) = (ratio(then.ns, now.ns), ratio(then.instructions, now.instructions));
            let cell = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
            _ = writeln!(
                text,
                "{id:<42} {:>9} {:>9} {:>6}   {:>9} {:>9} {:>6}",
                cell(then.ns),
                cell(now.ns),
                cell(time),
                cell(then.instructions),
                cell(now.instructions),
                cell(instructions)
            );
            if let Some(ratio) = instructions.filter(|ratio| *ratio > INSTRUCTIONS_BAR) {
                grown.push(format!(
                    "{id}: {ratio:.3} times the instructions of before (bar {INSTRUCTIONS_BAR})"
                ));
            }
        }
        (text, grown)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    /// What is kept in the tree is of every case that there is, so that whoever compares sees all of them.
    #[test]
    fn every_case_has_something_to_be_compared_with() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
        let kept = Baseline::load(&path).unwrap();
        let again = "`cargo xtask bench PATTERN --save --no-time` measures it";
        for case in super::super::all() {
            let taken = kept.cases.get(case.id).unwrap_or_else(|| panic!("nothing of {}: {again}", case.id));
            assert!(taken.instructions.is_some(), "no instructions of {}: {again}", case.id);
            assert!(!case.is_on_path || taken.allocations == 0, "{} allocates", case.id);
        }
        let known: Vec<&str> = super::super::all().iter().map(|case| case.id).collect();
        let gone = kept.cases.keys().find(|id| !known.contains(&id.as_str()));
        assert_eq!(gone, None, "there is no such case any more: {again}");
    }

    #[test]
    fn what_was_not_measured_stays_and_what_is_no_more_goes() {
        let kept = |ids: &[&str]| Baseline {
            cases: ids.iter().map(|id| ((*id).to_owned(), Taken::default())).collect(),
            ..Baseline::default()
        };
        let new = with(100.0, 1.0).with(kept(&["wire/x", "wire/y", "wire/old"]), &["wire/x", "wire/y"]);
        assert!(new.cases.keys().eq(["wire/x", "wire/y"]), "{new:?}");
        assert_eq!(new.cases["wire/x"].instructions, Some(100.0));
    }

    fn with(instructions: f64, ns: f64) -> Baseline {
        let taken = Taken { ns: Some(ns), instructions: Some(instructions), allocations: 0 };
        Baseline { cases: [("wire/x".to_owned(), taken)].into(), ..Baseline::default() }
    }

    #[test]
    fn more_instructions_fail_and_more_time_does_not() {
        let (text, grown) = Baseline::compare(&with(100.0, 10.0), &with(102.0, 30.0));
        assert!(grown.is_empty() && text.contains("3.00") && text.contains("1.02"), "{text}");
        let (_, grown) = Baseline::compare(&with(100.0, 10.0), &with(103.0, 10.0));
        assert_eq!(grown.len(), 1);
        // A case that was not there has nothing to be held against.
        let (_, grown) = Baseline::compare(&Baseline::default(), &with(103.0, 10.0));
        assert!(grown.is_empty());
    }
}
