//! A second interface on a network that the container is on already. A kernel has two equal routes there then, and sends by the first of them
//! whatever address a packet is from; the switch's guard drops what comes by an interface whose address it is not. So what is from an
//! address of the second goes by the second: a routing table of the interface's own has its routes again, and a rule for each of its addresses
//! leads there. Letting each interface send from the other's addresses was the alternative: neighbours would be told two MAC addresses of one
//! address, and a kernel with a strict `rp_filter` would still drop what comes by the second.
//!
//! The routes are the port's, so that the daemon makes them again with the device; the rules are the namespace's, and are made here.

use crate::answer::Ip;
use crate::refusal::{Refusal, UNKNOWN_CONTAINER};
use crate::{netns, rules};
use std::io;
use std::net::IpAddr;
use switch_api::{Cidr, DeviceRoute, IpNet, PortKind};

/// Tables of interfaces: this and 24 bits of a hash of the name. Nobody numbers tables so high by hand, and `sbr` counts from 100.
const TABLES: u32 = 0x5300_0000;

/// The table of an interface.
pub fn table(interface: &str) -> u32 {
    TABLES | (crate::switch::fnv(interface.as_bytes()) as u32 & 0x00ff_ffff)
}

/// Which of the addresses are in a network that another interface of the container is in.
pub fn shared(netns: &str, interface: &str, ips: &[Ip]) -> Result<Vec<Ip>, Refusal> {
    if ips.is_empty() {
        return Ok(Vec::new());
    }
    let besides = netns::addresses_besides(netns, interface).map_err(|error| far(netns, &error))?;
    let overlaps = |ip: &Ip, other: &IpNet| {
        let same = ip.address.addr().is_ipv6() == other.addr().is_ipv6();
        same && (ip.address.contains(&other.addr()) || other.contains(&ip.address.addr()))
    };
    Ok(ips.iter().filter(|ip| besides.iter().any(|other| overlaps(ip, other))).cloned().collect())
}

fn far(netns: &str, error: &io::Error) -> Refusal {
    Refusal::new(UNKNOWN_CONTAINER, format!("the namespace {netns} cannot be looked into: {error}"))
        .details("the container is gone, or CNI_NETNS is not its namespace")
}

/// Adds the routes of a device's own table, for these of its addresses.
pub fn add_routes(kind: &mut PortKind, interface: &str, shared: &[Ip]) {
    let Some((_, routes)) = kind.addressed_mut() else { return };
    let table = table(interface);
    let mut own: Vec<DeviceRoute> = Vec::new();
    let mut add = |route: DeviceRoute| {
        if !own.iter().any(|present| present.to == route.to && present.metric == route.metric) {
            own.push(DeviceRoute { table: Some(table), ..route });
        }
    };
    for ip in shared {
        let same = |route: &&DeviceRoute| {
            route.table.is_none() && route.to.address().is_ipv6() == ip.address.addr().is_ipv6()
        };
        // Who is near comes first: by them those that are far are reached.
        cidr(ip.address.trunc()).into_iter().for_each(|near| add(DeviceRoute::new(near, None)));
        routes.iter().filter(same).for_each(|route| add(*route));
        if let Some(gateway) = ip.gateway
            && !routes.iter().filter(same).any(|route| route.to.prefix_len() == 0)
        {
            let any = if gateway.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
            any.parse::<Cidr>().into_iter().for_each(|any| add(DeviceRoute::new(any, Some(gateway))));
        }
    }
    routes.append(&mut own);
}

fn cidr(net: IpNet) -> Option<Cidr> {
    net.to_string().parse().ok()
}

/// Which of a device's addresses are led to its own table.
pub fn led(kind: &PortKind, interface: &str) -> Vec<IpAddr> {
    let (mut kind, table) = (kind.clone(), table(interface));
    let Some((addresses, routes)) = kind.addressed_mut() else { return Vec::new() };
    let near = |address: IpAddr| {
        let is_near = |route: &&DeviceRoute| route.table == Some(table) && route.via.is_none();
        routes.iter().filter(is_near).any(|route| contains(route.to, address))
    };
    addresses.iter().map(|cidr| cidr.address()).filter(|address| near(*address)).collect()
}

fn contains(net: Cidr, address: IpAddr) -> bool {
    IpNet::new(net.address(), net.prefix_len()).is_ok_and(|net| net.contains(&address))
}

/// Makes the rules of a device that is there. Of one that is alone on its network nothing is asked.
pub fn lead(netns: &str, interface: &str, kind: &PortKind) -> Result<(), Refusal> {
    let led = led(kind, interface);
    if led.is_empty() {
        return Ok(());
    }
    rules::lead(netns, table(interface), &led).map_err(|error| {
        let text = format!("what {interface} sends in {netns} cannot be led by it: {error}");
        Refusal::new(crate::refusal::SWITCH_REFUSED, text).details(
            "it is in the network of another interface; ip rule(8) in that namespace shows what is there",
        )
    })
}

/// Takes its rules away. A namespace that is gone has none.
pub fn forget(netns: &str, interface: &str) {
    _ = rules::forget(netns, table(interface), None);
}

/// The same of a port that nobody asks about: its namespace's path may be another one's by now, so nothing but what was its own goes.
pub fn forget_port(interface: &str, kind: &PortKind) {
    let led = led(kind, interface);
    let netns = match kind {
        PortKind::Tap { netns, .. } => netns.as_deref(),
        PortKind::Xdp { pod, .. } => pod.as_ref().map(|end| end.netns.as_str()),
        _ => None,
    };
    if let Some(netns) = netns.filter(|_| !led.is_empty()) {
        _ = rules::forget(netns, table(interface), Some(&led));
    }
}

/// What of its rules is missing.
pub fn missing(netns: &str, interface: &str, kind: &PortKind) -> Vec<String> {
    let due = led(kind, interface);
    if due.is_empty() {
        return Vec::new();
    }
    let present = rules::sources(netns, table(interface)).unwrap_or_default();
    let missing = due.into_iter().filter(|address| !present.contains(address));
    missing
        .map(|address| format!("no rule leads what is from {address} to the table {}", table(interface)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(addresses: &[&str], routes: &[(&str, Option<&str>)]) -> PortKind {
        let mut kind = PortKind::tap("/run/netns/a");
        let (has, leads) = kind.addressed_mut().unwrap();
        *has = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let route = |(to, via): &(&str, Option<&str>)| {
            DeviceRoute::new(to.parse().unwrap(), via.map(|via| via.parse().unwrap()))
        };
        *leads = routes.iter().map(route).collect();
        kind
    }

    fn ip(address: &str, gateway: Option<&str>) -> Ip {
        let gateway = gateway.map(|text| text.parse().unwrap());
        Ip { address: address.parse().unwrap(), gateway, interface: None }
    }

    fn own(kind: &PortKind) -> Vec<String> {
        let mut kind = kind.clone();
        let (_, routes) = kind.addressed_mut().unwrap();
        let table = Some(table("eth1"));
        routes
            .iter()
            .filter(|route| route.table == table)
            .map(|route| DeviceRoute { table: None, ..*route }.to_string())
            .collect()
    }

    #[test]
    fn its_own_table_has_who_is_near_then_its_routes_and_a_way_out() {
        let mut kind = tap(&["10.1.0.5/24", "fd01::5/64"], &[("10.9.0.0/16", Some("10.1.0.9"))]);
        add_routes(&mut kind, "eth1", &[ip("10.1.0.5/24", Some("10.1.0.1"))]);
        assert_eq!(own(&kind), ["10.1.0.0/24", "10.9.0.0/16 via 10.1.0.9", "0.0.0.0/0 via 10.1.0.1"]);
        assert_eq!(led(&kind, "eth1"), ["10.1.0.5".parse::<IpAddr>().unwrap()], "the other is alone");
        assert!(led(&kind, "eth2").is_empty());
        // A default route that is there is the one that counts.
        let mut kind = tap(&["fd01::5/64"], &[("::/0", Some("fe80::1"))]);
        add_routes(&mut kind, "eth1", &[ip("fd01::5/64", Some("fd01::1"))]);
        assert_eq!(own(&kind), ["fd01::/64", "::/0 via fe80::1"]);
        // Two addresses of one network are near by the same route.
        let mut kind = tap(&["10.1.0.5/24", "10.1.0.6/24"], &[]);
        add_routes(&mut kind, "eth1", &[ip("10.1.0.5/24", None), ip("10.1.0.6/24", None)]);
        assert_eq!((own(&kind), led(&kind, "eth1").len()), (vec!["10.1.0.0/24".to_owned()], 2));
    }

    #[test]
    fn tables_stay_the_same_for_ever() {
        // They are in namespaces of running containers.
        assert_eq!(table("eth1"), table("eth1"));
        assert_ne!(table("eth0"), table("eth1"));
        assert_eq!(table("net1") >> 24, 0x53);
    }
}
