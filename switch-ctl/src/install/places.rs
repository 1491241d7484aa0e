//! Where runtimes look: for plugins, and for networks. And whether somebody else's network is there already.

use serde_json::Value;
use std::path::{Path, PathBuf};
use switch_api::chain::needs_veth;
use switch_api::{ApiError, Code};

/// What our network's configuration is called. Kubernetes' runtimes take the first of a directory, in the order of names.
pub const CONFLIST: &str = "10-switch.conflist";

/// Where kubeadm puts what a node of Kubernetes is told.
const KUBERNETES: &str = "/etc/kubernetes";
const K3S: &str = "k3s";

/// A distribution's places: how it is recognised, its plugins' directories, its networks' directories.
struct Known {
    what: &'static str,
    /// It is there if one of these is.
    signs: &'static [&'static str],
    /// Those that are there are used; if none is, the first is made.
    plugins: &'static [&'static str],
    networks: &'static str,
}

const KNOWN: [Known; 2] = [
    // kubeadm, containerd, CRI-O; Debian's podman looks for plugins in /usr/lib/cni.
    Known {
        what: "kubeadm",
        signs: &[KUBERNETES, "/opt/cni/bin", "/etc/cni/net.d"],
        plugins: &["/opt/cni/bin", "/usr/lib/cni"],
        networks: "/etc/cni/net.d",
    },
    // `current` leads to another directory after an upgrade; newer ones have a directory that stays.
    Known {
        what: K3S,
        signs: &["/var/lib/rancher/k3s"],
        plugins: &["/var/lib/rancher/k3s/data/current/bin", "/var/lib/rancher/k3s/data/cni"],
        networks: "/var/lib/rancher/k3s/agent/etc/cni/net.d",
    },
];

/// What all paths are below.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// A directory that is there.
    pub fn new(path: &Path) -> Result<Self, ApiError> {
        match path.is_dir() {
            true => Ok(Self(path.to_path_buf())),
            false => Err(ApiError::new(Code::NotFound, format!("{} is no directory", path.display()))
                .field("root")
                .hint("make it, or name the directory that the system's tree is mounted at")),
        }
    }

    /// A path of the installed system, as this process sees it.
    pub fn at(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Where the plugin and the network's configuration go.
#[derive(Debug)]
pub struct Places {
    /// For whom.
    pub found: Vec<&'static str>,
    /// Directories of plugins.
    pub plugins: Vec<PathBuf>,
    /// Directories of networks.
    pub networks: Vec<PathBuf>,
}

impl Places {
    /// Of every distribution that is there.
    pub fn find(root: &Root) -> Result<Self, ApiError> {
        let mut places = Self { found: Vec::new(), plugins: Vec::new(), networks: Vec::new() };
        let is_there = |path: &&&str| root.at(Path::new(path)).is_dir();
        for known in KNOWN.iter().filter(|known| known.signs.iter().any(|sign| is_there(&sign))) {
            let mut plugins: Vec<_> = known.plugins.iter().filter(is_there).map(PathBuf::from).collect();
            if plugins.is_empty() {
                plugins.push(known.plugins[0].into());
            }
            places.found.push(known.what);
            places.plugins.extend(plugins);
            places.networks.push(known.networks.into());
        }
        match places.found.is_empty() {
            false => Ok(places),
            true => {
                let signs: Vec<_> = KNOWN.iter().flat_map(|known| known.signs).copied().collect();
                let text = format!("no container runtime is here: there is none of {}", signs.join(", "));
                Err(ApiError::new(Code::NotFound, text).hint(
                    "install the runtime first, or make the directory in which yours looks for networks",
                ))
            }
        }
    }

    /// Refuses while another network is in use: with two, a runtime takes whichever comes first, and nobody knows it.
    pub fn refuse_others(&self, root: &Root) -> Result<(), ApiError> {
        let mut others = Vec::new();
        for directory in &self.networks {
            let Ok(entries) = std::fs::read_dir(root.at(directory)) else { continue };
            for entry in entries.flatten() {
                let path = directory.join(entry.file_name());
                if is_configuration(&path) && !path.ends_with(CONFLIST) {
                    let text = std::fs::read(entry.path()).unwrap_or_default();
                    others.extend(foreign(&text).map(|what| format!("{} ({what})", path.display())));
                }
            }
        }
        others.sort();
        match others.is_empty() {
            true => Ok(()),
            false => {
                let text = format!("another network is in use here: {}", others.join(", "));
                Err(ApiError::new(Code::Busy, text).hint(
                    "remove what put it there (its DaemonSet, its package), then the file, and install again; nothing was changed",
                ))
            }
        }
    }

    /// Refuses while a network of ours is there, under another name, with a plugin behind ours that cannot work: every ADD would fail.
    pub fn refuse_chains(&self, root: &Root) -> Result<(), ApiError> {
        for directory in &self.networks {
            let Ok(entries) = std::fs::read_dir(root.at(directory)) else { continue };
            for entry in entries.flatten() {
                let path = directory.join(entry.file_name());
                let text = std::fs::read(entry.path()).unwrap_or_default();
                let list = serde_json::from_slice::<Value>(&text).unwrap_or_default();
                if is_configuration(&path)
                    && !path.ends_with(CONFLIST)
                    && list["plugins"][0]["type"] == super::PLUGIN
                    && let Some((kind, instead)) = needs_veth(&list)
                {
                    let (path, plugin) = (path.display(), super::PLUGIN);
                    let text =
                        format!("in {path} the plugin {kind} is behind {plugin}, and needs a veth pair");
                    return Err(ApiError::new(Code::Busy, text)
                        .hint(format!("{instead}, and install again; nothing was changed")));
                }
            }
        }
        Ok(())
    }

    /// Whether Kubernetes is here, whose proxy translates the addresses of services.
    pub fn has_kubernetes(&self, root: &Root) -> bool {
        self.found.contains(&K3S) || root.at(Path::new(KUBERNETES)).is_dir()
    }

    /// What a person should know.
    pub fn notes(&self) -> Vec<String> {
        let moves =
            self.plugins.iter().any(|path| path.components().any(|part| part.as_os_str() == "current"));
        moves
            .then(|| {
                "k3s replaces its directory of plugins when it is upgraded: install again after that".into()
            })
            .into_iter()
            .collect()
    }
}

/// What libcni reads (`ConfFiles`).
fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|kind| ["conf", "conflist", "json"].iter().any(|known| kind == *known))
}

/// Which network a configuration is of, and by which plugins; none if it is ours, or no network at all.
fn foreign(text: &[u8]) -> Option<String> {
    let Ok(conf) = serde_json::from_slice::<Value>(text) else {
        return Some("which cannot be read".into());
    };
    let kind = |plugin: &Value| plugin["type"].as_str().unwrap_or("no type").to_owned();
    let kinds: Vec<_> = match conf["plugins"].as_array() {
        Some(plugins) => plugins.iter().map(kind).collect(),
        None => vec![kind(&conf)],
    };
    let is_harmless = |kind: &String| kind == "loopback";
    if kinds.iter().all(is_harmless) || kinds.first().is_some_and(|kind| kind == super::PLUGIN) {
        return None;
    }
    Some(format!("network {}, by {}", conf["name"].as_str().unwrap_or("without a name"), kinds.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_else_is_there_is_told_from_who_is_not() {
        let flannel = br#"{"name":"cbr0","plugins":[{"type":"flannel"},{"type":"portmap"}]}"#;
        assert_eq!(foreign(flannel).unwrap(), "network cbr0, by flannel, portmap");
        assert_eq!(foreign(br#"{"type":"bridge"}"#).unwrap(), "network without a name, by bridge");
        assert!(foreign(b"nonsense").unwrap().contains("cannot be read"));
        assert_eq!(foreign(br#"{"type":"loopback"}"#), None);
        assert_eq!(foreign(br#"{"plugins":[{"type":"switch-cni"},{"type":"portmap"}]}"#), None);
        assert!(
            is_configuration(Path::new("/a/b.conflist")) && !is_configuration(Path::new("/a/b.conflist.bak"))
        );
    }
}
