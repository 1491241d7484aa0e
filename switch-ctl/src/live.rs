//! `switch-ctl trace --live`: real frames, and the way each takes through the stages.

use crate::capture::{Stop, clock_time, read, summary};
use crate::filter;
use crate::output::Output;
use std::io::Write;
use std::time::Duration;
use switch_api::{ApiError, CaptureEnd, CaptureStarted, Client, Name, Request, TraceLive, TracedFrame};

/// What is to be followed.
#[derive(Debug)]
pub struct Asked {
    /// In tcpdump's language; empty: every frame.
    pub filter: String,
    /// Only what comes in by these ports.
    pub ports: Vec<Name>,
    /// So many frames.
    pub count: u32,
    /// For so long at most.
    pub within: Option<Duration>,
}

/// `500ms`, `10s`, `2m`, or seconds.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let malformed = || format!("{text:?} is no time: write 500ms, 10s or 2m");
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u32 = number.parse().map_err(|_| malformed())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number.into())),
        "" | "s" => Ok(Duration::from_secs(number.into())),
        "m" => Ok(Duration::from_secs(u64::from(number) * 60)),
        _ => Err(malformed()),
    }
}

pub fn run(asked: &Asked, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let filter = filter::compile(&asked.filter)?;
    let stop = Stop::new(client.handle()?, asked.within)?;
    let live = TraceLive { ports: asked.ports.clone(), filter, count: asked.count };
    let started: CaptureStarted = client.call(&Request::TraceLive(live))?;
    if !output.is_json() {
        let ports = started.ports.iter().map(Name::as_str).collect::<Vec<_>>().join(" ");
        eprintln!("following {} frames on {ports}; Ctrl-C ends it", asked.count);
    }
    client.listen()?;
    let mut frames = 0;
    while let Some(notice) = client.notice()? {
        match notice.method.as_str() {
            "trace.frame" => {
                let frame: TracedFrame = read(notice.params)?;
                frames += 1;
                let line = match output.is_json() {
                    true => serde_json::to_string(&frame).unwrap_or_default(),
                    false => show(&frame, output),
                };
                if writeln!(std::io::stdout(), "{line}").is_err() || frames == asked.count {
                    stop.now();
                }
            }
            "trace.end" => _ = read::<CaptureEnd>(notice.params)?,
            _ => {}
        }
    }
    if !output.is_json() {
        eprintln!("{frames} of {} frames came", asked.count);
    }
    Ok(())
}

fn show(frame: &TracedFrame, output: &Output) -> String {
    let mut table = output.table(&["STAGE", "NS", "CYCLES", "VERDICT", "WHY"]);
    for step in &frame.steps {
        table.add_row(vec![
            step.stage.clone().into(),
            step.ns.to_string().into(),
            step.cycles.to_string().into(),
            output.verdict(&step.verdict, !step.verdict.starts_with("drop")),
            step.why.clone().into(),
        ]);
    }
    let total: u64 = frame.steps.iter().map(|step| step.ns).sum();
    let of_batch = match frame.batch {
        1 => String::new(),
        batch => format!(" for a batch of {batch}, {} ns each", total / u64::from(batch)),
    };
    let (time, what) = (clock_time(frame.time_ns), summary(&frame.data.0));
    let head = format!("{time} {} in: {what}, {} bytes: {}", frame.port, frame.len, frame.outcome);
    format!("{head}\n{table}\n  {total} ns in all{of_batch}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("10s"), parse_time("10"));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert!(["", "s", "1h", "-1s", "99999999999s"].iter().all(|text| parse_time(text).is_err()));
    }
}
