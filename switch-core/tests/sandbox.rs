//! What the daemon has given up. That it has, is seen on every thread of a real daemon; that each thing is refused, is tried by
//! this program itself, started anew and restricted by the very function that restricts the daemon. Everything is tried without
//! the restriction as well: what fails anyway proves nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use switch_api::{Code, Done, Port, PortKind, PortSettings, PortState, Request, Status};
use switch_core::sandbox::{self, Folders, capabilities};
use switch_lab::trouble::{call, executable_memory};
use switch_lab::{Daemon, Node, Options, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// Names what this program is to try, when it is started by [`outcome`].
const DEED: &str = "SWITCH_TEST_DEED";
/// A folder of its own, and who started it.
const OWN: &str = "SWITCH_TEST_OWN";
const PARENT: &str = "SWITCH_TEST_PARENT";
/// Where it may write; without it, it is not restricted.
const FOLDER: &str = "SWITCH_TEST_FOLDER";

fn switchd() -> Options {
    Options::new(env!("CARGO_BIN_EXE_switchd"))
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused(i32),
    Killed(i32),
}

const KILLED: Outcome = Outcome::Killed(libc::SIGSYS);
const EPERM: Outcome = Outcome::Refused(libc::EPERM);
const EACCES: Outcome = Outcome::Refused(libc::EACCES);

/// What is tried, and what becomes of it in the sandbox.
type Deed = (&'static str, fn() -> io::Result<()>, Outcome);

const DEEDS: &[Deed] = &[
    ("write into its own folder", || std::fs::write(own("file"), "here").map(drop), Outcome::Done),
    ("open a TAP device", || File::options().write(true).open("/dev/net/tun").map(drop), Outcome::Done),
    ("read the routes' settings", || File::open("/proc/sys/net/ipv4/ip_forward").map(drop), Outcome::Done),
    (
        "change a device's settings",
        || File::options().write(true).open("/proc/sys/net/ipv4/conf/lo/arp_evict_nocarrier").map(drop),
        Outcome::Done,
    ),
    (
        "start a thread",
        || std::thread::spawn(|| {}).join().map_err(|_| io::Error::other("it panicked")),
        Outcome::Done,
    ),
    ("make a namespace", || call(libc::SYS_unshare, libc::CLONE_NEWNET.into()), Outcome::Done),
    ("read a stranger's file", || File::open("/etc/shadow").map(drop), EACCES),
    ("write elsewhere", || File::create(Path::new("/var/tmp").join(name())).map(drop), EACCES),
    ("read a program", || File::open("/bin/true").map(drop), EACCES),
    ("read a stranger's memory", || File::open(format!("/proc/{}/mem", parent())).map(drop), EACCES),
    (
        "change a sysctl",
        || File::options().write(true).open("/proc/sys/kernel/core_pattern").map(drop),
        EACCES,
    ),
    ("open a disk or memory", || File::open("/dev/kmsg").map(drop), EACCES),
    ("become another program", || Err(Command::new("/bin/true").exec()), KILLED),
    ("start another program", || Command::new("/bin/true").status().map(drop), EPERM),
    ("trace", || call(libc::SYS_ptrace, libc::PTRACE_SEIZE.into()), KILLED),
    ("load a module", || call(libc::SYS_finit_module, -1), KILLED),
    ("mount", || mount(own("")), KILLED),
    ("unmount", || call(libc::SYS_umount2, 0), KILLED),
    ("get rights back", || call(libc::SYS_capset, 0), KILLED),
    ("become another user", || call(libc::SYS_setresuid, 0), KILLED),
    ("start an io_uring", || call(libc::SYS_io_uring_setup, 0), KILLED),
    ("send a stranger a signal", || call(libc::SYS_kill, parent()), EPERM),
    ("enter another kind of namespace", || enter("/proc/self/ns/uts"), EPERM),
    ("make a namespace of users", || call(libc::SYS_unshare, libc::CLONE_NEWUSER.into()), EPERM),
    ("make memory that can be executed", executable_memory, EPERM),
    ("speak TCP", || TcpListener::bind("127.0.0.1:0").map(drop), EPERM),
    ("make a call that is not on the list", || call(libc::SYS_getpgid, 0), EPERM),
];

fn own(file: &str) -> PathBuf {
    Path::new(&std::env::var_os(OWN).unwrap()).join(file)
}

fn name() -> String {
    format!("switch-sandbox-{}", std::process::id())
}

fn parent() -> i64 {
    // Not getppid(2), which is refused as well.
    std::env::var(PARENT).unwrap().parse().unwrap()
}

fn mount(at: PathBuf) -> io::Result<()> {
    use rustix::mount::{MountFlags, UnmountFlags};
    rustix::mount::mount("none", &at, "tmpfs", MountFlags::NOEXEC, None)?;
    Ok(rustix::mount::unmount(at, UnmountFlags::DETACH)?)
}

fn enter(namespace: &str) -> io::Result<()> {
    let file = File::open(namespace)?;
    Ok(rustix::thread::move_into_link_name_space(file.as_fd(), None)?)
}

/// Not a test: what [`outcome`] starts this program for. The error's number is the exit code.
#[test]
fn a_deed() {
    let Ok(wanted) = std::env::var(DEED) else { return };
    if let Some(folder) = std::env::var_os(FOLDER) {
        let given_up = sandbox::enter(&Folders { own: vec![folder.into()], users: false });
        assert!(given_up.ok, "{given_up:?}");
    }
    // On a thread that was started afterwards, as workers are.
    let deed = DEEDS.iter().find(|(name, ..)| *name == wanted).unwrap().1;
    let done = std::thread::spawn(deed).join().unwrap();
    _ = std::fs::remove_file(Path::new("/var/tmp").join(name()));
    std::process::exit(done.err().map_or(0, |error| error.raw_os_error().unwrap_or(255)));
}

/// What becomes of a deed.
fn outcome(deed: &str, own: &Path, is_restricted: bool) -> Outcome {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_deed", "--nocapture"]).env(DEED, deed).env(OWN, own);
    command.env(PARENT, std::process::id().to_string());
    if is_restricted {
        command.env(FOLDER, own);
    }
    let status = command.output().unwrap().status;
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Done,
        (Some(errno), _) => Outcome::Refused(errno),
        (None, signal) => Outcome::Killed(signal.unwrap()),
    }
}

#[test]
fn what_it_must_not_do_it_cannot() {
    let node = Node::new();
    for (deed, _, expected) in DEEDS {
        assert_eq!(outcome(deed, node.directory(), true), *expected, "in the sandbox: {deed}");
        if *expected != Outcome::Done {
            assert_ne!(
                outcome(deed, node.directory(), false),
                *expected,
                "without it, just the same: {deed}"
            );
        }
    }
}

/// A field of a thread's status (proc_pid_status(5)).
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
}

#[test]
fn every_thread_of_a_daemon_is_restricted() {
    let node = Node::new();
    let daemon = node.start(&switchd().with("--cores 0,1"));
    daemon.bridge("br0");
    let pods = [node.bare_pod(1), node.bare_pod(2)];
    for pod in &pods {
        daemon.attach_tap(pod, "br0", PortSettings::default());
    }
    wait_until("pods reach each other", LONG, || pods[0].reaches("10.66.0.2"));
    let mut names = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let rights = |name: &str| u64::from_str_radix(&field(&status, name), 16).unwrap();
        let kept = capabilities::kept().bits();
        assert_eq!((rights("CapEff"), rights("CapPrm"), rights("CapBnd")), (kept, kept, kept), "{status}");
        assert_eq!((rights("CapInh"), rights("CapAmb")), (0, 0), "{status}");
        assert_eq!(
            (field(&status, "NoNewPrivs"), field(&status, "Seccomp")),
            ("1".into(), "2".into()),
            "{status}"
        );
        names.push(field(&status, "Name"));
    }
    assert!(names.contains(&"worker-0".into()) && names.contains(&"worker-1".into()), "{names:?}");
    let status: Status = daemon.call(&Request::Status(Default::default()));
    let sandbox = status.sandbox.unwrap();
    assert!(sandbox.ok && sandbox.detail.contains("net_admin net_raw bpf ipc_lock sys_admin"), "{sandbox:?}");
}

fn replay(daemon: &Daemon, file: &Path) -> Result<Done, switch_api::ApiError> {
    let kind = PortKind::Pcap { read: None, write: Some(file.display().to_string()) };
    let port = Port::new("replay".parse().unwrap(), "br0".parse().unwrap(), kind);
    daemon.client().call(&Request::PortAdd(Box::new(port)))
}

#[test]
fn captures_are_written_where_the_daemon_was_told_and_nowhere_else() {
    let (node, other) = (Node::new(), Node::new());
    let file = other.directory().join("out.pcap");
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let error = replay(&daemon, &file).unwrap_err();
    assert!(
        error.code == Code::System && error.data.hint.as_ref().is_some_and(|hint| hint.contains("--files")),
        "{error:?}"
    );
    assert!(!file.exists());
    drop(daemon);
    for words in [format!("--files {}", other.directory().display()), "--no-sandbox".into()] {
        let daemon = node.start(&switchd().with(&words));
        daemon.bridge("br0");
        replay(&daemon, &file).unwrap_or_else(|error| panic!("{words}: {error:?}"));
        let status: Status = daemon.call(&Request::Status(Default::default()));
        assert_eq!(status.sandbox.unwrap().ok, words != "--no-sandbox");
        drop(daemon);
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_namespace_by_way_of_proc_is_opened_by_the_keeper() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    daemon.bridge("br0");
    let pod = node.bare_pod(1);
    // A process in the pod, of another user with rights of its own: the daemon may not look into it.
    let sleeper = pod.net.spawn("setpriv --reuid 65534 sleep 60");
    let mut pid = 0;
    wait_until("the sleeper sleeps", LONG, || {
        pid = sleeper.id();
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
    });
    let mut port = switch_lab::node::tap_port(&pod, "br0", PortSettings::default());
    let PortKind::Tap { netns, .. } = &mut port.kind else { unreachable!() };
    *netns = Some(format!("/proc/{pid}/ns/net"));
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port.clone())));
    assert!(pod.net.ip("link show eth0").contains("eth0"));
    // It is looked at every second, by the same way.
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(daemon.port("tap1").state, PortState::Up, "{}", daemon.log());

    // And nothing but namespaces.
    let PortKind::Tap { netns, .. } = &mut port.kind else { unreachable!() };
    *netns = Some(format!("/proc/{pid}/environ"));
    port.name = "other".parse().unwrap();
    port.kind.addressed_mut().unwrap().0.clear();
    let refused = daemon.client().call::<Done>(&Request::PortAdd(Box::new(port)));
    assert!(refused.unwrap_err().message.contains("cannot be opened"));
    drop(sleeper);
    wait_until("the namespace is gone by that way", LONG, || daemon.port("tap1").state == PortState::Down);
}
