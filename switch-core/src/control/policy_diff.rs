//! What a change of policies and access control lists would cut and open: judged by the live tables and by those that would be made, and
//! nothing is changed. The control thread is held up for some 100 ms at most by pairs, and for one walk over the
//! flow table.

use super::daemon::Daemon;
use super::flows::Names;
use crate::acl::world::Judging;
use crate::config::Model;
use crate::config::gateway::from_bits;
use crate::config::policies::{addresses_of, key_of};
use crate::policy::diff::{Diff, Ends, Pair, blocks};
use crate::policy::{Slot, to_bits};
use crate::table::flow::Entry;
use crate::worker::thread::now;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use switch_api::{
    ApiError, ByPolicy, Cidr, Code, DIFF_FLOWS_MAX, DIFF_PAIRS_MAX, DIFF_PORTS_MAX, DiffEnd, Effect,
    FlowChange, Name, NetworkPolicy, PairChange, PolicyDiff, PolicyDiffAnswer, PortKind,
};

/// What stays, and as what.
struct Both<'a> {
    before: &'a Model,
    after: &'a Model,
    /// Ports that are there before and after: the number each has then.
    numbers: BTreeMap<u16, u16>,
}

impl Daemon {
    /// Says what a change would cut and open.
    pub(super) fn diff_policies(&self, asked: &PolicyDiff) -> Result<PolicyDiffAnswer, ApiError> {
        let after = match &asked.config {
            Some(_) if !asked.set.is_empty() || !asked.delete.is_empty() => {
                let text = "say either what is set and deleted, or all that is declared";
                return Err(ApiError::new(Code::InvalidParams, text)
                    .field("config")
                    .hint("`switch-ctl policy diff FILE` asks one of the two by what is in the file"));
            }
            Some(config) => self.would_be(config)?.model().clone(),
            None => self.model.with_policies(&distinct(&asked.set)?, &there(&self.model, &asked.delete)?)?,
        };
        let both = Both::new(&self.model, &after);
        let mut answer = both.pairs();
        both.flows(self, &mut answer);
        answer.newly_tracked = both.newly_tracked(self);
        answer.ports_gone = both.gone().map(|(_, name)| name.clone()).collect();
        let new = after.ports.keys().filter(|name| !self.model.ports.contains_key(*name));
        answer.ports_new = new.cloned().collect();
        Ok(answer)
    }
}

/// The policies of a file: none is there twice.
fn distinct(set: &[NetworkPolicy]) -> Result<Vec<NetworkPolicy>, ApiError> {
    let mut seen = BTreeSet::new();
    match set.iter().find(|policy| !seen.insert(key_of(policy))) {
        None => Ok(set.to_vec()),
        Some(twice) => {
            let (namespace, name) = key_of(twice);
            let text = format!("policy {namespace}/{name} is there twice");
            Err(ApiError::new(Code::InvalidParams, text).field("set").hint("take one of the two out"))
        }
    }
}

/// The policies that are to go, each once.
fn there(model: &Model, delete: &[ByPolicy]) -> Result<Vec<ByPolicy>, ApiError> {
    let keys: BTreeSet<_> = delete.iter().map(|by| (by.namespace.clone(), by.name.clone())).collect();
    let by = |(namespace, name): (String, String)| ByPolicy { name, namespace };
    let all: Vec<_> = keys.into_iter().map(by).collect();
    // What is not there is refused as the change itself would be.
    model.with_policies(&[], &all).map(|_| all)
}

impl<'a> Both<'a> {
    fn new(before: &'a Model, after: &'a Model) -> Self {
        let stays = before.ports.iter();
        let stays = stays.filter_map(|(name, port)| Some((port.id, after.ports.get(name)?.id)));
        Self { before, after, numbers: stays.collect() }
    }

    /// What judges, before and after.
    fn worlds(&self) -> [Judging<'a>; 2] {
        [self.before, self.after].map(|model| Judging { policies: &model.policing.0, lists: &model.listed.0 })
    }

    /// The ends that are judged: workloads that are there before and after, by their addresses, and blocks.
    fn ends(&self) -> (Vec<Ends>, Vec<DiffEnd>, usize) {
        let (mut ends, mut names) = (Vec::new(), Vec::new());
        for (name, port) in &self.before.ports {
            let Some(later) = self.after.ports.get(name) else { continue };
            if port.object.workload.is_none() && later.object.workload.is_none() {
                continue;
            }
            let later_addresses = addresses_of(&later.object);
            for ip in addresses_of(&port.object).into_iter().filter(|ip| later_addresses.contains(ip)) {
                let Some(addresses) = host(to_bits(ip)) else { continue };
                ends.push(Ends { ip: to_bits(ip), port: Some((port.id, later.id)) });
                names.push(DiffEnd { port: Some(name.clone()), addresses });
            }
        }
        let mut taken = BTreeSet::new();
        for model in [self.before, self.after] {
            taken.extend(model.policing.owners().into_keys());
            taken.extend(model.policing.node_addresses());
        }
        let policies = self.before.policies.values().chain(self.after.policies.values());
        let specs = policies.map(|placed| &placed.policy.spec);
        let (blocks, unjudged) =
            blocks(specs, [self.before, self.after].into_iter().flat_map(networks), &taken);
        for (addresses, ip) in blocks {
            ends.push(Ends { ip, port: None });
            names.push(DiffEnd { port: None, addresses });
        }
        (ends, names, unjudged)
    }

    /// What becomes of pairs of ends.
    fn pairs(&self) -> PolicyDiffAnswer {
        let (ends, names, blocks_unjudged) = self.ends();
        let [before, after] = self.worlds();
        let mut diff = Diff::new(&before, &after);
        // By effect, as far as there is room, and how many there are.
        let mut listed: [Vec<PairChange>; 2] = Default::default();
        let mut found = 0;
        diff.pairs(&ends, |Pair { from, to, changed }| {
            for changed in changed.iter() {
                found += 1;
                let list = &mut listed[changed.effect as usize];
                if list.len() < DIFF_PAIRS_MAX {
                    let mut ports = changed.ports.clone();
                    ports.truncate(DIFF_PORTS_MAX);
                    list.push(PairChange {
                        from: names[from].clone(),
                        to: names[to].clone(),
                        effect: changed.effect,
                        rule: self.rule(changed.slot),
                        ports_left_out: changed.ports.len() - ports.len(),
                        ports,
                    });
                }
            }
        });
        let mut pairs: Vec<_> = listed.into_iter().flatten().collect();
        pairs.truncate(DIFF_PAIRS_MAX);
        PolicyDiffAnswer {
            pairs_left_out: found - pairs.len(),
            pairs,
            pairs_unjudged: diff.unjudged,
            blocks_unjudged,
            ..PolicyDiffAnswer::default()
        }
    }

    fn rule(&self, slot: Option<Slot>) -> Option<String> {
        slot.map(|slot| self.after.rule_name(slot))
    }

    /// What becomes of the flows that there are.
    fn flows(&self, daemon: &Daemon, answer: &mut PolicyDiffAnswer) {
        let [before, after] = self.worlds();
        let diff = Diff::new(&before, &after);
        let owners = [self.before, self.after].map(owners);
        let names = Names::of(daemon);
        let hosts: BTreeSet<u16> = self
            .before
            .ports
            .values()
            .filter(|port| matches!(port.object.kind, PortKind::Host { .. }))
            .map(|port| port.id)
            .collect();
        let mut listed: [Vec<FlowChange>; 2] = Default::default();
        let gone: HashMap<u16, &Name> = self.gone().collect();
        let table = &daemon.tables.flows;
        table.scan(0..table.places(), now().s(), |_, entry| {
            let goes = goes_with(&entry, &owners, &gone);
            let (effect, slot) = match self.ends_of(&entry, &owners, &hosts) {
                _ if goes.is_some() => (Effect::Cut, None),
                None => return,
                Some([from, to]) => {
                    let number = entry.real()[1].port;
                    match diff.judge(from, to, entry.key.protocol(), number) {
                        [Ok(_), Err(slot)] => (Effect::Cut, Some(slot)),
                        [Err(_), Ok(slot)] => (Effect::Open, slot),
                        _ => {
                            answer.flows_judged += 1;
                            return;
                        }
                    }
                }
            };
            answer.flows_judged += 1;
            match effect {
                Effect::Cut => answer.flows_cut += 1,
                Effect::Open => answer.flows_opened += 1,
            }
            let list = &mut listed[effect as usize];
            if list.len() < DIFF_FLOWS_MAX {
                let (flow, rule, goes) = (names.entry(&entry), self.rule(slot), goes.cloned());
                list.push(FlowChange { flow, effect, rule, goes });
            }
        });
        answer.flows = listed.into_iter().flatten().take(DIFF_FLOWS_MAX).collect();
    }

    /// Ports that are there before and not after.
    fn gone(&self) -> impl Iterator<Item = (u16, &'a Name)> {
        let ports = self.before.ports.iter().map(|(name, port)| (port.id, name));
        ports.filter(|(id, _)| !self.numbers.contains_key(id))
    }

    /// Who began a flow, and whom it speaks with. None if the port that began it is no more.
    fn ends_of(
        &self,
        entry: &Entry,
        owners: &[HashMap<u128, u16>; 2],
        hosts: &BTreeSet<u16>,
    ) -> Option<[Ends; 2]> {
        let [from, to] = entry.real().map(|end| end.ip);
        let began = (entry.state.port, *self.numbers.get(&entry.state.port)?);
        let of = |ip: u128| Some((*owners[0].get(&ip)?, *owners[1].get(&ip)?));
        // What comes by the node's port is asked about as a stranger's, or the node's if the address is, unless lists are for that port.
        let is_listed =
            self.before.listed.subject(began.0).is_listed() || self.after.listed.subject(began.1).is_listed();
        let began = (!hosts.contains(&began.0) || is_listed).then_some(began);
        Some([Ends { ip: from, port: began }, Ends { ip: to, port: of(to) }])
    }

    /// Ports that get their first policy or list.
    fn newly_tracked(&self, daemon: &Daemon) -> Vec<Name> {
        let live = daemon.publisher.current();
        let is_new = |id: &u16, later: &u16| {
            let isolated = self.after.policing.subject(*later).is_some_and(|subject| subject.is_isolated());
            (isolated || self.after.listed.subject(*later).is_listed())
                && !live.port(*id).is_some_and(|port| port.tracked)
        };
        let new = self.numbers.iter().filter(|(id, later)| is_new(id, later));
        new.filter_map(|(id, _)| daemon.name_of(*id)).cloned().collect()
    }
}

/// The port that goes and takes a flow with it: that at which it began, or that of whom it speaks with, unless another has his address then.
fn goes_with<'a>(
    entry: &Entry,
    owners: &[HashMap<u128, u16>; 2],
    gone: &HashMap<u16, &'a Name>,
) -> Option<&'a Name> {
    let to = entry.real()[1].ip;
    let receiver = owners[0].get(&to).filter(|_| !owners[1].contains_key(&to));
    gone.get(&entry.state.port).or_else(|| gone.get(receiver?)).copied()
}

/// Networks that rules of lists name.
fn networks(model: &Model) -> impl Iterator<Item = Cidr> + '_ {
    let rules = model.acls.values().flat_map(|placed| placed.acl.ingress.iter().chain(&placed.acl.egress));
    let named = rules.flat_map(|rule| rule.source.iter().chain(&rule.destination));
    named.filter_map(|network| network.to_string().parse().ok())
}

/// Whose addresses are which port's: workloads', and those of other devices that the switch made.
fn owners(model: &Model) -> HashMap<u128, u16> {
    let ports = model.ports.values();
    let declared =
        ports.flat_map(|port| addresses_of(&port.object).into_iter().map(|ip| (to_bits(ip), port.id)));
    let mut owners: HashMap<u128, u16> = declared.collect();
    owners.extend(model.policing.owners());
    owners
}

/// An address as a network of its own.
fn host(ip: u128) -> Option<Cidr> {
    let ip = from_bits(ip);
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }).parse().ok()
}
