//! Lists and counters: what is asked without changing anything.

use super::daemon::{Daemon, PortLife};
use crate::config::model::no_such;
use crate::config::snapshot::PortId;
use crate::counter::{Counters, DropReason, Event, Ledger, Stage, StageCounter};
use crate::table::fdb::Entry;
use crate::worker::thread::now;
use std::collections::BTreeMap;
use std::sync::Arc;
use switch_api::{
    ApiError, BridgeStatus, DropCount, FdbEntry, FdbFilter, FrameCounts, Mac, Name, PacketCounts,
    PortCounters, PortKind, PortMemory, PortState, PortStatus, Room, RouteCounts, StageCost, Stats, Status,
    Support, WorkerStages, WorkerStatus,
};

type Wanted = Box<dyn Fn(u64, u16, Entry) -> bool>;

impl Daemon {
    /// What the daemon is and how it is.
    pub fn status(&self) -> Status {
        let xdp = match &self.doors.engine {
            Ok(engine) => {
                Support { ok: true, detail: format!("TX checksum metadata {:?}", engine.tx_metadata()) }
            }
            Err(reason) => Support { ok: false, detail: reason.clone() },
        };
        Status {
            daemon: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            generation: self.publisher.generation(),
            workers: self.workers.len() as u16,
            frames: self.frames(),
            memory: self.doors.budget.status(),
            xdp,
            sandbox: self.sandbox.clone(),
            outside: Some(self.outside_status()),
            pod_mtu: self.pod_mtu(),
            xdp_mtu_max: Some(self.doors.xdp_mtu_max()),
        }
    }

    /// Where the frames are. `in_rings` is not the workers' books but a walk over every frame's record, so
    /// that books and reality check each other.
    pub fn frames(&self) -> FrameCounts {
        let area = &self.doors.area;
        let total = u64::from(area.frames_total());
        let sum = |of: fn(&Counters) -> u64| self.counters.iter().map(|counters| of(counters)).sum::<u64>();
        let free = sum(|counters| counters.life.free.get());
        let in_rings = self.doors.area.recorded();
        let between = total as i64 - sum(|counters| counters.life.expected.get()) as i64;
        let in_flight = sum(|counters| counters.life.in_flight.get()) + between.max(0) as u64;
        let unaccounted = total as i64 - free as i64 - in_rings as i64 - in_flight as i64;
        FrameCounts {
            total,
            free,
            in_rings,
            in_flight,
            unaccounted,
            chunk_bytes: area.size().chunk_bytes,
            large: u64::from(area.size().large),
            large_free: sum(|counters| counters.life.free_large.get()),
        }
    }

    /// What became of every packet, by the workers' books.
    pub fn packets(&self) -> PacketCounts {
        let sum = |of: fn(&Ledger) -> u64| self.counters.iter().map(|it| of(&it.ledger)).sum::<u64>();
        let between = sum(|it| it.handed_over.get()).saturating_sub(sum(|it| it.taken_over.get()));
        PacketCounts {
            received: sum(|it| it.received.get()),
            outside: sum(|it| it.outside.get()) + self.unseen.all(),
            copied: sum(|it| it.copied.get()),
            generated: sum(|it| it.generated.get()),
            sent: sum(|it| it.sent.get()),
            consumed: sum(|it| it.consumed.get()),
            dropped: sum(Ledger::dropped) + self.unseen.all(),
            waiting: sum(|it| it.waiting.get()) + between,
            unaccounted: self.counters.iter().map(|it| it.ledger.unaccounted.get() as i64).sum(),
        }
    }

    /// Bridges.
    pub fn list_bridges(&self) -> Vec<BridgeStatus> {
        let mut macs: BTreeMap<u16, usize> = BTreeMap::new();
        self.tables.fdb.for_each(|_, fid, _| *macs.entry(fid).or_default() += 1);
        let status = |bridge: &crate::config::model::Numbered<switch_api::Bridge>| {
            let fids = || self.model.fids.iter().filter(|((owner, _), _)| *owner == bridge.id);
            BridgeStatus {
                bridge: (*bridge.object).clone(),
                mac: crate::config::gateway::mac_of(&self.model, &bridge.object),
                addresses: self
                    .model
                    .addresses
                    .iter()
                    .filter(|address| address.bridge == bridge.object.name)
                    .cloned()
                    .collect(),
                ports: self
                    .model
                    .ports_of(&bridge.object.name)
                    .map(|port| port.object.name.clone())
                    .collect(),
                vlans: fids().count(),
                macs: fids().map(|(_, fid)| macs.get(fid).copied().unwrap_or(0)).sum(),
            }
        };
        self.model.bridges.values().map(status).collect()
    }

    /// Ports.
    pub fn list_ports(&self) -> Vec<PortStatus> {
        let recorded = self.doors.area.recorded_by();
        self.model.ports.values().map(|port| self.port_status(port.id, &port.object, &recorded)).collect()
    }

    /// One port.
    pub fn get_port(&self, name: &Name) -> Result<PortStatus, ApiError> {
        let port = self.model.ports.get(name).ok_or_else(|| no_such("port", name))?;
        Ok(self.port_status(port.id, &port.object, &self.doors.area.recorded_by()))
    }

    /// `recorded`: frames in rings, by holder.
    fn port_status(&self, id: PortId, port: &switch_api::Port, recorded: &[u32]) -> PortStatus {
        let looped = self.tables.loops.is_blocked(id, now().s());
        let mut status = PortStatus {
            port: port.clone(),
            state: if looped { PortState::Looped } else { PortState::Up },
            reason: looped.then(|| DropReason::LoopBlocked.meaning().to_owned()),
            mode: None,
            mode_reason: None,
            workers: Vec::new(),
            mtu: 0,
            memory_bytes: 0,
            memory: PortMemory::default(),
            learned: self.tables.fdb.learned(id),
            counters: self.port_counters(id),
        };
        match self.ports.get(&id) {
            Some(PortLife::Up(door)) => {
                status.mode = door.mode.map(str::to_owned);
                status.mode_reason.clone_from(&door.mode_reason);
                status.workers.clone_from(&door.workers);
                status.mtu = port.settings.mtu.map_or(door.mtu, |mtu| mtu.min(door.mtu));
                status.memory = self.port_memory(id, &door.holders, recorded);
                let PortMemory { frames_bytes, rings_bytes, kernel_bytes } = status.memory;
                status.memory_bytes = frames_bytes + rings_bytes + kernel_bytes;
            }
            Some(PortLife::Down(reason)) => {
                status.state = PortState::Down;
                status.reason = Some(reason.clone());
            }
            None => status.state = PortState::Down,
        }
        if let PortKind::Vxlan { local, underlay, .. } = &port.kind {
            match self.publisher.current().port(id).filter(|facts| facts.open) {
                Some(facts) => status.mtu = facts.mtu,
                None => {
                    status.state = PortState::Down;
                    status.reason = Some(format!(
                        "{local} is no address of a bridge of VRF {underlay}, nor of the NIC of an uplink that is up"
                    ));
                }
            }
        }
        status
    }

    fn port_memory(&self, id: PortId, holders: &[u16], recorded: &[u32]) -> PortMemory {
        let of = |holder: &u16| u64::from(recorded.get(usize::from(*holder)).copied().unwrap_or(0));
        let frames = holders.iter().map(of).sum::<u64>();
        let (rings_bytes, kernel_bytes) = self.doors.budget.of_port(id);
        let frames_bytes = frames * u64::from(self.doors.area.size().chunk_bytes);
        PortMemory { frames_bytes, rings_bytes, kernel_bytes }
    }

    /// A port's traffic, over all workers.
    fn port_counters(&self, id: PortId) -> PortCounters {
        let mut sum = PortCounters::default();
        for counters in &self.counters {
            let traffic = counters.port(id);
            sum.rx_packets += traffic.rx_packets.get();
            sum.rx_bytes += traffic.rx_bytes.get();
            sum.tx_packets += traffic.tx_packets.get();
            sum.tx_bytes += traffic.tx_bytes.get();
        }
        sum.drops = DropReason::ALL.iter().map(|reason| self.drops(id, *reason)).sum();
        sum
    }

    /// Frames of a port dropped for a reason, whoever dropped them.
    fn drops(&self, id: PortId, reason: DropReason) -> u64 {
        let seen = self.counters.iter().map(|counters| counters.drops(id, reason)).sum::<u64>();
        seen + self.unseen.of(id, reason)
    }

    /// What a filter means, by number.
    pub fn fdb_wanted(&self, filter: &FdbFilter) -> Result<Wanted, ApiError> {
        let bridge = filter.bridge.as_ref().map(|name| {
            self.model.bridges.get(name).map(|bridge| bridge.id).ok_or_else(|| no_such("bridge", name))
        });
        let bridge = bridge.transpose()?;
        let port = filter
            .port
            .as_ref()
            .map(|name| self.model.ports.get(name).map(|port| port.id).ok_or_else(|| no_such("port", name)));
        let port = port.transpose()?;
        let (vid, mac) = (filter.vid, filter.mac.map(Mac::to_u64));
        let fits = |(owner, of): &(u16, switch_api::Vid)| {
            bridge.is_none_or(|bridge| bridge == *owner) && vid.is_none_or(|vid| vid == *of)
        };
        let fids: Vec<u16> =
            self.model.fids.iter().filter(|(pair, _)| fits(pair)).map(|(_, fid)| *fid).collect();
        Ok(Box::new(move |station, fid, entry| {
            mac.is_none_or(|mac| mac == station)
                && port.is_none_or(|port| port == entry.port)
                && fids.contains(&fid)
        }))
    }

    /// Stations.
    pub fn list_fdb(&self, filter: &FdbFilter) -> Result<Vec<FdbEntry>, ApiError> {
        let wanted = self.fdb_wanted(filter)?;
        let ports: BTreeMap<u16, &Name> =
            self.model.ports.iter().map(|(name, port)| (port.id, name)).collect();
        let bridges: BTreeMap<u16, &Name> =
            self.model.bridges.iter().map(|(name, bridge)| (bridge.id, name)).collect();
        let fids: BTreeMap<u16, _> = self.model.fids.iter().map(|(pair, fid)| (*fid, *pair)).collect();
        let declared: BTreeMap<_, _> =
            self.model.static_macs.iter().map(|it| ((&it.bridge, it.vid, it.mac), it)).collect();
        let now_s = now().s();
        let mut list = Vec::new();
        self.tables.fdb.for_each(|station, fid, entry| {
            let Some((bridge, vid)) = fids.get(&fid).filter(|_| wanted(station, fid, entry)) else { return };
            let (Some(port), Some(bridge)) = (ports.get(&entry.port), bridges.get(bridge)) else { return };
            let age_s = if entry.is_static { 0 } else { entry.age_s(now_s) };
            let declared = declared.get(&(*bridge, *vid, Mac::from_u64(station)));
            list.push(FdbEntry {
                mac: Mac::from_u64(station),
                vid: *vid,
                bridge: (*bridge).clone(),
                port: (*port).clone(),
                is_static: entry.is_static,
                age_s,
                dst: declared.and_then(|it| it.dst),
                owner: declared.map(|it| it.owner),
            });
        });
        list.sort_by(|a, b| (&a.bridge, a.vid, a.mac).cmp(&(&b.bridge, b.vid, b.mac)));
        Ok(list)
    }

    /// Workers.
    pub fn list_workers(&self) -> Vec<WorkerStatus> {
        let status =
            |(id, (running, counters)): (usize, (&crate::worker::Running, &std::sync::Arc<Counters>))| {
                let life = &counters.life;
                let (free, in_rings, in_flight) =
                    (life.free.get(), life.in_rings.get(), life.in_flight.get());
                let total = life.expected.get();
                let unaccounted = total as i64 - (free + in_rings + in_flight) as i64;
                let size = self.doors.area.size();
                let large = u64::from(size.large.div_ceil(self.workers.len() as u32));
                WorkerStatus {
                    id: id as u16,
                    core: running.core(),
                    lanes: self.lanes_of(id as u16),
                    turns: life.turns.get(),
                    empty_turns: life.empty_turns.get(),
                    naps: life.naps.get(),
                    sleeps: life.sleeps.get(),
                    generation: life.generation.get(),
                    frames: FrameCounts {
                        total,
                        free,
                        in_rings,
                        in_flight,
                        unaccounted,
                        chunk_bytes: size.chunk_bytes,
                        large,
                        large_free: life.free_large.get(),
                    },
                    wake_latency_us: life
                        .wake_us
                        .iter()
                        .enumerate()
                        .map(|(i, count)| (1 << i, count.get()))
                        .collect(),
                    wake_latency_sum_us: life.wake_sum_us.get(),
                }
            };
        self.workers.iter().zip(&self.counters).enumerate().map(status).collect()
    }

    /// Counters, drop reasons, frames, cycles per stage.
    pub fn stats(&self) -> Stats {
        let (packets, frames, memory) = (self.packets(), self.frames(), self.doors.budget.status());
        let mut stats = Stats { packets, frames, memory, ..Stats::default() };
        for (name, port) in &self.model.ports {
            stats.ports.push((name.clone(), self.port_counters(port.id)));
            for reason in DropReason::ALL {
                let frames = self.drops(port.id, *reason);
                if frames > 0 {
                    stats.drops.push(DropCount {
                        reason: reason.name().into(),
                        stage: reason.stage().name().into(),
                        meaning: reason.meaning().into(),
                        port: name.clone(),
                        frames,
                    });
                }
            }
        }
        let count = |event: Event| self.counters.iter().map(|counters| counters.event(event).get()).sum();
        stats.policy_drops = self.policy_drops();
        stats.requests = self.latencies.list();
        stats.routes = RouteCounts {
            declared: self.model.routes.len() as u64,
            mirrored: self.model.mirrored.len() as u64,
        };
        stats.room = Room {
            macs: self.fdb_entries.into(),
            neighbours: self.tables.neigh.lines() as u64 / 2,
            routes: crate::config::ROUTES_STATIC_MAX as u64,
        };
        stats.events = Event::ALL.iter().map(|event| (event.name().to_owned(), count(*event))).collect();
        stats.stages = stage_costs(&self.counters);
        let of_one = |(worker, counters)| WorkerStages {
            worker: worker as u16,
            stages: stage_costs(std::slice::from_ref(counters)),
        };
        stats.worker_stages = self.counters.iter().enumerate().map(of_one).collect();
        stats
    }
}

/// What each stage that packets went through costs these workers together.
fn stage_costs(workers: &[Arc<Counters>]) -> Vec<StageCost> {
    let cost = |stage: &Stage| {
        let sum = |of: fn(&StageCounter) -> u64| {
            workers.iter().map(|counters| of(counters.stage(*stage))).sum::<u64>()
        };
        let packets = sum(|stage| stage.packets.get());
        (packets > 0).then(|| StageCost {
            stage: stage.name().into(),
            cycles_per_packet: sum(|stage| stage.cycles.get()) as f64 / packets as f64,
            packets,
            vectors: sum(|stage| stage.vectors.get()),
        })
    };
    Stage::ALL.iter().filter_map(cost).collect()
}
