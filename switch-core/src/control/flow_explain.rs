//! What is known of one flow: its state and how long that may last, what each end has said, and which rules admitted
//! it. A flow keeps no rule but the epochs of the policies that admitted it: as long as those are in force, asking them again
//! names the same rules.

use super::daemon::Daemon;
use super::flows::Names;
use crate::config::gateway::{from_bits, to_bits};
use crate::table::flow::Entry;
use crate::table::flow::key::End;
use crate::table::flow::record::Window;
use crate::table::flow::state::State;
use crate::wire::ip::{SCTP, TCP};
use crate::worker::thread::now;
use switch_api::{
    ApiError, Code, FLOWS_EXPLAINED_MAX, FlowDirection, FlowEnd, FlowExplain, FlowExplained, Judgement,
    PolicyType, PortKind,
};

impl Daemon {
    /// Explains the flows between two ends: one, unless they have the same addresses in several zones.
    pub(super) fn explain_flow(&self, asked: &FlowExplain) -> Result<Vec<FlowExplained>, ApiError> {
        let end = |end: &FlowEnd| End { ip: to_bits(end.address), port: end.number };
        let (one, other) = (end(&asked.from), end(&asked.to));
        let names = Names::of(self);
        let (table, mut found) = (&self.tables.flows, Vec::new());
        table.scan(0..table.places(), now().s(), |place, entry| {
            let ends = entry.key.ends();
            let is_asked = entry.key.protocol() == asked.protocol
                && (ends == [one, other] || ends == [other, one])
                && found.len() < FLOWS_EXPLAINED_MAX;
            if is_asked {
                found.push(self.explained(&names, &entry, table.windows(place)));
            }
        });
        if found.is_empty() {
            return Err(ApiError::new(Code::NotFound, "there is no such flow")
                .hint("`switch-ctl flow list` shows those there are; flows are kept of ports with --track or a policy"));
        }
        Ok(found)
    }

    fn explained(&self, names: &Names, entry: &Entry, windows: [Window; 2]) -> FlowExplained {
        let (ends, origin) = (entry.key.ends(), usize::from(entry.state.origin()));
        let (from, to) = (ends[origin], ends[1 - origin]);
        let policing = &self.model.policing;
        let class = policing.class(entry.key.protocol(), Some(to.port));
        let (from_ip, to_ip) = (from_bits(from.ip), from_bits(to.ip));
        let egress = if self.is_host(entry.state.port) {
            let why = "it began at the node's port, which no policy isolates".to_owned();
            Judgement { passes: true, rule: None, why }
        } else {
            self.judge(from_ip, to_ip, PolicyType::Egress, class)
        };
        let ingress = self.judge(to_ip, from_ip, PolicyType::Ingress, class);
        let epoch = |port: Option<u16>| port.and_then(|port| policing.subject(port)).map_or(0, |it| it.epoch);
        let now = epoch(Some(entry.state.port)).wrapping_add(epoch(policing.owner_of(to.ip)));
        let of = |side: usize| direction(entry.key.protocol(), entry.state, side, windows[side]);
        FlowExplained {
            flow: names.entry(entry),
            meaning: entry.state.stage.meaning().to_owned(),
            timeout_s: entry.state.stage.timeout_s(),
            egress,
            ingress,
            is_current: entry.decision.words[0] == now,
            directions: [of(origin), of(1 - origin)],
        }
    }

    fn is_host(&self, id: u16) -> bool {
        let port = self.model.ports.values().find(|port| port.id == id);
        port.is_some_and(|port| matches!(port.object.kind, PortKind::Host { .. }))
    }
}

fn direction(protocol: u8, state: State, side: usize, window: Window) -> FlowDirection {
    match protocol {
        TCP => FlowDirection {
            sent: Some(window.end),
            acknowledged: Some(window.ack),
            window: Some(u32::from(window.room) << state.scale(side as u8)),
            tag: None,
        },
        SCTP => FlowDirection { tag: Some(window.ack).filter(|tag| *tag != 0), ..FlowDirection::default() },
        _ => FlowDirection::default(),
    }
}
