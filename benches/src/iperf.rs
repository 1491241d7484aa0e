//! `iperf3` between two pods, and two pairs of pods held against each other.

use crate::cycles::median;
use std::time::Duration;
use switch_lab::net::Background;
use switch_lab::{Pod, wait_until};

/// How long a server may take to listen, and a device to appear.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Of one run.
pub const SECONDS: u32 = 2;
/// Runs of each side: together as long as one of ten seconds, and what the machine does meanwhile is done to both.
pub const ROUNDS: usize = 5;

/// What is carried.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections at once.
    pub streams: u32,
    /// Over IPv6.
    pub ipv6: bool,
    /// From the second pod to the first.
    pub reverse: bool,
    /// Core of the server; the client has core 0.
    pub server_core: u32,
}

impl Default for Load {
    fn default() -> Self {
        Self { streams: 1, ipv6: false, reverse: false, server_core: 0 }
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        write!(f, "{family} × {}", self.streams)?;
        f.write_str(if self.reverse { ", reverse" } else { "" })?;
        f.write_str(if self.server_core == 0 { "" } else { ", server on core 1" })
    }
}

/// What arrived.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Gb/s.
    pub gbps: f64,
    /// Payload.
    pub bytes: f64,
}

/// One run from the first pod to the second.
pub fn run(pods: &[Pod; 2], load: &Load) -> Result<Carried, String> {
    let _server: Background = pods[1].net.spawn(&format!("taskset -c {} iperf3 -s -1", load.server_core));
    let listens = || !pods[1].net.run("ss -Hltn sport = :5201").trim().is_empty();
    wait_until("iperf3 listens", PATIENCE, listens);
    let address = if load.ipv6 { "fd66::2" } else { &pods[1].ip };
    let reverse = if load.reverse { "-R" } else { "" };
    let line = format!("taskset -c 0 iperf3 -J -c {address} -t {SECONDS} -P {} {reverse}", load.streams);
    let said = pods[0].net.try_run(&line);
    let answer: serde_json::Value =
        serde_json::from_slice(&said.stdout).map_err(|error| format!("iperf3: {error}"))?;
    let sum = &answer["end"]["sum_received"];
    match (sum["bits_per_second"].as_f64(), sum["bytes"].as_f64()) {
        (Some(rate), Some(bytes)) => Ok(Carried { gbps: rate / 1e9, bytes }),
        _ => Err(format!("iperf3, {load}: {}", answer["error"])),
    }
}

/// Two sides under the same load, in turn.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Median of the rounds' ratios.
    pub ratio: f64,
    /// Gb/s, median.
    pub ours: f64,
    /// Gb/s, median.
    pub theirs: f64,
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:.1} against {:.1} = {:.2}", self.ours, self.theirs, self.ratio)
    }
}

/// Runs both in turn.
pub fn compare(ours: &[Pod; 2], theirs: &[Pod; 2], load: &Load) -> Result<Compared, String> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        rounds.push((run(ours, load)?.gbps, run(theirs, load)?.gbps));
    }
    let middle = |of: fn(&(f64, f64)) -> f64| median(rounds.iter().map(of).collect());
    Ok(Compared { ratio: middle(|(a, b)| a / b), ours: middle(|(a, _)| *a), theirs: middle(|(_, b)| *b) })
}
