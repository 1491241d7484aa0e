//! What install made, noted before it is made: what uninstall takes away, no more and no less.

use super::files::write;
use super::places::Root;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use switch_api::{ApiError, Code};

/// Where it is noted. Not in the daemon's own directory, which may be what is taken away.
const PATH: &str = "/var/lib/switch-installed.json";
/// Directories in which the daemon and the plugin keep state.
const STATE: [&str; 2] = ["/var/lib/switchd", "/var/lib/switch-cni"];

/// What was made. Paths are those of the installed system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Files, in the order in which they were made.
    pub files: Vec<PathBuf>,
    /// Directories made for them, outermost first.
    pub directories: Vec<PathBuf>,
    /// Directories of state that were not there before: none of theirs is anybody else's.
    pub state: Vec<PathBuf>,
    /// The node's port, if it was declared by us.
    #[serde(default)]
    pub port: Option<String>,
}

impl Manifest {
    /// What was noted here; none if nothing was.
    pub fn read(root: &Root) -> Result<Option<Self>, ApiError> {
        let path = root.at(Path::new(PATH));
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(crate::files::refused(&path, &error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            ApiError::new(Code::System, format!("{}: {error}", path.display()))
                .hint("this says what install made; put it right, or remove by hand what docs/CNI.md lists, and then this file")
        })
    }

    /// Notes it, on disk.
    pub fn save(&self, root: &Root) -> Result<(), ApiError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| ApiError::new(Code::Internal, error.to_string()))?;
        write(&root.at(Path::new(PATH)), &text, super::READABLE)
    }

    /// Notes which directories of state are not there yet, once.
    pub fn note_state(&mut self, root: &Root) {
        if self.files.is_empty() {
            let missing = |path: &&&str| !root.at(Path::new(path)).exists();
            self.state = STATE.iter().filter(missing).map(PathBuf::from).collect();
        }
    }

    /// State, directories that are empty now, and the note itself.
    pub fn forget(&self, root: &Root) -> Result<(), ApiError> {
        for path in &self.state {
            match std::fs::remove_dir_all(root.at(path)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(crate::files::refused(path, &error));
                }
                _ => {}
            }
        }
        // Innermost first; one that others use by now stays.
        self.directories.iter().rev().for_each(|path| _ = std::fs::remove_dir(root.at(path)));
        super::files::unlink(&root.at(Path::new(PATH)))
    }
}
