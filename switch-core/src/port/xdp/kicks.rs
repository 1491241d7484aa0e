//! When the kernel is asked to transmit what the TX ring shows it: not for every frame, since that is a system call, and not so late that
//! somebody waits for it.
//!
//! While a worker has more than it can do, more is coming for most lanes, and one call is made for many frames. *For most*: a lane that gets
//! a frame now and then is not waited for, or its frames would lie there for as long as others are busy, and memory with them.

use crate::frame::BATCH_FRAMES;

/// Frames for which the kernel is asked at the latest. It takes [`super::socket::TX_BUDGET`] in one call; half of that leaves room to go on
/// while it works.
const FRAMES_MAX: u32 = 512;
/// Turns that a frame waits at most: so many that whole batches make [`FRAMES_MAX`] of.
const TURNS_MAX: u32 = FRAMES_MAX / BATCH_FRAMES as u32;

/// Frames in a lane's TX ring of which the kernel was not told.
#[derive(Debug, Default)]
pub(super) struct Kicks {
    frames: u32,
    /// Of them, those that were there in the turn before.
    before: u32,
    /// Turns since the first of them.
    turns: u32,
}

impl Kicks {
    /// So many frames more.
    #[inline(always)]
    pub(super) fn put(&mut self, frames: u32) {
        self.frames += frames;
    }

    /// Nothing waits.
    #[inline(always)]
    pub(super) fn is_none(&self) -> bool {
        self.frames == 0
    }

    /// Asked at the end of every turn: whether the kernel is to be told now. `busy`: the worker's next turn will have frames.
    #[inline(always)]
    pub(super) fn are_due(&mut self, busy: bool) -> bool {
        if self.frames == 0 {
            return false;
        }
        let grew = self.frames > std::mem::replace(&mut self.before, self.frames);
        self.turns += 1;
        !busy || !grew || self.frames >= FRAMES_MAX || self.turns >= TURNS_MAX
    }

    /// The kernel took them all.
    #[inline(always)]
    pub(super) fn taken(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns until it is due, with so many frames more in each; those that wait then.
    fn due_after(busy: bool, put: impl Fn(u32) -> u32) -> (u32, u32) {
        let mut kicks = Kicks::default();
        for turn in 1..1000 {
            kicks.put(put(turn));
            if kicks.are_due(busy) {
                return (turn, kicks.frames);
            }
        }
        (u32::MAX, kicks.frames)
    }

    #[test]
    fn whole_batches_share_a_call_while_the_worker_is_busy() {
        assert_eq!(due_after(true, |_| 64), (8, 512));
        assert_eq!(due_after(true, |_| 200), (3, 600));
        assert_eq!(due_after(false, |_| 64), (1, 64));
    }

    #[test]
    fn a_frame_now_and_then_does_not_wait_for_others() {
        assert_eq!(
            due_after(true, |turn| u32::from(turn == 1)),
            (2, 1),
            "others' frames are no reason to wait"
        );
        assert_eq!(due_after(true, |_| 1), (8, 8), "nor is one a turn");
        assert_eq!(due_after(false, |turn| u32::from(turn == 1)), (1, 1));
        assert_eq!(due_after(true, |_| 0), (u32::MAX, 0), "nothing is never due");
    }

    #[test]
    fn what_the_kernel_did_not_take_is_due_again_at_once() {
        let mut kicks = Kicks::default();
        kicks.put(600);
        assert!(kicks.are_due(true) && kicks.are_due(true));
        kicks.taken();
        assert!(kicks.is_none() && !kicks.are_due(false));
        kicks.put(64);
        assert!(!kicks.are_due(true), "it begins anew");
    }
}
