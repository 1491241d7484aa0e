//! Requests to the kernel's routing netlink (rtnetlink(7)), of the namespace of the calling thread.

use super::links::{self, Link};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use switch_api::{Cidr, DeviceRoute, Mac};

/// Longest datagram of an answer. The kernel fills up to 32 KiB of what it is given (net/netlink/af_netlink.c, `netlink_dump`), a tenth of
/// which it would use for whoever asks how long an answer is first; a NIC with hundreds of virtual functions says more about itself.
const ANSWER_BYTES: usize = 256 << 10;

/// A connection to the kernel. It stays in the namespace it was opened in.
#[derive(Debug)]
pub struct Rtnl(Socket);

/// What a device is given before it is set up.
#[derive(Clone, Debug)]
pub struct Dress {
    /// Its MAC address.
    pub mac: Mac,
    /// Largest L3 packet, bytes.
    pub mtu: u32,
    /// What is written on it.
    pub alias: String,
}

impl Rtnl {
    /// Opens one.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // What a dump is narrowed to is heeded only so (Linux 4.20); older ones say all, and we narrow.
        _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self(socket))
    }

    /// One device; none if there is none of this name.
    pub fn link(&self, name: &str) -> io::Result<Option<Link>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one(request)
    }

    fn one(&self, request: LinkMessage) -> io::Result<Option<Link>> {
        send(&self.0, RouteNetlinkMessage::GetLink(request), NLM_F_REQUEST)?;
        let mut found = None;
        let answer = self.read(|message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                found = Some(links::read(&link));
            }
            true
        });
        match answer {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            answer => answer.map(|()| found),
        }
    }

    /// The device of this index; none if there is none.
    pub fn link_at(&self, index: u32) -> io::Result<Option<Link>> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        self.one(request)
    }

    /// What a device lost of what was on its way to the switch: also what a pod's end of a veth pair could not hand it, because its ring or queue
    /// was full, which that end alone counts (drivers/net/veth.c). It is asked for from here, and what it says no socket has counted: a socket's
    /// drops are behind that ring. An end that is in the same namespace may be another port's, which tells of them itself.
    /// None: that end is gone, or cannot be asked.
    pub fn lost(&self, link: &Link) -> Option<u64> {
        let unsent = link.far_end.map_or(Ok(0), |end| self.unsent_by(end));
        Some(link.lost + unsent.ok()?)
    }

    /// What a device in the namespace of this number was to send, and dropped.
    fn unsent_by(&self, (index, netns): (u32, i32)) -> io::Result<u64> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes.push(LinkAttribute::IfNetnsId(netns));
        self.one(request)?.map(|link| link.unsent).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Every device.
    pub fn links(&self) -> io::Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        send(&self.0, request, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut found = Vec::new();
        self.read(|message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                found.push(links::read(&link));
            }
            false
        })?;
        Ok(found)
    }

    /// Gives a device its address, MTU and alias, in one step.
    pub fn dress(&self, index: u32, dress: &Dress) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Address(dress.mac.0.to_vec()));
        link.attributes.push(LinkAttribute::Mtu(dress.mtu));
        link.attributes.push(LinkAttribute::IfAlias(dress.alias.clone()));
        self.change(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Gives a device a MAC address: also the one that it has, upon which its kernel tells its neighbours of its IP addresses
    /// where [`super::sysctl::be_neighbourly`] made it so (net/ipv4/devinet.c and net/ipv6/ndisc.c, `NETDEV_CHANGEADDR`).
    pub fn set_mac(&self, index: u32, mac: Mac) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        self.change(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Sets a device's MTU.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Makes a veth pair whose ends are not set up: the first is named and is here, the other in `namespace`. Nothing is written on them yet.
    pub fn add_veth(
        &self,
        [ours, theirs]: [&str; 2],
        here: &Dress,
        there: &Dress,
        namespace: &File,
    ) -> io::Result<()> {
        let end = |name: &str, dress: &Dress| {
            let mut link = LinkMessage::default();
            link.attributes.push(LinkAttribute::IfName(name.to_owned()));
            link.attributes.push(LinkAttribute::Address(dress.mac.0.to_vec()));
            link.attributes.push(LinkAttribute::Mtu(dress.mtu));
            link
        };
        let (mut link, mut peer) = (end(ours, here), end(theirs, there));
        peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        link.attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
        self.change(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives a device, that is not set up, another name and alias, in one step.
    pub fn rename(&self, index: u32, name: &str, alias: &str) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.change(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Writes something on a device.
    pub fn set_alias(&self, index: u32, alias: &str) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.change(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Keeps the kernel from giving a device an IPv6 address of its own, with all that it says then. No IPv6 is no error.
    pub fn no_addresses(&self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        link.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        match self.change(RouteNetlinkMessage::SetLink(link), 0) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
            changed => changed,
        }
    }

    /// Removes a device. One that is gone is what we want.
    pub fn delete(&self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        match self.change(RouteNetlinkMessage::DelLink(link), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            deleted => deleted,
        }
    }

    /// Sets a device up.
    pub fn set_up(&self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        (link.header.flags, link.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
        self.change(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Gives a device an address. Nobody else has it, the caller says: no duplicate detection (RFC 4862), for
    /// whose second a pod would have to wait.
    pub fn add_address(&self, index: u32, cidr: Cidr) -> io::Result<()> {
        let mut address = AddressMessage::default();
        address.header.family = family(cidr.address());
        address.header.prefix_len = cidr.prefix_len();
        address.header.scope = AddressScope::Universe;
        address.header.index = index;
        address.attributes.push(AddressAttribute::Local(cidr.address()));
        address.attributes.push(AddressAttribute::Address(cidr.address()));
        if cidr.address().is_ipv6() {
            address.header.flags = AddressHeaderFlags::Nodad;
            address.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.change(RouteNetlinkMessage::NewAddress(address), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Takes an address from a device. One that it does not have is what we want.
    pub fn delete_address(&self, index: u32, cidr: Cidr) -> io::Result<()> {
        let mut address = AddressMessage::default();
        address.header.family = family(cidr.address());
        address.header.prefix_len = cidr.prefix_len();
        address.header.index = index;
        address.attributes.push(AddressAttribute::Local(cidr.address()));
        address.attributes.push(AddressAttribute::Address(cidr.address()));
        match self.change(RouteNetlinkMessage::DelAddress(address), 0) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            deleted => deleted,
        }
    }

    /// Adds a route through a device.
    pub fn add_route(&self, index: u32, route: &DeviceRoute) -> io::Result<()> {
        self.change(RouteNetlinkMessage::NewRoute(through(index, route)), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes a route through a device. One that is not there is what we want.
    pub fn delete_route(&self, index: u32, route: &DeviceRoute) -> io::Result<()> {
        match self.change(RouteNetlinkMessage::DelRoute(through(index, route)), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            deleted => deleted,
        }
    }

    /// The device by which a packet to `address` would leave; none if it would not.
    pub fn way_to(&self, address: IpAddr) -> io::Result<Option<u32>> {
        let mut request = RouteMessage::default();
        request.header.address_family = family(address);
        request.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        request.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
        let mut device = None;
        let asked = self.ask(RouteNetlinkMessage::GetRoute(request), NLM_F_REQUEST, |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                device = route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) if route.header.kind == RouteType::Unicast => Some(*index),
                    _ => None,
                });
            }
            true
        });
        match asked {
            // What there is no route for, and what a route says so of.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => {
                Ok(None)
            }
            asked => asked.map(|()| device),
        }
    }

    /// Changes something, and waits until it is done.
    pub(super) fn change(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        send(&self.0, message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.read(|_| false)
    }

    /// Asks something; `take` is given the answers until it, or the kernel, has had enough.
    pub(super) fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        take: impl FnMut(RouteNetlinkMessage) -> bool,
    ) -> io::Result<()> {
        send(&self.0, message, flags)?;
        self.read(take)
    }

    /// Reads answers until the kernel says that it is done, or `take` does.
    fn read(&self, mut take: impl FnMut(RouteNetlinkMessage) -> bool) -> io::Result<()> {
        let (mut done, mut bytes) = (false, Vec::with_capacity(ANSWER_BYTES));
        while !done {
            bytes.clear();
            // Cut off what is longer, and say how long it was.
            let (len, _) = self.0.recv_from(&mut bytes, libc::MSG_TRUNC)?;
            if len > ANSWER_BYTES {
                return Err(io::Error::other(format!("an answer of {len} bytes, of {ANSWER_BYTES} at most")));
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() && !done {
                let message =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                // Messages are padded to 4 bytes (NLMSG_ALIGN).
                let len = (message.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(len..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => done = take(inner),
                    // Code 0 is an acknowledgement.
                    NetlinkPayload::Error(error) if error.code.is_none() => done = true,
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Done(_) => done = true,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// A route through a device, as the kernel is told of it.
fn through(index: u32, route: &DeviceRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    let is_v4 = route.to.address().is_ipv4();
    let scope = if is_v4 && route.via.is_none() { RouteScope::Link } else { RouteScope::Universe };
    message.header = RouteHeader {
        address_family: family(route.to.address()),
        destination_prefix_length: route.to.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        // Who configures hosts by hand or by program writes `static`.
        protocol: RouteProtocol::Static,
        scope: route.scope.filter(|_| is_v4).map_or(scope, RouteScope::from),
        kind: RouteType::Unicast,
        flags: RouteFlags::empty(),
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(route.to.address())));
    message.attributes.push(RouteAttribute::Oif(index));
    if let Some(via) = route.via {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(via)));
    }
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    // It counts in place of the header's, which has room for 255.
    message.attributes.extend(route.table.map(RouteAttribute::Table));
    let mtu = route.mtu.map(RouteMetric::Mtu);
    let metrics: Vec<_> = mtu.into_iter().chain(route.advmss.map(RouteMetric::Advmss)).collect();
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// Asks for one device on a socket that is read elsewhere: the answer looks like an event.
pub fn ask_for(socket: &Socket, index: u32) -> io::Result<()> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    send(socket, RouteNetlinkMessage::GetLink(request), NLM_F_REQUEST)
}

fn send(socket: &Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(|_| ())
}

/// The table of a route: beyond 255 it stands in an attribute alone.
pub(super) fn table_of(message: &RouteMessage) -> u32 {
    let named = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    named.unwrap_or(u32::from(message.header.table))
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
