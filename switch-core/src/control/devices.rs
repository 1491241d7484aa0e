//! Devices that the switch makes for ports, of either kind: their MAC address, their MTU, and what is left of them.

use super::daemon::{Daemon, PortLife};
use super::home::Home;
use super::{cable, tap};
use crate::config::snapshot::PortId;
use switch_api::{ApiError, Code, Port};

/// The port with its MAC address: one that nobody named is chosen here, once, and kept.
pub(super) fn with_mac(port: &Port) -> Result<Port, ApiError> {
    let mut port = port.clone();
    if let Some(mac) = port.kind.mac_mut()
        && mac.is_none()
    {
        let chosen = tap::random_mac();
        *mac = Some(chosen.map_err(|error| {
            ApiError::new(Code::System, format!("no randomness for a MAC address: {error}"))
                .field("mac")
                .hint("give the port one with --mac, or see why /dev/urandom cannot be read")
        })?);
    }
    Ok(port)
}

/// A port that is down has let go of its device, which may be there all the same: in the namespace in which it was made, if it was.
pub(super) fn remove_left_behind(port: &Port, home: Option<&Home>) {
    let tap = tap::Wanted::of(port, home).map_or(Ok(()), |wanted| tap::remove(&wanted));
    let cable = cable::Wanted::of(port, home).map_or(Ok(()), |wanted| cable::remove(&wanted));
    if let Err(error) = tap.and(cable)
        // A namespace that is gone, or is another's, or ours, has none of it.
        && !matches!(error.code, Code::NotFound | Code::InvalidParams)
    {
        tracing::warn!("a device may be left behind: {error}");
    }
}

impl Daemon {
    /// Gives the device of an open port the MTU that `port` says. Whether there is one.
    pub(super) fn set_device_mtu(&mut self, id: PortId, port: &Port) -> Result<bool, ApiError> {
        let Some(PortLife::Up(door)) = self.ports.get_mut(&id) else { return Ok(false) };
        let home = door.home().cloned();
        if let (Some(tap), Some(wanted)) = (&mut door.tap, tap::Wanted::of(port, home.as_ref())) {
            tap.set_mtu(&wanted)?;
            door.mtu = tap.link().mtu as u16;
            return Ok(true);
        }
        // What it comes to is for netlink to say: an xdp port may have to be opened anew for it.
        let Some(wanted) = cable::Wanted::of(port, home.as_ref()) else { return Ok(false) };
        cable::set_mtu(&wanted).map(|()| true)
    }

    /// New devices, whose ports are kept now, stay when this daemon dies. The pods behind new cables tell their neighbours of themselves:
    /// what they say is heard now.
    pub(super) fn introduce_pods(&mut self) {
        let taps = std::mem::take(&mut self.doors.fresh_taps);
        for tap in taps.iter().filter_map(std::sync::Weak::upgrade) {
            if let Err(error) = tap.set_persistent(true) {
                tracing::error!("a device goes when this daemon dies: {error}");
            }
        }
        for wanted in std::mem::take(&mut self.doors.fresh) {
            if let Err(error) = cable::finish(&wanted) {
                tracing::error!("it is made anew when this daemon dies: {error}");
            }
            if let Err(error) = cable::introduce(&wanted) {
                tracing::warn!("its neighbours have to ask for it: {error}");
            }
        }
    }
}
