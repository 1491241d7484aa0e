//! What is kept is what is there, whatever came before.

use super::*;
use crate::config::CheckedRoutes;
use crate::config::policies::key_of;
use crate::config::sets::CheckedSets;
use crate::rig::fuzz_acl::Bytes;
use crate::rig::fuzz_requests;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use switch_api::{
    Bridge, ByName, Port, PortKind, PortSet, PortSettings, Prefix, Request, Route, RouteApply, RouteDelete,
    RouteKind,
};

/// Puts a value where all was kept once.
pub(super) fn write_value(database: &Database, value: &serde_json::Value) {
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TABLE).unwrap().insert(KEY, value.to_string().as_bytes()).unwrap();
    transaction.commit().unwrap();
}

fn route(n: u8) -> Route {
    let prefix = Prefix { address: IpAddr::from([10, n, 0, 0]), len: 16 };
    Route { metric: 7, ..Route::new(prefix, RouteKind::Blackhole, Vec::new()) }
}

fn port(n: usize) -> Port {
    let name = |text: String| -> Name { text.parse().unwrap() };
    Port::new(name(format!("p{n}")), name("br0".into()), PortKind::Memory { source: None })
}

fn bridge() -> Bridge {
    Bridge::new("br0".parse().unwrap())
}

/// A file of its own in memory, as far as there is one: what is written is looked at here, and not that the disk has it.
fn path(name: &str) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("switchd-{name}-{}-{n}", std::process::id()));
    _ = std::fs::remove_file(&path);
    path
}

/// What the file has, when it is opened anew.
fn kept(path: &Path) -> Declared {
    Store::open(path).unwrap().1
}

fn keep_routes(store: &mut Store, model: &mut Model, apply: RouteApply) {
    let routes = CheckedRoutes::after(model, &Request::RouteApply(apply)).unwrap();
    store.keep_routes(routes.routes()).unwrap();
    model.routes = routes.into();
}

/// What is kept is what is there, whatever came before; the rest is kept beside it.
#[test]
fn each_route_is_kept_by_itself() {
    let path = path("routes");
    let mut model = Model::default().apply(&Request::BridgeAdd(bridge())).unwrap();
    let (mut store, _) = Store::open(&path).unwrap();
    store.keep(&Model::default(), &model).unwrap();
    let add = (0..9).map(route).collect();
    keep_routes(&mut store, &mut model, RouteApply { add, ..RouteApply::default() });
    let changed = Route { kind: RouteKind::Prohibit, ..route(3) };
    let gone = RouteDelete { prefix: route(5).prefix, vrf: Name::main(), metric: None };
    let apply = RouteApply { delete: vec![gone], replace: vec![changed.clone()], add: Vec::new() };
    keep_routes(&mut store, &mut model, apply);
    store.keep(&model, &model).unwrap();
    drop(store);
    let declared = kept(&path);
    let mut expected: Vec<Route> = (0..9).filter(|n| *n != 5).map(route).collect();
    expected[3] = changed;
    assert_eq!(declared.routes, expected);
    assert_eq!(declared.bridges.len(), 1);
    assert_eq!(Model::from_declared(declared, 0).unwrap().routes, model.routes);
    std::fs::remove_file(path).unwrap();
}

/// What an older version kept in one value, routes among it or not, is found: once, and from then on.
#[test]
fn what_an_older_version_kept_is_found() {
    let path = path("older");
    let list =
        serde_json::json!({ "name": "l", "applies_to": {"ports": ["p1"]}, "ingress": [{"action": "deny"}] });
    let policy = serde_json::json!({ "metadata": {"name": "n"}, "spec": {"podSelector": {}} });
    let nat = serde_json::json!({ "name": "t", "kind": "one-to-one", "external": "10.9.0.1", "internal": "10.9.0.2" });
    let old = serde_json::json!({
        "bridges": [bridge()], "routes": [route(1), route(2)], "ports": [port(7), port(1)],
        "acls": [list], "policies": [policy], "nats": [nat],
    });
    let expected: Declared = serde_json::from_value(old.clone()).unwrap();
    assert_eq!((expected.acls.len(), expected.policies.len(), expected.nats.len()), (1, 1, 1));
    let database = create(&path).unwrap();
    write_value(&database, &old);
    drop(database);
    let mut model = Model::from_declared(expected.clone(), 0).unwrap();
    for round in 0..3 {
        let (mut store, declared) = Store::open(&path).unwrap();
        assert_eq!(declared, expected, "round {round}");
        if round > 0 {
            store.keep(&model, &model).unwrap();
            model = Model::from_declared(declared, 0).unwrap();
        }
    }
    std::fs::remove_file(path).unwrap();
}

/// With the next change at the latest, as they are then.
#[test]
fn namespaces_are_kept_with_the_next_change() {
    let path = path("homes");
    let home: Home = serde_json::from_value(serde_json::json!({
        "boot_id": "b", "cookie": u64::MAX, "file": [4, 4_026_531_840_u64],
    }))
    .unwrap();
    let (mut store, _) = Store::open(&path).unwrap();
    let mut homes = Homes::default();
    for n in 1..=2 {
        homes.put(&port(n).name, Some(home.clone()));
    }
    store.keep_homes(&homes, true).unwrap();
    let (nothing, bridge) = (Model::default(), Request::BridgeAdd(bridge()));
    store.keep(&nothing, &nothing.apply(&bridge).unwrap()).unwrap();
    drop(store);
    let (mut store, _) = Store::open(&path).unwrap();
    let kept = store.homes().unwrap();
    assert_eq!(kept.values().collect::<Vec<_>>(), [&home, &home]);
    let homes = Homes::of(kept, |name| *name == port(2).name);
    store.keep_homes(&homes, false).unwrap();
    drop(store);
    let (mut store, _) = Store::open(&path).unwrap();
    assert_eq!(store.homes().unwrap().keys().collect::<Vec<_>>(), [&port(2).name]);
    std::fs::remove_file(path).unwrap();
}

/// Ports have the numbers of their order, also when one with a small number went and its number is another's.
#[test]
fn ports_come_back_in_the_order_of_their_numbers() {
    let path = path("order");
    let mut model = Model::default();
    let (mut store, _) = Store::open(&path).unwrap();
    let change = |store: &mut Store, model: &mut Model, request: Request| {
        let next = model.apply(&request).unwrap();
        store.keep(model, &next).unwrap();
        *model = next;
    };
    change(&mut store, &mut model, Request::BridgeAdd(bridge()));
    for n in [5, 4, 3, 2] {
        change(&mut store, &mut model, Request::PortAdd(Box::new(port(n))));
    }
    let delete = |n| Request::PortDelete(ByName { name: port(n).name });
    change(&mut store, &mut model, delete(4));
    drop(store);
    // Another start: numbers without a gap, and a number that the file has twice until all is written.
    let (mut store, declared) = Store::open(&path).unwrap();
    let mut model = Model::from_declared(declared, 0).unwrap();
    change(&mut store, &mut model, Request::PortAdd(Box::new(port(9))));
    drop(store);
    let again = Model::from_declared(kept(&path), 0).unwrap();
    assert_eq!(again.ports, model.ports);
    let order: Vec<_> = kept(&path).ports.into_iter().map(|port| port.name.to_string()).collect();
    assert_eq!(order, ["p5", "p3", "p2", "p9"]);
    std::fs::remove_file(path).unwrap();
}

/// What a write that failed may have left is gone with the next one that does not: whether it was made nobody knew.
#[test]
fn after_an_error_everything_is_written_anew() {
    let path = path("doubt");
    let (mut store, _) = Store::open(&path).unwrap();
    let add = |model: &Model, request| model.apply(&request).unwrap();
    let none = Model::default();
    let one = add(&none, Request::BridgeAdd(bridge()));
    let two = add(&one, Request::PortAdd(Box::new(port(1))));
    store.keep(&none, &one).unwrap();
    // It is on disk, and an error was answered: the model in force goes on without it.
    store.keep(&one, &two).unwrap();
    let failed = store.with(|_| Err(redb::Error::PreviousIo));
    assert!(failed.is_err() && store.take_doubt());
    let other = add(&one, Request::BridgeSet(Bridge { ageing_s: 77, ..bridge() }));
    store.keep(&one, &other).unwrap();
    drop(store);
    assert_eq!(kept(&path), other.declared());
    std::fs::remove_file(path).unwrap();
}

/// A change of one port among many writes pages for one, and not for all.
#[test]
fn a_change_costs_what_it_changes() {
    const PORTS: usize = 500;
    let mut model = Model::default().apply(&Request::BridgeAdd(bridge())).unwrap();
    for n in 0..PORTS {
        model = model.apply(&Request::PortAdd(Box::new(port(n)))).unwrap();
    }
    let settings = PortSettings { isolated: true, ..PortSettings::default() };
    let next = model.apply(&Request::PortSet(PortSet { name: port(250).name, settings })).unwrap();
    let value = text(&model.declared_together()).into_bytes();
    assert_eq!(objects::Change::of(&model, &next, Some(&value)).len(), (1, false));
    assert_eq!(objects::Change::of(&model, &next, None).len(), (PORTS, true));
    let other = next.apply(&Request::BridgeSet(Bridge { ageing_s: 77, ..bridge() })).unwrap();
    assert_eq!(objects::Change::of(&next, &other, Some(&value)).len(), (0, true));
}

/// As a request of the daemon's does it, by the way that is its own.
fn change(store: &mut Store, model: &mut Model, request: &Request) -> bool {
    if crate::config::sets::concerns(request) {
        let Ok(CheckedSets { sets, difference, listed }) = CheckedSets::after(model, request) else {
            return false;
        };
        store.keep_sets(&sets, &difference).unwrap();
        model.sets = sets;
        listed.into_iter().for_each(|listed| model.listed = listed);
        return true;
    }
    if crate::config::routes::concerns(request) {
        let Ok(routes) = CheckedRoutes::after(model, request) else { return false };
        store.keep_routes(routes.routes()).unwrap();
        model.routes = routes.into();
        return true;
    }
    let Ok(next) = model.apply(request) else { return false };
    store.keep(model, &next).unwrap();
    *model = next;
    true
}

/// Ports come and go between the changes that bytes make.
fn request(bytes: &mut Bytes) -> Option<Request> {
    match bytes.byte() % 4 {
        0 => {
            let n = usize::from(bytes.byte());
            Some(match n.is_multiple_of(3) {
                true => Request::PortDelete(ByName { name: port(n % 8).name }),
                false => Request::PortAdd(Box::new(port(n % 8))),
            })
        }
        _ => fuzz_requests::request(bytes),
    }
}

/// Whatever is changed in whatever order, with starts in between: the file has what the model has.
#[test]
fn the_file_has_what_the_model_has() {
    let made = AtomicU64::new(0);
    let config = crate::cases::cases(64);
    proptest!(config, |(data in proptest::collection::vec(any::<u8>(), 0..1_500))| {
        let path = path("twin");
        let (mut store, _) = Store::open(&path).unwrap();
        let mut model = Model::default();
        change(&mut store, &mut model, &Request::BridgeAdd(bridge()));
        let mut bytes = Bytes::new(&data);
        while !bytes.is_over() {
            let starts = bytes.byte().is_multiple_of(16);
            let Some(request) = request(&mut bytes) else { continue };
            let is_made = change(&mut store, &mut model, &request);
            made.fetch_add(u64::from(is_made), Ordering::Relaxed);
            if starts {
                drop(store);
                let declared;
                (store, declared) = Store::open(&path).unwrap();
                prop_assert_eq!(Declared { routes: Vec::new(), ..declared.clone() }, model.declared());
                prop_assert!(declared.policies.is_sorted_by_key(key_of));
                let routes = Model::from_declared(declared, 0).unwrap();
                prop_assert_eq!(&routes.routes, &model.routes);
                model = routes;
            }
        }
        drop(store);
        prop_assert_eq!(Declared { routes: Vec::new(), ..kept(&path) }, model.declared());
        std::fs::remove_file(path).unwrap();
    });
    let made = made.into_inner();
    println!("{made} changes");
    assert!(made > 64, "too few to count: {made}");
}
