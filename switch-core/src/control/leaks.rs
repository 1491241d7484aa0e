//! Leases beside ports: an attachment that was killed midway, or whose end nobody told, leaves a lease of an address that no port
//! has. Where the CNI plugin alone gives addresses to others' devices (`ipam` in another plugin's configuration), a lease without a
//! port is how it is meant.

use super::daemon::Daemon;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use switch_api::{Lease, LeaseFilter, LeaseStatus, Name};

/// A lease is there before its port: for so long after it was acquired it is no leak. [cni-add] takes 50 ms at its 99th percentile; a
/// kernel that has much to do takes seconds for a device.
const GRACE: Duration = Duration::from_secs(10);

/// Leases that were acquired a moment ago, by one of their addresses.
#[derive(Debug, Default)]
pub(super) struct Young(HashMap<IpAddr, Instant>);

impl Young {
    pub(super) fn note(&mut self, lease: &Lease) {
        self.0.retain(|_, since| since.elapsed() < GRACE);
        self.0.extend(lease.addresses.first().map(|has| (has.address.addr(), Instant::now())));
    }

    fn has(&self, lease: &Lease) -> bool {
        let since = lease.addresses.first().and_then(|has| self.0.get(&has.address.addr()));
        since.is_some_and(|since| since.elapsed() < GRACE)
    }
}

impl Daemon {
    /// Leases, each with the port that has its address.
    pub(super) fn list_leases(&self, filter: &LeaseFilter) -> Vec<LeaseStatus> {
        let ports = self.ports_by_address();
        let mut leases = self.book.leases(filter);
        leases.retain(|status| !filter.without_port || self.is_leak(&status.lease, &ports));
        for status in &mut leases {
            status.port = port_of(&status.lease, &ports).cloned();
        }
        leases
    }

    /// Those of `leases` that a filter means; it fits them already, as far as that is to be seen without ports.
    pub(super) fn narrow_to_leaks(&self, filter: &LeaseFilter, leases: &mut Vec<Lease>) {
        if filter.without_port {
            let ports = self.ports_by_address();
            leases.retain(|lease| self.is_leak(lease, &ports));
        }
    }

    fn ports_by_address(&self) -> HashMap<IpAddr, &Name> {
        let mut ports = HashMap::new();
        for (name, port) in &self.model.ports {
            let addresses = port.object.kind.pod_addresses().unwrap_or_default();
            ports.extend(addresses.iter().map(|cidr| (cidr.address(), name)));
        }
        ports
    }

    /// What was acquired before this daemon began may be as young as it is.
    fn is_leak(&self, lease: &Lease, ports: &HashMap<IpAddr, &Name>) -> bool {
        let is_young = self.young_leases.has(lease) || self.started.elapsed() < GRACE;
        !is_young && port_of(lease, ports).is_none()
    }
}

fn port_of<'a>(lease: &Lease, ports: &HashMap<IpAddr, &'a Name>) -> Option<&'a Name> {
    lease.addresses.iter().find_map(|has| ports.get(&has.address.addr()).copied())
}
