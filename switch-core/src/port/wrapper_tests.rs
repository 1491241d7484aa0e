//! The wrappers around a port: `faulty` makes the trouble it was told to make and no other, `recorder` writes down what passed,
//! once.

use super::faulty::{Faults, Faulty};
use super::memory::{self, MemoryPeer};
use super::pcap::{Capture, PcapPort};
use super::recorder::Recorder;
use super::{Port, Remains, Sent, Serviced};
use crate::counter::{Counters, Event};
use crate::frame::{Area, AreaSize, Batch, Offload, Pool, TxQueue};
use etherparse::PacketBuilder;
use pcap_file::pcap::PcapReader;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

const FRAMES: u32 = 256;

fn pool() -> Pool {
    let (area, frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: FRAMES, large: 0 }).unwrap();
    Pool::deal(Arc::new(area), frames, 1).remove(0)
}

fn packet(n: u16) -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb6];
    packet.extend(n.to_be_bytes());
    packet.resize(60, n as u8);
    packet
}

fn number(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[14], packet[15]])
}

/// What arrives by a faulty wire of `count` packets, until nothing more comes.
fn arrived(faults: Faults, seed: u64, count: u16) -> Vec<Vec<u8>> {
    let (port, peer) = memory::wire();
    let (mut port, mut pool) = (Faulty::new(Box::new(port), faults, seed), pool());
    (0..count).for_each(|n| assert!(peer.send(packet(n))));
    let mut arrived = Vec::new();
    while peer.waiting() > 0 || !port.may_sleep() {
        let mut batch = Batch::new();
        port.recv(&mut pool, &mut batch);
        assert_eq!(pool.free() + batch.len() + port.held(), FRAMES as usize, "a frame is lost");
        for frame in batch.drain() {
            arrived.push(pool.area().bytes(&frame).to_vec());
            pool.give(frame);
        }
    }
    assert_eq!((pool.free(), port.held()), (FRAMES as usize, 0));
    arrived
}

#[test]
fn each_fault_is_made_as_often_as_told_and_no_other() {
    const ALWAYS: u16 = 1000;
    let all: Vec<Vec<u8>> = (0..1000).map(packet).collect();
    let none = Faults::default();
    assert_eq!(arrived(none, 1, 1000), all, "no faults");
    assert_eq!(arrived(Faults { lose: ALWAYS, ..none }, 1, 1000), Vec::<Vec<u8>>::new());
    let twice: Vec<_> = all.iter().flat_map(|packet| [packet.clone(), packet.clone()]).collect();
    assert_eq!(arrived(Faults { repeat: ALWAYS, ..none }, 1, 1000), twice);

    let corrupt = arrived(Faults { corrupt: ALWAYS, ..none }, 1, 1000);
    assert_eq!(corrupt.len(), 1000);
    let differing = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    assert!(corrupt.iter().zip(&all).all(|(got, sent)| got.len() == 60 && differing(got, sent) == 1));

    let late = arrived(Faults { delay: 200, ..none }, 1, 1000);
    assert_ne!(late, all, "none was delayed");
    let mut sorted = late.clone();
    sorted.sort_by_key(|packet| number(packet));
    assert_eq!(sorted, all, "a delayed packet arrives, and once");

    // About so many in a thousand, each as if it were alone.
    for (faults, expected) in [
        (Faults { lose: 100, ..none }, 900),
        (Faults { repeat: 100, ..none }, 1100),
        (Faults { lose: 100, repeat: 100, ..none }, 990),
    ] {
        let count = arrived(faults, 7, 1000).len();
        assert!(count.abs_diff(expected) < 60, "{faults:?}: {count}");
    }
}

#[test]
fn a_seed_makes_its_own_trouble_every_time() {
    let faults = Faults { lose: 100, repeat: 100, corrupt: 100, delay: 100 };
    let runs: Vec<_> = [2, 2, 4].map(|seed| arrived(faults, seed, 500)).into();
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    let count = runs[0].iter().fold(HashMap::<_, u32>::new(), |mut count, packet| {
        *count.entry(packet).or_default() += 1;
        count
    });
    assert!(count.values().all(|times| *times <= 2));
}

#[test]
fn a_faulty_port_that_is_closed_leaves_what_it_holds() {
    let (port, peer) = memory::wire();
    let faults = Faults { repeat: 1000, delay: 1000, ..Faults::default() };
    let (mut port, mut pool) = (Faulty::new(Box::new(port), faults, 3), pool());
    (0..100).for_each(|n| assert!(peer.send(packet(n))));
    let mut batch = Batch::new();
    port.recv(&mut pool, &mut batch);
    let held = port.held();
    assert!(held > 0 && !port.may_sleep());
    let area = pool.area_shared();
    let Remains { frames, .. } = Box::new(port).close(&area);
    assert_eq!(frames.len(), held);
    frames.into_iter().for_each(|frame| pool.give(frame));
    batch.drain().for_each(|frame| pool.give(frame));
    assert_eq!(pool.free(), FRAMES as usize);
}

/// A port that takes a few frames of a queue at a time.
#[derive(Debug)]
struct Slow(Box<dyn Port>);

impl Port for Slow {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        self.0.recv(pool, batch);
    }
    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        let mut few = TxQueue::with_room();
        few.extend(&mut queue.take(3));
        self.0.send(pool, &mut few)
    }
    fn service(&mut self, pool: &mut Pool, busy: bool, counters: &Counters) -> Serviced {
        self.0.service(pool, busy, counters)
    }
    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn is_asked_by_call(&self) -> bool {
        true
    }
    fn held(&self) -> usize {
        self.0.held()
    }
    fn close(self: Box<Self>, area: &Area) -> Remains {
        self.0.close(area)
    }
}

struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

fn send(recorder: &mut Recorder, pool: &mut Pool, queue: &mut TxQueue, numbers: std::ops::Range<u16>) {
    let frames: Vec<_> = numbers
        .map(|n| {
            let mut frame = pool.take().unwrap();
            assert!(pool.area().fill(&mut frame, &packet(n)));
            frame
        })
        .collect();
    queue.extend(&mut frames.into_iter());
    recorder.send(pool, queue);
}

#[test]
fn a_wrapped_tap_is_asked_only_when_it_is_readable() {
    let faulty = Faulty::new(Box::new(Slow(Box::new(memory::wire().0))), Faults::default(), 1);
    assert!(faulty.is_asked_by_call(), "a wrapped TAP would cost a call every turn");
}

/// A pod's kernel leaves checksums to whoever sends: a file has nobody behind it who would.
#[test]
fn what_a_pods_kernel_left_unfinished_is_finished_in_a_file() {
    let file = File(std::env::temp_dir().join(format!("unfinished-{}.pcap", std::process::id())));
    let mut port = PcapPort::open(None, Some(&file.0)).unwrap();
    let (mut pool, mut queue) = (pool(), TxQueue::with_room());
    let finished = {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        builder
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(1000, 80, 7, 1024)
            .write(&mut packet, b"hello")
            .unwrap();
        packet
    };
    let mut unfinished = finished.clone();
    // The pseudo-header's sum (RFC 9293, 3.1), not complemented: addresses, protocol, length of header and payload.
    let sum = [0x0a00, 0x0001, 0x0a00, 0x0002, 6, 25].iter().sum::<u32>();
    unfinished[50..52].copy_from_slice(&(sum as u16).to_be_bytes());
    for packet in [&unfinished, &finished] {
        let mut frame = pool.take().unwrap();
        assert!(pool.area().fill(&mut frame, packet));
        frame.offload = Offload::default();
        queue.extend(&mut std::iter::once(frame));
    }
    port.send(&mut pool, &mut queue);
    drop(port);
    let mut reader = PcapReader::new(std::fs::File::open(&file.0).unwrap()).unwrap();
    for _ in 0..2 {
        assert_eq!(reader.next_packet().unwrap().unwrap().data, finished);
    }
}

#[test]
fn a_replay_that_breaks_off_is_told_of_once() {
    let file = File(std::env::temp_dir().join(format!("broken-{}.pcap", std::process::id())));
    let mut capture = Capture::create(&file.0).unwrap();
    (0..3).for_each(|n| assert!(capture.write(&packet(n))));
    drop(capture);
    let whole = std::fs::read(&file.0).unwrap();
    for (bytes, frames, told) in [(whole.len(), 3, 0), (whole.len() - 9, 2, 1)] {
        std::fs::write(&file.0, &whole[..bytes]).unwrap();
        let mut port = PcapPort::open(Some(&file.0), None).unwrap();
        let (mut pool, mut batch, counters) = (pool(), Batch::new(), Counters::new(1));
        for _ in 0..3 {
            port.recv(&mut pool, &mut batch);
            port.service(&mut pool, false, &counters);
        }
        assert_eq!((batch.len(), counters.event(Event::ReplayBrokeOff).get()), (frames, told));
        batch.drain().for_each(|frame| pool.give(frame));
    }
}

#[test]
fn a_recorder_writes_each_frame_once_when_it_passes() {
    let file = File(std::env::temp_dir().join(format!("recorder-{}.pcap", std::process::id())));
    let (port, peer): (_, MemoryPeer) = memory::wire();
    let mut recorder = Recorder::new(Box::new(Slow(Box::new(port))), Capture::create(&file.0).unwrap());
    let (mut pool, mut queue, mut batch) = (pool(), TxQueue::with_room(), Batch::new());
    assert!(recorder.is_asked_by_call(), "a wrapped TAP would cost a call every turn");
    // What is in the batch already came by another port.
    batch.push(pool.take().unwrap());
    (0..2).for_each(|n| assert!(peer.send(packet(n))));
    recorder.recv(&mut pool, &mut batch);
    assert_eq!(batch.len(), 3);
    // Five for a port that takes three at a time, one more later.
    send(&mut recorder, &mut pool, &mut queue, 100..105);
    send(&mut recorder, &mut pool, &mut queue, 105..106);
    send(&mut recorder, &mut pool, &mut queue, 0..0);
    assert!(peer.send(packet(2)));
    recorder.recv(&mut pool, &mut batch);
    // One that never leaves is none that passed.
    send(&mut recorder, &mut pool, &mut queue, 106..110);
    let left = queue.len();
    queue.take(left).for_each(|frame| pool.give(frame));
    batch.drain().for_each(|frame| pool.give(frame));
    drop(recorder);
    assert_eq!((left, pool.free()), (1, FRAMES as usize));

    let mut reader = PcapReader::new(std::fs::File::open(&file.0).unwrap()).unwrap();
    let mut written = Vec::new();
    while let Some(packet) = reader.next_packet() {
        written.push(packet.unwrap().data.to_vec());
    }
    let passed = (0..2).chain(100..106).chain(2..3).chain(106..109);
    assert_eq!(written, passed.map(packet).collect::<Vec<_>>());
    let left: Vec<_> = std::iter::from_fn(|| peer.recv()).map(|packet| number(&packet)).collect();
    assert_eq!(left, (100..109).collect::<Vec<_>>());
}
