//! A thousand datagrams a second from each of a hundred pods to one more: whose beacon is silent is cut off, known to a millisecond.
//! One way, for a hundred thousand round trips a second are more than two cores carry; the way back is for [`crate::outage::Probes`].

use crate::outage::Ears;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};
use switch_lab::Pod;

/// Between two datagrams of one pod: 1 kHz.
pub const BEACON: Duration = Duration::from_millis(1);
/// A figure rests on them if at least so many a second of each pod were sent.
pub const RATE_MIN: f64 = 900.0;
const PORT: u16 = 7302;
/// Who sends goes on with the present, and not with what it missed, when it is so far behind.
const BEHIND_MAX: Duration = Duration::from_millis(50);
/// What waits while who listens is away from its core: 20 ms of all pods.
const BUFFER_BYTES: usize = 4 << 20;

/// See the module.
#[derive(Debug)]
pub struct Beacons {
    over: Arc<AtomicBool>,
    ears: Arc<Ears>,
    sent: Arc<AtomicU64>,
    begun: Instant,
    pods: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Beacons {
    /// Begins: each of `pods` to `to`.
    pub fn start(pods: &[Pod], to: &Pod) -> Result<Self, String> {
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let ears = Arc::new(Ears::new(pods.len()));
        let socket = within(to, || UdpSocket::bind(("0.0.0.0", PORT)))?;
        set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).map_err(|error| error.to_string())?;
        let told = |error: std::io::Error| error.to_string();
        socket.set_read_timeout(Some(Duration::from_millis(50))).map_err(told)?;
        let address = to.ip.clone();
        let connect = |pod: &Pod| {
            let address = address.clone();
            within(pod, move || {
                let socket = UdpSocket::bind(("0.0.0.0", 0))?;
                socket.connect((address.as_str(), PORT))?;
                // A device without a reader keeps what it was given: nobody waits for that.
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
        };
        let sockets = pods.iter().map(connect).collect::<Result<Vec<_>, _>>()?;
        let numbers: HashMap<IpAddr, usize> =
            pods.iter().enumerate().filter_map(|(n, pod)| Some((pod.ip.parse().ok()?, n))).collect();
        let (halt, count) = (over.clone(), sent.clone());
        let sender = spawn(move || send(&sockets, &halt, &count));
        let (halt, heard) = (over.clone(), ears.clone());
        let listener = spawn(move || {
            let mut datagram = [0; 8];
            while !halt.load(Relaxed) {
                let Ok((_, from)) = socket.recv_from(&mut datagram) else { continue };
                numbers.get(&from.ip()).inspect(|number| heard.hear(**number));
            }
        });
        let threads = vec![sender, listener];
        Ok(Self { over, ears, sent, begun: Instant::now(), pods: pods.len(), threads })
    }

    /// Who is heard, and who was silent for how long.
    pub fn ears(&self) -> &Ears {
        &self.ears
    }

    /// Ends; how many a second of each pod were sent, in the mean over all the time.
    pub fn stop(self) -> f64 {
        let time = self.begun.elapsed().as_secs_f64();
        self.over.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| _ = thread.join());
        self.sent.load(Relaxed) as f64 / self.pods as f64 / time
    }
}

/// One round of all pods after the other.
fn send(sockets: &[UdpSocket], halt: &AtomicBool, count: &AtomicU64) {
    let mut due = Instant::now();
    while !halt.load(Relaxed) {
        for socket in sockets {
            // What the kernel does not take is a datagram that nobody hears.
            _ = socket.send(&[0; 8]);
        }
        count.fetch_add(sockets.len() as u64, Relaxed);
        due += BEACON;
        let now = Instant::now();
        if now.saturating_duration_since(due) > BEHIND_MAX {
            due = now;
        }
        sleep(due.saturating_duration_since(now));
    }
}

/// A socket that lives in a pod.
fn within(
    pod: &Pod,
    open: impl FnOnce() -> std::io::Result<UdpSocket> + Send + 'static,
) -> Result<UdpSocket, String> {
    let opened = pod.net.inside(open).join();
    opened.map_err(|_| format!("no socket in {}", pod.ip))?.map_err(|error| error.to_string())
}
