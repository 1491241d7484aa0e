//! How large a packet may be that a pod sends out of the node.

use crate::control::daemon::{Daemon, PortLife};
use crate::control::rtnl::Rtnl;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switch_api::PortKind;

/// Addresses that only a default route leads to: they are for documents (RFC 5737, RFC 3849).
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0, 0, 0, 1)),
];

impl Daemon {
    /// What fits through the host port and through the devices of the node's default routes; none without either.
    pub(in crate::control) fn pod_mtu(&self) -> Option<u16> {
        let hosts =
            self.model.ports.values().filter(|port| matches!(port.object.kind, PortKind::Host { .. }));
        let doors = hosts.filter_map(|port| match self.ports.get(&port.id)? {
            PortLife::Up(door) => Some((door.mtu, door.tap.as_ref()?.link().index)),
            PortLife::Down(_) => None,
        });
        let doors: Vec<(u16, u32)> = doors.collect();
        let ours = doors.iter().map(|(mtu, _)| *mtu).min()?;
        let own: Vec<u32> = doors.iter().map(|(_, index)| *index).collect();
        // Without an answer it is as if there was no way.
        let uplink = uplink_mtu(&own).unwrap_or_default()?;
        Some(u16::try_from(uplink).unwrap_or(u16::MAX).min(ours))
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
