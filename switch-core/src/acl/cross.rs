//! Two classifications become one. What is known of a packet so far is a set of rules that may still be about it; where two
//! such sets meet, their intersection is left, and pairs that leave the same are one class. All of it happens when
//! rules are compiled; a lookup reads one number.
//!
//! Of a hundred thousand rules a set mostly has some hundred, in few of its words: only these are kept, behind a bit for each word that says
//! which they are (aggregated bit vectors, Baboescu and Varghese, SIGCOMM 2001). What two sets have in common is looked for among these bits, 64
//! words at a time, so that both time and memory are those of the rules that a set has, and not of all there are.

use super::compile::{Budget, TooMuch};
use super::numbered::Numbered;
use super::table::{Cells, Shape};
use std::sync::Arc;

/// Sets of rules, by bits: the first rule is the lowest bit of the first word. How many words of marks there are, the marks, a bit for each
/// word of the set that is not 0, and these words.
pub(super) type Bits = Arc<[u64]>;

/// What a set takes beside its words: its number, and what leads to it.
const SET_BYTES: usize = 2 * size_of::<(Bits, u32)>() + 2 * size_of::<usize>();

/// Words that a set of so many rules has, if all of them are written.
pub(super) fn words_of(rules: usize) -> usize {
    rules.div_ceil(64)
}

/// The set that none of so many rules is in.
pub(super) fn none_of(rules: usize) -> Vec<u64> {
    let mut set = Vec::new();
    set_of(&vec![0; words_of(rules)], &mut set);
    set
}

/// Puts the set of rules whose words are these, all of them, into `set`.
pub(super) fn set_of(words: &[u64], set: &mut Vec<u64>) {
    let marks = |words: &[u64]| {
        words.iter().enumerate().fold(0, |marks, (n, word)| marks | u64::from(*word != 0) << n)
    };
    set.clear();
    set.push(words_of(words.len()) as u64);
    set.extend(words.chunks(64).map(marks));
    set.extend(words.iter().filter(|word| **word != 0));
}

/// Puts the rules of a set, and `rules` (in their order) beside them, into `with`.
pub(super) fn set_with(set: &[u64], rules: &[u32], with: &mut Vec<u64>) {
    let (marks, words) = parts(set);
    with.clear();
    with.push(marks.len() as u64);
    with.extend(marks);
    rules.iter().for_each(|rule| with[1 + *rule as usize / 4096] |= 1 << (rule / 64 % 64));
    let (mut words, mut rules) = (words.iter(), rules.iter().peekable());
    for (n, had) in marks.iter().enumerate() {
        let mut has = with[1 + n];
        while has != 0 {
            let bit = has.trailing_zeros();
            let mut word = if had >> bit & 1 != 0 { words.next().copied().unwrap_or(0) } else { 0 };
            let place = n as u32 * 64 + bit;
            while let Some(rule) = rules.next_if(|rule| **rule / 64 == place) {
                word |= 1 << (rule % 64);
            }
            with.push(word);
            has &= has - 1;
        }
    }
}

/// The marks of a set, and its words.
fn parts(set: &[u64]) -> (&[u64], &[u64]) {
    let Some((marks, rest)) = set.split_first() else { return (&[], &[]) };
    rest.split_at((*marks as usize).min(rest.len()))
}

/// Tells of every word that two sets have rules in common in, by its place and with these, until it is told that this is enough. How many
/// words were looked at.
#[inline(always)]
fn common(one: &[u64], other: &[u64], mut tell: impl FnMut(usize, u64) -> bool) -> usize {
    let ((marks, mut words), (other_marks, mut other_words)) = (parts(one), parts(other));
    let mut looks = 0;
    for (n, (mine, theirs)) in marks.iter().zip(other_marks).enumerate() {
        let (own, others) = words.split_at(mine.count_ones() as usize);
        let (own_too, others_too) = other_words.split_at(theirs.count_ones() as usize);
        (words, other_words) = (others, others_too);
        let mut both = mine & theirs;
        looks += 1;
        // Sets of nearly all rules, or of the same ones, are walked through side by side.
        let mut in_step = own.iter().zip(own_too).map(|(one, other)| one & other);
        let are_alike = mine == theirs;
        while both != 0 {
            let bit = both.trailing_zeros();
            let below = (1u64 << bit) - 1;
            let at = |marks: u64| (marks & below).count_ones() as usize;
            let word = match are_alike {
                true => in_step.next().unwrap_or(0),
                false => own[at(*mine)] & own_too[at(*theirs)],
            };
            looks += 1;
            if word != 0 && !tell(n * 64 + bit as usize, word) {
                return looks;
            }
            both &= both - 1;
        }
    }
    looks
}

/// The first rule that is in both sets, and how many words were looked at for it.
fn first_of_both(one: &[u64], other: &[u64]) -> (Option<usize>, usize) {
    let mut first = None;
    let looks = common(one, other, |place, word| {
        first = Some(place * 64 + word.trailing_zeros() as usize);
        false
    });
    (first, looks)
}

/// Adds what the first rule says that is in a set and in another, for each of those; 0 where there is none.
pub(super) fn firsts(
    row: &[u64],
    columns: &[Bits],
    said: &[u32],
    budget: &mut Budget,
    cells: &mut Vec<u32>,
) -> Result<(), TooMuch> {
    let mut all = 0;
    cells.extend(columns.iter().map(|column| {
        let (first, looks) = first_of_both(row, column);
        all += looks;
        first.map_or(0, |rule| said[rule])
    }));
    budget.take_steps(all)
}

/// Puts the rules that are in both sets into `both`. How many words were looked at.
pub(super) fn meet(row: &[u64], column: &[u64], both: &mut Vec<u64>) -> usize {
    let marks = parts(row).0.len();
    both.clear();
    both.resize(1 + marks, 0);
    both[0] = marks as u64;
    common(row, column, |place, word| {
        both[1 + place / 64] |= 1 << (place % 64);
        both.push(word);
        true
    })
}

impl Cells {
    /// What the first rule of each pair says, by rule; 0 where there is none.
    pub fn of_first(
        rows: &Numbered<u64>,
        columns: &[Bits],
        budget: &mut Budget,
        said: &[u32],
    ) -> Result<Self, TooMuch> {
        let shape = Shape { rows: rows.len(), columns: columns.len() };
        budget.take_table(shape)?;
        let mut numbers = Vec::with_capacity(shape.rows * shape.columns);
        rows.iter().try_for_each(|row| firsts(row, columns, said, budget, &mut numbers))?;
        Ok(Self { shape, numbers })
    }
}

/// Sets that occur, each with a number.
#[derive(Clone, Debug, Default)]
pub(super) struct Distinct {
    pub sets: Numbered<u64>,
    bytes: usize,
}

impl Distinct {
    /// The number of a set.
    pub fn number(&mut self, bits: &[u64]) -> u32 {
        self.sets.find(bits).unwrap_or_else(|| {
            self.bytes += size_of_val(bits) + SET_BYTES;
            self.sets.push(bits)
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Bytes of the sets.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The sets by their numbers.
    pub fn all(&self) -> Vec<Bits> {
        self.sets.iter().cloned().collect()
    }
}

/// What is left where two sets meet: the class of each pair, and the sets that these classes are.
pub(super) fn cross(
    rows: &[Bits],
    columns: &[Bits],
    budget: &mut Budget,
) -> Result<(Cells, Distinct), TooMuch> {
    let shape = Shape { rows: rows.len(), columns: columns.len() };
    budget.take_table(shape)?;
    let (mut distinct, mut both) = (Distinct::default(), Vec::new());
    let mut numbers = Vec::with_capacity(rows.len() * columns.len());
    for row in rows {
        let mut looks = 0;
        for column in columns {
            looks += meet(row, column, &mut both);
            numbers.push(distinct.number(&both));
        }
        budget.take_steps(looks)?;
        budget.fits_meanwhile(distinct.bytes())?;
    }
    budget.hold_meanwhile(distinct.bytes());
    Ok((Cells { shape, numbers }, distinct))
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::super::table::{Grows, Table};
    use super::*;
    use crate::table::probes::Uncounted;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(rules: &[usize]) -> Bits {
        let mut bits = vec![0; 2];
        rules.iter().for_each(|rule| bits[rule / 64] |= 1 << (rule % 64));
        let mut set = Vec::new();
        set_of(&bits, &mut set);
        set.into()
    }

    #[test]
    fn pairs_that_leave_the_same_are_one_class() {
        let rows = [set(&[0, 70]), set(&[1]), set(&[])];
        let read = |table: &Table, row, column| table.read(row, column, Uncounted);
        let columns = [set(&[0, 1]), set(&[70]), set(&[0, 70])];
        let (table, left) = cross(&rows, &columns, &mut Budget::default()).unwrap();
        let table = table.table(Grows::default(), &mut Budget::default());
        let left = left.all();
        let of = |row, column| &left[read(&table, row, column) as usize];
        assert_eq!((of(0, 0), of(0, 1), of(0, 2)), (&set(&[0]), &set(&[70]), &set(&[0, 70])));
        assert_eq!((read(&table, 1, 1), read(&table, 1, 2)), (read(&table, 2, 0), read(&table, 2, 2)));
        let verdicts: Vec<u32> = (0..128).map(|rule| rule + 1).collect();
        let mut numbered = Distinct::default();
        rows.iter().for_each(|row| _ = numbered.number(row));
        let table = Cells::of_first(&numbered.sets, &columns, &mut Budget::default(), &verdicts).unwrap();
        let table = table.table(Grows::default(), &mut Budget::default());
        assert_eq!(
            (read(&table, 0, 2), read(&table, 0, 1), read(&table, 1, 0), read(&table, 2, 0)),
            (1, 71, 2, 0)
        );
        assert_eq!(left.len(), 5);
    }

    /// The rules of a set.
    fn rules_in(set: &[u64]) -> BTreeSet<u32> {
        let mut all = BTreeSet::new();
        common(set, set, |place, word| {
            all.extend((0..64).filter(|bit| word >> bit & 1 != 0).map(|bit| place as u32 * 64 + bit));
            true
        });
        all
    }

    /// Rules of sets in many words: few, side by side, all.
    fn rules() -> impl Strategy<Value = BTreeSet<u32>> {
        let few = prop::collection::btree_set(0..RULES, 0..20);
        let row = (0..RULES, 0..RULES)
            .prop_map(|(one, other)| (one.min(other)..one.max(other)).collect::<BTreeSet<u32>>());
        let every = (1..300u32).prop_map(|step| (0..RULES).step_by(step as usize).collect::<BTreeSet<u32>>());
        prop_oneof![few, row, every]
    }

    /// More than a word of marks has room for.
    const RULES: u32 = 2 * 64 * 64 + 100;

    proptest! {
        /// Sets that are kept word by word say what sets of numbers say.
        #[test]
        fn sets_are_what_they_have(one in rules(), other in rules()) {
            let bits = |rules: &BTreeSet<u32>| {
                let mut words = vec![0; words_of(RULES as usize)];
                rules.iter().for_each(|rule| words[*rule as usize / 64] |= 1 << (rule % 64));
                let mut set = Vec::new();
                set_of(&words, &mut set);
                set
            };
            let (a, b, mut out) = (bits(&one), bits(&other), Vec::new());
            prop_assert_eq!(&rules_in(&a), &one);
            meet(&a, &b, &mut out);
            let both: BTreeSet<u32> = one.intersection(&other).copied().collect();
            prop_assert_eq!(&out, &bits(&both), "what is the same is written the same");
            prop_assert_eq!(first_of_both(&a, &b).0, both.first().map(|rule| *rule as usize));
            let list: Vec<u32> = other.iter().copied().collect();
            set_with(&a, &list, &mut out);
            prop_assert_eq!(&out, &bits(&one.union(&other).copied().collect()));
        }
    }
}
