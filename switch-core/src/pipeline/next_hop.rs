//! Which next hop a packet goes by: of several its flow's, as long as that one is there.

use super::verdict::{Verdict, Why};
use super::{Chore, View, reach};
use crate::config::ecmp;
use crate::frame::BATCH_FRAMES;
use crate::table::atomic::SPREAD;
use crate::table::fdb;
use crate::table::neigh::{self, Found};
use crate::wire::hop::Hop;
use crate::wire::ip;
use arrayvec::ArrayVec;

/// What is to be done behind the batch, if the caller does that.
pub(super) type Chores<'a> = Option<&'a mut ArrayVec<Chore, BATCH_FRAMES>>;

/// The next hop of a packet's flow: of several one that is there, if any is. Later fragments have no ports: the flow of a packet that
/// was cut is its addresses and protocol, for all of its fragments. Whether all flows to its destination take it is said as well.
#[inline]
pub(super) fn next_hop(
    view: &View,
    packet: &[u8],
    hop: &Hop,
    group: u16,
    chores: Chores,
) -> Result<(u16, u128, bool), Verdict> {
    let group = view.snapshot.routing.group(group).ok_or(Verdict::Aside(Why::NoRoute))?;
    let (next, is_all) = match group.needs_hash() {
        false => (group.hop(0), true),
        true => {
            let (hash, mut chores) = (flow_hash(packet, hop), chores);
            let there = group.hop_among(hash, |hop| !is_gone(view, hop, &mut chores));
            (there.or_else(|| group.hop(hash)), false)
        }
    };
    let next = next.ok_or(Verdict::Aside(Why::NoRoute))?;
    Ok((next.fid, next.ip, is_all))
}

/// Whether a next hop is known not to be there: its port is closed, or it was asked for in vain. Such a one is asked for once a
/// second, as nobody waits for it.
#[inline]
fn is_gone(view: &View, hop: &ecmp::Hop, chores: &mut Chores) -> bool {
    let (neighbours, key) = (&view.tables.neigh, neigh::key(hop.fid, hop.ip));
    let home = neighbours.home(key);
    if let Found::Fresh(mac) | Found::Stale(mac) = neighbours.lookup(home, key, view.now_s) {
        let port = reach::port_of(view, hop.fid, mac, view.tables.fdb.home(fdb::key(mac, hop.fid)));
        return port.is_some_and(|port| view.snapshot.port(port).is_none_or(|to| !to.open));
    }
    let Some(chores) = chores.as_mut().filter(|chores| !chores.is_full()) else {
        return neighbours.is_missed(home, key);
    };
    match neighbours.missed(home, key, view.now_s) {
        None => false,
        Some(asks) => {
            if asks {
                chores.push(Chore::Ask(key, None));
            }
            true
        }
    }
}

#[inline]
pub(super) fn flow_hash(packet: &[u8], hop: &Hop) -> u32 {
    let (protocol, ports) = match ip::parse(packet, hop.version) {
        Ok(read) if matches!(read.protocol, ip::TCP | ip::UDP | ip::SCTP) && !read.fragment => {
            let ports =
                packet.get(read.transport_at..read.transport_at + 4).and_then(|ports| ports.first_chunk());
            (read.protocol, ports.map_or(0, |ports| u32::from_be_bytes(*ports)))
        }
        Ok(read) => (read.protocol, 0),
        Err(_) => (hop.protocol, 0),
    };
    let both = hop.src ^ hop.dst.rotate_left(59);
    let words = (both >> 64) as u64 ^ both as u64 ^ u64::from(ports) << 8 ^ u64::from(protocol);
    let mixed = words.wrapping_mul(SPREAD);
    ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as u32
}
