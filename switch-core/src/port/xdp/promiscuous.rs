//! A bridge's port hears what is addressed to others: the stations behind the other ports. A NIC passes on
//! only what is addressed to itself, unless it is asked (packet(7), `PACKET_MR_PROMISC`). The kernel counts
//! the askers of a device and forgets those whose socket is gone, so a dead daemon leaves nothing behind.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// The socket that asks for all devices. It receives nothing: it is bound to no protocol.
#[derive(Clone, Debug)]
pub struct Asker(Arc<OwnedFd>);

/// A device that hears everything, until this is dropped.
#[derive(Debug)]
pub struct Promiscuous {
    asker: Asker,
    ifindex: u32,
}

impl Asker {
    /// Nobody asked yet.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the kernel answers with a descriptor or an error.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Self(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Lets a device hear everything.
    pub fn ask(&self, ifindex: u32) -> io::Result<Promiscuous> {
        self.membership(libc::PACKET_ADD_MEMBERSHIP, ifindex)?;
        Ok(Promiscuous { asker: self.clone(), ifindex })
    }

    fn membership(&self, change: libc::c_int, ifindex: u32) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: ifindex as libc::c_int,
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: `request` is a packet_mreq and its size is passed along; the kernel only reads it.
        let result = unsafe {
            let len = size_of_val(&request) as libc::socklen_t;
            libc::setsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, change, (&raw const request).cast(), len)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Promiscuous {
    fn drop(&mut self) {
        // A device that is gone took its membership with it.
        _ = self.asker.membership(libc::PACKET_DROP_MEMBERSHIP, self.ifindex);
    }
}
