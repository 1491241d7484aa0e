//! What is kept in the tree: results as data, as text, as a picture, and what the README says of them.

use super::device::{SWITCH, TESTPMD};
use super::result::Results;
use super::task::Traffic;
use super::{plot, table};
use std::fs;
use std::path::Path;

const DATA: &str = "docs/peers.json";
const TEXT: &str = "docs/peers.md";
const PICTURE: &str = "docs/peers.svg";
/// What the README has of it stands between these lines.
const MARKS: (&str, &str) = ("<!-- peers: `cargo xtask peers --write` writes this -->", "<!-- /peers -->");

/// What was written before.
pub fn kept(root: &Path) -> Result<Results, String> {
    let path = root.join(DATA);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes all of it.
pub fn all(root: &Path, results: &Results) -> Result<(), String> {
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    let data = serde_json::to_string_pretty(results).map_err(|error| error.to_string())?;
    write(DATA, &(data + "\n"))?;
    let head = "# Beside its peers\n\nWritten by `cargo xtask peers --write`; the method is in [the guide](guide/measuring.md).\n\n";
    write(TEXT, &(head.to_owned() + &table::all(results)))?;
    write(PICTURE, &plot::svg(results)?)?;
    let readme = root.join("README.md");
    let text = fs::read_to_string(&readme).map_err(|error| format!("{}: {error}", readme.display()))?;
    write("README.md", &between(&text, &summary(results))?)
}

/// The text with what stands between the marks replaced.
fn between(text: &str, new: &str) -> Result<String, String> {
    let missing = || format!("README.md has no lines {:?} and {:?}", MARKS.0, MARKS.1);
    let (before, rest) = text.split_once(MARKS.0).ok_or_else(missing)?;
    let (_, after) = rest.split_once(MARKS.1).ok_or_else(missing)?;
    Ok(format!("{before}{}\n{new}\n{}{after}", MARKS.0, MARKS.1))
}

/// The picture, and a sentence.
fn summary(results: &Results) -> String {
    let main = Traffic::MAIN.name();
    let tasks = results.each(|row| &row.task);
    let times = tasks.iter().filter_map(|task| {
        let row = results.row(task, &main, SWITCH)?;
        Some(format!("{task} {:.2} times", results.times(row, TESTPMD)?))
    });
    let times: Vec<String> = times.collect();
    format!(
        "![The switch beside its peers]({PICTURE})\n\n\
         Beside DPDK's testpmd, which moves frames and looks at none ({main}, over veth, one core): {}. \
         Made by `{} --write` on {}; [all of it](docs/peers.md).",
        times.join(", "),
        results.command,
        results.machine
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("a\n{}\nold\n{}\nb\n", MARKS.0, MARKS.1);
        let new = between(&text, "new").unwrap();
        assert_eq!(new, format!("a\n{}\nnew\n{}\nb\n", MARKS.0, MARKS.1));
        assert_eq!(between(&new, "new").unwrap(), new);
        assert!(between("a", "new").is_err());
    }
}
