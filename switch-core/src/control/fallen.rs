//! Ports fall and come back: what netlink and the workers say of devices becomes *down*, with a reason, and
//! *up* again. Nobody is asked; a declared port stays declared.

use super::daemon::{Daemon, PortLife};
use super::doors::Doors;
use super::links::{Link, LinkEvent};
use super::retry::Retry;
use super::rtnl::Rtnl;
use super::tap::{News, Tap};
use crate::config::snapshot::PortId;
use crate::counter::LaneLoad;
use crate::worker::Report;
use std::sync::Arc;
use std::time::{Duration, Instant};
use switch_api::{Name, PortKind};

/// How long all ports that are tried again may wait for their queues, together: they are tried once more, and somebody waits for an answer.
const REOPEN_PATIENCE: Duration = Duration::from_millis(50);
/// How long each port may wait for its queues at the start, when nobody is served yet: a daemon that was killed leaves its sockets to the kernel.
pub(super) const RESTORE_PATIENCE: Duration = Duration::from_secs(1);

const GONE: &str = "its device was deleted or moved to another namespace";

impl Daemon {
    /// Opens a declared port, or notes why it cannot be. Its queues are waited for until then.
    pub(super) fn open_again(&mut self, name: &Name, until: Instant) {
        let Some(port) = self.model.ports.get(name) else { return };
        let id = port.id;
        let life = match self.doors.open(id, &port.object, self.homes.get(name), until) {
            Ok(door) => {
                tracing::info!(port = %name, mode = door.mode, "port is up");
                PortLife::Up(Box::new(door))
            }
            Err(error) => {
                self.doors.find_guard(id, &port.object.kind);
                PortLife::Down(error.to_string())
            }
        };
        match &life {
            PortLife::Up(_) => _ = self.retries.remove(&id),
            PortLife::Down(_) => {
                let before = self.retries.get(&id).copied();
                self.retries.insert(id, Retry::after(before, Instant::now()));
            }
        }
        // The first try behind a fall meets what it fell of, and may say it in other words.
        let is_told = self.news.fell.remove(&id);
        let is_news = match (&life, self.ports.get(&id)) {
            (PortLife::Up(_), _) => true,
            (PortLife::Down(reason), Some(PortLife::Down(before))) => !is_told && reason != before,
            (PortLife::Down(_), _) => true,
        };
        let down = if let PortLife::Down(reason) = &life { Some(reason.clone()) } else { None };
        self.ports.insert(id, life);
        self.settle(id, name);
        if is_news {
            self.tell_port(name, down.as_deref());
        }
    }

    /// A port's device is gone or down: closes it, and it will be opened again.
    fn fall(&mut self, id: PortId, reason: String) {
        let name = self.name_of(id).map_or_else(|| id.to_string(), |name| name.to_string());
        tracing::warn!(port = name, reason, "port is down");
        if let Some(PortLife::Up(mut door)) = self.ports.insert(id, PortLife::Down(reason.clone())) {
            self.republish();
            // A device that we made stays as it is, with what the pod did to it, and is found again; and so does the program that keeps a
            // pod from the node's kernel.
            let guard = Doors::guard_of(&door);
            let detach = door.tap.is_none() && guard.is_none();
            door.cable = None;
            self.ports.insert(id, PortLife::Up(door));
            self.close(id, detach);
            self.doors.guards.post(id, guard);
            self.pin_statics();
        }
        if let Some(name) = self.name_of(id).cloned() {
            self.tell_port(&name, Some(&reason));
            self.news.fell.insert(id);
        }
        self.ports.insert(id, PortLife::Down(reason));
    }

    /// The open port on device `index`.
    fn port_on(&self, index: u32) -> Option<PortId> {
        let on = |life: &PortLife| matches!(life, PortLife::Up(door) if door.ifindex == index);
        self.ports.iter().find(|(_, life)| on(life)).map(|(id, _)| *id)
    }

    /// The kernel says that something happened to devices.
    pub fn links_changed(&mut self, events: Vec<LinkEvent>) {
        for (at, event) in events.iter().enumerate() {
            // What was said of a device before something else was is over: one that was made a moment ago was down at first.
            if event.index().is_some() && events[at + 1..].iter().any(|later| later.index() == event.index())
            {
                continue;
            }
            match event {
                LinkEvent::Gone(index) => {
                    self.dismiss_guards(|on| on == *index);
                    if let Some(id) = self.port_on(*index) {
                        self.fall(id, GONE.into());
                    }
                }
                LinkEvent::There(link) => {
                    if let Some(id) = self.port_on(link.index) {
                        self.link_changed(id, link);
                    }
                }
                LinkEvent::Lost => {
                    tracing::warn!("netlink lost events; looking at every port again");
                    self.look_at_devices();
                }
            }
        }
        self.hear_of_devices();
        self.reopen_fallen();
    }

    /// Something happened to devices of the daemon's namespace: ports whose devices are there may find them now.
    fn hear_of_devices(&mut self) {
        for port in self.model.ports.values() {
            let is_here = !matches!(&port.object.kind, PortKind::Tap { netns: Some(_), .. });
            if let Some(retry) = self.retries.get_mut(&port.id).filter(|_| is_here) {
                retry.hear();
            }
        }
    }

    /// Asks how the device of every open port is: what was lost may have been about it.
    fn look_at_devices(&mut self) {
        let rtnl = match Rtnl::open() {
            Ok(rtnl) => rtnl,
            Err(error) => return tracing::warn!("netlink: {error}"),
        };
        let index = |life: &PortLife| match life {
            PortLife::Up(door) if door.ifindex != 0 => Some(door.ifindex),
            _ => None,
        };
        let ports: Vec<_> = self.ports.iter().filter_map(|(id, life)| Some((*id, index(life)?))).collect();
        self.dismiss_guards(|on| matches!(rtnl.link_at(on), Ok(None)));
        for (id, index) in ports {
            match rtnl.link_at(index) {
                Ok(Some(link)) => self.link_changed(id, &link),
                Ok(None) => self.fall(id, GONE.into()),
                Err(error) => tracing::warn!(index, "netlink: {error}"),
            }
        }
    }

    fn link_changed(&mut self, id: PortId, link: &Link) {
        if !link.is_up {
            return self.fall(id, format!("device {} is down", link.name));
        }
        if let Some(reason) = self.unlike(id, link) {
            return self.fall(id, reason);
        }
        let mtu_max = self.doors.xdp_mtu_max();
        if link.mtu > u32::from(mtu_max) {
            let reason =
                format!("device {} got an MTU of {}, an xdp port takes up to {mtu_max}", link.name, link.mtu);
            return self.fall(id, reason);
        }
        let is_jumbo = self.doors.is_jumbo(link);
        if let Some(PortLife::Up(door)) = self.ports.get_mut(&id)
            && u32::from(door.mtu) != link.mtu
        {
            if is_jumbo != door.jumbo {
                // Its sockets are made for the other size of frames; it is opened again at once.
                return self.fall(id, format!("device {} got an MTU of {}", link.name, link.mtu));
            }
            door.mtu = link.mtu as u16;
            self.republish();
        }
    }

    /// Looks at the devices in pods' namespaces, from where no news comes by itself.
    pub(super) fn look_at_taps(&mut self) {
        let mut news = Vec::new();
        for (id, life) in &mut self.ports {
            if let PortLife::Up(door) = life
                && let Some(tap) = &mut door.tap
            {
                news.push((*id, tap.look()));
            }
        }
        for (id, news) in news {
            match news {
                News::None => {}
                News::Fallen(reason) => self.fall(id, reason),
                // It is put back before anything follows it.
                News::Mtu(_) if self.is_host_port(id) => self.look_at_host_devices(),
                News::Mtu(mtu) => self.tap_mtu_changed(id, mtu),
            }
        }
    }

    /// A device of ours can have no MTU that is too large for a frame.
    fn tap_mtu_changed(&mut self, id: PortId, mtu: u32) {
        if let Some(PortLife::Up(door)) = self.ports.get_mut(&id) {
            door.mtu = mtu as u16;
            self.republish();
        }
    }

    /// Tries to open ports that are down and whose time it is: at once behind a fall.
    pub(super) fn reopen_fallen(&mut self) {
        let now = Instant::now();
        let down = |id: &PortId| matches!(self.ports.get(id), Some(PortLife::Down(_)));
        let due = |id: &PortId| self.retries.get(id).is_none_or(|retry| retry.is_due(now));
        let fallen = self.model.ports.iter().filter(|(_, port)| down(&port.id) && due(&port.id));
        let fallen: Vec<Name> = fallen.map(|(name, _)| name.clone()).collect();
        let (mut any, until) = (false, now + REOPEN_PATIENCE);
        for name in fallen {
            self.open_again(&name, until);
            let id = self.model.ports[&name].id;
            any |= matches!(self.ports.get(&id), Some(PortLife::Up(_)));
        }
        if any {
            self.republish();
            self.keep_homes(false);
        }
    }

    /// Whether an open port has this lane. It may be of one that had the port's number before, or of the same one before it fell.
    fn is_lane_of(&self, port: PortId, load: &Arc<LaneLoad>) -> bool {
        matches!(self.ports.get(&port), Some(PortLife::Up(door)) if door.has(load))
    }

    /// Reads what the workers report.
    pub fn read_reports(&mut self) {
        self.doors.catch_up_with_all();
        let mut reports = std::mem::take(&mut self.doors.stash);
        for (worker, mail) in (0..).zip(self.doors.mail.iter()) {
            reports.extend(std::iter::from_fn(|| mail.reports.pop()).map(|report| (worker, report)));
        }
        let mut dead = Vec::new();
        for (worker, report) in reports {
            match report {
                Report::Died(port, load, errno) => dead.push((port, load, errno)),
                Report::Loop => self.tell_loops(),
                Report::Emptied(region, frames) => self.doors.take_emptied(region, frames),
                Report::Packed { from, port, queue, lane: Some(lane), luggage } => {
                    let is_open = self.is_lane_of(port, &lane.1);
                    self.doors.give_back(from, (port, queue), lane, luggage, is_open);
                }
                Report::LaneOut(port, _, Some(lane)) => self.doors.bury(worker, port, lane),
                Report::Moved(moved) => self.tell_move(&moved),
                Report::Refused(refused) => self.tell_refused(&refused),
                Report::Logged(logged) => self.tell_logged(&logged),
                Report::Dropped(dropped) => self.tell_dropped(&dropped),
                Report::Wanted(key) => self.want_neighbour(key),
                // Answers to a question nobody waits for any more: the wait had its limit.
                Report::LaneOut(..)
                | Report::QueueOut(..)
                | Report::TakenIn(_)
                | Report::Stopped(_)
                | Report::Drained(_)
                | Report::Packed { .. }
                | Report::Unpacked(_) => {}
            }
        }
        // Their ports may be others' by now.
        let late: u64 = self.doors.lost.drain(..).map(|(_, _, frames)| frames).sum();
        self.unseen.note_gone(late);
        for (port, load, errno) in dead {
            if self.is_lane_of(port, &load) {
                let error = std::io::Error::from_raw_os_error(errno);
                // A device of ours: what it died of is known in its namespace, if anywhere.
                let news = match self.ports.get_mut(&port) {
                    Some(PortLife::Up(door)) => door.tap.as_mut().map(Tap::look),
                    _ => None,
                };
                match news {
                    Some(News::Fallen(reason)) => self.fall(port, reason),
                    Some(_) => self.fall(port, format!("its device is gone: {error}")),
                    None => self.fall(port, format!("its socket died: {error}")),
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "fallen_tests.rs"]
mod tests;
