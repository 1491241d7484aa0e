//! What the daemon says on standard error: text for people, or a JSON object a line for programs. How much, by level and by part of the
//! program, can be changed while it runs. What one place in the program says over and over is written so often and no more, and how
//! much was left out is told: a disk is not filled by a device that flaps. Workers say nothing at all.

use super::daemon::Daemon;
use super::journal::{self, Prefixed};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use switch_api::{ApiError, Code, LogStatus};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// What is said unless the environment variable [`VARIABLE`] says otherwise: what a person who keeps the node wants to know.
const LEVEL_DEFAULT: &str = "info";
/// Where a level is given before the daemon runs.
const VARIABLE: &str = "SWITCHD_LOG";
/// The time over which the lines of one place are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one place in a window: what a person reads before he knows what it is.
pub(crate) const LINES_MAX: u32 = 20;
/// The same of `debug` and `trace`: who asks for them wants them, at some 100 KiB a second at most from one place.
pub(crate) const LINES_MAX_DEBUG: u32 = 10_000;
/// Most bytes of a level: some dozens of parts of the program.
pub(crate) const LEVEL_LEN_MAX: usize = 1024;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// An object a line: `timestamp` (RFC 3339, UTC), `level`, `target`, `message`, and what else the line has.
    Json,
}

/// The daemon's hand on its log.
#[derive(Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    limit: Arc<Limit>,
    level: String,
    format: Format,
}

impl Log {
    /// Begins to write, for the whole process; once. A level in the environment that cannot be read is said, and is none.
    pub fn start(format: Format) -> Self {
        let asked = std::env::var(VARIABLE).ok();
        let read = asked.as_deref().map(|text| (text.to_owned(), read_level(text)));
        let (level, filter, wrong) = match read {
            Some((text, Ok(filter))) => (text, filter, None),
            Some((_, Err(error))) => (LEVEL_DEFAULT.to_owned(), EnvFilter::new(LEVEL_DEFAULT), Some(error)),
            None => (LEVEL_DEFAULT.to_owned(), EnvFilter::new(LEVEL_DEFAULT), None),
        };
        let (layer, handle) = reload::Layer::new(filter);
        let limit = Arc::new(Limit::default());
        let lines = lines(format, journal::is_behind_stderr(), std::io::stderr);
        let subscriber = Registry::default().with(layer).with(Limiter(limit.clone())).with(lines);
        // Somebody else's is as good, and only a test has one.
        _ = tracing::subscriber::set_global_default(subscriber);
        if let Some(error) = wrong {
            tracing::warn!("{VARIABLE} is not heeded: {error}");
        }
        Self { filter: handle, limit, level, format }
    }

    fn status(&self) -> LogStatus {
        let format = match self.format {
            Format::Text => "text",
            Format::Json => "json",
        };
        LogStatus { level: self.level.clone(), format: format.into(), left_out: self.limit.left_out() }
    }

    fn set_level(&mut self, level: &str) -> Result<(), ApiError> {
        let filter = read_level(level)?;
        let failed = |error: reload::Error| ApiError::new(Code::Internal, error.to_string());
        self.filter.reload(filter).map_err(failed)?;
        self.level = level.to_owned();
        Ok(())
    }
}

/// How lines are written; with their priority for the journal.
fn lines<S, W>(format: Format, is_journal: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let colour = !is_journal && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let text = fmt::layer().with_ansi(colour);
    match (format, is_journal) {
        (Format::Json, true) => {
            let json = fmt::layer().json().flatten_event(true);
            json.map_event_format(Prefixed).with_writer(writer).boxed()
        }
        (Format::Json, false) => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
        (Format::Text, true) => text.without_time().map_event_format(Prefixed).with_writer(writer).boxed(),
        (Format::Text, false) => text.with_writer(writer).boxed(),
    }
}

/// A level, and levels of parts of the program: `info`, `warn,switch_core::control::mirror=debug`. What the library would take for the
/// name of a part, and so for "nothing else", is refused here.
fn read_level(text: &str) -> Result<EnvFilter, ApiError> {
    let refuse = |what: String| {
        ApiError::new(Code::InvalidParams, what).field("level").hint(
            "error, warn, info, debug, trace or off; for one part of the program PART=LEVEL after a comma, like info,switch_core::control::mirror=debug",
        )
    };
    if text.len() > LEVEL_LEN_MAX {
        return Err(refuse(format!("a level has {LEVEL_LEN_MAX} bytes at most")));
    }
    for part in text.split(',') {
        let (target, level) = part.split_once('=').unwrap_or(("switchd", part));
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if target.is_empty() || !target.chars().all(is_name) {
            return Err(refuse(format!("{target:?} is no part of a program")));
        }
        if level.is_empty()
            || level.bytes().all(|byte| byte.is_ascii_digit())
            || level.parse::<LevelFilter>().is_err()
        {
            return Err(refuse(format!("{level:?} is no level")));
        }
    }
    EnvFilter::try_new(text).map_err(|error| refuse(error.to_string()))
}

impl Daemon {
    pub(super) fn log_status(&self) -> Result<LogStatus, ApiError> {
        self.log.as_ref().map(Log::status).ok_or_else(no_log)
    }

    pub(super) fn set_log_level(&mut self, level: &str) -> Result<LogStatus, ApiError> {
        let log = self.log.as_mut().ok_or_else(no_log)?;
        log.set_level(level)?;
        // A warning, so that it is there at most levels: somebody will wonder where lines come from, or why there are none.
        tracing::warn!(level, "the log's level was changed");
        Ok(log.status())
    }

    /// Once a second: what was left out, when it is over.
    pub(super) fn tell_left_out(&self) {
        let Some(log) = &self.log else { return };
        for (place, lines) in log.limit.over(Instant::now()) {
            tracing::warn!(
                lines,
                "{place} said {lines} more lines within {} s, which were left out",
                WINDOW.as_secs()
            );
        }
    }
}

fn no_log() -> ApiError {
    ApiError::new(Code::Unsupported, "this daemon's log is another program's")
        .hint("ask the program that the daemon runs in; of `switchd` itself it can be asked")
}

/// How often each place has spoken.
#[derive(Debug, Default)]
struct Limit {
    places: Mutex<HashMap<&'static str, Place>>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    said: u32,
    left_out: u64,
    left_out_ever: u64,
}

impl Limit {
    /// There are as many places as the program has lines that log; nothing is done while it is held that could panic.
    fn places(&self) -> MutexGuard<'_, HashMap<&'static str, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line may be written; if not it is counted.
    fn admits(&self, line: &Metadata<'static>, now: Instant) -> bool {
        let max = if *line.level() > Level::INFO { LINES_MAX_DEBUG } else { LINES_MAX };
        let mut places = self.places();
        let place = places.entry(line.name()).or_insert_with(|| Place {
            since: now,
            said: 0,
            left_out: 0,
            left_out_ever: 0,
        });
        // What was left out is told before the next window begins.
        if now.duration_since(place.since) >= WINDOW && place.left_out == 0 {
            (place.since, place.said) = (now, 0);
        }
        if place.said < max {
            place.said += 1;
            return true;
        }
        place.left_out += 1;
        place.left_out_ever += 1;
        false
    }

    /// Places whose window is over and of which something was left out; they may speak again.
    fn over(&self, now: Instant) -> Vec<(String, u64)> {
        let mut told = Vec::new();
        for (name, place) in self.places().iter_mut() {
            if place.left_out > 0 && now.duration_since(place.since) >= WINDOW {
                // `event FILE:LINE`, as the library calls it.
                told.push((
                    name.trim_start_matches("event ").to_owned(),
                    std::mem::take(&mut place.left_out),
                ));
                (place.since, place.said) = (now, 0);
            }
        }
        told
    }

    fn left_out(&self) -> u64 {
        self.places().values().map(|place| place.left_out_ever).sum()
    }
}

/// The limit as a layer: asked for each line that the level lets through.
struct Limiter(Arc<Limit>);

impl<S: Subscriber> Layer<S> for Limiter {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.admits(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_place_that_says_the_same_over_and_over_is_limited_alone_and_what_is_left_out_is_counted() {
        let (said, limit) = (Said::default(), Arc::new(Limit::default()));
        let to = said.clone();
        let lines = fmt::layer().with_ansi(false).with_writer(move || to.clone());
        let subscriber = Registry::default().with(Limiter(limit.clone())).with(lines);
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..1000 {
                tracing::info!(n, "over and over");
            }
            tracing::info!("once");
        });
        let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("over and over").count(), LINES_MAX as usize);
        assert_eq!(text.matches("once").count(), 1);
        let left_out = u64::from(1000 - LINES_MAX);
        assert_eq!(limit.left_out(), left_out);
        let now = Instant::now();
        assert_eq!(limit.over(now), [], "told while it goes on");
        let told = limit.over(now + WINDOW);
        assert_eq!((told.len(), told[0].1), (1, left_out));
        assert!(told[0].0.contains("log.rs:"), "{told:?}");
        assert_eq!(limit.over(now + WINDOW), [], "told twice");
    }

    #[test]
    fn in_the_journal_a_line_has_its_priority_and_the_journals_time() {
        let said = |format, is_journal| {
            let said = Said::default();
            let to = said.clone();
            let lines = lines(format, is_journal, move || to.clone());
            tracing::subscriber::with_default(Registry::default().with(lines), || {
                tracing::warn!(port = "a", "it is down");
                tracing::info!("it is up");
            });
            String::from_utf8(said.0.lock().unwrap().clone()).unwrap()
        };
        let text = said(Format::Text, true);
        let begins: Vec<_> = text.lines().map(|line| &line[..line.find("switch_core").unwrap()]).collect();
        assert_eq!(begins, ["<4> WARN ", "<6> INFO "], "{text}");
        let json = said(Format::Json, true);
        let first = json.lines().next().unwrap().strip_prefix("<4>").unwrap();
        let first: serde_json::Value = serde_json::from_str(first).unwrap();
        assert_eq!((&first["port"], &first["level"]), (&"a".into(), &"WARN".into()));
        assert!(!said(Format::Text, false).contains("<4>") && said(Format::Json, false).starts_with('{'));
    }

    #[test]
    fn levels_are_words_and_parts() {
        for good in ["info", "off", "warn,switch_core::control::mirror=debug", "TRACE"] {
            assert!(read_level(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "debgu",
            "info,",
            "=debug",
            "info,a b=debug",
            "info,mirror=much",
            "info;debug",
            "3",
            &"a".repeat(2000),
        ] {
            let error = read_level(bad).unwrap_err();
            assert!(error.data.hint.unwrap().contains("PART=LEVEL"), "{bad}");
        }
    }
}
