//! How a port switches: what `port add` and `port set` have in common.

use crate::fdb::parse_vid;
use crate::{guard, limit, outside, verdict};
use clap::{Args, ValueEnum};
use switch_api::{Flood, PortSettings, Vid, VidRange, Vlan};

/// How a port switches.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// One VLAN, frames without a tag.
    #[arg(long, value_name = "VID", value_parser = parse_vid, conflicts_with = "trunk")]
    access: Option<Vid>,
    /// Several VLANs, frames with a tag, like 10,20-29.
    #[arg(long, value_name = "VIDS", value_parser = parse_vids)]
    trunk: Option<Ranges>,
    /// The VLAN of frames without a tag on a trunk.
    #[arg(long, value_name = "VID", value_parser = parse_vid, requires = "trunk")]
    native: Option<Vid>,
    /// Give it frames to stations nobody has learned.
    #[arg(long)]
    flood_unknown_unicast: Option<Switch>,
    /// Give it multicast.
    #[arg(long)]
    flood_multicast: Option<Switch>,
    /// Give it broadcast.
    #[arg(long)]
    flood_broadcast: Option<Switch>,
    /// Exchange frames only with ports that are not isolated.
    #[arg(long)]
    isolated: Option<Switch>,
    /// Let frames leave by the port they came from.
    #[arg(long)]
    hairpin: Option<Switch>,
    /// Broadcast, multicast and unknown unicast frames a second that are admitted; `off` for no limit.
    #[arg(long, value_name = "PPS", value_parser = parse_limit)]
    storm_pps: Option<Limit>,
    /// MACs it may have learned; `off` for no limit of its own.
    #[arg(long, value_name = "MACS", value_parser = parse_limit)]
    learn_limit: Option<Limit>,
    /// Largest L3 packet it is given, in bytes. A device that the switch makes gets this MTU.
    #[arg(long)]
    mtu: Option<u16>,
    /// Let the MTU of a pod's device follow what fits through the node's way out.
    #[arg(long)]
    mtu_follows: Option<Switch>,
    /// The worker that serves it, or those of its queues in turn: `0,1`.
    #[arg(long, value_delimiter = ',', value_name = "WORKERS")]
    worker: Vec<u16>,
    /// Keep flows (TCP, UDP and the like) of what it sends and is sent; `switch-ctl flow list` shows them.
    #[arg(long)]
    track: Option<Switch>,
    #[command(flatten)]
    guard: guard::Args,
    #[command(flatten)]
    limits: limit::Limits,
    #[command(flatten)]
    verdicts: verdict::Verdicts,
    #[command(flatten)]
    outside: outside::Outside,
}

#[derive(Clone, Debug)]
pub struct Ranges(Vec<VidRange>);

#[derive(Clone, Copy, Debug)]
pub struct Limit(Option<u32>);

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl From<Switch> for bool {
    fn from(switch: Switch) -> Self {
        matches!(switch, Switch::On)
    }
}

fn parse_vids(text: &str) -> Result<Ranges, String> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Ok(VidRange { first: parse_vid(first)?, last: parse_vid(last)? })
    };
    text.split(',').map(range).collect::<Result<_, _>>().map(Ranges)
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    match text {
        "off" => Ok(Limit(None)),
        number => number.parse().map(|n| Limit(Some(n))).map_err(|_| "give a number, or off".into()),
    }
}

impl Settings {
    /// `before` with what was named.
    pub fn over(&self, before: PortSettings) -> PortSettings {
        let vlan = match (&self.access, &self.trunk) {
            (Some(vid), _) => Vlan::Access { vid: *vid },
            (None, Some(ranges)) => Vlan::Trunk { vids: ranges.0.clone(), native: self.native },
            (None, None) => before.vlan.clone(),
        };
        let or = |switch: Option<Switch>, before: bool| switch.map_or(before, bool::from);
        let before = self.outside.over(before);
        let (worker, queue_workers) = match *self.worker.as_slice() {
            [] => (before.worker, before.queue_workers.clone()),
            [one] => (Some(one), Vec::new()),
            ref several => (None, several.to_vec()),
        };
        PortSettings {
            vlan,
            flood: Flood {
                unknown_unicast: or(self.flood_unknown_unicast, before.flood.unknown_unicast),
                multicast: or(self.flood_multicast, before.flood.multicast),
                broadcast: or(self.flood_broadcast, before.flood.broadcast),
            },
            isolated: or(self.isolated, before.isolated),
            hairpin: or(self.hairpin, before.hairpin),
            storm_pps: self.storm_pps.map_or(before.storm_pps, |limit| limit.0),
            learn_limit: self.learn_limit.map_or(before.learn_limit, |limit| limit.0),
            mtu: self.mtu.or(before.mtu),
            mtu_follows: or(self.mtu_follows, before.mtu_follows),
            worker,
            queue_workers,
            track: or(self.track, before.track),
            source_guard: self.guard.over(before.source_guard),
            limits: self.limits.over(before.limits),
            default_verdict: self.verdicts.over(before.default_verdict),
            ..before
        }
    }
}
