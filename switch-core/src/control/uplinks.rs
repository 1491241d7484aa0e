//! Uplinks on NICs that the node's kernel shares (ADR 0025): its addresses there, its neighbours, and what their programs take.
//! The kernel is asked for a neighbour when a packet needs it, and resolves it as for a packet of its own; what becomes of those
//! that are used is followed by its news.

use super::daemon::{Daemon, PortLife};
use super::links::Link;
use super::rtnl::{Rtnl, family};
use crate::config::Model;
use crate::config::gateway::{from_bits, to_bits};
use crate::config::shared::{NIC_ADDRESSES_MAX, Nic, Nics, WayOut, Ways};
use crate::config::snapshot::PortId;
use crate::config::taken::Whose;
use crate::port::xdp::socket::joins_segments;
use crate::table::neigh::{key, unkey};
use crate::table::wide::Key;
use crate::worker::thread::now;
use netlink_packet_core::{
    NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use switch_api::{ApiError, Code, Mac, Name, PortRange, Prefix, UplinkStatus};

/// Groups of rtnetlink (include/uapi/linux/rtnetlink.h): neighbours, addresses of both versions.
const GROUPS: [u32; 3] = [3, 5, 9];
/// Messages of news that are read before anybody else is served: the rest is read a moment later.
const NEWS_AT_ONCE: usize = 256;
/// Rings of 4096 frames are taken in within this, ms.
const SETTLE_MS_MAX: u32 = 20;
/// Kinds of devices that make one of others, or of a part of one: XDP runs below them.
const BUILT_ON_OTHERS: [&str; 8] =
    ["bond", "bridge", "team", "vlan", "macvlan", "ipvlan", "vrf", "openvswitch"];

/// What is seen of the NICs, and the news of it.
#[derive(Debug, Default)]
pub struct Uplinks {
    news: Option<Socket>,
    /// The groups are joined: there has been an uplink.
    listens: bool,
    nics: Nics,
}

/// What the kernel says of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    device: u32,
    address: IpAddr,
    /// Its station, and whether the kernel is sure of it.
    station: Option<(Mac, bool)>,
}

impl Uplinks {
    /// With a socket for news, which costs nothing until there is an uplink.
    pub fn new() -> io::Result<Self> {
        let mut news = Socket::new(NETLINK_ROUTE)?;
        news.bind_auto()?;
        news.set_non_blocking(true)?;
        Ok(Self { news: Some(news), ..Self::default() })
    }

    /// For the poll.
    pub fn socket(&mut self) -> Option<&mut Socket> {
        self.news.as_mut()
    }

    fn listen(&mut self) -> io::Result<()> {
        if let Some(news) = self.news.as_mut().filter(|_| !self.listens) {
            GROUPS.into_iter().try_for_each(|group| news.add_membership(group))?;
            self.listens = true;
        }
        Ok(())
    }
}

impl Daemon {
    /// The NICs of the uplinks of `model` that are open, as they are seen.
    pub(super) fn look_at_nics(&mut self, model: &Model) -> Arc<Nics> {
        let index = |id: &PortId| match self.ports.get(id) {
            Some(PortLife::Up(door)) => Some(door.ifindex),
            _ => None,
        };
        let shared = model.ports.values().filter(|port| port.object.kind.shared_nic().is_some());
        let open: BTreeMap<PortId, u32> =
            shared.filter_map(|port| Some((port.id, index(&port.id)?))).collect();
        self.uplinks.nics.retain(|id, nic| open.get(id) == Some(&nic.index));
        for (id, index) in open {
            if self.uplinks.nics.contains_key(&id) {
                continue;
            }
            match self.uplinks.listen().and_then(|()| read_nic(index)) {
                Ok(nic) => _ = self.uplinks.nics.insert(id, nic),
                Err(error) => {
                    tracing::error!(port = id, "what the kernel has on its NIC is not known: {error}")
                }
            }
        }
        if self.uplinks.nics == *self.model.nics {
            return self.model.nics.clone();
        }
        Arc::new(self.uplinks.nics.clone())
    }

    /// After an uplink's program takes nothing any more: what it took before is still in its rings, and workers get a moment to take it in,
    /// until nothing more comes. Only then its routes go.
    pub(super) fn see_taken_in(&self, id: PortId) {
        let received =
            || self.counters.iter().map(|counters| counters.port(id).rx_packets.get()).sum::<u64>();
        let mut before = received();
        for _ in 0..SETTLE_MS_MAX {
            std::thread::sleep(Duration::from_millis(1));
            if std::mem::replace(&mut before, received()) == before {
                break;
            }
        }
    }

    /// Uplinks that are open.
    fn uplinks_of(model: &Model) -> Vec<WayOut> {
        model.vrf_names().into_iter().flat_map(|vrf| model.ways_out(vrf)).collect()
    }

    /// Before a model is in force: what is not behind the switch in it is not taken any more.
    pub(super) fn narrow_uplinks(&mut self, next: &Model) {
        for way in Self::uplinks_of(next) {
            let (taken, ports) = (next.taken(&way), next.shared_ports(&way));
            if let Some(PortLife::Up(door)) = self.ports.get_mut(&way.id)
                && let Some(attached) = &mut door.attached
                && let Err(error) = attached.narrow(&taken, &ports)
            {
                tracing::error!(port = %way.port, "its program takes what is not behind the switch: {error}");
            }
        }
    }

    /// When a model is in force: what is behind the switch is taken.
    pub(super) fn widen_uplinks(&mut self) {
        for way in Self::uplinks_of(&self.model) {
            let (taken, ports) = (self.model.taken(&way), self.model.shared_ports(&way));
            if let Some(PortLife::Up(door)) = self.ports.get_mut(&way.id)
                && let Some(attached) = &mut door.attached
                && let Err(error) = attached.become_all(&taken, &ports)
            {
                tracing::error!(port = %way.port, "its program does not take all that is behind the switch: {error}");
            }
        }
    }

    /// The uplink with this filtering identifier.
    pub(super) fn uplink_at(&self, fid: u16) -> Option<WayOut> {
        Self::uplinks_of(&self.model).into_iter().find(|way| way.fid == fid)
    }

    /// Packets wait for a neighbour, or it was not heard of for a while: the kernel is to resolve it, and says what it knows
    /// already.
    pub(super) fn want_neighbour(&mut self, wanted: Key) {
        let (fid, ip) = unkey(wanted);
        let Some(way) = self.uplink_at(fid) else { return };
        let Some(device) = self.model.nics.get(&way.id).map(|nic| nic.index) else { return };
        let asked = Rtnl::open().and_then(|rtnl| {
            rtnl.resolve(device, from_bits(ip))?;
            rtnl.neighbour(device, from_bits(ip))
        });
        match asked {
            // That it is asked for now makes it sure: should it be gone, the kernel will say so.
            Ok(Some((mac, _))) => self.note_neighbour(&way, ip, Some((mac, true)), true),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(address = %from_bits(ip), "the kernel does not resolve it: {error}")
            }
        }
    }

    fn note_neighbour(&self, way: &WayOut, ip: u128, station: Option<(Mac, bool)>, adds: bool) {
        // A broadcast address is a neighbour of the kernel's too.
        let station = station.filter(|(mac, _)| !mac.is_group() && !mac.is_zero());
        let said = station.map(|(mac, is_sure)| (mac.to_u64(), is_sure));
        if self.tables.neigh.tell(key(way.fid, ip), said, way.id, now().s(), adds) {
            let holders = self.tables.neigh.holders();
            let holding =
                self.doors.mail.iter().enumerate().filter(|(id, _)| holders & (1 << (id % 64)) != 0);
            holding.for_each(|(_, mail)| mail.waker.wake(|| now().ns));
        }
    }

    /// The kernel has news of addresses or neighbours.
    pub fn uplinks_changed(&mut self) {
        let (mut changed, mut is_lost) = (BTreeSet::new(), false);
        for _ in 0..NEWS_AT_ONCE {
            let Some(news) = &self.uplinks.news else { return };
            match news.recv_from_full() {
                Ok((bytes, _)) => {
                    for message in messages(&bytes) {
                        match message {
                            RouteNetlinkMessage::NewNeighbour(message) => self.hear_of(&message, false),
                            RouteNetlinkMessage::DelNeighbour(message) => self.hear_of(&message, true),
                            RouteNetlinkMessage::NewAddress(message)
                            | RouteNetlinkMessage::DelAddress(message) => {
                                changed.insert(message.header.index);
                            }
                            _ => {}
                        }
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => is_lost = true,
                Err(_) => break,
            }
        }
        if is_lost {
            tracing::warn!("netlink lost news of neighbours and addresses; looking at all that are used");
            self.look_at_neighbours();
        }
        let is_due = |nic: &Nic| is_lost || changed.contains(&nic.index);
        if self.uplinks.nics.values().any(is_due) {
            self.uplinks.nics.retain(|_, nic| !is_due(nic));
            let seen = self.look_at_nics(&self.model.clone());
            if seen != self.model.nics {
                tracing::info!("the kernel's addresses on an uplink's NIC are others now");
                self.republish();
            }
        }
    }

    fn hear_of(&self, message: &NeighbourMessage, is_gone: bool) {
        let Some(told) = read_neighbour(message) else { return };
        let Some(way) = self.way_on(told.device) else { return };
        self.note_neighbour(&way, to_bits(told.address), told.station.filter(|_| !is_gone), false);
    }

    fn way_on(&self, device: u32) -> Option<WayOut> {
        let id = self.model.nics.iter().find(|(_, nic)| nic.index == device)?.0;
        Self::uplinks_of(&self.model).into_iter().find(|way| way.id == *id)
    }

    /// Asks again for every neighbour that is used.
    fn look_at_neighbours(&self) {
        let mut used = Vec::new();
        self.tables.neigh.for_each(|fid, ip, _| used.push((fid, ip)));
        let Ok(rtnl) = Rtnl::open() else { return };
        for way in Self::uplinks_of(&self.model) {
            let Some(device) = self.model.nics.get(&way.id).map(|nic| nic.index) else { continue };
            for (_, ip) in used.iter().filter(|(fid, _)| *fid == way.fid) {
                if let Ok(station) = rtnl.neighbour(device, from_bits(*ip)) {
                    self.note_neighbour(&way, *ip, station, false);
                }
            }
        }
    }

    /// Uplinks of a routing table, and what stands in their way.
    pub(super) fn uplink_statuses(
        &self,
        vrf: &Name,
        ways: &Ways,
        problems: &mut Vec<String>,
    ) -> Vec<UplinkStatus> {
        let is_here = |bridge: &Name| self.model.bridges.get(bridge).is_some_and(|it| it.object.vrf == *vrf);
        let ports = self.model.ports.values().filter(|port| is_here(&port.object.bridge));
        let status = ports.filter_map(|port| {
            let device = port.object.kind.shared_nic()?.to_owned();
            let nic = self.model.nics.get(&port.id);
            let way = ways.out.iter().find(|way| way.id == port.id);
            let takes = way.map(|way| self.model.taken(way)).unwrap_or_default();
            let is_ours = |whose: Whose| matches!(whose, Whose::Switchs | Whose::Asked);
            Some(UplinkStatus {
                port: port.object.name.clone(),
                device,
                up: way.is_some(),
                mac: nic.map(|nic| nic.mac),
                addresses: nic.map(|nic| nic.addresses.clone()).unwrap_or_default(),
                takes: takes.into_iter().filter(|(_, it)| is_ours(*it)).map(|(prefix, _)| prefix).collect(),
            })
        });
        let all: Vec<UplinkStatus> = status.collect();
        for down in all.iter().filter(|uplink| !uplink.up) {
            problems.push(format!(
                "uplink {} is down, and what its routes lead to goes by the kernel; `switch-ctl port show {}` says why",
                down.port, down.port
            ));
        }
        for way in &ways.out {
            problems.extend(self.model.untaken(way).into_iter().map(|(nat, ip)| {
                format!(
                    "what comes by uplink {} to {ip}, for rule {nat} of network address translation, is the kernel's, whose own address it is: name a protocol and a port, or use another address",
                    way.port
                )
            }));
        }
        problems.extend(ways.out.iter().filter_map(|way| self.collision(way)));
        let is_generic = |way: &&WayOut| match self.ports.get(&way.id) {
            Some(PortLife::Up(door)) => door.mode == Some("generic"),
            _ => false,
        };
        for way in ways.out.iter().filter(is_generic).filter(|way| joins_segments(&way.device)) {
            problems.push(format!(
                "{} joins TCP segments before uplink {}, in mode generic, sees them, and what fits no frame is lost: ethtool -K {} gro off",
                way.device, way.port, way.device
            ));
        }
        all
    }

    /// Ports of a NIC's own address that both the kernel and the switch would take for new connections.
    fn collision(&self, way: &WayOut) -> Option<String> {
        let shared = self.model.shared_ports(way);
        let local = super::sysctl::local_ports()?;
        let both = |range: &&PortRange| {
            range.first != range.last && range.first <= local.last && local.first <= range.last
        };
        let range = shared.values().flatten().find(both)?;
        Some(format!(
            "ports {range} of the NIC's own address on uplink {} are translation's, and the kernel takes {local} for the host's own connections, whose answers would be lost: sysctl -w net.ipv4.ip_local_port_range='1024 {}'",
            way.port,
            range.first.saturating_sub(1)
        ))
    }

    /// An uplink's NIC is not what it was; what it is now is for opening it again to say.
    pub(super) fn unlike(&self, id: PortId, link: &Link) -> Option<String> {
        let nic = self.uplinks.nics.get(&id)?;
        if let Err(error) = shareable(link) {
            return Some(error.to_string());
        }
        let mac = link.mac.filter(|mac| *mac != nic.mac)?;
        Some(format!("device {} has another MAC now, {mac}", link.name))
    }
}

/// Whether an uplink can be on a device.
pub(super) fn shareable(link: &Link) -> Result<(), ApiError> {
    let refuse = |text: String, hint: &str| {
        Err(ApiError::new(Code::Unsupported, text).field("device").hint(hint.to_owned()))
    };
    let name = &link.name;
    if let Some(master) = link.master {
        let master = Rtnl::open().and_then(|rtnl| rtnl.link_at(master)).ok().flatten();
        let (whose, kind) = master.map_or(("another device".into(), String::new()), |it| {
            (it.name.clone(), it.kind.map_or(String::new(), |kind| format!(" ({kind})")))
        });
        return refuse(
            format!(
                "device {name} is a member of {whose}{kind}, which has the addresses and the neighbours in its place"
            ),
            "leave this way out to the kernel (without an uplink port it goes by the host port), or take the device out: `ip link set DEV nomaster`",
        );
    }
    if let Some(kind) = link.kind.as_deref().filter(|kind| BUILT_ON_OTHERS.contains(kind)) {
        return refuse(
            format!(
                "device {name} is a {kind}, made of other devices: what it receives is not seen where a port takes frames"
            ),
            "leave this way out to the kernel (without an uplink port it goes by the host port), or name a NIC that has addresses of its own",
        );
    }
    if link.mac.is_none_or(Mac::is_zero) {
        let text = format!("device {name} has no MAC address: it is no Ethernet");
        return refuse(text, "leave this way out to the kernel");
    }
    Ok(())
}

fn read_nic(index: u32) -> io::Result<Nic> {
    let rtnl = Rtnl::open()?;
    let mac = rtnl.link_at(index)?.and_then(|link| link.mac).ok_or(io::ErrorKind::NotFound)?;
    let mut addresses = rtnl.addresses(index)?;
    addresses.truncate(NIC_ADDRESSES_MAX);
    Ok(Nic { index, mac, addresses })
}

impl Rtnl {
    /// The kernel's addresses on a device, each with its network.
    fn addresses(&self, index: u32) -> io::Result<Vec<Prefix>> {
        let mut request = AddressMessage::default();
        request.header.index = index;
        let mut found = Vec::new();
        self.ask(RouteNetlinkMessage::GetAddress(request), NLM_F_REQUEST | NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewAddress(message) = answer
                && message.header.index == index
            {
                let own = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(address) => Some(*address),
                    _ => None,
                });
                let far = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                });
                // IPv6 says it as the one, IPv4 as the other.
                let len = message.header.prefix_len;
                found.extend(own.or(far).map(|address| Prefix { address, len }));
            }
            false
        })?;
        Ok(found)
    }

    /// Has the kernel resolve a neighbour, or make sure of it, as if it had a packet for it.
    fn resolve(&self, device: u32, address: IpAddr) -> io::Result<()> {
        let mut message = about(device, address);
        message.header.flags = NeighbourFlags::Use;
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// The station of a neighbour that stays until somebody takes it away; none if it is not there, or not for good.
    pub(super) fn permanent_neighbour(&self, device: u32, address: IpAddr) -> io::Result<Option<Mac>> {
        let mut mac = None;
        let request = RouteNetlinkMessage::GetNeighbour(about(device, address));
        let asked = self.ask(request, NLM_F_REQUEST, |answer| {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                let told = read_neighbour(&message).and_then(|told| told.station);
                mac = told.filter(|_| message.header.state == NeighbourState::Permanent).map(|(mac, _)| mac);
            }
            true
        });
        match asked {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
            asked => asked.map(|()| mac),
        }
    }

    /// The station of a neighbour, and whether the kernel is sure of it.
    fn neighbour(&self, device: u32, address: IpAddr) -> io::Result<Option<(Mac, bool)>> {
        let mut station = None;
        let request = RouteNetlinkMessage::GetNeighbour(about(device, address));
        let asked = self.ask(request, NLM_F_REQUEST, |answer| {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                station = read_neighbour(&message).and_then(|told| told.station);
            }
            true
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            asked => asked.map(|()| station),
        }
    }
}

fn about(device: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    (message.header.family, message.header.ifindex) = (family(address), device);
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

fn read_neighbour(message: &NeighbourMessage) -> Option<Told> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok().map(Mac),
        _ => None,
    });
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    let is_sure = match message.header.state {
        Reachable | Permanent | Noarp | Delay | Probe => Some(true),
        Stale => Some(false),
        _ => None,
    };
    Some(Told { device: message.header.ifindex, address, station: mac.zip(is_sure) })
}

/// The messages in a datagram.
fn messages(bytes: &[u8]) -> Vec<RouteNetlinkMessage> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
        // Messages are padded to 4 bytes (NLMSG_ALIGN).
        let len = (message.header.length as usize).next_multiple_of(4).max(4);
        if let NetlinkPayload::InnerMessage(inner) = message.payload {
            found.push(inner);
        }
        rest = rest.get(len..).unwrap_or_default();
    }
    found
}
