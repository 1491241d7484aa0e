//! What was declared, kept in an embedded store (`redb`): one value, replaced whole, so a crash leaves the
//! old one or the new one.

use crate::config::model::Declared;
use redb::{Database, ReadableDatabase, TableDefinition};
use std::path::Path;

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("declared");
const KEY: &str = "v1";

/// The store; none keeps nothing.
#[derive(Debug, Default)]
pub struct Store(Option<Database>);

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
        Ok((Self(Some(database)), declared))
    }

    /// Replaces what is kept. On return it is on disk.
    pub fn keep(&self, declared: &Declared) -> Result<(), String> {
        let Some(database) = &self.0 else { return Ok(()) };
        let bytes = serde_json::to_vec(declared).map_err(|error| error.to_string())?;
        write(database, &bytes).map_err(|error| error.to_string())
    }
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
