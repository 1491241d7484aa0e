//! A hundred thousand rules in one request: taken, in force, listed and replaced, while packets go on.

use crate::switchd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use switch_api::codec::LINE_LEN_MAX;
use switch_api::{Acl, AclStatus, Done, Nothing, Request, Status};
use switch_lab::scenes::{datagrams, shop};
use switch_lab::{Net, bind_udp, uninterrupted};

/// Rules of a list, about what a port is sent and about what it sends, and the first of their ports: networks by ports.
const LISTS: [(usize, usize, u16); 3] = [(50_000, 49_999, 1), (50_000, 49_999, 301), (100_000, 0, 1)];
/// A request of so many rules is answered within this time, also by a program that is not optimised.
const ANSWERED: Duration = Duration::from_secs(60);
/// How long nobody sends before all that was sent has come.
const SILENCE: Duration = Duration::from_secs(2);
/// Between two datagrams beside it.
const PACE: Duration = Duration::from_millis(1);

/// Denies UDP from a network each, in `10.128.0.0/9` and above, on one of some hundred ports; the last one denies UDP 9999.
fn list((ingress, egress, first_port): (usize, usize, u16)) -> Acl {
    let rule = |n: usize| {
        serde_json::json!({
            "action": "deny", "protocol": "udp", "source": [format!("172.16.{}.0/24", n % 250)],
            "destination_ports": [usize::from(first_port) + n / 250],
        })
    };
    let last = serde_json::json!({"action": "deny", "protocol": "udp", "destination_ports": [9999]});
    serde_json::from_value(serde_json::json!({
        "name": "many", "applies_to": {"ports": ["tap1"]},
        "ingress": (1..ingress).map(rule).chain([last]).collect::<Vec<_>>(),
        "egress": (0..egress).map(rule).collect::<Vec<_>>(),
    }))
    .unwrap()
}

/// Sends a datagram every millisecond until told to stop. How many were sent, and how many of them came.
fn stream(from: &Net, to: &Net, stop: Arc<AtomicBool>) -> impl FnOnce() -> (u64, u64) + use<> {
    let socket = to.inside(|| bind_udp("10.66.0.3:7000".to_owned())).join().unwrap();
    // Of a datagram so small the kernel counts four times the room that it takes; this is for half a minute.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 32 << 20).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let is_over = stop.clone();
    let receiver = std::thread::spawn(move || {
        let (mut buffer, mut came) = ([0; 64], 0);
        loop {
            // A silence counts that began when all were sent.
            let is_last = is_over.load(Ordering::Relaxed);
            match uninterrupted(|| socket.recv(&mut buffer)) {
                Ok(_) => came += 1,
                Err(_) if is_last => return came,
                Err(_) => {}
            }
        }
    });
    let sender = from.inside(move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            socket.send_to(b"on and on", "10.66.0.3:7000").unwrap();
            sent += 1;
            std::thread::sleep(PACE);
        }
        sent
    });
    move || (sender.join().unwrap(), receiver.join().unwrap())
}

#[test]
fn a_hundred_thousand_rules_in_one_request_while_packets_go_on() {
    let (_node, mut daemon, pods) = shop(&switchd().with("--cores 0"));
    let [db, web, other] = &pods[..] else { panic!() };
    let stop = Arc::new(AtomicBool::new(false));
    let ends = stream(&web.net, &other.net, stop.clone());
    for shape in LISTS {
        let (ingress, egress, _) = shape;
        let request = Request::AclSet(Box::new(list(shape)));
        assert!(switch_api::codec::encode_request(1, &request).len() > 8 * LINE_LEN_MAX);
        let mut client = switch_api::Client::connect(&daemon.socket, ANSWERED).unwrap();
        let began = Instant::now();
        let _: Done = client.call(&request).unwrap();
        println!("{ingress} and {egress} rules took {:?}", began.elapsed());
        assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 9999), 0, "the last rule is in force");
        assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 9998), 10);
        let lists: Vec<AclStatus> = client.call(&Request::AclList(Nothing {})).unwrap();
        assert_eq!(lists[0].rules.len(), ingress + egress);
        assert!(lists[0].rules[ingress - 1].packets >= 10);
    }
    stop.store(true, Ordering::Relaxed);
    let (sent, came) = ends();
    assert!(sent > 100 && came == sent, "of {sent} datagrams beside it {came} came");
    let _: Status = daemon.call(&Request::Status(Default::default()));
    daemon.assert_conserved();
    daemon.stop(true);
}
