//! How large a packet may be that a pod sends out of the node, and that pods' devices follow when that changes.

use crate::config::Checked;
use crate::config::checked::OWN_MTU_RANGE;
use crate::config::snapshot::PortId;
use crate::control::daemon::{Daemon, PortLife};
use crate::control::rtnl::Rtnl;
use crate::control::tap::MTU_DEFAULT;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use switch_api::{Name, Port, PortKind};

/// Addresses that only a default route leads to: they are for documents (RFC 5737, RFC 3849).
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0, 0, 0, 1)),
];

impl Daemon {
    /// What fits through the host port and through the devices of the node's default routes, and is possible at all; none without a way out. Where uplinks go by
    /// the kernel's routes there may be no host port.
    pub(in crate::control) fn pod_mtu(&self) -> Option<u16> {
        let hosts =
            self.model.ports.values().filter(|port| matches!(port.object.kind, PortKind::Host { .. }));
        let doors = hosts.filter_map(|port| match self.ports.get(&port.id)? {
            PortLife::Up(door) => Some((door.mtu, door.tap.as_ref()?.link().index)),
            PortLife::Down(_) => None,
        });
        let doors: Vec<(u16, u32)> = doors.collect();
        let ours = doors.iter().map(|(mtu, _)| *mtu).min();
        let is_uplink = |port: &Port| port.kind.shared_nic().is_some();
        if ours.is_none() && !self.model.ports.values().any(|port| is_uplink(&port.object)) {
            return None;
        }
        let own: Vec<u32> = doors.iter().map(|(_, index)| *index).collect();
        // Without an answer it is as if there was no way.
        let uplink = uplink_mtu(&own).unwrap_or_default()?;
        let most = ours.unwrap_or(*OWN_MTU_RANGE.end()).min(*OWN_MTU_RANGE.end());
        Some(u16::try_from(uplink).unwrap_or(u16::MAX).min(most))
    }

    /// Once a second: pods whose devices follow the node's way out are given its MTU if that is another. A node that has no way at the
    /// moment leaves them as they are, and so does a port that is down: it follows when it is up again.
    pub(in crate::control) fn follow_mtu(&mut self) {
        let follows = |port: &Port| port.settings.mtu_follows;
        if !self.model.ports.values().any(|port| follows(&port.object)) {
            return;
        }
        let Some(mtu) = self.pod_mtu() else { return };
        let xdp_max = Some(self.doors.xdp_mtu_max());
        let is_up = |id: &PortId| matches!(self.ports.get(id), Some(PortLife::Up(_)));
        let due = self.model.ports.iter().filter(|(_, port)| follows(&port.object) && is_up(&port.id));
        let due = due.filter(|(_, port)| {
            port.object.settings.mtu.unwrap_or(MTU_DEFAULT) != port.object.mtu_that_follows(mtu, xdp_max)
        });
        let due: Vec<(Name, PortId)> = due.map(|(name, port)| (name.clone(), port.id)).collect();
        if !due.is_empty() {
            self.change_mtus(&due, mtu);
        }
    }

    /// Devices first, so that nothing is declared that is not so; routes by them have the device's MTU.
    fn change_mtus(&mut self, due: &[(Name, PortId)], mtu: u16) {
        let (mut model, mut had) = (self.model.clone(), BTreeSet::new());
        let xdp_max = Some(self.doors.xdp_mtu_max());
        for (name, id) in due {
            let Some(port) = model.ports.get_mut(name) else { continue };
            had.insert(port.object.settings.mtu.unwrap_or(MTU_DEFAULT));
            // One that is larger would be the end of an xdp port.
            let follows = port.object.mtu_that_follows(mtu, xdp_max);
            Arc::make_mut(&mut port.object).settings.mtu = Some(follows);
            // A pod that cannot be given it now is declared all the same: not to be tried every second. CHECK finds it.
            if let Err(error) = self.set_device_mtu(*id, &port.object) {
                tracing::warn!(port = %name, "its device keeps its MTU: {error}");
            }
        }
        let workers = self.doors.mail.len() as u16;
        let adopted = Checked::after(&self.model, model, workers).and_then(|checked| self.adopt(checked));
        if let Err(error) = adopted {
            return tracing::error!("pods' MTU does not follow: {error}");
        }
        let before = had.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let text =
            format!("the node's way out takes {mtu} bytes now: {} ports follow, from {before}", due.len());
        tracing::info!("{text}");
        let parts = [("mtu", mtu.to_string()), ("before", before), ("ports", due.len().to_string())];
        self.tell("mtu-followed", text, &parts);
    }
}

/// The smallest MTU of the devices that default routes leave by, less our own.
fn uplink_mtu(own: &[u32]) -> io::Result<Option<u32>> {
    let rtnl = Rtnl::open()?;
    let mut ways = Vec::new();
    for address in FAR {
        ways.extend(rtnl.way_to(address)?.filter(|index| !own.contains(index)));
    }
    let mtus = ways.into_iter().map(|index| Ok(rtnl.link_at(index)?.map(|link| link.mtu)));
    Ok(mtus.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().min())
}
