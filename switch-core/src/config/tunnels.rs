//! Tunnels ([ADR 0043](../../../docs/adr/0043-a-tunnel-is-a-port-whose-cable-is-a-route.md)): ports without a device, each on a bridge of
//! its own. What leaves by one is encapsulated and routed once more, outside; which end it goes to, its destination's static station
//! says. What is declared is checked here, and becomes what workers read.

use super::checked::Problem;
use super::gateway::{self, Gateway, is_link_local, is_v4, to_bits};
use super::model::{Model, Numbered};
use super::routes::Way;
use super::snapshot::{FidFacts, PortFacts, PortId};
use super::uplink::untagged;
use crate::wire::vxlan;
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use switch_api::{Name, Port, PortKind, Prefix, Vlan};

/// Most tunnels: their ends are compared one by one with what a packet to one of them says. Nodes have one or two, of either IP version.
pub const TUNNELS_MAX: usize = 16;
/// The MAC that outer packets are routed by, low 48 bits: they are on no bridge. Never seen outside.
pub const OUTSIDE_MAC: u64 = 0x0200_0000_0001;

/// A tunnel that is open, as the pipeline knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its port.
    pub port: PortId,
    /// Bridge and VLAN inside.
    pub fid: u16,
    /// Bridge and VLAN outside where its own address is: what is for it comes in there, and nowhere else, so that nobody on
    /// another bridge speaks as a far end.
    pub at: u16,
    /// The routing table outside.
    pub vrf: u16,
    /// The identifier that outer packets come from: of no bridge, with a gateway that has no address, in the table outside.
    pub outside: u16,
    /// Which network.
    pub vni: u32,
    /// The UDP port at both ends.
    pub udp_port: u16,
    /// Its own address.
    pub local: u128,
    /// The far end of each station, by its MAC.
    remotes: HashMap<u64, u128>,
    /// All far ends.
    known: HashSet<u128>,
}

impl Tunnel {
    /// The end that a station is behind.
    pub fn remote(&self, mac: u64) -> Option<u128> {
        self.remotes.get(&mac).copied()
    }

    /// Whether packets may come from there.
    pub fn knows(&self, ip: u128) -> bool {
        self.known.contains(&ip)
    }
}

/// A tunnel as declared.
struct Declared<'a> {
    port: &'a Numbered<Port>,
    vni: u32,
    local: IpAddr,
    udp_port: u16,
    underlay: &'a Name,
}

fn declared(model: &Model) -> impl Iterator<Item = Declared<'_>> {
    model.ports.values().filter_map(|port| match &port.object.kind {
        PortKind::Vxlan { vni, local, udp_port, underlay } => {
            Some(Declared { port, vni: *vni, local: *local, udp_port: *udp_port, underlay })
        }
        _ => None,
    })
}

impl Model {
    /// The addresses and ports that tunnels of a routing table outside have.
    pub fn tunnel_ends(&self, underlay: &Name) -> BTreeSet<(IpAddr, u16)> {
        let here = declared(self).filter(|tunnel| tunnel.underlay == underlay);
        here.map(|tunnel| (tunnel.local, tunnel.udp_port)).collect()
    }

    /// The tunnel that a bridge is for.
    pub fn tunnel_of(&self, bridge: &Name) -> Option<&Port> {
        declared(self).map(|tunnel| &*tunnel.port.object).find(|port| port.bridge == *bridge)
    }

    /// The number of a routing table, in the snapshot of this model.
    pub fn number_of(&self, vrf: &Name) -> Option<u16> {
        gateway::number_vrfs(self).get(vrf).copied()
    }

    /// The far ends behind a port.
    pub fn remotes_of<'a>(&'a self, port: &'a Name) -> impl Iterator<Item = IpAddr> + 'a {
        self.static_macs.iter().filter(move |entry| entry.port == *port).filter_map(|entry| entry.dst)
    }
}

/// Makes what workers read, and opens the ports of those whose own address is here: the smallest MTU where that is gives theirs.
pub(super) fn compile(model: &Model, ports: &mut [PortFacts], fids: &mut Vec<FidFacts>) -> Arc<[Tunnel]> {
    let vrfs = gateway::number_vrfs(model);
    let mut tunnels: Vec<Tunnel> = Vec::new();
    for declared in declared(model) {
        let port = &*declared.port.object;
        let inside = untagged(&port.settings.vlan)
            .and_then(|vid| Some(*model.fids.get(&(model.bridges.get(&port.bridge)?.id, vid))?));
        let (Some(fid), Some(vrf)) = (inside, vrfs.get(declared.underlay).copied()) else { continue };
        let local = to_bits(declared.local);
        fids[usize::from(fid)].sole = Some(declared.port.id);
        let is_up = ports[usize::from(declared.port.id)].open;
        let here = place_of(fids, vrf, local).filter(|_| is_up);
        let here = here.and_then(|at| Some((at, mtu_of(&fids[usize::from(at)], ports)?)));
        let facts = &mut ports[usize::from(declared.port.id)];
        let Some((at, mtu)) = here else {
            (facts.open, facts.up) = (false, false);
            continue;
        };
        facts.mtu = facts.mtu.min(mtu.saturating_sub(vxlan::mtu_less(is_v4(local))));
        // One of bridges and VLANs that nobody has: there are far fewer than numbers.
        let Ok(outside) = u16::try_from(fids.len().max(1)) else { continue };
        let gateway = Gateway { mac: OUTSIDE_MAC, vrf, ..Gateway::default() };
        fids.resize_with(usize::from(outside), FidFacts::default);
        fids.push(FidFacts { gateway: Some(Arc::new(gateway)), ..FidFacts::default() });
        let behind = model.static_macs.iter().filter(|entry| entry.port == port.name);
        let remotes: HashMap<u64, u128> =
            behind.filter_map(|entry| Some((entry.mac.to_u64(), to_bits(entry.dst?)))).collect();
        let known = remotes.values().copied().collect();
        let (port, vni, udp_port) = (declared.port.id, declared.vni, declared.udp_port);
        tunnels.push(Tunnel { port, fid, at, vrf, outside, vni, udp_port, local, remotes, known });
    }
    if !tunnels.is_empty() {
        mark_ends(model, ports, &tunnels);
    }
    tunnels.into()
}

/// The bridge and VLAN where an address is the switch's, or the kernel's on a NIC that it shares.
fn place_of(fids: &[FidFacts], vrf: u16, local: u128) -> Option<u16> {
    let is_here = |facts: &FidFacts| {
        facts.gateway.as_ref().is_some_and(|gateway| gateway.vrf == vrf && gateway.owns(local))
    };
    fids.iter().position(is_here).and_then(|fid| u16::try_from(fid).ok())
}

/// The smallest MTU of the ports there; none if none is open.
fn mtu_of(facts: &FidFacts, ports: &[PortFacts]) -> Option<u16> {
    let members = facts.members.iter().filter_map(|member| ports.get(usize::from(member.port)));
    members.map(|port| port.mtu).min()
}

/// By these ports what tunnels are sent may come. What came out of one goes into no other as it is.
fn mark_ends(model: &Model, ports: &mut [PortFacts], tunnels: &[Tunnel]) {
    for port in model.ports.values().filter(|port| !port.object.kind.is_tunnel()) {
        let Some(bridge) = model.bridges.get(&port.object.bridge) else { continue };
        let vids = super::model::vids_of(&port.object.settings.vlan);
        let mut fids = vids.filter_map(|vid| model.fids.get(&(bridge.id, vid)));
        ports[usize::from(port.id)].ends_tunnels =
            fids.any(|fid| tunnels.iter().any(|tunnel| tunnel.at == *fid));
    }
}

/// Every contradiction about tunnels.
pub(super) fn check(model: &Model, problems: &mut Vec<Problem>) {
    let mut seen = HashMap::new();
    if declared(model).count() > TUNNELS_MAX {
        problems.push(Problem::new("kind", format!("there are more than {TUNNELS_MAX} tunnels")));
    }
    for tunnel in declared(model) {
        let port = &*tunnel.port.object;
        check_one(model, &tunnel, problems);
        let key = (tunnel.underlay, tunnel.local, tunnel.udp_port, tunnel.vni);
        if let Some(other) = seen.insert(key, &port.name) {
            let text = format!(
                "port {}: {other} is a tunnel with the same VNI at the same address and port",
                port.name
            );
            problems.push(Problem::new("vni", text).about(port));
        }
    }
    for entry in &model.static_macs {
        if let Err((field, text)) = check_station(model, &entry.port, entry.dst) {
            problems.push(Problem::new(field, format!("static MAC {}: {text}", entry.mac)).about(entry));
        }
    }
}

fn check_one(model: &Model, tunnel: &Declared, problems: &mut Vec<Problem>) {
    let (port, local) = (&*tunnel.port.object, tunnel.local);
    let mut problem = |field, text: String| {
        problems.push(Problem::new(field, format!("port {}: {text}", port.name)).about(port));
    };
    if !(1..=vxlan::VNI_MAX).contains(&tunnel.vni) {
        problem("vni", format!("{} is no VNI: use 1 to {}", tunnel.vni, vxlan::VNI_MAX));
    }
    if tunnel.udp_port == 0 {
        problem("udp_port", "0 is no port; VXLAN has 4789".into());
    }
    if !is_end(local) {
        problem("local", format!("{local} cannot be the end of a tunnel: it is no ordinary unicast address"));
    }
    if !model.bridges.values().any(|bridge| bridge.object.vrf == *tunnel.underlay) {
        problem("underlay", format!("no bridge is in a VRF named {}", tunnel.underlay));
    }
    if !matches!(port.settings.vlan, Vlan::Access { .. }) {
        problem("settings.vlan", "a tunnel carries frames without a tag: leave its VLAN as it is".into());
    }
    if port.settings.limits.tx_packets.is_some() || port.settings.limits.tx_bytes.is_some() {
        let text = "what a tunnel is sent is not limited: limit the ports that send, or the one outside";
        problem("settings.limits", text.into());
    }
    let others = model.ports_of(&port.bridge).filter(|other| other.object.name != port.name);
    if let Some(other) = others.map(|other| &other.object.name).next() {
        let text = format!(
            "a tunnel has its bridge for itself, for it is routed over, and {other} is on {} too; `switch-ctl bridge add NAME` makes one",
            port.bridge
        );
        problem("bridge", text);
    }
    let own = |own: &&switch_api::BridgeAddress| own.bridge == port.bridge && own.address.address == local;
    if model.addresses.iter().any(|address| own(&address)) {
        problem("local", format!("{local} is an address inside, on {}; a tunnel ends outside", port.bridge));
    }
}

/// Whether a tunnel can end there.
fn is_end(ip: IpAddr) -> bool {
    let is_special = match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.octets()[0] == 0 || v4.octets()[0] >= 224,
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()
        }
    };
    !is_special && !is_link_local(to_bits(ip))
}

/// What is wrong with a static station behind a port: where, and what.
fn check_station(model: &Model, port: &Name, dst: Option<IpAddr>) -> Result<(), (&'static str, String)> {
    let Some(port) = model.ports.get(port).map(|port| &*port.object) else { return Ok(()) };
    let (local, underlay, dst) = match (&port.kind, dst) {
        (PortKind::Vxlan { local, underlay, .. }, Some(dst)) => (*local, underlay, dst),
        (PortKind::Vxlan { .. }, None) => {
            return Err((
                "dst",
                format!("port {} is a tunnel: say which end it is behind (`--dst ADDRESS`)", port.name),
            ));
        }
        (_, Some(_)) => {
            return Err((
                "dst",
                format!("port {} is no tunnel: nothing is behind another end of it", port.name),
            ));
        }
        (_, None) => return Ok(()),
    };
    if dst.is_ipv4() != local.is_ipv4() {
        return Err((
            "dst",
            format!("{dst} is of another IP version than {local}, the tunnel's own address"),
        ));
    }
    if !is_end(dst) {
        return Err((
            "dst",
            format!("{dst} cannot be the end of a tunnel: it is no ordinary unicast address"),
        ));
    }
    if dst == local || model.addresses.iter().any(|own| own.address.address == dst) {
        return Err(("dst", format!("{dst} is the switch itself")));
    }
    let bridge = model.bridges.get(&port.bridge).map(|bridge| &bridge.object.vrf);
    let inside = model.addresses.iter().find(|own| own.bridge == port.bridge && own.address.contains(dst));
    if let Some(own) = inside.filter(|_| bridge == Some(underlay)) {
        let text = format!(
            "{dst} lies in {}, the tunnel's own network: it would be reached through itself",
            own.address
        );
        return Err(("dst", text));
    }
    let lens = (0..=Prefix::host(dst).bits()).rev().map(|len| Prefix { address: dst, len }.network());
    let routes = lens.flat_map(|prefix| model.routes.to(underlay, prefix).map(move |(_, way)| (prefix, way)));
    match routes.filter_map(|(prefix, way)| swallowed(model, underlay, prefix, way)).next() {
        Some(text) => Err(("dst", text)),
        None => Ok(()),
    }
}

/// Whether a route into a tunnel would lead the way to that tunnel's own far ends into it: which of them.
pub(super) fn swallowed(model: &Model, vrf: &Name, prefix: Prefix, way: &Way) -> Option<String> {
    // Where there is none, routes cost no more: they may be many.
    declared(model).next()?;
    let bridges = way.via.iter().filter_map(|hop| model.gateway_to(vrf, hop)).map(|own| &own.bridge);
    let into = bridges.filter_map(|bridge| model.tunnel_of(bridge));
    let mut into =
        into.filter(|port| matches!(&port.kind, PortKind::Vxlan { underlay, .. } if underlay == vrf));
    into.find_map(|port| {
        let is_lost = |remote: IpAddr| prefix.contains(remote) && !has_closer_way(model, vrf, prefix.len, remote);
        let lost = model.remotes_of(&port.name).find(|remote| is_lost(*remote))?;
        Some(format!(
            "{lost}, an end of tunnel {}, would be reached through the tunnel itself; add the route to it first",
            port.name
        ))
    })
}

/// Whether a longer prefix than this leads to an address, by the networks that the switch is in or by a declared route.
fn has_closer_way(model: &Model, vrf: &Name, len: u8, ip: IpAddr) -> bool {
    let is_closer = |prefix: Prefix| prefix.len > len && prefix.contains(ip);
    let in_vrf = |bridge: &Name| model.bridges.get(bridge).is_some_and(|bridge| bridge.object.vrf == *vrf);
    let mut own = model.addresses.iter().filter(|own| in_vrf(&own.bridge)).map(|own| own.address);
    let mut nics = model.nics.values().flat_map(|nic| nic.addresses.iter().copied());
    let mut routes = model.routes.all().filter(|(table, _, _)| *table == vrf);
    own.any(is_closer) || nics.any(is_closer) || routes.any(|(_, place, _)| is_closer(place.prefix))
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::super::shared::tests::{after, model};
    use super::*;
    use crate::config::snapshot::{Live, Snapshot, compile};
    use crate::config::taken::Whose;
    use crate::config::{Checked, CheckedRoutes};
    use crate::wire::ip::UDP;
    use switch_api::{Bridge, BridgeAddress, Mac, NextHop, Owner, Request, Route, RouteKind, StaticMac, Vid};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn tunnel(port: &str, bridge: &str, vni: u32, local: &str) -> Request {
        let kind = PortKind::vxlan(vni, local.parse().unwrap());
        Request::PortAdd(Box::new(Port::new(name(port), name(bridge), kind)))
    }

    fn station(n: u8, port: &str, dst: Option<&str>) -> Request {
        let (mac, dst) = (Mac([2, 0, 0, 0, 7, n]), dst.map(|dst| dst.parse().unwrap()));
        let bridge = if port == "up" { "wan" } else { "over" };
        let (bridge, port) = (name(bridge), name(port));
        Request::FdbAdd(StaticMac { mac, bridge, vid: Vid::DEFAULT, port, dst, owner: Owner::Operator })
    }

    /// An uplink whose NIC has 192.0.2.5/24, pods on 10.1.0.0/24, and a tunnel `vx` on `over`, 10.255.0.1/24.
    fn with_tunnel() -> Model {
        let mut model = after(&model(), Request::BridgeAdd(Bridge::new(name("over"))));
        let (bridge, address) = (name("over"), "10.255.0.1/24".parse().unwrap());
        let own = BridgeAddress { bridge, address, vid: Vid::DEFAULT, owner: Owner::Operator };
        model = after(&model, Request::AddressAdd(own));
        model = after(&model, tunnel("vx", "over", 7, "192.0.2.5"));
        after(&model, station(2, "vx", Some("192.0.2.6")))
    }

    fn compiled(model: &Model) -> Snapshot {
        let live = |port: &Numbered<Port>| (port.id, Live { up: true, mtu: 1500, ..Live::default() });
        let live = model.ports.values().map(live).collect();
        compile(&Checked::new(model.clone(), 1).unwrap(), &live, 16, 1)
    }

    #[test]
    fn a_tunnel_is_open_where_its_address_is_and_fits_what_carries_it() {
        let model = with_tunnel();
        let snapshot = compiled(&model);
        let [id, up] = ["vx", "up"].map(|port| model.ports[&name(port)].id);
        let [tunnel] = &*snapshot.tunnels else { panic!("{:?}", snapshot.tunnels) };
        assert_eq!((tunnel.port, tunnel.vni, tunnel.udp_port), (id, 7, 4789));
        let remote = to_bits("192.0.2.6".parse().unwrap());
        assert_eq!(tunnel.remote(0x0200_0000_0702), Some(remote));
        assert!(tunnel.knows(remote) && !tunnel.knows(tunnel.local) && tunnel.remote(9).is_none());
        let facts = |port: u16| &snapshot.ports[usize::from(port)];
        assert!(facts(id).open && !facts(id).ends_tunnels && facts(up).ends_tunnels);
        assert_eq!(facts(id).mtu, 1450);
        assert_eq!(snapshot.fids[usize::from(tunnel.fid)].sole, Some(id));
        let outside = snapshot.gateway(tunnel.outside).unwrap();
        assert!(outside.vrf == tunnel.vrf && outside.addresses.is_empty());
        // Its address goes with the NIC, and so does the tunnel.
        let without = compiled(&Model { nics: Arc::default(), ..model.clone() });
        assert!(without.tunnels.is_empty() && !without.ports[usize::from(id)].open);
        assert!(without.ports.iter().all(|port| !port.ends_tunnels));
    }

    #[test]
    fn of_the_nics_own_address_one_port_is_taken() {
        let model = with_tunnel();
        let way = model.way_out_of(&name("wan")).unwrap();
        assert_eq!(model.taken(&way)[&"192.0.2.5/32".parse().unwrap()], Whose::Shared);
        let shared = model.shared_ports(&way);
        let shown: Vec<_> =
            shared.iter().map(|((ip, protocol), ports)| (ip.to_string(), *protocol, ports.len())).collect();
        assert_eq!(shown, [("192.0.2.5".to_owned(), UDP, 1)]);
        assert_eq!(shared.values().flatten().next().unwrap().to_string(), "4789");
    }

    #[test]
    fn contradictions_say_what_to_do() {
        let good = with_tunnel();
        let refused = |request: Request, what: &str| {
            let said = Checked::new(good.apply(&request).unwrap(), 1).unwrap_err().message;
            assert!(said.contains(what), "{said:?} does not say {what:?}");
        };
        refused(tunnel("vx2", "over", 8, "192.0.2.5"), "a tunnel has its bridge for itself");
        refused(tunnel("vx2", "br0", 7, "192.0.2.5"), "the same VNI at the same address");
        refused(tunnel("vx2", "br0", 0, "192.0.2.5"), "0 is no VNI");
        refused(tunnel("vx2", "br0", 1 << 24, "192.0.2.5"), "16777216 is no VNI");
        refused(tunnel("vx2", "br0", 9, "fe80::1"), "no ordinary unicast address");
        refused(station(3, "vx", None), "say which end it is behind");
        refused(station(3, "up", Some("192.0.2.9")), "port up is no tunnel");
        refused(station(3, "vx", Some("fd00::9")), "of another IP version");
        refused(station(3, "vx", Some("192.0.2.5")), "is the switch itself");
        refused(station(3, "vx", Some("10.255.0.9")), "it would be reached through itself");
        refused(station(3, "vx", Some("224.0.0.9")), "cannot be the end of a tunnel");
        let mut kind = PortKind::vxlan(9, "192.0.2.5".parse().unwrap());
        if let PortKind::Vxlan { underlay, .. } = &mut kind {
            *underlay = name("nowhere");
        }
        refused(Request::PortAdd(Box::new(Port::new(name("q"), name("br0"), kind))), "no bridge is in a VRF");
    }

    #[test]
    fn no_route_leads_a_tunnel_into_itself() {
        let model = with_tunnel();
        let add = |model: &Model, prefix: &str, via: &str| {
            let (address, bridge) = (via.parse().unwrap(), None);
            let via = vec![NextHop { address, bridge, vid: Vid::DEFAULT, weight: 1 }];
            CheckedRoutes::after(
                model,
                &Request::RouteAdd(Route::new(prefix.parse().unwrap(), RouteKind::Via, via)),
            )
        };
        assert!(add(&model, "10.2.0.0/24", "10.255.0.2").is_ok());
        // The NIC's own network is closer than a default route.
        assert!(add(&model, "0.0.0.0/0", "10.255.0.2").is_ok());
        for prefix in ["192.0.2.0/24", "192.0.2.6/32"] {
            let said = add(&model, prefix, "10.255.0.2").unwrap_err().message;
            assert!(
                said.contains("192.0.2.6, an end of tunnel vx, would be reached through the tunnel itself"),
                "{said}"
            );
        }
        assert!(add(&model, "192.0.2.128/25", "10.255.0.2").is_ok(), "none of its ends is there");
    }
}
