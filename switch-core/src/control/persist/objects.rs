//! What is declared, but for routes and address sets, which have rooms of their own: of what there may be many (ports, policies, lists,
//! rules of translation) each object is a row, and the rest is one value. A change writes the rows that it is about, and the value
//! if that is another: what it costs does not grow with what is declared beside it.
//!
//! What a change is about is seen by comparing the model before it with the model after it: an object that both share was not changed.

use super::{KEY, OBJECTS, TABLE, text};
use crate::config::Model;
use crate::config::model::Declared;
use crate::config::policies::key_of;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use serde::de::Error;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use switch_api::{Acl, Nat, NetworkPolicy, Port};

/// The first part of a row's key. The others are its name.
const PORT: &str = "port";
const POLICY: &str = "policy";
const ACL: &str = "acl";
const NAT: &str = "nat";

/// A row, and what is to be in it; none: it goes.
type Row = (String, Option<String>);

/// What a change writes.
pub(super) struct Change {
    rows: Vec<Row>,
    /// Every other row goes.
    is_all: bool,
    /// The one value, if it is another than the one that is kept.
    value: Option<Vec<u8>>,
}

impl Change {
    /// Of `after`, where it differs from `before`. `value` is the one value that is kept; none: what is kept is not known, and all is
    /// written.
    pub fn of(before: &Model, after: &Model, value: Option<&[u8]>) -> Self {
        let is_all = value.is_none();
        let nothing = Model::default();
        let rows = rows(if is_all { &nothing } else { before }, after);
        let next = text(&after.declared_together()).into_bytes();
        Self { rows, is_all, value: (value != Some(&*next)).then_some(next) }
    }

    /// Whether what is kept is that already.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && !self.is_all && self.value.is_none()
    }

    pub fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        if self.is_all || !self.rows.is_empty() {
            let mut table = transaction.open_table(OBJECTS)?;
            if self.is_all {
                table.retain(|_, _| false)?;
            }
            for (key, value) in &self.rows {
                match value {
                    Some(value) => _ = table.insert(key.as_str(), value.as_bytes())?,
                    None => _ = table.remove(key.as_str())?,
                }
            }
        }
        if let Some(value) = &self.value {
            transaction.open_table(TABLE)?.insert(KEY, value.as_slice())?;
        }
        Ok(())
    }

    /// Rows that are written, and whether the one value is.
    #[cfg(test)]
    pub fn len(&self) -> (usize, bool) {
        (self.rows.len(), self.value.is_some())
    }

    /// The one value that is kept once this is written, if it was another before.
    pub fn into_value(self) -> Option<Vec<u8>> {
        self.value
    }
}

/// Rows that differ.
fn rows(before: &Model, after: &Model) -> Vec<Row> {
    let mut rows = Vec::new();
    differ(
        (&before.ports, &after.ports),
        |had, has| had.id == has.id && Arc::ptr_eq(&had.object, &has.object),
        |name, port| rows.push((text(&(PORT, name)), port.map(|port| port_row(port.id, &port.object).1))),
    );
    differ(
        (&before.policies, &after.policies),
        |had, has| Arc::ptr_eq(&had.policy, &has.policy),
        |(namespace, name), placed| {
            let value = placed.map(|placed| text(&*placed.policy));
            rows.push((text(&(POLICY, namespace, name)), value));
        },
    );
    differ(
        (&before.acls, &after.acls),
        |had, has| Arc::ptr_eq(&had.acl, &has.acl),
        |name, placed| rows.push((text(&(ACL, name)), placed.map(|placed| text(&*placed.acl)))),
    );
    differ(
        (&before.nats, &after.nats),
        |had, has| Arc::ptr_eq(&had.nat, &has.nat),
        |name, placed| rows.push((text(&(NAT, name)), placed.map(|placed| text(&*placed.nat)))),
    );
    rows
}

/// Tells of each name what is behind it now, where that is not the same as before.
fn differ<'a, K: Ord, V>(
    (before, after): (&'a BTreeMap<K, V>, &'a BTreeMap<K, V>),
    is_same: impl Fn(&V, &V) -> bool,
    mut tell: impl FnMut(&'a K, Option<&'a V>),
) {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((had, _)), Some((has, _))) => had.cmp(has),
        };
        let had = if order.is_le() { before.next() } else { None };
        let has = if order.is_ge() { after.next() } else { None };
        match (had, has) {
            (Some((_, had)), Some((_, has))) if is_same(had, has) => {}
            (_, Some((name, has))) => tell(name, Some(has)),
            (Some((name, _)), None) => tell(name, None),
            (None, None) => return,
        }
    }
}

/// Ports are numbered in the order of the numbers that they had.
fn port_row(number: u16, port: &Port) -> (String, String) {
    (text(&(PORT, &port.name)), text(&(number, port)))
}

/// Gives each object that an older version kept in the one value a row, and takes it out of there.
pub(super) fn move_in(transaction: &WriteTransaction, declared: &Declared) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(OBJECTS)?;
    let ports = (0..).zip(&declared.ports).map(|(number, port)| port_row(number, port));
    let policy = |it: &NetworkPolicy| (text(&(POLICY, &it.metadata.namespace, &it.metadata.name)), text(it));
    let rows = ports
        .chain(declared.policies.iter().map(policy))
        .chain(declared.acls.iter().map(|acl| (text(&(ACL, &acl.name)), text(acl))))
        .chain(declared.nats.iter().map(|nat| (text(&(NAT, &nat.name)), text(nat))));
    for (key, value) in rows {
        table.insert(key.as_str(), value.as_bytes())?;
    }
    transaction.open_table(TABLE)?.insert(KEY, text(declared).as_bytes())?;
    Ok(())
}

/// Adds the objects that have rows.
pub(super) fn read(
    database: &Database,
    declared: &mut Declared,
) -> Result<Result<(), serde_json::Error>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(OBJECTS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Ok(())),
        Err(error) => return Err(error.into()),
    };
    let mut ports = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        if let Err(error) = read_row(key.value(), value.value(), &mut ports, declared) {
            return Ok(Err(error));
        }
    }
    ports.sort_by_key(|(number, _)| *number);
    declared.ports = ports.into_iter().map(|(_, port)| port).collect();
    // Keys are in the order of their text, and names in their own.
    declared.policies.sort_by_key(key_of);
    declared.acls.sort_by(|one, other| one.name.cmp(&other.name));
    declared.nats.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Ok(()))
}

fn read_row(
    key: &str,
    value: &[u8],
    ports: &mut Vec<(u16, Port)>,
    declared: &mut Declared,
) -> Result<(), serde_json::Error> {
    let name: Vec<String> = serde_json::from_str(key)?;
    match name.first().map(String::as_str) {
        Some(PORT) => ports.push(serde_json::from_slice(value)?),
        Some(POLICY) => declared.policies.push(serde_json::from_slice::<NetworkPolicy>(value)?),
        Some(ACL) => declared.acls.push(serde_json::from_slice::<Acl>(value)?),
        Some(NAT) => declared.nats.push(serde_json::from_slice::<Nat>(value)?),
        _ => return Err(serde_json::Error::custom(format!("a row {key:?}"))),
    }
    Ok(())
}
