//! Leases and crashes: what the daemon acknowledged it still knows after it was killed, and nothing is given
//! to two. The daemon, its file and the kills are real.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use switch_api::{
    Client, Code, Done, Holder, Lease, LeaseAcquire, LeaseFilter, LeaseStatus, Name, Owner, Pool, PoolRange,
    PoolStatus, Port, PortKind, Released, Request,
};
use switch_lab::disk::SmallDisk;
use switch_lab::{Daemon, Node, Options, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// How often the daemon is killed.
const KILLS: u64 = 12;
/// Leases that clients are told of or release, at least, before it is.
const ANSWERED: usize = 10;
/// Clients that ask and release meanwhile.
const CLIENTS: usize = 3;

fn switchd() -> Options {
    Options::new(env!("CARGO_BIN_EXE_switchd")).keeping_state()
}

fn pods() -> Name {
    "pods".parse().unwrap()
}

fn add_pool(daemon: &Daemon, subnets: &[&str]) {
    let ranges = subnets.iter().map(|subnet| PoolRange::of(subnet.parse().unwrap())).collect();
    let _: Done = daemon.call(&Request::PoolAdd(Pool { name: pods(), ranges, owner: Default::default() }));
}

fn holder(container: &str) -> Holder {
    Holder { network: "net".into(), container: container.into(), interface: "eth0".into() }
}

fn acquire(container: &str) -> Request {
    Request::LeaseAcquire(LeaseAcquire {
        pool: pods(),
        holder: holder(container),
        addresses: Vec::new(),
        with_port: false,
    })
}

fn release(container: &str) -> Request {
    Request::LeaseRelease(LeaseFilter::of(&holder(container)))
}

fn leases(daemon: &Daemon) -> Vec<LeaseStatus> {
    daemon.call(&Request::LeaseList(LeaseFilter::default()))
}

/// What a client was told. `None`: it was told of the release; absent: it was told nothing for sure.
type Told = BTreeMap<String, Option<Lease>>;

/// Asks and releases until the daemon is gone; what was asked last and not answered is in doubt.
fn churn(socket: &std::path::Path, client: usize, round: u64, told: &Mutex<Told>, stop: &AtomicBool) {
    let Ok(mut connection) = Client::connect(socket, LONG) else { return };
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let container = format!("c{client}-{round}-{n}");
        match connection.call::<Lease>(&acquire(&container)) {
            Ok(lease) => _ = told.lock().unwrap().insert(container.clone(), Some(lease)),
            Err(error) if error.code == Code::Limit => {}
            Err(_) => return,
        }
        // Every second one is kept.
        let mine = |name: &String| name.starts_with(&format!("c{client}-"));
        let oldest = told
            .lock()
            .unwrap()
            .iter()
            .find(|(name, lease)| lease.is_some() && mine(name))
            .map(|(name, _)| name.clone());
        let Some(oldest) = oldest.filter(|_| n % 2 == 1 || told.lock().unwrap().len() > 150) else {
            continue;
        };
        let lease = told.lock().unwrap().remove(&oldest);
        match connection.call::<Released>(&release(&oldest)) {
            Ok(released) => {
                assert_eq!(
                    released.leases.first(),
                    lease.flatten().as_ref(),
                    "what was released is not what was leased"
                );
                told.lock().unwrap().insert(oldest, None);
            }
            Err(_) => return,
        }
    }
}

fn check(daemon: &Daemon, told: &Told) {
    let present: BTreeMap<String, Lease> = leases(daemon)
        .into_iter()
        .map(|status| (status.lease.holder.container.clone(), status.lease))
        .collect();
    for (container, lease) in told {
        assert_eq!(present.get(container), lease.as_ref(), "{container}: told one thing, kept another");
    }
    let mut all = BTreeSet::<IpAddr>::new();
    for address in present.values().flat_map(|lease| &lease.addresses) {
        assert!(all.insert(address.address.addr()), "{} is leased twice", address.address);
    }
}

#[test]
fn a_lease_that_was_acknowledged_survives_a_kill_and_none_is_given_twice() {
    let node = Node::new();
    let mut daemon = node.start(&switchd());
    add_pool(&daemon, &["10.9.0.0/24", "fd09::/64"]);
    let told = Arc::new(Mutex::new(Told::new()));
    let mut acknowledged = 0;
    for round in 0..KILLS {
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (socket, told, stop) = (daemon.socket.clone(), told.clone(), stop.clone());
                std::thread::spawn(move || churn(&socket, client, round, &told, &stop))
            })
            .collect();
        // However slow the machine: some were told something.
        let before = acknowledged;
        wait_until("clients are answered", LONG, || told.lock().unwrap().len() >= before + ANSWERED);
        // Anywhere in a transaction: the pause has no relation to what it takes.
        std::thread::sleep(Duration::from_micros(20_000 + (round * 7_919_317) % 60_000));
        daemon.kill();
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        daemon = node.start(&switchd());
        let told = told.lock().unwrap();
        check(&daemon, &told);
        acknowledged = told.len();
    }
    assert!(acknowledged > 100, "only {acknowledged} were acknowledged: this tested nothing");
    println!("{KILLS} kills, {acknowledged} leases acknowledged or released");
}

/// A lease that is for a port is on disk with the port, and with nothing less: a daemon that dies before that has not given the address
/// to anybody. Asked for without a port it is on disk at once, whatever was said before.
#[test]
fn a_lease_for_a_port_is_on_disk_with_the_port() {
    let with_port = |container| match acquire(container) {
        Request::LeaseAcquire(wanted) => Request::LeaseAcquire(LeaseAcquire { with_port: true, ..wanted }),
        other => other,
    };
    let node = Node::new();
    let mut daemon = node.start(&switchd());
    add_pool(&daemon, &["10.9.0.0/29"]);
    let restarted = |mut daemon: Daemon| {
        daemon.kill();
        drop(daemon);
        let daemon = node.start(&switchd());
        let has: Vec<Lease> = leases(&daemon).into_iter().map(|status| status.lease).collect();
        (daemon, has)
    };
    let _: Lease = daemon.call(&with_port("nobody"));
    let has;
    (daemon, has) = restarted(daemon);
    assert_eq!(has, [], "it was on disk before its port");

    let first: Lease = daemon.call(&with_port("first"));
    daemon.bridge("br0");
    let has;
    (daemon, has) = restarted(daemon);
    assert_eq!(has, std::slice::from_ref(&first), "it is on disk with whatever comes next");

    let second: Lease = daemon.call(&with_port("second"));
    let again: Lease = daemon.call(&acquire("second"));
    assert_eq!(again, second);
    let has;
    (daemon, has) = restarted(daemon);
    assert_eq!(has, [first, second], "who did not speak of a port was told of a lease that is not on disk");
    daemon.assert_conserved();
}

#[test]
fn a_restart_keeps_pools_leases_and_what_was_just_released() {
    let node = Node::new();
    let mut daemon = node.start(&switchd());
    add_pool(&daemon, &["10.9.0.0/29"]);
    let first: Lease = daemon.call(&acquire("first"));
    let kept: Lease = daemon.call(&acquire("kept"));
    let _: Released = daemon.call(&release("first"));
    daemon.kill();
    let daemon = node.start(&switchd());
    assert_eq!(leases(&daemon).into_iter().map(|status| status.lease).collect::<Vec<_>>(), [kept]);
    let pools: Vec<PoolStatus> = daemon.call(&Request::PoolList(Default::default()));
    assert_eq!((pools[0].families[0].leased, pools[0].families[0].held), (1, 1));
    for n in 0..4 {
        let lease: Lease = daemon.call(&acquire(&format!("next{n}")));
        assert_ne!(
            lease.addresses, first.addresses,
            "a released address was given out at once after a restart"
        );
    }
    let refused = daemon.client().call::<Done>(&Request::PoolDelete(switch_api::ByName { name: pods() }));
    assert_eq!(refused.unwrap_err().code, Code::Busy);
    let all = LeaseFilter { pool: Some(pods()), ..LeaseFilter::default() };
    assert_eq!(daemon.call::<Released>(&Request::LeaseRelease(all)).leases.len(), 5);
    let _: Done = daemon.call(&Request::PoolDelete(switch_api::ByName { name: pods() }));
    let none: Vec<PoolStatus> = daemon.call(&Request::PoolList(Default::default()));
    assert!(none.is_empty());
}

#[test]
fn a_full_disk_is_said_and_costs_no_lease() {
    let node = Node::new();
    let disk = SmallDisk::new(&node, 2);
    let state = disk.file("state");
    let options = Options::new(env!("CARGO_BIN_EXE_switchd")).with(&format!("--state {}", state.display()));
    let mut daemon = node.start(&options);
    add_pool(&daemon, &["10.0.0.0/8"]);
    let kept: Lease = daemon.call(&acquire("kept"));
    let filler = disk.fill();
    let mut acknowledged = vec![kept];
    let refused = (0..20_000).find_map(|n| match daemon.client().call::<Lease>(&acquire(&format!("c{n}"))) {
        Ok(lease) => {
            acknowledged.push(lease);
            None
        }
        Err(error) => Some(error),
    });
    let refused = refused.expect("the disk is not full");
    assert_eq!(refused.code, Code::System, "{refused:?}");
    assert!(refused.data.hint.unwrap().contains("nothing was changed"));
    std::fs::remove_file(&filler).unwrap();
    // With room again it goes on, without a restart, and with one it still knows everything.
    let after: Lease = daemon.call(&acquire("after"));
    acknowledged.push(after);
    daemon.kill();
    let daemon = node.start(&options);
    let present: Vec<Lease> = leases(&daemon).into_iter().map(|status| status.lease).collect();
    for lease in &acknowledged {
        assert!(present.contains(lease), "{lease:?} is lost");
    }
    assert_eq!(present.len(), acknowledged.len(), "something was kept that was refused");
}

/// A daemon that cannot keep what it promises does not begin to promise: it says why, touches nothing, and knows everything when it may
/// write again.
#[test]
fn a_read_only_state_directory_is_said_at_the_start_and_costs_nothing() {
    let node = Node::new();
    let disk = SmallDisk::new(&node, 2);
    let state = disk.file("state").display().to_string();
    let options = Options::new(env!("CARGO_BIN_EXE_switchd")).with(&format!("--state {state}"));
    let mut daemon = node.start(&options);
    add_pool(&daemon, &["10.9.0.0/29"]);
    let kept: Lease = daemon.call(&acquire("kept"));
    daemon.kill();
    disk.set_writable(false);
    let socket = daemon.socket.display().to_string();
    let refused = node
        .net
        .command(env!("CARGO_BIN_EXE_switchd"))
        .args(["--socket", &socket, "--state", &state])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&state) && said.contains("Read-only file system"), "{said}");
    disk.set_writable(true);
    let daemon = node.start(&options);
    assert_eq!(leases(&daemon).into_iter().map(|status| status.lease).collect::<Vec<_>>(), [kept]);
}

/// A pool is told of before it is exhausted, once, and again only after it had room; and exhaustion is refused with the figures.
#[test]
fn a_pool_that_is_nearly_full_is_told_before_it_is_full() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    add_pool(&daemon, &["10.9.0.0/27"]);
    let told = || {
        let recent: Vec<switch_api::Happened> = daemon.call(&Request::EventsRecent(Default::default()));
        let of_pools = recent.into_iter().filter(|event| event.what == "pool-near-full");
        of_pools.map(|event| event.text).collect::<Vec<_>>()
    };
    let names: Vec<String> = (0..30).map(|n| format!("c{n}")).collect();
    for name in &names[..26] {
        let _: Lease = daemon.call(&acquire(name));
    }
    // It is looked once a second.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(told(), Vec::<String>::new(), "26 of 30 are no 90 percent");
    let _: Lease = daemon.call(&acquire(&names[26]));
    switch_lab::wait_until("it is told", LONG, || told().len() == 1);
    assert!(told()[0].contains("address pool pods (IPv4)"), "{:?}", told());
    for name in &names[27..] {
        let _: Lease = daemon.call(&acquire(name));
    }
    let refused = daemon.client().call::<Lease>(&acquire("more")).unwrap_err();
    assert_eq!(refused.code, Code::Limit);
    assert!(refused.message.contains("30"), "{refused:?}");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(told().len(), 1, "once");
}

/// A lease whose attachment was killed midway is told apart and can be given back, without those that ports have or wait for.
#[test]
fn a_lease_that_no_port_has_is_told_apart() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    add_pool(&daemon, &["10.66.0.0/24"]);
    // Killed before it made a port, and one that has its port.
    let _: Lease = daemon.call_as(Owner::Cni, &acquire("killed"));
    let used: Lease = daemon.call_as(Owner::Cni, &acquire("used"));
    let pod = node.bare_pod(9);
    let mut kind = PortKind::tap(&pod.net.path());
    *kind.addressed_mut().unwrap().0 = vec![used.addresses[0].address.to_string().parse().unwrap()];
    let port = Port::new("web".parse().unwrap(), "br0".parse().unwrap(), kind);
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    let leaks = LeaseFilter { without_port: true, ..LeaseFilter::default() };
    let listed = |filter: &LeaseFilter| -> Vec<(String, Option<String>)> {
        let leases: Vec<LeaseStatus> = daemon.call(&Request::LeaseList(filter.clone()));
        let each = leases.into_iter();
        each.map(|it| (it.lease.holder.container, it.port.map(|port| port.to_string()))).collect()
    };
    let all = listed(&LeaseFilter::default());
    assert_eq!(all, [("killed".into(), None), ("used".into(), Some("web".into()))]);
    assert_eq!(listed(&leaks), [], "its port may be to come");
    switch_lab::wait_until("it is a leak", 2 * LONG, || listed(&leaks) == [("killed".into(), None)]);
    let _: Lease = daemon.call_as(Owner::Cni, &acquire("young"));
    let released: Released = daemon.call_as(Owner::Cni, &Request::LeaseRelease(leaks.clone()));
    let gone: Vec<_> = released.leases.iter().map(|lease| lease.holder.container.as_str()).collect();
    assert_eq!(gone, ["killed"]);
    // The operator is told whose they are; and none is left to be told of.
    assert_eq!(listed(&LeaseFilter::default()).len(), 2);
    let refused = daemon.client().call::<Released>(&Request::LeaseRelease(LeaseFilter::of(&holder("used"))));
    assert_eq!(refused.unwrap_err().code, Code::Forbidden);
    let none: Released = daemon.call(&Request::LeaseRelease(leaks));
    assert_eq!(none.leases, []);
}

/// The node's own address and a bridge's gateway are in the pool's network, and nobody said so: no pod gets them.
#[test]
fn what_the_node_and_gateways_have_is_not_leased() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    daemon.attach_host(9, "br0");
    daemon.gateway("br0", "10.66.0.10/24");
    add_pool(&daemon, &["10.66.0.8/29"]);
    let given: Vec<_> = ["a", "b", "c", "d"]
        .map(|container| {
            let lease: Lease = daemon.call(&acquire(container));
            lease.addresses[0].address.addr().to_string()
        })
        .into();
    assert_eq!(given, ["10.66.0.11", "10.66.0.12", "10.66.0.13", "10.66.0.14"]);
    let Request::LeaseAcquire(wanted) = acquire("e") else { panic!() };
    let by_name = LeaseAcquire { addresses: vec!["10.66.0.9".parse().unwrap()], ..wanted.clone() };
    let refused = |wanted| daemon.client().call::<Lease>(&Request::LeaseAcquire(wanted)).unwrap_err();
    let named = refused(by_name);
    assert_eq!((named.code, &*named.message), (Code::Busy, "10.66.0.9 is that of port host"), "{named:?}");
    let full = refused(wanted);
    assert_eq!(full.code, Code::Limit, "{full:?}");
    assert!(full.message.contains("the node's and gateways'"), "{full:?}");
}
