//! Routes of the node's kernel, as the mirror last saw them. Which of several to one network counts, and what it
//! means here: a next hop behind the switch is gone to directly, any other route leads to the kernel, which knows
//! its own devices better than we do.

use super::model::Model;
use super::uplink::ToKernel;
use std::collections::BTreeMap;
use std::net::IpAddr;
use switch_api::{KERNEL_PROTOCOL, Name, NextHop, Prefix, Vid};

/// Routes of the kernel that are mirrored, all tables together. Beyond it the kernel decides, as it does without a
/// mirror: every question to the kernel is answered with all of them.
pub const MIRRORED_MAX: usize = 16_384;

/// The kernel's table of its own addresses (linux/rtnetlink.h).
pub const TABLE_LOCAL: u32 = 255;

/// What the kernel does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelHop {
    /// The device's name.
    pub device: String,
    /// The next router; none if the destination is on the device's network.
    pub gateway: Option<IpAddr>,
    /// Its share.
    pub weight: u16,
}

/// A route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// The table.
    pub table: u32,
    /// The network.
    pub prefix: Prefix,
    /// The lowest counts.
    pub metric: u32,
    /// Who wrote it (`rtm_protocol`, linux/rtnetlink.h).
    pub protocol: u8,
    /// What becomes of packets.
    pub kind: Kind,
    /// Ways out.
    pub hops: Vec<KernelHop>,
    /// Longest packet, bytes, if the route says so (`RTAX_MTU`, linux/rtnetlink.h).
    pub mtu: Option<u16>,
}

/// All that is known of the kernel's routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrored {
    routes: BTreeMap<(u32, Prefix, u32), KernelRoute>,
    /// Routes beyond [`MIRRORED_MAX`].
    pub beyond: usize,
    /// Routes that this mirror does not understand, and the first of them.
    pub odd: (usize, Option<String>),
}

/// What a route of the kernel means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The kernel sends it on.
    Kernel,
    /// Next hops behind the switch.
    Direct(Vec<NextHop>),
    /// Dropped.
    Refuse(Kind),
    /// It would lead from here to the kernel and back.
    Circle,
    /// It is about a network that is known better here.
    Known,
}

impl Mirrored {
    /// Takes a route in, unless there are too many.
    pub fn add(&mut self, route: KernelRoute) {
        let key = (route.table, route.prefix, route.metric);
        if self.routes.len() >= MIRRORED_MAX && !self.routes.contains_key(&key) {
            self.beyond += 1;
        } else {
            self.routes.insert(key, route);
        }
    }

    /// Notes a route that is not understood.
    pub fn refuse(&mut self, why: String) {
        self.odd.0 += 1;
        self.odd.1.get_or_insert(why);
    }

    /// Routes of a table with the kernel's own addresses, which come first; of several to one network the first
    /// counts.
    pub fn of(&self, table: u32) -> impl Iterator<Item = &KernelRoute> {
        let own = self.routes.values().filter(|route| route.kind == Kind::Local);
        own.chain(self.routes.values().filter(move |route| route.table == table && route.kind != Kind::Local))
    }

    /// Of these, those to one network.
    pub fn to(&self, table: u32, prefix: Prefix) -> impl Iterator<Item = &KernelRoute> {
        let of = move |table| self.routes.range((table, prefix, 0)..=(table, prefix, u32::MAX));
        let own = of(TABLE_LOCAL).map(|(_, route)| route).filter(|route| route.kind == Kind::Local);
        own.chain(of(table).map(|(_, route)| route).filter(|route| route.kind != Kind::Local))
    }

    /// Networks, of any table, that `before` knows other routes to.
    pub fn differences(&self, before: &Self) -> Vec<Prefix> {
        let places = |one: &'_ Self, other: &'_ Self| -> Vec<Prefix> {
            let differs = one.routes.iter().filter(|(key, route)| other.routes.get(key) != Some(route));
            differs.map(|((_, prefix, _), _)| *prefix).collect()
        };
        let mut found = places(self, before);
        found.extend(places(before, self));
        found
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

impl Model {
    /// What a route of the kernel means to a routing table that leads there.
    pub fn meaning(&self, vrf: &Name, kernel: &ToKernel, route: &KernelRoute) -> Meaning {
        if !matches!(route.kind, Kind::Forward | Kind::Local) {
            return if route.protocol == KERNEL_PROTOCOL {
                Meaning::Known
            } else {
                Meaning::Refuse(route.kind)
            };
        }
        let (ours, others): (Vec<_>, Vec<_>) = route.hops.iter().partition(|hop| hop.device == kernel.device);
        if route.kind == Kind::Local || ours.is_empty() && !others.is_empty() {
            return Meaning::Kernel;
        }
        let known = self.announced(vrf).iter().any(|network| network.prefix.contains(route.prefix.address));
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
pub fn shown(route: &KernelRoute) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use switch_api::{Bridge, BridgeAddress, Owner, Request};

    fn route(prefix: &str, hops: &[(&str, &str)]) -> KernelRoute {
        let hop = |(device, gateway): &(&str, &str)| KernelHop {
            device: (*device).into(),
            gateway: gateway.parse().ok(),
            weight: 1,
        };
        let (hops, prefix) = (hops.iter().map(hop).collect(), prefix.parse().unwrap());
        KernelRoute { table: 254, prefix, metric: 0, protocol: 12, kind: Kind::Forward, hops, mtu: None }
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
        let kernel = ToKernel {
            port: "host".parse().unwrap(),
            id: 0,
            device: "switch0".into(),
            mac: switch_api::Mac([2; 6]),
            fid: 1,
            own_mac: switch_api::Mac([4; 6]),
        };
        let meaning = |route: &KernelRoute| model.meaning(&Name::main(), &kernel, route);
        assert_eq!(meaning(&route("10.9.0.0/16", &[("eth0", "192.0.2.1")])), Meaning::Kernel);
        assert_eq!(meaning(&route("10.1.0.0/24", &[("switch0", "")])), Meaning::Known);
        assert_eq!(meaning(&route("10.9.0.0/16", &[("switch0", "10.1.0.1")])), Meaning::Circle);
        assert_eq!(meaning(&route("10.9.0.0/16", &[("switch0", "")])), Meaning::Circle);
        // A router that is a pod; beside another way only the one that does not come back here counts.
        for hops in [&[("switch0", "10.1.0.7")][..], &[("eth0", "192.0.2.1"), ("switch0", "10.1.0.7")]] {
            let Meaning::Direct(via) = meaning(&route("10.9.0.0/16", hops)) else { panic!("{hops:?}") };
            assert_eq!(via[0].address.to_string(), "10.1.0.7");
        }
        let refused = KernelRoute { kind: Kind::Prohibit, ..route("10.9.0.0/16", &[]) };
        assert_eq!(meaning(&refused), Meaning::Refuse(Kind::Prohibit));
    }

    #[test]
    fn what_is_too_much_is_counted_and_the_first_of_several_counts() {
        let mut mirrored = Mirrored::default();
        for n in 0..MIRRORED_MAX as u32 + 5 {
            let prefix = Prefix { address: IpAddr::V4((0x0b00_0000 + n).into()), len: 32 };
            mirrored.add(KernelRoute { prefix, ..route("0.0.0.0/0", &[]) });
        }
        assert_eq!((mirrored.len(), mirrored.beyond), (MIRRORED_MAX, 5));
        let mut mirrored = Mirrored::default();
        mirrored.add(KernelRoute { metric: 20, ..route("10.9.0.0/16", &[("eth0", "")]) });
        mirrored.add(KernelRoute { metric: 10, ..route("10.9.0.0/16", &[("eth1", "")]) });
        mirrored.add(KernelRoute { table: 7, ..route("10.9.0.0/16", &[("eth2", "")]) });
        assert_eq!(mirrored.of(254).next().unwrap().hops[0].device, "eth1");
    }
}
