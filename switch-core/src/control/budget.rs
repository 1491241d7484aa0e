//! What memory is spent on, held against a ceiling that is never passed (`switchd --memory`): pure arithmetic,
//! done before anything is mapped, opened or registered. What it decides is carried out in
//! [`super::regions`].
//!
//! Counted are the tables and counters (fixed at the start), the large frames, every region of packet memory that
//! is mapped, whole, for each port its rings and what the kernel keeps for it, and what policies and lists are compiled to. Not counted are the
//! program itself, what is declared (a few hundred bytes an object), what a change takes until it is in force, and what the pods' own kernels use.
//!
//! **Need.** A port is opened only if there are frames for it. An AF_XDP lane parks [`IDLE_FRAMES`] in its rings
//! and can have frames of one region only, so a region has room for as many lanes as three quarters of it let
//! park; the last quarter is for traffic. Any other port parks none and shares what all regions have.

use crate::port::xdp::IDLE_FRAMES;
use hashbrown::HashMap;
use switch_api::{ApiError, Code, MemoryStatus};

/// The ceiling unless `switchd --memory` says otherwise: 250 xdp ports and as many tap ports fit. Nothing is
/// taken before it is needed.
pub const MEMORY_DEFAULT_TEXT: &str = "256M";
/// Frames for the traffic of an AF_XDP lane beside those it parks: a third, as regions are shared out.
const XDP_TRAFFIC_FRAMES: u32 = IDLE_FRAMES / 3;
/// Frames for the traffic of any other port: packets that wait for a neighbour, or for another worker.
const OTHER_FRAMES: u32 = 8;
/// What the kernel keeps of a frame for each socket that shares it: `struct xdp_buff_xsk` and a pointer to it
/// (net/xdp/xsk_buff_pool.c), 144 bytes on Linux 6.18.
const FRAME_RECORD_BYTES: u64 = 144;
/// A descriptor in each of two rings (16 bytes), an address in each of two (8).
const RING_ENTRY_BYTES: u64 = 48;
/// What else the kernel keeps for an AF_XDP lane: socket, pool, program, link, packet socket. Measured
/// (figure `idle-xdp-port`).
const XDP_LANE_BYTES: u64 = 96 << 10;
/// What a queue of a TAP takes: its ring of 1000 pointers, the device with its share per core, and our queue to it.
/// Measured (figure `many-ports`).
const TAP_LANE_BYTES: u64 = 96 << 10;
/// How long a region is not needed before it goes: a port that only comes back finds it.
const SHRINK_AFTER_S: u32 = 3;

/// What a port is, as far as memory goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// AF_XDP: the worker of each lane, and the entries of each ring.
    Xdp {
        /// Of each queue.
        workers: Vec<u16>,
        /// Entries.
        ring_size: u32,
    },
    /// A TAP with so many queues.
    Tap(u32),
    /// No device.
    Nothing,
}

/// What has to be done before a port may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Ready,
    /// Map this region.
    Map(u16),
    /// Take back this region, which was on its way to the kernel.
    Revive(u16),
}

/// Sizes that do not change.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The ceiling.
    pub ceiling: u64,
    /// Tables and counters.
    pub tables: u64,
    /// Large frames.
    pub large: u64,
    /// A region.
    pub region: u64,
    /// Frames of a region.
    pub region_frames: u32,
    /// Most regions.
    pub regions_max: u16,
    /// Workers, who share every region.
    pub workers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Serving,
    Emptying,
}

#[derive(Clone, Debug)]
struct Region {
    state: State,
    /// AF_XDP lanes that have its frames, by worker.
    lanes: Vec<u32>,
    unneeded_since_s: Option<u32>,
}

#[derive(Clone, Debug)]
struct Share {
    region: Option<u16>,
    workers: Vec<u16>,
    frames: u32,
    rings: u64,
    kernel: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Budget {
    sizes: Sizes,
    regions: Vec<Region>,
    ports: HashMap<u16, Share>,
    /// Bytes that policies and lists are compiled to.
    rules: u64,
    /// Bytes that they will be compiled to, while ports are opened for the same change: neither finds the other's memory free.
    coming: u64,
}

impl Budget {
    /// With one region mapped. An error says why not even that fits.
    pub fn new(sizes: Sizes) -> Result<Self, String> {
        let absent = Region { state: State::Absent, lanes: vec![0; sizes.workers], unneeded_since_s: None };
        let mut budget = Self {
            sizes,
            regions: vec![absent; usize::from(sizes.regions_max)],
            ports: HashMap::new(),
            rules: 0,
            coming: 0,
        };
        budget.regions[0].state = State::Serving;
        if budget.used() > sizes.ceiling {
            return Err(format!(
                "--memory {} is too little to start with: {}; raise it, or lower --fdb-entries, --neighbours, --flows or \
                 --frames",
                mib(sizes.ceiling),
                budget.spent()
            ));
        }
        Ok(budget)
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.sizes.tables
            + self.sizes.large
            + self.packet_bytes()
            + self.ports_bytes()
            + self.rules.max(self.coming)
    }

    /// Whether policies and lists may be compiled to so many bytes, with a change by which ports go that take `left`. To fewer than now they
    /// always may.
    pub fn allow_rules(&self, bytes: u64, left: u64) -> Result<(), ApiError> {
        if bytes <= self.rules || self.used() - self.rules + bytes <= self.sizes.ceiling + left {
            return Ok(());
        }
        let text = format!(
            "policies and lists would take {} of memory; {} of {} are in use ({})",
            mib(bytes),
            mib(self.used()),
            mib(self.sizes.ceiling),
            self.spent()
        );
        Err(ApiError::new(Code::Limit, text)
            .hint("raise `switchd --memory`, delete rules or ports, or let rules share networks and ports"))
    }

    /// Policies and lists take so many bytes.
    pub fn set_rules(&mut self, bytes: u64) {
        self.rules = bytes;
    }

    /// They will take so many, until 0 is said.
    pub fn expect_rules(&mut self, bytes: u64) {
        self.coming = bytes;
    }

    fn count(&self, state: State) -> u64 {
        self.regions.iter().filter(|region| region.state == state).count() as u64
    }

    fn packet_bytes(&self) -> u64 {
        (self.count(State::Serving) + self.count(State::Emptying)) * self.sizes.region
    }

    fn ports_bytes(&self) -> u64 {
        self.ports.values().map(|share| share.rings + share.kernel).sum()
    }

    fn frames_needed(&self) -> u64 {
        self.ports.values().map(|share| u64::from(share.frames)).sum()
    }

    /// As the API tells it.
    pub fn status(&self) -> MemoryStatus {
        MemoryStatus {
            ceiling_bytes: self.sizes.ceiling,
            used_bytes: self.used(),
            tables_bytes: self.sizes.tables,
            large_bytes: self.sizes.large,
            packet_bytes: self.packet_bytes(),
            ports_bytes: self.ports_bytes(),
            rules_bytes: self.rules,
            regions: self.count(State::Serving) as u16,
            regions_emptying: self.count(State::Emptying) as u16,
            region_bytes: self.sizes.region,
        }
    }

    /// Bytes of a port's rings, and what the kernel keeps for it.
    pub fn of_port(&self, port: u16) -> (u64, u64) {
        self.ports.get(&port).map_or((0, 0), |share| (share.rings, share.kernel))
    }

    fn share_of(&self, wants: &Wants) -> Share {
        let of = |workers: &[u16], frames, rings, kernel| Share {
            region: None,
            workers: workers.to_vec(),
            frames,
            rings,
            kernel,
        };
        match wants {
            Wants::Xdp { workers, ring_size } => {
                let lanes = workers.len() as u64;
                let records = u64::from(self.sizes.region_frames) * FRAME_RECORD_BYTES;
                let frames = workers.len() as u32 * (IDLE_FRAMES + XDP_TRAFFIC_FRAMES);
                let rings = lanes * u64::from(*ring_size) * RING_ENTRY_BYTES;
                of(workers, frames, rings, lanes * (records + XDP_LANE_BYTES))
            }
            Wants::Tap(queues) => of(&[], OTHER_FRAMES, 0, u64::from(*queues) * TAP_LANE_BYTES),
            Wants::Nothing => of(&[], OTHER_FRAMES, 0, 0),
        }
    }

    /// AF_XDP lanes of one worker that a region has room for; one at the least, however small it is.
    fn lanes_max(&self) -> u32 {
        let own = self.sizes.region_frames / self.sizes.workers as u32;
        (own * 3 / 4 / IDLE_FRAMES).max(1)
    }

    /// Whether `workers` find room for a lane each. A region that nobody uses takes whatever comes first.
    fn has_room(&self, region: &Region, workers: &[u16]) -> bool {
        let of = |worker: usize| workers.iter().filter(|owner| usize::from(**owner) == worker).count() as u32;
        let fits = |(worker, lanes): (usize, &u32)| lanes + of(worker) <= self.lanes_max();
        region.lanes.iter().all(|lanes| *lanes == 0) || region.lanes.iter().enumerate().all(fits)
    }

    /// The serving region with most lanes that has room: what is begun is filled first, and empties last.
    fn place(&self, workers: &[u16]) -> Option<u16> {
        let serving = self.regions.iter().enumerate().filter(|(_, region)| region.state == State::Serving);
        let fitting = serving.filter(|(_, region)| self.has_room(region, workers));
        let fullest = fitting.max_by_key(|(n, region)| (region.lanes.iter().sum::<u32>(), usize::MAX - n));
        fullest.map(|(n, _)| n as u16)
    }

    /// Enters a port in the books: the region whose frames it gets, if it is bound to one, and what must be done
    /// first. Refused, and nothing is changed, if the ceiling would be passed.
    pub fn admit(&mut self, port: u16, wants: &Wants) -> Result<(Option<u16>, Step), ApiError> {
        let mut share = self.share_of(wants);
        let serving = self.count(State::Serving) * u64::from(self.sizes.region_frames);
        let enough = self.frames_needed() + u64::from(share.frames) <= serving;
        let placed = if share.workers.is_empty() { Some(0) } else { self.place(&share.workers) };
        let step = match placed.filter(|_| enough) {
            Some(_) => Step::Ready,
            None => self.next_region().ok_or_else(|| self.no_more_regions())?,
        };
        let (region, grown) = match step {
            Step::Ready => (placed, 0),
            Step::Map(region) => (Some(region), self.sizes.region),
            Step::Revive(region) => (Some(region), 0),
        };
        let wanted = share.rings + share.kernel;
        if self.used() + wanted + grown > self.sizes.ceiling {
            return Err(self.refusal(wanted, grown));
        }
        if let Step::Map(region) | Step::Revive(region) = step {
            self.regions[usize::from(region)].state = State::Serving;
        }
        share.region = region.filter(|_| !share.workers.is_empty());
        if let Some(region) = share.region {
            let region = &mut self.regions[usize::from(region)];
            region.unneeded_since_s = None;
            share.workers.iter().for_each(|worker| region.lanes[usize::from(*worker)] += 1);
        }
        let region = share.region;
        self.ports.insert(port, share);
        Ok((region, step))
    }

    /// A region on its way to the kernel, if there is one; else one that is not mapped.
    fn next_region(&self) -> Option<Step> {
        let first = |state| self.regions.iter().position(|region| region.state == state).map(|n| n as u16);
        first(State::Emptying).map(Step::Revive).or_else(|| first(State::Absent).map(Step::Map))
    }

    /// Strikes a port out. Its frames may still be on their way home.
    pub fn release(&mut self, port: u16) {
        let Some(share) = self.ports.remove(&port) else { return };
        if let Some(region) = share.region {
            let region = &mut self.regions[usize::from(region)];
            share.workers.iter().for_each(|worker| region.lanes[usize::from(*worker)] -= 1);
        }
    }

    /// A region that could not be mapped after all, or was given back.
    pub fn absent(&mut self, region: u16) {
        self.regions[usize::from(region)].state = State::Absent;
    }

    /// A region that could not be taken back.
    pub fn emptying(&mut self, region: u16) {
        self.regions[usize::from(region)].state = State::Emptying;
    }

    /// A region that could not be given back.
    pub fn serving(&mut self, region: u16) {
        self.regions[usize::from(region)].state = State::Serving;
        self.regions[usize::from(region)].unneeded_since_s = None;
    }

    /// Whether a region is on its way to the kernel.
    pub fn is_emptying(&self, region: u16) -> bool {
        self.regions.get(usize::from(region)).is_some_and(|region| region.state == State::Emptying)
    }

    /// A region that nobody has needed for a while; it is emptied from now on. One at a time, never the first, and
    /// only if half a region is to spare without it.
    pub fn surplus(&mut self, now_s: u32) -> Option<u16> {
        if self.count(State::Emptying) > 0 {
            return None;
        }
        let left = self.count(State::Serving).saturating_sub(1) * u64::from(self.sizes.region_frames);
        let spares = left >= self.frames_needed() + u64::from(self.sizes.region_frames / 2);
        let mut found = None;
        for (n, region) in self.regions.iter_mut().enumerate().skip(1) {
            let unneeded =
                spares && region.state == State::Serving && region.lanes.iter().all(|lanes| *lanes == 0);
            let since = region.unneeded_since_s.unwrap_or(now_s);
            region.unneeded_since_s = unneeded.then_some(since);
            if unneeded && now_s.saturating_sub(since) >= SHRINK_AFTER_S {
                found = Some(n as u16);
            }
        }
        if let Some(region) = found {
            self.regions[usize::from(region)].state = State::Emptying;
        }
        found
    }

    fn spent(&self) -> String {
        format!(
            "tables {}, large frames {}, packet memory {}, ports {}, policies and lists {}",
            mib(self.sizes.tables),
            mib(self.sizes.large),
            mib(self.packet_bytes()),
            mib(self.ports_bytes()),
            mib(self.rules)
        )
    }

    fn refusal(&self, wanted: u64, grown: u64) -> ApiError {
        let growth =
            if grown > 0 { format!(", and packet memory a region of {}", mib(grown)) } else { String::new() };
        let text = format!(
            "the port needs {} of memory{growth}; {} of {} are in use ({})",
            mib(wanted),
            mib(self.used()),
            mib(self.sizes.ceiling),
            self.spent()
        );
        ApiError::new(Code::Limit, text)
            .hint("raise `switchd --memory`, delete ports or rules, or give xdp ports a smaller --ring-size")
    }

    fn no_more_regions(&self) -> ApiError {
        let text = format!(
            "all {} regions of packet memory ({} frames each) are in use",
            self.sizes.regions_max, self.sizes.region_frames
        );
        ApiError::new(Code::Limit, text)
            .hint("raise `switchd --memory`, or --frames, which makes regions larger")
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
