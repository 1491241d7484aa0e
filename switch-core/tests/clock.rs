//! The time of day is set while the daemon runs: years on, back to 1970, and back again. `cargo xtask zerocopy` boots an emulated machine and runs this file
//! in it, for there is no clock of the day but the machine's: elsewhere it refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use std::path::Path;
use std::time::{Duration, Instant};
use switch_api::{
    Bridge, Config, ConfigApplied, ConfigApply, ConfigExport, Done, HistoryEntry, Holder, Lease,
    LeaseAcquire, LeaseFilter, LeaseStatus, Owner, Pool, PoolRange, PortSettings, Released, Request,
};
use switch_lab::session::Session;
use switch_lab::{Daemon, Node, Options, wait_until};

/// An emulated processor is some thirty times slower than this one.
const EMULATED: Duration = Duration::from_secs(60);
/// What a change waits for to be confirmed: long enough that no emulation is so slow, and far less than the clock is set by.
const WITHIN_S: u32 = 3_600;
/// And one that is waited for.
const SOON_S: u32 = 12;
/// In the year 2100, and in the first days of 1970: the kernel takes no time that is less than it has run.
const TIMES_S: [i64; 3] = [4_102_444_800, 1_000_000, 2_000_000_000];

/// Sets the machine's clock, which must be the emulated one's.
fn set(day_s: i64) {
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap();
    let is_emulated = command_line.contains("console=ttyS0 quiet panic=-1") && Path::new("/init").is_file();
    assert!(is_emulated, "this runs in the machine that `cargo xtask zerocopy` boots");
    clock_settime(ClockId::Realtime, Timespec { tv_sec: day_s, tv_nsec: 0 }).unwrap();
    let now_s = clock_gettime(ClockId::Realtime).tv_sec;
    assert!((day_s..day_s + 5).contains(&now_s), "{now_s} is not {day_s}");
}

fn holder(container: &str) -> Holder {
    Holder { network: "pods".into(), container: container.into(), interface: "eth0".into() }
}

fn acquire(daemon: &Daemon, container: &str) -> Lease {
    let pool = "pods".parse().unwrap();
    daemon.call(&Request::LeaseAcquire(LeaseAcquire {
        pool,
        holder: holder(container),
        addresses: Vec::new(),
        with_port: false,
    }))
}

/// One more bridge, unless somebody confirms it.
fn apply(daemon: &Daemon, bridge: &str, within_s: u32) {
    let mut config: Config = daemon.call(&Request::ConfigExport(ConfigExport::default()));
    config.bridge.push(Bridge::new(bridge.parse().unwrap()));
    let apply = ConfigApply { config, confirm_within_s: Some(within_s), ..ConfigApply::default() };
    let _: ConfigApplied = daemon.call(&Request::ConfigApply(Box::new(apply)));
}

/// Seconds left to confirm what waits.
fn left_s(daemon: &Daemon) -> Option<u64> {
    let history: Vec<HistoryEntry> = daemon.call(&Request::ConfigHistory(Default::default()));
    history.iter().find_map(|entry| entry.confirm_within_s)
}

#[test]
fn whoever_sets_the_time_of_day_makes_nothing_earlier_or_later() {
    set(clock_gettime(ClockId::Realtime).tv_sec);
    let node = Node::new();
    let options = Options::new(env!("CARGO_BIN_EXE_switchd")).keeping_state();
    let mut daemon = node.start(&options);
    daemon.bridge("br0");
    let pods = [1, 2].map(|n| node.bare_pod(n));
    pods.iter().for_each(|pod| daemon.attach_tap(pod, "br0", PortSettings::default()));
    wait_until("they reach each other", EMULATED, || pods[0].reaches(&pods[1].ip));
    let mut session = Session::open(&pods[0].net, &pods[1].net, pods[1].ip.parse().unwrap(), EMULATED);
    let range = PoolRange::of("10.88.0.0/28".parse().unwrap());
    let pool = Pool { name: "pods".parse().unwrap(), ranges: vec![range], owner: Owner::Operator };
    let _: Done = daemon.call(&Request::PoolAdd(pool));
    let kept = acquire(&daemon, "kept");
    apply(&daemon, "waits", WITHIN_S);
    let begun = Instant::now();
    let waits = |daemon: &Daemon, when: &str| {
        let (left, gone) = (left_s(daemon), begun.elapsed().as_secs());
        let due = u64::from(WITHIN_S) - gone;
        assert!(
            left.is_some_and(|left| left.abs_diff(due) < 15),
            "{when}: {left:?} s are left, {due} are due"
        );
    };
    for day_s in TIMES_S {
        let released = acquire(&daemon, "goes");
        let _: Released = daemon.call(&Request::LeaseRelease(LeaseFilter::of(&holder("goes"))));
        set(day_s);
        let when = format!("the clock was set to {day_s}");
        waits(&daemon, &when);
        session.types(&when);
        assert!(pods[1].reaches(&pods[0].ip), "{when}");
        assert_ne!(
            acquire(&daemon, "goes").addresses,
            released.addresses,
            "{when}: it was released a moment ago"
        );
        assert_eq!(acquire(&daemon, "kept").addresses, kept.addresses, "{when}");
        let leases: Vec<LeaseStatus> = daemon.call(&Request::LeaseList(LeaseFilter::default()));
        assert_eq!((leases.len(), leases.iter().any(|lease| lease.earlier_boot)), (2, false), "{when}");
        let _: Released = daemon.call(&Request::LeaseRelease(LeaseFilter::of(&holder("goes"))));
    }
    // And over a daemon that was not there meanwhile.
    for day_s in TIMES_S.into_iter().take(2) {
        daemon.kill();
        set(day_s);
        daemon = node.start(&options);
        let when = format!("the clock was set to {day_s} while no daemon ran");
        waits(&daemon, &when);
        session.types(&when);
        assert_eq!(acquire(&daemon, "kept").addresses, kept.addresses, "{when}");
    }
    let _: serde_json::Value = daemon.call(&Request::ConfigConfirm(Default::default()));
    // What is over is over when it is due, though the clock was set back.
    apply(&daemon, "soon", SOON_S);
    let begun = Instant::now();
    set(TIMES_S[1]);
    wait_until("nobody confirmed it", EMULATED, || left_s(&daemon).is_none());
    let took = begun.elapsed();
    assert!(took + Duration::from_secs(2) > Duration::from_secs(SOON_S.into()), "{took:?}");
    daemon.assert_conserved();
}
