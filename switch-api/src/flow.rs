//! Flows: who speaks with whom, as they are listed and ended.

use crate::{Judgement, Name};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Flows in one answer unless said otherwise.
pub const FLOW_PAGE_DEFAULT: u32 = 256;
/// Flows in one answer at most: a line of 1 MiB holds them.
pub const FLOW_PAGE_MAX: u32 = 2048;

/// Which flows are meant; what is absent does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowFilter {
    /// Those that a packet of this port began.
    pub port: Option<Name>,
    /// Those with this address at either end.
    pub address: Option<IpAddr>,
    /// Those of this protocol, by number.
    pub protocol: Option<u8>,
    /// Those with this port number (or identifier of a query) at either end.
    pub number: Option<u16>,
    /// Those in this state, by name.
    pub state: Option<String>,
}

/// See [`crate::Request::FlowList`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowList {
    /// Which.
    pub filter: FlowFilter,
    /// Where the last answer ended (its `next`).
    pub from: u32,
    /// At most so many; 0: [`FLOW_PAGE_DEFAULT`].
    pub limit: u32,
}

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEnd {
    /// Its address.
    pub address: IpAddr,
    /// Its port; the identifier of a query; 0 where there is none.
    pub number: u16,
}

/// Both ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEnds {
    /// Its source.
    pub from: FlowEnd,
    /// Its destination.
    pub to: FlowEnd,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEntry {
    /// Bridge and VLAN (`br0/1`), or routing table (`vrf main`), whose addresses these are.
    pub zone: String,
    /// Protocol number.
    pub protocol: u8,
    /// Who began.
    pub from: FlowEnd,
    /// Whom it speaks with.
    pub to: FlowEnd,
    /// What packets of who began become: the ends that the other end sees. None: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub becomes: Option<FlowEnds>,
    /// How far it has come.
    pub state: String,
    /// Nobody has answered yet.
    pub half_open: bool,
    /// It was not seen from its beginning.
    pub picked_up: bool,
    /// The port whose packet began it; none if that is gone.
    pub port: Option<Name>,
    /// Seconds since its last packet.
    pub age_s: u32,
    /// Seconds until it is forgotten, if no more comes.
    pub left_s: u32,
}

/// A page of flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPage {
    /// The flows.
    pub flows: Vec<FlowEntry>,
    /// Where the next page begins; none: there is no more.
    pub next: Option<u32>,
    /// All flows there are, of whatever filter.
    pub all: u32,
    /// Half-open ones among them.
    pub half_open: u32,
    /// Flows that the table holds.
    pub room: u32,
}

/// Which flow is to be explained. See [`crate::Request::FlowExplain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowExplain {
    /// Protocol number.
    pub protocol: u8,
    /// One end.
    pub from: FlowEnd,
    /// The other; which of them began does not matter.
    pub to: FlowEnd,
}

/// Most flows that [`crate::Request::FlowExplain`] tells of: the same ends may speak in several zones, and few do.
pub const FLOWS_EXPLAINED_MAX: usize = 16;

/// What is known of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowExplained {
    /// The flow.
    pub flow: FlowEntry,
    /// What its state is, and why it may last so long without a packet.
    pub meaning: String,
    /// Seconds that it may last without a packet.
    pub timeout_s: u32,
    /// What the sender's policies say, of whoever began it.
    pub egress: Judgement,
    /// What the receiver's policies say.
    pub ingress: Judgement,
    /// It was admitted by policies that say the same as those in force: the two above admitted it. Otherwise its next packet is
    /// judged by them.
    pub is_current: bool,
    /// What each end has said: who began, and the other.
    pub directions: [FlowDirection; 2],
}

/// What one end of a flow has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowDirection {
    /// TCP: the sequence number behind the last byte that it sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<u32>,
    /// TCP: what it has acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<u32>,
    /// TCP: bytes that it takes beyond that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// SCTP: the tag that it wants to see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<u32>,
}

/// What became of [`crate::Request::FlowDelete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsDeleted {
    /// So many are ended.
    pub deleted: u32,
}
