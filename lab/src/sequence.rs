//! Numbered datagrams in several flows, both ways at once: what is lost, and what overtakes. A window bounds what is under
//! way, so that no machine is too slow for it: whatever is lost then was lost by somebody.

use crate::net::Net;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PORT: u16 = 7100;
/// A socket without news looks so often whether all is over.
const LOOK: Duration = Duration::from_millis(50);
/// How long the last datagrams may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long those may take that the last ones have overtaken.
const LATE: Duration = Duration::from_secs(3);
/// Between two rounds of datagrams, one of each flow: the load is for what is in order, not for how much there is, and it
/// leaves the cores to others now and then.
const PAUSE: Duration = Duration::from_micros(300);
/// What a receiver that waits for its core finds in its socket: a whole window. Lost there it would be lost by nobody.
const RECEIVE_BYTES: usize = 16 << 20;
/// Bytes of a datagram: its flow's sequence number, its load, and something to carry.
const LEN: usize = 200;
/// The next load. What was given up for lost may arrive while the next load runs, at the same addresses and ports.
static LOADS: AtomicU64 = AtomicU64::new(0);

/// What came of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams sent.
    pub sent: u64,
    /// Those of them that never arrived.
    pub lost: u64,
    /// Those that arrived behind one that was sent after them, or twice.
    pub overtaken: u64,
}

#[derive(Debug, Default)]
struct Direction {
    sent: AtomicU64,
    received: AtomicU64,
    /// How far its flows have come: of each the number behind the highest that arrived.
    reached: AtomicU64,
    overtaken: AtomicU64,
    over: AtomicBool,
}

/// A load that runs.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    directions: [Arc<Direction>; 2],
    senders: Vec<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
}

/// Starts a flow each way between every pair of addresses; no more than `window` datagrams are under way in each
/// direction.
pub fn start(a: &Net, b: &Net, pairs: &[(IpAddr, IpAddr)], window: u64) -> Running {
    let (load, stop) = (LOADS.fetch_add(1, Relaxed), Arc::new(AtomicBool::new(false)));
    let directions: [Arc<Direction>; 2] = Default::default();
    let far: Vec<_> = pairs.iter().map(|(a, b)| (*b, *a)).collect();
    let sockets = [open(a, pairs), open(b, &far)];
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for (end, net) in [a, b].into_iter().enumerate() {
        let own: Vec<_> = sockets[end].iter().map(clone).collect();
        let (direction, halt) = (directions[end].clone(), stop.clone());
        senders.push(net.inside(move || send(&own, load, &direction, &halt, window)));
        for socket in &sockets[end] {
            let (socket, direction) = (clone(socket), directions[1 - end].clone());
            receivers.push(net.inside(move || receive(&socket, load, &direction)));
        }
    }
    Running { stop, directions, senders, receivers }
}

fn clone(socket: &UdpSocket) -> UdpSocket {
    socket.try_clone().unwrap_or_else(|error| panic!("a socket's clone: {error}"))
}

/// A socket for each pair, bound to its first address and connected to its second.
fn open(net: &Net, pairs: &[(IpAddr, IpAddr)]) -> Vec<UdpSocket> {
    let pairs = pairs.to_vec();
    let opened = net.inside(move || {
        let open = |(near, far): &(IpAddr, IpAddr)| -> io::Result<UdpSocket> {
            // Several flows may begin at one address: each has a port of its own, which its other end derives as well.
            let port = |from: &IpAddr, to: &IpAddr| PORT + (last(from) ^ last(to));
            let socket = UdpSocket::bind((*near, port(near, far)))?;
            socket.connect((*far, port(near, far)))?;
            socket.set_read_timeout(Some(LOOK))?;
            set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES)?;
            Ok(socket)
        };
        pairs.iter().map(open).collect::<io::Result<Vec<_>>>()
    });
    match opened.join() {
        Ok(Ok(sockets)) => sockets,
        Ok(Err(error)) => panic!("sockets of a load: {error}"),
        Err(_) => panic!("sockets of a load"),
    }
}

fn last(address: &IpAddr) -> u16 {
    match address {
        IpAddr::V4(v4) => u16::from(v4.octets()[3]),
        IpAddr::V6(v6) => v6.segments()[7] & 0xff,
    }
}

fn send(sockets: &[UdpSocket], load: u64, direction: &Direction, stop: &AtomicBool, window: u64) {
    let mut datagram = [0; LEN];
    datagram[8..16].copy_from_slice(&load.to_be_bytes());
    let mut number = 0u64;
    while !stop.load(SeqCst) {
        for socket in sockets {
            // What arrives twice is more than was sent.
            while direction.sent.load(SeqCst).saturating_sub(direction.received.load(SeqCst)) >= window {
                if stop.load(SeqCst) {
                    return;
                }
                std::thread::sleep(Duration::from_micros(20));
            }
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            direction.sent.fetch_add(1, SeqCst);
            // A datagram that the own kernel refuses is lost like any other.
            _ = socket.send(&datagram);
        }
        number += 1;
        std::thread::sleep(PAUSE);
    }
}

fn receive(socket: &UdpSocket, load: u64, direction: &Direction) {
    let mut datagram = [0; LEN + 1];
    let mut next = 0;
    while !direction.over.load(SeqCst) {
        let Ok(LEN) = socket.recv(&mut datagram) else { continue };
        let word = |at: usize| datagram[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        if word(8) != load {
            continue;
        }
        let number = word(0);
        direction.received.fetch_add(1, SeqCst);
        if number < next {
            direction.overtaken.fetch_add(1, SeqCst);
        } else {
            direction.reached.fetch_add(number + 1 - next, SeqCst);
            next = number + 1;
        }
    }
}

impl Running {
    /// Datagrams that arrived so far, both ways.
    pub fn received(&self) -> u64 {
        self.directions.iter().map(|direction| direction.received.load(SeqCst)).sum()
    }

    /// Ends it, and waits for what is under way.
    pub fn finish(self) -> Tally {
        self.stop.store(true, SeqCst);
        for sender in self.senders {
            sender.join().unwrap_or_else(|_| panic!("a sender panicked"));
        }
        let arrived = |count: fn(&Direction) -> &AtomicU64, patience: Duration| {
            let deadline = Instant::now() + patience;
            let is_behind = |way: &Arc<Direction>| count(way).load(SeqCst) < way.sent.load(SeqCst);
            while self.directions.iter().any(is_behind) && Instant::now() < deadline {
                std::thread::sleep(LOOK / 10);
            }
        };
        arrived(|way| &way.reached, PATIENCE);
        arrived(|way| &way.received, LATE);
        self.directions.iter().for_each(|direction| direction.over.store(true, SeqCst));
        for receiver in self.receivers {
            receiver.join().unwrap_or_else(|_| panic!("a receiver panicked"));
        }
        let mut tally = Tally::default();
        for direction in &self.directions {
            let (sent, received) = (direction.sent.load(SeqCst), direction.received.load(SeqCst));
            tally.sent += sent;
            tally.lost += sent.saturating_sub(received);
            tally.overtaken += direction.overtaken.load(SeqCst);
        }
        tally
    }
}
