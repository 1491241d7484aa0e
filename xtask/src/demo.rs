//! `cargo xtask demo`: the real daemon between real namespaces, and what it did, in words a person
//! understands; where traffic does not pass it fails (`checks`). Whatever happens, also Ctrl-C, everything it made is removed.

mod checks;

use crate::setup;
use crate::sh::{Result, root, say};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use switch_api::{FdbEntry, Mac, PortSettings, PortStatus, Request, Vid, Vlan};
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const LIMIT: Duration = Duration::from_secs(10);
const TCP_BYTES: usize = 64 << 20;
const DATAGRAMS: usize = 2_000;
/// Last byte of the node's own address.
const NODE: u8 = 100;
/// The pod in another VLAN than all others.
const STRANGER: usize = 3;

/// Three pods in VLAN 1, a fourth in VLAN 20, each with a veth; two more in VLAN 1, each with a TAP.
struct Stage {
    daemon: Daemon,
    pods: Vec<Pod>,
    node: Node,
    interrupted: Arc<AtomicBool>,
}

/// Where the programs are that are shown.
static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();

/// Runs it, with the programs of a directory, or with the release's, which are built.
pub fn run(keep: bool, programs: Option<PathBuf>) -> Result {
    setup::demo()?;
    if let Some(programs) = programs {
        PROGRAMS.get_or_init(|| programs);
    } else {
        say("building the release programs");
        setup::build_release()?;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).map_err(|error| error.to_string())?;
    }
    // A panic in the laboratory unwinds and cleans up; its message is the error.
    let outcome = std::panic::catch_unwind(|| show(keep, interrupted.clone()));
    match outcome {
        // Ctrl-C goes to the daemon and the pings too; what they then say is not what went wrong.
        Ok(Err(_)) | Err(_) if interrupted.load(Ordering::Relaxed) => {
            Err("interrupted; everything was removed".into())
        }
        Ok(result) => result,
        Err(_) => Err("the demo failed, see above; everything was removed".into()),
    }
}

fn show(keep: bool, interrupted: Arc<AtomicBool>) -> Result {
    let stage = set_up(interrupted)?;
    type Act = fn(&Stage) -> Result;
    let acts: [(&str, Act); 6] = [
        (
            "the switch has four ports on a pod's veth, two that are a pod's TAP, and one for the node",
            |stage| stage.ctl("port list"),
        ),
        ("pods 1, 2, 3, 5 and 6 and the node are in one VLAN and reach each other", pings),
        ("pod 4 is in VLAN 20 and reaches nobody", isolation),
        ("TCP and UDP over AF_XDP, with the pods' default offloads", |stage| bulk(stage, 0, 1)),
        ("TCP and UDP over TAP, the same", |stage| bulk(stage, 4, 5)),
        ("what the switch learned and counted", counters),
    ];
    for (title, act) in acts {
        if stage.interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        say(title);
        act(&stage)?;
    }
    if keep {
        stage.keep();
        return Ok(());
    }
    stage.take_down()
}

fn set_up(interrupted: Arc<AtomicBool>) -> Result<Stage> {
    say("a node with a switchd, four pods with a veth each, and two that the switch gives a device");
    let node = Node::new();
    let daemon = node.start(&Options::new(program("switchd")));
    daemon.bridge("br0");
    let mut pods = Vec::new();
    for n in 1..=4 {
        let pod = node.pod(n);
        let vid = Vid::try_from(if n == 4 { 20 } else { 1 }).map_err(|error| error.to_string())?;
        daemon.attach(&pod, "br0", PortSettings { vlan: Vlan::Access { vid }, ..PortSettings::default() });
        println!("{}  {}  in VLAN {}, namespace {}", pod.device, pod.ip, vid, pod.net.name());
        pods.push(pod);
    }
    for n in 5..=6 {
        let pod = node.bare_pod(n);
        daemon.attach_tap(&pod, "br0", PortSettings::default());
        println!("{}  {}  in VLAN 1, namespace {}", pod.device, pod.ip, pod.net.name());
        pods.push(pod);
    }
    daemon.attach_host(NODE, "br0");
    println!("host  10.66.0.{NODE}  in VLAN 1, the node");
    Ok(Stage { daemon, pods, node, interrupted })
}

fn program(name: &str) -> PathBuf {
    PROGRAMS.get_or_init(|| root().join("target/release")).join(name)
}

fn pings(stage: &Stage) -> Result {
    let node = format!("10.66.0.{NODE}");
    let pod = |index: usize| (stage.pods[index].device.as_str(), stage.pods[index].ip.as_str());
    let pairs = [
        (0, pod(1)),
        (1, pod(2)),
        (2, pod(0)),
        (4, pod(5)),
        (4, pod(0)),
        (5, ("the node", &node)),
        (0, ("the node", &node)),
    ];
    for (from, (name, address)) in pairs {
        let from = &stage.pods[from];
        // A kernel takes a moment to use a device that is new; from then on nothing may be lost.
        wait_until("the first answer", LIMIT, || from.reaches(address));
        let output = from.net.try_run(&format!("ping -n -q -c 5 -i 0.05 -W 2 {address}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary: Vec<&str> =
            text.lines().filter(|line| line.contains("loss") || line.contains("rtt")).collect();
        println!("{} → {name}: {}", from.device, summary.join("; "));
        if !output.status.success() {
            return Err(format!("{} does not reach {address}", from.ip));
        }
        checks::all_answered(&text).map_err(|error| format!("{} → {name}: {error}", from.device))?;
    }
    Ok(())
}

fn isolation(stage: &Stage) -> Result {
    let stranger = &stage.pods[STRANGER];
    let heard = || stage.daemon.port(&stranger.device).counters.rx_packets;
    let before = heard();
    let node = format!("10.66.0.{NODE}");
    // A veth's pod, a TAP's, the node; and the other way.
    let (veth, tap) = (&stage.pods[0], &stage.pods[4]);
    let pairs =
        [(stranger, veth.ip.as_str()), (stranger, &tap.ip), (stranger, &node), (veth, stranger.ip.as_str())];
    for (from, address) in pairs {
        if from.reaches(address) {
            return Err(format!("{} reached {address}, in another VLAN", from.device));
        }
        println!("{} → {address}: no answer, as it should be", from.device);
    }
    // Not because its cable is dead.
    if heard() == before {
        return Err(format!("the switch hears nothing of {}", stranger.device));
    }
    Ok(())
}

fn bulk(stage: &Stage, from: usize, to: usize) -> Result {
    let (from, to) = (&stage.pods[from], &stage.pods[to]);
    for address in [to.ip.clone(), to.ip.replace("10.66.0.", "fd66::")] {
        let address: IpAddr = address.parse().map_err(|error| format!("{error}"))?;
        let seconds = tcp(from, to, address)?;
        let gigabits = TCP_BYTES as f64 * 8.0 / seconds / 1e9;
        println!(
            "TCP {} → {address}: {} MiB, every byte checked, {gigabits:.1} Gb/s",
            from.device,
            TCP_BYTES >> 20
        );
        let answered = udp(from, to, address)?;
        println!("UDP {} → {address}: {answered} of {DATAGRAMS} datagrams answered", from.device);
        checks::enough_answered(answered, DATAGRAMS)?;
    }
    Ok(())
}

fn counters(stage: &Stage) -> Result {
    stage.ctl("fdb list")?;
    println!();
    stage.ctl("stats")?;
    println!();
    stage.ctl("worker list")?;
    stage.daemon.assert_conserved();
    let table: Vec<FdbEntry> = stage.daemon.call(&Request::FdbList(Default::default()));
    let stations: Vec<(Mac, &str)> = stage.pods.iter().map(|pod| (pod.mac(), pod.device.as_str())).collect();
    checks::all_learned(&table, &stations)?;
    let ports: Vec<PortStatus> = stage.daemon.call(&Request::PortList(Default::default()));
    checks::all_carried(&ports)?;
    checks::stages_timed(&stage.daemon.stats())
}

/// Sends [`TCP_BYTES`] and checks them at the other end; the seconds it took.
fn tcp(from: &Pod, to: &Pod, address: IpAddr) -> Result<f64> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = to.net.inside(move || -> std::io::Result<usize> {
        let listener = TcpListener::bind((address, 7000))?;
        _ = ready.send(());
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LIMIT))?;
        let (mut right, mut buffer) = (0usize, vec![0; 1 << 16]);
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(right);
            }
            let same = |(i, byte): (usize, &u8)| *byte == pattern(right + i);
            if !buffer[..n].iter().enumerate().all(same) {
                return Ok(right);
            }
            right += n;
        }
    });
    is_ready.recv_timeout(LIMIT).map_err(|_| "the TCP server did not start")?;
    let start = Instant::now();
    let client = from.net.inside(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&(address, 7000).into(), LIMIT)?;
        stream.set_write_timeout(Some(LIMIT))?;
        let block: Vec<u8> = (0..PATTERN * 256).map(pattern).collect();
        let mut left = TCP_BYTES;
        while left > 0 {
            let n = left.min(block.len());
            stream.write_all(&block[..n])?;
            left -= n;
        }
        Ok(())
    });
    client.join().map_err(|_| "the TCP client failed")?.map_err(|error| format!("TCP client: {error}"))?;
    let right = server
        .join()
        .map_err(|_| "the TCP server failed")?
        .map_err(|error| format!("TCP server: {error}"))?;
    if right == TCP_BYTES {
        Ok(start.elapsed().as_secs_f64())
    } else {
        Err(format!("TCP: only {right} bytes came right"))
    }
}

/// Length of the pattern; a prime, so that a lost or doubled segment shifts it.
const PATTERN: usize = 251;

fn pattern(at: usize) -> u8 {
    (at % PATTERN) as u8
}

/// Sends datagrams one after another; how many were answered.
fn udp(from: &Pod, to: &Pod, address: IpAddr) -> Result<usize> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = to.net.inside(move || -> std::io::Result<()> {
        let socket = UdpSocket::bind((address, 7001))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        _ = ready.send(());
        let mut buffer = [0; 2048];
        while let Ok((n, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..n], peer)?;
        }
        Ok(())
    });
    is_ready.recv_timeout(LIMIT).map_err(|_| "the UDP server did not start")?;
    let client = from.net.inside(move || -> std::io::Result<usize> {
        let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 7001))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut buffer = [0; 2048];
        let mut answered = 0;
        for n in 0..DATAGRAMS {
            let datagram = vec![n as u8; 1 + n % 1400];
            socket.send(&datagram)?;
            answered += usize::from(socket.recv(&mut buffer).is_ok_and(|n| buffer[..n] == datagram));
        }
        Ok(answered)
    });
    let answered =
        client.join().map_err(|_| "the UDP client failed")?.map_err(|error| format!("UDP: {error}"))?;
    _ = server.join();
    Ok(answered)
}

impl Stage {
    /// Runs `switch-ctl` for the person to see, with the command shown.
    fn ctl(&self, words: &str) -> Result {
        println!("$ switch-ctl {words}");
        let mut command = Command::new(program("switch-ctl"));
        command.arg("--socket").arg(&self.daemon.socket).args(words.split_whitespace());
        crate::sh::run(command)
    }

    fn take_down(mut self) -> Result {
        say("taking everything down");
        self.daemon.assert_conserved();
        self.daemon.stop(true);
        let names: Vec<String> = self.pods.iter().map(|pod| pod.net.name().to_owned()).collect();
        let directory = self.node.directory().to_owned();
        drop(self);
        let left = switch_lab::net::run("ip", &["netns", "list"]);
        if names.iter().any(|name| left.contains(name.as_str())) || directory.exists() {
            return Err("something is still there; this is a bug".into());
        }
        println!("the switch has stopped; namespaces, devices, programs and files are gone");
        Ok(())
    }

    fn keep(self) {
        say("everything is left running");
        let socket = self.daemon.socket.display().to_string();
        let ctl = program("switch-ctl");
        println!("talk to it:  {} --socket {socket} port list", ctl.display());
        println!("enter a pod: ip netns exec {} ping {}", self.pods[0].net.name(), self.pods[1].ip);
        let names: Vec<&str> =
            self.pods.iter().map(|pod| pod.net.name()).chain([self.node.net.name()]).collect();
        println!(
            "stop it:     {} --socket {socket} stop --detach && while kill -0 {} 2>/dev/null; do sleep 0.1; done; \
             for n in {}; do ip netns del $n; done; rm -r {}",
            ctl.display(),
            // It takes its bpffs away as the last thing it does.
            self.daemon.pid(),
            names.join(" "),
            self.node.directory().display()
        );
        // What would clean up at the end of this process must not.
        std::mem::forget(self);
    }
}
