//! Routes that change step by step beside their dull twins: a list that is gone through, a check of every route, and
//! tables made at once.

use super::gateway::{self, Action, Routing};
use super::mirrored::{Change, KernelHop, KernelPlace, KernelWay, Kind};
use super::model::Model;
use super::nexthops::problems_of;
use super::routes::{Parts, Way, concerns, declared};
use super::{Checked, CheckedRoutes};
use crate::config::ecmp::Hop;
use proptest::prelude::*;
use std::sync::Arc;
use switch_api::{
    AddressDelete, Bridge, BridgeAddress, Mac, Name, NextHop, Owner, Port, PortKind, Prefix, Request, Route,
    RouteApply, RouteDelete, RouteKind, Vid, Vrf,
};

const BRIDGES: [(&str, &str); 2] = [("br0", "main"), ("br1", "red")];
/// Gateways that come and go.
const OWN: [(&str, &str); 5] = [
    ("br0", "10.0.0.1/24"),
    ("br0", "10.1.0.1/24"),
    ("br0", "fd00::1/64"),
    ("br1", "10.0.0.1/25"),
    ("br1", "10.1.0.1/31"),
];
const NETWORKS: [&str; 10] = [
    "10.0.0.0/24",
    "10.0.0.128/25",
    "10.0.0.255/32",
    "10.9.0.0/16",
    "10.9.8.0/24",
    "0.0.0.0/0",
    "fd00::/64",
    "fd09::/48",
    "::/0",
    "10.9.9.9/16",
];
const HOPS: [&str; 7] = ["10.0.0.2", "10.0.0.3", "10.1.0.0", "10.1.0.7", "10.0.0.1", "fd00::2", "10.77.0.1"];
/// Most lead somewhere.
/// The last is too small for IPv6.
const MTUS: [Option<u16>; 5] = [None, None, None, Some(1400), Some(576)];
const KINDS: [RouteKind; 5] =
    [RouteKind::Via, RouteKind::Via, RouteKind::Via, RouteKind::Blackhole, RouteKind::Prohibit];

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a few hundred of them, in a test")]
enum Step {
    Declare(Request),
    /// Routes of the kernel: where to, at which metric, and what becomes of it.
    Kernel(Vec<(usize, u32, u8)>),
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (0..NETWORKS.len()).prop_map(|n| NETWORKS[n].parse().unwrap())
}

fn vrf() -> impl Strategy<Value = Name> {
    prop::bool::weighted(0.7).prop_map(|main| name(if main { "main" } else { "red" }))
}

fn route() -> impl Strategy<Value = Route> {
    let via = proptest::collection::vec((0..HOPS.len(), 1u16..3), 0..3);
    let (kind, mtu) = (prop::sample::select(&KINDS[..]), prop::sample::select(&MTUS[..]));
    (prefix(), vrf(), 0u32..2, kind, via, mtu, prop::bool::weighted(0.9)).prop_map(
        |(prefix, vrf, metric, kind, via, mtu, fits)| {
            let hop = |(n, weight): (usize, u16)| NextHop {
                address: HOPS[n].parse().unwrap(),
                bridge: None,
                vid: Vid::DEFAULT,
                weight,
            };
            let mut via: Vec<NextHop> = via.into_iter().map(hop).collect();
            // Most are such as could be declared.
            if fits {
                via.retain(|hop| kind == RouteKind::Via && hop.address.is_ipv4() == prefix.address.is_ipv4());
            }
            let mtu = (kind == RouteKind::Via).then_some(mtu).flatten();
            Route { vrf, metric, mtu, count: metric == 1 && fits, ..Route::new(prefix, kind, via) }
        },
    )
}

fn delete() -> impl Strategy<Value = RouteDelete> {
    (prefix(), vrf(), prop::option::of(0u32..2)).prop_map(|(prefix, vrf, metric)| RouteDelete {
        prefix,
        vrf,
        metric,
    })
}

fn step() -> impl Strategy<Value = Step> {
    use proptest::collection::vec;
    let apply = (vec(delete(), 0..2), vec(route(), 0..4), vec(route(), 0..3))
        .prop_map(|(delete, replace, add)| Request::RouteApply(RouteApply { delete, replace, add }));
    let own = (0..OWN.len(), any::<bool>()).prop_map(|(n, comes)| {
        let (bridge, address) = (name(OWN[n].0), OWN[n].1.parse().unwrap());
        let vid = Vid::DEFAULT;
        match comes {
            true => Request::AddressAdd(BridgeAddress { bridge, address, vid, owner: Owner::Operator }),
            false => Request::AddressDelete(AddressDelete { bridge, address, vid }),
        }
    });
    let mirror = any::<bool>().prop_map(|mirror| Request::VrfSet(Vrf { mirror, ..Vrf::unset(Name::main()) }));
    let kernel = vec((0..NETWORKS.len() - 1, 0u32..2, 0u8..4), 0..6).prop_map(Step::Kernel);
    prop_oneof![
        3 => route().prop_map(Request::RouteAdd).prop_map(Step::Declare),
        2 => delete().prop_map(Request::RouteDelete).prop_map(Step::Declare),
        4 => apply.prop_map(Step::Declare),
        2 => own.prop_map(Step::Declare),
        1 => mirror.prop_map(Step::Declare),
        1 => kernel,
    ]
}

/// Two bridges, two gateways, and the way to the kernel.
fn start() -> Model {
    let mut model = Model::default();
    for (bridge, vrf) in BRIDGES {
        let bridge = Bridge { vrf: name(vrf), ..Bridge::new(name(bridge)) };
        model = model.apply(&Request::BridgeAdd(bridge)).unwrap();
    }
    for (bridge, address) in [OWN[0], OWN[2]] {
        let (bridge, address) = (name(bridge), address.parse().unwrap());
        let own = BridgeAddress { bridge, address, vid: Vid::DEFAULT, owner: Owner::Operator };
        model = model.apply(&Request::AddressAdd(own)).unwrap();
    }
    let kind = PortKind::Host {
        device: "switch0".into(),
        mac: Some(Mac([2; 6])),
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    let port = Port::new(name("host"), name("br0"), kind);
    model.apply(&Request::PortAdd(Box::new(port))).unwrap()
}

fn kernel_route((n, metric, what): (usize, u32, u8)) -> (KernelPlace, Arc<KernelWay>) {
    let (kind, device, gateway) = match what {
        0 => (Kind::Forward, "eth0", Some("192.0.2.1")),
        1 => (Kind::Forward, "switch0", Some("10.0.0.2")),
        2 => (Kind::Blackhole, "", None),
        _ => (Kind::Forward, "switch0", Some("10.0.0.1")),
    };
    let gateway = gateway.map(|gateway| gateway.parse().unwrap());
    let hops = vec![KernelHop { device: device.into(), gateway, weight: 1 }];
    let hops = if device.is_empty() { Vec::new() } else { hops };
    let mtu = (metric == 1).then_some(1400);
    let place = KernelPlace { table: 254, prefix: NETWORKS[n].parse().unwrap(), metric };
    (place, Arc::new(KernelWay { protocol: 12, kind, hops, mtu }))
}

/// The dull twin: a list of routes, gone through for everything.
#[derive(Clone, Default)]
struct List(Vec<Route>);

impl List {
    fn after(&self, request: &Request) -> Option<Self> {
        let mut list = self.clone();
        let apply = match request.clone() {
            Request::RouteAdd(route) => RouteApply { add: vec![route], ..RouteApply::default() },
            Request::RouteDelete(by) => RouteApply { delete: vec![by], ..RouteApply::default() },
            Request::RouteApply(apply) => apply,
            _ => return Some(list),
        };
        for by in apply.delete {
            let before = list.0.len();
            list.0.retain(|route| {
                (&route.vrf, route.prefix) != (&by.vrf, by.prefix)
                    || by.metric.is_some_and(|metric| metric != route.metric)
            });
            (list.0.len() < before).then_some(())?;
        }
        let key = |route: &Route| (route.vrf.clone(), route.prefix, route.metric);
        for route in apply.replace {
            list.0.retain(|there| key(there) != key(&route));
            list.0.push(route);
        }
        for route in apply.add {
            list.0.iter().all(|there| key(there) != key(&route)).then_some(())?;
            list.0.push(route);
        }
        Some(list)
    }

    fn fits(&self, model: &Model) -> bool {
        self.0.iter().all(|route| problems_of(model, &route.vrf, route.prefix, &Way::of(route)).is_empty())
    }

    fn sorted(&self) -> Vec<Route> {
        let mut all = self.0.clone();
        all.sort_by_key(|route| (route.vrf.clone(), route.prefix, route.metric));
        all
    }
}

type Beside = (u16, Option<std::num::NonZeroU16>);

/// What becomes of an address, without the numbers.
fn fate(routing: &Routing, vrf: u16, address: &str) -> Option<(Option<Action>, Vec<Hop>, Beside)> {
    let entry = routing.find(vrf, gateway::to_bits(address.parse().unwrap()))?;
    Some(match entry.action {
        Action::Via(group) => {
            (None, routing.group(group).unwrap().hops().to_vec(), (entry.mtu, entry.counter))
        }
        action => (Some(action), Vec::new(), (entry.mtu, entry.counter)),
    })
}

const ADDRESSES: [&str; 14] = [
    "10.0.0.0",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.200",
    "10.0.0.255",
    "10.1.0.1",
    "10.9.1.1",
    "10.9.8.1",
    "8.8.8.8",
    "fd00::",
    "fd00::1",
    "fd00::7",
    "fd09::1",
    "2001:db8::1",
];

proptest! {
    #![proptest_config(crate::cases::cases(64))]

    /// Whatever is declared, taken back, mirrored, and refused, in whatever order.
    #[test]
    fn a_change_does_what_starting_anew_does(steps in proptest::collection::vec(step(), 1..24)) {
        let (mut model, mut list) = (start(), List::default());
        let (_, mut routing) = gateway::compile(&model, &Routing::default());
        for step in steps {
            match step {
                Step::Kernel(routes) => {
                    // Some of them alone, or all there are.
                    let mut change = Change::of(&model.mirrored);
                    let mut found: Vec<_> = routes.into_iter().map(kernel_route).collect();
                    found.sort_by_key(|(place, _)| *place);
                    found.dedup_by_key(|(place, _)| *place);
                    match found.len() % 2 {
                        0 => change.become_all(&found, 100, Default::default(), |_| false),
                        _ => found.into_iter().for_each(|(place, way)| match way.kind {
                            Kind::Blackhole => change.remove(place),
                            _ => change.put(place, way, 100),
                        }),
                    }
                    let Some(next) = change.finish(&model.mirrored) else { continue };
                    model.mirrored = Arc::new(next);
                    routing = gateway::compile_routes(&model, &model.routes, &routing);
                }
                Step::Declare(request) if concerns(&request) => {
                    let named = List(Parts::of(&request).unwrap().routes().map(|(route, _)| route.clone()).collect());
                    // A route that makes no sense is refused, also where another of the same request replaces it.
                    let expected = list.after(&request).filter(|list| list.fits(&model) && named.fits(&model));
                    let outcome = CheckedRoutes::after(&model, &request);
                    prop_assert_eq!(outcome.is_ok(), expected.is_some(), "{:?}: {:?}", request, outcome);
                    let (Ok(routes), Some(expected)) = (outcome, expected) else { continue };
                    routing = gateway::compile_routes(&model, routes.routes(), &routing);
                    (model.routes, list) = (routes.into(), expected);
                }
                Step::Declare(request) => {
                    let Ok(next) = model.apply(&request) else { continue };
                    let outcome = Checked::after(&model, next.clone(), 1);
                    prop_assert_eq!(outcome.is_ok(), Checked::new(next.clone(), 1).is_ok());
                    if Checked::new(Model { routes: Default::default(), ..next.clone() }, 1).is_ok() {
                        prop_assert_eq!(outcome.is_ok(), list.fits(&next), "{:?}: {:?}", request, outcome);
                    }
                    let Ok(checked) = outcome else { continue };
                    model = checked.model().clone();
                    routing = gateway::compile(&model, &routing).1;
                }
            }
            let routes: Vec<Route> = model.routes.all().map(|(vrf, place, way)| declared(vrf, place, way)).collect();
            prop_assert_eq!(&routes, &list.sorted());
            prop_assert_eq!(model.routes.len(), routes.len());
            let (_, anew) = gateway::compile(&model, &Routing::default());
            for address in ADDRESSES {
                for vrf in 0..2 {
                    prop_assert_eq!(fate(&routing, vrf, address), fate(&anew, vrf, address), "{} in {}", address, vrf);
                }
            }
            routing.check_uses();
        }
    }
}

fn routes_of(count: u32) -> Vec<Route> {
    let route = |n: u32| {
        let prefix = Prefix { address: std::net::IpAddr::V4((0x1400_0000 + (n << 8)).into()), len: 24 };
        let address = HOPS[n as usize % 2].parse().unwrap();
        let hop = NextHop { address, bridge: None, vid: Vid::DEFAULT, weight: 1 };
        Route::new(prefix, RouteKind::Via, vec![hop])
    };
    (0..count).map(route).collect()
}

#[test]
fn what_is_wrong_in_a_list_is_named_by_its_place() {
    let mut routes = routes_of(4);
    routes[2].via[0].address = "10.77.0.1".parse().unwrap();
    let field = |apply: RouteApply| {
        let error = CheckedRoutes::after(&start(), &Request::RouteApply(apply)).unwrap_err();
        error.data.field.unwrap()
    };
    let none = RouteApply::default();
    assert_eq!(field(RouteApply { add: routes.clone(), ..none.clone() }), "add[2].via");
    assert_eq!(field(RouteApply { replace: routes.clone(), ..none.clone() }), "replace[2].via");
    let twice = [routes_of(2), routes_of(1)].concat();
    assert_eq!(field(RouteApply { add: twice, ..none.clone() }), "add[2].prefix");
    let delete = vec![RouteDelete { prefix: routes[0].prefix, vrf: Name::main(), metric: None }];
    assert_eq!(field(RouteApply { delete, ..none }), "delete[0].prefix");
}

#[test]
fn a_gateway_that_goes_is_refused_with_as_many_words_as_anybody_reads() {
    let mut model = start();
    let apply = RouteApply { add: routes_of(5_000), ..RouteApply::default() };
    model.routes = CheckedRoutes::after(&model, &Request::RouteApply(apply)).unwrap().into();
    let gone = AddressDelete { bridge: name("br0"), address: OWN[0].1.parse().unwrap(), vid: Vid::DEFAULT };
    let error = Checked::after(&model, model.apply(&Request::AddressDelete(gone)).unwrap(), 1).unwrap_err();
    assert!(error.message.contains("and 4984 more") && error.message.len() < 4096, "{}", error.message.len());
}

/// A counter has one route for as long as that is counted, and no other before every worker has seen that it is not.
#[test]
fn counters_of_routes_are_given_out_and_taken_back() {
    use super::{ROUTE_COUNTERS, ROUTES_COUNTED_MAX};
    let mut routes: Vec<Route> = routes_of(ROUTES_COUNTED_MAX as u32 + 1);
    routes.iter_mut().for_each(|route| route.count = true);
    let one_more = routes.pop().unwrap();
    let place = |route: &Route| super::routes::Place { prefix: route.prefix, metric: 0 };
    let by = |route: &Route| RouteDelete { prefix: route.prefix, vrf: Name::main(), metric: None };
    let after = |before: &super::routes::Routes, delete: &[Route], replace: &[Route]| {
        let (delete, replace) = (delete.iter().map(by).collect(), replace.to_vec());
        before.after(&Request::RouteApply(RouteApply { delete, replace, add: Vec::new() }))
    };
    let counter = |of: &super::routes::Routes, route: &Route| of.counter(&Name::main(), place(route));
    let full = after(&Default::default(), &[], &routes).unwrap();
    let refused = after(&full, &[], std::slice::from_ref(&one_more)).unwrap_err();
    assert!(refused.code == switch_api::Code::Limit && refused.message.contains("1024"), "{refused:?}");
    // Replaced: it goes on counting where it did.
    let replaced = Route { mtu: Some(1300), ..routes[0].clone() };
    let next = after(&full, &[], &[replaced]).unwrap();
    assert_eq!(counter(&next, &routes[0]), counter(&full, &routes[0]));
    // Deleted and another added by one change: none has a counter of those that were. By the next they may.
    let others: Vec<Route> = (0..ROUTES_COUNTED_MAX as u32)
        .map(|n| {
            let address = std::net::IpAddr::V4((0x3000_0000 + (n << 8)).into());
            Route { prefix: Prefix { address, len: 24 }, ..routes[0].clone() }
        })
        .collect();
    let all = |of: &super::routes::Routes| -> Vec<u16> {
        let mut all: Vec<u16> = of.counted().map(|(_, _, counter)| counter.get()).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let other = after(&full, &routes, &others).unwrap();
    let (first, second) = (ROUTES_COUNTED_MAX as u16, ROUTE_COUNTERS as u16);
    assert_eq!((all(&full), all(&other)), ((1..=first).collect(), (first + 1..=second).collect()));
    let back = after(&other, &others, &routes).unwrap();
    assert_eq!(all(&back), (1..=first).collect::<Vec<_>>());
    // Not counted any more, though still there.
    let quiet = Route { count: false, ..routes[0].clone() };
    assert_eq!(counter(&after(&back, &[], &[quiet]).unwrap(), &routes[0]), None);
}
