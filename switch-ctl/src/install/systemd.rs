//! The service, where systemd is what starts services (`sd_booted(3)`).

use super::places::Root;
use std::path::Path;
use std::process::Command;
use switch_api::{ApiError, Code};

/// It is there when systemd is process 1.
const SIGN: &str = "/run/systemd/system";
const UNIT: &str = "switchd.service";

fn ask(root: &Root, words: &[&str]) -> Result<(), ApiError> {
    if !root.at(Path::new(SIGN)).is_dir() {
        return Ok(());
    }
    let failed = |text: String| {
        ApiError::new(Code::System, format!("systemctl {}: {text}", words.join(" ")))
            .hint("put it right, and do this again: what was done stays")
    };
    let output = Command::new("systemctl").args(words).output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Now, and whenever the node starts. `is_newer`: it runs already, and is another one now.
pub fn start(root: &Root, is_newer: bool) -> Result<(), ApiError> {
    reload(root)?;
    ask(root, &["enable", "--now", UNIT])?;
    if is_newer { ask(root, &["restart", UNIT]) } else { Ok(()) }
}

/// Not when the node starts.
pub fn disable(root: &Root) -> Result<(), ApiError> {
    ask(root, &["disable", UNIT])
}

/// Now: whatever of it still runs, or waits to be started again.
pub fn stop(root: &Root) -> Result<(), ApiError> {
    ask(root, &["stop", UNIT])
}

/// Units have changed.
pub fn reload(root: &Root) -> Result<(), ApiError> {
    ask(root, &["daemon-reload"])
}
