//! Everything has an owner: whatever was made as one, another is refused by name, unless it says whose work it undoes.

use crate::switchd;
use serde_json::{Value, json};
use std::time::Duration;
use switch_api::{
    ApiError, Client, Code, Config, ConfigExport, Happened, LeaseFilter, LeaseStatus, Owner, PoolStatus,
    Request,
};
use switch_lab::{Daemon, Node};

const LONG: Duration = Duration::from_secs(60);

fn request(method: &str, params: Value) -> Request {
    serde_json::from_value(json!({ "method": method, "params": params })).unwrap()
}

fn as_owner(daemon: &Daemon, owner: Owner) -> Client {
    Client::connect_as(&daemon.socket, LONG, owner).unwrap()
}

fn policy(name: &str, owner: &str) -> Value {
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": name },
        "spec": { "podSelector": {} }, "owner": owner })
}

fn holder() -> Value {
    json!({ "network": "n", "container": "c", "interface": "eth0" })
}

fn acl(owner: &str) -> Value {
    json!({ "name": "l", "applies_to": { "ports": ["p"] }, "ingress": [{ "action": "deny" }], "owner": owner })
}

fn nat(owner: &str) -> Value {
    json!({ "name": "n", "kind": "one-to-one", "external": "10.3.0.1", "internal": "10.1.0.9", "owner": owner })
}

/// One object of every kind there is, made as `owner` by whoever that is.
fn made(owner: &str) -> Vec<Request> {
    let subnet = json!([{ "subnet": "10.9.0.0/24" }]);
    vec![
        request("bridge.add", json!({ "name": "b", "owner": owner })),
        request("bridge.address.add", json!({ "bridge": "b", "address": "10.1.0.1/24", "owner": owner })),
        request("port.add", json!({ "name": "p", "bridge": "b", "kind": "memory", "owner": owner })),
        request("fdb.add", json!({ "mac": "02:00:00:00:00:09", "bridge": "b", "port": "p", "owner": owner })),
        request(
            "neigh.add",
            json!({ "address": "10.1.0.9", "mac": "02:00:00:00:00:09", "bridge": "b", "owner": owner }),
        ),
        request("route.add", json!({ "prefix": "10.50.0.0/16", "kind": "blackhole", "owner": owner })),
        request("vrf.set", json!({ "name": "main", "uplink": "none", "owner": owner })),
        request("namespace.set", json!({ "name": "web", "labels": { "a": "b" }, "owner": owner })),
        request("policy.add", policy("x", owner)),
        request("acl.set", acl(owner)),
        request("nat.set", nat(owner)),
        request("ipam.pool.add", json!({ "name": "pool", "ranges": subnet, "owner": owner })),
        request("ipam.lease.acquire", json!({ "pool": "pool", "holder": holder() })),
    ]
}

/// Everything that changes one of them or takes it away, in an order in which each is possible.
fn touching() -> Vec<Request> {
    let route = json!({ "prefix": "10.50.0.0/16", "kind": "prohibit" });
    let subnets = json!([{ "subnet": "10.9.0.0/24" }, { "subnet": "10.8.0.0/24" }]);
    vec![
        request("bridge.set", json!({ "name": "b", "ageing_s": 60 })),
        request("port.set", json!({ "name": "p", "settings": { "isolated": true } })),
        request("port.label", json!({ "name": "p", "workload": null })),
        request("fdb.add", json!({ "mac": "02:00:00:00:00:09", "bridge": "b", "port": "p" })),
        request("neigh.add", json!({ "address": "10.1.0.9", "mac": "02:00:00:00:00:08", "bridge": "b" })),
        request("route.apply", json!({ "replace": [route] })),
        request("vrf.set", json!({ "name": "main", "uplink": "none", "kernel_table": 7 })),
        request("namespace.set", json!({ "name": "web", "labels": { "c": "d" } })),
        request("policy.set", policy("x", "operator")),
        request("acl.set", acl("operator")),
        request("nat.set", nat("operator")),
        request("ipam.pool.set", json!({ "name": "pool", "ranges": subnets })),
        request("ipam.lease.acquire", json!({ "pool": "pool", "holder": holder() })),
        request("ipam.lease.release", json!({ "pool": "pool" })),
        request("ipam.pool.delete", json!({ "name": "pool" })),
        request("nat.delete", json!({ "name": "n" })),
        request("acl.delete", json!({ "name": "l" })),
        request("policy.delete", json!({ "name": "x" })),
        request("namespace.delete", json!({ "name": "web" })),
        request("vrf.delete", json!({ "name": "main" })),
        request("route.delete", json!({ "prefix": "10.50.0.0/16" })),
        request("neigh.delete", json!({ "address": "10.1.0.9", "bridge": "b" })),
        request("fdb.delete", json!({ "mac": "02:00:00:00:00:09", "bridge": "b" })),
        request("port.delete", json!({ "name": "p" })),
        request("bridge.address.delete", json!({ "bridge": "b", "address": "10.1.0.1/24" })),
        request("bridge.delete", json!({ "name": "b" })),
    ]
}

/// All that an owner has.
fn has(client: &mut Client, owner: Owner) -> (Config, Vec<PoolStatus>, Vec<LeaseStatus>) {
    let of = |config: Request, client: &mut Client| client.call(&config).unwrap();
    let config: Config = of(Request::ConfigExport(ConfigExport { owner }), client);
    let mut pools: Vec<PoolStatus> = client.call(&Request::PoolList(Default::default())).unwrap();
    let mut leases: Vec<LeaseStatus> = client.call(&Request::LeaseList(LeaseFilter::default())).unwrap();
    pools.retain(|status| status.pool.owner == owner);
    leases.retain(|status| status.lease.owner == owner);
    (config, pools, leases)
}

#[test]
fn each_kind_of_object_is_its_owners_until_another_says_whose_work_it_undoes() {
    for (word, owner, other) in [
        ("cni", Owner::Cni, Owner::Operator),
        ("operator", Owner::Operator, Owner::Agent),
        ("agent", Owner::Agent, Owner::Cni),
    ] {
        let node = Node::new();
        let daemon = node.start(&switchd());
        let mut maker = as_owner(&daemon, owner);
        for request in made(word) {
            maker.call::<Value>(&request).unwrap_or_else(|error| panic!("{request:?}: {error:?}"));
        }
        let there = has(&mut maker, owner);
        assert_eq!([there.1.len(), there.2.len()], [1, 1]);
        for noun in
            ["bridge", "address", "port", "fdb", "neigh", "route", "vrf", "namespace", "policy", "acl", "nat"]
        {
            assert_eq!(there.0.keys(noun).len(), 1, "{word} has no {noun} of its own");
        }

        let mut stranger = as_owner(&daemon, other);
        let refused = |client: &mut Client, request: &Request| -> ApiError {
            client.call::<Value>(request).expect_err(&format!("as {other}: {request:?}"))
        };
        for request in touching() {
            let error = refused(&mut stranger, &request);
            assert_eq!(
                (error.code, error.data.owner),
                (Code::Forbidden, Some(owner)),
                "{request:?}: {error:?}"
            );
            let hint = error.data.hint.clone().unwrap();
            assert!(error.message.contains(owner.in_words()), "{error:?}");
            assert!(hint.contains(&format!("--override-owner {owner}")), "{hint}");
        }
        assert_eq!(has(&mut maker, owner), there, "something was changed all the same");

        // A third's name opens nothing.
        stranger.override_owner(Some(if owner == Owner::Agent { Owner::Operator } else { Owner::Agent }));
        if owner != Owner::Agent && other != Owner::Agent {
            refused(&mut stranger, &touching()[0]);
        }
        stranger.override_owner(Some(owner));
        for request in touching() {
            stranger.call::<Value>(&request).unwrap_or_else(|error| panic!("{request:?}: {error:?}"));
            if let Request::BridgeSet(_) | Request::PolicySet(_) | Request::VrfSet(_) = request {
                assert_eq!(has(&mut maker, owner).0.keys("bridge").len(), 1, "it stays its owner's");
            }
        }
        let (config, pools, leases) = has(&mut maker, owner);
        assert_eq!((config, pools.len(), leases.len()), (Config::default(), 0, 0));

        let events: Vec<Happened> = maker.call(&Request::EventsRecent(Default::default())).unwrap();
        let told = events.iter().filter(|event| event.parts.get("overridden").is_some_and(|it| it == word));
        assert_eq!(told.count(), touching().len(), "each is told as what it was");
        assert!(daemon.log().contains("overriding that it belongs to"), "and is in the log");
    }
}

#[test]
fn what_is_replaced_by_its_own_owner_needs_no_word_and_stays_its_own() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    let mut maker = as_owner(&daemon, Owner::Cni);
    made("cni").iter().for_each(|request| drop(maker.call::<Value>(request).unwrap()));
    // Whoever makes something for the operator says so by being the operator.
    let error = maker.call::<Value>(&request("bridge.add", json!({ "name": "c" }))).unwrap_err();
    assert_eq!((error.code, error.data.owner), (Code::Forbidden, Some(Owner::Operator)));
    let set = request("bridge.set", json!({ "name": "b", "ageing_s": 60 }));
    maker.call::<Value>(&set).unwrap();
    assert_eq!(has(&mut maker, Owner::Cni).0.bridge[0].ageing_s, 60);
    let events: Vec<Happened> = maker.call(&Request::EventsRecent(Default::default())).unwrap();
    assert!(events.iter().all(|event| !event.parts.contains_key("overridden")));
    // All that somebody declares is that somebody's.
    let mine = request("config.apply", json!({ "config": {} }));
    assert_eq!(maker.call::<Value>(&mine).unwrap_err().data.owner, Some(Owner::Operator));
    maker.call::<Value>(&request("config.apply", json!({ "config": {}, "owner": "cni" }))).unwrap();
    assert_eq!(has(&mut maker, Owner::Cni).0, Config::default());
}
