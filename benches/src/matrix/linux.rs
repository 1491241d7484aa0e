//! The kernel's own bridge, router and firewall as devices under test. The sender's end of the cable is polled by a thread of
//! its own on core 1 (threaded NAPI), as the switch is, so that rows can be compared; or by the generator's core, as the
//! kernel does by itself.

use super::rig::{Cable, Rig, gateway_of};
use super::switch::NETS;
use super::task::Task;
use crate::figures::Bench;
use crate::peers::Bridge;
use crate::rules;
use std::collections::HashSet;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;
use switch_lab::{Net, Node, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Which kernel.
pub fn version() -> Result<String, String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|error| error.to_string())?;
    Ok(format!("Linux {}", release.trim()))
}

/// Which kernel, and which nftables.
pub fn nft_version() -> Result<String, String> {
    let output = std::process::Command::new("nft").arg("--version").output();
    let output = output.map_err(|error| {
        format!(
            "nft is missing ({error}); install it with `apt-get install --no-install-recommends nftables`"
        )
    })?;
    Ok(format!("{}, {}", version()?, String::from_utf8_lossy(&output.stdout).trim()))
}

/// On core 1.
pub fn own_core(bench: &Bench, task: Task) -> Result<Rig, String> {
    let rig = senders_core(bench, task)?;
    let node = rig.between.downcast_ref::<Node>().ok_or("no node")?;
    thread_of_its_own(&node.net, &rig.pods[0].device)?;
    Ok(rig)
}

/// On the sender's core.
pub fn senders_core(_: &Bench, task: Task) -> Result<Rig, String> {
    let rig = match task {
        Task::Bridge => {
            let Bridge { pods, node } = Bridge::build();
            Rig { between: Box::new(node), pods, gateway: None, cable: Cable::Veth }
        }
        Task::Route => routed(None)?,
        Task::Police(rules) => routed(Some(rules))?,
    };
    // The flood comes by the pod's device as by a driver: the other end must be able to take it.
    let node = rig.between.downcast_ref::<Node>().ok_or("no node")?;
    node.net.run(&format!("ethtool -K {} gro on", rig.pods[0].device));
    Ok(rig)
}

fn routed(rules: Option<u32>) -> Result<Rig, String> {
    let node = Node::new();
    let pods = NETS.map(|net| node.pod_on(net, 2));
    for (pod, net) in pods.iter().zip(NETS) {
        node.net.ip(&format!("addr add 10.{net}.0.1/24 dev {}", pod.device));
    }
    for set in ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"]
    {
        node.net.run(&format!("sysctl -q -w {set}"));
    }
    for pod in &pods {
        node.net.run(&format!("sysctl -q -w net/ipv4/conf/{}/rp_filter=0", pod.device));
    }
    node.net.ip(&format!("route add 11.0.0.0/8 via {}", pods[1].ip));
    if let Some(rules) = rules {
        ruleset(&node.net, rules)?;
    }
    for (pod, net) in pods.iter().zip(NETS) {
        wait_until("a pod reaches its gateway", PATIENCE, || pod.reaches(&format!("10.{net}.0.1")));
    }
    let gateway = Some(gateway_of(&pods[0], &format!("10.{}.0.1", NETS[0]))?);
    Ok(Rig { between: Box::new(node), pods, gateway, cable: Cable::Veth })
}

/// Stateful, with the blocks in a set: as somebody who cares writes it.
fn ruleset(net: &Net, rules: u32) -> Result<(), String> {
    let blocks = rules::blocks(rules).join(", ");
    let text = format!(
        "table inet peers {{
           set from {{
             type ipv4_addr; flags interval
             elements = {{ {blocks} }}
           }}
           chain forward {{
             type filter hook forward priority 0; policy drop
             ct state established,related accept
             ip saddr @from udp dport 12345 ct state new accept
           }}
         }}\n"
    );
    let mut command = net.command("nft");
    let child = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("nft: {error}"))?;
    let mut input = child.stdin.take().ok_or("nft has no input")?;
    input.write_all(text.as_bytes()).map_err(|error| format!("nft: {error}"))?;
    drop(input);
    let output = child.wait_with_output().map_err(|error| format!("nft: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Has a device polled by a kernel thread of its own, on core 1 (Documentation/networking/napi.rst).
fn thread_of_its_own(net: &Net, device: &str) -> Result<(), String> {
    let before = pollers(device);
    // `ip netns exec` and not `nsenter`: /sys shows the devices of the namespace it was mounted in.
    let line = format!("echo 1 > /sys/class/net/{device}/threaded");
    switch_lab::net::run("ip", &["netns", "exec", net.name(), "sh", "-c", &line]);
    let new: Vec<u32> = pollers(device).difference(&before).copied().collect();
    let [pid] = new[..] else { return Err(format!("{device} has {} new pollers", new.len())) };
    switch_lab::net::run("taskset", &["-c", "-p", "1", &pid.to_string()]);
    Ok(())
}

/// Threads that poll devices of such a name, in whatever namespace. The kernel cuts their names off.
fn pollers(device: &str) -> HashSet<u32> {
    let prefix: String = format!("napi/{device}").chars().take(15).collect();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.starts_with(&prefix))
    })
    .collect()
}
