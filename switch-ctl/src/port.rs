//! `switch-ctl port`.

mod kind;
mod settings;
mod show;
mod xdp;

use crate::one_kind::named;
use crate::output::Output;
use crate::{label, readdress};
use clap::Subcommand;
use switch_api::{ApiError, ByDevice, ByName, Client, Done, Name, Nothing, PortSet, PortStatus, Request};

pub use kind::{Common, Kind};
pub use settings::{Settings, Switch};
pub use show::made_of;
pub use xdp::Mode;

/// What can be done with ports.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists ports.
    #[command(after_help = "Example:\n  switch-ctl port list")]
    List,
    /// Shows one port with everything known of it.
    #[command(after_help = "Example:\n  switch-ctl port show web")]
    Show {
        /// The port.
        name: Name,
    },
    /// Tries what a device can do, and says what a port on it would get and why. Takes no frame; the device
    /// must not be a port.
    #[command(after_help = "Example:\n  switch-ctl port probe eth0")]
    Probe {
        /// The device.
        device: String,
    },
    /// Adds a port.
    #[command(subcommand)]
    Add(Box<Kind>),
    /// Changes a port's settings; what is not named stays.
    #[command(after_help = "\
Examples:
  switch-ctl port set web --isolated on
  switch-ctl port set web --limit-rx-bytes 12.5M --limit-tx-packets 10k
  switch-ctl port set db --storm-pps 1000 --learn-limit 4
  switch-ctl port set lab --source-addresses 10.67.0.2")]
    Set {
        /// The port.
        name: Name,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Gives the device that the switch made for a port other addresses and routes; its connections over those that stay go on.
    Address(readdress::Addresses),
    /// Says what a port is to network policies: namespace, labels, named ports. What is not named stays.
    Label(label::Label),
    /// Closes and removes a port.
    #[command(after_help = "Example:\n  switch-ctl port delete lab")]
    Delete {
        /// The port.
        name: Name,
    },
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::List => {
            let ports: Vec<PortStatus> = client.call(&Request::PortList(Nothing {}))?;
            output.answer(&ports, |ports| show::list(ports, output));
        }
        Verb::Show { name } => {
            let port = find(client, name)?;
            output.answer(&port, show::show);
        }
        Verb::Probe { device } => {
            let probe = client.call(&Request::PortProbe(ByDevice { device: device.clone() }))?;
            output.answer(&probe, |probe| show::probed(probe, output));
        }
        Verb::Add(kind) => {
            let port = kind.to_port();
            let done: Done = client.call(&Request::PortAdd(Box::new(port.clone())))?;
            output.done(&done, &format!("port {} is open", port.name));
        }
        Verb::Set { name, settings } => {
            let before = find(client, name)?.port.settings;
            let set = PortSet { name: name.clone(), settings: settings.over(before) };
            let done: Done = client.call(&Request::PortSet(set))?;
            output.done(&done, &format!("port {name} is changed"));
        }
        Verb::Address(wanted) => readdress::run(wanted, client, output)?,
        Verb::Label(label) => label::run(label, client, output)?,
        Verb::Delete { name } => {
            let done: Done = client.call(&Request::PortDelete(ByName { name: name.clone() }))?;
            output.done(&done, &format!("port {name} is gone"));
        }
    }
    Ok(())
}

fn find(client: &mut Client, name: &Name) -> Result<PortStatus, ApiError> {
    let ports: Vec<PortStatus> = client.call(&Request::PortList(Nothing {}))?;
    named(ports, name, |port| &port.port.name, ("port", "port list"))
}
