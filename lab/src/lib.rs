//! A laboratory: network namespaces as hosts, veth pairs as cables, the real `switchd` between them. What it
//! makes goes away when it is dropped, also when a test panics.
//!
//! | module | what |
//! |---|---|
//! | [`net`] | a namespace, and commands in it |
//! | [`node`] | a node with its own namespace, daemon and pods |
//! | [`cable`] | a device whose other end is the test |
//! | [`raw`] | frames made by hand, sent and received on a pod's device |
//! | [`frames`] | frames to make by hand |
//! | [`disk`] | a disk that can be filled, or made read-only |
//! | [`steady`] | a ping beside whatever else is done, none of whose answers may be missing |
//! | [`transfer`] | TCP and UDP between namespaces, every byte checked |
//! | [`sequence`] | numbered datagrams both ways: what is lost, what overtakes |
//! | [`trouble`] | kernels and threads that are not well |
//! | [`world`] | what is outside a node, and who sees whom |

pub mod cable;
pub mod cross;
pub mod disk;
pub mod frames;
pub mod net;
pub mod node;
pub mod raw;
pub mod scenes;
pub mod sequence;
pub mod session;
pub mod steady;
pub mod transfer;
pub mod trouble;
pub mod world;

pub use net::Net;
pub use node::{Daemon, Node, Options, Pod};
pub use raw::RawSocket;

use std::io::ErrorKind;
use std::net::{ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

/// The pauses between two looks: what comes soon is seen at once, and who waits long leaves the cores to others. A look often is a program
/// that is started.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

/// Waits until `is_true`, looking every few milliseconds. Panics with `what` after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    let mut pause = PAUSES[0];
    while !is_true() {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        std::thread::sleep(pause);
        pause = (pause + pause / 8).min(PAUSES[1]);
    }
}

/// Does it again while a signal interrupts it. A socket with a timeout says so (signal(7), "Interruption of system calls"), also where nobody
/// handles a signal: when the process was stopped, or a thread of it was traced.
pub fn uninterrupted<T>(mut work: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// A UDP socket of an address, in the caller's namespace. A moment after another one of that address was closed the address may
/// still be taken: a child that another test starts holds copies of all sockets until it has become its program.
pub fn bind_udp(address: impl ToSocketAddrs) -> UdpSocket {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match UdpSocket::bind(&address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            bound => return bound.unwrap_or_else(|error| panic!("bind: {error}")),
        }
    }
}
