//! `switch-ctl fdb`.

use crate::output::Output;
use clap::{Args, Subcommand};
use switch_api::{
    ApiError, Client, Done, FdbDelete, FdbEntry, FdbFilter, Mac, Name, Owner, Request, StaticMac, Vid,
};

/// What can be done with stations.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists stations.
    #[command(after_help = "\
Examples:
  switch-ctl fdb list
  switch-ctl fdb list --port web
  switch-ctl fdb list --bridge br0 --vid 20")]
    List(Filter),
    /// Declares a station: never aged, never moved.
    #[command(after_help = "Example:\n  switch-ctl fdb add 02:00:00:00:00:09 --bridge br0 --port db")]
    Add {
        /// Its MAC address.
        mac: Mac,
        /// Its bridge.
        #[arg(long)]
        bridge: Name,
        /// The port it is behind.
        #[arg(long)]
        port: Name,
        /// Behind a tunnel: the address outside of the end that it is behind.
        #[arg(long, value_name = "ADDRESS")]
        dst: Option<std::net::IpAddr>,
        /// Its VLAN.
        #[arg(long, default_value = "1", value_parser = parse_vid)]
        vid: Vid,
    },
    /// Removes a station, declared or learned.
    #[command(after_help = "\
Examples:
  switch-ctl fdb add 02:00:00:00:00:09 --bridge br0 --port db
  switch-ctl fdb delete 02:00:00:00:00:09 --bridge br0")]
    Delete {
        /// Its MAC address.
        mac: Mac,
        /// Its bridge.
        #[arg(long)]
        bridge: Name,
        /// Its VLAN.
        #[arg(long, default_value = "1", value_parser = parse_vid)]
        vid: Vid,
    },
    /// Forgets learned stations.
    #[command(after_help = "\
Examples:
  switch-ctl fdb flush
  switch-ctl fdb flush --port db")]
    Flush(Filter),
}

/// Which stations; without any, all.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only of this bridge.
    #[arg(long)]
    bridge: Option<Name>,
    /// Only behind this port.
    #[arg(long)]
    port: Option<Name>,
    /// Only in this VLAN.
    #[arg(long, value_parser = parse_vid)]
    vid: Option<Vid>,
    /// Only this one.
    #[arg(long)]
    mac: Option<Mac>,
}

pub fn parse_vid(text: &str) -> Result<Vid, String> {
    let number: u32 = text.parse().map_err(|_| format!("{text:?} is no VLAN identifier: use 1 to 4094"))?;
    Vid::try_from(number).map_err(|error| error.to_string())
}

impl Filter {
    fn to_api(&self) -> FdbFilter {
        FdbFilter { bridge: self.bridge.clone(), port: self.port.clone(), vid: self.vid, mac: self.mac }
    }
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let (request, what) = match verb {
        Verb::List(filter) => {
            let entries: Vec<FdbEntry> = client.call(&Request::FdbList(filter.to_api()))?;
            output.answer(&entries, |entries| list(entries, output));
            return Ok(());
        }
        Verb::Add { mac, bridge, port, dst, vid } => {
            let entry = StaticMac {
                mac: *mac,
                bridge: bridge.clone(),
                vid: *vid,
                port: port.clone(),
                dst: *dst,
                owner: Owner::Operator,
            };
            (Request::FdbAdd(entry), format!("{mac} is behind {port}"))
        }
        Verb::Delete { mac, bridge, vid } => {
            let entry = FdbDelete { mac: *mac, bridge: bridge.clone(), vid: *vid };
            (Request::FdbDelete(entry), format!("{mac} is forgotten"))
        }
        Verb::Flush(filter) => (Request::FdbFlush(filter.to_api()), "learned stations are forgotten".into()),
    };
    let done: Done = client.call(&request)?;
    output.done(&done, &what);
    Ok(())
}

fn list(entries: &[FdbEntry], output: &Output) -> String {
    if entries.is_empty() {
        return "no stations: whoever sends is learned".into();
    }
    let mut table = output.table(&["MAC", "VLAN", "BRIDGE", "PORT", "AGE", "OWNER"]);
    for entry in entries {
        let age = if entry.is_static { "static".into() } else { format!("{} s", entry.age_s) };
        let end = entry.dst.map_or_else(String::new, |end| format!(" to {end}"));
        let (bridge, port) = (entry.bridge.to_string(), format!("{}{end}", entry.port));
        let owner = entry.owner.map_or_else(|| "-".to_owned(), |owner| owner.to_string());
        table.add_row(vec![entry.mac.to_string(), entry.vid.to_string(), bridge, port, age, owner]);
    }
    table.to_string()
}
