//! The facts workers read: everything by number, nothing to look up by name, nothing that changes.
//! A change makes a new snapshot; what did not change is shared with the one before.

use super::FIDS_MAX;
use super::checked::Checked;
use super::gateway::{self, Gateway, Routing};
use super::model::{Model, Numbered, vids_of};
use super::nats;
use super::nexthops::CheckedRoutes;
use super::rates::Rates;
use super::source_guard::Guard;
use super::tunnels::{self, Tunnel};
use crate::acl;
use crate::nat::Compiled as Nat;
use crate::policy::{Compiled, Subject};
use crate::table::fdb::Limits;
use arrayvec::ArrayVec;
use hashbrown::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use switch_api::{Bridge, Mac, Port, PortKind, ReversePath, TakeRule, Vid, Vlan};

/// A port by number.
pub type PortId = u16;
/// Lanes of one port at most; [`super::checked::QUEUES_MAX`] as a size.
pub const LANES_MAX: usize = 64;

/// What the control thread found out about an open port; the declared part does not know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// The device carries frames and its lanes are with their workers.
    pub up: bool,
    /// Largest L3 packet the device takes, in bytes.
    pub mtu: u16,
    /// It takes superframes as they are; for any other port they are cut up on the way out.
    pub gso: bool,
    /// The worker of each queue.
    pub lanes: ArrayVec<u16, LANES_MAX>,
}

/// A port's VLANs, as filtering identifiers.
#[derive(Clone, Debug, Default)]
pub struct Vlans {
    /// Identifier and VID of frames without a tag; identifier 0: there is none.
    pub untagged: (u16, u16),
    /// Identifier by VID of a tagged frame, 0 if not a member. None on an access port.
    pub tagged: Option<Arc<[u16; 4096]>>,
}

/// Longest pause between two beats, in ms: four a second cost nothing.
const BEAT_MS_MAX: u32 = 250;

/// A port as the pipeline knows it.
#[derive(Clone, Debug, Default)]
pub struct PortFacts {
    /// It forwards. A port is born closed.
    pub open: bool,
    /// It carries frames now.
    pub up: bool,
    /// VLAN membership.
    pub vlans: Vlans,
    /// See [`switch_api::PortSettings`].
    pub isolated: bool,
    /// See [`switch_api::PortSettings`].
    pub hairpin: bool,
    /// Flooded frames a second that are admitted.
    pub storm_pps: Option<u32>,
    /// MACs it may have learned.
    pub learn_limit: Option<u32>,
    /// Largest L3 packet in bytes; of a superframe, its segments'.
    pub mtu: u16,
    /// It takes superframes as they are.
    pub gso: bool,
    /// Worker of each lane.
    pub lanes: ArrayVec<u16, LANES_MAX>,
    /// The switch is a station in one of its VLANs.
    pub routed: bool,
    /// TCP segments routed to or from it are to fit its MTU: [`switch_api::Bridge::mss_clamp`].
    pub mss_clamp: bool,
    /// What the sources of packets it sends to be routed are held against.
    pub reverse_path: ReversePath,
    /// It leads to the node's kernel: what comes from there does not go back there.
    pub to_kernel: bool,
    /// Packets to an end of a tunnel may come by it.
    pub ends_tunnels: bool,
    /// Flows are kept of what it sends and is sent.
    pub tracked: bool,
    /// What it sends and is sent is held to them, and they are not kept for ways back, translation and counting alone: what fits none is dropped.
    pub strict: bool,
    /// What is routed from or to it may be translated.
    pub translated: bool,
    /// The node itself is behind it.
    pub is_node: bool,
    /// What answers to flows that came in by it is sent back by it, to this MAC: [`switch_api::PortSettings::return_flows`].
    pub returns: Option<u64>,
    /// Policies or access control lists say something of it.
    pub judged: bool,
    /// A number made of all that they say: another one means that they say something else.
    pub epoch: u64,
    /// What policies say of it.
    pub subject: Subject,
    /// What access control lists say of it.
    pub acl: acl::Subject,
    /// What it may say of itself.
    pub source_guard: Option<Arc<Guard>>,
    /// Flows that may begin at it and not be over.
    pub connections: Option<u32>,
    /// How fast it may send and be sent.
    pub rates: Option<Arc<Rates>>,
}

/// A member of a flood group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub port: PortId,
    /// Is given unknown unicast.
    pub unknown_unicast: bool,
    /// Is given multicast.
    pub multicast: bool,
    /// Is given broadcast.
    pub broadcast: bool,
    /// Is isolated.
    pub isolated: bool,
}

/// A bridge and VLAN as the pipeline knows it.
#[derive(Clone, Debug, Default)]
pub struct FidFacts {
    /// Its VLAN.
    pub vid: u16,
    /// Its bridge's number.
    pub bridge: u16,
    /// When MACs are forgotten.
    pub ageing_s: u32,
    /// Open ports that are members.
    pub members: Arc<[Member]>,
    /// The switch as a station here.
    pub gateway: Option<Arc<Gateway>>,
    /// Behind which port every station is: an uplink or a tunnel has its bridge for itself.
    pub sole: Option<PortId>,
    /// Whose addresses these are: a flow's packets have one zone whichever way they go. Where the switch routes
    /// it is the routing table, elsewhere the bridge and VLAN.
    pub zone: u16,
    /// The zone that they had before the switch became a station here, or ceased to be one: flows of that time go on.
    pub former: Option<NonZeroU16>,
    /// Some member is held to flows: what is flooded here is tracked, whoever sends it.
    pub strict: bool,
}

impl FidFacts {
    /// The zone in which flows may be beside the one that they are in from now on.
    fn former_beside(&self, zone: u16) -> Option<NonZeroU16> {
        if self.zone == zone { self.former } else { NonZeroU16::new(self.zone) }
    }
}

/// Zones of routing tables are from here on; below are bridges and VLANs.
pub const ZONE_VRF: u16 = FIDS_MAX as u16 + 1;

/// See the module.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Grows by one with each.
    pub generation: u64,
    /// By port number; a number nobody has is closed.
    pub ports: Arc<[PortFacts]>,
    /// By filtering identifier; 0 is nobody's.
    pub fids: Arc<[FidFacts]>,
    /// How many MACs may be learned.
    pub limits: Limits,
    /// Routing tables.
    pub routing: Routing,
    /// Policies or access control lists say something of some port.
    pub policed: bool,
    /// Policies.
    pub policing: Arc<Compiled>,
    /// Access control lists.
    pub listed: Arc<acl::Compiled>,
    /// Network address translation.
    pub nat: Arc<Nat>,
    /// Tunnels that are open.
    pub tunnels: Arc<[Tunnel]>,
    /// Milliseconds a sleeping worker may let pass between two beats.
    pub beat_ms: u32,
    /// Flows are kept of some port.
    pub tracks: bool,
    /// Some port wants its flows' answers back.
    pub returns: bool,
    /// No port is strict: flows are kept for their ways back, for translation and to be counted, and what fits none goes on.
    pub lenient: bool,
    /// TCP segments routed to or from some port are to fit.
    pub mss_clamps: bool,
}

impl Snapshot {
    /// Before anything was declared.
    pub fn empty() -> Self {
        Self {
            generation: 0,
            ports: Arc::default(),
            fids: Arc::default(),
            limits: Limits { table: 0, share: 0 },
            routing: Routing::default(),
            policed: false,
            policing: Arc::default(),
            listed: Arc::default(),
            nat: Arc::default(),
            tunnels: Arc::default(),
            beat_ms: BEAT_MS_MAX,
            tracks: false,
            returns: false,
            lenient: false,
            mss_clamps: false,
        }
    }

    /// The switch as a station on a bridge and VLAN, if it is one there.
    #[inline(always)]
    pub fn gateway(&self, fid: u16) -> Option<&Gateway> {
        self.fids.get(usize::from(fid))?.gateway.as_deref()
    }

    /// A port's facts; a closed port for a number nobody has.
    #[inline(always)]
    pub fn port(&self, id: PortId) -> Option<&PortFacts> {
        self.ports.get(usize::from(id))
    }
}

/// Compiles. `live` is by port number.
pub fn compile(
    checked: &Checked,
    live: &HashMap<PortId, Live>,
    fdb_entries: u32,
    generation: u64,
) -> Snapshot {
    compile_after(checked, live, fdb_entries, generation, None)
}

/// The same, sharing with the routing tables of the snapshot `before` what is still so, and knowing where flows were that began under it.
pub fn compile_after(
    checked: &Checked,
    live: &HashMap<PortId, Live>,
    fdb_entries: u32,
    generation: u64,
    before: Option<&Snapshot>,
) -> Snapshot {
    let model = checked.model();
    let ports_len = model.ports.values().map(|port| usize::from(port.id) + 1).max().unwrap_or(0);
    let fids_len = model.fids.values().map(|fid| usize::from(*fid) + 1).max().unwrap_or(0);
    let mut ports = vec![PortFacts::default(); ports_len];
    let mut fids = vec![FidFacts::default(); fids_len];
    let mut members: Vec<Vec<Member>> = vec![Vec::new(); fids_len];
    let (mut gateways, routing) = match before {
        Some(before) => gateway::compile(model, &before.routing),
        None => gateway::compile(model, &Routing::default()),
    };
    let publishes = model.ports.values().any(|port| !port.object.settings.publish.is_empty());
    let nat = nats::compile(model);
    for port in model.ports.values() {
        let Some(bridge) = model.bridges.get(&port.object.bridge) else { continue };
        let fid_of = |vid: Vid| model.fids.get(&(bridge.id, vid)).copied().unwrap_or(0);
        let live = live.get(&port.id).cloned().unwrap_or_default();
        for vid in vids_of(&port.object.settings.vlan).filter(|_| live.up) {
            let group = &mut members[usize::from(fid_of(vid))];
            if group.last().is_none_or(|last| last.port != port.id) {
                group.push(member(port.id, &port.object));
            }
        }
        let translated = vids_of(&port.object.settings.vlan)
            .filter_map(|vid| gateways.get(&fid_of(vid)))
            .any(|gateway| nat.concerns(gateway.vrf))
            || !nat.published.is_empty() && model.has_uplink(&bridge.object.vrf);
        let routed = vids_of(&port.object.settings.vlan).any(|vid| gateways.contains_key(&fid_of(vid)));
        let (mss_clamp, reverse_path) = (bridge.object.mss_clamp, bridge.object.reverse_path);
        let subject = model.policing.subject(port.id).cloned().unwrap_or_default();
        let (acl, epoch) = (model.listed.subject(port.id), model.epoch_of(port.id));
        let judged = subject.is_isolated() || acl.is_listed();
        let facts = port_facts(&port.object, live, fid_of);
        // What the kernel translated on its way in goes back to it, though an uplink would be shorter.
        let mac = port.object.kind.host_mac().filter(|_| publishes && model.has_uplink(&bridge.object.vrf));
        let returns = facts.returns.or(mac.map(Mac::to_u64));
        // Who is judged is answered all the same: by flows.
        let tracked = facts.tracked || judged;
        ports[usize::from(port.id)] = PortFacts {
            routed,
            judged,
            epoch,
            subject,
            acl,
            tracked,
            strict: port.object.settings.track || judged,
            returns,
            mss_clamp,
            reverse_path,
            translated,
            ..facts
        };
    }
    for kernel in model.vrf_names().into_iter().filter_map(|vrf| model.to_kernel(vrf).ok()) {
        if let Some(port) = ports.get_mut(usize::from(kernel.id)) {
            port.to_kernel = true;
        }
    }
    let port_of = |bridge: &Numbered<Bridge>| model.ports_of(&bridge.object.name).map(|port| port.id).next();
    for bridge in model.bridges.values() {
        let of_vrf = model.vrf_zones.get(&bridge.object.vrf).copied();
        for ((_, vid), fid) in model.fids.range((bridge.id, Vid::MIN)..=(bridge.id, Vid::MAX)) {
            let gateway = gateways.remove(fid);
            let sole = gateway.as_ref().filter(|gateway| gateway.is_kernels).and_then(|_| port_of(bridge));
            let zone = of_vrf.filter(|_| gateway.is_some()).unwrap_or(*fid);
            let was = before.and_then(|before| before.fids.get(usize::from(*fid)));
            // The number may have been another's.
            let was = was.filter(|was| (was.bridge, was.vid) == (bridge.id, vid.get()));
            let members = std::mem::take(&mut members[usize::from(*fid)]);
            fids[usize::from(*fid)] = FidFacts {
                zone,
                former: was.and_then(|was| was.former_beside(zone)),
                vid: vid.get(),
                bridge: bridge.id,
                ageing_s: bridge.object.ageing_s,
                strict: members.iter().any(|member| ports[usize::from(member.port)].strict),
                members: members.into(),
                gateway,
                sole,
            };
        }
    }
    let tunnels = tunnels::compile(model, &mut ports, &mut fids);
    let limits = Limits::new(fdb_entries, model.ports.len());
    let mss_clamps = ports.iter().any(|port| port.mss_clamp && port.routed);
    let (asked, strict) = (ports.iter().any(|port| port.tracked), ports.iter().any(|port| port.strict));
    let returns = ports.iter().any(|port| port.returns.is_some());
    let translates = ports.iter().any(|port| port.translated);
    // What leaves has another source than what is answered: nobody else knows whose the answers are.
    ports.iter_mut().for_each(|port| port.tracked |= port.translated);
    if returns {
        // Who answers is known by the flow alone.
        ports.iter_mut().for_each(|port| port.tracked = true);
    }
    let (tracks, lenient, beat_ms) = (asked || returns || translates, !strict, beat_ms(model));
    Snapshot {
        generation,
        ports: ports.into(),
        fids: fids.into(),
        limits,
        routing,
        policed: !model.policing.is_idle() || !model.listed.is_idle(),
        policing: model.policing.0.clone(),
        listed: model.listed.0.clone(),
        nat: Arc::new(nat),
        tunnels,
        beat_ms,
        tracks,
        returns,
        lenient,
        mss_clamps,
    }
}

/// `before` with other declared routes, where nothing else is different from what it was compiled of: it costs what
/// they do, however many there are beside them.
pub fn compile_routes(model: &Model, routes: &CheckedRoutes, before: &Snapshot, generation: u64) -> Snapshot {
    let routing = gateway::compile_routes(model, routes.routes(), &before.routing);
    Snapshot { generation, routing, ..before.clone() }
}

/// `before` with the routes of the kernel that `model` has now, where nothing else is different: it costs what they do.
pub fn compile_mirrored(model: &Model, before: &Snapshot, generation: u64) -> Snapshot {
    let routing = gateway::compile_routes(model, &model.routes, &before.routing);
    Snapshot { generation, routing, ..before.clone() }
}

/// A quarter of the shortest dead-man time: three beats may be late before the port counts as dead.
fn beat_ms(model: &Model) -> u32 {
    let dead_after = model.ports.values().filter_map(|port| match &port.object.kind {
        PortKind::Xdp { dead_after_ms, .. } => Some(dead_after_ms / 4),
        _ => None,
    });
    dead_after.min().unwrap_or(BEAT_MS_MAX).clamp(1, BEAT_MS_MAX)
}

fn member(id: PortId, port: &Port) -> Member {
    let flood = port.settings.flood;
    Member {
        port: id,
        unknown_unicast: flood.unknown_unicast,
        multicast: flood.multicast,
        broadcast: flood.broadcast,
        isolated: port.settings.isolated,
    }
}

fn port_facts(port: &Port, live: Live, fid_of: impl Fn(Vid) -> u16) -> PortFacts {
    let settings = &port.settings;
    let vlans = match &settings.vlan {
        Vlan::Access { vid } => Vlans { untagged: (fid_of(*vid), vid.get()), tagged: None },
        Vlan::Trunk { native, .. } => {
            let mut tagged = [0; 4096];
            for vid in vids_of(&settings.vlan) {
                tagged[usize::from(vid.get())] = fid_of(vid);
            }
            let untagged = native.map_or((0, 0), |vid| (fid_of(vid), vid.get()));
            Vlans { untagged, tagged: Some(Arc::new(tagged)) }
        }
    };
    PortFacts {
        open: live.up,
        up: live.up,
        vlans,
        isolated: settings.isolated,
        hairpin: settings.hairpin,
        storm_pps: settings.storm_pps,
        learn_limit: settings.learn_limit,
        mtu: settings.mtu.map_or(live.mtu, |mtu| mtu.min(live.mtu)),
        gso: live.gso,
        lanes: live.lanes,
        routed: false,
        mss_clamp: false,
        reverse_path: ReversePath::Off,
        to_kernel: false,
        ends_tunnels: false,
        tracked: settings.track || settings.limits.connections.is_some(),
        strict: false,
        translated: false,
        is_node: matches!(port.kind, PortKind::Host { .. }),
        returns: match &port.kind {
            PortKind::Host { mac: Some(mac), .. } if settings.return_flows => Some(mac.to_u64()),
            _ => None,
        },
        judged: false,
        epoch: 0,
        subject: Subject::default(),
        acl: acl::Subject::default(),
        source_guard: settings.source_guard.as_ref().map(|guard| Arc::new(Guard::new(guard))),
        connections: settings.limits.connections,
        rates: Rates::new(&settings.limits).map(Arc::new),
    }
}

/// A rule of the XDP program's match table, ready for the map. Big-endian address, host-order EtherType.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// EtherType, host byte order.
    pub ethertype: u16,
    /// Prefix length; 0 matches every destination.
    pub prefix_len: u8,
    /// Address bytes as in the packet; IPv4 uses the first four.
    pub address: [u8; 16],
}

/// Reads a rule; the text of the error names what is wrong.
pub fn parse_rule(rule: &TakeRule) -> Result<Rule, String> {
    let Some(text) = &rule.destination else {
        return Ok(Rule { ethertype: rule.ethertype, prefix_len: 0, address: [0; 16] });
    };
    let malformed = || format!("{text:?} is no prefix: write ADDRESS/LENGTH, like 10.0.0.0/8 or fd00::/64");
    let (address, len) = text.split_once('/').ok_or_else(malformed)?;
    let address: IpAddr = address.parse().map_err(|_| malformed())?;
    let prefix_len: u8 = len.parse().map_err(|_| malformed())?;
    let (ethertype, bits, bytes) = match address {
        IpAddr::V4(v4) => (0x0800, 32, {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }),
        IpAddr::V6(v6) => (0x86dd, 128, v6.octets()),
    };
    if rule.ethertype != ethertype {
        return Err(format!("{text} goes with EtherType {ethertype:#06x}, not {:#06x}", rule.ethertype));
    }
    if prefix_len > bits {
        return Err(malformed());
    }
    Ok(Rule { ethertype, prefix_len, address: bytes })
}
