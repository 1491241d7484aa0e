//! `switch-ctl bridge`.

use crate::output::Output;
use clap::Subcommand;
use switch_api::{ApiError, Bridge, BridgeStatus, ByName, Client, Done, Name, Nothing, Owner, Request};

/// What can be done with bridges.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists bridges.
    List,
    /// Adds a bridge.
    Add {
        /// Its name.
        name: Name,
        /// Seconds after which a MAC nobody heard from is forgotten.
        #[arg(long, default_value_t = 300)]
        ageing_s: u32,
    },
    /// Changes a bridge.
    Set {
        /// The bridge.
        name: Name,
        /// Seconds after which a MAC nobody heard from is forgotten.
        #[arg(long)]
        ageing_s: u32,
    },
    /// Removes a bridge without ports.
    Delete {
        /// The bridge.
        name: Name,
    },
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let bridge = |name: &Name, ageing_s| Bridge { name: name.clone(), ageing_s, owner: Owner::Operator };
    let (request, what) = match verb {
        Verb::List => {
            let bridges: Vec<BridgeStatus> = client.call(&Request::BridgeList(Nothing {}))?;
            output.answer(&bridges, |bridges| list(bridges, output));
            return Ok(());
        }
        Verb::Add { name, ageing_s } => {
            (Request::BridgeAdd(bridge(name, *ageing_s)), format!("bridge {name} is there"))
        }
        Verb::Set { name, ageing_s } => {
            (Request::BridgeSet(bridge(name, *ageing_s)), format!("bridge {name} is changed"))
        }
        Verb::Delete { name } => {
            (Request::BridgeDelete(ByName { name: name.clone() }), format!("bridge {name} is gone"))
        }
    };
    let done: Done = client.call(&request)?;
    output.done(&done, &what);
    Ok(())
}

fn list(bridges: &[BridgeStatus], output: &Output) -> String {
    let mut table = output.table(&["BRIDGE", "AGEING", "VLANS", "MACS", "PORTS"]);
    for status in bridges {
        let ports: Vec<_> = status.ports.iter().map(Name::as_str).collect();
        table.add_row(vec![
            status.bridge.name.to_string(),
            format!("{} s", status.bridge.ageing_s),
            status.vlans.to_string(),
            status.macs.to_string(),
            ports.join(" "),
        ]);
    }
    table.to_string()
}
