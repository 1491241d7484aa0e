//! A bpffs of our own, mounted where the daemon keeps its things: no distribution mounts one for us, and
//! what is pinned in it keeps the XDP programs on their devices when the daemon is gone.

use rustix::fs::statfs;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// Whether `directory` is a mount of its own; else it is a folder of somebody's bpffs, as systemd mounts one at
/// `/sys/fs/bpf`, and not ours to unmount.
pub fn is_mounted(directory: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev());
    let parent = directory.parent().and_then(|parent| device(parent).ok());
    device(directory).is_ok_and(|own| Some(own) != parent)
}

/// Makes sure that `directory` is a bpffs.
pub fn ensure(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    if statfs(directory)?.f_type as u32 == BPF_FS_MAGIC {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("bpf", directory, "bpf", flags, Some(c"mode=0700"))?)
}

/// Unmounts it, if it is a mount, and with it every pin that is still there; and removes the folder, if it is empty then.
pub fn remove(directory: &Path) -> io::Result<()> {
    if is_mounted(directory) {
        unmount(directory, UnmountFlags::DETACH)?;
    }
    std::fs::remove_dir(directory)
}

/// Removes what we pinned, where the folder is all that is ours; the folder itself is in one that the daemon may not write.
pub fn clear(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
