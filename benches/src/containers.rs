//! Containers as a runtime attaches them: an empty namespace, and the plugin that is run with its name.

use crate::figures::Bench;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use switch_api::{Done, LeaseFilter, LeaseStatus, Owner, Port, PortKind, PortSettings, PortStatus, Request};
use switch_lab::{Daemon, Net, Node};

/// What attaches: the plugin, and the network's configuration.
#[derive(Debug)]
pub struct Runtime {
    plugin: PathBuf,
    conf: String,
}

/// The node's own port, with the containers' gateways.
pub fn host_port(daemon: &Daemon, settings: PortSettings) -> Result<(), String> {
    let addresses =
        ["10.88.0.1/16", "fd88::1/64"].iter().map(|text| text.parse().map_err(|error| format!("{error}")));
    let addresses = addresses.collect::<Result<_, String>>()?;
    let kind = PortKind::Host { device: "switch0".into(), mac: None, addresses, routes: Vec::new() };
    let name = |text: &str| text.parse().map_err(|error| format!("{error}"));
    let port = Port { settings, ..Port::new(name("host")?, name("br0")?, kind) };
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    Ok(())
}

impl Runtime {
    /// A dual-stack network on `br0`; `more` are further fields, each with a comma behind it.
    pub fn new(bench: &Bench, node: &Node, daemon: &Daemon, more: &str) -> Self {
        let conf = format!(
            r#"{{"cniVersion":"1.0.0","name":"pods","type":"switch-cni","bridge":"br0",{more}"socket":"{}","stateDir":"{}",
            "ipam":{{"type":"switch-cni","pool":"pods","ranges":[{{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"}},
            {{"subnet":"fd88::/64","gateway":"fd88::1"}}]}}}}"#,
            daemon.socket.display(),
            node.directory().join("pending").display(),
        );
        Self { plugin: bench.switchd.with_file_name("switch-cni"), conf }
    }

    /// The same by another socket, which leads to the daemon's.
    pub fn by(&self, daemon: &Daemon, socket: &Path) -> Self {
        let [from, to] = [&daemon.socket, socket].map(|path| path.display().to_string());
        Self { plugin: self.plugin.clone(), conf: self.conf.replace(&from, &to) }
    }

    /// Runs a verb for a container's `eth0`.
    pub fn run(&self, verb: &str, pod: &Net) -> Result<String, String> {
        self.finish(verb, self.begin(verb, pod)?)
    }

    /// Collects garbage: everything but these.
    pub fn collect(&self, alive: &[&Net]) -> Result<(), String> {
        let named = |net: &&Net| format!(r#"{{"containerID":"{}","ifname":"eth0"}}"#, net.name());
        let alive = alive.iter().map(named).collect::<Vec<_>>().join(",");
        let valid = format!(r#"{{"cniVersion":"1.1.0","cni.dev/valid-attachments":[{alive}],"#);
        let conf = self.conf.replacen(r#"{"cniVersion":"1.0.0","#, &valid, 1);
        let child = self.start("GC", None, &conf)?;
        self.finish("GC", child).map(drop)
    }

    /// Starts a verb for a container's `eth0`.
    pub fn begin(&self, verb: &str, pod: &Net) -> Result<Child, String> {
        self.start(verb, Some(pod), &self.conf)
    }

    fn start(&self, verb: &str, pod: Option<&Net>, conf: &str) -> Result<Child, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.plugin.display());
        let mut command = Command::new(&self.plugin);
        command.env("CNI_COMMAND", verb).env("CNI_PATH", "/usr/lib/cni");
        if let Some(pod) = pod {
            command.env("CNI_CONTAINERID", pod.name()).env("CNI_NETNS", pod.path()).env("CNI_IFNAME", "eth0");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(conf.as_bytes()).map_err(failed)?;
        }
        Ok(child)
    }

    /// Waits for the end of a verb; what it printed.
    pub fn finish(&self, verb: &str, child: Child) -> Result<String, String> {
        let output =
            child.wait_with_output().map_err(|error| format!("{}: {error}", self.plugin.display()))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(said) } else { Err(format!("{verb}: {said}")) }
    }

    /// Attaches a container; its first address.
    pub fn add(&self, pod: &Net) -> Result<String, String> {
        let said = self.run("ADD", pod)?;
        let result: serde_json::Value =
            serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
        let address = result["ips"][0]["address"].as_str().and_then(|text| text.split('/').next());
        address.map(str::to_owned).ok_or_else(|| format!("no address: {said}"))
    }

    /// Several runtimes at once do something with every pod; how many failed.
    pub fn at_once<T: Sync>(
        &self,
        runtimes: usize,
        pods: &[T],
        each: impl Fn(&T) -> Result<(), String> + Sync,
    ) -> usize {
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..runtimes {
                scope.spawn(|| {
                    while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = each(pod) {
                            eprintln!("{error}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        failed.load(Ordering::Relaxed)
    }
}

/// Containers' ports, and leases.
pub fn count(daemon: &Daemon) -> (usize, usize) {
    let ports: Vec<PortStatus> = daemon.call(&Request::PortList(Default::default()));
    let leases: Vec<LeaseStatus> = daemon.call(&Request::LeaseList(LeaseFilter::default()));
    (ports.iter().filter(|port| port.port.owner == Owner::Cni).count(), leases.len())
}

/// The names of a namespace's devices (proc_pid_net(5)), its loopback not among them. Starts no process.
pub fn devices(net: &Net) -> Result<Vec<String>, String> {
    let reading = net.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let said = reading.join().map_err(|_| "the reader panicked")?.map_err(|error| error.to_string())?;
    let names = said.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    Ok(names.filter(|name| name != "lo").collect())
}
