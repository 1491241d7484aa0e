//! The slow path: what the stages set aside. Questions for the switch are answered, packets whose neighbour
//! is not known are held and it is asked for, senders are told why a packet does not arrive. Everything that
//! the switch says is limited, for each port by itself, so that no pod keeps it from listening to another.

use super::hold::{HELD_PART, Held};
use super::note::{Note, src_ethertype};
use super::storm::Storms;
use super::verdict::{Class, Verdict, Why};
use super::{Aside, Chore, Private, View, hear, reach, reject, route, stand_in};
use crate::config::PORTS_MAX;
use crate::config::gateway::{Action, Gateway, is_v4, link_local};
use crate::counter::{DropReason, Event};
use crate::frame::{BATCH_FRAMES, Frame, Pool};
use crate::host::advert::{Router, Withdrawn};
use crate::host::error::Reason;
use crate::host::fragment::Cut;
use crate::host::nd::Nd;
use crate::host::{PACKET_LEN_MAX, advert, arp, echo, error, nd};
use crate::table::neigh::{self, Ask, Claim};
use crate::table::wide::Key;
use crate::wire::checksum::{self, Csum};
use crate::wire::ethernet::{ARP, BROADCAST, HEADER_LEN, IPV4, IPV6, set_addresses};
use crate::wire::gso::Segmenter;
use crate::wire::hop::{self, Hop};
use crate::wire::ip::{self, ICMP, ICMPV6, NO_NEXT, TCP, UDP, Version};
use arrayvec::ArrayVec;

/// ARP and neighbour solicitations from one port, a second. A pod's kernel asks once a second for each address.
const NEIGHBOUR_PPS: u32 = 1000;
/// Router solicitations from one port that are answered, a second. A host sends three, 4 s apart (RFC 4861 §6.3.7).
const ROUTER_PPS: u32 = 20;
/// Pings from one port that are answered, a second: more than anybody pings by hand.
const ECHO_PPS: u32 = 1000;
/// Errors told to one port, a second. Linux tells 1 000 in all (`icmp_msgs_per_sec`) and one a second to each
/// address; a traceroute over 30 hops asks for 90.
pub(super) const ERROR_PPS: u32 = 200;
/// What the switch says about one batch at most: an answer, or a question and an error, for each frame of
/// it, and a question for each that is used though it is stale.
const SAID_MAX: usize = 2 * BATCH_FRAMES;

/// Pieces that packets of one batch are cut into at most: two each. What finds no room is refused as if it might
/// not be cut.
const PIECES_MAX: usize = 2 * BATCH_FRAMES;
/// Pieces that are decided about at once: of those of a superframe each may be cut into four once more, which is 1 500 bytes
/// for a way of 400.
pub(super) const PIECES_AT_ONCE: usize = PIECES_MAX / 4;

/// What limits the slow path, and where it writes.
#[derive(Debug)]
pub struct Slow {
    neighbour: Storms,
    router: Storms,
    echo: Storms,
    pub(super) error: Storms,
    scratch: Box<[u8; HEADER_LEN + PACKET_LEN_MAX]>,
    /// What is to be sent, with its verdict.
    pub said: ArrayVec<(Frame, Note), SAID_MAX>,
    /// Pieces of packets that were too long, for which `route` is to decide again.
    pub pieces: ArrayVec<(Frame, Note), PIECES_MAX>,
}

impl Default for Slow {
    fn default() -> Self {
        let storms = || Storms::new(PORTS_MAX);
        let scratch = Box::new([0; HEADER_LEN + PACKET_LEN_MAX]);
        Self {
            neighbour: storms(),
            router: storms(),
            echo: storms(),
            error: storms(),
            scratch,
            said: ArrayVec::new(),
            pieces: ArrayVec::new(),
        }
    }
}

/// Works off what was set aside and asks what is to be asked. What comes of it is in [`Slow::said`].
pub(super) fn run(view: &View, pool: &mut Pool, private: &mut Private) {
    let mut aside = std::mem::take(&mut private.aside);
    for Aside { frame, note, why, real } in aside.drain(..) {
        match why {
            Why::Host => host(view, pool, private, frame, &note),
            Why::Hold => hold(view, pool, private, frame, note, real),
            Why::NoNeighbour => {
                refuse(view, pool, private, frame, &note, Reason::NoNeighbour, DropReason::NeighbourFailed);
            }
            Why::Expired => {
                refuse(view, pool, private, frame, &note, Reason::Expired, DropReason::TtlExpired)
            }
            Why::NoRoute => refuse(view, pool, private, frame, &note, Reason::NoRoute, DropReason::NoRoute),
            Why::Unreachable => {
                refuse(view, pool, private, frame, &note, Reason::Unreachable, DropReason::NoRoute);
            }
            Why::FromKernel => {
                refuse(view, pool, private, frame, &note, Reason::NoRoute, DropReason::KernelLoop);
            }
            Why::Prohibited => {
                refuse(view, pool, private, frame, &note, Reason::Prohibited, DropReason::Prohibited);
            }
            Why::Scope => refuse(view, pool, private, frame, &note, Reason::Scope, DropReason::LinkScope),
            Why::TooBig => too_big(view, pool, private, frame, &note, real),
            Why::Rejected => reject::run(view, pool, private, frame, &note),
            // There is a place for each of a batch, and the list takes them all out behind each.
            Why::Tunnel => private.opened.push((frame, note.fid)),
        }
    }
    private.aside = aside;
    for chore in std::mem::take(&mut private.asks) {
        match chore {
            Chore::Ask(key, mac) => ask(view, pool, private, key, mac),
            Chore::Advertise(fid, mac, ip) => answer_host(view, pool, private, fid, mac, ip),
        }
    }
}

pub(super) fn version_of(note: &Note) -> Option<Version> {
    match note.ethertype() {
        IPV4 => Some(Version::V4),
        IPV6 => Some(Version::V6),
        _ => None,
    }
}

/// Something for the switch itself.
fn host(view: &View, pool: &mut Pool, private: &mut Private, frame: Frame, note: &Note) {
    let Some(gateway) = view.snapshot.gateway(note.fid) else {
        return private.drop(pool, view.in_port, DropReason::NoRoute, frame);
    };
    match version_of(note) {
        None => arp(view, pool, private, frame, note, gateway),
        Some(version) => {
            let packet = &pool.area().bytes(&frame)[note.payload_at()..];
            let Ok(hop) = hop::read(packet, version) else {
                return private.drop(pool, view.in_port, DropReason::IpHeader, frame);
            };
            match nd::read(packet, &hop) {
                Some(said) => discovery(view, pool, private, frame, note, gateway, &hop, said),
                None => packet_for_us(view, pool, private, frame, note, &hop),
            }
        }
    }
}

fn arp(view: &View, pool: &mut Pool, private: &mut Private, frame: Frame, note: &Note, gateway: &Gateway) {
    let Some(heard) = arp::read(&pool.area().bytes(&frame)[note.payload_at()..]) else {
        return private.drop(pool, view.in_port, DropReason::HostIgnored, frame);
    };
    // An answer is as welcome as its question was; what nobody asked for changes nothing.
    if heard.asks && !private.slow.neighbour.admit(view.in_port, NEIGHBOUR_PPS, 1, view.now) {
        return private.drop(pool, view.in_port, DropReason::HostLimit, frame);
    }
    let claim = if heard.asks { Claim::Question } else { Claim::Answer };
    hear::hear(view, private, note, gateway, heard.sender, heard.sender_mac, claim);
    private.consume(pool, frame);
    if heard.asks
        && let Some(has) = stand_in::find(view, note.fid, gateway, heard.target, heard.sender, private)
    {
        let answer = arp::Arp {
            asks: false,
            sender_mac: has.mac,
            sender: heard.target,
            target_mac: heard.sender_mac,
            target: heard.sender,
        };
        let verdict = reach::station(view, note.fid, note.src());
        let to = Link { fid: note.fid, dst: note.src(), src: has.mac, ethertype: ARP };
        say(pool, private, to, verdict, |out| arp::write(out, &answer));
        private.counters.event(Event::HostAnswered).add(1);
    }
}

#[allow(clippy::too_many_arguments, reason = "what is known of one packet")]
fn discovery(
    view: &View,
    pool: &mut Pool,
    private: &mut Private,
    frame: Frame,
    note: &Note,
    gateway: &Gateway,
    hop: &Hop,
    said: Nd,
) {
    let asks = matches!(said, Nd::Solicit { .. });
    if asks && !private.slow.neighbour.admit(view.in_port, NEIGHBOUR_PPS, 1, view.now) {
        return private.drop(pool, view.in_port, DropReason::HostLimit, frame);
    }
    private.consume(pool, frame);
    match said {
        // To a router's own station: its advertisement comes by itself.
        Nd::RouterSolicit => {}
        Nd::Advert { target, mac, solicited } => {
            let claim = if solicited { Claim::Answer } else { Claim::Announcement };
            // An answer to a unicast question need not name the station (RFC 4861 §4.4).
            let mac = if mac == 0 { note.src() } else { mac };
            hear::hear(view, private, note, gateway, target, mac, claim);
        }
        Nd::Solicit { target, mac } => {
            if hop.src != 0 {
                let mac = if mac == 0 { note.src() } else { mac };
                hear::hear(view, private, note, gateway, hop.src, mac, Claim::Question);
            }
            if let Some(has) = stand_in::find(view, note.fid, gateway, target, hop.src, private) {
                // Whoever has no address yet only wants to know: everybody is told (RFC 4861 §7.2.4).
                let (dst, mac, verdict) = if hop.src == 0 {
                    (nd::ALL_NODES, nd::group_mac(nd::ALL_NODES), Verdict::Flood(Class::Multicast))
                } else {
                    (hop.src, note.src(), reach::station(view, note.fid, note.src()))
                };
                let to = Link { fid: note.fid, dst: mac, src: has.mac, ethertype: IPV6 };
                say(pool, private, to, verdict, |out| {
                    nd::advert(out, dst, target, has.mac, has.router, hop.src != 0)
                });
                private.counters.event(Event::HostAnswered).add(1);
            }
        }
    }
}

/// A packet to one of the switch's addresses: ping is answered, ports are closed, other protocols are not spoken. The
/// switch puts no fragments together.
fn packet_for_us(view: &View, pool: &mut Pool, private: &mut Private, frame: Frame, note: &Note, hop: &Hop) {
    // Whoever speaks as the switch, also by what it is elsewhere, would have it talk to itself.
    let vrf = view.snapshot.gateway(note.fid).map_or(0, |gateway| gateway.vrf);
    if view.snapshot.routing.find(vrf, hop.src).is_some_and(|entry| entry.action == Action::Local) {
        return private.drop(pool, view.in_port, DropReason::MartianSource, frame);
    }
    let packet = &pool.area().bytes(&frame)[note.payload_at()..];
    let reason = match ip::parse(packet, hop.version) {
        Ok(read) if read.more || read.later_fragment => None,
        Ok(read) if matches!(read.protocol, TCP | UDP) => Some(Reason::NoPort),
        // Behind other headers nobody needs to know which of them is meant.
        Ok(read) => (read.protocol == hop.protocol && !matches!(read.protocol, ICMP | ICMPV6 | NO_NEXT))
            .then_some(Reason::NoProtocol),
        Err(_) => None,
    };
    if let Some(reason) = reason {
        return refuse(view, pool, private, frame, note, reason, DropReason::HostIgnored);
    }
    if !private.slow.echo.admit(view.in_port, ECHO_PPS, 1, view.now) {
        return private.drop(pool, view.in_port, DropReason::HostLimit, frame);
    }
    let own = speaks_for(view, note, hop.dst).unwrap_or(hop.dst);
    let (mut frame, mut note) = (frame, *note);
    let bytes = pool.area().bytes_mut(&mut frame);
    if !echo::answer(&mut bytes[note.payload_at()..], hop, own) {
        return private.drop(pool, view.in_port, DropReason::HostIgnored, frame);
    }
    // The way it came.
    set_addresses(bytes, note.src(), note.dst);
    let asker = note.src();
    note.set_src(note.dst);
    (note.dst, note.routed) = (asker, true);
    note.verdict = reach::station(view, note.fid, note.dst);
    frame.offload.csum = Csum::Complete;
    private.counters.event(Event::HostAnswered).add(1);
    // The question was for us, and its frame is the answer's.
    private.counters.ledger.consumed.add(1);
    private.counters.ledger.generated.add(1);
    if let Err(full) = private.slow.said.try_push((frame, note)) {
        private.drop(pool, view.in_port, DropReason::HostLimit, full.element().0);
    }
}

/// The address that answers for a destination of the switch's own that is no host's: routers of a network share one (RFC 4291
/// §2.6.1), and an answer comes from one of its own (RFC 4443 §2.2). None if the destination itself answers.
fn speaks_for(view: &View, note: &Note, dst: u128) -> Option<u128> {
    let here = view.snapshot.gateway(note.fid)?;
    if is_v4(dst) || here.owns(dst) {
        return None;
    }
    let mut gateways = view.snapshot.fids.iter().filter_map(|facts| facts.gateway.as_deref());
    let is_one_hosts = gateways.any(|gateway| gateway.vrf == here.vrf && gateway.owns(dst));
    here.speaks_as(dst).filter(|_| !is_one_hosts)
}

/// Holds a packet until its neighbour answers, and asks for that.
fn hold(view: &View, pool: &mut Pool, private: &mut Private, frame: Frame, note: Note, real: Option<u128>) {
    let way = match view.snapshot.gateway(note.fid) {
        Some(gateway) => route::way(view, pool.area().bytes(&frame), &note, gateway, real),
        None => Err(Verdict::Drop(DropReason::NoRoute)),
    };
    // It was one a moment ago, in the same snapshot.
    let Ok(leg) = way else { return private.drop(pool, view.in_port, DropReason::NoRoute, frame) };
    let waits = private.holds.contains(leg.key);
    let ask_it = if waits { Ask::Wait } else { view.tables.neigh.ask(leg.key, view.in_port, view.now_s) };
    match ask_it {
        Ask::Send => ask(view, pool, private, leg.key, None),
        Ask::Wait => {}
        Ask::Known => private.holds.poke(),
        Ask::Failed => {
            let why = DropReason::NeighbourFailed;
            return refuse(view, pool, private, frame, &note, Reason::NoNeighbour, why);
        }
        Ask::Full => return private.drop(pool, view.in_port, DropReason::NeighbourFull, frame),
    }
    // Large frames are few; those that wait leave some to the others.
    if frame.is_large() && pool.free_large() == 0 {
        return private.drop(pool, view.in_port, DropReason::HoldFull, frame);
    }
    let most = pool.expected().max(0) as usize / HELD_PART;
    let note = Note { verdict: Verdict::Undecided, ..note };
    let held = Held { frame, note, in_port: view.in_port, in_queue: private.in_queue };
    if let Err(frame) = private.holds.push(leg.key, held, most, view.now) {
        private.drop(pool, view.in_port, DropReason::HoldFull, frame);
    }
}

/// Cuts up what may be cut up; the sender of anything else is told how long it may be.
fn too_big(
    view: &View,
    pool: &mut Pool,
    private: &mut Private,
    frame: Frame,
    note: &Note,
    real: Option<u128>,
) {
    let mut frame = frame;
    let area = pool.area_shared();
    let Some(mtu) = route::mtu_of_way(view, area.bytes(&frame), note, real) else {
        return private.drop(pool, view.in_port, DropReason::MtuExceeded, frame);
    };
    if frame.offload.gso.is_some() {
        match cut_train(pool, private, frame, note) {
            None => return,
            Some(whole) => frame = whole,
        }
    }
    let cut = match (version_of(note), frame.offload.gso) {
        (Some(version), None) => {
            let packet = area.bytes(&frame).get(note.payload_at()..).unwrap_or_default();
            hop::read(packet, version).ok().and_then(|hop| Cut::new(&hop, usize::from(mtu)))
        }
        _ => None,
    };
    let room = private.slow.pieces.remaining_capacity().min(pool.free());
    // Over a way for jumbo packets pieces are large as well: of one that is not there the others are of no use.
    let is_large = |len: usize| note.payload_at() + len > area.packet_len_max();
    let large = |cut: &Cut| (0..cut.count()).filter(|n| is_large(cut.len(*n))).count();
    let Some(cut) = cut.filter(|cut| cut.count() <= room && large(cut) <= pool.free_large()) else {
        let drop = DropReason::MtuExceeded;
        return refuse(view, pool, private, frame, note, Reason::TooBig(mtu), drop);
    };
    // A checksum that is still to be finished is over the whole; nobody can do that behind us.
    let unfinished = match frame.offload.csum {
        Csum::Unknown => checksum::state(area.bytes(&frame)),
        known => known,
    };
    if let Csum::Partial { start, field } = unfinished {
        checksum::finish(area.bytes_mut(&mut frame), start, field);
    }
    let (head, packet) = area.bytes(&frame).split_at(note.payload_at());
    let mut made = 0;
    for n in 0..cut.count() {
        let Some(mut piece) = pool.take_for(head.len() + cut.len(n)) else { break };
        if !area.set_len(&mut piece, head.len() + cut.len(n)) {
            pool.give(piece);
            break;
        }
        let bytes = area.bytes_mut(&mut piece);
        bytes[..head.len()].copy_from_slice(head);
        cut.write(packet, n, &mut bytes[head.len()..]);
        piece.offload.csum = Csum::Complete;
        private.slow.pieces.push((piece, Note { verdict: Verdict::Undecided, ..*note }));
        made += 1;
    }
    private.replaced(pool, frame, made);
    private.counters.event(Event::Fragmented).add(1);
}

/// Cuts a superframe whose segments are too long, but may be cut up, into these: `route` decides about each, and they come here
/// again one by one, as Linux has it (`ip_finish_output_gso`, net/ipv4/ip_output.c). It comes back where that must not be, or
/// where there is no room for all of them.
fn cut_train(pool: &mut Pool, private: &mut Private, frame: Frame, note: &Note) -> Option<Frame> {
    let area = pool.area_shared();
    let bytes = area.bytes(&frame);
    let packet = bytes.get(note.payload_at()..).unwrap_or_default();
    let may =
        version_of(note) == Some(Version::V4) && hop::read(packet, Version::V4).is_ok_and(|hop| !hop.whole);
    let gso = frame.offload.gso.filter(|_| may);
    let segmenter = gso.map(|gso| Segmenter::new(bytes, frame.offload.csum, gso));
    let Some(Ok(segmenter)) = segmenter else { return Some(frame) };
    let room = private.slow.pieces.remaining_capacity().min(pool.free());
    // They may need large frames, of which there are few: then nothing is begun.
    if segmenter.count() > room || segmenter.len_of(0) > area.packet_len_max() {
        return Some(frame);
    }
    let mut made = 0;
    for n in 0..segmenter.count() {
        let Some(mut segment) = pool.take() else { break };
        if !area.set_len(&mut segment, segmenter.len_of(n)) {
            pool.give(segment);
            break;
        }
        segment.offload.csum = segmenter.partial();
        _ = segmenter.write(n, area.bytes_mut(&mut segment), false);
        private.slow.pieces.push((segment, Note { verdict: Verdict::Undecided, ..*note }));
        made += 1;
    }
    private.replaced(pool, frame, made);
    None
}

/// Asks who has an address: the station that had it, or everybody.
pub(super) fn ask(view: &View, pool: &mut Pool, private: &mut Private, key: Key, station: Option<u64>) {
    let (fid, target) = neigh::unkey(key);
    let Some(gateway) = view.snapshot.gateway(fid) else { return };
    if gateway.is_kernels {
        // The next turn of whoever waits asks again.
        _ = private.wants.try_push(key);
        return private.counters.event(Event::NeighAsked).add(1);
    }
    let is_v4 = is_v4(target);
    // A neighbour is asked from an address of its network; link-local for IPv6, which every node has.
    let own = if is_v4 { gateway.speaks_as(target) } else { Some(gateway.link_local) };
    let Some(own) = own else { return };
    private.counters.event(Event::NeighAsked).add(1);
    let everybody = if is_v4 { BROADCAST } else { nd::group_mac(nd::solicited_node(target)) };
    let verdict = match station {
        Some(mac) => reach::station(view, fid, mac),
        None => Verdict::Flood(if is_v4 { Class::Broadcast } else { Class::Multicast }),
    };
    let ethertype = if is_v4 { ARP } else { IPV6 };
    let to = Link { fid, dst: station.unwrap_or(everybody), src: gateway.mac, ethertype };
    say(pool, private, to, verdict, |out| {
        if is_v4 {
            let mac = gateway.mac;
            arp::write(out, &arp::Arp { asks: true, sender_mac: mac, sender: own, target_mac: 0, target })
        } else {
            let dst = if station.is_some() { target } else { nd::solicited_node(target) };
            nd::solicit(out, own, dst, target, gateway.mac)
        }
    });
}

/// Tells everybody on a link unasked that the switch has an address.
pub(super) fn announce(pool: &mut Pool, private: &mut Private, fid: u16, mac: u64, ip: u128) {
    let is_v4 = crate::config::gateway::is_v4(ip);
    let (dst, class, ethertype) = if is_v4 {
        (BROADCAST, Class::Broadcast, ARP)
    } else {
        (nd::group_mac(nd::ALL_NODES), Class::Multicast, IPV6)
    };
    let to = Link { fid, dst, src: mac, ethertype };
    say(pool, private, to, Verdict::Flood(class), |out| {
        if is_v4 {
            arp::write(out, &arp::Arp { asks: true, sender_mac: mac, sender: ip, target_mac: 0, target: ip })
        } else {
            nd::advert(out, nd::ALL_NODES, ip, mac, true, false)
        }
    });
}

/// Tells a host that asked of its router. Only its station is told (RFC 6085), also if it has no address yet: nobody makes
/// the switch send to everybody.
fn answer_host(view: &View, pool: &mut Pool, private: &mut Private, fid: u16, mac: u64, ip: u128) {
    if private.slow.router.admit(view.in_port, ROUTER_PPS, 1, view.now) {
        let ip = if ip == 0 { nd::ALL_NODES } else { ip };
        advertise(view, pool, private, fid, Some((mac, ip)), &Withdrawn::default());
        private.counters.event(Event::HostAnswered).add(1);
    }
}

/// Tells a host, by station and address, or everybody on a link, that the switch is a router, and of networks it has lost.
pub(super) fn advertise(
    view: &View,
    pool: &mut Pool,
    private: &mut Private,
    fid: u16,
    to: Option<(u64, u128)>,
    withdrawn: &Withdrawn,
) {
    let Some(gateway) = view.snapshot.gateway(fid).filter(|gateway| gateway.speaks_v6()) else { return };
    let Some(said) = &gateway.advert else { return };
    let members = view.snapshot.fids.get(usize::from(fid)).map_or(&[][..], |facts| &facts.members);
    let mtus = members.iter().filter_map(|member| view.snapshot.port(member.port)).map(|port| port.mtu);
    let mtu = mtus.min().unwrap_or(0);
    let (mac, ip) = to.unwrap_or((nd::group_mac(nd::ALL_NODES), nd::ALL_NODES));
    let verdict = match to {
        Some((mac, _)) => reach::station(view, fid, mac),
        None => Verdict::Flood(Class::Multicast),
    };
    let link = Link { fid, dst: mac, src: gateway.mac, ethertype: IPV6 };
    let router = Router { mac: gateway.mac, link_local: gateway.link_local };
    let networks = gateway.addresses.iter().filter(|own| !is_v4(own.ip)).map(|own| (own.network(), own.len));
    say(pool, private, link, verdict, |out| advert::write(out, ip, router, said, mtu, networks, withdrawn));
}

/// Tells everybody on a link that the station `mac` is no router any more, and of networks it has lost.
pub(super) fn advertise_last(
    view: &View,
    pool: &mut Pool,
    private: &mut Private,
    fid: u16,
    mac: u64,
    withdrawn: &Withdrawn,
) {
    if view.snapshot.fids.get(usize::from(fid)).is_some() {
        let dst = nd::group_mac(nd::ALL_NODES);
        let link = Link { fid, dst, src: mac, ethertype: IPV6 };
        let router = Router { mac, link_local: link_local(mac) };
        let verdict = Verdict::Flood(Class::Multicast);
        say(pool, private, link, verdict, |out| advert::write_last(out, nd::ALL_NODES, router, withdrawn));
    }
}

/// Drops a packet and tells its sender why, the way it came.
pub(super) fn refuse(
    view: &View,
    pool: &mut Pool,
    private: &mut Private,
    frame: Frame,
    note: &Note,
    reason: Reason,
    drop: DropReason,
) {
    private.count_drop(pool, view.in_port, drop, &frame);
    tell(view, pool, private, &frame, note, reason);
    pool.give(frame);
}

fn tell(view: &View, pool: &mut Pool, private: &mut Private, frame: &Frame, note: &Note, reason: Reason) {
    let (Some(gateway), Some(version)) = (view.snapshot.gateway(note.fid), version_of(note)) else { return };
    let packet = pool.area().bytes(frame).get(note.payload_at()..).unwrap_or_default();
    let Ok(hop) = hop::read(packet, version) else { return };
    let own = match reason {
        // Who sent to one of several addresses is told by that one (RFC 1122 §4.1.3.5, RFC 4443 §2.2).
        Reason::NoPort | Reason::NoProtocol => speaks_for(view, note, hop.dst).or(Some(hop.dst)),
        _ => gateway.speaks_as(hop.src),
    };
    let Some(own) = own.filter(|_| error::is_due(packet, &hop)) else { return };
    if !private.slow.error.admit(view.in_port, ERROR_PPS, 1, view.now) {
        return private.counters.event(Event::ErrorUntold).add(1);
    }
    let mut out = [0; PACKET_LEN_MAX];
    let len = error::write(&mut out, packet, &hop, own, reason);
    let verdict = reach::station(view, note.fid, note.src());
    let to = Link { fid: note.fid, dst: note.src(), src: gateway.mac, ethertype: note.ethertype() };
    say(pool, private, to, verdict, |place| {
        place[..len].copy_from_slice(&out[..len]);
        len
    });
    private.counters.event(Event::ErrorTold).add(1);
}

/// Where what the switch says goes on its link.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub fid: u16,
    pub dst: u64,
    pub src: u64,
    pub ethertype: u16,
}

/// Says something: `write` makes the packet. Without a free frame it stays unsaid, as a lost frame would.
pub(super) fn say(
    pool: &mut Pool,
    private: &mut Private,
    to: Link,
    verdict: Verdict,
    write: impl FnOnce(&mut [u8]) -> usize,
) {
    let slow = &mut private.slow;
    if slow.said.is_full() {
        return;
    }
    let Some(mut frame) = pool.take() else { return };
    set_addresses(&mut slow.scratch[..], to.dst, to.src);
    slow.scratch[12..HEADER_LEN].copy_from_slice(&to.ethertype.to_be_bytes());
    let len = HEADER_LEN + write(&mut slow.scratch[HEADER_LEN..]);
    if !pool.area().fill(&mut frame, &slow.scratch[..len]) {
        return pool.give(frame);
    }
    frame.offload.csum = Csum::Complete;
    let note = Note {
        dst: to.dst,
        src_ethertype: src_ethertype(to.src, to.ethertype),
        fid: to.fid,
        routed: true,
        verdict,
        ..Note::default()
    };
    slow.said.push((frame, note));
    private.counters.ledger.generated.add(1);
}
