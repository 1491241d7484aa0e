//! Attachments written to files: one each, whole or not at all, and on disk when it is said to be.

use crate::switch;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use switch_api::Holder;

/// Writes one down. On return it is on disk.
pub fn write(directory: &Path, holder: &Holder) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let path = of(directory, holder);
    let unfinished = path.with_extension("new");
    let written = finish(&unfinished, holder).and_then(|()| fs::rename(&unfinished, &path));
    if written.is_err() {
        _ = fs::remove_file(&unfinished);
    }
    written.and_then(|()| File::open(directory)?.sync_all())
}

fn finish(unfinished: &Path, holder: &Holder) -> io::Result<()> {
    let mut file = File::create(unfinished)?;
    file.write_all(&serde_json::to_vec(holder)?)?;
    file.sync_all()
}

/// Where one is.
pub fn of(directory: &Path, holder: &Holder) -> PathBuf {
    directory.join(format!("{}.json", switch::name(holder, 0)))
}

/// All that are there; none if nothing was ever written.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let is_note = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    Ok(paths.into_iter().filter(is_note).collect())
}

/// What one says. None for what was not written by us: renames are whole.
pub fn read(path: &Path) -> io::Result<Option<Holder>> {
    Ok(serde_json::from_slice(&fs::read(path)?).ok())
}
