//! `switch-ctl log`.

use crate::output::{Output, thousands};
use clap::Subcommand;
use switch_api::{ApiError, Client, LogLevel, LogStatus, Nothing, Request};

/// What can be done with the daemon's log.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Says how much the daemon says, and what was left out.
    #[command(after_help = "Example:\n  switch-ctl log show")]
    Show,
    /// Changes how much the daemon says, at once and until it ends.
    ///
    /// It goes where it went before: standard error, which is the journal's with systemd (`journalctl -u switchd`).
    #[command(after_help = "\
Examples:
  switch-ctl log level debug
  switch-ctl log level info                  # as it was
  # One part of it says more: the word before the colon in its lines.
  switch-ctl log level warn tracing=debug")]
    Level {
        /// error, warn, info, debug, trace or off; PART=LEVEL for one part of the program.
        #[arg(required = true, value_name = "LEVEL")]
        levels: Vec<String>,
    },
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let request = match verb {
        Verb::Show => Request::LogGet(Nothing {}),
        Verb::Level { levels } => Request::LogLevel(LogLevel { level: levels.join(",") }),
    };
    let status: LogStatus = client.call(&request)?;
    output.answer(&status, |LogStatus { level, format, left_out }| {
        let left_out = match left_out {
            0 => "nothing was left out".to_owned(),
            lines => format!("{} lines left out: one place said too many of them", thousands(*lines)),
        };
        format!("level {level}, written as {format}; {left_out}")
    });
    Ok(())
}
