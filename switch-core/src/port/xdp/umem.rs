//! Registration of the packet memory with the kernel, and the anchor that keeps it shareable.
//!
//! The kernel takes a UMEM as one range and of one size for good, and each of its sockets costs 144 bytes of the
//! kernel's memory for every frame in it. So every region of packet memory is a UMEM of its own, registered when
//! the first port needs it and let go of with the region. All sockets in copy mode of a region share it, so a
//! frame received by one is sent by another as it is; between regions it is copied. A shared bind goes through a socket that is bound already, and inherits its flags; when that socket's
//! device dies, sharing through it fails (EBADF). So the first socket is an *anchor*, bound to the
//! loopback device of a network namespace of its own that nobody else can reach, set down or delete.
//!
//! The UMEM is registered with room for TX metadata where the kernel has it (6.8 and later), so that
//! unfinished checksums can be left to the kernel.

use super::socket::{self, RawSocket};
use crate::frame::Area;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// `struct xsk_tx_metadata` (include/uapi/linux/if_xdp.h).
pub const TX_METADATA_LEN: u32 = 24;
/// Entries of the anchor's rings; nothing ever passes them.
const ANCHOR_RING: u32 = 64;

/// Whether the kernel takes a checksum request beside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxMetadata {
    /// It does.
    Offered,
    /// It does not: checksums are finished in software.
    Absent,
}

/// The registered memory. Sockets share it for as long as the anchor lives.
#[derive(Debug)]
pub struct Umem {
    anchor: RawSocket,
    area: Arc<Area>,
    region: u16,
    tx_metadata: TxMetadata,
    multi_buffer: bool,
}

impl Umem {
    /// Registers a region of `area` and binds its anchor.
    pub fn register(area: Arc<Area>, region: u16) -> io::Result<Self> {
        let (anchor, loopback) = socket_in_own_namespace()?;
        let tx_metadata = anchor.register_umem(&area, region)?;
        anchor.set_ring_size(libc::XDP_UMEM_FILL_RING, ANCHOR_RING)?;
        anchor.set_ring_size(libc::XDP_UMEM_COMPLETION_RING, ANCHOR_RING)?;
        anchor.set_ring_size(libc::XDP_RX_RING, ANCHOR_RING)?;
        let flags = libc::XDP_COPY | libc::XDP_USE_NEED_WAKEUP;
        // Who shares inherits these flags, so frames of several buffers are asked for here or never.
        let multi_buffer = anchor.bind(loopback, 0, flags | libc::XDP_USE_SG, None).is_ok();
        if !multi_buffer {
            anchor.bind(loopback, 0, flags, None)?;
        }
        Ok(Self { anchor, area, region, tx_metadata, multi_buffer })
    }

    /// The memory.
    pub fn area(&self) -> &Arc<Area> {
        &self.area
    }

    /// Which part of it is registered.
    pub fn region(&self) -> u16 {
        self.region
    }

    /// Whether the kernel finishes checksums.
    pub fn tx_metadata(&self) -> TxMetadata {
        self.tx_metadata
    }

    /// Whether a frame may lie in several chunks (`XDP_USE_SG`, Linux 6.6).
    pub fn multi_buffer(&self) -> bool {
        self.multi_buffer
    }

    /// What a new socket shares through.
    pub fn anchor(&self) -> BorrowedFd<'_> {
        self.anchor.as_fd()
    }
}

/// An AF_XDP socket in a fresh network namespace, whose loopback device is up, and that device's index.
/// The namespace has no name and lives as long as the socket.
fn socket_in_own_namespace() -> io::Result<(RawSocket, u32)> {
    // A thread of its own, because a thread cannot easily leave a namespace again.
    let thread = std::thread::Builder::new().name("anchor".into()).spawn(|| {
        // SAFETY: moves only this thread, which has opened nothing yet, into a new namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        socket::set_up("lo")?;
        Ok((RawSocket::new()?, socket::index("lo")?))
    })?;
    thread.join().map_err(|_| io::Error::other("the anchor thread panicked"))?
}
