//! What the kernel answers when it is asked for all its routes is not of one moment: it is read in pieces, and what changes
//! meanwhile is told as news, which is put on the answer ([`super::news`]). What goes meanwhile may make the kernel leave others out,
//! and nothing says so (`NLM_F_DUMP_INTR` is not set for routes):
//!
//! * Of IPv6 a piece begins behind as many nodes of the tree as were told, counted anew if a route came (`fib6_dump_table`,
//!   net/ipv6/ip6_fib.c): of nodes that went as many others are passed over.
//! * Of IPv4 it begins behind as many routes to networks of one address, of whatever length and metric (`fn_trie_dump_leaf`,
//!   net/ipv4/fib_trie.c).
//!
//! So a route that such an answer lacks stays, till the next one lacks it as well.

use super::super::rtnl::table_of;
use super::news::{Known, messages};
use crate::config::mirrored::{Change, KernelPlace, KernelWay, TABLE_LOCAL};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What the kernel has: places in order, each once, and what is not understood.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) routes: Vec<(KernelPlace, Arc<KernelWay>)>,
    pub(super) odd: (usize, Option<String>),
}

/// What became of an answer.
#[derive(Debug)]
pub(super) struct Put {
    /// What it lacked, and stays.
    pub(super) missing: Missing,
    /// News left a doubt, or was lost.
    pub(super) is_doubt: bool,
    /// It may have lacked something.
    pub(super) has_gaps: bool,
}

impl Answer {
    /// Makes `change` what the answer, and what was told meanwhile, say that there is. `before` was missing from the last one.
    pub(super) fn put(
        self,
        meanwhile: &Meanwhile,
        known: &mut Known,
        before: Missing,
        tables: &BTreeSet<u32>,
        change: &mut Change,
        limit: usize,
    ) -> Put {
        let (gaps, mut missing) = (Gaps::of(meanwhile, tables), Missing::default());
        let is_asked = |table| table == TABLE_LOCAL || tables.contains(&table);
        let is_kept = |place: KernelPlace| {
            let is_kept = is_asked(place.table) && gaps.hide(place) && !before.0.contains(&place);
            is_kept && missing.0.insert(place)
        };
        change.become_all(&self.routes, limit, self.odd, is_kept);
        let mut is_doubt = meanwhile.is_part;
        for news in &meanwhile.news {
            is_doubt |= known.take(news, tables, change, limit);
        }
        let has_gaps = gaps.are_there() || !missing.0.is_empty();
        Put { missing, is_doubt, has_gaps }
    }
}

/// What was told while an answer was read.
#[derive(Debug, Default)]
pub(super) struct Meanwhile {
    /// Datagrams.
    pub(super) news: Vec<Vec<u8>>,
    /// Some of it was lost, or waits still.
    pub(super) is_part: bool,
}

/// Which routes an answer may lack though they are there.
#[derive(Debug, Default)]
struct Gaps {
    /// Nothing is known.
    everywhere: bool,
    v6_came: bool,
    v6_went: bool,
    /// Addresses of IPv4 networks, by table, of which one went.
    v4_went: BTreeSet<(u32, Ipv4Addr)>,
}

impl Gaps {
    /// Those that what was told of `tables` may have made.
    fn of(meanwhile: &Meanwhile, tables: &BTreeSet<u32>) -> Self {
        let mut gaps = Self { everywhere: meanwhile.is_part, ..Self::default() };
        for message in meanwhile.news.iter().flat_map(|news| messages(news)).filter_map(|(_, _, inner)| inner)
        {
            let (RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)) = &message
            else {
                continue;
            };
            let (table, comes) = (table_of(route), matches!(message, RouteNetlinkMessage::NewRoute(_)));
            if table == TABLE_LOCAL || tables.contains(&table) {
                gaps.note(table, route, comes);
            }
        }
        gaps
    }

    fn note(&mut self, table: u32, route: &RouteMessage, comes: bool) {
        if route.header.address_family == AddressFamily::Inet6 {
            (self.v6_came, self.v6_went) = (self.v6_came || comes, self.v6_went || !comes);
        } else if !comes {
            let to = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(*to),
                _ => None,
            });
            self.v4_went.insert((table, to.unwrap_or(Ipv4Addr::UNSPECIFIED)));
        }
    }

    /// Whether the answer may lack routes that nobody has heard of yet.
    fn are_there(&self) -> bool {
        self.everywhere || self.v6_came && self.v6_went
    }

    /// Whether it may lack one in this place.
    fn hide(&self, place: KernelPlace) -> bool {
        self.everywhere
            || match place.prefix.address {
                IpAddr::V6(_) => self.v6_came && self.v6_went,
                IpAddr::V4(to) => self.v4_went.contains(&(place.table, to)),
            }
    }
}

/// Places that stay though an answer lacks them: once.
#[derive(Debug, Default)]
pub(super) struct Missing(HashSet<KernelPlace>);
