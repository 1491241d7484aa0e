//! [busy-memory] A small node, busy: 30 pods, 100 000 flows, TCP and floods, with the daemon in a memory cgroup of
//! 128 MiB. What counts is that nothing is killed and nothing stands still.

use super::{Bar, Bench, Figure};
use crate::iperf::PATIENCE;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use switch_api::{PortSettings, Request, Status};
use switch_lab::{Node, Options, Pod, wait_until};

/// Of which the last third are AF_XDP.
const PODS: u8 = 30;
const XDP_PODS: u8 = 10;
const LIMIT_BYTES: u64 = 128 << 20;
/// Leaves room in the cgroup for the program itself.
const WORDS: &str = "--memory 112M";
const SECONDS: u32 = 20;
/// Each pod's sockets, and the ports it sends to by each: 30 · 58 · 58 are 100 920 flows.
const SIDE: u16 = 58;
const FIRST_PORT: u16 = 20_000;

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let cgroup = Cgroup::new()?;
    let mut options = Options::new(&bench.switchd).with(WORDS);
    options.through = cgroup.start_in();
    let mut daemon = node.start(&options);
    daemon.bridge("br0");
    let pods: Vec<_> =
        (1..=PODS).map(|n| if n > PODS - XDP_PODS { node.pod(n) } else { node.bare_pod(n) }).collect();
    for (n, pod) in pods.iter().enumerate() {
        let attach = if n >= usize::from(PODS - XDP_PODS) {
            switch_lab::Daemon::attach
        } else {
            switch_lab::Daemon::attach_tap
        };
        attach(&daemon, pod, "br0", PortSettings::default());
    }
    let last = usize::from(PODS) - 1;
    wait_until("ping", PATIENCE, || pods[0].reaches(&pods[1].ip) && pods[last].reaches(&pods[0].ip));

    let load = Load::start(&pods);
    // TCP among tap pods, and from an xdp pod to a tap pod; a flood of full frames into each kind.
    let _servers: Vec<_> = [1, 3].map(|n: usize| pods[n].net.spawn("iperf3 -s")).into();
    for n in [1, 3] {
        wait_until("iperf3 listens", PATIENCE, || {
            !pods[n].net.run("ss -Hltn sport = :5201").trim().is_empty()
        });
    }
    let line = |to: usize| format!("iperf3 -c {} -t {} -i 0", pods[to].ip, SECONDS + 5);
    let mut clients = [pods[0].net.spawn(&line(1)), pods[last].net.spawn(&line(3))];
    let floods = [flood(&pods[4], &pods[5], &load.stop), flood(&pods[last - 1], &pods[last - 2], &load.stop)];
    std::thread::sleep(Duration::from_secs(2));

    let progress = || [1usize, 3, 5].map(|n| daemon.port(&pods[n].device).counters.tx_packets);
    let (mut still, mut slowest, mut before) = (0, Duration::ZERO, progress());
    let start = before;
    for _ in 0..SECONDS {
        std::thread::sleep(Duration::from_secs(1));
        let asked = Instant::now();
        let now = progress();
        slowest = slowest.max(asked.elapsed() / 3);
        still += now.iter().zip(before).filter(|(now, before)| **now == *before).count();
        before = now;
    }
    let carried: u64 = before.iter().zip(start).map(|(now, start)| now - start).sum();
    let tcp_goes_on = clients.iter_mut().all(|client| client.is_running());
    let (sent, flows) = load.end();
    floods.into_iter().for_each(|flood| _ = flood.join());
    daemon.assert_conserved();
    let memory = daemon.call::<Status>(&Request::Status(Default::default())).memory;
    let (kills, peak) = cgroup.outcome()?;
    daemon.stop(true);
    let detail = format!(
        "OOM kills ({kills}) and seconds in which a receiver of TCP or of a flood got nothing ({still}), over {SECONDS} s; {PODS} \
         pods ({XDP_PODS} xdp), {flows} UDP flows ({sent} datagrams), two TCP streams, two floods: {carried} frames to their receivers; the \
         cgroup's peak {} MiB of {}; by the switch's books {} of {} MiB ({WORDS}); the daemon answered in at most {} ms",
        peak >> 20,
        LIMIT_BYTES >> 20,
        memory.used_bytes >> 20,
        memory.ceiling_bytes >> 20,
        slowest.as_millis(),
    );
    let value = (kills + still as u64) as f64;
    let figure = Figure::new("busy-memory", value, "kills and still seconds", Bar::AtMost, 0.0, detail);
    Ok(figure.only_if(tcp_goes_on && flows >= 100_000 && memory.used_bytes <= memory.ceiling_bytes))
}

/// Many flows: every pod sends to the next one, by each of its sockets to each of its ports in turn.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    senders: Vec<JoinHandle<u64>>,
}

impl Load {
    fn start(pods: &[Pod]) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let next = pods.iter().cycle().skip(1).map(|pod| pod.ip.clone());
        let senders = pods.iter().zip(next).map(|(pod, to)| {
            let (stop, sent) = (stop.clone(), sent.clone());
            pod.net.inside(move || many_flows(&to, &stop, &sent))
        });
        let senders = senders.collect();
        Self { stop, sent, senders }
    }

    /// Datagrams and flows.
    fn end(self) -> (u64, u64) {
        self.stop.store(true, Relaxed);
        let flows = self.senders.into_iter().map(|sender| sender.join().unwrap_or(0)).sum();
        (self.sent.load(Relaxed), flows)
    }
}

/// How many flows it sent something on.
fn many_flows(to: &str, stop: &AtomicBool, sent: &AtomicU64) -> u64 {
    let sockets: Vec<_> = (0..SIDE).filter_map(|_| UdpSocket::bind("0.0.0.0:0").ok()).collect();
    let mut flows = 0;
    for round in 0.. {
        for port in FIRST_PORT..FIRST_PORT + SIDE {
            if stop.load(Relaxed) {
                return flows;
            }
            // Whether a datagram was taken or not: what the far end refuses comes back as an error here.
            let taken =
                sockets.iter().filter(|socket| socket.send_to(&[0; 100], (to, port)).is_ok()).count() as u64;
            sent.fetch_add(taken, Relaxed);
            flows += if round == 0 { taken } else { 0 };
            // All of them once in three seconds.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    flows
}

/// Full frames as fast as the pod can.
fn flood(from: &Pod, to: &Pod, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (to, stop) = (to.ip.clone(), stop.clone());
    from.net.inside(move || {
        let Ok(socket) = UdpSocket::bind("0.0.0.0:0") else { return };
        while !stop.load(Relaxed) {
            _ = socket.send_to(&[0; 1472], (to.as_str(), 9));
        }
    })
}

/// A memory cgroup, of version 2 or 1 as the machine has it, that goes with this value.
struct Cgroup {
    path: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    fn new() -> Result<Self, String> {
        let v2 = PathBuf::from("/sys/fs/cgroup");
        let controllers = std::fs::read_to_string(v2.join("cgroup.controllers")).unwrap_or_default();
        let is_v2 = controllers.split_whitespace().any(|name| name == "memory");
        let base = if is_v2 { v2.clone() } else { v2.join("memory") };
        if is_v2 {
            std::fs::write(v2.join("cgroup.subtree_control"), "+memory")
                .map_err(|error| error.to_string())?;
        }
        let path = base.join(format!("switch-figure-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let limit = if is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        std::fs::write(path.join(limit), LIMIT_BYTES.to_string())
            .map_err(|error| format!("{limit}: {error}"))?;
        Ok(Self { path, is_v2 })
    }

    /// The words that start a program in it, so that all of its memory is counted.
    fn start_in(&self) -> Vec<String> {
        let script = format!("echo $$ > {} && exec \"$@\"", self.path.join("cgroup.procs").display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).into()
    }

    /// OOM kills, and the most memory that was in use.
    fn outcome(&self) -> Result<(u64, u64), String> {
        let (events, peak) = if self.is_v2 {
            ("memory.events", "memory.peak")
        } else {
            ("memory.oom_control", "memory.max_usage_in_bytes")
        };
        let read = |name: &str| {
            std::fs::read_to_string(self.path.join(name)).map_err(|error| format!("{name}: {error}"))
        };
        let kills =
            read(events)?.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        let peak = read(peak)?.trim().parse().map_err(|error| format!("{peak}: {error}"))?;
        Ok((kills.ok_or("the kernel does not count OOM kills")?, peak))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It is empty once the daemon is gone, which was declared later.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
