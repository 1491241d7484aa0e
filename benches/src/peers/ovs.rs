//! Open vSwitch's userspace datapath: a database, a switch and a directory of its own in a namespace of its own,
//! so that nothing of it meets an Open vSwitch that the machine may run.

use super::{PATIENCE, Process};
use crate::rules;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use switch_lab::{Node, Pod, wait_until};

const DAEMON: &str = "/usr/lib/openvswitch-switch/ovs-vswitchd";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// How its pods are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `internal` ports: TAPs, which its main thread reads and writes a frame at a time.
    Tap,
    /// `afxdp` ports on veth, polled by a thread on core 1.
    Xdp,
}

/// Two pods, and an Open vSwitch between them, on core 1.
#[derive(Debug)]
pub struct Ovs {
    // Before the namespaces go, the one that talks to the other first.
    _switch: Process,
    _database: Process,
    /// The pods.
    pub pods: [Pod; 2],
    node: Node,
}

/// What goes before the pods do.
#[derive(Debug)]
pub struct Between {
    _processes: (Process, Process),
    node: Node,
    directory: PathBuf,
}

impl Between {
    /// Where it keeps what it has.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command line that changes its rules by a file of them, in one go.
    pub fn rules_line(&self, file: &Path) -> String {
        let bridge = self.directory.join("br0.mgmt");
        format!("ovs-ofctl -O OpenFlow14 --bundle add-flows unix:{} {}", bridge.display(), file.display())
    }

    /// A command line that asks its database for this.
    pub fn database_line(&self, words: &str) -> String {
        let home = Home { node: &self.node, directory: &self.directory };
        format!("ovs-vsctl --timeout=20 --db=unix:{} {words}", home.socket())
    }
}

impl Ovs {
    /// Starts it, and waits until a ping crosses it.
    pub fn start(kind: Kind) -> Result<Self, String> {
        let (switch, database, node) = Self::serve()?;
        let directory = node.directory().join("ovs");
        let home = Home { node: &node, directory: &directory };
        home.bridge("br0")?;
        let pods = [home.pod(kind, "br0", 1)?, home.pod(kind, "br0", 2)?];
        wait_until("Open vSwitch forwards", PATIENCE, || pods[0].reaches(&pods[1].ip));
        Ok(Self { _switch: switch, _database: database, pods, node })
    }

    /// Two bridges with a pod each, in one switch, joined by a veth whose ends are `afxdp` ports: two nodes, and what serves both
    /// is one process, whose polling thread has core 1 for itself. Waits until a ping crosses it.
    pub fn across(kind: Kind) -> Result<Self, String> {
        let (switch, database, node) = Self::serve()?;
        let directory = node.directory().join("ovs");
        let home = Home { node: &node, directory: &directory };
        node.net.ip("link add wire1 type veth peer name wire2");
        let pod = |n: u8| {
            let (bridge, wire) = (format!("br{n}"), format!("wire{n}"));
            home.bridge(&bridge)?;
            node.net.ip(&format!("link set {wire} up"));
            home.vsctl(&format!("add-port {bridge} {wire} -- set interface {wire} type=afxdp"))?;
            home.pod(kind, &bridge, n)
        };
        let pods = [pod(1)?, pod(2)?];
        if kind == Kind::Xdp {
            // It carries on what a pod's kernel leaves unfinished, and nobody finishes it.
            pods.iter().for_each(|pod| drop(pod.net.run("ethtool -K eth0 tx off")));
        }
        wait_until("Open vSwitch forwards", PATIENCE, || pods[0].reaches(&pods[1].ip));
        Ok(Self { _switch: switch, _database: database, pods, node })
    }

    /// A switch without bridges, its database, and their namespace.
    fn serve() -> Result<(Process, Process, Node), String> {
        Self::version()?;
        let node = Node::new();
        let directory = node.directory().join("ovs");
        std::fs::create_dir(&directory).map_err(|error| error.to_string())?;
        let (switch, database) = Home { node: &node, directory: &directory }.serve(
            DAEMON,
            "1",
            &["other_config:pmd-cpu-mask=2"],
        )?;
        Ok((switch, database, node))
    }

    /// What is between the pods, and the pods.
    pub fn apart(self) -> (Between, [Pod; 2]) {
        let directory = self.node.directory().join("ovs");
        let between = Between { _processes: (self._switch, self._database), node: self.node, directory };
        (between, self.pods)
    }

    /// Replaces its OpenFlow rules by these, one a line, as ovs-ofctl(8) reads them.
    pub fn rules(&self, lines: &str) -> Result<(), String> {
        Home { node: &self.node, directory: &self.node.directory().join("ovs") }.rules(lines)
    }

    /// What it calls itself, or how it can be had.
    pub fn version() -> Result<String, String> {
        version(DAEMON, "openvswitch-switch")
    }
}

/// What this daemon calls itself, or of which package it can be had.
pub(super) fn version(daemon: &str, package: &str) -> Result<String, String> {
    let output = Command::new(daemon).arg("--version").output();
    let install = format!("install it with `apt-get install --no-install-recommends {package}`");
    let output = output.map_err(|error| format!("the peer Open vSwitch is missing ({error}); {install}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or("");
    Ok(format!("Open vSwitch {version}"))
}

/// OpenFlow rules that track connections: one rule a block, of which a packet that begins a connection must come from one. What is
/// for `to` is given to `there`.
pub fn stateful(blocks: &[String], to: &str, there: &str) -> String {
    let mut lines = format!(
        "priority=0,actions=NORMAL\npriority=10,{to},ct_state=-trk,actions=ct(table=1)\n\
         table=1,priority=20,ct_state=+trk+est,{to},actions={there}\n"
    );
    for block in blocks {
        lines += &format!(
            "table=1,priority=10,ct_state=+trk+new,{to},nw_src={block},tp_dst={},actions=ct(commit),{there}\n",
            rules::PORT
        );
    }
    lines
}

/// Where one runs, and what it keeps there.
pub(super) struct Home<'a> {
    pub node: &'a Node,
    pub directory: &'a Path,
}

impl Home<'_> {
    /// Starts a database and this daemon on these cores, with these settings.
    pub fn serve(&self, daemon: &str, cores: &str, settings: &[&str]) -> Result<(Process, Process), String> {
        let database = self.database()?;
        self.vsctl("--no-wait init")?;
        let set = format!("--db=unix:{} --no-wait set Open_vSwitch .", self.socket());
        said("ovs-vsctl", self.command("ovs-vsctl", &set).args(settings))?;
        let (socket, control) = (self.socket(), self.control());
        let switch =
            self.start("taskset", &format!("-c {cores} {daemon} unix:{socket} --unixctl={control}"))?;
        Ok((switch, database))
    }

    /// Replaces the rules of its first bridge by these.
    pub fn rules(&self, lines: &str) -> Result<(), String> {
        let file = self.directory.join("rules");
        std::fs::write(&file, lines).map_err(|error| format!("{}: {error}", file.display()))?;
        let bridge = format!("unix:{}", self.directory.join("br0.mgmt").display());
        let words = format!("-O OpenFlow14 --bundle replace-flows {bridge} {}", file.display());
        self.run("ovs-ofctl", &words).map(drop)
    }

    /// Asks the daemon, as ovs-appctl(8) does; what it says.
    pub fn ask(&self, words: &str) -> Result<String, String> {
        self.run("ovs-appctl", &format!("-t {} {words}", self.control()))
    }

    fn control(&self) -> String {
        self.directory.join("control").display().to_string()
    }

    fn socket(&self) -> String {
        self.directory.join("db.sock").display().to_string()
    }

    fn command(&self, program: &str, words: &str) -> Command {
        let mut command = self.node.net.command(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(variable, self.directory);
        }
        command.args(words.split_whitespace());
        command
    }

    fn start(&self, program: &str, words: &str) -> Result<Process, String> {
        let mut command = self.command(program, words);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.map(Process).map_err(|error| format!("{program}: {error}"))
    }

    /// What it says.
    fn run(&self, program: &str, words: &str) -> Result<String, String> {
        said(&format!("{program} {words}"), &mut self.command(program, words))
    }

    fn database(&self) -> Result<Process, String> {
        let file = self.directory.join("conf.db").display().to_string();
        self.run("ovsdb-tool", &format!("create {file} {SCHEMA}"))?;
        let process = self.start("ovsdb-server", &format!("{file} --remote=punix:{}", self.socket()))?;
        wait_until("the database listens", PATIENCE, || Path::new(&self.socket()).exists());
        Ok(process)
    }

    /// Asks the database, as ovs-vsctl(8) does; what it says.
    pub fn vsctl(&self, words: &str) -> Result<String, String> {
        self.run("ovs-vsctl", &format!("--timeout=20 --db=unix:{} {words}", self.socket()))
    }

    /// Makes a bridge of the userspace datapath.
    pub fn bridge(&self, name: &str) -> Result<(), String> {
        self.vsctl(&format!("add-br {name} -- set bridge {name} datapath_type=netdev")).map(drop)
    }

    fn pod(&self, kind: Kind, bridge: &str, n: u8) -> Result<Pod, String> {
        match kind {
            Kind::Tap => self.tap_pod(bridge, n),
            Kind::Xdp => self.xdp_pod(bridge, n),
        }
    }

    /// A pod whose device is an `internal` port, moved to it.
    fn tap_pod(&self, bridge: &str, n: u8) -> Result<Pod, String> {
        let pod = self.node.bare_pod(n);
        let device = &pod.device;
        self.vsctl(&format!("add-port {bridge} {device} -- set interface {device} type=internal"))?;
        self.node.net.ip(&format!(
            "link set {device} netns {} name eth0 address {}",
            pod.net.name(),
            pod.mac()
        ));
        pod.net.ip("link set eth0 up");
        pod.net.ip(&format!("addr add {}/24 dev eth0", pod.ip));
        Ok(pod)
    }

    fn xdp_pod(&self, bridge: &str, n: u8) -> Result<Pod, String> {
        let pod = self.node.pod(n);
        let device = &pod.device;
        self.vsctl(&format!("add-port {bridge} {device} -- set interface {device} type=afxdp"))?;
        Ok(pod)
    }
}

/// What this command says, or complains of.
fn said(name: &str, command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
