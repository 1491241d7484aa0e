//! Rules of network address translation: listed with what they translate, and ended with it.

use super::daemon::Daemon;
use crate::config::nats::PlacedNat;
use crate::table::flow::key::End;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use switch_api::{NatKind, NatStatus};

/// What a rule's flows come to.
#[derive(Default)]
struct Use {
    flows: u64,
    /// Ports in use, by address, protocol and peer.
    ports: HashMap<(u128, u8, End), u32>,
}

impl Daemon {
    /// Rules, and what they translate. It looks at every flow there is.
    pub(super) fn list_nats(&self) -> Vec<NatStatus> {
        let mut uses: BTreeMap<u16, Use> = BTreeMap::new();
        let table = &self.tables.flows;
        if !self.model.nats.is_empty() {
            table.scan_bound(0..table.places(), |_, rules, key, side| {
                let ends = key.ends();
                for rule in BTreeSet::from([rules.destination, rules.source]) {
                    uses.entry(rule).or_default().flows += 1;
                }
                let [own, peer] = [side, side ^ 1].map(|side| ends[usize::from(side & 1)]);
                let ports = &mut uses.entry(rules.source).or_default().ports;
                *ports.entry((own.ip, key.protocol(), peer)).or_default() += 1;
            });
        }
        let status = |placed: &PlacedNat| {
            let of = uses.get(&placed.id);
            let is_source = matches!(placed.nat.kind, NatKind::Source { .. });
            let most = of.and_then(|of| of.ports.values().max().copied()).filter(|_| is_source);
            NatStatus {
                nat: (*placed.nat).clone(),
                flows_made: self.rule_packets(placed.slot),
                exhausted: self.rule_packets(placed.slot + 1),
                flows: of.map_or(0, |of| of.flows),
                ports_used: most.unwrap_or(0),
                ports: ports_of(&placed.nat.kind),
            }
        };
        self.model.nats.values().map(status).collect()
    }

    /// Numbers of the rules there are.
    pub(super) fn nat_rules(&self) -> BTreeSet<u16> {
        let declared = self.model.nats.values().map(|placed| placed.id);
        declared.chain(self.model.published_numbers()).collect()
    }

    /// Ends the flows of rules that are there no more, or mean something else. Every worker has seen that.
    pub(super) fn end_flows_of_nats(&self, before: &BTreeSet<u16>) {
        let gone: BTreeSet<u16> = before.difference(&self.nat_rules()).copied().collect();
        if gone.is_empty() {
            return;
        }
        let table = &self.tables.flows;
        table.scan_bound(0..table.places(), |place, rules, _, _| {
            if gone.contains(&rules.destination) || gone.contains(&rules.source) {
                self.end_flow(place);
            }
        });
    }
}

/// Ports that a source rule has for each peer.
fn ports_of(kind: &NatKind) -> u32 {
    match kind {
        NatKind::Source { ports, .. } => u32::from(ports.last - ports.first) + 1,
        NatKind::Destination { .. } | NatKind::OneToOne { .. } => 0,
    }
}
