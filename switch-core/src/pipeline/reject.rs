//! What an access control list rejects: dropped, and its sender told at once, where otherwise it would try again and wait. TCP is
//! told by a reset, all else by an ICMP error.
//!
//! Where the switch routed the packet the error comes from the gateway; on a bridge, where the switch has no address, from the one
//! that was asked, as from a host that refuses (so does `nft_reject_bridge` of Linux). Either way it goes back where the packet came
//! from, and by the stations that the packet named.

use super::note::Note;
use super::slow::{ERROR_PPS, Link, say, version_of};
use super::verdict::Verdict;
use super::{Private, View, guard};
use crate::counter::{DropReason, Event};
use crate::frame::{Frame, Pool};
use crate::host::error::{self, Reason};
use crate::host::{PACKET_LEN_MAX, reset};
use crate::wire::ethernet::{self, GROUP_BIT};
use crate::wire::hop;
use crate::wire::ip::{self, TCP};

pub(super) fn run(view: &View, pool: &mut Pool, private: &mut Private, frame: Frame, note: &Note) {
    private.count_drop(pool, view.in_port, DropReason::AclRejected, &frame);
    let mut out = [0; PACKET_LEN_MAX];
    if let Some((link, len)) = answer(view, pool.area().bytes(&frame), note, &mut out) {
        if private.slow.error.admit(view.in_port, ERROR_PPS, 1, view.now) {
            say(pool, private, link, Verdict::Port(view.in_port), |place| {
                place[..len].copy_from_slice(&out[..len]);
                len
            });
            private.counters.event(Event::ErrorTold).add(1);
        } else {
            private.counters.event(Event::ErrorUntold).add(1);
        }
    }
    pool.give(frame);
}

/// What is told, if anybody may be: its length, and where it goes.
fn answer(view: &View, bytes: &[u8], note: &Note, out: &mut [u8; PACKET_LEN_MAX]) -> Option<(Link, usize)> {
    let version = version_of(note)?;
    // The note may say by now where the packet was to go; the frame still says who sent it to whom.
    let stations = ethernet::parse(bytes).ok()?;
    let fid = guard::admit_vlan(&view.facts.vlans, note).ok()?;
    let packet = bytes.get(note.payload_at()..)?;
    let hop = hop::read(packet, version).ok()?;
    // Nobody answers for a crowd (RFC 1122 §3.2.2), also where the address does not say that it is one.
    if stations.dst & GROUP_BIT != 0 || !error::is_due(packet, &hop) {
        return None;
    }
    let read = ip::parse(packet, version).ok()?;
    let len = if read.protocol == TCP {
        reset::write(out, packet, &hop, &read)?
    } else {
        let router = view.snapshot.gateway(fid).filter(|gateway| gateway.mac == stations.dst);
        let own = router.and_then(|gateway| gateway.speaks_as(hop.src)).unwrap_or(hop.dst);
        error::write(out, packet, &hop, own, Reason::Prohibited)
    };
    let ethertype = note.ethertype();
    Some((Link { fid, dst: stations.src, src: stations.dst, ethertype }, len))
}
