//! What the runtime says in the environment (specification, "Parameters").

use crate::refusal::{INVALID_ENVIRONMENT, Refusal};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use switch_api::Mac;

/// Longest name of an interface; `IFNAMSIZ` (linux/if.h) counts the final zero.
const INTERFACE_LEN_MAX: usize = 15;
/// Longest container identifier we take. Runtimes use 64.
const CONTAINER_LEN_MAX: usize = 256;
/// The note of a pod's namespace.
pub const NAMESPACE_LABEL: &str = "k8s/namespace";
/// The note of its name.
pub const POD_LABEL: &str = "k8s/pod";
/// The note of what tells it from one of the same name before or after it.
pub const UID_LABEL: &str = "k8s/uid";
/// What `K8S_POD_*` and the like of `CNI_ARGS` are noted as on the port.
const LABELS: [(&str, &str); 4] = [
    ("K8S_POD_NAMESPACE", NAMESPACE_LABEL),
    ("K8S_POD_NAME", POD_LABEL),
    ("K8S_POD_UID", UID_LABEL),
    ("K8S_POD_INFRA_CONTAINER_ID", "k8s/infra"),
];

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    /// All of them, as the environment names them.
    pub const ALL: [(&'static str, Self); 6] = [
        ("ADD", Self::Add),
        ("DEL", Self::Del),
        ("CHECK", Self::Check),
        ("GC", Self::Gc),
        ("STATUS", Self::Status),
        ("VERSION", Self::Version),
    ];
}

/// The environment, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// What is to be done.
    pub verb: Verb,
    /// Of which container; empty for verbs that are about none.
    pub container: String,
    /// Its namespace; none if there is none any more.
    pub netns: Option<String>,
    /// The interface in it.
    pub interface: String,
    /// Where other plugins are.
    pub path: Vec<PathBuf>,
    /// Where the runtime was told to keep its networks: its environment is passed on (nerdctl, cnitool).
    pub conf_dir: Option<PathBuf>,
    /// `MAC` of `CNI_ARGS`.
    pub mac: Option<Mac>,
    /// `IP` of `CNI_ARGS`.
    pub ips: Vec<IpAddr>,
    /// Labels for the port.
    pub labels: BTreeMap<String, String>,
}

impl Invocation {
    /// From the environment, through `get`. All problems at once.
    pub fn new(get: impl Fn(&str) -> Option<String>) -> Result<Self, Refusal> {
        let text = |name: &str| get(name).unwrap_or_default();
        let command = text("CNI_COMMAND");
        let Some((_, verb)) = Verb::ALL.into_iter().find(|(name, _)| *name == command) else {
            let known = Verb::ALL.map(|(name, _)| name).join(", ");
            return Err(wrong(format!("CNI_COMMAND is {}, it must be one of {known}", quoted(&command))));
        };
        let mut invocation = Self {
            verb,
            container: text("CNI_CONTAINERID"),
            netns: get("CNI_NETNS").filter(|path| !path.is_empty()),
            interface: text("CNI_IFNAME"),
            path: text("CNI_PATH").split(':').filter(|part| !part.is_empty()).map(PathBuf::from).collect(),
            conf_dir: get("NETCONFPATH").filter(|path| !path.is_empty()).map(PathBuf::from),
            mac: None,
            ips: Vec::new(),
            labels: BTreeMap::new(),
        };
        let mut problems = Vec::new();
        if matches!(verb, Verb::Add | Verb::Del | Verb::Check) {
            invocation.check_container(&mut problems);
            invocation.read_args(&text("CNI_ARGS"), &mut problems);
        }
        match problems.is_empty() {
            true => Ok(invocation),
            false => Err(wrong(problems.join("; "))),
        }
    }

    fn check_container(&self, problems: &mut Vec<String>) {
        if !is_identifier(&self.container) {
            let rule = "use letters, digits and _ . - and begin with a letter or a digit";
            problems.push(format!("CNI_CONTAINERID is {}: {rule}", quoted(&self.container)));
        }
        if !is_interface(&self.interface) {
            let rule = format!("use 1 to {INTERFACE_LEN_MAX} characters, no slash, colon or space");
            problems.push(format!("CNI_IFNAME is {}: {rule}", quoted(&self.interface)));
        }
        match &self.netns {
            None if self.verb != Verb::Del => problems.push("CNI_NETNS is missing".into()),
            Some(path) if path.contains('\0') => problems.push("CNI_NETNS is no path".into()),
            _ => {}
        }
    }

    /// `CNI_ARGS` is `KEY=VALUE;KEY=VALUE`. A key nobody knows is an error unless `IgnoreUnknown` is set.
    fn read_args(&mut self, text: &str, problems: &mut Vec<String>) {
        let pairs: Vec<_> = text.split(';').filter(|pair| !pair.is_empty()).collect();
        let is_true = |value: &str| matches!(value, "1" | "true" | "True" | "TRUE" | "t" | "T");
        let lenient = pairs.iter().any(|pair| pair.strip_prefix("IgnoreUnknown=").is_some_and(is_true));
        for pair in pairs {
            let Some((key, value)) = pair.split_once('=') else {
                problems.push(format!("CNI_ARGS has {}, which is no KEY=VALUE", quoted(pair)));
                continue;
            };
            let label = LABELS.iter().find(|(name, _)| *name == key).map(|(_, label)| *label);
            match (key, label) {
                ("IgnoreUnknown", _) => {}
                ("MAC", _) => match value.parse() {
                    Ok(mac) => self.mac = Some(mac),
                    Err(error) => problems.push(format!("CNI_ARGS: MAC: {error}")),
                },
                ("IP", _) => match address(value) {
                    Some(ip) => self.ips.push(ip),
                    None => problems.push(format!("CNI_ARGS: IP: {} is no address", quoted(value))),
                },
                (_, Some(label)) => _ = self.labels.insert(label.into(), short(value)),
                _ if lenient => {}
                _ => problems.push(format!("CNI_ARGS has {}, which is not known here", quoted(key))),
            }
        }
    }
}

/// An address, or one with the length of its network, of which the length does not matter.
pub fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// As a network name or a container identifier has to be (specification, "Section 1" and "Parameters").
pub fn is_identifier(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    first && rest && text.len() <= CONTAINER_LEN_MAX
}

fn is_interface(text: &str) -> bool {
    let odd = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace() || c.is_control();
    !text.is_empty() && text.len() <= INTERFACE_LEN_MAX && !matches!(text, "." | "..") && !text.contains(odd)
}

/// Labels are bounded, and what is noted is for people.
pub fn short(value: &str) -> String {
    let clean = value.chars().filter(|c| !c.is_control());
    let mut text = String::new();
    for c in clean {
        if text.len() + c.len_utf8() > CONTAINER_LEN_MAX {
            break;
        }
        text.push(c);
    }
    text
}

/// No more of what came from outside than a line holds, and nothing that plays tricks with it.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

fn wrong(text: String) -> Refusal {
    Refusal::new(INVALID_ENVIRONMENT, text)
        .details("these variables are set by the container runtime, not by hand; see cni.dev, \"Parameters\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Invocation, Refusal> {
        Invocation::new(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let error = read(&[
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "../x"),
            ("CNI_IFNAME", "much-too-long-a-name"),
            ("CNI_ARGS", "MAC=zz;FOO=1;BAR"),
        ])
        .unwrap_err();
        assert_eq!(error.code, INVALID_ENVIRONMENT);
        for part in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "MAC", "FOO", "BAR"] {
            assert!(error.message.contains(part), "{part}: {error}");
        }
        for command in ["", "add", "FLY"] {
            assert_eq!(read(&[("CNI_COMMAND", command)]).unwrap_err().code, INVALID_ENVIRONMENT);
        }
    }

    #[test]
    fn a_pod_is_known_by_its_labels_in_any_order() {
        let args = "K8S_POD_NAME=web;IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;X=1;IP=10.1.0.7/24;MAC=02:00:00:00:00:01";
        let pairs = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", ""),
            ("CNI_ARGS", args),
        ];
        let read = read(&pairs).unwrap();
        assert_eq!((read.netns, read.ips.len(), read.mac.is_some()), (None, 1, true));
        assert_eq!(read.labels["k8s/pod"], "web");
        assert_eq!(read.labels["k8s/namespace"], "shop");
    }

    #[test]
    fn version_needs_nothing() {
        assert_eq!(read(&[("CNI_COMMAND", "VERSION")]).unwrap().verb, Verb::Version);
        assert_eq!(read(&[("CNI_COMMAND", "GC"), ("CNI_PATH", "/a:/b")]).unwrap().path.len(), 2);
    }
}
