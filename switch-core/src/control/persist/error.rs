//! Why a state file cannot be used, and what to do about it.

use super::format;

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
