//! The XDP program on a device: load, attach, pin, adopt, detach.
//!
//! The link is pinned in a bpffs of the daemon's, so that the program outlives the daemon and its dead-man
//! timer decides what becomes of the traffic. A new daemon finds the pin and swaps its own program into
//! the same link: no frame passes unguarded in between. A program that is not ours is left alone.

use super::beat::Beats;
use super::networks::Networks;
use crate::config::snapshot::{Rule, parse_rule};
use crate::config::taken::{SharedPorts, Taken};
use crate::wire::ethernet;
use aya::maps::{Array, Map, MapData, MapError, XskMap};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode as AyaMode};
use aya::{Ebpf, EbpfLoader};
use std::borrow::BorrowMut;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use switch_api::{Mac, Take, WhenDead};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/program.o"));

const RULES_MAX: usize = crate::config::checked::RULES_MAX;
const RULE_LEN: usize = 36;
const RULES_AT: usize = 28;
// The first field's alignment fills it up.
const CONFIG_LEN: usize = (RULES_AT + RULES_MAX * RULE_LEN).next_multiple_of(8);
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The driver.
    Native,
    /// The stack, on a socket buffer.
    Generic,
}

/// What the program is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which frames it takes.
    pub take: Take,
    /// What it does while nobody beats.
    pub when_dead: WhenDead,
    /// Silence after which the switch counts as dead, in ms.
    pub dead_after_ms: u32,
    /// Worker of each queue.
    pub workers: Vec<u16>,
    /// The device's MAC, to which is addressed what an uplink takes.
    pub mac: Mac,
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
    /// The program could not be loaded.
    #[error("the XDP program could not be loaded: {0}")]
    Load(String),
    /// The link could not be pinned.
    #[error("the XDP link could not be pinned at {path}: {error}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        error: String,
    },
}

/// A program on a device. Dropping it leaves the program where it is; see [`Attached::detach`].
pub struct Attached {
    // Of the loaded object only the maps we write to are kept: the link holds the program, and the
    // object's own memory (40 KiB) is given back.
    sockets: XskMap<MapData>,
    queue_worker: Array<MapData, u32>,
    networks: Option<Networks>,
    _link: FdLink,
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

/// Loads the object, with its beats shared through `directory`.
fn load(directory: &Path) -> Result<Ebpf, AttachError> {
    let loaded = EbpfLoader::new().default_map_pin_directory(directory).load(OBJECT);
    loaded.map_err(|error| AttachError::Load(chain(&error)))
}

/// Maps the beats, making them if no earlier daemon did. Loads the program into the kernel's verifier on
/// the way, so that a kernel without what we need says so when the daemon starts.
pub fn beats(directory: &Path) -> Result<Beats, AttachError> {
    let mut ebpf = load(directory)?;
    load_program(&mut ebpf, &Take::Everything)?;
    match ebpf.map("beats") {
        Some(Map::Array(data)) => {
            Beats::map(data.fd().as_fd()).map_err(|error| AttachError::Load(error.to_string()))
        }
        _ => Err(AttachError::Load("the object has no map named beats".into())),
    }
}

/// The two forms of a program, the one for frames of several buffers first.
fn forms(take: &Take) -> [&'static str; 2] {
    match take {
        Take::Networks => ["switch_uplink_frags", "switch_uplink"],
        Take::Everything | Take::Nothing | Take::Matching { .. } => ["switch_port_frags", "switch_port"],
    }
}

/// Gives the program to the kernel's verifier, in the first form it takes.
fn load_program<'a>(ebpf: &'a mut Ebpf, take: &Take) -> Result<&'a mut Xdp, AttachError> {
    let mut refused = AttachError::Load("the object has no program".into());
    for form in forms(take) {
        match program(ebpf, form)?.load() {
            Ok(()) => return program(ebpf, form),
            Err(error) => refused = AttachError::Load(chain(&error)),
        }
    }
    Err(refused)
}

fn program<'a>(ebpf: &'a mut Ebpf, form: &str) -> Result<&'a mut Xdp, AttachError> {
    let program = ebpf.program_mut(form).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| AttachError::Load(format!("the object has no program named {form}")))
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Where the link of a device is pinned: by name and index, so that a new device of an old name is not
/// taken for the old one.
pub fn pin_path(directory: &Path, device: &str, ifindex: u32) -> PathBuf {
    directory.join(format!("link-{device}-{ifindex}"))
}

/// Removes pins of devices that had this name and are gone. Their links are attached to nothing.
fn remove_stale_pins(directory: &Path, device: &str, keep: &Path) {
    let prefix = format!("link-{device}-");
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let index = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        if index.is_some_and(|index| index.parse::<u32>().is_ok()) && entry.path() != keep {
            // A pin that does not go away costs a name in a directory; it is tried again next time.
            _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Attached {
    /// Puts the program on the device in `hook`, or into the link an earlier daemon left there, which stays in its hook: `runs` is
    /// who runs the program that is there now, as the kernel tells.
    pub fn attach(
        directory: &Path,
        (device, ifindex): (&str, u32),
        hook: Hook,
        runs: Option<Hook>,
        settings: &Settings,
    ) -> Result<Self, AttachError> {
        let mut ebpf = load(directory)?;
        configure(&mut ebpf, settings).map_err(|error| AttachError::Load(chain(&error)))?;
        let missing = || AttachError::Load("the object lacks one of its maps".into());
        let sockets =
            ebpf.take_map("sockets").and_then(|map| XskMap::try_from(map).ok()).ok_or_else(missing)?;
        let xdp = load_program(&mut ebpf, &settings.take)?;
        let pin = pin_path(directory, device, ifindex);
        remove_stale_pins(directory, device, &pin);
        let adopted = adopt(xdp, &pin);
        let is_adopted = adopted.is_some();
        let (link, hook) = match adopted {
            Some(link) => (link, runs.unwrap_or(hook)),
            None => (attach_and_pin(xdp, ifindex, hook, &pin)?, hook),
        };
        let queue_worker = ebpf.take_map("queue_worker").and_then(|map| Array::try_from(map).ok());
        let queue_worker = queue_worker.ok_or_else(missing)?;
        let networks = match settings.take {
            Take::Networks => ebpf.take_map("networks").zip(ebpf.take_map("shares")),
            _ => None,
        };
        let networks = networks.and_then(|(trie, shares)| Networks::new(trie, shares));
        Ok(Self { sockets, queue_worker, networks, _link: link, pin, hook, adopted: is_adopted })
    }

    /// Gives a queue's frames to a socket.
    pub fn set_socket(&mut self, queue: u32, socket: impl AsRawFd) -> Result<(), MapError> {
        self.sockets.set(queue, socket, 0)
    }

    /// Tells the program who serves its queues now.
    pub fn set_workers(&mut self, workers: &[u16]) -> Result<(), MapError> {
        set_workers(&mut self.queue_worker, workers)
    }

    /// Tells the program of an uplink what is the kernel's again.
    pub fn narrow(&mut self, taken: &Taken, ports: &SharedPorts) -> Result<(), MapError> {
        self.networks.as_mut().map_or(Ok(()), |networks| networks.narrow(taken, ports))
    }

    /// Tells the program of an uplink what it takes.
    pub fn become_all(&mut self, taken: &Taken, ports: &SharedPorts) -> Result<(), MapError> {
        self.networks.as_mut().map_or(Ok(()), |networks| networks.become_all(taken, ports))
    }

    /// Takes the program off the device.
    pub fn detach(self) -> io::Result<()> {
        // The pin and our descriptor are the link's only owners: with both gone, so is the program.
        std::fs::remove_file(&self.pin)
    }
}

fn adopt(xdp: &mut Xdp, pin: &Path) -> Option<FdLink> {
    let pinned = PinnedLink::from_pin(pin).ok()?;
    let link = XdpLink::try_from(FdLink::from(pinned)).ok()?;
    match xdp.attach_to_link(link) {
        Ok(id) => FdLink::try_from(xdp.take_link(id).ok()?).ok(),
        Err(_) => {
            // Its device is gone (ENOLINK): the pin holds nothing.
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
    let link = xdp.take_link(id).map_err(|error| AttachError::Load(chain(&error)))?;
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

fn configure(ebpf: &mut Ebpf, settings: &Settings) -> Result<(), MapError> {
    let bytes = config_bytes(settings);
    let map = ebpf.map_mut("config").ok_or(MapError::ElementNotFound)?;
    Array::<_, [u8; CONFIG_LEN]>::try_from(map)?.set(0, bytes, 0)?;
    let map = ebpf.map_mut("queue_worker").ok_or(MapError::ElementNotFound)?;
    set_workers(&mut Array::try_from(map)?, &settings.workers)
}

fn set_workers<T: BorrowMut<MapData>>(map: &mut Array<T, u32>, workers: &[u16]) -> Result<(), MapError> {
    for (queue, worker) in workers.iter().enumerate() {
        map.set(queue as u32, u32::from(*worker), 0)?;
    }
    Ok(())
}

/// `struct config` of program.c, in the machine's byte order.
fn config_bytes(settings: &Settings) -> [u8; CONFIG_LEN] {
    let rules: Vec<Rule> = match &settings.take {
        Take::Matching { rules } => rules.iter().filter_map(|rule| parse_rule(rule).ok()).collect(),
        Take::Everything | Take::Nothing | Take::Networks => Vec::new(),
    };
    let take: u32 = match settings.take {
        Take::Everything => 0,
        Take::Nothing => 1,
        Take::Matching { .. } => 2,
        Take::Networks => 3,
    };
    let action = match settings.when_dead {
        WhenDead::Drop => XDP_DROP,
        WhenDead::Pass => XDP_PASS,
    };
    let mut bytes = [0; CONFIG_LEN];
    bytes[..8].copy_from_slice(&(u64::from(settings.dead_after_ms) * 1_000_000).to_ne_bytes());
    bytes[8..12].copy_from_slice(&action.to_ne_bytes());
    bytes[12..16].copy_from_slice(&take.to_ne_bytes());
    bytes[16..20].copy_from_slice(&(rules.len() as u32).to_ne_bytes());
    bytes[20..26].copy_from_slice(&settings.mac.0);
    for (rule, at) in rules.iter().zip(bytes[RULES_AT..].chunks_exact_mut(RULE_LEN)) {
        at.copy_from_slice(&rule_bytes(rule));
    }
    bytes
}

/// `struct rule` of program.c: the program compares words under a mask, so the mask is made here.
fn rule_bytes(rule: &Rule) -> [u8; RULE_LEN] {
    let words: u16 = match rule {
        Rule { prefix_len: 0, .. } => 0,
        Rule { ethertype: ethernet::IPV4, .. } => 2,
        Rule { .. } => 8,
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(rule.prefix_len)).unwrap_or(0);
    let address = u128::from_be_bytes(rule.address) & mask;
    let mut bytes = [0; RULE_LEN];
    bytes[..2].copy_from_slice(&rule.ethertype.to_be_bytes());
    bytes[2..4].copy_from_slice(&words.to_ne_bytes());
    bytes[4..20].copy_from_slice(&address.to_be_bytes());
    bytes[20..].copy_from_slice(&mask.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::snapshot::parse_rule;
    use switch_api::TakeRule;

    fn bytes_of(ethertype: u16, destination: Option<&str>) -> [u8; RULE_LEN] {
        let destination = destination.map(str::to_owned);
        rule_bytes(&parse_rule(&TakeRule { ethertype, destination }).unwrap())
    }

    /// The program's own comparison, word by word.
    fn matches(rule: &[u8; RULE_LEN], address: &[u8]) -> bool {
        let words = usize::from(u16::from_ne_bytes([rule[2], rule[3]]));
        let differ = |i: usize| (address[i] ^ rule[4 + i]) & rule[20 + i] != 0;
        !(0..words * 2).any(differ)
    }

    #[test]
    fn a_prefix_becomes_an_address_under_a_mask() {
        let rule = bytes_of(0x0800, Some("10.66.255.255/17"));
        assert_eq!(rule[..4], [[8, 0], 2u16.to_ne_bytes()].concat());
        assert!(matches(&rule, &[10, 66, 128, 0]) && matches(&rule, &[10, 66, 255, 1]));
        assert!(!matches(&rule, &[10, 66, 127, 255]) && !matches(&rule, &[11, 66, 128, 0]));
        let rule = bytes_of(0x86dd, Some("fd00::5/128"));
        assert_eq!(rule[..4], [[0x86, 0xdd], 8u16.to_ne_bytes()].concat());
        let mut address = [0; 16];
        (address[0], address[15]) = (0xfd, 5);
        assert!(matches(&rule, &address));
        address[15] = 4;
        assert!(!matches(&rule, &address));
        for everything in [bytes_of(0x0806, None), bytes_of(0x0800, Some("0.0.0.0/0"))] {
            assert!(everything[2..].iter().all(|byte| *byte == 0), "{everything:?}");
        }
    }
}
