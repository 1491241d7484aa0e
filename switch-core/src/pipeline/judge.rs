//! What both ends of a first packet say: lists of the tier `before`, then policies, or, if none of these isolates the port, lists of the tier
//! `after`. [`super::admit`] asks; who wants to know how many probes that takes asks the same, and counts ([`probed`]).

use crate::acl::{self, Chains, Header, Ruling, Tier};
use crate::config::gateway::is_link_local;
use crate::config::snapshot::{PortFacts, Snapshot};
use crate::counter::{Counters, DropReason};
use crate::policy::{self, Slot};
use crate::table::probes::{Counted, Probes, Uncounted};
use crate::wire::hop::V4_MAPPED;
use arrayvec::ArrayVec;
use std::cell::Cell;
use switch_api::AclAction;

/// Most probes for one first packet between addresses of IPv4, whatever is declared and however much of it: two ends, of each two tiers, of each tier
/// its rules in force, and those with staged ones among them. Policies are asked in the place of the second tier, and take fewer.
pub const V4_PROBES_MAX: u32 = 2 * 2 * 2 * acl::V4_PROBES_MAX;
/// The same of IPv6.
pub const PROBES_MAX: u32 = 2 * 2 * 2 * acl::PROBES_MAX;

const _: () =
    assert!(policy::PROBES_MAX < 2 * acl::PROBES_MAX && policy::V4_PROBES_MAX < 2 * acl::V4_PROBES_MAX);

/// Why a packet goes no further: the drop's name, and the rule that decided, if it was one. [`DropReason::AclRejected`]: its
/// sender is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The drop's name.
    pub reason: DropReason,
    /// The rule.
    pub slot: Option<Slot>,
}

impl From<DropReason> for Denied {
    fn from(reason: DropReason) -> Self {
        Self { reason, slot: None }
    }
}

/// The two ends of a first packet, as what is known of each is numbered.
pub(super) const SENDER: usize = 0;
/// See [`SENDER`].
pub(super) const RECEIVER: usize = 1;

/// What one end says of a first packet, as far as it was asked of a batch together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreseen {
    /// Its policies.
    pub policies: Option<Result<Slot, Slot>>,
    /// One chain of its lists, which is named.
    pub lists: Option<(u32, Option<Ruling>)>,
}

impl Foreseen {
    /// Nothing was asked.
    pub const NOTHING: Self = Self { policies: None, lists: None };

    /// What a chain says.
    #[inline(always)]
    fn of_chain(self, chain: u32) -> Option<Option<Ruling>> {
        self.lists.filter(|(asked, _)| *asked == chain).map(|(_, says)| says)
    }
}

/// Rules that may have decided about one packet: staged and in force, of two tiers, at two ends.
const RULINGS_MAX: usize = 8;

/// One packet being asked about.
pub(super) struct Asking<'a, P = Uncounted> {
    counters: &'a Counters,
    /// What was decided and is to be told.
    pub logged: ArrayVec<Ruling, RULINGS_MAX>,
    /// A rule allows it that keeps no flows.
    pub stateless: bool,
    /// It leaves by the port that it came in by. A pod always reaches itself, as far as policies go; lists are asked.
    pub itself: bool,
    /// What both ends say, as far as it is known before it is asked.
    pub foreseen: [Foreseen; 2],
    probes: P,
}

impl<'a> Asking<'a> {
    pub fn new(counters: &'a Counters) -> Self {
        Self::counting(counters, Uncounted)
    }
}

impl<'a, P> Asking<'a, P> {
    fn counting(counters: &'a Counters, probes: P) -> Self {
        let foreseen = [Foreseen::NOTHING; 2];
        Self { counters, logged: ArrayVec::new(), stateless: false, itself: false, foreseen, probes }
    }
}

/// What was said of a first packet, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Whether it passes.
    pub said: Result<(), Denied>,
    /// Probes that it took.
    pub probes: u32,
    /// Most that any packet takes between such addresses and these two ports, however many rules their policies and lists have.
    pub most: u32,
}

/// Asks what `admit` asks about a first packet, and counts probes. Rules count in `counters`.
pub fn probed(
    snapshot: &Snapshot,
    header: &Header,
    from: &PortFacts,
    to: &PortFacts,
    counters: &Counters,
) -> Probed {
    let probes = Cell::new(0);
    let mut asking = Asking::counting(counters, Counted(&probes));
    let said = egress_with(snapshot, header, from, Some(to), &mut asking);
    let said = said.and_then(|()| ingress_with(snapshot, header, from, to, &mut asking));
    let most = most(snapshot, header, (from.acl.egress, from.subject.egress))
        + most(snapshot, header, (to.acl.ingress, to.subject.ingress));
    Probed { said, probes: probes.get(), most }
}

/// Most probes at one end.
fn most(snapshot: &Snapshot, header: &Header, (lists, policies): (Chains, Option<u32>)) -> u32 {
    let is_v4 = header.ends.is_some_and(|[src, _]| src >> 32 == V4_MAPPED >> 32);
    let tier = |tier: Tier| {
        let chains = [tier.enforced, tier.rehearsed].into_iter().flatten();
        chains.map(|chain| snapshot.listed.probes_max(chain, is_v4)).sum::<u32>()
    };
    let policies = match policies {
        Some(_) if is_v4 => policy::V4_PROBES_MAX,
        Some(_) => policy::PROBES_MAX,
        None => 0,
    };
    tier(lists.before) + tier(lists.after).max(policies)
}

/// What both ends say of a first packet.
pub(super) fn both(
    snapshot: &Snapshot,
    header: &Header,
    from: &PortFacts,
    to: &PortFacts,
    asking: &mut Asking,
) -> Result<(), Denied> {
    egress(snapshot, header, from, Some(to), asking)?;
    ingress(snapshot, header, from, to, asking)
}

/// What the sender's lists and policies say. `to` is where it goes; none: it is flooded.
pub(super) fn egress(
    snapshot: &Snapshot,
    header: &Header,
    from: &PortFacts,
    to: Option<&PortFacts>,
    asking: &mut Asking,
) -> Result<(), Denied> {
    egress_with(snapshot, header, from, to, asking)
}

/// What the receiver's lists and policies say.
pub(super) fn ingress(
    snapshot: &Snapshot,
    header: &Header,
    from: &PortFacts,
    to: &PortFacts,
    asking: &mut Asking,
) -> Result<(), Denied> {
    ingress_with(snapshot, header, from, to, asking)
}

/// See [`egress`].
#[inline(always)]
fn egress_with<P: Probes>(
    snapshot: &Snapshot,
    header: &Header,
    from: &PortFacts,
    to: Option<&PortFacts>,
    asking: &mut Asking<P>,
) -> Result<(), Denied> {
    let policing = &snapshot.policing;
    let policed = from.subject.egress.zip(header.ends);
    // Policies are asked about an address: only who has it may be sent what they say of it, whatever MAC is on it.
    let is_another = |dst| !asking.itself && to.is_some_and(|to| !to.subject.may_be(dst)) && !is_of_link(dst);
    if policed.is_some_and(|(_, [_, dst])| is_another(dst)) {
        return Err(DropReason::PolicyDestination.into());
    }
    let lists = (SENDER, from.acl.egress, DropReason::DefaultEgress);
    in_order(snapshot, header, lists, asking, |asking| {
        let (set, [_, dst]) = policed?;
        // Whoever is no way to the node has nothing that is for the node. Of a flood each copy is asked about that.
        if asking.itself || policing.is_node(dst) && to.is_none_or(|to| to.is_node) {
            return Some(Ok(()));
        }
        Some(policies_of((SENDER, set, dst), snapshot, header, DropReason::PolicyEgress, asking))
    })
}

/// See [`ingress`].
#[inline(always)]
fn ingress_with<P: Probes>(
    snapshot: &Snapshot,
    header: &Header,
    from: &PortFacts,
    to: &PortFacts,
    asking: &mut Asking<P>,
) -> Result<(), Denied> {
    let policing = &snapshot.policing;
    // Who is the node: its own addresses count, and only where the node is.
    let is_node = |src| from.is_node && policing.is_node(src);
    let policed = to.subject.ingress.zip(header.ends);
    let poses = |src| !asking.itself && !is_node(src) && !from.subject.may_be(src);
    if policed.is_some_and(|(_, [src, _])| poses(src)) {
        return Err(DropReason::PolicySource.into());
    }
    let lists = (RECEIVER, to.acl.ingress, DropReason::DefaultIngress);
    in_order(snapshot, header, lists, asking, |asking| {
        let (set, [src, _]) = policed?;
        if asking.itself || is_node(src) {
            return Some(Ok(()));
        }
        Some(policies_of((RECEIVER, set, src), snapshot, header, DropReason::PolicyIngress, asking))
    })
}

/// Whether an address is one that stations give themselves (RFC 4291 §2.5.6, RFC 3927): no workload is declared with it, and rules that allow it,
/// by its network, mean whoever is on the link.
pub(super) fn is_of_link(ip: u128) -> bool {
    const V4: u128 = V4_MAPPED | 0xa9fe_0000;
    is_link_local(ip) || (ip ^ V4) >> 16 == 0
}

/// The tiers of one end: lists, then what policies say, if they say anything, else lists again; and if nobody says anything, the
/// port's default verdict.
#[inline]
fn in_order<P: Probes>(
    snapshot: &Snapshot,
    header: &Header,
    (end, lists, default): (usize, Chains, DropReason),
    asking: &mut Asking<P>,
    policies: impl FnOnce(&mut Asking<P>) -> Option<Result<(), Denied>>,
) -> Result<(), Denied> {
    if lists.before.is_some()
        && let Some(said) = listed(snapshot, header, (end, lists.before), asking)
    {
        return said;
    }
    if let Some(said) = policies(asking) {
        return said;
    }
    if lists.after.is_some()
        && let Some(said) = listed(snapshot, header, (end, lists.after), asking)
    {
        return said;
    }
    if lists.denies { Err(Denied { reason: default, slot: Some(acl::DEFAULT) }) } else { Ok(()) }
}

/// What a tier's lists say, if they decide. A staged rule that would have is counted.
#[inline(never)]
fn listed<P: Probes>(
    snapshot: &Snapshot,
    header: &Header,
    (end, tier): (usize, Tier),
    asking: &mut Asking<P>,
) -> Option<Result<(), Denied>> {
    let (lists, probes) = (&snapshot.listed, asking.probes);
    let would = lists.rehearse_with(tier, header, probes);
    let foreseen = asking.foreseen[end];
    let judge = |chain| match foreseen.of_chain(chain) {
        Some(says) => {
            debug_assert_eq!(says, lists.judge(chain, header), "{header:?}");
            says
        }
        None => lists.judge_with(chain, header, probes),
    };
    let does = tier.enforced.and_then(judge);
    for ruling in [would, does].into_iter().flatten() {
        if let Some(counter) = asking.counters.rule(ruling.slot) {
            counter.add(1);
        }
        // What stops is told of anyway.
        if ruling.log && (ruling.staged || !ruling.action.stops()) {
            _ = asking.logged.try_push(ruling);
        }
    }
    let ruling = does?;
    asking.stateless |= ruling.stateless;
    let denied = |reason| Some(Err(Denied { reason, slot: Some(ruling.slot) }));
    match ruling.action {
        AclAction::Allow => Some(Ok(())),
        AclAction::Deny => denied(DropReason::AclDenied),
        AclAction::Reject => denied(DropReason::AclRejected),
        AclAction::Pass => None,
    }
}

/// What a set of policies, that of one end, says of a packet from or to `peer`; `reason` is what it is if they deny it.
#[inline(always)]
fn policies_of<P: Probes>(
    (end, set, peer): (usize, u32, u128),
    snapshot: &Snapshot,
    header: &Header,
    reason: DropReason,
    asking: &Asking<P>,
) -> Result<(), Denied> {
    let (policing, probes) = (&snapshot.policing, asking.probes);
    let verdict = match asking.foreseen[end].policies {
        Some(says) => {
            let class = || policing.class(header.protocol, header.number);
            debug_assert_eq!(says, policing.judge(set, policing.identity(peer), class()), "{header:?}");
            says
        }
        None => {
            let identity = policing.identity_with(peer, probes);
            let class = policing.class_with(header.protocol, header.number, probes);
            policing.judge_with(set, identity, class, probes)
        }
    };
    count(verdict, asking.counters).map_err(|slot| Denied { reason, slot: Some(slot) })
}

fn count(verdict: Result<Slot, Slot>, counters: &Counters) -> Result<(), Slot> {
    let (Ok(slot) | Err(slot)) = verdict;
    if let Some(counter) = counters.rule(slot) {
        counter.add(1);
    }
    verdict.map(drop)
}
