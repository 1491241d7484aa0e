//! A small process that keeps two rights which the daemon gives up: to remove the bpffs at the end, and to open
//! namespaces, wherever runtimes keep them: in a folder under `/run` that does not exist yet when the daemon starts, or by way of
//! `/proc/PID`, where Landlock forbids the daemon to look into strangers. It is started before the daemon restricts itself, does
//! nothing but wait, and ends with the daemon, whatever that dies of.
//!
//! It opens nothing but namespaces, and unmounts nothing but the folder that it was started for.

use rustix::fs::{Mode, OFlags, fstatfs, statfs};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_name, set_no_new_privs,
};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// The word of the daemon's command line that makes it a keeper.
pub const WORD: &str = "--keeper";
/// As `ps` and systemd show it, in 15 bytes at most.
const NAME: &CStr = c"switchd-keeper";
/// include/uapi/linux/magic.h.
const NSFS_MAGIC: u32 = 0x6e73_6673;
/// A path (PATH_MAX) and the letter before it.
const MESSAGE_MAX: usize = 4096 + 1;
const OPEN: u8 = b'o';
const UNMOUNT: u8 = b'u';

/// One a process: what is restricted is the process.
static KEEPER: OnceLock<Mutex<Keeper>> = OnceLock::new();

/// The daemon's end.
#[derive(Debug)]
pub struct Keeper {
    line: OwnedFd,
    child: Child,
}

/// Starts it, for a bpffs that may be unmounted.
pub fn start(bpffs: &Path) -> io::Result<()> {
    let kind = SocketType::SEQPACKET;
    let (line, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("switchd");
    // A process group of its own: a terminal's Ctrl-C is for the daemon, which says what is to be done.
    command.arg(WORD).arg(bpffs).stdin(Stdio::from(theirs)).stdout(Stdio::null()).process_group(0);
    let child = command.spawn()?;
    // A second one would have to be another process; this one ends with its line.
    _ = KEEPER.set(Mutex::new(Keeper { line, child }));
    Ok(())
}

/// Opens a namespace: through the keeper, if there is one.
pub fn open_namespace(path: &str) -> io::Result<File> {
    match KEEPER.get().and_then(|keeper| keeper.lock().ok()) {
        Some(keeper) => keeper.open(path),
        None => open(Path::new(path)),
    }
}

/// Whether there was a keeper, and it has ended. From inside the sandbox nobody starts another.
pub fn is_gone() -> bool {
    let Some(keeper) = KEEPER.get().and_then(|keeper| keeper.lock().ok()) else { return false };
    // It says nothing unasked: what can be read now is the line's end.
    matches!(recv(&keeper.line, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((0, _)))
}

/// Has the bpffs unmounted, or its folder in another one removed, and waits for it.
pub fn remove_bpffs() -> io::Result<()> {
    let gone = || io::Error::other("its keeper is not there");
    let mut keeper = KEEPER.get().and_then(|keeper| keeper.lock().ok()).ok_or_else(gone)?;
    send(&keeper.line, &[UNMOUNT], SendFlags::NOSIGNAL)?;
    let status = keeper.child.wait()?;
    status
        .success()
        .then_some(())
        .ok_or_else(|| io::Error::from_raw_os_error(status.code().unwrap_or(libc::EIO)))
}

impl Keeper {
    fn open(&self, path: &str) -> io::Result<File> {
        let message = [&[OPEN], path.as_bytes()].concat();
        send(&self.line, &message, SendFlags::NOSIGNAL)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let (mut control, mut code) = (RecvAncillaryBuffer::new(&mut space), [0; 4]);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(&self.line, &mut [IoSliceMut::new(&mut code)], &mut control, flags)?;
        let sent = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        match (sent, i32::from_ne_bytes(code)) {
            (Some(descriptor), 0) => Ok(File::from(descriptor)),
            _ if got.bytes < code.len() => Err(io::Error::other("the keeper is gone")),
            (_, errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// The keeper's whole life; what it exits with. Its standard input is the line to the daemon.
pub fn keep(bpffs: &Path) -> u8 {
    // Whoever looks at processes sees `exe` otherwise; it matters to nobody else.
    _ = set_name(NAME);
    // To unmount, to look into processes, and to find namespaces in folders of other users.
    let rights = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    let dropped = capabilities(None).and_then(|present| {
        let left = present.permitted & rights;
        let sets = CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets)
    });
    if let Err(error) = dropped.and_then(|()| set_no_new_privs(true)) {
        tracing::warn!("the keeper keeps more rights than it needs: {error}");
    }
    let (line, mut message) = (io::stdin(), [0; MESSAGE_MAX]);
    loop {
        match rustix::io::read(line.as_fd(), &mut message) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return 0,
            Ok(len) => match message[..len].split_first() {
                Some((&UNMOUNT, _)) => {
                    let removed = crate::control::bpffs::remove(bpffs);
                    return removed.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO) as u8);
                }
                Some((&OPEN, path)) => answer(line.as_fd(), open(Path::new(OsStr::from_bytes(path)))),
                _ => {}
            },
        }
    }
}

/// Nothing but a namespace. What is none is not opened: of a named pipe that would wait for who writes to it, and a device may do something. Nor is
/// one waited for that took the namespace's place in between.
fn open(path: &Path) -> io::Result<File> {
    let none = || io::Error::from_raw_os_error(libc::EINVAL);
    if statfs(path)?.f_type as u32 != NSFS_MAGIC {
        return Err(none());
    }
    let file = File::from(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
    )?);
    let is_namespace = fstatfs(&file)?.f_type as u32 == NSFS_MAGIC;
    is_namespace.then_some(file).ok_or_else(none)
}

fn answer(line: impl AsFd, opened: io::Result<File>) {
    let code = opened.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
    if !descriptors.is_empty() {
        // There is room for one, and there is one.
        _ = control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    // A daemon that is gone needs no answer.
    _ = sendmsg(line, &[IoSlice::new(&code.to_ne_bytes())], &mut control, SendFlags::NOSIGNAL);
}
