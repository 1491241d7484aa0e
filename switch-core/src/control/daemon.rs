//! A request becomes a change, a change reaches every worker, and only then is it answered.
//!
//! `Model` → `Checked` → open what is new → `Snapshot` → persist → publish → all workers have seen it →
//! close what is gone → answer. An error before *publish* changes nothing.

use super::announce::Told;
use super::capture;
use super::devices::{remove_left_behind, with_mac};
use super::doors::{Door, Doors, WORKER_PATIENCE};
use super::history::History;
use super::mirror::Mirror;
use super::news::News;
use super::owners::Asker;
use super::peer;
use super::persist::Store;
use super::uplinks::Uplinks;
use crate::balance::Rules;
use crate::config::model::no_such;
use crate::config::snapshot::{Live, PortId, Snapshot, compile, compile_after};
use crate::config::uplink::KERNEL_IP;
use crate::config::{Checked, Model, Publisher};
use crate::counter::Counters;
use crate::ipam::Book;
use crate::pipeline::Tables;
use crate::pipeline::capture::Capture;
use crate::pipeline::dry::Dry;
use crate::table::flow::watch::Watch;
use crate::table::{fdb, neigh};
use crate::worker::Running;
use hashbrown::HashMap;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use switch_api::{
    AddressSet, AddressSetUpdate, ApiError, ByName, Code, Done, FdbFilter, HelloReply, Name, Port, Request,
    Role, Support,
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
    pub(super) reopened: Instant,
    pub(super) loops_told: u64,
    /// What marks our loop probes.
    pub(super) secret: u64,
    /// What happened and was not told yet.
    pub(super) news: News,
    /// The capture that runs.
    pub(super) capture: Option<capture::Running>,
    /// Those that a worker may still have.
    pub(super) captures_ended: Vec<Arc<Capture>>,
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
            history: History::default(),
            book: Book::default(),
            book_in_doubt: false,
            young_leases: Default::default(),
            fdb_entries,
            started: Instant::now(),
            sweep_part: 0,
            reopened: Instant::now(),
            loops_told: 0,
            loads: Default::default(),
            auto_rebalance: false,
            secret,
            latencies: Default::default(),
            dry: None,
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
        let answer = self.answer(request, asker)?;
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
            Request::PortGet(by) => json(self.get_port(&by.name)?),
            Request::PortList(_) => json(self.list_ports()),
            Request::PortProbe(by) => json(self.probe(&by.device)?),
            Request::FdbList(filter) => json(self.list_fdb(filter)?),
            Request::WorkerList(_) => json(self.list_workers()),
            Request::WorkerRebalance(how) => json(self.rebalance(how.dry_run, Rules::ASKED)?),
            Request::StatsGet(_) => json(self.stats()),
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

    pub(super) fn check(&self, request: &Request) -> Result<Checked, ApiError> {
        Checked::after(&self.model, self.model.apply(request)?, self.doors.mail.len() as u16)
    }

    pub(super) fn live(&self) -> HashMap<PortId, Live> {
        let up = self.ports.iter().filter_map(|(id, life)| match life {
            PortLife::Up(door) => Some((*id, door.live())),
            PortLife::Down(_) => None,
        });
        up.collect()
    }

    /// Keeps, publishes and waits until every worker has seen it.
    pub(super) fn adopt(&mut self, checked: Checked) -> Result<Value, ApiError> {
        self.store.keep(&checked.model().declared()).map_err(not_kept)?;
        self.publish(checked)?;
        json(self.done())
    }

    fn compile(&self, checked: &Checked, generation: u64) -> Snapshot {
        match self.publisher.newest() {
            Some(newest) => {
                compile_after(checked, &self.live(), self.fdb_entries, generation, &newest.routing)
            }
            None => compile(checked, &self.live(), self.fdb_entries, generation),
        }
    }

    pub(super) fn publish(&mut self, checked: Checked) -> Result<(), ApiError> {
        let generation = self.publisher.generation() + 1;
        let nics = self.look_at_nics(checked.model());
        let checked = checked.seeing(nics);
        self.narrow_uplinks(checked.model());
        let snapshot = self.compile(&checked, generation);
        let before: Vec<u16> = self.model.fids.values().copied().collect();
        let nats = self.nat_rules();
        self.model = checked.model().clone();
        self.pin_kernel();
        self.make_rules();
        self.make_route_counters();
        self.publisher.publish(snapshot);
        self.await_seen(generation)?;
        self.introduce_pods();
        self.widen_uplinks();
        self.begin_to_count();
        self.forget_fids(&before);
        self.end_flows_of_nats(&nats);
        self.forget_neighbours();
        self.tell_kernel(false);
        self.tell_outside();
        self.mirror_tables();
        Ok(())
    }

    pub(super) fn republish(&mut self) {
        // What was checked once and did not change is checked again: cheaper than a second way in.
        match Checked::after(&self.model, self.model.clone(), self.doors.mail.len() as u16) {
            Ok(checked) => {
                if let Err(error) = self.publish(checked) {
                    tracing::error!("{error}");
                }
            }
            Err(error) => tracing::error!("the model in force does not check: {error}"),
        }
    }

    pub(super) fn await_seen(&self, generation: u64) -> Result<(), ApiError> {
        let deadline = Instant::now() + WORKER_PATIENCE;
        self.ring();
        while let Some(worker) = self.publisher.laggard(generation) {
            if Instant::now() > deadline {
                return Err(ApiError::new(
                    Code::Timeout,
                    format!("worker {worker} has not taken the change yet"),
                )
                .hint("it was published and will be in force; see `switch-ctl worker list`"));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }

    fn ring(&self) {
        for mail in self.doors.mail.iter() {
            mail.waker.wake(|| crate::worker::thread::now().ns);
        }
    }

    /// Forgets what was learned under identifiers that nobody has any more: they are given out again.
    fn forget_fids(&self, before: &[u16]) {
        let present: Vec<u16> = self.model.fids.values().copied().collect();
        let gone: Vec<u16> = before.iter().copied().filter(|fid| !present.contains(fid)).collect();
        if !gone.is_empty() {
            self.sweep(|_, fid, _| gone.contains(&fid));
        }
    }

    /// Sweeps until nothing is left: a bucket a worker was writing is passed over once.
    pub(super) fn sweep(&self, mut gone: impl FnMut(u64, u16, fdb::Entry) -> bool) {
        let table = &self.tables.fdb;
        while table.sweep(0..table.buckets(), &mut gone) > 0 {}
    }

    fn add_port(&mut self, port: &Port) -> Result<Value, ApiError> {
        let port = &with_mac(port)?;
        let checked = self.check(&Request::PortAdd(Box::new(port.clone())))?;
        let id = checked.model().ports[&port.name].id;
        let door = self.doors.open(id, port).inspect_err(|_| remove_left_behind(port))?;
        self.ports.insert(id, PortLife::Up(Box::new(door)));
        let adopted = self.adopt(checked);
        if adopted.is_err() && !self.model.ports.contains_key(&port.name) {
            self.close(id, true);
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
                    remove_left_behind(&gone);
                }
                self.sweep(|_, _, entry| entry.port == id);
                self.end_flows_of(id);
                self.counters.iter().for_each(|counters| counters.clear_port(id));
                adopted
            }
        }
    }

    /// Closes what a port is made of; the snapshot in force does not name it, or it is dead.
    pub(super) fn close(&mut self, id: PortId, detach: bool) {
        if let Some(PortLife::Up(door)) = self.ports.remove(&id)
            && let Err(error) = self.doors.close(id, *door, detach)
        {
            tracing::error!("closing port {id}: {error}");
        }
        self.sweep(|_, _, entry| entry.port == id && !entry.is_static);
        // Whoever is sent to is asked for again, and so found elsewhere, or missed, at once and not when he has been silent for long.
        let neighbours = &self.tables.neigh;
        neighbours.sweep(0..neighbours.lines(), |_, _, entry| {
            entry.port == id && entry.state == neigh::State::Known
        });
        self.tables.loops.clear(id);
    }

    fn change_fdb(&mut self, request: &Request) -> Result<Value, ApiError> {
        let before = self.model.static_macs.clone();
        let checked = self.check(request)?;
        let value = self.adopt(checked)?;
        if let Request::FdbDelete(by) = request {
            let bridge = self.model.bridges.get(&by.bridge).ok_or_else(|| no_such("bridge", &by.bridge))?.id;
            let fid = self.model.fids.get(&(bridge, by.vid)).copied().unwrap_or(0);
            let learned = self.tables.fdb.remove(fdb::key(by.mac.to_u64(), fid));
            if !learned && before.len() == self.model.static_macs.len() {
                return Err(ApiError::new(Code::NotFound, format!("{} is not in the table", by.mac))
                    .field("mac")
                    .hint("`switch-ctl fdb list` shows what is"));
            }
        }
        self.pin_statics();
        Ok(value)
    }

    /// Writes the node's kernel into the tables, where a routing table leads to it: before the snapshot that
    /// says so is in force.
    fn pin_kernel(&self) {
        for kernel in self.model.vrf_names().into_iter().filter_map(|vrf| self.model.to_kernel(vrf).ok()) {
            self.pin_neighbour(neigh::key(kernel.fid, KERNEL_IP), kernel.mac);
            self.pin_station(fdb::key(kernel.mac.to_u64(), kernel.fid), kernel.id);
        }
    }

    fn pin_station(&self, key: u64, port: PortId) {
        while self.tables.fdb.pin(key, port) == crate::table::atomic::Outcome::Busy {
            std::thread::yield_now();
        }
    }

    /// Writes the static MACs into the table, over whatever was learned.
    pub(super) fn pin_statics(&self) {
        for entry in &self.model.static_macs {
            let bridge = self.model.bridges.get(&entry.bridge).map(|bridge| bridge.id);
            let fid = bridge.and_then(|bridge| self.model.fids.get(&(bridge, entry.vid)));
            let port = self.model.ports.get(&entry.port).map(|port| port.id);
            let (Some(fid), Some(port)) = (fid, port) else { continue };
            self.pin_station(fdb::key(entry.mac.to_u64(), *fid), port);
        }
    }

    fn flush(&self, filter: &FdbFilter) -> Result<(), ApiError> {
        let wanted = self.fdb_wanted(filter)?;
        self.sweep(|mac, fid, entry| !entry.is_static && wanted(mac, fid, entry));
        Ok(())
    }

    /// Opens what was kept from before. What cannot be opened now is down, not forgotten.
    /// `seed` makes this node's derived MACs its own.
    pub fn restore(&mut self, declared: crate::config::model::Declared, seed: u64) -> Result<(), ApiError> {
        self.restore_addresses()?;
        self.restore_outside();
        self.history = self.store.history().map_err(no_history)?;
        let checked = Checked::new(Model::from_declared(declared, seed)?, self.doors.mail.len() as u16)?;
        self.model = checked.model().clone();
        let is_declared = |name: &str| self.model.ports.keys().any(|port| port.as_str() == name);
        if let Err(error) = super::cable::remove_unfinished(is_declared) {
            tracing::warn!("cables that an earlier daemon left unfinished may be there: {error}");
        }
        for name in self.model.ports.keys().cloned().collect::<Vec<_>>() {
            self.open_again(&name);
        }
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
                remove_left_behind(&port.object);
            }
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

/// The refusal of a change that did not get to disk.
pub(super) fn not_kept(error: String) -> ApiError {
    ApiError::new(Code::System, format!("the change could not be kept: {error}"))
        .hint("nothing was changed; see the space and rights of --state")
}

pub(super) fn json(value: impl serde::Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|error| ApiError::new(Code::Internal, error.to_string()))
}
