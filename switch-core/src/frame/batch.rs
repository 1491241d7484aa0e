//! Frames that came in by one port in one turn. Room for [`BATCH_FRAMES`], given once.

use super::Frame;

/// Frames a batch holds. VPP uses 256, DPDK 32; 64 frames of 16 bytes and their notes stay in the
/// first-level cache, and 64 is what one NAPI poll of a veth delivers.
pub const BATCH_FRAMES: usize = 64;

/// A vector that never grows beyond [`BATCH_FRAMES`]. Not an array, because what goes one way as a whole
/// is then handed on with one copy ([`super::TxQueue::append`]).
#[derive(Debug)]
pub struct Batch(Vec<Frame>);

impl Default for Batch {
    fn default() -> Self {
        Self(Vec::with_capacity(BATCH_FRAMES))
    }
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is room for no more.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.0.len() >= BATCH_FRAMES
    }

    /// Frames that still find room.
    #[inline(always)]
    pub fn room(&self) -> usize {
        BATCH_FRAMES - self.0.len()
    }

    /// Appends. The caller has seen that there is room.
    #[inline(always)]
    pub fn push(&mut self, frame: Frame) {
        debug_assert!(!self.is_full());
        self.0.push(frame);
    }

    /// Takes all out.
    #[inline(always)]
    pub fn drain(&mut self) -> std::vec::Drain<'_, Frame> {
        self.0.drain(..)
    }

    pub(super) fn as_vec(&mut self) -> &mut Vec<Frame> {
        &mut self.0
    }
}

impl std::ops::Deref for Batch {
    type Target = [Frame];
    #[inline(always)]
    fn deref(&self) -> &[Frame] {
        &self.0
    }
}

impl std::ops::DerefMut for Batch {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [Frame] {
        &mut self.0
    }
}
