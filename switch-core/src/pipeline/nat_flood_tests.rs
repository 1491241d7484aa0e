//! What is translated and flooded, where policies judge: it is asked where it really goes, and begins no flow before it is known where that is.

use super::nat_rig::{Net, P, What, destination, host};
use crate::counter::{DropReason, Event};
use serde_json::json;
use switch_api::{PortLabel, Request};

/// The client behind `p0` is isolated as a sender: it may ask a network.
fn isolate(net: &mut Net, cidr: &str) {
    let workload = json!({"namespace": "shop", "labels": {"app": "web"}, "addresses": ["10.0.0.10"]});
    let workload = Some(serde_json::from_value(workload).unwrap());
    let label = PortLabel { name: "p0".parse().unwrap(), workload };
    net.rig.declare(&Request::PortLabel(label)).unwrap();
    let policy = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"ipBlock": {"cidr": cidr}}]}]}});
    net.rig.declare(&Request::PolicySet(Box::new(serde_json::from_value(policy).unwrap()))).unwrap();
}

/// From the client to a virtual address, which leads to a server on the other bridge.
const VIRTUAL: &str = "10.9.0.1";

fn lab() -> (Net, P) {
    let server = host(false, 1, 10);
    let rules = [destination("dns", super::nat_rig::ip(VIRTUAL), Some(53), server, Some(5353))];
    (Net::new(1, &rules), P::udp("10.0.0.10", 4000, VIRTUAL, 53))
}

/// Nobody knows any more where the server is.
fn forget(net: &Net) {
    net.rig.tables.fdb.forget(1, true);
}

#[test]
fn what_is_to_be_translated_begins_when_its_destination_is_known() {
    let (mut net, asks) = lab();
    isolate(&mut net, "10.1.0.0/16");
    forget(&net);
    for n in 1..=3 {
        assert_eq!(net.send(asks), None);
        assert_eq!(net.rig.drops(DropReason::NatFlooded), n);
        assert_eq!(net.rig.tables.flows.counted().all, 0, "no flow is bound");
    }
    // The server says something, and the flow begins.
    let server = host(false, 1, 10);
    let says = P { what: What::Udp, src: server, dst: host(false, 1, 1), ports: [1, 1] };
    net.send_raw(1, 10, &says.packet(&[]));
    let arrives = P { dst: server, ports: [4000, 5353], ..asks };
    assert_eq!(net.send(asks), Some(arrives));
    assert_eq!(net.send(arrives.mirror()), Some(asks.mirror()));
    // It goes on by a flood.
    forget(&net);
    assert_eq!(net.send(asks), Some(arrives));
    assert_eq!(net.rig.counters[0].event(Event::FlowNew).get(), 1);
}

#[test]
fn a_flood_is_asked_about_where_it_really_goes() {
    let (mut net, asks) = lab();
    isolate(&mut net, "10.1.0.0/16");
    assert!(net.send(asks).is_some());
    forget(&net);
    // It may ask the virtual address and not the server.
    isolate(&mut net, "10.9.0.0/16");
    for n in 1..=2 {
        assert_eq!(net.send(asks), None);
        assert_eq!(net.rig.drops(DropReason::PolicyEgress), n);
    }
    isolate(&mut net, "10.1.0.0/16");
    assert!(net.send(asks).is_some());
}
