//! What a device can do, found out by trying: the program is attached in each mode, taking no frame and passing
//! everything on, sockets are bound to every queue, and all of it is undone. The order is the one in which a
//! port with `mode: auto` tries, but for what it does not try ([`doubt`]).

use super::daemon::{Daemon, PortLife};
use super::doors::{OPEN_PATIENCE, close_unused};
use super::fitting::hook_of;
use super::links::Link;
use super::uplinks::shareable;
use crate::config::checked::QUEUES_MAX;
use crate::frame::Area;
use crate::port::xdp::open::{Device, Engine, How, doubt};
use crate::port::xdp::program::Settings;
use crate::port::xdp::socket;
use crate::port::xdp::umem::TxMetadata;
use std::time::Instant;
use switch_api::{
    ApiError, Code, DEAD_AFTER_MS_DEFAULT, Mac, Name, PortKind, ProbeReply, RING_SIZE_DEFAULT, Take, Tried,
    WhenDead, XdpMode,
};

/// From fast to slow.
const MODES: [(&str, XdpMode); 3] =
    [("zero-copy", XdpMode::ZeroCopy), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];

impl Daemon {
    /// Tries a device that is no port.
    pub(super) fn probe(&self, name: &str) -> Result<ProbeReply, ApiError> {
        let link = self.doors.usable(name)?;
        let owner = self.ports.iter().find(|(_, life)| match life {
            PortLife::Up(door) => door.ifindex == link.index,
            PortLife::Down(_) => false,
        });
        if let Some(port) = owner.and_then(|(id, _)| self.name_of(*id)) {
            return Err(ApiError::new(Code::Busy, format!("device {name} is port {port}"))
                .field("device")
                .hint(format!("`switch-ctl port show {port}` says how it runs, and why not faster")));
        }
        if let Some(port) = self.guarded(&link) {
            let text =
                format!("device {name} is port {port}, which is down, and whose program guards it meanwhile");
            return Err(ApiError::new(Code::Busy, text).field("device").hint(format!(
                "`switch-ctl port show {port}` says why it is down; delete it to have its device tried"
            )));
        }
        let engine = self.doors.engine.as_ref().map_err(|reason| {
            ApiError::new(Code::Unsupported, format!("no xdp port is possible here: {reason}"))
                .field("device")
                .hint("every other kind of port works; docs/guide/install.md says what a node needs")
        })?;
        let queues = socket::queues(name).min(u32::from(QUEUES_MAX));
        let device = Device { name, ifindex: link.index, queues, runs: hook_of(&link) };
        let jumbo = self.doors.is_jumbo(&link);
        let mut tried: Vec<Tried> = MODES
            .iter()
            .map(|(what, mode)| try_mode(engine, &self.doors.area, &device, what, *mode, jumbo))
            .collect();
        // What is doubted is told of and passed by: it is the first of them.
        let mut doubted = 0;
        if let (Some(doubt), Some(zero_copy)) = (doubt(name), tried.first_mut().filter(|first| first.works)) {
            zero_copy.detail = format!("{}; {doubt}", zero_copy.detail);
            doubted = 1;
        }
        let choice = tried.iter().skip(doubted).find(|tried| tried.works).map(|tried| tried.what.clone());
        tried.extend(of_the_kernel(engine, self.doors.mtu_max()));
        tried.push(as_uplink(&link, choice.is_some()));
        Ok(ProbeReply { device: name.to_owned(), mtu: link.mtu, queues, tried, choice })
    }
}

impl Daemon {
    /// The port that is down, and whose program is on a device all the same: a probe would take it off.
    fn guarded(&self, link: &Link) -> Option<&Name> {
        let is_its = |kind: &PortKind| matches!(kind, PortKind::Xdp { device, .. } if *device == link.name);
        let mut ports = self.model.ports.iter().filter(|_| link.xdp.is_some());
        ports.find(|(_, port)| is_its(&port.object.kind)).map(|(name, _)| name)
    }
}

fn try_mode(engine: &Engine, area: &Area, device: &Device, what: &str, mode: XdpMode, jumbo: bool) -> Tried {
    let settings = Settings {
        take: Take::Nothing,
        when_dead: WhenDead::Pass,
        dead_after_ms: DEAD_AFTER_MS_DEFAULT,
        workers: vec![0; device.queues as usize],
        mac: Mac([0; 6]),
    };
    let (ring_size, until) = (RING_SIZE_DEFAULT, Instant::now() + OPEN_PATIENCE);
    let how = How { mode, ring_size, busy_poll_us: 0, settings, jumbo, region: 0, until };
    let tried = |works, detail: String| Tried { what: what.to_owned(), works, detail };
    let opened = match engine.open(device, &how) {
        Ok(opened) => opened,
        Err(error) => return tried(false, error.to_string()),
    };
    close_unused(opened.lanes, area);
    match opened.attached.detach() {
        Ok(()) => tried(true, format!("{} of {} queues bound", device.queues, device.queues)),
        Err(error) => tried(true, format!("but the program could not be taken off again: {error}")),
    }
}

/// Whether an uplink can share it with the kernel.
fn as_uplink(link: &Link, can_be_opened: bool) -> Tried {
    let what = "shared uplink".to_owned();
    match shareable(link) {
        Err(error) => Tried { what, works: false, detail: error.to_string() },
        Ok(()) if !can_be_opened => Tried { what, works: false, detail: "no mode works".into() },
        Ok(()) => {
            let detail =
                "what is addressed to networks behind the switch is taken, all else stays the kernel's";
            Tried { what, works: true, detail: detail.into() }
        }
    }
}

/// What does not depend on the device.
fn of_the_kernel(engine: &Engine, mtu_max: u16) -> [Tried; 2] {
    let joins = engine.multi_buffer();
    let finishes = engine.tx_metadata() == TxMetadata::Offered;
    let jumbo = if joins {
        format!("an MTU above {mtu_max} is possible")
    } else {
        format!("an MTU above {mtu_max} is not possible: XDP_USE_SG came with Linux 6.6")
    };
    let checksums = if finishes {
        "unfinished checksums are left to the kernel, in the copying modes"
    } else {
        "unfinished checksums are finished by the switch: XDP_TXMD_FLAGS_CHECKSUM came with Linux 6.8"
    };
    [
        Tried { what: "frames of several buffers".into(), works: joins, detail: jumbo },
        Tried { what: "transmit metadata".into(), works: finishes, detail: checksums.into() },
    ]
}
