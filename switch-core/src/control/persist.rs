//! What was declared and what was leased, kept in an embedded store (`redb`). What was declared is one value,
//! replaced whole; leases are a row each. A change is one transaction: a crash leaves the old or the new.
//!
//! After an error of the disk the store takes nothing more until it is opened again, which is done before the
//! next use: a disk that was full and has room again needs no restart.

use crate::config::model::Declared;
use crate::ipam::{Change, Kept as Addresses};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use switch_api::{Lease, Name};

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;

const TABLE: Rows = TableDefinition::new("declared");
const KEY: &str = "v1";
/// Pools by name.
const POOLS: Rows = TableDefinition::new("ipam-pools-v1");
/// Leases by pool and holder.
const LEASES: Rows = TableDefinition::new("ipam-leases-v1");
/// Released addresses by pool and address; they are forgotten when they are free again.
const HELD: Rows = TableDefinition::new("ipam-held-v1");

/// The store; none keeps nothing.
#[derive(Debug, Default)]
pub struct Store(Option<Kept>);

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// None: it was closed after an error.
    database: Option<Database>,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// redb's reason.
    #[error("the state file {path} cannot be used: {error}")]
    Database {
        /// Which file.
        path: String,
        /// Why.
        error: Box<redb::Error>,
    },
    /// It holds something this version does not know.
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
        let shown = path.display().to_string();
        let failed = |error: redb::Error| StoreError::Database { path: shown.clone(), error: error.into() };
        let database = Database::create(path).map_err(|error| failed(error.into()))?;
        let kept = read(&database).map_err(failed)?;
        let declared = match kept {
            None => Declared::default(),
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| StoreError::Content { path: shown.clone(), error })?,
        };
        Ok((Self(Some(Kept { path: path.to_owned(), database: Some(database) })), declared))
    }

    /// Replaces what is kept. On return it is on disk.
    pub fn keep(&mut self, declared: &Declared) -> Result<(), String> {
        let bytes = serde_json::to_vec(declared).map_err(|error| error.to_string())?;
        self.with(|database| write(database, &bytes))
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

    /// Keeps a change of addresses, and forgets held ones that are free again. On return it is on disk.
    pub fn keep_addresses(&mut self, change: &Change, freed: &[(Name, IpAddr)]) -> Result<(), String> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            write_addresses(&transaction, change, freed)?;
            Ok(transaction.commit()?)
        })
    }

    /// Writes; whatever goes wrong closes the file.
    fn with(&mut self, write: impl FnOnce(&Database) -> Result<(), redb::Error>) -> Result<(), String> {
        let Some(kept) = &mut self.0 else { return Ok(()) };
        let written = write(kept.open()?);
        written.map_err(|error| {
            kept.database = None;
            error.to_string()
        })
    }
}

impl Kept {
    fn open(&mut self) -> Result<&Database, String> {
        if self.database.is_none() {
            self.database = Some(Database::create(&self.path).map_err(|error| error.to_string())?);
        }
        self.database.as_ref().ok_or_else(|| "it is closed".to_owned())
    }
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

fn write(database: &Database, bytes: &[u8]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(TABLE)?.insert(KEY, bytes)?;
    transaction.commit()?;
    Ok(())
}
