//! Frames that no worker ever saw: the kernel dropped them at a port's device, or the port's program did because nobody beat, or no
//! socket was there yet. The
//! kernel's own counts of them are read when somebody asks for counters, and what they grew by is the port's.
//!
//! What AF_XDP sockets drop the workers count themselves (`rx-missed`); a device counts those as well, under `rx_dropped`, so of an
//! xdp port's device only `rx_missed_errors` counts here: what its hardware had no room for; and of a veth pair into a pod what the pod's end
//! could not hand over ([`Rtnl::lost`]).

use super::daemon::{Daemon, PortLife};
use super::doors::Door;
use super::rtnl::Rtnl;
use crate::config::snapshot::PortId;
use crate::counter::DropReason;
use crate::port::xdp::program::Dropped;
use std::collections::BTreeMap;
use std::io;

/// What it is that counts, so that each count is told apart from the next one's: the device's index, and why it drops.
pub(super) type Source = (u32, DropReason);

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
        self.add(port, source.1, grown);
    }

    /// What a closed lane of a port had not told.
    fn add(&mut self, port: PortId, reason: DropReason, frames: u64) {
        if frames > 0 {
            *self.frames.entry((port, reason)).or_default() += frames;
        }
    }

    /// The same, of ports of which nobody knows any more.
    pub(super) fn note_gone(&mut self, frames: u64) {
        self.gone += frames;
    }

    /// What the kernel says of an open port's device, and what its program does.
    fn look(&mut self, port: PortId, door: &Door, rtnl: &io::Result<Rtnl>) {
        let device = match (&door.tap, rtnl) {
            (Some(tap), _) => Some(tap.link().clone()),
            (None, Ok(rtnl)) if door.ifindex != 0 => rtnl.link_at(door.ifindex).ok().flatten(),
            _ => None,
        };
        if let Some(link) = device {
            let lost = rtnl.as_ref().map_or(Some(link.lost), |rtnl| rtnl.lost(&link));
            if let Some(lost) = lost {
                self.note(port, (link.index, DropReason::DeviceFull), door.lost_before, lost);
            }
        }
        if let Some(attached) = &door.attached {
            self.note_program(port, door.ifindex, attached.dropped());
        }
    }

    /// What an earlier daemon's death cost is told by the next.
    fn note_program(&mut self, port: PortId, ifindex: u32, dropped: Dropped) {
        self.note(port, (ifindex, DropReason::DeadMan), 0, dropped.dead);
        self.note(port, (ifindex, DropReason::PortClosed), 0, dropped.closed);
    }

    /// The program is off a port's device, and with it its counts: the next begins at nothing.
    pub(super) fn begin_anew(&mut self, port: PortId) {
        self.stood.retain(|(of, (_, reason)), _| *of != port || *reason == DropReason::DeviceFull);
    }

    /// Where the counts of a port's program on a device stand.
    pub(super) fn standing(&self, port: PortId, ifindex: u32) -> Vec<(Source, u64)> {
        let is_its = |(of, (index, reason)): &(PortId, Source)| {
            (*of, *index) == (port, ifindex) && *reason != DropReason::DeviceFull
        };
        let its = self.stood.iter().filter(|(of, _)| is_its(of));
        its.map(|((_, source), stood)| (*source, *stood)).collect()
    }

    /// The program is a port's now, and what it counted before was another's.
    pub(super) fn go_on(&mut self, port: PortId, stood: Vec<(Source, u64)>) {
        self.stood.extend(stood.into_iter().map(|(source, stood)| ((port, source), stood)));
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
            if let PortLife::Up(door) = life {
                self.unseen.look(*id, door, &rtnl);
            }
        }
        self.look_at_guards(only);
    }

    /// What programs dropped whose ports are down.
    pub(super) fn look_at_guards(&mut self, only: Option<PortId>) {
        for (port, guard) in self.doors.guards.of(only) {
            self.unseen.note_program(port, guard.ifindex(), guard.dropped());
        }
    }

    /// The last look at a port whose lanes were closed just now, and whose device may be let go of: nobody could ask later.
    pub(super) fn look_last(&mut self, port: PortId, door: &mut Door) {
        if let Some(tap) = &mut door.tap {
            tap.ask();
            // Whatever happened to it, it is closed.
            _ = tap.look();
        }
        self.unseen.look(port, door, &Rtnl::open());
        for (port, reason, frames) in self.doors.lost.drain(..) {
            self.unseen.add(port, reason, frames);
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
    fn a_program_that_was_taken_off_began_anew_though_it_stands_higher_than_before() {
        let (mut unseen, closed) = (Unseen::default(), DropReason::PortClosed);
        for (count, full) in [(5, 103), (7, 104)] {
            unseen.note(1, (7, closed), 0, count);
            unseen.note(1, (7, FULL), 100, full);
            unseen.begin_anew(1);
        }
        assert_eq!((unseen.of(1, closed), unseen.of(1, FULL)), (5 + 7, 4));
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
