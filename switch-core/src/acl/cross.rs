//! Two classifications become one. What is known of a packet so far is a set of rules that may still be about it; where two
//! such sets meet, their intersection is left, and pairs that leave the same are one class. All of it happens when
//! rules are compiled; a lookup reads one number.

use super::compile::{Budget, TooMuch};
use hashbrown::HashMap;

/// Sets of rules, by bits: the first rule is the lowest bit of the first word.
pub(super) type Bits = Vec<u64>;

/// Words that a set of so many rules has.
pub(super) fn words_of(rules: usize) -> usize {
    rules.div_ceil(64)
}

/// Adds a rule to a set.
pub(super) fn add(bits: &mut [u64], rule: usize) {
    bits[rule / 64] |= 1 << (rule % 64);
}

/// The first rule that is in both sets.
fn first_of_both(one: &[u64], other: &[u64]) -> Option<usize> {
    let mut both = one.iter().zip(other).map(|(one, other)| one & other).enumerate();
    both.find(|(_, word)| *word != 0).map(|(n, word)| n * 64 + word.trailing_zeros() as usize)
}

/// Numbers by row and column.
#[derive(Debug, Default)]
pub(super) struct Table {
    columns: u32,
    cells: Box<[u32]>,
}

impl Table {
    #[inline(always)]
    pub fn at(&self, row: u32, column: u32) -> u32 {
        self.cells[(row * self.columns + column) as usize]
    }

    /// What the first rule of each pair says, by rule; 0 where there is none.
    pub fn of_first(
        rows: &[Bits],
        columns: &[Bits],
        budget: &mut Budget,
        verdicts: &[u32],
    ) -> Result<Self, TooMuch> {
        budget.take_table(rows.len(), columns.len(), columns.first().map_or(1, Vec::len))?;
        let mut cells = Vec::with_capacity(rows.len() * columns.len());
        let verdict = |row: &Bits, column: &Bits| first_of_both(row, column).map_or(0, |rule| verdicts[rule]);
        for row in rows {
            cells.extend(columns.iter().map(|column| verdict(row, column)));
        }
        Ok(Self { columns: columns.len() as u32, cells: cells.into() })
    }
}

/// Sets that occur, each with a number.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    numbers: HashMap<Bits, u32>,
}

impl Distinct {
    /// The number of a set.
    pub fn number(&mut self, bits: &Bits) -> u32 {
        if let Some(number) = self.numbers.get(bits) {
            return *number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(bits.clone(), number);
        number
    }

    /// Bytes of the sets.
    fn bytes(&self) -> usize {
        self.numbers.len() * self.numbers.keys().next().map_or(0, |bits| size_of_val(&**bits))
    }

    /// The sets by their numbers.
    pub fn all(self) -> Vec<Bits> {
        let mut all = vec![Bits::new(); self.numbers.len()];
        self.numbers.into_iter().for_each(|(bits, number)| all[number as usize] = bits);
        all
    }
}

/// What is left where two sets meet: the class of each pair, and the sets that these classes are.
pub(super) fn cross(
    rows: &[Bits],
    columns: &[Bits],
    budget: &mut Budget,
) -> Result<(Table, Vec<Bits>), TooMuch> {
    budget.take_table(rows.len(), columns.len(), columns.first().map_or(1, Vec::len))?;
    let (mut distinct, mut both) = (Distinct::default(), Bits::new());
    let mut cells = Vec::with_capacity(rows.len() * columns.len());
    for row in rows {
        for column in columns {
            both.clear();
            both.extend(row.iter().zip(column).map(|(row, column)| row & column));
            cells.push(distinct.number(&both));
        }
        budget.fits_meanwhile(distinct.bytes())?;
    }
    Ok((Table { columns: columns.len() as u32, cells: cells.into() }, distinct.all()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rules: &[usize]) -> Bits {
        let mut bits = vec![0; 2];
        rules.iter().for_each(|rule| add(&mut bits, *rule));
        bits
    }

    #[test]
    fn pairs_that_leave_the_same_are_one_class() {
        let rows = [set(&[0, 70]), set(&[1]), set(&[])];
        let columns = [set(&[0, 1]), set(&[70]), set(&[0, 70])];
        let (table, left) = cross(&rows, &columns, &mut Budget::default()).unwrap();
        let of = |row, column| &left[table.at(row, column) as usize];
        assert_eq!((of(0, 0), of(0, 1), of(0, 2)), (&set(&[0]), &set(&[70]), &set(&[0, 70])));
        assert_eq!((table.at(1, 1), table.at(1, 2)), (table.at(2, 0), table.at(2, 2)));
        let verdicts: Vec<u32> = (0..128).map(|rule| rule + 1).collect();
        let table = Table::of_first(&rows, &columns, &mut Budget::default(), &verdicts).unwrap();
        assert_eq!((table.at(0, 2), table.at(0, 1), table.at(1, 0), table.at(2, 0)), (1, 71, 2, 0));
        assert_eq!(left.len(), 5);
    }
}
