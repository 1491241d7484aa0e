//! `switch-ctl install` and `uninstall`, below a directory that stands for a node's file system: runtimes see the network
//! when it works and not before, and afterwards everything is as it was.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use switch_api::{PortSettings, PortStatus, Request};
use switch_lab::world::{Service, ask_tcp, ask_udp};
use switch_lab::{Daemon, Net, Node, Options, wait_until};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");
const LONG: Duration = Duration::from_secs(60);
/// Where kubeadm's and k3s's runtimes look.
const NETWORKS: [&str; 2] = ["etc/cni/net.d", "var/lib/rancher/k3s/agent/etc/cni/net.d"];
const PLUGINS: [&str; 2] = ["opt/cni/bin", "var/lib/rancher/k3s/data/current/bin"];

/// A node with a file system of its own, and a service manager that writes down what it is told.
struct System {
    node: Node,
    root: PathBuf,
    programs: PathBuf,
    socket: PathBuf,
    conflist: PathBuf,
}

impl System {
    fn new() -> Self {
        let node = Node::new();
        let at = |name: &str| node.directory().join(name);
        let (root, programs, socket, conflist) =
            (at("root"), at("programs"), at("switchd.sock"), at("pods.conflist"));
        let there = [
            "var/lib",
            "usr/bin",
            "usr/sbin",
            "run/systemd/system",
            "etc/systemd/system",
            "etc/udev/rules.d",
        ];
        for directory in there.into_iter().chain([PLUGINS[1], "etc/kubernetes"]) {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::fs::create_dir_all(&programs).unwrap();
        let switchd = Options::beside(CTL).switchd;
        for (name, from) in [
            ("switchd", switchd.clone()),
            ("switch-ctl", CTL.into()),
            ("switch-cni", switchd.with_file_name("switch-cni")),
        ] {
            std::fs::hard_link(&from, programs.join(name))
                .or_else(|_| std::fs::copy(&from, programs.join(name)).map(drop))
                .unwrap_or_else(|error| {
                    panic!("{}: {error}: cargo build --workspace --bins", from.display())
                });
        }
        let fake = programs.join("systemctl");
        std::fs::write(&fake, format!("#!/bin/sh\necho \"$@\" >>{}\n", at("asked").display())).unwrap();
        std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
        let text = serde_json::json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{
            "type": "switch-cni", "bridge": "br0", "socket": socket, "stateDir": at("pending"),
            "ipam": {"type": "switch-cni", "pool": "pods", "ranges": [
                {"subnet": "10.88.0.0/24", "gateway": "10.88.0.1"}, {"subnet": "fd88::/64", "gateway": "fd88::1"},
            ]},
        }]});
        std::fs::write(&conflist, text.to_string()).unwrap();
        Self { root, programs, socket, conflist, node }
    }

    fn start(&self, words: &[&str]) -> Child {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.programs.display());
        let mut command = Command::new(self.programs.join("switch-ctl"));
        command.env("PATH", path).arg("--socket").arg(&self.socket).args(words);
        command.arg("--root").arg(&self.root).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn install(&self) -> Child {
        self.start(&["install", "--conflist", self.conflist.to_str().unwrap()])
    }

    fn run(&self, words: &[&str]) -> Output {
        self.start(words).wait_with_output().unwrap()
    }

    /// The daemon that was installed, as its unit would start it.
    fn daemon(&self) -> Daemon {
        self.node.start(&Options::new(self.root.join("usr/sbin/switchd")).keeping_state())
    }

    fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.node.directory().join("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Every file, with a number for what is in it, and every directory.
    fn tree(&self) -> BTreeMap<PathBuf, u64> {
        let mut tree = BTreeMap::new();
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let what = match path.is_dir() {
                    true => 0,
                    false => {
                        use std::hash::{DefaultHasher, Hash, Hasher};
                        let mut hasher = DefaultHasher::new();
                        std::fs::read(&path).unwrap().hash(&mut hasher);
                        hasher.finish()
                    }
                };
                if path.is_dir() {
                    directories.push(path.clone());
                }
                tree.insert(path, what);
            }
        }
        tree
    }

    /// Devices with their XDP programs, addresses, routes and rules of the node.
    fn network(&self) -> String {
        let links = self.node.net.ip("-d -o link");
        // Counters of a neighbour's life are no configuration.
        let rest = ["-o addr", "route show table all", "-6 route show table all", "rule", "-6 rule"]
            .map(|line| self.node.net.ip(line));
        let rules = self.node.net.run("nft list ruleset");
        let forwards = self.node.net.run("sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding");
        // Programs of the kernel's that are attached elsewhere than by XDP.
        let attached = ["tc qdisc show", "tc filter show"].map(|line| self.node.net.run(line)).concat();
        format!("{links}{}{rules}{forwards}{attached}", rest.join(""))
    }

    /// What a runtime does with what it finds: the verb on a container's `eth0`.
    fn cni(&self, verb: &str, container: &Net) -> serde_json::Value {
        self.cni_of("c1", verb, container)
    }

    fn cni_of(&self, id: &str, verb: &str, container: &Net) -> serde_json::Value {
        let conflist = std::fs::read(self.root.join(NETWORKS[0]).join("10-switch.conflist")).unwrap();
        let conflist: serde_json::Value = serde_json::from_slice(&conflist).unwrap();
        let mut conf = conflist["plugins"][0].clone();
        conf["name"] = conflist["name"].clone();
        conf["cniVersion"] = conflist["cniVersion"].clone();
        let mut child = Command::new(self.root.join(PLUGINS[0]).join("switch-cni"))
            .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0")])
            .env("CNI_NETNS", container.path())
            .env("CNI_ARGS", "K8S_POD_NAME=web-0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }
}

fn refused(output: &Output, code: i32, part: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(part), "{part}: {said}");
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn runtimes_see_the_network_when_it_works_and_in_the_end_everything_is_as_it_was() {
    let system = System::new();
    let network = |at: usize| system.root.join(NETWORKS[at]).join("10-switch.conflist");
    // Somebody else's network, and somebody else's file.
    std::fs::create_dir_all(system.root.join(NETWORKS[0])).unwrap();
    let flannel = system.root.join(NETWORKS[0]).join("05-flannel.conflist");
    std::fs::write(&flannel, r#"{"name":"cbr0","plugins":[{"type":"flannel"}]}"#).unwrap();
    let before = system.tree();
    let output = system.install().wait_with_output().unwrap();
    refused(&output, 6, "/etc/cni/net.d/05-flannel.conflist (network cbr0, by flannel)");
    assert_eq!(system.tree(), before);
    std::fs::remove_file(&flannel).unwrap();
    // A list of ours that somebody wrote, which cannot work.
    let chain = r#"{"name":"mine","plugins":[{"type":"switch-cni"},{"type":"firewall"}]}"#;
    std::fs::write(&flannel, chain).unwrap();
    let output = system.install().wait_with_output().unwrap();
    refused(&output, 6, "in /etc/cni/net.d/05-flannel.conflist the plugin firewall is behind switch-cni");
    std::fs::remove_file(flannel).unwrap();
    let theirs = system.root.join("usr/sbin/switchd");
    std::fs::write(&theirs, "another program").unwrap();
    refused(&system.install().wait_with_output().unwrap(), 5, "/usr/sbin/switchd is there already");
    std::fs::remove_file(theirs).unwrap();
    succeeded(&system.run(&["uninstall"]));
    let (before, as_it_was) = (system.tree(), system.network());
    // It waits for the daemon, and runtimes are not told before.
    let mut install = system.install();
    wait_until("it asks for the daemon", LONG, || {
        system.asked().iter().any(|words| words.contains("enable --now"))
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(install.try_wait().unwrap().is_none() && !network(0).exists() && !network(1).exists());
    let daemon = system.daemon();
    let said = succeeded(&install.wait_with_output().unwrap());
    assert!(said.contains("k3s replaces its directory"), "{said}");
    for (plugins, at) in PLUGINS.into_iter().zip([0, 1]) {
        assert!(network(at).is_file() && system.root.join(plugins).join("switch-cni").is_file());
    }
    assert!(system.root.join("etc/udev/rules.d/79-switch.rules").is_file());
    assert!(!system.root.join("etc/NetworkManager").exists(), "nobody is here who would read it");
    let container = Net::new("c1");
    let address = system.cni("ADD", &container)["ips"][0]["address"].as_str().unwrap().to_owned();
    for gateway in ["10.88.0.1", "fd88::1"] {
        let ping = format!("ping -n -c 1 -W 1 {gateway}");
        wait_until(&ping, LONG, || container.try_run(&ping).status.success());
    }
    let address = address.split('/').next().unwrap();
    assert!(system.node.net.run(&format!("ping -n -c 1 -W 2 {address}")).contains("1 received"));
    // Done again, nothing changes: neither on disk nor in the daemon.
    let ports = |daemon: &Daemon| -> Vec<PortStatus> { daemon.call(&Request::PortList(Default::default())) };
    let (installed, declared) = (system.tree(), ports(&daemon).len());
    succeeded(&system.install().wait_with_output().unwrap());
    assert_eq!((system.tree(), ports(&daemon).len()), (installed, declared));
    // A newer one is put in place whole, and started.
    let newer = system.programs.join("switchd");
    let mut bytes = std::fs::read(&newer).unwrap();
    bytes.push(0);
    std::fs::remove_file(&newer).unwrap();
    std::fs::write(&newer, bytes).unwrap();
    succeeded(&system.install().wait_with_output().unwrap());
    assert_eq!(system.asked().last().unwrap(), "restart switchd.service");
    // Not while somebody uses it.
    refused(&system.run(&["uninstall"]), 6, "(pod web-0)");
    assert!(network(0).is_file());
    system.cni("DEL", &container);
    succeeded(&system.run(&["uninstall"]));
    assert_eq!(system.network(), as_it_was);
    assert_eq!(system.tree(), before);
    let asked = system.asked();
    let last = asked[asked.len() - 3..].join("; ");
    assert_eq!(last, "disable switchd.service; stop switchd.service; daemon-reload");
    assert!(succeeded(&system.run(&["uninstall"])).contains("nothing is installed"));
}

#[test]
fn by_force_all_that_the_daemon_made_goes_too() {
    let system = System::new();
    let pod = system.node.pod(1);
    wait_until("the cable's address is final", LONG, || !system.node.net.ip("addr").contains("tentative"));
    let (before, as_it_was) = (system.tree(), system.network());
    let install = system.install();
    wait_until("the daemon is in place", LONG, || !system.asked().is_empty());
    let daemon = system.daemon();
    succeeded(&install.wait_with_output().unwrap());
    let container = Net::new("c1");
    system.cni("ADD", &container);
    daemon.attach(&pod, "br0", PortSettings::default());
    assert!(system.node.net.ip("-d link show pod1").contains("xdp"));
    refused(&system.run(&["uninstall"]), 6, "2 ports would lose their network");
    succeeded(&system.run(&["uninstall", "--force"]));
    assert!(!container.try_run("ip link show eth0").status.success());
    assert_eq!(system.network(), as_it_was);
    assert_eq!(system.tree(), before);
    assert!(!Path::new(&system.socket).exists());
    let left = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!left.contains(system.node.directory().to_str().unwrap()), "a mount is left");
}

/// What kube-proxy does for a service whose backend is on this node (the daemon's own tests have all the others): it is
/// answered with nothing done but the install.
#[test]
fn beside_kube_proxy_a_service_answers_with_nothing_done_but_the_install() {
    let system = System::new();
    let install = system.install();
    wait_until("the daemon is in place", LONG, || !system.asked().is_empty());
    let daemon = system.daemon();
    succeeded(&install.wait_with_output().unwrap());
    assert!(daemon.port("node").port.settings.return_flows);
    let (asker, dns) = (Net::new("asker"), Net::new("dns"));
    let own = system.cni_of("asker", "ADD", &asker)["ips"][0]["address"].as_str().unwrap().to_owned();
    let backend = system.cni_of("dns", "ADD", &dns)["ips"][0]["address"].as_str().unwrap().to_owned();
    let [own, backend] = [&own, &backend].map(|cidr| cidr.split('/').next().unwrap());
    let _service = Service::new(&dns, 53, "dns");
    let to = format!("dnat to {backend}:53");
    for line in [
        "add table ip kube-proxy".to_owned(),
        "add chain ip kube-proxy prerouting { type nat hook prerouting priority -100 ; }".to_owned(),
        format!("add rule ip kube-proxy prerouting ip daddr 10.96.0.10 udp dport 53 {to}"),
        format!("add rule ip kube-proxy prerouting ip daddr 10.96.0.10 tcp dport 53 {to}"),
    ] {
        system.node.net.run(&format!("nft {line}"));
    }
    let said = Some(format!("dns {own}"));
    wait_until("the service answers", LONG, || ask_udp(&asker, "10.96.0.10:53") == said);
    assert_eq!(ask_tcp(&asker, "10.96.0.10:53"), said);
    // Directly, too.
    assert_eq!(ask_udp(&asker, &format!("{backend}:53")), said);
    // It is what install has set that does it.
    let settings = PortSettings { return_flows: false, ..daemon.port("node").port.settings };
    let set = switch_api::PortSet { name: "node".parse().unwrap(), settings };
    let _: switch_api::Done = daemon.call_as(switch_api::Owner::Cni, &Request::PortSet(set));
    assert_eq!(ask_udp(&asker, "10.96.0.10:53"), None);
}
