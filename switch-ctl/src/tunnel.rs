//! `switch-ctl tunnel`: ports that are tunnels, and the ends that stations are behind.

use crate::output::Output;
use crate::port::Common;
use clap::{Args, Subcommand};
use std::net::IpAddr;
use switch_api::{
    ApiError, ByName, Client, Code, Done, FdbEntry, FdbFilter, Name, Nothing, PortKind, PortState,
    PortStatus, Request,
};

/// What can be done with tunnels.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Adds a tunnel. It is a port, with a bridge to itself: routes lead there.
    Add(Box<Add>),
    /// Lists tunnels, and the ends there are.
    #[command(after_help = "Example:\n  switch-ctl tunnel list")]
    List,
    /// Deletes a tunnel, and the stations behind it.
    #[command(after_help = "\
Examples:
  switch-ctl bridge add over
  switch-ctl tunnel add vx0 --bridge over --vni 4096 --local 192.0.2.1
  switch-ctl tunnel delete vx0")]
    Delete {
        /// Its name.
        name: Name,
    },
}

const EXAMPLES: &str = "\
Examples:
  switch-ctl bridge add over
  switch-ctl bridge address add over 10.255.0.1/24
  switch-ctl tunnel add vx0 --bridge over --vni 4096 --local 192.0.2.1
  # another node: its end, its station, its pods
  switch-ctl fdb add 02:00:00:00:00:02 --bridge over --port vx0 --dst 192.0.2.2
  switch-ctl neigh add 10.255.0.2 02:00:00:00:00:02 --bridge over
  switch-ctl route add 10.2.0.0/24 via 10.255.0.2";

/// A tunnel.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Add {
    #[command(flatten)]
    common: Common,
    /// The network's identifier, 1 to 16777215; the same at both ends.
    #[arg(long)]
    vni: u32,
    /// Its own address outside: of a bridge, or of the NIC of an uplink.
    #[arg(long, value_name = "ADDRESS")]
    local: IpAddr,
    /// The UDP port at both ends.
    #[arg(long, default_value_t = switch_api::VXLAN_PORT)]
    udp_port: u16,
    /// The routing table outside.
    #[arg(long, value_name = "VRF", default_value = "main")]
    underlay: Name,
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::Add(add) => {
            let Add { common, vni, local, udp_port, underlay } = &**add;
            let (vni, local, udp_port, underlay) = (*vni, *local, *udp_port, underlay.clone());
            let port = common.port(PortKind::Vxlan { vni, local, udp_port, underlay });
            let done: Done = client.call(&Request::PortAdd(Box::new(port.clone())))?;
            output.done(&done, &format!("tunnel {} is there", port.name));
        }
        Verb::List => {
            let tunnels = tunnels(client)?;
            let stations: Vec<FdbEntry> = client.call(&Request::FdbList(FdbFilter::default()))?;
            output.answer(&tunnels, |tunnels| list(tunnels, &stations, output));
        }
        Verb::Delete { name } => {
            // Another port is not deleted by the name of a tunnel.
            if !tunnels(client)?.iter().any(|status| status.port.name == *name) {
                return Err(ApiError::new(Code::NotFound, format!("there is no tunnel named {name}"))
                    .hint("`switch-ctl tunnel list` shows those there are"));
            }
            let done: Done = client.call(&Request::PortDelete(ByName { name: name.clone() }))?;
            output.done(&done, &format!("tunnel {name} is gone"));
        }
    }
    Ok(())
}

fn tunnels(client: &mut Client) -> Result<Vec<PortStatus>, ApiError> {
    let ports: Vec<PortStatus> = client.call(&Request::PortList(Nothing {}))?;
    Ok(ports.into_iter().filter(|status| status.port.kind.is_tunnel()).collect())
}

fn list(tunnels: &[PortStatus], stations: &[FdbEntry], output: &Output) -> String {
    if tunnels.is_empty() {
        return "no tunnels; `switch-ctl tunnel add --help` has an example".into();
    }
    let mut table =
        output.table(&["TUNNEL", "BRIDGE", "VNI", "LOCAL", "UDP PORT", "UNDERLAY", "MTU", "STATE", "ENDS"]);
    for status in tunnels {
        let PortKind::Vxlan { vni, local, udp_port, underlay } = &status.port.kind else { continue };
        let name = &status.port.name;
        let behind = stations.iter().filter(|entry| entry.port == *name);
        let ends = behind.filter_map(|entry| Some(format!("{} ({})", entry.dst?, entry.mac)));
        let state = output.verdict(&state(status), status.state == PortState::Up);
        table.add_row(vec![
            name.to_string().into(),
            status.port.bridge.to_string().into(),
            vni.to_string().into(),
            local.to_string().into(),
            udp_port.to_string().into(),
            underlay.to_string().into(),
            status.mtu.to_string().into(),
            state,
            ends.collect::<Vec<_>>().join(" ").into(),
        ]);
    }
    let why = tunnels
        .iter()
        .filter_map(|status| Some(format!("\n{}: {}", status.port.name, status.reason.as_ref()?)));
    format!("{table}{}", why.collect::<String>())
}

fn state(status: &PortStatus) -> String {
    match status.state {
        PortState::Up => "up".into(),
        _ => "down".into(),
    }
}

/// What is shown of such a port.
pub fn made_of(vni: u32, local: IpAddr) -> String {
    format!("vxlan {vni} at {local}")
}
