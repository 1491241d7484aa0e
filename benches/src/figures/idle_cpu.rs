//! [idle-cpu] Idle costs nothing, and the first frame after idle does not wait for it.
//!
//! A frame crosses two cores: the sender's wakes the worker's, whose kernel hands it to the receiver. What a machine
//! takes to wake a thread on an idle core is none of the switch's, so a bare thread is woken in turn with it and
//! both are shown, with how many of each took longer than the bar. What is held against the bar is the frame as it
//! is: a virtual machine whose bare thread does not hold it does not hold it.

use super::{Bar, Bench, Figure};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use switch_api::PortSettings;
use switch_lab::frames::{has_mark, plain};
use switch_lab::{Daemon, Node, Options, RawSocket};

const PORTS: u8 = 8;
const SECONDS: u64 = 10;
const BAR_PERCENT: f64 = 1.0;
const FIRST_FRAMES: usize = 500;
const P99_US_MAX: f64 = 200.0;
/// Before each first frame.
const IDLE: Duration = Duration::from_millis(15);

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
    let open = |pod: &switch_lab::Pod| RawSocket::open(&pod.net, "eth0").map_err(|error| error.to_string());
    let (sender, receiver) = (open(&pods[0])?, open(&pods[1])?);
    let (from, to) = (pods[0].mac(), pods[1].mac());
    receiver.send(&plain(from, to, 0, 60));
    std::thread::sleep(Duration::from_millis(100));
    let bare = BareThread::new()?;
    let (mut latencies, mut bare_latencies) = (Vec::new(), Vec::new());
    for n in 0..FIRST_FRAMES {
        // Long enough that the worker is asleep again.
        std::thread::sleep(IDLE);
        let mark = (n % 251) as u8;
        let start = Instant::now();
        sender.send(&plain(to, from, mark, 60));
        receiver
            .spin(Duration::from_secs(1), |frame| has_mark(frame, mark))
            .ok_or("a frame did not arrive")?;
        latencies.push(start.elapsed().as_nanos() as f64 / 1000.0);
        // In turn, so that whatever the machine does at the time is done to both.
        std::thread::sleep(IDLE);
        bare_latencies.push(bare.wake_up()?);
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
         times; for comparison, a bare thread on the worker's core wakes from a pipe, in turn, in p50 {bare_p50:.0} µs, \
         p99 {bare_p99:.0} µs, {bare_late} times later than the bar; p99 is {:.1} times the bare thread's",
        p99 / bare_p99
    );
    let figure = Figure::new("idle-cpu", percent, "% of a core", Bar::AtMost, BAR_PERCENT, detail);
    Ok(figure.only_if(p99 <= P99_US_MAX && sleeps > FIRST_FRAMES as u64))
}

/// Median and 99th percentile.
fn quantiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() * 99 / 100])
}

/// A thread that sleeps on the worker's core, with nothing of ours between: what this machine takes to wake it.
struct BareThread {
    bell: std::io::PipeWriter,
    woken: Arc<AtomicUsize>,
}

impl BareThread {
    fn new() -> Result<Self, String> {
        let (mut reader, bell) = std::io::pipe().map_err(|error| error.to_string())?;
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        // It ends with the other end of its pipe.
        std::thread::spawn(move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
            while reader.read(&mut [0]).is_ok_and(|n| n > 0) {
                counter.fetch_add(1, Ordering::Release);
            }
        });
        Ok(Self { bell, woken })
    }

    /// Rings; microseconds until it runs.
    fn wake_up(&self) -> Result<f64, String> {
        let before = self.woken.load(Ordering::Acquire);
        let start = Instant::now();
        (&self.bell).write_all(&[1]).map_err(|error| error.to_string())?;
        while self.woken.load(Ordering::Acquire) == before {
            std::hint::spin_loop();
        }
        Ok(start.elapsed().as_nanos() as f64 / 1000.0)
    }
}

/// What the daemon takes of a core, measured for a while from now.
pub(super) fn cpu_percent(daemon: &Daemon) -> f64 {
    let before = cpu_ticks(daemon);
    std::thread::sleep(Duration::from_secs(SECONDS));
    let ticks_a_second = rustix::param::clock_ticks_per_second() as f64;
    (cpu_ticks(daemon) - before) as f64 / ticks_a_second / SECONDS as f64 * 100.0
}

/// User and system time of the daemon, all threads, in clock ticks (proc_pid_stat(5), fields 14 and 15).
fn cpu_ticks(daemon: &Daemon) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap_or_default();
    // The second field is a name in parentheses that may contain blanks.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |n: usize| fields.get(n - 3).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    field(14) + field(15)
}
