//! What was declared is on disk when it is acknowledged: a daemon that is killed at any instant comes back with exactly that, or with
//! the one change beside it that it was asked for and had not acknowledged. A full disk is said, and changes nothing.
//!
//! The disk is one in memory: what a process has written survives its SIGKILL there as it does on any other, so that
//! hundreds of rounds take minutes. That a loss of power is survived as well is for `fsync`, and not shown here.

use crate::linux::dice::Dice;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::time::Duration;
use switch_api::{
    Acl, Bridge, ByName, Client, Code, Config, ConfigApply, ConfigExport, Done, Mac, Name, Owner, Port,
    PortKind, PortSet, PortSettings, Request, Route, RouteDelete, RouteKind,
};
use switch_core::config::Model;
use switch_core::config::plan::plan;
use switch_lab::disk::SmallDisk;
use switch_lab::{Node, Options};

/// Times that a daemon is killed, unless [`ROUNDS_VARIABLE`] says how often.
const ROUNDS: u64 = 240;
/// Daemons of which each is killed its part of them, at the same time: a round is waiting for the most part.
const DAEMONS: u64 = 4;
const ROUNDS_VARIABLE: &str = "SIGKILL_ROUNDS";
/// Another seed makes other changes and other instants.
const SEED_VARIABLE: &str = "SIGKILL_SEED";
/// Bridges, ports, routes and lists there are to choose from: few, so that they come, change and go.
const FEW: u64 = 4;
/// Changes that are acknowledged before its time begins to run, less than these.
const BEHIND: u64 = 8;
/// It is killed so many microseconds after that at most: some dozens of changes.
const LIFE_US: u64 = 150_000;

fn name(kind: &str, n: u64) -> Name {
    format!("{kind}{n}").parse().unwrap()
}

/// A change of what the twin has, which may well be refused.
fn change(dice: &mut Dice, twin: &Model, past: &[Config]) -> Request {
    let n = dice.below(FEW);
    match dice.below(12) {
        0 | 1 => Request::BridgeAdd(Bridge::new(name("br", n))),
        2 => Request::BridgeDelete(ByName { name: name("br", n) }),
        3 => Request::BridgeSet(Bridge {
            ageing_s: 10 + dice.below(1000) as u32,
            ..Bridge::new(name("br", n))
        }),
        4 | 5 => {
            let mut kind = PortKind::tap("");
            if let PortKind::Tap { device, netns, mac, .. } = &mut kind {
                (*device, *netns) = (format!("tap{n}"), None);
                *mac = Some(Mac([2, 0, 0, 0, 1, n as u8]));
            }
            Request::PortAdd(Box::new(Port::new(name("p", n), name("br", dice.below(FEW)), kind)))
        }
        6 => Request::PortDelete(ByName { name: name("p", n) }),
        7 => {
            let storm_pps = Some(1 + dice.below(1000) as u32);
            Request::PortSet(PortSet {
                name: name("p", n),
                settings: PortSettings { storm_pps, ..Default::default() },
            })
        }
        8 => {
            let kind = if dice.chance(50) { RouteKind::Blackhole } else { RouteKind::Prohibit };
            Request::RouteAdd(Route::new(format!("10.{n}.0.0/16").parse().unwrap(), kind, Vec::new()))
        }
        9 => {
            let prefix = format!("10.{n}.0.0/16").parse().unwrap();
            Request::RouteDelete(RouteDelete { prefix, vrf: Name::main(), metric: None })
        }
        10 => {
            let port = 1 + dice.below(60_000);
            let acl = serde_json::json!({
                "name": name("acl", n), "applies_to": { "ports": [name("p", n)] },
                "ingress": [{ "action": "deny", "protocol": "tcp", "destination_ports": [port.to_string()] }],
            });
            serde_json::from_value::<Acl>(acl).map_or_else(
                |error| panic!("{error}"),
                |acl| {
                    if dice.chance(70) {
                        Request::AclSet(Box::new(acl))
                    } else {
                        Request::AclDelete(ByName { name: acl.name })
                    }
                },
            )
        }
        _ => {
            let nothing = twin.config(Owner::Operator);
            let config = if past.is_empty() { nothing } else { dice.one(past).clone() };
            Request::ConfigApply(Box::new(ConfigApply { config, ..ConfigApply::default() }))
        }
    }
}

/// What the twin is after a change that was made; none if it cannot be made.
fn after(twin: &Model, request: &Request) -> Option<Model> {
    if let Request::ConfigApply(apply) = request {
        let (model, problems) =
            twin.after(&plan(&twin.config(Owner::Operator), &apply.config, &BTreeSet::new()));
        return problems.is_empty().then_some(model);
    }
    twin.apply(request).ok()
}

fn export(client: &mut Client) -> Config {
    client.call(&Request::ConfigExport(ConfigExport::default())).unwrap()
}

/// Whether an error is the daemon's answer, and not its end.
fn is_answer(error: &switch_api::ApiError) -> bool {
    !(error.code == Code::System
        && (error.message.contains("closed the connection") || error.message.contains("broke")))
}

#[test]
fn a_daemon_killed_at_any_instant_has_what_it_acknowledged() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (rounds, seed) = (number(ROUNDS_VARIABLE).unwrap_or(ROUNDS), number(SEED_VARIABLE).unwrap_or(1));
    std::thread::scope(|scope| {
        for n in 0..DAEMONS {
            scope.spawn(move || is_killed(rounds.div_ceil(DAEMONS), seed * DAEMONS + n));
        }
    });
}

/// One daemon, killed so often; `seed` makes changes and instants.
fn is_killed(rounds: u64, seed: u64) {
    let node = Node::new();
    let disk = SmallDisk::new(&node, 64);
    let options = Options::new(env!("CARGO_BIN_EXE_switchd"))
        .with(&format!("--state {}", disk.file("state").display()));
    let (mut dice, mut twin, mut pending) = (Dice(seed), Model::default(), None::<Request>);
    let (mut past, mut made, mut kept, mut lost) = (Vec::new(), 0u64, 0u64, 0u64);
    for round in 0..rounds {
        let mut daemon = node.start(&options);
        let mut client = daemon.client();
        let there = export(&mut client);
        if there != twin.config(Owner::Operator) {
            // The one change that was not acknowledged may be there.
            let next = pending.as_ref().and_then(|request| after(&twin, request));
            let next = next.filter(|model| model.config(Owner::Operator) == there);
            twin = next.unwrap_or_else(|| {
                panic!(
                    "round {round}, seed {seed}: acknowledged {:#?}\nnot acknowledged {pending:?}\nthere is {there:#?}\n{}",
                    twin.config(Owner::Operator),
                    daemon.log()
                )
            });
            kept += 1;
        } else if pending.is_some() {
            lost += 1;
        }
        let (pid, life) =
            (Pid::from_raw(daemon.pid() as i32).unwrap(), Duration::from_micros(dice.below(LIFE_US)));
        // However slow the machine: its life begins behind some changes, or with the first one.
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let behind = dice.below(BEHIND);
        let killer = std::thread::spawn(move || {
            (0..behind).for_each(|_| told.recv().unwrap_or(()));
            std::thread::sleep(life);
            _ = kill_process(pid, Signal::KILL);
        });
        pending = loop {
            let request = change(&mut dice, &twin, &past);
            match client.call::<serde_json::Value>(&request) {
                Ok(_) => {
                    made += 1;
                    _ = tell.send(());
                    let next = after(&twin, &request);
                    twin = next.unwrap_or_else(|| {
                        panic!("round {round}, seed {seed}: {request:?} was done, the twin refuses")
                    });
                    if dice.chance(10) {
                        past.truncate(20);
                        past.insert(0, twin.config(Owner::Operator));
                    }
                }
                // It was made, and a worker of a busy machine is late.
                Err(error) if error.code == Code::Timeout => twin = after(&twin, &request).unwrap(),
                Err(error) if is_answer(&error) => {}
                Err(_) => break Some(request),
            }
        };
        killer.join().unwrap();
        daemon.kill();
    }
    println!(
        "{rounds} rounds, seed {seed}: {made} changes acknowledged; of those cut off {kept} were made, {lost} not or refused"
    );
    assert!(made > rounds, "it was killed before anything happened: {made} changes in {rounds} rounds");
}

#[test]
fn a_full_disk_is_said_and_nothing_that_was_declared_changes() {
    let node = Node::new();
    let disk = SmallDisk::new(&node, 2);
    let options = Options::new(env!("CARGO_BIN_EXE_switchd"))
        .with(&format!("--state {}", disk.file("state").display()));
    let mut daemon = node.start(&options);
    daemon.bridge("br0");
    let filler = disk.fill();
    let mut client = daemon.client();
    // Routes are a row each: sooner or later they need more pages than there are.
    let route = |n: u32| {
        let prefix = format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap();
        Request::RouteAdd(Route::new(prefix, RouteKind::Blackhole, Vec::new()))
    };
    let refused = (0..60_000).find_map(|n| client.call::<Done>(&route(n)).err());
    let refused = refused.expect("the disk is not full");
    assert_eq!(refused.code, Code::System, "{refused:?}");
    assert!(refused.data.hint.as_ref().unwrap().contains("nothing was changed"), "{refused:?}");
    let acknowledged = export(&mut client);
    let second = client.call::<Done>(&Request::BridgeAdd(Bridge::new(name("br", 1))));
    let is_there = second.is_ok();
    std::fs::remove_file(&filler).unwrap();
    // With room again it goes on, without a restart, and with one it has what it acknowledged.
    let _: Done = client.call(&Request::BridgeAdd(Bridge::new(name("br", 2)))).unwrap();
    let after = export(&mut client);
    assert_eq!(after.route, acknowledged.route);
    assert_eq!(after.bridge.len(), 2 + usize::from(is_there));
    daemon.kill();
    let daemon = node.start(&options);
    assert_eq!(export(&mut daemon.client()), after);
}

/// The daemon does not start on what it does not understand, and its last words say what to do.
#[test]
fn a_state_file_that_is_none_is_said_at_the_start() {
    let node = Node::new();
    let state = node.directory().join("state");
    let letter = b"Dear administrator, this is no database.".repeat(200);
    std::fs::write(&state, &letter).unwrap();
    let mut command = node.net.command(env!("CARGO_BIN_EXE_switchd"));
    command.arg("--socket").arg(node.directory().join("switchd.sock")).arg("--state").arg(&state);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("is no state file") && said.contains("move the file away"), "{said}");
    assert_eq!(std::fs::read(&state).unwrap(), letter);
}
