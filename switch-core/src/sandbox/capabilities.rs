//! Capabilities (capabilities(7)): what stays, and everything else goes, for good: from the bounding set as well.

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What stays, how it is called, and what for.
pub const KEPT: &[(CapabilitySet, &str, &str)] = &[
    (CapabilitySet::NET_ADMIN, "net_admin", "make and change TAP devices, attach XDP programs, write routes"),
    (CapabilitySet::NET_RAW, "net_raw", "AF_XDP and packet sockets"),
    (CapabilitySet::BPF, "bpf", "load the XDP program and its maps for each port"),
    (CapabilitySet::IPC_LOCK, "ipc_lock", "register packet memory, which grows, with the kernel"),
    (
        CapabilitySet::SYS_ADMIN,
        "sys_admin",
        "enter a pod's network namespace (setns(2)), make the one of an anchor",
    ),
];

/// What stays, as one set.
pub fn kept() -> CapabilitySet {
    KEPT.iter().map(|(set, ..)| *set).collect()
}

/// Drops all others from this thread, which will start the others. What is left, in words.
pub fn drop_others() -> io::Result<String> {
    for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        // A kernel knows fewer of them. Without CAP_SETPCAP the set stays, which gives nothing: nothing is executed.
        if !kept().contains(capability) && capability_is_in_bounding_set(capability).unwrap_or(false) {
            _ = remove_capability_from_bounding_set(capability);
        }
    }
    let left = capabilities(None)?.permitted & kept();
    set_capabilities(
        None,
        CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() },
    )?;
    set_no_new_privs(true)?;
    let names: Vec<_> =
        KEPT.iter().filter(|(set, ..)| left.contains(*set)).map(|(_, name, _)| *name).collect();
    Ok(if names.is_empty() { "none".into() } else { names.join(" ") })
}
