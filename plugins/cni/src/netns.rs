//! What is really in a container's namespace, asked of the kernel (rtnetlink(7)).

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use switch_api::{IpNet, Mac};

/// An interface as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub index: u32,
    /// What somebody wrote on it; the daemon writes its port's name.
    pub alias: String,
    /// It was set up.
    pub is_up: bool,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Routes through it.
    pub routes: Vec<SeenRoute>,
}

/// A route as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenRoute {
    /// Where to.
    pub to: IpNet,
    /// By whom.
    pub via: Option<IpAddr>,
    /// The routing table.
    pub table: u32,
    /// Its metric.
    pub metric: u32,
    /// Longest packet that goes this way, if it says so.
    pub mtu: Option<u32>,
    /// Largest TCP segment that peers are told of, if it says so.
    pub advmss: Option<u32>,
}

/// The namespace of whoever reads it.
const OWN: &str = "/proc/self/ns/net";
/// The routing table of routes that name none (rtnetlink(7)).
const TABLE_MAIN: u32 = 254;

/// Whether a namespace is that of this process.
pub fn is_own(netns: &str) -> io::Result<bool> {
    let (theirs, ours) = (std::fs::metadata(netns)?, std::fs::metadata(OWN)?);
    Ok((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
}

/// Whether a namespace has a default route of IPv4, and one of IPv6, that is not through the interface of this name.
pub fn default_routes_besides(netns: &str, interface: &str) -> io::Result<[bool; 2]> {
    inside(netns, || {
        let socket = open()?;
        let (mut own, mut has) = (None, [false; 2]);
        dump(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
            if let RouteNetlinkMessage::NewLink(link) = message
                && link.attributes.contains(&LinkAttribute::IfName(interface.to_owned()))
            {
                own = Some(link.header.index);
            }
        })?;
        dump(&socket, RouteNetlinkMessage::GetRoute(RouteMessage::default()), |message| {
            let RouteNetlinkMessage::NewRoute(message) = message else { return };
            let device = message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            let route = read_route(&message).filter(|_| message.header.kind == RouteType::Unicast);
            // One of several next hops names its devices in each of them.
            let is_other = device.is_none() || device != own;
            if let Some(route) = route.filter(|route| route.table == TABLE_MAIN && is_other)
                && route.to.prefix_len() == 0
            {
                has[usize::from(route.to.addr().is_ipv6())] = true;
            }
        })?;
        Ok(has)
    })
}

/// Addresses of a namespace's other interfaces: what the kernel gave them itself (loopback's, those of a link) aside.
pub fn addresses_besides(netns: &str, interface: &str) -> io::Result<Vec<IpNet>> {
    inside(netns, || {
        let socket = open()?;
        let (mut others, mut addresses) = (Vec::new(), Vec::new());
        dump(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
            if let RouteNetlinkMessage::NewLink(link) = message
                && !link.header.flags.contains(LinkFlags::Loopback)
                && !link.attributes.contains(&LinkAttribute::IfName(interface.to_owned()))
            {
                others.push(link.header.index);
            }
        })?;
        dump(&socket, RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
            if let RouteNetlinkMessage::NewAddress(address) = message
                && others.contains(&address.header.index)
            {
                addresses.extend(read_address(&address));
            }
        })?;
        addresses.retain(|net| !matches!(net.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local()));
        Ok(addresses)
    })
}

/// Looks at an interface; none if the namespace has none of this name.
pub fn look(netns: &str, interface: &str) -> io::Result<Option<Seen>> {
    inside(netns, || see(interface))
}

/// Removes an interface that was seen. One that is gone already is what we want.
pub fn remove(netns: &str, index: u32) -> io::Result<()> {
    inside(netns, || {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let removed = ask(&open()?, RouteNetlinkMessage::DelLink(link), NLM_F_REQUEST | NLM_F_ACK, |_| {});
        match removed {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
            outcome => outcome,
        }
    })
}

/// Does `work` on a thread of its own inside the namespace.
pub(crate) fn inside<T: Send>(netns: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    // Of a named pipe nobody waits for who writes to it: it is none.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(netns, flags, Mode::empty())?;
    let outcome = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join()
    });
    outcome.unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
}

pub(crate) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn see(interface: &str) -> io::Result<Option<Seen>> {
    let socket = open()?;
    let (mut seen, mut index) = (Seen::default(), None);
    dump(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message
            && link.attributes.contains(&LinkAttribute::IfName(interface.to_owned()))
        {
            index = Some(link.header.index);
            read_link(&link, &mut seen);
        }
    })?;
    let Some(index) = index else { return Ok(None) };
    dump(&socket, RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
        if let RouteNetlinkMessage::NewAddress(address) = message
            && address.header.index == index
        {
            seen.addresses.extend(read_address(&address));
        }
    })?;
    dump(&socket, RouteNetlinkMessage::GetRoute(RouteMessage::default()), |message| {
        if let RouteNetlinkMessage::NewRoute(route) = message
            && route.attributes.contains(&RouteAttribute::Oif(index))
        {
            seen.routes.extend(read_route(&route));
        }
    })?;
    Ok(Some(seen))
}

fn read_link(link: &LinkMessage, seen: &mut Seen) {
    seen.index = link.header.index;
    seen.is_up = link.header.flags.contains(LinkFlags::Up);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfAlias(alias) => seen.alias.clone_from(alias),
            LinkAttribute::Mtu(mtu) => seen.mtu = *mtu,
            LinkAttribute::Address(bytes) => seen.mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
}

fn read_address(address: &AddressMessage) -> Option<IpNet> {
    let of = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(ip) => Some((0, *ip)),
        AddressAttribute::Address(ip) => Some((1, *ip)),
        _ => None,
    };
    // IPv4 has both, and the local one is the interface's; IPv6 has the second alone.
    let (_, ip) = address.attributes.iter().filter_map(of).min_by_key(|(order, _)| *order)?;
    IpNet::new(ip, address.header.prefix_len).ok()
}

fn read_route(route: &RouteMessage) -> Option<SeenRoute> {
    let is_ipv6 = route.header.address_family == netlink_packet_route::AddressFamily::Inet6;
    let any = if is_ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let (mut to, table) = (any, u32::from(route.header.table));
    let mut seen =
        SeenRoute { to: IpNet::new_assert(any, 0), via: None, table, metric: 0, mtu: None, advmss: None };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::Gateway(address) => seen.via = ip(address),
            RouteAttribute::Table(table) => seen.table = *table,
            RouteAttribute::Priority(metric) => seen.metric = *metric,
            RouteAttribute::Metrics(metrics) => read_metrics(metrics, &mut seen),
            _ => {}
        }
    }
    seen.to = IpNet::new(to, route.header.destination_prefix_length).ok()?;
    Some(seen)
}

fn read_metrics(metrics: &[RouteMetric], seen: &mut SeenRoute) {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(mtu) => seen.mtu = Some(*mtu),
            RouteMetric::Advmss(advmss) => seen.advmss = Some(*advmss),
            _ => {}
        }
    }
}

pub(crate) fn dump(
    socket: &Socket,
    request: RouteNetlinkMessage,
    take: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    ask(socket, request, NLM_F_REQUEST | NLM_F_DUMP, take)
}

/// Asks, and reads until the kernel says that it is done.
pub(crate) fn ask(
    socket: &Socket,
    request: RouteNetlinkMessage,
    flags: u16,
    mut take: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            // Messages are padded to 4 bytes (NLMSG_ALIGN).
            let len = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(len..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => take(inner),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                // An acknowledgement.
                NetlinkPayload::Error(_) => return Ok(()),
                NetlinkPayload::Done(_) => return Ok(()),
                _ => {}
            }
        }
    }
}
