//! Several queues and several workers: a flow's frames stay in order, whatever queue they are written by and wherever a
//! lane is served; and what a pod can do to its own device of several queues.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;
use switch_api::{
    Done, Mac, Nothing, PortKind, PortSet, PortSettings, PortState, Rebalance, Rebalanced, Request,
    WorkerStatus,
};
use switch_core::port::tap::device::Descriptor;
use switch_core::port::tap::steering;
use switch_core::port::traffic::udp_frame;
use switch_core::port::xdp::IDLE_FRAMES;
use switch_lab::node::tap_port;
use switch_lab::sequence::{self, Tally};
use switch_lab::transfer::tcp;
use switch_lab::{Daemon, Net, Node, Options, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// Datagrams under way in each direction: both together, each alone in its parcel, find room in one worker's inbox.
const WINDOW: u64 = 60;
/// The same for AF_XDP: a third of what an idle socket has room for. A turn can take two batches of a socket
/// (`serve_first`, then `run`) and send both before it gives the socket fresh frames: a sender that has been answered
/// twice by then has a third window under way.
const WINDOW_XDP: u64 = IDLE_FRAMES as u64 / 3;
/// Addresses of a pod: UDP is spread over queues by addresses.
const ADDRESSES: u8 = 4;

fn two_workers() -> Options {
    Options::new(env!("CARGO_BIN_EXE_switchd")).with("--cores 0,1")
}

fn add_tap(daemon: &Daemon, pod: &Pod, queues: u16) {
    let mut port = tap_port(pod, "br0", PortSettings::default());
    if let PortKind::Tap { queues: wanted, .. } = &mut port.kind {
        *wanted = queues;
    }
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
}

/// The pods' first and further addresses, each of the one with each of the other.
fn pairs(pods: &[Pod]) -> Vec<(IpAddr, IpAddr)> {
    let further = |pod: &Pod| -> Vec<IpAddr> {
        let first = pod.number() * 10;
        let all: Vec<_> = (first..first + ADDRESSES).map(|n| IpAddr::from([10, 66, 0, n])).collect();
        all.iter().for_each(|address| drop(pod.net.ip(&format!("addr add {address}/24 dev eth0"))));
        all
    };
    let (near, far) = (further(&pods[0]), further(&pods[1]));
    // Known for good: what a kernel sends while it works off what waited for an answer may overtake that.
    for (own, other, addresses) in [(0, 1, &far), (1, 0, &near)] {
        for address in addresses {
            let mac = pods[other].mac();
            pods[own].net.ip(&format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent"));
        }
    }
    near.iter().flat_map(|a| far.iter().map(|b| (*a, *b))).collect()
}

/// Packets that a queue of the pod's device was given by its kernel.
fn given(net: &Net) -> Vec<u64> {
    let said = net.run("tc -s qdisc show dev eth0");
    let sent = said.lines().filter_map(|line| line.trim().strip_prefix("Sent "));
    let packets = sent.filter_map(|rest| rest.split_whitespace().nth(2)?.parse().ok());
    // The first is the root's, the sum of all.
    packets.skip(1).collect()
}

fn tcp_out_of_order(net: &Net) -> u64 {
    let said = net.run("nstat -asz TcpExtTCPOFOQueue");
    said.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

fn nothing_but_sent(tally: Tally) {
    assert_eq!((tally.lost, tally.overtaken), (0, 0), "{tally:?}");
}

#[test]
fn flows_stay_in_order_while_both_queues_send() {
    let node = Node::new();
    let daemon = node.start(&two_workers());
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    pods.iter().for_each(|pod| add_tap(&daemon, pod, 2));
    let pairs = pairs(&pods);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let load = sequence::start(&pods[0].net, &pods[1].net, &pairs, WINDOW);
    wait_until("enough datagrams", 6 * LONG, || load.received() > 30_000);
    nothing_but_sent(load.finish());
    for pod in &pods {
        let queues = given(&pod.net);
        assert_eq!(queues.len(), 2, "{queues:?}");
        assert!(queues.iter().all(|packets| *packets > 2_000), "a queue was hardly used: {queues:?}");
    }
    for (from, to, address) in [(0, 1, "10.66.0.2"), (1, 0, "10.66.0.1"), (0, 1, "fd66::2")] {
        assert_eq!(tcp(&pods[from].net, &pods[to].net, address.parse().unwrap(), 30_000_000), 30_000_000);
    }
    assert_eq!(
        tcp_out_of_order(&pods[0].net) + tcp_out_of_order(&pods[1].net),
        0,
        "TCP segments out of order"
    );
    daemon.assert_conserved();
}

/// A bare device of two queues with the address `10.77.0.1`, its far station a known neighbour.
fn two_queues(net: &Net) -> [Descriptor; 2] {
    let queues = net.inside(|| [Descriptor::create("eth0", true), Descriptor::attach("eth0", true)]);
    let queues = queues.join().unwrap().map(|queue| queue.unwrap());
    net.ip(&format!("link set eth0 address {STATION} up"));
    net.ip("addr add 10.77.0.1/24 dev eth0");
    net.ip(&format!("neigh add 10.77.0.2 lladdr {FAR} dev eth0 nud permanent"));
    queues
}

const STATION: Mac = Mac([2, 0x77, 0, 0, 0, 1]);
const FAR: Mac = Mac([2, 0x77, 0, 0, 0, 2]);

/// What came by each queue since the last look: UDP packets, fragments too, to the far address.
fn came(queues: &[Descriptor; 2]) -> [usize; 2] {
    let is_udp =
        |packet: &[u8]| packet[22..24] == [8, 0] && packet[33] == 17 && packet[40..44] == [10, 77, 0, 2];
    let mut packet = [0; 2048];
    queues.each_ref().map(|queue| {
        std::iter::from_fn(|| {
            rustix::io::read(queue.as_fd(), &mut packet[..]).ok().map(|len| packet[..len].to_vec())
        })
        .filter(|packet| packet.len() > 44 && is_udp(packet))
        .count()
    })
}

/// What the far end answers, written by one of the queues.
fn answer(queue: &Descriptor, to: u16) {
    let mut frame = udp_frame(STATION, FAR, 0, 60);
    frame[24..34].copy_from_slice(&[0, 0, 10, 77, 0, 2, 10, 77, 0, 1]);
    let checksum = !frame[14..34].chunks(2).fold(0u32, |sum, pair| {
        let sum = sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        (sum & 0xffff) + (sum >> 16)
    });
    frame[24..26].copy_from_slice(&(checksum as u16).to_be_bytes());
    frame[34..38].copy_from_slice(&[7000u16.to_be_bytes(), to.to_be_bytes()].concat());
    let bytes = [&[0; 10][..], &frame].concat();
    assert_eq!(rustix::io::write(queue.as_fd(), &bytes), Ok(bytes.len()));
}

/// Sends some, and by which queue they came, one of each length.
fn queue_of(net: &Net, queues: &[Descriptor; 2], socket: &UdpSocket, len: usize) -> usize {
    let sent = socket.try_clone().unwrap();
    net.inside(move || (0..5).for_each(|_| assert_eq!(sent.send(&vec![1; len]).unwrap(), len)))
        .join()
        .unwrap();
    let came = came(queues);
    let packets = 5 * (len + 8).div_ceil(1480);
    let queue = came.iter().position(|packets| *packets > 0);
    assert_eq!(came.iter().sum::<usize>(), packets, "{came:?}");
    assert!(came.contains(&packets), "one flow came by both queues: {came:?}");
    queue.unwrap()
}

/// The kernel by itself lets a flow follow whatever queue its last answer was written by; the program does not.
#[test]
fn a_flow_from_the_pod_keeps_its_queue_whatever_it_is_answered_by() {
    let net = Net::new("pod1");
    let queues = two_queues(&net);
    let open = || {
        let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
        socket.connect("10.77.0.2:7000").unwrap();
        socket
    };
    let socket = net.inside(open).join().unwrap();
    let port = socket.local_addr().unwrap().port();
    let after_answer_by = |queue: usize| {
        answer(&queues[queue], port);
        queue_of(&net, &queues, &socket, 100)
    };
    assert_eq!([0, 1, 0, 1].map(after_answer_by), [0, 1, 0, 1], "the kernel is another one than it was");
    steering::steer(&queues[0], 2).unwrap();
    let queue = queue_of(&net, &queues, &socket, 100);
    assert_eq!([0, 1, 0, 1].map(after_answer_by), [queue; 4]);
    assert_eq!(queue_of(&net, &queues, &socket, 4000), queue, "fragments overtake what is whole");
    let others = (0..32).map(|_| queue_of(&net, &queues, &net.inside(open).join().unwrap(), 60));
    assert!(others.into_iter().all(|other| other == queue), "UDP goes by addresses");
    // A queue that somebody else attached is not one of ours.
    let third = net.inside(|| Descriptor::attach("eth0", true).unwrap()).join().unwrap();
    assert_eq!([0, 1, 0, 1].map(after_answer_by), [queue; 4]);
    drop(third);
    // Without the program it follows again.
    queues[1].set_steering(-1).unwrap();
    assert_eq!([0, 1].map(after_answer_by), [0, 1]);
}

/// What a pod that may do everything in its own namespace does to its device of several queues: it harms itself at most.
#[test]
fn a_hostile_pod_reaches_nobody_but_itself() {
    let node = Node::new();
    let options = two_workers().keeping_state();
    let mut daemon = node.start(&options);
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2), node.bare_pod(3)];
    pods.iter().for_each(|pod| add_tap(&daemon, pod, 2));
    let hostile = &pods[2].net;
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2") && pods[0].reaches("10.66.0.3"));
    let load = sequence::start(&pods[0].net, &pods[1].net, &pairs(&pods), WINDOW);
    let is = |state| daemon.port(&pods[2].device).state == state;

    let own = hostile.inside(|| Descriptor::attach("eth0", true).unwrap()).join().unwrap();
    for _ in 0..5 {
        assert!(pods[2].reaches("10.66.0.1"), "a queue that it attached gets what is for the switch");
    }
    let nothing = rustix::io::read(own.as_fd(), &mut [0; 2048][..]);
    assert_eq!(nothing, Err(rustix::io::Errno::AGAIN), "its queue was given a frame");
    // Frames that it writes are for its own kernel; the switch never sees them.
    let received = daemon.port(&pods[2].device).counters.rx_packets;
    let lie = udp_frame(pods[1].mac(), pods[0].mac(), 0, 60);
    for _ in 0..100 {
        assert!(rustix::io::write(own.as_fd(), &[&[0; 10][..], &lie].concat()).is_ok());
    }
    assert!(daemon.port(&pods[2].device).counters.rx_packets < received + 100);
    // Without our program its own flows may go astray and overtake each other: into its own queue, for one.
    own.set_steering(-1).unwrap();
    _ = hostile.try_run("ping -n -q -c 20 -i 0.01 -W 1 10.66.0.1");
    own.set_persistent(false).unwrap();
    drop(own);
    assert!(is(PortState::Up));
    wait_until("it reaches the others again", LONG, || pods[2].reaches("10.66.0.1"));
    // Another pod's device cannot be named from here: a new one is made, in its own namespace.
    let other = hostile.inside(|| Descriptor::attach("tap1", true).unwrap()).join().unwrap();
    assert!(!pods[0].net.try_run("ip link show tap1").status.success());
    drop(other);
    // It attaches and lets go all the time, and deletes its device in the end.
    for _ in 0..10 {
        drop(hostile.inside(|| Descriptor::attach("eth0", true).unwrap()).join().unwrap());
    }
    hostile.ip("link del eth0");
    let is_there = || hostile.try_run("ip link show eth0").status.success();
    wait_until("made again", LONG, || is_there() && is(PortState::Up));
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.3"));
    nothing_but_sent(load.finish());
    daemon.assert_conserved();

    // One that is not persistent goes with the daemon, and comes back with the next.
    let own = hostile.inside(|| Descriptor::attach("eth0", true).unwrap()).join().unwrap();
    own.set_persistent(false).unwrap();
    drop(own);
    daemon.kill();
    assert!(!hostile.try_run("ip link show eth0").status.success());
    assert!(pods[0].net.try_run("ip link show eth0").status.success());
    let daemon = node.start(&options);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.3") && pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}

/// Every lane goes to and fro between two workers, some hundreds of times, while numbered datagrams cross both ways.
fn lanes_move_under_load(daemon: &Daemon, pods: &[Pod], window: u64, moves: u32) {
    let pairs = pairs(pods);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2") && pods[1].reaches("10.66.0.1"));
    let load = sequence::start(&pods[0].net, &pods[1].net, &pairs, window);
    for n in 0..moves {
        let pod = &pods[(n % 2) as usize];
        let settings = PortSettings { worker: Some((n / 2 % 2) as u16), ..PortSettings::default() };
        let set = PortSet { name: pod.device.parse().unwrap(), settings };
        let _: Done = daemon.call(&Request::PortSet(set));
        let before = load.received();
        wait_until("the load goes on", LONG, || load.received() > before + 20);
    }
    let tally = load.finish();
    assert!(tally.sent > u64::from(moves) * 20, "{tally:?}");
    assert_eq!((tally.lost, tally.overtaken), (0, 0), "{tally:?}\n{:?}", daemon.stats().drops);
    daemon.assert_conserved();
}

#[test]
fn no_frame_is_lost_or_overtaken_while_tap_lanes_move() {
    let node = Node::new();
    let daemon = node.start(&two_workers());
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    pods.iter().for_each(|pod| add_tap(&daemon, pod, 2));
    lanes_move_under_load(&daemon, &pods, WINDOW, 300);
    // Each queue by its own worker, as it was told.
    let place = |queue_workers: &[u16]| {
        let settings = PortSettings { queue_workers: queue_workers.to_vec(), ..PortSettings::default() };
        daemon.client().call::<Done>(&Request::PortSet(PortSet { name: "tap1".parse().unwrap(), settings }))
    };
    for workers in [[1, 0], [0, 1], [1, 1]] {
        place(&workers).unwrap();
        assert_eq!(daemon.port("tap1").workers, workers);
    }
    let refused = place(&[0, 2]).unwrap_err();
    assert!(refused.message.contains("no worker 2, only 0 to 1"), "{refused:?}");
    daemon.assert_conserved();
}

#[test]
fn no_frame_is_lost_or_overtaken_while_xdp_lanes_move() {
    let node = Node::new();
    let daemon = node.start(&two_workers());
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    pods.iter().for_each(|pod| daemon.attach(pod, "br0", PortSettings::default()));
    lanes_move_under_load(&daemon, &pods, WINDOW_XDP, 300);
}

/// Two pairs of pods on one of two workers: asked to, the switch moves some of them to the other, while they talk.
#[test]
fn lanes_move_to_where_there_is_time() {
    let node = Node::new();
    let daemon = node.start(&two_workers());
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    for pod in &pods {
        let settings = PortSettings { worker: Some(0), ..PortSettings::default() };
        let _: Done = daemon.call(&Request::PortAdd(Box::new(tap_port(pod, "br0", settings))));
    }
    let ask = |dry_run| -> Rebalanced { daemon.call(&Request::WorkerRebalance(Rebalance { dry_run })) };
    let load = sequence::start(&pods[0].net, &pods[1].net, &pairs(&pods), WINDOW);
    // The load has pauses, and costs a quick machine little. Each of these has one packet under way, however quick it is.
    let _busy: Vec<_> = (0..4).map(|_| pods[0].net.spawn("ping -q -f -s 1000 10.66.0.2")).collect();
    let workers = || daemon.call::<Vec<WorkerStatus>>(&Request::WorkerList(Nothing {}));
    wait_until("the lanes cost something", 3 * LONG, || {
        workers()[0].lanes.iter().all(|lane| lane.busy_percent > 6.0)
    });
    assert_eq!(ask(true).moves, [], "they were told where to be");
    for pod in &pods {
        let set = PortSet { name: pod.device.parse().unwrap(), settings: PortSettings::default() };
        let _: Done = daemon.call(&Request::PortSet(set));
    }
    let planned = ask(true);
    assert_eq!(planned.moves.len(), 1, "{planned:?}");
    assert!(workers()[1].lanes.is_empty(), "it only said so");
    let done = ask(false);
    assert_eq!((done.moves.len(), done.moves[0].from, done.moves[0].to), (1, 0, 1), "{done:?}");
    assert_eq!(workers().iter().map(|worker| worker.lanes.len()).collect::<Vec<_>>(), [1, 1]);
    nothing_but_sent(load.finish());
    daemon.assert_conserved();
}

/// The same unasked (`--rebalance auto`): what has been plainly uneven for ten seconds is evened out, and those who talk notice nothing.
#[test]
fn lanes_move_by_themselves_and_lose_nothing() {
    let node = Node::new();
    let daemon = node.start(&two_workers().with("--rebalance auto"));
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    for pod in &pods {
        let settings = PortSettings { worker: Some(0), ..PortSettings::default() };
        let _: Done = daemon.call(&Request::PortAdd(Box::new(tap_port(pod, "br0", settings))));
    }
    let pairs = pairs(&pods);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let load = sequence::start(&pods[0].net, &pods[1].net, &pairs, WINDOW);
    // Each has one packet under way: they keep a worker busy and fill nobody's inbox.
    let busy: Vec<_> = (0..4).map(|_| pods[0].net.spawn("ping -q -f -s 1000 10.66.0.2")).collect();
    let workers = || daemon.call::<Vec<WorkerStatus>>(&Request::WorkerList(Nothing {}));
    wait_until("the lanes cost much", 3 * LONG, || {
        workers()[0].lanes.iter().all(|lane| lane.busy_percent > 22.0)
    });
    let placed = || workers().iter().map(|worker| worker.lanes.len()).collect::<Vec<_>>();
    assert_eq!(placed(), [2, 0], "they were told where to be");
    for pod in &pods {
        let set = PortSet { name: pod.device.parse().unwrap(), settings: PortSettings::default() };
        let _: Done = daemon.call(&Request::PortSet(set));
    }
    wait_until("one goes to where there is time", 6 * LONG, || placed() == [1, 1]);
    let before = load.received();
    wait_until("the load goes on", LONG, || load.received() > before + 1_000);
    drop(busy);
    nothing_but_sent(load.finish());
    daemon.assert_conserved();
}
