//! What was declared and what was leased, kept in an embedded store (`redb`). A change is one transaction, which writes what is
//! different and nothing else: a crash leaves the old or the new.
//!
//! | module | what |
//! |---|---|
//! | [`objects`] | ports, policies, lists, rules of translation: a row each; the rest of what is declared |
//! | [`routes`] | declared routes |
//! | [`sets`] | address sets and their members |
//! | [`addresses`] | pools and leases |
//! | [`homes`] | in which namespaces ports' devices were made |
//! | [`mod@format`] | which version wrote a file, and whether it is one |
//! | [`error`] | why a file cannot be used |
//!
//! After an error of the disk the store takes nothing more until it is opened again, which is done before the
//! next use: a disk that was full and has room again needs no restart.

mod addresses;
mod error;
mod format;
mod homes;
mod objects;
mod routes;
mod sets;
#[cfg(test)]
mod tests;

use super::history::{History, Past, Pending};
use super::home::{Home, Homes};
use super::outside::Left;
use crate::acl::sets::{Difference, Sets};
use crate::config::Model;
use crate::config::model::Declared;
use crate::config::routes::Routes;
use crate::ipam::{Change, Kept as Addresses};
pub use error::StoreError;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use switch_api::Name;

/// Pages of the file that are kept in memory: what a change touches, many times over. The library's own default is
/// a GiB, which a million routes would fill.
const CACHE_BYTES: usize = 4 << 20;

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;

/// What there is little of, as one value.
const TABLE: Rows = TableDefinition::new("declared");
const KEY: &str = "v1";
/// Objects by kind and name.
const OBJECTS: Rows = TableDefinition::new("objects-v1");
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
/// In which namespaces ports' devices were made, by port.
const HOMES: Rows = TableDefinition::new("port-namespaces-v1");

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
    /// The one value in which all is that has no rows, if it and the rows are known to be those of the model in force. Before the first
    /// change they are not, for ports may have other numbers since the start, nor after an error.
    value: Option<Vec<u8>>,
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
        let found = format::check(path, &database)?;
        let kept = read(&database).map_err(failed)?;
        let strange = |error| StoreError::Content { path: shown.clone(), error };
        let mut declared: Declared = match kept {
            None => Declared::default(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(strange)?,
        };
        match found < format::WITH_ROWS {
            true => bring_up(&database, &declared).map_err(failed)?,
            false => objects::read(&database, &mut declared).map_err(failed)?.map_err(strange)?,
        }
        if found < format::FORMAT {
            format::raise(&database).map_err(failed)?;
        }
        declared.sets = sets::read(&database).map_err(failed)?.map_err(strange)?;
        // A version that is old enough kept them with all else.
        if declared.routes.is_empty() {
            declared.routes = routes::read(&database).map_err(failed)?.map_err(strange)?;
        }
        let (path, database) = (path.to_owned(), Some(database));
        let kept = Kept { path, database, unsynced: false, in_doubt: false, value: None };
        Ok((Self(Some(kept)), declared))
    }

    /// Which file it is, for as long as it is there: another one of the same name has another. None keeps nothing.
    pub fn identity(&self) -> Option<String> {
        let kept = self.0.as_ref()?;
        let metadata = std::fs::metadata(&kept.path).ok()?;
        // Numbers of files are given out again; not every file system knows when one was made.
        let made = metadata.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        let made = made.map_or(0, |made| made.as_nanos());
        Some(format!("{:x}-{:x}-{made:x}", metadata.dev(), metadata.ino()))
    }

    /// Keeps where `after` differs from `before`, which is the model in force. On return it is on disk.
    pub fn keep(&mut self, before: &Model, after: &Model) -> Result<(), String> {
        self.keep_objects(before, after, None::<fn(&_) -> _>)
    }

    fn keep_objects(
        &mut self,
        before: &Model,
        after: &Model,
        also: Option<impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>>,
    ) -> Result<(), String> {
        let Some(kept) = &mut self.0 else { return Ok(()) };
        let change = objects::Change::of(before, after, kept.value.as_deref());
        if change.is_empty() && also.is_none() {
            return Ok(());
        }
        let value = kept.value.take();
        self.with(|database| {
            let transaction = database.begin_write()?;
            change.write(&transaction)?;
            also.map_or(Ok(()), |also| also(&transaction))?;
            Ok(transaction.commit()?)
        })?;
        if let Some(kept) = &mut self.0 {
            kept.value = change.into_value().or(value);
        }
        Ok(())
    }

    /// Keeps what `routes` changed of those that they were made of. On return it is on disk.
    pub fn keep_routes(&mut self, routes: &Routes) -> Result<(), String> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            routes::write(&transaction, routes)?;
            Ok(transaction.commit()?)
        })
    }

    /// Keeps where `sets` differ from those that are kept. On return it is on disk.
    pub fn keep_sets(&mut self, sets: &Sets, difference: &Difference) -> Result<(), String> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            sets::write(&transaction, sets, difference)?;
            Ok(transaction.commit()?)
        })
    }

    /// Keeps a change of everything: what is declared, what it changed of routes and of address sets, and that it happened.
    pub fn keep_config(
        &mut self,
        before: &Model,
        after: &Model,
        routes: Option<&Routes>,
        sets: &Difference,
        history: &History,
    ) -> Result<(), String> {
        let also = |transaction: &WriteTransaction| {
            routes.map_or(Ok(()), |routes| routes::write(transaction, routes))?;
            sets::write(transaction, &after.sets, sets)?;
            write_history(transaction, history)
        };
        self.keep_objects(before, after, Some(also))
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

    /// Keeps what of `homes` is not kept yet: on disk on return, or with `later` with the next change of anything.
    pub(super) fn keep_homes(&mut self, homes: &Homes, later: bool) -> Result<(), String> {
        if homes.unkept().next().is_none() {
            return Ok(());
        }
        self.with_later(later, |transaction| homes::write(transaction, homes))
    }

    /// In which namespaces ports' devices were made.
    pub(super) fn homes(&mut self) -> Result<BTreeMap<Name, Home>, String> {
        let Some(kept) = &mut self.0 else { return Ok(BTreeMap::new()) };
        homes::read(&kept.open()?.begin_read().map_err(|error| error.to_string())?)
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
        self.with_later(later, |transaction| addresses::write(transaction, change, freed))
    }

    /// Writes, with `later` to the disk only with what is written next.
    fn with_later(
        &mut self,
        later: bool,
        write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), String> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            if later {
                transaction.set_durability(Durability::None)?;
            }
            write(&transaction)?;
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
            (kept.database, kept.value) = (None, None);
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

/// Gives a file of an older format this one: what was one value gets its rows.
fn bring_up(database: &Database, declared: &Declared) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    objects::move_in(&transaction, declared)?;
    routes::write_all(&transaction, &declared.routes)?;
    format::write(&transaction, format::WITH_ROWS)?;
    Ok(transaction.commit()?)
}
