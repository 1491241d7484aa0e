//! The XDP program: one for all ports, loaded once, which finds what it was told of a device by the device's index. A program for each port
//! had the verifier walk it for each, and the kernel wait for all its readers for each of the first 48, which it learns to call directly:
//! 25 ms a port, one after the other (ADR 0036). An uplink has one of its own, for the networks that it takes are its own.
//!
//! Which device it is on, and how long, is in [`super::attach`].

use super::beat::Beats;
use super::networks::Networks;
use super::ranges::Ranges;
use crate::config::checked::QUEUES_MAX;
use crate::config::snapshot::{Rule, parse_rule};
use crate::wire::ethernet;
use aya::maps::{Array, HashMap, Map, MapData, MapError, XskMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use std::ops::Range;
use std::os::fd::{AsFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use switch_api::{Mac, Take, WhenDead};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/program.o"));

/// Sockets of all devices of one program, as in program.c: a frame's holder each.
const SOCKETS_MAX: u32 = crate::frame::area::HOLDERS_MAX as u32;
const RULES_MAX: usize = crate::config::checked::RULES_MAX;
const RULE_LEN: usize = 36;
const RULES_AT: usize = 36;
// The first field's alignment fills it up.
const DEVICE_LEN: usize = (RULES_AT + RULES_MAX * RULE_LEN).next_multiple_of(8);
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel takes neither form of it.
    #[error("the XDP program could not be loaded: {0}")]
    Load(String),
    /// What it is told of a device did not get there.
    #[error("the XDP program's maps cannot be written: {0}")]
    Map(#[from] MapError),
    /// All [`SOCKETS_MAX`] places are taken.
    #[error("too many AF_XDP sockets are open")]
    Full,
}

/// What the program is told of a device.
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

/// Frames that the program dropped: `struct drops` of program.c.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Nobody beat.
    pub dead: u64,
    /// No socket was there: the port is opened or closed just then.
    pub closed: u64,
}

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All ports' but uplinks'.
    Ports,
    /// One uplink's.
    Uplink,
}

impl Kind {
    /// Which program a device needs.
    pub fn of(take: &Take) -> Self {
        match take {
            Take::Networks => Self::Uplink,
            Take::Everything | Take::Nothing | Take::Matching { .. } => Self::Ports,
        }
    }

    /// The two forms of its program, the one for frames of several buffers first.
    fn forms(self) -> [&'static str; 2] {
        match self {
            Self::Uplink => ["switch_uplink_frags", "switch_uplink"],
            Self::Ports => ["switch_port_frags", "switch_port"],
        }
    }

    /// Maps that this one needs less room in: most of them would take memory for nothing.
    fn small_maps(self) -> [(&'static str, u32); 3] {
        match self {
            Self::Uplink => {
                [("devices", 1), ("sockets", QUEUES_MAX as u32), ("queue_worker", QUEUES_MAX as u32)]
            }
            Self::Ports => [("networks", 1), ("shares", 1), ("devices", crate::config::PORTS_MAX as u32)],
        }
    }
}

/// A program in the kernel, and its maps.
pub struct Program {
    ebpf: Ebpf,
    form: &'static str,
    devices: HashMap<MapData, u32, [u8; DEVICE_LEN]>,
    sockets: XskMap<MapData>,
    queue_worker: Array<MapData, u32>,
    /// By the device's index; every program's.
    dropped: HashMap<MapData, u32, [u64; 2]>,
    places: Ranges,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("form", &self.form)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// Of the control thread, and of what it opened.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Program>>);

impl Shared {
    /// Whoever panicked over it left it whole: every change is one map entry.
    pub fn lock(&self) -> MutexGuard<'_, Program> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Program {
    /// Gives the program to the kernel's verifier, in the first form it takes, with the beats shared through `directory`, a bpffs.
    pub fn load(directory: &Path, kind: Kind) -> Result<Shared, LoadError> {
        let mut loader = EbpfLoader::new();
        // It looks at no struct of the kernel's, whose description is 5 MB to read.
        loader.btf(None).default_map_pin_directory(directory);
        for (map, entries) in kind.small_maps() {
            loader.map_max_entries(map, entries);
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| LoadError::Load(chain(&error)))?;
        let form = load_first(&mut ebpf, kind)?;
        let places = if kind == Kind::Uplink { QUEUES_MAX as u32 } else { SOCKETS_MAX };
        let program = Self {
            devices: map(&mut ebpf, "devices")?,
            sockets: map(&mut ebpf, "sockets")?,
            queue_worker: map(&mut ebpf, "queue_worker")?,
            dropped: map(&mut ebpf, "dropped")?,
            places: Ranges::new(places),
            ebpf,
            form,
        };
        Ok(Shared(Arc::new(Mutex::new(program))))
    }

    /// Maps the beats, which an earlier daemon may have made.
    pub fn beats(&self) -> Result<Beats, LoadError> {
        match self.ebpf.map("beats") {
            Some(Map::Array(data)) => {
                Beats::map(data.fd().as_fd()).map_err(|error| LoadError::Load(error.to_string()))
            }
            _ => Err(LoadError::Load("the object has no map named beats".into())),
        }
    }

    /// What takes it to a device.
    pub(super) fn xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, self.form)
    }

    /// The networks of an uplink, once.
    pub(super) fn networks(&mut self) -> Option<Networks> {
        let maps = self.ebpf.take_map("networks").zip(self.ebpf.take_map("shares"));
        maps.and_then(|(trie, shares)| Networks::new(trie, shares))
    }

    /// Tells it of a device, before it is there. Its queues have no sockets yet. The range is the device's until [`Program::forget`].
    pub(super) fn introduce(&mut self, ifindex: u32, settings: &Settings) -> Result<Range<u32>, LoadError> {
        let places = self.places.take(settings.workers.len() as u32).ok_or(LoadError::Full)?;
        let told = self
            .count_drops(ifindex)
            .and_then(|()| self.set_workers(&places, &settings.workers))
            .and_then(|()| self.devices.insert(ifindex, device_bytes(settings, &places), 0));
        if let Err(error) = told {
            self.places.give(places);
            return Err(error.into());
        }
        Ok(places)
    }

    /// An earlier daemon's count goes on.
    fn count_drops(&mut self, ifindex: u32) -> Result<(), MapError> {
        match self.dropped.get(&ifindex, 0) {
            Ok(_) => Ok(()),
            Err(_) => self.dropped.insert(ifindex, [0; 2], 0),
        }
    }

    /// What the program dropped of a device's frames, since it was put on it by whatever daemon.
    pub(super) fn dropped(&self, ifindex: u32) -> Dropped {
        let [dead, closed] = self.dropped.get(&ifindex, 0).unwrap_or_default();
        Dropped { dead, closed }
    }

    /// Gives a queue's frames to a socket.
    pub(super) fn set_socket(
        &mut self,
        places: &Range<u32>,
        queue: u32,
        socket: RawFd,
    ) -> Result<(), MapError> {
        self.sockets.set(places.start + queue, socket, 0)
    }

    /// Says who serves a device's queues now.
    pub(super) fn set_workers(&mut self, places: &Range<u32>, workers: &[u16]) -> Result<(), MapError> {
        let mut served = places.clone().zip(workers);
        served.try_for_each(|(place, worker)| self.queue_worker.set(place, u32::from(*worker), 0))
    }

    /// A device has no queues any more: what it drops or passes it does so at once.
    pub(super) fn silence(&mut self, ifindex: u32, settings: &Settings, places: Range<u32>) {
        // Without the entry the program drops, or passes for an uplink.
        _ = self.devices.insert(ifindex, device_bytes(settings, &(places.start..places.start)), 0);
        self.places.give(places);
    }

    /// The program is off the device.
    pub(super) fn forget(&mut self, ifindex: u32, places: Range<u32>) {
        // An entry that is not there is what we want.
        _ = self.devices.remove(&ifindex);
        _ = self.dropped.remove(&ifindex);
        self.places.give(places);
    }
}

fn load_first(ebpf: &mut Ebpf, kind: Kind) -> Result<&'static str, LoadError> {
    let mut refused = LoadError::Load("the object has no program".into());
    for form in kind.forms() {
        match program(ebpf, form)?.load() {
            Ok(()) => return Ok(form),
            Err(error) => refused = LoadError::Load(chain(&error)),
        }
    }
    Err(refused)
}

fn program<'a>(ebpf: &'a mut Ebpf, form: &str) -> Result<&'a mut Xdp, LoadError> {
    let program = ebpf.program_mut(form).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| LoadError::Load(format!("the object has no program named {form}")))
}

fn map<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &str) -> Result<M, LoadError> {
    let map = ebpf.take_map(name).and_then(|map| M::try_from(map).ok());
    map.ok_or_else(|| LoadError::Load(format!("the object has no map named {name}")))
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// `struct device` of program.c, in the machine's byte order.
fn device_bytes(settings: &Settings, places: &Range<u32>) -> [u8; DEVICE_LEN] {
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
    let mut bytes = [0; DEVICE_LEN];
    bytes[..8].copy_from_slice(&(u64::from(settings.dead_after_ms) * 1_000_000).to_ne_bytes());
    let words = [action, take, rules.len() as u32, places.start, places.len() as u32];
    for (word, at) in words.iter().zip(bytes[8..28].chunks_exact_mut(4)) {
        at.copy_from_slice(&word.to_ne_bytes());
    }
    bytes[28..34].copy_from_slice(&settings.mac.0);
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
