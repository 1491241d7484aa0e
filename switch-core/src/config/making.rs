//! A routing table in the making, and what it changes of the one before it. Everything that routes come from is
//! gone through for each change; the tables that workers read are changed only where the outcome differs.

use super::ecmp::{Group, Hop};
use super::gateway::{Action, Table};
use crate::table::lpm::{Change, Lpm, NO_ROUTE, VALUE_MAX};
use hashbrown::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use switch_api::Prefix;

/// Numbers given out beyond twice those in use before they are given out anew.
const SPARE: usize = 1024;

/// Routes of a table, sorted by prefix, each prefix once.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    v4: Vec<Change>,
    v6: Vec<Change>,
}

/// What is added later to the same prefix counts.
#[derive(Debug, Default)]
pub(super) struct Making(Settled);

impl Making {
    pub(super) fn add(&mut self, prefix: Prefix, value: u32) {
        let Prefix { address, len } = prefix.network();
        match address {
            IpAddr::V4(v4) => self.0.v4.push(Change { key: u128::from(v4.to_bits()) << 96, len, value }),
            IpAddr::V6(v6) => self.0.v6.push(Change { key: v6.to_bits(), len, value }),
        }
    }

    /// The table `before`, as it is now.
    pub(super) fn finish(self, before: Table) -> Table {
        let made = Settled { v4: settled(self.0.v4), v6: settled(self.0.v6) };
        let changed = |lpm: &Lpm, was: &[Change], is: &[Change]| {
            let mut changes = difference(was, is);
            if changes.is_empty() { lpm.clone() } else { lpm.changed(&mut changes) }
        };
        let v4 = changed(&before.v4, &before.made.v4, &made.v4);
        let v6 = changed(&before.v6, &before.made.v6, &made.v6);
        Table { v4, v6, made: Arc::new(made) }
    }
}

fn settled(mut routes: Vec<Change>) -> Vec<Change> {
    routes.sort_by_key(|route| (route.key, route.len));
    // Of several the last stays, where the first was.
    routes.dedup_by(|later, first| {
        let same = (later.key, later.len) == (first.key, first.len);
        if same {
            first.value = later.value;
        }
        same
    });
    routes
}

/// What makes `was` into `is`; both are settled.
fn difference(was: &[Change], is: &[Change]) -> Vec<Change> {
    let place = |route: &Change| (route.key, route.len);
    let mut changes = Vec::new();
    let mut old = was.iter().peekable();
    for route in is {
        while let Some(gone) = old.next_if(|old| place(old) < place(route)) {
            changes.push(Change { value: NO_ROUTE, ..*gone });
        }
        if old.next_if(|old| place(old) == place(route)) != Some(route) {
            changes.push(*route);
        }
    }
    changes.extend(old.map(|gone| Change { value: NO_ROUTE, ..*gone }));
    changes
}

/// Actions and groups, each once. A number keeps its meaning from one snapshot to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// The first is number 1.
    pub(super) actions: Vec<Action>,
    by_action: HashMap<Action, u32>,
    pub(super) groups: Vec<Group>,
    by_hops: HashMap<Vec<Hop>, u16>,
    /// Uses of a number in this snapshot, at least as many as there are numbers in use.
    uses: usize,
}

impl Numbers {
    /// Begins a snapshot.
    pub(super) fn begin(&mut self) {
        self.uses = 0;
        // Number 1 is there for what finds no number of its own.
        self.action(Action::Unreachable);
    }

    /// Whether more numbers are given out than are in use, by far.
    pub(super) fn is_worn(&self) -> bool {
        self.actions.len() > 2 * self.uses + SPARE
            || self.actions.len() > VALUE_MAX as usize / 2 && self.uses < self.actions.len()
    }

    /// The number of an action. A table has room for [`VALUE_MAX`]; what is beyond is unreachable.
    pub(super) fn action(&mut self, action: Action) -> u32 {
        self.uses += 1;
        if self.actions.len() >= VALUE_MAX as usize && !self.by_action.contains_key(&action) {
            return 1;
        }
        *self.by_action.entry(action).or_insert_with(|| {
            self.actions.push(action);
            self.actions.len() as u32
        })
    }

    /// The number of a group of next hops; beyond as many as a table can name, that of none.
    pub(super) fn group(&mut self, hops: Vec<Hop>) -> u16 {
        if self.groups.len() >= VALUE_MAX as usize && !self.by_hops.contains_key(&hops) {
            return u16::MAX;
        }
        *self.by_hops.entry(hops).or_insert_with_key(|hops| {
            self.groups.push(Group::new(hops));
            (self.groups.len() - 1) as u16
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn routes() -> impl Strategy<Value = Vec<(Prefix, u32)>> {
        let one =
            (any::<[u8; 2]>(), 0u8..=32, any::<bool>(), 1u32..5).prop_map(|(bytes, len, is_v4, value)| {
                let v4 = std::net::Ipv4Addr::new(10, bytes[0] & 3, bytes[1] & 0xc0, 0);
                let address = if is_v4 { IpAddr::V4(v4) } else { IpAddr::V6(v4.to_ipv6_compatible()) };
                (Prefix { address, len: if is_v4 { len } else { 96 + len } }, value)
            });
        proptest::collection::vec(one, 0..30)
    }

    fn made(routes: &[(Prefix, u32)], before: Table) -> Table {
        let mut making = Making::default();
        routes.iter().for_each(|(prefix, value)| making.add(*prefix, *value));
        making.finish(before)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// A table that came about step by step says what one says that was made at once.
        #[test]
        fn a_changed_table_is_as_one_made_anew(steps in proptest::collection::vec(routes(), 1..6)) {
            let mut table = Table::default();
            for routes in &steps {
                table = made(routes, table);
                let anew = made(routes, Table::default());
                for n in 0..1024u32 {
                    let ip = 0x0a00_0000 | n << 8;
                    prop_assert_eq!(table.v4.find_v4(ip), anew.v4.find_v4(ip));
                    prop_assert_eq!(table.v6.find(u128::from(ip)), anew.v6.find(u128::from(ip)));
                }
            }
        }
    }

    #[test]
    fn one_route_more_is_one_change() {
        let route = |n: u8, value| Change { key: u128::from(n) << 120, len: 8, value };
        let was: Vec<Change> = (1..100).map(|n| route(n, 1)).collect();
        let mut is = was.clone();
        is[7].value = 2;
        is.remove(50);
        is.push(route(200, 3));
        assert_eq!(difference(&was, &is), [route(8, 2), route(51, NO_ROUTE), route(200, 3)]);
        assert!(difference(&is, &is).is_empty());
    }

    #[test]
    fn beyond_the_last_number_all_is_unreachable() {
        let mut numbers = Numbers::default();
        numbers.begin();
        let last = (0..u16::MAX).map(|fid| numbers.action(Action::Link(fid))).max();
        assert_eq!(last, Some(VALUE_MAX));
        let (new, known) = (numbers.action(Action::Link(u16::MAX)), numbers.action(Action::Link(5)));
        assert_eq!(numbers.actions[new as usize - 1], Action::Unreachable);
        assert_eq!(numbers.actions[known as usize - 1], Action::Link(5));
    }

    #[test]
    fn numbers_keep_their_meaning_until_most_are_unused() {
        let mut numbers = Numbers::default();
        numbers.begin();
        let first = numbers.action(Action::Link(7));
        for fid in 0..SPARE as u16 + 10 {
            let next = &mut numbers.clone();
            next.begin();
            assert_eq!(next.action(Action::Link(7)), first);
            next.action(Action::Link(fid));
            numbers = next.clone();
        }
        assert!(numbers.is_worn());
    }
}
