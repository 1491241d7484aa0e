//! What is wrong with a policy or a workload: what Kubernetes refuses is refused here too, in a sentence.

use super::to_bits;
use switch_api::{
    Cidr, IpBlock, LabelOperator, LabelSelector, Labels, NetworkPolicy, Peer, PolicyPort, PortRef, Workload,
};

/// Longest name of a policy (a DNS subdomain, RFC 1123).
const POLICY_NAME_LEN_MAX: usize = 253;
/// Longest DNS label, and longest name and value of a label.
const LABEL_LEN_MAX: usize = 63;
/// Longest prefix of a label's key.
const KEY_PREFIX_LEN_MAX: usize = 253;
/// Longest name of a port (RFC 6335 §5.1).
const PORT_NAME_LEN_MAX: usize = 15;
/// Most labels, named ports and addresses of a workload: what pods have is a tenth of it.
pub(crate) const WORKLOAD_ITEMS_MAX: usize = 256;

/// A problem: the field, and a sentence.
pub type Problem = (String, String);

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= LABEL_LEN_MAX
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str, len_max: usize) -> bool {
    text.len() <= len_max && text.split('.').all(is_dns_label)
}

/// The name part of a label's key, or its value.
fn is_label_word(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= LABEL_LEN_MAX
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix, KEY_PREFIX_LEN_MAX) && is_label_word(name),
        None => is_label_word(key),
    }
}

fn is_port_name(name: &str) -> bool {
    is_dns_label(name)
        && name.len() <= PORT_NAME_LEN_MAX
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.contains("--")
}

/// Quotes what came from outside, and not more of it than a person reads.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(LABEL_LEN_MAX).collect::<String>())
}

/// What is wrong with a namespace's name.
pub fn namespace(name: &str) -> Option<String> {
    (!is_dns_label(name))
        .then(|| format!("{} is no namespace: use 1 to 63 of a-z 0-9 -, no - at either end", quoted(name)))
}

/// What is wrong with labels.
pub fn labels(field: &str, labels: &Labels, problems: &mut Vec<Problem>) {
    for (key, value) in labels {
        word(field, key, Some(value), problems);
    }
}

fn word(field: &str, key: &str, value: Option<&str>, problems: &mut Vec<Problem>) {
    if !is_key(key) {
        let text = format!(
            "{} is no label: use [DOMAIN/]NAME, the name 1 to 63 of A-Z a-z 0-9 - _ . with a letter or digit at both ends",
            quoted(key)
        );
        problems.push((field.to_owned(), text));
    }
    if let Some(value) = value.filter(|value| !value.is_empty() && !is_label_word(value)) {
        let text = format!(
            "{} is no value of a label: use up to 63 of A-Z a-z 0-9 - _ . with a letter or digit at both ends",
            quoted(value)
        );
        problems.push((field.to_owned(), text));
    }
}

/// What is wrong with a workload.
pub fn workload(workload: &Workload) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(namespace(&workload.namespace).map(|text| ("workload.namespace".to_owned(), text)));
    labels("workload.labels", &workload.labels, &mut problems);
    for port in &workload.ports {
        if !is_port_name(&port.name) || port.port == 0 {
            let text = format!(
                "{} = {} is no named port: the name is 1 to 15 of a-z 0-9 - with a letter, the number 1 to 65535",
                quoted(&port.name),
                port.port
            );
            problems.push(("workload.ports".to_owned(), text));
        }
    }
    for ip in &workload.addresses {
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            problems.push(("workload.addresses".to_owned(), format!("{ip} is no station's address")));
        }
    }
    let items = workload.labels.len().max(workload.ports.len()).max(workload.addresses.len());
    if items > WORKLOAD_ITEMS_MAX {
        let text = format!("at most {WORKLOAD_ITEMS_MAX} labels, named ports and addresses each");
        problems.push(("workload".to_owned(), text));
    }
    problems
}

/// What is wrong with a policy.
pub fn policy(policy: &NetworkPolicy) -> Vec<Problem> {
    let (meta, spec) = (&policy.metadata, &policy.spec);
    let mut problems = Vec::new();
    if !is_subdomain(&meta.name, POLICY_NAME_LEN_MAX) {
        let text = format!("{} is no policy's name: use a-z 0-9 - and dots", quoted(&meta.name));
        problems.push(("metadata.name".to_owned(), text));
    }
    problems.extend(namespace(&meta.namespace).map(|text| ("metadata.namespace".to_owned(), text)));
    selector("spec.podSelector", &spec.pod_selector, &mut problems);
    for (n, rule) in spec.ingress.iter().enumerate() {
        peers(&format!("spec.ingress[{n}].from"), &rule.from, &mut problems);
        ports(&format!("spec.ingress[{n}].ports"), &rule.ports, &mut problems);
    }
    for (n, rule) in spec.egress.iter().enumerate() {
        peers(&format!("spec.egress[{n}].to"), &rule.to, &mut problems);
        ports(&format!("spec.egress[{n}].ports"), &rule.ports, &mut problems);
    }
    problems
}

/// What is wrong with a selector.
pub(crate) fn selector(field: &str, selector: &LabelSelector, problems: &mut Vec<Problem>) {
    labels(&format!("{field}.matchLabels"), &selector.match_labels, problems);
    for (n, wanted) in selector.match_expressions.iter().enumerate() {
        let field = format!("{field}.matchExpressions[{n}]");
        word(&field, &wanted.key, None, problems);
        wanted.values.iter().for_each(|value| word(&field, &wanted.key, Some(value), problems));
        let wants_values = matches!(wanted.operator, LabelOperator::In | LabelOperator::NotIn);
        if wants_values == wanted.values.is_empty() {
            let rule = if wants_values { "needs at least one value" } else { "takes no values" };
            problems.push((field, format!("{:?} {rule}", wanted.operator)));
        }
    }
}

fn peers(field: &str, peers: &[Peer], problems: &mut Vec<Problem>) {
    for (n, peer) in peers.iter().enumerate() {
        let field = format!("{field}[{n}]");
        let by_labels = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        if by_labels == peer.ip_block.is_some() {
            let text = "a peer has either ipBlock, or podSelector, namespaceSelector or both of them";
            problems.push((field.clone(), text.to_owned()));
        }
        if let Some(pods) = &peer.pod_selector {
            selector(&format!("{field}.podSelector"), pods, problems);
        }
        if let Some(namespaces) = &peer.namespace_selector {
            selector(&format!("{field}.namespaceSelector"), namespaces, problems);
        }
        if let Some(block) = &peer.ip_block {
            ip_block(&format!("{field}.ipBlock"), block, problems);
        }
    }
}

fn ip_block(field: &str, block: &IpBlock, problems: &mut Vec<Problem>) {
    let inside = |except: &Cidr| {
        except.address().is_ipv4() == block.cidr.address().is_ipv4()
            && except.prefix_len() > block.cidr.prefix_len()
            && super::terms::covers(block.cidr, to_bits(except.address()))
    };
    for except in block.except.iter().filter(|except| !inside(except)) {
        let text = format!("{except} is no part of {}", block.cidr);
        problems.push((format!("{field}.except"), text));
    }
}

fn ports(field: &str, ports: &[PolicyPort], problems: &mut Vec<Problem>) {
    for (n, port) in ports.iter().enumerate() {
        let mut problem = |text: String| problems.push((format!("{field}[{n}]"), text));
        match (&port.port, port.end_port) {
            (Some(PortRef::Number(0)), _) => problem("a port is 1 to 65535".into()),
            (Some(PortRef::Number(first)), Some(last)) if last < *first => {
                problem(format!("endPort {last} is below port {first}"));
            }
            (Some(PortRef::Name(_)) | None, Some(_)) => {
                problem("endPort needs a port by its number".into());
            }
            (Some(PortRef::Name(name)), None) if !is_port_name(name) => {
                problem(format!(
                    "{} is no name of a port: use 1 to 15 of a-z 0-9 - with a letter",
                    quoted(name)
                ));
            }
            _ => {}
        }
    }
}
