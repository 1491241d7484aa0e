//! Deletions that wait for the daemon. A runtime that cannot delete a container's network keeps the container,
//! or forgets the network; so when the daemon is down, what is to be deleted is written to a file and synced
//! before DEL says that it is done, and whoever reaches the daemon next makes good on it first (ADR 0009).

use crate::conf::Conf;
use crate::refusal::{IO_FAILURE, Refusal, TRY_AGAIN_LATER};
use crate::{ipam, notes, switch};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::path::Path;
use switch_api::{ApiError, Client, Holder};

/// Most deletions that wait: more than a node has ports. Beyond it something else is wrong, and the runtime
/// is told to come back.
const PENDING_MAX: usize = 4096;

/// Writes a deletion down. On return it is on disk.
pub fn remember(conf: &Conf, holder: &Holder) -> Result<(), Refusal> {
    let directory = &conf.state_dir;
    write(directory, holder).map_err(|error| {
        let text = format!(
            "the daemon is down, and the deletion could not be kept in {}: {error}",
            directory.display()
        );
        Refusal::new(TRY_AGAIN_LATER, text)
            .details("start switchd, or make room and give rights there (\"stateDir\")")
    })
}

fn write(directory: &Path, holder: &Holder) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    let _lock = lock(directory)?;
    if notes::files(directory)?.len() >= PENDING_MAX {
        return Err(std::io::Error::other(format!("{PENDING_MAX} deletions wait already")));
    }
    notes::write(directory, holder)
}

/// Makes good on what waits. What cannot be deleted now goes on waiting; that is an error only for whoever is
/// about to attach `next`, which the old deletion would take away again.
pub fn make_good(client: &mut Client, conf: &Conf, next: Option<&Holder>) -> Result<(), Refusal> {
    let directory = &conf.state_dir;
    let unreadable = |error: std::io::Error| {
        let text = format!("deletions that wait in {} cannot be read: {error}", directory.display());
        Refusal::new(IO_FAILURE, text).details("see \"stateDir\" in the network configuration")
    };
    if notes::files(directory).map_err(unreadable)?.is_empty() {
        return Ok(());
    }
    let _lock = lock(directory).map_err(unreadable)?;
    for path in notes::files(directory).map_err(unreadable)? {
        if let Some(holder) = notes::read(&path).map_err(unreadable)?
            && let Err(error) = delete(client, &holder)
        {
            match next == Some(&holder) {
                true => return Err(switch::down(error).and("an earlier deletion of it is still to be done")),
                false => continue,
            }
        }
        fs::remove_file(&path).map_err(unreadable)?;
    }
    Ok(())
}

/// Port and lease; neither is no error.
pub fn delete(client: &mut Client, holder: &Holder) -> Result<(), ApiError> {
    switch::remove(client, holder)?;
    ipam::release(client, holder).map(drop)
}

fn lock(directory: &Path) -> std::io::Result<File> {
    let file = File::create(directory.join("lock"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}
