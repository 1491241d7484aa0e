//! `switch-ctl port add xdp`: AF_XDP on a network device.

use super::Common;
use crate::tap::PodDevice;
use clap::{Args, ValueEnum};
use switch_api::{PortKind, Take, TakeRule, WhenDead, XdpMode};

const EXAMPLES: &str = "\
Examples:
  switch-ctl port add xdp fast --bridge br0 --device fast0 \\
    --netns lab --pod-device eth1 --address 10.66.0.4/24
  switch-ctl port add xdp nic --bridge br0 --device eth0 \\
    --take 0x0800,10.9.0.0/16";

/// An xdp port.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Xdp {
    #[command(flatten)]
    pub common: Common,
    /// The device, for example the host's end of a veth pair; with --netns the name of the one that is made.
    #[arg(long)]
    device: String,
    #[command(flatten)]
    pod: PodDevice,
    /// How: the fastest that works, unless said.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
    /// Receive queues to serve; 0 is all.
    #[arg(long, default_value_t = 0)]
    queues: u16,
    /// Entries of each ring: a power of two, 64 to 8192.
    #[arg(long)]
    ring_size: Option<u32>,
    /// Let the kernel busy-poll for this many microseconds.
    #[arg(long, default_value_t = 0)]
    busy_poll_us: u32,
    /// Take only frames of this EtherType, and of this destination if one is given: `0x0800`,
    /// `0x0800,10.0.0.0/8`. May be repeated; the rest goes to the host's kernel.
    #[arg(long = "take", value_name = "ETHERTYPE[,PREFIX]", value_parser = parse_rule)]
    rules: Vec<TakeRule>,
    /// Take nothing: attached and harmless.
    #[arg(long, conflicts_with = "rules")]
    take_nothing: bool,
    /// While the switch is dead: drop (right for pods) or pass to the host's kernel (for an uplink). Unless said, a port
    /// with --take passes, another drops.
    #[arg(long, value_enum)]
    when_dead: Option<Dead>,
    /// Milliseconds of silence after which it counts as dead.
    #[arg(long)]
    dead_after_ms: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Mode {
    Auto,
    ZeroCopy,
    Native,
    Generic,
}

impl From<Mode> for XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::ZeroCopy => Self::ZeroCopy,
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Dead {
    Drop,
    Pass,
}

impl Xdp {
    pub fn kind(&self) -> PortKind {
        let take = match (self.take_nothing, self.rules.is_empty()) {
            (true, _) => Take::Nothing,
            (false, true) => Take::Everything,
            (false, false) => Take::Matching { rules: self.rules.clone() },
        };
        PortKind::Xdp {
            device: self.device.clone(),
            mode: self.mode.into(),
            queues: self.queues,
            ring_size: self.ring_size.unwrap_or(switch_api::RING_SIZE_DEFAULT),
            busy_poll_us: self.busy_poll_us,
            take,
            when_dead: self.when_dead.map(|when| match when {
                Dead::Drop => WhenDead::Drop,
                Dead::Pass => WhenDead::Pass,
            }),
            dead_after_ms: self.dead_after_ms.unwrap_or(switch_api::DEAD_AFTER_MS_DEFAULT),
            pod: self.pod.end().map(Box::new),
        }
    }
}

fn parse_rule(text: &str) -> Result<TakeRule, String> {
    let (ethertype, destination) = match text.split_once(',') {
        Some((ethertype, prefix)) => (ethertype, Some(prefix.to_owned())),
        None => (text, None),
    };
    let hex = ethertype.strip_prefix("0x").ok_or("write the EtherType in hex, like 0x0800")?;
    let ethertype = u16::from_str_radix(hex, 16).map_err(|_| format!("{hex:?} is no EtherType"))?;
    Ok(TakeRule { ethertype, destination })
}
