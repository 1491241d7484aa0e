//! The commands a person operates the switch with, against a real daemon with real pods. `cargo xtask test` says
//! where the daemon is; by hand it is the one beside the command.

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use switch_api::{Happened, TraceReply, TracedFrame};
use switch_lab::{Daemon, Node, Options, wait_until};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");
const LONG: Duration = Duration::from_secs(60);

fn ctl(daemon: &Daemon, words: &[&str]) -> Command {
    let mut command = Command::new(CTL);
    command.arg("--socket").arg(&daemon.socket).args(words);
    command
}

fn run(daemon: &Daemon, words: &[&str]) -> Output {
    ctl(daemon, words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_trace_says_where_a_frame_goes_and_changes_nothing() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&Options::beside(CTL));
    let (first, second) = (pods[0].mac().to_string(), pods[1].mac().to_string());
    let stations = said(&run(&daemon, &["fdb", "list", "--mac", "02:00:00:00:00:f0"]));
    let known = [
        "trace",
        "--in",
        "pod1",
        "--src",
        &first,
        "--dst",
        &second,
        "--ip",
        "10.66.0.1>10.66.0.2",
        "--tcp",
        "80",
    ];
    let text = said(&run(&daemon, &known));
    assert!(text.contains("leaves by pod2") && text.contains(&format!("{second} is behind pod2")), "{text}");
    let reply: TraceReply =
        serde_json::from_str(&said(&run(&daemon, &[&["--json"], &known[..]].concat()))).unwrap();
    let stages: Vec<_> = reply.steps.iter().map(|step| step.stage.as_str()).collect();
    assert!(
        ["parse", "guard", "learn", "forward", "egress", "emit"].iter().all(|stage| stages.contains(stage))
    );
    assert_eq!((reply.out.len(), reply.out[0].port.as_str(), reply.drops.len()), (1, "pod2", 0));

    let moved = run(&daemon, &["trace", "--in", "pod2", "--src", &first, "--dst", &first]);
    let text = said(&moved);
    assert!(text.contains("would move to pod2") && text.contains("hairpin"), "{text}");
    let new = said(&run(&daemon, &["trace", "--in", "pod1", "--dst", "02:00:00:00:00:99", "--vlan", "7"]));
    assert!(new.contains("drop vlan-tagged"), "{new}");
    assert_eq!(
        said(&run(&daemon, &["fdb", "list", "--mac", "02:00:00:00:00:f0"])),
        stations,
        "it was learned"
    );
    assert_eq!(daemon.drops("hairpin") + daemon.drops("vlan-tagged"), 0, "it was counted");
    assert!(pods[0].reaches(&pods[1].ip), "and the first pod is still where it was");

    let refused = run(&daemon, &["trace", "--in", "nowhere", "--dst", &first]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
}

/// A command that runs until it is told to end, as by Ctrl-C.
struct Running(std::process::Child);

impl Running {
    fn start(daemon: &Daemon, words: &[&str]) -> Self {
        let child = ctl(daemon, words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self(child.unwrap())
    }

    /// Waits until it says that frames are being taken. Asking by a second capture would be a race: whichever comes second
    /// is refused.
    fn wait_for_capture(&mut self) {
        // One byte at a time: what is said later is for `interrupt`.
        let mut line = String::new();
        BufReader::with_capacity(1, self.0.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("capturing on"), "{line}");
    }

    fn interrupt(self) -> Output {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.0.wait_with_output().unwrap()
    }
}

/// How many frames a file has so far.
fn packets(path: &std::path::Path) -> usize {
    let Ok(mut reader) = PcapNgReader::new(std::fs::File::open(path).unwrap()) else { return 0 };
    let blocks = std::iter::from_fn(|| {
        let block = reader.next_block()?.ok()?;
        Some(matches!(block, Block::EnhancedPacket(_)))
    });
    blocks.filter(|is_packet| *is_packet).count()
}

#[test]
fn a_ping_is_captured_with_port_direction_and_verdict() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&Options::beside(CTL));
    let path = node.directory().join("ping.pcapng");
    let file = path.to_str().unwrap();
    let mut capture =
        Running::start(&daemon, &["capture", "--port", "pod1", "-w", file, "icmp and host 10.66.0.2"]);
    capture.wait_for_capture();
    pods[0].net.run(&format!("ping -n -c 3 -i 0.2 {}", pods[1].ip));
    wait_until("all is in the file", LONG, || packets(&path) == 6);
    let ended = capture.interrupt();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success() && told.contains("6 frames captured, 0 lost"), "{told}");

    let mut reader = PcapNgReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let mut comments = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            let comment = packet.options.iter().find_map(|option| match option {
                EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                _ => None,
            });
            let flags =
                packet.options.iter().any(|option| matches!(option, EnhancedPacketOption::Flags(1 | 2)));
            assert!(flags && packet.original_len == 98, "{packet:?}");
            comments.push(comment.unwrap());
        }
    }
    let expected = ["pod1 in: port pod2", "pod1 out: sent"].repeat(3);
    assert_eq!(comments, expected);
    let read =
        String::from_utf8(Command::new("tcpdump").args(["-n", "-r", file]).output().unwrap().stdout).unwrap();
    assert_eq!(read.matches("ICMP echo request").count(), 3, "{read}");
    assert_eq!(read.matches("ICMP echo reply").count(), 3, "{read}");
    let replayed = run(&daemon, &["trace", "--in", "pod1", "--pcap", file, "--frame", "1"]);
    assert!(said(&replayed).contains("leaves by pod2"), "{replayed:?}");
    daemon.assert_conserved();
}

/// `capture -w - | wireshark -k -i -`: who looks on sees a frame when it has passed, and not when others have come after it.
#[test]
fn a_frame_is_in_the_pipe_as_soon_as_it_has_passed() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&Options::beside(CTL));
    let mut capture = Running::start(&daemon, &["capture", "--port", "pod1", "-w", "-", "icmp"]);
    capture.wait_for_capture();
    let pipe = capture.0.stdout.take().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut reader = PcapNgReader::new(pipe).unwrap();
        _ = tell.send(0);
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap() {
                _ = tell.send(packet.original_len);
            }
        }
    });
    assert_eq!(told.recv_timeout(LONG), Ok(0), "the file's head is there before any frame");
    for n in 0..3 {
        pods[0].net.run(&format!("ping -n -c 1 {}", pods[1].ip));
        let seen = [told.recv_timeout(LONG), told.recv_timeout(LONG)];
        assert_eq!(seen, [Ok(98), Ok(98)], "the question and the answer of ping {n}");
    }
    assert!(capture.interrupt().status.success());
    reader.join().unwrap();
    daemon.assert_conserved();
}

#[test]
fn real_frames_are_followed_through_every_stage_with_its_time() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&Options::beside(CTL));
    let live =
        Running::start(&daemon, &["trace", "--live", "icmp and host 10.66.0.2", "--count", "4", "--json"]);
    // Asking by a second trace would be a race: whichever comes second is refused.
    wait_until("workers look", LONG, || said(&run(&daemon, &["events", "--recent"])).contains("trace.live"));
    // Others' frames are not followed: ARP, and pings from elsewhere.
    pods[0].net.run("ping -n -c 4 -i 0.2 10.66.0.2");
    let ended = live.0.wait_with_output().unwrap();
    let frames: Vec<TracedFrame> =
        said(&ended).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(frames.len(), 4);
    for (n, frame) in frames.iter().enumerate() {
        // A question, then its answer.
        let (from, to) = if n % 2 == 0 { ("pod1", "pod2") } else { ("pod2", "pod1") };
        assert_eq!((frame.port.as_str(), frame.outcome.as_str()), (from, format!("port {to}").as_str()));
        let stages: Vec<_> = frame.steps.iter().map(|step| step.stage.as_str()).collect();
        assert_eq!(stages, ["recv", "parse", "guard", "learn", "forward", "egress", "emit"]);
        assert!(frame.steps.iter().all(|step| step.ns < 1_000_000_000));
        assert!(frame.steps.iter().map(|step| step.ns).sum::<u64>() > 0, "it took some time");
        let why = |stage: &str| frame.steps.iter().find(|step| step.stage == stage).unwrap().why.clone();
        assert!(why("forward").contains(&format!("is behind {to}")), "{}", why("forward"));
        assert_eq!(why("emit"), format!("queued for {to}"));
        assert_eq!(&frame.data.0[12..14], [8, 0]);
    }
    assert!(pods[0].reaches("10.66.0.2"), "and all goes on");

    // As a person reads it; it ends by itself when nothing comes.
    let nothing = run(&daemon, &["trace", "--live", "tcp port 1", "--for", "200ms", "--in", "pod1"]);
    assert!(nothing.status.success() && text(&nothing.stderr).contains("0 of 10 frames came"));
    let child = ctl(&daemon, &["trace", "--live", "arp or icmp", "--count", "1", "--for", "20s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = child;
    wait_until("it followed one", LONG, || {
        pods[0].reaches("10.66.0.2");
        child.try_wait().unwrap().is_some()
    });
    let shown = said(&child.wait_with_output().unwrap());
    assert!(
        ["STAGE", "forward", "is behind", "ns in all"].iter().all(|word| shown.contains(word)),
        "{shown}"
    );
    let refused = run(&daemon, &["trace", "--live", "", "--count", "1001"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}

#[test]
fn a_capture_ends_with_its_client_and_names_what_is_wrong() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&Options::beside(CTL));
    let mut capture = Running::start(&daemon, &["capture"]);
    capture.wait_for_capture();
    let refused = run(&daemon, &["capture", "--count", "1"]);
    assert_eq!(refused.status.code(), Some(6), "one at a time: {refused:?}");
    capture.0.kill().unwrap();
    capture.0.wait().unwrap();
    let mut next =
        Running::start(&daemon, &["--json", "capture", "--direction", "in", "--count", "2", "arp or icmp"]);
    wait_until("two frames are seen", LONG, || {
        _ = pods[0].reaches(&pods[1].ip);
        next.0.try_wait().unwrap().is_some()
    });
    let output = next.0.wait_with_output().unwrap();
    let lines = said(&output);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.lines().all(|line| line.contains("\"direction\":\"in\"")), "{lines}");
    let refused = run(&daemon, &["capture", "--reason", "no-such"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let refused = run(&daemon, &["capture", "--port", "nowhere"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
}

#[test]
fn events_are_told_as_they_happen() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&Options::beside(CTL));
    let mut events = Running::start(&daemon, &["--json", "events"]);
    let mut lines = BufReader::new(events.0.stdout.take().unwrap());
    let mut tried = 0;
    let heard = std::thread::spawn(move || {
        let mut text = String::new();
        while lines.read_line(&mut text).unwrap_or(0) > 0 {
            if text.contains("\"stop-here\"") {
                break;
            }
        }
        text
    });
    wait_until("somebody listens", LONG, || {
        tried += 1;
        std::thread::sleep(Duration::from_millis(200));
        said(&run(&daemon, &["bridge", "add", &format!("br{tried}")]));
        tried >= 3
    });
    node.net.ip(&format!("link set {} down", pods[1].device));
    wait_until("the port is down", LONG, || daemon.port("pod2").state == switch_api::PortState::Down);
    node.net.ip(&format!("link set {} up", pods[1].device));
    wait_until("the port is up", LONG, || daemon.port("pod2").state == switch_api::PortState::Up);
    wait_until("pods reach each other", LONG, || pods[0].reaches(&pods[1].ip));
    pods[1].net.ip(&format!("link set eth0 address {}", pods[0].mac()));
    _ = pods[1].reaches("10.66.0.77");
    said(&run(&daemon, &["bridge", "add", "stop-here"]));
    let text = heard.join().unwrap();
    events.0.kill().unwrap();
    events.0.wait().unwrap();
    let events: Vec<Happened> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |what: &str| events.iter().filter(|event| event.what == what).collect::<Vec<_>>();
    let changed = of("changed");
    assert!(
        changed.iter().any(|event| event.parts["method"] == "bridge.add" && event.parts["uid"] == "0"),
        "{text}"
    );
    assert!(changed.iter().all(|event| event.parts["program"] == "switch-ctl"), "{text}");
    assert!(
        of("port-down").iter().any(|event| event.parts["port"] == "pod2" && event.text.contains("is down")),
        "{text}"
    );
    assert!(of("port-up").iter().any(|event| event.parts["port"] == "pod2"), "{text}");
    let mac = pods[0].mac().to_string();
    assert!(
        of("mac-moved").iter().any(|event| event.parts["mac"] == mac && event.parts["to"] == "pod2"),
        "{text}"
    );
    // Who comes later is told the same, and what happened before anybody listened.
    let late: Vec<Happened> =
        serde_json::from_str(&said(&run(&daemon, &["--json", "events", "--recent"]))).unwrap();
    assert!(late.iter().any(|event| event.parts.get("method").is_some_and(|method| method == "port.add")));
    assert!(events.iter().all(|event| late.contains(event)), "{late:?}");
    assert!(late.is_sorted_by_key(|event| event.time_ns));
    let last = said(&run(&daemon, &["events", "--recent", "--only", "changed", "--count", "1"]));
    assert!(last.lines().count() == 1 && last.contains("stop-here"), "{last}");
    let flows = run(&daemon, &["events", "--recent", "--only", "flow-new"]);
    let why = String::from_utf8_lossy(&flows.stderr);
    assert!(!flows.status.success() && why.contains("is not kept") && why.contains("flow watch"), "{why}");
}

/// What the archive has, by name, as `tar` reads it.
fn unpacked(archive: &std::path::Path) -> impl Fn(&str) -> String + use<'_> {
    move |name| {
        let name = format!("switch-support/{name}");
        said(&Command::new("tar").arg("xzOf").arg(archive).arg(&name).output().unwrap())
    }
}

#[test]
fn a_support_bundle_has_what_is_needed_with_the_daemon_and_without() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::new();
    // What nobody else is to know: what the daemon's environment says, and what pods say to each other.
    let options = Options::beside(CTL).through("env SWITCH_TEST_TOKEN=ghwgs75kqx");
    let (mut daemon, pods) = node.two_pods(&options);
    pods[0].net.run(&format!("ping -n -c 3 -i 0.2 -s 100 -p 7365637265742121 {}", pods[1].ip));
    let path = node.directory().join("bundle.tar.gz");
    let bundle = || run(&daemon, &["support-bundle", path.to_str().unwrap()]);
    assert!(said(&bundle()).starts_with(path.to_str().unwrap()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let inside = unpacked(&path);
    assert!(
        inside("switch/ports.json").contains("pod1") && inside("switch/declared.toml").contains("[[bridge]]")
    );
    assert!(
        inside("switch/events.json").contains("port.add") && inside("switch/metrics").ends_with("# EOF\n")
    );
    assert!(inside("daemon/status").contains("CapEff") && inside("node/proc/version").contains("Linux"));
    assert!(inside("node/addresses").contains("lo:"));
    assert!(!inside("missing").contains("switch/"), "{}", inside("missing"));
    let all = said(&Command::new("tar").arg("xzOf").arg(&path).output().unwrap());
    assert!(all.contains("No packet's content is in here") && all.contains("pod1"));
    for secret in ["ghwgs75kqx", "secret!!", "7365637265742121"] {
        assert!(!all.contains(secret), "{secret} is in the archive");
    }
    // What is there is not written over.
    assert_eq!(bundle().status.code(), Some(1));

    daemon.stop(false);
    let later = node.directory().join("later.tar.gz");
    let output = run(&daemon, &["support-bundle", later.to_str().unwrap()]);
    assert!(said(&output).contains("see `missing` in it"), "{output:?}");
    let inside = unpacked(&later);
    assert!(
        inside("missing").contains("cannot reach the daemon")
            && inside("node/proc/version").contains("Linux")
    );
}

#[test]
fn a_file_of_routes_is_one_change_and_a_wrong_line_is_named() {
    let node = Node::new();
    let daemon = node.start(&Options::beside(CTL));
    daemon.bridge("br0");
    daemon.gateway("br0", "10.1.0.1/24");
    let path = node.directory().join("routes");
    let apply = |lines: &[String], more: &[&str]| {
        std::fs::write(&path, lines.join("\n")).unwrap();
        run(&daemon, &[&["route", "apply", path.to_str().unwrap()], more].concat())
    };
    let routes = || {
        let listed = said(&run(&daemon, &["--json", "route", "list"]));
        serde_json::from_str::<Vec<switch_api::RouteStatus>>(&listed).unwrap().len()
    };
    let line =
        |n: usize| format!("20.{}.{}.0/24 via 10.1.0.2 dev eth0 proto bird metric 32", n >> 8, n & 255);
    let mut lines: Vec<String> = (0..500).map(line).collect();
    lines.insert(2, "30.0.0.0/8 via 10.9.0.2".into());
    let refused = apply(&lines, &["--ignore-dev"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text.contains("routes: line 3: ") && text.contains("10.9.0.2"), "{text}");
    assert_eq!(routes(), 1, "only the gateway's network");
    lines[2] = "blackhole 30.0.0.0/8".into();
    let done = said(&apply(&lines, &["--ignore-dev"]));
    assert!(done.contains("501 routes were changed, in 1 changes"), "{done}");
    assert_eq!(routes(), 502);
    // More than anybody may ask for in a line: an admin may, at once or in parts.
    let lines: Vec<String> = (0..20_000).map(line).collect();
    let done = said(&apply(&lines, &["--ignore-dev"]));
    assert!(done.contains("in 1 changes"), "{done}");
    assert_eq!(routes(), 20_002, "the list goes page by page");
    let done = said(&apply(&lines, &["--ignore-dev", "--parts"]));
    assert!(!done.contains("in 1 changes"), "{done}");
    // More than he may.
    let line = "50.0.0.0/8 via 10.1.0.2".to_owned();
    let refused = apply(&vec![line; 400_000], &["--ignore-dev"]);
    assert_eq!((refused.status.code(), routes()), (Some(7), 20_002));
}

/// `top` as a person has it, on a terminal of 80×24 (script(1) makes one): drawn, led by keys, and gone without a trace.
#[test]
fn top_is_drawn_on_a_terminal_and_leaves_it_as_it_was() {
    let node = Node::new();
    let (daemon, _pods) = node.two_pods(&Options::beside(CTL));
    let line = format!("stty rows 24 cols 80; {CTL} --socket {} top --interval 0.2", daemon.socket.display());
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]).env("TERM", "xterm");
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let drawn = seen.clone();
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = screen.read(&mut bytes) {
            drawn.lock().unwrap().extend_from_slice(&bytes[..len]);
        }
    });
    let shows = |word: &str| text(&seen.lock().unwrap()).contains(word);
    wait_until("both ports are drawn", LONG, || shows("pod1") && shows("pod2"));
    assert!(shows("\u{1b}[?1049h"), "on a screen of its own");
    let mut press = |key: &[u8]| {
        seen.lock().unwrap().clear();
        keys.write_all(key).and_then(|()| keys.flush()).unwrap();
    };
    press(b"\r");
    wait_until("the page of the port", LONG, || !seen.lock().unwrap().is_empty());
    press(b"w");
    wait_until("the page of the stages", LONG, || !seen.lock().unwrap().is_empty());
    press(b"q");
    assert!(child.wait().unwrap().success());
    reader.join().unwrap();
    assert!(shows("\u{1b}[?1049l"), "the screen from before is back");
}
