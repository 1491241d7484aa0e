//! The XDP program on a device: attach, pin, adopt, detach.
//!
//! The link is pinned in a bpffs of the daemon's, so that the program outlives the daemon and its dead-man
//! timer decides what becomes of the traffic. A new daemon finds the pin and swaps its own program into
//! the same link: no frame passes unguarded in between. A program that is not ours is left alone.

use super::networks::Networks;
use super::program::{Dropped, LoadError, Settings, Shared, chain};
use crate::config::taken::{SharedPorts, Taken};
use aya::maps::MapError;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode as AyaMode};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use switch_api::WhenDead;

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The driver.
    Native,
    /// The stack, on a socket buffer.
    Generic,
}

/// Why a program is not on its device.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else's program is there.
    #[error("another XDP program is attached to this device")]
    Foreign,
    /// The device or its driver does not take the program in this hook.
    #[error("the device does not take an XDP program ({hook:?}): {error}")]
    Refused {
        /// Where it was tried.
        hook: Hook,
        /// The kernel's answer.
        error: io::Error,
    },
    /// There is no program, or no room in it.
    #[error(transparent)]
    Program(#[from] LoadError),
    /// The link could not be pinned.
    #[error("the XDP link could not be pinned at {path}: {error}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        error: String,
    },
}

/// A program on a device. Dropping it leaves the program where it is, without sockets; see [`Attached::detach`].
pub struct Attached {
    program: Shared,
    ifindex: u32,
    settings: Settings,
    /// Of its queues, in the program's maps.
    places: Range<u32>,
    networks: Option<Networks>,
    /// None once it is off.
    link: Option<FdLink>,
    pin: PathBuf,
    /// Who runs it.
    pub hook: Hook,
    /// An earlier daemon's link was taken over.
    pub adopted: bool,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Attached").field("pin", &self.pin).field("hook", &self.hook).finish_non_exhaustive()
    }
}

/// With what the names of pinned links begin.
const PINNED: &str = "link-";

/// A link that is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The device it was attached to, by the name it had.
    pub device: String,
    /// And its index.
    pub ifindex: u32,
    /// Where.
    pub path: PathBuf,
}

/// Where the link of a device is pinned: by name and index, so that a new device of an old name is not
/// taken for the old one. A bpffs has no dots in its names (kernel/bpf/inode.c), and devices no colons in theirs: one stands for the other.
pub fn pin_path(directory: &Path, device: &str, ifindex: u32) -> PathBuf {
    directory.join(format!("{PINNED}{}-{ifindex}", device.replace('.', ":")))
}

/// The device of a pin, by the name of that.
fn device_of(name: &str) -> Option<(String, u32)> {
    let (device, ifindex) = name.strip_prefix(PINNED)?.rsplit_once('-')?;
    Some((device.replace(':', "."), ifindex.parse().ok()?))
}

/// All links that are pinned in a directory.
pub fn pins(directory: &Path) -> io::Result<Vec<Pin>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let device = entry.file_name().to_str().and_then(device_of);
        found.extend(device.map(|(device, ifindex)| Pin { device, ifindex, path: entry.path() }));
    }
    Ok(found)
}

/// Removes pins of devices that had this name and are gone. Their links are attached to nothing.
fn remove_stale_pins(directory: &Path, device: &str, keep: &Path) {
    let stale = pins(directory).unwrap_or_default().into_iter();
    for pin in stale.filter(|pin| pin.device == device && pin.path != keep) {
        // A pin that does not go away costs a name in a directory; it is tried again next time.
        _ = std::fs::remove_file(pin.path);
    }
}

impl Attached {
    /// Puts the program on the device in `hook`, or into the link an earlier daemon left there, which stays in its hook: `runs` is
    /// who runs the program that is there now, as the kernel tells.
    pub fn attach(
        program: Shared,
        directory: &Path,
        (device, ifindex): (&str, u32),
        hook: Hook,
        runs: Option<Hook>,
        settings: &Settings,
    ) -> Result<Self, AttachError> {
        let pin = pin_path(directory, device, ifindex);
        remove_stale_pins(directory, device, &pin);
        let mut loaded = program.lock();
        let places = loaded.introduce(ifindex, settings)?;
        let linked = loaded.xdp().map_err(AttachError::from).and_then(|xdp| match adopt(xdp, &pin) {
            Some(link) => Ok((link, runs.unwrap_or(hook), true)),
            None => attach_and_pin(xdp, ifindex, hook, &pin).map(|link| (link, hook, false)),
        });
        let (link, hook, adopted) = linked.inspect_err(|_| loaded.forget(ifindex, places.clone()))?;
        let networks = loaded.networks();
        drop(loaded);
        let settings = settings.clone();
        Ok(Self { program, ifindex, settings, places, networks, link: Some(link), pin, hook, adopted })
    }

    /// Gives a queue's frames to a socket.
    pub fn set_socket(&mut self, queue: u32, socket: impl AsRawFd) -> Result<(), MapError> {
        self.program.lock().set_socket(&self.places, queue, socket.as_raw_fd())
    }

    /// What the program dropped since it was put on the device, by whatever daemon.
    pub fn dropped(&self) -> Dropped {
        self.program.lock().dropped(self.ifindex)
    }

    /// Tells the program who serves its queues now.
    pub fn set_workers(&mut self, workers: &[u16]) -> Result<(), MapError> {
        self.program.lock().set_workers(&self.places, workers)
    }

    /// Tells the program of an uplink what is the kernel's again.
    pub fn narrow(&mut self, taken: &Taken, ports: &SharedPorts) -> Result<(), MapError> {
        self.networks.as_mut().map_or(Ok(()), |networks| networks.narrow(taken, ports))
    }

    /// Tells the program of an uplink what it takes.
    pub fn become_all(&mut self, taken: &Taken, ports: &SharedPorts) -> Result<(), MapError> {
        self.networks.as_mut().map_or(Ok(()), |networks| networks.become_all(taken, ports))
    }

    /// What stays on the device when this is dropped, if it keeps what comes from the node's kernel then.
    pub fn guard(&self) -> Option<Guard> {
        let drops = self.settings.when_dead == WhenDead::Drop;
        drops.then(|| Guard { program: self.program.clone(), pin: self.pin.clone(), ifindex: self.ifindex })
    }

    /// Takes the program off the device.
    pub fn detach(mut self) -> io::Result<()> {
        // The pin and our descriptor are the link's only owners: with both gone, so is the program.
        let removed = std::fs::remove_file(&self.pin);
        self.link = None;
        removed
    }
}

/// A program that was left on a device, without sockets.
#[derive(Debug)]
pub struct Guard {
    program: Shared,
    pin: PathBuf,
    ifindex: u32,
}

impl Guard {
    /// An earlier daemon's, if the device has one; `program` is the one of all ports.
    pub(super) fn found(program: &Shared, directory: &Path, (device, ifindex): (&str, u32)) -> Option<Self> {
        let pin = pin_path(directory, device, ifindex);
        pin.exists().then(|| Self { program: program.clone(), pin, ifindex })
    }

    /// Of the device.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// As [`Attached::dropped`].
    pub fn dropped(&self) -> Dropped {
        self.program.lock().dropped(self.ifindex)
    }

    /// Takes it off the device, which may be gone.
    pub fn take_off(self) -> io::Result<()> {
        let removed = std::fs::remove_file(&self.pin);
        // Its places were given back when it was left.
        self.program.lock().forget(self.ifindex, 0..0);
        removed
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let (mut program, places) = (self.program.lock(), self.places.clone());
        match self.link {
            Some(_) => program.silence(self.ifindex, &self.settings, places),
            None => program.forget(self.ifindex, places),
        }
    }
}

fn adopt(xdp: &mut Xdp, pin: &Path) -> Option<FdLink> {
    let pinned = PinnedLink::from_pin(pin).ok()?;
    let link = XdpLink::try_from(FdLink::from(pinned)).ok()?;
    match xdp.attach_to_link(link) {
        Ok(id) => FdLink::try_from(xdp.take_link(id).ok()?).ok(),
        Err(_) => {
            // Its device is gone (ENOLINK), or this program cannot take the place of the one there (EINVAL: a version with another attach
            // type): without it the port can be opened at least, if not without a gap.
            _ = std::fs::remove_file(pin);
            None
        }
    }
}

fn attach_and_pin(xdp: &mut Xdp, ifindex: u32, hook: Hook, pin: &Path) -> Result<FdLink, AttachError> {
    let mode = match hook {
        Hook::Native => AyaMode::Driver,
        Hook::Generic => AyaMode::Skb,
    };
    let id = xdp.attach_to_if_index(ifindex, mode).map_err(|error| refusal(error, hook))?;
    let link = xdp.take_link(id).map_err(|error| LoadError::Load(chain(&error)))?;
    let pin_error = |error: String| AttachError::Pin { path: pin.to_owned(), error };
    let link = FdLink::try_from(link).map_err(|_| pin_error("this kernel has no XDP links (5.9)".into()))?;
    let pinned = link.pin(pin).map_err(|error| pin_error(chain(&error)))?;
    Ok(FdLink::from(pinned))
}

fn refusal(error: ProgramError, hook: Hook) -> AttachError {
    let io_error = match error {
        ProgramError::SyscallError(error) => error.io_error,
        other => io::Error::other(chain(&other)),
    };
    match io_error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => AttachError::Foreign,
        _ => AttachError::Refused { hook, error: io_error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_tells_its_device_and_no_two_devices_have_one() {
        let names = ["eth0", "eth0.100", "eth0-100", "eth0.100-7", "a.b.c", "pod-1", "-", "veth.-1"];
        let mut seen = std::collections::BTreeSet::new();
        for (name, ifindex) in names.iter().flat_map(|name| [1, 7, 100].map(|index| (*name, index))) {
            let path = pin_path(Path::new("/run/bpf"), name, ifindex);
            let pinned = path.file_name().and_then(|name| name.to_str()).unwrap();
            assert!(!pinned.contains('.'), "{pinned}");
            assert_eq!(device_of(pinned), Some((name.to_owned(), ifindex)));
            assert!(seen.insert(path.clone()), "{pinned} is another's, too");
        }
        for other in ["beats", "link-", "link-eth0", "link-eth0-x", "state-1-2-3"] {
            assert_eq!(device_of(other), None, "{other}");
        }
    }
}
