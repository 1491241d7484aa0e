//! `switch-ctl policy diff`: what a change would cut and open, before it is made.

use super::policies_of;
use crate::output::{Output, thousands};
use crate::{files, flow};
use clap::Args;
use std::path::{Path, PathBuf};
use switch_api::file::File;
use switch_api::{
    ApiError, ByPolicy, Client, Code, Config, DiffEnd, Effect, Name, PairChange, PolicyDiff,
    PolicyDiffAnswer, PortsChange, Request,
};

/// Says which pairs of ends and which current flows a change would cut or open, and changes nothing. It is judged by the
/// tables that are in force and by those that would be. An end is a workload, or a block of addresses that a policy
/// names, without what in it is a smaller block's or a workload's.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo '{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,
    metadata: {name: quiet}, spec: {podSelector: {}}}' > policies.yaml
  switch-ctl policy diff policies.yaml      # as `policy set` would have it
  switch-ctl --json policy diff policies.yaml | jq '.flows_cut'
  switch-ctl policy set policies.yaml && switch-ctl policy diff --remove quiet
  switch-ctl export > switch.toml
  switch-ctl policy diff switch.toml        # as `apply` would have it")]
pub struct Diff {
    /// NetworkPolicies in YAML or JSON, or a file for `apply` (named .toml, or with a line that begins with `[[`);
    /// `-` is standard input.
    #[arg(required_unless_present = "remove")]
    file: Option<PathBuf>,
    /// A policy that would be removed; may be given several times.
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// The namespace of what is removed.
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

pub fn run(diff: &Diff, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let gone = |name: &String| ByPolicy { name: name.clone(), namespace: diff.namespace.clone() };
    let mut asked = PolicyDiff { delete: diff.remove.iter().map(gone).collect(), ..PolicyDiff::default() };
    if let Some(file) = &diff.file {
        let text = files::text(file)?;
        if is_declaration(file, &text) {
            asked.config = Some(Box::new(declared(file, &text)?));
        } else {
            asked.set = policies_of(file, &text)?;
        }
    }
    let answer: PolicyDiffAnswer = client.call(&Request::PolicyDiff(Box::new(asked)))?;
    output.answer(&answer, told);
    Ok(())
}

/// One sentence about what a file for `apply` would do to traffic; none if nothing.
pub fn counts(client: &mut Client, config: &Config) -> Result<Option<String>, ApiError> {
    let asked = PolicyDiff { config: Some(Box::new(config.clone())), ..PolicyDiff::default() };
    let answer: PolicyDiffAnswer = client.call(&Request::PolicyDiff(Box::new(asked)))?;
    let changes = answer.pairs.len() + answer.pairs_left_out + answer.pairs_unjudged;
    let nothing = changes == 0 && answer.flows_cut + answer.flows_opened == 0;
    Ok((!nothing).then(|| format!("{}; see `switch-ctl policy diff`", summary(&answer))))
}

/// Whether a text is a file for `apply`: no policy has a line that begins like a list of tables.
fn is_declaration(file: &Path, text: &str) -> bool {
    file.extension().is_some_and(|is| is == "toml")
        || text.lines().any(|line| line.trim_start().starts_with("[["))
}

fn declared(file: &Path, text: &str) -> Result<Config, ApiError> {
    let read = File::read(text);
    read.map(|file| file.config).map_err(|complaints| {
        let said = switch_api::file::render(&file.display().to_string(), text, &complaints, false);
        ApiError::new(Code::InvalidParams, said).hint("`switch-ctl diff FILE` reads it the same way")
    })
}

fn told(answer: &PolicyDiffAnswer) -> String {
    let mut said = String::new();
    for pair in &answer.pairs {
        said += &format!("{}\n", pair_line(pair));
    }
    for (count, what) in [
        (answer.pairs_left_out, "more changes of pairs than are listed"),
        (answer.pairs_unjudged, "pairs were not judged: the change is about too many"),
        (answer.blocks_unjudged, "blocks of addresses were not judged: there are too many"),
    ] {
        if count > 0 {
            said += &format!("{} {what}\n", thousands(count as u64));
        }
    }
    for change in &answer.flows {
        let rule = match &change.goes {
            Some(port) => format!(" [port {port} goes]"),
            None => rule(change.rule.as_deref()),
        };
        said += &format!("{} flow {}{rule}\n", sign(change.effect), flow::line(&change.flow));
    }
    let unlisted = answer.flows_cut + answer.flows_opened - answer.flows.len() as u32;
    if unlisted > 0 {
        said += &format!("{} more flows than are listed\n", thousands(u64::from(unlisted)));
    }
    said + &summary(answer) + &untracked(answer) + &unpaired(answer)
}

/// Ports that are there before or after only.
fn unpaired(answer: &PolicyDiffAnswer) -> String {
    let said = |names: &[Name], what: &str| {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        (!names.is_empty())
            .then(|| format!("\n{what}, and no pair with them was judged: {}", names.join(", ")))
    };
    let all = [said(&answer.ports_gone, "ports that go"), said(&answer.ports_new, "ports that come")];
    all.into_iter().flatten().collect()
}

fn summary(answer: &PolicyDiffAnswer) -> String {
    let listed = answer.pairs.len() + answer.pairs_left_out;
    format!(
        "{} of pairs, {} of {} flows would be cut, {} would pass again; nothing was changed",
        if listed == 1 { "1 change".into() } else { format!("{} changes", thousands(listed as u64)) },
        thousands(u64::from(answer.flows_cut)),
        thousands(u64::from(answer.flows_judged)),
        thousands(u64::from(answer.flows_opened)),
    )
}

/// Ports of which no flow is known yet: theirs are not among those that were judged.
fn untracked(answer: &PolicyDiffAnswer) -> String {
    if answer.newly_tracked.is_empty() {
        return String::new();
    }
    let names: Vec<_> = answer.newly_tracked.iter().map(ToString::to_string).collect();
    format!(
        "\nno flows are known yet of {}: TCP connections they have now would end, unless `switchd --flow-pickup`",
        names.join(", ")
    )
}

fn sign(effect: Effect) -> &'static str {
    match effect {
        Effect::Cut => "- cut ",
        Effect::Open => "+ open",
    }
}

fn rule(rule: Option<&str>) -> String {
    rule.map_or_else(|| " [not isolated]".into(), |rule| format!(" [{rule}]"))
}

fn pair_line(pair: &PairChange) -> String {
    let mut ports: Vec<String> = if is_everything(&pair.ports) {
        vec!["everything".into()]
    } else {
        pair.ports.iter().map(ports).collect()
    };
    if pair.ports_left_out > 0 {
        ports.push(format!("and {} more ranges", pair.ports_left_out));
    }
    let (from, to) = (end(&pair.from), end(&pair.to));
    format!("{} {from} to {to}: {}{}", sign(pair.effect), ports.join(", "), rule(pair.rule.as_deref()))
}

fn end(end: &DiffEnd) -> String {
    match &end.port {
        Some(port) => format!("{port} ({})", end.addresses.address()),
        None => end.addresses.to_string(),
    }
}

/// The protocols that have no ports, and all ports of each of the others.
fn is_everything(ports: &[PortsChange]) -> bool {
    ports.len() == 4 && ports.iter().all(|ports| (ports.first, ports.last) == (0, u16::MAX))
}

fn ports(ports: &PortsChange) -> String {
    match (ports.protocol, ports.first, ports.last) {
        (None, ..) => "ICMP and the like".into(),
        (Some(protocol), 0, u16::MAX) => protocol.to_string(),
        (Some(protocol), first, last) if first == last => format!("{protocol} {first}"),
        (Some(protocol), first, last) => format!("{protocol} {first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_one_line() {
        let all = |protocol| PortsChange { protocol, first: 0, last: u16::MAX };
        let port = |first, last| PortsChange { protocol: Some(switch_api::Protocol::Tcp), first, last };
        let everything: Vec<_> =
            [None].into_iter().chain(switch_api::Protocol::ALL.map(Some)).map(all).collect();
        let end = |port: Option<&str>, addresses: &str| DiffEnd {
            port: port.map(|port| port.parse().unwrap()),
            addresses: addresses.parse().unwrap(),
        };
        let pair = |ports, effect, rule: Option<&str>, ports_left_out| PairChange {
            from: end(Some("web"), "10.1.0.2/32"),
            to: end(None, "0.0.0.0/0"),
            effect,
            rule: rule.map(str::to_owned),
            ports,
            ports_left_out,
        };
        assert_eq!(
            pair_line(&pair(everything, Effect::Cut, Some("a/b egress default"), 0)),
            "- cut  web (10.1.0.2) to 0.0.0.0/0: everything [a/b egress default]"
        );
        assert_eq!(
            pair_line(&pair(vec![port(0, 79), port(81, 81), all(None)], Effect::Open, None, 2)),
            "+ open web (10.1.0.2) to 0.0.0.0/0: TCP 0-79, TCP 81, ICMP and the like, and 2 more ranges [not isolated]"
        );
    }

    #[test]
    fn a_file_for_apply_is_known_by_its_tables() {
        assert!(is_declaration(Path::new("-"), "# mine\n\n  [[policy]]\n"));
        assert!(is_declaration(Path::new("a.toml"), ""));
        assert!(!is_declaration(Path::new("-"), "kind: NetworkPolicy\n"));
    }
}
