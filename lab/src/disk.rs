//! A disk of a test's own, in memory: small enough to be filled, and quick.

use crate::Node;
use std::path::PathBuf;

/// A file system in a node's directory, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Of so many MiB.
    pub fn new(node: &Node, mib: u32) -> Self {
        let path = node.directory().join("small");
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (size, shown) = (format!("size={mib}m"), path.display().to_string());
        crate::net::run("mount", &["-t", "tmpfs", "-o", &size, "small", &shown]);
        Self(path)
    }

    /// A file on it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Leaves no room on it, until the file is removed that is returned.
    pub fn fill(&self) -> PathBuf {
        let filler = self.file("filler");
        let file = std::fs::File::create(&filler);
        let mut file = file.unwrap_or_else(|error| panic!("{}: {error}", filler.display()));
        // As much as there is, and no more.
        _ = std::io::copy(&mut std::io::repeat(0), &mut file);
        filler
    }

    /// Makes it read-only, as a kernel does that found an error on it, or writable again.
    pub fn set_writable(&self, writable: bool) {
        let options = if writable { "remount,rw" } else { "remount,ro" };
        crate::net::run("mount", &["-o", options, &self.0.display().to_string()]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
