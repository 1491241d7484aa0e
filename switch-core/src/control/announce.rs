//! What the node's kernel is told of the networks behind the switch: for each a route to the host port's device,
//! which routing daemons export, and below it one that says "unreachable", so that packets for pods neither loop
//! nor leave by the default route while the device is away. All of it is marked as ours (`proto 83`), compared
//! with what the kernel has, and taken away with the port.

use super::daemon::{Daemon, PortLife};
use super::rtnl::{Rtnl, family, table_of};
use crate::config::mirrored::KernelPlace;
use crate::config::uplink::ToKernel;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use switch_api::{KERNEL_PROTOCOL, Mac, Name, Prefix, Uplink, VrfStatus};

/// Metric of the route to the switch. Not 0, which IPv6 takes for 1024; lower than what routing daemons write
/// (BIRD: 32, FRR: 20), so that nobody far away takes a network that is here.
const METRIC_HERE: u32 = 1;
/// Metric of the route that says "unreachable": anything else that leads to the network comes first.
const METRIC_LAST: u32 = u32::MAX;
/// What others change is to be right again within 5 s, and looks are made at ticks of a second: so often all of it is looked at.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// Where it takes long, with a million routes in the table and no mirror of it, so many times as long is waited till the next look...
const LOOK_FACTOR: u32 = 20;
/// ...but no longer than this, with which the 5 s are kept.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(3);

/// A route of ours in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ours {
    table: u32,
    prefix: Prefix,
    /// The device and the switch's address behind it; none says "unreachable".
    way: Option<(u32, IpAddr)>,
}

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { table, prefix, way } = self;
        match way {
            Some((_, address)) => write!(f, "the route to {prefix} by {address} in table {table}"),
            None => write!(f, "the route \"unreachable {prefix}\" in table {table}"),
        }
    }
}

/// An address of the switch, as the kernel's neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    device: u32,
    address: IpAddr,
    mac: Mac,
}

/// What the kernel was told.
#[derive(Debug, Default)]
pub struct Told {
    routes: BTreeSet<Ours>,
    neighbours: BTreeSet<Known>,
    looked: Option<Instant>,
    /// How long the last look took.
    took: Duration,
    /// Something failed: what is changed next is not somebody else's doing.
    is_behind: bool,
    /// Why it does not have all of it.
    complaint: Option<String>,
}

impl Daemon {
    /// Tells the kernel what has changed since it was told; `anew`: compares with what it has.
    pub(super) fn tell_kernel(&mut self, anew: bool) {
        let start = Instant::now();
        let (routes, neighbours) = self.to_be_told();
        let same = (&routes, &neighbours) == (&self.told.routes, &self.told.neighbours);
        // Who has and had no uplink leaves the kernel's tables alone: they may be another daemon's.
        if same && (!anew || routes.is_empty()) {
            return;
        }
        let mut changed = Vec::new();
        let outcome = Rtnl::open().and_then(|rtnl| {
            changed.extend(tell_neighbours(&rtnl, &self.told.neighbours, &neighbours)?);
            let tables: BTreeSet<u32> =
                routes.iter().chain(&self.told.routes).map(|ours| ours.table).collect();
            tables.into_iter().try_for_each(|table| tell_routes(&rtnl, table, &routes, &mut changed))
        });
        if same && !self.told.is_behind {
            self.tell_all_repaired(&changed);
        }
        // What others' routes stand in the way of is not what we have still to do.
        let is_behind = outcome.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists);
        let complaint = outcome.err().map(|error| format!("the kernel did not take a route: {error}"));
        if let Some(text) = complaint.as_ref().filter(|text| self.told.complaint.as_ref() != Some(*text)) {
            tracing::warn!("{text}");
        }
        let (looked, took) = (Some(Instant::now()), start.elapsed());
        self.told = Told { routes, neighbours, looked, took, is_behind, complaint };
    }

    /// Once a second: what failed is tried again, and what others may have changed is looked at if it is time.
    pub(super) fn look_at_kernel(&mut self) {
        let pause = (self.told.took * LOOK_FACTOR).clamp(LOOK_PAUSE, LOOK_PAUSE_MAX);
        let is_due = self.told.looked.is_none_or(|looked| looked.elapsed() >= pause);
        if is_due {
            self.look_at_host_devices();
        }
        // What a mirror has costs nothing to ask, so that no route is asked for; neighbours it does not have.
        let misses_routes = match self.is_mirrored() {
            Some(has_all) => !has_all && self.told.complaint.is_none(),
            None => is_due,
        };
        if misses_routes || is_due && self.told.complaint.is_some() {
            self.tell_kernel(true);
        } else if is_due {
            let changed = self.put_own_neighbours();
            self.tell_all_repaired(&changed);
        }
        if is_due {
            self.told.looked = Some(Instant::now());
        }
    }

    /// Puts the switch's addresses among the kernel's neighbours, and leaves routes alone; those that were not there.
    pub(super) fn put_own_neighbours(&mut self) -> Vec<String> {
        let wanted = &self.told.neighbours;
        let changed = Rtnl::open().and_then(|rtnl| tell_neighbours(&rtnl, wanted, wanted));
        changed.unwrap_or_else(|error| {
            // It is looked at again before long, and then tried with the routes.
            self.told.complaint = Some(format!("the kernel did not take a neighbour: {error}"));
            self.told.is_behind = true;
            Vec::new()
        })
    }

    /// Whether the mirror has every route of ours; none if it does not know.
    fn is_mirrored(&self) -> Option<bool> {
        let routes = &self.told.routes;
        let has = |ours: &Ours| {
            let (table, prefix) = (ours.table, ours.prefix);
            let metric = if ours.way.is_some() { METRIC_HERE } else { METRIC_LAST };
            let way = self.model.mirrored.get(KernelPlace { table, prefix, metric });
            way.is_some_and(|way| way.protocol == KERNEL_PROTOCOL)
        };
        routes.iter().all(|ours| self.mirrors_all(ours.table)).then(|| routes.iter().all(has))
    }

    /// Takes all of it away.
    pub(super) fn hush_kernel(&mut self) {
        let tables: BTreeSet<u32> = self.told.routes.iter().map(|ours| ours.table).collect();
        let gone = Rtnl::open().and_then(|rtnl| {
            tables
                .into_iter()
                .try_for_each(|table| tell_routes(&rtnl, table, &BTreeSet::new(), &mut Vec::new()))
        });
        if let Err(error) = gone {
            tracing::warn!(
                "routes may be left in the kernel (`ip route show proto {KERNEL_PROTOCOL}`): {error}"
            );
        }
        self.told = Told::default();
    }

    fn to_be_told(&self) -> (BTreeSet<Ours>, BTreeSet<Known>) {
        let (mut routes, mut neighbours) = (BTreeSet::new(), BTreeSet::new());
        for name in self.model.vrf_names() {
            let kernel = self.model.to_kernel(name).ok();
            // What comes for pods by an uplink whose switch is dead goes nowhere else either.
            if kernel.is_none() && !self.model.has_uplink(name) {
                continue;
            }
            let table = self.model.vrf(name).kernel_table;
            let device = kernel.as_ref().and_then(|kernel| self.device_of(kernel));
            for network in self.model.led_here(name) {
                let (prefix, address) = (network.prefix, network.gateway);
                routes.insert(Ours { table, prefix, way: None });
                if let (Some(device), Some(kernel)) = (device, &kernel) {
                    routes.insert(Ours { table, prefix, way: Some((device, address)) });
                    neighbours.insert(Known { device, address, mac: kernel.own_mac });
                }
            }
        }
        (routes, neighbours)
    }

    /// The index of the device that leads here from the kernel, while it does.
    pub(super) fn device_of(&self, kernel: &ToKernel) -> Option<u32> {
        match self.ports.get(&kernel.id)? {
            PortLife::Up(door) => Some(door.tap.as_ref()?.link().index),
            PortLife::Down(_) => None,
        }
    }

    /// Routing tables, how they leave, and what stands in the way.
    pub(super) fn list_vrfs(&self) -> Vec<VrfStatus> {
        let main = Name::main();
        let names: BTreeSet<&Name> = self.model.vrf_names().into_iter().chain([&main]).collect();
        names.into_iter().map(|name| self.vrf_status(name)).collect()
    }

    fn vrf_status(&self, name: &Name) -> VrfStatus {
        let vrf = self.model.vrf(name);
        let mut problems = Vec::new();
        let ways = self.model.ways(name);
        let kernel = match self.model.to_kernel(name) {
            Ok(kernel) => Some(kernel),
            Err(_) if vrf.uplink == Uplink::None => None,
            Err(_) if self.model.has_uplink(name) => {
                let text = "no host port leads to the node's kernel: pods do not reach the node, nor what it has by other devices than its uplinks'; `switch-ctl port add host NAME --bridge BRIDGE`";
                problems.push(text.into());
                None
            }
            Err(reason) => {
                problems.push(reason);
                None
            }
        };
        let mut announced = Vec::new();
        if let Some(kernel) = &kernel {
            announced = self.model.led_here(name).into_iter().map(|network| network.prefix).collect();
            if self.device_of(kernel).is_none() {
                let text =
                    format!("port {} is down; the kernel answers \"unreachable\" for pods", kernel.port);
                problems.push(text);
            }
            problems.extend(forwards_not(&kernel.device, &announced));
            problems.extend(self.told.complaint.clone());
        }
        let leads_out = kernel.is_some() || !ways.out.is_empty();
        let mirrored = leads_out.then(|| self.mirror_status(&vrf, &ways, &mut problems)).flatten();
        let uplinks = self.uplink_statuses(name, &ways, &mut problems);
        if announced.is_empty() && !uplinks.is_empty() {
            announced = self.model.led_here(name).into_iter().map(|network| network.prefix).collect();
        }
        let (port, device) = kernel.map(|kernel| (kernel.port, kernel.device)).unzip();
        VrfStatus { vrf, port, device, uplinks, announced, mirrored, problems }
    }
}

/// Whether the kernel forwards what comes by the device. It is the node's business to say so, not ours.
fn forwards_not(device: &str, announced: &[Prefix]) -> Vec<String> {
    let has = |v4: bool| announced.iter().any(|prefix| prefix.address.is_ipv4() == v4);
    let is_off = |path: String| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    let mut problems = Vec::new();
    if has(true) && is_off(format!("/proc/sys/net/ipv4/conf/{device}/forwarding")) {
        problems.push("the kernel does not forward IPv4: sysctl -w net.ipv4.ip_forward=1".into());
    }
    if has(false) && is_off("/proc/sys/net/ipv6/conf/all/forwarding".into()) {
        problems.push("the kernel does not forward IPv6: sysctl -w net.ipv6.conf.all.forwarding=1".into());
    }
    problems
}

/// Makes what the kernel has of ours in `table` what it is to have, and adds to `changed` what was not so. The last resort comes
/// first and goes last.
fn tell_routes(
    rtnl: &Rtnl,
    table: u32,
    wanted: &BTreeSet<Ours>,
    changed: &mut Vec<String>,
) -> io::Result<()> {
    let present = present(rtnl, table)?;
    let wanted = wanted.iter().filter(|ours| ours.table == table);
    let mut in_the_way = None;
    for ours in wanted.clone().filter(|ours| !present.contains(ours)) {
        match rtnl.change(RouteNetlinkMessage::NewRoute(message(ours)), NLM_F_CREATE | NLM_F_EXCL) {
            // Somebody else's, which is his; the others are told all the same.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                in_the_way.get_or_insert(format!(
                    "{ours}: another route has its place; `ip route show {} table {table}` shows it",
                    ours.prefix
                ));
            }
            Err(error) => return Err(io::Error::new(error.kind(), format!("{ours}: {error}"))),
            Ok(()) => changed.push(ours.to_string()),
        }
    }
    let wanted: BTreeSet<&Ours> = wanted.collect();
    for ours in present.iter().rev().filter(|ours| !wanted.contains(ours)) {
        changed.push(ours.to_string());
        match rtnl.change(RouteNetlinkMessage::DelRoute(message(ours)), 0) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
            _ => {}
        }
    }
    in_the_way.map_or(Ok(()), |text| Err(io::Error::new(io::ErrorKind::AlreadyExists, text)))
}

/// Takes away what was told before and is not wanted; what the kernel does not have as it is wanted it is told, and is answered.
fn tell_neighbours(
    rtnl: &Rtnl,
    before: &BTreeSet<Known>,
    wanted: &BTreeSet<Known>,
) -> io::Result<Vec<String>> {
    for gone in
        before.difference(wanted).filter(|gone| !wanted.iter().any(|known| known.address == gone.address))
    {
        // With its device it is gone already.
        _ = rtnl.change(RouteNetlinkMessage::DelNeighbour(neighbour(gone)), 0);
    }
    let mut changed = Vec::new();
    for known in wanted {
        if rtnl.permanent_neighbour(known.device, known.address)? == Some(known.mac) {
            continue;
        }
        rtnl.change(RouteNetlinkMessage::NewNeighbour(neighbour(known)), NLM_F_CREATE | NLM_F_REPLACE)?;
        changed.push(format!("the kernel's neighbour {} at {}", known.address, known.mac));
    }
    Ok(changed)
}

/// What the kernel has of ours in a table.
fn present(rtnl: &Rtnl, table: u32) -> io::Result<BTreeSet<Ours>> {
    let mut found = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        request.header.protocol = RouteProtocol::Other(KERNEL_PROTOCOL);
        request.attributes.push(RouteAttribute::Table(table));
        let answer = rtnl.ask(RouteNetlinkMessage::GetRoute(request), NLM_F_REQUEST | NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                found.extend(ours(&route).filter(|ours| ours.table == table));
            }
            false
        });
        match answer {
            // A table that nobody has written into yet.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            answer => answer?,
        }
    }
    Ok(found)
}

/// Reads a route of ours.
fn ours(message: &RouteMessage) -> Option<Ours> {
    let header = &message.header;
    if u8::from(header.protocol) != KERNEL_PROTOCOL {
        return None;
    }
    let (mut address, mut device, mut gateway) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(to)) => address = Some(IpAddr::V4(*to)),
            RouteAttribute::Destination(RouteAddress::Inet6(to)) => address = Some(IpAddr::V6(*to)),
            RouteAttribute::Gateway(RouteAddress::Inet(via)) => gateway = Some(IpAddr::V4(*via)),
            RouteAttribute::Gateway(RouteAddress::Inet6(via)) => gateway = Some(IpAddr::V6(*via)),
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    let prefix = Prefix { address: address?, len: header.destination_prefix_length };
    let way = if header.kind == RouteType::Unreachable { None } else { Some((device?, gateway?)) };
    Some(Ours { table: table_of(message), prefix, way })
}

fn message(ours: &Ours) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(ours.prefix.address),
        destination_prefix_length: ours.prefix.len,
        protocol: RouteProtocol::Other(KERNEL_PROTOCOL),
        kind: RouteType::Unreachable,
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(ours.prefix.address)));
    message.attributes.push(RouteAttribute::Table(ours.table));
    let metric = if let Some((device, gateway)) = ours.way {
        message.header.kind = RouteType::Unicast;
        // The device needs no address for it: the switch is there, whatever network the address is from.
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
        message.attributes.push(RouteAttribute::Oif(device));
        METRIC_HERE
    } else {
        METRIC_LAST
    };
    message.attributes.push(RouteAttribute::Priority(metric));
    message
}

/// Never asked for: the switch does not answer who asks from an address that is not of its network, as a
/// device without one does.
fn neighbour(known: &Known) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(known.address);
    message.header.ifindex = known.device;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(known.address.into()));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(known.mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::Other(KERNEL_PROTOCOL)));
    message
}
