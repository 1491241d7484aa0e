//! `switch-ctl flow`.

use crate::output::{Output, thousands};
use clap::{Args, Subcommand};
use std::net::IpAddr;
use switch_api::{
    ApiError, Client, FLOW_PAGE_MAX, FlowEnd, FlowEntry, FlowFilter, FlowList, FlowPage, FlowsDeleted, Name,
    Request,
};

/// What can be done with flows.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists flows: who began, whom with, how far, and when it is forgotten.
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: u32,
    },
    /// Ends flows. What still comes of them is judged as if it were new.
    Delete {
        #[command(flatten)]
        filter: Filter,
        /// All flows, if no filter is given.
        #[arg(long)]
        all: bool,
    },
}

/// Which flows.
#[derive(Debug, Args)]
pub struct Filter {
    /// Those that a packet of this port began.
    #[arg(long)]
    port: Option<Name>,
    /// Those with this address at either end.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Those of this protocol: tcp, udp, sctp, icmp, icmpv6, or a number.
    #[arg(long, value_parser = parse_protocol)]
    protocol: Option<u8>,
    /// Those with this port number at either end.
    #[arg(long)]
    number: Option<u16>,
    /// Those in this state, like established, syn-sent, time-wait, udp-one-way.
    #[arg(long)]
    state: Option<String>,
}

const PROTOCOLS: &[(&str, u8)] = &[("tcp", 6), ("udp", 17), ("sctp", 132), ("icmp", 1), ("icmpv6", 58)];

fn parse_protocol(text: &str) -> Result<u8, String> {
    let named = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok()).ok_or_else(|| "give tcp, udp, sctp, icmp, icmpv6 or a number".into())
}

impl Filter {
    fn to_api(&self) -> FlowFilter {
        FlowFilter {
            port: self.port.clone(),
            address: self.address,
            protocol: self.protocol,
            number: self.number,
            state: self.state.clone(),
        }
    }
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::List { filter, limit } => {
            let page = collect(client, &filter.to_api(), *limit)?;
            output.answer(&page, |page| list(page, output));
        }
        Verb::Delete { filter, all } => {
            let filter = filter.to_api();
            if filter == FlowFilter::default() && !all {
                let hint = "name some by --port, --address, --protocol, --number or --state, or say --all";
                return Err(
                    ApiError::new(switch_api::Code::InvalidParams, "that would end every flow").hint(hint)
                );
            }
            let done: FlowsDeleted = client.call(&Request::FlowDelete(filter))?;
            output.answer(&done, |done| format!("{} flows ended", thousands(u64::from(done.deleted))));
        }
    }
    Ok(())
}

/// Pages until there are enough.
fn collect(client: &mut Client, filter: &FlowFilter, limit: u32) -> Result<FlowPage, ApiError> {
    let mut flows = Vec::new();
    let mut from = 0;
    loop {
        let limit_left = limit.saturating_sub(flows.len() as u32);
        let ask = FlowList { filter: filter.clone(), from, limit: limit_left.clamp(1, FLOW_PAGE_MAX) };
        let mut page: FlowPage = client.call(&Request::FlowList(ask))?;
        flows.append(&mut page.flows);
        match page.next {
            Some(next) if (flows.len() as u32) < limit => from = next,
            _ => return Ok(FlowPage { flows, ..page }),
        }
    }
}

fn list(page: &FlowPage, output: &Output) -> String {
    let mut table = output.table(&["PROTOCOL", "FROM", "TO", "STATE", "BEGUN BY", "IDLE", "ENDS IN", "ZONE"]);
    for flow in &page.flows {
        let state = if flow.picked_up { format!("{} (picked up)", flow.state) } else { flow.state.clone() };
        table.add_row(vec![
            protocol(flow.protocol),
            end(&flow.from, flow),
            end(&flow.to, flow),
            state,
            flow.port.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            format!("{} s", flow.age_s),
            format!("{} s", flow.left_s),
            flow.zone.clone(),
        ]);
    }
    let more = if page.next.is_some() { ", more than listed" } else { "" };
    format!(
        "{table}\nflows: {} in all, {} half-open, room for {}{more}",
        thousands(u64::from(page.all)),
        thousands(u64::from(page.half_open)),
        thousands(u64::from(page.room))
    )
}

/// A protocol by its name, or its number.
fn protocol(number: u8) -> String {
    let named = PROTOCOLS.iter().find(|(_, protocol)| *protocol == number);
    named.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// A flow as one line.
pub fn line(flow: &FlowEntry) -> String {
    let (from, to) = (end(&flow.from, flow), end(&flow.to, flow));
    format!("{} {from} to {to} {} ({})", protocol(flow.protocol), flow.state, flow.zone)
}

fn end(end: &FlowEnd, flow: &FlowEntry) -> String {
    match (end.number, end.address) {
        (0, address) => address.to_string(),
        (number, address) if matches!(flow.protocol, 1 | 58) => format!("{address} id {number}"),
        (number, IpAddr::V4(address)) => format!("{address}:{number}"),
        (number, IpAddr::V6(address)) => format!("[{address}]:{number}"),
    }
}
