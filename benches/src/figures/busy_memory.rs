//! [busy-memory] A small node, busy: 30 pods, 100 000 flows, TCP and floods, with the daemon in a memory cgroup of
//! 128 MiB. What counts is that nothing is killed and nothing stands still.

use super::{Bench, Figure, Held};
use crate::iperf::PATIENCE;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
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
/// How long a sender or receiver waits before it looks whether it should end.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Of streams and floods.
const SINK_PORT: u16 = 9000;

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("kills and still seconds", 0.0);

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
    // TCP from tap to tap and from xdp to tap; a flood of full frames into each kind.
    let pairs = [(0, 1), (last, 3), (4, 5), (last - 1, last - 2)];
    let streams: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(n, (from, to))| Stream::start(&pods[*from], &pods[*to], n < 2, &load.stop))
        .collect::<Result<_, _>>()?;
    let progress = || streams.iter().map(Stream::arrived).collect::<Vec<_>>();
    wait_until("everything flows", PATIENCE, || progress().iter().all(|bytes| *bytes > 0));

    let (mut stills, mut slowest, mut before) = ([0; 4], Duration::ZERO, progress());
    let start = before.clone();
    for _ in 0..SECONDS {
        std::thread::sleep(Duration::from_secs(1));
        let asked = Instant::now();
        daemon.stats();
        slowest = slowest.max(asked.elapsed());
        let now = progress();
        for (still, (now, before)) in stills.iter_mut().zip(now.iter().zip(&before)) {
            *still += u64::from(now == before);
        }
        before = now;
    }
    let still: u64 = stills.iter().sum();
    let carried: Vec<_> =
        before.iter().zip(start).map(|(now, start)| format!("{}", (now - start) >> 20)).collect();
    let (sent, flows) = load.end();
    streams.into_iter().for_each(Stream::end);
    daemon.assert_conserved();
    let memory = daemon.call::<Status>(&Request::Status(Default::default())).memory;
    let (kills, peak) = cgroup.outcome()?;
    let mut lost = std::collections::BTreeMap::<_, u64>::new();
    daemon.stats().drops.into_iter().for_each(|drop| *lost.entry(drop.reason).or_default() += drop.frames);
    daemon.stop(true);
    let detail = format!(
        "OOM kills ({kills}) and seconds in which a receiver of TCP or of a flood got nothing ({stills:?}), over {SECONDS} s; {PODS} \
         pods ({XDP_PODS} xdp), {flows} UDP flows ({sent} datagrams), and of two TCP streams and two UDP \
         floods {} MiB arrived; the cgroup's peak {} MiB of {}; by the switch's books {} of {} MiB ({WORDS}); the daemon answered in at most {} ms; dropped: {}",
        carried.join(", "),
        peak >> 20,
        LIMIT_BYTES >> 20,
        memory.used_bytes >> 20,
        memory.ceiling_bytes >> 20,
        slowest.as_millis(),
        lost.iter().map(|(reason, frames)| format!("{frames} {reason}")).collect::<Vec<_>>().join(", "),
    );
    let value = (kills + still) as f64;
    let figure = Figure::new("busy-memory", value, HELD, detail);
    Ok(figure.only_if(flows >= 100_000 && memory.used_bytes <= memory.ceiling_bytes))
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

/// A TCP stream, or a flood of full UDP frames, and what arrived of it.
struct Stream {
    arrived: Arc<AtomicU64>,
    threads: [JoinHandle<()>; 2],
}

impl Stream {
    fn start(from: &Pod, to: &Pod, is_tcp: bool, stop: &Arc<AtomicBool>) -> Result<Self, String> {
        let arrived = Arc::new(AtomicU64::new(0));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (counter, until, address) = (arrived.clone(), stop.clone(), to.ip.clone());
        let receiver = to.net.inside(move || {
            let received = if is_tcp {
                receive_tcp(&ready, &counter, &until)
            } else {
                receive_udp(&ready, &counter, &until)
            };
            // A stream that ended early stands still, which is what is counted.
            _ = received;
        });
        is_ready.recv_timeout(PATIENCE).map_err(|_| "a receiver did not start")?;
        let until = stop.clone();
        let sender = from.net.inside(move || {
            let sent = if is_tcp { send_tcp(&address, &until) } else { send_udp(&address, &until) };
            _ = sent;
        });
        Ok(Self { arrived, threads: [receiver, sender] })
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    fn end(self) {
        self.threads.into_iter().for_each(|thread| _ = thread.join());
    }
}

fn receive_tcp(ready: &Sender<()>, counter: &AtomicU64, stop: &AtomicBool) -> std::io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", SINK_PORT))?;
    _ = ready.send(());
    let (mut stream, mut buffer) = (listener.accept()?.0, vec![0; 1 << 16]);
    stream.set_read_timeout(Some(LOOK_UP))?;
    while !stop.load(Relaxed) {
        counter.fetch_add(stream.read(&mut buffer).unwrap_or(0) as u64, Relaxed);
    }
    Ok(())
}

fn send_tcp(to: &str, stop: &AtomicBool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((to, SINK_PORT))?;
    stream.set_write_timeout(Some(LOOK_UP))?;
    while !stop.load(Relaxed) {
        // A stream that takes nothing for a while is tried again: whether it stands still is seen at its other end.
        _ = stream.write(&[0; 1 << 16]);
    }
    Ok(())
}

fn receive_udp(ready: &Sender<()>, counter: &AtomicU64, stop: &AtomicBool) -> std::io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", SINK_PORT))?;
    socket.set_read_timeout(Some(LOOK_UP))?;
    _ = ready.send(());
    let mut buffer = [0; 2048];
    while !stop.load(Relaxed) {
        // Nothing for a while is no end.
        counter.fetch_add(socket.recv(&mut buffer).unwrap_or(0) as u64, Relaxed);
    }
    Ok(())
}

fn send_udp(to: &str, stop: &AtomicBool) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    while !stop.load(Relaxed) {
        _ = socket.send_to(&[0; 1472], (to, SINK_PORT));
    }
    Ok(())
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
