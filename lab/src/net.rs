//! A network namespace, made and removed with `ip netns`, and commands in it.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

static MADE: AtomicU32 = AtomicU32::new(0);
/// What a kernel says by ICMP it says as often as there is reason to. Otherwise it does so six times and then once a second to each, and on older
/// kernels as often as all namespaces of the machine together may (icmp(7), `icmp_ratemask`; ip-sysctl.rst): whether somebody is told that nobody
/// listens would depend on other tests. The types that are limited, then: none, and one that nobody uses.
const ICMP_UNLIMITED: [(&str, &str); 2] =
    [("/proc/sys/net/ipv4/icmp_ratemask", "0"), ("/proc/sys/net/ipv6/icmp/ratemask", "127")];

/// A namespace of our own. Dropping it deletes it and every device in it.
#[derive(Debug)]
pub struct Net {
    name: String,
}

impl Net {
    /// Makes a namespace whose name ends with `role`, and sets its loopback device up.
    pub fn new(role: &str) -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("sw{}-{number}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let net = Self { name };
        net.ip("link set lo up");
        let says_all =
            net.inside(|| ICMP_UNLIMITED.map(|(setting, types)| _ = std::fs::write(setting, types)));
        says_all.join().unwrap_or_else(|_| panic!("settings of {}", net.name));
        net
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it can be opened.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// A command that will run in it. `nsenter`, not `ip netns exec`, which would change mounts as well.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// Runs `ip` in it; the words are separated by blanks. Panics if it fails.
    pub fn ip(&self, words: &str) -> String {
        let mut command = self.command("ip");
        command.args(words.split_whitespace());
        text(command)
    }

    /// Runs a command line in it; what it prints. Panics if it fails.
    pub fn run(&self, line: &str) -> String {
        let (program, words) = line.split_once(' ').unwrap_or((line, ""));
        let mut command = self.command(program);
        command.args(words.split_whitespace());
        text(command)
    }

    /// Runs a command line in it, whatever comes of it.
    pub fn try_run(&self, line: &str) -> Output {
        let (program, words) = line.split_once(' ').unwrap_or((line, ""));
        let mut command = self.command(program);
        command.args(words.split_whitespace());
        command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Runs `work` on a thread of its own inside the namespace; sockets it opens live there.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let path = self.path();
        std::thread::spawn(move || {
            let net = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            let entered = rustix::thread::move_into_link_name_space(net.as_fd(), kind);
            entered.unwrap_or_else(|error| panic!("{path}: {error}"));
            work()
        })
    }

    /// Starts a shell line in it, in the background, its standard output to be read.
    pub fn spawn(&self, line: &str) -> Background {
        let mut command = self.command("sh");
        command.args(["-c", &format!("exec {line}")]).stdout(Stdio::piped()).stderr(Stdio::piped());
        Background(Some(command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"))))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A process in the background; ended when dropped.
#[derive(Debug)]
pub struct Background(Option<Child>);

impl Background {
    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    /// Waits for its end and hands out what it printed.
    pub fn finish(mut self) -> Output {
        let child = self.0.take().unwrap_or_else(|| unreachable!("finish takes self"));
        child.wait_with_output().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Ends it with SIGINT, as tcpdump likes it, and hands out what it printed.
    pub fn interrupt(self) -> Output {
        self.send_interrupt();
        self.finish()
    }

    /// The same for one that prints elsewhere.
    pub fn interrupt_and_wait(&mut self) {
        self.send_interrupt();
        _ = self.0.take().map(|mut child| child.wait());
    }

    fn send_interrupt(&self) {
        if let Some(child) = &self.0 {
            let pid = rustix::process::Pid::from_child(child);
            _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// Runs a program. Panics with what it said if it fails.
pub fn run(program: &str, words: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(words);
    text(command)
}

fn text(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} failed:\n{said}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
