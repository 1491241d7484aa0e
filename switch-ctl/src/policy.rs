//! `switch-ctl policy`.

mod diff;

use crate::files;
use crate::output::{Output, thousands};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use switch_api::{
    ApiError, ByPolicy, Client, Code, Done, EndpointRef, IcmpKind, IpProtocol, Judgement, NetworkPolicy,
    PolicyAnswer, PolicyExplain, PolicyFilter, PolicyStatus, PolicyType, Request, RuleCount,
};

/// A policy by which nobody reaches the pods of the namespace `default`, declared as one would paste it, and what is done then.
macro_rules! with_a_policy {
    ($verb:literal, $then:literal) => {
        concat!(
            "\
Examples:
  echo '{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,
    metadata: {name: quiet}, spec: {podSelector: {}}}' |
    switch-ctl policy ",
            $verb,
            " -",
            $then
        )
    };
}

/// What to do about a file that is none.
const EXAMPLE: &str =
    "`switch-ctl policy add --help` shows one; `kubectl get networkpolicy -o yaml` prints them as well";

/// What can be done with network policies.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Declares the NetworkPolicies of a YAML or JSON file, as Kubernetes has them; `-` reads them from standard
    /// input. One that is there already is refused.
    #[command(after_help = "\
Examples:
  echo '
  apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: db-from-web, namespace: shop}
  spec:
    podSelector: {matchLabels: {app: db}}
    ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 5432}]
  ' | switch-ctl policy add -")]
    Add {
        /// The file.
        file: PathBuf,
    },
    /// The same, in place of those of the same name.
    #[command(after_help = with_a_policy!("set", ""))]
    Set {
        /// The file.
        file: PathBuf,
    },
    /// Lists policies.
    #[command(after_help = "\
Examples:
  switch-ctl policy list
  switch-ctl policy list --namespace shop")]
    List {
        /// Only of this namespace.
        #[arg(long, short)]
        namespace: Option<String>,
    },
    /// Shows one policy: what it says, which ports it selects, what its rules decided.
    #[command(after_help = with_a_policy!("set", "\n  switch-ctl policy show quiet"))]
    Show {
        /// Its name.
        name: String,
        /// Its namespace.
        #[arg(long, short, default_value = "default")]
        namespace: String,
    },
    /// Lists every rule with what it decided: packets passed and, by defaults, dropped. Of a flow that is those that were judged.
    #[command(after_help = "Example:\n  switch-ctl policy stats --namespace shop")]
    Stats {
        /// Only of this namespace.
        #[arg(long, short)]
        namespace: Option<String>,
    },
    /// Removes a policy.
    #[command(alias = "delete", after_help = with_a_policy!("set", "\n  switch-ctl policy remove quiet"))]
    Remove {
        /// Its name.
        name: String,
        /// Its namespace.
        #[arg(long, short, default_value = "default")]
        namespace: String,
    },
    /// Says whether a first packet would pass, and which rule decides, of a policy or of an access control list. Ends with 0 also if
    /// it would not pass.
    #[command(after_help = "\
Examples:
  switch-ctl policy explain web db tcp 5432
  switch-ctl policy explain 10.66.0.2 10.66.0.3 --icmp 8/0
  switch-ctl policy explain web db 47              # GRE")]
    Explain {
        /// From: an address, or a port of the switch.
        from: EndpointRef,
        /// To: an address, or a port of the switch.
        to: EndpointRef,
        /// The protocol: tcp, udp, sctp, icmp, icmpv6 or a number up to 255. Without it: ICMP, or ICMPv6, as the ends are.
        protocol: Option<IpProtocol>,
        /// The destination port of tcp, udp and sctp, by its number.
        port: Option<u16>,
        /// The source port, which access control lists may ask for; 49152 if it is not said.
        #[arg(long, requires = "protocol")]
        source_port: Option<u16>,
        /// The ICMP message, as TYPE or TYPE/CODE; a ping if it is not said.
        #[arg(long)]
        icmp: Option<IcmpKind>,
    },
    /// Says which pairs of ends and which current flows a change would cut or open, and changes nothing.
    Diff(diff::Diff),
}

pub use diff::counts;

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::Add { file } => declare(file, client, output, Request::PolicyAdd),
        Verb::Set { file } => declare(file, client, output, Request::PolicySet),
        Verb::List { namespace } => {
            let filter = PolicyFilter { namespace: namespace.clone() };
            let policies: Vec<PolicyStatus> = client.call(&Request::PolicyList(filter))?;
            output.answer(&policies, |policies| list(policies, output));
            Ok(())
        }
        Verb::Stats { namespace } => {
            let filter = PolicyFilter { namespace: namespace.clone() };
            let policies: Vec<PolicyStatus> = client.call(&Request::PolicyList(filter))?;
            let rules: Vec<RuleCount> = policies.into_iter().flat_map(|status| status.rules).collect();
            output.answer(&rules, |rules| stats(rules, output));
            Ok(())
        }
        Verb::Show { name, namespace } => {
            let filter = PolicyFilter { namespace: Some(namespace.clone()) };
            let policies: Vec<PolicyStatus> = client.call(&Request::PolicyList(filter))?;
            let found = policies.into_iter().find(|status| status.policy.metadata.name == *name);
            let found = found.ok_or_else(|| {
                ApiError::new(
                    Code::NotFound,
                    format!("there is no policy named {name} in namespace {namespace}"),
                )
                .hint("`switch-ctl policy list` shows those there are, of every namespace")
            })?;
            output.answer(&found, |status| show(status, output));
            Ok(())
        }
        Verb::Remove { name, namespace } => {
            let by = ByPolicy { name: name.clone(), namespace: namespace.clone() };
            let done: Done = client.call(&Request::PolicyDelete(by))?;
            output.done(&done, &format!("policy {namespace}/{name} is gone"));
            Ok(())
        }
        Verb::Explain { from, to, protocol, port, source_port, icmp } => {
            let asked = PolicyExplain {
                from: from.clone(),
                to: to.clone(),
                protocol: *protocol,
                port: *port,
                source_port: *source_port,
                icmp: *icmp,
            };
            let answer: PolicyAnswer = client.call(&Request::PolicyExplain(asked))?;
            output.answer(&answer, explained);
            Ok(())
        }
        Verb::Diff(asked) => diff::run(asked, client, output),
    }
}

/// Declares every policy of a file. All of them are read before the first is declared.
fn declare(
    file: &Path,
    client: &mut Client,
    output: &Output,
    request: fn(Box<NetworkPolicy>) -> Request,
) -> Result<(), ApiError> {
    for policy in policies_of(file, &files::text(file)?)? {
        let name = format!("{}/{}", policy.metadata.namespace, policy.metadata.name);
        let done: Done = client.call(&request(Box::new(policy)))?;
        output.done(&done, &format!("policy {name} is in force"));
    }
    Ok(())
}

/// The policies of a file's text.
fn policies_of(file: &Path, text: &str) -> Result<Vec<NetworkPolicy>, ApiError> {
    read(text)
        .map_err(|error| ApiError { message: format!("{}: {}", file.display(), error.message), ..error })
}

/// The policies of a text: YAML documents, of which JSON is one, each a policy or a list of them.
fn read(text: &str) -> Result<Vec<NetworkPolicy>, ApiError> {
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        ApiError::new(Code::InvalidParams, format!("it is no YAML: {error}")).hint(EXAMPLE)
    })?;
    let mut policies = Vec::new();
    for document in documents {
        let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        let objects = match document {
            serde_json::Value::Null => continue,
            mut list if is_list => match list["items"].take() {
                serde_json::Value::Array(items) => items,
                _ => return Err(ApiError::new(Code::InvalidParams, "a list without items")
                    .field("items")
                    .hint("write the policies below `items:`, or each as a document of its own, with --- between")),
            },
            object => vec![object],
        };
        for object in objects {
            policies.push(policy(object)?);
        }
    }
    match policies.is_empty() {
        true => Err(ApiError::new(Code::InvalidParams, "there is no NetworkPolicy in it").hint(EXAMPLE)),
        false => Ok(policies),
    }
}

fn policy(object: serde_json::Value) -> Result<NetworkPolicy, ApiError> {
    for field in ["apiVersion", "kind"] {
        if object.get(field).is_none() {
            let text = format!(
                "{field} is missing: say `apiVersion: networking.k8s.io/v1` and `kind: NetworkPolicy`"
            );
            return Err(ApiError::new(Code::InvalidParams, text).field(field).hint(EXAMPLE));
        }
    }
    let name = object["metadata"]["name"].as_str().unwrap_or("?").to_owned();
    serde_path_to_error::deserialize(object).map_err(|error| {
        let path = error.path().to_string();
        ApiError::new(Code::InvalidParams, format!("policy {name}: {}", error.into_inner()))
            .field(path)
            .hint(EXAMPLE)
    })
}

fn list(policies: &[PolicyStatus], output: &Output) -> String {
    if policies.is_empty() {
        return "no policies: every port may speak with every port".into();
    }
    let mut table = output.table(&["NAMESPACE", "POLICY", "OWNER", "ISOLATES", "PORTS", "PASSED", "DROPPED"]);
    for status in policies {
        let (meta, spec) = (&status.policy.metadata, &status.policy.spec);
        let isolates = [(PolicyType::Ingress, "ingress"), (PolicyType::Egress, "egress")];
        let isolates = isolates.into_iter().filter(|(it, _)| spec.isolates(*it)).map(|(_, name)| name);
        let count = |wanted: bool| -> u64 {
            let rules = status.rules.iter().enumerate().filter(|(n, _)| (*n < 2) == wanted);
            rules.map(|(_, rule)| rule.packets).sum()
        };
        table.add_row(vec![
            meta.namespace.clone(),
            meta.name.clone(),
            status.policy.owner.to_string(),
            isolates.collect::<Vec<_>>().join(","),
            status.ports.len().to_string(),
            thousands(count(false)),
            thousands(count(true)),
        ]);
    }
    table.to_string()
}

/// Every rule; what defaults decide is that nothing passes.
fn stats(rules: &[RuleCount], output: &Output) -> String {
    if rules.is_empty() {
        return "no rules: there is no policy".into();
    }
    let mut table = output.table(&["RULE", "PASSED", "DROPPED"]);
    for rule in rules {
        let (count, drops) = (thousands(rule.packets), rule.rule.ends_with(" default"));
        let (passed, dropped) = if drops { ("-".into(), count) } else { (count, "-".into()) };
        table.add_row(vec![rule.rule.clone(), passed, dropped]);
    }
    table.to_string()
}

fn show(status: &PolicyStatus, output: &Output) -> String {
    let meta = &status.policy.metadata;
    let ports: Vec<_> = status.ports.iter().map(ToString::to_string).collect();
    let mut table = output.table(&["RULE", "PACKETS"]);
    for rule in &status.rules {
        table.add_row(vec![rule.rule.clone(), thousands(rule.packets)]);
    }
    let spec = serde_json::to_string_pretty(&status.policy.spec).unwrap_or_default();
    format!(
        "policy {}/{}\nselects {}\n{spec}\n{table}",
        meta.namespace,
        meta.name,
        if ports.is_empty() { "no port".into() } else { ports.join(", ") }
    )
}

fn explained(answer: &PolicyAnswer) -> String {
    let line = |what: &str, judgement: &Judgement| {
        let verdict = if judgement.passes { "passes" } else { "stops" };
        let rule = judgement.rule.as_ref().map(|rule| format!(" [{rule}]")).unwrap_or_default();
        format!("{what:<8} {verdict}{rule}: {}", judgement.why)
    };
    let verdict = if answer.passes { "would pass" } else { "would be dropped" };
    format!(
        "{} to {} {verdict}\n{}\n{}",
        answer.from,
        answer.to,
        line("egress", &answer.egress),
        line("ingress", &answer.ingress)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n";

    #[test]
    fn yaml_and_json_and_lists_are_read() {
        let two = format!(
            "{HEAD}spec:\n  podSelector: {{}}\n---\n{HEAD}spec:\n  ingress:\n  - ports:\n    - port: http\n"
        );
        assert_eq!(read(&two).unwrap().len(), 2);
        let list = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"a"},"spec":{"podSelector":{}}}]}"#;
        assert_eq!(read(list).unwrap()[0].metadata.namespace, "default");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (bad, place) in [
            (format!("{HEAD}spec:\n  ingress:\n  - form: []\n"), "spec.ingress[0].form"),
            (
                format!("{HEAD}spec:\n  ingress:\n  - ports:\n    - port: 70000\n"),
                "spec.ingress[0].ports[0].port",
            ),
            ("kind: NetworkPolicy".into(), "apiVersion"),
            (HEAD.replace("NetworkPolicy", "Pod"), "kind"),
        ] {
            let error = read(&bad).unwrap_err();
            assert_eq!(error.data.field.as_deref(), Some(place), "{error:?}");
        }
        assert!(read("a: [").unwrap_err().message.contains("no YAML"));
        assert!(read("").unwrap_err().message.contains("no NetworkPolicy"));
    }
}
