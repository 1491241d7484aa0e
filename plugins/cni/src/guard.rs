//! What a container may say of itself: its MAC address, its addresses, and what the network's configuration allows
//! beside them.

use crate::conf::Conf;
use std::net::IpAddr;
use switch_api::{Mac, Prefix, SourceGuard};

/// The guard of a container's port; none if the network is not guarded. A container without addresses may send from
/// any, unless some are allowed by name.
pub fn of(conf: &Conf, mac: Mac, addresses: impl Iterator<Item = IpAddr>) -> Option<SourceGuard> {
    let own = addresses.map(Prefix::host);
    let mut addresses: Vec<_> = own.chain(conf.allowed_source_prefixes.iter().copied()).collect();
    // CHECK compares, and a chain of plugins may change the order.
    addresses.sort();
    addresses.dedup();
    conf.source_guard.then(|| SourceGuard { macs: vec![mac], addresses })
}

/// What a guard lets through, for people.
pub fn shown(guard: Option<&SourceGuard>) -> String {
    let list = |items: Vec<String>| if items.is_empty() { "any".into() } else { items.join(",") };
    match guard {
        None => "nothing is guarded".into(),
        Some(guard) => format!(
            "MACs {}, addresses {}",
            list(guard.macs.iter().map(ToString::to_string).collect()),
            list(guard.addresses.iter().map(ToString::to_string).collect())
        ),
    }
}
