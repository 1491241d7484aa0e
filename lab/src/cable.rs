//! A TAP device as a cable whose far end is the test (Documentation/networking/tuntap.rst): what is written is worked off
//! by the namespace's kernel before the call returns, and no other kernel adds anything of its own.

#![allow(unsafe_code)]

use crate::net::Net;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The far end. The device goes with it.
#[derive(Debug)]
pub struct Cable(OwnedFd);

impl Cable {
    /// Makes the device in `net`; it is down.
    pub fn new(net: &Net, device: &str) -> io::Result<Self> {
        let device = device.to_owned();
        net.inside(move || open(&device))
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    }

    /// Sends one frame into the namespace. Whether the device took it.
    pub fn send(&self, frame: &[u8]) -> bool {
        // SAFETY: the pointer and length are those of a live slice; the kernel only reads it.
        let sent = unsafe { libc::write(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len()) };
        sent == frame.len() as isize
    }

    /// The next frame that came out, if there is one.
    pub fn recv(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0u8; 65_536];
        // SAFETY: the pointer and length are those of a live vector, which the kernel fills.
        let got = unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        (got > 0).then(|| {
            buffer.truncate(got as usize);
            buffer
        })
    }
}

fn open(device: &str) -> io::Result<Cable> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: the path ends with a zero.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    let cable = Cable(unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: all zero is an ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    for (place, byte) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(device.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    match unsafe { libc::ioctl(cable.0.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } {
        0 => Ok(cable),
        _ => Err(io::Error::last_os_error()),
    }
}
