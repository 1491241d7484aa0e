//! From lists to tables. What they need is known before it is taken: each table is asked for by its shape.

use super::classes::{Services, Sources};
use super::cross::{Bits, Distinct, Table, add, cross, words_of};
use super::identities::{Identities, Term};
use super::{Chain, Chains, Compiled, Input, MEMORY_MAX, Placed, Ruling, Subject, Tier, applies, packed};
use crate::table::lpm::VALUE_MAX;
use hashbrown::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use switch_api::{AclRule, AclTier, PolicyType, Prefix};

/// Most bytes that sets of rules may take meanwhile. They are gone when the tables are made.
const MEANWHILE_MAX: usize = 64 << 20;
/// Most steps, each of which looks at up to 64 rules at once: so many take a core some tenths of a second, for which the control thread is held up.
const STEPS_MAX: usize = 1 << 27;

/// Why lists cannot be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// The tables would be too large.
    #[error("the access control lists would take at least {} MiB compiled, and {} MiB is the most", .0 >> 20, MEMORY_MAX >> 20)]
    Bytes(usize),
    /// Making them would.
    #[error("compiling the access control lists would take at least {} MiB meanwhile, and {} MiB is the most", .0 >> 20, MEANWHILE_MAX >> 20)]
    Meanwhile(usize),
    /// Making them would take too long.
    #[error("compiling the access control lists would take at least {} million steps, and {} million is the most", .0 / 1_000_000, STEPS_MAX / 1_000_000)]
    Steps(usize),
    /// There are too many different ports.
    #[error("the access control lists tell {0} ranges of ports apart, and {max} is the most", max = u16::MAX)]
    Classes(usize),
    /// There are too many kinds of addresses.
    #[error("the access control lists tell {0} kinds of addresses apart, and {VALUE_MAX} is the most")]
    Identities(usize),
}

/// What was taken so far.
#[derive(Debug, Default)]
pub(super) struct Budget {
    bytes: usize,
    steps: usize,
}

impl Budget {
    /// Asks for a table of numbers that is made of sets of so many words.
    pub fn take_table(&mut self, rows: usize, columns: usize, words: usize) -> Result<(), TooMuch> {
        self.take_steps(rows.saturating_mul(columns).saturating_mul(words.max(1)))?;
        self.take_bytes(rows * columns * size_of::<u32>())
    }

    fn take_bytes(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.bytes += bytes;
        if self.bytes > MEMORY_MAX { Err(TooMuch::Bytes(self.bytes)) } else { Ok(()) }
    }

    fn take_steps(&mut self, steps: usize) -> Result<(), TooMuch> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX { Err(TooMuch::Steps(self.steps)) } else { Ok(()) }
    }

    /// Whether there is room for so much that is given back.
    pub fn fits_meanwhile(&self, bytes: usize) -> Result<(), TooMuch> {
        if bytes > MEANWHILE_MAX { Err(TooMuch::Meanwhile(bytes)) } else { Ok(()) }
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
}

/// Rules that are asked together: a direction, lists by their places in the order, and whether staged rules are among them.
type Key = (PolicyType, Vec<usize>, bool);

/// Compiles.
pub fn compile(input: &Input) -> Result<Compiled, TooMuch> {
    let mut lists: Vec<&Placed> = input.acls.iter().collect();
    lists.sort_by_key(|placed| (placed.acl.tier, placed.acl.priority, &placed.acl.name));
    let (keys, mut subjects) = chains_of(input, &lists);
    if keys.is_empty() {
        return Ok(Compiled::default());
    }
    let chains: Vec<Vec<Rule>> = keys.iter().map(|key| rules_of(key, &lists)).collect();
    let epochs: Vec<u64> = chains.iter().map(|rules| epoch(rules)).collect();
    for subject in subjects.values_mut() {
        subject.epoch = epoch_of(subject, &epochs);
    }
    let shared = Shared::new(&chains)?;
    let mut budget = Budget::default();
    let by_identity = 2 * size_of::<u32>() * shared.identities.len();
    let by_class = size_of::<u32>() * (usize::from(shared.services.len) + usize::from(shared.sources.len));
    let own = shared.identities.bytes() + shared.services.bytes() + shared.sources.bytes();
    budget.take_bytes(own + chains.len() * (by_identity + by_class))?;
    let chains = chains.iter().map(|rules| chain(rules, &shared, &mut budget));
    let chains = chains.collect::<Result<Vec<_>, _>>()?;
    let Shared { identities, services, sources } = shared;
    let bytes = budget.bytes;
    Ok(Compiled { identities, services, sources, chains: chains.into(), subjects, bytes })
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
        };
        let (ingress, egress) = (chains(PolicyType::Ingress), chains(PolicyType::Egress));
        let subject = Subject { ingress, egress, epoch: 0 };
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
        chain.extend(rules.map(|(rule, slot)| Rule {
            rule,
            ruling: Ruling { slot, action: rule.action, staged: rule.staged, log: rule.log },
        }));
    }
    chain
}

/// A number made of all that a chain says.
fn epoch(rules: &[Rule]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rules.iter().for_each(|rule| rule.rule.hash(&mut hasher));
    hasher.finish()
}

fn epoch_of(subject: &Subject, epochs: &[u64]) -> u64 {
    let Subject { ingress, egress, .. } = subject;
    let tiers = [ingress.before, ingress.after, egress.before, egress.after];
    let epoch = |chain: Option<u32>| chain.map(|chain| epochs[chain as usize]);
    let mut hasher = DefaultHasher::new();
    tiers.map(|tier| (epoch(tier.enforced), epoch(tier.rehearsed))).hash(&mut hasher);
    // 0 is that nothing is said at all.
    hasher.finish() | 1
}

impl Shared {
    fn new(chains: &[Vec<Rule>]) -> Result<Self, TooMuch> {
        let rules = chains.iter().flatten().map(|rule| rule.rule);
        let prefixes = rules.clone().flat_map(|rule| rule.source.iter().chain(&rule.destination));
        let identities = Identities::new(prefixes)?;
        let most = Services::count(rules.clone()).max(Sources::count(rules.clone()));
        if most > usize::from(u16::MAX) {
            return Err(TooMuch::Classes(most));
        }
        let (services, sources) = (Services::new(rules.clone()), Sources::new(rules));
        Ok(Self { identities, services, sources })
    }
}

fn chain(rules: &[Rule], shared: &Shared, budget: &mut Budget) -> Result<Chain, TooMuch> {
    let Shared { identities, services, sources } = shared;
    let (source_rows, rows) = by_address(rules, identities, budget, |rule| &rule.source)?;
    let (destination_columns, columns) = by_address(rules, identities, budget, |rule| &rule.destination)?;
    let (ends, left) = cross(&rows, &columns, budget)?;
    let (service_rows, rows) = by_class(rules, services.len, budget, |rule| services.ranges(rule))?;
    let (source_port_columns, columns) = by_class(rules, sources.len, budget, |rule| sources.ranges(rule))?;
    let (words, right) = cross(&rows, &columns, budget)?;
    let said: Vec<u32> = rules.iter().map(|rule| packed(rule.ruling)).collect();
    let verdicts = Table::of_first(&left, &right, budget, &said)?;
    Ok(Chain { source_rows, destination_columns, ends, service_rows, source_port_columns, words, verdicts })
}

/// By identity, the rules that may be about a packet with such an address: which of the sets that occur, and these.
fn by_address(
    rules: &[Rule],
    identities: &Identities,
    budget: &mut Budget,
    side: impl Fn(&AclRule) -> &Vec<Prefix>,
) -> Result<(Box<[u32]>, Vec<Bits>), TooMuch> {
    let words = words_of(rules.len());
    budget.take_steps(identities.len() * words)?;
    let mut anybody = vec![0; words];
    let mut by_term: HashMap<Term, Vec<usize>> = HashMap::new();
    for (n, rule) in rules.iter().enumerate() {
        let prefixes = side(rule.rule);
        if prefixes.is_empty() {
            add(&mut anybody, n);
        }
        prefixes.iter().for_each(|prefix| by_term.entry(identities.term(prefix)).or_default().push(n));
    }
    let mut distinct = Distinct::default();
    let numbers = (0..identities.len()).map(|identity| {
        let mut bits = anybody.clone();
        let terms = identities.terms(identity).iter().filter_map(|term| by_term.get(term));
        terms.flatten().for_each(|rule| add(&mut bits, *rule));
        distinct.number(&bits)
    });
    Ok((numbers.collect(), distinct.all()))
}

/// The same by class of what else a packet has.
fn by_class(
    rules: &[Rule],
    len: u16,
    budget: &mut Budget,
    classes: impl Fn(&AclRule) -> Vec<Range<u16>>,
) -> Result<(Box<[u32]>, Vec<Bits>), TooMuch> {
    let (len, words) = (usize::from(len), words_of(rules.len()));
    budget.take_steps(len * words)?;
    budget.fits_meanwhile(len * words * size_of::<u64>())?;
    let mut sets = vec![vec![0; words]; len];
    for (n, rule) in rules.iter().enumerate() {
        for range in classes(rule.rule) {
            budget.take_steps(range.len())?;
            sets[usize::from(range.start)..usize::from(range.end)].iter_mut().for_each(|set| add(set, n));
        }
    }
    let mut distinct = Distinct::default();
    let numbers = sets.iter().map(|set| distinct.number(set)).collect();
    Ok((numbers, distinct.all()))
}
