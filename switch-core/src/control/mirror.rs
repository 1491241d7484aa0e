//! The mirror of the kernel's routing tables. News only says that something changed; what there is then is asked
//! anew and compared. So nothing can be missed: neither by an overrun of the socket, nor what the kernel does not
//! tell (IPv4 routes that go with their device), nor how it tells of IPv6 routes with several next hops. A burst of
//! news is one question, and questions cost a tenth of the time at most (ADR 0015).

use super::daemon::Daemon;
use super::nexthop::{self, Nexthops};
use super::rtnl::{Rtnl, table_of};
use crate::config::mirrored::{
    KernelHop, KernelRoute, Kind, MIRRORED_MAX, Meaning, Mirrored, TABLE_LOCAL, shown,
};
use crate::config::nexthops::{MTU_MIN_V4, MTU_MIN_V6};
use crate::config::uplink::ToKernel;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use switch_api::{MirrorStatus, Prefix, Vrf};

/// Groups of rtnetlink (include/uapi/linux/rtnetlink.h): devices, routes of both versions, next-hop objects.
const GROUPS: [u32; 4] = [1, 7, 11, 32];
/// Bytes of news that may wait; more are an overrun, which costs nothing but is counted.
pub const NEWS_BYTES: usize = 256 << 10;
/// Between two questions at least: routing daemons write in bursts.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// And so many times as long as the last one took.
const PAUSE_FACTOR: u32 = 10;
/// After a question that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Devices may be renamed, and rules of the kernel change, without news; so often all is asked anew.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is mirrored, and when it is due again.
#[derive(Debug)]
pub struct Mirror {
    news: Socket,
    tables: BTreeSet<u32>,
    due: Option<Instant>,
    asked: Instant,
    took: Duration,
    /// Times that news was lost.
    pub overruns: u64,
    /// Times that all was asked anew.
    pub questions: u64,
    /// Why the last question failed.
    pub complaint: Option<String>,
}

impl Mirror {
    /// One that mirrors nothing yet; `bytes` of news may wait.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let mut news = Socket::new(NETLINK_ROUTE)?;
        news.bind_auto()?;
        for group in GROUPS {
            // Next-hop objects came with Linux 5.3: older kernels have none to tell of.
            match news.add_membership(group) {
                Err(error) if group <= 11 => return Err(error),
                _ => {}
            }
        }
        news.set_rx_buf_sz(bytes as libc::c_int)?;
        news.set_non_blocking(true)?;
        Ok(Self {
            news,
            tables: BTreeSet::new(),
            due: None,
            asked: Instant::now(),
            took: Duration::ZERO,
            overruns: 0,
            questions: 0,
            complaint: None,
        })
    }

    /// For the poll.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.news
    }

    /// Reads all news away: that there was some is all that counts.
    fn hear(&mut self) -> bool {
        let (mut buffer, mut any) = (Vec::with_capacity(32 << 10), false);
        loop {
            buffer.clear();
            match self.news.recv_from(&mut buffer, 0) {
                Ok(_) => any = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.overruns += 1;
                    any = true;
                }
                Err(_) => return any,
            }
        }
    }

    /// How long until something is due.
    pub fn wait(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }
}

impl Daemon {
    /// The kernel's tables have changed, somehow.
    pub fn kernel_changed(&mut self) {
        let Some(mirror) = &mut self.mirror else { return };
        if mirror.hear() && !mirror.tables.is_empty() {
            let pause = PAUSE_MIN.max(mirror.took * PAUSE_FACTOR);
            mirror.due.get_or_insert(mirror.asked + pause);
        }
    }

    /// Asks the kernel, if it is time.
    pub fn mirror_due(&mut self) {
        let Some(mirror) = &mut self.mirror else { return };
        let due = mirror.due.is_some_and(|due| due <= Instant::now());
        if due || !mirror.tables.is_empty() && mirror.asked.elapsed() > PAUSE_MAX {
            self.ask_kernel();
        }
    }

    /// What is declared has changed: other tables may be mirrored now.
    pub(super) fn mirror_tables(&mut self) {
        let names = self.model.vrf_names();
        let wanted = names.into_iter().map(|name| self.model.vrf(name)).filter(|vrf| vrf.mirror);
        let wanted: BTreeSet<u32> = wanted.map(|vrf| vrf.kernel_table).collect();
        let Some(mirror) = self.mirror.as_mut().filter(|mirror| mirror.tables != wanted) else { return };
        mirror.tables = wanted;
        self.ask_kernel();
    }

    fn ask_kernel(&mut self) {
        let Some(mirror) = &mut self.mirror else { return };
        let start = Instant::now();
        let found = if mirror.tables.is_empty() { Ok(Mirrored::default()) } else { ask(&mirror.tables) };
        mirror.questions += 1;
        (mirror.asked, mirror.due) = (Instant::now(), None);
        match found {
            Ok(found) => {
                mirror.complaint = None;
                if *self.model.mirrored != found {
                    self.model.mirrored = Arc::new(found);
                    self.republish();
                }
            }
            Err(error) => {
                let text = format!("the kernel's routes cannot be read: {error}");
                if mirror.complaint.as_ref() != Some(&text) {
                    tracing::warn!("{text}");
                }
                mirror.complaint = Some(text);
                mirror.due = Some(Instant::now() + RETRY);
            }
        }
        let took = start.elapsed();
        self.mirror.iter_mut().for_each(|mirror| mirror.took = took);
        tracing::debug!(?took, routes = self.model.mirrored.len(), "the kernel's routes were read");
    }

    /// What is mirrored for a routing table.
    pub(super) fn mirror_status(
        &self,
        vrf: &Vrf,
        kernel: &ToKernel,
        problems: &mut Vec<String>,
    ) -> Option<MirrorStatus> {
        if !vrf.mirror {
            return None;
        }
        let Some(mirror) = &self.mirror else {
            problems.push("the kernel's routes cannot be mirrored here; see switchd's log".into());
            return None;
        };
        let mirrored = &self.model.mirrored;
        let is_circle =
            |route: &&KernelRoute| self.model.meaning(&vrf.name, kernel, route) == Meaning::Circle;
        let mut circles = mirrored.of(vrf.kernel_table).filter(is_circle);
        let first = circles.next();
        problems.extend(mirror.complaint.clone());
        if let Some(route) = first {
            problems.push(format!(
                "the kernel's route to {} ({}) leads back to the switch; it is not used",
                route.prefix,
                shown(route)
            ));
        }
        if mirrored.beyond > 0 {
            problems.push(format!(
                "{} routes are beyond the limit of {MIRRORED_MAX} and not mirrored; the kernel decides about them",
                mirrored.beyond
            ));
        }
        if let (odd @ 1.., Some(why)) = &mirrored.odd {
            problems.push(format!("{odd} routes of the kernel are not understood and not used: {why}"));
        }
        Some(MirrorStatus {
            routes: mirrored.len(),
            beyond: mirrored.beyond,
            odd: mirrored.odd.0,
            circles: usize::from(first.is_some()) + circles.count(),
            overruns: mirror.overruns,
            questions: mirror.questions,
        })
    }
}

/// Everything in `tables`, and the kernel's own addresses.
fn ask(tables: &BTreeSet<u32>) -> io::Result<Mirrored> {
    let rtnl = Rtnl::open()?;
    let names: BTreeMap<u32, String> =
        rtnl.links()?.into_iter().map(|link| (link.index, link.name)).collect();
    let mut objects = None;
    let mut found = Mirrored::default();
    for table in tables.iter().chain([&TABLE_LOCAL]) {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for message in dump(&rtnl, *table, family)? {
                let objects = &mut objects;
                let mut nexthops =
                    || objects.get_or_insert_with(|| nexthop::all().unwrap_or_default()).clone();
                match read(&message, &names, &mut nexthops) {
                    Ok(Some(route)) => found.add(route),
                    Ok(None) => {}
                    Err(why) => found.refuse(why),
                }
            }
        }
    }
    Ok(found)
}

fn dump(rtnl: &Rtnl, table: u32, family: AddressFamily) -> io::Result<Vec<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.attributes.push(RouteAttribute::Table(table));
    let mut found = Vec::new();
    let answer = rtnl.ask(RouteNetlinkMessage::GetRoute(request), NLM_F_REQUEST | NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer
            && table_of(&route) == table
        {
            found.push(route);
        }
        false
    });
    match answer {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        answer => answer.map(|()| found),
    }
}

/// A route that concerns us; `Err` names one that does and cannot be understood.
fn read(
    message: &RouteMessage,
    names: &BTreeMap<u32, String>,
    nexthops: &mut dyn FnMut() -> Arc<Nexthops>,
) -> Result<Option<KernelRoute>, String> {
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
    let (mut odd, name) =
        (None, |index: &u32| names.get(index).cloned().unwrap_or_else(|| index.to_string()));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(to)) => prefix.address = IpAddr::V4(*to),
            RouteAttribute::Destination(RouteAddress::Inet6(to)) => prefix.address = IpAddr::V6(*to),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Metrics(said) => mtu = mtu_of(said, prefix.address.is_ipv4()),
            RouteAttribute::Oif(index) => single.device = name(index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => single.gateway = gateway(attribute),
            RouteAttribute::NhId(id) => object = Some(*id),
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => odd = Some("an encapsulation"),
            RouteAttribute::MultiPath(several) => hops.extend(several.iter().map(|hop| KernelHop {
                device: name(&hop.interface_index),
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
                device: name(&way.device),
                gateway: way.gateway,
                weight: way.weight,
            })),
        }
    }
    Ok(Some(KernelRoute { table, prefix, metric, protocol: protocol(header.protocol), kind, hops, mtu }))
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
