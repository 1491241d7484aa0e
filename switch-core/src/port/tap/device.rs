//! One descriptor of a TAP device (Documentation/networking/tuntap.rst): opened, attached, told what we can do.
//!
//! A descriptor belongs to the network namespace of the thread that opened it, for good: whatever it creates
//! or attaches to is there, and it keeps that namespace alive until it is closed.

#![allow(unsafe_code)]

use crate::wire::vnet;
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{self, IntegerSetter, Opcode, Setter, Updater};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const PATH: &str = "/dev/net/tun";
/// `TUNSETVNETHDRSZ`: `struct virtio_net_hdr`, which the lane reads and writes.
const HEADER_BYTES: libc::c_int = vnet::LEN as libc::c_int;
/// `TUNSETVNETLE`: its numbers are little endian on every machine.
const LITTLE_ENDIAN: libc::c_int = 1;

const SET_DEVICE: Opcode = libc::TUNSETIFF as Opcode;
const GET_DEVICE: Opcode = libc::TUNGETIFF as Opcode;
const SET_PERSIST: Opcode = libc::TUNSETPERSIST as Opcode;
const SET_OFFLOAD: Opcode = libc::TUNSETOFFLOAD as Opcode;
const SET_ENDIAN: Opcode = libc::TUNSETVNETLE as Opcode;
const SET_HEADER_BYTES: Opcode = libc::TUNSETVNETHDRSZ as Opcode;
const SET_STEERING: Opcode = libc::TUNSETSTEERINGEBPF as Opcode;

/// What a kernel that has everything hands over unfinished: checksums, TCP superframes, UDP superframes.
const TCP_OFFLOADS: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const UDP_OFFLOADS: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// `struct ifreq`, as far as TUN uses it (linux/if.h).
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// What the device hands over as one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// Unfinished checksums and TCP superframes. The kernel has no UDP ones for a TAP (before Linux 6.2).
    Tcp,
    /// Unfinished checksums, TCP and UDP superframes.
    TcpUdp,
}

/// A descriptor of a device. The device goes with its last descriptor, unless it is persistent.
#[derive(Debug)]
pub struct Descriptor(OwnedFd);

impl Descriptor {
    /// Makes a device. Never attaches to one that is there: that is `EBUSY`.
    pub fn create(name: &str, several_queues: bool) -> io::Result<Self> {
        Self::open(name, libc::IFF_TUN_EXCL, several_queues)
    }

    /// Attaches to the device of this name. If there is none, the kernel makes one: the caller must look
    /// which device it got, and closing the descriptor undoes it.
    pub fn attach(name: &str, several_queues: bool) -> io::Result<Self> {
        Self::open(name, 0, several_queues)
    }

    fn open(name: &str, further: libc::c_int, several_queues: bool) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let descriptor = Self(rustix::fs::open(PATH, flags, Mode::empty())?);
        let queues = if several_queues { libc::IFF_MULTI_QUEUE } else { 0 };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | queues | further;
        let mut request = Request::named(name)?;
        // The flags are 16 bits of which IFF_TUN_EXCL is the highest.
        request.flags = flags as u16 as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
        unsafe { ioctl::ioctl(&descriptor.0, Updater::<SET_DEVICE, _>::new(&mut request))? };
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        unsafe { ioctl::ioctl(&descriptor.0, Setter::<SET_HEADER_BYTES, _>::new(HEADER_BYTES))? };
        // SAFETY: TUNSETVNETLE reads one int.
        unsafe { ioctl::ioctl(&descriptor.0, Setter::<SET_ENDIAN, _>::new(LITTLE_ENDIAN))? };
        Ok(descriptor)
    }

    /// The name that its device has now; an error if it has no device any more.
    pub fn name(&self) -> io::Result<String> {
        let mut request = Request::named("")?;
        // SAFETY: TUNGETIFF writes one ifreq, which `request` is.
        unsafe { ioctl::ioctl(&self.0, Updater::<GET_DEVICE, _>::new(&mut request))? };
        let name = request.name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// Asks for as many offloads as the kernel has; what it took.
    pub fn offload_all(&self) -> io::Result<Offloads> {
        if self.set_offload(TCP_OFFLOADS | UDP_OFFLOADS).is_ok() {
            return Ok(Offloads::TcpUdp);
        }
        self.set_offload(TCP_OFFLOADS).map(|()| Offloads::Tcp)
    }

    fn set_offload(&self, offloads: u32) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes a mask as an integer; the kernel refuses bits it does not know.
        unsafe { Ok(ioctl::ioctl(&self.0, IntegerSetter::<SET_OFFLOAD>::new_usize(offloads as usize))?) }
    }

    /// Gives the device the program, by its descriptor, that chooses the queue of what comes out of it; a negative number
    /// takes it away.
    pub fn set_steering(&self, program: libc::c_int) -> io::Result<()> {
        // SAFETY: TUNSETSTEERINGEBPF reads one int.
        unsafe { Ok(ioctl::ioctl(&self.0, Setter::<SET_STEERING, _>::new(program))?) }
    }

    /// Lets the device live on without a descriptor, or not.
    pub fn set_persistent(&self, persistent: bool) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes 0 or 1 as an integer.
        unsafe { Ok(ioctl::ioctl(&self.0, IntegerSetter::<SET_PERSIST>::new_usize(persistent.into()))?) }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Request {
    fn named(name: &str) -> io::Result<Self> {
        let mut request = Self { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
        match request.name.get_mut(..name.len()) {
            // The last byte stays zero.
            Some(place) if name.len() < libc::IFNAMSIZ => place.copy_from_slice(name.as_bytes()),
            _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
        Ok(request)
    }
}

// The kernel writes a whole ifreq.
const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());
