//! Numbers for what becomes of destinations: routing tables have room for 16 bits. A number means the same for as
//! long as some route has it, from one snapshot to the next; then it is given out again.

use super::ecmp::{Group, Hop};
use super::gateway::{Action, Entry, NO_MTU};
use crate::table::lpm::VALUE_MAX;
use immutable_chunkmap::map::Map;
use std::num::NonZeroU16;
use std::sync::Arc;

/// The number of [`Action::Unreachable`], which what finds no number of its own has.
const UNREACHABLE: u32 = 1;

/// What becomes of a destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer {
    pub(super) goal: Goal,
    /// See [`Entry`].
    pub(super) mtu: u16,
    /// See [`Entry`].
    pub(super) counter: Option<NonZeroU16>,
}

/// Where it leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Goal {
    /// As it stands; not [`Action::Via`].
    Action(Action),
    /// One of these next hops.
    Via(Vec<Hop>),
}

impl From<Action> for Answer {
    fn from(action: Action) -> Self {
        Self { goal: Goal::Action(action), mtu: NO_MTU, counter: None }
    }
}

/// What workers read: by number, the first is 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    pub(super) entries: Vec<Entry>,
    /// Where the action is to go by one.
    pub(super) groups: Vec<Group>,
}

/// Who has which number, and how many routes have it.
#[derive(Clone, Debug)]
pub(super) struct Book {
    numbers: Arc<Numbers>,
    by_answer: Map<Answer, u32, 32>,
    uses: Vec<u32>,
    free: Vec<u32>,
    /// Somebody found no number.
    short: bool,
    /// Numbers that may have lost their last use.
    left: Vec<u32>,
}

impl Default for Book {
    fn default() -> Self {
        let mut book = Self {
            numbers: Arc::default(),
            by_answer: Map::new(),
            uses: Vec::new(),
            free: Vec::new(),
            short: false,
            left: Vec::new(),
        };
        let unreachable = book.number(Action::Unreachable.into());
        // Never given back.
        book.take(unreachable);
        book
    }
}

impl Book {
    /// The number of an answer, which its caller takes. There are [`VALUE_MAX`]; what is beyond is unreachable.
    pub(super) fn number(&mut self, answer: Answer) -> u32 {
        if let Some(number) = self.by_answer.get(&answer) {
            return *number;
        }
        let numbers = Arc::make_mut(&mut self.numbers);
        let number = match self.free.pop() {
            Some(number) => number,
            None if numbers.entries.len() >= VALUE_MAX as usize => {
                self.short = true;
                return UNREACHABLE;
            }
            None => {
                numbers.entries.push(Entry::from(Action::Unreachable));
                numbers.groups.push(Group::default());
                self.uses.push(0);
                numbers.entries.len() as u32
            }
        };
        let at = number as usize - 1;
        let (action, group) = match &answer.goal {
            Goal::Action(action) => (*action, Group::default()),
            Goal::Via(hops) => (Action::Via(at as u16), Group::new(hops)),
        };
        (numbers.entries[at], numbers.groups[at]) =
            (Entry { action, mtu: answer.mtu, counter: answer.counter }, group);
        self.by_answer.insert_cow(answer, number);
        number
    }

    /// A route more has it.
    pub(super) fn take(&mut self, number: u32) {
        if let Some(uses) = self.uses.get_mut((number as usize).wrapping_sub(1)) {
            *uses += 1;
        }
    }

    /// A route less; of no number, nothing.
    pub(super) fn leave(&mut self, number: u32) {
        if let Some(uses) = self.uses.get_mut((number as usize).wrapping_sub(1)) {
            *uses -= 1;
            if *uses == 0 {
                self.left.push(number);
            }
        }
    }

    /// Ends a change: what nobody has any more is free. A snapshot that still has it has numbers of its own.
    pub(super) fn settle(&mut self) -> Arc<Numbers> {
        for number in std::mem::take(&mut self.left) {
            let at = number as usize - 1;
            let Entry { action, mtu, counter } = self.numbers.entries[at];
            let goal = match action {
                Action::Via(_) => Goal::Via(self.numbers.groups[at].hops().to_vec()),
                action => Goal::Action(action),
            };
            let answer = Answer { goal, mtu, counter };
            if self.uses[at] == 0 && self.by_answer.remove_cow(&answer).is_some() {
                self.free.push(number);
            }
        }
        self.numbers.clone()
    }

    /// Numbers that somebody has, and how many have them.
    #[cfg(test)]
    pub(super) fn used(&self) -> std::collections::BTreeMap<u32, u32> {
        (1..).zip(self.uses.iter().copied()).filter(|(_, uses)| *uses > 0).collect()
    }

    /// Whether somebody found no number and could have one now.
    pub(super) fn has_room_again(&self) -> bool {
        self.short && !self.free.is_empty()
    }

    /// Forgets that: everybody asks anew.
    pub(super) fn ask_anew(&mut self) {
        self.short = false;
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    fn link(fid: u16) -> Answer {
        Action::Link(fid).into()
    }

    #[test]
    fn beyond_the_last_number_all_is_unreachable_until_one_is_free() {
        let mut book = Book::default();
        let last = (0..u16::MAX).map(|fid| {
            let number = book.number(link(fid));
            book.take(number);
            number
        });
        assert_eq!(last.max(), Some(VALUE_MAX));
        assert_eq!(book.number(link(u16::MAX)), UNREACHABLE);
        let known = book.number(link(5));
        assert_eq!(book.numbers.entries[known as usize - 1].action, Action::Link(5));
        assert!(!book.has_room_again());
        book.leave(known);
        book.settle();
        assert!(book.has_room_again());
        assert_eq!(book.number(link(u16::MAX)), known);
    }

    #[test]
    fn a_number_means_the_same_while_somebody_has_it() {
        let mut book = Book::default();
        let hops = |ip| {
            let goal = Goal::Via(vec![Hop { fid: 1, ip, weight: 1 }]);
            Answer { goal, mtu: NO_MTU, counter: None }
        };
        let (one, other) = (book.number(hops(1)), book.number(hops(2)));
        for number in [one, one, other] {
            book.take(number);
        }
        book.leave(one);
        book.leave(other);
        let before = book.settle();
        assert_eq!(book.number(hops(1)), one, "a route has it still");
        assert_eq!(book.number(hops(3)), other, "it is given out again");
        assert_eq!(
            before.groups[other as usize - 1].hops()[0].ip,
            2,
            "who reads an older one reads what was"
        );
    }
}
