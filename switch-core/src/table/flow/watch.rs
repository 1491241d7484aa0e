//! What becomes of flows, for whoever looks on: a queue that is made before somebody does. What finds no room is
//! counted as lost, and nothing waits. While nobody looks on, all of this is one look at an empty option where a flow
//! begins, is answered, is judged again or ends; a packet that changes none of it does not come here.

use super::key::Key;
use super::state::{Stage, State};
use crossbeam::queue::ArrayQueue;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What waits to be told: 10 ms of 800 000 new flows a second, in some 600 KiB while somebody looks on.
pub const WATCH_PLACES: usize = 8192;

/// Why a flow is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its ends closed or reset it.
    Closed,
    /// No packet came for as long as its state may last.
    Timeout,
    /// It made room for another flow of its port, half-open as it was.
    Evicted,
    /// It was deleted, or its port was.
    Deleted,
}

impl Why {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Evicted => "evicted",
            Self::Deleted => "deleted",
        }
    }
}

/// What has become of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It began.
    New,
    /// It was answered; of TCP and SCTP, it is open.
    Established,
    /// What policies say changed: it was asked about again, and goes on or not.
    Judged(bool),
    /// It is over.
    Ended(Why),
}

/// Something that has become of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowNews {
    /// What.
    pub what: What,
    /// Which flow.
    pub key: Key,
    /// How far it is.
    pub state: State,
}

/// See the module.
#[derive(Debug)]
pub struct Watch {
    queue: ArrayQueue<FlowNews>,
    lost: AtomicU64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { queue: ArrayQueue::new(WATCH_PLACES), lost: AtomicU64::new(0) }
    }
}

impl Watch {
    /// Tells, if there is room.
    pub fn tell(&self, what: What, key: Key, state: State) {
        if self.queue.push(FlowNews { what, key, state }).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// The oldest that nobody has taken yet.
    pub fn take(&self) -> Option<FlowNews> {
        self.queue.pop()
    }

    /// What found no room since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Relaxed)
    }
}

/// What a step from one stage to another is to whoever looks on; most are nothing.
pub fn step(from: Stage, to: Stage) -> Option<What> {
    if is_closed(to) {
        return (!is_closed(from)).then_some(What::Ended(Why::Closed));
    }
    (from.is_half_open() && !to.is_half_open()).then_some(What::Established)
}

/// Whether its ends are done with it; what is left of it is for what is still on its way.
pub fn is_closed(stage: Stage) -> bool {
    matches!(stage, Stage::TimeWait | Stage::Closed | Stage::SctpClosed | Stage::Dead)
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        let watch = Watch::default();
        (0..WATCH_PLACES + 3).for_each(|_| watch.tell(What::New, Key::default(), State::DEAD));
        assert_eq!((watch.take_lost(), watch.take_lost()), (3, 0));
        assert_eq!(std::iter::from_fn(|| watch.take()).count(), WATCH_PLACES);
    }

    #[test]
    fn a_flow_is_established_once_and_ends_once() {
        let life = |stages: &[Stage]| {
            stages.windows(2).filter_map(|pair| step(pair[0], pair[1])).collect::<Vec<_>>()
        };
        use Stage::*;
        let both = [What::Established, What::Ended(Why::Closed)];
        assert_eq!(
            life(&[SynSent, SynReceived, Established, FinWait, CloseWait, LastAck, TimeWait, Closed]),
            both
        );
        assert_eq!(life(&[SctpInit, SctpInitAnswered, SctpCookie, SctpOpen, SctpShutdown, SctpClosed]), both);
        assert_eq!(life(&[SynSent, Closed]), [What::Ended(Why::Closed)]);
        assert_eq!(life(&[UdpOneWay, UdpAnswered, UdpStream]), [What::Established]);
    }
}
