//! Copies of frames as they pass: what is wanted, and what is told.

use crate::{Hex, Name};
use serde::{Deserialize, Serialize};

/// Bytes kept of a frame unless said otherwise: all of one that is no jumbo frame and no superframe.
pub const SNAPLEN_DEFAULT: u32 = 2048;

/// Where a frame was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It came in by the port.
    In,
    /// It left by the port.
    Out,
    /// It was dropped.
    Drop,
}

/// See [`crate::Request::CaptureStart`]. Without anything: all frames of all ports, in and out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureStart {
    /// Only of these ports.
    pub ports: Vec<Name>,
    /// Where; none: in and out, or with reasons only what is dropped.
    pub directions: Vec<Direction>,
    /// Only what is dropped for these reasons (names as `stats` has them).
    pub reasons: Vec<String>,
    /// Of what comes in only what was decided about at this stage, like `guard` or `admit`: the last one that changed what becomes of the
    /// frame. Not together with `reasons`, or another direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// A program of classic BPF, as `tcpdump -ddd` prints one: code, jump if true, jump if false, operand.
    pub filter: Vec<(u16, u8, u8, u32)>,
    /// Bytes kept of a frame, 64 to 65535.
    pub snaplen: u32,
}

impl Default for CaptureStart {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            directions: Vec::new(),
            reasons: Vec::new(),
            stage: None,
            filter: Vec::new(),
            snaplen: SNAPLEN_DEFAULT,
        }
    }
}

/// Answer to [`crate::Request::CaptureStart`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStarted {
    /// The ports it is of.
    pub ports: Vec<Name>,
}

/// A frame; the notice `capture.frame`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedFrame {
    /// Nanoseconds since 1970, UTC.
    pub time_ns: u64,
    /// The port.
    pub port: Name,
    /// Where it was seen.
    pub direction: Direction,
    /// What was decided about it: `port NAME`, `flood CLASS`, `drop REASON`, `aside WHY`, with ` at STAGE` if
    /// a stage was asked for; `sent` for one that left.
    pub verdict: String,
    /// Bytes it had.
    pub len: u32,
    /// Those that were kept.
    pub data: Hex,
}

/// The notice `capture.end`, the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureEnd {
    /// Frames told.
    pub frames: u64,
    /// Frames that were wanted and not told: they came faster than they were taken.
    pub lost: u64,
}
