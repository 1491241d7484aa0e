//! What is heard of neighbours while their frames pass: broadcast questions that the switch answers ([`stand_in`])
//! are taken out of the bridge, announcements are listened to and go on. Bridges without a gateway never
//! come here.

use super::note::Note;
use super::verdict::{Verdict, Why};
use super::{Chore, Private, View, stand_in};
use crate::config::gateway::Gateway;
use crate::counter::Event;
use crate::host::arp;
use crate::host::nd::{self, Nd};
use crate::table::fdb;
use crate::table::neigh::{self, Claim, Heard};
use crate::table::wide::Key;
use crate::wire::ethernet::ARP;
use crate::wire::hop::{self, V4_MAPPED};
use crate::wire::ip::{ICMPV6, Version};

/// The part of an IPv6 group's MAC that all of them have (RFC 2464 §7).
const V6_GROUPS: u64 = 0x3333_0000_0000;

/// A frame to a group, ARP or IPv6: a question for us is set aside, all else is bridged as ever.
#[cold]
pub(super) fn group(
    view: &View,
    bytes: &[u8],
    note: &Note,
    gateway: &Gateway,
    private: &mut Private,
) -> Verdict {
    let packet = bytes.get(note.payload_at()..).unwrap_or_default();
    // Who is to be answered for is worth a place as soon as it is heard, as if it had asked us.
    let unasked = if gateway.suppress { Claim::Question } else { Claim::Announcement };
    if note.ethertype() == ARP {
        let Some(arp) = arp::read(packet) else { return Verdict::Undecided };
        if arp.asks
            && !arp.is_announcement()
            && stand_in::find(view, note.fid, gateway, arp.target, arp.sender, private).is_some()
        {
            return Verdict::Aside(Why::Host);
        }
        hear(view, private, note, gateway, arp.sender, arp.sender_mac, unasked);
        return Verdict::Undecided;
    }
    // Most multicast is not ICMPv6 and is not looked into any further.
    if note.dst & !0xffff_ffff != V6_GROUPS || packet.get(6) != Some(&ICMPV6) {
        return Verdict::Undecided;
    }
    let Ok(hop) = hop::read(packet, Version::V6) else { return Verdict::Undecided };
    match nd::read(packet, &hop) {
        Some(Nd::Solicit { target, .. })
            if stand_in::find(view, note.fid, gateway, target, hop.src, private).is_some() =>
        {
            Verdict::Aside(Why::Host)
        }
        Some(Nd::Solicit { mac, .. }) if gateway.suppress && hop.src != 0 => {
            hear(view, private, note, gateway, hop.src, mac, unasked);
            Verdict::Undecided
        }
        Some(Nd::Advert { target, mac, .. }) => {
            hear(view, private, note, gateway, target, mac, unasked);
            Verdict::Undecided
        }
        // Of all routers that hear it, each answers.
        Some(Nd::RouterSolicit) if gateway.advert.is_some() => {
            _ = private.asks.try_push(Chore::Advertise(note.fid, note.src(), hop.src));
            Verdict::Undecided
        }
        _ => Verdict::Undecided,
    }
}

/// A station says that `ip` is its own.
pub(super) fn hear(
    view: &View,
    private: &mut Private,
    note: &Note,
    gateway: &Gateway,
    ip: u128,
    mac: u64,
    claim: Claim,
) {
    // Who speaks for another station, or for an address that is not of this network, is not believed. At an uplink it is the
    // kernel that knows its neighbours.
    if gateway.is_kernels {
        return;
    }
    let is_nobodys = ip == 0 || ip == V4_MAPPED;
    if mac != note.src() || !gateway.covers(ip) || gateway.owns(ip) || is_nobodys {
        return;
    }
    let table = &view.tables.fdb;
    let is_alive = |mac: u64| {
        let key = fdb::key(mac, note.fid);
        table.lookup(table.home(key), key, view.now_s, super::reach::ageing_s(view, note.fid)).is_some()
    };
    let key = neigh::key(note.fid, ip);
    let event = match view.tables.neigh.hear(key, mac, view.in_port, view.now_s, claim, is_alive) {
        Heard::Ignored | Heard::Confirmed => return,
        Heard::Learned => {
            private.news = true;
            Event::NeighLearned
        }
        Heard::Disputed => Event::NeighDisputed,
        Heard::Full => Event::NeighFull,
    };
    private.counters.event(event).add(1);
}

/// A neighbour that is used has not been heard from for a while: asks it whether it is still there.
#[cold]
pub(super) fn probe(view: &View, key: Key, private: &mut Private) {
    // Should there be no room for the question, the next packet asks.
    if !private.asks.is_full()
        && let Some(mac) = view.tables.neigh.probe(key, view.now_s)
    {
        private.asks.push(Chore::Ask(key, Some(mac)));
    }
}
