//! From words to tables. What they need is known before it is taken: of each set its shape first, then its matrix, and all together never
//! more than there may be.

use super::budget::{Budget, MEANWHILE_MAX, STEPS_MAX};
use super::kinds::Kinds;
use super::ports::{Classes, Ports};
use super::terms::{self, ANYBODY_ID, Identities, Members, Term, Terms, Whom};
use super::{Compiled, Input, MEMORY_MAX, Placed, Pod, Set, Slot, Subject, select};
use crate::table::lpm::VALUE_MAX;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use switch_api::{NamedPort, Peer, PolicyPort, PolicyType, PortRef};

/// Why policies cannot be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// The tables would be too large.
    #[error("the policies would take at least {} MiB compiled, and {} MiB is the most", .0 >> 20, MEMORY_MAX >> 20)]
    Bytes(usize),
    /// Making them would.
    #[error("compiling the policies would take at least {} MiB meanwhile, and {} MiB is the most", .0 >> 20, MEANWHILE_MAX >> 20)]
    Meanwhile(usize),
    /// Making them would take too long.
    #[error("compiling the policies would take at least {} million steps, and {} million is the most", .0 / 1_000_000, STEPS_MAX / 1_000_000)]
    Steps(usize),
    /// There are too many different ports.
    #[error("the policies tell {0} ranges of ports apart, and {max} is the most", max = u16::MAX)]
    Classes(usize),
    /// There are too many kinds of addresses.
    #[error("the policies tell {0} kinds of addresses apart, and {VALUE_MAX} is the most")]
    Identities(usize),
}

/// One thing that a rule allows.
#[derive(Clone, Copy, Debug)]
struct Entry {
    term: u32,
    ports: Ports,
    slot: Slot,
}

/// What is known of a set before its matrix is made.
#[derive(Debug)]
struct Shape {
    entries: Vec<Entry>,
    denied: Slot,
    /// By identity.
    rows: Vec<u32>,
    /// The terms of each row.
    row_terms: Vec<Vec<u32>>,
    columns: Columns,
}

/// A set's columns.
#[derive(Debug)]
struct Columns {
    by_class: Vec<u16>,
    len: usize,
    /// Those of each kind of ports.
    of: HashMap<Ports, Vec<u16>>,
}

/// Sets that are the same are made once: who has the same policies, and calls its ports the same.
type Key<'a> = (PolicyType, Vec<usize>, Option<&'a [NamedPort]>);

/// Compiles. Of several rules that allow the same, the one with the lowest slot is named and counted.
pub fn compile(input: &Input) -> Result<Compiled, TooMuch> {
    compile_after(input, &Compiled::default())
}

/// Compiles what says the same, and shares with what was in force before what is the same there.
pub fn compile_after(input: &Input, before: &Compiled) -> Result<Compiled, TooMuch> {
    let mut node = input.node.clone();
    node.sort_unstable();
    let mut subjects: HashMap<u16, Subject> =
        input.pods.iter().map(|pod| (pod.port, workload(pod))).collect();
    if input.policies.is_empty() || input.pods.is_empty() {
        return Ok(Compiled { subjects, node: node.into(), ..Compiled::default() });
    }
    let (mut all, kinds, mut budget) = (Terms::new(), Kinds::new(input), Budget::default());
    let sets = sets_of(input, &kinds, &mut all, &mut subjects, &mut budget)?;
    let members = Members::new(&all, input, &kinds, &mut budget)?;
    let fingerprints = terms::fingerprints(&all, &members);
    let identities = Identities::new(&all, &members, &before.by_address, &mut budget)?;
    let ports: Vec<Ports> = sets.iter().flat_map(|(entries, _)| entries.iter().map(|it| it.ports)).collect();
    let classes = Classes::new(&ports)?;
    drop(ports);
    let epochs: Vec<u64> = sets.iter().map(|(entries, _)| epoch(entries, &fingerprints)).collect();
    for subject in subjects.values_mut() {
        let of = |set: Option<u32>| set.map_or(0, |set| epochs[set as usize]);
        subject.epoch = of(subject.ingress).wrapping_mul(3) ^ of(subject.egress).rotate_left(17);
    }
    budget.keep(classes.bytes())?;
    let fill = |(entries, denied)| {
        let before = budget.held();
        let shape = shape(entries, denied, &identities, &classes, &mut budget)?;
        budget.keep(shape.bytes())?;
        let set = shape.fill(&mut budget)?;
        budget.let_go(before);
        Ok(set)
    };
    let sets = sets.into_iter().map(fill).collect::<Result<_, _>>()?;
    Ok(Compiled {
        sets,
        identities: identities.terms.len(),
        by_address: identities.by_address,
        classes,
        subjects,
        node: node.into(),
        bytes: budget.kept(),
    })
}

fn workload(pod: &Pod) -> Subject {
    let own = pod.addresses.as_slice().into();
    Subject { is_workload: true, own, ..Subject::default() }
}

/// The two directions.
const BOTH: [PolicyType; 2] = [PolicyType::Ingress, PolicyType::Egress];

/// The policies that isolate a workload in each direction, in the order of their names.
fn selecting(input: &Input, pod: &Pod) -> [Vec<usize>; 2] {
    let selects = |(_, placed): &(usize, &Placed)| {
        let policy = placed.policy;
        policy.metadata.namespace == pod.workload.namespace
            && select::pods(&policy.spec.pod_selector, &pod.workload.labels)
    };
    let mut isolating: [Vec<usize>; 2] = Default::default();
    for (n, placed) in input.policies.iter().enumerate().filter(selects) {
        for (direction, isolating) in BOTH.into_iter().zip(&mut isolating) {
            if placed.policy.spec.isolates(direction) {
                isolating.push(n);
            }
        }
    }
    isolating
}

/// The sets there are: what each allows, and the slot of what it does not. Each subject is told which are its own.
fn sets_of<'a>(
    input: &'a Input<'a>,
    kinds: &Kinds<'a>,
    all: &mut Terms<'a>,
    subjects: &mut HashMap<u16, Subject>,
    budget: &mut Budget,
) -> Result<Vec<(Vec<Entry>, Slot)>, TooMuch> {
    let (mut keys, mut sets) = (HashMap::<Key, u32>::new(), Vec::<(Vec<Entry>, Slot)>::new());
    let numbers = numbers_by_name(input);
    let by_kind: Vec<[Vec<usize>; 2]> = kinds.each.iter().map(|pod| selecting(input, pod)).collect();
    for (pod, kind) in kinds.pods(input) {
        for (direction, policies) in BOTH.into_iter().zip(&by_kind[kind]) {
            if policies.is_empty() {
                continue;
            }
            let own = (direction == PolicyType::Ingress).then_some(pod.workload.ports.as_slice());
            let key = (direction, policies.clone(), own);
            let set = match keys.get(&key) {
                Some(set) => *set,
                None => {
                    let mut making = Making { input, numbers: &numbers, all, budget, entries: Vec::new() };
                    making.add_all(direction, policies, own)?;
                    sets.push((making.entries, denied_by(input, direction, policies)));
                    let next = (sets.len() - 1) as u32;
                    keys.insert(key, next);
                    next
                }
            };
            let Some(subject) = subjects.get_mut(&pod.port) else { continue };
            match direction {
                PolicyType::Ingress => subject.ingress = Some(set),
                PolicyType::Egress => subject.egress = Some(set),
            }
        }
    }
    Ok(sets)
}

/// The numbers that workloads have for a name of a port.
type Numbers<'a> = BTreeMap<(&'a str, switch_api::Protocol), BTreeSet<u16>>;

fn numbers_by_name<'a>(input: &'a Input) -> Numbers<'a> {
    let mut numbers = Numbers::new();
    for port in input.pods.iter().flat_map(|pod| &pod.workload.ports) {
        numbers.entry((&port.name, port.protocol)).or_default().insert(port.port);
    }
    numbers
}

/// Whom a rule is about, and the ports.
type Rule<'a> = (&'a Vec<Peer>, &'a Vec<PolicyPort>);

/// The slot of what a set does not allow.
fn denied_by(input: &Input, direction: PolicyType, policies: &[usize]) -> Slot {
    input.policies[policies[0]].slot + u32::from(direction == PolicyType::Egress)
}

/// What a set allows, while it is made.
struct Making<'m, 'a> {
    input: &'a Input<'a>,
    numbers: &'m Numbers<'a>,
    all: &'m mut Terms<'a>,
    budget: &'m mut Budget,
    entries: Vec<Entry>,
}

impl<'a> Making<'_, 'a> {
    /// All of several policies. `own`: the subject's named ports, by which ingress rules are read.
    fn add_all(
        &mut self,
        direction: PolicyType,
        policies: &[usize],
        own: Option<&[NamedPort]>,
    ) -> Result<(), TooMuch> {
        for policy in policies {
            let Placed { policy, slot } = self.input.policies[*policy];
            let (spec, namespace) = (&policy.spec, policy.metadata.namespace.as_str());
            let ingress = spec.ingress.iter().map(|rule| (&rule.from, &rule.ports));
            let egress = spec.egress.iter().map(|rule| (&rule.to, &rule.ports));
            let (rules, first): (Vec<Rule>, u32) = match direction {
                PolicyType::Ingress => (ingress.collect(), slot + 2),
                PolicyType::Egress => (egress.collect(), slot + 2 + spec.ingress.len() as u32),
            };
            for ((peers, ports), slot) in rules.into_iter().zip(first..) {
                let anybody = peers.is_empty().then_some(Whom::Anybody);
                let whom = peers.iter().map(|peer| Whom::of(peer, namespace)).chain(anybody);
                for whom in whom {
                    if ports.is_empty() {
                        self.add(Term { whom, named: None }, Ports::All, slot)?;
                    }
                    for port in ports {
                        self.add_port(whom, port, own, slot)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One port of a rule, and one of those it is about. A name is the destination's: on the way in the subject's own,
    /// on the way out what each peer calls so.
    fn add_port(
        &mut self,
        whom: Whom<'a>,
        port: &'a PolicyPort,
        own: Option<&[NamedPort]>,
        slot: Slot,
    ) -> Result<(), TooMuch> {
        let (protocol, everybody) = (port.protocol, Term { whom, named: None });
        let name = match &port.port {
            Some(PortRef::Name(name)) => name.as_str(),
            Some(PortRef::Number(first)) => {
                let last = port.end_port.unwrap_or(*first);
                return self.add(everybody, Ports::Range(protocol, *first, last), slot);
            }
            None => return self.add(everybody, Ports::Of(protocol), slot),
        };
        match own {
            Some(own) => {
                let mine = own.iter().filter(|own| (own.name.as_str(), own.protocol) == (name, protocol));
                mine.map(|own| own.port)
                    .try_for_each(|port| self.add(everybody, Ports::Range(protocol, port, port), slot))
            }
            None => {
                let numbers = self.numbers.get(&(name, protocol)).into_iter().flatten();
                numbers.copied().try_for_each(|number| {
                    let named = Some((name, protocol, number));
                    self.add(Term { whom, named }, Ports::Range(protocol, number, number), slot)
                })
            }
        }
    }

    fn add(&mut self, term: Term<'a>, ports: Ports, slot: Slot) -> Result<(), TooMuch> {
        self.budget.hold(size_of::<Entry>())?;
        let term = self.all.id(term, self.budget)?;
        self.entries.push(Entry { term, ports, slot });
        Ok(())
    }
}

/// A number made of all that a set says: of the addresses that its rules are about, and of the ports.
fn epoch(entries: &[Entry], fingerprints: &[u64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for entry in entries {
        (fingerprints[entry.term as usize], entry.ports).hash(&mut hasher);
    }
    // 0 is that nothing is said at all.
    hasher.finish() | 1
}

fn shape(
    entries: Vec<Entry>,
    denied: Slot,
    identities: &Identities,
    classes: &Classes,
    budget: &mut Budget,
) -> Result<Shape, TooMuch> {
    let (rows, row_terms) = rows(&entries, identities, budget)?;
    let columns = columns(&entries, classes, budget)?;
    Ok(Shape { entries, denied, rows, row_terms, columns })
}

/// Identities that belong to the same of a set's terms share a row.
fn rows(
    entries: &[Entry],
    identities: &Identities,
    budget: &mut Budget,
) -> Result<(Vec<u32>, Vec<Vec<u32>>), TooMuch> {
    let mut used = vec![false; entries.iter().map(|entry| entry.term as usize + 1).max().unwrap_or_default()];
    entries.iter().for_each(|entry| used[entry.term as usize] = true);
    let is_used = |term: &u32| used.get(*term as usize).copied().unwrap_or_default();
    let mut numbers: HashMap<Vec<u32>, u32> = HashMap::from([(Vec::new(), 0)]);
    let (mut row_terms, mut mine) = (vec![Vec::new()], Vec::new());
    let rows = identities.terms.iter().map(|terms| {
        budget.step(1 + terms.len())?;
        mine.clear();
        mine.extend(terms.iter().copied().filter(is_used));
        // Most of them are known: only what is new is kept.
        if let Some(number) = numbers.get(mine.as_slice()) {
            return Ok(*number);
        }
        budget.hold(2 * (size_of_val(&*mine) + size_of::<(Vec<u32>, u32)>()))?;
        let next = row_terms.len() as u32;
        row_terms.push(mine.clone());
        numbers.insert(mine.clone(), next);
        Ok(next)
    });
    let rows = rows.collect::<Result<_, TooMuch>>()?;
    Ok((rows, row_terms))
}

/// Classes that the same of a set's entries are about share a column.
fn columns(entries: &[Entry], classes: &Classes, budget: &mut Budget) -> Result<Columns, TooMuch> {
    let kinds: Vec<Ports> = {
        let mut seen = hashbrown::HashSet::new();
        entries.iter().map(|entry| entry.ports).filter(|ports| seen.insert(*ports)).collect()
    };
    // Where each kind begins (true) and ends.
    let mut events: BTreeMap<u16, Vec<(usize, bool)>> = BTreeMap::new();
    for (n, kind) in kinds.iter().enumerate() {
        for range in classes.ranges(*kind) {
            events.entry(range.start).or_default().push((n, true));
            events.entry(range.end).or_default().push((n, false));
        }
    }
    let (mut active, mut current) = (BTreeSet::new(), 0u16);
    let mut numbers: HashMap<Vec<usize>, u16> = HashMap::from([(Vec::new(), 0)]);
    let mut of: HashMap<Ports, Vec<u16>> = HashMap::new();
    let mut by_class = Vec::with_capacity(usize::from(classes.len));
    for class in 0..classes.len {
        if let Some(here) = events.get(&class) {
            for (kind, begins) in here {
                if *begins {
                    active.insert(*kind)
                } else {
                    active.remove(kind)
                };
            }
            budget.step(active.len())?;
            budget.hold(active.len() * (size_of::<usize>() + size_of::<u16>()))?;
            let next = numbers.len() as u16;
            current = *numbers.entry(active.iter().copied().collect()).or_insert_with_key(|active| {
                active.iter().for_each(|kind| of.entry(kinds[*kind]).or_default().push(next));
                next
            });
        }
        by_class.push(current);
    }
    Ok(Columns { by_class, len: numbers.len(), of })
}

impl Shape {
    fn bytes(&self) -> usize {
        let words = self.rows.len() + self.row_terms.len() * self.columns.len;
        words * size_of::<u32>() + size_of_val(&*self.columns.by_class) + size_of::<Set>()
    }

    fn fill(self, budget: &mut Budget) -> Result<Set, TooMuch> {
        let rows_len = self.row_terms.len();
        let mut verdicts = vec![0; rows_len * self.columns.len];
        let mut by_term: HashMap<u32, Vec<&Entry>> = HashMap::new();
        for entry in &self.entries {
            by_term.entry(entry.term).or_default().push(entry);
        }
        for (row, terms) in self.row_terms.iter().enumerate() {
            let terms = terms.iter().chain([&ANYBODY_ID]);
            for entry in terms.filter_map(|term| by_term.get(term)).flatten() {
                let columns = self.columns.of.get(&entry.ports).map_or(&[][..], Vec::as_slice);
                budget.step(1 + columns.len())?;
                for column in columns {
                    let verdict: &mut u32 = &mut verdicts[usize::from(*column) * rows_len + row];
                    if *verdict == 0 || *verdict > entry.slot + 1 {
                        *verdict = entry.slot + 1;
                    }
                }
            }
        }
        Ok(Set {
            rows: self.rows.into(),
            columns: self.columns.by_class.into(),
            rows_len: rows_len as u32,
            verdicts: verdicts.into(),
            denied: self.denied,
        })
    }
}
