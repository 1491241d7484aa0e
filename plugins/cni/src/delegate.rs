//! Running another plugin, as the specification says in "Delegated plugin execution": the same environment, the
//! same configuration, its result on standard output.

use crate::conf::Conf;
use crate::invocation::Invocation;
use crate::refusal::{DELEGATE_FAILED, Refusal};
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Runs the plugin `kind` with `command`; what it printed, if anything.
pub fn run(
    kind: &str,
    command: &str,
    invocation: &Invocation,
    conf: &Conf,
) -> Result<Option<Value>, Refusal> {
    let program = find(kind, &invocation.path)?;
    let failed = |error: std::io::Error| {
        Refusal::new(DELEGATE_FAILED, format!("the plugin {kind} cannot be run: {error}"))
            .details(program.display().to_string())
    };
    // The environment is passed on as it is: it has what the runtime said, the verb aside.
    let mut child = Command::new(&program)
        .env("CNI_COMMAND", command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without having read says so by its exit.
        _ = stdin.write_all(conf.raw.to_string().as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let said = serde_json::from_slice::<Value>(&output.stdout);
    if output.status.success() {
        return match (said, output.stdout.trim_ascii().is_empty()) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(_), true) => Ok(None),
            (Err(error), false) => {
                let text = format!("the plugin {kind} did not answer in JSON: {error}");
                Err(Refusal::new(DELEGATE_FAILED, text).details(format!(
                    "run {} by hand with the same configuration to see what it prints",
                    program.display()
                )))
            }
        };
    }
    let said = said.unwrap_or_default();
    let text = |field: &str| said.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let message = format!("the plugin {kind} failed: {}", text("msg"));
    // Its own code says more than ours.
    let code = said.get("code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
    Err(Refusal::new(code.filter(|code| *code > 0).unwrap_or(DELEGATE_FAILED), message)
        .details(text("details"))
        .and(&format!("{} ended with {}", program.display(), output.status)))
}

fn find(kind: &str, path: &[PathBuf]) -> Result<PathBuf, Refusal> {
    let found = path.iter().map(|directory| directory.join(kind)).find(|program| program.is_file());
    found.ok_or_else(|| {
        let shown: Vec<_> = path.iter().map(|directory| directory.display().to_string()).collect();
        Refusal::new(DELEGATE_FAILED, format!("there is no plugin {kind:?} in CNI_PATH")).details(format!(
            "looked in {}; Debian has it in the package containernetworking-plugins",
            shown.join(", ")
        ))
    })
}
