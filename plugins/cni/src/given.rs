//! Whom another plugin has given addresses. One that does not know GC (none before CNI 1.1.0 does, Debian's among them) lets go of them by DEL
//! alone, one attachment at a time; and a container that was killed between two steps has no port that would tell of it. So an attachment is
//! noted before addresses are asked for, and crossed out when they are given back (ADR 0040).
//!
//! Who is about one attachment has it to itself: a second ADD of it would be refused by such a plugin, and what it then took back would be the first one's.

use crate::conf::{Conf, Ipam};
use crate::notes;
use crate::refusal::{IO_FAILURE, Refusal};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use switch_api::Holder;

/// How long somebody waits for another who is about the same attachment: as long as a plugin is waited for.
const PATIENCE: Duration = crate::delegate::PATIENCE;
/// How often he looks.
const LOOK: Duration = Duration::from_millis(10);

/// Beside the deletions that wait, which are files of the state directory itself. There are no more than attachments of the node.
fn directory(conf: &Conf) -> PathBuf {
    conf.state_dir.join("given")
}

/// Notes an attachment. On return it is on disk.
pub fn note(conf: &Conf, holder: &Holder) -> Result<(), Refusal> {
    let directory = directory(conf);
    // One that is asked again is noted already.
    if is_noted(conf, holder) {
        return Ok(());
    }
    notes::write(&directory, holder).map_err(|error| {
        let text = format!("who is given addresses could not be noted in {}: {error}", directory.display());
        Refusal::new(IO_FAILURE, text).details(
            "make room and give rights there (\"stateDir\"): GC finds what is left over by these notes",
        )
    })
}

/// Whether an attachment is noted.
pub fn is_noted(conf: &Conf, holder: &Holder) -> bool {
    notes::of(&directory(conf), holder).is_file()
}

/// Crosses an attachment out. One that stays noted is asked about again by GC, which does no harm.
pub fn forget(conf: &Conf, holder: &Holder) {
    _ = fs::remove_file(notes::of(&directory(conf), holder));
}

/// An attachment that nobody else is about, until it is dropped. The file goes with the note, and stays with whoever was killed.
#[derive(Debug)]
pub struct Turn {
    _file: File,
    path: PathBuf,
    note: PathBuf,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.note.exists() {
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Waits until nobody else is about an attachment; none if nobody but the daemon gives it addresses, if it takes too long, or nothing can be
/// written there: who is to be noted is told of that then, and a deletion goes on.
pub fn turn(conf: &Conf, holder: &Holder) -> Option<Turn> {
    matches!(conf.ipam, Ipam::Delegate(_)).then(|| wait(conf, holder).ok())?
}

fn wait(conf: &Conf, holder: &Holder) -> io::Result<Turn> {
    let directory = directory(conf);
    let note = notes::of(&directory, holder);
    let path = note.with_extension("lock");
    fs::create_dir_all(&directory)?;
    let begun = Instant::now();
    loop {
        let file = File::create(&path)?;
        let is_free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Whoever had it before may have taken the file away: then it is another one that counts.
        let is_named = || {
            fs::metadata(&path).is_ok_and(|named| file.metadata().is_ok_and(|own| named.ino() == own.ino()))
        };
        if is_free && is_named() {
            // A plugin that we ask, and that goes on when we are killed, has it as long as it runs: what it then reserves is found.
            fcntl_setfd(&file, FdFlags::empty())?;
            return Ok(Turn { _file: file, path, note });
        }
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::from(ErrorKind::TimedOut));
        }
        std::thread::sleep(LOOK);
    }
}

/// Takes away what whoever was killed left beside the notes.
pub fn sweep(conf: &Conf) {
    for path in fs::read_dir(directory(conf)).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let is_lock = path.extension().is_some_and(|extension| extension == "lock");
        if !is_lock || path.with_extension("json").exists() {
            continue;
        }
        // Whoever is about to note something has it.
        let is_idle = |file: &File| flock(file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if File::open(&path).is_ok_and(|file| is_idle(&file) && fs::remove_file(&path).is_ok()) {
            _ = fs::remove_file(path.with_extension("new"));
        }
    }
}

/// The attachments of a network that are noted.
pub fn noted(conf: &Conf) -> Result<Vec<Holder>, Refusal> {
    let directory = directory(conf);
    let read = || -> io::Result<Vec<Holder>> {
        let mut all = Vec::new();
        for path in notes::files(&directory)? {
            match notes::read(&path) {
                Ok(holder) => all.extend(holder.filter(|holder| holder.network == conf.network)),
                // Its DEL was faster.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    };
    read().map_err(|error| {
        let text = format!(
            "the notes of who was given addresses in {} cannot be read: {error}",
            directory.display()
        );
        Refusal::new(IO_FAILURE, text).details("see \"stateDir\" in the network configuration")
    })
}
