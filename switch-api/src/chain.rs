//! Chains of CNI plugins that the switch's is one of: which others cannot work in them. The plugin and the installer say the same.

use serde_json::Value;

/// Plugins that look for a veth pair's other end, which a TAP does not have and whose packets the kernel never sees, and what does it
/// instead.
pub const NEEDS_VETH: [(&str, &str); 2] = [
    ("bandwidth", "switch-cni has that capability itself (docs/CNI.md, Bandwidth); take the plugin out"),
    ("firewall", "network policies say who may speak with whom (`switch-ctl policy`); take the plugin out"),
];

/// The first plugin of a network's list (`plugins`) that cannot work in it, and what to use instead.
pub fn needs_veth(list: &Value) -> Option<(&'static str, &'static str)> {
    let plugins = list["plugins"].as_array().into_iter().flatten();
    let kinds = plugins.filter_map(|plugin| plugin["type"].as_str());
    let mut known = kinds.filter_map(|kind| NEEDS_VETH.iter().find(|(name, _)| *name == kind));
    known.next().copied()
}
