//! Frames made by hand, sent and received on a device with AF_PACKET (packet(7)).

#![allow(unsafe_code)]

use crate::net::Net;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// include/uapi/linux/if_packet.h.
const PACKET_VNET_HDR: libc::c_int = 15;

/// A packet socket on one device of a namespace.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl RawSocket {
    /// Opens it on `device` in `net`.
    pub fn open(net: &Net, device: &str) -> io::Result<Self> {
        let device = device.to_owned();
        net.inside(move || bound(&device))
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    }

    /// Opens it on all devices of `net`, also on those that come later.
    pub fn everywhere(net: &Net) -> io::Result<Self> {
        // No device has this name, and none is the number of all.
        Self::open(net, "")
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) {
        assert!(self.try_send(frame), "send: {}", io::Error::last_os_error());
    }

    /// Sends one frame; whether its device took it. Where the other end is slow, a device that is sent to all the time may not.
    pub fn try_send(&self, frame: &[u8]) -> bool {
        // SAFETY: the pointer and length are those of a live slice; the kernel only reads it.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        sent == frame.len() as isize
    }

    /// Sends one frame behind a `struct virtio_net_hdr` of one's own making (`PACKET_VNET_HDR`, packet(7)), as a
    /// pod may. Whether the pod's kernel took it. The socket cannot receive afterwards.
    pub fn send_described(&self, header: [u8; 10], frame: &[u8]) -> bool {
        let wanted: libc::c_int = 1;
        // SAFETY: a c_int and its size.
        let set = unsafe {
            let (value, len) = ((&raw const wanted).cast(), size_of_val(&wanted) as u32);
            libc::setsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, value, len)
        };
        assert_eq!(set, 0, "PACKET_VNET_HDR: {}", io::Error::last_os_error());
        let bytes = [&header[..], frame].concat();
        // SAFETY: the pointer and length are those of a live vector; the kernel only reads it.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        sent == bytes.len() as isize
    }

    /// The next frame that `wanted` likes, or none within `limit`.
    pub fn recv(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        self.recv_pausing(limit, wanted, || std::thread::sleep(Duration::from_millis(1)))
    }

    /// The same, looking all the time: for latencies.
    pub fn spin(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        self.recv_pausing(limit, wanted, std::hint::spin_loop)
    }

    fn recv_pausing(
        &self,
        limit: Duration,
        wanted: impl Fn(&[u8]) -> bool,
        pause: impl Fn(),
    ) -> Option<Vec<u8>> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0u8; 65_536];
        while Instant::now() < deadline {
            let got = self.recv_with_tag(&mut buffer);
            match got {
                1.. if wanted(&buffer[..got as usize]) => return Some(buffer[..got as usize].to_vec()),
                1.. => {}
                _ => pause(),
            }
        }
        None
    }
}

impl RawSocket {
    /// One frame, as it was on the wire. The kernel takes a tag off before it hands a frame to anybody and
    /// tells of it beside (PACKET_AUXDATA); here it is put back. The length, or below 1 if there is none.
    fn recv_with_tag(&self, buffer: &mut [u8]) -> isize {
        let mut beside = [0u64; 16];
        let mut part = libc::iovec { iov_base: buffer[4..].as_mut_ptr().cast(), iov_len: buffer.len() - 4 };
        // SAFETY: all zero is a msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = beside.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&beside) as _;
        // SAFETY: the message points to live buffers of the lengths it names.
        let got = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        if got < 14 {
            return 0;
        }
        // SAFETY: the kernel filled in the control part that the message describes.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
        let tag = first.filter(|header| header.cmsg_type == libc::PACKET_AUXDATA).and_then(|header| {
            // SAFETY: a PACKET_AUXDATA message carries one tpacket_auxdata.
            let aux: libc::tpacket_auxdata =
                unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
            let tpid =
                if aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { aux.tp_vlan_tpid } else { 0x8100 };
            (aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0).then_some((tpid, aux.tp_vlan_tci))
        });
        let Some((tpid, tci)) = tag else {
            buffer.copy_within(4..4 + got as usize, 0);
            return got;
        };
        buffer.copy_within(4..16, 0);
        buffer[12..14].copy_from_slice(&tpid.to_be_bytes());
        buffer[14..16].copy_from_slice(&tci.to_be_bytes());
        got + 4
    }
}

fn bound(device: &str) -> io::Result<RawSocket> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers.
    let fd =
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = std::ffi::CString::new(device)?;
    // SAFETY: the name ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    // SAFETY: all zero is a sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as i32;
    // SAFETY: a sockaddr_ll and its size.
    let result = unsafe {
        let len = size_of::<libc::sockaddr_ll>() as u32;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len)
    };
    let wanted: libc::c_int = 1;
    // SAFETY: a c_int and its size.
    let set = unsafe {
        let (value, len) = ((&raw const wanted).cast(), size_of_val(&wanted) as u32);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, value, len)
    };
    if result == 0 && set == 0 { Ok(RawSocket(socket)) } else { Err(io::Error::last_os_error()) }
}
