//! The daemon as a service: what it tells its supervisor. The test plays systemd: it listens where `NOTIFY_SOCKET`
//! says (sd_notify(3)).

use rustix::process::{Pid, Signal, kill_process};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use switch_api::{PortSettings, PortState, PortStatus, Request};
use switch_lab::trouble::Hung;
use switch_lab::{Daemon, Node, Options};

const LONG: Duration = Duration::from_secs(60);
/// The watchdog's limit in these tests, in microseconds as systemd hands it over.
const WATCHDOG_US: u64 = 1_000_000;
/// Longer than that limit: who says nothing for so long would be killed and started anew.
const SILENCE: Duration = Duration::from_millis(1_500);

/// systemd's end.
struct Supervisor {
    socket: UnixDatagram,
    name: String,
}

impl Supervisor {
    fn new(node: &Node) -> Self {
        let path = node.directory().join("notify");
        Self { socket: UnixDatagram::bind(&path).unwrap(), name: path.display().to_string() }
    }

    fn options(&self) -> Options {
        let environment = format!("env NOTIFY_SOCKET={} WATCHDOG_USEC={WATCHDOG_US}", self.name);
        Options::new(env!("CARGO_BIN_EXE_switchd")).keeping_state().through(&environment)
    }

    /// The next message within `limit`.
    fn hear(&self, limit: Duration) -> Option<String> {
        let mut message = [0; 4096];
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let len = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..len].to_vec()).unwrap())
    }

    /// The first message that has `word`; an error of the test if it does not come.
    fn await_word(&self, word: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            match self.hear(Duration::from_millis(100)) {
                Some(message) if message.contains(word) => return message,
                _ => assert!(Instant::now() < deadline, "{word} was not said"),
            }
        }
    }

    fn forget(&self) {
        while self.hear(Duration::from_millis(1)).is_some() {}
    }

    /// Whether nobody says for longer than the watchdog's limit that he lives.
    fn misses_the_watchdog(&self) -> bool {
        let end = Instant::now() + SILENCE;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.hear(left).is_some_and(|message| message.contains("WATCHDOG=1")) {
                return false;
            }
        }
        true
    }
}

fn states(daemon: &Daemon) -> Vec<(String, PortState)> {
    let ports: Vec<PortStatus> = daemon.call(&Request::PortList(Default::default()));
    ports.into_iter().map(|status| (status.port.name.to_string(), status.state)).collect()
}

#[test]
fn ready_is_said_once_every_declared_port_is_up_or_named() {
    let node = Node::new();
    let supervisor = Supervisor::new(&node);
    let mut daemon = node.start(&supervisor.options());
    assert_eq!(supervisor.await_word("READY=1"), "READY=1\nSTATUS=0 of 0 ports up\nWATCHDOG=1\n");
    daemon.bridge("br0");
    let (stays, goes) = (node.bare_pod(1), node.bare_pod(2));
    for pod in [&stays, &goes] {
        daemon.attach_tap(pod, "br0", PortSettings::default());
    }
    supervisor.await_word("STATUS=2 of 2 ports up\n");
    daemon.stop(false);
    supervisor.await_word("STOPPING=1");
    drop(goes);

    let daemon = node.start(&supervisor.options());
    let said = supervisor.await_word("READY=1");
    assert!(said.contains("STATUS=1 of 2 ports up; tap2: the namespace /run/netns/"), "{said}");
    let down = PortState::Down;
    assert!(matches!(&states(&daemon)[..], [(_, PortState::Up), (_, state)] if *state == down), "{said}");
}

#[test]
fn a_stopped_process_misses_its_watchdog_and_so_does_one_with_a_worker_that_hangs() {
    let node = Node::new();
    let supervisor = Supervisor::new(&node);
    let daemon = node.start(&supervisor.options());
    supervisor.await_word("READY=1");
    supervisor.await_word("WATCHDOG=1");

    daemon.signal(Signal::STOP);
    supervisor.forget();
    assert!(supervisor.misses_the_watchdog(), "a stopped process says that it lives");
    daemon.signal(Signal::CONT);
    supervisor.await_word("WATCHDOG=1");

    let hung = Hung::thread(daemon.pid(), "worker-0").unwrap();
    supervisor.await_word("STATUS=worker 0 has not turned");
    assert!(supervisor.misses_the_watchdog(), "the control thread lives, a worker does not");
    drop(hung);
    supervisor.await_word("STATUS=0 of 0 ports up");
    supervisor.await_word("WATCHDOG=1");
}

/// Processes whose parent is this one.
fn children(parent: u32) -> Vec<Pid> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // "PID (NAME) STATE PPID ...": a name may have brackets in it.
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        fields.split(' ').nth(1).is_some_and(|ppid| ppid == parent.to_string())
    };
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}

#[test]
fn a_daemon_whose_keeper_is_gone_misses_its_watchdog() {
    let node = Node::new();
    let supervisor = Supervisor::new(&node);
    let daemon = node.start(&supervisor.options());
    supervisor.await_word("WATCHDOG=1");
    let [keeper] = children(daemon.pid())[..] else { panic!("{:?}", children(daemon.pid())) };
    kill_process(keeper, Signal::KILL).unwrap();
    supervisor.await_word("STATUS=the keeper is gone");
    assert!(supervisor.misses_the_watchdog(), "no pod can be attached any more");
}

#[test]
fn a_supervisor_may_have_an_abstract_name_and_one_that_is_not_there_hinders_nobody() {
    let node = Node::new();
    let name = format!("switchd-test-{}", node.net.name());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let supervisor =
        Supervisor { socket: UnixDatagram::bind_addr(&address).unwrap(), name: format!("@{name}") };
    // Abstract names belong to a network namespace, and the daemon lives in another one: it says so and serves.
    let daemon = node.start(&supervisor.options());
    assert!(daemon.log().contains("NOTIFY_SOCKET"), "{}", daemon.log());
    drop(daemon);
    let name = supervisor.name[1..].to_owned();
    let inside =
        node.net.inside(move || UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()));
    let supervisor = Supervisor { socket: inside.join().unwrap().unwrap(), name: supervisor.name };
    let _daemon = node.start(&supervisor.options());
    supervisor.await_word("READY=1");
}

/// Every word of the unit's command line is one that the daemon knows; what systemd itself thinks of the unit is
/// asked where it is installed.
#[test]
fn the_unit_starts_a_daemon_that_understands_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/switchd.service");
    let unit = std::fs::read_to_string(&path).unwrap();
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_switchd")).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let words: Vec<_> = command.split_whitespace().filter(|word| word.starts_with("--")).collect();
    assert!(words.len() >= 3, "{command}");
    for word in words {
        assert!(help.contains(&format!("{word} ")), "{word} is no word of switchd's");
    }

    // The program is not installed where the unit expects it: this one stands in.
    let here = unit.replace("/usr/sbin/switchd", env!("CARGO_BIN_EXE_switchd"));
    let node = Node::new();
    let copy = node.directory().join("switchd.service");
    std::fs::write(&copy, here).unwrap();
    match Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&copy).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let about_us: Vec<_> = said.lines().filter(|line| line.contains("switchd")).collect();
            assert!(about_us.is_empty(), "{said}");
        }
        Err(error) => println!("NOT RUN  systemd-analyze verify: {error}"),
    }
}
