//! `switch-ctl install` and `uninstall`: the switch becomes the network of this node's containers, and ceases to be it.
//!
//! A container runtime takes a network into use as soon as its configuration appears, so that is written last, when the
//! daemon serves, the node has its port and the plugin says that ADD would work. Everything that is made is noted before it is made
//! ([`manifest`]): an install that was killed is gone on with, or taken away.

mod conflist;
mod files;
mod manifest;
mod node;
mod places;
mod systemd;

use crate::output::Output;
use clap::Args;
use conflist::Conflist;
use manifest::Manifest;
use places::{Places, Root};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use switch_api::{ApiError, Code, PortSettings};

/// The unit, as deploy/systemd has it.
const UNIT: &str = include_str!("../../../deploy/systemd/switchd.service");
const UNIT_PATH: &str = "/etc/systemd/system/switchd.service";
/// What keeps other programs away from our devices: where it goes, and the directory of the program it is for.
const DROP_INS: [(&str, &str, &str); 4] = [
    (
        "/etc/udev/rules.d",
        "/etc/udev/rules.d/79-switch.rules",
        include_str!("../../../deploy/udev/79-switch.rules"),
    ),
    (
        "/etc/systemd/network",
        "/etc/systemd/network/10-switch.link",
        include_str!("../../../deploy/systemd-network/10-switch.link"),
    ),
    (
        "/etc/systemd/network",
        "/etc/systemd/network/10-switch.network",
        include_str!("../../../deploy/systemd-network/10-switch.network"),
    ),
    (
        "/etc/NetworkManager/conf.d",
        "/etc/NetworkManager/conf.d/90-switch.conf",
        include_str!("../../../deploy/NetworkManager/90-switch.conf"),
    ),
];
const PLUGIN: &str = "switch-cni";
/// Programs and where they go, as with the Debian package. The plugin goes to wherever runtimes look as well: from here it is
/// put there again, should a runtime's upgrade have taken it away.
const PROGRAMS: [(&str, &str); 3] = [
    ("switchd", "/usr/sbin/switchd"),
    ("switch-ctl", "/usr/bin/switch-ctl"),
    (PLUGIN, "/usr/lib/cni/switch-cni"),
];
const EXECUTABLE: u32 = 0o755;
const READABLE: u32 = 0o644;

/// What to install.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl install
  switch-ctl install --from target/release --conflist pods.conflist")]
pub struct Install {
    /// Install below this directory instead of `/`.
    #[arg(long, default_value = "/")]
    root: PathBuf,
    /// Where `switchd`, `switch-ctl` and `switch-cni` are: beside this program or in place already, unless said.
    #[arg(long)]
    from: Option<PathBuf>,
    /// The network's configuration; without it, one with the pools 10.88.0.0/16 and fd88::/64.
    #[arg(long, value_name = "FILE")]
    conflist: Option<PathBuf>,
}

/// What to take away.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  switch-ctl uninstall")]
pub struct Uninstall {
    /// The directory that `install` was given.
    #[arg(long, default_value = "/")]
    root: PathBuf,
    /// Although containers are attached, or ports are declared: they lose their network.
    #[arg(long)]
    force: bool,
}

/// What was done, for `--json`.
#[derive(Debug, Serialize)]
struct Report {
    files: Vec<PathBuf>,
    notes: Vec<String>,
}

pub fn install(asked: &Install, socket: &Path, timeout: Duration, output: &Output) -> Result<(), ApiError> {
    let root = Root::new(&asked.root)?;
    let places = Places::find(&root)?;
    places.refuse_others(&root)?;
    places.refuse_chains(&root)?;
    let conflist = Conflist::read(asked.conflist.as_deref())?;
    let programs = programs(asked, &root)?;
    let mut manifest = Manifest::read(&root)?.unwrap_or_default();
    let is_again = !manifest.files.is_empty();
    manifest.note_state(&root);
    let mut is_changed = false;
    let mut put = |path: &Path, bytes: &[u8], mode: u32| files::put(&root, &mut manifest, path, bytes, mode);
    for ((_, to), program) in PROGRAMS.iter().zip(&programs) {
        is_changed |= put(Path::new(to), program, EXECUTABLE)?;
    }
    for directory in &places.plugins {
        put(&directory.join(PLUGIN), &programs[2], EXECUTABLE)?;
    }
    // Where the package has put it already, it is the package's.
    let is_packaged = |path: &str| root.at(Path::new(&path.replacen("/etc", "/usr/lib", 1))).is_file();
    if !is_packaged(UNIT_PATH) {
        is_changed |= put(Path::new(UNIT_PATH), UNIT.as_bytes(), READABLE)?;
    }
    for (directory, path, text) in DROP_INS {
        if root.at(Path::new(directory)).is_dir() && !is_packaged(path) {
            put(Path::new(path), text.as_bytes(), READABLE)?;
        }
    }
    systemd::start(&root, is_again && is_changed)?;
    let mut client = node::wait(socket, timeout)?;
    // What kube-proxy has translated on the way to a pod has to come back by it.
    let settings = PortSettings { return_flows: places.has_kubernetes(&root), ..PortSettings::default() };
    node::prepare(&mut client, &conflist, &root, &mut manifest, settings)?;
    // From here on runtimes use it.
    conflist.ask_status(&root.at(&places.plugins[0].join(PLUGIN)))?;
    for directory in &places.networks {
        let path = directory.join(places::CONFLIST);
        files::put(&root, &mut manifest, &path, conflist.text.as_bytes(), READABLE)?;
    }
    let report = Report { files: manifest.files.clone(), notes: places.notes() };
    output.answer(&report, |report| {
        let of = |directories: &[PathBuf]| {
            directories.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        let mut lines = vec![
            format!("installed: {} files; `switch-ctl uninstall` takes them away again", report.files.len()),
            format!("runtimes find the plugin in {}", of(&places.plugins)),
            format!("runtimes find the network {} in {}", conflist.network, of(&places.networks)),
        ];
        lines.extend(report.notes.clone());
        lines.join("\n")
    });
    Ok(())
}

/// The programs, in the order of [`PROGRAMS`].
fn programs(asked: &Install, root: &Root) -> Result<[Vec<u8>; 3], ApiError> {
    let beside = || std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf));
    let directory = asked.from.clone().or_else(beside).unwrap_or_default();
    let mut programs = [const { Vec::new() }; 3];
    for ((name, to), program) in PROGRAMS.into_iter().zip(&mut programs) {
        let places = [directory.join(name), root.at(Path::new(to))];
        let may_use = places.iter().take(if asked.from.is_some() { 1 } else { places.len() });
        let Some(path) = may_use.into_iter().find(|path| path.is_file()) else {
            let text = format!("there is no {name} in {}", directory.display());
            return Err(
                ApiError::new(Code::NotFound, text).hint("say where the programs are with --from DIR")
            );
        };
        *program = std::fs::read(path).map_err(|error| crate::files::refused(path, &error))?;
    }
    Ok(programs)
}

pub fn uninstall(
    asked: &Uninstall,
    socket: &Path,
    timeout: Duration,
    output: &Output,
) -> Result<(), ApiError> {
    let root = Root::new(&asked.root)?;
    let Some(mut manifest) = Manifest::read(&root)? else {
        let report = Report { files: Vec::new(), notes: Vec::new() };
        output.answer(&report, |_| "nothing is installed here".into());
        return Ok(());
    };
    let mut client = node::connect(socket, timeout);
    if let Some(client) = &mut client
        && !asked.force
    {
        node::refuse_in_use(client, &manifest)?;
    }
    // First what runtimes look for: none calls us any more.
    let files = manifest.files.clone();
    let is_network = |path: &&PathBuf| path.ends_with(places::CONFLIST);
    for path in files.iter().filter(is_network) {
        files::remove(&root, &mut manifest, path)?;
    }
    systemd::disable(&root)?;
    if let Some(client) = &mut client {
        node::clear(client, socket, timeout)?;
    }
    systemd::stop(&root)?;
    for path in files.iter().rev().filter(|path| !is_network(path)) {
        files::remove(&root, &mut manifest, path)?;
    }
    systemd::reload(&root)?;
    manifest.forget(&root)?;
    let report = Report { files, notes: Vec::new() };
    output.answer(&report, |report| {
        format!("{} files, and all that the daemon made, are gone", report.files.len())
    });
    Ok(())
}
