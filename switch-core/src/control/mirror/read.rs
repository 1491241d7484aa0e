//! A route of the kernel as rtnetlink writes it (linux/rtnetlink.h), read into what the mirror keeps.

use super::super::nexthop::Nexthops;
use super::super::rtnl::table_of;
use crate::config::mirrored::{KernelHop, KernelPlace, KernelWay, Kind, TABLE_LOCAL};
use crate::config::nexthops::{MTU_MIN_V4, MTU_MIN_V6};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteType, RouteVia,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use switch_api::Prefix;

/// A route that concerns us; `Err` names one that does and cannot be understood.
pub(super) fn read(
    message: &RouteMessage,
    name: &dyn Fn(u32) -> String,
    nexthops: &mut dyn FnMut() -> Arc<Nexthops>,
) -> Result<Option<(KernelPlace, KernelWay)>, String> {
    let (header, table) = (&message.header, table_of(message));
    let mut kind = match header.kind {
        RouteType::Unicast => Kind::Forward,
        RouteType::Local if table == TABLE_LOCAL => Kind::Local,
        RouteType::BlackHole => Kind::Blackhole,
        RouteType::Unreachable => Kind::Unreachable,
        RouteType::Prohibit => Kind::Prohibit,
        RouteType::Throw => return Err(format!("a throw route in table {table}")),
        _ => return Ok(None),
    };
    if table == TABLE_LOCAL && kind != Kind::Local || header.flags.contains(RouteFlags::Cloned) {
        return Ok(None);
    }
    let any = if header.address_family == AddressFamily::Inet {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let mut prefix = Prefix { address: any, len: header.destination_prefix_length };
    let (mut metric, mut object, mut single, mut hops) = (0, None, KernelHop::default(), Vec::new());
    let mut mtu = None;
    let mut odd = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(to)) => prefix.address = IpAddr::V4(*to),
            RouteAttribute::Destination(RouteAddress::Inet6(to)) => prefix.address = IpAddr::V6(*to),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Metrics(said) => mtu = mtu_of(said, prefix.address.is_ipv4()),
            RouteAttribute::Oif(index) => single.device = name(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => single.gateway = gateway(attribute),
            RouteAttribute::NhId(id) => object = Some(*id),
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => odd = Some("an encapsulation"),
            RouteAttribute::MultiPath(several) => hops.extend(several.iter().map(|hop| KernelHop {
                device: name(hop.interface_index),
                gateway: hop.attributes.iter().find_map(gateway),
                // The kernel's field is the weight less one.
                weight: u16::from(hop.hops) + 1,
            })),
            _ => {}
        }
    }
    if header.tos != 0 || header.source_prefix_length != 0 {
        odd = Some("a choice by source or type of service");
    }
    if is_of_the_link(prefix) {
        return Ok(None);
    }
    if let Some(odd) = odd {
        return Err(format!("the route to {prefix} in table {table} has {odd}"));
    }
    if !single.device.is_empty() {
        single.weight = 1;
        hops.push(single);
    }
    if let Some(id) = object.filter(|_| hops.is_empty() && kind == Kind::Forward) {
        // `net.ipv4.nexthop_compat_mode=0`: the route names its next hops by number alone.
        match nexthops().resolve(id) {
            None => {
                return Err(format!("the route to {prefix} in table {table} has the unknown next hop {id}"));
            }
            Some(ways) if ways.is_empty() => kind = Kind::Blackhole,
            Some(ways) => hops.extend(ways.into_iter().map(|way| KernelHop {
                device: name(way.device),
                gateway: way.gateway,
                weight: way.weight,
            })),
        }
    }
    let way = KernelWay { protocol: protocol(header.protocol), kind, hops, mtu };
    Ok(Some((KernelPlace { table, prefix, metric }, way)))
}

/// What the kernel takes to be a route's MTU: 0 is none, and no link carries less than the least there is.
fn mtu_of(said: &[RouteMetric], is_v4: bool) -> Option<u16> {
    let least = if is_v4 { MTU_MIN_V4 } else { MTU_MIN_V6 };
    let mtu = said.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu @ 1..) => Some(*mtu),
        _ => None,
    });
    mtu.and_then(|mtu| u16::try_from(mtu).ok()).map(|mtu| mtu.max(least))
}

fn protocol(protocol: RouteProtocol) -> u8 {
    protocol.into()
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(via)) | RouteAttribute::Via(RouteVia::Inet(via)) => {
            Some(IpAddr::V4(*via))
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(via)) | RouteAttribute::Via(RouteVia::Inet6(via)) => {
            Some(IpAddr::V6(*via))
        }
        _ => None,
    }
}

/// Loopback, link-local and groups: nothing that is routed.
fn is_of_the_link(prefix: Prefix) -> bool {
    match prefix.address {
        IpAddr::V4(v4) => prefix.len > 0 && (v4.is_loopback() || v4.is_link_local() || v4.is_multicast()),
        IpAddr::V6(v6) => {
            prefix.len > 0 && (v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast())
        }
    }
}
