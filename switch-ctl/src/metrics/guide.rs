//! docs/guide/counters.md has every event, stage and metric there is, in the words of the code. `UPDATE_GUIDE=1 cargo test guide`
//! writes its tables anew; what stands before them is written by hand.

use super::family::{self, Format};
use super::look::Look;
use std::collections::BTreeMap;
use switch_core::counter::{Event, Stage};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/counters.md");
/// What the first table that is made here begins with.
const EVENTS: &str = "| event |";

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

fn events() -> String {
    let row = |event: Event| format!("| `{}` | {} |\n", event.name(), escaped(event.meaning()));
    format!("{EVENTS} what it means, and what to do |\n|---|---|\n{}", Event::ALL.map(row).concat())
}

/// Name, kind and help of every metric, as Prometheus is told them; a counter's samples end with `_total`.
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
        format!("| `{name}{suffix}` | {kind} | {} |\n", escaped(help.trim_end_matches('.')))
    };
    let rows: String = said("# HELP ").into_iter().map(row).collect();
    format!("| metric | kind | what |\n|---|---|---|\n{rows}")
}

#[test]
fn the_guide_has_every_counter() {
    let text = std::fs::read_to_string(GUIDE).unwrap();
    let (words, _) = text.split_once(EVENTS).unwrap();
    let between = "\n## Metrics\n\nWhat `switch-ctl metrics` tells, in its order.\n\n";
    let wanted = format!("{words}{}{between}{}", events(), metrics());
    assert!(wanted.matches("\n| `switch_").count() > 50, "{wanted}");
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        std::fs::write(GUIDE, &wanted).unwrap();
    }
    assert!(
        text == wanted,
        "docs/guide/counters.md is not what the code says: UPDATE_GUIDE=1 cargo test guide"
    );
    // By hand, but all of them.
    for stage in Stage::ALL {
        assert!(words.contains(&format!("\n| `{}` |", stage.name())), "no stage {}", stage.name());
    }
    let Ok(serde_json::Value::Object(counters)) = serde_json::to_value(switch_api::PortCounters::default())
    else {
        panic!("counters are an object");
    };
    let Ok(serde_json::Value::Object(frames)) = serde_json::to_value(switch_api::FrameCounts::default())
    else {
        panic!("frames are an object");
    };
    for name in counters.keys().chain(frames.keys()) {
        assert!(words.contains(&format!("\n| `{name}` |")), "no counter {name}");
    }
}
