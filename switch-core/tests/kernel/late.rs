//! A worker that answers after everybody has given it up: what it hands over is taken all the same.

use crate::switchd;
use std::time::{Duration, Instant};
use switch_api::{ByName, Done, PortSettings, PortState, Request};
use switch_lab::node::xdp_port;
use switch_lab::trouble::Hung;
use switch_lab::{Daemon, Node, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn delete(daemon: &Daemon, pod: &Pod) -> Result<Done, switch_api::ApiError> {
    let name = pod.device.parse().unwrap();
    daemon.client().call(&Request::PortDelete(ByName { name }))
}

fn pins(node: &Node) -> usize {
    let entries = std::fs::read_dir(node.directory().join("bpf")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("link-")).count()
}

/// Every frame is at home: no port is there.
fn assert_all_at_home(daemon: &Daemon) {
    let all = || daemon.stats().frames;
    let deadline = std::time::Instant::now() + LONG;
    while all().free != all().total {
        assert!(std::time::Instant::now() < deadline, "frames are lost: {:?}\n{}", all(), daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!((all().in_rings, all().unaccounted), (0, 0), "{:?}", all());
}

#[test]
fn a_port_deleted_while_its_worker_hangs_leaves_no_program_and_no_frame() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&switchd());
    let hung = Hung::thread(daemon.pid(), "worker-0").unwrap();
    for pod in &pods {
        let late = delete(&daemon, pod).unwrap_err();
        assert!(late.message.contains("worker 0"), "{late:?}");
    }
    assert_eq!(pins(&node), 0, "nobody serves the devices, and their programs drop what comes");
    for pod in &pods {
        assert!(!node.net.ip(&format!("link show dev {}", pod.device)).contains("xdp"));
    }
    drop(hung);
    assert_all_at_home(&daemon);
    // Their sockets are closed, too: the queues can be had again.
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    daemon.assert_conserved();
}

/// Its device goes while the worker hangs; the lane of the next one is another.
#[test]
fn a_port_that_falls_while_its_worker_hangs_comes_back_with_all_frames() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&switchd());
    let hung = Hung::thread(daemon.pid(), "worker-0").unwrap();
    node.net.ip("link del pod2");
    wait_until("it is down", LONG, || daemon.port("pod2").state == PortState::Down);
    node.plug(&pods[1]);
    wait_until("it is up", LONG, || daemon.port("pod2").state == PortState::Up);
    drop(hung);
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    for pod in &pods {
        delete(&daemon, pod).unwrap();
    }
    assert_all_at_home(&daemon);
}

/// Who adds a port on a queue that another program has keeps nobody else waiting for long.
#[test]
fn a_queue_that_another_program_has_is_not_waited_for_long() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&switchd());
    // The program is off the device, and the socket on its queue all the same.
    let hung = Hung::thread(daemon.pid(), "worker-0").unwrap();
    _ = delete(&daemon, &pods[0]).unwrap_err();
    std::fs::create_dir(node.directory().join("second")).unwrap();
    let mut second = node.start_at("second/switchd.sock", &switchd());
    second.bridge("br0");
    let mut client = second.client();
    let add = Request::PortAdd(Box::new(xdp_port(&pods[0].device, "br0", PortSettings::default())));
    let mut took = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let refused = client.call::<Done>(&add).unwrap_err();
        assert!(refused.message.contains("bind"), "{refused:?}");
        took.push(start.elapsed());
    }
    assert!(took.iter().min() < Some(&Duration::from_millis(300)), "{took:?}");
    drop(hung);
    wait_until("it is free again", LONG, || client.call::<Done>(&add).is_ok());
    // It takes its bpffs along.
    second.stop(true);
}
