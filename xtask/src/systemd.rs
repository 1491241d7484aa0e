//! `cargo xtask test systemd`: Debian's systemd as process 1 of namespaces of its own, over this system's files; in it an
//! administrator installs the package, restarts, kills and stops the daemon beneath a TCP connection, upgrades, switches the
//! machine off and on, removes and purges. What is done is in `systemd/inside.sh`, the machine in `systemd/boot.sh`.

use crate::package_test;
use crate::sh::{Result, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BOOT: &str = "xtask/src/systemd/boot.sh";
const INSIDE: &str = "xtask/src/systemd/inside.sh";
/// All of it takes some 25 s; several times that on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long the groups of processes that were killed may take to be empty.
const EMPTY_MAX: Duration = Duration::from_secs(5);
/// The directory of control groups of process N is this and N.
const GROUP: &str = "switchd-systemd-";

/// Whether it can be tried here: systemd wants control groups of version 2.
pub fn is_possible() -> bool {
    hierarchy().is_some()
}

/// See the module.
pub fn run() -> Result {
    let (first, second) = package_test::packages()?;
    let place = root().join("target/systemd-test");
    let empty = place.join("system");
    fs::create_dir_all(&empty).map_err(|error| format!("{}: {error}", empty.display()))?;
    let said = place.join("said");
    fs::write(&said, "").map_err(|error| format!("{}: {error}", said.display()))?;
    let groups = Groups::new()?;
    // Whatever ends us ends the machine: the first process of its namespaces dies with its parent, and that one with us.
    let mut machine = Command::new("setpriv");
    machine.args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork"]);
    machine.args(["--kill-child", "sh"]).arg(root().join(BOOT)).arg(&empty).args([first, second]);
    machine.arg(root().join(INSIDE)).arg(&said).arg(&groups.0).stdin(Stdio::null());
    let outcome = within_limit(&mut machine);
    print!("{}", fs::read_to_string(&said).unwrap_or_default());
    outcome
}

fn within_limit(command: &mut Command) -> Result {
    let text = |error: std::io::Error| format!("setpriv: {error}");
    let mut child = command.spawn().map_err(text)?;
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        match child.try_wait().map_err(text)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("the machine ended with {status}; what it said is above")),
            None => std::thread::sleep(LOOK),
        }
    }
    _ = child.kill();
    _ = child.wait();
    Err(format!("the machine did not come to its end within {} s; what it said is above", LIMIT.as_secs()))
}

/// Where control groups of version 2 are mounted: alone, or beside those of version 1.
fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| PathBuf::from(fields[1]))
}

/// A directory of control groups for the machine; removed in the end, and those of runs that were killed at the start.
struct Groups(PathBuf);

impl Groups {
    fn new() -> Result<Self> {
        let at = hierarchy().ok_or("no cgroup2 is mounted")?;
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = name.strip_prefix(GROUP);
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                remove(&entry.path());
            }
        }
        let path = at.join(format!("{GROUP}{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Groups {
    /// A killed process leaves its group a little later.
    fn drop(&mut self) {
        let start = Instant::now();
        remove(&self.0);
        while self.0.exists() && start.elapsed() < EMPTY_MAX {
            std::thread::sleep(LOOK);
            remove(&self.0);
        }
    }
}

/// Children first; those in which somebody lives stay.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    _ = fs::remove_dir(group);
}
