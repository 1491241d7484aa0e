//! What may look on while a batch goes through the stages: a stop watch, a capture, a trace. The list of stages
//! tells it after each; the stages know nothing of it, and nobody watching costs nothing.

use super::Private;
use super::note::Note;
use crate::counter::{Laps, Stage};
use crate::frame::Frame;

/// Told after each stage what has become of the batch.
pub trait Watch {
    /// It goes along through tunnels: what enters the list once more is the frame that it watches.
    const GOES_ALONG: bool = false;

    /// `stage` is done. After `emit` no frame is left; the notes are.
    fn after(&mut self, stage: Stage, frames: &[Frame], notes: &[Note], private: &Private);
}

/// A clock sees that time has passed and nothing else.
impl<L: Laps> Watch for L {
    #[inline(always)]
    fn after(&mut self, stage: Stage, _: &[Frame], _: &[Note], _: &Private) {
        self.lap(stage);
    }
}
