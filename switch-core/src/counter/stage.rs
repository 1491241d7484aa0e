//! What the stages cost. The pipeline knows no clock: it calls [`Laps::lap`] after each stage and
//! whoever runs it decides what that does. One batch in [`SAMPLE_EVERY`] is measured.

/// One batch in so many is measured: a read of the counter costs 22 cycles, there are
/// [`Stage::ALL`] of them in a batch, and a sixteenth of that is lost in the noise.
pub const SAMPLE_EVERY: u64 = 16;

/// What is measured: the stages of the pipeline, and the port work around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs)]
pub enum Stage {
    Recv,
    Parse,
    Guard,
    Learn,
    Tunnel,
    Track,
    Translate,
    Route,
    Forward,
    Admit,
    Rewrite,
    Egress,
    Emit,
    Flush,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 14] = [
        Self::Recv,
        Self::Parse,
        Self::Guard,
        Self::Learn,
        Self::Tunnel,
        Self::Track,
        Self::Translate,
        Self::Route,
        Self::Forward,
        Self::Admit,
        Self::Rewrite,
        Self::Egress,
        Self::Emit,
        Self::Flush,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recv => "recv",
            Self::Parse => "parse",
            Self::Guard => "guard",
            Self::Learn => "learn",
            Self::Tunnel => "tunnel",
            Self::Track => "track",
            Self::Translate => "translate",
            Self::Route => "route",
            Self::Forward => "forward",
            Self::Admit => "admit",
            Self::Rewrite => "rewrite",
            Self::Egress => "egress",
            Self::Emit => "emit",
            Self::Flush => "flush",
        }
    }

    /// Whether it belongs to the pipeline proper, not to a port.
    pub fn is_pipeline(self) -> bool {
        !matches!(self, Self::Recv | Self::Flush)
    }
}

/// Told when a stage is done.
pub trait Laps {
    /// `stage` is done.
    fn lap(&mut self, stage: Stage);
}

/// Measures nothing and costs nothing.
#[derive(Debug)]
pub struct NoLaps;

impl Laps for NoLaps {
    #[inline(always)]
    fn lap(&mut self, _: Stage) {}
}
