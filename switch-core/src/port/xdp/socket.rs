//! One AF_XDP socket: the system calls, each once, with their errors. What they mean together is in
//! [`super`].

use super::ring::{Place, Ring};
use super::umem::{TX_METADATA_LEN, TxMetadata};
use crate::frame::Area;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Frames one `sendto` may move in copy mode (`XDP_MAX_TX_SKB_BUDGET`, Linux 6.17; 32 before). Kicks of
/// this many frames forward 20 % more than kicks of 32: the system call is paid once.
pub const TX_BUDGET: u32 = 1024;
/// Not in the `libc` crate yet; include/uapi/linux/if_xdp.h.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// include/uapi/asm-generic/socket.h.
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
/// Frames the kernel takes in one busy poll; a batch.
const BUSY_POLL_BUDGET: libc::c_int = 64;

/// A socket and its system calls.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

/// The four rings of a bound socket.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Rings {
    pub fill: Ring<u64>,
    pub completion: Ring<u64>,
    pub rx: Ring<libc::xdp_desc>,
    pub tx: Ring<libc::xdp_desc>,
}

/// What came of asking the kernel to transmit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// It took everything it was shown.
    Done,
    /// It took a part; ask again.
    Again,
    /// It took a part, of which the device dropped the last frame: full, or what it leads to is. Ask again.
    Refused,
    /// The device is gone or down.
    Dead(i32),
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl RawSocket {
    /// A fresh socket.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the kernel answers with a descriptor or an error.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn set<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: `value` is a live T and its size is passed along; the kernel only reads it.
        let result = unsafe {
            let value = std::ptr::from_ref(value).cast();
            libc::setsockopt(self.0.as_raw_fd(), level, name, value, size_of::<T>() as libc::socklen_t)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Reads an option into `T`, a plain C struct of integers for which every bit pattern is a value.
    fn get<T: Copy>(&self, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: T is one of the integer structs of this file; all zero is a value of it.
        let mut value: T = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes at most `len` bytes, the size of `value`.
        let result = unsafe {
            libc::getsockopt(self.0.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
        };
        if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
    }

    /// Registers a region of the memory; with TX metadata if the kernel knows it.
    pub fn register_umem(&self, area: &Area, region: u16) -> io::Result<TxMetadata> {
        let mut request = libc::xdp_umem_reg {
            addr: area.region_base(region).as_ptr() as u64,
            len: area.region_bytes() as u64,
            chunk_size: area.size().chunk_bytes,
            headroom: 0,
            flags: libc::XDP_UMEM_TX_METADATA_LEN,
            tx_metadata_len: TX_METADATA_LEN,
        };
        match self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &request) {
            Ok(()) => return Ok(TxMetadata::Offered),
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
            Err(_) => {}
        }
        request.flags = 0;
        request.tx_metadata_len = 0;
        match self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &request) {
            Ok(()) => Ok(TxMetadata::Absent),
            // Kernels before the last field was added refuse the longer struct.
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
            Err(_) => {
                let request = libc::xdp_umem_reg_v1 {
                    addr: request.addr,
                    len: request.len,
                    chunk_size: request.chunk_size,
                    headroom: 0,
                };
                self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &request).map(|()| TxMetadata::Absent)
            }
        }
    }

    /// Makes one of the four rings.
    pub fn set_ring_size(&self, ring: libc::c_int, size: u32) -> io::Result<()> {
        self.set(libc::SOL_XDP, ring, &size)
    }

    /// Lets one kick move [`TX_BUDGET`] frames, or a ring full of them: the kernel refuses more. Kernels
    /// before 6.17 do not know it and move 32.
    pub fn raise_tx_budget(&self, ring_size: u32) -> bool {
        self.set(libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &TX_BUDGET.min(ring_size)).is_ok()
    }

    /// Lets the kernel busy-poll the device for this socket for `us` microseconds.
    pub fn busy_poll(&self, us: u32) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1i32)?;
        self.set(libc::SOL_SOCKET, libc::SO_BUSY_POLL, &us)?;
        self.set(libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &BUSY_POLL_BUDGET)
    }

    /// Binds to a queue of a device; `share` names the socket whose UMEM it shares.
    pub fn bind(&self, ifindex: u32, queue: u32, flags: u16, share: Option<BorrowedFd>) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: if share.is_some() { libc::XDP_SHARED_UMEM } else { flags },
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: share.map_or(0, |fd| fd.as_raw_fd() as u32),
        };
        // SAFETY: `address` is a sockaddr_xdp and its size is passed along; the kernel only reads it.
        let result = unsafe {
            let len = size_of_val(&address) as libc::socklen_t;
            libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), len)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Makes and maps the four rings, before the bind.
    pub fn make_rings(&self, size: u32) -> io::Result<Rings> {
        for ring in
            [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING]
        {
            self.set_ring_size(ring, size)?;
        }
        let offsets: libc::xdp_mmap_offsets = self.get(libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
        let place = |offsets, page_offset| Place { offsets, page_offset: page_offset as libc::off_t, size };
        let socket = self.as_fd();
        Ok(Rings {
            fill: Ring::map(socket, place(offsets.fr, libc::XDP_UMEM_PGOFF_FILL_RING))?,
            completion: Ring::map(socket, place(offsets.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING))?,
            rx: Ring::map(socket, place(offsets.rx, libc::XDP_PGOFF_RX_RING as u64))?,
            tx: Ring::map(socket, place(offsets.tx, libc::XDP_PGOFF_TX_RING as u64))?,
        })
    }

    /// Whether the kernel runs this socket without copying (`XDP_OPTIONS`).
    pub fn is_zero_copy(&self) -> io::Result<bool> {
        let options: libc::xdp_options = self.get(libc::SOL_XDP, libc::XDP_OPTIONS)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// What the kernel counted, all of it frames that did not get through.
    pub fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        self.get(libc::SOL_XDP, libc::XDP_STATISTICS)
    }

    /// Asks the kernel to transmit what the TX ring shows it.
    #[inline]
    pub fn kick_tx(&self) -> Kick {
        // SAFETY: no buffer: a null pointer of length 0.
        let result = unsafe {
            let fd = self.0.as_raw_fd();
            libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        if result >= 0 {
            return Kick::Done;
        }
        match io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) {
            libc::EAGAIN | libc::ENOBUFS | libc::EINTR => Kick::Again,
            // NET_XMIT_DROP of this one frame, in copy mode; it comes back by the completion ring (xsk_generic_xmit, net/xdp/xsk.c).
            libc::EBUSY => Kick::Refused,
            errno => Kick::Dead(errno),
        }
    }

    /// Tells a driver that sleeps that there is room to receive into again.
    pub fn kick_rx(&self) {
        // SAFETY: no buffer: a null pointer of length 0.
        unsafe {
            let fd = self.0.as_raw_fd();
            let none = std::ptr::null_mut();
            libc::recvfrom(fd, none, 0, libc::MSG_DONTWAIT, none.cast(), none.cast());
        }
    }
}

/// `struct ethtool_channels` (include/uapi/linux/ethtool.h).
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// ETHTOOL_GGRO.
const GGRO: u32 = 0x2b;

/// struct ethtool_value.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// Whether the stack joins TCP segments that a device receives (GRO), before a program in the generic mode sees them. False where
/// that is not known.
pub fn joins_segments(name: &str) -> bool {
    let Ok((socket, mut request)) = device_request(name) else { return false };
    let mut value = Value { cmd: GGRO, data: 0 };
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL with this command writes one ethtool_value where ifr_data points.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    result == 0 && value.data != 0
}

/// ETHTOOL_GDRVINFO.
const GDRVINFO: u32 = 3;

/// struct ethtool_drvinfo.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    others: [u8; 160],
}

/// The name of the driver of a device; none where that is not known.
pub fn driver(name: &str) -> Option<String> {
    let (socket, mut request) = device_request(name).ok()?;
    let mut info = DriverInfo { cmd: GDRVINFO, driver: [0; 32], others: [0; 160] };
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: SIOCETHTOOL with this command writes one ethtool_drvinfo where ifr_data points.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    let said = info.driver.split(|byte| *byte == 0).next()?;
    (result == 0).then(|| String::from_utf8_lossy(said).into_owned())
}

/// ETHTOOL_GCHANNELS.
const GCHANNELS: u32 = 0x3c;

/// Queues of a device that can both receive and transmit, as its driver has them in use now. Netlink
/// tells only how many were allocated. A driver that does not say has one.
pub fn queues(name: &str) -> u32 {
    let Ok((socket, mut request)) = device_request(name) else { return 1 };
    let mut channels = Channels { cmd: GCHANNELS, ..Channels::default() };
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: SIOCETHTOOL with this command writes one ethtool_channels where ifr_data points.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result != 0 {
        return 1;
    }
    (channels.rx.min(channels.tx) + channels.combined).max(1)
}

/// Sets a device of the calling thread's network namespace up.
pub fn set_up(name: &str) -> io::Result<()> {
    let (socket, mut request) = device_request(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq with a name that ends with a zero.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Index of a device of the calling thread's network namespace.
pub fn index(name: &str) -> io::Result<u32> {
    let (socket, mut request) = device_request(name)?;
    // SAFETY: SIOCGIFINDEX reads the name and writes the index of the same ifreq.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX as _, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just wrote this member.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
}

/// A socket to ask with, and a request that names the device.
fn device_request(name: &str) -> io::Result<(OwnedFd, libc::ifreq)> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zero is an ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()).take(libc::IFNAMSIZ - 1) {
        *to = from as libc::c_char;
    }
    Ok((socket, request))
}
