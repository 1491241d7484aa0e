//! [idle-cpu] Idle costs nothing, and the first frame after idle does not wait for it.
//!
//! A frame crosses two cores: the sender's wakes the worker's, whose kernel hands it to the receiver. What the machine
//! and the kernel take for that is none of the switch's, so a bare thread on the worker's core does the same in turn
//! with it (a blocking `recv`, a `send`, packet sockets on the same kind of cables, nothing else) and both are shown,
//! with how many of each took longer than the bar. What is held against the bar is the switch's frame as it is: a
//! virtual machine whose bare thread does not hold it does not hold it.

use super::{Bench, Figure, Held};
use rustix::net::{RecvFlags, SendFlags};
use std::time::{Duration, Instant};
use switch_api::{Mac, PortSettings};
use switch_lab::frames::{has_mark, plain};
use switch_lab::{Daemon, Node, Options, Pod, RawSocket};

const PORTS: u8 = 8;
const SECONDS: u64 = 10;
const BAR_PERCENT: f64 = 1.0;
/// Of so many, eight may be late.
const FIRST_FRAMES: usize = 800;
const P99_US_MAX: f64 = 200.0;
/// Before each first frame.
const IDLE: Duration = Duration::from_millis(15);

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("% of a core", BAR_PERCENT);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let mut daemon = node.start(&Options::new(&bench.switchd));
    daemon.bridge("br0");
    let pods: Vec<_> = (1..=PORTS).map(|n| node.pod(n)).collect();
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    // The pods' kernels announce themselves for a while.
    std::thread::sleep(Duration::from_secs(3));
    let percent = cpu_percent(&daemon);

    // From here on this thread is the pods; the last core is the switch's. Not before: a daemon inherits it.
    core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
    let switched = Path::new(&pods[0], &pods[usize::from(PORTS) - 1])?;
    switched.announce();
    let bare_pods = [node.pod(PORTS + 1), node.pod(PORTS + 2)];
    forward_barely(&node, &bare_pods)?;
    let bare = Path::new(&bare_pods[0], &bare_pods[1])?;
    std::thread::sleep(Duration::from_secs(3));
    let (mut latencies, mut bare_latencies) = (Vec::new(), Vec::new());
    for n in 0..FIRST_FRAMES {
        // In turn, so that whatever the machine does at the time is done to both.
        let mark = (n % 251) as u8;
        latencies.push(switched.first_frame(mark)?);
        bare_latencies.push(bare.first_frame(mark)?);
    }
    let late = |latencies: &[f64]| latencies.iter().filter(|us| **us > P99_US_MAX).count();
    let (frames_late, bare_late) = (late(&latencies), late(&bare_latencies));
    let (p50, p99) = quantiles(latencies);
    let (bare_p50, bare_p99) = quantiles(bare_latencies);
    let slept =
        daemon.call::<Vec<switch_api::WorkerStatus>>(&switch_api::Request::WorkerList(Default::default()));
    let sleeps: u64 = slept.iter().map(|worker| worker.sleeps).sum();
    daemon.stop(true);
    let detail = format!(
        "{PORTS} ports, {SECONDS} s; first frame after 15 ms of idle, pod to pod: p50 {p50:.0} µs, p99 {p99:.0} µs \
         (bar {P99_US_MAX}), {FIRST_FRAMES} times, {frames_late} of them later than the bar; the worker slept {sleeps} \
         times; in turn with it a bare thread on the worker's core that does recv and send alone: p50 {bare_p50:.0} µs, p99 \
         {bare_p99:.0} µs, {bare_late} times later than the bar; the switch's are {:.2} and {:.2} times that",
        p50 / bare_p50,
        p99 / bare_p99
    );
    let figure = Figure::new("idle-cpu", percent, HELD, detail);
    Ok(figure.only_if(p99 <= P99_US_MAX && sleeps > FIRST_FRAMES as u64))
}

/// Median and 99th percentile.
fn quantiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() * 99 / 100])
}

/// From one pod to another.
struct Path {
    sender: RawSocket,
    receiver: RawSocket,
    from: Mac,
    to: Mac,
}

impl Path {
    fn new(from: &Pod, to: &Pod) -> Result<Self, String> {
        let open = |pod: &Pod| RawSocket::open(&pod.net, "eth0").map_err(|error| error.to_string());
        Ok(Self { sender: open(from)?, receiver: open(to)?, from: from.mac(), to: to.mac() })
    }

    /// The receiver says where it is.
    fn announce(&self) {
        self.receiver.send(&plain(self.from, self.to, 0, 60));
    }

    /// Waits until who forwards is asleep again, sends; microseconds until it arrives.
    fn first_frame(&self, mark: u8) -> Result<f64, String> {
        std::thread::sleep(IDLE);
        let start = Instant::now();
        self.sender.send(&plain(self.to, self.from, mark, 60));
        self.receiver
            .spin(Duration::from_secs(1), |frame| has_mark(frame, mark))
            .ok_or("a frame did not arrive")?;
        Ok(start.elapsed().as_nanos() as f64 / 1000.0)
    }
}

/// A thread on the worker's core, with nothing of ours, that sends on what the first pod sends to the second.
fn forward_barely(node: &Node, pods: &[Pod; 2]) -> Result<(), String> {
    let open = |pod: &Pod| RawSocket::open(&node.net, &pod.device).map_err(|error| error.to_string());
    let (from, to) = (open(&pods[0])?, open(&pods[1])?);
    // It ends with the cable.
    std::thread::spawn(move || {
        core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
        let mut buffer = [0; 2048];
        while let Ok((length, _)) = rustix::net::recv(&from, &mut buffer[..], RecvFlags::empty()) {
            _ = rustix::net::send(&to, &buffer[..length], SendFlags::empty());
        }
    });
    Ok(())
}

/// What the daemon takes of a core, measured for a while from now.
pub(super) fn cpu_percent(daemon: &Daemon) -> f64 {
    let before = daemon.cpu_time();
    std::thread::sleep(Duration::from_secs(SECONDS));
    (daemon.cpu_time() - before).as_secs_f64() / SECONDS as f64 * 100.0
}
