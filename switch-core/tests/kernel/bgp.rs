//! Two nodes exchange their pods' networks by BGP, over two cables, with BIRD as Debian has it: pods talk with their
//! own addresses, and go on doing so when a cable fails and when a routing daemon restarts or dies. And with FRR and GoBGP in its
//! place: the switch knows routing daemons by what they write into the kernel.

mod frr;
mod gobgp;

use crate::routing::choice;
use frr::Frr;
use gobgp::GoBgp;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;
use switch_api::{Done, Name, Request, RouteStatus, Vrf};
use switch_core::port::xdp::IDLE_FRAMES;
use switch_lab::cross::Router;
use switch_lab::transfer::tcp;
use switch_lab::{Daemon, Options, Pod, sequence, wait_until};

/// BGP waits five seconds and more between attempts (RFC 4271 §8.2.1.1), and other tests are running.
const LONG: Duration = Duration::from_secs(60);
/// The cables.
const LINKS: [u8; 2] = [90, 91];
/// More than is lost while a cable fails: what is lost must not stop the load.
const WINDOW: u64 = 1 << 20;
/// What fits into an uplink's rings while it is idle, in a third of them as for any xdp port (`queues`): its NIC has no queue that makes a sender wait,
/// so that more is lost whenever a core is late.
const IN_RINGS: u64 = IDLE_FRAMES as u64 / 3;

/// Two loads at once would take the cores from each other, and lose packets in queues.
static ALONE: Mutex<()> = Mutex::new(());

/// BIRD on one node.
struct Bird {
    child: Child,
    directory: PathBuf,
    netns: String,
}

impl Bird {
    fn start(router: &Router, other: &Router) -> Self {
        let directory = router.node.directory().to_owned();
        std::fs::write(directory.join("bird.conf"), configuration(router.net, other.net)).unwrap();
        let netns = router.node.net.path();
        Self { child: spawn(&netns, &directory, &[]), directory, netns }
    }

    /// What `birdc` answers.
    fn ask(&self, words: &str) -> String {
        let mut command = Command::new("birdc");
        command.arg("-s").arg(self.directory.join("bird.ctl")).args(words.split_whitespace());
        String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
    }

    /// How many of its four sessions stand.
    fn established(&self) -> usize {
        self.ask("show protocols").matches("Established").count()
    }

    /// Whether no restart is under way, its own or a neighbour's. A neighbour that ends once more before its restart
    /// is over has its routes forgotten.
    fn settled(&self) -> bool {
        !self.ask("show status").contains("in progress")
            && !self.ask("show protocols all").contains("graceful restart active")
    }

    /// Starts it again, as a supervisor does after a crash or a graceful end: it takes up what is in the kernel.
    fn start_again(&mut self) {
        _ = self.child.wait();
        self.child = spawn(&self.netns, &self.directory, &["-R"]);
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn spawn(netns: &str, directory: &std::path::Path, words: &[&str]) -> Child {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={netns}")).args(["bird", "-f"]).args(words);
    for (flag, file) in [("-c", "bird.conf"), ("-s", "bird.ctl"), ("-P", "bird.pid")] {
        command.arg(flag).arg(directory.join(file));
    }
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
}

/// Learn what the switch announces (`proto 83`), tell it to the neighbour over each cable, and write what he tells,
/// over both cables at once, into the kernel.
///
/// BIRD reads the kernel's routes for the first time one `scan time` after its start. A session that stands before
/// that ends a graceful restart without the pods' routes, and the neighbour forgets them. So the node that restarts
/// is the one that connects, and not before it has read them.
fn configuration(own: u8, other: u8) -> String {
    let mut text = format!(
        "router id 10.255.0.{own};\nlog \"/dev/null\" all;\nprotocol device {{ scan time 1; }}\n\
         filter pods {{ if krt_source = 83 then accept; reject; }}\n\
         filter told {{ if source = RTS_BGP then accept; reject; }}\n"
    );
    for version in ["ipv4", "ipv6"] {
        text += &format!(
            "protocol kernel kernel_{version} {{ learn; persist; graceful restart; merge paths yes; scan time 1; \
             {version} {{ import filter pods; export filter told; }}; }}\n"
        );
    }
    let waits = if own == 1 { "connect delay time 5" } else { "passive on" };
    for link in LINKS {
        for (version, prefix) in [("ipv4", format!("10.{link}.0.")), ("ipv6", format!("fd10:{link}::"))] {
            text += &format!(
                "protocol bgp {version}_{link} {{ local {prefix}{own} as 6450{own}; neighbor {prefix}{other} as 6450{other}; \
                 direct; graceful restart yes; {waits}; error wait time 1, 2; \
                 {version} {{ import where source = RTS_BGP; export where proto ~ \"kernel_*\"; next hop self; }}; }}\n"
            );
        }
    }
    text
}

/// Next hops that a node's kernel has to the other's pods, both versions together, by BIRD.
fn ways(router: &Router, other: &Router) -> usize {
    ways_by(router, other, "bird")
}

/// Those that `protocol` wrote.
fn ways_by(router: &Router, other: &Router, protocol: &str) -> usize {
    let n = other.net;
    let said = router.node.net.ip(&format!("-4 route show 10.{n}.0.0/24 proto {protocol}"))
        + &router.node.net.ip(&format!("-6 route show fd10:{n}::/64 proto {protocol}"));
    said.lines()
        .filter(|line| line.contains(" via ") && !line.contains("dead"))
        .map(|line| line.matches(" dev ").count())
        .sum()
}

/// Two nodes, joined by both cables, with a pod each. With `mirrors` the switches go by the kernels' routes.
fn two_nodes(mirrors: bool) -> ([Router; 2], [Daemon; 2]) {
    let mut nodes = [Router::new(1), Router::new(2)];
    for link in LINKS {
        nodes[0].join(&nodes[1], link);
    }
    let daemons = nodes.each_mut().map(|node| {
        let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")));
        if mirrors {
            let _: Done = daemon.call(&Request::VrfSet(Vrf { mirror: true, ..Vrf::unset(Name::main()) }));
        }
        node.pod(&daemon, 2);
        daemon
    });
    (nodes, daemons)
}

/// The pods of both nodes find each other, by both versions.
fn talk(near: &Pod, far: &Pod) {
    for (from, to) in pairs() {
        wait_until("ping", LONG, || near.reaches(&to.to_string()) && far.reaches(&from.to_string()));
        assert_eq!(tcp(&near.net, &far.net, to, 1_000_000), 1_000_000, "TCP to {to}");
    }
}

fn flows_on(load: &sequence::Running) {
    let before = load.received();
    wait_until("traffic goes on", LONG, || load.received() > before + 400);
}

#[test]
fn pods_talk_over_bgp_and_outlive_a_cable_and_its_daemons() {
    outlive(false);
}

/// The same past the kernels, whose BGP goes on over the NICs that they share.
#[test]
fn pods_talk_over_bgp_by_uplinks_and_outlive_a_cable_and_its_daemons() {
    outlive(true);
}

fn outlive(shares: bool) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (nodes, daemons) = two_nodes(!shares);
    let [one, two] = &nodes;
    for link in LINKS.into_iter().filter(|_| shares) {
        one.share(&daemons[0], two, link);
        two.share(&daemons[1], one, link);
    }
    for node in &nodes {
        // Flows of one pair of pods go over both cables.
        node.node
            .net
            .run("sysctl -q -w net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1");
    }
    let mut birds = [Bird::start(one, two), Bird::start(two, one)];
    let told = |count: usize| {
        wait_until(&format!("{count} ways each"), LONG, || {
            ways(one, two) == count && ways(two, one) == count
        });
    };
    told(4);
    let (near, far) = (&one.pods[0], &two.pods[0]);
    for to in ["10.2.0.2", "fd10:2::2"] {
        wait_until("ping", LONG, || near.reaches(to));
        // Two switches on the way, and two kernels, unless they are passed by.
        let said = near.net.run(&format!("ping -n -c 1 -W 2 {to}"));
        assert!(said.contains(if shares { "ttl=62" } else { "ttl=60" }), "{said}");
        assert_eq!(tcp(&near.net, &far.net, to.parse().unwrap(), 1_000_000), 1_000_000, "TCP to {to}");
    }
    // The switch shows who wrote the route.
    wait_until("the mirror", LONG, || daemons.iter().all(|daemon| shown(daemon, "bird") == 2));

    let pairs = pairs();
    let load = |window| sequence::start(&near.net, &far.net, &pairs, window);
    let window = if shares { IN_RINGS } else { WINDOW };

    // A cable fails: what was on it is lost, what comes later is not, and the path moves.
    let running = load(WINDOW);
    flows_on(&running);
    one.node.net.ip("link set l90to2 down");
    told(2);
    flows_on(&running);
    let tally = running.finish();
    assert!(tally.lost < tally.sent, "{tally:?}");
    // On one cable now, once both switches have heard of it: nothing at all may be lost.
    wait_until("no way by the cable that failed", LONG, || {
        let ways = [(0, "10.2.0.2"), (0, "fd10:2::2"), (1, "10.1.0.2"), (1, "fd10:1::2")];
        ways.iter().all(|(n, to)| !choice(&daemons[*n], to).why.join("; ").contains("l90to"))
    });
    let running = load(window);
    flows_on(&running);
    assert_eq!(running.finish().lost, 0, "on one cable");
    // It comes back. A port that was set down has lost its IPv6 address.
    one.node.net.ip("link set l90to2 up");
    one.node.net.ip("addr replace fd10:90::1/64 dev l90to2 nodad");
    told(4);

    // One BIRD restarts gracefully, then it is killed: the kernels forward all the while, and nothing is lost.
    wait_until("every session", LONG, || birds.iter().all(|bird| bird.established() == 4));
    for how in ["gracefully", "by SIGKILL"] {
        let running = load(window);
        flows_on(&running);
        match how {
            "gracefully" => drop(birds[0].ask("graceful restart")),
            _ => birds[0].child.kill().unwrap(),
        }
        flows_on(&running);
        birds[0].start_again();
        wait_until("every session again", LONG, || birds.iter().all(|bird| bird.established() == 4));
        wait_until("the restart's end", LONG, || birds.iter().all(Bird::settled));
        flows_on(&running);
        told(4);
        assert_eq!(running.finish().lost, 0, "BIRD ended {how}");
    }
    for daemon in &daemons {
        assert_eq!(daemon.drops("kernel-loop"), 0);
        daemon.assert_conserved();
    }
}

/// A flow of each version between the pods of both nodes.
fn pairs() -> [(IpAddr, IpAddr); 2] {
    let pair = |a: &str, b: &str| (a.parse().unwrap(), b.parse().unwrap());
    [pair("10.1.0.2", "10.2.0.2"), pair("fd10:1::2", "fd10:2::2")]
}

/// Routes that the switch shows as written by `protocol`.
fn shown(daemon: &Daemon, protocol: &str) -> usize {
    let routes: Vec<RouteStatus> = daemon.call(&Request::RouteList(Default::default()));
    let is_its =
        |route: &&RouteStatus| route.origin.as_ref().is_some_and(|origin| origin.protocol == protocol);
    routes.iter().filter(is_its).count()
}

/// BIRD on one node and FRR on the other, whose routes name next-hop objects: they find each other's pods, a cable's failure moves
/// the path, and nothing is lost when FRR dies.
#[test]
fn frr_feeds_the_switch_as_bird_does() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (nodes, daemons) = two_nodes(true);
    let [one, two] = &nodes;
    let mut frr = Frr::start(two, one, &LINKS);
    let _bird = Bird::start(one, two);
    let told = |count: usize| {
        wait_until(&format!("{count} ways each"), LONG, || {
            ways(one, two) == count && ways_by(two, one, "bgp") == count
        });
    };
    told(4);
    let (near, far) = (&one.pods[0], &two.pods[0]);
    talk(near, far);
    wait_until("the mirror", LONG, || shown(&daemons[0], "bird") == 2 && shown(&daemons[1], "bgp") == 2);
    let running = sequence::start(&near.net, &far.net, &pairs(), WINDOW);
    flows_on(&running);
    two.node.net.ip("link set l90to1 down");
    told(2);
    flows_on(&running);
    running.finish();
    // On the cable that is left nothing is lost, also when FRR dies: what it wrote stays in its kernel, and BIRD waits for it.
    let running = sequence::start(&near.net, &far.net, &pairs(), WINDOW);
    flows_on(&running);
    frr.kill();
    flows_on(&running);
    std::thread::sleep(Duration::from_secs(2));
    flows_on(&running);
    assert_eq!(running.finish().lost, 0, "FRR was killed");
    assert_eq!((shown(&daemons[0], "bird"), shown(&daemons[1], "bgp")), (2, 2));
    for daemon in &daemons {
        daemon.assert_conserved();
    }
}

/// GoBGP on both nodes, and what it hears written into their kernels: pods find each other, and a cable's failure moves the path.
#[test]
fn gobgp_feeds_the_switch_as_bird_does() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (nodes, daemons) = two_nodes(true);
    let [one, two] = &nodes;
    let speakers = [GoBgp::start(one, two, &LINKS), GoBgp::start(two, one, &LINKS)];
    let told = |count: usize| {
        wait_until(&format!("{count} ways each"), LONG, || {
            speakers.iter().for_each(GoBgp::follow);
            ways_by(one, two, "bgp") == count && ways_by(two, one, "bgp") == count
        });
    };
    told(4);
    let (near, far) = (&one.pods[0], &two.pods[0]);
    talk(near, far);
    wait_until("the mirror", LONG, || daemons.iter().all(|daemon| shown(daemon, "bgp") == 2));
    two.node.net.ip("link set l90to1 down");
    told(2);
    for to in ["10.2.0.2", "fd10:2::2"] {
        wait_until("ping by the other cable", LONG, || near.reaches(to));
    }
    for daemon in &daemons {
        daemon.assert_conserved();
    }
}
