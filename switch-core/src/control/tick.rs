//! What is due once a second, whether or not anybody asks.

use super::daemon::Daemon;
use crate::counter::Event;
use crate::table::fdb;
use crate::worker::Running;
use hashbrown::HashMap;

/// Parts of the FDB that are swept for old entries, one a second: no entry stays longer than this beyond
/// its time, and a sweep takes a fraction of a millisecond.
const SWEEP_PARTS: usize = 8;

impl Daemon {
    /// What is due once a second: ageing, ports to try again, news worth a line in the log.
    pub fn tick(&mut self, now_s: u32) {
        self.read_reports();
        self.age(now_s);
        let neighbours = &self.tables.neigh;
        neighbours.sweep(0..neighbours.lines(), |_, _, entry| entry.is_old(now_s));
        self.tell_loops();
        self.look_at_pending();
        self.look_at_taps();
        self.look_at_kernel();
        self.look_at_outside();
        self.follow_mtu();
        // What was left when there was much of it.
        self.uplinks_changed();
        self.announce_gateways();
        self.advertise(now_s);
        self.doors.shrink(now_s);
        self.look_at_loads();
        self.rebalance_unasked();
        self.look_for_overload();
        self.look_for_news(now_s);
        self.tell_left_out();
        self.forget_captures();
        self.reopen_fallen();
        if self.stopping.is_none() && self.workers.iter().any(Running::is_finished) {
            tracing::error!("a worker has ended by itself; stopping, so that a supervisor starts afresh");
            self.stopping = Some(false);
        }
    }

    fn age(&mut self, now_s: u32) {
        let table = &self.tables.fdb;
        let part = table.buckets().div_ceil(SWEEP_PARTS);
        let from = self.sweep_part * part;
        self.sweep_part = (self.sweep_part + 1) % SWEEP_PARTS;
        // There may be thousands of VLANs.
        let bridges: HashMap<_, _> =
            self.model.bridges.values().map(|bridge| (bridge.id, bridge.object.ageing_s)).collect();
        let of_fids = self.model.fids.iter();
        let ageing: HashMap<u16, u32> =
            of_fids.filter_map(|((bridge, _), fid)| Some((*fid, *bridges.get(bridge)?))).collect();
        let is_old = |fid: u16, entry: fdb::Entry| {
            let ageing_s = ageing.get(&fid).copied().unwrap_or(0);
            entry.is_old(now_s, ageing_s)
        };
        table.sweep(from..from + part, |_, fid, entry| is_old(fid, entry));
    }

    /// What was learned behind the ports that are blocked now came round: it is forgotten, and they are named.
    pub(super) fn tell_loops(&mut self) {
        let found = self.counters.iter().map(|counters| counters.event(Event::LoopFound).get()).sum();
        if found <= self.loops_told {
            return;
        }
        self.loops_told = found;
        let now_s = crate::worker::thread::now().s();
        let loops = &self.tables.loops;
        self.sweep(|_, _, entry| !entry.is_static && loops.is_blocked(entry.port, now_s));
        let blocked = self.model.ports.iter().filter(|(_, port)| loops.is_blocked(port.id, now_s));
        let ports = blocked.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
        tracing::warn!(ports, "a loop was found; these ports are blocked for a while");
        let text = format!("a loop was found; these ports are blocked for a while: {ports}");
        self.tell("loop", text, &[("ports", ports)]);
    }
}
