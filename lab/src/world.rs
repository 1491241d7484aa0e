//! What is outside a node: another machine, joined to it by a cable, that knows no way to the node's pods. And who asks whom, and
//! what of the asker is seen.

use crate::net::Net;
use crate::{uninterrupted, wait_until};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a connection may take to come about. A first packet that is lost is sent again after a second, and is not to be overlooked.
const HANDSHAKE: Duration = Duration::from_millis(950);
/// How long who asked waits for his answer; it comes at once, but on a machine that is busy.
const ATTEMPT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a service looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Another machine on the node's network: `198.51.100.2`, `2001:db8::2`; the node is `.1`, `::1` there, by `up0`.
pub fn world(node: &Net) -> Net {
    let world = Net::new("world");
    node.ip(&format!("link add up0 type veth peer name eth0 netns {}", world.name()));
    for (net, device, n) in [(node, "up0", 1), (&world, "eth0", 2)] {
        net.ip(&format!("link set {device} up"));
        net.ip(&format!("addr add 198.51.100.{n}/24 dev {device}"));
        net.ip(&format!("addr add 2001:db8::{n}/64 dev {device} nodad"));
    }
    world
}

/// A service that tells everybody, by TCP and by UDP, a word and the address it sees. It ends when it is dropped.
#[derive(Debug)]
pub struct Service {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Service {
    /// At a port of both IP versions.
    pub fn new(net: &Net, port: u16, word: &str) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let started = Arc::new(AtomicBool::new(false));
        let (word, end, start) = (word.to_owned(), ends.clone(), started.clone());
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let thread = net.inside(move || {
            let tcp = TcpListener::bind(any).unwrap_or_else(|error| panic!("{any}: {error}"));
            let udp = UdpSocket::bind(any).unwrap_or_else(|error| panic!("{any}: {error}"));
            let ready = tcp.set_nonblocking(true).and_then(|()| udp.set_read_timeout(Some(LOOK)));
            ready.unwrap_or_else(|error| panic!("{any}: {error}"));
            start.store(true, Ordering::Release);
            while !end.load(Ordering::Acquire) {
                if let Ok((mut stream, peer)) = tcp.accept() {
                    _ = stream.write_all(format!("{word} {}", peer.ip().to_canonical()).as_bytes());
                }
                if let Ok((_, peer)) = uninterrupted(|| udp.recv_from(&mut [0; 64])) {
                    _ = udp.send_to(format!("{word} {}", peer.ip().to_canonical()).as_bytes(), peer);
                }
            }
        });
        wait_until("the service listens", PATIENCE, || {
            started.load(Ordering::Acquire) || thread.is_finished()
        });
        Self { ends, threads: vec![thread] }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

/// What a service says to who asks it from `net`, by TCP; none if it does not answer.
pub fn ask_tcp(net: &Net, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap_or_else(|error| panic!("{to}: {error}"));
    let asked = net.inside(move || {
        let mut stream = TcpStream::connect_timeout(&to, HANDSHAKE).ok()?;
        stream.set_read_timeout(Some(ATTEMPT)).ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        Some(said).filter(|said| !said.is_empty())
    });
    asked.join().unwrap_or_else(|_| panic!("who asked panicked"))
}

/// The same by UDP. The answer must come from where it was asked.
pub fn ask_udp(net: &Net, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap_or_else(|error| panic!("{to}: {error}"));
    let asked = net.inside(move || {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(to).ok()?;
        socket.set_read_timeout(Some(ATTEMPT)).ok()?;
        socket.send(b"?").ok()?;
        let mut said = [0; 64];
        let len = uninterrupted(|| socket.recv(&mut said)).ok()?;
        Some(String::from_utf8_lossy(&said[..len]).into_owned())
    });
    asked.join().unwrap_or_else(|_| panic!("who asked panicked"))
}

/// Whether who sends a datagram from `net` is told that nobody listens there.
pub fn is_refused(net: &Net, to: &str) -> bool {
    let to: SocketAddr = to.parse().unwrap_or_else(|error| panic!("{to}: {error}"));
    let told = net.inside(move || {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(ATTEMPT))?;
        socket.send(b"?")?;
        uninterrupted(|| socket.recv(&mut [0; 8]))
    });
    let told = told.join().unwrap_or_else(|_| panic!("who asked panicked"));
    told.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// A TCP connection between two namespaces, whose other end sends back whatever comes.
#[derive(Debug)]
pub struct Echo {
    stream: Option<TcpStream>,
    server: Option<JoinHandle<()>>,
}

impl Echo {
    /// From `from` to an address in `to`.
    pub fn open(from: &Net, to: &Net, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap_or_else(|error| panic!("{address}: {error}"));
        let wrong = move |error: std::io::Error| -> ! { panic!("{address}: {error}") };
        let listener = to.inside(move || TcpListener::bind(address).unwrap_or_else(|error| wrong(error)));
        let listener = listener.join().unwrap_or_else(|_| panic!("nobody listens at {address}"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap_or_else(|error| wrong(error));
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        });
        let connect =
            move || TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|error| wrong(error));
        let stream = from.inside(connect).join().unwrap_or_else(|_| panic!("nobody reaches {address}"));
        stream.set_nodelay(true).unwrap_or_else(|error| wrong(error));
        Self { stream: Some(stream), server: Some(server) }
    }

    /// Whether a byte comes back for this one, within so long. It may be an earlier one that was held up.
    pub fn comes_back(&mut self, byte: u8, patience: Duration) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        stream.set_read_timeout(Some(patience)).unwrap_or_else(|error| panic!("{error}"));
        stream.write_all(&[byte]).unwrap_or_else(|error| panic!("{error}"));
        stream.read_exact(&mut [0]).is_ok()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Its other end ends with it.
        self.stream = None;
        if let Some(server) = self.server.take() {
            _ = server.join();
        }
    }
}
