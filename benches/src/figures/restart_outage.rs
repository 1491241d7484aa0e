//! [restart-outage] The daemon stops and starts, and is killed and starts, under 100 tap pods that are all probed: how long
//! is any of them cut off. A TCP connection goes on all the while, and a policy that forbids a pod something never lets a
//! frame through.
//!
//! A probe a millisecond to each of 100 pods is 100 000 round trips a second, which two cores with everything else cannot make: each
//! pod is probed every [`PROBE_MS`] milliseconds, one after the other. An outage is known to so many milliseconds, and the worst
//! pod is what counts. `RESTART_WORDS` are further words for the daemon.

use super::{Bar, Bench, Figure};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use switch_api::{Done, NetworkPolicy, PortSettings, PortState, PortStatus, Request, Workload};
use switch_lab::node::tap_port;
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const PODS: u8 = 100;
const BAR_MS: f64 = 300.0;
/// Between two probes of one pod: 5 000 probes a second in all.
const PROBE_MS: u64 = 20;
const PORT: u16 = 7300;
const TCP_PORT: u16 = 7301;
const LONG: Duration = Duration::from_secs(30);
/// Of every restart, before and after it.
const CALM: Duration = Duration::from_millis(1_500);
const RESTARTS: usize = 2;

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let words = std::env::var("RESTART_WORDS").unwrap_or_default();
    let options = Options::new(&bench.switchd).keeping_state().with(&words);
    let mut daemon = node.start(&options);
    daemon.bridge("br0");
    // The prober is a pod like the others.
    let pods: Vec<_> = (1..=PODS + 2).map(|n| node.bare_pod(n)).collect();
    let (prober, probed, closed) = (&pods[0], &pods[1..=usize::from(PODS)], &pods[usize::from(PODS) + 1]);
    for pod in &pods {
        let mut port = tap_port(pod, "br0", PortSettings::default());
        let labels =
            [("app".to_owned(), if pod.ip == closed.ip { "closed" } else { "open" }.to_owned())].into();
        port.workload = Some(Workload { namespace: "shop".into(), labels, ports: vec![], addresses: vec![] });
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    }
    for pod in &pods[1..] {
        wait_until("a pod answers", LONG, || prober.reaches(&pod.ip));
    }
    close(&daemon)?;
    if prober.reaches(&closed.ip) {
        return Err("the policy does not close the pod, before any restart".into());
    }
    let leaks = received(closed)?;
    let stream = Stream::start(&probed[0], &probed[1]);
    let probes = Probes::start(prober, probed, closed);
    let (mut outages, mut serving, mut median) = ([0.0f64, 0.0], Duration::ZERO, Duration::ZERO);
    for round in 0..RESTARTS * 2 {
        let is_killed = round % 2 == 1;
        std::thread::sleep(CALM);
        probes.begin();
        match is_killed {
            true => daemon.kill(),
            false => daemon.stop(false),
        }
        let asked = Instant::now();
        daemon = node.start(&options);
        let served = asked.elapsed();
        wait_until("every pod answers again", LONG, || probes.all_answer());
        std::thread::sleep(CALM);
        let worst = probes.worst();
        (serving, median) = (serving.max(served), median.max(probes.median()));
        outages[usize::from(is_killed)] = outages[usize::from(is_killed)].max(worst.as_secs_f64() * 1_000.0);
    }
    let (sent, answered) = probes.stop();
    let tcp = stream.stop();
    let leaks = received(closed)? - leaks;
    daemon.assert_conserved();
    let up = up(&daemon);
    daemon.stop(true);
    let detail = format!(
        "worst of {PODS} tap pods, {RESTARTS} times each way: stopped and started {:.0} ms, killed and started {:.0} ms (bar {BAR_MS} \
         both); the median pod {:.0} ms at worst, and the daemon serves after {:.0}; a probe every {PROBE_MS} ms a pod ({sent} sent, {answered} answered; 1 ms each is more than two cores carry); {up} \
         ports up again; a TCP connection of two pods carried {tcp} chunks in order all the while; {leaks} probes came \
         through to a pod that a policy closes (bar 0)",
        outages[0],
        outages[1],
        median.as_secs_f64() * 1_000.0,
        serving.as_secs_f64() * 1_000.0
    );
    let worst = outages[0].max(outages[1]);
    let holds = tcp > 0 && leaks == 0 && up == pods.len();
    Ok(Figure::new("restart-outage", worst, "ms", Bar::AtMost, BAR_MS, detail).only_if(holds))
}

/// Nothing may enter the pod labelled `closed`.
fn close(daemon: &Daemon) -> Result<(), String> {
    let spec =
        serde_json::json!({"podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Ingress"]});
    let policy = serde_json::json!({"metadata": {"name": "closed", "namespace": "shop"}, "spec": spec});
    let policy: NetworkPolicy = serde_json::from_value(policy).map_err(|error| error.to_string())?;
    let _: Done = daemon.call(&Request::PolicyAdd(Box::new(policy)));
    Ok(())
}

fn up(daemon: &Daemon) -> usize {
    let ports: Vec<PortStatus> = daemon.call(&Request::PortList(Default::default()));
    ports.iter().filter(|port| port.state == PortState::Up).count()
}

/// Probes that a pod's kernel has taken in (SNMP's `InDatagrams` and `NoPorts`).
fn received(pod: &Pod) -> Result<i64, String> {
    let text = pod.net.inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).join();
    let text = text.map_err(|_| "the reader panicked")?.map_err(|error| error.to_string())?;
    let line = text.lines().filter(|line| line.starts_with("Udp:")).nth(1).ok_or("no UDP statistics")?;
    let counts = line.split_whitespace().skip(1).take(2);
    Ok(counts.filter_map(|word| word.parse::<i64>().ok()).sum())
}

/// Datagrams to every pod in turn, and echoes from each.
struct Probes {
    over: Arc<AtomicBool>,
    pods: Arc<Vec<Heard>>,
    start: Instant,
    sent: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// When a pod was last heard, in ns since the start, and its longest silence since it was asked to watch.
#[derive(Default)]
struct Heard {
    last: AtomicU64,
    gap: AtomicU64,
    count: AtomicU64,
}

impl Probes {
    fn start(prober: &Pod, probed: &[Pod], closed: &Pod) -> Self {
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let pods: Arc<Vec<Heard>> = Arc::new(probed.iter().map(|_| Heard::default()).collect());
        let start = Instant::now();
        let mut threads: Vec<_> = probed.iter().map(|pod| echo(pod, over.clone())).collect();
        let socket = prober.net.inside(|| UdpSocket::bind(("0.0.0.0", PORT))).join();
        let socket =
            socket.unwrap_or_else(|_| panic!("the prober")).unwrap_or_else(|error| panic!("{error}"));
        _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
        let listening = socket.try_clone().unwrap_or_else(|error| panic!("{error}"));
        let mut targets: Vec<String> = probed.iter().map(|pod| pod.ip.clone()).collect();
        targets.push(closed.ip.clone());
        // So that the closed pod's silence is the switch's doing and not that of an unanswered question for its address.
        prober.net.ip(&format!("neigh replace {} lladdr {} dev eth0 nud permanent", closed.ip, closed.mac()));
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
        let (heard, halt) = (pods.clone(), over.clone());
        threads.push(std::thread::spawn(move || {
            let mut datagram = [0; 8];
            while !halt.load(Relaxed) {
                let Ok((_, std::net::SocketAddr::V4(from))) = listening.recv_from(&mut datagram) else {
                    continue;
                };
                // Pods have the host numbers from 2.
                let Some(pod) = heard.get(usize::from(from.ip().octets()[3]).wrapping_sub(2)) else {
                    continue;
                };
                let now = start.elapsed().as_nanos() as u64;
                let before = pod.last.swap(now, Relaxed);
                pod.gap.fetch_max(now - before, Relaxed);
                pod.count.fetch_add(1, Relaxed);
            }
        }));
        Self { over, pods, start, sent, threads }
    }

    /// Forgets silences from before.
    fn begin(&self) {
        self.pods.iter().for_each(|pod| pod.gap.store(0, Relaxed));
    }

    /// Whether each was heard within the last moments.
    fn all_answer(&self) -> bool {
        let now = self.start.elapsed().as_nanos() as u64;
        let recent = |pod: &Heard| now.saturating_sub(pod.last.load(Relaxed)) < 100_000_000;
        self.pods.iter().all(recent)
    }

    /// The longest silence of any pod since [`Probes::begin`].
    fn worst(&self) -> Duration {
        Duration::from_nanos(self.pods.iter().map(|pod| pod.gap.load(Relaxed)).max().unwrap_or(0))
    }

    fn median(&self) -> Duration {
        let mut gaps: Vec<u64> = self.pods.iter().map(|pod| pod.gap.load(Relaxed)).collect();
        gaps.sort_unstable();
        Duration::from_nanos(gaps[gaps.len() / 2])
    }

    fn stop(self) -> (u64, u64) {
        self.over.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| _ = thread.join());
        (self.sent.load(Relaxed), self.pods.iter().map(|pod| pod.count.load(Relaxed)).sum())
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
struct Stream {
    over: Arc<AtomicBool>,
    threads: [std::thread::JoinHandle<std::io::Result<u64>>; 2],
}

impl Stream {
    fn start(from: &Pod, to: &Pod) -> Self {
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
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(number)
        });
        Self { over, threads: [client, server] }
    }

    /// Chunks that were answered; 0 if the connection broke.
    fn stop(self) -> u64 {
        self.over.store(true, Relaxed);
        let [client, server] =
            self.threads.map(|thread| thread.join().ok().and_then(Result::ok).unwrap_or(0));
        client.min(server)
    }
}
