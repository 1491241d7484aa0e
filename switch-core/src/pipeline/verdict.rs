//! What shall become of a frame.

use crate::config::snapshot::PortId;
use crate::counter::DropReason;

/// Why a frame has no single destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Its destination is a station nobody has learned.
    UnknownUnicast,
    /// To a group.
    Multicast,
    /// To everybody.
    Broadcast,
}

/// Why a frame is set aside for the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is for the switch itself.
    Host,
    /// Its neighbour is not known yet.
    Hold,
    /// Its neighbour does not answer.
    NoNeighbour,
    /// It has been over too many routers.
    Expired,
    /// There is no route.
    NoRoute,
    /// It comes from the node's kernel, and its only way leads there.
    FromKernel,
    /// A route says that it cannot be reached.
    Unreachable,
    /// A route forbids it.
    Prohibited,
    /// Its source is link-local and its destination is not here.
    Scope,
    /// An access control list rejects it.
    Rejected,
    /// It came out of a tunnel, and enters once more, by its port.
    Tunnel,
    /// It does not fit through the port that leads to its destination. How long it may be is looked up again:
    /// a number here would make every comparison of verdicts dearer.
    TooBig,
}

/// A stage that decides writes it; later stages leave a decided frame alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// No stage decided yet.
    #[default]
    Undecided,
    /// Out by this port.
    Port(PortId),
    /// Out by this port, which takes no superframes: segment by segment.
    Segments(PortId),
    /// A copy to every other member of its VLAN that takes this class.
    Flood(Class),
    /// Gone, and why.
    Drop(DropReason),
    /// To the slow path, and why.
    Aside(Why),
}

// A note is half a cache line, and the verdict is what decides it.
const _: () = assert!(size_of::<Verdict>() <= 4);

/// How a frame that was prepared may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// As it is.
    Whole,
    /// It is a superframe and the port takes none.
    InSegments,
}
