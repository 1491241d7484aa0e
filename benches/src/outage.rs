//! How long pods are cut off: every one is probed all the time, and the longest silence counts. TCP connections go on beside it.
//!
//! A probe a millisecond to each of 100 pods is 100 000 round trips a second, which two cores with everything else cannot make: each
//! pod is probed every [`PROBE_MS`] milliseconds, one after the other, there and back. Beside that each may say a thousand times a
//! second that it is there ([`crate::beacons`]): an outage is known to a millisecond then.

use crate::beacons::Beacons;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

/// Between two probes of one pod: with 100 of them 5 000 a second in all.
pub const PROBE_MS: u64 = 20;
const PORT: u16 = 7300;
const TCP_PORT: u16 = 7301;
/// How long a connection, or a pod after a restart, may be silent before it counts as broken.
const LONG: Duration = Duration::from_secs(30);

/// Datagrams to every pod in turn, and echoes from each.
#[derive(Debug)]
pub struct Probes {
    over: Arc<AtomicBool>,
    ears: Arc<Ears>,
    sent: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// When a pod was last heard, in ns since the start, and its longest silence since it was asked to watch.
#[derive(Debug, Default)]
struct Heard {
    last: AtomicU64,
    gap: AtomicU64,
    count: AtomicU64,
}

/// Who is heard, and who was silent for how long.
#[derive(Debug)]
pub struct Ears {
    pods: Vec<Heard>,
    start: Instant,
}

impl Ears {
    /// For so many pods.
    pub fn new(pods: usize) -> Self {
        Self { pods: (0..pods).map(|_| Heard::default()).collect(), start: Instant::now() }
    }

    /// A pod is heard. One thread calls this.
    pub fn hear(&self, pod: usize) {
        let pod = &self.pods[pod];
        let now = self.start.elapsed().as_nanos() as u64;
        let before = pod.last.swap(now, Relaxed);
        pod.gap.fetch_max(now - before, Relaxed);
        pod.count.fetch_add(1, Relaxed);
    }

    /// Forgets silences from before.
    pub fn begin(&self) {
        self.pods.iter().for_each(|pod| pod.gap.store(0, Relaxed));
    }

    /// Whether each was heard within the last moments.
    pub fn all_answer(&self) -> bool {
        let now = self.start.elapsed().as_nanos() as u64;
        let recent = |pod: &Heard| now.saturating_sub(pod.last.load(Relaxed)) < 100_000_000;
        self.pods.iter().all(recent)
    }

    /// The longest silence of any since [`Self::begin`].
    pub fn worst(&self) -> Duration {
        Duration::from_nanos(self.pods.iter().map(|pod| pod.gap.load(Relaxed)).max().unwrap_or(0))
    }

    /// That of the pod in the middle.
    pub fn median(&self) -> Duration {
        let mut gaps: Vec<u64> = self.pods.iter().map(|pod| pod.gap.load(Relaxed)).collect();
        gaps.sort_unstable();
        Duration::from_nanos(gaps[gaps.len() / 2])
    }

    /// How often any was heard.
    pub fn count(&self) -> u64 {
        self.pods.iter().map(|pod| pod.count.load(Relaxed)).sum()
    }
}

impl Probes {
    /// Begins. `closed` are sent to as well and not expected to answer.
    pub fn start(prober: &Pod, probed: &[Pod], closed: &[&Pod]) -> Self {
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let ears = Arc::new(Ears::new(probed.len()));
        let mut threads: Vec<_> = probed.iter().map(|pod| echo(pod, over.clone())).collect();
        let socket = prober.net.inside(move || UdpSocket::bind(("0.0.0.0", PORT))).join();
        let socket =
            socket.unwrap_or_else(|_| panic!("the prober")).unwrap_or_else(|error| panic!("{error}"));
        _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
        let listening = socket.try_clone().unwrap_or_else(|error| panic!("{error}"));
        let targets: Vec<String> =
            probed.iter().chain(closed.iter().copied()).map(|pod| pod.ip.clone()).collect();
        let numbers: HashMap<IpAddr, usize> =
            probed.iter().enumerate().filter_map(|(n, pod)| Some((pod.ip.parse().ok()?, n))).collect();
        for pod in closed {
            // So that its silence is the switch's doing and not that of an unanswered question for its address.
            prober.net.ip(&format!("neigh replace {} lladdr {} dev eth0 nud permanent", pod.ip, pod.mac()));
        }
        let (halt, count) = (over.clone(), sent.clone());
        threads.push(std::thread::spawn(move || {
            let pause = Duration::from_millis(PROBE_MS) / targets.len() as u32;
            let mut due = Instant::now();
            for target in targets.iter().cycle() {
                if halt.load(Relaxed) {
                    return;
                }
                // What the kernel does not take is a probe that was not answered.
                _ = socket.send_to(&[0; 8], (target.as_str(), PORT));
                count.fetch_add(1, Relaxed);
                due += pause;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }));
        let (heard, halt) = (ears.clone(), over.clone());
        threads.push(std::thread::spawn(move || {
            let mut datagram = [0; 8];
            while !halt.load(Relaxed) {
                let Ok((_, from)) = listening.recv_from(&mut datagram) else { continue };
                numbers.get(&from.ip()).inspect(|number| heard.hear(**number));
            }
        }));
        Self { over, ears, sent, threads }
    }

    /// Who answers.
    pub fn ears(&self) -> &Ears {
        &self.ears
    }

    /// Ends; how many probes were sent, and how many answered.
    pub fn stop(self) -> (u64, u64) {
        self.over.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| _ = thread.join());
        (self.sent.load(Relaxed), self.ears.count())
    }
}

/// Sends back whatever comes.
fn echo(pod: &Pod, over: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    pod.net.inside(move || {
        let Ok(socket) = UdpSocket::bind(("0.0.0.0", PORT)) else { return };
        _ = socket.set_read_timeout(Some(Duration::from_millis(200)));
        let mut datagram = [0; 8];
        while !over.load(Relaxed) {
            if let Ok((len, from)) = socket.recv_from(&mut datagram) {
                _ = socket.send_to(&datagram[..len], from);
            }
        }
    })
}

/// A TCP connection that is never idle for long: numbered chunks, each answered before the next.
#[derive(Debug)]
pub struct Stream {
    over: Arc<AtomicBool>,
    threads: [std::thread::JoinHandle<std::io::Result<u64>>; 2],
}

impl Stream {
    /// Begins, with a chunk every `pause`.
    pub fn start(from: &Pod, to: &Pod, pause: Duration) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let server = to.net.inside(move || {
            let listener = TcpListener::bind(("0.0.0.0", TCP_PORT))?;
            _ = ready.send(());
            let (mut stream, _) = listener.accept()?;
            let (mut chunk, mut count) = ([0; 8], 0);
            // Ends in order when the client has closed.
            while stream.read_exact(&mut chunk).is_ok() {
                stream.write_all(&chunk)?;
                count += 1;
            }
            Ok(count)
        });
        _ = is_ready.recv();
        let (halt, address) = (over.clone(), to.ip.clone());
        let client = from.net.inside(move || {
            let mut stream = TcpStream::connect((address.as_str(), TCP_PORT))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LONG))?;
            let (mut number, mut answer) = (0u64, [0; 8]);
            while !halt.load(Relaxed) {
                stream.write_all(&number.to_be_bytes())?;
                stream.read_exact(&mut answer)?;
                if u64::from_be_bytes(answer) != number {
                    return Err(std::io::Error::other("another chunk than was sent"));
                }
                number += 1;
                std::thread::sleep(pause);
            }
            Ok(number)
        });
        Self { over, threads: [client, server] }
    }

    /// Chunks that were answered; 0 if the connection broke.
    pub fn stop(self) -> u64 {
        self.over.store(true, Relaxed);
        let [client, server] =
            self.threads.map(|thread| thread.join().ok().and_then(Result::ok).unwrap_or(0));
        client.min(server)
    }
}

/// Restarts of each kind.
pub const RESTARTS: usize = 2;
/// Of every restart, before and after it.
const CALM: Duration = Duration::from_millis(1_500);

/// What restarts did to the pods that are probed: the worst of all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outages {
    /// The longest that a pod was cut off while the daemon stopped and started.
    pub stopped: Duration,
    /// The same while it was killed and started.
    pub killed: Duration,
    /// The median pod's, of the worst restart.
    pub median: Duration,
    /// The longest that a pod's beacon was silent, if they have some.
    pub silent: Duration,
    /// Until the daemon served again.
    pub serving: Duration,
}

impl Outages {
    /// The longest of all, in milliseconds.
    pub fn worst_ms(&self) -> f64 {
        ms(self.stopped.max(self.killed).max(self.silent))
    }
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Stops and starts the daemon, and kills and starts it, in turn, [`RESTARTS`] times each, under the probes. The daemon that is left.
/// `beacons`: what pods say of themselves beside it.
pub fn restart(
    mut daemon: Daemon,
    node: &Node,
    options: &Options,
    probes: &Probes,
    beacons: Option<&Beacons>,
) -> (Daemon, Outages) {
    let mut all = Outages::default();
    for round in 0..RESTARTS * 2 {
        let is_killed = round % 2 == 1;
        std::thread::sleep(CALM);
        probes.ears().begin();
        beacons.inspect(|beacons| beacons.ears().begin());
        match is_killed {
            true => daemon.kill(),
            false => daemon.stop(false),
        }
        let asked = Instant::now();
        daemon = node.start(options);
        all.serving = all.serving.max(asked.elapsed());
        let all_answer =
            || probes.ears().all_answer() && beacons.is_none_or(|beacons| beacons.ears().all_answer());
        wait_until("every pod answers again", LONG, all_answer);
        std::thread::sleep(CALM);
        all.median = all.median.max(probes.ears().median());
        all.silent = all.silent.max(beacons.map_or(Duration::ZERO, |beacons| beacons.ears().worst()));
        let longest = if is_killed { &mut all.killed } else { &mut all.stopped };
        *longest = probes.ears().worst().max(*longest);
    }
    (daemon, all)
}
