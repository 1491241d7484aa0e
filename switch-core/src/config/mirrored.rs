//! Routes of the node's kernel, as the mirror last saw them. Which of several to one network counts, and what it
//! means here: a next hop behind the switch is gone to directly, any other route leads to the kernel, which knows
//! its own devices better than we do. A table that is changed by making another one, which shares what did not change
//! and knows what did, as the declared routes are ([`super::routes`]).

use super::model::Model;
use super::network::{CHUNK, Network, put};
use super::shared::{WayOut, Ways};
use immutable_chunkmap::map::Map;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;
use switch_api::{KERNEL_PROTOCOL, Name, NextHop, Prefix, Vid};

/// Routes of the kernel that are mirrored, all tables together: the Internet's IPv4 table. Beyond it the kernel decides, as it
/// does without a mirror: it is a limit on memory.
pub const MIRRORED_MAX: usize = 1_000_000;

/// The kernel's table of its own addresses (linux/rtnetlink.h).
pub const TABLE_LOCAL: u32 = 255;

/// What the kernel does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Out by a device.
    Forward,
    /// To itself.
    Local,
    /// Dropped in silence.
    Blackhole,
    /// Dropped; the sender is told that there is no way.
    Unreachable,
    /// Dropped; the sender is told that it is forbidden.
    Prohibit,
}

/// A way out of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KernelHop {
    /// The device's name.
    pub device: String,
    /// The next router; none if the destination is on the device's network.
    pub gateway: Option<IpAddr>,
    /// Its share.
    pub weight: u16,
}

/// Where a route of the kernel stands. Of several to one network the one with the lowest metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelPlace {
    /// The table.
    pub table: u32,
    /// The network.
    pub prefix: Prefix,
    /// The lowest counts.
    pub metric: u32,
}

/// What a route of the kernel says. Routes that say the same share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelWay {
    /// Who wrote it (`rtm_protocol`, linux/rtnetlink.h).
    pub protocol: u8,
    /// What becomes of packets.
    pub kind: Kind,
    /// Ways out.
    pub hops: Vec<KernelHop>,
    /// Longest packet, bytes, if the route says so (`RTAX_MTU`, linux/rtnetlink.h).
    pub mtu: Option<u16>,
}

/// A route of the kernel.
pub type KernelRoute<'a> = (KernelPlace, &'a Arc<KernelWay>);

/// All that is known of the kernel's routes.
#[derive(Clone, Debug, Default)]
pub struct Mirrored {
    /// By table and network.
    routes: Map<(u32, Prefix), Network<KernelWay>, CHUNK>,
    len: usize,
    /// Routes beyond the limit.
    pub beyond: usize,
    /// Routes that this mirror does not understand, and the first of them.
    pub odd: (usize, Option<String>),
    revision: u64,
    /// The revision that this one was made of, and the networks, of any table, where it differs.
    base: u64,
    changed: Arc<Vec<Prefix>>,
}

impl PartialEq for Mirrored {
    fn eq(&self, other: &Self) -> bool {
        (&self.routes, self.beyond, &self.odd) == (&other.routes, other.beyond, &other.odd)
    }
}

impl Eq for Mirrored {}

/// What a route of the kernel means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The kernel sends it on.
    Kernel,
    /// Next hops behind the switch.
    Direct(Vec<NextHop>),
    /// Stations at the end of an uplink.
    Link(WayOut),
    /// Dropped.
    Refuse(Kind),
    /// It would lead from here to the kernel and back.
    Circle,
    /// It is about a network that is known better here.
    Known,
}

/// A mirror in the making: one that goes on from another.
#[derive(Debug)]
pub struct Change {
    next: Mirrored,
    changed: Vec<Prefix>,
}

impl Change {
    /// Begins with what is known.
    pub fn of(before: &Mirrored) -> Self {
        let mut next = before.clone();
        (next.base, next.revision) = (before.revision, before.revision + 1);
        Self { next, changed: Vec::new() }
    }

    /// What is known by now.
    pub fn get(&self, place: KernelPlace) -> Option<&Arc<KernelWay>> {
        self.next.get(place)
    }

    /// Takes a route in, in place of what is there, unless there are `limit` already.
    pub fn put(&mut self, place: KernelPlace, way: Arc<KernelWay>, limit: usize) {
        match self.get(place) {
            Some(before) if *before == way => return,
            None if self.next.len >= limit => return self.next.beyond += 1,
            _ => {}
        }
        let before = put(&mut self.next.routes, (place.table, place.prefix), place.metric, Some(way));
        self.next.len += usize::from(before.is_none());
        self.changed.push(place.prefix);
    }

    /// Takes a route out.
    pub fn remove(&mut self, place: KernelPlace) {
        if put(&mut self.next.routes, (place.table, place.prefix), place.metric, None).is_some() {
            self.next.len -= 1;
            self.changed.push(place.prefix);
        }
    }

    /// Makes it what `found`, in order and each place once, says there is: all of it, up to `limit`. What differs is put, so
    /// that the rest stays shared. What is not found stays where `is_kept` says so.
    pub fn become_all(
        &mut self,
        found: &[(KernelPlace, Arc<KernelWay>)],
        limit: usize,
        odd: (usize, Option<String>),
        mut is_kept: impl FnMut(KernelPlace) -> bool,
    ) {
        let gone: Vec<KernelPlace> = self
            .next
            .all()
            .map(|(place, _)| place)
            .filter(|place| found.binary_search_by_key(place, |(place, _)| *place).is_err())
            .filter(|place| !is_kept(*place))
            .collect();
        gone.into_iter().for_each(|place| self.remove(place));
        (self.next.beyond, self.next.odd) = (0, odd);
        for (place, way) in found {
            self.put(*place, way.clone(), limit);
        }
    }

    /// Routes that found no room.
    pub fn beyond(&self) -> usize {
        self.next.beyond
    }

    /// The mirror, if it is another than before.
    pub fn finish(mut self, before: &Mirrored) -> Option<Mirrored> {
        let differs =
            !self.changed.is_empty() || (self.next.beyond, &self.next.odd) != (before.beyond, &before.odd);
        self.next.changed = Arc::new(self.changed);
        differs.then_some(self.next)
    }
}

impl Mirrored {
    /// Routes of a table with the kernel's own addresses, which come first; of several to one network the first
    /// counts.
    pub fn of(&self, table: u32) -> impl Iterator<Item = KernelRoute<'_>> {
        let both = [Some(TABLE_LOCAL), Some(table).filter(|table| *table != TABLE_LOCAL)];
        both.into_iter().flatten().flat_map(|table| self.table(table, None)).flat_map(routes)
    }

    /// Of these, those to one network.
    pub fn to(&self, table: u32, prefix: Prefix) -> impl Iterator<Item = KernelRoute<'_>> {
        let both = [Some(TABLE_LOCAL), Some(table).filter(|table| *table != TABLE_LOCAL)];
        let keys = both.into_iter().flatten().map(move |table| (table, prefix));
        keys.filter_map(|key| Some((key, self.routes.get(&key)?))).flat_map(routes)
    }

    /// Networks of one table alone, in order, behind `after`. Finding the first costs a hundredth of going through all.
    pub fn networks(&self, table: u32, after: Option<Prefix>) -> impl Iterator<Item = Prefix> {
        self.table(table, after).map(|((_, prefix), _)| prefix)
    }

    /// What stands in a place.
    pub fn get(&self, place: KernelPlace) -> Option<&Arc<KernelWay>> {
        self.routes.get(&(place.table, place.prefix))?.get(place.metric)
    }

    /// Networks of one table behind `after`.
    fn table(&self, table: u32, after: Option<Prefix>) -> impl Iterator<Item = Entry<'_>> {
        let first = after.map_or(Included((table, FIRST)), |after| Excluded((table, after)));
        let range = self.routes.range((first, Included((table, LAST))));
        range.map(|(key, network)| (*key, network))
    }

    fn all(&self) -> impl Iterator<Item = KernelRoute<'_>> {
        self.routes.into_iter().map(|(key, network)| (*key, network)).flat_map(routes)
    }

    /// Networks, of any table, where this differs from `before`, if that is known: from the very one it was made of.
    pub fn changed_since(&self, before: &Self) -> Option<&[Prefix]> {
        match before.revision {
            same if same == self.revision => Some(&[]),
            base if base == self.base => Some(&self.changed),
            _ => None,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A network of the map, and the routes to it.
type Entry<'a> = ((u32, Prefix), &'a Network<KernelWay>);

fn routes<'a>(((table, prefix), network): Entry<'a>) -> impl Iterator<Item = KernelRoute<'a>> {
    network.all().map(move |(metric, way)| (KernelPlace { table, prefix, metric }, way))
}

/// The first and the last network there is.
const FIRST: Prefix = Prefix { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), len: 0 };
const LAST: Prefix = Prefix { address: IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::MAX)), len: 128 };

impl Model {
    /// What a route of the kernel means to a routing table that has these ways out.
    pub fn meaning(&self, vrf: &Name, ways: &Ways, (place, route): KernelRoute<'_>) -> Meaning {
        if !matches!(route.kind, Kind::Forward | Kind::Local) {
            return if route.protocol == KERNEL_PROTOCOL {
                Meaning::Known
            } else {
                Meaning::Refuse(route.kind)
            };
        }
        let leads_here = |hop: &&KernelHop| ways.kernel.as_ref().is_some_and(|it| it.device == hop.device);
        let (ours, others): (Vec<_>, Vec<_>) = route.hops.iter().partition(leads_here);
        if route.kind == Kind::Local {
            return by_kernel(ways);
        }
        if ours.is_empty() && !others.is_empty() {
            return outwards(ways, place.prefix, &others);
        }
        let known = self.announced(vrf).iter().any(|network| network.prefix.contains(place.prefix.address));
        if known || route.protocol == KERNEL_PROTOCOL {
            return Meaning::Known;
        }
        let hop = |hop: &&KernelHop| {
            let hop = NextHop { address: hop.gateway?, bridge: None, vid: Vid::DEFAULT, weight: hop.weight };
            let own = self.gateway_to(vrf, &hop)?;
            (own.address.address != hop.address).then_some(hop)
        };
        let direct: Vec<NextHop> = ours.iter().filter_map(hop).collect();
        if direct.is_empty() { Meaning::Circle } else { Meaning::Direct(direct) }
    }
}

/// What the kernel sends on. Without a way to it nobody does.
fn by_kernel(ways: &Ways) -> Meaning {
    if ways.kernel.is_some() { Meaning::Kernel } else { Meaning::Refuse(Kind::Unreachable) }
}

/// By an uplink, if all of a route's ways are by NICs that are shared; else by the kernel, which knows its other devices.
fn outwards(ways: &Ways, prefix: Prefix, hops: &[&KernelHop]) -> Meaning {
    let out: Vec<(&KernelHop, &WayOut)> =
        hops.iter().filter_map(|hop| Some((*hop, ways.by(&hop.device)?))).collect();
    let is_kernels = out.len() < hops.len() || ways.is_translated(prefix);
    match out[..] {
        _ if out.is_empty() || is_kernels && ways.kernel.is_some() => by_kernel(ways),
        [(KernelHop { gateway: None, .. }, way)] => Meaning::Link(way.clone()),
        _ => {
            let hop = |(hop, way): &(&KernelHop, &WayOut)| {
                let (bridge, weight) = (Some(way.bridge.clone()), hop.weight);
                Some(NextHop { address: hop.gateway?, bridge, vid: way.vid, weight })
            };
            let via: Vec<NextHop> = out.iter().filter_map(hop).collect();
            if via.is_empty() { by_kernel(ways) } else { Meaning::Direct(via) }
        }
    }
}

/// The name that `ip route` has for a protocol (/etc/iproute2/rt_protos).
pub fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        18 => "keepalived",
        42 => "babel",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// A route as `ip route` would show it.
pub fn shown(route: &KernelWay) -> String {
    let hop = |hop: &KernelHop| match hop.gateway {
        Some(gateway) => format!("via {gateway} dev {}", hop.device),
        None => format!("dev {}", hop.device),
    };
    let hops: Vec<String> = route.hops.iter().map(hop).collect();
    let mtu = route.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
    match route.kind {
        Kind::Forward => format!("{}{mtu}", hops.join(" or ")),
        Kind::Local => format!("local {}", hops.join(" or ")),
        Kind::Blackhole => "blackhole".into(),
        Kind::Unreachable => "unreachable".into(),
        Kind::Prohibit => "prohibit".into(),
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use switch_api::{Bridge, BridgeAddress, Owner, Request};

    type Owned = (KernelPlace, Arc<KernelWay>);

    fn route(prefix: &str, hops: &[(&str, &str)]) -> Owned {
        let hop = |(device, gateway): &(&str, &str)| KernelHop {
            device: (*device).into(),
            gateway: gateway.parse().ok(),
            weight: 1,
        };
        let (hops, prefix) = (hops.iter().map(hop).collect(), prefix.parse().unwrap());
        let way = KernelWay { protocol: 12, kind: Kind::Forward, hops, mtu: None };
        (KernelPlace { table: 254, prefix, metric: 0 }, Arc::new(way))
    }

    #[test]
    fn a_route_means_what_its_next_hops_say() {
        let bridge = Bridge::new("br0".parse().unwrap());
        let own = BridgeAddress {
            bridge: bridge.name.clone(),
            address: "10.1.0.1/24".parse().unwrap(),
            vid: Vid::DEFAULT,
            owner: Owner::Operator,
        };
        let model = Model::default().apply(&Request::BridgeAdd(bridge)).unwrap();
        let model = model.apply(&Request::AddressAdd(own)).unwrap();
        let kernel = crate::config::uplink::ToKernel {
            port: "host".parse().unwrap(),
            id: 0,
            device: "switch0".into(),
            mac: switch_api::Mac([2; 6]),
            fid: 1,
            own_mac: switch_api::Mac([4; 6]),
        };
        let mut ways = Ways { kernel: Some(kernel), ..Ways::default() };
        let meaning = |(place, way): &Owned| model.meaning(&Name::main(), &ways, (*place, way));
        assert_eq!(meaning(&route("10.9.0.0/16", &[("eth0", "192.0.2.1")])), Meaning::Kernel);
        assert_eq!(meaning(&route("10.1.0.0/24", &[("switch0", "")])), Meaning::Known);
        assert_eq!(meaning(&route("10.9.0.0/16", &[("switch0", "10.1.0.1")])), Meaning::Circle);
        assert_eq!(meaning(&route("10.9.0.0/16", &[("switch0", "")])), Meaning::Circle);
        // A router that is a pod; beside another way only the one that does not come back here counts.
        for hops in [&[("switch0", "10.1.0.7")][..], &[("eth0", "192.0.2.1"), ("switch0", "10.1.0.7")]] {
            let Meaning::Direct(via) = meaning(&route("10.9.0.0/16", hops)) else { panic!("{hops:?}") };
            assert_eq!(via[0].address.to_string(), "10.1.0.7");
        }
        let refused = KernelWay { kind: Kind::Prohibit, ..(*route("10.9.0.0/16", &[]).1).clone() };
        assert_eq!(
            meaning(&(route("10.9.0.0/16", &[]).0, Arc::new(refused))),
            Meaning::Refuse(Kind::Prohibit)
        );
        // With uplinks on the NICs: by them, unless the kernel has another way beside, or nobody can be asked.
        let wan = |device: &str, fid| WayOut {
            port: device.parse().unwrap(),
            id: 7,
            device: device.into(),
            bridge: device.parse().unwrap(),
            fid,
            vid: Vid::DEFAULT,
        };
        ways.out = vec![wan("eth0", 8), wan("eth1", 9)];
        let meaning = |ways: &Ways, hops: &[(&str, &str)]| {
            let (place, way) = route("10.9.0.0/16", hops);
            model.meaning(&Name::main(), ways, (place, &way))
        };
        assert_eq!(meaning(&ways, &[("eth1", "")]), Meaning::Link(wan("eth1", 9)));
        let several = [("eth0", "192.0.2.1"), ("eth1", "198.51.100.1")];
        let Meaning::Direct(via) = meaning(&ways, &several) else { panic!("{several:?}") };
        let named: Vec<_> = via.iter().map(|hop| hop.bridge.as_ref().unwrap().as_str()).collect();
        assert_eq!(named, ["eth0", "eth1"]);
        let mixed = [("eth0", "192.0.2.1"), ("eth2", "203.0.113.1")];
        assert_eq!(meaning(&ways, &mixed), Meaning::Kernel);
        ways.kernel = None;
        let Meaning::Direct(via) = meaning(&ways, &mixed) else { panic!("{mixed:?}") };
        assert_eq!(via.len(), 1);
        assert_eq!(meaning(&ways, &[("eth2", "")]), Meaning::Refuse(Kind::Unreachable));
    }

    /// Routes to 11.0.0.0 and up, each with a way of its own device.
    fn several(numbers: impl Iterator<Item = u32>) -> Vec<Owned> {
        let one = |n: u32| {
            let prefix = Prefix { address: IpAddr::V4((0x0b00_0000 + n).into()), len: 32 };
            let (place, way) = route("0.0.0.0/0", &[(["eth0", "eth1"][n as usize % 2], "")]);
            (KernelPlace { prefix, ..place }, way)
        };
        numbers.map(one).collect()
    }

    fn become_all(before: &Mirrored, found: &[Owned], limit: usize) -> Option<Mirrored> {
        let mut change = Change::of(before);
        change.become_all(found, limit, Default::default(), |_| false);
        change.finish(before)
    }

    #[test]
    fn what_is_too_much_is_counted_and_finds_room_later() {
        let full = become_all(&Mirrored::default(), &several(0..15), 10).unwrap();
        assert_eq!((full.len(), full.beyond), (10, 5));
        let fewer = become_all(&full, &several(5..15), 10).unwrap();
        assert_eq!((fewer.len(), fewer.beyond), (10, 0));
        assert!(become_all(&fewer, &several(5..15), 10).is_none(), "nothing is different");
    }

    #[test]
    fn of_several_routes_the_kernels_own_and_then_the_lowest_metric_come_first() {
        let at = |table, metric, device: &str| {
            let (place, way) = route("10.9.0.0/16", &[(device, "")]);
            (KernelPlace { table, metric, ..place }, way)
        };
        let mut found =
            vec![at(254, 20, "eth0"), at(254, 10, "eth1"), at(7, 0, "eth2"), at(TABLE_LOCAL, 0, "lo")];
        found.sort_by_key(|(place, _)| *place);
        let mirrored = become_all(&Mirrored::default(), &found, 10).unwrap();
        let prefix = "10.9.0.0/16".parse().unwrap();
        let devices = |table| -> Vec<String> {
            mirrored.to(table, prefix).map(|(_, way)| way.hops[0].device.clone()).collect()
        };
        assert_eq!(
            (devices(254), devices(7)),
            (vec!["lo".into(), "eth1".into(), "eth0".into()], vec!["lo".into(), "eth2".into()])
        );
        assert_eq!(mirrored.networks(254, None).collect::<Vec<_>>(), [prefix]);
        assert_eq!(mirrored.networks(254, Some(prefix)).count(), 0);
    }

    use proptest::prelude::*;

    proptest! {
        /// However a mirror became what it is: it has what was found, and says of what it was made of where it differs.
        #[test]
        fn a_mirror_knows_what_it_has_and_what_is_new(steps in proptest::collection::vec((any::<bool>(), proptest::collection::vec((0u32..12, 0u32..3), 0..8)), 1..12)) {
            let (mut mirrored, mut list) = (Mirrored::default(), std::collections::BTreeMap::new());
            for (is_all, routes) in steps {
                let before = mirrored.clone();
                let mut change = Change::of(&before);
                let mut next = if is_all { Default::default() } else { list.clone() };
                for (n, what) in routes {
                    let (place, way) = several(std::iter::once(n)).remove(0);
                    let way = Arc::new(KernelWay { mtu: Some(what as u16), ..(*way).clone() });
                    if what == 0 {
                        next.remove(&place);
                        if !is_all { change.remove(place); }
                    } else {
                        next.insert(place, way.clone());
                        if !is_all { change.put(place, way, 100); }
                    }
                }
                if is_all {
                    let found: Vec<Owned> = next.clone().into_iter().collect();
                    change.become_all(&found, 100, Default::default(), |_| false);
                }
                let is_other = list != next;
                let after = change.finish(&before);
                prop_assert!(after.is_some() || !is_other);
                mirrored = after.unwrap_or(mirrored);
                prop_assert!(mirrored.all().map(|(place, way)| (place, way.clone())).eq(next.clone()));
                prop_assert_eq!(mirrored.len(), next.len());
                let differs = |place: &KernelPlace| list.get(place) != next.get(place);
                let places = list.keys().chain(next.keys()).filter(|place| differs(place));
                let said = mirrored.changed_since(&before).unwrap();
                for place in places { prop_assert!(said.contains(&place.prefix)); }
                list = next;
            }
        }
    }
}
