//! [boot-to-answer] A node boots: from the start of the daemon, with nothing declared, to the first answer that its first container gets
//! from the cluster's DNS, at an address that the node's kernel translates. The DNS server is on another machine, or a container of this
//! node that is attached first.

use super::{Bench, Figure, Held};
use crate::containers::{self, Runtime};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use switch_api::PortSettings;
use switch_lab::world::world;
use switch_lab::{Net, Node, Options};

const BAR_MS: f64 = 3_000.0;
/// Boots of either kind.
const BOOTS: usize = 5;
/// Where the cluster's DNS is asked.
const SERVICE: &str = "10.96.0.10";
/// A resolver waits longer, and would not see what we measure.
const ATTEMPT: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("ms", BAR_MS);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let boots = |is_here| (0..BOOTS).map(|_| boot(bench, is_here)).collect::<Result<Vec<_>, _>>();
    let (elsewhere, here) = (boots(false)?, boots(true)?);
    let worst = |boots: &[Boot]| boots.iter().map(|boot| boot.answer_ms).fold(0.0, f64::max);
    let shown = |boots: &[Boot]| {
        let last = boots.iter().max_by(|one, other| one.answer_ms.total_cmp(&other.answer_ms));
        last.map_or(String::new(), |boot| {
            format!(
                "{:.0} ms, of which the daemon served after {:.0} and ADD was done after {:.0}",
                boot.answer_ms, boot.serves_ms, boot.added_ms
            )
        })
    };
    let detail = format!(
        "worst of {BOOTS} boots each: the DNS server on another machine {}; a container of this node that is attached first {}; an A record \
         asked for at {SERVICE}, translated by nftables as kube-proxy does",
        shown(&elsewhere),
        shown(&here)
    );
    let value = worst(&elsewhere).max(worst(&here));
    Ok(Figure::new("boot-to-answer", value, HELD, detail))
}

/// Milliseconds since the daemon was started.
struct Boot {
    serves_ms: f64,
    added_ms: f64,
    answer_ms: f64,
}

fn boot(bench: &Bench, is_here: bool) -> Result<Boot, String> {
    let node = Node::new();
    let world = world(&node.net);
    node.net.ip("route add default via 198.51.100.2");
    let (pod, server) = (Net::new("first"), Net::new("dns"));
    // The first of the pool.
    let backend = if is_here { "10.88.0.2" } else { "198.51.100.2" };
    translate(&node.net, backend);
    let _dns = Dns::start(if is_here { &server } else { &world })?;
    let start = Instant::now();
    let ms = || start.elapsed().as_secs_f64() * 1_000.0;
    let mut daemon = node.start(&Options::new(&bench.switchd).keeping_state());
    let serves_ms = ms();
    daemon.bridge("br0");
    containers::host_port(&daemon, PortSettings { return_flows: true, ..PortSettings::default() })?;
    let runtime = Runtime::new(bench, &node, &daemon, "");
    if is_here && runtime.add(&server)? != backend {
        return Err("the DNS server has another address".into());
    }
    runtime.add(&pod)?;
    let added_ms = ms();
    ask_until_answered(&pod)?;
    let answer_ms = ms();
    daemon.stop(true);
    Ok(Boot { serves_ms, added_ms, answer_ms })
}

/// What kube-proxy does for a service of one backend.
fn translate(node: &Net, backend: &str) {
    let to = format!("ip daddr {SERVICE} udp dport 53 dnat to {backend}:53");
    node.run("nft add table ip kube-proxy");
    node.run("nft add chain ip kube-proxy prerouting { type nat hook prerouting priority -100 ; }");
    node.run(&format!("nft add rule ip kube-proxy prerouting {to}"));
}

/// Asks until there is an answer, and looks whether it is one.
fn ask_until_answered(pod: &Net) -> Result<(), String> {
    let asking = pod.inside(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect((SERVICE, 53))?;
        socket.set_read_timeout(Some(ATTEMPT))?;
        let (deadline, mut said) = (Instant::now() + PATIENCE, [0; 512]);
        while Instant::now() < deadline {
            // What the kernel refuses, for want of a neighbour say, is asked again.
            _ = socket.send(&question());
            match socket.recv(&mut said) {
                Ok(len) if is_answer(&said[..len]) => return Ok(()),
                Ok(_) => return Err(std::io::Error::other("that is no answer")),
                Err(_) => {}
            }
        }
        Err(std::io::Error::other(format!("no answer within {PATIENCE:?}")))
    });
    asking.join().map_err(|_| "who asked panicked")?.map_err(|error: std::io::Error| error.to_string())
}

/// The A record of `kubernetes.default.svc.cluster.local` (RFC 1035 section 4.1).
fn question() -> Vec<u8> {
    // A number, recursion desired, one question.
    let mut message = vec![0x5a, 0x5a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["kubernetes", "default", "svc", "cluster", "local"] {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// The question with its answer behind it.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut message = question.to_vec();
    if message.len() > 12 {
        // A response, and one answer: the name is the question's, an A record of the Internet, for 30 s.
        message[2] |= 0x80;
        message[7] = 1;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        message.extend(ADDRESS.octets());
    }
    message
}

fn is_answer(message: &[u8]) -> bool {
    message == answer(&question())
}

/// A DNS server that knows one name. It ends when it is dropped.
struct Dns {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Dns {
    fn start(net: &Net) -> Result<Self, String> {
        let socket =
            net.inside(|| UdpSocket::bind(("0.0.0.0", 53))).join().map_err(|_| "the server panicked")?;
        let socket = socket.map_err(|error| format!("the server: {error}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(|error| error.to_string())?;
        let over = Arc::new(AtomicBool::new(false));
        let end = over.clone();
        let thread = std::thread::spawn(move || {
            let mut asked = [0; 512];
            while !end.load(Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut asked) {
                    _ = socket.send_to(&answer(&asked[..len]), from);
                }
            }
        });
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}
