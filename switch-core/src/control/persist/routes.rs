//! Declared routes, of which there may be a million: a row each.

use super::{ROUTES, text};
use crate::config::routes::{Place, Routes, Way, declared};
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use switch_api::{Name, Prefix, Route};

/// Writes what `routes` changed of those that they were made of.
pub(super) fn write(transaction: &WriteTransaction, routes: &Routes) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(ROUTES)?;
    for (vrf, place) in routes.changed() {
        let key = text(&(vrf, place.prefix, place.metric));
        match routes.get(vrf, *place) {
            Some(way) => _ = table.insert(key.as_str(), text(&**way).as_bytes())?,
            None => _ = table.remove(key.as_str())?,
        }
    }
    Ok(())
}

/// Gives each of these a row.
pub(super) fn write_all(transaction: &WriteTransaction, routes: &[Route]) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(ROUTES)?;
    for route in routes {
        let way = Way::of(route);
        table.insert(text(&(&route.vrf, route.prefix, route.metric)).as_str(), text(&way).as_bytes())?;
    }
    Ok(())
}

/// The routes that are kept, each in a row.
pub(super) fn read(database: &Database) -> Result<Result<Vec<Route>, serde_json::Error>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(ROUTES) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Ok(Vec::new())),
        Err(error) => return Err(error.into()),
    };
    let mut routes = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        match read_route(key.value(), value.value()) {
            Ok(route) => routes.push(route),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(routes))
}

fn read_route(key: &str, value: &[u8]) -> Result<Route, serde_json::Error> {
    let (vrf, prefix, metric): (Name, Prefix, u32) = serde_json::from_str(key)?;
    Ok(declared(&vrf, Place { prefix, metric }, &serde_json::from_slice::<Way>(value)?))
}
