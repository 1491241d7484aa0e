//! Mistakes in what the daemon keeps, says and looks after.

use super::Mistake;

pub(super) const DAEMON: &[Mistake] = &[
    Mistake {
        what: "who sets the clock makes a change wait longer to be confirmed",
        file: "control/clocks.rs",
        right: "true => self.until_boot_s.saturating_sub(now.boot_s),",
        wrong: "true => self.until_s.saturating_sub(now.day_s),",
        test: "whatever_is_done_to_the_time_of_day",
        loom: false,
    },
    Mistake {
        what: "a clock that was set back makes a change wait longer than it was to",
        file: "control/clocks.rs",
        right: "left.min(self.within_s.into())",
        wrong: "left",
        test: "makes_it_no_longer_than_it_was",
        loom: false,
    },
    Mistake {
        what: "a newer format is taken for the present one",
        file: "control/persist/format.rs",
        right: "Some(Ok(found)) if found > FORMAT =>",
        wrong: "Some(Ok(found)) if found > FORMAT + 9 =>",
        test: "a_newer_format_is_refused",
        loom: false,
    },
    Mistake {
        what: "a row that is not known is taken for nothing",
        file: "control/persist/format.rs",
        right: "if key.value() != KEY {",
        wrong: "if key.value().is_empty() {",
        test: "unknown_tables_and_rows_are_refused",
        loom: false,
    },
    Mistake {
        what: "the log has no limit",
        file: "control/log.rs",
        right: "if place.said < max {",
        wrong: "if place.said < u32::MAX {",
        test: "a_place_that_says_the_same_over_and_over",
        loom: false,
    },
    Mistake {
        what: "a word that is no level is taken for the name of a part",
        file: "control/log.rs",
        right: "|| level.parse::<LevelFilter>().is_err()",
        wrong: "",
        test: "levels_are_words_and_parts",
        loom: false,
    },
    Mistake {
        what: "a worker is overloaded by a burst",
        file: "control/overload.rs",
        right: "self.other = if is_busy == self.is_told { 0 } else { self.other + 1 };",
        wrong: "self.other = if is_busy == self.is_told { self.other } else { self.other + 1 };",
        test: "it_is_told_once_when_it_lasts",
        loom: false,
    },
    Mistake {
        what: "a capture by stage has what other stages decided",
        file: "pipeline/capture.rs",
        right: "self.capture.wanted.stage == stage",
        wrong: "self.capture.wanted.stage.is_some() == stage.is_some()",
        test: "frames_are_seen_by_the_stage",
        loom: false,
    },
    Mistake {
        what: "two VLANs cannot have the same address",
        file: "config/unique.rs",
        right: "others.filter(|other| untagged(other) == untagged(port))",
        wrong: "others",
        test: "an_address_is_one_ports",
        loom: false,
    },
];
