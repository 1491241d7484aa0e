//! Access control lists, from ordered rules to tables: one pure function of (lists, ports, namespaces) that
//! [`compile::compile`] is, and the lookup in what comes of it.
//!
//! # What a lookup does
//! Source and destination → an *identity* each, by longest prefix: two addresses of which every rule thinks the same have
//! one. Protocol and destination port (or ICMP type and code) → a *service*, source port → another class, by one look
//! into a table each. Then the [`Chain`] of the port, its direction and the tier: the two identities meet in one table,
//! the two classes in another, what comes of both in a third, and there stands the rule that decides (recursive flow
//! classification, ADR 0022). That is two walks of the prefix tables and nine reads, whatever the number of rules: [`PROBES_MAX`].
//!
//! | module | what |
//! |---|---|
//! | [`check`] | what is wrong with a list, in sentences |
//! | [`classes`] | classes of services and of source ports |
//! | [`fields`] | classes of what else a packet has: TCP flags, fragments, MACs, VLANs |
//! | [`each`] | what is said of a batch, together |
//! | [`identities`] | classes of addresses |
//! | [`sets`] | address sets, as they are declared |
//! | [`grow`] | tables that grow by a kind of address |
//! | [`cross`] | two classifications become one |
//! | [`table`], [`numbered`] | what they are made of, shared by a version and the next |
//! | [`plain`] | the dull twin: what tests and fuzzing hold the tables against |
//! | [`world`] | lists and policies together |
//! | [`compile`] | the tables, and the memory they need before it is taken |

pub mod check;
mod classes;
pub mod compile;
mod cross;
mod each;
pub(crate) mod fields;
mod grow;
mod identities;
#[cfg(not(loom))]
#[cfg(test)]
mod many_tests;
mod numbered;
pub mod plain;
pub mod sets;
mod table;
#[cfg(not(loom))]
#[cfg(test)]
mod tests;
pub mod world;

use crate::policy::Slot;
use crate::table::lpm;
use crate::table::probes::{self, Probes, Uncounted};
use crate::wire::ip::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::wire::packet::flags::SYN;
use classes::{Services, Sources};
pub use each::Asked;
use fields::Field;
use hashbrown::HashMap;
use identities::Identities;
use std::collections::BTreeMap;
use std::sync::Arc;
use switch_api::{Acl, AclAction, AclRule, DefaultVerdicts, Labels, Name, PolicyType, Verdict, Workload};

/// Most lists: of an administrator and of who manages a node for him, not one for each pod of a cluster.
pub const ACLS_MAX: usize = 4096;
/// Most networks, ports and ICMP types that one rule names, each: more of them are several rules.
pub const RULE_ITEMS_MAX: usize = 1024;
/// Most bytes that compiled lists may take, so that an edge node with 1 GiB lives while the old tables and the new ones are
/// both there.
pub const MEMORY_MAX: usize = 128 << 20;

/// Most bytes that networks and members of sets may take beside that, to find an address in: a full set of IPv6 addresses that have nothing in
/// common takes 150 MiB (1.6 KiB each), one of IPv4 60. A change of members shares what it does not change: old and new are not both
/// there.
pub const ADDRESSES_MEMORY_MAX: usize = 256 << 20;

/// Most probes for what a chain says of one packet between addresses of IPv4, however many rules it has: those of two identities, an entry each of
/// both ends' rows and columns, of both classes, theirs, and of three tables, and what further fields take.
pub const V4_PROBES_MAX: u32 = chain_probes_max(lpm::V4_PROBES_MAX, FIELDS_PROBES_MAX);
/// The same of IPv6.
pub const PROBES_MAX: u32 = chain_probes_max(lpm::PROBES_MAX, FIELDS_PROBES_MAX);
/// TCP flags and fragments, each a column and an entry; VLANs and each mask of MACs, with a class of their own.
const FIELDS_PROBES_MAX: u32 = 2 * 2 + 3 * (1 + fields::MAC_MASKS_MAX as u32);

const fn chain_probes_max(identity: u32, fields: u32) -> u32 {
    2 * identity + 9 + fields
}

/// Stands where a rule is named for the default verdict of a port; no rule has it, and nothing is counted by it.
pub const DEFAULT: Slot = Slot::MAX;

/// A declared list, and the first of its slots: its ingress rules, then its egress rules.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// The list.
    pub acl: &'a Acl,
    /// See [`slots_of`].
    pub slot: Slot,
}

/// A port that lists may be for.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its number.
    pub port: u16,
    /// Its name.
    pub name: &'a Name,
    /// What it is to labels.
    pub workload: Option<&'a Workload>,
    /// What becomes of what nobody decides.
    pub defaults: DefaultVerdicts,
}

impl Candidate<'_> {
    /// Whether what nobody decides in a direction is denied.
    fn denies(&self, direction: PolicyType) -> bool {
        let verdict = match direction {
            PolicyType::Ingress => self.defaults.ingress,
            PolicyType::Egress => self.defaults.egress,
        };
        verdict == Verdict::Deny
    }
}

/// All that is compiled.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// By name.
    pub acls: Vec<Placed<'a>>,
    /// Ports there are.
    pub ports: Vec<Candidate<'a>>,
    /// Labels of namespaces that have any.
    pub namespaces: &'a BTreeMap<String, Labels>,
    /// Address sets there are.
    pub sets: &'a sets::Sets,
}

/// How many slots a list has: one for each rule.
pub fn slots_of(acl: &Acl) -> u32 {
    (acl.ingress.len() + acl.egress.len()) as u32
}

/// The name of a list's rule, by its place among the list's slots.
pub fn rule_name(acl: &Acl, place: u32) -> String {
    let ingress = acl.ingress.len() as u32;
    match place < ingress {
        true => format!("acl {} ingress {}", acl.name, place + 1),
        false => format!("acl {} egress {}", acl.name, place - ingress + 1),
    }
}

/// Whether a list is for a port.
pub fn applies(acl: &Acl, port: &Candidate, namespaces: &BTreeMap<String, Labels>) -> bool {
    let to = &acl.applies_to;
    let by_labels = to.workloads.as_ref().zip(port.workload).is_some_and(|(wanted, workload)| {
        crate::policy::selects(&wanted.pod_selector, &workload.labels)
            && crate::policy::selects_namespace(&wanted.namespace_selector, &workload.namespace, namespaces)
    });
    to.all || to.ports.contains(port.name) || by_labels
}

/// What a first packet is to rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source and destination, IPv4 IPv4-mapped; none: it is not IP.
    pub ends: Option<[u128; 2]>,
    /// Protocol of the transport header.
    pub protocol: u8,
    /// Source port; none: it has none, or it is a later fragment and its first was not seen.
    pub source_port: Option<u16>,
    /// Destination port, or ICMP type (high byte) and code.
    pub number: Option<u16>,
    /// TCP flags; none: it is not TCP, or a later fragment.
    pub flags: Option<u8>,
    /// Which part of a packet it is.
    pub part: Part,
    /// The frame that it came in by; none: nobody knows any more.
    pub frame: Option<FrameHead>,
}

/// Which part of an IP packet a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// The first fragment.
    First,
    /// A later one.
    Later,
}

/// What a frame says of itself as it comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Source and destination, in the low 48 bits.
    pub macs: [u64; 2],
    /// Its VLAN.
    pub vlan: u16,
}

impl Header {
    /// What is not IP.
    pub const NOT_IP: Self = Self {
        ends: None,
        protocol: 0,
        source_port: None,
        number: None,
        flags: None,
        part: Part::Whole,
        frame: None,
    };

    /// Of a packet whose ports and ICMP type are known: a whole one, which begins a connection if it is TCP.
    pub fn new(ends: [u128; 2], protocol: u8, ports: [u16; 2], icmp: [u8; 2]) -> Self {
        let is_v4 = ends[0] >> 32 == crate::wire::hop::V4_MAPPED >> 32;
        let (source_port, number) = match protocol {
            TCP | UDP | SCTP => (Some(ports[0]), Some(ports[1])),
            // Crossed over they are some protocol.
            ICMP if is_v4 => (None, Some(u16::from_be_bytes(icmp))),
            ICMPV6 if !is_v4 => (None, Some(u16::from_be_bytes(icmp))),
            _ => (None, None),
        };
        let flags = (protocol == TCP).then_some(SYN);
        Self { ends: Some(ends), protocol, source_port, number, flags, ..Self::NOT_IP }
    }

    /// The question that this packet answers: as its flow's originator sent it.
    pub fn turned(self) -> Self {
        let ends = self.ends.map(|[src, dst]| [dst, src]);
        let turned = |frame: FrameHead| FrameHead { macs: [frame.macs[1], frame.macs[0]], ..frame };
        let frame = self.frame.map(turned);
        match self.protocol {
            ICMP | ICMPV6 => {
                let number = self.number.map(|number| {
                    let [kind, code] = number.to_be_bytes();
                    u16::from_be_bytes([question(self.protocol, kind), code])
                });
                Self { ends, number, frame, ..self }
            }
            _ => Self { ends, source_port: self.number, number: self.source_port, frame, ..self },
        }
    }
}

/// What an ICMP answer answers: echo, timestamp, information, address mask (RFC 792, RFC 950, RFC 4443).
fn question(protocol: u8, kind: u8) -> u8 {
    match (protocol, kind) {
        (ICMP, 0) => 8,
        (ICMP, 14 | 16 | 18) => kind - 1,
        (ICMPV6, 129) => 128,
        _ => kind,
    }
}

/// The chains of one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tier {
    /// Rules that decide; none: there are none.
    pub enforced: Option<u32>,
    /// The same with staged rules among them; none: there are none of these.
    pub rehearsed: Option<u32>,
}

impl Tier {
    /// Whether any rule belongs to it.
    #[inline(always)]
    pub fn is_some(&self) -> bool {
        self.enforced.is_some() || self.rehearsed.is_some()
    }
}

/// The chains of one direction of a port, by tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chains {
    /// Asked before network policies.
    pub before: Tier,
    /// Asked where none of them isolates.
    pub after: Tier,
    /// What nobody decides is denied.
    pub denies: bool,
}

impl Chains {
    /// Whether any list has rules for this direction, or its default verdict is not that everything passes.
    #[inline(always)]
    pub fn is_some(&self) -> bool {
        self.before.is_some() || self.after.is_some() || self.denies
    }
}

/// What lists are to one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// About what it is sent.
    pub ingress: Chains,
    /// About what it sends.
    pub egress: Chains,
    /// A number made of all that the rules say: another one means that they say something else; 0: no rule says anything.
    pub epoch: u64,
    /// Rules tell fragments from whole packets: those of a known flow are asked about.
    pub fragments: bool,
    /// Rules about what it is sent ask for MACs or VLANs: of a packet that is not at hand nobody knows what they would say.
    pub ingress_frames: bool,
    /// So do rules about what it sends.
    pub egress_frames: bool,
    /// Rules allow without keeping flows.
    pub stateless: bool,
}

impl Subject {
    /// Whether any list has rules for it, or nothing passes by default.
    pub fn is_listed(&self) -> bool {
        self.ingress.is_some() || self.egress.is_some()
    }

    /// All its tiers.
    fn tiers(&self) -> [Tier; 4] {
        [self.ingress.before, self.ingress.after, self.egress.before, self.egress.after]
    }

    /// All its chains.
    fn all(&self) -> impl Iterator<Item = u32> + use<> {
        self.tiers().into_iter().flat_map(|tier| [tier.enforced, tier.rehearsed]).flatten()
    }

    /// Gives its chains the numbers that theirs stand for.
    fn renumber(&mut self, numbers: &[u32]) {
        for chains in [&mut self.ingress, &mut self.egress] {
            for tier in [&mut chains.before, &mut chains.after] {
                let chains = [&mut tier.enforced, &mut tier.rehearsed];
                chains.into_iter().flatten().for_each(|chain| *chain = numbers[*chain as usize]);
            }
        }
    }

    /// The chains of a direction.
    pub fn chains(&self, direction: PolicyType) -> Chains {
        match direction {
            PolicyType::Ingress => self.ingress,
            PolicyType::Egress => self.egress,
        }
    }
}

/// What a chain says of a packet: which rule, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The rule.
    pub slot: Slot,
    /// What it does.
    pub action: AclAction,
    /// It only would.
    pub staged: bool,
    /// It is to be told of.
    pub log: bool,
    /// No flow is to be kept of what it allows.
    pub stateless: bool,
}

impl Ruling {
    /// What a rule of a list says.
    fn of(slot: Slot, rule: &AclRule, list: &Acl) -> Self {
        let stateless = rule.action == AclAction::Allow && (rule.stateless || list.stateless);
        Self { slot, action: rule.action, staged: rule.staged, log: rule.log, stateless }
    }
}

/// Bits of a verdict that say what the rule does; 0: there is no rule.
const ACTION_BITS: u32 = 3;
/// The rule is staged.
const STAGED: u32 = 1 << ACTION_BITS;
/// What it decides is to be told of.
const LOG: u32 = STAGED << 1;
/// No flow is kept of it.
const STATELESS: u32 = LOG << 1;
/// Where the slot begins.
const SLOT_AT: u32 = ACTION_BITS + 3;

const _: () = assert!(crate::policy::RULES_MAX <= 1 << (32 - SLOT_AT));

/// The rules of one direction and tier that are for the same ports, in their order.
#[derive(Clone, Debug)]
struct Chain {
    /// By identity.
    source_rows: Box<[u32]>,
    /// By identity.
    destination_columns: Box<[u32]>,
    ends: table::Table,
    /// By class of service.
    service_rows: Arc<[u32]>,
    /// By class of source port.
    source_port_columns: Arc<[u32]>,
    words: table::Table,
    /// Other fields that its rules name, each with what it makes of the class so far.
    further: Arc<[fields::Step]>,
    /// Slot and action of the rule that decides; 0: none does.
    verdicts: table::Table,
    growth: grow::Growth,
}

/// Compiled lists.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    identities: Identities,
    services: Arc<Services>,
    sources: Arc<Sources>,
    fields: Arc<[Field]>,
    chains: Arc<[Arc<Chain>]>,
    /// By chain.
    sayings: Arc<[compile::Saying]>,
    /// Which chain has the rules of which lists.
    keys: Arc<HashMap<compile::Key, u32>>,
    subjects: Arc<HashMap<u16, Subject>>,
    /// Some rule allows without keeping flows.
    pub stateless: bool,
    /// Bytes that it takes.
    pub bytes: usize,
    /// Those of them that are room for kinds of addresses to come.
    room: usize,
}

impl Compiled {
    /// Whether no port has any rule, and everything passes by default.
    pub fn is_idle(&self) -> bool {
        self.subjects.is_empty()
    }

    /// What lists are to a port.
    pub fn subject(&self, port: u16) -> Subject {
        self.subjects.get(&port).copied().unwrap_or_default()
    }

    /// What the staged rules of a tier would have decided, were they in force.
    #[inline]
    pub fn rehearse(&self, tier: Tier, header: &Header) -> Option<Ruling> {
        self.rehearse_with(tier, header, Uncounted)
    }

    /// The same with whoever counts.
    #[inline]
    pub fn rehearse_with(&self, tier: Tier, header: &Header, probes: impl Probes) -> Option<Ruling> {
        self.judge_with(tier.rehearsed?, header, probes).filter(|ruling| ruling.staged)
    }

    /// What a chain says of a packet: the first rule that is about it, if there is one.
    #[inline]
    pub fn judge(&self, chain: u32, header: &Header) -> Option<Ruling> {
        self.judge_with(chain, header, Uncounted)
    }

    /// The same with whoever counts.
    #[inline]
    pub fn judge_with(&self, chain: u32, header: &Header, probes: impl Probes) -> Option<Ruling> {
        let identities = match header.ends {
            Some(ends) => ends.map(|ip| self.identities.of(ip, probes)),
            None => [identities::NOBODY as u32; 2],
        };
        self.judge_as(chain, identities, header, probes)
    }

    /// Most probes that a chain takes for a packet between such addresses, with the fields that its rules name.
    pub fn probes_max(&self, chain: u32, is_v4: bool) -> u32 {
        let steps = self.chains[chain as usize].further.iter();
        let fields = steps.map(|step| 2 + u32::from(self.fields[step.field].is_looked_up())).sum();
        chain_probes_max(if is_v4 { lpm::V4_PROBES_MAX } else { lpm::PROBES_MAX }, fields)
    }

    /// The same of a packet between two such addresses.
    #[inline(always)]
    fn judge_as(
        &self,
        chain: u32,
        identities: [u32; 2],
        header: &Header,
        probes: impl Probes,
    ) -> Option<Ruling> {
        let chain = &self.chains[chain as usize];
        let [source, destination] = identities.map(|identity| identity as usize);
        let service = usize::from(self.services.of(header, probes));
        let source_port = usize::from(self.sources.of(header.source_port, probes));
        let row = probes::at(&chain.source_rows, source, probes);
        let column = probes::at(&chain.destination_columns, destination, probes);
        let ends = chain.ends.read(row, column, probes);
        let row = probes::at(&chain.service_rows, service, probes);
        let column = probes::at(&chain.source_port_columns, source_port, probes);
        let words = chain.words.read(row, column, probes);
        let further = chain.further.iter();
        let words = further.fold(words, |words, step| step.at(words, &self.fields, header, probes));
        ruling(chain.verdicts.read(ends, words, probes))
    }
}

/// What a verdict of a table says.
#[inline(always)]
fn ruling(verdict: u32) -> Option<Ruling> {
    let action = match verdict & ((1 << ACTION_BITS) - 1) {
        0 => return None,
        1 => AclAction::Allow,
        2 => AclAction::Deny,
        3 => AclAction::Pass,
        _ => AclAction::Reject,
    };
    let is = |bit: u32| verdict & bit != 0;
    let (staged, log, stateless) = (is(STAGED), is(LOG), is(STATELESS));
    Some(Ruling { slot: verdict >> SLOT_AT, action, staged, log, stateless })
}

/// A verdict as it stands in a table.
fn packed(ruling: Ruling) -> u32 {
    let action = match ruling.action {
        AclAction::Allow => 1,
        AclAction::Deny => 2,
        AclAction::Pass => 3,
        AclAction::Reject => 4,
    };
    let flag = |is: bool, bit| if is { bit } else { 0 };
    let flags = flag(ruling.log, LOG) | flag(ruling.staged, STAGED) | flag(ruling.stateless, STATELESS);
    ruling.slot << SLOT_AT | flags | action
}
