//! `switch-ctl status` and `switch-ctl stop`.

use crate::output::Output;
use clap::Args;
use switch_api::{ApiError, Client, Done, Nothing, OutsideStatus, Request, Status, Support};

/// How to stop.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl stop             # devices stay for the next daemon
  switch-ctl stop --detach    # what the switch made goes too")]
pub struct Stop {
    /// Also take every XDP program off its device. Without it they stay, and what each port's
    /// --when-dead says holds until the next daemon takes over.
    #[arg(long)]
    detach: bool,
}

pub fn stop(stop: &Stop, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let done: Done = client.call(&Request::Stop(switch_api::Stop { detach: stop.detach }))?;
    output.done(&done, "switchd is stopping");
    Ok(())
}

pub fn status(client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let status: Status = client.call(&Request::Status(Nothing {}))?;
    output.answer(&status, |status| {
        let xdp = if status.xdp.ok { "yes" } else { "no" };
        format!(
            "switchd {}, process {}, up {} s\nworkers {}, generation {}\nAF_XDP: {xdp} ({})\n{}\n{}\n{}\n{}",
            status.daemon,
            status.pid,
            status.uptime_s,
            status.workers,
            status.generation,
            status.xdp.detail,
            sandbox(status.sandbox.as_ref()),
            outside(status.outside.as_ref()),
            crate::stats::frames(&status.frames),
            crate::stats::memory(&status.memory)
        )
    });
    Ok(())
}

fn sandbox(sandbox: Option<&Support>) -> String {
    match sandbox {
        Some(Support { ok: true, detail }) => format!("sandbox: on ({detail})"),
        Some(Support { ok: false, detail }) => format!("sandbox: not all of it ({detail})"),
        None => "sandbox: unknown (an older switchd)".into(),
    }
}

fn outside(outside: Option<&OutsideStatus>) -> String {
    let Some(OutsideStatus { table, masqueraded, published, settings, problem }) = outside else {
        return "outside: unknown (an older switchd)".into();
    };
    let mut text = match table {
        false => "outside: nothing of ours in the kernel".to_owned(),
        true => format!(
            "outside: {masqueraded} networks masqueraded, {published} ports published (nft list table inet switchd)"
        ),
    };
    if !settings.is_empty() {
        text += &format!("; set: {}", settings.join(", "));
    }
    if let Some(problem) = problem {
        text += &format!("; NOT AS DECLARED: {problem}");
    }
    text
}
