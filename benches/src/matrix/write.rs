//! What is kept in the tree: results as data, as text, as a picture, and what the README says of them.

use super::device::{SWITCH, TESTPMD};
use super::result::Results;
use super::task::{Task, Traffic};
use super::{graph, plot, table};
use crate::figures::kept::Kept;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const DATA: &str = "docs/peers.json";
const TEXT: &str = "docs/peers.md";
const PICTURE: &str = "docs/peers.svg";
const GRAPH: &str = "docs/graph.svg";
const README: &str = "README.md";
/// What the README has of it stands between these lines.
const MARKS: (&str, &str) = ("<!-- graph: `cargo xtask graph` writes this -->", "<!-- /graph -->");

/// What was written before; nothing if there is no such file.
pub fn kept(root: &Path) -> Result<Results, String> {
    let path = root.join(DATA);
    if !path.exists() {
        return Ok(Results::default());
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn put(root: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = root.join(name);
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes all of it.
pub fn all(root: &Path, kept: &Kept, results: &Results) -> Result<(), String> {
    let data = serde_json::to_string_pretty(results).map_err(|error| error.to_string())?;
    put(root, DATA, &(data + "\n"))?;
    tables(results)?.into_iter().try_for_each(|(name, text)| put(root, name, &text))?;
    picture(root, kept, results)
}

/// The README's picture, and what it says of it.
pub fn picture(root: &Path, kept: &Kept, results: &Results) -> Result<(), String> {
    pictured(root, kept, results)?.into_iter().try_for_each(|(name, text)| put(root, name, &text))
}

/// Files, each with what is to be in it.
type Files = [(&'static str, String); 2];

fn tables(results: &Results) -> Result<Files, String> {
    let head = "# Beside its peers\n\nWritten by `cargo xtask peers --write`; the method is in [the guide](guide/measuring.md).\n\n![The switch beside its peers](peers.svg)\n\n";
    Ok([(TEXT, head.to_owned() + &table::all(results)), (PICTURE, plot::svg(results)?)])
}

fn pictured(root: &Path, kept: &Kept, results: &Results) -> Result<Files, String> {
    let path = root.join(README);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok([(GRAPH, graph::svg(kept, results)?), (README, between(&text, &summary(kept, results))?)])
}

/// The text with what stands between the marks replaced.
fn between(text: &str, new: &str) -> Result<String, String> {
    let missing = || format!("README.md has no lines {:?} and {:?}", MARKS.0, MARKS.1);
    let (before, rest) = text.split_once(MARKS.0).ok_or_else(missing)?;
    let (_, after) = rest.split_once(MARKS.1).ok_or_else(missing)?;
    Ok(format!("{before}{}\n{new}\n{}{after}", MARKS.0, MARKS.1))
}

/// The picture and where it was measured, and a sentence about peers and where they were: that need not be one machine.
fn summary(kept: &Kept, results: &Results) -> String {
    let main = Traffic::MAIN.name();
    let times = [Task::Bridge, Task::Route, Task::Police(1_000)].into_iter().filter_map(|task| {
        let rows = results.shown(&task.name(), &main);
        let row = rows.iter().find(|row| row.device == SWITCH)?;
        let run = results.runs.iter().find(|run| run.began == row.run)?;
        let times = format!("{} {:.2} times", task.name(), results.times(row, TESTPMD)?);
        Some((times, run.machine.as_str()))
    });
    let (times, machines): (Vec<String>, BTreeSet<&str>) = times.unzip();
    let machines = machines.into_iter().collect::<Vec<_>>().join(" and ");
    let beside = match times.is_empty() {
        true => String::new(),
        false => format!(
            "Beside DPDK's testpmd, which moves frames and looks at none ({main}, over veth, one core): {}; by `cargo xtask peers` on {machines}. ",
            times.join(", ")
        ),
    };
    let pictured = kept.0.first().map_or("no machine", |one| one.machine.as_str());
    format!(
        "![What was promised of speed, and what is]({GRAPH})\n\n\
         The picture was made by `cargo xtask graph` on {pictured}. {beside}[All beside its peers](docs/peers.md), [in a picture]({PICTURE})."
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    /// What is in the tree is what is made of the data there: who changes how it is made, makes it again.
    #[test]
    fn tables_and_pictures_are_of_what_is_kept() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (kept, results) = (Kept::load(root).unwrap(), kept(root).unwrap());
        let (tables, pictured) = (tables(&results).unwrap(), pictured(root, &kept, &results).unwrap());
        for (name, text) in tables.into_iter().chain(pictured) {
            let there = fs::read_to_string(root.join(name)).unwrap();
            assert!(there == text, "{name} is another: run `cargo xtask peers --again --write`");
        }
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("a\n{}\nold\n{}\nb\n", MARKS.0, MARKS.1);
        let new = between(&text, "new").unwrap();
        assert_eq!(new, format!("a\n{}\nnew\n{}\nb\n", MARKS.0, MARKS.1));
        assert_eq!(between(&new, "new").unwrap(), new);
        assert!(between("a", "new").is_err());
    }
}
