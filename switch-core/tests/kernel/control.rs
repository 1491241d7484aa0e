//! The socket: hostile clients, second daemons, missing rights. Each mistake has its answer and costs
//! nobody else anything.

use crate::switchd;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use switch_api::{Code, PortStatus, Request, Status};
use switch_lab::{Daemon, Node, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn ask(stream: &mut UnixStream, line: &str) -> serde_json::Value {
    stream.write_all(line.as_bytes()).unwrap();
    stream.write_all(b"\n").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
}

fn is_alive(daemon: &Daemon) -> bool {
    let _: Status = daemon.call(&Request::Status(Default::default()));
    true
}

#[test]
fn malformed_requests_are_answered_by_kind_and_field() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    let mut stream = connect(&daemon);
    let cases = [
        ("{", -32700, None),
        ("[]", -32600, None),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600, Some("method")),
        (r#"{"jsonrpc":"1.0","id":1,"method":"status"}"#, -32600, Some("jsonrpc")),
        (r#"{"jsonrpc":"2.0","id":{},"method":"status"}"#, -32600, Some("id")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"status","params":[1]}"#, -32602, Some("params")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add"}"#, -32602, Some("name")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"no.such"}"#, -32601, Some("method")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add","params":{"name":"a b"}}"#, -32602, Some("name")),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add","params":{"name":"a\u0000"}}"#,
            -32602,
            Some("name"),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add","params":{"name":"../x"}}"#, -32602, Some("name")),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add","params":{"name":"\u202e"}}"#,
            -32602,
            Some("name"),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add","params":{"name":""}}"#, -32602, Some("name")),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add","params":{"name":"x","ageing_s":"no"}}"#,
            -32602,
            Some("ageing_s"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add","params":{"name":"x","colour":1}}"#,
            -32602,
            Some("colour"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add","params":{"name":"x","ageing_s":1}}"#,
            -32602,
            Some("ageing_s"),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"bridge.delete","params":{"name":"x"}}"#, -32002, Some("name")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"hello","params":{"version":99}}"#, -32000, Some("version")),
    ];
    for (line, code, field) in cases {
        let answer = ask(&mut stream, line);
        assert_eq!(answer["error"]["code"], code, "{line}: {answer}");
        assert_eq!(answer["error"]["data"]["field"].as_str(), field, "{line}: {answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
    }
    let good = ask(&mut stream, r#"{"jsonrpc":"2.0","id":"q","method":"bridge.list"}"#);
    assert_eq!((good["id"].as_str(), good["result"].as_array().map(Vec::len)), (Some("q"), Some(0)));
}

#[test]
fn clients_that_misbehave_disturb_nobody() {
    let node = Node::new();
    let daemon = node.start(&switchd());
    // Half a request, and then nothing.
    let mut half = connect(&daemon);
    half.write_all(br#"{"jsonrpc":"2.0","#).unwrap();
    // A line without an end.
    let mut endless = connect(&daemon);
    let chunk = vec![b'x'; 64 * 1024];
    let mut written = 0;
    while written < 3 << 20 {
        match endless.write(&chunk) {
            Ok(n) => written += n,
            Err(_) => break,
        }
    }
    let mut said = String::new();
    // It is let go of by and by, as whoever sent half a request would be: that is not waited for.
    endless.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    _ = endless.read_to_string(&mut said);
    assert!(said.is_empty() || said.contains("-32005"), "{said}");
    // One that asks and asks and never reads.
    let mut deaf = connect(&daemon);
    deaf.set_nonblocking(true).unwrap();
    for _ in 0..200_000 {
        if deaf.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stats.get\"}\n").is_err() {
            break;
        }
    }
    assert!(is_alive(&daemon));
    let memory = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let rss = memory.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
    let kib: u64 = rss.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 120_000, "a client that never reads made the daemon grow: {rss}");
    // More than may be connected at one time.
    let mut crowd: Vec<_> = (0..80).map(|_| connect(&daemon)).collect();
    let mut last = crowd.pop().unwrap();
    let mut said = String::new();
    last.read_to_string(&mut said).unwrap();
    assert!(said.contains("clients are connected already"), "{said}");
    drop(crowd);
    drop(deaf);
    wait_until("there is room again", LONG, || switch_api::Client::connect(&daemon.socket, LONG).is_ok());
    // The half request is still good when its other half comes.
    let answer = ask(&mut half, r#""id":3,"method":"port.list"}"#);
    assert_eq!(answer["id"], 3);
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused() {
    let node = Node::new();
    let mut daemon = node.start(&switchd());
    let second =
        node.net.command(env!("CARGO_BIN_EXE_switchd")).arg("--socket").arg(&daemon.socket).output().unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another switchd serves"), "{said}");
    assert!(is_alive(&daemon));
    // One that was killed leaves its socket file; the next one takes it over.
    daemon.kill();
    assert!(daemon.socket.exists());
    let daemon = node.start(&switchd());
    assert!(is_alive(&daemon));
}

#[test]
fn without_root_it_serves_all_but_xdp_ports_and_says_why() {
    let node = Node::new();
    let directory = node.directory().join("nobody");
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(65_534), Some(65_534)).unwrap();
    let program = std::env::temp_dir().join(format!("switchd-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_switchd"), &program).unwrap();
    let socket = directory.join("switchd.sock");
    let mut child = node
        .net
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .arg("--socket")
        .arg(&socket)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut client = None;
    wait_until("it serves", LONG, || {
        client = switch_api::Client::connect(&socket, LONG).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    let status: Status = client.call(&Request::Status(Default::default())).unwrap();
    assert!(!status.xdp.ok && !status.xdp.detail.is_empty(), "{status:?}");
    let bridge = switch_api::Bridge::new("b".parse().unwrap());
    client.call::<switch_api::Done>(&Request::BridgeAdd(bridge)).unwrap();
    let xdp = switch_lab::node::xdp_port("lo", "b", Default::default());
    let error = client.call::<switch_api::Done>(&Request::PortAdd(Box::new(xdp.clone()))).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    let memory = switch_api::Port { kind: switch_api::PortKind::Memory { source: None }, ..xdp };
    client.call::<switch_api::Done>(&Request::PortAdd(Box::new(memory))).unwrap();
    let ports: Vec<PortStatus> = client.call(&Request::PortList(Default::default())).unwrap();
    assert_eq!(ports[0].state, switch_api::PortState::Up);
    client.call::<switch_api::Done>(&Request::Stop(Default::default())).unwrap();
    assert!(child.wait().unwrap().success());
    std::fs::remove_file(program).unwrap();
}

/// Asks as a member of one group, and of nothing else: only a thread of its own becomes somebody else.
fn ask_as(daemon: &Daemon, gid: u32, request: &'static str) -> String {
    let socket = daemon.socket.clone();
    let thread = std::thread::spawn(move || {
        let (nobody, group) = (rustix::process::Uid::from_raw(65_534), rustix::process::Gid::from_raw(gid));
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        // Who may do nothing is told so without being listened to.
        _ = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(b"\n"));
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    });
    thread.join().unwrap()
}

#[test]
fn rights_follow_credentials() {
    const LOOK: &str = r#"{"jsonrpc":"2.0","id":1,"method":"bridge.list"}"#;
    const HELLO: &str = r#"{"jsonrpc":"2.0","id":1,"method":"hello","params":{"version":2}}"#;
    const OWN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add","params":{"name":"c","owner":"cni"}}"#;
    const OPERATORS: &str = r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add","params":{"name":"b"}}"#;
    const FILE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"name":"p","bridge":"c","owner":"cni","kind":"pcap","write":"/tmp/file"}}"#;
    const STOP: &str = r#"{"jsonrpc":"2.0","id":1,"method":"daemon.stop"}"#;
    let group = |name| switch_core::control::peer::Group::find(name).unwrap().gid;
    let (admins, cni, looking, strangers) = (group("daemon"), group("bin"), group("sys"), group("tty"));
    let node = Node::new();
    let daemon = node.start(&switchd().with("--group daemon --cni-group bin --reader-group sys"));
    std::fs::set_permissions(node.directory(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let is_refused = |gid, request| {
        let answer = ask_as(&daemon, gid, request);
        assert!(answer.contains("result") || answer.contains("-32001"), "{request}: {answer}");
        answer.contains("-32001")
    };
    for (gid, role) in [(admins, "admin"), (cni, "cni"), (looking, "reader")] {
        assert!(ask_as(&daemon, gid, HELLO).contains(&format!(r#""role":"{role}""#)));
        assert!(!is_refused(gid, LOOK), "{role}");
    }
    assert!(is_refused(strangers, LOOK) && is_refused(strangers, HELLO));
    for request in [OWN, OPERATORS, FILE, STOP] {
        assert!(is_refused(looking, request), "{request}");
    }
    for request in [OPERATORS, FILE, STOP] {
        assert!(is_refused(cni, request), "{request}");
    }
    assert!(!is_refused(cni, OWN), "what is the plugin's own");
    assert!(!is_refused(admins, OPERATORS), "an admin may");
    assert!(is_alive(&daemon));

    // Without groups everybody else looks, or does not.
    drop(daemon);
    let daemon = node.start(&switchd().with("--readers"));
    assert!(ask_as(&daemon, strangers, LOOK).contains("result"));
    assert!(ask_as(&daemon, strangers, OWN).contains("-32001"));
}

#[test]
fn options_that_cannot_be_are_refused_with_a_sentence() {
    let node = Node::new();
    for (words, expected) in [
        (vec!["--cores", "999"], "there is no core 999"),
        (vec!["--frames", "0"], "packet memory"),
        (vec!["--frame-size", "1000"], "packet memory"),
        (vec!["--frame-size", "3000"], "packet memory"),
        (vec!["--frame-size", "8192"], "packet memory"),
        (vec!["--group", "no-such-group"], "there is no group"),
        (vec!["--state", "/proc/nowhere/state"], "state file"),
    ] {
        let socket = node.directory().join("s.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchd"));
        let output = command.arg("--socket").arg(&socket).args(&words).output().unwrap();
        assert!(!output.status.success(), "{words:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(expected), "{words:?}: {said}");
    }
}
