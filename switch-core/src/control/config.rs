//! All that an owner declares, changed at once: planned and checked whole, then the ports, then one snapshot. Until that is
//! in force every step can be taken back, and is.

use super::daemon::{Daemon, PortLife, json, not_kept};
use super::devices::{remove_left_behind, with_mac};
use super::doors::OPEN_PATIENCE;
use super::guards::inherits;
use super::history::History;
use super::home::Home;
use super::readdress::give_addresses;
use crate::acl::sets::Difference;
use crate::config::Checked;
use crate::config::checked::places;
use crate::config::plan::{Plan, keep_macs, plan, problems_of};
use crate::config::snapshot::PortId;
use crate::table::fdb;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use switch_api::{
    ApiError, CONFIRM_WITHIN_S_MAX, Code, Config, ConfigApplied, ConfigApply, ConfigExport, ConfigRollback,
    Name, ObjectRef, Owner, Port, Problem,
};

/// Problems that a refusal says in its sentence; it lists all of them beside it.
const PROBLEMS_SAID: usize = 16;

/// What to do with what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// It is all or nothing: somebody is there to be told.
    Strict,
    /// Nobody is: a port that cannot be opened is down until it can, what another owner's object needs stays.
    Lenient,
}

/// What was done to ports and can be taken back.
#[derive(Debug, Default)]
struct Exchanged {
    opened: Vec<PortId>,
    closed: Vec<Name>,
    mtus: Vec<(PortId, Arc<Port>)>,
    /// As they were, and as they are.
    addressed: Vec<(Arc<Port>, Arc<Port>)>,
    /// In which namespaces devices were.
    homes: Vec<(Name, Option<Home>)>,
    /// Ports that are closed, and to whom they left what guards their devices.
    heirs: Vec<(PortId, PortId)>,
}

impl Daemon {
    pub(super) fn export(&self, export: &ConfigExport) -> Config {
        self.model.config(export.owner)
    }

    pub(super) fn apply_config(&mut self, apply: &ConfigApply, uid: u32) -> Result<Value, ApiError> {
        let mine = apply.owner == Owner::Operator && !apply.dry_run;
        if let Some(pending) = self.history.pending.as_ref().filter(|_| mine) {
            let text = format!("number {} waits to be confirmed", pending.number);
            return Err(ApiError::new(Code::Busy, text)
                .hint("keep it with `switch-ctl confirm`, or undo it with `switch-ctl rollback`"));
        }
        let what = format!("apply {}", apply.source.as_deref().unwrap_or("(no file)"));
        json(self.reach(apply, what, uid, Manner::Strict)?)
    }

    /// What the daemon was started with. The file is what counts: what waited to be confirmed before does so no more.
    pub fn apply_at_start(&mut self, apply: &ConfigApply) -> Result<(), ApiError> {
        let what = format!("start {}", apply.source.as_deref().unwrap_or_default());
        self.reach(apply, what, 0, Manner::Lenient)?;
        if self.history.pending.is_some() {
            self.confirm_config()?;
        }
        Ok(())
    }

    pub(super) fn confirm_config(&mut self) -> Result<Value, ApiError> {
        if self.history.pending.is_none() {
            return Err(ApiError::new(Code::NotFound, "nothing waits to be confirmed")
                .hint("it was confirmed, or undone because its time was over: see `switch-ctl history`"));
        }
        let history = History { pending: None, ..self.history.clone() };
        self.store.keep_history(&history).map_err(not_kept)?;
        self.history = history;
        json(self.done())
    }

    pub(super) fn roll_back(&mut self, asked: &ConfigRollback, uid: u32) -> Result<Value, ApiError> {
        let pending = self.history.pending.as_ref().map(|pending| pending.back);
        let number = asked.number.or(pending).ok_or_else(|| {
            ApiError::new(Code::NotFound, "nothing waits to be confirmed, so there is nothing to undo")
                .field("number")
                .hint("say to which number of `switch-ctl history`")
        })?;
        json(self.reach(&self.past(number, asked)?, format!("rollback {number}"), uid, Manner::Strict)?)
    }

    fn past(&self, number: u64, asked: &ConfigRollback) -> Result<ConfigApply, ApiError> {
        let ConfigRollback { dry_run, confirm_within_s, .. } = *asked;
        let config = self.history.config(number)?;
        Ok(ConfigApply { config, owner: Owner::Operator, dry_run, confirm_within_s, source: None })
    }

    /// Undoes what nobody confirmed in time. Once a second.
    pub(super) fn look_at_pending(&mut self) {
        let Some(pending) = self.history.pending.clone().filter(|pending| pending.is_over()) else { return };
        let what = format!("rollback {} (nobody confirmed {})", pending.back, pending.number);
        let past = self.past(pending.back, &ConfigRollback::default());
        match past.and_then(|apply| self.reach(&apply, what.clone(), 0, Manner::Lenient)) {
            Ok(_) => {
                tracing::warn!("{what}");
                self.tell("rolled-back", what, &[("to", pending.back.to_string())]);
            }
            Err(error) => {
                tracing::error!("{what}: {error}; it is tried again");
                self.history.pending.as_mut().into_iter().for_each(|pending| pending.put_off());
            }
        }
    }

    /// Makes what the owner declares be what `apply` says.
    fn reach(
        &mut self,
        apply: &ConfigApply,
        what: String,
        uid: u32,
        manner: Manner,
    ) -> Result<ConfigApplied, ApiError> {
        if apply.confirm_within_s.is_some_and(|within| !(1..=CONFIRM_WITHIN_S_MAX).contains(&within)) {
            let text = format!("a change can wait 1 to {CONFIRM_WITHIN_S_MAX} seconds to be confirmed");
            return Err(ApiError::new(Code::InvalidParams, text)
                .field("confirm_within_s")
                .hint("nothing was changed; a minute is what most want: --confirm-within 60s"));
        }
        let is_operator = apply.owner == Owner::Operator;
        if apply.confirm_within_s.is_some() && !is_operator {
            let text = "only what the operator declares can wait to be confirmed";
            return Err(ApiError::new(Code::InvalidParams, text)
                .field("confirm_within_s")
                .hint("nothing was changed; apply it without"));
        }
        let current = self.model.config(apply.owner);
        let (plan, checked) = self.planned(apply, &current, manner)?;
        let generation = self.publisher.generation();
        let mut applied =
            ConfigApplied { generation, changes: plan.changes.clone(), number: None, confirm_within_s: None };
        if apply.dry_run {
            return Ok(applied);
        }
        if plan.is_empty() {
            // What waited is where it was to go back to, and so is done with.
            (is_operator && self.history.pending.is_some()).then(|| self.confirm_config()).transpose()?;
            return Ok(applied);
        }
        let mut history = self.history.clone();
        if is_operator {
            history.note(&current)?;
            let config = checked.model().config(apply.owner);
            let number = history.add(what, uid, plan.changes.len(), &config, apply.confirm_within_s)?;
            applied.number = Some(number);
            applied.confirm_within_s = apply.confirm_within_s.map(u64::from);
        }
        self.carry_out(checked, &plan, history, manner)?;
        applied.generation = self.publisher.generation();
        Ok(applied)
    }

    /// What would become of all that is declared, were the operator's to be `config`; else everything that is wrong.
    pub(super) fn would_be(&self, config: &Config) -> Result<Checked, ApiError> {
        let owner = Owner::Operator;
        let apply = ConfigApply {
            config: config.clone(),
            owner,
            dry_run: true,
            confirm_within_s: None,
            source: None,
        };
        Ok(self.planned(&apply, &self.model.config(owner), Manner::Strict)?.1)
    }

    /// What is to be done, and what becomes of it; else everything that is wrong.
    fn planned(
        &self,
        apply: &ConfigApply,
        current: &Config,
        manner: Manner,
    ) -> Result<(Plan, Checked), ApiError> {
        let mut desired = apply.config.clone();
        keep_macs(current, &mut desired);
        for port in &mut desired.port {
            *port = with_mac(port)?;
        }
        let mut problems = switch_api::file::foreign(&desired, apply.owner);
        problems.extend(self.model.collisions(apply.owner, &desired));
        let plan = plan(current, &desired, &self.ports_down());
        let (model, impossible) = self.model.after(&plan);
        let known: BTreeSet<ObjectRef> = problems.iter().filter_map(|known| known.object.clone()).collect();
        let is_new = |problem: &Problem| problem.object.as_ref().is_none_or(|about| !known.contains(about));
        match manner {
            Manner::Strict => problems.extend(impossible.into_iter().filter(is_new)),
            Manner::Lenient => impossible.iter().for_each(|it| tracing::warn!("left out: {}", it.message)),
        }
        let checked = Checked::after(&self.model, model, self.doors.mail.len() as u16);
        // Where nobody is told, rules are in force whatever they take: it is ports that find no room beside them.
        let affordable = |checked: Checked| match manner {
            Manner::Strict => {
                // What is replaced needs its own again.
                let mut gone = plan.closed();
                plan.opened().for_each(|port| _ = gone.remove(&port.name));
                let (bytes, left) = (checked.model().rules_bytes(), self.bytes_of(&gone));
                self.doors.budget.allow_rules(bytes, left).map(|()| checked)
            }
            Manner::Lenient => Ok(checked),
        };
        match checked.and_then(affordable) {
            Ok(checked) if problems.is_empty() => return Ok((plan, checked)),
            Ok(_) => {}
            Err(error) => problems.extend(problems_of(None, error).into_iter().filter(is_new)),
        }
        Err(refusal(problems))
    }

    /// What ports take that go.
    fn bytes_of(&self, ports: &BTreeSet<&Name>) -> u64 {
        let ids = ports.iter().filter_map(|name| Some(self.model.ports.get(*name)?.id));
        ids.map(|id| self.doors.budget.of_port(id)).map(|(rings, kernel)| rings + kernel).sum()
    }

    fn carry_out(
        &mut self,
        checked: Checked,
        plan: &Plan,
        history: History,
        manner: Manner,
    ) -> Result<(), ApiError> {
        let mut exchanged = Exchanged::default();
        let gone = self.stations_gone(&checked);
        self.doors.budget.expect_rules(checked.model().rules_bytes());
        let done = self.exchange(&checked, plan, manner, &mut exchanged);
        self.doors.budget.expect_rules(0);
        if let Err(error) = done {
            self.put_back(exchanged);
            return Err(error);
        }
        self.clear_new_rules(&checked);
        let routes = &checked.model().routes;
        let routes = match routes.changed_since(&self.model.routes) {
            Some([]) => None,
            _ => Some(routes),
        };
        let sets = Difference::of(&self.model.sets, &checked.model().sets);
        self.keep_homes(true);
        let kept = self.store.keep_config(&self.model, checked.model(), routes, &sets, &history);
        if let Err(error) = kept {
            self.put_back(exchanged);
            return Err(not_kept(error));
        }
        self.history = history;
        // In force, or about to be: a worker that is late is told of, and nothing is taken back.
        let published = self.publish(checked);
        gone.into_iter().for_each(|key| _ = self.tables.fdb.remove(key));
        self.pin_statics();
        self.pin_neighbours();
        self.move_to_workers(plan);
        published
    }

    /// Places in the table of stations that nobody declares any more.
    fn stations_gone(&self, checked: &Checked) -> Vec<u64> {
        let stays: BTreeSet<_> =
            checked.model().static_macs.iter().map(|entry| (entry.mac, &entry.bridge, entry.vid)).collect();
        let gone = self.model.static_macs.iter();
        let gone = gone.filter(|entry| !stays.contains(&(entry.mac, &entry.bridge, entry.vid)));
        gone.filter_map(|entry| Some(fdb::key(entry.mac.to_u64(), self.fid_of(&entry.bridge, entry.vid)?)))
            .collect()
    }

    /// Opens what comes and closes what goes. A port that is given the device of another waits until that is closed; all
    /// others are opened first, while nothing was touched yet.
    fn exchange(
        &mut self,
        checked: &Checked,
        plan: &Plan,
        manner: Manner,
        done: &mut Exchanged,
    ) -> Result<(), ApiError> {
        let closed = plan.closed();
        let gone: Vec<&Port> =
            closed.iter().filter_map(|name| Some(&*self.model.ports.get(*name)?.object)).collect();
        let devices: BTreeSet<_> = gone.iter().flat_map(|port| places(&port.kind)).collect();
        let waits = |port: &&Port| {
            closed.contains(&port.name) || places(&port.kind).any(|place| devices.contains(&place))
        };
        let (late, early): (Vec<&Port>, Vec<&Port>) = plan.opened().partition(waits);
        let comes = |port: &&Port| checked.model().ports.contains_key(&port.name);
        let early: Vec<Port> = early.into_iter().filter(comes).cloned().collect();
        let late: Vec<Port> = late.into_iter().filter(comes).cloned().collect();
        let heirs = gone.iter().filter_map(|port| {
            let heir = late.iter().find(|heir| inherits(&port.kind, &heir.kind))?;
            Some((self.model.ports.get(&port.name)?.id, checked.model().ports.get(&heir.name)?.id))
        });
        let heirs: BTreeMap<PortId, PortId> = heirs.collect();
        let gone: Vec<Name> = gone.into_iter().map(|port| port.name.clone()).collect();
        for port in &early {
            self.open_new(checked, port, manner, done)?;
        }
        self.set_mtus(checked, plan, done)?;
        self.set_addresses(checked, plan, done)?;
        self.close_old(gone, &heirs, done);
        for port in &late {
            self.open_new(checked, port, manner, done)?;
        }
        Ok(())
    }

    fn open_new(
        &mut self,
        checked: &Checked,
        port: &Port,
        manner: Manner,
        done: &mut Exchanged,
    ) -> Result<(), ApiError> {
        let id = checked.model().ports[&port.name].id;
        let life = match (self.doors.open(id, port, None, Instant::now() + OPEN_PATIENCE), manner) {
            (Ok(door), _) => PortLife::Up(Box::new(door)),
            (Err(error), Manner::Lenient) => PortLife::Down(error.to_string()),
            (Err(error), Manner::Strict) => {
                remove_left_behind(port, None);
                return Err(about(port, error));
            }
        };
        self.ports.insert(id, life);
        self.unsettle(&port.name, done);
        self.settle(id, &port.name);
        done.opened.push(id);
        Ok(())
    }

    fn set_mtus(&mut self, checked: &Checked, plan: &Plan, done: &mut Exchanged) -> Result<(), ApiError> {
        for name in plan.set() {
            let (Some(before), Some(after)) = (self.model.ports.get(name), checked.model().ports.get(name))
            else {
                continue;
            };
            if before.object.settings.mtu == after.object.settings.mtu {
                continue;
            }
            let (id, had) = (before.id, before.object.clone());
            if self.set_device_mtu(id, &after.object)? {
                done.mtus.push((id, had));
            }
        }
        Ok(())
    }

    fn set_addresses(
        &mut self,
        checked: &Checked,
        plan: &Plan,
        done: &mut Exchanged,
    ) -> Result<(), ApiError> {
        for name in plan.addressed() {
            let there = (self.model.ports.get(name), checked.model().ports.get(name));
            let (Some(before), Some(after)) = there else { continue };
            let (before, after) = (before.object.clone(), after.object.clone());
            give_addresses(&before, &after, self.homes.get(name)).map_err(|error| about(&after, error))?;
            done.addressed.push((before, after));
        }
        if !done.addressed.is_empty() {
            self.put_own_neighbours();
        }
        Ok(())
    }

    /// Ports without a device that could be changed.
    fn ports_down(&self) -> BTreeSet<Name> {
        let is_up = |id| matches!(self.ports.get(&id), Some(PortLife::Up(_)));
        let down = self.model.ports.values().filter(|port| !is_up(port.id));
        down.map(|port| port.object.name.clone()).collect()
    }

    /// Closes ports, first for the workers and then for good.
    fn close_old(&mut self, gone: Vec<Name>, heirs: &BTreeMap<PortId, PortId>, done: &mut Exchanged) {
        let mut lives = Vec::new();
        for name in &gone {
            let id = self.model.ports[name].id;
            lives.extend(
                self.ports.insert(id, PortLife::Down("it is being replaced".into())).map(|it| (id, it)),
            );
        }
        if lives.iter().any(|(_, life)| matches!(life, PortLife::Up(_))) {
            self.republish();
        }
        let mut left_behind = Vec::new();
        for (id, life) in lives {
            let is_down = matches!(life, PortLife::Down(_));
            let left = self.model.ports.values().find(|port| port.id == id && is_down);
            let left = left.map(|port| port.object.clone());
            self.ports.insert(id, life);
            if let Some(heir) = heirs.get(&id)
                && let Some(bequest) = self.close_guarded(id)
            {
                done.heirs.push((id, *heir));
                left_behind.push((*heir, bequest));
            }
            self.close(id, true);
            left.iter().for_each(|left| remove_left_behind(left, self.homes.get(&left.name)));
            self.dismiss_guard(id);
            self.tables.fdb.forget(id, true);
            self.end_flows_of(id);
            self.forget_counts_of(id);
        }
        // When all are closed: the number of one that goes may be that of one that comes.
        left_behind.into_iter().for_each(|(heir, bequest)| self.inherit(heir, bequest));
        gone.iter().for_each(|name| self.unsettle(name, done));
        done.closed = gone;
    }

    /// Where the device of that name's port was counts no more: it is closed, or another's.
    fn unsettle(&mut self, name: &Name, done: &mut Exchanged) {
        done.homes.push((name.clone(), self.homes.get(name).cloned()));
        self.homes.put(name, None);
    }

    /// Takes back what was done to ports.
    fn put_back(&mut self, done: Exchanged) {
        // Backwards: of a name that was noted twice the first note is how it was.
        done.homes.into_iter().rev().for_each(|(name, had)| self.homes.put(&name, had));
        let back = done.heirs.into_iter().filter_map(|(id, heir)| Some((id, self.close_guarded(heir)?)));
        let back: Vec<_> = back.collect();
        for id in done.opened {
            self.close(id, true);
        }
        back.into_iter().for_each(|(id, bequest)| self.inherit(id, bequest));
        for (id, had) in done.mtus {
            if let Err(error) = self.set_device_mtu(id, &had) {
                tracing::error!("an MTU could not be put back: {error}");
            }
        }
        for (had, has) in done.addressed {
            if let Err(error) = give_addresses(&has, &had, self.homes.get(&had.name)) {
                tracing::error!("addresses could not be put back: {}", error.message);
            }
        }
        if !done.closed.is_empty() {
            let until = Instant::now() + OPEN_PATIENCE;
            done.closed.iter().for_each(|name| self.open_again(name, until));
            self.republish();
            self.pin_statics();
        }
    }

    /// Lanes go where they were declared to be. That one does not now is no reason to undo all else.
    fn move_to_workers(&mut self, plan: &Plan) {
        for name in plan.set() {
            let Some(port) = self.model.ports.get(name) else { continue };
            let id = port.id;
            if let Some(PortLife::Up(door)) = self.ports.get(&id)
                && let Some(wanted) = port.object.settings.workers(door.workers.len())
                && let Err(error) = self.move_lanes(id, &wanted)
            {
                tracing::warn!(port = %name, "its lanes stay where they are: {error}");
            }
        }
    }
}

/// The same error, and of which port it is.
fn about(port: &Port, error: ApiError) -> ApiError {
    let text = format!("port {}: {}", port.name, error.message);
    let mut refused = ApiError { message: text, ..error.clone() };
    refused.data.problems = problems_of(Some(&ObjectRef::of(port)), error);
    refused
}

fn refusal(problems: Vec<Problem>) -> ApiError {
    let mut texts: Vec<_> = problems.iter().take(PROBLEMS_SAID).map(|it| it.message.clone()).collect();
    if problems.len() > PROBLEMS_SAID {
        texts.push(format!("and {} more", problems.len() - PROBLEMS_SAID));
    }
    let mut error = ApiError::new(Code::InvalidParams, texts.join("; ")).hint("nothing was changed");
    error.data.problems = problems;
    error
}
