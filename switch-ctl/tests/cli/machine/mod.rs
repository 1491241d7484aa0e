//! A machine to paste lines into, as a reader of the guide would.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");
pub const FIRST_SWITCH: &str = include_str!("../../../../docs/guide/first-switch.md");
/// How long what ends by itself may take on a machine that is busy.
pub const PATIENCE_S: &str = "300";
/// How long what ends with Ctrl-C is looked at.
pub const LOOK_S: &str = "2";
/// timeout(1) ended it.
pub const WAS_ENDED: i32 = 124;

/// A machine: namespaces of our own for devices, mounts and processes, with what the guide takes for granted (a NIC `eth0`, an empty
/// /run). All of it is gone with the process that holds it.
pub struct Machine {
    holder: Child,
    pub directory: PathBuf,
}

impl Machine {
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("switch-help-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sleep",
            "1800",
        ]);
        let holder = unshare.stdout(Stdio::null()).spawn().unwrap();
        let machine = Self { holder, directory };
        let started = Instant::now();
        while machine.inside().is_none() {
            assert!(started.elapsed() < Duration::from_secs(60), "unshare makes no namespaces");
            std::thread::sleep(Duration::from_millis(20));
        }
        machine.must(
            "mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mount -t sysfs none /sys && mkdir /run/netns
             ip link set lo up && ip link add eth0 type veth peer name far0 && ip link set eth0 up && ip link set far0 up",
        );
        machine
    }

    /// The process inside, once it is there.
    fn inside(&self) -> Option<u32> {
        let id = self.holder.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let child = children.split_whitespace().next()?.parse().ok()?;
        // Once it is `sleep`, all is set up.
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "sleep").then_some(child)
    }

    /// Pastes lines into a shell, in a folder; timeout(1) presses Ctrl-C after a while.
    pub fn paste(&self, lines: &str, folder: &Path, patience_s: &str) -> Output {
        let mut enter = Command::new("nsenter");
        enter.args(["--net", "--mount", "--pid", "--target", &self.inside().unwrap().to_string()]);
        enter.arg(format!("--wd={}", folder.display())).args(["timeout", "--signal=INT", "--kill-after=10"]);
        enter.args([patience_s, "bash", "-e", "-o", "pipefail", "-c", lines]);
        let beside = Path::new(CTL).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        enter.env("PATH", format!("{}:{}:{path}", beside.display(), switchd().parent().unwrap().display()));
        enter.env("SWITCHD_SOCKET", "/run/first/switchd.sock").stdin(Stdio::null());
        // Into files: what goes on in the background would keep a pipe open.
        let [out, err] = ["out", "err"].map(|name| self.directory.join(name));
        let [stdout, stderr] = [&out, &err].map(|path| std::fs::File::create(path).unwrap());
        let status = enter.stdout(stdout).stderr(stderr).status().unwrap();
        Output { status, stdout: std::fs::read(&out).unwrap(), stderr: std::fs::read(&err).unwrap() }
    }

    /// What lines print that have to succeed.
    pub fn must(&self, lines: &str) -> String {
        let output = self.paste(lines, &self.directory, PATIENCE_S);
        assert!(output.status.success(), "{lines}\n{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A folder with nothing in it.
    pub fn folder(&self) -> PathBuf {
        let folder = self.directory.join("pasted");
        _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        folder
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its child goes with it, and with that, process 1 of its namespace, all others in there.
        _ = self.holder.kill();
        _ = self.holder.wait();
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub fn said(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The guide's lines of its first two parts. `traceroute` is there "if installed"; what waits a second for the daemon waits until it
/// serves.
pub fn first_switch() -> String {
    let (setup, _) = FIRST_SWITCH.split_once("## A look inside").unwrap();
    let blocks = blocks(setup, "console");
    let lines: String = blocks
        .iter()
        .flat_map(|block| block.lines())
        .filter(|line| !line.contains("traceroute"))
        .fold(String::new(), |text, line| text + line + "\n");
    assert!(lines.contains("\nsleep 1\n") && lines.contains("port add tap lab"), "{lines}");
    lines.replace("\nsleep 1\n", "\nuntil switch-ctl status >/dev/null 2>&1; do sleep 0.1; done\n")
}

pub fn switchd() -> PathBuf {
    std::env::var_os("SWITCHD").map_or_else(|| Path::new(CTL).with_file_name("switchd"), PathBuf::from)
}

/// What is set apart on a page as being in a language.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned()).collect()
}
