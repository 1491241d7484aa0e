//! `switch-ctl port-group`.

use crate::one_kind::{OneKind, named};
use crate::output::Output;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use switch_api::{
    ApiError, ByName, Client, Config, Done, Name, Nothing, PortRangeSet, PortSetStatus, Request,
};

/// A set, declared as one would paste it, and what is done with it then.
macro_rules! with_a_set {
    ($then:literal) => {
        concat!(
            "\
Example:
  echo '
  [[port_set]]
  name = \"web\"
  ports = [80, 443, \"8000-8080\"]
  ' | switch-ctl port-group set -",
            $then
        )
    };
}

/// What can be done with port sets.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Declares the sets of a file, each in place of the one of its name if there is one; `-` reads them from standard input.
    ///
    /// The file is one as `apply` reads it, with nothing but `[[port_set]]` tables; other sets stay as they are. Lists whose rules name
    /// them change with them.
    #[command(after_help = with_a_set!(""))]
    Set {
        /// The file.
        file: PathBuf,
    },
    /// Lists sets, their ports, and which lists name them.
    #[command(after_help = "Example:\n  switch-ctl port-group list")]
    List,
    /// Shows one set.
    #[command(after_help = with_a_set!("\n  switch-ctl port-group show web"))]
    Show {
        /// Its name.
        name: Name,
    },
    /// Removes a set that no rule names.
    #[command(after_help = with_a_set!("\n  switch-ctl port-group delete web"))]
    Delete {
        /// Its name.
        name: Name,
    },
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::Set { file } => set(file, client, output)?,
        Verb::List => {
            let sets = asked(client)?;
            output.answer(&sets, |sets| table(sets, output));
        }
        Verb::Show { name } => {
            let found =
                named(asked(client)?, name, |status| &status.set.name, ("port set", "port-group list"))?;
            output.answer(&found, |status| table(std::slice::from_ref(status), output));
        }
        Verb::Delete { name } => {
            let done: Done = client.call(&Request::PortSetDelete(ByName { name: name.clone() }))?;
            output.done(&done, &format!("port set {name} is gone"));
        }
    }
    Ok(())
}

fn asked(client: &mut Client) -> Result<Vec<PortSetStatus>, ApiError> {
    client.call(&Request::PortSetList(Nothing {}))
}

/// Declares every set of a file. All of it is read before the first is declared.
fn set(path: &Path, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let only = |config: &Config| Config { port_set: config.port_set.clone(), ..Config::default() };
    let sets = OneKind::read(path, "port_set", only, output)?;
    let request = |set: &PortRangeSet| Request::PortSetSet(set.clone());
    sets.declare(&sets.only.port_set, client, output, request, |set, done: Done| {
        output.done(&done, &format!("port set {} is in force", set.name));
    })
}

fn table(sets: &[PortSetStatus], output: &Output) -> String {
    if sets.is_empty() {
        return "no port sets".into();
    }
    let mut table = output.table(&["SET", "OWNER", "PORTS", "NAMED BY"]);
    for PortSetStatus { set, used_by } in sets {
        let ports: Vec<String> = set.ports.iter().map(ToString::to_string).collect();
        let users: Vec<&str> = used_by.iter().map(Name::as_str).collect();
        let users = if users.is_empty() { "no list".into() } else { users.join(", ") };
        table.add_row(vec![set.name.to_string(), set.owner.to_string(), ports.join(","), users]);
    }
    table.to_string()
}
