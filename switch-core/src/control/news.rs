//! What happens, for whoever asked to be told, and the last of it for who asks later. What the daemon does itself is told
//! where it is done; what workers only count and tables only hold is looked at once a second.

use super::capture::epoch_ns;
use super::daemon::Daemon;
use crate::config::gateway::from_bits;
use crate::config::snapshot::PortId;
use crate::counter::DropReason;
use crate::pipeline::Moved;
use crate::table::neigh::State;
use crate::worker::thread::now;
use hashbrown::{HashMap, HashSet};
use std::collections::VecDeque;
use switch_api::{EVENT_KINDS, Happened, Mac, Name, Owner, Request};

/// Events that wait until the loop hands them on.
pub(crate) const WAITING_MAX: usize = 1024;
/// Events kept for who comes later, of changes, of what policies stopped, of other drops, and of all else: a day of an ordinary
/// node, in some 400 KiB. A runtime's churn makes many changes, and a scan many drops, which must not push out the port that
/// went down before.
pub(crate) const KEPT_MAX: usize = 512;
/// A table, pool or memory is nearly full at so many percent, and no longer so at the second number.
const NEAR_FULL_PERCENT: (u64, u64) = (90, 80);
/// The kind of event that is somebody's doing.
const CHANGED: &str = "changed";
/// The kind of event that a policy's first drop of a flow is.
pub(super) const POLICY_DROP: &str = "policy-drop";
/// The kind of event that a decision of a rule with `log` is.
pub(super) const ACL_LOG: &str = "acl-log";
/// The kind of event that any other first drop of a flow is.
pub(super) const DROP: &str = "drop";
/// The same where translation has no port left for it.
pub(super) const NAT_EXHAUSTED: &str = "nat-exhausted";
/// Moved stations told by name in a second; of more the number is told. A loop moves them at line rate.
const MOVES_A_SECOND: u64 = 20;
/// Neighbours that do not answer, told by address in a second; of more the number is told. A scan through a gateway asks for every address
/// of a network.
const FAILED_A_SECOND: usize = 20;
/// A storm that pauses for so long is over; the next is told again.
const STORM_OVER_S: u32 = 10;

/// Who asks for something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
}

impl Caller {
    /// What its program is called, if it still runs.
    pub(super) fn program(&self) -> String {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        name.trim().to_owned()
    }
}

/// What is needed to tell only what is new.
#[derive(Debug, Default)]
pub struct News {
    /// Somebody listens.
    listened: bool,
    waiting: VecDeque<Happened>,
    /// Events that found no room to wait.
    lost: u64,
    /// The last of them: changes, what policies stopped and rules log, what else was dropped, and all else.
    kept: [VecDeque<Happened>; 4],
    /// What policies stopped and was not told, as of the last look; so what rules log; and what else was dropped.
    pub(super) untold: [u64; 3],
    /// Ports whose fall was told, and that nobody has tried to open since.
    pub(super) fell: HashSet<PortId>,
    storms: HashMap<PortId, (u64, u32)>,
    full: HashSet<String>,
    failed: HashSet<(u16, u128)>,
    moves: u64,
}

impl News {
    fn add(&mut self, event: Happened) {
        debug_assert!(EVENT_KINDS.contains(&event.what.as_str()), "{} is no kind of event", event.what);
        if self.listened && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(event.clone());
        } else if self.listened {
            self.lost += 1;
        }
        let kept = match event.what.as_str() {
            CHANGED => &mut self.kept[0],
            POLICY_DROP | ACL_LOG | NAT_EXHAUSTED => &mut self.kept[1],
            DROP => &mut self.kept[2],
            _ => &mut self.kept[3],
        };
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(event);
    }

    /// What is kept, the oldest first.
    pub(super) fn recent(&self) -> Vec<&Happened> {
        let mut events: Vec<_> = self.kept.iter().flatten().collect();
        events.sort_by_key(|event| event.time_ns);
        events
    }
}

impl Daemon {
    /// Something happened.
    pub(super) fn tell(&mut self, what: &str, text: String, parts: &[(&str, String)]) {
        self.tell_of(now().ns, what, text, parts);
    }

    /// Something happened before, by the workers' clock.
    pub(super) fn tell_of(&mut self, at_ns: u64, what: &str, text: String, parts: &[(&str, String)]) {
        let parts = parts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let time_ns = epoch_ns() + at_ns;
        self.news.add(Happened { time_ns, what: what.to_owned(), text, parts });
    }

    /// Whether somebody listens.
    pub(super) fn set_listened(&mut self, listened: bool) {
        self.news.listened = listened;
    }

    /// What happened since the last look, and how much more did that found no room.
    pub(super) fn take_news(&mut self) -> (Vec<Happened>, u64) {
        (self.news.waiting.drain(..).collect(), std::mem::take(&mut self.news.lost))
    }

    /// A port is gone: the next of its number begins to count anew, and what was told of this one is not said of that.
    pub(super) fn forget_counts_of(&mut self, port: PortId) {
        self.counters.iter().for_each(|counters| counters.clear_port(port));
        self.unseen.forget(port);
        self.news.storms.remove(&port);
        self.news.fell.remove(&port);
        self.retries.remove(&port);
    }

    pub(super) fn tell_port(&mut self, name: &Name, down: Option<&str>) {
        let port = ("port", name.to_string());
        match down {
            None => self.tell("port-up", format!("port {name} is up"), &[port]),
            Some(reason) => {
                let text = format!("port {name} is down: {reason}");
                self.tell("port-down", text, &[port, ("reason", reason.to_owned())]);
            }
        }
    }

    /// A change was made, by whom, and whose objects it touched against the rule.
    pub(super) fn tell_change(&mut self, request: &Request, caller: Caller, overridden: Option<Owner>) {
        if request.is_read_only() {
            return;
        }
        let Ok(said) = serde_json::to_value(request) else { return };
        let method = said["method"].as_str().unwrap_or_default().to_owned();
        let about = ["name", "prefix", "mac", "address", "bridge", "pool", "source"];
        let about = about.iter().find_map(|field| said["params"].get(*field)?.as_str());
        let Caller { uid, pid } = caller;
        let (program, about) = (caller.program(), about.unwrap_or_default().to_owned());
        let what = format!("{method} {about}");
        let mut text = format!("{}, by user {uid} ({program}, process {pid})", what.trim_end());
        if let Some(owner) = overridden {
            text += &format!(", overriding that it belongs to {}", owner.in_words());
            // Beyond what the daemon keeps: who undid another's work is asked for later, too.
            tracing::warn!("{text}");
        }
        let (uid, pid) = (uid.to_string(), pid.to_string());
        let parts = [("method", method), ("about", about), ("uid", uid), ("pid", pid), ("program", program)];
        let parts = parts.into_iter().chain(overridden.map(|owner| ("overridden", owner.to_string())));
        self.tell(CHANGED, text, &parts.collect::<Vec<_>>());
    }

    pub(super) fn tell_move(&mut self, moved: &Moved) {
        self.news.moves += 1;
        if self.news.moves > MOVES_A_SECOND {
            return;
        }
        let mac = Mac::from_u64(moved.mac);
        let (from, to) = (self.port_name(moved.from).to_string(), self.port_name(moved.to).to_string());
        let vlan = self.publisher.current().fids.get(usize::from(moved.fid)).map_or(0, |fid| fid.vid);
        let text = format!("{mac}, VLAN {vlan}, moved from {from} to {to}");
        let parts = [("mac", mac.to_string()), ("vid", vlan.to_string()), ("from", from), ("to", to)];
        self.tell("mac-moved", text, &parts);
    }

    /// What is due once a second.
    pub(super) fn look_for_news(&mut self, now_s: u32) {
        let moves = std::mem::take(&mut self.news.moves);
        if let Some(more) = moves.checked_sub(MOVES_A_SECOND).filter(|more| *more > 0) {
            let text = format!("{more} more moves of stations in this second");
            self.tell("mac-moved", text, &[("more", more.to_string())]);
        }
        self.look_for_untold();
        self.look_for_storms(now_s);
        self.look_at_tables();
        self.look_for_failed(now_s);
    }

    fn look_for_storms(&mut self, now_s: u32) {
        let ports: Vec<_> = self.model.ports.iter().map(|(name, port)| (name.clone(), port.id)).collect();
        for (name, id) in ports {
            let of = |counters: &std::sync::Arc<crate::counter::Counters>| {
                counters.drops(id, DropReason::StormLimit)
            };
            let dropped: u64 = self.counters.iter().map(of).sum();
            let first = (dropped, now_s.saturating_sub(STORM_OVER_S + 1));
            let (before, last_s) = *self.news.storms.entry(id).or_insert(first);
            if dropped <= before {
                continue;
            }
            self.news.storms.insert(id, (dropped, now_s));
            if now_s.saturating_sub(last_s) > STORM_OVER_S {
                let frames = dropped - before;
                let text =
                    format!("a storm comes in by port {name}: {frames} frames above its limit were dropped");
                self.tell("storm", text, &[("port", name.to_string()), ("frames", frames.to_string())]);
            }
        }
    }

    fn look_at_tables(&mut self) {
        let frames = self.frames();
        // The part of a table that whoever comes first may fill: it is that which runs out.
        let stations = self.publisher.current().limits.shared();
        let mut seen = vec![
            (
                "table-near-full",
                "what ports share of the table of stations (`switchd --fdb-entries`)".to_owned(),
                u64::from(self.tables.fdb.entries()),
                u64::from(stations),
            ),
            (
                "table-near-full",
                "what ports share of the table of neighbours (`switchd --neighbours`)".to_owned(),
                u64::from(self.tables.neigh.entries()),
                u64::from(self.tables.neigh.shared()),
            ),
            (
                "memory-near-out",
                "packet memory".to_owned(),
                frames.total - frames.free.min(frames.total),
                frames.total,
            ),
        ];
        for pool in self.book.pools() {
            for family in &pool.families {
                let version = if family.is_ipv6 { "IPv6" } else { "IPv4" };
                let what = format!("address pool {} ({version})", pool.pool.name);
                seen.push((
                    "pool-near-full",
                    what,
                    family.total - family.free.min(family.total),
                    family.total,
                ));
            }
        }
        for (kind, what, used, of) in seen {
            let percent = (u128::from(used) * 100 / u128::from(of.max(1))) as u64;
            if percent >= NEAR_FULL_PERCENT.0 && self.news.full.insert(what.clone()) {
                let text = format!("{what} is {percent} % full: {used} of {of}");
                self.tell(kind, text, &[("used", used.to_string()), ("of", of.to_string())]);
            } else if percent < NEAR_FULL_PERCENT.1 {
                self.news.full.remove(&what);
            }
        }
    }

    fn look_for_failed(&mut self, now_s: u32) {
        let mut failed = HashSet::new();
        self.tables.neigh.for_each(|fid, ip, entry| {
            if entry.state == State::Failed && !entry.is_old(now_s) {
                failed.insert((fid, ip));
            }
        });
        let fresh: Vec<_> = failed.difference(&self.news.failed).copied().collect();
        for (fid, ip) in fresh.iter().copied().take(FAILED_A_SECOND) {
            let of_fid = self.model.fids.iter().find(|(_, of)| **of == fid);
            let bridge = of_fid.and_then(|((bridge, _), _)| {
                self.model.bridges.iter().find(|(_, candidate)| candidate.id == *bridge)
            });
            let (bridge, ip) = (bridge.map_or(String::new(), |(name, _)| name.to_string()), from_bits(ip));
            let text = format!("{ip} on bridge {bridge} does not answer");
            self.tell("neighbour-failed", text, &[("address", ip.to_string()), ("bridge", bridge)]);
        }
        if let Some(more) = fresh.len().checked_sub(FAILED_A_SECOND).filter(|more| *more > 0) {
            let text = format!("{more} more neighbours do not answer, as of this second");
            self.tell("neighbour-failed", text, &[("more", more.to_string())]);
        }
        self.news.failed = failed;
    }
}
