//! What is known by its very words is nobody else's: flows whose entries others were given since, and stations that have the same addresses in
//! another zone. What both ways of asking have in common is tried by the twins (`glance_tests`), which meet them in turns: under test one batch passes
//! the cache by where others let sixty.

use super::policy_tests::{NOW, Net, answer, arrives, introduce, mac, net, packet, pod};
use crate::table::flow::CHUNK;
use crate::table::flow::state::Stage;
use switch_api::{NetworkPolicy, Protocol, Request};

/// `web` may ask `db` by these ports.
fn policy(first: u16, last: u16) -> NetworkPolicy {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
                "ports": [{"protocol": "UDP", "port": first, "endPort": last}],
            }],
        },
    }))
    .unwrap()
}

fn lab() -> Net {
    let mut net = net(vec![], &[pod("db", "10.0.0.1"), pod("web", "10.0.0.2")], &[policy(1, 9999)]);
    introduce(&mut net);
    net
}

fn question(port: u16) -> Vec<u8> {
    let addresses = ["10.0.0.2", "10.0.0.1"].map(|ip| ip.parse().unwrap());
    packet((mac(0), mac(1)), addresses[0], addresses[1], (Protocol::Udp, port), 7)
}

/// A flow that goes on, and is known by its words both ways.
fn stream(net: &mut Net, port: u16) {
    for _ in 0..5 {
        assert!(arrives(net, 1, 0, question(port)));
        assert!(arrives(net, 0, 1, answer(&question(port))));
    }
}

fn place(net: &Net, port: u16) -> Option<u32> {
    let (mut found, table) = (None, &net.rig.tables.flows);
    table.scan(0..table.places(), NOW.s(), |place, entry| {
        if entry.key.ends().iter().any(|end| end.port == port) {
            found = Some(place);
        }
    });
    found
}

#[test]
fn words_say_nothing_of_a_flow_that_was_given_the_place() {
    let mut net = lab();
    stream(&mut net, 1);
    let first = place(&net, 1).unwrap();
    assert!(net.rig.tables.flows.kill_at(first));
    // Others come until one has its place, and goes on.
    let other = (2..2 + 4 * CHUNK as u16).find(|port| {
        stream(&mut net, *port);
        place(&net, *port) == Some(first)
    });
    let other = other.expect("the place is used again");
    assert_eq!(net.rig.tables.flows.state(first).stage, Stage::UdpStream);
    // Whoever took the first one's packet for the other's would let it pass; it begins a flow of its own, which it may not any more.
    net.rig.declare(&Request::PolicySet(Box::new(policy(other, other)))).unwrap();
    assert!(arrives(&mut net, 1, 0, question(other)), "that one is judged again, and may");
    assert!(!arrives(&mut net, 1, 0, question(1)));
    assert_eq!(place(&net, 1), None);
    net.rig.assert_conserved();
}

#[test]
fn words_say_nothing_of_a_flow_that_ended() {
    let mut net = lab();
    stream(&mut net, 1);
    assert!(net.rig.tables.flows.kill_at(place(&net, 1).unwrap()));
    net.rig.declare(&Request::PolicySet(Box::new(policy(2, 2)))).unwrap();
    assert!(!arrives(&mut net, 1, 0, question(1)));
    net.rig.assert_conserved();
}

/// Half of a batch is known, and the others, more of them than are asked about one by one, are not: each is what it is.
#[test]
fn a_batch_is_known_in_part() {
    let mut net = lab();
    (1..=8).for_each(|port| stream(&mut net, port));
    net.rig.declare(&Request::PolicySet(Box::new(policy(1, 12)))).unwrap();
    // 1 to 8 go on, 9 to 12 begin, 13 to 20 may not.
    let ports: Vec<u16> = (1..=10).flat_map(|port| [port, port + 10]).collect();
    ports.iter().for_each(|port| assert!(net.peers[1].send(question(*port))));
    net.rig.settle(NOW);
    let came: Vec<u16> = std::iter::from_fn(|| net.peers[0].recv())
        .map(|frame| u16::from_be_bytes([frame[36], frame[37]]))
        .collect();
    assert_eq!(came, ports.into_iter().filter(|port| *port <= 12).collect::<Vec<_>>(), "in their order");
    net.rig.assert_conserved();
}
