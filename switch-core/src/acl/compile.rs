//! From lists to tables. What they need is known before it is taken: each table is asked for by its shape.

use super::classes::{Services, Sources};
use super::cross::{Bits, Distinct, cross, set_of, words_of};
use super::fields::{Field, Step};
use super::grow::{Grounds, Growth, Side, grown};
use super::identities::Identities;
use super::sets::{MemberChange, Set, Sets};
use super::table::{Cells, Grows, ROOM_MAX, Shape};
use super::{
    ADDRESSES_MEMORY_MAX, Chain, Chains, Compiled, Input, MEMORY_MAX, Placed, Ruling, Subject, Tier, applies,
    packed,
};
use crate::table::lpm::VALUE_MAX;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use switch_api::{AclRule, AclTier, Name, PolicyType};

/// Most bytes that sets of rules may take meanwhile, all that one chain is made of. They are gone when its tables are made.
pub(super) const MEANWHILE_MAX: usize = 64 << 20;
/// Most steps, each of which looks at up to 64 rules at once, or at 64 times as many of which none is meant: so many take a core some tenths of a
/// second, for which the control thread is held up.
const STEPS_MAX: usize = 1 << 27;

/// Most bytes of room that tables have for kinds of addresses to come, beside what they take: a quarter of that.
pub const ROOM_BYTES_MAX: usize = MEMORY_MAX / 4;

/// Why lists cannot be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// The tables would be too large.
    #[error("the access control lists would take at least {} MiB compiled, and {} MiB is the most", .0 >> 20, MEMORY_MAX >> 20)]
    Bytes(usize),
    /// What leads from addresses to them would be.
    #[error("the networks and address sets that access control lists name would take at least {} MiB to find an address in, and {} MiB is the most", .0 >> 20, ADDRESSES_MEMORY_MAX >> 20)]
    Addresses(usize),
    /// Making them would.
    #[error("compiling the access control lists would take at least {} MiB meanwhile, and {} MiB is the most", .0 >> 20, MEANWHILE_MAX >> 20)]
    Meanwhile(usize),
    /// Making them would take too long.
    #[error("compiling the access control lists would take at least {} million steps, and {} million is the most", .0 / 1_000_000, STEPS_MAX / 1_000_000)]
    Steps(usize),
    /// There are too many different ports.
    #[error("the access control lists tell {0} ranges of ports apart, and {max} is the most", max = u16::MAX)]
    Classes(usize),
    /// There are too many masks.
    #[error("the access control lists name {0} masks of MACs, and {max} is the most", max = super::fields::MAC_MASKS_MAX)]
    Masks(usize),
    /// There are too many kinds of addresses.
    #[error("the access control lists tell {0} kinds of addresses apart, and {VALUE_MAX} is the most")]
    Identities(usize),
}

/// What was taken so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget {
    bytes: usize,
    steps: usize,
    /// Bytes of sets of rules that the chain at hand is made of.
    meanwhile: usize,
    /// Bytes beside the tables that are kept for changes to come.
    grounds: usize,
    /// Bytes of the tables' room.
    room: usize,
}

impl Budget {
    /// Asks for a table of numbers. What it takes to find each of them is asked for as it is looked for.
    pub fn take_table(&mut self, shape: Shape) -> Result<(), TooMuch> {
        self.take_steps(shape.rows.saturating_mul(shape.columns))?;
        self.take_bytes(shape.bytes())
    }

    /// Bytes that the next table may have as room. It is not needed, for a table without is copied; each leaves the next some.
    pub fn room_left(&self) -> usize {
        ROOM_BYTES_MAX.saturating_sub(self.room) / 4
    }

    /// A table of a shape gets this room.
    pub fn take_room(&mut self, room: Shape, shape: Shape) -> Shape {
        self.room += shape.bytes_of_room(room);
        room
    }

    /// So much is room no more.
    pub fn give_room(&mut self, bytes: usize) {
        self.room -= bytes;
    }

    /// Whether there is room to keep so much for changes to come. It is not needed to look up: who has none compiles anew.
    fn take_grounds(&mut self, bytes: usize) -> bool {
        let fits = self.grounds + bytes <= MEANWHILE_MAX;
        self.grounds += if fits { bytes } else { 0 };
        fits
    }

    pub(super) fn take_bytes(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.bytes += bytes;
        if self.bytes > MEMORY_MAX { Err(TooMuch::Bytes(self.bytes)) } else { Ok(()) }
    }

    pub(super) fn take_steps(&mut self, steps: usize) -> Result<(), TooMuch> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX { Err(TooMuch::Steps(self.steps)) } else { Ok(()) }
    }

    /// Whether there is room for so much more that is given back.
    pub fn fits_meanwhile(&self, bytes: usize) -> Result<(), TooMuch> {
        let bytes = self.meanwhile + bytes;
        if bytes > MEANWHILE_MAX { Err(TooMuch::Meanwhile(bytes)) } else { Ok(()) }
    }

    /// So much is there until the chain at hand is made.
    pub fn hold_meanwhile(&mut self, bytes: usize) {
        self.meanwhile += bytes;
    }
}

/// A rule, and what it says.
#[derive(Clone, Copy, Debug)]
struct Rule<'a> {
    rule: &'a AclRule,
    ruling: Ruling,
}

/// Classes that all chains share.
struct Shared {
    identities: Identities,
    services: Services,
    sources: Sources,
    fields: Vec<Field>,
}

/// Rules that are asked together: a direction, lists by their places in the order, and whether staged rules are among them.
pub(super) type Key = (PolicyType, Vec<usize>, bool);

/// Compiles.
pub fn compile(input: &Input) -> Result<Compiled, TooMuch> {
    let lists = in_order(input);
    let (keys, mut subjects) = chains_of(input, &lists);
    if keys.is_empty() {
        return Ok(Compiled::without_rules(subjects));
    }
    let chains: Vec<Vec<Rule>> = keys.iter().map(|key| rules_of(key, &lists)).collect();
    let sayings: Vec<Saying> = chains.iter().map(|rules| Saying::of(rules)).collect();
    let stateless = say(&mut subjects, &sayings, input.sets);
    let shared = Shared::new(&chains, input.sets)?;
    let mut budget = Budget::default();
    let by_identity = 2 * size_of::<u32>() * shared.identities.len();
    let by_class = size_of::<u32>() * (usize::from(shared.services.len) + usize::from(shared.sources.len));
    let fields = shared.fields.iter().map(Field::bytes).sum::<usize>();
    let addresses = shared.identities.fits()?;
    let own = fields + shared.services.bytes() + shared.sources.bytes();
    budget.take_bytes(own + chains.len() * (by_identity + by_class))?;
    let chains = chains.iter().map(|rules| chain(rules, &shared, &mut budget).map(Arc::new));
    let chains = chains.collect::<Result<Vec<_>, _>>()?;
    let Shared { identities, services, sources, fields } = shared;
    let (services, sources) = (Arc::new(services), Arc::new(sources));
    let (bytes, room) = (budget.bytes + budget.room + addresses, budget.room);
    let (chains, sayings) = (chains.into(), sayings.into());
    let keys = Arc::new(keys.into_iter().zip(0..).collect());
    Ok(Compiled {
        keys,
        identities,
        services,
        sources,
        fields: fields.into(),
        chains,
        sayings,
        subjects: Arc::new(subjects),
        bytes,
        room,
        stateless,
    })
}

impl Compiled {
    /// Of ports that have default verdicts and nothing else.
    fn without_rules(mut subjects: HashMap<u16, Subject>) -> Self {
        subjects.values_mut().for_each(|subject| subject.epoch = epoch_of(subject, &[]));
        Self { subjects: Arc::new(subjects), ..Self::default() }
    }

    /// These after ports came, went, or have other labels, with the lists, the sets and the numbers of their rules as they were: it costs
    /// what there is of ports and lists, and not of rules. None: some port has lists together that none had, so that all is to be
    /// compiled anew.
    pub fn regrouped(&self, input: &Input) -> Option<Self> {
        let (keys, mut subjects) = chains_of(input, &in_order(input));
        if keys.is_empty() {
            return Some(Self::without_rules(subjects));
        }
        let numbers: Vec<u32> = keys.iter().map(|key| self.keys.get(key).copied()).collect::<Option<_>>()?;
        subjects.values_mut().for_each(|subject| subject.renumber(&numbers));
        let stateless = say(&mut subjects, &self.sayings, input.sets);
        Some(Self { subjects: Arc::new(subjects), stateless, ..self.clone() })
    }

    /// These after members of sets came and went, with the sets that there are now: it costs what the changes do. None: all is to be
    /// compiled anew.
    pub fn changed(&self, changes: &[MemberChange], sets: &Sets) -> Result<Option<Self>, TooMuch> {
        if self.chains.is_empty() {
            return Ok(Some(self.clone()));
        }
        let Some(identities) = self.identities.changed(changes)? else { return Ok(None) };
        let like = identities.like();
        // More never have room at once.
        if like.len() > ROOM_MAX {
            return Ok(None);
        }
        let addresses = identities.fits()?;
        let tables = self.bytes - self.room - self.identities.bytes();
        let mut budget = Budget { bytes: tables, room: self.room, ..Budget::default() };
        budget.take_bytes(self.chains.len() * 2 * size_of::<u32>() * like.len())?;
        let mut chains = self.chains.clone();
        if !like.is_empty() {
            let grown = self.chains.iter().map(|chain| grown(chain, &identities, like, &mut budget));
            let Ok(Some(all)) =
                grown.map(Result::transpose).collect::<Option<Result<Vec<_>, _>>>().transpose()
            else {
                return Ok(None);
            };
            chains = all.into_iter().map(Arc::new).collect();
        }
        let mut subjects = (*self.subjects).clone();
        number_epochs(&mut subjects, &self.sayings, sets);
        let (bytes, subjects) = (budget.bytes + budget.room + addresses, Arc::new(subjects));
        Ok(Some(Self { identities, chains, subjects, bytes, room: budget.room, ..self.clone() }))
    }

    /// Whether any rule names a set.
    pub fn names(&self, set: &Name) -> bool {
        self.sayings.iter().any(|saying| saying.sets.binary_search(set).is_ok())
    }
}

/// Lists in the order in which they are asked.
fn in_order<'a>(input: &'a Input) -> Vec<&'a Placed<'a>> {
    let mut lists: Vec<&Placed> = input.acls.iter().collect();
    lists.sort_by_key(|placed| (placed.acl.tier, placed.acl.priority, &placed.acl.name));
    lists
}

/// The chains there are, and which of them are each port's.
fn chains_of(input: &Input, lists: &[&Placed]) -> (Vec<Key>, HashMap<u16, Subject>) {
    let (mut numbers, mut keys) = (HashMap::<Key, u32>::new(), Vec::new());
    let mut number = |key: Key| {
        (!key.1.is_empty()).then(|| {
            *numbers.entry(key).or_insert_with_key(|key| {
                keys.push(key.clone());
                (keys.len() - 1) as u32
            })
        })
    };
    let mut subjects = HashMap::new();
    for port in &input.ports {
        let mine = lists.iter().enumerate().filter(|(_, list)| applies(list.acl, port, input.namespaces));
        let mine: Vec<(usize, &Placed)> = mine.map(|(n, list)| (n, *list)).collect();
        // Lists without a rule that counts are left out, so that the same rules are the same chain.
        let mut of = |direction: PolicyType, tier: AclTier, staged: bool| {
            let counts = |rule: &AclRule| staged || !rule.staged;
            let has = |(_, list): &&(usize, &Placed)| {
                list.acl.tier == tier && rules(list, direction).iter().any(counts)
            };
            number((direction, mine.iter().filter(has).map(|(n, _)| *n).collect(), staged))
        };
        let mut tier = |direction, tier| {
            let is_staged = |(_, list): &(usize, &Placed)| {
                list.acl.tier == tier && rules(list, direction).iter().any(|rule| rule.staged)
            };
            let rehearsed = mine.iter().any(is_staged).then(|| of(direction, tier, true)).flatten();
            Tier { enforced: of(direction, tier, false), rehearsed }
        };
        let mut chains = |direction| Chains {
            before: tier(direction, AclTier::Before),
            after: tier(direction, AclTier::After),
            denies: port.denies(direction),
        };
        let (ingress, egress) = (chains(PolicyType::Ingress), chains(PolicyType::Egress));
        let subject = Subject { ingress, egress, ..Subject::default() };
        if subject.is_listed() {
            subjects.insert(port.port, subject);
        }
    }
    (keys, subjects)
}

fn rules<'a>(list: &Placed<'a>, direction: PolicyType) -> &'a [AclRule] {
    match direction {
        PolicyType::Ingress => &list.acl.ingress,
        PolicyType::Egress => &list.acl.egress,
    }
}

fn rules_of<'a>((direction, lists, staged): &Key, all: &[&Placed<'a>]) -> Vec<Rule<'a>> {
    let mut chain = Vec::new();
    for list in lists.iter().map(|list| all[*list]) {
        let first = match direction {
            PolicyType::Ingress => list.slot,
            PolicyType::Egress => list.slot + list.acl.ingress.len() as u32,
        };
        let rules = rules(list, *direction).iter().zip(first..).filter(|(rule, _)| *staged || !rule.staged);
        chain.extend(rules.map(|(rule, slot)| Rule { rule, ruling: Ruling::of(slot, rule, list.acl) }));
    }
    chain
}

/// What a chain says: what its rules do, and whom those sets have that they name.
#[derive(Debug)]
pub(super) struct Saying {
    /// A number made of the rules.
    rules: u64,
    /// Sets that they name, by name.
    pub sets: Box<[Name]>,
    /// Some rule tells fragments from whole packets.
    fragments: bool,
    /// Some rule is about MACs or VLANs.
    frames: bool,
    /// Some rule allows without keeping flows.
    stateless: bool,
}

impl Saying {
    fn of(rules: &[Rule]) -> Self {
        let mut hasher = DefaultHasher::new();
        rules.iter().for_each(|rule| (rule.rule, rule.ruling.stateless).hash(&mut hasher));
        let named = rules.iter().flat_map(|rule| rule.rule.sets());
        let sets: BTreeSet<&Name> = named.collect();
        Self {
            rules: hasher.finish(),
            sets: sets.into_iter().cloned().collect(),
            fragments: rules.iter().any(|it| it.rule.fragment.is_some()),
            frames: rules.iter().any(|it| is_about_frames(it.rule)),
            stateless: rules.iter().any(|it| it.ruling.stateless),
        }
    }

    fn epoch(&self, sets: &Sets) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.rules.hash(&mut hasher);
        self.sets.iter().for_each(|set| sets.get(set).map_or(0, Set::digest).hash(&mut hasher));
        hasher.finish()
    }
}

/// Whether a rule asks in which frame a packet comes.
fn is_about_frames(rule: &AclRule) -> bool {
    !rule.vlan.is_empty() || !rule.source_mac.is_empty() || !rule.destination_mac.is_empty()
}

/// Tells every port what its chains say. Whether some rule allows without keeping flows.
fn say(subjects: &mut HashMap<u16, Subject>, sayings: &[Saying], sets: &Sets) -> bool {
    number_epochs(subjects, sayings, sets);
    for subject in subjects.values_mut() {
        let any = |is: fn(&Saying) -> bool| subject.all().any(|chain| is(&sayings[chain as usize]));
        let asks = |chains: Chains| {
            let mut decide = [chains.before.enforced, chains.after.enforced].into_iter().flatten();
            decide.any(|chain| sayings[chain as usize].frames)
        };
        let facts = [any(|it| it.fragments), any(|it| it.stateless)];
        let frames = [subject.ingress, subject.egress].map(asks);
        [subject.fragments, subject.stateless] = facts;
        [subject.ingress_frames, subject.egress_frames] = frames;
    }
    subjects.values().any(|subject| subject.stateless)
}

/// Gives every port the number of all that is said of it.
fn number_epochs(subjects: &mut HashMap<u16, Subject>, sayings: &[Saying], sets: &Sets) {
    let epochs: Vec<u64> = sayings.iter().map(|saying| saying.epoch(sets)).collect();
    for subject in subjects.values_mut() {
        subject.epoch = epoch_of(subject, &epochs);
    }
}

fn epoch_of(subject: &Subject, epochs: &[u64]) -> u64 {
    let epoch = |chain: Option<u32>| chain.map(|chain| epochs[chain as usize]);
    let mut hasher = DefaultHasher::new();
    subject.tiers().map(|tier| (epoch(tier.enforced), epoch(tier.rehearsed))).hash(&mut hasher);
    (subject.ingress.denies, subject.egress.denies).hash(&mut hasher);
    // 0 is that nothing is said at all.
    hasher.finish() | 1
}

impl Shared {
    fn new(chains: &[Vec<Rule>], sets: &Sets) -> Result<Self, TooMuch> {
        let rules = chains.iter().flatten().map(|rule| rule.rule);
        let prefixes = rules.clone().flat_map(|rule| rule.source.iter().chain(&rule.destination));
        let named: BTreeSet<&Name> = rules.clone().flat_map(AclRule::sets).collect();
        let sets: Vec<_> = named.into_iter().filter_map(|name| Some((name, sets.get(name)?))).collect();
        let identities = Identities::new(prefixes, &sets)?;
        let most = Services::count(rules.clone()).max(Sources::count(rules.clone()));
        if most > usize::from(u16::MAX) {
            return Err(TooMuch::Classes(most));
        }
        let fields = Field::all(rules.clone())?;
        let (services, sources) = (Services::new(rules.clone()), Sources::new(rules));
        Ok(Self { identities, services, sources, fields })
    }
}

fn chain(rules: &[Rule], shared: &Shared, budget: &mut Budget) -> Result<Chain, TooMuch> {
    let Shared { identities, services, sources, fields } = shared;
    budget.meanwhile = 0;
    let about = rules.iter().map(|rule| rule.rule);
    let mut source = Side::of(rules.len(), about.clone().map(|it| (&it.source, &it.source_sets)), identities);
    let mut destination =
        Side::of(rules.len(), about.map(|it| (&it.destination, &it.destination_sets)), identities);
    let source_rows = by_address(&mut source, identities, budget)?;
    let destination_columns = by_address(&mut destination, identities, budget)?;
    let (ends, left) = cross(&source.distinct.all(), &destination.distinct.all(), budget)?;
    let (service_rows, rows) = by_class(rules, services.len, budget, |rule| services.ranges(rule))?;
    let (source_port_columns, columns) = by_class(rules, sources.len, budget, |rule| sources.ranges(rule))?;
    let (words, mut right) = cross(&rows, &columns, budget)?;
    let mut further = Vec::new();
    for (n, field) in
        fields.iter().enumerate().filter(|(_, field)| rules.iter().any(|it| field.is_named(it.rule)))
    {
        let (columns, sets) = by_class(rules, field.len(), budget, |rule| field.ranges(rule))?;
        let (table, both) = cross(&right.all(), &sets, budget)?;
        further.push(Step { field: n, columns, table: table.table(Grows::default(), budget) });
        right = both;
    }
    let (right, said) = (right.all(), rules.iter().map(|rule| packed(rule.ruling)).collect::<Vec<u32>>());
    let verdicts = Cells::of_first(&left.sets, &right, budget, &said)?;
    // Only sets have other addresses without other rules.
    let has_sets = |of: fn(&AclRule) -> &Vec<Name>| rules.iter().any(|it| !of(it.rule).is_empty());
    let grows =
        Grows { rows: has_sets(|rule| &rule.source_sets), columns: has_sets(|rule| &rule.destination_sets) };
    let mut grounds = Grounds { source, destination, left, right: right.into(), said: said.into() };
    grounds.share();
    let growth = match grows.rows || grows.columns {
        false => Growth::Alike,
        true if budget.take_grounds(grounds.bytes()) => Growth::From(Arc::new(grounds)),
        true => Growth::Anew,
    };
    let grows = if matches!(growth, Growth::From(_)) { grows } else { Grows::default() };
    let ends = ends.table(grows, budget);
    let verdicts = verdicts.table(Grows { rows: grows.rows || grows.columns, columns: false }, budget);
    let words = words.table(Grows::default(), budget);
    let (service_rows, source_port_columns) = (service_rows.into(), source_port_columns.into());
    Ok(Chain {
        source_rows,
        destination_columns,
        ends,
        service_rows,
        source_port_columns,
        words,
        further: further.into(),
        verdicts,
        growth,
    })
}

/// By identity, which of the sets of rules that occur may be about a packet with such an address.
fn by_address(side: &mut Side, identities: &Identities, budget: &mut Budget) -> Result<Box<[u32]>, TooMuch> {
    let number = |identity| Ok(side.number(identities.terms(identity), budget)?.0);
    let rows = (0..identities.len()).map(number).collect();
    budget.hold_meanwhile(side.distinct.bytes());
    rows
}

/// The same by class of what else a packet has.
fn by_class(
    rules: &[Rule],
    len: u16,
    budget: &mut Budget,
    classes: impl Fn(&AclRule) -> Vec<Range<u16>>,
) -> Result<(Box<[u32]>, Vec<Bits>), TooMuch> {
    // Where rules begin to be meant, and where they end.
    let mut turns: Vec<(u16, bool, u32)> = Vec::new();
    for (n, rule) in (0u32..).zip(rules) {
        let ranges = classes(rule.rule).into_iter();
        turns.extend(ranges.flat_map(|range| [(range.start, true, n), (range.end, false, n)]));
    }
    budget.take_steps(turns.len())?;
    budget.fits_meanwhile(size_of_val(&*turns))?;
    turns.sort_unstable();
    let mut turns = turns.into_iter().peekable();
    // Of each rule, how many of its ranges the class at hand is in: they may lie over each other.
    let (mut depths, mut words) = (vec![0u32; rules.len()], vec![0u64; words_of(rules.len())]);
    let (mut distinct, mut set) = (Distinct::default(), Vec::new());
    let (mut numbers, mut number) = (Vec::with_capacity(usize::from(len)), 0);
    for class in 0..len {
        let is_turn = turns.peek().is_some_and(|(at, ..)| *at == class);
        while let Some((_, begins, rule)) = turns.next_if(|(at, ..)| *at == class) {
            let (rule, depth) = (rule as usize, &mut depths[rule as usize]);
            *depth = if begins { *depth + 1 } else { *depth - 1 };
            let bit = 1 << (rule % 64);
            words[rule / 64] = if *depth > 0 { words[rule / 64] | bit } else { words[rule / 64] & !bit };
        }
        if is_turn || class == 0 {
            budget.take_steps(words.len())?;
            set_of(&words, &mut set);
            number = distinct.number(&set);
            budget.fits_meanwhile(distinct.bytes())?;
        }
        numbers.push(number);
    }
    budget.hold_meanwhile(distinct.bytes());
    Ok((numbers.into(), distinct.all()))
}
