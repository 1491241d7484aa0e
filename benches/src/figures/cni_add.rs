//! [cni-add] A container is attached before its runtime notices.

use super::{Bar, Bench, Figure};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use switch_api::{LeaseFilter, LeaseStatus, Owner, PortStatus, Request};
use switch_lab::{Daemon, Net, Node, Options};

/// Pods that are there already.
const PRESENT: usize = 100;
/// ADDs that are timed, one after another.
const TIMED: usize = 100;
/// ADDs that follow eight at a time.
const AT_ONCE: usize = 200;
const RUNTIMES: usize = 8;
const BAR_MS: f64 = 15.0;
const P99_MS_MAX: f64 = 50.0;

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let plugin = bench.switchd.with_file_name("switch-cni");
    let node = Node::new();
    let options = Options::new(&bench.switchd).with("--frames 8192").keeping_state();
    let daemon = node.start(&options);
    // With a way out, by which each of them is masqueraded, as on a node.
    daemon.bridge("br0");
    daemon.attach_host(1, "br0");
    let conf = format!(
        r#"{{"cniVersion":"1.0.0","name":"pods","type":"switch-cni","bridge":"br0","socket":"{}","stateDir":"{}",
            "ipam":{{"type":"switch-cni","pool":"pods","ranges":[{{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"}},
            {{"subnet":"fd88::/64","gateway":"fd88::1"}}]}}}}"#,
        daemon.socket.display(),
        node.directory().join("pending").display(),
    );
    let pods = (0..PRESENT + TIMED).map(|n| Net::new(&format!("t{n}"))).collect::<Vec<_>>();
    let mut times = Vec::new();
    for (n, pod) in pods.iter().enumerate() {
        let start = Instant::now();
        run(&plugin, "ADD", pod, &conf)?;
        if n >= PRESENT {
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let attached = count(&daemon).0;
    let many = (0..AT_ONCE).map(|n| Net::new(&format!("m{n}"))).collect::<Vec<_>>();
    let (start, failed) = (Instant::now(), all_at_once(&plugin, "ADD", &many, &conf));
    let rate = AT_ONCE as f64 / start.elapsed().as_secs_f64();
    let detached = all_at_once(&plugin, "DEL", &many, &conf) + all_at_once(&plugin, "DEL", &pods, &conf);
    let left = count(&daemon);
    daemon.assert_conserved();
    let detail = format!(
        "ADD with {PRESENT} to {} tap pods present, dual stack, masqueraded, process and both synced writes included: p99 {p99:.1} ms \
         (bar {P99_MS_MAX}); then {AT_ONCE} ADDs, {RUNTIMES} at a time: {failed} failed, {rate:.0} a second; after \
         DEL of all {detached} failed, {} ports and {} leases are left",
        PRESENT + TIMED,
        left.0,
        left.1
    );
    let figure = Figure::new("cni-add", p50, "ms (p50)", Bar::AtMost, BAR_MS, detail);
    let clean = failed + detached + left.0 + left.1 == 0 && attached == PRESENT + TIMED;
    Ok(figure.only_if(p99 <= P99_MS_MAX && clean))
}

/// Containers' ports, and leases.
fn count(daemon: &Daemon) -> (usize, usize) {
    let ports: Vec<PortStatus> = daemon.call(&Request::PortList(Default::default()));
    let leases: Vec<LeaseStatus> = daemon.call(&Request::LeaseList(LeaseFilter::default()));
    (ports.iter().filter(|port| port.port.owner == Owner::Cni).count(), leases.len())
}

/// Several runtimes at once; how many calls failed.
fn all_at_once(plugin: &Path, verb: &str, pods: &[Net], conf: &str) -> usize {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..RUNTIMES {
            scope.spawn(|| {
                while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = run(plugin, verb, pod, conf) {
                        eprintln!("{error}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    failed.load(Ordering::Relaxed)
}

fn run(plugin: &Path, verb: &str, pod: &Net, conf: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", plugin.display());
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", pod.name())
        .env("CNI_NETNS", pod.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/usr/lib/cni")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(conf.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{verb}: {}", String::from_utf8_lossy(&output.stdout))),
    }
}
