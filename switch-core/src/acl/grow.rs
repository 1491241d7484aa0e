//! Tables that grow by a kind of address. When an address set has an address that is in a combination of networks and sets in which
//! none was, that combination gets a row and a column in every chain; for that a chain whose rules name sets keeps the sets of rules
//! that its tables were made of. A chain whose rules name none thinks of the new addresses what it thought of them before.

use super::Chain;
use super::compile::{Budget, TooMuch};
use super::cross::{Bits, Distinct, firsts, meet, none_of, set_with};
use super::identities::{Identities, Term};
use hashbrown::HashMap;
use std::sync::Arc;
use switch_api::{Name, Prefix};

/// How a chain grows.
#[derive(Clone, Debug)]
pub(super) enum Growth {
    /// Its rules name no sets.
    Alike,
    /// From what its tables were made of.
    From(Arc<Grounds>),
    /// Not at all, for that would take too much memory: it is compiled anew.
    Anew,
}

/// What a chain's tables were made of.
#[derive(Clone, Debug)]
pub(super) struct Grounds {
    pub source: Side,
    pub destination: Side,
    /// By the classes that are columns of the verdicts' rows.
    pub left: Distinct,
    pub right: Arc<[Bits]>,
    /// By rule.
    pub said: Arc<[u32]>,
}

impl Grounds {
    /// See [`super::numbered`].
    pub fn share(&mut self) {
        for distinct in [&mut self.source.distinct, &mut self.destination.distinct, &mut self.left] {
            distinct.sets.share();
        }
    }

    pub fn bytes(&self) -> usize {
        let right = self.right.iter().map(|bits| size_of_val(&**bits)).sum::<usize>();
        self.source.bytes() + self.destination.bytes() + self.left.bytes() + right
    }
}

/// What the rules of a chain say of one end's address.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// Rules that are about any.
    anybody: Bits,
    /// In their order.
    by_term: Arc<HashMap<Term, Vec<u32>>>,
    /// Sets of rules that may be about a packet with such an address, as far as they occur.
    pub distinct: Distinct,
    /// The number of those that are about any alone: nearly all addresses', where few rules name any.
    alone: Option<u32>,
}

impl Side {
    /// Of so many rules, with the networks and the sets that each names there.
    pub fn of<'a>(
        len: usize,
        rules: impl Iterator<Item = (&'a Vec<Prefix>, &'a Vec<Name>)>,
        identities: &Identities,
    ) -> Self {
        let (mut anybody, mut by_term) = (Vec::new(), HashMap::<Term, Vec<u32>>::new());
        for (n, (networks, sets)) in (0u32..).zip(rules) {
            if networks.is_empty() && sets.is_empty() {
                anybody.push(n);
            }
            let terms = identities.terms_of(networks, sets);
            terms.for_each(|term| by_term.entry(term).or_default().push(n));
        }
        let mut set = Vec::new();
        set_with(&none_of(len), &anybody, &mut set);
        let (anybody, by_term) = (set.into(), Arc::new(by_term));
        Self { anybody, by_term, distinct: Distinct::default(), alone: None }
    }

    /// The number of the rules that may be about an address in these terms, and whether no other has it yet.
    pub fn number(&mut self, terms: &[Term], budget: &mut Budget) -> Result<(u32, bool), TooMuch> {
        let rules = terms.iter().filter_map(|term| self.by_term.get(term)).flatten();
        let mut rules: Vec<u32> = rules.copied().collect();
        budget.take_steps(1 + terms.len() + rules.len())?;
        if let (true, Some(number)) = (rules.is_empty(), self.alone) {
            return Ok((number, false));
        }
        rules.sort_unstable();
        rules.dedup();
        let mut set = Vec::new();
        set_with(&self.anybody, &rules, &mut set);
        budget.take_steps(set.len())?;
        let (had, number) = (self.distinct.len(), self.distinct.number(&set));
        budget.fits_meanwhile(self.distinct.bytes())?;
        if rules.is_empty() {
            self.alone = Some(number);
        }
        Ok((number, number as usize == had))
    }

    fn bytes(&self) -> usize {
        let rules = self.by_term.values().map(Vec::len).sum::<usize>() * size_of::<u32>();
        self.distinct.bytes() + rules + self.by_term.len() * size_of::<(Term, Vec<u32>)>()
    }
}

/// A chain with identities that are new since it was made: `like` says what each was before it was in a term more or less.
/// None: it has to be compiled anew.
pub(super) fn grown(
    chain: &Chain,
    identities: &Identities,
    like: &[u32],
    budget: &mut Budget,
) -> Result<Option<Chain>, TooMuch> {
    let mut next = chain.clone();
    let (mut rows, mut columns) = (chain.source_rows.to_vec(), chain.destination_columns.to_vec());
    match &chain.growth {
        Growth::Anew => return Ok(None),
        Growth::Alike => like.iter().for_each(|before| {
            rows.push(rows[*before as usize]);
            columns.push(columns[*before as usize]);
        }),
        Growth::From(grounds) => {
            let mut grounds = (**grounds).clone();
            for identity in rows.len()..identities.len() {
                let terms = identities.terms(identity);
                let (row, is_new) = grounds.source.number(terms, budget)?;
                if is_new {
                    let cells = next.classes(&mut grounds, End::Source, budget)?;
                    next.ends = next.ends.with_rows(&cells, budget)?;
                }
                let (column, is_new) = grounds.destination.number(terms, budget)?;
                if is_new {
                    let cells = next.classes(&mut grounds, End::Destination, budget)?;
                    next.ends = next.ends.with_column(&cells, budget)?;
                }
                rows.push(row);
                columns.push(column);
            }
            grounds.share();
            next.growth = Growth::From(Arc::new(grounds));
        }
    }
    (next.source_rows, next.destination_columns) = (rows.into(), columns.into());
    Ok(Some(next))
}

/// Of a packet.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

impl Chain {
    /// The classes where the newest set of rules about one end meets those about the other; those that are new get their verdicts.
    fn classes(
        &mut self,
        grounds: &mut Grounds,
        newest: End,
        budget: &mut Budget,
    ) -> Result<Vec<u32>, TooMuch> {
        let Grounds { source, destination, left, right, said } = grounds;
        let (mine, others) = match newest {
            End::Source => (&source.distinct, &destination.distinct),
            End::Destination => (&destination.distinct, &source.distinct),
        };
        let (newest, had) = (mine.sets.get(mine.len() - 1), left.len());
        let (mut both, mut cells, mut verdicts) = (Vec::new(), Vec::with_capacity(others.len()), Vec::new());
        for other in others.sets.iter() {
            budget.take_steps(1 + meet(newest, other, &mut both))?;
            cells.push(left.number(&both));
        }
        budget.fits_meanwhile(left.bytes())?;
        for class in had..left.len() {
            firsts(left.sets.get(class), right, said, budget, &mut verdicts)?;
        }
        if !verdicts.is_empty() {
            self.verdicts = self.verdicts.with_rows(&verdicts, budget)?;
        }
        Ok(cells)
    }
}
