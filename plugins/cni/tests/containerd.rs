//! containerd 1.6 with runc, as Debian has them, driven through CRI as a kubelet does: two pods with a container
//! each reach each other and the node through the switch, and nothing stays.
//!
//! It runs in a node's network namespace with directories and a socket of its own. It speaks CNI 1.0.0 and calls
//! DEL twice for a pod, the second time without a namespace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]
#![allow(dead_code, reason = "the runtime's driver has more than this test needs")]

mod cri;
mod runtime;

use cri::{Client, Message, Reply};
use runtime::Runtime;
use runtime::image::{self, IMAGE, PAGE, PAUSE};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use switch_lab::{Node, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// A containerd of a node's own.
struct Containerd<'a> {
    node: &'a Node,
    directory: PathBuf,
    socket: PathBuf,
    child: Child,
    client: Client,
}

/// A pod and the container in it.
struct Pod {
    sandbox: String,
    container: String,
    addresses: Vec<String>,
}

impl<'a> Containerd<'a> {
    /// Starts it, with both images and one network.
    fn start(node: &'a Node, network: &Value) -> Self {
        let directory = node.directory().join("containerd");
        let networks = directory.join("net.d");
        std::fs::create_dir_all(&networks).unwrap();
        std::fs::write(networks.join("10-pods.conflist"), network.to_string()).unwrap();
        make_plugins(&directory);
        let socket = directory.join("containerd.sock");
        std::fs::write(directory.join("config.toml"), config(&directory)).unwrap();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut command = node.net.command("containerd");
        command.arg("--config").arg(directory.join("config.toml"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let client = Client::new(&socket);
        let started = Self { node, directory, socket, child, client };
        wait_until("containerd answers", LONG, || started.is_ready());
        let archive = image::archive(&started.directory);
        started.ctr(&format!("image import --snapshotter native {}", archive.display()));
        started
    }

    /// Whether CRI answers and sees the network: its second condition is `NetworkReady`.
    fn is_ready(&self) -> bool {
        let Ok(reply) = self.client.call("Status", Message::default()) else { return false };
        let conditions = reply.message(1);
        let is_met = |condition: &Vec<u8>| Reply::from(condition.clone()).number(2) == 1;
        conditions.all(1).len() >= 2 && conditions.all(1).iter().all(is_met)
    }

    fn ctr(&self, line: &str) {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(["--namespace", "k8s.io"]);
        let output = command.args(line.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "ctr {line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[track_caller]
    fn call(&self, method: &str, message: Message) -> Reply {
        self.client.call(method, message).unwrap_or_else(|error| {
            let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            panic!("{error}\n{log}")
        })
    }

    /// A pod with a container that serves a page, also at a port of the node if one is given.
    fn run(&self, name: &str, published: Option<u16>) -> Pod {
        let metadata =
            Message::default().with(1, name).with(2, format!("uid-{name}")).with(3, "shop").number(4, 0);
        let config = Message::default()
            .with(1, metadata)
            .with(2, name)
            .with(8, Message::default().with(1, format!("/{}", self.node.net.name())));
        // TCP is protocol 0, which is not said.
        let mapping = |port: u16| Message::default().number(2, 80).number(3, port.into());
        let config = match published {
            Some(port) => config.with(5, mapping(port)),
            None => config,
        };
        let asked = Message::default().with(1, &config);
        // The image is announced to CRI a moment after the import.
        wait_until("the image of the pause container is there", LONG, || {
            let image = Message::default().with(1, Message::default().with(1, PAUSE));
            self.client.call_image("ImageStatus", image).is_ok_and(|reply| !reply.bytes(1).is_empty())
        });
        let sandbox = self.call("RunPodSandbox", asked).text(1);
        let command = ["httpd", "-f", "-h", "/www"];
        let container = command.iter().fold(
            Message::default()
                .with(1, Message::default().with(1, name))
                .with(2, Message::default().with(1, IMAGE)),
            |container, word| container.with(3, word),
        );
        let asked = Message::default().with(1, &sandbox).with(2, container).with(3, &config);
        let container = self.call("CreateContainer", asked).text(1);
        self.call("StartContainer", Message::default().with(1, &container));
        let status = self.call("PodSandboxStatus", Message::default().with(1, &sandbox));
        let network = status.message(1).message(5);
        let more = network.all(2).into_iter().map(|address| Reply::from(address).text(1));
        let addresses = std::iter::once(network.text(1)).chain(more).collect();
        Pod { sandbox, container, addresses }
    }

    /// What a command in the container says, if it succeeds.
    fn exec(&self, pod: &Pod, line: &str) -> Option<String> {
        let asked = line
            .split_whitespace()
            .fold(Message::default().with(1, &pod.container), |asked, word| asked.with(2, word))
            .number(3, 10);
        let reply = self.call("ExecSync", asked);
        (reply.number(3) == 0).then(|| reply.text(1).trim().to_owned())
    }

    /// As a kubelet removes a pod.
    fn remove(&self, pod: &Pod) {
        self.call("StopContainer", Message::default().with(1, &pod.container));
        self.call("RemoveContainer", Message::default().with(1, &pod.container));
        self.call("StopPodSandbox", Message::default().with(1, &pod.sandbox));
        self.call("RemovePodSandbox", Message::default().with(1, &pod.sandbox));
    }

    /// What was asked of the plugin: verb and namespace of every call.
    fn asked(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.directory.join("asked")).unwrap_or_default();
        let pair = |line: &str| line.split_once(' ').map(|(verb, netns)| (verb.into(), netns.into()));
        text.lines().filter_map(pair).collect()
    }

    fn namespaces(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.directory.join("state/io.containerd.grpc.v1.cri/netns"))
        else {
            return Vec::new();
        };
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        // What a failed test left: pods, and what runs and is mounted for them.
        if let Ok(pods) = self.client.call("ListPodSandbox", Message::default()) {
            for pod in pods.all(1) {
                let pod = Message::default().with(1, Reply::from(pod).bytes(1));
                _ = self.client.call("StopPodSandbox", pod.clone());
                _ = self.client.call("RemovePodSandbox", pod);
            }
        }
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            _ = kill_process(pid, Signal::TERM);
        }
        _ = self.child.wait();
        shims(&self.socket).into_iter().for_each(|shim| _ = kill_process(shim, Signal::KILL));
        _ = Command::new("umount").args(["-l", "-R"]).arg(self.directory.join("state")).output();
        // runc leaves the pods' parent.
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            _ = std::fs::remove_dir(hierarchy.path().join(self.node.net.name()));
        }
    }
}

/// The processes that hold containers for the containerd of this socket.
fn shims(socket: &Path) -> Vec<Pid> {
    let socket = socket.display().to_string();
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_shim = |pid: &i32| {
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.contains("containerd-shim-runc-v2") && words.split('\0').any(|word| word == socket)
    };
    pids.filter(is_shim).filter_map(Pid::from_raw).collect()
}

/// The directory of plugins: ours behind a script that notes what it is asked, and `loopback`, which CRI needs.
fn make_plugins(directory: &Path) {
    let plugins = directory.join("plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    symlink("/usr/lib/cni/loopback", plugins.join("loopback")).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$CNI_COMMAND $CNI_NETNS\" >>{}\nexec {}\n",
        directory.join("asked").display(),
        env!("CARGO_BIN_EXE_switch-cni")
    );
    let path = plugins.join("switch-cni");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn config(directory: &Path) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    let off = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs"];
    format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = {off:?}\n\
         [grpc]\naddress = \"{}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\n\
         restrict_oom_score_adj = true\ndisable_apparmor = true\nnetns_mounts_under_state_dir = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{}\"\nconf_dir = \"{}\"\n",
        at("root"),
        at("state"),
        at("containerd.sock"),
        at("plugins"),
        at("net.d")
    )
}

#[test]
fn two_pods_reach_each_other_and_the_node() {
    let runtime = Runtime::new();
    runtime.daemon.bridge("br0");
    runtime.host_port();
    let mut plugin = runtime.conf.clone();
    plugin["capabilities"] = json!({"portMappings": true});
    let network = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]});
    let containerd = Containerd::start(&runtime.node, &network);
    let (a, b) = (containerd.run("a", None), containerd.run("b", Some(8080)));
    assert_eq!((a.addresses.len(), b.addresses.len()), (2, 2), "both families");
    for (from, to) in [(&a, &b), (&b, &a)] {
        for address in &to.addresses {
            let ping = format!("ping -c 1 -W 2 {address}");
            assert!(containerd.exec(from, &ping).is_some(), "{ping}\n{}", runtime.daemon.log());
        }
        let fetch = format!("wget -q -O - http://{}/", to.addresses[0]);
        wait_until("the page is served", LONG, || containerd.exec(from, &fetch).as_deref() == Some(PAGE));
        assert!(containerd.exec(from, "ping -c 1 -W 2 10.88.0.1").is_some(), "the node");
    }
    for address in a.addresses.iter().chain(&b.addresses) {
        assert!(runtime.node.net.run(&format!("ping -c 1 -W 2 {address}")).contains("1 received"));
    }
    let fetch = "wget -q -O - http://10.88.0.1:8080/";
    assert_eq!(containerd.exec(&a, fetch).as_deref(), Some(PAGE), "the published port");
    assert_eq!(runtime.node.net.run("busybox wget -q -O - http://127.0.0.1:8080/").trim(), PAGE);
    for port in runtime.ports() {
        let labels = port.port.labels;
        assert_eq!(labels["k8s/namespace"], "shop");
        assert_eq!(labels["k8s/uid"], format!("uid-{}", labels["k8s/pod"]));
    }
    containerd.remove(&a);
    assert_eq!((runtime.ports().len(), runtime.leases().len()), (1, 1));
    containerd.remove(&b);
    runtime.assert_empty();
    assert_eq!(runtime.node.net.run("nft list ruleset"), "");
    assert_eq!(runtime.devices(), ["switch0"]);
    assert!(containerd.namespaces().is_empty(), "{:?}", containerd.namespaces());
    assert!(shims(&containerd.socket).is_empty());
    let dels: Vec<_> = containerd.asked().into_iter().filter(|(verb, _)| verb == "DEL").collect();
    assert_eq!(dels.len(), 4, "{dels:?}");
    assert_eq!(dels.iter().filter(|(_, netns)| netns.is_empty()).count(), 2, "{dels:?}");
}
