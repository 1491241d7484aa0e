//! What a message of rtnetlink's news changes in the mirror. Taken at its word is what can only mean one thing: a route where
//! none stood, one that replaces the only one there, one that goes as it stands. All else leaves a doubt, which is answered by
//! asking for everything: routes of the kernel that share a place, IPv6 next hops that come and go one by one, routes that go
//! without a word with their device, their source address or their next-hop object.

use super::super::links::{self, Link};
use super::super::nexthop::{self, Nexthops};
use super::super::rtnl::table_of;
use super::read;
use crate::config::mirrored::{Change, KernelPlace, KernelWay, TABLE_LOCAL};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Of struct nlmsghdr.
const HEADER_LEN: usize = 16;
/// linux/rtnetlink.h: news of next-hop objects, which the crate does not know.
const NEXTHOPS: std::ops::RangeInclusive<u16> = 104..=105;
const NEW_NEXTHOP: u16 = 104;

/// What has to be known to understand news.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Devices by index: their names, and whether they are set up.
    devices: BTreeMap<u32, (String, bool)>,
    /// What routes say, each once.
    ways: HashSet<Arc<KernelWay>>,
    /// Places where several routes stand.
    crowded: HashSet<KernelPlace>,
    /// Next-hop objects, once a route names one by number alone.
    nexthops: Option<Arc<Nexthops>>,
}

impl Known {
    pub(super) fn learn_devices(&mut self, links: Vec<Link>) {
        self.devices = links.into_iter().map(|link| (link.index, (link.name, link.is_up))).collect();
    }

    /// Several routes stand there.
    pub(super) fn crowd(&mut self, place: KernelPlace) {
        self.crowded.insert(place);
    }

    /// A route that concerns us; `Err` names one that does and cannot be understood.
    pub(super) fn read(
        &mut self,
        message: &RouteMessage,
    ) -> Result<Option<(KernelPlace, Arc<KernelWay>)>, String> {
        let (devices, objects) = (&self.devices, &mut self.nexthops);
        let name =
            |index: u32| devices.get(&index).map_or_else(|| index.to_string(), |(name, _)| name.clone());
        let mut nexthops = || objects.get_or_insert_with(|| Arc::new(nexthop::all_or_none())).clone();
        let Some((place, way)) = read::read(message, &name, &mut nexthops)? else { return Ok(None) };
        if let Some(known) = self.ways.get(&way) {
            return Ok(Some((place, known.clone())));
        }
        let way = Arc::new(way);
        self.ways.insert(way.clone());
        Ok(Some((place, way)))
    }

    /// Reads a datagram of news into `change`; whether it leaves a doubt.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        tables: &BTreeSet<u32>,
        change: &mut Change,
        limit: usize,
    ) -> bool {
        let (mut rest, mut is_doubt) = (bytes, false);
        while let Some((len, kind, flags)) = header(rest) {
            let message = rest.get(..len).unwrap_or(rest);
            is_doubt |= match NEXTHOPS.contains(&kind) {
                true => self.nexthop(kind, flags),
                false => match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
                    .map(|read| read.payload)
                {
                    Ok(NetlinkPayload::InnerMessage(inner)) => {
                        self.message(&inner, flags, tables, change, limit)
                    }
                    // It may have been a route.
                    Ok(_) | Err(_) => true,
                },
            };
            // Messages are padded to 4 bytes (NLMSG_ALIGN).
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        is_doubt
    }

    fn message(
        &mut self,
        message: &RouteNetlinkMessage,
        flags: u16,
        tables: &BTreeSet<u32>,
        change: &mut Change,
        limit: usize,
    ) -> bool {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.device(link, false),
            RouteNetlinkMessage::DelLink(link) => self.device(link, true),
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                let table = table_of(route);
                if table != TABLE_LOCAL && !tables.contains(&table) {
                    return false;
                }
                match (self.read(route), message) {
                    (Ok(Some((place, way))), RouteNetlinkMessage::NewRoute(_)) => {
                        self.comes(place, way, flags, change, limit)
                    }
                    (Ok(Some((place, way))), _) => self.goes(place, &way, change),
                    (Ok(None), _) => false,
                    (Err(_), _) => true,
                }
            }
            _ => false,
        }
    }

    fn comes(
        &self,
        place: KernelPlace,
        way: Arc<KernelWay>,
        flags: u16,
        change: &mut Change,
        limit: usize,
    ) -> bool {
        let replaces = flags & NLM_F_REPLACE != 0;
        match change.get(place) {
            _ if self.crowded.contains(&place) => return true,
            Some(before) if *before == way => return false,
            // Beside the one there: behind it or before it.
            Some(_) if !replaces => return true,
            Some(_) | None => {}
        }
        change.put(place, way, limit);
        false
    }

    fn goes(&self, place: KernelPlace, way: &Arc<KernelWay>, change: &mut Change) -> bool {
        // One of those that found no room may have some now.
        let is_short = change.beyond() > 0;
        match change.get(place) {
            _ if self.crowded.contains(&place) => true,
            None => is_short,
            // With an address of the kernel's go the routes that send from it, without a word.
            Some(before) if before == way => {
                change.remove(place);
                is_short || place.table == TABLE_LOCAL
            }
            // IPv6 next hops go one by one. Of IPv4 the news is older than what stands here.
            Some(_) => place.prefix.address.is_ipv6(),
        }
    }

    /// With a device that is set down IPv4 routes go without a word; routes name devices by index.
    fn device(&mut self, message: &LinkMessage, goes: bool) -> bool {
        // Of bridges' ports the same is told as of devices, and means something else.
        if message.header.interface_family != AddressFamily::Unspec {
            return false;
        }
        let link = links::read(message);
        if goes {
            return self.devices.remove(&link.index).is_some();
        }
        let now = (link.name, link.is_up);
        match self.devices.insert(link.index, now.clone()) {
            None => false,
            Some((name, was_up)) => name != now.0 || was_up && !now.1,
        }
    }

    /// Routes that name it by number are others now, or gone; of a new one there are none.
    fn nexthop(&mut self, kind: u16, flags: u16) -> bool {
        self.nexthops = None;
        kind != NEW_NEXTHOP || flags & NLM_F_CREATE == 0 || flags & NLM_F_REPLACE != 0
    }
}

/// Length, type and flags of the first message, if there is one.
fn header(bytes: &[u8]) -> Option<(usize, u16, u16)> {
    let header = bytes.first_chunk::<HEADER_LEN>()?;
    let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    (len >= HEADER_LEN).then_some((len, word(4), word(6)))
}
