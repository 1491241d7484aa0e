//! `switch-ctl port add uplink`: a way out by a NIC that stays the host's.

use crate::port::{Common, Mode};
use clap::Args;
use switch_api::PortKind;

const EXAMPLES: &str = "\
Examples:
  switch-ctl port probe eth0       # says beforehand whether it can be shared
  switch-ctl bridge add wan
  switch-ctl port add uplink up0 --bridge wan --device eth0
  switch-ctl vrf list              # what it takes, and what stands in the way
  switch-ctl port delete up0       # everything goes by the kernel again";

/// An uplink.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Uplink {
    #[command(flatten)]
    pub common: Common,
    /// The NIC. Its addresses, ARP, neighbour discovery and routes stay the kernel's; packets to networks behind the switch are
    /// taken, all else is passed on.
    #[arg(long)]
    device: String,
    /// How: the fastest that works, unless said.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
    /// Receive queues to serve; 0 is all. What comes by others is left to the kernel.
    #[arg(long, default_value_t = 0)]
    queues: u16,
    /// Milliseconds of silence after which the switch counts as dead, and all is passed to the kernel.
    #[arg(long)]
    dead_after_ms: Option<u32>,
}

impl Uplink {
    pub fn kind(&self) -> PortKind {
        let mut kind = PortKind::uplink(&self.device);
        if let PortKind::Xdp { mode, queues, dead_after_ms, .. } = &mut kind {
            (*mode, *queues) = (self.mode.into(), self.queues);
            *dead_after_ms = self.dead_after_ms.unwrap_or(*dead_after_ms);
        }
        kind
    }
}
