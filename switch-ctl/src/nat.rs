//! `switch-ctl nat`.

use crate::one_kind::{OneKind, named};
use crate::output::{Output, thousands};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use switch_api::{ApiError, ByName, Client, Config, Done, Name, Nat, NatKind, NatStatus, Nothing, Request};

/// A rule, declared as one would paste it, and what is done with it then.
macro_rules! with_a_rule {
    ($then:literal) => {
        concat!(
            "\
Examples:
  echo '
  [[nat]]
  name = \"mail\"
  kind = \"one-to-one\"
  external = \"192.0.2.25\"
  internal = \"10.66.0.3\"
  ' | switch-ctl nat set -",
            $then
        )
    };
}

/// What can be done with network address translation.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Declares the rules of a file, each in place of the one of its name if there is one; `-` reads them from standard input.
    ///
    /// The file is one as `apply` reads it, with nothing but `[[nat]]` tables; other rules stay as they are. Flows that a rule
    /// translates end when it changes.
    #[command(after_help = "\
Examples:
  echo '
  [[nat]]
  name = \"web\"
  kind = \"destination\"
  address = \"192.0.2.10\"
  protocol = \"tcp\"
  port = 80
  to = \"10.66.0.2\"
  to_port = 8080
  [[nat]]
  name = \"out\"
  kind = \"source\"
  from = [\"10.66.0.0/16\"]
  except = [\"10.0.0.0/8\"]
  to = [\"192.0.2.1\", \"192.0.2.2\"]
  ports = \"1024-65535\"
  [[nat]]
  name = \"mail\"
  kind = \"one-to-one\"
  external = \"192.0.2.25\"
  internal = \"10.66.0.3\"
  ' | switch-ctl nat set -")]
    Set {
        /// The file.
        file: PathBuf,
    },
    /// Lists rules, the flows that they translate, and how many of their ports are in use.
    #[command(after_help = "Example:\n  switch-ctl nat list")]
    List,
    /// Shows one rule.
    #[command(after_help = with_a_rule!("\n  switch-ctl nat show mail"))]
    Show {
        /// Its name.
        name: Name,
    },
    /// Removes a rule; flows that it translates end.
    #[command(alias = "remove", after_help = with_a_rule!("\n  switch-ctl nat delete mail"))]
    Delete {
        /// Its name.
        name: Name,
    },
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::Set { file } => set(file, client, output),
        Verb::List => {
            let rules = asked(client)?;
            output.answer(&rules, |rules| list(rules, output));
            Ok(())
        }
        Verb::Show { name } => {
            let kind = ("rule of network address translation", "nat list");
            let found = named(asked(client)?, name, |status| &status.nat.name, kind)?;
            output.answer(&found, show);
            Ok(())
        }
        Verb::Delete { name } => {
            let done: Done = client.call(&Request::NatDelete(ByName { name: name.clone() }))?;
            output.done(&done, &format!("rule {name} is gone"));
            Ok(())
        }
    }
}

fn asked(client: &mut Client) -> Result<Vec<NatStatus>, ApiError> {
    client.call(&Request::NatList(Nothing {}))
}

/// Declares every rule of a file. All of it is read before the first is declared.
fn set(path: &Path, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let rules =
        OneKind::read(path, "nat", |config| Config { nat: config.nat.clone(), ..Config::default() }, output)?;
    let request = |nat: &Nat| Request::NatSet(Box::new(nat.clone()));
    rules.declare(&rules.only.nat, client, output, request, |nat, done: Done| {
        output.done(&done, &format!("rule {} is in force", nat.name));
    })
}

fn list(rules: &[NatStatus], output: &Output) -> String {
    if rules.is_empty() {
        return "no rules of network address translation".into();
    }
    let mut table = output.table(&["RULE", "KIND", "WHAT", "FLOWS", "MADE", "PORTS IN USE", "EXHAUSTED"]);
    for status in rules {
        table.add_row(vec![
            status.nat.name.to_string(),
            status.nat.kind.name().into(),
            what(&status.nat),
            thousands(status.flows),
            thousands(status.flows_made),
            ports(status),
            thousands(status.exhausted),
        ]);
    }
    table.to_string()
}

fn what(nat: &Nat) -> String {
    let vrf = if nat.vrf.is_main() { String::new() } else { format!(" (vrf {})", nat.vrf) };
    format!("{}{vrf}", nat.kind)
}

/// Of its ports, as many as the peer that most are in use for has.
fn ports(status: &NatStatus) -> String {
    match status.nat.kind {
        NatKind::Source { .. } => {
            format!("{} of {}", thousands(status.ports_used.into()), thousands(status.ports.into()))
        }
        _ => "-".into(),
    }
}

fn show(status: &NatStatus) -> String {
    let mut lines = vec![
        format!("{} rule {}: {}", status.nat.kind.name(), status.nat.name, what(&status.nat)),
        format!(
            "translates {} flows, {} since it was declared",
            thousands(status.flows),
            thousands(status.flows_made)
        ),
    ];
    if let NatKind::Source { .. } = status.nat.kind {
        lines.push(format!(
            "ports in use for one peer: {} at most; {} packets found none free",
            ports(status),
            thousands(status.exhausted)
        ));
    }
    lines.join("\n")
}
