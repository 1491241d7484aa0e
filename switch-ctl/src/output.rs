//! How answers are printed: aligned tables for people, the API's own JSON for scripts; colour only where
//! somebody is looking.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use switch_api::{ApiError, Done};

/// Where and how to print.
pub struct Output {
    json: bool,
    colour: bool,
}

impl Output {
    /// JSON if asked for, colour if standard output is a terminal and NO_COLOR (no-color.org) is not set.
    pub fn new(json: bool) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour }
    }

    /// The answer as JSON, or what `show` prints of it.
    pub fn answer<T: Serialize>(&self, answer: &T, show: impl FnOnce(&T) -> String) {
        let text = if self.json { to_json(answer) } else { show(answer) };
        // A reader that has seen enough (`| head`) is no error.
        _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    }

    /// Whether JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A change was made.
    pub fn done(&self, done: &Done, what: &str) {
        self.answer(done, |done| format!("{what} (generation {})", done.generation));
    }

    /// A table without lines, columns aligned.
    pub fn table(&self, head: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let bold = |text: &&str| {
            let cell = Cell::new(text);
            if self.colour { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        table.set_header(head.iter().map(bold));
        table
    }

    /// A cell that is green if all is well and red if not.
    pub fn verdict(&self, text: &str, good: bool) -> Cell {
        let cell = Cell::new(text);
        match (self.colour, good) {
            (false, _) => cell,
            (true, true) => cell.fg(Color::Green),
            (true, false) => cell.fg(Color::Red),
        }
    }
}

/// As it is. A reader that has seen enough is no error here either.
pub fn print_raw(bytes: &[u8]) {
    _ = std::io::stdout().write_all(bytes);
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A refusal, on standard error.
pub fn print_error(error: &ApiError, json: bool) {
    let mut err = std::io::stderr();
    if json {
        _ = writeln!(err, "{}", to_json(error));
        return;
    }
    let field = error.data.field.as_ref().map(|field| format!(" [{field}]")).unwrap_or_default();
    _ = writeln!(err, "switch-ctl: {}{field}", error.message);
    if let Some(hint) = &error.data.hint {
        _ = writeln!(err, "  {hint}");
    }
}

/// A number with its thousands apart, as people read it.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bytes as KiB or MiB.
pub fn bytes(number: u64) -> String {
    match number {
        0..1024 => format!("{number} B"),
        1024..1_048_576 => format!("{} KiB", number / 1024),
        _ => format!("{:.1} MiB", number as f64 / 1_048_576.0),
    }
}
