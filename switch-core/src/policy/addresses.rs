//! Which identity an address has: the prefix tables, and what was put into them. Where one policy more or less leaves more than half of the
//! addresses what they were, the next tables are these with what differs, and share the rest.

use super::budget::Budget;
use super::compile::TooMuch;
use crate::table::lpm::{Change, Mapped, NO_ROUTE};
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    pub table: Mapped,
    /// Of IPv4 and of IPv6, by key and length.
    said: Arc<[Vec<Change>; 2]>,
}

impl Addresses {
    /// Those that say this, by key and length, and nothing else.
    pub fn saying(&self, said: [Vec<Change>; 2], budget: &mut Budget) -> Result<Self, TooMuch> {
        let len = |said: &[Vec<Change>; 2]| said.iter().map(Vec::len).sum::<usize>();
        budget.keep(len(&said) * size_of::<Change>())?;
        let differ = [0, 1].map(|version| difference(&self.said[version], &said[version]));
        let most = budget.left();
        let from_these =
            (len(&differ) < len(&said) / 2).then(|| self.table.changed(differ, most).ok()).flatten();
        // On the way from what was to what is there may be more than either takes.
        let table = from_these.map_or_else(|| Mapped::default().changed(said.clone(), most), Ok);
        let table = table.map_err(|bytes| TooMuch::Bytes(budget.kept() + bytes))?;
        budget.keep(table.bytes())?;
        Ok(Self { table, said: Arc::new(said) })
    }
}

/// What makes the one say what the other does.
fn difference(before: &[Change], after: &[Change]) -> Vec<Change> {
    let of = |change: &Change| (change.key, change.len);
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    let mut differ = Vec::new();
    loop {
        match (before.peek(), after.peek()) {
            (Some(had), Some(has)) if of(had) == of(has) => {
                differ.extend((had != has).then_some(**has));
                before.next();
                after.next();
            }
            (Some(had), has) if has.is_none_or(|has| of(had) < of(has)) => {
                differ.push(Change { value: NO_ROUTE, ..**had });
                before.next();
            }
            (_, Some(has)) => {
                differ.push(**has);
                after.next();
            }
            (_, None) => return differ,
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::probes::Uncounted;
    use crate::wire::hop::V4_MAPPED;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Prefixes of few addresses, and what is said of each.
    fn said() -> impl Strategy<Value = [Vec<Change>; 2]> {
        let of = |bits: u8| {
            let prefixes = prop::collection::btree_map((0u128..64, 0u8..=6), 1u32..5, 0..40);
            prefixes.prop_map(move |prefixes| {
                let place = |((key, len), value): ((u128, u8), u32)| {
                    let (key, len) = (key << 122, bits - 6 + len);
                    let key = key >> (bits - 6) & !(u128::MAX.checked_shr(len.into()).unwrap_or(0));
                    ((key, len), value)
                };
                let placed: BTreeMap<_, _> = prefixes.into_iter().map(place).collect();
                placed.into_iter().map(|((key, len), value)| Change { key, len, value }).collect::<Vec<_>>()
            })
        };
        (of(32), of(128)).prop_map(|(v4, v6)| [v4, v6])
    }

    proptest! {
        /// Tables that go on from others say what those say that are made from nothing.
        #[test]
        fn what_is_said_now_is_said_whatever_was_said_before(all in prop::collection::vec(said(), 1..6)) {
            let mut goes_on = Addresses::default();
            for said in all {
                let anew = Addresses::default().saying(said.clone(), &mut Budget::default()).unwrap();
                goes_on = goes_on.saying(said, &mut Budget::default()).unwrap();
                for ip in (0..64).flat_map(|n| [V4_MAPPED | n, n]) {
                    prop_assert_eq!(
                        goes_on.table.find_with(ip, Uncounted), anew.table.find_with(ip, Uncounted), "{:x}", ip
                    );
                }
            }
        }
    }
}
