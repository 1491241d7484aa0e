//! Address sets, and each of their members: a row each.

use super::{MEMBERS, SETS, text};
use crate::acl::sets::{Difference, Set, Sets};
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use std::collections::BTreeMap;
use switch_api::{Name, Owner, Prefix};

/// Writes where `sets` differ from those that are kept.
pub(super) fn write(
    transaction: &WriteTransaction,
    sets: &Sets,
    difference: &Difference,
) -> Result<(), redb::Error> {
    if difference.is_empty() {
        return Ok(());
    }
    if !difference.sets.is_empty() {
        let mut kept = transaction.open_table(SETS)?;
        for name in &difference.sets {
            match sets.get(name) {
                Some(set) => _ = kept.insert(name.as_str(), text(&(set.owner, set.declared)).as_bytes())?,
                None => _ = kept.remove(name.as_str())?,
            }
        }
    }
    // Made with the first set: whoever reads takes both or none.
    let mut members = transaction.open_table(MEMBERS)?;
    for change in &difference.members {
        let key = text(&(&change.set, change.member));
        match change.is {
            true => _ = members.insert(key.as_str(), &[][..])?,
            false => _ = members.remove(key.as_str())?,
        }
    }
    Ok(())
}

/// The address sets that are kept, each member in a row.
pub(super) fn read(database: &Database) -> Result<Result<Sets, serde_json::Error>, redb::Error> {
    let transaction = database.begin_read()?;
    let (kept, members) = match (transaction.open_table(SETS), transaction.open_table(MEMBERS)) {
        (Ok(kept), Ok(members)) => (kept, members),
        (Err(redb::TableError::TableDoesNotExist(_)), _) => return Ok(Ok(Sets::default())),
        (Err(error), _) | (_, Err(error)) => return Err(error.into()),
    };
    let mut sets: BTreeMap<Name, Set> = BTreeMap::new();
    for row in kept.iter()? {
        let (key, value) = row?;
        let read = serde_json::from_str(&text(&key.value()))
            .and_then(|name: Name| Ok((name, serde_json::from_slice::<(Owner, bool)>(value.value())?)));
        match read {
            Ok((name, (owner, declared))) => _ = sets.insert(name, Set::new(owner, declared)),
            Err(error) => return Ok(Err(error)),
        }
    }
    for row in members.iter()? {
        match serde_json::from_str::<(Name, Prefix)>(row?.0.value()) {
            Ok((name, member)) => _ = sets.get_mut(&name).map(|set| set.put(member, true)),
            Err(error) => return Ok(Err(error)),
        }
    }
    let mut all = Sets::default();
    sets.into_iter().for_each(|(name, set)| all.insert(name, set));
    Ok(Ok(all))
}
