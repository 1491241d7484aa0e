//! `switch-ctl neigh`.

use crate::fdb::parse_vid;
use crate::output::Output;
use clap::Subcommand;
use std::net::IpAddr;
use switch_api::{
    ApiError, Client, Done, Mac, Name, NeighDelete, NeighEntry, NeighFilter, NeighState, Owner, Request,
    StaticNeighbour, Vid,
};

/// What can be done with neighbours.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists neighbours.
    #[command(after_help = "Example:\n  switch-ctl neigh list --bridge br0")]
    List {
        /// Only of this bridge.
        #[arg(long)]
        bridge: Option<Name>,
    },
    /// Declares a neighbour: never asked for, never forgotten.
    #[command(after_help = "Example:\n  switch-ctl neigh add 10.66.0.9 02:00:00:00:00:09 --bridge br0")]
    Add {
        /// Its address.
        address: IpAddr,
        /// Its station.
        mac: Mac,
        /// Its bridge.
        #[arg(long)]
        bridge: Name,
        /// Its VLAN.
        #[arg(long, default_value = "1", value_parser = parse_vid)]
        vid: Vid,
    },
    /// Forgets a neighbour, declared or learned.
    #[command(after_help = "\
Examples:
  switch-ctl neigh add 10.66.0.9 02:00:00:00:00:09 --bridge br0
  switch-ctl neigh delete 10.66.0.9 --bridge br0")]
    Delete {
        /// Its address.
        address: IpAddr,
        /// Its bridge.
        #[arg(long)]
        bridge: Name,
        /// Its VLAN.
        #[arg(long, default_value = "1", value_parser = parse_vid)]
        vid: Vid,
    },
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let (request, what) = match verb {
        Verb::List { bridge } => {
            let filter = NeighFilter { bridge: bridge.clone() };
            let entries: Vec<NeighEntry> = client.call(&Request::NeighList(filter))?;
            output.answer(&entries, |entries| list(entries, output));
            return Ok(());
        }
        Verb::Add { address, mac, bridge, vid } => {
            let entry = StaticNeighbour {
                address: *address,
                mac: *mac,
                bridge: bridge.clone(),
                vid: *vid,
                owner: Owner::Operator,
            };
            (Request::NeighAdd(entry), format!("{address} is {mac}"))
        }
        Verb::Delete { address, bridge, vid } => {
            let entry = NeighDelete { address: *address, bridge: bridge.clone(), vid: *vid };
            (Request::NeighDelete(entry), format!("{address} is forgotten"))
        }
    };
    let done: Done = client.call(&request)?;
    output.done(&done, &what);
    Ok(())
}

fn list(entries: &[NeighEntry], output: &Output) -> String {
    if entries.is_empty() {
        return "no neighbours: they are asked for and heard where a bridge has a gateway address".into();
    }
    let mut table = output.table(&["ADDRESS", "MAC", "BRIDGE", "VLAN", "STATE", "AGE", "OWNER"]);
    for entry in entries {
        let state = match entry.state {
            NeighState::Incomplete => "incomplete",
            NeighState::Reachable => "reachable",
            NeighState::Stale => "stale",
            NeighState::Failed => "failed",
            NeighState::Static => "static",
        };
        let mac = entry.mac.map_or_else(|| "-".to_owned(), |mac| mac.to_string());
        let (bridge, vid) = (entry.bridge.to_string(), entry.vid.to_string());
        table.add_row(vec![
            entry.address.to_string(),
            mac,
            bridge,
            vid,
            state.to_owned(),
            format!("{} s", entry.age_s),
            entry.owner.map_or_else(|| "-".to_owned(), |owner| owner.to_string()),
        ]);
    }
    table.to_string()
}
