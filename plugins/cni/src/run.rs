//! Which verb does what, and what is printed.

use crate::conf::Conf;
use crate::invocation::{Invocation, Verb};
use crate::refusal::Refusal;
use crate::version::{self, Version};
use crate::{add, check, del, gc, status};
use serde_json::Value;

/// What a verb comes to: what to print, if anything, and whether it succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// For standard output.
    pub print: Option<Value>,
    /// For the exit code.
    pub success: bool,
}

/// Does what the runtime asks. `get` is the environment, `bytes` what came on standard input.
pub fn run(get: impl Fn(&str) -> Option<String>, bytes: &[u8]) -> Outcome {
    let asked = asked_version(bytes);
    match verb(get, bytes, asked.as_deref()) {
        Ok(print) => Outcome { print, success: true },
        Err(refusal) => {
            let version = asked.unwrap_or_else(|| Version::default().as_str().into());
            Outcome { print: Some(refusal.to_json(&version)), success: false }
        }
    }
}

/// The version that is asked with; it is repeated in the answer.
fn asked_version(bytes: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let version = value.get("cniVersion")?.as_str()?;
    let is_version = version.len() <= 16 && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_version.then(|| version.to_owned())
}

fn verb(
    get: impl Fn(&str) -> Option<String>,
    bytes: &[u8],
    asked: Option<&str>,
) -> Result<Option<Value>, Refusal> {
    let invocation = Invocation::new(get)?;
    if invocation.verb == Verb::Version {
        return Ok(Some(version::answer(asked)));
    }
    let lenient = matches!(invocation.verb, Verb::Del | Verb::Gc);
    let conf = Conf::read(bytes, lenient)?;
    match invocation.verb {
        Verb::Add if conf.is_ours => add::run(&invocation, &conf).map(Some),
        Verb::Add => add::addresses_only(&invocation, &conf).map(Some),
        Verb::Del => del::run(&invocation, &conf).map(|()| None),
        Verb::Check => {
            conf.version.require(Version::V0_4_0, "CHECK")?;
            let look = if conf.is_ours { check::run } else { check::addresses_only };
            look(&invocation, &conf).map(|()| None)
        }
        Verb::Gc => {
            conf.version.require(Version::V1_1_0, "GC")?;
            gc::run(&invocation, &conf).map(|()| None)
        }
        Verb::Status => {
            conf.version.require(Version::V1_1_0, "STATUS")?;
            status::run(&invocation, &conf).map(|()| None)
        }
        Verb::Version => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(command: &str, conf: &str) -> Outcome {
        let pairs = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/proc/self/ns/no-such"),
        ];
        let get =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        run(get, conf.as_bytes())
    }

    fn conf(version: &str) -> String {
        format!(
            r#"{{"cniVersion":"{version}","name":"n","type":"switch-cni","socket":"/nowhere/s","stateDir":"/proc/nowhere"}}"#
        )
    }

    fn code(outcome: &Outcome) -> u64 {
        assert!(!outcome.success);
        let print = outcome.print.as_ref().unwrap();
        assert!(print["msg"].as_str().is_some_and(|text| !text.is_empty()), "{print}");
        print["code"].as_u64().unwrap()
    }

    #[test]
    fn version_is_answered_whatever_the_configuration_is() {
        for (conf, said) in [("", "1.1.0"), ("{}", "1.1.0"), (r#"{"cniVersion":"0.4.0"}"#, "0.4.0")] {
            let outcome = ask("VERSION", conf);
            let print = outcome.print.unwrap();
            assert_eq!(print["cniVersion"], said);
            assert_eq!(print["supportedVersions"].as_array().map(Vec::len), Some(4));
        }
    }

    #[test]
    fn verbs_that_a_version_does_not_have_are_refused() {
        for (verb, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0"), ("ADD", "9.9.9")] {
            let outcome = ask(verb, &conf(version));
            assert_eq!(code(&outcome), 1, "{verb} {version}");
            assert_eq!(outcome.print.unwrap()["cniVersion"], version);
        }
    }

    #[test]
    fn without_a_daemon_each_verb_says_what_it_can() {
        assert_eq!(code(&ask("STATUS", &conf("1.1.0"))), 51);
        assert_eq!(code(&ask("ADD", &conf("1.0.0"))), 3, "the namespace is looked at first");
        // No daemon, and nowhere to write it down.
        assert_eq!(code(&ask("DEL", &conf("1.0.0"))), 11);
        assert_eq!(code(&ask("GC", &conf("1.1.0"))), 7, "without a list, everything would go");
        assert_eq!(code(&ask("CHECK", &conf("1.0.0"))), 7, "without a result there is nothing to compare");
        assert_eq!(code(&ask("FLY", &conf("1.0.0"))), 4);
        assert_eq!(code(&ask("ADD", "nonsense")), 6);
    }
}
