//! What can be asked: one variant per JSON-RPC method.

use crate::acl::Acl;
use crate::address_set::{AddressSet, AddressSetMembers, AddressSetUpdate};
use crate::capture::CaptureStart;
use crate::config::{ConfigApply, ConfigExport, ConfigRollback};
use crate::event::EventsSubscribe;
use crate::flow::{FlowExplain, FlowFilter, FlowList};
use crate::nat::Nat;
use crate::policy::{
    ByNamespace, ByPolicy, Namespace, NetworkPolicy, PolicyExplain, PolicyFilter, PortLabel,
};
use crate::policy_diff::PolicyDiff;
use crate::port_set::PortRangeSet;
use crate::route::{
    AddressDelete, BridgeAddress, NeighDelete, NeighFilter, Route, RouteApply, RouteDelete, RouteFilter,
    RouteGet, StaticNeighbour,
};
use crate::trace::{Trace, TraceLive};
use crate::{
    Bridge, Cidr, DeviceRoute, LeaseAcquire, LeaseFilter, Mac, Name, Owner, Pool, Port, PortSettings,
    SourceGuard, StaticMac, Vid, Vrf,
};
use serde::{Deserialize, Serialize};

/// A request. `method` is the variant's name in the file, `params` its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
#[allow(
    clippy::large_enum_variant,
    reason = "all settings of a port; a request lives for as long as it is answered"
)]
pub enum Request {
    /// Says which version the client speaks; refused if it is another one.
    #[serde(rename = "hello")]
    Hello(Hello),
    /// What the daemon is and how it is.
    #[serde(rename = "status")]
    Status(Nothing),
    /// Stops the daemon.
    #[serde(rename = "daemon.stop")]
    Stop(Stop),
    /// All that an owner declares.
    #[serde(rename = "config.export")]
    ConfigExport(ConfigExport),
    /// Makes what an owner declares be this: all of it or nothing.
    #[serde(rename = "config.apply")]
    ConfigApply(Box<ConfigApply>),
    /// Keeps what waits to be confirmed.
    #[serde(rename = "config.confirm")]
    ConfigConfirm(Nothing),
    /// Lists what was declared before, the newest last.
    #[serde(rename = "config.history")]
    ConfigHistory(Nothing),
    /// Makes what the operator declares be what it was.
    #[serde(rename = "config.rollback")]
    ConfigRollback(ConfigRollback),
    /// Declares a bridge.
    #[serde(rename = "bridge.add")]
    BridgeAdd(Bridge),
    /// Replaces a bridge's settings.
    #[serde(rename = "bridge.set")]
    BridgeSet(Bridge),
    /// Removes a bridge without ports.
    #[serde(rename = "bridge.delete")]
    BridgeDelete(ByName),
    /// Lists bridges.
    #[serde(rename = "bridge.list")]
    BridgeList(Nothing),
    /// Gives a bridge a gateway address: the switch then routes for that network.
    #[serde(rename = "bridge.address.add")]
    AddressAdd(BridgeAddress),
    /// Takes it away.
    #[serde(rename = "bridge.address.delete")]
    AddressDelete(AddressDelete),
    /// Declares a neighbour: an address's MAC, never asked for.
    #[serde(rename = "neigh.add")]
    NeighAdd(StaticNeighbour),
    /// Forgets a neighbour, declared or learned.
    #[serde(rename = "neigh.delete")]
    NeighDelete(NeighDelete),
    /// Lists neighbours.
    #[serde(rename = "neigh.list")]
    NeighList(NeighFilter),
    /// Lists flows, by pages.
    #[serde(rename = "flow.list")]
    FlowList(FlowList),
    /// Says what is known of one flow: state, time left and why, and what admitted it.
    #[serde(rename = "flow.explain")]
    FlowExplain(FlowExplain),
    /// Ends flows: what still comes of them is judged as if it were new.
    #[serde(rename = "flow.delete")]
    FlowDelete(FlowFilter),
    /// Declares a route.
    #[serde(rename = "route.add")]
    RouteAdd(Route),
    /// Removes routes to a network.
    #[serde(rename = "route.delete")]
    RouteDelete(RouteDelete),
    /// Changes many routes at once: all of it or nothing.
    #[serde(rename = "route.apply")]
    RouteApply(RouteApply),
    /// Lists routes, by pages.
    #[serde(rename = "route.list")]
    RouteList(RouteFilter),
    /// Says what becomes of a packet to an address, and why.
    #[serde(rename = "route.get")]
    RouteGet(RouteGet),
    /// What went by the routes that are counted, by table, network and metric.
    #[serde(rename = "route.stats")]
    RouteStats(Nothing),
    /// Sets a routing table: where it leads, and which of the kernel's it goes with.
    #[serde(rename = "vrf.set")]
    VrfSet(Vrf),
    /// Forgets what was set.
    #[serde(rename = "vrf.delete")]
    VrfDelete(ByName),
    /// Lists routing tables.
    #[serde(rename = "vrf.list")]
    VrfList(Nothing),
    /// Declares a port and opens it.
    #[serde(rename = "port.add")]
    PortAdd(Box<Port>),
    /// Replaces a port's settings.
    #[serde(rename = "port.set")]
    PortSet(PortSet),
    /// Gives the device that the switch made for a port other addresses and routes, in place.
    #[serde(rename = "port.address")]
    PortAddress(PortAddress),
    /// Says what a port is to policies.
    #[serde(rename = "port.label")]
    PortLabel(PortLabel),
    /// Closes a port and removes it.
    #[serde(rename = "port.delete")]
    PortDelete(ByName),
    /// One port.
    #[serde(rename = "port.get")]
    PortGet(ByName),
    /// Lists ports.
    #[serde(rename = "port.list")]
    PortList(Nothing),
    /// Tries what a device can do. It is attached and detached again for it, taking no frame.
    #[serde(rename = "port.probe")]
    PortProbe(ByDevice),
    /// Declares a static MAC.
    #[serde(rename = "fdb.add")]
    FdbAdd(StaticMac),
    /// Removes a MAC, static or learned.
    #[serde(rename = "fdb.delete")]
    FdbDelete(FdbDelete),
    /// Forgets learned MACs.
    #[serde(rename = "fdb.flush")]
    FdbFlush(FdbFilter),
    /// Lists MACs.
    #[serde(rename = "fdb.list")]
    FdbList(FdbFilter),
    /// Lists workers and their lanes.
    #[serde(rename = "worker.list")]
    WorkerList(Nothing),
    /// Moves lanes from busy workers to others.
    #[serde(rename = "worker.rebalance")]
    WorkerRebalance(Rebalance),
    /// Counters, drop reasons, frames, cycles per stage.
    #[serde(rename = "stats.get")]
    StatsGet(Nothing),
    /// How much the daemon says in its log, and how.
    #[serde(rename = "log.get")]
    LogGet(Nothing),
    /// Changes how much the daemon says in its log, until it ends.
    #[serde(rename = "log.level")]
    LogLevel(LogLevel),
    /// Says what would become of a frame now, stage by stage; changes nothing.
    #[serde(rename = "trace")]
    Trace(Trace),
    /// Follows the next frames through the stages: each is told as `trace.frame`, until the client ends.
    #[serde(rename = "trace.live")]
    TraceLive(TraceLive),
    /// Begins a capture: what passes is told as `capture.frame`, until the client ends.
    #[serde(rename = "capture.start")]
    CaptureStart(CaptureStart),
    /// Begins to tell what happens, as `event`, until the client ends.
    #[serde(rename = "events.subscribe")]
    EventsSubscribe(EventsSubscribe),
    /// What has happened lately, as far as the daemon keeps it.
    #[serde(rename = "events.recent")]
    EventsRecent(Nothing),
    /// Gives a namespace its labels, all of them.
    #[serde(rename = "namespace.set")]
    NamespaceSet(Namespace),
    /// Takes a namespace's labels away.
    #[serde(rename = "namespace.delete")]
    NamespaceDelete(ByNamespace),
    /// Lists namespaces that have labels.
    #[serde(rename = "namespace.list")]
    NamespaceList(Nothing),
    /// Declares a network policy.
    #[serde(rename = "policy.add")]
    PolicyAdd(Box<NetworkPolicy>),
    /// Declares a network policy, in place of the one of that name if there is one.
    #[serde(rename = "policy.set")]
    PolicySet(Box<NetworkPolicy>),
    /// Removes a network policy.
    #[serde(rename = "policy.delete")]
    PolicyDelete(ByPolicy),
    /// Lists network policies, and what their rules decided.
    #[serde(rename = "policy.list")]
    PolicyList(PolicyFilter),
    /// Says whether a first packet would pass, and which rule decides.
    #[serde(rename = "policy.explain")]
    PolicyExplain(PolicyExplain),
    /// Says which flows and which pairs of ends a change of policies would cut or open; changes nothing.
    #[serde(rename = "policy.diff")]
    PolicyDiff(Box<PolicyDiff>),
    /// Declares an access control list, in place of the one of that name if there is one.
    #[serde(rename = "acl.set")]
    AclSet(Box<Acl>),
    /// Removes an access control list.
    #[serde(rename = "acl.delete")]
    AclDelete(ByName),
    /// Lists access control lists, and what their rules decided.
    #[serde(rename = "acl.list")]
    AclList(Nothing),
    /// Declares a port set, in place of the one of that name if there is one.
    #[serde(rename = "port_set.set")]
    PortSetSet(PortRangeSet),
    /// Removes a port set that no rule names.
    #[serde(rename = "port_set.delete")]
    PortSetDelete(ByName),
    /// Lists port sets.
    #[serde(rename = "port_set.list")]
    PortSetList(Nothing),
    /// Declares an address set, in place of the one of that name if there is one.
    #[serde(rename = "address_set.set")]
    AddressSetSet(AddressSet),
    /// Changes members of an address set: all of it or nothing.
    #[serde(rename = "address_set.update")]
    AddressSetUpdate(AddressSetUpdate),
    /// Removes an address set that no rule names.
    #[serde(rename = "address_set.delete")]
    AddressSetDelete(ByName),
    /// Lists address sets, without their members.
    #[serde(rename = "address_set.list")]
    AddressSetList(Nothing),
    /// Lists the members of one, by pages.
    #[serde(rename = "address_set.members")]
    AddressSetMembers(AddressSetMembers),
    /// Declares a rule of network address translation, in place of the one of that name if there is one.
    #[serde(rename = "nat.set")]
    NatSet(Box<Nat>),
    /// Removes a rule of network address translation; flows that it translates end.
    #[serde(rename = "nat.delete")]
    NatDelete(ByName),
    /// Lists rules of network address translation, and what they translate.
    #[serde(rename = "nat.list")]
    NatList(Nothing),
    /// Declares a pool of addresses.
    #[serde(rename = "ipam.pool.add")]
    PoolAdd(Pool),
    /// Replaces a pool's ranges; refused if a lease would lie outside.
    #[serde(rename = "ipam.pool.set")]
    PoolSet(Pool),
    /// Removes a pool without leases.
    #[serde(rename = "ipam.pool.delete")]
    PoolDelete(ByName),
    /// Lists pools and how full they are.
    #[serde(rename = "ipam.pool.list")]
    PoolList(Nothing),
    /// Gives addresses to a holder; answered with the lease when it is on disk.
    #[serde(rename = "ipam.lease.acquire")]
    LeaseAcquire(LeaseAcquire),
    /// Releases leases; nothing to release is no error. A filter that names nothing is refused.
    #[serde(rename = "ipam.lease.release")]
    LeaseRelease(LeaseFilter),
    /// Lists leases.
    #[serde(rename = "ipam.lease.list")]
    LeaseList(LeaseFilter),
}

impl Request {
    /// Whether it changes nothing, so that a reader may ask it.
    pub fn is_read_only(&self) -> bool {
        let only_said = match self {
            Self::ConfigApply(apply) => apply.dry_run,
            Self::ConfigRollback(rollback) => rollback.dry_run,
            _ => false,
        };
        only_said
            || matches!(
                self,
                Self::Hello(_)
                    | Self::Status(_)
                    | Self::ConfigExport(_)
                    | Self::ConfigHistory(_)
                    | Self::BridgeList(_)
                    | Self::PortGet(_)
                    | Self::PortList(_)
                    | Self::FdbList(_)
                    | Self::NeighList(_)
                    | Self::FlowList(_)
                    | Self::FlowExplain(_)
                    | Self::RouteList(_)
                    | Self::RouteGet(_)
                    | Self::RouteStats(_)
                    | Self::VrfList(_)
                    | Self::WorkerList(_)
                    | Self::WorkerRebalance(Rebalance { dry_run: true })
                    | Self::StatsGet(_)
                    | Self::LogGet(_)
                    | Self::Trace(_)
                    | Self::EventsSubscribe(_)
                    | Self::EventsRecent(_)
                    | Self::NamespaceList(_)
                    | Self::PolicyList(_)
                    | Self::PolicyExplain(_)
                    | Self::PolicyDiff(_)
                    | Self::AclList(_)
                    | Self::PortSetList(_)
                    | Self::AddressSetList(_)
                    | Self::AddressSetMembers(_)
                    | Self::NatList(_)
                    | Self::PoolList(_)
                    | Self::LeaseList(_)
            )
    }
}

/// No parameters: absent, or `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// See [`Request::Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`crate::API_VERSION`] of the client.
    pub version: u32,
    /// As whom it asks from now on. Without it: the CNI plugin if the client's role is `cni`, or its program is called
    /// `switch-cni`; else the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// See [`Request::Stop`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Also detach every XDP program. Without it they stay, so that the ports' dead-man settings
    /// decide until the next daemon adopts them.
    #[serde(default)]
    pub detach: bool,
}

/// See [`Request::LogLevel`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`; after a comma `PART=LEVEL` for one part of the program, as often as wanted:
    /// `info,switch_core::control::mirror=debug`.
    pub level: String,
}

/// See [`Request::WorkerRebalance`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebalance {
    /// Only say what would be moved.
    #[serde(default)]
    pub dry_run: bool,
}

/// One object by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByName {
    /// The name.
    pub name: Name,
}

/// One network device by its name in the daemon's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByDevice {
    /// The device.
    pub device: String,
}

/// See [`Request::PortSet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSet {
    /// The port.
    pub name: Name,
    /// All its settings; what is not named returns to its default.
    pub settings: PortSettings,
}

/// See [`Request::PortAddress`]. The device stays what it is, with all that is connected over addresses that stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortAddress {
    /// The port: one whose device the switch made.
    pub name: Name,
    /// All its addresses from now on.
    #[serde(default)]
    pub addresses: Vec<Cidr>,
    /// All its routes from now on.
    #[serde(default)]
    pub routes: Vec<DeviceRoute>,
    /// What it may say of itself from now on. Absent: as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_guard: Option<SourceGuard>,
}

/// See [`Request::FdbDelete`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbDelete {
    /// The station.
    pub mac: Mac,
    /// The bridge.
    pub bridge: Name,
    /// The VLAN.
    #[serde(default = "default_vid")]
    pub vid: Vid,
}

fn default_vid() -> Vid {
    Vid::DEFAULT
}

/// Which MACs are meant; what is absent does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FdbFilter {
    /// Only those of this bridge.
    pub bridge: Option<Name>,
    /// Only those behind this port.
    pub port: Option<Name>,
    /// Only those in this VLAN.
    pub vid: Option<Vid>,
    /// Only this one.
    pub mac: Option<Mac>,
}
