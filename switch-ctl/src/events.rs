//! `switch-ctl events`: what happens, as it happens.

use crate::capture::Stop;
use crate::config::age;
use crate::output::Output;
use clap::Args;
use clap::builder::PossibleValuesParser;
use std::io::Write;
use switch_api::{
    ApiError, Client, Code, Done, EVENT_KINDS, EventsSubscribe, Happened, Missed, Nothing, Notice, Request,
};

/// What happens, as it happens: ports up and down, moved stations, storms, loops, tables nearly full, neighbours that
/// do not answer, what policies stop and what else is dropped, and who changed what. One line each (with --json one JSON object); Ctrl-C ends it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl events
  switch-ctl events --recent
  switch-ctl --json events --recent | jq -r '.[] | .what' | sort | uniq -c
  switch-ctl events --only policy-drop    # each flow that a rule stops, once
  switch-ctl events --only drop           # each that is dropped otherwise
  switch-ctl events --only acl-log        # what rules with `log = true` say
  switch-ctl events --only port-down --only loop --count 1")]
pub struct Events {
    /// Show what the daemon kept of what happened before, and end.
    #[arg(long, conflicts_with = "duration")]
    recent: bool,
    /// Only this kind, like port-down; may be given several times. Those of flows (flow-new, flow-established, flow-judged,
    /// flow-ended) are told only if they are named; see also `switch-ctl flow watch`.
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(EVENT_KINDS))]
    only: Vec<String>,
    /// End after so many.
    #[arg(short, long)]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
}

pub fn run(events: &Events, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    if events.recent {
        return recent(events, client, output);
    }
    let asked = EventsSubscribe { flows: events.only.iter().any(|only| only.starts_with("flow-")) };
    follow(client, output, asked, events.count, events.duration, |event| is_wanted(events, event))
}

/// One line for each event that is wanted, as it happens.
pub fn follow(
    client: &mut Client,
    output: &Output,
    asked: EventsSubscribe,
    count: Option<u64>,
    duration: Option<u64>,
    wanted: impl Fn(&Happened) -> bool,
) -> Result<(), ApiError> {
    let _stop = Stop::new(client.handle()?, duration.map(std::time::Duration::from_secs))?;
    let _: Done = client.call(&Request::EventsSubscribe(asked))?;
    client.listen()?;
    let mut told = 0;
    while let Some(notice) = client.notice()? {
        let Some(line) = line(&wanted, &notice, output.is_json()) else { continue };
        told += 1;
        if writeln!(std::io::stdout(), "{line}").is_err() || count == Some(told) {
            break;
        }
    }
    Ok(())
}

/// The last `--count` of those that are of interest.
fn recent(events: &Events, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    if let Some(kind) = events.only.iter().find(|only| only.starts_with("flow-")) {
        let text =
            format!("what becomes of flows is not kept: there is no {kind} among what happened before");
        let hint = format!("follow it: `switch-ctl events --only {kind}`, or `switch-ctl flow watch`");
        return Err(ApiError::new(Code::InvalidParams, text).field("only").hint(hint));
    }
    let mut kept: Vec<Happened> = client.call(&Request::EventsRecent(Nothing {}))?;
    kept.retain(|event| is_wanted(events, event));
    let most = events.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    kept.drain(..kept.len().saturating_sub(most));
    output.answer(&kept, |kept| {
        let line =
            |event: &Happened| format!("{:>12}  {}", age(event.time_ns / 1_000_000_000), sentence(event));
        kept.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

fn is_wanted(events: &Events, event: &Happened) -> bool {
    events.only.is_empty() || events.only.contains(&event.what)
}

/// The time of day, UTC, and what happened.
fn sentence(event: &Happened) -> String {
    let seconds = event.time_ns / 1_000_000_000;
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02} {:<16} {}", event.what, event.text)
}

/// None if it is of no interest.
fn line(wanted: impl Fn(&Happened) -> bool, notice: &Notice, json: bool) -> Option<String> {
    if let Ok(missed) = serde_json::from_value::<Missed>(notice.params.clone())
        && notice.method == "events.missed"
    {
        let text = format!("{} events were missed: they came faster than they were read", missed.events);
        return Some(if json { notice.params.to_string() } else { text });
    }
    let event: Happened = serde_json::from_value(notice.params.clone()).ok()?;
    if notice.method != "event" || !wanted(&event) {
        return None;
    }
    if json {
        return Some(notice.params.to_string());
    }
    Some(sentence(&event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        events: Events,
    }

    /// Who mistypes a kind is told at once, and not left to wait for what never comes.
    #[test]
    fn a_kind_that_does_not_exist_is_refused_with_the_one_that_was_meant() {
        let parsed = |kind| Command::try_parse_from(["events", "--only", kind]);
        assert_eq!(parsed("drop").unwrap().events.only, ["drop"]);
        let error = parsed("drops").unwrap_err().to_string();
        assert!(error.contains("'drop'") && error.contains("port-down"), "{error}");
    }

    #[test]
    fn every_kind_is_explained() {
        let api = include_str!("../../docs/API.md");
        let missing: Vec<_> = EVENT_KINDS.iter().filter(|kind| !api.contains(&format!("`{kind}`"))).collect();
        assert!(missing.is_empty(), "{missing:?} are not in docs/API.md");
        assert!(EVENT_KINDS.is_sorted());
    }
}
