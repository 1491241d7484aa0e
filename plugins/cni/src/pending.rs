//! Deletions that wait for the daemon. A runtime that cannot delete a container's network keeps the container,
//! or forgets the network; so when the daemon is down, what is to be deleted is written to a file and synced
//! before DEL says that it is done, and whoever reaches the daemon next makes good on it first (ADR 0009).

use crate::conf::Conf;
use crate::refusal::{IO_FAILURE, Refusal, TRY_AGAIN_LATER};
use crate::{ipam, switch};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
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
    if files(directory)?.len() >= PENDING_MAX {
        return Err(std::io::Error::other(format!("{PENDING_MAX} deletions wait already")));
    }
    let path = directory.join(format!("{}.json", switch::name(holder, 0)));
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(holder)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    File::open(directory)?.sync_all()
}

/// Makes good on what waits. What cannot be deleted now goes on waiting; that is an error only for whoever is
/// about to attach `next`, which the old deletion would take away again.
pub fn make_good(client: &mut Client, conf: &Conf, next: Option<&Holder>) -> Result<(), Refusal> {
    let directory = &conf.state_dir;
    let unreadable = |error: std::io::Error| {
        let text = format!("deletions that wait in {} cannot be read: {error}", directory.display());
        Refusal::new(IO_FAILURE, text).details("see \"stateDir\" in the network configuration")
    };
    if files(directory).map_err(unreadable)?.is_empty() {
        return Ok(());
    }
    let _lock = lock(directory).map_err(unreadable)?;
    for path in files(directory).map_err(unreadable)? {
        let bytes = fs::read(&path).map_err(unreadable)?;
        // One that cannot be understood was not written by us: renames are whole.
        if let Ok(holder) = serde_json::from_slice::<Holder>(&bytes)
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

fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    Ok(paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect())
}

fn lock(directory: &Path) -> std::io::Result<File> {
    let file = File::create(directory.join("lock"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}
