//! Opening ports: devices, sockets and lanes. What a port may do is in the snapshot; here is
//! what it is made of. Everything here may take milliseconds and happens on the control thread.

use super::budget::{Budget, Wants};
use super::cable;
use super::fitting::{hook_of, refuse};
use super::guards::Guards;
use super::home::Home;
use super::links::{self, Link};
use super::rtnl::Rtnl;
use super::tap::{self, Tap, Wanted};
use super::uplinks::shareable;
use crate::config::checked::QUEUES_MAX;
use crate::config::snapshot::{Live, PortId};
use crate::config::taken::{SharedPorts, Taken};
use crate::counter::{DropReason, LaneLoad};
use crate::frame::{Area, Frame, TxQueue};
use crate::port::Port;
use crate::port::pcap::{self, PcapPort};
use crate::port::tap::TapPort;
use crate::port::tap::device::{Descriptor, Offloads};
use crate::port::traffic::TrafficPort;
use crate::port::xdp::attach::{Attached, Hook};
use crate::port::xdp::open::{Device, Engine, How};
use crate::port::xdp::program::Settings;
use crate::port::xdp::promiscuous::Promiscuous;
use crate::port::xdp::socket;
use crate::worker::handover::{Handover, Move, Ticket};
use crate::worker::{Command, Mail, Report};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use switch_api::{ApiError, Code, Mac, PortKind, PortSettings, WhenDead};

/// How long a worker may take to answer. It answers between two batches, so a millisecond is long; a
/// worker that needs seconds has lost its core.
pub const WORKER_PATIENCE: Duration = Duration::from_secs(5);
/// Whoever is waited for wakes the control thread; this is for the patience to end, too.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long a port that somebody wants may wait for its device's queues, which sockets that were closed have for a moment still. Nobody else
/// is served meanwhile.
pub(super) const OPEN_PATIENCE: Duration = Duration::from_millis(100);
/// How long a queue that was ours is waited for: the kernel takes a socket down behind its close, when all cores have been through a grace
/// period, which takes long where they are busy: with five that wanted each core, longer than a second once in a thousand times.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);
/// How long workers stand still for lanes to move, at most: a thousand times what it takes. A TAP's queue holds what a pod
/// sends meanwhile at 5 000 packets a second.
const HANDOVER_PATIENCE: Duration = Duration::from_millis(200);

/// An open port.
#[derive(Debug)]
pub struct Door {
    /// Worker of each queue.
    pub workers: Vec<u16>,
    /// Device index in the daemon's namespace, 0 without such a device.
    pub ifindex: u32,
    /// What the device takes.
    pub mtu: u16,
    /// It takes superframes.
    pub gso: bool,
    /// Its device's frames are larger than one of ours.
    pub jumbo: bool,
    /// What the kernel runs.
    pub mode: Option<&'static str>,
    /// Why it is not faster.
    pub mode_reason: Option<String>,
    /// Under which numbers frames in its rings are recorded.
    pub holders: Vec<u16>,
    /// What each queue costs its worker.
    pub loads: Vec<Arc<LaneLoad>>,
    /// What its device had lost before it was a port's, as [`Rtnl::lost`].
    pub(super) lost_before: u64,
    /// Its device, if it is one that the switch made.
    pub tap: Option<Tap>,
    /// The veth pair that its device is an end of, if the switch made it.
    pub(super) cable: Option<cable::Wanted>,
    pub(super) attached: Option<Attached>,
    /// Held for as long as the port is open.
    _promiscuous: Option<Promiscuous>,
}

impl Door {
    /// The program of an uplink takes nothing any more.
    pub(super) fn let_go(&mut self) {
        let narrowed = self
            .attached
            .as_mut()
            .map_or(Ok(()), |attached| attached.narrow(&Taken::new(), &SharedPorts::new()));
        if let Err(error) = narrowed {
            tracing::error!("a program takes frames that go nowhere, until it is taken off: {error}");
        }
    }

    /// The namespace that its device is in, if it was made in one.
    pub(super) fn home(&self) -> Option<&Home> {
        self.tap.as_ref().and_then(Tap::home).or(self.cable.as_ref().and_then(|cable| cable.home.as_ref()))
    }

    /// Whether a lane with this load is one of its own, and not of the port that had its number before.
    pub(super) fn has(&self, load: &Arc<LaneLoad>) -> bool {
        self.loads.iter().any(|own| Arc::ptr_eq(own, load))
    }

    /// What the snapshot should say.
    pub fn live(&self) -> Live {
        Live { up: true, mtu: self.mtu, gso: self.gso, lanes: self.workers.iter().copied().collect() }
    }
}

/// An open port and its lanes.
type Made = (Door, Vec<Box<dyn Port>>);

/// What opening needs.
#[derive(Debug)]
pub struct Doors {
    /// AF_XDP, or why there is none.
    pub engine: Result<Engine, String>,
    /// The packet memory.
    pub area: Arc<Area>,
    /// Everybody's letter boxes.
    pub mail: Arc<[Mail]>,
    /// Lanes each worker has.
    pub load: Vec<usize>,
    /// Reports that came while another was waited for, and whose they are.
    pub stash: Vec<(u16, Report)>,
    /// Commands that must not be lost and found no room yet, by worker.
    pub(super) backlog: Vec<VecDeque<Command>>,
    /// What memory is spent on.
    pub budget: Budget,
    /// There are no more cores than workers.
    is_crowded: bool,
    /// Frames of the region that is being emptied, as workers hand them over.
    pub emptied: Vec<Frame>,
    /// Of the last handover of lanes.
    pub ticket: Ticket,
    /// Devices whose ports were closed a moment ago, and when.
    pub(super) left: Vec<(u32, Instant)>,
    /// Frames that closed lanes had from the kernel, or that it lost, and whose they were.
    pub(super) lost: Vec<(PortId, DropReason, u64)>,
    /// Programs on devices of ports that are down.
    pub(super) guards: Guards,
    /// Cables that are new: their pods are to tell their neighbours of themselves once somebody listens.
    pub(super) fresh: Vec<cable::Wanted>,
    /// Devices that stay when a daemon dies once their ports are kept.
    pub(super) fresh_taps: Vec<Weak<Descriptor>>,
}

impl Doors {
    /// Workers that poll in vain leave the control thread a core until then, unless there is one that no worker has.
    pub fn need_core_until(&self, ns: u64) {
        if self.is_crowded {
            self.mail.iter().for_each(|mail| mail.need_core_until(ns));
        }
    }

    /// None is open yet.
    pub fn new(engine: Result<Engine, String>, area: Arc<Area>, mail: Arc<[Mail]>, budget: Budget) -> Self {
        let load = vec![0; mail.len()];
        let backlog = mail.iter().map(|_| VecDeque::new()).collect();
        let (stash, emptied, fresh, fresh_taps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (left, lost, guards) = (Vec::new(), Vec::new(), Guards::default());
        // The program's cores, as its caller's `taskset` or control group left them.
        let is_crowded = std::thread::available_parallelism().is_ok_and(|cores| mail.len() >= cores.get());
        Self {
            engine,
            is_crowded,
            area,
            mail,
            load,
            stash,
            backlog,
            budget,
            emptied,
            ticket: 0,
            left,
            lost,
            guards,
            fresh,
            fresh_taps,
        }
    }

    /// Opens `port`, whose device was made in `home` if it was, and hands its lanes to their workers. It carries nothing until a snapshot
    /// names it. `until`: see [`How`].
    pub(super) fn open(
        &mut self,
        id: PortId,
        port: &switch_api::Port,
        home: Option<&Home>,
        until: Instant,
    ) -> Result<Door, ApiError> {
        // What is told here must arrive: a program on a device whose lanes nobody has would drop what comes.
        self.workers_take_commands()?;
        let made = self.make(id, port, home, until);
        let (mut door, lanes) = made.inspect_err(|_| self.leave(id))?;
        self.guards.relieve(id, door.ifindex);
        for worker in 0..self.mail.len() {
            self.tell_for_sure(worker as u16, Command::OpenQueue(id, TxQueue::with_room()));
        }
        door.loads = lanes.iter().map(|_| Arc::default()).collect();
        for (queue, (lane, worker)) in lanes.into_iter().zip(&door.workers).enumerate() {
            self.tell_for_sure(*worker, Command::AddLane(id, queue as u16, lane, door.loads[queue].clone()));
            self.load[usize::from(*worker)] += 1;
        }
        Ok(door)
    }

    /// Makes a port's lanes, once there is memory for them.
    fn make(
        &mut self,
        id: PortId,
        port: &switch_api::Port,
        home: Option<&Home>,
        until: Instant,
    ) -> Result<Made, ApiError> {
        let (kind, settings) = (&port.kind, &port.settings);
        Ok(match kind {
            PortKind::Xdp { device, .. } => {
                let Some(wanted) = cable::Wanted::of(port, home) else {
                    let link = |doors: &Self| doors.usable(device);
                    return self.open_xdp(id, link, (kind, settings), until);
                };
                self.open_cable(id, wanted, port, until)?
            }
            PortKind::Tap { queues, .. } => {
                self.admit(id, &Wants::Tap(u32::from(*queues)))?;
                self.open_tap(port, home)?
            }
            PortKind::Host { .. } => {
                self.admit(id, &Wants::Tap(1))?;
                self.open_tap(port, home)?
            }
            PortKind::Memory { source } => {
                self.admit(id, &Wants::Nothing)?;
                self.simple(self.spread(1, settings), vec![Box::new(TrafficPort::new(source.as_ref()))])
            }
            PortKind::Vxlan { .. } => {
                self.admit(id, &Wants::Nothing)?;
                // What leaves by it leaves by another port: it has no lane, and the MTU that the snapshot gives it.
                self.simple(Vec::new(), Vec::new())
            }
            PortKind::Pcap { read, write } => {
                let port = PcapPort::open(read.as_deref().map(Path::new), write.as_deref().map(Path::new));
                let port = port.map_err(|error| {
                    ApiError::new(Code::System, format!("the capture cannot be used: {}", pcap::why(&error)))
                        .field(if read.is_some() { "read" } else { "write" })
                        .hint("give a file beside the socket or the state, or in a folder that `switchd --files` names; read wants a pcap file (not pcapng)")
                })?;
                self.admit(id, &Wants::Nothing)?;
                self.simple(self.spread(1, settings), vec![Box::new(port)])
            }
        })
    }

    /// A port with a veth pair. One that is new is set up when its program is there, and not before. What was made for one that does not open
    /// goes again.
    fn open_cable(
        &mut self,
        id: PortId,
        mut wanted: cable::Wanted,
        port: &switch_api::Port,
        until: Instant,
    ) -> Result<Made, ApiError> {
        let PortKind::Xdp { device, queues, ring_size, .. } = &port.kind else {
            return Err(ApiError::new(Code::Internal, "a cable of a port that is no xdp port"));
        };
        // Nothing is made for what cannot be: a pair that comes and goes is news for everybody who listens to the kernel.
        self.engine()?;
        let workers = self.spread(u32::from(*queues).max(1), &port.settings);
        self.admit(id, &Wants::Xdp { workers, ring_size: *ring_size })?;
        self.leave(id);
        let is_fresh = cable::open(&mut wanted)?;
        let link = |doors: &Self| if is_fresh { doors.fitting(device) } else { doors.usable(device) };
        let mut opened = self.open_xdp(id, link, (&port.kind, &port.settings), until);
        if is_fresh {
            opened = opened.and_then(|made| self.set_up(made, &wanted));
        }
        let (door, lanes) = opened.inspect_err(|_| {
            if is_fresh && let Err(error) = cable::remove(&wanted) {
                tracing::warn!("a device may be left behind: {error}");
            }
        })?;
        if is_fresh {
            self.fresh.push(wanted.clone());
        }
        // As a TAP: of its whole life.
        Ok((Door { cable: Some(wanted), lost_before: 0, ..door }, lanes))
    }

    /// A new cable, on whose end its port is open.
    fn set_up(&self, made: Made, wanted: &cable::Wanted) -> Result<Made, ApiError> {
        let Err(error) = cable::set_up(wanted) else { return Ok(made) };
        let (door, lanes) = made;
        close_unused(lanes, &self.area);
        // If that fails it is tried once more, and told of.
        _ = Door { cable: Some(wanted.clone()), ..door }.let_go_of_device();
        Err(error)
    }

    /// A port without a device.
    fn simple(&self, workers: Vec<u16>, lanes: Vec<Box<dyn Port>>) -> Made {
        let door = Door {
            workers,
            ifindex: 0,
            mtu: self.mtu_max(),
            gso: false,
            jumbo: false,
            mode: None,
            mode_reason: None,
            holders: Vec::new(),
            loads: Vec::new(),
            lost_before: 0,
            tap: None,
            cable: None,
            attached: None,
            _promiscuous: None,
        };
        (door, lanes)
    }

    fn open_tap(&mut self, port: &switch_api::Port, home: Option<&Home>) -> Result<Made, ApiError> {
        let wanted = Wanted::of(port, home)
            .ok_or_else(|| ApiError::new(Code::Internal, "a tap port without a MAC address"))?;
        let tap = tap::open(&wanted)?;
        self.fresh_taps.extend(tap.descriptors().first().map(Arc::downgrade));
        let link = tap.link();
        let reason = match tap.offloads {
            Offloads::TcpUdp => None,
            Offloads::Tcp => Some("no UDP superframes: the kernel has none for a TAP (Linux 6.2 has)".into()),
        };
        let lane = |descriptor: &Arc<Descriptor>| Box::new(TapPort::new(descriptor.clone())) as Box<dyn Port>;
        let lanes: Vec<_> = tap.descriptors().iter().map(lane).collect();
        let door = Door {
            workers: self.spread(lanes.len() as u32, &port.settings),
            ifindex: 0,
            mtu: link.mtu as u16,
            gso: true,
            jumbo: false,
            mode: Some("vnet-hdr"),
            mode_reason: reason,
            holders: Vec::new(),
            loads: Vec::new(),
            // The device is ours alone: what it dropped since it was made was this port's, whichever daemon was there, or none.
            lost_before: 0,
            tap: Some(tap),
            cable: None,
            attached: None,
            _promiscuous: None,
        };
        Ok((door, lanes))
    }

    /// Workers for the queues of a port. Several queues are for several workers, unless some were named.
    fn spread(&self, queues: u32, settings: &PortSettings) -> Vec<u16> {
        let first = self.least_loaded();
        let of = |queue: u32| ((u32::from(first) + queue) % self.mail.len() as u32) as u16;
        settings.workers(queues as usize).unwrap_or_else(|| (0..queues).map(of).collect())
    }

    fn open_xdp(
        &mut self,
        id: PortId,
        link: impl FnOnce(&Self) -> Result<Link, ApiError>,
        (kind, settings): (&PortKind, &PortSettings),
        until: Instant,
    ) -> Result<Made, ApiError> {
        let PortKind::Xdp {
            device: name,
            mode,
            queues,
            ring_size,
            busy_poll_us,
            take,
            when_dead,
            dead_after_ms,
            ..
        } = kind
        else {
            return Err(ApiError::new(Code::Internal, "not an xdp port"));
        };
        self.engine()?;
        let link = link(self)?;
        kind.shared_nic().map_or(Ok(()), |_| shareable(&link))?;
        let present = socket::queues(name).min(u32::from(QUEUES_MAX));
        let queues = if *queues == 0 { present } else { u32::from(*queues) };
        if queues > present {
            let text = format!("{name} has {present} queues that the switch can serve, not {queues}");
            return Err(ApiError::new(Code::InvalidParams, text).field("queues").hint(format!(
                "give it more (`ethtool -L {name} combined {queues}`), ask for fewer, or for 0: all there are"
            )));
        }
        let workers = self.spread(queues, settings);
        let wants = Wants::Xdp { workers: workers.clone(), ring_size: *ring_size };
        let region = self.admit(id, &wants)?.unwrap_or(0);
        let settings = Settings {
            take: take.clone(),
            when_dead: when_dead.unwrap_or_else(|| WhenDead::of(take)),
            dead_after_ms: *dead_after_ms,
            workers: workers.clone(),
            mac: link.mac.unwrap_or(Mac([0; 6])),
        };
        let jumbo = self.is_jumbo(&link);
        let (mode, ring_size, busy_poll_us) = (*mode, *ring_size, *busy_poll_us);
        let until = until.max(self.ours_until(link.index));
        let how = How { mode, ring_size, busy_poll_us, settings, jumbo, region, until };
        let device = Device { name, ifindex: link.index, queues, runs: hook_of(&link) };
        let opened = self.engine()?.open(&device, &how).map_err(|error| refuse(name, &link, error))?;
        let reported = links::find(name).ok().flatten().and_then(|link| link.xdp);
        let hook = if opened.attached.hook == Hook::Native { "native" } else { "generic" };
        let mode = if opened.zero_copy { "zero-copy" } else { reported.map_or(hook, |(mode, _)| mode) };
        let door = Door {
            workers,
            ifindex: link.index,
            mtu: link.mtu as u16,
            gso: false,
            jumbo,
            mode: Some(mode),
            mode_reason: opened.mode_reason,
            holders: opened.holders,
            loads: Vec::new(),
            lost_before: Rtnl::open().ok().and_then(|rtnl| rtnl.lost(&link)).unwrap_or(link.lost),
            tap: None,
            cable: None,
            attached: Some(opened.attached),
            _promiscuous: opened.promiscuous,
        };
        Ok((door, opened.lanes))
    }

    /// Until when the queues of a device may be held by sockets of ours that are closed.
    fn ours_until(&self, ifindex: u32) -> Instant {
        let left = self.left.iter().filter(|(of, _)| *of == ifindex).map(|(_, at)| *at + LEAVE_PATIENCE);
        left.max().unwrap_or_else(Instant::now)
    }

    /// A device's port was closed.
    pub(super) fn note_left(&mut self, ifindex: u32) {
        self.left.retain(|(_, at)| at.elapsed() < LEAVE_PATIENCE);
        self.left.push((ifindex, Instant::now()));
    }

    fn least_loaded(&self) -> u16 {
        let least = self.load.iter().enumerate().min_by_key(|(_, load)| **load);
        least.map_or(0, |(worker, _)| worker as u16)
    }

    /// Moves lanes of a port to other workers: [`Handover::is_moved`], unless it took too long. Every worker that was told
    /// so stands still until [`Doors::go_on`].
    pub(super) fn hand_over(&mut self, id: PortId, moves: Vec<Move>) -> Handover {
        self.ticket += 1;
        let mut handover = Handover::new(self.ticket, id, moves, self.mail.len() as u16);
        let begun = Instant::now();
        while !handover.is_moved() {
            let told =
                handover.due().into_iter().try_for_each(|(worker, command)| self.tell(worker, command));
            let limit = if handover.can_be_given_up() { HANDOVER_PATIENCE } else { WORKER_PATIENCE };
            if told.is_err() || begun.elapsed() > limit {
                break;
            }
            let mut heard = false;
            for worker in 0..self.mail.len() {
                while let Some(report) = self.mail[worker].reports.pop() {
                    heard = true;
                    let others = handover.hear(worker as u16, report);
                    self.stash.extend(others.map(|report| (worker as u16, report)));
                }
            }
            if !heard {
                std::thread::park_timeout(LOOK_AGAIN);
            }
        }
        handover
    }

    /// Lets the workers go on, with the snapshot of `generation` at the earliest.
    pub(super) fn go_on(&mut self, handover: &Handover, generation: u64) -> Result<(), ApiError> {
        handover.end(generation).try_for_each(|(worker, command)| self.tell(worker, command))
    }
}

/// Closes lanes that no worker had.
pub(super) fn close_unused(lanes: Vec<Box<dyn Port>>, area: &Area) {
    for holder in lanes.into_iter().filter_map(|lane| lane.close(area).holder) {
        let found = area.reclaim(holder, |_| {});
        debug_assert_eq!(found, 0, "a lane that no worker had holds no frame");
    }
}

pub(super) fn not_still(handover: &Handover) -> ApiError {
    let who = handover.awaited().map_or("a worker".into(), |worker| format!("worker {worker}"));
    let text =
        format!("no lane was moved: {who} has frames that their port does not take, or has lost its core");
    ApiError::new(Code::Busy, text).hint("try again; see `switch-ctl worker list` and `switch-ctl port list`")
}
