//! Devices as they are found: whether a port can be opened on one, what it takes then, and why not, in words that say what to do.

use super::doors::Doors;
use super::links::{self, Link};
use crate::port::xdp;
use crate::port::xdp::attach::{AttachError, Hook};
use crate::port::xdp::open::{Engine, OpenError};
use crate::port::xdp::program::LoadError;
use crate::wire::ethernet::{HEADER_LEN, TAG_LEN};
use switch_api::{ApiError, Code};

impl Doors {
    /// AF_XDP, or the refusal.
    pub(super) fn engine(&self) -> Result<&Engine, ApiError> {
        self.engine.as_ref().map_err(|reason| {
            ApiError::new(Code::Unsupported, format!("no xdp port is possible here: {reason}"))
                .field("kind")
                .hint("every other kind of port works")
        })
    }

    /// The device, if it can be opened now.
    pub(super) fn usable(&self, name: &str) -> Result<Link, ApiError> {
        let link = self.fitting(name)?;
        if !link.is_up {
            return Err(ApiError::new(Code::System, format!("device {name} is down"))
                .field("device")
                .hint(format!("ip link set {name} up")));
        }
        Ok(link)
    }

    /// The device, if it can be opened once it is up.
    pub(super) fn fitting(&self, name: &str) -> Result<Link, ApiError> {
        let link = links::find(name)
            .map_err(|error| {
                ApiError::new(Code::System, format!("netlink: {error}")).hint(
                    "the kernel would not say which devices there are; try again, and see the daemon's log",
                )
            })?
            .ok_or_else(|| {
                ApiError::new(Code::NotFound, format!("there is no device named {name}"))
                    .field("device")
                    .hint("`ip link` lists those of the daemon's network namespace")
            })?;
        let mtu_max = self.xdp_mtu_max();
        if link.mtu > u32::from(mtu_max) {
            let text = format!("device {name} has an MTU of {}, an xdp port takes up to {mtu_max}", link.mtu);
            return Err(ApiError::new(Code::Unsupported, text).field("device").hint(
                "lower the device's MTU; --frame-size 4096 gives room for more, and Linux 6.6 or later joins frames",
            ));
        }
        Ok(link)
    }

    /// Largest L3 packet a frame of our memory holds.
    pub fn mtu_max(&self) -> u16 {
        (self.area.packet_len_max() - HEADER_LEN - TAG_LEN) as u16
    }

    /// Largest L3 packet an xdp port takes: more than a frame holds where the kernel joins several.
    pub fn xdp_mtu_max(&self) -> u16 {
        match &self.engine {
            Ok(engine) if engine.multi_buffer() => xdp::jumbo_mtu_max(&self.area),
            _ => self.mtu_max(),
        }
    }

    /// Whether a device's frames can be larger than one of ours.
    pub fn is_jumbo(&self, link: &Link) -> bool {
        link.mtu > u32::from(self.mtu_max())
    }
}

/// Who runs the XDP program that is on a device.
pub(super) fn hook_of(link: &Link) -> Option<Hook> {
    link.xdp.map(|(mode, _)| if mode == "generic" { Hook::Generic } else { Hook::Native })
}

/// What the kernel said to opening a device, in a person's words.
pub(super) fn refuse(name: &str, link: &Link, error: OpenError) -> ApiError {
    let refusal = |code, text: String, hint: &str| ApiError::new(code, text).field("device").hint(hint);
    match error {
        OpenError::Attach(AttachError::Foreign) => {
            let program = link.xdp.map_or(String::new(), |(mode, id)| format!(" (program {id}, {mode})"));
            let text = format!("device {name} has another XDP program attached{program}; it was left alone");
            refusal(
                Code::Busy,
                text,
                "find its owner with `bpftool net`, or detach it with `ip link set DEV xdp off`",
            )
        }
        OpenError::Attach(error @ AttachError::Refused { .. }) => {
            let hint = "try --mode generic, or see the driver's limits on MTU and queues for XDP";
            refusal(Code::Unsupported, format!("device {name}: {error}"), hint)
        }
        OpenError::Attach(AttachError::Program(error @ LoadError::Full)) => {
            refusal(Code::Limit, format!("device {name}: {error}"), "delete ports")
        }
        OpenError::Attach(error) => {
            refusal(Code::System, format!("device {name}: {error}"), "run as root, on Linux 5.11 or later")
        }
        OpenError::Socket { queue, call, error } => {
            let hint = match error.raw_os_error() {
                Some(libc::EBUSY) => "another program has an AF_XDP socket on this queue",
                Some(libc::EOPNOTSUPP | libc::EINVAL) => "the driver cannot do this mode; use --mode auto",
                Some(libc::ENOBUFS | libc::ENOMEM) => {
                    "the locked-memory limit is too small: raise `ulimit -l`"
                }
                _ => "see the kernel's log",
            };
            refusal(Code::System, format!("device {name}, queue {queue}: {call}: {error}"), hint)
        }
        OpenError::TooManySockets => refusal(Code::Limit, format!("device {name}: {error}"), "delete ports"),
    }
}
