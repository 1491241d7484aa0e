//! `switch-ctl port`.

use crate::output::{Output, bytes, thousands};
use crate::{guard, label, limit, outside, readdress, tap, uplink, verdict};
use clap::{Args, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};
use switch_api::{
    ApiError, ByDevice, ByName, Client, Code, Done, Flood, MemorySource, Name, Nothing, Port, PortKind,
    PortMemory, PortSet, PortSettings, PortState, PortStatus, ProbeReply, Request, Take, TakeRule, Vid,
    VidRange, Vlan, WhenDead, XdpMode,
};

/// What can be done with ports.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists ports.
    #[command(after_help = "Example:\n  switch-ctl port list")]
    List,
    /// Shows one port with everything known of it.
    #[command(after_help = "Example:\n  switch-ctl port show web")]
    Show {
        /// The port.
        name: Name,
    },
    /// Tries what a device can do, and says what a port on it would get and why. Takes no frame; the device
    /// must not be a port.
    #[command(after_help = "Example:\n  switch-ctl port probe eth0")]
    Probe {
        /// The device.
        device: String,
    },
    /// Adds a port.
    #[command(subcommand)]
    Add(Box<Kind>),
    /// Changes a port's settings; what is not named stays.
    #[command(after_help = "\
Examples:
  switch-ctl port set web --isolated on
  switch-ctl port set web --limit-rx-bytes 12.5M --limit-tx-packets 10k
  switch-ctl port set db --storm-pps 1000 --learn-limit 4
  switch-ctl port set lab --source-addresses 10.67.0.2")]
    Set {
        /// The port.
        name: Name,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Gives the device that the switch made for a port other addresses and routes; its connections over those that stay go on.
    Address(readdress::Addresses),
    /// Says what a port is to network policies: namespace, labels, named ports. What is not named stays.
    Label(label::Label),
    /// Closes and removes a port.
    #[command(after_help = "Example:\n  switch-ctl port delete lab")]
    Delete {
        /// The port.
        name: Name,
    },
}

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
    #[command(after_help = "\
Examples:
  switch-ctl port add xdp fast --bridge br0 --device fast0 \\
    --netns lab --pod-device eth1 --address 10.66.0.4/24
  switch-ctl port add xdp nic --bridge br0 --device eth0 \\
    --take 0x0800,10.9.0.0/16")]
    Xdp {
        #[command(flatten)]
        common: Common,
        /// The device, for example the host's end of a veth pair; with --netns the name of the one that is made.
        #[arg(long)]
        device: String,
        #[command(flatten)]
        pod: tap::PodDevice,
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
    },
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

fn parse_vid(text: &str) -> Result<Vid, String> {
    let number: u32 = text.parse().map_err(|_| format!("{text:?} is no VLAN identifier: use 1 to 4094"))?;
    Vid::try_from(number).map_err(|error| error.to_string())
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

fn parse_rule(text: &str) -> Result<TakeRule, String> {
    let (ethertype, destination) = match text.split_once(',') {
        Some((ethertype, prefix)) => (ethertype, Some(prefix.to_owned())),
        None => (text, None),
    };
    let hex = ethertype.strip_prefix("0x").ok_or("write the EtherType in hex, like 0x0800")?;
    let ethertype = u16::from_str_radix(hex, 16).map_err(|_| format!("{hex:?} is no EtherType"))?;
    Ok(TakeRule { ethertype, destination })
}

impl Settings {
    /// `before` with what was named.
    fn over(&self, before: PortSettings) -> PortSettings {
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

impl Kind {
    fn to_port(&self) -> Port {
        let (common, kind) = match self {
            Self::Xdp { common, .. } => (common, self.xdp()),
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

    fn xdp(&self) -> PortKind {
        let Self::Xdp {
            device,
            mode,
            queues,
            ring_size,
            busy_poll_us,
            rules,
            take_nothing,
            when_dead,
            dead_after_ms,
            pod,
            ..
        } = self
        else {
            return PortKind::Memory { source: None };
        };
        let take = match (take_nothing, rules.is_empty()) {
            (true, _) => Take::Nothing,
            (false, true) => Take::Everything,
            (false, false) => Take::Matching { rules: rules.clone() },
        };
        PortKind::Xdp {
            device: device.clone(),
            mode: (*mode).into(),
            queues: *queues,
            ring_size: ring_size.unwrap_or(switch_api::RING_SIZE_DEFAULT),
            busy_poll_us: *busy_poll_us,
            take,
            when_dead: when_dead.map(|when| match when {
                Dead::Drop => WhenDead::Drop,
                Dead::Pass => WhenDead::Pass,
            }),
            dead_after_ms: dead_after_ms.unwrap_or(switch_api::DEAD_AFTER_MS_DEFAULT),
            pod: pod.end().map(Box::new),
        }
    }
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::List => {
            let ports: Vec<PortStatus> = client.call(&Request::PortList(Nothing {}))?;
            output.answer(&ports, |ports| list(ports, output));
        }
        Verb::Show { name } => {
            let port = find(client, name)?;
            output.answer(&port, show);
        }
        Verb::Probe { device } => {
            let probe = client.call(&Request::PortProbe(ByDevice { device: device.clone() }))?;
            output.answer(&probe, |probe| probed(probe, output));
        }
        Verb::Add(kind) => {
            let port = kind.to_port();
            let done: Done = client.call(&Request::PortAdd(Box::new(port.clone())))?;
            output.done(&done, &format!("port {} is open", port.name));
        }
        Verb::Set { name, settings } => {
            let before = find(client, name)?.port.settings;
            let set = PortSet { name: name.clone(), settings: settings.over(before) };
            let done: Done = client.call(&Request::PortSet(set))?;
            output.done(&done, &format!("port {name} is changed"));
        }
        Verb::Address(wanted) => readdress::run(wanted, client, output)?,
        Verb::Label(label) => label::run(label, client, output)?,
        Verb::Delete { name } => {
            let done: Done = client.call(&Request::PortDelete(ByName { name: name.clone() }))?;
            output.done(&done, &format!("port {name} is gone"));
        }
    }
    Ok(())
}

fn find(client: &mut Client, name: &Name) -> Result<PortStatus, ApiError> {
    let ports: Vec<PortStatus> = client.call(&Request::PortList(Nothing {}))?;
    ports.into_iter().find(|port| port.port.name == *name).ok_or_else(|| {
        ApiError::new(Code::NotFound, format!("there is no port named {name}"))
            .hint("`switch-ctl port list` shows those there are")
    })
}

fn probed(probe: &ProbeReply, output: &Output) -> String {
    let ProbeReply { device, mtu, queues, tried, choice } = probe;
    let mut table = output.table(&["WHAT", "WORKS", "WHY"]);
    for tried in tried {
        let works = output.verdict(if tried.works { "yes" } else { "no" }, tried.works);
        table.add_row(vec![tried.what.as_str().into(), works, tried.detail.as_str().into()]);
    }
    let choice = match choice {
        Some(choice) => format!("a port on it would run in mode {choice}, the first that works"),
        None => "no port is possible on it".into(),
    };
    format!("{device}: MTU {mtu}, {queues} queues\n{table}\n{choice}")
}

fn state(port: &PortStatus) -> &'static str {
    match port.state {
        PortState::Up => "up",
        PortState::Down => "down",
        PortState::Looped => "looped",
    }
}

fn memory(port: &PortStatus) -> String {
    let PortMemory { frames_bytes, rings_bytes, kernel_bytes } = port.memory;
    let parts = [("frames", frames_bytes), ("rings", rings_bytes), ("kernel", kernel_bytes)];
    let parts: Vec<_> =
        parts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what} {}", bytes(*n))).collect();
    if parts.is_empty() {
        return bytes(port.memory_bytes);
    }
    format!("{} ({})", bytes(port.memory_bytes), parts.join(", "))
}

/// What it is made of, in a few words.
pub fn made_of(port: &Port) -> String {
    match &port.kind {
        kind if let Some(device) = kind.shared_nic() => format!("uplink {device}"),
        PortKind::Xdp { device, pod: None, .. } => format!("xdp {device}"),
        PortKind::Xdp { device, pod: Some(end), .. } => {
            format!("xdp {device} to {} in {}", end.device, tap::shown_netns(&end.netns))
        }
        kind @ (PortKind::Tap { .. } | PortKind::Host { .. }) => tap::made_of(kind).unwrap_or_default(),
        PortKind::Memory { .. } => "memory".into(),
        PortKind::Vxlan { vni, local, .. } => crate::tunnel::made_of(*vni, *local),
        PortKind::Pcap { read, write } => {
            let name = |path: &Option<String>| {
                path.as_deref().and_then(|p| Path::new(p).file_name()?.to_str().map(str::to_owned))
            };
            format!("pcap {}", name(read).or_else(|| name(write)).unwrap_or_default())
        }
    }
}

fn vlan(port: &Port) -> String {
    match &port.settings.vlan {
        Vlan::Access { vid } => vid.to_string(),
        Vlan::Trunk { vids, native } => {
            let range = |r: &VidRange| {
                if r.first == r.last { r.first.to_string() } else { format!("{}-{}", r.first, r.last) }
            };
            let ranges: Vec<_> = vids.iter().map(range).collect();
            let native = native.map(|vid| format!(" native {vid}")).unwrap_or_default();
            format!("trunk {}{native}", ranges.join(","))
        }
    }
}

fn list(ports: &[PortStatus], output: &Output) -> String {
    if ports.is_empty() {
        return "no ports: `switch-ctl port add --help` says which there can be".into();
    }
    let head = [
        "PORT", "STATE", "KIND", "MODE", "BRIDGE", "VLAN", "WORKER", "OWNER", "MACS", "RX", "TX", "DROPS",
        "WHY",
    ];
    let mut table = output.table(&head);
    for port in ports {
        let workers: Vec<_> = port.workers.iter().map(u16::to_string).collect();
        let up = port.state == PortState::Up;
        table.add_row(vec![
            port.port.name.to_string().into(),
            output.verdict(state(port), up),
            made_of(&port.port).into(),
            port.mode.clone().unwrap_or_else(|| "-".into()).into(),
            port.port.bridge.to_string().into(),
            vlan(&port.port).into(),
            workers.join(",").into(),
            port.port.owner.to_string().into(),
            port.learned.to_string().into(),
            thousands(port.counters.rx_packets).into(),
            thousands(port.counters.tx_packets).into(),
            thousands(port.counters.drops).into(),
            port.reason.clone().unwrap_or_default().into(),
        ]);
    }
    table.to_string()
}

fn show(port: &PortStatus) -> String {
    let settings = &port.port.settings;
    let flood = settings.flood;
    let or_off = |limit: Option<u32>| limit.map_or("off".into(), |limit| limit.to_string());
    let mut lines = vec![
        ("port", port.port.name.to_string()),
        ("state", state(port).into()),
        ("why", port.reason.clone().unwrap_or_default()),
        ("owner", port.port.owner.to_string()),
        ("kind", made_of(&port.port)),
        ("mode", port.mode.clone().unwrap_or_default()),
        ("not faster because", port.mode_reason.clone().unwrap_or_default()),
        ("bridge", port.port.bridge.to_string()),
        ("vlan", vlan(&port.port)),
        (
            "mtu",
            format!("{}{}", port.mtu, if settings.mtu_follows { ", follows the node's way out" } else { "" }),
        ),
        ("memory", memory(port)),
        ("isolated", settings.isolated.to_string()),
        ("hairpin", settings.hairpin.to_string()),
        ("flood unknown unicast", flood.unknown_unicast.to_string()),
        ("flood multicast", flood.multicast.to_string()),
        ("flood broadcast", flood.broadcast.to_string()),
        ("storm limit (pps)", or_off(settings.storm_pps)),
        ("learn limit (MACs)", or_off(settings.learn_limit)),
        ("flows kept", if settings.track { "always" } else { "while a policy isolates it" }.into()),
        ("MACs learned", port.learned.to_string()),
        ("rx packets", thousands(port.counters.rx_packets)),
        ("rx bytes", thousands(port.counters.rx_bytes)),
        ("tx packets", thousands(port.counters.tx_packets)),
        ("tx bytes", thousands(port.counters.tx_bytes)),
        ("drops", thousands(port.counters.drops)),
    ];
    let at = lines.iter().position(|(name, _)| *name == "bridge").unwrap_or(0);
    lines.splice(at..at, tap::show(&port.port.kind));
    lines.extend(guard::show(settings.source_guard.as_ref()));
    lines.extend(limit::show(&settings.limits));
    lines.extend(verdict::show(&settings.default_verdict));
    lines.extend(outside::show(settings));
    if let Some(workload) = &port.port.workload {
        let ports = workload.ports.iter().map(|it| format!("{}={}/{}", it.name, it.protocol, it.port));
        let addresses = workload.addresses.iter().map(ToString::to_string);
        lines.push(("workload of namespace", workload.namespace.clone()));
        lines.push(("workload labels", label::shown(&workload.labels)));
        lines.push(("named ports", ports.collect::<Vec<_>>().join(",")));
        lines.push(("workload addresses", addresses.collect::<Vec<_>>().join(",")));
    }
    lines.extend(port.port.labels.iter().map(|(key, value)| (key.as_str(), value.clone())));
    lines.retain(|(_, value)| !value.is_empty());
    lines.iter().map(|(name, value)| format!("{name:<24}{value}\n")).collect()
}
