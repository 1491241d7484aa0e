//! In which namespace a port's device was made. A path is no name for it: by way of `/proc/PID` it leads to another pod, or to the node
//! itself, once its process has ended and the kernel has given the number to another. So a port whose device was made once has it made again
//! nowhere else, by this daemon and by the next; and where a namespace is asked for, nothing is ever made in the daemon's own.

use super::clocks::Clocks;
use super::daemon::{Daemon, PortLife};
use crate::config::snapshot::PortId;
use crate::port::tap::namespace;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::OnceLock;
use switch_api::{ApiError, Code, Name};

/// The daemon's own namespace.
const OWN: &str = "/proc/self/ns/net";
/// What is below it has the numbers of processes for its names: after a boot they are others'.
const PROCESSES: &str = "/proc";

/// A namespace, as none but it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Home {
    /// In which boot; the rest says nothing in another.
    boot_id: String,
    /// None: the kernel has none (before Linux 5.14), and the file counts.
    cookie: Option<u64>,
    /// Device and number of its file.
    file: (u64, u64),
}

impl Home {
    /// The namespace that the calling thread is in, whose file is that.
    pub fn here(file: &Metadata) -> io::Result<Self> {
        // A socket of whatever kind is of its thread's namespace.
        let cookie = namespace::cookie(UnixDatagram::unbound()?).ok();
        Ok(Self { boot_id: Clocks::now().boot_id, cookie, file: (file.dev(), file.ino()) })
    }

    /// The daemon's own; none if it cannot be looked at. Not to be asked for on a thread that is in another.
    pub fn own() -> Option<&'static Self> {
        static OWN_HOME: OnceLock<Option<Home>> = OnceLock::new();
        OWN_HOME.get_or_init(|| std::fs::metadata(OWN).and_then(|file| Self::here(&file)).ok()).as_ref()
    }

    fn is(&self, other: &Self) -> bool {
        match (self.cookie, other.cookie) {
            (Some(one), Some(other)) => one == other,
            _ => self.file == other.file,
        }
    }

    /// Refuses what `path` leads to for a port whose device was made in `known`, if that is known, in a daemon that is in `own`.
    pub fn suits(&self, path: &str, known: Option<&Self>, own: Option<&Self>) -> Result<(), ApiError> {
        if own.is_some_and(|own| self.is(own)) {
            let text = format!("the namespace {path} is the daemon's own; nothing of the port is made there");
            return Err(ApiError::new(Code::InvalidParams, text).field("netns").hint(
                "name a pod's; for a device in the daemon's namespace add the port without one, or a host port",
            ));
        }
        let is_other = known.is_some_and(|known| match known.boot_id == self.boot_id {
            true => !self.is(known),
            false => Path::new(path).starts_with(PROCESSES),
        });
        if is_other {
            let text = format!(
                "the namespace {path} is another than the one that the port's device was made in; nothing of it is made there: if this one is meant, delete the port and add it again"
            );
            return Err(ApiError::new(Code::NotFound, text).field("netns").hint(
                "its pod has ended, or its namespace was made anew: `switch-ctl port delete`, and add it",
            ));
        }
        Ok(())
    }
}

/// The namespaces of all ports whose devices were made in one.
#[derive(Clone, Debug, Default)]
pub(super) struct Homes {
    all: BTreeMap<Name, Home>,
    /// Whose is not on disk as it is here.
    unkept: BTreeSet<Name>,
}

impl Homes {
    /// Those that were kept, but for ports that nobody declares any more.
    pub fn of(kept: BTreeMap<Name, Home>, is_declared: impl Fn(&Name) -> bool) -> Self {
        let mut homes = Self { all: kept, unkept: BTreeSet::new() };
        let gone: Vec<Name> = homes.all.keys().filter(|name| !is_declared(name)).cloned().collect();
        gone.iter().for_each(|name| homes.put(name, None));
        homes
    }

    pub fn get(&self, port: &Name) -> Option<&Home> {
        self.all.get(port)
    }

    /// A port's is that now.
    pub fn put(&mut self, port: &Name, home: Option<Home>) {
        if self.all.get(port) == home.as_ref() {
            return;
        }
        self.unkept.insert(port.clone());
        match home {
            Some(home) => _ = self.all.insert(port.clone(), home),
            None => _ = self.all.remove(port),
        }
    }

    /// What is to be written, by port; none: it goes.
    pub fn unkept(&self) -> impl Iterator<Item = (&Name, Option<&Home>)> {
        self.unkept.iter().map(|name| (name, self.all.get(name)))
    }
}

impl Daemon {
    /// A port was opened: where its device is counts from now on.
    pub(super) fn settle(&mut self, id: PortId, name: &Name) {
        let Some(PortLife::Up(door)) = self.ports.get(&id) else { return };
        self.homes.put(name, door.home().cloned());
    }

    /// Keeps where devices are; with `later`, on disk with the next change of anything.
    pub(super) fn keep_homes(&mut self, later: bool) {
        match self.store.keep_homes(&self.homes, later) {
            Ok(()) => self.homes.unkept.clear(),
            Err(error) => {
                tracing::error!("in which namespaces ports' devices are could not be kept: {error}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(boot_id: &str, cookie: Option<u64>, inode: u64) -> Home {
        Home { boot_id: boot_id.into(), cookie, file: (4, inode) }
    }

    #[test]
    fn a_file_of_the_same_number_is_not_the_same_namespace() {
        let known = home("a", Some(1 << 60), 7);
        let is = |found: &Home, path| found.suits(path, Some(&known), None).is_ok();
        assert!(is(&known, "/proc/7/ns/net"));
        assert!(!is(&home("a", Some(2 << 60), 7), "/proc/7/ns/net"));
        assert!(!is(&home("a", Some(2 << 60), 7), "/run/netns/a"));
        // Where there are no cookies the number is all that there is.
        assert!(is(&home("a", None, 7), "/proc/7/ns/net") && !is(&home("a", None, 8), "/proc/7/ns/net"));
        let refused = home("a", None, 8).suits("/proc/7/ns/net", Some(&known), None).unwrap_err();
        assert!(refused.code == Code::NotFound && refused.message.contains("another"), "{refused:?}");
        // A port that is down shows the message alone.
        assert!(refused.message.contains("delete the port"), "{refused:?}");
    }

    #[test]
    fn after_a_boot_a_name_is_believed_and_a_process_is_not() {
        let (known, found) = (home("a", Some(1 << 60), 7), home("b", Some(1 << 60), 7));
        assert!(found.suits("/run/netns/a", Some(&known), None).is_ok());
        assert!(found.suits("/process/a", Some(&known), None).is_ok());
        assert!(found.suits("/proc/7/ns/net", Some(&known), None).is_err());
        assert!(found.suits("/proc/7/ns/net", None, None).is_ok(), "an older version did not note it");
    }

    #[test]
    fn the_daemons_own_is_refused_whatever_is_known() {
        let own = Home::own().unwrap();
        for known in [None, Some(own)] {
            let refused = own.suits("/proc/1/ns/net", known, Some(own)).unwrap_err();
            assert_eq!((refused.code, refused.data.field.as_deref()), (Code::InvalidParams, Some("netns")));
        }
    }

    #[test]
    fn what_changed_is_to_be_kept() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let one = home("a", Some(1), 7);
        let kept = BTreeMap::from([(name("a"), one.clone()), (name("gone"), one.clone())]);
        let mut homes = Homes::of(kept, |port| port.as_str() == "a");
        let unkept = |homes: &Homes| {
            homes.unkept().map(|(name, home)| (name.to_string(), home.is_some())).collect::<Vec<_>>()
        };
        assert_eq!(unkept(&homes), [("gone".to_owned(), false)]);
        homes.put(&name("a"), Some(one));
        homes.put(&name("b"), None);
        assert_eq!(unkept(&homes).len(), 1, "nothing is different");
        homes.put(&name("a"), Some(home("b", Some(1), 7)));
        assert_eq!(unkept(&homes), [("a".to_owned(), true), ("gone".to_owned(), false)]);
    }
}
