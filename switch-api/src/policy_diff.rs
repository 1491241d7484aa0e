//! What a change of policies would do, said before it is made: which pairs of ends and which flows it would cut or
//! open.

use crate::{ByPolicy, Cidr, Config, FlowEntry, Name, NetworkPolicy, Protocol};
use serde::{Deserialize, Serialize};

/// Most pairs in one answer: what a person reads, and less than a MiB with all their ports.
pub const DIFF_PAIRS_MAX: usize = 512;
/// Most flows in one answer, for the same reason.
pub const DIFF_FLOWS_MAX: usize = 512;
/// Most ranges of ports told of one pair; a policy seldom names more ports than that.
pub const DIFF_PORTS_MAX: usize = 16;

/// A change that is not made. See [`crate::Request::PolicyDiff`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyDiff {
    /// Policies as [`crate::Request::PolicySet`] would declare them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<NetworkPolicy>,
    /// Policies that would go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<ByPolicy>,
    /// All that the operator declares, as [`crate::Request::ConfigApply`] would have it; then the two above are
    /// empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Box<Config>>,
}

/// What becomes of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It passes now and would not.
    Cut,
    /// It does not pass now and would.
    Open,
}

/// The answer to [`crate::Request::PolicyDiff`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDiffAnswer {
    /// Pairs, at most [`DIFF_PAIRS_MAX`]; what would be cut comes first.
    pub pairs: Vec<PairChange>,
    /// Entries that `pairs` has no room for.
    pub pairs_left_out: usize,
    /// Pairs that were not judged: the change is about more of them than are looked at in one answer.
    pub pairs_unjudged: usize,
    /// Blocks of addresses that were not judged, for the same reason.
    pub blocks_unjudged: usize,
    /// Flows, at most [`DIFF_FLOWS_MAX`]; what would be cut comes first.
    pub flows: Vec<FlowChange>,
    /// Flows that there are and that were judged.
    pub flows_judged: u32,
    /// Of those, how many would be cut, also beyond what `flows` lists.
    pub flows_cut: u32,
    /// How many would pass again.
    pub flows_opened: u32,
    /// Ports of which flows would be kept from now on. The TCP connections that they have are not known then and end, unless
    /// `switchd --flow-pickup`.
    pub newly_tracked: Vec<Name>,
    /// Ports that would go. Their flows are cut; no pair is judged whose end they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports_gone: Vec<Name>,
    /// Ports that would come. No pair is judged whose end they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports_new: Vec<Name>,
}

/// An end of a pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DiffEnd {
    /// The workload's port; none: not a workload of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Name>,
    /// Its address; of whom is no workload, a block of addresses that a policy names (or everybody, `0.0.0.0/0`), without
    /// those in it that are a smaller block's, a workload's or the node's.
    pub addresses: Cidr,
}

/// What a change would do to the first packets from one end to the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairChange {
    /// Who sends.
    pub from: DiffEnd,
    /// Who receives.
    pub to: DiffEnd,
    /// What would become of them.
    pub effect: Effect,
    /// The rule that would decide; none: no policy would isolate either end any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Of which protocols and destination ports, at most [`DIFF_PORTS_MAX`] ranges.
    pub ports: Vec<PortsChange>,
    /// Ranges that `ports` has no room for.
    #[serde(default)]
    pub ports_left_out: usize,
}

/// Destination ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsChange {
    /// The protocol; none: all that have no ports, like ICMP.
    pub protocol: Option<Protocol>,
    /// The first.
    pub first: u16,
    /// The last, that one too.
    pub last: u16,
}

/// A flow that a change would cut or open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowChange {
    /// The flow.
    pub flow: FlowEntry,
    /// What would become of it.
    pub effect: Effect,
    /// The rule that would decide; none: no policy would isolate either end any more, or `goes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The port that would go, and the flow with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goes: Option<Name>,
}
