//! A worker that does not keep up: what others have for it beyond its inbox is dropped by its own name, and the frames are at home
//! again at once.

use crate::counter::DropReason;
use crate::pipeline::Now;
use crate::port::memory;
use crate::rig::{Rig, Size};
use switch_api::PortSettings;

const NOW: Now = Now { ns: 5_000_000_000 };
/// Frames a worker: more than an inbox holds.
const FRAMES: u32 = 6000;

fn frame(n: u32) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb6];
    frame.extend(n.to_be_bytes());
    frame.resize(60, 0);
    frame
}

#[test]
fn a_full_inbox_is_counted_and_costs_no_frame() {
    let mut rig = Rig::new(Size { workers: 2, frames: 2 * FRAMES, ..Size::default() });
    let mut peers = Vec::new();
    for worker in 0..2 {
        let (port, peer) = memory::wire();
        rig.add_port(&format!("p{worker}"), PortSettings::default(), Box::new(port), worker).unwrap();
        peers.push(peer);
    }
    rig.settle(NOW);
    // The second worker stands still; the first one goes on.
    let (mut sent, mut full) = (0, 0);
    while full == 0 || sent % 64 != 0 {
        assert!(sent < FRAMES, "an inbox without an end");
        assert!(peers[0].send(frame(sent)));
        sent += 1;
        rig.turns[0].run(NOW);
        full = rig.drops(DropReason::InboxFull);
    }
    let pool = rig.turns[0].pool();
    let under_way = u64::from(sent) - full;
    assert_eq!(pool.free() as u64 + under_way, u64::from(FRAMES), "what was dropped is not at home");
    assert_eq!(rig.counters[0].drops(1, DropReason::InboxFull), full, "counted at the port it was for");
    // It goes on: all else arrives, in order.
    rig.settle(NOW);
    let arrived: Vec<_> = std::iter::from_fn(|| peers[1].recv()).collect();
    assert_eq!(arrived, (0..under_way as u32).map(frame).collect::<Vec<_>>());
    let dropped: u64 = DropReason::ALL.iter().map(|reason| rig.drops(*reason)).sum();
    assert_eq!((dropped, rig.drops(DropReason::InboxFull)), (full, full), "nothing else was dropped");
    rig.assert_conserved();
}

/// Ports of the second worker that a flood goes to.
const PORTS: usize = 100;
/// Floods that wait for it. With a parcel for each port two of them would fill its inbox.
const FLOODS: u32 = 20;

#[test]
fn floods_to_many_ports_of_another_worker_wait_in_few_parcels() {
    let mut rig = Rig::new(Size { workers: 2, frames: 2 * FRAMES, ..Size::default() });
    let (port, sender) = memory::wire();
    rig.add_port("from", PortSettings::default(), Box::new(port), 0).unwrap();
    let mut peers = Vec::new();
    for n in 0..PORTS {
        let (port, peer) = memory::wire();
        rig.add_port(&format!("p{n}"), PortSettings::default(), Box::new(port), 1).unwrap();
        peers.push(peer);
    }
    rig.settle(NOW);
    // The second worker stands still meanwhile; each flood is a turn of the first one.
    let flood = |n| {
        let mut frame = frame(n);
        frame[..6].fill(0xff);
        frame
    };
    for n in 0..FLOODS {
        assert!(sender.send(flood(n)));
        rig.turns[0].run(NOW);
    }
    assert_eq!(rig.drops(DropReason::InboxFull), 0);
    rig.settle(NOW);
    let all: Vec<_> = (0..FLOODS).map(flood).collect();
    for (n, peer) in peers.iter().enumerate() {
        assert_eq!(std::iter::from_fn(|| peer.recv()).collect::<Vec<_>>(), all, "port {n}");
    }
    rig.assert_conserved();
}
