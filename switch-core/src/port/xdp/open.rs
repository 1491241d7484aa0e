//! A device becomes lanes. Modes are tried from fast to slow, what the kernel runs in the end is asked of
//! the kernel, and why it is not a faster one is kept for `switch-ctl port`.

use super::XdpPort;
use super::attach::{self, AttachError, Attached, Guard, Hook};
use super::beat::Beats;
use super::program::{Kind, Program, Settings, Shared};
use super::promiscuous::{Asker, Promiscuous};
use super::socket::{self, RawSocket, Rings};
use super::umem::{TxMetadata, Umem};
use crate::frame::Area;
use crate::port::Port;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use switch_api::{Take, XdpMode};

/// `bind` answers EBUSY for a moment after another socket left the queue; so long it waits until it is tried again.
const BIND_PAUSE: Duration = Duration::from_millis(5);

/// Why a port that may be in any mode is in the slowest after a restart, or after it was down. That it was refused a faster one is not asked again: while
/// there is a program in one mode the kernel takes none in another.
const FOUND_GENERIC: &str = "an earlier program of ours is there, in the generic mode, and was taken over; delete the port and add it again to \
     have faster ones tried";

/// What every xdp port of the daemon shares.
#[derive(Debug)]
pub struct Engine {
    directory: PathBuf,
    area: Arc<Area>,
    /// By region; the first is always registered.
    umems: Vec<Option<Umem>>,
    /// Of all devices that are no uplinks.
    program: Shared,
    beats: Arc<Beats>,
    asker: Asker,
}

/// The device to open.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// Its name, for the pin.
    pub name: &'a str,
    /// Its index.
    pub ifindex: u32,
    /// Queues to serve.
    pub queues: u32,
    /// Who runs the program that is on it now, if one is: an earlier daemon's may be, which is taken over.
    pub runs: Option<Hook>,
}

/// How to open it.
#[derive(Clone, Debug)]
pub struct How {
    /// Mode asked for.
    pub mode: XdpMode,
    /// Entries of each ring.
    pub ring_size: u32,
    /// Busy polling, 0 is off.
    pub busy_poll_us: u32,
    /// What the program is told.
    pub settings: Settings,
    /// The device's frames are larger than a chunk: they come and go in several.
    pub jumbo: bool,
    /// The region of packet memory whose frames it is given.
    pub region: u16,
    /// Until when a queue is waited for that another socket has, or just had. Nobody else is served meanwhile.
    pub until: Instant,
}

/// An open device.
#[derive(Debug)]
pub struct Opened {
    /// One lane a queue.
    pub lanes: Vec<Box<dyn Port>>,
    /// Its program.
    pub attached: Attached,
    /// It hears what is addressed to the stations behind other ports; an uplink does not.
    pub promiscuous: Option<Promiscuous>,
    /// What the kernel runs.
    pub zero_copy: bool,
    /// Why it is not a faster mode.
    pub mode_reason: Option<String>,
    /// Numbers of the holders of its frames, one a lane.
    pub holders: Vec<u16>,
}

/// Why a device is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The program.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A socket.
    #[error("queue {queue}: {call}: {error}")]
    Socket {
        /// Which queue.
        queue: u32,
        /// Which step.
        call: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
    /// Nothing to claim frames with.
    #[error("too many AF_XDP sockets are open")]
    TooManySockets,
}

/// One a queue, and the numbers of their holders.
type Lanes = (Vec<Box<dyn Port>>, Vec<u16>);

struct Bound {
    socket: RawSocket,
    rings: Rings,
    tx_metadata: TxMetadata,
}

impl Engine {
    /// Registers the memory's first region and maps the beats. `directory` is in a bpffs.
    pub fn start(area: Arc<Area>, directory: &Path) -> Result<Self, String> {
        let umem = Umem::register(area.clone(), 0).map_err(|error| explain_umem(&error))?;
        let mut umems = vec![Some(umem)];
        umems.resize_with(usize::from(area.regions_max()), || None);
        // A kernel without what we need says so when the daemon starts.
        let program = Program::load(directory, Kind::Ports).map_err(|error| error.to_string())?;
        let beats = program.lock().beats().map_err(|error| error.to_string())?;
        let asker = Asker::new().map_err(|error| format!("no packet socket: {error}"))?;
        Ok(Self { directory: directory.to_owned(), area, umems, program, beats: Arc::new(beats), asker })
    }

    /// The workers' pulse.
    pub fn beats(&self) -> &Arc<Beats> {
        &self.beats
    }

    /// Whether the kernel finishes checksums.
    pub fn tx_metadata(&self) -> TxMetadata {
        self.umems[0].as_ref().map_or(TxMetadata::Absent, Umem::tx_metadata)
    }

    /// Whether a frame may lie in several chunks.
    pub fn multi_buffer(&self) -> bool {
        self.umems[0].as_ref().is_some_and(Umem::multi_buffer)
    }

    /// Registers a region, if it is not yet.
    pub fn register(&mut self, region: u16) -> io::Result<()> {
        let umem = &mut self.umems[usize::from(region)];
        if umem.is_none() {
            *umem = Some(Umem::register(self.area.clone(), region)?);
        }
        Ok(())
    }

    /// Lets go of a region; no port has frames of it any more.
    pub fn unregister(&mut self, region: u16) {
        self.umems[usize::from(region)] = None;
    }

    fn umem(&self, region: u16) -> Result<&Umem, OpenError> {
        let umem = self.umems.get(usize::from(region)).and_then(Option::as_ref);
        umem.ok_or_else(|| OpenError::Socket {
            queue: 0,
            call: "UMEM",
            error: io::Error::other(format!("region {region} is not registered")),
        })
    }

    /// Opens a device.
    pub fn open(&self, device: &Device, how: &How) -> Result<Opened, OpenError> {
        let (mut attached, mut mode_reason) = self.attach(device, how)?;
        let bound = self.bind_all(device, how, attached.hook, &mut mode_reason);
        let opened = bound.and_then(|(bound, zero_copy)| {
            let promiscuous = self.hear_all(device, how)?;
            Ok((zero_copy, promiscuous, self.lanes(bound, how, &mut attached)?))
        });
        match opened {
            Ok((zero_copy, promiscuous, (lanes, holders))) => {
                Ok(Opened { lanes, attached, promiscuous, zero_copy, mode_reason, holders })
            }
            Err(error) => {
                // A link of an earlier daemon stays: without sockets it drops or passes, as the port says. A fresh one goes.
                if !attached.adopted {
                    _ = attached.detach();
                }
                Err(error)
            }
        }
    }

    /// The program that an earlier daemon left on a device, if it did.
    pub fn found_on(&self, device: &str, ifindex: u32) -> Option<Guard> {
        Guard::found(&self.program, &self.directory, (device, ifindex))
    }

    /// The program of a device that takes so much.
    fn program(&self, take: &Take) -> Result<Shared, AttachError> {
        match Kind::of(take) {
            Kind::Ports => Ok(self.program.clone()),
            Kind::Uplink => Ok(Program::load(&self.directory, Kind::Uplink)?),
        }
    }

    /// Tries a hook; what `runs` the program that is there already stays who runs it.
    fn attach_in(
        &self,
        hook: Hook,
        runs: Option<Hook>,
        device: &Device,
        how: &How,
    ) -> Result<Attached, AttachError> {
        let program = self.program(&how.settings.take)?;
        let place = (device.name, device.ifindex);
        Attached::attach(program, &self.directory, place, hook, runs, &how.settings)
    }

    fn attach(&self, device: &Device, how: &How) -> Result<(Attached, Option<String>), AttachError> {
        match how.mode {
            XdpMode::Generic => Ok((self.in_hook(Hook::Generic, device, how)?, None)),
            XdpMode::Native | XdpMode::ZeroCopy => Ok((self.in_hook(Hook::Native, device, how)?, None)),
            XdpMode::Auto => match self.attach_in(Hook::Native, device.runs, device, how) {
                Ok(attached) => {
                    let is_slow = attached.hook == Hook::Generic;
                    Ok((attached, is_slow.then(|| FOUND_GENERIC.to_owned())))
                }
                Err(refused @ AttachError::Refused { .. }) => {
                    Ok((self.attach_in(Hook::Generic, None, device, how)?, Some(refused.to_string())))
                }
                Err(error) => Err(error),
            },
        }
    }

    /// The program in the hook that was asked for by name. An earlier daemon's that is in the other one goes: for a moment nobody
    /// guards the device, which is better than to run otherwise than was asked for.
    fn in_hook(&self, hook: Hook, device: &Device, how: &How) -> Result<Attached, AttachError> {
        let attached = self.attach_in(hook, device.runs, device, how)?;
        if attached.hook == hook {
            return Ok(attached);
        }
        let pin = attach::pin_path(&self.directory, device.name, device.ifindex);
        attached.detach().map_err(|error| AttachError::Pin { path: pin, error: error.to_string() })?;
        loop {
            match self.attach_in(hook, None, device, how) {
                // The kernel may take it off a moment later.
                Err(AttachError::Foreign) if Instant::now() < how.until => std::thread::sleep(BIND_PAUSE),
                other => return other,
            }
        }
    }

    fn bind_all(
        &self,
        device: &Device,
        how: &How,
        hook: Hook,
        reason: &mut Option<String>,
    ) -> Result<(Vec<Bound>, bool), OpenError> {
        let doubt = if how.mode == XdpMode::Auto { doubt(device.name) } else { None };
        let may_zero_copy = hook == Hook::Native && matches!(how.mode, XdpMode::Auto | XdpMode::ZeroCopy);
        if let Some(doubt) = doubt.filter(|_| may_zero_copy) {
            *reason = Some(doubt.to_owned());
        } else if may_zero_copy {
            match self.bind_zero_copy(device, how) {
                Ok(bound) => return Ok((bound, true)),
                Err(error) if how.mode == XdpMode::ZeroCopy => return Err(error),
                Err(error) => *reason = Some(format!("no zero-copy: {error}")),
            }
        }
        let anchor = self.umem(how.region)?.anchor();
        let bind = |queue| self.bind(device, how, queue, Sharing::Through(anchor));
        Ok(((0..device.queues).map(bind).collect::<Result<_, _>>()?, false))
    }

    /// The first queue registers the memory once more, for this mode; the others share through it.
    fn bind_zero_copy(&self, device: &Device, how: &How) -> Result<Vec<Bound>, OpenError> {
        let mut bound: Vec<Bound> = Vec::new();
        for queue in 0..device.queues {
            let sharing = match bound.first() {
                None => Sharing::Registering,
                Some(first) => Sharing::Through(first.socket.as_fd()),
            };
            let next = self.bind(device, how, queue, sharing)?;
            bound.push(next);
        }
        Ok(bound)
    }

    fn bind(&self, device: &Device, how: &How, queue: u32, sharing: Sharing) -> Result<Bound, OpenError> {
        let failed = |call| move |error| OpenError::Socket { queue, call, error };
        let socket = RawSocket::new().map_err(failed("socket"))?;
        let (share, flags) = match sharing {
            Sharing::Through(fd) => (Some(fd), 0),
            Sharing::Registering => {
                socket.register_umem(&self.area, how.region).map_err(failed("UMEM registration"))?;
                (
                    None,
                    libc::XDP_ZEROCOPY
                        | libc::XDP_USE_NEED_WAKEUP
                        | if how.jumbo { libc::XDP_USE_SG } else { 0 },
                )
            }
        };
        let rings = socket.make_rings(how.ring_size).map_err(failed("rings"))?;
        let bind = || socket.bind(device.ifindex, queue, flags, share);
        patiently(how.until, bind).map_err(failed("bind"))?;
        // Kernels without it move 32 frames a kick instead, which is slower and as correct.
        socket.raise_tx_budget(how.ring_size);
        if how.busy_poll_us > 0 {
            socket.busy_poll(how.busy_poll_us).map_err(failed("busy poll"))?;
        }
        let is_zero_copy = socket.is_zero_copy().map_err(failed("XDP_OPTIONS"))?;
        // Whether a driver finishes checksums in zero-copy mode is its own affair; we do it.
        let tx_metadata = if is_zero_copy { TxMetadata::Absent } else { self.tx_metadata() };
        Ok(Bound { socket, rings, tx_metadata })
    }

    /// An uplink hears what is addressed to its NIC; the NIC is the host's to set.
    fn hear_all(&self, device: &Device, how: &How) -> Result<Option<Promiscuous>, OpenError> {
        let failed = |error| OpenError::Socket { queue: 0, call: "PACKET_ADD_MEMBERSHIP", error };
        let hears_all = how.settings.take != Take::Networks;
        hears_all.then(|| self.asker.ask(device.ifindex).map_err(failed)).transpose()
    }

    /// Lanes of sockets, which the program is told of, and under which numbers frames in their rings are recorded.
    fn lanes(&self, bound: Vec<Bound>, how: &How, attached: &mut Attached) -> Result<Lanes, OpenError> {
        let mut lanes: Vec<Box<dyn Port>> = Vec::new();
        let mut holders = Vec::new();
        for (queue, Bound { socket, rings, tx_metadata }) in bound.into_iter().enumerate() {
            let queue = queue as u32;
            attached.set_socket(queue, socket.as_fd().as_raw_fd()).map_err(|error| OpenError::Socket {
                queue,
                call: "socket map",
                error: io::Error::other(error),
            })?;
            let area = self.area.clone();
            let holder = area.holder().ok_or(OpenError::TooManySockets)?;
            holders.push(holder.number());
            let lane = XdpPort::new(socket, rings, area, how.region, holder, tx_metadata, how.jumbo);
            lanes.push(Box::new(lane));
        }
        Ok((lanes, holders))
    }
}

/// A driver that is part of the kernel has no such file.
const VIRTIO_AS_A_MODULE: &str = "/sys/module/virtio_net/initstate";

/// Why zero-copy is to be asked for by name, though the driver takes it. Linux's virtio_net says in front of each frame what is in a variable of
/// its own (`xsk_hdr`, drivers/net/virtio_net.c, 6.11 to 7.3). If it is a module, that variable is not where a device is told that it is: what the
/// host reads instead is another thing after each boot, and by most of what it may be, all that is sent is lost and nobody says so.
pub fn doubt(device: &str) -> Option<&'static str> {
    let is_virtio = || socket::driver(device).as_deref() == Some("virtio_net");
    (Path::new(VIRTIO_AS_A_MODULE).exists() && is_virtio()).then_some(
        "no zero-copy unless it is asked for: virtio_net, being a module, may lose all that is sent by it (docs/guide/limits.md)",
    )
}

#[derive(Clone, Copy)]
enum Sharing<'a> {
    Registering,
    Through(BorrowedFd<'a>),
}

/// Tries until it is not refused for being busy, or until then; once at least.
fn patiently(until: Instant, bind: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match bind() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                std::thread::sleep(BIND_PAUSE);
            }
            other => return other,
        }
    }
}

fn explain_umem(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)".into(),
        Some(libc::EPERM) => {
            "AF_XDP needs the capabilities CAP_NET_RAW, CAP_NET_ADMIN and CAP_SYS_ADMIN; run as root".into()
        }
        Some(libc::ENOBUFS) => {
            "the locked-memory limit is too small for the packet memory; raise it (`ulimit -l`, LimitMEMLOCK=) \
             or grant CAP_IPC_LOCK"
                .into()
        }
        _ => format!("AF_XDP cannot be used: {error}"),
    }
}
