//! An uplink on a NIC that stays the host's, where it counts: in an emulated machine, on virtio-net with several queues,
//! zero-copy and generic, and on an e1000e, whose driver has no XDP of its own; and what is made of NICs, with the
//! kernel's own VLANs, bonds and bridges. `cargo xtask zerocopy` boots the machine and runs this file in it; it needs the
//! devices that are made there and runs nowhere else. Each NIC (MAC 52:54:00:00:00:0N) is joined with another
//! (52:54:00:00:01:0N), which is a host beside the node.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use switch_api::{
    ByDevice, ByName, Done, Nothing, Port, PortKind, PortState, ProbeReply, Request, VrfStatus, XdpMode,
};
use switch_lab::cross::Router;
use switch_lab::session::Session;
use switch_lab::transfer::tcp;
use switch_lab::{Daemon, Net, Options, wait_until};

/// An emulated processor is some thirty times slower than this one.
const EMULATED: Duration = Duration::from_secs(60);
/// What the node is given by DHCP.
const LEASED: &str = "10.90.0.50";
/// What busybox's DHCP client is to do with what it is given.
const SCRIPT: &str = "#!/bin/busybox sh
[ $1 = bound ] || [ $1 = renew ] || exit 0
ip addr replace $ip/24 dev $interface
ip route replace default via $router
echo $1 $ip >> DIRECTORY/leased
";
const SERVER: &str = "start LEASED
end LEASED
interface eth0
lease_file DIRECTORY/leases
pidfile DIRECTORY/udhcpd.pid
option subnet 255.255.255.0
option router 10.90.0.1
option lease 600
";

/// The name of the device with this MAC, in the namespace we started in.
fn device(mac: &str) -> String {
    let names = std::fs::read_dir("/sys/class/net").unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let address = |name: &str| std::fs::read_to_string(format!("/sys/class/net/{name}/address"));
    names.find(|name| address(name).is_ok_and(|address| address.trim() == mac)).unwrap_or_else(|| {
        panic!("no device {mac}: this runs in the machine that `cargo xtask zerocopy` boots")
    })
}

/// A DHCP client or server of busybox's; ended when dropped.
struct Busybox(Child);

impl Busybox {
    fn start(net: &Net, words: &str) -> Self {
        let mut command = net.command("/bin/busybox");
        command.args(words.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Busybox {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The node's lease.
struct Lease {
    client: Busybox,
    _server: Busybox,
    leased: PathBuf,
}

impl Lease {
    fn begin(node: &Net, far: &Net, directory: &Path) -> Self {
        let write = |name: &str, text: &str| -> String {
            let path = directory.join(name);
            let text = text.replace("DIRECTORY", &directory.display().to_string()).replace("LEASED", LEASED);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let (script, server) = (write("script", SCRIPT), write("udhcpd.conf", SERVER));
        write("leases", "");
        let server = Busybox::start(far, &format!("udhcpd -f {server}"));
        let client = Busybox::start(node, &format!("udhcpc -f -i nic -s {script} -t 30 -T 2"));
        let lease = Self { client, _server: server, leased: directory.join("leased") };
        wait_until("a lease", EMULATED, || lease.count() > 0);
        lease
    }

    fn count(&self) -> usize {
        std::fs::read_to_string(&self.leased).map_or(0, |said| said.matches(LEASED).count())
    }

    /// It can be renewed.
    fn holds(&self, when: &str) {
        let before = self.count();
        kill_process(Pid::from_child(&self.client.0), Signal::USR1).unwrap();
        wait_until(&format!("{when}: the lease is renewed"), EMULATED, || self.count() > before);
    }
}

fn add(daemon: &Daemon, mode: XdpMode) {
    let mut kind = PortKind::uplink("nic");
    if let PortKind::Xdp { mode: asked, .. } = &mut kind {
        *asked = mode;
    }
    let port = Port::new("up".parse().unwrap(), "wan".parse().unwrap(), kind);
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
}

/// Moves cable `n`: the NIC into the node as `nic`, the other into a host beside it, with 10.90.0.1.
fn cable(node: &Net, n: u8) -> Net {
    let far = Net::new("far");
    let run = |words: String| switch_lab::net::run("ip", &words.split(' ').collect::<Vec<_>>());
    run(format!("link set {} netns {} name nic", device(&format!("52:54:00:00:00:0{n}")), node.name()));
    run(format!("link set {} netns {} name eth0", device(&format!("52:54:00:00:01:0{n}")), far.name()));
    node.ip("link set nic up");
    far.ip("link set eth0 up");
    far.ip("addr add 10.90.0.1/24 dev eth0");
    far
}

#[test]
fn on_virtio_net_a_session_and_a_lease_outlive_whatever_happens_to_the_switch() {
    // The kernel's generic mode is the same on every driver, and e1000e has no other.
    let modes = [(XdpMode::ZeroCopy, "zero-copy"), (XdpMode::Generic, "generic")];
    let is_all = std::env::var("MODES").is_ok_and(|modes| modes == "all");
    if !is_all {
        println!(
            "not in generic mode, of which e1000e shows the same in a minute less: `cargo xtask zerocopy` runs it"
        );
    }
    outlive(4, 2, if is_all { &modes } else { &modes[..1] });
}

#[test]
fn on_e1000e_a_session_and_a_lease_outlive_whatever_happens_to_the_switch() {
    outlive(5, 1, &[(XdpMode::Auto, "generic")]);
}

/// Waits until the pod answers the host beside the node with this TTL. If it does not, says all that can be seen of why.
fn wait_for_pod(when: &str, reaches: impl Fn(&str) -> bool, daemon: &Daemon, nets: [&Net; 3]) {
    let deadline = Instant::now() + EMULATED;
    while !reaches("ttl=63") {
        if Instant::now() < deadline {
            continue;
        }
        println!("{when}: no answer past the kernel: {:?}\n{:?}", daemon.port("up"), daemon.stats());
        for net in nets {
            for words in ["ip -s link", "ip neigh", "ip route", "ping -n -c 1 -W 2 10.1.0.2"] {
                let said = net.try_run(words);
                println!("{}: {words}\n{}", net.name(), String::from_utf8_lossy(&said.stdout));
            }
        }
        panic!("{when}: waited {EMULATED:?} in vain\n{}", daemon.log());
    }
}

/// On cable `n`, whose NIC has so many queues, in each of these modes, which run as the kernel says.
fn outlive(n: u8, queues: usize, modes: &[(XdpMode, &str)]) {
    let mut node = Router::new(1);
    let far = cable(&node.node.net, n);
    far.ip(&format!("route add 10.1.0.0/24 via {LEASED}"));
    let options = Options::new(env!("CARGO_BIN_EXE_switchd")).keeping_state().with("--cores 0,1");
    let mut daemon = node.start(&options);
    node.pod(&daemon, 2);
    daemon.bridge("wan");
    // The node's default route leads to the far host, whose route to pods leads back: what is not caught goes round.
    let lease = Lease::begin(&node.node.net, &far, node.node.directory());
    let mut session = Session::open(&far, &node.node.net, LEASED.parse().unwrap(), EMULATED);
    for (mode, runs) in modes.iter().copied() {
        let began = Instant::now();
        let reaches = |ttl: &str| {
            let said = far.try_run("ping -n -c 1 -W 2 10.1.0.2");
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(!said.contains("exceeded"), "{said}");
            said.contains(ttl)
        };
        let check = |session: &mut Session, when: &str| {
            session.types(when);
            lease.holds(when);
        };
        let past_the_kernel = |when: &str, daemon: &Daemon| {
            wait_for_pod(when, reaches, daemon, [&far, &node.node.net, &node.pods[0].net]);
        };
        wait_until("pods by the kernel", EMULATED, || reaches("ttl=62"));
        add(&daemon, mode);
        let port = daemon.port("up");
        assert_eq!((port.mode.as_deref(), port.workers.len()), (Some(runs), queues), "{port:?}");
        check(&mut session, "attached");
        let vrfs: Vec<VrfStatus> = daemon.call(&Request::VrfList(Nothing {}));
        let warned = vrfs[0].problems.iter().any(|problem| problem.contains("ethtool -K nic gro off"));
        assert_eq!(warned, runs == "generic", "{vrfs:?}");
        past_the_kernel("pods past the kernel", &daemon);
        let pod = &node.pods[0];
        assert_eq!(tcp(&far, &pod.net, "10.1.0.2".parse().unwrap(), 300_000), 300_000, "TCP in, {runs}");
        assert_eq!(tcp(&pod.net, &far, "10.90.0.1".parse().unwrap(), 300_000), 300_000, "TCP out, {runs}");

        daemon.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(1100));
        check(&mut session, "stopped");
        assert!(!reaches("ttl="), "who would have answered?");
        daemon.signal(Signal::CONT);
        past_the_kernel("pods after a stop", &daemon);

        daemon.kill();
        std::thread::sleep(Duration::from_millis(1100));
        check(&mut session, "killed");
        assert!(!reaches("ttl="), "who would have answered?");
        daemon = node.node.start(&options);
        check(&mut session, "started again");
        past_the_kernel("pods after a crash", &daemon);

        // Another address beside it, and by that the way to the pods.
        node.node.net.ip("addr add 10.90.0.60/24 dev nic");
        far.ip("route replace 10.1.0.0/24 via 10.90.0.60");
        check(&mut session, "another address");
        past_the_kernel("pods by another address", &daemon);
        node.node.net.ip("addr del 10.90.0.60/24 dev nic");
        far.ip(&format!("route replace 10.1.0.0/24 via {LEASED}"));

        node.node.net.ip("link set nic down");
        wait_until("down", EMULATED, || daemon.port("up").state == PortState::Down);
        node.node.net.ip("link set nic up");
        // The default route comes back with the lease.
        check(&mut session, "after a flap");
        past_the_kernel("pods after a flap", &daemon);

        let _: Done = daemon.call(&Request::PortDelete(ByName { name: "up".parse().unwrap() }));
        check(&mut session, "detached");
        daemon.assert_conserved();
        println!("{runs}: {:.1} s", began.elapsed().as_secs_f64());
    }
    daemon.stop(true);
}

/// What somebody is told who wants an uplink on a device: the reason, and what to do.
fn refusal(daemon: &Daemon, device: &str) -> (String, String) {
    let port = Port::new("up".parse().unwrap(), "wan".parse().unwrap(), PortKind::uplink(device));
    let refused = daemon.client().call::<Done>(&Request::PortAdd(Box::new(port)));
    let probe: ProbeReply = daemon.call(&Request::PortProbe(ByDevice { device: device.into() }));
    let shared = probe.tried.iter().find(|tried| tried.what == "shared uplink").unwrap();
    let error = refused.unwrap_err();
    assert!(!shared.works && shared.detail == error.message, "{probe:?}");
    (error.message, error.data.hint.unwrap_or_default())
}

#[test]
fn what_is_made_of_nics_is_refused_with_the_reason_and_beside_a_shared_nic_it_goes_on() {
    let mut node = Router::new(1);
    let far = cable(&node.node.net, 6);
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with("--cores 0,1"));
    node.pod(&daemon, 2);
    daemon.bridge("wan");
    let net = &node.node.net;
    for (make, device, kind) in [
        ("link add link nic name nic.7 type vlan id 7", "nic.7", "vlan"),
        ("link add bond0 type bond mode active-backup", "bond0", "bond"),
        ("link add lan type bridge", "lan", "bridge"),
        ("link add red type vrf table 7", "red", "vrf"),
        ("link add link nic name copy type macvlan", "copy", "macvlan"),
    ] {
        net.ip(make);
        // A VRF's is larger than any port takes, which would be said first.
        net.ip(&format!("link set {device} mtu 1500 up"));
        let (said, hint) = refusal(&daemon, device);
        assert!(said.contains(&format!("device {device} is a {kind}, made of other devices")), "{said}");
        assert!(hint.contains("host port") && hint.contains("name a NIC"), "{hint}");
    }
    net.ip("link delete copy");
    for (master, kind) in [("bond0", "bond"), ("lan", "bridge"), ("red", "vrf")] {
        // A bond takes only what is down.
        net.ip("link set nic down");
        net.ip(&format!("link set nic master {master}"));
        net.ip("link set nic up");
        let (said, hint) = refusal(&daemon, "nic");
        assert!(said.contains(&format!("a member of {master} ({kind})")), "{said}");
        assert!(hint.contains("ip link set DEV nomaster"), "{hint}");
        net.ip("link set nic nomaster");
    }
    net.ip("link set nic up");
    // The NIC itself is shared, and its VLANs stay the kernel's, to the pods as to everybody.
    net.ip("addr add 10.90.0.2/24 dev nic");
    net.ip("addr add 10.97.0.2/24 dev nic.7");
    net.ip("link set nic.7 up");
    far.ip("link add link eth0 name eth0.7 type vlan id 7");
    far.ip("addr add 10.97.0.1/24 dev eth0.7");
    far.ip("link set eth0.7 up");
    far.ip("route add 10.1.0.0/24 via 10.90.0.2");
    let mut session = Session::open(&far, net, "10.97.0.2".parse().unwrap(), EMULATED);
    add(&daemon, XdpMode::Auto);
    let reaches = |address: &str, ttl: &str| {
        let said = far.try_run(&format!("ping -n -c 1 -W 2 {address}"));
        String::from_utf8_lossy(&said.stdout).contains(ttl)
    };
    wait_until("pods past the kernel", EMULATED, || reaches("10.1.0.2", "ttl=63"));
    session.types("beside an uplink");
    far.ip("route replace 10.1.0.0/24 via 10.97.0.2");
    wait_until("pods by the VLAN, which is the kernel's", EMULATED, || reaches("10.1.0.2", "ttl=62"));
    // It becomes a member of a bond while it is shared.
    net.ip("link set nic down");
    net.ip("link set nic master bond0");
    net.ip("link set nic up");
    let why = || daemon.port("up").reason.unwrap_or_default();
    wait_until("its uplink ends", EMULATED, || why().contains("a member of bond0 (bond)"));
    net.ip("link set nic nomaster");
    net.ip("link set nic up");
    wait_until("its uplink is back", EMULATED, || daemon.port("up").state == PortState::Up);
    daemon.assert_conserved();
}
