//! Whose the programs are that stay on devices when their daemon ends. A program that belongs to no port, because its daemon was killed
//! before the port was kept or after it was deleted, drops what comes for ever (its dead man is dead): it is taken off at the next start,
//! if that can know. It can where it has a state file, in which all its ports are, and where none but daemons with that file have pinned
//! in the folder since there was nobody's program in it. The folder says so by a mark, `state-…`, that every start makes its own or removes.
//!
//! Else the program may guard a pod's port, of another daemon or of one that is declared to this one in a moment, and without it the pod
//! would speak to the node's kernel past all policies: it is told of and left alone. Adding a port on its device takes it over.

use super::daemon::Daemon;
use crate::port::xdp::attach::{self, Pin};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use switch_api::PortKind;

/// With what a mark begins; what follows is which state file it is.
const MARK: &str = "state-";

/// The folder of the pins, in a bpffs.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    /// Locked, shared with all daemons that pin there, while they live.
    lock: File,
}

impl Pins {
    /// Says that a daemon pins there, before it does.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let lock = File::open(directory)?;
        flock(&lock, FlockOperation::LockShared)?;
        Ok(Self { directory: directory.to_owned(), lock })
    }

    /// Takes off what belongs to no port, if it is known to be ours: `state` is the state file's identity. `is_declared`: a device has a port.
    fn clear(&self, state: Option<&str>, is_declared: impl Fn(&str) -> bool) -> io::Result<()> {
        // It fails if another daemon lives, and lets go of what there was.
        let is_alone = flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        let cleared = self.clear_as(state.filter(|_| is_alone), is_declared);
        flock(&self.lock, FlockOperation::LockShared)?;
        cleared
    }

    fn clear_as(&self, state: Option<&str>, is_declared: impl Fn(&str) -> bool) -> io::Result<()> {
        let mark = state.map(|state| format!("{MARK}{state}"));
        let mut left = attach::pins(&self.directory)?;
        left.retain(|pin| !is_declared(&pin.device));
        let marks = self.marks()?;
        let is_ours = mark.is_some() && marks.iter().eq(&mark);
        for pin in &left {
            if is_ours { take_off(pin) } else { tell(pin) }
        }
        let mark = mark.filter(|_| is_ours || left.is_empty());
        for other in marks.iter().filter(|other| Some(*other) != mark.as_ref()) {
            std::fs::remove_dir(self.directory.join(other))?;
        }
        match mark {
            Some(mark) if !marks.contains(&mark) => std::fs::create_dir(self.directory.join(mark)),
            _ => Ok(()),
        }
    }

    fn marks(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<io::Result<Vec<_>>>()?.into_iter();
        Ok(names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with(MARK)).collect())
    }
}

fn take_off(pin: &Pin) {
    let device = &pin.device;
    match std::fs::remove_file(&pin.path) {
        Ok(()) => tracing::info!(
            device,
            "an XDP program that an earlier daemon left there, and that belongs to no port, was taken off"
        ),
        Err(error) => tracing::warn!(
            device,
            "an XDP program that belongs to no port stays: {}: {error}",
            pin.path.display()
        ),
    }
}

fn tell(pin: &Pin) {
    tracing::warn!(
        device = pin.device,
        "an XDP program that another daemon left there drops or passes what comes: add a port on the device to take it over, or remove {}",
        pin.path.display()
    );
}

impl Daemon {
    /// Once all that is declared at the start is: what to do with programs of no port.
    pub fn clear_pins(&self, pins: &Pins) {
        let device = |kind: &PortKind| match kind {
            PortKind::Xdp { device, .. } => Some(device.clone()),
            _ => None,
        };
        let declared: BTreeSet<String> =
            self.model.ports.values().filter_map(|port| device(&port.object.kind)).collect();
        let state = self.store.identity();
        if let Err(error) = pins.clear(state.as_deref(), |device| declared.contains(device)) {
            tracing::warn!("programs that belong to no port may be on devices: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ordinary folder: all that matters is the names in it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("switchd-pins-{name}-{}", std::process::id()));
            _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn pin(&self, device: &str) {
            std::fs::write(attach::pin_path(&self.0, device, 7), "").unwrap();
        }

        /// A daemon starts, with a state file or without, that knows ports on these devices; which have a pin afterwards.
        fn start(&self, state: Option<&str>, declared: &[&str]) -> Vec<String> {
            let pins = Pins::open(&self.0).unwrap();
            pins.clear(state, |device| declared.contains(&device)).unwrap();
            self.left()
        }

        fn left(&self) -> Vec<String> {
            let mut left: Vec<_> = attach::pins(&self.0).unwrap().into_iter().map(|pin| pin.device).collect();
            left.sort();
            left
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_a_daemon_with_the_same_state_left_is_taken_off() {
        let folder = Folder::new("same");
        folder.start(Some("one"), &[]);
        ["pod1", "eth0.100"].iter().for_each(|device| folder.pin(device));
        assert_eq!(folder.start(Some("one"), &["eth0.100"]), ["eth0.100"]);
        assert_eq!(folder.start(Some("one"), &[]), [""; 0]);
    }

    #[test]
    fn what_may_be_anothers_stays_and_the_folder_is_nobodys_as_long_as_it_is_there() {
        let folder = Folder::new("other");
        folder.start(Some("one"), &[]);
        folder.pin("pod1");
        for state in [None, Some("two"), Some("two"), Some("one"), None] {
            assert_eq!(folder.start(state, &[]), ["pod1"], "{state:?}");
        }
        // With a port it is a port's, and nothing else is there.
        folder.start(Some("one"), &["pod1"]);
        folder.pin("pod2");
        assert_eq!(folder.start(Some("one"), &["pod1"]), ["pod1"]);
        // Somebody without a state was here, if only for a moment.
        folder.start(None, &[]);
        folder.pin("pod2");
        assert_eq!(folder.start(Some("one"), &["pod1"]), ["pod1", "pod2"]);
    }

    #[test]
    fn beside_another_daemon_nothing_is_anybodys() {
        let folder = Folder::new("beside");
        folder.start(Some("one"), &[]);
        let beside = Pins::open(&folder.0).unwrap();
        folder.pin("pod1");
        assert_eq!(folder.start(Some("one"), &[]), ["pod1"]);
        drop(beside);
        assert_eq!(folder.start(Some("one"), &[]), ["pod1"], "it may have been the other one's");
    }
}
