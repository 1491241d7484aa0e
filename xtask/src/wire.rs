//! The emulated machine's fourth cable, between a NIC of several queues and another: two TAP devices on a bridge, for QEMU's
//! hubs have one queue. All of it in a network namespace of its own, in which the machine is started.
//!
//! Nothing here looks at what a virtio-net driver says in front of a frame (`vnet_hdr=off`), as hubs do not either: what AF_XDP sends with zero-copy
//! by a driver that is a module has whatever lies somewhere in memory there, another thing after each boot, and a TAP refuses what makes no
//! sense (docs/guide/limits.md).

use crate::sh::{Result, run};
use std::process::Command;

/// Queues of the NIC: one for each of the machine's processors.
const QUEUES: u32 = 2;

/// The cable, and its namespace. Both go with it.
pub struct Wire(String);

impl Wire {
    /// Lays one.
    pub fn lay() -> Result<Self> {
        let name = format!("switch-wire-{}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let wire = Self(name);
        wire.ip("link add wire type bridge")?;
        wire.ip("link set wire up")?;
        for (tap, kind) in [("near", " multi_queue"), ("far", "")] {
            wire.ip(&format!("tuntap add {tap} mode tap{kind}"))?;
            wire.ip(&format!("link set {tap} master wire up"))?;
        }
        Ok(wire)
    }

    /// A program that is started at the cable.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg(program);
        command
    }

    /// What QEMU is told of it.
    pub fn words(&self) -> Vec<String> {
        let tap = |id: &str, more: String| {
            format!("tap,id={id},ifname={id},script=no,downscript=no,vhost=off,vnet_hdr=off{more}")
        };
        let nic = |id: &str, end: u8, more: String| {
            format!("virtio-net-pci,romfile=,netdev={id},mac=52:54:00:00:0{end}:04{more}")
        };
        let several = format!(",mq=on,vectors={},iommu_platform=on,disable-legacy=on", 2 * QUEUES + 2);
        [
            ["-netdev".into(), tap("near", format!(",queues={QUEUES}"))],
            ["-device".into(), nic("near", 0, several)],
            ["-netdev".into(), tap("far", String::new())],
            ["-device".into(), nic("far", 1, String::new())],
        ]
        .concat()
    }

    fn ip(&self, words: &str) -> Result {
        ip(&format!("-n {} {words}", self.0))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        _ = ip(&format!("netns del {}", self.0));
    }
}

fn ip(words: &str) -> Result {
    let mut command = Command::new("ip");
    command.args(words.split_whitespace());
    run(command)
}
