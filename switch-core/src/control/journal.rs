//! systemd's journal behind standard error: a line begins with its priority (`<4>`, sd-daemon(3)), so that `journalctl -p warning`
//! finds what is wrong, and has no time, which the journal knows.

use std::fmt;
use std::os::fd::AsFd;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Device and inode of the stream to the journal, if a service's output goes there (systemd.exec(5)).
const VARIABLE: &str = "JOURNAL_STREAM";

/// Whether our standard error is what systemd connected with the journal: it may have been led elsewhere since.
pub fn is_behind_stderr() -> bool {
    let named = std::env::var(VARIABLE).ok();
    named.is_some_and(|named| is_named(&named, std::io::stderr()))
}

fn is_named(named: &str, file: impl AsFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|found| named == format!("{}:{}", found.st_dev, found.st_ino))
}

/// As the kernel's log and syslog number them.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// A format whose lines begin with their priority.
pub struct Prefixed<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for Prefixed<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::fs::MetadataExt;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let path = std::env::temp_dir().join(format!("switchd-journal-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let found = file.metadata().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(is_named(&format!("{}:{}", found.st_dev(), found.st_ino()), &file));
        assert!(!is_named(&format!("{}:{}", found.st_dev(), found.st_ino() + 1), &file), "led elsewhere");
        assert!(!is_named("", &file));
    }
}
