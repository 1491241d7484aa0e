//! Changes of peers while they forward, by the programs that a user changes them with: routes, members of sets, ports, each kind by a thread
//! of its own.

use super::changes::Finish;
use super::churn::{PORTS_A_SECOND, ROUTES_A_SECOND};
use crate::peers::ovs;
use crate::rules;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use switch_lab::Node;

/// Routes of one batch, and blocks of one change of a set.
const TOGETHER: u32 = 1_000;

/// Command lines that change a peer, each beside the one that undoes it: of routes, of a set, of ports.
#[derive(Debug)]
pub struct PeerChurn([[String; 2]; 3]);

/// The nth of the blocks that no packet comes from.
fn block(n: u32) -> String {
    format!("172.{}.{}.0/24", 16 + (n >> 8), n & 0xff)
}

/// The nth of the networks that no packet goes to.
fn net(n: u32) -> String {
    format!("12.{}.{}.0/24", n >> 8, n & 0xff)
}

fn write(directory: &Path, name: &str, text: String) -> Result<PathBuf, String> {
    let path = directory.join(name);
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// One line for each of [`TOGETHER`].
fn lines(line: impl Fn(u32) -> String) -> String {
    (0..TOGETHER).map(|n| line(n) + "\n").collect()
}

impl PeerChurn {
    /// Of the kernel's routes, of the set of its firewall, and of its devices.
    pub fn of_kernel(node: &Node) -> Result<Self, String> {
        let directory = node.directory();
        let inside = |line: String| format!("nsenter --net={} {line}", node.net.path());
        let routes = [
            lines(|n| format!("route add {} via 10.202.0.2", net(n))),
            lines(|n| format!("route del {}", net(n))),
        ];
        let blocks: Vec<String> = (0..TOGETHER).map(block).collect();
        let of_set = |verb: &str| format!("{verb} element inet peers from {{ {} }}\n", blocks.join(", "));
        let [[add_routes, delete_routes], [add_set, delete_set]] =
            files(directory, [routes, ["add", "delete"].map(of_set)])?;
        Ok(Self([
            [add_routes, delete_routes].map(|path| inside(format!("ip -batch {}", path.display()))),
            [add_set, delete_set].map(|path| inside(format!("nft -f {}", path.display()))),
            ["ip link add spare type veth peer name spare2", "ip link del spare"]
                .map(|line| inside(line.into())),
        ]))
    }

    /// Of Open vSwitch's rules by destination, of those that its connection tracker's first packets are held against, and of its ports.
    pub fn of_ovs(ovs: &ovs::Between) -> Result<Self, String> {
        let route = |n| format!("priority=5,ip,nw_dst={}", net(n));
        let of_set = |n| {
            let port = rules::PORT;
            format!("table=1,priority=10,ct_state=+trk+new,udp,nw_src={},tp_dst={port}", block(n))
        };
        let both = |one: &dyn Fn(u32) -> String| {
            [
                lines(|n| format!("add {},actions=output:2", one(n))),
                lines(|n| format!("delete_strict {}", one(n))),
            ]
        };
        let [routes, sets] = files(ovs.directory(), [both(&route), both(&of_set)])?;
        Ok(Self([
            routes.map(|path| ovs.rules_line(&path)),
            sets.map(|path| ovs.rules_line(&path)),
            ["add-port br0 spare -- set interface spare type=internal", "del-port br0 spare"]
                .map(|words| ovs.database_line(words)),
        ]))
    }

    /// Begins.
    pub fn start(self) -> Result<Finish, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let a_second = [ROUTES_A_SECOND / TOGETHER, ROUTES_A_SECOND / TOGETHER, PORTS_A_SECOND];
        let each = [TOGETHER, TOGETHER, 1];
        let started = Instant::now();
        let mut threads = Vec::new();
        for (lines, a_second) in self.0.into_iter().zip(a_second) {
            let stop = stop.clone();
            threads.push(std::thread::spawn(move || paced(&lines, a_second, &stop)));
        }
        Ok(Box::new(move || {
            stop.store(true, Relaxed);
            let mut rates = [0.0; 3];
            for ((rate, thread), each) in rates.iter_mut().zip(threads).zip(each) {
                let count = thread.join().map_err(|_| "a changing thread panicked")??;
                *rate = count as f64 * f64::from(each);
            }
            let seconds = started.elapsed().as_secs_f64();
            Ok(rates.map(|count| count / seconds))
        }))
    }
}

/// Files with what adds and what takes away routes, and members of a set.
fn files(directory: &Path, texts: [[String; 2]; 2]) -> Result<[[PathBuf; 2]; 2], String> {
    let [[add_routes, delete_routes], [add_set, delete_set]] = texts;
    Ok([
        [write(directory, "routes-add", add_routes)?, write(directory, "routes-delete", delete_routes)?],
        [write(directory, "set-add", add_set)?, write(directory, "set-delete", delete_set)?],
    ])
}

/// Runs one command line and the one that undoes it in turn, at a rate; how many.
fn paced(lines: &[String; 2], a_second: u32, stop: &AtomicBool) -> Result<u64, String> {
    let (start, pause, mut n) = (Instant::now(), Duration::from_secs(1) / a_second, 0u32);
    while !stop.load(Relaxed) || n % 2 == 1 {
        std::thread::sleep((start + pause * n).saturating_duration_since(Instant::now()));
        let line = &lines[n as usize % 2];
        let mut words = line.split_whitespace();
        let mut command = std::process::Command::new(words.next().unwrap_or_default());
        let output = command.args(words).output().map_err(|error| format!("{line}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        n += 1;
    }
    Ok(u64::from(n))
}
