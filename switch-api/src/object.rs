//! What can be declared. Every field has the default a careful operator would choose, so a request
//! names only what differs; a field nobody knows is refused by name.

use crate::bridge::is_false;
use crate::{Cidr, DefaultVerdicts, DeviceRoute, Mac, Name, Owner, PortLimits, Prefix, Publish, Vid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How a port takes part in VLANs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "mode", deny_unknown_fields)]
pub enum Vlan {
    /// One VLAN, frames without a tag. A tagged frame is refused (a priority tag is taken off).
    Access {
        /// That VLAN.
        vid: Vid,
    },
    /// Several VLANs, frames with a tag.
    Trunk {
        /// The VLANs, as inclusive ranges.
        vids: Vec<VidRange>,
        /// The VLAN of frames without a tag, in and out; without it they are refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        native: Option<Vid>,
    },
}

impl Default for Vlan {
    fn default() -> Self {
        Self::Access { vid: Vid::DEFAULT }
    }
}

/// VLAN identifiers `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VidRange {
    /// The lowest.
    pub first: Vid,
    /// The highest; not below `first`.
    pub last: Vid,
}

/// Which frames without one known destination a port is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flood {
    /// Unicast to a MAC nobody has learned.
    pub unknown_unicast: bool,
    /// Group addresses other than broadcast.
    pub multicast: bool,
    /// `ff:ff:ff:ff:ff:ff`.
    pub broadcast: bool,
}

impl Default for Flood {
    fn default() -> Self {
        Self { unknown_unicast: true, multicast: true, broadcast: true }
    }
}

/// How AF_XDP runs on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// The fastest that the kernel takes and that is not known to lose what is sent: zero-copy, else native, else generic.
    #[default]
    Auto,
    /// The driver runs the program and fills our frames itself.
    ZeroCopy,
    /// The driver runs the program, the kernel copies into our frames.
    Native,
    /// The stack runs the program on a socket buffer: works everywhere, slower.
    Generic,
}

/// What the XDP program takes from a device; the rest goes on to the host's kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "take", try_from = "TakeText")]
pub enum Take {
    /// Every frame.
    #[default]
    Everything,
    /// No frame: attached and harmless, to try a device.
    Nothing,
    /// Frames that fit one of the rules.
    Matching {
        /// At most 16 (`RULES_MAX` of the XDP program).
        rules: Vec<TakeRule>,
    },
    /// What is addressed to the device's own MAC and to networks behind the switch, which the switch keeps up to date: the
    /// port is an uplink on a NIC that stays the host's.
    Networks,
}

/// As it is read: serde passes over what else stands beside the tag of a variant without fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TakeText {
    take: TakeWord,
    rules: Option<Vec<TakeRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum TakeWord {
    Everything,
    Nothing,
    Matching,
    Networks,
}

impl TryFrom<TakeText> for Take {
    type Error = &'static str;
    fn try_from(text: TakeText) -> Result<Self, Self::Error> {
        match (text.take, text.rules) {
            (TakeWord::Everything, None) => Ok(Self::Everything),
            (TakeWord::Nothing, None) => Ok(Self::Nothing),
            (TakeWord::Networks, None) => Ok(Self::Networks),
            (TakeWord::Matching, Some(rules)) => Ok(Self::Matching { rules }),
            (TakeWord::Matching, None) => Err("missing field `rules`"),
            (_, Some(_)) => Err("unknown field `rules`, which goes with `matching`"),
        }
    }
}

/// One rule of the XDP program's match table: an EtherType, and a destination prefix if one is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeRule {
    /// Host byte order, for example 0x0800. VLAN tags are not looked through.
    pub ethertype: u16,
    /// Destination prefix, `ADDRESS/LENGTH`; only with EtherType 0x0800 (IPv4) or 0x86dd (IPv6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// What the XDP program does with a port's frames while the switch does not beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenDead {
    /// Drop them: no policy is in force, so nothing may pass. Right for a pod.
    Drop,
    /// Give them to the host's kernel. Right for an uplink.
    Pass,
}

impl WhenDead {
    /// What holds where nobody said: a device of which the switch takes a part is shared with the host, which is an
    /// uplink, and the node stays reachable; a device of which it takes all is a pod's.
    pub fn of(take: &Take) -> Self {
        match take {
            Take::Everything | Take::Nothing => Self::Drop,
            Take::Matching { .. } | Take::Networks => Self::Pass,
        }
    }
}

/// What a port is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum PortKind {
    /// AF_XDP sockets on a network device.
    Xdp {
        /// The device's name in the daemon's network namespace.
        device: String,
        /// How.
        #[serde(default)]
        mode: XdpMode,
        /// Receive queues to serve, from queue 0; 0 means all the device has.
        #[serde(default)]
        queues: u16,
        /// Entries of each of the four rings; a power of two, 64 to 8192.
        #[serde(default = "ring_size_default")]
        ring_size: u32,
        /// Microseconds the kernel may busy-poll for this socket; 0 is off.
        #[serde(default)]
        busy_poll_us: u32,
        /// Which frames the switch takes.
        #[serde(default)]
        take: Take,
        /// What happens while the switch is dead; unsaid, [`WhenDead::of`] what it takes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        when_dead: Option<WhenDead>,
        /// Milliseconds without a beat after which it counts as dead. 10 to 60 000.
        #[serde(default = "dead_after_ms_default")]
        dead_after_ms: u32,
        /// The other end of the device, in a pod: the switch makes both, a veth pair. None: the device is somebody else's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<Box<PodEnd>>,
    },
    /// A TAP device in a pod's network namespace, with the pod's own offloads: what a pod attaches by. The
    /// switch makes it, and it outlives the daemon.
    Tap {
        /// The device's name when it is made. The pod may rename it.
        #[serde(default = "tap_device_default")]
        device: String,
        /// The pod's network namespace, as a path (`/run/netns/NAME`, `/proc/PID/ns/net`). None: the daemon's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<String>,
        /// Its MAC address. None: the switch chooses one when the port is added, and keeps it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
        /// Addresses it is made with. At most 16.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<Cidr>,
        /// Routes it is made with. At most 64.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        routes: Vec<DeviceRoute>,
        /// Queues, 1 to 16. With more than one the pod can attach queues of its own, if it may open
        /// `/dev/net/tun`.
        #[serde(default = "tap_queues_default")]
        queues: u16,
    },
    /// A TAP device in the daemon's own namespace: by it the node itself talks to the pods.
    Host {
        /// The device's name when it is made.
        #[serde(default = "host_device_default")]
        device: String,
        /// Its MAC address. None: the switch chooses one when the port is added, and keeps it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
        /// Addresses it is made with. At most 16.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<Cidr>,
        /// Routes it is made with. At most 64.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        routes: Vec<DeviceRoute>,
    },
    /// Frames made and counted in memory: for benches and tests of a running daemon.
    Memory {
        /// What it sends into the switch; without it the port only counts what it is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<MemorySource>,
    },
    /// A VXLAN tunnel (RFC 7348) over which the switch routes. No device: what leaves by it is encapsulated and routed once more,
    /// outside; what comes in is what is addressed to its own address and port, with its VNI, by one of its remotes. Those are
    /// [`StaticMac::dst`] of the stations behind it.
    Vxlan {
        /// The network's identifier, 1 to 16 777 215; the same at both ends.
        vni: u32,
        /// Its own address outside: of a bridge, or of the NIC of an uplink. Its version is that of all its remotes.
        local: IpAddr,
        /// The UDP port, at both ends.
        #[serde(default = "vxlan_port_default")]
        udp_port: u16,
        /// The routing table outside.
        #[serde(default = "Name::main", skip_serializing_if = "Name::is_main")]
        underlay: Name,
    },
    /// Replays a capture into the switch and writes what the switch sends.
    Pcap {
        /// The capture to replay, once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        read: Option<String>,
        /// The capture to write.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        write: Option<String>,
    },
}

impl PortKind {
    /// AF_XDP on `device`, everything else by default.
    pub fn xdp(device: &str) -> Self {
        Self::Xdp {
            device: device.to_owned(),
            mode: XdpMode::Auto,
            queues: 0,
            ring_size: RING_SIZE_DEFAULT,
            busy_poll_us: 0,
            take: Take::Everything,
            when_dead: None,
            dead_after_ms: DEAD_AFTER_MS_DEFAULT,
            pod: None,
        }
    }

    /// An uplink on `device`, a NIC that stays the host's, everything else by default.
    pub fn uplink(device: &str) -> Self {
        let mut kind = Self::xdp(device);
        if let Self::Xdp { take, ring_size, .. } = &mut kind {
            (*take, *ring_size) = (Take::Networks, RING_SIZE_UPLINK);
        }
        kind
    }

    /// The MAC of the node itself, if that is what is behind it.
    pub fn host_mac(&self) -> Option<Mac> {
        match self {
            Self::Host { mac, .. } => *mac,
            _ => None,
        }
    }

    /// The NIC that it shares with the host's kernel, if it is an uplink.
    pub fn shared_nic(&self) -> Option<&str> {
        match self {
            Self::Xdp { device, take: Take::Networks, .. } => Some(device),
            _ => None,
        }
    }

    /// AF_XDP on the end named `device` of a veth pair whose other end is in a pod.
    pub fn xdp_pod(device: &str, end: PodEnd) -> Self {
        let mut kind = Self::xdp(device);
        if let Self::Xdp { pod, .. } = &mut kind {
            *pod = Some(Box::new(end));
        }
        kind
    }

    /// The addresses of the pod behind a port whose device the switch makes in it.
    pub fn pod_addresses(&self) -> Option<&[Cidr]> {
        match self {
            Self::Tap { addresses, .. } => Some(addresses),
            Self::Xdp { pod: Some(end), .. } => Some(&end.addresses),
            _ => None,
        }
    }

    /// Addresses and routes of the device that the switch makes; none if it makes none.
    pub fn addressed_mut(&mut self) -> Option<(&mut Vec<Cidr>, &mut Vec<DeviceRoute>)> {
        match self {
            Self::Tap { addresses, routes, .. } | Self::Host { addresses, routes, .. } => {
                Some((addresses, routes))
            }
            Self::Xdp { pod: Some(end), .. } => Some((&mut end.addresses, &mut end.routes)),
            _ => None,
        }
    }

    /// The MAC address of the device that the switch makes; none if it makes none.
    pub fn mac_mut(&mut self) -> Option<&mut Option<Mac>> {
        match self {
            Self::Tap { mac, .. } | Self::Host { mac, .. } => Some(mac),
            Self::Xdp { pod: Some(end), .. } => Some(&mut end.mac),
            _ => None,
        }
    }
}

impl PortKind {
    /// A VXLAN tunnel, everything else by default.
    pub fn vxlan(vni: u32, local: IpAddr) -> Self {
        Self::Vxlan { vni, local, udp_port: VXLAN_PORT, underlay: Name::main() }
    }

    /// Whether it is a tunnel.
    pub fn is_tunnel(&self) -> bool {
        matches!(self, Self::Vxlan { .. })
    }

    /// A TAP in the namespace at `netns`, everything else by default.
    pub fn tap(netns: &str) -> Self {
        Self::Tap {
            device: tap_device_default(),
            netns: Some(netns.to_owned()),
            mac: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            queues: tap_queues_default(),
        }
    }
}

/// The end in a pod of a veth pair that the switch makes. It is there as long as the port is, and outlives the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodEnd {
    /// The device's name when it is made. The pod may rename it.
    #[serde(default = "tap_device_default")]
    pub device: String,
    /// The pod's network namespace, as a path.
    pub netns: String,
    /// Its MAC address. None: the switch chooses one when the port is added, and keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Addresses it is made with. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Cidr>,
    /// Routes it is made with. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<DeviceRoute>,
}

/// A pod's device unless said otherwise: what container runtimes call it.
pub const TAP_DEVICE_DEFAULT: &str = "eth0";
/// The node's own device unless said otherwise. The drop-ins in `deploy/` keep udev, NetworkManager and
/// systemd-networkd away from devices whose name begins so.
pub const HOST_DEVICE_DEFAULT: &str = "switch0";

/// The UDP port of VXLAN (RFC 7348 §8).
pub const VXLAN_PORT: u16 = 4789;

fn vxlan_port_default() -> u16 {
    VXLAN_PORT
}

fn tap_device_default() -> String {
    TAP_DEVICE_DEFAULT.into()
}

fn host_device_default() -> String {
    HOST_DEVICE_DEFAULT.into()
}

fn tap_queues_default() -> u16 {
    1
}

/// Ring entries unless said otherwise: one kick's worth of frames (`XDP_MAX_TX_SKB_BUDGET` takes 1024).
pub const RING_SIZE_DEFAULT: u32 = 1024;
/// Ring entries of an uplink, unless said otherwise. What several senders have on their way at once (a TCP window of 4 MiB is
/// 3 000 frames) comes between two turns of a worker that shares its core; with 1024 every seventh frame of such a burst was lost. Frames
/// are given to it as they are needed.
pub const RING_SIZE_UPLINK: u32 = 4096;
/// Silence after which the switch counts as dead, unless said otherwise, in ms. Longer than any pause of
/// a living worker, shorter than a TCP connection's patience.
pub const DEAD_AFTER_MS_DEFAULT: u32 = 1000;

fn ring_size_default() -> u32 {
    RING_SIZE_DEFAULT
}

fn dead_after_ms_default() -> u32 {
    DEAD_AFTER_MS_DEFAULT
}

/// What a memory port sends: seeded UDP flows between made-up stations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySource {
    /// Distinct source and destination MAC pairs. 1 to 1 000 000.
    pub flows: u32,
    /// Bytes of a frame without its FCS. 60 to 1514.
    pub frame_len: u16,
    /// Seed of the order.
    pub seed: u64,
    /// Send from the far stations to the near ones: the other half of a pair of ports.
    #[serde(default)]
    pub reverse: bool,
    /// Frames a second; 0 is as fast as the switch takes them.
    #[serde(default)]
    pub rate_pps: u64,
}

/// A port: one door of the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name, unique among ports.
    pub name: Name,
    /// The bridge it is a member of.
    pub bridge: Name,
    /// What it is made of.
    #[serde(flatten)]
    pub kind: PortKind,
    /// How it switches.
    #[serde(default)]
    pub settings: PortSettings,
    /// Who declared it.
    #[serde(default)]
    pub owner: Owner,
    /// What its owner notes on it, for people and for itself: at most 16, each at most 63 and 256 bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it is to policies; none: no policy selects it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<crate::Workload>,
}

impl Port {
    /// A port with everything else by default.
    pub fn new(name: Name, bridge: Name, kind: PortKind) -> Self {
        let (settings, owner) = (PortSettings::default(), Owner::default());
        Self { name, bridge, kind, settings, owner, labels: BTreeMap::new(), workload: None }
    }
}

/// Smallest MTU of a link that IPv6 is spoken on (RFC 8200 section 5).
pub const IPV6_MTU_MIN: u16 = 1280;

impl Port {
    /// The pod's device's MTU where `mtu` fits through the node's way out: IPv6 wants a certain size at least, an xdp port takes `xdp_max` at most.
    pub fn mtu_that_follows(&self, mtu: u16, xdp_max: Option<u16>) -> u16 {
        let addresses = self.kind.pod_addresses().unwrap_or_default();
        let has_v6 = addresses.iter().any(|cidr| cidr.address().is_ipv6());
        let least = if has_v6 { mtu.max(IPV6_MTU_MIN) } else { mtu };
        let most = xdp_max.filter(|_| matches!(self.kind, PortKind::Xdp { .. }));
        least.min(most.unwrap_or(u16::MAX))
    }
}

/// How a port switches; all of it can be changed while traffic flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortSettings {
    /// VLAN membership.
    pub vlan: Vlan,
    /// Which flooded frames it is given.
    pub flood: Flood,
    /// An isolated port exchanges frames only with ports that are not isolated.
    pub isolated: bool,
    /// Whether a frame may leave by the port it came from.
    pub hairpin: bool,
    /// Broadcast, multicast and unknown unicast frames a second that are admitted; none: no limit.
    pub storm_pps: Option<u32>,
    /// MACs it may have learned at one time; none: the table's fair share applies alone.
    pub learn_limit: Option<u32>,
    /// Largest L3 packet it is given, in bytes, without Ethernet header and tags. None: the device's. A
    /// device that the switch makes is given this MTU, or 1500.
    pub mtu: Option<u16>,
    /// Whether the MTU becomes what fits through the node's way out (`Status::pod_mtu`) when that changes. Of devices that the switch
    /// makes in pods only.
    #[serde(skip_serializing_if = "is_false")]
    pub mtu_follows: bool,
    /// The worker that serves it; none: the switch chooses.
    pub worker: Option<u16>,
    /// The workers of its queues, queue by queue and from the beginning again, in place of one for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queue_workers: Vec<u16>,
    /// Whether flows are kept of what it sends and is sent, whatever else asks for it.
    pub track: bool,
    /// What it may say of itself; none: whatever it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_guard: Option<SourceGuard>,
    /// How fast it may send and be sent.
    #[serde(skip_serializing_if = "PortLimits::is_none")]
    pub limits: PortLimits,
    /// What becomes of what no access control list and no network policy decides.
    #[serde(skip_serializing_if = "DefaultVerdicts::is_allow")]
    pub default_verdict: DefaultVerdicts,
    /// Whether answers to flows that entered by this port leave by it, whatever way they would take otherwise: so that a kernel
    /// that translates addresses (kube-proxy, published ports) sees both directions. A host port's only. Flows are then kept of every
    /// port; where nobody else asks for them, what fits none goes on all the same.
    #[serde(skip_serializing_if = "is_false")]
    pub return_flows: bool,
    /// Whether the node's kernel gives what comes from here, and leaves the node by it, the node's own address. A host port:
    /// from the networks of its addresses and of the gateways of its routing table; a tap port: from its own addresses.
    #[serde(skip_serializing_if = "is_false")]
    pub masquerade: bool,
    /// Networks to masquerade instead of those; at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masquerade_from: Vec<Prefix>,
    /// Networks towards which nothing is masqueraded, whatever port it comes from: those that know the way back, like other
    /// nodes' pods. At most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_masquerade: Vec<Prefix>,
    /// Ports of the node that lead to this port's addresses; a tap port's only. At most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
}

impl PortSettings {
    /// The workers of so many queues; none: the switch chooses.
    pub fn workers(&self, queues: usize) -> Option<Vec<u16>> {
        let named = if self.queue_workers.is_empty() { self.worker.as_slice() } else { &self.queue_workers };
        (!named.is_empty()).then(|| named.iter().copied().cycle().take(queues).collect())
    }
}

/// What a port may send from: MAC addresses, IP addresses, and what it may say of both in ARP (RFC 826) and
/// neighbour discovery (RFC 4861). What is behind a guarded port is an end host: router advertisements, redirects
/// (RFC 6105) and DHCP servers' answers from it are dropped as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceGuard {
    /// Its MACs, at most 16. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<Mac>,
    /// Networks that its IPv4 and IPv6 addresses are in, at most 64. Empty: any. The IPv6 link-local address that a
    /// MAC makes (RFC 4291 appendix A) is always its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Prefix>,
}

/// A MAC that was declared: never aged, never moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticMac {
    /// The station.
    pub mac: Mac,
    /// The bridge it lives on.
    pub bridge: Name,
    /// The VLAN it lives in.
    #[serde(default = "default_vid")]
    pub vid: Vid,
    /// The port it is behind.
    pub port: Name,
    /// Behind a tunnel: the address outside of the end that it is behind. There only, and always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    /// Who declared it.
    #[serde(default, skip_serializing_if = "Owner::is_operator")]
    pub owner: Owner,
}

fn default_vid() -> Vid {
    Vid::DEFAULT
}
