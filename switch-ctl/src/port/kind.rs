//! `switch-ctl port add`: what a port can be made of.

use super::settings::Settings;
use super::xdp::Xdp;
use crate::{tap, uplink};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use switch_api::{MemorySource, Name, Port, PortKind, PortSettings};

/// What a port is made of.
#[derive(Debug, Subcommand)]
pub enum Kind {
    /// A TAP in a pod's network namespace, made by the switch: what pods attach by.
    Tap(tap::Tap),
    /// A TAP in the daemon's own namespace: by it the node itself talks to the pods.
    Host(tap::Host),
    /// A way out by a NIC that stays the host's: only packets to networks behind the switch are taken.
    Uplink(uplink::Uplink),
    /// AF_XDP on a network device.
    Xdp(Xdp),
    /// Frames made and counted in memory, for benches.
    #[command(after_help = "\
Examples:
  switch-ctl port add memory sink --bridge br0
  switch-ctl port add memory load --bridge br0 --flows 2 --rate-pps 500")]
    Memory {
        #[command(flatten)]
        common: Common,
        /// Send this many flows into the switch.
        #[arg(long)]
        flows: Option<u32>,
        /// Bytes of a frame, without FCS.
        #[arg(long, default_value_t = 60)]
        frame_len: u16,
        /// Seed of the order.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Send from the far stations to the near ones: the other half of a pair of ports.
        #[arg(long)]
        reverse: bool,
        /// Frames a second; 0 is as fast as they are taken.
        #[arg(long, default_value_t = 0)]
        rate_pps: u64,
    },
    /// Replays a capture into the switch, writes what the switch sends.
    #[command(
        after_help = "Example:\n  switch-ctl port add pcap record --bridge br0 --write /run/first/record.pcap"
    )]
    Pcap {
        #[command(flatten)]
        common: Common,
        /// The capture to replay.
        #[arg(long)]
        read: Option<PathBuf>,
        /// The capture to write.
        #[arg(long)]
        write: Option<PathBuf>,
    },
}

/// What every new port has.
#[derive(Debug, Args)]
pub struct Common {
    /// Its name.
    name: Name,
    /// Its bridge.
    #[arg(long)]
    bridge: Name,
    #[command(flatten)]
    settings: Settings,
}

impl Common {
    /// Such a port.
    pub fn port(&self, kind: PortKind) -> Port {
        let settings = self.settings.over(PortSettings::default());
        Port { settings, ..Port::new(self.name.clone(), self.bridge.clone(), kind) }
    }
}

impl Kind {
    pub fn to_port(&self) -> Port {
        let (common, kind) = match self {
            Self::Xdp(xdp) => (&xdp.common, xdp.kind()),
            Self::Tap(tap) => (&tap.common, tap.kind()),
            Self::Host(host) => (&host.common, host.kind()),
            Self::Uplink(uplink) => (&uplink.common, uplink.kind()),
            Self::Memory { common, flows, frame_len, seed, reverse, rate_pps } => {
                let source = flows.map(|flows| MemorySource {
                    flows,
                    frame_len: *frame_len,
                    seed: *seed,
                    reverse: *reverse,
                    rate_pps: *rate_pps,
                });
                (common, PortKind::Memory { source })
            }
            Self::Pcap { common, read, write } => {
                // The daemon has another working directory than we have.
                let absolute = |path: &PathBuf| {
                    std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string()
                };
                let (read, write) = (read.as_ref().map(absolute), write.as_ref().map(absolute));
                (common, PortKind::Pcap { read, write })
            }
        };
        common.port(kind)
    }
}
