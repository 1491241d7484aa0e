//! `switch-ctl port add tap` and `host`: devices that the switch makes.

use crate::port::Common;
use clap::Args;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use switch_api::{Cidr, DeviceRoute, HOST_DEVICE_DEFAULT, Mac, PodEnd, PortKind, TAP_DEVICE_DEFAULT};

const TAP_EXAMPLES: &str = "\
Examples:
  ip netns add app
  switch-ctl port add tap app --bridge br0 --netns app \\
    --address 10.66.0.4/24 --route 0.0.0.0/0,10.66.0.1
  switch-ctl port add tap vm --bridge br0 --device vm0 --trunk 10,20-29
  ip netns exec app sleep 5 & sleep 1; switch-ctl port add tap pid \\
    --bridge br0 --device pid0 --netns /proc/$!/ns/net";
const HOST_EXAMPLES: &str = "\
Examples:
  switch-ctl port add host node --bridge br0 --address 10.66.0.250/24
  switch-ctl port add host node6 --bridge br0 --device switch6 \\
    --address fd66::250/64";

/// A tap port.
#[derive(Debug, Args)]
#[command(after_help = TAP_EXAMPLES)]
pub struct Tap {
    #[command(flatten)]
    pub common: Common,
    /// The pod's network namespace: a path, or a name that `ip netns` lists. Without it, the daemon's.
    #[arg(long, value_name = "PATH|NAME")]
    netns: Option<String>,
    /// The device's name when it is made.
    #[arg(long, default_value = TAP_DEVICE_DEFAULT)]
    device: String,
    #[command(flatten)]
    dress: Dress,
    /// Queues, 1 to 16. With more than one, a pod that may open /dev/net/tun can attach one of its own.
    #[arg(long, default_value_t = 1)]
    queues: u16,
}

/// A host port.
#[derive(Debug, Args)]
#[command(after_help = HOST_EXAMPLES)]
pub struct Host {
    #[command(flatten)]
    pub common: Common,
    /// The device's name when it is made. The drop-ins in deploy/ keep other programs away from switch*.
    #[arg(long, default_value = HOST_DEVICE_DEFAULT)]
    device: String,
    #[command(flatten)]
    dress: Dress,
}

/// The other end of an xdp port's device, if the switch makes both.
#[derive(Debug, Args)]
pub struct PodDevice {
    /// Make the device: one end of a veth pair whose other end is in this network namespace, a path, or a name that `ip netns`
    /// lists.
    #[arg(long, value_name = "PATH|NAME")]
    netns: Option<String>,
    /// The name of the end there.
    #[arg(long, default_value = TAP_DEVICE_DEFAULT, requires = "netns")]
    pod_device: String,
    /// Its MAC address; without it one is chosen, and kept.
    #[arg(long, requires = "netns")]
    mac: Option<Mac>,
    /// An address of it, like 10.66.0.2/24. May be repeated.
    #[arg(long = "address", value_name = "CIDR", requires = "netns")]
    addresses: Vec<Cidr>,
    /// A route of it, like 0.0.0.0/0,10.66.0.1. More of it: `metric=`, `table=`, `mtu=`, `advmss=`. May be repeated.
    #[arg(long = "route", value_name = "CIDR[,VIA][,metric=N]...", value_parser = parse_route, requires = "netns")]
    routes: Vec<DeviceRoute>,
}

impl PodDevice {
    pub fn end(&self) -> Option<PodEnd> {
        Some(PodEnd {
            device: self.pod_device.clone(),
            netns: path_of(self.netns.as_deref()?),
            mac: self.mac,
            addresses: self.addresses.clone(),
            routes: self.routes.clone(),
        })
    }
}

/// What a device is made with.
#[derive(Debug, Args)]
struct Dress {
    /// Its MAC address; without it one is chosen, and kept.
    #[arg(long)]
    mac: Option<Mac>,
    /// An address, like 10.66.0.2/24. May be repeated.
    #[arg(long = "address", value_name = "CIDR")]
    addresses: Vec<Cidr>,
    /// A route, like 0.0.0.0/0,10.66.0.1; without a next hop, the destinations are on the link. More of it: `metric=`,
    /// `table=`, `mtu=`, `advmss=`. May be repeated.
    #[arg(long = "route", value_name = "CIDR[,VIA][,metric=N]...", value_parser = parse_route)]
    routes: Vec<DeviceRoute>,
}

pub fn parse_route(text: &str) -> Result<DeviceRoute, String> {
    let mut parts = text.split(',');
    let to = parts.next().unwrap_or_default().parse::<Cidr>().map_err(|error| error.to_string())?;
    let mut route = DeviceRoute::new(to, None);
    for part in parts {
        let Some((word, value)) = part.split_once('=') else {
            route.via = Some(part.parse::<IpAddr>().map_err(|_| format!("{part:?} is no address"))?);
            continue;
        };
        let number = value.parse::<u32>().map_err(|_| format!("{value:?} is no number"))?;
        match word {
            "metric" => route.metric = Some(number),
            "table" => route.table = Some(number),
            "mtu" => route.mtu = Some(number),
            "advmss" => route.advmss = Some(number),
            _ => return Err(format!("{word:?} is not known here: use metric, table, mtu or advmss")),
        }
    }
    Ok(route)
}

impl Tap {
    pub fn kind(&self) -> PortKind {
        let Dress { mac, addresses, routes } = &self.dress;
        PortKind::Tap {
            device: self.device.clone(),
            netns: self.netns.as_deref().map(path_of),
            mac: *mac,
            addresses: addresses.clone(),
            routes: routes.clone(),
            queues: self.queues,
        }
    }
}

impl Host {
    pub fn kind(&self) -> PortKind {
        let Dress { mac, addresses, routes } = &self.dress;
        PortKind::Host {
            device: self.device.clone(),
            mac: *mac,
            addresses: addresses.clone(),
            routes: routes.clone(),
        }
    }
}

/// Where a namespace is: the daemon has another working directory than we have, and knows no names.
fn path_of(text: &str) -> String {
    let path = if text.contains('/') { PathBuf::from(text) } else { Path::new("/run/netns").join(text) };
    std::path::absolute(&path).unwrap_or(path).display().to_string()
}

/// What is shown of such a port.
pub fn made_of(kind: &PortKind) -> Option<String> {
    match kind {
        PortKind::Tap { device, netns: None, .. } => Some(format!("tap {device}")),
        PortKind::Tap { device, netns: Some(path), .. } => {
            Some(format!("tap {device} in {}", shown_netns(path)))
        }
        PortKind::Host { device, .. } => Some(format!("host {device}")),
        _ => None,
    }
}

/// Of /run/netns/NAME the name says enough, of /proc/PID/ns/net all of it does.
pub fn shown_netns(path: &str) -> &str {
    let name = path.strip_prefix("/run/netns/").or_else(|| path.strip_prefix("/var/run/netns/"));
    name.unwrap_or(path)
}

/// The lines that `port show` has for such a port.
pub fn show(kind: &PortKind) -> Vec<(&'static str, String)> {
    let (mac, addresses, routes) = match kind {
        PortKind::Tap { mac, addresses, routes, .. } | PortKind::Host { mac, addresses, routes, .. } => {
            (mac, addresses, routes)
        }
        PortKind::Xdp { pod: Some(end), .. } => (&end.mac, &end.addresses, &end.routes),
        _ => return Vec::new(),
    };
    vec![
        ("mac", mac.map(|mac| mac.to_string()).unwrap_or_default()),
        ("addresses", addresses.iter().map(Cidr::to_string).collect::<Vec<_>>().join(" ")),
        ("routes", routes.iter().map(DeviceRoute::to_string).collect::<Vec<_>>().join(", ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_written_in_a_line() {
        let route = parse_route("0.0.0.0/0,10.66.0.1,metric=7,mtu=1400").unwrap();
        assert_eq!(route.to_string(), "0.0.0.0/0 via 10.66.0.1 metric 7 mtu 1400");
        assert_eq!(
            parse_route("fd00::/8,table=9,advmss=1200").unwrap().to_string(),
            "fd00::/8 table 9 advmss 1200"
        );
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/8,x",
            "10.0.0.0/8,metric",
            "10.0.0.0/8,metric=x",
            "10.0.0.0/8,via=10.0.0.1",
        ] {
            assert!(parse_route(bad).is_err(), "{bad}");
        }
    }
}
