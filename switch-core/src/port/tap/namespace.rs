//! Which network namespace it is. The number of its file, by which one namespace is told from another that is there, is given to the next one
//! when it has ended; its cookie the kernel gives to none but it until the next boot (net/core/net_namespace.c, `net->net_cookie`).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The cookie of the namespace that a socket is of; an error before Linux 5.14.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    let (mut cookie, mut len) = (0_u64, size_of::<u64>() as libc::socklen_t);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: SO_NETNS_COOKIE writes at most `len` bytes, the size of `cookie`, of which every bit pattern is a value.
    let result = unsafe {
        let cookie = (&raw mut cookie).cast();
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, cookie, &raw mut len)
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
