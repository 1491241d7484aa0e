//! The registry of devices under test: the switch, and what a user would run instead.

use super::rig::{Cable, Rig};
use super::task::{Task, Traffic};
use super::{linux, switch};
use crate::figures::Bench;
use crate::peers::{Kind, Ovs, Testpmd, ovs, testpmd};
use crate::rules;
use switch_api::Mac;

/// One of them.
pub struct Device {
    /// What it is called in tables.
    pub name: &'static str,
    /// How it is set up, in words.
    pub configuration: &'static str,
    /// Which core does its work.
    pub core: usize,
    /// What it calls itself, or how it can be had.
    pub version: fn() -> Result<String, String>,
    /// Whether it does this.
    pub does: fn(Task) -> bool,
    /// Builds it.
    pub build: fn(&Bench, Task) -> Result<Rig, String>,
    /// Its packets a second as a multiple of testpmd's, with small frames, as measured elsewhere on this kind of machine. Who is far
    /// below that is not set up as it should be.
    pub usual: fn(Task, u32) -> Option<f64>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The switch's name: what all others are held against.
pub const SWITCH: &str = "switch, xdp ports";
/// The name of what moves frames and does nothing else.
pub const TESTPMD: &str = "testpmd, io";
/// Open vSwitch over the same kind of ports.
pub const OVS_XDP: &str = "OVS, AF_XDP ports";
/// Mpps of testpmd, `io` mode, to which the others' usual ratios are.
const TESTPMD_MPPS: f64 = 1.61;
/// Below this part of its usual ratio a peer is taken to be set up wrong.
pub const TUNED: f64 = 0.8;

/// All of them, the switch first.
pub const ALL: &[Device] = &[
    Device {
        name: SWITCH,
        configuration: "default configuration, one worker on core 1",
        core: 1,
        version: || Ok(format!("this tree, {}", env!("CARGO_PKG_VERSION"))),
        does: |_| true,
        build: switch::xdp,
        usual: |_, _| None,
    },
    Device {
        name: "switch, tap ports",
        configuration: "default configuration, one worker on core 1",
        core: 1,
        version: || Ok(format!("this tree, {}", env!("CARGO_PKG_VERSION"))),
        does: |task| task == Task::Bridge,
        build: switch::tap,
        usual: |_, _| None,
    },
    Device {
        name: TESTPMD,
        configuration: testpmd::CONFIGURATION,
        core: 1,
        version: Testpmd::version,
        does: |_| true,
        build: through_testpmd,
        usual: |_, _| None,
    },
    Device {
        name: "Linux bridge",
        configuration: "veth, sender's end with GRO and threaded NAPI on core 1, defaults otherwise",
        core: 1,
        version: linux::version,
        does: |task| task == Task::Bridge,
        build: linux::own_core,
        usual: |_, _| Some(1.07 / TESTPMD_MPPS),
    },
    Device {
        name: "Linux bridge, sender's core",
        configuration: "veth, sender's end with GRO, on core 0 together with the generator, defaults otherwise",
        core: 0,
        version: linux::version,
        does: |task| task == Task::Bridge,
        build: linux::senders_core,
        usual: |_, _| Some(1.63 / TESTPMD_MPPS),
    },
    Device {
        name: "Linux routing",
        configuration: "veth, sender's end with GRO and threaded NAPI on core 1, defaults otherwise",
        core: 1,
        version: linux::version,
        does: |task| task == Task::Route,
        build: linux::own_core,
        usual: |_, _| Some(1.45 / TESTPMD_MPPS),
    },
    Device {
        name: "nftables",
        configuration: "as Linux routing; connection tracking, established first, the rules' blocks in one interval set",
        core: 1,
        version: linux::nft_version,
        does: |task| matches!(task, Task::Police(_)),
        build: linux::own_core,
        usual: |_, flows| Some(if flows < 100_000 { 0.77 } else { 0.63 } / TESTPMD_MPPS),
    },
    Device {
        name: OVS_XDP,
        configuration: "userspace datapath, type=afxdp on veth, one PMD thread on core 1; L2 NORMAL, else OpenFlow with dec_ttl and ct",
        core: 1,
        version: Ovs::version,
        does: |_| true,
        build: ovs_xdp,
        usual: |task, flows| match task {
            Task::Bridge => Some(1.27 / TESTPMD_MPPS),
            Task::Police(_) if flows == 1 => Some(1.12 / TESTPMD_MPPS),
            _ => None,
        },
    },
    Device {
        name: "OVS, tap ports",
        configuration: "userspace datapath, internal ports, its main thread on core 1; L2 NORMAL",
        core: 1,
        version: Ovs::version,
        does: |task| task == Task::Bridge,
        build: ovs_tap,
        usual: |_, _| None,
    },
];

/// It passes frames on unseen: to it every task is the same, and nothing is routed.
fn through_testpmd(_: &Bench, _: Task) -> Result<Rig, String> {
    let (between, pods) = Testpmd::start()?.apart();
    Ok(Rig { between: Box::new(between), pods, gateway: None, cable: Cable::Veth })
}

fn ovs_tap(_: &Bench, _: Task) -> Result<Rig, String> {
    let (between, pods) = Ovs::start(Kind::Tap)?.apart();
    Ok(Rig { between: Box::new(between), pods, gateway: None, cable: Cable::Tap })
}

/// Open vSwitch, its userspace datapath, over AF_XDP.
pub fn ovs_xdp(_: &Bench, task: Task) -> Result<Rig, String> {
    let ovs = Ovs::start(Kind::Xdp)?;
    let gateway = Mac([0x02, 0x0a, 0, 0, 0, 1]);
    let there = format!(
        "mod_dl_src:{gateway},mod_dl_dst:{},dec_ttl,output:{}",
        ovs.pods[1].mac(),
        // Ports are numbered as they were added.
        2
    );
    let to_there = "udp,nw_dst=11.0.0.0/8";
    match task {
        Task::Bridge => {}
        Task::Route => {
            ovs.rules(&format!("priority=0,actions=NORMAL\npriority=10,{to_there},actions={there}\n"))?;
        }
        Task::Police(count) => {
            ovs.rules(&ovs::stateful(&rules::blocks(count), to_there, &there))?;
        }
    }
    let gateway = (task != Task::Bridge).then_some(gateway);
    let (between, pods) = ovs.apart();
    Ok(Rig { between: Box::new(between), pods, gateway, cable: Cable::Veth })
}

impl Device {
    /// Whether so many packets a second are what it should reach beside this testpmd; true where nothing is known.
    pub fn is_tuned(&self, task: Task, traffic: Traffic, times_testpmd: f64) -> bool {
        traffic.size != super::task::Size::Small
            || (self.usual)(task, traffic.flows).is_none_or(|usual| times_testpmd >= TUNED * usual)
    }
}
