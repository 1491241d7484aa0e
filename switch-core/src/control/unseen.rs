//! Frames that no worker ever saw: the kernel dropped them at a port's device, or the port's program did because nobody beat, or no
//! socket was there yet. The
//! kernel's own counts of them are read when somebody asks for counters, and what they grew by is the port's.
//!
//! What AF_XDP sockets drop the workers count themselves (`rx-missed`); a device counts those as well, under `rx_dropped`, so of an
//! xdp port's device only `rx_missed_errors` counts here: what its hardware had no room for.

use super::daemon::{Daemon, PortLife};
use super::rtnl::Rtnl;
use crate::config::snapshot::PortId;
use crate::counter::DropReason;
use crate::port::xdp::program::Dropped;
use std::collections::BTreeMap;

/// What it is that counts, so that each count is told apart from the next one's: the device's index, and why it drops.
type Source = (u32, DropReason);

/// Frames that no worker saw.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    /// Where each of a port's counts stood at the last look.
    stood: BTreeMap<(PortId, Source), u64>,
    frames: BTreeMap<(PortId, DropReason), u64>,
    /// Of ports that are gone.
    gone: u64,
}

impl Unseen {
    /// Of this port, for this reason.
    pub(super) fn of(&self, port: PortId, reason: DropReason) -> u64 {
        self.frames.get(&(port, reason)).copied().unwrap_or(0)
    }

    /// All there ever were.
    pub(super) fn all(&self) -> u64 {
        self.gone + self.frames.values().sum::<u64>()
    }

    /// A count stands at `now`. One that was never looked at stood at `first`; one that stands lower began anew.
    fn note(&mut self, port: PortId, source: Source, first: u64, now: u64) {
        let stood = self.stood.entry((port, source)).or_insert(first);
        let grown = now.checked_sub(*stood).unwrap_or(now);
        *stood = now;
        if grown > 0 {
            *self.frames.entry((port, source.1)).or_default() += grown;
        }
    }

    /// A port is gone, and its number will be another's.
    pub(super) fn forget(&mut self, port: PortId) {
        self.stood.retain(|(of, _), _| *of != port);
        let of_port = self.frames.iter().filter(|((of, _), _)| *of == port);
        self.gone += of_port.map(|(_, frames)| frames).sum::<u64>();
        self.frames.retain(|(of, _), _| *of != port);
    }
}

impl Daemon {
    /// Reads the kernel's counts, of one port or of all: a system call or two each.
    pub(super) fn look_for_unseen(&mut self, only: Option<PortId>) {
        let is_meant = |id: &PortId| only.is_none_or(|only| only == *id);
        for (_, life) in self.ports.iter().filter(|(id, _)| is_meant(id)) {
            if let PortLife::Up(door) = life
                && let Some(tap) = &door.tap
            {
                tap.ask();
            }
        }
        // The kernel has answered by now, and an answer is read as news are.
        self.look_at_taps();
        let rtnl = Rtnl::open();
        for (id, life) in self.ports.iter().filter(|(id, _)| is_meant(id)) {
            let PortLife::Up(door) = life else { continue };
            let device = match (&door.tap, &rtnl) {
                (Some(tap), _) => Some(tap.link().clone()),
                (None, Ok(rtnl)) if door.ifindex != 0 => rtnl.link_at(door.ifindex).ok().flatten(),
                _ => None,
            };
            if let Some(link) = device {
                let source = (link.index, DropReason::DeviceFull);
                self.unseen.note(*id, source, door.lost_before, link.lost);
            }
            if let Some(attached) = &door.attached {
                // What an earlier daemon's death cost is told by the next.
                let Dropped { dead, closed } = attached.dropped();
                self.unseen.note(*id, (door.ifindex, DropReason::DeadMan), 0, dead);
                self.unseen.note(*id, (door.ifindex, DropReason::PortClosed), 0, closed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: DropReason = DropReason::DeviceFull;

    #[test]
    fn a_count_counts_from_where_it_stood() {
        let mut unseen = Unseen::default();
        unseen.note(1, (7, FULL), 100, 103);
        unseen.note(1, (7, FULL), 100, 103);
        assert_eq!((unseen.of(1, FULL), unseen.of(1, DropReason::DeadMan), unseen.of(2, FULL)), (3, 0, 0));
        // The same device, opened anew: its count goes on.
        unseen.note(1, (7, FULL), 103, 110);
        // Another device, and one that began anew.
        unseen.note(1, (8, FULL), 0, 5);
        unseen.note(1, (8, FULL), 0, 2);
        assert_eq!(unseen.of(1, FULL), 10 + 5 + 2);
    }

    #[test]
    fn what_a_port_lost_stays_in_the_sum_and_is_not_its_successors() {
        let mut unseen = Unseen::default();
        unseen.note(1, (7, FULL), 0, 5);
        unseen.note(2, (7, FULL), 0, 6);
        unseen.forget(1);
        assert_eq!((unseen.of(1, FULL), unseen.of(2, FULL), unseen.all()), (0, 6, 11));
        unseen.note(1, (7, FULL), 5, 5);
        assert_eq!((unseen.of(1, FULL), unseen.all()), (0, 11));
    }
}
