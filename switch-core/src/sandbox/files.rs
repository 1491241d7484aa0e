//! Files (Landlock, landlock(7)): folders of the daemon's own, and what it reads of the machine. Nothing may be executed,
//! nothing mounted, no signal sent to a stranger, no TCP connection made or taken.
//!
//! What Landlock does not look at: AF_XDP, netlink and packet sockets, UDP. What it forbids altogether: mounts, and `/proc/PID/ns/net` of
//! a stranger, as it forbids to trace him; see [`super::keeper`].

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};
use std::path::{Path, PathBuf};

/// The newest rules that are asked for; of an older kernel those that it has.
const RULES: ABI = ABI::V6;

/// What the machine shows of itself: routes' sysctls, names of those who ask for changes, the kernel's types for BPF.
const READ: &[&str] = &["/proc", "/sys/kernel/btf", "/sys/class/net", "/sys/devices", "/etc/machine-id"];
/// Settings of devices that the daemon makes, which netlink cannot make ([`crate::control::tap`]).
const SETTINGS: &str = "/proc/sys/net";
/// Where users and groups are. The folder and not the two files, which are replaced when they change; only for `--group`.
const USERS: &str = "/etc";
/// Randomness; TAP devices.
const DEVICES: &[&str] = &["/dev/urandom", "/dev/null", "/dev/net/tun"];

/// Where the daemon may write.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// Of the socket and its lock, of the state, of the bpffs, of captures that `pcap` ports read and write.
    pub own: Vec<PathBuf>,
    /// Users and groups are looked up.
    pub users: bool,
}

impl Folders {
    /// Adds the folder that `file` is in.
    pub fn of(&mut self, file: &Path) {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        self.own.push(parent.unwrap_or(Path::new(".")).to_owned());
    }
}

/// Restricts this thread and those that it will start; how far, in words.
pub fn restrict(folders: &Folders) -> Result<String, String> {
    let status = ruleset(folders).map_err(|error| error.to_string())?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
        LandlockStatus::NotEnabled => return Err("Landlock is not enabled (boot with lsm=…,landlock)".into()),
        _ => return Err("this kernel has no Landlock (Linux 5.13 has)".into()),
    };
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("Landlock took no rule".into()),
        RulesetStatus::PartiallyEnforced => Ok(format!("Landlock {abi:?}, as far as it goes")),
        RulesetStatus::FullyEnforced => Ok(format!("Landlock {abi:?}")),
    }
}

fn ruleset(folders: &Folders) -> Result<landlock::RestrictionStatus, RulesetError> {
    // No programs, no devices made, no sockets but what was bound already.
    let write = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir
    });
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Vec::new();
    rules.extend(folders.own.iter().filter_map(|path| beneath(path, write)));
    rules.extend(READ.iter().filter_map(|path| beneath(Path::new(path), read)));
    rules.extend(beneath(Path::new(SETTINGS), AccessFs::WriteFile.into()));
    rules.extend(DEVICES.iter().filter_map(|path| beneath(Path::new(path), device)));
    rules.extend(beneath(Path::new(USERS), read).filter(|_| folders.users));
    Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(rules.into_iter().map(Ok::<_, RulesetError>))?
        .restrict_self()
}

/// What is not there cannot be allowed, and is not missed: whoever wants it says so.
fn beneath(path: &Path, access: BitFlags<AccessFs>) -> Option<PathBeneath<PathFd>> {
    // Of a file only a file's rights can be given.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(RULES) };
    PathFd::new(path).ok().map(|fd| PathBeneath::new(fd, access))
}
