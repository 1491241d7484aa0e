//! Who speaks with whom. Flows are kept without counts of what went by them (a count a packet would cost the packet path), so who
//! speaks most is told by how many connections two ends have, how many of them something passed on lately, and how many are new.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use switch_api::{ApiError, Client, FLOW_PAGE_MAX, FlowEntry, FlowList, FlowPage, Name, Request};

/// Pages of flows that are asked for at most, each look: some 8 000 flows, which take the daemon a few milliseconds.
const PAGES_MAX: usize = 4;
/// Seconds since a flow's last packet within which it counts as active.
const ACTIVE_S: u32 = 2;

/// Flows that are kept.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    /// Those that were looked at.
    pub seen: Vec<FlowEntry>,
    /// All there are.
    pub all: u32,
}

/// Two ends of which one began all that is counted.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Talker {
    pub from: IpAddr,
    pub to: IpAddr,
    /// The port of who began.
    pub port: Option<Name>,
    /// Flows between them.
    pub flows: usize,
    /// Those on which something passed lately.
    pub active: usize,
    /// New ones a second.
    pub new: f64,
}

/// The first pages of flows.
pub fn look(client: &mut Client) -> Result<Flows, ApiError> {
    let mut flows = Flows::default();
    let mut ask = FlowList { limit: FLOW_PAGE_MAX, ..FlowList::default() };
    for _ in 0..PAGES_MAX {
        let page: FlowPage = client.call(&Request::FlowList(ask.clone()))?;
        flows.seen.extend(page.flows);
        flows.all = page.all;
        match page.next {
            Some(next) => ask.from = next,
            None => break,
        }
    }
    Ok(flows)
}

type Key<'a> = (&'a str, u8, IpAddr, u16, IpAddr, u16);

fn key(flow: &FlowEntry) -> Key<'_> {
    let FlowEntry { from, to, .. } = flow;
    (&flow.zone, flow.protocol, from.address, from.number, to.address, to.number)
}

/// The most active first, then those with most new flows, then those with most.
pub fn talkers(now: &Flows, before: Option<&Flows>, seconds: f64) -> Vec<Talker> {
    let known: Option<HashSet<_>> = before.map(|before| before.seen.iter().map(key).collect());
    let mut pairs: BTreeMap<(IpAddr, IpAddr, Option<&str>), Talker> = BTreeMap::new();
    for flow in &now.seen {
        let (from, to) = (flow.from.address, flow.to.address);
        let port = flow.port.as_ref();
        let talker = pairs.entry((from, to, port.map(Name::as_str))).or_insert_with(|| Talker {
            from,
            to,
            port: port.cloned(),
            flows: 0,
            active: 0,
            new: 0.0,
        });
        talker.flows += 1;
        talker.active += usize::from(flow.age_s < ACTIVE_S);
        let is_new = known.as_ref().is_some_and(|known| !known.contains(&key(flow)));
        talker.new += f64::from(u8::from(is_new)) / seconds;
    }
    let mut talkers: Vec<_> = pairs.into_values().collect();
    talkers.sort_by(|a, b| b.active.cmp(&a.active).then(b.new.total_cmp(&a.new)).then(b.flows.cmp(&a.flows)));
    talkers
}
