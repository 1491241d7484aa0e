//! `switch-ctl support-bundle`: what somebody who is not on the node needs to find a fault, in one archive.

use crate::metrics;
use crate::output::Output;
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use switch_api::{ApiError, Client, Code, Config, Nothing, Request, Status, file};

/// Most of one file, in bytes: a full table of MACs as JSON is half of it. What is cut says so.
const FILE_LEN_MAX: u64 = 32 << 20;
/// Lines of the daemon's log: a week of an ordinary node.
const LOG_LINES: &str = "5000";

const README: &str = "\
What `switch-ctl support-bundle` gathered on a node.

switch/   what the daemon answered: counters, ports, tables, events, what is declared, who changed it
node/     kernel, memory, devices, addresses and routes of the node
daemon/   the daemon's process and its log
missing   what could not be had, and why

No packet's content is in here, no environment and no key. Names, labels and addresses of pods are: look through it before you
hand it on.
";

/// Files of the node.
const NODE_FILES: &[&str] = &[
    "/etc/os-release",
    "/proc/version",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/loadavg",
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/interrupts",
    "/proc/softirqs",
    "/proc/net/dev",
    "/proc/net/softnet_stat",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];
/// What programs say; the file's name first.
const NODE_COMMANDS: &[(&str, &[&str])] = &[
    ("node/addresses", &["ip", "-details", "-statistics", "address"]),
    ("node/routes", &["ip", "route", "show", "table", "all"]),
    ("node/routes6", &["ip", "-6", "route", "show", "table", "all"]),
    ("node/neighbours", &["ip", "neighbour"]),
    ("node/namespaces", &["ip", "netns", "list-id"]),
    ("daemon/log", &["journalctl", "--unit", "switchd", "--no-pager", "--lines", LOG_LINES]),
];
/// Files of the daemon's process.
const DAEMON_FILES: &[&str] = &["status", "limits", "smaps_rollup", "cgroup", "cmdline"];

/// Gather what is needed to find a fault from afar, in one archive: counters, tables, events, what is declared, the node's kernel,
/// devices and routes, the daemon's log. No packets, no keys. Works without the daemon, too: then it has the rest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl support-bundle
  switch-ctl support-bundle node7.tar.gz && tar tzf node7.tar.gz
  switch-ctl support-bundle - | tar tz")]
pub struct Bundle {
    /// The archive; `-` is standard output. Without it, one named after the time, here.
    file: Option<PathBuf>,
}

pub fn run(bundle: &Bundle, socket: &Path, timeout: Duration, output: &Output) -> Result<(), ApiError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let named = || PathBuf::from(format!("switch-support-{now}.tar.gz"));
    let path = bundle.file.clone().unwrap_or_else(named);
    let to_stdout = path == Path::new("-");
    let failed = |error: io::Error| {
        ApiError::new(Code::System, format!("cannot write {}: {error}", path.display()))
            .hint("name another file; an archive that is there is not written over")
    };
    let out: Box<dyn Write> =
        if to_stdout { Box::new(io::stdout()) } else { Box::new(create(&path).map_err(failed)?) };
    let archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    let mut gathering = Gathering { archive, now, missing: String::new() };
    gathering.all(socket, timeout).map_err(failed)?;
    let finished = gathering.archive.into_inner().and_then(GzEncoder::finish);
    finished.and_then(|mut out| out.flush()).map_err(failed)?;
    if !to_stdout {
        let missing = gathering.missing.lines().map(str::to_owned).collect();
        output.answer(&Gathered { file: path, missing }, |gathered| {
            format!("{}{}", gathered.file.display(), what_is_missing(&gathered.missing))
        });
    }
    Ok(())
}

/// What was gathered, for `--json`.
#[derive(Debug, Serialize)]
struct Gathered {
    file: PathBuf,
    /// What could not be had, and why.
    missing: Vec<String>,
}

/// For nobody else: the names of who runs here are in it.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn what_is_missing(missing: &[String]) -> String {
    match missing.len() {
        0 => String::new(),
        some => format!(" ({some} parts could not be had: see `missing` in it)"),
    }
}

struct Gathering {
    archive: tar::Builder<GzEncoder<Box<dyn Write>>>,
    now: u64,
    missing: String,
}

impl Gathering {
    fn all(&mut self, socket: &Path, timeout: Duration) -> io::Result<()> {
        self.add("README", README.as_bytes())?;
        match Client::connect(socket, timeout) {
            Ok(mut client) => self.switch(&mut client)?,
            Err(error) => self.miss("switch/", &error),
        }
        for path in NODE_FILES {
            self.copy(&format!("node{path}"), Path::new(path))?;
        }
        for (name, words) in NODE_COMMANDS {
            self.run(name, words)?;
        }
        let missing = std::mem::take(&mut self.missing);
        self.add("missing", missing.as_bytes())?;
        self.missing = missing;
        Ok(())
    }

    /// What the daemon knows.
    fn switch(&mut self, client: &mut Client) -> io::Result<()> {
        let questions = [
            ("status", Request::Status(Nothing {})),
            ("stats", Request::StatsGet(Nothing {})),
            ("ports", Request::PortList(Nothing {})),
            ("bridges", Request::BridgeList(Nothing {})),
            ("workers", Request::WorkerList(Nothing {})),
            ("vrfs", Request::VrfList(Nothing {})),
            ("routes", Request::RouteList(Default::default())),
            ("route-counts", Request::RouteStats(Nothing {})),
            ("neighbours", Request::NeighList(Default::default())),
            ("stations", Request::FdbList(Default::default())),
            ("flows", Request::FlowList(Default::default())),
            ("policies", Request::PolicyList(Default::default())),
            ("port-sets", Request::PortSetList(Default::default())),
            ("address-sets", Request::AddressSetList(Default::default())),
            ("acls", Request::AclList(Default::default())),
            ("nats", Request::NatList(Default::default())),
            ("namespaces", Request::NamespaceList(Nothing {})),
            ("pools", Request::PoolList(Nothing {})),
            ("leases", Request::LeaseList(Default::default())),
            ("history", Request::ConfigHistory(Nothing {})),
            ("events", Request::EventsRecent(Nothing {})),
        ];
        for (name, question) in questions {
            let name = format!("switch/{name}.json");
            match client.call::<serde_json::Value>(&question) {
                Ok(answer) => self.add(&name, serde_json::to_string_pretty(&answer)?.as_bytes())?,
                Err(error) => self.miss(&name, &error),
            }
        }
        match client
            .call::<Config>(&Request::ConfigExport(Default::default()))
            .map(|config| file::write(&config))
        {
            Ok(Ok(text)) => self.add("switch/declared.toml", text.as_bytes())?,
            Ok(Err(error)) => self.miss("switch/declared.toml", &error),
            Err(error) => self.miss("switch/declared.toml", &error),
        }
        match metrics::text(client) {
            Ok(text) => self.add("switch/metrics", text.as_bytes())?,
            Err(error) => self.miss("switch/metrics", &error),
        }
        match client.call::<Status>(&Request::Status(Nothing {})) {
            Ok(status) => self.process(status.pid),
            Err(_) => Ok(()),
        }
    }

    fn process(&mut self, pid: u32) -> io::Result<()> {
        for file in DAEMON_FILES {
            self.copy(&format!("daemon/{file}"), Path::new(&format!("/proc/{pid}/{file}")))?;
        }
        Ok(())
    }

    fn copy(&mut self, name: &str, from: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        match File::open(from).and_then(|file| file.take(FILE_LEN_MAX).read_to_end(&mut bytes)) {
            Ok(_) => self.add(name, &bytes),
            Err(error) => {
                self.miss(name, &error);
                Ok(())
            }
        }
    }

    fn run(&mut self, name: &str, words: &[&str]) -> io::Result<()> {
        let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => self.add(name, &output.stdout),
            Ok(output) => {
                self.miss(name, &String::from_utf8_lossy(&output.stderr).trim());
                Ok(())
            }
            Err(error) => {
                self.miss(name, &format!("{}: {error}", words[0]));
                Ok(())
            }
        }
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let most = usize::try_from(FILE_LEN_MAX).unwrap_or(usize::MAX);
        if bytes.len() > most {
            self.miss(name, &format!("cut after {most} of {} bytes", bytes.len()));
        }
        let bytes = &bytes[..bytes.len().min(most)];
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now);
        self.archive.append_data(&mut header, Path::new("switch-support").join(name), bytes)
    }

    fn miss(&mut self, name: &str, why: &dyn std::fmt::Display) {
        self.missing += &format!("{name}: {why}\n");
    }
}
