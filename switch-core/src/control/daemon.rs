//! A request becomes a change, a change reaches every worker, and only then is it answered.
//!
//! `Model` → `Checked` → open what is new → `Snapshot` → persist → publish → all workers have seen it ([`super::change`]) →
//! close what is gone → answer. An error before *publish* changes nothing.

use super::announce::Told;
use super::capture;
use super::devices::{remove_left_behind, with_mac};
use super::doors::{Door, Doors, OPEN_PATIENCE};
use super::fallen::RESTORE_PATIENCE;
use super::history::History;
use super::home::Homes;
use super::mirror::Mirror;
use super::news::News;
use super::owners::Asker;
use super::peer;
use super::persist::Store;
use super::retry::Retry;
use super::uplinks::Uplinks;
use crate::balance::Rules;
use crate::config::model::no_such;
use crate::config::snapshot::PortId;
use crate::config::{Checked, Model, Publisher};
use crate::counter::Counters;
use crate::ipam::Book;
use crate::pipeline::Tables;
use crate::pipeline::capture::Capture;
use crate::pipeline::dry::Dry;
use crate::table::flow::watch::Watch;
use crate::table::neigh;
use crate::worker::Running;
use crate::worker::patience::LINGERS_NS;
use crate::worker::thread::now;
use hashbrown::HashMap;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use switch_api::{
    AddressSet, AddressSetUpdate, ApiError, ByName, Code, Done, HelloReply, Name, Port, Request, Role,
    Support,
};

/// A port as the daemon knows it.
#[derive(Debug)]
pub enum PortLife {
    /// Open.
    Up(Box<Door>),
    /// Not open, and why; tried again when something changes.
    Down(String),
}

/// The daemon, without its socket.
#[derive(Debug)]
pub struct Daemon {
    /// What is declared.
    pub model: Model,
    /// What each port is made of, by number.
    pub ports: HashMap<PortId, PortLife>,
    /// How ports are opened.
    pub doors: Doors,
    /// Snapshots to the workers.
    pub publisher: Publisher,
    /// Learned state.
    pub tables: Arc<Tables>,
    /// Each worker's counters.
    pub counters: Vec<Arc<Counters>>,
    /// Each worker.
    pub workers: Vec<Running>,
    /// Where what is declared is kept.
    pub store: Store,
    /// In which namespaces ports' devices are.
    pub(super) homes: Homes,
    /// What was declared before.
    pub(super) history: History,
    /// Who has which address.
    pub book: Book,
    /// The disk may know more than the book: a write ended in an error.
    pub(super) book_in_doubt: bool,
    /// Whose ports are to come still.
    pub(super) young_leases: super::leaks::Young,
    /// Entries of the FDB.
    pub fdb_entries: u32,
    /// Since when it runs.
    pub started: Instant,
    pub(super) sweep_part: usize,
    /// Ports that are down and were tried.
    pub(super) retries: HashMap<PortId, Retry>,
    pub(super) loops_told: u64,
    /// What the kernel dropped before any worker saw it.
    pub(super) unseen: super::unseen::Unseen,
    /// What marks our loop probes.
    pub(super) secret: u64,
    /// What happened and was not told yet.
    pub(super) news: News,
    /// The capture that runs.
    pub(super) capture: Option<capture::Running>,
    /// Those that a worker may still have.
    pub(super) captures_ended: Vec<Arc<Capture>>,
    /// What neighbours were last swept by.
    pub(super) near: super::neighbours::Near,
    /// Who hears of flows, if anybody.
    pub(super) flow_watch: Option<Arc<Watch>>,
    /// Those that a worker may still have.
    pub(super) watches_ended: Vec<Arc<Watch>>,
    /// How long requests took.
    pub(super) latencies: super::latency::Latencies,
    /// For traces; made with the first.
    pub(super) dry: Option<Dry>,
    pub(super) told: Told,
    /// What the kernel does for pods and the outside.
    pub(super) outside: super::outside::Told,
    /// What was told of gateways.
    pub(super) announced: super::gratuitous::Announced,
    pub(super) advertised: super::advertise::Advertised,
    /// What counters of routes stood at when their route came.
    pub(super) count_from: super::route_counts::From,
    /// What lanes cost.
    pub(super) loads: super::lanes::Loads,
    /// Lanes move without being asked for.
    pub auto_rebalance: bool,
    /// The mirror of the kernel's routes; none where it cannot be.
    pub mirror: Option<Mirror>,
    /// NICs that the kernel shares.
    pub uplinks: Uplinks,
    /// What the process has given up; none if nobody looked.
    pub sandbox: Option<Support>,
    /// Its log; none if that is another program's.
    pub log: Option<super::log::Log>,
    /// Set by `daemon.stop`: whether to detach.
    pub stopping: Option<bool>,
}

impl Daemon {
    /// A daemon with nothing declared. `secret` marks its loop probes.
    #[allow(clippy::too_many_arguments, reason = "its parts, once")]
    pub fn new(
        doors: Doors,
        publisher: Publisher,
        tables: Arc<Tables>,
        counters: Vec<Arc<Counters>>,
        workers: Vec<Running>,
        store: Store,
        fdb_entries: u32,
        secret: u64,
    ) -> Self {
        Self {
            model: Model::default(),
            ports: HashMap::new(),
            doors,
            publisher,
            tables,
            counters,
            workers,
            store,
            homes: Homes::default(),
            history: History::default(),
            book: Book::default(),
            book_in_doubt: false,
            young_leases: Default::default(),
            fdb_entries,
            started: Instant::now(),
            sweep_part: 0,
            retries: HashMap::new(),
            loops_told: 0,
            unseen: Default::default(),
            loads: Default::default(),
            auto_rebalance: false,
            secret,
            latencies: Default::default(),
            dry: None,
            near: Default::default(),
            told: Told::default(),
            outside: Default::default(),
            announced: Default::default(),
            advertised: Default::default(),
            count_from: Default::default(),
            mirror: None,
            uplinks: Uplinks::default(),
            news: News::default(),
            capture: None,
            captures_ended: Vec::new(),
            flow_watch: None,
            watches_ended: Vec::new(),
            sandbox: None,
            log: None,
            stopping: None,
        }
    }

    /// Answers somebody's request.
    pub fn handle(&mut self, request: &Request, asker: &Asker) -> Result<Value, ApiError> {
        peer::allow(asker.role, request, |port| self.model.ports.get(port).map(|port| port.object.owner))?;
        let overridden = self.respect_owners(request, asker)?;
        self.doors.need_core_until(u64::MAX);
        let answer = self.answer(request, asker);
        self.doors.need_core_until(now().ns + LINGERS_NS);
        let answer = answer?;
        self.tell_change(request, asker.caller, overridden);
        Ok(answer)
    }

    fn answer(&mut self, request: &Request, asker: &Asker) -> Result<Value, ApiError> {
        let uid = asker.caller.uid;
        match request {
            Request::Hello(hello) => {
                hello.owner.map_or(Ok(()), |owner| asker.allow_as(owner))?;
                hello_reply(hello.version, asker.role)
            }
            Request::Status(_) => json(self.status()),
            Request::ConfigExport(export) => json(self.export(export)),
            Request::ConfigApply(apply) => self.apply_config(apply, uid),
            Request::ConfigConfirm(_) => self.confirm_config(),
            Request::ConfigHistory(_) => json(self.history.list()),
            Request::ConfigRollback(rollback) => self.roll_back(rollback, uid),
            Request::BridgeList(_) => json(self.list_bridges()),
            Request::PortGet(by) => {
                if let Some(port) = self.model.ports.get(&by.name) {
                    self.look_for_unseen(Some(port.id));
                }
                json(self.get_port(&by.name)?)
            }
            Request::PortList(_) => json(self.list_ports()),
            Request::PortProbe(by) => json(self.probe(&by.device)?),
            Request::FdbList(filter) => json(self.list_fdb(filter)?),
            Request::WorkerList(_) => json(self.list_workers()),
            Request::WorkerRebalance(how) => json(self.rebalance(how.dry_run, Rules::ASKED)?),
            Request::StatsGet(_) => {
                self.look_for_unseen(None);
                json(self.stats())
            }
            Request::LogGet(_) => json(self.log_status()?),
            Request::LogLevel(set) => json(self.set_log_level(&set.level)?),
            Request::EventsSubscribe(asked) => {
                // What happens from the answer on is told.
                self.set_listened(true);
                self.watch_flows(self.is_watching_flows() || asked.flows);
                json(self.done())
            }
            Request::EventsRecent(_) => json(self.news.recent()),
            Request::CaptureStart(start) => json(self.start_capture(start)?),
            Request::TraceLive(asked) => json(self.start_live(asked)?),
            Request::Trace(trace) => json(self.trace(trace)?),
            Request::Stop(stop) => {
                self.stopping = Some(stop.detach);
                json(self.done())
            }
            Request::FdbFlush(filter) => {
                self.flush(filter)?;
                json(self.done())
            }
            Request::PortAdd(port) => self.add_port(port),
            Request::PortDelete(by) => self.delete_port(request, &by.name),
            Request::FdbDelete(_) | Request::FdbAdd(_) => self.change_fdb(request),
            Request::PortSet(set) => self.set_port(request, &set.name),
            Request::PortAddress(set) => self.address_port(request, &set.name),
            Request::FlowList(ask) => json(self.list_flows(ask)?),
            Request::FlowExplain(asked) => json(self.explain_flow(asked)?),
            Request::FlowDelete(filter) => json(self.delete_flows(filter)?),
            Request::NeighList(filter) => json(self.list_neighbours(filter)?),
            Request::RouteList(filter) => json(self.list_routes(filter)?),
            Request::RouteAdd(_) | Request::RouteDelete(_) | Request::RouteApply(_) => {
                self.change_routes(request)
            }
            Request::RouteGet(get) => json(self.explain_route(get)?),
            Request::RouteStats(_) => json(self.route_counts()),
            Request::VrfList(_) => json(self.list_vrfs()),
            Request::NeighAdd(_) | Request::NeighDelete(_) => self.change_neighbour(request),
            Request::PolicyList(filter) => json(self.list_policies(filter)),
            Request::AclList(_) => json(self.list_acls()),
            Request::PortSetList(_) => json(self.list_port_sets()),
            Request::AddressSetList(_) => json(self.list_sets()),
            Request::AddressSetMembers(asked) => json(self.members_of(asked)?),
            Request::AddressSetSet(AddressSet { name, .. })
            | Request::AddressSetUpdate(AddressSetUpdate { name, .. })
            | Request::AddressSetDelete(ByName { name }) => json(self.change_sets(request, name)?),
            Request::NatList(_) => json(self.list_nats()),
            Request::PolicyExplain(asked) => json(self.explain_policy(asked)?),
            Request::PolicyDiff(asked) => json(self.diff_policies(asked)?),
            Request::NamespaceList(_) => json(self.model.declared_namespaces()),
            Request::PortLabel(_)
            | Request::NamespaceSet(_)
            | Request::NamespaceDelete(_)
            | Request::PolicyAdd(_)
            | Request::PolicySet(_)
            | Request::PolicyDelete(_)
            | Request::PortSetSet(_)
            | Request::PortSetDelete(_)
            | Request::AclSet(_)
            | Request::AclDelete(_)
            | Request::NatSet(_)
            | Request::NatDelete(_) => self.change_policy(request),
            Request::BridgeAdd(_)
            | Request::BridgeSet(_)
            | Request::BridgeDelete(_)
            | Request::AddressAdd(_)
            | Request::AddressDelete(_)
            | Request::VrfSet(_)
            | Request::VrfDelete(_) => {
                let checked = self.check(request)?;
                let value = self.adopt(checked)?;
                self.pin_neighbours();
                Ok(value)
            }
            Request::PoolAdd(_)
            | Request::PoolSet(_)
            | Request::PoolDelete(_)
            | Request::PoolList(_)
            | Request::LeaseAcquire(_)
            | Request::LeaseRelease(_)
            | Request::LeaseList(_) => self.addresses(request, asker.owner),
        }
    }

    /// A request was answered.
    pub(super) fn note_latency(&mut self, method: &str, took: Duration) {
        tracing::debug!(method, ?took, "answered");
        self.latencies.note(method, took);
    }

    pub(super) fn done(&self) -> Done {
        Done { generation: self.publisher.generation() }
    }

    fn add_port(&mut self, port: &Port) -> Result<Value, ApiError> {
        let port = &with_mac(port)?;
        let checked = self.check(&Request::PortAdd(Box::new(port.clone())))?;
        let id = checked.model().ports[&port.name].id;
        self.doors.budget.expect_rules(checked.model().rules_bytes());
        let opened = self.doors.open(id, port, None, Instant::now() + OPEN_PATIENCE);
        self.doors.budget.expect_rules(0);
        let door = opened.inspect_err(|_| remove_left_behind(port, None))?;
        self.ports.insert(id, PortLife::Up(Box::new(door)));
        self.settle(id, &port.name);
        let adopted = self.adopt(checked);
        if adopted.is_err() && !self.model.ports.contains_key(&port.name) {
            self.close(id, true);
            self.homes.put(&port.name, None);
        }
        adopted
    }

    fn delete_port(&mut self, request: &Request, name: &Name) -> Result<Value, ApiError> {
        let checked = self.check(request)?;
        let port = self.model.ports.get(name).ok_or_else(|| no_such("port", name))?;
        let (id, gone) = (port.id, port.object.clone());
        let mut life = self.ports.remove(&id);
        if let Some(PortLife::Up(door)) = &mut life {
            // What an uplink took goes by the kernel before the routes do.
            door.let_go();
            if gone.kind.shared_nic().is_some() {
                self.see_taken_in(id);
            }
        }
        let is_down = matches!(life, Some(PortLife::Down(_)));
        match self.adopt(checked) {
            Err(error) if self.model.ports.contains_key(name) => {
                self.ports.extend(life.map(|life| (id, life)));
                self.widen_uplinks();
                Err(error)
            }
            adopted => {
                self.ports.extend(life.map(|life| (id, life)));
                self.close(id, true);
                if is_down {
                    remove_left_behind(&gone, self.homes.get(name));
                }
                self.dismiss_guard(id);
                self.homes.put(name, None);
                self.tables.fdb.forget(id, true);
                self.end_flows_of(id);
                self.forget_counts_of(id);
                adopted
            }
        }
    }

    /// Closes what a port is made of; the snapshot in force does not name it, or it is dead.
    pub(super) fn close(&mut self, id: PortId, detach: bool) {
        if let Some(PortLife::Up(mut door)) = self.ports.remove(&id) {
            let closed = self.doors.close(id, &door).map(drop);
            self.look_last(id, &mut door);
            // Also behind a worker that is late: nobody would be there to do it then, and a program without a port drops what comes for ever.
            let mut let_go = Ok(());
            if detach {
                let_go = door.let_go_of_device();
                self.unseen.begin_anew(id);
            }
            if let Err(error) = closed.and(let_go) {
                tracing::error!("closing port {id}: {error}");
            }
        }
        self.tables.fdb.forget(id, false);
        // Whoever is sent to is asked for again, and so found elsewhere, or missed, at once and not when he has been silent for long.
        let neighbours = &self.tables.neigh;
        if neighbours.known_behind(id) > 0 {
            neighbours.sweep(0..neighbours.lines(), |_, _, entry| {
                entry.port == id && entry.state == neigh::State::Known
            });
        }
        self.tables.loops.clear(id);
    }

    /// Opens what was kept from before. What cannot be opened now is down, not forgotten.
    /// `seed` makes this node's derived MACs its own.
    pub fn restore(&mut self, declared: crate::config::model::Declared, seed: u64) -> Result<(), ApiError> {
        self.restore_addresses()?;
        self.restore_outside();
        self.history = self.store.history().map_err(no_history)?;
        let checked = Checked::new(Model::from_declared(declared, seed)?, self.doors.mail.len() as u16)?;
        self.model = checked.model().clone();
        // They are in force whatever they take: it is ports that find no room beside them.
        self.count_rules();
        let is_declared = |name: &str| self.model.ports.keys().any(|port| port.as_str() == name);
        if let Err(error) = super::cable::remove_unfinished(is_declared) {
            tracing::warn!("cables that an earlier daemon left unfinished may be there: {error}");
        }
        let homes = self.store.homes().map_err(no_homes)?;
        self.homes = Homes::of(homes, |port| self.model.ports.contains_key(port));
        for name in self.model.ports.keys().cloned().collect::<Vec<_>>() {
            self.open_again(&name, Instant::now() + RESTORE_PATIENCE);
        }
        self.keep_homes(false);
        self.publish(checked)?;
        self.pin_statics();
        self.pin_neighbours();
        Ok(())
    }

    /// The name of a port.
    pub fn name_of(&self, id: PortId) -> Option<&Name> {
        self.model.ports.iter().find(|(_, port)| port.id == id).map(|(name, _)| name)
    }

    /// Ends the workers and closes every port.
    pub fn shut_down(&mut self, detach: bool) {
        if detach {
            if self.advertise_last() {
                // A generation that workers have seen is a turn in which they said it.
                self.republish();
            }
            self.hush_kernel();
            self.hush_outside();
        }
        let ids: Vec<PortId> = self.ports.keys().copied().filter(|_| detach).collect();
        for id in ids {
            let is_down = matches!(self.ports.get(&id), Some(PortLife::Down(_)));
            self.close(id, true);
            let port = self.model.ports.values().find(|port| port.id == id && is_down);
            if let Some(port) = port {
                remove_left_behind(&port.object, self.homes.get(&port.object.name));
            }
            self.dismiss_guard(id);
        }
        for mail in self.doors.mail.iter() {
            _ = crate::worker::thread::command(mail, crate::worker::Command::Stop);
        }
        self.workers.drain(..).for_each(Running::join);
    }
}

fn hello_reply(version: u32, role: Role) -> Result<Value, ApiError> {
    let ours = switch_api::API_VERSION;
    if version != ours {
        let side = if version < ours { "the client" } else { "switchd" };
        return Err(ApiError::new(
            Code::Version,
            format!("the client speaks version {version}, switchd {ours}"),
        )
        .field("version")
        .hint(format!("update {side}")));
    }
    json(HelloReply {
        version: ours,
        daemon: env!("CARGO_PKG_VERSION").into(),
        admin: role == Role::Admin,
        role: Some(role),
        line_len_max: Some(super::input::line_len_max(role)),
    })
}

fn no_history(error: String) -> ApiError {
    ApiError::new(Code::System, format!("the history of changes in --state cannot be used: {error}"))
        .hint("put back a copy of the file, or move it away to start empty")
}

fn no_homes(error: String) -> ApiError {
    ApiError::new(Code::System, format!("in which namespaces ports are cannot be read from --state: {error}"))
        .hint("put back a copy of the file, or move it away to start empty")
}

/// The refusal of a change that did not get to disk.
pub(super) fn not_kept(error: String) -> ApiError {
    ApiError::new(Code::System, format!("the change could not be kept: {error}"))
        .hint("nothing was changed; see the space and rights of --state")
}

pub(super) fn json(value: impl serde::Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|error| ApiError::new(Code::Internal, error.to_string()))
}
