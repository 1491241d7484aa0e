//! What the fuzz target `snapshots` declares: bytes become requests of every kind that changes a snapshot, about few names, few
//! addresses and few stations, so that they meet each other and the frames.

use super::fuzz::settings_of;
use super::fuzz_acl::{Bytes, SETS, name};
use std::net::IpAddr;
use switch_api::{
    AddressDelete, AddressSet, AddressSetUpdate, Bridge, BridgeAddress, ByName, ByPolicy, EgressRule,
    FdbDelete, IngressRule, IpBlock, IpProtocol, LabelExpression, LabelOperator, LabelSelector, Labels, Mac,
    Metadata, Name, Namespace, Nat, NatKind, NeighDelete, NetworkPolicy, NextHop, Owner, Peer, PolicyPort,
    PolicySpec, PolicyType, PortLabel, PortRangeSet, PortRef, PortSet, PortSettings, Prefix, Protocol,
    Request, ReversePath, Route, RouteDelete, RouteKind, StaticMac, StaticNeighbour, Unread, Uplink, Verdict,
    Vid, Vrf, Workload,
};

/// Bridges there can be; the rig's own is the first.
pub(super) const BRIDGES: usize = 3;
/// Ports there are, some on each bridge.
pub(super) const PORTS: usize = 6;
/// Stations there are.
const STATIONS: u8 = 8;

/// A station that sends.
pub(super) fn station(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, 1 + n % STATIONS])
}

/// The switch's own MAC on a bridge.
pub(super) fn gateway(bridge: usize) -> Mac {
    Mac([2, 2, 2, 2, 2, bridge as u8])
}

/// An address that the switch has on a bridge: its network holds a quarter of all addresses that bytes make.
pub(super) fn own(bridge: usize, v6: bool) -> Prefix {
    let bridge = bridge as u8;
    match v6 {
        false => Prefix { address: IpAddr::from([10, bridge, 0, 1]), len: 16 },
        true => Prefix { address: IpAddr::from([0xfd00, 0, u16::from(bridge), 0, 0, 0, 0, 1]), len: 48 },
    }
}

fn vid(n: u8) -> Vid {
    Vid::try_from(1 + u32::from(n % 4)).unwrap_or(Vid::DEFAULT)
}

/// The next change; none where the bytes name nothing.
pub(crate) fn request(bytes: &mut Bytes) -> Option<Request> {
    let kind = bytes.byte();
    let gone = kind & 0xe0 == 0xe0;
    Some(match kind % 16 {
        0 => bridge(bytes, gone)?,
        1 | 2 => gateway_address(bytes, gone)?,
        3 | 4 => route(bytes, gone)?,
        5 => Request::PortSet(PortSet { name: port(bytes)?, settings: settings(bytes) }),
        6 => label(bytes, gone)?,
        7 => namespace(bytes),
        8 | 9 => policy(bytes, gone),
        10 => list(bytes, gone)?,
        11 => address_set(bytes, gone)?,
        12 => nat(bytes, gone)?,
        13 => neighbour(bytes, gone)?,
        14 => static_mac(bytes, gone)?,
        _ => vrf(bytes, gone)?,
    })
}

fn bridge_name(byte: u8) -> Option<Name> {
    name("br", usize::from(byte) % BRIDGES)
}

fn port(bytes: &mut Bytes) -> Option<Name> {
    name("p", usize::from(bytes.byte()) % PORTS)
}

fn table(byte: u8) -> Option<Name> {
    if byte & 3 == 3 { name("blue", 0) } else { Some(Name::main()) }
}

fn bridge(bytes: &mut Bytes, gone: bool) -> Option<Request> {
    let [n, flags] = [bytes.byte(), bytes.byte()];
    let name = bridge_name(n)?;
    if gone {
        return Some(Request::BridgeDelete(ByName { name }));
    }
    let reverse_path =
        [ReversePath::Off, ReversePath::Off, ReversePath::Strict, ReversePath::Loose][usize::from(flags & 3)];
    let object = Bridge {
        mac: (flags & 4 == 0).then(|| gateway(usize::from(n) % BRIDGES)),
        vrf: table(flags >> 3)?,
        mss_clamp: flags & 0x20 != 0,
        neigh_suppress: flags & 0x40 != 0,
        neigh_proxy: flags & 0x80 != 0,
        reverse_path,
        ..Bridge::new(name)
    };
    Some(if n & 0x80 == 0 { Request::BridgeSet(object) } else { Request::BridgeAdd(object) })
}

fn gateway_address(bytes: &mut Bytes, gone: bool) -> Option<Request> {
    let [n, flags] = [bytes.byte(), bytes.byte()];
    let (bridge, vid) = (bridge_name(n)?, vid(flags >> 4));
    let address = if flags & 1 == 0 { own(usize::from(n) % BRIDGES, flags & 2 != 0) } else { bytes.prefix() };
    Some(match gone {
        true => Request::AddressDelete(AddressDelete { bridge, address, vid }),
        false => Request::AddressAdd(BridgeAddress { bridge, address, vid, owner: Owner::Operator }),
    })
}

fn route(bytes: &mut Bytes, gone: bool) -> Option<Request> {
    let flags = bytes.byte();
    let (prefix, vrf) = (bytes.prefix(), table(flags)?);
    let metric = u32::from(flags >> 2 & 1);
    if gone {
        return Some(Request::RouteDelete(RouteDelete { prefix, vrf, metric: Some(metric) }));
    }
    let kinds = [RouteKind::Via, RouteKind::Blackhole, RouteKind::Unreachable, RouteKind::Prohibit];
    // Most lead somewhere.
    let kind = kinds[usize::from(flags >> 3 & 3) * usize::from(flags >> 5 & 1)];
    let hop = |bytes: &mut Bytes| {
        let [bridge, weight] = [bytes.byte(), bytes.byte()];
        let (named, vid) = (bridge & 4 != 0, if bridge & 4 != 0 { vid(bridge >> 4) } else { Vid::DEFAULT });
        let bridge = named.then(|| bridge_name(bridge)).flatten();
        NextHop { address: bytes.address(), bridge, vid, weight: 1 + u16::from(weight) }
    };
    let via = if kind == RouteKind::Via { bytes.several(3, hop) } else { Vec::new() };
    let mtu = (flags & 0x40 != 0 && !via.is_empty()).then_some(1280);
    Some(Request::RouteAdd(Route {
        vrf,
        metric,
        mtu,
        count: flags & 0x80 != 0,
        ..Route::new(prefix, kind, via)
    }))
}

/// What a port is told, from the outset and later.
pub(super) fn settings(bytes: &mut Bytes) -> PortSettings {
    let [byte, mtu] = [bytes.byte(), bytes.byte()];
    // A guard and limits let little through: seldom enough that the rest is met.
    let mut settings = settings_of(byte);
    if mtu & 7 != 0 {
        (settings.source_guard, settings.storm_pps) = (None, None);
        settings.limits = Default::default();
    }
    settings.mtu = (mtu & 0x30 == 0x30).then_some(1280 + u16::from(mtu));
    settings.track |= mtu & 0x40 != 0;
    if mtu & 0x88 == 0x88 {
        let verdicts = &mut settings.default_verdict;
        let denied = if byte & 1 == 0 { &mut verdicts.ingress } else { &mut verdicts.egress };
        *denied = Verdict::Deny;
    }
    settings
}

fn labels(byte: u8) -> Labels {
    let app = ["db", "web", "other"][usize::from(byte % 3)].to_owned();
    let tier = ["front", "back"][usize::from(byte >> 4 & 1)].to_owned();
    [("app".to_owned(), app), ("tier".to_owned(), tier)].into()
}

fn shop(byte: u8) -> String {
    ["shop", "lab"][usize::from(byte & 1)].to_owned()
}

fn label(bytes: &mut Bytes, gone: bool) -> Option<Request> {
    let (name, byte) = (port(bytes)?, bytes.byte());
    let workload = Workload {
        namespace: shop(byte),
        labels: labels(byte >> 1),
        ports: Vec::new(),
        addresses: bytes.several(2, Bytes::address),
    };
    Some(Request::PortLabel(PortLabel { name, workload: (!gone).then_some(workload) }))
}

fn namespace(bytes: &mut Bytes) -> Request {
    let byte = bytes.byte();
    Request::NamespaceSet(Namespace { name: shop(byte), labels: labels(byte >> 1), owner: Owner::Operator })
}

fn selector(bytes: &mut Bytes) -> LabelSelector {
    let byte = bytes.byte();
    let operators =
        [LabelOperator::In, LabelOperator::NotIn, LabelOperator::Exists, LabelOperator::DoesNotExist];
    let operator = operators[usize::from(byte >> 2 & 3)];
    let wanted = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
    let values = if wanted { vec!["db".to_owned(), "web".to_owned()] } else { Vec::new() };
    let expression = LabelExpression { key: "app".to_owned(), operator, values };
    LabelSelector {
        match_labels: if byte & 1 == 1 { labels(byte >> 4) } else { Labels::new() },
        match_expressions: if byte & 2 == 2 { vec![expression] } else { Vec::new() },
    }
}

fn peer(bytes: &mut Bytes) -> Peer {
    let byte = bytes.byte();
    if byte & 3 == 3
        && let Ok(cidr) = bytes.prefix().to_string().parse()
    {
        return Peer { ip_block: Some(IpBlock { cidr, except: Vec::new() }), ..Peer::default() };
    }
    Peer {
        pod_selector: (byte & 3 != 2).then(|| selector(bytes)),
        namespace_selector: (byte & 3 == 2 || byte & 4 != 0).then(|| selector(bytes)),
        ip_block: None,
    }
}

fn policy_port(bytes: &mut Bytes) -> PolicyPort {
    let [byte, port, more] = [bytes.byte(), bytes.byte(), bytes.byte()];
    let number = u16::from(port);
    PolicyPort {
        protocol: Protocol::ALL[usize::from(byte) % 3],
        port: (byte & 0x10 == 0).then_some(PortRef::Number(number)),
        end_port: (byte & 0x30 == 0x20).then_some(number + u16::from(more)),
    }
}

fn policy(bytes: &mut Bytes, gone: bool) -> Request {
    let byte = bytes.byte();
    let (name, namespace) = (format!("policy{}", byte >> 5), shop(byte));
    if gone {
        return Request::PolicyDelete(ByPolicy { name, namespace });
    }
    let policy_types = match byte >> 1 & 3 {
        0 => Vec::new(),
        1 => vec![PolicyType::Ingress],
        2 => vec![PolicyType::Egress],
        _ => vec![PolicyType::Ingress, PolicyType::Egress],
    };
    let pod_selector = selector(bytes);
    let ingress = bytes.several(2, |bytes| IngressRule {
        from: bytes.several(2, peer),
        ports: bytes.several(2, policy_port),
    });
    let egress = bytes
        .several(2, |bytes| EgressRule { to: bytes.several(2, peer), ports: bytes.several(2, policy_port) });
    Request::PolicySet(Box::new(NetworkPolicy {
        api_version: Default::default(),
        kind: Default::default(),
        metadata: Metadata { name, namespace },
        spec: PolicySpec { pod_selector, policy_types, ingress, egress },
        status: Unread,
        owner: Owner::Operator,
    }))
}

fn list(bytes: &mut Bytes, gone: bool) -> Option<Request> {
    let n = usize::from(bytes.byte() % 3);
    if gone {
        return Some(Request::AclDelete(ByName { name: name("l", n)? }));
    }
    let mut list = bytes.list(n)?;
    let ports = PortRangeSet { name: name("r", n)?, ports: vec![bytes.range()], owner: Owner::Operator };
    if ports.ports[0].first & 1 == 1 {
        return Some(Request::PortSetSet(ports));
    }
    list.ingress.iter_mut().filter(|rule| rule.protocol.is_some_and(IpProtocol::has_ports)).for_each(
        |rule| {
            // Refused while there is no such set.
            rule.destination_port_sets.extend((n == 1).then(|| ports.name.clone()));
        },
    );
    Some(Request::AclSet(Box::new(list)))
}

fn address_set(bytes: &mut Bytes, gone: bool) -> Option<Request> {
    let byte = bytes.byte();
    let name = name("s", usize::from(byte) % SETS)?;
    Some(match (gone, byte & 0x30) {
        (true, _) => Request::AddressSetDelete(ByName { name }),
        (_, 0) => {
            let members = Some(bytes.several(3, Bytes::prefix));
            Request::AddressSetSet(AddressSet { name, members, owner: Owner::Operator })
        }
        _ => {
            let add = bytes.several(3, Bytes::prefix);
            let remove = bytes.several(2, Bytes::prefix);
            Request::AddressSetUpdate(AddressSetUpdate { name, add, remove })
        }
    })
}

fn nat(bytes: &mut Bytes, gone: bool) -> Option<Request> {
    let byte = bytes.byte();
    let name = name("n", usize::from(byte >> 4 & 3))?;
    if gone {
        return Some(Request::NatDelete(ByName { name }));
    }
    let protocols = [None, Some(IpProtocol::TCP), Some(IpProtocol::UDP), Some(IpProtocol(132))];
    let kind = match byte & 3 {
        0 => NatKind::OneToOne { external: bytes.address(), internal: bytes.address() },
        1 => {
            let protocol = protocols[usize::from(byte >> 2 & 3)];
            let port = protocol.and_then(|_| (byte & 0x40 != 0).then(|| u16::from(bytes.byte()).max(1)));
            let to_port = port.and_then(|_| (byte & 0x80 != 0).then(|| u16::from(bytes.byte()).max(1)));
            NatKind::Destination { address: bytes.address(), protocol, port, to: bytes.address(), to_port }
        }
        _ => {
            let mut ports = bytes.range();
            // Few, so that they are used up.
            ports.first = ports.first.max(1024);
            ports.last = ports.first.saturating_add(7);
            NatKind::Source {
                from: bytes.several(1, Bytes::prefix),
                except: bytes.several(1, Bytes::prefix),
                out: (byte & 0x40 != 0).then(|| bridge_name(byte >> 2)).flatten(),
                to: if byte & 0x80 != 0 { vec![bytes.address()] } else { Vec::new() },
                ports,
                priority: u16::from(byte),
            }
        }
    };
    let vrf = table(byte >> 2)?;
    Some(Request::NatSet(Box::new(Nat { name, vrf, kind, owner: Owner::Operator })))
}

fn neighbour(bytes: &mut Bytes, gone: bool) -> Option<Request> {
    let [n, who] = [bytes.byte(), bytes.byte()];
    let (address, bridge, vid) = (bytes.address(), bridge_name(n)?, vid(n >> 4));
    Some(match gone {
        true => Request::NeighDelete(NeighDelete { address, bridge, vid }),
        false => {
            let (mac, owner) = (station(who), Owner::Operator);
            Request::NeighAdd(StaticNeighbour { address, mac, bridge, vid, owner })
        }
    })
}

fn static_mac(bytes: &mut Bytes, gone: bool) -> Option<Request> {
    let [n, who] = [bytes.byte(), bytes.byte()];
    let number = usize::from(n) % PORTS;
    let (bridge, port) = (name("br", number % BRIDGES)?, name("p", number)?);
    let (mac, vid, owner) = (station(who), vid(n >> 4), Owner::Operator);
    Some(match gone {
        true => Request::FdbDelete(FdbDelete { mac, bridge, vid }),
        false => Request::FdbAdd(StaticMac { mac, bridge, vid, port, dst: None, owner }),
    })
}

fn vrf(bytes: &mut Bytes, gone: bool) -> Option<Request> {
    let byte = bytes.byte();
    let name = table(byte)?;
    if gone {
        return Some(Request::VrfDelete(ByName { name }));
    }
    let uplink = if byte & 4 == 0 { Uplink::Kernel } else { Uplink::None };
    Some(Request::VrfSet(Vrf { uplink, ..Vrf::unset(name) }))
}
