//! Which format a state file has. It says so itself, in a row of its own, so that a file that a later version has written is refused and
//! not half understood; one without the row is of the time before there was one, and is given it. What is no state file, or a damaged
//! one, is refused before anything of it is used: never a half state, and never an empty one without a word.

use super::{
    HELD, HOMES, KEY, LEASES, MEMBERS, OBJECTS, OUTSIDE, PAST, PENDING, POOLS, ROUTES, Rows, SETS,
    StoreError, TABLE, create, text,
};
use redb::{Database, ReadableDatabase, ReadableTable, TableHandle, WriteTransaction};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The format written here. 1 is what was written before formats had a number, and 2 has the same tables: ports, policies, lists and rules
/// of translation were part of the one value, and have rows since 3; since 4 it is noted in which namespaces ports' devices were made. It is raised with every table, row or field without which an older
/// version would do something else than what was declared.
pub(super) const FORMAT: u32 = 4;
/// The first in which ports, policies, lists and rules of translation have rows.
pub(super) const WITH_ROWS: u32 = 3;
/// What was written before formats had a number.
const FIRST: u32 = 1;

/// The number, under [`KEY`].
const FORMATS: Rows = Rows::new("format");

/// Every table of this format. A new one is added here.
const KNOWN: [Rows; 13] =
    [FORMATS, TABLE, OBJECTS, ROUTES, SETS, MEMBERS, POOLS, LEASES, HELD, HOMES, PAST, PENDING, OUTSIDE];

/// With what a file of redb's begins (its design document, "Super header").
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

/// Opens or creates a file, whatever is in it: what is no database, or has been damaged, is an error.
pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    let shown = path.display().to_string();
    let mut start = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start));
    let has_magic = match read {
        // It is made, or the library says why it cannot be.
        Err(_) | Ok(0) => true,
        Ok(_) => start == MAGIC,
    };
    if !has_magic {
        return Err(StoreError::Foreign { path: shown });
    }
    create(path).map_err(|error| failed(&shown, error))
}

/// Reads from a file: the library panics at some of what a damaged one can contain.
pub(super) fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let what = "its pages contradict each other".into();
        Err(StoreError::Damaged { path: path.display().to_string(), what })
    })
}

/// What went wrong: the disk, or what is on it.
pub(super) fn failed(shown: &str, error: redb::Error) -> StoreError {
    let path = shown.to_owned();
    match error {
        redb::Error::Corrupted(what) => StoreError::Damaged { path, what },
        error => StoreError::Database { path, error: error.into() },
    }
}

/// Refuses a file in which there is what this version does not know. Of which format it is; of none yet, the first.
pub(super) fn check(path: &Path, database: &Database) -> Result<u32, StoreError> {
    let shown = path.display().to_string();
    let number = number(database).map_err(|error| failed(&shown, error))?;
    match number {
        Some(Ok(found)) if found > FORMAT => return Err(StoreError::Newer { path: shown, found }),
        Some(Err(error)) => return Err(StoreError::Content { path: shown, error }),
        _ => {}
    }
    if let Some(what) = unknown(database).map_err(|error| failed(&shown, error))? {
        return Err(StoreError::Unknown { path: shown, what });
    }
    Ok(number.and_then(Result::ok).unwrap_or(FIRST))
}

/// The number of the format; none in a file without one.
fn number(database: &Database) -> Result<Option<Result<u32, serde_json::Error>>, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(FORMATS) {
        Ok(table) => Ok(table.get(KEY)?.map(|row| serde_json::from_slice(row.value()))),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A table, or a row beside the one value, that this version does not know.
fn unknown(database: &Database) -> Result<Option<String>, redb::Error> {
    let transaction = database.begin_read()?;
    let is_known = |name: &str| KNOWN.iter().any(|table| table.name() == name);
    if let Some(table) = transaction.list_tables()?.find(|table| !is_known(table.name())) {
        return Ok(Some(format!("a table {:?}", table.name())));
    }
    for one in [FORMATS, TABLE, OUTSIDE] {
        let table = match transaction.open_table(one) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        for row in table.iter()? {
            let (key, _) = row?;
            if key.value() != KEY {
                return Ok(Some(format!("a row {:?} in its table {:?}", key.value(), one.name())));
            }
        }
    }
    Ok(None)
}

/// A file has this format from now on: what there is more in it is there as soon as it is written.
pub(super) fn raise(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    write(&transaction, FORMAT)?;
    Ok(transaction.commit()?)
}

/// Says of which format a file is.
pub(super) fn write(transaction: &WriteTransaction, number: u32) -> Result<(), redb::Error> {
    transaction.open_table(FORMATS)?.insert(KEY, text(&number).as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::tests::write_value;
    use super::*;
    use crate::config::Model;
    use std::path::PathBuf;
    use switch_api::{Bridge, Request};

    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("switchd-format-{name}-{}", std::process::id()));
        _ = std::fs::remove_file(&path);
        path
    }

    fn bridges() -> Vec<Bridge> {
        vec![Bridge::new("br0".parse().unwrap())]
    }

    /// A file with a bridge in it.
    fn kept(name: &str) -> PathBuf {
        let path = path(name);
        let (mut store, _) = Store::open(&path).unwrap();
        let before = Model::default();
        let after = before.apply(&Request::BridgeAdd(bridges().remove(0))).unwrap();
        store.keep(&before, &after).unwrap();
        path
    }

    /// Why a file is refused, each time: nothing of it was changed for a file that could be taken.
    fn refusal(path: &Path) -> String {
        let refused = || match Store::open(path) {
            Err(error) => error.to_string(),
            Ok((_, found)) => panic!("it was taken, with {} bridges", found.bridges.len()),
        };
        let error = refused();
        assert_eq!(refused(), error);
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("move the file away"), "it does not say what to do: {error}");
        std::fs::remove_file(path).unwrap();
        error
    }

    #[test]
    fn a_file_says_its_format() {
        let path = kept("says");
        let database = create(&path).unwrap();
        assert_eq!(number(&database).unwrap().unwrap().unwrap(), FORMAT);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let path = kept("newer");
        let database = create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        write(&transaction, FORMAT + 1).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let said = refusal(&path);
        assert!(
            said.contains(&format!("format {}", FORMAT + 1)) && said.contains("update switchd"),
            "{said}"
        );
    }

    #[test]
    fn unknown_tables_and_rows_are_refused_and_not_taken_for_nothing() {
        for (name, table, key) in [("table", "declared-v9", KEY), ("row", "declared", "v2")] {
            let path = kept(name);
            let database = create(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(Rows::new(table)).unwrap().insert(key, b"{}".as_slice()).unwrap();
            transaction.commit().unwrap();
            drop(database);
            let said = refusal(&path);
            assert!(said.contains(table) && said.contains("update switchd"), "{said}");
        }
    }

    #[test]
    fn a_file_without_a_format_is_taken_over_and_has_one_from_then_on() {
        let path = path("older");
        let database = create(&path).unwrap();
        write_value(&database, &serde_json::json!({ "bridges": bridges() }));
        assert!(number(&database).unwrap().is_none());
        drop(database);
        for _ in 0..2 {
            let (store, found) = Store::open(&path).unwrap();
            assert_eq!(found.bridges, bridges());
            drop(store);
            assert_eq!(number(&create(&path).unwrap()).unwrap().unwrap().unwrap(), FORMAT);
        }
        std::fs::remove_file(path).unwrap();
    }

    /// Nothing was noted there of namespaces, and everything else is where it is now.
    #[test]
    fn a_file_from_before_namespaces_were_noted_is_taken_as_it_is() {
        let path = kept("third");
        let database = create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        write(&transaction, WITH_ROWS).unwrap();
        transaction.delete_table(HOMES).unwrap();
        transaction.commit().unwrap();
        drop(database);
        for _ in 0..2 {
            let (mut store, found) = Store::open(&path).unwrap();
            assert_eq!(found.bridges, bridges());
            assert!(store.homes().unwrap().is_empty());
            drop(store);
            assert_eq!(number(&create(&path).unwrap()).unwrap().unwrap().unwrap(), FORMAT);
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_no_state_file_is_refused() {
        for (name, bytes) in
            [("garbage", b"no database at all, but a letter".repeat(300)), ("short", b"x".to_vec())]
        {
            let path = path(name);
            std::fs::write(&path, bytes).unwrap();
            assert!(refusal(&path).contains("is no state file"));
        }
    }

    /// Cut off at any place, a file is refused or whole: a database may have empty pages at its end.
    #[test]
    fn a_file_that_was_cut_off_is_never_half_a_state() {
        let whole = kept("whole");
        let bytes = std::fs::read(&whole).unwrap();
        std::fs::remove_file(whole).unwrap();
        let mut refused = 0;
        for eighth in 1..8 {
            let path = path("cut");
            std::fs::write(&path, &bytes[..bytes.len() * eighth / 8]).unwrap();
            match Store::open(&path) {
                Ok((_, found)) => assert_eq!(found.bridges, bridges(), "cut at {eighth}/8"),
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("move the file away"), "{error}");
                }
            }
            _ = std::fs::remove_file(&path);
        }
        assert!(refused > 0, "no file was cut off where something was");
    }

    /// Text that was damaged on the disk: the checksum of its page tells, or the text is no text any more.
    #[test]
    fn damaged_text_is_refused() {
        let path = kept("text");
        let mut bytes = std::fs::read(&path).unwrap();
        let needle = b"\"br0\"";
        let at: Vec<usize> =
            (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
        assert!(!at.is_empty());
        at.iter().for_each(|at| bytes[*at] = b'}');
        std::fs::write(&path, bytes).unwrap();
        refusal(&path);
    }
}
