//! Files, put where they belong whole or not at all, and taken away again.

use super::manifest::Manifest;
use super::places::Root;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use switch_api::{ApiError, Code};

fn failed(path: &Path) -> impl Fn(std::io::Error) -> ApiError {
    let path = path.to_owned();
    move |error| crate::files::refused(&path, &error)
}

/// Puts a file of the installed system in place, noted. One that is there as it should be is nobody's business; another one
/// that we did not make is somebody's. Whether it changed anything.
pub fn put(
    root: &Root,
    manifest: &mut Manifest,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<bool, ApiError> {
    let real = root.at(path);
    let present = match std::fs::read(&real) {
        Ok(present) => Some(present),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed(&real)(error)),
    };
    let is_ours = manifest.files.iter().any(|file| file == path);
    match present {
        Some(present) if present == bytes => return Ok(false),
        Some(_) if !is_ours => {
            let text = format!("{} is there already, and is not what would be installed", path.display());
            return Err(ApiError::new(Code::Exists, text)
                .hint("if it is an older one of a package's, upgrade the package; otherwise move it away and install again"));
        }
        _ => {}
    }
    make_directory(root, manifest, path.parent().unwrap_or(path))?;
    if !is_ours {
        manifest.files.push(path.to_path_buf());
    }
    manifest.save(root)?;
    write(&real, bytes, mode)?;
    Ok(true)
}

/// Makes a directory of the installed system and those it is in, noted.
fn make_directory(root: &Root, manifest: &mut Manifest, path: &Path) -> Result<(), ApiError> {
    let mut missing: Vec<_> = path.ancestors().take_while(|path| !root.at(path).is_dir()).collect();
    missing.reverse();
    for path in missing {
        manifest.directories.push(path.to_path_buf());
        // A directory cannot hold its own note before it is there; the note's is always there.
        manifest.save(root)?;
        let real = root.at(path);
        std::fs::create_dir(&real).map_err(failed(&real))?;
    }
    Ok(())
}

/// Takes a file away that was put there.
pub fn remove(root: &Root, manifest: &mut Manifest, path: &Path) -> Result<(), ApiError> {
    unlink(&root.at(path))?;
    manifest.files.retain(|file| file != path);
    manifest.save(root)
}

/// Takes a file away, if it is there.
pub fn unlink(path: &Path) -> Result<(), ApiError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

/// Writes a file so that whoever looks sees the one before or this one, whole, also after a power failure.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ApiError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    // Runtimes look at endings: this one is no network's.
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new: PathBuf = directory.join(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let written = options.open(&new).and_then(|mut file| {
        // Whatever the umask is.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(directory)?.sync_all()
    });
    written.map_err(|error| {
        _ = std::fs::remove_file(&new);
        failed(path)(error)
    })
}
