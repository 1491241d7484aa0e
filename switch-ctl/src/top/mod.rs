//! `switch-ctl top`: the switch, live, on a terminal of 80×24 or more.
//!
//! | module | what |
//! |---|---|
//! | [`view`] | what was seen, and what of it is shown: samples, rates, order, keys |
//! | [`talkers`] | who speaks with whom, from the flows that are kept |
//! | [`draw`] | a view on a screen: all of the switch |
//! | [`pages`] | one port; what each stage costs each worker |

mod draw;
mod pages;
mod talkers;
#[cfg(test)]
mod tests;
mod view;

use crate::output::Output;
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use switch_api::{ApiError, Client, Code, Nothing, Request};
use view::{Sample, View};

/// The switch, live: ports with their rates, what is dropped and why, who speaks with whom, workers. Enter on a port: all of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  switch-ctl top --interval 2

Keys: up and down choose a port, Enter shows all of it, w what each stage costs
each worker, Esc goes back; s the next order (rate, drops, name), p or blank
pauses, q or Ctrl-C ends. Who speaks with whom is known of ports whose flows are
kept: `switch-ctl port set NAME --track on`.")]
pub struct Top {
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0, value_parser = parse_interval)]
    interval: f64,
}

fn parse_interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds.ok_or_else(|| format!("{text:?}: give 0.1 to 60 seconds"))
}

pub fn run(top: &Top, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    if output.is_json() || !std::io::stdout().is_terminal() {
        return Err(ApiError::new(Code::InvalidParams, "`top` needs a terminal")
            .hint("`switch-ctl --json stats` and `switch-ctl --json port list` are for scripts"));
    }
    let mut terminal = ratatui::try_init().map_err(|error| {
        ApiError::new(Code::System, format!("the terminal cannot be used: {error}"))
            .hint("mind TERM, or use `switch-ctl stats`, which needs none")
    })?;
    let ended = watch(&mut terminal, Duration::from_secs_f64(top.interval), client);
    ratatui::restore();
    ended
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    interval: Duration,
    client: &mut Client,
) -> Result<(), ApiError> {
    let failed = |error: std::io::Error| {
        ApiError::new(Code::System, format!("the terminal broke: {error}"))
            .hint("begin it again; `switch-ctl stats` needs none")
    };
    let (mut view, started) = (View::default(), Instant::now());
    let mut next = started;
    loop {
        if Instant::now() >= next {
            next = Instant::now() + interval;
            view.add(look(client, started)?);
        }
        terminal.draw(|frame| draw::draw(frame, &view)).map_err(failed)?;
        if event::poll(next.saturating_duration_since(Instant::now())).map_err(failed)?
            && let Event::Key(key) = event::read().map_err(failed)?
            && key.kind == KeyEventKind::Press
        {
            let ends = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if ends || !view.key(key.code) {
                return Ok(());
            }
        }
    }
}

fn look(client: &mut Client, started: Instant) -> Result<Sample, ApiError> {
    Ok(Sample {
        at_s: started.elapsed().as_secs_f64(),
        stats: client.call(&Request::StatsGet(Nothing {}))?,
        ports: client.call(&Request::PortList(Nothing {}))?,
        workers: client.call(&Request::WorkerList(Nothing {}))?,
        flows: talkers::look(client)?,
    })
}
