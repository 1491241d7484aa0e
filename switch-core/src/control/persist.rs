//! What was declared and what was leased, kept in an embedded store (`redb`). What was declared is one value,
//! replaced whole, but for routes, of which there may be a million; routes and leases are a row each. A change is one transaction: a crash leaves the old or the new.
//!
//! After an error of the disk the store takes nothing more until it is opened again, which is done before the
//! next use: a disk that was full and has room again needs no restart.

mod format;

use super::history::{History, Past, Pending};
use super::outside::Left;
use crate::acl::sets::{Difference, Set, Sets};
use crate::config::model::Declared;
use crate::config::routes::{Place, Routes, Way, declared};
use crate::ipam::{Change, Kept as Addresses};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use switch_api::{Lease, Name, Owner, Prefix, Route};

/// Pages of the file that are kept in memory: what a change touches, many times over. The library's own default is
/// a GiB, which a million routes would fill.
const CACHE_BYTES: usize = 4 << 20;

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;

const TABLE: Rows = TableDefinition::new("declared");
const KEY: &str = "v1";
/// Declared routes by table, network and metric: where they lead.
const ROUTES: Rows = TableDefinition::new("routes-v1");
/// Address sets by name: whose each is.
const SETS: Rows = TableDefinition::new("address-sets-v1");
/// Their members, by set and network.
const MEMBERS: Rows = TableDefinition::new("address-set-members-v1");
/// Pools by name.
const POOLS: Rows = TableDefinition::new("ipam-pools-v1");
/// Leases by pool and holder.
const LEASES: Rows = TableDefinition::new("ipam-leases-v1");
/// Released addresses by pool and address; they are forgotten when they are free again.
const HELD: Rows = TableDefinition::new("ipam-held-v1");

/// What was declared before, by its number.
const PAST: Rows = TableDefinition::new("config-past-v1");
/// The change that waits to be confirmed, if one does.
const PENDING: Rows = TableDefinition::new("config-pending-v1");
/// What was put into the node's kernel and is to be taken away some day.
const OUTSIDE: Rows = TableDefinition::new("outside-v1");

/// The store; none keeps nothing.
#[derive(Debug, Default)]
pub struct Store(Option<Kept>);

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// None: it was closed after an error.
    database: Option<Database>,
    /// A change was made that is on disk with the next one.
    unsynced: bool,
    /// It was closed after an error since somebody asked: whether the last changes are on disk nobody can say.
    in_doubt: bool,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk's reason, or redb's.
    #[error(
        "the state file {path} cannot be used: {error}; see the space on its disk, its rights, and whether another switchd has it, or move the file away to start empty"
    )]
    Database {
        /// Which file.
        path: String,
        /// Why.
        error: Box<redb::Error>,
    },
    /// It is another program's, or was overwritten.
    #[error(
        "{path} is no state file of switchd's; name another with --state, or move the file away to start empty"
    )]
    Foreign {
        /// Which file.
        path: String,
    },
    /// What is in it is not what was written.
    #[error(
        "the state file {path} is damaged: {what}; put back a copy of it, or move the file away to start empty"
    )]
    Damaged {
        /// Which file.
        path: String,
        /// How it shows.
        what: String,
    },
    /// A later version wrote it.
    #[error(
        "the state file {path} was written by a newer switchd: it has format {found}, and this version knows up to {}; update switchd, or move the file away to start empty",
        format::FORMAT
    )]
    Newer {
        /// Which file.
        path: String,
        /// Its format.
        found: u32,
    },
    /// A table or a row that this version does not know.
    #[error(
        "the state file {path} has {what}, of which this version of switchd knows nothing; update switchd, or move the file away to start empty"
    )]
    Unknown {
        /// Which file.
        path: String,
        /// What it is.
        what: String,
    },
    /// It holds something this version does not understand.
    #[error(
        "the state file {path} holds what this version of switchd does not understand: {error}; update switchd, or move the file away to start empty"
    )]
    Content {
        /// Which file.
        path: String,
        /// Why.
        error: serde_json::Error,
    },
}

impl Store {
    /// Opens or creates the file and reads what it holds.
    pub fn open(path: &Path) -> Result<(Self, Declared), StoreError> {
        format::guarded(path, || Self::open_checked(path))
    }

    fn open_checked(path: &Path) -> Result<(Self, Declared), StoreError> {
        let shown = path.display().to_string();
        let failed = |error: redb::Error| format::failed(&shown, error);
        let database = format::open(path)?;
        format::check(path, &database)?;
        let kept = read(&database).map_err(failed)?;
        let strange = |error| StoreError::Content { path: shown.clone(), error };
        let mut declared: Declared = match kept {
            None => Declared::default(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(strange)?,
        };
        declared.sets = read_sets(&database).map_err(failed)?.map_err(strange)?;
        match declared.routes.is_empty() {
            true => declared.routes = read_routes(&database).map_err(failed)?.map_err(strange)?,
            // An older version kept them with all else.
            false => move_routes(&database, &declared).map_err(failed)?,
        }
        Ok((
            Self(Some(Kept {
                path: path.to_owned(),
                database: Some(database),
                unsynced: false,
                in_doubt: false,
            })),
            declared,
        ))
    }

    /// Replaces what is kept. On return it is on disk.
    pub fn keep(&mut self, declared: &Declared) -> Result<(), String> {
        let bytes = serde_json::to_vec(declared).map_err(|error| error.to_string())?;
        self.with(|database| write(database, &bytes))
    }

    /// Keeps what `routes` changed of those that they were made of. On return it is on disk.
    pub fn keep_routes(&mut self, routes: &Routes) -> Result<(), String> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            write_routes(&transaction, routes)?;
            Ok(transaction.commit()?)
        })
    }

    /// Keeps where `sets` differ from those that are kept. On return it is on disk.
    pub fn keep_sets(&mut self, sets: &Sets, difference: &Difference) -> Result<(), String> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            write_sets(&transaction, sets, difference)?;
            Ok(transaction.commit()?)
        })
    }

    /// Keeps a change of everything: what is declared, what it changed of routes and of address sets, and that it happened.
    pub fn keep_config(
        &mut self,
        declared: &Declared,
        routes: Option<&Routes>,
        sets: &Difference,
        history: &History,
    ) -> Result<(), String> {
        let bytes = serde_json::to_vec(declared).map_err(|error| error.to_string())?;
        self.with(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(TABLE)?.insert(KEY, bytes.as_slice())?;
            routes.map_or(Ok(()), |routes| write_routes(&transaction, routes))?;
            write_sets(&transaction, &declared.sets, sets)?;
            write_history(&transaction, history)?;
            Ok(transaction.commit()?)
        })
    }

    /// Keeps what became of the history.
    pub fn keep_history(&mut self, history: &History) -> Result<(), String> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            write_history(&transaction, history)?;
            Ok(transaction.commit()?)
        })
    }

    /// What was declared before, and what waits to be confirmed.
    pub fn history(&mut self) -> Result<History, String> {
        let Some(kept) = &mut self.0 else { return Ok(History::default()) };
        let transaction = kept.open()?.begin_read().map_err(|error| error.to_string())?;
        let past: Vec<Past> = rows(&transaction, PAST)?;
        let pending: Vec<Pending> = rows(&transaction, PENDING)?;
        Ok(History::of(past.into(), pending.into_iter().next()))
    }

    /// Keeps what was put into the node's kernel. On return it is on disk.
    pub fn keep_outside(&mut self, left: &Left) -> Result<(), String> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(OUTSIDE)?.insert(KEY, text(left).as_bytes())?;
            Ok(transaction.commit()?)
        })
    }

    /// What was put into the node's kernel.
    pub fn outside(&mut self) -> Result<Left, String> {
        let Some(kept) = &mut self.0 else { return Ok(Left::default()) };
        let transaction = kept.open()?.begin_read().map_err(|error| error.to_string())?;
        Ok(rows(&transaction, OUTSIDE)?.into_iter().next().unwrap_or_default())
    }

    /// Whether anything is kept at all.
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Pools, leases and held addresses.
    pub fn addresses(&mut self) -> Result<Addresses, String> {
        let Some(kept) = &mut self.0 else { return Ok(Addresses::default()) };
        let database = kept.open()?;
        let transaction = database.begin_read().map_err(|error| error.to_string())?;
        let held = rows(&transaction, HELD)?;
        Ok(Addresses { pools: rows(&transaction, POOLS)?, leases: rows(&transaction, LEASES)?, held })
    }

    /// Keeps a change of addresses, and forgets held ones that are free again. On return it is on disk; with `later`, it is so with
    /// the next change of anything, and lost if there is none.
    pub fn keep_addresses(
        &mut self,
        change: &Change,
        freed: &[(Name, IpAddr)],
        later: bool,
    ) -> Result<(), String> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            if later {
                transaction.set_durability(Durability::None)?;
            }
            write_addresses(&transaction, change, freed)?;
            Ok(transaction.commit()?)
        })?;
        self.0.iter_mut().for_each(|kept| kept.unsynced = later);
        Ok(())
    }

    /// What was kept for later is on disk on return.
    pub fn sync(&mut self) -> Result<(), String> {
        match &self.0 {
            Some(kept) if kept.unsynced => self.with(|database| Ok(database.begin_write()?.commit()?)),
            _ => Ok(()),
        }
    }

    /// Whether an error has left it open what of the last changes is on disk; asked once.
    pub fn take_doubt(&mut self) -> bool {
        self.0.as_mut().is_some_and(|kept| std::mem::take(&mut kept.in_doubt))
    }

    /// Writes; whatever goes wrong closes the file.
    fn with(&mut self, write: impl FnOnce(&Database) -> Result<(), redb::Error>) -> Result<(), String> {
        let Some(kept) = &mut self.0 else { return Ok(()) };
        let written = write(kept.open()?);
        // What was kept for later is on disk now as well, or lost.
        kept.unsynced = false;
        written.map_err(|error| {
            kept.database = None;
            kept.in_doubt = true;
            error.to_string()
        })
    }
}

impl Kept {
    fn open(&mut self) -> Result<&Database, String> {
        if self.database.is_none() {
            self.database = Some(create(&self.path).map_err(|error| error.to_string())?);
        }
        self.database.as_ref().ok_or_else(|| "it is closed".to_owned())
    }
}

fn create(path: &Path) -> Result<Database, redb::Error> {
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create(path)?)
}

fn rows<T: DeserializeOwned>(transaction: &redb::ReadTransaction, table: Rows) -> Result<Vec<T>, String> {
    let table = match transaction.open_table(table) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let mut found = Vec::new();
    for row in table.iter().map_err(|error| error.to_string())? {
        let (key, value) = row.map_err(|error| error.to_string())?;
        let value = serde_json::from_slice(value.value());
        found.push(value.map_err(|error| format!("{}: {error}", key.value()))?);
    }
    Ok(found)
}

fn write_routes(transaction: &WriteTransaction, routes: &Routes) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(ROUTES)?;
    for (vrf, place) in routes.changed() {
        let key = text(&(vrf, place.prefix, place.metric));
        match routes.get(vrf, *place) {
            Some(way) => _ = table.insert(key.as_str(), text(&**way).as_bytes())?,
            None => _ = table.remove(key.as_str())?,
        }
    }
    Ok(())
}

fn write_sets(
    transaction: &WriteTransaction,
    sets: &Sets,
    difference: &Difference,
) -> Result<(), redb::Error> {
    if difference.is_empty() {
        return Ok(());
    }
    let (mut kept, mut members) = (transaction.open_table(SETS)?, transaction.open_table(MEMBERS)?);
    for name in &difference.sets {
        match sets.get(name) {
            Some(set) => _ = kept.insert(name.as_str(), text(&(set.owner, set.declared)).as_bytes())?,
            None => _ = kept.remove(name.as_str())?,
        }
    }
    for change in &difference.members {
        let key = text(&(&change.set, change.member));
        match change.is {
            true => _ = members.insert(key.as_str(), &[][..])?,
            false => _ = members.remove(key.as_str())?,
        }
    }
    Ok(())
}

/// The address sets that are kept, each member in a row.
fn read_sets(database: &Database) -> Result<Result<Sets, serde_json::Error>, redb::Error> {
    let transaction = database.begin_read()?;
    let (kept, members) = match (transaction.open_table(SETS), transaction.open_table(MEMBERS)) {
        (Ok(kept), Ok(members)) => (kept, members),
        (Err(redb::TableError::TableDoesNotExist(_)), _) => return Ok(Ok(Sets::default())),
        (Err(error), _) | (_, Err(error)) => return Err(error.into()),
    };
    let mut sets: BTreeMap<Name, Set> = BTreeMap::new();
    for row in kept.iter()? {
        let (key, value) = row?;
        let read = serde_json::from_str(&text(&key.value()))
            .and_then(|name: Name| Ok((name, serde_json::from_slice::<(Owner, bool)>(value.value())?)));
        match read {
            Ok((name, (owner, declared))) => _ = sets.insert(name, Set::new(owner, declared)),
            Err(error) => return Ok(Err(error)),
        }
    }
    for row in members.iter()? {
        match serde_json::from_str::<(Name, Prefix)>(row?.0.value()) {
            Ok((name, member)) => _ = sets.get_mut(&name).map(|set| set.put(member, true)),
            Err(error) => return Ok(Err(error)),
        }
    }
    let mut all = Sets::default();
    sets.into_iter().for_each(|(name, set)| all.insert(name, set));
    Ok(Ok(all))
}

/// An entry never changes once it is there.
fn write_history(transaction: &WriteTransaction, history: &History) -> Result<(), redb::Error> {
    // Digits enough for any number, so that keys are in the order of numbers.
    let key = |past: &Past| format!("{:020}", past.number);
    let (mut table, mut pending) = (transaction.open_table(PAST)?, transaction.open_table(PENDING)?);
    let stays: std::collections::BTreeSet<String> = history.past.iter().map(key).collect();
    table.retain(|key, _| stays.contains(key))?;
    for past in &history.past {
        if table.get(key(past).as_str())?.is_none() {
            table.insert(key(past).as_str(), text(past).as_bytes())?;
        }
    }
    match &history.pending {
        Some(waits) => _ = pending.insert(KEY, text(waits).as_bytes())?,
        None => _ = pending.remove(KEY)?,
    }
    Ok(())
}

fn write_addresses(
    transaction: &WriteTransaction,
    change: &Change,
    freed: &[(Name, IpAddr)],
) -> Result<(), redb::Error> {
    let (mut pools, mut leases) = (transaction.open_table(POOLS)?, transaction.open_table(LEASES)?);
    let mut held = transaction.open_table(HELD)?;
    for row in freed {
        held.remove(text(row).as_str())?;
    }
    match change {
        Change::Pool(pool) => _ = pools.insert(pool.name.as_str(), text(pool).as_bytes())?,
        Change::PoolGone(name) => {
            pools.remove(name.as_str())?;
            held.retain(|_, row| {
                serde_json::from_slice(row).is_ok_and(|(of, _): (Name, IpAddr)| of != *name)
            })?;
        }
        Change::Lease(lease) => {
            leases.insert(key(lease).as_str(), text(lease).as_bytes())?;
            for has in &lease.addresses {
                held.remove(text(&(&lease.pool, has.address.addr())).as_str())?;
            }
        }
        Change::Released(gone) => {
            for lease in gone {
                leases.remove(key(lease).as_str())?;
                for has in &lease.addresses {
                    let row = text(&(&lease.pool, has.address.addr()));
                    held.insert(row.as_str(), row.as_bytes())?;
                }
            }
        }
    }
    Ok(())
}

fn key(lease: &Lease) -> String {
    text(&(&lease.pool, &lease.holder))
}

fn text(value: &impl Serialize) -> String {
    // Our own types to memory: no maps with odd keys, no I/O.
    serde_json::to_string(value).unwrap_or_default()
}

fn read(database: &Database) -> Result<Option<Vec<u8>>, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(TABLE) {
        Ok(table) => Ok(table.get(KEY)?.map(|value| value.value().to_vec())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The routes that are kept, each in a row.
fn read_routes(database: &Database) -> Result<Result<Vec<Route>, serde_json::Error>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(ROUTES) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Ok(Vec::new())),
        Err(error) => return Err(error.into()),
    };
    let mut routes = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        match read_route(key.value(), value.value()) {
            Ok(route) => routes.push(route),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(routes))
}

fn read_route(key: &str, value: &[u8]) -> Result<Route, serde_json::Error> {
    let (vrf, prefix, metric): (Name, Prefix, u32) = serde_json::from_str(key)?;
    Ok(declared(&vrf, Place { prefix, metric }, &serde_json::from_slice::<Way>(value)?))
}

/// Gives each route a row, and takes them out of the value that has all else.
fn move_routes(database: &Database, declared: &Declared) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(ROUTES)?;
        for route in &declared.routes {
            let way = Way::of(route);
            table.insert(text(&(&route.vrf, route.prefix, route.metric)).as_str(), text(&way).as_bytes())?;
        }
        transaction.open_table(TABLE)?.insert(KEY, text(declared).as_bytes())?;
    }
    Ok(transaction.commit()?)
}

fn write(database: &Database, bytes: &[u8]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(TABLE)?.insert(KEY, bytes)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CheckedRoutes, Model};
    use switch_api::{Bridge, Request, RouteApply, RouteDelete, RouteKind};

    fn route(n: u8) -> Route {
        let prefix = Prefix { address: IpAddr::from([10, n, 0, 0]), len: 16 };
        Route { metric: 7, ..Route::new(prefix, RouteKind::Blackhole, Vec::new()) }
    }

    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("switchd-{name}-{}", std::process::id()));
        _ = std::fs::remove_file(&path);
        path
    }

    fn keep(store: &mut Store, model: &mut Model, apply: RouteApply) {
        let routes = CheckedRoutes::after(model, &Request::RouteApply(apply)).unwrap();
        store.keep_routes(routes.routes()).unwrap();
        model.routes = routes.into();
    }

    /// What is kept is what is there, whatever came before; the rest is kept beside it.
    #[test]
    fn each_route_is_kept_by_itself() {
        let path = path("routes");
        let bridge = Request::BridgeAdd(Bridge::new("br0".parse().unwrap()));
        let mut model = Model::default().apply(&bridge).unwrap();
        let (mut store, _) = Store::open(&path).unwrap();
        store.keep(&model.declared()).unwrap();
        let add = (0..9).map(route).collect();
        keep(&mut store, &mut model, RouteApply { add, ..RouteApply::default() });
        let changed = Route { kind: RouteKind::Prohibit, ..route(3) };
        let gone = RouteDelete { prefix: route(5).prefix, vrf: Name::main(), metric: None };
        let apply = RouteApply { delete: vec![gone], replace: vec![changed.clone()], add: Vec::new() };
        keep(&mut store, &mut model, apply);
        store.keep(&model.declared()).unwrap();
        drop(store);
        let (_, declared) = Store::open(&path).unwrap();
        let mut expected: Vec<Route> = (0..9).filter(|n| *n != 5).map(route).collect();
        expected[3] = changed;
        assert_eq!(declared.routes, expected);
        assert_eq!(declared.bridges.len(), 1);
        assert_eq!(Model::from_declared(declared, 0).unwrap().routes, model.routes);
        std::fs::remove_file(path).unwrap();
    }

    /// Routes that an older version kept with everything else are found, once and from then on.
    #[test]
    fn what_an_older_version_kept_is_found() {
        let path = path("older");
        let old = serde_json::json!({ "bridges": [Bridge::new("br0".parse().unwrap())], "routes": [route(1), route(2)] });
        let database = create(&path).unwrap();
        write(&database, old.to_string().as_bytes()).unwrap();
        drop(database);
        for _ in 0..2 {
            let (mut store, declared) = Store::open(&path).unwrap();
            assert_eq!(declared.routes, [route(1), route(2)]);
            store.keep(&declared).unwrap();
        }
        std::fs::remove_file(path).unwrap();
    }
}
