//! docs/guide/counters.md has every counter, stage and event there is, in the words of the code. `UPDATE_GUIDE=1 cargo test --test
//! counters` writes the table of events anew; its table of metrics is held by `src/metrics/guide.rs`, the rest is written by hand.

use switch_core::counter::{Event, Stage};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/counters.md");
/// What the table begins with, and what comes after it.
const EVENTS: &str = "| event | what it means, and what to do |\n|---|---|\n";
const AFTER: &str = "\n## Metrics\n";

#[test]
fn the_guide_has_every_event() {
    let text = std::fs::read_to_string(GUIDE).unwrap();
    let (words, rest) = text.split_once(EVENTS).unwrap();
    let (_, metrics) = rest.split_once(AFTER).unwrap();
    let row = |event: Event| format!("| `{}` | {} |\n", event.name(), event.meaning().replace('|', "\\|"));
    let wanted = format!("{words}{EVENTS}{}{AFTER}{metrics}", Event::ALL.map(row).concat());
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        std::fs::write(GUIDE, &wanted).unwrap();
    }
    assert!(
        text == wanted,
        "docs/guide/counters.md is not what the code says: UPDATE_GUIDE=1 cargo test --test cli counters::"
    );
}

#[test]
fn the_guide_has_every_counter_and_stage() {
    let text = std::fs::read_to_string(GUIDE).unwrap();
    let keys =
        |value: serde_json::Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let sections = [
        ("Ports", keys(serde_json::to_value(switch_api::PortCounters::default()).unwrap())),
        ("Packets", keys(serde_json::to_value(switch_api::PacketCounts::default()).unwrap())),
        ("Frames", keys(serde_json::to_value(switch_api::FrameCounts::default()).unwrap())),
        ("Stages", Stage::ALL.map(|stage| stage.name().to_owned()).to_vec()),
    ];
    for (title, names) in sections {
        let section = text.split("\n## ").find(|section| section.starts_with(title)).unwrap();
        for name in names {
            assert_eq!(section.matches(&format!("\n| `{name}` |")).count(), 1, "{title}: {name}");
        }
    }
}
