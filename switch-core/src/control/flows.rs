//! Flows, listed by pages and ended. A page looks at a bounded part of the table, so that no answer holds the
//! control thread up.

use super::daemon::Daemon;
use super::flow_events::tell_ended;
use crate::config::gateway::{from_bits, to_bits};
use crate::config::model::no_such;
use crate::table::flow::key::{End, Key};
use crate::table::flow::state::{PICKED_UP, Stage, State};
use crate::table::flow::watch::{FlowNews, What, Why};
use crate::table::flow::{Entry, Flows};
use crate::worker::thread::now;
use std::collections::BTreeMap;
use switch_api::{
    ApiError, Code, FLOW_PAGE_DEFAULT, FLOW_PAGE_MAX, FlowEnd, FlowEnds, FlowEntry, FlowFilter, FlowList,
    FlowPage, FlowsDeleted, Name,
};

/// Places that one page looks at: a few milliseconds.
const PLACES_A_PAGE: u32 = 1 << 18;

/// A filter in the table's own words.
struct Wanted {
    port: Option<u16>,
    address: Option<u128>,
    protocol: Option<u8>,
    number: Option<u16>,
    stage: Option<Stage>,
}

impl Wanted {
    fn fits(&self, entry: &Entry) -> bool {
        let ends = entry.key.ends().into_iter().chain(entry.becomes.into_iter().flatten());
        self.port.is_none_or(|port| entry.state.port == port)
            && self.address.is_none_or(|ip| ends.clone().any(|end| end.ip == ip))
            && self.protocol.is_none_or(|protocol| entry.key.protocol() == protocol)
            && self.number.is_none_or(|number| ends.clone().any(|end| end.port == number))
            && self.stage.is_none_or(|stage| entry.state.stage == stage)
    }
}

impl Daemon {
    fn flows_wanted(&self, filter: &FlowFilter) -> Result<Wanted, ApiError> {
        let port = filter
            .port
            .as_ref()
            .map(|name| self.model.ports.get(name).map(|port| port.id).ok_or_else(|| no_such("port", name)));
        let stage = filter.state.as_ref().map(|name| {
            let found = Stage::ALL.iter().find(|stage| stage.name() == name && !stage.is_none());
            found.copied().ok_or_else(|| {
                let all: Vec<_> =
                    Stage::ALL.iter().filter(|stage| !stage.is_none()).map(|stage| stage.name()).collect();
                ApiError::new(Code::InvalidParams, format!("{name:?} is no state of a flow"))
                    .field("state")
                    .hint(format!("there are {}", all.join(", ")))
            })
        });
        Ok(Wanted {
            port: port.transpose()?,
            address: filter.address.map(to_bits),
            protocol: filter.protocol,
            number: filter.number,
            stage: stage.transpose()?,
        })
    }

    /// A page of flows.
    pub(super) fn list_flows(&self, ask: &FlowList) -> Result<FlowPage, ApiError> {
        let wanted = self.flows_wanted(&ask.filter)?;
        let limit = if ask.limit == 0 { FLOW_PAGE_DEFAULT } else { ask.limit.min(FLOW_PAGE_MAX) } as usize;
        let table: &Flows = &self.tables.flows;
        let names = Names::of(self);
        let (now_s, mut flows) = (now().s(), Vec::new());
        let end = ask.from.saturating_add(PLACES_A_PAGE).min(table.places());
        let mut at = ask.from;
        while at < end && flows.len() < limit {
            if let Some(entry) = table.entry(at, now_s).filter(|entry| wanted.fits(entry)) {
                flows.push(names.entry(&entry));
            }
            at += 1;
        }
        let counted = table.counted();
        let next = (at < table.places()).then_some(at);
        Ok(FlowPage { flows, next, all: counted.all, half_open: counted.half_open, room: table.places() })
    }

    /// Ends flows.
    pub(super) fn delete_flows(&self, filter: &FlowFilter) -> Result<FlowsDeleted, ApiError> {
        let wanted = self.flows_wanted(filter)?;
        Ok(FlowsDeleted { deleted: self.end_flows(|entry| wanted.fits(entry)) })
    }

    /// Ends the flows of a port that is gone: its number will be another's.
    pub(super) fn end_flows_of(&self, port: u16) {
        if self.tables.flows.counted_of(port).all > 0 {
            self.end_flows(|entry| entry.state.port == port);
        }
    }

    /// Ends the flow at a place, if there is one.
    pub(super) fn end_flow(&self, place: u32) {
        let Some(Entry { key, state, .. }) = self.tables.flows.entry(place, now().s()) else { return };
        if self.tables.flows.kill(place, &key) {
            let what = What::Ended(Why::Deleted);
            tell_ended(self.flow_watch.as_ref(), FlowNews { what, key, state });
        }
    }

    pub(super) fn end_flows(&self, wanted: impl Fn(&Entry) -> bool) -> u32 {
        let (table, mut deleted) = (&self.tables.flows, 0);
        table.scan(0..table.places(), now().s(), |place, entry| {
            if wanted(&entry) && table.kill(place, &entry.key) {
                deleted += 1;
                let (what, Entry { key, state, .. }) = (What::Ended(Why::Deleted), entry);
                tell_ended(self.flow_watch.as_ref(), FlowNews { what, key, state });
            }
        });
        deleted
    }
}

/// Numbers become names.
pub(super) struct Names {
    ports: BTreeMap<u16, Name>,
    zones: BTreeMap<u16, String>,
}

impl Names {
    pub(super) fn of(daemon: &Daemon) -> Self {
        let model = &daemon.model;
        let bridges: BTreeMap<u16, &Name> =
            model.bridges.iter().map(|(name, bridge)| (bridge.id, name)).collect();
        let vrfs = model.vrf_zones.iter().map(|(name, zone)| (*zone, format!("vrf {name}")));
        let place = |((bridge, vid), fid): (&(u16, switch_api::Vid), &u16)| {
            Some((*fid, format!("{}/{vid}", bridges.get(bridge)?)))
        };
        Self {
            ports: model.ports.iter().map(|(name, port)| (port.id, name.clone())).collect(),
            zones: model.fids.iter().filter_map(place).chain(vrfs).collect(),
        }
    }

    fn zone(&self, zone: u16) -> String {
        self.zones.get(&zone).cloned().unwrap_or_else(|| "-".into())
    }

    pub(super) fn entry(&self, entry: &Entry) -> FlowEntry {
        let end = |end: End| FlowEnd { address: from_bits(end.ip), number: end.port };
        let becomes = entry.becomes.map(|[from, to]| FlowEnds { from: end(from), to: end(to) });
        FlowEntry { becomes, age_s: entry.age_s, left_s: entry.left_s, ..self.flow(&entry.key, entry.state) }
    }

    /// A flow whose last packet came now.
    pub(super) fn flow(&self, key: &Key, state: State) -> FlowEntry {
        let ends = key.ends().map(|end| FlowEnd { address: from_bits(end.ip), number: end.port });
        let origin = usize::from(state.origin());
        FlowEntry {
            zone: self.zone(key.zone()),
            protocol: key.protocol(),
            from: ends[origin],
            to: ends[1 - origin],
            becomes: None,
            state: state.stage.name().into(),
            half_open: state.stage.is_half_open(),
            picked_up: state.flags & PICKED_UP != 0,
            port: self.ports.get(&state.port).cloned(),
            age_s: 0,
            left_s: state.stage.timeout_s(),
        }
    }
}
