//! Requests that would take far more than there may be: each is refused when little more than that was taken.

use super::budget::{MEANWHILE_MAX, STEPS_MAX};
use super::compile::{TooMuch, compile};
use super::tests::{Owned, policy_of};
use super::{Compiled, MEMORY_MAX};
use crate::table::atomic::mix;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};
use switch_api::{Labels, Workload};

/// Room for what one step of the way takes.
const LITTLE: usize = 16 << 20;

/// What becomes of one policy for one pod.
fn compiled(spec: Value) -> Result<Compiled, TooMuch> {
    let policy = policy_of(json!({"metadata": {"name": "many"}, "spec": spec}));
    let addresses = vec!["10.0.0.1".parse().unwrap()];
    let pod = Workload { namespace: "default".into(), labels: Labels::new(), ports: vec![], addresses };
    compile(&Owned { policies: vec![policy], pods: vec![pod], ..Owned::default() }.input())
}

fn refused(spec: Value) -> TooMuch {
    let error = compiled(spec).map(|it| it.bytes).unwrap_err();
    assert!(error.to_string().contains("is the most"), "{error}");
    error
}

fn block(cidr: &str, except: impl Iterator<Item = String>) -> Value {
    json!({"ipBlock": {"cidr": cidr, "except": except.collect::<Vec<_>>()}})
}

/// Exceptions are no terms, and may all be of one kind.
#[test]
fn exceptions_are_counted() {
    let except = |n: u32| format!("{}/32", Ipv4Addr::from(0x0a00_0000 + n));
    let rule = |n: u32| json!({"ingress": [{"from": [block("10.0.0.0/8", (0..n).map(except))]}]});
    let some = compiled(rule(100_000)).unwrap();
    assert_eq!(some.identities, 2, "they are nobody, as all others are");
    let TooMuch::Meanwhile(bytes) = refused(rule(700_000)) else { panic!() };
    assert!(bytes > MEANWHILE_MAX, "{bytes}");
}

/// Of addresses that have nothing in common each takes most of two kilobytes to be found.
#[test]
fn prefix_tables_are_made_piece_by_piece() {
    let scattered = |n: u32| u128::from(mix(n.into())) << 64 | u128::from(mix(!u64::from(n)));
    let except = |n: u32| format!("{}/128", Ipv6Addr::from(0x2000 << 112 | scattered(n) >> 4));
    let TooMuch::Bytes(bytes) =
        refused(json!({"ingress": [{"from": [block("2000::/4", (0..300_000).map(except))]}]}))
    else {
        panic!()
    };
    assert!((MEMORY_MAX..MEMORY_MAX + LITTLE).contains(&bytes), "{bytes}");
}

/// One rule's peers by its ports.
#[test]
fn what_a_rule_allows_is_counted_as_it_is_written_out() {
    let peers: Vec<_> =
        (0..5000u32).map(|n| block(&format!("10.{}.{}.0/24", n >> 8, n & 255), [].into_iter())).collect();
    let ports: Vec<_> = (1..=5000).map(|port| json!({"port": port})).collect();
    let TooMuch::Meanwhile(bytes) = refused(json!({"ingress": [{"from": peers, "ports": ports}]})) else {
        panic!()
    };
    assert!((MEANWHILE_MAX..MEANWHILE_MAX + LITTLE).contains(&bytes), "{bytes}");
}

/// Ranges of ports in each other: a port is in all of them.
#[test]
fn nested_ranges_are_counted() {
    let ports: Vec<_> = (1..=16_000).map(|n| json!({"port": n, "endPort": 65_535 - n})).collect();
    let TooMuch::Meanwhile(bytes) = refused(json!({"ingress": [{"ports": ports}]})) else { panic!() };
    assert!((MEANWHILE_MAX..MEANWHILE_MAX + LITTLE).contains(&bytes), "{bytes}");
}

/// Blocks in each other, each with an exception of its own: an address is in nearly all of them.
#[test]
fn nested_blocks_are_counted() {
    let peers = (0..20_000u32)
        .map(|n| block("10.0.0.0/8", [format!("{}/32", Ipv4Addr::from(0x0a00_0000 + n))].into_iter()));
    match refused(json!({"ingress": [{"from": peers.collect::<Vec<_>>()}]})) {
        TooMuch::Meanwhile(bytes) => {
            assert!((MEANWHILE_MAX..MEANWHILE_MAX + LITTLE).contains(&bytes), "{bytes}")
        }
        TooMuch::Steps(steps) => assert!((STEPS_MAX..2 * STEPS_MAX).contains(&steps), "{steps}"),
        other => panic!("{other:?}"),
    }
}
