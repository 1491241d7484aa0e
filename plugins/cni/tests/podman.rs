//! podman with its CNI backend and runc, as Debian has them, on one node: containers reach each other and the
//! node through the switch, a published port answers, and nothing stays.
//!
//! No registry is asked: the image is made of Debian's static busybox.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]
#![allow(dead_code, reason = "the runtime's driver has more than this test needs")]

mod runtime;

use runtime::Runtime;
use runtime::image::{self, IMAGE, PAGE};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use switch_lab::{Node, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// podman in a node's namespace, with directories of its own.
struct Podman<'a> {
    node: &'a Node,
    directory: PathBuf,
}

impl<'a> Podman<'a> {
    fn new(node: &'a Node, network: &Value) -> Self {
        let directory = node.directory().join("podman");
        let ours = Path::new(env!("CARGO_BIN_EXE_switch-cni")).parent().unwrap();
        let networks = directory.join("net.d");
        std::fs::create_dir_all(&networks).unwrap();
        std::fs::write(networks.join("pods.conflist"), network.to_string()).unwrap();
        let conf = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=4096:4096\"]\n\
             [network]\nnetwork_backend = \"cni\"\ndefault_network = \"pods\"\n\
             network_config_dir = \"{}\"\ncni_plugin_dirs = [\"{}\", \"/usr/lib/cni\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n",
            networks.display(),
            ours.display()
        );
        std::fs::write(directory.join("containers.conf"), conf).unwrap();
        Self { node, directory }
    }

    fn try_run(&self, line: &str) -> Output {
        let at = |name: &str| self.directory.join(name).display().to_string();
        // `nsenter`, not `ip netns exec`: that one would hide the cgroups.
        let mut command = self.node.net.command("podman");
        command.env("CONTAINERS_CONF", at("containers.conf"));
        command.args(["--root", &at("root"), "--runroot", &at("run"), "--tmpdir", &at("tmp")]);
        command.args(["--storage-driver", "vfs"]).args(line.split_whitespace());
        command.output().unwrap()
    }

    #[track_caller]
    fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "podman {line}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn load_image(&self) {
        let archive = image::archive(&self.directory);
        self.run(&format!("load -q -i {}", archive.display()));
    }

    fn start(&self, name: &str, more: &str) -> String {
        self.run(&format!("run -d -q --pull never --name {name} {more} {IMAGE} httpd -f -h /www"));
        self.address(name)
    }

    fn address(&self, name: &str) -> String {
        let inspected: Value = serde_json::from_str(&self.run(&format!("inspect {name}"))).unwrap();
        let address = &inspected[0]["NetworkSettings"]["Networks"]["pods"]["IPAddress"];
        address.as_str().unwrap_or_else(|| panic!("{:#}", inspected[0]["NetworkSettings"])).to_owned()
    }

    fn reaches(&self, from: &str, address: &str) {
        wait_until(&format!("{from} reaches {address}"), LONG, || {
            self.try_run(&format!("exec {from} ping -c 1 -W 1 {address}")).status.success()
        });
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        self.try_run("rm -f -a -t 0");
        // What a failed start left mounted.
        for part in ["run", "root"] {
            _ = Command::new("umount").args(["-l", "-R"]).arg(self.directory.join(part)).output();
        }
    }
}

#[test]
fn two_containers_reach_each_other_and_the_node() {
    let runtime = Runtime::new();
    runtime.daemon.bridge("br0");
    runtime.host_port();
    let mut plugin = runtime.conf.clone();
    plugin["capabilities"] = json!({"portMappings": true});
    let network = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]});
    let podman = Podman::new(&runtime.node, &network);
    podman.load_image();
    let a = podman.start("a", "");
    let b = podman.start("b", "-p 8080:80");
    assert_ne!(a, b);
    podman.reaches("a", &b);
    podman.reaches("b", &a);
    podman.reaches("a", "10.88.0.1");
    assert_eq!(podman.run(&format!("exec a wget -q -O - http://{b}/")), PAGE);
    assert_eq!(podman.run(&format!("exec b wget -q -O - http://{a}/")), PAGE);
    assert!(runtime.node.net.run(&format!("ping -c 1 -W 2 {b}")).contains("1 received"));
    let fetch = "wget -q -O - http://10.88.0.1:8080/";
    assert_eq!(podman.run(&format!("exec a {fetch}")), PAGE, "the published port");
    assert_eq!(runtime.node.net.run("busybox wget -q -O - http://127.0.0.1:8080/").trim(), PAGE);
    let pods: Vec<String> = runtime.ports().iter().map(|port| port.port.labels["k8s/pod"].clone()).collect();
    assert_eq!(pods.len(), 2);
    assert!(pods.contains(&"a".to_owned()) && pods.contains(&"b".to_owned()), "{pods:?}");
    // A container that comes back under its old identifier.
    podman.run("restart -t 0 a");
    let a = podman.address("a");
    podman.reaches("b", &a);
    podman.run("rm -f -t 0 a b");
    runtime.assert_empty();
    assert_eq!(runtime.node.net.run("nft list ruleset"), "");
    assert_eq!(runtime.devices(), ["switch0"]);
}
