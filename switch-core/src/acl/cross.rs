//! Two classifications become one. What is known of a packet so far is a set of rules that may still be about it; where two
//! such sets meet, their intersection is left, and pairs that leave the same are one class. All of it happens when
//! rules are compiled; a lookup reads one number.

use super::compile::{Budget, TooMuch};
use hashbrown::HashMap;
use std::sync::Arc;

/// Sets of rules, by bits: the first rule is the lowest bit of the first word.
pub(super) type Bits = Arc<[u64]>;

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

/// What the first rule says that is in a set and in another, for each of those; 0 where there is none.
pub(super) fn firsts<'a>(
    row: &'a [u64],
    columns: &'a [Bits],
    said: &'a [u32],
) -> impl Iterator<Item = u32> + 'a {
    columns.iter().map(|column| first_of_both(row, column).map_or(0, |rule| said[rule]))
}

/// Puts the rules that are in both sets into `both`.
pub(super) fn meet(row: &[u64], column: &[u64], both: &mut Vec<u64>) {
    both.clear();
    both.extend(row.iter().zip(column).map(|(row, column)| row & column));
}

/// Numbers by row and column.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    columns: u32,
    cells: Arc<[u32]>,
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
        said: &[u32],
    ) -> Result<Self, TooMuch> {
        budget.take_table(rows.len(), columns.len(), columns.first().map_or(1, |bits| bits.len()))?;
        let mut cells = Vec::with_capacity(rows.len() * columns.len());
        rows.iter().for_each(|row| cells.extend(firsts(row, columns, said)));
        Ok(Self { columns: columns.len() as u32, cells: cells.into() })
    }

    /// The same with rows below.
    pub fn with_rows(&self, cells: &[u32]) -> Self {
        let mut all = Vec::with_capacity(self.cells.len() + cells.len());
        all.extend_from_slice(&self.cells);
        all.extend_from_slice(cells);
        Self { columns: self.columns, cells: all.into() }
    }

    /// The same with a column beside.
    pub fn with_column(&self, column: &[u32]) -> Self {
        let mut all = Vec::with_capacity(self.cells.len() + column.len());
        for (row, cell) in self.cells.chunks(self.columns.max(1) as usize).zip(column) {
            all.extend_from_slice(row);
            all.push(*cell);
        }
        Self { columns: self.columns + 1, cells: all.into() }
    }
}

/// Sets that occur, each with a number.
#[derive(Clone, Debug, Default)]
pub(super) struct Distinct {
    numbers: HashMap<Bits, u32>,
}

impl Distinct {
    /// The number of a set.
    pub fn number(&mut self, bits: &[u64]) -> u32 {
        if let Some(number) = self.numbers.get(bits) {
            return *number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(bits.into(), number);
        number
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Bytes of the sets.
    pub fn bytes(&self) -> usize {
        self.numbers.len() * self.numbers.keys().next().map_or(0, |bits| size_of_val(&**bits))
    }

    /// The sets by their numbers.
    pub fn all(&self) -> Vec<Bits> {
        let mut all = vec![Bits::default(); self.numbers.len()];
        self.numbers.iter().for_each(|(bits, number)| all[*number as usize] = bits.clone());
        all
    }
}

/// What is left where two sets meet: the class of each pair, and the sets that these classes are.
pub(super) fn cross(
    rows: &[Bits],
    columns: &[Bits],
    budget: &mut Budget,
) -> Result<(Table, Distinct), TooMuch> {
    budget.take_table(rows.len(), columns.len(), columns.first().map_or(1, |bits| bits.len()))?;
    let (mut distinct, mut both) = (Distinct::default(), Vec::new());
    let mut cells = Vec::with_capacity(rows.len() * columns.len());
    for row in rows {
        for column in columns {
            meet(row, column, &mut both);
            cells.push(distinct.number(&both));
        }
        budget.fits_meanwhile(distinct.bytes())?;
    }
    Ok((Table { columns: columns.len() as u32, cells: cells.into() }, distinct))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rules: &[usize]) -> Bits {
        let mut bits = vec![0; 2];
        rules.iter().for_each(|rule| add(&mut bits, *rule));
        bits.into()
    }

    #[test]
    fn pairs_that_leave_the_same_are_one_class() {
        let rows = [set(&[0, 70]), set(&[1]), set(&[])];
        let columns = [set(&[0, 1]), set(&[70]), set(&[0, 70])];
        let (table, left) = cross(&rows, &columns, &mut Budget::default()).unwrap();
        let left = left.all();
        let of = |row, column| &left[table.at(row, column) as usize];
        assert_eq!((of(0, 0), of(0, 1), of(0, 2)), (&set(&[0]), &set(&[70]), &set(&[0, 70])));
        assert_eq!((table.at(1, 1), table.at(1, 2)), (table.at(2, 0), table.at(2, 2)));
        let verdicts: Vec<u32> = (0..128).map(|rule| rule + 1).collect();
        let table = Table::of_first(&rows, &columns, &mut Budget::default(), &verdicts).unwrap();
        assert_eq!((table.at(0, 2), table.at(0, 1), table.at(1, 0), table.at(2, 0)), (1, 71, 2, 0));
        let grown = table.with_rows(&[7, 8, 9]).with_column(&[10, 11, 12, 13]);
        assert_eq!((grown.at(0, 2), grown.at(3, 0), grown.at(0, 3), grown.at(3, 3)), (1, 7, 10, 13));
        assert_eq!(left.len(), 5);
    }
}
