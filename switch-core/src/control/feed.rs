//! What subscribers are told unasked: a bounded queue each, over the connection they asked by. A client that reads too
//! slowly makes nobody wait; of events it is told how many it missed, of a capture how many frames were lost.

use super::daemon::Daemon;
use switch_api::codec::encode_notice;
use switch_api::{Happened, Missed};

/// Bytes that wait for one subscriber; more are not made for it until it has read.
pub(crate) const WAITING_MAX: usize = 256 << 10;
/// Frames of a capture that become lines before the loop looks at others again.
const FRAMES_A_TURN: usize = 256;
/// Frames between two looks at how much waits.
const FRAMES_A_STEP: usize = 16;

/// What a client subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subscription {
    /// Events.
    Events {
        /// So many were missed and not told yet.
        missed: u64,
        /// Those of flows, too.
        flows: bool,
    },
    /// The capture or live trace that runs.
    Capture,
}

/// What there is to tell at a time.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Events.
    pub events: Vec<Happened>,
    /// More of them, for which there was no room.
    pub lost: u64,
    /// What became of flows.
    pub flows: Vec<Happened>,
    /// More of it.
    pub flows_lost: u64,
}

impl Subscription {
    /// Appends what there is to tell, as far as there is room in `out`.
    pub fn feed(&mut self, daemon: &mut Daemon, heard: &Heard, out: &mut Vec<u8>) {
        match self {
            Self::Events { missed, flows } => {
                *missed += heard.lost;
                feed_events(missed, &heard.events, out);
                if *flows {
                    *missed += heard.flows_lost;
                    feed_events(missed, &heard.flows, out);
                }
            }
            Self::Capture => {
                for _ in 0..FRAMES_A_TURN / FRAMES_A_STEP {
                    let before = out.len();
                    if before < WAITING_MAX {
                        daemon.drain_capture(FRAMES_A_STEP, out);
                    }
                    if out.len() == before {
                        break;
                    }
                }
            }
        }
    }
}

fn feed_events(missed: &mut u64, news: &[Happened], out: &mut Vec<u8>) {
    if *missed > 0 && out.len() < WAITING_MAX {
        out.extend(encode_notice("events.missed", &Missed { events: *missed }));
        *missed = 0;
    }
    for event in news {
        if out.len() < WAITING_MAX {
            out.extend(encode_notice("event", event));
        } else {
            *missed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_subscriber_misses_events_and_is_told_how_many() {
        let event =
            Happened { time_ns: 1, what: "storm".into(), text: "x".repeat(1000), parts: Default::default() };
        let news = vec![event; 300];
        let (mut missed, mut out) = (0, Vec::new());
        feed_events(&mut missed, &news, &mut out);
        let told = out.iter().filter(|byte| **byte == b'\n').count() as u64;
        assert!(told + missed == 300 && missed > 0, "{told} told, {missed} missed");
        assert!(out.len() < WAITING_MAX + 2000);
        let first = missed;
        feed_events(&mut missed, &[], &mut out);
        assert_eq!(missed, first, "nothing was read, nothing is told");
        out.clear();
        feed_events(&mut missed, &news[..1], &mut out);
        let lines = String::from_utf8(out).unwrap();
        assert!(lines.starts_with(r#"{"jsonrpc":"2.0","method":"events.missed""#), "{lines}");
        assert!(lines.contains(&format!("\"events\":{first}")) && lines.lines().count() == 2 && missed == 0);
    }
}
