//! Running another plugin, as the specification says in "Delegated plugin execution": the same environment, the
//! same configuration, its result on standard output. One that does not speak the configuration's version is asked in the newest
//! that it does: a list of CNI 1.1.0 works with plugins of before.

use crate::conf::Conf;
use crate::invocation::Invocation;
use crate::refusal::{DELEGATE_FAILED, INCOMPATIBLE_VERSION, Refusal, TRY_AGAIN_LATER};
use crate::version::Version;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use switch_api::Holder;

/// How long another plugin may take: `dhcp` asks for 62 s before it gives up, a kubelet waits 120 s for us.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// Runs the plugin `kind` with `command` for the attachment that the runtime speaks of; what it printed, if anything.
pub fn run(
    kind: &str,
    command: &str,
    invocation: &Invocation,
    conf: &Conf,
) -> Result<Option<Value>, Refusal> {
    Delegate::find(kind, invocation)?.ask(command, &[], conf)
}

/// Has the plugin `kind` let go of what it gave an attachment, whose namespace may be gone.
pub fn release(kind: &str, invocation: &Invocation, conf: &Conf, holder: &Holder) -> Result<(), Refusal> {
    let of = [
        ("CNI_CONTAINERID", holder.container.as_str()),
        ("CNI_IFNAME", holder.interface.as_str()),
        ("CNI_NETNS", ""),
        ("CNI_ARGS", ""),
    ];
    Delegate::find(kind, invocation)?.ask("DEL", &of, conf).map(drop)
}

/// Runs a verb that came with CNI 1.1.0 and is about no attachment, if the plugin knows it. It must be there either way.
pub fn run_if_known(kind: &str, command: &str, invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    let delegate = Delegate::find(kind, invocation)?;
    match delegate.versions()?.contains(&Version::V1_1_0) {
        true => delegate.ask(command, &[], conf).map(drop),
        false => Ok(()),
    }
}

/// A plugin, found.
struct Delegate<'a> {
    kind: &'a str,
    program: PathBuf,
}

impl<'a> Delegate<'a> {
    fn find(kind: &'a str, invocation: &Invocation) -> Result<Self, Refusal> {
        let path = &invocation.path;
        let found = path.iter().map(|directory| directory.join(kind)).find(|program| program.is_file());
        let program = found.ok_or_else(|| {
            let shown: Vec<_> = path.iter().map(|directory| directory.display().to_string()).collect();
            Refusal::new(DELEGATE_FAILED, format!("there is no plugin {kind:?} in CNI_PATH")).details(
                format!(
                    "looked in {}; Debian has it in the package containernetworking-plugins",
                    shown.join(", ")
                ),
            )
        })?;
        Ok(Self { kind, program })
    }

    /// Asks in the configuration's version, and in one that the plugin speaks if it does not speak that. `env`: what is said otherwise than the
    /// runtime says it.
    fn ask(&self, command: &str, env: &[(&str, &str)], conf: &Conf) -> Result<Option<Value>, Refusal> {
        let refused = match self.read(self.exec(command, env, &conf.raw)?) {
            Err(refusal) if refusal.code == INCOMPATIBLE_VERSION => refusal,
            outcome => return outcome,
        };
        let spoken = self.versions()?;
        let Some(older) = spoken.into_iter().filter(|version| *version < conf.version).max() else {
            return Err(refused);
        };
        self.read(self.exec(command, env, &in_version(&conf.raw, older))?)
    }

    /// Versions that it speaks and we do.
    fn versions(&self) -> Result<Vec<Version>, Refusal> {
        // As libcni asks: what a plugin of before 0.4.0 wants to be told although it is about nothing.
        let env = [
            ("CNI_CONTAINERID", "dummy"),
            ("CNI_IFNAME", "dummy"),
            ("CNI_NETNS", "dummy"),
            ("CNI_PATH", "dummy"),
        ];
        let said =
            self.read(self.exec("VERSION", &env, &json!({"cniVersion": Version::V1_0_0.as_str()}))?)?;
        let said = said.unwrap_or_default();
        let named = said["supportedVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(named.filter_map(|text| Version::ALL.into_iter().find(|known| known.as_str() == text)).collect())
    }

    fn exec(&self, command: &str, env: &[(&str, &str)], conf: &Value) -> Result<Output, Refusal> {
        // The environment is passed on as it is: it has what the runtime said, the verb aside.
        let child = Command::new(&self.program)
            .env("CNI_COMMAND", command)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| self.failed(&error))?;
        finish(child, conf.to_string(), PATIENCE).map_err(|error| self.failed(&error))?.ok_or_else(|| {
            let text = format!("the plugin {} did not end within {} s", self.kind, PATIENCE.as_secs());
            Refusal::new(TRY_AGAIN_LATER, text).details(format!(
                "it was killed; run {} by hand to see what it waits for",
                self.program.display()
            ))
        })
    }

    fn failed(&self, error: &std::io::Error) -> Refusal {
        Refusal::new(DELEGATE_FAILED, format!("the plugin {} cannot be run: {error}", self.kind))
            .details(self.program.display().to_string())
    }

    /// What it said.
    fn read(&self, output: Output) -> Result<Option<Value>, Refusal> {
        let (kind, program) = (self.kind, self.program.display());
        let said = serde_json::from_slice::<Value>(&output.stdout);
        if output.status.success() {
            return match (said, output.stdout.trim_ascii().is_empty()) {
                (Ok(value), _) => Ok(Some(value)),
                (Err(_), true) => Ok(None),
                (Err(error), false) => {
                    let text = format!("the plugin {kind} did not answer in JSON: {error}");
                    Err(Refusal::new(DELEGATE_FAILED, text).details(format!(
                        "run {program} by hand with the same configuration to see what it prints"
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
            .and(&format!("{program} ended with {}", output.status)))
    }
}

/// Writes what a process is to read and waits for its end; none if it had to be killed.
fn finish(mut child: Child, input: String, patience: Duration) -> std::io::Result<Option<Output>> {
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let (tell, told) = mpsc::channel();
    // Neither thread is joined: a child of the child may hold the pipes open for ever, and our own end closes them. One writes while the other
    // reads, for either pipe holds little.
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without having read says so by its exit.
        std::thread::spawn(move || _ = stdin.write_all(input.as_bytes()));
    }
    std::thread::spawn(move || _ = tell.send(child.wait_with_output()));
    match told.recv_timeout(patience) {
        Ok(output) => output.map(Some),
        Err(_) => {
            // One that has ended meanwhile is not there any more.
            _ = pidfd_send_signal(&process, Signal::KILL);
            Ok(None)
        }
    }
}

/// The configuration in the words of another version.
fn in_version(conf: &Value, version: Version) -> Value {
    let mut conf = conf.clone();
    conf["cniVersion"] = version.as_str().into();
    if let Some(previous) = conf.get_mut("prevResult").filter(|previous| previous.is_object()) {
        previous["cniVersion"] = version.as_str().into();
    }
    conf
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_process_is_given_what_it_reads_and_one_that_does_not_end_is_killed() {
        let said = finish(shell("cat"), "x".repeat(1 << 20), Duration::from_secs(20)).unwrap().unwrap();
        assert_eq!(said.stdout.len(), 1 << 20);
        // One that reads nothing, and says nothing.
        let none = finish(shell("exit 3"), "x".repeat(1 << 20), Duration::from_secs(20)).unwrap().unwrap();
        assert_eq!(none.status.code(), Some(3));
        let begun = Instant::now();
        let long = finish(shell("exec sleep 60"), "x".repeat(1 << 20), Duration::from_millis(200)).unwrap();
        assert!(long.is_none() && begun.elapsed() < Duration::from_secs(20), "{long:?}");
    }

    #[test]
    fn a_configuration_is_said_again_in_another_version() {
        let conf =
            json!({"cniVersion": "1.1.0", "name": "n", "prevResult": {"cniVersion": "1.1.0", "ips": []}});
        let said = in_version(&conf, Version::V0_4_0);
        let due =
            json!({"cniVersion": "0.4.0", "name": "n", "prevResult": {"cniVersion": "0.4.0", "ips": []}});
        assert_eq!(said, due);
        assert_eq!(in_version(&json!({"prevResult": null}), Version::V1_0_0)["prevResult"], Value::Null);
    }
}
