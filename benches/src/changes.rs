//! Changes of ports, bridges and stations, one after the other at a rate, on a switch with as many ports as a large node has pods; and
//! beside them numbered datagrams between pods that no change is about.

use crate::iperf::PATIENCE;
use hdrhistogram::Histogram;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use switch_api::{
    Bridge, ByName, Client, Done, DropCount, FdbDelete, Mac, MemorySource, Name, Port, PortKind, PortSet,
    PortSettings, Request, StaticMac, Vid,
};
use switch_lab::{Daemon, Node, Options, sequence, wait_until};

/// Ports in all, those of the pods among them.
pub const PORTS: usize = 250;
/// What is asked for.
pub const CHANGES_A_SECOND: u64 = 1_000;
const DURATION: Duration = Duration::from_secs(10);
/// Pods that speak with each other over ports and a bridge that nobody changes.
const PODS: u8 = 4;
/// Datagrams under way in each direction.
const WINDOW: u64 = 64;
/// Frames a second of each of the other ports: some traffic everywhere, which leaves the cores something.
const RATE_PPS: u64 = 20;
/// What is longer counts as so long.
const LONGEST_NS: u64 = 60_000_000_000;
/// Kinds of change, in turn.
const KINDS: usize = 8;

/// Changes, by number, as fast as they are answered: nanoseconds that each took, and how many a second there were. The first `begin` do not count.
pub fn as_answered(
    begin: u32,
    duration: Duration,
    mut change: impl FnMut(u32) -> Result<(), String>,
) -> Result<(Histogram<u64>, f64), String> {
    let mut times = no_times()?;
    (0..begin).try_for_each(&mut change)?;
    let (start, mut n) = (Instant::now(), begin);
    while start.elapsed() < duration {
        timed(&mut times, n, &mut change)?;
        n += 1;
    }
    Ok((times, f64::from(n - begin) / start.elapsed().as_secs_f64()))
}

/// So many changes, by number: nanoseconds that each took.
pub fn each_timed(
    count: u32,
    mut change: impl FnMut(u32) -> Result<(), String>,
) -> Result<Histogram<u64>, String> {
    let mut times = no_times()?;
    (0..count).try_for_each(|n| timed(&mut times, n, &mut change))?;
    Ok(times)
}

fn no_times() -> Result<Histogram<u64>, String> {
    Histogram::new_with_max(LONGEST_NS, 3).map_err(|error| error.to_string())
}

fn timed(
    times: &mut Histogram<u64>,
    n: u32,
    change: &mut impl FnMut(u32) -> Result<(), String>,
) -> Result<(), String> {
    let asked = Instant::now();
    change(n)?;
    times.saturating_record(asked.elapsed().as_nanos() as u64);
    Ok(())
}

/// What came of it.
#[derive(Debug)]
pub struct Measured {
    /// Nanoseconds from a request to its answer: every worker has it then.
    pub times: Histogram<u64>,
    /// Changes a second.
    pub rate: f64,
    /// Datagrams between the pods.
    pub tally: sequence::Tally,
    /// Frames the switch dropped of the pods' ports, by reason.
    pub dropped: String,
}

impl Measured {
    /// Milliseconds.
    pub fn ms(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1e6
    }

    /// Whether there was what a figure rests on: nine tenths of the rate, for the last change may end later, and datagrams.
    pub fn is_enough(&self) -> bool {
        self.rate >= 0.9 * CHANGES_A_SECOND as f64 && self.tally.sent > 1_000
    }

    /// In words.
    pub fn detail(&self) -> String {
        format!(
            "{:.0} changes a second ({CHANGES_A_SECOND} asked for) for {:.0} s on {PORTS} ports, by one client, kept on disk: bridges, \
             ports and stations added, set and deleted in turn; from request to all workers have it p50 {:.2}, p99 {:.2}, worst {:.2} \
             ms; of {} datagrams between {PODS} pods that no change is about {} lost, {} overtaken; the switch dropped {} of theirs",
            self.rate,
            DURATION.as_secs_f64(),
            self.ms(0.5),
            self.ms(0.99),
            self.ms(1.0),
            self.tally.sent,
            self.tally.lost,
            self.tally.overtaken,
            self.dropped,
        )
    }
}

/// Measures.
pub fn measure(switchd: &Path) -> Result<Measured, String> {
    let node = Node::new();
    let mut daemon = node.start(&Options::new(switchd).with("--frames 4096").keeping_state());
    daemon.bridge("pods");
    let pods: Vec<_> = (1..=PODS).map(|n| node.bare_pod(n)).collect();
    pods.iter().for_each(|pod| daemon.attach_tap(pod, "pods", PortSettings::default()));
    daemon.bridge("others");
    let mut client = daemon.client();
    for n in usize::from(PODS)..PORTS - 1 {
        ask(&mut client, &Request::PortAdd(Box::new(memory(&format!("m{n}"), "others", n as u64)?)))?;
    }
    for pod in &pods[1..] {
        wait_until("pods reach each other", PATIENCE, || pods[0].reaches(&pod.ip));
    }
    let address = |n: usize| pods[n].ip.parse::<IpAddr>().map_err(|error| error.to_string());
    let load = |from: usize, to: usize| -> Result<_, String> {
        Ok(sequence::start(&pods[from].net, &pods[to].net, &[(address(from)?, address(to)?)], WINDOW))
    };
    let loads = [load(0, 1)?, load(2, 3)?];
    let changed = change(&mut client);
    let [first, second] = loads.map(sequence::Running::finish);
    let tally = sequence::Tally {
        sent: first.sent + second.sent,
        lost: first.lost + second.lost,
        overtaken: first.overtaken + second.overtaken,
    };
    let (times, rate) = changed?;
    daemon.assert_conserved();
    let dropped = dropped(&daemon, &pods);
    daemon.stop(true);
    Ok(Measured { times, rate, tally, dropped })
}

fn dropped(daemon: &Daemon, pods: &[switch_lab::Pod]) -> String {
    let drops = daemon.stats().drops.into_iter();
    let theirs = drops.filter(|drop| pods.iter().any(|pod| pod.device == drop.port.as_str()));
    named(theirs)
}

/// What was dropped, by its names.
pub fn named(drops: impl IntoIterator<Item = DropCount>) -> String {
    let all: Vec<_> = drops.into_iter().map(|drop| format!("{} {}", drop.frames, drop.reason)).collect();
    if all.is_empty() { "nothing".into() } else { all.join(", ") }
}

/// One change after the other at the wanted rate; the time of each, and the rate that was reached.
fn change(client: &mut Client) -> Result<(Histogram<u64>, f64), String> {
    let mut times = no_times()?;
    let pause = Duration::from_nanos(1_000_000_000 / CHANGES_A_SECOND);
    let (start, mut n) = (Instant::now(), 0u32);
    while start.elapsed() < DURATION {
        let request = nth(n as usize)?;
        std::thread::sleep((start + pause * n).saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        ask(client, &request)?;
        times.saturating_record(asked.elapsed().as_nanos() as u64);
        n += 1;
    }
    Ok((times, f64::from(n) / start.elapsed().as_secs_f64()))
}

fn ask(client: &mut Client, request: &Request) -> Result<(), String> {
    client.call::<Done>(request).map(drop).map_err(|error| format!("{request:?}: {error}"))
}

fn name(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn memory(port: &str, bridge: &str, seed: u64) -> Result<Port, String> {
    let source = MemorySource { flows: 2, frame_len: 60, seed, rate_pps: RATE_PPS, reverse: false };
    Ok(Port::new(name(port)?, name(bridge)?, PortKind::Memory { source: Some(source) }))
}

/// The changes: a bridge, a port on it and a station behind that come, are set, and go, round by round; between them settings of
/// ports that stay.
fn nth(n: usize) -> Result<Request, String> {
    let (round, kind) = (n / KINDS, n % KINDS);
    let bridge = || name("new");
    let stays = || name(&format!("m{}", usize::from(PODS) + round % (PORTS - 1 - usize::from(PODS))));
    let mac = Mac([2, 0, 0, 9, (round >> 8) as u8, round as u8]);
    Ok(match kind {
        0 => Request::BridgeAdd(Bridge::new(bridge()?)),
        1 => Request::PortAdd(Box::new(memory("new", "new", 1)?)),
        2 => Request::FdbAdd(StaticMac {
            mac,
            bridge: bridge()?,
            vid: Vid::DEFAULT,
            port: name("new")?,
            dst: None,
            owner: Default::default(),
        }),
        3 => Request::BridgeSet(Bridge { ageing_s: 60 + (round % 100) as u32, ..Bridge::new(bridge()?) }),
        4 => {
            let settings = PortSettings { isolated: round.is_multiple_of(2), ..PortSettings::default() };
            Request::PortSet(PortSet { name: stays()?, settings })
        }
        5 => Request::FdbDelete(FdbDelete { mac, bridge: bridge()?, vid: Vid::DEFAULT }),
        6 => Request::PortDelete(ByName { name: name("new")? }),
        _ => Request::BridgeDelete(ByName { name: bridge()? }),
    })
}
