//! Open vSwitch's userspace datapath by itself: frames are replayed to it from memory and taken to nowhere, by DPDK's `net_pcap` and
//! `net_null`. What moving them costs alone is what testpmd takes between the same devices.

use super::ovs::{Home, stateful, version};
use super::{Process, null};
use crate::matrix::task::{Task, Traffic};
use crate::rules;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use switch_api::Mac;
use switch_core::port::traffic::{client, server};
use switch_core::wire::checksum::{fold, sum};
use switch_lab::Node;

const DAEMON: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// Core 1 polls; no huge pages, no devices of the machine's.
const SETTINGS: &[&str] = &[
    "other_config:dpdk-init=true",
    "other_config:pmd-cpu-mask=2",
    "other_config:dpdk-lcore-mask=1",
    "other_config:dpdk-extra=--legacy-mem --no-huge -m 1024 --no-pci",
];
/// Until its caches have every flow.
const SETTLE: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(1);
/// Readings; the median counts.
const READINGS: usize = 3;
/// Of what came in, so much has to go out.
const FORWARDED: f64 = 0.99;
/// Frames of the capture that is replayed, in which each flow comes as often as any other.
const FRAMES: u32 = 8_000;
/// Bytes of a frame without its FCS.
const FRAME_LEN: usize = 60;
const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 2]);
const SENDER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const NEXT_HOP: Mac = Mac([2, 0, 0, 0, 0, 3]);

/// What it calls itself, or how it can be had.
pub fn version_of_it() -> Result<String, String> {
    version(DAEMON, "openvswitch-switch-dpdk")
}

/// Nanoseconds of core 1 a packet of `flows` established UDP flows, routed and admitted by one of so many rules; and of them what
/// moving it takes.
pub fn policed(flows: u32, rules: u32) -> Result<(f64, f64), String> {
    let capture = Capture::new(Task::Police(rules), flows)?;
    Ok((capture.through_ovs()?, capture.moved()?))
}

/// Packets of so many flows in a file, for what replays them.
#[derive(Debug)]
pub struct Capture {
    task: Task,
    flows: u32,
    // Its directory goes when it does.
    node: Node,
    directory: PathBuf,
    path: PathBuf,
}

impl Capture {
    /// Frames that this task is about.
    pub fn new(task: Task, flows: u32) -> Result<Self, String> {
        let node = Node::new();
        let directory = node.directory().join("ovs");
        std::fs::create_dir(&directory).map_err(|error| error.to_string())?;
        let path = directory.join("flows.pcap");
        std::fs::write(&path, replayed(flows, task == Task::Bridge)).map_err(|error| error.to_string())?;
        Ok(Self { task, flows, node, directory, path })
    }

    /// Nanoseconds that Open vSwitch takes for a packet, moving it included.
    pub fn through_ovs(&self) -> Result<f64, String> {
        Ok(1e9 / Replayed::start(self)?.measure()?)
    }

    /// Nanoseconds that moving a packet takes alone.
    pub fn moved(&self) -> Result<f64, String> {
        Ok(1e9 / null::testpmd_between(devices(&self.path), self.flows.max(FRAMES))?)
    }
}

fn devices(capture: &Path) -> [String; 2] {
    [format!("net_pcap0,rx_pcap={},infinite_rx=1", capture.display()), "net_null0,no-rx=1".into()]
}

struct Replayed<'a> {
    home: Home<'a>,
    _processes: (Process, Process),
}

impl<'a> Replayed<'a> {
    fn start(capture: &'a Capture) -> Result<Self, String> {
        version_of_it()?;
        let home = Home { node: &capture.node, directory: &capture.directory };
        let processes = home.serve(DAEMON, "0,1", SETTINGS)?;
        home.bridge("br0")?;
        for (port, device) in ["in0", "out0"].iter().zip(devices(&capture.path)) {
            home.vsctl(&format!(
                "add-port br0 {port} -- set interface {port} type=dpdk options:dpdk-devargs=\"{device}\""
            ))?;
            let error = home.vsctl(&format!("get interface {port} error"))?;
            if error.trim() != "[]" {
                return Err(format!("Open vSwitch's port {port}: {}", error.trim()));
            }
        }
        let there = format!("mod_dl_src:{GATEWAY},mod_dl_dst:{NEXT_HOP},dec_ttl,output:2");
        let to_there = "udp,nw_dst=11.0.0.0/8";
        match capture.task {
            // Nothing comes from there, so it is said who is.
            Task::Bridge => {
                for pair in 0..capture.flows.min(Traffic::stations_max()) {
                    home.ask(&format!("fdb/add br0 out0 0 {}", server(pair)))?;
                }
            }
            Task::Route => {
                home.rules(&format!("priority=0,actions=NORMAL\npriority=10,{to_there},actions={there}\n"))?;
            }
            Task::Police(rules) => home.rules(&stateful(&rules::blocks(rules), to_there, &there))?,
        }
        std::thread::sleep(SETTLE);
        Ok(Self { home, _processes: processes })
    }

    /// Packets a second.
    fn measure(&self) -> Result<f64, String> {
        let mut rates = Vec::new();
        for _ in 0..READINGS {
            let (before, start) = (self.packets()?, Instant::now());
            std::thread::sleep(WINDOW);
            let (after, time) = (self.packets()?, start.elapsed());
            let [came, went] = [0, 1].map(|n| (after[n] - before[n]) as f64);
            if went < FORWARDED * came {
                return Err(format!("of {came} packets Open vSwitch forwarded {went}"));
            }
            rates.push(went / time.as_secs_f64());
        }
        Ok(crate::cycles::median(rates))
    }

    /// What came in by the first port, and went out by the second.
    fn packets(&self) -> Result<[u64; 2], String> {
        let said = self.home.ask("dpctl/show -s netdev@ovs-netdev")?;
        counted(&said).ok_or_else(|| format!("Open vSwitch said: {said}"))
    }
}

/// Packets received by the port `in0`, and sent by `out0`.
fn counted(said: &str) -> Option<[u64; 2]> {
    let number = |port: &str, word: &str| {
        let of_port = said.split_once(&format!(": {port} "))?.1;
        let counted = of_port.split_once(word)?.1;
        counted.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    Some([number("in0", "RX packets:")?, number("out0", "TX packets:")?])
}

/// A capture of so many flows' packets in random order, as pcap-savefile(5) says; to the gateway, or each from station to station.
fn replayed(flows: u32, is_bridged: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4u32, 2 | 4 << 16, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    let mut order: Vec<u32> = (0..FRAMES.max(flows)).map(|n| n % flows).collect();
    let mut seed = 88_172_645_463_325_252u64;
    for at in (1..order.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(at, (seed >> 33) as usize % (at + 1));
    }
    for flow in order {
        for word in [0, 0, FRAME_LEN as u32, FRAME_LEN as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame(flow, is_bridged));
    }
    bytes
}

fn frame(flow: u32, is_bridged: bool) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    let pair = flow % Traffic::stations_max();
    let [to, from] = if is_bridged { [server(pair), client(pair)] } else { [GATEWAY, SENDER] };
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, FRAME_LEN as u8 - 14, 0, 0, 0, 0, 64, 17]);
    // The first of the rules' blocks is of 1 024 addresses and more.
    let host = flow % 1_000;
    frame[26..30].copy_from_slice(&(Ipv4Addr::new(10, 0, 0, 0).to_bits() + host).to_be_bytes());
    frame[30..34].copy_from_slice(&(Ipv4Addr::new(11, 0, 0, 0).to_bits() + host).to_be_bytes());
    let checksum = !fold(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame[34..36].copy_from_slice(&(1_024 + (flow / 1_000) as u16).to_be_bytes());
    frame[36..38].copy_from_slice(&rules::PORT.to_be_bytes());
    frame[38..40].copy_from_slice(&(FRAME_LEN as u16 - 34).to_be_bytes());
    frame
}
