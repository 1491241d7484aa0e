//! [cni-kill] The plugin, and the daemon, are killed at every step of ADD and of DEL; after garbage collection nothing is leaked, and
//! who lives is not harmed.
//!
//! The steps are numbered by what passes between the two: a relay in between counts requests and answers, and kills before it hands on
//! the one that is its turn. Before a request nothing of the step is done, before an answer all of it is and the plugin does not know.
//! The daemon is killed within each step as well, at several moments after it was asked: somewhere in a transaction, or over a device.

use super::{Bench, Figure, Held};
use crate::containers::{self, Runtime};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::time::{Duration, Instant};
use switch_api::PortSettings;
use switch_lab::{Daemon, Net, Node, Options, wait_until};

const LONG: Duration = Duration::from_secs(10);
/// No verb asks so much: one that never ends a round would be a defect of ours.
const STEPS_MAX: usize = 100;
/// When the daemon is killed within a step, in microseconds after it was asked. The longest step, a port that is added, takes some
/// milliseconds with a TAP and some twenty with a veth pair.
const MOMENTS_US: [u64; 8] = [150, 400, 1_000, 2_000, 4_000, 7_000, 12_000, 20_000];
/// How long the relay waits for the next thing to do.
const LOOK: Duration = Duration::from_millis(5);

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("leaks", 0.0);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let (mut leaks, mut told) = (Vec::new(), Vec::new());
    for driver in ["tap", "xdp"] {
        let mut scene = Scene::new(bench, driver)?;
        for (verb, is_daemon) in [("ADD", false), ("ADD", true), ("DEL", false), ("DEL", true)] {
            let steps = scene.kill_at_every_step(verb, is_daemon, None, &mut leaks)?;
            let mut within = 0;
            for moment in MOMENTS_US.iter().filter(|_| is_daemon) {
                let after = Some(Duration::from_micros(*moment));
                within += scene.kill_at_every_step(verb, true, after, &mut leaks)?;
            }
            told.push(match is_daemon {
                true => {
                    format!("{driver} {verb}, daemon killed: {steps} steps, and {within} times within one")
                }
                false => format!("{driver} {verb}, plugin killed: {steps} steps"),
            });
        }
        scene.daemon.assert_conserved();
    }
    let detail = format!(
        "{}; leaked or harmed: {}",
        told.join("; "),
        if leaks.is_empty() { "nothing".into() } else { leaks.join("; ") }
    );
    Ok(Figure::new("cni-kill", leaks.len() as f64, HELD, detail))
}

/// A node with two containers that live.
struct Scene {
    options: Options,
    runtime: Runtime,
    alive: [Net; 2],
    address: String,
    devices: Vec<String>,
    daemon: Daemon,
    // Dropped after the daemon.
    node: Node,
}

impl Scene {
    fn new(bench: &Bench, driver: &str) -> Result<Self, String> {
        let node = Node::new();
        let options = Options::new(&bench.switchd).keeping_state();
        let daemon = node.start(&options);
        daemon.bridge("br0");
        containers::host_port(&daemon, PortSettings::default())?;
        let runtime =
            Runtime::new(bench, &node, &daemon, &format!(r#""driver":"{driver}","timeoutSeconds":5,"#));
        let alive = ["alive", "other"].map(Net::new);
        let address = runtime.add(&alive[0])?;
        runtime.add(&alive[1])?;
        let devices = containers::devices(&node.net)?;
        Ok(Self { options, runtime, alive, address, devices, daemon, node })
    }

    /// Kills at the first step, at the second, and so on until a round ends before its turn comes; how many steps there were. `after`: so
    /// long after each that is a request was handed on, instead of before.
    fn kill_at_every_step(
        &mut self,
        verb: &str,
        is_daemon: bool,
        after: Option<Duration>,
        leaks: &mut Vec<String>,
    ) -> Result<usize, String> {
        // Every second one is a request.
        let each = if after.is_some() { 2 } else { 1 };
        for (count, step) in (1..STEPS_MAX).step_by(each).enumerate() {
            let pod = Net::new("victim");
            if verb == "DEL" {
                self.runtime.add(&pod)?;
            }
            let turn = Turn { step, after };
            let was_killed = self.kill_at(turn, verb, is_daemon, &pod, leaks)?;
            if !was_killed {
                self.runtime.run("DEL", &pod)?;
            }
            let [alive, other] = &self.alive;
            self.runtime.collect(&[alive, other])?;
            let who = if is_daemon { "daemon" } else { "plugin" };
            let found = self.look(&pod)?;
            let late = after.map_or_else(String::new, |after| format!(", {after:?} after it"));
            leaks.extend(
                found.into_iter().map(|what| format!("{who} killed at step {step}{late} of {verb}: {what}")),
            );
            if !was_killed {
                return Ok(count);
            }
        }
        Err(format!("{verb} takes more than {STEPS_MAX} steps"))
    }

    /// Whether it came to that.
    fn kill_at(
        &mut self,
        turn: Turn,
        verb: &str,
        is_daemon: bool,
        pod: &Net,
        leaks: &mut Vec<String>,
    ) -> Result<bool, String> {
        let victim = Arc::new(AtomicI32::new(if is_daemon { self.daemon.pid() as i32 } else { 0 }));
        let relay = Relay::start(self.node.directory(), &self.daemon.socket, turn, victim.clone())?;
        let runtime = self.runtime.by(&self.daemon, &relay.path);
        let child = runtime.begin(verb, pod)?;
        if !is_daemon {
            victim.store(child.id() as i32, SeqCst);
        }
        let said = runtime.finish(verb, child);
        let was_killed = relay.end();
        if is_daemon && was_killed {
            self.daemon.kill();
            self.daemon = self.node.start(&self.options);
            if let (Err(error), "DEL") = (&said, verb) {
                leaks.push(format!("DEL failed: {error}"));
            }
        }
        match said {
            Err(error) if !was_killed => Err(error),
            _ => Ok(was_killed),
        }
    }

    /// What is there and should not be, or the other way round.
    fn look(&self, pod: &Net) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let (ports, leases) = containers::count(&self.daemon);
        if (ports, leases) != (2, 2) {
            found.push(format!("{ports} ports and {leases} leases instead of 2"));
        }
        let left = containers::devices(pod)?;
        let nodes = containers::devices(&self.node.net)?;
        let more = nodes.iter().filter(|device| !self.devices.contains(device));
        found.extend(left.iter().chain(more).map(|device| format!("the device {device} is left")));
        let ping = format!("ping -n -c 1 -W 1 {}", self.address);
        let start = Instant::now();
        while !self.alive[1].try_run(&ping).status.success() {
            if start.elapsed() > LONG {
                found.push("who lives is not reached any more".into());
                break;
            }
        }
        Ok(found)
    }
}

/// When to kill.
#[derive(Clone, Copy)]
struct Turn {
    /// At which message, counted from 1.
    step: usize,
    /// How long after it was handed on; none: before.
    after: Option<Duration>,
}

/// What stands between the plugin and the daemon.
struct Relay {
    path: PathBuf,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<bool>,
}

impl Relay {
    fn start(directory: &Path, to: &Path, turn: Turn, victim: Arc<AtomicI32>) -> Result<Self, String> {
        let path = directory.join("relay.sock");
        _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(|error| error.to_string())?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        let (over, to) = (Arc::new(AtomicBool::new(false)), to.to_owned());
        let end = over.clone();
        let thread = std::thread::spawn(move || {
            let mut steps = Steps { left: turn.step, after: turn.after, victim, was_killed: false };
            while !end.load(SeqCst) {
                match listener.accept() {
                    // Whoever hangs up has done so for good.
                    Ok((client, _)) => _ = steps.relay(&client, &to),
                    Err(_) => std::thread::sleep(LOOK),
                }
            }
            steps.was_killed
        });
        Ok(Self { path, over, thread })
    }

    /// Whether it killed.
    fn end(self) -> bool {
        self.over.store(true, SeqCst);
        self.thread.join().unwrap_or(false)
    }
}

struct Steps {
    left: usize,
    after: Option<Duration>,
    victim: Arc<AtomicI32>,
    was_killed: bool,
}

impl Steps {
    /// Hands requests and answers on, each a line, until one of the two hangs up.
    fn relay(&mut self, client: &UnixStream, to: &Path) -> std::io::Result<()> {
        client.set_nonblocking(false)?;
        let daemon = UnixStream::connect(to)?;
        let (mut from_client, mut from_daemon) = (BufReader::new(client), BufReader::new(&daemon));
        loop {
            self.hand_on(&mut from_client, &daemon)?;
            self.hand_on(&mut from_daemon, client)?;
        }
    }

    fn hand_on(&mut self, from: &mut impl BufRead, mut to: &UnixStream) -> std::io::Result<()> {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if !self.was_killed {
            self.left -= 1;
            if self.left == 0 {
                if let Some(after) = self.after {
                    to.write_all(&line)?;
                    std::thread::sleep(after);
                }
                self.kill();
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
        }
        to.write_all(&line)
    }

    fn kill(&mut self) {
        wait_until("the victim is known", LONG, || self.victim.load(SeqCst) != 0);
        let pid = Pid::from_raw(self.victim.load(SeqCst));
        self.was_killed = pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
    }
}
