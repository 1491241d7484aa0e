//! Tables that grow by a kind of address. When an address set has an address that is in a combination of networks and sets in which
//! none was, that combination gets a row and a column in every chain; for that a chain whose rules name sets keeps the sets of rules
//! that its tables were made of. A chain whose rules name none thinks of the new addresses what it thought of them before.

use super::Chain;
use super::compile::{Budget, TooMuch};
use super::cross::{Bits, Distinct, Table, firsts, meet, none_of, set_with};
use super::identities::{Identities, Term};
use hashbrown::HashMap;
use std::sync::Arc;
use switch_api::{Name, Prefix};

/// Most kinds of addresses by which tables grow at once: each copies the tables that it changes.
pub(super) const KINDS_MAX: usize = 64;

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

    /// The number of the rules that may be about an address in these terms.
    pub fn number(&mut self, terms: &[Term], budget: &mut Budget) -> Result<u32, TooMuch> {
        let rules = terms.iter().filter_map(|term| self.by_term.get(term)).flatten();
        let mut rules: Vec<u32> = rules.copied().collect();
        budget.take_steps(1 + terms.len() + rules.len())?;
        if let (true, Some(number)) = (rules.is_empty(), self.alone) {
            return Ok(number);
        }
        rules.sort_unstable();
        rules.dedup();
        let mut set = Vec::new();
        set_with(&self.anybody, &rules, &mut set);
        budget.take_steps(set.len())?;
        let number = self.distinct.number(&set);
        budget.fits_meanwhile(self.distinct.bytes())?;
        if rules.is_empty() {
            self.alone = Some(number);
        }
        Ok(number)
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
                let (had, row) = (grounds.source.distinct.len(), grounds.source.number(terms, budget)?);
                if row as usize == had {
                    next.add_row(&mut grounds, budget)?;
                }
                let (had, column) =
                    (grounds.destination.distinct.len(), grounds.destination.number(terms, budget)?);
                if column as usize == had {
                    next.add_column(&mut grounds, budget)?;
                }
                rows.push(row);
                columns.push(column);
            }
            next.growth = Growth::From(Arc::new(grounds));
        }
    }
    (next.source_rows, next.destination_columns) = (rows.into(), columns.into());
    Ok(Some(next))
}

impl Chain {
    /// The newest set of rules about sources gets its row.
    fn add_row(&mut self, grounds: &mut Grounds, budget: &mut Budget) -> Result<(), TooMuch> {
        let (rows, columns) = (grounds.source.distinct.all(), grounds.destination.distinct.all());
        let Some(row) = rows.last() else { return Ok(()) };
        let cells = self.classes(row, &columns, grounds, budget)?;
        self.ends = self.ends.with_rows(&cells);
        Ok(())
    }

    /// The newest set of rules about destinations gets its column.
    fn add_column(&mut self, grounds: &mut Grounds, budget: &mut Budget) -> Result<(), TooMuch> {
        let (rows, columns) = (grounds.source.distinct.all(), grounds.destination.distinct.all());
        let Some(column) = columns.last() else { return Ok(()) };
        let cells = self.classes(column, &rows, grounds, budget)?;
        self.ends = self.ends.with_column(&cells);
        Ok(())
    }

    /// The classes where a set meets others; those that are new get their verdicts.
    fn classes(
        &mut self,
        one: &[u64],
        others: &[Bits],
        grounds: &mut Grounds,
        budget: &mut Budget,
    ) -> Result<Vec<u32>, TooMuch> {
        budget.take_table(1, others.len())?;
        let (mut both, mut cells, mut verdicts) = (Vec::new(), Vec::with_capacity(others.len()), Vec::new());
        for other in others {
            budget.take_steps(meet(one, other, &mut both))?;
            let (had, class) = (grounds.left.len(), grounds.left.number(&both));
            if class as usize == had {
                budget.take_table(1, grounds.right.len())?;
                firsts(&both, &grounds.right, &grounds.said, budget, &mut verdicts)?;
            }
            cells.push(class);
        }
        budget.fits_meanwhile(grounds.left.bytes())?;
        if !verdicts.is_empty() {
            self.verdicts = Table::with_rows(&self.verdicts, &verdicts);
        }
        Ok(cells)
    }
}
