//! In which namespaces ports' devices were made: a row each.

use super::{HOMES, text};
use crate::control::home::{Home, Homes};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use std::collections::BTreeMap;
use switch_api::Name;

pub(super) fn write(transaction: &WriteTransaction, homes: &Homes) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(HOMES)?;
    for (port, home) in homes.unkept() {
        match home {
            Some(home) => _ = table.insert(port.as_str(), text(home).as_bytes())?,
            None => _ = table.remove(port.as_str())?,
        }
    }
    Ok(())
}

pub(super) fn read(transaction: &ReadTransaction) -> Result<BTreeMap<Name, Home>, String> {
    let table = match transaction.open_table(HOMES) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.to_string()),
    };
    let mut homes = BTreeMap::new();
    for row in table.iter().map_err(|error| error.to_string())? {
        let (port, home) = row.map_err(|error| error.to_string())?;
        let name = port.value().parse::<Name>().map_err(|error| error.to_string())?;
        let home = serde_json::from_slice(home.value()).map_err(|error| format!("{name}: {error}"))?;
        homes.insert(name, home);
    }
    Ok(homes)
}
