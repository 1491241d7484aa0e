//! `switch-ctl acl`.

use crate::one_kind::{OneKind, named};
use crate::output::{Output, thousands};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use switch_api::{
    Acl, AclAction, AclPorts, AclRule, AclStatus, ApiError, ByName, Client, Config, Done, Name, Nothing,
    Request,
};

/// A list, declared as one would paste it, and what is done with it then.
macro_rules! with_a_list {
    ($then:literal) => {
        concat!(
            "\
Examples:
  echo '
  [[acl]]
  name = \"metadata\"
  applies_to = { all = true }
  [[acl.egress]]
  action = \"reject\"
  protocol = \"tcp\"
  destination = [\"169.254.169.254/32\"]
  destination_ports = [80, \"8000-8080\"]
  ' | switch-ctl acl set -",
            $then
        )
    };
}

/// What can be done with access control lists.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Declares the lists of a file, each in place of the one of its name if there is one; `-` reads them from standard input.
    ///
    /// The file is one as `apply` reads it, with nothing but `[[acl]]` tables; other lists stay as they are.
    #[command(after_help = with_a_list!(""))]
    Set {
        /// The file.
        file: PathBuf,
    },
    /// Lists access control lists.
    #[command(after_help = "Example:\n  switch-ctl acl list")]
    List,
    /// Shows one list: its rules, the ports that it is for, what the rules decided.
    #[command(after_help = with_a_list!("\n  switch-ctl acl show metadata"))]
    Show {
        /// Its name.
        name: Name,
    },
    /// Lists every rule with what it decided. Of a flow that is its first packet.
    #[command(after_help = "Example:\n  switch-ctl acl stats")]
    Stats,
    /// Removes a list.
    #[command(alias = "remove", after_help = with_a_list!("\n  switch-ctl acl delete metadata"))]
    Delete {
        /// Its name.
        name: Name,
    },
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::Set { file } => set(file, client, output),
        Verb::List => {
            let lists = asked(client)?;
            output.answer(&lists, |lists| list(lists, output));
            Ok(())
        }
        Verb::Show { name } => {
            let kind = ("access control list", "acl list");
            let found = named(asked(client)?, name, |status| &status.acl.name, kind)?;
            output.answer(&found, |status| show(status, output));
            Ok(())
        }
        Verb::Stats => {
            let lists = asked(client)?;
            output.answer(&lists, |lists| rules(lists, output));
            Ok(())
        }
        Verb::Delete { name } => {
            let done: Done = client.call(&Request::AclDelete(ByName { name: name.clone() }))?;
            output.done(&done, &format!("access control list {name} is gone"));
            Ok(())
        }
    }
}

fn asked(client: &mut Client) -> Result<Vec<AclStatus>, ApiError> {
    client.call(&Request::AclList(Nothing {}))
}

/// Declares every list of a file. All of it is read before the first is declared.
fn set(path: &Path, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let lists =
        OneKind::read(path, "acl", |config| Config { acl: config.acl.clone(), ..Config::default() }, output)?;
    let request = |acl: &Acl| Request::AclSet(Box::new(acl.clone()));
    lists.declare(&lists.only.acl, client, output, request, |acl, done: Done| {
        output.done(&done, &format!("access control list {} is in force", acl.name));
    })
}

fn list(lists: &[AclStatus], output: &Output) -> String {
    if lists.is_empty() {
        return "no access control lists".into();
    }
    let mut table =
        output.table(&["LIST", "TIER", "PRIORITY", "APPLIES TO", "PORTS", "RULES", "ALLOWED", "DENIED"]);
    let mut lists: Vec<&AclStatus> = lists.iter().collect();
    lists.sort_by_key(|status| (status.acl.tier, status.acl.priority, &status.acl.name));
    for status in lists {
        let acl = &status.acl;
        let count = |action: AclAction| -> u64 {
            let rules =
                in_order(acl).zip(&status.rules).filter(|(rule, _)| rule.action == action && !rule.staged);
            rules.map(|(_, count)| count.packets).sum()
        };
        table.add_row(vec![
            acl.name.to_string(),
            acl.tier.to_string(),
            acl.priority.to_string(),
            applies_to(&acl.applies_to),
            status.ports.len().to_string(),
            status.rules.len().to_string(),
            thousands(count(AclAction::Allow)),
            thousands(count(AclAction::Deny) + count(AclAction::Reject)),
        ]);
    }
    table.to_string()
}

/// Rules as they are counted.
fn in_order(acl: &Acl) -> impl Iterator<Item = &AclRule> {
    acl.ingress.iter().chain(&acl.egress)
}

fn applies_to(to: &AclPorts) -> String {
    let ports = to.ports.iter().map(|port| format!("port {port}"));
    let mut parts: Vec<_> = ports.collect();
    if let Some(workloads) = &to.workloads {
        let selectors = [("namespaces", &workloads.namespace_selector), ("pods", &workloads.pod_selector)];
        for (what, selector) in selectors.into_iter().filter(|(_, it)| **it != Default::default()) {
            parts.push(format!("{what} {}", serde_json::to_string(selector).unwrap_or_default()));
        }
        if parts.len() == to.ports.len() {
            parts.push("every workload".into());
        }
    }
    if to.all { "every port".into() } else { parts.join(", ") }
}

fn show(status: &AclStatus, output: &Output) -> String {
    let acl = &status.acl;
    let ports: Vec<_> = status.ports.iter().map(ToString::to_string).collect();
    format!(
        "access control list {}, {} policies, priority {}\nfor {}: {}\n{}",
        acl.name,
        acl.tier,
        acl.priority,
        applies_to(&acl.applies_to),
        if ports.is_empty() { "no port there is".into() } else { ports.join(", ") },
        rules(std::slice::from_ref(status), output),
    )
}

fn rules(lists: &[AclStatus], output: &Output) -> String {
    if lists.iter().all(|status| status.rules.is_empty()) {
        return "no rules".into();
    }
    let mut table = output.table(&["RULE", "ACTION", "ABOUT", "PACKETS"]);
    for status in lists {
        for (rule, count) in in_order(&status.acl).zip(&status.rules) {
            let stateless = rule.stateless || status.acl.stateless && rule.action == AclAction::Allow;
            let flags = [(rule.staged, ", staged"), (stateless, ", stateless"), (rule.log, ", log")];
            let flags: String = flags.into_iter().filter_map(|(is, text)| is.then_some(text)).collect();
            let action = format!("{:?}{flags}", rule.action).to_lowercase();
            table.add_row(vec![count.rule.clone(), action, about(rule), thousands(count.packets)]);
        }
    }
    table.to_string()
}

/// What a rule is about, in a line.
fn about(rule: &AclRule) -> String {
    fn all<T: ToString>(items: &[T]) -> String {
        items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
    let mut parts: Vec<String> = rule.protocol.iter().map(ToString::to_string).collect();
    let sides = [
        ("from", &rule.source, &rule.source_sets, &rule.source_ports, &rule.source_port_sets),
        (
            "to",
            &rule.destination,
            &rule.destination_sets,
            &rule.destination_ports,
            &rule.destination_port_sets,
        ),
    ];
    for (word, prefixes, sets, ports, port_sets) in sides {
        if !prefixes.is_empty() || !sets.is_empty() || !ports.is_empty() || !port_sets.is_empty() {
            parts.push(word.into());
            parts.extend((!prefixes.is_empty()).then(|| all(prefixes)));
            parts.extend((!sets.is_empty()).then(|| format!("set {}", all(sets))));
            parts.extend((!ports.is_empty()).then(|| format!("port {}", all(ports))));
            parts.extend((!port_sets.is_empty()).then(|| format!("port set {}", all(port_sets))));
        }
    }
    parts.extend((!rule.icmp.is_empty()).then(|| format!("type {}", all(&rule.icmp))));
    parts.extend(rule.tcp_flags.map(|flags| format!("flags {flags}")));
    parts.extend(rule.fragment.map(|fragment| format!("fragment {fragment}")));
    parts.extend((!rule.source_mac.is_empty()).then(|| format!("from mac {}", all(&rule.source_mac))));
    parts
        .extend((!rule.destination_mac.is_empty()).then(|| format!("to mac {}", all(&rule.destination_mac))));
    parts.extend((!rule.vlan.is_empty()).then(|| format!("vlan {}", all(&rule.vlan))));
    if parts.is_empty() { "everything".into() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_told_in_a_line() {
        let rule = |json: serde_json::Value| about(&serde_json::from_value(json).unwrap());
        assert_eq!(rule(serde_json::json!({"action": "deny"})), "everything");
        let tcp = serde_json::json!({"action": "deny", "protocol": "tcp", "source": ["10.0.0.0/8", "fd00::/8"],
            "destination_ports": [80, "8000-8080"]});
        assert_eq!(rule(tcp), "tcp from 10.0.0.0/8,fd00::/8 to port 80,8000-8080");
        let sets = serde_json::json!({"action": "deny", "source": ["10.0.0.0/8"], "source_sets": ["a", "b"], "destination_sets": ["c"]});
        assert_eq!(rule(sets), "from 10.0.0.0/8 set a,b to set c");
        let ping = serde_json::json!({"action": "allow", "protocol": "icmp", "icmp": [8, "3/4"]});
        assert_eq!(rule(ping), "icmp type 8,3/4");
    }
}
