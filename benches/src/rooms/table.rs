//! `table/*`: what the switch looks up, among few and among many. Access control lists are compiled to tables and stand with
//! them.

use super::{Case, Work, only};
use crate::{flows, routes};
use std::collections::BTreeMap;
use std::hint::black_box;
use switch_api::{Acl, AclAction, AclPorts, AclRule, AclTier, IpProtocol, Name, Owner, PortRange, Prefix};
use switch_core::acl::compile::compile;
use switch_core::acl::sets::Sets;
use switch_core::acl::{Candidate, Compiled, Header, Input, Placed};
use switch_core::table::fdb::{Fdb, Limits, key};
use switch_core::table::flow::key::Key;
use switch_core::table::lpm::Lpm;

/// Lookups of one run: a batch.
const BATCH: usize = 64;
/// What they are among comes round after so many runs.
const RUNS: usize = 4096;
const ITEMS: u64 = BATCH as u64;

pub(super) const CASES: &[Case] = &[
    Case { id: "table/fdb/lookup-100", items: ITEMS, is_on_path: true, make: || fdb(100) },
    Case { id: "table/fdb/lookup-100000", items: ITEMS, is_on_path: true, make: || fdb(100_000) },
    Case { id: "table/fdb/learn-known", items: ITEMS, is_on_path: true, make: learn },
    Case { id: "table/flow/find-1000", items: ITEMS, is_on_path: true, make: || flow(1_000) },
    Case { id: "table/flow/find-100000", items: ITEMS, is_on_path: true, make: || flow(100_000) },
    Case { id: "table/lpm/v4-10", items: ITEMS, is_on_path: true, make: || lpm4(10) },
    Case { id: "table/lpm/v4-1000000", items: ITEMS, is_on_path: true, make: || lpm4(1_000_000) },
    Case { id: "table/lpm/v6-250000", items: ITEMS, is_on_path: true, make: lpm6 },
    Case { id: "table/acl/judge-10", items: ITEMS, is_on_path: true, make: || acl(10) },
    Case { id: "table/acl/judge-2000", items: ITEMS, is_on_path: true, make: || acl(2_000) },
];

/// Numbers that repeat after all of them came, in an order that no prefetcher knows.
fn scattered(step: &mut u64, count: u64) -> u64 {
    *step = (*step + 7919) % count;
    *step
}

fn stations(count: u64) -> Fdb {
    let fdb = Fdb::new(131_072, 4, [3, 5]);
    for mac in 1..=count {
        let key = key(mac, 1);
        fdb.learn(fdb.home(key), key, 0, 0, None, Limits::new(131_072, 1));
    }
    fdb
}

fn fdb(count: u64) -> Box<dyn Work> {
    let (fdb, mut at) = (stations(count), 0);
    only(move || {
        for _ in 0..BATCH {
            let key = key(scattered(&mut at, count) + 1, 1);
            black_box(fdb.lookup(fdb.home(key), key, 0, 300));
        }
    })
}

fn learn() -> Box<dyn Work> {
    let (fdb, mut at) = (stations(1_000), 0);
    only(move || {
        for _ in 0..BATCH {
            let key = key(scattered(&mut at, 1_000) + 1, 1);
            black_box(fdb.learn(fdb.home(key), key, 0, 0, None, Limits::new(131_072, 1)));
        }
    })
}

fn flow(count: u32) -> Box<dyn Work> {
    let mut bench = flows::Bench::new(2 * count.max(4096) as usize, true);
    bench.make(count);
    let mut keys: Vec<Key> = Vec::new();
    let flows = &bench.tables.flows;
    flows.scan(0..flows.places(), (bench.now.ns / 1_000_000_000) as u32, |_, entry| keys.push(entry.key));
    assert!(keys.len() as u32 >= count, "only {} flows are there", keys.len());
    let mut at = 0;
    only(move || {
        for _ in 0..BATCH {
            let key = &keys[scattered(&mut at, keys.len() as u64) as usize];
            assert!(black_box(bench.tables.flows.find(key)).is_some());
        }
    })
}

fn lpm4(count: usize) -> Box<dyn Work> {
    let all = routes::v4(count, 1);
    let lpm = Lpm::default().changed(&mut all.clone());
    let found = routes::destinations(&all, BATCH * RUNS, 2);
    let ips: Vec<u32> = found.iter().map(|key| (key >> 96) as u32).collect();
    let (mut values, mut at, (batches, _)) = ([0; BATCH], 0, ips.as_chunks::<BATCH>());
    let batches = batches.to_vec();
    only(move || {
        at = (at + 1) % batches.len();
        lpm.find_v4_each(&batches[at], &mut values);
        black_box(&values);
    })
}

fn lpm6() -> Box<dyn Work> {
    let all = routes::v6(250_000, 1);
    let lpm = Lpm::default().changed(&mut all.clone());
    let keys = routes::destinations(&all, BATCH * RUNS, 2);
    let (mut values, mut at, (batches, _)) = ([0; BATCH], 0, keys.as_chunks::<BATCH>());
    let batches = batches.to_vec();
    only(move || {
        at = (at + 1) % batches.len();
        lpm.find_many(&batches[at], &mut values);
        black_box(&values);
    })
}

/// Rules about as many networks, each by a port of its own.
fn rules(count: usize) -> (Compiled, u32) {
    let parse = |text: &str| -> Name { text.parse().unwrap_or_else(|error| panic!("{error}")) };
    let rule = |n: usize| {
        let net: Prefix =
            format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap_or_else(|error| panic!("{error}"));
        let port = (n % 100) as u16 + 1;
        AclRule {
            protocol: Some(IpProtocol::TCP),
            destination: vec![net],
            destination_ports: vec![PortRange { first: port, last: port }],
            ..AclRule::all(AclAction::Deny)
        }
    };
    let acl = Acl {
        name: parse("list"),
        tier: AclTier::Before,
        priority: 1,
        applies_to: AclPorts { all: true, ..AclPorts::default() },
        ingress: (0..count).map(rule).collect(),
        egress: Vec::new(),
        stateless: false,
        owner: Owner::Operator,
    };
    let (own, namespaces) = (parse("p"), BTreeMap::new());
    let ports = vec![Candidate { port: 1, name: &own, workload: None, defaults: Default::default() }];
    let compiled = compile(&Input {
        acls: vec![Placed { acl: &acl, slot: 0 }],
        ports,
        namespaces: &namespaces,
        sets: &Sets::default(),
    });
    let compiled = compiled.unwrap_or_else(|error| panic!("{error}"));
    let chain = compiled.subject(1).ingress.before.enforced.unwrap_or_else(|| panic!("no chain"));
    (compiled, chain)
}

fn acl(count: usize) -> Box<dyn Work> {
    let ((compiled, chain), mut at) = (rules(count), 0);
    let v4 = |bits: u128| 0xffff_0000_0000 | bits;
    only(move || {
        for _ in 0..BATCH {
            let n = scattered(&mut at, count as u64);
            let ends = [v4(0x0909_0909), v4(0x0a00_0001 | u128::from(n) << 8)];
            let header = Header::new(ends, 6, [5, (n % 100) as u16 + 1], [0; 2]);
            assert!(black_box(compiled.judge(chain, &header)).is_some());
        }
    })
}
