//! What compiling takes, asked for before it is taken: what is too much is refused with a figure that is little more than the limit, however much
//! more it would have been.

use super::MEMORY_MAX;
use super::compile::TooMuch;

/// Most bytes that policies may take while they are compiled, beside what is there afterwards: 100 000 rules about networks of their own take 40
/// MiB, and an edge node with 1 GiB lives.
pub const MEANWHILE_MAX: usize = 128 << 20;
/// Most steps, each a look at a term, an entry or a column: so many take a core some tenths of a second, for which the control thread is
/// held up.
pub const STEPS_MAX: usize = 1 << 28;

/// What was taken so far.
#[derive(Debug, Default)]
pub(super) struct Budget {
    bytes: usize,
    meanwhile: usize,
    steps: usize,
}

impl Budget {
    /// So much is there as long as the policies are.
    pub fn keep(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MEMORY_MAX { Err(TooMuch::Bytes(self.bytes)) } else { Ok(()) }
    }

    /// So much is there until all is compiled.
    pub fn hold(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.meanwhile = self.meanwhile.saturating_add(bytes);
        if self.meanwhile > MEANWHILE_MAX { Err(TooMuch::Meanwhile(self.meanwhile)) } else { Ok(()) }
    }

    /// So much that was held is gone.
    pub fn let_go(&mut self, held: usize) {
        self.meanwhile = held;
    }

    /// So many steps.
    pub fn step(&mut self, steps: usize) -> Result<(), TooMuch> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX { Err(TooMuch::Steps(self.steps)) } else { Ok(()) }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.meanwhile
    }

    /// Bytes that are kept.
    pub fn kept(&self) -> usize {
        self.bytes
    }

    /// Bytes that may still be kept.
    pub fn left(&self) -> usize {
        MEMORY_MAX - self.bytes.min(MEMORY_MAX)
    }
}
