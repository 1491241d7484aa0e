//! Changes of the switch while it forwards: routes, policies and ports, each kind by a client and a thread of its own.

use super::rig::Rig;
use crate::rules;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use switch_api::{
    ByName, Client, Done, NextHop, PortSettings, Prefix, Request, Route, RouteApply, RouteDelete, RouteKind,
    Vid,
};
use switch_lab::node::tap_port;
use switch_lab::{Node, Pod};

/// Changes of routes that are asked for.
pub const ROUTES_A_SECOND: u32 = 10_000;
/// Of one request: what a routing daemon says at once.
const TOGETHER: u32 = 50;
/// Ports that come, and ports that go.
pub const PORTS_A_SECOND: u32 = 20;
/// Policies that are replaced: a set of blocks each.
pub const SETS_A_SECOND: u32 = 100;
/// Blocks of such a set.
const BLOCKS: u32 = 100;

/// Changes that go on until they are told to stop.
#[derive(Debug)]
pub struct Churn {
    stop: Arc<AtomicBool>,
    started: Instant,
    threads: Vec<std::thread::JoinHandle<Result<u64, String>>>,
}

/// Changes a second that were made.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Routes added, replaced, deleted.
    pub routes: f64,
    /// Blocks of policies that were replaced.
    pub sets: f64,
    /// Ports attached or detached.
    pub ports: f64,
}

impl Churn {
    /// Begins, on the daemon of a rig whose packets are routed. `spare` is a pod without a cable, for the ports.
    pub fn start(rig: &Rig, spare: Pod) -> Result<Self, String> {
        let daemon = rig.daemon().ok_or("the switch is not what is between")?;
        let hop: IpAddr = rig.pods[1].ip.parse().map_err(|error| format!("{error}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let [routes, sets, ports] = [0; 3].map(|_| (daemon.client(), stop.clone()));
        let threads = vec![
            std::thread::spawn(move || {
                paced(&routes.1, ROUTES_A_SECOND / TOGETHER, routes.0, |n| routes_of(n, hop))
            }),
            std::thread::spawn(move || paced(&sets.1, SETS_A_SECOND, sets.0, set_of)),
            std::thread::spawn(move || paced(&ports.1, PORTS_A_SECOND, ports.0, |n| port_of(n, &spare))),
        ];
        Ok(Self { stop, started: Instant::now(), threads })
    }

    /// Ends, and says how many there were.
    pub fn finish(self) -> Result<Rates, String> {
        self.stop.store(true, Relaxed);
        let mut counts = [0.0; 3];
        for (count, thread) in counts.iter_mut().zip(self.threads) {
            *count = thread.join().map_err(|_| "a client panicked")?? as f64;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let [routes, sets, ports] = counts.map(|count| count / seconds);
        Ok(Rates { routes: routes * f64::from(TOGETHER), sets: sets * f64::from(BLOCKS), ports })
    }
}

/// A pod for the ports that come and go.
pub fn spare_pod(node: &Node) -> Pod {
    node.bare_pod(99)
}

/// Requests at a rate; how many. The last undoes what the one before did.
fn paced(
    stop: &AtomicBool,
    a_second: u32,
    mut client: Client,
    nth: impl Fn(u32) -> Result<Request, String>,
) -> Result<u64, String> {
    let (start, pause, mut n) = (Instant::now(), Duration::from_secs(1) / a_second, 0);
    while !stop.load(Relaxed) || n % 2 == 1 {
        std::thread::sleep((start + pause * n).saturating_duration_since(Instant::now()));
        let request = nth(n)?;
        client
            .call::<Done>(&request)
            .map_err(|error| format!("change {n} of {a_second} a second: {error}"))?;
        n += 1;
    }
    Ok(u64::from(n))
}

/// Routes of 12.0.0.0/8, which no packet goes by: added, then deleted.
fn routes_of(n: u32, hop: IpAddr) -> Result<Request, String> {
    let first = n / 2 * TOGETHER;
    let prefix = |k: u32| {
        let bits = 0x0c00_0000 | ((first + k) & 0xffff) << 8;
        Prefix { address: IpAddr::from(bits.to_be_bytes()), len: 24 }
    };
    let via = vec![NextHop { address: hop, bridge: None, vid: Vid::DEFAULT, weight: 1 }];
    let add = |k| Route::new(prefix(k), RouteKind::Via, via.clone());
    let delete = |k| RouteDelete { prefix: prefix(k), vrf: switch_api::Name::main(), metric: None };
    let apply = match n % 2 {
        0 => RouteApply { add: (0..TOGETHER).map(add).collect(), ..RouteApply::default() },
        _ => RouteApply { delete: (0..TOGETHER).map(delete).collect(), ..RouteApply::default() },
    };
    Ok(Request::RouteApply(apply))
}

/// A policy about the receiver that admits from a set of blocks: it comes, and goes.
fn set_of(n: u32) -> Result<Request, String> {
    let mut policy = rules::policies(BLOCKS)?.pop().ok_or("no policy")?;
    policy.metadata.name = "changing".into();
    let by = switch_api::ByPolicy {
        namespace: policy.metadata.namespace.clone(),
        name: policy.metadata.name.clone(),
    };
    Ok(match n % 2 {
        0 => Request::PolicyAdd(Box::new(policy)),
        _ => Request::PolicyDelete(by),
    })
}

/// A tap port in a pod that comes, and goes.
fn port_of(n: u32, spare: &Pod) -> Result<Request, String> {
    let port = tap_port(spare, "br0", PortSettings::default());
    Ok(match n % 2 {
        0 => Request::PortAdd(Box::new(port)),
        _ => Request::PortDelete(ByName { name: port.name }),
    })
}
