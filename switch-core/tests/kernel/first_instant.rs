//! In force before the first packet: pods whose ports are made while packets are sent already, by them and to them.

use crate::policy::declare;
use crate::switchd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use switch_api::{ByName, Done, Port, PortSettings, Request};
use switch_lab::node::xdp_port;
use switch_lab::scenes::labelled;
use switch_lab::{Daemon, Net, Node, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// How often a pod begins to live.
const LIVES: u32 = 1000;
/// The same where it is the same by another way.
const SOME_LIVES: u32 = 200;
/// How long it is watched each time: most of a life's first packets come at once.
const FIRST_INSTANTS: Duration = Duration::from_millis(10);
/// Between two packets: in a life's first instants there are a hundred and more.
const REST: Duration = Duration::from_micros(20);
/// How often the daemon begins anew, unless `RESTARTS` says how often.
const RESTARTS: u32 = 10;

fn restarts() -> u32 {
    std::env::var("RESTARTS").ok().map_or(RESTARTS, |times| times.parse().unwrap())
}

/// Where `db` and `open` are sent to.
const BOTH: Targets = ["10.66.0.1:7", "10.66.0.2:7"];
/// Two ports of one pod.
const PORTS: Targets = ["10.66.0.3:7", "10.66.0.3:8"];

/// Where nothing may arrive, and where all may.
type Targets = [&'static str; 2];

/// Counts what comes to an address, until it is told to end.
struct Counting {
    running: (Sender<()>, JoinHandle<()>),
    /// How many there were so far.
    so_far: Arc<AtomicU32>,
}

impl Counting {
    fn start(net: &Net, address: &'static str) -> Self {
        let (stop, stopped) = channel::<()>();
        let so_far = Arc::new(AtomicU32::new(0));
        let count = so_far.clone();
        let socket = net.inside(move || std::net::UdpSocket::bind(address).unwrap()).join().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while stopped.try_recv() != Err(TryRecvError::Disconnected) {
                count.fetch_add(u32::from(socket.recv(&mut buffer).is_ok()), Ordering::Relaxed);
            }
        });
        Self { running: (stop, thread), so_far }
    }

    /// Of `db`, to which nothing may come, and of `open`.
    fn both([db, open, _]: &[Pod; 3]) -> [Self; 2] {
        [Self::start(&db.net, BOTH[0]), Self::start(&open.net, BOTH[1])]
    }

    fn end(self) -> u32 {
        ended(self.running);
        self.so_far.load(Ordering::Relaxed)
    }
}

/// Sends to both, some ten thousand times a second, until it is told to end.
fn sending(net: &Net, targets: Targets) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = channel::<()>();
    let sender = net.inside(move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        while stopped.try_recv() != Err(TryRecvError::Disconnected) {
            // Until the device is there these fail at once.
            targets.iter().for_each(|target| _ = socket.send_to(b"now", target));
            // Whoever else wants the core, the daemon above all, has it.
            std::thread::sleep(REST);
        }
    });
    (stop, sender)
}

/// Ends it.
fn ended((stop, thread): (Sender<()>, JoinHandle<()>)) {
    drop(stop);
    thread.join().unwrap()
}

/// Whose policy it is that keeps `hostile` from `db`; nobody else's does.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// Who is sent to.
    Receiver,
    /// Who sends.
    Sender,
}

/// Pods 1 to 3: `db`, to which `hostile` may not send, `open`, to which it may, and `hostile`. The first two have ports.
fn closed_and_open(daemon: &Daemon, node: &Node, by: By) -> [Pod; 3] {
    daemon.bridge("br0");
    let pods = [1, 2, 3].map(|n| node.bare_pod(n));
    for (pod, app) in pods.iter().zip(["db", "open"]) {
        let _: Done = daemon.call(&Request::PortAdd(Box::new(on(0, labelled(pod, app)))));
    }
    let spec = match by {
        By::Receiver => serde_json::json!({"podSelector": {"matchLabels": {"app": "db"}}}),
        By::Sender => {
            serde_json::json!({"podSelector": {"matchLabels": {"app": "hostile"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "open"}}}]}]})
        }
    };
    declare(daemon, "closed", spec);
    pods
}

/// Lives of a pod: its port is made while `senders` try already, and goes, over and over. Not one packet gets where none may; to the other
/// target so many do that they were sending.
fn live(
    daemon: &Daemon,
    lives: u32,
    port: &Port,
    senders: &[&Net],
    targets: Targets,
    [kept, free]: [Counting; 2],
) {
    for _ in 0..lives {
        let senders: Vec<_> = senders.iter().map(|net| sending(net, targets)).collect();
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port.clone())));
        std::thread::sleep(FIRST_INSTANTS);
        senders.into_iter().for_each(ended);
        let _: Done = daemon.call(&Request::PortDelete(ByName { name: port.name.clone() }));
    }
    let (kept, free) = (kept.end(), free.end());
    println!("{lives} lives: {kept} packets where none may be, {free} where they may");
    assert_eq!(kept, 0, "packets got in");
    assert!(
        free > lives,
        "{free} packets in {lives} lives: they were not sent from the first instant of each"
    );
}

/// The lane of a port is this worker's.
fn on(worker: u16, port: Port) -> Port {
    Port { settings: PortSettings { worker: Some(worker), ..port.settings }, ..port }
}

/// A pod that sends as soon as it can, and before: not to whom its own policy keeps it from.
#[test]
fn from_the_first_instant_nothing_passes_that_should_not() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    let pods = closed_and_open(&daemon, &node, By::Sender);
    let hostile = labelled(&pods[2], "hostile");
    live(&daemon, LIVES, &hostile, &[&pods[2].net], BOTH, Counting::both(&pods));
}

/// The same by AF_XDP: the cable is there before the port, and its pod sends all the while.
#[test]
fn from_the_first_instant_by_xdp_nothing_passes_that_should_not() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    let pods = closed_and_open(&daemon, &node, By::Sender);
    let hostile = node.pod(4);
    for pod in &pods[..2] {
        // Nobody answers while there is no port.
        hostile.net.ip(&format!("neigh replace {} lladdr {} dev eth0", pod.ip, pod.mac()));
    }
    let port = xdp_port(&hostile.device, "br0", PortSettings::default());
    let port = Port { workload: labelled(&hostile, "hostile").workload, ..port };
    live(&daemon, LIVES, &port, &[&hostile.net], BOTH, Counting::both(&pods));
    daemon.assert_conserved();
}

/// A frame between two workers was received under the snapshot of one and is sent under that of the other.
#[test]
fn from_the_first_instant_on_another_worker_nothing_passes_that_should_not() {
    let node = Node::new();
    let daemon = node.start(&switchd().with("--cores 0,1"));
    let pods = closed_and_open(&daemon, &node, By::Sender);
    let hostile = on(1, labelled(&pods[2], "hostile"));
    live(&daemon, SOME_LIVES, &hostile, &[&pods[2].net], BOTH, Counting::both(&pods));
    daemon.assert_conserved();
}

/// Pods that send to another before it is there: to the port that its own policy closes nothing comes, whoever's worker it is.
#[test]
fn a_pod_born_isolated_hears_nobody_from_its_first_instant() {
    for (cores, worker) in [("0", 0), ("0,1", 1)] {
        let node = Node::new();
        let daemon = node.start(&switchd().with(&format!("--cores {cores}")));
        daemon.bridge("br0");
        let [one, other, born] = [1, 2, 3].map(|n| node.bare_pod(n));
        for pod in [&one, &other] {
            let _: Done = daemon.call(&Request::PortAdd(Box::new(on(0, labelled(pod, "near")))));
            // Nobody answers while there is no port, and to a station that nobody knows is flooded.
            pod.net.ip(&format!("neigh replace {} lladdr {} dev eth0", born.ip, born.mac()));
        }
        let spec = serde_json::json!({
            "podSelector": {"matchLabels": {"app": "born"}},
            "ingress": [{"ports": [{"protocol": "UDP", "port": 8}]}],
        });
        declare(&daemon, "closed", spec);
        let counting = ["0.0.0.0:7", "0.0.0.0:8"].map(|address| Counting::start(&born.net, address));
        let port = on(worker, labelled(&born, "born"));
        live(&daemon, SOME_LIVES / 2, &port, &[&one.net, &other.net], PORTS, counting);
        daemon.assert_conserved();
    }
}

/// The daemon is killed and started again, over and over, while a pod sends whose port `attach` makes: at no moment is it open.
fn across_restarts(by: By, attach: fn(&Daemon, &Node, [Pod; 3]) -> [Pod; 3]) {
    let node = Node::new();
    let options = switchd().keeping_state();
    let mut daemon = node.start(&options);
    let pods = closed_and_open(&daemon, &node, by);
    let pods = attach(&daemon, &node, pods);
    let [kept, free] = Counting::both(&pods);
    let sender = sending(&pods[2].net, BOTH);
    let restarts = restarts();
    for round in 0..restarts {
        if round % 2 == 0 {
            daemon.kill()
        } else {
            daemon.stop(false)
        }
        daemon = node.start(&options);
        let before = free.so_far.load(Ordering::Relaxed);
        std::thread::sleep(20 * FIRST_INSTANTS);
        wait_until("it sends again", LONG, || free.so_far.load(Ordering::Relaxed) > before);
    }
    ended(sender);
    let (kept, free) = (kept.end(), free.end());
    println!("{restarts} restarts: {kept} packets where none may be, {free} where they may");
    assert_eq!(kept, 0, "packets got in");
    assert!(free > restarts, "{free} packets in {restarts} lives of the daemon");
}

#[test]
fn across_restarts_nothing_passes_that_should_not() {
    for by in [By::Receiver, By::Sender] {
        across_restarts(by, |daemon, _, pods| {
            let _: Done = daemon.call(&Request::PortAdd(Box::new(labelled(&pods[2], "hostile"))));
            pods
        });
    }
}

/// The same of a pod by AF_XDP, whose device and program stay while no daemon is there.
#[test]
fn across_restarts_by_xdp_nothing_passes_that_should_not() {
    for by in [By::Receiver, By::Sender] {
        across_restarts(by, |daemon, node, [db, open, _]| {
            let hostile = node.pod(4);
            for pod in [&db, &open] {
                hostile.net.ip(&format!("neigh replace {} lladdr {} dev eth0", pod.ip, pod.mac()));
            }
            let port = xdp_port(&hostile.device, "br0", PortSettings::default());
            let port = Port { workload: labelled(&hostile, "hostile").workload, ..port };
            let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
            [db, open, hostile]
        });
    }
}
