//! Superframes: one frame that stands for a train of segments (GSO, "generic segmentation offload").
//!
//! A kernel hands a TAP up to 64 KiB of TCP or UDP payload behind one set of headers and says how many
//! payload bytes each segment on the wire carries. [`Gso`] is that saying; it travels beside the frame,
//! never in it. Who cannot pass it on (a port without `IFF_VNET_HDR`) cuts the superframe up.

use std::num::NonZeroU16;

/// Which protocol the segments of a superframe speak, and so which headers change from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either (`UDP_SEGMENT`, USO, virtio's `GSO_UDP_L4`): each segment is a datagram of its own.
    Udp,
}

/// What a superframe is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The protocol of the segments.
    pub kind: GsoKind,
    /// The sender reacts to congestion marks (virtio's `GSO_ECN`): `CWR` is for the first segment alone.
    pub ecn: bool,
    /// Payload bytes of each segment but the last, which may be shorter.
    pub size: NonZeroU16,
}

// It lies in every frame's descriptor: no larger than a `u32`.
const _: () = assert!(size_of::<Option<Gso>>() == 4);
