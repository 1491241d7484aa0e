//! `switch-ctl port address`: other addresses for a device that the switch made.

use crate::output::Output;
use crate::tap::parse_route;
use clap::Args;
use switch_api::{ApiError, Cidr, Client, DeviceRoute, Done, Name, PortAddress, Request};

/// What it is to have, all of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl port address web 10.66.0.7/24 --route 0.0.0.0/0,10.66.0.1
  switch-ctl port address db 10.66.0.3/24 fd66::3/64
  switch-ctl port address web                          # none")]
pub struct Addresses {
    /// The port.
    name: Name,
    /// Its addresses, all of them, like 10.66.0.7/24. A source guard stays as it is: `port set` changes it.
    addresses: Vec<Cidr>,
    /// A route, all of them: a network, and the gateway unless it is on the link.
    #[arg(long = "route", value_name = "CIDR[,VIA][,metric=N]...", value_parser = parse_route)]
    routes: Vec<DeviceRoute>,
}

pub fn run(wanted: &Addresses, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let Addresses { name, addresses, routes } = wanted;
    let set = PortAddress {
        name: name.clone(),
        addresses: addresses.clone(),
        routes: routes.clone(),
        source_guard: None,
    };
    let done: Done = client.call(&Request::PortAddress(set))?;
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let has = if shown.is_empty() { "no addresses".to_owned() } else { shown.join(", ") };
    output.done(&done, &format!("port {name} has {has}"));
    Ok(())
}
