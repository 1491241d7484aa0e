//! Network policies, from words to tables: one pure function of (policies, workloads, namespaces, the node's own
//! addresses) that [`compile::compile`] is, and the lookup in what comes of it.
//!
//! # What a lookup does
//! The peer's address → its *identity* by longest prefix: two addresses of which every policy thinks the same have
//! one identity. Protocol and port → a *class* by one look into a table: two ports that no policy tells apart
//! have one class. Then the subject's [`Set`]: identity → row, class → column, and the verdict stands in the
//! matrix. That is the walk of the prefix table and four reads, whatever the number of rules (ADR 0014): [`PROBES_MAX`].
//!
//! | module | what |
//! |---|---|
//! | [`check`] | what is wrong with a policy or a workload, in sentences |
//! | [`select`] | which labels a selector wants |
//! | [`kinds`] | workloads that selectors cannot tell apart |
//! | [`terms`] | whom rules are about, and the identities of addresses |
//! | [`addresses`] | which identity an address has, and what differs from before |
//! | [`ports`] | classes of ports |
//! | [`compile`] | the tables, and the memory they need before it is taken |
//! | [`plain`] | the dull twin: what tests and fuzzing hold the tables against |
//! | [`diff`] | what two of them say differently: which pairs of ends a change cuts or opens |

mod addresses;
pub mod budget;
pub mod check;
pub mod compile;
pub mod diff;
mod kinds;
pub mod plain;
mod ports;
mod select;
mod terms;

#[cfg(not(loom))]
#[cfg(test)]
mod budget_tests;
#[cfg(not(loom))]
#[cfg(test)]
pub mod cases;
#[cfg(not(loom))]
#[cfg(test)]
mod diff_tests;
#[cfg(not(loom))]
#[cfg(test)]
mod tests;

use crate::prefetch::prefetch;
use crate::table::lpm;
use crate::table::probes::{self, Probes, Uncounted};
use crate::wire::hop::V4_MAPPED;
use addresses::Addresses;
use arrayvec::ArrayVec;
use hashbrown::HashMap;
use ports::Classes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use switch_api::{LabelSelector, Labels, NetworkPolicy, PolicyType, Workload};

/// Most network policies: a cluster's, not a node's.
pub const POLICIES_MAX: usize = 16_384;
/// Most rules of all policies, each policy's two defaults among them; each has a counter at every worker, of
/// which the kernel gives memory only to those that count.
pub const RULES_MAX: usize = 1 << 17;
/// Most bytes that compiled policies may take. A node with 250 pods and 10 000 rules needs a few megabytes; this
/// keeps an edge node with 1 GiB alive while the old tables and the new ones are both there.
pub const MEMORY_MAX: usize = 256 << 20;

/// Most probes for what a set says of one packet between addresses of IPv4: those of the peer's identity, and an entry each of class, row, column and
/// verdict, however many rules there are.
pub const V4_PROBES_MAX: u32 = lpm::V4_PROBES_MAX + 4;
/// The same of IPv6.
pub const PROBES_MAX: u32 = lpm::PROBES_MAX + 4;

/// Number of a rule: its place among the counters.
pub type Slot = u32;

/// A declared policy, and the first of its slots.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// The policy.
    pub policy: &'a NetworkPolicy,
    /// See [`slots_of`].
    pub slot: Slot,
}

/// A workload, and where it is.
#[derive(Clone, Debug)]
pub struct Pod<'a> {
    /// Number of its port.
    pub port: u16,
    /// What it is.
    pub workload: &'a Workload,
    /// Its addresses; IPv4 is IPv4-mapped.
    pub addresses: Vec<u128>,
}

/// All that is compiled.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// By namespace and name.
    pub policies: Vec<Placed<'a>>,
    /// Workloads.
    pub pods: Vec<Pod<'a>>,
    /// Labels of namespaces that have any.
    pub namespaces: &'a BTreeMap<String, Labels>,
    /// The node's own addresses.
    pub node: Vec<u128>,
}

/// An address as 128 bits; IPv4 is IPv4-mapped.
pub fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => V4_MAPPED | u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[inline(always)]
fn is_v4(ip: u128) -> bool {
    ip >> 32 == V4_MAPPED >> 32
}

/// How many slots a policy has: its defaults for both directions, then its rules, ingress first.
pub fn slots_of(policy: &NetworkPolicy) -> u32 {
    2 + (policy.spec.ingress.len() + policy.spec.egress.len()) as u32
}

/// The name of a policy's rule, by its place among the policy's slots.
pub fn rule_name(policy: &NetworkPolicy, place: u32) -> String {
    let (meta, ingress) = (&policy.metadata, policy.spec.ingress.len() as u32);
    let rule = match place {
        0 => "ingress default".to_owned(),
        1 => "egress default".to_owned(),
        n if n - 2 < ingress => format!("ingress {}", n - 1),
        n => format!("egress {}", n - 1 - ingress),
    };
    format!("{}/{} {rule}", meta.namespace, meta.name)
}

/// Whether a selector means a workload with these labels.
pub fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    select::pods(selector, labels)
}

/// Whether a selector means a namespace.
pub fn selects_namespace(
    selector: &LabelSelector,
    name: &str,
    namespaces: &BTreeMap<String, Labels>,
) -> bool {
    select::namespace(selector, name, namespaces)
}

/// What policies are to one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// What its policies say of what comes in; none: it is not isolated.
    pub ingress: Option<u32>,
    /// What its policies say of what goes out; none: it is not isolated.
    pub egress: Option<u32>,
    /// It is a workload: only its own addresses are its own.
    pub is_workload: bool,
    /// Those addresses.
    pub own: Arc<[u128]>,
    /// A number made of all that its policies say: another one means that they say something else.
    pub epoch: u64,
}

impl Subject {
    /// Whether any policy isolates it.
    #[inline(always)]
    pub fn is_isolated(&self) -> bool {
        self.ingress.is_some() || self.egress.is_some()
    }

    /// What its policies say of a direction.
    pub fn set(&self, direction: PolicyType) -> Option<u32> {
        match direction {
            PolicyType::Ingress => self.ingress,
            PolicyType::Egress => self.egress,
        }
    }

    /// Whether it may send from `ip`: a workload only from its own addresses.
    #[inline]
    pub fn may_be(&self, ip: u128) -> bool {
        !self.is_workload || self.own.contains(&ip)
    }
}

/// What the policies that select a subject say of one direction.
#[derive(Debug)]
pub struct Set {
    rows: Box<[u32]>,
    columns: Box<[u16]>,
    /// How long a column of verdicts is.
    rows_len: u32,
    /// Slot of the rule that allows, plus one; column by column, for many peers ask for few services: what is in use lies close together.
    verdicts: Box<[u32]>,
    denied: Slot,
}

impl Set {
    /// Where its verdict about a row stands.
    #[inline(always)]
    fn cell(&self, row: u32, class: u16, probes: impl Probes) -> usize {
        let column = probes::at(&self.columns, usize::from(class), probes);
        (u32::from(column) * self.rows_len + row) as usize
    }

    /// What a verdict of it is: the rule that allows, or the one that does not.
    #[inline(always)]
    fn says(&self, verdict: u32) -> Result<Slot, Slot> {
        match verdict {
            0 => Err(self.denied),
            slot => Ok(slot - 1),
        }
    }
}

/// What a set is asked about a first packet.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The set.
    pub set: u32,
    /// The other end; IPv4 is IPv4-mapped.
    pub peer: u128,
    /// Class of ports.
    pub class: u16,
}

/// An end of a first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The port of the workload that it is; none: it is none of this node's.
    pub port: Option<u16>,
    /// Its address; IPv4 is IPv4-mapped.
    pub ip: u128,
}

/// What is asked about first packets between two ends, whatever their ports: the set of the sender's policies and the
/// receiver's identity, and the other way round. None: there is nothing to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    egress: Option<(u32, u32)>,
    ingress: Option<(u32, u32)>,
}

/// Compiled policies.
#[derive(Debug, Default)]
pub struct Compiled {
    by_address: Addresses,
    classes: Classes,
    sets: Box<[Set]>,
    subjects: HashMap<u16, Subject>,
    node: Box<[u128]>,
    /// Bytes that it takes.
    pub bytes: usize,
    /// Identities of addresses.
    pub identities: usize,
}

impl Compiled {
    /// Whether no port is isolated.
    pub fn is_idle(&self) -> bool {
        self.sets.is_empty()
    }

    /// What policies are to a port.
    pub fn subject(&self, port: u16) -> Option<&Subject> {
        self.subjects.get(&port)
    }

    /// The workload that has an address.
    pub fn owner_of(&self, ip: u128) -> Option<u16> {
        let mut owners = self.subjects.iter().filter(|(_, subject)| subject.own.contains(&ip));
        owners.next().map(|(port, _)| *port)
    }

    /// Whether an address is the node's own.
    #[inline]
    pub fn is_node(&self, ip: u128) -> bool {
        self.node.binary_search(&ip).is_ok()
    }

    /// The node's own addresses.
    pub fn node_addresses(&self) -> impl Iterator<Item = u128> {
        self.node.iter().copied()
    }

    /// The identity of an address.
    #[inline]
    pub fn identity(&self, ip: u128) -> u32 {
        self.identity_with(ip, Uncounted)
    }

    /// The same with whoever counts.
    #[inline]
    pub fn identity_with(&self, ip: u128, probes: impl Probes) -> u32 {
        // A value is an identity and one, or 0 for the first.
        self.by_address.table.find_with(ip, probes).saturating_sub(1)
    }

    /// The class of a destination port, if it is known, of a protocol.
    #[inline]
    pub fn class(&self, protocol: u8, port: Option<u16>) -> u16 {
        self.class_with(protocol, port, Uncounted)
    }

    /// The same with whoever counts.
    #[inline]
    pub fn class_with(&self, protocol: u8, port: Option<u16>, probes: impl Probes) -> u16 {
        self.classes.of(protocol, port, probes)
    }

    /// What a set says of a peer and a class of ports: the rule that allows, or the one that does not.
    #[inline]
    pub fn judge(&self, set: u32, identity: u32, class: u16) -> Result<Slot, Slot> {
        self.judge_with(set, identity, class, Uncounted)
    }

    /// The same with whoever counts.
    #[inline]
    pub fn judge_with(&self, set: u32, identity: u32, class: u16, probes: impl Probes) -> Result<Slot, Slot> {
        let set = &self.sets[set as usize];
        let row = probes::at(&set.rows, identity as usize, probes);
        set.says(probes::at(&set.verdicts, set.cell(row, class, probes), probes))
    }

    /// What [`Compiled::judge`] says of each of several questions by its place, the identities found together as well: their cache misses overlap,
    /// where each would wait for its own.
    pub fn judge_each<const N: usize>(
        &self,
        asked: &ArrayVec<Asked, N>,
        mut says: impl FnMut(usize, Result<Slot, Slot>),
    ) {
        let mut values = [0; N];
        self.by_address.table.find_each(&mut values[..asked.len()], |n| asked[n].peer);
        let identities = values.map(|value| value.saturating_sub(1) as usize);
        for (asked, identity) in asked.iter().zip(identities) {
            prefetch(self.sets[asked.set as usize].rows.as_ptr().wrapping_add(identity));
        }
        let mut cells = [0; N];
        for ((asked, identity), cell) in asked.iter().zip(identities).zip(&mut cells) {
            let set = &self.sets[asked.set as usize];
            *cell = set.cell(set.rows[identity], asked.class, Uncounted);
            prefetch(set.verdicts.as_ptr().wrapping_add(*cell));
        }
        for (n, (asked, cell)) in asked.iter().zip(cells).enumerate() {
            let set = &self.sets[asked.set as usize];
            says(n, set.says(set.verdicts[cell]));
        }
    }

    /// The workloads' addresses, and whose they are.
    pub fn owners(&self) -> HashMap<u128, u16> {
        let own = self.subjects.iter().flat_map(|(port, subject)| subject.own.iter().map(|ip| (*ip, *port)));
        own.collect()
    }

    /// What is to be asked about first packets from one end to the other.
    pub fn question(&self, from: End, to: End) -> Question {
        if from.port.is_some() && from.port == to.port {
            return Question::default();
        }
        let subject = |end: End| end.port.and_then(|port| self.subject(port));
        let egress = subject(from).and_then(|subject| subject.egress).filter(|_| !self.is_node(to.ip));
        let by_node = from.port.is_none() && self.is_node(from.ip);
        let ingress = subject(to).and_then(|subject| subject.ingress).filter(|_| !by_node);
        Question {
            egress: egress.map(|set| (set, self.identity(to.ip))),
            ingress: ingress.map(|set| (set, self.identity(from.ip))),
        }
    }

    /// What the policies of the sender and of the receiver say: the rule that allows, or the one that does not; none if no policy isolates
    /// that end.
    pub fn ends(&self, question: &Question, class: u16) -> [Option<Result<Slot, Slot>>; 2] {
        let judge = |(set, identity)| self.judge(set, identity, class);
        [question.egress.map(judge), question.ingress.map(judge)]
    }

    /// What the policies of `port` say of a first packet in `direction`, with `peer` at the other end. None: they
    /// do not isolate it.
    pub fn direction(
        &self,
        port: u16,
        direction: PolicyType,
        peer: u128,
        class: u16,
    ) -> Option<Result<Slot, Slot>> {
        let subject = self.subject(port)?;
        Some(self.judge(subject.set(direction)?, self.identity(peer), class))
    }
}
