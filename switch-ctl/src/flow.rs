//! `switch-ctl flow`.

use crate::output::{Output, thousands};
use clap::{Args, Subcommand};
use std::net::IpAddr;
use switch_api::{
    ApiError, Client, EventsSubscribe, FLOW_PAGE_MAX, FlowDirection, FlowEnd, FlowEntry, FlowExplain,
    FlowExplained, FlowFilter, FlowList, FlowPage, FlowsDeleted, Happened, Name, Request,
};

/// What can be done with flows.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists flows: who began, whom with, how far, and when it is forgotten.
    #[command(after_help = "\
Examples:
  switch-ctl flow list
  switch-ctl flow list --protocol tcp --number 5432 --state established")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: u32,
    },
    /// Says what is known of one flow: its state and why that may last so long, what each end has said, which rules admitted it.
    #[command(after_help = "\
Examples:
  switch-ctl port set web --track on
  ip netns exec web ping -c 1 -e 7 10.66.0.3
  switch-ctl flow explain icmp 10.66.0.2 10.66.0.3 --id 7
  switch-ctl flow explain tcp 10.66.0.2:40000 10.66.0.3:5432
  switch-ctl flow explain udp '[fd66::2]:40000' '[fd66::3]:53'")]
    Explain {
        /// The protocol: tcp, udp, sctp, icmp, icmpv6, or a number.
        #[arg(value_parser = parse_protocol)]
        protocol: u8,
        /// One end, as `flow list` has it: an address and, where there are some, a port.
        #[arg(value_parser = parse_end)]
        from: FlowEnd,
        /// The other end; which of them began does not matter.
        #[arg(value_parser = parse_end)]
        to: FlowEnd,
        /// The identifier of a query like ping, at both ends.
        #[arg(long)]
        id: Option<u16>,
    },
    /// Tells what becomes of flows as it happens: new, established, judged again because policies changed, ended; Ctrl-C
    /// ends it. What comes faster than it is told is counted.
    #[command(after_help = "\
Examples:
  switch-ctl flow watch --port web
  switch-ctl flow watch --protocol tcp --number 5432 --duration 3
  switch-ctl --json flow watch --duration 3 | jq -r '.what'")]
    Watch {
        #[command(flatten)]
        filter: Filter,
        /// End after so many.
        #[arg(short, long)]
        count: Option<u64>,
        /// End after so many seconds.
        #[arg(long, value_name = "SECONDS")]
        duration: Option<u64>,
    },
    /// Ends flows. What still comes of them is judged as if it were new.
    #[command(after_help = "\
Examples:
  switch-ctl flow delete --port web --protocol tcp
  switch-ctl flow delete --all")]
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

/// An end as `flow list` has it.
fn parse_end(text: &str) -> Result<FlowEnd, String> {
    if let Ok(end) = text.parse::<std::net::SocketAddr>() {
        return Ok(FlowEnd { address: end.ip(), number: end.port() });
    }
    let address =
        text.parse().map_err(|_| "write it like 10.66.0.2:80, [fd66::2]:80 or 10.66.0.2".to_owned())?;
    Ok(FlowEnd { address, number: 0 })
}

impl Filter {
    /// Whether an event is about a flow that is meant. Of what is told of flows in parts, ends are as `end` writes them.
    fn wants(&self, event: &Happened) -> bool {
        let part = |name: &str| event.parts.get(name).map(String::as_str).unwrap_or_default();
        let ends = ["from", "to"].map(|name| parse_end(part(name)).ok());
        let any = |wanted: &dyn Fn(FlowEnd) -> bool| ends.iter().flatten().any(|end| wanted(*end));
        event.what.starts_with("flow-")
            && self.port.as_ref().is_none_or(|port| part("port") == port.as_str())
            && self.address.is_none_or(|address| any(&|end| end.address == address))
            && self.protocol.is_none_or(|number| part("protocol") == protocol(number))
            && self.number.is_none_or(|number| any(&|end| end.number == number))
            && self.state.as_ref().is_none_or(|state| part("state") == state)
    }

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
        Verb::Explain { protocol, from, to, id } => {
            let end = |end: &FlowEnd| FlowEnd { number: id.unwrap_or(end.number), ..*end };
            let asked = FlowExplain { protocol: *protocol, from: end(from), to: end(to) };
            let found: Vec<FlowExplained> = client.call(&Request::FlowExplain(asked))?;
            output.answer(&found, |found| found.iter().map(explained).collect::<Vec<_>>().join("\n\n"));
        }
        Verb::Watch { filter, count, duration } => {
            let asked = EventsSubscribe { flows: true };
            let wanted = |event: &Happened| filter.wants(event);
            crate::events::follow(client, output, asked, *count, *duration, wanted)?;
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

fn explained(explained: &FlowExplained) -> String {
    let (flow, [there, back]) = (&explained.flow, &explained.directions);
    let port =
        flow.port.as_ref().map_or_else(|| "a port that is gone".to_owned(), |port| format!("port {port}"));
    let pickup = if flow.picked_up { "; it was not seen from its beginning" } else { "" };
    let judged = match (explained.is_current, explained.egress.passes && explained.ingress.passes) {
        (true, _) => "admitted by what policies say now:",
        (false, true) => {
            "policies changed since it was admitted; its next packet is judged anew, and passes:"
        }
        (false, false) => {
            "policies changed since it was admitted; its next packet is judged anew, and is stopped:"
        }
    };
    let rule = |what: &str, judgement: &switch_api::Judgement| {
        let rule = judgement.rule.as_ref().map(|rule| format!(" [{rule}]")).unwrap_or_default();
        format!("  {what:<8}{rule} {}", judgement.why)
    };
    let lines = [
        format!("{}, begun by {port}{pickup}", line(flow)),
        format!("  {} s of {} left: {}", flow.left_s, explained.timeout_s, explained.meaning),
        judged.to_owned(),
        rule("egress", &explained.egress),
        rule("ingress", &explained.ingress),
        format!("{} has {}", end(&flow.from, flow), said(there)),
        format!("{} has {}", end(&flow.to, flow), said(back)),
    ];
    lines.join("\n")
}

fn said(direction: &FlowDirection) -> String {
    match direction {
        FlowDirection { sent: Some(sent), acknowledged: Some(acknowledged), window, .. } => {
            format!(
                "sent up to {sent}, acknowledged {acknowledged}, and takes {} bytes more",
                window.unwrap_or(0)
            )
        }
        FlowDirection { tag: Some(tag), .. } => format!("the tag {tag:#010x}"),
        _ => "nothing that would be kept".into(),
    }
}

fn list(page: &FlowPage, output: &Output) -> String {
    if page.all == 0 {
        let room = thousands(u64::from(page.room));
        return format!(
            "no flows (room for {room}): they are kept of ports with a policy, or with `switch-ctl port set NAME --track on`"
        );
    }
    let mut table = output.table(&["PROTOCOL", "FROM", "TO", "STATE", "BEGUN BY", "IDLE", "ENDS IN", "ZONE"]);
    for flow in &page.flows {
        let state = if flow.picked_up { format!("{} (picked up)", flow.state) } else { flow.state.clone() };
        table.add_row(vec![
            protocol(flow.protocol),
            with(&flow.from, flow.becomes.map(|ends| ends.from), "as", flow),
            with(&flow.to, flow.becomes.map(|ends| ends.to), "at", flow),
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
    let from = with(&flow.from, flow.becomes.map(|ends| ends.from), "as", flow);
    let to = with(&flow.to, flow.becomes.map(|ends| ends.to), "at", flow);
    format!("{} {from} to {to} {} ({})", protocol(flow.protocol), flow.state, flow.zone)
}

/// An end, and what it is to the other one if that is something else.
fn with(is: &FlowEnd, becomes: Option<FlowEnd>, word: &str, flow: &FlowEntry) -> String {
    match becomes.filter(|becomes| becomes != is) {
        Some(becomes) => format!("{} {word} {}", end(is, flow), end(&becomes, flow)),
        None => end(is, flow),
    }
}

fn end(end: &FlowEnd, flow: &FlowEntry) -> String {
    match (end.number, end.address) {
        (0, address) => address.to_string(),
        (number, address) if matches!(flow.protocol, 1 | 58) => format!("{address} id {number}"),
        (number, IpAddr::V4(address)) => format!("{address}:{number}"),
        (number, IpAddr::V6(address)) => format!("[{address}]:{number}"),
    }
}
