//! A node: a namespace with a daemon in it, and pods joined to it by veth pairs.

use crate::net::Net;
use crate::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use switch_api::{
    Bridge, Cidr, Client, Done, HOST_DEVICE_DEFAULT, Owner, Port, PortKind, PortSettings, PortStatus,
    Request, Stats,
};

/// How long the daemon may take to start, stop or answer on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node's namespace and directory.
#[derive(Debug)]
pub struct Node {
    /// Where its daemon and the host's ends of the cables live.
    pub net: Net,
    directory: PathBuf,
}

/// A pod: a namespace with one device, `eth0`, whose other end is in the node.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace.
    pub net: Net,
    /// The name of the node's end of its cable.
    pub device: String,
    /// Its IPv4 address.
    pub ip: String,
}

/// How the daemon is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub switchd: PathBuf,
    /// A program that starts it, with its words.
    pub through: Vec<String>,
    /// Further words.
    pub words: Vec<String>,
    /// Keep state across restarts.
    pub keeps_state: bool,
}

impl Options {
    /// The program, and nothing special.
    pub fn new(switchd: impl Into<PathBuf>) -> Self {
        Self { switchd: switchd.into(), through: Vec::new(), words: Vec::new(), keeps_state: false }
    }

    /// The program that `SWITCHD` names, or the one beside `program`.
    pub fn beside(program: &str) -> Self {
        let beside = || Path::new(program).with_file_name("switchd");
        Self::new(std::env::var_os("SWITCHD").map_or_else(beside, PathBuf::from))
    }

    /// With further words, separated by blanks.
    pub fn with(mut self, words: &str) -> Self {
        self.words.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// Started by another program, given with its words, that changes what it may do and becomes it.
    pub fn through(mut self, line: &str) -> Self {
        self.through.extend(line.split_whitespace().map(str::to_owned));
        self
    }

    /// With a state file, so that a restart finds what was declared.
    pub fn keeping_state(mut self) -> Self {
        self.keeps_state = true;
        self
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    /// Its socket.
    pub socket: PathBuf,
    log: PathBuf,
}

impl Node {
    /// An empty node.
    pub fn new() -> Self {
        let net = Net::new("node");
        let directory = std::env::temp_dir().join(net.name());
        std::fs::create_dir_all(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        Self { net, directory }
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Packets that its end of a pod's cable has dropped, either way.
    pub fn dropped(&self, pod: &Pod) -> Result<u64, String> {
        device_counts(&self.net, &pod.device).map(|counts| counts[RX_DROPPED] + counts[TX_DROPPED])
    }

    /// A pod with the address `10.66.0.N/24`, its cable plugged in. Device settings are the kernel's.
    pub fn pod(&self, n: u8) -> Pod {
        let (net, device) = (Net::new(&format!("pod{n}")), format!("pod{n}"));
        let pod = Pod { net, device, ip: format!("10.66.0.{n}") };
        self.plug(&pod);
        pod
    }

    /// A pod on the network `10.NET.0.0/24`, `fd10:NET::/64` with the host number `n`, and a default route by
    /// its first address.
    pub fn pod_on(&self, net: u8, n: u8) -> Pod {
        let name = format!("pod{net}-{n}");
        let pod = Pod { net: Net::new(&name), device: name, ip: format!("10.{net}.0.{n}") };
        let (device, peer, mac) = (&pod.device, pod.net.name(), pod.mac());
        self.net.ip(&format!("link add {device} type veth peer name eth0 address {mac} netns {peer}"));
        self.net.ip(&format!("link set {device} up"));
        pod.net.ip("link set eth0 up");
        pod.net.ip(&format!("addr add {}/24 dev eth0", pod.ip));
        pod.net.ip(&format!("addr add fd10:{net}::{n}/64 dev eth0 nodad"));
        pod.net.ip(&format!("route add default via 10.{net}.0.1"));
        pod.net.ip(&format!("route add default via fd10:{net}::1"));
        pod
    }

    /// Makes the pod's cable, or a new one after it was deleted.
    pub fn plug(&self, pod: &Pod) {
        let (device, peer) = (&pod.device, pod.net.name());
        let n = pod.ip.rsplit('.').next().unwrap_or("0");
        // The same address after every plugging, so that its neighbours' caches stay right.
        let mac = pod.mac();
        self.net.ip(&format!("link add {device} type veth peer name eth0 address {mac} netns {peer}"));
        self.net.ip(&format!("link set {device} up"));
        pod.net.ip("link set eth0 up");
        pod.net.ip(&format!("addr add {}/24 dev eth0", pod.ip));
        pod.net.ip(&format!("addr add fd66::{n}/64 dev eth0 nodad"));
    }

    /// A pod without a cable, with the address `10.66.0.N/24`: a tap port gives it its device.
    pub fn bare_pod(&self, n: u8) -> Pod {
        Pod { net: Net::new(&format!("pod{n}")), device: format!("tap{n}"), ip: format!("10.66.0.{n}") }
    }

    /// A daemon and two pods on `br0`, by xdp ports `pod1` and `pod2`, that reach each other.
    pub fn two_pods(&self, options: &Options) -> (Daemon, [Pod; 2]) {
        let daemon = self.start(options);
        daemon.bridge("br0");
        let pods = [self.pod(1), self.pod(2)];
        for pod in &pods {
            daemon.attach(pod, "br0", PortSettings::default());
        }
        wait_until("pods reach each other", PATIENCE, || pods[0].reaches(&pods[1].ip));
        (daemon, pods)
    }

    /// Starts the daemon and waits until it serves.
    pub fn start(&self, options: &Options) -> Daemon {
        self.start_at("switchd.sock", options)
    }

    /// The same, with its socket elsewhere in the node's directory: beside another daemon. Its log is the same file.
    pub fn start_at(&self, socket: &str, options: &Options) -> Daemon {
        let socket = self.directory.join(socket);
        let log = self.directory.join("log");
        let file = std::fs::File::options().create(true).append(true).open(&log);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let switchd = options.switchd.display().to_string();
        let mut words = options.through.iter().cloned().chain([switchd]);
        let mut command = self.net.command(&words.next().unwrap_or_default());
        command.args(words).arg("--socket").arg(&socket).args(&options.words);
        if options.keeps_state {
            command.arg("--state").arg(self.directory.join("state"));
        }
        let child = command.stderr(file).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", options.switchd.display()));
        let mut daemon = Daemon { child: Some(child), socket, log };
        let mut ended = false;
        wait_until("switchd serves", PATIENCE, || {
            ended = daemon.has_ended();
            ended || Client::connect(&daemon.socket, PATIENCE).is_ok()
        });
        assert!(!ended, "switchd ended at once:\n{}", daemon.log());
        daemon
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

/// Places of a device's counts (proc_pid_net(5)).
const RX_BYTES: usize = 0;
const RX_PACKETS: usize = 1;
const RX_DROPPED: usize = 3;
const TX_PACKETS: usize = 9;
const TX_DROPPED: usize = 11;

/// The sixteen counts of a device. Starts no process, whose end would interrupt a measurement.
fn device_counts(net: &Net, device: &str) -> Result<[u64; 16], String> {
    let reading = net.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let said = reading.join().map_err(|_| "the reader panicked")?.map_err(|error| error.to_string())?;
    let line = said.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let counts: Vec<u64> =
        line.unwrap_or("").split_whitespace().map_while(|word| word.parse().ok()).collect();
    counts.try_into().map_err(|_| format!("the kernel tells no statistics of {device}"))
}

impl Drop for Node {
    fn drop(&mut self) {
        // A daemon that was killed leaves its mount behind.
        _ = Command::new("umount").arg("-l").arg(self.directory.join("bpf")).output();
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Pod {
    /// The MAC address of its device.
    pub fn mac(&self) -> switch_api::Mac {
        let mut parts = self.ip.split('.').map(|part| part.parse().unwrap_or(0));
        let [_, net, _, n] = std::array::from_fn(|_| parts.next().unwrap_or(0));
        switch_api::Mac([0x02, net, 0, 0, 0, n])
    }

    /// Its number on the node.
    pub fn number(&self) -> u8 {
        self.ip.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// Packets and bytes that its device has received.
    pub fn received(&self) -> Result<(u64, u64), String> {
        let counts = device_counts(&self.net, "eth0")?;
        Ok((counts[RX_PACKETS], counts[RX_BYTES]))
    }

    /// Packets that its device has sent, and those that it dropped instead.
    pub fn sent(&self) -> Result<(u64, u64), String> {
        let counts = device_counts(&self.net, "eth0")?;
        Ok((counts[TX_PACKETS], counts[TX_DROPPED]))
    }

    /// Packets that its device has dropped, either way.
    pub fn dropped(&self) -> Result<u64, String> {
        device_counts(&self.net, "eth0").map(|counts| counts[RX_DROPPED] + counts[TX_DROPPED])
    }

    /// Pings once; whether an answer came within a second.
    pub fn reaches(&self, ip: &str) -> bool {
        self.net.try_run(&format!("ping -n -c 1 -W 1 {ip}")).status.success()
    }
}

impl Daemon {
    /// A connection.
    pub fn client(&self) -> Client {
        Client::connect(&self.socket, PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Asks something that must succeed.
    pub fn call<T: serde::de::DeserializeOwned>(&self, request: &Request) -> T {
        self.client().call(request).unwrap_or_else(|error| panic!("{request:?}: {error:?}\n{}", self.log()))
    }

    /// The same, asked as somebody other than the operator.
    pub fn call_as<T: serde::de::DeserializeOwned>(&self, owner: Owner, request: &Request) -> T {
        let client = Client::connect_as(&self.socket, PATIENCE, owner);
        let answer = client.and_then(|mut client| client.call(request));
        answer.unwrap_or_else(|error| panic!("{request:?}: {error:?}\n{}", self.log()))
    }

    /// Adds a bridge.
    pub fn bridge(&self, name: &str) {
        let name = name.parse().unwrap_or_else(|error| panic!("{error}"));
        let bridge = Bridge::new(name);
        let _: Done = self.call(&Request::BridgeAdd(bridge));
    }

    /// Gives a bridge a gateway address.
    pub fn gateway(&self, bridge: &str, address: &str) {
        let parse = |name: &str| name.parse().unwrap_or_else(|error| panic!("{error}"));
        let address = address.parse().unwrap_or_else(|error| panic!("{error}"));
        let vid = switch_api::Vid::DEFAULT;
        let gateway =
            switch_api::BridgeAddress { bridge: parse(bridge), address, vid, owner: Default::default() };
        let _: Done = self.call(&Request::AddressAdd(gateway));
    }

    /// Adds an xdp port on a pod's cable, named after it, to `bridge`.
    pub fn attach(&self, pod: &Pod, bridge: &str, settings: PortSettings) {
        let _: Done = self.call(&Request::PortAdd(Box::new(xdp_port(&pod.device, bridge, settings))));
    }

    /// Adds a tap port in a pod, named after its device, to `bridge`. The pod has its addresses afterwards.
    pub fn attach_tap(&self, pod: &Pod, bridge: &str, settings: PortSettings) {
        let _: Done = self.call(&Request::PortAdd(Box::new(tap_port(pod, bridge, settings))));
    }

    /// Adds a host port with the address `10.66.0.N/24`; its device is `switch0`.
    pub fn attach_host(&self, n: u8, bridge: &str) {
        let _: Done = self.call(&Request::PortAdd(Box::new(host_port(n, bridge))));
    }

    /// One port's status.
    pub fn port(&self, name: &str) -> PortStatus {
        let ports: Vec<PortStatus> = self.call(&Request::PortList(Default::default()));
        let found = ports.into_iter().find(|port| port.port.name.as_str() == name);
        found.unwrap_or_else(|| panic!("no port {name}"))
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.call(&Request::StatsGet(Default::default()))
    }

    /// Frames dropped for a reason, over all ports.
    pub fn drops(&self, reason: &str) -> u64 {
        self.stats().drops.iter().filter(|drop| drop.reason == reason).map(|drop| drop.frames).sum()
    }

    /// The same of one port: whose frames they were, or would have been.
    pub fn drops_at(&self, port: &str, reason: &str) -> u64 {
        let drops = self.stats().drops;
        drops
            .iter()
            .filter(|drop| drop.reason == reason && drop.port.as_str() == port)
            .map(|drop| drop.frames)
            .sum()
    }

    /// Waits until every frame is accounted for; every packet is, at any time.
    pub fn assert_conserved(&self) {
        let mut last = self.stats();
        let deadline = std::time::Instant::now() + PATIENCE;
        while last.frames.unaccounted != 0 {
            let frames = last.frames;
            assert!(std::time::Instant::now() < deadline, "frames are lost: {frames:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
            last = self.stats();
        }
        assert_eq!(last.packets.unaccounted, 0, "{:?}", last.packets);
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// User and system time of all its threads, to a clock tick of 10 ms (proc_pid_stat(5), fields 14 and 15).
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The second field is a name in parentheses that may contain blanks; what follows begins with the third.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |n: usize| fields.get(n - 3).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let ticks_a_second = rustix::param::clock_ticks_per_second();
        Duration::from_secs_f64((field(14) + field(15)) as f64 / ticks_a_second as f64)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// Stops it; with `detach` nothing of it stays.
    pub fn stop(&mut self, detach: bool) {
        let _: Done = self.call(&Request::Stop(switch_api::Stop { detach }));
        wait_until("switchd ends", PATIENCE, || self.has_ended());
        self.child = None;
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A tap port in `pod`, with its addresses and MAC.
pub fn tap_port(pod: &Pod, bridge: &str, settings: PortSettings) -> Port {
    let mut port = xdp_port(&pod.device, bridge, settings);
    port.kind = PortKind::tap(&pod.net.path());
    if let PortKind::Tap { mac, addresses, .. } = &mut port.kind {
        *mac = Some(pod.mac());
        *addresses = addresses_of(pod.number());
    }
    port
}

/// The node's own port, with the address `10.66.0.N/24`.
pub fn host_port(n: u8, bridge: &str) -> Port {
    let mut port = xdp_port("host", bridge, PortSettings::default());
    let (mac, device) = (Some(switch_api::Mac([0x02, 0x66, 0, 0, 0, n])), HOST_DEVICE_DEFAULT.into());
    port.kind = PortKind::Host { device, mac, addresses: addresses_of(n), routes: Vec::new() };
    port
}

fn addresses_of(n: u8) -> Vec<Cidr> {
    let texts = [format!("10.66.0.{n}/24"), format!("fd66::{n}/64")];
    texts.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// An xdp port named after its device, everything else by default.
pub fn xdp_port(device: &str, bridge: &str, settings: PortSettings) -> Port {
    let parse = |name: &str| name.parse().unwrap_or_else(|error| panic!("{error}"));
    Port { settings, ..Port::new(parse(device), parse(bridge), PortKind::xdp(device)) }
}
