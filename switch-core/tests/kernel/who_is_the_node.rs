//! Who is the node to policies: its own addresses, behind its own port. A service that its kube-proxy turns around comes from there with
//! a pod's address, and is that pod's.

use crate::switchd;
use std::net::UdpSocket;
use std::time::Duration;
use switch_api::{Done, NetworkPolicy, Request};
use switch_lab::scenes::shop;
use switch_lab::{Net, bind_udp};

const SILENCE: Duration = Duration::from_millis(300);

/// Of ten datagrams to `db` from this address of the sender's, which ends so, how many come.
fn from_address(v6: bool, sender: &Net, from: u8, db: &Net, port: u16) -> usize {
    let address = move |n: u8| if v6 { format!("[fd66::{n}]") } else { format!("10.66.0.{n}") };
    let socket = db.inside(move || bind_udp(format!("{}:{port}", address(1)))).join().unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let send = move || {
        let socket = UdpSocket::bind(format!("{}:0", address(from))).unwrap();
        (0..10).for_each(|_| _ = socket.send_to(b"hello", format!("{}:{port}", address(1))));
    };
    sender.inside(send).join().unwrap();
    std::iter::from_fn(|| socket.recv(&mut [0; 64]).ok()).count()
}

#[test]
fn a_pods_address_behind_the_nodes_port_is_judged_as_that_pod() {
    let (node, daemon, pods) = shop(&switchd());
    let [db, _, other] = &pods[..] else { panic!() };
    // As kube-proxy lets packets of pods leave by the node; and a pod that would like to be the node.
    for n in [2, 3] {
        node.net.ip(&format!("addr add 10.66.0.{n}/32 dev lo"));
        node.net.ip(&format!("addr add fd66::{n}/128 dev lo nodad"));
    }
    other.net.ip("addr add 10.66.0.9/32 dev lo");
    other.net.ip("addr add fd66::9/128 dev lo nodad");
    let policy = serde_json::json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
                "ports": [{"protocol": "UDP", "port": 5432}],
            }],
        },
    });
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    let _: Done = daemon.call(&Request::PolicyAdd(Box::new(policy)));
    for v6 in [false, true] {
        let [ingress, source] = ["policy-ingress", "policy-source"].map(|reason| daemon.drops(reason));
        // The node itself reaches its pods, whatever they allow.
        assert_eq!(from_address(v6, &node.net, 9, &db.net, 1), 10);
        // From the node's port as `web`: what `web` may. As `other`: nothing.
        assert_eq!(from_address(v6, &node.net, 2, &db.net, 5432), 10);
        assert_eq!(from_address(v6, &node.net, 2, &db.net, 5433), 0);
        assert_eq!(from_address(v6, &node.net, 3, &db.net, 5432), 0);
        assert!(daemon.drops("policy-ingress") >= ingress + 20);
        // The node's address behind a pod's port is no one's.
        assert_eq!(from_address(v6, &other.net, 9, &db.net, 5432), 0);
        assert!(daemon.drops("policy-source") > source);
    }
    daemon.assert_conserved();
}
