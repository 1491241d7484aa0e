//! Rate limits, from what is declared to what arrives.

use super::superframes::{MSS, noise, train};
use super::*;
use switch_api::{Limit, PortLimits, PortSet};

const MS: u64 = 1_000_000;
/// Less than what a rate of one a second needs to fill a bucket: each begins full all the same.
const START_NS: u64 = 1_000_000_000_000;

fn limit(per_s: u64, burst: u64) -> Option<Limit> {
    Some(Limit { per_s, burst: Some(burst) })
}

fn limited(limits: PortLimits) -> PortSettings {
    PortSettings { limits, ..PortSettings::default() }
}

fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x88, 0xb6];
    frame.resize(len, 0);
    frame
}

fn arrived(peer: &MemoryPeer) -> usize {
    std::iter::from_fn(|| peer.recv()).count()
}

/// A frame of `len` bytes every millisecond for ten seconds by port 0; how many arrive at port 1.
fn ten_seconds(rig: &mut Rig, peers: &[MemoryPeer], len: usize) -> usize {
    let each = |ms: u64| {
        assert!(peers[0].send(frame(len)));
        rig.settle(Now { ns: START_NS + ms * MS });
        arrived(&peers[1])
    };
    (0..10_000).map(each).sum()
}

#[test]
fn a_port_sends_no_faster_than_it_may() {
    let limits = PortLimits { rx_packets: limit(100, 20), ..PortLimits::default() };
    let (mut rig, peers) = rig(&[limited(limits), PortSettings::default()], 1, 1);
    let got = ten_seconds(&mut rig, &peers, 60);
    assert!((1018..=1021).contains(&got), "{got}");
    assert_eq!(rig.drops(DropReason::RateLimitedRx), 10_000 - got as u64);
    // What it is sent is something else.
    let mut back = frame(60);
    back[..12].rotate_left(6);
    for _ in 0..100 {
        assert!(peers[1].send(back.clone()));
    }
    rig.settle(Now { ns: START_NS + 10_000 * MS });
    assert_eq!(arrived(&peers[0]), 100);

    let set = PortSet { name: "p0".parse().unwrap(), settings: PortSettings::default() };
    rig.declare(&Request::PortSet(set)).unwrap();
    for _ in 0..500 {
        assert!(peers[0].send(frame(60)));
    }
    rig.settle(Now { ns: START_NS + 10_001 * MS });
    assert_eq!(arrived(&peers[1]), 500, "a limit that was taken away");
    rig.assert_conserved();
}

/// The limit is held to where the port is served, whoever switched the frames.
#[test]
fn a_port_is_sent_no_faster_than_it_may() {
    for workers in [1, 2] {
        let limits = PortLimits { tx_bytes: limit(100_000, 10_000), ..PortLimits::default() };
        let (mut rig, peers) = rig(&[PortSettings::default(), limited(limits)], workers, 1);
        let got = ten_seconds(&mut rig, &peers, 1000);
        assert!((1008..=1012).contains(&got), "{got} by {workers} workers");
        assert_eq!(rig.drops(DropReason::RateLimitedTx), 10_000 - got as u64);
        rig.assert_conserved();
    }
}

/// By whatever workers a port is served and sent to, what passes is what the port may and not each worker.
#[test]
fn a_limit_is_the_ports_and_not_each_workers() {
    let limits =
        PortLimits { rx_packets: limit(1000, 60), tx_packets: limit(1000, 60), ..PortLimits::default() };
    for lanes in [&[1][..], &[0, 1], &[0, 1, 1]] {
        let (mut rig, far) = rig(&[PortSettings::default(), PortSettings::default()], 2, 1);
        let (doors, near): (Vec<_>, Vec<_>) = lanes
            .iter()
            .map(|worker| {
                let (door, peer) = memory::wire();
                ((Box::new(door) as Box<dyn crate::port::Port>, *worker), peer)
            })
            .unzip();
        rig.add_lanes_to("br0", "wide", limited(limits), doors).unwrap();
        // Stations 1 and 2 are behind a port each, one of each worker; 9 is behind the limited one.
        let stations = |from: u8, to: u8| {
            let mut frame = frame(60);
            (frame[5], frame[11]) = (to, from);
            frame
        };
        let mut ms = 0;
        let mut all = |times: usize, senders: &[(&MemoryPeer, Vec<u8>)], receivers: &[MemoryPeer]| -> usize {
            let each = |_| {
                ms += 1;
                for (sender, frame) in senders {
                    (0..3).for_each(|_| assert!(sender.send(frame.clone())));
                }
                rig.settle(Now { ns: START_NS + ms * MS });
                receivers.iter().map(arrived).sum::<usize>()
            };
            (0..times).map(each).sum()
        };
        // Each is heard once, and the limits have rested since.
        let heard = [(&far[0], stations(1, 2)), (&far[1], stations(2, 1)), (&near[0], stations(9, 1))];
        assert_eq!(all(1, &heard, &far), 9);
        all(100, &[], &near);
        let sent: Vec<_> = near.iter().map(|peer| (peer, stations(9, 1))).collect();
        let got = all(5000, &sent, &far);
        assert!((5050..=5060).contains(&got), "{got} by lanes on {lanes:?}");
        let got = all(5000, &[(&far[0], stations(1, 9)), (&far[1], stations(2, 9))], &near);
        assert!((5050..=5060).contains(&got), "{got} to lanes on {lanes:?}");
        rig.assert_conserved();
    }
}

/// Copies of a flood are limited as well, each port's by its own limit.
#[test]
fn flooded_copies_count() {
    let limits = PortLimits { tx_packets: limit(1, 5), ..PortLimits::default() };
    let (mut rig, peers) = rig(&[PortSettings::default(), limited(limits), PortSettings::default()], 1, 1);
    for _ in 0..50 {
        assert!(peers[0].send(frame(60)));
    }
    rig.settle(Now { ns: START_NS });
    assert_eq!((arrived(&peers[1]), arrived(&peers[2])), (5, 50));
    assert_eq!(rig.drops(DropReason::RateLimitedTx), 45);
    rig.assert_conserved();
}

#[test]
fn what_waits_is_counted_once() {
    let limits = PortLimits { tx_packets: limit(1, 4200), ..PortLimits::default() };
    let (mut rig, peers) = rig(&[PortSettings::default(), limited(limits)], 1, 1);
    // The wire holds 4 096 packets and nobody takes them out: the rest waits in the queue.
    for _ in 0..84 {
        for _ in 0..50 {
            assert!(peers[0].send(frame(60)));
        }
        (0..3).for_each(|_| _ = rig.run(Now { ns: START_NS }));
    }
    (0..100).for_each(|_| _ = rig.run(Now { ns: START_NS }));
    assert_eq!(arrived(&peers[1]), 4096);
    rig.settle(Now { ns: START_NS });
    assert_eq!((arrived(&peers[1]), rig.drops(DropReason::RateLimitedTx)), (104, 0));
    assert!(peers[0].send(frame(60)));
    rig.settle(Now { ns: START_NS });
    assert_eq!((arrived(&peers[1]), rig.drops(DropReason::RateLimitedTx)), (0, 1));
    rig.assert_conserved();
}

/// A superframe of 30 segments, 54 bytes of headers each.
#[test]
fn a_superframe_counts_by_what_is_on_the_wire() {
    let on_wire = 30 * (54 + u64::from(MSS));
    let (superframe, offload) = train(1, 9, &noise(30 * usize::from(MSS)), MSS);
    for (limits, name) in [
        (PortLimits { rx_packets: limit(1, 31), ..PortLimits::default() }, "packets in"),
        (PortLimits { rx_bytes: limit(1, on_wire + 100), ..PortLimits::default() }, "bytes in"),
    ] {
        let (mut rig, peers) = rig(&[limited(limits), PortSettings::default()], 1, 1);
        rig.takes_superframes(1);
        for _ in 0..3 {
            assert!(peers[0].send_offload(superframe.clone(), offload));
        }
        rig.settle(Now { ns: START_NS });
        // Something is left for the second, which is then paid for.
        assert_eq!((arrived(&peers[1]), rig.drops(DropReason::RateLimitedRx)), (2, 1), "{name}");
        rig.settle(Now { ns: START_NS + 25_000 * MS });
        assert!(peers[0].send(frame(60)));
        rig.settle(Now { ns: START_NS + 25_000 * MS });
        assert_eq!(arrived(&peers[1]), 0, "{name}: 25 of 29 and more are paid");
        rig.assert_conserved();
    }
    for takes_them in [true, false] {
        let limits = PortLimits { tx_bytes: limit(1, on_wire), ..PortLimits::default() };
        let (mut rig, peers) = rig(&[PortSettings::default(), limited(limits)], 1, 1);
        if takes_them {
            rig.takes_superframes(1);
        }
        for _ in 0..2 {
            assert!(peers[0].send_offload(superframe.clone(), offload));
        }
        rig.settle(Now { ns: START_NS });
        let (frames, dropped) = if takes_them { (1, 1) } else { (30, 30) };
        assert_eq!((arrived(&peers[1]), rig.drops(DropReason::RateLimitedTx)), (frames, dropped));
        rig.assert_conserved();
    }
}

/// A trace takes limits as unused.
#[test]
fn a_trace_is_not_limited_and_costs_nothing() {
    let limits = PortLimits { rx_packets: limit(1, 1), tx_packets: limit(1, 1), ..PortLimits::default() };
    let (mut rig, peers) = rig(&[limited(limits), limited(limits)], 1, 1);
    let mut dry = crate::pipeline::dry::Dry::new(2048, 1).unwrap();
    for _ in 0..3 {
        let traced = rig.trace(&mut dry, 0, &frame(60), Now { ns: START_NS }).unwrap();
        assert_eq!((traced.leaving.len(), traced.drops.len()), (1, 0));
    }
    assert!(peers[0].send(frame(60)) && peers[0].send(frame(60)));
    rig.settle(Now { ns: START_NS });
    assert_eq!(arrived(&peers[1]), 1);
}
