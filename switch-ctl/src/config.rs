//! `switch-ctl export`, `diff`, `apply`, `confirm`, `history`, `rollback`: all that the operator declares, as a file.

use crate::files;
use crate::output::{Output, print_raw};
use clap::Args;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use switch_api::file::{self, Complaint, File};
use switch_api::{
    Action, ApiError, CONFIRM_WITHIN_S_MAX, Change, Client, Code, Config, ConfigApplied, ConfigApply,
    ConfigExport, ConfigRollback, Done, HistoryEntry, Nothing, Owner, Problem, Request,
};

/// Values of a field are shown to this many characters; `--json` has them whole.
const VALUE_SHOWN_MAX: usize = 60;

/// Which file to compare.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl export > switch.toml
  switch-ctl diff switch.toml")]
pub struct Diff {
    /// The file; `-` is standard input.
    file: PathBuf,
}

/// Which file to apply, and how.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  (switch-ctl export; printf '\\n[[bridge]]\\nname = \"br1\"\\n') > switch.toml
  switch-ctl apply switch.toml --dry-run
  switch-ctl apply switch.toml --confirm-within 60s && switch-ctl confirm")]
pub struct Apply {
    /// The file; `-` is standard input.
    file: PathBuf,
    /// Only say what would be changed.
    #[arg(long)]
    dry_run: bool,
    /// Undo it after so long (60s, 10m, 1h) unless `switch-ctl confirm` was said. The daemon does it, whatever became of you.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    confirm_within: Option<u32>,
}

/// Where to go back to.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  (switch-ctl export; printf '\\n[[bridge]]\\nname = \"br1\"\\n') > switch.toml
  switch-ctl apply switch.toml --confirm-within 60s
  switch-ctl rollback              # undone now; else by itself after 60 s
  switch-ctl apply switch.toml && switch-ctl history
  switch-ctl rollback 1 --dry-run")]
pub struct Rollback {
    /// A number of `switch-ctl history`. Without one, what waits to be confirmed is undone now.
    number: Option<u64>,
    /// Only say what would be changed.
    #[arg(long)]
    dry_run: bool,
    /// Undo it after so long (60s, 10m, 1h) unless `switch-ctl confirm` was said.
    #[arg(long, value_name = "TIME", value_parser = seconds, requires = "number")]
    confirm_within: Option<u32>,
}

/// A time with its unit, in seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no time; write it like 60s, 10m or 1h, at most 24h");
    let (digits, factor) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let seconds = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(factor));
    seconds.filter(|seconds| (1..=CONFIRM_WITHIN_S_MAX).contains(seconds)).ok_or_else(wrong)
}

pub fn export(client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let config: Config = client.call(&Request::ConfigExport(ConfigExport::default()))?;
    if output.is_json() {
        output.answer(&config, |_| String::new());
        return Ok(());
    }
    let text = file::write(&config).map_err(|error| ApiError::new(Code::Internal, error))?;
    print_raw(text.as_bytes());
    Ok(())
}

pub fn diff(diff: &Diff, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let apply = Apply { file: diff.file.clone(), dry_run: true, confirm_within: None };
    let (applied, traffic) = send(&apply, client, output)?;
    output.answer(&applied, |applied| match applied.changes.as_slice() {
        [] => "no difference".into(),
        changes => told(changes) + &traffic.unwrap_or_default(),
    });
    Ok(())
}

pub fn apply(apply: &Apply, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let (applied, traffic) = send(apply, client, output)?;
    let traffic = traffic.map(|traffic| format!("\n{traffic}")).unwrap_or_default();
    output.answer(&applied, |applied| outcome(applied, apply.dry_run) + &traffic);
    Ok(())
}

pub fn confirm(client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let done: Done = client.call(&Request::ConfigConfirm(Nothing {}))?;
    output.done(&done, "it stays");
    Ok(())
}

pub fn rollback(rollback: &Rollback, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let Rollback { number, dry_run, confirm_within } = *rollback;
    let asked = ConfigRollback { number, dry_run, confirm_within_s: confirm_within };
    let applied: ConfigApplied = client.call(&Request::ConfigRollback(asked))?;
    output.answer(&applied, |applied| outcome(applied, dry_run));
    Ok(())
}

pub fn history(client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let entries: Vec<HistoryEntry> = client.call(&Request::ConfigHistory(Nothing {}))?;
    output.answer(&entries, |entries| {
        if entries.is_empty() {
            return "nothing was applied yet; what commands change is noted with the next `apply`".into();
        }
        let mut table = output.table(&["NUMBER", "AGE", "CHANGES", "OBJECTS", "USER", "WHAT"]);
        for entry in entries {
            let wait = entry.confirm_within_s.map(|left| format!(", undone in {left} s unless confirmed"));
            let what = format!("{}{}", entry.what, wait.unwrap_or_default());
            let (changes, objects) = (entry.changes.to_string(), entry.objects.to_string());
            table.add_row(vec![
                entry.number.to_string(),
                age(entry.time_s),
                changes,
                objects,
                entry.uid.to_string(),
                what,
            ]);
        }
        table.to_string()
    });
    Ok(())
}

pub fn age(time_s: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match now.saturating_sub(time_s) {
        age @ 0..120 => format!("{age} s"),
        age @ 120..7200 => format!("{} min", age / 60),
        age @ 7200..172_800 => format!("{} h", age / 3600),
        age => format!("{} d", age / 86_400),
    }
}

/// Reads the file and has it planned or applied. What is wrong with it is shown at its places. With it, of what is
/// only planned, what it would do to traffic.
fn send(
    apply: &Apply,
    client: &mut Client,
    output: &Output,
) -> Result<(ConfigApplied, Option<String>), ApiError> {
    let (name, text) = read(&apply.file)?;
    let file = File::read(&text).map_err(|complaints| refuse(&name, &text, &complaints, output))?;
    let request = ConfigApply {
        config: file.config.clone(),
        owner: Owner::Operator,
        dry_run: apply.dry_run,
        confirm_within_s: apply.confirm_within,
        source: Some(name.clone()),
    };
    let applied = client.call(&Request::ConfigApply(Box::new(request))).map_err(|error: ApiError| {
        if error.data.problems.is_empty() {
            return error;
        }
        let complaints = file.complaints(&error.data.problems);
        ApiError { code: error.code, ..refuse(&name, &text, &complaints, output) }
    })?;
    let asked = apply.dry_run && !output.is_json();
    let traffic = if asked { crate::policy::counts(client, &file.config)? } else { None };
    Ok((applied, traffic))
}

pub(crate) fn read(path: &Path) -> Result<(String, String), ApiError> {
    let is_input = path == Path::new("-");
    let name = if is_input { "standard input".into() } else { path.display().to_string() };
    Ok((name, files::text(path)?))
}

/// People are shown each complaint with its line; programs are given the same with line and column.
pub(crate) fn refuse(name: &str, text: &str, complaints: &[Complaint], output: &Output) -> ApiError {
    let many =
        if complaints.len() == 1 { "one problem".into() } else { format!("{} problems", complaints.len()) };
    let mut error = ApiError::new(Code::InvalidParams, format!("{name}: {many}")).hint("nothing was changed");
    let told = |complaint: &Complaint| {
        let (line, column) = file::line_and_column(text, complaint.span.start);
        Problem {
            object: None,
            field: Some(format!("{name}:{line}:{column}")),
            message: complaint.message.clone(),
            hint: complaint.hint.clone(),
        }
    };
    error.data.problems = complaints.iter().map(told).collect();
    if !output.is_json() {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!("{}", file::render(name, text, complaints, colour));
    }
    error
}

fn outcome(applied: &ConfigApplied, dry_run: bool) -> String {
    let count = match applied.changes.len() {
        0 => return "nothing to change".into(),
        1 => "1 change".into(),
        n => format!("{n} changes"),
    };
    let changes = told(&applied.changes);
    if dry_run {
        return format!("{changes}{count} would be made; nothing was");
    }
    let number = applied.number.map(|number| format!(", number {number} of the history")).unwrap_or_default();
    let mut said = format!("{changes}{count} made{number} (generation {})", applied.generation);
    if let Some(left) = applied.confirm_within_s.map(Duration::from_secs) {
        said += &format!("\nundone in {} s unless you say `switch-ctl confirm`", left.as_secs());
    }
    said
}

/// Changes as a person reads them: what comes with +, what goes with -, what is another with ~.
fn told(changes: &[Change]) -> String {
    let mut said = String::new();
    for change in changes {
        let (sign, note) = match change.action {
            Action::Add => ("+", ""),
            Action::Change => ("~", ""),
            Action::Replace => ("±", "  (closed and opened again: its traffic is interrupted)"),
            Action::Delete => ("-", ""),
        };
        said += &format!("{sign} {}{note}\n", change.object);
        for field in &change.fields {
            let (before, after) = (shown(&field.before), shown(&field.after));
            said += &format!("    {}: {before} -> {after}\n", field.field);
        }
    }
    said
}

fn shown(value: &serde_json::Value) -> String {
    let text = match value {
        serde_json::Value::Null => "(none)".into(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(VALUE_SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
