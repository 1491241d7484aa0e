//! A container runtime as the specification describes it, for tests: it runs the plugin with an environment
//! and a configuration, and reads what it prints.

pub mod image;
pub mod midway;

use midway::Midway;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use switch_api::{LeaseFilter, LeaseStatus, PortStatus, Request};
use switch_lab::{Daemon, Net, Node, Options};

/// The network all tests use unless they say otherwise.
pub const NETWORK: &str = "pods";

/// A node whose daemon keeps state, and what a runtime knows.
pub struct Runtime {
    /// The daemon; tests stop and start it.
    pub daemon: Daemon,
    /// The network's configuration, without a version.
    pub conf: Value,
    // Dropped after the daemon.
    pub node: Node,
}

/// A container: an empty namespace and an identifier.
pub struct Container {
    pub net: Net,
    pub id: String,
}

/// What the plugin said.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub success: bool,
    pub json: Value,
}

impl Said {
    /// The error's code. Panics on success.
    #[track_caller]
    pub fn code(&self) -> u64 {
        assert!(!self.success, "it should have failed: {self:?}");
        assert!(!self.json["msg"].as_str().unwrap().is_empty());
        self.json["code"].as_u64().unwrap()
    }

    /// What it printed. Panics on an error.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.success, "{:#}", self.json);
        self.json
    }

    /// The address at a place of the result, without its length.
    pub fn address(&self, at: usize) -> String {
        let text = self.json["ips"][at]["address"].as_str().unwrap_or_else(|| panic!("{:#}", self.json));
        text.split('/').next().unwrap().to_owned()
    }
}

/// The daemon that was built with this test, with its state in the node's directory.
pub fn switchd() -> Options {
    Options::new(program()).keeping_state()
}

/// Its program: beside this one, or where SWITCHD says.
pub fn program() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("switchd");
    let path = std::env::var_os("SWITCHD").map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "{} is not there: cargo build -p switch-core", path.display());
    path
}

impl Runtime {
    /// A node with a daemon, and a dual-stack pool that the first ADD makes.
    pub fn new() -> Self {
        Self::of(Node::new(), &switchd())
    }

    /// The same with a daemon of other options.
    pub fn of(node: Node, options: &Options) -> Self {
        let daemon = node.start(options);
        let conf = json!({
            "name": NETWORK, "type": "switch-cni", "bridge": "br0",
            "socket": daemon.socket, "stateDir": node.directory().join("pending"), "timeoutSeconds": 20,
            "ipam": {"type": "switch-cni", "pool": "pods", "ranges": [
                {"subnet": "10.88.0.0/24", "gateway": "10.88.0.1"},
                {"subnet": "fd88::/64", "gateway": "fd88::1"},
            ]},
        });
        Self { daemon, conf, node }
    }

    /// The node's own port, with the containers' gateway.
    pub fn host_port(&self) {
        let host = json!({
            "name": "host", "bridge": "br0", "kind": "host",
            "addresses": ["10.88.0.1/24", "fd88::1/64"],
        });
        let host: switch_api::Port = serde_json::from_value(host).unwrap();
        let _: switch_api::Done = self.daemon.call(&Request::PortAdd(Box::new(host)));
    }

    /// The same before a container is there; the node has another address as well, that is in no network of containers.
    pub fn host_port_on_bridge(&self) {
        self.daemon.bridge("br0");
        self.host_port();
        self.node.net.ip("addr add 10.99.0.1/32 dev lo");
    }

    /// Starts the daemon again after it was killed.
    pub fn restart(&mut self) {
        self.daemon = self.node.start(&switchd());
    }

    /// Runs a verb on a container's `eth0`, with a version and further fields of the configuration.
    pub fn ask(&self, verb: &str, version: &str, container: &Container, more: Value) -> Said {
        let netns = container.net.path();
        let env = [("CNI_CONTAINERID", container.id.as_str()), ("CNI_NETNS", &netns), ("CNI_IFNAME", "eth0")];
        self.run(verb, &env, self.with(version, more))
    }

    /// Starts a verb on a container's `eth0`.
    pub fn start(&self, verb: &str, container: &Container) -> Started {
        self.start_with(verb, container, json!({}), &[])
    }

    /// The same with further fields of the configuration, and more in its environment.
    pub fn start_with(
        &self,
        verb: &str,
        container: &Container,
        more: Value,
        env: &[(&str, &str)],
    ) -> Started {
        let netns = container.net.path();
        let own = [("CNI_CONTAINERID", container.id.as_str()), ("CNI_NETNS", &netns), ("CNI_IFNAME", "eth0")];
        let env = [&own, env].concat();
        start(Path::new(env!("CARGO_BIN_EXE_switch-cni")), verb, &env, &self.with("1.0.0", more))
    }

    /// Starts a verb on a container's `eth0` that hears so many of the daemon's answers, and not the next one.
    pub fn start_midway(&self, verb: &str, container: &Container, answers: usize) -> (Started, Midway) {
        let midway = Midway::new(&self.daemon.socket, answers);
        let started = self.start_with(verb, container, json!({"socket": midway.socket}), &[]);
        (started, midway)
    }

    /// The same, and kills it after a while; whether it had not ended before.
    pub fn start_and_kill(&self, verb: &str, container: &Container, after: Duration) -> bool {
        let started = self.start(verb, container);
        std::thread::sleep(after);
        started.kill()
    }

    /// The configuration with a version and further fields.
    pub fn with(&self, version: &str, more: Value) -> Value {
        let mut conf = self.conf.clone();
        conf["cniVersion"] = version.into();
        for (key, value) in more.as_object().into_iter().flatten() {
            conf[key] = value.clone();
        }
        conf
    }

    /// Runs our plugin.
    pub fn run(&self, verb: &str, env: &[(&str, &str)], conf: Value) -> Said {
        exec(Path::new(env!("CARGO_BIN_EXE_switch-cni")), verb, env, &conf)
    }

    /// ADD in 1.0.0, which must succeed.
    #[track_caller]
    pub fn add(&self, container: &Container) -> Said {
        let said = self.ask("ADD", "1.0.0", container, json!({}));
        assert!(said.success, "{:#}\n{}", said.json, self.daemon.log());
        said
    }

    /// Ports that the plugin made.
    pub fn ports(&self) -> Vec<PortStatus> {
        let ports: Vec<PortStatus> = self.daemon.call(&Request::PortList(Default::default()));
        ports.into_iter().filter(|port| port.port.owner == switch_api::Owner::Cni).collect()
    }

    /// Leases.
    pub fn leases(&self) -> Vec<LeaseStatus> {
        self.daemon.call(&Request::LeaseList(LeaseFilter::default()))
    }

    /// What devices the node has but its loopback.
    pub fn devices(&self) -> Vec<String> {
        let said = self.node.net.ip("-o link");
        let name = |line: &str| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned());
        said.lines().filter_map(name).filter(|name| name != "lo").collect()
    }

    /// Nothing is left of any attachment.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert!(self.ports().is_empty(), "{:?}", self.ports());
        assert!(self.leases().is_empty(), "{:?}", self.leases());
        self.daemon.assert_conserved();
    }
}

impl Container {
    pub fn new(id: &str) -> Self {
        Self { net: Net::new(id), id: id.into() }
    }

    pub fn reaches(&self, address: &str) -> bool {
        self.net.try_run(&format!("ping -n -c 1 -W 1 {address}")).status.success()
    }

    pub fn has(&self, interface: &str) -> bool {
        self.net.try_run(&format!("ip link show {interface}")).status.success()
    }
}

/// Runs a plugin as the specification says.
pub fn exec(plugin: &Path, verb: &str, env: &[(&str, &str)], conf: &Value) -> Said {
    start(plugin, verb, env, conf).finish()
}

/// A plugin that runs.
pub struct Started {
    child: Child,
    verb: String,
}

impl Started {
    /// Whether it has.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Kills it; whether it had not ended before.
    pub fn kill(mut self) -> bool {
        _ = self.child.kill();
        self.child.wait().unwrap().signal().is_some()
    }

    /// Waits for its end.
    pub fn finish(self) -> Said {
        let output = self.child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let json = match text.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text)
                .unwrap_or_else(|error| panic!("{} printed {text:?}: {error}", self.verb)),
        };
        Said { success: output.status.success(), json }
    }
}

/// Starts a plugin, with its whole configuration on standard input.
pub fn start(plugin: &Path, verb: &str, env: &[(&str, &str)], conf: &Value) -> Started {
    let ours = Path::new(env!("CARGO_BIN_EXE_switch-cni")).parent().unwrap();
    let mut child = Command::new(plugin)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", verb)
        .env("CNI_PATH", format!("{}:/usr/lib/cni", ours.display()))
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", plugin.display()));
    child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
    Started { child, verb: verb.to_owned() }
}
