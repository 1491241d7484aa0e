//! What is known of one flow: its state and how long that may last, what each end has said, and which rules admitted
//! it. A flow keeps no rule but the epochs of the policies that admitted it: as long as those are in force, asking them again
//! names the same rules.

use super::acls::echo_request;
use super::daemon::Daemon;
use super::flows::Names;
use crate::acl::Header;
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
        let origin = usize::from(entry.state.origin());
        let [from, to] = entry.real();
        let protocol = entry.key.protocol();
        let header = Header::new([from.ip, to.ip], protocol, [from.port, to.port], echo_request(protocol));
        let begun_at = entry.state.port;
        let ends_at = self.port_at(self.vrf_at(begun_at).as_ref(), from_bits(to.ip));
        let egress = if self.is_host(begun_at) && !self.model.listed.subject(begun_at).egress.is_some() {
            let why = "it began at the node's port, which no policy isolates".to_owned();
            Judgement { passes: true, rule: None, why }
        } else {
            self.judge([Some(begun_at), ends_at], &header, PolicyType::Egress)
        };
        let ingress = self.judge([ends_at, Some(begun_at)], &header, PolicyType::Ingress);
        // Where an address is that is no port's own, a flow does not say: by whichever port its packets leave.
        let admits = |epoch: u64| entry.decision.epoch == self.model.epoch_of(begun_at).wrapping_add(epoch);
        let is_current = match ends_at {
            Some(port) => admits(self.model.epoch_of(port)),
            None => admits(0) || self.model.ports.values().any(|port| admits(self.model.epoch_of(port.id))),
        };
        let of = |side: usize| direction(entry.key.protocol(), entry.state, side, windows[side]);
        FlowExplained {
            flow: names.entry(entry),
            meaning: entry.state.stage.meaning().to_owned(),
            timeout_s: entry.state.stage.timeout_s(),
            egress,
            ingress,
            is_current,
            directions: [of(origin), of(1 - origin)],
        }
    }

    pub(super) fn is_host(&self, id: u16) -> bool {
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
