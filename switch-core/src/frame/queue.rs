//! What waits to leave by one port. The queue is given its room when the port opens and never grows.

use super::Frame;

/// Frames a queue holds: four batches, so that one turn's output fits while the port is behind by three.
pub const TX_QUEUE_FRAMES: usize = 256;

/// Frames on their way out, in order.
#[derive(Debug, Default)]
pub struct TxQueue(Vec<Frame>);

impl TxQueue {
    /// A queue with room. An empty default has none: nothing can be put into the queue of a closed port.
    pub fn with_room() -> Self {
        Self(Vec::with_capacity(TX_QUEUE_FRAMES))
    }

    /// Appends as many as there is room for; the rest stays in `frames`.
    #[inline(always)]
    pub fn extend(&mut self, frames: &mut impl Iterator<Item = Frame>) {
        let room = self.0.capacity() - self.0.len();
        self.0.extend(frames.take(room));
    }

    /// Takes over a whole batch with one copy, if there is room for it.
    #[inline(always)]
    pub fn append(&mut self, batch: &mut super::Batch) {
        if self.0.capacity() - self.0.len() >= batch.len() {
            self.0.append(batch.as_vec());
        }
    }

    /// Whether it was opened.
    pub fn has_room_at_all(&self) -> bool {
        self.0.capacity() > 0
    }

    /// Frames in it.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is in it, oldest first.
    pub fn iter(&self) -> std::slice::Iter<'_, Frame> {
        self.0.iter()
    }

    /// What is in it, oldest first.
    pub fn as_slice(&self) -> &[Frame] {
        &self.0
    }

    /// What is in it, oldest first, to change in place.
    pub fn as_mut_slice(&mut self) -> &mut [Frame] {
        &mut self.0
    }

    /// Takes those behind the first `before` for which `goes` says so; the others keep their order.
    pub fn sift(
        &mut self,
        before: usize,
        goes: impl FnMut(&mut Frame) -> bool,
    ) -> impl Iterator<Item = Frame> {
        let before = before.min(self.0.len());
        self.0.extract_if(before.., goes)
    }

    /// Takes the first `n`, or all if there are fewer.
    pub fn take(&mut self, n: usize) -> std::vec::Drain<'_, Frame> {
        let n = n.min(self.0.len());
        self.0.drain(..n)
    }
}
