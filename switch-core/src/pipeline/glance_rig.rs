//! What the twins of packets that are read at a glance share (`glance_tests`, `nat_glance_tests`): how such a packet is made, with options
//! in its header for who is to read it with care, and what can be seen of what came of it.

use super::Now;
use crate::counter::{DropReason, Event};
use crate::rig::Rig;
use crate::table::flow::Entry;
use crate::table::flow::record::Window;
use crate::wire::checksum::{fold, sum};
use crate::wire::ip::{TCP, UDP};

/// Bytes of an IPv4 header without options.
pub(super) const HEAD: usize = 20;
/// Four options that say nothing (RFC 791 §3.1).
const NOTHING: [u8; 4] = [1; 4];

/// What TCP says: flags, so many bytes behind the SYN, acknowledging so many. None: it is UDP.
pub(super) type Segment = Option<(u8, u32, u32)>;
/// What was counted, which flows there are and what their ends have said.
pub(super) type Counted = (Vec<u64>, Vec<(Entry, [Window; 2])>);

/// The options of a header that `is_dull`.
pub(super) fn options(is_dull: bool) -> &'static [u8] {
    if is_dull { &NOTHING } else { &[] }
}

/// The protocol of what says so.
pub(super) fn protocol(tcp: Segment) -> u8 {
    if tcp.is_some() { TCP } else { UDP }
}

/// What is behind the IPv4 header, four bytes of payload among it. There is no checksum yet.
pub(super) fn transport(ports: [u16; 2], tcp: Segment, payload: u32) -> Vec<u8> {
    let mut transport = ports.map(u16::to_be_bytes).concat();
    match tcp {
        None => transport.extend([0, 12, 0, 0]),
        Some((flags, seq, ack)) => {
            transport.extend([seq, ack].map(|n| 1000u32.wrapping_add(n).to_be_bytes()).concat());
            transport.extend([5 << 4, flags, 0x20, 0, 0, 0, 0, 0]);
        }
    }
    transport.extend(payload.to_be_bytes());
    transport
}

/// An IPv4 packet between two addresses.
pub(super) fn packet(is_dull: bool, protocol: u8, addresses: [[u8; 4]; 2], transport: &[u8]) -> Vec<u8> {
    let options = options(is_dull);
    let head_len = HEAD + options.len();
    let mut head = vec![0x40 | (head_len / 4) as u8, 0];
    head.extend(((head_len + transport.len()) as u16).to_be_bytes());
    head.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    head.extend(addresses.concat());
    head.extend(options);
    let checksum = !fold(sum(&head));
    head[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&head, transport].concat()
}

/// What a rig with so many ports, and rules that count in so many slots, has counted and knows.
pub(super) fn counted(rig: &Rig, ports: usize, slots: u32, now: Now) -> Counted {
    let counters = &rig.counters[0];
    let mut counts: Vec<u64> = Event::ALL.iter().map(|event| counters.event(*event).get()).collect();
    for port in 0..ports {
        counts.extend(DropReason::ALL.iter().map(|reason| counters.drops(port as u16, *reason)));
    }
    counts.extend((0..slots).filter_map(|slot| counters.rule(slot)).map(|counter| counter.get()));
    let (mut flows, table) = (Vec::new(), &rig.tables.flows);
    table.scan(0..table.places(), now.s(), |place, entry| flows.push((entry, table.windows(place))));
    (counts, flows)
}
