//! What is answered, one type per kind of answer.

use crate::{Bridge, BridgeAddress, Mac, Name, Owner, Port, Vid};
use serde::{Deserialize, Serialize};

/// Answer to a change: the generation of the snapshot that every worker now uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Generation number; it grows by one with each change.
    pub generation: u64,
}

/// Answer to [`crate::Request::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// The daemon's [`crate::API_VERSION`].
    pub version: u32,
    /// The daemon's package version.
    pub daemon: String,
    /// Whether this client may change everything.
    pub admin: bool,
    /// What this client may do; an older daemon says no more than `admin`.
    #[serde(default)]
    pub role: Option<Role>,
    /// Longest line that the daemon takes of this client, in bytes; an older one says nothing, and takes
    /// [`crate::codec::LINE_LEN_MAX`].
    #[serde(default)]
    pub line_len_max: Option<usize>,
}

/// What a client of the socket may do: decided by who it is (`SO_PEERCRED`), not by what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look, not change.
    Reader,
    /// Look; attach and detach containers.
    Cni,
    /// Everything.
    Admin,
}

/// Answer to [`crate::Request::Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's package version.
    pub daemon: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The snapshot in force.
    pub generation: u64,
    /// Workers.
    pub workers: u16,
    /// Packet memory.
    pub frames: FrameCounts,
    /// What memory is spent on.
    #[serde(default)]
    pub memory: MemoryStatus,
    /// Whether AF_XDP can be used here, and if not, why.
    pub xdp: Support,
    /// Whether the daemon has given up what it does not need, and what it keeps; an older one says nothing.
    #[serde(default)]
    pub sandbox: Option<Support>,
    /// What the daemon keeps in the node's kernel so that pods reach the outside and are reached; an older one says nothing.
    #[serde(default)]
    pub outside: Option<OutsideStatus>,
    /// The largest packet that a pod can send out of the node in one piece, bytes: what fits through the host port and the device
    /// of the node's default route. None: the node has no such way.
    #[serde(default)]
    pub pod_mtu: Option<u16>,
    /// The largest MTU of a device that can be an xdp port, bytes; an older daemon says nothing.
    #[serde(default)]
    pub xdp_mtu_max: Option<u16>,
}

/// What the daemon keeps in the node's kernel for pods to reach the outside and be reached from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideStatus {
    /// Its table is there: `nft list table inet switchd`.
    pub table: bool,
    /// Networks that are masqueraded.
    pub masqueraded: u32,
    /// Published ports, each IP version by itself.
    pub published: u32,
    /// Settings that it made, as sysctl(8) calls them, and puts back in the end.
    pub settings: Vec<String>,
    /// Why it is not as declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Whether something works here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// It does.
    pub ok: bool,
    /// The reason if it does not, or what was found.
    pub detail: String,
}

/// Where the frames are. The conservation law says `free + in_rings + in_flight == total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// All there are: every region of packet memory that is mapped, and the large ones.
    pub total: u64,
    /// In a pool.
    pub free: u64,
    /// In a port's rings.
    pub in_rings: u64,
    /// In a worker's queues or on the way between workers.
    pub in_flight: u64,
    /// `total` less the others. While traffic flows the four are read one after another, so a few
    /// frames may be counted twice or not at all; at rest anything but 0 is a defect.
    pub unaccounted: i64,
    /// Bytes of a frame that is not large.
    pub chunk_bytes: u32,
    /// Large frames (up to 64 KiB) among them all.
    pub large: u64,
    /// Large frames in a pool.
    pub large_free: u64,
}

/// What became of every packet since the daemon started, over all ports there were. The law of packets says
/// `received + outside + copied + generated == sent + consumed + dropped + waiting`. A superframe is one packet until somebody cuts
/// it up, and a tunnel is a port like others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCounts {
    /// Came in by a port.
    pub received: u64,
    /// The kernel dropped them at the switch's sockets and devices, before they came in or behind where they left; they are among
    /// `dropped`.
    pub outside: u64,
    /// Made out of others: by flooding, by cutting up.
    pub copied: u64,
    /// Made by the switch: what it says itself, and what tunnels put around others' packets.
    pub generated: u64,
    /// Left by a port.
    pub sent: u64,
    /// Were for the switch itself, and ended there.
    pub consumed: u64,
    /// Dropped, for whatever reason.
    pub dropped: u64,
    /// Are in the switch: for a port to take them, for a neighbour, on the way between workers.
    pub waiting: u64,
    /// What the law lacks, by the workers' own sums at the end of their last turn: anything but 0 is a defect. The others are read one
    /// after another, and add up at rest.
    pub unaccounted: i64,
}

/// What memory is spent on. `used_bytes` is the sum of tables, large frames, packet memory, ports and rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// Never passed: `switchd --memory`.
    pub ceiling_bytes: u64,
    /// In use.
    pub used_bytes: u64,
    /// Tables and counters; fixed when the daemon starts.
    pub tables_bytes: u64,
    /// Large frames; fixed as well.
    pub large_bytes: u64,
    /// Regions of packet memory.
    pub packet_bytes: u64,
    /// The ports' rings, and what the kernel keeps for them.
    pub ports_bytes: u64,
    /// Regions in use.
    pub regions: u16,
    /// Regions that go back to the kernel as soon as their last frame has come home.
    pub regions_emptying: u16,
    /// Bytes of a region.
    pub region_bytes: u64,
    /// What network policies and access control lists are compiled to.
    #[serde(default)]
    pub rules_bytes: u64,
}

/// What a port's memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMemory {
    /// Packet memory in its rings, by the records of who has which frame.
    pub frames_bytes: u64,
    /// Its rings.
    pub rings_bytes: u64,
    /// What the kernel keeps for it, beside its rings: computed from what was measured of each kind of port.
    pub kernel_bytes: u64,
}

/// How a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// It carries frames.
    Up,
    /// It does not; `reason` says why. It is opened again by itself when the cause is gone.
    Down,
    /// A loop was found behind it; it is blocked for a while.
    Looped,
}

/// One port in the answer to [`crate::Request::PortList`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortStatus {
    /// As declared.
    pub port: Port,
    /// How it is.
    pub state: PortState,
    /// Why it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the kernel says it runs as: `native`, `generic`, `zero-copy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Why it is not a faster mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_reason: Option<String>,
    /// Worker of each queue.
    pub workers: Vec<u16>,
    /// Largest L3 packet it is given, in bytes.
    pub mtu: u16,
    /// Bytes it takes, all told.
    pub memory_bytes: u64,
    /// What they are.
    #[serde(default)]
    pub memory: PortMemory,
    /// MACs learned behind it.
    pub learned: u32,
    /// Traffic.
    pub counters: PortCounters,
}

/// The answer to [`crate::Request::PortProbe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReply {
    /// The device.
    pub device: String,
    /// Its MTU, bytes of L3 packet.
    pub mtu: u32,
    /// Its queues that a port can serve.
    pub queues: u32,
    /// What was tried, in the order in which the switch would.
    pub tried: Vec<Tried>,
    /// The mode a port on it would get; none if none works.
    pub choice: Option<String>,
}

/// Something a device or the kernel may be able to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// What.
    pub what: String,
    /// Whether it works.
    pub works: bool,
    /// Why not, or what it is good for.
    pub detail: String,
}

/// Traffic of a port, seen from the switch: `rx` came in by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PortCounters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Frames of any reason that came in by it and were dropped, or were to leave by it.
    pub drops: u64,
}

/// One bridge in the answer to [`crate::Request::BridgeList`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BridgeStatus {
    /// As declared.
    pub bridge: Bridge,
    /// The switch's own MAC on it.
    pub mac: Mac,
    /// Its gateways.
    pub addresses: Vec<BridgeAddress>,
    /// Its ports.
    pub ports: Vec<Name>,
    /// VLANs with a member.
    pub vlans: usize,
    /// MACs, static ones too.
    pub macs: usize,
}

/// One MAC in the answer to [`crate::Request::FdbList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The station.
    pub mac: Mac,
    /// Its VLAN.
    pub vid: Vid,
    /// Its bridge.
    pub bridge: Name,
    /// The port it is behind.
    pub port: Name,
    /// Declared, not learned.
    #[serde(rename = "static")]
    pub is_static: bool,
    /// Seconds since it was last heard from; 0 for a static one. Exact to a second.
    pub age_s: u32,
    /// Behind a tunnel: the address outside of the end that it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<std::net::IpAddr>,
    /// Who declared it; none: it was learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// The log, in the answer to [`crate::Request::LogGet`] and [`crate::Request::LogLevel`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// How much is said, as it was asked for.
    pub level: String,
    /// `text` or `json`.
    pub format: String,
    /// Lines left out since the daemon runs, because one place said too many of them.
    pub left_out: u64,
}

/// One worker in the answer to [`crate::Request::WorkerList`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub id: u16,
    /// The core it is pinned to; none if pinning failed.
    pub core: Option<usize>,
    /// Lanes it owns, and what they cost it.
    pub lanes: Vec<LaneStatus>,
    /// Turns it made.
    pub turns: u64,
    /// Turns without a frame.
    pub empty_turns: u64,
    /// Times it rested between two turns, at low load, to let frames gather.
    #[serde(default)]
    pub naps: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Generation it uses.
    pub generation: u64,
    /// Its frames.
    pub frames: FrameCounts,
    /// Wake-up latency, microseconds, as `(upper bound, count)`: from the sender's wake to the
    /// worker's first instruction after sleep. The last bound stands for everything above.
    pub wake_latency_us: Vec<(u64, u64)>,
    /// All of it together, microseconds.
    #[serde(default)]
    pub wake_latency_sum_us: u64,
}

/// A lane: one queue of a port, served by one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Its port.
    pub port: Name,
    /// Which of the port's queues.
    pub queue: u16,
    /// Share of the worker's core that it takes, averaged over some seconds: what comes in by it, until it has left, and
    /// what other workers send by it. From samples.
    pub busy_percent: f64,
    /// Frames in and out, averaged over some seconds.
    pub frames_per_s: f64,
    /// Nanoseconds a frame, in or out, since the port is open.
    pub ns_per_frame: f64,
    /// Frames that came in by it.
    pub rx_packets: u64,
    /// Frames that left by it.
    pub tx_packets: u64,
}

/// Answer to [`crate::Request::WorkerRebalance`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rebalanced {
    /// What was moved, or would be.
    pub moves: Vec<LaneMove>,
    /// What each worker's lanes take of its core, before.
    pub before_percent: Vec<f64>,
    /// And afterwards, if every lane costs what it did.
    pub after_percent: Vec<f64>,
    /// Nothing was moved.
    pub dry_run: bool,
}

/// A lane that moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneMove {
    /// Its port.
    pub port: Name,
    /// Which of the port's queues.
    pub queue: u16,
    /// The worker that had it.
    pub from: u16,
    /// The worker that gets it.
    pub to: u16,
    /// Share of a core that it takes.
    pub busy_percent: f64,
}

/// Answer to [`crate::Request::StatsGet`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Per port.
    pub ports: Vec<(Name, PortCounters)>,
    /// Drop reasons with a count, over all ports.
    pub drops: Vec<DropCount>,
    /// Drops by network policies, by the rule that decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_drops: Vec<crate::RuleCount>,
    /// MAC moves, refusals to learn and the like.
    pub events: Vec<(String, u64)>,
    /// Cycles per packet of each stage.
    pub stages: Vec<StageCost>,
    /// The same of each worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worker_stages: Vec<WorkerStages>,
    /// What became of every packet.
    #[serde(default)]
    pub packets: PacketCounts,
    /// Packet memory.
    pub frames: FrameCounts,
    /// What memory is spent on.
    #[serde(default)]
    pub memory: MemoryStatus,
    /// How long requests took, by method.
    #[serde(default)]
    pub requests: Vec<RequestLatency>,
    /// Routes.
    #[serde(default)]
    pub routes: RouteCounts,
    /// What tables hold at most.
    #[serde(default)]
    pub room: Room,
}

/// How long the daemon took for requests of one method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLatency {
    /// The method.
    pub method: String,
    /// Requests, refused ones too.
    pub count: u64,
    /// All of them together, nanoseconds.
    pub sum_ns: u64,
    /// The longest.
    pub longest_ns: u64,
    /// How many took longer than the bound before and no longer than this one, in microseconds; the last has none.
    pub within_us: Vec<(Option<u64>, u64)>,
}

/// How many routes there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCounts {
    /// That somebody declared.
    pub declared: u64,
    /// Of the kernel's, that are mirrored.
    pub mirrored: u64,
}

/// What tables hold at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Stations.
    pub macs: u64,
    /// Neighbours.
    pub neighbours: u64,
    /// Declared routes.
    pub routes: u64,
}

/// How often frames were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// The reason's name.
    pub reason: String,
    /// The stage that decides so.
    #[serde(default)]
    pub stage: String,
    /// What it means, in a sentence.
    pub meaning: String,
    /// The port whose frame it was.
    pub port: Name,
    /// Frames.
    pub frames: u64,
}

/// What one stage costs, from sampled batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageCost {
    /// The stage.
    pub stage: String,
    /// Cycles of the time-stamp counter a packet.
    pub cycles_per_packet: f64,
    /// Packets the figure rests on.
    pub packets: u64,
    /// Vectors (batches) that these packets came in.
    #[serde(default)]
    pub vectors: u64,
}

/// What the stages cost one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStages {
    /// The worker.
    pub worker: u16,
    /// Stages that packets went through, in order.
    pub stages: Vec<StageCost>,
}

/// The sum, which of no numbers is 0: [`Iterator::sum`] says -0.0 then, and people read it.
fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |all, number| all + number)
}

impl WorkerStatus {
    /// Share of its core that its lanes take together, in percent; 0 of a worker without lanes.
    pub fn busy_percent(&self) -> f64 {
        sum(self.lanes.iter().map(|lane| lane.busy_percent))
    }
}

impl WorkerStages {
    /// Cycles a packet of all stages together; 0 where no packet was seen.
    pub fn cycles_per_packet(&self) -> f64 {
        sum(self.stages.iter().map(|stage| stage.cycles_per_packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_without_a_sign() {
        let worker: WorkerStatus = serde_json::from_value(serde_json::json!({
            "id": 0, "core": null, "lanes": [], "turns": 0, "empty_turns": 0, "sleeps": 0, "generation": 1,
            "frames": FrameCounts::default(), "wake_latency_us": [],
        }))
        .unwrap();
        assert_eq!(format!("{:.1}", worker.busy_percent()), "0.0");
        let stages = WorkerStages { worker: 0, stages: vec![] };
        assert_eq!(format!("{:.1}", stages.cycles_per_packet()), "0.0");
        let cost = |cycles_per_packet| StageCost {
            stage: "parse".into(),
            cycles_per_packet,
            packets: 1,
            vectors: 1,
        };
        let stages = WorkerStages { worker: 0, stages: vec![cost(1.5), cost(2.0)] };
        assert_eq!(stages.cycles_per_packet(), 3.5);
    }
}
