//! `route`: what is sent to the bridge's own MAC goes to another bridge, or to the switch itself. The batch
//! is classified first. What goes where others went a moment ago follows them ([`super::ways`]), at once unless something else has to be asked before; for the rest the route is looked up, and
//! what follows others of its route goes with them. For what is left then there is one plain loop for each thing that is looked up: where
//! asked for the way back, the neighbour, the neighbour's port. What needs
//! thought (no neighbour yet, nothing to arrive at, a question for the switch) is set aside for [`super::slow`].

mod collect;
mod head;

use super::next_hop::{Chores, next_hop};
use super::note::Note;
use super::verdict::{Class, Verdict, Why};
use super::ways::{self, Way};
use super::{Private, View, hear, reach};
use crate::config::gateway::{Action, Entry, Gateway, NO_MTU, is_link_local};
use crate::config::snapshot::{PortFacts, PortId};
use crate::config::uplink::KERNEL_IP;
use crate::counter::DropReason;
use crate::frame::{Area, BATCH_FRAMES, Frame};
use crate::table::fdb;
use crate::table::neigh::{self, Found};
use crate::table::wide::Key;
use crate::wire::gso;
use crate::wire::hop::Hop;
use arrayvec::ArrayVec;
use collect::collect;
use head::read;
use std::num::NonZeroU16;
use switch_api::ReversePath;

/// A packet whose way is looked for.
#[derive(Clone, Copy, Default)]
struct Ask {
    /// Where it goes.
    dst: u128,
    /// Bytes of it.
    len: u32,
    /// The routing table that is asked: that of the gateway where it came in.
    vrf: u16,
    /// Where its way is kept.
    set: u16,
    /// Its place in the batch.
    index: u8,
    /// It does not simply follow others: it has no hop left, its source or destination is of a link alone, or it is a superframe, whose segments
    /// would have to be measured.
    is_odd: bool,
}

/// Room for those of a batch. Not a list that grows: where it ends is a number in a register.
type Asks = [Ask; BATCH_FRAMES];

// Two to a line: what else a header says is read again where it is asked for.
const _: () = assert!(size_of::<Ask>() == 32);

/// A packet on its way out: to which neighbour, on which bridge and VLAN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    /// Which [`Ask`] it answers.
    ask: usize,
    /// Bridge and VLAN.
    pub fid: u16,
    /// The neighbour.
    pub key: Key,
    home: u32,
    /// Bytes of the packet, and how many its route allows.
    len: usize,
    mtu: u16,
    /// Where it is counted.
    counter: Option<NonZeroU16>,
    /// The next packet to its destination will have the same one: it is kept.
    lasts: bool,
    /// So has every packet of this route; 0: has none.
    route: u32,
    /// It leads to the node's kernel.
    to_kernel: bool,
    /// The neighbour's station, and where the FDB keeps it.
    mac: u64,
    station_home: u32,
}

/// Whether all of the batch was to be routed: then nothing of it is left undecided.
// Loops of their own, not parts of the list's one long function: there each packet would wait for registers.
#[inline(never)]
pub(super) fn run(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    private: &mut Private,
) -> bool {
    let mut room = [Ask::default(); BATCH_FRAMES];
    let routes_first = private.ways.are_routes_first();
    private.ways.turn_to(ways::epoch(view, &private.holds));
    let at_once = !routes_first && view.facts.reverse_path == ReversePath::Off && !view.facts.translated;
    let (gone, count) = match at_once {
        true => collect::<true>(view, area, frames, notes, &mut room, private),
        false => collect::<false>(view, area, frames, notes, &mut room, private),
    };
    // What was heard meanwhile may have changed where things go.
    private.ways.turn_to(ways::epoch(view, &private.holds));
    let mut asks = &mut room[..count];
    if view.facts.reverse_path != ReversePath::Off {
        asks = check_sources(view, area, frames, notes, asks);
    }
    let packets = gone + asks.len();
    if !routes_first && !at_once {
        asks = follow(view, area, frames, notes, asks, private);
    }
    let led = match asks.is_empty() {
        true => 0,
        false => search(view, area, frames, notes, asks, private),
    };
    private.ways.note_batch(led, packets);
    gone + count == notes.len()
}

/// What goes to a destination to which something went lately goes the same way. The others are left.
#[inline(never)]
fn follow<'a>(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    asks: &'a mut [Ask],
    private: &Private,
) -> &'a mut [Ask] {
    let bars = bars(view);
    let mut left = 0;
    for n in 0..asks.len() {
        let ask = &asks[n];
        let found = private.ways.find(ask.set, ask.vrf, ask.dst, view.now_s);
        let way = match found.map(|number| private.ways.way(number)) {
            Some(way) if leads(way, ask, bars) => way,
            _ => {
                asks[left] = *ask;
                left += 1;
                continue;
            }
        };
        go(way, area, frames, notes, ask, private);
    }
    &mut asks[..left]
}

/// What is of a route of which something went lately goes the same way. The others are left, and what the table says of them.
#[inline(always)]
fn follow_routes<'a>(
    view: &View,
    (area, frames): (&Area, &[Frame]),
    notes: &mut [Note],
    asks: &'a mut [Ask],
    values: &mut [u32; BATCH_FRAMES],
    private: &mut Private,
) -> &'a mut [Ask] {
    let bars = bars(view);
    let mut left = 0;
    for n in 0..asks.len() {
        let (ask, value) = (asks[n], values[n]);
        let number = match private.ways.of_route(value, view.now_s) {
            Some(number) if leads(private.ways.way(number), &ask, bars) => number,
            _ => {
                (asks[left], values[left]) = (ask, value);
                left += 1;
                continue;
            }
        };
        go(private.ways.way(number), area, frames, notes, &ask, private);
        if private.ways.is_due() {
            private.ways.lead(ask.set, ask.vrf, ask.dst, number);
        }
    }
    &mut asks[..left]
}

/// A packet goes this way.
#[inline(always)]
fn go(way: &Way, area: &Area, frames: &[Frame], notes: &mut [Note], ask: &Ask, private: &Private) {
    let index = usize::from(ask.index);
    let note = &mut notes[index];
    note.verdict = Verdict::Port(way.port);
    note.set_src(way.src);
    (note.dst, note.fid, note.routed) = (way.mac, way.fid, true);
    if let Some(counter) = way.counter {
        add(private, counter, area.bytes(&frames[index]), &frames[index]);
    }
}

/// What of [`Way::bars`] concerns packets that come in here.
#[inline(always)]
fn bars(view: &View) -> u8 {
    ways::bars(view.facts.isolated, view.facts.to_kernel)
}

/// Whether a packet that comes in where those are barred can go this way as it is.
#[inline(always)]
fn leads(way: &Way, ask: &Ask, bars: u8) -> bool {
    !ask.is_odd && ask.len <= u32::from(way.mtu) && way.bars & bars == 0
}

/// Looks up routes, and the ways that nobody went lately. How many packets simply follow their route.
#[inline(never)]
fn search(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    asks: &mut [Ask],
    private: &mut Private,
) -> usize {
    let (count, mut values) = (asks.len(), find_routes(view, asks));
    let mut asks = follow_routes(view, (area, frames), notes, asks, &mut values, private);
    let led = count - asks.len();
    if private.ways.are_routes_first() && !asks.is_empty() {
        // Who has no way by his route may have one of his own.
        asks = follow(view, area, frames, notes, asks, private);
        values = find_routes(view, asks);
    }
    if !asks.is_empty() {
        look_up(view, area, frames, notes, (asks, &values), private);
    }
    led
}

/// What the routing tables say of each destination.
#[inline]
fn find_routes(view: &View, asks: &[Ask]) -> [u32; BATCH_FRAMES] {
    let mut values = [0; BATCH_FRAMES];
    view.snapshot.routing.find_each(&mut values[..asks.len()], |n| (asks[n].vrf, asks[n].dst));
    values
}

/// Looks up neighbours and ports of what follows nobody.
#[inline(never)]
fn look_up(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    (asks, values): (&[Ask], &[u32]),
    private: &mut Private,
) {
    let mut legs = find_neighbours(view, (area, frames), notes, asks, values, private);
    find_stations(view, notes, asks, &mut legs, private);
    find_ports(view, notes, asks, &legs, private);
    if legs.iter().any(|leg| leg.counter.is_some()) {
        count(area, frames, notes, asks, &legs, private);
    }
}

/// Drops what did not come the way that leads back to its source. Link-local sources have no route: they are on the link,
/// and go no further.
#[inline(never)]
fn check_sources<'a>(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    asks: &'a mut [Ask],
) -> &'a mut [Ask] {
    let (mut sources, mut values) = ([0; BATCH_FRAMES], [0; BATCH_FRAMES]);
    for (ask, source) in asks.iter().zip(&mut sources) {
        *source = read_again(view, area, frames, notes, ask).map_or(0, |(hop, _)| hop.src);
    }
    let values = &mut values[..asks.len()];
    view.snapshot.routing.find_each(values, |n| (asks[n].vrf, sources[n]));
    let mut left = 0;
    for (n, (value, source)) in values.iter().zip(&sources).enumerate() {
        let ask = asks[n];
        let note = &mut notes[usize::from(ask.index)];
        let by = (view.facts.reverse_path == ReversePath::Strict).then_some(note.fid);
        let entry = view.snapshot.routing.entry(*value);
        if is_link_local(*source) || leads_back(view, entry.map(|entry| entry.action), by) {
            asks[left] = ask;
            left += 1;
        } else {
            note.verdict = Verdict::Drop(DropReason::ReversePath);
        }
    }
    &mut asks[..left]
}

/// The header of a packet that was read a moment ago, its destination as it really is, and where it came in.
#[inline]
fn read_again<'a>(
    view: &View<'a>,
    area: &Area,
    frames: &[Frame],
    notes: &[Note],
    ask: &Ask,
) -> Result<(Hop, &'a Gateway), Verdict> {
    let index = usize::from(ask.index);
    let gateway = view.snapshot.gateway(notes[index].fid).ok_or(Verdict::Drop(DropReason::NotRouted))?;
    let hop = read(area.bytes(&frames[index]), &notes[index], gateway)?;
    Ok((Hop { dst: ask.dst, ..hop }, gateway))
}

/// Whether an action leads to somebody (by this bridge and VLAN): what Linux asks in `__fib_validate_source`
/// (net/ipv4/fib_frontend.c). Of several next hops one is enough.
#[inline]
fn leads_back(view: &View, action: Option<Action>, by: Option<u16>) -> bool {
    let fits = |fid| by.is_none_or(|by| by == fid);
    match action {
        Some(Action::Link(fid) | Action::Kernel(fid)) => fits(fid),
        Some(Action::Via(group)) => {
            let group = view.snapshot.routing.group(group);
            group.is_some_and(|group| group.hops().iter().any(|hop| fits(hop.fid)))
        }
        Some(
            Action::Local | Action::Broadcast | Action::Blackhole | Action::Unreachable | Action::Prohibit,
        )
        | None => false,
    }
}

/// The neighbour that each packet's route leads to.
#[inline]
fn find_neighbours(
    view: &View,
    (area, frames): (&Area, &[Frame]),
    notes: &mut [Note],
    asks: &[Ask],
    values: &[u32],
    private: &mut Private,
) -> ArrayVec<Leg, BATCH_FRAMES> {
    let mut legs = ArrayVec::new();
    for (n, (ask, value)) in asks.iter().zip(values).enumerate() {
        let index = usize::from(ask.index);
        let read = read_again(view, area, frames, notes, ask);
        let (frame, note) = (&frames[index], &mut notes[index]);
        let bytes = area.bytes(frame);
        let entry = view.snapshot.routing.entry(*value);
        let chores = Some(&mut private.asks);
        match read.and_then(|(hop, gateway)| lead(view, bytes, note, gateway, &hop, entry, chores)) {
            Ok(mut leg) => {
                if let Some(gso) = frame.offload.gso {
                    // Of a superframe the segments are what an MTU is about.
                    leg.len = gso::longest(bytes, gso) - note.payload_at();
                }
                view.tables.neigh.touch(leg.home);
                let route = if leads_all(entry, &leg) { *value } else { 0 };
                legs.push(Leg { ask: n, route, ..leg });
            }
            Err(verdict) => {
                note.verdict = verdict;
                if let Some(Entry { action, counter: Some(counter), .. }) = entry
                    && matches!(action, Action::Blackhole | Action::Unreachable | Action::Prohibit)
                {
                    add(private, counter, bytes, frame);
                }
            }
        }
    }
    legs
}

/// Whether all packets of a route go where one of them goes: it leads to a next hop, and not to each destination as a neighbour of its own.
#[inline]
fn leads_all(entry: Option<Entry>, leg: &Leg) -> bool {
    leg.lasts && entry.is_some_and(|entry| matches!(entry.action, Action::Via(_) | Action::Kernel(_)))
}

/// Counts what goes on by counted routes; what is set aside, held or cut up comes by here again.
#[cold]
#[inline(never)]
fn count(area: &Area, frames: &[Frame], notes: &[Note], asks: &[Ask], legs: &[Leg], private: &Private) {
    for leg in legs {
        let index = usize::from(asks[leg.ask].index);
        if let Some(counter) = leg.counter
            && matches!(notes[index].verdict, Verdict::Port(_) | Verdict::Flood(_))
        {
            add(private, counter, area.bytes(&frames[index]), &frames[index]);
        }
    }
}

#[cold]
fn add(private: &Private, counter: NonZeroU16, bytes: &[u8], frame: &Frame) {
    let (packets, bytes) = gso::on_wire(bytes, frame.offload.gso);
    if let Some(traffic) = private.counters.route(counter) {
        traffic.packets.add(packets);
        traffic.bytes.add(bytes);
    }
}

/// Which way a packet to the switch's MAC goes on; else what becomes of it.
#[cold]
pub(super) fn way(
    view: &View,
    bytes: &[u8],
    note: &Note,
    gateway: &Gateway,
    real: Option<u128>,
) -> Result<Leg, Verdict> {
    let hop = read(bytes, note, gateway)?;
    let hop = Hop { dst: real.unwrap_or(hop.dst), ..hop };
    lead(view, bytes, note, gateway, &hop, view.snapshot.routing.find(gateway.vrf, hop.dst), None)
}

/// Where what a table says leads.
#[inline]
fn lead(
    view: &View,
    bytes: &[u8],
    note: &Note,
    gateway: &Gateway,
    hop: &Hop,
    entry: Option<Entry>,
    chores: Chores,
) -> Result<Leg, Verdict> {
    let packet = bytes.get(note.payload_at()..).unwrap_or_default();
    let Entry { action, mtu, counter } = match entry {
        _ if is_link_local(hop.dst) && hop.dst == gateway.link_local => Action::Local.into(),
        Some(entry) => entry,
        None => return Err(Verdict::Aside(Why::NoRoute)),
    };
    let (fid, next, lasts) = match action {
        Action::Link(fid) => (fid, hop.dst, true),
        // The kernel found no other way for it than back to us: it would go round until its TTL ends it.
        Action::Kernel(_) if view.facts.to_kernel => return Err(Verdict::Aside(Why::FromKernel)),
        Action::Kernel(fid) => (fid, KERNEL_IP, true),
        Action::Via(group) => next_hop(view, packet, hop, group, chores)?,
        Action::Local => return Err(Verdict::Aside(Why::Host)),
        Action::Broadcast => return Err(Verdict::Drop(DropReason::DirectedBroadcast)),
        Action::Blackhole => return Err(Verdict::Drop(DropReason::Blackhole)),
        Action::Unreachable => return Err(Verdict::Aside(Why::Unreachable)),
        Action::Prohibit => return Err(Verdict::Aside(Why::Prohibited)),
    };
    if hop.ttl <= 1 {
        return Err(Verdict::Aside(Why::Expired));
    }
    // Not to other links (RFC 4291 §2.5.6); back to its own it may.
    if is_link_local(hop.src) && fid != note.fid {
        return Err(Verdict::Aside(Why::Scope));
    }
    let key = neigh::key(fid, next);
    let home = view.tables.neigh.home(key);
    let to_kernel = matches!(action, Action::Kernel(_));
    Ok(Leg {
        ask: 0,
        fid,
        key,
        home,
        len: hop.len,
        mtu,
        counter,
        lasts,
        route: 0,
        to_kernel,
        mac: 0,
        station_home: 0,
    })
}

/// How long a packet to the switch's MAC may be for its route, and for the port by which it would leave.
#[cold]
pub(super) fn mtu_of_way(view: &View, bytes: &[u8], note: &Note, real: Option<u128>) -> Option<u16> {
    let leg = way(view, bytes, note, view.snapshot.gateway(note.fid)?, real).ok()?;
    let port = mtu_of_port(view, &leg);
    port.into_iter().chain((leg.mtu != NO_MTU).then_some(leg.mtu)).min()
}

fn mtu_of_port(view: &View, leg: &Leg) -> Option<u16> {
    let (Found::Fresh(mac) | Found::Stale(mac)) = view.tables.neigh.lookup(leg.home, leg.key, view.now_s)
    else {
        return None;
    };
    let port = reach::port_of(view, leg.fid, mac, view.tables.fdb.home(fdb::key(mac, leg.fid)))?;
    view.snapshot.port(port).map(|to| to.mtu)
}

/// The station of each neighbour; what has none yet is set aside.
#[inline]
fn find_stations(
    view: &View,
    notes: &mut [Note],
    asks: &[Ask],
    legs: &mut ArrayVec<Leg, BATCH_FRAMES>,
    private: &mut Private,
) {
    let (neighbours, table) = (&view.tables.neigh, &view.tables.fdb);
    let mut kept = 0;
    for n in 0..legs.len() {
        let mut leg = legs[n];
        let why = match neighbours.lookup(leg.home, leg.key, view.now_s) {
            // Nothing overtakes the packets that wait for this neighbour.
            _ if private.holds.contains(leg.key) => Why::Hold,
            found @ (Found::Fresh(mac) | Found::Stale(mac)) => {
                if found == Found::Stale(mac) {
                    hear::probe(view, leg.key, private);
                }
                leg.mac = mac;
                leg.station_home = table.home(fdb::key(mac, leg.fid));
                table.touch(leg.station_home);
                legs[kept] = leg;
                kept += 1;
                continue;
            }
            Found::Failed => Why::NoNeighbour,
            Found::Unknown => Why::Hold,
        };
        notes[usize::from(asks[leg.ask].index)].verdict = Verdict::Aside(why);
    }
    legs.truncate(kept);
}

/// The port of each station, and whether the packet fits through it.
#[inline]
fn find_ports(view: &View, notes: &mut [Note], asks: &[Ask], legs: &[Leg], private: &mut Private) {
    for leg in legs {
        let ask = &asks[leg.ask];
        let note = &mut notes[usize::from(ask.index)];
        let verdict = match reach::port_of(view, leg.fid, leg.mac, leg.station_home) {
            None if leg.len > usize::from(leg.mtu) => Verdict::Aside(Why::TooBig),
            None => reach::flood(view, note, private, Class::UnknownUnicast),
            Some(port) => match view.snapshot.port(port).filter(|to| to.open) {
                None => Verdict::Drop(DropReason::PortClosed),
                Some(to) if to.isolated && view.facts.isolated => Verdict::Drop(DropReason::Isolated),
                Some(to) if leg.len > usize::from(to.mtu.min(leg.mtu)) => Verdict::Aside(Why::TooBig),
                Some(to) => {
                    if leg.lasts {
                        keep(view, ask, leg, (port, to), private);
                    }
                    Verdict::Port(port)
                }
            },
        };
        note.verdict = verdict;
        // What is set aside or dropped keeps its addresses: its sender is told where it came from.
        if let (Verdict::Port(_) | Verdict::Flood(_), Some(out)) = (verdict, view.snapshot.gateway(leg.fid)) {
            note.set_src(out.mac);
            (note.dst, note.fid, note.routed) = (leg.mac, leg.fid, true);
        }
    }
}

/// Keeps a way for those that come after it.
#[inline]
fn keep(view: &View, ask: &Ask, leg: &Leg, (port, to): (PortId, &PortFacts), private: &mut Private) {
    let Some(out) = view.snapshot.gateway(leg.fid) else { return };
    let neighbour_until_s = view.tables.neigh.until_s(leg.home, leg.key, view.now_s);
    let number = private.ways.keep(Way {
        mac: leg.mac,
        src: out.mac,
        until_s: neighbour_until_s.min(reach::until_s(view, leg.fid, leg.mac, leg.station_home)),
        fid: leg.fid,
        port,
        mtu: to.mtu.min(leg.mtu),
        counter: leg.counter,
        bars: ways::bars(to.isolated, leg.to_kernel),
    });
    if leg.route != 0 {
        private.ways.lead_route(leg.route, number);
    }
    if leg.route == 0 || private.ways.is_due() {
        private.ways.lead(ask.set, ask.vrf, ask.dst, number);
    }
}
