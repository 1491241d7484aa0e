//! Clients that send too much, too little, or take nothing: each is told what is wrong where it can be told, and no other client
//! waits for it.

use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use switch_api::codec::{LINE_LEN_MAX, LONG_LINE_LEN_MAX};
use switch_api::{Request, Status};
use switch_lab::{Daemon, Node, Options};

const LONG: Duration = Duration::from_secs(60);
/// Nobody waits so long for his answer because of another client: a third of what one that stalls is given.
const PROMPT: Duration = Duration::from_secs(10);

fn start(node: &Node) -> Daemon {
    node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")))
}

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// A request of exactly so many bytes, its newline included.
fn request_of(len: usize) -> Vec<u8> {
    let mut line = br#"{"jsonrpc":"2.0","id":7,"method":"bridge.list"}"#.to_vec();
    line.resize(len - 1, b' ');
    line.push(b'\n');
    line
}

/// All that the daemon says until it closes the connection; it may close with what was not read.
fn all_that_is_said(stream: &mut UnixStream) -> String {
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => said.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("it was not closed: {error}"),
        }
    }
    String::from_utf8(said).unwrap()
}

fn others_are_served(daemon: &Daemon) {
    let asked = Instant::now();
    let _: Status = daemon.call(&Request::Status(Default::default()));
    assert!(asked.elapsed() < PROMPT, "another client waited {:?}", asked.elapsed());
}

/// A named pipe is opened when somebody writes to it, which nobody does: who names one as a namespace is told that it is none.
#[test]
fn what_is_no_namespace_is_refused_and_nobody_waits_for_it() {
    let node = Node::new();
    // With the process that opens namespaces for it, and without.
    for sandbox in ["", "--no-sandbox"] {
        let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with(sandbox));
        daemon.bridge("br0");
        let pipe = node.directory().join(format!("pipe{sandbox}"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let directory = node.directory().display().to_string();
        for path in
            [&*pipe.display().to_string(), "/dev/zero", "/dev/null", "/etc/passwd", &directory, "/nowhere"]
        {
            let kind = switch_api::PortKind::tap(path);
            let port = switch_api::Port::new("p".parse().unwrap(), "br0".parse().unwrap(), kind);
            let begun = Instant::now();
            let refused =
                daemon.client().call::<switch_api::Done>(&Request::PortAdd(Box::new(port))).unwrap_err();
            assert!(begun.elapsed() < PROMPT, "{path}: {:?}", begun.elapsed());
            assert!(refused.message.contains(path), "{path}: {refused}");
            others_are_served(&daemon);
        }
    }
}

#[test]
fn a_request_that_is_too_long_is_refused_and_ends_the_connection() {
    let node = Node::new();
    let daemon = start(&node);
    // The longest there may be is answered, and the connection goes on.
    let mut stream = connect(&daemon);
    for len in [LINE_LEN_MAX, LINE_LEN_MAX + 1, LONG_LINE_LEN_MAX, LINE_LEN_MAX] {
        stream.write_all(&request_of(len)).unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (&answer["id"], answer["result"].as_array().map(Vec::len)),
            (&7.into(), Some(0)),
            "{answer}"
        );
    }
    // One byte more, with its end and without, and far more: one sentence, no answer to what follows, and the end.
    let too_long = request_of(LONG_LINE_LEN_MAX + 1);
    let follows = [&too_long[..], &request_of(100)].concat();
    let endless = vec![b'x'; 2 * LONG_LINE_LEN_MAX];
    for line in [&too_long[..], &follows, &endless[..=LONG_LINE_LEN_MAX], &endless] {
        let mut stream = connect(&daemon);
        // It may be refused, and the connection closed, before all is written.
        _ = stream.write_all(line);
        is_refused(&mut stream, &LONG_LINE_LEN_MAX.to_string());
        others_are_served(&daemon);
    }
    assert!(stream.write_all(&request_of(100)).is_ok(), "the first client is still connected");
}

/// One sentence that names this, and the end.
fn is_refused(stream: &mut UnixStream, names: &str) {
    let said = all_that_is_said(stream);
    assert_eq!(said.lines().count(), 1, "{said}");
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&answer["id"], answer["error"]["code"].as_i64()), (&Value::Null, Some(-32005)), "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains(names), "{message}");
    assert!(!answer["error"]["data"]["hint"].as_str().unwrap().is_empty());
}

/// Anonymous memory of the daemon, in bytes.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Half of a giant from each of many clients: no more memory than is set aside for all of them together, the next one is told so, nobody
/// else waits, and when they are gone there is room again.
#[test]
fn half_sent_giants_have_one_room_together() {
    let node = Node::new();
    let daemon = start(&node);
    let before = resident(&daemon);
    let half = vec![b' '; LONG_LINE_LEN_MAX / 2];
    let mut giants = Vec::new();
    // Four halves are all that there is room for; a little is left for what rounding takes.
    for _ in 0..3 {
        let mut stream = connect(&daemon);
        stream.write_all(&half).unwrap();
        giants.push(stream);
    }
    others_are_served(&daemon);
    let mut refused = connect(&daemon);
    _ = refused.write_all(&[&half[..], &half[1..], b"\n"].concat());
    is_refused(&mut refused, "long requests");
    let taken = resident(&daemon).saturating_sub(before);
    assert!(taken < 3 * LONG_LINE_LEN_MAX as u64, "{taken} bytes for halves of three giants");
    // An ordinary request always has room, whatever giants there are.
    let mut stream = connect(&daemon);
    stream.write_all(&request_of(LINE_LEN_MAX)).unwrap();
    assert!(BufReader::new(&stream).read_line(&mut String::new()).unwrap() > 0);
    drop(giants);
    let mut stream = connect(&daemon);
    stream.write_all(&request_of(LONG_LINE_LEN_MAX)).unwrap();
    assert!(BufReader::new(&stream).read_line(&mut String::new()).unwrap() > 0);
}

/// Connects as often as it is asked to, as a user who is no admin; only a thread of its own becomes somebody else.
fn crowd_of(daemon: &Daemon, uid: u32, count: usize) -> Vec<UnixStream> {
    let socket = daemon.socket.clone();
    let thread = std::thread::spawn(move || {
        let (user, group) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(uid));
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        (0..count).map(|_| UnixStream::connect(&socket).unwrap()).collect()
    });
    thread.join().unwrap()
}

/// Who only looks, says nothing and reads nothing may stay; but not so that nobody else comes in.
#[test]
fn a_crowd_that_only_looks_locks_nobody_out() {
    let node = Node::new();
    let daemon = node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with("--readers"));
    let mut crowd = crowd_of(&daemon, 65_534, 80);
    others_are_served(&daemon);
    let last = crowd.last_mut().unwrap();
    last.set_read_timeout(Some(LONG)).unwrap();
    is_refused(last, "of user 65534");
    // Another user looks beside it, and a crowd of users leaves room for whoever may more.
    let mut other = crowd_of(&daemon, 65_533, 1).remove(0);
    other.set_read_timeout(Some(LONG)).unwrap();
    other.write_all(&request_of(100)).unwrap();
    assert!(BufReader::new(&other).read_line(&mut String::new()).unwrap() > 0);
    let crowds: Vec<_> = (0..60).map(|n| crowd_of(&daemon, 60_000 + n, 1)).collect();
    others_are_served(&daemon);
    drop((crowd, crowds));
}

#[test]
fn half_a_request_waits_for_its_other_half_and_disturbs_nobody() {
    let node = Node::new();
    let daemon = start(&node);
    let line = request_of(100);
    let mut halves: Vec<_> = (0..20).map(|_| connect(&daemon)).collect();
    halves.iter_mut().for_each(|stream| stream.write_all(&line[..40]).unwrap());
    others_are_served(&daemon);
    // One hangs up in the middle, one says that nothing more will come: nothing is answered, and nothing asked.
    halves.pop();
    let mut quiet = halves.pop().unwrap();
    quiet.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all_that_is_said(&mut quiet), "");
    // The others get their answers, byte by byte or at once; two requests in one write are two answers.
    for stream in &mut halves {
        for byte in &line[40..60] {
            stream.write_all(&[*byte]).unwrap();
        }
        stream.write_all(&[&line[60..], &line].concat()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(all_that_is_said(stream).matches(r#""id":7"#).count(), 2);
    }
    others_are_served(&daemon);
}

#[test]
fn a_client_that_never_reads_is_not_listened_to_and_loses_no_answer() {
    let node = Node::new();
    let daemon = start(&node);
    let mut deaf = connect(&daemon);
    deaf.set_nonblocking(true).unwrap();
    let (mut asked, mut pending) = (0u64, Vec::new());
    let begun = Instant::now();
    // It asks until nobody takes what it says: its answers fill the way back, and then its questions the way there.
    loop {
        if pending.is_empty() {
            asked += 1;
            pending =
                format!("{{\"jsonrpc\":\"2.0\",\"id\":{asked},\"method\":\"stats.get\"}}\n").into_bytes();
        }
        match deaf.write(&pending) {
            Ok(n) => drop(pending.drain(..n)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                others_are_served(&daemon);
                if begun.elapsed() > Duration::from_millis(500) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(asked < 200_000, "everything it says is kept for it");
    }
    // What a client may make the daemon keep for it is bounded.
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = kib.split_whitespace().next().unwrap().parse().unwrap();
    assert!(kib < 120_000, "{kib} KiB");
    // Now it reads: every question that it put whole is answered, in order.
    deaf.set_nonblocking(false).unwrap();
    let mut writer = deaf.try_clone().unwrap();
    let rest = std::thread::spawn(move || {
        writer.write_all(&pending).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let ids = BufReader::new(&deaf).lines().map(|line| {
        let answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert!(answer["result"].is_object(), "{answer}");
        answer["id"].as_u64().unwrap()
    });
    assert!(ids.eq(1..=asked));
    rest.join().unwrap();
}
