//! What is lost while a device is changed: the switch, and the kernel's routing with nftables, under the same steady flood, with and without
//! changes in turn. Routes, sets and ports change at once, each at a rate of its own.

use super::churn::{Churn, PORTS_A_SECOND, ROUTES_A_SECOND, spare_pod};
use super::result::Change;
use super::rig::Rig;
use super::task::{Task, Traffic};
use super::{device, linux, switch};
use crate::cycles::median;
use crate::figures::Bench;
use crate::flood::Load;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use switch_lab::Node;

const TASK: Task = Task::Police(1_000);
/// Packets a second: far below what any of them carries.
pub const RATE_PPS: u64 = 100_000;
const WINDOW: Duration = Duration::from_secs(2);
/// Routes of one batch for the kernel, and blocks of one change of its set.
const TOGETHER: u32 = 1_000;

/// Measures both.
pub fn run(bench: &Bench, rounds: usize, say: impl Fn(&str)) -> Vec<Result<Change, String>> {
    say("changes: the switch");
    let ours = switch::xdp(bench, TASK).and_then(|rig| {
        let spares = Node::new();
        one(device::SWITCH, &rig, rounds, || {
            let churn = Churn::start(&rig, spare_pod(&spares))?;
            Ok(Box::new(move || churn.finish().map(|rates| [rates.routes, rates.sets, rates.ports])))
        })
    });
    say("changes: nftables");
    let theirs = linux::own_core(bench, TASK).and_then(|rig| {
        let node = rig.between.downcast_ref::<Node>().ok_or("no node")?;
        one("nftables", &rig, rounds, || KernelChurn::start(node))
    });
    vec![ours, theirs]
}

/// Ends changes, and says how many routes, blocks and ports a second there were.
type Finish = Box<dyn FnOnce() -> Result<[f64; 3], String>>;

fn one(
    name: &str,
    rig: &Rig,
    rounds: usize,
    begin: impl Fn() -> Result<Finish, String>,
) -> Result<Change, String> {
    let load = Load { rate_pps: RATE_PPS, rests: true, ..Traffic::MAIN.load(rig.gateway, WINDOW) };
    let mut path = rig.path()?;
    // So that flows and neighbours are known.
    path.run(load)?;
    let (mut lost, mut quiet, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        quiet.push(path.run(load)?.made_at(RATE_PPS as f64)?.lost as f64);
        let finish = begin()?;
        let flooded = path.run(load);
        rates.push(finish()?);
        lost.push(flooded?.made_at(RATE_PPS as f64)?.lost as f64);
    }
    let middle = |n: usize| median(rates.iter().map(|rate| rate[n]).collect());
    let what = format!("{:.0} routes, {:.0} blocks of sets, {:.0} ports", middle(0), middle(1), middle(2));
    Ok(Change { device: name.into(), what, lost, quiet, rate_pps: RATE_PPS as f64 })
}

/// Changes of the kernel's routes, of its set, and of its devices.
struct KernelChurn;

impl KernelChurn {
    fn start(node: &Node) -> Result<Finish, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let write = |name: &str, text: String| -> Result<PathBuf, String> {
            let path = node.directory().join(name);
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(path)
        };
        let route = |n: u32, verb: &str| match verb {
            "add" => format!("route add 12.{}.{}.0/24 via 10.202.0.2\n", n >> 8, n & 0xff),
            _ => format!("route del 12.{}.{}.0/24\n", n >> 8, n & 0xff),
        };
        let block = |n: u32| format!("172.{}.{}.0/24", 16 + (n >> 8), n & 0xff);
        let mut files = Vec::new();
        for verb in ["add", "delete"] {
            let routes: String = (0..TOGETHER).map(|n| route(n, verb)).collect();
            let blocks: Vec<String> = (0..TOGETHER).map(block).collect();
            files.push((
                write(&format!("routes-{verb}"), routes)?,
                write(
                    &format!("set-{verb}"),
                    format!("{verb} element inet peers from {{ {} }}\n", blocks.join(", ")),
                )?,
            ));
        }
        let [(add_routes, add_set), (delete_routes, delete_set)] = &files[..] else {
            return Err("no files".into());
        };
        let line = |program: &str, path: &PathBuf| format!("{program} {}", path.display());
        let routes = [line("ip -batch", add_routes), line("ip -batch", delete_routes)];
        let sets = [line("nft -f", add_set), line("nft -f", delete_set)];
        let ports =
            ["ip link add spare type veth peer name spare2".to_owned(), "ip link del spare".to_owned()];
        let a_second = ROUTES_A_SECOND / TOGETHER;
        let started = Instant::now();
        let kinds = [(routes, a_second), (sets, a_second), (ports, PORTS_A_SECOND)];
        let threads = kinds.map(|(lines, a_second)| {
            let (net, stop) = (node.net.path(), stop.clone());
            std::thread::spawn(move || paced(&net, &lines, a_second, &stop))
        });
        Ok(Box::new(move || {
            stop.store(true, Relaxed);
            let mut rates = [0.0; 3];
            for (rate, thread) in rates.iter_mut().zip(threads) {
                *rate = thread.join().map_err(|_| "a changing thread panicked")?? as f64;
            }
            let seconds = started.elapsed().as_secs_f64();
            Ok([rates[0] * f64::from(TOGETHER), rates[1] * f64::from(TOGETHER), rates[2]]
                .map(|count| count / seconds))
        }))
    }
}

/// Runs one command line and the one that undoes it in turn, at a rate; how many.
fn paced(net: &str, lines: &[String; 2], a_second: u32, stop: &AtomicBool) -> Result<u64, String> {
    let (start, pause, mut n) = (Instant::now(), Duration::from_secs(1) / a_second, 0u32);
    while !stop.load(Relaxed) || n % 2 == 1 {
        std::thread::sleep((start + pause * n).saturating_duration_since(Instant::now()));
        let line = &lines[n as usize % 2];
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net={net}")).args(line.split_whitespace());
        let output = command.output().map_err(|error| format!("{line}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        n += 1;
    }
    Ok(u64::from(n))
}
