//! How many rules one port may have, by what they name; and what is too much, with the figure.

use super::compile::{MEANWHILE_MAX, TooMuch};
use super::sets::{MemberChange, Set, Sets};
use super::tests::{compiled, compiled_with, list, net};
use super::{ADDRESSES_MEMORY_MAX, Header};
use crate::policy::to_bits;
use crate::table::atomic::mix;
use switch_api::{AclAction, AclRule, IpProtocol, Name, PortRange, Prefix};

/// Allows TCP to a port from networks.
fn allow(source: Vec<Prefix>, port: usize) -> AclRule {
    let port = 1 + port as u16;
    AclRule {
        protocol: Some(IpProtocol::TCP),
        source,
        destination_ports: vec![PortRange { first: port, last: port }],
        ..AclRule::all(AclAction::Allow)
    }
}

/// What comes from an address of a network of [`net`], to a port of [`allow`].
fn packet(n: usize, port: usize) -> Header {
    let from = format!("10.{}.{}.9", n / 256, n % 256);
    let ends = [from.as_str(), "192.0.2.1"].map(|ip| to_bits(ip.parse().unwrap()));
    Header::new(ends, 6, [50_000, 1 + port as u16], [0; 2])
}

/// A hundred thousand rules that each allow one port to one network, all of one direction of one port: every network to every port.
#[test]
fn a_hundred_thousand_rules_of_one_chain_are_networks_by_ports() {
    const NETWORKS: usize = 250;
    let rules = (0..100_000).map(|n| allow(vec![net(n % NETWORKS)], n / NETWORKS)).collect();
    let all = compiled(&list(rules)).unwrap();
    let chain = all.subject(1).ingress.before.enforced.unwrap();
    for n in [0, 1, 249, 250, 64 * 64, 54_321, 99_999] {
        let ruling = all.judge(chain, &packet(n % NETWORKS, n / NETWORKS));
        assert_eq!(ruling.map(|it| it.slot), Some(n as u32));
    }
    assert_eq!(all.judge(chain, &packet(NETWORKS, 0)), None);
    assert_eq!(all.judge(chain, &packet(0, 100_000 / NETWORKS)), None);
    assert!(all.bytes < 16 << 20, "{} bytes", all.bytes);
}

/// As many networks of their own as there are numbers for, each with one of a hundred ports, beside others of them with others.
#[test]
fn tens_of_thousands_of_networks_have_a_port_each() {
    const NETWORKS: usize = 32_000;
    let rules = (0..100_000).map(|n| allow(vec![net(n % NETWORKS)], n % 100)).collect();
    let all = compiled(&list(rules)).unwrap();
    let chain = all.subject(1).ingress.before.enforced.unwrap();
    for n in [0, 31_999, 12_345] {
        assert_eq!(all.judge(chain, &packet(n, n % 100)).map(|it| it.slot), Some(n as u32));
        assert_eq!(all.judge(chain, &packet(n, (n + 1) % 100)), None);
    }
}

/// What is refused, and the figure that it is refused with.
#[test]
fn what_is_too_much_is_refused_with_the_figure() {
    let refused = |rules: Vec<AclRule>| {
        let error = compiled(&list(rules)).unwrap_err();
        assert!(error.to_string().contains("is the most"), "{error}");
        error
    };
    // A network of its own each: there are 32 767 numbers for kinds of addresses.
    let own =
        |n: usize| allow(vec![format!("10.{}.{}.{}/32", n >> 16, n >> 8 & 255, n & 255).parse().unwrap()], 0);
    let error = refused((0..40_000).map(own).collect());
    assert!(matches!(error, TooMuch::Identities(40_000..)), "{error:?}");
    // A source and a destination of its own each: a cell for every pair.
    let pair = |n: usize| AclRule {
        source: vec![net(n)],
        destination: vec![net(n)],
        ..AclRule::all(AclAction::Deny)
    };
    let error = refused((0..9_000).map(pair).collect());
    assert!(matches!(error, TooMuch::Bytes(_)), "{error:?}");
    compiled(&list((0..5_000).map(pair).collect())).unwrap();
    // Networks of their own before as many rules about anybody, all of which each network's addresses are meant by. What that takes is not
    // taken first.
    let anybody = (0..50_000).map(|n| allow(vec![], n));
    let error = refused((0..30_000).map(|n| allow(vec![net(n)], 0)).chain(anybody).collect());
    let TooMuch::Meanwhile(bytes) = error else { panic!("{error:?}") };
    assert!(bytes < MEANWHILE_MAX + (1 << 20), "{bytes} bytes");
    // Networks by ports, too many of both: more steps than there is time for.
    let error = refused((0..100_000).map(|n| allow(vec![net(n % 25_000)], n / 2)).collect());
    assert!(matches!(error, TooMuch::Steps(_) | TooMuch::Bytes(_)), "{error:?}");
}

/// Thousands of rules about destinations and ports take little.
#[test]
fn thousands_of_destinations_take_little() {
    let about = |n: usize| AclRule { destination: vec![net(n)], ..allow(vec![], n % 100) };
    let many = compiled(&list((0..2_000).map(about).collect())).unwrap();
    assert!(many.bytes < 16 << 20, "{} bytes", many.bytes);
    let ends = ["9.9.9.9", "10.3.7.1"].map(|ip| to_bits(ip.parse().unwrap()));
    let n = 3 * 256 + 7;
    let chain = many.subject(1).ingress.before.enforced.unwrap();
    let header = Header::new(ends, 6, [5, (n % 100) as u16 + 1], [0; 2]);
    assert_eq!(many.judge(chain, &header).map(|it| it.slot), Some(n as u32));
}

/// Members of sets take most of two kilobytes each to be found, if they have nothing in common: put in piece by piece, and no more of them than
/// there may be. Those that fit are found.
#[test]
fn members_of_sets_are_put_in_piece_by_piece() {
    let scattered = |n: u64| u128::from(mix(n)) << 64 | u128::from(mix(!n));
    let member = |n: u64| -> Prefix {
        format!("{}/128", std::net::Ipv6Addr::from(0x2000 << 112 | scattered(n) >> 4)).parse().unwrap()
    };
    let (mut sets, name): (Sets, Name) = (Sets::default(), "many".parse().unwrap());
    let rule = AclRule { source_sets: vec![name.clone()], ..AclRule::all(AclAction::Deny) };
    let acl = list(vec![rule]);
    let of = |members: u64, sets: &mut Sets| {
        let mut set = Set::default();
        (0..members).for_each(|n| _ = set.put(member(n), true));
        sets.insert(name.clone(), set);
        compiled_with(&acl, sets)
    };
    let some = of(20_000, &mut sets).unwrap();
    let chain = some.subject(1).ingress.before.enforced.unwrap();
    let from = |n| Header::new([to_bits(member(n).address), 1], 6, [1, 2], [0; 2]);
    assert!(some.judge(chain, &from(4097)).is_some() && some.judge(chain, &from(20_000)).is_none());
    let TooMuch::Addresses(bytes) = of(300_000, &mut sets).unwrap_err() else { panic!() };
    assert!((ADDRESSES_MEMORY_MAX..ADDRESSES_MEMORY_MAX + (16 << 20)).contains(&bytes), "{bytes}");
}

/// A member in a combination of networks and sets that no address was in before is said by a row more: of what tables and classes of addresses
/// hold already nothing is copied, however much it is.
#[test]
fn a_kind_of_address_more_copies_no_table() {
    const NETWORKS: usize = 2_000;
    let name: Name = "some".parse().unwrap();
    let pair = |n: usize| AclRule {
        source: vec![net(n)],
        destination: vec![net(n)],
        ..AclRule::all(AclAction::Allow)
    };
    let blocked = AclRule { source_sets: vec![name.clone()], ..AclRule::all(AclAction::Deny) };
    let rules = std::iter::once(blocked).chain((0..NETWORKS).map(pair)).collect();
    let (mut sets, mut set) = (Sets::default(), Set::default());
    sets.insert(name.clone(), set.clone());
    let first = compiled_with(&list(rules), &sets).unwrap();
    let number = first.subject(1).ingress.before.enforced.unwrap();
    let mut all = first.clone();
    for n in (0..NETWORKS).step_by(10) {
        let member = Prefix { len: 32, address: format!("10.{}.{}.7", n / 256, n % 256).parse().unwrap() };
        set.put(member, true);
        sets.insert(name.clone(), set.clone());
        let change = MemberChange { set: name.clone(), member, is: true };
        all = all.changed(&[change], &sets).unwrap().expect("no need to compile anew");
        let judged = |host| {
            let ip = |host| to_bits(format!("10.{}.{}.{host}", n / 256, n % 256).parse().unwrap());
            all.judge(number, &Header::new([ip(host), ip(1)], 6, [1, 1], [0; 2])).map(|it| it.slot as usize)
        };
        assert_eq!((judged(7), judged(8)), (Some(0), Some(1 + n)));
    }
    let [before, after] = [&first, &all].map(|it| &it.chains[number as usize]);
    assert!(after.ends.shares(&before.ends) && after.verdicts.shares(&before.verdicts));
    assert_eq!(first.bytes - first.identities.bytes(), all.bytes - all.identities.bytes() - KIND_BYTES * 200);
}

/// What a kind of address takes in a chain: its row and its column.
const KIND_BYTES: usize = 2 * size_of::<u32>();
