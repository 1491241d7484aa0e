//! The kernel's network devices, asked and watched by netlink (rtnetlink(7)).

use super::rtnl::Rtnl;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::io;
use switch_api::Mac;

/// RTNLGRP_LINK (include/uapi/linux/rtnetlink.h).
const RTNLGRP_LINK: u32 = 1;

/// The kernel's port number.
const KERNEL: u32 = 0;
/// Messages that are read at one look: more than come of a thousand devices that change at once, and some 10 ms. A pod may make them faster than they
/// are read.
const NEWS_AT_ONCE: usize = 4096;

/// What is known of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// It was set up.
    pub is_up: bool,
    /// Largest L3 packet, bytes.
    pub mtu: u32,
    /// The XDP program on it: `native`, `generic`, …, and its number.
    pub xdp: Option<(&'static str, u32)>,
    /// What somebody wrote on it (`ip link set … alias`).
    pub alias: String,
    /// Its MAC address; none if it has none, or one of another kind.
    pub mac: Option<Mac>,
    /// It is a TUN or TAP device.
    pub is_tun: bool,
    /// It is one end of a veth pair.
    pub is_veth: bool,
    /// The other end of a veth pair, if it is in another namespace: its index there, and the number by which that is known here.
    pub far_end: Option<(u32, i32)>,
    /// What kind of device it is, if software made it: `veth`, `bridge`, `vlan`, …
    pub kind: Option<String>,
    /// The bridge, bond or other device that it is a member of.
    pub master: Option<u32>,
    /// Frames that were on their way to the switch, and that the kernel had no room for: of a TUN or TAP device those that it was to
    /// send, of another those that its hardware received.
    pub lost: u64,
    /// Frames that it was to send, and that it dropped.
    pub unsent: u64,
}

/// What happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is there, new or changed.
    There(Link),
    /// It is gone from this namespace.
    Gone(u32),
    /// Events were lost; look at everything again.
    Lost,
}

impl LinkEvent {
    /// Which device it is about.
    pub fn index(&self) -> Option<u32> {
        match self {
            Self::There(link) => Some(link.index),
            Self::Gone(index) => Some(*index),
            Self::Lost => None,
        }
    }
}

/// Asks the kernel about one device; none if there is none of this name.
pub fn find(name: &str) -> io::Result<Option<Link>> {
    Rtnl::open()?.link(name)
}

/// A socket that tells of every change to a device.
pub fn watch() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.add_membership(RTNLGRP_LINK)?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Reads what the watching socket has, up to its last event, or as much as is read at once: the rest is looked for as if it were lost. What
/// somebody else says is not heard: whoever administers a namespace may send to the socket in it (netlink(7)).
pub fn events(socket: &Socket) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    for _ in 0..NEWS_AT_ONCE {
        match socket.recv_from_full() {
            Ok((bytes, from)) if from.port_number() == KERNEL => collect(&bytes, &mut events),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => events.push(LinkEvent::Lost),
            Err(_) => return events,
        }
    }
    events.push(LinkEvent::Lost);
    events
}

fn collect(mut bytes: &[u8], events: &mut Vec<LinkEvent>) {
    while !bytes.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
            // A newer kernel says something that we cannot read, of some device.
            return events.push(LinkEvent::Lost);
        };
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                events.push(LinkEvent::There(read(&link)));
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                events.push(LinkEvent::Gone(link.header.index));
            }
            _ => {}
        }
        // Messages are padded to 4 bytes (NLMSG_ALIGN).
        let len = (message.header.length as usize).next_multiple_of(4);
        match bytes.get(len..) {
            Some(rest) if len > 0 && !rest.is_empty() => bytes = rest,
            _ => return,
        }
    }
}

pub(super) fn read(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    let mut unreceived = 0;
    let (mut end, mut end_in) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Stats64(counts) => {
                (link.unsent, unreceived) = (counts.tx_dropped, counts.rx_missed_errors)
            }
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Xdp(xdp) => link.xdp = read_xdp(xdp),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Link(index) => end = Some(*index),
            LinkAttribute::LinkNetNsId(id) => end_in = Some(*id),
            LinkAttribute::Controller(index) if *index != 0 => link.master = Some(*index),
            LinkAttribute::LinkInfo(info) => {
                link.kind = info.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.is_tun = info.contains(&LinkInfo::Kind(InfoKind::Tun));
                link.is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            _ => {}
        }
    }
    link.far_end = end.zip(end_in).filter(|_| link.is_veth);
    link.lost = if link.is_tun { link.unsent } else { unreceived };
    link
}

fn read_xdp(attributes: &[LinkXdp]) -> Option<(&'static str, u32)> {
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
        LinkXdp::Attached(XdpAttached::Hardware) => Some("hardware"),
        LinkXdp::Attached(XdpAttached::Multiple) => Some("several"),
        _ => None,
    })?;
    let program = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    });
    Some((mode, program.unwrap_or(0)))
}
