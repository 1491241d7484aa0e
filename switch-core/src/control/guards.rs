//! Programs that stay on the devices of ports that are down. Such a port's device may be there, set down for a moment or given another MTU, and
//! without a program its pod would speak to the node's own kernel, past everything that the switch keeps it from. So the program of a port
//! that drops while nobody beats is taken off only where its port goes, or its device; the port takes it over when it is open again. A port that
//! gets the device of one that goes, by one request, takes it over from that one.

use super::daemon::{Daemon, PortLife};
use super::doors::{Door, Doors};
use super::links::Link;
use super::rtnl::Rtnl;
use super::unseen::Source;
use crate::config::snapshot::PortId;
use crate::port::xdp::attach::Guard;
use std::collections::BTreeMap;
use switch_api::{PortKind, WhenDead, XdpMode};

/// By port.
#[derive(Debug, Default)]
pub(super) struct Guards(BTreeMap<PortId, Guard>);

impl Guards {
    /// A port is down, and its device is guarded, if it is.
    pub(super) fn post(&mut self, port: PortId, guard: Option<Guard>) {
        self.0.extend(guard.map(|guard| (port, guard)));
    }

    /// Of each port, or of one, whose device is guarded.
    pub(super) fn of(&self, only: Option<PortId>) -> impl Iterator<Item = (PortId, &Guard)> {
        let is_meant = move |port: &PortId| only.is_none_or(|only| only == *port);
        self.0.iter().map(|(port, guard)| (*port, guard)).filter(move |(port, _)| is_meant(port))
    }

    /// A port is open, on the device of that index: the program there is its own again.
    pub(super) fn relieve(&mut self, port: PortId, ifindex: u32) {
        if let Some(guard) = self.0.remove(&port).filter(|guard| guard.ifindex() != ifindex) {
            take_off(guard);
        }
    }

    /// A guard is needed no more. Whether there was one.
    fn dismiss(&mut self, port: PortId) -> bool {
        self.0.remove(&port).map(take_off).is_some()
    }
}

/// What a port that is closed leaves to whoever gets its device.
#[derive(Debug)]
pub(super) struct Bequest {
    guard: Guard,
    stood: Vec<(Source, u64)>,
}

/// Whether a device's program can stay on it while one port goes and the next comes: both keep the device from the node's kernel. What the program
/// is run by cannot change while it stays, and a device that the switch makes goes with its port.
pub(super) fn inherits(gone: &PortKind, comes: &PortKind) -> bool {
    let (gone, comes) = (guarded(gone), guarded(comes));
    gone.is_some() && gone == comes
}

/// The device of a port that keeps it from the node's kernel, and by whom its program is run.
fn guarded(kind: &PortKind) -> Option<(&str, XdpMode)> {
    let PortKind::Xdp { device, mode, pod: None, when_dead, take, .. } = kind else { return None };
    let drops = when_dead.unwrap_or_else(|| WhenDead::of(take)) == WhenDead::Drop;
    drops.then_some((device, *mode))
}

/// A pin that is gone already, because somebody removed it, is what we want.
fn take_off(guard: Guard) {
    _ = guard.take_off();
}

impl Doors {
    /// What may stay to guard a door's device when it is closed; none where the device is not there any more.
    pub(super) fn guard_of(door: &Door) -> Option<Guard> {
        let guard = door.attached.as_ref()?.guard()?;
        let is_there = Rtnl::open().and_then(|rtnl| rtnl.link_at(guard.ifindex()));
        // Where the kernel does not say, a device that is bare would be worse than a pin of none.
        is_there.map_or(true, |link| link.is_some()).then_some(guard)
    }

    /// The program that an earlier daemon left on the device of a port that cannot be opened is that port's, too.
    pub(super) fn find_guard(&mut self, port: PortId, kind: &PortKind) {
        let (PortKind::Xdp { device, .. }, Ok(engine)) = (kind, &self.engine) else { return };
        if self.guards.0.contains_key(&port) {
            return;
        }
        let link = super::links::find(device).ok().flatten();
        let guard = link.and_then(|Link { index, .. }| engine.found_on(device, index));
        self.guards.post(port, guard);
    }
}

impl Daemon {
    /// Closes an open port but leaves its program where it is. None, and nothing is done, where it has none to leave; of one that is down it
    /// is the program that is there.
    pub(super) fn close_guarded(&mut self, port: PortId) -> Option<Bequest> {
        let guard = match self.ports.get(&port) {
            Some(PortLife::Up(door)) => {
                let guard = Doors::guard_of(door)?;
                self.close(port, false);
                guard
            }
            _ => {
                self.look_at_guards(Some(port));
                self.doors.guards.0.remove(&port)?
            }
        };
        let stood = self.unseen.standing(port, guard.ifindex());
        Some(Bequest { guard, stood })
    }

    /// Until a port is open its device is guarded by what another left.
    pub(super) fn inherit(&mut self, port: PortId, Bequest { guard, stood }: Bequest) {
        self.unseen.go_on(port, stood);
        self.doors.guards.post(port, Some(guard));
    }

    /// A port is gone, or is to leave everything as it found it. What its program dropped while it was down is noted first.
    pub(super) fn dismiss_guard(&mut self, port: PortId) {
        self.look_at_guards(Some(port));
        if self.doors.guards.dismiss(port) {
            self.unseen.begin_anew(port);
        }
    }

    /// Devices are gone from the daemon's namespace.
    pub(super) fn dismiss_guards(&mut self, is_gone: impl Fn(u32) -> bool) {
        let of_gone = self.doors.guards.of(None).filter(|(_, guard)| is_gone(guard.ifindex()));
        let gone: Vec<PortId> = of_gone.map(|(port, _)| port).collect();
        gone.into_iter().for_each(|port| self.dismiss_guard(port));
    }
}
