//! `switch-ctl metrics` against a real daemon with real pods: the text is read strictly, and says what the API says.
//! `cargo xtask test` says where the daemon is; by hand it is the one beside the command.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use switch_api::PortCounters;
use switch_lab::{Daemon, Node, Options, RawSocket, frames, wait_until};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");
const LONG: Duration = Duration::from_secs(60);

/// `switch-ctl metrics` without `--listen`.
fn print(daemon: &Daemon, format: &str) -> Output {
    let words = ["metrics", "--format", format];
    Command::new(CTL).arg("--socket").arg(&daemon.socket).args(words).output().unwrap()
}

/// `switch-ctl metrics --listen`, until it is dropped.
struct Serving {
    child: Child,
    /// Where it says that it listens.
    address: String,
}

impl Serving {
    fn start(daemon: &Daemon, address: &str) -> Self {
        Self::try_start(daemon, address).unwrap_or_else(|(_, said)| panic!("it said {said:?}"))
    }

    /// Its exit code and what it complains of, if it does not serve. One that serves although it should not is ended, not waited for.
    fn try_start(daemon: &Daemon, address: &str) -> Result<Self, (Option<i32>, String)> {
        let mut command = Command::new(CTL);
        command.arg("--socket").arg(&daemon.socket).args(["metrics", "--listen", address]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::with_capacity(1, child.stderr.as_mut().unwrap());
        stderr.read_line(&mut said).unwrap();
        if let Some(address) = said.trim().strip_prefix("serving metrics on ") {
            return Ok(Self { address: address.to_owned(), child });
        }
        stderr.read_to_string(&mut said).unwrap();
        Err((child.wait().unwrap().code(), said))
    }

    /// Its answer: the head, and the body.
    fn ask(&self, line: &str) -> (String, String) {
        let request = format!("{line} HTTP/1.1\r\nHost: switch\r\nAccept: */*\r\n\r\n");
        let mut text = String::new();
        match self.address.strip_prefix("unix:") {
            Some(path) => exchange(UnixStream::connect(path).unwrap(), &request, &mut text),
            None => {
                let stream = TcpStream::connect(&self.address).unwrap();
                stream.set_read_timeout(Some(LONG)).unwrap();
                exchange(stream, &request, &mut text);
            }
        }
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let length = format!("Content-Length: {}", body.len());
        assert!(head.lines().any(|line| line == length), "{head}\n{} bytes came", body.len());
        (head.to_owned(), body.to_owned())
    }

    fn scrape(&self) -> Scrape {
        let (head, body) = self.ask("GET /metrics");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}\n{body}");
        assert!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0"), "{head}");
        Scrape::parse(&body)
    }

    fn interrupt(mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn exchange(mut stream: impl Read + Write, request: &str, text: &mut String) {
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_to_string(text).unwrap();
}

type Labels = BTreeMap<String, String>;

/// What one scrape said.
struct Scrape {
    /// Kind of each metric, by its name.
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    /// OpenMetrics 1.0, as far as it is used, and nothing else: HELP, TYPE and UNIT before the samples of a metric, which stand
    /// together; each sample once; suffixes as its kind demands; the end mark.
    fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end mark:\n{text}"));
        let mut scrape = Self { kinds: BTreeMap::new(), samples: BTreeMap::new() };
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        for line in body.lines() {
            let Some(said) = line.strip_prefix("# ") else {
                scrape.sample(line, &current);
                continue;
            };
            let mut words = said.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(!rest.trim().is_empty() && name.starts_with("switch_"), "{line}");
            match what {
                "HELP" => assert!(helped.insert(name.to_owned()), "twice: {line}"),
                "TYPE" => {
                    assert!(
                        helped.contains(name) && ["counter", "gauge", "info", "histogram"].contains(&rest),
                        "{line}"
                    );
                    assert!(scrape.kinds.insert(name.into(), rest.into()).is_none(), "twice: {line}");
                    name.clone_into(&mut current);
                }
                "UNIT" => assert!(name == current && name.ends_with(&format!("_{rest}")), "{line}"),
                _ => panic!("{line}"),
            }
        }
        assert_eq!(helped.len(), scrape.kinds.len(), "each has HELP and TYPE");
        scrape
    }

    fn sample(&mut self, line: &str, current: &str) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let suffix = match self.kinds[current].as_str() {
            "counter" => "_total",
            "info" => "_info",
            "histogram" => ["_bucket", "_sum", "_count"].into_iter().find(|end| name.ends_with(end)).unwrap(),
            _ => "",
        };
        assert_eq!(name, format!("{current}{suffix}"), "{line}");
        let (labels, rest) = labels(rest);
        let value: f64 = rest.strip_prefix(' ').unwrap().parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value.is_finite() && (suffix != "_total" || value >= 0.0), "{line}");
        assert!(self.samples.insert((name.into(), labels), value).is_none(), "twice: {line}");
    }

    /// The sum of what has this name and these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has =
            |found: &Labels| labels.iter().all(|(key, value)| found.get(*key).is_some_and(|is| is == value));
        let of: Vec<_> =
            self.samples.iter().filter(|((found, with), _)| found == name && has(with)).collect();
        assert!(!of.is_empty(), "no sample {name} {labels:?}");
        of.into_iter().map(|(_, value)| value).sum()
    }

    /// Names of samples that are there, or would be.
    fn names(&self) -> BTreeSet<String> {
        let full = |(name, kind): (&String, &String)| match kind.as_str() {
            "counter" => vec![format!("{name}_total")],
            "info" => vec![format!("{name}_info")],
            "histogram" => ["bucket", "sum", "count"].map(|end| format!("{name}_{end}")).to_vec(),
            _ => vec![name.clone()],
        };
        self.kinds.iter().flat_map(full).collect()
    }

    /// Names that the older format announces: those of samples, but for histograms.
    fn announced(&self) -> BTreeSet<String> {
        let mut names = self.names();
        for (name, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            ["bucket", "sum", "count"].iter().for_each(|end| _ = names.remove(&format!("{name}_{end}")));
            names.insert(name.clone());
        }
        names
    }

    fn counters(&self, port: &str) -> PortCounters {
        let of =
            |name: &str| self.sum(&format!("switch_port_{name}_total"), &[("port", port), ("bridge", "br0")]);
        PortCounters {
            rx_packets: of("receive_packets") as u64,
            rx_bytes: of("receive_bytes") as u64,
            tx_packets: of("transmit_packets") as u64,
            tx_bytes: of("transmit_bytes") as u64,
            drops: of("dropped_packets") as u64,
        }
    }
}

/// `{a="b",…}`, if there are any, and what follows.
fn labels(text: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else { return (labels, text) };
    loop {
        let (key, quoted) = rest.split_once("=\"").unwrap();
        let (mut value, mut end, mut chars) = (String::new(), None, quoted.char_indices());
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    end = Some(at + 1);
                    break;
                }
                '\\' => {
                    value.push(chars.next().map(|(_, char)| if char == 'n' { '\n' } else { char }).unwrap())
                }
                char => value.push(char),
            }
        }
        assert!(labels.insert(key.to_owned(), value).is_none(), "a label twice: {text}");
        rest = &quoted[end.unwrap()..];
        match rest.split_at(1) {
            ("}", after) => return (labels, after),
            (",", after) => rest = after,
            _ => panic!("{text}"),
        }
    }
}

#[test]
fn a_scrape_says_what_the_api_says() {
    let node = Node::new();
    let (daemon, pods) = node.two_pods(&Options::beside(CTL));
    let serving = Serving::start(&daemon, "127.0.0.1:0");
    pods[0].net.run(&format!("ping -n -c 3 -i 0.2 {}", pods[1].ip));
    assert_eq!(daemon.drops("vlan-tagged"), 0);
    let frame = frames::tagged(pods[1].mac(), pods[0].mac(), 7, 1, 64);
    RawSocket::open(&pods[0].net, "eth0").unwrap().send(&frame);
    wait_until("the tagged frame is dropped", LONG, || daemon.drops("vlan-tagged") == 1);

    // The pods' kernels may speak at any time: equal is what is so between two equal looks by the API.
    wait_until("both say the same", LONG, || {
        let before = [daemon.port("pod1").counters, daemon.port("pod2").counters];
        let scrape = serving.scrape();
        let after = [daemon.port("pod1").counters, daemon.port("pod2").counters];
        let said = [scrape.counters("pod1"), scrape.counters("pod2")];
        assert!(before != after || said == before, "{said:?} is not {before:?}");
        before == after
    });
    let scrape = serving.scrape();
    assert!(scrape.sum("switch_port_receive_packets_total", &[("port", "pod1")]) >= 4.0);
    assert_eq!(scrape.sum("switch_drops_total", &[("reason", "vlan-tagged"), ("port", "pod1")]), 1.0);
    assert_eq!(scrape.sum("switch_port_up", &[]), 2.0);
    assert_eq!(scrape.sum("switch_bridge_ports", &[("bridge", "br0")]), 2.0);
    assert_eq!(scrape.sum("switch_build_info", &[("version", daemon.client().hello().daemon.as_str())]), 1.0);
    let stats = daemon.stats();
    assert_eq!(scrape.sum("switch_frames_mapped", &[]), stats.frames.total as f64);
    assert!(scrape.sum("switch_packets_total", &[("what", "received")]) >= 4.0);
    assert_eq!(scrape.sum("switch_packets_unaccounted", &[]), 0.0);
    assert_eq!(scrape.sum("switch_memory_ceiling_bytes", &[]), stats.memory.ceiling_bytes as f64);
    assert_eq!(scrape.sum("switch_memory_bytes", &[]), stats.memory.used_bytes as f64);
    assert!(scrape.sum("switch_worker_turns_total", &[("worker", "0")]) > 0.0);
    assert!(scrape.sum("switch_lane_receive_packets_total", &[("port", "pod2")]) > 0.0);

    // Buckets stand for all below them, and the last for everything.
    let took = |name: &str, labels: &[(&str, &str)]| {
        scrape.sum(&format!("switch_request_duration_seconds_{name}"), labels)
    };
    let adds = ("method", "port.add");
    assert_eq!((took("count", &[adds]), took("bucket", &[adds, ("le", "+Inf")])), (2.0, 2.0));
    assert!(took("sum", &[adds]) > 0.0 && took("bucket", &[adds, ("le", "0.0001")]) <= 2.0);
    assert!(scrape.sum("switch_worker_wake_seconds_count", &[("worker", "0")]) > 0.0);
    assert_eq!(scrape.sum("switch_routes", &[]), 0.0);
    assert_eq!(scrape.sum("switch_table_room", &[("table", "macs")]), stats.room.macs as f64);

    let printed = print(&daemon, "openmetrics");
    assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    assert_eq!(Scrape::parse(&String::from_utf8(printed.stdout).unwrap()).names(), scrape.names());
    // Names in the older format are those of the samples, and the kinds are its own.
    let older = String::from_utf8(print(&daemon, "prometheus").stdout).unwrap();
    let typed = older.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let typed: BTreeMap<_, _> = typed.collect();
    assert!(typed.values().all(|kind| ["counter", "gauge", "histogram"].contains(kind)), "{older}");
    assert_eq!(typed.keys().map(|name| name.to_string()).collect::<BTreeSet<_>>(), scrape.announced());
    assert!(serving.interrupt().success());
}

#[test]
fn while_the_daemon_is_away_it_says_so_and_then_goes_on() {
    let node = Node::new();
    let mut daemon = node.start(&Options::beside(CTL));
    daemon.bridge("br0");
    let serving = Serving::start(&daemon, "127.0.0.1:0");
    assert_eq!(serving.scrape().sum("switch_bridge_ports", &[("bridge", "br0")]), 0.0);
    let (head, _) = serving.ask("GET /");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");

    // Who says nothing is let go, and the next has its turn.
    let silent = TcpStream::connect(&serving.address).unwrap();
    _ = serving.scrape();
    drop(silent);

    daemon.stop(true);
    let (head, body) = serving.ask("GET /metrics");
    assert!(head.starts_with("HTTP/1.1 503 ") && body.contains("cannot reach the daemon"), "{head}\n{body}");
    let printed = print(&daemon, "openmetrics");
    assert!(printed.status.code() == Some(1) && printed.stdout.is_empty(), "{printed:?}");

    let again = node.start(&Options::beside(CTL));
    again.bridge("br7");
    assert_eq!(serving.scrape().sum("switch_bridge_ports", &[("bridge", "br7")]), 0.0);
}

#[test]
fn a_unix_socket_is_served_and_what_a_killed_one_left_is_replaced() {
    let node = Node::new();
    let daemon = node.start(&Options::beside(CTL));
    let path = node.directory().join("metrics.sock");
    let address = format!("unix:{}", path.display());
    drop(Serving::start(&daemon, &address));
    assert!(path.exists(), "killed, it could not clean up");
    let serving = Serving::start(&daemon, &address);
    assert_eq!(serving.address, address);
    _ = serving.scrape();
    let (code, complaint) = Serving::try_start(&daemon, &address).err().expect("two serve one address");
    assert!(code == Some(1) && complaint.contains("something listens there"), "{complaint}");
    assert!(serving.interrupt().success());
    assert!(!path.exists(), "it leaves nothing behind");

    std::fs::write(&path, "somebody's").unwrap();
    let (code, complaint) =
        Serving::try_start(&daemon, &address).err().expect("a file was taken for a socket");
    assert!(code == Some(5) && complaint.contains("is no socket"), "{complaint}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's");
}

#[test]
fn what_can_run_out_is_told() {
    let node = Node::new();
    let daemon = node.start(&Options::beside(CTL));
    let run = |line: &str| {
        let output =
            Command::new(CTL).arg("--socket").arg(&daemon.socket).args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    };
    for line in [
        "bridge add br0",
        "bridge address add br0 10.1.0.1/24",
        "neigh add 10.1.0.9 02:00:00:00:00:09 --bridge br0",
        "neigh add 10.1.0.8 02:00:00:00:00:08 --bridge br0",
        "route add 10.50.0.0/16 blackhole",
        "ipam pool add pods --range 10.9.0.0/24,gateway=10.9.0.1",
    ] {
        run(line);
    }
    let holder = switch_api::Holder { network: "n".into(), container: "c".into(), interface: "i".into() };
    let (pool, addresses) = ("pods".parse().unwrap(), Vec::new());
    let _: Value = daemon.call(&switch_api::Request::LeaseAcquire(switch_api::LeaseAcquire {
        pool,
        holder,
        addresses,
        with_port: false,
    }));
    let scrape = Scrape::parse(&String::from_utf8(print(&daemon, "openmetrics").stdout).unwrap());
    let of = |state| {
        scrape.sum("switch_pool_addresses", &[("pool", "pods"), ("family", "ipv4"), ("state", state)])
    };
    // 256 less the subnet's own, its broadcast address and the gateway.
    assert_eq!([of("free"), of("leased"), of("held")], [252.0, 1.0, 0.0]);
    assert_eq!(scrape.sum("switch_neighbours", &[("bridge", "br0"), ("state", "static")]), 2.0);
    assert_eq!(scrape.sum("switch_routes", &[("origin", "declared")]), 1.0);
    assert!(scrape.sum("switch_table_room", &[("table", "neighbours")]) >= 4096.0);
}

#[test]
fn the_dashboard_asks_for_what_is_there() {
    let node = Node::new();
    let daemon = node.start(&Options::beside(CTL));
    let there = Scrape::parse(&String::from_utf8(print(&daemon, "openmetrics").stdout).unwrap()).names();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/switch.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        expressions.extend(panel["targets"].as_array().unwrap().iter().map(|target| &target["expr"]));
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    expressions.extend(variables.iter().map(|variable| &variable["query"]));
    let mut asked = BTreeSet::new();
    for expression in expressions {
        let words =
            expression.as_str().unwrap().split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        asked.extend(words.filter(|word| word.starts_with("switch_")).map(str::to_owned));
    }
    assert!(asked.len() > 15, "{asked:?}");
    let missing: Vec<_> = asked.difference(&there).collect();
    assert!(missing.is_empty(), "the dashboard asks for {missing:?}");
}
