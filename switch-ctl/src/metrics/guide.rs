//! docs/guide/counters.md has every metric there is, as Prometheus is told them. `UPDATE_GUIDE=1 cargo test guide` writes its table
//! anew; of what stands before it, `tests/counters.rs` holds the names.

use super::family::{self, Format};
use super::look::Look;
use std::collections::BTreeMap;

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/counters.md");
/// What the table begins with.
const METRICS: &str = "| metric | kind | what |\n|---|---|---|\n";

/// Name, kind and help of every metric; a counter's samples end with `_total`.
fn metrics() -> String {
    let text = family::text(Look::at_nothing().families(), Format::Openmetrics).unwrap();
    let said = |word: &str| -> Vec<(String, String)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(word)?.split_once(' '));
        lines.map(|(name, what)| (name.to_owned(), what.to_owned())).collect()
    };
    let kinds: BTreeMap<_, _> = said("# TYPE ").into_iter().collect();
    let row = |(name, help): (String, String)| {
        let kind = &kinds[&name];
        let suffix = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        format!("| `{name}{suffix}` | {kind} | {} |\n", help.trim_end_matches('.').replace('|', "\\|"))
    };
    said("# HELP ").into_iter().map(row).collect()
}

#[test]
fn the_guide_has_every_metric() {
    let text = std::fs::read_to_string(GUIDE).unwrap();
    let (words, _) = text.split_once(METRICS).unwrap();
    let wanted = format!("{words}{METRICS}{}", metrics());
    assert!(wanted.matches("\n| `switch_").count() > 50, "{wanted}");
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        std::fs::write(GUIDE, &wanted).unwrap();
    }
    assert!(
        text == wanted,
        "docs/guide/counters.md is not what the metrics say: UPDATE_GUIDE=1 cargo test guide"
    );
}
