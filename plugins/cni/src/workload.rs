//! What a container's port is to network policies: the namespace and the labels that a runtime tells of its pod, and
//! those that it was given by hand (`args.cni.labels`, as the conventions of CNI have it).

use crate::conf::Conf;
use crate::invocation::{Invocation, NAMESPACE_LABEL, POD_LABEL, UID_LABEL};
use serde::Deserialize;
use switch_api::{Labels, Workload};

/// The namespace of a container of which a runtime says none, as in Kubernetes.
pub const NAMESPACE_DEFAULT: &str = "default";
/// Longest value of a label in Kubernetes.
const VALUE_LEN_MAX: usize = 63;

/// A label as the conventions write it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// `[DOMAIN/]NAME`.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// What the port is to policies; none if nothing was said of the container. A pod's own labels are not among what
/// Kubernetes tells a plugin: whoever knows them declares them (`port.label`).
pub fn of(invocation: &Invocation, conf: &Conf) -> Option<Workload> {
    let mut labels: Labels =
        conf.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect();
    // Said by the runtime, so that nobody passes for another pod by labels of the configuration.
    for key in [NAMESPACE_LABEL, POD_LABEL, UID_LABEL] {
        labels.remove(key);
        let value = invocation.labels.get(key).filter(|value| is_value(value));
        labels.extend(value.map(|value| (key.to_owned(), value.clone())));
    }
    let namespace = invocation.labels.get(NAMESPACE_LABEL).filter(|namespace| !namespace.is_empty());
    let is_known = namespace.is_some() || !labels.is_empty();
    let namespace = namespace.cloned().unwrap_or_else(|| NAMESPACE_DEFAULT.into());
    is_known.then_some(Workload { namespace, labels, ports: Vec::new(), addresses: Vec::new() })
}

/// Whether a text can be a label's value: a pod's name may be longer than that, and is then no label.
fn is_value(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= VALUE_LEN_MAX
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// What a port should be, that is something already: what was wanted, and what was declared beside it meanwhile. None
/// if it is that.
pub fn missing(present: Option<&Workload>, wanted: Option<&Workload>) -> Option<Workload> {
    let wanted = wanted?;
    let Some(present) = present.filter(|present| present.namespace == wanted.namespace) else {
        return Some(wanted.clone());
    };
    let is_there = |(key, value): (&String, &String)| present.labels.get(key) == Some(value);
    if wanted.labels.iter().all(is_there) {
        return None;
    }
    let mut both = present.clone();
    both.labels.extend(wanted.labels.clone());
    Some(both)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(args: &str, labels: serde_json::Value) -> Option<Workload> {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "n", "type": "switch-cni", "args": {"cni": {"labels": labels}},
        });
        let pairs = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/n"),
            ("CNI_ARGS", args),
        ];
        let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        of(&Invocation::new(get).unwrap(), &Conf::read(conf.to_string().as_bytes(), false).unwrap())
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_said_becomes_what_policies_select() {
        assert_eq!(asked("", json!([])), None);
        let web = json!([{"key": "app", "value": "web"}, {"key": "plain"}]);
        let given = asked("", web.clone()).unwrap();
        assert_eq!(
            (given.namespace.as_str(), given.labels),
            ("default", labels(&[("app", "web"), ("plain", "")]))
        );
        let args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=42";
        let given = asked(args, web).unwrap();
        let all = [
            ("app", "web"),
            ("k8s/namespace", "shop"),
            ("k8s/pod", "web-0"),
            ("k8s/uid", "42"),
            ("plain", ""),
        ];
        assert_eq!((given.namespace.as_str(), given.labels), ("shop", labels(&all)));
        // podman says the container's name alone.
        assert_eq!(asked("K8S_POD_NAME=a", json!([])).unwrap().labels, labels(&[("k8s/pod", "a")]));
    }

    #[test]
    fn nobody_passes_for_another_pod_and_long_names_are_no_labels() {
        let forged = json!([{"key": "k8s/pod", "value": "db"}, {"key": "a", "value": "b"}]);
        assert_eq!(asked("K8S_POD_NAME=web", forged.clone()).unwrap().labels["k8s/pod"], "web");
        assert_eq!(asked("", forged).unwrap().labels, labels(&[("a", "b")]));
        let long = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={}", "x".repeat(64));
        assert_eq!(asked(&long, json!([])).unwrap().labels, labels(&[("k8s/namespace", "shop")]));
    }

    #[test]
    fn what_was_declared_meanwhile_stays() {
        let workload = |namespace: &str, pairs: &[(&str, &str)]| Workload {
            namespace: namespace.into(),
            labels: labels(pairs),
            ports: Vec::new(),
            addresses: Vec::new(),
        };
        let wanted = workload("shop", &[("k8s/pod", "web")]);
        let declared = workload("shop", &[("k8s/pod", "web"), ("app", "web")]);
        assert_eq!(missing(Some(&declared), Some(&wanted)), None);
        assert_eq!(missing(Some(&declared), None), None);
        assert_eq!(missing(None, Some(&wanted)), Some(wanted.clone()));
        let other = workload("shop", &[("k8s/pod", "db"), ("app", "web")]);
        assert_eq!(missing(Some(&other), Some(&wanted)), Some(declared));
        assert_eq!(missing(Some(&workload("else", &[])), Some(&wanted)), Some(wanted));
    }
}
