//! The list of plugins that ours is one of. A runtime passes each plugin its own part alone, so the list is looked for where runtimes
//! keep their networks: one with a plugin that cannot work beside a port of the switch is refused, with what to use instead, before
//! anything is done. Where a runtime's directory is another, `confDirs` says so, or its environment does (`NETCONFPATH`, as nerdctl and cnitool have it).

use crate::conf::{CONF_LEN_MAX, Conf, TYPE};
use crate::invocation::Invocation;
use crate::refusal::{INVALID_CONFIG, Refusal};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use switch_api::chain::needs_veth;

/// Where containerd, CRI-O and podman look for networks, and where k3s, MicroK8s and OpenShift do.
const DIRECTORIES: [&str; 4] = [
    "/etc/cni/net.d",
    "/var/lib/rancher/k3s/agent/etc/cni/net.d",
    "/var/snap/microk8s/current/args/cni-network",
    "/etc/kubernetes/cni/net.d",
];
/// Files of a directory that are read: a runtime that has more has other troubles, and ADD is not to wait for them.
const FILES_MAX: usize = 64;

/// Refuses a list that cannot work.
pub fn refuse(invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    // What the configuration says counts before what the runtime was told.
    let directories = match (&conf.conf_dirs, &invocation.conf_dir) {
        (Some(directories), _) => directories.clone(),
        (None, Some(directory)) => vec![directory.clone()],
        (None, None) => DIRECTORIES.map(PathBuf::from).to_vec(),
    };
    for (path, list) in directories.iter().filter_map(|directory| list_of(directory, &conf.network)) {
        if let Some((kind, instead)) = needs_veth(&list) {
            let text = format!(
                "the plugin {kind} does not work beside {TYPE} in the network {}: it needs a veth pair",
                conf.network
            );
            return Err(
                Refusal::new(INVALID_CONFIG, text).details(format!("{instead}, in {}", path.display()))
            );
        }
    }
    Ok(())
}

/// The list of a network that runtimes take: the first of this name, in the order of files (libcni, `LoadConfList`). One of the same name
/// without our plugin is not what we are asked for.
fn list_of(directory: &Path, network: &str) -> Option<(PathBuf, Value)> {
    let entries = std::fs::read_dir(directory).ok()?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "conflist"));
    files.sort();
    files.into_iter().take(FILES_MAX).find_map(|path| {
        let mut bytes = Vec::new();
        // What cannot be read is the runtime's to complain of.
        File::open(&path).ok()?.take(CONF_LEN_MAX).read_to_end(&mut bytes).ok()?;
        let list: Value = serde_json::from_slice(&bytes).ok()?;
        (list["name"] == network && has_ours(&list)).then_some((path, list))
    })
}

fn has_ours(list: &Value) -> bool {
    list["plugins"].as_array().into_iter().flatten().any(|plugin| plugin["type"] == TYPE)
}
