//! `switch-ctl namespace`.

use crate::label::{parse_label, shown};
use crate::output::Output;
use clap::Subcommand;
use switch_api::{ApiError, ByNamespace, Client, Done, Namespace, Nothing, Owner, Request};

/// What can be done with namespaces. They need not be declared: without labels of its own, a namespace has
/// `kubernetes.io/metadata.name` alone.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Gives a namespace its labels, all of them.
    #[command(after_help = "Example:\n  switch-ctl namespace set shop team=a env=prod")]
    Set {
        /// Its name.
        name: String,
        /// Its labels, each KEY=VALUE.
        #[arg(value_parser = parse_label)]
        labels: Vec<(String, String)>,
    },
    /// Takes its labels away.
    #[command(after_help = "\
Examples:
  switch-ctl namespace set shop team=a
  switch-ctl namespace delete shop")]
    Delete {
        /// Its name.
        name: String,
    },
    /// Lists namespaces that have labels.
    #[command(after_help = "Example:\n  switch-ctl namespace list")]
    List,
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::Set { name, labels } => {
            let namespace = Namespace {
                name: name.clone(),
                labels: labels.iter().cloned().collect(),
                owner: Owner::Operator,
            };
            let done: Done = client.call(&Request::NamespaceSet(namespace))?;
            output.done(&done, &format!("namespace {name} has {} labels", labels.len()));
        }
        Verb::Delete { name } => {
            let done: Done = client.call(&Request::NamespaceDelete(ByNamespace { name: name.clone() }))?;
            output.done(&done, &format!("namespace {name} has no labels"));
        }
        Verb::List => {
            let all: Vec<Namespace> = client.call(&Request::NamespaceList(Nothing {}))?;
            output.answer(&all, |all| {
                if all.is_empty() {
                    return "no namespaces with labels".into();
                }
                let mut table = output.table(&["NAMESPACE", "OWNER", "LABELS"]);
                for namespace in all {
                    table.add_row(vec![
                        namespace.name.clone(),
                        namespace.owner.to_string(),
                        shown(&namespace.labels),
                    ]);
                }
                table.to_string()
            });
        }
    }
    Ok(())
}
