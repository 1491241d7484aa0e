//! Numbers by row and column. A table has room for rows and columns to come: whoever makes the next version writes there, where
//! no version before looks, so that one more costs what it says, and not what the table holds.
//!
//! Cells lie by rows, those of columns that came later behind them, by columns.

use super::compile::{Budget, TooMuch};
use crate::prefetch::prefetch;
use crate::table::probes::Probes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Rows or columns that a table that grows has room for: as many again as it has, but no fewer and no more. It takes no more than the table
/// itself, or [`ROOM_BYTES_MIN`]: few long rows have room for fewer.
const ROOM: std::ops::RangeInclusive<usize> = 128..=ROOM_MAX;
/// Room that a table may have however small it is itself.
const ROOM_BYTES_MIN: usize = 1 << 20;
/// Most rows or columns that there is room for.
pub(super) const ROOM_MAX: usize = 1024;

/// Rows and columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub rows: usize,
    pub columns: usize,
}

impl Shape {
    /// Room for rows and for columns to come, where some may, that takes no more than `most` bytes.
    pub fn room(self, Grows { rows, columns }: Grows, most: usize) -> Self {
        let of = |len: usize, grows| if grows { len.clamp(*ROOM.start(), *ROOM.end()) } else { 0 };
        let mut room = Self { rows: of(self.rows, rows), columns: of(self.columns, columns) };
        while self.bytes_of_room(room) > most.min(self.bytes().max(ROOM_BYTES_MIN)) {
            room = Self { rows: room.rows / 2, columns: room.columns / 2 };
        }
        room
    }

    fn and(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, columns: self.columns + other.columns }
    }

    fn cells(self) -> usize {
        self.rows * self.columns
    }

    /// Bytes of a table of this shape.
    pub fn bytes(self) -> usize {
        self.cells() * size_of::<u32>()
    }

    /// Bytes that room beside it takes.
    pub fn bytes_of_room(self, room: Self) -> usize {
        self.and(room).bytes() - self.bytes()
    }
}

/// Whether rows, or columns, may come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Grows {
    pub rows: bool,
    pub columns: bool,
}

/// What is to be a table: its numbers, row by row.
#[derive(Debug)]
pub(super) struct Cells {
    pub shape: Shape,
    pub numbers: Vec<u32>,
}

impl Cells {
    /// A table of these, with room as far as there is some.
    pub fn table(self, grows: Grows, budget: &mut Budget) -> Table {
        let room = budget.take_room(self.shape.room(grows, budget.room_left()), self.shape);
        Table::new(self.shape, room, grows, self.numbers.into_iter())
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Nothing but numbers: which of them may be read is said by who hands the table on. [`crate::config::publish`] orders it.
    cells: Arc<[AtomicU32]>,
    /// Columns whose cells lie by rows.
    width: u32,
    /// Rows that there is room for.
    height: u32,
    /// What this version has.
    has: Shape,
    grows: Grows,
    /// Which version it is of those that share the cells, and which is the last: that one alone may go on in them.
    version: u32,
    last: Arc<AtomicU32>,
}

impl Table {
    /// One of these cells, row by row, with room beside.
    fn new(has: Shape, room: Shape, grows: Grows, cells: impl Iterator<Item = u32>) -> Self {
        let whole = has.and(room);
        let new = Self {
            cells: (0..whole.cells()).map(|_| AtomicU32::new(0)).collect(),
            width: has.columns as u32,
            height: whole.rows as u32,
            has,
            grows,
            version: 0,
            last: Arc::default(),
        };
        new.cells.iter().zip(cells.take(has.cells())).for_each(|(cell, number)| cell.store(number, Relaxed));
        new
    }

    #[inline(always)]
    pub fn read(&self, row: u32, column: u32, probes: impl Probes) -> u32 {
        probes.probe();
        self.at(self.place(row, column))
    }

    /// Where a row and a column meet.
    #[inline(always)]
    pub fn place(&self, row: u32, column: u32) -> usize {
        // Cells by rows are as many as `height` rows of `width` columns; behind them `height` cells for each column.
        (if column < self.width { row * self.width + column } else { column * self.height + row }) as usize
    }

    /// Asks for what stands at a place.
    #[inline(always)]
    pub fn touch(&self, place: usize) {
        prefetch(self.cells.as_ptr().wrapping_add(place));
    }

    /// What stands at a place.
    #[inline(always)]
    pub fn at(&self, place: usize) -> u32 {
        self.cells[place].load(Relaxed)
    }

    /// The same with rows below.
    pub fn with_rows(&self, cells: &[u32], budget: &mut Budget) -> Result<Self, TooMuch> {
        let rows = cells.len() / self.has.columns.max(1);
        let next = self.grown(Shape { rows, columns: 0 }, budget)?;
        for (row, cells) in (self.has.rows..).zip(cells.chunks(self.has.columns.max(1))) {
            cells.iter().enumerate().for_each(|(column, cell)| next.put(row, column, *cell));
        }
        Ok(next)
    }

    /// The same with a column beside.
    pub fn with_column(&self, cells: &[u32], budget: &mut Budget) -> Result<Self, TooMuch> {
        let next = self.grown(Shape { rows: 0, columns: 1 }, budget)?;
        cells.iter().enumerate().for_each(|(row, cell)| next.put(row, self.has.columns, *cell));
        Ok(next)
    }

    /// The same with cells more: in its own room, if there is some and nobody else went on there; else in a copy, which takes a step a cell.
    fn grown(&self, more: Shape, budget: &mut Budget) -> Result<Self, TooMuch> {
        let (has, next) = (self.has.and(more), self.version + 1);
        let fits = has.rows <= self.height as usize && self.height as usize * has.columns <= self.cells.len();
        budget.take_bytes(has.bytes() - self.has.bytes())?;
        if fits && self.last.compare_exchange(self.version, next, Relaxed, Relaxed).is_ok() {
            budget.give_room(has.bytes() - self.has.bytes());
            return Ok(Self { has, version: next, ..self.clone() });
        }
        budget.take_steps(has.cells())?;
        budget.give_room(self.bytes() - self.has.bytes());
        let room = budget.take_room(has.room(self.grows, budget.room_left()), has);
        let column = |row, n| if n < self.has.columns { self.at(self.place(row, n as u32)) } else { 0 };
        let cells = (0..self.has.rows as u32).flat_map(|row| (0..has.columns).map(move |n| column(row, n)));
        Ok(Self::new(has, room, self.grows, cells))
    }

    /// Into a cell that no version before looks at.
    fn put(&self, row: usize, column: usize, cell: u32) {
        self.cells[self.place(row as u32, column as u32)].store(cell, Relaxed);
    }

    /// Whether both lie in the same memory.
    #[cfg(test)]
    pub fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cells, &other.cells)
    }

    /// Bytes that it takes, with its room.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::super::compile::ROOM_BYTES_MAX;
    use super::*;
    use crate::table::probes::Uncounted;
    use proptest::prelude::*;

    type Plain = Vec<Vec<u32>>;

    fn agrees(table: &Table, plain: &Plain) -> bool {
        let each = plain
            .iter()
            .zip(0..)
            .flat_map(|(row, n)| row.iter().zip(0..).map(move |(cell, m)| (n, m, *cell)));
        each.into_iter().all(|(row, column, cell)| table.read(row, column, Uncounted) == cell)
    }

    /// A row or a column more of which version.
    fn steps() -> impl Strategy<Value = Vec<(bool, usize)>> {
        prop::collection::vec((any::<bool>(), prop_oneof![3 => Just(0), 1 => 0..30usize]), 0..30)
    }

    proptest! {
        /// Whoever goes on from whichever version, with or without room: each says for ever what it said when it was made.
        #[test]
        fn a_version_says_what_it_says(shape in (1..5usize, 1..5usize), room in (0..9usize, 0..9usize), steps in steps()) {
            let (has, room) = (Shape { rows: shape.0, columns: shape.1 }, Shape { rows: room.0, columns: room.1 });
            let mut fresh = 0..;
            let mut next = |len: usize| fresh.by_ref().take(len).collect::<Vec<u32>>();
            let plain: Plain = (0..has.rows).map(|_| next(has.columns)).collect();
            let grows = Grows { rows: true, columns: true };
            let table = Table::new(has, room, grows, plain.iter().flatten().copied());
            let mut budget = Budget::default();
            budget.take_room(room, has);
            let mut versions = vec![(table, budget, plain)];
            for (is_row, back) in steps {
                let (table, mut budget, mut plain) = versions[versions.len() - 1 - back % versions.len()].clone();
                let table = if is_row {
                    plain.push(next(plain[0].len()));
                    table.with_rows(&plain[plain.len() - 1], &mut budget)
                } else {
                    let column = next(plain.len());
                    plain.iter_mut().zip(&column).for_each(|(row, cell)| row.push(*cell));
                    table.with_column(&column, &mut budget)
                };
                versions.push((table.unwrap(), budget, plain));
            }
            for (table, budget, plain) in &versions {
                prop_assert!(agrees(table, plain), "{table:?} is not {plain:?}");
                let room = table.bytes() - table.has.bytes();
                prop_assert_eq!(budget.room_left(), (ROOM_BYTES_MAX - room) / 4, "what is room is known");
            }
        }
    }

    /// What has room is not copied.
    #[test]
    fn room_is_used() {
        let has = Shape { rows: 3, columns: 2 };
        let (grows, mut budget) = (Grows { rows: true, columns: true }, Budget::default());
        let table = Cells { shape: has, numbers: (0..6).collect() }.table(grows, &mut budget);
        let (mut grown, mut before) = (table.clone(), budget.clone());
        for _ in 0..ROOM.start() - 1 {
            let (rows, columns) = (grown.has.rows, grown.has.columns);
            grown = grown.with_rows(&vec![7; columns], &mut budget).unwrap();
            grown = grown.with_column(&vec![9; rows + 1], &mut budget).unwrap();
            assert!(grown.shares(&table));
        }
        // Who goes on from an older version gets cells of his own.
        let other = table.with_rows(&[1, 2], &mut before).unwrap();
        assert!(!other.shares(&table));
        assert_eq!((other.read(3, 1, Uncounted), grown.read(3, 1, Uncounted)), (2, 7));
    }
}
