//! The host ports' devices stay as they are declared: addresses, routes and MTU that others took away or changed are put back, and
//! told of. What others have added is theirs. A pod's device is the pod's own, and is left as the pod has it.

use super::daemon::{Daemon, PortLife};
use super::readdress::Addressing;
use super::rtnl::Rtnl;
use super::tap::MTU_DEFAULT;
use crate::config::snapshot::PortId;
use std::io;
use switch_api::{Mac, Port, PortKind};

/// Things put right that are told one by one; of more the number is told.
const TOLD_MAX: usize = 8;

/// What a device is to be.
#[derive(Debug)]
struct Kept {
    index: u32,
    device: String,
    mac: Option<Mac>,
    mtu: u32,
    addressing: Addressing,
}

impl Daemon {
    /// Looks at the devices of host ports.
    pub(super) fn look_at_host_devices(&mut self) {
        let kept: Vec<Kept> =
            self.model.ports.values().filter_map(|port| self.kept(port.id, &port.object)).collect();
        if kept.is_empty() {
            return;
        }
        let mut changed = Vec::new();
        let looked =
            Rtnl::open().and_then(|rtnl| kept.iter().try_for_each(|it| it.keep(&rtnl, &mut changed)));
        self.tell_all_repaired(&changed);
        if let Err(error) = looked {
            tracing::warn!("the host port's device is not as declared: {error}; it is tried again");
        }
    }

    /// Whether a port is the node's own.
    pub(super) fn is_host_port(&self, id: PortId) -> bool {
        let is_it = |kind: &PortKind| matches!(kind, PortKind::Host { .. });
        self.model.ports.values().any(|port| port.id == id && is_it(&port.object.kind))
    }

    fn kept(&self, id: PortId, port: &Port) -> Option<Kept> {
        let PortKind::Host { mac, .. } = &port.kind else { return None };
        let Some(PortLife::Up(door)) = self.ports.get(&id) else { return None };
        let link = door.tap.as_ref()?.link();
        Some(Kept {
            index: link.index,
            device: link.name.clone(),
            mac: *mac,
            mtu: u32::from(port.settings.mtu.unwrap_or(MTU_DEFAULT)),
            addressing: Addressing::of(port),
        })
    }

    /// These were not as they are to be, and are now.
    pub(super) fn tell_all_repaired(&mut self, changed: &[String]) {
        for what in changed.iter().take(TOLD_MAX) {
            self.tell_repaired(what, "was changed");
        }
        if let Some(more @ 1..) = changed.len().checked_sub(TOLD_MAX) {
            self.tell_repaired(&format!("{more} more routes, neighbours and addresses"), "were changed");
        }
    }
}

impl Kept {
    /// Puts right what is not so. The MTU first: with one below 1280 a device has no IPv6 address.
    fn keep(&self, rtnl: &Rtnl, changed: &mut Vec<String>) -> io::Result<()> {
        let device = &self.device;
        // One that is gone makes its port fall.
        let Some(link) = rtnl.link_at(self.index)? else { return Ok(()) };
        if link.mtu != self.mtu {
            rtnl.set_mtu(self.index, self.mtu)?;
            changed.push(format!("the MTU of {device}, {} instead of {},", link.mtu, self.mtu));
        }
        if let Some(mac) = self.mac.filter(|mac| link.mac != Some(*mac)) {
            rtnl.set_mac(self.index, mac)?;
            changed.push(format!("the MAC address {mac} of {device}"));
        }
        for cidr in &self.addressing.addresses {
            if is_new(rtnl.add_address(self.index, *cidr))? {
                changed.push(format!("the address {cidr} of {device}"));
            }
        }
        for route in &self.addressing.routes {
            if is_new(rtnl.add_route(self.index, route))? {
                changed.push(format!("the route to {} through {device}", route.to));
            }
        }
        Ok(())
    }
}

/// Whether what was to be added was not there.
fn is_new(added: io::Result<()>) -> io::Result<bool> {
    match added {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        added => added.map(|()| true),
    }
}
