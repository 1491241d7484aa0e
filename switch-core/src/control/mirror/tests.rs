//! The mirror beside a dull twin of the kernel: routes to a place as a list, news as the kernel tells it, and answers that were read
//! a place at a time while it changed.

use super::answer::{Answer, Meanwhile, Missing, Put};
use super::news::Known;
use crate::config::mirrored::{Change, KernelPlace, KernelWay, Mirrored};
use netlink_packet_core::{
    NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteNextHop, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

const TABLE: u32 = 254;
const LIMIT: usize = 100;
/// Of IPv4, and as many of IPv6 behind them.
const PLACES: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Verb {
    Add,
    Prepend,
    Append,
    Replace,
    Delete,
}

/// What somebody does to the routes to a place: over a next hop of this number, with an MTU of its own or none.
#[derive(Clone, Copy, Debug)]
struct Step {
    place: usize,
    verb: Verb,
    hop: u8,
    has_mtu: bool,
}

/// A next hop, and whether its route has an MTU.
type Hop = (u8, bool);

/// Routes of the kernel: of IPv4 several of one next hop to a place, of IPv6 one of several.
#[derive(Default)]
struct Kernel([Vec<Hop>; 2 * PLACES]);

impl Kernel {
    /// Does what it is told, and tells of it as net/ipv4/fib_trie.c (`fib_table_insert`) and net/ipv6/ip6_fib.c
    /// (`fib6_add_rt2node`) do; none if it refuses, or nothing is different.
    fn after(&mut self, step: Step) -> Option<Vec<u8>> {
        let (Step { place, verb, .. }, is_v6) = (step, step.place >= PLACES);
        let (routes, new) = (&mut self.0[place], (step.hop, step.has_mtu));
        let is_same = |hop: &Hop| hop.0 == new.0 && (is_v6 || hop.1 == new.1);
        let there = routes.iter().position(is_same);
        let flags = match verb {
            Verb::Delete => {
                // `ip route del` that names no MTU takes the first over this next hop.
                let at = routes.iter().position(|hop| hop.0 == new.0)?;
                let gone = routes.remove(at);
                return Some(news(false, &route(place, &[gone]), 0));
            }
            Verb::Add if !routes.is_empty() => return None,
            Verb::Replace if is_v6 && !routes.is_empty() => {
                *routes = vec![new];
                NLM_F_REPLACE
            }
            Verb::Add | Verb::Prepend | Verb::Append | Verb::Replace if there.is_some() => return None,
            Verb::Replace if !routes.is_empty() => {
                routes[0] = new;
                NLM_F_REPLACE
            }
            // Of IPv6 a new next hop is always the last.
            Verb::Prepend if !is_v6 => {
                routes.insert(0, new);
                NLM_F_CREATE
            }
            Verb::Add | Verb::Prepend | Verb::Append | Verb::Replace => {
                routes.push(new);
                NLM_F_CREATE | if routes.len() > 1 { NLM_F_APPEND } else { NLM_F_EXCL }
            }
        };
        // Of IPv6 all next hops are told, the new one first.
        let others = routes.iter().copied().filter(|hop| is_v6 && *hop != new);
        let told: Vec<Hop> = std::iter::once(new).chain(others).collect();
        Some(news(true, &route(place, &told), flags))
    }

    /// What it answers about a place.
    fn routes(&self, place: usize) -> Vec<RouteMessage> {
        match &self.0[place][..] {
            [] => Vec::new(),
            all if place >= PLACES => vec![route(place, all)],
            all => all.iter().map(|hop| route(place, &[*hop])).collect(),
        }
    }
}

/// A route as it is told.
fn route(place: usize, hops: &[Hop]) -> RouteMessage {
    let mut message = RouteMessage::default();
    let is_v6 = place >= PLACES;
    let address = |n: u8| match is_v6 {
        true => RouteAddress::Inet6([0xfd00, 0, 0, 0, 0, 0, 0, n.into()].into()),
        false => RouteAddress::Inet([10, 0, 0, n].into()),
    };
    message.header.address_family = if is_v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.destination_prefix_length = if is_v6 { 128 } else { 32 };
    message.header.table = TABLE as u8;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Destination(address(100 + place as u8)));
    if hops[0].1 {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]));
    }
    if let [(hop, _)] = hops {
        message.attributes.extend([RouteAttribute::Gateway(address(*hop)), RouteAttribute::Oif(1)]);
        return message;
    }
    let next_hop = |hop: &Hop| {
        let mut next = RouteNextHop::default();
        (next.interface_index, next.attributes) = (1, vec![RouteAttribute::Gateway(address(hop.0))]);
        next
    };
    message.attributes.push(RouteAttribute::MultiPath(hops.iter().map(next_hop).collect()));
    message
}

/// A datagram of news.
fn news(comes: bool, route: &RouteMessage, flags: u16) -> Vec<u8> {
    let inner = match comes {
        true => RouteNetlinkMessage::NewRoute(route.clone()),
        false => RouteNetlinkMessage::DelRoute(route.clone()),
    };
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(inner));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn tables() -> BTreeSet<u32> {
    [TABLE].into()
}

type Read = (KernelPlace, Arc<KernelWay>);

fn read(known: &mut Known, messages: &[RouteMessage]) -> Vec<Read> {
    messages.iter().filter_map(|message| known.read(message).unwrap()).collect()
}

/// Where the mirror is another than the kernel.
fn differs(kernel: &Kernel, change: &Change) -> Option<String> {
    let mut fresh = Known::default();
    (0..2 * PLACES).find_map(|at| {
        let first = read(&mut fresh, &kernel.routes(at)).into_iter().next();
        let place = read(&mut fresh, &[route(at, &[(1, false)])]).remove(0).0;
        let (has, should) = (change.get(place), first.as_ref().map(|(_, way)| way));
        (has != should).then(|| format!("{place:?}: {has:?}, and there is {should:?}"))
    })
}

/// One change after the other; everything is asked after so many, and place by place answered after so many more.
fn follow(steps: &[Step], asked: usize, read_at: [usize; 2 * PLACES]) -> Result<bool, String> {
    let (mut kernel, mut known, mut change) =
        (Kernel::default(), Known::of_answer(Vec::new()), Change::of(&Mirrored::default()));
    let (mut answer, mut meanwhile) = (Answer::default(), Meanwhile::default());
    let answered = asked + read_at.iter().max().unwrap();
    for n in 0..=steps.len().max(answered) {
        for place in (0..2 * PLACES).filter(|place| n == asked + read_at[*place]) {
            answer.routes.extend(read(&mut known, &kernel.routes(place)));
        }
        let told = steps.get(n).and_then(|step| kernel.after(*step)).filter(|_| n >= asked);
        // What is told just behind the last of the answer is heard with the rest.
        meanwhile.news.extend(told.clone().filter(|_| n <= answered));
        if n < answered {
            continue;
        }
        let is_doubt = if n == answered {
            let mut answer = std::mem::take(&mut answer);
            known.put_in_order(&mut answer.routes);
            let put = answer.put(&meanwhile, &mut known, Missing::default(), &tables(), &mut change, LIMIT);
            known.is_up_to_date();
            put.is_doubt
        } else {
            told.is_some_and(|told| known.take(&told, &tables(), &mut change, LIMIT))
        };
        if is_doubt {
            return Ok(false);
        }
        if let Some(text) = differs(&kernel, &change) {
            return Err(format!("after {n}: {text}"));
        }
    }
    Ok(true)
}

fn step() -> impl Strategy<Value = Step> {
    let verb = prop_oneof![
        Just(Verb::Add),
        Just(Verb::Prepend),
        Just(Verb::Append),
        Just(Verb::Replace),
        Just(Verb::Delete),
        Just(Verb::Delete),
    ];
    (0..2 * PLACES, verb, 1u8..4, any::<bool>()).prop_map(|(place, verb, hop, has_mtu)| Step {
        place,
        verb,
        hop,
        has_mtu,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    /// Whatever is changed before, while and after everything is asked: there is a doubt, or the mirror has what is there.
    #[test]
    fn what_is_not_in_doubt_is_there(
        steps in proptest::collection::vec(step(), 0..24),
        asked in 0usize..12,
        read_at in proptest::array::uniform4(0usize..8),
    ) {
        follow(&steps, asked, read_at).map_err(TestCaseError::fail)?;
    }
}

/// Two routes stand in a place; the first is replaced, and goes. Told again on the answer, which has the other alone, it would take
/// that one away.
#[test]
fn news_older_than_the_answer_takes_nothing_away() {
    let step = |verb, hop| Step { place: 0, verb, hop, has_mtu: false };
    let steps = [
        step(Verb::Add, 1),
        step(Verb::Prepend, 2),
        step(Verb::Replace, 3),
        step(Verb::Delete, 3),
        step(Verb::Append, 2),
    ];
    assert_eq!(follow(&steps[..4], 2, [2; 4]), Ok(false));
    // Most of what is told while everything is asked leaves none.
    let steps = [Verb::Add, Verb::Replace, Verb::Replace, Verb::Delete, Verb::Add].map(|verb| step(verb, 1));
    assert_eq!(follow(&steps, 1, [1; 4]), Ok(true));
}

/// Routes to a place may differ in what is not read here: with one more told of, one may go while the other stays.
#[test]
fn one_more_of_the_same_is_a_doubt() {
    let (mut known, mut change) = (Known::default(), Change::of(&Mirrored::default()));
    let told = news(true, &route(0, &[(1, false)]), NLM_F_CREATE);
    let mut take = || known.take(&told, &tables(), &mut change, LIMIT);
    assert_eq!([take(), take()], [false, true]);
}

/// An answer that was read while IPv6 routes came and went may lack others: they stay, till the next one lacks them too.
#[test]
fn what_an_answer_lacks_is_asked_for_again() {
    let mut known = Known::default();
    let all: Vec<RouteMessage> = (0..2 * PLACES).map(|place| route(place, &[(1, false)])).collect();
    let places = read(&mut known, &all);
    let v6 = [places[PLACES].0, places[PLACES + 1].0];
    let mut change = Change::of(&Mirrored::default());
    places.iter().for_each(|(place, way)| change.put(*place, way.clone(), LIMIT));
    // Of three that are there the answer has the IPv4 ones.
    let put = |change: &mut Change, before: Missing, told: &[(usize, bool)]| -> Put {
        let mut known = Known::of_answer(Vec::new());
        let answer = Answer { routes: places[..PLACES].to_vec(), ..Answer::default() };
        let told = told.iter().map(|(place, comes)| news(*comes, &all[*place], NLM_F_CREATE)).collect();
        let meanwhile = Meanwhile { news: told, is_part: false };
        answer.put(&meanwhile, &mut known, before, &tables(), change, LIMIT)
    };
    let (came, went) = ((PLACES, true), (PLACES, false));
    let first = put(&mut change, Missing::default(), &[came, went]);
    assert!(first.has_gaps && !first.is_doubt);
    assert_eq!(v6.map(|place| change.get(place).is_some()), [false, true]);
    // Nothing went: it is whole.
    let mut other = Change::of(&Mirrored::default());
    places.iter().for_each(|(place, way)| other.put(*place, way.clone(), LIMIT));
    assert!(!put(&mut other, Missing::default(), &[came]).has_gaps);
    assert_eq!(v6.map(|place| other.get(place).is_some()), [true, false]);
    // The second answer lacks it as well.
    let second = put(&mut change, first.missing, &[came, went]);
    assert!(second.has_gaps);
    assert_eq!(change.get(v6[1]), None);
    // Of IPv4 those stay that share their address with one that went.
    let mut narrow = all[0].clone();
    narrow.header.destination_prefix_length = 24;
    let meanwhile = Meanwhile { news: vec![news(false, &narrow, 0)], is_part: false };
    let mut known = Known::of_answer(Vec::new());
    let put =
        Answer::default().put(&meanwhile, &mut known, Missing::default(), &tables(), &mut change, LIMIT);
    assert!(put.has_gaps);
    assert_eq!([0, 1].map(|n| change.get(places[n].0).is_some()), [true, false]);
}
