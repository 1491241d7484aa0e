//! What a message of rtnetlink's news changes in the mirror. Taken at its word is what can only mean one thing: a route where
//! none stood, one that replaces the only one there, one that goes as it stands. All else leaves a doubt, which is answered by
//! asking for everything: routes of the kernel that share a place, IPv6 next hops that come and go one by one, routes that go
//! without a word with their device, their source address or their next-hop object.
//!
//! News from while everything was asked may be older than what was answered. It is told again on the answer, and ends at what is
//! there, for what is told last of a place is what the answer has. But where several routes stood meanwhile and one is left, one that
//! replaced another beside it and went seems to replace the one that is left, and to take it away: a doubt as well.

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
/// And of buckets of resilient groups, which lead by what the group has, now here, now there: nothing to a route.
const BUCKETS: std::ops::RangeInclusive<u16> = 116..=117;

/// What has to be known to understand news.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Devices by index.
    devices: BTreeMap<u32, Device>,
    /// What routes say, each once.
    ways: HashSet<Arc<KernelWay>>,
    /// Places where several routes stand.
    crowded: HashSet<KernelPlace>,
    /// Next-hop objects, once a route names one by number alone.
    nexthops: Option<Arc<Nexthops>>,
    /// What is told may be older than what is known: where it replaced a route.
    late: Option<HashSet<KernelPlace>>,
}

/// Of a device, what routes depend on.
#[derive(Debug, PartialEq, Eq)]
struct Device {
    name: String,
    is_up: bool,
    mtu: u32,
}

impl Device {
    fn of(link: Link) -> (u32, Self) {
        (link.index, Self { name: link.name, is_up: link.is_up, mtu: link.mtu })
    }
}

impl Known {
    /// Of an answer: what is told at first may be older.
    pub(super) fn of_answer(links: Vec<Link>) -> Self {
        let devices = links.into_iter().map(Device::of).collect();
        Self { devices, late: Some(HashSet::new()), ..Self::default() }
    }

    /// All that is older than the answer has been told.
    pub(super) fn is_up_to_date(&mut self) {
        self.late = None;
    }

    /// Puts what was answered in order, and each place once: of several routes there the kernel uses the first.
    pub(super) fn put_in_order(&mut self, routes: &mut Vec<(KernelPlace, Arc<KernelWay>)>) {
        // Stable.
        routes.sort_by_key(|(place, _)| *place);
        routes.dedup_by(|(next, _), (first, _)| {
            let is_same = next == first;
            if is_same {
                self.crowded.insert(*first);
            }
            is_same
        });
    }

    /// A route that concerns us; `Err` names one that does and cannot be understood.
    pub(super) fn read(
        &mut self,
        message: &RouteMessage,
    ) -> Result<Option<(KernelPlace, Arc<KernelWay>)>, String> {
        let (devices, objects) = (&self.devices, &mut self.nexthops);
        let name =
            |index: u32| devices.get(&index).map_or_else(|| index.to_string(), |device| device.name.clone());
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
        let mut is_doubt = false;
        for (kind, flags, inner) in messages(bytes) {
            is_doubt |= match inner {
                _ if NEXTHOPS.contains(&kind) => self.nexthop(kind, flags),
                _ if BUCKETS.contains(&kind) => false,
                Some(inner) => self.message(&inner, flags, tables, change, limit),
                // It may have been a route.
                None => true,
            };
        }
        is_doubt
    }

    pub(super) fn message(
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
        &mut self,
        place: KernelPlace,
        way: Arc<KernelWay>,
        flags: u16,
        change: &mut Change,
        limit: usize,
    ) -> bool {
        let replaces = flags & NLM_F_REPLACE != 0;
        let before = change.get(place);
        if let Some(late) = self.late.as_mut().filter(|_| replaces && before.is_some()) {
            late.insert(place);
        }
        match before {
            _ if self.crowded.contains(&place) => return true,
            // One more of those that differ in what is not read here, unless it is the one that was answered.
            Some(before) if *before == way => return !replaces && self.late.is_none(),
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
                let seems = self.late.as_ref().is_some_and(|late| late.contains(&place));
                is_short || seems || place.table == TABLE_LOCAL
            }
            // IPv6 next hops go one by one. Of IPv4 the news is older than what stands here.
            Some(_) => place.prefix.address.is_ipv6(),
        }
    }

    /// With a device that is set down IPv4 routes go without a word; routes name devices by index; and with a device's MTU those of
    /// IPv6 routes over it change without one (net/ipv6/route.c, `rt6_mtu_change`).
    fn device(&mut self, message: &LinkMessage, goes: bool) -> bool {
        // Of bridges' ports the same is told as of devices, and means something else.
        if message.header.interface_family != AddressFamily::Unspec {
            return false;
        }
        let (index, now) = Device::of(links::read(message));
        if goes {
            return self.devices.remove(&index).is_some();
        }
        let Some(before) = self.devices.get(&index) else {
            self.devices.insert(index, now);
            return false;
        };
        let is_doubt = before.name != now.name || before.is_up && !now.is_up || before.mtu != now.mtu;
        self.devices.insert(index, now);
        is_doubt
    }

    /// Routes that name it by number are others now, or gone; of a new one there are none.
    fn nexthop(&mut self, kind: u16, flags: u16) -> bool {
        self.nexthops = None;
        kind != NEW_NEXTHOP || flags & NLM_F_CREATE == 0 || flags & NLM_F_REPLACE != 0
    }
}

/// A message's type, its flags, and what it says, if that can be read.
type Message = (u16, u16, Option<RouteNetlinkMessage>);

/// Messages of a datagram of news.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = Message> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (len, kind, flags) = header(rest)?;
        let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest.get(..len).unwrap_or(rest));
        // Messages are padded to 4 bytes (NLMSG_ALIGN).
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        let inner = match read.map(|read| read.payload) {
            Ok(NetlinkPayload::InnerMessage(inner)) => Some(inner),
            Ok(_) | Err(_) => None,
        };
        Some((kind, flags, inner))
    })
}

/// Length, type and flags of the first message, if there is one.
fn header(bytes: &[u8]) -> Option<(usize, u16, u16)> {
    let header = bytes.first_chunk::<HEADER_LEN>()?;
    let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    (len >= HEADER_LEN).then_some((len, word(4), word(6)))
}
