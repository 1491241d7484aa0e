//! `switch-ctl metrics`: the switch's counters and levels as OpenMetrics, once or over HTTP.
//!
//! The daemon itself speaks no HTTP: a parser that strangers can reach does not belong into a process that holds every pod's
//! packets and the right to change devices. This command is a client like any other, may run as a user that may only read, and
//! asks anew for each scrape. Nothing listens unless `--listen` says where.
//!
//! | module | what |
//! |---|---|
//! | [`family`] | metrics, their names and samples, and their text |
//! | [`look`] | what is asked of the daemon, and what becomes of it |
//! | [`listen`] | addresses, and listening on them |
//! | [`serve`] | HTTP: one exchange |

mod control;
mod family;
#[cfg(test)]
mod guide;
mod listen;
mod look;
mod serve;

use crate::output;
use clap::Args;
use family::Format;
use listen::{Address, Listener};
use std::path::Path;
use std::time::Duration;
use switch_api::{ApiError, Client, Code};

/// Longest wait for an answer of the daemon while serving. Prometheus gives a scrape 10 s unless told otherwise: the reason why
/// there are no metrics should reach it before.
const DAEMON_WAIT_MAX: Duration = Duration::from_secs(5);

/// What is written, how, and where to.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl metrics
  switch-ctl metrics --format prometheus > switch.prom
  switch-ctl metrics --listen 127.0.0.1:9477
  switch-ctl metrics --listen unix:/run/first/metrics.sock

A dashboard for Grafana is deploy/grafana/switch.json.")]
pub struct Metrics {
    /// Serve them here: ADDRESS:PORT (port 0: a free one), or unix:/PATH.
    #[arg(long, value_name = "ADDR")]
    listen: Option<Address>,
    /// How it is written; node_exporter's textfile collector reads prometheus alone.
    #[arg(long, value_enum, default_value_t = Format::Openmetrics)]
    format: Format,
}

pub fn run(metrics: &Metrics, socket: &Path, timeout: Duration, json: bool) -> Result<(), ApiError> {
    if json {
        return Err(ApiError::new(Code::InvalidParams, "`metrics` is OpenMetrics text, not JSON")
            .hint("`switch-ctl --json stats`, `port list` and `worker list` say the same as JSON"));
    }
    let format = metrics.format;
    match &metrics.listen {
        None => output::print_raw(scrape(socket, timeout, format)?.as_bytes()),
        Some(address) => {
            let listener = Listener::bind(address)?;
            eprintln!("serving metrics on {}", listener.name());
            let timeout = timeout.min(DAEMON_WAIT_MAX);
            listener.each(|stream| {
                serve::answer(stream, format.content_type(), || scrape(socket, timeout, format))
            })?;
        }
    }
    Ok(())
}

fn scrape(socket: &Path, timeout: Duration, format: Format) -> Result<String, ApiError> {
    write(&mut Client::connect(socket, timeout)?, format)
}

/// All metrics as they are now, as OpenMetrics.
pub fn text(client: &mut Client) -> Result<String, ApiError> {
    write(client, Format::Openmetrics)
}

/// Asks and writes it down.
fn write(client: &mut Client, format: Format) -> Result<String, ApiError> {
    family::text(look::look(client)?.families(), format)
        .map_err(|error| ApiError::new(Code::Internal, format!("the metrics cannot be written: {error}")))
}
