//! Running programs.

use std::path::PathBuf;
use std::process::Command;

/// A sentence for the person at the terminal.
pub type Result<T = ()> = std::result::Result<T, String>;

/// The root of the workspace.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, PathBuf::from)
}

/// Cargo, in the workspace.
pub fn cargo(words: &str) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(words.split_whitespace()).current_dir(root());
    command
}

/// Runs a command, its output where ours goes.
pub fn run(mut command: Command) -> Result {
    let shown = shown(&command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{shown}` failed: {status}")),
        Err(error) => Err(format!("`{shown}`: {error}")),
    }
}

/// What a command prints on its standard output; if it fails, what it says on the other one.
pub fn capture(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.output().map_err(|error| format!("`{shown}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{shown}` failed: {}\n{complaint}", output.status))
}

/// Whether a program is on the PATH.
pub fn has(program: &str) -> bool {
    if program.starts_with('/') {
        return PathBuf::from(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|directory| directory.join(program).is_file())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// A line that says what comes next.
pub fn say(text: &str) {
    println!("\n── {text} {}", "─".repeat(100usize.saturating_sub(text.chars().count())));
}
