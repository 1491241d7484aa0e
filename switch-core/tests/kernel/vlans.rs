//! What a VLAN had when its last port leaves it: stations and flows are filed by numbers that others are given.

use crate::switchd;
use std::time::Duration;
use switch_api::{
    Done, FdbEntry, FdbFilter, FlowList, FlowPage, Mac, PortSet, PortSettings, Request, Vid, Vlan,
};
use switch_lab::frames::{plain, station};
use switch_lab::{Daemon, Node, Pod, RawSocket, wait_until};

const LONG: Duration = Duration::from_secs(10);

fn tracked(vid: u32) -> PortSettings {
    let vlan = Vlan::Access { vid: Vid::try_from(vid).unwrap() };
    PortSettings { vlan, track: true, ..PortSettings::default() }
}

fn moves(daemon: &Daemon, pod: &Pod, vid: u32) {
    let set = PortSet { name: pod.device.parse().unwrap(), settings: tracked(vid) };
    let _: Done = daemon.call(&Request::PortSet(set));
}

fn knows(daemon: &Daemon, mac: Mac) -> bool {
    let stations: Vec<FdbEntry> = daemon.call(&Request::FdbList(FdbFilter::default()));
    stations.iter().any(|entry| entry.mac == mac)
}

#[test]
fn a_vlan_that_nobody_is_in_any_more_leaves_nothing() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pods: Vec<Pod> = (1..=3).map(|n| node.bare_pod(n)).collect();
    for (pod, vid) in pods.iter().zip([10, 10, 30]) {
        daemon.attach_tap(pod, "br0", tracked(vid));
    }
    // The only port of its VLAN goes to one that is new in the same change.
    let alone = &pods[2];
    let socket = RawSocket::open(&alone.net, "eth0").unwrap();
    wait_until("it is learned", LONG, || {
        socket.send(&plain(Mac([0xff; 6]), station(77), 1, 60));
        knows(&daemon, station(77))
    });
    moves(&daemon, alone, 40);
    assert!(!knows(&daemon, station(77)), "learned in VLAN 30, and known in VLAN 40");

    let zones = || {
        let page: FlowPage = daemon.call(&Request::FlowList(FlowList::default()));
        page.flows.into_iter().map(|flow| flow.zone).collect::<Vec<_>>()
    };
    wait_until("ping", LONG, || pods[0].reaches(&pods[1].ip));
    assert!(zones().iter().any(|zone| zone == "br0/10"), "{:?}", zones());
    pods[..2].iter().for_each(|pod| moves(&daemon, pod, 20));
    assert!(zones().iter().all(|zone| zone != "br0/10" && zone != "-"), "{:?}", zones());
    wait_until("ping in the other VLAN", LONG, || pods[0].reaches(&pods[1].ip));
    daemon.assert_conserved();
}
