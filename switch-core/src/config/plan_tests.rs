//! Whatever was there: after the plan there is what shall be, of this owner's; and of nobody else's anything else.

use super::plan::{keep_macs, plan};
use super::{Checked, Model};
use proptest::prelude::*;
use std::collections::BTreeSet;
use switch_api::{
    Acl, AclAction, AclPorts, AclRule, AclTier, Action, Bridge, BridgeAddress, Config, Limit, Mac,
    MemorySource, Name, Namespace, Nat, NatKind, NetworkPolicy, Owner, Port, PortKind, PortLimits,
    PortSettings, Request, Route, RouteKind, StaticMac, StaticNeighbour, Uplink, Vid, Vlan, Vrf, Workload,
};

fn name(kind: &str, n: u8) -> Name {
    format!("{kind}{n}").parse().unwrap()
}

fn bridge(n: u8, ageing_s: u32) -> Bridge {
    Bridge { ageing_s, ..Bridge::new(name("br", n)) }
}

fn port(n: u8, on: u8, variant: u8) -> Port {
    let source = MemorySource { flows: 1, frame_len: 60, seed: 1, reverse: false, rate_pps: 0 };
    let kind = PortKind::Memory { source: (variant & 1 == 1).then_some(source) };
    let workload = Workload {
        namespace: "default".into(),
        labels: Default::default(),
        ports: Vec::new(),
        addresses: Vec::new(),
    };
    let slow = (variant & 8 == 8).then_some(Limit { per_s: 1000, burst: None });
    let limits = PortLimits { rx_bytes: slow, ..PortLimits::default() };
    let settings = PortSettings { isolated: variant & 2 == 2, limits, ..PortSettings::default() };
    let workload = (variant & 4 == 4).then_some(workload);
    Port { settings, workload, ..Port::new(name("p", n), name("br", on), kind) }
}

fn policy(n: u8, open: bool) -> NetworkPolicy {
    let ingress = if open { serde_json::json!([{}]) } else { serde_json::json!([]) };
    let policy = serde_json::json!({
        "metadata": { "name": format!("np{n}") },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress"], "ingress": ingress },
    });
    serde_json::from_value(policy).unwrap()
}

fn acl(n: u8, deny: bool) -> Acl {
    let rule = AclRule::all(if deny { AclAction::Deny } else { AclAction::Pass });
    let applies_to = AclPorts { ports: vec![name("p", n)], ..AclPorts::default() };
    let (tier, priority, owner) = (AclTier::Before, n.into(), Owner::Operator);
    Acl {
        name: name("acl", n),
        tier,
        priority,
        applies_to,
        stateless: false,
        ingress: vec![rule],
        egress: vec![],
        owner,
    }
}

fn nat(n: u8, to: bool) -> Nat {
    let ip = |last: u8| std::net::IpAddr::from([10, 9, n, last]);
    let kind = NatKind::OneToOne { external: ip(1), internal: ip(2 + u8::from(to)) };
    Nat { name: name("nat", n), vrf: Name::main(), kind, owner: Owner::Operator }
}

/// A configuration without contradictions: what refers to something that is not there is left out.
fn config() -> impl Strategy<Value = Config> {
    let bridges = prop::collection::btree_map(0u8..4, 10u32..14, 0..4);
    let ports = prop::collection::btree_map(0u8..6, (0u8..4, 0u8..16), 0..6);
    let stations = prop::collection::btree_map(0u8..6, 0u8..6, 0..5);
    let neighbours = prop::collection::btree_map(1u8..4, 0u8..2, 0..3);
    let routes = prop::collection::btree_map((0u8..5, 0u32..2), any::<bool>(), 0..6);
    let policies = prop::collection::btree_map(0u8..3, any::<bool>(), 0..3);
    let parts = (bridges, ports, stations, neighbours, routes, policies, any::<u8>());
    parts.prop_map(|(bridges, ports, stations, neighbours, routes, policies, bits)| {
        let bridge = bridges.iter().map(|(n, ageing_s)| bridge(*n, *ageing_s)).collect();
        let mut config = Config { bridge, ..Config::default() };
        let is_there = |on: &u8| bridges.contains_key(on);
        config.address = bridges
            .keys()
            .filter(|n| bits >> *n & 1 == 1)
            .map(|n| BridgeAddress {
                bridge: name("br", *n),
                address: format!("10.{n}.0.1/24").parse().unwrap(),
                vid: Vid::DEFAULT,
                owner: Owner::Operator,
            })
            .collect();
        config.port = ports
            .iter()
            .filter(|(_, (on, _))| is_there(on))
            .map(|(n, (on, variant))| port(*n, *on, *variant))
            .collect();
        config.fdb = stations
            .iter()
            .filter_map(|(n, on)| {
                let port = config.port.iter().find(|port| port.name == name("p", *on))?;
                let (mac, vid) = (Mac([2, 0, 0, 0, 9, *n]), Vid::DEFAULT);
                Some(StaticMac {
                    mac,
                    bridge: port.bridge.clone(),
                    vid,
                    port: port.name.clone(),
                    dst: None,
                    owner: Owner::Operator,
                })
            })
            .collect();
        config.neigh = neighbours
            .iter()
            .filter(|(n, _)| config.address.iter().any(|own| own.bridge == name("br", **n)))
            .map(|(n, last)| StaticNeighbour {
                address: format!("10.{n}.0.9").parse().unwrap(),
                mac: Mac([2, 0, 0, 0, 8, *last]),
                bridge: name("br", *n),
                vid: Vid::DEFAULT,
                owner: Owner::Operator,
            })
            .collect();
        if !bridges.is_empty() {
            let kind = |black| if black { RouteKind::Blackhole } else { RouteKind::Prohibit };
            config.route = routes
                .iter()
                .map(|((n, metric), black)| Route {
                    metric: *metric,
                    ..Route::new(format!("10.1{n}.0.0/16").parse().unwrap(), kind(*black), Vec::new())
                })
                .collect();
        }
        if bits & 64 != 0 {
            let uplink = if bits & 128 != 0 { Uplink::Kernel } else { Uplink::None };
            config.vrf.push(Vrf { uplink, ..Vrf::unset(Name::main()) });
        }
        if bits & 32 != 0 {
            let labels = [("tier".to_owned(), format!("{}", bits & 3))].into();
            config.namespace.push(Namespace { name: "default".into(), labels, owner: Owner::Operator });
        }
        config.policy = policies.iter().map(|(n, open)| policy(*n, *open)).collect();
        config.acl = policies.iter().map(|(n, deny)| acl(*n, *deny)).collect();
        config.nat = policies.iter().map(|(n, to)| nat(*n, *to)).collect();
        config
    })
}

/// A model in which others have declared things.
fn of_others() -> Model {
    let bridge = Bridge { owner: Owner::Cni, ..Bridge::new("cni0".parse().unwrap()) };
    let port = Port {
        owner: Owner::Cni,
        ..Port::new("veth9".parse().unwrap(), "cni0".parse().unwrap(), PortKind::Memory { source: None })
    };
    let model = Model::default().apply(&Request::BridgeAdd(bridge)).unwrap();
    model.apply(&Request::PortAdd(Box::new(port))).unwrap()
}

/// No port is down.
fn up() -> BTreeSet<Name> {
    BTreeSet::new()
}

fn reach(model: &Model, desired: &Config) -> Model {
    let plan = plan(&model.config(Owner::Operator), desired, &up());
    let (next, problems) = model.after(&plan);
    assert_eq!(problems, [], "{plan:?}");
    Checked::after(model, next, 1).unwrap_or_else(|error| panic!("{error}")).model().clone()
}

fn sorted(mut config: Config) -> Config {
    config.route.sort_by_key(|route| (route.prefix, route.metric));
    config
}

proptest! {
    /// From anywhere to anywhere, past what belongs to others; and once there, nothing is left to do.
    #[test]
    fn a_plan_arrives(first in config(), second in config()) {
        let others = of_others();
        let at_first = reach(&others, &first);
        prop_assert_eq!(sorted(at_first.config(Owner::Operator)), sorted(first));
        let there = reach(&at_first, &second);
        let has = there.config(Owner::Operator);
        prop_assert_eq!(sorted(has.clone()), sorted(second.clone()));
        prop_assert_eq!(there.config(Owner::Cni), others.config(Owner::Cni));
        let rest = plan(&has, &second, &up());
        prop_assert!(rest.is_empty() && rest.changes.is_empty(), "{:?}", rest);
        // A file of it says the same.
        let text = switch_api::file::write(&has).unwrap();
        let file = switch_api::file::File::read(&text).unwrap();
        prop_assert_eq!(file.config, has);
    }

    /// A change is told exactly where something differs.
    #[test]
    fn what_is_told_is_what_differs(first in config(), second in config()) {
        let plan = plan(&first, &second, &up());
        prop_assert_eq!(plan.changes.is_empty(), first == second);
        prop_assert_eq!(plan.is_empty(), first == second);
    }
}

/// Stations are filed by identifiers, and forgotten when the whole plan is in force.
#[test]
fn an_identifier_that_a_plan_frees_is_nobodys_behind_it() {
    let both = |vids: [u32; 2]| {
        let port = (0..).zip(vids).map(|(n, vid)| {
            let vlan = Vlan::Access { vid: vid.try_into().unwrap() };
            let settings = PortSettings { vlan, ..PortSettings::default() };
            Port { settings, ..port(n, 0, 0) }
        });
        Config { bridge: vec![bridge(0, 300)], port: port.collect(), ..Config::default() }
    };
    let before = reach(&Model::default(), &both([10, 30]));
    let after = reach(&before, &both([20, 40]));
    let had: BTreeSet<u16> = before.fids.values().copied().collect();
    assert!(after.fids.values().all(|fid| !had.contains(fid)), "{:?}, then {:?}", before.fids, after.fids);
}

#[test]
fn what_is_anothers_is_refused_and_not_taken() {
    let others = of_others();
    let taken =
        Port::new("veth9".parse().unwrap(), "cni0".parse().unwrap(), PortKind::Memory { source: None });
    let desired = Config { port: vec![taken], ..Config::default() };
    let problems = others.collisions(Owner::Operator, &desired);
    assert!(problems.len() == 1 && problems[0].message.contains("belongs to the CNI plugin"), "{problems:?}");
    // A bridge that another's port is on does not go.
    let mine = reach(&others, &Config { bridge: vec![bridge(0, 300)], ..Config::default() });
    let guest = Port { owner: Owner::Cni, ..port(7, 0, 0) };
    let shared = mine.apply(&Request::PortAdd(Box::new(guest))).unwrap();
    let nothing = plan(&shared.config(Owner::Operator), &Config::default(), &up());
    let (_, problems) = shared.after(&nothing);
    assert!(problems.len() == 1 && problems[0].message.contains("still has ports: p7"), "{problems:?}");
}

#[test]
fn what_is_there_twice_is_refused() {
    let config = |twice: &str| {
        let (set, route) =
            (r#"{"name":"web","ports":[80]}"#, r#"{"prefix":"10.9.0.0/16","via":[{"address":"10.1.0.2"}]}"#);
        let (other, back) = match twice {
            "port_set" => (
                r#"{"name":"web","ports":[81]}"#,
                r#"{"prefix":"10.8.0.0/16","via":[{"address":"10.1.0.2"}]}"#,
            ),
            _ => (
                r#"{"name":"dns","ports":[53]}"#,
                r#"{"prefix":"10.9.0.0/16","via":[{"address":"10.1.0.3"}]}"#,
            ),
        };
        let text = format!(r#"{{"port_set":[{set},{other}],"route":[{route},{back}]}}"#);
        serde_json::from_str::<Config>(&text).unwrap()
    };
    for (twice, which) in [("port_set", "port_set web"), ("route", "route 10.9.0.0/16")] {
        let problems = Model::default().collisions(Owner::Operator, &config(twice));
        let said: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert!(
            matches!(said[..], [one] if one.starts_with(which) && one.ends_with("is there twice")),
            "{said:?}"
        );
    }
}

#[test]
fn a_port_keeps_the_mac_that_was_chosen() {
    let mut had = Port::new("a".parse().unwrap(), "br0".parse().unwrap(), PortKind::tap("/run/netns/a"));
    let wanted = Config { port: vec![had.clone()], ..Config::default() };
    *had.kind.mac_mut().unwrap() = Some(Mac([2, 0, 0, 0, 0, 1]));
    let current = Config { port: vec![had], ..Config::default() };
    let mut desired = wanted.clone();
    keep_macs(&current, &mut desired);
    assert_eq!(desired, current);
    assert!(plan(&current, &desired, &up()).is_empty());
    // The same goes for an MTU that follows another, and not for one that nobody named.
    for (mtu_follows, kept) in [(true, Some(1400)), (false, None)] {
        let settings = |mtu| PortSettings { mtu, mtu_follows, ..PortSettings::default() };
        let [had, wanted] = [Some(1400), None].map(|mtu| {
            let port = Port { settings: settings(mtu), ..current.port[0].clone() };
            Config { port: vec![port], ..Config::default() }
        });
        let mut desired = wanted;
        keep_macs(&had, &mut desired);
        assert_eq!(desired.port[0].settings.mtu, kept);
    }
}

#[test]
fn addresses_change_in_place_unless_there_is_no_device() {
    let tap = |addresses: &[&str], queues| {
        let mut port = Port::new("a".parse().unwrap(), "br0".parse().unwrap(), PortKind::tap("/run/netns/a"));
        *port.kind.addressed_mut().unwrap().0 = addresses.iter().map(|text| text.parse().unwrap()).collect();
        if let PortKind::Tap { queues: has, .. } = &mut port.kind {
            *has = queues;
        }
        Config { port: vec![port], ..Config::default() }
    };
    let (had, has) = (tap(&["10.0.0.1/24"], 1), tap(&["10.0.0.2/24"], 1));
    let closes = |has: &Config, down: &BTreeSet<Name>| {
        let plan = plan(&had, has, down);
        let told = plan.changes[0].action;
        assert_eq!(told == Action::Replace, !plan.closed().is_empty());
        assert_eq!(told == Action::Change, plan.addressed().count() == 1);
        told == Action::Replace
    };
    assert!(!closes(&has, &up()));
    assert!(closes(&has, &["a".parse().unwrap()].into()), "there is no device");
    assert!(closes(&tap(&["10.0.0.2/24"], 2), &up()), "it has other queues as well");
}
